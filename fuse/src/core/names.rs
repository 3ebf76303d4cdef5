//! Names and attributes.

use std::sync::PoisonError;
use std::time::Duration;

use curvine_actors::client::OpenFile;
use curvine_protocol::acl::{WantedMode, whole_acl};
use curvine_protocol::master::{AclChange, AttrChange, FsStats, RenameMode};
use curvine_protocol::{AclEntry, AclScope, AclWho, Attr, Error, ErrorKind, FileKind, InodeId, Node};
use fuser::FileAttr;

use super::content::cut;
use super::{Core, User};
use crate::acls;
use crate::convert::{Refusal, Result, attributes};

/// `df` of everybody asks for each mount's root and its space, and must not hang while nobody leads: after this it is
/// told what it was told last.
const DF_DEADLINE: Duration = Duration::from_secs(1);

/// How often a name is looked up whose file is replaced each time before it can be kept.
const WALK_TRIES: u32 = 8;

/// The prefixes of attributes that are kept, beside those that are access control lists. The kernel asks for others by itself.
const XATTR_SPACES: [&str; 3] = ["user.", "trusted.", "security."];

/// The kernel makes a call again that is told `ESTALE`: a rename would replace then what somebody else has just put there.
fn not_again(error: Error) -> Refusal {
    let changed = error.kind == ErrorKind::UfsChanged;
    let refusal = Refusal::from(error);
    match changed {
        true => Refusal {
            errno: libc::EBUSY,
            ..refusal
        },
        false => refusal,
    }
}

impl Core {
    pub async fn lookup(&self, user: User, parent: InodeId, name: String) -> Result<FileAttr> {
        let node = Node::child(parent, name);
        for _ in 0..WALK_TRIES {
            let found = self.client.lookup(node.clone(), false).await;
            let attr = self.in_directory(parent, found)?.attr;
            if !attr.is_file() || !self.walks.is_walking(user.pid, self.clock.now()) {
                return Ok(self.shown(attr).await);
            }
            match self.client.open_named(attr.inode).await {
                Ok(file) => {
                    self.walks.found(user.pid, attr.inode, file);
                    return Ok(self.shown(attr).await);
                }
                // Replaced meanwhile.
                Err(error) if error.kind == ErrorKind::Stale => {}
                // The open will say so.
                Err(_) => return Ok(self.shown(attr).await),
            }
        }
        Err(Refusal::of(libc::ESTALE))
    }

