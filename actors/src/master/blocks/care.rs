//! Whether a block has the replicas that it should have, and where another one is to come from and to go. Pure.

use std::time::Duration;

use curvine_protocol::cluster::{Labels, WorkerState, WorkerStatus};
use curvine_protocol::number::whole_ms;
use curvine_protocol::{BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;
use super::placement::in_turn;
use super::roster::LOST_AFTER;
use crate::planted::{Bug, is_planted};

/// How long a worker is waited for that fell silent: it may only be starting again.
pub const GRACE: Duration = Duration::from_secs(40);

/// What is to be done for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    Nothing,
    /// Workers that may have it have not been silent for long.
    Wait,
    /// Nobody who lives has it.
    Nobody,
    /// There is no worker with room that has not got it already.
    Nowhere,
    /// One more is to be made. So many live workers have it.
    Copy {
        from: WorkerId,
        to: WorkerId,
        replicas: usize,
    },
}

impl Cluster {
    /// What is to be done for a block with bytes, of which there should be so many replicas.
    pub fn care(&self, block: &BlockRef, wanted: usize, now: Instant) -> Care {
        let current: Vec<WorkerId> = self.holders.current(block).collect();
        let out = &self.roster.out;
        let counts = |id: &WorkerId| out.counts(*id) && !self.holders.is_endangered(*id, block.id);
        let staying: Vec<WorkerId> = current.iter().copied().filter(counts).collect();
        let live = |id: &&WorkerId| self.roster.is_live(**id, now);
        let mut replicas = staying.iter().filter(live).count();
        if replicas == 1 && is_planted(Bug::CountsAReplicaTwice) {
            replicas = 2;
        }
        if replicas >= wanted {
            return Care::Nothing;
        }
        let away = staying
            .iter()
            .filter(|id| !live(id) && self.may_come_back(**id, now))
            .count();
        // What they have, this leader has not heard.
        let unheard = out
            .in_maintenance(now)
            .filter(|id| !self.roster.is_registered(*id));
        if replicas + away + unheard.count() >= wanted {
            return Care::Wait;
        }
        // A client's word is not enough to make others of it.
        let said = self
            .holders
            .reported(block)
            .filter(|id| self.roster.is_live(*id, now));
        let Some(from) = said.min_by_key(|id| self.holders.is_endangered(*id, block.id)) else {
            return match current.iter().any(|id| self.roster.is_live(*id, now)) {
                false => Care::Nobody,
                true => Care::Wait,
            };
        };
        // Who has an older one is told so with its next report, and may get this one when that is gone.
        let has_some: Vec<WorkerId> = self.holders.of(block.id).collect();
        let room = self.roster.with_room(block.len_bytes, 1, now);
        let (mut beside, mut room): (Vec<_>, Vec<_>) = room.into_iter().partition(|id| has_some.contains(id));
        if room.is_empty() {
            // On another disk of a worker that may not be able to read it again.
            beside.retain(|id| *id != from && self.holders.is_endangered(*id, block.id));
            room = beside;
        }
        match self.roster.spread(in_turn(block.id, &room), &staying, 1)[..] {
            [to] => Care::Copy { from, to, replicas },
            _ => Care::Nowhere,
        }
    }

    /// Where a replica is to be made of what workers have set aside of a block that is whole nowhere, and one of them.
    pub fn salvage(&self, block: &BlockRef, now: Instant) -> Option<(WorkerId, WorkerId)> {
        let aside = self.holders.salvageable(block.id);
        let from = aside.iter().copied().find(|id| self.roster.is_live(*id, now))?;
        let room = self.roster.with_room(block.len_bytes, 1, now);
        let to = in_turn(block.id, &room).next()?;
        Some((from, to))
    }

    /// Whether a worker that is silent has not been so for long, or is said to come back.
    pub fn may_come_back(&self, id: WorkerId, now: Instant) -> bool {
        self.was_heard_lately(id, now) || self.roster.out.is_in_maintenance(id, now)
    }

    /// Whether a worker is waited for if it is silent.
    pub fn was_heard_lately(&self, id: WorkerId, now: Instant) -> bool {
        let heard = self.roster.last_heard(id);
        heard.is_some_and(|heard| now.duration_since(heard) < GRACE)
    }

    /// Whether a worker that lives has a doubtful replica of a block.
    pub fn has_doubtful(&self, block: &BlockRef, now: Instant) -> bool {
        let mut doubtful = self.holders.doubtful(block.id);
        doubtful.any(|id| self.roster.is_live(id, now))
    }

    /// Whether enough live workers that stay have said themselves to have a block: as many as are wanted, or all that are in
    /// service, where those are fewer.
    pub fn does_without_drained(&self, block: &BlockRef, wanted: usize, now: Instant) -> bool {
        let said = self.staying(block, now).count();
        let others = self.roster.serving(now).filter(|id| self.roster.may_keep(*id));
        said >= wanted.min(others.count()).max(1)
    }

