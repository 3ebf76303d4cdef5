//! What is done for a file whose last writer went without giving its lease back, before anybody else gets it.
//!
//! Its workers refuse what that writer may still send. Where they are several, it may have reached one of them and not
//! another: their replicas are compared, and those that are kept become of a generation of their own (`blocks/agree.rs`).
//! Each attempt at that is a version of the file, so that what an earlier one still does, or a leader of before, has no
//! effect: its generation is refused.
//!
//! In a mount, it may have written over what workers cache of an object. Such blocks are given up for others, which are
//! fetched again: what the writer left would be read as the object's, until it is evicted.
//!
//! Such files are noted in `meta`, and a leader sees to them unasked: their readers must not get one content here and another
//! there, and what looks after blocks (repair, draining, `cv fsck`) leaves alone what may still be written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use curvine_protocol::op::Op;
use curvine_protocol::{BlockId, BlockRef, InodeId, Result};
use heed::RwTxn;
use tokio::time::sleep;

use super::leases::LOOK;
use super::records::InodeBody;
use super::store::{Dbs, Store, broken};
use crate::master::contract::{Fences, ProposeOp};

const UNFENCED: &[u8] = b"unfenced ";
/// Files that one look finds.
const SEEN: usize = 256;

fn key(inode: InodeId) -> Vec<u8> {
    [UNFENCED, &inode.0.to_be_bytes()].concat()
}

impl Dbs {
    pub fn note_unfenced(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.meta.put(txn, &key(inode), &[]).map_err(broken)
    }

    pub fn forget_unfenced(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(inode)).map_err(broken)?;
        Ok(())
    }
}

/// A file that nobody has, and whose last writer may still be writing.
struct Unfenced {
    content_version: u64,
    replicas: u8,
    blocks: Vec<BlockId>,
    /// Those that are nowhere else.
    kept: Vec<BlockRef>,
    /// Those that an object has.
    cached: Vec<BlockRef>,
}

impl Store {
    /// The first files whose writers went, and which nobody is writing.
    pub fn disagreeing(&self) -> Result<Vec<InodeId>> {
        let txn = self.read()?;
        let mut files = Vec::new();
        for inode in self.dbs.noted_inodes(&txn, UNFENCED, SEEN)? {
            let record = self.dbs.inode(&txn, inode)?;
            if let Some(InodeBody::File(file)) = record.map(|record| record.body)
                && file.lease.is_none()
            {
                files.push(inode);
            }
        }
        Ok(files)
    }

    fn unfenced(&self, inode: InodeId) -> Result<Option<Unfenced>> {
        let record = self.dbs.inode(&*self.read()?, inode)?;
        let Some(InodeBody::File(file)) = record.map(|record| record.body) else {
            return Ok(None);
        };
        if !file.unfenced || file.lease.is_some() {
            return Ok(None);
        }
        let blocks = file.placed_blocks();
        let cached_until = file.ufs.as_ref().and_then(|_| file.cached_until());
        let is_kept = |block: &BlockRef| cached_until.is_none_or(|until| block.generation > until);
        let all = blocks.iter().map(|(_, block)| *block);
        let written = all.clone().filter(|block| block.len_bytes > 0);
        let (kept, cached) = written.partition(is_kept);
        Ok(Some(Unfenced {
            content_version: file.content_version,
            replicas: file.replicas,
            blocks: all.map(|block| block.id).collect(),
            kept,
            cached,
        }))
    }
}

/// Sees to files whose writers have gone, one attempt at a time for each.
pub struct Recovery {
    pub store: Store,
    pub fences: Arc<dyn Fences>,
    pub own: Arc<dyn ProposeOp>,
    pub under_way: Mutex<BTreeSet<InodeId>>,
}

/// An attempt under way.
struct Attempt<'r>(&'r Recovery, InodeId);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.under_way().remove(&self.1);
    }
}

impl Recovery {
    fn under_way(&self) -> std::sync::MutexGuard<'_, BTreeSet<InodeId>> {
        self.under_way.lock().expect("nobody panics while holding this")
    }

    /// Has workers refuse what the last writer of a file may still send, and their replicas agree. Where that is under way
    /// already, waits a little.
    ///
    /// # Errors
    /// `BlockUnavailable` if a worker neither answers nor falls silent, or nobody who answers has a block.
    pub async fn recover(&self, inode: InodeId) -> Result<()> {
        if !self.under_way().insert(inode) {
            sleep(LOOK).await;
            return Ok(());
        }
        let _attempt = Attempt(self, inode);
        let Some(file) = self.store.unfenced(inode)? else {
            return Ok(());
        };
        let may_differ = file.replicas > 1 && !file.kept.is_empty();
        // Of the next writer; or of this attempt alone, which is a version of the file, and the next writer's follows it.
        let generation = u32::try_from(file.content_version + 1).unwrap_or(u32::MAX);
        let mut content_version = file.content_version;
        if may_differ || !file.cached.is_empty() {
            let begun = Op::RecoverLease {
                inode,
                content_version,
            };
            self.own.propose_op(begun).await?;
            content_version += 1;
        }
        self.fences.fence(inode, &file.blocks, generation).await?;
        let mut kept = Vec::new();
        if may_differ {
            let wanted = file.replicas.into();
            kept = self.fences.agree(inode, &file.kept, wanted, generation).await?;
        }
        let fenced = Op::LeaseFenced {
            inode,
            content_version,
            kept,
            dropped: self.fences.written_over(&file.cached).await?,
        };
        self.own.propose_op(fenced).await.map(drop)
    }
}
