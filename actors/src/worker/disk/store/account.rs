//! What is known of a block, for people.

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::{BlockAccount, Gone, HeldAccount};
use curvine_protocol::{BlockId, Result};

use super::super::record::BlockState;
use super::{Store, lock};

impl Store {
    /// A block is being served.
    pub(super) fn was_read(&self, block: BlockId) {
        self.reads.insert(block, self.now_ms());
    }

    /// A block is here no more.
    pub(super) fn went(&self, block: BlockId, why: Gone) {
        lock(&self.departed).went(block, self.now_ms(), why);
    }

    /// What this disk has of a block, or how it went; of a guest, that it is a copy in this tier. Waits for the index.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn account(&self, block: BlockId) -> Result<BlockAccount> {
        let Some(record) = self.record(block)? else {
            return Ok(BlockAccount {
                held: None,
                gone: lock(&self.departed).of(block),
            });
        };
        let present_bytes = match &record.state {
            BlockState::Filling { present } => record.len_bytes.min(present.ones() as u64 * CHUNK_BYTES),
            _ => record.len_bytes,
        };
        let held = HeldAccount {
            disk: self.name.clone(),
            tier: self.directory.tier,
            generation: record.generation,
            len_bytes: record.len_bytes,
            present_bytes,
            is_sealed: matches!(record.state, BlockState::Sealed),
            cached: record.flags.from_ufs,
            pinned: record.flags.pinned,
            came_ms: record.accessed_ms,
            read_ms: self.reads.get(block),
            copy: record.flags.guest.then_some(self.directory.tier),
            wished: record.flags.tier,
        };
        Ok(BlockAccount {
            held: Some(held),
            gone: None,
        })
    }
}
