//! What a user of the client may choose.

use std::time::Duration;

use curvine_protocol::master::IfExists;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long an operation is tried again while nobody leads, answers or has room to take it.
    pub retry_for: Duration,
    /// How long [`Client::connect`](super::Client::connect) tries.
    pub connect_timeout: Duration,
    /// On behalf of whom: new files belong to them.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Let any master answer look-ups, listings, extended attributes and paths, also where none leads. The answer is a state
    /// that some leader acknowledged, of any age: it may lack what this client itself changed, go back in time from one
    /// call to the next, as another master answers, and names in mounts are as they were last seen. All other calls go to
    /// the leader as ever.
    pub stale_reads: bool,
    /// The host that this is, as workers name theirs (`worker.labels`): those on the same one are preferred. Empty: none is.
    pub host: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            retry_for: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(4),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            stale_reads: false,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }
}

impl ClientOptions {
    /// Of a client that runs on this host; empty: the one that this machine is.
    pub fn on_host(host: &str) -> Self {
        let usual = ClientOptions::default();
        match host.is_empty() {
            true => usual,
            false => ClientOptions {
                host: host.to_owned(),
                ..usual
            },
        }
    }
}

/// How a file is created.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    /// Permission bits, such as `0o644`; there is no umask.
    pub mode: u32,
    /// What to do with a file that is there.
    pub if_exists: IfExists,
    /// Make missing directories above it.
    pub parents: bool,
    /// Length of each block but the last: a multiple of 64 KiB from 64 KiB to 4 GiB; 0 = the cluster's default.
    pub block_bytes: u64,
    /// Workers that each block is written to; 0 = the cluster's default.
    pub replicas: u8,
    /// The mode before the caller's umask was taken off, if that is known: the default access control list of a directory
    /// takes the umask's place.
    pub unmasked: Option<u32>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        CreateOptions {
            mode: 0o644,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: 0,
            replicas: 0,
            unmasked: None,
        }
    }
}
