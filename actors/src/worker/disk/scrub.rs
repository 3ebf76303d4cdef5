//! The scrubber: reads sealed blocks, a little every tick, and takes those out of use whose bytes are not what was written.
//!
//! It goes through the blocks in the order of their ids, then rests. What fails here is looked at again on the block's
//! lane, which owns the block: a writer may have changed it between the look into the index and the read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{DiskScrub, ReadBlock, Wish};
use curvine_protocol::{BlockId, ErrorKind, Result};
use tokio::time::Instant;

use super::record::is_content_of;
use super::store::Store;
use crate::kit::metrics;

/// From the end of one pass to the start of the next.
const REST: Duration = Duration::from_secs(24 * 3_600);
/// Records looked at in one read transaction.
const PAGE: usize = 256;

/// How far a pass has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The last block that is done.
    after: Option<BlockId>,
    /// Chunks that are done of the block after it.
    chunks: usize,
    rest_until: Option<Instant>,
    /// Of this pass, or of the last one while it rests.
    verified_bytes: u64,
    corrupt_blocks: Arc<AtomicU64>,
    /// Looks of lanes at what failed that have not ended.
    looks: Arc<AtomicU64>,
    /// Passes that have ended.
    passes: u64,
    /// What this pass may verify each tick, where somebody has asked for it.
    asked_bytes: Option<u64>,
}

impl Progress {
    /// Has everything be verified from the beginning, so many bytes each tick.
    pub fn begin(&mut self, bytes_per_tick: u64) {
        *self = Progress {
            passes: self.passes,
            looks: self.looks.clone(),
            asked_bytes: Some(bytes_per_tick),
            ..Progress::default()
        };
    }

    /// What is verified in one tick, of which so much is due without being asked for.
    pub fn budget_bytes(&self, due_bytes: u64) -> u64 {
        self.asked_bytes.map_or(due_bytes, |asked| asked.max(due_bytes))
    }

    /// How far it is; `due_bytes` is what it verifies each tick without being asked to.
    pub fn status(&self, path: String, used_bytes: u64, due_bytes: u64) -> DiskScrub {
        DiskScrub {
            path,
            runs: self.rest_until.is_none() && self.budget_bytes(due_bytes) > 0
                || self.looks.load(Ordering::Acquire) > 0,
            passes: self.passes,
            verified_bytes: self.verified_bytes,
            corrupt_blocks: self.corrupt_blocks.load(Ordering::Relaxed),
            used_bytes,
        }
    }

    /// Nothing can be verified any more: a pass that is under way is over.
    pub fn ends(&mut self, now: Instant) {
        match self.rest_until {
            Some(_) => self.rest_until = Some(now + REST),
            None => self.rest(now + REST),
        }
    }

    /// The pass is over.
    fn rest(&mut self, until: Instant) {
        self.after = None;
        self.chunks = 0;
        self.rest_until = Some(until);
        self.passes += 1;
        self.asked_bytes = None;
    }

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
    pub fn scrub(self: &Arc<Self>, progress: &mut Progress, budget_bytes: u64, now: Instant) -> Result<()> {
        match progress.rest_until {
            Some(until) if now < until => return Ok(()),
            Some(_) => {
                progress.rest_until = None;
                progress.verified_bytes = 0;
                progress.corrupt_blocks = Arc::default();
            }
            None => {}
        }
        let mut left = to_usize(budget_bytes / CHUNK_BYTES);
        while left > 0 {
            let (target, last) = self.next_target(progress.after)?;
            let Some(target) = target else {
                match last {
                    Some(last) => {
                        progress.after = Some(last);
                        progress.chunks = 0;
                        continue;
                    }
                    None => {
                        progress.rest(now + REST);
                        return Ok(());
                    }
                }
            };
            progress.comes_to(target.block, target.checksums.len());
            let verified = self.verify_some(&target, progress, left);
            left -= verified.min(left);
            let verified_bytes = (verified as u64 * CHUNK_BYTES).min(target.len_bytes);
            metrics::SCRUBBED_BYTES.add(verified_bytes);
            progress.verified_bytes += verified_bytes;
            progress.chunks += verified;
            if progress.chunks >= target.checksums.len() {
                progress.after = Some(target.block);
                progress.chunks = 0;
                // An empty block costs something too.
                left = left.saturating_sub(usize::from(verified == 0));
            }
        }
        Ok(())
    }

    /// The first sealed block that is not done, if this page of the index has one, and the last one looked at.
    fn next_target(&self, after: Option<BlockId>) -> Result<(Option<Target>, Option<BlockId>)> {
        let mut target = None;
        let last = self.index.page(after, PAGE, |block, record| {
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

    /// Verifies at most `limit` chunks of a block that the pass has come to; how many were done. All, if the file cannot be
    /// read: then the lane finds out.
    fn verify_some(self: &Arc<Self>, target: &Target, progress: &Progress, limit: usize) -> usize {
        let from = progress.chunks;
        let look_again = |chunk| self.look_again(target, chunk, progress);
        let until = target.checksums.len().min(from + limit);
        if target.in_index {
            let right = self.index.get_with_content(target.block, |_, content| {
                content.is_none_or(|content| is_content_of(&target.checksums, content))
            });
            if !matches!(right, Ok(None | Some(true))) {
                look_again(0);
            }
            return target.checksums.len();
        }
        let Ok(file) = File::open(self.path(target.block)) else {
            look_again(from);
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
                look_again(chunk);
            }
        }
        until - from
    }

    /// On the lane, as any read: what is corrupt is taken out of use there. What changed meanwhile is another block now.
    fn look_again(self: &Arc<Self>, target: &Target, chunk: usize, progress: &Progress) {
        let (corrupt_blocks, looks) = (progress.corrupt_blocks.clone(), progress.looks.clone());
        looks.fetch_add(1, Ordering::AcqRel);
        let look = ReadBlock {
            block: target.block,
            generation: target.generation,
            offset_bytes: chunk as u64 * CHUNK_BYTES,
            len_bytes: 1,
            fill: None,
            exact: false,
            tier: Wish::UNSAID,
        };
        self.on_lane(target.block, move |store| {
            let looked = store
                .check_there(look.block)
                .and_then(|()| store.read(&look).map(drop));
            if let Err(error) = looked {
                if error.kind == ErrorKind::Corrupt {
                    corrupt_blocks.fetch_add(1, Ordering::Relaxed);
                }
                tracing::warn!("the scrubber found: {error}");
            }
            looks.fetch_sub(1, Ordering::AcqRel);
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
            ..Progress::default()
        };
        let at = |block, chunks| {
            let mut progress = begun.clone();
            progress.comes_to(BlockId(block), chunks);
            (progress.after, progress.chunks)
        };
        assert_eq!(at(7, 8), (Some(BlockId(6)), 5));
        assert_eq!(at(7, 5), (Some(BlockId(6)), 5), "nothing is left to be done");
        assert_eq!(at(7, 4), (Some(BlockId(6)), 0));
        assert_eq!(at(9, 8), (Some(BlockId(8)), 0), "the block before is gone");
    }
}
