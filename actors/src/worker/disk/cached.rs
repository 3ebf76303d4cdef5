//! The cached blocks of a disk, which of them are spared for a while, and which are pinned: pure.
//!
//! Invariants:
//! - A block that is spared is not chosen, and what is remembered of those that are spared is bounded.
//! - A block that is pinned is never chosen: the policy does not know it. It takes an entry of a hash map in memory instead.

use std::collections::HashMap;
use std::time::Duration;

use curvine_conf::EvictionPolicy;
use curvine_protocol::BlockId;
use tokio::time::Instant;

use super::policy::Policy;

/// For so long a block stays that was fetched for a writer, who cannot write a part of it without the rest.
pub const SPARED: Duration = Duration::from_secs(60);
/// Blocks that are spared. Writers of more of them at once fetch again what went.
const SPARED_MAX: usize = 4_096;

/// See the module.
pub struct Cached {
    policy: Policy,
    /// Until when.
    spared: HashMap<BlockId, Instant>,
    /// What each takes on the device.
    pinned: HashMap<BlockId, u64>,
    pinned_bytes: u64,
}

impl Cached {
    /// The blocks that may go with what they take, those that are to go first at the beginning.
    pub fn new(order: EvictionPolicy, blocks: impl IntoIterator<Item = (BlockId, u64)>) -> Self {
        let mut policy = Policy::new(order);
        for (block, bytes) in blocks {
            policy.came(block, bytes);
        }
        Cached {
            policy,
            spared: HashMap::new(),
            pinned: HashMap::new(),
            pinned_bytes: 0,
        }
    }

    /// What those that may go take on the device.
    pub fn bytes(&self) -> u64 {
        self.policy.bytes()
    }

    /// What those that are pinned take on the device.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// A cached block is here that may go.
    pub fn came(&mut self, block: BlockId, bytes: u64) {
        self.unpin(block);
        self.policy.came(block, bytes);
    }

    /// A cached block is here that is pinned.
    pub fn pin(&mut self, block: BlockId, bytes: u64) {
        self.policy.removed(block);
        self.unpin(block);
        self.pinned.insert(block, bytes);
        self.pinned_bytes += bytes;
    }

    fn unpin(&mut self, block: BlockId) {
        self.pinned_bytes -= self.pinned.remove(&block).unwrap_or(0);
    }

    pub fn is_pinned(&self, block: BlockId) -> bool {
        self.pinned.contains_key(&block)
    }

    pub fn used(&mut self, block: BlockId) {
        self.policy.used(block);
    }

    /// A block is gone, or kept from now on.
    pub fn removed(&mut self, block: BlockId) {
        self.policy.removed(block);
        self.spared.remove(&block);
        self.unpin(block);
    }

    /// A block that was chosen stays after all.
    pub fn stays(&mut self, block: BlockId, bytes: u64) {
        if !self.is_pinned(block) {
            self.policy.stays(block, bytes);
        }
    }

    /// A writer is about to write a part of a block.
    pub fn spare(&mut self, block: BlockId, now: Instant) {
        if self.spared.len() >= SPARED_MAX {
            self.spared.retain(|_, until| *until > now);
        }
        if self.spared.len() < SPARED_MAX {
            self.spared.insert(block, now + SPARED);
        }
    }

    pub fn is_spared(&self, block: BlockId, now: Instant) -> bool {
        self.spared.get(&block).is_some_and(|until| *until > now)
    }

    /// See [`Policy::choose`].
    pub fn choose(
        &mut self,
        need_bytes: u64,
        now: Instant,
        is_in_use: impl Fn(BlockId) -> bool,
    ) -> Vec<(BlockId, u64)> {
        let spared = &self.spared;
        let is_spared = |block| spared.get(&block).is_some_and(|until| *until > now);
        self.policy
            .choose(need_bytes, |block| !is_spared(block) && !is_in_use(block))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What may happen to a block.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Came(u64),
        Pinned(u64),
        Used,
        Removed,
        Stays,
        Chosen,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..20u64).prop_map(Event::Came),
            (1..20u64).prop_map(Event::Pinned),
            Just(Event::Used),
            Just(Event::Removed),
            Just(Event::Stays),
            Just(Event::Chosen),
        ]
    }

    fn order() -> impl Strategy<Value = EvictionPolicy> {
        prop_oneof![
            Just(EvictionPolicy::S3Fifo),
            Just(EvictionPolicy::Lru),
            Just(EvictionPolicy::Lfu)
        ]
    }

    proptest! {
        #[test]
        fn what_is_pinned_is_never_chosen_and_counts_by_what_it_takes(
            order in order(),
            events in prop::collection::vec((0..8u64, event()), 1..200),
        ) {
            let now = Instant::now();
            let (mut cached, mut pinned) = (Cached::new(order, []), HashMap::new());
            for (block, event) in events {
                let id = BlockId(block);
                match event {
                    Event::Came(bytes) => {
                        cached.came(id, bytes);
                        pinned.remove(&id);
                    }
                    Event::Pinned(bytes) => {
                        cached.pin(id, bytes);
                        pinned.insert(id, bytes);
                    }
                    Event::Used => cached.used(id),
                    Event::Removed => {
                        cached.removed(id);
                        pinned.remove(&id);
                    }
                    Event::Stays => cached.stays(id, 5),
                    Event::Chosen => {
                        let chosen = cached.choose(u64::MAX, now, |_| false);
                        prop_assert!(chosen.iter().all(|(block, _)| !pinned.contains_key(block)));
                        prop_assert_eq!(cached.bytes(), 0, "all others went");
                    }
                }
                prop_assert_eq!(cached.pinned_bytes(), pinned.values().sum::<u64>());
                prop_assert_eq!(cached.is_pinned(id), pinned.contains_key(&id));
            }
        }
    }

    #[test]
    fn a_block_is_spared_for_a_while_and_no_more_are_than_the_limit() {
        let now = Instant::now();
        let mut cached = Cached::new(EvictionPolicy::Lru, [(BlockId(1), 10), (BlockId(2), 10)]);
        cached.spare(BlockId(1), now);
        assert_eq!(cached.choose(20, now, |_| false), [(BlockId(2), 10)]);
        assert_eq!(cached.choose(20, now + SPARED, |_| false), [(BlockId(1), 10)]);
        (0..SPARED_MAX as u64 + 9).for_each(|block| cached.spare(BlockId(block), now));
        assert_eq!(cached.spared.len(), SPARED_MAX);
        cached.spare(BlockId(1 << 40), now + SPARED);
        assert!(cached.is_spared(BlockId(1 << 40), now + SPARED) && cached.spared.len() == 1);
    }
}