    pub async fn getattr(&self, inode: InodeId) -> Result<FileAttr> {
        let asking = self.client.lookup(inode, false);
        let found = match self.inodes.shown(inode).filter(|_| inode == InodeId::ROOT) {
            None => asking.await,
            Some(last) => match tokio::time::timeout(DF_DEADLINE, asking).await {
                Ok(found) => found,
                Err(_) => return Ok(attributes(&last)),
            },
        };
        match found {
            Ok(entry) => Ok(self.shown(entry.attr).await),
            // Who still asks for it has it: as a descriptor, or as the directory that it is in.
            Err(error) if error.kind == ErrorKind::Stale => match self.inodes.gone(inode) {
                Some(attr) => Ok(attributes(&attr)),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    pub async fn setattr(&self, user: User, inode: InodeId, mut change: AttrChange) -> Result<FileAttr> {
        change.keep_privileges = user.uid == 0;
        let (is_meant, kept) = self.arrived(user, inode);
        change.named = !is_meant;
        let changed = self.set_attributes(user, inode, change).await;
        drop(kept);
        self.walks_again(user, inode, is_meant, changed)
    }

    /// Whether the inode itself is meant, and not the name by which the kernel knows it: somebody has it open, or was shown
    /// that it has none. What is kept for a walk that ends here is to be dropped when the work is done.
    fn arrived(&self, user: User, inode: InodeId) -> (bool, Option<OpenFile>) {
        let (came_again, kept) = self.walks.arrived(user.pid, inode, self.clock.now());
        let is_open = self.files.slot(inode).is_some();
        (came_again || is_open || self.inodes.is_gone(inode), kept)
    }

    /// Who is told that an inode is stale will walk to it again.
    pub(super) fn walks_again<T>(
        &self,
        user: User,
        inode: InodeId,
        is_meant: bool,
        outcome: Result<T>,
    ) -> Result<T> {
        if let Err(refusal) = &outcome
            && refusal.errno == libc::ESTALE
            && !is_meant
        {
            self.walks.refused_for_a_while(user.pid, inode, self.clock.now());
        }
        outcome
    }

    /// # Errors
    /// `ESTALE` for what has no name, if it is not meant by itself.
    async fn check_meant(&self, user: User, inode: InodeId) -> Result<()> {
        let (is_meant, _kept) = self.arrived(user, inode);
        let named = async {
            match is_meant || self.client.lookup(inode, false).await?.attr.nlink > 0 {
                true => Ok(()),
                false => Err(Refusal::of(libc::ESTALE)),
            }
        };
        let named = named.await;
        self.walks_again(user, inode, is_meant, named)
    }

    async fn set_attributes(&self, user: User, inode: InodeId, mut change: AttrChange) -> Result<FileAttr> {
        let mut attr = None;
        if let Some(slot) = self.files.slot(inode)
            && let Some(file) = slot.file_if_open()
        {
            if let Some(size_bytes) = change.size_bytes.take() {
                let cut = cut(&file, size_bytes, user).await?;
                self.committed(&slot, &file, &cut).await;
                attr = Some(cut);
            } else if slot.has_writers() {
                // What was written before comes before: a later flush must not undo these times and modes.
                file.flush().await?;
            }
        }
        let attr = match attr {
            Some(attr) if !changes_more(&change) => attr,
            _ => match self.client_of(user).set_attr(inode, false, change.clone()).await {
                Err(error) if error.kind == ErrorKind::Stale && !change.named => {
                    // Known here alone, to whoever still has it.
                    self.inodes.gone(inode);
                    let changed = self.inodes.changed(inode, &change, self.clock.wall_ns());
                    return changed.map(|attr| attributes(&attr)).ok_or(error.into());
                }
                changed => changed?,
            },
        };
        Ok(self.shown(attr).await)
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
        mode: WantedMode,
        rdev: u32,
    ) -> Result<FileAttr> {
        let client = self.client_of(user);
        let made = client
            .make_node(Node::child(parent, name), kind, mode, rdev)
            .await;
        Ok(self.shown(self.in_directory(parent, made)?).await)
    }

    pub async fn mkdir(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        mode: WantedMode,
    ) -> Result<FileAttr> {
        let client = self.client_of(user);
        let made = client.make_dir(Node::child(parent, name), mode, false).await;
        Ok(self.shown(self.in_directory(parent, made)?).await)
    }

    pub async fn symlink(
        &self,
        user: User,
        parent: InodeId,
        name: String,
        target: String,
    ) -> Result<FileAttr> {
        let client = self.client_of(user);
        let made = client.symlink(Node::child(parent, name), &target).await;
        Ok(self.shown(self.in_directory(parent, made)?).await)
    }

    pub async fn link(&self, user: User, inode: InodeId, parent: InodeId, name: String) -> Result<FileAttr> {
        let client = self.client_of(user);
        Ok(self
            .shown(client.link(inode, Node::child(parent, name)).await?)
            .await)
    }

    /// The masters know what is open here, and keep it.
    pub async fn unlink(&self, user: User, parent: InodeId, name: String) -> Result<()> {
        let client = self.client_of(user);
        let gone = client.unlink(Node::child(parent, name), false).await?;
        self.lost_a_name(gone).await;
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
        let client = self.client_of(user);
        let (from, to) = (Node::child(from.0, from.1), Node::child(to.0, to.1));
        let renamed = client.rename(from, to, mode, false).await.map_err(not_again)?;
        if let Some(gone) = renamed.replaced {
            self.lost_a_name(gone).await;
        }
        Ok(())
    }

    /// Whoever has it open is shown one name less.
    async fn lost_a_name(&self, attr: Attr) {
        if self.files.slot(attr.inode).is_some() {
            self.shown(attr).await;
        }
    }

    pub async fn getxattr(&self, inode: InodeId, name: String) -> Result<Vec<u8>> {
        let scope = acls::scope_of(&name);
        if scope.is_none() {
            known_space(&name, libc::EOPNOTSUPP)?;
        }
        // `ls -l` asks for each entry that it was just told of.
        if self.inodes.is_bare(inode, self.clock.now()) {
            return Err(Refusal::of(libc::ENODATA));
        }
        let Some(scope) = scope else {
            return Ok(self.client.xattr(inode, &name).await?);
        };
        let found = self.client.acl(inode).await?;
        match found.entries.iter().any(|entry| entry.scope == scope) {
            true => {
                let whole = whole_acl(found.attr.mode, &found.entries);
                Ok(acls::encode(&whole, scope))
            }
            // What the mode alone says, programs know.
            false => Err(Refusal::of(libc::ENODATA)),
        }
    }

    pub async fn setxattr(
        &self,
        user: User,
        inode: InodeId,
        name: String,
        value: Vec<u8>,
        flags: i32,
    ) -> Result<()> {
        if let Some(scope) = acls::scope_of(&name) {
            let entries = acls::decode(&value, scope)?;
            return self.change_acl(user, inode, AclChange::Set(entries)).await;
        }
        known_space(&name, libc::EOPNOTSUPP)?;
        self.check_meant(user, inode).await?;
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        let client = self.client_of(user);
        self.inodes.dressed(inode);
        Ok(client.set_xattr(inode, &name, &value, create, replace).await?)
    }

    /// The names, each ended by a NUL, as `listxattr(2)` has them.
    pub async fn listxattr(&self, inode: InodeId) -> Result<Vec<u8>> {
        let mut names = self.client.xattr_names(inode).await?;
        if self.inodes.shown(inode).is_none_or(|attr| attr.has_acl) {
            let found = self.client.acl(inode).await?;
            names.extend(acls::names(&found.entries).map(str::to_owned));
        }
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        Ok(list)
    }

    async fn change_acl(&self, user: User, inode: InodeId, change: AclChange) -> Result<()> {
        self.check_meant(user, inode).await?;
        self.inodes.dressed(inode);
        self.client_of(user).change_acl(inode, change).await?;
        // The mode has changed with it.
        self.drop_attributes(inode);
        Ok(())
    }

    pub async fn removexattr(&self, user: User, inode: InodeId, name: String) -> Result<()> {
        match acls::scope_of(&name) {
            Some(AclScope::Default) => return self.change_acl(user, inode, AclChange::RemoveDefault).await,
            Some(AclScope::Access) => {
                let found = self.client.acl(inode).await?;
                let whole = whole_acl(found.attr.mode, &found.entries).into_iter();
                let base = |entry: &AclEntry| {
                    entry.scope == AclScope::Access
                        && matches!(entry.who, AclWho::Owner | AclWho::Group | AclWho::Other)
                };
                let base = whole.filter(base).collect();
                return self.change_acl(user, inode, AclChange::Set(base)).await;
            }
            None => {}
        }
        known_space(&name, libc::EOPNOTSUPP)?;
        self.check_meant(user, inode).await?;
        Ok(self.client_of(user).remove_xattr(inode, &name).await?)
    }

    pub async fn statfs(&self, inode: InodeId) -> Result<FsStats> {
        let asked = self.client.statfs_at(inode);
        let stats = match tokio::time::timeout(DF_DEADLINE, asked).await {
            Ok(stats) => stats,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("no master answered within {} s", DF_DEADLINE.as_secs()),
            )),
        };
        let mut last = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        match stats {
            Ok(stats) if inode == InodeId::ROOT => Ok(last.insert(stats).clone()),
            Ok(stats) => Ok(stats),
            Err(error) => last.clone().ok_or(error.into()),
        }
    }
}

/// Beyond a size that was set already.
fn changes_more(change: &AttrChange) -> bool {
    let nothing = AttrChange {
        keep_privileges: change.keep_privileges,
        named: change.named,
        ..AttrChange::default()
    };
    *change != nothing
}

fn known_space(name: &str, errno: i32) -> Result<()> {
    match XATTR_SPACES.iter().any(|space| name.starts_with(space)) {
        true => Ok(()),
        false => Err(Refusal::of(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_onto_what_somebody_else_changed_is_not_made_again_by_the_kernel() {
        let told = |kind| not_again(Error::new(kind, "no")).errno;
        assert_eq!(told(ErrorKind::UfsChanged), libc::EBUSY);
        assert_eq!(told(ErrorKind::Stale), libc::ESTALE);
    }
}
