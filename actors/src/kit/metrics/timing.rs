//! How long things take.

use std::time::Duration;

use curvine_protocol::{Call, Error, Result, for_master_calls, for_worker_calls};
use tokio::time::Instant;

use super::instrument::{Counter, Histogram};
use super::labels::Outcome;
use super::{MASTER_CALL_ERRORS, MASTER_CALL_SECONDS, WORKER_CALL_ERRORS, WORKER_CALL_SECONDS};

/// Something that has begun.
#[derive(Clone, Copy)]
pub struct Timing(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured decides nothing, and a simulated clock would show nothing"
)]
impl Timing {
    pub fn begin() -> Self {
        Timing(Instant::now())
    }

    pub fn took(self) -> Duration {
        self.0.elapsed()
    }
}

/// A call whose answers are timed.
pub trait Measured: Call {
    /// Among the calls of its service.
    const PLACE: usize;
    const SECONDS: &'static Histogram;
    const ERRORS: &'static Counter;
}

macro_rules! measured {
    ($places:ident $seconds:ident $errors:ident ; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
        enum $places { $($call),* }

        $(
            impl Measured for curvine_protocol::master_or_worker::$call {
                const PLACE: usize = $places::$call as usize;
                const SECONDS: &'static Histogram = &$seconds;
                const ERRORS: &'static Counter = &$errors;
            }
        )*
    };
}
for_master_calls!(measured, MasterPlace MASTER_CALL_SECONDS MASTER_CALL_ERRORS);
for_worker_calls!(measured, WorkerPlace WORKER_CALL_SECONDS WORKER_CALL_ERRORS);

/// The answer to a call, timed from its first poll on. One that nobody waits for any more counts as unavailable.
pub async fn timed<C: Measured, T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let mut answering = Answering::<C>::begin();
    let answer = answer.await;
    answering.ended(&answer);
    answer
}

/// Its end is observed however it comes.
struct Answering<C: Measured> {
    timing: Timing,
    outcome: Option<Outcome>,
    call: std::marker::PhantomData<fn(C)>,
}

impl<C: Measured> Answering<C> {
    fn begin() -> Self {
        Answering {
            timing: Timing::begin(),
            outcome: Some(Outcome::Unavailable),
            call: std::marker::PhantomData,
        }
    }

    fn ended<T>(&mut self, answer: &Result<T, Error>) {
        self.outcome = answer.as_ref().err().map(Outcome::of);
    }
}

impl<C: Measured> Drop for Answering<C> {
    fn drop(&mut self) {
        C::SECONDS.observe(C::PLACE, self.timing.took());
        if let Some(outcome) = self.outcome {
            C::ERRORS.add_error(C::PLACE, outcome);
        }
    }
}
