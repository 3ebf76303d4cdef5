//! The master of a process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use curvine_actors::kit::listener::{Limits, Serving, bind};
use curvine_actors::kit::{MasterRef, Ports};
use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::services::WorkerConnector;
use curvine_actors::master::{self, MasterConfig, MasterHandle};
use curvine_conf::Config;
use curvine_protocol::{ClusterId, Error, ErrorKind, NodeId, Result};

use tokio::sync::oneshot;

use crate::data_dir::DataDir;

/// How long calls in flight may take to end at a stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// A master that serves.
pub struct MasterRole {
    handle: MasterHandle,
    serving: Serving,
    /// Its own thread: what the listeners and the worker do never delays Raft's timers.
    arbiter: Arbiter,
    /// Holds the lock until everything else has stopped.
    dir: DataDir,
}

impl MasterRole {
    /// Answers when it leads.
    pub async fn start(config: &Config, ports: &Ports, workers: Arc<dyn WorkerConnector>) -> Result<Self> {
        let section = &config.master;
        let address = match section.peers.as_slice() {
            [] => section.listen.as_str(),
            [peer] if peer.id == section.id => peer.address.as_str(),
            [_] => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "`master.peers` does not name this master, number {} (--id)",
                        section.id
                    ),
                ));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "groups of several masters are not there yet: start one, without --peers",
                ));
            }
        };
        let mut dir = DataDir::open(
            &Path::new(&config.node.data_dir).join("master"),
            "master",
            super::expected_cluster(config)?,
        )?;
        let bound = bind(section.listen.as_str(), ports).await?;
        // A picked port is known only now; peers name their ports.
        let address = match section.peers.is_empty() {
            true => bound.address(),
            false => address.to_owned(),
        };
        let master = MasterConfig {
            id: NodeId(section.id),
            address,
            directory: dir.path().to_owned(),
            defaults: FileDefaults {
                block_bytes: section.block_size.0,
                replicas: u8::try_from(section.replicas)
                    .map_err(|_| Error::new(ErrorKind::Config, "`master.replicas` is at most 255"))?,
            },
            connector: workers,
        };
        let arbiter = Arbiter::new();
        let handle = start_in(&arbiter, master, ports.clone()).await?;
        dir.belongs_to(handle.cluster)?;
        let serving = bound.serve_master(handle.port.clone(), Limits::default());
        Ok(MasterRole {
            handle,
            serving,
            arbiter,
            dir,
        })
    }

    pub fn port(&self) -> MasterRef {
        self.handle.port.clone()
    }

    pub fn cluster(&self) -> ClusterId {
        self.handle.cluster
    }

    pub fn address(&self) -> &str {
        self.serving.address()
    }

    /// Ends the calls in flight, flushes, lets go of the directory.
    pub async fn stop(self) {
        self.serving.stop(PATIENCE).await;
        self.handle.stop().await;
        self.arbiter.stop();
        drop(self.dir);
    }
}

/// Starts the master's actors on the arbiter's thread.
async fn start_in(arbiter: &Arbiter, config: MasterConfig, ports: Ports) -> Result<MasterHandle> {
    let (done, started) = oneshot::channel();
    arbiter.spawn(async move {
        // Nobody waits any more if the process is stopping.
        let _ = done.send(master::start(config, &ports).await);
    });
    started.await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Stopping,
            "the master's thread ended while it started",
        ))
    })
}
