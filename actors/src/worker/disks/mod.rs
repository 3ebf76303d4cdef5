//! The disks of a worker together: which one has a block, which one gets a new one.
//!
//! What concerns more than one data directory belongs here; what concerns one is in [`super::disk`], which knows of no
//! other. Choices are pure, in files of their own: [`placement`] says where a new block goes.
//!
//! Owns the memory of where new blocks were placed, and of what is being fetched ([`fetches`]).
//!
//! Invariants:
//! - A block is on one disk. It is written where it is, whatever has more room now; between the choice of a disk and
//!   the commit of its record, the memory of placements says where that is.
//! - An order to remove a block goes to all disks, and ends what is being fetched of it.

pub mod fetches;
mod placement;

use std::sync::Arc;

use curvine_conf::DataDir;
use curvine_protocol::cluster::DiskStatus;
use curvine_protocol::master::HeldBlock;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    BlockAccount, BlockExtent, BlocksListed, Departure, DiskScrub, EXPLAINED_MAX, ListBlocks, MarkBlocks,
    PinBlocks, ReadBlock, ReplicaSum,
};
use curvine_protocol::{BlockId, Error, ErrorKind, JobId, Result};
use futures::future::try_join_all;

use self::fetches::Fetches;
use self::placement::choose_disk;
use super::Threads;
use super::disk::{
    AccountFor, BlockNews, Disk, DiskOptions, DiskRef, Grant, ListReplicas, Removal, RemoveBlocks, ScrubNow,
    StopDisk, Store, missing,
};
use super::traffic::Traffic;
use crate::kit::Ports;

/// New blocks whose disk was chosen and whose index record may not be committed yet.
const PLACED_MAX: usize = 16_384;

/// Blocks in one page of a list.
const LISTED_MAX: usize = 1_000;

/// All disks of a worker. Cheap to clone.
#[derive(Clone)]
pub struct Disks {
    inner: Arc<Inner>,
}

struct Inner {
    disks: Vec<DiskRef>,
    placed: quick_cache::sync::Cache<BlockId, usize>,
    fetches: Arc<Fetches>,
    traffic: Arc<Traffic>,
}

impl Disks {
    /// Opens each directory and starts its actor on an arbiter of its own, unless the threads are given.
    ///
    /// # Errors
    /// Those of the file system, naming the directory.
    pub async fn start(
        directories: &[DataDir],
        options: &DiskOptions,
        ports: &Ports,
        threads: &mut Threads,
        news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    ) -> Result<Self> {
        let fetches = Arc::<Fetches>::default();
        let mut disks = Vec::new();
        for (number, directory) in directories.iter().enumerate() {
            let (directory, options) = (directory.clone(), options.clone());
            let arbiter = threads.start(actix::Arbiter::new);
            let of_fetches = fetches.clone();
            let being_fetched = Arc::new(move || of_fetches.blocks());
            let started = Disk::start(
                directory,
                options,
                ports,
                number,
                &arbiter,
                being_fetched,
                news.clone(),
            );
            disks.push(started.await?);
        }
        let placed = quick_cache::sync::Cache::new(PLACED_MAX);
        let inner = Arc::new(Inner {
            disks,
            placed,
            fetches,
            traffic: Arc::default(),
        });
        Ok(Disks { inner })
    }

    /// Each disk, in the order of the configuration.
    pub fn all(&self) -> &[DiskRef] {
        &self.inner.disks
    }

    /// What is being fetched.
    pub fn fetches(&self) -> &Arc<Fetches> {
        &self.inner.fetches
    }

