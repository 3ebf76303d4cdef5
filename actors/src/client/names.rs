//! Calls about names: what is there, and making, moving and removing it.

use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::{
    ClosedFile, Delete, Deleted, Entry, GetPath, ListDir, Listing, Lookup, MakeDir, MakeLink, MakeNode,
    MakeSymlink, ReleaseInode, RemoveDir, Rename, RenameMode, Renamed, Summarize, Summary, Unlink,
};
use curvine_protocol::{Attr, CurvinePath, DirEntry, Error, ErrorKind, FileKind, InodeId, Node, Result};
use futures::stream::{self, Stream, TryStreamExt};

use super::Client;
use super::route::is_passing;

impl Client {
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

    /// Counts of what is below a node, and how much of it is cached.
    pub async fn summarize(&self, node: impl Into<Node>) -> Result<Summary> {
        self.call(Summarize { node: node.into() }).await
    }

    /// Makes a directory; with `parents` as `mkdir -p`.
    ///
    /// # Errors
    /// `AlreadyExists`, unless `parents` is set and it is a directory; `NotFound` or `NotADirectory` for what is above.
    pub async fn make_dir(
        &self,
        node: impl Into<Node>,
        mode: impl Into<WantedMode>,
        parents: bool,
    ) -> Result<Attr> {
        let WantedMode { masked, unmasked } = mode.into();
        Ok(self
            .change(MakeDir {
                node: node.into(),
                mode: masked,
                parents,
                unmasked,
            })
            .await?
            .attr)
    }

    /// Makes a plain file, FIFO, socket or device node (then with the device number `rdev`), as `mknod(2)`.
    pub async fn make_node(
        &self,
        node: impl Into<Node>,
        kind: FileKind,
        mode: impl Into<WantedMode>,
        rdev: u32,
    ) -> Result<Attr> {
        let WantedMode { masked, unmasked } = mode.into();
        Ok(self
            .change(MakeNode {
                node: node.into(),
                kind,
                mode: masked,
                rdev,
                unmasked,
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
        let closed = self.router.opens().take_closed();
        let call = Rename {
            from: from.into(),
            to: to.into(),
            mode,
            keep_replaced,
            closed: closed.clone(),
            holders: None,
        };
        let renamed = self.change(call).await;
        self.told_closed(&renamed, closed, keep_replaced);
        renamed
    }

    /// Removes a name of something that is not a directory. With `keep_open`, what lost its last name stays, for handles of
    /// this client, until [`Client::release_inode`] or the end of the session.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub async fn unlink(&self, node: impl Into<Node>, keep_open: bool) -> Result<Attr> {
        let closed = self.router.opens().take_closed();
        let call = Unlink {
            node: node.into(),
            keep_open,
            closed: closed.clone(),
            holders: None,
        };
        let removed = self.change(call).await;
        self.told_closed(&removed, closed, keep_open);
        Ok(removed?.attr)
    }

    /// What was closed travelled with a change, by which something may be kept.
    fn told_closed<T>(&self, outcome: &Result<T>, closed: Vec<ClosedFile>, may_keep: bool) {
        let is_lost = outcome.as_ref().is_err_and(is_passing);
        if is_lost {
            self.router.opens().lost(closed);
        }
        if may_keep && (is_lost || outcome.is_ok()) {
            self.router.opens().kept(true);
        }
    }

    /// Gives up what [`Client::unlink`] or [`Client::rename`] kept. What has a handle here stays until that is closed: the
    /// masters are told then.
    pub async fn release_inode(&self, inode: InodeId) -> Result<()> {
        if self.router.opens().has(inode) {
            return Ok(());
        }
        self.change(ReleaseInode { inode }).await?;
        self.router.opens().kept(false);
        Ok(())
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
            holders: None,
        })
        .await
    }
}
