//! Entries that go: unlink, rmdir, recursive delete, and what becomes of nameless inodes.

use std::collections::BTreeSet;

use curvine_protocol::master::{
    Delete, Deleted, EndSession, Entry, Holders, OpenSession, ReleaseInode, RemoveDir, RenewSession,
    SessionOpened, Unlink,
};
use curvine_protocol::op::SilentSession;
use curvine_protocol::worker::Done;
use curvine_protocol::{ClientId, Error, ErrorKind, InodeId, Node, Result};

use super::{Applies, Apply};
use crate::master::namespace::detached::STEP;
use crate::master::namespace::records::{InodeBody, InodeRecord};
use crate::master::namespace::sessions::{SessionRecord, ended, is_given};
use crate::master::namespace::store::{broken, inodes_of, pair_key};
use crate::planted::{Bug, is_planted};

/// Whom a file is kept for that loses its last name.
#[derive(Default)]
pub(super) struct Keep<'a> {
    /// The calling client.
    pub caller: bool,
    /// Those who have it open, as the leader knows; none if nobody asked it.
    pub holders: Option<&'a Holders>,
}

/// Keeps what some client may have open of whom the leader has not heard yet. It has no session that is renewed, so
/// that it lasts as long as one.
const SOMEBODY: ClientId = ClientId(0);

impl Keep<'_> {
    fn clients(&self, inode: InodeId, caller: ClientId, writer: Option<ClientId>) -> BTreeSet<ClientId> {
        let mut clients = BTreeSet::new();
        clients.extend(self.caller.then_some(caller));
        if let Some(known) = self.holders {
            // A lease is an open file that no leader forgets. The caller may have got it by an open that was on its way when it
            // asked for this; once it closes the file, it says so.
            clients.extend(writer);
            let file = known.files.iter().find(|file| file.inode == inode);
            clients.extend(file.into_iter().flat_map(|file| &file.clients));
            let looked_elsewhere = known.of != InodeId(0) && known.of != inode;
            clients.extend((known.unsure || looked_elsewhere).then_some(SOMEBODY));
        }
        clients
    }
}

/// So many blocks of a file take as long to forget as an inode.
const BLOCKS_AS_AN_INODE: u64 = 64;

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
        let keep = Keep {
            caller: call.keep_open,
            holders: call.holders.as_ref(),
        };
        let record = self.drop_link(inode, record, &keep)?;
        Ok(self.entry(inode, &record))
    }
}

impl Apply<'_, '_> {
    /// One name less. The last one frees the inode, unless it is kept for somebody.
    pub(super) fn drop_link(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        keep: &Keep,
    ) -> Result<InodeRecord> {
        record.nlink -= 1;
        record.ctime_ns = self.now_ns;
        if record.nlink > 0 {
            self.dbs.put_inode(self.txn, inode, &record)?;
            return Ok(record);
        }
        let writer = match &record.body {
            InodeBody::File(file) => file.lease,
            _ => None,
        };
        for client in keep.clients(inode, self.client, writer) {
            self.hold(client, inode, &mut record)?;
        }
        match record.holders {
            0 => self.free_inode(inode, &record)?,
            _ => self.dbs.put_inode(self.txn, inode, &record)?,
        }
        Ok(record)
    }

    /// Keeps a nameless inode for a client, whose session must last for that. The caller stores the record.
    fn hold(&mut self, client: ClientId, inode: InodeId, record: &mut InodeRecord) -> Result<()> {
        let session = self
            .dbs
            .session(self.txn, client)?
            .filter(|session| !session.is_ended);
        if is_given(client) && session.is_none() {
            // It has ended meanwhile.
            return Ok(());
        }
        let key = pair_key(client.0, inode.0);
        if self.dbs.orphans.get(self.txn, &key).map_err(broken)?.is_some() {
            return Ok(());
        }
        self.dbs.orphans.put(self.txn, &key, &[]).map_err(broken)?;
        record.holders += 1;
        // Somebody's begins anew with each inode, so that each is kept for as long as a session lasts.
        if client == SOMEBODY {
            let heard = SessionRecord {
                heard_ns: self.now_ns,
                ..SessionRecord::default()
            };
            self.dbs.put_session(self.txn, client, heard)?;
        }
        Ok(())
    }

