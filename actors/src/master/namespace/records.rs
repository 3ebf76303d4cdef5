//! The record of one inode on disk: MessagePack, compact form. Golden bytes in `testdata/namespace.txt`.

use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{
    AclEntry, Attr, BlockId, BlockRef, ClientId, FileKind, InodeId, KeptAttributes, MountId, UfsVersion,
};
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
    /// Of a nameless inode: the clients that it is kept for. One that a version before made nameless has 0 and one.
    #[serde(default)]
    pub holders: u32,
    /// The entries of its access control list that are not in the mode, in order. Left out where there are none, as long as
    /// it is the last field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AclEntry>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// The last writer lost its lease without a word: nobody gets the next before workers refuse what it may still send.
    #[serde(default)]
    pub unfenced: bool,
    /// Blocks with holes in them: their indexes, in order, and how many bytes that is.
    #[serde(default)]
    pub holes: Vec<(u32, u64)>,
    /// With `needs_export`: blocks below this generation are the object's still, the others were written since. Left out
    /// where it is 0, as long as it is the last field.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_below: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockList {
    /// Written here, one by one.
    Each(Vec<BlockRef>),
    /// The blocks of an object: consecutive ids from this one, lengths from the file's size.
    Run(BlockId),
    /// As `Each`, with holes where there is no block: each with its index in the file, in order.
    Sparse(Vec<(u32, BlockRef)>),
}

impl Default for BlockList {
    fn default() -> Self {
        BlockList::Each(Vec::new())
    }
}

impl FileBody {
    /// Somebody writes it, or did and may not have been kept from it yet.
    pub fn is_written(&self) -> bool {
        self.lease.is_some() || self.unfenced
    }

    /// In a mount, the content is about to become another one than the object's. What was the object's so far stays
    /// known as that, by its generation: to be called before any block or the version is changed.
    pub fn leaves_object(&mut self, in_mount: bool) {
        if in_mount && !self.needs_export {
            self.cached_below = match self.ufs {
                Some(_) => u32::try_from(self.content_version + 1).unwrap_or(u32::MAX),
                None => 0,
            };
            self.needs_export = true;
        }
    }

    /// A block of this generation has been written. Others of it are of the same writer, who may have begun them before
    /// the last export and write them again: from now on they are kept, too.
    pub fn keeps_from(&mut self, generation: u32) {
        self.cached_below = self.cached_below.min(generation);
    }

    /// The object that the next export replaces. With one that these bytes never were, every block is kept.
    pub fn set_base(&mut self, base: Option<UfsVersion>, has_blocks: bool) {
        self.ufs = base;
        if !has_blocks {
            self.cached_below = 0;
        }
    }

    /// Up to which generation blocks are the object's: all of them, if nothing was written since. None if none is.
    pub fn cached_until(&self) -> Option<u32> {
        match self.needs_export {
            true => self.cached_below.checked_sub(1),
            false => Some(u32::MAX),
        }
    }

    /// Makes room behind an object that is one block, cut to its size: its blocks to come are of the usual length. A block's
    /// length is a limit, so the one that is there stays what it is.
    pub fn make_room_behind(&mut self, block_bytes: u64) {
        let is_run = matches!(self.blocks, BlockList::Run(_));
        if is_run && self.object_blocks() == 1 && self.block_bytes < block_bytes {
            // A run's lengths follow from those of the file.
            self.set_blocks(self.placed_blocks());
            self.block_bytes = block_bytes;
        }
    }

    /// Blocks that an object of this size is cut into.
    pub fn object_blocks(&self) -> u32 {
        to_u32(to_usize(self.size_bytes.div_ceil(self.block_bytes.max(1))))
    }

    /// How many blocks there are.
    pub fn block_count(&self) -> usize {
        match &self.blocks {
            BlockList::Each(blocks) => blocks.len(),
            BlockList::Run(_) => to_usize(self.object_blocks().into()),
            BlockList::Sparse(blocks) => blocks.len(),
        }
    }

    /// None for a hole.
    pub fn block(&self, index: u32) -> Option<BlockRef> {
        match &self.blocks {
            BlockList::Each(blocks) => blocks.get(to_usize(index.into())).copied(),
            BlockList::Run(first) => (index < self.object_blocks()).then(|| BlockRef {
                id: BlockId(first.0 + u64::from(index)),
                len_bytes: (self.size_bytes - u64::from(index) * self.block_bytes).min(self.block_bytes),
                generation: 0,
            }),
            BlockList::Sparse(blocks) => {
                let at = blocks.binary_search_by_key(&index, |(index, _)| *index).ok()?;
                Some(blocks[at].1)
            }
        }
    }

    /// Every block with its index in the file, in order.
    pub fn placed_blocks(&self) -> Vec<(u32, BlockRef)> {
        match &self.blocks {
            BlockList::Each(blocks) => (0..).zip(blocks.iter().copied()).collect(),
            BlockList::Run(_) => (0..self.object_blocks())
                .filter_map(|index| Some((index, self.block(index)?)))
                .collect(),
            BlockList::Sparse(blocks) => blocks.clone(),
        }
    }

