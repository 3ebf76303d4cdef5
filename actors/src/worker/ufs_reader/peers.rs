//! What another worker has of a block, in the place of the under file system, for a copy on the reader's host.
//!
//! Invariant: it is of this very generation, sealed or fetched from the same version of the object, and passes its checksums.
//! What no peer gives comes from the under file system.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{Fill, ReadBlock};
use curvine_protocol::{BlockRef, Error, ErrorKind, Result, UfsVersion, WorkerId};
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt, try_unfold};
use tokio::time::timeout;

use crate::kit::WorkerRef;
use crate::ufs::changes::{Replacement, Written};
use crate::ufs::upload_notes::Upload;
use crate::worker::replication::{read_call, read_there};
use crate::worker::source::{ByteStream, ObjectSource};
use crate::worker::traffic::Counts;

/// Bytes asked for at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// So long a peer may take for them, which may have to fetch them itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// One block of an object, from the workers that have it or fetch it.
#[derive(Clone)]
pub struct Peers {
    pub block: BlockRef,
    /// Where the block starts in the object.
    pub object_offset_bytes: u64,
    /// How a peer gets what it has not.
    pub fill: Fill,
    pub workers: Vec<(WorkerId, WorkerRef)>,
    /// Where the bytes come from that no peer gives.
    pub store: Arc<dyn ObjectSource>,
    /// What counts those.
    pub counts: Arc<Counts>,
}

/// How far a read has come.
struct Reading {
    peers: Peers,
    key: String,
    version: UfsVersion,
    /// What is still to be read, of the object.
    range: Range<u64>,
    /// Where no peer gave a piece: the rest.
    rest: Option<ByteStream>,
}

impl Peers {
    /// A piece of the object, from the first that gives it.
    async fn piece(&self, range: Range<u64>) -> Result<Bytes> {
        let at = range.start - self.object_offset_bytes;
        let len_bytes = to_u32(to_usize(range.end - range.start));
        let mut last = Error::new(ErrorKind::BlockUnavailable, "nobody else has it");
        for (worker, port) in &self.workers {
            let call = ReadBlock {
                fill: Some(self.fill.clone()),
                exact: true,
                ..read_call(self.block, at, len_bytes)
            };
            let read = read_there(port, *worker, call, &self.block);
            match timeout(PATIENCE, read).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::new(ErrorKind::Timeout, format!("no answer from worker {worker}")),
            }
        }
        Err(last)
    }
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        if self.rest.is_none() {
            if self.range.is_empty() {
                return Ok(None);
            }
            let end = self.range.end.min(self.range.start + PIECE_BYTES);
            match self.peers.piece(self.range.start..end).await {
                Ok(bytes) => {
                    self.range.start = end;
                    return Ok(Some((bytes, self)));
                }
                Err(error) => {
                    tracing::debug!(block = %self.peers.block.id, %error, "the store has it, too");
                    let read = self
                        .peers
                        .store
                        .read(&self.key, self.range.clone(), &self.version);
                    self.rest = Some(read.await?);
                }
            }
        }
        let Some(rest) = &mut self.rest else {
            return Ok(None);
        };
        let bytes = rest.try_next().await?;
        Ok(bytes.map(|bytes| {
            self.peers.counts.fetched(bytes.len());
            (bytes, self)
        }))
    }
}

#[async_trait]
impl ObjectSource for Peers {
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream> {
        let reading = Reading {
            peers: self.clone(),
            key: key.to_owned(),
            version: version.clone(),
            range,
            rest: None,
        };
        Ok(try_unfold(reading, Reading::next).boxed())
    }

    async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        how: Replacement<'_>,
        may_finish: BoxFuture<'_, Result<()>>,
    ) -> Result<Written> {
        self.store.replace(key, content, how, may_finish).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<bool> {
        self.store.abort_upload(upload).await
    }
}
