//! The client, and the runtime that its connections live on.
//!
//! A client that has written once renews its leases for ever: it holds itself alive, and with it its connection to the name
//! node. So each has a runtime of its own, of one thread, and when the last one who needs the client lets go of it, that
//! ends with all that is on it. The checksums of what is read are made there, too, and not on the thread of an actor.

use std::ops::Deref;

use hdfs_native::{Client, ClientBuilder, HdfsError};
use tokio::runtime::{Builder, Handle, Runtime};

use super::refusal;

/// Names of hosts that are looked up at the same time.
const LOOKUPS_MAX: usize = 4;
/// Where a name node listens if the URI has no port, as in Hadoop.
const PORT: u16 = 8020;
/// What the client does by itself, unless the mount says otherwise. Its own values are for programs that wait for minutes.
const DEFAULTS: &[(&str, &str)] = &[
    ("dfs.client.failover.max.attempts", "3"),
    ("dfs.client.failover.sleep.base.millis", "100"),
    ("dfs.client.failover.sleep.max.millis", "1000"),
    ("dfs.client.socket-timeout", "10000"),
];

/// What leads to the files of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A host, a host and a port, or a name service.
    pub name_node: String,
    /// `/a/b`; empty for all of HDFS.
    pub root: String,
    pub user: Option<String>,
    /// Where core-site.xml and hdfs-site.xml are. None for what the node's environment says.
    pub config_directory: Option<String>,
    /// Keys of these files, which have precedence.
    pub keys: Vec<(String, String)>,
}

/// A client. Whoever reads or writes by it keeps it until that is over.
pub struct Connected {
    client: Client,
    /// None while it is dropped.
    runtime: Option<Runtime>,
}

impl Connected {
    /// Connects to nothing yet. `anew` if an earlier client got no answer: of several name nodes another one may live.
    pub fn new(place: &Place, anew: bool) -> Result<Connected, HdfsError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(LOOKUPS_MAX)
            .thread_name("hdfs")
            .enable_all()
            .build()?;
        match place.client(runtime.handle(), anew) {
            Ok(client) => Ok(Connected {
                client,
                runtime: Some(runtime),
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }
}

impl Deref for Connected {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits: this may be an actor's thread.
            runtime.shutdown_background();
        }
    }
}

impl Place {
    fn client(&self, runtime: &Handle, anew: bool) -> Result<Client, HdfsError> {
        let host = &self.name_node;
        let order = (
            "dfs.client.failover.random.order.".to_owned() + host,
            "true".to_owned(),
        );
        let mut keys: Vec<(String, String)> = DEFAULTS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .chain(anew.then_some(order))
            .collect();
        keys.extend(self.keys.iter().cloned());
        let build = |url: String| {
            let mut builder = ClientBuilder::new()
                .with_url(url)
                .with_io_runtime(runtime.clone())
                .with_config(keys.clone());
            if let Some(user) = &self.user {
                builder = builder.with_user(user);
            }
            if let Some(directory) = &self.config_directory {
                builder = builder.with_config_dir(directory);
            }
            builder.build()
        };
        match build(format!("hdfs://{host}")) {
            // No name service has this name.
            Err(HdfsError::InvalidArgument(_)) if !self.has_port() => build(format!("hdfs://{host}:{PORT}")),
            built => built,
        }
    }

    fn has_port(&self) -> bool {
        let port = self.name_node.rsplit_once(':').map(|(_, port)| port);
        port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    }

    pub fn told(&self, error: HdfsError) -> opendal::Error {
        match error {
            HdfsError::IOError(error) if !self.has_port() && refusal::is_unknown_host(&error) => {
                refusal::unknown_name(&self.name_node)
            }
            error => refusal::told(error),
        }
    }
}
