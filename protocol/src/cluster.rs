//! Workers as masters know them, and the state of the cluster as users see it.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::ids::{BlockId, ClusterId, NodeId, WorkerId};

/// Where masters, workers and status pages listen unless told otherwise.
pub const DEFAULT_MASTER_PORT: u16 = 8995;
pub const DEFAULT_WORKER_PORT: u16 = 8996;
pub const DEFAULT_WEB_PORT: u16 = 8990;

/// What a data directory is on, as its operator says. The order is that of speed, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    Mem,
    Ssd,
    Hdd,
}

impl Tier {
    /// The fastest first.
    pub const ALL: [Tier; 3] = [Tier::Mem, Tier::Ssd, Tier::Hdd];

    /// As records and calls have it, from 1 on.
    pub fn code(self) -> u8 {
        match self {
            Tier::Mem => 1,
            Tier::Ssd => 2,
            Tier::Hdd => 3,
        }
    }

    /// None for a code that is no tier's.
    pub fn of_code(code: u8) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.code() == code)
    }

    /// Whether what is there outlives a power cut, so that it may be the only copy of something.
    pub fn lasts(self) -> bool {
        self != Tier::Mem
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Tier::Mem => "MEM",
            Tier::Ssd => "SSD",
            Tier::Hdd => "HDD",
        })
    }
}

/// One data directory of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub tier: Tier,
    /// Shown to people; never used as a path by anybody but the worker itself.
    pub path: String,
    /// What the directory may hold: as configured, else what it held and could take when the worker started.
    pub capacity_bytes: u64,
    /// Bytes of block data.
    pub used_bytes: u64,
    /// What may still be written with everything staying: capacity and the device's free space, less the reserve.
    pub available_bytes: u64,
    /// Without copies of what another directory of the worker has.
    pub blocks: u64,
    /// Why the disk takes no more data, if it has failed.
    pub failure: Option<String>,
    /// What of the used bytes are cached blocks: an under file system has them, and they go when something else needs the
    /// room.
    #[serde(default)]
    pub cached_bytes: u64,
    /// What of the used bytes are cached blocks that are pinned. They are not among `cached_bytes`: they do not go.
    #[serde(default)]
    pub pinned_bytes: u64,
}

impl DiskStatus {
    /// What of that may be taken by what is kept: nothing of memory, which never has the only copy of anything.
    pub fn kept_room_bytes(&self) -> u64 {
        match self.tier.lasts() {
            true => self.room_bytes(),
            false => 0,
        }
    }

    /// What may still be written: cached blocks make room.
    pub fn room_bytes(&self) -> u64 {
        match self.failure {
            Some(_) => 0,
            None => self.available_bytes.saturating_add(self.cached_bytes),
        }
    }
}

/// Whether a worker is there, as far as the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// Its last heartbeat is recent.
    Live,
    /// No heartbeat for longer than the master's limit.
    Lost,
}

/// What a worker is there for, as its operator says. Replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerService {
    /// It takes blocks.
    #[default]
    InService,
    /// It takes no new blocks. What it alone keeps is copied to others.
    Draining,
    /// Nothing that is kept depends on it: it may be stopped for good.
    Drained,
    /// It takes no new blocks, and others make no replicas of what it has while it is away, until this time (nanoseconds
    /// since the Unix epoch): it comes back.
    Maintenance { until_ns: i64 },
}

/// What a worker that is being drained still has, as the last look at all files found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainLeft {
    /// Kept blocks of which others in service have too few replicas.
    pub blocks: u64,
    pub len_bytes: u64,
    /// Blocks of files that somebody is writing: they are looked at when those are closed.
    pub open_blocks: u64,
    /// Blocks that failed their checksums and are set aside there: what is right of them may be nowhere else.
    #[serde(default)]
    pub damaged_blocks: u64,
}

impl DrainLeft {
    pub fn is_nothing(&self) -> bool {
        *self == DrainLeft::default()
    }
}

/// A worker, as `cv report` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub id: WorkerId,
    pub address: String,
    pub state: WorkerState,
    pub disks: Vec<DiskStatus>,
    pub last_heartbeat_ms_ago: u64,
    pub version: String,
    #[serde(default)]
    pub service: WorkerService,
    /// While it is being drained, from the first look on.
    #[serde(default)]
    pub drain_left: Option<DrainLeft>,
    /// Where it stands.
    #[serde(default)]
    pub labels: Labels,
}

/// Where a worker stands: names that mean something to whoever gave them. Empty: nobody has said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    pub host: String,
    pub rack: String,
}

impl Labels {
    /// A short name of the host, for calls: the CRC32C of its name, 0 for one without a name. That two hosts share one is
    /// unlikely, and harmless.
    pub fn host_key(host: &str) -> u32 {
        match host.is_empty() {
            true => 0,
            false => crate::checksum::crc32c(host.as_bytes()).max(1),
        }
    }
}

impl Display for Labels {
    /// `host=NAME,rack=NAME`, without what is empty.
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let named = [("host", &self.host), ("rack", &self.rack)];
        let named = named.iter().filter(|(_, name)| !name.is_empty());
        let words: Vec<String> = named.map(|(key, name)| format!("{key}={name}")).collect();
        out.pad(&words.join(","))
    }
}

/// What a master is in its group. Shown, and sent, by its name in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterRole {
    Leader,
    Follower,
    /// It votes for nobody, because it is not in step yet.
    Learner,
}

impl Display for MasterRole {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            MasterRole::Leader => "leader",
            MasterRole::Follower => "follower",
            MasterRole::Learner => "learner",
        })
    }
}

/// A master, as `cv report` and `cv master list` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    pub id: NodeId,
    pub address: String,
    pub role: MasterRole,
    /// 0 if it did not answer.
    pub applied_index: u64,
    #[serde(default = "yes")]
    pub is_reachable: bool,
}

/// Masters of before this field named nobody who was not there.
fn yes() -> bool {
    true
}

/// Answer to `cv report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub cluster: ClusterId,
    pub version: String,
    pub masters: Vec<MasterStatus>,
    pub workers: Vec<WorkerStatus>,
    pub inodes: u64,
    pub mounts: u64,
    /// Seconds since the answering master started.
    pub uptime_s: u64,
    /// What the leader does of its own accord.
    #[serde(default)]
    pub duties: Vec<DutyStatus>,
}

/// One duty of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyStatus {
    /// One word: `sessions`, `deletions`, `loads`.
    pub name: String,
    /// What it is doing, for people.
    pub doing: String,
    /// Why its last try failed; none if it did not.
    pub failure: Option<String>,
}

/// A block a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReplica {
    pub id: BlockId,
    pub generation: u32,
    /// Bytes of the block that are there. For a block of an under file system this counts only once it is whole.
    pub len_bytes: u64,
}
