//! What a leader has under file systems do: changes that clients ask for ([`changes`]) and exports of files ([`exports`]).
//!
//! Both are effects in the log ([`effects`](super::namespace::effects)) before a store is asked for anything. Here is what of
//! it is soft: who waits for an answer, which tries have failed, how far they are.

pub mod changes;
pub mod exports;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::op::OpReply;
use curvine_protocol::{EffectId, Error, ErrorKind, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use self::changes::Progresses;
use super::contract::Consensus;
use super::namespace::apply::Effects;
use super::namespace::effects::{EffectRecord, under_way};

/// Answers that are kept for those who wait for them.
const ANSWERS_MAX: usize = 4_096;
/// How often who waits looks whether this master still leads.
const LOOK: Duration = Duration::from_millis(500);

/// The answers to changes that were noted, for those who wait.
#[derive(Default)]
pub struct Outcomes {
    answers: Mutex<BTreeMap<EffectId, Result<OpReply>>>,
    /// How far each is.
    pub progress: Progresses,
    /// Something has been answered, or is over.
    changed: Notify,
    /// There is something new to be carried out.
    noted: Notify,
}

impl Outcomes {
    fn answers(&self) -> MutexGuard<'_, BTreeMap<EffectId, Result<OpReply>>> {
        self.answers.lock().expect("nobody panics while it holds answers")
    }

    /// What those are told who were refused because of another effect, out of those that are under way, if that has failed for so
    /// long: nobody knows when it will be over.
    pub fn stuck_in_the_way(
        &self,
        refused: &Error,
        effects: &[(EffectId, EffectRecord)],
        failing_for: Duration,
        now: Instant,
    ) -> Option<Error> {
        let is_it = |(_, record): &&(EffectId, EffectRecord)| under_way(record).message == refused.message;
        let (effect, record) = effects.iter().find(is_it)?;
        let progress = self.progress.of(*effect);
        let (since, why) = (progress.failing_since?, progress.failure?);
        (now.duration_since(since) >= failing_for).then(|| {
            Error::new(
                ErrorKind::Busy,
                format!(
                    "the {} of `{}` in the under file system does not get on and is tried again, so its names cannot be changed: \
                     {why}; see `cv mounts`",
                    record.what(),
                    record.key
                ),
            )
        })
    }

    /// What commands that were applied mean for those who wait.
    pub fn applied(&self, effects: &Effects) {
        if !effects.settled.is_empty() {
            let mut answers = self.answers();
            answers.extend(effects.settled.iter().cloned());
            while answers.len() > ANSWERS_MAX {
                answers.pop_first();
            }
        }
        if !(effects.settled.is_empty() && effects.ended.is_empty()) {
            self.changed.notify_waiters();
        }
        if effects.noted {
            self.noted.notify_one();
        }
    }

    /// The answer to a change, when there is one.
    ///
    /// # Errors
    /// The change's own; `NotLeader` if another master is to be asked.
    pub async fn answer(&self, effect: EffectId, consensus: &Arc<dyn Consensus>) -> Result<OpReply> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = self.answers().get(&effect) {
                return answer.clone();
            }
            if !consensus.is_leader() {
                return Err(Error::not_leader(None));
            }
            // Whichever comes first.
            let _ = timeout(LOOK, changed).await;
        }
    }

    /// Returns when something that was under way is over, or after a moment.
    pub async fn change(&self) {
        let _ = timeout(LOOK, self.changed.notified()).await;
    }

    /// Returns when there is something new to be carried out.
    pub async fn noted(&self) {
        self.noted.notified().await;
    }
}
