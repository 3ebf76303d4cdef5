//! The Replica: the Raft group behind one port ([`Consensus`]). The engine is openraft; nothing outside this folder
//! names it.
//!
//! - [`types`]: what openraft is told of us.
//! - [`log`]: log, vote and commit mark in a synced heed environment of their own.
//! - [`state`]: the namespace as openraft's state machine; snapshots.
//! - [`trust`]: whether the state on disk can be believed, or is made again from snapshot and log.
//! - [`network`], [`receive`]: messages between masters, out and in.
//! - [`change`]: changes of the group by operators.
//! - [`group`]: how a master joins its group, and when it may vote.
//! - [`backup`], [`restore`]: the namespace as a file, out and in.
//! - [`full`]: who leads when disks are full.
//! - [`barrier`]: when a leader may answer a read from its own state.
//! - [`length`]: when a snapshot is due, and how much of the log is kept behind it.
//! - [`inspect`]: what can be seen of one master from outside.
//!
//! Invariants:
//! - A proposal is answered only after its entry is durable on a majority and applied here.
//! - The log's commits are synced; the state's are not, and it is made again where a power cut may have torn it.
//! - A full disk is an error for the changes that meet it, not the end: some room is kept back, and what was taken in
//!   is written when there is room again.
//! - Commands that wait together travel in one entry, at most [`BATCH_MAX`]; [`ENTRIES_IN_FLIGHT`] entries at a time.

mod backup;
mod barrier;
mod change;
mod full;
#[cfg(test)]
mod golden;
mod group;
mod inspect;
mod length;
mod log;
mod network;
mod receive;
pub(super) mod restore;
mod state;
#[cfg(test)]
mod tests;
mod trust;
mod types;

pub use inspect::{EntryId, Inspection, LoggedEntry, describe, describe_answer};
pub use length::LogLimits;
pub use network::{MasterConnector, MasterEndpoint, Proxies};
pub use state::OpenState;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use curvine_protocol::cluster::MasterStatus;
use curvine_protocol::codec::encode;
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{ClusterId, Error, ErrorKind, NodeId, Result};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use self::backup::Backups;
use self::barrier::{Barrier, PROMISE};
use self::full::{Full, NobodyElse, Others};
use self::group::{Franchise, Group};
use self::length::LogLength;
use self::log::LogStore;
use self::network::{Network, Way};
use self::state::{RESTORED, StateMachine};
use self::types::{Batch, LogId, Raft};
use super::contract::Consensus;
use super::namespace::apply::Effects;
use super::namespace::store::Store;
use crate::kit::{Clock, Offload, Ports};
use crate::planted::{Bug, is_planted};
use crate::room;

/// Commands in one entry, and their bytes: one more may come on top. An entry travels in one message.
const BATCH_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
const ENTRIES_IN_FLIGHT: usize = 2;
/// Commands waiting; one more is `Overloaded`.
const WAITING_MAX: usize = 65_536;
const PROPOSE_DEADLINE: Duration = Duration::from_secs(20);
/// Room on the device that is kept back for what was taken in already, and for dropping the log behind a snapshot: this
/// much, or this part of a small device.
const RESERVE_BYTES: u64 = 32 << 20;
const RESERVE_PART: u64 = 20;
const MEASURE_EVERY: Duration = Duration::from_millis(500);
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 200;
/// Also how long those who hear a leader vote for nobody else.
const ELECTION_MAX_MS: u64 = 600;
/// For asking a majority whether this master still leads.
const CONFIRM_DEADLINE: Duration = Duration::from_millis(500);
/// For one election among masters that answer.
const ELECTED_IN: Duration = Duration::from_millis(100);
/// For having another master elected.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(2);
/// For a new leader's first own command.
const FORMAT_AGAIN: Duration = Duration::from_millis(100);

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
    full: watch::Sender<Option<Error>>,
    nobody_else: NobodyElse,
    length: LogLength,
}

