//! What a process runs: the actors of its roles and how they are wired.
//!
//! With `--role all` the actors hold each other's ports directly; there is no socket between them. The listeners are
//! there for others. Things start from the bottom up (master, worker, mount, web) and stop in the other order.

mod fuse;
mod master;
mod worker;
mod workers;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use curvine_actors::kit::leader::LeaderPort;
use curvine_actors::kit::metrics::Of;
use curvine_actors::kit::threads::Threads;
use curvine_actors::kit::{MasterRef, Ports};
use curvine_conf::{Config, Loaded};
use curvine_protocol::number::whole_ms;
use curvine_protocol::{ClusterId, Error, ErrorKind, Result};

use crate::args::Role;
use crate::ready::Ready;
use crate::signals::StopSignals;
use crate::web::{Shown, Web};
use fuse::FuseRole;
use master::MasterRole;
use worker::WorkerRole;
use workers::Workers;

/// A process that serves.
pub struct Running {
    role: Role,
    config: Config,
    web: Option<Web>,
    fuse: Option<FuseRole>,
    worker: Option<WorkerRole>,
    master: Option<MasterRole>,
    /// They end when everything else has.
    threads: Option<Threads>,
}

impl Running {
    /// Answers when everything serves; nothing if a signal came before. What was started is stopped again then, and if
    /// something fails.
    pub async fn start(
        role: Role,
        loaded: &Loaded,
        ports: &Ports,
        signals: &mut StopSignals,
    ) -> Result<Option<Self>> {
        let mut running = Running {
            role,
            config: loaded.config.clone(),
            web: None,
            fuse: None,
            worker: None,
            master: None,
            threads: None,
        };
        match running.start_parts(loaded, ports, signals).await {
            Ok(ControlFlow::Continue(())) => Ok(Some(running)),
            Ok(ControlFlow::Break(signal)) => {
                tracing::info!("{signal} while starting");
                running.stop().await;
                Ok(None)
            }
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// A signal ends what waits for others. A mount under way is waited for: given up half-way, it would be left behind.
    async fn start_parts(
        &mut self,
        loaded: &Loaded,
        ports: &Ports,
        signals: &mut StopSignals,
    ) -> Result<ControlFlow<&'static str>> {
        /// The value, unless a signal comes first.
        macro_rules! unless_told {
            ($work:expr) => {
                tokio::select! {
                    done = $work => done?,
                    signal = signals.next() => return Ok(ControlFlow::Break(signal)),
                }
            };
        }
        let config = &loaded.config;
        if self.role == Role::Fuse && config.fuse.mount_point.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "no directory to mount on: set --mount-point DIR or `fuse.mount_point`",
            ));
        }
        // What may be refused comes before anybody hears of this node.
        let web = Web::listen(&config.web.listen, loaded.is_set("web.listen")).await?;
        // Of proxies; the master, the disks and the transfers have threads of their own.
        let arbiter = Arbiter::current();
        let workers = Workers::new(arbiter.clone(), ports);
        // A mount alone serves nobody.
        if self.role != Role::Fuse {
            self.threads = Some(Threads::start(config.node.threads).await?);
        }
        let serve_on = self.threads.as_ref().map_or(&[][..], Threads::handles);
        let mut cluster = expected_cluster(config)?;
        if matches!(self.role, Role::All | Role::Master) {
            let master = unless_told!(MasterRole::start(config, ports, workers.clone(), serve_on));
            cluster = Some(master.cluster());
            self.master = Some(master);
        }
        // Of a group, the master of this process may be one that follows.
        let (local, masters) = match &self.master {
            Some(master) if config.master.peers.len() <= 1 => (Some(master.port()), Vec::new()),
            Some(_) => (
                None,
                addresses(config.master.peers.iter().map(|peer| &peer.address)),
            ),
            None => (None, addresses(&config.client.masters)),
        };
        let master: MasterRef = match &local {
            Some(local) => local.clone(),
            None => Arc::new(LeaderPort::start(arbiter.clone(), &masters, ports)?),
        };
        if matches!(self.role, Role::All | Role::Worker) {
            let starting =
                WorkerRole::start(config, ports, master.clone(), workers.clone(), cluster, serve_on);
            let mut worker = unless_told!(starting);
            if let Some(cluster) = cluster {
                worker.belongs_to(cluster)?;
            }
            workers.wire(worker.id(), worker.port());
            self.worker = Some(worker);
        }
        if !config.fuse.mount_point.is_empty() {
            let client = match local {
                Some(local) => fuse::local_client(&arbiter, config, local, workers.clone(), ports),
                None => unless_told!(fuse::remote_client(config, masters)),
            };
            self.fuse = Some(FuseRole::start(config, client).await?);
        }
        let shown = Shown {
            role: self.role.name(),
            master,
            parts: self.parts(),
        };
        self.web = web.map(|listener| Web::start(listener, shown)).transpose()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Whose metrics this process has.
    fn parts(&self) -> Vec<Of> {
        let mut parts = vec![Of::Node, Of::Cluster];
        parts.extend(self.master.as_ref().map(|_| Of::Master));
        parts.extend(self.worker.as_ref().map(|_| Of::Worker));
        parts.extend(self.fuse.as_ref().map(|_| Of::Mount));
        parts
    }

    /// What this process serves.
    pub fn ready(&self, after: Duration) -> Ready {
        let owns_data = self.master.is_some() || self.worker.is_some();
        let data_dir = Path::new(&self.config.node.data_dir);
        Ready {
            event: "ready",
            version: env!("CARGO_PKG_VERSION"),
            role: self.role.name(),
            pid: std::process::id(),
            cluster: self.master.as_ref().map(|master| master.cluster().to_string()),
            master: self.master.as_ref().map(|master| master.address().to_owned()),
            worker: self.worker.as_ref().map(|worker| worker.address().to_owned()),
            masters: match self.master {
                Some(_) => Vec::new(),
                None => self
                    .config
                    .client
                    .masters
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            },
            data_dirs: self
                .worker
                .as_ref()
                .map_or_else(Vec::new, |worker| worker.data_dirs.clone()),
            web: self.web.as_ref().map(|web| web.address().to_owned()),
            data_dir: owns_data.then(|| {
                let absolute = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
                absolute.display().to_string()
            }),
            mount_point: self
                .fuse
                .as_ref()
                .map(|fuse| fuse.mount_point().display().to_string()),
            ready_ms: whole_ms(after).into(),
        }
    }

    /// Resolves when somebody else has unmounted what this process mounted. Never, if it has no mount.
    pub async fn unmounted(&self) {
        match &self.fuse {
            Some(fuse) => fuse.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends a mount that was unmounted; whether this process serves anything else.
    pub async fn forget_mount(&mut self) -> bool {
        if let Some(fuse) = self.fuse.take() {
            tracing::info!("{} was unmounted", fuse.mount_point().display());
            fuse.stop().await;
        }
        self.role != Role::Fuse
    }

    /// Stops in order: nobody is asked after they have stopped.
    pub async fn stop(self) {
        drop(self.web);
        if let Some(fuse) = self.fuse {
            fuse.stop().await;
        }
        if let Some(worker) = self.worker {
            worker.stop().await;
        }
        if let Some(master) = self.master {
            master.stop().await;
        }
        drop(self.threads);
    }
}

fn addresses<'a>(of: impl IntoIterator<Item = &'a curvine_conf::Address>) -> Vec<String> {
    of.into_iter().map(ToString::to_string).collect()
}

/// The cluster that the configuration demands.
fn expected_cluster(config: &Config) -> Result<Option<ClusterId>> {
    match config.node.cluster.trim() {
        "" => Ok(None),
        id => ClusterId::try_from(id.to_owned())
            .map(Some)
            .map_err(|e| Error::new(ErrorKind::Config, format!("`cluster`: {e}"))),
    }
}
