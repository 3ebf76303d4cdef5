//! Which blocks are to move where, so that workers become equally full. Pure.
//!
//! Each worker's *fair part* is what it would keep if all were as full as all together. It is *over* by what it keeps beyond
//! that, or *under*. Blocks go from workers that are over to workers that are under, never further than their fair parts, and
//! only where one of the two is off by more than is tolerated. So every move makes the greatest of these smaller or leaves it,
//! and there is an end.

use std::collections::{BTreeMap, BTreeSet};

use curvine_protocol::master::WorkerShare;
use curvine_protocol::{BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;

/// What a leader has had moved for what is under way, or else for the last one.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// When that was begun.
    pub begun_ms: i64,
    pub blocks: u64,
    pub bytes: u64,
    /// Why the last one that failed did.
    pub failure: Option<String>,
}

/// A block that is to go from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: WorkerId,
    pub to: WorkerId,
    /// Who has it then: as many as are wanted.
    pub keepers: Vec<WorkerId>,
}

/// Which of the workers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    All,
    /// Some have not been silent for long, or are said to come back.
    SomeMayComeBack,
    /// Some have been silent for long.
    SomeAway,
}

/// How far workers are from their fair parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    over: BTreeMap<WorkerId, Off>,
    under: BTreeMap<WorkerId, Off>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Off {
    bytes: u64,
    tolerated_bytes: u64,
}

impl Off {
    fn is_too_much(self) -> bool {
        self.bytes > self.tolerated_bytes
    }

    /// It comes nearer by so much: not beyond the fair part by more than it was off before.
    fn comes_nearer_by(self, len_bytes: u64) -> bool {
        len_bytes / 2 < self.bytes
    }
}

impl Plan {
    /// None if no worker is off by more than so much of its capacity.
    pub fn of(shares: &[WorkerShare], tolerance_percent: u8) -> Option<Plan> {
        let sum = |of: fn(&WorkerShare) -> u64| shares.iter().map(of).map(u128::from).sum::<u128>();
        let (kept, capacity) = (
            sum(|share| share.kept_bytes),
            sum(|share| share.capacity_bytes).max(1),
        );
        let (mut over, mut under) = (BTreeMap::new(), BTreeMap::new());
        for share in shares {
            let fair = kept * u128::from(share.capacity_bytes) / capacity;
            let fair_bytes = u64::try_from(fair).unwrap_or(u64::MAX);
            let off = Off {
                bytes: share.kept_bytes.abs_diff(fair_bytes),
                tolerated_bytes: share.capacity_bytes / 100 * u64::from(tolerance_percent),
            };
            match share.kept_bytes > fair_bytes {
                true => over.insert(share.worker, off),
                false => under.insert(share.worker, off),
            };
        }
        let is_off = over.values().chain(under.values()).any(|off| off.is_too_much());
        is_off.then_some(Plan { over, under })
    }

    /// Where a block goes, if it is to. It is counted as gone then.
    pub fn take(&mut self, cluster: &Cluster, block: &BlockRef, wanted: usize, now: Instant) -> Option<Move> {
        let reported: Vec<WorkerId> = cluster.staying(block, now).collect();
        if reported.len() != wanted.max(1) {
            // Something else is to be done first.
            return None;
        }
        let len_bytes = block.len_bytes;
        let has_some: BTreeSet<WorkerId> = cluster.holders.of(block.id).collect();
        let most = |among: &BTreeMap<WorkerId, Off>, may: &dyn Fn(&WorkerId) -> bool| {
            let may = among
                .iter()
                .filter(|(id, off)| may(id) && off.comes_nearer_by(len_bytes));
            may.max_by_key(|(id, off)| (off.bytes, std::cmp::Reverse(**id)))
                .map(|(id, off)| (*id, *off))
        };
        let (from, over) = most(&self.over, &|id| reported.contains(id))?;
        let has_room = |id: &WorkerId| cluster.roster.kept_room(*id) >= len_bytes;
        let others: Vec<WorkerId> = reported.iter().copied().filter(|id| *id != from).collect();
        let apart_with = |id: WorkerId| cluster.roster.apart(&[&others[..], &[id]].concat());
        let apart = apart_with(from);
        let may_have = |id: &WorkerId| !has_some.contains(id) && has_room(id) && apart_with(*id) >= apart;
        let (to, under) = most(&self.under, &may_have)?;
        if !over.is_too_much() && !under.is_too_much() {
            return None;
        }
        for (among, id) in [(&mut self.over, from), (&mut self.under, to)] {
            if let Some(off) = among.get_mut(&id) {
                off.bytes = off.bytes.saturating_sub(len_bytes);
            }
        }
        let keepers = [&others[..], &[to]].concat();
        Some(Move { from, to, keepers })
    }
}

