//! What the operations do, on our types. `filesystem` translates from and to the kernel's.
//!
//! - `names`: look-ups, attributes, entries that come, go and move, extended attributes.
//! - `content`: open files.
//! - `directories`: listings.

mod content;
mod directories;
mod names;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use curvine_actors::client::{Client, OpenFile};
use curvine_actors::kit::Clock;
use curvine_protocol::master::FsStats;
use curvine_protocol::{Attr, ErrorKind, InodeId};
use fuser::{FileAttr, INodeNo, Notifier};

pub use content::{Allocate, How, Opened, WriteHow};
pub use directories::{Directories, Listed};

use crate::convert::{Refusal, Result, attributes};
use crate::files::{Files, Slot};
use crate::inodes::{Inodes, Pages};
use crate::walks::Walks;

/// On behalf of whom a request comes.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Of the process that asks; 0 if it is not known here.
    pub pid: u32,
}

/// Everything that operations share.
pub struct Core {
    pub client: Client,
    pub files: Files,
    pub directories: Directories,
    pub inodes: Inodes,
    pub walks: Arc<Walks>,
    pub clock: Arc<dyn Clock>,
    /// What `df` was told last.
    pub space: Mutex<Option<FsStats>>,
    /// How long the kernel may believe names and attributes.
    pub ttl: Duration,
    /// The way to the kernel's caches; there once the mount is.
    pub notifier: OnceLock<Notifier>,
}

impl Core {
    pub fn new(client: Client, ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        Core {
            client,
            files: Files::new(),
            directories: Directories::new(),
            inodes: Inodes::new(ttl),
            walks: Arc::new(Walks::new()),
            clock,
            space: Mutex::default(),
            ttl,
            notifier: OnceLock::new(),
        }
    }

    fn client_of(&self, user: User) -> Client {
        self.client.for_user(user.uid, user.gid)
    }

    /// Attributes for the kernel, noted as what it knows. Where they are of a newer content than its pages of an open
    /// file, the file follows and the pages go first.
    async fn shown(&self, attr: Attr) -> FileAttr {
        let shown = self.files.overlay(attr).await;
        if self.inodes.told(&shown, self.clock.now())
            && let Some(slot) = self.files.slot(shown.inode)
            && let Some(file) = slot.file_if_open()
        {
            file.named(shown.content_version);
            // What cannot be looked at now is looked at by the next read.
            if file.catch_up().await.is_ok() {
                let version = file.content_version().max(shown.content_version);
                let pages = self.inodes.moved(shown.inode, version, file.lineage());
                self.drop_if(pages, &slot).await;
            }
        }
        attributes(&shown)
    }

    /// After a read or a write: whether the file has taken over the content of others meanwhile. Then the kernel's pages
    /// are to go once it has its answer.
    fn moved(&self, slot: &Slot, file: &OpenFile) -> bool {
        let lineage = file.lineage();
        slot.lineage.swap(lineage, Ordering::AcqRel) != lineage && {
            let pages = self.inodes.moved(slot.inode, file.content_version(), lineage);
            pages == Pages::Drop
        }
    }

    /// Before the kernel has its answer to what has no page locked.
    async fn drop_if(&self, pages: Pages, slot: &Slot) {
        if pages == Pages::Drop && slot.paged.load(Ordering::Acquire) {
            self.drop_pages(slot.inode, 0, 0).await;
        }
    }

    /// Drops the kernel's pages of a range of a file (to its end if the length is 0), and its attributes: on a thread of
    /// its own, as that waits for reads under way.
    async fn drop_pages(&self, inode: InodeId, offset_bytes: u64, len_bytes: u64) {
        let Some(notifier) = self.notifier.get().cloned() else {
            return;
        };
        let [offset, len] = [offset_bytes, len_bytes].map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let dropped =
            tokio::task::spawn_blocking(move || notifier.inval_inode(INodeNo(inode.0), offset, len)).await;
        if let Ok(Err(error)) = dropped {
            tracing::debug!(%error, "the kernel keeps the pages of inode {inode}");
        }
    }

    /// As [`Core::drop_pages`] for a request that may have pages locked: after its answer.
    pub fn drop_pages_later(self: &Arc<Self>, inode: Option<InodeId>) {
        if let Some(inode) = inode {
            let core = self.clone();
            tokio::spawn(async move { core.drop_pages(inode, 0, 0).await });
        }
    }

    /// Another client has changed a file: what the kernel has of it goes.
    pub async fn changed(&self, inode: InodeId, content_version: u64) {
        if let Some(slot) = self.files.slot(inode)
            && let Some(file) = slot.file_if_open()
        {
            file.named(content_version);
            if file.catch_up().await.is_ok() {
                let pages = self.inodes.moved(inode, file.content_version(), file.lineage());
                self.drop_if(pages, &slot).await;
            }
            // An answer that is on its way to the kernel meanwhile would not count.
            let is_known = |shown: Attr| shown.content_version >= content_version;
            if !self.inodes.shown(inode).is_some_and(is_known) {
                self.drop_attributes(inode);
            }
        }
    }

    /// What the kernel has of a file is to be no older than now.
    pub async fn look_again(&self, inode: InodeId) {
        if self.getattr(inode).await.is_ok() {
            self.drop_attributes(inode);
        }
    }

    /// What a name in a directory that is gone is answered with: first that it is stale, for the kernel to walk the path
    /// again; then, to whoever has the directory itself, that there is nothing.
    fn in_directory<T>(&self, parent: InodeId, outcome: curvine_protocol::Result<T>) -> Result<T> {
        match outcome {
            Err(error) if error.kind == ErrorKind::Stale => {
                if self.inodes.is_gone(parent) {
                    return Err(Refusal::of(libc::ENOENT));
                }
                self.inodes.gone(parent);
                Err(error.into())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Makes the kernel ask again for a file's attributes.
    fn drop_attributes(&self, inode: InodeId) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(inode.0), -1, 0)
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::debug!(%error, "the kernel keeps the attributes of inode {inode} until they expire");
        }
    }
}
