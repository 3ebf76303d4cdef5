//! Which worker holds which block, and which workers live: soft state of the leader, from registrations, heartbeats,
//! block reports and commits. Nothing of it is replicated; after a restart the workers tell it again.
//!
//! [`Cluster`] is the pure core, with time as an argument. [`BlockMap`] is its one owner: it is asked from several
//! actors, always for microseconds, never across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::cluster::{BlockReplica, DiskStatus, WorkerState, WorkerStatus};
use curvine_protocol::master::{BlockCommit, FsStats};
use curvine_protocol::{BlockId, BlockRef, Error, ErrorKind, FileLayout, Result, WorkerId};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::contract::Placement;
use crate::kit::Clock;

/// After this long without a heartbeat a worker is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// A worker as the leader knows it.
#[derive(Clone, Debug)]
pub struct WorkerEntry {
    pub address: String,
    pub token: u64,
    pub disks: Vec<DiskStatus>,
    pub version: String,
    pub last_heartbeat: Instant,
    /// Its full report is in: what it did not name, it does not have.
    pub reported: bool,
}

impl WorkerEntry {
    fn is_live(&self, now: Instant) -> bool {
        now.duration_since(self.last_heartbeat) < LOST_AFTER
    }

    fn available_bytes(&self) -> u64 {
        self.disks
            .iter()
            .filter(|disk| disk.failure.is_none())
            .map(|disk| disk.available_bytes)
            .sum()
    }
}

/// The pure core.
#[derive(Debug, Default)]
pub struct Cluster {
    workers: BTreeMap<WorkerId, WorkerEntry>,
    holders: HashMap<BlockId, Vec<WorkerId>>,
    /// Who was told to write blocks that nobody has reported or committed yet: a writer that fails leaves them there.
    placed: HashMap<BlockId, Vec<WorkerId>>,
}

impl Cluster {
    pub fn register(&mut self, id: WorkerId, entry: WorkerEntry) {
        self.workers.insert(id, entry);
    }

