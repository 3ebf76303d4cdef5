//! What a cluster has besides its masters, and what must hold of it in the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use curvine_protocol::master::{ListMounts, MountUfs};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, NodeId};

use crate::chance::Chance;
use crate::checks::Violation;
use crate::network::{Letter, Network};
use crate::objects::MOUNT;
use crate::programs::Shared;
use crate::store;
use crate::troubles::ClusterPlan;

use super::mounts::Mounts;
use super::workers::Workers;
use super::{World, text};

/// In the end all files can be read within this time: a dead client's session has ended then.
const READABLE_WITHIN: Duration = Duration::from_secs(150);

/// What is cached of a mount comes down to its quota within this time: what was fetched for a writer has been let go of then.
const KEPT_WITHIN: Duration = Duration::from_secs(90);

pub struct Cluster {
    pub plan: ClusterPlan,
    pub workers: Workers,
    pub mounts: Mounts,
}

impl Cluster {
    pub fn new(
        plan: ClusterPlan,
        scratch: &Path,
        network: &Network,
        masters: &[NodeId],
        chance: &Chance,
    ) -> Cluster {
        let workers = Workers::new(&plan, scratch, network, masters, chance);
        let shared = Shared::new(network.clone(), &plan);
        let whereabouts = workers.whereabouts.clone();
        // One more, which only reads, in the end.
        let mounts = Mounts::new(plan.mounts + 1, network, masters, &whereabouts, shared, chance);
        Cluster {
            plan,
            workers,
            mounts,
        }
    }

    pub fn pass(&mut self, now: Duration, time: Duration) {
        self.mounts.shared.now.set(now);
        self.workers
            .iter_mut()
            .for_each(|worker| worker.machine.pass(time));
        self.mounts.iter_mut().for_each(|mount| mount.machine.pass(time));
    }

    pub fn deliver(&mut self, letter: Letter) {
        if let Letter::Request { from, to, request } = letter
            && let Some(worker) = self.workers.get_mut(to)
        {
            worker.deliver(from, request);
        }
    }

    /// What is to be told, and what is wrong.
    pub fn news(&mut self) -> Result<Vec<String>, Violation> {
        let shared = &self.mounts.shared;
        let told = std::mem::take(&mut *shared.told.borrow_mut());
        if let Some(violation) = shared.violation.borrow_mut().take() {
            return Err([&told[..], &[violation]].concat().join("\n"));
        }
        for worker in self.workers.iter_mut() {
            if let Some(error) = worker.failed_to_start() {
                return Err(format!(
                    "{} does not start: {error}",
                    crate::network::name(worker.id)
                ));
            }
        }
        Ok(told)
    }
}

