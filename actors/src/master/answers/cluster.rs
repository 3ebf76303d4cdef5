//! The state of the cluster as users see it.

use std::sync::Arc;

use curvine_protocol::cluster::{ClusterStatus, MasterStatus};
use curvine_protocol::master::*;
use curvine_protocol::worker::{Done, MarkBlocks, MarkedBlock};
use curvine_protocol::{BlockRef, CallContext, Error, InodeId, Node, NodeId, Result};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Answers;
use crate::kit::call;
use crate::master::blocks::BlockMap;
use crate::master::blocks::check::held_fault;
use crate::master::contract::{Consensus, NamespaceView, Placement};
use crate::master::duties::Duties;
use crate::master::mirror::Mirror;
use crate::master::namespace::store::Store;
use crate::master::walk::Walk;
use crate::master::workers::Workers;

/// The masters of the group, asked.
pub type Masters = Arc<dyn Fn() -> BoxFuture<'static, Vec<MasterStatus>> + Send + Sync>;

pub struct ClusterAnswers {
    pub node: NodeId,
    pub started: Instant,
    pub view: Arc<dyn NamespaceView>,
    pub consensus: Arc<dyn Consensus>,
    pub blocks: Arc<BlockMap>,
    pub mirror: Arc<Mirror>,
    pub masters: Masters,
    pub duties: Arc<Duties>,
    pub store: Store,
    pub workers: Workers,
    /// Has replicas made that are missing, without waiting for the next look.
    pub repair_now: Arc<Notify>,
}

impl Answers<StatFs> for ClusterAnswers {
    async fn answer(self: Arc<Self>, call: StatFs, _context: CallContext) -> Result<FsStats> {
        self.consensus.read_barrier().await?;
        let mut stats = self.blocks.stats();
        stats.inodes = self.view.inode_count()?;
        if let Some(node) = &call.node
            && let Some((limits, used)) = self.store.nearest_quota(node)?
        {
            limit(&mut stats, limits, used);
        }
        Ok(stats)
    }
}

/// What `df` shows below a quota: no more than there is.
fn limit(stats: &mut FsStats, limits: QuotaLimits, used: QuotaUsage) {
    if let Some(bytes) = limits.bytes {
        stats.capacity_bytes = bytes;
        stats.used_bytes = used.bytes;
        stats.cached_bytes = 0;
        stats.available_bytes = stats.available_bytes.min(bytes.saturating_sub(used.bytes));
    }
    stats.inodes = used.inodes;
}

impl Answers<GetRoutes> for ClusterAnswers {
    async fn answer(self: Arc<Self>, _call: GetRoutes, _context: CallContext) -> Result<Routes> {
        self.consensus.read_barrier().await?;
        let now = self.blocks.now();
        Ok(Routes {
            cluster: self.view.cluster_id()?,
            leader: self.node,
            masters: self.consensus.members(),
            workers: self.blocks.cluster().roster.addresses(now),
        })
    }
}

impl Answers<GetClusterStatus> for ClusterAnswers {
    async fn answer(
        self: Arc<Self>,
        _call: GetClusterStatus,
        _context: CallContext,
    ) -> Result<ClusterStatus> {
        self.consensus.read_barrier().await?;
        let now = self.blocks.now();
        // Others ask for the same lock.
        let last_worker = self.view.last_worker()?;
        let workers = {
            let cluster = self.blocks.cluster();
            let mut workers = cluster.roster.statuses(now);
            workers.extend(cluster.unheard_statuses(last_worker, now));
            workers
        };
        Ok(ClusterStatus {
            cluster: self.view.cluster_id()?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            masters: (self.masters)().await,
            workers,
            inodes: self.view.inode_count()?,
            mounts: self.view.mounts()?.len() as u64,
            uptime_s: now.duration_since(self.started).as_secs(),
            duties: self.duties.statuses(),
        })
    }
}

impl Answers<Summarize> for ClusterAnswers {
    async fn answer(self: Arc<Self>, call: Summarize, _context: CallContext) -> Result<Summary> {
        self.consensus.read_barrier().await?;
        if let Node::Path(path) = &call.node {
            self.mirror.fresh_path(path).await?;
        }
        let top = self.view.lookup(&call.node, true)?.attr;
        let mut summary = Summary::default();
        let mut walk = Walk::new(self.view.clone(), Some(self.mirror.clone()), (), top);
        while let Some((_, found)) = walk.next().await {
            let attr = found?;
            if attr.is_dir() {
                summary.directories += 1;
                continue;
            }
            summary.files += 1;
            summary.bytes += attr.size_bytes;
            summary.hole_bytes += attr.hole_bytes;
            if attr.is_file() {
                summary.cached_bytes += self.cached(attr.inode)?;
            }
        }
        Ok(summary)
    }
}