    /// Takes blocks with their indexes, in order.
    pub fn set_blocks(&mut self, blocks: Vec<(u32, BlockRef)>) {
        debug_assert!(blocks.is_sorted_by(|(one, _), (next, _)| one < next));
        self.holes.retain_mut(|(index, hole_bytes)| {
            let at = blocks.binary_search_by_key(index, |(index, _)| *index);
            *hole_bytes = at.map_or(0, |at| blocks[at].1.len_bytes.min(*hole_bytes));
            *hole_bytes > 0
        });
        let is_dense = (0..).zip(&blocks).all(|(at, (index, _))| at == *index);
        self.blocks = match is_dense {
            true => BlockList::Each(blocks.into_iter().map(|(_, block)| block).collect()),
            false => BlockList::Sparse(blocks),
        };
    }

    /// How many bytes of a block are in holes.
    pub fn set_holes(&mut self, index: u32, hole_bytes: u64) {
        match self.holes.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) if hole_bytes == 0 => drop(self.holes.remove(at)),
            Ok(at) => self.holes[at].1 = hole_bytes,
            Err(_) if hole_bytes == 0 => {}
            Err(at) => self.holes.insert(at, (index, hole_bytes)),
        }
    }

    /// How many bytes of one block are in holes.
    pub fn holes_of(&self, index: u32) -> u64 {
        let found = self.holes.binary_search_by_key(&index, |(index, _)| *index);
        found.map_or(0, |at| self.holes[at].1)
    }

    /// Bytes of the file that are in no block, or in a hole of one.
    fn hole_bytes(&self) -> u64 {
        let held =
            |blocks: &mut dyn Iterator<Item = &BlockRef>| blocks.map(|block| block.len_bytes).sum::<u64>();
        let held_bytes = match &self.blocks {
            BlockList::Each(blocks) => held(&mut blocks.iter()),
            BlockList::Run(_) => return 0,
            BlockList::Sparse(blocks) => held(&mut blocks.iter().map(|(_, block)| block)),
        };
        let in_blocks: u64 = self.holes.iter().map(|(_, hole_bytes)| hole_bytes).sum();
        self.size_bytes
            .saturating_sub(held_bytes.saturating_sub(in_blocks))
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
            hole_bytes: file.map_or(0, FileBody::hole_bytes),
            bare: false,
            has_acl: !self.acl.is_empty(),
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

    /// The object behind a file, if there is one.
    pub fn object(&self) -> Option<&UfsVersion> {
        match &self.body {
            InodeBody::File(file) => file.ufs.as_ref(),
            _ => None,
        }
    }

    /// Takes what an object keeps of attributes; what it does not say stays.
    pub fn take(&mut self, kept: &KeptAttributes) {
        self.mode = kept.mode.map_or(self.mode, |mode| mode & 0o7777);
        self.uid = kept.uid.unwrap_or(self.uid);
        self.gid = kept.gid.unwrap_or(self.gid);
        if let Some(mtime_ns) = kept.mtime_ns {
            self.set_mtime(mtime_ns);
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
        let refs = file.placed_blocks();
        assert_eq!(
            refs.iter()
                .map(|(at, b)| (*at, b.id.0, b.len_bytes))
                .collect::<Vec<_>>(),
            [(0, 7, 10), (1, 8, 10), (2, 9, 5)]
        );
        assert_eq!(file.block(3), None);
    }

    #[test]
    fn blocks_with_holes_between_them_keep_their_places() {
        let block = |id| BlockRef {
            id: BlockId(id),
            len_bytes: 10,
            generation: 1,
        };
        let mut file = FileBody {
            size_bytes: 1_000_000,
            block_bytes: 10,
            ..FileBody::default()
        };
        file.set_blocks(vec![(0, block(1)), (1, block(2))]);
        assert_eq!(file.blocks, BlockList::Each(vec![block(1), block(2)]));
        file.set_blocks(vec![(1, block(2)), (99_999, block(3))]);
        assert_eq!(
            [file.block(0), file.block(1), file.block(99_999)],
            [None, Some(block(2)), Some(block(3))]
        );
        assert_eq!(file.hole_bytes(), 999_980);
        file.set_holes(99_999, 7);
        file.set_holes(1, 3);
        file.set_holes(1, 4);
        assert_eq!(file.hole_bytes(), 999_991);
        file.set_blocks(vec![(
            1,
            BlockRef {
                len_bytes: 2,
                ..block(2)
            },
        )]);
        assert_eq!((file.hole_bytes(), &file.holes[..]), (1_000_000, &[(1, 2)][..]));
        file.set_holes(1, 0);
        assert_eq!(file.hole_bytes(), 999_998);
    }
}
