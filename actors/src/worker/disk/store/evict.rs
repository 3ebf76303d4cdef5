//! Room for what is new, by letting cached blocks go.
//!
//! [`Cached`](super::super::cached::Cached) says which; here they are taken out. A block is chosen on whatever thread needs
//! room, and goes on its own lane, where its record is looked at again: whoever wrote it meanwhile has made it kept, and
//! whoever fetches it or has it open for writing keeps it. No lane waits for another: who needs room waits before its change
//! comes to the lane ([`Store::make_room`]).
//!
//! Invariants:
//! - What a load job has brought does not go for the sake of the same job's next block, nor to come under the watermark while
//!   the job goes on.
//! - Only a block goes whose record says that an under file system has its bytes, or another disk of the worker; and not if
//!   it says that it is pinned.
//! - The file of a block that went stays for whoever was granted a part of it, until the grant is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::cluster::Tier;
use curvine_protocol::worker::Gone;
use curvine_protocol::{BlockId, JobId, MountId, Result};
use tokio::sync::oneshot;

use super::super::cached::For;
use super::super::open_block::OpenBlock;
use super::super::record::{BlockFlags, BlockRecord};
use super::super::space::on_device;
use super::{Store, lock};
use crate::kit::metrics;
use crate::planted::{Bug, is_planted};

/// How often blocks are chosen for one that needs room: some that were chosen stay after all.
const TRIES_MAX: usize = 16;
/// For so long at a time whoever cannot do without room waits for blocks that are in use: what was just fetched may have
/// been told of a moment before it is let go of.
const IN_USE_WAIT: Duration = Duration::from_millis(20);

/// Room that somebody has been given and has not taken yet. What others take meanwhile is not this.
pub struct Room {
    store: Arc<Store>,
    block: BlockId,
    bytes: u64,
}

impl Room {
    fn claim(store: &Arc<Store>, block: BlockId, bytes: u64) -> Self {
        store.space().claim(block, bytes);
        Room {
            store: store.clone(),
            block,
            bytes,
        }
    }

    /// Whether there is as much as was asked for, unless somebody else takes it first.
    pub fn is_there(&self) -> bool {
        self.store.space().available_bytes() >= self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.space().unclaim(self.block, self.bytes);
    }
}

/// A block that was chosen to leave its disk, for whoever moves it to another one or lets go of it. It counts as on its way
/// until this is dropped.
pub struct Leaving {
    store: Arc<Store>,
    pub block: BlockId,
    pub bytes: u64,
}

impl Leaving {
    /// It goes as for the watermark.
    pub async fn let_go(self) {
        let block = self.block;
        let store = self.store.clone();
        let let_go = move |store: &Arc<Store>| {
            store.evict_and_say(block, self.bytes, For::Watermark);
        };
        store.in_turn(block, let_go).await;
    }