    /// Whether the worker is known by this token.
    pub fn knows(&self, id: WorkerId, token: u64) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.token == token)
    }

    /// False if the worker must register first.
    pub fn heartbeat(&mut self, id: WorkerId, token: u64, disks: Vec<DiskStatus>, now: Instant) -> bool {
        match self.workers.get_mut(&id) {
            Some(worker) if worker.token == token => {
                worker.disks = disks;
                worker.last_heartbeat = now;
                true
            }
            _ => false,
        }
    }

    /// As before the first worker registered.
    pub fn forget_everything(&mut self) {
        *self = Cluster::default();
    }

    pub fn forget_blocks_of(&mut self, id: WorkerId) {
        self.holders.retain(|_, holders| {
            holders.retain(|holder| *holder != id);
            !holders.is_empty()
        });
    }

    pub fn fully_reported(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reported = true;
        }
    }

    pub fn stored(&mut self, id: WorkerId, block: BlockId) {
        if let Some(placed) = self.placed.get_mut(&block) {
            placed.retain(|writer| *writer != id);
            if placed.is_empty() {
                self.placed.remove(&block);
            }
        }
        let holders = self.holders.entry(block).or_default();
        if !holders.contains(&id) {
            holders.push(id);
        }
    }

    pub fn removed(&mut self, id: WorkerId, block: BlockId) {
        if let Some(holders) = self.holders.get_mut(&block) {
            holders.retain(|holder| *holder != id);
            if holders.is_empty() {
                self.holders.remove(&block);
            }
        }
    }

    /// Forgets a block; says who holds it, wholly or in the making.
    pub fn release(&mut self, block: BlockId) -> Vec<WorkerId> {
        let mut workers = self.holders.remove(&block).unwrap_or_default();
        workers.extend(self.placed.remove(&block).unwrap_or_default());
        workers
    }

    fn live_holders(&self, block: BlockId, now: Instant) -> Vec<WorkerId> {
        let holders = self.holders.get(&block).map_or(&[][..], Vec::as_slice);
        let live = |id: &&WorkerId| self.workers.get(id).is_some_and(|worker| worker.is_live(now));
        holders.iter().filter(live).copied().collect()
    }

    /// Live workers with room, the roomiest first; those with the same room by id.
    fn with_room(&self, now: Instant) -> Vec<WorkerId> {
        let mut found: Vec<(u64, WorkerId)> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_live(now) && worker.available_bytes() > 0)
            .map(|(id, worker)| (worker.available_bytes(), *id))
            .collect();
        found.sort_by_key(|(room, id)| (std::cmp::Reverse(*room), *id));
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn live(&self, now: Instant) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|(_, worker)| worker.is_live(now))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Holders of each block; where nobody has it and there is an object to fetch it from, who should.
    pub fn locate(&self, layout: &mut FileLayout, now: Instant) {
        let live = self.live(now);
        let fetchable = layout.source.is_some();
        for located in &mut layout.blocks {
            located.workers = self.live_holders(located.block.id, now);
            if located.workers.is_empty() && fetchable && !live.is_empty() {
                // By the block's id: every reader goes to the same worker, and blocks spread over all.
                located
                    .workers
                    .push(live[(located.block.id.0 % live.len() as u64) as usize]);
            }
        }
        self.add_addresses(layout);
    }

    /// Where each block is to be written: its holders, else the workers with most room.
    pub fn place(&mut self, layout: &mut FileLayout, now: Instant) -> Result<()> {
        let replicas = usize::from(layout.attr.replicas.max(1));
        let room = self.with_room(now);
        if room.is_empty() {
            return Err(match self.live(now).is_empty() {
                true => Error::new(
                    ErrorKind::BlockUnavailable,
                    "no worker is live; start one with `curvine-node --role worker`, or see `cv report`",
                ),
                false => Error::new(
                    ErrorKind::NoSpace,
                    "no worker has room; free cached data with `cv free`, or add data_dirs",
                ),
            });
        }
        for located in &mut layout.blocks {
            located.workers = self.live_holders(located.block.id, now);
            if located.workers.is_empty() {
                let start = (located.block.id.0 % room.len() as u64) as usize;
                located.workers = room
                    .iter()
                    .cycle()
                    .skip(start)
                    .take(replicas.min(room.len()))
                    .copied()
                    .collect();
                let placed = self.placed.entry(located.block.id).or_default();
                let new = located.workers.iter().filter(|id| !placed.contains(id));
                let new: Vec<WorkerId> = new.copied().collect();
                placed.extend(new);
            }
        }
        self.add_addresses(layout);
        Ok(())
    }

    fn add_addresses(&self, layout: &mut FileLayout) {
        let named: BTreeSet<WorkerId> = layout
            .blocks
            .iter()
            .flat_map(|b| b.workers.iter().copied())
            .collect();
        layout.workers = named
            .into_iter()
            .filter_map(|id| {
                Some(WorkerAddress {
                    id,
                    address: self.workers.get(&id)?.address.clone(),
                })
            })
            .collect();
    }

    pub fn stats(&self, now: Instant) -> FsStats {
        let mut stats = FsStats::default();
        for worker in self.workers.values().filter(|worker| worker.is_live(now)) {
            worker.disks.iter().for_each(|disk| stats.add(disk));
        }
        stats
    }

    pub fn statuses(&self, now: Instant) -> Vec<WorkerStatus> {
        let status = |(id, worker): (&WorkerId, &WorkerEntry)| WorkerStatus {
            id: *id,
            address: worker.address.clone(),
            state: if worker.is_live(now) {
                WorkerState::Live
            } else {
                WorkerState::Lost
            },
            disks: worker.disks.clone(),
            last_heartbeat_ms_ago: now.duration_since(worker.last_heartbeat).as_millis() as u64,
            version: worker.version.clone(),
        };
        self.workers.iter().map(status).collect()
    }

    pub fn addresses(&self, now: Instant) -> Vec<WorkerAddress> {
        let live = self.workers.iter().filter(|(_, worker)| worker.is_live(now));
        live.map(|(id, worker)| WorkerAddress {
            id: *id,
            address: worker.address.clone(),
        })
        .collect()
    }

    pub fn address(&self, id: WorkerId) -> Option<String> {
        self.workers.get(&id).map(|worker| worker.address.clone())
    }

    pub fn is_cached(&self, block: BlockId, now: Instant) -> bool {
        !self.live_holders(block, now).is_empty()
    }

    /// Every worker that lives has told all it holds.
    pub fn all_reported(&self, now: Instant) -> bool {
        self.workers
            .values()
            .filter(|worker| worker.is_live(now))
            .all(|worker| worker.reported)
    }
}

