//! Locks of programs on files.

use curvine_protocol::master::{AwaitLock, HeldLock, ListLocks, Lock, LockedFile, SetLock, TestLock, Unlock};
use curvine_protocol::{CurvinePath, InodeId, Result};

use super::Client;

impl Client {
    /// Takes a lock, for as long as this client's session lasts.
    ///
    /// # Errors
    /// `Locked` if another owner has one that excludes it; see [`Client::await_lock`].
    pub async fn lock(&self, inode: InodeId, lock: Lock) -> Result<()> {
        self.change(SetLock { inode, lock }).await.map(|_| ())
    }

    /// Returns when a lock may be had, or after a while: then [`Client::lock`] is to be tried.
    ///
    /// # Errors
    /// `Deadlock`.
    pub async fn await_lock(&self, inode: InodeId, lock: Lock) -> Result<()> {
        self.router.session().await?;
        self.call(AwaitLock { inode, lock }).await.map(|_| ())
    }

    /// Gives back what an owner has of a range, from its first to its last byte.
    pub async fn unlock(&self, inode: InodeId, owner: u64, (start, end): (u64, u64)) -> Result<()> {
        let unlock = Unlock {
            inode,
            owner,
            start,
            end,
        };
        self.change(unlock).await.map(|_| ())
    }

    /// Who has a lock that excludes this one.
    pub async fn test_lock(&self, inode: InodeId, lock: Lock) -> Result<Option<HeldLock>> {
        Ok(self.call(TestLock { inode, lock }).await?.held)
    }

    /// What is locked: a file, what is below a directory, or all.
    pub async fn locks(&self, path: Option<CurvinePath>) -> Result<Vec<LockedFile>> {
        Ok(self.call(ListLocks { path }).await?.files)
    }
}
