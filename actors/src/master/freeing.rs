//! Has workers let go of cached blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use curvine_protocol::{BlockId, BlockRef, ErrorKind, InodeId, Result, WorkerId};
use futures::future::join_all;

use super::blocks::BlockMap;
use super::contract::{NamespaceView, Placement};
use super::workers::Workers;

/// See the module.
#[derive(Clone)]
pub struct Freeing {
    pub view: Arc<dyn NamespaceView>,
    pub blocks: Arc<BlockMap>,
    pub workers: Workers,
}

/// What workers are to delete.
#[derive(Default)]
pub struct Orders(BTreeMap<WorkerId, Vec<BlockId>>);

impl Freeing {
    /// Takes what is cached of a file out of what the workers are known to hold. The answer: how many bytes that is; none if
    /// the file has to stay as it is.
    ///
    /// # Errors
    /// `Stale` if there is no such file.
    pub fn release(&self, inode: InodeId, orders: &mut Orders) -> Result<Option<u64>> {
        let Some(blocks) = self.droppable(inode)? else {
            return Ok(None);
        };
        let bytes = self.blocks.cached_bytes(&blocks);
        if bytes > 0 {
            let ids = blocks.iter().map(|block| block.id);
            self.blocks.cluster().holders.release_all(ids, &mut orders.0);
        }
        Ok(Some(bytes))
    }

    /// The same for files that may be gone, or pinned, and what comes of it. How many had something to be freed.
    ///
    /// # Errors
    /// Those of reading the state.
    pub async fn free(&self, files: &[InodeId]) -> Result<u64> {
        let (mut orders, mut freed) = (Orders::default(), 0);
        for inode in files {
            if self.view.pinned_by(*inode)?.is_some() {
                continue;
            }
            match self.release(*inode, &mut orders) {
                Ok(bytes) => freed += u64::from(bytes.is_some_and(|bytes| bytes > 0)),
                Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        self.delete(orders).await;
        Ok(freed)
    }

    /// The blocks of a file that can be fetched again; none if it has to stay as it is. While it is written, workers may
    /// have more of a block than the object.
    fn droppable(&self, inode: InodeId) -> Result<Option<Vec<BlockRef>>> {
        let layout = self.view.layout(inode)?;
        let Some(source) = layout.source else {
            return Ok(None);
        };
        if self.view.lease_holder(inode)?.is_some() {
            return Ok(None);
        }
        let blocks = layout.blocks.iter().map(|located| located.block);
        let cached: Vec<_> = blocks.filter(|block| source.has(block)).collect();
        let is_kept = cached.is_empty() && !layout.blocks.is_empty();
        Ok((!is_kept).then_some(cached))
    }

    /// Tells workers to delete blocks and waits until they have, or do not answer: then they are told when they do.
    pub async fn delete(&self, orders: Orders) {
        let telling = orders
            .0
            .into_iter()
            .map(|(worker, blocks)| self.workers.delete(worker, blocks));
        join_all(telling).await;
    }
}
