//! Writes files to their objects, for the master.

use std::sync::Arc;

use actix::{Actor, Context, Handler, ResponseFuture};
use bytes::Bytes;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{ExportFile, FileExported, ReadBlock};
use curvine_protocol::{BlockRef, Error, ErrorKind, Result};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::disk::{Grant, Store};
use super::disks::Disks;
use super::source::ByteStream;
use super::ufs_reader::Resolver;
use crate::kit::{Answer, Ask};

/// Bytes read from a block at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces read ahead of the object store.
const PIECES_AHEAD: usize = 4;

/// Exports what is on this worker. Holds nothing but the ways to the disks and to the under file systems.
pub struct UfsWriter {
    disks: Disks,
    resolver: Arc<Resolver>,
}

impl UfsWriter {
    pub fn new(disks: Disks, resolver: Arc<Resolver>) -> Self {
        UfsWriter { disks, resolver }
    }
}

impl Actor for UfsWriter {
    type Context = Context<Self>;
}

impl Handler<Ask<ExportFile>> for UfsWriter {
    type Result = ResponseFuture<Result<Answer<ExportFile>>>;

    fn handle(&mut self, Ask { call, .. }: Ask<ExportFile>, _: &mut Self::Context) -> Self::Result {
        let (disks, resolver) = (self.disks.clone(), self.resolver.clone());
        Box::pin(async move {
            let source = resolver.source(call.mount).await?;
            let content = content(disks, &call)?;
            let version = source
                .write(&call.key, content)
                .await
                .map_err(|e| e.while_doing(format_args!("writing `{}`", call.key)))?;
            Ok(Answer::new(FileExported { version }))
        })
    }
}

/// One stretch of a file.
enum Piece {
    Data(BlockRef, u64, u32),
    Hole(u64),
}

/// The bytes of a file in order: blocks verified as they are read, zeros where they have holes.
fn content(disks: Disks, call: &ExportFile) -> Result<ByteStream> {
    let block_bytes = call.layout.attr.block_bytes;
    if block_bytes == 0 && call.size_bytes > 0 {
        return Err(Error::invalid(format!(
            "inode {} has no block length",
            call.inode
        )));
    }
    let (layout, size_bytes) = (call.layout.clone(), call.size_bytes);
    // One block after the other: a sparse file may have any number of pieces.
    let pieces = (0..size_bytes.div_ceil(block_bytes.max(1))).flat_map(move |index| {
        let covered = block_bytes.min(size_bytes - index * block_bytes);
        let placed = u32::try_from(index).ok().and_then(|index| layout.block_at(index));
        let block = placed.map(|located| located.block);
        let data = block.map_or(0, |block| block.len_bytes.min(covered));
        let held = block.into_iter().flat_map(|block| {
            let starts = (0..data).step_by(to_usize(PIECE_BYTES));
            starts.map(move |at| {
                let len = u32::try_from(PIECE_BYTES.min(data - at)).expect("a piece is small");
                Piece::Data(block, at, len)
            })
        });
        let starts = (data..covered).step_by(to_usize(PIECE_BYTES));
        let zeros = starts.map(move |at| Piece::Hole(PIECE_BYTES.min(covered - at)));
        held.chain(zeros).collect::<Vec<_>>()
    });
    let read = futures::stream::iter(pieces).map(move |piece| {
        let disks = disks.clone();
        async move {
            match piece {
                Piece::Hole(len) => Ok(Bytes::from(vec![0; to_usize(len)])),
                Piece::Data(block, at, len) => read_piece(&disks, block, at, len).await,
            }
        }
    });
    Ok(read.buffered(PIECES_AHEAD).boxed())
}

async fn read_piece(disks: &Disks, block: BlockRef, at: u64, len: u32) -> Result<Bytes> {
    let call = ReadBlock {
        block: block.id,
        generation: block.generation,
        offset_bytes: at,
        len_bytes: len,
        fill: None,
    };
    if let Some((disk, Grant::Ready(_) | Grant::Look)) = disks.grant(&call)? {
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
        return Ok(bytes);
    }
    Err(Error::new(
        ErrorKind::BlockUnavailable,
        format!(
            "block {} is not on the worker that was asked to export it",
            block.id
        ),
    ))
}
