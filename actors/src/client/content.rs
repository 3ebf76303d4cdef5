//! Opening files, and whole contents in one call.

use bytes::Bytes;
use curvine_protocol::master::{self, CreateFile, GetLease, IfExists, OpenForWrite, RevokeLease};
use curvine_protocol::{Attr, Error, FileLayout, Node, Result};

use super::file::table::Opened;
use super::{Client, CreateOptions, OpenFile};

impl Client {
    /// Opens a file for reading. The handle may be written too: the first write gets the lease.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `TooManySymlinks`; `Ufs...` where an under file system must be asked.
    pub async fn open(&self, node: impl Into<Node>) -> Result<OpenFile> {
        let opening = self.router.opens().begin();
        let call = master::OpenFile {
            node: node.into(),
            follow: true,
            open: opening.number,
        };
        let layout = opening.ended(self.call(call).await)?;
        self.files
            .enter(&self.router, layout, Opened::ForReading, &opening)
            .await
    }

    /// As [`Client::open`], of a file that has a name.
    ///
    /// # Errors
    /// `Stale` if it has none: it is only there for those who have it open.
    pub async fn open_named(&self, node: impl Into<Node>) -> Result<OpenFile> {
        let file = self.open(node).await?;
        match file.attr().await.nlink {
            0 => Err(Error::nameless(file.inode())),
            _ => Ok(file),
        }
    }

    /// Creates a file and opens it for writing and reading.
    ///
    /// # Errors
    /// `AlreadyExists` unless the options say otherwise; then `LeaseConflict` if another client that writes the file does not give it back, and
    /// `IsADirectory`. `NotFound` for a missing parent, unless `parents` is set.
    pub async fn create(&self, node: impl Into<Node>, options: CreateOptions) -> Result<OpenFile> {
        let opening = self.router.opens().begin();
        let call = CreateFile {
            node: node.into(),
            mode: options.mode,
            if_exists: options.if_exists,
            parents: options.parents,
            block_bytes: options.block_bytes,
            replicas: options.replicas,
            first_block: true,
            open: opening.number,
            unmasked: options.unmasked,
        };
        let layout = opening.ended(self.files.get_lease(&self.router, call).await)?;
        let opened = match options.if_exists {
            IfExists::Truncate => Opened::Truncated,
            IfExists::Fail | IfExists::Open => Opened::ForWriting,
        };
        self.files.enter(&self.router, layout, opened, &opening).await
    }

    /// Opens an existing file for writing and reading; with `truncate`, its content is dropped.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`; `LeaseConflict` if another client that writes the file does not give it back within
    /// 25 s, as it is asked to (one that died loses it after 15 s); `ReadOnly`, `Unsupported` in mounts.
    pub async fn open_for_write(&self, node: impl Into<Node>, truncate: bool) -> Result<OpenFile> {
        self.opened_for_write(node.into(), truncate, false).await
    }

    /// Whether nobody writes a file, and nothing of its last writer can come any more.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub async fn is_closed(&self, node: impl Into<Node>) -> Result<bool> {
        Ok(self.call(GetLease { node: node.into() }).await?.is_closed)
    }

    /// Takes a file away from whoever writes it, also from one that lives, and keeps what that client has flushed. Says
    /// whether the file is closed now; if not, workers are still being told, which goes on by itself. Handles of this client
    /// that write it are told so until they are closed.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub async fn revoke_lease(&self, node: impl Into<Node>) -> Result<bool> {
        let inode = self.call(GetLease { node: node.into() }).await?.inode;
        if let Some(file) = self.files.find(inode) {
            file.revoked().await;
        }
        // By its number: the name may lead elsewhere by now.
        Ok(self.call(RevokeLease { node: inode.into() }).await?.is_closed)
    }

    /// As [`Client::open_for_write`], of a file that has a name.
    ///
    /// # Errors
    /// `Stale` if it has none: it is only there for those who have it open, and stays as it is.
    pub async fn open_named_for_write(&self, node: impl Into<Node>, truncate: bool) -> Result<OpenFile> {
        self.opened_for_write(node.into(), truncate, true).await
    }

    async fn opened_for_write(&self, node: Node, truncate: bool, named: bool) -> Result<OpenFile> {
        let opening = self.router.opens().begin();
        let call = OpenForWrite {
            node,
            follow: true,
            truncate,
            open: opening.number,
            named,
        };
        let layout = opening.ended(self.files.get_lease(&self.router, call).await)?;
        let opened = match truncate {
            true => Opened::Truncated,
            false => Opened::ForWriting,
        };
        self.files.enter(&self.router, layout, opened, &opening).await
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

    /// Where a file's data is: its blocks, and the workers that have them.
    pub async fn locate(&self, node: impl Into<Node>) -> Result<FileLayout> {
        self.call(master::OpenFile {
            node: node.into(),
            follow: true,
            open: 0,
        })
        .await
    }
}
