//! Reads that never go back in time: a leader's lease, renewed by one round to a majority for everybody who waits.
//!
//! A round proves that this master led after the round began: a majority answered it, and each of those who did refuses
//! every vote for [`PROMISE`] from then on, counted by its own clock. So nobody else can lead, and nothing else can be
//! acknowledged, until [`LEASE`] after the round's begin, which is shorter by more than two clocks can drift apart in
//! that time (a fifth). The clock is the monotonic one, which goes on while a process is stopped. A master that starts
//! has forgotten what it promised, and votes for nobody until the promise of before must be over.
//!
//! A read that finds the lease valid reads a state that has everything acknowledged so far: this master acknowledges what
//! it has applied, and the first round of a term waits until everything from before is applied.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::{Error, ErrorKind, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::time::{Instant, timeout};

use super::types::Raft;
use super::{ELECTION_MAX_MS, PROPOSE_DEADLINE};
use crate::kit::Clock;
use crate::planted::{Bug, is_planted};

/// How long those who heard a leader vote for nobody else: what openraft takes from the longest election time-out.
pub const PROMISE: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// How long a leader relies on it.
const LEASE: Duration = Duration::from_millis(ELECTION_MAX_MS * 4 / 5);

fn lease() -> Duration {
    match is_planted(Bug::LeaseTooLong) {
        true => LEASE * 10,
        false => LEASE,
    }
}

type Round = Shared<BoxFuture<'static, Result<()>>>;

#[derive(Default)]
pub struct Barrier {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    until: Option<Instant>,
    /// Rounds that began before this prove nothing any more: those who answered were released from their promise.
    released: Option<Instant>,
    /// The one under way, and when it began.
    round: Option<(Instant, Round)>,
}

impl Barrier {
    /// Returns when the local state has everything acknowledged before the call.
    ///
    /// # Errors
    /// `NotLeader`, naming the leader if it is known; `Timeout`.
    pub async fn pass(&self, raft: &Raft, clock: &dyn Clock) -> Result<()> {
        let came = clock.now();
        loop {
            let (begun, round) = {
                let mut state = self.state();
                let now = clock.now();
                if state.until.is_some_and(|until| now < until) {
                    return Ok(());
                }
                match &state.round {
                    Some((begun, round)) if round.peek().is_none() => (*begun, round.clone()),
                    _ => {
                        let round = confirm(raft.clone()).boxed().shared();
                        state.round = Some((now, round.clone()));
                        (now, round)
                    }
                }
            };
            round.await?;
            let until = begun + lease();
            let mut state = self.state();
            if state.released.is_some_and(|released| begun <= released) {
                continue;
            }
            state.until = state.until.max(Some(until));
            // One that began before this call says nothing of now once its lease is over.
            if begun >= came || clock.now() < until {
                return Ok(());
            }
        }
    }

    /// The others were told that they may elect somebody else.
    pub fn release(&self, now: Instant) {
        let mut state = self.state();
        state.released = Some(now);
        state.until = None;
        state.round = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds this")
    }
}

async fn confirm(raft: Raft) -> Result<()> {
    match timeout(PROPOSE_DEADLINE, raft.ensure_linearizable()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
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
