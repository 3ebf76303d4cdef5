//! The master service: what clients and workers ask of a master.
//!
//! Calls that change the namespace are [`Mutation`]s: they become an [`Op`] in the replicated log
//! and are answered only after commit and apply. Every other call is answered from the leader's state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, DirEntry, FileKind, FileLayout, WorkerAddress};
use crate::backup::BackupHeader;
use crate::call::{Mutation, calls};
use crate::cluster::{BlockReplica, ClusterStatus, DiskStatus, Tier};
use crate::error::{Error, Result};
use crate::ids::{BlockId, ClusterId, InodeId, JobId, MountId, NodeId, WorkerId};
use crate::job::JobRecord;
use crate::mount::{MountInfo, MountRecord, MountSettings};
use crate::op::{Op, OpReply};
use crate::path::{CurvinePath, Node};
use crate::worker::Done;

// ---------------------------------------------------------------------------------------------------------------
// Reads of the namespace

/// Nothing: the floor under every other call's cost. Takes the same way as [`Lookup`], without the look-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {}

/// Finds one inode.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `TooManySymlinks`; `Ufs...` where the answer needs the under file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    pub node: Node,
    /// Follow a symbolic link in the last name of a path.
    pub follow: bool,
}

/// One inode: its attributes and, for a symbolic link, where it points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub attr: Attr,
    pub target: Option<String>,
}

/// Lists a directory in the order of the names' bytes, a page at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDir {
    pub node: Node,
    /// Names after this one only; none for the first page.
    pub after: Option<String>,
    /// At most this many, and at most [`LIST_ENTRIES_MAX`].
    pub limit: u32,
}

pub const LIST_ENTRIES_MAX: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub directory: Attr,
    pub parent: InodeId,
    pub entries: Vec<DirEntry>,
    /// Whether there are names after the last one.
    pub more: bool,
}

/// Opens a file for reading: attributes and where the data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    pub node: Node,
    /// Follow a symbolic link in the last name of a path.
    pub follow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetXattr {
    pub node: Node,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrValue {
    pub value: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListXattrs {
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrNames {
    pub names: Vec<String>,
}

/// The path of an inode, for messages and `cv blocks`. With several links, one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetPath {
    pub inode: InodeId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathOf {
    pub path: CurvinePath,
}

/// Counts what is below a node (`cv count`, `cv du`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summarize {
    pub node: Node,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub directories: u64,
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Bytes of them that some worker holds.
    pub cached_bytes: u64,
}

/// Capacity and use of the whole cluster (`df`, `statfs`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFs {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    /// By tier: capacity, used, available.
    pub tiers: BTreeMap<String, TierStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStats {
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub available_bytes: u64,
}

/// The address of the leader and the workers, to route by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRoutes {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub cluster: ClusterId,
    pub leader: NodeId,
    pub masters: Vec<String>,
    pub workers: Vec<WorkerAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetClusterStatus {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMounts {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    pub mounts: Vec<MountInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetJob {
    pub id: JobId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListJobs {}

/// Newest first, without their failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    pub jobs: Vec<JobRecord>,
}

// ---------------------------------------------------------------------------------------------------------------
// Changes of the namespace

/// Makes a directory.
///
/// # Errors
/// `AlreadyExists` unless `parents` and it is a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDir {
    pub node: Node,
    pub mode: u32,
    /// As `mkdir -p`: make what is missing above, and be content if it is there.
    pub parents: bool,
}

/// Creates a file and opens it for writing by the calling client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFile {
    pub node: Node,
    pub mode: u32,
    pub if_exists: IfExists,
    /// Make missing parent directories (mode 0o755).
    pub parents: bool,
    /// 0 = the cluster's default.
    pub block_bytes: u64,
    /// 0 = the cluster's default.
    pub replicas: u8,
    /// Assign the first block at once, which saves a round trip.
    pub first_block: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IfExists {
    /// `AlreadyExists`.
    Fail,
    /// Open it as it is.
    Open,
    /// Open it and cut it to nothing.
    Truncate,
}

/// Makes a FIFO, socket or device node, or a plain file without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeNode {
    pub node: Node,
    pub kind: FileKind,
    pub mode: u32,
    pub rdev: u32,
}

/// Opens an existing file for writing: the calling client becomes its lease holder. It writes blocks under the
/// generation `content_version + 1`, which no writer before it can have used.
///
/// # Errors
/// `LeaseConflict` while another client holds the lease, `ReadOnly`, `IsADirectory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenForWrite {
    pub node: Node,
    pub follow: bool,
    pub truncate: bool,
}

/// Assigns blocks so that block indexes below `until_index` all have one, and says where to write those from
/// `from_index` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateBlocks {
    pub inode: InodeId,
    pub from_index: u32,
    pub until_index: u32,
}

