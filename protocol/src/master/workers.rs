//! Workers: how they introduce themselves and report, and what they have room for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::{BlockReplica, DiskStatus, Labels, Tier, WorkerService};
use crate::ids::{BlockId, ClusterId, MountId, WorkerId};
use crate::mount::MountTraffic;
use crate::path::Node;

/// Capacity and use of the whole cluster (`df`, `statfs`); below a quota that limits something, what that allows and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFs {
    #[serde(default)]
    pub node: Option<Node>,
}

/// The sums over the data directories of all workers that live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// What may still be written. Of the used bytes, `cached_bytes` are among them: they make room.
    pub available_bytes: u64,
    pub inodes: u64,
    /// By tier: capacity, used, available.
    pub tiers: BTreeMap<String, TierStats>,
    /// What of the used bytes are cached blocks.
    #[serde(default)]
    pub cached_bytes: u64,
}

/// The sums over the data directories of one tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// See [`FsStats::available_bytes`].
    pub available_bytes: u64,
    /// See [`FsStats::cached_bytes`].
    #[serde(default)]
    pub cached_bytes: u64,
}

/// A worker introduces itself, at its start and whenever the master asks for it.
///
/// # Errors
/// `WrongCluster` if its data directory belongs to another cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterWorker {
    /// None on the very first start.
    pub worker: Option<WorkerId>,
    pub cluster: Option<ClusterId>,
    /// `host:port` where clients reach it.
    pub address: String,
    pub disks: Vec<DiskStatus>,
    pub version: String,
    /// See [`WorkerAddress`](crate::attr::WorkerAddress).
    #[serde(default)]
    pub epoch: u64,
    /// Where it stands.
    #[serde(default)]
    pub labels: Labels,
}

/// What the master knows the worker by from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRegistered {
    pub worker: WorkerId,
    pub cluster: ClusterId,
    /// Proves to the master that it speaks with a registered worker. Valid until the next registration.
    pub token: u64,
}

/// A worker says that it lives, and how its disks are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerHeartbeat {
    pub worker: WorkerId,
    pub token: u64,
    pub disks: Vec<DiskStatus>,
    /// Since it began, in no order.
    #[serde(default)]
    pub traffic: Vec<(MountId, MountTraffic)>,
    /// Blocks that were read again and again, the hottest first: some hundreds at most.
    #[serde(default)]
    pub hot: Vec<HotBlock>,
}

/// How often a block was read on a worker, where those readings count less that were long ago: by half every ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotBlock {
    pub block: BlockId,
    /// Of readers, of whatever length; those of the same second count as one.
    pub passes: u32,
}

/// The master's answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatOrders {
    /// The master does not know this worker (it restarted): register and report again.
    pub register: bool,
    /// What the cached blocks of each mount that has a quota may take on this worker; of others there is no limit. None: as
    /// the worker was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_shares: Option<Vec<CacheShare>>,
}

/// What the cached blocks of a mount may take on a worker: its part of
/// [`cache_quota_bytes`](crate::mount::MountSettings::cache_quota_bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheShare {
    pub mount: MountId,
    pub bytes: u64,
}

/// From an operator: takes a worker out of service, or back into it. `Drained` is what the leader finds, and nobody says.
///
/// # Errors
/// `NotFound` if no worker ever had this id; `InvalidArgument` for `Drained`, or a maintenance that has ended already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWorkerService {
    pub worker: WorkerId,
    pub service: WorkerService,
}

/// What a worker holds. A full report comes in parts after each registration, later ones tell only changes.
///
/// # Errors
/// `NotPermitted` if the worker is not registered, or has registered again since; `Stale` if a later one has come already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBlocks {
    pub worker: WorkerId,
    pub token: u64,
    /// First part of a full report: forget what was known of this worker.
    pub full_start: bool,
    /// Last part of a full report.
    pub full_end: bool,
    pub stored: Vec<BlockReplica>,
    pub removed: Vec<BlockId>,
    /// Which of this worker's it is: greater than that of any before. 0 from versions that do not number them.
    #[serde(default)]
    pub number: u64,
    /// In a full report, one bit for each of `stored`, from the lowest of the first byte on: whether the worker takes it for
    /// kept. Empty: it does not say.
    #[serde(default)]
    pub kept: Vec<u8>,
    /// Of `stored`, those of which a power cut may have undone what had been sealed. The worker serves none of them, and takes
    /// no writes for them, before an answer says that they count.
    #[serde(default)]
    pub doubtful: Vec<BlockId>,
    /// Kept blocks whose replicas failed their checksums here: the worker has set them aside, and has them no more. In a full
    /// report, in its last part, all of them.
    #[serde(default)]
    pub damaged: Vec<BlockId>,
    /// In a full report, as `kept`: whether each is pinned on the worker's disk.
    #[serde(default)]
    pub pinned: Vec<u8>,
    /// As `kept`, in any report: which of `stored` are on a disk that has failed, or could not be read. Others are to have
    /// them as if they were not here. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endangered: Vec<u8>,
}

