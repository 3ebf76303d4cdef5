//! The Rust client: what FUSE, `cv` and every program use to reach Curvine.
//!
//! ```no_run
//! # async fn example() -> curvine_protocol::Result<()> {
//! use curvine_actors::client::{Client, ClientOptions, CreateOptions};
//! use curvine_protocol::CurvinePath;
//!
//! let client = Client::connect(["127.0.0.1:8995"], ClientOptions::default()).await?;
//! let path = CurvinePath::parse("/hello")?;
//! let file = client.create(&path, CreateOptions::default()).await?;
//! file.append("Hello, world".into()).await?;
//! file.close().await?;
//! assert_eq!(&client.open(&path).await?.read_at(0, 100).await?[..], b"Hello, world");
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! - [`route`]: masters and workers, retries, sequences.
//! - [`file`]: open files.
//!
//! Invariants: a mutation keeps its sequence over all its retries; bytes that fail their checksum are never returned;
//! every operation ends within [`ClientOptions::retry_for`] plus one call's deadline.

pub mod file;
pub mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::cluster::ClusterStatus;
use curvine_protocol::job::JobRecord;
use curvine_protocol::master::*;
use curvine_protocol::mount::{MountInfo, MountSettings};
use curvine_protocol::{
    Attr, Call, ClientId, CurvinePath, DirEntry, Error, ErrorKind, FileKind, FileLayout, InodeId, JobId,
    Mutation, Node, Result,
};
use futures::stream::{self, Stream, TryStreamExt};

pub use file::OpenFile;
pub use route::{LocalWorkers, Router};

use crate::kit::{MasterRef, Ports};

#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long an operation is tried again while nobody leads, answers or has room to take it.
    pub retry_for: Duration,
    /// How long [`Client::connect`] tries.
    pub connect_timeout: Duration,
    /// On behalf of whom: new files belong to them.
    pub uid: u32,
    pub gid: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            retry_for: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(4),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

/// How a file is created.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    pub mode: u32,
    pub if_exists: IfExists,
    /// Make missing directories above it.
    pub parents: bool,
    /// 0 = the cluster's default.
    pub block_bytes: u64,
    /// 0 = the cluster's default.
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
}

