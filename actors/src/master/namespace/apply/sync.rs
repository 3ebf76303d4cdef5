//! What under file systems hold, as it was listed or exported.

use std::collections::BTreeMap;

use curvine_protocol::op::{OpReply, SyncDir, UfsObject};
use curvine_protocol::worker::Done;
use curvine_protocol::{Error, ErrorKind, FileKind, InodeId, MountId, Result, UfsVersion};

use super::Apply;
use super::remove::{Keep, NOTHING_YET};
use crate::master::namespace::effects::{Area, EffectRecord};
use crate::master::namespace::records::{FileBody, InodeBody, InodeRecord};
use crate::master::namespace::view::key_in_mount;
use crate::ufs::joined;

impl Apply<'_, '_> {
    pub(super) fn sync_dir(&mut self, sync: SyncDir) -> Result<OpReply> {
        let above = self.directory_of_mount(sync.directory)?;
        let (mut added, mut changed, mut removed) = (0, 0, 0);
        let masked = self.masked(&above)?;
        let mut after = sync.after.clone();
        let listed: BTreeMap<&str, &UfsObject> = sync
            .objects
            .iter()
            .map(|object| (object.name.as_str(), object))
            .collect();
        // What the namespace has and the under file system has not.
        if let Some(name) = &sync.only
            && let Some(inode) = self.dbs.child(self.txn, sync.directory, name)?
            && !masked.has(name)
        {
            removed += self.remove_unlisted(sync.directory, name, inode, &listed)?;
        }
        while sync.only.is_none() {
            let page = self
                .dbs
                .children(self.txn, sync.directory, after.as_deref(), 1_000)?;
            let Some((last, _)) = page.last().cloned() else {
                break;
            };
            for (name, inode) in page {
                if sync.until.as_ref().is_some_and(|until| name > *until) {
                    break;
                }
                if !masked.has(&name) {
                    removed += self.remove_unlisted(sync.directory, &name, inode, &listed)?;
                }
            }
            if sync.until.as_ref().is_some_and(|until| last >= *until) {
                break;
            }
            after = Some(last);
        }
        for object in sync.objects.iter().filter(|object| !masked.has(&object.name)) {
            match self.dbs.child(self.txn, sync.directory, &object.name)? {
                None => {
                    self.add_object(sync.directory, object)?;
                    added += 1;
                }
                Some(inode) => changed += u64::from(self.change_object(inode, object)?),
            }
        }
        Ok(OpReply::Synced {
            added,
            changed,
            removed,
        })
    }

    /// # Errors
    /// `Stale` if it is no directory of a mount, or not any more.
    pub(super) fn directory_of_mount(&self, directory: InodeId) -> Result<InodeRecord> {
        let record = self.dbs.inode_or_stale(self.txn, directory)?;
        match record.is_dir() && record.mount != MountId(0) {
            true => Ok(record),
            false => Err(Error::new(
                ErrorKind::Stale,
                format!("inode {directory} is no directory of a mount any more"),
            )),
        }
    }

    /// The names of a directory of which a listing has nothing to say now.
    pub(super) fn masked(&self, directory: &InodeRecord) -> Result<Masked> {
        let effects = self.dbs.effects_of(self.txn, directory.mount)?;
        let key = match effects.is_empty() {
            true => None,
            false => key_in_mount(&self.dbs, self.txn, directory)?,
        };
        Ok(Masked {
            key: key.map(|(_, key)| key).unwrap_or_default(),
            effects: effects.into_iter().map(|(_, effect)| effect).collect(),
        })
    }

    /// How many inodes went with an entry that the under file system does not have.
    fn remove_unlisted(
        &mut self,
        parent: InodeId,
        name: &str,
        inode: InodeId,
        listed: &BTreeMap<&str, &UfsObject>,
    ) -> Result<u64> {
        let record = self.dbs.inode_or_stale(self.txn, inode)?;
        let same_kind = listed.get(name).is_some_and(|object| object.kind == record.kind);
        match same_kind || is_ours(&record) {
            true => Ok(0),
            false => self.remove_synced(parent, name, inode, record),
        }
    }

