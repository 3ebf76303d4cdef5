//! Has files that were written in mounts written to their objects.
//!
//! Which files need that is in the log (`unexported`), so nothing that was written is forgotten: not when the writer was
//! killed, not when the store refused, not when the leader changed. A file is exported once at a time, by a worker that the
//! effect names; what that says of the object counts for the version of the file that was exported. Tries that fail are
//! repeated, later and later.
//!
//! - `answers`: what becomes of exports whose outcome nobody was told.
//! - `attributes`: those that are written alone.

mod answers;
mod attributes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::Persisted;
use curvine_protocol::mount::{Backlog, EffectInfo, MountRecord, WriteMode};
use curvine_protocol::op::{ExportOutcome, Op, OpReply};
use curvine_protocol::worker::ExportFile;
use curvine_protocol::{
    CallContext, ClientId, EffectId, Error, ErrorKind, FileLayout, InodeId, MountId, Result, WorkerId,
};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::Outcomes;
use crate::crash_points::{Point, crash_point};
use crate::kit::deadlines::leader_waits;
use crate::kit::{Clock, call};
use crate::master::blocks::BlockMap;
use crate::master::contract::{Consensus, NamespaceView, Placement, ProposeOp};
use crate::master::duties::Duty;
use crate::master::duties::kinds::Exported;
use crate::master::fetching::Fetching;
use crate::master::mirror::Mirror;
use crate::master::namespace::effects::{Area, Export, Work};
use crate::master::workers::Workers;

/// Exports of one mount at the same time.
const AT_ONCE: usize = 32;
/// Files of a mount that are looked at in one go.
const PAGE: usize = 1_000;
/// How often it is looked for files that need an export, besides when somebody asks.
const EVERY: Duration = Duration::from_secs(1);
/// Whoever waits for an export hears of a change before it that has failed for so long.
const STUCK_AFTER: Duration = Duration::from_secs(20);
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// For a transfer of a whole file.
const DEADLINE_MS: u32 = 3_600_000;
/// In write-back mode, `close` waits while more files than this wait for their export.
pub const BACKLOG_FILES_MAX: usize = 10_000;
/// The same of their bytes.
pub const BACKLOG_BYTES_MAX: u64 = 16 << 30;
/// Failures that `cv mounts` shows of a mount.
const FAILURES_SHOWN: usize = 5;
/// Files whose last stored version is remembered.
const STORED_MAX: usize = 10_000;

pub struct Exports {
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub consensus: Arc<dyn Consensus>,
    pub mirror: Arc<Mirror>,
    pub blocks: Arc<BlockMap>,
    pub workers: Workers,
    pub fetching: Fetching,
    pub clock: Arc<dyn Clock>,
    pub outcomes: Arc<Outcomes>,
    pub queue: Queue,
    /// What was exported, for who tells workers.
    pub exported: Arc<Exported>,
}

/// What of a file is to be written to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// All of it, and its attributes with it.
    Content,
    /// Its attributes alone.
    Attributes,
}

/// A file that is to be written now.
#[derive(Clone, Copy)]
struct Due {
    inode: InodeId,
    mount: MountId,
    what: What,
}

/// What is soft of the queue.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Somebody waits for a file, or there is something new.
    wake: Notify,
    /// An export has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    running: BTreeMap<InodeId, MountId>,
    failed: HashMap<InodeId, Failed>,
    /// Files that somebody waits for, with how many do. They are exported though they are being written.
    asked: BTreeMap<InodeId, usize>,
    /// The version of each file that was stored last.
    stored: BTreeMap<InodeId, u64>,
    /// How much waits in each mount, as it was counted last.
    backlogs: BTreeMap<MountId, Counted>,
}

/// Files that wait for their export, and when they were counted.
#[derive(Clone, Copy)]
struct Counted {
    files: u64,
    bytes: u64,
    at: Instant,
}

/// Tries that failed.
#[derive(Clone)]
struct Failed {
    /// Grows with each try of this leader.
    tries: u64,
    next: Instant,
    rest: Duration,
    error: Error,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds the queue")
    }
}

/// Somebody who waits for a file's export. Dropped, it waits no more.
struct Asking<'a> {
    queue: &'a Queue,
    inode: InodeId,
}

