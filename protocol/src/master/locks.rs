//! Locks that programs take on files: `flock(2)`, and `fcntl(2)` on byte ranges. They hinder nobody from reading or
//! writing, only others from taking a lock.

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, InodeId};
use crate::path::CurvinePath;

/// A lock, of a process of the client that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Whose it is, among the client's: an open file for `flock`, a process for `fcntl`. Locks of one owner do not exclude
    /// each other.
    pub owner: u64,
    /// The process, for people; 0 if it is not known.
    pub pid: u32,
    pub exclusive: bool,
    /// The range: first and last byte.
    pub start: u64,
    pub end: u64,
}

/// A lock and the session that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLock {
    pub client: ClientId,
    pub lock: Lock,
}

/// Takes a lock, or changes the ranges of it that the owner has already. It lasts until it is given back, or the session
/// ends.
///
/// # Errors
/// `Locked`, naming who has another one that excludes it; see [`AwaitLock`]. `Stale` if the inode is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLock {
    pub inode: InodeId,
    pub lock: Lock,
}

/// Gives back what an owner has of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlock {
    pub inode: InodeId,
    pub owner: u64,
    pub start: u64,
    pub end: u64,
}

/// Returns when a lock may be had, or after 25 s: the caller then tries [`SetLock`]. Those who wait for the same bytes get
/// their turn in the order in which they asked. Whoever gives up has nothing to undo.
///
/// # Errors
/// `Deadlock` if whoever has the lock waits, directly or through others, for one that the caller has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitLock {
    pub inode: InodeId,
    pub lock: Lock,
}

/// Asks who has a lock that excludes this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestLock {
    pub inode: InodeId,
    pub lock: Lock,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFound {
    pub held: Option<HeldLock>,
}

/// Lists the files that are locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLocks {
    /// This file, or what is below this directory; none = everything.
    pub path: Option<CurvinePath>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// The first [`LOCKED_FILES_MAX`].
    pub files: Vec<LockedFile>,
}

/// Files in one listing of locks.
pub const LOCKED_FILES_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedFile {
    pub inode: InodeId,
    /// None if it has no name any more.
    pub path: Option<CurvinePath>,
    pub locks: Vec<HeldLock>,
}
