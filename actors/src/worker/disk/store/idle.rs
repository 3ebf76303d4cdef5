//! Blocks that were written, and whose writers say nothing more: they get their checksums all the same.
//!
//! Until a block is sealed, what was written last has its checksums in memory, or none. A writer that dies, or that has a file
//! open and does nothing, would leave it so for as long as the file lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use curvine_protocol::{BlockId, Result};

use super::super::record::BlockState;
use super::{Store, lock};

/// Ticks without a change, after which a block is sealed.
const IDLE_TICKS: u32 = 30;
/// Blocks of one lane that are sealed in one tick. Some must be read for it.
const SEALS_PER_TICK: usize = 8;

/// Blocks that the index says are being written, and which no lane has in memory: for how many ticks.
#[derive(Default)]
pub struct LeftOpen(BTreeMap<BlockId, u32>);

impl LeftOpen {
    pub fn new(blocks: Vec<BlockId>) -> Self {
        LeftOpen(blocks.into_iter().map(|block| (block, 0)).collect())
    }

    pub fn insert(&mut self, block: BlockId) {
        self.0.insert(block, 0);
    }

    /// One tick more. Takes out those whose time has come, at most so many.
    fn due(&mut self, is_asked: impl Fn(BlockId) -> bool, most: usize) -> Vec<BlockId> {
        let mut due = Vec::new();
        for (&block, ticks) in self.0.iter_mut().filter(|(block, _)| is_asked(**block)) {
            *ticks += 1;
            if *ticks >= IDLE_TICKS && due.len() < most {
                due.push(block);
            }
        }
        self.0.retain(|block, _| !due.contains(block));
        due
    }
}

impl Store {
    /// A tick: has each lane seal what has not been changed for long.
    pub fn seal_idle(self: &Arc<Self>) {
        for (number, lane) in self.lanes.iter().enumerate() {
            let store = self.clone();
            lane.offload.run(Box::new(move || store.seal_idle_of(number)));
        }
    }

    /// On that lane.
    fn seal_idle_of(self: &Arc<Self>, lane: usize) {
        let mut idle = Vec::new();
        for (&block, open) in lock(&self.lanes[lane].open).iter_mut() {
            open.idle_ticks += 1;
            if open.idle_ticks >= IDLE_TICKS {
                idle.push(block);
            }
        }
        idle.sort_unstable();
        idle.truncate(SEALS_PER_TICK);
        let rest = SEALS_PER_TICK - idle.len();
        idle.extend(lock(&self.left_open).due(|block| self.lane_number(block) == lane, rest));
        for block in idle {
            if let Err(error) = self.seal_if_left(block) {
                tracing::warn!(
                    "block {block} on disk {} stays without checksums: {error}",
                    self.name
                );
            }
        }
    }

    /// Unless a power cut has made it doubtful: what counts of that, the masters say.
    fn seal_if_left(&self, block: BlockId) -> Result<()> {
        match self.record(block)? {
            Some(record) if matches!(record.state, BlockState::Writing { .. }) && !record.flags.doubtful => {
                tracing::debug!("block {block} is sealed as its writer has left it");
                self.seal_as_it_is(block)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_open_is_due_after_its_ticks_and_in_parts() {
        let mut left = LeftOpen::new(vec![BlockId(1), BlockId(2), BlockId(3), BlockId(4)]);
        let is_asked = |block: BlockId| block != BlockId(2);
        for _ in 1..IDLE_TICKS {
            assert_eq!(left.due(is_asked, 2), Vec::new());
        }
        left.insert(BlockId(3));
        assert_eq!(left.due(is_asked, 1), vec![BlockId(1)]);
        assert_eq!(left.due(is_asked, 1), vec![BlockId(4)], "the third began again");
        assert_eq!(left.due(is_asked, 1), Vec::new());
    }
}