impl<'a> Asking<'a> {
    fn begin(queue: &'a Queue, inode: InodeId, now: Instant) -> Self {
        let mut state = queue.state();
        *state.asked.entry(inode).or_default() += 1;
        // Whoever asks does not wait for the end of a rest.
        if let Some(failed) = state.failed.get_mut(&inode) {
            (failed.next, failed.rest) = (now, REST_MIN);
        }
        drop(state);
        queue.wake.notify_one();
        Asking { queue, inode }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if let Some(count) = state.asked.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                state.asked.remove(&self.inode);
            }
        }
    }
}

impl Exports {
    /// Returns when a file is stored as it is now, or when the mount's mode does not ask for that.
    ///
    /// # Errors
    /// What the store said to a try that began meanwhile; `UnderWay` if it takes longer than the caller waits.
    pub async fn persist(&self, inode: InodeId, wait: bool, context: &CallContext) -> Result<()> {
        if !self.view.needs_export(inode)? {
            return Ok(());
        }
        let Some((mount, _)) = self.view.mounted(inode)? else {
            return Ok(());
        };
        let Some(mount) = self.view.mount(mount)? else {
            return Ok(());
        };
        let waiting = async {
            match (wait, mount.settings.write_mode) {
                (false, WriteMode::Back) => {
                    self.queue.wake.notify_one();
                    self.room(mount.id).await
                }
                _ => self.stored(inode, context.client).await,
            }
        };
        patiently(context, waiting, || {
            format!("inode {inode} is still being written to {}", mount.uri)
        })
        .await
    }

    /// What failed is tried at once, rested or not: a store may take now what it refused.
    pub fn try_now(&self) {
        let now = self.clock.now();
        for failed in self.queue.state().failed.values_mut() {
            failed.next = now;
            failed.rest = REST_MIN;
        }
        self.queue.wake.notify_one();
    }

    /// Returns when every file at or below an inode is stored as it is now; says how many were not.
    ///
    /// # Errors
    /// As [`Exports::persist`], of the first that failed.
    pub async fn persist_tree(&self, top: InodeId, context: &CallContext) -> Result<Persisted> {
        let Some((mount, key)) = self.view.mounted(top)? else {
            return Ok(Persisted::default());
        };
        let top = Area {
            key: &key,
            tree: true,
        };
        let waiting = self.below(top, |after| self.view.unexported(mount, after, PAGE))?;
        let attributes = self.below(top, |after| self.view.unkept(mount, after, PAGE))?;
        let (files, client) = (waiting.len() as u64, context.client);
        let all = async {
            futures::future::try_join_all(waiting.iter().map(|inode| self.stored(*inode, client))).await?;
            futures::future::try_join_all(attributes.iter().map(|inode| self.kept(*inode))).await?;
            let left = self.below(top, |after| self.view.unexported(mount, after, PAGE))?;
            let left = left.iter().filter(|inode| waiting.contains(inode)).count() as u64;
            Ok(Persisted {
                files: files - left,
                being_written: left,
            })
        };
        patiently(context, all, || {
            format!("{files} files are still being written to their objects")
        })
        .await
    }

    /// The files of an area, out of those that the state gives by pages.
    fn below<T>(
        &self,
        top: Area<'_>,
        page: impl Fn(InodeId) -> Result<Vec<(InodeId, T)>>,
    ) -> Result<Vec<InodeId>> {
        let mut below = Vec::new();
        let mut after = InodeId(0);
        loop {
            let page = page(after)?;
            let Some((last, _)) = page.last() else {
                return Ok(below);
            };
            after = *last;
            for (inode, _) in page {
                if let Ok(Some((_, key))) = self.view.mounted(inode)
                    && top.meets(Area {
                        key: &key,
                        tree: false,
                    })
                {
                    below.push(inode);
                }
            }
        }
    }

    /// Returns when a file's object has its attributes.
    async fn kept(&self, inode: InodeId) -> Result<()> {
        let tries_before = self.tries(inode);
        let _asking = Asking::begin(&self.queue, inode, self.clock.now());
        loop {
            let ended = self.queue.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            // Newer content takes them with it when its writer is done.
            if !self.view.needs_attributes(inode)? || self.view.needs_export(inode)? {
                return Ok(());
            }
            if let Some(error) = self.failed_since(inode, tries_before) {
                return Err(error);
            }
            if !self.consensus.is_leader() {
                return Err(Error::not_leader(None));
            }
            let _ = timeout(EVERY, ended).await;
        }
    }

    /// How often a file's export has failed.
    fn tries(&self, inode: InodeId) -> u64 {
        let state = self.queue.state();
        state.failed.get(&inode).map_or(0, |failed| failed.tries)
    }

