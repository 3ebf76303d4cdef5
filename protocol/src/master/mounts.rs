//! Under file systems: their mounts, and what is kept here of their files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attr::UfsVersion;
use crate::ids::{EffectId, InodeId, MountId, WorkerId};
use crate::mount::{MountChanges, MountInfo, MountRecord, MountSettings};
use crate::path::{CurvinePath, Node};

/// The mount table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMounts {}

/// In the order of their ids, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    pub mounts: Vec<MountInfo>,
}

/// Mounts an under file system. The leader checks it (reachable, listable, writable if asked) before recording it.
///
/// # Errors
/// `AlreadyExists`, `DirectoryNotEmpty`, `InvalidArgument` (inside another mount, unknown scheme or option), `NotFound`
/// (no such bucket), `UfsDenied`, `Ufs`; the message names the cause.
#[derive(Clone, Serialize, Deserialize)]
pub struct MountUfs {
    pub path: CurvinePath,
    pub uri: String,
    pub options: BTreeMap<String, String>,
    pub settings: MountSettings,
}

impl std::fmt::Debug for MountUfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountUfs")
            .field("path", &self.path)
            .field("uri", &self.uri)
            .field("options", &self.options.keys())
            .field("settings", &self.settings)
            .finish()
    }
}

/// Changes options and settings of a mount and keeps what is cached of it. The leader checks the store with them before
/// it records them.
///
/// # Errors
/// `NotFound` if nothing is mounted on that very path; `InvalidArgument` for what would lead somewhere else; those of
/// [`MountUfs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateMount {
    pub path: CurvinePath,
    pub changes: MountChanges,
}

/// Undoes a mount: the names below it and the cached blocks go, the objects stay.
///
/// # Errors
/// `NotFound` if nothing is mounted on that very path; `Busy` if the under file system has not got everything yet, unless
/// `force`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmountUfs {
    pub path: CurvinePath,
    #[serde(default = "forced")]
    pub force: bool,
}

/// Clients of older versions did not know of anything else.
fn forced() -> bool {
    true
}

/// Drops the cached blocks of files of under file systems below a path; the files stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeCache {
    pub path: CurvinePath,
}

/// What [`FreeCache`] dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    pub files: u64,
    pub bytes: u64,
    /// Files whose authority is Curvine: their blocks are the only copy and were kept.
    pub kept: u64,
}

/// After a file in a writable mount was written: has it written to its object. Answers when it is there or, as the mount's
/// [`WriteMode`](crate::mount::WriteMode) has it, when it is sure to get there.
///
/// # Errors
/// `Ufs`, `UfsDenied` as the under file system says: the file stays in the queue all the same. `UnderWay` if it takes long;
/// `BlockUnavailable` if no worker is live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistFile {
    pub inode: InodeId,
    /// Wait for the object, whatever the mount's mode.
    #[serde(default)]
    pub wait: bool,
}

/// Waits until every file at or below a node is in the under file system as it is now. Files that somebody is writing are
/// left to those.
///
/// # Errors
/// As [`PersistFile`], of the first file that failed; `InvalidArgument` outside mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistTree {
    pub node: Node,
}

/// How many files had to be waited for, and how many more are being written: they are stored when they are closed or synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    pub files: u64,
    #[serde(default)]
    pub being_written: u64,
}

/// A worker asks how to reach a mount's under file system. The only call that hands out credentials.
///
/// # Errors
/// `NotPermitted` without a valid token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveMount {
    pub worker: WorkerId,
    /// From [`WorkerRegistered`](super::WorkerRegistered).
    pub token: u64,
    pub mount: MountId,
}

/// The mount with its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSecret {
    pub record: MountRecord,
}

/// A worker asks what object is behind a file, to fill its blocks.
///
/// # Errors
/// `NotPermitted` without a valid token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeFile {
    pub worker: WorkerId,
    pub token: u64,
    pub inode: InodeId,
}

/// A worker noticed that the object is not the version the namespace has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportUfsChanged {
    pub inode: InodeId,
    /// The version the worker was told to read.
    pub expected: UfsVersion,
}

/// A worker has read all that it is to export, and asks whether that is still the file, and still wanted, before anybody can
/// see the object.
///
/// # Errors
/// `Stale` if not; `NotPermitted` without a valid token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmExport {
    pub worker: WorkerId,
    pub token: u64,
    pub effect: EffectId,
}
