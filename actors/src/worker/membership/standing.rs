//! Whether this worker may take writes: it has heard from the leader lately, and the writer knows its epoch.
//!
//! Masters that give a lease on tell the holders of its blocks to refuse the old writer. A worker that they cannot reach
//! refuses by itself: after [`WRITES_UNHEARD`] without an answer it takes no writes. The masters wait for as long, and a
//! little longer. When it is back, it is of another epoch, which the old writer does not know, and learns only if it still
//! has the lease: whatever it sends late is refused.
//!
//! Time counts from when the worker asked, not from when it was answered: the masters cannot have heard it earlier.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::worker::WRITES_UNHEARD_MS;
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::kit::{Clock, Random};
use crate::planted::{Bug, is_planted};

const WRITES_UNHEARD: Duration = Duration::from_millis(WRITES_UNHEARD_MS);

pub struct Standing {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// Pure.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    epoch: u64,
    /// Writes are taken until then.
    until: Option<Instant>,
}

impl State {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now > until)
    }

    /// Something was answered that was asked in this epoch. Nothing if that comes too late: the masters may have given
    /// leases on before they heard it.
    fn heard(&mut self, epoch: u64, asked: Instant, now: Instant) {
        if epoch == self.epoch && !self.is_over(now) {
            self.until = self.until.max(Some(asked + WRITES_UNHEARD));
        }
    }

    /// A registration in this epoch was answered.
    fn registered(&mut self, epoch: u64, asked: Instant, now: Instant) {
        match epoch == self.epoch {
            true => self.heard(epoch, asked, now),
            false => {
                *self = State {
                    epoch,
                    until: Some(asked + WRITES_UNHEARD),
                }
            }
        }
    }

    fn check(&self, epoch: u64, now: Instant) -> Result<()> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Unreachable, why));
        if self.is_over(now) && !is_planted(Bug::WorkerNeverFencesItself) {
            return refused(
                "the worker has not heard from the masters for too long, and takes no writes until it has; see its log",
            );
        }
        // 0: of a client that knows of no epochs.
        if epoch != 0 && epoch != self.epoch && !is_planted(Bug::WorkerNeverFencesItself) {
            return refused(
                "the worker was out of touch with the masters since the writer was sent to it; ask them again",
            );
        }
        Ok(())
    }
}

impl Standing {
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Arc<Self> {
        Arc::new(Standing {
            state: Mutex::default(),
            clock,
            random,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this")
    }

    /// When something is asked of the masters, for [`Standing::heard`].
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// The epoch to register in: another one if writes may not be taken any more.
    pub fn epoch_to_register(&self) -> u64 {
        let state = *self.state();
        match state.is_over(self.clock.now()) {
            true => self.random.next_u64() | 1,
            false => state.epoch,
        }
    }

    /// What was asked then, in the epoch of that time, has been answered by the leader.
    pub fn heard(&self, epoch: u64, asked: Instant) {
        let now = self.clock.now();
        self.state().heard(epoch, asked, now);
    }

    /// A registration of then, in this epoch, has been answered by the leader.
    pub fn registered(&self, epoch: u64, asked: Instant) {
        let now = self.clock.now();
        self.state().registered(epoch, asked, now);
    }

    /// The epoch of now.
    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    pub fn is_over(&self) -> bool {
        self.state().is_over(self.clock.now())
    }

    /// Whether a write may be carried out whose writer knows the worker by this epoch.
    ///
    /// # Errors
    /// `Unreachable`: the writer is to ask the masters again.
    pub fn check(&self, epoch: u64) -> Result<()> {
        self.state().check(epoch, self.clock.now())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn writes_are_taken_for_a_while_after_what_was_asked_and_answered() {
        let begin = Instant::now();
        let mut state = State::default();
        assert!(state.check(0, begin).is_err(), "it has never registered");
        state.registered(7, begin, begin + SECOND);
        assert!(state.check(7, begin + WRITES_UNHEARD).is_ok());
        assert!(state.check(7, begin + WRITES_UNHEARD + SECOND / 1000).is_err());
        assert_eq!(
            state.check(8, begin).map_err(|e| e.kind),
            Err(ErrorKind::Unreachable),
            "another epoch"
        );
        state.heard(7, begin + 5 * SECOND, begin + 6 * SECOND);
        state.heard(7, begin + 4 * SECOND, begin + 7 * SECOND);
        assert!(state.check(7, begin + 5 * SECOND + WRITES_UNHEARD).is_ok());
    }

    #[test]
    fn an_answer_that_comes_when_it_is_over_changes_nothing_and_a_new_epoch_does() {
        let begin = Instant::now();
        let mut state = State::default();
        state.registered(7, begin, begin);
        let late = begin + WRITES_UNHEARD + SECOND;
        // Asked in time, but nobody knows when the masters heard it.
        state.heard(7, begin + WRITES_UNHEARD - SECOND, late);
        assert!(state.check(7, late).is_err());
        state.registered(7, begin + WRITES_UNHEARD - SECOND, late);
        assert!(state.check(7, late).is_err());
        state.registered(9, late, late);
        assert!(state.check(9, late).is_ok() && state.check(7, late).is_err());
        // What was asked in the epoch of before.
        state.heard(7, late, late);
        assert!(state.check(9, late).is_ok() && state.check(7, late).is_err());
    }
}
