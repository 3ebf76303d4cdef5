//! Blocks that are to be on more than one worker, and that nobody is writing.

use std::ops::Bound;

use curvine_protocol::codec::decode;
use curvine_protocol::{BlockRef, InodeId, Result};

use super::records::{FileBody, InodeBody, InodeRecord};
use super::store::{Store, broken, u64_at};
use crate::master::contract::NamespaceView;

/// Those of some inodes.
pub struct Page {
    /// Each with the number of replicas that it should have.
    pub blocks: Vec<(BlockRef, usize)>,
    /// The next page begins after this one.
    pub last: InodeId,
}

impl FileBody {
    /// What an object has, anybody can fetch again: it needs no replicas. While somebody writes, and until the replicas of one
    /// who went without a word agree, a generation may be of two contents.
    fn replicated(&self) -> impl Iterator<Item = BlockRef> {
        let is_settled = self.replicas > 1 && self.lease.is_none() && !self.unfenced;
        let cached_until = self.ufs.as_ref().and_then(|_| self.cached_until());
        let blocks = match is_settled {
            true => self.placed_blocks(),
            false => Vec::new(),
        };
        let is_kept = move |block: &BlockRef| cached_until.is_none_or(|until| block.generation > until);
        let blocks = blocks.into_iter().map(|(_, block)| block);
        blocks.filter(move |block| block.len_bytes > 0 && is_kept(block))
    }
}

impl Store {
    /// A page of the inodes after one. None if there are no more.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn replicated(&self, after: Option<InodeId>, limit: usize) -> Result<Option<Page>> {
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
                last: InodeId(0),
            });
            page.last = InodeId(u64_at(key, 0));
            let record: InodeRecord = decode(value)?;
            if let InodeBody::File(file) = &record.body {
                let replicas = usize::from(file.replicas);
                page.blocks
                    .extend(file.replicated().map(|block| (block, replicas)));
            }
        }
        Ok(page)
    }

    /// Whether a block is as it was when it was found.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn is_replicated(&self, block: &BlockRef) -> Result<bool> {
        let Some((inode, _, _)) = self.block_owner(block.id)? else {
            return Ok(false);
        };
        let record = self.dbs.inode(&*self.read()?, inode)?;
        Ok(match record.map(|record| record.body) {
            Some(InodeBody::File(file)) => file.replicated().any(|now| now == *block),
            _ => false,
        })
    }
}
