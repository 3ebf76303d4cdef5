//! The master: the namespace, replicated by Raft; the workers and their blocks; mounts and jobs.
//!
//! - [`replica`]: makes commands durable and applies them.
//! - [`namespace`]: the inode tree and the actor in front of it.
//! - [`blocks`]: which worker holds which block, which workers live.
//! - [`services`]: calls of workers, mounts, jobs.
//! - [`door`]: routes the calls of the master service to these.
//! - [`contract`]: what they ask of each other.

pub mod blocks;
pub mod contract;
pub mod door;
pub mod namespace;
pub mod replica;
pub mod services;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::Actor;
use curvine_protocol::{ClusterId, Result};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use self::blocks::BlockMap;
use self::contract::{NamespaceView, Placement};
use self::door::MasterDoor;
use self::namespace::actor::{FileDefaults, Namespace, NamespacePort, OwnCommands};
use self::replica::{LogLimits, MasterConnector, Members, OpenState, ReplicaConfig, ReplicaPort, restore};
use self::services::loader::Loader;
use self::services::ufs_view::Mirror;
use self::services::{Services, WorkerConnector, delete_blocks};
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

/// Starts a master in the current arbiter. Its port is to be served at once: the others of its group call there.
///
/// # Errors
/// `Io` or `NoSpace` naming the directory.
pub async fn start(config: MasterConfig, ports: &Ports) -> Result<MasterHandle> {
    let (deletions, orders) = unbounded_channel();
    let blocks = Arc::new(BlockMap::new(ports.clock.clone(), deletions));
    // Who does not lead hears no workers, and keeps nothing about them.
    let leads = Arc::new(AtomicBool::new(false));
    let effects = {
        let (blocks, leads) = (blocks.clone(), leads.clone());
        Arc::new(move |effects: namespace::apply::Effects| {
            if leads.load(Ordering::Acquire) {
                blocks.committed(&effects.committed);
                blocks.released(&effects.released);
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
    let replica = ReplicaPort::start(replica, state, effects, ports).await?;
    let consensus = Arc::new(replica.clone());
    let view: Arc<dyn NamespaceView> = Arc::new(store.clone());
    let propose = Arc::new(OwnCommands {
        consensus: consensus.clone(),
        clock: ports.clock.clone(),
    });
    let mirror = Arc::new(Mirror::new(view.clone(), propose.clone(), ports.clock.clone()));
    let namespace = NamespacePort::new(namespace::actor::Parts {
        store: store.clone(),
        consensus: consensus.clone(),
        ufs: mirror.clone(),
        placement: blocks.clone(),
        clock: ports.clock.clone(),
        defaults: config.defaults,
    });
    let group = replica.clone();
    let parts = Arc::new(services::Parts {
        node: me,
        started: ports.clock.now(),
        view: view.clone(),
        propose,
        consensus,
        blocks,
        mirror,
        loader: Arc::new(Loader::default()),
        connector: config.workers,
        masters: Arc::new(move || {
            let group = group.clone();
            Box::pin(async move { group.masters().await })
        }),
        ports: ports.clone(),
    });
    actix::spawn(delete_blocks(parts.clone(), orders));
    actix::spawn(follow_leadership(replica.leadership(), parts.clone(), leads));
    Namespace::new(&namespace, replica.leadership()).start();
    let door = MasterDoor {
        namespace,
        services: Services::new(parts).start(),
        replica: replica.clone(),
    };
    Ok(MasterHandle {
        port: Arc::new(door),
        replica,
    })
}

/// Begins and ends what the leader alone does. What it knew of workers when it led before is of no use.
async fn follow_leadership(
    mut leadership: watch::Receiver<Option<u64>>,
    parts: Arc<services::Parts>,
    leads: Arc<AtomicBool>,
) {
    loop {
        let term = *leadership.borrow_and_update();
        leads.store(term.is_some(), Ordering::Release);
        parts.loader.stop();
        match term {
            None => parts.blocks.cluster().forget_everything(),
            Some(_) => {
                if let Err(error) = parts.loader.start(&parts) {
                    tracing::error!(%error, "the jobs that have not ended cannot be taken up");
                }
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
