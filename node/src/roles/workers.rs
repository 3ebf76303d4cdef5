//! How a master reaches its workers: the one in this process directly, others by their address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix_rt::ArbiterHandle;
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ports, WorkerRef};
use curvine_actors::master::workers::WorkerConnector;
use curvine_protocol::WorkerId;

/// The ports of the workers that a master speaks with.
pub struct Workers {
    /// Where the proxies run, whoever asks for them.
    arbiter: ArbiterHandle,
    ports: Ports,
    local: OnceLock<(WorkerId, WorkerRef)>,
    /// The address that each remote worker had last, and the proxy for it.
    remote: Mutex<HashMap<WorkerId, (String, WorkerRef)>>,
}

impl Workers {
    pub fn new(arbiter: ArbiterHandle, ports: &Ports) -> Arc<Self> {
        Arc::new(Workers {
            arbiter,
            ports: ports.clone(),
            local: OnceLock::new(),
            remote: Mutex::new(HashMap::new()),
        })
    }

    /// From now on this worker is asked without a socket in between.
    pub fn wire(&self, id: WorkerId, port: WorkerRef) {
        assert!(
            self.local.set((id, port)).is_ok(),
            "a process has one worker and wires it once"
        );
    }
}

impl Workers {
    /// The worker of this process, if it is this one.
    pub fn local(&self, id: WorkerId) -> Option<WorkerRef> {
        match self.local.get() {
            Some((local, port)) if *local == id => Some(port.clone()),
            _ => None,
        }
    }
}

impl WorkerConnector for Workers {
    fn connect(&self, id: WorkerId, address: &str) -> WorkerRef {
        if let Some(port) = self.local(id) {
            return port;
        }
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        match remote.get(&id) {
            Some((known, port)) if known == address => port.clone(),
            _ => {
                let port: WorkerRef = Arc::new(Peer::start(&self.arbiter, address, &self.ports));
                remote.insert(id, (address.to_owned(), port.clone()));
                port
            }
        }
    }
}