    /// It stays after all, if it is still here.
    pub async fn stays(self) {
        let block = self.block;
        let stays = move |store: &Arc<Store>| {
            if let Ok(Some(record)) = store.record(block)
                && counts_as_cached(record.flags, store.tier())
            {
                let taken_bytes = taken_by(record.flags, record.len_bytes);
                lock(&store.cached).stays(block, taken_bytes, record.counts_for());
            }
        };
        self.store.in_turn(block, stays).await;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.store.sinking_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Blocks that were chosen to go, each with what comes free.
struct Chosen {
    blocks: Vec<(BlockId, u64)>,
    /// What was on its way out before them.
    leaving_bytes: u64,
    /// More would have gone, and is in use.
    is_too_little: bool,
}

impl Store {
    /// Whether there is room for so many more bytes, besides what was promised to others.
    pub fn has_room(&self, bytes: u64) -> bool {
        let space = self.space();
        space.available_bytes() >= space.claimed_bytes().saturating_add(bytes)
    }

    /// So many more bytes of a block, where there is room for `if_bytes` besides what was promised to others. They are the
    /// caller's until it drops what it gets: of several that come at once, each counts for the next.
    pub fn room_if_there(self: &Arc<Self>, block: BlockId, bytes: u64, if_bytes: u64) -> Option<Room> {
        let mut space = self.space();
        if space.available_bytes() < space.claimed_bytes().saturating_add(if_bytes) {
            return None;
        }
        space.claim(block, bytes);
        Some(Room {
            store: self.clone(),
            block,
            bytes,
        })
    }

    /// Makes room for so many more bytes of a block, as far as cached blocks can. It is the caller's until it drops what it
    /// gets.
    pub async fn make_room(self: &Arc<Self>, block: BlockId, bytes: u64) -> Room {
        self.room(block, bytes, For::Anybody, true).await
    }

    /// The same for a block that is fetched. What the load job that brings it has brought before stays; a reader, who can
    /// do without, does not wait for what is in use.
    pub async fn make_room_for(self: &Arc<Self>, block: BlockId, bytes: u64, job: Option<JobId>) -> Room {
        let whom = job.map_or(For::Anybody, For::Load);
        self.room(block, bytes, whom, job.is_some()).await
    }

    async fn room(self: &Arc<Self>, block: BlockId, bytes: u64, whom: For, waits: bool) -> Room {
        let room = Room::claim(self, block, bytes);
        for _ in 0..TRIES_MAX {
            let lacking_bytes = self.lacking_bytes();
            if lacking_bytes == 0 {
                break;
            }
            let mine_bytes = bytes.saturating_sub(self.space().available_bytes());
            // What does not fit anyway has nothing go.
            let chosen = self.choose(whom, |may_go_bytes, leaving_bytes| {
                let at_most_bytes = may_go_bytes + leaving_bytes;
                [lacking_bytes, mine_bytes]
                    .into_iter()
                    .find(|wanted| *wanted <= at_most_bytes)
            });
            if chosen.blocks.is_empty() && chosen.leaving_bytes == 0 {
                let may_come = chosen.is_too_little || self.sinking_bytes.load(Ordering::Acquire) > 0;
                if !(may_come && waits) {
                    break;
                }
                tokio::time::sleep(IN_USE_WAIT).await;
                continue;
            }
            self.let_go(chosen.blocks, whom);
            self.wait_for_lanes().await;
            if self.lacking_bytes() > 0 {
                // The device may have more room than was measured before these went.
                let (done, measured) = oneshot::channel();
                self.on_any_lane(0, |store| {
                    let _ = done.send(store.measure());
                });
                let _ = measured.await;
            }
        }
        room
    }

    /// What was promised to somebody, and is not taken yet.
    pub fn claimed_bytes(&self) -> u64 {
        self.space().claimed_bytes()
    }

    /// How much of what was promised there is no room for.
    fn lacking_bytes(&self) -> u64 {
        let space = self.space();
        space.claimed_bytes().saturating_sub(space.available_bytes())
    }

    /// Has cached blocks go if the disk is fuller than it should be. Does not wait for that. Of a disk from which blocks go
    /// to slower ones, the Mover takes care.
    pub fn evict_to_watermark(self: &Arc<Self>) {
        let wanted_bytes = self.above_watermark_bytes();
        if wanted_bytes > 0 && !self.sinks {
            let chosen = self.choose(For::Watermark, |may_go_bytes, leaving_bytes| {
                Some(wanted_bytes.min(may_go_bytes + leaving_bytes))
            });
            self.let_go(chosen.blocks, For::Watermark);
        }
    }

    /// What is to come free for the disk to be at its low watermark, if it is above the high one; else 0.
    pub fn above_watermark_bytes(&self) -> u64 {
        let (_, low) = self.watermarks;
        match self.room_below_high() {
            Ok(_) => 0,
            Err(available_bytes) => self.free_at(low).saturating_sub(available_bytes),
        }
    }

    /// What may come before the disk is at its high watermark; or, if it is above, what is available.
    pub fn room_below_high(&self) -> std::result::Result<u64, u64> {
        let (available_bytes, claimed_bytes) = {
            let space = self.space();
            (space.available_bytes(), space.claimed_bytes())
        };
        let below_bytes = available_bytes.checked_sub(self.free_at(self.watermarks.0));
        let below_bytes = below_bytes.ok_or(available_bytes)?;
        Ok(below_bytes.saturating_sub(claimed_bytes))
    }

    fn free_at(&self, percent: u64) -> u64 {
        self.space().capacity_bytes() / 100 * 100u64.saturating_sub(percent)
    }

    /// Chooses blocks to leave the disk so that so many bytes come free, or as many as can, of those that `may_leave`.
    pub fn choose_to_leave(
        self: &Arc<Self>,
        bytes: u64,
        may_leave: impl Fn(BlockId) -> bool,
    ) -> Vec<Leaving> {
        let wanted = |may_go_bytes, leaving_bytes| Some(bytes.min(may_go_bytes + leaving_bytes));
        let chosen = self.choose_of(For::Watermark, wanted, may_leave);
        let chosen_bytes = chosen.blocks.iter().map(|(_, bytes)| bytes).sum();
        // They make no room for anybody before they have left.
        self.sinking_bytes.fetch_add(chosen_bytes, Ordering::AcqRel);
        self.leaving_bytes.fetch_sub(chosen_bytes, Ordering::AcqRel);
        let leaving = chosen.blocks.into_iter().map(|(block, bytes)| Leaving {
            store: self.clone(),
            block,
            bytes,
        });
        leaving.collect()
    }

    /// Chooses blocks that are to go besides those that are on their way out. `wanted` says how many bytes are to come free
    /// in all, by what may go and what is on its way; nothing if that is not enough. From here on the chosen ones count as
    /// on their way: whoever looks meanwhile finds each block either among those that may go or among these.
    fn choose(&self, whom: For, wanted: impl FnOnce(u64, u64) -> Option<u64>) -> Chosen {
        self.choose_of(whom, wanted, |_| true)
    }

    fn choose_of(
        &self,
        whom: For,
        wanted: impl FnOnce(u64, u64) -> Option<u64>,
        may_go: impl Fn(BlockId) -> bool,
    ) -> Chosen {
        let (now, fetched) = (self.clock.now(), (self.being_fetched)());
        let mut cached = lock(&self.cached);
        let leaving_bytes = self.leaving_bytes.load(Ordering::Acquire);
        let wanted_bytes = wanted(cached.bytes_for(whom, now), leaving_bytes).unwrap_or(0);
        let lacking_bytes = wanted_bytes.saturating_sub(leaving_bytes);
        let blocks = match lacking_bytes {
            0 => Vec::new(),
            bytes => cached.choose(bytes, whom, now, |block| {
                fetched.contains(&block) || self.lent.has(block) || !may_go(block)
            }),
        };
        let bytes: u64 = blocks.iter().map(|(_, bytes)| bytes).sum();
        self.leaving_bytes.fetch_add(bytes, Ordering::AcqRel);
        Chosen {
            blocks,
            leaving_bytes,
            is_too_little: bytes < lacking_bytes,
        }
    }

    /// Each chosen one on its lane, after what was given to that before.
    fn let_go(self: &Arc<Self>, chosen: Vec<(BlockId, u64)>, whom: For) {
        for (block, bytes) in chosen {
            self.on_lane(block, move |store| {
                store.evict_and_say(block, bytes, whom);
                store.leaving_bytes.fetch_sub(bytes, Ordering::AcqRel);
            });
        }
    }

    /// [`Self::evict`], with what is to be known of it. Whether it went.
    fn evict_and_say(self: &Arc<Self>, block: BlockId, bytes: u64, whom: For) -> bool {
        match self.evict(block, whom) {
            Ok(true) => {
                self.went(block, why_gone(whom));
                metrics::EVICTED_BLOCKS.add(1);
                metrics::EVICTED_BYTES.add(bytes);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!("disk {}: evicting block {block}: {error}", self.name);
                false
            }
        }
    }

    /// What the cached blocks of a mount take here, in bytes.
    pub fn bytes_of(&self, mount: MountId) -> u64 {
        lock(&self.cached).bytes_of(mount)
    }

    /// What the cached blocks of each mount take here, in bytes.
    pub fn bytes_of_mounts(&self) -> Vec<(MountId, u64)> {
        let cached = lock(&self.cached);
        let mounts = cached.mounts().into_iter();
        mounts.map(|mount| (mount, cached.bytes_of(mount))).collect()
    }

    /// Only these mounts have a quota.
    pub fn have_quotas(&self, mounts: impl IntoIterator<Item = MountId>) {
        lock(&self.cached).have_quotas(mounts);
    }

    /// Has cached blocks of a mount that has a quota go, of so many bytes if as many may go. Does not wait for that. `went` is
    /// told what each took that has gone.
    pub fn evict_for_quota(
        self: &Arc<Self>,
        mount: MountId,
        bytes: u64,
        went: impl Fn(u64) + Clone + Send + 'static,
    ) {
        let (now, fetched) = (self.clock.now(), (self.being_fetched)());
        let whom = For::Quota(mount);
        let chosen = {
            let mut cached = lock(&self.cached);
            let chosen = cached.choose(bytes, whom, now, |block| {
                fetched.contains(&block) || self.lent.has(block)
            });
            let chosen_bytes: u64 = chosen.iter().map(|(_, bytes)| bytes).sum();
            self.leaving_bytes.fetch_add(chosen_bytes, Ordering::AcqRel);
            chosen
        };
        for (block, bytes) in chosen {
            let went = went.clone();
            self.on_lane(block, move |store| {
                if store.evict_and_say(block, bytes, whom) {
                    went(bytes);
                }
                store.leaving_bytes.fetch_sub(bytes, Ordering::AcqRel);
            });
        }
    }

    async fn wait_for_lanes(self: &Arc<Self>) {
        let lanes = (0..self.lanes.len() as u64).map(|lane| {
            let (done, passed) = oneshot::channel();
            self.on_any_lane(lane, |_| {
                let _ = done.send(());
            });
            passed
        });
        for passed in lanes.collect::<Vec<_>>() {
            let _ = passed.await;
        }
    }

    /// Removes a block that was chosen, unless it must stay by now. Whether it went. For the block's lane.
    fn evict(self: &Arc<Self>, block: BlockId, whom: For) -> Result<bool> {
        let Some(record) = self.record(block)? else {
            return Ok(false);
        };
        // Written since: it may be the only copy.
        if !counts_as_cached(record.flags, self.tier()) && !is_planted(Bug::EvictsKeptBlocks) {
            return Ok(false);
        }
        // Pinned since it was chosen.
        if record.flags.pinned {
            return Ok(false);
        }
        let is_open = lock(&self.lane(block).open).contains_key(&block);
        let now = self.clock.now();
        let is_spared = {
            let cached = lock(&self.cached);
            cached.is_spared(block, now) || cached.is_held(block, whom, now)
        };
        if is_open || is_spared || self.lent.has(block) || (self.being_fetched)().contains(&block) {
            let taken_bytes = taken_by(record.flags, record.len_bytes);
            lock(&self.cached).stays(block, taken_bytes, record.counts_for());
            return Ok(false);
        }
        self.remove(block)
    }

    /// A block is cached, and may go from now on unless it is pinned.
    pub(super) fn is_cached(&self, block: BlockId, record: &BlockRecord) {
        if !counts_as_cached(record.flags, self.tier()) && !is_planted(Bug::EvictsKeptBlocks) {
            return;
        }
        let taken_bytes = taken_by(record.flags, record.len_bytes);
        match record.flags.pinned {
            true => lock(&self.cached).pin(block, taken_bytes, record.counts_for()),
            false => lock(&self.cached).came(block, taken_bytes, record.counts_for()),
        }
    }

    /// A block is here no more, or is about to be kept.
    pub(super) fn is_cached_no_more(&self, block: BlockId) {
        lock(&self.cached).removed(block);
    }

    /// A cached block is read, which its reader takes for one of this mount. Rather forgotten than waited for.
    pub(super) fn used(&self, block: BlockId, mount: Option<MountId>) {
        if let Ok(mut cached) = self.cached.try_lock() {
            cached.used(block, mount);
        }
    }

    /// Does something on a block's lane, after what was given to that before, and waits for it.
    async fn in_turn(self: &Arc<Self>, block: BlockId, work: impl FnOnce(&Arc<Store>) + Send + 'static) {
        let (done, ended) = oneshot::channel();
        self.on_lane(block, move |store| {
            work(store);
            let _ = done.send(());
        });
        let _ = ended.await;
    }

    /// [`Store::hold`] of a block that may be on its way out: when this returns, it has gone or stays.
    pub async fn hold_in_turn(self: &Arc<Self>, job: JobId, block: BlockId) {
        self.in_turn(block, move |store| store.hold(job, block)).await;
    }

    /// A load job brings a block, or has found it here.
    pub fn hold(&self, job: JobId, block: BlockId) {
        lock(&self.cached).hold(job, block, self.clock.now());
    }

    /// A load job still asks for blocks.
    pub fn load_goes_on(&self, job: JobId) {
        lock(&self.cached).load_goes_on(job, self.clock.now());
    }

    /// Keeps a block for a while, whether it is here or about to be fetched. When this returns, no eviction of it is under
    /// way.
    pub async fn spare(self: &Arc<Self>, block: BlockId) {
        let spare = move |store: &Arc<Store>| lock(&store.cached).spare(block, store.clock.now());
        self.in_turn(block, spare).await;
    }

    /// How much more a block takes that is written from somewhere up to there. For the block's lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn growth_bytes(&self, block: BlockId, from_bytes: u64, until_bytes: u64) -> Result<u64> {
        let open_bytes = lock(&self.lane(block).open)
            .get(&block)
            .map(|open: &OpenBlock| open.len_bytes);
        let len_bytes = match open_bytes {
            Some(len_bytes) => len_bytes,
            None => match self.record(block)? {
                Some(record) if record.flags.in_index => 0,
                Some(record) => self.len_now(&*self.file(block)?, block, &record)?,
                None => 0,
            },
        };
        let copied_bytes = self.copied_bytes(block, from_bytes, len_bytes);
        Ok(on_device(until_bytes).saturating_sub(on_device(len_bytes)) + copied_bytes)
    }
}

fn why_gone(whom: For) -> Gone {
    match whom {
        For::Anybody => Gone::Evicted,
        For::Load(job) => Gone::EvictedForLoad(job),
        For::Watermark => Gone::EvictedToWatermark,
        For::Quota(_) => Gone::EvictedForQuota,
    }
}

/// Whether a block may be chosen to go. A guest outside memory is on its way to be the block.
pub fn counts_as_cached(flags: BlockFlags, tier: Tier) -> bool {
    flags.from_ufs || flags.guest && tier == Tier::Mem
}

/// What comes free on the device when a block goes. What the index has of it comes free there, and for others of the index.
pub fn taken_by(flags: BlockFlags, len_bytes: u64) -> u64 {
    match flags.in_index {
        true => 0,
        false => on_device(len_bytes),
    }
}
