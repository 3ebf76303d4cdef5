//! The worker: keeps blocks on its disks, serves them, fills them from under file systems, and tells the master.
//!
//! - [`disk`]: one actor per data directory; owns its blocks.
//! - [`disks`]: all of them together; says which one has a block, and which one gets a new one.
//! - [`door`]: answers every call of the worker service by routing it to the disk that has the block.
//! - [`membership`]: the Worker actor: registration, heartbeat, block reports, the master's orders.
//! - [`ufs_reader`], [`ufs_writer`]: transfers between under file systems and blocks.
//! - [`replication`]: replicas that are made from those of other workers.
//! - `shedding`: replicas that go because others have enough.
//! - `lending`: files of blocks, for programs on this host.
//! - `left_uploads`: aborts, in stores, uploads that failed or that a worker left when it died.
//!
//! Invariants: a full or failing disk is an error for its blocks, never for the worker. A worker serves one cluster
//! for life: its identity is in `worker.json` of the first data directory that is not in memory.

pub mod disk;
mod disks;
pub mod door;
#[cfg(test)]
mod golden;
mod identity;
mod left_uploads;
mod lending;
pub mod membership;
mod pace;
pub mod replication;
mod shedding;
pub mod source;
mod traffic;
pub mod ufs_reader;
pub mod ufs_writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use curvine_conf::{DataDir, EvictionPolicy, FsyncPolicy};
use curvine_protocol::cluster::{DiskStatus, Labels};
use curvine_protocol::{Error, ErrorKind, Result, WorkerId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use disk::DiskOptions;
use disks::{Disks, MayFail, Mover, StopMover};
pub use disks::{has_failed, is_of_disk};
use door::WorkerDoor;
use identity::Identity;
use left_uploads::LeftUploads;
use membership::{News, Session, Standing, Worker};
use pace::Pace;
use replication::Replication;
use shedding::Shedding;
use source::Sources;
use ufs_reader::{Resolver, StopReader, UfsReader};
use ufs_writer::UfsWriter;

use crate::kit::{MasterRef, Ports, WorkerConnector, WorkerRef};
use crate::ufs::upload_notes::UploadNotes;

/// What a worker needs to know besides its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Those that can be used, as far as is known.
    pub data_dirs: Vec<DataDir>,
    /// Those that cannot.
    pub failed_dirs: Vec<DiskStatus>,
    pub disk: DiskOptions,
    pub heartbeat: Duration,
    /// How long changes are gathered before the master is told.
    pub report_delay: Duration,
    /// Blocks of which the master was not told yet. If more have changed, a full report is shorter.
    pub news_max: usize,
    /// Bytes that fills may have in flight between an under file system and the disks.
    pub fill_budget_bytes: u64,
    /// What goes between data directories in the background, in bytes a second; 0 = nothing.
    pub move_bytes_per_s: u64,
    /// Where it stands.
    pub labels: Labels,
    /// What replicas that are made of other workers' may take, in bytes a second; 0 = no limit.
    pub copy_bytes_per_s: u64,
}

impl WorkerConfig {
    /// The defaults over these directories.
    pub fn new(data_dirs: Vec<DataDir>) -> Self {
        WorkerConfig {
            data_dirs,
            failed_dirs: Vec::new(),
            disk: DiskOptions {
                reserve_bytes: None,
                fsync: FsyncPolicy::Periodic,
                open_files_max: 1_024,
                lanes: 3,
                tick: Duration::from_secs(1),
                scrub_bytes_per_tick: 4 << 20,
                eviction: EvictionPolicy::S3Fifo,
                evict_high: 95,
                evict_low: 90,
                sinks: false,
            },
            heartbeat: Duration::from_secs(1),
            report_delay: Duration::from_millis(100),
            news_max: 1 << 20,
            fill_budget_bytes: 64 << 20,
            move_bytes_per_s: 64 << 20,
            labels: Labels::default(),
            copy_bytes_per_s: 0,
        }
    }
}

/// A running worker.
pub struct WorkerHandle {
    pub port: WorkerRef,
    pub id: WorkerId,
    worker: Addr<Worker>,
    reader: Addr<UfsReader>,
    mover: Addr<Mover>,
    /// Cancelled, nothing is lent any more.
    lending: CancellationToken,
    disks: Disks,
    threads: Threads,
}

