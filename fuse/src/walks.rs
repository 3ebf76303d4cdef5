//! Opens of names that the kernel remembers, and that mean another file by now.
//!
//! The kernel opens a file by its number, which it may have looked up a while ago. If the file has no name any more, it is
//! told that the number is stale, and the thread that opens walks the path again, once, asking for every name. Were the
//! file that it finds then replaced too before it is opened, the program would see `ESTALE`. So what such a walk finds is
//! kept open for the thread until its open comes.
//!
//! A number without a name may also be meant: `/proc/self/fd/3`. Then the walk comes to the same number again.
//!
//! Invariants: what is kept is kept for [`WALK`] at most; a thread has one walk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curvine_actors::client::OpenFile;
use curvine_protocol::InodeId;
use quick_cache::unsync::Cache;
use tokio::time::Instant;

/// How long a thread's second walk may take.
const WALK: Duration = Duration::from_secs(5);
/// Threads that walk again at the same time. One that is forgotten may see `ESTALE`.
const WALKS: usize = 1_024;

/// What a thread's walk has come to. Pure, of whatever is kept.
struct Walk<File> {
    /// What it was refused.
    refused: InodeId,
    since: Instant,
    /// What it found since then, kept open.
    found: Option<(InodeId, File)>,
}

impl<File> Walk<File> {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= WALK
    }

    /// Whether a file may be opened though it has no name: the walk came here.
    fn leads_to(&self, inode: InodeId) -> bool {
        self.refused == inode || self.found.as_ref().is_some_and(|(found, _)| *found == inode)
    }
}

/// The walks of all threads, by their ids.
pub struct Walks<File = OpenFile> {
    walks: Mutex<Cache<u32, Walk<File>>>,
}

impl<File> Walks<File> {
    pub fn new() -> Self {
        Walks {
            walks: Mutex::new(Cache::new(WALKS)),
        }
    }

    fn walks(&self) -> MutexGuard<'_, Cache<u32, Walk<File>>> {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread is told that a file is stale: it walks again.
    pub fn refused(&self, thread: u32, inode: InodeId, now: Instant) {
        let walk = Walk {
            refused: inode,
            since: now,
            found: None,
        };
        self.walks().insert(thread, walk);
    }

    /// Whether a thread is walking again.
    pub fn is_walking(&self, thread: u32, now: Instant) -> bool {
        self.walks().get(&thread).is_some_and(|walk| !walk.is_over(now))
    }

    /// A thread that walks again has found this, and will open it. What it found before goes.
    pub fn found(&self, thread: u32, inode: InodeId, file: File) {
        if let Some(mut walk) = self.walks().get_mut(&thread) {
            walk.found = Some((inode, file));
        }
    }

    /// A thread opens a file, which ends its walk: whether it came here, and what it has kept, to be dropped when the
    /// file is open.
    pub fn arrived(&self, thread: u32, inode: InodeId, now: Instant) -> (bool, Option<File>) {
        let walk = self.walks().remove(&thread).map(|(_, walk)| walk);
        match walk.filter(|walk| !walk.is_over(now)) {
            Some(walk) => (walk.leads_to(inode), walk.found.map(|(_, file)| file)),
            None => (false, None),
        }
    }

    /// Ends a walk that began at this time, if it has not ended yet.
    fn give_up(&self, thread: u32, since: Instant) {
        let mut walks = self.walks();
        if walks.peek(&thread).is_some_and(|walk| walk.since == since) {
            walks.remove(&thread);
        }
    }
}

impl<File: Send + 'static> Walks<File> {
    /// As [`Walks::refused`], for [`WALK`] at most. On a runtime.
    pub fn refused_for_a_while(self: &Arc<Self>, thread: u32, inode: InodeId, now: Instant) {
        self.refused(thread, inode, now);
        let walks = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(WALK).await;
            walks.give_up(thread, now);
        });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    const OLD: InodeId = InodeId(7);
    const NEW: InodeId = InodeId(8);

    #[test]
    fn what_a_second_walk_finds_is_kept_until_it_is_opened() {
        let (walks, now) = (Walks::new(), Instant::now());
        assert!(!walks.is_walking(1, now));
        assert_eq!(walks.arrived(1, NEW, now), (false, None));
        walks.refused(1, OLD, now);
        assert!(walks.is_walking(1, now) && !walks.is_walking(2, now));
        walks.found(1, NEW, "kept");
        assert_eq!(walks.arrived(1, NEW, now), (true, Some("kept")));
        assert!(!walks.is_walking(1, now), "it has arrived");
    }

    #[test]
    fn a_number_that_a_walk_comes_to_again_is_meant() {
        let (walks, now) = (Walks::<()>::new(), Instant::now());
        walks.refused(1, OLD, now);
        assert_eq!(walks.arrived(1, OLD, now), (true, None));
        walks.refused(1, OLD, now);
        assert_eq!(walks.arrived(1, NEW, now), (false, None), "it was not looked up");
        walks.refused(1, OLD, now);
        assert_eq!(
            walks.arrived(1, OLD, now + WALK),
            (false, None),
            "it is another one"
        );
    }

    #[test]
    fn what_is_kept_for_a_thread_that_never_opens_goes() {
        let (walks, now) = (Walks::new(), Instant::now());
        let kept = Arc::new(());
        walks.refused(1, OLD, now);
        walks.found(1, NEW, kept.clone());
        walks.give_up(1, now + WALK);
        assert_eq!(Arc::strong_count(&kept), 2, "another walk's time is over");
        walks.give_up(1, now);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
