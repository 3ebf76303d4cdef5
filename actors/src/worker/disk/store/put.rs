//! Whole blocks at once, written or fetched. For the block's lane.

use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use curvine_conf::FsyncPolicy;
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c_combine, crc32c_of_pieces};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockSealed, PutBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, MountId, Result};

use super::super::Numbers;
use super::super::device::write_vectored_at;
use super::super::index::Change;
use super::super::open_block::{OpenBlock, Piece};
use super::super::pieces_of;
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::{Done, Store, check_fence, lock, stale};

impl Store {
    /// Writes and seals a whole block: one index commit, shared with others, and a file if it is not small.
    pub fn put(self: &Arc<Self>, call: &PutBlock, body: &Bytes, done: Done<BlockSealed>) {
        let sync = call.sync || self.fsync == FsyncPolicy::OnClose;
        let checked = || -> Result<(BlockRecord, Option<BlockRecord>)> {
            let pieces = pieces_of(0, body);
            verify_body(call.block, call.checksum, &pieces)?;
            let mut lane = lock(&self.lane(call.block).open);
            let before = self.record(call.block)?;
            let known = match lane.get(&call.block) {
                Some(open) => Some((open.generation, open.numbers)),
                None => (before.as_ref()).map(|before| (before.generation, before.numbers)),
            };
            let known = known.filter(|(generation, _)| *generation == call.generation);
            let mut numbers = known.map_or_else(Numbers::default, |(_, numbers)| numbers);
            numbers.admit(call.block, &call.order, self.index.life())?;
            numbers.seal(&call.order);
            lane.remove(&call.block);
            drop(lane);
            if let Some(before) = &before
                && before.generation > call.generation
            {
                return Err(stale(call.block, call.generation, before.generation));
            }
            if before.is_some() {
                check_fence(call.block, call.generation, self.index.fence(call.block)?)?;
            }
            self.check_usable()?;
            let sums = pieces.iter().map(|piece| piece.checksum).collect();
            let flags = BlockFlags {
                synced: sync,
                ..BlockFlags::default()
            };
            let record = BlockRecord::sealed(call.generation, body.len() as u64, sums, self.now_ms(), flags);
            Ok((BlockRecord { numbers, ..record }, before))
        };
        match checked() {
            Ok((record, before)) => {
                self.put_whole(call.block, record, before, std::slice::from_ref(body), sync, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Stores a whole block that was fetched in one go. For the block's lane. The checksums are computed here.
    pub fn put_fetched(
        self: &Arc<Self>,
        block: BlockId,
        generation: u32,
        body: &[Bytes],
        mount: MountId,
        done: Done<BlockSealed>,
    ) {
        let len_bytes = body.iter().map(|piece| piece.len() as u64).sum();
        let wanted = || -> Result<Option<(BlockRecord, Option<BlockRecord>)>> {
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
            let flags = BlockFlags {
                from_ufs: true,
                pinned: before.as_ref().is_some_and(|before| before.flags.pinned),
                ..BlockFlags::default()
            };
            let sums = rope_checksums(body);
            let record = BlockRecord::sealed(generation, len_bytes, sums, self.now_ms(), flags);
            Ok(Some((record.of_mount(Some(mount)), before)))
        };
        match wanted() {
            Ok(Some((record, before))) => {
                let in_index = self.goes_to_index(&record, before.as_ref());
                let flags = BlockFlags {
                    in_index,
                    ..record.flags
                };
                let fetched = BlockRecord {
                    flags,
                    ..record.clone()
                };
                let (store, failed) = (self.clone(), Arc::new(AtomicBool::new(false)));
                let has_failed = failed.clone();
                let stored = move |outcome: Result<BlockSealed>| {
                    if outcome.is_err() {
                        has_failed.store(true, Ordering::SeqCst);
                        store.is_cached_no_more(block);
                    }
                    done(outcome);
                };
                self.put_whole(block, record, before, body, false, Box::new(stored));
                self.is_cached(block, &fetched);
                // Whichever comes last of the two.
                if failed.load(Ordering::SeqCst) {
                    self.is_cached_no_more(block);
                }
            }
            Ok(None) => done(Ok(BlockSealed {
                len_bytes,
                life: self.index.life(),
                hole_bytes: 0,
            })),
            Err(error) => done(Err(error)),
        }
    }

    /// Stores the bytes of a sealed block where they belong: small ones in the index, unless the block has a file already.
    pub(super) fn put_whole(
        self: &Arc<Self>,
        block: BlockId,
        record: BlockRecord,
        before: Option<BlockRecord>,
        body: &[Bytes],
        sync: bool,
        done: Done<BlockSealed>,
    ) {
        if self.goes_to_index(&record, before.as_ref()) {
            return self.put_small(block, record, before, body, sync, done);
        }
        let is_new = before.is_none();
        match self.put_file(block, &record, before, body, sync) {
            Ok(()) if is_new => self.sealed(block, record, None, sync, self.or_undone(block, done)),
            Ok(()) => self.sealed(block, record, None, sync, done),
            Err(error) => done(Err(error)),
        }
    }

    fn goes_to_index(&self, record: &BlockRecord, before: Option<&BlockRecord>) -> bool {
        self.is_small(record.len_bytes) && before.is_none_or(|before| before.flags.in_index)
    }

    /// Everything but what the index is told in the end.
    fn put_file(
        &self,
        block: BlockId,
        record: &BlockRecord,
        before: Option<BlockRecord>,
        body: &[Bytes],
        sync: bool,
    ) -> Result<()> {
        let is_new = before.is_none();
        self.put_bytes(block, record, before, body)?;
        if sync && let Err(error) = self.file(block).and_then(|file| self.sync_file(&file, block)) {
            if is_new {
                self.blocks.fetch_sub(1, Ordering::Relaxed);
                self.discard(block);
            }
            return Err(error);
        }
        Ok(())
    }

    fn put_bytes(
        &self,
        block: BlockId,
        record: &BlockRecord,
        before: Option<BlockRecord>,
        body: &[Bytes],
    ) -> Result<()> {
        match before {
            None => {
                self.space().lengthen(block, 0, record.len_bytes, &self.name)?;
                let written = self
                    .create(block)
                    .and_then(|file| self.write_pieces(&file, block, 0, body));
                if let Err(error) = written {
                    self.space().shorten(record.len_bytes, 0);
                    self.drop_file(block);
                    return Err(error);
                }
                self.blocks.fetch_add(1, Ordering::Relaxed);
            }
            Some(before) => {
                let before = self.give_file(block, before)?;
                let on_device = self.is_on_device(block, &before);
                let old_len = self
                    .file(block)?
                    .metadata()
                    .map_err(|e| self.failed(e, block))?
                    .len();
                let mut open = OpenBlock::from_record(self.file(block)?, before, old_len);
                open.synced |= on_device;
                self.keep_lent(&mut open, block, 0)?;
                let file = open.file;
                self.space()
                    .lengthen(block, old_len, record.len_bytes, &self.name)?;
                let writing =
                    OpenBlock::new(file.clone(), record.generation).writing_record(self.now_ms(), false);
                self.index
                    .submit_and_wait(vec![Change::Put(block, writing.encode())], on_device)?;
                self.is_cached_no_more(block);
                file.set_len(record.len_bytes)
                    .map_err(|e| self.failed(e, block))?;
                self.space().shorten(old_len, record.len_bytes);
                self.write_pieces(&file, block, 0, body)?;
            }
        }
        self.worked();
        Ok(())
    }

    pub(super) fn write_pieces(
        &self,
        file: &File,
        block: BlockId,
        offset_bytes: u64,
        body: &[Bytes],
    ) -> Result<()> {
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
            let written = match write_vectored_at(file, &slices[..slices.len().min(SLICES_MAX)], at) {
                Ok(0) => return Err(self.failed(std::io::ErrorKind::WriteZero.into(), block)),
                Ok(written) => written,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error, block)),
            };
            at += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }
}

/// The checksums of the chunks of bytes that lie in several pieces and begin at a chunk's start.
pub(super) fn rope_checksums(body: &[Bytes]) -> Vec<u32> {
    let mut sums = Vec::new();
    let mut chunk: Vec<&[u8]> = Vec::new();
    let mut room = to_usize(CHUNK_BYTES);
    for piece in body {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(room));
            chunk.push(head);
            room -= head.len();
            rest = tail;
            if room == 0 {
                sums.push(crc32c_of_pieces(chunk.drain(..)));
                room = to_usize(CHUNK_BYTES);
            }
        }
    }
    if !chunk.is_empty() {
        sums.push(crc32c_of_pieces(chunk));
    }
    sums
}

pub(super) fn verify_body(block: BlockId, checksum: u32, pieces: &[Piece]) -> Result<()> {
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
