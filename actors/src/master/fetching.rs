//! Has workers fetch what of a file is in its object alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::worker::{LoadBlocks, LoadTask};
use curvine_protocol::{CallContext, Error, ErrorKind, FileLayout, InodeId, Result, WorkerId};
use tokio::time::timeout;

use super::blocks::BlockMap;
use super::contract::{NamespaceView, Placement};
use super::workers::Workers;
use crate::kit::call;

/// For a call that moves up to a gigabyte.
const LOAD_DEADLINE_MS: u32 = 1_800_000;
/// How long whoever takes an object away waits for those who have it open.
const KEEP_DEADLINE: Duration = Duration::from_secs(600);

/// Cheap to clone.
#[derive(Clone)]
pub struct Fetching {
    pub view: Arc<dyn NamespaceView>,
    pub blocks: Arc<BlockMap>,
    pub workers: Workers,
}

impl Fetching {
    /// Makes every block be on a worker that is in the object of a file and nowhere else. `moved` is told of bytes as they
    /// come.
    ///
    /// # Errors
    /// `BlockUnavailable` if no worker lives; `UfsChanged` if the object is another one; those of workers and of the under
    /// file system. What was fetched until then stays.
    pub async fn fetch(&self, inode: InodeId, mut moved: impl FnMut(u64)) -> Result<()> {
        let mut layout = self.view.layout(inode)?;
        self.blocks.locate(&mut layout);
        for (worker, tasks) in self.missing(&layout)? {
            self.load(worker, tasks, &mut moved).await?;
        }
        Ok(())
    }

    /// Makes a file be readable, and writable to another object, without the object that is behind it now: to be called
    /// before that is deleted or replaced, while somebody has the file open.
    ///
    /// # Errors
    /// As [`Fetching::fetch`]; `Timeout` if it takes more than ten minutes.
    pub async fn keep_readable(&self, inode: InodeId) -> Result<()> {
        let fetching = timeout(KEEP_DEADLINE, self.fetch(inode, |_| {}));
        fetching.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("inode {inode}: its object was not fetched within {KEEP_DEADLINE:?}"),
            ))
        })
    }

    /// What to fetch, and who is to do it.
    fn missing(&self, layout: &FileLayout) -> Result<BTreeMap<WorkerId, Vec<LoadTask>>> {
        let mut tasks: BTreeMap<WorkerId, Vec<LoadTask>> = BTreeMap::new();
        let Some(source) = &layout.source else {
            return Ok(tasks);
        };
        let now = self.blocks.now();
        let cluster = self.blocks.cluster();
        for (index, located) in layout.placed(0) {
            let block = located.block;
            if !source.has(&block) || cluster.is_cached(&block, now) {
                continue;
            }
            let worker = *located.workers.first().ok_or_else(|| {
                Error::new(
                    ErrorKind::BlockUnavailable,
                    "no worker is live to load it; see `cv report`",
                )
            })?;
            tasks.entry(worker).or_default().push(LoadTask {
                block: block.id,
                generation: block.generation,
                len_bytes: block.len_bytes,
                object_offset_bytes: u64::from(index) * layout.attr.block_bytes,
                source: source.clone(),
            });
        }
        Ok(tasks)
    }

    async fn load(&self, worker: WorkerId, tasks: Vec<LoadTask>, moved: &mut impl FnMut(u64)) -> Result<()> {
        let port = self.workers.port(worker).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("worker {worker} is gone; trying another"),
            )
        })?;
        let blocks: Vec<_> = tasks.iter().map(|task| (task.block, task.generation)).collect();
        let context = CallContext {
            deadline_ms: LOAD_DEADLINE_MS,
            ..CallContext::default()
        };
        let loaded = call(&*port, LoadBlocks { tasks }, context).await?;
        let mut failure = Ok(());
        for ((block, generation), outcome) in blocks.into_iter().zip(loaded.outcomes) {
            match outcome {
                Ok(bytes) => {
                    // The worker's own report follows; the next reader need not wait for it.
                    self.blocks.cluster().holders.claimed(worker, block, generation);
                    moved(bytes);
                }
                Err(error) => failure = Err(error),
            }
        }
        failure
    }
}
