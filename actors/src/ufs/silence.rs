//! A store that is silent, and how long it is waited for next.
//!
//! A call of a client asks a store several questions, one after the other. If each waited for as long as the first, the
//! client would hear of the silence after a minute and not after the time that it was promised.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::kit::deadlines::{STORE_ANSWER, STORE_ANSWER_AGAIN, STORE_SILENCE};

/// Since when a store has answered nothing.
#[derive(Default)]
pub struct Silence(Mutex<Option<Silent>>);

#[derive(Clone, Copy)]
struct Silent {
    /// The first question that got no answer.
    since: Instant,
    /// The last one was given up.
    seen: Instant,
}

impl Silence {
    fn silent(&self) -> MutexGuard<'_, Option<Silent>> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// How long a question that is asked now waits.
    pub fn patience(&self) -> Duration {
        match *self.silent() {
            Some(silent) if now() < silent.seen + STORE_SILENCE => STORE_ANSWER_AGAIN,
            _ => STORE_ANSWER,
        }
    }

    /// Somebody has got an answer, be it a refusal.
    pub fn ends(&self) {
        *self.silent() = None;
    }

    /// A question was given up that waited for so long. How long the store has been silent.
    pub fn goes_on(&self, waited: Duration) -> Duration {
        let now = now();
        let mut silent = self.silent();
        let since = match *silent {
            // What ended between was neither an answer nor a question that was given up.
            Some(earlier) if now < earlier.seen + STORE_SILENCE => earlier.since,
            _ => now - waited,
        };
        *silent = Some(Silent { since, seen: now });
        now - since
    }
}

/// As the time limits around it have it, which are tokio's.
#[expect(
    clippy::disallowed_methods,
    reason = "a store is waited for by the runtime's timers, and by no clock of the cluster"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_waited_for_less_until_it_answers_or_some_time_has_passed() {
        advance(STORE_ANSWER).await;
        let silence = Silence::default();
        assert_eq!(silence.patience(), STORE_ANSWER);
        assert_eq!(silence.goes_on(STORE_ANSWER), STORE_ANSWER);
        assert_eq!(silence.patience(), STORE_ANSWER_AGAIN);
        advance(STORE_ANSWER_AGAIN).await;
        let so_long = STORE_ANSWER + STORE_ANSWER_AGAIN;
        assert_eq!(silence.goes_on(STORE_ANSWER_AGAIN), so_long);
        silence.ends();
        assert_eq!(silence.patience(), STORE_ANSWER);
        silence.goes_on(STORE_ANSWER);
        advance(STORE_SILENCE).await;
        assert_eq!(silence.patience(), STORE_ANSWER);
    }
}
