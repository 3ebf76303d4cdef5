//! The Rust client: what FUSE, `cv` and every program use to reach Curvine.
//!
//! A [`Client`] is one session with a cluster; an [`OpenFile`] is one file of it. The tour, which a test runs against a
//! real node (`actors/examples/tour.rs`):
//!
//! ```no_run
#![doc = include_str!("../../examples/tour.rs")]
//! ```
//!
//! - [`route`]: masters and workers, retries, sequences.
//! - [`mod@file`]: open files.
//!
//! # Errors
//! Every call gives [`Error`]: decide by its `kind`, show its message. Kinds that may pass (`Unreachable`, `Timeout`,
//! `NotLeader`, `Overloaded`, `Stopping`, `BlockUnavailable`) are tried again for [`ClientOptions::retry_for`] before they
//! are the answer; whether the change was made is then not known.
//!
//! # What others see, and when
//! Names and attributes are the masters': every look-up sees every change that was answered before (unless
//! [`ClientOptions::stale_reads`] is set). Content is
//! *close-to-open*: who opens a file sees what was flushed before; within one client, handles on one file see each other's
//! writes at once. One client at a time writes a file: it has the *lease* from the first write or open for writing
//! until its last writing handle is closed or dropped, or its session ends.
//!
//! # Sessions
//! A client that has changed something renews its session every 10 s. [`Client::close`] ends it. One that dies without it
//! keeps its leases and nameless files until the masters have not heard of it for 60 s (and look every 5 s; after a start
//! of the masters the 60 s begin again). Then a file is what its last flush made it.
//!
//! Invariants: a mutation keeps its sequence over all its retries; bytes that fail their checksum are never returned;
//! every operation ends within [`ClientOptions::retry_for`] plus one call's deadline.

mod backup;
pub mod file;
pub mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use bytes::Bytes;
use curvine_protocol::cluster::ClusterStatus;
use curvine_protocol::job::JobRecord;
use curvine_protocol::master::*;
use curvine_protocol::mount::{MountInfo, MountSettings};
use curvine_protocol::{
    Attr, ClientId, CurvinePath, DirEntry, Error, ErrorKind, FileKind, FileLayout, InodeId, JobId, Mutation,
    Node, NodeId, Result,
};
use futures::stream::{self, Stream, TryStreamExt};

pub use file::OpenFile;
pub use route::{LocalWorkers, Router};

use crate::kit::{MasterRef, Ports};
use file::table::{Files, Opened};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long an operation is tried again while nobody leads, answers or has room to take it.
    pub retry_for: Duration,
    /// How long [`Client::connect`] tries.
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
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            retry_for: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(4),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            stale_reads: false,
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
}

