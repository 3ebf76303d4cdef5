//! Makes replicas of blocks that other workers have, for the master.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{CopyReplica, ReadBlock, Wish};
use curvine_protocol::{BlockRef, CallContext, ErrorKind, Result, WorkerId};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::disks::{Disks, Need};
use super::pace::Pace;
use crate::client::file::read::{in_memory, verify};
use crate::kit::{Ask, Endpoint, WorkerConnector, WorkerRef};

/// Bytes asked for at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces read ahead of the disk.
const PIECES_AHEAD: usize = 4;

/// Holds nothing but the ways to the disks and to other workers. Cheap to clone.
#[derive(Clone)]
pub struct Replication {
    disks: Disks,
    peers: Arc<dyn WorkerConnector>,
    pace: Arc<Pace>,
}

impl Replication {
    /// Takes no more from others than the pace allows.
    pub fn new(disks: Disks, peers: Arc<dyn WorkerConnector>, pace: Pace) -> Self {
        Replication {
            disks,
            peers,
            pace: Arc::new(pace),
        }
    }

    /// Makes a replica be here, whole and on the device.
    ///
    /// # Errors
    /// Those of [`CopyReplica`].
    pub async fn copy(&self, call: CopyReplica) -> Result<()> {
        let CopyReplica {
            block,
            from,
            address,
            others,
        } = call;
        let mut sources = vec![(from, self.peers.connect(from, &address))];
        for WorkerAddress { id, address, .. } in others {
            sources.push((id, self.peers.connect(id, &address)));
        }
        let need = Need {
            bytes: block.len_bytes,
            hint_bytes: block.len_bytes,
            until_bytes: block.len_bytes,
            tier: None,
        };
        let (_entered, disk) = self.disks.for_replica(block.id, need).await?;
        let _room = disk.store.make_room(block.id, block.len_bytes).await;
        if block.len_bytes <= PIECE_BYTES {
            self.pace.take(block.len_bytes).await;
            let body = piece(&sources, &block, 0).await?;
            return disk.put_replica(block, body).await;
        }
        let Some(mut copying) = disk.begin_copy(block).await? else {
            return Ok(());
        };
        let starts = stream::iter((0..block.len_bytes).step_by(to_usize(PIECE_BYTES)));
        let mut pieces = starts
            .map(|at| piece(&sources, &block, at))
            .buffered(PIECES_AHEAD);
        while let Some(bytes) = pieces.try_next().await? {
            self.pace.take(bytes.len() as u64).await;
            copying = disk.write_copy(block.id, copying, bytes).await?;
        }
        drop(pieces);
        disk.end_copy(block.id, copying).await
    }
}

/// The bytes of a block from an offset on, as many as are asked for at a time.
/// Where that is not right, it is made of chunks that are, each of the first worker that has it right.
async fn piece(sources: &[(WorkerId, WorkerRef)], block: &BlockRef, at: u64) -> Result<Bytes> {
    let len_bytes = u32::try_from(PIECE_BYTES.min(block.len_bytes - at)).expect("a piece is small");
    let read = |(worker, port): &(WorkerId, WorkerRef), at: u64, len_bytes: u32| {
        let call = ReadBlock {
            exact: true,
            tier: Wish::UNSAID,
            ..read_call(*block, at, len_bytes)
        };
        let (worker, port) = (*worker, port.clone());
        async move { read_there(&port, worker, call, block).await }
    };
    let (first, others) = sources.split_first().expect("there is one to copy from");
    let failed = match read(first, at, len_bytes).await {
        Err(error) if error.kind == ErrorKind::Corrupt && !others.is_empty() => error,
        outcome => return outcome,
    };
    let mut made = BytesMut::with_capacity(len_bytes as usize);
    let end = at + u64::from(len_bytes);
    for chunk in (at..end).step_by(to_usize(CHUNK_BYTES)) {
        let len_bytes = u32::try_from(CHUNK_BYTES.min(end - chunk)).expect("a chunk is small");
        let mut found = Err(failed.clone());
        for source in sources {
            found = read(source, chunk, len_bytes).await;
            if found.is_ok() {
                break;
            }
        }
        made.extend_from_slice(&found.map_err(|_| failed.clone())?);
    }
    Ok(made.freeze())
}

/// A read of a block as it is known, or newer.
pub fn read_call(block: BlockRef, offset_bytes: u64, len_bytes: u32) -> ReadBlock {
    ReadBlock {
        block: block.id,
        generation: block.generation,
        offset_bytes,
        len_bytes,
        fill: None,
        exact: false,
        tier: Wish::UNSAID,
    }
}

/// All that a call asks of another worker for, verified.
///
/// # Errors
/// The worker's; `Corrupt` if what it sends is wrong or too little.
pub async fn read_there(
    port: &WorkerRef,
    worker: WorkerId,
    call: ReadBlock,
    block: &BlockRef,
) -> Result<Bytes> {
    let end = call.offset_bytes + u64::from(call.len_bytes);
    let mut got = Vec::with_capacity(call.len_bytes as usize);
    while got.len() < call.len_bytes as usize {
        let begun = u32::try_from(got.len()).expect("a piece is small");
        let call = ReadBlock {
            offset_bytes: call.offset_bytes + u64::from(begun),
            len_bytes: call.len_bytes - begun,
            ..call.clone()
        };
        let asked = call.offset_bytes..end;
        let answer = Endpoint::<ReadBlock>::ask(&**port, Ask::new(call, CallContext::default())).await?;
        let bytes = in_memory(answer.body).await?;
        verify(&answer.reply, &bytes, asked, block, worker)?;
        if got.is_empty() && bytes.len() == got.capacity() {
            return Ok(bytes);
        }
        got.extend_from_slice(&bytes);
    }
    Ok(got.into())
}
