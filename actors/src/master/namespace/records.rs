//! The record of one inode on disk: MessagePack, compact form. Golden bytes in `testdata/namespace.txt`.

use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{Attr, BlockId, BlockRef, ClientId, FileKind, InodeId, MountId, UfsVersion};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeRecord {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// The directory that holds it; for several links, one that did.
    pub parent: InodeId,
    /// 0 = not below a mount.
    pub mount: MountId,
    /// Its name in `parent`, kept below mounts only: there the object's key is asked for often.
    pub name: String,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    /// Both as a difference to `mtime_ns`: 0 for most, which is one byte.
    pub atime_minus_mtime_ns: i64,
    pub btime_minus_mtime_ns: i64,
    pub body: InodeBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InodeBody {
    Directory,
    File(FileBody),
    Symlink(String),
    /// FIFO, socket or device: its device number.
    Special(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBody {
    pub size_bytes: u64,
    pub block_bytes: u64,
    pub replicas: u8,
    pub content_version: u64,
    pub blocks: BlockList,
    /// The client that writes it.
    pub lease: Option<ClientId>,
    /// The object behind it, in a mount.
    pub ufs: Option<UfsVersion>,
    /// In a mount: written here and not exported yet.
    pub needs_export: bool,
    /// A lease on it ended without its holder's word: before somebody else writes it, workers are told to refuse whatever
    /// the old holder still sends.
    #[serde(default)]
    pub unfenced: bool,
}

impl FileBody {
    /// Its lease ends without its holder's word. Workers may hold bytes that it wrote and did not commit, under the
    /// generation that follows this version: the next writer gets another one.
    pub fn break_lease(&mut self) {
        self.lease = None;
        self.content_version += 1;
        self.unfenced = true;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockList {
    /// Written here, one by one.
    Each(Vec<BlockRef>),
    /// The blocks of an object: consecutive ids from this one, lengths from the file's size.
    Run(BlockId),
}

impl Default for BlockList {
    fn default() -> Self {
        BlockList::Each(Vec::new())
    }
}

impl FileBody {
    /// Blocks that a file of this size has.
    pub fn block_count(&self) -> u32 {
        match &self.blocks {
            BlockList::Each(blocks) => to_u32(blocks.len()),
            BlockList::Run(_) => to_u32(to_usize(self.size_bytes.div_ceil(self.block_bytes.max(1)))),
        }
    }

    pub fn block(&self, index: u32) -> Option<BlockRef> {
        match &self.blocks {
            BlockList::Each(blocks) => blocks.get(index as usize).copied(),
            BlockList::Run(first) => (index < self.block_count()).then(|| BlockRef {
                id: BlockId(first.0 + u64::from(index)),
                len_bytes: (self.size_bytes - u64::from(index) * self.block_bytes).min(self.block_bytes),
                generation: 0,
            }),
        }
    }

    pub fn block_refs(&self) -> Vec<BlockRef> {
        (0..self.block_count())
            .filter_map(|index| self.block(index))
            .collect()
    }
}

impl InodeRecord {
    pub fn attr(&self, inode: InodeId) -> Attr {
        let file = match &self.body {
            InodeBody::File(file) => Some(file),
            _ => None,
        };
        Attr {
            inode,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size_bytes: match &self.body {
                InodeBody::File(file) => file.size_bytes,
                InodeBody::Symlink(target) => target.len() as u64,
                InodeBody::Directory => 4096,
                InodeBody::Special(_) => 0,
            },
            atime_ns: self.mtime_ns + self.atime_minus_mtime_ns,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            btime_ns: self.mtime_ns + self.btime_minus_mtime_ns,
            rdev: match self.body {
                InodeBody::Special(rdev) => rdev,
                _ => 0,
            },
            block_bytes: file.map_or(0, |file| file.block_bytes),
            replicas: file.map_or(0, |file| file.replicas),
            content_version: file.map_or(0, |file| file.content_version),
            ufs: file.and_then(|file| file.ufs.clone()),
        }
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub fn target(&self) -> Option<String> {
        match &self.body {
            InodeBody::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }

    /// Sets the modification time and keeps the others where they are.
    pub fn set_mtime(&mut self, mtime_ns: i64) {
        let moved = mtime_ns - self.mtime_ns;
        self.mtime_ns = mtime_ns;
        self.atime_minus_mtime_ns -= moved;
        self.btime_minus_mtime_ns -= moved;
    }

    pub fn set_atime(&mut self, atime_ns: i64) {
        self.atime_minus_mtime_ns = atime_ns - self.mtime_ns;
    }

    /// As `chown` and writing do: set-user-id goes, and set-group-id of what the group may execute.
    pub fn clear_suid_sgid(&mut self) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_blocks_ends_with_a_short_one() {
        let file = FileBody {
            size_bytes: 25,
            block_bytes: 10,
            blocks: BlockList::Run(BlockId(7)),
            ..FileBody::default()
        };
        let refs = file.block_refs();
        assert_eq!(
            refs.iter().map(|b| (b.id.0, b.len_bytes)).collect::<Vec<_>>(),
            [(7, 10), (8, 10), (9, 5)]
        );
        assert_eq!(file.block(3), None);
    }
}
