//! The mount table.

use std::collections::BTreeMap;

use curvine_protocol::master::MakeDir;
use curvine_protocol::mount::{MountChanges, MountRecord, MountSettings};
use curvine_protocol::{CurvinePath, Error, ErrorKind, InodeId, MountId, Node, Result};

use super::remove::{Keep, NOTHING_YET};
use super::{Applies, Apply};
use crate::master::namespace::resolve::path_of;
use crate::master::namespace::store::{Counter, broken, put, u64_at};

impl Apply<'_, '_> {
    pub(super) fn add_mount(
        &mut self,
        path: CurvinePath,
        uri: String,
        options: BTreeMap<String, String>,
        settings: MountSettings,
    ) -> Result<MountRecord> {
        for mount in self.dbs.mount_records(self.txn)? {
            if mount.path == path {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{path}: {} is mounted there already; `cv umount {path}` first",
                        mount.uri
                    ),
                ));
            }
            if mount.path.contains(&path) || path.contains(&mount.path) {
                return Err(Error::invalid(format!(
                    "{path}: mounts do not nest, and {} is mounted on {}",
                    mount.uri, mount.path
                )));
            }
        }
        let made = self.apply(MakeDir {
            node: Node::Path(path.clone()),
            mode: 0o755,
            parents: true,
            unmasked: None,
        })?;
        let inode = made.attr.inode;
        if inode == InodeId::ROOT {
            return Err(Error::invalid(
                "/: mount on a directory below the root, such as /data",
            ));
        }
        if !self.dbs.is_empty(self.txn, inode)? {
            return Err(Error::new(
                ErrorKind::DirectoryNotEmpty,
                format!("{path}: the directory is not empty; mount on an empty or a new one"),
            ));
        }
        let id = self.dbs.take(self.txn, Counter::Mount, 1)?;
        let id = u32::try_from(id).map_err(|_| Error::internal("no number is left for a mount"))?;
        let id = MountId(id);
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        record.mount = id;
        self.dbs.put_inode(self.txn, inode, &record)?;
        let mount = MountRecord {
            id,
            path,
            uri,
            options,
            settings,
            created_ns: self.now_ns,
        };
        put(&self.dbs.mounts, self.txn, &id.0.to_be_bytes(), &mount)?;
        Ok(mount)
    }

    pub(super) fn update_mount(
        &mut self,
        id: MountId,
        changes: &MountChanges,
        conditions: bool,
    ) -> Result<MountRecord> {
        let mounts = self.dbs.mount_records(self.txn)?;
        let Some(mount) = mounts.into_iter().find(|mount| mount.id == id) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("mount {id} no longer exists; `cv mounts` lists the mounts"),
            ));
        };
        let mut mount = mount.changed(changes);
        mount.settings.conditions = conditions;
        put(&self.dbs.mounts, self.txn, &id.0.to_be_bytes(), &mount)?;
        Ok(mount)
    }

    pub(super) fn remove_mount(&mut self, path: CurvinePath, force: bool) -> Result<MountId> {
        let mounts = self.dbs.mount_records(self.txn)?;
        let Some(mount) = mounts.into_iter().find(|mount| mount.path == path) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{path}: nothing is mounted there; `cv mounts` lists the mounts"),
            ));
        };
        let effects = self.dbs.effects_of(self.txn, mount.id)?;
        let is_behind = !effects.is_empty()
            || !self.dbs.unexported(self.txn, mount.id, InodeId(0), 1)?.is_empty()
            || !self.dbs.all_unkept(self.txn, mount.id, InodeId(0), 1)?.is_empty();
        if is_behind && !force {
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{path}: {} has not got everything yet; `cv mounts` says what is waiting, `cv persist {path}` waits for it, \
                     and `cv umount --force {path}` gives it up",
                    mount.uri
                ),
            ));
        }
        if !force && let Some((inode, count)) = self.written_now(mount.id)? {
            let others = match count {
                1 => " is".to_owned(),
                2 => " and another file are".to_owned(),
                _ => format!(" and {} other files are", count - 1),
            };
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{path}: {}{others} open for writing; close what is open, or give it up with `cv umount --force {path}`",
                    path_of(&self.dbs, self.txn, inode)?
                ),
            ));
        }
        for (effect, _) in effects {
            self.dbs.end_effect(self.txn, effect)?;
            self.effects.ended.push(effect);
        }
        let place = self.place(&Node::Path(path.clone()), false)?;
        let entry = place.entry.clone();
        let (mut inode, _) = place.existing(&Node::Path(path))?;
        // What is mounted here next has its own.
        self.dbs.forget_ttl(self.txn, inode)?;
        self.dbs.forget_tier(self.txn, inode)?;
        self.forget_pin(inode)?;
        let is_empty = self.empty_dir(inode, &Keep::default(), &mut NOTHING_YET.clone())?;
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        if !is_empty && let Some((parent, name)) = entry {
            // An empty directory takes its place.
            self.dbs.detach(self.txn, inode)?;
            inode = InodeId(self.dbs.take(self.txn, Counter::Inode, 1)?);
            self.dbs.put_dentry(self.txn, parent, &name, inode)?;
            self.count_inodes(1)?;
            record.nlink = 2;
        }
        record.mount = MountId(0);
        record.name = String::new();
        self.dbs.put_inode(self.txn, inode, &record)?;
        let key = mount.id.0.to_be_bytes();
        self.dbs.mounts.delete(self.txn, &key).map_err(broken)?;
        Ok(mount.id)
    }

    /// One of the files of a mount that have names and writers, and how many they are.
    fn written_now(&self, mount: MountId) -> Result<Option<(InodeId, usize)>> {
        let (mut first, mut count) = (None, 0);
        for entry in self.dbs.leases.iter(self.txn).map_err(broken)? {
            let inode = InodeId(u64_at(entry.map_err(broken)?.0, 8));
            let record = self.dbs.inode(self.txn, inode)?;
            if record.is_some_and(|record| record.mount == mount && record.nlink > 0) {
                first.get_or_insert(inode);
                count += 1;
            }
        }
        Ok(first.map(|inode| (inode, count)))
    }
}