impl World {
    /// Starts what there is besides the masters.
    pub(super) fn start_cluster(&mut self) -> Result<(), Violation> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        for id in cluster.workers.ids() {
            self.act_on(super::agenda::Act::Start(id))?;
        }
        let deadline = self.now + Duration::from_secs(30);
        self.until(deadline, "all workers are registered", |world| {
            let cluster = world.cluster.as_mut().expect("it is one");
            Ok(cluster.workers.iter_mut().all(|worker| worker.serves()))
        })?;
        self.mount_store()?;
        let cluster = self.cluster.as_ref().expect("it is one");
        let ids = cluster.mounts.ids();
        let (_, users) = ids.split_last().expect("there is the one that reads");
        for id in users {
            self.act_on(super::agenda::Act::Start(*id))?;
        }
        Ok(())
    }

    /// An under file system with a few objects is mounted, if there is to be one.
    fn mount_store(&mut self) -> Result<(), Violation> {
        let cluster = self.cluster.as_ref().expect("it is one");
        if cluster.plan.objects == 0 {
            return Ok(());
        }
        store::open(self.chance.fork());
        let shared = &cluster.mounts.shared;
        for number in 0..cluster.plan.objects {
            let stamp = shared.files.borrow_mut().stamp();
            let mut objects = shared.objects.borrow_mut();
            objects.change(&format!("o{number}"), stamp, self.now);
        }
        let mount = MountUfs {
            path: CurvinePath::parse(MOUNT).expect("a valid path"),
            uri: store::URI.to_owned(),
            options: BTreeMap::new(),
            settings: MountSettings {
                cache_quota_bytes: cluster.plan.cache_quota_bytes,
                ..MountSettings::default()
            },
        };
        let (mut client, done) = (self.clients.shared.client(), Rc::new(Cell::new(false)));
        let tell = done.clone();
        self.clients.spawn(async move {
            tell.set(
                client
                    .until_answered(mount, 0)
                    .await
                    .is_some_and(|answer| answer.is_ok()),
            );
        });
        let deadline = self.now + Duration::from_secs(30);
        self.until(deadline, "the under file system is mounted", |_| Ok(done.get()))
    }

    /// Every program ends, and all files can be read by whoever was never here before.
    pub(super) fn cluster_comes_to_rest(&mut self) -> Result<(), Violation> {
        let Some(cluster) = &self.cluster else {
            return Ok(());
        };
        cluster.mounts.finish();
        let deadline = self.now + READABLE_WITHIN;
        self.until(deadline, "all programs have ended", |world| {
            Ok(world.cluster.as_ref().expect("it is one").mounts.are_done())
        })?;
        let read: Rc<RefCell<Option<Result<(), String>>>> = Rc::default();
        let mut last = "nothing was read".to_owned();
        let deadline = self.now + READABLE_WITHIN;
        self.read_all_files(&read)?;
        while self.now < deadline {
            self.tick()?;
            let outcome = read.borrow_mut().take();
            match outcome {
                None => {}
                Some(Ok(())) => {
                    self.is_calm().and_then(|()| self.check_names())?;
                    return self.keeps_to_its_quota();
                }
                Some(Err(error)) => {
                    last = error;
                    self.read_all_files(&read)?;
                }
            }
        }
        Err(format!("not within {READABLE_WITHIN:?} of the healing: {last}"))
    }

    /// Nobody has proposed the same again and again. Programs of a cluster make fewer than five changes in a second.
    fn is_calm(&self) -> Result<(), Violation> {
        let (applied, seconds) = (self.watch.checks().applied() as u64, self.now.as_secs());
        match applied > 500 + 10 * seconds {
            true => Err(format!(
                "{applied} entries in {seconds} s: somebody proposes without end"
            )),
            false => Ok(()),
        }
    }

    fn read_all_files(&mut self, read: &Rc<RefCell<Option<Result<(), String>>>>) -> Result<(), Violation> {
        let now = self.now;
        let cluster = self.cluster.as_mut().expect("it is one");
        let reader = *cluster.mounts.ids().last().expect("there is one");
        let mount = cluster.mounts.get_mut(reader).expect("it is there");
        mount.read_all(now, read.clone()).map_err(text)
    }

    /// What the mount's cached blocks take comes down to its quota, if it has one.
    fn keeps_to_its_quota(&mut self) -> Result<(), Violation> {
        let cluster = self.cluster.as_ref().expect("it is one");
        let Some(quota_bytes) = cluster
            .plan
            .cache_quota_bytes
            .filter(|_| cluster.plan.objects > 0)
        else {
            return Ok(());
        };
        let (mut client, kept) = (self.clients.shared.client(), Rc::new(Cell::new(false)));
        let tell = kept.clone();
        self.clients.spawn(async move {
            while !tell.get() {
                let mounts = client.until_answered(ListMounts {}, 0).await;
                if let Some(Ok(table)) = mounts {
                    let traffic = table.mounts.first().and_then(|mount| mount.traffic);
                    tell.set(traffic.is_some_and(|traffic| traffic.cached_bytes <= quota_bytes));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let deadline = self.now + KEPT_WITHIN;
        self.until(deadline, "the mount keeps to its quota of cache", |_| {
            Ok(kept.get())
        })
    }

    fn check_names(&mut self) -> Result<(), Violation> {
        let cluster = self.cluster.as_ref().expect("it is one");
        let names = cluster.mounts.shared.names.take();
        names.check()
    }
}
