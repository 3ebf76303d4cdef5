//! Open files: one shared state per file of a client, used by all its handles from many tasks at once.
//!
//! - [`table`]: which files of a client are open, so that its handles on one file share a state and a lease.
//! - `state`: blocks, lengths, what was written and is not on its way yet; the plan of a read. Pure.
//! - `write`: bytes that are gathered, and pieces on their way to workers; `deliver`: one call of a worker.
//! - `order`: the numbers of changes, and what workers acknowledged of them. Pure.
//! - `commit`: sealing what was written, and telling the masters.
//! - `lease`: getting the write lease, losing it, giving it back.
//! - `writers`: which handles wrote, and which are to hear of a loss. Pure.
//! - `local`: blocks of workers on this host, from descriptors that these lend.
//! - `read`: ranges from workers, verified, from another replica where one fails.
//!
//! Invariants: bytes reach the master's record of the file only after every one of them is sealed on a worker. After a
//! write that failed, or was given up by its caller, every flush fails; what is recorded then is what workers have
//! acknowledged up to the first byte that they have not.

mod commit;
mod deliver;
mod fetch;
mod lease;
mod local;
mod order;
pub(crate) mod read;
mod state;
pub(super) mod table;
mod write;
mod writers;

#[cfg(test)]
pub(super) use write::{PIECE_BYTES, WINDOW};

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use curvine_protocol::master::{AttrChange, PersistFile, PunchHole, SetAttr};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::READ_BYTES_MAX;
use curvine_protocol::{Attr, Error, ErrorKind, FILE_BYTES_MAX, FileLayout, InodeId, Node, Result};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, MutexGuard};

use super::route::{Router, is_passing};
use crate::planted::{Bug, is_planted};
pub use local::LocalFile;
use state::State;
use table::Files;
use writers::HandleId;
pub use writers::Seen;

/// Ranges of [`READ_BYTES_MAX`] read at the same time for one read.
const RANGES: usize = 4;

/// A file that is open, for reading at any offset and, once it has the lease, for writing.
///
/// Cheap to clone; all clones are one handle. Several handles of one client on one file see each other's writes at once
/// and share the lease, which goes back when the last of them that wrote is closed. Other clients see what is written
/// when they open the file after a [`flush`](Self::flush), [`sync`](Self::sync) or [`close`](Self::close).
///
/// # Errors of writes
/// Writes are gathered and sent in a window, so their errors may surface later. From then on the file is *failed*: every
/// write, flush, sync and read of this client on it gives the same error. The first flush, sync or close that says so
/// has committed what workers have of what was written, up to the first byte that they have not: the error says how
/// long the file is (an overwrite in place may have replaced bytes already). From then on reads see that file; those of
/// bytes in it that were written over and may be lost still give the error. `close` gives the error once more and gives
/// the lease back; the handle can then be used again. Workers and masters that do not answer are tried again for
/// [`retry_for`](super::ClientOptions::retry_for) before that.
///
/// Where the lease was lost while another client wanted the file, what was not flushed under it is lost, and nothing of it
/// gets into the file. Every handle that wrote some of it is told so by each write, flush, sync and close, until it is
/// closed. The file is not failed: reads see what others made, and other handles, also those that are opened before that
/// close, write under a lease of their own.
///
/// # Dropping
/// Dropping the last clone without `close` gives the lease back and forgets what was not flushed, as nobody would hear of
/// an error. Outside of a tokio runtime, the lease goes back when the client is closed or its session expires.
///
/// # Several users of one handle
/// Where several write by one handle and close it one by one, as descriptors of a mount do, [`OpenFile::seen_by`] gives each
/// its own view: a loss is told to it by every write, flush, sync and close from its first write on, whoever was told before.
#[derive(Clone)]
pub struct OpenFile {
    handle: Arc<Handle>,
    /// Whose view it is, if the handle has several users.
    seen: Option<Arc<Seen>>,
}

struct Handle {
    shared: Arc<Shared>,
    id: HandleId,
    /// Among the state's writers. Changed while the state is held.
    writes: AtomicBool,
}

