//! Attributes and extended attributes.

use curvine_protocol::master::{Entry, RemoveXattr, SetAttr, SetTime, SetXattr};
use curvine_protocol::path::NAME_BYTES_MAX;
use curvine_protocol::worker::Done;
use curvine_protocol::{Error, ErrorKind, InodeId, MountId, Node, Result};

use super::{Applies, Apply, already_exists};
use crate::master::namespace::records::{InodeBody, InodeRecord};
use crate::master::namespace::store::{broken, named_key};

/// As Linux has it (XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: usize = 64 << 10;

impl Applies<SetAttr> for Apply<'_, '_> {
    fn apply(&mut self, call: SetAttr) -> Result<Entry> {
        let now_ns = self.now_ns;
        let (inode, mut record) = self.existing(&call.node, call.follow)?;
        let change = call.change;
        if change.named && record.nlink == 0 {
            return Err(Error::nameless(inode));
        }
        if let Some(size_bytes) = change.size_bytes {
            let is_dir = record.is_dir();
            self.check_growth(&record, size_bytes)?;
            let InodeBody::File(file) = &mut record.body else {
                return Err(has_none(&call.node, is_dir, "size"));
            };
            self.check_lease(file, &call.node)?;
            if size_bytes != file.size_bytes {
                file.leaves_object(record.mount.0 != 0);
                self.cut(file, inode, size_bytes)?;
            }
            record.set_mtime(now_ns);
            if !change.keep_privileges {
                record.clear_suid_sgid();
            }
        }
        if let Some(replicas) = change.replicas {
            let is_dir = record.is_dir();
            match &mut record.body {
                InodeBody::File(file) if replicas > 0 => file.replicas = replicas,
                InodeBody::File(_) => {
                    return Err(Error::invalid(format!(
                        "{}: a file has one replica at least",
                        call.node
                    )));
                }
                _ => return Err(has_none(&call.node, is_dir, "replicas")),
            }
        }
        if change.uid.is_some() || change.gid.is_some() {
            record.uid = change.uid.unwrap_or(record.uid);
            record.gid = change.gid.unwrap_or(record.gid);
            if !record.is_dir() {
                record.clear_suid_sgid();
            }
        }
        if let Some(mode) = change.mode {
            record.mode = mode & 0o7777;
        }
        let at = |time: SetTime| match time {
            SetTime::Now => now_ns,
            SetTime::At(ns) => ns,
        };
        if let Some(mtime) = change.mtime {
            record.set_mtime(at(mtime));
        }
        if let Some(atime) = change.atime {
            record.set_atime(at(atime));
        }
        record.ctime_ns = now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() || change.mtime.is_some() {
            self.note_attributes(inode, &record)?;
        }
        Ok(self.entry(inode, &record))
    }
}

/// What is set is an attribute of files alone.
fn has_none(node: &Node, is_dir: bool, what: &str) -> Error {
    let kind = match is_dir {
        true => ErrorKind::IsADirectory,
        false => ErrorKind::InvalidArgument,
    };
    Error::new(kind, format!("{node}: has no {what} to set"))
}

impl Applies<SetXattr> for Apply<'_, '_> {
    fn apply(&mut self, call: SetXattr) -> Result<Done> {
        if call.name.is_empty() || call.name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{}: an attribute's name has 1 to {NAME_BYTES_MAX} bytes, not {}",
                call.node,
                call.name.len()
            )));
        }
        if call.value.len() > XATTR_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{}: `{}` has {} bytes; at most {XATTR_BYTES_MAX} are allowed",
                call.node,
                call.name,
                call.value.len()
            )));
        }
        let (inode, mut record) = self.existing(&call.node, true)?;
        let key = named_key(inode.0, &call.name);
        let there = self.dbs.xattrs.get(self.txn, &key).map_err(broken)?.is_some();
        if there && call.create_only {
            return already_exists(format_args!("`{}` of {}", call.name, call.node));
        }
        if !there && call.replace_only {
            return Err(no_attribute(&call.name, &call.node));
        }
        self.dbs.xattrs.put(self.txn, &key, &call.value).map_err(broken)?;
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        self.note_attributes(inode, &record)?;
        self.done()
    }
}

impl Applies<RemoveXattr> for Apply<'_, '_> {
    fn apply(&mut self, call: RemoveXattr) -> Result<Done> {
        let (inode, mut record) = self.existing(&call.node, true)?;
        if !self
            .dbs
            .xattrs
            .delete(self.txn, &named_key(inode.0, &call.name))
            .map_err(broken)?
        {
            return Err(no_attribute(&call.name, &call.node));
        }
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        self.note_attributes(inode, &record)?;
        self.done()
    }
}

impl Apply<'_, '_> {
    /// Attributes of a file were changed: where its object can get them without its content, it is to.
    pub(super) fn note_attributes(&mut self, inode: InodeId, record: &InodeRecord) -> Result<()> {
        let is_file = matches!(record.body, InodeBody::File(_));
        if record.mount == MountId(0) || !is_file || record.nlink == 0 {
            return Ok(());
        }
        match self.dbs.mount(self.txn, record.mount)? {
            Some(mount) if mount.writes_attributes() => {
                self.dbs.note_unkept(self.txn, record.mount, inode, self.now_ns)
            }
            _ => Ok(()),
        }
    }
}

fn no_attribute(name: &str, node: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::NoAttribute,
        format!("{node} has no extended attribute `{name}`"),
    )
}
