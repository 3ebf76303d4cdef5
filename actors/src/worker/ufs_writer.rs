//! Writes files to their objects, for the master.
//!
//! Blocks are read here or from other workers, verified. Before the object becomes visible, the master is asked whether the
//! export is still wanted, and still of the file as it is: so a worker that was cut off or stopped meanwhile leaves nothing
//! behind that nobody expects.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use bytes::Bytes;
use curvine_protocol::attr::{LocatedBlock, WorkerAddress};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{ExportFile, FileExported};
use curvine_protocol::{BlockRef, EffectId, Error, ErrorKind, Result, WorkerId};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::disk::{Grant, Store};
use super::disks::Disks;
use super::replication::{read_call, read_there};
use super::source::ByteStream;
use super::ufs_reader::Resolver;
use crate::crash_points::{Point, crash_point};
use crate::kit::{Answer, Ask, WorkerConnector};
use crate::ufs::changes::{Replacement, Written};

/// Bytes read from a block at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces read ahead of the object store.
const PIECES_AHEAD: usize = 4;

/// Exports files. Holds nothing but the ways to the disks, to other workers and to the under file systems.
pub struct UfsWriter {
    blocks: Blocks,
    resolver: Arc<Resolver>,
}

impl UfsWriter {
    pub fn new(disks: Disks, peers: Arc<dyn WorkerConnector>, resolver: Arc<Resolver>) -> Self {
        UfsWriter {
            blocks: Blocks { disks, peers },
            resolver,
        }
    }
}

impl Actor for UfsWriter {
    type Context = Context<Self>;
}

impl Handler<Ask<ExportFile>> for UfsWriter {
    type Result = ResponseFuture<Result<Answer<ExportFile>>>;

    fn handle(&mut self, Ask { call, .. }: Ask<ExportFile>, _: &mut Self::Context) -> Self::Result {
        let (blocks, resolver) = (self.blocks.clone(), self.resolver.clone());
        Box::pin(async move {
            let source = resolver.source(call.mount).await?;
            let content = content(blocks, &call)?;
            let how = Replacement {
                replaces: call.replaces.as_ref(),
                mark: &call.mark,
                attributes: call.attributes.as_ref(),
            };
            let may_finish = async {
                match call.effect {
                    // A master of an older version does not know of effects.
                    EffectId(0) => {}
                    effect => resolver.confirm_export(effect).await?,
                }
                crash_point(Point::ExportConfirmed);
                Ok(())
            };
            let written = source
                .replace(&call.key, content, how, Box::pin(may_finish))
                .await
                .map_err(|e| e.while_doing(format_args!("writing `{}`", call.key)))?;
            crash_point(Point::ExportWritten);
            match written {
                Written::Stored(version) => Ok(Answer::new(FileExported { version })),
                Written::Conflict(_) => Err(Error::new(
                    ErrorKind::UfsChanged,
                    format!("`{}` was changed by somebody else meanwhile", call.key),
                )),
            }
        })
    }
}

/// One stretch of a file.
enum Piece {
    Data(LocatedBlock, u64, u32),
    Hole(u64),
}

