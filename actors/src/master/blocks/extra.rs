//! Of which blocks more workers are to have a replica than their files want: hot ones, and cached ones of mounts that want
//! several. Pure.
//!
//! Hot are those that workers say were read again and again. The first extra copy is made from [`FROM_PASSES`] on, and another
//! one each time a block is [`TIMES`] as hot; a kept one goes again where the block is half as hot. Copies of cached blocks are
//! cached themselves: they go when room is needed.

use std::collections::HashMap;

use curvine_protocol::{BlockId, BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;
use super::placement::in_turn;
use super::roster::PARTS;

/// So often a block was read, by passes that fade (`HotBlock`), of which there is to be one more copy.
pub const FROM_PASSES: u32 = 8;
const TIMES: u32 = 4;
/// A worker gets no extra copy of what is kept if it keeps more than this of what it has room for,
const PLENTY: u64 = PARTS / 10 * 5;
/// and all extra copies go where one keeps more than this.
const CROWDED: u64 = PARTS / 10 * 6;

/// The hot blocks of one moment.
#[derive(Debug, Default)]
pub struct Hot {
    /// By how often each was read on all workers together.
    passes: HashMap<BlockId, u32>,
    /// So many more copies there are at most.
    most: usize,
    /// Room for what is kept is short on some worker.
    is_crowded: bool,
}

impl Hot {
    pub fn passes(&self, block: BlockId) -> u32 {
        self.passes.get(&block).copied().unwrap_or(0)
    }

    /// Whether there are to be more copies of any block.
    pub fn is_any(&self) -> bool {
        self.passes.keys().any(|block| self.more(*block) > 0)
    }

    /// How many more copies are to be made of a block.
    pub fn more(&self, block: BlockId) -> usize {
        level(self.passes(block), self.most)
    }

    /// How many more of a kept block may stay.
    pub fn may_stay(&self, block: BlockId) -> usize {
        match self.is_crowded {
            true => 0,
            false => level(self.passes(block).saturating_mul(2), self.most),
        }
    }
}

fn level(passes: u32, most: usize) -> usize {
    let thresholds = std::iter::successors(Some(FROM_PASSES), |from| from.checked_mul(TIMES));
    thresholds.take(most).take_while(|from| passes >= *from).count()
}

/// Where a copy of a cached block comes from, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Another {
    pub from: Vec<WorkerId>,
    pub to: WorkerId,
}

impl Cluster {
    /// The hot blocks, of which there may be so many more copies at most.
    pub fn hot(&self, most: usize, now: Instant) -> Hot {
        let mut passes: HashMap<BlockId, u32> = HashMap::new();
        for hot in self.roster.hot(now) {
            let sum = passes.entry(hot.block).or_default();
            *sum = sum.saturating_add(hot.passes);
        }
        let mut serving = self.roster.serving(now);
        let is_crowded = serving.any(|id| self.roster.may_keep(id) && self.roster.kept_share(id) > CROWDED);
        Hot {
            passes,
            most,
            is_crowded,
        }
    }

    /// Whether a worker may get a copy of a kept block that no file wants.
    pub fn has_plenty(&self, id: WorkerId) -> bool {
        self.roster.kept_share(id) < PLENTY
    }

