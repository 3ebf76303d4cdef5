//! Names and attributes.

use std::time::Duration;

use curvine_protocol::master::{AttrChange, FsStats, RenameMode};
use curvine_protocol::{Attr, Error, ErrorKind, FileKind, InodeId, Node};
use fuser::FileAttr;

use super::{Core, User};
use crate::convert::{Refusal, Result};
use crate::files::{Left, release};

/// `df` must not hang while nobody leads.
const STATFS_DEADLINE: Duration = Duration::from_secs(5);

/// The prefixes of attributes that are kept. The kernel asks for others (`system.posix_acl_access`) by itself.
const XATTR_SPACES: [&str; 3] = ["user.", "trusted.", "security."];

impl Core {
    pub async fn lookup(&self, parent: InodeId, name: String) -> Result<FileAttr> {
        let entry = self.client.lookup(Node::child(parent, name), false).await?;
        Ok(self.shown(entry.attr))
    }

    pub async fn getattr(&self, inode: InodeId) -> Result<FileAttr> {
        let entry = self.client.lookup(inode, false).await?;
        Ok(self.shown(entry.attr))
    }

    pub async fn setattr(&self, user: User, inode: InodeId, mut change: AttrChange) -> Result<FileAttr> {
        let mut attr = None;
        if let Some(slot) = self.files.slot(inode)
            && let Some(file) = slot.file_if_open()
        {
            if let Some(size_bytes) = change.size_bytes.take() {
                let cut = file.truncate(size_bytes).await?;
                self.known.written(inode, cut.content_version);
                attr = Some(cut);
            } else if slot.has_writers() {
                // What was written before comes before: a later flush must not undo these times and modes.
                file.flush().await?;
            }
        }
        let attr = match attr {
            Some(attr) if change == AttrChange::default() => attr,
            _ => self.client_of(user).set_attr(inode, false, change).await?,
        };
        Ok(self.shown(attr))
    }

    pub async fn readlink(&self, inode: InodeId) -> Result<String> {
        let entry = self.client.lookup(inode, false).await?;
        entry.target.ok_or(Refusal::of(libc::EINVAL))
    }

    pub async fn mknod(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        kind: FileKind,
        mode: u32,
        rdev: u32,
    ) -> Result<FileAttr> {
        let client = self.client_of(user);
        let attr = client
            .make_node(Node::child(parent, name), kind, mode & 0o7777, rdev)
            .await?;
        Ok(self.shown(attr))
    }

    pub async fn mkdir(&self, user: User, parent: InodeId, name: String, mode: u32) -> Result<FileAttr> {
        let client = self.client_of(user);
        let attr = client
            .make_dir(Node::child(parent, name), mode & 0o7777, false)
            .await?;
        Ok(self.shown(attr))
    }

    pub async fn symlink(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        target: String,
    ) -> Result<FileAttr> {
        let client = self.client_of(user);
        Ok(self.shown(client.symlink(Node::child(parent, name), &target).await?))
    }

    pub async fn link(&self, user: User, inode: InodeId, parent: InodeId, name: String) -> Result<FileAttr> {
        let client = self.client_of(user);
        Ok(self.shown(client.link(inode, Node::child(parent, name)).await?))
    }

    pub async fn unlink(&self, user: User, parent: InodeId, name: String) -> Result<()> {
        let keep = self.files.any();
        let gone = self
            .client_of(user)
            .unlink(Node::child(parent, name), keep)
            .await?;
        self.lost_a_name(&gone, keep).await;
        Ok(())
    }

    pub async fn rmdir(&self, user: User, parent: InodeId, name: String) -> Result<()> {
        let client = self.client_of(user);
        Ok(client.remove_dir(Node::child(parent, name)).await?)
    }

    pub async fn rename(
        &self,
        user: User,
        from: (InodeId, String),
        to: (InodeId, String),
        mode: RenameMode,
    ) -> Result<()> {
        let keep = self.files.any();
        let client = self.client_of(user);
        let (from, to) = (Node::child(from.0, from.1), Node::child(to.0, to.1));
        let renamed = client.rename(from, to, mode, keep).await?;
        if let Some(gone) = renamed.replaced {
            self.lost_a_name(&gone, keep).await;
        }
        Ok(())
    }

    /// A file lost a name. If it was the last, the masters kept the inode if we asked them to: for open handles, if
    /// there are any on this one.
    async fn lost_a_name(&self, attr: &Attr, kept: bool) {
        if attr.nlink == 0 && !attr.is_dir() && kept && !self.files.keep_nameless(attr.inode) {
            release(&self.client, Left::Release(attr.inode)).await;
        }
    }

    pub async fn getxattr(&self, inode: InodeId, name: String) -> Result<Vec<u8>> {
        known_space(&name, libc::EOPNOTSUPP)?;
        Ok(self.client.xattr(inode, &name).await?)
    }

    pub async fn setxattr(
        &self,
        user: User,
        inode: InodeId,
        name: String,
        value: Vec<u8>,
        flags: i32,
    ) -> Result<()> {
        known_space(&name, libc::EOPNOTSUPP)?;
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        let client = self.client_of(user);
        Ok(client.set_xattr(inode, &name, &value, create, replace).await?)
    }

    /// The names, each ended by a NUL, as `listxattr(2)` has them.
    pub async fn listxattr(&self, inode: InodeId) -> Result<Vec<u8>> {
        let names = self.client.xattr_names(inode).await?;
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        Ok(list)
    }

    pub async fn removexattr(&self, user: User, inode: InodeId, name: String) -> Result<()> {
        known_space(&name, libc::EOPNOTSUPP)?;
        Ok(self.client_of(user).remove_xattr(inode, &name).await?)
    }

    pub async fn statfs(&self) -> Result<FsStats> {
        match tokio::time::timeout(STATFS_DEADLINE, self.client.statfs()).await {
            Ok(stats) => Ok(stats?),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no master answered within {} s", STATFS_DEADLINE.as_secs()),
            )
            .into()),
        }
    }
}

fn known_space(name: &str, errno: i32) -> Result<()> {
    match XATTR_SPACES.iter().any(|space| name.starts_with(space)) {
        true => Ok(()),
        false => Err(Refusal::of(errno)),
    }
}
