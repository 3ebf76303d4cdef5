//! Which worker loads a block, and what follows when it does not: pure.
//!
//! A worker that does not answer costs time: what it was given is given to another. A file fails when every live worker
//! has failed it, and [`ATTEMPTS`] tries have, unless the error is one that never passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use curvine_protocol::error::Retry;
use curvine_protocol::number::to_usize;
use curvine_protocol::{BlockId, Error, ErrorKind, WorkerId};
use tokio::time::Instant;

/// Tries at what may pass, by all workers together.
pub const ATTEMPTS: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(300);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How soon workers are looked at again when none answers.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long workers that live, as the master thinks, may fail to answer for one file.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a try at a file ended without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The worker did not answer, or had to end; that says nothing of the file.
    Worker(WorkerId, Error),
    /// The worker could not fetch or keep the bytes.
    Store(WorkerId, Error),
    /// The object has another version now, which the namespace is told meanwhile.
    Changed(Error),
    /// No worker lives; none has for so long.
    NoWorker(Duration),
    /// The file is gone, or cannot be looked at.
    File(Error),
}

impl Fault {
    /// Of what a worker answered about a block.
    pub fn of_outcome(worker: WorkerId, error: Error) -> Fault {
        match error.kind {
            ErrorKind::UfsChanged | ErrorKind::Stale => Fault::Changed(error),
            ErrorKind::Stopping
            | ErrorKind::Cancelled
            | ErrorKind::Overloaded
            | ErrorKind::BlockUnavailable
            | ErrorKind::NotPermitted => Fault::Worker(worker, error),
            _ => Fault::Store(worker, error),
        }
    }
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Again(Duration),
    GiveUp(Error),
}

/// Of one file.
#[derive(Debug, Default)]
pub struct Tries {
    failed: BTreeMap<WorkerId, Failed>,
    /// They did not answer.
    silent: BTreeSet<WorkerId>,
    silent_since: Option<Instant>,
    changed: u32,
}

#[derive(Debug)]
struct Failed {
    times: u32,
    /// It will never pass.
    for_good: bool,
}

impl Tries {
    /// The worker that should load a block, of those that live: one that has not failed, if there is any. Blocks spread
    /// over them by their ids, as readers' requests do.
    pub fn choose(&self, block: BlockId, live: &[WorkerId]) -> Option<WorkerId> {
        let first = to_usize(block.0 % (live.len().max(1) as u64));
        let in_turn = live[first..].iter().chain(&live[..first]);
        in_turn.copied().min_by_key(|worker| {
            let times = self.failed.get(worker).map_or(0, |failed| failed.times);
            (self.is_exhausted(*worker), self.silent.contains(worker), times)
        })
    }

    /// Whether a worker did not do what it was asked for this file.
    pub fn has_failed(&self, worker: WorkerId) -> bool {
        self.failed.contains_key(&worker) || self.silent.contains(&worker)
    }

    /// Some of the file arrived: its workers answer.
    pub fn progressed(&mut self) {
        self.silent_since = None;
    }

    /// What follows a try that failed.
    pub fn after(&mut self, fault: Fault, live: &[WorkerId], now: Instant) -> Next {
        match fault {
            Fault::File(error) => Next::GiveUp(error),
            Fault::Changed(error) => {
                self.changed += 1;
                match self.changed < ATTEMPTS {
                    true => Next::Again(backoff(self.changed)),
                    false => Next::GiveUp(error),
                }
            }
            Fault::NoWorker(since) if since < PATIENCE / 2 => Next::Again(LOOK_AGAIN),
            Fault::NoWorker(_) => Next::GiveUp(Error::new(
                ErrorKind::BlockUnavailable,
                "no worker is live to load it; see `cv report`",
            )),
            Fault::Worker(worker, error) => {
                let since = *self.silent_since.get_or_insert(now);
                self.silent.insert(worker);
                let others = live
                    .iter()
                    .any(|other| !self.silent.contains(other) && !self.is_exhausted(*other));
                match others {
                    true => Next::Again(Duration::ZERO),
                    false if now.duration_since(since) < PATIENCE => Next::Again(LOOK_AGAIN),
                    false => Next::GiveUp(error),
                }
            }
            Fault::Store(worker, error) => {
                // A worker without room makes none for what the same job wants next.
                let may_pass = error.kind.retry() != Retry::Never;
                let failed = self.failed.entry(worker).or_insert(Failed {
                    times: 0,
                    for_good: false,
                });
                failed.times += 1;
                failed.for_good |= !may_pass;
                self.silent.remove(&worker);
                if live.iter().all(|worker| self.is_exhausted(*worker)) {
                    return Next::GiveUp(error);
                }
                match live.iter().any(|other| !self.failed.contains_key(other)) {
                    true => Next::Again(Duration::ZERO),
                    false => Next::Again(backoff(self.times())),
                }
            }
        }
    }

    fn times(&self) -> u32 {
        self.failed.values().map(|failed| failed.times).sum()
    }