/// Records what was written: lengths of blocks, the size, the modification time. With `close`, gives the lease back.
/// The size becomes exactly `size_bytes`. Blocks beyond it are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFile {
    pub inode: InodeId,
    pub size_bytes: u64,
    pub blocks: Vec<BlockCommit>,
    /// None = the time of the command, if blocks were written.
    pub mtime_ns: Option<i64>,
    pub close: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCommit {
    pub index: u32,
    pub id: BlockId,
    pub len_bytes: u64,
    pub generation: u32,
    /// Who has it. Known to the master before their own report arrives.
    pub workers: Vec<WorkerId>,
}

/// Changes attributes; what is none stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AttrChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Truncates or extends a file (with a hole).
    pub size_bytes: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The time of the command.
    Now,
    /// Nanoseconds since the Unix epoch.
    At(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    pub node: Node,
    pub follow: bool,
    pub change: AttrChange,
}

/// Moves an entry, with the semantics of `renameat2(2)`. Atomic; O(1) for a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    pub from: Node,
    pub to: Node,
    pub mode: RenameMode,
    /// The caller has the replaced file open: keep it, nameless, until `ReleaseInode`.
    pub keep_replaced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The moved inode.
    pub attr: Attr,
    /// The inode that lost a link to the move, as it is now.
    pub replaced: Option<Attr>,
}

/// Removes a name of something that is not a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlink {
    pub node: Node,
    /// The caller has the file open: if this was the last name, keep the inode until `ReleaseInode` or until the
    /// caller's session ends.
    pub keep_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveDir {
    pub node: Node,
}

/// Removes a file or directory by path; with `recursive`, all below it, atomically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub node: Node,
    pub recursive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub files: u64,
    pub directories: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeSymlink {
    pub node: Node,
    pub target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeLink {
    pub source: Node,
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetXattr {
    pub node: Node,
    pub name: String,
    pub value: Vec<u8>,
    /// `XATTR_CREATE`: fail if it is there.
    pub create_only: bool,
    /// `XATTR_REPLACE`: fail if it is not.
    pub replace_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveXattr {
    pub node: Node,
    pub name: String,
}

/// The last handle of a nameless inode was closed (see `Unlink::keep_open`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseInode {
    pub inode: InodeId,
}

/// Keeps the calling client's leases and nameless inodes for another lease time. Clients send it every
/// [`SESSION_RENEW_MS`]; after [`SESSION_EXPIRE_MS`] without one the master ends the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewSession {}

pub const SESSION_RENEW_MS: u64 = 10_000;
pub const SESSION_EXPIRE_MS: u64 = 60_000;

/// Ends the calling client's session: leases and nameless inodes are given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession {}

// ---------------------------------------------------------------------------------------------------------------
// Under file systems and jobs: answered by the leader, which checks, then changes the namespace

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmountUfs {
    pub path: CurvinePath,
}

/// Starts a load job. Paths are checked to exist first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitLoad {
    pub paths: Vec<CurvinePath>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelJob {
    pub id: JobId,
}

/// Drops the cached blocks of files of under file systems below a path; the files stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeCache {
    pub path: CurvinePath,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    pub files: u64,
    pub bytes: u64,
    /// Files whose authority is Curvine: their blocks are the only copy and were kept.
    pub kept: u64,
}

/// After closing a file in a writable mount: write it to the under file system. Answers when it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistFile {
    pub inode: InodeId,
}

// ---------------------------------------------------------------------------------------------------------------
// Workers

/// A worker introduces itself, at its start and whenever the master asks for it.
///
/// # Errors
/// `WrongCluster` if its data directory belongs to another cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterWorker {
    /// None on the very first start.
    pub worker: Option<WorkerId>,
    pub cluster: Option<ClusterId>,
    pub address: String,
    pub disks: Vec<DiskStatus>,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRegistered {
    pub worker: WorkerId,
    pub cluster: ClusterId,
    /// Proves to the master that it speaks with a registered worker. Valid until the next registration.
    pub token: u64,
}

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
}

/// Blocks that the worker should delete: nothing in the namespace refers to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    pub delete: Vec<BlockId>,
}

/// A worker asks how to reach a mount's under file system. The only call that hands out credentials.
///
/// # Errors
/// `NotPermitted` without a valid token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveMount {
    pub worker: WorkerId,
    pub token: u64,
    pub mount: MountId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSecret {
    pub record: MountRecord,
}

/// A worker asks what object is behind a file, to fill its blocks.
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
    pub expected: crate::attr::UfsVersion,
}

/// Makes a master that runs already a voter of the group, once it is in step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddMaster {
    pub id: NodeId,
    /// `host:port` where it listens.
    pub address: String,
}

/// Takes a master out of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMaster {
    pub id: NodeId,
}

/// Has another master lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeadership {
    /// Whom; none: any that has everything.
    pub to: Option<NodeId>,
}

/// Takes a snapshot of the namespace now, behind which the log can be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeSnapshot {}

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOpened {
    pub id: u64,
    pub header: BackupHeader,
}

/// Reads a part of a copy, of at most [`BACKUP_PART_BYTES`]; the empty part at its end gives it back. One that is not read
/// for [`BACKUP_KEPT_MS`] is dropped.
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

