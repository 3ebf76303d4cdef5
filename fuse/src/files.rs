//! The open files of a mount: one open file of the client per inode, shared by all handles on it.
//!
//! The mount is one client to the masters, so its handles share one lease, one write buffer and one view of the file.
//!
//! Invariants: an inode has a slot exactly while it has handles or one is being opened; the client has a file open for
//! exactly as long, so that the masters keep one that loses its last name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use curvine_actors::client::{OpenFile, Seen};
use curvine_actors::planted::{Bug, is_planted};
use curvine_protocol::{Attr, InodeId};
use fuser::FileHandle;

use crate::convert::{Refusal, Result};
use crate::inodes::Pages;
use crate::reads::Reads;

/// What a handle may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Writes go to the end of the file, wherever the kernel thinks that is, past its pages.
    Append,
}

impl Access {
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// An inode with handles.
pub struct Slot {
    pub inode: InodeId,
    /// What all handles use; none until the first open has succeeded.
    file: RwLock<Option<OpenFile>>,
    /// How many handles may write. Held while a handle is opened or closed, which so happens one at a time.
    pub writers: tokio::sync::Mutex<u32>,
    /// How many handles have written since a descriptor of theirs was closed.
    unflushed: AtomicU32,
    /// The kernel may have pages of it: some request went through them.
    pub paged: AtomicBool,
    /// The lineage of the file that was seen last.
    pub lineage: AtomicU64,
    /// Reads under way, in their order.
    pub reads: Arc<Reads>,
    /// Changed under the table's lock only.
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Handles, open or being opened.
    handles: u32,
    /// Writers as of the last open or close, to be read without waiting.
    writers: u32,
}

/// A handle that the kernel has.
#[derive(Clone)]
pub struct Handle {
    pub slot: Arc<Slot>,
    pub access: Access,
    /// It has written since a descriptor of it was closed.
    unflushed: Arc<AtomicBool>,
    /// What it knows of losses, whoever has its descriptors: a child's `close(2)` may be the first to be told of one, where
    /// nobody hears it.
    seen: Arc<Seen>,
}

impl Handle {
    /// It is about to write.
    pub fn writes(&self) {
        if !self.unflushed.swap(true, Ordering::AcqRel) {
            self.slot.unflushed.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A descriptor of it is being closed. Says whether no handle has written since one of its own was: those that are
    /// open may be idle, or closed already, of which the kernel says so later.
    pub fn flushes(&self) -> bool {
        let mut others = self.slot.unflushed.load(Ordering::Acquire);
        if self.unflushed.swap(false, Ordering::AcqRel) {
            others = self.slot.unflushed.fetch_sub(1, Ordering::AcqRel) - 1;
        }
        others == 0
    }

    /// The file, as this handle has it.
    ///
    /// # Errors
    /// `EBADF` if it is not open.
    pub fn file(&self) -> Result<OpenFile> {
        Ok(self.slot.file()?.seen_by(self.seen.clone()))
    }
}

#[derive(Default)]
struct Tables {
    slots: HashMap<InodeId, Arc<Slot>>,
    handles: HashMap<u64, Handle>,
}

pub struct Files {
    tables: Mutex<Tables>,
    next_handle: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// The file that all handles share.
    pub fn file(&self) -> Result<OpenFile> {
        self.file_if_open().ok_or(Refusal::of(libc::EBADF))
    }

    pub fn file_if_open(&self) -> Option<OpenFile> {
        self.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn use_file(&self, file: OpenFile) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// Notes how many writers there are. The caller holds `writers`.
    pub fn note_writers(&self, writers: u32) {
        locked(&self.shared).writers = writers;
    }

    pub fn has_writers(&self) -> bool {
        locked(&self.shared).writers > 0
    }

    /// Something was written, through the kernel's pages or past them. Whether pages of what was written are to go: those
    /// that were read beside the write may be from before, and no page was locked while it was on its way.
    pub fn wrote(&self, past_pages: bool) -> Pages {
        if !past_pages {
            self.paged.store(true, Ordering::Release);
            return Pages::Stay;
        }
        match self.paged.load(Ordering::Acquire) && !is_planted(Bug::DirectWritesLeavePages) {
            true => Pages::Drop,
            false => Pages::Stay,
        }
    }
}

impl Files {
    pub fn new() -> Self {
        Files {
            tables: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// The inode's slot, with one more handle in the making: [`Files::opened`] or [`Files::abandon`] must follow.
    pub fn enter(&self, inode: InodeId) -> Arc<Slot> {
        let mut tables = locked(&self.tables);
        let slot = tables.slots.entry(inode).or_insert_with(|| {
            Arc::new(Slot {
                inode,
                file: RwLock::new(None),
                writers: tokio::sync::Mutex::new(0),
                unflushed: AtomicU32::new(0),
                paged: AtomicBool::new(false),
                lineage: AtomicU64::new(0),
                reads: Arc::default(),
                shared: Mutex::default(),
            })
        });
        locked(&slot.shared).handles += 1;
        slot.clone()
    }

    pub fn opened(&self, slot: Arc<Slot>, access: Access) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        locked(&self.tables).handles.insert(
            number,
            Handle {
                slot,
                access,
                unflushed: Arc::default(),
                seen: Arc::default(),
            },
        );
        FileHandle(number)
    }

    /// The opening failed.
    pub fn abandon(&self, slot: &Arc<Slot>) {
        self.leave(&mut locked(&self.tables), slot);
    }

    /// # Errors
    /// `EBADF` for a handle that the kernel does not have.
    pub fn handle(&self, handle: FileHandle) -> Result<Handle> {
        let tables = locked(&self.tables);
        tables
            .handles
            .get(&handle.0)
            .cloned()
            .ok_or(Refusal::of(libc::EBADF))
    }

    /// The kernel has closed a handle, and its file has been told.
    pub fn closed(&self, handle: FileHandle) {
        let mut tables = locked(&self.tables);
        if let Some(handle) = tables.handles.remove(&handle.0) {
            self.leave(&mut tables, &handle.slot);
        }
    }

    fn leave(&self, tables: &mut Tables, slot: &Arc<Slot>) {
        let mut shared = locked(&slot.shared);
        shared.handles -= 1;
        if shared.handles == 0 {
            tables.slots.remove(&slot.inode);
        }
    }

    pub fn slot(&self, inode: InodeId) -> Option<Arc<Slot>> {
        locked(&self.tables).slots.get(&inode).cloned()
    }

    /// Attributes from the masters as this mount must show them: with what is written here and not flushed yet.
    pub async fn overlay(&self, attr: Attr) -> Attr {
        match self.slot(attr.inode) {
            Some(slot) if slot.has_writers() => match slot.file_if_open() {
                Some(file) => file.with_what_is_written(attr).await,
                None => attr,
            },
            _ => attr,
        }
    }

    /// The files with writers, to be closed before the mount goes away.
    pub fn written(&self) -> Vec<Arc<Slot>> {
        let tables = locked(&self.tables);
        let slots = tables.slots.values().filter(|slot| slot.has_writers());
        slots.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);

    #[test]
    fn the_last_that_wrote_is_last_though_the_kernel_has_not_said_yet_that_others_are_closed() {
        let files = Files::new();
        let open = || {
            let handle = files.opened(files.enter(FILE), Access::Write);
            files.handle(handle).unwrap_or_else(|_| panic!("it is open"))
        };
        let (first, second) = (open(), open());
        assert!(first.flushes(), "nobody wrote");
        first.writes();
        second.writes();
        second.writes();
        assert!(!first.flushes(), "the second is still at it");
        assert!(second.flushes());
        assert!(second.flushes(), "a duplicate of its descriptor");
        first.writes();
        assert!(!second.flushes());
        assert!(first.flushes());
    }

    #[test]
    fn what_is_written_past_the_pages_has_them_dropped_if_there_may_be_any() {
        let files = Files::new();
        let slot = files.enter(FILE);
        assert_eq!(slot.wrote(true), Pages::Stay, "no request went through pages");
        assert_eq!(slot.wrote(false), Pages::Stay, "they have what was written");
        assert_eq!(slot.wrote(true), Pages::Drop);
        assert_eq!(slot.wrote(true), Pages::Drop, "they may have been read again");
        files.abandon(&slot);
    }

    #[test]
    fn handles_of_one_inode_share_a_slot_until_the_last_closes() {
        let files = Files::new();
        let first = files.opened(files.enter(FILE), Access::Write);
        let second = files.opened(files.enter(FILE), Access::Read);
        assert_ne!(first, second);
        assert!(Arc::ptr_eq(
            &files.handle(first).expect("open").slot,
            &files.handle(second).expect("open").slot
        ));
        files.closed(first);
        assert!(files.slot(FILE).is_some());
        files.closed(second);
        assert!(files.slot(FILE).is_none());
        assert_eq!(
            files.handle(second).err().map(|refusal| refusal.errno),
            Some(libc::EBADF)
        );
    }

    #[test]
    fn an_opening_that_fails_leaves_nothing() {
        let files = Files::new();
        let slot = files.enter(FILE);
        assert!(files.slot(FILE).is_some(), "it counts while it is being opened");
        files.abandon(&slot);
        assert!(files.slot(FILE).is_none());
    }
}