    fn failed_since(&self, inode: InodeId, tries_before: u64) -> Option<Error> {
        let state = self.queue.state();
        let failed = state.failed.get(&inode)?;
        (failed.tries > tries_before).then(|| failed.error.clone())
    }

    /// Returns when a file is stored as it is now, or is gone.
    async fn stored(&self, inode: InodeId, client: ClientId) -> Result<()> {
        let Some(wanted) = self.content_version(inode)? else {
            return Ok(());
        };
        let tries_before = self.tries(inode);
        let _asking = Asking::begin(&self.queue, inode, self.clock.now());
        loop {
            let ended = self.queue.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.view.needs_export(inode)? {
                return Ok(());
            }
            // Another client writes it: it is exported when that one closes it.
            if self
                .view
                .lease_holder(inode)?
                .is_some_and(|writer| writer != client)
            {
                return Ok(());
            }
            {
                let state = self.queue.state();
                if state.stored.get(&inode).is_some_and(|stored| *stored >= wanted) {
                    return Ok(());
                }
            }
            if let Some(error) = self.failed_since(inode, tries_before) {
                return Err(error);
            }
            if !self.consensus.is_leader() {
                return Err(Error::not_leader(None));
            }
            let _ = timeout(EVERY, ended).await;
        }
    }

    /// Waits while too much waits in a mount.
    async fn room(&self, mount: MountId) -> Result<()> {
        loop {
            let ended = self.queue.ended.notified();
            let counted = self.queue.state().backlogs.get(&mount).copied();
            let has_room = |counted: Counted| {
                counted.files < BACKLOG_FILES_MAX as u64 && counted.bytes < BACKLOG_BYTES_MAX
            };
            if counted.is_none_or(has_room) {
                return Ok(());
            }
            if !self.consensus.is_leader() {
                return Err(Error::not_leader(None));
            }
            let _ = timeout(EVERY, ended).await;
        }
    }

