//! A block while it is written: what is known of its chunks.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c_combine};
use curvine_protocol::number::to_usize;

use super::bitmap::Bitmap;
use super::order::Numbers;
use super::record::{BlockFlags, BlockRecord, BlockState, chunks_of};
use crate::planted::{Bug, is_planted};

/// Pure but for the file it carries along.
pub struct OpenBlock {
    pub file: Arc<File>,
    pub generation: u32,
    pub len_bytes: u64,
    /// The index still says sealed: it must be told before the first write.
    pub sealed_in_index: bool,
    /// Bytes of it were synced when it was opened: the index must say on the device which of them are written over.
    pub synced: bool,
    /// See [`BlockFlags::doubtful`].
    pub doubtful: bool,
    /// Since it was changed.
    pub idle_ticks: u32,
    /// The lowest generation that may write it.
    pub fence: u32,
    /// Of this generation's changes.
    pub numbers: Numbers,
    /// The checksum of each chunk, where known without reading it.
    sums: Vec<Option<u32>>,
    /// What the index has: these checksums, of which the dirty ones mean nothing.
    indexed: Vec<u32>,
    dirty: Bitmap,
    /// Of the chunks with a checksum when it was opened: those that were looked at, or replaced, since.
    looked_at: Bitmap,
}

/// Where in a block a piece of a body goes: never across a chunk's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset_bytes: u64,
    pub len_bytes: u64,
    pub checksum: u32,
}

impl OpenBlock {
    pub fn new(file: Arc<File>, generation: u32) -> Self {
        OpenBlock {
            file,
            generation,
            len_bytes: 0,
            sealed_in_index: false,
            synced: false,
            doubtful: false,
            idle_ticks: 0,
            fence: 0,
            numbers: Numbers::default(),
            sums: Vec::new(),
            indexed: Vec::new(),
            dirty: Bitmap::new(0),
            looked_at: Bitmap::new(0),
        }
    }

    /// As the index has it, and the file is `len_bytes` long.
    pub fn from_record(file: Arc<File>, record: BlockRecord, len_bytes: u64) -> Self {
        let sealed_in_index = record.state == BlockState::Sealed;
        let synced = record.flags.synced || record.rewritten.is_some();
        let known = |chunk: usize| match &record.state {
            BlockState::Writing { dirty } => !dirty.get(chunk),
            _ => true,
        };
        let mut sums: Vec<_> = record
            .checksums
            .iter()
            .enumerate()
            .map(|(chunk, &sum)| known(chunk).then_some(sum))
            .collect();
        // What was rewritten counts as dirty until it is synced, though its checksum is known now.
        let dirty = match (record.state, record.rewritten) {
            (BlockState::Writing { dirty }, _) | (_, Some(dirty)) => dirty,
            _ => Bitmap::new(record.checksums.len()),
        };
        let looked_at = Bitmap::new(sums.len());
        sums.resize(chunks_of(len_bytes), None);
        OpenBlock {
            file,
            generation: record.generation,
            len_bytes,
            sealed_in_index,
            synced,
            doubtful: record.flags.doubtful,
            idle_ticks: 0,
            fence: 0,
            numbers: record.numbers,
            sums,
            indexed: record.checksums,
            dirty,
            looked_at,
        }
    }

    /// Forgets what lies beyond a length.
    pub fn cut(&mut self, len_bytes: u64) {
        self.len_bytes = len_bytes;
        let whole = to_usize(len_bytes / CHUNK_BYTES);
        self.sums.truncate(whole);
        self.sums.resize(chunks_of(len_bytes), None);
        if self.indexed.len() > whole {
            self.indexed.truncate(whole);
            let mut dirty = Bitmap::new(whole);
            (0..whole)
                .filter(|&chunk| self.dirty.get(chunk))
                .for_each(|chunk| {
                    dirty.set(chunk);
                });
            self.dirty = dirty;
        }
    }

    /// Chunks that a write changes: its own, and the last one if the write leaves a gap behind it.
    fn touched(&self, offset_bytes: u64, len_bytes: u64) -> Range<usize> {
        let first = offset_bytes.min(self.len_bytes) / CHUNK_BYTES;
        to_usize(first)..chunks_of(offset_bytes + len_bytes)
    }

    /// Chunks of which a write leaves some old bytes, for which the checksum is to vouch that it gets next: what it is
    /// now must be verified before, once.
    pub fn must_verify(&mut self, offset_bytes: u64, len_bytes: u64) -> Vec<usize> {
        let end = offset_bytes + len_bytes;
        let mut chunks = Vec::new();
        for chunk in self.touched(offset_bytes, len_bytes) {
            if chunk >= self.looked_at.len() {
                break;
            }
            let range = self.chunk_range(chunk);
            let is_left = range.start < offset_bytes || range.end > end;
            let is_passed_over = is_planted(Bug::RotIsWrittenOver) && self.dirty.get(chunk);
            if self.looked_at.set(chunk) && is_left && !is_passed_over {
                chunks.push(chunk);
            }
        }
        chunks
    }

