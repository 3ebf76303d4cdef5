//! The blocks of one disk. Methods block on the disk unless they say otherwise; the Disk actor runs them on lanes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c, crc32c_combine, crc32c_of_pieces};
use curvine_protocol::cluster::{BlockReplica, DiskStatus};
use curvine_protocol::worker::{
    BlockData, BlockSealed, BlockWritten, PutBlock, ReadBlock, SealBlock, WriteBlock,
};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::index::{Change, Index, Update};
use super::layout;
use super::open_block::{OpenBlock, Piece};
use super::record::{BlockFlags, BlockRecord, BlockState, chunks_of};
use super::space::Space;
use super::{Bitmap, BlockNews, DataDir, FsyncPolicy, Removal, pieces_of};
use crate::kit::{Answer, Body, Clock, FileRange, Offload};

/// After this many failed system calls in a row the disk takes no more data.
const FAILURES_MAX: u32 = 3;
/// Blocks being written whose state is in memory, per lane; more are read back from the index when needed.
const OPEN_BLOCKS_MAX: usize = 1_024;

pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

pub struct Store {
    pub(super) directory: DataDir,
    /// The directory as people know it.
    pub(super) name: String,
    pub(super) index: Arc<Index>,
    pub(super) space: Mutex<Space>,
    pub(super) blocks: AtomicU64,
    pub(super) fsync: FsyncPolicy,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    files: quick_cache::sync::Cache<BlockId, Arc<File>>,
    lanes: Vec<Lane>,
    /// Changes that callers wait for.
    pub(super) in_flight: Arc<AtomicUsize>,
    failures: AtomicU32,
    failure: Mutex<Option<String>>,
    /// Sealed without a sync since the last background sync.
    unsynced: Mutex<Vec<BlockId>>,
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
        index: Arc<Index>,
        space: Space,
        blocks: u64,
        fsync: FsyncPolicy,
        open_files_max: usize,
        lanes: Vec<Arc<dyn Offload>>,
        clock: Arc<dyn Clock>,
        news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    ) -> Self {
        assert!(!lanes.is_empty(), "a disk has a lane");
        Store {
            name: directory.path.display().to_string(),
            directory,
            index,
            space: Mutex::new(space),
            blocks: AtomicU64::new(blocks),
            fsync,
            clock,
            news,
            files: quick_cache::sync::Cache::new(open_files_max),
            lanes: lanes
                .into_iter()
                .map(|offload| Lane {
                    offload,
                    open: Mutex::new(HashMap::new()),
                })
                .collect(),
            in_flight: Arc::new(AtomicUsize::new(0)),
            failures: AtomicU32::new(0),
            failure: Mutex::new(None),
            unsynced: Mutex::new(Vec::new()),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does not block.
    pub fn status(&self) -> DiskStatus {
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
        let lane = spread as usize % self.lanes.len();
        self.lanes[lane].offload.run(Box::new(move || work(&store)));
    }

    fn lane(&self, block: BlockId) -> &Lane {
        &self.lanes[block.0 as usize % self.lanes.len()]
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        lock(&self.space)
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

    // -----------------------------------------------------------------------------------------------------------
    // Reading

    /// Answers a read of a sealed block without looking at its bytes: the checksums go with the grant and the reader
    /// verifies. Blocks at most for opening a file.
    ///
    /// # Errors
    /// `Stale` for an older generation here; `Io`.
    pub fn grant(&self, call: &ReadBlock) -> Result<Grant> {
        enum Found {
            Look,
            Filling,
            Stale(u32),
            Range(u32, Vec<u32>),
        }
        let found = self.index.get(call.block, |record| {
            if record.is_filling() {
                return Found::Filling;
            }
            if record.generation() < call.generation {
                return Found::Stale(record.generation());
            }
            if !record.is_sealed() {
                return Found::Look;
            }
            let end = (call.offset_bytes.saturating_add(call.len_bytes.into())).min(record.len_bytes());
            let aligned = call.offset_bytes.is_multiple_of(CHUNK_BYTES)
                && (end.is_multiple_of(CHUNK_BYTES) || end == record.len_bytes());
            if call.offset_bytes >= end {
                return Found::Range(0, Vec::new());
            }
            if !aligned {
                return Found::Look;
            }
            let chunks = (call.offset_bytes / CHUNK_BYTES) as usize..chunks_of(end);
            Found::Range((end - call.offset_bytes) as u32, record.checksums(chunks))
        })?;
        Ok(match found {
            None => Grant::Missing,
            Some(Found::Look) => Grant::Look,
            Some(Found::Filling) => Grant::Filling,
            Some(Found::Stale(here)) => return Err(stale(call.block, call.generation, here)),
            Some(Found::Range(0, _)) => Grant::Ready(answer(call.offset_bytes, Vec::new(), Bytes::new())),
            Some(Found::Range(len_bytes, checksums)) => {
                let range = FileRange {
                    file: self.file(call.block)?,
                    offset_bytes: call.offset_bytes,
                    len_bytes,
                };
                let reply = BlockData {
                    offset_bytes: call.offset_bytes,
                    checksums,
                };
                Grant::Ready(Answer::with_body(reply, Body::File(range)))
            }
        })
    }

    /// Reads a range and verifies what has a checksum. For the block's lane.
    ///
    /// # Errors
    /// `NotFound`, `Stale`, `Corrupt`, `Io`.
    pub fn read(&self, call: &ReadBlock) -> Result<Answer<ReadBlock>> {
        let mut lane = lock(&self.lane(call.block).open);
        if let Some(open) = lane.get(&call.block) {
            check_not_older(call.block, call.generation, open.generation)?;
            let read = self.read_open(call, open);
            if read.as_ref().is_err_and(|error| error.kind == ErrorKind::Corrupt) {
                lane.remove(&call.block);
            }
            return read;
        }
        drop(lane);
        let record = self.record(call.block)?.ok_or_else(|| missing(call.block))?;
        check_not_older(call.block, call.generation, record.generation)?;
        let file = self.file(call.block)?;
        let len_bytes = self.len_now(&file, call.block, &record)?;
        self.read_open(call, &OpenBlock::from_record(file, record, len_bytes))
    }

    fn read_open(&self, call: &ReadBlock, open: &OpenBlock) -> Result<Answer<ReadBlock>> {
        self.read_checked(call, &open.file, open.len_bytes, |chunk| open.sum(chunk))
    }

    /// Reads a range of a block that is being filled; every chunk of it is there. `sums` are those of the chunks it
    /// touches. Any lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn read_filled(
        &self,
        call: &ReadBlock,
        file: &File,
        len_bytes: u64,
        sums: &[u32],
    ) -> Result<Answer<ReadBlock>> {
        let first = (call.offset_bytes / CHUNK_BYTES) as usize;
        self.read_checked(call, file, len_bytes, |chunk| sums.get(chunk - first).copied())
    }

    fn read_checked(
        &self,
        call: &ReadBlock,
        file: &File,
        len_bytes: u64,
        sum: impl Fn(usize) -> Option<u32>,
    ) -> Result<Answer<ReadBlock>> {
        let end = call
            .offset_bytes
            .saturating_add(call.len_bytes.into())
            .min(len_bytes);
        if call.offset_bytes >= end {
            return Ok(answer(call.offset_bytes, Vec::new(), Bytes::new()));
        }
        let chunks = (call.offset_bytes / CHUNK_BYTES) as usize..chunks_of(end);
        let start = chunks.start as u64 * CHUNK_BYTES;
        let covered = (chunks.end as u64 * CHUNK_BYTES).min(len_bytes);
        let mut buffer = BytesMut::zeroed((covered - start) as usize);
        file.read_exact_at(&mut buffer, start)
            .map_err(|e| self.short(e, call.block))?;
        let buffer = buffer.freeze();
        for (bytes, chunk) in buffer.chunks(CHUNK_BYTES as usize).zip(chunks) {
            if sum(chunk).is_some_and(|sum| sum != crc32c(bytes)) {
                return Err(self.found_corrupt(call.block, chunk));
            }
        }
        let body = buffer.slice((call.offset_bytes - start) as usize..(end - start) as usize);
        Ok(answer_with(call.offset_bytes, body))
    }

    fn file(&self, block: BlockId) -> Result<Arc<File>> {
        if let Some(file) = self.files.get(&block) {
            return Ok(file);
        }
        let path = self.path(block);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => {
                let file = Arc::new(file);
                self.files.insert(block, file.clone());
                Ok(file)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(block)),
            Err(error) => Err(self.failed(error, block)),
        }
    }

    pub(super) fn path(&self, block: BlockId) -> PathBuf {
        layout::block_path(&self.directory.path, block)
    }

    fn record(&self, block: BlockId) -> Result<Option<BlockRecord>> {
        self.index.get(block, |record| record.to_record())?.transpose()
    }

    // -----------------------------------------------------------------------------------------------------------
    // Writing. For the block's lane.

    /// Writes at an offset. `done` is told once the index knows the block.
    pub fn write(self: &Arc<Self>, call: &WriteBlock, body: &Bytes, done: Done<BlockWritten>) {
        let mut lane = lock(&self.lane(call.block).open);
        let pieces = pieces_of(call.offset_bytes, body);
        let opened = verify_body(call.block, call.checksum, &pieces)
            .and_then(|()| self.open_for_writing(&mut lane, call))
            .and_then(|created| {
                let open = lane.get_mut(&call.block).expect("opened just now");
                match self.write_open(open, call, body, &pieces) {
                    Ok(()) => Ok((open.len_bytes, created)),
                    Err(error) => {
                        self.forget_open(&mut lane, call.block, created);
                        Err(error)
                    }
                }
            });
        match opened {
            Err(error) => done(Err(error)),
            Ok((len_bytes, false)) => done(Ok(BlockWritten { len_bytes })),
            Ok((len_bytes, true)) => {
                self.blocks.fetch_add(1, Ordering::Relaxed);
                let open = &lane[&call.block];
                let record =
                    OpenBlock::new(open.file.clone(), open.generation).writing_record(self.now_ms(), false);
                drop(lane);
                let done = self.or_undone(call.block, done);
                self.index.submit(Update {
                    changes: vec![Change::Put(call.block, record.encode())],
                    sync: false,
                    done: Box::new(move |outcome| done(outcome.map(|()| BlockWritten { len_bytes }))),
                });
            }
        }
    }

    /// For a block that was just made: if the index cannot be told, nobody will know the block, so it goes again before
    /// that is said.
    fn or_undone<T: Send + 'static>(self: &Arc<Self>, block: BlockId, done: Done<T>) -> Done<T> {
        let store = self.clone();
        Box::new(move |outcome| match outcome {
            Ok(value) => done(Ok(value)),
            Err(error) => store.on_lane(block, move |store| {
                lock(&store.lane(block).open).remove(&block);
                store.blocks.fetch_sub(1, Ordering::Relaxed);
                store.discard(block);
                done(Err(error));
            }),
        })
    }

    /// Deletes the file of a block that the index does not know, and gives back its space.
    fn discard(&self, block: BlockId) {
        self.files.remove(&block);
        let path = self.path(block);
        let len_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(
                "block {block} on disk {}: {error}; the next start removes it",
                self.name
            );
        }
        self.space().give_back(len_bytes);
    }

    /// Makes sure that the lane has the block; true if it was created, and the index does not know it yet.
    fn open_for_writing(&self, lane: &mut HashMap<BlockId, OpenBlock>, call: &WriteBlock) -> Result<bool> {
        if let Some(open) = lane.get(&call.block) {
            return check_not_newer(call, open.generation).map(|()| false);
        }
        let (open, created) = match self.record(call.block)? {
            Some(record) => (self.reopen(call, record)?, false),
            None if call.base_len_bytes > 0 => {
                let doing = format!("overwriting a block of {} bytes", call.base_len_bytes);
                return Err(missing(call.block).while_doing(doing));
            }
            None => {
                self.check_usable()?;
                (OpenBlock::new(self.create(call.block)?, call.generation), true)
            }
        };
        if lane.len() >= OPEN_BLOCKS_MAX
            && let Some(&other) = lane.keys().next()
        {
            self.forget_open(lane, other, false);
        }
        lane.insert(call.block, open);
        Ok(created)
    }

    /// Drops what is in memory of a block: the next access starts from the index and the file.
    fn forget_open(&self, lane: &mut HashMap<BlockId, OpenBlock>, block: BlockId, created: bool) {
        lane.remove(&block);
        if created {
            self.files.remove(&block);
            let _ = std::fs::remove_file(self.path(block));
        } else {
            // The record of its creation may still wait for its commit.
            let _ = self.index.submit_and_wait(Vec::new(), false);
        }
    }

    fn write_open(
        &self,
        open: &mut OpenBlock,
        call: &WriteBlock,
        body: &Bytes,
        pieces: &[Piece],
    ) -> Result<()> {
        let new_generation = call.generation != open.generation;
        if new_generation && open.len_bytes < call.base_len_bytes {
            return Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "block {} has {} bytes here and {} in the namespace: this replica is out of date",
                    call.block, open.len_bytes, call.base_len_bytes
                ),
            ));
        }
        if new_generation {
            self.cut_to_base(open, call)?;
        }
        let end = call.offset_bytes + body.len() as u64;
        let growth = end.saturating_sub(open.len_bytes);
        self.space().take(growth, &self.name)?;
        let written = self.mark_and_write(open, call, body, new_generation);
        match written {
            Ok(()) => open.wrote(call.offset_bytes, pieces),
            Err(_) => self.space().give_back(growth),
        }
        written
    }

    /// The first write of a generation: what an earlier truncation hid goes away.
    fn cut_to_base(&self, open: &mut OpenBlock, call: &WriteBlock) -> Result<()> {
        let cut_bytes = open.len_bytes - call.base_len_bytes;
        open.generation = call.generation;
        if cut_bytes > 0 {
            open.cut(call.base_len_bytes);
            let record = open.writing_record(self.now_ms(), true);
            self.index
                .submit_and_wait(vec![Change::Put(call.block, record.encode())], false)?;
            open.file
                .set_len(call.base_len_bytes)
                .map_err(|e| self.failed(e, call.block))?;
            self.space().give_back(cut_bytes);
        }
        Ok(())
    }

    fn mark_and_write(
        &self,
        open: &mut OpenBlock,
        call: &WriteBlock,
        body: &Bytes,
        must_index: bool,
    ) -> Result<()> {
        let was_sealed = std::mem::take(&mut open.sealed_in_index);
        let dirty = open.mark_dirty(call.offset_bytes, body.len() as u64);
        for &(chunk, _) in dirty.iter().filter(|(_, partly)| *partly) {
            self.verify_chunk(call.block, open, chunk)?;
        }
        if was_sealed || must_index || !dirty.is_empty() {
            let record = open.writing_record(self.now_ms(), false);
            self.index
                .submit_and_wait(vec![Change::Put(call.block, record.encode())], false)?;
        }
        open.file
            .write_all_at(body, call.offset_bytes)
            .map_err(|e| self.failed(e, call.block))?;
        self.worked();
        Ok(())
    }

    fn create(&self, block: BlockId) -> Result<Arc<File>> {
        let path = self.path(block);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| self.failed(e, block))?;
        let file = Arc::new(file);
        self.files.insert(block, file.clone());
        Ok(file)
    }

    /// A block that exists, about to be written.
    fn reopen(&self, call: &WriteBlock, record: BlockRecord) -> Result<OpenBlock> {
        if let BlockState::Filling { .. } = record.state {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "block {} is being filled from its under file system; try again",
                    call.block
                ),
            ));
        }
        check_not_newer(call, record.generation)?;
        let file = self.file(call.block)?;
        let len_bytes = self.len_now(&file, call.block, &record)?;
        Ok(OpenBlock::from_record(file, record, len_bytes))
    }

    /// A block that is being written is as long as its file.
    fn len_now(&self, file: &File, block: BlockId, record: &BlockRecord) -> Result<u64> {
        match record.state {
            BlockState::Writing { .. } => Ok(file.metadata().map_err(|e| self.failed(e, block))?.len()),
            _ => Ok(record.len_bytes),
        }
    }

    fn verify_chunk(&self, block: BlockId, open: &OpenBlock, chunk: usize) -> Result<()> {
        let Some(sum) = open.sum(chunk) else { return Ok(()) };
        if self.sum_of_chunk(block, open, chunk)? == sum {
            Ok(())
        } else {
            Err(self.found_corrupt(block, chunk))
        }
    }

    fn sum_of_chunk(&self, block: BlockId, open: &OpenBlock, chunk: usize) -> Result<u32> {
        let range = open.chunk_range(chunk);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        open.file
            .read_exact_at(&mut bytes, range.start)
            .map_err(|e| self.short(e, block))?;
        Ok(crc32c(&bytes))
    }

    /// Makes what was written visible and checksummed.
    pub fn seal(self: &Arc<Self>, call: &SealBlock, done: Done<BlockSealed>) {
        let sync = call.sync || self.fsync == FsyncPolicy::OnClose;
        let record = self.seal_open(call, sync);
        match record {
            Err(error) => done(Err(error)),
            Ok((record, changed)) => self.sealed(call.block, record, sync, changed, done),
        }
    }

    fn seal_open(&self, call: &SealBlock, sync: bool) -> Result<(BlockRecord, bool)> {
        let mut lane = lock(&self.lane(call.block).open);
        let mut open = match lane.remove(&call.block) {
            Some(open) => open,
            None => {
                let record = self.record(call.block)?.ok_or_else(|| missing(call.block))?;
                check_generation(call.block, call.generation, record.generation)?;
                let file = self.file(call.block)?;
                match record.state {
                    BlockState::Sealed if record.flags.synced || !sync => return Ok((record, false)),
                    BlockState::Sealed => {
                        self.sync_file(&file, call.block)?;
                        let flags = BlockFlags {
                            synced: true,
                            ..record.flags
                        };
                        return Ok((BlockRecord { flags, ..record }, true));
                    }
                    BlockState::Filling { .. } => {
                        return Err(Error::new(
                            ErrorKind::Busy,
                            format!(
                                "block {} is being filled and cannot be sealed by a writer",
                                call.block
                            ),
                        ));
                    }
                    BlockState::Writing { .. } => {
                        let len_bytes = self.len_now(&file, call.block, &record)?;
                        OpenBlock::from_record(file, record, len_bytes)
                    }
                }
            }
        };
        if let Err(error) = check_generation(call.block, call.generation, open.generation) {
            lane.insert(call.block, open);
            return Err(error);
        }
        for chunk in open.unknown() {
            let sum = self.sum_of_chunk(call.block, &open, chunk)?;
            open.set_sum(chunk, sum);
        }
        if sync {
            self.sync_file(&open.file, call.block)?;
        }
        Ok((open.sealed_record(self.now_ms(), sync), true))
    }

    fn sync_file(&self, file: &File, block: BlockId) -> Result<()> {
        file.sync_data().map_err(|e| self.failed(e, block))?;
        // The name too: a file that was just made may have none on disk yet.
        let path = self.path(block);
        let directory = path.parent().expect("a block's path has a directory");
        File::open(directory)
            .and_then(|directory| directory.sync_data())
            .map_err(|e| self.failed(e, block))
    }

    fn sealed(
        self: &Arc<Self>,
        block: BlockId,
        record: BlockRecord,
        sync: bool,
        changed: bool,
        done: Done<BlockSealed>,
    ) {
        let replica = BlockReplica {
            id: block,
            generation: record.generation,
            len_bytes: record.len_bytes,
        };
        let sealed = BlockSealed {
            len_bytes: record.len_bytes,
        };
        if !changed {
            return done(Ok(sealed));
        }
        if !sync && self.fsync == FsyncPolicy::Periodic {
            lock(&self.unsynced).push(block);
        }
        let news = self.news.clone();
        let update = Update {
            changes: vec![Change::Put(block, record.encode())],
            sync,
            done: Box::new(move |outcome| {
                if outcome.is_ok() {
                    news(BlockNews::Stored(replica));
                }
                done(outcome.map(|()| sealed));
            }),
        };
        if self.in_flight.load(Ordering::Relaxed) <= 1 {
            self.index.submit_here(update);
        } else {
            self.index.submit(update);
        }
    }

    /// Writes and seals a whole small block: one file created, one write, one index commit shared with others.
    pub fn put(self: &Arc<Self>, call: &PutBlock, body: &Bytes, done: Done<BlockSealed>) {
        let sync = call.sync || self.fsync == FsyncPolicy::OnClose;
        match self.put_file(call, body, sync) {
            Ok((record, is_new)) => {
                let done = if is_new {
                    self.or_undone(call.block, done)
                } else {
                    done
                };
                self.sealed(call.block, record, sync, true, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// The record that the index must be told, and whether it does not know the block yet.
    fn put_file(self: &Arc<Self>, call: &PutBlock, body: &Bytes, sync: bool) -> Result<(BlockRecord, bool)> {
        let pieces = pieces_of(0, body);
        verify_body(call.block, call.checksum, &pieces)?;
        lock(&self.lane(call.block).open).remove(&call.block);
        let before = self.record(call.block)?;
        if let Some(before) = &before
            && before.generation > call.generation
        {
            return Err(stale(call.block, call.generation, before.generation));
        }
        self.check_usable()?;
        let sums = pieces.iter().map(|piece| piece.checksum).collect();
        let flags = BlockFlags {
            synced: sync,
            ..BlockFlags::default()
        };
        let record = BlockRecord::sealed(call.generation, body.len() as u64, sums, self.now_ms(), flags);
        let is_new = before.is_none();
        self.put_bytes(call.block, &record, before, std::slice::from_ref(body))?;
        if sync {
            let synced = self
                .file(call.block)
                .and_then(|file| self.sync_file(&file, call.block));
            if let Err(error) = synced {
                if is_new {
                    self.blocks.fetch_sub(1, Ordering::Relaxed);
                    self.discard(call.block);
                }
                return Err(error);
            }
        }
        Ok((record, is_new))
    }

    fn put_bytes(
        self: &Arc<Self>,
        block: BlockId,
        record: &BlockRecord,
        before: Option<BlockRecord>,
        body: &[Bytes],
    ) -> Result<()> {
        match before {
            None => {
                self.space().take(record.len_bytes, &self.name)?;
                let written = self
                    .create(block)
                    .and_then(|file| self.write_pieces(&file, block, 0, body));
                if let Err(error) = written {
                    self.space().give_back(record.len_bytes);
                    self.files.remove(&block);
                    let _ = std::fs::remove_file(self.path(block));
                    return Err(error);
                }
                self.blocks.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {
                let file = self.file(block)?;
                let old_len = file.metadata().map_err(|e| self.failed(e, block))?.len();
                self.space()
                    .take(record.len_bytes.saturating_sub(old_len), &self.name)?;
                let writing =
                    OpenBlock::new(file.clone(), record.generation).writing_record(self.now_ms(), false);
                self.index
                    .submit_and_wait(vec![Change::Put(block, writing.encode())], false)?;
                file.set_len(record.len_bytes)
                    .map_err(|e| self.failed(e, block))?;
                self.space().give_back(old_len.saturating_sub(record.len_bytes));
                self.write_pieces(&file, block, 0, body)?;
            }
        }
        self.worked();
        Ok(())
    }

    // -----------------------------------------------------------------------------------------------------------
    // Filling from an under file system

    /// Stores a whole block that was fetched in one go. For the block's lane. The checksums are computed here.
    pub fn put_fetched(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        body: &[Bytes],
        done: Done<BlockSealed>,
    ) {
        let stored = || -> Result<Option<(BlockRecord, bool)>> {
            let before = self.record(block)?;
            match &before {
                Some(before) if before.generation > generation => {
                    return Err(stale(block, generation, before.generation));
                }
                Some(before) if before.generation == generation && before.state == BlockState::Sealed => {
                    return Ok(None);
                }
                _ => self.check_usable()?,
            }
            let len_bytes = body.iter().map(|piece| piece.len() as u64).sum();
            let flags = BlockFlags {
                from_ufs: true,
                ..BlockFlags::default()
            };
            let record =
                BlockRecord::sealed(generation, len_bytes, rope_checksums(body), self.now_ms(), flags);
            let is_new = before.is_none();
            self.put_bytes(block, &record, before, body)?;
            Ok(Some((record, is_new)))
        };
        match stored() {
            Ok(Some((record, is_new))) => {
                let done = if is_new { self.or_undone(block, done) } else { done };
                self.sealed(block, record, false, true, done);
            }
            Ok(None) => done(Ok(BlockSealed {
                len_bytes: body.iter().map(|piece| piece.len() as u64).sum(),
            })),
            Err(error) => done(Err(error)),
        }
    }

    /// Begins or goes on filling a block. Sets aside all of its space. For the block's lane.
    ///
    /// # Errors
    /// `NoSpace`, `Stale`, `Io`.
    pub fn fill_begin(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        len_bytes: u64,
    ) -> Result<FillStart> {
        if let Some(record) = self.record(block)? {
            match record.state {
                _ if record.generation > generation => {
                    return Err(stale(block, generation, record.generation));
                }
                BlockState::Sealed if record.generation == generation && record.len_bytes == len_bytes => {
                    return Ok(FillStart::Whole);
                }
                BlockState::Filling { present }
                    if record.generation == generation && record.len_bytes == len_bytes =>
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
                _ => self.remove(block)?,
            }
        }
        self.check_usable()?;
        self.space().take(len_bytes, &self.name)?;
        let file = match self.create(block).and_then(|file| {
            file.set_len(len_bytes).map_err(|e| self.failed(e, block))?;
            Ok(file)
        }) {
            Ok(file) => file,
            Err(error) => {
                self.space().give_back(len_bytes);
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
                ..BlockFlags::default()
            },
        };
        if let Err(error) = self
            .index
            .submit_and_wait(vec![Change::Put(block, record.encode())], false)
        {
            self.discard(block);
            return Err(error);
        }
        self.blocks.fetch_add(1, Ordering::Relaxed);
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
    pub fn fill_save(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        len_bytes: u64,
        present: Bitmap,
        checksums: Vec<u32>,
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
        let flags = BlockFlags {
            from_ufs: true,
            ..BlockFlags::default()
        };
        if present.is_full() {
            let record = BlockRecord::sealed(generation, len_bytes, checksums, self.now_ms(), flags);
            return self.sealed(
                block,
                record,
                false,
                true,
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
        };
        self.index.submit(Update {
            changes: vec![Change::Put(block, record.encode())],
            sync: false,
            done: Box::new(move |outcome| done(outcome.map(|()| false))),
        });
    }

    fn write_pieces(&self, file: &File, block: BlockId, offset_bytes: u64, body: &[Bytes]) -> Result<()> {
        if let [body] = body {
            return file
                .write_all_at(body, offset_bytes)
                .map_err(|e| self.failed(e, block));
        }
        let mut slices: Vec<IoSlice<'_>> = body.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut slices = &mut slices[..];
        let mut at = offset_bytes;
        // At most IOV_MAX pieces a call.
        const SLICES_MAX: usize = 1_024;
        while !slices.is_empty() {
            let written = match rustix::io::pwritev(file, &slices[..slices.len().min(SLICES_MAX)], at) {
                Ok(0) => return Err(self.failed(std::io::ErrorKind::WriteZero.into(), block)),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(self.failed(errno.into(), block)),
            };
            at += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------------------------
    // Removing and failing

    /// [`Self::remove`], unless the block is of a newer generation than the order is for. For the block's lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_unless_newer(self: &Arc<Self>, removal: Removal) -> Result<()> {
        let block = removal.block;
        if let Some(upto) = removal.upto_generation {
            let open = lock(&self.lane(block).open)
                .get(&block)
                .map(|open| open.generation);
            let here = match open {
                Some(generation) => Some(generation),
                None => self.index.get(block, |record| record.generation())?,
            };
            if here.is_some_and(|here| here > upto) {
                return Ok(());
            }
        }
        self.remove(block)
    }

    /// Removes a block, if it is here. For the block's lane. Grants that were given stay good.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self: &Arc<Self>, block: BlockId) -> Result<()> {
        let open = lock(&self.lane(block).open).remove(&block);
        if open.is_some() {
            // The record of its creation may still wait for its commit.
            self.index.submit_and_wait(Vec::new(), false)?;
        }
        self.files.remove(&block);
        let Some((len_bytes, writing)) = self.index.get(block, |record| {
            (record.len_bytes(), !record.is_sealed() && !record.is_filling())
        })?
        else {
            return Ok(());
        };
        let path = self.path(block);
        let len_bytes = match (open, writing) {
            (Some(open), _) => open.len_bytes,
            (None, true) => std::fs::metadata(&path).map_or(len_bytes, |metadata| metadata.len()),
            (None, false) => len_bytes,
        };
        self.index.submit_and_wait(vec![Change::Delete(block)], false)?;
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.space().give_back(len_bytes);
        (self.news)(BlockNews::Removed(block));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error, block)),
            _ => Ok(()),
        }
    }

    /// A chunk fails its checksum: the replica goes, aside if it may be the only one.
    fn found_corrupt(&self, block: BlockId, chunk: usize) -> Error {
        let error = Error::new(
            ErrorKind::Corrupt,
            format!(
                "block {block} on disk {}: chunk {chunk} (bytes {}..) fails its checksum; the replica was taken out of use",
                self.name,
                chunk as u64 * CHUNK_BYTES
            ),
        );
        tracing::error!("{error}");
        let Ok(Some(record)) = self.record(block) else {
            return error;
        };
        self.files.remove(&block);
        let path = self.path(block);
        let kept = if record.flags.from_ufs {
            Ok(())
        } else {
            std::fs::rename(
                &path,
                layout::quarantine_path(&self.directory.path, block, record.generation),
            )
        };
        if let Err(aside) = kept {
            tracing::error!("block {block} could not be put aside: {aside}");
            return error;
        }
        if let Err(failed) = self.index.submit_and_wait(vec![Change::Delete(block)], false) {
            tracing::error!("block {block} could not be taken out of the index: {failed}");
            return error;
        }
        if record.flags.from_ufs {
            let _ = std::fs::remove_file(&path);
        }
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.space().give_back(record.len_bytes);
        (self.news)(BlockNews::Removed(block));
        error
    }

    fn check_usable(&self) -> Result<()> {
        match &*lock(&self.failure) {
            None => Ok(()),
            Some(failure) => Err(Error::new(
                ErrorKind::Io,
                format!("disk {} takes no more data: {failure}", self.name),
            )),
        }
    }

    fn failed(&self, error: std::io::Error, block: BlockId) -> Error {
        let error = Error::from(error);
        let full = error.kind == ErrorKind::NoSpace;
        if !full && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            let mut failure = lock(&self.failure);
            if failure.is_none() {
                tracing::error!("disk {} has failed and takes no more data: {error}", self.name);
                *failure = Some(error.message.clone());
            }
        }
        let kind = if full { ErrorKind::NoSpace } else { ErrorKind::Io };
        Error::new(kind, format!("block {block} on disk {}: {error}", self.name))
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
            self.failed(error, block)
        }
    }

    fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    // -----------------------------------------------------------------------------------------------------------
    // Background

    /// Measures the device.
    ///
    /// # Errors
    /// `Io`.
    pub fn measure(&self) -> Result<()> {
        let device = rustix::fs::statvfs(&self.directory.path).map_err(|e| {
            Error::from(std::io::Error::from(e)).while_doing(format_args!("measuring {}", self.name))
        })?;
        self.space().measured(device.f_bavail * device.f_frsize);
        Ok(())
    }

    /// Puts on disk what was sealed without a sync, and the index.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync_background(&self) -> Result<()> {
        /// Above this many, one sync of the whole file system is cheaper.
        const SINGLE_SYNCS_MAX: usize = 64;
        let unsynced = std::mem::take(&mut *lock(&self.unsynced));
        if unsynced.len() > SINGLE_SYNCS_MAX {
            self.sync_everything()?;
        } else {
            let mut outcome = Ok(());
            for block in unsynced {
                let synced = match self.file(block) {
                    Ok(file) => file.sync_data().map_err(|e| self.failed(e, block)),
                    Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(error),
                };
                // One that fails keeps no other from the disk.
                outcome = outcome.and(synced);
            }
            outcome?;
        }
        self.index.sync()
    }

    fn sync_everything(&self) -> Result<()> {
        let directory = File::open(&self.directory.path).map_err(Error::from)?;
        rustix::fs::syncfs(&directory).map_err(|e| {
            Error::from(std::io::Error::from(e)).while_doing(format_args!("syncing {}", self.name))
        })
    }

    /// Everything on disk, and noted so that the next start need not verify. The last thing a disk does.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(&self) -> Result<()> {
        self.sync_everything()?;
        self.index.set_boot_note(super::recovery::CLEAN)
    }

    /// Up to `limit` blocks that are wholly here, after one; the last id looked at, none at the end.
    ///
    /// # Errors
    /// `Io`.
    pub fn replicas(
        &self,
        after: Option<BlockId>,
        limit: usize,
    ) -> Result<(Vec<BlockReplica>, Option<BlockId>)> {
        let mut replicas = Vec::new();
        let last = self.index.page(after, limit, |id, record| {
            if let Ok(record) = record
                && !record.is_filling()
            {
                replicas.push(BlockReplica {
                    id,
                    generation: record.generation(),
                    len_bytes: record.len_bytes(),
                });
            }
        })?;
        Ok((replicas, last))
    }
}

