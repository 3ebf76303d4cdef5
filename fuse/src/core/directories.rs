//! Listings. A handle keeps one page of entries and where earlier pages began, whatever the directory's size.
//!
//! The kernel's offsets are positions: 0 the beginning, 1 after `.`, 2 after `..`, then one more for each entry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use curvine_protocol::number::to_usize;
use curvine_protocol::{DirEntry, ErrorKind, InodeId};
use fuser::{FileAttr, FileHandle};

use super::Core;
use crate::convert::{Refusal, Result, attributes};

/// Entries asked for at once.
const PAGE: u32 = 1_000;
/// `.` and `..`.
const DOTS: u64 = 2;

/// An entry as the kernel gets it.
pub struct Listed {
    pub name: String,
    pub attr: FileAttr,
    /// Where to go on after it.
    pub next: u64,
}

/// The listings that are open.
pub struct Directories {
    open: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<Cursor>>>>,
    next_handle: AtomicU64,
}

/// Where a handle is.
struct Cursor {
    inode: InodeId,
    /// The attributes of the directory; none before the first page.
    itself: Option<FileAttr>,
    parent: InodeId,
    page: Vec<DirEntry>,
    /// Position of the page's first entry, counted without the dots.
    start: u64,
    /// Whether there are entries after the page.
    more: bool,
    /// The beginning of every page seen: its position and the name before it.
    starts: Vec<(u64, Option<String>)>,
}

impl Directories {
    pub fn new() -> Self {
        Directories {
            open: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    pub fn open(&self, inode: InodeId) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let cursor = Cursor {
            inode,
            itself: None,
            parent: inode,
            page: Vec::new(),
            start: 0,
            more: true,
            starts: vec![(0, None)],
        };
        self.table()
            .insert(number, Arc::new(tokio::sync::Mutex::new(cursor)));
        FileHandle(number)
    }

    pub fn close(&self, handle: FileHandle) {
        self.table().remove(&handle.0);
    }

    fn cursor(&self, handle: FileHandle) -> Result<Arc<tokio::sync::Mutex<Cursor>>> {
        self.table()
            .get(&handle.0)
            .cloned()
            .ok_or(Refusal::of(libc::EBADF))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<tokio::sync::Mutex<Cursor>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cursor {
    /// Whether the page has what follows a position, or nothing follows.
    fn covers(&self, position: u64) -> bool {
        let end = self.start + self.page.len() as u64;
        self.itself.is_some() && self.start <= position && (position < end || position == end && !self.more)
    }

    /// The last page's beginning that is not after a position.
    fn nearest(&self, position: u64) -> (u64, Option<String>) {
        let after = self.starts.partition_point(|(start, _)| *start <= position);
        self.starts[after - 1].clone()
    }

    /// Takes the page that begins at a position.
    fn turn(&mut self, start: u64, page: Vec<DirEntry>, more: bool) {
        (self.start, self.page, self.more) = (start, page, more);
        let next = start + self.page.len() as u64;
        if let Some(last) = self.page.last()
            && self.starts.last().is_some_and(|(known, _)| *known < next)
        {
            self.starts.push((next, Some(last.name.clone())));
        }
    }
}

impl Core {
    /// Entries from an offset on: at most a page; none at the end.
    pub async fn list(&self, handle: FileHandle, offset: u64) -> Result<Vec<Listed>> {
        let cursor = self.directories.cursor(handle)?;
        let mut cursor = cursor.lock().await;
        let position = offset.saturating_sub(DOTS);
        // From the beginning, it is a new look.
        if offset == 0 {
            cursor.itself = None;
            cursor.starts.truncate(1);
        }
        while !cursor.covers(position) {
            let end = cursor.start + cursor.page.len() as u64;
            let follows =
                cursor.itself.is_some() && cursor.more && cursor.start <= position && end <= position;
            let (start, after) = match (follows, cursor.page.last()) {
                (true, Some(last)) => (end, Some(last.name.clone())),
                (true, None) => break,
                (false, _) => cursor.nearest(position),
            };
            let page = match self.client.list_page(cursor.inode, after.as_deref(), PAGE).await {
                // A directory that was removed while it was open has nothing in it.
                Err(error) if error.kind == ErrorKind::Stale && self.inodes.gone(cursor.inode).is_some() => {
                    return Ok(Vec::new());
                }
                page => page?,
            };
            cursor.itself = Some(attributes(&page.directory));
            cursor.parent = page.parent;
            cursor.turn(start, page.entries, page.more);
            if !cursor.more && position > cursor.start + cursor.page.len() as u64 {
                // It has become shorter than it was.
                return Ok(Vec::new());
            }
        }
        let mut listed = Vec::new();
        if let Some(itself) = cursor.itself {
            let parent = FileAttr {
                ino: fuser::INodeNo(cursor.parent.0),
                ..itself
            };
            let dots = [(".", itself, 1), ("..", parent, 2)];
            listed.extend(
                dots.into_iter()
                    .skip(offset.min(DOTS) as usize)
                    .map(|(name, attr, next)| Listed {
                        name: name.to_owned(),
                        attr,
                        next,
                    }),
            );
        }
        let from = to_usize(position - cursor.start);
        for (index, entry) in cursor.page.iter().enumerate().skip(from) {
            listed.push(Listed {
                name: entry.name.clone(),
                attr: self.shown(entry.attr.clone()).await,
                next: cursor.start + index as u64 + 1 + DOTS,
            });
        }
        Ok(listed)
    }
}
