//! The master: the namespace, replicated by Raft; the workers and their blocks; mounts and jobs.
//!
//! - [`replica`]: makes commands durable and applies them.
//! - [`namespace`]: the inode tree and the actor in front of it.
//! - [`blocks`]: which worker holds which block, which workers live.
//! - [`mirror`]: keeps names in mounts in step with their under file systems.
//! - [`stores`]: what under file systems are made to do.
//! - [`duties`]: what a leader does of its own accord.
//! - [`answers`]: calls about the cluster, workers, mounts, jobs.
//! - [`door`]: routes the calls of the master service to these.
//! - [`recalls`]: whose lease is wanted by others, who waits for it; [`fencing`]: keeping who lost one from the blocks.
//! - [`locking`]: who waits for locks.
//! - [`pinning`]: which blocks workers must not evict.
//! - [`contract`]: what they ask of each other.

pub mod answers;
pub mod blocks;
pub mod contract;
pub mod door;
pub mod duties;
mod fencing;
mod fetching;
mod freeing;
mod keys;
pub mod listings;
pub mod locking;
pub mod mirror;
pub mod namespace;
mod pinning;
pub mod recalls;
pub mod replica;
pub mod stores;
#[cfg(test)]
mod tests;
mod walk;
pub mod workers;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix::ArbiterHandle;
use curvine_protocol::{ClusterId, Error, ErrorKind, Result};
use tokio::sync::oneshot;

use self::answers::Family;
use self::answers::cluster::ClusterAnswers;
use self::answers::jobs::JobAnswers;
use self::answers::mounts::MountAnswers;
use self::answers::news::NewsAnswers;
use self::answers::workers::WorkerAnswers;
use self::blocks::BlockMap;
use self::contract::{NamespaceView, Placement};
use self::door::MasterDoor;
use self::duties::deletions::{Deletions, Orders};
use self::duties::expiry::Expiry;
use self::duties::kinds::{Exported, Kinds};
use self::duties::loads::Loads;
use self::duties::open_files::OpenFiles;
use self::duties::pins::Pins;
use self::duties::quotas::Quotas;
use self::duties::reclaim::Reclaim;
use self::duties::recovery::Replicas;
use self::duties::repair::Repair;
use self::duties::sessions::{Hearing, Sessions};
use self::duties::{Duties, Duty};
use self::fencing::Fencing;
use self::fetching::Fetching;
use self::freeing::Freeing;
use self::locking::Locking;
use self::mirror::Mirror;
use self::namespace::actor::{FileDefaults, NamespacePort, OwnCommands};
use self::namespace::holding::Holding;
use self::namespace::leases::Leases;
use self::namespace::opens::Opens;
use self::namespace::recovery::Recovery;
use self::pinning::Pinning;
use self::recalls::Recalls;
use self::replica::{LogLimits, MasterConnector, Members, OpenState, ReplicaConfig, ReplicaPort, restore};
use self::stores::Outcomes;
use self::stores::changes::Changes;
use self::stores::exports::{Exports, Queue};
use self::workers::{WorkerConnector, Workers};
use crate::kit::{MasterRef, Ports};

/// What a master is started with.
pub struct MasterConfig {
    pub members: Members,
    /// Its own directory, locked by the caller: log, state and snapshots.
    pub directory: PathBuf,
    pub defaults: FileDefaults,
    pub workers: Arc<dyn WorkerConnector>,
    pub masters: Arc<dyn MasterConnector>,
    pub log_limits: LogLimits,
    /// Percent of the workers' capacity that may be pinned.
    pub pin_limit_percent: u64,
    /// How many more copies of hot blocks there are at most than files want.
    pub hot_copies: usize,
}

/// A running master.
pub struct MasterHandle {
    pub port: MasterRef,
    pub replica: ReplicaPort,
}

impl MasterHandle {
    /// Returns the cluster's id once the group of masters has a leader. Until then the port answers other masters.
    pub async fn joined(&self) -> Result<ClusterId> {
        self.replica.joined().await
    }

    /// Has another master elected, if this one leads a group: before it answers nobody any more.
    pub async fn retire(&self) {
        self.replica.retire().await;
    }

    /// Stops taking part; the state is closed cleanly. Calls in flight fail with `Stopping`.
    pub async fn stop(&self) {
        self.replica.stop().await;
    }
}

