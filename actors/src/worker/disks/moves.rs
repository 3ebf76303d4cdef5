//! Blocks that go from one disk of a worker to another.
//!
//! A move copies while the block is read and written as ever. Then the [`Gate`](super::gate::Gate) keeps changes away while
//! the copy is put on the device as a guest and the first disk lets go of the block, if it is still as it was: as long as two
//! syncs take. A reader finds it on one of them at any time. What changed meanwhile stays where it is.
//!
//! A kept block is not moved to memory: it has a guest there, which goes before anything changes the block.
//!
//! Invariants:
//! - One block at a time is handed over, and none while the master is told of everything: a full report goes from disk to
//!   disk, and would miss it.
//! - A guest of a block goes before the block changes, or its kind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::cluster::Tier;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{READ_BYTES_MAX, SuspectBlock};
use curvine_protocol::{BlockId, BlockRef, Error, ErrorKind, Result};

use super::gate::Entered;
use super::placement::{Wanted, choose_disk, may_be_kept_in};
use super::{Disks, Need};
use crate::planted::{Bug, is_planted};
use crate::worker::disk::{BlockState, Copying, DiskRef, Store, Unsettled, Whole};
use crate::worker::pace::Pace;

/// Bytes copied at a time: others have their turn between them.
const PIECE_BYTES: u64 = 1 << 20;
/// Records looked at in one read of an index.
const PAGE: usize = 4_096;
/// How often, and how often at most, a block that must leave memory is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
const TRIES_MAX: u32 = 250;

/// Where a block is: by the numbers of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub home: usize,
    /// Where a copy of it is.
    pub guest: Option<usize>,
}

/// What became of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is there, so many bytes.
    There(u64),
    /// It is gone, or not whole, or somebody is about to change it, or has meanwhile.
    NotNow,
}

