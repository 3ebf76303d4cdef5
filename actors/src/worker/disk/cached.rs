//! The cached blocks of a disk, which of them are spared for a while, held for load jobs, or pinned: pure.
//!
//! Invariants:
//! - A block that is spared is not chosen, and what is remembered of those that are spared is bounded.
//! - A block that is held for a load job goes for others who need the room, and not for that job; what is remembered of it is
//!   an entry of a hash map in memory, until the job has asked for nothing for a while.
//! - A block that is pinned is never chosen: the policy does not know it. It takes an entry of a hash map in memory instead.
//! - Of a mount that has a quota, a policy of its own knows the blocks besides, and says which go when they take too much:
//!   as if they had a disk to themselves. So each of them takes the policy's memory twice.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use curvine_conf::EvictionPolicy;
use curvine_protocol::{BlockId, JobId, MountId};
use tokio::time::Instant;

use super::policy::{Owner, Policy};

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
    /// The blocks of this mount take more than its quota.
    Quota(MountId),
}

/// See the module.
pub struct Cached {
    order: EvictionPolicy,
    policy: Policy,
    /// What stands for each mount of which there was a block.
    owners: HashMap<MountId, Owner>,
    /// Of each mount that has a quota, its blocks once more.
    of_quotas: HashMap<Owner, Policy>,
    /// Until when.
    spared: HashMap<BlockId, Instant>,
    held: HashMap<JobId, Held>,
    /// What each takes on the device, and whose it is.
    pinned: HashMap<BlockId, (u64, Owner)>,
    pinned_bytes: u64,
    pinned_of: HashMap<Owner, u64>,
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
        For::Anybody | For::Quota(_) => false,
        For::Load(its) => job == its,
        For::Watermark => true,
    };
    let held = held.iter();
    let held = held.filter(move |(job, held)| held.until > now && is_against(**job));
    held.map(|(_, held)| held)
}

impl Cached {
    /// The blocks that may go with what they take and their mounts, those that are to go first at the beginning.
    pub fn new(
        order: EvictionPolicy,
        blocks: impl IntoIterator<Item = (BlockId, u64, Option<MountId>)>,
    ) -> Self {
        let mut cached = Cached {
            order,
            policy: Policy::new(order),
            owners: HashMap::new(),
            of_quotas: HashMap::new(),
            spared: HashMap::new(),
            held: HashMap::new(),
            pinned: HashMap::new(),
            pinned_bytes: 0,
            pinned_of: HashMap::new(),
        };
        for (block, bytes, mount) in blocks {
            cached.came(block, bytes, mount);
        }
        cached
    }

    /// What stands for a mount. Of more mounts than there are numbers, nothing is told apart.
    fn owner(&mut self, mount: Option<MountId>) -> Owner {
        let Some(mount) = mount else {
            return Owner::default();
        };
        if let Some(owner) = self.owners.get(&mount) {
            return *owner;
        }
        let Ok(next) = u16::try_from(self.owners.len() + 1) else {
            return Owner::default();
        };
        self.owners.insert(mount, Owner(next));
        Owner(next)
    }

    /// Only these mounts have a quota.
    pub fn have_quotas(&mut self, mounts: impl IntoIterator<Item = MountId>) {
        let owners: HashSet<Owner> = mounts.into_iter().map(|mount| self.owner(Some(mount))).collect();
        self.of_quotas.retain(|owner, _| owners.contains(owner));
        for owner in owners {
            if owner == Owner::default() || self.of_quotas.contains_key(&owner) {
                continue;
            }
            let mut policy = Policy::new(self.order);
            for (block, bytes) in self.policy.owned_by(owner) {
                policy.came(block, bytes, owner);
            }
            self.of_quotas.insert(owner, policy);
        }
    }

    /// What the blocks of a mount take on the device, those included that are pinned.
    pub fn bytes_of(&self, mount: MountId) -> u64 {
        let Some(owner) = self.owners.get(&mount) else {
            return 0;
        };
        let pinned_bytes = self.pinned_of.get(owner).copied().unwrap_or(0);
        self.policy.owned_bytes(*owner) + pinned_bytes
    }

    /// The mounts of which there was a block.
    pub fn mounts(&self) -> Vec<MountId> {
        self.owners.keys().copied().collect()
    }

    /// What those that may go take on the device.
    pub fn bytes(&self) -> u64 {
        self.policy.bytes()
    }

    /// What may go for somebody's sake takes on the device.
    pub fn bytes_for(&self, whom: For, now: Instant) -> u64 {
        if let For::Quota(mount) = whom {
            let policy = self
                .owners
                .get(&mount)
                .and_then(|owner| self.of_quotas.get(owner));
            return policy.map_or(0, Policy::bytes);
        }
        let held = held_against(&self.held, whom, now).map(|held| held.bytes);
        // A block that several jobs hold counts for each: rather too little goes.
        self.bytes().saturating_sub(held.sum())
    }

