//! Which replica of a block is too much, where there are more than its file wants. Pure.

use curvine_protocol::{BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;

/// A replica that may go, and who else has the block: as many as are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surplus {
    pub at: WorkerId,
    pub keepers: Vec<WorkerId>,
}

impl Cluster {
    /// Of a block with bytes that nobody writes: which of more than so many replicas is to go: that without which the others
    /// are furthest apart, and of several such, that on the fullest worker.
    /// Those count whose workers live, are in service and have said themselves that they have it; they ask each other before
    /// one goes.
    pub fn surplus(&self, block: &BlockRef, wanted: usize, now: Instant) -> Option<Surplus> {
        let serves = |id: &WorkerId| self.roster.out.is_in_service(*id, now);
        let mut keepers: Vec<WorkerId> = self.staying(block, now).filter(serves).collect();
        if keepers.len() <= wanted {
            return None;
        }
        keepers.sort_by_key(|id| (self.roster.kept_share(*id), *id));
        let apart_without = |at: &WorkerId| {
            let others: Vec<_> = keepers.iter().copied().filter(|id| id != at).collect();
            self.roster.apart(&others)
        };
        // Of equals, the last.
        let at = keepers.iter().copied().max_by_key(apart_without)?;
        keepers.retain(|id| *id != at);
        keepers.truncate(wanted);
        (!keepers.is_empty()).then_some(Surplus { at, keepers })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::WorkerService;

    use super::super::roster::LOST_AFTER;
    use super::super::testing::{BLOCK, cluster_of, disk_of, reports};
    use super::*;
    use crate::master::namespace::services::Services;

    /// Workers with so much on their disks of 1,000 bytes, all of which have the block.
    fn cluster(used: &[(u32, u64)], now: Instant) -> Cluster {
        let workers: Vec<_> = used.iter().map(|&(id, used)| (id, used, 1_000)).collect();
        let mut cluster = cluster_of(&workers, now);
        workers
            .iter()
            .for_each(|(id, ..)| reports(&mut cluster, *id, BLOCK, BLOCK.generation));
        cluster
    }

    fn surplus(at: u32, keepers: &[u32]) -> Option<Surplus> {
        Some(Surplus {
            at: WorkerId(at),
            keepers: keepers.iter().map(|id| WorkerId(*id)).collect(),
        })
    }

    #[test]
    fn of_too_many_that_on_the_fullest_worker_goes_for_the_sake_of_the_emptiest() {
        let now = Instant::now();
        let cluster = cluster(&[(1, 300), (2, 900), (3, 100), (4, 200)], now);
        assert_eq!(cluster.surplus(&BLOCK, 4, now), None);
        assert_eq!(cluster.surplus(&BLOCK, 3, now), surplus(2, &[3, 4, 1]));
        assert_eq!(cluster.surplus(&BLOCK, 1, now), surplus(2, &[3]));
        assert_eq!(cluster.surplus(&BLOCK, 0, now), None, "one stays");
    }

    #[test]
    fn who_is_away_has_an_older_one_was_only_named_or_is_out_of_service_does_not_count() {
        let now = Instant::now();
        let mut cluster = cluster(&[(1, 300), (2, 900), (3, 100)], now);
        assert_eq!(cluster.surplus(&BLOCK, 2, now), surplus(2, &[3, 1]));
        let later = now + LOST_AFTER;
        for live in [1, 2] {
            let disks = vec![disk_of(1_000, 0)];
            assert!(cluster.roster.heartbeat(WorkerId(live), 1, disks, later));
        }
        assert_eq!(cluster.surplus(&BLOCK, 2, later), None);
        assert_eq!(cluster.surplus(&BLOCK, 1, later), surplus(2, &[1]));
        cluster.holders.claimed(WorkerId(9), BLOCK.id, 5);
        let newer = BlockRef {
            generation: 6,
            ..BLOCK
        };
        assert_eq!(cluster.surplus(&newer, 1, now), None);
        for service in [
            WorkerService::Draining,
            WorkerService::Drained,
            WorkerService::Maintenance { until_ns: 1 << 40 },
        ] {
            let mut services = Services {
                version: cluster.roster.out.version(),
                ..Services::default()
            };
            services.set(WorkerId(3), service);
            cluster.roster.out.learn(services, now, 0);
            assert_eq!(cluster.surplus(&BLOCK, 2, now), None, "{service:?}");
            assert_eq!(cluster.surplus(&BLOCK, 1, now), surplus(2, &[1]), "{service:?}");
        }
    }
}