    /// How a cached block gets another copy if fewer workers than wanted have it. It goes where there is room; a `hot` one also
    /// where other cached blocks have to go for it.
    pub fn another(&self, block: &BlockRef, wanted: usize, hot: bool, now: Instant) -> Option<Another> {
        let serves = |id: &WorkerId| self.roster.out.is_in_service(*id, now) && self.roster.is_live(*id, now);
        let from: Vec<WorkerId> = self.holders.reported(block).filter(serves).collect();
        if from.is_empty() || self.live_holders(block, now).len() >= wanted {
            return None;
        }
        let has_some: Vec<WorkerId> = self.holders.of(block.id).collect();
        let takes = |id: &WorkerId| {
            let has_room = match hot {
                true => self.roster.may_cache(*id, block.len_bytes),
                false => self.roster.has_free(*id, block.len_bytes),
            };
            has_room && !has_some.contains(id)
        };
        let room: Vec<WorkerId> = self.roster.serving(now).filter(takes).collect();
        let to = self.roster.spread(in_turn(block.id, &room), &from, 1);
        Some(Another {
            to: *to.first()?,
            from,
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::master::HotBlock;

    use super::super::roster::LOST_AFTER;
    use super::super::testing::{BLOCK, cluster_of, disk_of, reports};
    use super::*;

    fn is_read(cluster: &mut Cluster, id: u32, passes: u32) {
        let hot = HotBlock {
            block: BLOCK.id,
            passes,
        };
        cluster.roster.is_hot(WorkerId(id), vec![hot]);
    }

    #[test]
    fn the_hotter_a_block_is_the_more_copies_there_are_and_they_go_late() {
        let now = Instant::now();
        let mut cluster = cluster_of(&[(1, 0, 1_000), (2, 0, 1_000)], now);
        let mut copies = |of_1, of_2| {
            is_read(&mut cluster, 1, of_1);
            is_read(&mut cluster, 2, of_2);
            let hot = cluster.hot(2, now);
            (hot.more(BLOCK.id), hot.may_stay(BLOCK.id))
        };
        assert_eq!(copies(3, 0), (0, 0));
        assert_eq!(copies(4, 3), (0, 1), "what there is stays");
        assert_eq!(copies(4, 4), (1, 1));
        assert_eq!(copies(16, 15), (1, 2));
        assert_eq!(copies(16, 16), (2, 2));
        assert_eq!(copies(u32::MAX, u32::MAX), (2, 2), "no more than that");
        assert_eq!(cluster.hot(0, now).more(BLOCK.id), 0);
        assert_eq!(
            cluster.hot(2, now + LOST_AFTER).more(BLOCK.id),
            0,
            "nobody reads it there"
        );
    }

    #[test]
    fn where_room_is_short_no_extra_copy_stays() {
        let now = Instant::now();
        let mut cluster = cluster_of(&[(1, 0, 1_000), (2, 499, 1_000), (3, 600, 1_000)], now);
        is_read(&mut cluster, 1, 50);
        assert_eq!(cluster.hot(1, now).may_stay(BLOCK.id), 1);
        assert!(cluster.has_plenty(WorkerId(2)) && !cluster.has_plenty(WorkerId(3)));
        let disks = vec![disk_of(1_000, 601)];
        assert!(cluster.roster.heartbeat(WorkerId(3), 1, disks, now));
        assert_eq!(cluster.hot(1, now).may_stay(BLOCK.id), 0);
    }

    #[test]
    fn a_cached_block_is_copied_where_there_is_room_and_a_hot_one_where_room_is_made() {
        let now = Instant::now();
        let mut cluster = cluster_of(&[(1, 0, 1_000), (2, 0, 1_000)], now);
        let another = |cluster: &Cluster, wanted, hot| cluster.another(&BLOCK, wanted, hot, now);
        assert_eq!(another(&cluster, 2, true), None, "nobody has it");
        reports(&mut cluster, 1, BLOCK, BLOCK.generation);
        let copy = Another {
            from: vec![WorkerId(1)],
            to: WorkerId(2),
        };
        assert_eq!(another(&cluster, 1, true), None);
        assert_eq!(another(&cluster, 2, true), Some(copy.clone()));
        assert_eq!(another(&cluster, 2, false), Some(copy.clone()));
        let mut disk = disk_of(1_000, 1_000);
        disk.cached_bytes = 500;
        assert!(cluster.roster.heartbeat(WorkerId(2), 1, vec![disk], now));
        assert_eq!(another(&cluster, 2, false), None);
        assert_eq!(another(&cluster, 2, true), Some(copy));
        reports(&mut cluster, 2, BLOCK, BLOCK.generation);
        assert_eq!(another(&cluster, 3, true), None, "there is no third worker");
    }
}
