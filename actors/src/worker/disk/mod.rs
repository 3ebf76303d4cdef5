//! One data directory of a worker: the blocks in it, their index, states, checksums and space.
//!
//! - [`Disk`]: the actor: opening, ticks, removals, the stop.
//! - [`DiskRef`]: the way to its lanes. Each block belongs to one lane, which owns every change to it, so that what
//!   happens to one block happens in order and nothing of it is shared.
//! - [`Store`]: the same blocks for reading, from any thread: a read of a sealed block is a look into the index and a
//!   grant on an open file, and waits for nobody.
//! - pure: [`record`], [`open_block`], [`order`], [`bitmap`], [`space`]; [`recency`] knows what was used lately, [`victims`] says what
//!   goes, [`policy`] which cached blocks go first.
//!
//! Invariants:
//! - Nothing is acknowledged before the index transaction that says so is committed; a killed process loses none.
//! - A chunk is dirty in the index before the first byte of it changes, so a checksum in the index that is not marked
//!   is right, always, or the device is at fault.
//! - A block is deleted in the index first and then as a file: a file that the index does not know is garbage.

mod actor;
mod bitmap;
mod cached;
mod departed;
mod device;
mod index;
mod layout;
mod open_block;
mod order;
mod policy;
mod recency;
mod record;
mod recovery;
mod scrub;
mod space;
mod store;
mod victims;

use std::time::Duration;

use curvine_conf::{EvictionPolicy, FsyncPolicy};
use curvine_protocol::BlockId;
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::number::to_usize;

pub use actor::{AccountFor, Disk, DiskRef, ListReplicas, Permit, RemoveBlocks, ScrubNow, StopDisk};
pub use bitmap::Bitmap;
pub use open_block::Piece;
pub use order::Numbers;
#[cfg(test)]
pub(super) use record::RecordView;
pub use record::{BlockFlags, BlockRecord, BlockState, chunks_of};
pub use recovery::Unsettled;
pub use store::{
    Brief, Chunks, Copying, FillStart, Grant, Leaving, LentFile, Loan, Room, Store, Whole, answer_with,
    missing,
};
pub use victims::Removal;

/// What the Disk needs to know besides its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Free bytes to leave on the device. None: 1 % of it, at least 1 GiB.
    pub reserve_bytes: Option<u64>,
    pub fsync: FsyncPolicy,
    pub open_files_max: usize,
    /// Threads for data; blocks are spread over them.
    pub lanes: usize,
    pub tick: Duration,
    /// Bytes that the scrubber verifies each tick; 0 = it does not.
    pub scrub_bytes_per_tick: u64,
    /// Which cached blocks go first.
    pub eviction: EvictionPolicy,
    /// Percent of the disk that may be used before cached blocks go in the background.
    pub evict_high: u64,
    /// Percent of the disk that is used when that ends.
    pub evict_low: u64,
    /// Whether there is a slower disk: then what goes from this one above its watermark goes there.
    pub sinks: bool,
}

/// What a disk tells about its blocks after the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockNews {
    Stored(BlockReplica),
    /// See [`BlockFlags::doubtful`].
    Doubtful(BlockReplica),
    /// Stored where it may not be read again: others are to have it as if this one were not there.
    Endangered(BlockReplica),
    Removed(BlockId),
    /// Removed, and its bytes are set aside: they failed their checksum, and may be nowhere else.
    Damaged(BlockId),
    /// All that the disk has is to be told again: it has failed.
    Everything,
}

impl BlockNews {
    /// Of which block they are; none if of all.
    pub fn block(&self) -> Option<BlockId> {
        match self {
            BlockNews::Stored(replica) | BlockNews::Doubtful(replica) | BlockNews::Endangered(replica) => {
                Some(replica.id)
            }
            BlockNews::Removed(block) | BlockNews::Damaged(block) => Some(*block),
            BlockNews::Everything => None,
        }
    }
}

/// Cuts a body at the chunk boundaries of the block it goes to.
pub fn pieces_of(offset_bytes: u64, body: &[u8]) -> Vec<Piece> {
    let head = to_usize(CHUNK_BYTES - offset_bytes % CHUNK_BYTES).min(body.len());
    let (head, tail) = body.split_at(head);
    let mut at = offset_bytes;
    std::iter::once(head)
        .chain(tail.chunks(to_usize(CHUNK_BYTES)))
        .filter(|part| !part.is_empty())
        .map(|part| {
            let piece = Piece {
                offset_bytes: at,
                len_bytes: part.len() as u64,
                checksum: crc32c(part),
            };
            at += piece.len_bytes;
            piece
        })
        .collect()
}
