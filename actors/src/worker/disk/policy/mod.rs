//! Which cached blocks of a disk go first when there is no room: pure.
//!
//! A [`Policy`] is told which cached blocks there are, what each takes on the device, and when they are used. Asked for
//! room, it names blocks and forgets them. It knows nothing of kept blocks, of the disk or of the time of day: what must
//! not go is its caller's to say.
//!
//! - [`s3_fifo`]: the default. A block that is read once passes by those that are read again and again; of data that is
//!   read over and over and does not fit, a fixed part stays ([`epochs`]).
//! - LRU and LFU, for comparison and for those who know their readers.
//! - [`lists`]: what all of them are made of.
//!
//! One read of a large block is many grants. So a use counts only if other blocks were used since the last one: of the
//! blocks that were used most lately ([`LATELY_MAX`]), a use is the same use.
//!
//! Memory: at most 112 bytes for each block. S3-FIFO also remembers blocks that went, *ghosts*, with as much memory
//! each: twice as many as there are blocks, and never more than [`GHOSTS_MAX`].

mod epochs;
mod lists;
mod s3_fifo;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use curvine_conf::EvictionPolicy;
use curvine_protocol::BlockId;

use self::epochs::Epochs;
pub use self::lists::Owner;
use self::lists::{LISTS, Lists};

/// Most memory for each block or ghost, in bytes: an entry, and its place in a hash map, both just after they grew.
#[cfg(test)]
const BYTES_A_BLOCK: usize = 112;
/// Most blocks that went and are remembered.
pub const GHOSTS_MAX: usize = 1 << 18;
/// Of the blocks that were used most lately, one more use is the same use. Of few blocks, an eighth are.
const LATELY_MAX: usize = 32;

/// See the module.
pub struct Policy {
    order: EvictionPolicy,
    lists: Lists,
    /// The blocks that were used most lately.
    lately: VecDeque<BlockId>,
    /// Bytes of blocks that came or were used: the policy's time.
    passed_bytes: u64,
    epochs: Epochs,
    /// With LFU: uses since counts were last halved.
    counted: usize,
}

impl Policy {
    pub fn new(order: EvictionPolicy) -> Self {
        Policy {
            order,
            lists: Lists::new((order == EvictionPolicy::S3Fifo).then_some(s3_fifo::GHOSTS)),
            lately: VecDeque::new(),
            passed_bytes: 0,
            epochs: Epochs::default(),
            counted: 0,
        }
    }

    /// What all blocks take on the device.
    pub fn bytes(&self) -> u64 {
        let ghosts = self.ghosts().map_or(0, |list| self.lists.bytes(list));
        self.lists.all_bytes() - ghosts
    }

    /// What a block takes on the device, if it is here and may go.
    pub fn bytes_of(&self, block: BlockId) -> u64 {
        match self.has(block) {
            true => self.lists.get(block).map_or(0, |entry| entry.bytes),
            false => 0,
        }
    }

    /// What the blocks of an owner take on the device.
    pub fn owned_bytes(&self, owner: Owner) -> u64 {
        self.lists.owned_bytes(owner)
    }

    /// Whose a block is, if it is here and may go.
    pub fn owner_of(&self, block: BlockId) -> Owner {
        match self.has(block) {
            true => self
                .lists
                .get(block)
                .map_or(Owner::default(), |entry| entry.owner),
            false => Owner::default(),
        }
    }

    /// The blocks of an owner with what each takes, about in the order in which they would go.
    pub fn owned_by(&self, owner: Owner) -> Vec<(BlockId, u64)> {
        let mut owned = Vec::new();
        for list in (0..LISTS).filter(|list| self.ghosts() != Some(*list)) {
            let mut next = self.lists.oldest(list);
            while let Some(entry) = next {
                owned.extend((entry.owner == owner).then_some((entry.block, entry.bytes)));
                next = self.lists.next_newer(entry);
            }
        }
        owned
    }

    pub fn blocks(&self) -> usize {
        let ghosts = self.ghosts().map_or(0, |list| self.lists.blocks(list));
        self.lists.all_blocks() - ghosts
    }

