//! Asks the master what object is behind a block, and how to reach it. A client's word is not taken for either.

use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::{ConfirmExport, DescribeFile, ReportUfsChanged};
use curvine_protocol::worker::{Fill, LoadTask};
use curvine_protocol::{
    BlockId, BlockRef, EffectId, Error, ErrorKind, FileLayout, InodeId, MountId, Result, WorkerId,
};
use quick_cache::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::Budget;
use super::mounts::{Masters, Mounts};
use super::peers::Peers;
use super::transfer::{PART_MEMORY_BYTES, Target};
use crate::kit::{Clock, MasterRef, WorkerConnector};
use crate::ufs::upload_notes::UploadNotes;
use crate::worker::disks::fetches::Fetches;
use crate::worker::membership::Session;
use crate::worker::source::{ObjectSource, Sources};
use crate::worker::traffic::Traffic;

/// How long a layout is believed, if nothing was deleted meanwhile. A new version of a file has new blocks, so an old one can only fail to match.
const LAYOUT_AGE: Duration = Duration::from_secs(2);
const LAYOUTS_MAX: usize = 4_096;
/// Memory for what comes from other workers.
const COPIES_MEMORY_BYTES: u64 = 32 << 20;

pub struct Resolver {
    masters: Arc<Masters>,
    clock: Arc<dyn Clock>,
    fetches: Arc<Fetches>,
    layouts: Cache<InodeId, Known>,
    mounts: Arc<Mounts>,
    traffic: Arc<Traffic>,
    peers: Arc<dyn WorkerConnector>,
    /// Memory of its own: what waits for a peer keeps nobody from fetching what that peer waits for here.
    for_copies: Budget,
}

/// A layout, and when it was asked for: the time, and how many orders to remove blocks there had been.
#[derive(Clone)]
struct Known {
    at: Instant,
    removals: u64,
    layout: Arc<FileLayout>,
}

