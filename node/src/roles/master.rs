//! The master of a process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use curvine_actors::kit::listener::{Limits, Serving, bind};
use curvine_actors::kit::{MasterRef, Ports};
use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::replica::{LogLimits, Members, Proxies};
use curvine_actors::master::workers::WorkerConnector;
use curvine_actors::master::{self, MasterConfig, MasterHandle};
use curvine_conf::Config;
use curvine_protocol::number::to_usize;
use curvine_protocol::{ClusterId, Error, ErrorKind, NodeId, Result};

use tokio::runtime::Handle;

use crate::owned_dir::OwnedDir;

/// How long calls in flight may take to end at a stop.
const PATIENCE: Duration = Duration::from_secs(3);

/// A master that serves.
pub struct MasterRole {
    handle: MasterHandle,
    cluster: ClusterId,
    serving: Serving,
    /// Its own thread: what the listeners and the worker do never delays Raft's timers.
    arbiter: Arbiter,
    /// Holds the lock until everything else has stopped.
    dir: OwnedDir,
}

impl MasterRole {
    /// Answers when its group has a leader. Connections are served on the threads of `serve_on`.
    pub async fn start(
        config: &Config,
        ports: &Ports,
        workers: Arc<dyn WorkerConnector>,
        serve_on: &[Handle],
    ) -> Result<Self> {
        let section = &config.master;
        let id = NodeId(section.id);
        let peers: BTreeMap<NodeId, String> = (section.peers.iter())
            .map(|peer| (NodeId(peer.id), peer.address.to_string()))
            .collect();
        if !peers.is_empty() && !peers.contains_key(&id) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("`master.peers` does not name this master, number {id} (--id)"),
            ));
        }
        if peers.len() < section.peers.len() {
            return Err(Error::new(
                ErrorKind::Config,
                "`master.peers` names an id twice: each master has its own",
            ));
        }
        let mut dir = OwnedDir::open(
            &Path::new(&config.node.data_dir).join("master"),
            "master",
            super::expected_cluster(config)?,
        )?;
        dir.belongs_to_master(section.id)?;
        let bound = bind(section.listen.as_str(), ports).await?.spread_over(serve_on);
        // A picked port is known only now; peers name their ports.
        let members = match peers.is_empty() {
            true => Members::alone(id, bound.address()),
            false => Members {
                me: id,
                addresses: peers,
            },
        };
        let arbiter = Arbiter::new();
        let config = MasterConfig {
            members,
            directory: dir.path().to_owned(),
            defaults: FileDefaults {
                block_bytes: section.block_size.0,
                replicas: u8::try_from(section.replicas)
                    .map_err(|_| Error::new(ErrorKind::Config, "`master.replicas` is at most 255"))?,
            },
            workers,
            masters: Arc::new(Proxies::in_arbiter(arbiter.handle(), ports)),
            log_limits: LogLimits::default(),
            pin_limit_percent: section.pin_limit,
            hot_copies: to_usize(section.hot_copies),
        };
        let handle = master::start(&arbiter.handle(), config, ports).await?;
        let serving = bound.serve_master(handle.port.clone(), Limits::default());
        let cluster = handle.joined().await?;
        dir.belongs_to(cluster)?;
        Ok(MasterRole {
            handle,
            cluster,
            serving,
            arbiter,
            dir,
        })
    }

    pub fn port(&self) -> MasterRef {
        self.handle.port.clone()
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn address(&self) -> &str {
        self.serving.address()
    }

    /// Ends the calls in flight, flushes, lets go of the directory.
    pub async fn stop(self) {
        self.handle.retire().await;
        self.serving.stop(PATIENCE).await;
        self.handle.stop().await;
        self.arbiter.stop();
        drop(self.dir);
    }
}
