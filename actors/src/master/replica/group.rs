//! How a master becomes part of its group, and when it may vote.
//!
//! The masters that are named at the first start make the group together, once each of them has heard all the others and
//! nobody has anything yet. A master without a log whose group has one has lost it: it may have been in the majority of
//! what was acknowledged, so it takes entries and votes for nobody until it has everything again that its leader had when
//! it came back. That it is on this way is noted in the log, in case it restarts meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use futures::future::join_all;
use openraft::BasicNode;
use tokio::time::{Instant, sleep, sleep_until};

use super::fatal;
use super::log::LogStore;
use super::network::{Network, Way};
use super::types::{Raft, Standing};
use crate::planted::{Bug, is_planted};

pub(super) const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often it is said what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Whether this master may vote and stand for election. All clones are one.
#[derive(Clone, Default)]
pub struct Franchise(Arc<Mutex<Rights>>);

#[derive(Clone, Copy, Default)]
struct Rights {
    stage: u8,
    /// It leaves elections to others, which have room on their disks.
    abstains: bool,
}

const UNDECIDED: u8 = 0;
const CATCHING_UP: u8 = 1;
const FULL: u8 = 2;

impl Franchise {
    pub fn is_full(&self) -> bool {
        self.stage() == FULL
    }

    /// Whether it is known if this master has lost what it had: it takes nothing in before.
    pub fn is_decided(&self) -> bool {
        self.stage() != UNDECIDED
    }

    /// Leaves elections to others, or not any more.
    pub fn abstain(&self, raft: &Raft, abstains: bool) {
        self.change(raft, |rights| rights.abstains = abstains);
    }

    fn stage(&self) -> u8 {
        self.rights().stage
    }

    fn set(&self, raft: &Raft, to: u8) {
        self.change(raft, |rights| rights.stage = to);
    }

    /// Nobody else says whether it elects.
    fn change(&self, raft: &Raft, change: impl FnOnce(&mut Rights)) {
        let mut rights = self.rights();
        change(&mut rights);
        raft.runtime_config()
            .elect(rights.stage == FULL && !rights.abstains);
    }

    fn rights(&self) -> MutexGuard<'_, Rights> {
        self.0.lock().expect("nobody panics while it holds this")
    }
}

/// What a starting master knows of its group.
pub struct Group {
    pub me: NodeId,
    /// All of it, this master included, by address.
    pub members: BTreeMap<u64, BasicNode>,
    pub raft: Raft,
    pub log: LogStore,
    pub franchise: Franchise,
    pub network: Network,
    /// When what this master promised a leader before it was started is over. It stands for no election before.
    pub promise_over: Instant,
}

impl Group {
    /// Before anybody is answered: what is known without asking.
    pub async fn begin(&self) -> Result<()> {
        let is_member = self.raft.is_initialized().await.map_err(fatal)?;
        let to = match (self.log.is_catching_up()?, is_member) {
            (true, _) => CATCHING_UP,
            (false, true) => FULL,
            (false, false) => UNDECIDED,
        };
        self.franchise.rights().stage = to;
        Ok(())
    }

    /// Joins or makes the group. Ends when this master may vote.
    pub async fn join(&self) -> Result<()> {
        if self.members.len() == 1 && !self.franchise.is_full() {
            self.make().await;
        }
        if self.franchise.is_full() {
            let membership = self.raft.metrics().borrow().membership_config.clone();
            if !membership.membership().voter_ids().eq([self.me.0]) {
                sleep_until(self.promise_over).await;
            }
            self.franchise.set(&self.raft, FULL);
        }
        let others: Vec<Way> = self.network.others(&self.members).map(|(_, way)| way).collect();
        let mut said = Instant::now();
        while !self.franchise.is_decided() {
            self.goes_on().await?;
            let standings: Vec<Result<Standing>> = join_all(others.iter().map(Way::standing)).await;
            if standings.iter().flatten().any(|standing| !standing.is_fresh()) {
                if is_planted(Bug::EmptyLogVotes) {
                    self.franchise.set(&self.raft, FULL);
                    break;
                }
                tracing::warn!(
                    "this master has no log and its group has one: it catches up, and votes for nobody until then"
                );
                self.log.set_catching_up(true).await?;
                self.franchise.set(&self.raft, CATCHING_UP);
            } else if standings.iter().all(Result::is_ok) {
                self.make().await;
            } else {
                if said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    for error in standings.iter().filter_map(|standing| standing.as_ref().err()) {
                        tracing::warn!("the group begins when all of it is there; waiting: {error}");
                    }
                }
                sleep(ASK_EVERY).await;
            }
        }
        while !self.franchise.is_full() {
            self.goes_on().await?;
            self.catch_up().await?;
        }
        Ok(())
    }

    /// An error once this master is stopping.
    async fn goes_on(&self) -> Result<()> {
        let stopping = |_| Error::new(ErrorKind::Stopping, "the master is stopping");
        self.raft.is_initialized().await.map_err(stopping).map(|_| ())
    }

    async fn make(&self) {
        let made = self.raft.initialize(self.members.clone()).await;
        if let Err(error) = made {
            // Entries of a leader may have come first: those name the group as well.
            tracing::debug!(%error, "the group is there already");
        }
        self.franchise.set(&self.raft, FULL);
    }

    /// Until this master has what its leader had when it was asked.
    async fn catch_up(&self) -> Result<()> {
        // The group may be another by now than the one that was named to this master.
        let mut members = self.members.clone();
        let membership = self.raft.metrics().borrow().membership_config.clone();
        members.extend(membership.nodes().map(|(id, node)| (*id, node.clone())));
        let others: Vec<Way> = self.network.others(&members).map(|(_, way)| way).collect();
        let standings: Vec<Result<Standing>> = join_all(others.iter().map(Way::standing)).await;
        let leader = standings.into_iter().flatten().find(|standing| standing.leads);
        let Some(goal) = leader.and_then(|leader| leader.last_log) else {
            sleep(ASK_EVERY).await;
            return Ok(());
        };
        let there = self.raft.wait(Some(SAY_EVERY));
        let there = there
            .applied_index_at_least(Some(goal), "what the leader had")
            .await;
        if there.is_ok() {
            // After every append before it, on the same thread: what the leader had is on disk then.
            self.log.set_catching_up(false).await?;
            self.franchise.set(&self.raft, FULL);
            tracing::info!(upto = goal, "this master has caught up");
        }
        Ok(())
    }
}