/// A file of this client that somebody has open.
pub(super) struct Shared {
    router: Arc<Router>,
    inode: InodeId,
    size_bytes: AtomicU64,
    /// How many of them are in blocks.
    held_bytes: AtomicU64,
    /// When something was last written that the masters do not know of; 0 if they know all.
    written_ns: AtomicI64,
    /// The number of its last open, as the masters know it.
    open: AtomicU64,
    /// How many handles it has had.
    handles: AtomicU64,
    /// How often the content of others was taken over, so far.
    lineage: AtomicU64,
    /// This client has the lease, as the state says.
    leased: AtomicBool,
    /// Of the content as the masters have it.
    version: AtomicU64,
    /// The newest version that any answer named, and the newest that was looked at since.
    named: AtomicU64,
    looked_at: AtomicU64,
    /// One of [`CLEARED`], [`KEPT`], [`TO_CLEAR`].
    privileges: AtomicU8,
    state: Mutex<State>,
    files: Weak<Files>,
}

/// What a commit does with the set-user-id and set-group-id bits: every one clears them.
const CLEARED: u8 = 0;
/// They stay.
const KEPT: u8 = 1;
/// The next one clears them, then they stay.
const TO_CLEAR: u8 = 2;

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.writes.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (shared, id) = (self.shared.clone(), self.id);
        runtime.spawn(async move {
            let mut state = shared.lock().await;
            state.writers.leave(id);
            if state.writers.is_empty() {
                shared.abandon(&mut state).await;
            }
        });
    }
}

impl OpenFile {
    /// Number of the file, the same for all its names for as long as it exists.
    pub fn inode(&self) -> InodeId {
        self.handle.shared.inode
    }

    /// The size in bytes, with everything written here, flushed or not.
    pub async fn size(&self) -> u64 {
        self.size_now()
    }

    /// As [`OpenFile::size`], without waiting.
    pub fn size_now(&self) -> u64 {
        self.handle.shared.size()
    }

    /// Attributes as of the last commit, with the size and times of now.
    pub async fn attr(&self) -> Attr {
        let attr = self.handle.shared.state.lock().await.attr.clone();
        self.with_what_is_written(attr).await
    }

    /// Attributes from the masters, with what was written here and they do not know of yet. The next flush makes the file
    /// have exactly these.
    pub async fn with_what_is_written(&self, mut attr: Attr) -> Attr {
        if self.holds_lease() && attr.content_version > self.content_version() {
            // A commit of ours is on its way back. It may be the one with which the lease went, and another client has
            // written since.
            drop(self.handle.shared.state.lock().await);
        }
        if !self.holds_lease() {
            // Nothing is written here that they do not know, and others may have written.
            return attr;
        }
        attr.size_bytes = self.size_now();
        let held_bytes = self.handle.shared.held_bytes.load(Ordering::Acquire);
        attr.hole_bytes = attr.size_bytes.saturating_sub(held_bytes);
        match self.handle.shared.written_ns.load(Ordering::Acquire) {
            0 => {}
            written_ns => {
                attr.mtime_ns = written_ns;
                attr.ctime_ns = attr.ctime_ns.max(written_ns);
            }
        }
        if self.handle.shared.privileges.load(Ordering::Acquire) == TO_CLEAR {
            attr.mode = without_privileges(attr.mode);
        }
        attr
    }

    /// Whether this client has the lease, and so knows the file better than the masters do.
    pub fn holds_lease(&self) -> bool {
        self.handle.shared.leased.load(Ordering::Acquire)
    }

    /// How often the content of others was taken over here. While it stays the same, what was read before is what was
    /// read and what was written here since.
    pub fn lineage(&self) -> u64 {
        self.handle.shared.lineage.load(Ordering::Acquire)
    }

    /// The version of the content that this is, without what is not committed yet.
    pub fn content_version(&self) -> u64 {
        self.handle.shared.version.load(Ordering::Acquire)
    }

    /// Some answer of the masters named this version of the content: what is read from now on is not older.
    pub fn named(&self, content_version: u64) {
        self.handle
            .shared
            .named
            .fetch_max(content_version, Ordering::AcqRel);
    }

    /// Asks for the layout again where a newer version was named than was looked at.
    ///
    /// # Errors
    /// `Stale` if the file is gone; as [`Client::open`](super::Client::open).
    pub async fn catch_up(&self) -> Result<()> {
        self.handle.shared.catch_up().await
    }