/// Starts a master in an arbiter, from any thread. Its port is to be served at once: the others of its group call there.
///
/// # Errors
/// `Io` or `NoSpace` naming the directory; `Stopping` if the arbiter is.
pub async fn start(arbiter: &ArbiterHandle, config: MasterConfig, ports: &Ports) -> Result<MasterHandle> {
    let (done, started) = oneshot::channel();
    let (itself, ports) = (arbiter.clone(), ports.clone());
    arbiter.spawn(async move {
        // Nobody waits any more if the process is stopping.
        let _ = done.send(start_here(&itself, config, &ports).await);
    });
    started.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Stopping,
            "the master's thread ended while it started",
        ))
    })
}

/// [`start`], on the arbiter's own thread.
async fn start_here(arbiter: &ArbiterHandle, config: MasterConfig, ports: &Ports) -> Result<MasterHandle> {
    let orders = Arc::new(Orders::default());
    let blocks = Arc::new(BlockMap::new(ports.clock.clone(), orders.clone()));
    // Who does not lead hears no workers, and keeps nothing about them.
    let leads = Arc::new(AtomicBool::new(false));
    let recalls = Arc::new(Recalls::default());
    let locking = Arc::new(Locking::default());
    let outcomes = Arc::new(Outcomes::default());
    let to_pin = Arc::<Exported>::default();
    let effects = {
        let to_pin = to_pin.clone();
        let (blocks, leads, recalls) = (blocks.clone(), leads.clone(), recalls.clone());
        let (locking, outcomes) = (locking.clone(), outcomes.clone());
        Arc::new(move |effects: namespace::apply::Effects| {
            if leads.load(Ordering::Acquire) {
                blocks.committed(&effects.committed);
                blocks.released(&effects.released);
                recalls.given_back(&effects.unleased);
                locking.unlocked(&effects.unlocked);
                outcomes.applied(&effects);
                for inode in effects.moved {
                    to_pin.note(inode, blocks.now());
                }
            }
        })
    };
    restore::take_in(&config.directory, &config.members, ports.clock.wall_ns())?;
    let state = OpenState::open(&config.directory)?;
    let store = state.store.clone();
    let me = config.members.me;
    let replica = ReplicaConfig {
        members: config.members,
        directory: config.directory,
        connector: config.masters,
        limits: config.log_limits,
    };
    let replica = ReplicaPort::start(arbiter, replica, state, effects, ports).await?;
    let consensus = Arc::new(replica.clone());
    let view: Arc<dyn NamespaceView> = Arc::new(store.clone());
    let propose = Arc::new(OwnCommands {
        consensus: consensus.clone(),
        clock: ports.clock.clone(),
    });
    let mirror = Arc::new(Mirror::new(view.clone(), propose.clone(), ports));
    let opens = Arc::new(Opens::default());
    let hearing = Arc::new(Hearing::default());
    let workers = Workers::new(blocks.clone(), config.workers);
    let holding = Arc::new(Holding {
        store: store.clone(),
        opens: opens.clone(),
        clock: ports.clock.clone(),
    });
    let recovery = Arc::new(Recovery {
        store: store.clone(),
        fences: Arc::new(Fencing::new(
            view.clone(),
            blocks.clone(),
            workers.clone(),
            ports.clock.clone(),
        )),
        own: propose.clone(),
        under_way: Mutex::default(),
    });
    let namespace = NamespacePort::new(namespace::actor::Parts {
        store: store.clone(),
        consensus: consensus.clone(),
        ufs: mirror.clone(),
        placement: blocks.clone(),
        clock: ports.clock.clone(),
        leases: Leases {
            recalls: recalls.clone(),
            hearing: hearing.clone(),
            recovery: recovery.clone(),
            own: propose.clone(),
            locking: locking.clone(),
        },
        defaults: config.defaults,
        opens: opens.clone(),
        keeping: holding.clone(),
        outcomes: outcomes.clone(),
    });
    let fetching = Fetching {
        view: view.clone(),
        blocks: blocks.clone(),
        workers: workers.clone(),
    };
    let pinning = Pinning {
        view: view.clone(),
        blocks: blocks.clone(),
        workers: workers.clone(),
        due: to_pin,
        limit_percent: config.pin_limit_percent,
    };
    let loads = Loads::new(
        view.clone(),
        propose.clone(),
        blocks.clone(),
        mirror.clone(),
        workers.clone(),
    );
    let sessions = Sessions::new(
        view.clone(),
        propose.clone(),
        consensus.clone(),
        ports.clock.clone(),
        hearing.clone(),
    );
    let changes = Arc::new(Changes {
        view: view.clone(),
        propose: propose.clone(),
        mirror: mirror.clone(),
        outcomes: outcomes.clone(),
        keeping: holding,
        fetching: fetching.clone(),
        clock: ports.clock.clone(),
    });
    let exported = Arc::<Exported>::default();
    let exports = Arc::new(Exports {
        view: view.clone(),
        propose: propose.clone(),
        consensus: consensus.clone(),
        mirror: mirror.clone(),
        blocks: blocks.clone(),
        workers: workers.clone(),
        fetching: fetching.clone(),
        clock: ports.clock.clone(),
        outcomes,
        queue: Queue::default(),
        exported: exported.clone(),
    });
    let freeing = Freeing {
        view: view.clone(),
        blocks: blocks.clone(),
        workers: workers.clone(),
    };
    let repair = Arc::new(Repair::new(
        store.clone(),
        propose.clone(),
        blocks.clone(),
        fetching.clone(),
        config.hot_copies,
        ports.clock.clone(),
    ));
    let repair_now = repair.now();
    let duties = Arc::new(Duties::new(vec![
        Arc::new(sessions) as Arc<dyn Duty>,
        Arc::new(OpenFiles::new(view.clone(), opens.clone(), ports.clock.clone())),
        Arc::new(Deletions::new(orders, workers.clone())),
        Arc::new(loads.clone()),
        changes.clone(),
        exports.clone(),
        Arc::new(Reclaim::new(
            view.clone(),
            propose.clone(),
            opens.clone(),
            ports.clock.clone(),
        )),
        Arc::new(Replicas::new(recovery)),
        Arc::new(Kinds::new(
            view.clone(),
            fetching,
            ports.clock.clone(),
            exported.clone(),
            pinning.clone(),
        )),
        Arc::new(Pins(pinning.clone())),
        Arc::new(Quotas::new(
            view.clone(),
            propose.clone(),
            (ports.offload)("quotas"),
        )),
        Arc::new(Expiry::new(
            view.clone(),
            propose.clone(),
            opens.clone(),
            freeing.clone(),
            ports.clock.clone(),
            (ports.offload)("expiry"),
        )),
        repair,
    ]));
    let following = {
        let (duties, blocks, leadership) = (duties.clone(), blocks.clone(), replica.leadership());
        let recalls = recalls.clone();
        async move {
            let on_change = |term: Option<u64>| {
                leads.store(term.is_some(), Ordering::Release);
                recalls.look_again();
                locking.look_again();
                // What it knew of workers when it led before is of no use.
                match term {
                    Some(_) => blocks.lead(),
                    None => blocks.forget_everything(),
                }
            };
            duties.follow(leadership, on_change).await;
        }
    };
    tokio::spawn(following);
    let group = replica.clone();
    let cluster = ClusterAnswers {
        node: me,
        started: ports.clock.now(),
        view: view.clone(),
        consensus: consensus.clone(),
        blocks: blocks.clone(),
        mirror: mirror.clone(),
        masters: Arc::new(move || {
            let group = group.clone();
            Box::pin(async move { group.masters().await })
        }),
        duties,
        store: store.clone(),
        workers: workers.clone(),
        repair_now: repair_now.clone(),
    };
    let mounts = MountAnswers {
        view: view.clone(),
        propose: propose.clone(),
        consensus: consensus.clone(),
        blocks: blocks.clone(),
        mirror: mirror.clone(),
        freeing,
        changes,
        exports,
        threads: ports.offload.clone(),
        pinning: pinning.clone(),
    };
    let news = NewsAnswers {
        consensus: consensus.clone(),
        recalls,
        hearing,
        clock: ports.clock.clone(),
    };
    let jobs = JobAnswers {
        view: view.clone(),
        propose: propose.clone(),
        consensus: consensus.clone(),
        mirror: mirror.clone(),
        loads,
        clock: ports.clock.clone(),
    };
    let worker_calls = WorkerAnswers {
        view,
        propose,
        consensus,
        blocks,
        mirror,
        random: ports.random.clone(),
        exported,
        clock: ports.clock.clone(),
        pinning,
        reports: ports.offload("reports"),
        repair_now,
    };
    let door = MasterDoor {
        namespace,
        cluster: Family::new(cluster),
        mounts: Family::new(mounts),
        jobs: Family::new(jobs),
        news: Family::new(news),
        workers: Family::new(worker_calls),
        replica: replica.clone(),
    };
    Ok(MasterHandle {
        port: Arc::new(door),
        replica,
    })
}
