//! The blocks of one disk. Methods block on the disk unless they say otherwise; the Disk actor runs them on lanes.

mod account;
mod agree;
mod aside;
pub mod background;
mod copy;
mod evict;
mod failing;
mod fence;
mod fill;
mod idle;
mod kind;
mod lent;
mod moves;
mod pin;
mod punch;
mod put;
mod read;
mod remove;
mod small;
mod unsynced;
mod vanished;
mod verify;
mod write;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use curvine_conf::{DataDir, FsyncPolicy};
use curvine_protocol::cluster::{DiskStatus, Tier};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{ReadBlock, WriteBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use self::failing::Failing;
use self::idle::LeftOpen;
use self::lent::Lent;
pub(super) use self::unsynced::Unsynced;
use self::vanished::{Place, place_of};
use super::cached::Cached;
use super::departed::Departed;
use super::index::{Change, Index, Update};
use super::layout;
use super::open_block::OpenBlock;
use super::recency::Recent;
use super::record::{BlockFlags, BlockRecord};
use super::space::Space;
use super::{Bitmap, BlockNews, DiskOptions};
use crate::kit::{Answer, Clock, Offload};
use crate::planted::{Bug, is_planted};

pub use self::copy::Copying;
pub use self::evict::{Leaving, Room, counts_as_cached, taken_by};
pub use self::lent::{LentFile, Loan};
pub use self::moves::{Brief, Whole};
pub use self::read::answer_with;
pub use self::verify::Chunks;

/// After this many failed system calls in a row the disk takes no more data.
const FAILURES_MAX: u32 = 3;
/// Blocks of which it is remembered when they were read last: about 3 MiB.
const READS_MAX: usize = 1 << 16;
/// Blocks being written whose state is in memory, per lane; more are read back from the index when needed.
const OPEN_BLOCKS_MAX: usize = 1_024;

pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

pub struct Store {
    pub(super) directory: DataDir,
    /// The directory as people know it.
    pub(super) name: String,
    pub(super) index: Arc<Index>,
    pub(super) space: Mutex<Space>,
    /// Without guests.
    pub(super) blocks: AtomicU64,
    pub(super) fsync: FsyncPolicy,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    files: Recent<Arc<File>>,
    lanes: Vec<Lane>,
    left_open: Mutex<LeftOpen>,
    /// Changes that callers wait for.
    pub(super) in_flight: Arc<AtomicUsize>,
    /// The index may take more small blocks.
    small_blocks_fit: AtomicBool,
    failures: AtomicU32,
    failure: Mutex<Option<String>>,
    failing: Arc<Failing>,
    ticks: AtomicU32,
    failed_ticks: AtomicU32,
    /// The directory as it was found.
    place: Option<Place>,
    /// It is not there any more, and the master knows.
    vanished: AtomicBool,
    /// Sealed without a sync since the last background sync.
    unsynced: Mutex<Unsynced>,
    /// The blocks that may go.
    cached: Mutex<Cached>,
    /// Those that went, and why.
    departed: Mutex<Departed>,
    /// When blocks were read last, in milliseconds since the epoch.
    reads: Recent<i64>,
    /// Files that readers of this host have.
    lent: Lent,
    /// Blocks that are wished to be in another tier than was known.
    wishes: Mutex<BTreeMap<BlockId, Option<Tier>>>,
    /// Blocks that are being fetched.
    being_fetched: Arc<dyn Fn() -> HashSet<BlockId> + Send + Sync>,
    /// Percent of the disk: above the first, cached blocks go until it is at the second.
    watermarks: (u64, u64),
    /// There is a slower disk, to which blocks go from here.
    sinks: bool,
    /// Of blocks that were chosen to go and are not gone.
    leaving_bytes: AtomicU64,
    /// Of blocks that were chosen to leave for another disk, and are here.
    sinking_bytes: AtomicU64,
    /// How many changes of a block's record were handed to the index and are not committed.
    uncommitted: Mutex<HashMap<BlockId, usize>>,
}

/// One thread, and the blocks of it that are being written. Only work on that thread locks them.
struct Lane {
    offload: Arc<dyn Offload>,
    open: Mutex<HashMap<BlockId, OpenBlock>>,
}

/// What the index says to a read, without touching data.
pub enum Grant {
    /// Not here.
    Missing,
    Ready(Answer<ReadBlock>),
    /// Here, but bytes must be looked at: [`Store::read`] on the block's lane.
    Look,
    /// Some of it may be here: the UfsReader knows.
    Filling,
}

/// How a fill begins.
pub enum FillStart {
    Whole,
    Open {
        file: Arc<File>,
        present: Bitmap,
        checksums: Vec<u32>,
    },
}

impl Store {
    #[allow(
        clippy::too_many_arguments,
        reason = "a constructor lists everything it can reach"
    )]
    pub(super) fn new(
        directory: DataDir,
        (index, unsynced, left_open): (Arc<Index>, Unsynced, Vec<BlockId>),
        space: Space,
        blocks: u64,
        cached: Cached,
        options: &DiskOptions,
        being_fetched: Arc<dyn Fn() -> HashSet<BlockId> + Send + Sync>,
        lanes: Vec<Arc<dyn Offload>>,
        clock: Arc<dyn Clock>,
        news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    ) -> Self {
        assert!(!lanes.is_empty(), "a disk has a lane");
        let failing = Arc::<Failing>::default();
        let news = {
            let failing = failing.clone();
            Arc::new(move |change| news(failing.told(change)))
        };
        let place = place_of(&directory.path);
        Store {
            name: directory.path.display().to_string(),
            directory,
            index,
            space: Mutex::new(space),
            blocks: AtomicU64::new(blocks),
            fsync: options.fsync,
            clock,
            news,
            files: Recent::new(options.open_files_max),
            lanes: lanes
                .into_iter()
                .map(|offload| Lane {
                    offload,
                    open: Mutex::new(HashMap::new()),
                })
                .collect(),
            left_open: Mutex::new(LeftOpen::new(left_open)),
            in_flight: Arc::new(AtomicUsize::new(0)),
            small_blocks_fit: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            failure: Mutex::new(None),
            failing,
            ticks: AtomicU32::new(0),
            failed_ticks: AtomicU32::new(0),
            place,
            vanished: AtomicBool::new(false),
            unsynced: Mutex::new(unsynced),
            cached: Mutex::new(cached),
            departed: Mutex::default(),
            reads: Recent::new(READS_MAX),
            lent: Lent::default(),
            wishes: Mutex::default(),
            being_fetched,
            watermarks: (options.evict_high, options.evict_low),
            sinks: options.sinks,
            leaving_bytes: AtomicU64::new(0),
            sinking_bytes: AtomicU64::new(0),
            uncommitted: Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path_of_directory(&self) -> &Path {
        &self.directory.path
    }

    pub fn tier(&self) -> Tier {
        self.directory.tier
    }

    /// Does not block.
    pub fn status(&self) -> DiskStatus {
        let (cached_bytes, pinned_bytes) = {
            let cached = lock(&self.cached);
            // Those that were chosen to go are here until they have gone: their room is there for who asks next.
            let leaving_bytes = self.leaving_bytes.load(Ordering::Acquire);
            let leaving_bytes = leaving_bytes + self.sinking_bytes.load(Ordering::Acquire);
            (cached.bytes() + leaving_bytes, cached.pinned_bytes())
        };
        let space = self.space();
        let failure = lock(&self.failure).clone();
        DiskStatus {
            tier: self.directory.tier,
            path: self.name.clone(),
            capacity_bytes: space.capacity_bytes(),
            used_bytes: space.used_bytes(),
            available_bytes: if failure.is_some() {
                0
            } else {
                space.available_bytes()
            },
            blocks: self.blocks.load(Ordering::Relaxed),
            failure,
            cached_bytes,
            pinned_bytes,
        }
    }

    /// Runs work on the lane of a block, after everything given for it before. Does not block.
    pub fn on_lane(self: &Arc<Self>, block: BlockId, work: impl FnOnce(&Arc<Store>) + Send + 'static) {
        let store = self.clone();
        self.lane(block).offload.run(Box::new(move || work(&store)));
    }

    /// Runs work on some lane, for work that belongs to no block's order. Does not block.
    pub fn on_any_lane(self: &Arc<Self>, spread: u64, work: impl FnOnce(&Arc<Store>) + Send + 'static) {
        let store = self.clone();
        let lane = to_usize(spread) % self.lanes.len();
        self.lanes[lane].offload.run(Box::new(move || work(&store)));
    }

    fn lane(&self, block: BlockId) -> &Lane {
        &self.lanes[self.lane_number(block)]
    }

    fn lane_number(&self, block: BlockId) -> usize {
        to_usize(block.0) % self.lanes.len()
    }

    /// With the index as long as it is now.
    fn space(&self) -> MutexGuard<'_, Space> {
        let mut space = lock(&self.space);
        space.index_is(self.index.file_bytes());
        space
    }

    fn now_ms(&self) -> i64 {
        self.clock.wall_ns() / 1_000_000
    }

    /// True if the disk knows the block, in whatever state. Does not block.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn holds(&self, block: BlockId) -> Result<bool> {
        Ok(self.index.get(block, |_| ())?.is_some())
    }

    /// The generation of a block that is wholly here. Does not block.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn sealed_generation(&self, block: BlockId) -> Result<Option<u32>> {
        Ok(self
            .index
            .get(block, |record| record.is_sealed().then(|| record.generation()))?
            .flatten())
    }

    fn file(&self, block: BlockId) -> Result<Arc<File>> {
        if let Some(file) = self.files.get(block) {
            return Ok(file);
        }
        let path = self.path(block);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => {
                let file = Arc::new(file);
                self.files.insert(block, file.clone());
                Ok(file)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.check_in_place()?;
                Err(missing(block))
            }
            Err(error) => {
                let error = self.failed(error, block);
                self.was_unreadable(block);
                Err(error)
            }
        }
    }

    pub(super) fn path(&self, block: BlockId) -> PathBuf {
        layout::block_path(&self.directory.path, block)
    }

    /// Changes of a block's record on their way to the index. Whoever asks for the record waits for them.
    fn update(
        self: &Arc<Self>,
        block: BlockId,
        changes: Vec<Change>,
        sync: bool,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Update {
        *lock(&self.uncommitted).entry(block).or_default() += 1;
        let store = self.clone();
        let done = Box::new(move |outcome| {
            if let Entry::Occupied(mut under_way) = lock(&store.uncommitted).entry(block) {
                *under_way.get_mut() -= 1;
                if *under_way.get() == 0 {
                    under_way.remove();
                }
            }
            done(outcome);
        });
        Update { changes, sync, done }
    }

    /// Waits until the index knows all that was handed to it about a block. For the block's lane.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    fn settle(&self, block: BlockId) -> Result<()> {
        let is_settled = !lock(&self.uncommitted).contains_key(&block);
        match is_settled {
            true => Ok(()),
            false => self.index.submit_and_wait(Vec::new(), false),
        }
    }

    /// What the index has of a block, with all that was handed to it: a repeat that comes before the commit of what it
    /// repeats finds that. For the block's lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`, `NoSpace`.
    pub fn record(&self, block: BlockId) -> Result<Option<BlockRecord>> {
        self.settle(block)?;
        self.index.get(block, |record| record.to_record())?.transpose()
    }

    fn failed(&self, error: std::io::Error, block: BlockId) -> Error {
        let error = Error::from(error);
        let kind = match error.kind {
            kind @ (ErrorKind::NoSpace | ErrorKind::Overloaded) => kind,
            _ => ErrorKind::Io,
        };
        let is_of_disk = kind == ErrorKind::Io;
        if is_of_disk && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.give_up(&error);
        }
        Error::new(kind, format!("block {block} on disk {}: {error}", self.name))
    }

    /// One failed sync is enough: the kernel takes the pages for clean, so that the next sync would succeed and mean nothing.
    fn sync_failed(&self, error: std::io::Error, block: BlockId) -> Error {
        let error = self.failed(error, block);
        if error.kind == ErrorKind::Io {
            self.give_up(&error);
        }
        error
    }

    /// Whether bytes of a block that the index has are on the device by some promise: of a sync, or of the background's.
    fn is_on_device(&self, block: BlockId, record: &BlockRecord) -> bool {
        let promised = record.flags.synced || record.rewritten.is_some();
        promised || self.was_synced(block)
    }

    /// Everything of a block that is sealed has been put on the device in the background.
    fn was_synced(&self, block: BlockId) -> bool {
        self.fsync == FsyncPolicy::Periodic && !lock(&self.unsynced).has(block)
    }

    /// The file is shorter than the index says.
    fn short(&self, error: std::io::Error, block: BlockId) -> Error {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "block {block} on disk {}: its file is shorter than its index says",
                    self.name
                ),
            )
        } else {
            let error = self.failed(error, block);
            self.was_unreadable(block);
            error
        }
    }

    fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }
}

