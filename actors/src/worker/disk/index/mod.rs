//! The block index of one disk: LMDB, one writing thread, changes of many callers in one transaction.
//!
//! Transactions are not synced one by one: a kill loses none (they are in the page cache), a power cut loses those since
//! the last [`Index::sync`] and no other: see [`anchor`]. Whoever needs more says `sync`.
//!
//! The bytes of small blocks are in here too: a file for each would cost more than they do.

mod anchor;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};

use self::anchor::{Anchor, Kept};

use super::record::RecordView;
use crate::kit::Offload;
use crate::room;

/// Address space, neither memory nor disk.
const MAP_BYTES: usize = 1 << 40;
/// Threads that may read at once.
const READERS_MAX: u32 = 1_024;
/// The token of an index that was stopped in order.
const STOPPED: &str = "stopped";
/// What this version writes, and the newest it reads.
const FORMAT: u32 = 2;

pub struct Index {
    directory: PathBuf,
    env: Env<WithoutTls>,
    blocks: Database<Bytes, Bytes>,
    /// Of small blocks: their bytes.
    contents: Database<Bytes, Bytes>,
    /// What the anchor calls this run.
    run: String,
    anchored: Mutex<Anchored>,
    waiting: Mutex<Vec<Update>>,
    /// Held while changes are committed, by the committer or by who does its work.
    committing: Mutex<()>,
    committer: Arc<dyn Offload>,
    /// Committed but perhaps not on disk.
    unsynced: AtomicBool,
}

/// Where a power cut leads back to.
struct Anchored {
    anchor: Anchor,
    /// The snapshot that the anchor is for: while it is held, its pages are not written over.
    held: Option<RoTxn<'static, WithoutTls>>,
    /// A sync that failed. The kernel takes the pages of a failed write-back for clean, so that the next sync would
    /// succeed and mean nothing.
    failed: Option<Error>,
}

/// How the last run on a directory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRun {
    /// There was none.
    None,
    Stopped,
    /// It ended otherwise, on this boot and this mount: the page cache has everything.
    Killed,
    /// The machine or the mount went down: what was not synced is gone.
    PowerCut,
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
    /// The bytes of a small block, in pieces.
    PutContent(BlockId, Vec<bytes::Bytes>),
    DeleteContent(BlockId),
    /// The record and the content.
    Delete(BlockId),
}

