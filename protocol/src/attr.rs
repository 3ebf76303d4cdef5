//! What the namespace says about a file: attributes, directory entries, the layout of its data.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::cluster::Tier;
use crate::ids::{BlockId, InodeId, MountId, WorkerId};
use crate::number::to_usize;

/// What an inode is. The numbers are its codes on the wire and on disk, and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum FileKind {
    File = 1,
    Directory = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    CharDevice = 6,
    BlockDevice = 7,
}

impl From<FileKind> for u8 {
    fn from(kind: FileKind) -> u8 {
        kind as u8
    }
}

impl TryFrom<u8> for FileKind {
    type Error = String;
    fn try_from(code: u8) -> Result<Self, String> {
        use FileKind::*;
        [File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice]
            .into_iter()
            .find(|&kind| kind as u8 == code)
            .ok_or_else(|| format!("unknown file kind {code}"))
    }
}

/// Attributes of one inode, as `stat(2)` has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub inode: InodeId,
    pub kind: FileKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner and group, as the users' machines number them. Curvine keeps them; on a mount the kernel goes by them.
    pub uid: u32,
    pub gid: u32,
    /// Names that the inode has; of a directory, 2 and one for each directory in it.
    pub nlink: u32,
    /// Of a directory 4096, of a symbolic link the length of its target.
    pub size_bytes: u64,
    /// Times of access, modification, change and birth: nanoseconds since the Unix epoch.
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub btime_ns: i64,
    /// Device number of a device node, else 0.
    pub rdev: u32,
    /// Length of every block of a file but the last. 0 for what is not a file.
    pub block_bytes: u64,
    /// Replicas wanted of each block.
    pub replicas: u8,
    /// Grows with every change of the content. Clients drop cached data of another version.
    pub content_version: u64,
    /// For a file whose authority is an under file system: which version of the object this is.
    pub ufs: Option<UfsVersion>,
    /// Of a file: how many of its bytes are in no block. They read as zeros.
    #[serde(default)]
    pub hole_bytes: u64,
    /// It has no extended attribute, as look-ups and listings say; false where that was not looked for.
    #[serde(default)]
    pub bare: bool,
    /// It has an access control list, of which the mode is a part. Left out where it has none, as long as it is the last
    /// field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_acl: bool,
}

/// Most bytes that a file may have: 128 TiB. Then the blocks of every file can be counted with 31 bits, however small
/// they are.
pub const FILE_BYTES_MAX: u64 = 1 << 47;

impl Attr {
    /// What a writer that opens the file now gives the blocks that it writes: no writer before can have used it.
    pub fn next_generation(&self) -> u32 {
        u32::try_from(self.content_version + 1).unwrap_or(u32::MAX)
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }
}

/// Which version of an object: two versions are the same if every field is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UfsVersion {
    pub size_bytes: u64,
    /// The store's modification time in milliseconds, 0 where it has none.
    pub mtime_ms: i64,
    /// The store's ETag, without quotes, where it has one.
    pub etag: Option<String>,
}

/// Attributes of a file as its object keeps them. Each is none where the object says nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAttributes {
    /// Permission bits, `0o7777` at most.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Nanoseconds since the Unix epoch.
    pub mtime_ns: Option<i64>,
    /// Extended attributes by their names.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl KeptAttributes {
    /// Whether the object says nothing of any.
    pub fn is_nothing(&self) -> bool {
        *self == KeptAttributes::default()
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    pub name: String,
    pub attr: Attr,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// One block of a file. That with index `i` covers the bytes from `i * block_bytes` on; bytes of that range beyond
/// `len_bytes` but below the file's size are a hole and read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    pub id: BlockId,
    pub len_bytes: u64,
    /// Grows whenever the block is opened for overwriting; a replica of an older generation is stale.
    pub generation: u32,
}

/// A block and who can serve it, best first. Empty for a block that nobody has (a hole, or not cached yet).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatedBlock {
    pub block: BlockRef,
    pub workers: Vec<WorkerId>,
}