pub const BACKUP_PART_BYTES: usize = 1 << 20;
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
    /// When the sender's namespace was restored from a backup; 0 = never. Before and after, a cluster has two histories,
    /// and masters of one do not listen to those of the other.
    #[serde(default)]
    pub restored_ns: i64,
}

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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftAnswer {}

/// Most bytes of a [`RaftAnswer`]'s body.
const RAFT_ANSWER_BYTES_MAX: usize = 64 << 10;

calls! {
    100 => Echo -> Done;
    101 => Lookup -> Entry;
    102 => ListDir -> Listing;
    103 => OpenFile -> FileLayout;
    104 => GetXattr -> XattrValue;
    105 => ListXattrs -> XattrNames;
    106 => GetPath -> PathOf;
    107 => Summarize -> Summary;
    108 => StatFs -> FsStats;
    109 => GetRoutes -> Routes;
    110 => GetClusterStatus -> ClusterStatus;
    111 => ListMounts -> Mounts;
    112 => GetJob -> JobRecord;
    113 => ListJobs -> Jobs;

    120 => MakeDir -> Entry;
    121 => CreateFile -> FileLayout;
    122 => MakeNode -> Entry;
    123 => OpenForWrite -> FileLayout;
    124 => AllocateBlocks -> FileLayout;
    125 => CommitFile -> Entry;
    126 => SetAttr -> Entry;
    127 => Rename -> Renamed;
    128 => Unlink -> Entry;
    129 => RemoveDir -> Done;
    130 => Delete -> Deleted;
    131 => MakeSymlink -> Entry;
    132 => MakeLink -> Entry;
    133 => SetXattr -> Done;
    134 => RemoveXattr -> Done;
    135 => ReleaseInode -> Done;
    136 => RenewSession -> Done;
    137 => EndSession -> Done;

    150 => MountUfs -> MountInfo;
    151 => UnmountUfs -> Done;
    152 => SubmitLoad -> JobRecord;
    153 => CancelJob -> JobRecord;
    154 => FreeCache -> Freed;
    155 => PersistFile -> Entry;

    170 => RegisterWorker -> WorkerRegistered;
    171 => WorkerHeartbeat -> HeartbeatOrders;
    172 => ReportBlocks -> ReportAnswer;
    173 => ResolveMount -> MountSecret;
    174 => DescribeFile -> FileLayout;
    175 => ReportUfsChanged -> Done;

    180 => AddMaster -> Done;
    181 => RemoveMaster -> Done;
    182 => TransferLeadership -> Done;
    183 => TakeSnapshot -> SnapshotTaken;
    184 => OpenBackup -> BackupOpened;
    185 => ReadBackup -> BackupPart, body |_call| BACKUP_PART_BYTES;

    190 => RaftMessage -> RaftAnswer, body |_call| RAFT_ANSWER_BYTES_MAX;
}

/// Calls `$callback!{ $($context)* ; Call, Call, ... }` with every call of the master service.
#[macro_export]
macro_rules! for_master_calls {
    ($callback:ident $(, $($context:tt)*)?) => {
        $callback! { $($($context)*)? ;
            Echo, Lookup, ListDir, OpenFile, GetXattr, ListXattrs, GetPath, Summarize, StatFs, GetRoutes,
            GetClusterStatus, ListMounts, GetJob, ListJobs,
            MakeDir, CreateFile, MakeNode, OpenForWrite, AllocateBlocks, CommitFile, SetAttr, Rename, Unlink,
            RemoveDir, Delete, MakeSymlink, MakeLink, SetXattr, RemoveXattr, ReleaseInode, RenewSession, EndSession,
            MountUfs, UnmountUfs, SubmitLoad, CancelJob, FreeCache, PersistFile,
            RegisterWorker, WorkerHeartbeat, ReportBlocks, ResolveMount, DescribeFile, ReportUfsChanged,
            AddMaster, RemoveMaster, TransferLeadership, TakeSnapshot, OpenBackup, ReadBackup, RaftMessage
        }
    };
}

/// Each mutation is the op of its name; the op's reply is the call's.
macro_rules! mutations {
    ($($call:ident -> $variant:ident;)*) => {$(
        impl Mutation for $call {
            fn into_op(self) -> Op { Op::$call(self) }

            fn reply_from(reply: OpReply) -> Result<Self::Reply> {
                match reply {
                    OpReply::$variant(reply) => Ok(reply),
                    other => Err(Error::internal(format!(
                        concat!("the reply to ", stringify!($call), " is {:?}"), other
                    ))),
                }
            }
        }
    )*};
}

mutations! {
    MakeDir -> Entry;
    CreateFile -> Layout;
    MakeNode -> Entry;
    OpenForWrite -> Layout;
    AllocateBlocks -> Layout;
    CommitFile -> Entry;
    SetAttr -> Entry;
    Rename -> Renamed;
    Unlink -> Entry;
    RemoveDir -> Done;
    Delete -> Deleted;
    MakeSymlink -> Entry;
    MakeLink -> Entry;
    SetXattr -> Done;
    RemoveXattr -> Done;
    ReleaseInode -> Done;
    RenewSession -> Done;
    EndSession -> Done;
}

impl TierStats {
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
