//! Who waits for locks on files, in which order. The leader's soft state: a client that waits asks a new leader again.
//!
//! Invariants: of those who wait for the same bytes, whoever asked first tries first, and nobody else gets them meanwhile;
//! a waiter that is dropped leaves nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::master::{HeldLock, Lock};
use curvine_protocol::{ClientId, Error, ErrorKind, InodeId, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use super::namespace::locks::excludes;

/// Calls that wait.
const WAITING_MAX: usize = 65_536;
/// How long a lock is kept for whoever was told that it may be had.
const KEPT: Duration = Duration::from_secs(1);
/// So many wait for each other at most before it is no longer looked at.
const CHAIN_MAX: usize = 64;

#[derive(Default)]
pub struct Locking {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<InodeId, Queue>,
    waiting: usize,
    last: u64,
}

struct Queue {
    waiters: BTreeMap<u64, Entry>,
    changed: watch::Sender<()>,
}

struct Entry {
    wants: HeldLock,
    /// Who has what it wants.
    behind: Option<HeldLock>,
    /// Told that it may have it: it tries until then.
    kept_until: Option<Instant>,
}

fn owner(held: &HeldLock) -> (ClientId, u64) {
    (held.client, held.lock.owner)
}

impl Locking {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds who waits")
    }

    /// Something was unlocked on these files.
    pub fn unlocked(&self, inodes: &[InodeId]) {
        let state = self.state();
        for inode in inodes {
            if let Some(queue) = state.files.get(inode) {
                queue.changed.send_replace(());
            }
        }
    }

    /// This master leads no more, or begins to: everybody looks again.
    pub fn look_again(&self) {
        let state = self.state();
        state
            .files
            .values()
            .for_each(|queue| queue.changed.send_replace(()));
    }

    /// A client waits for a lock from now on.
    ///
    /// # Errors
    /// `Overloaded` if too many wait.
    pub fn wait(self: &Arc<Self>, inode: InodeId, client: ClientId, lock: Lock) -> Result<Waiter> {
        let mut state = self.state();
        if state.waiting >= WAITING_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{WAITING_MAX} processes wait for locks; try again later"),
            ));
        }
        state.waiting += 1;
        state.last += 1;
        let ticket = state.last;
        let queue = state.files.entry(inode).or_insert_with(|| Queue {
            waiters: BTreeMap::new(),
            changed: watch::Sender::new(()),
        });
        let entry = Entry {
            wants: HeldLock { client, lock },
            behind: None,
            kept_until: None,
        };
        queue.waiters.insert(ticket, entry);
        Ok(Waiter {
            locking: self.clone(),
            inode,
            ticket,
            changed: queue.changed.subscribe(),
            stays: false,
        })
    }

    /// Until when a lock is kept for somebody who waited for it, and was told that it may be had.
    pub fn kept(&self, inode: InodeId, client: ClientId, lock: &Lock, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.forget_late(inode, now);
        let queue = state.files.get(&inode)?;
        let kept = queue
            .waiters
            .values()
            .filter(|entry| excludes(&entry.wants, client, lock));
        kept.filter_map(|entry| entry.kept_until).max()
    }

    /// Whoever was told has tried.
    pub fn tried(&self, inode: InodeId, client: ClientId, owner: u64) {
        let mut state = self.state();
        state.remove(inode, |entry| {
            entry.kept_until.is_some() && (entry.wants.client, entry.wants.lock.owner) == (client, owner)
        });
    }
}

impl State {
    fn remove(&mut self, inode: InodeId, which: impl Fn(&Entry) -> bool) {
        let Some(queue) = self.files.get_mut(&inode) else {
            return;
        };
        let before = queue.waiters.len();
        queue.waiters.retain(|_, entry| !which(entry));
        self.waiting -= before - queue.waiters.len();
        if before != queue.waiters.len() {
            queue.changed.send_replace(());
        }
        if queue.waiters.is_empty() {
            self.files.remove(&inode);
        }
    }

    fn forget_late(&mut self, inode: InodeId, now: Instant) {
        self.remove(inode, |entry| entry.kept_until.is_some_and(|until| until <= now));
    }

    /// Whether an owner waits, directly or through others, for another one.
    fn waits_for(&self, who: (ClientId, u64), whom: (ClientId, u64)) -> bool {
        let mut at = who;
        for _ in 0..CHAIN_MAX {
            if at == whom {
                return true;
            }
            let next = self
                .files
                .values()
                .flat_map(|queue| queue.waiters.values())
                .find(|entry| owner(&entry.wants) == at)
                .and_then(|entry| entry.behind);
            match next {
                Some(next) => at = owner(&next),
                None => return false,
            }
        }
        false
    }
}

/// One call that waits for a lock.
pub struct Waiter {
    locking: Arc<Locking>,
    inode: InodeId,
    ticket: u64,
    changed: watch::Receiver<()>,
    /// Its place is kept when it goes, for the try that follows.
    stays: bool,
}