    /// From now on commits leave the set-user-id and set-group-id bits alone, as whoever writes through a kernel is
    /// told by it when they must go: see [`OpenFile::clear_privileges`].
    pub fn keep_privileges(&self) {
        let privileges = &self.handle.shared.privileges;
        // One that is to clear them does so first.
        let _ = privileges.compare_exchange(CLEARED, KEPT, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The next commit clears the set-user-id and set-group-id bits.
    pub fn clear_privileges(&self) {
        let privileges = &self.handle.shared.privileges;
        let _ = privileges.compare_exchange(KEPT, TO_CLEAR, Ordering::AcqRel, Ordering::Acquire);
    }

    /// `len_bytes` from `offset_bytes` on; fewer only at the end of the file. Holes are zeros.
    ///
    /// The whole range is held in memory, of which at most 16 MiB are on their way at any time; for long ranges
    /// see [`OpenFile::stream`].
    ///
    /// # Errors
    /// `BlockUnavailable`, or the worker's own error, if no worker serves it within the retry time; `Corrupt` if every
    /// replica fails its checksum; `UfsChanged` if the object behind the file is another one by now, and `Stale` if the
    /// file is gone: open it again. The error of an earlier write, where it may have lost bytes of the range.
    pub async fn read_at(&self, offset_bytes: u64, len_bytes: u64) -> Result<Bytes> {
        const STEP: u64 = READ_BYTES_MAX as u64;
        let shared = &self.handle.shared;
        shared.catch_up().await?;
        let asked = offset_bytes.saturating_add(len_bytes);
        let end = asked.min(shared.size());
        if end.saturating_sub(offset_bytes) <= STEP {
            // Where the file ends is seen when its state is: others may have made it longer.
            let end = asked.min(offset_bytes.saturating_add(STEP));
            return shared.read_range(offset_bytes, end).await;
        }
        let starts = (offset_bytes..end).step_by(to_usize(STEP));
        let mut ranges = stream::iter(starts)
            .map(|start| shared.read_range(start, (start + STEP).min(end)))
            .buffered(RANGES);
        let mut whole = BytesMut::with_capacity(to_usize(end - offset_bytes));
        while let Some(range) = ranges.try_next().await? {
            let cut_short = (range.len() as u64) < STEP;
            whole.extend_from_slice(&range);
            // The last one, or the file was cut meanwhile: what follows is not part of it.
            if cut_short {
                break;
            }
        }
        Ok(whole.freeze())
    }

    /// The content from an offset to the end as it is now, in pieces of up to 4 MiB, a few of which are read ahead.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`]; the first error ends what can be trusted.
    pub fn stream(&self, offset_bytes: u64) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        const AHEAD: usize = 3;
        const STEP: u64 = READ_BYTES_MAX as u64;
        let file = self.clone();
        let size_bytes = self.size_now();
        let first_end = (offset_bytes / STEP + 1) * STEP;
        let starts = std::iter::once((offset_bytes, first_end.min(size_bytes)))
            .chain((0..).map(move |i| (first_end + i * STEP, (first_end + (i + 1) * STEP).min(size_bytes))))
            .take_while(move |(start, _)| *start < size_bytes);
        stream::iter(starts)
            .map(move |(start, end)| {
                let file = file.clone();
                async move { file.read_at(start, end - start).await }
            })
            .buffered(AHEAD)
    }

    /// Writes at an offset; beyond the end, a hole is left that reads as zeros. Gets the lease if need be.
    ///
    /// Returns when the bytes are taken, not when they are stored; at most a few MiB of a file are on their way at any
    /// time. If the caller drops the future, the write may be done in part.
    ///
    /// # Errors
    /// `LeaseConflict` if another client that writes the file does not give it back; `FileTooLarge`; the error of an earlier write (see
    /// [`OpenFile`]), such as `NoSpace`.
    pub async fn write_at(&self, offset_bytes: u64, bytes: Bytes) -> Result<()> {
        let mut state = self.handle.shared.lock().await;
        self.ready_to_write(&mut state).await?;
        self.handle.shared.write(&mut state, offset_bytes, bytes).await
    }

    /// Writes at the end as this client knows it, after all its writes before; says where that was.
    ///
    /// # Errors
    /// As [`OpenFile::write_at`].
    pub async fn append(&self, bytes: Bytes) -> Result<u64> {
        let mut state = self.handle.shared.lock().await;
        self.ready_to_write(&mut state).await?;
        let offset_bytes = self.size_now();
        self.handle.shared.write(&mut state, offset_bytes, bytes).await?;
        Ok(offset_bytes)
    }

    /// Cuts the file, or extends it with zeros. Flushes what was written before.
    ///
    /// # Errors
    /// As [`OpenFile::flush`]; `LeaseConflict` if another client that writes the file does not give it back.
    pub async fn truncate(&self, size_bytes: u64) -> Result<Attr> {
        self.handle.truncate(size_bytes, false).await
    }

    /// As [`OpenFile::truncate`]; the set-user-id and set-group-id bits stay.
    ///
    /// # Errors
    /// As [`OpenFile::truncate`].
    pub async fn truncate_keeping_privileges(&self, size_bytes: u64) -> Result<Attr> {
        self.handle.truncate(size_bytes, true).await
    }

    /// Makes the file at least this long; what is new reads as zeros and takes no space.
    ///
    /// # Errors
    /// As [`OpenFile::write_at`].
    pub async fn extend(&self, size_bytes: u64) -> Result<()> {
        let shared = &self.handle.shared;
        let mut state = shared.lock().await;
        self.ready_to_write(&mut state).await?;
        if size_bytes > FILE_BYTES_MAX {
            return Err(Error::too_large());
        }
        if shared.size_bytes.fetch_max(size_bytes, Ordering::AcqRel) < size_bytes {
            state.changes();
            shared.written_now();
        }
        Ok(())
    }

    /// Makes a range read as zeros and gives back the space behind it; the file stays as long as it is. Flushes what was
    /// written before; others see the hole after the next flush, and parts of it earlier.
    ///
    /// # Errors
    /// As [`OpenFile::flush`] and [`OpenFile::write_at`].
    pub async fn punch(&self, offset_bytes: u64, len_bytes: u64) -> Result<()> {
        let shared = &self.handle.shared;
        let mut state = shared.lock().await;
        self.ready_to_write(&mut state).await?;
        let range = offset_bytes..offset_bytes.saturating_add(len_bytes);
        // The masters cut what they know.
        shared.commit(&mut state, false, false).await?;
        state.writers.writes(self.handle.id);
        let punched = shared.punch(&mut state, range).await;
        shared.let_go_if_lost(&mut state).await;
        punched
    }

    /// How many bytes of a range are in blocks, and so have space already.
    pub async fn held_in(&self, range: Range<u64>) -> u64 {
        self.handle.shared.state.lock().await.held_in(&range)
    }

    /// Where the first bytes from an offset on are that are not in a hole; none if there is only a hole up to the end.
    /// Zeros that were written, and holes in a block, count as bytes.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`].
    pub async fn next_data(&self, offset_bytes: u64) -> Result<Option<u64>> {
        let shared = &self.handle.shared;
        shared.catch_up().await?;
        let state = shared.state.lock().await;
        Ok(state.next_data(offset_bytes, shared.size()))
    }

    /// Where the first hole from an offset on begins, at the end of the file at the latest; none from there on.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`].
    pub async fn next_hole(&self, offset_bytes: u64) -> Result<Option<u64>> {
        let shared = &self.handle.shared;
        shared.catch_up().await?;
        let state = shared.state.lock().await;
        Ok(state.next_hole(offset_bytes, shared.size()))
    }

    /// The file as one of several users of this handle has it.
    #[must_use]
    pub fn seen_by(&self, seen: Arc<Seen>) -> OpenFile {
        OpenFile {
            handle: self.handle.clone(),
            seen: Some(seen),
        }
    }

    /// # Errors
    /// Something is lost that this handle, or this user of it, is to hear of.
    fn check(&self, state: &State) -> Result<()> {
        state.writers.check(self.handle.id)?;
        let seen = self.seen.as_ref();
        seen.map_or(Ok(()), |seen| state.writers.check_seen(seen))
    }

    /// # Errors
    /// As [`OpenFile::flush`]: something that was written is lost, by this handle or, where a write failed, by any. Of the
    /// masters, if nobody knows whether the lease is still here.
    async fn ready_to_write(&self, state: &mut State) -> Result<()> {
        if let Some(seen) = &self.seen {
            state.writers.begins(seen)?;
        }
        self.handle.ready_to_write(state).await?;
        // The lease may have been found to be lost just now.
        self.check(state)
    }

    /// Makes what was written visible to readers that open the file from now on. It survives a killed process; for power
    /// cuts see [`OpenFile::sync`].
    ///
    /// # Errors
    /// The error of an earlier write; `Stale` if the lease was lost, because the masters did not hear of this client for
    /// a minute.
    pub async fn flush(&self) -> Result<Attr> {
        let mut state = self.handle.shared.lock().await;
        self.check(&state)?;
        self.handle.shared.commit(&mut state, false, false).await?;
        Ok(state.attr.clone())
    }

    /// As [`OpenFile::flush`], and on the disks of every worker that has it.
    ///
    /// # Errors
    /// As [`OpenFile::flush`].
    pub async fn sync(&self) -> Result<Attr> {
        let mut state = self.handle.shared.lock().await;
        self.check(&state)?;
        if !state.writable && !state.is_object() {
            // What others have flushed is meant too.
            let (blocks, workers) = (state.blocks.clone(), state.workers.clone());
            self.handle.shared.reload(&mut state).await?;
            state.keep_holders(&blocks, workers);
        }
        self.handle.shared.commit(&mut state, true, false).await?;
        if state.source.is_some() && state.writable {
            // Nothing is written meanwhile: the state is locked.
            let persist = PersistFile {
                inode: self.handle.shared.inode,
                wait: false,
            };
            state.attr = self.handle.shared.router.ask_master(persist).await?.attr;
        }
        Ok(state.attr.clone())
    }

    /// Flushes and, with the last handle that wrote, gives the lease back. In a writable mount the object is written
    /// before this returns. The handle may be used on: the next write gets the lease again.
    ///
    /// # Errors
    /// As [`OpenFile::flush`]: what workers do not have is lost then. To be able to try again, flush first.
    /// In a mount, `Ufs...` if the object could not be written: the content is kept by Curvine.
    pub async fn close(&self) -> Result<Attr> {
        let Handle { shared, id, writes } = &*self.handle;
        let mut state = shared.lock().await;
        if !writes.load(Ordering::Acquire) {
            self.check(&state)?;
            return Ok(state.attr.clone());
        }
        let last = state.writers.is_last(*id);
        let committed = shared.commit(&mut state, false, last).await;
        let committed = match committed {
            Err(error) if last => {
                let error = shared.keep(&mut state, error).await;
                state.writers.note_loss(&error);
                shared.abandon(&mut state).await;
                Err(error)
            }
            outcome => outcome,
        };
        let lost = self.check(&state);
        state.writers.leave(*id);
        writes.store(false, Ordering::Release);
        lost.and(committed)?;
        if last && state.source.is_some() {
            let persist = PersistFile {
                inode: shared.inode,
                wait: false,
            };
            state.attr = shared.router.ask_master(persist).await?.attr;
        }
        Ok(state.attr.clone())
    }
}

impl Handle {
    fn open(shared: Arc<Shared>, id: HandleId, writes: bool) -> OpenFile {
        OpenFile {
            handle: Arc::new(Handle {
                shared,
                id,
                writes: AtomicBool::new(writes),
            }),
            seen: None,
        }
    }

