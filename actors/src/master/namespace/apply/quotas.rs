//! Quotas that are set, and what moves from one to another.

use curvine_protocol::master::{QuotaUsage, SetQuota};
use curvine_protocol::worker::Done;
use curvine_protocol::{Error, ErrorKind, InodeId, Result};

use super::{Applies, Apply};
use crate::master::namespace::quotas::{COUNTED_MAX, Change, Counted, QuotaRecord, usage_of};
use crate::master::namespace::records::InodeRecord;

impl Applies<SetQuota> for Apply<'_, '_> {
    fn apply(&mut self, call: SetQuota) -> Result<Done> {
        let (inode, record) = self.existing(&call.node, true)?;
        if !record.is_dir() {
            let message = format!("{}: is not a directory", call.node);
            return Err(Error::new(ErrorKind::NotADirectory, message));
        }
        let Some(limits) = call.limits else {
            self.dbs.delete_quota(self.txn, inode)?;
            return self.done();
        };
        if record.mount.0 != 0 {
            let message = format!("{}: quotas do not count what is in mounts", call.node);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let quota = match self.dbs.quota(self.txn, inode)? {
            Some(quota) => QuotaRecord { limits, ..quota },
            None => {
                // What is left of those would be taken from a quota that never had it.
                if !self.dbs.detached(self.txn, 1)?.is_empty() {
                    let message = "trees that were deleted are still being removed; try again in a moment";
                    return Err(Error::new(ErrorKind::Busy, message));
                }
                let usage = self
                    .dbs
                    .tree_usage(self.txn, inode, COUNTED_MAX)
                    .map_err(|error| error.while_doing(&call.node))?;
                QuotaRecord {
                    limits,
                    holds: usage.unwrap_or_default().into(),
                    is_counted: usage.is_some(),
                    round: 0,
                }
            }
        };
        self.dbs.put_quota(self.txn, inode, &quota)?;
        self.done()
    }
}

/// What goes from under some quotas to under others.
pub(super) struct Crossing {
    left: Vec<InodeId>,
    entered: Vec<InodeId>,
    /// None: it is too much to be counted now.
    below: Option<QuotaUsage>,
}

impl Apply<'_, '_> {
    /// # Errors
    /// `QuotaExceeded` if the quotas above a directory cannot take so much more.
    pub(super) fn check_room(&self, directory: InodeId, more: QuotaUsage) -> Result<()> {
        let above = self.dbs.quotas_above(self.txn, directory)?;
        self.dbs.check_quotas(self.txn, &above, more)
    }

    /// As [`Apply::check_room`] for a file that is to have so many bytes.
    pub(super) fn check_growth(&self, record: &InodeRecord, size_bytes: u64) -> Result<()> {
        let has = usage_of(record);
        let bytes = size_bytes.saturating_sub(has.bytes);
        if has.inodes == 0 || bytes == 0 {
            return Ok(());
        }
        self.check_room(record.parent, QuotaUsage { bytes, inodes: 0 })
    }

    /// Whether an inode may move from one directory to another. None if no quota notices.
    pub(super) fn crossing(
        &self,
        (inode, record): (InodeId, &InodeRecord),
        from_dir: InodeId,
        to_dir: InodeId,
        exchanges: bool,
    ) -> Result<Option<Crossing>> {
        if from_dir == to_dir || record.mount.0 != 0 {
            return Ok(None);
        }
        let from = self.dbs.quotas_above(self.txn, from_dir)?;
        let to = self.dbs.quotas_above(self.txn, to_dir)?;
        if from == to {
            return Ok(None);
        }
        if exchanges || (!record.is_dir() && record.nlink > 1) {
            let what = "names with hard links, and two names for each other, do not move between quotas";
            return Err(Error::new(ErrorKind::CrossMount, what));
        }
        let below = match record.is_dir() {
            true => self.dbs.tree_usage(self.txn, inode, COUNTED_MAX)?,
            false => Some(QuotaUsage::default()),
        };
        let (own, least) = (usage_of(record), below.unwrap_or_default());
        // What is above both notices nothing.
        let left: Vec<_> = from.iter().copied().filter(|quota| !to.contains(quota)).collect();
        let entered: Vec<_> = to.into_iter().filter(|quota| !from.contains(quota)).collect();
        let more = QuotaUsage {
            bytes: least.bytes.saturating_add(own.bytes),
            inodes: least.inodes + own.inodes,
        };
        self.dbs.check_quotas(self.txn, &entered, more)?;
        Ok(Some(Crossing { left, entered, below }))
    }

    /// The inode itself is charged where its record is stored; this is for what is below it.
    pub(super) fn cross(&mut self, crossing: Option<Crossing>) -> Result<()> {
        let Some(Crossing { left, entered, below }) = crossing else {
            return Ok(());
        };
        match below {
            Some(below) => {
                self.dbs
                    .change_usage(self.txn, &left, Change::from(below).less())?;
                self.dbs.change_usage(self.txn, &entered, below.into())
            }
            None => {
                self.dbs.count_anew(self.txn, &left)?;
                self.dbs.count_anew(self.txn, &entered)
            }
        }
    }

    pub(super) fn quota_counted(&mut self, directory: InodeId, counted: Counted) -> Result<Done> {
        self.dbs.quota_counted(self.txn, directory, counted)?;
        self.done()
    }

    /// # Errors
    /// `CrossMount` for a hard link below a quota.
    pub(super) fn refuse_link_below_quota(&self, record: &InodeRecord, directory: InodeId) -> Result<()> {
        for parent in [record.parent, directory] {
            if !self.dbs.quotas_above(self.txn, parent)?.is_empty() {
                let message = "no hard links below a directory with a quota; copy the file instead";
                return Err(Error::new(ErrorKind::CrossMount, message));
            }
        }
        Ok(())
    }
}
