//! The Rust client: what FUSE, `cv` and every program use to reach Curvine.
//!
//! A [`Client`] is one session with a cluster; an [`OpenFile`] is one file of it. The tour, which a test runs against a
//! real node (`actors/examples/tour.rs`):
//!
//! ```no_run
#![doc = include_str!("../../examples/tour.rs")]
//! ```
//!
//! - `names`, `attributes`, `content`, `mounts`, `cluster`, `backup`: its calls, by family.
//! - [`mod@file`]: open files, and what workers on this host lend of them ([`LocalFile`]).
//! - [`route`]: masters and workers, retries, sequences.
//!
//! # Errors
//! Every call gives [`Error`](curvine_protocol::Error): decide by its `kind`, show its message. Kinds that may pass
//! (`Unreachable`, `Timeout`, `NotLeader`, `Overloaded`, `Stopping`, `BlockUnavailable`) are tried again for
//! [`ClientOptions::retry_for`] before they are the answer, which then says who was asked; whether the change was made is then not known.
//!
//! # What others see, and when
//! Names and attributes are the masters': every look-up sees every change that was answered before (unless
//! [`ClientOptions::stale_reads`] is set). Content is
//! *close-to-open*: who opens a file sees what was flushed before; within one client, handles on one file see each other's
//! writes at once. One client at a time writes a file: it has the *lease* from the first write or open for writing
//! until its last writing handle is closed or dropped, its session ends, or another client wants the file: then it is
//! flushed and the lease given up, and the next write here gets it again. So clients that write one file take turns, and
//! each append is at the end that the cluster knows.
//!
//! # Sessions
//! A client that has changed something renews its session every 10 s. [`Client::close`] ends it. One that dies without it
//! keeps its leases and nameless files until the masters have not heard of it for 60 s (and look every 5 s; after a start
//! of the masters the 60 s begin again). Then a file is what its last flush made it.
//!
//! A client that was stopped, or cut off, for longer finds that its session has ended: what it had not flushed is lost,
//! and files that had something fail with `SessionEnded`. All else goes on, in a new session.
//!
//! Invariants: a mutation keeps its sequence over all its retries; bytes that fail their checksum are never returned;
//! every operation ends within [`ClientOptions::retry_for`] plus one call's deadline.

mod attributes;
mod backup;
mod check;
mod cluster;
mod concat;
mod content;
pub mod file;
mod locks;
mod mounts;
mod names;
mod news;
mod options;
mod pins;
mod quotas;
pub mod route;
#[cfg(test)]
mod tests;
mod tiers;
mod ttl;

use std::sync::Arc;

use actix::ArbiterHandle;
use curvine_protocol::master::MasterCall;
use curvine_protocol::{ClientId, InodeId, Mutation, Result};

pub use file::{LocalFile, OpenFile, Seen};
pub use options::{ClientOptions, CreateOptions};
pub use route::{LocalWorkers, Router};

use crate::kit::{Endpoint, MasterPort, MasterRef, Ports};
use file::table::Files;

/// A connection to a cluster. Cheap to clone; usable from any tokio runtime.
#[derive(Clone)]
pub struct Client {
    router: Arc<Router>,
    files: Arc<Files>,
}

impl Client {
    /// Connects over TCP to the masters at these addresses (`host:port`; one is enough, if it knows the leader's). The
    /// first that leads is used; later changes of leader are followed.
    ///
    /// # Errors
    /// `Unreachable` within the connect timeout, naming every address.
    pub async fn connect(
        masters: impl IntoIterator<Item = impl Into<String>>,
        options: ClientOptions,
    ) -> Result<Client> {
        let masters = masters.into_iter().map(Into::into).collect();
        let router = Router::connect(masters, options, Ports::system()).await?;
        let arbiter = router.arbiter()?;
        Ok(Client::of(router, &arbiter))
    }

    fn of(router: Arc<Router>, arbiter: &ArbiterHandle) -> Client {
        let files = Arc::<Files>::default();
        arbiter.spawn(news::follow(router.news_route(), Arc::downgrade(&files)));
        arbiter.spawn(news::doubt(router.news_route(), Arc::downgrade(&files)));
        Client { router, files }
    }

    /// Uses a master and workers of the same process, without a socket. The session is renewed in `arbiter`.
    pub fn local(
        arbiter: &ArbiterHandle,
        master: MasterRef,
        workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
    ) -> Client {
        let masters = vec![("local".to_owned(), master)];
        Self::in_process(arbiter, masters, workers, options, ports).expect("there is a master")
    }

    /// Uses masters, by address, and workers behind ports that are here already. The session is renewed in `arbiter`.
    ///
    /// # Errors
    /// `Config` without a master.
    pub fn in_process(
        arbiter: &ArbiterHandle,
        masters: Vec<(String, MasterRef)>,
        workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
    ) -> Result<Client> {
        let router = Router::in_process(arbiter, masters, workers, options, ports)?;
        Ok(Client::of(router, arbiter))
    }

    /// The same connection on behalf of another user.
    pub fn for_user(&self, uid: u32, gid: u32) -> Client {
        Client {
            router: self.router.for_user(uid, gid),
            files: self.files.clone(),
        }
    }

    /// Makes any call of the master service that changes nothing.
    pub async fn call<C: MasterCall>(&self, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        self.router.ask_master(call).await
    }

    /// Makes a change: exactly once, however often it has to be tried.
    pub async fn change<C: Mutation>(&self, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        self.router.change(call).await
    }

    /// This client's session, as the masters know it. Begins one if there is none.
    ///
    /// # Errors
    /// Whatever kept the masters from answering.
    pub async fn session(&self) -> Result<ClientId> {
        self.router.session().await
    }

    /// Ends the session of a client that is known to be dead, without waiting for it to expire: its leases and nameless
    /// files are given back.
    pub async fn end_session_of(&self, client: ClientId) -> Result<()> {
        self.router.end_session_of(client).await
    }

    /// Calls this whenever another client has changed a file that is open here, within about a second: with the file, and
    /// the version of its content now. For whoever caches contents; it must not block.
    pub fn on_change(&self, listener: impl Fn(InodeId, u64) + Send + Sync + 'static) {
        self.router.opens().on_change(Arc::new(listener));
    }

    /// Gives back what this client holds and ends its session. Other clones can no longer be used.
    pub async fn close(self) {
        self.router.end().await;
    }
}
