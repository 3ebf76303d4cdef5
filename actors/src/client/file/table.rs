//! The files that a client has open, by inode.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use curvine_protocol::master::{OpenFile as OpenFileCall, OpenForWrite};
use curvine_protocol::{Error, ErrorKind, FileLayout, InodeId, Mutation, Node, Result};
use tokio::sync::Notify;

use super::writers::HandleId;
use super::{Handle, OpenFile, Router, Shared};
use crate::client::route::is_passing;
use crate::client::route::opens::{Opening, Opens};
use crate::kit::{Endpoint, MasterPort};
use crate::planted::{Bug, is_planted};

/// The masters give no lease on without its holder's word before it was silent for longer.
const TRUSTED: Duration = Duration::from_secs(10);
/// How often what was answered before a change of this client is asked for again.
const ASKED_ANEW: u32 = 5;
/// Files that this client changed while it opened others, remembered one by one; beyond, every open of then asks again.
const CHANGED_MAX: usize = 1_024;

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
    open: Mutex<BTreeMap<InodeId, Weak<Shared>>>,
    changed: Mutex<Changed>,
    /// Told whenever a lease is asked for, and at the end.
    leased: Arc<Notify>,
    /// Leases that are being asked for: the masters may have given one before this client knows.
    asked: AtomicUsize,
    /// Nobody knows what became of a lease that was asked for. It may come to be held here at any time.
    unsure: AtomicBool,
    /// How often a lease was given back that nothing here knew of: the answer that gave it is on its way, perhaps.
    unknown_given_back: AtomicU64,
    /// Leases that are being given back which nothing here knew of. A try of that may come late, and end a newer one.
    giving_back: Mutex<BTreeMap<InodeId, usize>>,
    given_back: Notify,
}

/// A lease that is being given back.
pub struct GivingBack<'f> {
    files: &'f Files,
    inode: InodeId,
}

impl Drop for GivingBack<'_> {
    fn drop(&mut self) {
        let mut giving = self.files.giving_back();
        if let Some(count) = giving.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                giving.remove(&self.inode);
            }
        }
        drop(giving);
        self.files.given_back.notify_waiters();
    }
}

/// What this client changed while opens were on their way. Their answers may be of before.
#[derive(Default)]
struct Changed {
    files: BTreeMap<InodeId, Change>,
    /// Up to this open, there were too many changes.
    unsure_until: u64,
}

#[derive(Default)]
struct Change {
    content_version: u64,
    /// The last open that was begun before.
    until: u64,
}

impl Changed {
    fn add(&mut self, inode: InodeId, content_version: u64, opens: &Opens) {
        let Some((first, until)) = opens.on_their_way() else {
            self.files.clear();
            return;
        };
        self.files.retain(|_, change| change.until >= first);
        if self.files.len() >= CHANGED_MAX {
            self.files.clear();
            self.unsure_until = until;
            return;
        }
        let change = self.files.entry(inode).or_default();
        change.content_version = change.content_version.max(content_version);
        change.until = until;
    }

    /// Whether what an open was answered may be of before a change. The lease may have gone with it.
    fn is_of_before(&self, layout: &FileLayout, writes: bool, open: u64) -> bool {
        let change = self.files.get(&layout.attr.inode);
        let change = change.filter(|change| open <= change.until);
        open <= self.unsure_until
            || change.is_some_and(|change| writes || layout.attr.content_version < change.content_version)
    }
}

/// A lease that is being asked for.
struct Asking<'f> {
    files: &'f Files,
    is_known: bool,
}

impl<'f> Asking<'f> {
    fn begin(files: &'f Files) -> Self {
        files.asked.fetch_add(1, Ordering::AcqRel);
        files.leased.notify_one();
        Asking {
            files,
            is_known: false,
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            self.files.unsure.store(true, Ordering::Release);
        }
        self.files.asked.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.leased.notify_one();
    }
}