impl Cluster {
    /// How full the live workers in service are that may keep anything, by their ids.
    pub fn shares(&self, now: Instant) -> Vec<WorkerShare> {
        let serving = self.roster.serving(now).filter(|id| self.roster.may_keep(*id));
        serving
            .map(|worker| {
                let (kept_bytes, capacity_bytes) = self.roster.kept(worker);
                WorkerShare {
                    worker,
                    kept_bytes,
                    capacity_bytes,
                }
            })
            .collect()
    }

    /// Whether workers are there that were ever registered, of which `last_worker` is the greatest id, but for those that
    /// are taken out of service for good.
    pub fn presence(&self, last_worker: WorkerId, now: Instant) -> Presence {
        let counts = (1..=last_worker.0)
            .map(WorkerId)
            .filter(|id| self.roster.out.counts(*id));
        let away: Vec<WorkerId> = counts.filter(|id| !self.roster.is_live(*id, now)).collect();
        match away.iter().any(|id| self.may_come_back(*id, now)) {
            true => Presence::SomeMayComeBack,
            false if away.is_empty() => Presence::All,
            false => Presence::SomeAway,
        }
    }

    /// Whether all these workers have said how full they are since then.
    pub fn have_said(&self, shares: &[WorkerShare], since: Instant) -> bool {
        let heard = |share: &WorkerShare| self.roster.last_heard(share.worker);
        shares
            .iter()
            .all(|share| heard(share).is_some_and(|heard| heard > since))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use std::time::Duration;

    use curvine_protocol::BlockId;
    use curvine_protocol::cluster::WorkerService;

    use super::super::roster::WorkerEntry;
    use super::super::testing::{cluster_of, disk_of, reports};
    use super::*;
    use crate::master::namespace::services::Services;

    fn share((id, kept_bytes, capacity_bytes): (u32, u64, u64)) -> WorkerShare {
        WorkerShare {
            worker: WorkerId(id),
            kept_bytes,
            capacity_bytes,
        }
    }

    fn plan(shares: &[(u32, u64, u64)], tolerance_percent: u8) -> Option<Plan> {
        let shares: Vec<_> = shares.iter().copied().map(share).collect();
        Plan::of(&shares, tolerance_percent)
    }

    fn block(id: u64, len_bytes: u64) -> BlockRef {
        BlockRef {
            id: BlockId(id),
            len_bytes,
            generation: 5,
        }
    }

    fn has(cluster: &mut Cluster, block: BlockRef, workers: &[u32]) {
        for id in workers {
            reports(cluster, *id, block, block.generation);
        }
    }

    fn moves(from: u32, to: u32, keepers: &[u32]) -> Option<Move> {
        Some(Move {
            from: WorkerId(from),
            to: WorkerId(to),
            keepers: keepers.iter().map(|id| WorkerId(*id)).collect(),
        })
    }

    #[test]
    fn workers_are_off_by_what_they_keep_beyond_or_below_their_fair_part() {
        assert_eq!(plan(&[], 10), None);
        assert_eq!(plan(&[(1, 900, 1_000)], 10), None, "it is all there is");
        assert_eq!(plan(&[(1, 500, 1_000), (2, 250, 500)], 10), None);
        assert_eq!(plan(&[(1, 600, 1_000), (2, 400, 1_000)], 10), None);
        assert!(plan(&[(1, 602, 1_000), (2, 400, 1_000)], 10).is_some());
        assert!(plan(&[(1, 602, 1_000), (2, 400, 1_000)], 11).is_none());
        // One that is new, beside many that are alike.
        let mut many: Vec<_> = (1..=20).map(|id| (id, 550, 1_000)).collect();
        assert_eq!(plan(&many, 5), None);
        many.push((21, 0, 1_000));
        assert!(plan(&many, 5).is_some());
        assert_eq!(plan(&[(1, u64::MAX, u64::MAX), (2, 0, 0)], 1), None);
    }

    #[test]
    fn blocks_go_from_the_fullest_that_has_them_to_the_emptiest_that_has_not_until_both_are_near_enough() {
        let now = Instant::now();
        let shares = [(1, 900, 1_000), (2, 700, 1_000), (3, 200, 1_000), (4, 0, 1_000)];
        let mut cluster = cluster_of(&shares, now);
        let mut plan = plan(&shares, 10).expect("they are off");
        let all = [
            (block(1, 100), &[1, 2][..]),
            (block(2, 100), &[2, 4]),
            (block(3, 100), &[3, 4]),
            (block(4, 900), &[1, 2]),
            (block(5, 300), &[1, 3]),
        ];
        for (block, workers) in all {
            has(&mut cluster, block, workers);
        }
        let mut take = |at: usize, wanted| plan.take(&cluster, &all[at].0, wanted, now);
        assert_eq!(take(0, 1), None, "one of them is too much");
        assert_eq!(take(0, 3), None, "there is one too few");
        assert_eq!(take(0, 2), moves(1, 4, &[2, 4]));
        assert_eq!(take(1, 2), moves(2, 3, &[4, 3]), "the emptiest has it");
        assert_eq!(take(2, 2), None, "both are empty enough");
        assert_eq!(take(3, 2), None, "that would be further off than before");
        assert_eq!(take(4, 2), moves(1, 4, &[3, 4]));
        assert_eq!(take(0, 2), moves(2, 3, &[1, 3]), "these two are off by more");
        assert_eq!(take(0, 2), None, "all are near enough");
    }

    #[test]
    fn workers_that_are_silent_are_waited_for_and_then_left_out_and_drained_ones_do_not_count() {
        let begun = Instant::now();
        let mut cluster = cluster_of(&[(1, 900, 1_000), (2, 100, 1_000)], begun);
        let presence = |cluster: &mut Cluster, passed| {
            let now = begun + Duration::from_secs(passed);
            assert!(
                cluster
                    .roster
                    .heartbeat(WorkerId(1), 1, vec![disk_of(1_000, 900)], now)
            );
            cluster.presence(WorkerId(2), now)
        };
        assert_eq!(presence(&mut cluster, 1), Presence::All);
        assert_eq!(presence(&mut cluster, 20), Presence::SomeMayComeBack);
        assert_eq!(presence(&mut cluster, 60), Presence::SomeAway);
        let now = begun + Duration::from_secs(60);
        assert_eq!(
            cluster.presence(WorkerId(3), now),
            Presence::SomeAway,
            "one was never heard"
        );
        let mut services = Services::default();
        services.set(WorkerId(2), WorkerService::Drained);
        cluster.roster.out.learn(services, now, 0);
        assert_eq!(presence(&mut cluster, 61), Presence::All);
        // What a drained worker still has is no replica.
        has(&mut cluster, block(1, 100), &[1, 2]);
        let entry = WorkerEntry::heard(now, vec![disk_of(1_000, 0)]);
        cluster.roster.register(WorkerId(3), entry);
        let disks = vec![disk_of(1_000, 100)];
        assert!(cluster.roster.heartbeat(WorkerId(2), 1, disks, now));
        let mut plan = plan(&[(1, 900, 1_000), (3, 0, 1_000)], 10).expect("they are off");
        assert_eq!(plan.take(&cluster, &block(1, 100), 1, now), moves(1, 3, &[3]));
    }

    #[test]
    fn nothing_goes_where_there_is_no_room_or_to_who_has_an_older_one() {
        let now = Instant::now();
        let shares = [(1, 900, 1_000), (2, 0, 1_000)];
        let mut cluster = cluster_of(&shares, now);
        has(&mut cluster, block(1, 100), &[1]);
        let newer = BlockRef {
            generation: 6,
            ..block(2, 100)
        };
        has(&mut cluster, newer, &[1]);
        has(&mut cluster, block(2, 100), &[2]);
        let mut plan = plan(&shares, 10).expect("they are off");
        assert_eq!(plan.take(&cluster, &newer, 1, now), None);
        let mut full = plan.clone();
        assert_eq!(plan.take(&cluster, &block(1, 100), 1, now), moves(1, 2, &[2]));
        // Others have taken it since.
        assert!(
            cluster
                .roster
                .heartbeat(WorkerId(2), 1, vec![disk_of(1_000, 950)], now)
        );
        assert_eq!(full.take(&cluster, &block(1, 100), 1, now), None);
    }
}
