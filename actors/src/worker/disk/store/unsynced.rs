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
}

/// What a sync is to put on the device.
#[derive(Debug, PartialEq, Eq)]
pub enum Todo {
    Everything,
    Blocks(Vec<BlockId>),
}

impl Unsynced {
    /// At a start; `killed` if the last run ended without its last sync, and the machine went on.
    pub fn after(killed: bool) -> Self {
        Unsynced {
            sealed: HashSet::new(),
            syncing: HashSet::new(),
            any: killed,
        }
    }

    /// A block is sealed without a sync.
    pub fn sealed(&mut self, block: BlockId) {
        self.sealed.insert(block);
    }

    /// Whether a block may not be on the device.
    pub fn has(&self, block: BlockId) -> bool {
        self.any || self.sealed.contains(&block) || self.syncing.contains(&block)
    }

    /// A sync begins: of everything that is sealed by now. There is one at a time.
    pub fn begin(&mut self) -> Todo {
        self.syncing.extend(self.sealed.drain());
        match self.any || self.syncing.len() > SINGLE_SYNCS_MAX {
            true => Todo::Everything,
            false => Todo::Blocks(self.syncing.iter().copied().collect()),
        }
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
        let mut unsynced = Unsynced::after(false);
        assert!(!unsynced.has(BLOCK));
        unsynced.sealed(BLOCK);
        assert_eq!(unsynced.begin(), Todo::Blocks(vec![BLOCK]));
        assert!(unsynced.has(BLOCK), "the sync has not ended");
        unsynced.sealed(BlockId(8));
        unsynced.ended(true);
        assert_eq!((unsynced.has(BLOCK), unsynced.has(BlockId(8))), (false, true));
    }

    #[test]
    fn after_a_kill_and_after_a_failed_sync_everything_is_synced() {
        let mut unsynced = Unsynced::after(true);
        assert!(
            unsynced.has(BLOCK),
            "the run before did not say what it had to sync"
        );
        assert_eq!(unsynced.begin(), Todo::Everything);
        unsynced.ended(true);
        assert!(!unsynced.has(BLOCK));
        unsynced.sealed(BLOCK);
        unsynced.begin();
        unsynced.ended(false);
        assert!(unsynced.has(BLOCK));
        assert_eq!(unsynced.begin(), Todo::Everything);
    }

    #[test]
    fn many_blocks_are_one_sync() {
        let mut unsynced = Unsynced::after(false);
        let blocks = 0..=SINGLE_SYNCS_MAX as u64;
        blocks.for_each(|block| unsynced.sealed(BlockId(block)));
        assert_eq!(unsynced.begin(), Todo::Everything);
    }
}