    /// What of a mount its store has not got yet, and why.
    ///
    /// # Errors
    /// Those of reading the state.
    pub fn backlog(&self, mount: MountId) -> Result<Backlog> {
        let mut backlog = Backlog::default();
        let mut after = InodeId(0);
        loop {
            let page = self.view.unexported(mount, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (inode, since_ns) in page {
                backlog.bytes += self.view.attr(inode).map_or(0, |attr| attr.size_bytes);
                self.count(&mut backlog, inode, since_ns);
            }
        }
        after = InodeId(0);
        loop {
            let page = self.view.unkept(mount, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (inode, unkept) in page {
                if !self.view.needs_export(inode).unwrap_or(true) {
                    self.count(&mut backlog, inode, unkept.changed_ns);
                }
            }
        }
        for (id, record) in self.view.effects()? {
            if record.mount == mount {
                let progress = self.outcomes.progress.of(id);
                backlog.effects.push(EffectInfo {
                    id,
                    what: record.what().to_owned(),
                    key: record.key,
                    to: record.to,
                    since_ns: record.since_ns,
                    done: progress.done,
                    failure: progress.failure,
                });
            }
        }
        Ok(backlog)
    }

    /// Adds a file that waits.
    fn count(&self, backlog: &mut Backlog, inode: InodeId, since_ns: i64) {
        backlog.files += 1;
        backlog.oldest_ns = match backlog.oldest_ns {
            0 => since_ns,
            oldest_ns => oldest_ns.min(since_ns),
        };
        let failed = self.queue.state().failed.get(&inode).cloned();
        if let Some(failed) = failed.filter(|_| backlog.failures.len() < FAILURES_SHOWN)
            && let Ok(Some((_, key))) = self.view.mounted(inode)
        {
            backlog.failures.push((key, failed.error.message));
        }
    }

    /// Files that are to be written now.
    fn due_now(&self) -> Result<Vec<Due>> {
        let now = self.clock.now();
        let mut due = Vec::new();
        let mounts = self.view.mounts()?;
        for mount in mounts.iter().filter(|mount| mount.settings.writable) {
            self.due_of(mount, now, &mut due)?;
            self.attributes_due(mount, now, &mut due)?;
        }
        let is_mounted = |id: &MountId| mounts.iter().any(|mount| mount.id == *id);
        self.queue.state().backlogs.retain(|id, _| is_mounted(id));
        Ok(due)
    }

    /// Whether somebody waits for a file, and whether it may be tried now.
    fn state_of(&self, inode: InodeId, now: Instant) -> (bool, bool) {
        let state = self.queue.state();
        let rests = state.failed.get(&inode).is_some_and(|failed| failed.next > now);
        (
            state.asked.contains_key(&inode),
            !rests && !state.running.contains_key(&inode),
        )
    }

    fn due_of(&self, mount: &MountRecord, now: Instant, due: &mut Vec<Due>) -> Result<()> {
        // All of them are counted now and then. In between it is enough to find as many as there is room for.
        let (mut room, is_counting) = {
            let state = self.queue.state();
            let running = state.running.values().filter(|of| **of == mount.id).count();
            let counted = state.backlogs.get(&mount.id);
            let is_fresh = counted.is_some_and(|counted| now.duration_since(counted.at) < EVERY);
            (AT_ONCE.saturating_sub(running), !is_fresh)
        };
        let (mut after, mut files, mut bytes) = (InodeId(0), 0, 0);
        loop {
            let page = self.view.unexported(mount.id, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (inode, _) in page {
                if room == 0 && !is_counting {
                    return Ok(());
                }
                let Ok(attr) = self.view.attr(inode) else { continue };
                files += 1;
                bytes += attr.size_bytes;
                let (is_asked, is_free) = self.state_of(inode, now);
                if room > 0 && is_free && (is_asked || self.view.lease_holder(inode)?.is_none()) {
                    due.push(Due {
                        inode,
                        mount: mount.id,
                        what: What::Content,
                    });
                    room -= 1;
                }
            }
        }
        let counted = Counted {
            files,
            bytes,
            at: now,
        };
        if is_counting {
            self.queue.state().backlogs.insert(mount.id, counted);
        }
        Ok(())
    }

    /// Exports one file, or its attributes, once, and notes what came of it.
    async fn export(&self, Due { inode, what, .. }: Due) -> InodeId {
        let outcome = match what {
            What::Content => self.try_export(inode).await,
            What::Attributes => self.try_attributes(inode).await,
        };
        let mut state = self.queue.state();
        match outcome {
            Ok(Some(stored)) => {
                if what == What::Content {
                    self.exported.note(inode, self.clock.now());
                }
                state.failed.remove(&inode);
                if state.stored.len() >= STORED_MAX {
                    state.stored.pop_first();
                }
                state.stored.insert(inode, stored);
            }
            // Something else is in the way, or it changed meanwhile.
            Ok(None) => {}
            Err(error) if error.kind == ErrorKind::Stale => {}
            Err(error) => {
                drop(state);
                self.note_failure(inode, &error);
                return inode;
            }
        }
        drop(state);
        self.queue.ended.notify_waiters();
        inode
    }

    fn note_failure(&self, inode: InodeId, error: &Error) {
        let mut state = self.queue.state();
        let before = state.failed.get(&inode).cloned();
        // What is in the way may go any moment, and the store is not asked.
        let rest_max = match error.kind {
            ErrorKind::Busy => REST_MIN * 4,
            _ => REST_MAX,
        };
        let rest = before
            .as_ref()
            .map_or(REST_MIN, |failed| (failed.rest * 2).min(rest_max));
        if before.is_none() {
            tracing::warn!(%inode, %error, "a file is not exported; trying again");
        }
        let failed = Failed {
            tries: before.map_or(0, |failed| failed.tries) + 1,
            next: self.clock.now() + rest,
            rest,
            error: error.clone(),
        };
        state.failed.insert(inode, failed);
        drop(state);
        self.queue.ended.notify_waiters();
    }

    /// The version of the file that was stored; none if it has to be tried again soon.
    async fn try_export(&self, inode: InodeId) -> Result<Option<u64>> {
        let mut layout = self.view.layout(inode)?;
        self.blocks.locate(&mut layout);
        let worker = self.worker_for(&layout)?;
        let begun = self.propose.propose_op(Op::BeginExport { inode, worker }).await;
        let effect = match begun {
            Ok(OpReply::Noted(effect)) => effect,
            Ok(other) => return Err(Error::internal(format!("the reply to BeginExport is {other:?}"))),
            Err(error) if matches!(error.kind, ErrorKind::UnderWay | ErrorKind::Stale) => {
                return self.wait_for_others(&error).await;
            }
            Err(error) => return Err(error),
        };
        crash_point(Point::ExportBegun);
        let outcome = self.carry_out(effect, worker).await;
        crash_point(Point::ExportAnswered);
        let (ended, stored) = match outcome {
            Ok((ended, content_version)) => {
                let is_stored = matches!(ended, ExportOutcome::Stored(_));
                (ended, Ok(is_stored.then_some(content_version)))
            }
            // What it read is not the file any more, so what failed is no failure of the file.
            Err(error) if self.content_version(inode)? != Some(layout.attr.content_version) => {
                tracing::debug!(%inode, %error, "a file has changed or gone while it was exported");
                (ExportOutcome::Failed, Ok(None))
            }
            Err(error) => (ExportOutcome::Failed, Err(error)),
        };
        let end = Op::EndExport {
            effect,
            outcome: ended,
        };
        self.propose.propose_op(end).await?;
        crash_point(Point::ExportEnded);
        stored
    }

    /// Something else is to be done first. It is an error if that has failed for long.
    async fn wait_for_others(&self, refused: &Error) -> Result<Option<u64>> {
        let (effects, now) = (self.view.effects()?, self.clock.now());
        match self
            .outcomes
            .stuck_in_the_way(refused, &effects, STUCK_AFTER, now)
        {
            Some(stuck) => Err(stuck),
            None => {
                self.outcomes.change().await;
                Ok(None)
            }
        }
    }

    async fn carry_out(&self, effect: EffectId, worker: WorkerId) -> Result<(ExportOutcome, u64)> {
        let Some(record) = self.view.effect(effect)? else {
            return Ok((ExportOutcome::Failed, 0));
        };
        let Work::Export(export) = &record.work else {
            return Err(Error::internal(format!("effect {effect} is no export")));
        };
        // What is to stay of the object must be here before it is replaced.
        let kept = self.fetching.keep(export.inode, effect).await;
        kept.map_err(|error| rest_is_lost(&record.key, error))?;
        let mut layout = self.view.layout(export.inode)?;
        if layout.attr.content_version != export.content_version {
            return Ok((ExportOutcome::Failed, 0));
        }
        self.blocks.locate(&mut layout);
        let port = self.workers.port(worker).ok_or_else(|| no_worker(&record.key))?;
        let call_of = ExportFile {
            inode: export.inode,
            mount: record.mount,
            key: record.key.clone(),
            size_bytes: layout.attr.size_bytes,
            layout,
            effect,
            replaces: export.replaces.clone(),
            mark: self.mark(export)?,
            attributes: self.attributes(record.mount, export.inode)?,
        };
        let long = CallContext {
            deadline_ms: DEADLINE_MS,
            ..CallContext::default()
        };
        match call(&*port, call_of, long).await {
            Ok(exported) => Ok((ExportOutcome::Stored(exported.version), export.content_version)),
            Err(error) if error.kind == ErrorKind::UfsChanged => {
                let found = self.mirror.store(record.mount).await?.stat(&record.key).await?;
                tracing::warn!(
                    key = record.key,
                    "an object was changed by somebody else and here: both are kept"
                );
                Ok((ExportOutcome::Conflict(found), export.content_version))
            }
            Err(error) => match self.written_all_the_same(effect, &record, export, &error).await? {
                Some(version) => Ok((ExportOutcome::Stored(version), export.content_version)),
                None => Err(error),
            },
        }
    }

    /// Of a file as it is now; none if it is gone.
    fn content_version(&self, inode: InodeId) -> Result<Option<u64>> {
        match self.view.attr(inode) {
            Ok(attr) => Ok(Some(attr.content_version)),
            Err(error) if error.kind == ErrorKind::Stale => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names a content of a file, in all clusters.
    fn mark(&self, export: &Export) -> Result<String> {
        Ok(format!(
            "{}-{}.{}",
            self.view.cluster_id()?,
            export.inode,
            export.content_version
        ))
    }

    /// The live worker that holds most of a file, or any.
    fn worker_for(&self, layout: &FileLayout) -> Result<WorkerId> {
        let mut held: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for located in &layout.blocks {
            for worker in &located.workers {
                *held.entry(*worker).or_default() += located.block.len_bytes;
            }
        }
        let now = self.blocks.now();
        let live: BTreeSet<WorkerId> = self
            .blocks
            .cluster()
            .roster
            .addresses(now)
            .iter()
            .map(|worker| worker.id)
            .collect();
        let most = held
            .into_iter()
            .filter(|(worker, _)| live.contains(worker))
            .max_by_key(|(_, bytes)| *bytes);
        most.map(|(worker, _)| worker)
            .or_else(|| live.first().copied())
            .ok_or_else(|| no_worker(&format!("inode {}", layout.attr.inode)))
    }

    /// Exports that a leader before this one had begun: whoever carries them out is refused when it has read the file.
    async fn end_abandoned(&self, mine: &HashSet<InodeId>) -> Result<()> {
        for (effect, record) in self.view.effects()? {
            if record.written().is_some_and(|inode| !mine.contains(&inode)) {
                let outcome = ExportOutcome::Failed;
                self.propose.propose_op(Op::EndExport { effect, outcome }).await?;
            }
        }
        Ok(())
    }
}

/// As long as a caller waits.
///
/// # Errors
/// `UnderWay`, saying what is, when that is over.
async fn patiently<T>(
    context: &CallContext,
    waiting: impl Future<Output = Result<T>>,
    what: impl FnOnce() -> String,
) -> Result<T> {
    timeout(leader_waits(context.deadline_ms), waiting)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::UnderWay, what())))
}

/// Why a file cannot be exported of which a part was written here, and the rest not fetched: if its object is another one by
/// now, or gone, nobody has that rest any more.
fn rest_is_lost(key: &str, error: Error) -> Error {
    match error.kind {
        ErrorKind::UfsChanged | ErrorKind::NotFound => Error::new(
            ErrorKind::UfsChanged,
            format!(
                "`{key}` was written here in part, and its object was changed or deleted by somebody else before the rest \
                 was fetched: save what can be read of it; then delete it, which leaves their object, or write all of it \
                 anew, which keeps both"
            ),
        ),
        _ => error,
    }
}

fn no_worker(what: &str) -> Error {
    Error::new(
        ErrorKind::BlockUnavailable,
        format!("{what}: no live worker can write it to its under file system; see `cv report`"),
    )
}

#[async_trait]
impl Duty for Exports {
    fn name(&self) -> &'static str {
        "exports"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        *self.queue.state() = State::default();
        self.queue.wake.notify_one();
        Ok(())
    }

    async fn due(&self) {
        tokio::select! {
            () = self.queue.wake.notified() => {}
            () = sleep(EVERY) => {}
        }
    }

    async fn tick(&self) -> Result<()> {
        let (mut mine, mut running) = (HashSet::new(), FuturesUnordered::new());
        self.end_abandoned(&mine).await?;
        loop {
            for due in self.due_now()? {
                self.queue.state().running.insert(due.inode, due.mount);
                mine.insert(due.inode);
                running.push(self.export(due));
            }
            if running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(inode) = running.next() => {
                    mine.remove(&inode);
                    self.queue.state().running.remove(&inode);
                }
                () = self.queue.wake.notified() => {}
                () = sleep(EVERY) => {}
            }
        }
    }

