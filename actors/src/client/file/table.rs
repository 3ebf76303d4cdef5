//! The files that a client has open, by inode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use curvine_protocol::master::OpenForWrite;
use curvine_protocol::{Error, ErrorKind, FileLayout, InodeId, Mutation, Node, Result};
use tokio::sync::Notify;

use super::{Handle, OpenFile, Router, Shared};
use crate::kit::{Endpoint, MasterPort};
use crate::planted::{Bug, is_planted};

/// The masters give no lease on without its holder's word before it was silent for longer.
const TRUSTED: Duration = Duration::from_secs(10);
/// How often a lease is asked for that was lost before it was known here.
const ASKED_ANEW: u32 = 5;

/// How a handle comes to be: what the masters were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    ForReading,
    ForWriting,
    /// For writing, and its content was dropped.
    Truncated,
}

/// Shared states by inode. Holds none of them: the last handle drops its state, which leaves the table.
#[derive(Default)]
pub struct Files {
    open: Mutex<HashMap<InodeId, Weak<Shared>>>,
    /// Told whenever a file gets its lease, and at the end.
    leased: Arc<Notify>,
    /// How often a lease was given back that nothing here knew of: the answer that gave it is on its way, perhaps.
    unknown_given_back: AtomicU64,
}

impl Drop for Files {
    fn drop(&mut self) {
        self.leased.notify_one();
    }
}

impl Files {
    fn open(&self) -> MutexGuard<'_, HashMap<InodeId, Weak<Shared>>> {
        self.open.lock().expect("nobody panics while holding this")
    }

    /// Told when there is a lease.
    pub fn leased(&self) -> Arc<Notify> {
        self.leased.clone()
    }

    /// Whether this client may hold a lease.
    pub fn any_leased(&self) -> bool {
        !self.leased_files().is_empty()
    }

    /// The files of which this client may hold the lease.
    pub fn leased_files(&self) -> Vec<Arc<Shared>> {
        let mut all: Vec<_> = self.open().values().filter_map(Weak::upgrade).collect();
        all.retain(|shared| shared.may_be_leased());
        all
    }

    /// A lease is about to be given back that nothing here has.
    pub fn gives_back_unknown(&self) {
        self.unknown_given_back.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes a change that gets the lease of a file. What is answered late may be an answer of back then, to a try whose own
    /// answer was lost: the lease may have gone since, by this client's word or without it. Then it is asked for anew.
    ///
    /// # Errors
    /// Of the change; `LeaseConflict` if that happens again and again.
    pub async fn get_lease<C: Mutation<Reply = FileLayout>>(
        &self,
        router: &Router,
        call: C,
    ) -> Result<FileLayout>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let open = self.lease_of_now(router, call).await?;
        let (inode, mut layout) = match open {
            (layout, true) => return Ok(layout),
            (layout, false) => (layout.attr.inode, layout),
        };
        for _ in 0..ASKED_ANEW {
            let again = OpenForWrite {
                node: Node::Inode(inode),
                follow: false,
                truncate: false,
                open: 0,
                named: false,
            };
            let is_of_now;
            (layout, is_of_now) = self.lease_of_now::<OpenForWrite>(router, again).await?;
            if is_of_now {
                return Ok(layout);
            }
        }
        Err(Error::new(
            ErrorKind::LeaseConflict,
            format!(
                "inode {inode}: its lease was lost as often as it was given, at version {}",
                layout.attr.content_version
            ),
        ))
    }

    /// Whether the lease that was answered is had by now.
    async fn lease_of_now<C: Mutation<Reply = FileLayout>>(
        &self,
        router: &Router,
        call: C,
    ) -> Result<(FileLayout, bool)>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let given_back = self.unknown_given_back.load(Ordering::Acquire);
        let asked = router.ports().clock.now();
        let layout = router.change(call).await?;
        let is_prompt = router.ports().clock.now() - asked < TRUSTED;
        let is_had = given_back == self.unknown_given_back.load(Ordering::Acquire);
        Ok((layout, is_prompt && is_had || is_planted(Bug::BelievesOldLeases)))
    }

    pub(super) fn got_lease(&self) {
        self.leased.notify_one();
    }

    pub fn any(&self) -> bool {
        !self.open().is_empty()
    }

    pub fn find(&self, inode: InodeId) -> Option<Arc<Shared>> {
        self.open().get(&inode)?.upgrade()
    }

    pub(super) fn forget(&self, inode: InodeId) {
        let mut open = self.open();
        // Somebody else may have opened it since its last handle went.
        if open.get(&inode).is_some_and(|shared| shared.strong_count() == 0) {
            open.remove(&inode);
        }
    }

    /// A handle on a file of which the masters just said this.
    pub async fn enter(
        self: &Arc<Self>,
        router: &Arc<Router>,
        layout: FileLayout,
        opened: Opened,
        open: u64,
    ) -> OpenFile {
        let writes = opened != Opened::ForReading;
        let (shared, layout) = {
            let mut open = self.open();
            match open.get(&layout.attr.inode).and_then(Weak::upgrade) {
                Some(shared) => (shared, Some(layout)),
                None => {
                    let inode = layout.attr.inode;
                    let shared = Arc::new(Shared::new(router.clone(), layout, writes, Arc::downgrade(self)));
                    open.insert(inode, Arc::downgrade(&shared));
                    (shared, None)
                }
            }
        };
        shared.open.fetch_max(open, Ordering::AcqRel);
        if writes || layout.is_some() {
            let mut state = shared.state.lock().await;
            match layout {
                // While this client has the lease, nobody knows the file better than its state here.
                Some(layout) if !state.writable || state.lease_lost || opened == Opened::Truncated => {
                    let newer = layout.attr.content_version >= state.attr.content_version;
                    if newer || writes {
                        shared.adopt(&mut state, layout, writes);
                    }
                }
                Some(layout) if writes && layout.attr.content_version > state.attr.content_version => {
                    shared.overtaken(&mut state, layout);
                }
                _ => {}
            }
            state.writers += u32::from(writes);
        }
        if writes {
            self.got_lease();
        }
        Handle::open(shared, writes)
    }
}