/// The owner of the soft state.
pub struct BlockMap {
    cluster: Mutex<Cluster>,
    clock: Arc<dyn Clock>,
    /// Blocks to delete, by worker: carried out by the services.
    deletions: UnboundedSender<(WorkerId, Vec<BlockId>)>,
}

impl BlockMap {
    pub fn new(clock: Arc<dyn Clock>, deletions: UnboundedSender<(WorkerId, Vec<BlockId>)>) -> Self {
        BlockMap {
            cluster: Mutex::default(),
            clock,
            deletions,
        }
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("the core does not panic")
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Takes in what a worker reports; `wanted` says whether the namespace expects a replica. Answers with the rest.
    pub fn report(
        &self,
        id: WorkerId,
        stored: &[BlockReplica],
        removed: &[BlockId],
        wanted: impl Fn(&BlockReplica) -> Result<bool>,
    ) -> Result<Vec<BlockId>> {
        let mut garbage = Vec::new();
        for replica in stored {
            match wanted(replica)? {
                true => self.cluster().stored(id, replica.id),
                false => garbage.push(replica.id),
            }
        }
        let mut cluster = self.cluster();
        removed
            .iter()
            .chain(&garbage)
            .for_each(|block| cluster.removed(id, *block));
        Ok(garbage)
    }
}

impl Placement for BlockMap {
    fn locate(&self, layout: &mut FileLayout) {
        let now = self.now();
        self.cluster().locate(layout, now);
    }

    fn place(&self, layout: &mut FileLayout) -> Result<()> {
        let now = self.now();
        self.cluster().place(layout, now)
    }

    fn committed(&self, blocks: &[BlockCommit]) {
        let mut cluster = self.cluster();
        for block in blocks {
            block
                .workers
                .iter()
                .for_each(|worker| cluster.stored(*worker, block.id));
        }
    }

    fn released(&self, blocks: &[BlockId]) {
        let mut orders: BTreeMap<WorkerId, Vec<BlockId>> = BTreeMap::new();
        let mut cluster = self.cluster();
        for block in blocks {
            for worker in cluster.release(*block) {
                orders.entry(worker).or_default().push(*block);
            }
        }
        for order in orders {
            // Fails only when the master stops: the next full report finds them.
            let _ = self.deletions.send(order);
        }
    }

    fn stats(&self) -> FsStats {
        let now = self.now();
        self.cluster().stats(now)
    }

    fn cached_bytes(&self, blocks: &[BlockRef]) -> u64 {
        let now = self.now();
        let cluster = self.cluster();
        blocks
            .iter()
            .filter(|block| cluster.is_cached(block.id, now))
            .map(|block| block.len_bytes)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::cluster::Tier;
    use curvine_protocol::{Attr, FileKind, InodeId, LocatedBlock};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

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
        deletions: UnboundedReceiver<(WorkerId, Vec<BlockId>)>,
    }

    fn world() -> World {
        let clock = Arc::new(ManualClock(Mutex::new(Instant::now())));
        let (send, deletions) = unbounded_channel();
        World {
            blocks: BlockMap::new(clock.clone(), send),
            clock,
            deletions,
        }
    }

    fn disk(available_bytes: u64) -> DiskStatus {
        DiskStatus {
            tier: Tier::Ssd,
            path: "d".to_owned(),
            capacity_bytes: 1_000,
            used_bytes: 1_000 - available_bytes,
            available_bytes,
            blocks: 0,
            failure: None,
        }
    }