impl Default for CreateOptions {
    fn default() -> Self {
        CreateOptions {
            mode: 0o644,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: 0,
            replicas: 0,
        }
    }
}

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
        Ok(Client {
            router: Router::connect(masters, options, Ports::system()).await?,
            files: Arc::default(),
        })
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
        let router = Router::in_process(arbiter, masters, workers, options, ports);
        Client {
            router: router.expect("there is a master"),
            files: Arc::default(),
        }
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
        dyn crate::kit::MasterPort: crate::kit::Endpoint<C>,
    {
        self.router.ask_master(call).await
    }

    /// Makes a change: exactly once, however often it has to be tried.
    pub async fn change<C: Mutation>(&self, call: C) -> Result<C::Reply>
    where
        dyn crate::kit::MasterPort: crate::kit::Endpoint<C>,
    {
        self.router.change(call).await
    }

    /// This client's session, as the masters know it.
    pub fn id(&self) -> ClientId {
        self.router.id()
    }

    /// Ends the session of a client that is known to be dead, without waiting for it to expire: its leases and nameless
    /// files are given back.
    pub async fn end_session_of(&self, client: ClientId) -> Result<()> {
        self.router.end_session_of(client).await
    }

    /// Gives back what this client holds and ends its session. Other clones can no longer be used.
    pub async fn close(self) {
        self.router.end().await;
    }

    // ------------------------------------------------------------------------------------------------- looking

    /// Attributes, and where a symbolic link points; `follow` follows one in the last name of a path.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `TooManySymlinks`; `Stale` for an inode that is gone.
    pub async fn lookup(&self, node: impl Into<Node>, follow: bool) -> Result<Entry> {
        self.call(Lookup {
            node: node.into(),
            follow,
        })
        .await
    }

    /// Attributes, following symbolic links.
    pub async fn stat(&self, node: impl Into<Node>) -> Result<Attr> {
        Ok(self.lookup(node, true).await?.attr)
    }

    /// Whether something is there, following symbolic links.
    pub async fn exists(&self, node: impl Into<Node>) -> Result<bool> {
        match self.lookup(node, true).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A page of a directory in the order of the names' bytes: up to `limit` entries behind the name `after`.
    pub async fn list_page(&self, node: impl Into<Node>, after: Option<&str>, limit: u32) -> Result<Listing> {
        self.call(ListDir {
            node: node.into(),
            after: after.map(str::to_owned),
            limit,
        })
        .await
    }

    /// The entries of a directory in the order of the names' bytes, with attributes. What is added or removed meanwhile may
    /// or may not be among them.
    pub fn list<N: Into<Node>>(&self, node: N) -> impl Stream<Item = Result<DirEntry>> + Send + use<N> {
        let (client, node) = (self.clone(), node.into());
        let pages = stream::try_unfold(Some(None::<String>), move |after| {
            let (client, node) = (client.clone(), node.clone());
            async move {
                let Some(after) = after else {
                    return Ok::<_, Error>(None);
                };
                let page = client.list_page(node, after.as_deref(), 1_000).await?;
                let next = page
                    .more
                    .then(|| page.entries.last().map(|entry| entry.name.clone()));
                Ok(Some((stream::iter(page.entries.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten()
    }

    /// Everything below a directory, directories before what they hold.
    pub fn walk(
        &self,
        path: &CurvinePath,
    ) -> impl Stream<Item = Result<(CurvinePath, DirEntry)>> + Send + use<> {
        let client = self.clone();
        let levels = stream::try_unfold(vec![path.clone()], move |mut todo| {
            let client = client.clone();
            async move {
                let Some(directory) = todo.pop() else {
                    return Ok::<_, Error>(None);
                };
                let entries: Vec<DirEntry> = client.list(&directory).try_collect().await?;
                let mut found = Vec::with_capacity(entries.len());
                for entry in entries {
                    let path = directory.join(&entry.name)?;
                    if entry.attr.is_dir() {
                        todo.push(path.clone());
                    }
                    found.push(Ok((path, entry)));
                }
                Ok(Some((stream::iter(found), todo)))
            }
        });
        levels.try_flatten()
    }

    /// A path of an inode: one of them, if it has several names.
    pub async fn path(&self, inode: InodeId) -> Result<CurvinePath> {
        Ok(self.call(GetPath { inode }).await?.path)
    }

    /// Where a file's data is: its blocks, and the workers that have them.
    pub async fn locate(&self, node: impl Into<Node>) -> Result<FileLayout> {
        self.call(curvine_protocol::master::OpenFile {
            node: node.into(),
            follow: true,
        })
        .await
    }

    /// Counts of what is below a node, and how much of it is cached.
    pub async fn summarize(&self, node: impl Into<Node>) -> Result<Summary> {
        self.call(Summarize { node: node.into() }).await
    }

    /// Capacity and use of the cluster, in all and by tier.
    pub async fn statfs(&self) -> Result<FsStats> {
        self.call(StatFs {}).await
    }

    /// Masters and workers, as `cv report` shows them.
    pub async fn status(&self) -> Result<ClusterStatus> {
        self.call(GetClusterStatus {}).await
    }

    /// Makes a master that runs already, and names this group's masters as its peers, a voter once it is in step.
    ///
    /// # Errors
    /// `AlreadyExists`, `Unreachable`; `Config` if it is another one that answers there.
    pub async fn add_master(&self, id: NodeId, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.call(AddMaster { id, address }).await.map(|_| ())
    }

    /// Takes a master out of the group; it is to be stopped then.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the leader.
    pub async fn remove_master(&self, id: NodeId) -> Result<()> {
        self.call(RemoveMaster { id }).await.map(|_| ())
    }

    /// Has another master lead: this one, or any that has everything.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<()> {
        self.call(TransferLeadership { to }).await.map(|_| ())
    }

    /// Takes a snapshot of the namespace on the leader; says which log entry is the last in it.
    pub async fn take_snapshot(&self) -> Result<u64> {
        Ok(self.call(TakeSnapshot {}).await?.log_index)
    }

    /// The floor under every other call.
    pub async fn echo(&self) -> Result<()> {
        self.call(Echo {}).await.map(|_| ())
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`.
    pub async fn xattr(&self, node: impl Into<Node>, name: &str) -> Result<Vec<u8>> {
        Ok(self
            .call(GetXattr {
                node: node.into(),
                name: name.to_owned(),
            })
            .await?
            .value)
    }

    /// The names of all extended attributes, in the order of their bytes.
    pub async fn xattr_names(&self, node: impl Into<Node>) -> Result<Vec<String>> {
        Ok(self.call(ListXattrs { node: node.into() }).await?.names)
    }

    // ------------------------------------------------------------------------------------------------ changing

    /// Makes a directory; with `parents` as `mkdir -p`.
    ///
    /// # Errors
    /// `AlreadyExists`, unless `parents` is set and it is a directory; `NotFound` or `NotADirectory` for what is above.
    pub async fn make_dir(&self, node: impl Into<Node>, mode: u32, parents: bool) -> Result<Attr> {
        Ok(self
            .change(MakeDir {
                node: node.into(),
                mode,
                parents,
            })
            .await?
            .attr)
    }

    /// Makes a plain file, FIFO, socket or device node (then with the device number `rdev`), as `mknod(2)`.
    pub async fn make_node(
        &self,
        node: impl Into<Node>,
        kind: FileKind,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr> {
        Ok(self
            .change(MakeNode {
                node: node.into(),
                kind,
                mode,
                rdev,
            })
            .await?
            .attr)
    }

    /// Makes a symbolic link. The target is kept as it is, absolute or relative to the link's directory.
    ///
    /// # Errors
    /// `AlreadyExists`, `NameTooLong` over 4,095 bytes.
    pub async fn symlink(&self, node: impl Into<Node>, target: &str) -> Result<Attr> {
        Ok(self
            .change(MakeSymlink {
                node: node.into(),
                target: target.to_owned(),
            })
            .await?
            .attr)
    }

    /// A second name for a file.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotPermitted` for a directory; `CrossMount` in or into a mount.
    pub async fn link(&self, source: impl Into<Node>, node: impl Into<Node>) -> Result<Attr> {
        Ok(self
            .change(MakeLink {
                source: source.into(),
                node: node.into(),
            })
            .await?
            .attr)
    }

    /// Moves a name, atomically, replacing what is at `to` as `renameat2(2)` does. With `keep_replaced`, a replaced file
    /// that lost its last name stays for this client, as with [`Client::unlink`].
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` with [`RenameMode::NoReplace`]; `DirectoryNotEmpty`, `IsADirectory`, `NotADirectory` for
    /// what cannot be replaced; `InvalidArgument` for a directory into itself; `CrossMount`, `Busy`.
    pub async fn rename(
        &self,
        from: impl Into<Node>,
        to: impl Into<Node>,
        mode: RenameMode,
        keep_replaced: bool,
    ) -> Result<Renamed> {
        self.change(Rename {
            from: from.into(),
            to: to.into(),
            mode,
            keep_replaced,
        })
        .await
    }

    /// Removes a name of something that is not a directory. With `keep_open`, what lost its last name stays, for handles of
    /// this client, until [`Client::release_inode`] or the end of the session.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub async fn unlink(&self, node: impl Into<Node>, keep_open: bool) -> Result<Attr> {
        Ok(self
            .change(Unlink {
                node: node.into(),
                keep_open,
            })
            .await?
            .attr)
    }

    /// Gives up what [`Client::unlink`] or [`Client::rename`] kept.
    pub async fn release_inode(&self, inode: InodeId) -> Result<()> {
        self.change(ReleaseInode { inode }).await.map(|_| ())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `DirectoryNotEmpty`; `Busy` for the root and mount points.
    pub async fn remove_dir(&self, node: impl Into<Node>) -> Result<()> {
        self.change(RemoveDir { node: node.into() }).await.map(|_| ())
    }

    /// Removes a file, or a directory; with `recursive`, everything below it, atomically. Says how much went.
    ///
    /// # Errors
    /// `NotFound`; `DirectoryNotEmpty` without `recursive`; `Busy` with a mount below.
    pub async fn delete(&self, node: impl Into<Node>, recursive: bool) -> Result<Deleted> {
        self.change(Delete {
            node: node.into(),
            recursive,
        })
        .await
    }

    /// Changes attributes; what is none in `change` stays. A new size cuts the file, or extends it with zeros, after
    /// everything that this client wrote to it before.
    ///
    /// # Errors
    /// `NotFound`; for a size `IsADirectory`, and `LeaseConflict` while another client writes the file.
    pub async fn set_attr(&self, node: impl Into<Node>, follow: bool, change: AttrChange) -> Result<Attr> {
        let (mut node, mut change) = (node.into(), change);
        if let Some(size_bytes) = change.size_bytes
            && self.files.any()
        {
            // A file that is open here takes its new size between the writes to it.
            let inode = match node {
                Node::Inode(inode) => inode,
                _ => self.lookup(node, follow).await?.attr.inode,
            };
            node = Node::Inode(inode);
            if let Some(file) = self.files.find(inode) {
                let attr = file.truncate(size_bytes).await?;
                change.size_bytes = None;
                if change == AttrChange::default() {
                    return Ok(attr);
                }
            }
        }
        Ok(self.change(SetAttr { node, follow, change }).await?.attr)
    }

    /// Sets an extended attribute: up to 64 KiB under a name of up to 255 bytes.
    ///
    /// # Errors
    /// `AlreadyExists` with `create_only`, `NoAttribute` with `replace_only`; `InvalidArgument` if too long.
    pub async fn set_xattr(
        &self,
        node: impl Into<Node>,
        name: &str,
        value: &[u8],
        create_only: bool,
        replace_only: bool,
    ) -> Result<()> {
        let (node, name, value) = (node.into(), name.to_owned(), value.to_vec());
        self.change(SetXattr {
            node,
            name,
            value,
            create_only,
            replace_only,
        })
        .await
        .map(|_| ())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`.
    pub async fn remove_xattr(&self, node: impl Into<Node>, name: &str) -> Result<()> {
        self.change(RemoveXattr {
            node: node.into(),
            name: name.to_owned(),
        })
        .await
        .map(|_| ())
    }

    // --------------------------------------------------------------------------------------------------- files

    /// Opens a file for reading. The handle may be written too: the first write gets the lease.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `TooManySymlinks`; `Ufs...` where an under file system must be asked.
    pub async fn open(&self, node: impl Into<Node>) -> Result<OpenFile> {
        let layout = self.locate(node).await?;
        Ok(self.files.enter(&self.router, layout, Opened::ForReading).await)
    }

    /// Creates a file and opens it for writing and reading.
    ///
    /// # Errors
    /// `AlreadyExists` unless the options say otherwise; then `LeaseConflict` while another client writes the file, and
    /// `IsADirectory`. `NotFound` for a missing parent, unless `parents` is set.
    pub async fn create(&self, node: impl Into<Node>, options: CreateOptions) -> Result<OpenFile> {
        let call = CreateFile {
            node: node.into(),
            mode: options.mode,
            if_exists: options.if_exists,
            parents: options.parents,
            block_bytes: options.block_bytes,
            replicas: options.replicas,
            first_block: true,
        };
        let layout = self.change(call).await?;
        let opened = match options.if_exists {
            IfExists::Truncate => Opened::Truncated,
            IfExists::Fail | IfExists::Open => Opened::ForWriting,
        };
        Ok(self.files.enter(&self.router, layout, opened).await)
    }

    /// Opens an existing file for writing and reading; with `truncate`, its content is dropped.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`; `LeaseConflict` while another client writes the file: until it closes it, or for up to
    /// a minute after it died; `ReadOnly`, `Unsupported` in mounts.
    pub async fn open_for_write(&self, node: impl Into<Node>, truncate: bool) -> Result<OpenFile> {
        let layout = self
            .change(OpenForWrite {
                node: node.into(),
                follow: true,
                truncate,
            })
            .await?;
        let opened = match truncate {
            true => Opened::Truncated,
            false => Opened::ForWriting,
        };
        Ok(self.files.enter(&self.router, layout, opened).await)
    }

    /// The whole content of a file, in memory. For large ones see [`OpenFile::stream`].
    ///
    /// # Errors
    /// As [`Client::open`] and [`OpenFile::read_at`].
    pub async fn read(&self, node: impl Into<Node>) -> Result<Bytes> {
        let file = self.open(node).await?;
        file.read_at(0, file.size_now()).await
    }

    /// Makes a file with this content, replacing the content of one that is there.
    ///
    /// # Errors
    /// As [`Client::create`] and [`OpenFile::close`].
    pub async fn write(&self, node: impl Into<Node>, content: impl Into<Bytes>) -> Result<Attr> {
        let options = CreateOptions {
            if_exists: IfExists::Truncate,
            ..CreateOptions::default()
        };
        let file = self.create(node, options).await?;
        file.append(content.into()).await?;
        file.close().await
    }

    // ------------------------------------------------------------------------------------------ mounts and jobs

    /// Mounts an under file system: `s3://bucket/prefix`, `file:///dir`, ... with OpenDAL's option names. It is checked
    /// before it is recorded: the directory at `path` is made, or is there and empty.
    ///
    /// # Errors
    /// `AlreadyExists`, `DirectoryNotEmpty`, `InvalidArgument` (inside another mount, unknown scheme or option), `NotFound`
    /// (no such bucket), `UfsDenied`, `Ufs`; the message names the cause.
    pub async fn mount(
        &self,
        path: &CurvinePath,
        uri: &str,
        options: BTreeMap<String, String>,
        settings: MountSettings,
    ) -> Result<MountInfo> {
        self.call(MountUfs {
            path: path.clone(),
            uri: uri.to_owned(),
            options,
            settings,
        })
        .await
    }

    /// Forgets a mount and everything cached of it; the objects stay.
    ///
    /// # Errors
    /// `NotFound` if nothing is mounted there.
    pub async fn unmount(&self, path: &CurvinePath) -> Result<()> {
        self.call(UnmountUfs { path: path.clone() }).await.map(|_| ())
    }

    /// All mounts, without their secrets.
    pub async fn mounts(&self) -> Result<Vec<MountInfo>> {
        Ok(self.call(ListMounts {}).await?.mounts)
    }

    /// Starts a job that makes everything below these paths cached; see [`Client::job`] for how it goes.
    ///
    /// # Errors
    /// `NotFound` for a path that is not there.
    pub async fn submit_load(&self, paths: Vec<CurvinePath>) -> Result<JobRecord> {
        self.call(SubmitLoad { paths }).await
    }

    /// State and counts of a job, and the failures among its files.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn job(&self, id: JobId) -> Result<JobRecord> {
        self.call(GetJob { id }).await
    }

    /// All jobs, newest first, without their failures.
    pub async fn jobs(&self) -> Result<Vec<JobRecord>> {
        Ok(self.call(ListJobs {}).await?.jobs)
    }

    /// Ends a job; what is cached stays. A job that has ended is left as it is.
    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord> {
        self.call(CancelJob { id }).await
    }

    /// Drops cached blocks of files of under file systems.
    pub async fn free(&self, path: &CurvinePath) -> Result<Freed> {
        self.call(FreeCache { path: path.clone() }).await
    }
}
