//! The Raft log: entries, vote and commit mark in a heed environment whose every commit is synced.
//!
//! Appends that arrive while a commit is under way share the next one. An entry can be read as soon as `append` has
//! returned: what is not committed yet is served from memory.
//!
//! A full disk is waited out: what could not be written is kept and tried again, and who waits for it waits on. The
//! Replica takes no more meanwhile ([`LogStore::is_held_up`]).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::{Error, ErrorKind, Result};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::kit::Offload;
use crate::kit::metrics::{self, Timing};
use crate::kit::ports::offloaded;
use crate::master::namespace::store::{broken, u64_at};
use crate::planted::{Bug, is_planted};
use crate::room;

/// Address space set aside, not disk.
const MAP_BYTES: usize = 256 << 30;
/// What this version writes, and the newest it reads.
const FORMAT: u32 = 1;

/// When a full disk is tried again.
pub(super) const RETRY_FULL: Duration = Duration::from_millis(500);

/// The file is grown by this at a time.
const GROW_BYTES: u64 = 16 << 20;
/// And when less than this is left of what it was grown by.
const GROW_AHEAD_BYTES: u64 = 4 << 20;
/// If the device has this much free.
const GROW_FREE_BYTES: u64 = 64 << 20;
const PAGE_BYTES: u64 = 4096;

#[derive(Clone)]
pub struct LogStore {
    directory: PathBuf,
    env: Env<WithoutTls>,
    room: Arc<Mutex<Room>>,
    entries: Database<Bytes, Bytes>,
    meta: Database<Bytes, Bytes>,
    writer: Arc<dyn Offload>,
    runtime: tokio::runtime::Handle,
    unwritten: Arc<Mutex<Unwritten>>,
    written_bytes: Arc<AtomicU64>,
}

/// Entries that were appended and are not committed to disk.
#[derive(Default)]
struct Unwritten {
    entries: BTreeMap<u64, Entry>,
    /// In the order of their appends: the last index of each, and who waits for it.
    flushes: Vec<(u64, LogFlushed<TypeConfig>)>,
    /// The disk is full; a later try is planned.
    held_up: bool,
}

/// Space in the file that has been written once.
///
/// A synced write into it changes no metadata of the file, so that the file system syncs data alone: about half the
/// latency of a write that makes the file longer, and nobody else who makes files there waits for its journal.
struct Room {
    file: File,
    until_bytes: u64,
}

impl Room {
    fn open(directory: &Path) -> Result<Self> {
        // LMDB's name for it. LMDB finds the end of its data in its own records, not in the file's length.
        let path = directory.join("data.mdb");
        let room = || -> std::io::Result<Self> {
            let file = File::options().write(true).open(&path)?;
            let until_bytes = file.metadata()?.len();
            Ok(Room { file, until_bytes })
        };
        room().map_err(|e| Error::from(e).while_doing(format_args!("opening {}", path.display())))
    }

    /// Makes sure that there is room behind the last page in use.
    fn keep_ahead(&mut self, used_bytes: u64) -> std::io::Result<()> {
        // What lies between is LMDB's own, or zeros already.
        let from = self.until_bytes.max(used_bytes);
        if used_bytes + GROW_AHEAD_BYTES <= self.until_bytes {
            return Ok(());
        }
        // Never the last of the device: others write there too, and the Replica keeps some of it back.
        if rustix::fs::fstatvfs(&self.file).is_ok_and(|d| d.f_bavail * d.f_frsize < GROW_FREE_BYTES) {
            return Ok(());
        }
        let zeros = vec![0; 1 << 20];
        for at in (from..from + GROW_BYTES).step_by(zeros.len()) {
            self.file.write_all_at(&zeros, at)?;
        }
        self.file.sync_all()?;
        self.until_bytes = from + GROW_BYTES;
        Ok(())
    }
}

