//! Has workers fetch what of a file is in its object alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::worker::{LoadBlocks, LoadTask};
use curvine_protocol::{CallContext, Error, ErrorKind, FileLayout, InodeId, Result, WorkerId};
use futures::future::try_join_all;
use tokio::time::timeout;

use super::blocks::BlockMap;
use super::contract::{NamespaceView, Placement};
use super::workers::Workers;
use crate::kit::call;

/// How often a worker says how far it is.
const PATIENCE_MS: u32 = 1_000;
/// After that, a worker that has not answered is one that does not.
const DEADLINE_MS: u32 = PATIENCE_MS + 4_000;
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
    /// Makes every block be on a worker that is in the object of a file and nowhere else.
    ///
    /// # Errors
    /// `BlockUnavailable` if no worker lives; `UfsChanged` if the object is another one; those of workers and of the under
    /// file system. What was fetched until then stays.
    pub async fn fetch(&self, inode: InodeId) -> Result<()> {
        let mut layout = self.view.layout(inode)?;
        self.blocks.locate(&mut layout);
        let missing = self.missing(&layout)?.into_iter();
        try_join_all(missing.map(|(worker, tasks)| self.load(worker, tasks))).await?;
        Ok(())
    }

    /// Makes a file be readable, and writable to another object, without the object that is behind it now: to be called
    /// before that is deleted or replaced, while somebody has the file open.
    ///
    /// # Errors
    /// As [`Fetching::fetch`]; `Timeout` if it takes more than ten minutes.
    pub async fn keep_readable(&self, inode: InodeId) -> Result<()> {
        let fetching = timeout(KEEP_DEADLINE, self.fetch(inode));
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

    /// Asks a worker until all of it has ended.
    async fn load(&self, worker: WorkerId, mut tasks: Vec<LoadTask>) -> Result<()> {
        let port = self.workers.port(worker).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("worker {worker} is gone; trying another"),
            )
        })?;
        let mut failure = Ok(());
        while !tasks.is_empty() {
            let load = LoadBlocks {
                tasks: tasks.clone(),
                patience_ms: PATIENCE_MS,
            };
            let context = CallContext {
                deadline_ms: DEADLINE_MS,
                ..CallContext::default()
            };
            let loaded = call(&*port, load, context).await?;
            let mut left = Vec::new();
            for ((place, task), outcome) in (0..).zip(tasks).zip(loaded.outcomes) {
                match outcome {
                    Ok(_) if loaded.under_way.contains(&place) => left.push(task),
                    // The worker's own report follows; the next reader need not wait for it.
                    Ok(_) => self
                        .blocks
                        .cluster()
                        .holders
                        .claimed(worker, task.block, task.generation),
                    Err(error) => failure = Err(error),
                }
            }
            tasks = left;
        }
        failure
    }
}
