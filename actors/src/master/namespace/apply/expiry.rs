//! Times to live that are set, and files whose time is over.

use curvine_protocol::master::{SetTtl, TTL_MS_MAX, TTL_MS_MIN, TtlAction, Unlink};
use curvine_protocol::op::Walked;
use curvine_protocol::worker::Done;
use curvine_protocol::{Error, ErrorKind, InodeId, Result};

use super::{Applies, Apply};
use crate::master::namespace::records::{InodeBody, InodeRecord};
use crate::planted::{Bug, is_planted};

impl Applies<SetTtl> for Apply<'_, '_> {
    fn apply(&mut self, call: SetTtl) -> Result<Done> {
        let (inode, record) = self.existing(&call.node, true)?;
        if !record.is_dir() && !matches!(record.body, InodeBody::File(_)) {
            let message = format!("{}: only files and directories have a time to live", call.node);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        match call.ttl {
            None => {
                self.dbs.delete_ttl(self.txn, inode)?;
                // What no rule is left for is not looked at again.
                if self.dbs.ttl_of(self.txn, inode)?.is_none() {
                    return self.done();
                }
            }
            Some(ttl) => {
                if !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl.after_ms) {
                    let what = match ttl.after_ms < TTL_MS_MIN {
                        true => "shorter than 1 s",
                        false => "longer than 100 years",
                    };
                    let message = format!("{}: a time to live must not be {what}", call.node);
                    return Err(Error::invalid(message));
                }
                let mount = self.dbs.mount(self.txn, record.mount)?;
                if let Some(mount) = mount.filter(|mount| !mount.settings.writable)
                    && ttl.action == TtlAction::Delete
                {
                    return Err(Error::new(
                        ErrorKind::ReadOnly,
                        format!(
                            "{}: the mount at {} is read-only, so nothing in it can be deleted; use the action `free`",
                            call.node, mount.path
                        ),
                    ));
                }
                self.dbs.put_ttl(self.txn, inode, &ttl)?;
            }
        }
        self.dbs.walk_anew(self.txn, inode)?;
        self.done()
    }
}

impl Apply<'_, '_> {
    pub(super) fn set_expiry(
        &mut self,
        inodes: Vec<InodeId>,
        not_before_ms: u64,
        walked: Option<Walked>,
    ) -> Result<Done> {
        for inode in inodes {
            self.dbs.set_expiry(self.txn, inode, not_before_ms)?;
        }
        if let Some(Walked { top, round }) = walked {
            self.dbs.walked(self.txn, top, round)?;
        }
        self.done()
    }

    /// # Errors
    /// `Stale` if the file is not due any more, or is another one; `Busy` while somebody writes it.
    pub(super) fn check_expired(&mut self, inode: InodeId, unlink: &Unlink) -> Result<()> {
        let (found, record) = self.existing(&unlink.node, false)?;
        let is_over = self.dbs.is_to_be_deleted(self.txn, inode, &record, self.now_ns)?;
        if found != inode || !(is_over || is_planted(Bug::ExpiresByAnOldLook)) {
            let message = format!("{}: its time to live is not over any more", unlink.node);
            return Err(Error::new(ErrorKind::Stale, message));
        }
        match &record.body {
            InodeBody::File(file) if file.is_written() => Err(Error::new(
                ErrorKind::Busy,
                format!("{}: somebody writes it", unlink.node),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn expire(&mut self, inode: InodeId, unlink: Unlink) -> Result<Done> {
        self.check_expired(inode, &unlink)?;
        self.apply(unlink)?;
        self.done()
    }

    pub(super) fn accessed(&mut self, files: Vec<(InodeId, i64)>) -> Result<Done> {
        for (inode, at_ns) in files {
            if let Some(mut record) = self.dbs.inode(self.txn, inode)?
                && at_ns > record.mtime_ns + record.atime_minus_mtime_ns
            {
                record.set_atime(at_ns);
                self.dbs.put_inode(self.txn, inode, &record)?;
            }
        }
        self.done()
    }

    /// A directory moves. Below another rule, all that is in it is due at other times.
    pub(super) fn ttl_may_change(
        &mut self,
        (inode, record): (InodeId, &InodeRecord),
        from_dir: InodeId,
        to_dir: InodeId,
    ) -> Result<()> {
        if record.is_dir() && from_dir != to_dir && !is_planted(Bug::MovedTreesKeepTheirRule) {
            let (from, to) = (
                self.dbs.ttl_of(self.txn, from_dir)?,
                self.dbs.ttl_of(self.txn, to_dir)?,
            );
            if from != to && to.is_some() {
                self.dbs.walk_anew(self.txn, inode)?;
            }
        }
        Ok(())
    }
}