impl Answers<CheckFiles> for ClusterAnswers {
    async fn answer(self: Arc<Self>, call: CheckFiles, _context: CallContext) -> Result<FilesChecked> {
        few_enough(call.inodes.len())?;
        self.consensus.read_barrier().await?;
        let now = self.blocks.now();
        let last_worker = self.view.last_worker()?;
        let (has_heard_all, may_have_more) = {
            let cluster = self.blocks.cluster();
            (
                cluster.knows_holders(last_worker, now),
                cluster.may_have_more(last_worker),
            )
        };
        let mut files = Vec::new();
        for inode in call.inodes {
            let Some(of) = self.store.blocks_of(inode)? else {
                continue;
            };
            let cluster = self.blocks.cluster();
            let fault = |(index, block): &(u32, BlockRef)| {
                let kept = of.kept.get(&block.id).filter(|kept| kept.is_settled)?;
                cluster.fault(*index, kept, &may_have_more, now)
            };
            files.push(FileCheck {
                inode,
                blocks: of.blocks.len() as u64,
                kept_blocks: of.kept.len() as u64,
                faults: of.blocks.iter().filter_map(fault).collect(),
            });
        }
        Ok(FilesChecked { has_heard_all, files })
    }
}

impl Answers<CheckHeld> for ClusterAnswers {
    async fn answer(self: Arc<Self>, call: CheckHeld, _context: CallContext) -> Result<HeldChecked> {
        few_enough(call.held.len())?;
        self.consensus.read_barrier().await?;
        let faults = call.held.iter().map(|held| self.held_fault(held));
        Ok(HeldChecked {
            faults: faults.collect::<Result<_>>()?,
        })
    }
}

impl Answers<RepairNow> for ClusterAnswers {
    async fn answer(self: Arc<Self>, call: RepairNow, _context: CallContext) -> Result<Done> {
        few_enough(call.kept.len())?;
        self.consensus.read_barrier().await?;
        for wrongly in &call.kept {
            self.keep(wrongly).await?;
        }
        let now = self.blocks.now();
        let live = self.blocks.cluster().roster.live(now);
        live.into_iter().for_each(|worker| self.blocks.untold(worker));
        self.repair_now.notify_one();
        Ok(Done {})
    }
}

fn few_enough(count: usize) -> Result<()> {
    match count <= CHECKED_MAX {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "{count} at once are too many: at most {CHECKED_MAX}"
        ))),
    }
}

impl ClusterAnswers {
    fn held_fault(&self, held: &HeldBlock) -> Result<Option<Fault>> {
        let Some((inode, _, known)) = self.view.block_owner(held.replica.id)? else {
            return Ok(held_fault(held, None));
        };
        let Some(of) = self.store.blocks_of(inode)?.filter(|of| !of.is_written) else {
            return Ok(None);
        };
        let is_kept = of.kept.contains_key(&held.replica.id);
        Ok(held_fault(held, Some((&known, is_kept))))
    }

    /// Has a worker keep a block that no object has.
    async fn keep(&self, wrongly: &WronglyCached) -> Result<()> {
        let Some((inode, _, block)) = self.view.block_owner(wrongly.block)? else {
            return Ok(());
        };
        let of = self.store.blocks_of(inode)?;
        if !of.is_some_and(|of| of.kept.contains_key(&block.id)) {
            return Ok(());
        }
        let mark = MarkBlocks {
            blocks: vec![MarkedBlock {
                block: block.id,
                generation: block.generation,
                mount: None,
            }],
            cached: false,
            number: self.view.last_effect()?.0,
        };
        let port = self.workers.reach(wrongly.worker)?;
        call(&*port, mark, CallContext::default()).await.map(drop)
    }

    fn cached(&self, inode: InodeId) -> Result<u64> {
        let layout = self.view.layout(inode)?;
        let blocks: Vec<_> = layout.blocks.iter().map(|located| located.block).collect();
        Ok(self.blocks.cached_bytes(&blocks))
    }
}
