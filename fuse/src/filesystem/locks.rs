//! Locks of programs, `flock(2)` and `fcntl(2)`: held by the masters, so that they hold in all mounts.
//!
//! What was written under a lock is flushed before the lock is given back: whoever gets it next, on whatever mount, finds
//! it when it opens the file.
//!
//! A program that waits for a lock must be able to be interrupted. The kernel would tell that by a request of which fuser
//! lets nobody know, and does not let go of the program before its request is answered. So this looks in `/proc` whether a
//! signal waits for the thread, and answers then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_actors::kit::metrics::FuseOp;
use curvine_protocol::master::{HeldLock, Lock};
use curvine_protocol::{Error, ErrorKind, InodeId};
use fuser::{FileHandle, INodeNo, LockOwner, ReplyEmpty, ReplyLock};

use super::CurvineFs;
use crate::convert::{Refusal, Result, inode};
use crate::core::Core;

/// How often it is looked for signals.
const LOOK: Duration = Duration::from_millis(100);
const WHOLE: (u64, u64) = (0, u64::MAX);

/// What the kernel asks for.
pub(super) struct Asked {
    pub inode: INodeNo,
    pub handle: FileHandle,
    pub owner: LockOwner,
    pub range: (u64, u64),
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i32,
    pub pid: u32,
    /// The thread that asks, and waits if it has to.
    pub waits: Option<u32>,
}

impl Asked {
    fn lock(&self) -> Lock {
        Lock {
            owner: self.owner.0,
            pid: self.pid,
            exclusive: self.kind == libc::F_WRLCK,
            start: self.range.0,
            end: self.range.1,
        }
    }
}

/// Who locked something through which handle: what is to be given back when it is closed.
#[derive(Default)]
pub(super) struct Holders {
    held: Mutex<HashMap<InodeId, Vec<(LockOwner, FileHandle)>>>,
}

impl Holders {
    fn held(&self) -> MutexGuard<'_, HashMap<InodeId, Vec<(LockOwner, FileHandle)>>> {
        self.held.lock().expect("nobody panics while it holds who locks")
    }

    fn add(&self, inode: InodeId, owner: LockOwner, handle: FileHandle) {
        let mut held = self.held();
        let holders = held.entry(inode).or_default();
        if !holders.contains(&(owner, handle)) {
            holders.push((owner, handle));
        }
    }

    /// The owners among these holders, who are forgotten.
    fn take(&self, inode: InodeId, which: impl Fn(LockOwner, FileHandle) -> bool) -> Vec<LockOwner> {
        let mut held = self.held();
        let Some(holders) = held.get_mut(&inode) else {
            return Vec::new();
        };
        let mut taken: Vec<LockOwner> = Vec::new();
        for (owner, _) in holders.iter().filter(|(owner, handle)| which(*owner, *handle)) {
            if !taken.contains(owner) {
                taken.push(*owner);
            }
        }
        holders.retain(|(owner, _)| !taken.contains(owner));
        if holders.is_empty() {
            held.remove(&inode);
        }
        taken
    }
}

impl CurvineFs {
    pub(super) fn set_lock(&self, asked: Asked, reply: ReplyEmpty) {
        let (core, holders) = (self.core.clone(), self.holders.clone());
        self.serve_done(FuseOp::SetLock, reply, async move {
            match asked.kind {
                libc::F_UNLCK => unlock(&core, &holders, &asked).await,
                libc::F_RDLCK | libc::F_WRLCK => lock(&core, &holders, &asked).await,
                _ => Err(Refusal::of(libc::EINVAL)),
            }
        });
    }

    pub(super) fn get_lock(&self, asked: Asked, reply: ReplyLock) {
        let core = self.core.clone();
        let (number, lock, (start, end)) = (asked.inode, asked.lock(), asked.range);
        let work = async move {
            let client = core.client.session().await?;
            let found = core.client.test_lock(inode(number), lock).await?;
            Ok(found.map(|held: HeldLock| HeldLock {
                // A process elsewhere has no number here.
                lock: Lock {
                    pid: if held.client == client { held.lock.pid } else { 0 },
                    ..held.lock
                },
                ..held
            }))
        };
        self.serve(FuseOp::GetLock, reply, work, move |reply, found| match found {
            None => reply.locked(start, end, libc::F_UNLCK, 0),
            Some(HeldLock { lock, .. }) => {
                let kind = match lock.exclusive {
                    true => libc::F_WRLCK,
                    false => libc::F_RDLCK,
                };
                reply.locked(lock.start, lock.end, kind, lock.pid);
            }
        });
    }
}