impl LogStore {
    /// In a runtime, in which what a full disk refused is tried again.
    pub fn open(directory: &Path, writer: Arc<dyn Offload>) -> Result<LogStore> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", directory.display())))?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(4);
        let flags = match is_planted(Bug::LogWithoutSync) {
            true => EnvFlags::NO_SYNC,
            false => EnvFlags::empty(),
        };
        // SAFETY: the data directory is locked by this process, so no other maps these files; no flag gives up anything.
        let env = unsafe { options.flags(flags).open(directory) }
            .map_err(|e| broken(e).while_doing(format_args!("opening {}", directory.display())))?;
        let mut txn = env.write_txn().map_err(broken)?;
        let entries: Database<Bytes, Bytes> =
            env.create_database(&mut txn, Some("entries")).map_err(broken)?;
        let meta = env.create_database(&mut txn, Some("meta")).map_err(broken)?;
        crate::format::check(meta, &mut txn, FORMAT, directory)?;
        if is_planted(Bug::TruncatesCommitted)
            && let Some((index, _)) = entries.last(&txn).map_err(broken)?
        {
            let index = index.to_vec();
            entries.delete(&mut txn, &index).map_err(broken)?;
        }
        txn.commit().map_err(broken)?;
        let log = LogStore {
            directory: directory.to_owned(),
            room: Arc::new(Mutex::new(Room::open(directory)?)),
            env,
            entries,
            meta,
            writer,
            runtime: tokio::runtime::Handle::current(),
            unwritten: Arc::default(),
            written_bytes: Arc::default(),
        };
        log.keep_room();
        Ok(log)
    }

    /// On a full disk there is none: commits are slower then, and fail when they must.
    fn keep_room(&self) {
        let used_bytes = (self.env.info().last_page_number as u64 + 1) * PAGE_BYTES;
        let mut room = self.room.lock().expect("no thread panics while it makes room");
        if let Err(error) = room.keep_ahead(used_bytes) {
            tracing::debug!(%error, "no room was made ahead of the log");
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten
            .lock()
            .expect("no thread panics while it holds the unwritten entries")
    }

    /// Commits what is unwritten and tells who waits for it. Runs on the writer thread.
    fn write_out(&self) {
        let (entries, flushes): (Vec<Entry>, Vec<_>) = {
            let mut unwritten = self.unwritten();
            if unwritten.flushes.is_empty() && !is_planted(Bug::AppendDoneBeforeDisk) {
                return;
            }
            (
                unwritten.entries.values().cloned().collect(),
                std::mem::take(&mut unwritten.flushes),
            )
        };
        let mut bytes = 0;
        let timing = Timing::begin();
        let written = self.change(|txn| {
            entries.iter().try_for_each(|entry| {
                let encoded = encode(entry);
                bytes += encoded.len() as u64;
                self.entries
                    .put(txn, &entry.log_id.index.to_be_bytes(), &encoded)
                    .map_err(broken)
            })
        });
        if let Err(error) = &written
            && error.kind == ErrorKind::NoSpace
        {
            {
                let mut unwritten = self.unwritten();
                let later = std::mem::replace(&mut unwritten.flushes, flushes);
                unwritten.flushes.extend(later);
            }
            return self.try_again_later(error);
        }
        if written.is_ok() {
            metrics::RAFT_LOG_COMMIT_SECONDS.observe(0, timing.took());
            self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            let mut unwritten = self.unwritten();
            unwritten.held_up = false;
            for entry in &entries {
                // A truncation may have put another entry in its place meanwhile.
                if unwritten
                    .entries
                    .get(&entry.log_id.index)
                    .is_some_and(|now| now.log_id == entry.log_id)
                {
                    unwritten.entries.remove(&entry.log_id.index);
                }
            }
        }
        for (_, flushed) in flushes {
            let result = written
                .as_ref()
                .map_err(|error| std::io::Error::other(error.to_string()));
            flushed.log_io_completed(result.copied());
        }
        self.keep_room();
    }

    fn try_again_later(&self, error: &Error) {
        if !std::mem::replace(&mut self.unwritten().held_up, true) {
            tracing::error!(%error, "the log cannot be written: nothing is changed until there is space");
        }
        let store = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY_FULL).await;
            store.write_soon();
        });
    }

    /// Whether the disk was full at the last try.
    pub fn is_held_up(&self) -> bool {
        self.unwritten().held_up
    }

    /// Bytes of the entries that were written since this was opened.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// What all its entries take of the disk.
    pub fn size_bytes(&self) -> Result<u64> {
        let txn = self.env.read_txn().map_err(broken)?;
        let stat = self.entries.stat(&txn).map_err(broken)?;
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        Ok(pages as u64 * u64::from(stat.page_size))
    }

    fn write_soon(&self) {
        let store = self.clone();
        self.writer.run(Box::new(move || store.write_out()));
    }

    fn change(&self, change: impl FnOnce(&mut RwTxn) -> Result<()>) -> Result<()> {
        let changed = || {
            let mut txn = self.env.write_txn().map_err(broken)?;
            change(&mut txn)?;
            txn.commit().map_err(broken)
        };
        changed().map_err(|error| room::named(error, &self.directory))
    }

    /// A change on the writer thread, after every append before it.
    async fn change_soon(
        &self,
        change: impl Fn(&Self, &mut RwTxn) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        loop {
            let (store, change) = (self.clone(), change.clone());
            let changed = offloaded(&*self.writer, move || {
                store.write_out();
                store.change(|txn| change(&store, txn))
            });
            match changed.await? {
                Err(error) if error.kind == ErrorKind::NoSpace => tokio::time::sleep(RETRY_FULL).await,
                other => return other,
            }
        }
    }

    fn meta_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let txn = self.env.read_txn().map_err(broken)?;
        self.meta
            .get(&txn, name.as_bytes())
            .map_err(broken)?
            .map(decode)
            .transpose()
    }

    fn put_meta<T: Serialize>(&self, txn: &mut RwTxn, name: &str, value: &T) -> Result<()> {
        self.meta
            .put(txn, name.as_bytes(), &encode(value))
            .map_err(broken)
    }

    /// Whether this master lost its log and does not have everything again.
    pub fn is_catching_up(&self) -> Result<bool> {
        Ok(self.meta_record("catching up")?.unwrap_or(false))
    }

    /// Notes that this master lost its log, and what it promises in place of the votes that went with it: at once, so that no
    /// restart finds one without the other.
    pub async fn set_catching_up(&self, promise: Vote) -> Result<()> {
        self.change_soon(move |log, txn| {
            log.put_meta(txn, "vote", &promise)?;
            log.put_meta(txn, "catching up", &true)
        })
        .await
    }

    pub async fn set_caught_up(&self) -> Result<()> {
        self.change_soon(move |log, txn| log.put_meta(txn, "catching up", &false))
            .await
    }

    fn last(&self) -> Result<Option<LogId>> {
        if let Some((_, entry)) = self.unwritten().entries.last_key_value() {
            return Ok(Some(entry.log_id));
        }
        let txn = self.env.read_txn().map_err(broken)?;
        match self.entries.last(&txn).map_err(broken)? {
            None => Ok(None),
            Some((_, bytes)) => Ok(Some(decode::<Entry>(bytes)?.log_id)),
        }
    }

    /// The entries that are on disk, from an index on.
    pub fn durable_from(&self, index: u64) -> Result<Vec<Entry>> {
        let txn = self.env.read_txn().map_err(broken)?;
        let first = index.to_be_bytes();
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&first), Bound::Unbounded);
        let found = self.entries.range(&txn, &bounds).map_err(broken)?;
        found.map(|entry| decode(entry.map_err(broken)?.1)).collect()
    }

    fn read<R: RangeBounds<u64>>(&self, range: &R) -> Result<Vec<Entry>> {
        let key = |bound: Bound<&u64>| bound.map(|index| index.to_be_bytes());
        let (start, end) = (key(range.start_bound()), key(range.end_bound()));
        let bounds = (
            start.as_ref().map(|key| &key[..]),
            end.as_ref().map(|key| &key[..]),
        );
        // Memory first: what moves from there to disk meanwhile is then found twice, not never.
        let unwritten: Vec<Entry> = self
            .unwritten()
            .entries
            .range((range.start_bound().cloned(), range.end_bound().cloned()))
            .map(|(_, entry)| entry.clone())
            .collect();
        let first_unwritten = unwritten.first().map_or(u64::MAX, |entry| entry.log_id.index);
        let txn = self.env.read_txn().map_err(broken)?;
        let mut found = Vec::new();
        for entry in self.entries.range(&txn, &bounds).map_err(broken)? {
            let (key, bytes) = entry.map_err(broken)?;
            if u64_at(key, 0) >= first_unwritten {
                break;
            }
            found.push(decode(bytes)?);
        }
        found.extend(unwritten);
        Ok(found)
    }
}

