//! The state of the cluster as users see it.

use std::sync::Arc;

use curvine_protocol::cluster::{ClusterStatus, MasterStatus};
use curvine_protocol::master::*;
use curvine_protocol::{CallContext, InodeId, Node, NodeId, Result};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::Answers;
use crate::master::blocks::BlockMap;
use crate::master::contract::{Consensus, NamespaceView, Placement};
use crate::master::duties::Duties;
use crate::master::mirror::Mirror;
use crate::master::walk::Walk;

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
}

impl Answers<StatFs> for ClusterAnswers {
    async fn answer(self: Arc<Self>, _call: StatFs, _context: CallContext) -> Result<FsStats> {
        self.consensus.read_barrier().await?;
        let mut stats = self.blocks.stats();
        stats.inodes = self.view.inode_count()?;
        Ok(stats)
    }
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
        let workers = self.blocks.cluster().roster.statuses(now);
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

impl ClusterAnswers {
    fn cached(&self, inode: InodeId) -> Result<u64> {
        let layout = self.view.layout(inode)?;
        let blocks: Vec<_> = layout.blocks.iter().map(|located| located.block).collect();
        Ok(self.blocks.cached_bytes(&blocks))
    }
}