impl Client {
    /// Connects over TCP. The first master that leads is used; later changes of leader are followed.
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
        })
    }

    /// Uses a master and workers of the same process, without a socket. Call it inside an actix system.
    pub fn local(master: MasterRef, workers: LocalWorkers, options: ClientOptions, ports: Ports) -> Client {
        Client {
            router: Router::local(master, workers, options, ports),
        }
    }

    /// The same connection on behalf of another user.
    pub fn for_user(&self, uid: u32, gid: u32) -> Client {
        Client {
            router: self.router.for_user(uid, gid),
        }
    }

    /// Makes any call of the master service that changes nothing.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Reply>
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

    pub async fn exists(&self, node: impl Into<Node>) -> Result<bool> {
        match self.lookup(node, true).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A page of a directory in the order of names.
    pub async fn list_page(&self, node: impl Into<Node>, after: Option<&str>, limit: u32) -> Result<Listing> {
        self.call(ListDir {
            node: node.into(),
            after: after.map(str::to_owned),
            limit,
        })
        .await
    }

    /// The entries of a directory in the order of names.
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

    pub async fn path(&self, inode: InodeId) -> Result<CurvinePath> {
        Ok(self.call(GetPath { inode }).await?.path)
    }

    /// Where a file's data is.
    pub async fn locate(&self, node: impl Into<Node>) -> Result<FileLayout> {
        self.call(curvine_protocol::master::OpenFile {
            node: node.into(),
            follow: true,
        })
        .await
    }

    pub async fn summarize(&self, node: impl Into<Node>) -> Result<Summary> {
        self.call(Summarize { node: node.into() }).await
    }

    pub async fn statfs(&self) -> Result<FsStats> {
        self.call(StatFs {}).await
    }

    pub async fn status(&self) -> Result<ClusterStatus> {
        self.call(GetClusterStatus {}).await
    }

    /// The floor under every other call.
    pub async fn echo(&self) -> Result<()> {
        self.call(Echo {}).await.map(|_| ())
    }

    pub async fn xattr(&self, node: impl Into<Node>, name: &str) -> Result<Vec<u8>> {
        Ok(self
            .call(GetXattr {
                node: node.into(),
                name: name.to_owned(),
            })
            .await?
            .value)
    }

    pub async fn xattr_names(&self, node: impl Into<Node>) -> Result<Vec<String>> {
        Ok(self.call(ListXattrs { node: node.into() }).await?.names)
    }

    // ------------------------------------------------------------------------------------------------ changing

    /// Makes a directory; with `parents` as `mkdir -p`.
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
    pub async fn link(&self, source: impl Into<Node>, node: impl Into<Node>) -> Result<Attr> {
        Ok(self
            .change(MakeLink {
                source: source.into(),
                node: node.into(),
            })
            .await?
            .attr)
    }

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

    pub async fn unlink(&self, node: impl Into<Node>, keep_open: bool) -> Result<Attr> {
        Ok(self
            .change(Unlink {
                node: node.into(),
                keep_open,
            })
            .await?
            .attr)
    }

    pub async fn release_inode(&self, inode: InodeId) -> Result<()> {
        self.change(ReleaseInode { inode }).await.map(|_| ())
    }

    pub async fn remove_dir(&self, node: impl Into<Node>) -> Result<()> {
        self.change(RemoveDir { node: node.into() }).await.map(|_| ())
    }

    pub async fn delete(&self, node: impl Into<Node>, recursive: bool) -> Result<Deleted> {
        self.change(Delete {
            node: node.into(),
            recursive,
        })
        .await
    }

    pub async fn set_attr(&self, node: impl Into<Node>, follow: bool, change: AttrChange) -> Result<Attr> {
        Ok(self
            .change(SetAttr {
                node: node.into(),
                follow,
                change,
            })
            .await?
            .attr)
    }

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

    pub async fn remove_xattr(&self, node: impl Into<Node>, name: &str) -> Result<()> {
        self.change(RemoveXattr {
            node: node.into(),
            name: name.to_owned(),
        })
        .await
        .map(|_| ())
    }

    // --------------------------------------------------------------------------------------------------- files

    /// Opens a file for reading.
    pub async fn open(&self, node: impl Into<Node>) -> Result<OpenFile> {
        let layout = self.locate(node).await?;
        Ok(OpenFile::new(self.router.clone(), layout, false))
    }

    /// Creates a file and opens it for writing and reading.
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
        Ok(OpenFile::new(self.router.clone(), layout, true))
    }

    /// Opens an existing file for writing and reading.
    pub async fn open_for_write(&self, node: impl Into<Node>, truncate: bool) -> Result<OpenFile> {
        let layout = self
            .change(OpenForWrite {
                node: node.into(),
                follow: true,
                truncate,
            })
            .await?;
        Ok(OpenFile::new(self.router.clone(), layout, true))
    }

    /// The whole content of a file.
    pub async fn read(&self, node: impl Into<Node>) -> Result<Bytes> {
        let file = self.open(node).await?;
        file.read_at(0, file.size().await).await
    }

    /// Makes a file with this content, replacing what is there.
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

    /// Mounts an under file system; it is checked before it is recorded.
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

    pub async fn unmount(&self, path: &CurvinePath) -> Result<()> {
        self.call(UnmountUfs { path: path.clone() }).await.map(|_| ())
    }

    pub async fn mounts(&self) -> Result<Vec<MountInfo>> {
        Ok(self.call(ListMounts {}).await?.mounts)
    }

    /// Starts a load job; see [`Client::job`] for how it goes.
    pub async fn submit_load(&self, paths: Vec<CurvinePath>) -> Result<JobRecord> {
        self.call(SubmitLoad { paths }).await
    }

    pub async fn job(&self, id: JobId) -> Result<JobRecord> {
        self.call(GetJob { id }).await
    }

    pub async fn jobs(&self) -> Result<Vec<JobRecord>> {
        Ok(self.call(ListJobs {}).await?.jobs)
    }

    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord> {
        self.call(CancelJob { id }).await
    }

    /// Drops cached blocks of files of under file systems.
    pub async fn free(&self, path: &CurvinePath) -> Result<Freed> {
        self.call(FreeCache { path: path.clone() }).await
    }
}