    /// What is counted of each mount.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.inner.traffic
    }

    pub fn statuses(&self) -> Vec<DiskStatus> {
        self.all().iter().map(|disk| disk.store.status()).collect()
    }

    /// What the disk that has the block says to a read. None if no disk has it.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub fn grant(&self, call: &ReadBlock) -> Result<Option<(&DiskRef, Grant)>> {
        for disk in self.all() {
            match disk.store.grant(call)? {
                Grant::Missing => {}
                grant => return Ok(Some((disk, grant))),
            }
        }
        Ok(None)
    }

    /// Where this generation of a block is whole, if it is.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn sealed(&self, block: BlockId, generation: u32) -> Result<Option<&Arc<Store>>> {
        for disk in self.all() {
            if disk.store.sealed_generation(block)? == Some(generation) {
                return Ok(Some(&disk.store));
            }
        }
        Ok(None)
    }

    /// The disk that knows a block, in whatever state.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn holder(&self, block: BlockId) -> Result<Option<&DiskRef>> {
        for disk in self.all() {
            if disk.store.holds(block)? {
                return Ok(Some(disk));
            }
        }
        Ok(None)
    }

    /// The disk for writing a block: its holder, else one with room. Calls for a block that is placed and not committed
    /// yet get the same.
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`, `Io`.
    pub fn for_written(&self, block: BlockId, need_bytes: u64, hint_bytes: u64) -> Result<&DiskRef> {
        if let [only] = self.all() {
            return Ok(only);
        }
        if let Some(disk) = self.holder(block)? {
            return Ok(disk);
        }
        let number = self.inner.placed.get_or_insert_with(&block, || {
            choose_disk(&self.statuses(), need_bytes, hint_bytes).ok_or_else(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    format!(
                        "no disk of this worker has {need_bytes} bytes left for block {block}; free cached data with \
                         `cv free` or add a data directory"
                    ),
                )
            })
        })?;
        Ok(&self.all()[number])
    }

    /// The disk for a block that is fetched from an under file system: its holder, else one with room.
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`, `Io`.
    pub fn for_fetched(&self, block: BlockId, len_bytes: u64) -> Result<&DiskRef> {
        if let Some(disk) = self.holder(block)? {
            return Ok(disk);
        }
        match choose_disk(&self.statuses(), len_bytes, len_bytes) {
            Some(number) => Ok(&self.all()[number]),
            None => Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "no disk of this worker has {len_bytes} bytes left to cache block {block}; free some with `cv free`"
                ),
            )),
        }
    }

    /// Keeps a block for a while, whether it is here or about to be fetched: somebody is about to write a part of it.
    pub async fn spare(&self, block: BlockId) {
        for disk in self.all() {
            disk.store.spare(block).await;
        }
    }

    /// A job still loads blocks here.
    pub fn load_goes_on(&self, job: JobId) {
        for disk in self.all() {
            disk.store.load_goes_on(job);
        }
    }

    /// Has every disk keep writers of lower generations away from blocks; those that are nowhere need it not.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub async fn fence(&self, blocks: &[BlockId], generation: u32) -> Result<()> {
        for disk in self.all() {
            disk.store.fence(blocks, generation).await?;
        }
        Ok(())
    }

    /// What is here of blocks that others may have too, in their order.
    ///
    /// # Errors
    /// `Io`.
    pub async fn compare(&self, blocks: &[BlockExtent]) -> Result<Vec<Option<ReplicaSum>>> {
        let mut replicas = Vec::with_capacity(blocks.len());
        for extent in blocks {
            replicas.push(match self.holder(extent.block)? {
                Some(disk) => disk.compare(*extent).await?,
                None => None,
            });
        }
        Ok(replicas)
    }

    /// Has these replicas be what the blocks are.
    ///
    /// # Errors
    /// Those of [`curvine_protocol::worker::KeepReplicas`]; some may have been done.
    pub async fn keep(&self, blocks: &[BlockExtent], generation: u32) -> Result<()> {
        for extent in blocks {
            let disk = self.holder(extent.block)?.ok_or_else(|| missing(extent.block))?;
            disk.keep(*extent, generation).await?;
        }
        Ok(())
    }

    /// Has doubtful blocks count, those that are here.
    ///
    /// # Errors
    /// `Io`.
    pub async fn accept(&self, blocks: &[BlockId]) -> Result<()> {
        for &block in blocks {
            if let Some(disk) = self.holder(block)? {
                disk.accept(block).await?;
            }
        }
        Ok(())
    }

    /// Has blocks be kept or cached, all at once. Whether each is, in their order.
    ///
    /// # Errors
    /// `Io`; some may be marked.
    pub async fn mark(&self, call: &MarkBlocks) -> Result<Vec<bool>> {
        let marking = call.blocks.iter().map(|marked| async move {
            match self.holder(marked.block)? {
                Some(disk) => disk.mark(*marked, call.cached, call.number).await,
                None => Ok(false),
            }
        });
        try_join_all(marking).await
    }

    /// Has blocks be pinned or not, all at once. Whether each is as ordered, in their order.
    ///
    /// # Errors
    /// `Io`; some may be pinned.
    pub async fn pin(&self, call: &PinBlocks) -> Result<Vec<bool>> {
        let pinning = call.blocks.iter().map(|block| async move {
            match self.holder(*block)? {
                Some(disk) => disk.pin(*block, call.pinned, call.number).await,
                None => Ok(false),
            }
        });
        try_join_all(pinning).await
    }

    /// A page of the blocks of one data directory.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none of this number; `Io`.
    pub async fn list(&self, call: &ListBlocks) -> Result<BlocksListed> {
        let number = to_usize(call.disk.into());
        let disk = self.all().get(number).ok_or_else(|| {
            Error::invalid(format!(
                "there is no data directory {number}: this worker has {}",
                self.all().len()
            ))
        })?;
        let listed = ListReplicas {
            after: call.after,
            limit: to_usize(call.limit.into()).min(LISTED_MAX),
        };
        let (listed, last) = disk
            .actor
            .send(listed)
            .await
            .unwrap_or_else(|_| Err(stopping()))?;
        let held = listed.into_iter().map(|(replica, flags)| HeldBlock {
            replica,
            cached: flags.from_ufs,
        });
        Ok(BlocksListed {
            held: held.collect(),
            last,
        })
    }

    /// What is known of blocks, in their order.
    ///
    /// # Errors
    /// `InvalidArgument` if they are too many; `Io`, `Stopping`.
    pub async fn account_for(&self, blocks: Vec<BlockId>) -> Result<Vec<BlockAccount>> {
        if blocks.len() > EXPLAINED_MAX {
            return Err(Error::invalid(format!(
                "{} blocks are too many to ask for: ask for up to {EXPLAINED_MAX} at a time",
                blocks.len()
            )));
        }
        let mut accounts = vec![BlockAccount::default(); blocks.len()];
        for disk in self.all() {
            let asked = disk.actor.send(AccountFor(blocks.clone())).await;
            let of_disk = asked.unwrap_or_else(|_| Err(stopping()))?;
            for (account, found) in accounts.iter_mut().zip(of_disk) {
                let is_later = |gone: &Departure| {
                    let known = account.gone.as_ref();
                    known.is_none_or(|known| known.at_ms < gone.at_ms)
                };
                if found.held.is_some() {
                    *account = found;
                } else if account.held.is_none() && found.gone.as_ref().is_some_and(is_later) {
                    account.gone = found.gone;
                }
            }
        }
        Ok(accounts)
    }

    /// How far the scrubbers are; first, where a rate is given, they begin anew.
    ///
    /// # Errors
    /// `Stopping`.
    pub async fn scrub(&self, bytes_per_s: Option<u64>) -> Result<Vec<DiskScrub>> {
        let mut disks = Vec::new();
        for disk in self.all() {
            let asked = disk.actor.send(ScrubNow(bytes_per_s)).await;
            disks.push(asked.unwrap_or_else(|_| Err(stopping()))?);
        }
        Ok(disks)
    }

    /// Removes blocks from whichever disk has them.
    ///
    /// # Errors
    /// `Io`, `Stopping`; the others are removed all the same.
    pub async fn remove(&self, blocks: Vec<Removal>) -> Result<()> {
        self.fetches().end(blocks.iter().map(|removal| removal.block));
        let mut outcome = Ok(());
        for disk in self.all() {
            let removed = disk.actor.send(RemoveBlocks(blocks.clone())).await;
            let removed =
                removed.unwrap_or_else(|_| Err(Error::new(ErrorKind::Stopping, "the disk has stopped")));
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Has every disk finish what it has, sync and note a stop in order.
    pub async fn stop(&self) {
        for disk in self.all() {
            match disk.actor.send(StopDisk).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("stopping disk {}: {error}", disk.store.name()),
                Err(_) => {}
            }
        }
    }
}

/// Whoever should answer has stopped.
pub fn stopping() -> Error {
    Error::new(ErrorKind::Stopping, "the worker is stopping")
}
