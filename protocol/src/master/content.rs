//! What is in a file: opening, blocks, committing, and the sessions that hold leases.

use serde::{Deserialize, Serialize};

use crate::ids::{BlockId, ClientId, InodeId, WorkerId};
use crate::number::is_zero;
use crate::path::Node;

/// Opens a file for reading: attributes and where the data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    pub node: Node,
    /// Follow a symbolic link in the last name of a path.
    pub follow: bool,
    /// The number of this open among those of the calling client, from 1 upward: the leader then notes that the client
    /// has the file open, until it is told otherwise by [`TellOpen`]. 0 = a look that opens nothing.
    #[serde(default)]
    pub open: u64,
}

/// A file that the calling client has open no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedFile {
    pub inode: InodeId,
    /// Every open of it up to this number is over; a later one may be on its way.
    pub until: u64,
}

/// A file that the calling client has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFile {
    pub inode: InodeId,
    /// The number of its last open.
    pub open: u64,
}

/// Tells the leader what the calling client has open and has closed, so that what loses its last name stays for exactly
/// those who read it. Soft state: a leader that was just elected knows nothing, and is told everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellOpen {
    /// The term of the leader that was told everything; 0 if none was.
    pub term: u64,
    pub closed: Vec<ClosedFile>,
    /// Everything that is open, if all is told.
    pub all: Option<AllOpen>,
    /// The number of the last answer in this term that the client has got, which told it what was changed.
    #[serde(default)]
    pub heard: u64,
    /// All opens with lower numbers have ended: what comes later of them is not noted. 0: the client does not say.
    #[serde(default)]
    pub over_below: u64,
}

/// Everything that a client has open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllOpen {
    pub files: Vec<HeldFile>,
    /// Opens up to this number that are not among the files are over.
    pub until: u64,
    /// No open is on its way, and nothing but the files is open: what else is kept for the client may go. The term of the leader
    /// that the client has this from, whose answers it has got; another one does not heed it, for it may come late. 0: the client
    /// does not say so.
    #[serde(default)]
    pub settled_in: u64,
}

/// In which term the leader that answers leads. If it is another one than the client's, the client tells everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTold {
    pub term: u64,
    /// What others have changed of it, and of which the client has not said that it heard it.
    pub changed: Vec<ChangedFile>,
    /// Of this answer, greater than those before. 0: the leader does not number them.
    #[serde(default)]
    pub number: u64,
    /// How many files the leader takes for open by the client, and are kept for it without a name, all that this call said taken
    /// in. None: it does not say.
    #[serde(default)]
    pub open: Option<u64>,
}

/// A file that another client has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    pub inode: InodeId,
    pub content_version: u64,
}

/// Who writes a file.
///
/// # Errors
/// `IsADirectory`; `InvalidArgument` for what is neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetLease {
    pub node: Node,
}

/// Takes a file away from whoever writes it, also from a client that lives: nothing that it still sends is taken, and what
/// it did not flush is lost to it, loudly. Not every worker may have been told so by the time of the answer: then the file
/// is not closed yet, and the masters go on.
///
/// # Errors
/// As [`GetLease`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeLease {
    pub node: Node,
}

/// How a file stands to its writers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub inode: InodeId,
    /// Who may write it now.
    pub holder: Option<ClientId>,
    /// Nobody may write it, and nothing of the last writer can come any more.
    pub is_closed: bool,
}

/// What the leader knows of who has open what a change may take the last name from. It fills this in itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// The inode that it looked at; 0 for a whole tree.
    pub of: InodeId,
    pub files: Vec<FileHolders>,
    /// It was elected a moment ago, and some client has not told it yet.
    pub unsure: bool,
}

/// Who has a file open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHolders {
    pub inode: InodeId,
    pub clients: Vec<ClientId>,
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
    /// As [`OpenFile::open`].
    #[serde(default)]
    pub open: u64,
    /// As [`MakeDir::unmasked`](super::MakeDir::unmasked).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmasked: Option<u32>,
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
/// `LeaseConflict` if another client holds the lease and does not give it back within 25 s, `ReadOnly`, `IsADirectory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenForWrite {
    pub node: Node,
    pub follow: bool,
    pub truncate: bool,
    /// As [`OpenFile::open`].
    #[serde(default)]
    pub open: u64,
    /// Only if the file has a name: `Stale` otherwise.
    #[serde(default)]
    pub named: bool,
}

/// Assigns blocks so that block indexes below `until_index` all have one, and says where to write those from
/// `from_index` on.
///
/// # Errors
/// `Stale` if the calling client has no lease on the file (any more), `InvalidArgument` for more than 4096 blocks at
/// once; `BlockUnavailable` if no worker lives, `NoSpace` if none has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateBlocks {
    pub inode: InodeId,
    pub from_index: u32,
    pub until_index: u32,
}

