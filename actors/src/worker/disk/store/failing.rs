//! Disks that have failed, and blocks that could not be read.
//!
//! A disk that has failed takes no more data. What is on it is served as long as it can be read, but others are to have it as
//! if it were not there: the master hears that the blocks are endangered. If not even the index can be read, it hears of none.
//! What is cached is given up: it is fetched again, to another disk. All this lasts until the worker is started again.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::record::RecordView;
use super::super::{BlockNews, layout};
use super::{Store, lock};

/// Ticks from one probe of a disk to the next.
const PROBE_TICKS: u32 = 10;

/// Ticks in a row in which the background work fails, until the disk counts as failed.
const FAILED_TICKS_MAX: u32 = 3;

/// Whether an error says that a device does not work, or that its file system is given up.
fn is_of_device(error: &std::io::Error) -> bool {
    let of_device = [
        libc::EIO,
        libc::EROFS,
        libc::ENODEV,
        libc::ENXIO,
        libc::ESHUTDOWN,
        libc::EUCLEAN,
    ];
    error.raw_os_error().is_some_and(|code| of_device.contains(&code))
}

/// What of a disk is endangered.
#[derive(Default)]
pub struct Failing {
    whole: AtomicBool,
    /// There are such blocks. Reads look at this alone.
    any: AtomicBool,
    /// Of a disk that has not failed: what could not be read.
    blocks: Mutex<BTreeSet<BlockId>>,
}

impl Failing {
    /// News as the master should hear them.
    pub fn told(&self, news: BlockNews) -> BlockNews {
        match news {
            BlockNews::Stored(replica) if self.has(replica.id) => BlockNews::Endangered(replica),
            other => other,
        }
    }

    fn has(&self, block: BlockId) -> bool {
        let some = || self.any.load(Ordering::Acquire) && lock(&self.blocks).contains(&block);
        self.whole.load(Ordering::Acquire) || some()
    }
}

impl Store {
    /// Whether a block here may not be read again.
    pub fn is_endangered(&self, block: BlockId) -> bool {
        self.failing.has(block)
    }

    /// Whether what is here of a block is not worth keeping: it is cached, and may not be read again.
    pub(super) fn is_given_up(&self, block: BlockId, record: &RecordView<'_>) -> bool {
        record.is_from_ufs() && self.is_endangered(block)
    }

    /// Whether the disk has failed.
    pub fn has_failed(&self) -> bool {
        self.failing.whole.load(Ordering::Acquire)
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        match &*lock(&self.failure) {
            None => Ok(()),
            Some(failure) => Err(Error::new(
                ErrorKind::Io,
                format!("disk {} takes no more data: {failure}", self.name),
            )),
        }
    }

    /// The disk has failed. The first error is the one that is shown.
    pub(super) fn give_up(&self, error: &Error) {
        {
            let mut failure = lock(&self.failure);
            if failure.is_some() {
                return;
            }
            *failure = Some(error.message.clone());
        }
        tracing::error!(
            "disk {} has failed and takes no more data until the worker is started again: {error}",
            self.name
        );
        self.failing.whole.store(true, Ordering::Release);
        (self.news)(BlockNews::Everything);
    }

    /// The index could not be read.
    pub fn cannot_be_read(&self, error: &Error) {
        tracing::debug!(%error, "the index of disk {} cannot be read", self.name);
        self.give_up(error);
    }

    /// Writes a little, every few ticks, and puts it on the device: a disk that nobody uses just now may have failed as well.
    /// For the background thread.
    pub fn probe(&self) {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        if !tick.is_multiple_of(PROBE_TICKS) || !self.tier().lasts() || self.has_failed() {
            return;
        }
        let path = layout::probe_path(self.path_of_directory());
        let probed = File::create(&path).and_then(|file| {
            file.write_all_at(b"written to see that this disk can be written\n", 0)
                .and(file.sync_data())
        });
        match probed {
            Err(error) if is_of_device(&error) => {
                let error = Error::from(error).while_doing(format_args!("writing {}", path.display()));
                self.give_up(&error);
            }
            Err(error) => tracing::debug!(%error, "the disk {} was not probed", self.name),
            Ok(()) => {}
        }
    }

    /// The background work of a tick has ended. If it fails tick after tick, so has the disk: an index that cannot be changed any
    /// more says so here alone.
    pub fn ticked(&self, done: &Result<()>) {
        let of_others = [ErrorKind::NoSpace, ErrorKind::Overloaded];
        let is_failure = matches!(done, Err(error) if !of_others.contains(&error.kind));
        let failed = match is_failure {
            true => self.failed_ticks.fetch_add(1, Ordering::Relaxed) + 1,
            false => self.failed_ticks.swap(0, Ordering::Relaxed),
        };
        if let Err(error) = done
            && is_failure
            && failed >= FAILED_TICKS_MAX
        {
            self.give_up(error);
        }
    }

    /// A block could not be read, which its checksum says nothing about.
    pub(super) fn was_unreadable(&self, block: BlockId) {
        let is_new = lock(&self.failing.blocks).insert(block);
        self.failing.any.store(true, Ordering::Release);
        if !is_new || self.has_failed() {
            return;
        }
        let replica = self.index.get(block, |record| {
            let is_told = !record.is_filling() && !record.is_guest();
            is_told.then(|| BlockReplica {
                id: block,
                generation: record.generation(),
                len_bytes: record.len_bytes(),
            })
        });
        if let Ok(Some(Some(replica))) = replica {
            (self.news)(BlockNews::Stored(replica));
        }
    }
}
