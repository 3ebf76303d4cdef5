//! The worker of a process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curvine_actors::kit::listener::{Limits, Serving, bind};
use curvine_actors::kit::{MasterRef, Ports, WorkerConnector, WorkerRef};
use curvine_actors::worker::{self, WorkerConfig, WorkerHandle};
use curvine_conf::{Advertise, Config, DataDir, Reserve};
use curvine_protocol::cluster::{DiskStatus, Tier};
use curvine_protocol::{ClusterId, Error, ErrorKind, Result, WorkerId};
use tokio::runtime::Handle;

use crate::owned_dir::OwnedDir;

/// How long calls in flight may take to end at a stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// A worker that serves.
pub struct WorkerRole {
    handle: WorkerHandle,
    serving: Serving,
    address: String,
    /// `[TIER:CAPACITY]path` of each directory.
    pub data_dirs: Vec<String>,
    /// Holds the locks until everything else has stopped.
    dirs: Vec<OwnedDir>,
}

impl WorkerRole {
    /// `cluster`: the cluster it must belong to, if that is known. Connections are served on the threads of `serve_on`.
    pub async fn start(
        config: &Config,
        ports: &Ports,
        master: MasterRef,
        peers: Arc<dyn WorkerConnector>,
        cluster: Option<ClusterId>,
        serve_on: &[Handle],
    ) -> Result<Self> {
        let section = &config.worker;
        let mut entries = section.data_dirs.clone();
        if entries.is_empty() {
            entries.push(DataDir {
                tier: Tier::Ssd,
                capacity: None,
                path: Path::new(&config.node.data_dir).join("worker"),
            });
        }
        let (dirs, entries, failed) = open_dirs(entries, cluster)?;
        let usable = entries.iter().map(ToString::to_string);
        let useless = failed.iter().map(|disk| format!("{} (has failed)", disk.path));
        let data_dirs = usable.chain(useless).collect();
        let bound = bind(section.listen.as_str(), ports).await?.spread_over(serve_on);
        let address = match &section.advertise {
            Advertise::AsListen => bound.address(),
            Advertise::At(address) => address.to_string(),
        };
        let mut worker = WorkerConfig::new(entries);
        worker.failed_dirs = failed;
        worker.disk.reserve_bytes = match section.reserve {
            Reserve::Auto => None,
            Reserve::Of(size) => Some(size.0),
        };
        worker.disk.fsync = section.fsync;
        // A tick is a second.
        worker.disk.scrub_bytes_per_tick = section.scrub.0;
        if section.evict_low >= section.evict_high {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "`worker.evict_low` is {} and `worker.evict_high` is {}: eviction ends at the low one, which must be \
                     less",
                    section.evict_low, section.evict_high
                ),
            ));
        }
        worker.disk.eviction = section.eviction;
        worker.disk.evict_high = section.evict_high;
        worker.disk.evict_low = section.evict_low;
        worker.move_bytes_per_s = section.moves.0;
        worker.copy_bytes_per_s = section.copies.0;
        worker.labels = section.labels.0.clone();
        if worker.labels.host.is_empty() {
            worker.labels.host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        worker.heartbeat = section.heartbeat.0;
        worker.fill_budget_bytes = section.fill_buffers.0;
        let handle = worker::start(worker, ports.clone(), master, peers, address.clone()).await?;
        let serving = bound.serve_worker(handle.port.clone(), Limits::default());
        Ok(WorkerRole {
            handle,
            serving,
            address,
            data_dirs,
            dirs,
        })
    }

    /// Where others reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Records the cluster in the data directories.
    ///
    /// # Errors
    /// `WrongCluster` if one belongs to another.
    pub fn belongs_to(&mut self, cluster: ClusterId) -> Result<()> {
        self.dirs.iter_mut().try_for_each(|dir| dir.belongs_to(cluster))
    }

    pub fn id(&self) -> WorkerId {
        self.handle.id
    }

    pub fn port(&self) -> WorkerRef {
        self.handle.port.clone()
    }

    /// Ends the calls in flight, syncs, lets go of the directories.
    pub async fn stop(mut self) {
        self.serving.stop(PATIENCE).await;
        self.handle.stop().await;
        drop(self.dirs);
    }
}

/// Takes the data directories: those that are this process's now, the same as they are in the configuration, and those of the
/// configuration that have failed.
///
/// # Errors
/// Those of [`OwnedDir::open`]; `WrongCluster` if they are of several clusters. That a disk has failed is one where none of the others has been a worker's: what was never in
/// use is a mistake.
fn open_dirs(
    entries: Vec<DataDir>,
    cluster: Option<ClusterId>,
) -> Result<(Vec<OwnedDir>, Vec<DataDir>, Vec<DiskStatus>)> {
    let (mut dirs, mut usable, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for mut entry in entries {
        match OwnedDir::open(&entry.path, "worker", cluster) {
            Ok(dir) => {
                entry.path = dir.path().to_owned();
                dirs.push(dir);
                usable.push(entry);
            }
            Err(error) if worker::is_of_disk(&error) => failed.push((entry, error)),
            Err(error) => return Err(error),
        }
    }
    let of_cluster = |dir: &OwnedDir| Some((dir.path().display().to_string(), dir.cluster()?));
    let known: Vec<_> = dirs.iter().filter_map(of_cluster).collect();
    if let [(own, mine), others @ ..] = &known[..]
        && let Some((other, theirs)) = others.iter().find(|(_, theirs)| theirs != mine)
    {
        return Err(Error::new(
            ErrorKind::WrongCluster,
            format!(
                "{own} belongs to cluster {mine}, and {other} to cluster {theirs}: a worker has blocks of one cluster"
            ),
        ));
    }
    if let Some((_, error)) = failed.first()
        && !dirs.iter().any(|dir| worker::has_been(dir.path()))
    {
        return Err(error.clone());
    }
    let failed = failed
        .iter()
        .map(|(entry, error)| worker::has_failed(entry, error));
    Ok((dirs, usable, failed.collect()))
}
