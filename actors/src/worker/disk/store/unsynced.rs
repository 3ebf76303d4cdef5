//! What was sealed and is not on the device yet.

use std::collections::HashSet;

use curvine_protocol::BlockId;

/// Above this many, one sync of the whole file system is cheaper.
const SINGLE_SYNCS_MAX: usize = 64;

/// Blocks that the next background sync is for.
pub struct Unsynced {
    sealed: HashSet<BlockId>,
    /// Those that a sync has begun with: they are on the device when it has ended.
    syncing: HashSet<BlockId>,
    /// Nobody knows which they are: after a run that was killed, and after a sync that failed.
    any: bool,
    /// The number of the last sync that was begun. They go on over restarts.
    round: u64,
}

/// What a sync is to put on the device.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    Everything,
    Blocks(Vec<BlockId>),
}

impl Unsynced {
    /// At a start; `killed` if the last run ended without its last sync, and the machine went on. `round` is the number of
    /// the last sync that ended.
    pub fn after(killed: bool, round: u64) -> Self {
        Unsynced {
            sealed: HashSet::new(),
            syncing: HashSet::new(),
            any: killed,
            round,
        }
    }

    /// A block is sealed without a sync. Answers with the number of the one that will put it on the device.
    pub fn sealed(&mut self, block: BlockId) -> u64 {
        self.sealed.insert(block);
        self.round + 1
    }

    /// Whether a block may not be on the device.
    pub fn has(&self, block: BlockId) -> bool {
        self.any || self.sealed.contains(&block) || self.syncing.contains(&block)
    }

    /// A sync begins: of everything that is sealed by now. There is one at a time. None if there is nothing to do; else
    /// its number, too.
    pub fn begin(&mut self) -> Option<(Todo, u64)> {
        self.syncing.extend(self.sealed.drain());
        let todo = match self.any || self.syncing.len() > SINGLE_SYNCS_MAX {
            true => Todo::Everything,
            false if self.syncing.is_empty() => return None,
            false => Todo::Blocks(self.syncing.iter().copied().collect()),
        };
        self.round += 1;
        Some((todo, self.round))
    }

    /// It has ended.
    pub fn ended(&mut self, succeeded: bool) {
        self.any = !succeeded;
        if succeeded {
            self.syncing.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(7);

    #[test]
    fn a_block_is_on_the_device_when_a_sync_has_ended_that_began_after_its_seal() {
        let mut unsynced = Unsynced::after(false, 40);
        assert!(!unsynced.has(BLOCK));
        assert_eq!(unsynced.begin(), None);
        assert_eq!(unsynced.sealed(BLOCK), 41);
        assert_eq!(unsynced.begin(), Some((Todo::Blocks(vec![BLOCK]), 41)));
        assert!(unsynced.has(BLOCK), "the sync has not ended");
        assert_eq!(
            unsynced.sealed(BlockId(8)),
            42,
            "too late for the one that is under way"
        );
        unsynced.ended(true);
        assert_eq!((unsynced.has(BLOCK), unsynced.has(BlockId(8))), (false, true));
    }

    #[test]
    fn after_a_kill_and_after_a_failed_sync_everything_is_synced() {
        let mut unsynced = Unsynced::after(true, 0);
        assert!(
            unsynced.has(BLOCK),
            "the run before did not say what it had to sync"
        );
        assert_eq!(unsynced.begin(), Some((Todo::Everything, 1)));
        unsynced.ended(true);
        assert!(!unsynced.has(BLOCK));
        unsynced.sealed(BLOCK);
        unsynced.begin();
        unsynced.ended(false);
        assert!(unsynced.has(BLOCK));
        assert_eq!(unsynced.begin(), Some((Todo::Everything, 3)));
    }

    #[test]
    fn many_blocks_are_one_sync() {
        let mut unsynced = Unsynced::after(false, 0);
        for block in 0..=SINGLE_SYNCS_MAX as u64 {
            unsynced.sealed(BlockId(block));
        }
        assert_eq!(unsynced.begin(), Some((Todo::Everything, 1)));
    }
}
