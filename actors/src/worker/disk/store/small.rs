//! Small blocks: their bytes are in the index and they have no file. Making, opening and deleting a file costs many times
//! what a few KiB do, and the index commits, and syncs, many of them at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockSealed, ReadBlock};
use curvine_protocol::{BlockId, Result};

use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, is_content_of};
use super::read::answer_with;
use super::{Done, Store, missing};
use crate::kit::Answer;

/// The largest block whose bytes are in the index. It is less than a chunk, so there is one checksum.
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// The index may use one in so many of the disk's bytes for them: the larger it is, the more each commit costs.
const SHARE_OF_CAPACITY: u64 = 8;

impl Store {
    /// Whether a new block of this length goes to the index.
    pub fn is_small(&self, len_bytes: u64) -> bool {
        len_bytes <= SMALL_BYTES_MAX && self.small_blocks_fit.load(Ordering::Relaxed)
    }

    /// Measures what small blocks use.
    pub(super) fn measure_small(&self) -> Result<()> {
        let limit = self.space().capacity_bytes() / SHARE_OF_CAPACITY;
        let fit = self.index.contents_bytes()? <= limit;
        self.small_blocks_fit.store(fit, Ordering::Relaxed);
        Ok(())
    }

    /// Stores a whole small block, new or in the index already. For the block's lane.
    pub(super) fn put_small(
        self: &Arc<Self>,
        block: BlockId,
        record: BlockRecord,
        before: Option<BlockRecord>,
        body: &[Bytes],
        sync: bool,
        done: Done<BlockSealed>,
    ) {
        assert!(before.as_ref().is_none_or(|before| before.flags.in_index));
        let flags = BlockFlags {
            in_index: true,
            ..record.flags
        };
        let record = BlockRecord { flags, ..record };
        let is_new = before.is_none();
        let len_bytes = record.len_bytes;
        if let Err(error) = self.space().take(block, len_bytes, &self.name) {
            return done(Err(error));
        }
        if !record.flags.from_ufs {
            self.is_cached_no_more(block);
        }
        self.blocks.fetch_add(u64::from(is_new), Ordering::Relaxed);
        let store = self.clone();
        let told = move |outcome: Result<BlockSealed>| {
            // From here on the length of the index counts.
            store.space().give_back(len_bytes);
            if outcome.is_err() {
                store.blocks.fetch_sub(u64::from(is_new), Ordering::Relaxed);
            }
            done(outcome);
        };
        let content = Change::PutContent(block, body.to_vec());
        self.sealed(block, record, Some(content), sync, Box::new(told));
    }

    /// Gives a small block a file, since it is about to be written bit by bit; the others have one. For the block's lane.
    pub(super) fn give_file(&self, block: BlockId, record: BlockRecord) -> Result<BlockRecord> {
        if !record.flags.in_index {
            return Ok(record);
        }
        let content = self.content(block, &record)?;
        let on_device = self.is_on_device(block, &record);
        let file = self.create(block)?;
        let written = self
            .write_pieces(&file, block, 0, &[content])
            .and_then(|()| match on_device {
                // What is on the device in the index must be there in the file before the index lets it go.
                true => self.sync_file(&file, block),
                false => Ok(()),
            });
        let flags = BlockFlags {
            in_index: false,
            ..record.flags
        };
        let record = BlockRecord { flags, ..record };
        let known = written.and_then(|()| {
            let changes = vec![Change::Put(block, record.encode()), Change::DeleteContent(block)];
            self.index.submit_and_wait(changes, false)
        });
        if let Err(error) = known {
            self.drop_file(block);
            return Err(error);
        }
        // Not refused by a full disk: what goes over bytes that are here needs no room. The index has these pages free now.
        self.space().moved_to_file(record.len_bytes);
        Ok(record)
    }

    /// The verified bytes of a small block.
    pub(super) fn content(&self, block: BlockId, record: &BlockRecord) -> Result<Bytes> {
        let content = self
            .index
            .get_with_content(block, |_, content| content.map(Bytes::copy_from_slice))?
            .flatten()
            .ok_or_else(|| missing(block))?;
        match is_content_of(&record.checksums, &content) {
            true => Ok(content),
            false => Err(self.found_corrupt(block, 0)),
        }
    }

    pub(super) fn read_small(&self, call: &ReadBlock, record: &BlockRecord) -> Result<Answer<ReadBlock>> {
        let content = self.content(call.block, record)?;
        let end = call
            .offset_bytes
            .saturating_add(call.len_bytes.into())
            .min(record.len_bytes);
        let start = call.offset_bytes.min(end);
        Ok(answer_with(
            call.offset_bytes,
            content.slice(to_usize(start)..to_usize(end)),
        ))
    }
}