impl ReportBlocks {
    /// A part of a report that says nothing yet.
    pub fn nothing(worker: WorkerId, token: u64) -> Self {
        ReportBlocks {
            worker,
            token,
            full_start: false,
            full_end: false,
            stored: Vec::new(),
            removed: Vec::new(),
            number: 0,
            kept: Vec::new(),
            doubtful: Vec::new(),
            damaged: Vec::new(),
            pinned: Vec::new(),
            endangered: Vec::new(),
        }
    }

    /// The bits of a report, one for each block.
    pub fn bits(of_blocks: impl IntoIterator<Item = bool>) -> Vec<u8> {
        let mut bits = Vec::new();
        for (place, is_set) in of_blocks.into_iter().enumerate() {
            if place.is_multiple_of(8) {
                bits.push(0);
            }
            if let Some(last) = bits.last_mut() {
                *last |= u8::from(is_set) << (place % 8);
            }
        }
        bits
    }

    /// Those of `stored` that the worker says it keeps.
    pub fn said_kept(&self) -> impl Iterator<Item = &BlockReplica> {
        let places = self.stored.iter().enumerate();
        places
            .filter(move |(place, _)| bit(&self.kept, *place))
            .map(|(_, replica)| replica)
    }

    /// Those of `stored` that the worker may not be able to give back.
    pub fn said_endangered(&self) -> impl Iterator<Item = BlockId> {
        let places = self.stored.iter().enumerate();
        places
            .filter(move |(place, _)| bit(&self.endangered, *place))
            .map(|(_, replica)| replica.id)
    }

    /// Each of `stored`, and whether the worker says that it is pinned.
    pub fn said_pinned(&self) -> impl Iterator<Item = (&BlockReplica, bool)> {
        let places = self.stored.iter().enumerate();
        places.map(|(place, replica)| (replica, bit(&self.pinned, place)))
    }
}

/// One bit of a report.
fn bit(bits: &[u8], place: usize) -> bool {
    let byte = bits.get(place / 8);
    byte.is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}

/// What is to become of blocks that were reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// The worker should delete them: nothing in the namespace refers to them, or others have something better.
    pub delete: Vec<BlockId>,
    /// Of those that were doubtful: there can be nothing better than what the worker has.
    #[serde(default)]
    pub accept: Vec<BlockId>,
    /// Of those that were damaged: what was set aside is of no use to anybody, and may go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard: Vec<BlockId>,
}

impl TierStats {
    /// Adds one data directory.
    pub fn add(&mut self, disk: &DiskStatus) {
        self.capacity_bytes += disk.capacity_bytes;
        self.used_bytes += disk.used_bytes;
        self.available_bytes += disk.room_bytes();
        self.cached_bytes += disk.cached_bytes;
    }
}

impl FsStats {
    /// Adds one data directory to the totals and to its tier.
    pub fn add(&mut self, disk: &DiskStatus) {
        self.capacity_bytes += disk.capacity_bytes;
        self.used_bytes += disk.used_bytes;
        self.available_bytes += disk.kept_room_bytes();
        self.cached_bytes += disk.cached_bytes;
        let tier: Tier = disk.tier;
        self.tiers.entry(tier.to_string()).or_default().add(disk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_of_each_block_whether_it_is_kept() {
        let stored = |id| BlockReplica {
            id: BlockId(id),
            generation: 1,
            len_bytes: 1,
        };
        let mut report = ReportBlocks {
            worker: WorkerId(1),
            token: 1,
            full_start: true,
            full_end: true,
            stored: (0..20).map(stored).collect(),
            removed: Vec::new(),
            number: 1,
            kept: ReportBlocks::bits((0..20).map(|id| id % 3 == 0)),
            doubtful: Vec::new(),
            damaged: Vec::new(),
            pinned: ReportBlocks::bits((0..20).map(|id| id == 5)),
            endangered: ReportBlocks::bits((0..20).map(|id| id > 17)),
        };
        let kept: Vec<u64> = report.said_kept().map(|replica| replica.id.0).collect();
        assert_eq!(kept, [0, 3, 6, 9, 12, 15, 18]);
        let pinned = report.said_pinned().filter(|(_, is_pinned)| *is_pinned);
        assert_eq!(pinned.map(|(replica, _)| replica.id.0).collect::<Vec<_>>(), [5]);
        let endangered: Vec<u64> = report.said_endangered().map(|block| block.0).collect();
        assert_eq!(endangered, [18, 19]);
        report.kept.clear();
        report.endangered.clear();
        assert_eq!(report.said_kept().count() + report.said_endangered().count(), 0);
    }
}
