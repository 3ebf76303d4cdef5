//! The scrubber: reads sealed blocks, a little every tick, and takes those out of use whose bytes are not what was written.
//!
//! It goes through the blocks in the order of their ids, then rests. What fails here is looked at again on the block's
//! lane, which owns the block: a writer may have changed it between the look into the index and the read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Result};
use tokio::time::Instant;

use super::record::is_content_of;
use super::store::Store;
use crate::kit::metrics;

/// From the end of one pass to the start of the next.
const REST: Duration = Duration::from_secs(24 * 3_600);
/// Records looked at in one read transaction.
const PAGE: usize = 256;

/// How far a pass has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The last block that is done.
    after: Option<BlockId>,
    /// Chunks that are done of the block after it.
    chunks: usize,
    rest_until: Option<Instant>,
}

impl Progress {
    /// The next block is this one, of so many chunks. Chunks that are done are of another block if there is one in between
    /// that is not sealed or gone, and mean nothing if it was cut since.
    fn comes_to(&mut self, block: BlockId, chunks: usize) {
        let is_next = block.0 == self.after.map_or(0, |after| after.0 + 1);
        if !is_next {
            self.after = block.0.checked_sub(1).map(BlockId);
        }
        if !is_next || self.chunks > chunks {
            self.chunks = 0;
        }
    }
}

/// A sealed block as the index has it, from some chunk on.
struct Target {
    block: BlockId,
    generation: u32,
    len_bytes: u64,
    checksums: Vec<u32>,
    in_index: bool,
}

impl Store {
    /// Verifies about so many bytes more. Blocks on the disk: for the background thread.
    ///
    /// # Errors
    /// `Io` of the index. What is wrong with a block is that block's alone.
    pub fn scrub(self: &Arc<Self>, progress: Progress, budget_bytes: u64, now: Instant) -> Result<Progress> {
        let mut progress = match progress.rest_until {
            Some(until) if now < until => return Ok(progress),
            _ => Progress {
                rest_until: None,
                ..progress
            },
        };
        let mut left = to_usize(budget_bytes / CHUNK_BYTES);
        while left > 0 {
            let (target, last) = self.next_target(progress)?;
            let Some(target) = target else {
                match last {
                    Some(last) => {
                        progress.after = Some(last);
                        progress.chunks = 0;
                        continue;
                    }
                    None => {
                        return Ok(Progress {
                            rest_until: Some(now + REST),
                            ..Progress::default()
                        });
                    }
                }
            };
            progress.comes_to(target.block, target.checksums.len());
            let verified = self.verify_some(&target, progress.chunks, left);
            left -= verified.min(left);
            progress.chunks += verified;
            if progress.chunks >= target.checksums.len() {
                progress.after = Some(target.block);
                progress.chunks = 0;
                // An empty block costs something too.
                left = left.saturating_sub(usize::from(verified == 0));
            }
        }
        Ok(progress)
    }

    /// The first sealed block that is not done, if this page of the index has one, and the last one looked at.
    fn next_target(&self, progress: Progress) -> Result<(Option<Target>, Option<BlockId>)> {
        let mut target = None;
        let last = self.index.page(progress.after, PAGE, |block, record| {
            if let Ok(record) = record
                && record.is_sealed()
                && target.is_none()
            {
                target = Some(Target {
                    block,
                    generation: record.generation(),
                    len_bytes: record.len_bytes(),
                    checksums: record.checksums(0..usize::MAX),
                    in_index: record.is_in_index(),
                });
            }
        })?;
        Ok((target, last))
    }

    /// Verifies at most `limit` chunks from one on that the block has, or from its end; how many were done. All, if the file
    /// cannot be read: then the lane finds out.
    fn verify_some(self: &Arc<Self>, target: &Target, from: usize, limit: usize) -> usize {
        let until = target.checksums.len().min(from + limit);
        if target.in_index {
            let right = self.index.get_with_content(target.block, |_, content| {
                content.is_none_or(|content| is_content_of(&target.checksums, content))
            });
            if !matches!(right, Ok(None | Some(true))) {
                self.look_again(target, 0);
            }
            metrics::SCRUBBED_BYTES.add(target.len_bytes);
            return target.checksums.len();
        }
        let Ok(file) = File::open(self.path(target.block)) else {
            self.look_again(target, from);
            return target.checksums.len() - from;
        };
        let mut bytes = vec![0; to_usize(CHUNK_BYTES)];
        for chunk in from..until {
            let start = chunk as u64 * CHUNK_BYTES;
            let bytes = &mut bytes[..to_usize((target.len_bytes - start).min(CHUNK_BYTES))];
            // From the device, not from the cache of what was once read or written. Dirty pages stay.
            let _ = rustix::fs::fadvise(
                &file,
                start,
                std::num::NonZeroU64::new(bytes.len() as u64),
                rustix::fs::Advice::DontNeed,
            );
            let whole = file.read_exact_at(bytes, start).is_ok();
            if !whole || crc32c(bytes) != target.checksums[chunk] {
                self.look_again(target, chunk);
            }
        }
        metrics::SCRUBBED_BYTES.add((until - from) as u64 * CHUNK_BYTES);
        until - from
    }

    /// On the lane, as any read: what is corrupt is taken out of use there. What changed meanwhile is another block now.
    fn look_again(self: &Arc<Self>, target: &Target, chunk: usize) {
        let look = ReadBlock {
            block: target.block,
            generation: target.generation,
            offset_bytes: chunk as u64 * CHUNK_BYTES,
            len_bytes: 1,
            fill: None,
            exact: false,
        };
        self.on_lane(target.block, move |store| {
            if let Err(error) = store.read(&look) {
                tracing::warn!("the scrubber found: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_was_cut_while_it_was_looked_at_is_looked_at_anew() {
        let begun = Progress {
            after: Some(BlockId(6)),
            chunks: 5,
            rest_until: None,
        };
        let at = |block, chunks| {
            let mut progress = begun;
            progress.comes_to(BlockId(block), chunks);
            (progress.after, progress.chunks)
        };
        assert_eq!(at(7, 8), (Some(BlockId(6)), 5));
        assert_eq!(at(7, 5), (Some(BlockId(6)), 5), "nothing is left to be done");
        assert_eq!(at(7, 4), (Some(BlockId(6)), 0));
        assert_eq!(at(9, 8), (Some(BlockId(8)), 0), "the block before is gone");
    }
}
