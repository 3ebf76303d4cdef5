//! Aborts uploads in parts that were begun here and that nobody makes any more: those that a worker left when it died,
//! and those that failed since.
//!
//! Each by its own id, and again after a pause while the store cannot be asked. What is aborted twice harms nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::{ErrorKind, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::membership::Session;
use super::ufs_reader::Resolver;
use crate::kit::{Clock, metrics};
use crate::ufs::upload_notes::{LeftUpload, Upload, UploadNotes};

/// The first pause is long enough for parts to end that were on their way when an upload failed.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// More than six hours.
const TRIES_MAX: u32 = 50;

/// Who can have an upload aborted.
#[async_trait]
pub trait Aborts: Send + Sync {
    /// Whether the store still had it.
    ///
    /// # Errors
    /// `NotFound` if its mount or bucket is gone; those of the masters and of the store.
    async fn abort(&self, upload: &Upload) -> Result<bool>;
}

#[async_trait]
impl Aborts for Resolver {
    async fn abort(&self, upload: &Upload) -> Result<bool> {
        self.source(upload.mount).await?.abort_upload(upload).await
    }
}

/// Uploads that wait, the one that is due first in front.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waiting {
    uploads: VecDeque<Due>,
}

#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    /// How often it could not be aborted.
    tries: u32,
    left: LeftUpload,
}

impl Waiting {
    fn add(&mut self, due: Due) {
        let place = self.uploads.partition_point(|other| other.at <= due.at);
        self.uploads.insert(place, due);
    }

    fn next_at(&self) -> Option<Instant> {
        self.uploads.front().map(|due| due.at)
    }

    fn take_due(&mut self, now: Instant) -> Option<Due> {
        self.uploads.pop_front_if(|due| due.at <= now)
    }

    /// It could not be aborted. Whether it is tried again.
    fn put_back(&mut self, due: Due, now: Instant) -> bool {
        let (tries, at) = (due.tries + 1, now + pause(due.tries));
        let again = tries < TRIES_MAX;
        if again {
            self.add(Due { at, tries, ..due });
        }
        again
    }
}

fn pause(tries: u32) -> Duration {
    PAUSE_MIN
        .saturating_mul(2_u32.saturating_pow(tries))
        .min(PAUSE_MAX)
}

async fn ended(session: &mut watch::Receiver<Option<Session>>) {
    while session.changed().await.is_ok() {}
}

/// What became of one upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Aborted,
    /// It had ended, or nobody can abort it.
    Over,
    Again,
}

/// Aborts what was left, and what is given up later.
pub struct LeftUploads {
    aborts: Arc<dyn Aborts>,
    notes: UploadNotes,
    given_up: mpsc::Receiver<LeftUpload>,
    clock: Arc<dyn Clock>,
    waiting: Waiting,
}

impl LeftUploads {
    pub fn new(
        aborts: Arc<dyn Aborts>,
        notes: UploadNotes,
        left: Vec<LeftUpload>,
        given_up: mpsc::Receiver<LeftUpload>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (at, tries) = (clock.now(), 0);
        let uploads = left.into_iter().map(|left| Due { at, tries, left }).collect();
        LeftUploads {
            aborts,
            notes,
            given_up,
            clock,
            waiting: Waiting { uploads },
        }
    }

