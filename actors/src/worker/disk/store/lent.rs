//! Files of blocks that are lent to readers on this host.
//!
//! A reader has a descriptor of its own, with which it reads the file and does nothing else.
//!
//! Invariants:
//! - Only what is sealed is lent. Its bytes stay what they are: whoever is to change some of them does so in a copy, which
//!   takes the file's place first.
//! - A block whose file is lent is not evicted. If it goes otherwise, or the file loses its place, the space of the file comes
//!   free when the last reader has given it back, not before.
//! - No more than half of a disk is lent, so that there is always something that may go.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{LENT_CHUNKS_MAX, LentBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::layout;
use super::super::open_block::OpenBlock;
use super::super::record::{BlockState, chunks_of};
use super::super::space::on_device;
use super::{Store, check_counts, lock, missing, stale};
use crate::kit::metrics;

/// Files that are lent at the same time.
const LENT_MAX: usize = 1 << 16;
/// Bytes of a file that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// What is lent of a disk.
#[derive(Default)]
pub struct Lent {
    /// Those that have their place. A reader's [`Loan`] is what keeps an entry.
    files: Mutex<HashMap<BlockId, Weak<Loan>>>,
    bytes: AtomicU64,
}

/// A file that readers have. It is given back when this is dropped.
pub struct Loan {
    store: Arc<Store>,
    block: BlockId,
    len_bytes: u64,
    /// How long the file was when it lost its place, if it has.
    lost_bytes: AtomicU64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        let lent = &self.store.lent;
        lent.bytes.fetch_sub(on_device(self.len_bytes), Ordering::AcqRel);
        // Another loan of the block may have come meanwhile.
        let mut files = lock(&lent.files);
        if files
            .get(&self.block)
            .is_some_and(|loan| loan.strong_count() == 0)
        {
            files.remove(&self.block);
        }
        drop(files);
        let lost_bytes = self.lost_bytes.load(Ordering::Acquire);
        if lost_bytes > 0 {
            self.store.space().shorten(lost_bytes, 0);
        }
    }
}

/// A block's file, for a reader.
pub struct LentFile {
    pub block: LentBlock,
    /// Open for reading alone.
    pub file: File,
    pub loan: Arc<Loan>,
}

impl Lent {
    fn of(&self, block: BlockId) -> Option<Arc<Loan>> {
        lock(&self.files).get(&block).and_then(Weak::upgrade)
    }

    pub fn has(&self, block: BlockId) -> bool {
        self.bytes.load(Ordering::Acquire) > 0 && self.of(block).is_some()
    }
}

