//! The Replica: the Raft group behind one port ([`Consensus`]). The engine is openraft; nothing outside this folder
//! names it.
//!
//! - [`start`], [`origin`]: how a master begins, and whose history it has.
//! - [`gather`]: the actor, which gathers waiting commands into one entry.
//! - [`leadership`], [`hand_over`]: who leads and can be asked; having another lead.
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
//! - The log is synced; the state's are not, and it is made again where a power cut may have torn it.
//! - A full disk is an error for the changes that meet it, not the end: some room is kept back, and what was taken in
//!   is written when there is room again.

mod backup;
mod barrier;
mod change;
mod full;
mod gather;
#[cfg(test)]
mod golden;
mod group;
mod hand_over;
mod inspect;
mod journal;
mod leadership;
mod length;
mod log;
#[cfg(test)]
mod log_model;
mod network;
mod origin;
mod receive;
pub(super) mod restore;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod trust;
mod types;

pub use gather::Replica;
pub use inspect::{EntryId, Inspection, LoggedEntry, describe, describe_answer};
pub use leadership::own_command;
pub use length::LogLimits;
pub use network::{MasterConnector, MasterEndpoint, Proxies};
pub use origin::Origin;
pub use start::{Members, ReplicaConfig};
pub use state::OpenState;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::Addr;
use async_trait::async_trait;
use curvine_protocol::cluster::{MasterRole, MasterStatus};
use curvine_protocol::op::{Command, OpReply};
use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use openraft::BasicNode;
use openraft::error::{ClientWriteError, Fatal, RaftError};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use self::backup::Backups;
use self::barrier::Barrier;
use self::full::{Full, NobodyElse};
use self::gather::{Proposal, Propose};
use self::group::Franchise;
use self::log::LogStore;
use self::network::{Network, Way};
use self::state::StateMachine;
use self::types::Raft;
use super::contract::Consensus;
use super::namespace::apply::Effects;
use super::namespace::store::Store;
use crate::kit::{Offload, Ports};
use crate::planted::{Bug, is_planted};

const PROPOSE_DEADLINE: Duration = Duration::from_secs(20);
const HEARTBEAT_MS: u64 = 100;
const ELECTION_MIN_MS: u64 = 200;
/// Also how long those who hear a leader vote for nobody else.
const ELECTION_MAX_MS: u64 = 600;
/// For asking a majority whether this master still leads.
const CONFIRM_DEADLINE: Duration = Duration::from_millis(500);

/// Told what applied commands mean for soft state, after their commit.
pub type EffectSink = Arc<dyn Fn(Effects) + Send + Sync>;

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
                    (true, _) => MasterRole::Leader,
                    (false, true) => MasterRole::Follower,
                    (false, false) => MasterRole::Learner,
                };
                MasterStatus {
                    id: NodeId(id),
                    address,
                    role,
                    applied_index: known.map_or(0, |(applied, _)| applied),
                    is_reachable: known.is_some(),
                }
            }
        });
        futures::future::join_all(asked).await
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

fn fatal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("the Raft log or state failed: {error}"))
}
