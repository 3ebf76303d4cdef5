//! Comparing what the namespace says of blocks with what workers have: `cv fsck`.

use serde::{Deserialize, Serialize};

use crate::attr::BlockRef;
use crate::cluster::BlockReplica;
use crate::ids::{BlockId, InodeId, WorkerId};

/// Inodes in one [`CheckFiles`], and blocks in one [`CheckHeld`].
pub const CHECKED_MAX: usize = 1_000;

/// Which blocks of files have not the replicas that they should have, by what workers have said to the leader.
///
/// # Errors
/// `InvalidArgument` for more than [`CHECKED_MAX`] inodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFiles {
    pub inodes: Vec<InodeId>,
}

/// What is wrong with those files; those that are gone, or are no files, are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesChecked {
    /// Every worker that the leader may hear of has said what it holds. Else some that seem to be missing may be there.
    pub has_heard_all: bool,
    pub files: Vec<FileCheck>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheck {
    pub inode: InodeId,
    /// Its blocks, and those among them that no object has.
    pub blocks: u64,
    pub kept_blocks: u64,
    pub faults: Vec<BlockFault>,
}

/// A block that has not the replicas that it should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFault {
    /// In the file.
    pub index: u32,
    pub block: BlockRef,
    pub what: Fault,
    /// Live workers that have it, and how many should.
    pub replicas: u32,
    pub wanted: u32,
    /// Those that the fault is about: who has set it aside, who has it and is away, who has it.
    pub workers: Vec<WorkerId>,
}

/// What is wrong with a block. The words are those of `cv fsck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// No known worker has it.
    Missing,
    /// Nobody has it, and workers have set replicas aside that failed their checksums.
    Corrupt,
    /// Workers have it that are not there now, or nobody has it who was heard of, and others may: those that the leader has not
    /// heard of, and those with failed disks.
    Away,
    /// Fewer workers than there should be have it.
    UnderReplicated,
    /// A worker has it, and no file does.
    Orphaned,
    /// A worker has an older generation of it than the namespace.
    Outdated,
    /// A worker takes it for cached, and no object has it: it might be evicted.
    KeptAsCached,
    /// A worker keeps it, and an object has it: it takes room.
    CachedAsKept,
}

/// A replica as a worker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    pub replica: BlockReplica,
    /// The worker may evict it.
    pub cached: bool,
}

/// Compares replicas of a worker, as it has listed them, with the namespace.
///
/// # Errors
/// `InvalidArgument` for more than [`CHECKED_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHeld {
    pub held: Vec<HeldBlock>,
}

/// In the order of the replicas. What somebody is writing, or was a moment ago, may seem to be wrong: look again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldChecked {
    pub faults: Vec<Option<Fault>>,
}

/// Has every worker say again all that it holds, and replicas made that are missing, now. What no file has goes with that, and
/// whoever keeps what is cached is told so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairNow {
    /// Replicas that were seen to be taken for cached, and no object has: those that still are become kept.
    pub kept: Vec<WronglyCached>,
}

/// See [`Fault::KeptAsCached`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WronglyCached {
    pub worker: WorkerId,
    pub block: BlockId,
}
