//! Blocks that went from a disk, and why: pure. Kept in memory for people who ask, since the worker started.
//!
//! Invariant: no more are remembered than [`DEPARTED_MAX`], those that went last.

use std::collections::{HashMap, VecDeque};

use curvine_protocol::BlockId;
use curvine_protocol::worker::{Departure, Gone};

/// About 4 MiB.
const DEPARTED_MAX: usize = 1 << 16;

/// See the module.
#[derive(Default)]
pub struct Departed {
    /// With the number of its last departure.
    last: HashMap<BlockId, (u64, Departure)>,
    /// Oldest first. Some went again since.
    order: VecDeque<(u64, BlockId)>,
    number: u64,
}

impl Departed {
    pub fn went(&mut self, block: BlockId, at_ms: i64, why: Gone) {
        self.number += 1;
        self.last.insert(block, (self.number, Departure { at_ms, why }));
        self.order.push_back((self.number, block));
        while self.order.len() > DEPARTED_MAX {
            let oldest = self.order.pop_front();
            if let Some((number, block)) = oldest
                && self.last.get(&block).is_some_and(|(last, _)| *last == number)
            {
                self.last.remove(&block);
            }
        }
    }

    pub fn of(&self, block: BlockId) -> Option<Departure> {
        self.last.get(&block).map(|(_, departure)| departure.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_went_last_are_remembered_with_their_last_reason() {
        let mut departed = Departed::default();
        departed.went(BlockId(1), 1, Gone::Evicted);
        departed.went(BlockId(2), 2, Gone::Ordered);
        departed.went(BlockId(1), 3, Gone::Corrupt);
        for other in 3..=DEPARTED_MAX as u64 {
            departed.went(BlockId(other + 10), 4, Gone::Evicted);
        }
        let at_ms = |block| departed.of(BlockId(block)).map(|departure| departure.at_ms);
        assert_eq!((at_ms(1), at_ms(2)), (Some(3), Some(2)), "one entry was too many");
        departed.went(BlockId(9), 5, Gone::Evicted);
        let gone = |block| departed.of(BlockId(block));
        assert_eq!(gone(2), None);
        let last = Departure {
            at_ms: 3,
            why: Gone::Corrupt,
        };
        assert_eq!(gone(1), Some(last));
    }
}
