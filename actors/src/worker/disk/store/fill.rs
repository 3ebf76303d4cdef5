//! Filling blocks from an under file system, bit by bit.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::{BlockId, Error, ErrorKind, MountId, Result};

use super::super::Bitmap;
use super::super::Numbers;
use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, BlockState, chunks_of};
use super::put::rope_checksums;
use super::{Done, FillStart, Store, lock, missing, stale};

impl Store {
    /// Begins or goes on filling a block. Sets aside all of its space. For the block's lane.
    ///
    /// # Errors
    /// `NoSpace`, `Stale`, `Io`.
    pub fn fill_begin(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        len_bytes: u64,
        mount: MountId,
    ) -> Result<FillStart> {
        let mut pinned = false;
        if let Some(record) = self.record(block)? {
            // Another version of the object takes the place of this one.
            pinned = record.flags.pinned;
            match record.state {
                _ if record.generation > generation => {
                    return Err(stale(block, generation, record.generation));
                }
                BlockState::Sealed if record.generation == generation && record.len_bytes == len_bytes => {
                    return Ok(FillStart::Whole);
                }
                BlockState::Filling { present }
                    if record.generation == generation
                        && record.len_bytes == len_bytes
                        && self.file(block).is_ok() =>
                {
                    return Ok(FillStart::Open {
                        file: self.file(block)?,
                        present,
                        checksums: record.checksums,
                    });
                }
                BlockState::Writing { .. } => {
                    return Err(Error::new(
                        ErrorKind::Busy,
                        format!("block {block} is being written and cannot be filled"),
                    ));
                }
                _ => drop(self.remove(block)?),
            }
        }
        self.check_usable()?;
        self.space().lengthen(block, 0, len_bytes, &self.name)?;
        let file = match self.create(block).and_then(|file| {
            file.set_len(len_bytes).map_err(|e| self.failed(e, block))?;
            Ok(file)
        }) {
            Ok(file) => file,
            Err(error) => {
                self.space().shorten(len_bytes, 0);
                return Err(error);
            }
        };
        let record = BlockRecord {
            generation,
            state: BlockState::Filling {
                present: Bitmap::new(chunks_of(len_bytes)),
            },
            len_bytes,
            checksums: vec![0; chunks_of(len_bytes)],
            accessed_ms: self.now_ms(),
            flags: BlockFlags {
                from_ufs: true,
                pinned,
                ..BlockFlags::default()
            },
            rewritten: None,
            round: 0,
            numbers: Numbers::default(),
            mount: Some(mount),
        };
        if let Err(error) = self
            .index
            .submit_and_wait(vec![Change::Put(block, record.encode())], false)
        {
            self.discard(block);
            return Err(error);
        }
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.is_cached(block, &record);
        let BlockState::Filling { present } = record.state else {
            unreachable!("made above")
        };
        Ok(FillStart::Open {
            file,
            present,
            checksums: record.checksums,
        })
    }

    /// Writes fetched bytes, which begin at a chunk's start, and returns the checksums of their chunks. Any lane.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn fill_write(
        &self,
        file: &File,
        block: BlockId,
        offset_bytes: u64,
        body: &[Bytes],
    ) -> Result<Vec<u32>> {
        assert_eq!(offset_bytes % CHUNK_BYTES, 0, "fills are aligned to chunks");
        let sums = rope_checksums(body);
        self.write_pieces(file, block, offset_bytes, body)?;
        self.worked();
        Ok(sums)
    }

    /// Keeps how far a fill has come, or seals the block if everything is there. For the block's lane.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are what the record of the block is made of"
    )]
    pub fn fill_save(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        len_bytes: u64,
        present: Bitmap,
        checksums: Vec<u32>,
        mount: MountId,
        done: Done<bool>,
    ) {
        match self.index.get(block, |record| {
            record.is_filling() && record.generation() == generation
        }) {
            Ok(Some(true)) => {}
            Ok(_) => {
                return done(Err(
                    missing(block).while_doing("the block was dropped while it was filled")
                ));
            }
            Err(error) => return done(Err(error)),
        }
        // As this lane last had it, be it committed or not.
        let pinned = lock(&self.cached).is_pinned(block);
        let flags = BlockFlags {
            from_ufs: true,
            pinned,
            ..BlockFlags::default()
        };
        if present.is_full() {
            let record = BlockRecord::sealed(generation, len_bytes, checksums, self.now_ms(), flags)
                .of_mount(Some(mount));
            return self.sealed(
                block,
                record,
                None,
                false,
                Box::new(move |outcome| done(outcome.map(|_| true))),
            );
        }
        let record = BlockRecord {
            generation,
            state: BlockState::Filling { present },
            len_bytes,
            checksums,
            accessed_ms: self.now_ms(),
            flags,
            rewritten: None,
            round: 0,
            numbers: Numbers::default(),
            mount: Some(mount),
        };
        let changes = vec![Change::Put(block, record.encode())];
        let saved = move |outcome: Result<()>| done(outcome.map(|()| false));
        self.index.submit(self.update(block, changes, false, saved));
    }
}
