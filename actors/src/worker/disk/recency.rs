//! Which blocks of a disk were used lately: pure.
//!
//! Whatever is remembered of uses belongs here. It is told of each use by whoever serves it, and looks at neither a
//! clock nor the disk; what goes when there is no room is for [`super::victims`] to say. The index keeps one time of
//! each block, [`BlockRecord::accessed_ms`](super::BlockRecord::accessed_ms).
//!
//! Invariants: the memory is bounded, and loses nothing that the index or a file does not have.

use curvine_protocol::BlockId;
use quick_cache::sync::Cache;

/// Something of each of the blocks that were used lately. A use is a [`Recent::get`] or a [`Recent::insert`].
pub struct Recent<T> {
    kept: Cache<BlockId, T>,
}

impl<T: Clone> Recent<T> {
    /// Of so many blocks at most.
    pub fn new(blocks_max: usize) -> Self {
        Recent {
            kept: Cache::new(blocks_max),
        }
    }

    pub fn get(&self, block: BlockId) -> Option<T> {
        self.kept.get(&block)
    }

    pub fn insert(&self, block: BlockId, value: T) {
        self.kept.insert(block, value);
    }

    pub fn remove(&self, block: BlockId) {
        self.kept.remove(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_blocks_are_remembered_than_the_limit_and_the_one_in_use_is_among_them() {
        let recent = Recent::new(10);
        recent.insert(BlockId(0), 0);
        for block in 1..1_000 {
            assert_eq!(recent.get(BlockId(0)), Some(0), "used all the time");
            recent.insert(BlockId(block), block);
        }
        let kept = (0..1_000).filter(|&block| recent.get(BlockId(block)).is_some());
        assert_eq!(kept.count(), 10);
        recent.remove(BlockId(0));
        assert_eq!(recent.get(BlockId(0)), None);
    }
}