/// What a reader asks of: a newer generation has the bytes of an older one, but for those written over them since.
fn check_not_older(block: BlockId, asked: u32, here: u32) -> Result<()> {
    if asked <= here || is_planted(Bug::ForgetsGenerations) {
        Ok(())
    } else {
        Err(stale(block, asked, here))
    }
}

/// Whether a block may be read and written by whoever knows it by a generation (the worker itself does by none).
fn check_counts(block: BlockId, generation: u32, flags: BlockFlags) -> Result<()> {
    match flags.doubtful && generation > 0 {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::Unreachable,
            format!(
                "block {block}: a power cut may have undone some of it, and the masters have not said yet that it counts"
            ),
        )),
    }
}

/// A writer whose lease was given on comes too late.
fn check_fence(block: BlockId, asked: u32, fence: u32) -> Result<()> {
    match asked >= fence || is_planted(Bug::WorkerIgnoresFences) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Stale,
            format!(
                "block {block}: generation {asked} may not write it any more; whoever did has lost the lease on its file"
            ),
        )),
    }
}

fn check_not_newer(call: &WriteBlock, here: u32) -> Result<()> {
    if here <= call.generation {
        Ok(())
    } else {
        Err(stale(call.block, call.generation, here))
    }
}

fn stale(block: BlockId, asked: u32, here: u32) -> Error {
    Error::new(
        ErrorKind::Stale,
        format!("block {block}: generation {asked} was asked for and {here} is here; look the file up again"),
    )
}

pub fn missing(block: BlockId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("block {block} is not on this worker"),
    )
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
