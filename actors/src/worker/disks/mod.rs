//! The disks of a worker together: which one has a block, which one gets a new one.
//!
//! What concerns more than one data directory belongs here; what concerns one is in [`super::disk`], which knows of no
//! other. Choices are pure, in files of their own: [`placement`] says where a block goes, [`heat`] which are hot. How one
//! goes from a disk to another is in [`moves`]; the [`mover`] has it done in the background. What the cached blocks of a mount
//! may take is in [`quotas`].
//!
//! Owns the memory of where new blocks were placed, of what is being fetched ([`fetches`]), and of who is about to change
//! which block ([`gate`]).
//!
//! Invariants:
//! - A block is on one disk, and may have a copy on a faster one. It is written where it is, whatever has more room now;
//!   between the choice of a disk and the commit of its record, the memory of placements says where that is.
//! - What is kept is not in memory, but for copies.
//! - An order to remove a block goes to all disks, and ends what is being fetched of it.

pub mod fetches;
mod gate;
mod heat;
mod mover;
mod moves;
mod placement;
mod quotas;
mod rescue;

use std::path::PathBuf;
use std::sync::Arc;

use curvine_conf::DataDir;
use curvine_protocol::cluster::{DiskStatus, Tier};
use curvine_protocol::master::{HeldBlock, HotBlock};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    BlockAccount, BlockExtent, BlocksListed, Departure, DiskScrub, EXPLAINED_MAX, HeldAccount, ListBlocks,
    MarkBlocks, PinBlocks, ReadBlock, ReplicaSum,
};
use curvine_protocol::{BlockId, BlockRef, Error, ErrorKind, JobId, Result};
use futures::future::try_join_all;
use tokio::sync::Mutex;

use self::fetches::Fetches;
pub use self::gate::{Entered, Gate, Moving};
use self::heat::Heat;
pub use self::mover::{Mover, StopMover};
use self::moves::Place;
use self::placement::{Wanted, choose_disk, may_be_kept_in};
use self::quotas::CacheShares;
use self::rescue::Rescue;
use super::Threads;
use super::disk::{
    AccountFor, BlockNews, Disk, DiskOptions, DiskRef, Grant, LentFile, ListReplicas, Removal, RemoveBlocks,
    ScrubNow, StopDisk, Store, missing,
};
use super::traffic::Traffic;
use crate::kit::{Answer, Clock, Ports};

/// New blocks whose disk was chosen and whose index record may not be committed yet.
const PLACED_MAX: usize = 16_384;

/// Hot blocks of which the masters are told, and how hot those are at least.
const TOLD_HOT: usize = 256;
const TOLD_PASSES: u32 = 2;
/// Blocks in one page of a list.
const LISTED_MAX: usize = 1_000;

/// All disks of a worker. Cheap to clone.
#[derive(Clone)]
pub struct Disks {
    inner: Arc<Inner>,
}

struct Inner {
    disks: Vec<DiskRef>,
    /// Those of the configuration that could not be opened.
    failed: Vec<DiskStatus>,
    placed: quick_cache::sync::Cache<BlockId, usize>,
    fetches: Arc<Fetches>,
    traffic: Arc<Traffic>,
    shares: CacheShares,
    gate: Arc<Gate>,
    /// Held while a block is handed over, and while nothing may be.
    moves: Mutex<()>,
    rescue: Arc<Rescue>,
    has_tiers: bool,
    heat: std::sync::Mutex<Heat>,
    clock: Arc<dyn Clock>,
}

/// Data directories that are of no use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MayFail {
    pub failed: Vec<DiskStatus>,
    /// Others may turn out to be as they are opened.
    pub may_more: bool,
}

/// Whether it is the device that is to blame, not the configuration.
pub fn is_of_disk(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::ReadOnly
    )
}

/// What is said of a data directory that cannot be used. The worker goes on without it.
pub fn has_failed(directory: &DataDir, error: &Error) -> DiskStatus {
    let path = directory.path.display().to_string();
    tracing::error!("disk {path} has failed and is left out until the worker is started again: {error}");
    DiskStatus {
        tier: directory.tier,
        path,
        capacity_bytes: 0,
        used_bytes: 0,
        available_bytes: 0,
        blocks: 0,
        failure: Some(error.message.clone()),
        cached_bytes: 0,
        pinned_bytes: 0,
    }
}

fn no_disk(failed: &[DiskStatus]) -> String {
    let of_disk =
        |disk: &DiskStatus| format!("{}: {}", disk.path, disk.failure.as_deref().unwrap_or_default());
    let each: Vec<_> = failed.iter().map(of_disk).collect();
    format!("no data directory can be used: {}", each.join("; "))
}

