//! Objects in memory, as an under file system.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use curvine_protocol::attr::UfsSource;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::Fill;
use curvine_protocol::{
    Attr, BlockId, BlockRef, Error, ErrorKind, FileKind, FileLayout, InodeId, LocatedBlock, MountId, Result,
    UfsVersion,
};
use futures::StreamExt;
use futures::future::BoxFuture;

use crate::ufs::changes::{Replacement, Written};
use crate::ufs::upload_notes::{Upload, UploadNotes};
use crate::worker::source::{ByteStream, ObjectSource, Sources};

pub struct Objects {
    pub state: Mutex<State>,
    /// Reads wait here while it is closed.
    pub gate: tokio::sync::Semaphore,
    /// Reads that have come as far as there.
    pub asked: AtomicUsize,
}

#[derive(Default)]
pub struct State {
    pub objects: HashMap<String, (Bytes, UfsVersion)>,
    /// What was read of each object.
    pub reads: Vec<(String, Range<u64>)>,
    /// So many reads fail before one succeeds.
    pub failures: u32,
    /// Bytes are cut from the end of each answer.
    pub short_by: usize,
    /// Whoever was opened with another one is refused.
    pub token: Option<String>,
    /// The ids of uploads that were aborted.
    pub aborted: Vec<String>,
}

impl Objects {
    pub fn open() -> Arc<Self> {
        let objects = Self::closed();
        objects.gate.add_permits(1_000_000);
        objects
    }

    pub fn closed() -> Arc<Self> {
        Arc::new(Objects {
            state: Mutex::default(),
            gate: tokio::sync::Semaphore::new(0),
            asked: AtomicUsize::new(0),
        })
    }

    pub fn put(&self, key: &str, etag: &str, content: Bytes) -> UfsVersion {
        let version = UfsVersion {
            size_bytes: content.len() as u64,
            mtime_ms: 1,
            etag: Some(etag.to_owned()),
        };
        let mut state = self.state.lock().unwrap();
        state.objects.insert(key.to_owned(), (content, version.clone()));
        version
    }

    pub fn bytes_read(&self) -> u64 {
        let state = self.state.lock().unwrap();
        state.reads.iter().map(|(_, range)| range.end - range.start).sum()
    }
}

pub struct Opener(pub Arc<Objects>);

impl Sources for Opener {
    fn open(&self, mount: &MountRecord, _: &UploadNotes) -> Result<Arc<dyn ObjectSource>> {
        let token = mount.options.get("session_token").cloned();
        Ok(Arc::new(Bucket(self.0.clone(), token)))
    }
}

/// The objects, and the token that they are asked for with.
struct Bucket(Arc<Objects>, Option<String>);

#[async_trait]
impl ObjectSource for Bucket {
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.gate.acquire().await.unwrap().forget();
        let mut state = self.0.state.lock().unwrap();
        if state.token != self.1 {
            return Err(Error::new(ErrorKind::UfsDenied, "the credentials have expired"));
        }
        if state.failures > 0 {
            state.failures -= 1;
            return Err(Error::new(ErrorKind::Ufs, "503 slow down"));
        }
        state.reads.push((key.to_owned(), range.clone()));
        let short_by = state.short_by;
        match state.objects.get(key) {
            Some((content, is)) if is == version => {
                let end = to_usize(range.end).saturating_sub(short_by);
                let part = content.slice(to_usize(range.start)..end);
                // Pieces of a length that fits no chunk.
                let pieces: Vec<_> = (0..part.len())
                    .step_by(10_007)
                    .map(|at| Ok(part.slice(at..(at + 10_007).min(part.len()))))
                    .collect();
                Ok(futures::stream::iter(pieces).boxed())
            }
            _ => Err(Error::new(ErrorKind::UfsChanged, format!("`{key}` changed"))),
        }
    }

    async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        _how: Replacement<'_>,
        may_finish: BoxFuture<'_, Result<()>>,
    ) -> Result<Written> {
        let pieces: Vec<_> = content.collect().await;
        let content = pieces.into_iter().collect::<Result<Vec<_>>>()?.concat();
        may_finish.await?;
        Ok(Written::Stored(self.0.put(key, "written", content.into())))
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<bool> {
        self.0.state.lock().unwrap().aborted.push(upload.id.clone());
        Ok(true)
    }
}

/// The layout of a file over an object; its blocks have the ids from `first_block` on.
pub fn layout(inode: u64, key: &str, version: &UfsVersion, block_bytes: u64, first_block: u64) -> FileLayout {
    let size_bytes = version.size_bytes;
    let blocks = (0..size_bytes.div_ceil(block_bytes)).map(|index| LocatedBlock {
        block: BlockRef {
            id: BlockId(first_block + index),
            len_bytes: block_bytes.min(size_bytes - index * block_bytes),
            generation: 1,
        },
        workers: vec![],
    });
    FileLayout {
        attr: Attr {
            inode: InodeId(inode),
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            btime_ns: 0,
            rdev: 0,
            block_bytes,
            replicas: 1,
            content_version: 1,
            ufs: Some(version.clone()),
            hole_bytes: 0,
            bare: false,
            has_acl: false,
        },
        blocks: blocks.collect(),
        workers: vec![],
        source: Some(UfsSource {
            mount: MountId(1),
            key: key.to_owned(),
            version: version.clone(),
            until_generation: u32::MAX,
        }),
        indexes: Vec::new(),
        damaged: Vec::new(),
        tier: None,
    }
}

pub fn fill(inode: u64, block_index: u32) -> Option<Fill> {
    Some(Fill {
        inode: InodeId(inode),
        block_index,
        whole: false,
        mount: Some(MountId(1)),
        from_store: false,
    })
}
