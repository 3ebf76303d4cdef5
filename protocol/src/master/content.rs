//! What is in a file: opening, blocks, committing, and the sessions that hold leases.

use serde::{Deserialize, Serialize};

use crate::ids::{BlockId, InodeId, WorkerId};
use crate::path::Node;

/// Opens a file for reading: attributes and where the data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    pub node: Node,
    /// Follow a symbolic link in the last name of a path.
    pub follow: bool,
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