    /// Which live workers that stay have said themselves to have a block, where it can be counted on.
    pub fn staying(&self, block: &BlockRef, now: Instant) -> impl Iterator<Item = WorkerId> {
        let (roster, id) = (&self.roster, block.id);
        let stays = move |worker: &WorkerId| {
            let counts = roster.out.counts(*worker) && !self.holders.is_endangered(*worker, id);
            counts && roster.is_live(*worker, now)
        };
        self.holders.reported(block).filter(stays)
    }

    /// What is known of workers that this leader has not heard of: `last_worker` is the greatest id that was ever given to one.
    /// None of them has an address.
    pub fn unheard_statuses(&self, last_worker: WorkerId, now: Instant) -> Vec<WorkerStatus> {
        let leads_for = self.leads_since.map(|since| now.duration_since(since));
        let leads_for = leads_for.unwrap_or_default();
        let status = |id| WorkerStatus {
            id,
            address: String::new(),
            state: match leads_for < LOST_AFTER {
                true => WorkerState::Live,
                false => WorkerState::Lost,
            },
            disks: Vec::new(),
            last_heartbeat_ms_ago: whole_ms(leads_for).into(),
            version: String::new(),
            service: self.roster.out.of(id, now),
            drain_left: self.roster.out.left(id),
            labels: Labels::default(),
        };
        self.roster.unheard(last_worker).map(status).collect()
    }

