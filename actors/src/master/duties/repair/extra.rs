//! Extra copies: of hot blocks, and of cached ones whose mounts want several.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::worker::{CopyCached, LoadTask};
use curvine_protocol::{BlockId, Error, ErrorKind, MountId, Result};
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, timeout};

use super::look::{Extra, Task};
use super::{AT_ONCE, Repair};
use crate::kit::metrics;
use crate::master::blocks::extra::{Another, Hot};
use crate::master::namespace::kept::Cached;

/// How long a cached block is not copied again.
const NOT_AGAIN: Duration = Duration::from_secs(120);
/// How long one copy of a cached block is waited for, which goes on by itself: whatever is missing comes first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which cached blocks a look is to find.
pub(super) struct CachedWanted {
    /// All of these mounts, and hot ones of all others,
    mounts: BTreeSet<MountId>,
    /// but these.
    copied: HashSet<BlockId>,
}

impl CachedWanted {
    pub(super) fn any(&self, hot: &Hot) -> bool {
        !self.mounts.is_empty() || hot.is_any()
    }

    pub(super) fn has(&self, cached: &Cached, hot: &Hot) -> bool {
        let is_wanted = hot.more(cached.block.id) > 0 || self.mounts.contains(&cached.mount);
        is_wanted && !self.copied.contains(&cached.block.id)
    }
}

impl Repair {
    pub(super) fn cached_wanted(&self, now: Instant) -> CachedWanted {
        let mut copied = self.copied.lock().expect("nobody panics while holding this");
        copied.retain(|_, at| now.duration_since(*at) < NOT_AGAIN);
        let cluster = self.blocks.cluster();
        let several = cluster.mounts.iter().filter(|(_, mount)| mount.replicas > 1);
        CachedWanted {
            mounts: several.map(|(mount, _)| *mount).collect(),
            copied: copied.keys().copied().collect(),
        }
    }

    /// What cannot be made is found again, if it is still wanted.
    pub(super) async fn make_extra(&self, extra: Vec<Extra>) {
        let mut making = stream::iter(extra)
            .map(|extra| self.make(extra))
            .buffer_unordered(AT_ONCE);
        while let Some(made) = making.next().await {
            match made {
                Ok(true) => {
                    metrics::EXTRA_COPIES.add(1);
                    self.more.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "an extra copy is not made"),
            }
        }
    }

    /// Whether there is one more.
    async fn make(&self, extra: Extra) -> Result<bool> {
        match extra {
            Extra::Kept(Task { block, from, to }) => self.copy_replica(&block, from, to).await,
            Extra::Cached(cached, another) => self.copy_cached(&cached, another).await,
        }
    }

    /// # Errors
    /// Those of the worker; `Timeout`.
    async fn copy_cached(&self, cached: &Cached, Another { from, to }: Another) -> Result<bool> {
        let now = self.clock.now();
        self.copied
            .lock()
            .expect("nobody panics while holding this")
            .insert(cached.block.id, now);
        // It may be another one by now.
        let layout = self.fetching.view.layout(cached.inode)?;
        let source = layout.source.as_ref();
        let Some(source) = source.filter(|source| source.mount == cached.mount && source.has(&cached.block))
        else {
            return Ok(false);
        };
        let mut placed = layout.placed(0);
        if !placed.any(|(index, located)| index == cached.index && located.block == cached.block) {
            return Ok(false);
        }
        let task = LoadTask {
            block: cached.block.id,
            generation: cached.block.generation,
            len_bytes: cached.block.len_bytes,
            object_offset_bytes: u64::from(cached.index) * layout.attr.block_bytes,
            source: source.clone(),
            tier: layout.tier,
            copy: Some(CopyCached {
                inode: cached.inode,
                block_index: cached.index,
                workers: self.blocks.cluster().roster.addresses_of(from),
            }),
        };
        match timeout(PATIENCE, self.fetching.load(to, vec![task])).await {
            Ok(loaded) => loaded.map(|()| true),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "worker {to} has not copied block {} within {PATIENCE:?}",
                    cached.block.id
                ),
            )),
        }
    }
}