/// The checksums of the chunks of bytes that lie in several pieces and begin at a chunk's start.
fn rope_checksums(body: &[Bytes]) -> Vec<u32> {
    let mut sums = Vec::new();
    let mut chunk: Vec<&[u8]> = Vec::new();
    let mut room = CHUNK_BYTES as usize;
    for piece in body {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(room));
            chunk.push(head);
            room -= head.len();
            rest = tail;
            if room == 0 {
                sums.push(crc32c_of_pieces(chunk.drain(..)));
                room = CHUNK_BYTES as usize;
            }
        }
    }
    if !chunk.is_empty() {
        sums.push(crc32c_of_pieces(chunk));
    }
    sums
}

fn verify_body(block: BlockId, checksum: u32, pieces: &[Piece]) -> Result<()> {
    let whole = pieces
        .iter()
        .map(|piece| (piece.checksum, piece.len_bytes))
        .reduce(|(whole, len), (next, next_len)| (crc32c_combine(whole, next, next_len), len + next_len));
    // The checksum of nothing is 0.
    if whole.map_or(0, |(whole, _)| whole) == checksum {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("the bytes for block {block} fail their checksum on arrival; send them again"),
        ))
    }
}

fn answer(offset_bytes: u64, checksums: Vec<u32>, body: Bytes) -> Answer<ReadBlock> {
    let reply = BlockData {
        offset_bytes,
        checksums,
    };
    Answer::with_body(reply, Body::Bytes(body))
}

/// The answer to a read of these bytes; their checksums are computed here.
pub fn answer_with(offset_bytes: u64, body: Bytes) -> Answer<ReadBlock> {
    let sums = pieces_of(offset_bytes, &body)
        .into_iter()
        .map(|piece| piece.checksum)
        .collect();
    answer(offset_bytes, sums, body)
}

fn check_generation(block: BlockId, asked: u32, here: u32) -> Result<()> {
    if asked == here {
        Ok(())
    } else {
        Err(stale(block, asked, here))
    }
}

/// What a reader asks of: a newer generation has the bytes of an older one, but for those written over them since.
fn check_not_older(block: BlockId, asked: u32, here: u32) -> Result<()> {
    if asked <= here {
        Ok(())
    } else {
        Err(stale(block, asked, here))
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

pub(super) fn missing(block: BlockId) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("block {block} is not on this worker"),
    )
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