    pub(super) fn remove_synced(
        &mut self,
        parent: InodeId,
        name: &str,
        inode: InodeId,
        record: InodeRecord,
    ) -> Result<u64> {
        let mut deleted = NOTHING_YET;
        if record.is_dir() {
            self.remove_tree(parent, name, inode, &Keep::default(), &mut deleted)?;
        } else {
            self.dbs.delete_dentry(self.txn, parent, name)?;
            self.drop_link(inode, record, &Keep::default())?;
        }
        Ok(deleted.files + deleted.directories + 1)
    }

    pub(super) fn add_object(&mut self, parent: InodeId, object: &UfsObject) -> Result<()> {
        let above = self.dbs.inode_or_stale(self.txn, parent)?;
        let modified_ns = object
            .version
            .as_ref()
            .map_or(0, |version| version.mtime_ms.saturating_mul(1_000_000));
        let (mode, body) = match object.kind {
            FileKind::Directory => (0o755, InodeBody::Directory),
            FileKind::Symlink => (
                0o777,
                InodeBody::Symlink(object.target.clone().unwrap_or_default()),
            ),
            _ => (
                0o644,
                InodeBody::File(FileBody {
                    replicas: 1,
                    ..FileBody::default()
                }),
            ),
        };
        let mut record = self.new_record(parent, &above, &object.name, mode, object.kind, body);
        (record.uid, record.gid) = (above.uid, above.gid);
        if modified_ns != 0 {
            record.set_mtime(modified_ns);
            record.set_atime(modified_ns);
        }
        if let Some(kept) = &object.attributes {
            record.take(kept);
            record.set_atime(record.mtime_ns);
        }
        let inode = self.insert(parent, above, &object.name, &record)?;
        if let Some(kept) = &object.attributes {
            self.dbs.put_xattrs(self.txn, inode, &kept.xattrs)?;
        }
        if let (InodeBody::File(file), Some(version)) = (&mut record.body, &object.version) {
            self.set_object(file, inode, version.clone())?;
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        Ok(())
    }

    /// Whether the file had another version.
    pub(super) fn change_object(&mut self, inode: InodeId, object: &UfsObject) -> Result<bool> {
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        if is_ours(&record) {
            return Ok(false);
        }
        let (InodeBody::File(file), Some(version)) = (&mut record.body, &object.version) else {
            return Ok(false);
        };
        if file.ufs.as_ref() == Some(version) {
            return Ok(false);
        }
        self.set_object(file, inode, version.clone())?;
        if version.mtime_ms != 0 {
            record.set_mtime(version.mtime_ms.saturating_mul(1_000_000));
        }
        self.dbs.forget_unkept(self.txn, record.mount, inode)?;
        if let Some(kept) = object.attributes.as_ref().filter(|kept| !kept.is_nothing()) {
            record.take(kept);
            self.dbs.delete_xattrs(self.txn, inode)?;
            self.dbs.put_xattrs(self.txn, inode, &kept.xattrs)?;
        }
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        Ok(true)
    }

    pub(super) fn set_ufs_version(&mut self, inode: InodeId, version: UfsVersion) -> Result<Done> {
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        if let InodeBody::File(file) = &mut record.body {
            file.needs_export = false;
            file.ufs = Some(version);
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        self.done()
    }
}

/// What effects are at work on, below a directory.
pub(super) struct Masked {
    key: String,
    effects: Vec<EffectRecord>,
}

impl Masked {
    pub(super) fn has(&self, name: &str) -> bool {
        if self.effects.is_empty() {
            return false;
        }
        let key = joined(&self.key, name);
        let area = Area {
            key: &key,
            tree: true,
        };
        self.effects.iter().any(|effect| effect.meets(effect.mount, area))
    }
}

/// Being written, or written and not exported: what the under file system says of it does not count yet.
pub(super) fn is_ours(record: &InodeRecord) -> bool {
    matches!(&record.body, InodeBody::File(file) if file.needs_export || file.lease.is_some())
}
