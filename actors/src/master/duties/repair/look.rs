//! What one look at all kept blocks finds. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use curvine_protocol::cluster::DrainLeft;
use curvine_protocol::worker::SurplusReplica;
use curvine_protocol::{BlockId, BlockRef, InodeId, WorkerId};
use tokio::time::Instant;

use crate::master::blocks::Cluster;
use crate::master::blocks::balance::{Move, Plan};
use crate::master::blocks::care::Care;
use crate::master::blocks::extra::{Another, Hot};
use crate::master::blocks::surplus::Surplus;
use crate::master::namespace::kept::{Cached, Kept};

/// Blocks that one look finds at most: to copy, and replicas to shed.
pub const FOUND_MAX: usize = 4_096;
/// Extra copies that are made after one look: whatever is missing is looked for again soon.
pub const EXTRA_MAX: usize = 16;

/// What the last look found.
#[derive(Clone, Default)]
pub struct Seen {
    pub took: Duration,
    /// Blocks of which there are too few replicas, by what is done about it.
    pub to_copy: usize,
    pub waiting: usize,
    pub nowhere: usize,
    pub lost: usize,
    /// What is left of them is set aside.
    pub rotten: usize,
    /// Replicas that are too much.
    pub surplus: usize,
    /// Kept blocks have more than their files want, as they are hot.
    pub has_extra: bool,
    pub failure: Option<String>,
}

/// A copy that is to be made.
pub struct Task {
    pub block: BlockRef,
    pub from: WorkerId,
    pub to: WorkerId,
}

/// A copy that is to be made beyond those that files want.
pub enum Extra {
    Kept(Task),
    Cached(Cached, Another),
}

impl Extra {
    pub fn block(&self) -> BlockId {
        match self {
            Extra::Kept(task) => task.block.id,
            Extra::Cached(cached, _) => cached.block.id,
        }
    }
}

/// What one look finds.
#[derive(Default)]
pub struct Look {
    /// By how many replicas there are.
    pub found: BTreeMap<usize, Vec<Task>>,
    pub seen: Seen,
    /// Blocks that go elsewhere to balance the workers, as far as these are planned.
    pub plan: Option<Plan>,
    pub moves: Vec<(BlockRef, Move)>,
    /// Replicas that are too much, by who has them.
    pub surplus: BTreeMap<WorkerId, Vec<SurplusReplica>>,
    /// Files with blocks of which there are doubtful replicas alone.
    pub doubtful: BTreeSet<InodeId>,
    /// Workers with older replicas of blocks that others have said to have: they hear it when they report again.
    pub outdated: BTreeSet<WorkerId>,
    /// Of each worker that is being drained.
    pub left: BTreeMap<WorkerId, DrainLeft>,
    pub hot: Hot,
    /// By how hot the blocks are.
    pub extra: BTreeMap<u32, Vec<Extra>>,
}

impl Look {
    /// Of workers that are being drained, it finds what is left.
    pub fn of_all(draining: impl IntoIterator<Item = WorkerId>, hot: Hot) -> Self {
        let left = draining.into_iter();
        Look {
            hot,
            left: left.map(|worker| (worker, DrainLeft::default())).collect(),
            ..Look::default()
        }
    }

    pub fn at(&mut self, cluster: &Cluster, kept: &Kept, now: Instant) {
        let block = kept.block;
        if !kept.is_settled {
            let told = cluster.holders.told_to_write(block.id).iter().copied();
            let mut workers: BTreeSet<_> = cluster.holders.of(block.id).chain(told).collect();
            if workers.is_empty() {
                // Its writer may have been sent to any of them, by a leader before this one.
                workers.extend(self.left.keys());
            }
            self.left_on(workers, |left| left.open_blocks += 1);
            return;
        }
        let may_stay = kept.replicas + self.hot.may_stay(block.id);
        if may_stay > kept.replicas {
            let replicas = cluster.holders.reported(&block).count();
            self.seen.has_extra |= replicas > kept.replicas;
        }
        if let Some(Surplus { at, keepers }) = cluster.surplus(&block, may_stay, now) {
            self.seen.surplus += 1;
            if self.seen.surplus <= FOUND_MAX {
                let replica = SurplusReplica { block, keepers };
                self.surplus.entry(at).or_default().push(replica);
            }
        }
        if let Some(plan) = &mut self.plan
            && self.moves.len() < FOUND_MAX
            && let Some(to) = plan.take(cluster, &block, kept.replicas, now)
        {
            self.moves.push((block, to));
        }
        self.more_of(cluster, kept, now);
        // That suffices for a file that wants one replica.
        let is_there = || cluster.holder(&block, now).is_some() && !cluster.holders.has_endangered(block.id);
        if kept.replicas <= 1 && self.left.is_empty() && is_there() {
            return;
        }
        let care = cluster.care(&block, kept.replicas, now);
        if care != Care::Nothing && cluster.holders.reported(&block).next().is_some() {
            // What is current had been reported before the masters knew it for that.
            self.outdated.extend(cluster.holders.outdated(&block));
        }
        match care {
            Care::Nothing => {}
            Care::Wait => self.seen.waiting += 1,
            Care::Nobody if cluster.has_doubtful(&block, now) => {
                self.seen.waiting += 1;
                self.doubtful.insert(kept.inode);
            }
            Care::Nobody => match cluster.salvage(&block, now) {
                Some((from, to)) => {
                    self.seen.to_copy += 1;
                    self.found.entry(0).or_default().push(Task { block, from, to });
                }
                None if !cluster.holders.damaged_on(block.id).is_empty() => self.seen.rotten += 1,
                None => self.seen.lost += 1,
            },
            Care::Nowhere => self.seen.nowhere += 1,
            Care::Copy { from, to, replicas } => {
                self.seen.to_copy += 1;
                let task = Task { block, from, to };
                self.found.entry(replicas).or_default().push(task);
            }
        }
        if !self.left.is_empty() && !cluster.does_without_drained(&block, kept.replicas, now) {
            self.left_on(cluster.holders.of(block.id), |left| {
                left.blocks += 1;
                left.len_bytes += block.len_bytes;
            });
            // Some of what is set aside may be right nowhere else.
            let aside = cluster.holders.damaged_on(block.id).iter().copied();
            self.left_on(aside, |left| left.damaged_blocks += 1);
        }
    }

