//! The files that a client has open, by inode.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use curvine_protocol::{FileLayout, InodeId};
use tokio::sync::Notify;

use super::{Handle, OpenFile, Router, Shared};

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
