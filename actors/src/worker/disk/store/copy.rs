//! Replicas that are made from those of other workers.
//!
//! Until a replica is whole and on the device, it is a file beside those of blocks, which a start removes: no half of one is
//! ever served or reported.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::BlockSealed;
use curvine_protocol::{BlockRef, Error, ErrorKind, Result};

use super::super::layout;
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::put::rope_checksums;
use super::{Done, Store, check_fence, lock};

/// A replica in the making. Dropped, nothing is left of it.
pub struct Copying {
    store: Arc<Store>,
    block: BlockRef,
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Of what was written: from the beginning on, in whole chunks but for the last.
    pub(super) checksums: Vec<u32>,
    written_bytes: u64,
    pub(super) is_kept: bool,
}

impl Drop for Copying {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = std::fs::remove_file(&self.path);
            self.store.space().shorten(self.block.len_bytes, 0);
        }
    }
}

impl Store {
    /// Whether a replica is here already. For the block's lane.
    ///
    /// # Errors
    /// `Busy` if something else is here, `Stale` if a lease was given on that this generation is older than.
    fn has_replica(&self, block: &BlockRef) -> Result<bool> {
        let is_open = lock(&self.lane(block.id).open).contains_key(&block.id);
        match self.record(block.id)? {
            Some(here)
                if here.state == BlockState::Sealed
                    && here.generation == block.generation
                    && here.len_bytes >= block.len_bytes
                    && !here.flags.doubtful
                    && !is_open =>
            {
                Ok(true)
            }
            None if !is_open => {
                check_fence(block.id, block.generation, self.index.fence(block.id)?)?;
                Ok(false)
            }
            _ => Err(Error::new(
                ErrorKind::Busy,
                format!("another replica of block {} is here, and goes first", block.id),
            )),
        }
    }

    fn replica_record(&self, block: &BlockRef, checksums: Vec<u32>) -> BlockRecord {
        let flags = BlockFlags {
            synced: true,
            ..BlockFlags::default()
        };
        BlockRecord::sealed(block.generation, block.len_bytes, checksums, self.now_ms(), flags)
    }

    /// Keeps a short replica, all of which is here. For the block's lane.
    pub fn put_replica(self: &Arc<Self>, block: BlockRef, body: Bytes, done: Done<()>) {
        let begun = || -> Result<bool> {
            let is_here = self.has_replica(&block)?;
            self.check_usable()?;
            Ok(is_here)
        };
        match begun() {
            Ok(true) => done(Ok(())),
            Ok(false) => {
                let record = self.replica_record(&block, rope_checksums(std::slice::from_ref(&body)));
                let done = Box::new(move |sealed: Result<BlockSealed>| done(sealed.map(drop)));
                self.put_whole(block.id, record, None, std::slice::from_ref(&body), true, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Begins a long one, and sets aside its space. None if it is here. For the block's lane.
    ///
    /// # Errors
    /// Those of [`Store::has_replica`]; `NoSpace`, `Io`.
    pub fn copy_begin(self: &Arc<Self>, block: BlockRef) -> Result<Option<Copying>> {
        if self.has_replica(&block)? {
            return Ok(None);
        }
        self.check_usable()?;
        self.space().lengthen(block.id, 0, block.len_bytes, &self.name)?;
        let path = layout::copy_path(&self.directory.path, block.id, block.generation);
        let file = match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) => {
                self.space().shorten(block.len_bytes, 0);
                return Err(match error.kind() {
                    std::io::ErrorKind::AlreadyExists => Error::new(
                        ErrorKind::Busy,
                        format!("a replica of block {} is being made already", block.id),
                    ),
                    _ => self.failed(error, block.id),
                });
            }
        };
        Ok(Some(Copying {
            store: self.clone(),
            block,
            file,
            path,
            checksums: Vec::new(),
            written_bytes: 0,
            is_kept: false,
        }))
    }

    /// Keeps what [`Copying`] has, all of it: on the device before the index knows it. For the block's lane.
    pub fn copy_end(self: &Arc<Self>, mut copying: Copying, done: Done<()>) {
        let block = copying.block;
        let mut placed = || -> Result<bool> {
            if self.has_replica(&block)? {
                return Ok(false);
            }
            if copying.written_bytes != block.len_bytes {
                return Err(Error::internal(format!(
                    "a replica of block {} is not whole",
                    block.id
                )));
            }
            std::fs::rename(&copying.path, self.path(block.id)).map_err(|e| self.failed(e, block.id))?;
            copying.is_kept = true;
            self.blocks.fetch_add(1, Ordering::Relaxed);
            self.sync_file(&copying.file, block.id)?;
            Ok(true)
        };
        match placed() {
            Ok(true) => {
                let record = self.replica_record(&block, std::mem::take(&mut copying.checksums));
                let done = Box::new(move |sealed: Result<BlockSealed>| done(sealed.map(drop)));
                self.sealed(block.id, record, None, true, self.or_undone(block.id, done));
            }
            Ok(false) => done(Ok(())),
            Err(error) => {
                if copying.is_kept {
                    self.blocks.fetch_sub(1, Ordering::Relaxed);
                    self.discard(block.id);
                }
                done(Err(error));
            }
        }
    }
}

impl Copying {
    /// Adds bytes, which have been verified. All but the last have whole chunks. On any lane.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn write(&mut self, bytes: &Bytes) -> Result<()> {
        assert_eq!(
            self.written_bytes % CHUNK_BYTES,
            0,
            "only the last piece is short"
        );
        self.file
            .write_all_at(bytes, self.written_bytes)
            .map_err(|e| self.store.failed(e, self.block.id))?;
        self.checksums.extend(rope_checksums(std::slice::from_ref(bytes)));
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}
