//! Which locks go together, and where they are kept. Pure but for the transaction.
//!
//! Locks are replicated like everything else in the namespace: a leader that takes over knows them without asking their
//! holders, between whose answers somebody else could get a lock that is held. They are kept in `meta`, which backups and
//! snapshots of older versions have too.

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::master::{HeldLock, Lock, LockedFile};
use curvine_protocol::{ClientId, Error, ErrorKind, InodeId, Result};
use heed::{RoTxn, RwTxn};

use super::resolve::path_of;
use super::store::{Dbs, broken, pair_key, u64_at};

/// Locks of one file.
const LOCKS_MAX: usize = 4_096;
const BY_INODE: &[u8] = b"lock of ";
const BY_CLIENT: &[u8] = b"lock by ";

fn of_inode(inode: InodeId) -> Vec<u8> {
    [BY_INODE, &inode.0.to_be_bytes()].concat()
}

fn by_client(client: ClientId, inode: InodeId) -> Vec<u8> {
    [BY_CLIENT, &pair_key(client.0, inode.0)].concat()
}

/// Whether two locks cannot be held at once.
///
/// A process that takes `flock` and a range of `fcntl` is not in its own way: these are two sorts of locks. The kernel does
/// not say which it asks for, but two owners in one process, one of them with a part of the file, can be nothing else.
pub fn excludes(held: &HeldLock, client: ClientId, lock: &Lock) -> bool {
    let same_owner = held.client == client && held.lock.owner == lock.owner;
    let meet = held.lock.start <= lock.end && lock.start <= held.lock.end;
    let is_part = |lock: &Lock| lock.start != 0 || lock.end < i64::MAX.cast_unsigned();
    let two_sorts = held.client == client
        && lock.pid != 0
        && held.lock.pid == lock.pid
        && (is_part(&held.lock) || is_part(lock));
    !same_owner && meet && (held.lock.exclusive || lock.exclusive) && !two_sorts
}

/// Takes a range away from an owner's locks: what is left of each stays.
pub fn without(held: &[HeldLock], client: ClientId, owner: u64, (start, end): (u64, u64)) -> Vec<HeldLock> {
    let mut left = Vec::with_capacity(held.len() + 1);
    for one in held {
        let lock = one.lock;
        if (one.client, lock.owner) != (client, owner) || lock.end < start || end < lock.start {
            left.push(*one);
            continue;
        }
        let mut keep = |start, end| {
            left.push(HeldLock {
                client,
                lock: Lock { start, end, ..lock },
            });
        };
        if lock.start < start {
            keep(lock.start, start - 1);
        }
        if end < lock.end {
            keep(end + 1, lock.end);
        }
    }
    left
}

/// Adds a lock that nothing excludes: it replaces what its owner has of the range, and grows together with its neighbours.
pub fn with(held: &[HeldLock], client: ClientId, mut lock: Lock) -> Vec<HeldLock> {
    let mut left = without(held, client, lock.owner, (lock.start, lock.end));
    left.retain(|one| {
        let is_same =
            (one.client, one.lock.owner, one.lock.exclusive) == (client, lock.owner, lock.exclusive);
        let is_before = one.lock.end.checked_add(1) == Some(lock.start);
        let is_after = lock.end.checked_add(1) == Some(one.lock.start);
        if is_same && is_before {
            lock.start = one.lock.start;
        }
        if is_same && is_after {
            lock.end = one.lock.end;
        }
        !(is_same && (is_before || is_after))
    });
    left.push(HeldLock { client, lock });
    left
}

/// # Errors
/// `Locked`, naming the holder.
pub fn locked(inode: InodeId, held: &HeldLock) -> Error {
    Error::new(
        ErrorKind::Locked,
        format!(
            "inode {inode}: process {} of session {:016x} has a lock on it",
            held.lock.pid, held.client.0
        ),
    )
}

impl Dbs {
    pub fn locks_of(&self, txn: &RoTxn, inode: InodeId) -> Result<Vec<HeldLock>> {
        let value = self.meta.get(txn, &of_inode(inode)).map_err(broken)?;
        value.map_or(Ok(Vec::new()), decode)
    }

    /// Who excludes a lock.
    pub fn excluded(
        &self,
        txn: &RoTxn,
        inode: InodeId,
        client: ClientId,
        lock: &Lock,
    ) -> Result<Option<HeldLock>> {
        let held = self.locks_of(txn, inode)?;
        Ok(held.into_iter().find(|held| excludes(held, client, lock)))
    }

