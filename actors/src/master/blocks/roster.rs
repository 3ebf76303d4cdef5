//! Which workers are registered, which of them live, and what room they have.

use std::collections::BTreeMap;
use std::time::Duration;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::cluster::{DiskStatus, Labels, WorkerState, WorkerStatus};
use curvine_protocol::master::{CacheShare, FsStats, HotBlock};
use curvine_protocol::mount::MountTraffic;
use curvine_protocol::number::whole_ms;
use curvine_protocol::{MountId, WorkerId};
use tokio::time::Instant;

use super::cache_quota::{CacheUse, share_of};
use super::service::OutOfService;
use crate::planted::{Bug, is_planted};

/// After this long without a heartbeat a worker is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(10);

/// Of a whole.
pub const PARTS: u64 = 1_000_000;

/// A worker as the leader knows it.
#[derive(Clone, Debug)]
pub struct WorkerEntry {
    pub address: String,
    pub token: u64,
    pub disks: Vec<DiskStatus>,
    pub version: String,
    /// See `WorkerAddress`.
    pub epoch: u64,
    pub last_heartbeat: Instant,
    /// Its full report is in: what it did not name, it does not have.
    pub reported: bool,
    /// It is to register and report all it holds at its next heartbeat: it was not told everything.
    pub report_again: bool,
    /// The number of its last report.
    pub report: u64,
    /// By its last heartbeat.
    pub traffic: BTreeMap<MountId, MountTraffic>,
    /// What it was told last that the cached blocks of mounts may take on it, in bytes.
    pub cache_shares: BTreeMap<MountId, u64>,
    /// Where it stands.
    pub labels: Labels,
    /// By its last heartbeat.
    pub hot: Vec<HotBlock>,
}

impl WorkerEntry {
    /// One that has reported, heard at this time.
    #[cfg(test)]
    pub fn heard(last_heartbeat: Instant, disks: Vec<DiskStatus>) -> Self {
        WorkerEntry {
            address: "w:1".to_owned(),
            token: 1,
            disks,
            version: String::new(),
            epoch: 0,
            last_heartbeat,
            reported: true,
            report_again: false,
            report: 0,
            traffic: BTreeMap::new(),
            cache_shares: BTreeMap::new(),
            labels: Labels::default(),
            hot: Vec::new(),
        }
    }

    fn is_live(&self, now: Instant) -> bool {
        now.duration_since(self.last_heartbeat) < LOST_AFTER
    }

    /// What it has that is kept, and what it has room for where anything may be kept.
    fn kept(&self) -> (u64, u64) {
        let lasting = self
            .disks
            .iter()
            .filter(|disk| disk.tier.lasts() && disk.failure.is_none());
        lasting.fold((0, 0), |(kept, capacity), disk| {
            let kept_bytes = disk.used_bytes.saturating_sub(disk.cached_bytes);
            (kept + kept_bytes, capacity + disk.capacity_bytes)
        })
    }

    /// What it may take of what is kept: cached blocks make room.
    fn room_bytes(&self) -> u64 {
        self.disks.iter().map(DiskStatus::kept_room_bytes).sum()
    }
}

/// The registered workers, by id.
#[derive(Debug, Default)]
pub struct Roster {
    workers: BTreeMap<WorkerId, WorkerEntry>,
    /// The greatest id that was ever given to a worker, as far as it was looked.
    pub last_worker: WorkerId,
    /// Which of them are out of service.
    pub out: OutOfService,
}

impl Roster {
    pub fn register(&mut self, id: WorkerId, entry: WorkerEntry) {
        self.workers.insert(id, entry);
    }

