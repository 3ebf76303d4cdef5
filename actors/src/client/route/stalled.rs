//! Workers that did not answer a reader lately: others are asked first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::WorkerId;
use tokio::time::Instant;

/// How long a reader waits for a worker before it asks another one that has the same bytes.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long others are asked first then.
const AVOIDED: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Stalled {
    until: Mutex<BTreeMap<WorkerId, Instant>>,
}

impl Stalled {
    fn until(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Instant>> {
        self.until.lock().expect("nobody panics while holding this")
    }

    /// A worker has not answered.
    pub fn note(&self, worker: WorkerId, now: Instant) {
        self.until().insert(worker, now + AVOIDED);
    }

    /// Workers in the order in which they are to be asked.
    pub fn last(&self, mut workers: Vec<WorkerId>, now: Instant) -> Vec<WorkerId> {
        let mut until = self.until();
        if !until.is_empty() {
            until.retain(|_, until| *until > now);
            workers.sort_by_key(|worker| until.contains_key(worker));
        }
        workers
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_asked_last_for_a_while() {
        let (stalled, now) = (Stalled::default(), Instant::now());
        let order = |now| stalled.last(vec![WorkerId(1), WorkerId(2), WorkerId(3)], now);
        assert_eq!(order(now), [WorkerId(1), WorkerId(2), WorkerId(3)]);
        stalled.note(WorkerId(1), now);
        assert_eq!(order(now), [WorkerId(2), WorkerId(3), WorkerId(1)]);
        assert_eq!(order(now + AVOIDED), [WorkerId(1), WorkerId(2), WorkerId(3)]);
    }
}
