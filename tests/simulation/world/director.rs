//! What a plot has happen, one thing at a time: mounts do what they are told, and machines and the network get into trouble
//! at its word only.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use curvine_actors::client::Client;
use curvine_protocol::{NodeId, WorkerId};

use crate::chance::Chance;
use crate::checks::Violation;
use crate::faults::Plan;
use crate::network::{MOUNTS, Network, WORKERS, name};
use crate::troubles::{ClusterPlan, ROOMY, Tiers};

use super::masters::Masters;
use super::mounts::Mount;
use super::workers::WorkerHost;
use super::{World, text};

/// Whatever a plot waits for is there by then.
const PATIENCE: Duration = Duration::from_secs(150);

/// What a plot plays with.
#[derive(Clone, Copy)]
pub struct Cast {
    pub masters: u64,
    pub workers: u64,
    pub mounts: u64,
    pub capacity_bytes: u64,
    pub tiers: Tiers,
    pub objects: usize,
}

impl Default for Cast {
    fn default() -> Self {
        Cast {
            masters: 1,
            workers: 1,
            mounts: 2,
            capacity_bytes: ROOMY,
            tiers: Tiers::default(),
            objects: 0,
        }
    }
}

/// What a mount is about.
pub struct Doing<T>(Rc<RefCell<Option<T>>>);

impl World {
    /// Machines to which nothing happens by itself. They run, and their workers are registered.
    pub fn of_plot(cast: Cast, chance: Chance, scratch: &Path, is_told: bool) -> Result<World, Violation> {
        let plan = Plan {
            masters: cast.masters,
            clients: 0,
            cells: 1,
            seconds: 0,
            faults: Vec::new(),
            pause_ms: 0,
            snapshot_every_entries: 1_000,
            snapshot_every_bytes: 1 << 30,
            kept_entries: 0,
            kept_bytes: 1 << 30,
            cluster: Some(ClusterPlan {
                workers: cast.workers,
                replicas: 1,
                capacity_bytes: cast.capacity_bytes,
                tiers: cast.tiers,
                mounts: cast.mounts,
                programs: 0,
                cells: 1,
                removes: false,
                objects: cast.objects,
                cache_quota_bytes: None,
                troubles: Vec::new(),
                pause_ms: 0,
            }),
        };
        let mut world = Self::with(plan, chance, scratch, is_told)?;
        // Here late requests are the point.
        world.network.allow_late();
        world.start_cluster()?;
        world.pass_ms(100)?;
        // As a mount does before it shows a file.
        for mount in 0..cast.mounts {
            world.does(mount, "begins a session", |client| async move {
                client.session().await
            })?;
        }
        Ok(world)
    }

    pub fn chance(&self) -> Chance {
        self.chance.clone()
    }

    pub fn network(&self) -> Network {
        self.network.clone()
    }

    pub fn masters(&mut self) -> &mut Masters {
        &mut self.masters
    }

    pub fn master_ids(&self) -> Vec<NodeId> {
        self.masters.ids()
    }

    pub fn worker_ids(&self) -> Vec<NodeId> {
        let cluster = self.cluster.as_ref().expect("a plot has a cluster");
        cluster.workers.ids()
    }

    /// The machine of the mount of that number, from 0.
    pub fn mount(&mut self, number: u64) -> &mut Mount {
        let cluster = self.cluster.as_mut().expect("a plot has a cluster");
        let mount = cluster.mounts.get_mut(NodeId(MOUNTS.0 + number));
        mount.expect("the plot has so many mounts")
    }

    /// The machine of the worker of that number, from 0.
    pub fn worker_host(&mut self, number: u64) -> &mut WorkerHost {
        self.worker_at(NodeId(WORKERS.0 + number))
    }

    pub fn worker_at(&mut self, id: NodeId) -> &mut WorkerHost {
        let cluster = self.cluster.as_mut().expect("a plot has a cluster");
        cluster.workers.get_mut(id).expect("the plot has so many workers")
    }

    /// On which machine a worker is.
    pub fn machine_of(&self, worker: WorkerId) -> NodeId {
        let cluster = self.cluster.as_ref().expect("a plot has a cluster");
        let whereabouts = cluster.workers.whereabouts.lock().expect("one thread");
        *whereabouts.get(&worker).expect("it has registered")
    }

    pub fn start_worker(&mut self, number: u64) -> Result<(), Violation> {
        let now = self.now;
        self.worker_host(number).start(now).map_err(text)
    }

    pub fn restart_worker(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.now;
        self.worker_at(id).start(now).map_err(text)
    }

    /// Runs something on the machine of raw clients.
    pub fn begin_outside(&mut self, what: impl Future<Output = ()> + 'static) {
        self.clients.spawn(what);
    }

    /// What a mount and some others send each other is kept.
    pub fn hold(&mut self, mount: u64, others: &[NodeId]) {
        let id = self.mount(mount).id;
        self.tell(format!(
            "what {} and {others:?} send each other is kept",
            name(id)
        ));
        for other in others {
            self.network.hold(id, *other);
            self.network.hold(*other, id);
        }
    }

    pub fn says(&mut self, what: impl std::fmt::Display) {
        self.tell(what);
    }

    /// Has a mount begin something.
    pub fn begin<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        mount: u64,
        what: impl FnOnce(Client) -> F,
    ) -> Doing<T> {
        let host = self.mount(mount);
        let client = host.client().expect("the mount runs");
        let (done, doing) = (Rc::new(RefCell::new(None)), what(client));
        let slot = done.clone();
        host.machine.spawn(async move {
            let outcome = doing.await;
            *slot.borrow_mut() = Some(outcome);
        });
        Doing(done)
    }

    /// Waits for what was begun.
    pub fn ended<T>(&mut self, doing: &Doing<T>) -> Result<T, Violation> {
        let deadline = self.now + PATIENCE;
        while self.now < deadline {
            if let Some(outcome) = doing.0.borrow_mut().take() {
                return Ok(outcome);
            }
            self.tick()?;
        }
        Err(format!("a mount has not ended what it does within {PATIENCE:?}"))
    }

    /// Has a mount do something.
    pub fn ask<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        mount: u64,
        what: impl FnOnce(Client) -> F,
    ) -> Result<T, Violation> {
        let doing = self.begin(mount, what);
        self.ended(&doing)
    }

    /// The same, where an error is wrong.
    pub fn does<T: 'static, F: Future<Output = curvine_protocol::Result<T>> + 'static>(
        &mut self,
        mount: u64,
        what: &str,
        act: impl FnOnce(Client) -> F,
    ) -> Result<T, Violation> {
        let outcome = self.ask(mount, act)?;
        let id = self.mount(mount).id;
        match outcome {
            Ok(done) => {
                self.tell(format!("{} {what}", name(id)));
                Ok(done)
            }
            Err(error) => Err(format!("{} {what}, and gets: {error}", name(id))),
        }
    }

    pub fn pass_s(&mut self, seconds: u64) -> Result<(), Violation> {
        self.pass_ms(seconds * 1_000)
    }
}
