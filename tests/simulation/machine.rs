//! One machine: a clock, a disk's speed and a process, on the simulation's thread.
//!
//! Each has a tokio runtime of its own under virtual time. To let a while pass is to run that runtime until its clock is
//! there; to kill the process is to drop the runtime with everything in it; to stop it is not to run it. What the process
//! is (a master, a worker, a mount) is the business of whoever has the machine.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System, SystemRunner};
use curvine_actors::kit::{Clock, Offload, Ports};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::chance::{Chance, EPOCH};

/// How slow a machine's disk is: microseconds for each piece of work, at most.
pub type DiskDelay = Arc<AtomicU64>;

pub struct Machine {
    chance: Chance,
    /// Its clock's seconds in one of the world's.
    pace: f64,
    /// How far its wall clock is from the world's. Not the clock by which it measures time.
    skew_ns: Arc<AtomicI64>,
    pub disk_delay: DiskDelay,
    process: Option<Process>,
    stopped: bool,
    /// How long it has been in the world, and the whiles of that in which it ran nothing.
    passed: Duration,
    idle: Vec<Range<Duration>>,
}

/// What a kill ends.
struct Process {
    system: SystemRunner,
    /// Of its clock, when it began; and how far that is to be.
    origin: Instant,
    until: Duration,
}

impl Machine {
    pub fn new(chance: Chance) -> Machine {
        Machine {
            // A twentieth is worse than any quartz.
            pace: 0.95 + chance.below(100) as f64 / 1_000.0,
            skew_ns: Arc::new(AtomicI64::new(
                i64::try_from(chance.below(20_000_000_000)).unwrap_or(0) - 10_000_000_000,
            )),
            disk_delay: Arc::new(AtomicU64::new(1_000)),
            chance,
            process: None,
            stopped: false,
            passed: Duration::ZERO,
            idle: Vec::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// A new process, at a time of the world: where its actors are to run, and what it has from outside.
    pub fn start(&mut self, now: Duration) -> std::io::Result<(ArbiterHandle, Ports)> {
        assert!(self.process.is_none(), "the machine's process runs");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let system = System::with_tokio_rt(|| runtime);
        let (arbiter, origin) = system.block_on(async { (Arbiter::current(), Instant::now()) });
        let (disk_delay, chance) = (self.disk_delay.clone(), self.chance.fork());
        let ports = Ports {
            clock: Arc::new(MachineClock {
                origin,
                began_ns: signed_ns(EPOCH + now),
                skew_ns: self.skew_ns.clone(),
            }),
            random: Arc::new(self.chance.fork()),
            // Others are reached through the simulated network's ways, and nobody else is.
            network: Arc::new(curvine_actors::kit::network::NoNetwork),
            offload: Arc::new(move |_| {
                Arc::new(Thread::new(disk_delay.clone(), chance.fork())) as Arc<dyn Offload>
            }),
        };
        self.process = Some(Process {
            system,
            origin,
            until: Duration::ZERO,
        });
        self.stopped = false;
        Ok((arbiter, ports))
    }

    /// Runs something in the process, if there is one.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        if let Some(process) = &self.process {
            process.system.runtime().spawn(work);
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
        self.stopped = false;
    }

    /// SIGSTOP: its clock goes on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// SIGCONT.
    pub fn go_on(&mut self) {
        self.stopped = false;
    }

    /// Somebody sets its wall clock.
    pub fn step_clock(&mut self, by_ns: i64) {
        self.skew_ns.fetch_add(by_ns, Ordering::Relaxed);
    }

    /// How long it took, until now and in the world's time, to run for a while: longer than that while if the process
    /// was stopped or dead in between.
    pub fn took_to_run(&self, time: Duration) -> Duration {
        let (mut left, mut since) = (time, self.passed);
        for idle in self.idle.iter().rev() {
            let Some(rest) = left.checked_sub(since - idle.end) else {
                break;
            };
            (left, since) = (rest, idle.start);
        }
        self.passed - since.saturating_sub(left)
    }

    fn was_idle_since(&mut self, begun: Duration) {
        match self.idle.last_mut() {
            Some(last) if last.end == begun => last.end = self.passed,
            _ => self.idle.push(begun..self.passed),
        }
    }

    /// Lets a while of the world's time pass.
    pub fn pass(&mut self, time: Duration) {
        let begun = self.passed;
        self.passed += time;
        if self.stopped || self.process.is_none() {
            self.was_idle_since(begun);
        }
        let Some(process) = &mut self.process else { return };
        process.until += time.mul_f64(self.pace);
        if self.stopped {
            return;
        }
        let until = process.origin + process.until;
        process.system.block_on(async move {
            let behind = until.saturating_duration_since(Instant::now());
            if behind > Duration::from_millis(100) {
                // It was stopped: all at once it is this late.
                tokio::time::advance(behind).await;
            } else {
                tokio::time::sleep_until(until).await;
            }
        });
    }
}

/// The clock of one machine: its tokio runtime's.
struct MachineClock {
    origin: Instant,
    began_ns: i64,
    skew_ns: Arc<AtomicI64>,
}

/// Nanoseconds as clocks have them; a simulation is short.
fn signed_ns(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Clock for MachineClock {
    fn wall_ns(&self) -> i64 {
        let since_ns = signed_ns(Instant::now() - self.origin);
        self.began_ns + self.skew_ns.load(Ordering::Relaxed) + since_ns
    }
}

/// A thread that does blocking work, each piece after a while.
struct Thread(UnboundedSender<Box<dyn FnOnce() + Send>>);

impl Thread {
    fn new(delay: DiskDelay, chance: Chance) -> Thread {
        let (work, mut todo) = unbounded_channel::<Box<dyn FnOnce() + Send>>();
        tokio::task::spawn_local(async move {
            while let Some(work) = todo.recv().await {
                let delay_us = chance.below(delay.load(Ordering::Relaxed) + 1);
                tokio::time::sleep(Duration::from_micros(delay_us)).await;
                work();
            }
        });
        Thread(work)
    }
}

impl Offload for Thread {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let _ = self.0.send(work);
    }
}
