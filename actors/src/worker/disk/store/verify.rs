//! Looking at bytes that somebody has found wrong.

use std::fs::File;
use std::sync::Arc;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::{READ_BYTES_MAX, ReadBlock, SuspectBlock, Wish};
use curvine_protocol::{ErrorKind, Result};

use super::super::Bitmap;
use super::super::record::{BlockState, chunks_of};
use super::Store;

/// [`CHUNK_BYTES`], as reads say it.
const CHUNK: u32 = 64 << 10;

/// What a look at a block needs to know of its chunks.
pub struct Chunks<'a> {
    pub file: &'a File,
    pub len_bytes: u64,
    pub present: &'a Bitmap,
    pub checksums: &'a [u32],
}

impl Store {
    /// Reads what somebody suspects. What fails its checksum goes out of use. True if it is all right, false if it is not
    /// here (any more). For the block's lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn verify(self: &Arc<Self>, call: &SuspectBlock) -> Result<bool> {
        const { assert!(CHUNK as u64 == CHUNK_BYTES) };
        let Some(record) = self.record(call.block)? else {
            return Ok(false);
        };
        if let BlockState::Filling { present } = &record.state {
            let chunks = Chunks {
                file: &*self.file(call.block)?,
                len_bytes: record.len_bytes,
                present,
                checksums: &record.checksums,
            };
            return self.verify_filling(call, &chunks);
        }
        let offset_bytes = call.offset_bytes - call.offset_bytes % CHUNK_BYTES;
        let end = call.offset_bytes.saturating_add(call.len_bytes.into());
        let look = ReadBlock {
            block: call.block,
            generation: 0,
            offset_bytes,
            len_bytes: u32::try_from(end - offset_bytes)
                .unwrap_or(u32::MAX)
                .min(READ_BYTES_MAX + CHUNK),
            fill: None,
            exact: false,
            tier: Wish::UNSAID,
        };
        if !record.flags.in_index {
            self.forget_cached(&*self.file(call.block)?, offset_bytes, look.len_bytes);
        }
        is_right(self.read(&look).map(drop))
    }

    /// [`Self::verify`] of a block that is being filled. Any lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn verify_filling(&self, call: &SuspectBlock, chunks: &Chunks<'_>) -> Result<bool> {
        let end = call.offset_bytes.saturating_add(call.len_bytes.into());
        let end = chunks_of(end.min(chunks.len_bytes));
        let first = usize::try_from(call.offset_bytes / CHUNK_BYTES).unwrap_or(usize::MAX);
        let mut all_there = true;
        for chunk in first.min(end)..end {
            if !chunks.present.get(chunk) {
                all_there = false;
                continue;
            }
            let look = ReadBlock {
                block: call.block,
                generation: 0,
                offset_bytes: chunk as u64 * CHUNK_BYTES,
                len_bytes: CHUNK,
                fill: None,
                exact: false,
                tier: Wish::UNSAID,
            };
            self.forget_cached(chunks.file, look.offset_bytes, look.len_bytes);
            let sums = &chunks.checksums[chunk..];
            let read = self.read_filled(&look, chunks.file, chunks.len_bytes, sums);
            if !is_right(read.map(drop))? {
                return Ok(false);
            }
        }
        Ok(all_there)
    }

    /// Has the next read come from the device. Dirty pages stay.
    fn forget_cached(&self, file: &File, offset_bytes: u64, len_bytes: u32) {
        let len_bytes = std::num::NonZeroU64::new(len_bytes.into());
        let _ = rustix::fs::fadvise(file, offset_bytes, len_bytes, rustix::fs::Advice::DontNeed);
    }
}

fn is_right(read: Result<()>) -> Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}