    impl World {
        fn register(&self, id: u32, token: u64, available_bytes: u64) {
            let entry = WorkerEntry {
                address: format!("w{id}:1"),
                token,
                disks: vec![disk(available_bytes)],
                version: String::new(),
                last_heartbeat: self.blocks.now(),
                reported: false,
            };
            self.blocks.cluster().register(WorkerId(id), entry);
        }

        fn beat(&self, id: u32, token: u64, disks: Vec<DiskStatus>) -> bool {
            let now = self.blocks.now();
            self.blocks.cluster().heartbeat(WorkerId(id), token, disks, now)
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
            let wanted = |replica: &BlockReplica| Ok(replica.id.0 < 100);
            self.blocks
                .report(WorkerId(id), &stored, &[], wanted)
                .expect("readable")
        }

        /// Who is said to have a block.
        fn holders(&self, block: u64) -> Vec<u32> {
            let mut layout = layout(&[block], 1);
            self.blocks.locate(&mut layout);
            layout.blocks[0].workers.iter().map(|id| id.0).collect()
        }

        fn placed(&self, block: u64, replicas: u8) -> Result<Vec<u32>> {
            let mut layout = layout(&[block], replicas);
            self.blocks.place(&mut layout)?;
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
        }
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
            let statuses = world.blocks.cluster().statuses(now);
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
        let mut world = world();
        world.register(1, 5, 500);
        assert_eq!(world.placed(7, 1), Ok(vec![1]));
        assert_eq!(world.placed(7, 1), Ok(vec![1]), "its writer asks again");
        assert_eq!(world.holders(7), [0u32; 0], "nobody can read it yet");
        world.blocks.released(&[BlockId(7)]);
        let order = world.deletions.try_recv();
        assert_eq!(order, Ok((WorkerId(1), vec![BlockId(7)])));
        world.blocks.released(&[BlockId(7)]);
        assert!(world.deletions.try_recv().is_err(), "once is enough");
    }

    #[test]
    fn a_block_that_was_placed_and_committed_is_deleted_once() {
        let mut world = world();
        world.register(1, 5, 500);
        assert_eq!(world.placed(7, 1), Ok(vec![1]));
        assert_eq!(world.report(1, &[7]), []);
        world.blocks.released(&[BlockId(7)]);
        let order = world.deletions.try_recv();
        assert_eq!(order, Ok((WorkerId(1), vec![BlockId(7)])));
        assert!(world.deletions.try_recv().is_err());
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
        world.blocks.cluster().forget_blocks_of(WorkerId(1));
        assert_eq!(world.report(1, &[2, 3]), []);
        assert_eq!(
            [1, 2, 3].map(|block| world.holders(block)),
            [vec![], vec![2, 1], vec![1]]
        );
        let removed = [BlockId(2), BlockId(50)];
        let kept = world.blocks.report(WorkerId(1), &[], &removed, |_| Ok(true));
        assert_eq!(kept, Ok(Vec::new()));
        assert_eq!(world.holders(2), [2], "the other replica stays");
        assert!(!world.blocks.cluster().all_reported(world.blocks.now()));
        world.blocks.cluster().fully_reported(WorkerId(1));
        world.blocks.cluster().fully_reported(WorkerId(2));
        assert!(world.blocks.cluster().all_reported(world.blocks.now()));
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
        };
        world.blocks.committed(&[commit]);
        assert_eq!(world.holders(102), [1]);
        assert_eq!(world.report(1, &[102]), [BlockId(102)]);
        assert_eq!(world.holders(102), [0u32; 0]);
    }

    #[test]
    fn a_released_block_is_deleted_where_it_is_and_nowhere_else() {
        let mut world = world();
        (1..=3).for_each(|id| world.register(id, 5, 500));
        world.report(1, &[7, 8]);
        world.report(3, &[8]);
        world.blocks.released(&[BlockId(7), BlockId(8), BlockId(9)]);
        let mut orders = Vec::new();
        while let Ok((worker, blocks)) = world.deletions.try_recv() {
            orders.push((worker.0, blocks));
        }
        assert_eq!(orders, [(1, vec![BlockId(7), BlockId(8)]), (3, vec![BlockId(8)])]);
        assert_eq!(world.holders(8), [0u32; 0]);
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
