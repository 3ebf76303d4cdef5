//! Who leads, and since when a leader can be asked.
//!
//! Invariant: a leader counts as one only after a command of its own is committed and applied.

use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::op::{Command, Op};
use curvine_protocol::{ClientId, ClusterId, Error, Result};
use openraft::error::Fatal;
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, ServerState};
use tokio::sync::watch;

use super::types::Raft;
use super::{ReplicaPort, has_failed};
use crate::kit::Clock;
use crate::master::contract::Consensus;

/// For a new leader's first own command.
pub(super) const FORMAT_AGAIN: Duration = Duration::from_millis(100);

impl ReplicaPort {
    /// The term in which this master leads and can be asked; none while it does not.
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.leading.clone()
    }

    pub(super) fn not_leader(&self) -> Error {
        not_leader(&self.raft.server_metrics().borrow())
    }

    /// Follows who leads. A leader makes a command of its own first: that it is committed proves that everything before
    /// it is, and is applied; the first of all gives the cluster its id.
    pub(super) async fn watch_leadership(self, lead: watch::Sender<Option<u64>>) {
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
}

/// A command of the leader itself.
pub fn own_command(op: Op, clock: &dyn Clock) -> Command {
    Command {
        client: ClientId(0),
        sequence: 0,
        acked_below: 0,
        uid: 0,
        gid: 0,
        time_ns: clock.wall_ns(),
        op,
        waits: false,
    }
}

/// Returns when this master does not lead, or leads again since; with the refusal of what it had under way.
pub(super) async fn deposed(raft: &Raft) -> Error {
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
