//! Access control lists of inodes.

use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::{ChangeAcl, Entry};
use curvine_protocol::{FileKind, Result};

use super::{Applies, Apply};
use crate::master::namespace::acl::{Permissions, changed, inherited};
use crate::master::namespace::records::InodeRecord;

impl Applies<ChangeAcl> for Apply<'_, '_> {
    fn apply(&mut self, call: ChangeAcl) -> Result<Entry> {
        let (inode, mut record) = self.existing(&call.node, true)?;
        let before = Permissions {
            mode: record.mode,
            acl: std::mem::take(&mut record.acl),
        };
        let after = changed(&before, record.is_dir(), call.change).map_err(|e| e.while_doing(&call.node))?;
        record.mode = after.mode;
        record.acl = after.acl;
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        if after.mode != before.mode {
            self.note_attributes(inode, &record)?;
        }
        Ok(self.entry(inode, &record))
    }
}

impl InodeRecord {
    /// A new inode takes its permissions from the default list of its directory, if that has one.
    pub(super) fn inherit(&mut self, above: &InodeRecord, wanted: WantedMode) {
        if self.kind == FileKind::Symlink {
            return;
        }
        let mode = wanted.unmasked.unwrap_or(wanted.masked) & 0o777;
        if let Some(permissions) = inherited(&above.acl, mode, self.is_dir()) {
            self.mode = self.mode & !0o777 | permissions.mode;
            self.acl = permissions.acl;
        }
    }
}