fn read_failed(error: Error) -> StorageError {
    StorageIOError::read_logs(&error).into()
}

fn write_failed(error: Error) -> StorageError {
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(&range).map_err(read_failed)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.meta_record("purged").map_err(read_failed)?;
        let last_log_id = self.last().map_err(read_failed)?.or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        if is_planted(Bug::ForgetsItsVote) {
            return Ok(());
        }
        let vote = *vote;
        self.change_soon(move |log, txn| log.put_meta(txn, "vote", &vote))
            .await
            .map_err(write_failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.meta_record("vote").map_err(read_failed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        {
            let mut unwritten = self.unwritten();
            let mut last = 0;
            for entry in entries {
                last = entry.log_id.index;
                unwritten.entries.insert(last, entry);
            }
            match is_planted(Bug::AppendDoneBeforeDisk) {
                true => callback.log_io_completed(Ok(())),
                false => unwritten.flushes.push((last, callback)),
            }
            if unwritten.held_up {
                return Ok(());
            }
        }
        self.write_soon();
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change_soon(move |log, txn| {
            log.unwritten().entries.split_off(&log_id.index);
            let from = log_id.index.to_be_bytes();
            let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Unbounded);
            log.entries.delete_range(txn, &bounds).map_err(broken).map(|_| ())
        })
        .await
        .map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change_soon(move |log, txn| {
            let until = log_id.index.to_be_bytes();
            let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Included(&until));
            log.entries.delete_range(txn, &bounds).map_err(broken)?;
            log.put_meta(txn, "purged", &log_id)
        })
        .await
        .map_err(write_failed)
    }
}
