//! The machines of the mounts: each has a client of its own, with its session, leases and buffers, and programs that use
//! it ([`crate::programs`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::WorkerRef;
use curvine_protocol::{NodeId, WorkerId};

use crate::chance::Chance;
use crate::machine::Machine;
use crate::network::{MOUNTS, NOWHERE, Network, WorkerWay};
use crate::programs::{Program, Shared};

use super::workers::{Whereabouts, ways_to};

pub struct Mount {
    pub id: NodeId,
    pub machine: Machine,
    network: Network,
    masters: Vec<NodeId>,
    whereabouts: Whereabouts,
    shared: Shared,
    chance: Chance,
    /// Programs that have not ended.
    busy: Rc<Cell<usize>>,
    /// From when until when it was stopped or cut off, with short whiles between.
    pub away: Option<Range<Duration>>,
    /// What a plot uses, where there are no programs.
    client: Rc<RefCell<Option<Client>>>,
}

pub struct Mounts {
    hosts: BTreeMap<NodeId, Mount>,
    pub shared: Shared,
}

impl Mounts {
    pub fn new(
        count: u64,
        network: &Network,
        masters: &[NodeId],
        whereabouts: &Whereabouts,
        shared: Shared,
        chance: &Chance,
    ) -> Mounts {
        let hosts = (0..count).map(|number| {
            let id = NodeId(MOUNTS.0 + number);
            let host = Mount {
                id,
                machine: Machine::new(chance.fork()),
                network: network.clone(),
                masters: masters.to_vec(),
                whereabouts: whereabouts.clone(),
                shared: shared.clone(),
                chance: chance.fork(),
                busy: Rc::default(),
                away: None,
                client: Rc::default(),
            };
            (id, host)
        });
        Mounts {
            hosts: hosts.collect(),
            shared,
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Mount> {
        self.hosts.values_mut()
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Mount> {
        self.hosts.get_mut(&id)
    }

    pub fn are_done(&self) -> bool {
        self.hosts.values().all(|mount| mount.busy.get() == 0)
    }

    /// Whether one of those that have programs is stopped, or dead.
    pub fn is_anyone_away(&self) -> bool {
        let users = self.hosts.values().take(self.hosts.len() - 1);
        let mut machines = users.map(|mount| &mount.machine);
        machines.any(|machine| machine.is_stopped() || !machine.is_running())
    }

    /// Asks all programs to end after what they are at.
    pub fn finish(&self) {
        self.shared.stop.set(true);
    }
}

impl Mount {
    /// A new process, in which so many programs run.
    pub fn start(&mut self, now: Duration, programs: usize) -> std::io::Result<()> {
        self.busy = Rc::new(Cell::new(programs));
        let (shared, chance, busy) = (self.shared.clone(), self.chance.clone(), self.busy.clone());
        let (id, writing) = (self.id, Rc::default());
        let slot = self.client.clone();
        self.process(now, move |client| {
            if programs == 0 {
                *slot.borrow_mut() = Some(client.clone());
            }
            for _ in 0..programs {
                let (client, shared, chance) = (client.clone(), shared.clone(), chance.fork());
                let program = Program::new(id, client, shared, chance, Rc::clone(&writing));
                let busy = busy.clone();
                tokio::task::spawn_local(async move {
                    program.run().await;
                    busy.set(busy.get() - 1);
                });
            }
        })
    }

    /// Of a mount without programs.
    pub fn client(&self) -> Option<Client> {
        self.client.borrow().clone()
    }

    fn process(&mut self, now: Duration, run: impl FnOnce(Client) + 'static) -> std::io::Result<()> {
        let (arbiter, ports) = self.machine.start(now)?;
        let (network, whereabouts, id) = (self.network.clone(), self.whereabouts.clone(), self.id);
        let workers = move |worker: WorkerId| {
            let host = whereabouts.lock().expect("one thread").get(&worker).copied();
            // One that nobody has told us of answers nobody.
            Some(Arc::new(WorkerWay(network.way(id, host.unwrap_or(NOWHERE)))) as WorkerRef)
        };
        let ways = ways_to(&self.network, id, &self.masters);
        let options = ClientOptions {
            uid: 0,
            gid: 0,
            ..ClientOptions::default()
        };
        self.machine.spawn(async move {
            let client = Client::in_process(&arbiter, ways, Arc::new(workers), options, ports);
            run(client.expect("there is a master"));
        });
        Ok(())
    }

    /// Another new process, which reads all files and says how that was.
    pub fn read_all(
        &mut self,
        now: Duration,
        read: Rc<RefCell<Option<Result<(), String>>>>,
    ) -> std::io::Result<()> {
        self.kill();
        let (shared, chance, id) = (self.shared.clone(), self.chance.clone(), self.id);
        self.process(now, move |client| {
            let program = Program::new(id, client, shared, chance, Rc::default());
            tokio::task::spawn_local(async move {
                let outcome = program.reads_all().await;
                *read.borrow_mut() = Some(outcome);
            });
        })
    }

    /// kill -9: what was not flushed is gone.
    pub fn kill(&mut self) {
        self.client.take();
        self.machine.kill();
        self.busy = Rc::default();
        self.shared
            .files
            .borrow_mut()
            .died(self.id, self.shared.now.get());
    }
}
