//! What a listing of an under file system says, where the namespace said something else when it began.

use curvine_protocol::op::{AgreeDir, AgreeName, OpReply};
use curvine_protocol::{FileKind, InodeId, Result};

use super::Apply;
use super::sync::is_ours;
use crate::master::namespace::records::InodeRecord;

/// Inodes of a tree that are looked at for files that are ours.
const LOOKED_AT_MAX: usize = 10_000;

#[derive(Default)]
struct Counts {
    added: u64,
    changed: u64,
    removed: u64,
}

impl Apply<'_, '_> {
    pub(super) fn agree_dir(&mut self, agree: AgreeDir) -> Result<OpReply> {
        let above = self.directory_of_mount(agree.directory)?;
        let masked = self.masked(&above)?;
        let mut counts = Counts::default();
        for name in agree.names.iter().filter(|name| !masked.has(&name.name)) {
            self.agree_name(agree.directory, name, &mut counts)?;
        }
        let Counts {
            added,
            changed,
            removed,
        } = counts;
        Ok(OpReply::Synced {
            added,
            changed,
            removed,
        })
    }

    fn agree_name(&mut self, directory: InodeId, agree: &AgreeName, counts: &mut Counts) -> Result<()> {
        let now = self.dbs.child(self.txn, directory, &agree.name)?;
        let (inode, record) = match (now, &agree.known) {
            (None, None) => {
                if let Some(object) = &agree.object {
                    self.add_object(directory, object)?;
                    counts.added += 1;
                }
                return Ok(());
            }
            (Some(inode), Some(known)) if inode == known.inode => {
                let record = self.dbs.inode_or_stale(self.txn, inode)?;
                if record.object() != known.version.as_ref() || self.has_ours(inode, &record)? {
                    return Ok(());
                }
                (inode, record)
            }
            // Made, deleted or put in another's place since the listing began.
            _ => return Ok(()),
        };
        match &agree.object {
            Some(object) if object.kind == record.kind && object.kind != FileKind::Symlink => {
                counts.changed += u64::from(self.change_object(inode, object)?);
            }
            object => {
                counts.removed += self.remove_synced(directory, &agree.name, inode, record)?;
                if let Some(object) = object {
                    self.add_object(directory, object)?;
                    counts.added += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether a file, or one in a directory, is being written, or was written and not exported yet. Of a tree, so many inodes
    /// are looked at as can be in the time of one command.
    fn has_ours(&mut self, inode: InodeId, record: &InodeRecord) -> Result<bool> {
        if !record.is_dir() {
            return Ok(is_ours(record));
        }
        let mut directories = vec![inode];
        let mut left = LOOKED_AT_MAX;
        while let Some(directory) = directories.pop() {
            let mut after = None;
            loop {
                let page = self.dbs.children(self.txn, directory, after.as_deref(), 1_000)?;
                let Some((last, _)) = page.last().cloned() else {
                    break;
                };
                for (_, inode) in page {
                    if left == 0 {
                        return Ok(false);
                    }
                    left -= 1;
                    let record = self.dbs.inode_or_stale(self.txn, inode)?;
                    if is_ours(&record) {
                        return Ok(true);
                    }
                    if record.is_dir() {
                        directories.push(inode);
                    }
                }
                after = Some(last);
            }
        }
        Ok(false)
    }
}