impl Files {
    fn open(&self) -> MutexGuard<'_, BTreeMap<InodeId, Weak<Shared>>> {
        self.open.lock().expect("nobody panics while holding this")
    }

    /// This client has made a change of a file, or gave its lease back, and this is its content now.
    pub(super) fn changed(&self, inode: InodeId, content_version: u64, opens: &Opens) {
        let mut changed = self.changed.lock().expect("nobody panics while holding this");
        changed.add(inode, content_version, opens);
    }

    /// As [`Files::changed`], by a change that no handle on the file has made: those that there are ask for it again.
    pub fn named(&self, inode: InodeId, content_version: u64, opens: &Opens) {
        self.changed(inode, content_version, opens);
        if let Some(shared) = self.find(inode) {
            shared.named.fetch_max(content_version, Ordering::AcqRel);
        }
    }

    fn is_of_before(&self, layout: &FileLayout, writes: bool, open: u64) -> bool {
        let changed = self.changed.lock().expect("nobody panics while holding this");
        changed.is_of_before(layout, writes, open) && !is_planted(Bug::EntersOldLayouts)
    }

    /// Told when there may be a lease.
    pub fn leased(&self) -> Arc<Notify> {
        self.leased.clone()
    }

    /// Whether this client may hold a lease, known to it or not.
    pub fn any_leased(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
            || self.unsure.load(Ordering::Acquire)
            || !self.leased_files().is_empty()
    }

    /// The files of which this client may hold the lease.
    pub fn leased_files(&self) -> Vec<Arc<Shared>> {
        let mut all: Vec<_> = self.open().values().filter_map(Weak::upgrade).collect();
        all.retain(|shared| shared.may_be_leased());
        all
    }

    /// A lease is about to be given back that nothing here has, for as long as this is kept.
    pub fn gives_back_unknown(&self, inode: InodeId, opens: &Opens) -> GivingBack<'_> {
        self.unknown_given_back.fetch_add(1, Ordering::AcqRel);
        *self.giving_back().entry(inode).or_default() += 1;
        if !is_planted(Bug::BelievesOldLeases) {
            // Whoever opens it may have the answer that gave it already.
            self.changed(inode, u64::MAX, opens);
        }
        GivingBack { files: self, inode }
    }

    fn giving_back(&self) -> MutexGuard<'_, BTreeMap<InodeId, usize>> {
        self.giving_back.lock().expect("nobody panics while holding this")
    }

    /// Waits while a file's lease is being given back. Whether it was.
    async fn until_given_back(&self, inode: InodeId) -> bool {
        let mut waited = false;
        loop {
            let ended = self.given_back.notified();
            if !self.giving_back().contains_key(&inode) || is_planted(Bug::BelievesOldLeases) {
                return waited;
            }
            waited = true;
            ended.await;
        }
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
        // Who has the lease and does not know it hears that others want it.
        let mut asking = Asking::begin(self);
        let outcome = self.lease_that_stays(router, call).await;
        asking.is_known = !outcome.as_ref().is_err_and(is_passing);
        outcome
    }

    async fn lease_that_stays<C: Mutation<Reply = FileLayout>>(
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
            let is_of_now;
            (layout, is_of_now) = self
                .lease_of_now::<OpenForWrite>(router, again_for_write(inode))
                .await?;
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
        let is_given_back = self.until_given_back(layout.attr.inode).await;
        let is_had = !is_given_back && given_back == self.unknown_given_back.load(Ordering::Acquire);
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

    /// A handle on a file of which the masters said this when it was opened. If that was before a change of this client, they
    /// are asked again.
    ///
    /// # Errors
    /// Of the masters; as [`Files::get_lease`].
    pub async fn enter(
        self: &Arc<Self>,
        router: &Arc<Router>,
        layout: FileLayout,
        opened: Opened,
        opening: &Opening<'_>,
    ) -> Result<OpenFile> {
        let inode = layout.attr.inode;
        let writes = opened != Opened::ForReading;
        let (mut layout, mut number) = (layout, opening.number);
        // On its way until its answer is in the table.
        let mut _anew;
        let mut times = 0;
        let (shared, layout) = loop {
            {
                let mut open = self.open();
                if let Some(shared) = open.get(&inode).and_then(Weak::upgrade) {
                    break (shared, Some(layout));
                }
                if !self.is_of_before(&layout, writes, number) {
                    let shared = Arc::new(Shared::new(router.clone(), layout, writes, Arc::downgrade(self)));
                    open.insert(inode, Arc::downgrade(&shared));
                    break (shared, None);
                }
            }
            if times == ASKED_ANEW {
                return Err(Error::new(
                    ErrorKind::Stale,
                    format!("inode {inode}: it was changed here as often as it was opened; open it again"),
                ));
            }
            times += 1;
            let opening = router.opens().begin();
            number = opening.number;
            _anew = opening;
            layout = match writes {
                true => self.get_lease(router, again_for_write(inode)).await?,
                false => router.ask_master(again(inode)).await?,
            };
        };
        shared.open.fetch_max(opening.number, Ordering::AcqRel);
        let id = HandleId(shared.handles.fetch_add(1, Ordering::AcqRel));
        if writes || layout.is_some() {
            let mut state = shared.lock().await;
            match layout {
                Some(layout)
                    if writes
                        && (!state.writable || opened == Opened::Truncated)
                        && self.is_of_before(&layout, writes, number) =>
                {
                    shared.reopen(&mut state).await?;
                }
                // While this client has the lease, nobody knows the file better than its state here.
                Some(layout) if !state.writable || opened == Opened::Truncated => {
                    let newer = layout.attr.content_version >= state.attr.content_version;
                    if newer || writes {
                        shared.adopt(&mut state, layout, writes);
                    }
                }
                Some(layout) if writes && layout.attr.content_version > state.attr.content_version => {
                    shared.overtaken(&mut state, layout);
                }
                Some(layout) if layout.attr.content_version > state.attr.content_version => {
                    shared.doubt_lease(&mut state, &layout.attr).await?;
                }
                _ => {}
            }
            if writes {
                state.writers.enter(id);
            }
        }
        if writes {
            self.got_lease();
        }
        Ok(Handle::open(shared, id, writes))
    }
}

/// The question for a file that is known already, and is open under a number of before.
pub(super) fn again(inode: InodeId) -> OpenFileCall {
    OpenFileCall {
        node: Node::Inode(inode),
        follow: false,
        open: 0,
    }
}

/// As [`again`], for the lease.
pub(super) fn again_for_write(inode: InodeId) -> OpenForWrite {
    OpenForWrite {
        node: Node::Inode(inode),
        follow: false,
        truncate: false,
        open: 0,
        named: false,
    }
}
