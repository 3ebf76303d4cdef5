//! A full disk of a master that is not alone: whoever has room leads.
//!
//! The Replica measures the disk and says what it found; this looks at the other voters while it is full. If any of them has
//! room, this master stands for no election, and hands over if it leads. If none has, nothing is gained by another leader:
//! it stays as it is, refuses changes and answers reads.
//!
//! A full disk may stop the Raft core in the middle of a write, so that nobody can be handed over to; the others then elect
//! among themselves, because they hear nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use curvine_protocol::{Error, ErrorKind, NodeId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ReplicaPort;
use super::types::{Raft, Standing};
use crate::master::contract::Consensus;

/// How often the others are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why nothing can be changed on this master now; none while it has room.
pub type Full = watch::Receiver<Option<Error>>;

/// Whether it is known that no other voter has room either. Owned by [`ReplicaPort::yield_while_full`].
#[derive(Clone, Default)]
pub struct NobodyElse(Arc<AtomicBool>);

impl NobodyElse {
    /// What a change is told that comes while the disk is full: to ask another master, who is about to lead, or why not.
    pub fn refusal(&self, full: &Error, raft: &Raft) -> Error {
        let metrics = raft.server_metrics();
        let has_others = metrics
            .borrow()
            .membership_config
            .membership()
            .voter_ids()
            .count()
            > 1;
        if !has_others || self.0.load(Ordering::Acquire) {
            return full.clone();
        }
        let message = format!("another master is to lead: {}", full.message);
        Error::new(ErrorKind::NotLeader, message)
    }
}

/// The other voters that answer, by whether their disks are full.
pub(super) struct Others {
    /// Those that may vote now.
    pub(super) voting: BTreeSet<NodeId>,
    /// How many of them an heir needs, beside this master.
    pub(super) needed: usize,
    pub(super) full: BTreeSet<NodeId>,
    pub(super) with_room: BTreeSet<NodeId>,
}

impl ReplicaPort {
    pub(super) async fn other_voters(&self) -> Others {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let voters: BTreeSet<u64> = membership.membership().voter_ids().collect();
        let asked = membership.nodes().filter(|(id, _)| voters.contains(id));
        let standings = self.network.standings(asked).await.into_iter();
        let answered: Vec<(NodeId, Standing)> = standings
            .filter_map(|(id, standing)| Some((id, standing.ok()?)))
            .collect();
        let those = |which: fn(&Standing) -> bool| {
            let those = answered.iter().filter(|(_, standing)| which(standing));
            those.map(|(id, _)| *id).collect()
        };
        Others {
            voting: those(|standing| standing.votes),
            needed: voters.len() / 2,
            full: those(|standing| standing.full),
            with_room: those(|standing| !standing.full),
        }
    }

    /// Ends with the Replica.
    pub(super) async fn yield_while_full(self) {
        let mut full = self.full.clone();
        loop {
            if full.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let mut told = false;
            while full.borrow().is_some() {
                self.yield_once(&mut told).await;
                if timeout(LOOK_EVERY, full.wait_for(Option::is_none))
                    .await
                    .is_ok_and(|changed| changed.is_err())
                {
                    return;
                }
            }
            self.franchise.abstain(&self.raft, false);
            self.nobody_else.0.store(false, Ordering::Release);
        }
    }

    async fn yield_once(&self, told: &mut bool) {
        let others = self.other_voters().await;
        self.franchise.abstain(&self.raft, !others.with_room.is_empty());
        self.nobody_else
            .0
            .store(others.with_room.is_empty(), Ordering::Release);
        if others.with_room.is_empty() || !self.is_leader() {
            return;
        }
        let first = !std::mem::replace(told, true);
        if let Some(error) = &*self.full.borrow()
            && first
        {
            tracing::error!("this master hands over to one that has room: {error}");
        }
        match self.hand_over(None).await {
            Ok(heir) => tracing::info!("handed over to master {heir}"),
            Err(error) if first => tracing::warn!("nobody was handed over to, trying again: {error}"),
            Err(error) => tracing::debug!(%error, "nobody was handed over to"),
        }
    }
}
