//! S3-FIFO (Yang et al., SOSP 2023): a small queue for what is new, a main queue for what was used again, and the names of
//! what went.
//!
//! A new block enters the small queue. When its turn to go comes and it was used meanwhile, it moves to the main queue
//! instead. A block that comes back while its name is remembered enters the main queue at once. In the main queue each use,
//! up to three, is worth one more round. So a scan, of which nothing is used again, takes a tenth of the room.

use curvine_protocol::BlockId;

use super::lists::{Entry, Owner};
use super::{GHOSTS_MAX, Policy};

const SMALL: usize = 0;
const MAIN: usize = 1;
pub const GHOSTS: usize = 2;
/// The small queue has one in so many bytes.
const SMALL_SHARE: u64 = 10;
/// In epochs, it is this part.
const SMALL_SHARE_IN_EPOCHS: u64 = 20;
const USES_MAX: u8 = 3;
/// In epochs, so many blocks of the main queue are looked at for each that goes.
const LOOKS: usize = 8;
/// Names are remembered of so many times the blocks that there are.
const GHOSTS_A_BLOCK: usize = 2;
const GHOSTS_MIN: usize = 16;

impl Policy {
    pub(super) fn came_s3(&mut self, block: BlockId, bytes: u64, owner: Owner) {
        let now = self.time();
        let ghost = self.lists.remove(block);
        let away = ghost.map(|ghost| now.wrapping_sub(ghost.seen));
        let list = match away {
            Some(_) if !self.epochs.are_on() => MAIN,
            _ => SMALL,
        };
        self.lists.add(list, block, bytes, now, owner);
        let began = self.epochs.came(bytes, away, self.bytes());
        if began {
            self.keep_what_is_here();
        }
    }

    pub(super) fn used_s3(&mut self, block: BlockId) {
        let now = self.time();
        if let Some(entry) = self.lists.get_mut(block) {
            entry.uses = (entry.uses + 1).min(USES_MAX);
            entry.seen = now;
            self.epochs.hit(entry.bytes);
        }
    }

    /// Epochs begin: all but the newest is the part that stays.
    fn keep_what_is_here(&mut self) {
        let small_bytes = self.bytes() / SMALL_SHARE_IN_EPOCHS;
        while self.lists.bytes(SMALL) > small_bytes && self.lists.blocks(SMALL) > 1 {
            let oldest = self.lists.oldest(SMALL).map(|entry| entry.block);
            let Some(oldest) = oldest else { break };
            self.lists.move_to(MAIN, oldest);
        }
    }

    pub(super) fn choose_s3(
        &mut self,
        need_bytes: u64,
        may_go: impl Fn(BlockId) -> bool,
    ) -> Vec<(BlockId, u64)> {
        let (mut chosen, mut bytes, mut in_use) = (Vec::new(), 0, Vec::new());
        // After that each has been passed over for what it was used, and for being in use.
        let mut steps = self.blocks() * (usize::from(USES_MAX) + 3);
        while bytes < need_bytes && steps > 0 {
            if self.epochs.are_on()
                && let Some(unused) = self.not_of_these_epochs(&may_go)
            {
                bytes += self.evict(unused, &mut chosen);
                // Another block takes its place in the part that stays.
                if let Some(oldest) = self.lists.oldest(SMALL).map(|entry| entry.block) {
                    self.lists.move_to(MAIN, oldest);
                }
                steps -= 1;
                continue;
            }
            steps -= 1;
            let list = self.next_to_go_from();
            let Some(&entry) = self.lists.oldest(list) else {
                break;
            };
            let block = entry.block;
            match entry.uses {
                // Aside until the others have had their turn.
                _ if !may_go(block) => in_use.extend(self.lists.remove(block).map(|entry| (list, entry))),
                0 => bytes += self.evict(block, &mut chosen),
                uses => {
                    let left = if list == SMALL { 0 } else { uses - 1 };
                    if let Some(entry) = self.lists.get_mut(block) {
                        entry.uses = left;
                    }
                    self.lists.move_to(MAIN, block);
                }
            }
        }
        for (
            list,
            Entry {
                block,
                bytes,
                seen,
                uses,
                owner,
                ..
            },
        ) in in_use
        {
            self.lists.add(list, block, bytes, seen, owner);
            if let Some(entry) = self.lists.get_mut(block) {
                entry.uses = uses;
            }
        }
        chosen
    }

    fn next_to_go_from(&self) -> usize {
        let has_main = self.lists.blocks(MAIN) > 0;
        if self.lists.blocks(SMALL) == 0 {
            return MAIN;
        }
        let is_large = self.lists.bytes(SMALL) * SMALL_SHARE >= self.bytes();
        match has_main && !is_large && !self.epochs.are_on() {
            true => MAIN,
            false => SMALL,
        }
    }

    /// A block of the part that stays, if there is one that was not used for longer than an epoch takes.
    fn not_of_these_epochs(&mut self, may_go: &impl Fn(BlockId) -> bool) -> Option<BlockId> {
        let now = self.time();
        for _ in 0..LOOKS {
            let oldest = *self.lists.oldest(MAIN)?;
            if self.epochs.is_over(now.wrapping_sub(oldest.seen)) && may_go(oldest.block) {
                return Some(oldest.block);
            }
            self.lists.move_to(MAIN, oldest.block);
        }
        None
    }

    fn evict(&mut self, block: BlockId, chosen: &mut Vec<(BlockId, u64)>) -> u64 {
        let bytes = self.lists.get(block).map_or(0, |entry| entry.bytes);
        chosen.push((block, bytes));
        self.lists.move_to(GHOSTS, block);
        self.epochs.evicted();
        let remembered = (self.blocks() * GHOSTS_A_BLOCK).clamp(GHOSTS_MIN, GHOSTS_MAX);
        while self.lists.blocks(GHOSTS) > remembered {
            let forgotten = self.lists.oldest(GHOSTS).map(|entry| entry.block);
            let Some(forgotten) = forgotten else { break };
            self.lists.remove(forgotten);
        }
        bytes
    }
}