    /// What the calling client has open and lost its names meanwhile stays for it.
    pub(super) fn hold_inodes(&mut self, inodes: Vec<InodeId>) -> Result<Done> {
        for inode in inodes {
            let Some(mut record) = self.dbs.inode(self.txn, inode)? else {
                continue;
            };
            if record.nlink == 0 && !record.is_dir() {
                self.hold(self.client, inode, &mut record)?;
                self.dbs.put_inode(self.txn, inode, &record)?;
            }
        }
        self.done()
    }

    /// Forgets an inode that no name and no handle leads to.
    pub(super) fn free_inode(&mut self, inode: InodeId, record: &InodeRecord) -> Result<()> {
        if let InodeBody::File(file) = &record.body {
            self.release_blocks(inode, &file.placed_blocks())?;
            self.effects.unleased.push(inode);
            if file.unfenced {
                self.dbs.forget_unfenced(self.txn, inode)?;
            }
            if let Some(holder) = file.lease {
                self.dbs
                    .leases
                    .delete(self.txn, &pair_key(holder.0, inode.0))
                    .map_err(broken)?;
            }
        }
        self.dbs.forget_export(self.txn, inode, record.mount)?;
        self.forget_locks(inode)?;
        self.dbs.delete_xattrs(self.txn, inode)?;
        self.dbs.charge(self.txn, inode, None)?;
        self.dbs.forget_quota(self.txn, inode)?;
        self.dbs.forget_ttl(self.txn, inode)?;
        self.dbs.forget_tier(self.txn, inode)?;
        let key = inode.0.to_be_bytes();
        self.dbs.inodes.delete(self.txn, &key).map_err(broken)?;
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
                closed: Vec::new(),
                holders: call.holders,
            })?;
            return Ok(Deleted {
                files: 1,
                ..NOTHING_YET
            });
        }
        self.refuse_mount_point(parent, &record, &call.node)?;
        if !call.recursive && !self.dbs.is_empty(self.txn, inode)? {
            return Err(not_empty(&call.node));
        }
        self.refuse_mounts_below(inode, &call.node)?;
        let mut deleted = Deleted {
            directories: 1,
            ..NOTHING_YET
        };
        let keep = Keep {
            caller: false,
            holders: call.holders.as_ref(),
        };
        self.remove_tree(parent, &name, inode, &keep, &mut deleted)?;
        Ok(deleted)
    }
}

