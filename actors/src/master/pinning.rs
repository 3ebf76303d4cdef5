//! Tells workers which blocks are pinned.
//!
//! A pin is of an inode, in the state; what workers have of it is in their records. What a worker has pinned that is not, or
//! has not pinned that is, shows in its full report, and in each report of a block that has come: then the file is looked at
//! again ([`super::duties::pins`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use curvine_protocol::cluster::WorkerState;
use curvine_protocol::master::{PinRoom, PinnedSize, ReportBlocks};
use curvine_protocol::worker::PinBlocks;
use curvine_protocol::{
    BlockId, BlockRef, CallContext, CurvinePath, Error, ErrorKind, InodeId, Result, WorkerId,
};
use futures::future::join_all;

use super::blocks::BlockMap;
use super::contract::{BlockOwner, NamespaceView, Placement};
use super::duties::kinds::Exported;
use super::mirror::Mirror;
use super::walk::Walk;
use super::workers::Workers;
use crate::kit::call;
use crate::planted::{Bug, is_planted};

/// Blocks in one order.
const ORDER_BLOCKS: usize = 4_096;
/// After that, a worker that has not answered is one that does not.
const DEADLINE_MS: u32 = 10_000;
/// Files that are looked at in one go.
pub const BATCH: usize = 256;

/// Cheap to clone.
#[derive(Clone)]
pub struct Pinning {
    pub view: Arc<dyn NamespaceView>,
    pub blocks: Arc<BlockMap>,
    pub workers: Workers,
    /// Files, and directories with all below them, that are to be looked at.
    pub due: Arc<Exported>,
    /// Percent of the capacity that may be pinned.
    pub limit_percent: u64,
}

/// Files of which a worker was not told, and why it was not.
pub type Untold = Vec<(InodeId, Error)>;

impl Pinning {
    /// Whether there is anything to be told of.
    pub fn any(&self) -> Result<bool> {
        Ok(!self.view.pins()?.inodes.is_empty())
    }

    /// What may be pinned of the workers that live.
    pub fn limit_bytes(&self) -> u64 {
        self.blocks.stats().capacity_bytes / 100 * self.limit_percent
    }

    /// What is pinned and cached on the workers, as they last said.
    pub fn held_bytes(&self) -> u64 {
        let now = self.blocks.now();
        let workers = self.blocks.cluster().roster.statuses(now);
        let live = workers.iter().filter(|worker| worker.state == WorkerState::Live);
        let disks = live.flat_map(|worker| &worker.disks);
        disks.map(|disk| disk.pinned_bytes).sum()
    }

    /// How much everything at and below an inode is. With a mirror, names in mounts are made fresh first.
    ///
    /// # Errors
    /// Those of reading the state, and of the under file system.
    pub async fn size(&self, top: InodeId, mirror: Option<Arc<Mirror>>) -> Result<PinnedSize> {
        let mut size = PinnedSize::default();
        let mut walk = Walk::new(self.view.clone(), mirror, (), self.view.attr(top)?);
        while let Some((_, found)) = walk.next().await {
            let attr = found?;
            if !attr.is_file() {
                continue;
            }
            let blocks = self.blocks_of(attr.inode)?;
            size.files += 1;
            size.bytes += attr.size_bytes - attr.hole_bytes.min(attr.size_bytes);
            size.cached_bytes += self.blocks.cached_bytes(&blocks);
        }
        Ok(size)
    }

    /// The pins with their paths, in the order of these. What has no path any more is left out.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn pins(&self) -> Result<BTreeMap<CurvinePath, InodeId>> {
        let mut pins = BTreeMap::new();
        for inode in self.view.pins()?.inodes {
            match self.view.path(inode) {
                Ok(path) => drop(pins.insert(path, inode)),
                Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pins)
    }

    /// What pins come to, each file once.
    ///
    /// # Errors
    /// Those of reading the state.
    pub async fn room(&self, pins: &BTreeMap<CurvinePath, InodeId>) -> Result<PinRoom> {
        let mut pinned_bytes = 0;
        for inode in outermost(pins) {
            pinned_bytes += self.size(inode, None).await?.bytes;
        }
        Ok(PinRoom {
            limit_bytes: self.limit_bytes(),
            pinned_bytes,
        })
    }

    fn blocks_of(&self, inode: InodeId) -> Result<Vec<BlockRef>> {
        let layout = self.view.layout(inode)?;
        Ok(layout.blocks.iter().map(|located| located.block).collect())
    }

    /// Tells whoever has something of an inode, or of all below it, what is pinned of it.
    ///
    /// # Errors
    /// Those of reading the state.
    pub async fn tell_all(&self, top: InodeId, within_limit: bool) -> Result<Untold> {
        let (mut untold, mut files) = (Vec::new(), Vec::new());
        let top = match self.view.attr(top) {
            Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => return Ok(untold),
            top => top?,
        };
        let mut walk = Walk::new(self.view.clone(), None, (), top);
        while let Some((_, found)) = walk.next().await {
            // What is gone meanwhile is not pinned either.
            let Ok(attr) = found else { continue };
            if attr.is_file() {
                files.push(attr.inode);
            }
            if files.len() >= BATCH {
                untold.extend(self.tell(&std::mem::take(&mut files), within_limit).await?);
            }
        }
        untold.extend(self.tell(&files, within_limit).await?);
        Ok(untold)
    }