    /// Whether what this leader has heard of workers is enough to say who has nothing. `last_worker` is the greatest id that
    /// was ever given to one.
    pub fn knows_holders(&self, last_worker: WorkerId, now: Instant) -> bool {
        let for_long = self
            .leads_since
            .is_none_or(|since| now.duration_since(since) >= GRACE);
        self.roster.all_reported(now) && (for_long || self.roster.are_all_registered(last_worker))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::WorkerService;

    use super::super::testing::{BLOCK, cluster_of};
    use super::*;
    use crate::master::namespace::services::Services;

    /// Workers with these rooms of 1,000 bytes, heard just now.
    fn cluster(rooms: &[(u32, u64)], now: Instant) -> Cluster {
        let workers: Vec<_> = rooms
            .iter()
            .map(|&(id, room)| (id, 1_000 - room, 1_000))
            .collect();
        cluster_of(&workers, now)
    }

    fn reports(cluster: &mut Cluster, id: u32, generation: u32) {
        super::super::testing::reports(cluster, id, BLOCK, generation);
    }

    fn copy(from: u32, to: u32, replicas: usize) -> Care {
        Care::Copy {
            from: WorkerId(from),
            to: WorkerId(to),
            replicas,
        }
    }

    #[test]
    fn what_too_few_have_is_copied_from_one_that_said_so_to_one_without_any() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], now);
        assert_eq!(cluster.care(&BLOCK, 2, now), Care::Nobody);
        cluster.holders.claimed(WorkerId(1), BLOCK.id, 5);
        assert_eq!(
            cluster.care(&BLOCK, 2, now),
            Care::Wait,
            "its own report will follow"
        );
        reports(&mut cluster, 1, 5);
        // An older one is in its way.
        reports(&mut cluster, 2, 4);
        assert_eq!(cluster.care(&BLOCK, 2, now), copy(1, 3, 1));
        assert_eq!(cluster.care(&BLOCK, 1, now), Care::Nothing);
        reports(&mut cluster, 3, 6);
        assert_eq!(
            cluster.care(&BLOCK, 2, now),
            Care::Nothing,
            "of a writer that goes on"
        );
        assert_eq!(cluster.care(&BLOCK, 3, now), Care::Nowhere);
    }

    #[test]
    fn a_silent_worker_is_waited_for_and_then_replaced() {
        let begun = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], begun);
        reports(&mut cluster, 1, 5);
        reports(&mut cluster, 2, 5);
        let mut later = |passed: Duration| {
            let now = begun + passed;
            for live in [1, 3] {
                let disks = cluster.roster.statuses(now)[live as usize - 1].disks.clone();
                assert!(cluster.roster.heartbeat(WorkerId(live), 1, disks, now));
            }
            cluster.care(&BLOCK, 2, now)
        };
        assert_eq!(later(Duration::from_secs(11)), Care::Wait);
        assert_eq!(later(GRACE), copy(1, 3, 1));
    }

    #[test]
    fn a_full_worker_gets_no_replica() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 0)], now);
        reports(&mut cluster, 1, 5);
        assert_eq!(cluster.care(&BLOCK, 2, now), Care::Nowhere);
    }

    fn says(cluster: &mut Cluster, said: &[(u32, WorkerService)], now: Instant) {
        let mut services = Services::default();
        for &(id, service) in said {
            services.set(WorkerId(id), service);
        }
        cluster.roster.out.learn(services, now, 0);
    }

    #[test]
    fn what_a_worker_has_that_is_drained_does_not_count_and_is_copied_from_it() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], now);
        reports(&mut cluster, 1, 5);
        assert_eq!(cluster.care(&BLOCK, 1, now), Care::Nothing);
        says(&mut cluster, &[(1, WorkerService::Draining)], now);
        assert_eq!(cluster.care(&BLOCK, 1, now), copy(1, 3, 0));
        assert!(!cluster.does_without_drained(&BLOCK, 1, now));
        cluster.holders.claimed(WorkerId(3), BLOCK.id, 5);
        assert!(
            !cluster.does_without_drained(&BLOCK, 1, now),
            "a client's word is not enough"
        );
        reports(&mut cluster, 3, 5);
        assert_eq!(cluster.care(&BLOCK, 1, now), Care::Nothing);
        assert!(cluster.does_without_drained(&BLOCK, 1, now));
        assert!(!cluster.does_without_drained(&BLOCK, 2, now));
        reports(&mut cluster, 2, 5);
        assert!(cluster.does_without_drained(&BLOCK, 3, now), "all others have it");
    }

    #[test]
    fn what_is_endangered_does_not_count_and_is_copied_from_only_if_nobody_else_has_it() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], now);
        let says_so = |cluster: &mut Cluster, id: u32| {
            reports(cluster, id, 5);
            cluster.holders.endangered(WorkerId(id), BLOCK.id);
        };
        says_so(&mut cluster, 1);
        assert_eq!(cluster.care(&BLOCK, 1, now), copy(1, 3, 0));
        reports(&mut cluster, 3, 5);
        assert_eq!(cluster.care(&BLOCK, 1, now), Care::Nothing);
        assert_eq!(cluster.care(&BLOCK, 2, now), copy(3, 2, 1));
        reports(&mut cluster, 2, 5);
        assert_eq!(
            cluster.surplus(&BLOCK, 2, now),
            None,
            "it is nobody's keeper either"
        );
        assert!(
            cluster
                .surplus(&BLOCK, 1, now)
                .is_some_and(|surplus| surplus.at != WorkerId(1))
        );
        // It is well again.
        reports(&mut cluster, 1, 5);
        assert!(!cluster.holders.has_endangered(BLOCK.id));
        assert!(cluster.surplus(&BLOCK, 2, now).is_some());
        says_so(&mut cluster, 1);
        assert_eq!(
            cluster.care(&BLOCK, 3, now),
            copy(3, 1, 2),
            "on another disk of it"
        );
        cluster.holders.forget_worker(WorkerId(1));
        assert!(!cluster.holders.has_endangered(BLOCK.id));
    }

    #[test]
    fn nothing_is_copied_to_a_worker_that_is_drained_or_goes_away_for_a_while() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], now);
        reports(&mut cluster, 1, 5);
        let away = WorkerService::Maintenance { until_ns: 1 << 40 };
        says(&mut cluster, &[(2, WorkerService::Drained), (3, away)], now);
        assert_eq!(cluster.care(&BLOCK, 2, now), Care::Nowhere);
    }

    #[test]
    fn a_worker_in_maintenance_is_waited_for_until_its_end() {
        let begun = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500), (3, 500)], begun);
        reports(&mut cluster, 1, 5);
        reports(&mut cluster, 2, 5);
        let minute = Duration::from_secs(60);
        let until_ns = i64::try_from((10 * minute).as_nanos()).expect("minutes");
        says(
            &mut cluster,
            &[(2, WorkerService::Maintenance { until_ns })],
            begun,
        );
        let mut later = |passed: Duration| {
            let now = begun + passed;
            for live in [1, 3] {
                let disks = cluster.roster.statuses(now)[live as usize - 1].disks.clone();
                assert!(cluster.roster.heartbeat(WorkerId(live), 1, disks, now));
            }
            cluster.care(&BLOCK, 2, now)
        };
        assert_eq!(later(9 * minute), Care::Wait);
        assert_eq!(later(10 * minute), copy(1, 3, 1));
    }

    #[test]
    fn one_that_this_leader_never_heard_of_may_have_it_while_it_is_in_maintenance() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 500), (2, 500)], now);
        reports(&mut cluster, 1, 5);
        let away = WorkerService::Maintenance { until_ns: 1 << 40 };
        says(&mut cluster, &[(3, away)], now);
        assert_eq!(cluster.care(&BLOCK, 2, now), Care::Wait);
    }
}
