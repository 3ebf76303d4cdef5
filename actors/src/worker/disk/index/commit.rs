//! Changes on their way into the index: those of many callers in one transaction, in the order they came.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use curvine_protocol::{BlockId, Error, Result};
use heed::RwTxn;

use super::{CACHED_FROM, Index, Opened, PINNED_FROM, SYNCED, failed, generation_of};
use crate::room;
use crate::worker::disk::record::RecordView;

/// Changes that become visible together, and whom to tell.
pub struct Update {
    pub changes: Vec<Change>,
    /// On disk before `done` is told.
    pub sync: bool,
    pub done: Box<dyn FnOnce(Result<()>) + Send>,
}

pub enum Change {
    Put(BlockId, Vec<u8>),
    /// The bytes of a small block, in pieces.
    PutContent(BlockId, Vec<bytes::Bytes>),
    DeleteContent(BlockId),
    /// No generation below this one may write the block. Nothing if it is not here, or of that generation already.
    Fence(BlockId, u32),
    /// The record, the content and the fence.
    Delete(BlockId),
    /// The background sync of this number has ended: what was sealed before it began is on the device.
    Synced(u64),
    /// A block was ordered to be kept under this number: orders with lower ones that have blocks be cached are late.
    CachedFrom(u64),
    /// A block was ordered to be pinned under this number: orders with lower ones that have blocks be unpinned are late.
    PinnedFrom(u64),
}

/// Pages of LMDB that a commit writes whatever it changes: from the roots down, and the list of free pages.
const PAGES_OF_A_COMMIT: u64 = 8;
const PAGE_BYTES: u64 = 4 << 10;

/// About what a commit of these changes writes: nobody counts it.
fn bytes_written<'a>(changes: impl Iterator<Item = &'a Change>) -> u64 {
    let of_change = |change: &Change| match change {
        Change::PutContent(_, pieces) => {
            PAGE_BYTES + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>()
        }
        Change::Put(_, record) => PAGE_BYTES + record.len() as u64,
        Change::DeleteContent(_)
        | Change::Fence(..)
        | Change::Delete(_)
        | Change::Synced(_)
        | Change::CachedFrom(_)
        | Change::PinnedFrom(_) => PAGE_BYTES,
    };
    PAGES_OF_A_COMMIT * PAGE_BYTES + changes.map(of_change).sum::<u64>()
}

/// A turn of the committer, for what waits. If its thread ends before, nobody commits that any more: it is let go, and
/// who waits for it hears so. Else it would keep itself: what is to be told of a change may hold the index.
struct Turn(Option<Arc<Index>>);

impl Turn {
    fn commit(mut self) {
        if let Some(index) = self.0.take() {
            index.commit_waiting();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let never_had = self.0.take();
        let waiting = never_had.map(|index| {
            let mut waiting = index.waiting.lock().expect("no holder panics");
            std::mem::take(&mut *waiting)
        });
        drop(waiting);
    }
}

impl Index {
    /// Hands in changes. They are committed in the order they came, many at once.
    pub fn submit(self: &Arc<Self>, update: Update) {
        let first = {
            let mut waiting = self.waiting.lock().expect("no holder panics");
            waiting.push(update);
            waiting.len() == 1
        };
        if first {
            let turn = Turn(Some(self.clone()));
            self.committer.run(Box::new(move || turn.commit()));
        }
    }

