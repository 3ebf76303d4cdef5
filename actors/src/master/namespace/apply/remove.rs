//! Entries that go: unlink, rmdir, recursive delete, and what becomes of nameless inodes.

use curvine_protocol::master::{
    Delete, Deleted, EndSession, Entry, ReleaseInode, RemoveDir, RenewSession, Unlink,
};
use curvine_protocol::worker::Done;
use curvine_protocol::{ClientId, Error, ErrorKind, InodeId, Node, Result};

use super::{Applies, Apply};
use crate::master::namespace::records::{InodeBody, InodeRecord};
use crate::master::namespace::store::{Store, broken, pair_key, u64_at};

impl Applies<Unlink> for Apply<'_, '_> {
    fn apply(&mut self, call: Unlink) -> Result<Entry> {
        let place = self.place(&call.node, false)?;
        let Some((parent, name)) = place.entry.clone() else {
            return Err(Error::invalid(format!(
                "{}: only an entry of a directory can be removed",
                call.node
            )));
        };
        let (inode, record) = place.existing(&call.node)?;
        if record.is_dir() {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{}: is a directory", call.node),
            ));
        }
        self.dbs.delete_dentry(self.txn, parent, &name)?;
        let above = self.dbs.inode_or_stale(self.txn, parent)?;
        self.touch_directory(parent, above)?;
        let record = self.drop_link(inode, record, call.keep_open)?;
        Ok(self.entry(inode, &record))
    }
}

impl Apply<'_, '_> {
    /// One name less. The last one frees the inode, unless it is kept for the calling client.
    pub(super) fn drop_link(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        keep_open: bool,
    ) -> Result<InodeRecord> {
        record.nlink -= 1;
        record.ctime_ns = self.now_ns;
        if record.nlink > 0 {
            self.dbs.put_inode(self.txn, inode, &record)?;
        } else if keep_open {
            self.dbs.put_inode(self.txn, inode, &record)?;
            self.dbs
                .orphans
                .put(self.txn, &pair_key(self.client.0, inode.0), &[])
                .map_err(broken)?;
        } else {
            self.free_inode(inode, &record)?;
        }
        Ok(record)
    }

    /// Forgets an inode that no name and no handle leads to.
    pub(super) fn free_inode(&mut self, inode: InodeId, record: &InodeRecord) -> Result<()> {
        if let InodeBody::File(file) = &record.body {
            self.release_blocks(inode, 0, &file.block_refs())?;
            if let Some(holder) = file.lease {
                self.dbs
                    .leases
                    .delete(self.txn, &pair_key(holder.0, inode.0))
                    .map_err(broken)?;
            }
        }
        let (from, until) = (inode.0.to_be_bytes(), (inode.0 + 1).to_be_bytes());
        Store::delete_range(&self.dbs.xattrs, self.txn, &from, &until)?;
        self.dbs.inodes.delete(self.txn, &from).map_err(broken)?;
        self.count_inodes(-1)
    }
}

impl Applies<RemoveDir> for Apply<'_, '_> {
    fn apply(&mut self, call: RemoveDir) -> Result<Done> {
        let place = self.place(&call.node, false)?;
        let Some((parent, name)) = place.entry.clone() else {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{}: cannot be removed", call.node),
            ));
        };
        let (inode, record) = place.existing(&call.node)?;
        if !record.is_dir() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{}: is not a directory", call.node),
            ));
        }
        if !self.dbs.is_empty(self.txn, inode)? {
            return Err(not_empty(&call.node));
        }
        self.refuse_mount_point(parent, &record, &call.node)?;
        self.remove_empty_dir(parent, &name, inode)?;
        self.done()
    }
}

impl Apply<'_, '_> {
    pub(super) fn refuse_mount_point(
        &self,
        parent: InodeId,
        record: &InodeRecord,
        node: &Node,
    ) -> Result<()> {
        if record.mount != self.dbs.inode_or_stale(self.txn, parent)?.mount {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{node}: is a mount point; `cv umount` it first"),
            ));
        }
        Ok(())
    }

    pub(super) fn remove_empty_dir(&mut self, parent: InodeId, name: &str, inode: InodeId) -> Result<()> {
        self.dbs.delete_dentry(self.txn, parent, name)?;
        let record = self.dbs.inode_or_stale(self.txn, inode)?;
        self.free_inode(inode, &record)?;
        let mut above = self.dbs.inode_or_stale(self.txn, parent)?;
        above.nlink -= 1;
        self.touch_directory(parent, above)
    }
}

impl Applies<Delete> for Apply<'_, '_> {
    fn apply(&mut self, call: Delete) -> Result<Deleted> {
        let place = self.place(&call.node, false)?;
        let Some((parent, name)) = place.entry.clone() else {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{}: cannot be removed", call.node),
            ));
        };
        let (inode, record) = place.existing(&call.node)?;
        if !record.is_dir() {
            self.apply(Unlink {
                node: Node::child(parent, name),
                keep_open: false,
            })?;
            return Ok(Deleted {
                files: 1,
                directories: 0,
            });
        }
        self.refuse_mount_point(parent, &record, &call.node)?;
        if !call.recursive && !self.dbs.is_empty(self.txn, inode)? {
            return Err(not_empty(&call.node));
        }
        self.refuse_mounts_below(inode, &call.node)?;
        let mut deleted = Deleted {
            files: 0,
            directories: 1,
        };
        self.empty_dir(inode, &mut deleted)?;
        self.remove_empty_dir(parent, &name, inode)?;
        Ok(deleted)
    }
}

