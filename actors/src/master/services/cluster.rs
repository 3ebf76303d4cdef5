//! The state of the cluster as users see it.

use std::sync::Arc;

use curvine_protocol::cluster::ClusterStatus;
use curvine_protocol::master::*;
use curvine_protocol::{CallContext, Error, InodeId, Node, Result};

use super::{Parts, ServiceCall};
use crate::master::contract::Placement;

impl ServiceCall for StatFs {
    async fn answer(parts: Arc<Parts>, _call: Self, _context: CallContext) -> Result<FsStats> {
        parts.consensus.read_barrier().await?;
        let mut stats = parts.blocks.stats();
        stats.inodes = parts.view.inode_count()?;
        Ok(stats)
    }
}

impl ServiceCall for GetRoutes {
    async fn answer(parts: Arc<Parts>, _call: Self, _context: CallContext) -> Result<Routes> {
        parts.consensus.read_barrier().await?;
        let now = parts.blocks.now();
        Ok(Routes {
            cluster: parts
                .view
                .cluster()?
                .ok_or_else(|| Error::internal("the cluster has no id yet"))?,
            leader: parts.node,
            masters: parts.consensus.members(),
            workers: parts.blocks.cluster().addresses(now),
        })
    }
}

impl ServiceCall for GetClusterStatus {
    async fn answer(parts: Arc<Parts>, _call: Self, _context: CallContext) -> Result<ClusterStatus> {
        parts.consensus.read_barrier().await?;
        let now = parts.blocks.now();
        Ok(ClusterStatus {
            cluster: parts
                .view
                .cluster()?
                .ok_or_else(|| Error::internal("the cluster has no id yet"))?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            masters: (parts.masters)().await,
            workers: parts.blocks.cluster().statuses(now),
            inodes: parts.view.inode_count()?,
            mounts: parts.view.mounts()?.len() as u64,
            uptime_s: now.duration_since(parts.started).as_secs(),
        })
    }
}

impl ServiceCall for Summarize {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<Summary> {
        const PAGE: usize = 1_000;
        parts.consensus.read_barrier().await?;
        let top = match &call.node {
            Node::Path(path) => {
                parts.mirror.fresh_path(path).await?;
                parts.view.lookup(&call.node, true)?.attr
            }
            node => parts.view.lookup(node, true)?.attr,
        };
        let mut summary = Summary::default();
        if !top.is_dir() {
            summary.files = 1;
            summary.bytes = top.size_bytes;
            summary.cached_bytes = cached(&parts, top.inode)?;
            return Ok(summary);
        }
        let mut directories = vec![top.inode];
        while let Some(directory) = directories.pop() {
            summary.directories += 1;
            parts.mirror.fresh_dir(directory).await?;
            let mut after: Option<String> = None;
            loop {
                let (entries, more) = parts.view.list(directory, after.as_deref(), PAGE)?;
                for entry in &entries {
                    if entry.attr.is_dir() {
                        directories.push(entry.attr.inode);
                    } else {
                        summary.files += 1;
                        summary.bytes += entry.attr.size_bytes;
                        if entry.attr.is_file() {
                            summary.cached_bytes += cached(&parts, entry.attr.inode)?;
                        }
                    }
                }
                after = entries.last().map(|entry| entry.name.clone());
                // A big tree must not hold up the other calls.
                tokio::task::yield_now().await;
                if !more {
                    break;
                }
            }
        }
        Ok(summary)
    }
}

fn cached(parts: &Parts, inode: InodeId) -> Result<u64> {
    let layout = parts.view.layout(inode)?;
    let blocks: Vec<_> = layout.blocks.iter().map(|located| located.block).collect();
    Ok(parts.blocks.cached_bytes(&blocks))
}
