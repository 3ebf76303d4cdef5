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

    /// Forgets a block; says who held it.
    pub fn release(&mut self, block: BlockId) -> Vec<WorkerId> {
        self.holders.remove(&block).unwrap_or_default()
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
    pub fn place(&self, layout: &mut FileLayout, now: Instant) -> Result<()> {
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