    /// # Errors
    /// As [`OpenFile::flush`]: something that was written is lost, by this handle or, where a write failed, by any. Of the
    /// masters, if nobody knows whether the lease is still here.
    async fn ready_to_write(&self, state: &mut State) -> Result<()> {
        state.writers.check(self.id)?;
        state.check()?;
        let session = self.shared.router.session().await?;
        if state.writable && state.session != Some(session) {
            self.shared.lease_ended(state).await;
            state.writers.check(self.id)?;
        }
        // Where the masters may yet hear that the lease is given back, nothing is written under it.
        if state.gives_back_unanswered() {
            self.shared.ask_again(state).await?;
        }
        self.shared.check_lease_of(state).await?;
        if !state.writable {
            self.shared.reopen(state).await?;
        }
        self.writes.store(true, Ordering::Release);
        state.writers.writes(self.id);
        Ok(())
    }

    async fn truncate(&self, size_bytes: u64, keep_privileges: bool) -> Result<Attr> {
        let mut state = self.shared.lock().await;
        state.writers.check(self.id)?;
        let shared = &self.shared;
        let cut = shared
            .truncate_in(&mut state, size_bytes, keep_privileges)
            .await?;
        if state.source.is_some() {
            // Its close waits for the object.
            self.writes.store(true, Ordering::Release);
            state.writers.enter(self.id);
        }
        Ok(cut)
    }
}

/// Bytes of a file that are in blocks.
fn held_bytes(attr: &Attr) -> u64 {
    attr.size_bytes.saturating_sub(attr.hole_bytes)
}

/// As after a write by somebody who may not set them: set-user-id goes, and set-group-id of what the group may execute.
fn without_privileges(mode: u32) -> u32 {
    match mode & 0o010 {
        0 => mode & !0o4000,
        _ => mode & !0o6000,
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(files) = self.files.upgrade() {
            files.forget(self.inode);
        }
        self.router.opens().closed(self.inode, *self.open.get_mut());
    }
}

impl Shared {
    fn new(router: Arc<Router>, layout: FileLayout, writable: bool, files: Weak<Files>) -> Self {
        let mut state = State::new(layout, writable);
        (state.session, state.lapses) = (router.session_now(), router.lapses());
        Shared {
            router,
            inode: state.attr.inode,
            size_bytes: AtomicU64::new(state.attr.size_bytes),
            held_bytes: AtomicU64::new(held_bytes(&state.attr)),
            written_ns: AtomicI64::new(0),
            open: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            lineage: AtomicU64::new(0),
            leased: AtomicBool::new(state.writable),
            version: AtomicU64::new(state.attr.content_version),
            named: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            privileges: AtomicU8::new(CLEARED),
            state: Mutex::new(state),
            files,
        }
    }

