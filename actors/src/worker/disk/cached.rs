//! The cached blocks of a disk, and which of them are spared for a while: pure.
//!
//! Invariant: a block that is spared is not chosen, and what is remembered of those that are spared is bounded.

use std::collections::HashMap;
use std::time::Duration;

use curvine_conf::EvictionPolicy;
use curvine_protocol::BlockId;
use tokio::time::Instant;

use super::policy::Policy;

/// For so long a block stays that was fetched for a writer, who cannot write a part of it without the rest.
pub const SPARED: Duration = Duration::from_secs(60);
/// Blocks that are spared. Writers of more of them at once fetch again what went.
const SPARED_MAX: usize = 4_096;

/// See the module.
pub struct Cached {
    policy: Policy,
    /// Until when.
    spared: HashMap<BlockId, Instant>,
}

impl Cached {
    /// The blocks with what they take, those that are to go first at the beginning.
    pub fn new(order: EvictionPolicy, blocks: impl IntoIterator<Item = (BlockId, u64)>) -> Self {
        let mut policy = Policy::new(order);
        for (block, bytes) in blocks {
            policy.came(block, bytes);
        }
        Cached {
            policy,
            spared: HashMap::new(),
        }
    }

    /// What they take on the device.
    pub fn bytes(&self) -> u64 {
        self.policy.bytes()
    }

    pub fn came(&mut self, block: BlockId, bytes: u64) {
        self.policy.came(block, bytes);
    }

    pub fn used(&mut self, block: BlockId) {
        self.policy.used(block);
    }

    /// A block is gone, or kept from now on.
    pub fn removed(&mut self, block: BlockId) {
        self.policy.removed(block);
        self.spared.remove(&block);
    }

    /// A block that was chosen stays after all.
    pub fn stays(&mut self, block: BlockId, bytes: u64) {
        self.policy.stays(block, bytes);
    }

    /// A writer is about to write a part of a block.
    pub fn spare(&mut self, block: BlockId, now: Instant) {
        if self.spared.len() >= SPARED_MAX {
            self.spared.retain(|_, until| *until > now);
        }
        if self.spared.len() < SPARED_MAX {
            self.spared.insert(block, now + SPARED);
        }
    }

    pub fn is_spared(&self, block: BlockId, now: Instant) -> bool {
        self.spared.get(&block).is_some_and(|until| *until > now)
    }

    /// See [`Policy::choose`].
    pub fn choose(
        &mut self,
        need_bytes: u64,
        now: Instant,
        is_in_use: impl Fn(BlockId) -> bool,
    ) -> Vec<(BlockId, u64)> {
        let spared = &self.spared;
        let is_spared = |block| spared.get(&block).is_some_and(|until| *until > now);
        self.policy
            .choose(need_bytes, |block| !is_spared(block) && !is_in_use(block))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_spared_for_a_while_and_no_more_are_than_the_limit() {
        let now = Instant::now();
        let mut cached = Cached::new(EvictionPolicy::Lru, [(BlockId(1), 10), (BlockId(2), 10)]);
        cached.spare(BlockId(1), now);
        assert_eq!(cached.choose(20, now, |_| false), [(BlockId(2), 10)]);
        assert_eq!(cached.choose(20, now + SPARED, |_| false), [(BlockId(1), 10)]);
        (0..SPARED_MAX as u64 + 9).for_each(|block| cached.spare(BlockId(block), now));
        assert_eq!(cached.spared.len(), SPARED_MAX);
        cached.spare(BlockId(1 << 40), now + SPARED);
        assert!(cached.is_spared(BlockId(1 << 40), now + SPARED) && cached.spared.len() == 1);
    }
}
