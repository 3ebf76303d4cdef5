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
///
/// # Errors
/// `AlreadyExists` as `if_exists` says; else as [`OpenForWrite`]. `InvalidArgument` if `block_bytes` is not a multiple
/// of 64 KiB between 64 KiB and 4 GiB. With `first_block`, as [`AllocateBlocks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateFile {
    pub node: Node,
    /// Permission bits, `0o7777` at most; no umask is applied.
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

/// What [`CreateFile`] does where the name is taken.
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
///
/// # Errors
/// `Stale` if the calling client has no lease on the file (any more), `FileTooLarge` for more than 4096 new blocks at
/// once; `BlockUnavailable` if no worker lives, `NoSpace` if none has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateBlocks {
    pub inode: InodeId,
    pub from_index: u32,
    pub until_index: u32,
}

/// Records what was written: lengths of blocks, the size, the modification time. With `close`, gives the lease back.
/// The size becomes exactly `size_bytes`. Blocks beyond it are dropped.
///
/// It names only what workers have acknowledged: the blocks that they have sealed, in this generation and at least this
/// long.
///
/// # Errors
/// `Stale` if the calling client has no lease on the file (any more), or a block is another one now, or of a newer
/// generation. Nothing is recorded then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFile {
    pub inode: InodeId,
    pub size_bytes: u64,
    pub blocks: Vec<BlockCommit>,
    /// None = the time of the command, if blocks were written.
    pub mtime_ns: Option<i64>,
    pub close: bool,
    /// Workers may hold bytes of this generation that are not part of this commit: the next writer gets another one.
    #[serde(default)]
    pub abandoned: bool,
}

/// What was written to one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCommit {
    /// Of the block in the file, from 0 on.
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

/// How often a client renews its session.
pub const SESSION_RENEW_MS: u64 = 10_000;
/// How long a session lasts that is not renewed.
pub const SESSION_EXPIRE_MS: u64 = 60_000;

/// Ends the calling client's session: leases and nameless inodes are given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession {}