impl Disks {
    /// Opens each directory and starts its actor on an arbiter of its own, unless the threads are given. Also says what is
    /// in memory and should not be, by disk. `failed` are directories that are known not to be of use; where there may be such,
    /// those join them that cannot be opened.
    ///
    /// # Errors
    /// Those of the file system, naming the directory.
    pub async fn start(
        directories: &[DataDir],
        failed: MayFail,
        options: &DiskOptions,
        ports: &Ports,
        threads: &mut Threads,
        news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    ) -> Result<(Self, Vec<BlockId>)> {
        let MayFail { mut failed, may_more } = failed;
        let fetches = Arc::<Fetches>::default();
        let rescue = Arc::<Rescue>::default();
        let (mut disks, mut unsettled) = (Vec::new(), Vec::new());
        let slowest = directories.iter().map(|directory| directory.tier).max();
        for directory in directories {
            let number = disks.len();
            let options = DiskOptions {
                sinks: Some(directory.tier) < slowest,
                ..options.clone()
            };
            let arbiter = threads.start(actix::Arbiter::new);
            let of_fetches = fetches.clone();
            let being_fetched = Arc::new(move || of_fetches.blocks());
            let (rescue, news) = (rescue.clone(), news.clone());
            let told = move |change| {
                if !rescue.takes(number, change) {
                    news(change);
                }
            };
            let started = Disk::start(
                directory.clone(),
                options,
                ports,
                number,
                &arbiter,
                being_fetched,
                Arc::new(told),
            );
            match started.await {
                Ok((disk, of_disk)) => {
                    disks.push(disk);
                    unsettled.push(of_disk);
                }
                Err(error) if may_more && is_of_disk(&error) => failed.push(has_failed(directory, &error)),
                Err(error) => return Err(error),
            }
        }
        if disks.is_empty() {
            return Err(Error::new(ErrorKind::Io, no_disk(&failed)));
        }
        let placed = quick_cache::sync::Cache::new(PLACED_MAX);
        let has_tiers = directories
            .iter()
            .any(|directory| Some(directory.tier) != slowest);
        let inner = Arc::new(Inner {
            disks,
            failed,
            placed,
            fetches,
            traffic: Arc::default(),
            shares: CacheShares::default(),
            gate: Arc::default(),
            moves: Mutex::default(),
            rescue: rescue.clone(),
            has_tiers,
            heat: Default::default(),
            clock: ports.clock.clone(),
        });
        let disks = Disks { inner };
        let _ = rescue.disks.set(Arc::downgrade(&disks.inner));
        if disks.all().len() > 1 {
            disks.settle_doubles().await?;
        }
        disks.settle(&mut unsettled).await?;
        let kept = unsettled.into_iter().flat_map(|of_disk| of_disk.kept);
        Ok((disks, kept.collect()))
    }

    /// Each disk, in the order of the configuration.
    pub fn all(&self) -> &[DiskRef] {
        &self.inner.disks
    }

    /// Where to keep what the worker must know again when it starts: the directories that outlive a power cut, if there are
    /// any.
    pub fn homes(&self) -> Vec<PathBuf> {
        let paths = |lasting: bool| {
            let disks = self
                .all()
                .iter()
                .filter(move |disk| !lasting || disk.store.tier().lasts());
            disks
                .map(|disk| disk.store.path_of_directory().to_owned())
                .collect()
        };
        let lasting: Vec<_> = paths(true);
        if lasting.is_empty() { paths(false) } else { lasting }
    }

    /// What is being fetched.
    pub fn fetches(&self) -> &Arc<Fetches> {
        &self.inner.fetches
    }

