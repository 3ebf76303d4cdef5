//! The block index of one disk: LMDB, one writing thread, changes of many callers in one transaction.
//!
//! Transactions are not synced one by one: a kill loses none (they are in the page cache), a power cut loses those since
//! the last [`Index::sync`] and no other: see [`anchor`]. Whoever needs more says `sync`.
//!
//! The bytes of small blocks are in here too: a file for each would cost more than they do.
//!
//! LMDB writes no page over that was in use since the anchored snapshot, so between two syncs nothing of what commits let
//! go is used again, and the file gets longer. The commit with which that comes to more than a limit therefore syncs. The
//! file never gets shorter by itself: [`compact`] replaces it.
//!
//! - [`commit`]: changes on their way in. [`anchor`]: where a power cut leads back to. [`compact`]: a shorter file.

mod anchor;
mod commit;
mod compact;
#[cfg(test)]
mod tests;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use heed::types::Bytes;
use heed::{Database, DatabaseStat, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};

use self::anchor::{Anchor, Kept};
pub use self::commit::{Change, Update};
use super::record::RecordView;
use crate::kit::Offload;
use crate::room;

/// Address space, neither memory nor disk.
const MAP_BYTES: usize = 1 << 40;
/// Threads that may read at once.
const READERS_MAX: u32 = 1_024;
/// The file with everything, as LMDB calls it.
const DATA: &str = "data.mdb";
/// The token of an index that was stopped in order.
const STOPPED: &str = "stopped";
/// What this version writes, and the newest it reads.
const FORMAT: u32 = 4;
/// The key in the database of odds and ends.
const LIFE: &[u8] = b"life";
/// As [`LIFE`]: the number of the last background sync that ended. Versions that do not know it leave it alone.
const SYNCED: &[u8] = b"synced";
/// As [`SYNCED`]: orders to have blocks be cached that have a lower number are late.
const CACHED_FROM: &[u8] = b"cached_from";
/// As [`SYNCED`]: orders to have blocks be unpinned that have a lower number are late.
const PINNED_FROM: &[u8] = b"pinned_from";

pub struct Index {
    directory: PathBuf,
    /// Written only to replace the file by a shorter one.
    opened: RwLock<Opened>,
    /// Bytes of the file.
    file_bytes: AtomicU64,
    /// About what was written to it since it was last synced, in bytes.
    unsynced_bytes: AtomicU64,
    /// What may be written to it between two syncs, in bytes.
    unsynced_bytes_max: u64,
    /// What the anchor calls this run.
    run: String,
    /// The same from one power cut to the next; never 0.
    life: u64,
    anchored: Mutex<Anchored>,
    waiting: Mutex<Vec<Update>>,
    /// Held while changes are committed, by the committer or by who does its work.
    committing: Mutex<()>,
    committer: Arc<dyn Offload>,
    /// Committed but perhaps not on disk.
    unsynced: AtomicBool,
    /// Nothing was committed since this was last looked at.
    quiet: AtomicBool,
    /// How long the file was when it could not be replaced by a shorter one.
    not_shortened_bytes: AtomicU64,
}

/// An environment and its databases.
struct Opened {
    env: Env<WithoutTls>,
    blocks: Database<Bytes, Bytes>,
    /// Of small blocks: their bytes.
    contents: Database<Bytes, Bytes>,
    /// Of blocks that were fenced: the lowest generation that may write them.
    fences: Database<Bytes, Bytes>,
    meta: Database<Bytes, Bytes>,
}

