//! The Replica: the Raft group behind one port ([`Consensus`]). The engine is openraft; nothing outside this folder
//! names it.
//!
//! - [`types`]: what openraft is told of us.
//! - [`log`]: log, vote and commit mark in a synced heed environment of their own.
//! - [`state`]: the namespace as openraft's state machine; snapshots.
//! - [`trust`]: whether the state on disk can be believed, or is made again from snapshot and log.
//! - [`network`]: messages between masters.
//!
//! Invariants:
//! - A proposal is answered only after its entry is durable on a majority and applied here.
//! - The log's commits are synced; the state's are not, and it is made again where a power cut may have torn it.
//! - A full disk is an error for the changes that meet it, not the end: some room is kept back, and what was taken in
//!   is written when there is room again.
//! - Commands that wait together travel in one entry, at most [`BATCH_MAX`]; [`ENTRIES_IN_FLIGHT`] entries at a time.

#[cfg(test)]
mod golden;
mod log;
mod network;
mod state;
#[cfg(test)]
mod tests;
mod trust;
mod types;

pub use state::OpenState;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{ClusterId, Error, ErrorKind, NodeId, Result};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::log::LogStore;
use self::network::Network;
use self::state::StateMachine;
use self::types::{Batch, Raft};
use super::contract::Consensus;
use super::namespace::apply::Effects;
use super::namespace::store::Store;
use crate::kit::{Clock, Ports};
use crate::room;

/// Commands in one entry.
const BATCH_MAX: usize = 512;
const ENTRIES_IN_FLIGHT: usize = 2;
/// Commands waiting; one more is `Overloaded`.
const WAITING_MAX: usize = 65_536;
const PROPOSE_DEADLINE: Duration = Duration::from_secs(20);
/// Room on the device that is kept back for what was taken in already, and for dropping the log behind a snapshot: this
/// much, or this part of a small device.
const RESERVE_BYTES: u64 = 32 << 20;
const RESERVE_PART: u64 = 20;
const MEASURE_EVERY: Duration = Duration::from_millis(500);
/// Entries after which a snapshot is taken and the log before it dropped.
const SNAPSHOT_EVERY_ENTRIES: u64 = 100_000;
const LOG_KEPT_ENTRIES: u64 = 10_000;

/// Told what applied commands mean for soft state, after their commit.
pub type EffectSink = Arc<dyn Fn(Effects) + Send + Sync>;

/// The actor: gathers proposals into entries.
pub struct Replica {
    raft: Raft,
    log: LogStore,
    directory: PathBuf,
    waiting: VecDeque<Proposal>,
    in_flight: usize,
    /// Why nothing can be changed now.
    full: Option<Error>,
}

impl Replica {
    fn measure(&mut self) {
        let measured = room::of(&self.directory).map(|(free, all)| {
            let reserve = RESERVE_BYTES.min(all / RESERVE_PART);
            (free < reserve || self.log.is_held_up()).then(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    format!(
                        "the master's disk is full: {free} bytes are left for {} and {reserve} are kept back; nothing \
                         can be changed until there is space",
                        self.directory.display()
                    ),
                )
            })
        });
        let full = measured.unwrap_or_else(Some);
        match (&self.full, &full) {
            (None, Some(error)) => tracing::error!("{error}"),
            (Some(_), None) => tracing::info!("the master's disk has space again"),
            _ => {}
        }
        self.full = full;
    }
}

struct Proposal {
    command: Command,
    reply: oneshot::Sender<Result<OpReply>>,
}

impl Actor for Replica {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(WAITING_MAX);
        self.measure();
        context.run_interval(MEASURE_EVERY, |replica, _| replica.measure());
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Propose(Proposal);

impl Handler<Propose> for Replica {
    type Result = ();

    fn handle(&mut self, propose: Propose, context: &mut Self::Context) {
        // Formatting a master that starts is tiny, and what the reserve is for.
        if let Some(full) = &self.full
            && !matches!(propose.0.command.op, Op::Format { .. })
        {
            let _ = propose.0.reply.send(Err(full.clone()));
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            let full = Error::new(
                ErrorKind::Overloaded,
                format!("{WAITING_MAX} changes are waiting; try again later"),
            );
            let _ = propose.0.reply.send(Err(full));
            return;
        }
        self.waiting.push_back(propose.0);
        if self.in_flight < ENTRIES_IN_FLIGHT {
            // Whatever else is in the mailbox joins the batch: it is sent after this turn.
            context.notify(Flush);
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for Replica {
    type Result = ();

    fn handle(&mut self, _: Flush, context: &mut Self::Context) {
        if self.in_flight >= ENTRIES_IN_FLIGHT || self.waiting.is_empty() {
            return;
        }
        let count = self.waiting.len().min(BATCH_MAX);
        let (commands, replies): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..count)
            .map(|proposal| (proposal.command, proposal.reply))
            .unzip();
        metrics::histogram!("curvine_raft_batch_commands").record(count as f64);
        self.in_flight += 1;
        let raft = self.raft.clone();
        let writing = async move {
            match raft.client_write(Batch(commands)).await {
                Ok(written) => {
                    for (reply, result) in replies.into_iter().zip(written.data.0) {
                        let _ = reply.send(Ok(result));
                    }
                }
                Err(error) => {
                    let error = refused(error);
                    replies
                        .into_iter()
                        .for_each(|reply| drop(reply.send(Err(error.clone()))));
                }
            }
        };
        context.spawn(writing.into_actor(self).map(|(), replica, context| {
            replica.in_flight -= 1;
            if !replica.waiting.is_empty() {
                context.notify(Flush);
            }
        }));
    }
}

fn refused(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Error::not_leader(forward.leader_node.map(|node| node.addr))
        }
        RaftError::APIError(other) => Error::internal(format!("the change was refused: {other}")),
        RaftError::Fatal(Fatal::Stopped) => Error::new(ErrorKind::Stopping, "the master is stopping"),
        RaftError::Fatal(fatal) => Error::new(
            ErrorKind::Io,
            format!("this master's log or state has failed and it must be restarted: {fatal}"),
        ),
    }
}

/// The port of a running Replica.
#[derive(Clone)]
pub struct ReplicaPort {
    address: Addr<Replica>,
    raft: Raft,
    state: StateMachine,
    /// Leader of a group whose only voter is this master: nobody else can have committed anything.
    sole_leader: Arc<AtomicBool>,
}

#[async_trait]
impl Consensus for ReplicaPort {
    async fn propose(&self, command: Command) -> Result<OpReply> {
        let (reply, replied) = oneshot::channel();
        self.address.do_send(Propose(Proposal { command, reply }));
        match timeout(PROPOSE_DEADLINE, replied).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopping, "the master is stopping")),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the change was not committed within {} s; it may be later",
                    PROPOSE_DEADLINE.as_secs()
                ),
            )),
        }
    }

    async fn read_barrier(&self) -> Result<()> {
        if self.sole_leader.load(Ordering::Acquire) {
            return Ok(());
        }
        let barrier = timeout(PROPOSE_DEADLINE, self.raft.ensure_linearizable()).await;
        match barrier {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(openraft::error::CheckIsLeaderError::ForwardToLeader(forward)))) => {
                Err(Error::not_leader(forward.leader_node.map(|node| node.addr)))
            }
            Ok(Err(error)) => Err(Error::new(
                ErrorKind::NotLeader,
                format!("cannot confirm leadership: {error}"),
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "leadership was not confirmed in time",
            )),
        }
    }

    fn is_leader(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }
}