    /// What is counted of each mount.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.inner.traffic
    }

    /// Of each disk, and of those that could not be opened.
    pub fn statuses(&self) -> Vec<DiskStatus> {
        let of_disks = self.all().iter().map(|disk| disk.store.status());
        of_disks.chain(self.inner.failed.iter().cloned()).collect()
    }

    /// [`Self::statuses`], where what was promised to somebody and is not taken yet is not available.
    fn unpromised(&self) -> Vec<DiskStatus> {
        let of_disk = |disk: &DiskRef| {
            let status = disk.store.status();
            DiskStatus {
                available_bytes: status.available_bytes.saturating_sub(disk.store.claimed_bytes()),
                ..status
            }
        };
        self.all().iter().map(of_disk).collect()
    }

    /// What the disk that has the block says to a read, the fastest if several have. None if no disk has it.
    ///
    /// # Errors
    /// Those of [`Store::grant`].
    pub fn grant(&self, call: &ReadBlock) -> Result<Option<(&DiskRef, Grant)>> {
        loop {
            let before = self.inner.gate.handed_over();
            let mut refused = None;
            for disk in self.by_speed() {
                match disk.store.grant(call) {
                    Ok(Grant::Missing) => {}
                    Ok(grant) => {
                        self.is_read(call);
                        return Ok(Some((disk, grant)));
                    }
                    Err(error) => drop(refused.get_or_insert(error)),
                }
            }
            match refused {
                Some(error) => return Err(error),
                None if self.inner.gate.handed_over() == before => return Ok(None),
                // It was on its way from one to another.
                None => {}
            }
        }
    }

    /// Reads what is right of a block that is on no disk any more, because some of it is wrong; see [`Store::read_aside`].
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub async fn read_aside(&self, call: &ReadBlock) -> Result<Answer<ReadBlock>> {
        let mut failure = missing(call.block);
        for disk in self.all() {
            let look = call.clone();
            match disk
                .on_lane(call.block, move |store| store.read_aside(&look))
                .await
            {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Lends the file of a block that is whole and of this generation, from the fastest disk that has it.
    ///
    /// # Errors
    /// As [`curvine_protocol::worker::HostReply`].
    pub async fn lend(&self, block: BlockId, generation: u32) -> Result<LentFile> {
        let mut refused = missing(block);
        for disk in self.by_speed() {
            if !disk.store.holds(block)? {
                continue;
            }
            match disk.lend(block, generation).await {
                Ok(lent) => {
                    self.read_of(block, 0, lent.block.len_bytes);
                    return Ok(lent);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn by_speed(&self) -> impl Iterator<Item = &DiskRef> {
        let of_tier = |tier: Tier| self.all().iter().filter(move |disk| disk.store.tier() == tier);
        Tier::ALL.into_iter().flat_map(of_tier)
    }

    /// Rather forgotten than waited for.
    fn is_read(&self, call: &ReadBlock) {
        self.read_of(call.block, call.offset_bytes, call.len_bytes.into());
    }

    fn read_of(&self, block: BlockId, offset_bytes: u64, len_bytes: u64) {
        if let Ok(mut heat) = self.inner.heat.try_lock() {
            heat.read(block, offset_bytes, len_bytes, self.inner.clock.now());
        }
    }

    /// Blocks that are in memory alone since the last call: theirs elsewhere had rotted.
    fn rescued(&self) -> Vec<BlockId> {
        self.inner.rescue.taken()
    }

    /// How hot a block is, in passes of readers; see [`heat`].
    fn heat_of(&self, block: BlockId) -> f64 {
        let now = self.inner.clock.now();
        lock(&self.inner.heat).of(block, now)
    }

    /// Whether blocks may move from one tier to another.
    fn has_tiers(&self) -> bool {
        self.inner.has_tiers
    }

    /// The hottest blocks, and how hot each is.
    fn hottest(&self, limit: usize) -> Vec<(BlockId, f64)> {
        let now = self.inner.clock.now();
        let mut hottest = lock(&self.inner.heat).hottest(now);
        hottest.truncate(limit);
        hottest
    }

    /// What the masters are told of how hot blocks are.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates, and there are no fewer passes than none"
    )]
    pub fn hot(&self) -> Vec<HotBlock> {
        let told = |(block, passes): (BlockId, f64)| {
            let hot = HotBlock {
                block,
                passes: passes as u32,
            };
            (hot.passes >= TOLD_PASSES).then_some(hot)
        };
        self.hottest(TOLD_HOT).into_iter().map_while(told).collect()
    }

    /// How often blocks were handed over. Whoever was told that a block is not where it was found looks again if this has
    /// changed since.
    pub fn handed_over(&self) -> u64 {
        self.inner.gate.handed_over()
    }

    /// Has every block stay on its disk until this is dropped.
    pub async fn still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.moves.lock().await
    }

    /// Has a block stay on its disk until this is dropped.
    pub async fn enter(&self, block: BlockId) -> Entered {
        match self.all().len() {
            1 => Entered::freely(),
            _ => self.inner.gate.enter(block).await,
        }
    }

    async fn enter_all(&self, blocks: Vec<BlockId>) -> Vec<Entered> {
        let mut entered = Vec::new();
        for block in blocks {
            entered.push(self.enter(block).await);
        }
        entered
    }

    /// Where this generation of a block is whole, if it is.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn sealed(&self, block: BlockId, generation: u32) -> Result<Option<&Arc<Store>>> {
        for disk in self.all() {
            // What is cached and endangered is as good as not there.
            let is_there = !disk.store.has_vanished() && disk.store.is_guest(block)?.is_some();
            if is_there && disk.store.sealed_generation(block)? == Some(generation) {
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
        Ok(self.place(block)?.map(|place| &self.all()[place.home]))
    }

    /// The disk for writing a block, if it can be said at once: where [`Self::enter_to_change`] has nothing to do.
    ///
    /// # Errors
    /// Those of [`Self::for_written`].
    pub fn try_for_written(&self, block: BlockId, need: Need) -> Result<Option<(Entered, &DiskRef)>> {
        if let [only] = self.all()
            && may_be_kept_in(only.store.tier())
        {
            return Ok(Some((Entered::freely(), only)));
        }
        let Some(entered) = self.inner.gate.try_enter(block) else {
            return Ok(None);
        };
        let place = self.place(block)?;
        if let Some(place) = place
            && self.lacks_room(place.home, block, need)?
        {
            return Ok(None);
        }
        let is_ready = place
            .is_none_or(|place| place.guest.is_none() && may_be_kept_in(self.all()[place.home].store.tier()));
        match is_ready {
            true => Ok(Some((entered, self.for_kept(block, place, need)?))),
            false => Ok(None),
        }
    }

    /// The disk for writing a block: its holder, unless that is memory, else one with room. Calls for a block that is
    /// placed and not committed yet get the same. It stays there until what comes with it is dropped.
    ///
    /// # Errors
    /// `NoSpace`, `Busy`, `Corrupt`, `Io`.
    pub async fn for_written(&self, block: BlockId, need: Need) -> Result<(Entered, &DiskRef)> {
        let mut entered = self.enter_to_change(block, true).await?;
        let mut place = self.place(block)?;
        if let Some(full) = place
            && self.lacks_room(full.home, block, need)?
        {
            // It goes on where there is room, if there is; else the disk says what it lacks.
            drop(entered);
            self.outgrows(block, full.home, need).await;
            entered = self.enter_to_change(block, true).await?;
            place = self.place(block)?;
        }
        Ok((entered, self.for_kept(block, place, need)?))
    }

    /// As [`Self::for_written`], for a replica from elsewhere: another disk if what is here of the block is endangered.
    ///
    /// # Errors
    /// Those of [`Self::for_written`].
    pub async fn for_replica(&self, block: BlockId, need: Need) -> Result<(Entered, &DiskRef)> {
        let is_endangered = |place: &Place| self.is_endangered(place.home, block);
        let Some(endangered) = self.place(block)?.filter(is_endangered) else {
            return self.for_written(block, need).await;
        };
        let entered = self.enter(block).await;
        let mut statuses = self.unpromised();
        statuses[endangered.home].available_bytes = 0;
        statuses[endangered.home].cached_bytes = 0;
        match choose_disk(&statuses, Wanted::kept(need.tier), need.bytes, need.hint_bytes) {
            Some(number) => Ok((entered, &self.all()[number])),
            None => Err(self.no_room_for_kept(block, need.bytes)),
        }
    }

    fn is_endangered(&self, disk: usize, block: BlockId) -> bool {
        self.all()[disk].store.is_endangered(block)
    }

    /// Whether what is on a disk of a block is what the worker has of it.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn is_home(&self, disk: &DiskRef, block: BlockId) -> Result<bool> {
        let home = self.holder(block)?;
        Ok(home.is_some_and(|home| Arc::ptr_eq(&home.store, &disk.store)))
    }

    /// Whether a disk has too little room for a block to grow, also if all that is cached goes.
    fn lacks_room(&self, disk: usize, block: BlockId, need: Need) -> Result<bool> {
        let store = &self.all()[disk].store;
        if self.all().len() == 1 || store.has_room(need.bytes) {
            return Ok(false);
        }
        let len_bytes = store.brief(block)?.map_or(0, |brief| brief.len_bytes);
        let growth_bytes = need.until_bytes.saturating_sub(len_bytes).min(need.bytes);
        Ok(growth_bytes > store.status().room_bytes())
    }

    fn for_kept(&self, block: BlockId, place: Option<Place>, need: Need) -> Result<&DiskRef> {
        if let Some(place) = place {
            return Ok(&self.all()[place.home]);
        }
        let choose = || {
            let wanted = Wanted::kept(need.tier);
            choose_disk(&self.unpromised(), wanted, need.bytes, need.hint_bytes)
                .ok_or_else(|| self.no_room_for_kept(block, need.bytes))
        };
        let mut number = self.inner.placed.get_or_insert_with(&block, choose)?;
        if self.all()[number].store.has_failed() {
            // Since it was chosen.
            number = choose()?;
            self.inner.placed.insert(block, number);
        }
        Ok(&self.all()[number])
    }

    /// The disk for a block that is fetched from an under file system: its holder, else one with room.
    ///
    /// # Errors
    /// `NoSpace`, `Corrupt`, `Io`.
    pub fn for_fetched(&self, block: BlockId, len_bytes: u64, tier: Option<Tier>) -> Result<&DiskRef> {
        if let Some(disk) = self.holder(block)? {
            return Ok(disk);
        }
        match choose_disk(&self.unpromised(), Wanted::cached(tier), len_bytes, len_bytes) {
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
        let _entered = self.enter_all(blocks.to_vec()).await;
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
            let _entered = self.enter_to_change(extent.block, false).await?;
            replicas.push(match self.holder(extent.block)? {
                Some(disk) => disk.compare(*extent).await?,
                None => None,
            });
        }
        Ok(replicas)
    }

    /// What is here of a block that is whole and kept, in its generation or a newer one; whether its bytes are right,
    /// [`Self::is_right`] says.
    ///
    /// # Errors
    /// `Io`.
    pub async fn confirm(&self, block: &BlockRef) -> Result<Option<ReplicaSum>> {
        let _entered = self.enter(block.id).await;
        match self.holder(block.id)? {
            Some(disk) => disk.confirm(*block).await,
            None => Ok(None),
        }
    }

    /// Has these replicas be what the blocks are.
    ///
    /// # Errors
    /// Those of [`curvine_protocol::worker::KeepReplicas`]; some may have been done.
    pub async fn keep(&self, blocks: &[BlockExtent], generation: u32) -> Result<()> {
        for extent in blocks {
            let _entered = self.enter_to_change(extent.block, true).await?;
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
            let _entered = self.enter(block).await;
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
            let _entered = self.enter_to_change(marked.block, !call.cached).await?;
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
            let _entered = self.enter(*block).await;
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
        if (self.all().len()..self.statuses().len()).contains(&number) {
            // It could not be opened: nothing is known of what is there.
            return Ok(BlocksListed::default());
        }
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
        let mut copies = vec![None; blocks.len()];
        for disk in self.all() {
            let asked = disk.actor.send(AccountFor(blocks.clone())).await;
            let of_disk = asked.unwrap_or_else(|_| Err(stopping()))?;
            for ((account, copy), found) in accounts.iter_mut().zip(&mut copies).zip(of_disk) {
                let is_later = |gone: &Departure| {
                    let known = account.gone.as_ref();
                    known.is_none_or(|known| known.at_ms < gone.at_ms)
                };
                if found.held.as_ref().is_some_and(|held| held.copy.is_some()) {
                    *copy = found.held;
                } else if found.held.is_some() {
                    *account = found;
                } else if account.held.is_none() && found.gone.as_ref().is_some_and(is_later) {
                    account.gone = found.gone;
                }
            }
        }
        for (account, copy) in accounts.iter_mut().zip(copies) {
            match (&mut account.held, copy) {
                (Some(held), Some(copy)) => {
                    held.copy = copy.copy;
                    held.read_ms = held.read_ms.max(copy.read_ms);
                }
                // It has just been handed over.
                (None, Some(alone)) => account.held = Some(HeldAccount { copy: None, ..alone }),
                (_, None) => {}
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
        let entered: Vec<_> = blocks.iter().map(|removal| removal.block).collect();
        let _entered = self.enter_all(entered).await;
        let mut outcome = Ok(());
        // Copies go before what they are copies of.
        for disk in self.by_speed() {
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

fn lock(heat: &std::sync::Mutex<Heat>) -> std::sync::MutexGuard<'_, Heat> {
    heat.lock().expect("nobody panics while it holds this")
}

/// What a block that is written needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Now.
    pub bytes: u64,
    /// What it may come to.
    pub hint_bytes: u64,
    /// How long the block is at least when it is written.
    pub until_bytes: u64,
    pub tier: Option<Tier>,
}

/// Whoever should answer has stopped.
pub fn stopping() -> Error {
    Error::new(ErrorKind::Stopping, "the worker is stopping")
}
