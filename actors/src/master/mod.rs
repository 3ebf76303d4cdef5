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

use actix::Actor;
use curvine_protocol::{ClusterId, Error, NodeId, Result};
use tokio::sync::mpsc::unbounded_channel;

use self::blocks::BlockMap;
use self::contract::{NamespaceView, Placement};
use self::door::MasterDoor;
use self::namespace::actor::{FileDefaults, Namespace, NamespacePort, OwnCommands};
use self::replica::{OpenState, ReplicaPort};
use self::services::loader::Loader;
use self::services::ufs_view::Mirror;
use self::services::{Services, WorkerConnector, delete_blocks};
use crate::kit::{MasterRef, Ports};

/// What a master is started with.
pub struct MasterConfig {
    pub id: NodeId,
    /// `host:port` under which others reach it.
    pub address: String,
    /// Its own directory, locked by the caller: log, state and snapshots.
    pub directory: PathBuf,
    pub defaults: FileDefaults,
    pub connector: Arc<dyn WorkerConnector>,
}

/// A running master.
pub struct MasterHandle {
    pub port: MasterRef,
    pub cluster: ClusterId,
    replica: ReplicaPort,
}

impl MasterHandle {
    /// Stops taking part; the state is closed cleanly. Calls in flight fail with `Stopping`.
    pub async fn stop(&self) {
        self.replica.stop().await;
    }
}

/// Starts a master in the current arbiter. Answers when it leads and can be asked.
///
/// # Errors
/// `Io` or `NoSpace` naming the directory; `Timeout` if it does not become leader.
pub async fn start(config: MasterConfig, ports: &Ports) -> Result<MasterHandle> {
    let (deletions, orders) = unbounded_channel();
    let blocks = Arc::new(BlockMap::new(ports.clock.clone(), deletions));
    let effects = {
        let blocks = blocks.clone();
        Arc::new(move |effects: namespace::apply::Effects| {
            blocks.committed(&effects.committed);
            blocks.released(&effects.released);
        })
    };
    let state = OpenState::open(&config.directory)?;
    let store = state.store.clone();
    let replica = ReplicaPort::start(
        config.id,
        &config.address,
        &config.directory,
        state,
        effects,
        ports,
    )
    .await?;
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
    let applied = replica.clone();
    let parts = Arc::new(services::Parts {
        node: config.id,
        address: config.address,
        started: ports.clock.now(),
        view: view.clone(),
        propose,
        consensus,
        blocks,
        mirror,
        loader: Arc::new(Loader::default()),
        connector: config.connector,
        applied_index: Arc::new(move || applied.applied_index()),
        ports: ports.clone(),
    });
    actix::spawn(delete_blocks(parts.clone(), orders));
    parts.loader.start(&parts)?;
    let cluster = view
        .cluster()?
        .ok_or_else(|| Error::internal("the cluster has no id after formatting"))?;
    Namespace::new(&namespace).start();
    let door = MasterDoor {
        namespace,
        services: Services::new(parts).start(),
    };
    Ok(MasterHandle {
        port: Arc::new(door),
        cluster,
        replica,
    })
}
