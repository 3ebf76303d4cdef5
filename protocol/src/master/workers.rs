//! Workers: how they introduce themselves and report, and what they have room for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::{BlockReplica, DiskStatus, Tier};
use crate::ids::{BlockId, ClusterId, WorkerId};

/// Capacity and use of the whole cluster (`df`, `statfs`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFs {}

/// The sums over the data directories of all workers that live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    /// By tier: capacity, used, available.
    pub tiers: BTreeMap<String, TierStats>,
}

/// The sums over the data directories of one tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
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
}

/// The master's answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatOrders {
    /// The master does not know this worker (it restarted): register and report again.
    pub register: bool,
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
}

/// Blocks that the worker should delete: nothing in the namespace refers to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    pub delete: Vec<BlockId>,
}

impl TierStats {
    /// Adds one data directory.
    pub fn add(&mut self, disk: &DiskStatus) {
        self.capacity_bytes += disk.capacity_bytes;
        self.used_bytes += disk.used_bytes;
        self.available_bytes += disk.available_bytes;
    }
}

impl FsStats {
    /// Adds one data directory to the totals and to its tier.
    pub fn add(&mut self, disk: &DiskStatus) {
        self.capacity_bytes += disk.capacity_bytes;
        self.used_bytes += disk.used_bytes;
        self.available_bytes += disk.available_bytes;
        let tier: Tier = disk.tier;
        self.tiers.entry(tier.to_string()).or_default().add(disk);
    }
}