impl Resolver {
    #[allow(
        clippy::too_many_arguments,
        reason = "a constructor lists everything it can reach"
    )]
    pub fn new(
        master: MasterRef,
        session: watch::Receiver<Option<Session>>,
        sources: Arc<dyn Sources>,
        uploads: UploadNotes,
        clock: Arc<dyn Clock>,
        fetches: Arc<Fetches>,
        traffic: Arc<Traffic>,
        peers: Arc<dyn WorkerConnector>,
    ) -> Self {
        let masters = Arc::new(Masters::new(master, session));
        Resolver {
            mounts: Arc::new(Mounts::new(masters.clone(), sources, uploads, clock.clone())),
            masters,
            clock,
            fetches,
            layouts: Cache::new(LAYOUTS_MAX),
            traffic,
            peers,
            for_copies: Budget::new(COPIES_MEMORY_BYTES, PART_MEMORY_BYTES),
        }
    }

    /// What to fill a block with that a reader asked for.
    ///
    /// # Errors
    /// `Stale` if the block is not of the file any more; `NotFound` if the file has no object; those of the master.
    pub async fn target(&self, block: BlockId, generation: u32, fill: &Fill) -> Result<Target> {
        for fresh in [false, true] {
            let layout = self.layout(fill.inode, fresh).await?;
            let Some(located) = layout
                .block_at(fill.block_index)
                .filter(|located| located.block.id == block && located.block.generation == generation)
            else {
                continue;
            };
            let object = layout.source.as_ref();
            let Some(object) = object.filter(|object| object.has(&located.block)) else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "block {block} is not on this worker and inode {} has no object that it is in",
                        fill.inode
                    ),
                ));
            };
            let target = Target {
                block,
                generation,
                len_bytes: located.block.len_bytes,
                object_offset_bytes: u64::from(fill.block_index) * layout.attr.block_bytes,
                inode: Some(fill.inode),
                mount: object.mount,
                key: object.key.clone(),
                version: object.version.clone(),
                source: self.source(object.mount).await?,
                counts: self.traffic.of(object.mount),
                memory: None,
            };
            return Ok(match fill.from_store {
                true => target,
                false => {
                    let known = |id: &WorkerId| layout.workers.iter().find(|worker| worker.id == *id);
                    let workers = located.workers.iter().filter_map(known);
                    self.by_peers(target, located.block, workers, fill)
                }
            });
        }
        Err(Error::new(
            ErrorKind::Stale,
            format!(
                "block {block} is not of inode {} any more; look the file up again",
                fill.inode
            ),
        ))
    }

    /// The same, from workers that have it or fetch it for everybody, if the master named any.
    fn by_peers<'a>(
        &self,
        target: Target,
        block: BlockRef,
        workers: impl Iterator<Item = &'a WorkerAddress>,
        fill: &Fill,
    ) -> Target {
        let reach = |worker: &WorkerAddress| (worker.id, self.peers.connect(worker.id, &worker.address));
        let workers: Vec<_> = workers.map(reach).collect();
        if workers.is_empty() {
            return target;
        }
        let peers = Peers {
            block,
            object_offset_bytes: target.object_offset_bytes,
            fill: Fill {
                whole: false,
                // It is no reader's.
                mount: None,
                from_store: true,
                ..fill.clone()
            },
            workers,
            store: target.source,
            counts: target.counts,
        };
        Target {
            source: Arc::new(peers),
            counts: Arc::default(),
            memory: Some(self.for_copies.clone()),
            ..target
        }
    }

    /// What to fill a block with that the master asked for.
    ///
    /// # Errors
    /// Those of the master.
    pub async fn load_target(&self, task: &LoadTask) -> Result<Target> {
        let target = Target {
            block: task.block,
            generation: task.generation,
            len_bytes: task.len_bytes,
            object_offset_bytes: task.object_offset_bytes,
            inode: None,
            mount: task.source.mount,
            key: task.source.key.clone(),
            version: task.source.version.clone(),
            source: self.source(task.source.mount).await?,
            counts: self.traffic.of(task.source.mount),
            memory: None,
        };
        let Some(copy) = &task.copy else {
            return Ok(target);
        };
        let block = BlockRef {
            id: task.block,
            len_bytes: task.len_bytes,
            generation: task.generation,
        };
        let fill = Fill {
            inode: copy.inode,
            block_index: copy.block_index,
            whole: false,
            mount: None,
            from_store: true,
        };
        Ok(self.by_peers(target, block, copy.workers.iter(), &fill))
    }

    async fn layout(&self, inode: InodeId, fresh: bool) -> Result<Arc<FileLayout>> {
        let (now, removals) = (self.clock.now(), self.fetches.removals());
        if let Some(known) = self.layouts.get(&inode)
            && !fresh
            && known.removals == removals
            && now.duration_since(known.at) < LAYOUT_AGE
        {
            return Ok(known.layout);
        }
        let describe = |session: Session| DescribeFile {
            worker: session.worker,
            token: session.token,
            inode,
        };
        let layout = Arc::new(self.masters.ask(describe).await?);
        let known = Known {
            at: now,
            removals,
            layout: layout.clone(),
        };
        self.layouts.insert(inode, known);
        Ok(layout)
    }

    /// The objects of a mount, reached by whatever options it has when they are.
    ///
    /// # Errors
    /// Those of the master and of opening it.
    pub async fn source(&self, mount: MountId) -> Result<Arc<dyn ObjectSource>> {
        self.mounts.source(mount).await
    }

    /// Whether an export is still wanted, and of the file as it is.
    ///
    /// # Errors
    /// `Stale` if it is not; those of the master.
    pub async fn confirm_export(&self, effect: EffectId) -> Result<()> {
        let confirm = |session: Session| ConfirmExport {
            worker: session.worker,
            token: session.token,
            effect,
        };
        self.masters.ask(confirm).await.map(|_| ())
    }

    /// What is remembered of a target turned out to be wrong: the object changed, or the credentials do not work.
    pub async fn failed(&self, target: &Target, kind: ErrorKind) {
        if matches!(kind, ErrorKind::UfsDenied | ErrorKind::Ufs) {
            self.mounts.doubt(target.mount);
        }
        let Some(inode) = target.inode.filter(|_| kind == ErrorKind::UfsChanged) else {
            return;
        };
        self.layouts.remove(&inode);
        let changed = ReportUfsChanged {
            inode,
            expected: target.version.clone(),
        };
        if let Err(error) = self.masters.tell(changed).await {
            tracing::warn!("telling the master that `{}` changed: {error}", target.key);
        }
    }
}
