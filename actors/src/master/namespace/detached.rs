//! Trees that were cut off, and go in the background: a big one in one command would stop all other changes.
//!
//! A tree is cut off where it hangs, at once; its top is noted in `meta`. From then on nothing in it can be found or made.
//! The leader then has it removed from its leaves upward, some inodes with each command
//! ([`Op::Reclaim`](curvine_protocol::op::Op)); what is left after a failover, its successor goes on with.

use curvine_protocol::{Error, ErrorKind, InodeId, Result};
use heed::{RoTxn, RwTxn};

use super::store::{Dbs, broken, u64_at};

/// Inodes that one command removes of a tree: a few milliseconds.
pub const STEP: u64 = 256;
const DETACHED: &[u8] = b"detached ";

fn key(top: InodeId) -> Vec<u8> {
    [DETACHED, &top.0.to_be_bytes()].concat()
}

impl Dbs {
    pub fn detach(&self, txn: &mut RwTxn, top: InodeId) -> Result<()> {
        // It still counts for the quotas above it, also when the directories between are gone.
        let mut record = self.inode_or_stale(txn, top)?;
        let above = self.quotas_above(txn, record.parent)?;
        if let Some(quota) = above.first() {
            record.parent = *quota;
            self.put_inode(txn, top, &record)?;
        }
        self.meta.put(txn, &key(top), &[]).map_err(broken)
    }

    pub fn is_detached(&self, txn: &RoTxn, top: InodeId) -> Result<bool> {
        Ok(self.meta.get(txn, &key(top)).map_err(broken)?.is_some())
    }

    /// The tree is gone.
    pub fn reclaimed(&self, txn: &mut RwTxn, top: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(top)).map_err(broken)?;
        Ok(())
    }

    /// The tops of trees that are to go, the first few.
    pub fn detached(&self, txn: &RoTxn, limit: usize) -> Result<Vec<InodeId>> {
        self.noted_inodes(txn, DETACHED, limit)
    }

    /// The first few inodes that are noted in `meta` under a prefix.
    pub fn noted_inodes(&self, txn: &RoTxn, prefix: &[u8], limit: usize) -> Result<Vec<InodeId>> {
        let all = self.meta.prefix_iter(txn, prefix).map_err(broken)?;
        all.take(limit)
            .map(|entry| Ok(InodeId(u64_at(entry.map_err(broken)?.0, prefix.len()))))
            .collect()
    }

    /// What something says of an inode, or of the nearest directory above of which it says anything; and of which.
    pub fn nearest<T>(
        &self,
        txn: &RoTxn,
        inode: InodeId,
        says: impl Fn(InodeId) -> Result<Option<T>>,
    ) -> Result<Option<(InodeId, T)>> {
        let mut at = inode;
        loop {
            if let Some(said) = says(at)? {
                return Ok(Some((at, said)));
            }
            if at == InodeId::ROOT {
                return Ok(None);
            }
            match self.inode(txn, at)? {
                Some(record) if record.parent != at => at = record.parent,
                _ => return Ok(None),
            }
        }
    }

    /// # Errors
    /// `Stale` for a directory in a tree that was cut off.
    pub fn refuse_detached(&self, txn: &RoTxn, directory: InodeId) -> Result<()> {
        if self.detached(txn, 1)?.is_empty() {
            return Ok(());
        }
        let mut at = directory;
        while at != InodeId::ROOT {
            if self.is_detached(txn, at)? {
                return Err(Error::new(
                    ErrorKind::Stale,
                    format!("inode {directory} no longer exists"),
                ));
            }
            at = self.inode_or_stale(txn, at)?.parent;
        }
        Ok(())
    }
}