    /// Stores a file's locks in the place of those that it had.
    ///
    /// # Errors
    /// `TooManyLinks` if there are too many.
    pub fn put_locks(
        &self,
        txn: &mut RwTxn,
        inode: InodeId,
        had: &[HeldLock],
        locks: &[HeldLock],
    ) -> Result<()> {
        if locks.len() > LOCKS_MAX && locks.len() > had.len() {
            return Err(Error::new(
                ErrorKind::TooManyLinks,
                format!("inode {inode}: {LOCKS_MAX} locks are allowed on a file"),
            ));
        }
        for one in had {
            self.meta
                .delete(txn, &by_client(one.client, inode))
                .map_err(broken)?;
        }
        for one in locks {
            self.meta
                .put(txn, &by_client(one.client, inode), &[])
                .map_err(broken)?;
        }
        match locks.is_empty() {
            true => self.meta.delete(txn, &of_inode(inode)).map(drop),
            false => self.meta.put(txn, &of_inode(inode), &encode(&locks)),
        }
        .map_err(broken)
    }

    /// The files on which a session has locks.
    pub fn locked_by(&self, txn: &RoTxn, client: ClientId) -> Result<Vec<InodeId>> {
        let prefix = [BY_CLIENT, &client.0.to_be_bytes()].concat();
        let all = self.meta.prefix_iter(txn, &prefix).map_err(broken)?;
        all.map(|entry| Ok(InodeId(u64_at(entry.map_err(broken)?.0, BY_CLIENT.len() + 8))))
            .collect()
    }

    /// All files that are locked, for people.
    pub fn locked_files(&self, txn: &RoTxn, limit: usize) -> Result<Vec<LockedFile>> {
        let all = self.meta.prefix_iter(txn, BY_INODE).map_err(broken)?;
        all.take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(broken)?;
                let inode = InodeId(u64_at(key, BY_INODE.len()));
                Ok(LockedFile {
                    inode,
                    path: path_of(self, txn, inode).ok(),
                    locks: decode(value)?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ClientId = ClientId(2);
    const B: ClientId = ClientId(4);
    const END: u64 = i64::MAX.cast_unsigned();

    fn lock(owner: u64, exclusive: bool, start: u64, end: u64) -> Lock {
        Lock {
            owner,
            pid: 0,
            exclusive,
            start,
            end,
        }
    }

    fn ranges(held: &[HeldLock]) -> Vec<(u64, u64, bool)> {
        let mut ranges: Vec<_> = held
            .iter()
            .map(|one| (one.lock.start, one.lock.end, one.lock.exclusive))
            .collect();
        ranges.sort_unstable();
        ranges
    }

    #[test]
    fn shared_locks_go_together_and_an_exclusive_one_with_none_of_others() {
        let held = with(&[], A, lock(1, false, 0, 9));
        assert!(!excludes(&held[0], B, &lock(1, false, 0, END)));
        assert!(excludes(&held[0], B, &lock(1, true, 9, 9)));
        assert!(!excludes(&held[0], B, &lock(1, true, 10, END)), "beside it");
        assert!(excludes(&held[0], A, &lock(2, true, 0, 0)), "another owner");
        assert!(!excludes(&held[0], A, &lock(1, true, 0, 0)), "its own");
    }

    #[test]
    fn a_process_is_not_in_its_own_way_with_both_sorts_of_locks() {
        let of_process = |owner, start, end| Lock {
            pid: 77,
            ..lock(owner, true, start, end)
        };
        let held = with(&[], A, of_process(1, 0, END));
        assert!(!excludes(&held[0], A, &of_process(2, 5, 6)));
        assert!(
            excludes(&held[0], A, &of_process(2, 0, END)),
            "flock of two open files"
        );
        assert!(
            excludes(&held[0], B, &of_process(2, 5, 6)),
            "another machine's process"
        );
    }

    #[test]
    fn ranges_of_an_owner_are_split_replaced_and_joined() {
        let mut held = with(&[], A, lock(1, true, 0, 99));
        held = without(&held, A, 1, (40, 59));
        assert_eq!(ranges(&held), [(0, 39, true), (60, 99, true)]);
        held = with(&held, A, lock(1, false, 30, 70));
        assert_eq!(ranges(&held), [(0, 29, true), (30, 70, false), (71, 99, true)]);
        held = with(&held, A, lock(1, true, 30, 70));
        assert_eq!(ranges(&held), [(0, 99, true)]);
        assert_eq!(without(&held, A, 2, (0, END)), held, "another owner has nothing");
        assert_eq!(without(&held, A, 1, (0, u64::MAX)), []);
    }
}
