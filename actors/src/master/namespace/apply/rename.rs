//! `renameat2(2)`: atomic, and O(1) for a directory.

use curvine_protocol::master::{Rename, RenameMode, Renamed};
use curvine_protocol::{Error, ErrorKind, InodeId, MountId, Result};

use super::remove::{Keep, not_empty};
use super::{Applies, Apply, already_exists};
use crate::master::namespace::records::InodeRecord;
use crate::master::namespace::resolve::is_within;

impl Applies<Rename> for Apply<'_, '_> {
    fn apply(&mut self, call: Rename) -> Result<Renamed> {
        let from = self.place(&call.from, false)?;
        let to = self.place(&call.to, false)?;
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) = (from.entry.clone(), to.entry.clone())
        else {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{} or {}: cannot be renamed", call.from, call.to),
            ));
        };
        let (inode, record) = from.existing(&call.from)?;
        let target = to.found;
        self.check_rename(&call, (from_dir, inode, &record), to_dir, target.as_ref())?;
        let exchanges = call.mode == RenameMode::Exchange;
        let crossing = self.crossing((inode, &record), from_dir, to_dir, exchanges)?;
        if exchanges {
            let (other, other_record) = target.ok_or_else(|| Error::not_found(&call.to))?;
            return self.exchange(
                (from_dir, from_name, inode, record),
                (to_dir, to_name, other, other_record),
            );
        }
        let mut replaced = None;
        if let Some((old, old_record)) = target {
            if old == inode {
                // Two names of one file: POSIX has nothing to do.
                return Ok(Renamed {
                    attr: record.attr(inode),
                    replaced: None,
                });
            }
            if old_record.is_dir() {
                self.remove_empty_dir(to_dir, &to_name, old)?;
            } else {
                self.dbs.delete_dentry(self.txn, to_dir, &to_name)?;
                let keep = Keep {
                    caller: call.keep_replaced,
                    holders: call.holders.as_ref(),
                };
                replaced = Some(self.drop_link(old, old_record, &keep)?.attr(old));
            }
        }
        self.dbs.delete_dentry(self.txn, from_dir, &from_name)?;
        self.dbs.put_dentry(self.txn, to_dir, &to_name, inode)?;
        let record = self.moved(inode, record, to_dir, &to_name)?;
        self.cross(crossing)?;
        let subdirectories = i32::from(record.is_dir() && from_dir != to_dir);
        self.touch_after_move(from_dir, -subdirectories)?;
        self.touch_after_move(to_dir, subdirectories)?;
        Ok(Renamed {
            attr: record.attr(inode),
            replaced,
        })
    }
}

impl Apply<'_, '_> {
    /// In the order in which Linux finds fault.
    pub(super) fn check_rename(
        &self,
        call: &Rename,
        (from_dir, inode, record): (InodeId, InodeId, &InodeRecord),
        to_dir: InodeId,
        target: Option<&(InodeId, InodeRecord)>,
    ) -> Result<()> {
        let above = self.dbs.inode_or_stale(self.txn, to_dir)?;
        if above.nlink == 0 {
            return Err(Error::not_found(&call.to));
        }
        self.refuse_mount_point(from_dir, record, &call.from)?;
        if record.is_dir() {
            self.refuse_mounts_below(inode, &call.from)?;
        }
        if above.mount != record.mount {
            return Err(Error::new(
                ErrorKind::CrossMount,
                format!(
                    "{} and {} are in different mounts; copy and delete instead",
                    call.from, call.to
                ),
            ));
        }
        match (call.mode, target) {
            (RenameMode::NoReplace, Some(_)) => return already_exists(&call.to),
            (RenameMode::Exchange, None) => return Err(Error::not_found(&call.to)),
            _ => {}
        }
        if record.is_dir() && is_within(&self.dbs, self.txn, to_dir, inode)? {
            return Err(Error::invalid(format!(
                "{} cannot be moved into itself ({})",
                call.from, call.to
            )));
        }
        let Some((old, old_record)) = target else {
            return Ok(());
        };
        self.refuse_mount_point(to_dir, old_record, &call.to)?;
        if call.mode == RenameMode::Exchange && old_record.is_dir() {
            self.refuse_mounts_below(*old, &call.to)?;
        }
        let contains_source = old_record.is_dir() && is_within(&self.dbs, self.txn, from_dir, *old)?;
        match call.mode {
            RenameMode::Exchange if contains_source => Err(Error::invalid(format!(
                "{} cannot be moved into itself ({})",
                call.to, call.from
            ))),
            RenameMode::Exchange | RenameMode::NoReplace => Ok(()),
            RenameMode::Replace if contains_source => Err(not_empty(&call.to)),
            RenameMode::Replace => match (record.is_dir(), old_record.is_dir()) {
                (true, false) => Err(Error::new(
                    ErrorKind::NotADirectory,
                    format!("{} is not a directory, but {} is", call.to, call.from),
                )),
                (false, true) => Err(Error::new(
                    ErrorKind::IsADirectory,
                    format!("{} is a directory", call.to),
                )),
                (true, true) if *old != inode && !self.dbs.is_empty(self.txn, *old)? => {
                    Err(not_empty(&call.to))
                }
                _ => Ok(()),
            },
        }
    }

    fn exchange(
        &mut self,
        (from_dir, from_name, inode, record): (InodeId, String, InodeId, InodeRecord),
        (to_dir, to_name, other, other_record): (InodeId, String, InodeId, InodeRecord),
    ) -> Result<Renamed> {
        if inode == other {
            return Ok(Renamed {
                attr: record.attr(inode),
                replaced: None,
            });
        }
        self.dbs.put_dentry(self.txn, from_dir, &from_name, other)?;
        self.dbs.put_dentry(self.txn, to_dir, &to_name, inode)?;
        let gained = i32::from(record.is_dir()) - i32::from(other_record.is_dir());
        let record = self.moved(inode, record, to_dir, &to_name)?;
        self.moved(other, other_record, from_dir, &from_name)?;
        let gained = if from_dir == to_dir { 0 } else { gained };
        self.touch_after_move(from_dir, -gained)?;
        self.touch_after_move(to_dir, gained)?;
        Ok(Renamed {
            attr: record.attr(inode),
            replaced: None,
        })
    }

    /// Stores an inode with its new place.
    pub(super) fn moved(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        directory: InodeId,
        name: &str,
    ) -> Result<InodeRecord> {
        self.ttl_may_change((inode, &record), record.parent, directory)?;
        record.parent = directory;
        record.ctime_ns = self.now_ns;
        if record.mount != MountId(0) {
            record.name = name.to_owned();
        }
        self.dbs.put_inode(self.txn, inode, &record)?;
        self.pins_may_change(inode)?;
        Ok(record)
    }

    fn touch_after_move(&mut self, directory: InodeId, subdirectories: i32) -> Result<()> {
        let mut record = self.dbs.inode_or_stale(self.txn, directory)?;
        record.nlink = record.nlink.saturating_add_signed(subdirectories);
        self.touch_directory(directory, record)
    }
}