impl Apply<'_, '_> {
    /// Mounts are recorded by their paths, which must stay.
    ///
    /// # Errors
    /// `Busy` if something is mounted strictly below a directory.
    pub(super) fn refuse_mounts_below(&self, directory: InodeId, node: &Node) -> Result<()> {
        use crate::master::namespace::resolve::{is_within, resolve};
        for mount in self.dbs.mount_records(self.txn)? {
            let point = resolve(&self.dbs, self.txn, &Node::Path(mount.path.clone()), false)?;
            if let Some((inode, _)) = point.found
                && inode != directory
                && is_within(&self.dbs, self.txn, inode, directory)?
            {
                let mount = mount.path;
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("{node}: {mount} is mounted below it; `cv umount {mount}` first"),
                ));
            }
        }
        Ok(())
    }

    /// Removes everything in a directory, depth first, without recursion: trees may be deeper than the stack.
    pub(super) fn empty_dir(&mut self, top: InodeId, deleted: &mut Deleted) -> Result<()> {
        let mut path = vec![(top, String::new())];
        while let Some((directory, _)) = path.last().cloned() {
            let Some((name, child)) = self.dbs.children(self.txn, directory, None, 1)?.pop() else {
                let (done, name) = path.pop().expect("the loop looked at it");
                if let Some((above, _)) = path.last() {
                    self.remove_empty_dir(*above, &name, done)?;
                    deleted.directories += 1;
                }
                continue;
            };
            let record = self.dbs.inode_or_stale(self.txn, child)?;
            if record.is_dir() {
                path.push((child, name));
            } else {
                self.dbs.delete_dentry(self.txn, directory, &name)?;
                self.drop_link(child, record, false)?;
                deleted.files += 1;
            }
        }
        Ok(())
    }
}

impl Applies<ReleaseInode> for Apply<'_, '_> {
    fn apply(&mut self, call: ReleaseInode) -> Result<Done> {
        self.release_for(self.client, call.inode)?;
        self.done()
    }
}

impl Applies<RenewSession> for Apply<'_, '_> {
    fn apply(&mut self, _call: RenewSession) -> Result<Done> {
        let now = self.now_ns.to_be_bytes();
        self.dbs
            .sessions
            .put(self.txn, &self.client.0.to_be_bytes(), &now)
            .map_err(broken)?;
        self.done()
    }
}

impl Applies<EndSession> for Apply<'_, '_> {
    fn apply(&mut self, _call: EndSession) -> Result<Done> {
        self.end_session(self.client)
    }
}

impl Apply<'_, '_> {
    /// One client no longer needs a nameless inode. Freed when no other does.
    fn release_for(&mut self, client: ClientId, inode: InodeId) -> Result<()> {
        let was = self
            .dbs
            .orphans
            .delete(self.txn, &pair_key(client.0, inode.0))
            .map_err(broken)?;
        match self.dbs.inode(self.txn, inode)? {
            Some(record) if was && record.nlink == 0 => self.free_inode(inode, &record),
            _ => Ok(()),
        }
    }

    /// Ends a client's session: its leases, its nameless inodes and the memory of its replies go.
    fn end_session(&mut self, client: ClientId) -> Result<Done> {
        let prefix = client.0.to_be_bytes();
        let inodes_of =
            |database: &crate::master::namespace::store::Raw, txn: &heed::RoTxn| -> Result<Vec<InodeId>> {
                let all = database.prefix_iter(txn, &prefix).map_err(broken)?;
                all.map(|entry| Ok(InodeId(u64_at(entry.map_err(broken)?.0, 8))))
                    .collect()
            };
        for inode in inodes_of(&self.dbs.leases, self.txn)? {
            if let Some(mut record) = self.dbs.inode(self.txn, inode)? {
                if let InodeBody::File(file) = &mut record.body
                    && file.lease == Some(client)
                {
                    file.break_lease();
                }
                self.dbs.put_inode(self.txn, inode, &record)?;
            }
            self.dbs
                .leases
                .delete(self.txn, &pair_key(client.0, inode.0))
                .map_err(broken)?;
        }
        for inode in inodes_of(&self.dbs.orphans, self.txn)? {
            self.release_for(client, inode)?;
        }
        let (from, until) = (pair_key(client.0, 0), pair_key(client.0, u64::MAX));
        Store::delete_range(&self.dbs.replies, self.txn, &from, &until)?;
        self.dbs.sessions.delete(self.txn, &prefix).map_err(broken)?;
        self.done()
    }

    pub(super) fn expire_sessions(&mut self, before_ns: i64) -> Result<Done> {
        let mut expired = Vec::new();
        for entry in self.dbs.sessions.iter(self.txn).map_err(broken)? {
            let (key, value) = entry.map_err(broken)?;
            if (u64_at(value, 0) as i64) < before_ns {
                expired.push(ClientId(u64_at(key, 0)));
            }
        }
        for client in expired {
            self.end_session(client)?;
        }
        self.done()
    }
}

pub(super) fn not_empty(node: &Node) -> Error {
    Error::new(
        ErrorKind::DirectoryNotEmpty,
        format!("{node}: the directory is not empty"),
    )
}
