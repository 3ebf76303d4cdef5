//! A master, on a machine of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use curvine_actors::kit::WorkerRef;
use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::replica::{Inspection, LogLimits, Members, ReplicaPort};
use curvine_actors::master::workers::WorkerConnector;
use curvine_actors::master::{self, MasterConfig, MasterHandle};
use curvine_protocol::{Error, ErrorKind, NodeId, Result, WorkerId};

use crate::chance::Chance;
use crate::disk;
use crate::machine::Machine;
use crate::network::{Letter, Network, Port, Request, Ways, WorkerWay, host_at};

pub struct Host {
    pub id: NodeId,
    pub members: Members,
    directory: PathBuf,
    network: Network,
    limits: LogLimits,
    defaults: FileDefaults,
    chance: Chance,
    /// Of the running process, once it has started.
    started: Started,
    pub machine: Machine,
}

type Started = Rc<RefCell<Option<Result<Rc<MasterHandle>>>>>;

impl Host {
    pub fn new(
        members: Members,
        scratch: &Path,
        network: Network,
        limits: LogLimits,
        defaults: FileDefaults,
        chance: Chance,
    ) -> Host {
        let id = members.me;
        Host {
            id,
            members,
            directory: scratch.join(format!("master-{id}")),
            network,
            limits,
            defaults,
            machine: Machine::new(chance.clone()),
            chance,
            started: Rc::default(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.machine.is_running()
    }

    pub fn is_stopped(&self) -> bool {
        self.machine.is_stopped()
    }

    /// Starts the process, at a time of the world.
    pub fn start(&mut self, now: Duration) -> Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let (arbiter, ports) = self.machine.start(now)?;
        let config = MasterConfig {
            members: self.members.clone(),
            directory: self.directory.clone(),
            defaults: self.defaults,
            workers: Arc::new(ToWorkers {
                network: self.network.clone(),
                from: self.id,
            }),
            masters: Arc::new(Ways {
                network: self.network.clone(),
                from: self.id,
            }),
            log_limits: self.limits,
            pin_limit_percent: 50,
            hot_copies: 2,
        };
        self.started = Rc::default();
        let slot: Started = Rc::clone(&self.started);
        self.machine.spawn(async move {
            let handle = master::start(&arbiter, config, &ports).await;
            *slot.borrow_mut() = Some(handle.map(Rc::new));
        });
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.started = Rc::default();
        self.machine.kill();
    }

    /// The machine loses its power: also what the page cache had. Returns how many pages were lost.
    pub fn lose_power(&mut self) -> std::io::Result<u64> {
        self.kill();
        let lost = disk::cut_power(&self.directory, &self.chance)?;
        // The next boot has another id. A state that was closed says so itself.
        let mark = self.directory.join("state.trust");
        if std::fs::read_to_string(&mark).is_ok_and(|mark| mark != "clean") {
            std::fs::write(&mark, "another boot")?;
        }
        Ok(lost)
    }

    /// A new, empty disk.
    pub fn wipe(&mut self) -> std::io::Result<()> {
        self.kill();
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// SIGTERM. The process is gone when [`Self::has_ended`] says so.
    pub fn terminate(&mut self) -> Option<Rc<RefCell<bool>>> {
        if !self.is_running() {
            return None;
        }
        let started = self.started.clone();
        let ended = Rc::new(RefCell::new(false));
        let tell = ended.clone();
        self.machine.spawn(async move {
            let handle = started.borrow().clone();
            if let Some(Ok(handle)) = handle {
                handle.retire().await;
                // From here on it answers nobody.
                *started.borrow_mut() = None;
                handle.stop().await;
            }
            *tell.borrow_mut() = true;
        });
        Some(ended)
    }

    /// Takes in a message.
    pub fn deliver(&mut self, from: NodeId, request: Arc<dyn Request>) {
        let (network, to) = (self.network.clone(), self.id);
        let answer = move |outcome| {
            network.send(Letter::Answer {
                from: to,
                to: from,
                outcome,
            });
        };
        let port = self.with_master(|master| master.port.clone());
        match port {
            Some(port) => self
                .machine
                .spawn(async move { answer(request.serve(&Port::Master(port)).await) }),
            None => answer(request.refuse(Error::new(
                ErrorKind::Unreachable,
                format!("master {to} does not run"),
            ))),
        }
    }

    fn with_master<T>(&self, look: impl FnOnce(&MasterHandle) -> T) -> Option<T> {
        let started = self.started.borrow();
        started.as_ref()?.as_ref().ok().map(|master| look(master))
    }

    /// Why it did not start, if so.
    pub fn failed_to_start(&self) -> Option<Error> {
        let started = self.started.borrow();
        started.as_ref()?.as_ref().err().cloned()
    }

    pub fn replica(&self) -> Option<ReplicaPort> {
        self.with_master(|master| master.replica.clone())
    }

    pub fn inspect(&self) -> Option<Inspection> {
        self.replica().map(|replica| replica.inspect())
    }
}

/// How a machine reaches the workers.
pub struct ToWorkers {
    pub network: Network,
    pub from: NodeId,
}

impl WorkerConnector for ToWorkers {
    fn connect(&self, _: WorkerId, address: &str) -> WorkerRef {
        Arc::new(WorkerWay(self.network.way(self.from, host_at(address))))
    }
}
