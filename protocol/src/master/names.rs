//! Names: looking entries up, listing, making, moving and removing them, and their attributes.

use serde::{Deserialize, Serialize};

use super::{ClosedFile, Holders};
use crate::attr::{Attr, DirEntry, FileKind};
use crate::ids::InodeId;
use crate::path::{CurvinePath, Node};

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
///
/// # Errors
/// `NotADirectory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDir {
    pub node: Node,
    /// Names after this one only; none for the first page.
    pub after: Option<String>,
    /// At most this many, and at most [`LIST_ENTRIES_MAX`].
    pub limit: u32,
}

/// Most entries of one page.
pub const LIST_ENTRIES_MAX: u32 = 10_000;

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    pub directory: Attr,
    pub parent: InodeId,
    pub entries: Vec<DirEntry>,
    /// Whether there are names after the last one.
    pub more: bool,
}

/// Reads an extended attribute.
///
/// # Errors
/// `NoAttribute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetXattr {
    pub node: Node,
    pub name: String,
}

/// The value, as it was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrValue {
    pub value: Vec<u8>,
}

/// The names of the extended attributes of a node, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListXattrs {
    pub node: Node,
}

/// Without their values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XattrNames {
    pub names: Vec<String>,
}

/// The path of an inode, for messages and `cv blocks`. With several links, one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetPath {
    pub inode: InodeId,
}

/// A path that led to the inode when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathOf {
    pub path: CurvinePath,
}

/// Counts what is below a node (`cv count`, `cv du`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summarize {
    pub node: Node,
}

/// What is below a node, itself included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub directories: u64,
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Bytes of them that some worker holds.
    pub cached_bytes: u64,
    /// Bytes of them that are holes.
    #[serde(default)]
    pub hole_bytes: u64,
}

/// Makes a directory.
///
/// # Errors
/// `AlreadyExists` unless `parents` and it is a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDir {
    pub node: Node,
    /// Permission bits, `0o7777` at most; no umask is applied.
    pub mode: u32,
    /// As `mkdir -p`: make what is missing above, and be content if it is there.
    pub parents: bool,
    /// The mode before the caller's umask was taken off, for a directory whose default access control list takes the umask's
    /// place; none = `mode`. Left out then, as long as it is the last field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmasked: Option<u32>,
}

/// Makes a FIFO, socket or device node, or a plain file without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeNode {
    pub node: Node,
    pub kind: FileKind,
    pub mode: u32,
    pub rdev: u32,
    /// As [`MakeDir::unmasked`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmasked: Option<u32>,
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
    /// A new size leaves the set-user-id and set-group-id bits as they are.
    #[serde(default)]
    pub keep_privileges: bool,
    /// Only of what has a name: `Stale` otherwise.
    #[serde(default)]
    pub named: bool,
    /// On how many workers each block of a file is to be that is kept, 1 or more. What lacks is made and what is too much goes
    /// in the background.
    #[serde(default)]
    pub replicas: Option<u8>,
}

/// To what a time is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The time of the command.
    Now,
    /// Nanoseconds since the Unix epoch.
    At(i64),
}

/// Changes attributes; the change time becomes the time of the command.
///
/// # Errors
/// `IsADirectory`, `InvalidArgument` if a size or replicas are set of what has none, or no replicas; `LeaseConflict` while another client writes the
/// file; `Unsupported` for cutting an object of an under file system to anything but nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    pub node: Node,
    pub follow: bool,
    pub change: AttrChange,
}

/// Moves an entry, with the semantics of `renameat2(2)`. Atomic; O(1) for a directory.
///
/// # Errors
/// `CrossMount`; `AlreadyExists` with `NoReplace`; `DirectoryNotEmpty`, `IsADirectory`, `NotADirectory` as for
/// `rename(2)`; `InvalidArgument` for a directory into itself; `Busy` for the root, a mount point or what is
/// above one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    pub from: Node,
    pub to: Node,
    pub mode: RenameMode,
    /// The caller has the replaced file open: keep it, nameless, until `ReleaseInode`.
    pub keep_replaced: bool,
    /// As [`Unlink::closed`].
    #[serde(default)]
    pub closed: Vec<ClosedFile>,
    /// As [`Unlink::holders`].
    #[serde(default)]
    pub holders: Option<Holders>,
}

/// The flags of `renameat2(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// What became of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The moved inode.
    pub attr: Attr,
    /// The inode that lost a link to the move, as it is now.
    pub replaced: Option<Attr>,
}

/// Removes a name of something that is not a directory.
///
/// # Errors
/// `IsADirectory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlink {
    pub node: Node,
    /// The caller has the file open: if this was the last name, keep the inode until `ReleaseInode` or until the
    /// caller's session ends.
    pub keep_open: bool,
    /// What the caller has closed and did not tell the leader yet.
    #[serde(default)]
    pub closed: Vec<ClosedFile>,
    /// Filled in by the leader: they keep the inode as well.
    #[serde(default)]
    pub holders: Option<Holders>,
}

/// Removes an empty directory.
///
/// # Errors
/// `NotADirectory`, `DirectoryNotEmpty`; `Busy` for the root or a mount point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveDir {
    pub node: Node,
}

/// Removes a file or directory by path; with `recursive`, all below it, atomically.
///
/// # Errors
/// `DirectoryNotEmpty` unless `recursive`; `Busy` for the root, a mount point or what is above one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub node: Node,
    pub recursive: bool,
    /// As [`Unlink::holders`].
    #[serde(default)]
    pub holders: Option<Holders>,
}

/// How much is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub files: u64,
    pub directories: u64,
    /// All of it is out of reach, and more of it than was counted goes in the background.
    #[serde(default)]
    pub in_background: bool,
}

/// Makes a symbolic link. Its target need not be there.
///
/// # Errors
/// `AlreadyExists`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeSymlink {
    pub node: Node,
    pub target: String,
}

/// Gives `source` a second name, `node`.
///
/// # Errors
/// `AlreadyExists`; `NotPermitted` for a directory; `TooManyLinks`; `CrossMount` in, out of, or into a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeLink {
    pub source: Node,
    pub node: Node,
}

/// Sets an extended attribute.
///
/// # Errors
/// `AlreadyExists` with `create_only`, `NoAttribute` with `replace_only`; `InvalidArgument` for a name or value that is
/// too long.
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

/// Removes an extended attribute.
///
/// # Errors
/// `NoAttribute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveXattr {
    pub node: Node,
    pub name: String,
}