    /// Whether the worker is known by this token.
    pub fn knows(&self, id: WorkerId, token: u64) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.token == token)
    }

    /// What readers of a mount's files got, and its store gave, as far as the workers have said; and what the workers that
    /// live have cached of it.
    pub fn traffic(&self, mount: MountId, now: Instant) -> MountTraffic {
        let mut sum = MountTraffic::default();
        for worker in self.workers.values() {
            let Some(&(mut of_one)) = worker.traffic.get(&mount) else {
                continue;
            };
            if !worker.is_live(now) {
                of_one.cached_bytes = 0;
            }
            sum += of_one;
        }
        sum
    }

    /// What the cached blocks of mounts may take on a worker, of mounts with these quotas in bytes. From now on it counts as
    /// told so.
    pub fn cache_shares(&mut self, id: WorkerId, quotas: &[(MountId, u64)], now: Instant) -> Vec<CacheShare> {
        let share = |&(mount, quota_bytes): &(MountId, u64)| {
            let of_worker = |worker: &WorkerEntry| CacheUse {
                cached_bytes: worker
                    .traffic
                    .get(&mount)
                    .map_or(0, |traffic| traffic.cached_bytes),
                told_bytes: worker.cache_shares.get(&mount).copied().unwrap_or(0),
            };
            let live = self.workers.iter().filter(|(_, worker)| worker.is_live(now));
            let (ids, uses): (Vec<_>, Vec<_>) = live.map(|(id, worker)| (*id, of_worker(worker))).unzip();
            let place = ids.iter().position(|of| *of == id)?;
            Some(CacheShare {
                mount,
                bytes: share_of(quota_bytes, &uses, place),
            })
        };
        let shares: Vec<_> = quotas.iter().filter_map(share).collect();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.cache_shares = shares.iter().map(|share| (share.mount, share.bytes)).collect();
        }
        shares
    }

    /// What a worker has counted. It is known, and has this token.
    pub fn count(&mut self, id: WorkerId, traffic: Vec<(MountId, MountTraffic)>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.traffic = traffic.into_iter().collect();
        }
    }

    /// What a worker says is read there again and again. It is known, and has this token.
    pub fn is_hot(&mut self, id: WorkerId, hot: Vec<HotBlock>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.hot = hot;
        }
    }

    /// What is read again and again on the workers that live, each block as often as there are such workers.
    pub fn hot(&self, now: Instant) -> impl Iterator<Item = HotBlock> {
        let live = self.workers.values().filter(move |worker| worker.is_live(now));
        live.flat_map(|worker| worker.hot.iter().copied())
    }

    /// False if the worker must register first.
    pub fn heartbeat(&mut self, id: WorkerId, token: u64, disks: Vec<DiskStatus>, now: Instant) -> bool {
        match self.workers.get_mut(&id) {
            Some(worker) if worker.token == token => {
                worker.disks = disks;
                worker.last_heartbeat = now;
                !worker.report_again
            }
            _ => false,
        }
    }

    /// Whether no later report of this worker has come. The same one may come again: its answer was lost, perhaps.
    pub fn takes_report(&mut self, id: WorkerId, number: u64) -> bool {
        match self.workers.get_mut(&id) {
            Some(worker)
                if number == 0 || number >= worker.report || is_planted(Bug::BelievesLateReports) =>
            {
                worker.report = worker.report.max(number);
                true
            }
            _ => false,
        }
    }

    /// Has a worker register and report all that it holds.
    pub fn report_again(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.report_again = true;
        }
    }

    pub fn fully_reported(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.reported = true;
        }
    }

    /// Every worker that lives has told all it holds.
    pub fn all_reported(&self, now: Instant) -> bool {
        self.workers
            .values()
            .filter(|worker| worker.is_live(now))
            .all(|worker| worker.reported)
    }

    /// The registration under which a worker has told all it holds, if it has.
    pub fn reported_as(&self, id: WorkerId) -> Option<u64> {
        let worker = self.workers.get(&id).filter(|worker| worker.reported)?;
        Some(worker.token)
    }

    /// When a worker was last heard, if it is registered.
    pub fn last_heard(&self, id: WorkerId) -> Option<Instant> {
        Some(self.workers.get(&id)?.last_heartbeat)
    }

    /// Workers that have not told yet all that they hold.
    pub fn unreported(&self) -> impl Iterator<Item = WorkerId> {
        let unreported = self.workers.iter().filter(|(_, worker)| !worker.reported);
        unreported.map(|(id, _)| *id)
    }

    pub fn is_registered(&self, id: WorkerId) -> bool {
        self.workers.contains_key(&id)
    }

    /// Ids that were given, of which this is the greatest, to workers that this leader has not heard of, unless they were drained.
    pub fn unheard(&self, last_worker: WorkerId) -> impl Iterator<Item = WorkerId> {
        let ids = (1..=last_worker.0).map(WorkerId);
        ids.filter(|id| !self.is_registered(*id) && !self.out.is_drained(*id))
    }

    /// Workers that say of a disk that it has failed.
    pub fn with_failed_disks(&self) -> impl Iterator<Item = WorkerId> {
        let fails = |worker: &WorkerEntry| worker.disks.iter().any(|disk| disk.failure.is_some());
        let failing = self.workers.iter().filter(move |(_, worker)| fails(worker));
        failing.map(|(id, _)| *id)
    }

    /// Whether all ids are registered that were ever given, of which this is the greatest. Nobody waits for those that were
    /// drained: when they were, nothing depended on them, and nothing was put there since.
    pub fn are_all_registered(&self, last_worker: WorkerId) -> bool {
        self.unheard(last_worker).next().is_none()
    }

    pub fn is_live(&self, id: WorkerId, now: Instant) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.is_live(now))
    }

    pub fn live(&self, now: Instant) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|(_, worker)| worker.is_live(now))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The live workers that are in service.
    pub fn serving(&self, now: Instant) -> impl Iterator<Item = WorkerId> {
        let live = self.workers.iter().filter(move |(_, worker)| worker.is_live(now));
        live.map(|(id, _)| *id)
            .filter(move |id| self.out.is_in_service(*id, now))
    }

    /// Whether a worker may have the only copy of anything: not if it has nothing but memory.
    pub fn may_keep(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.disks.iter().any(|disk| disk.tier.lasts()))
    }

    /// Those; if there are none, those that live.
    pub fn in_service(&self, now: Instant) -> Vec<WorkerId> {
        let serving: Vec<_> = self.serving(now).collect();
        match serving.is_empty() {
            true => self.live(now),
            false => serving,
        }
    }

    /// Whether a worker has a disk on which a block so long finds room if other cached blocks make it.
    pub fn may_cache(&self, id: WorkerId, len_bytes: u64) -> bool {
        let takes = |disk: &DiskStatus| disk.failure.is_none() && disk.room_bytes() >= len_bytes;
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.disks.iter().any(takes))
    }

    /// Whether a worker has a disk on which a block so long finds room and nothing has to go for it, nor soon.
    pub fn has_free(&self, id: WorkerId, len_bytes: u64) -> bool {
        let takes = |disk: &DiskStatus| {
            let spare_bytes = disk.capacity_bytes / 10;
            disk.failure.is_none() && disk.available_bytes >= len_bytes.saturating_add(spare_bytes)
        };
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.disks.iter().any(takes))
    }

    /// Where a worker stands, if it is registered.
    pub fn labels(&self, id: WorkerId) -> Option<&Labels> {
        self.workers.get(&id).map(|worker| &worker.labels)
    }

    /// [`Labels::host_key`] of its host; 0 if that is not known.
    pub fn host_key(&self, id: WorkerId) -> u32 {
        self.labels(id).map_or(0, |labels| Labels::host_key(&labels.host))
    }

    /// What a worker has that is kept, and what it has room for where anything may be kept; zero if it is not registered.
    pub fn kept(&self, id: WorkerId) -> (u64, u64) {
        self.workers.get(&id).map_or((0, 0), WorkerEntry::kept)
    }

    /// What a worker may take yet of what is kept.
    pub fn kept_room(&self, id: WorkerId) -> u64 {
        self.workers.get(&id).map_or(0, WorkerEntry::room_bytes)
    }

    /// What a worker has that is kept, in parts per million of what it has room for; all, where it has none.
    pub fn kept_share(&self, id: WorkerId) -> u64 {
        let (kept, capacity) = self.kept(id);
        match capacity {
            0 => PARTS,
            _ => (kept.saturating_mul(PARTS) / capacity).min(PARTS),
        }
    }

    /// Live workers in service for a kept block that may become so long, the roomiest first; those with the same room by id. Those that
    /// have neither room for all of it nor half of what the roomiest has, only where there are not `wanted` others.
    pub fn with_room(&self, block_bytes: u64, wanted: usize, now: Instant) -> Vec<WorkerId> {
        let mut found: Vec<(u64, WorkerId)> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.is_live(now) && worker.room_bytes() > 0)
            .filter(|(id, _)| self.out.is_in_service(**id, now))
            .map(|(id, worker)| (worker.room_bytes(), *id))
            .collect();
        found.sort_by_key(|(room, id)| (std::cmp::Reverse(*room), *id));
        let most_bytes = found.first().map_or(0, |(room, _)| *room);
        let enough_bytes = block_bytes.min(most_bytes / 2);
        let have_enough = found.partition_point(|(room, _)| *room >= enough_bytes);
        found.truncate(have_enough.max(wanted));
        found.into_iter().map(|(_, id)| id).collect()
    }

    pub fn stats(&self, now: Instant) -> FsStats {
        let mut stats = FsStats::default();
        let live = self.workers.iter().filter(|(_, worker)| worker.is_live(now));
        for (id, worker) in live {
            match self.out.counts(*id) {
                true => worker.disks.iter().for_each(|disk| stats.add(disk)),
                false => worker
                    .disks
                    .iter()
                    .for_each(|disk| stats.add(&without_room(disk))),
            }
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
            last_heartbeat_ms_ago: whole_ms(now.duration_since(worker.last_heartbeat)).into(),
            version: worker.version.clone(),
            service: self.out.of(*id, now),
            drain_left: self.out.left(*id),
            labels: worker.labels.clone(),
        };
        self.workers.iter().map(status).collect()
    }

    /// Where to reach those of these workers that are registered.
    pub fn addresses_of(&self, ids: impl IntoIterator<Item = WorkerId>) -> Vec<WorkerAddress> {
        let known = |id| {
            let worker = self.workers.get(&id)?;
            Some(WorkerAddress {
                id,
                address: worker.address.clone(),
                epoch: worker.epoch,
            })
        };
        ids.into_iter().filter_map(known).collect()
    }

    /// Where to reach the workers that live.
    pub fn addresses(&self, now: Instant) -> Vec<WorkerAddress> {
        self.addresses_of(self.live(now))
    }

    pub fn address(&self, id: WorkerId) -> Option<String> {
        self.workers.get(&id).map(|worker| worker.address.clone())
    }
}

/// A disk of a worker that takes nothing any more: it has what it has.
fn without_room(disk: &DiskStatus) -> DiskStatus {
    DiskStatus {
        capacity_bytes: disk.used_bytes,
        available_bytes: 0,
        cached_bytes: 0,
        pinned_bytes: 0,
        ..disk.clone()
    }
}