/// How to reach a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAddress {
    pub id: WorkerId,
    /// `host:port` of its data service.
    pub address: String,
    /// Changes when the worker was out of touch with the masters, who may have ended leases meanwhile without its
    /// knowledge: a writer names it with every write, and learns a new one only by a call that its lease must allow.
    /// 0 = not known.
    #[serde(default)]
    pub epoch: u64,
}

/// Where the data of a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLayout {
    pub attr: Attr,
    /// In the order of the file; see [`FileLayout::placed`] for where each is. For a file of an under file system, every
    /// block is listed; one that no worker holds is read through any of its `workers`, which are then where it should be
    /// cached.
    pub blocks: Vec<LocatedBlock>,
    /// The address of every worker named in `blocks`, each once.
    pub workers: Vec<WorkerAddress>,
    /// Set where missing blocks are fetched from an under file system instead of being an error.
    pub source: Option<UfsSource>,
    /// The index of each of `blocks` in the file. Empty if they follow each other, from the first that was asked for.
    #[serde(default)]
    pub indexes: Vec<u32>,
    /// Of `blocks` that no known worker has: those of which workers have set a replica aside because it failed its checksum.
    #[serde(default)]
    pub damaged: Vec<DamagedBlock>,
    /// The tier in which the blocks are wished to be: whoever asks a worker for them says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
}

/// A block that rotted wherever it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedBlock {
    pub block: BlockId,
    /// Who has set a replica aside.
    pub workers: Vec<WorkerId>,
    /// Workers that the leader has not heard of, which may have it right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<WorkerId>,
}

impl FileLayout {
    /// Each block and its index in the file; `from` is the first index that was asked for, 0 where that cannot be said.
    /// An index that is not there is a hole.
    pub fn placed(&self, from: u32) -> impl Iterator<Item = (u32, &LocatedBlock)> {
        let following = (from..).skip(self.indexes.len());
        self.indexes.iter().copied().chain(following).zip(&self.blocks)
    }

    /// The first damaged block, if any, that has bytes of a range of the file.
    pub fn damaged_in(&self, range: &Range<u64>) -> Option<&DamagedBlock> {
        if self.damaged.is_empty() {
            return None;
        }
        let block_bytes = self.attr.block_bytes.max(1);
        let in_range = self.placed(0).filter(|(index, located)| {
            let start = u64::from(*index).saturating_mul(block_bytes);
            start < range.end && range.start < start.saturating_add(located.block.len_bytes)
        });
        in_range
            .filter_map(|(_, located)| {
                self.damaged
                    .iter()
                    .find(|damaged| damaged.block == located.block.id)
            })
            .next()
    }

    /// The block at an index of the whole file.
    pub fn block_at(&self, index: u32) -> Option<&LocatedBlock> {
        match self.indexes.is_empty() {
            true => self.blocks.get(to_usize(index.into())),
            false => {
                let at = self.indexes.binary_search(&index).ok()?;
                self.blocks.get(at)
            }
        }
    }
}

/// The object behind a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UfsSource {
    pub mount: MountId,
    /// Key relative to the mount's root, as the store has it; no leading slash.
    pub key: String,
    pub version: UfsVersion,
    /// Blocks of a newer generation are kept: their bytes were written here, and the object has not got them.
    #[serde(default = "every_generation", skip_serializing_if = "is_every_generation")]
    pub until_generation: u32,
}

impl UfsSource {
    /// Whether a block is cached: its bytes are the object's, can be fetched again, and so may be dropped. A block that is
    /// not cached is kept.
    pub fn has(&self, block: &BlockRef) -> bool {
        block.len_bytes > 0 && self.version.size_bytes > 0 && block.generation <= self.until_generation
    }

    /// Whether the whole file is the object's: nothing was written here that the object has not got.
    pub fn is_whole(&self) -> bool {
        self.version.size_bytes > 0 && is_every_generation(&self.until_generation)
    }
}

fn every_generation() -> u32 {
    u32::MAX
}

fn is_every_generation(generation: &u32) -> bool {
    *generation == u32::MAX
}
