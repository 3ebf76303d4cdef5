//! Keeps a writer that has lost its lease away from the blocks of its file, and has their replicas agree, before anybody
//! else gets the lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::op::KeptBlock;
use curvine_protocol::worker::{BlockExtent, CompareBlocks, FenceBlocks, KeepReplicas, ReplicaSum};
use curvine_protocol::{BlockId, BlockRef, Call, CallContext, Error, ErrorKind, InodeId, Result, WorkerId};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::blocks::BlockMap;
use super::blocks::agree::{Agreement, agree};
use super::contract::{Fences, NamespaceView};
use super::workers::Workers;
use crate::kit::{Clock, Endpoint, WorkerPort, call};
use crate::planted::{Bug, is_planted};

/// How long one worker is waited for before it is asked again.
const ASK_MS: u32 = 2_000;
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than a worker takes writes without having been heard: then it answers heartbeats, and nothing else.
const LIMIT: Duration = Duration::from_secs(25);
/// How long a worker may look at replicas, or put them on disk.
const REPLICAS_MS: u32 = 10_000;
/// Blocks that one call compares or keeps.
const BLOCKS_PER_CALL: usize = 256;

pub struct Fencing {
    view: Arc<dyn NamespaceView>,
    blocks: Arc<BlockMap>,
    workers: Workers,
    clock: Arc<dyn Clock>,
}

/// What keeps a fence from being complete.
struct Open {
    /// Who has not answered, if it is known.
    worker: Option<WorkerId>,
    until: Instant,
}

impl Fencing {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        blocks: Arc<BlockMap>,
        workers: Workers,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Fencing {
            view,
            blocks,
            workers,
            clock,
        }
    }

    /// Asks each worker once that may write one of the blocks and is not among those that `have`. Says who might still
    /// take a write.
    async fn round(
        &self,
        blocks: &[BlockId],
        generation: u32,
        have: &mut BTreeSet<WorkerId>,
    ) -> Result<Vec<Open>> {
        let last_worker = self.view.last_worker()?;
        let mut known = Vec::new();
        for &block in blocks {
            known.extend(self.view.block_owner(block)?.map(|(_, _, known)| known));
        }
        let writers = self
            .blocks
            .cluster()
            .writers(&known, last_worker, self.clock.now());
        let asking = writers.known.into_iter().filter(|(id, _)| !have.contains(id));
        let asking = asking
            .map(|(worker, blocks)| async move { (worker, self.ask(worker, blocks, generation).await) });
        let answers = join_all(asking.collect::<Vec<_>>()).await;
        let now = self.clock.now();
        let mut open = Vec::new();
        for (worker, answer) in answers {
            let until = self.blocks.cluster().silent_until(worker, now);
            match answer {
                Ok(()) => drop(have.insert(worker)),
                Err(_) if until <= now => {}
                Err(error) => {
                    tracing::debug!(%worker, %error, "a worker does not answer to a fence");
                    open.push(Open {
                        worker: Some(worker),
                        until,
                    });
                }
            }
        }
        open.extend(writers.others_until.map(|until| Open { worker: None, until }));
        Ok(open)
    }

    async fn ask(&self, worker: WorkerId, blocks: Vec<BlockId>, generation: u32) -> Result<()> {
        let fence = FenceBlocks { blocks, generation };
        self.call(worker, fence, ASK_MS).await.map(|_| ())
    }

    async fn call<C: Call>(&self, worker: WorkerId, request: C, deadline_ms: u32) -> Result<C::Reply>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let port = self.workers.port(worker).ok_or_else(|| {
            Error::new(
                ErrorKind::Unreachable,
                format!("worker {worker} is not registered"),
            )
        })?;
        let context = CallContext {
            deadline_ms,
            ..CallContext::default()
        };
        call(&*port, request, context).await
    }

    /// What each worker that may have one of these blocks says of it; and the blocks of which not all of them said
    /// anything.
    async fn compare(&self, blocks: &[BlockRef]) -> Result<(Found, BTreeSet<BlockId>)> {
        let last_worker = self.view.last_worker()?;
        let now = self.clock.now();
        let holders = self.blocks.cluster().writers(blocks, last_worker, now).known;
        let lengths: BTreeMap<BlockId, u64> =
            blocks.iter().map(|block| (block.id, block.len_bytes)).collect();
        let extents = |blocks: &[BlockId]| -> Vec<BlockExtent> {
            let of = blocks.iter().filter_map(|block| lengths.get_key_value(block));
            of.map(|(&block, &len_bytes)| BlockExtent { block, len_bytes })
                .collect()
        };
        let asking = holders.iter().flat_map(|(&worker, blocks)| {
            let pages = blocks.chunks(BLOCKS_PER_CALL);
            pages.map(move |page| (worker, extents(page)))
        });
        let asking = asking.map(|(worker, blocks)| async move {
            let request = CompareBlocks {
                blocks: blocks.clone(),
            };
            (worker, blocks, self.call(worker, request, REPLICAS_MS).await)
        });
        let (mut found, mut unheard) = (Found::new(), BTreeSet::new());
        for (worker, blocks, answer) in join_all(asking.collect::<Vec<_>>()).await {
            match answer {
                Ok(compared) => {
                    for (extent, replica) in blocks.iter().zip(compared.replicas) {
                        let of_block = found.entry(extent.block).or_default();
                        of_block.extend(replica.map(|sum| (worker, sum)));
                    }
                }
                Err(error) => {
                    tracing::debug!(%worker, %error, "a worker does not say what it has");
                    unheard.extend(blocks.iter().map(|extent| extent.block));
                }
            }
        }
        Ok((found, unheard))
    }

    /// Whether a worker that has not answered may have a block and come back.
    fn may_be_elsewhere(&self, known: &BlockRef, found: &[(WorkerId, ReplicaSum)]) -> Result<bool> {
        let (last_worker, now) = (self.view.last_worker()?, self.clock.now());
        let cluster = self.blocks.cluster();
        let is_awaited = |id: &WorkerId| {
            !found.iter().any(|(worker, _)| worker == id) && cluster.was_heard_lately(*id, now)
        };
        let mut current = cluster.holders.current(known);
        Ok(!cluster.knows_holders(last_worker, now) || current.any(|id| is_awaited(&id)))
    }
}

