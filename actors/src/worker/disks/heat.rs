//! How hot blocks are: how often they were read lately, by passes, not by calls. Pure.
//!
//! A reader that goes through a block with many calls has read it once. What is read twice within minutes is hot; the number
//! fades, by half every [`HALF_LIFE`].
//!
//! Invariant: at most [`BLOCKS_MAX`] blocks are remembered, with 48 bytes or so each; what does not find room is cold.

use std::collections::HashMap;
use std::time::Duration;

use curvine_protocol::BlockId;
use tokio::time::Instant;

/// After so long a read counts for half.
pub const HALF_LIFE: Duration = Duration::from_secs(600);
/// Calls that follow each other within this time are of the same pass, wherever in the block they read.
const PASS: Duration = Duration::from_secs(1);
/// A block is hot that was read twice, not too long ago.
const HOT: f64 = 1.5;
/// Less than this is forgotten first.
const COLD: f64 = 0.5;
pub const BLOCKS_MAX: usize = 1 << 16;

#[derive(Default)]
pub struct Heat {
    read: HashMap<BlockId, Read>,
}

struct Read {
    /// By passes, as of the last one.
    passes: f64,
    at: Instant,
    /// Where a call begins that goes on with what is read.
    next_bytes: u64,
}

impl Read {
    fn now(&self, now: Instant) -> f64 {
        let ages = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.passes * 0.5f64.powf(ages)
    }
}

impl Heat {
    /// A call reads so much of a block.
    pub fn read(&mut self, block: BlockId, offset_bytes: u64, len_bytes: u64, now: Instant) {
        let next_bytes = offset_bytes + len_bytes;
        if let Some(read) = self.read.get_mut(&block) {
            let goes_on = read.next_bytes == offset_bytes && offset_bytes > 0;
            if !goes_on && now.saturating_duration_since(read.at) >= PASS {
                read.passes = read.now(now) + 1.0;
                read.at = now;
            }
            read.next_bytes = next_bytes;
            return;
        }
        if self.read.len() >= BLOCKS_MAX {
            self.read.retain(|_, read| read.now(now) >= COLD);
        }
        if self.read.len() < BLOCKS_MAX {
            let read = Read {
                passes: 1.0,
                at: now,
                next_bytes,
            };
            self.read.insert(block, read);
        }
    }

    /// How hot a block is: passes, of which those long ago count for less.
    pub fn of(&self, block: BlockId, now: Instant) -> f64 {
        self.read.get(&block).map_or(0.0, |read| read.now(now))
    }

    /// The blocks that are hot, the hottest first.
    pub fn hottest(&self, now: Instant) -> Vec<(BlockId, f64)> {
        let heat = self.read.iter().map(|(block, read)| (*block, read.now(now)));
        let mut hot: Vec<_> = heat.filter(|(_, heat)| *heat >= HOT).collect();
        hot.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        hot
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_pass_counts_once_and_a_second_one_makes_a_block_hot() {
        let (mut heat, begun) = (Heat::default(), Instant::now());
        for (second, piece) in (0..64u64).enumerate() {
            let now = begun + Duration::from_secs(second as u64);
            heat.read(BlockId(1), piece * MIB, MIB, now);
        }
        let later = begun + Duration::from_secs(90);
        assert_eq!(heat.hottest(later), [], "one slow pass");
        heat.read(BlockId(1), 0, MIB, later);
        heat.read(BlockId(2), 0, MIB, later);
        let hot: Vec<_> = heat.hottest(later).into_iter().map(|(block, _)| block).collect();
        assert_eq!(hot, [BlockId(1)]);
        assert!(heat.of(BlockId(1), later) > heat.of(BlockId(2), later));
        let long_after = later + 8 * HALF_LIFE;
        assert_eq!(heat.hottest(long_after), [], "it fades");
    }

    #[test]
    fn reads_all_over_a_block_count_once_a_second() {
        let (mut heat, now) = (Heat::default(), Instant::now());
        for piece in [9, 3, 7, 0, 5u64] {
            heat.read(BlockId(1), piece * MIB, 4096, now);
        }
        assert_eq!(heat.of(BlockId(1), now), 1.0);
        heat.read(BlockId(1), 2 * MIB, 4096, now + PASS);
        assert_eq!(heat.hottest(now + PASS).len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_cold_blocks_are_forgotten_first() {
        let (mut heat, now) = (Heat::default(), Instant::now());
        (0..BLOCKS_MAX as u64 + 5).for_each(|block| heat.read(BlockId(block), 0, 1, now));
        assert_eq!(heat.read.len(), BLOCKS_MAX);
        let later = now + 2 * HALF_LIFE;
        heat.read(BlockId(1), 0, 1, later);
        heat.read(BlockId(u64::MAX), 0, 1, later);
        assert_eq!(heat.read.len(), 2, "the one that was read again, and the new one");
    }
}
