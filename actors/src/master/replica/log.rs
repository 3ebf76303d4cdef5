//! The Raft log: entries and vote in a heed environment whose every commit is synced, and before it, for what was appended
//! last, the [`Journal`].
//!
//! An append is on disk when the journal has it. Whatever else changes the log, and an append for which the journal has no
//! room, is a commit of the environment, and takes along all that only the journal had. Appends that arrive while one is
//! under way share the next one. An entry can be read as soon as `append` has returned: what is not in the environment yet is
//! served from memory.
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

use super::journal::Journal;
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::kit::Offload;
use crate::kit::metrics::{self, Timing};
use crate::kit::ports::offloaded;
use crate::master::namespace::store::{broken, u64_at};
use crate::planted::{Bug, is_planted};
use crate::room;

/// Address space set aside, not disk.
const MAP_BYTES: usize = 256 << 30;
/// What this version writes, and the newest it reads. 2: there may be a journal.
const FORMAT: u32 = 2;
/// The record that has the number of the journal's series, from when there is a journal on.
const SERIES: &str = "journal";

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
    /// None if there was no room for it: every append is a commit then. Locked by the writer for as long as it writes, and
    /// before `unwritten`.
    journal: Arc<Mutex<Option<Journal>>>,
    written_bytes: Arc<AtomicU64>,
}

/// Entries that were appended and are not in the environment.
#[derive(Default)]
struct Unwritten {
    /// Those that the journal has. All of `entries` come after them.
    journaled: BTreeMap<u64, Journaled>,
    /// Those that are not on disk.
    entries: BTreeMap<u64, Entry>,
    /// In the order of their appends: the last index of each, and who waits for it.
    flushes: Vec<(u64, LogFlushed<TypeConfig>)>,
    /// The disk is full; a later try is planned.
    held_up: bool,
}

struct Journaled {
    entry: Entry,
    encoded: bytes::Bytes,
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
        let series = meta.get(&txn, SERIES.as_bytes()).map_err(broken)?.map(decode);
        let (journal, mut journaled) = match series {
            Some(series) => {
                let (journal, records) = Journal::open(directory, series?)?;
                (Some(journal), journaled(records)?)
            }
            None => {
                let journal = made_journal(directory);
                if let Some(journal) = &journal {
                    meta.put(&mut txn, SERIES.as_bytes(), &encode(&journal.series()))
                        .map_err(broken)?;
                }
                (journal, BTreeMap::new())
            }
        };
        if is_planted(Bug::TruncatesCommitted)
            && journaled.pop_last().is_none()
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
            unwritten: Arc::new(Mutex::new(Unwritten {
                journaled,
                ..Unwritten::default()
            })),
            journal: Arc::new(Mutex::new(journal)),
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

    /// Writes what is not on disk and tells who waits for it. Runs on the writer thread.
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
        let timing = Timing::begin();
        let encoded: Vec<_> = entries
            .iter()
            .map(|entry| bytes::Bytes::from(encode(entry)))
            .collect();
        let written = self.write(&entries, &encoded);
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
        if let Ok(is_journaled) = &written {
            metrics::RAFT_LOG_COMMIT_SECONDS.observe(0, timing.took());
            let bytes = encoded.iter().map(|encoded| encoded.len() as u64).sum();
            self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            let mut unwritten = self.unwritten();
            unwritten.held_up = false;
            for (entry, encoded) in entries.into_iter().zip(encoded) {
                let index = entry.log_id.index;
                // A truncation may have put another entry in its place meanwhile.
                if (unwritten.entries.get(&index)).is_some_and(|now| now.log_id == entry.log_id) {
                    unwritten.entries.remove(&index);
                }
                if *is_journaled {
                    unwritten.journaled.insert(index, Journaled { entry, encoded });
                }
            }
        }
        for (_, flushed) in flushes {
            let result = written.as_ref().map(drop);
            flushed.log_io_completed(result.map_err(|error| std::io::Error::other(error.to_string())));
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
        let journaled = self.unwritten().journaled_bytes();
        Ok(pages as u64 * u64::from(stat.page_size) + journaled)
    }

    fn write_soon(&self) {
        let store = self.clone();
        self.writer.run(Box::new(move || store.write_out()));
    }

    /// Has entries be on disk; whether in the journal alone.
    fn write(&self, entries: &[Entry], encoded: &[bytes::Bytes]) -> Result<bool> {
        if let Some(journal) = &mut *self.journal() {
            let appended = journal.append(encoded);
            if appended.map_err(|error| room::named(error, &self.directory))? {
                return Ok(true);
            }
        }
        self.change(|txn| {
            let mut both = entries.iter().zip(encoded);
            both.try_for_each(|(entry, encoded)| self.put_entry(txn, entry.log_id.index, encoded))
        })?;
        Ok(false)
    }

    fn put_entry(&self, txn: &mut RwTxn, index: u64, encoded: &[u8]) -> Result<()> {
        self.entries
            .put(txn, &index.to_be_bytes(), encoded)
            .map_err(broken)
    }