    fn size(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Takes over what the masters say. What was written and not committed is forgotten.
    fn adopt(&self, state: &mut State, layout: FileLayout, writable: bool) {
        self.size_bytes.store(layout.attr.size_bytes, Ordering::Release);
        self.held_bytes.store(held_bytes(&layout.attr), Ordering::Release);
        self.written_ns.store(0, Ordering::Release);
        self.version.store(layout.attr.content_version, Ordering::Release);
        if layout.attr.content_version != state.attr.content_version {
            self.lineage.fetch_add(1, Ordering::AcqRel);
        }
        let mut next = State::new(layout, writable);
        next.writers = std::mem::take(&mut state.writers);
        next.session = self.router.session_now();
        next.lapses = self.router.lapses();
        next.stays_failed_as(state);
        *state = next;
        self.leased.store(writable, Ordering::Release);
    }

    /// The state, of which nothing is left that a lost lease has made untrue.
    async fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().await;
        self.let_go_if_lost(&mut state).await;
        state
    }

    /// After a write that failed, the file is read as what was kept of it, once its writer has been told; where the lease was
    /// lost with it, as others made it.
    ///
    /// # Errors
    /// The error of an earlier write that no flush has said yet, or of which the masters do not know what is kept.
    async fn ready_to_read(&self, state: &mut State) -> Result<()> {
        let error = match state.check() {
            Err(error) if !state.kept => error,
            _ if state.outdated => return self.reload(state).await,
            _ => return Ok(()),
        };
        let may_be_lost = matches!(
            error.kind,
            ErrorKind::Stale | ErrorKind::SessionEnded | ErrorKind::Lost
        );
        if state.writable && state.lease_lost.is_none() && may_be_lost {
            // A worker says so, perhaps. The masters know whether that is because of the lease.
            let _ = self.under_lease(state, self.nothing()).await;
        }
        match self.let_go_if_lost(state).await {
            true => self.reload(state).await,
            false => Err(error),
        }
    }