    /// Runs from the worker's first registration until its end.
    pub async fn run(mut self, mut session: watch::Receiver<Option<Session>>) {
        if session.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.begin().await;
        loop {
            let next = self.waiting.next_at();
            let wait = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The worker has stopped.
                () = ended(&mut session) => return,
                given_up = self.given_up.recv() => match given_up {
                    Some(left) => self.waiting.add(Due { at: self.clock.now() + PAUSE_MIN, tries: 0, left }),
                    None => return,
                },
                () = wait => {
                    self.pass().await;
                }
            }
        }
    }

    async fn begin(&mut self) {
        if self.waiting.uploads.is_empty() {
            return;
        }
        let aborted = self.pass().await;
        let later = self.waiting.uploads.len();
        tracing::info!(
            aborted,
            later,
            "uploads that were left in stores when this worker ended: {aborted} aborted, {later} to be tried again"
        );
    }

    /// Tries what is due; how many were aborted.
    async fn pass(&mut self) -> u64 {
        let (now, mut aborted) = (self.clock.now(), 0);
        while let Some(due) = self.waiting.take_due(now) {
            aborted += u64::from(self.try_one(due).await == Outcome::Aborted);
        }
        aborted
    }

    async fn try_one(&mut self, due: Due) -> Outcome {
        let upload = due.left.upload.clone();
        let (uri, key) = (&upload.uri, &upload.key);
        match self.aborts.abort(&upload).await {
            Ok(was_there) => {
                self.notes.forget(due.left).await;
                if !was_there {
                    return Outcome::Over;
                }
                metrics::UPLOADS_ABORTED.add(1);
                tracing::info!("{uri}: an upload of `{key}` that was not completed is aborted");
                Outcome::Aborted
            }
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unsupported) => {
                tracing::warn!(
                    "{uri}: an upload of `{key}` with the id {} cannot be aborted ({error}), and its parts may stay in \
                     the store: abort it there, or have a lifecycle rule (AbortIncompleteMultipartUpload) do it",
                    upload.id
                );
                self.notes.forget(due.left).await;
                Outcome::Over
            }
            Err(error) => {
                let is_first = due.tries == 0;
                match self.waiting.put_back(due, self.clock.now()) {
                    true if is_first => {
                        tracing::warn!("{uri}: aborting an upload of `{key}`: {error}; it is tried again");
                    }
                    true => {}
                    false => tracing::warn!(
                        "{uri}: aborting an upload of `{key}`: {error}; it is tried again when this worker is \
                         started again"
                    ),
                }
                Outcome::Again
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use curvine_protocol::{ClusterId, Error, MountId, WorkerId};
    use proptest::prelude::*;

    use super::*;
    use crate::kit::Ports;
    use crate::kit::ports::Inline;

    fn upload(id: &str) -> Upload {
        Upload {
            mount: MountId(1),
            uri: "s3://bucket".to_owned(),
            key: "k".to_owned(),
            id: id.to_owned(),
        }
    }

    /// Has everything but what is answered with an error, and says what it was asked for.
    struct Store {
        asked: mpsc::Sender<(String, Instant)>,
        /// How often an id fails, and how.
        fails: fn(&str) -> Option<(ErrorKind, u32)>,
        times: std::sync::atomic::AtomicU32,
    }

    #[async_trait]
    impl Aborts for Store {
        #[expect(clippy::disallowed_methods, reason = "the clock of this test")]
        async fn abort(&self, upload: &Upload) -> Result<bool> {
            let asked = (upload.id.clone(), Instant::now());
            self.asked.try_send(asked).expect("there is room");
            match (self.fails)(&upload.id) {
                Some((kind, times))
                    if self.times.fetch_add(1, std::sync::atomic::Ordering::AcqRel) < times =>
                {
                    Err(Error::new(kind, "it is a test"))
                }
                _ => Ok(true),
            }
        }
    }

    struct World {
        asked: mpsc::Receiver<(String, Instant)>,
        notes: UploadNotes,
        session: watch::Sender<Option<Session>>,
        directory: PathBuf,
        _scratch: tempfile::TempDir,
    }

    impl World {
        /// With these uploads left by an earlier run.
        async fn start(left: &[&str], fails: fn(&str) -> Option<(ErrorKind, u32)>) -> World {
            let scratch = tempfile::tempdir().expect("a scratch directory");
            let directory = scratch.path().join("uploads");
            let open = || UploadNotes::open(directory.clone(), Arc::new(Inline)).expect("opens");
            let (earlier, _, _arrivals) = open();
            for id in left {
                drop(earlier.begun(upload(id)).await.expect("noted"));
            }
            let (notes, left, given_up) = open();
            let (said, asked) = mpsc::channel(1_000);
            let times = Default::default();
            let store = Arc::new(Store {
                asked: said,
                fails,
                times,
            });
            let uploads = LeftUploads::new(store, notes.clone(), left, given_up, Ports::system().clock);
            let (session, registered) = watch::channel(None);
            tokio::spawn(uploads.run(registered));
            World {
                asked,
                notes,
                session,
                directory,
                _scratch: scratch,
            }
        }

        fn register(&self) {
            let session = Session {
                worker: WorkerId(1),
                cluster: ClusterId(1),
                token: 1,
            };
            self.session.send_replace(Some(session));
        }

        async fn asked(&mut self) -> String {
            self.asked.recv().await.expect("it runs").0
        }

        fn noted(&self) -> Vec<String> {
            let left = UploadNotes::open(self.directory.clone(), Arc::new(Inline))
                .expect("opens")
                .1;
            left.into_iter().map(|left| left.upload.id).collect()
        }

        /// Until nothing more happens at this time.
        async fn settle(&self) {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_is_aborted_once_the_worker_is_registered_and_not_before() {
        let mut world = World::start(&["one", "two"], |_| None).await;
        world.settle().await;
        assert!(world.asked.try_recv().is_err(), "it is not registered");
        world.register();
        assert_eq!(
            (world.asked().await, world.asked().await),
            ("one".into(), "two".into())
        );
        world.settle().await;
        assert_eq!(world.noted(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_is_being_made_is_left_alone_until_it_is_given_up() {
        let mut world = World::start(&[], |_| None).await;
        world.register();
        let note = world.notes.begun(upload("made")).await.expect("noted");
        tokio::time::sleep(PAUSE_MAX * 2).await;
        assert!(world.asked.try_recv().is_err(), "it is being made");
        drop(note);
        assert_eq!(world.asked().await, "made");
        world.settle().await;
        assert_eq!(world.noted(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_is_asked_again_with_pauses_and_keeps_up_no_other() {
        let fails = |id: &str| (id == "bad").then_some((ErrorKind::Ufs, 3));
        let mut world = World::start(&["bad", "good"], fails).await;
        world.register();
        let mut asked = Vec::new();
        for _ in 0..5 {
            asked.push(world.asked.recv().await.expect("it runs"));
        }
        let begun = asked[0].1;
        let asked: Vec<_> = asked
            .into_iter()
            .map(|(id, at)| (id, (at - begun).as_secs()))
            .collect();
        let wanted = [("bad", 0), ("good", 0), ("bad", 5), ("bad", 15), ("bad", 35)];
        assert_eq!(asked, wanted.map(|(id, at)| (id.to_owned(), at)));
        world.settle().await;
        assert_eq!(world.noted(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_can_abort_is_forgotten_and_what_never_succeeds_stays_noted() {
        let fails = |id: &str| match id {
            "gone" => Some((ErrorKind::NotFound, u32::MAX)),
            _ => Some((ErrorKind::UfsDenied, u32::MAX)),
        };
        let mut world = World::start(&["gone", "denied"], fails).await;
        world.register();
        tokio::time::sleep(PAUSE_MAX * (TRIES_MAX + 1)).await;
        assert_eq!(world.noted(), ["denied"]);
        let mut asked = 0;
        while world.asked.try_recv().is_ok() {
            asked += 1;
        }
        assert_eq!(asked, 1 + TRIES_MAX);
    }

    proptest! {
        #[test]
        fn what_waits_is_taken_when_it_is_due_and_in_order(
            pauses in prop::collection::vec(0_u64..20, 0..20),
            at in 0_u64..20,
        ) {
            let begun = Ports::system().clock.now();
            let scratch = tempfile::tempdir().expect("a scratch directory");
            let (notes, _, mut given_up) =
                UploadNotes::open(scratch.path().to_owned(), Arc::new(Inline)).expect("opens");
            let mut waiting = Waiting::default();
            for &pause in &pauses {
                let noted = futures::executor::block_on(notes.begun(upload("one"))).expect("noted");
                drop(noted);
                let left = given_up.try_recv().expect("it was given up");
                waiting.add(Due { at: begun + Duration::from_secs(pause), tries: 0, left });
            }
            let now = begun + Duration::from_secs(at);
            let mut taken = Vec::new();
            while let Some(due) = waiting.take_due(now) {
                taken.push((due.at - begun).as_secs());
            }
            let mut wanted: Vec<_> = pauses.iter().copied().filter(|&pause| pause <= at).collect();
            wanted.sort_unstable();
            prop_assert_eq!(taken, wanted);
            prop_assert_eq!(waiting.next_at().is_none(), pauses.iter().all(|&pause| pause <= at));
        }
    }
}