/// The bytes of a file in order: blocks verified as they are read, zeros where they have holes.
fn content(from: Blocks, call: &ExportFile) -> Result<ByteStream> {
    let block_bytes = call.layout.attr.block_bytes;
    if block_bytes == 0 && call.size_bytes > 0 {
        return Err(Error::invalid(format!(
            "inode {} has no block length",
            call.inode
        )));
    }
    let (layout, size_bytes) = (call.layout.clone(), call.size_bytes);
    let workers: Arc<[WorkerAddress]> = layout.workers.clone().into();
    // One block after the other: a sparse file may have any number of pieces.
    let pieces = (0..size_bytes.div_ceil(block_bytes.max(1))).flat_map(move |index| {
        let covered = block_bytes.min(size_bytes - index * block_bytes);
        let placed = u32::try_from(index)
            .ok()
            .and_then(|index| layout.block_at(index))
            .cloned();
        let data = placed
            .as_ref()
            .map_or(0, |placed| placed.block.len_bytes.min(covered));
        let held = placed.into_iter().flat_map(|placed| {
            let starts = (0..data).step_by(to_usize(PIECE_BYTES));
            starts.map(move |at| {
                let len = u32::try_from(PIECE_BYTES.min(data - at)).expect("a piece is small");
                Piece::Data(placed.clone(), at, len)
            })
        });
        let starts = (data..covered).step_by(to_usize(PIECE_BYTES));
        let zeros = starts.map(move |at| Piece::Hole(PIECE_BYTES.min(covered - at)));
        held.chain(zeros).collect::<Vec<_>>()
    });
    let read = futures::stream::iter(pieces).map(move |piece| {
        let (from, workers) = (from.clone(), workers.clone());
        async move {
            match piece {
                Piece::Hole(len) => Ok(Bytes::from(vec![0; to_usize(len)])),
                Piece::Data(placed, at, len) => {
                    crash_point(Point::ExportRead);
                    from.read(&placed, &workers, at, len).await
                }
            }
        }
    });
    Ok(read.buffered(PIECES_AHEAD).boxed())
}

/// The blocks of the cluster: those here, and those of other workers.
#[derive(Clone)]
struct Blocks {
    disks: Disks,
    peers: Arc<dyn WorkerConnector>,
}

impl Blocks {
    /// # Errors
    /// The last of those who should have it; `BlockUnavailable` if that is nobody.
    async fn read(
        &self,
        placed: &LocatedBlock,
        workers: &[WorkerAddress],
        at: u64,
        len: u32,
    ) -> Result<Bytes> {
        let block = placed.block;
        let mut outcome = self.read_here(block, at, len).await;
        for &worker in &placed.workers {
            match outcome {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) | Err(_) => {
                    outcome = self.read_there(block, worker, workers, at, len).await.map(Some)
                }
            }
        }
        outcome?.ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("no live worker holds block {block}", block = block.id),
            )
        })
    }

    /// None if it is not on this worker.
    async fn read_here(&self, block: BlockRef, at: u64, len: u32) -> Result<Option<Bytes>> {
        loop {
            let before = self.disks.handed_over();
            match self.read_once_here(block, at, len).await {
                // It went to another disk.
                Err(error) if error.kind == ErrorKind::NotFound && self.disks.handed_over() != before => {}
                outcome => return outcome,
            }
        }
    }

    async fn read_once_here(&self, block: BlockRef, at: u64, len: u32) -> Result<Option<Bytes>> {
        let call = read_call(block, at, len);
        let Some((disk, Grant::Ready(_) | Grant::Look)) = self.disks.grant(&call)? else {
            return Ok(None);
        };
        let (done, looked) = oneshot::channel();
        let read = move |store: &Arc<Store>| {
            let _ = done.send(store.read(&call).and_then(|answer| answer.body.read()));
        };
        disk.store.on_lane(block.id, read);
        let bytes = looked
            .await
            .unwrap_or_else(|_| Err(Error::internal("a read was given up")))?;
        if bytes.len() != len as usize {
            return Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "block {} is shorter on this worker than in the namespace",
                    block.id
                ),
            ));
        }
        Ok(Some(bytes))
    }

    async fn read_there(
        &self,
        block: BlockRef,
        worker: WorkerId,
        workers: &[WorkerAddress],
        at: u64,
        len: u32,
    ) -> Result<Bytes> {
        let known = workers.iter().find(|known| known.id == worker);
        let address = known.map(|known| known.address.as_str()).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("nobody knows where worker {worker} is"),
            )
        })?;
        let port = self.peers.connect(worker, address);
        read_there(&port, worker, read_call(block, at, len), &block).await
    }
}