    /// Tells whoever has blocks of these files whether they are pinned. With `within_limit`, no more is pinned when workers
    /// have as much of it as may be: what comes into a directory may be more than its pin was allowed for.
    ///
    /// # Errors
    /// Those of reading the state.
    pub async fn tell(&self, files: &[InodeId], within_limit: bool) -> Result<Untold> {
        // Before it is looked who is pinned: what changes from now on has a greater number.
        let number = self.view.pins()?.number;
        let is_full = within_limit && self.held_bytes() >= self.limit_bytes();
        let mut orders: BTreeMap<(WorkerId, bool), Vec<(InodeId, BlockId)>> = BTreeMap::new();
        let mut untold = Vec::new();
        for &inode in files {
            let mut layout = match self.view.layout(inode) {
                Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => continue,
                layout => layout?,
            };
            let is_pinned = self.view.pinned_by(inode)?.is_some();
            if is_pinned && is_full {
                untold.push((inode, self.too_much()));
                continue;
            }
            self.blocks.locate(&mut layout);
            for located in &layout.blocks {
                // Also who is to fetch it, and may have begun.
                for worker in &located.workers {
                    orders
                        .entry((*worker, is_pinned))
                        .or_default()
                        .push((inode, located.block.id));
                }
            }
        }
        let telling = orders
            .into_iter()
            .map(|((worker, is_pinned), blocks)| async move {
                let mut failed: BTreeMap<InodeId, Error> = BTreeMap::new();
                for part in blocks.chunks(ORDER_BLOCKS) {
                    let ids = part.iter().map(|(_, block)| *block).collect();
                    if let Err(error) = self.order(worker, ids, is_pinned, number).await {
                        let error = error.while_doing(format_args!("telling worker {worker} what is pinned"));
                        failed.extend(part.iter().map(|(inode, _)| (*inode, error.clone())));
                    }
                }
                failed
            });
        untold.extend(join_all(telling).await.into_iter().flatten());
        Ok(untold)
    }

    async fn order(&self, worker: WorkerId, blocks: Vec<BlockId>, pinned: bool, number: u64) -> Result<()> {
        let port = self.workers.reach(worker)?;
        let pin = PinBlocks {
            blocks,
            pinned,
            number,
        };
        let context = CallContext {
            deadline_ms: DEADLINE_MS,
            ..CallContext::default()
        };
        call(&*port, pin, context).await.map(drop)
    }

    fn too_much(&self) -> Error {
        Error::new(
            ErrorKind::NoSpace,
            format!(
                "{} bytes are pinned and cached, and {} may be (`master.pin_limit`)",
                self.held_bytes(),
                self.limit_bytes()
            ),
        )
    }

    /// Has those files be looked at of which a worker has something pinned that is not, or the other way round; `owners` are
    /// those of its blocks. Whether all of them will be.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn reported(&self, report: &ReportBlocks, owners: &HashMap<BlockId, BlockOwner>) -> Result<bool> {
        if report.pinned.is_empty() && !self.any()? || is_planted(Bug::ForgetsPins) {
            return Ok(true);
        }
        let (mut seen, mut all) = (BTreeMap::new(), true);
        let mut noted = BTreeSet::new();
        for (replica, is_pinned) in report.said_pinned() {
            let Some(&(inode, ..)) = owners.get(&replica.id) else {
                continue;
            };
            let shall_be = match seen.get(&inode) {
                Some(shall_be) => *shall_be,
                None => {
                    let shall_be = self.view.pinned_by(inode)?.is_some();
                    seen.insert(inode, shall_be);
                    shall_be
                }
            };
            if shall_be != is_pinned && noted.insert(inode) {
                all &= self.due.note(inode, self.blocks.now());
            }
        }
        Ok(all)
    }
}

/// The pins that are in no other.
pub fn outermost(pins: &BTreeMap<CurvinePath, InodeId>) -> Vec<InodeId> {
    let is_outermost = |path: &CurvinePath| !pins.keys().any(|other| other != path && other.contains(path));
    let outermost = pins.iter().filter(|(path, _)| is_outermost(path));
    outermost.map(|(_, inode)| *inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_twice_counts_once() {
        let pins = ["/a", "/a/b", "/a/b/c", "/ab", "/d/e"];
        let path = |text| CurvinePath::parse(text).expect("a path");
        let pins = (1..)
            .zip(pins)
            .map(|(at, pin)| (path(pin), InodeId(at)))
            .collect();
        assert_eq!(outermost(&pins), [InodeId(1), InodeId(4), InodeId(5)]);
    }
}
