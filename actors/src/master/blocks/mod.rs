//! Which worker holds which block, and which workers live: soft state of the leader, from registrations, heartbeats,
//! block reports and commits. Nothing of it is replicated; after a restart the workers tell it again.
//!
//! Invariants:
//! - A replica that a file may need goes only when another worker, which lives, has itself reported the block as the
//!   namespace has it. A client's word (a commit) tells readers where to look, and is never a reason to delete.
//! - Who has not reported is not who has nothing: of a block with bytes, a writer is sent to a holder, or told to wait.
//!
//! [`Cluster`] is the pure core, with time as an argument. [`BlockMap`] is its one owner: it is asked from several
//! actors, always for microseconds, never across an await.
//!
//! - [`roster`]: the workers, and which of them live.
//! - [`holders`]: who holds which block.
//! - [`mod@agree`]: which replicas of a block are the block, where they may differ.
//! - [`fence`]: who may still write blocks for a writer that has lost its lease.
//! - `placement`: where to read and where to write; `spread`: how far apart replicas are.
//! - [`mod@balance`]: which blocks go where, so that workers become equally full.
//! - [`mod@care`]: which blocks too few have; [`mod@surplus`]: which too many.
//! - [`extra`]: of which there are to be more than their files want.
//! - `cache_quota`: what of a mount each worker may cache.
//! - `service`: which of the workers are out of service.
//! - [`check`]: what `cv fsck` says of blocks.
//! - [`mod@wanted`]: what of that is to stay.

pub mod agree;
pub mod balance;
mod cache_quota;
pub mod care;
pub mod check;
pub mod extra;
mod fence;
pub mod holders;
mod placement;
pub mod roster;
mod service;
mod spread;
pub mod surplus;
#[cfg(test)]
pub mod testing;
pub mod wanted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::master::{BlockCommit, FsStats};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{BlockId, BlockRef, FileLayout, MountId, Result, WorkerId};
use tokio::time::Instant;

use super::contract::{Placement, Reader};
use super::duties::deletions::Orders;
use super::namespace::services::Services;
use crate::kit::Clock;
use holders::Holders;
use roster::{LOST_AFTER, Roster};
use wanted::{Wanted, wanted};

/// Those who are not heard of for so long after an election are not waited for.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The pure core.
#[derive(Debug, Default)]
pub struct Cluster {
    pub roster: Roster,
    pub holders: Holders,
    /// What was moved to balance the workers.
    pub moved: balance::Moved,
    /// Since when this master leads.
    leads_since: Option<Instant>,
    /// How what is cached of mounts is kept, where that is not as usual; as it was at the last heartbeat.
    pub mounts: BTreeMap<MountId, CachedOf>,
}

/// How what is cached of a mount is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedOf {
    /// Also on the hosts of readers.
    pub near: bool,
    /// On so many workers; 0 as usual, on one.
    pub replicas: usize,
}

impl CachedOf {
    /// None if it is kept as usual.
    pub fn of(settings: &MountSettings) -> Option<Self> {
        let cached = CachedOf {
            near: settings.locality,
            replicas: settings.replicas.unwrap_or(0).into(),
        };
        (cached != CachedOf::default()).then_some(cached)
    }
}

/// The owner of the soft state.
pub struct BlockMap {
    cluster: Mutex<Cluster>,
    clock: Arc<dyn Clock>,
    /// Blocks to delete, which a duty carries out.
    deletions: Arc<Orders>,
}

impl BlockMap {
    pub fn new(clock: Arc<dyn Clock>, deletions: Arc<Orders>) -> Self {
        BlockMap {
            cluster: Mutex::default(),
            clock,
            deletions,
        }
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("the core does not panic")
    }

    /// As before the first worker registered.
    pub fn forget_everything(&self) {
        *self.cluster() = Cluster::default();
    }

