//! The cached blocks of a disk, which of them are spared for a while, held for load jobs, or pinned: pure.
//!
//! Invariants:
//! - A block that is spared is not chosen, and what is remembered of those that are spared is bounded.
//! - A block that is held for a load job goes for others who need the room, and not for that job; what is remembered of it is
//!   an entry of a hash map in memory, until the job has asked for nothing for a while.
//! - A block that is pinned is never chosen: the policy does not know it. It takes an entry of a hash map in memory instead.

use std::collections::HashMap;
use std::time::Duration;

use curvine_conf::EvictionPolicy;
use curvine_protocol::{BlockId, JobId};
use tokio::time::Instant;

use super::policy::Policy;

/// For so long a block stays that was fetched for a writer, who cannot write a part of it without the rest.
pub const SPARED: Duration = Duration::from_secs(60);
/// Blocks that are spared. Writers of more of them at once fetch again what went.
const SPARED_MAX: usize = 4_096;

/// For so long after a load job asked for blocks last, what it brought is held.
pub const HELD: Duration = Duration::from_secs(120);

/// For whose sake blocks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A writer, a reader, a copy.
    Anybody,
    Load(JobId),
    /// Nobody needs the room yet.
    Watermark,
}

/// See the module.
pub struct Cached {
    policy: Policy,
    /// Until when.
    spared: HashMap<BlockId, Instant>,
    held: HashMap<JobId, Held>,
    /// What each takes on the device.
    pinned: HashMap<BlockId, u64>,
    pinned_bytes: u64,
}

/// What a load job has brought.
struct Held {
    until: Instant,
    /// What each takes on the device, as far as it may go.
    blocks: HashMap<BlockId, u64>,
    bytes: u64,
}

impl Held {
    fn set(&mut self, block: BlockId, bytes: u64) {
        if let Some(taken) = self.blocks.get_mut(&block) {
            self.bytes = self.bytes - *taken + bytes;
            *taken = bytes;
        }
    }
}

/// What does not go for somebody's sake.
fn held_against(held: &HashMap<JobId, Held>, whom: For, now: Instant) -> impl Iterator<Item = &Held> {
    let is_against = move |job: JobId| match whom {
        For::Anybody => false,
        For::Load(its) => job == its,
        For::Watermark => true,
    };
    let held = held.iter();
    let held = held.filter(move |(job, held)| held.until > now && is_against(**job));
    held.map(|(_, held)| held)
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
            held: HashMap::new(),
            pinned: HashMap::new(),
            pinned_bytes: 0,
        }
    }

    /// What those that may go take on the device.
    pub fn bytes(&self) -> u64 {
        self.policy.bytes()
    }

    /// What may go for somebody's sake takes on the device.
    pub fn bytes_for(&self, whom: For, now: Instant) -> u64 {
        let held = held_against(&self.held, whom, now).map(|held| held.bytes);
        // A block that several jobs hold counts for each: rather too little goes.
        self.bytes().saturating_sub(held.sum())
    }

    /// What those that are pinned take on the device.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// A cached block is here that may go.
    pub fn came(&mut self, block: BlockId, bytes: u64) {
        self.unpin(block);
        self.policy.came(block, bytes);
        self.held.values_mut().for_each(|held| held.set(block, bytes));
    }

    /// A cached block is here that is pinned.
    pub fn pin(&mut self, block: BlockId, bytes: u64) {
        self.policy.removed(block);
        self.held.values_mut().for_each(|held| held.set(block, 0));
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
        for held in self.held.values_mut() {
            held.set(block, 0);
            held.blocks.remove(&block);
        }
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

    /// A load job brings a block, or has found it here.
    pub fn hold(&mut self, job: JobId, block: BlockId, now: Instant) {
        self.load_goes_on(job, now);
        let bytes = self.policy.bytes_of(block);
        if let Some(held) = self.held.get_mut(&job) {
            held.blocks.entry(block).or_insert(0);
            held.set(block, bytes);
        }
    }

    /// A load job still asks for blocks.
    pub fn load_goes_on(&mut self, job: JobId, now: Instant) {
        self.held.retain(|_, held| held.until > now);
        let held = self.held.entry(job).or_insert_with(|| Held {
            until: now,
            blocks: HashMap::new(),
            bytes: 0,
        });
        held.until = now + HELD;
    }

    /// Whether a block does not go for somebody's sake.
    pub fn is_held(&self, block: BlockId, whom: For, now: Instant) -> bool {
        held_against(&self.held, whom, now).any(|held| held.blocks.contains_key(&block))
    }

    pub fn is_spared(&self, block: BlockId, now: Instant) -> bool {
        self.spared.get(&block).is_some_and(|until| *until > now)
    }

    /// See [`Policy::choose`].
    pub fn choose(
        &mut self,
        need_bytes: u64,
        whom: For,
        now: Instant,
        is_in_use: impl Fn(BlockId) -> bool,
    ) -> Vec<(BlockId, u64)> {
        let spared = &self.spared;
        let is_spared = |block| spared.get(&block).is_some_and(|until| *until > now);
        let held: Vec<_> = held_against(&self.held, whom, now).collect();
        let is_held = |block| held.iter().any(|held| held.blocks.contains_key(&block));
        self.policy.choose(need_bytes, |block| {
            !is_spared(block) && !is_held(block) && !is_in_use(block)
        })
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
                        let chosen = cached.choose(u64::MAX, For::Anybody, now, |_| false);
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
        let mut chosen = |now| cached.choose(20, For::Anybody, now, |_| false);
        assert_eq!(chosen(now), [(BlockId(2), 10)]);
        assert_eq!(chosen(now + SPARED), [(BlockId(1), 10)]);
        (0..SPARED_MAX as u64 + 9).for_each(|block| cached.spare(BlockId(block), now));
        assert_eq!(cached.spared.len(), SPARED_MAX);
        cached.spare(BlockId(1 << 40), now + SPARED);
        assert!(cached.is_spared(BlockId(1 << 40), now + SPARED) && cached.spared.len() == 1);
    }

    #[test]
    fn what_a_load_brought_goes_for_others_and_not_for_that_load() {
        let now = Instant::now();
        let (job, other) = (JobId(1), JobId(2));
        let mut cached = Cached::new(EvictionPolicy::S3Fifo, [(BlockId(1), 10), (BlockId(2), 10)]);
        // Found here, and brought.
        cached.hold(job, BlockId(2), now);
        cached.hold(job, BlockId(3), now);
        cached.came(BlockId(3), 7);
        assert_eq!(cached.bytes_for(For::Load(job), now), 10);
        assert_eq!(cached.bytes_for(For::Watermark, now), 10);
        assert_eq!(cached.bytes_for(For::Load(other), now), 27);
        let chosen = cached.choose(99, For::Load(job), now, |_| false);
        assert_eq!(chosen, [(BlockId(1), 10)]);
        assert_eq!(cached.choose(99, For::Watermark, now, |_| false), []);
        // As long as the job goes on.
        cached.load_goes_on(job, now + HELD / 2);
        assert_eq!(cached.bytes_for(For::Watermark, now + HELD), 0);
        assert_eq!(cached.bytes_for(For::Watermark, now + HELD * 2), 17);
        let chosen = cached.choose(99, For::Anybody, now, |_| false);
        assert_eq!(chosen.len(), 2, "whoever needs the room has it");
        chosen.iter().for_each(|(block, _)| cached.removed(*block));
        assert_eq!(cached.bytes_for(For::Load(job), now), 0);
    }
}
