//! Holes in blocks. For the block's lane.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockWritten, PunchBlock, WriteBlock};
use curvine_protocol::{BlockId, Result};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::super::device::punch_hole;
use super::super::open_block::{OpenBlock, Piece};
use super::super::record::BlockRecord;
use super::{Store, lock, missing};

/// Holes of a block that are counted.
const HOLES_MAX: u32 = 10_000;

impl Store {
    /// Makes a range of a block a hole: as if zeros were written there, but without any.
    ///
    /// # Errors
    /// As a write; `NotFound` if the block is not here, and was not for all that its writer knows.
    pub fn punch(self: &Arc<Self>, call: &PunchBlock) -> Result<BlockWritten> {
        let mut lane = lock(&self.lane(call.block).open);
        if call.order.has == 0 && !lane.contains_key(&call.block) && self.record(call.block)?.is_none() {
            return Err(missing(call.block));
        }
        let as_write = WriteBlock {
            block: call.block,
            generation: call.generation,
            offset_bytes: call.offset_bytes,
            checksum: 0,
            base_len_bytes: call.base_len_bytes,
            reserve_bytes: 0,
            epoch: call.epoch,
            order: call.order,
            tier: None,
        };
        self.open_for_writing(&mut lane, &as_write)?;
        let open = lane.get_mut(&call.block).expect("opened just now");
        match self.punch_open(open, &as_write, call.len_bytes) {
            Ok(()) => Ok(self.written(open.len_bytes)),
            Err(error) => {
                self.forget_open(&mut lane, call.block, false);
                Err(error)
            }
        }
    }

    fn punch_open(&self, open: &mut OpenBlock, call: &WriteBlock, len_bytes: u64) -> Result<()> {
        let is_new = self.take_generation(open, call)?;
        let end = call.offset_bytes.saturating_add(len_bytes).min(open.len_bytes);
        let hole = call.offset_bytes.min(end)..end;
        if !hole.is_empty() || is_new {
            self.mark(open, call.block, hole.clone(), is_new)?;
        }
        if !hole.is_empty() {
            self.make_hole(open, call.block, &hole)?;
            self.worked();
            open.wrote(hole.start, &zero_pieces(hole));
        }
        Ok(())
    }

    /// How many bytes of a block are in holes, as far as that can be told: there is no space for them on the device.
    pub(super) fn hole_bytes(&self, block: BlockId, record: &BlockRecord) -> u64 {
        if record.flags.in_index {
            return 0;
        }
        let counted = self.file(block).map(|file| count_holes(&file, record.len_bytes));
        counted.ok().and_then(|counted| counted.ok()).unwrap_or(0)
    }

    fn make_hole(&self, open: &OpenBlock, block: BlockId, hole: &Range<u64>) -> Result<()> {
        match punch_hole(&open.file, hole.start, hole.end - hole.start) {
            Ok(()) => Ok(()),
            // The device's file system has no holes.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let zeros = vec![0; to_usize(CHUNK_BYTES)];
                zero_pieces(hole.clone())
                    .into_iter()
                    .try_for_each(|piece| {
                        let zeros = &zeros[..to_usize(piece.len_bytes)];
                        open.file.write_all_at(zeros, piece.offset_bytes)
                    })
                    .map_err(|error| self.failed(error, block))
            }
            Err(error) => Err(self.failed(error, block)),
        }
    }
}

/// How many of a file's first bytes are in holes. What comes behind many of them counts as data.
fn count_holes(file: &File, len_bytes: u64) -> Result<u64, Errno> {
    let (mut at, mut hole_bytes) = (0, 0);
    for _ in 0..HOLES_MAX {
        let hole = seek(file, SeekFrom::Hole(at))?;
        if hole >= len_bytes {
            break;
        }
        at = match seek(file, SeekFrom::Data(hole)) {
            Err(Errno::NXIO) => len_bytes,
            data => data?.min(len_bytes),
        };
        hole_bytes += at - hole;
        if at == len_bytes {
            break;
        }
    }
    Ok(hole_bytes)
}

/// Zeros, cut at the chunks' boundaries.
fn zero_pieces(range: Range<u64>) -> Vec<Piece> {
    let zeros = vec![0; to_usize(CHUNK_BYTES)];
    let of_chunk = crc32c(&zeros);
    let mut pieces = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let len_bytes = (CHUNK_BYTES - at % CHUNK_BYTES).min(range.end - at);
        let checksum = match len_bytes {
            CHUNK_BYTES => of_chunk,
            _ => crc32c(&zeros[..to_usize(len_bytes)]),
        };
        pieces.push(Piece {
            offset_bytes: at,
            len_bytes,
            checksum,
        });
        at += len_bytes;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::super::super::pieces_of;
    use super::*;

    #[test]
    fn the_holes_of_a_file_are_counted() {
        let file = tempfile::tempfile().expect("a temporary file");
        const MIB: u64 = 1 << 20;
        let count = |len_bytes| count_holes(&file, len_bytes).expect("a file can be searched");
        file.set_len(4 * MIB).expect("longer");
        assert_eq!(count(4 * MIB), 4 * MIB);
        file.write_all_at(&[1; 1 << 20], MIB).expect("written");
        assert_eq!(
            [count(4 * MIB), count(MIB / 2), count(2 * MIB)],
            [3 * MIB, MIB / 2, MIB]
        );
    }

    #[test]
    fn a_hole_has_the_checksums_of_zeros() {
        for (start, len) in [
            (0, CHUNK_BYTES),
            (5, 3 * CHUNK_BYTES),
            (CHUNK_BYTES - 1, 2),
            (7, 0),
        ] {
            let zeros = vec![0; to_usize(len)];
            assert_eq!(zero_pieces(start..start + len), pieces_of(start, &zeros));
        }
    }
}
