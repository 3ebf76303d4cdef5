//! Which workers are out of service, as this leader knows it from the state. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use curvine_protocol::WorkerId;
use curvine_protocol::cluster::{DrainLeft, WorkerService};
use tokio::time::Instant;

use crate::master::namespace::services::Services;

/// What is said of workers.
#[derive(Debug, Default)]
pub struct OutOfService {
    services: Services,
    /// When a maintenance ends, by this master's clock.
    back: BTreeMap<WorkerId, Instant>,
    left: BTreeMap<WorkerId, DrainLeft>,
}

impl OutOfService {
    /// Takes over what the state says, unless something later is known.
    pub fn learn(&mut self, services: Services, now: Instant, wall_ns: i64) {
        if services.version < self.services.version {
            return;
        }
        let back = services.workers.iter().filter_map(|(worker, service)| {
            let WorkerService::Maintenance { until_ns } = service else {
                return None;
            };
            let left_ns = u64::try_from(until_ns.saturating_sub(wall_ns)).unwrap_or(0);
            Some((*worker, now + Duration::from_nanos(left_ns)))
        });
        self.back = back.collect();
        self.left
            .retain(|worker, _| services.of(*worker) == WorkerService::Draining);
        self.services = services;
    }

    /// Of what was taken over last.
    #[cfg(test)]
    pub fn version(&self) -> u64 {
        self.services.version
    }

    /// What a worker is there for now: a maintenance ends by itself.
    pub fn of(&self, worker: WorkerId, now: Instant) -> WorkerService {
        match self.services.of(worker) {
            WorkerService::Maintenance { .. } if !self.is_in_maintenance(worker, now) => {
                WorkerService::InService
            }
            service => service,
        }
    }

    pub fn is_in_service(&self, worker: WorkerId, now: Instant) -> bool {
        self.of(worker, now) == WorkerService::InService
    }

    /// Whether a replica there counts: it stays, as far as anybody has said.
    pub fn counts(&self, worker: WorkerId) -> bool {
        !matches!(
            self.services.of(worker),
            WorkerService::Draining | WorkerService::Drained
        )
    }

    pub fn is_drained(&self, worker: WorkerId) -> bool {
        self.services.of(worker) == WorkerService::Drained
    }

    pub fn is_in_maintenance(&self, worker: WorkerId, now: Instant) -> bool {
        self.back.get(&worker).is_some_and(|back| now < *back)
    }

    /// Those in maintenance.
    pub fn in_maintenance(&self, now: Instant) -> impl Iterator<Item = WorkerId> {
        let away = self.back.iter().filter(move |(_, back)| now < **back);
        away.map(|(worker, _)| *worker)
    }

    /// Those that are being drained.
    pub fn draining(&self) -> Vec<WorkerId> {
        let workers = self.services.workers.iter();
        let draining = workers.filter(|(_, service)| **service == WorkerService::Draining);
        draining.map(|(worker, _)| *worker).collect()
    }

    /// What a look at all files found of a worker that is being drained.
    pub fn found_left(&mut self, worker: WorkerId, left: DrainLeft) {
        if self.services.of(worker) == WorkerService::Draining {
            self.left.insert(worker, left);
        }
    }

    pub fn left(&self, worker: WorkerId) -> Option<DrainLeft> {
        self.left.get(&worker).copied()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_changes_nothing_and_a_maintenance_ends_by_itself() {
        let now = Instant::now();
        let mut out = OutOfService::default();
        let mut services = Services::default();
        services.set(WorkerId(1), WorkerService::Draining);
        let older = services.clone();
        services.set(WorkerId(1), WorkerService::InService);
        services.set(WorkerId(2), WorkerService::Maintenance { until_ns: 5_000 });
        out.learn(services, now, 2_000);
        out.learn(older, now, 2_000);
        assert!(out.is_in_service(WorkerId(1), now));
        let at = |out: &OutOfService, ns| out.of(WorkerId(2), now + Duration::from_nanos(ns));
        assert_eq!(at(&out, 2_999), WorkerService::Maintenance { until_ns: 5_000 });
        assert_eq!(at(&out, 3_000), WorkerService::InService);
        assert!(out.counts(WorkerId(2)));
    }

    #[test]
    fn what_is_left_is_known_of_those_that_are_being_drained_only() {
        let now = Instant::now();
        let mut out = OutOfService::default();
        let left = DrainLeft {
            blocks: 3,
            ..DrainLeft::default()
        };
        out.found_left(WorkerId(1), left);
        assert_eq!(out.left(WorkerId(1)), None);
        let mut services = Services::default();
        services.set(WorkerId(1), WorkerService::Draining);
        out.learn(services.clone(), now, 0);
        out.found_left(WorkerId(1), left);
        assert_eq!(out.left(WorkerId(1)), Some(left));
        assert_eq!(out.draining(), [WorkerId(1)]);
        services.set(WorkerId(1), WorkerService::Drained);
        out.learn(services, now, 0);
        assert_eq!(out.left(WorkerId(1)), None);
        assert!(out.is_drained(WorkerId(1)) && !out.counts(WorkerId(1)));
    }
}