/// Who has what of each block.
type Found = BTreeMap<BlockId, Vec<(WorkerId, ReplicaSum)>>;

#[async_trait]
impl Fences for Fencing {
    async fn fence(&self, inode: InodeId, blocks: &[BlockId], generation: u32) -> Result<()> {
        if is_planted(Bug::LeaseGivenUnfenced) {
            return Ok(());
        }
        let give_up = self.clock.now() + LIMIT;
        let mut have = BTreeSet::new();
        loop {
            let open = self.round(blocks, generation, &mut have).await?;
            let now = self.clock.now();
            let Some(last) = open.iter().max_by_key(|open| open.until) else {
                return Ok(());
            };
            if last.until > give_up || now >= give_up {
                let who = last.worker.map_or_else(
                    || "a worker that has not registered".to_owned(),
                    |id| format!("worker {id}"),
                );
                return Err(Error::new(
                    ErrorKind::BlockUnavailable,
                    format!(
                        "inode {inode}: its last writer vanished, and {who} may still take writes from it; try again, or \
                         see `cv report`"
                    ),
                ));
            }
            sleep(PAUSE.min(last.until.saturating_duration_since(now))).await;
        }
    }

    async fn agree(
        &self,
        inode: InodeId,
        blocks: &[BlockRef],
        wanted: usize,
        generation: u32,
    ) -> Result<Vec<KeptBlock>> {
        if is_planted(Bug::ReplicasStayDifferent) {
            return Ok(Vec::new());
        }
        let unavailable = |block: BlockId| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "inode {inode}: its last writer vanished, and no worker that has block {block} answers, so nobody knows \
                     whether its replicas are the same; see `cv report`"
                ),
            )
        };
        let (found, unheard) = self.compare(blocks).await?;
        let nobody = Vec::new();
        let mut orders: BTreeMap<WorkerId, Vec<BlockExtent>> = BTreeMap::new();
        for known in blocks {
            let found = found.get(&known.id).unwrap_or(&nobody);
            let kept = match agree(known, found, wanted) {
                Agreement::Reached => continue,
                Agreement::Nobody if unheard.contains(&known.id) => return Err(unavailable(known.id)),
                // There is nothing to agree on.
                Agreement::Nobody => continue,
                Agreement::Keep(workers) => workers,
                Agreement::KeepDoubtful(_) if self.may_be_elsewhere(known, found)? => {
                    return Err(unavailable(known.id));
                }
                Agreement::KeepDoubtful(workers) => workers,
            };
            let extent = BlockExtent {
                block: known.id,
                len_bytes: known.len_bytes,
            };
            kept.iter()
                .for_each(|worker| orders.entry(*worker).or_default().push(extent));
        }
        let telling = orders.iter().flat_map(|(&worker, blocks)| {
            blocks
                .chunks(BLOCKS_PER_CALL)
                .map(move |page| (worker, page.to_vec()))
        });
        let telling = telling.map(|(worker, blocks)| async move {
            let order = KeepReplicas {
                blocks: blocks.clone(),
                generation,
            };
            (worker, blocks, self.call(worker, order, REPLICAS_MS).await)
        });
        let mut kept: BTreeMap<BlockId, Vec<WorkerId>> = BTreeMap::new();
        for (worker, blocks, told) in join_all(telling.collect::<Vec<_>>()).await {
            for extent in blocks {
                let workers = kept.entry(extent.block).or_default();
                workers.extend(told.is_ok().then_some(worker));
            }
        }
        // One that failed may be of the new generation all the same: it had the same bytes.
        if let Some((block, _)) = kept.iter().find(|(_, workers)| workers.is_empty()) {
            return Err(unavailable(*block));
        }
        let kept = kept.into_iter();
        Ok(kept
            .map(|(block, workers)| KeptBlock { block, workers })
            .collect())
    }

    async fn written_over(&self, blocks: &[BlockRef]) -> Result<Vec<BlockId>> {
        if blocks.is_empty() || is_planted(Bug::ReplicasStayDifferent) {
            return Ok(Vec::new());
        }
        let last_worker = self.view.last_worker()?;
        let are_all_known = self.blocks.cluster().roster.are_all_registered(last_worker);
        let (found, unheard) = self.compare(blocks).await?;
        let is_left = |known: &&BlockRef| {
            let found = found.get(&known.id).into_iter().flatten();
            let is_newer = |(_, sum): &(WorkerId, ReplicaSum)| sum.generation > known.generation;
            !are_all_known || unheard.contains(&known.id) || found.clone().any(is_newer)
        };
        Ok(blocks.iter().filter(is_left).map(|block| block.id).collect())
    }
}
