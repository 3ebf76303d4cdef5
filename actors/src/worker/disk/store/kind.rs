//! Of which kind a block is, as the master says. For the block's lane.
//!
//! A block that is fetched is cached, and one that is written is kept, without anybody's word. The master's word is for what
//! no worker sees: that an object is about to go, of which this is the last copy; or that an object has what was written.

use std::sync::Arc;

use curvine_protocol::Result;
use curvine_protocol::worker::MarkedBlock;

use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::{Done, Store, lock};

impl Store {
    /// Has a block be kept, or cached, on the device, before `done` is told that it is. False if it is not here as the
    /// master knows it: to be kept, it must be whole, and no older; to be cached, of exactly this generation, and nobody may
    /// be writing it.
    ///
    /// `number` says where the order stands among others, see [`curvine_protocol::worker::MarkBlocks`].
    pub fn set_kind(self: &Arc<Self>, marked: MarkedBlock, cached: bool, number: u64, done: Done<bool>) {
        let block = marked.block;
        let mut changes = Vec::new();
        match self.to_be_marked(marked, cached, number) {
            Err(error) => return done(Err(error)),
            Ok(Found::NotAsMeant) => return done(Ok(false)),
            Ok(Found::BeingWritten) => {}
            Ok(Found::Whole(record)) => {
                let flags = BlockFlags {
                    from_ufs: cached,
                    synced: true,
                    ..record.flags
                };
                let record = BlockRecord {
                    flags,
                    rewritten: None,
                    round: 0,
                    mount: marked.mount.or(record.mount),
                    ..record
                };
                changes.push(Change::Put(block, record.encode()));
                match cached {
                    true => self.is_cached(block, &record),
                    false => self.is_cached_no_more(block),
                }
            }
        }
        if !cached {
            changes.push(Change::CachedFrom(number));
        }
        let marked = move |outcome: Result<()>| done(outcome.map(|()| true));
        self.index.submit(self.update(block, changes, true, marked));
    }

    fn to_be_marked(&self, marked: MarkedBlock, cached: bool, number: u64) -> Result<Found> {
        let MarkedBlock {
            block, generation, ..
        } = marked;
        let Some(record) = self.record(block)? else {
            return Ok(Found::NotAsMeant);
        };
        let is_open = lock(&self.lane(block).open).contains_key(&block);
        let is_meant = match cached {
            true => !is_open && record.generation == generation && number >= self.index.cached_from()?,
            false => record.generation >= generation,
        };
        let is_meant = is_meant && !record.flags.doubtful;
        match record.state {
            BlockState::Sealed if is_meant => {
                // What it stands for is on the device from now on.
                if !record.flags.synced && !record.flags.in_index {
                    self.sync_file(&*self.file(block)?, block)?;
                }
                Ok(Found::Whole(record))
            }
            BlockState::Writing { .. } if is_meant && !cached => Ok(Found::BeingWritten),
            _ => Ok(Found::NotAsMeant),
        }
    }
}

/// What is here of a block that is to be marked.
enum Found {
    Whole(BlockRecord),
    /// So it is kept.
    BeingWritten,
    NotAsMeant,
}
