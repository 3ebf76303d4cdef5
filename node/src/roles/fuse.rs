//! The FUSE mount of a process.

use std::path::Path;
use std::sync::Arc;

use actix_rt::ArbiterHandle;
use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::{MasterRef, Ports};
use curvine_conf::Config;
use curvine_fuse::{MountOptions, Mounted};
use curvine_protocol::Result;
use curvine_protocol::number::to_usize;

use super::workers::Workers;

/// A mount that serves, and the client session behind it.
pub struct FuseRole {
    mounted: Mounted,
    client: Client,
}

/// A client of the master and the worker of this process, without a socket.
pub fn local_client(
    arbiter: &ArbiterHandle,
    config: &Config,
    master: MasterRef,
    workers: Arc<Workers>,
    ports: &Ports,
) -> Client {
    Client::local(
        arbiter,
        master,
        Arc::new(move |id| workers.local(id)),
        options(config),
        ports.clone(),
    )
}

/// A client of masters elsewhere.
pub async fn remote_client(config: &Config, masters: Vec<String>) -> Result<Client> {
    Client::connect(masters, options(config)).await
}

fn options(config: &Config) -> ClientOptions {
    ClientOptions {
        retry_for: config.client.operation_timeout.0,
        connect_timeout: config.client.connect_timeout.0,
        ..ClientOptions::on_host(&config.client.host)
    }
}

impl FuseRole {
    pub async fn start(config: &Config, client: Client) -> Result<Self> {
        let section = &config.fuse;
        let options = MountOptions {
            mount_point: section.mount_point.as_str().into(),
            ttl: section.ttl.0,
            threads: to_usize(section.threads),
            allow_other: section.allow_other,
            locks: section.locks,
        };
        let mounted = curvine_fuse::mount(client.clone(), options).await?;
        Ok(FuseRole { mounted, client })
    }

    /// Resolves when somebody else has unmounted it.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        self.mounted.ended()
    }

    pub fn mount_point(&self) -> &Path {
        self.mounted.mount_point()
    }

    /// Flushes, unmounts, ends the session.
    pub async fn stop(self) {
        self.mounted.unmount().await;
        self.client.close().await;
    }
}