    /// What those that are pinned take on the device.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// A cached block of a mount is here that may go.
    pub fn came(&mut self, block: BlockId, bytes: u64, mount: Option<MountId>) {
        self.unpin(block);
        let owner = self.owner(mount);
        self.leave_quotas_but(owner, block);
        self.policy.came(block, bytes, owner);
        if let Some(policy) = self.of_quotas.get_mut(&owner) {
            policy.came(block, bytes, owner);
        }
        self.held.values_mut().for_each(|held| held.set(block, bytes));
    }

    /// A cached block of a mount is here that is pinned.
    pub fn pin(&mut self, block: BlockId, bytes: u64, mount: Option<MountId>) {
        self.policy_forgets(block);
        self.held.values_mut().for_each(|held| held.set(block, 0));
        self.unpin(block);
        let owner = self.owner(mount);
        self.pinned.insert(block, (bytes, owner));
        self.pinned_bytes += bytes;
        *self.pinned_of.entry(owner).or_default() += bytes;
    }

    fn unpin(&mut self, block: BlockId) {
        if let Some((bytes, owner)) = self.pinned.remove(&block) {
            self.pinned_bytes -= bytes;
            *self.pinned_of.entry(owner).or_default() -= bytes;
        }
    }

    fn policy_forgets(&mut self, block: BlockId) {
        self.leave_quotas_but(Owner::default(), block);
        self.policy.removed(block);
    }

    fn leave_quotas_but(&mut self, owner: Owner, block: BlockId) {
        let others = self.of_quotas.iter_mut().filter(|(its, _)| **its != owner);
        others.for_each(|(_, policy)| policy.removed(block));
    }

    pub fn is_pinned(&self, block: BlockId) -> bool {
        self.pinned.contains_key(&block)
    }

    /// A block is used, which its reader takes for one of this mount.
    pub fn used(&mut self, block: BlockId, mount: Option<MountId>) {
        if mount.is_some() && self.policy.has(block) && self.policy.owner_of(block) == Owner::default() {
            // An older version has brought it, and did not note whose it is.
            let bytes = self.policy.bytes_of(block);
            self.came(block, bytes, mount);
        }
        self.policy.used(block);
        if let Some(policy) = self.of_quotas.get_mut(&self.policy.owner_of(block)) {
            policy.used(block);
        }
    }

    /// A block is gone, or kept from now on.
    pub fn removed(&mut self, block: BlockId) {
        self.policy_forgets(block);
        self.spared.remove(&block);
        for held in self.held.values_mut() {
            held.set(block, 0);
            held.blocks.remove(&block);
        }
        self.unpin(block);
    }

