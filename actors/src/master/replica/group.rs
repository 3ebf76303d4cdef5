//! How a master becomes part of its group, and when it may vote.
//!
//! The masters that are named at the first start make the group together, once each of them has heard all the others and
//! nobody has anything yet. A master without a log whose group has one may have lost it, with what it promised in votes and
//! with entries that were acknowledged on its word. It comes back in two steps, and votes for nobody until the second is done:
//!
//! 1. It takes entries from nobody before it knows a vote as high as any that it can have given ([`lost_votes`]), and takes
//!    that for its own. Otherwise a leader of long ago, which has not heard that it was replaced with this master's vote,
//!    could have its entries acknowledged by it.
//! 2. It takes entries until it has everything that its leader had when it came back.
//!
//! Where it is on this way is in the log, in case it restarts meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::{Error, ErrorKind, NodeId, Result};
use openraft::BasicNode;
use openraft::raft::VoteRequest;
use tokio::time::{Instant, sleep, sleep_until};

use super::log::LogStore;
use super::network::Network;
use super::types::{LogId, Membership, Raft, Standing, Vote};
use super::{ELECTION_MAX_MS, fatal};
use crate::kit::Clock;
use crate::planted::{Bug, is_planted};

pub(super) const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often it is said what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// From its start, a master that lost its votes waits for so long before it asks the others for theirs: who was elected with
/// its vote of before has been, then. A candidate takes no answer that is older than an election ([`super::network::Way`] sees to that).
const OLD_VOTES_COUNTED: Duration = Duration::from_millis(2 * ELECTION_MAX_MS);

