//! The group of masters: who is in it and leads, snapshots, backups, and what its masters tell each other.

use serde::{Deserialize, Serialize};

use crate::attr::WorkerAddress;
use crate::backup::BackupHeader;
use crate::ids::{ClusterId, NodeId};

/// Nothing: the floor under every other call's cost. Takes the way of a [`Lookup`](super::Lookup), without the look-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {}

/// The address of the leader and the workers, to route by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRoutes {}

/// How to reach the cluster. A client asks again when a worker is not where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub cluster: ClusterId,
    pub leader: NodeId,
    /// `host:port` of each master of the group.
    pub masters: Vec<String>,
    pub workers: Vec<WorkerAddress>,
}

/// The state of the cluster, for `cv report` and the status pages: a [`ClusterStatus`](crate::cluster::ClusterStatus).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetClusterStatus {}

/// Makes a master that runs already a voter of the group, once it is in step.
///
/// # Errors
/// `AlreadyExists` if it is one, or if another has its id or address; `Unreachable` if it does not run; `Timeout` if it
/// is not in step after half an hour, and stays a learner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddMaster {
    pub id: NodeId,
    /// `host:port` where it listens.
    pub address: String,
}

/// Takes a master out of the group.
///
/// # Errors
/// `NotFound`; `InvalidArgument` for the master that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMaster {
    pub id: NodeId,
}

/// Has another master lead.
///
/// # Errors
/// `NotFound`; `NoSpace` if the disk of that master is full; `Busy` if it, or too many others, are down or not in step;
/// `Timeout`, after which this master leads on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeadership {
    /// Whom; none: any that has everything.
    pub to: Option<NodeId>,
}

/// Takes a snapshot of the namespace now, behind which the log can be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeSnapshot {}

/// The snapshot is on the leader's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTaken {
    /// Index of the last log entry that is in it.
    pub log_index: u64,
}

/// Has the leader copy the namespace as it is now, to be read with [`ReadBackup`].
///
/// # Errors
/// `NoSpace` if there is no room for a copy, `Busy` while too many are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBackup {}

/// A copy of the namespace that waits to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOpened {
    pub id: u64,
    pub header: BackupHeader,
}

/// Reads a part of a copy, of at most [`BACKUP_PART_BYTES`]; the empty part at its end gives it back. One that is not
/// read for [`BACKUP_KEPT_MS`] is dropped.
///
/// # Errors
/// `Stale` if the master has no such copy any more: another one leads, or it was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBackup {
    pub id: u64,
    pub offset_bytes: u64,
}

/// The part is the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupPart {
    /// CRC32C of the part.
    pub checksum: u32,
}

/// Most bytes of a part.
pub const BACKUP_PART_BYTES: usize = 1 << 20;
/// How long a copy waits for its next reading.
pub const BACKUP_KEPT_MS: u64 = 60_000;

/// A message of the masters' Raft group to one of its masters. What it says and the answer are in the bodies, in an
/// encoding that belongs to the masters alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// Of the sender, if it knows: masters of two clusters do not listen to each other.
    pub cluster: Option<ClusterId>,
    pub from: NodeId,
    /// Whom the sender takes the receiver for.
    pub to: NodeId,
    pub kind: RaftMessageKind,
    /// When the sender's namespace was restored from a backup; 0 = never. Before and after, a cluster has two
    /// histories, and masters of one do not listen to those of the other.
    #[serde(default)]
    pub restored_ns: i64,
}

/// What a master says to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftMessageKind {
    /// Log entries, or none: a heartbeat.
    Append,
    /// A candidate asks for a vote.
    Vote,
    /// A part of a snapshot's file. The answer says how much of it the receiver has: a transfer that broke off goes on
    /// there.
    SnapshotPart {
        /// The file, by name.
        snapshot: String,
        offset_bytes: u64,
        /// CRC32C of the part.
        checksum: u32,
    },
    /// The file is whole: install it.
    SnapshotEnd { snapshot: String, checksum: u32 },
    /// How the receiver stands: asked by masters that start.
    Standing,
    /// The sender leads and wants another to: stand for election now, `again` if that is the second time.
    Elect { again: bool },
}

/// The answer is the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftAnswer {}

/// Most bytes of a [`RaftAnswer`]'s body.
pub(super) const RAFT_ANSWER_BYTES_MAX: usize = 64 << 10;