/// Nothing is deleted yet.
pub(super) const NOTHING_YET: Deleted = Deleted {
    files: 0,
    directories: 0,
    in_background: false,
};

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

    /// Removes a directory and everything in it. What of a big one does not go at once is cut off, and goes later.
    pub(super) fn remove_tree(
        &mut self,
        parent: InodeId,
        name: &str,
        top: InodeId,
        keep: &Keep,
        deleted: &mut Deleted,
    ) -> Result<()> {
        if self.empty_dir(top, keep, deleted)? {
            return self.remove_empty_dir(parent, name, top);
        }
        self.dbs.delete_dentry(self.txn, parent, name)?;
        self.dbs.detach(self.txn, top)?;
        let mut above = self.dbs.inode_or_stale(self.txn, parent)?;
        above.nlink -= 1;
        self.touch_directory(parent, above)
    }

    /// Removes some more of a tree that was cut off.
    pub(super) fn reclaim(&mut self, top: InodeId, holders: Option<&Holders>) -> Result<Done> {
        let keep = Keep {
            caller: false,
            holders,
        };
        if self.dbs.is_detached(self.txn, top)? && self.empty_dir(top, &keep, &mut NOTHING_YET.clone())? {
            let record = self.dbs.inode_or_stale(self.txn, top)?;
            self.free_inode(top, &record)?;
            self.dbs.reclaimed(self.txn, top)?;
        }
        self.done()
    }

    /// Removes what is in a directory, depth first, without recursion: trees may be deeper than the stack. False if it was
    /// too much for one command, and something is left.
    pub(super) fn empty_dir(&mut self, top: InodeId, keep: &Keep, deleted: &mut Deleted) -> Result<bool> {
        let mut path = vec![(top, String::new())];
        let mut room = STEP;
        while let Some((directory, _)) = path.last().cloned() {
            if room == 0 {
                deleted.in_background = true;
                return Ok(false);
            }
            let Some((name, child)) = self.dbs.children(self.txn, directory, None, 1)?.pop() else {
                let (done, name) = path.pop().expect("the loop looked at it");
                if let Some((above, _)) = path.last() {
                    self.remove_empty_dir(*above, &name, done)?;
                    deleted.directories += 1;
                    room -= 1;
                }
                continue;
            };
            let record = self.dbs.inode_or_stale(self.txn, child)?;
            if record.is_dir() {
                path.push((child, name));
            } else {
                self.dbs.delete_dentry(self.txn, directory, &name)?;
                let blocks = match &record.body {
                    InodeBody::File(file) => file.block_count() as u64,
                    _ => 0,
                };
                self.drop_link(child, record, keep)?;
                deleted.files += 1;
                room = room.saturating_sub(1 + blocks / BLOCKS_AS_AN_INODE);
            }
        }
        Ok(true)
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
        let session = match self.dbs.session(self.txn, self.client)? {
            Some(session) if !session.is_ended => session,
            _ if is_planted(Bug::RenewalRevives) => SessionRecord::default(),
            _ => return Err(ended(self.client)),
        };
        let heard = SessionRecord {
            heard_ns: self.now_ns,
            ..session
        };
        self.dbs.put_session(self.txn, self.client, heard)?;
        self.done()
    }
}

impl Applies<OpenSession> for Apply<'_, '_> {
    fn apply(&mut self, _call: OpenSession) -> Result<SessionOpened> {
        let client = self.dbs.begin_session(self.txn, self.now_ns)?;
        Ok(SessionOpened { client })
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
            Some(mut record) if was && record.nlink == 0 => {
                record.holders = record.holders.saturating_sub(1);
                match record.holders {
                    0 => self.free_inode(inode, &record),
                    _ => self.dbs.put_inode(self.txn, inode, &record),
                }
            }
            _ => Ok(()),
        }
    }

    /// Ends a client's session: its leases, its nameless inodes and the memory of its replies go.
    fn end_session(&mut self, client: ClientId) -> Result<Done> {
        for inode in inodes_of(&self.dbs.leases, self.txn, client)? {
            if let Some(mut record) = self.dbs.inode(self.txn, inode)? {
                if let InodeBody::File(file) = &mut record.body
                    && file.lease == Some(client)
                {
                    self.revoke(inode, file)?;
                }
                self.dbs.put_inode(self.txn, inode, &record)?;
            }
            self.dbs
                .leases
                .delete(self.txn, &pair_key(client.0, inode.0))
                .map_err(broken)?;
        }
        self.unlock_all_of(client)?;
        for inode in inodes_of(&self.dbs.orphans, self.txn, client)? {
            self.release_for(client, inode)?;
        }
        self.dbs.close_session(self.txn, client, self.now_ns)?;
        self.done()
    }

    /// Whoever was heard of since the leader looked goes on.
    pub(super) fn end_sessions(&mut self, silent: Vec<SilentSession>) -> Result<Done> {
        for SilentSession { client, heard_ns } in silent {
            match self.dbs.session(self.txn, client)? {
                Some(session) if session.heard_ns != heard_ns && !is_planted(Bug::RenewedSessionEnds) => {}
                // Its end has been remembered for long enough.
                Some(session) if session.is_ended => self.dbs.forget_session(self.txn, client)?,
                Some(_) => {
                    self.end_session(client)?;
                }
                None => {}
            }
        }
        self.done()
    }

    pub(super) fn expire_sessions(&mut self, before_ns: i64) -> Result<Done> {
        for (client, session) in self.dbs.all_sessions(self.txn)? {
            if session.heard_ns < before_ns && !session.is_ended {
                self.end_session(client)?;
            }
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