impl Store {
    /// Lends the file of a block. For the block's lane.
    ///
    /// # Errors
    /// As [`curvine_protocol::worker::HostReply`].
    pub fn lend(self: &Arc<Self>, block: BlockId, generation: u32) -> Result<LentFile> {
        if lock(&self.lane(block).open).contains_key(&block) {
            return Err(missing(block).while_doing("it is being written"));
        }
        let record = self.record(block)?.ok_or_else(|| missing(block))?;
        if record.state != BlockState::Sealed {
            return Err(missing(block).while_doing("not all of it is here"));
        }
        if record.generation != generation {
            return Err(stale(block, generation, record.generation));
        }
        check_counts(block, generation, record.flags)?;
        if self.is_endangered(block) {
            return Err(missing(block).while_doing("its disk fails"));
        }
        if record.flags.in_index || chunks_of(record.len_bytes) > LENT_CHUNKS_MAX {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("block {block} is not lent: it is not in a file, or too long"),
            ));
        }
        let file = File::open(self.path(block));
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(block),
            _ => self.failed(error, block),
        })?;
        let is_short = file
            .metadata()
            .is_ok_and(|metadata| metadata.len() < record.len_bytes);
        if is_short {
            return Err(self.found_short(block));
        }
        let loan = self.loan(block, record.len_bytes)?;
        if record.flags.from_ufs || record.flags.guest {
            self.used(block, None);
        }
        self.was_read(block);
        metrics::LENT_BLOCKS.add(1);
        Ok(LentFile {
            block: LentBlock {
                len_bytes: record.len_bytes,
                checksums: record.checksums,
            },
            file,
            loan,
        })
    }

    /// Whether a reader on this host has the file of a block.
    pub fn is_lent(&self, block: BlockId) -> bool {
        self.lent.has(block)
    }

    fn loan(self: &Arc<Self>, block: BlockId, len_bytes: u64) -> Result<Arc<Loan>> {
        let capacity_bytes = self.space().capacity_bytes();
        let mut files = lock(&self.lent.files);
        if let Some(loan) = files.get(&block).and_then(Weak::upgrade) {
            return Ok(loan);
        }
        let lent_bytes = self.lent.bytes.load(Ordering::Acquire) + on_device(len_bytes);
        if files.len() >= LENT_MAX || lent_bytes > capacity_bytes / 2 {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("disk {}: half of it is lent to readers on this host", self.name),
            ));
        }
        self.lent.bytes.fetch_add(on_device(len_bytes), Ordering::AcqRel);
        let loan = Arc::new(Loan {
            store: self.clone(),
            block,
            len_bytes,
            lost_bytes: AtomicU64::new(0),
        });
        files.insert(block, Arc::downgrade(&loan));
        Ok(loan)
    }

    /// The file of a block is not in its place any more, with so many bytes: their space comes free, now or when readers have
    /// given it back.
    pub(super) fn frees(&self, block: BlockId, len_bytes: u64) {
        let loan = lock(&self.lent.files).remove(&block);
        match loan.and_then(|loan| loan.upgrade()) {
            Some(loan) => loan.lost_bytes.store(len_bytes, Ordering::Release),
            None => self.space().shorten(len_bytes, 0),
        }
    }

    /// What a change of a block from an offset on takes besides what is added to it.
    pub(super) fn copied_bytes(&self, block: BlockId, from_bytes: u64, len_bytes: u64) -> u64 {
        let loan = self.lent.of(block).filter(|loan| from_bytes < loan.len_bytes);
        loan.map_or(0, |_| on_device(len_bytes))
    }

    /// Before bytes of a block from an offset on change: whoever has its file keeps it as it is. For the block's lane.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: nothing has changed.
    pub(super) fn keep_lent(&self, open: &mut OpenBlock, block: BlockId, from_bytes: u64) -> Result<()> {
        let Some(loan) = self.lent.of(block).filter(|loan| from_bytes < loan.len_bytes) else {
            return Ok(());
        };
        let len_bytes = open.len_bytes;
        self.space().lengthen(block, 0, len_bytes, &self.name)?;
        let path = layout::copy_path(&self.directory.path, block, open.generation);
        let placed = copy_of(&open.file, &path, len_bytes).and_then(|file| {
            if open.synced {
                file.sync_data()?;
            }
            std::fs::rename(&path, self.path(block))?;
            Ok(file)
        });
        let file = placed.map_err(|error| {
            let _ = std::fs::remove_file(&path);
            self.space().shorten(len_bytes, 0);
            self.failed(error, block)
        })?;
        open.file = Arc::new(file);
        self.files.insert(block, open.file.clone());
        drop(loan);
        self.frees(block, len_bytes);
        Ok(())
    }
}

/// A file with the first bytes of another one, under a name that nobody has. Zeros become holes.
fn copy_of(from: &File, path: &std::path::Path, len_bytes: u64) -> std::io::Result<File> {
    let to = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    to.set_len(len_bytes)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len_bytes {
        let part = to_usize(len_bytes - at).min(COPY_BYTES);
        let part = &mut buffer[..part];
        from.read_exact_at(part, at)?;
        if part.iter().any(|byte| *byte != 0) {
            to.write_all_at(part, at)?;
        }
        at += part.len() as u64;
    }
    Ok(to)
}
