//! Starts a master's Replica, and takes it into its group.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::{Actor, ArbiterHandle};
use curvine_protocol::{ClusterId, Error, ErrorKind, NodeId, Result};
use openraft::{BasicNode, Config, SnapshotPolicy};
use tokio::sync::watch;

use super::backup::Backups;
use super::barrier::PROMISE;
use super::full::NobodyElse;
use super::gather::Replica;
use super::group::{Franchise, Group};
use super::leadership::FORMAT_AGAIN;
use super::length::{LogLength, LogLimits};
use super::log::LogStore;
use super::network::{MasterConnector, Network};
use super::origin::{Origin, known_origin};
use super::state::{OpenState, StateMachine};
use super::types::Raft;
use super::{ELECTION_MAX_MS, ELECTION_MIN_MS, EffectSink, HEARTBEAT_MS, ReplicaPort, fatal};
use crate::kit::Ports;

/// Who makes up the group of masters.
#[derive(Clone, Debug)]
pub struct Members {
    pub me: NodeId,
    /// `host:port` of each at the first start, this one included.
    pub addresses: BTreeMap<NodeId, String>,
}

impl Members {
    pub fn alone(me: NodeId, address: impl Into<String>) -> Self {
        Members {
            me,
            addresses: BTreeMap::from([(me, address.into())]),
        }
    }
}

/// What a Replica is started with.
pub struct ReplicaConfig {
    pub members: Members,
    /// Log, state and snapshots are in it.
    pub directory: PathBuf,
    /// The way to the others.
    pub connector: Arc<dyn MasterConnector>,
    pub limits: LogLimits,
}

impl ReplicaPort {
    /// Opens the log in `directory/log`, recovers, and takes part in the group from then on, in the current arbiter.
    /// What other masters say is to be given to this port at once; [`Self::joined`] says when there is a group.
    pub async fn start(
        arbiter: &ArbiterHandle,
        config: ReplicaConfig,
        state: OpenState,
        effects: EffectSink,
        ports: &Ports,
    ) -> Result<ReplicaPort> {
        let ReplicaConfig {
            members,
            directory,
            connector,
            limits,
        } = config;
        let id = members.me;
        let config = Config {
            cluster_name: "curvine".to_owned(),
            heartbeat_interval: HEARTBEAT_MS,
            election_timeout_min: ELECTION_MIN_MS,
            election_timeout_max: ELECTION_MAX_MS,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_every_entries),
            // What is dropped is dropped by `length`.
            max_in_snapshot_log_to_keep: u64::MAX,
            // It elects when it may: see `group`.
            enable_elect: false,
            ..Config::default()
        };
        let config = config
            .validate()
            .map_err(|e| Error::internal(format!("Raft's configuration: {e}")))?;
        let log = LogStore::open(&directory.join("log"), ports.offload("raft-log"))?;
        let store = state.store.clone();
        let state = StateMachine::new(
            state,
            effects,
            ports.offload("raft-apply"),
            ports.offload("raft-snapshot"),
            ports.clock.clone(),
        );
        let origin: Arc<OnceLock<Origin>> = Arc::default();
        let own_origin = {
            let (origin, store) = (origin.clone(), store.clone());
            Arc::new(move || known_origin(&origin, &store))
        };
        let network = Network::new(
            id,
            own_origin,
            connector,
            ports.offload("raft-send"),
            ports.clock.clone(),
        );
        let raft = Raft::new(
            id.0,
            Arc::new(config),
            network.clone(),
            log.clone(),
            state.clone(),
        )
        .await
        .map_err(fatal)?;
        let has_voted = raft.is_initialized().await.map_err(fatal)?;
        let now = ports.clock.now();
        let promise_over = if has_voted { now + PROMISE } else { now };
        let franchise = Franchise::default();
        let group = Group {
            me: id,
            members: (members.addresses.iter())
                .map(|(id, address)| (id.0, BasicNode::new(address)))
                .collect(),
            raft: raft.clone(),
            log: log.clone(),
            franchise: franchise.clone(),
            network: network.clone(),
            clock: ports.clock.clone(),
            promise_over,
        };
        group.begin().await?;
        let sole_leader = Arc::new(AtomicBool::new(false));
        let nobody_else = NobodyElse::default();
        let (measured, full) = watch::channel(None);
        let replica = Replica::new(
            raft.clone(),
            log.clone(),
            directory,
            measured,
            nobody_else.clone(),
            LogLength::new(limits, store.clone()),
        );
        let (lead, leading) = watch::channel(None);
        let port = ReplicaPort {
            id,
            address: Replica::start_in_arbiter(arbiter, |_| replica),
            raft,
            log,
            state,
            store,
            network,
            ports: ports.clone(),
            receiver: ports.offload("raft-receive"),
            franchise,
            votes_from: Arc::new(Mutex::new(promise_over)),
            barrier: Arc::default(),
            sole_leader,
            leading,
            handing_over: Arc::default(),
            origin,
            backups: Backups::default(),
            full,
            nobody_else,
        };
        tokio::spawn(port.clone().watch_leadership(lead));
        tokio::spawn(port.clone().yield_while_full());
        tokio::spawn(port.clone().join(group));
        Ok(port)
    }

    async fn join(self, group: Group) {
        if let Err(error) = group.join().await {
            if error.kind != ErrorKind::Stopping {
                tracing::error!("joining the group of masters: {error}");
            }
            return;
        }
        let voters = self.raft.metrics().borrow().membership_config.clone();
        if voters.membership().voter_ids().eq([self.id.0]) {
            // Nobody else can lead: there is nothing to wait for.
            let _ = self.raft.trigger().elect().await;
        }
    }

    /// Returns the cluster's id once there is a group with a leader.
    pub async fn joined(&self) -> Result<ClusterId> {
        let (mut metrics, mut leading) = (self.raft.server_metrics(), self.leading.clone());
        let mut said = self.ports.clock.now();
        loop {
            let leader = metrics.borrow_and_update().current_leader;
            // A leader's own first command makes sure that the cluster has an id.
            let serves =
                leader.is_some_and(|leader| leader != self.id.0) || leading.borrow_and_update().is_some();
            match self.cluster() {
                Some(cluster) if serves => return Ok(cluster),
                _ => {}
            }
            if self.ports.clock.now().duration_since(said) > Duration::from_secs(5) {
                said = self.ports.clock.now();
                tracing::warn!("waiting for a majority of the masters; there is no leader yet");
            }
            let ended = tokio::select! {
                changed = metrics.changed() => changed.is_err(),
                changed = leading.changed() => changed.is_err(),
                () = tokio::time::sleep(FORMAT_AGAIN) => false,
            };
            if ended {
                return Err(Error::new(ErrorKind::Stopping, "the master is stopping"));
            }
        }
    }
}
