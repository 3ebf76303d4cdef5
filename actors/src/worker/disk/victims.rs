//! What goes from a disk, and what of it is kept aside: pure.
//!
//! Every choice of what is dropped belongs here, from blocks that somebody wants removed to what is only forgotten in
//! memory. What it needs to know (records, times, limits) are its arguments; the store carries out what was chosen.
//!
//! Invariants:
//! - What was written after the order to remove a block was given stays.
//! - Bytes that may exist nowhere else are never deleted for being corrupt.

use std::collections::HashMap;

use curvine_protocol::BlockId;

use super::BlockFlags;

/// A block to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    pub block: BlockId,
    /// A newer generation stays.
    pub upto_generation: Option<u32>,
}

impl Removal {
    /// For a block that nobody will ever ask for again.
    pub fn whatever_it_is(block: BlockId) -> Self {
        Removal {
            block,
            upto_generation: None,
        }
    }

    /// Whether a block of this generation goes.
    pub fn takes(&self, generation: u32) -> bool {
        self.upto_generation.is_none_or(|upto| generation <= upto)
    }
}

/// A corrupt block is put aside instead of deleted if its bytes may be nowhere else.
pub fn goes_aside(flags: BlockFlags) -> bool {
    !flags.may_go()
}

/// Which of the blocks that a lane has open is forgotten for one more. Any will do: it is read back when needed.
pub fn forgotten_for_one_more<T>(open: &HashMap<BlockId, T>, max: usize) -> Option<BlockId> {
    match open.len() >= max {
        true => open.keys().next().copied(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_takes_what_is_not_newer_than_it() {
        let order = Removal {
            block: BlockId(1),
            upto_generation: Some(4),
        };
        assert!(order.takes(3) && order.takes(4) && !order.takes(5));
        assert!(Removal::whatever_it_is(BlockId(1)).takes(u32::MAX));
    }

    #[test]
    fn only_what_an_under_file_system_has_is_deleted_for_being_corrupt() {
        let fetched = BlockFlags {
            from_ufs: true,
            ..BlockFlags::default()
        };
        assert!(!goes_aside(fetched) && goes_aside(BlockFlags::default()));
    }

    #[test]
    fn one_open_block_is_forgotten_for_another_when_there_are_as_many_as_may_be() {
        let open = HashMap::from([(BlockId(1), ()), (BlockId(2), ())]);
        assert_eq!(forgotten_for_one_more(&open, 3), None);
        let forgotten = forgotten_for_one_more(&open, 2);
        assert!(forgotten.is_some_and(|block| open.contains_key(&block)));
    }
}