    /// Chunks whose checksum in the index a write makes wrong. Each is marked dirty here; the caller must have the
    /// index say so before it writes.
    pub fn mark_dirty(&mut self, offset_bytes: u64, len_bytes: u64) -> Vec<usize> {
        let touched = self.touched(offset_bytes, len_bytes);
        let indexed = touched.start..touched.end.min(self.indexed.len());
        indexed.filter(|&chunk| self.dirty.set(chunk)).collect()
    }

    /// The chunk that a cut to this length leaves in part.
    pub fn cut_in_part(&self, len_bytes: u64) -> Option<usize> {
        let chunk = usize::try_from(len_bytes / CHUNK_BYTES).ok()?;
        (len_bytes < self.len_bytes && !len_bytes.is_multiple_of(CHUNK_BYTES)).then_some(chunk)
    }

    /// Takes note of a write that was made.
    pub fn wrote(&mut self, offset_bytes: u64, pieces: &[Piece]) {
        self.idle_ticks = 0;
        let old_len = self.len_bytes;
        let end = pieces
            .last()
            .map_or(offset_bytes, |piece| piece.offset_bytes + piece.len_bytes);
        if offset_bytes > old_len && !old_len.is_multiple_of(CHUNK_BYTES) {
            self.sums[to_usize(old_len / CHUNK_BYTES)] = None;
        }
        self.len_bytes = old_len.max(end);
        self.sums.resize(chunks_of(self.len_bytes), None);
        for piece in pieces {
            let chunk = to_usize(piece.offset_bytes / CHUNK_BYTES);
            let range = self.chunk_range(chunk);
            let appended = piece.offset_bytes == old_len && piece.offset_bytes > range.start;
            self.sums[chunk] = match self.sums[chunk] {
                _ if piece.offset_bytes == range.start
                    && piece.offset_bytes + piece.len_bytes == range.end =>
                {
                    Some(piece.checksum)
                }
                Some(sum) if appended => Some(crc32c_combine(sum, piece.checksum, piece.len_bytes)),
                _ => None,
            };
        }
    }