    /// A block that was chosen stays after all.
    pub fn stays(&mut self, block: BlockId, bytes: u64, mount: Option<MountId>) {
        if self.is_pinned(block) {
            return;
        }
        let owner = self.owner(mount);
        self.policy.stays(block, bytes, owner);
        if let Some(policy) = self.of_quotas.get_mut(&owner) {
            policy.stays(block, bytes, owner);
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
        let may_go = |block| !is_spared(block) && !is_held(block) && !is_in_use(block);
        let For::Quota(mount) = whom else {
            let chosen = self.policy.choose(need_bytes, may_go);
            for (block, _) in &chosen {
                self.of_quotas
                    .values_mut()
                    .for_each(|policy| policy.removed(*block));
            }
            return chosen;
        };
        let policy = self
            .owners
            .get(&mount)
            .and_then(|owner| self.of_quotas.get_mut(owner));
        let chosen = policy.map_or_else(Vec::new, |policy| policy.choose(need_bytes, may_go));
        for (block, _) in &chosen {
            self.policy.removed(*block);
        }
        chosen
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
        ChosenForQuota(u64),
        Quota(bool),
    }

    const LIMITED: MountId = MountId(7);
    const OTHER: MountId = MountId(8);

    fn mount_of(block: BlockId) -> Option<MountId> {
        [None, Some(LIMITED), Some(OTHER)][usize::try_from(block.0 % 3).expect("it is small")]
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..20u64).prop_map(Event::Came),
            (1..20u64).prop_map(Event::Pinned),
            Just(Event::Used),
            Just(Event::Removed),
            Just(Event::Stays),
            Just(Event::Chosen),
            (1..40u64).prop_map(Event::ChosenForQuota),
            any::<bool>().prop_map(Event::Quota),
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
            let (mut cached, mut pinned, mut here) = (Cached::new(order, []), HashMap::new(), HashMap::new());
            for (block, event) in events {
                let id = BlockId(block);
                match event {
                    Event::Came(bytes) => {
                        cached.came(id, bytes, mount_of(id));
                        here.insert(id, bytes);
                        pinned.remove(&id);
                    }
                    Event::Pinned(bytes) => {
                        cached.pin(id, bytes, mount_of(id));
                        here.insert(id, bytes);
                        pinned.insert(id, bytes);
                    }
                    Event::Used => cached.used(id, mount_of(id)),
                    Event::Removed => {
                        cached.removed(id);
                        here.remove(&id);
                        pinned.remove(&id);
                    }
                    Event::Stays => {
                        // It had been chosen, if it is not here.
                        cached.stays(id, 5, mount_of(id));
                        here.entry(id).or_insert(5);
                    }
                    Event::ChosenForQuota(need) => {
                        let whom = For::Quota(LIMITED);
                        let before = cached.bytes_for(whom, now);
                        let chosen = cached.choose(need, whom, now, |_| false);
                        let bytes: u64 = chosen.iter().map(|(_, bytes)| bytes).sum();
                        prop_assert!(bytes >= need.min(before));
                        for (block, bytes) in chosen {
                            prop_assert_eq!(mount_of(block), Some(LIMITED));
                            prop_assert!(!pinned.contains_key(&block));
                            prop_assert_eq!(here.remove(&block), Some(bytes));
                        }
                    }
                    Event::Quota(is_there) => cached.have_quotas(is_there.then_some(LIMITED)),
                    Event::Chosen => {
                        let chosen = cached.choose(u64::MAX, For::Anybody, now, |_| false);
                        prop_assert!(chosen.iter().all(|(block, _)| !pinned.contains_key(block)));
                        prop_assert_eq!(cached.bytes(), 0, "all others went");
                        here.retain(|block, _| pinned.contains_key(block));
                    }
                }
                prop_assert_eq!(cached.pinned_bytes(), pinned.values().sum::<u64>());
                prop_assert_eq!(cached.is_pinned(id), pinned.contains_key(&id));
                let of = |mount| here.iter().filter(|(id, _)| mount_of(**id) == Some(mount)).map(|(_, bytes)| bytes).sum::<u64>();
                prop_assert_eq!(cached.bytes_of(LIMITED), of(LIMITED));
                prop_assert_eq!(cached.bytes_of(OTHER), of(OTHER));
            }
        }
    }

    #[test]
    fn a_block_is_spared_for_a_while_and_no_more_are_than_the_limit() {
        let now = Instant::now();
        let mut cached = Cached::new(
            EvictionPolicy::Lru,
            [(BlockId(1), 10, None), (BlockId(2), 10, None)],
        );
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
    fn what_goes_for_a_quota_is_of_that_mount_alone_and_what_it_reads_again_and_again_stays() {
        let now = Instant::now();
        let block = |id| (BlockId(id), 1, mount_of(BlockId(id)));
        let mut cached = Cached::new(EvictionPolicy::S3Fifo, (0..30).map(block));
        assert_eq!(
            cached.choose(3, For::Quota(LIMITED), now, |_| false),
            [],
            "it has none"
        );
        cached.have_quotas([LIMITED]);
        assert_eq!(cached.bytes_of(LIMITED), 10);
        // Used again, and so kept while others come and go.
        cached.used(BlockId(4), None);
        let chosen = cached.choose(7, For::Quota(LIMITED), now, |_| false);
        assert_eq!(chosen.len(), 7);
        assert!(
            chosen
                .iter()
                .all(|(id, _)| mount_of(*id) == Some(LIMITED) && id.0 != 4)
        );
        assert_eq!(
            (cached.bytes(), cached.bytes_of(LIMITED), cached.bytes_of(OTHER)),
            (23, 3, 10)
        );
        // What is held for a load goes for it, too: else a load that is larger than the quota would pass it.
        cached.hold(JobId(1), BlockId(4), now);
        assert_eq!(cached.choose(9, For::Quota(LIMITED), now, |_| false).len(), 3);
        cached.have_quotas([]);
        assert_eq!((cached.bytes_of(LIMITED), cached.bytes_of(OTHER)), (0, 10));
    }

    #[test]
    fn a_block_whose_mount_was_not_noted_is_counted_once_its_reader_says_it() {
        let mut cached = Cached::new(EvictionPolicy::Lru, [(BlockId(1), 10, None)]);
        cached.have_quotas([LIMITED]);
        cached.used(BlockId(1), None);
        assert_eq!(cached.bytes_of(LIMITED), 0);
        cached.used(BlockId(1), Some(LIMITED));
        // Whoever says otherwise later is not believed.
        cached.used(BlockId(1), Some(OTHER));
        assert_eq!((cached.bytes_of(LIMITED), cached.bytes_of(OTHER)), (10, 0));
        assert_eq!(cached.bytes_for(For::Quota(LIMITED), Instant::now()), 10);
    }

    #[test]
    fn what_a_load_brought_goes_for_others_and_not_for_that_load() {
        let now = Instant::now();
        let (job, other) = (JobId(1), JobId(2));
        let mut cached = Cached::new(
            EvictionPolicy::S3Fifo,
            [(BlockId(1), 10, None), (BlockId(2), 10, None)],
        );
        // Found here, and brought.
        cached.hold(job, BlockId(2), now);
        cached.hold(job, BlockId(3), now);
        cached.came(BlockId(3), 7, None);
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
