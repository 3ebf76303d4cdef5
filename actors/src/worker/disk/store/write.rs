//! Writing blocks bit by bit, and sealing them. For the block's lane.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_conf::FsyncPolicy;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockSealed, BlockWritten, SealBlock, WriteBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::index::Change;
use super::super::open_block::{OpenBlock, Piece};
use super::super::order::{Numbers, lost};
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::super::victims::forgotten_for_one_more;
use super::super::{BlockNews, pieces_of};
use super::put::verify_body;
use super::{Done, OPEN_BLOCKS_MAX, Store, check_counts, check_fence, check_not_newer, lock, missing, stale};
use crate::planted::{Bug, is_planted};

impl Store {
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
            Ok((len_bytes, false)) => done(Ok(self.written(len_bytes))),
            Ok((len_bytes, true)) => {
                self.blocks.fetch_add(1, Ordering::Relaxed);
                let open = &lane[&call.block];
                let record =
                    OpenBlock::new(open.file.clone(), open.generation).writing_record(self.now_ms(), false);
                let written = self.written(len_bytes);
                // Masters hear of it at once: if it is nobody's any more, they have it deleted.
                let begun = BlockReplica {
                    id: call.block,
                    generation: record.generation,
                    len_bytes: 0,
                };
                let news = (!is_planted(Bug::BegunBlocksAreNotTold)).then(|| self.news.clone());
                drop(lane);
                let done = self.or_undone(call.block, done);
                let changes = vec![Change::Put(call.block, record.encode())];
                self.index
                    .submit(self.update(call.block, changes, false, move |outcome| {
                        if let (Ok(()), Some(news)) = (&outcome, news) {
                            news(BlockNews::Stored(begun));
                        }
                        done(outcome.map(|()| written));
                    }));
            }
        }
    }

    pub(super) fn written(&self, len_bytes: u64) -> BlockWritten {
        let life = self.index.life();
        BlockWritten { len_bytes, life }
    }

    /// For a block that was just made: if the index cannot be told, nobody will know the block, so it goes again before
    /// that is said.
    pub(super) fn or_undone<T: Send + 'static>(self: &Arc<Self>, block: BlockId, done: Done<T>) -> Done<T> {
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
    pub(super) fn discard(&self, block: BlockId) {
        self.files.remove(block);
        let path = self.path(block);
        let len_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(
                "block {block} on disk {}: {error}; the next start removes it",
                self.name
            );
        }
        self.space().shorten(len_bytes, 0);
    }

    /// Makes sure that the lane has the block; true if it was created, and the index does not know it yet.
    pub(super) fn open_for_writing(
        &self,
        lane: &mut HashMap<BlockId, OpenBlock>,
        call: &WriteBlock,
    ) -> Result<bool> {
        if let Some(open) = lane.get(&call.block) {
            check_not_newer(call, open.generation)?;
            check_fence(call.block, call.generation, open.fence)?;
            self.admitted(call, open)?;
            return Ok(false);
        }
        let (open, created) = match self.record(call.block)? {
            Some(record) => (self.reopen(call, record)?, false),
            None if call.base_len_bytes > 0 => {
                let doing = format!("overwriting a block of {} bytes", call.base_len_bytes);
                return Err(missing(call.block).while_doing(doing));
            }
            None if call.order.has > 0 => return Err(lost(call.block)),
            None => {
                self.check_usable()?;
                (OpenBlock::new(self.create(call.block)?, call.generation), true)
            }
        };
        if let Some(other) = forgotten_for_one_more(lane, OPEN_BLOCKS_MAX) {
            self.forget_open(lane, other, false);
        }
        lane.insert(call.block, open);
        Ok(created)
    }

    /// Drops what is in memory of a block: the next access starts from the index and the file.
    pub(super) fn forget_open(&self, lane: &mut HashMap<BlockId, OpenBlock>, block: BlockId, created: bool) {
        let open = lane.remove(&block);
        if created {
            self.drop_file(block);
        } else {
            let _ = open.map_or(Ok(()), |open| self.keep_numbers(block, &open));
            lock(&self.left_open).insert(block);
        }
    }

    /// Has the index know how far the changes of a block have come that is forgotten here: those that come late are
    /// refused as before.
    fn keep_numbers(&self, block: BlockId, open: &OpenBlock) -> Result<()> {
        match self.record(block)? {
            Some(record) if record.generation == open.generation && record.numbers != open.numbers => {
                let numbers = open.numbers;
                let record = BlockRecord { numbers, ..record };
                let changes = vec![Change::Put(block, record.encode())];
                self.index.submit_and_wait(changes, false)
            }
            _ => Ok(()),
        }
    }

    /// How far the changes of a block have come with this one, if it may be made.
    fn admitted(&self, call: &WriteBlock, open: &OpenBlock) -> Result<Numbers> {
        let mut numbers = match call.generation == open.generation {
            true => open.numbers,
            false => Numbers::default(),
        };
        numbers.admit(call.block, &call.order, self.index.life())?;
        Ok(numbers)
    }

    fn write_open(
        &self,
        open: &mut OpenBlock,
        call: &WriteBlock,
        body: &Bytes,
        pieces: &[Piece],
    ) -> Result<()> {
        let new_generation = self.take_generation(open, call)?;
        let end = call.offset_bytes + body.len() as u64;
        let before = open.len_bytes;
        self.space().lengthen(call.block, before, end, &self.name)?;
        let written = self
            .mark(open, call.block, call.offset_bytes..end, new_generation)
            .and_then(|()| {
                let written = open.file.write_all_at(body, call.offset_bytes);
                written.map_err(|e| self.failed(e, call.block))
            });
        match written {
            Ok(()) => {
                self.worked();
                open.wrote(call.offset_bytes, pieces);
            }
            Err(_) => self.space().shorten(end, before),
        }
        written
    }

    /// The call may be the first of its generation: then the block is cut to what it was in the namespace. Whether it is.
    pub(super) fn take_generation(&self, open: &mut OpenBlock, call: &WriteBlock) -> Result<bool> {
        let is_new = call.generation != open.generation;
        if is_new && open.len_bytes < call.base_len_bytes {
            return Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "block {} has {} bytes here and {} in the namespace: this replica is out of date",
                    call.block, open.len_bytes, call.base_len_bytes
                ),
            ));
        }
        open.numbers = self.admitted(call, open)?;
        if is_new {
            self.cut_to_base(open, call)?;
        }
        Ok(is_new)
    }

    /// The first write of a generation: what an earlier truncation hid goes away.
    fn cut_to_base(&self, open: &mut OpenBlock, call: &WriteBlock) -> Result<()> {
        let cut_bytes = open.len_bytes - call.base_len_bytes;
        if cut_bytes > 0 {
            self.keep_lent(open, call.block, call.base_len_bytes)?;
        }
        if let Some(chunk) = open.cut_in_part(call.base_len_bytes) {
            self.verify_chunk(call.block, open, chunk)?;
        }
        open.generation = call.generation;
        if cut_bytes > 0 {
            open.cut(call.base_len_bytes);
            let record = open.writing_record(self.now_ms(), true);
            self.index
                .submit_and_wait(vec![Change::Put(call.block, record.encode())], open.synced)?;
            self.is_cached_no_more(call.block);
            open.file
                .set_len(call.base_len_bytes)
                .map_err(|e| self.failed(e, call.block))?;
            self.space()
                .shorten(call.base_len_bytes + cut_bytes, call.base_len_bytes);
        }
        Ok(())
    }

    /// Has the index say that a range is about to be changed.
    pub(super) fn mark(
        &self,
        open: &mut OpenBlock,
        block: BlockId,
        range: Range<u64>,
        must_index: bool,
    ) -> Result<()> {
        if !range.is_empty() {
            self.keep_lent(open, block, range.start)?;
        }
        let was_sealed = std::mem::take(&mut open.sealed_in_index);
        for chunk in open.must_verify(range.start, range.end - range.start) {
            self.verify_chunk(block, open, chunk)?;
        }
        let dirty = open.mark_dirty(range.start, range.end - range.start);
        if was_sealed || must_index || !dirty.is_empty() {
            let record = open.writing_record(self.now_ms(), false);
            // A power cut between the write and the mark must not make bytes that were synced look corrupt.
            let sync = open.synced && !dirty.is_empty();
            self.index
                .submit_and_wait(vec![Change::Put(block, record.encode())], sync)?;
            self.is_cached_no_more(block);
        }
        Ok(())
    }

    pub(super) fn create(&self, block: BlockId) -> Result<Arc<File>> {
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

    /// Takes back what [`Self::create`] made. What cannot be deleted now goes at the next start.
    pub(super) fn drop_file(&self, block: BlockId) {
        self.files.remove(block);
        let _ = std::fs::remove_file(self.path(block));
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
        let fence = self.index.fence(call.block)?;
        check_fence(call.block, call.generation, fence)?;
        let flags = record.flags;
        let record = self.give_file(call.block, record)?;
        let file = self.file(call.block)?;
        let len_bytes = self.len_now(&file, call.block, &record)?;
        let synced = self.is_on_device(call.block, &record);
        let rewritten = match self.was_synced(call.block) {
            true => None,
            false => record.rewritten,
        };
        let record = BlockRecord { rewritten, ..record };
        let mut open = OpenBlock::from_record(file, record, len_bytes);
        open.synced |= synced;
        open.fence = fence;
        self.admitted(call, &open)?;
        check_counts(call.block, call.generation, flags)?;
        Ok(open)
    }

    /// A block that is being written is as long as its file.
    pub(super) fn len_now(&self, file: &File, block: BlockId, record: &BlockRecord) -> Result<u64> {
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
        let mut bytes = vec![0; to_usize(range.end - range.start)];
        open.file
            .read_exact_at(&mut bytes, range.start)
            .map_err(|e| self.short(e, block))?;
        Ok(crc32c(&bytes))
    }

    /// Makes what was written visible and checksummed.
    pub fn seal(self: &Arc<Self>, call: &SealBlock, done: Done<BlockSealed>) {
        let sync = call.sync || self.fsync == FsyncPolicy::OnClose;
        match self.seal_open(call, sync) {
            Err(error) => done(Err(error)),
            Ok((record, false)) => {
                let hole_bytes = self.hole_bytes(call.block, &record);
                done(Ok(BlockSealed {
                    hole_bytes,
                    ..self.as_sealed(&record)
                }));
            }
            Ok((record, true)) => {
                let hole_bytes = self.hole_bytes(call.block, &record);
                let with_holes = move |sealed| BlockSealed { hole_bytes, ..sealed };
                let done = Box::new(move |outcome: Result<_>| done(outcome.map(with_holes)));
                self.sealed(call.block, record, None, sync, done);
            }
        }
    }

    /// The record of the sealed block, and whether the index has another one.
    pub(super) fn seal_open(&self, call: &SealBlock, sync: bool) -> Result<(BlockRecord, bool)> {
        let mut lane = lock(&self.lane(call.block).open);
        let mut open = match lane.remove(&call.block) {
            Some(open) => open,
            None => {
                let record = self.record(call.block)?;
                let mut record = record.ok_or_else(|| match call.order.has {
                    0 => missing(call.block),
                    _ => lost(call.block),
                })?;
                self.check_sealed(call, record.generation, &mut record.numbers)?;
                check_counts(call.block, call.generation, record.flags)?;
                if !call.or_newer {
                    check_fence(call.block, call.generation, self.index.fence(call.block)?)?;
                }
                let is_new = record.numbers.seal(&call.order);
                if record.state == BlockState::Sealed && (record.flags.synced || !sync) {
                    return Ok((record, is_new));
                }
                match record.state {
                    BlockState::Sealed => {
                        // A small one is synced with its record.
                        if !record.flags.in_index {
                            self.sync_file(&*self.file(call.block)?, call.block)?;
                        }
                        let flags = BlockFlags {
                            synced: true,
                            ..record.flags
                        };
                        let record = BlockRecord {
                            flags,
                            rewritten: None,
                            round: 0,
                            ..record
                        };
                        return Ok((record, true));
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
                        let file = self.file(call.block)?;
                        let len_bytes = self.len_now(&file, call.block, &record)?;
                        OpenBlock::from_record(file, record, len_bytes)
                    }
                }
            }
        };
        let fenced = match call.or_newer {
            true => Ok(()),
            false => check_fence(call.block, call.generation, open.fence),
        };
        let mut numbers = open.numbers;
        let may_be = fenced.and_then(|()| self.check_sealed(call, open.generation, &mut numbers));
        if let Err(error) = may_be {
            lane.insert(call.block, open);
            return Err(error);
        }
        numbers.seal(&call.order);
        open.numbers = numbers;
        for chunk in open.unknown() {
            let sum = self.sum_of_chunk(call.block, &open, chunk)?;
            open.set_sum(chunk, sum);
        }
        if sync {
            self.sync_file(&open.file, call.block)?;
        }
        Ok((open.sealed_record(self.now_ms(), sync), true))
    }

    fn check_sealed(&self, call: &SealBlock, here: u32, numbers: &mut Numbers) -> Result<()> {
        match here.cmp(&call.generation) {
            std::cmp::Ordering::Equal => numbers.admit(call.block, &call.order, self.index.life()),
            std::cmp::Ordering::Greater if call.or_newer => Ok(()),
            // The index was led back to before this writer.
            std::cmp::Ordering::Less if call.order.has > 0 => Err(lost(call.block)),
            _ => Err(stale(call.block, call.generation, here)),
        }
    }

    pub(super) fn sync_file(&self, file: &File, block: BlockId) -> Result<()> {
        self.check_usable()?;
        if is_planted(Bug::SaysItSynced) {
            return Ok(());
        }
        // The name too: a file that was just made may have none on disk yet.
        let path = self.path(block);
        let directory = path.parent().expect("a block's path has a directory");
        file.sync_data()
            .and_then(|()| File::open(directory)?.sync_data())
            .map_err(|e| self.sync_failed(e, block))
    }

    pub(super) fn as_sealed(&self, record: &BlockRecord) -> BlockSealed {
        BlockSealed {
            len_bytes: record.len_bytes,
            life: self.index.life(),
            hole_bytes: 0,
        }
    }

    /// A block is about to be sealed in the index: as this record, of which the masters are to hear so.
    pub(super) fn sealing(
        &self,
        block: BlockId,
        mut record: BlockRecord,
        sync: bool,
    ) -> (BlockRecord, BlockNews) {
        if !sync && !record.flags.in_index && self.fsync == FsyncPolicy::Periodic {
            let round = lock(&self.unsynced).sealed(block);
            if record.rewritten.is_some() {
                record.round = round;
            }
        }
        let replica = BlockReplica {
            id: block,
            generation: record.generation,
            len_bytes: record.len_bytes,
        };
        let news = match record.flags.doubtful {
            true => BlockNews::Doubtful(replica),
            false => BlockNews::Stored(replica),
        };
        (record, news)
    }

    pub(super) fn sealed(
        self: &Arc<Self>,
        block: BlockId,
        record: BlockRecord,
        content: Option<Change>,
        sync: bool,
        done: Done<BlockSealed>,
    ) {
        let sealed = self.as_sealed(&record);
        let (record, is_stored) = self.sealing(block, record, sync);
        let news = self.news.clone();
        if is_planted(Bug::EvictsKeptBlocks) {
            self.is_cached(block, &record);
        }
        let record = Change::Put(block, record.encode());
        let changes = std::iter::once(record).chain(content).collect();
        let update = self.update(block, changes, sync, move |outcome| {
            if outcome.is_ok() {
                news(is_stored);
            }
            done(outcome.map(|()| sealed));
        });
        if self.in_flight.load(Ordering::Relaxed) <= 1 {
            self.index.submit_here(update);
        } else {
            self.index.submit(update);
        }
    }
}