async fn lock(core: &Core, holders: &Holders, asked: &Asked) -> Result<()> {
    let (inode, lock) = (inode(asked.inode), asked.lock());
    loop {
        let refusal = match core.client.lock(inode, lock).await {
            Ok(()) => {
                holders.add(inode, asked.owner, asked.handle);
                // What the one before wrote under the lock is read under it, by a descriptor that was open all the time too.
                core.look_again(inode).await;
                return Ok(());
            }
            Err(error) if error.kind == ErrorKind::Locked => error,
            Err(error) => return Err(error.into()),
        };
        let Some(thread) = asked.waits else {
            return Err(would_block(refusal));
        };
        tokio::select! {
            waited = core.client.await_lock(inode, lock) => waited?,
            () = signalled(thread) => return Err(Refusal::of(libc::EINTR)),
        }
    }
}

/// Programs are told to try again by this number only where they asked not to wait.
fn would_block(error: Error) -> Refusal {
    Refusal {
        errno: libc::EAGAIN,
        error: Some(error),
    }
}

async fn unlock(core: &Core, holders: &Holders, asked: &Asked) -> Result<()> {
    let flushed = core.flush(asked.handle).await;
    let inode = inode(asked.inode);
    core.client.unlock(inode, asked.owner.0, asked.range).await?;
    if asked.range.0 == 0 && asked.range.1 >= i64::MAX.cast_unsigned() {
        holders.take(inode, |owner, _| owner == asked.owner);
    }
    flushed
}

/// A process closes a descriptor of a file: its locks on it go, by whatever descriptor it took them.
pub(super) async fn closed_by(core: &Core, holders: &Holders, number: INodeNo, owner: LockOwner) {
    let inode = inode(number);
    give_back(core, inode, holders.take(inode, |holder, _| holder == owner)).await;
}

/// Nobody has a handle open any more: what was locked through it goes.
pub(super) async fn released(core: &Core, holders: &Holders, number: INodeNo, handle: FileHandle) {
    let inode = inode(number);
    give_back(core, inode, holders.take(inode, |_, through| through == handle)).await;
}

async fn give_back(core: &Core, inode: InodeId, owners: Vec<LockOwner>) {
    for owner in owners {
        if let Err(error) = core.client.unlock(inode, owner.0, WHOLE).await {
            tracing::warn!(%error, "a lock on inode {inode} stays until this mount ends");
        }
    }
}

/// Returns when a signal waits for a thread that it does not block. Never for one that cannot be seen from here.
async fn signalled(thread: u32) {
    loop {
        tokio::time::sleep(LOOK).await;
        let status = tokio::fs::read_to_string(format!("/proc/{thread}/status")).await;
        if status.is_ok_and(|status| has_signal(&status)) {
            return;
        }
    }
}

/// By the text of `/proc/PID/status` (proc(5)).
fn has_signal(status: &str) -> bool {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .unwrap_or(0)
    };
    (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") != 0
}

/// Shared by the requests that lock.
pub(super) type SharedHolders = Arc<Holders>;

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);

    #[test]
    fn a_close_gives_back_what_its_owner_or_its_handle_locked() {
        let holders = Holders::default();
        let (process, file) = (LockOwner(1), LockOwner(2));
        let (first, second) = (FileHandle(1), FileHandle(2));
        holders.add(FILE, process, first);
        holders.add(FILE, process, second);
        holders.add(FILE, file, second);
        assert_eq!(holders.take(FILE, |_, handle| handle == FileHandle(3)), []);
        assert_eq!(holders.take(FILE, |owner, _| owner == process), [process]);
        assert_eq!(holders.take(FILE, |_, handle| handle == second), [file]);
        assert!(holders.held().is_empty());
    }

    #[test]
    fn a_signal_counts_that_waits_and_is_not_blocked() {
        let status = |pending: &str, shared: &str, blocked: &str| {
            format!("Name:\tflock\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\n")
        };
        let none = "0000000000000000";
        let alarm = "0000000000002000";
        assert!(!has_signal(&status(none, none, alarm)));
        assert!(has_signal(&status(alarm, none, none)));
        assert!(has_signal(&status(none, alarm, none)));
        assert!(!has_signal(&status(none, alarm, alarm)));
        assert!(!has_signal(""));
    }
}
