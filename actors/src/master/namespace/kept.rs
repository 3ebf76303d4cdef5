//! Blocks whose bytes are nowhere else than on workers, and those of which there are copies.

use std::collections::HashMap;
use std::ops::Bound;

use curvine_protocol::codec::decode;
use curvine_protocol::{BlockId, BlockRef, InodeId, MountId, Result};

use super::records::{FileBody, InodeBody, InodeRecord};
use super::store::{Store, broken, u64_at};
use crate::master::contract::NamespaceView;

/// Those of some inodes.
pub struct Page {
    pub blocks: Vec<Kept>,
    /// Those that were asked for.
    pub cached: Vec<Cached>,
    /// The next page begins after this one.
    pub last: InodeId,
}

/// A block that no object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub inode: InodeId,
    pub block: BlockRef,
    /// How many there should be.
    pub replicas: usize,
    /// Nobody writes it, and it has bytes. While somebody writes, and until the replicas of one who went without a word agree,
    /// a generation may be of two contents.
    pub is_settled: bool,
}

/// A block that an object has, too, and that nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    pub inode: InodeId,
    pub mount: MountId,
    /// Index of the block in the file.
    pub index: u32,
    pub block: BlockRef,
}

/// The blocks of one file.
pub struct BlocksOf {
    pub blocks: Vec<(u32, BlockRef)>,
    pub kept: HashMap<BlockId, Kept>,
    /// Somebody writes it.
    pub is_written: bool,
}

/// What a replica is worth that a power cut may have taken something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubted {
    /// There can be nothing better.
    Counts,
    /// Another worker may have what it lacks.
    MayBeOlder,
    /// An object has what it lacks.
    IsNoUse,
}

impl FileBody {
    /// What an object has, anybody can fetch again: it is not kept.
    fn kept_blocks(&self, inode: InodeId) -> impl Iterator<Item = Kept> {
        let is_quiet = !self.is_written();
        let cached_until = self.ufs.as_ref().and_then(|_| self.cached_until());
        let is_kept = move |block: &BlockRef| cached_until.is_none_or(|until| block.generation > until);
        let replicas = usize::from(self.replicas.max(1));
        let blocks = self.placed_blocks().into_iter().map(|(_, block)| block);
        blocks.filter(is_kept).map(move |block| Kept {
            inode,
            block,
            replicas,
            is_settled: is_quiet && block.len_bytes > 0,
        })
    }

    /// What an object has, and nobody writes.
    fn cached_blocks(&self, inode: InodeId, mount: MountId) -> impl Iterator<Item = Cached> {
        let until = self.ufs.as_ref().and_then(|_| self.cached_until());
        let until = until.filter(|_| !self.is_written());
        let blocks = until.map(|_| self.placed_blocks()).unwrap_or_default();
        let cached = move |(index, block): (u32, BlockRef)| Cached {
            inode,
            mount,
            index,
            block,
        };
        let is_cached = move |cached: &Cached| {
            cached.block.len_bytes > 0 && until.is_some_and(|until| cached.block.generation <= until)
        };
        blocks.into_iter().map(cached).filter(is_cached)
    }
}

impl Store {
    /// The kept blocks of a page of the inodes after one, and those that are cached and `wanted`. None if there are no more.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn kept(
        &self,
        after: Option<InodeId>,
        limit: usize,
        wanted: Option<&dyn Fn(&Cached) -> bool>,
    ) -> Result<Option<Page>> {
        let txn = self.read()?;
        let start = after.map(|inode| inode.0.to_be_bytes());
        let start = start
            .as_ref()
            .map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let inodes = self.dbs.inodes.range(&txn, &(start, Bound::Unbounded));
        let mut page: Option<Page> = None;
        for entry in inodes.map_err(broken)?.take(limit) {
            let (key, value) = entry.map_err(broken)?;
            let page = page.get_or_insert(Page {
                blocks: Vec::new(),
                cached: Vec::new(),
                last: InodeId(0),
            });
            page.last = InodeId(u64_at(key, 0));
            let record: InodeRecord = decode(value)?;
            if let InodeBody::File(file) = &record.body {
                page.blocks.extend(file.kept_blocks(page.last));
                if let Some(wanted) = wanted {
                    let cached = file.cached_blocks(page.last, record.mount);
                    page.cached.extend(cached.filter(wanted));
                }
            }
        }
        Ok(page)
    }

    /// The blocks of a file with bytes, by their indexes, and those of them that are kept. None if it is no file.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn blocks_of(&self, inode: InodeId) -> Result<Option<BlocksOf>> {
        let record = self.dbs.inode(&*self.read()?, inode)?;
        let Some(InodeBody::File(file)) = record.map(|record| record.body) else {
            return Ok(None);
        };
        let mut blocks = file.placed_blocks();
        blocks.retain(|(_, block)| block.len_bytes > 0);
        let kept = file
            .kept_blocks(inode)
            .map(|kept| (kept.block.id, kept))
            .collect();
        Ok(Some(BlocksOf {
            blocks,
            kept,
            is_written: file.is_written(),
        }))
    }

    /// Whether a block is kept, and as it was when it was found.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn is_kept(&self, block: &BlockRef) -> Result<bool> {
        let Some((inode, _, _)) = self.block_owner(block.id)? else {
            return Ok(false);
        };
        let record = self.dbs.inode(&*self.read()?, inode)?;
        Ok(match record.map(|record| record.body) {
            Some(InodeBody::File(file)) => {
                let mut kept = file.kept_blocks(inode);
                kept.any(|now| now.block == *block && now.is_settled)
            }
            _ => false,
        })
    }

    /// What a doubtful replica of a block is worth.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn worth(&self, block: BlockId) -> Result<Doubted> {
        let Some((inode, _, known)) = self.block_owner(block)? else {
            return Ok(Doubted::IsNoUse);
        };
        let record = self.dbs.inode(&*self.read()?, inode)?;
        let Some(InodeBody::File(file)) = record.map(|record| record.body) else {
            return Ok(Doubted::IsNoUse);
        };
        let is_kept = file.kept_blocks(inode).any(|kept| kept.block.id == block);
        Ok(match (is_kept, file.lease.is_none()) {
            // Nothing of it was flushed.
            _ if known.len_bytes == 0 => Doubted::Counts,
            (false, true) => Doubted::IsNoUse,
            _ if file.replicas > 1 => Doubted::MayBeOlder,
            _ => Doubted::Counts,
        })
    }
}