impl Index {
    /// Opens or creates the index in a directory of its own. `run` names this boot of the kernel and this mount.
    ///
    /// # Errors
    /// `Io` if it cannot be opened.
    pub fn open(directory: &Path, run: String, committer: Arc<dyn Offload>) -> Result<(Arc<Self>, LastRun)> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", directory.display())))?;
        let data = directory.join("data.mdb");
        let existed = data.exists();
        let (anchor, kept) = Anchor::open(directory)?;
        let last_run = match &kept {
            None if !existed => LastRun::None,
            Some(kept) if kept.token == STOPPED => LastRun::Stopped,
            Some(kept) if kept.token == run => LastRun::Killed,
            _ => LastRun::PowerCut,
        };
        let doing = |e: Error| e.while_doing(format_args!("opening {}", directory.display()));
        if let (LastRun::PowerCut, Some(kept)) = (last_run, &kept) {
            put_back(&data, &kept.metas).map_err(doing)?;
        }
        let opened = match Self::open_env(directory) {
            // It was never anchored, so nobody was ever told of anything in it.
            Err(_) if kept.is_none() && existed => {
                std::fs::remove_file(&data).map_err(|e| doing(e.into()))?;
                Self::open_env(directory)
            }
            opened => opened,
        };
        let (env, blocks, contents) = opened.map_err(doing)?;
        let index = Index {
            directory: directory.to_owned(),
            env,
            blocks,
            contents,
            run,
            anchored: Mutex::new(Anchored {
                anchor,
                held: None,
                failed: None,
            }),
            waiting: Mutex::new(Vec::new()),
            committing: Mutex::new(()),
            committer,
            unsynced: AtomicBool::new(true),
        };
        index.sync().map_err(doing)?;
        Ok((Arc::new(index), last_run))
    }

    #[allow(
        clippy::type_complexity,
        reason = "an environment and its databases, for the constructor alone"
    )]
    fn open_env(
        directory: &Path,
    ) -> Result<(Env<WithoutTls>, Database<Bytes, Bytes>, Database<Bytes, Bytes>)> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(3).max_readers(READERS_MAX);
        // SAFETY: NO_SYNC gives up durability at a power cut, which the anchor accounts for. The data directory is locked
        // by its node, so no other process maps the file.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC);
            options.open(directory)
        };
        let env = env.map_err(failed)?;
        let mut transaction = env.write_txn().map_err(failed)?;
        let mut database = |name| env.create_database(&mut transaction, Some(name)).map_err(failed);
        let (blocks, contents, meta) = (database("blocks")?, database("contents")?, database("meta")?);
        crate::format::check(meta, &mut transaction, FORMAT, directory)?;
        transaction.commit().map_err(failed)?;
        Ok((env, blocks, contents))
    }

    /// Looks at the record of a block: about a microsecond, no copy, from any thread.
    ///
    /// # Errors
    /// `Corrupt` for a malformed record, `Io`.
    pub fn get<T>(&self, block: BlockId, look: impl FnOnce(RecordView<'_>) -> T) -> Result<Option<T>> {
        self.get_with_content(block, |record, _| look(record))
    }

    /// [`Self::get`], with the content of a small block; none for one that is in a file.
    ///
    /// # Errors
    /// `Corrupt` for a malformed record or a lack of content, `Io`.
    pub fn get_with_content<T>(
        &self,
        block: BlockId,
        look: impl FnOnce(RecordView<'_>, Option<&[u8]>) -> T,
    ) -> Result<Option<T>> {
        let transaction = self.env.read_txn().map_err(failed)?;
        let Some(bytes) = self
            .blocks
            .get(&transaction, &block.0.to_be_bytes())
            .map_err(failed)?
        else {
            return Ok(None);
        };
        let view = RecordView::parse(bytes).map_err(|e| e.while_doing(format_args!("block {block}")))?;
        if !view.is_in_index() {
            return Ok(Some(look(view, None)));
        }
        match self
            .contents
            .get(&transaction, &block.0.to_be_bytes())
            .map_err(failed)?
        {
            Some(content) if content.len() as u64 == view.len_bytes() => Ok(Some(look(view, Some(content)))),
            _ => Err(Error::new(
                ErrorKind::Corrupt,
                format!("block {block}: the index lacks its bytes"),
            )),
        }
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
        let (done, result) = std::sync::mpsc::sync_channel(1);
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
                    Change::PutContent(block, pieces) => {
                        let len = pieces.iter().map(bytes::Bytes::len).sum();
                        self.contents.put_reserved(
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
                        self.contents.delete(&mut transaction, &block.0.to_be_bytes())?;
                    }
                    Change::Delete(block) => {
                        self.blocks.delete(&mut transaction, &block.0.to_be_bytes())?;
                        self.contents.delete(&mut transaction, &block.0.to_be_bytes())?;
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

    /// Puts what was committed on disk: a power cut leads back to here. Blocks.
    ///
    /// # Errors
    /// `Io`, and from then on always: only a new start knows again what is on the device.
    pub fn sync(&self) -> Result<()> {
        self.sync_as(&self.run)
    }

    /// [`Self::sync`], and says that this run ends here in order.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn stop(&self) -> Result<()> {
        self.unsynced.store(true, Ordering::Release);
        self.sync_as(STOPPED)
    }

    fn sync_as(&self, token: &str) -> Result<()> {
        // Held to the end: whoever comes later and finds nothing to do is told when it is done.
        let mut anchored = self.anchored.lock().expect("no holder panics");
        if let Some(error) = &anchored.failed {
            return Err(error.clone());
        }
        if !self.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.anchor(&mut anchored, token).inspect_err(|error| {
            self.unsynced.store(true, Ordering::Release);
            if error.kind != ErrorKind::NoSpace {
                anchored.failed = Some(error.clone());
            }
        })
    }

    fn anchor(&self, anchored: &mut Anchored, token: &str) -> Result<()> {
        let mut metas = vec![0; anchor::metas_bytes()];
        let snapshot = {
            // While this transaction lives nobody commits: the meta pages are those of the snapshot.
            let _nobody_else = self.env.write_txn().map_err(failed)?;
            let file = self.env.try_clone_inner_file().map_err(failed)?;
            file.read_exact_at(&mut metas, 0)?;
            self.env.clone().static_read_txn().map_err(failed)?
        };
        self.env
            .force_sync()
            .map_err(|e| room::named(failed(e), &self.directory).while_doing("syncing the block index"))?;
        let token = token.to_owned();
        anchored.anchor.keep(&Kept { token, metas })?;
        anchored.held = Some(snapshot);
        Ok(())
    }

    /// Disk that the contents of small blocks use.
    ///
    /// # Errors
    /// `Io`.
    pub fn contents_bytes(&self) -> Result<u64> {
        let transaction = self.env.read_txn().map_err(failed)?;
        let stat = self.contents.stat(&transaction).map_err(failed)?;
        Ok((stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64 * u64::from(stat.page_size))
    }
}

/// Makes the snapshot that was anchored the newest one.
fn put_back(data: &Path, metas: &[u8]) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(data)?;
    file.write_all_at(metas, 0)?;
    Ok(file.sync_data()?)
}

fn failed(error: heed::Error) -> Error {
    match error {
        heed::Error::Io(io) => io.into(),
        other => Error::new(ErrorKind::Io, other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[expect(clippy::disallowed_methods, reason = "a test waits for a thread")]
mod tests {
    use super::super::record::{BlockFlags, BlockRecord};
    use super::*;
    use crate::kit::Ports;

    fn open(directory: &Path, run: &str) -> (Arc<Index>, LastRun) {
        let committer = Ports::system().offload("index");
        for _ in 0..500 {
            match Index::open(directory, run.to_owned(), committer.clone()) {
                // Let go of on another thread, a moment ago.
                Err(error) if error.message.contains("already open") => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("the index is never let go");
    }

    fn put(index: &Arc<Index>, block: u64, content: &'static [u8], sync: bool) {
        let block = BlockId(block);
        let flags = BlockFlags {
            in_index: true,
            ..BlockFlags::default()
        };
        let record = BlockRecord::sealed(1, content.len() as u64, vec![0], 0, flags);
        let changes = vec![
            Change::Put(block, record.encode()),
            Change::PutContent(block, vec![bytes::Bytes::from_static(content)]),
        ];
        index.submit_and_wait(changes, sync).unwrap();
    }

    fn content(index: &Index, block: u64) -> Option<Vec<u8>> {
        index
            .get_with_content(BlockId(block), |_, content| content.map(<[u8]>::to_vec))
            .unwrap()
            .flatten()
    }

    #[test]
    fn each_end_of_a_run_is_told_from_the_others() {
        let scratch = tempfile::tempdir().unwrap();
        let (index, last) = open(scratch.path(), "boot 1");
        assert_eq!(last, LastRun::None);
        put(&index, 1, b"one", false);
        drop(index);
        let (index, last) = open(scratch.path(), "boot 1");
        assert_eq!(
            (last, content(&index, 1)),
            (LastRun::Killed, Some(b"one".to_vec()))
        );
        index.stop().unwrap();
        drop(index);
        let (index, last) = open(scratch.path(), "boot 2");
        assert_eq!(
            (last, content(&index, 1)),
            (LastRun::Stopped, Some(b"one".to_vec()))
        );
        drop(index);
        assert_eq!(open(scratch.path(), "boot 3").1, LastRun::PowerCut);
    }

    #[test]
    fn a_power_cut_leads_back_to_the_last_sync_whatever_else_reached_the_device() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data.mdb");
        for round in 0..20u64 {
            let (index, _) = open(scratch.path(), &format!("boot {round}"));
            put(&index, round, b"synced", true);
            // Enough unsynced transactions that freed pages would be used again, if nothing held them.
            let before = std::fs::read(&data).unwrap();
            for number in 0..60 {
                put(&index, 1_000 + number % 7, b"lost", false);
                let delete = vec![Change::Delete(BlockId(1_000 + (number + 3) % 7))];
                index.submit_and_wait(delete, false).unwrap();
            }
            drop(index);
            // The worst of it: the new meta pages reached the device, and every page since the sync did not, but for those
            // written over: they are gone for good.
            let mut after = std::fs::read(&data).unwrap();
            let metas = anchor::metas_bytes();
            for at in (metas..after.len()).step_by(4_096) {
                let page = at..at + 4_096;
                if before.get(page.clone()) != Some(&after[page.clone()]) {
                    after[page].fill(0xee);
                }
            }
            std::fs::write(&data, after).unwrap();
        }
        let (index, last) = open(scratch.path(), "the last boot");
        assert_eq!(last, LastRun::PowerCut);
        for round in 0..20 {
            assert_eq!(content(&index, round), Some(b"synced".to_vec()), "round {round}");
        }
    }

    #[test]
    fn a_record_whose_bytes_are_missing_is_corrupt() {
        let scratch = tempfile::tempdir().unwrap();
        let (index, _) = open(scratch.path(), "boot");
        put(&index, 1, b"one", false);
        index
            .submit_and_wait(vec![Change::DeleteContent(BlockId(1))], false)
            .unwrap();
        let error = index.get(BlockId(1), |_| ()).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Corrupt, "block 1: the index lacks its bytes")
        );
    }
}