impl Opened {
    /// Opens or creates the environment at a path: of its directory, or with `NO_SUB_DIR` of its file.
    fn open(path: &Path, more: EnvFlags) -> Result<Opened> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(4).max_readers(READERS_MAX);
        // SAFETY: NO_SYNC gives up durability at a power cut, which the anchor accounts for. The data directory is locked
        // by its node, so no other process maps the file.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | more);
            options.open(path)
        };
        let env = env.map_err(failed)?;
        let mut transaction = env.write_txn().map_err(failed)?;
        let mut database = |name| env.create_database(&mut transaction, Some(name)).map_err(failed);
        let (blocks, contents, meta) = (database("blocks")?, database("contents")?, database("meta")?);
        // Versions that do not know it leave it alone.
        let fences = database("fences")?;
        crate::format::check(meta, &mut transaction, FORMAT, path)?;
        transaction.commit().map_err(failed)?;
        Ok(Opened {
            env,
            blocks,
            contents,
            fences,
            meta,
        })
    }

    /// A number among the odds and ends.
    fn number(&self, transaction: &RoTxn, key: &[u8]) -> Result<Option<u64>> {
        let known = self.meta.get(transaction, key).map_err(failed)?;
        Ok(known.and_then(|number| number.try_into().ok().map(u64::from_le_bytes)))
    }

    /// Has a number be at least so great.
    fn raise(&self, transaction: &mut RwTxn, key: &[u8], number: u64) -> heed::Result<()> {
        let before = self.meta.get(transaction, key)?;
        let before = before.and_then(|before| before.try_into().ok().map(u64::from_le_bytes));
        let number = before.unwrap_or(0).max(number);
        self.meta.put(transaction, key, &number.to_le_bytes())
    }

    /// The life that goes on, or the next one, which is noted.
    fn life(&self, last_run: LastRun, next: u64) -> Result<u64> {
        let mut transaction = self.env.write_txn().map_err(failed)?;
        match self.number(&transaction, LIFE)? {
            Some(life) if matches!(last_run, LastRun::Stopped | LastRun::Killed) => Ok(life),
            _ => {
                self.meta
                    .put(&mut transaction, LIFE, &next.to_le_bytes())
                    .map_err(failed)?;
                transaction.commit().map_err(failed)?;
                Ok(next)
            }
        }
    }
}