/// Whether this master may take entries, vote and stand for election. All clones are one.
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

    /// Whether it is known what this master has lost, and which votes it can have given: it takes nothing in before.
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
    pub clock: Arc<dyn Clock>,
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
        self.decide().await?;
        while !self.franchise.is_full() {
            self.goes_on().await?;
            self.catch_up().await?;
        }
        Ok(())
    }

    /// Makes the group, or finds out what this master has lost.
    async fn decide(&self) -> Result<()> {
        let asks_from = self.clock.now() + OLD_VOTES_COUNTED;
        let mut members = self.members.clone();
        let mut said = self.clock.now();
        while !self.franchise.is_decided() {
            self.goes_on().await?;
            let asked = self.clock.now();
            let standings = self.network.standings(&members).await;
            let heard = || {
                standings
                    .iter()
                    .filter_map(|(id, standing)| Some((*id, standing.as_ref().ok()?)))
            };
            let waits_for = if heard().any(|(_, standing)| !standing.is_fresh()) {
                if is_planted(Bug::EmptyLogVotes) {
                    self.franchise.set(&self.raft, FULL);
                    break;
                }
                if is_planted(Bug::ForgetsLostVotes) {
                    self.take_for_own(Vote::default()).await?;
                    break;
                }
                let groups = heard().filter_map(|(_, standing)| standing.group.as_ref());
                members.extend(
                    groups
                        .flat_map(Membership::nodes)
                        .map(|(id, node)| (*id, node.clone())),
                );
                let words = heard()
                    .filter_map(|(id, standing)| Some((id.0, standing.word()?)))
                    .collect();
                match lost_votes(self.me.0, &words) {
                    Some(lost) if asked >= asks_from => {
                        self.take_for_own(lost).await?;
                        break;
                    }
                    _ => {
                        "this master has no log and its group has one; it takes part again when enough of the others say what they voted"
                    }
                }
            } else if standings.iter().all(|(_, standing)| standing.is_ok()) {
                self.make().await;
                break;
            } else {
                "the group begins when all of it is there"
            };
            if self.clock.now().duration_since(said) >= SAY_EVERY {
                said = self.clock.now();
                tracing::warn!("{waits_for}");
                for (id, standing) in &standings {
                    match standing {
                        Err(error) => tracing::warn!("waiting: {error}"),
                        Ok(standing) if standing.is_fresh() || !standing.votes => {
                            tracing::warn!("waiting: master {id} has not caught up itself");
                        }
                        Ok(standing) if standing.vote.is_none() => {
                            tracing::warn!(
                                "waiting: master {id} runs an earlier build, which does not say what it voted"
                            );
                        }
                        Ok(_) => {}
                    }
                }
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Whatever this master promised before, it promises again.
    async fn take_for_own(&self, lost: Vote) -> Result<()> {
        tracing::warn!(
            term = lost.leader_id.term,
            "this master has no log and its group has one: it catches up, and votes for nobody until then"
        );
        let own = promise_to_another(self.me.0, lost);
        self.log.set_catching_up(own).await?;
        // The log has it; openraft is told by a vote that nobody asked for, and nobody hears of. It is refused if this
        // master has seen a higher one.
        let asked = VoteRequest::new(own, Some(LogId::new(*own.leader_id(), u64::MAX)));
        self.raft.vote(asked).await.map_err(fatal)?;
        self.franchise.set(&self.raft, CATCHING_UP);
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
        let promised = self.raft.metrics().borrow().vote;
        // One that this master takes entries from.
        let leads = |standing: &Standing| standing.leads && standing.vote.is_none_or(|vote| vote >= promised);
        let standings = self.network.standings(&members).await;
        let leader = standings
            .into_iter()
            .filter_map(|(_, standing)| standing.ok())
            .find(leads);
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
            self.log.set_caught_up().await?;
            self.franchise.set(&self.raft, FULL);
            tracing::info!(upto = goal, "this master has caught up");
        }
        Ok(())
    }
}

/// A vote as high as any that master `me` can have given, and as the term of any entry that it can have acknowledged, before
/// it lost them; none while too few of the others have given their word.
///
/// Whoever was elected with its vote, and whatever was committed with its acknowledgement, had a majority of the voters. So
/// at least `n / 2` of the others among `n` voters have that vote or a higher one, and every set of `n - n / 2` of the others
/// has one of those. That goes for the voters of the latest group that any of these knows: a group takes over only after a
/// majority of the one before it has heard of it, and whoever is elected from then on has a majority of the new one.
fn lost_votes(me: u64, words: &BTreeMap<u64, (Vote, &Membership)>) -> Option<Vote> {
    let (_, latest) = words.values().max_by_key(|(_, group)| *group.log_id())?;
    let have_enough = |voters: &BTreeSet<u64>| {
        let heard = voters
            .iter()
            .filter(|id| **id != me && words.contains_key(id))
            .count();
        heard >= voters.len() - voters.len() / 2
    };
    if !latest.membership().get_joint_config().iter().all(have_enough) {
        return None;
    }
    let votes = words.values().map(|(vote, _)| *vote);
    votes.max_by_key(|vote| *vote.leader_id())
}

/// The promise not to follow anybody below that vote. It is another's: openraft takes its own vote for its candidacy.
fn promise_to_another(me: u64, vote: Vote) -> Vote {
    let leader = vote.leader_id();
    let other = if leader.node_id == me {
        me + 1
    } else {
        leader.node_id
    };
    Vote::new(leader.term, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(index: u64, configs: &[&[u64]]) -> Membership {
        let configs: Vec<BTreeSet<u64>> = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
        let ids: BTreeSet<u64> = configs.iter().flatten().copied().collect();
        let nodes: BTreeMap<u64, BasicNode> = ids.into_iter().map(|id| (id, BasicNode::default())).collect();
        let id = LogId::new(openraft::CommittedLeaderId::new(1, 1), index);
        Membership::new(Some(id), openraft::Membership::new(configs, nodes))
    }

    fn lost(me: u64, words: &[(u64, Vote, &Membership)]) -> Option<Vote> {
        let words = words
            .iter()
            .map(|(id, vote, group)| (*id, (*vote, *group)))
            .collect();
        lost_votes(me, &words)
    }

    #[test]
    fn a_lost_vote_is_as_high_as_those_of_enough_others() {
        let three = group(0, &[&[1, 2, 3]]);
        let (old, new) = (Vote::new_committed(6, 2), Vote::new_committed(7, 1));
        assert_eq!(
            lost(3, &[(2, old, &three)]),
            None,
            "1 may have been elected with its vote"
        );
        assert_eq!(lost(3, &[(2, old, &three), (1, new, &three)]), Some(new));
        assert_eq!(lost(3, &[]), None);
        let five = group(0, &[&[1, 2, 3, 4, 5]]);
        assert_eq!(lost(5, &[(1, old, &five), (2, old, &five)]), None);
        assert_eq!(
            lost(5, &[(1, old, &five), (2, old, &five), (4, new, &five)]),
            Some(new)
        );
        let one = group(0, &[&[1]]);
        assert_eq!(
            lost(2, &[(1, new, &one)]),
            Some(new),
            "a newcomer asks the only one there is"
        );
        assert_eq!(
            lost(1, &[(2, new, &one)]),
            None,
            "the only one that voted has lost it"
        );
    }

    #[test]
    fn the_latest_group_decides_whose_word_is_enough() {
        let three = group(0, &[&[1, 2, 3]]);
        let changing = group(7, &[&[1, 2, 3], &[3, 4, 5]]);
        let changed = group(8, &[&[3, 4, 5]]);
        let (low, high) = (Vote::new_committed(6, 2), Vote::new_committed(7, 4));
        let of_old = [(1, low, &three), (2, low, &changing)];
        assert_eq!(lost(3, &of_old), None, "4 and 5 have a say in it already");
        let of_both = [of_old[0], of_old[1], (4, high, &changing), (5, low, &changing)];
        assert_eq!(lost(3, &of_both), Some(high));
        assert_eq!(
            lost(3, &[(4, high, &changed), (5, low, &changed)]),
            Some(high),
            "1 and 2 are out of it"
        );
        assert_eq!(lost(3, &[(4, high, &changed), (2, low, &changing)]), None);
    }

    #[test]
    fn a_promise_is_never_to_itself() {
        assert_eq!(promise_to_another(3, Vote::new_committed(7, 1)), Vote::new(7, 1));
        let own = Vote::new_committed(7, 3);
        assert!(promise_to_another(3, own).leader_id() > own.leader_id());
    }
}