/// The threads that a worker's actors run on.
pub enum Threads {
    /// Started for this worker, and ended with it.
    Own(Vec<actix::Arbiter>),
    /// Everything runs in an arbiter that is somebody else's: a simulator's.
    Given(actix::ArbiterHandle),
}

impl Threads {
    /// None yet.
    pub fn own() -> Self {
        Threads::Own(Vec::new())
    }

    /// Where the next actors run.
    fn start(&mut self, make: impl FnOnce() -> actix::Arbiter) -> actix::ArbiterHandle {
        match self {
            Threads::Own(arbiters) => {
                let arbiter = make();
                let handle = arbiter.handle();
                arbiters.push(arbiter);
                handle
            }
            Threads::Given(arbiter) => arbiter.clone(),
        }
    }

    fn stop(&mut self) {
        if let Threads::Own(arbiters) = self {
            for arbiter in arbiters.drain(..) {
                arbiter.stop();
            }
        }
    }
}

/// Nothing runs on after a start that failed half-way.
impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Threads that move bytes between under file systems and disks.
const TRANSFER_THREADS: usize = 2;
/// Blocking calls at once of each of them, for under file systems that are directories. A thread for each block that is
/// loaded would cost more than its reads.
const BLOCKING_THREADS: usize = 16;

fn transfer_arbiter() -> actix::Arbiter {
    actix::Arbiter::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .expect("threads can be started")
    })
}
/// How long the first registration may take before the start fails.
const FIRST_REGISTRATION: Duration = Duration::from_secs(20);

/// Opens the data directories, registers with the master and serves. `address` is where others reach the worker, `peers`
/// how it reaches them.
///
/// # Errors
/// Those of the data directories; `WrongCluster`; `Unreachable` or `Timeout` if no master answers a worker that was never
/// registered. One that was registered before starts, and goes on trying.
pub async fn start(
    config: WorkerConfig,
    ports: Ports,
    master: MasterRef,
    peers: Arc<dyn WorkerConnector>,
    address: String,
) -> Result<WorkerHandle> {
    let sources = Arc::new(source::OpenDal);
    start_with(config, ports, master, peers, address, sources, Threads::own()).await
}

/// Whether a data directory has been a worker's that was registered.
pub fn has_been(directory: &Path) -> bool {
    Identity::load(directory).is_ok_and(|identity| identity.worker.is_some())
}

