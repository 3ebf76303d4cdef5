//! Handing over: a leader has another master lead in its place.
//!
//! Invariant: from the first word of it to its end the leader answers nobody as one, and its lease is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use tokio::time::timeout;

use super::full::Others;
use super::types::LogId;
use super::{ReplicaPort, fatal};
use crate::master::contract::Consensus;

/// For one election among masters that answer.
const ELECTED_IN: Duration = Duration::from_millis(100);
/// For having another master elected.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(2);

impl ReplicaPort {
    /// Has another master lead. It is in step before it is told.
    pub(super) async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId> {
        let others = self.other_voters().await;
        if others.voting.len() < others.needed {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "nobody else can be elected now: {} of the other masters vote and {} are needed; `cv master list` \
                     shows which are down or catch up",
                    others.voting.len(),
                    others.needed
                ),
            ));
        }
        if let Some(to) = to.filter(|to| !others.voting.contains(to)) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("master {to} cannot be elected now: it is down, or has not caught up with its group"),
            ));
        }
        // Its lease ends here: what another leader acknowledges is read nowhere else.
        self.handing_over.store(true, Ordering::Release);
        self.barrier.release(self.ports.clock.now());
        let handed = timeout(HAND_OVER_DEADLINE, self.elect_another(to, &others)).await;
        // If it goes on to lead, it has to ask the others afresh.
        self.barrier.release(self.ports.clock.now());
        self.handing_over.store(false, Ordering::Release);
        handed.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                "no other master was in step and elected in time",
            ))
        })
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

    /// Everybody who hears a leader has promised not to vote for a while. Whoever stands for election is free of that,
    /// so all others stand at this leader's word, the heir last; and once more, if one of them has the higher vote in
    /// the same term. One that was asked for by name stands alone first: its own vote and this leader's are a majority
    /// of three, and nobody wins against it.
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

    /// The voter that is asked for, or the one with the highest id, once it has everything this leader has. One whose
    /// disk is full only if no other answers that has room.
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
}