impl Disks {
    /// Where a block is, in whatever state.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn place(&self, block: BlockId) -> Result<Option<Place>> {
        loop {
            let before = self.inner.gate.handed_over();
            let (mut home, mut guest) = (None, None);
            for (number, disk) in self.all().iter().enumerate() {
                match disk.store.is_guest(block) {
                    _ if disk.store.has_vanished() => {}
                    // One that can be counted on comes before one that cannot.
                    Ok(Some(false)) if home.is_none_or(|home| self.is_endangered(home, block)) => {
                        home = Some(number);
                    }
                    Ok(Some(true)) => guest = Some(number),
                    Ok(_) => {}
                    Err(error) if disk.store.has_failed() => {
                        tracing::debug!(%error, "nothing can be said of block {block}");
                    }
                    Err(error) => return Err(error),
                }
            }
            match (home, guest) {
                (Some(home), guest) => return Ok(Some(Place { home, guest })),
                // It has just been handed over.
                (None, Some(home)) => return Ok(Some(Place { home, guest: None })),
                (None, None) if self.inner.gate.handed_over() == before => return Ok(None),
                (None, None) => {}
            }
        }
    }

    /// Before a block changes, on its way to the disk that [`Self::place`] says: without its guest, and not in memory if it
    /// is kept from then on. For the time being it stays there.
    ///
    /// # Errors
    /// `NoSpace`, `Busy`, `Corrupt`, `Io`.
    pub async fn enter_to_change(&self, block: BlockId, is_kept: bool) -> Result<Entered> {
        loop {
            let entered = self.enter(block).await;
            let Some(place) = self.place(block)? else {
                return Ok(entered);
            };
            if let Some(guest) = place.guest {
                // If the block has rotted, the copy is what is left of it.
                let home = &self.all()[place.home];
                let len_bytes = home.store.brief(block)?.map_or(0, |brief| brief.len_bytes);
                self.look_at(home, block, len_bytes).await?;
                if self.place(block)? != Some(place) {
                    continue;
                }
                self.all()[guest].drop_guest(block).await?;
            }
            if !is_kept || may_be_kept_in(self.all()[place.home].store.tier()) {
                return Ok(entered);
            }
            drop(entered);
            self.leave_memory(block).await?;
        }
    }

    /// Moves a block out of memory, since it becomes the only copy.
    async fn leave_memory(&self, block: BlockId) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let Some(place) = self.place(block)? else {
                return Ok(());
            };
            let store = &self.all()[place.home].store;
            if may_be_kept_in(store.tier()) {
                return Ok(());
            }
            let len_bytes = store.brief(block)?.map_or(0, |brief| brief.len_bytes);
            let to = choose_disk(&self.unpromised(), Wanted::kept(None), len_bytes, len_bytes)
                .ok_or_else(|| self.no_room_for_kept(block, len_bytes))?;
            match self.move_at_once(block, place.home, to).await? {
                Moved::There(_) => return Ok(()),
                Moved::NotNow => tokio::time::sleep(TRY_AGAIN).await,
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("block {block} is in memory, and could not be moved to a disk to be written; try again"),
        ))
    }

    /// Moves a block that has no room to grow where it is to another disk, if one has room and nobody is writing it now.
    pub(super) async fn outgrows(&self, block: BlockId, from: usize, need: Need) {
        for _ in 0..TRIES_MAX {
            let is_there = matches!(self.place(block), Ok(Some(place)) if place.home == from);
            let brief = self.all()[from].store.brief(block);
            if !is_there || !matches!(brief, Ok(Some(brief)) if brief.is_sealed) {
                return;
            }
            let mut statuses = self.unpromised();
            statuses[from].available_bytes = 0;
            statuses[from].cached_bytes = 0;
            let wanted = Wanted::kept(need.tier);
            let Some(to) = choose_disk(&statuses, wanted, need.until_bytes, need.hint_bytes) else {
                return;
            };
            match self.move_at_once(block, from, to).await {
                Ok(Moved::There(_)) => return,
                Ok(Moved::NotNow) => tokio::time::sleep(TRY_AGAIN).await,
                Err(error) => {
                    tracing::warn!("block {block} has no room to grow, and cannot move: {error}");
                    return;
                }
            }
        }
    }

    /// [`Self::move_block`] for one who waits for it. He may give up: a move that has begun to hand over ends.
    async fn move_at_once(&self, block: BlockId, from: usize, to: usize) -> Result<Moved> {
        let disks = self.clone();
        let moving = tokio::spawn(async move { disks.move_block(block, from, to, None).await });
        let given_up = |_| Err(Error::internal(format!("the move of block {block} was given up")));
        match moving.await.unwrap_or_else(given_up) {
            // Somebody else moves it already, as for another piece of the same write.
            Err(error) if error.kind == ErrorKind::Busy => Ok(Moved::NotNow),
            moved => moved,
        }
    }

    pub(super) fn no_room_for_kept(&self, block: BlockId, bytes: u64) -> Error {
        let is_memory = |disk: &DiskRef| !disk.store.tier().lasts();
        let message = match self.all().iter().all(is_memory) {
            true => format!(
                "block {block} cannot be written: this worker has nothing but memory, which never holds the only copy of \
                 anything; add a data directory of tier SSD or HDD to `worker.data_dirs`"
            ),
            false => format!(
                "no disk of this worker has {bytes} bytes left for block {block}; free cached data with `cv free` or add \
                 a data directory"
            ),
        };
        Error::new(ErrorKind::NoSpace, message)
    }

    /// Has a block be on another disk, or, if it is kept and that is memory, have a guest there. Makes room for it. Copies at
    /// a pace, if there is one. Not to be dropped before it ends.
    ///
    /// # Errors
    /// `Corrupt`: then it is out of use where it was. `NoSpace`, `Io`.
    pub async fn move_block(
        &self,
        block: BlockId,
        from: usize,
        to: usize,
        pace: Option<&Pace>,
    ) -> Result<Moved> {
        let (from, to) = (&self.all()[from], &self.all()[to]);
        let found = from.on_lane(block, move |store| store.to_move(block)).await?;
        let Some(whole) = found.map(Arc::new) else {
            return Ok(Moved::NotNow);
        };
        let len_bytes = whole.block.len_bytes;
        let _room = to.store.make_room(block, len_bytes).await;
        let copying = match to.store.is_small(len_bytes) {
            true => None,
            false => match self.copy_to(to, &whole, pace).await {
                Err(error) if error.kind == ErrorKind::Corrupt => {
                    self.look_at(from, block, len_bytes).await?;
                    return Err(error);
                }
                copying => Some(copying?),
            },
        };
        let _one = self.inner.moves.lock().await;
        let Some(moving) = self.inner.gate.try_move(block) else {
            return Ok(Moved::NotNow);
        };
        let has_guest = self.place(block)?.is_none_or(|place| place.guest.is_some());
        if has_guest {
            return Ok(Moved::NotNow);
        }
        let as_found = whole.clone();
        let is_as_found = from.on_lane(block, move |store| store.is_as(&as_found)).await?;
        if !is_as_found && !is_planted(Bug::MovesOverWrites) {
            return Ok(Moved::NotNow);
        }
        let of_guest = whole.clone();
        to.on_lane(block, move |store| store.guest_end(&of_guest, copying))
            .await?;
        let is_kept = !whole.record.flags.from_ufs;
        if is_kept && to.store.tier() == Tier::Mem {
            return Ok(Moved::There(len_bytes));
        }
        moving.hands_over();
        let handed_over = from.on_lane(block, move |store| store.hand_over(&whole)).await;
        match handed_over {
            Ok(true) => {
                to.on_lane(block, move |store| store.settle_in(block)).await?;
                Ok(Moved::There(len_bytes))
            }
            // It may have gone from there: the guest goes too, or is the block from the next start on.
            Ok(false) => {
                to.drop_guest(block).await?;
                Ok(Moved::NotNow)
            }
            Err(error) => Err(error),
        }
    }

    async fn copy_to(&self, to: &DiskRef, whole: &Arc<Whole>, pace: Option<&Pace>) -> Result<Copying> {
        let block = whole.block;
        let begun = to.on_lane(block.id, move |store| store.copy_begin(block)).await?;
        let mut copying = begun.ok_or_else(|| {
            Error::new(
                ErrorKind::Busy,
                format!("block {} is on disk {} already", block.id, to.store.name()),
            )
        })?;
        for at in (0..block.len_bytes).step_by(to_usize(PIECE_BYTES)) {
            let (whole, piece_bytes) = (whole.clone(), PIECE_BYTES.min(block.len_bytes - at));
            let write = move |_: &Arc<Store>| {
                copying.write(&whole.read(at, piece_bytes)?)?;
                Ok(copying)
            };
            copying = to.on_lane(block.id, write).await?;
            if let Some(pace) = pace {
                pace.take(piece_bytes).await;
            }
        }
        Ok(copying)
    }

    /// Whether what is here of a block is right, as far as it is known. What is not goes, as when readers find it.
    ///
    /// # Errors
    /// `Io`.
    pub async fn is_right(&self, block: &BlockRef) -> Result<bool> {
        let _entered = self.enter(block.id).await;
        match self.holder(block.id)? {
            Some(disk) => self.look_at(disk, block.id, block.len_bytes).await,
            None => Ok(false),
        }
    }

    /// Has a disk look at a block, as it does for readers that got wrong bytes of it. Whether it is right.
    async fn look_at(&self, disk: &DiskRef, block: BlockId, len_bytes: u64) -> Result<bool> {
        for offset_bytes in (0..len_bytes).step_by(READ_BYTES_MAX as usize) {
            let suspect = SuspectBlock {
                block,
                offset_bytes,
                len_bytes: READ_BYTES_MAX,
            };
            if !disk.verify(suspect).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at what somebody found wrong, wherever it is. Whether the block is right: a guest that is not goes.
    ///
    /// # Errors
    /// `Io`.
    pub async fn verify(&self, call: SuspectBlock) -> Result<bool> {
        let _entered = self.enter(call.block).await;
        let Some(place) = self.place(call.block)? else {
            return Ok(false);
        };
        if let Some(guest) = place.guest {
            self.all()[guest].verify(call.clone()).await?;
        }
        self.all()[place.home].verify(call).await
    }

    /// Of blocks that several disks have, as after one was left out for a while, the later ones stay. Before anybody asks.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(super) async fn settle_doubles(&self) -> Result<()> {
        let stores: Vec<_> = self.all().iter().map(|disk| disk.store.clone()).collect();
        let doubles = self.all()[0]
            .on_lane(BlockId(0), move |_| doubles(&stores))
            .await?;
        for (block, disks) in doubles {
            let mut found = Vec::new();
            for number in disks {
                let record = self.all()[number]
                    .on_lane(block, move |store| store.record(block))
                    .await?;
                found.extend(record.map(|record| (number, record)));
            }
            let latest = found.iter().max_by_key(|(number, record)| {
                let is_kept = !record.flags.from_ufs;
                let lasts = self.all()[*number].store.tier() != Tier::Mem;
                let is_whole = matches!(record.state, BlockState::Sealed | BlockState::Writing { .. });
                (record.generation, is_whole, record.len_bytes, is_kept, lasts)
            });
            let latest = latest.map(|(number, _)| *number);
            for (number, record) in found {
                if Some(number) != latest {
                    let disk = &self.all()[number];
                    tracing::warn!(
                        "block {block}: disk {} has generation {}, and another has a later one; the older goes",
                        disk.store.name(),
                        record.generation
                    );
                    disk.on_lane(block, move |store| store.remove_double(block))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Has every guest be one, or the block, or go, before anybody asks.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(super) async fn settle(&self, unsettled: &mut [Unsettled]) -> Result<()> {
        for (number, of_disk) in unsettled.iter_mut().enumerate() {
            for &block in &of_disk.guests {
                let disk = &self.all()[number];
                let others = self
                    .all()
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != number);
                let home = others
                    .map(|(_, other)| Ok((other.store.is_guest(block)? == Some(false)).then_some(other)))
                    .collect::<Result<Vec<_>>>()?;
                match home.into_iter().flatten().next() {
                    None => {
                        disk.on_lane(block, move |store| store.settle_in(block)).await?;
                        let settled = disk.on_lane(block, move |store| store.record(block)).await?;
                        let is_kept = settled.is_some_and(|record| !record.flags.from_ufs);
                        if is_kept && disk.store.tier() == Tier::Mem {
                            of_disk.kept.push(block);
                        }
                    }
                    Some(home) if disk.store.tier() == Tier::Mem => {
                        let guest = disk.on_lane(block, move |store| store.record(block)).await?;
                        let original = home.on_lane(block, move |store| store.record(block)).await?;
                        let is_copy = guest
                            .zip(original)
                            .is_some_and(|(guest, original)| guest.is_copy_of(&original));
                        if !is_copy {
                            disk.drop_guest(block).await?;
                        }
                    }
                    Some(_) => disk.drop_guest(block).await?,
                }
            }
        }
        Ok(())
    }
}

/// What a disk has, page by page.
struct Pages<'a> {
    store: &'a Store,
    page: VecDeque<BlockId>,
    after: Option<BlockId>,
    is_at_end: bool,
}

impl<'a> Pages<'a> {
    fn of(store: &'a Store) -> Self {
        Pages {
            store,
            page: VecDeque::new(),
            after: None,
            is_at_end: false,
        }
    }

    fn next(&mut self) -> Result<Option<BlockId>> {
        while self.page.is_empty() && !self.is_at_end {
            let (homes, last) = self.store.homes(self.after, PAGE)?;
            self.page.extend(homes);
            self.after = last;
            self.is_at_end = last.is_none();
        }
        Ok(self.page.front().copied())
    }
}

/// The blocks that are on several of these disks and no guests there, with the numbers of those.
fn doubles(stores: &[Arc<Store>]) -> Result<Vec<(BlockId, Vec<usize>)>> {
    let mut disks: Vec<Pages<'_>> = stores.iter().map(|store| Pages::of(store)).collect();
    let mut found = Vec::new();
    loop {
        let heads = disks.iter_mut().map(Pages::next).collect::<Result<Vec<_>>>()?;
        let Some(block) = heads.iter().flatten().min().copied() else {
            return Ok(found);
        };
        let has_it: Vec<usize> = (0..heads.len()).filter(|at| heads[*at] == Some(block)).collect();
        for at in &has_it {
            disks[*at].page.pop_front();
        }
        if has_it.len() > 1 {
            found.push((block, has_it));
        }
    }
}
