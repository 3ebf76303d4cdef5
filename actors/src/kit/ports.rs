//! What the outside world gives a node. Production hands over the real ones; tests and the simulator their own.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use curvine_protocol::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::network::{Network, TcpNetwork};

/// The time. Sleeping is `tokio::time`, which a simulator can drive; both follow the same clock there.
pub trait Clock: Send + Sync {
    /// For durations; never goes back.
    #[expect(clippy::disallowed_methods, reason = "it is the port's own reading")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Nanoseconds since the Unix epoch.
    fn wall_ns(&self) -> i64;
}

/// Random numbers: ids, tokens, jitter.
pub trait Random: Send + Sync {
    fn next_u64(&self) -> u64;
}

/// Where blocking work (LMDB commits, fsync, pread) goes, so that no handler blocks.
pub trait Offload: Send + Sync {
    /// Runs the work soon, after everything given before. Never blocks.
    fn run(&self, work: Box<dyn FnOnce() + Send>);
}

/// Runs work on `offload` and waits for its result.
///
/// # Errors
/// `Internal` if the work vanished, because it panicked or the thread is gone.
pub async fn offloaded<T: Send + 'static>(
    offload: &dyn Offload,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    offload.run(Box::new(move || {
        let _ = done.send(work());
    }));
    result
        .await
        .map_err(|_| Error::new(ErrorKind::Internal, "blocking work did not finish"))
}

/// Makes an [`Offload`] with a thread name.
pub type MakeOffload = Arc<dyn Fn(&str) -> Arc<dyn Offload> + Send + Sync>;

/// Everything a node takes from outside but its disks and its configuration.
#[derive(Clone)]
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub network: Arc<dyn Network>,
    /// Makes an [`Offload`] with the given thread name, running its work in order on one thread.
    pub offload: MakeOffload,
}

impl Ports {
    /// The real clock, random numbers, TCP and threads.
    pub fn system() -> Self {
        Ports {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            network: Arc::new(TcpNetwork),
            offload: Arc::new(|name| Arc::new(DedicatedThread::new(name)) as Arc<dyn Offload>),
        }
    }

    /// A thread (or its stand-in) for blocking work, in order.
    pub fn offload(&self, name: &str) -> Arc<dyn Offload> {
        (self.offload)(name)
    }
}

pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "it is the port's own reading")]
    fn wall_ns(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// One thread that runs work in the order it was given. Ends when dropped, after the work it has.
pub struct DedicatedThread {
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl DedicatedThread {
    pub fn new(name: &str) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "`run` never blocks; whoever gives work waits for its end, and their number is limited"
        )]
        let (work, todo) = channel::<Box<dyn FnOnce() + Send>>();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || todo.into_iter().for_each(|work| work()))
            .expect("the system has a thread left at start-up");
        DedicatedThread { work }
    }
}

impl Offload for DedicatedThread {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        // Fails only if the thread panicked; the work is then dropped and `offloaded` reports it.
        let _ = self.work.send(work);
    }
}

/// Runs the work at once, on the caller's thread: for tests and simulators, where everything is one thread.
pub struct Inline;

impl Offload for Inline {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}