    pub fn has(&self, block: BlockId) -> bool {
        self.lists
            .list_of(block)
            .is_some_and(|list| self.ghosts() != Some(list))
    }

    /// A cached block has come, or takes so much now.
    pub fn came(&mut self, block: BlockId, bytes: u64, owner: Owner) {
        if self.has(block) {
            self.lists.belongs_to(block, owner);
            return self.lists.resize(block, bytes);
        }
        self.passes(block, bytes);
        match self.order {
            EvictionPolicy::S3Fifo => self.came_s3(block, bytes, owner),
            EvictionPolicy::Lru | EvictionPolicy::Lfu => self.lists.add(0, block, bytes, 0, owner),
        }
    }

    /// A block is used.
    pub fn used(&mut self, block: BlockId) {
        if !self.has(block) || self.lately.contains(&block) {
            return;
        }
        let bytes = self.lists.get(block).map_or(0, |entry| entry.bytes);
        self.passes(block, bytes);
        match self.order {
            EvictionPolicy::S3Fifo => self.used_s3(block),
            EvictionPolicy::Lru => self.lists.move_to(0, block),
            EvictionPolicy::Lfu => self.used_lfu(block),
        }
    }

    /// A block is gone, or cached no more.
    pub fn removed(&mut self, block: BlockId) {
        // That it went is remembered.
        if self.has(block) {
            self.lists.remove(block);
        }
    }

    /// A block that [`Policy::choose`] named stays after all.
    pub fn stays(&mut self, block: BlockId, bytes: u64, owner: Owner) {
        if !self.has(block) {
            self.lists.remove(block);
            self.lists.add(0, block, bytes, self.time(), owner);
        }
    }

    /// Names blocks whose bytes come to at least so many, or to as many as there are, of those that may go. They are
    /// forgotten.
    pub fn choose(&mut self, need_bytes: u64, may_go: impl Fn(BlockId) -> bool) -> Vec<(BlockId, u64)> {
        match self.order {
            EvictionPolicy::S3Fifo => self.choose_s3(need_bytes, may_go),
            EvictionPolicy::Lru | EvictionPolicy::Lfu => self.choose_in_order(need_bytes, may_go),
        }
    }

    /// The list of blocks that went.
    fn ghosts(&self) -> Option<usize> {
        (self.order == EvictionPolicy::S3Fifo).then_some(s3_fifo::GHOSTS)
    }

    /// The policy's time, in units of 64 KiB that passed. It wraps after 256 TiB.
    fn time(&self) -> u32 {
        u32::try_from((self.passed_bytes >> 16) & u64::from(u32::MAX)).expect("it is cut to 32 bits")
    }

    fn passes(&mut self, block: BlockId, bytes: u64) {
        self.passed_bytes = self.passed_bytes.wrapping_add(bytes);
        let remembered = (self.blocks() / 8).clamp(1, LATELY_MAX);
        self.lately.push_back(block);
        while self.lately.len() > remembered {
            self.lately.pop_front();
        }
    }

    fn used_lfu(&mut self, block: BlockId) {
        let list = self.lists.list_of(block).unwrap_or(0);
        self.lists.move_to((list + 1).min(LISTS - 1), block);
        self.counted += 1;
        // What was used often long ago is not kept for ever.
        if self.counted >= 8 * self.blocks() {
            self.counted = 0;
            for list in 1..LISTS {
                while let Some(block) = self.lists.oldest(list).map(|entry| entry.block) {
                    self.lists.move_to(list / 2, block);
                }
            }
        }
    }

    /// From the first list to the last, the oldest of each first.
    fn choose_in_order(&mut self, need_bytes: u64, may_go: impl Fn(BlockId) -> bool) -> Vec<(BlockId, u64)> {
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        for list in 0..LISTS {
            let mut next = self.lists.oldest(list);
            while let Some(entry) = next
                && bytes < need_bytes
            {
                if may_go(entry.block) {
                    bytes += entry.bytes;
                    chosen.push((entry.block, entry.bytes));
                }
                next = self.lists.next_newer(entry);
            }
        }
        for (block, _) in &chosen {
            self.lists.remove(*block);
        }
        chosen
    }
}