impl ReplicaPort {
    /// Opens the log in `directory/log`, recovers, and becomes leader of a group of one; formats it the first time.
    /// Runs in the current arbiter. Answers when proposals can be made.
    pub async fn start(
        id: NodeId,
        address: &str,
        directory: &Path,
        state: OpenState,
        effects: EffectSink,
        ports: &Ports,
    ) -> Result<ReplicaPort> {
        let config = Config {
            cluster_name: "curvine".to_owned(),
            heartbeat_interval: 100,
            election_timeout_min: 300,
            election_timeout_max: 600,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
            max_in_snapshot_log_to_keep: LOG_KEPT_ENTRIES,
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
        );
        let raft = Raft::new(id.0, Arc::new(config), Network, log.clone(), state.clone())
            .await
            .map_err(fatal)?;
        if !raft.is_initialized().await.map_err(fatal)? {
            let members = std::collections::BTreeMap::from([(id.0, BasicNode::new(address))]);
            raft.initialize(members)
                .await
                .map_err(|e| Error::internal(format!("starting the Raft group: {e}")))?;
        }
        let sole_leader = Arc::new(AtomicBool::new(false));
        watch_leadership(id, &raft, sole_leader.clone());
        raft.trigger().elect().await.map_err(fatal)?;
        let leading = raft.wait(Some(Duration::from_secs(10)));
        leading
            .state(ServerState::Leader, "the only voter leads")
            .await
            .map_err(|e| {
                Error::new(
                    ErrorKind::Timeout,
                    format!("the master did not become leader: {e}"),
                )
            })?;
        let replica = Replica {
            raft: raft.clone(),
            log,
            directory: directory.to_owned(),
            waiting: VecDeque::new(),
            in_flight: 0,
            full: None,
        };
        let port = ReplicaPort {
            address: replica.start(),
            raft,
            state,
            sole_leader,
        };
        port.format(&store, ports).await?;
        Ok(port)
    }

    async fn format(&self, store: &Store, ports: &Ports) -> Result<()> {
        // An own command that is committed also proves that everything before it is applied.
        let cluster =
            ClusterId(u128::from(ports.random.next_u64()) << 64 | u128::from(ports.random.next_u64()));
        let formatted = store.dbs.cluster(&*store.read()?)?;
        let op = curvine_protocol::op::Op::Format {
            cluster: formatted.unwrap_or(cluster),
        };
        self.propose(own_command(op, &*ports.clock)).await.map(|_| ())
    }

    /// Stops taking part. Everything acknowledged is on disk already.
    pub async fn stop(&self) {
        self.sole_leader.store(false, Ordering::Release);
        let _ = timeout(Duration::from_secs(5), self.raft.shutdown()).await;
        if let Err(error) = self.state.close().await {
            tracing::warn!(%error, "the state could not be closed cleanly; it may be made again at the next start");
        }
    }

    /// The index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.raft.metrics().borrow().last_applied.map_or(0, |id| id.index)
    }
}

/// A command of the leader itself.
pub fn own_command(op: curvine_protocol::op::Op, clock: &dyn Clock) -> Command {
    Command {
        client: curvine_protocol::ClientId(0),
        sequence: 0,
        acked_below: 0,
        uid: 0,
        gid: 0,
        time_ns: clock.wall_ns(),
        op,
    }
}

fn watch_leadership(id: NodeId, raft: &Raft, sole_leader: Arc<AtomicBool>) {
    let mut metrics = raft.server_metrics();
    tokio::spawn(async move {
        loop {
            {
                let now = metrics.borrow_and_update();
                let alone = now.membership_config.membership().voter_ids().eq([id.0]);
                sole_leader.store(alone && now.state == ServerState::Leader, Ordering::Release);
            }
            if metrics.changed().await.is_err() {
                sole_leader.store(false, Ordering::Release);
                return;
            }
        }
    });
}

fn fatal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the Raft log or state failed: {error}"))
}