/// Records what was written: lengths of blocks, the size, the modification time. With `close`, gives the lease back.
/// The size becomes exactly `size_bytes`, unless `keep_size` is set. Blocks beyond the size are dropped.
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
    /// Whoever wrote may leave the set-user-id and set-group-id bits as they are.
    #[serde(default)]
    pub keep_privileges: bool,
    /// Workers may hold bytes of this generation that are not part of this commit: the next writer gets another one.
    #[serde(default)]
    pub abandoned: bool,
    /// The size stays what it is; `size_bytes` is not looked at.
    #[serde(default)]
    pub keep_size: bool,
    /// It makes a version of the file, though nothing else changes: what is written from then on is of a generation that no
    /// worker has. With `keep_size`; blocks beyond the size stay.
    #[serde(default)]
    pub new_generation: bool,
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
    /// How many of its bytes are in holes, as every worker says that has it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hole_bytes: u64,
}

/// Gives a lease back under which nothing was written, or all of it committed. Without a lease it changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLease {
    pub inode: InodeId,
}

/// Waits until there are news for the calling client, up to 5 s. A client that holds leases asks for news all the time:
/// one that neither does nor is heard of otherwise for 15 s may lose them to who wants them. Of one client, the last call
/// waits; the one before it is answered without news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitNews {}

/// What a client should do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Others want these files: flush them, and give their leases back.
    pub recalls: Vec<InodeId>,
}

/// Makes a range of a file read as zeros without storing any; the file stays as long as it is. Blocks that lie wholly in
/// the range go, and one whose end lies in it is cut. What is left of the range in one more block, the one in which the
/// range ends, stays as it is: the caller writes zeros there.
///
/// The content becomes another version. Answers with the file's blocks as they are then.
///
/// # Errors
/// `Stale` if the calling client has no lease on the file (any more).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchHole {
    pub inode: InodeId,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// The set-user-id and set-group-id bits stay.
    #[serde(default)]
    pub keep_privileges: bool,
}

/// Most files that one [`Concat`] takes: as many as an upload to S3 has parts.
pub const CONCAT_SOURCES_MAX: usize = 10_000;

/// Appends files to another one of the same directory, in their order, and removes them: their blocks become the other
/// file's, and no byte is copied. All of it is one step. Who has one of them open to read goes on with the blocks that it
/// knows.
///
/// A file's blocks begin at multiples of its block size. Behind a file that ends within a block, or where a file has
/// blocks of another size or another number of replicas, blocks do not fit: the caller copies what comes from there on into
/// another file, the `tail`, and names it.
///
/// # Errors
/// `NotFound`, `IsADirectory`; `InvalidArgument` for no file, more than [`CONCAT_SOURCES_MAX`], one twice, or one of another
/// directory; `Unsupported` in mounts and for a file with hard links; `CrossMount` where blocks do not fit and there is no
/// `tail`; `Busy` for one that is being written; `Stale` if one is of another version than the `tail` was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat {
    /// The file that the others are appended to.
    pub node: Node,
    pub sources: Vec<Node>,
    pub tail: Option<ConcatTail>,
}

/// A file that has the bytes of a concatenation from an offset on. It goes with the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcatTail {
    pub node: Node,
    /// A multiple of the block size.
    pub offset_bytes: u64,
    /// The content versions of the file and of the sources, in their order, that it was made of.
    pub versions: Vec<u64>,
}

/// The last handle of a nameless inode was closed (see `Unlink::keep_open`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseInode {
    pub inode: InodeId,
}

/// Begins a session: the masters give it an id that no session had before. It lasts until [`EndSession`], or until it
/// expires; the id is never known again, so nothing that was sent under it and comes later can have an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {}

/// The session's id: the `client` of all calls that are made in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    pub client: ClientId,
}

/// Keeps the calling client's leases and nameless inodes for another lease time. Clients send it every
/// [`SESSION_RENEW_MS`]; after [`SESSION_EXPIRE_MS`] without one the master ends the session.
///
/// # Errors
/// `SessionEnded`: it is never revived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewSession {}

/// How often a client renews its session.
pub const SESSION_RENEW_MS: u64 = 10_000;
/// How long a session lasts that is not renewed.
pub const SESSION_EXPIRE_MS: u64 = 60_000;
/// A holder of whom the masters did not hear for so long may lose its lease to whoever wants the file.
pub const LEASE_SILENT_MS: u64 = 15_000;

/// Ends the calling client's session: leases and nameless inodes are given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSession {}
