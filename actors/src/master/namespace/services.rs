//! Which workers are out of service, as operators say: replicated, because a new leader must know it as well.

use std::collections::BTreeMap;

use curvine_protocol::WorkerId;
use curvine_protocol::cluster::WorkerService;
use serde::{Deserialize, Serialize};

/// The name of the record in the state.
pub const SERVICES: &str = "worker services";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// Grows with every change.
    pub version: u64,
    /// Workers that are not named are in service.
    pub workers: BTreeMap<WorkerId, WorkerService>,
}

impl Services {
    pub fn of(&self, worker: WorkerId) -> WorkerService {
        self.workers.get(&worker).copied().unwrap_or_default()
    }

    /// Notes what a worker is there for from now on.
    pub fn set(&mut self, worker: WorkerId, service: WorkerService) {
        self.version += 1;
        match service {
            WorkerService::InService => self.workers.remove(&worker),
            service => self.workers.insert(worker, service),
        };
    }
}