    /// Another try by this worker is in vain.
    fn is_exhausted(&self, worker: WorkerId) -> bool {
        let enough = self.times() >= ATTEMPTS;
        self.failed
            .get(&worker)
            .is_some_and(|failed| failed.for_good || enough)
    }
}

fn backoff(times: u32) -> Duration {
    BACKOFF
        .saturating_mul(3u32.saturating_pow(times - 1))
        .min(BACKOFF_MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "it failed")
    }

    fn store(worker: WorkerId, kind: ErrorKind) -> Fault {
        Fault::Store(worker, error(kind))
    }

    fn silent(worker: WorkerId) -> Fault {
        Fault::Worker(worker, error(ErrorKind::Unreachable))
    }

    fn again(ms: u64) -> Next {
        Next::Again(Duration::from_millis(ms))
    }

    #[test]
    fn blocks_spread_over_the_workers_that_have_not_failed() {
        let mut tries = Tries::default();
        let chosen = |tries: &Tries| [10, 11, 12].map(|id| tries.choose(BlockId(id), &[A, B]));
        assert_eq!(chosen(&tries), [Some(A), Some(B), Some(A)]);
        tries.after(silent(A), &[A, B], Instant::now());
        assert_eq!(chosen(&tries), [Some(B); 3]);
        assert_eq!(
            tries.choose(BlockId(1), &[A]),
            Some(A),
            "the only one is asked again"
        );
        assert_eq!(tries.choose(BlockId(1), &[]), None);
    }

    #[test]
    fn a_worker_that_does_not_answer_gives_what_it_has_to_another_at_once() {
        let mut tries = Tries::default();
        let begun = Instant::now();
        assert_eq!(tries.after(silent(A), &[A, B], begun), again(0));
        assert_eq!(
            tries.after(silent(B), &[A, B], begun),
            again(500),
            "no other is left"
        );
        let later = begun + PATIENCE;
        assert_eq!(
            tries.after(silent(A), &[A, B], later),
            Next::GiveUp(error(ErrorKind::Unreachable))
        );
        tries.progressed();
        assert_eq!(
            tries.after(silent(A), &[A, B], later),
            again(500),
            "it went on meanwhile"
        );
    }

    #[test]
    fn a_file_fails_when_every_live_worker_has_failed_it() {
        let mut tries = Tries::default();
        let now = Instant::now();
        assert_eq!(
            tries.after(store(A, ErrorKind::UfsDenied), &[A, B], now),
            again(0)
        );
        assert_eq!(tries.choose(BlockId(0), &[A, B]), Some(B));
        assert_eq!(
            tries.after(store(B, ErrorKind::UfsDenied), &[A, B], now),
            Next::GiveUp(error(ErrorKind::UfsDenied))
        );
    }

    #[test]
    fn what_may_pass_is_tried_so_often_and_by_every_worker() {
        let now = Instant::now();
        let mut alone = Tries::default();
        let ufs = |worker| store(worker, ErrorKind::Ufs);
        let waits: Vec<_> = (0..4).map(|_| alone.after(ufs(A), &[A], now)).collect();
        let given_up = Next::GiveUp(error(ErrorKind::Ufs));
        assert_eq!(waits, [again(300), again(900), again(2_700), given_up.clone()]);
        let mut two = Tries::default();
        (0..4).for_each(|_| drop(two.after(ufs(A), &[A], now)));
        assert_eq!(two.after(ufs(A), &[A, B], now), again(0), "another came");
        assert_eq!(two.choose(BlockId(0), &[A, B]), Some(B));
        assert_eq!(two.after(ufs(B), &[A, B], now), given_up);
    }

    #[test]
    fn a_full_worker_is_one_that_failed_and_one_that_stops_is_silent() {
        let full = error(ErrorKind::NoSpace);
        assert_eq!(Fault::of_outcome(A, full.clone()), Fault::Store(A, full));
        let stops = error(ErrorKind::Stopping);
        assert_eq!(Fault::of_outcome(A, stops.clone()), Fault::Worker(A, stops));
    }

    #[test]
    fn an_object_that_keeps_changing_is_given_up() {
        let mut tries = Tries::default();
        let changed = || Fault::Changed(error(ErrorKind::UfsChanged));
        let nexts: Vec<_> = (0..4)
            .map(|_| tries.after(changed(), &[A], Instant::now()))
            .collect();
        assert_eq!(nexts[..3], [again(300), again(900), again(2_700)]);
        assert_eq!(nexts[3], Next::GiveUp(error(ErrorKind::UfsChanged)));
    }

    #[test]
    fn without_workers_a_file_waits_for_some_and_not_for_ever() {
        let mut tries = Tries::default();
        let none = |seconds| Fault::NoWorker(Duration::from_secs(seconds));
        assert_eq!(tries.after(none(29), &[], Instant::now()), again(500));
        let Next::GiveUp(error) = tries.after(none(30), &[], Instant::now()) else {
            panic!("it is given up");
        };
        assert_eq!(error.kind, ErrorKind::BlockUnavailable);
    }
}