    fn end(&self) {
        *self.queue.state() = State::default();
        self.queue.ended.notify_waiters();
    }

    fn status(&self) -> String {
        let state = self.queue.state();
        let (files, bytes) = state.backlogs.values().fold((0, 0), |(files, bytes), one| {
            (files + one.files, bytes + one.bytes)
        });
        match files {
            0 => "nothing waiting".to_owned(),
            _ => format!(
                "{files} files waiting ({bytes} bytes), {} being written, {} failed and tried again",
                state.running.len(),
                state.failed.len()
            ),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_a_file_does_not_wait_for_the_end_of_its_rest() {
        let (queue, now, file) = (Queue::default(), Instant::now(), InodeId(7));
        let failed = Failed {
            tries: 9,
            next: now + REST_MAX,
            rest: REST_MAX,
            error: Error::internal("refused"),
        };
        queue.state().failed.insert(file, failed);
        let _asking = Asking::begin(&queue, file, now);
        let state = queue.state();
        let failed = &state.failed[&file];
        assert_eq!((failed.tries, failed.next, failed.rest), (9, now, REST_MIN));
    }

    #[test]
    fn a_file_whose_rest_nobody_has_any_more_says_what_to_do() {
        let kinds = |kind| rest_is_lost("a/b", Error::new(kind, "said by a worker")).kind;
        assert_eq!(kinds(ErrorKind::UfsChanged), ErrorKind::UfsChanged);
        assert_eq!(kinds(ErrorKind::NotFound), ErrorKind::UfsChanged);
        let passing = Error::new(ErrorKind::BlockUnavailable, "no worker");
        assert_eq!(rest_is_lost("a/b", passing.clone()), passing);
    }
}