/// [`start`] with other under file systems than OpenDAL's, and perhaps on a thread that is there already.
///
/// # Errors
/// As [`start`].
pub async fn start_with(
    config: WorkerConfig,
    ports: Ports,
    master: MasterRef,
    peers: Arc<dyn WorkerConnector>,
    address: String,
    sources: Arc<dyn Sources>,
    mut threads: Threads,
) -> Result<WorkerHandle> {
    if config.data_dirs.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "a worker needs a data directory: set `worker.data_dirs`",
        ));
    }
    let identity = Identity::of(config.data_dirs.iter().map(|directory| &*directory.path))?;

    let news = News::new(config.news_max);
    let tell = {
        let news = news.clone();
        Arc::new(move |change| news.tell(change))
    };
    let failed = MayFail {
        failed: config.failed_dirs.clone(),
        // What a worker has never used is a mistake of the configuration.
        may_more: identity.worker.is_some(),
    };
    let (disks, in_memory) = Disks::start(
        &config.data_dirs,
        failed,
        &config.disk,
        &ports,
        &mut threads,
        tell,
    )
    .await?;

    let homes = disks.homes();
    // Not before the disks are this process's.
    let noting = ports.offload("worker-uploads");
    let (notes, left, given_up) = UploadNotes::open(homes[0].join("uploads"), noting)?;

    let control = threads.start(actix::Arbiter::new);
    let standing = Standing::new(ports.clock.clone(), ports.random.clone());
    let (session_to, session) = watch::channel(None::<Session>);
    let worker = Worker::new(
        homes,
        identity,
        address,
        disks.clone(),
        master.clone(),
        news,
        standing.clone(),
        &ports,
        &config,
        session_to,
    );
    let worker = Worker::start_in_arbiter(&control, |_| worker);
    let pace = |bytes_per_s| Pace::new(bytes_per_s, ports.clock.clone());
    let moves = Some(config.move_bytes_per_s).filter(|bytes| *bytes > 0).map(pace);
    let mover = Mover::new(disks.clone(), in_memory, config.disk.tick, moves);
    let mover = Mover::start_in_arbiter(&control, |_| mover);
    let resolver = Arc::new(Resolver::new(
        master,
        session.clone(),
        sources,
        notes.clone(),
        ports.clock.clone(),
        disks.fetches().clone(),
        disks.traffic().clone(),
        peers.clone(),
    ));
    let uploads = LeftUploads::new(resolver.clone(), notes, left, given_up, ports.clock.clone());
    control.spawn(uploads.run(session.clone()));
    let transfers: Vec<_> = (0..TRANSFER_THREADS)
        .map(|_| threads.start(transfer_arbiter))
        .collect();
    let reader = UfsReader::new(
        disks.clone(),
        resolver.clone(),
        transfers.clone(),
        config.fill_budget_bytes,
        ports.clock.clone(),
    );
    let reader = UfsReader::start_in_arbiter(&control, |_| reader);
    let replication = Replication::new(disks.clone(), peers.clone(), pace(config.copy_bytes_per_s));
    let shedding = Shedding::new(disks.clone(), peers.clone(), session.clone());
    let writer = UfsWriter::new(disks.clone(), peers, resolver);
    let writer = UfsWriter::start_in_arbiter(&transfers[0], |_| writer);
    let lending = CancellationToken::new();
    let host_socket = lending::start(&control, disks.clone(), &ports, lending.clone());
    let door = WorkerDoor::new(
        disks.clone(),
        session.clone(),
        standing,
        reader.clone(),
        writer,
        replication,
        shedding,
        host_socket.unwrap_or_default(),
    );
    let mut handle = WorkerHandle {
        port: Arc::new(door),
        id: WorkerId(0),
        worker,
        reader,
        mover,
        lending,
        disks,
        threads,
    };
    match first_session(&handle.worker, session).await {
        Ok(id) => handle.id = id,
        Err(error) => {
            handle.stop().await;
            return Err(error);
        }
    }
    Ok(handle)
}

async fn first_session(
    worker: &Addr<Worker>,
    mut session: watch::Receiver<Option<Session>>,
) -> Result<WorkerId> {
    let registered = tokio::time::timeout(FIRST_REGISTRATION, async {
        loop {
            if let Some(session) = *session.borrow_and_update() {
                return Ok(session.worker);
            }
            match worker.send(membership::GetRefusal).await {
                Ok(Some(refusal)) => return Err(refusal),
                Ok(None) => {}
                Err(_) => return Err(Error::new(ErrorKind::Stopping, "the worker has stopped")),
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), session.changed()).await;
        }
    });
    match registered.await {
        Ok(outcome) => outcome,
        Err(_) => match worker.send(membership::GetIdentity).await {
            Ok(Identity {
                worker: Some(worker), ..
            }) => {
                tracing::warn!("no master has answered yet; worker {worker} goes on trying");
                Ok(worker)
            }
            _ => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "no master registered this worker within {} s; check that one runs and `worker.master` names it",
                    FIRST_REGISTRATION.as_secs()
                ),
            )),
        },
    }
}

impl WorkerHandle {
    /// Stops: what is in flight ends, everything is synced, the disks note a stop in order.
    pub async fn stop(&mut self) {
        self.lending.cancel();
        let _ = self.reader.send(StopReader).await;
        let _ = self.mover.send(StopMover).await;
        let _ = self.worker.send(membership::StopWorker).await;
        self.disks.stop().await;
        self.threads.stop();
    }
}

impl Drop for WorkerHandle {
    /// Without [`WorkerHandle::stop`] this is what a kill leaves: nothing more is synced or noted.
    fn drop(&mut self) {
        self.lending.cancel();
        self.threads.stop();
    }
}

#[cfg(test)]
mod tests;
