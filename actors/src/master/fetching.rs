//! Has workers fetch what of a file is in its object alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::worker::{LoadBlocks, LoadTask, MarkBlocks, MarkedBlock};
use curvine_protocol::{
    BlockRef, CallContext, EffectId, Error, ErrorKind, FileLayout, InodeId, LocatedBlock, Result, WorkerId,
};
use futures::future::{join_all, try_join_all};
use tokio::time::timeout;

use super::blocks::BlockMap;
use super::contract::{NamespaceView, Placement};
use super::workers::Workers;
use crate::kit::call;

/// How often a worker says how far it is.
const PATIENCE_MS: u32 = 1_000;
/// After that, a worker that has not answered is one that does not.
const DEADLINE_MS: u32 = PATIENCE_MS + 4_000;
/// How often what was fetched may be gone again before it is kept.
const KEEPS_MAX: u32 = 5;
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
        let assigned = self.assigned(&layout)?.into_iter();
        try_join_all(assigned.map(|(worker, tasks)| self.load(worker, tasks))).await?;
        Ok(())
    }

    /// As [`Fetching::fetch`], and has workers keep what is the object's: an effect is about to take that away.
    ///
    /// # Errors
    /// As [`Fetching::fetch`]; `BlockUnavailable` if what was fetched goes again and again before it is kept.
    pub async fn keep(&self, inode: InodeId, effect: EffectId) -> Result<()> {
        for _ in 0..KEEPS_MAX {
            self.fetch(inode).await?;
            if self.mark_kept(inode, effect).await? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::BlockUnavailable,
            format!(
                "inode {inode}: what is fetched of its object is evicted before it is kept; see `cv report`"
            ),
        ))
    }

    /// Whether of each block that is the object's a worker has said that it keeps it.
    async fn mark_kept(&self, inode: InodeId, effect: EffectId) -> Result<bool> {
        let mut layout = self.view.layout(inode)?;
        let Some(source) = layout.source.clone() else {
            return Ok(true);
        };
        self.blocks.locate(&mut layout);
        let mut by_worker: BTreeMap<WorkerId, Vec<MarkedBlock>> = BTreeMap::new();
        let mut left = BTreeSet::new();
        for located in layout.blocks.iter().filter(|located| source.has(&located.block)) {
            let BlockRef {
                id: block,
                generation,
                ..
            } = located.block;
            left.insert(block);
            for worker in &located.workers {
                by_worker.entry(*worker).or_default().push(MarkedBlock {
                    block,
                    generation,
                    mount: None,
                });
            }
        }
        let asked = by_worker.into_iter().map(|(worker, blocks)| async move {
            let outcome = self.mark(worker, &blocks, false, effect.0).await;
            (worker, blocks, outcome)
        });
        let mut failure = None;
        for (worker, blocks, outcome) in join_all(asked).await {
            let marked = match outcome {
                Ok(marked) => marked,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            for (MarkedBlock { block, .. }, marked) in blocks.into_iter().zip(marked) {
                match marked {
                    true => drop(left.remove(&block)),
                    // Its own report follows.
                    false => self.blocks.cluster().holders.removed(worker, block),
                }
            }
        }
        match failure {
            Some(error) if !left.is_empty() => Err(error),
            _ => Ok(left.is_empty()),
        }
    }

    /// Tells a worker of which kind blocks are. Whether each is.
    ///
    /// # Errors
    /// Those of the worker.
    pub async fn mark(
        &self,
        worker: WorkerId,
        blocks: &[MarkedBlock],
        cached: bool,
        number: u64,
    ) -> Result<Vec<bool>> {
        let port = self.workers.reach(worker)?;
        let mark = MarkBlocks {
            blocks: blocks.to_vec(),
            cached,
            number,
        };
        let context = CallContext {
            deadline_ms: DEADLINE_MS,
            ..CallContext::default()
        };
        match call(&*port, mark, context).await {
            Ok(answer) => Ok(answer.marked),
            // Of a version before: it evicts nothing.
            Err(error) if error.kind == ErrorKind::Unsupported => Ok(vec![!cached; blocks.len()]),
            Err(error) => Err(error),
        }
    }

    /// Makes a file be readable, and writable to another object, without the object that is behind it now: to be called
    /// before an effect deletes or replaces that, while somebody has the file open.
    ///
    /// # Errors
    /// As [`Fetching::keep`]; `Timeout` if it takes more than ten minutes.
    pub async fn keep_readable(&self, inode: InodeId, effect: EffectId) -> Result<()> {
        let fetching = timeout(KEEP_DEADLINE, self.keep(inode, effect));
        fetching.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("inode {inode}: its object was not fetched within {KEEP_DEADLINE:?}"),
            ))
        })
    }

    /// What to fetch.
    fn missing(&self, layout: &FileLayout) -> Vec<(LocatedBlock, LoadTask)> {
        let now = self.blocks.now();
        let cluster = self.blocks.cluster();
        to_load(layout, |block| cluster.is_cached(block, now))
    }

    /// What to fetch, by who is to do it.
    fn assigned(&self, layout: &FileLayout) -> Result<BTreeMap<WorkerId, Vec<LoadTask>>> {
        let mut tasks: BTreeMap<WorkerId, Vec<LoadTask>> = BTreeMap::new();
        for (located, task) in self.missing(layout) {
            let worker = *located.workers.first().ok_or_else(|| {
                Error::new(
                    ErrorKind::BlockUnavailable,
                    "no worker is live to load it; see `cv report`",
                )
            })?;
            tasks.entry(worker).or_default().push(task);
        }
        Ok(tasks)
    }

    /// Asks a worker until all of it has ended.
    ///
    /// # Errors
    /// The last of those of the worker; what ended well is known to be there.
    pub async fn load(&self, worker: WorkerId, mut tasks: Vec<LoadTask>) -> Result<()> {
        let port = self.workers.reach(worker)?;
        let mut failure = Ok(());
        while !tasks.is_empty() {
            let load = LoadBlocks {
                tasks: tasks.clone(),
                patience_ms: PATIENCE_MS,
                job: None,
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

/// The blocks that workers have to load for all of a file to be on workers: those that are in its object, and not here. What
/// was written since is kept, and is not the object's to give.
pub fn to_load(layout: &FileLayout, is_here: impl Fn(&BlockRef) -> bool) -> Vec<(LocatedBlock, LoadTask)> {
    let Some(source) = &layout.source else {
        return Vec::new();
    };
    let missing = layout
        .placed(0)
        .filter(|(_, located)| source.has(&located.block) && !is_here(&located.block));
    let task = |(index, located): (u32, &LocatedBlock)| LoadTask {
        block: located.block.id,
        generation: located.block.generation,
        len_bytes: located.block.len_bytes,
        object_offset_bytes: u64::from(index) * layout.attr.block_bytes,
        source: source.clone(),
        tier: layout.tier,
        copy: None,
    };
    missing
        .map(|(index, located)| (located.clone(), task((index, located))))
        .collect()
}

#[cfg(test)]
mod tests {
    use curvine_protocol::attr::UfsSource;
    use curvine_protocol::{Attr, BlockId, FileKind, MountId, UfsVersion};

    use super::*;

    const BLOCK: u64 = 1 << 20;
    const WRITTEN: u32 = 5;

    /// A file of an object, with the generation of each block.
    fn layout(generations: &[u32]) -> FileLayout {
        let version = UfsVersion {
            size_bytes: BLOCK * generations.len() as u64,
            mtime_ms: 1,
            etag: None,
        };
        let attr = Attr {
            inode: InodeId(9),
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: version.size_bytes,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            btime_ns: 0,
            rdev: 0,
            block_bytes: BLOCK,
            replicas: 1,
            content_version: 0,
            ufs: Some(version.clone()),
            hole_bytes: 0,
            bare: false,
            has_acl: false,
        };
        let located = |(id, &generation): (u64, &u32)| LocatedBlock {
            block: BlockRef {
                id: BlockId(id),
                len_bytes: BLOCK,
                generation,
            },
            workers: Vec::new(),
        };
        FileLayout {
            attr,
            blocks: (0..).zip(generations).map(located).collect(),
            workers: Vec::new(),
            source: Some(UfsSource {
                mount: MountId(1),
                key: "a".to_owned(),
                version,
                until_generation: WRITTEN - 1,
            }),
            indexes: Vec::new(),
            damaged: Vec::new(),
            tier: None,
        }
    }

    #[test]
    fn what_was_written_since_and_what_is_here_is_not_loaded() {
        let mut layout = layout(&[1, WRITTEN, 1, 1]);
        let loaded = |layout: &FileLayout| {
            let tasks = to_load(layout, |block| block.id == BlockId(2)).into_iter();
            tasks
                .map(|(_, task)| (task.block, task.generation, task.object_offset_bytes))
                .collect::<Vec<_>>()
        };
        assert_eq!(loaded(&layout), [(BlockId(0), 1, 0), (BlockId(3), 1, 3 * BLOCK)]);
        layout.source = None;
        assert_eq!(loaded(&layout), [], "there is no object");
    }
}
