//! Which blocks must not be evicted, as the master says. For the block's lane.
//!
//! Invariants:
//! - A pin is on the device when it is acknowledged, and stays over a restart.
//! - An order that comes late unpins nothing: one to pin that was made later is remembered by its number.

use std::sync::Arc;

use curvine_protocol::{BlockId, Result};

use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::{Done, Store, lock};

impl Store {
    /// Has a block be pinned, or not, on the device, before `done` is told that it is. False if there is nothing here to
    /// be pinned, if somebody is writing it, so that it is kept, or if the order is late.
    pub fn set_pinned(self: &Arc<Self>, block: BlockId, pinned: bool, number: u64, done: Done<bool>) {
        let record = match self.to_be_pinned(block, pinned, number) {
            Err(error) => return done(Err(error)),
            Ok(None) => return done(Ok(false)),
            Ok(Some(record)) => record,
        };
        let flags = BlockFlags {
            pinned,
            ..record.flags
        };
        let record = BlockRecord { flags, ..record };
        if flags.from_ufs {
            self.is_cached(block, &record);
        }
        let mut changes = vec![Change::Put(block, record.encode())];
        if pinned {
            changes.push(Change::PinnedFrom(number));
        }
        let is_pinned = move |outcome: Result<()>| done(outcome.map(|()| true));
        self.index.submit(self.update(block, changes, true, is_pinned));
    }

    fn to_be_pinned(&self, block: BlockId, pinned: bool, number: u64) -> Result<Option<BlockRecord>> {
        let Some(record) = self.record(block)? else {
            return Ok(None);
        };
        let is_open = lock(&self.lane(block).open).contains_key(&block);
        let is_late = !pinned && number < self.index.pinned_from()?;
        let is_written = is_open || matches!(record.state, BlockState::Writing { .. });
        Ok((!is_written && !is_late).then_some(record))
    }
}