/// A generation as a fence has it; 0, which keeps nobody out, if it is none.
fn generation_of(fence: &[u8]) -> u32 {
    fence.try_into().map_or(0, u32::from_le_bytes)
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

impl Index {
    /// Opens or creates the index in a directory of its own. `run` names this boot of the kernel and this mount, `random`
    /// the life of the disk if one begins here. About `unsynced_bytes_max` are written
    /// between two syncs, and the file may have free pages for twice as many.
    ///
    /// # Errors
    /// `Io` if it cannot be opened.
    pub fn open(
        directory: &Path,
        run: String,
        random: u64,
        unsynced_bytes_max: u64,
        committer: Arc<dyn Offload>,
    ) -> Result<(Arc<Self>, LastRun)> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", directory.display())))?;
        let data = directory.join(DATA);
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
        compact::remove_leftovers(directory).map_err(doing)?;
        let opened = match Opened::open(directory, EnvFlags::empty()) {
            // It was never anchored, so nobody was ever told of anything in it.
            Err(_) if kept.is_none() && existed => {
                std::fs::remove_file(&data).map_err(|e| doing(e.into()))?;
                Opened::open(directory, EnvFlags::empty())
            }
            opened => opened,
        };
        let opened = opened.map_err(doing)?;
        let life = opened.life(last_run, random | 1).map_err(doing)?;
        let index = Index {
            directory: directory.to_owned(),
            opened: RwLock::new(opened),
            file_bytes: AtomicU64::new(0),
            unsynced_bytes: AtomicU64::new(0),
            unsynced_bytes_max,
            run,
            life,
            anchored: Mutex::new(Anchored {
                anchor,
                held: None,
                failed: None,
            }),
            waiting: Mutex::new(Vec::new()),
            committing: Mutex::new(()),
            committer,
            unsynced: AtomicBool::new(true),
            quiet: AtomicBool::new(false),
            not_shortened_bytes: AtomicU64::new(0),
        };
        index.measure().map_err(doing)?;
        index.sync().map_err(doing)?;
        Ok((Arc::new(index), last_run))
    }

    /// For as long as it is held, the file is not replaced. Never waits for the device.
    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().expect("no holder panics")
    }

    /// The number of the last background sync that ended; 0 if there was none.
    ///
    /// # Errors
    /// `Io`.
    pub fn synced(&self) -> Result<u64> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        Ok(opened.number(&transaction, SYNCED)?.unwrap_or(0))
    }

    /// Orders to have blocks be cached that have a lower number are late.
    ///
    /// # Errors
    /// `Io`.
    pub fn cached_from(&self) -> Result<u64> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        Ok(opened.number(&transaction, CACHED_FROM)?.unwrap_or(0))
    }

    /// Orders to have blocks be unpinned that have a lower number are late.
    ///
    /// # Errors
    /// `Io`.
    pub fn pinned_from(&self) -> Result<u64> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        Ok(opened.number(&transaction, PINNED_FROM)?.unwrap_or(0))
    }

    /// In which life of the disk this is: what is acknowledged in one is there as long as it lasts.
    pub fn life(&self) -> u64 {
        self.life
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
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        let Some(bytes) = opened
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
        match opened
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

    /// The lowest generation that may write a block.
    ///
    /// # Errors
    /// `Io`.
    pub fn fence(&self, block: BlockId) -> Result<u32> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        let fence = opened.fences.get(&transaction, &block.0.to_be_bytes());
        Ok(fence.map_err(failed)?.map_or(0, generation_of))
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
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        let first = after.map_or(0, |block| block.0.saturating_add(1)).to_be_bytes();
        let range = (std::ops::Bound::Included(&first[..]), std::ops::Bound::Unbounded);
        let mut last = None;
        for item in opened
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
        let opened = self.opened();
        let unsynced_bytes = self.unsynced_bytes.load(Ordering::Acquire);
        let mut metas = vec![0; anchor::metas_bytes()];
        let snapshot = {
            // While this transaction lives nobody commits: the meta pages are those of the snapshot.
            let _nobody_else = opened.env.write_txn().map_err(failed)?;
            let file = opened.env.try_clone_inner_file().map_err(failed)?;
            file.read_exact_at(&mut metas, 0)?;
            opened.env.clone().static_read_txn().map_err(failed)?
        };
        opened
            .env
            .force_sync()
            .map_err(|e| room::named(failed(e), &self.directory).while_doing("syncing the block index"))?;
        let token = token.to_owned();
        anchored.anchor.keep(&Kept { token, metas })?;
        anchored.held = Some(snapshot);
        self.unsynced_bytes.fetch_sub(unsynced_bytes, Ordering::AcqRel);
        Ok(())
    }

    /// Bytes of the file, free pages included. Does not block.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Acquire)
    }

    /// Notes how long the file is.
    fn measure(&self) -> Result<()> {
        let file_bytes = self.opened().env.real_disk_size().map_err(failed)?;
        self.file_bytes.store(file_bytes, Ordering::Release);
        Ok(())
    }

    /// Bytes of the pages that records, contents and fences are in.
    ///
    /// # Errors
    /// `Io`.
    pub fn live_bytes(&self) -> Result<u64> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        [opened.blocks, opened.contents, opened.fences, opened.meta]
            .iter()
            .map(|database| Ok(bytes_of(&database.stat(&transaction).map_err(failed)?)))
            .sum()
    }

    /// Disk that the contents of small blocks use.
    ///
    /// # Errors
    /// `Io`.
    pub fn contents_bytes(&self) -> Result<u64> {
        let opened = self.opened();
        let transaction = opened.env.read_txn().map_err(failed)?;
        Ok(bytes_of(&opened.contents.stat(&transaction).map_err(failed)?))
    }
}

fn bytes_of(stat: &DatabaseStat) -> u64 {
    (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64 * u64::from(stat.page_size)
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
        // Not the device's fault.
        heed::Error::EnvAlreadyOpened => Error::new(ErrorKind::Busy, error.to_string()),
        other => Error::new(ErrorKind::Io, other.to_string()),
    }
}