    /// Asks for the layout again where a newer version was named than was looked at. Whoever writes knows best.
    async fn catch_up(&self) -> Result<()> {
        let named = self.named.load(Ordering::Acquire);
        if named <= self.looked_at.load(Ordering::Acquire) || is_planted(Bug::ReadsOldLayouts) {
            return Ok(());
        }
        let mut state = self.lock().await;
        if state.writable {
            // Until the lease goes.
            return Ok(());
        }
        if named > state.attr.content_version {
            let layout = self.layout_now().await?;
            if state.is_replaced_by(&layout) {
                return Err(self.object_changed());
            }
            self.adopt(&mut state, layout, false);
        }
        self.looked_at.fetch_max(named, Ordering::AcqRel);
        Ok(())
    }

    fn object_changed(&self) -> Error {
        Error::new(
            ErrorKind::UfsChanged,
            format!(
                "inode {}: the object behind the file changed while it was open; open it again",
                self.inode
            ),
        )
    }

    /// A change of this client has made the content this version.
    fn changed_to(&self, content_version: u64) {
        self.version.store(content_version, Ordering::Release);
        self.answers_are_of_before(content_version);
    }

    /// What opens on their way are answered may be of before a change, or of before the lease went.
    fn answers_are_of_before(&self, content_version: u64) {
        if let Some(files) = self.files.upgrade() {
            files.changed(self.inode, content_version, self.router.opens());
        }
    }

