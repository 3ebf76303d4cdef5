//! One machine: a clock, a disk and a master, all on the simulation's thread.
//!
//! Each has a tokio runtime of its own under virtual time. To let a while pass is to run that runtime until its clock is
//! there; to kill the process is to drop the runtime with everything in it; to stop it is not to run it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, System, SystemRunner};
use curvine_actors::kit::{Clock, Offload, Ports, WorkerRef};
use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::replica::{Inspection, LogLimits, Members, ReplicaPort};
use curvine_actors::master::workers::WorkerConnector;
use curvine_actors::master::{self, MasterConfig, MasterHandle};
use curvine_protocol::{Error, ErrorKind, NodeId, Result, WorkerId};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::chance::{Chance, EPOCH};
use crate::disk;
use crate::network::{Letter, Network, Request, Ways};

/// How slow a host's disk is: microseconds for each piece of work, at most.
pub type DiskDelay = Arc<AtomicU64>;

pub struct Host {
    pub id: NodeId,
    pub members: Members,
    directory: PathBuf,
    network: Network,
    limits: LogLimits,
    chance: Chance,
    /// Its clock's seconds in one of the world's.
    pace: f64,
    skew_ns: i64,
    pub disk_delay: DiskDelay,
    process: Option<Process>,
    stopped: bool,
}

/// What a kill ends. In the order in which it is dropped.
struct Process {
    started: Rc<RefCell<Option<Result<Rc<MasterHandle>>>>>,
    system: SystemRunner,
    /// Of its clock, when it began; and how far that is to be.
    origin: Instant,
    until: Duration,
}

impl Host {
    pub fn new(
        members: Members,
        scratch: &Path,
        network: Network,
        limits: LogLimits,
        chance: Chance,
    ) -> Host {
        let id = members.me;
        Host {
            id,
            members,
            directory: scratch.join(format!("master-{id}")),
            network,
            limits,
            // A twentieth is worse than any quartz.
            pace: 0.95 + chance.below(100) as f64 / 1_000.0,
            skew_ns: chance.below(20_000_000_000) as i64 - 10_000_000_000,
            disk_delay: Arc::new(AtomicU64::new(1_000)),
            chance,
            process: None,
            stopped: false,
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Starts the process, at a time of the world.
    pub fn start(&mut self, now: Duration) -> Result<()> {
        assert!(self.process.is_none(), "master {} runs", self.id);
        std::fs::create_dir_all(&self.directory)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let system = System::with_tokio_rt(|| runtime);
        let (arbiter, origin) = system.block_on(async { (Arbiter::current(), Instant::now()) });
        let config = MasterConfig {
            members: self.members.clone(),
            directory: self.directory.clone(),
            defaults: FileDefaults {
                block_bytes: 1 << 20,
                replicas: 1,
            },
            workers: Arc::new(NoWorkers),
            masters: Arc::new(Ways {
                network: self.network.clone(),
                from: self.id,
            }),
            log_limits: self.limits,
        };
        let (disk_delay, chance) = (self.disk_delay.clone(), self.chance.fork());
        let ports = Ports {
            clock: Arc::new(HostClock {
                origin,
                began_ns: (EPOCH + now).as_nanos() as i64 + self.skew_ns,
            }),
            random: Arc::new(self.chance.fork()),
            // Masters are reached through the ways above, and nothing else is.
            network: Arc::new(curvine_actors::kit::network::TcpNetwork),
            offload: Arc::new(move |_| {
                Arc::new(Thread::new(disk_delay.clone(), chance.fork())) as Arc<dyn Offload>
            }),
        };
        let started = Rc::default();
        let slot: Rc<RefCell<Option<Result<Rc<MasterHandle>>>>> = Rc::clone(&started);
        system.runtime().spawn(async move {
            let handle = master::start(&arbiter, config, &ports).await;
            *slot.borrow_mut() = Some(handle.map(Rc::new));
        });
        self.process = Some(Process {
            started,
            system,
            origin,
            until: Duration::ZERO,
        });
        self.stopped = false;
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
        self.stopped = false;
    }

    /// The machine loses its power: also what the page cache had. Returns how many pages were lost.
    pub fn lose_power(&mut self) -> std::io::Result<u64> {
        self.kill();
        let lost = disk::cut_power(&self.directory, &self.chance)?;
        // The next boot has another id. A state that was closed says so itself.
        let mark = self.directory.join("state.trust");
        if std::fs::read_to_string(&mark).is_ok_and(|mark| mark != "clean") {
            std::fs::write(&mark, "another boot")?;
        }
        Ok(lost)
    }

    /// A new, empty disk.
    pub fn wipe(&mut self) -> std::io::Result<()> {
        self.kill();
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// SIGSTOP: its clock goes on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// SIGCONT.
    pub fn go_on(&mut self) {
        self.stopped = false;
    }

    /// SIGTERM. The process is gone when [`Self::has_ended`] says so.
    pub fn terminate(&mut self) -> Option<Rc<RefCell<bool>>> {
        let process = self.process.as_mut()?;
        let started = process.started.clone();
        let ended = Rc::new(RefCell::new(false));
        let tell = ended.clone();
        process.system.runtime().spawn(async move {
            let handle = started.borrow().clone();
            if let Some(Ok(handle)) = handle {
                handle.retire().await;
                // From here on it answers nobody.
                *started.borrow_mut() = None;
                handle.stop().await;
            }
            *tell.borrow_mut() = true;
        });
        Some(ended)
    }

    /// Lets a while of the world's time pass.
    pub fn pass(&mut self, time: Duration) {
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

    /// Takes in a message.
    pub fn deliver(&mut self, from: NodeId, request: Arc<dyn Request>) {
        let (network, to) = (self.network.clone(), self.id);
        let answer = move |outcome| {
            network.send(Letter::Answer {
                from: to,
                to: from,
                outcome,
            });
        };
        let port = self.with_master(|master| master.port.clone());
        match (&self.process, port) {
            (Some(process), Some(port)) => {
                process
                    .system
                    .runtime()
                    .spawn(async move { answer(request.serve(&port).await) });
            }
            _ => answer(request.refuse(Error::new(
                ErrorKind::Unreachable,
                format!("master {to} does not run"),
            ))),
        }
    }

    fn with_master<T>(&self, look: impl FnOnce(&MasterHandle) -> T) -> Option<T> {
        let started = self.process.as_ref()?.started.borrow();
        started.as_ref()?.as_ref().ok().map(|master| look(master))
    }

    /// Why it did not start, if so.
    pub fn failed_to_start(&self) -> Option<Error> {
        let started = self.process.as_ref()?.started.borrow();
        started.as_ref()?.as_ref().err().cloned()
    }

    pub fn replica(&self) -> Option<ReplicaPort> {
        self.with_master(|master| master.replica.clone())
    }

    pub fn inspect(&self) -> Option<Inspection> {
        self.replica().map(|replica| replica.inspect())
    }
}

/// The clock of one host: its tokio runtime's.
struct HostClock {
    origin: Instant,
    began_ns: i64,
}

impl Clock for HostClock {
    fn wall_ns(&self) -> i64 {
        self.began_ns + (Instant::now() - self.origin).as_nanos() as i64
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

struct NoWorkers;

impl WorkerConnector for NoWorkers {
    fn connect(&self, id: WorkerId, _: &str) -> WorkerRef {
        unreachable!("worker {id}: there are none")
    }
}
