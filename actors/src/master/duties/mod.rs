//! What a leader does of its own accord: one file for each duty, begun and ended with leadership.
//!
//! A [`Duty`] owns what it works on and has only the ports that it uses. [`Duties`] begins all of them when this master
//! leads, ticks each when it is due, ends them when it leads no more, and says what they are doing (`cv report`).
//! To add one, write its file and add it to the list in `master::start`.
//!
//! Invariants: nothing of a duty runs while this master does not lead; a tick that fails is tried again, and its error is
//! shown until one succeeds; a slow tick delays no other duty.

pub mod deletions;
pub mod expiry;
pub mod kinds;
pub mod loads;
pub mod open_files;
pub mod pins;
pub mod quotas;
pub mod reclaim;
pub mod recovery;
pub mod repair;
pub mod sessions;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::cluster::DutyStatus;
use curvine_protocol::{Error, Result};
use futures::future::join_all;
use tokio::sync::watch;

/// How long a duty rests after a tick that failed.
const REST: Duration = Duration::from_secs(1);

/// Something that a leader does of its own accord.
#[async_trait]
pub trait Duty: Send + Sync {
    /// One word, as `cv report` and logs show it.
    fn name(&self) -> &'static str;

    /// This master leads from now on, in this term.
    ///
    /// # Errors
    /// What keeps it from beginning: it is shown, and the duty ticks all the same.
    fn begin(&self, term: u64) -> Result<()>;

    /// Resolves when there is something to do. Dropped, and asked again, after each tick.
    async fn due(&self);

    /// Does some of it. Dropped where it stands when this master leads no more.
    ///
    /// # Errors
    /// Whatever kept it from being done.
    async fn tick(&self) -> Result<()>;

    /// This master leads no more: forget what is under way, without a word to others.
    fn end(&self);

    /// What it is doing now, for people: a few words with counts.
    fn status(&self) -> String;
}

/// All duties of a master.
pub struct Duties(Vec<Entry>);

struct Entry {
    duty: Arc<dyn Duty>,
    failure: Mutex<Option<Error>>,
}

impl Entry {
    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure
            .lock()
            .expect("nobody panics while it holds an error")
    }

    /// Keeps the outcome of a tick for the status; says in the log when it begins to fail.
    fn ended(&self, outcome: Result<()>) -> bool {
        let mut failure = self.failure();
        if let Err(error) = &outcome
            && failure.is_none()
        {
            tracing::warn!(duty = self.duty.name(), %error, "cannot do it now; trying again");
        }
        *failure = outcome.err();
        failure.is_none()
    }

    /// Ticks whenever the duty is due.
    async fn run(&self) {
        loop {
            self.duty.due().await;
            let outcome = self.duty.tick().await;
            if !self.ended(outcome) {
                tokio::time::sleep(REST).await;
            }
        }
    }
}

impl Duties {
    pub fn new(duties: Vec<Arc<dyn Duty>>) -> Self {
        let entry = |duty| Entry {
            duty,
            failure: Mutex::default(),
        };
        Duties(duties.into_iter().map(entry).collect())
    }

    /// Begins, ticks and ends the duties as this master begins and ends to lead, as long as it lives. `on_change` is told
    /// before, with the term in which it leads.
    pub async fn follow(
        &self,
        mut leadership: watch::Receiver<Option<u64>>,
        on_change: impl Fn(Option<u64>),
    ) {
        loop {
            let term = *leadership.borrow_and_update();
            self.0.iter().for_each(|entry| entry.duty.end());
            on_change(term);
            let work = async {
                match term {
                    None => std::future::pending().await,
                    Some(term) => {
                        for entry in &self.0 {
                            entry.ended(entry.duty.begin(term));
                        }
                        join_all(self.0.iter().map(Entry::run)).await;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                changed = leadership.changed() => if changed.is_err() {
                    self.0.iter().for_each(|entry| entry.duty.end());
                    return;
                },
            }
        }
    }

    /// What each of them is doing.
    pub fn statuses(&self) -> Vec<DutyStatus> {
        let status = |entry: &Entry| DutyStatus {
            name: entry.duty.name().to_owned(),
            doing: entry.duty.status(),
            failure: entry.failure().as_ref().map(|error| error.message.clone()),
        };
        self.0.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use curvine_protocol::ErrorKind;
    use tokio::time::sleep;

    use super::*;

    /// Ticks every second; fails as often as it is told to; notes what happens to it.
    #[derive(Default)]
    struct Noting {
        log: Mutex<Vec<String>>,
        failures_left: AtomicU32,
    }

    impl Noting {
        fn note(&self, what: impl Into<String>) {
            self.log.lock().expect("no panic").push(what.into());
        }

        fn log(&self) -> Vec<String> {
            std::mem::take(&mut *self.log.lock().expect("no panic"))
        }
    }

    #[async_trait]
    impl Duty for Noting {
        fn name(&self) -> &'static str {
            "noting"
        }

        fn begin(&self, term: u64) -> Result<()> {
            self.note(format!("begin {term}"));
            Ok(())
        }

        async fn due(&self) {
            sleep(Duration::from_secs(1)).await;
        }

        async fn tick(&self) -> Result<()> {
            self.note("tick");
            match self.failures_left.load(Ordering::Relaxed) {
                0 => Ok(()),
                left => {
                    self.failures_left.store(left - 1, Ordering::Relaxed);
                    Err(Error::new(ErrorKind::Io, "not now"))
                }
            }
        }

        fn end(&self) {
            self.note("end");
        }

        fn status(&self) -> String {
            "as told".to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn duties_begin_tick_and_end_with_leadership() {
        let noting = Arc::new(Noting::default());
        let duties = Arc::new(Duties::new(vec![noting.clone()]));
        let (leads, leadership) = watch::channel(None);
        let following = {
            let duties = duties.clone();
            tokio::spawn(async move { duties.follow(leadership, |_| {}).await })
        };
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(noting.log(), ["end"], "who does not lead does nothing");
        leads.send(Some(7)).expect("followed");
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(noting.log(), ["end", "begin 7", "tick", "tick"]);
        leads.send(None).expect("followed");
        sleep(Duration::from_millis(2_500)).await;
        assert_eq!(noting.log(), ["end"]);
        drop(leads);
        following.await.expect("it ends with its master");
        assert_eq!(noting.log(), ["end"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_that_fails_is_shown_and_tried_again() {
        let noting = Arc::new(Noting::default());
        noting.failures_left.store(1, Ordering::Relaxed);
        let duties = Arc::new(Duties::new(vec![noting.clone()]));
        let (_leads, leadership) = watch::channel(Some(1));
        let following = duties.clone();
        tokio::spawn(async move { following.follow(leadership, |_| {}).await });
        sleep(Duration::from_millis(1_500)).await;
        let status = |failure: Option<&str>| DutyStatus {
            name: "noting".to_owned(),
            doing: "as told".to_owned(),
            failure: failure.map(str::to_owned),
        };
        assert_eq!(duties.statuses(), [status(Some("not now"))]);
        sleep(Duration::from_millis(2_000)).await;
        assert_eq!(duties.statuses(), [status(None)]);
    }
}