    /// [`Self::submit`], waiting for the commit: for blocking threads other than the committer's.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn submit_and_wait(self: &Arc<Self>, changes: Vec<Change>, sync: bool) -> Result<()> {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        self.submit_here(Update {
            changes,
            sync,
            done: Box::new(move |outcome| {
                let _ = done.send(outcome);
            }),
        });
        result
            .recv()
            .unwrap_or_else(|_| Err(Error::internal("the block index has stopped")))
    }

    /// [`Self::submit`] by a blocking thread that has nothing else to do: it commits itself, which saves the way to
    /// the committer and back, unless a commit is under way that this change can join.
    pub fn submit_here(self: &Arc<Self>, update: Update) {
        let Ok(committing) = self.committing.try_lock() else {
            return self.submit(update);
        };
        self.waiting.lock().expect("no holder panics").push(update);
        let told = self.commit_all_waiting();
        drop(committing);
        told();
    }

    fn commit_waiting(&self) {
        let committing = self.committing.lock().expect("no holder panics");
        let told = self.commit_all_waiting();
        drop(committing);
        told();
    }

    /// Commits what waits; what it returns tells those who handed it in. For a holder of `committing`.
    fn commit_all_waiting(&self) -> impl FnOnce() + use<> {
        let updates = std::mem::take(&mut *self.waiting.lock().expect("no holder panics"));
        let outcome = self.commit(&updates);
        move || {
            for update in updates {
                (update.done)(outcome.clone());
            }
        }
    }

    fn commit(&self, updates: &[Update]) -> Result<()> {
        if updates
            .iter()
            .all(|update| update.changes.is_empty() && !update.sync)
        {
            return Ok(());
        }
        let opened = self.opened();
        let written = || -> heed::Result<()> {
            let mut transaction = opened.env.write_txn()?;
            // Most disks have none, and need not look for them.
            let mut any_fences = !opened.fences.is_empty(&transaction)?;
            for change in updates.iter().flat_map(|update| &update.changes) {
                match change {
                    Change::Put(block, record) => {
                        opened
                            .blocks
                            .put(&mut transaction, &block.0.to_be_bytes(), record)?;
                        if any_fences {
                            opened.drop_fence_of_older(&mut transaction, *block)?;
                        }
                    }
                    Change::Fence(block, generation) => {
                        any_fences |= opened.put_fence(&mut transaction, *block, *generation)?;
                    }
                    Change::Synced(round) => {
                        opened.meta.put(&mut transaction, SYNCED, &round.to_le_bytes())?;
                    }
                    Change::CachedFrom(number) => opened.raise(&mut transaction, CACHED_FROM, *number)?,
                    Change::PinnedFrom(number) => opened.raise(&mut transaction, PINNED_FROM, *number)?,
                    Change::PutContent(block, pieces) => {
                        let len = pieces.iter().map(bytes::Bytes::len).sum();
                        opened.contents.put_reserved(
                            &mut transaction,
                            &block.0.to_be_bytes(),
                            len,
                            |room| {
                                pieces
                                    .iter()
                                    .try_for_each(|piece| std::io::Write::write_all(room, piece))
                            },
                        )?;
                    }
                    Change::DeleteContent(block) => {
                        opened.contents.delete(&mut transaction, &block.0.to_be_bytes())?;
                    }
                    Change::Delete(block) => {
                        opened.blocks.delete(&mut transaction, &block.0.to_be_bytes())?;
                        opened.contents.delete(&mut transaction, &block.0.to_be_bytes())?;
                        if any_fences {
                            opened.fences.delete(&mut transaction, &block.0.to_be_bytes())?;
                        }
                    }
                }
            }
            transaction.commit()
        };
        written()
            .map_err(|e| room::named(failed(e), &self.directory).while_doing("writing the block index"))?;
        drop(opened);
        self.unsynced.store(true, Ordering::Release);
        self.quiet.store(false, Ordering::Release);
        self.measure()?;
        let written = bytes_written(updates.iter().flat_map(|update| &update.changes));
        let unsynced = written + self.unsynced_bytes.fetch_add(written, Ordering::AcqRel);
        if updates.iter().any(|update| update.sync) {
            self.sync()?;
        } else if unsynced > self.unsynced_bytes_max {
            // Nobody was promised this one. What it fails of, the next that is asked for says.
            let _ = self.sync();
        }
        Ok(())
    }
}

impl Opened {
    fn generation(&self, transaction: &RwTxn, block: BlockId) -> heed::Result<Option<u32>> {
        let record = self.blocks.get(transaction, &block.0.to_be_bytes())?;
        Ok(record.and_then(|record| Some(RecordView::parse(record).ok()?.generation())))
    }

    /// Whether there is a fence now.
    fn put_fence(&self, transaction: &mut RwTxn, block: BlockId, generation: u32) -> heed::Result<bool> {
        let key = block.0.to_be_bytes();
        let before = self.fences.get(transaction, &key)?.map_or(0, generation_of);
        let needed = self
            .generation(transaction, block)?
            .is_some_and(|here| here.max(before) < generation);
        if needed {
            self.fences.put(transaction, &key, &generation.to_le_bytes())?;
        }
        Ok(needed)
    }

    /// A block of the fence's generation keeps older ones out by itself.
    fn drop_fence_of_older(&self, transaction: &mut RwTxn, block: BlockId) -> heed::Result<()> {
        let key = block.0.to_be_bytes();
        let Some(fence) = self.fences.get(transaction, &key)?.map(generation_of) else {
            return Ok(());
        };
        if self.generation(transaction, block)? >= Some(fence) {
            self.fences.delete(transaction, &key)?;
        }
        Ok(())
    }
}