    fn journal(&self) -> MutexGuard<'_, Option<Journal>> {
        self.journal.lock().expect("no thread panics while it writes")
    }

    /// A commit of the environment, with all that only the journal has: that begins anew then.
    fn change(&self, change: impl FnOnce(&mut RwTxn) -> Result<()>) -> Result<()> {
        let mut journal = self.journal();
        let series = journal.as_ref().map(|journal| journal.series() + 1);
        let journaled: Vec<_> = {
            let unwritten = self.unwritten();
            let journaled = unwritten.journaled.iter();
            journaled
                .map(|(index, it)| (*index, it.encoded.clone()))
                .collect()
        };
        let changed = || {
            let mut txn = self.env.write_txn().map_err(broken)?;
            for (index, encoded) in &journaled {
                if !is_planted(Bug::JournalBeginsEarly) {
                    self.put_entry(&mut txn, *index, encoded)?;
                }
            }
            if let Some(series) = series {
                self.put_meta(&mut txn, SERIES, &series)?;
            }
            change(&mut txn)?;
            txn.commit().map_err(broken)
        };
        changed().map_err(|error| room::named(error, &self.directory))?;
        // Only the writer adds to them.
        self.unwritten().journaled.clear();
        if let Some((journal, series)) = journal.as_mut().zip(series) {
            journal.begin(series);
        }
        Ok(())
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
        {
            let unwritten = self.unwritten();
            let journaled = || unwritten.journaled.last_key_value().map(|(_, it)| &it.entry);
            let last = unwritten.entries.last_key_value().map(|(_, entry)| entry);
            if let Some(entry) = last.or_else(journaled) {
                return Ok(Some(entry.log_id));
            }
        }
        let txn = self.env.read_txn().map_err(broken)?;
        match self.entries.last(&txn).map_err(broken)? {
            None => Ok(None),
            Some((_, bytes)) => Ok(Some(decode::<Entry>(bytes)?.log_id)),
        }
    }

    /// How many entries are in the journal and nowhere else.
    #[cfg(test)]
    pub fn durable_in_journal(&self) -> usize {
        self.unwritten().journaled.len()
    }

    /// The entries that are on disk, from an index on.
    pub fn durable_from(&self, index: u64) -> Result<Vec<Entry>> {
        let journaled = self.unwritten().journaled(&(index..));
        self.followed_by(&(index..), journaled)
    }

    fn read<R: RangeBounds<u64>>(&self, range: &R) -> Result<Vec<Entry>> {
        // Memory first: what moves from there to the environment meanwhile is then found twice, not never.
        let unwritten = {
            let unwritten = self.unwritten();
            let mut found = unwritten.journaled(range);
            let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
            let entries: Vec<_> = unwritten.entries.range(bounds).collect();
            if let Some((first, _)) = entries.first() {
                found.retain(|entry| entry.log_id.index < **first);
            }
            found.extend(entries.into_iter().map(|(_, entry)| entry.clone()));
            found
        };
        self.followed_by(range, unwritten)
    }

    /// The entries of the environment in a range that come before others, and those.
    fn followed_by<R: RangeBounds<u64>>(&self, range: &R, others: Vec<Entry>) -> Result<Vec<Entry>> {
        let key = |bound: Bound<&u64>| bound.map(|index| index.to_be_bytes());
        let (start, end) = (key(range.start_bound()), key(range.end_bound()));
        let bounds = (
            start.as_ref().map(|key| &key[..]),
            end.as_ref().map(|key| &key[..]),
        );
        let first_of_others = others.first().map_or(u64::MAX, |entry| entry.log_id.index);
        let txn = self.env.read_txn().map_err(broken)?;
        let mut found = Vec::new();
        for entry in self.entries.range(&txn, &bounds).map_err(broken)? {
            let (key, bytes) = entry.map_err(broken)?;
            if u64_at(key, 0) >= first_of_others {
                break;
            }
            found.push(decode(bytes)?);
        }
        found.extend(others);
        Ok(found)
    }
}

impl Unwritten {
    fn journaled<R: RangeBounds<u64>>(&self, range: &R) -> Vec<Entry> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let found = self.journaled.range(bounds);
        found.map(|(_, it)| it.entry.clone()).collect()
    }

    fn journaled_bytes(&self) -> u64 {
        let journaled = self.journaled.values();
        journaled.map(|it| it.encoded.len() as u64).sum()
    }
}

/// The entries of a journal's records.
fn journaled(records: Vec<Vec<bytes::Bytes>>) -> Result<BTreeMap<u64, Journaled>> {
    let pieces = records.into_iter().flatten();
    let entries = pieces.map(|encoded| {
        let entry: Entry = decode(&encoded)?;
        Ok((entry.log_id.index, Journaled { entry, encoded }))
    });
    entries.collect()
}

/// A journal of the first series, where there is room for one.
fn made_journal(directory: &Path) -> Option<Journal> {
    let has_room = room::of(directory).is_ok_and(|(free, _)| free >= GROW_FREE_BYTES);
    let made = || {
        Journal::create(directory)?;
        Journal::open(directory, 1).map(|(journal, _)| journal)
    };
    match has_room.then(made)? {
        Ok(journal) => Some(journal),
        Err(error) => {
            tracing::warn!(%error, "the log has no journal: changes take longer, until the master is started again");
            None
        }
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
            let mut unwritten = log.unwritten();
            unwritten.entries.split_off(&log_id.index);
            drop(unwritten);
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