impl Waiter {
    /// What changes from here on counts.
    pub fn look(&mut self) {
        self.changed.mark_unchanged();
    }

    /// Whether it may try now, where this is who has what it wants.
    ///
    /// # Errors
    /// `Deadlock`.
    pub fn may_try(&mut self, holder: Option<HeldLock>, now: Instant) -> Result<bool> {
        let mut state = self.locking.state();
        state.forget_late(self.inode, now);
        let Some(queue) = state.files.get(&self.inode) else {
            return Ok(true);
        };
        let Some(mine) = queue.waiters.get(&self.ticket) else {
            return Ok(true);
        };
        let wants = mine.wants;
        let first = queue
            .waiters
            .range(..self.ticket)
            .map(|(_, entry)| entry.wants)
            .find(|before| excludes(before, wants.client, &wants.lock));
        let behind = holder.or(first);
        if let Some(behind) = behind
            && state.waits_for(owner(&behind), owner(&wants))
        {
            return Err(Error::new(
                ErrorKind::Deadlock,
                format!(
                    "inode {}: process {} of session {:016x} has a lock on it, and waits for one of this process",
                    self.inode, behind.lock.pid, behind.client.0
                ),
            ));
        }
        if let Some(mine) = state
            .files
            .get_mut(&self.inode)
            .and_then(|queue| queue.waiters.get_mut(&self.ticket))
        {
            mine.behind = behind;
            mine.kept_until = behind.is_none().then_some(now + KEPT);
            self.stays = behind.is_none();
        }
        Ok(behind.is_none())
    }

    /// Returns when something changed since [`Waiter::look`], or some time later.
    pub async fn change(&mut self) {
        let changed = self.changed.changed();
        let _ = tokio::time::timeout(KEPT, changed).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.stays {
            let ticket = self.ticket;
            let mut state = self.locking.state();
            if let Some(queue) = state.files.get_mut(&self.inode)
                && queue.waiters.remove(&ticket).is_some()
            {
                queue.changed.send_replace(());
                let is_empty = queue.waiters.is_empty();
                state.waiting -= 1;
                if is_empty {
                    state.files.remove(&self.inode);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);

    #[expect(clippy::disallowed_methods, reason = "any time will do to count from")]
    fn some_time() -> Instant {
        Instant::now()
    }

    fn lock(owner: u64, start: u64, end: u64) -> Lock {
        Lock {
            owner,
            pid: 0,
            exclusive: true,
            start,
            end,
        }
    }

    fn held(client: u64, owner: u64) -> HeldLock {
        HeldLock {
            client: ClientId(client),
            lock: lock(owner, 0, 9),
        }
    }

    #[test]
    fn whoever_asked_first_tries_first_and_who_wants_other_bytes_does_not_wait_for_it() {
        let (locking, now) = (Arc::new(Locking::default()), some_time());
        let wait = |client, lock| locking.wait(FILE, ClientId(client), lock).expect("room");
        let mut first = wait(2, lock(1, 0, 9));
        let mut second = wait(4, lock(1, 5, 5));
        let mut beside = wait(6, lock(1, 10, 19));
        assert_eq!(first.may_try(Some(held(8, 1)), now), Ok(false));
        assert_eq!(beside.may_try(None, now), Ok(true));
        assert_eq!(second.may_try(None, now), Ok(false), "the first comes first");
        assert_eq!(first.may_try(None, now), Ok(true));
        drop(first);
        let another = lock(3, 0, 0);
        assert_eq!(locking.kept(FILE, ClientId(10), &another, now), Some(now + KEPT));
        locking.tried(FILE, ClientId(2), 1);
        assert_eq!(locking.kept(FILE, ClientId(10), &another, now), None);
        assert_eq!(second.may_try(None, now), Ok(true));
        drop((second, beside));
        assert_eq!(locking.kept(FILE, ClientId(10), &another, now + KEPT), None);
        assert!(locking.state().files.is_empty(), "nothing is left behind");
        assert_eq!(locking.state().waiting, 0);
    }

    #[test]
    fn two_that_wait_for_each_other_are_found() {
        let (locking, now) = (Arc::new(Locking::default()), some_time());
        let mut one = locking.wait(FILE, ClientId(2), lock(1, 0, 9)).expect("room");
        assert_eq!(one.may_try(Some(held(4, 1)), now), Ok(false));
        let other = InodeId(8);
        let mut two = locking.wait(other, ClientId(4), lock(1, 0, 9)).expect("room");
        let error = two
            .may_try(Some(held(2, 1)), now)
            .expect_err("each waits for the other");
        assert_eq!(error.kind, ErrorKind::Deadlock);
        assert_eq!(two.may_try(Some(held(6, 1)), now), Ok(false), "somebody else's");
    }
}
