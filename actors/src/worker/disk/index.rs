//! The block index of one disk: LMDB, one writing thread, changes of many callers in one transaction.
//!
//! Transactions are not synced one by one: a kill loses none (they are in the page cache), a power cut may. Whoever
//! needs more says `sync`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::record::RecordView;
use crate::kit::Offload;
use crate::room;

/// Address space, not memory: one chunk of a block needs 4 bytes, so this is enough for 100 TB.
const MAP_BYTES: usize = 64 << 30;
/// Threads that may read at once.
const READERS_MAX: u32 = 1_024;
const BOOT_KEY: &[u8] = b"boot";
/// What this version writes, and the newest it reads.
const FORMAT: u32 = 1;

pub struct Index {
    directory: PathBuf,
    env: Env,
    blocks: Database<Bytes, Bytes>,
    meta: Database<Bytes, Bytes>,
    waiting: Mutex<Vec<Update>>,
    /// Held while changes are committed, by the committer or by who does its work.
    committing: Mutex<()>,
    committer: Arc<dyn Offload>,
    /// Committed but perhaps not on disk.
    unsynced: AtomicBool,
}

/// Changes that become visible together, and whom to tell.
pub struct Update {
    pub changes: Vec<Change>,
    /// On disk before `done` is told.
    pub sync: bool,
    pub done: Box<dyn FnOnce(Result<()>) + Send>,
}

pub enum Change {
    Put(BlockId, Vec<u8>),
    Delete(BlockId),
}

impl Index {
    /// Opens or creates the index in a directory of its own.
    ///
    /// # Errors
    /// `Io` if it cannot be opened.
    pub fn open(directory: &Path, committer: Arc<dyn Offload>) -> Result<Arc<Self>> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", directory.display())))?;
        let opened = || -> Result<_> {
            let mut options = EnvOpenOptions::new();
            options.map_size(MAP_BYTES).max_dbs(2).max_readers(READERS_MAX);
            // SAFETY: NO_SYNC gives up durability at a power cut, which recovery accounts for by the boot id. The
            // data directory is locked by its node, so no other process maps the file.
            let env = unsafe {
                options.flags(EnvFlags::NO_SYNC);
                options.open(directory)
            };
            let env = env.map_err(failed)?;
            let mut transaction = env.write_txn().map_err(failed)?;
            let blocks = env
                .create_database(&mut transaction, Some("blocks"))
                .map_err(failed)?;
            let meta = env
                .create_database(&mut transaction, Some("meta"))
                .map_err(failed)?;
            crate::format::check(meta, &mut transaction, FORMAT, directory)?;
            transaction.commit().map_err(failed)?;
            Ok((env, blocks, meta))
        };
        let (env, blocks, meta) =
            opened().map_err(|e| e.while_doing(format_args!("opening {}", directory.display())))?;
        Ok(Arc::new(Index {
            directory: directory.to_owned(),
            env,
            blocks,
            meta,
            waiting: Mutex::new(Vec::new()),
            committing: Mutex::new(()),
            committer,
            unsynced: AtomicBool::new(false),
        }))
    }

    /// Looks at the record of a block: about a microsecond, no copy, from any thread.
    ///
    /// # Errors
    /// `Corrupt` for a malformed record, `Io`.
    pub fn get<T>(&self, block: BlockId, look: impl FnOnce(RecordView<'_>) -> T) -> Result<Option<T>> {
        let transaction = self.env.read_txn().map_err(failed)?;
        let Some(bytes) = self
            .blocks
            .get(&transaction, &block.0.to_be_bytes())
            .map_err(failed)?
        else {
            return Ok(None);
        };
        let view = RecordView::parse(bytes).map_err(|e| e.while_doing(format_args!("block {block}")))?;
        Ok(Some(look(view)))
    }

    /// Visits up to `limit` records after `after`, in the order of ids; the last id visited, none at the end.
    ///
    /// # Errors
    /// `Io`. A malformed record is visited as its error.
    pub fn page(
        &self,
        after: Option<BlockId>,
        limit: usize,
        mut visit: impl FnMut(BlockId, Result<RecordView<'_>>),
    ) -> Result<Option<BlockId>> {
        let transaction = self.env.read_txn().map_err(failed)?;
        let first = after.map_or(0, |block| block.0.saturating_add(1)).to_be_bytes();
        let range = (std::ops::Bound::Included(&first[..]), std::ops::Bound::Unbounded);
        let mut last = None;
        for item in self
            .blocks
            .range(&transaction, &range)
            .map_err(failed)?
            .take(limit)
        {
            let (key, bytes) = item.map_err(failed)?;
            let Ok(key) = key.try_into() else { continue };
            let block = BlockId(u64::from_be_bytes(key));
            visit(block, RecordView::parse(bytes));
            last = Some(block);
        }
        Ok(last)
    }

    /// Hands in changes. They are committed in the order they came, many at once.
    pub fn submit(self: &Arc<Self>, update: Update) {
        let first = {
            let mut waiting = self.waiting.lock().expect("no holder panics");
            waiting.push(update);
            waiting.len() == 1
        };
        if first {
            let index = self.clone();
            self.committer.run(Box::new(move || index.commit_waiting()));
        }
    }

    /// [`Self::submit`], waiting for the commit: for blocking threads other than the committer's.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn submit_and_wait(self: &Arc<Self>, changes: Vec<Change>, sync: bool) -> Result<()> {
        let (done, result) = std::sync::mpsc::channel();
        self.submit(Update {
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
        let written = || -> heed::Result<()> {
            let mut transaction = self.env.write_txn()?;
            for change in updates.iter().flat_map(|update| &update.changes) {
                match change {
                    Change::Put(block, record) => {
                        self.blocks
                            .put(&mut transaction, &block.0.to_be_bytes(), record)?;
                    }
                    Change::Delete(block) => {
                        self.blocks.delete(&mut transaction, &block.0.to_be_bytes())?;
                    }
                }
            }
            transaction.commit()
        };
        written()
            .map_err(|e| room::named(failed(e), &self.directory).while_doing("writing the block index"))?;
        self.unsynced.store(true, Ordering::Release);
        if updates.iter().any(|update| update.sync) {
            self.sync()?;
        }
        Ok(())
    }

    /// Puts what was committed on disk. Blocks.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel)
            && let Err(error) = self.env.force_sync()
        {
            self.unsynced.store(true, Ordering::Release);
            return Err(failed(error).while_doing("syncing the block index"));
        }
        Ok(())
    }

    /// What was noted at the last start or stop.
    ///
    /// # Errors
    /// `Io`.
    pub fn boot_note(&self) -> Result<Option<String>> {
        let transaction = self.env.read_txn().map_err(failed)?;
        let note = self.meta.get(&transaction, BOOT_KEY).map_err(failed)?;
        Ok(note.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Notes something for the next start, on disk when this returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_boot_note(&self, note: &str) -> Result<()> {
        let mut transaction = self.env.write_txn().map_err(failed)?;
        self.meta
            .put(&mut transaction, BOOT_KEY, note.as_bytes())
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.env.force_sync().map_err(failed)
    }
}

fn failed(error: heed::Error) -> Error {
    match error {
        heed::Error::Io(io) => io.into(),
        other => Error::new(ErrorKind::Io, other.to_string()),
    }
}