impl Replica {
    fn measure(&mut self) {
        let measured = room::of(&self.directory).map(|(free, all)| {
            let reserve = reserve_bytes(all);
            (free < reserve || self.log.is_held_up()).then(|| {
                Error::new(
                    ErrorKind::NoSpace,
                    format!(
                        "the master's disk is full: {free} bytes are left for {} and {reserve} are kept back; it \
                         takes no changes until there is space",
                        self.directory.display()
                    ),
                )
            })
        });
        let full = measured.unwrap_or_else(Some);
        match (&*self.full.borrow(), &full) {
            (None, Some(error)) => tracing::error!("{error}"),
            (Some(_), None) => tracing::info!("the master's disk has space again"),
            _ => {}
        }
        self.full.send_replace(full);
    }
}

/// What is kept back of a device with so many bytes.
fn reserve_bytes(all_bytes: u64) -> u64 {
    RESERVE_BYTES.min(all_bytes / RESERVE_PART)
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
        context.run_interval(MEASURE_EVERY, |replica, context| {
            replica.measure();
            if let Some(step) = replica.length.next_step(&replica.log, &replica.raft) {
                context.spawn(step.take(replica.raft.clone()).into_actor(replica));
            }
        });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Propose(Proposal);

impl Handler<Propose> for Replica {
    type Result = ();

    fn handle(&mut self, propose: Propose, context: &mut Self::Context) {
        // Formatting a master that starts is tiny, and what the reserve is for.
        if let Some(full) = &*self.full.borrow()
            && !matches!(propose.0.command.op, Op::Format { .. })
        {
            let refusal = self.nobody_else.refusal(full, &self.raft);
            let _ = propose.0.reply.send(Err(refusal));
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
        let mut bytes = 0;
        let fits = |proposal: &&Proposal| {
            let had = bytes;
            bytes += encode(&proposal.command).len();
            had < BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take(BATCH_MAX).take_while(fits).count();
        let (commands, replies): (Vec<_>, Vec<_>) = self
            .waiting
            .drain(..count)
            .map(|proposal| (proposal.command, proposal.reply))
            .unzip();
        metrics::histogram!("curvine_raft_batch_commands").record(count as f64);
        self.in_flight += 1;
        let raft = self.raft.clone();
        let writing = async move {
            let written = tokio::select! {
                written = raft.client_write(Batch(commands)) => written.map_err(|error| refused(error, &raft)),
                // What becomes of the entry is the next leader's to say. Whoever asks it again, under the same sequence,
                // learns that.
                error = deposed(&raft) => Err(error),
            };
            match written {
                Ok(written) => {
                    for (reply, result) in replies.into_iter().zip(written.data.0) {
                        let _ = reply.send(Ok(result));
                    }
                }
                Err(error) => {
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

/// Returns when this master does not lead, or leads again since; with the refusal of what it had under way.
async fn deposed(raft: &Raft) -> Error {
    let mut metrics = raft.server_metrics();
    let vote = metrics.borrow().vote;
    let changed = metrics.wait_for(|now| now.state != ServerState::Leader || now.vote != vote);
    changed
        .await
        .map_or(Error::not_leader(None), |now| not_leader(&now))
}

/// A refusal that names whoever else leads, if that is known.
fn not_leader(now: &RaftServerMetrics<u64, BasicNode>) -> Error {
    let leader = now.current_leader.filter(|leader| *leader != now.id);
    let node = leader.and_then(|leader| now.membership_config.membership().get_node(&leader));
    Error::not_leader(node.map(|node| node.addr.clone()))
}

fn refused(error: RaftError<u64, ClientWriteError<u64, BasicNode>>, raft: &Raft) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Error::not_leader(forward.leader_node.map(|node| node.addr))
        }
        RaftError::APIError(other) => Error::internal(format!("the change was refused: {other}")),
        RaftError::Fatal(Fatal::Stopped) => Error::new(ErrorKind::Stopping, "the master is stopping"),
        RaftError::Fatal(fatal) => {
            let membership = raft.metrics().borrow().membership_config.clone();
            // The others of a group go on, and whoever leads them says what became of the change.
            let kind = match membership.membership().voter_ids().count() {
                1 => ErrorKind::Io,
                _ => ErrorKind::NotLeader,
            };
            Error::new(kind, has_failed(&fatal))
        }
    }
}

fn has_failed(fatal: &Fatal<u64>) -> String {
    format!("this master's log or state has failed and it must be restarted: {fatal}")
}

/// The port of a running Replica.
#[derive(Clone)]
pub struct ReplicaPort {
    id: NodeId,
    address: Addr<Replica>,
    raft: Raft,
    log: LogStore,
    state: StateMachine,
    store: Store,
    network: Network,
    ports: Ports,
    /// Writes what arrives of other masters' snapshots.
    receiver: Arc<dyn Offload>,
    franchise: Franchise,
    /// When what this master promised before it was started is over.
    votes_from: Arc<Mutex<Instant>>,
    barrier: Arc<Barrier>,
    /// Leader of a group whose only voter is this master: nobody else can have committed anything.
    sole_leader: Arc<AtomicBool>,
    /// The term in which this master leads, and has applied everything from before.
    leading: watch::Receiver<Option<u64>>,
    /// It leads and is about to stop: it answers nobody as a leader any more.
    handing_over: Arc<AtomicBool>,
    origin: Arc<OnceLock<Origin>>,
    backups: Backups,
    full: Full,
    nobody_else: NobodyElse,
}

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

#[async_trait]
impl Consensus for ReplicaPort {
    async fn propose(&self, command: Command) -> Result<OpReply> {
        if self.handing_over.load(Ordering::Acquire) {
            return Err(self.not_leader());
        }
        let guess = match is_planted(Bug::ReplyBeforeCommit) && self.is_leader() {
            true => Some(self.guess(command.clone())?),
            false => None,
        };
        let (reply, replied) = oneshot::channel();
        self.address.do_send(Propose(Proposal { command, reply }));
        if let Some(guess) = guess {
            return Ok(guess);
        }
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
        if !self.is_leader() {
            return Err(self.not_leader());
        }
        if is_planted(Bug::OldLeaderReads) {
            return Ok(());
        }
        self.barrier.pass(&self.raft, &*self.ports.clock).await
    }

    fn is_leader(&self) -> bool {
        self.leading.borrow().is_some() && !self.handing_over.load(Ordering::Acquire)
    }

    fn members(&self) -> Vec<String> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        membership.nodes().map(|(_, node)| node.addr.clone()).collect()
    }
}

impl ReplicaPort {
    /// Opens the log in `directory/log`, recovers, and takes part in the group from then on, in the current arbiter. What
    /// other masters say is to be given to this port at once; [`Self::joined`] says when there is a group.
    pub async fn start(
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
        );
        let origin: Arc<OnceLock<Origin>> = Arc::default();
        let own_origin = {
            let (origin, store) = (origin.clone(), store.clone());
            Arc::new(move || known_origin(&origin, &store))
        };
        let network = Network::new(id, own_origin, connector, ports.offload("raft-send"));
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
            promise_over,
        };
        group.begin().await?;
        let sole_leader = Arc::new(AtomicBool::new(false));
        let nobody_else = NobodyElse::default();
        let (measured, full) = watch::channel(None);
        let replica = Replica {
            raft: raft.clone(),
            log: log.clone(),
            directory,
            waiting: VecDeque::new(),
            in_flight: 0,
            full: measured,
            nobody_else: nobody_else.clone(),
            length: LogLength::new(limits, store.clone()),
        };
        let (lead, leading) = watch::channel(None);
        let port = ReplicaPort {
            id,
            address: replica.start(),
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

    /// The term in which this master leads and can be asked; none while it does not.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.leading.clone()
    }

    fn not_leader(&self) -> Error {
        not_leader(&self.raft.server_metrics().borrow())
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.origin().map(|origin| origin.cluster)
    }

    fn origin(&self) -> Option<Origin> {
        known_origin(&self.origin, &self.store)
    }

    /// What the reply would be now: for a planted bug.
    fn guess(&self, command: Command) -> Result<OpReply> {
        let mut txn = self.store.write()?;
        let mut replies = self
            .store
            .apply(&mut txn, vec![command], &mut Effects::default())?;
        replies
            .pop()
            .ok_or_else(|| Error::internal("one command has one reply"))
    }

    /// Follows who leads. A leader makes a command of its own first: that it is committed proves that everything before
    /// it is, and is applied; the first of all gives the cluster its id.
    async fn watch_leadership(self, lead: watch::Sender<Option<u64>>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (term, is_leader, is_alone) = {
                let now = metrics.borrow_and_update();
                let is_alone = now.membership_config.membership().voter_ids().eq([self.id.0]);
                (
                    now.vote.leader_id().term,
                    now.state == ServerState::Leader,
                    is_alone,
                )
            };
            let led = *lead.borrow();
            // Not before its first command: see above.
            self.sole_leader
                .store(is_leader && is_alone && led == Some(term), Ordering::Release);
            if !is_leader && led.is_some() {
                tracing::info!("this master leads no more");
                lead.send_replace(None);
            }
            if is_leader && led != Some(term) {
                match self.format().await {
                    Ok(()) => {
                        tracing::info!(term, "this master leads");
                        lead.send_replace(Some(term));
                        continue;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the first command of this leader was not committed");
                        tokio::time::sleep(FORMAT_AGAIN).await;
                        if metrics.has_changed().is_ok() {
                            continue;
                        }
                    }
                }
            }
            if metrics.changed().await.is_err() {
                self.sole_leader.store(false, Ordering::Release);
                lead.send_replace(None);
                match &self.raft.metrics().borrow().running_state {
                    Ok(()) | Err(Fatal::Stopped) => {}
                    Err(fatal) => tracing::error!("{}", has_failed(fatal)),
                }
                return;
            }
        }
    }

    async fn format(&self) -> Result<()> {
        let random = || u128::from(self.ports.random.next_u64());
        let cluster = ClusterId(random() << 64 | random());
        let op = Op::Format {
            cluster: self.cluster().unwrap_or(cluster),
        };
        self.propose(own_command(op, &*self.ports.clock))
            .await
            .map(|_| ())
    }

    /// The masters of the group, as far as the others answer.
    pub async fn masters(&self) -> Vec<MasterStatus> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let leader = self.raft.metrics().borrow().current_leader;
        let voters: Vec<u64> = membership.membership().voter_ids().collect();
        let members: Vec<_> = membership
            .nodes()
            .map(|(id, node)| (*id, node.addr.clone()))
            .collect();
        let asked = members.into_iter().map(|(id, address)| {
            let (leads, is_voter) = (leader == Some(id), voters.contains(&id));
            async move {
                // How far it is, and whether it votes.
                let known = match id == self.id.0 {
                    true => Some((self.applied_index(), self.franchise.is_full())),
                    false => {
                        let standing = self.network.way(NodeId(id), &address).standing().await;
                        standing.ok().map(|standing| (standing.applied, standing.votes))
                    }
                };
                let votes = is_voter && known.is_none_or(|(_, votes)| votes);
                let role = match (leads, votes) {
                    (true, _) => "leader",
                    (false, true) => "follower",
                    (false, false) => "learner",
                };
                MasterStatus {
                    id: NodeId(id),
                    address,
                    role: role.to_owned(),
                    applied_index: known.map_or(0, |(applied, _)| applied),
                    is_reachable: known.is_some(),
                }
            }
        });
        futures::future::join_all(asked).await
    }

    /// A leader that is about to stop has another master elected first.
    pub async fn retire(&self) {
        if !self.is_leader() || self.sole_leader.load(Ordering::Acquire) {
            return;
        }
        match self.hand_over(None).await {
            Ok(heir) => tracing::info!("handed over to master {heir}"),
            Err(error) => tracing::warn!("nobody was handed over to: {error}"),
        }
    }

    /// Everybody who hears a leader has promised not to vote for a while. Whoever stands for election is free of that, so
    /// all others stand at this leader's word, the heir last; and once more, if one of them has the higher vote in the same
    /// term. One that was asked for by name stands alone first: its own vote and this leader's are a majority of three, and
    /// nobody wins against it.
    async fn elect_another(&self, to: Option<NodeId>, among: &Others) -> Result<NodeId> {
        let heir = self.heir(to, among).await;
        let (heirs, others): (Vec<_>, Vec<_>) = self.others().into_iter().partition(|(id, _)| *id == heir);
        let all_others_stand = async || {
            let told = futures::future::join_all(others.iter().map(|(_, way)| way.elect(false)));
            for error in told.await.into_iter().filter_map(Result::err) {
                tracing::debug!(%error, "a master was not told that this one leads no more");
            }
        };
        if to.is_none() {
            all_others_stand().await;
        }
        let mut metrics = self.raft.server_metrics();
        let mut again = false;
        loop {
            for (_, way) in &heirs {
                way.elect(again).await?;
            }
            let led = metrics.wait_for(|now| now.current_leader.is_some_and(|leader| leader != self.id.0));
            let leads = match timeout(ELECTED_IN, led).await {
                Ok(Ok(now)) => Some(now.current_leader.map(NodeId)),
                Ok(Err(error)) => return Err(fatal(error)),
                Err(_) => None,
            };
            match leads {
                Some(Some(leader)) if to.is_none_or(|to| to == leader) => return Ok(leader),
                // It knows better how to hand over to whom was asked for.
                Some(_) => break,
                None => {
                    if to.is_some() && !again {
                        all_others_stand().await;
                    }
                    again = true;
                }
            }
        }
        Err(self.not_leader())
    }

    /// The voter that is asked for, or the one with the highest id, once it has everything this leader has. One whose disk is
    /// full only if no other answers that has room.
    async fn heir(&self, to: Option<NodeId>, others: &Others) -> NodeId {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let now = metrics.borrow_and_update();
                let voters: Vec<u64> = now.membership_config.membership().voter_ids().collect();
                let has_all = |(id, matched): &(&u64, &Option<LogId>)| {
                    **id != self.id.0
                        && to.is_none_or(|to| to.0 == **id)
                        && others.voting.contains(&NodeId(**id))
                        && (others.with_room.is_empty() || !others.full.contains(&NodeId(**id)))
                        && voters.contains(id)
                        && matched.map(|log_id| log_id.index) == now.last_log_index
                };
                let replication = now.replication.as_ref();
                let heir = replication.and_then(|of| of.iter().filter(has_all).map(|(id, _)| *id).max());
                if let Some(heir) = heir {
                    return NodeId(heir);
                }
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn others(&self) -> Vec<(NodeId, Way)> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        self.network.others(membership.nodes()).collect()
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

/// Whose history a master has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub cluster: ClusterId,
    /// When the namespace was restored from a backup; 0 = never.
    pub restored_ns: i64,
}

fn known_origin(known: &OnceLock<Origin>, store: &Store) -> Option<Origin> {
    if let Some(origin) = known.get() {
        return Some(*origin);
    }
    let txn = store.read().ok()?;
    let cluster = store.dbs.cluster(&txn).ok()??;
    let restored_ns = store.dbs.meta_record(&txn, RESTORED).ok()?.unwrap_or(0);
    Some(*known.get_or_init(|| Origin { cluster, restored_ns }))
}

fn fatal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the Raft log or state failed: {error}"))
}
