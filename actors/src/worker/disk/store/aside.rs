//! What was set aside of blocks: a chunk of it is wrong, and the others may be right nowhere else.

use std::fs::File;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};

use super::super::layout;
use super::super::record::{BlockRecord, BlockState, chunks_of};
use super::Store;
use super::read::checked;
use crate::kit::Answer;

impl Store {
    /// Keeps the checksums of a block that is about to be set aside. Of one that has one chunk, nothing is left to be read.
    pub(super) fn note_sums(&self, block: BlockId, record: &BlockRecord) {
        if record.state != BlockState::Sealed || record.len_bytes <= CHUNK_BYTES {
            return;
        }
        let path = layout::sums_path(&self.directory.path, block, record.generation);
        let sums = (record.len_bytes, &record.checksums);
        if let Err(error) = std::fs::write(&path, encode(&sums)) {
            tracing::warn!(%error, "what is right of block {block} will not be found in {}", path.display());
        }
    }

    /// Reads a range of what was set aside of a block of exactly this generation, where all its chunks are right. None if there is
    /// nothing of it. For the block's lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn read_aside(&self, call: &ReadBlock) -> Result<Option<Answer<ReadBlock>>> {
        let root = &self.directory.path;
        let Ok(file) = File::open(layout::quarantine_path(root, call.block, call.generation)) else {
            return Ok(None);
        };
        let Ok(sums) = std::fs::read(layout::sums_path(root, call.block, call.generation)) else {
            return Ok(None);
        };
        let (len_bytes, sums) = decode::<(u64, Vec<u32>)>(&sums)?;
        if sums.len() != chunks_of(len_bytes) {
            return Ok(None);
        }
        let wrong = |what: &str| {
            let words = format!("block {}: {what} in what was set aside of it", call.block);
            Err(Error::new(ErrorKind::Corrupt, words))
        };
        match checked(call, &file, len_bytes, |chunk| sums.get(chunk).copied()) {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(chunk)) => wrong(&format!("chunk {chunk} is wrong")),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => wrong("the end is missing"),
            Err(error) => Err(error.into()),
        }
    }
}