    /// Finds whether there is to be another copy of a kept block, as it is hot.
    fn more_of(&mut self, cluster: &Cluster, kept: &Kept, now: Instant) {
        let more = self.hot.more(kept.block.id);
        if more == 0 {
            return;
        }
        if let Care::Copy { from, to, replicas } = cluster.care(&kept.block, kept.replicas + more, now)
            && replicas >= kept.replicas
            && cluster.has_plenty(to)
        {
            self.add(Extra::Kept(Task {
                block: kept.block,
                from,
                to,
            }));
        }
    }

    /// Finds whether there is to be another copy of a cached block, as it is hot or its mount wants several.
    pub fn at_cached(&mut self, cluster: &Cluster, cached: &Cached, now: Instant) {
        let of_mount = cluster
            .mounts
            .get(&cached.mount)
            .map_or(0, |mount| mount.replicas);
        let wanted = of_mount.max(1);
        let more = self.hot.more(cached.block.id);
        let another = cluster.another(&cached.block, wanted, false, now).or_else(|| {
            (more > 0)
                .then(|| cluster.another(&cached.block, wanted + more, true, now))
                .flatten()
        });
        if let Some(another) = another {
            self.add(Extra::Cached(*cached, another));
        }
    }

    /// Of many, the hottest stay.
    fn add(&mut self, extra: Extra) {
        let passes = self.hot.passes(extra.block());
        self.extra.entry(passes).or_default().push(extra);
        if self.extra.values().map(Vec::len).sum::<usize>() > EXTRA_MAX
            && let Some(mut coldest) = self.extra.first_entry()
        {
            coldest.get_mut().pop();
            if coldest.get().is_empty() {
                coldest.remove();
            }
        }
    }

    fn left_on(&mut self, workers: impl IntoIterator<Item = WorkerId>, add: impl Fn(&mut DrainLeft)) {
        for worker in workers {
            if let Some(left) = self.left.get_mut(&worker) {
                add(left);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::WorkerService;

    use super::*;
    use crate::master::blocks::roster::LOST_AFTER;
    use crate::master::blocks::testing::{BLOCK, cluster_of, reports};
    use crate::master::namespace::services::Services;

    const KEPT: Kept = Kept {
        inode: InodeId(3),
        block: BLOCK,
        replicas: 1,
        is_settled: true,
    };

    #[test]
    fn a_block_that_is_to_be_there_once_is_missed_when_it_is_not() {
        let now = Instant::now();
        let mut cluster = cluster_of(&[(1, 0, 1_000), (2, 0, 1_000)], now);
        let look = |cluster: &Cluster, now| {
            let mut look = Look::of_all([], Hot::default());
            look.at(cluster, &KEPT, now);
            (look.seen.waiting, look.seen.lost, look.seen.rotten)
        };
        assert_eq!(look(&cluster, now), (0, 1, 0), "nobody has said to have it");
        reports(&mut cluster, 1, BLOCK, BLOCK.generation);
        assert_eq!(look(&cluster, now), (0, 0, 0));
        assert_eq!(look(&cluster, now + LOST_AFTER), (1, 0, 0), "it may come back");
        assert_eq!(look(&cluster, now + 10 * LOST_AFTER), (0, 1, 0));
    }

    #[test]
    fn a_worker_that_has_set_aside_what_nobody_else_has_is_not_drained() {
        let now = Instant::now();
        let mut cluster = cluster_of(&[(1, 0, 1_000), (2, 0, 1_000)], now);
        let mut services = Services::default();
        services.set(WorkerId(1), WorkerService::Draining);
        cluster.roster.out.learn(services, now, 0);
        cluster.holders.damaged(WorkerId(1), BLOCK.id);
        cluster.holders.is_hopeless(BLOCK.id);
        let look = |cluster: &Cluster| {
            let mut look = Look::of_all([WorkerId(1)], Hot::default());
            look.at(cluster, &KEPT, now);
            (look.seen.rotten, look.left[&WorkerId(1)])
        };
        let damaged = DrainLeft {
            damaged_blocks: 1,
            ..DrainLeft::default()
        };
        assert_eq!(look(&cluster), (1, damaged));
        reports(&mut cluster, 2, BLOCK, BLOCK.generation);
        assert_eq!(look(&cluster), (0, DrainLeft::default()));
    }
}
