//! Reading blocks.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{BlockData, ReadBlock};
use curvine_protocol::{ErrorKind, Result};

use super::super::open_block::OpenBlock;
use super::super::pieces_of;
use super::super::record::{BlockState, chunks_of, is_content_of};
use super::{Grant, Store, check_counts, check_not_older, lock, missing, stale};
use crate::kit::{Answer, Body, FileRange};
use crate::planted::{Bug, is_planted};

impl Store {
    /// Answers a read of a sealed block without looking at its bytes: the checksums go with the grant and the reader
    /// verifies. Blocks at most for opening a file.
    ///
    /// # Errors
    /// `Stale` for an older generation here; `Io`.
    pub fn grant(&self, call: &ReadBlock) -> Result<Grant> {
        enum Found {
            Look,
            Filling,
            /// It is cached, and fetched again elsewhere.
            GivenUp,
            Stale(u32),
            Range(u32, Vec<u32>),
            Bytes(Bytes, Vec<u32>),
        }
        let mut is_cached = false;
        let mut wished = None;
        let found = self.index.get_with_content(call.block, |record, content| {
            is_cached = record.is_from_ufs() || record.is_guest();
            wished = (call.tier.said()).filter(|tier| *tier != record.tier());
            if self.is_given_up(call.block, &record) {
                return Found::GivenUp;
            }
            if record.is_filling() {
                return Found::Filling;
            }
            if call.generation > 0 && record.is_doubtful() {
                return Found::Look;
            }
            let is_older = record.generation() < call.generation && !is_planted(Bug::ForgetsGenerations);
            if is_older || is_other(call, record.generation()) {
                return Found::Stale(record.generation());
            }
            if !record.is_sealed() {
                return match call.exact {
                    true => Found::Stale(record.generation()),
                    false => Found::Look,
                };
            }
            let end = (call.offset_bytes.saturating_add(call.len_bytes.into())).min(record.len_bytes());
            let aligned = call.offset_bytes.is_multiple_of(CHUNK_BYTES)
                && (end.is_multiple_of(CHUNK_BYTES) || end == record.len_bytes());
            if call.offset_bytes >= end {
                return Found::Range(0, Vec::new());
            }
            let chunks = to_usize(call.offset_bytes / CHUNK_BYTES)..chunks_of(end);
            if let Some(content) = content {
                let bytes = Bytes::copy_from_slice(&content[to_usize(call.offset_bytes)..to_usize(end)]);
                return match aligned {
                    true => Found::Bytes(bytes, record.checksums(chunks)),
                    false if is_content_of(&record.checksums(0..1), content) => {
                        let sum = crc32c(&bytes);
                        Found::Bytes(bytes, vec![sum])
                    }
                    false => Found::Look,
                };
            }
            if !aligned {
                return Found::Look;
            }
            Found::Range(
                to_u32(to_usize(end - call.offset_bytes)),
                record.checksums(chunks),
            )
        })?;
        if let Some(tier) = wished {
            self.is_wished(call.block, tier);
        }
        if is_cached {
            self.used(call.block, call.fill.as_ref().and_then(|fill| fill.mount));
        }
        if found.is_some() {
            self.was_read(call.block);
        }
        Ok(match found {
            None | Some(Found::GivenUp) => Grant::Missing,
            Some(Found::Look) => Grant::Look,
            Some(Found::Filling) => Grant::Filling,
            Some(Found::Stale(here)) => return Err(stale(call.block, call.generation, here)),
            Some(Found::Bytes(bytes, sums)) => Grant::Ready(answer(call.offset_bytes, sums, bytes)),
            Some(Found::Range(0, _)) => Grant::Ready(answer(call.offset_bytes, Vec::new(), Bytes::new())),
            // An error of the disk is said, where a grant would end the connection.
            Some(Found::Range(..)) if self.is_endangered(call.block) => Grant::Look,
            Some(Found::Range(len_bytes, checksums)) => {
                let file = match self.file(call.block) {
                    Err(error) if error.kind == ErrorKind::NotFound => return Ok(Grant::Look),
                    file => file?,
                };
                // The reader would get less than it is promised.
                if is_shorter(&file, call.offset_bytes + u64::from(len_bytes)) {
                    return Ok(Grant::Look);
                }
                let range = FileRange {
                    file,
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
            if call.exact {
                return Err(stale(call.block, call.generation, open.generation));
            }
            let read = self.read_open(call, open);
            if read.as_ref().is_err_and(|error| error.kind == ErrorKind::Corrupt) {
                lane.remove(&call.block);
            }
            return read;
        }
        drop(lane);
        let record = self.record(call.block)?.ok_or_else(|| missing(call.block))?;
        check_not_older(call.block, call.generation, record.generation)?;
        check_counts(call.block, call.generation, record.flags)?;
        if is_other(call, record.generation) {
            return Err(stale(call.block, call.generation, record.generation));
        }
        if record.flags.in_index {
            return self.read_small(call, &record);
        }
        let file = match self.file(call.block) {
            Err(error) if error.kind == ErrorKind::NotFound && self.is_gone(call.block)? => {
                return Err(self.found_gone(call.block));
            }
            file => file?,
        };
        let len_bytes = self.len_now(&file, call.block, &record)?;
        if record.state == BlockState::Sealed && is_shorter(&file, len_bytes) {
            return Err(self.found_short(call.block));
        }
        self.read_open(call, &OpenBlock::from_record(file, record, len_bytes))
    }

    pub(super) fn read_open(&self, call: &ReadBlock, open: &OpenBlock) -> Result<Answer<ReadBlock>> {
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
        let first = to_usize(call.offset_bytes / CHUNK_BYTES);
        self.read_checked(call, file, len_bytes, |chunk| sums.get(chunk - first).copied())
    }

    pub(super) fn read_checked(
        &self,
        call: &ReadBlock,
        file: &File,
        len_bytes: u64,
        sum: impl Fn(usize) -> Option<u32>,
    ) -> Result<Answer<ReadBlock>> {
        let read = checked(call, file, len_bytes, sum).map_err(|e| self.short(e, call.block))?;
        read.map_err(|chunk| self.found_corrupt(call.block, chunk))
    }
}

/// The bytes of a range of a block's file, or the first of its chunks that is not as its checksum says.
pub(super) fn checked(
    call: &ReadBlock,
    file: &File,
    len_bytes: u64,
    sum: impl Fn(usize) -> Option<u32>,
) -> std::io::Result<std::result::Result<Answer<ReadBlock>, usize>> {
    let end = call
        .offset_bytes
        .saturating_add(call.len_bytes.into())
        .min(len_bytes);
    if call.offset_bytes >= end {
        return Ok(Ok(answer(call.offset_bytes, Vec::new(), Bytes::new())));
    }
    let chunks = to_usize(call.offset_bytes / CHUNK_BYTES)..chunks_of(end);
    let start = chunks.start as u64 * CHUNK_BYTES;
    let covered = (chunks.end as u64 * CHUNK_BYTES).min(len_bytes);
    let mut buffer = BytesMut::zeroed(to_usize(covered - start));
    file.read_exact_at(&mut buffer, start)?;
    let buffer = buffer.freeze();
    for (bytes, chunk) in buffer.chunks(to_usize(CHUNK_BYTES)).zip(chunks) {
        if sum(chunk).is_some_and(|sum| sum != crc32c(bytes)) {
            return Ok(Err(chunk));
        }
    }
    let body = buffer.slice(to_usize(call.offset_bytes - start)..to_usize(end - start));
    Ok(Ok(answer_with(call.offset_bytes, body)))
}

/// Whether a file is known to have fewer bytes than this.
fn is_shorter(file: &File, bytes: u64) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() < bytes)
}

/// Whether a block of this generation is another one than the only one that is asked for.
fn is_other(call: &ReadBlock, generation: u32) -> bool {
    call.exact && call.generation != generation
}

pub(super) fn answer(offset_bytes: u64, checksums: Vec<u32>, body: Bytes) -> Answer<ReadBlock> {
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