    /// This master leads from now on, and has heard of no worker yet.
    pub fn lead(&self) {
        *self.cluster() = Cluster {
            leads_since: Some(self.now()),
            ..Cluster::default()
        };
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Waits until whoever may hold blocks has said what it holds, after an election or a start, but not for ever.
    pub async fn heard_from_all(&self, last_worker: WorkerId) {
        let give_up = self.now() + HEARD_WITHIN;
        while !self.cluster().has_heard_from_all(last_worker, self.now()) && self.now() < give_up {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes over which workers are out of service, as the state says.
    pub fn learn_services(&self, services: Services) {
        let (now, wall_ns) = (self.now(), self.clock.wall_ns());
        self.cluster().roster.out.learn(services, now, wall_ns);
    }

    /// A worker has made a replica, as it says itself, of a block that is known as this.
    pub fn made(&self, worker: WorkerId, block: &BlockRef) {
        let replica = BlockReplica {
            id: block.id,
            generation: block.generation,
            len_bytes: block.len_bytes,
        };
        self.cluster().holders.stored(worker, &replica, block);
    }

    /// A worker has a replica no more, as it says itself.
    pub fn went(&self, worker: WorkerId, block: BlockId) {
        self.cluster().holders.removed(worker, block);
    }

    /// A worker was not told of deletions: it is to register and report all that it holds, and is told then.
    pub fn untold(&self, worker: WorkerId) {
        self.cluster().roster.report_again(worker);
    }

    /// Takes in what a worker reports; `known` says what the namespace knows of a block. Answers with what is to go.
    pub fn report(
        &self,
        id: WorkerId,
        stored: &[BlockReplica],
        removed: &[BlockId],
        known: impl Fn(BlockId) -> Option<BlockRef>,
    ) -> Vec<BlockId> {
        let now = self.now();
        let mut garbage = Vec::new();
        for replica in stored {
            let known = known(replica.id);
            if !self.cluster().take_in(id, replica, known.as_ref(), now) {
                garbage.push(replica.id);
            }
        }
        let mut cluster = self.cluster();
        removed
            .iter()
            .chain(&garbage)
            .for_each(|block| cluster.holders.removed(id, *block));
        garbage
    }
}

impl Cluster {
    /// Whether every worker that lives has reported; those that this leader never heard of live for as long as any other
    /// that is silent. `last_worker` is the greatest id that was ever given to a worker.
    fn has_heard_from_all(&self, last_worker: WorkerId, now: Instant) -> bool {
        let silent_for_long = self
            .leads_since
            .is_none_or(|since| now.duration_since(since) >= LOST_AFTER);
        self.roster.all_reported(now) && (silent_for_long || self.roster.are_all_registered(last_worker))
    }

    /// Takes in one replica that a worker reports. False if it is to go.
    fn take_in(
        &mut self,
        id: WorkerId,
        replica: &BlockReplica,
        known: Option<&BlockRef>,
        now: Instant,
    ) -> bool {
        let another_has_it = known.is_some_and(|known| {
            let mut others = self.holders.reported(known).filter(|other| *other != id);
            others.any(|other| self.roster.is_live(other, now))
        });
        let (Some(known), wanted) = (known, wanted(replica, known, another_has_it)) else {
            return false;
        };
        match wanted {
            Wanted::Garbage => return false,
            Wanted::Outdated => self.holders.stored(id, replica, known),
            Wanted::Current => {
                self.holders.stored(id, replica, known);
                // Whoever has an older one is told so when it reports again.
                if replica.len_bytes >= known.len_bytes {
                    for outdated in self.holders.outdated(known) {
                        self.roster.report_again(outdated);
                    }
                }
            }
        }
        true
    }
}

impl Placement for BlockMap {
    fn locate_for(&self, layout: &mut FileLayout, reader: Reader) {
        let now = self.now();
        self.cluster().locate(layout, reader, now);
    }

    fn place(&self, layout: &mut FileLayout, writer: Reader) -> Result<()> {
        let now = self.now();
        self.cluster().place(layout, writer, now)
    }

    fn committed(&self, blocks: &[BlockCommit]) {
        let mut cluster = self.cluster();
        for block in blocks {
            block
                .workers
                .iter()
                .for_each(|worker| cluster.holders.claimed(*worker, block.id, block.generation));
        }
    }

    fn released(&self, blocks: &[BlockId]) {
        let mut orders = BTreeMap::new();
        let mut cluster = self.cluster();
        cluster.holders.release_all(blocks.iter().copied(), &mut orders);
        for (worker, blocks) in orders {
            if !self.deletions.add(worker, blocks) {
                cluster.roster.report_again(worker);
            }
        }
    }

    fn stats(&self) -> FsStats {
        let now = self.now();
        self.cluster().roster.stats(now)
    }

    fn cached_bytes(&self, blocks: &[BlockRef]) -> u64 {
        let now = self.now();
        let cluster = self.cluster();
        blocks
            .iter()
            .filter(|block| cluster.is_cached(block, now))
            .map(|block| block.len_bytes)
            .sum()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use curvine_protocol::attr::{UfsSource, UfsVersion};
    use curvine_protocol::cluster::{DiskStatus, Labels, WorkerState};
    use curvine_protocol::{Attr, ErrorKind, FileKind, InodeId, LocatedBlock};

    use super::roster::{LOST_AFTER, WorkerEntry};
    use super::testing::disk_of;
    use super::*;

    /// A clock that is moved by hand.
    struct ManualClock(Mutex<Instant>);

    impl ManualClock {
        fn pass(&self, time: Duration) {
            *self.0.lock().expect("no panic") += time;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Instant {
            *self.0.lock().expect("no panic")
        }

        fn wall_ns(&self) -> i64 {
            0
        }
    }

    struct World {
        blocks: BlockMap,
        clock: Arc<ManualClock>,
        deletions: Arc<Orders>,
    }

    fn world() -> World {
        let clock = Arc::new(ManualClock(Mutex::new(Instant::now())));
        let deletions = Arc::new(Orders::default());
        World {
            blocks: BlockMap::new(clock.clone(), deletions.clone()),
            clock,
            deletions,
        }
    }

    fn disk(available_bytes: u64) -> DiskStatus {
        disk_of(1_000, 1_000 - available_bytes)
    }

    impl World {
        fn register(&self, id: u32, token: u64, available_bytes: u64) {
            let entry = WorkerEntry {
                address: format!("w{id}:1"),
                token,
                reported: false,
                ..WorkerEntry::heard(self.blocks.now(), vec![disk(available_bytes)])
            };
            self.blocks.cluster().roster.register(WorkerId(id), entry);
        }

        fn beat(&self, id: u32, token: u64, disks: Vec<DiskStatus>) -> bool {
            let now = self.blocks.now();
            self.blocks
                .cluster()
                .roster
                .heartbeat(WorkerId(id), token, disks, now)
        }

        fn report(&self, id: u32, stored: &[u64]) -> Vec<BlockId> {
            let stored: Vec<_> = stored
                .iter()
                .map(|&id| BlockReplica {
                    id: BlockId(id),
                    generation: 0,
                    len_bytes: 1,
                })
                .collect();
            let known = |id: BlockId| {
                (id.0 < 100).then_some(BlockRef {
                    id,
                    len_bytes: 1,
                    generation: 0,
                })
            };
            self.blocks.report(WorkerId(id), &stored, &[], known)
        }

        /// Who is said to have a block.
        fn holders(&self, block: u64) -> Vec<u32> {
            let mut layout = layout(&[block], 1);
            self.blocks.locate(&mut layout);
            layout.blocks[0].workers.iter().map(|id| id.0).collect()
        }

        fn placed(&self, block: u64, replicas: u8) -> Result<Vec<u32>> {
            let mut layout = layout(&[block], replicas);
            layout.blocks[0].block.len_bytes = 0;
            self.blocks.place(&mut layout, Reader::default())?;
            Ok(layout.blocks[0].workers.iter().map(|id| id.0).collect())
        }
    }

    fn layout(blocks: &[u64], replicas: u8) -> FileLayout {
        let attr = Attr {
            inode: InodeId(9),
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            btime_ns: 0,
            rdev: 0,
            block_bytes: 1,
            replicas,
            content_version: 0,
            ufs: None,
            hole_bytes: 0,
            bare: false,
            has_acl: false,
        };
        let located = |&id: &u64| LocatedBlock {
            block: BlockRef {
                id: BlockId(id),
                len_bytes: 1,
                generation: 0,
            },
            workers: Vec::new(),
        };
        FileLayout {
            attr,
            blocks: blocks.iter().map(located).collect(),
            workers: Vec::new(),
            source: None,
            indexes: Vec::new(),
            damaged: Vec::new(),
            tier: None,
        }
    }

    #[test]
    fn a_reader_of_a_mount_with_locality_begins_on_its_own_host_which_copies_from_the_others() {
        let world = world();
        for (id, host) in [(1, "a"), (2, "b"), (3, "c")] {
            let labels = Labels {
                host: host.to_owned(),
                ..Labels::default()
            };
            let entry = WorkerEntry {
                labels,
                ..WorkerEntry::heard(world.blocks.now(), vec![disk(if id == 3 { 0 } else { 500 })])
            };
            world.blocks.cluster().roster.register(WorkerId(id), entry);
        }
        assert_eq!(world.report(1, &[7]), []);
        let of_mount = |blocks: &[u64], until_generation| FileLayout {
            source: Some(UfsSource {
                mount: MountId(4),
                key: "k".to_owned(),
                version: UfsVersion {
                    size_bytes: 1,
                    mtime_ms: 1,
                    etag: None,
                },
                until_generation,
            }),
            ..layout(blocks, 1)
        };
        let located = |host: &str, until_generation| {
            let mut layout = of_mount(&[7], until_generation);
            let near = Labels::host_key(host);
            world.blocks.locate_for(&mut layout, Reader { near, turn: 1 });
            layout.blocks[0].workers.iter().map(|id| id.0).collect::<Vec<_>>()
        };
        assert_eq!(located("b", 5), [1], "nobody asked for it");
        let near = CachedOf {
            near: true,
            replicas: 0,
        };
        world.blocks.cluster().mounts.insert(MountId(4), near);
        assert_eq!(located("a", 5), [1]);
        assert_eq!(located("b", 5), [2, 1]);
        assert_eq!(located("c", 5), [1], "it has no room");
        assert_eq!(located("d", 5), [1], "there is no worker");
        let peers = |of: u32, block: u64| {
            let mut layout = of_mount(&[block], 5);
            let now = world.blocks.now();
            world.blocks.cluster().peers(&mut layout, WorkerId(of), now);
            let workers = layout.blocks[0].workers.iter().map(|id| id.0);
            assert_eq!(layout.workers.len(), workers.len(), "their addresses are told");
            workers.collect::<Vec<_>>()
        };
        assert_eq!((peers(2, 7), peers(3, 7)), (vec![1], vec![1]));
        // Nobody has it: the third of three is to fetch it for everybody, and asks nobody else.
        assert_eq!((peers(1, 8), peers(2, 8)), (vec![3], vec![3]));
        assert!(peers(3, 8).is_empty());
        world.blocks.cluster().mounts.clear();
        assert!(peers(2, 7).is_empty());
    }

    #[test]
    fn a_silent_worker_is_lost_with_its_blocks_and_both_are_back_with_its_next_heartbeat() {
        let world = world();
        world.register(1, 5, 500);
        world.register(2, 6, 500);
        assert_eq!(world.report(1, &[7]), []);
        world.clock.pass(LOST_AFTER - Duration::from_millis(1));
        assert!(world.beat(2, 6, vec![disk(400)]));
        assert_eq!(world.holders(7), [1], "a late heartbeat is no loss yet");
        world.clock.pass(Duration::from_millis(1));
        assert_eq!(world.holders(7), [0u32; 0]);
        assert_eq!(
            world.blocks.stats().capacity_bytes,
            1_000,
            "of the one that lives"
        );
        let states = |world: &World| {
            let now = world.blocks.now();
            let statuses = world.blocks.cluster().roster.statuses(now);
            statuses
                .into_iter()
                .map(|status| status.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(states(&world), [WorkerState::Lost, WorkerState::Live]);
        assert_eq!(
            world.placed(8, 2).expect("one lives"),
            [2],
            "nothing new goes to the lost one"
        );
        assert!(world.beat(1, 5, vec![disk(300)]), "it need not register again");
        assert_eq!(world.holders(7), [1]);
        assert_eq!(states(&world), [WorkerState::Live, WorkerState::Live]);
    }

    #[test]
    fn a_block_that_was_placed_and_never_committed_is_deleted_with_its_file() {
        let world = world();
        world.register(1, 5, 500);
        assert_eq!(world.placed(7, 1), Ok(vec![1]));
        assert_eq!(world.placed(7, 1), Ok(vec![1]), "its writer asks again");
        assert_eq!(world.holders(7), [0u32; 0], "nobody can read it yet");
        world.blocks.released(&[BlockId(7)]);
        let order = world.deletions.take(&Default::default());
        assert_eq!(order, Some((WorkerId(1), vec![BlockId(7)])));
        world.blocks.released(&[BlockId(7)]);
        assert!(
            world.deletions.take(&Default::default()).is_none(),
            "once is enough"
        );
    }

    #[test]
    fn a_block_that_was_placed_and_committed_is_deleted_once() {
        let world = world();
        world.register(1, 5, 500);
        assert_eq!(world.placed(7, 1), Ok(vec![1]));
        assert_eq!(world.report(1, &[7]), []);
        world.blocks.released(&[BlockId(7)]);
        let order = world.deletions.take(&Default::default());
        assert_eq!(order, Some((WorkerId(1), vec![BlockId(7)])));
        assert!(world.deletions.take(&Default::default()).is_none());
    }

    /// Block 7 as the namespace has it: 10 bytes of generation 5.
    fn overwritten() -> BlockRef {
        BlockRef {
            id: BlockId(7),
            len_bytes: 10,
            generation: 5,
        }
    }

    impl World {
        /// What of block 7 is to go.
        fn report_7(&self, worker: u32, generation: u32, len_bytes: u64) -> Vec<BlockId> {
            let stored = BlockReplica {
                id: BlockId(7),
                generation,
                len_bytes,
            };
            self.blocks
                .report(WorkerId(worker), &[stored], &[], |_| Some(overwritten()))
        }

        fn located(&self) -> FileLayout {
            let mut layout = layout(&[7], 1);
            layout.blocks[0].block = overwritten();
            layout
        }

        fn readers_of_7(&self) -> Vec<u32> {
            let mut layout = self.located();
            self.blocks.locate(&mut layout);
            layout.blocks[0].workers.iter().map(|id| id.0).collect()
        }

        fn writers_of_7(&self) -> Vec<u32> {
            let mut layout = self.located();
            self.blocks
                .place(&mut layout, Reader::default())
                .expect("one has room");
            layout.blocks[0].workers.iter().map(|id| id.0).collect()
        }
    }

    #[test]
    fn an_older_replica_goes_when_another_worker_reports_the_newer_one_and_not_for_a_clients_word() {
        let world = world();
        (1..=2).for_each(|id| world.register(id, 5, 500));
        world.blocks.committed(&[BlockCommit {
            index: 0,
            id: BlockId(7),
            len_bytes: 10,
            generation: 5,
            workers: vec![WorkerId(2)],
            hole_bytes: 0,
        }]);
        assert_eq!(
            world.report_7(1, 4, 10),
            [],
            "worker 2 has not said that it has it"
        );
        assert_eq!(world.report_7(2, 5, 9), []);
        assert_eq!(world.report_7(1, 4, 10), [], "worker 2 has not all of it");
        assert!(world.beat(1, 5, Vec::new()), "worker 1 has nothing to report");
        assert_eq!(world.report_7(2, 5, 10), []);
        assert!(!world.beat(1, 5, Vec::new()), "worker 1 is asked what it has");
        assert_eq!(world.report_7(1, 4, 10), [BlockId(7)]);
    }

    #[test]
    fn a_newer_replica_on_a_worker_that_is_lost_is_no_reason_to_delete_an_older_one() {
        let world = world();
        (1..=2).for_each(|id| world.register(id, 5, 500));
        assert_eq!(world.report_7(2, 5, 10), []);
        world.clock.pass(LOST_AFTER);
        assert!(world.beat(1, 5, vec![disk(500)]));
        assert_eq!(world.report_7(1, 4, 10), []);
    }

    #[test]
    fn a_writer_is_sent_to_who_has_the_bytes_or_told_to_wait_and_never_elsewhere() {
        let world = world();
        (1..=3).for_each(|id| world.register(id, 5, 500));
        assert_eq!(world.writers_of_7(), [0u32; 0], "nobody has reported yet");
        world.report_7(1, 4, 10);
        assert_eq!(world.writers_of_7(), [0u32; 0], "these are old bytes");
        assert_eq!(world.readers_of_7(), [0u32; 0]);
        world.report_7(2, 5, 10);
        assert_eq!((world.writers_of_7(), world.readers_of_7()), (vec![2], vec![2]));
        world.clock.pass(LOST_AFTER);
        assert!(!world.beat(1, 5, vec![disk(500)]), "it lives, and is to report");
        assert_eq!(world.writers_of_7(), [0u32; 0], "worker 2 may come back");
    }

    #[test]
    fn a_heartbeat_with_an_old_token_or_of_a_stranger_asks_for_a_registration() {
        let world = world();
        assert!(!world.beat(1, 5, Vec::new()), "a stranger");
        world.register(1, 5, 500);
        world.register(1, 6, 500);
        assert!(!world.beat(1, 5, Vec::new()), "from before its registration");
        assert!(world.beat(1, 6, Vec::new()));
    }

    #[test]
    fn a_full_report_replaces_what_was_known_and_later_ones_add_and_remove() {
        let world = world();
        world.register(1, 5, 500);
        world.register(2, 6, 500);
        world.report(1, &[1, 2]);
        world.report(2, &[2]);
        world.blocks.cluster().holders.forget_worker(WorkerId(1));
        assert_eq!(world.report(1, &[2, 3]), []);
        assert_eq!(
            [1, 2, 3].map(|block| world.holders(block)),
            [vec![], vec![2, 1], vec![1]]
        );
        let removed = [BlockId(2), BlockId(50)];
        let garbage = world.blocks.report(WorkerId(1), &[], &removed, |_| None);
        assert_eq!(garbage, []);
        assert_eq!(world.holders(2), [2], "the other replica stays");
        assert!(!world.blocks.cluster().roster.all_reported(world.blocks.now()));
        world.blocks.cluster().roster.fully_reported(WorkerId(1));
        world.blocks.cluster().roster.fully_reported(WorkerId(2));
        assert!(world.blocks.cluster().roster.all_reported(world.blocks.now()));
    }

    #[test]
    fn a_worker_that_is_nearly_full_gets_a_new_block_only_if_there_is_no_other() {
        let world = world();
        for (id, room) in [(1, 280), (2, 1), (3, 150)] {
            world.register(id, 5, room);
        }
        let chosen = |block_bytes, wanted| {
            let cluster = world.blocks.cluster();
            cluster.roster.with_room(block_bytes, wanted, world.blocks.now())
        };
        assert_eq!(chosen(128, 1), [1, 3].map(WorkerId));
        assert_eq!(chosen(128, 3), [1, 3, 2].map(WorkerId));
        assert_eq!(chosen(1, 1), [1, 3, 2].map(WorkerId), "it has room for that");
    }

    #[test]
    fn a_new_leader_has_heard_from_all_when_they_have_reported_or_are_lost() {
        let world = world();
        world.blocks.lead();
        let heard = || {
            world
                .blocks
                .cluster()
                .has_heard_from_all(WorkerId(2), world.blocks.now())
        };
        world.register(1, 5, 500);
        assert!(!heard(), "worker 1 has not reported, and worker 2 may live");
        world.report(1, &[1]);
        world.blocks.cluster().roster.fully_reported(WorkerId(1));
        assert!(!heard(), "worker 2 may live");
        world.clock.pass(LOST_AFTER);
        assert!(heard(), "it is lost like any that says nothing for so long");
        world.register(2, 5, 500);
        assert!(!heard(), "it lives");
        world.blocks.cluster().roster.fully_reported(WorkerId(2));
        assert!(heard());
    }

    #[test]
    fn what_is_not_wanted_is_named_for_deletion_and_nobody_is_sent_to_it() {
        let world = world();
        world.register(1, 5, 500);
        assert_eq!(world.report(1, &[1, 100, 101]), [BlockId(100), BlockId(101)]);
        assert_eq!(world.holders(100), [0u32; 0]);
        // It was wanted when the client committed it.
        let commit = BlockCommit {
            index: 0,
            id: BlockId(102),
            len_bytes: 1,
            generation: 0,
            workers: vec![WorkerId(1)],
            hole_bytes: 0,
        };
        world.blocks.committed(&[commit]);
        assert_eq!(world.holders(102), [1]);
        assert_eq!(world.report(1, &[102]), [BlockId(102)]);
        assert_eq!(world.holders(102), [0u32; 0]);
    }

    #[test]
    fn a_released_block_is_deleted_where_it_is_and_nowhere_else() {
        let world = world();
        (1..=3).for_each(|id| world.register(id, 5, 500));
        world.report(1, &[7, 8]);
        world.report(3, &[8]);
        world.blocks.released(&[BlockId(7), BlockId(8), BlockId(9)]);
        let mut orders = Vec::new();
        while let Some((worker, blocks)) = world.deletions.take(&Default::default()) {
            orders.push((worker.0, blocks));
        }
        assert_eq!(orders, [(1, vec![BlockId(7), BlockId(8)]), (3, vec![BlockId(8)])]);
        assert_eq!(world.holders(8), [0u32; 0]);
    }

    #[test]
    fn a_worker_that_cannot_be_told_what_to_delete_is_asked_for_all_it_holds() {
        let world = world();
        world.register(1, 5, 500);
        let full = (0..crate::master::duties::deletions::QUEUED_MAX as u64).map(|id| BlockId(1_000 + id));
        assert!(world.deletions.add(WorkerId(1), full.collect()));
        assert!(world.beat(1, 5, Vec::new()));
        world.report(1, &[7]);
        world.blocks.released(&[BlockId(7)]);
        assert!(!world.beat(1, 5, Vec::new()), "it is to register and report");
        world.register(1, 6, 500);
        assert!(world.beat(1, 6, Vec::new()), "once");
    }

    #[test]
    fn what_is_near_is_written_and_read_first_and_readers_begin_with_different_holders() {
        let world = world();
        for (id, host) in [(1, "a"), (2, "b"), (3, "b"), (4, "")] {
            world.register(id, 1, 900);
            let mut cluster = world.blocks.cluster();
            let mut entry = WorkerEntry::heard(world.blocks.now(), vec![disk(900)]);
            entry.token = 1;
            entry.labels.host = host.to_owned();
            cluster.roster.register(WorkerId(id), entry);
        }
        let at = |host: &str, turn| Reader {
            near: Labels::host_key(host),
            turn,
        };
        let placed = |block: u64, replicas, writer| {
            let mut layout = layout(&[block], replicas);
            layout.blocks[0].block.len_bytes = 0;
            world.blocks.place(&mut layout, writer).expect("one has room");
            let workers: Vec<u32> = layout.blocks[0].workers.iter().map(|id| id.0).collect();
            workers
        };
        let firsts = |host: &str| -> BTreeSet<u32> {
            let of_block = |block| placed(block, 2, at(host, 0))[0];
            (10..20).map(of_block).collect()
        };
        assert_eq!(firsts("a"), BTreeSet::from([1]));
        assert_eq!(firsts("b"), BTreeSet::from([2, 3]), "each in its turn");
        assert_eq!(firsts("elsewhere"), BTreeSet::from([1, 2, 3, 4]));
        let second = placed(30, 2, at("b", 0))[1];
        assert!([1, 4].contains(&second), "{second} is on the same host");

        (1..=4).for_each(|id| drop(world.report(id, &[7])));
        let read = |reader| {
            let mut layout = layout(&[7], 1);
            world.blocks.locate_for(&mut layout, reader);
            let workers: Vec<u32> = layout.blocks[0].workers.iter().map(|id| id.0).collect();
            assert_eq!(workers.len(), 4, "whoever fails has others behind it");
            workers
        };
        let firsts: BTreeSet<u32> = (1..=8).map(|turn| read(at("", turn))[0]).collect();
        assert_eq!(firsts, BTreeSet::from([1, 2, 3, 4]));
        let firsts: BTreeSet<u32> = (1..=8).map(|turn| read(at("b", turn))[0]).collect();
        assert_eq!(firsts, BTreeSet::from([2, 3]));
    }

    #[test]
    fn new_blocks_go_to_different_workers_that_live_and_have_room() {
        let world = world();
        let kind = |world: &World| world.placed(1, 1).map_err(|error| error.kind);
        assert_eq!(kind(&world), Err(ErrorKind::BlockUnavailable));
        world.register(1, 5, 0);
        assert_eq!(kind(&world), Err(ErrorKind::NoSpace));
        world.register(2, 5, 500);
        world.register(3, 5, 900);
        for block in 1..=6 {
            let mut placed = world.placed(block, 2).expect("two have room");
            placed.sort_unstable();
            assert_eq!(placed, [2, 3]);
            assert_eq!(world.placed(block, 9).map(|placed| placed.len()), Ok(2));
        }
        let broken = DiskStatus {
            failure: Some("EIO".to_owned()),
            ..disk(900)
        };
        assert!(world.beat(3, 5, vec![broken]));
        assert_eq!(world.placed(1, 2), Ok(vec![2]), "a failed disk has no room");
        world.report(1, &[1]);
        assert_eq!(
            world.placed(1, 2),
            Ok(vec![1]),
            "a block that is there is written there"
        );
    }
}