    /// A commit has cleared what it had to.
    fn privileges_cleared(&self) {
        let _ = self
            .privileges
            .compare_exchange(TO_CLEAR, KEPT, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Asks for the layout, and takes it over.
    async fn reload(&self, state: &mut State) -> Result<()> {
        let layout = self.layout_now().await?;
        self.adopt(state, layout, false);
        Ok(())
    }

    /// The layout as the masters have it.
    async fn layout_now(&self) -> Result<FileLayout> {
        self.router.ask_master(table::again(self.inode)).await
    }

    pub(super) async fn truncate(self: &Arc<Self>, size_bytes: u64, keep_privileges: bool) -> Result<Attr> {
        let mut state = self.lock().await;
        self.truncate_in(&mut state, size_bytes, keep_privileges).await
    }

    async fn truncate_in(
        self: &Arc<Self>,
        state: &mut State,
        size_bytes: u64,
        keep_privileges: bool,
    ) -> Result<Attr> {
        self.commit(state, false, false).await?;
        let call = SetAttr {
            node: Node::Inode(self.inode),
            follow: false,
            change: AttrChange {
                size_bytes: Some(size_bytes),
                keep_privileges,
                ..AttrChange::default()
            },
        };
        match self.router.change(call).await {
            Ok(entry) if state.writable && !state.is_overtaken(&entry.attr) => {
                self.size_bytes.store(size_bytes, Ordering::Release);
                self.held_bytes.store(held_bytes(&entry.attr), Ordering::Release);
                self.changed_to(entry.attr.content_version);
                state.cut(entry.attr);
            }
            Ok(_) => self.reload(state).await?,
            Err(error) => return Err(self.maybe_done(state, error)),
        }
        Ok(state.attr.clone())
    }

    /// Drops whole blocks at the masters, which know everything that was written, and makes holes in the two in which the
    /// range begins and ends.
    async fn punch(self: &Arc<Self>, state: &mut State, range: Range<u64>) -> Result<()> {
        let range = range.start..range.end.min(self.size());
        if range.is_empty() {
            return Ok(());
        }
        let mut cut = None;
        if state.is_hole_of_blocks(&range) {
            let call = PunchHole {
                inode: self.inode,
                offset_bytes: range.start,
                len_bytes: range.end - range.start,
                keep_privileges: self.privileges.load(Ordering::Acquire) == KEPT,
            };
            let layout = match self.under_lease(state, call).await {
                Ok(layout) => layout,
                Err(error) => return Err(self.maybe_done(state, error)),
            };
            self.changed_to(layout.attr.content_version);
            self.held_bytes.store(held_bytes(&layout.attr), Ordering::Release);
            self.privileges_cleared();
            cut = state.punched(&range, layout.attr);
        }
        let cut = cut.map(|(index, len_bytes)| (index, len_bytes..len_bytes));
        for (index, within) in cut.into_iter().chain(state.holes_in_blocks(&range)) {
            self.punch_block(state, index, within).await?;
        }
        state.changes();
        self.written_now();
        self.settle(state, 0).await
    }

    /// The masters may have another content than the one that is known here: they are asked before the next read.
    fn look_before_reading(&self, state: &State) {
        self.named
            .fetch_max(state.attr.content_version + 1, Ordering::AcqRel);
    }

    /// Something was written that the masters do not know of.
    fn written_now(&self) {
        let now_ns = self.router.ports().clock.wall_ns();
        self.written_ns.store(now_ns, Ordering::Release);
    }

    /// An error after which nobody knows whether the masters made a change fails the file: its state here may be wrong.
    /// Where the masters know best, they are asked before the next read.
    fn maybe_done(&self, state: &mut State, error: Error) -> Error {
        if !is_passing(&error) {
            return error;
        }
        self.answers_are_of_before(u64::MAX);
        self.look_before_reading(state);
        if state.writable {
            state.fail(error.clone());
        }
        error
    }
}
