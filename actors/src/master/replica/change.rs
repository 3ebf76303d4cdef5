//! Changes of the group, asked of its leader by operators.

use std::collections::BTreeSet;
use std::time::Duration;

use curvine_protocol::master::{
    AddMaster, OpenBackup, RemoveMaster, SnapshotTaken, TakeSnapshot, TransferLeadership,
};
use curvine_protocol::worker::Done;
use curvine_protocol::{Call, Error, ErrorKind, Result};
use futures::future::BoxFuture;
use openraft::{BasicNode, ChangeMembers};
use tokio::time::{sleep, timeout};

use super::group::ASK_EVERY;
use super::{ReplicaPort, fatal, refused};
use crate::kit::metrics::timed;
use crate::kit::{Answer, Ask, Endpoint};
use crate::master::contract::Consensus;

/// For a newcomer to be brought up, by a snapshot if need be.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(1_800);
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(600);

macro_rules! answers {
    ($($call:ident => $method:ident;)*) => {$(
        impl Endpoint<$call> for ReplicaPort {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                let replica = self.clone();
                Box::pin(timed::<$call, _>(async move {
                    replica.read_barrier().await?;
                    let done = replica.$method(ask.call).await;
                    done.map(Answer::new).map_err(|error| error.while_doing($call::NAME))
                }))
            }
        }
    )*};
}

answers! {
    AddMaster => add;
    RemoveMaster => remove;
    TransferLeadership => transfer;
    TakeSnapshot => take_snapshot;
    OpenBackup => open_backup;
}

impl ReplicaPort {
    /// First a learner, which brings it up; a voter then, by joint consensus.
    async fn add(&self, AddMaster { id, address }: AddMaster) -> Result<Done> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let members = membership.membership();
        let is_voter = members.voter_ids().any(|voter| voter == id.0);
        let known = members.get_node(&id.0).map(|node| node.addr.clone());
        let holder = membership
            .nodes()
            .find(|(_, node)| node.addr == address)
            .map(|(id, _)| *id);
        if is_voter || known.as_ref().is_some_and(|known| *known != address) {
            let known = known.unwrap_or_default();
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("master {id} is of the group already, at {known}; to move one, remove it first"),
            ));
        }
        if let Some(holder) = holder.filter(|holder| *holder != id.0) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{address} is the address of master {holder}"),
            ));
        }
        let way = self.network.way(id, &address);
        way.standing().await.map_err(|error| {
            error.while_doing(format_args!(
                "asking master {id} at {address}; start it first, with --id {id} and --peers that name it and the others"
            ))
        })?;
        let learning = async {
            let node = BasicNode::new(&address);
            self.raft
                .add_learner(id.0, node, true)
                .await
                .map_err(|error| refused(error, &self.raft))?;
            // It must know that it has everything before its vote counts: whose votes the group needs and does not get
            // keeps it from electing the leader that would tell it.
            while !way.standing().await.is_ok_and(|standing| standing.votes) {
                sleep(ASK_EVERY).await;
            }
            Ok(())
        };
        timeout(CATCH_UP_DEADLINE, learning).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("master {id} is a learner and not in step yet; ask again later"),
            ))
        })?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id.0]));
        self.raft
            .change_membership(change, true)
            .await
            .map_err(|error| refused(error, &self.raft))?;
        tracing::info!("master {id} at {address} is a voter now");
        Ok(Done {})
    }

    async fn remove(&self, RemoveMaster { id }: RemoveMaster) -> Result<Done> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let is_voter = membership.membership().voter_ids().any(|voter| voter == id.0);
        if membership.membership().get_node(&id.0).is_none() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no master {id} is of the group; `cv master list` shows those that are"),
            ));
        }
        if id == self.id {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("master {id} leads; `cv master transfer-leader` first"),
            ));
        }
        let ids = BTreeSet::from([id.0]);
        let change = match is_voter {
            true => ChangeMembers::RemoveVoters(ids),
            false => ChangeMembers::RemoveNodes(ids),
        };
        self.raft
            .change_membership(change, false)
            .await
            .map_err(|error| refused(error, &self.raft))?;
        tracing::info!("master {id} is not of the group any more");
        Ok(Done {})
    }

    async fn transfer(&self, TransferLeadership { to }: TransferLeadership) -> Result<Done> {
        if to == Some(self.id) {
            return Ok(Done {});
        }
        if let Some(to) = to
            && !self.others().iter().any(|(id, _)| *id == to)
        {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no master {to} is of the group; `cv master list` shows those that are"),
            ));
        }
        if let Some(to) = to
            && self.other_voters().await.full.contains(&to)
        {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!("the disk of master {to} is full; make room there first"),
            ));
        }
        self.hand_over(to).await.map(|_| Done {})
    }

    async fn take_snapshot(&self, _: TakeSnapshot) -> Result<SnapshotTaken> {
        let upto = self.applied_index();
        self.raft.trigger().snapshot().await.map_err(fatal)?;
        let waiting = self.raft.wait(Some(SNAPSHOT_DEADLINE));
        let taken = waiting.metrics(
            |metrics| metrics.snapshot.is_some_and(|last| last.index >= upto),
            "the snapshot is taken",
        );
        let metrics = taken
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "the snapshot was not taken in time"))?;
        Ok(SnapshotTaken {
            log_index: metrics.snapshot.map_or(0, |last| last.index),
        })
    }
}
