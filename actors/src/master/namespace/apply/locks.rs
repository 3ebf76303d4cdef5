//! Locks of programs on files.

use curvine_protocol::master::{SetLock, Unlock};
use curvine_protocol::worker::Done;
use curvine_protocol::{ClientId, Error, InodeId, Result};

use super::{Applies, Apply};
use crate::master::namespace::locks::{locked, with, without};
use crate::planted::{Bug, is_planted};

impl Applies<SetLock> for Apply<'_, '_> {
    fn apply(&mut self, call: SetLock) -> Result<Done> {
        let SetLock { inode, lock } = call;
        if lock.start > lock.end {
            return Err(Error::invalid("a lock ends before it begins"));
        }
        self.dbs.inode_or_stale(self.txn, inode)?;
        if let Some(holder) = self.dbs.excluded(self.txn, inode, self.client, &lock)?
            && !is_planted(Bug::LockForAll)
        {
            return Err(locked(inode, &holder));
        }
        let had = self.dbs.locks_of(self.txn, inode)?;
        let locks = with(&had, self.client, lock);
        self.dbs.put_locks(self.txn, inode, &had, &locks)?;
        // An exclusive lock may have become a shared one.
        self.effects.unlocked.push(inode);
        self.done()
    }
}

impl Applies<Unlock> for Apply<'_, '_> {
    fn apply(&mut self, call: Unlock) -> Result<Done> {
        let had = self.dbs.locks_of(self.txn, call.inode)?;
        let locks = without(&had, self.client, call.owner, (call.start, call.end));
        if locks != had {
            self.dbs.put_locks(self.txn, call.inode, &had, &locks)?;
            self.effects.unlocked.push(call.inode);
        }
        self.done()
    }
}

impl Apply<'_, '_> {
    pub(super) fn unlock_all_of(&mut self, client: ClientId) -> Result<()> {
        for inode in self.dbs.locked_by(self.txn, client)? {
            let had = self.dbs.locks_of(self.txn, inode)?;
            let locks: Vec<_> = had.iter().filter(|one| one.client != client).copied().collect();
            self.dbs.put_locks(self.txn, inode, &had, &locks)?;
            self.effects.unlocked.push(inode);
        }
        Ok(())
    }

    /// Of an inode that goes.
    pub(super) fn forget_locks(&mut self, inode: InodeId) -> Result<()> {
        let had = self.dbs.locks_of(self.txn, inode)?;
        if !had.is_empty() {
            self.dbs.put_locks(self.txn, inode, &had, &[])?;
            self.effects.unlocked.push(inode);
        }
        Ok(())
    }
}
