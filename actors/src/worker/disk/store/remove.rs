//! Removing blocks, on order and for being corrupt.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::Gone;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::index::Change;
use super::super::victims::goes_aside;
use super::super::{BlockNews, Removal, layout};
use super::{Store, lock};
use crate::kit::metrics;
use crate::planted::{Bug, is_planted};

/// Of blocks that were set aside, the master is told of so many.
const SET_ASIDE_TOLD: usize = 8_192;

impl Store {
    /// [`Self::remove`], unless the block is of a newer generation than the order is for. For the block's lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_unless_newer(self: &Arc<Self>, removal: Removal) -> Result<()> {
        let block = removal.block;
        self.settle(block)?;
        if removal.upto_generation.is_some() {
            let open = lock(&self.lane(block).open)
                .get(&block)
                .map(|open| open.generation);
            let here = match open {
                Some(generation) => Some(generation),
                None => self.index.get(block, |record| record.generation())?,
            };
            if here.is_some_and(|here| !removal.takes(here)) {
                return Ok(());
            }
        }
        if self.remove(block)? {
            self.went(block, Gone::Ordered);
        }
        Ok(())
    }

    /// Removes a block; false if it is not here. For the block's lane. Grants that were given stay good.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self: &Arc<Self>, block: BlockId) -> Result<bool> {
        self.remove_and(block, false, |news| (self.news)(news))
    }

    /// Removes a block of which another disk of the worker has a later one: nobody is told. For the block's lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_double(self: &Arc<Self>, block: BlockId) -> Result<()> {
        self.remove_and(block, false, drop).map(drop)
    }

    /// A guest goes on the device, like anything that is to.
    pub(super) fn remove_and(
        self: &Arc<Self>,
        block: BlockId,
        sync: bool,
        told: impl FnOnce(BlockNews),
    ) -> Result<bool> {
        let open = lock(&self.lane(block).open).remove(&block);
        self.settle(block)?;
        self.files.remove(block);
        let Some((len_bytes, writing, in_index, is_guest)) = self.index.get(block, |record| {
            let writing = !record.is_sealed() && !record.is_filling();
            (
                record.len_bytes(),
                writing,
                record.is_in_index(),
                record.is_guest(),
            )
        })?
        else {
            return Ok(false);
        };
        let path = self.path(block);
        let len_bytes = match (open, writing) {
            (Some(open), _) => open.len_bytes,
            (None, true) => std::fs::metadata(&path).map_or(len_bytes, |metadata| metadata.len()),
            (None, false) => len_bytes,
        };
        // Nothing older comes back after what it is a copy of was changed.
        self.index
            .submit_and_wait(vec![Change::Delete(block)], sync || is_guest)?;
        self.is_cached_no_more(block);
        if !is_guest {
            self.blocks.fetch_sub(1, Ordering::Relaxed);
            told(BlockNews::Removed(block));
        }
        if in_index {
            return Ok(true);
        }
        if is_planted(Bug::FreesUnderReaders)
            && let Ok(file) = File::options().write(true).open(&path)
        {
            let _ = file.set_len(0);
        }
        let removed = std::fs::remove_file(&path);
        // Whoever was about to read it may have opened it since.
        self.files.remove(block);
        self.frees(block, len_bytes);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error, block)),
            _ => Ok(true),
        }
    }

    /// A chunk fails its checksum: the replica goes, aside if it may be the only one.
    pub(super) fn found_corrupt(&self, block: BlockId, chunk: usize) -> Error {
        let offset_bytes = chunk as u64 * CHUNK_BYTES;
        self.out_of_use(
            block,
            format_args!("chunk {chunk} (bytes {offset_bytes}..) fails its checksum"),
        )
    }

    /// The file of a block is not where it belongs: somebody has removed it. The replica goes.
    pub(super) fn found_gone(&self, block: BlockId) -> Error {
        if let Err(error) = self.check_in_place() {
            return error;
        }
        let path = self.path(block);
        self.out_of_use(block, format_args!("its file {} is not there", path.display()))
    }

    /// The file of a sealed block is shorter than the block: somebody has cut it, or the disk has lost it. The replica goes.
    pub(super) fn found_short(&self, block: BlockId) -> Error {
        self.out_of_use(block, format_args!("its file is shorter than its index says"))
    }

    /// Whether the file of a sealed block is not where it belongs, whoever has it open. For the block's lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_gone(&self, block: BlockId) -> Result<bool> {
        self.settle(block)?;
        let has_file = self
            .index
            .get(block, |record| record.is_sealed() && !record.is_in_index())?;
        let is_there = !matches!(self.path(block).try_exists(), Ok(false));
        Ok(has_file == Some(true) && !is_there && self.check_in_place().is_ok())
    }

    /// [`Self::found_gone`], if it is so. For the block's lane.
    ///
    /// # Errors
    /// `Corrupt` if it is so; `Io`.
    pub fn check_there(&self, block: BlockId) -> Result<()> {
        if !self.is_gone(block)? {
            return Ok(());
        }
        lock(&self.lane(block).open).remove(&block);
        Err(self.found_gone(block))
    }

    fn out_of_use(&self, block: BlockId, why: std::fmt::Arguments<'_>) -> Error {
        let message = format!(
            "block {block} on disk {}: {why}; the replica was taken out of use",
            self.name
        );
        let error = Error::new(ErrorKind::Corrupt, message);
        self.take_out_of_use(block, &error);
        error
    }

    fn take_out_of_use(&self, block: BlockId, error: &Error) {
        tracing::error!("{error}");
        metrics::CORRUPT_BLOCKS.add(1);
        let Ok(Some(record)) = self.record(block) else {
            return;
        };
        self.files.remove(block);
        let path = self.path(block);
        let aside = layout::quarantine_path(&self.directory.path, block, record.generation);
        let kept = if !goes_aside(record.flags) {
            Ok(())
        } else if record.flags.in_index {
            let content = self
                .index
                .get_with_content(block, |_, content| content.map(<[u8]>::to_vec));
            std::fs::write(&aside, content.ok().flatten().flatten().unwrap_or_default())
        } else {
            self.note_sums(block, &record);
            match std::fs::rename(&path, &aside) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                renamed => renamed,
            }
        };
        if let Err(aside) = kept {
            tracing::error!("block {block} could not be put aside: {aside}");
            return;
        }
        if let Err(failed) = self.index.submit_and_wait(vec![Change::Delete(block)], false) {
            tracing::error!("block {block} could not be taken out of the index: {failed}");
            return;
        }
        if !goes_aside(record.flags) && !record.flags.in_index {
            let _ = std::fs::remove_file(&path);
        }
        self.is_cached_no_more(block);
        self.went(block, Gone::Corrupt);
        if !record.flags.in_index {
            self.frees(block, record.len_bytes);
        }
        if !record.flags.guest {
            self.blocks.fetch_sub(1, Ordering::Relaxed);
            (self.news)(match goes_aside(record.flags) {
                true => BlockNews::Damaged(block),
                false => BlockNews::Removed(block),
            });
        }
    }

    /// The blocks of which replicas were set aside, the first of them.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_aside(&self) -> Result<BTreeSet<BlockId>> {
        if self.check_in_place().is_err() {
            return Ok(BTreeSet::new());
        }
        layout::set_aside(&self.directory.path, SET_ASIDE_TOLD)
    }

    /// Removes what was set aside of blocks: it is of no use to anybody.
    ///
    /// # Errors
    /// `Io`.
    pub fn discard_aside(&self, blocks: &BTreeSet<BlockId>) -> Result<()> {
        layout::discard(&self.directory.path, blocks)
    }
}