    /// The bytes of a chunk, cut at the block's end.
    pub fn chunk_range(&self, chunk: usize) -> Range<u64> {
        let start = chunk as u64 * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.len_bytes)
    }

    pub fn sum(&self, chunk: usize) -> Option<u32> {
        self.sums.get(chunk).copied().flatten()
    }

    pub fn set_sum(&mut self, chunk: usize, sum: u32) {
        self.sums[chunk] = Some(sum);
    }

    /// Chunks whose checksum must be computed from the file.
    pub fn unknown(&self) -> Vec<usize> {
        (0..self.sums.len())
            .filter(|&chunk| self.sums[chunk].is_none())
            .collect()
    }

    /// The record of a block that is being written.
    pub fn writing_record(&self, accessed_ms: i64, cutting: bool) -> BlockRecord {
        BlockRecord {
            generation: self.generation,
            state: BlockState::Writing {
                dirty: self.dirty.clone(),
            },
            len_bytes: self.len_bytes,
            checksums: self.indexed.clone(),
            accessed_ms,
            flags: BlockFlags {
                cutting,
                synced: self.synced,
                doubtful: self.doubtful,
                ..BlockFlags::default()
            },
            rewritten: None,
            round: 0,
            numbers: self.numbers,
            mount: None,
        }
    }

    /// The record of the sealed block; every checksum must be known.
    pub fn sealed_record(&self, accessed_ms: i64, synced: bool) -> BlockRecord {
        let sums = self
            .sums
            .iter()
            .map(|sum| sum.expect("unknown checksums were computed before sealing"))
            .collect();
        let flags = BlockFlags {
            synced,
            doubtful: self.doubtful,
            ..BlockFlags::default()
        };
        let mut record = BlockRecord::sealed(self.generation, self.len_bytes, sums, accessed_ms, flags);
        record.numbers = self.numbers;
        if self.synced && !synced {
            let mut rewritten = Bitmap::new(self.sums.len());
            (0..self.sums.len())
                .filter(|&chunk| chunk >= self.indexed.len() || self.dirty.get(chunk))
                .for_each(|chunk| {
                    rewritten.set(chunk);
                });
            record.rewritten = Some(rewritten);
        }
        record
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use curvine_protocol::checksum::{chunk_checksums, crc32c};
    use proptest::prelude::*;

    use super::super::pieces_of;
    use super::*;

    fn scratch() -> Arc<File> {
        Arc::new(tempfile::tempfile().unwrap())
    }

    fn apply(open: &mut OpenBlock, content: &mut Vec<u8>, offset: usize, body: &[u8]) -> Vec<usize> {
        let marked = open.mark_dirty(offset as u64, body.len() as u64);
        content.resize(content.len().max(offset + body.len()), 0);
        content[offset..offset + body.len()].copy_from_slice(body);
        open.wrote(offset as u64, &pieces_of(offset as u64, body));
        marked
    }

    #[test]
    fn appends_keep_every_checksum_known() {
        let (mut open, mut content) = (OpenBlock::new(scratch(), 1), Vec::new());
        for step in 0..40u8 {
            let at = content.len();
            assert_eq!(
                apply(&mut open, &mut content, at, &vec![step; 4_096]),
                Vec::<usize>::new()
            );
        }
        assert_eq!(open.unknown(), Vec::<usize>::new());
        assert_eq!(open.sealed_record(0, false).checksums, chunk_checksums(&content));
    }

    #[test]
    fn an_overwrite_marks_indexed_chunks_dirty_once() {
        let chunk = to_usize(CHUNK_BYTES);
        let content = vec![1u8; 3 * chunk];
        let record = BlockRecord::sealed(
            1,
            content.len() as u64,
            chunk_checksums(&content),
            0,
            BlockFlags::default(),
        );
        let mut open = OpenBlock::from_record(scratch(), record, content.len() as u64);
        let mut content = content;
        assert_eq!(
            apply(&mut open, &mut content, chunk - 1, &vec![2; chunk + 1]),
            vec![0, 1]
        );
        assert_eq!(apply(&mut open, &mut content, 5, &[9]), Vec::<usize>::new());
        assert_eq!(
            (open.sum(0), open.sum(1)),
            (None, Some(crc32c(&content[chunk..2 * chunk])))
        );
        let restarted = OpenBlock::from_record(scratch(), open.writing_record(0, false), open.len_bytes);
        assert_eq!(restarted.unknown(), vec![0, 1]);
    }

    #[test]
    fn a_chunk_that_is_written_in_part_is_verified_once_though_it_was_written_since_the_last_sync() {
        let content = vec![1u8; to_usize(3 * CHUNK_BYTES)];
        let mut rewritten = Bitmap::new(3);
        for chunk in 0..3 {
            rewritten.set(chunk);
        }
        let record = BlockRecord {
            rewritten: Some(rewritten),
            ..BlockRecord::sealed(
                1,
                content.len() as u64,
                chunk_checksums(&content),
                0,
                BlockFlags::default(),
            )
        };
        let mut open = OpenBlock::from_record(scratch(), record, content.len() as u64);
        assert_eq!(open.must_verify(CHUNK_BYTES - 1, CHUNK_BYTES + 1), vec![0]);
        assert_eq!(open.must_verify(5, 1), Vec::<usize>::new(), "it was looked at");
        assert_eq!(
            open.must_verify(CHUNK_BYTES + 5, 1),
            Vec::<usize>::new(),
            "it was replaced"
        );
        assert_eq!(open.must_verify(3 * CHUNK_BYTES - 1, 9), vec![2]);
        assert_eq!(open.cut_in_part(3 * CHUNK_BYTES), None);
        assert_eq!(open.cut_in_part(2 * CHUNK_BYTES), None);
        assert_eq!(open.cut_in_part(CHUNK_BYTES + 1), Some(1));
    }

    proptest! {
        /// A checksum that is said to be known is the right one, and whatever the index would still vouch for after a
        /// crash is right too.
        #[test]
        fn a_known_checksum_is_the_right_one(
            sealed in 0usize..200_000,
            writes in proptest::collection::vec((0usize..300_000, 1usize..150_000, any::<u8>()), 1..12),
            cut in proptest::option::of(0usize..250_000),
        ) {
            let mut content = vec![7u8; sealed];
            let record = BlockRecord::sealed(1, sealed as u64, chunk_checksums(&content), 0, BlockFlags::default());
            let mut open = OpenBlock::from_record(scratch(), record, sealed as u64);
            if let Some(cut) = cut.filter(|&cut| cut < sealed) {
                open.cut(cut as u64);
                content.truncate(cut);
            }
            for (offset, len, fill) in writes {
                apply(&mut open, &mut content, offset, &vec![fill; len]);
                let right = chunk_checksums(&content);
                for (chunk, &sum) in right.iter().enumerate() {
                    prop_assert!(open.sum(chunk).is_none_or(|known| known == sum), "chunk {chunk}");
                }
                let restarted = OpenBlock::from_record(scratch(), open.writing_record(0, false), content.len() as u64);
                for (chunk, &sum) in right.iter().enumerate() {
                    prop_assert!(restarted.sum(chunk).is_none_or(|known| known == sum), "indexed chunk {chunk}");
                }
            }
        }
    }
}
