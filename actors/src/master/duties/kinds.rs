//! Tells workers which blocks of files that were exported have become cached.
//!
//! What was written is kept by the workers that have it, until its object has it as well. Then it may go, and be fetched
//! again. Which files to look at comes from two sides: an export of this leader has ended, or a worker reports in full, and
//! keeps blocks of files that have objects. So a word that is lost, and whatever a leader before this one did not say, is
//! said after the next full report.
//!
//! Nothing depends on it being said soon, or at all: a block that is kept too long takes room. It must not be said too late.
//! Two things keep that from doing harm, see [`MarkBlocks`](curvine_protocol::worker::MarkBlocks): it is for one generation,
//! and whoever writes later uses a greater one; and it has the number of the last effect that had begun before it was looked
//! for effects on the file. One that begins later and needs the blocks to be kept has a greater number, and workers heed no
//! lower one after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::worker::MarkedBlock;
use curvine_protocol::{EffectId, ErrorKind, InodeId, Result, WorkerId};
use futures::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Duty;
use crate::kit::Clock;
use crate::master::contract::{NamespaceView, Placement};
use crate::master::fetching::Fetching;
use crate::master::namespace::effects::{Area, EffectRecord};
use crate::master::pinning::Pinning;

/// Files that wait to be looked at. More are looked at after the next full report.
const FILES_MAX: usize = 100_000;
/// Files that are looked at in one go.
const BATCH: usize = 256;
/// When a file is looked at again that somebody writes, or a worker again that does not answer, or does not do it.
const REST: Duration = Duration::from_secs(5);
/// How often a worker is told that does not answer. When it is there again, it says what it keeps.
const TRIES_MAX: u32 = 10;
/// How often the rest is doubled for a worker that does not do what it is told.
const DOUBLED_MAX: u32 = 6;

/// Files of which workers are to be told something: that they may keep what is cached, or what is pinned.
#[derive(Default)]
pub struct Exported {
    files: Mutex<BTreeMap<InodeId, Waiting>>,
    came: Notify,
}

/// When a file is looked at, and how often a worker did not answer, or did not do it.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    next: Instant,
    tries: u32,
}

impl Waiting {
    /// After a worker was told that keeps something on: it has it open as yet, or its answer is of another state of it.
    fn after_refusal(self, now: Instant) -> Waiting {
        Waiting {
            next: now + REST * 2u32.pow(self.tries.min(DOUBLED_MAX)),
            tries: self.tries.saturating_add(1),
        }
    }
}

impl Exported {
    fn files(&self) -> MutexGuard<'_, BTreeMap<InodeId, Waiting>> {
        self.files.lock().expect("nobody panics while it holds files")
    }

    /// A file has an object, and a worker keeps some of it. False if too many wait.
    pub fn note(&self, inode: InodeId, now: Instant) -> bool {
        let is_noted = self.put(inode, Waiting { next: now, tries: 0 });
        self.came.notify_one();
        is_noted
    }

    fn put(&self, inode: InodeId, waiting: Waiting) -> bool {
        let mut files = self.files();
        let has_room = files.len() < FILES_MAX || files.contains_key(&inode);
        if has_room {
            files.entry(inode).or_insert(waiting);
        }
        has_room
    }

    /// One that was taken is to be looked at again, after a while.
    pub(super) fn again(&self, inode: InodeId, now: Instant) {
        self.put(
            inode,
            Waiting {
                next: now + REST,
                tries: 0,
            },
        );
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.files().len()
    }

    pub(super) fn clear(&self) {
        self.files().clear();
    }

    /// Resolves when something was noted, or may be due again.
    pub(super) async fn some_due(&self) {
        tokio::select! {
            () = self.came.notified() => {}
            () = tokio::time::sleep(REST) => {}
        }
    }

    /// Takes some that are due.
    pub(super) fn take(&self, now: Instant) -> Vec<(InodeId, Waiting)> {
        let mut files = self.files();
        let due = files.iter().filter(|(_, waiting)| waiting.next <= now);
        let due: Vec<_> = due
            .take(BATCH)
            .map(|(inode, waiting)| (*inode, *waiting))
            .collect();
        for (inode, _) in &due {
            files.remove(inode);
        }
        due
    }
}

pub struct Kinds {
    view: Arc<dyn NamespaceView>,
    fetching: Fetching,
    clock: Arc<dyn Clock>,
    exported: Arc<Exported>,
    pinning: Pinning,
}

/// What is to be done about a file.
enum Plan {
    Nothing,
    Later,
    Mark(Vec<(WorkerId, MarkedBlock)>),
}

impl Kinds {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        fetching: Fetching,
        clock: Arc<dyn Clock>,
        exported: Arc<Exported>,
        pinning: Pinning,
    ) -> Self {
        Kinds {
            view,
            fetching,
            clock,
            exported,
            pinning,
        }
    }

    /// Before anything of a file may go, its workers know that it is pinned. Those of which some do not.
    async fn pin(&self, due: &[(InodeId, Waiting)]) -> Result<BTreeSet<InodeId>> {
        if !self.pinning.any()? {
            return Ok(BTreeSet::new());
        }
        let files: Vec<InodeId> = due.iter().map(|(inode, _)| *inode).collect();
        let untold = self.pinning.tell(&files, true).await?;
        // What is too much is cached like anything else.
        let untold = untold
            .into_iter()
            .filter(|(_, error)| error.kind != ErrorKind::NoSpace);
        Ok(untold.map(|(inode, _)| inode).collect())
    }

    fn plan(&self, inode: InodeId, effects: &[(EffectId, EffectRecord)]) -> Result<Plan> {
        let mut layout = match self.view.layout(inode) {
            Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => {
                return Ok(Plan::Nothing);
            }
            layout => layout?,
        };
        let (Some(source), Some((mount, key))) = (layout.source.clone(), self.view.mounted(inode)?) else {
            return Ok(Plan::Nothing);
        };
        let area = Area {
            key: &key,
            tree: false,
        };
        let is_meant = |effect: &EffectRecord| effect.written() == Some(inode) || effect.meets(mount, area);
        if self.view.lease_holder(inode)?.is_some() || effects.iter().any(|(_, effect)| is_meant(effect)) {
            return Ok(Plan::Later);
        }
        self.fetching.blocks.locate(&mut layout);
        let cached = layout.blocks.iter().filter(|located| source.has(&located.block));
        let holders = cached.flat_map(|located| {
            let marked = MarkedBlock {
                block: located.block.id,
                generation: located.block.generation,
                mount: Some(mount),
            };
            located.workers.iter().map(move |worker| (*worker, marked))
        });
        Ok(Plan::Mark(holders.collect()))
    }
}

#[async_trait]
impl Duty for Kinds {
    fn name(&self) -> &'static str {
        "kinds"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        self.exported.clear();
        Ok(())
    }

    async fn due(&self) {
        self.exported.some_due().await;
    }

    async fn tick(&self) -> Result<()> {
        loop {
            let now = self.clock.now();
            let due = self.exported.take(now);
            if due.is_empty() {
                return Ok(());
            }
            let unpinned = match self.pin(&due).await {
                Ok(unpinned) => unpinned,
                Err(error) => {
                    due.iter().for_each(|(inode, _)| self.exported.again(*inode, now));
                    return Err(error);
                }
            };
            // Before it is looked for effects: one that begins from now on has a greater number.
            let number = self.view.last_effect()?;
            let effects = self.view.effects()?;
            let later = |waiting: Waiting| Waiting {
                next: now + REST,
                ..waiting
            };
            let mut orders: BTreeMap<WorkerId, Vec<(InodeId, Waiting, MarkedBlock)>> = BTreeMap::new();
            for (inode, waiting) in due {
                if unpinned.contains(&inode) {
                    self.exported.put(inode, later(waiting));
                    continue;
                }
                match self.plan(inode, &effects) {
                    Ok(Plan::Nothing) => {}
                    Ok(Plan::Later) => {
                        self.exported.put(inode, later(waiting));
                    }
                    // It keeps no other from it.
                    Err(error) => {
                        tracing::warn!(%inode, %error, "what of a file is cached cannot be said now");
                        self.exported.put(inode, waiting.after_refusal(now));
                    }
                    Ok(Plan::Mark(holders)) => {
                        for (worker, marked) in holders {
                            orders.entry(worker).or_default().push((inode, waiting, marked));
                        }
                    }
                }
            }
            let told = orders.into_iter().map(|(worker, orders)| async move {
                let blocks: Vec<MarkedBlock> = orders.iter().map(|(_, _, marked)| *marked).collect();
                let outcome = self.fetching.mark(worker, &blocks, true, number.0).await;
                (worker, orders, outcome)
            });
            for (worker, orders, outcome) in join_all(told).await {
                let error = match outcome {
                    Ok(marked) => {
                        let refused = orders.iter().zip(marked).filter(|(_, marked)| !marked);
                        for ((inode, waiting, _), _) in refused {
                            self.exported.put(*inode, waiting.after_refusal(now));
                        }
                        continue;
                    }
                    Err(error) => error,
                };
                tracing::debug!(%worker, %error, "a worker was not told what is cached by now");
                for (inode, waiting, _) in orders {
                    let tries = waiting.tries + 1;
                    if tries < TRIES_MAX {
                        self.exported.put(
                            inode,
                            Waiting {
                                tries,
                                ..later(waiting)
                            },
                        );
                    }
                }
            }
        }
    }

    fn end(&self) {
        self.exported.clear();
    }

    fn status(&self) -> String {
        match self.exported.len() {
            0 => "nothing to tell".to_owned(),
            files => format!("{files} files whose exported blocks are to be cached"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_when_they_are_due_and_no_more_are_remembered_than_the_limit() {
        let (exported, now) = (Exported::default(), Instant::now());
        for inode in 0..FILES_MAX as u64 + 10 {
            exported.note(InodeId(inode), now);
        }
        assert_eq!(exported.files().len(), FILES_MAX);
        assert_eq!(exported.take(now).len(), BATCH);
        exported.files().clear();
        let waiting = Waiting {
            next: now + REST,
            tries: 1,
        };
        exported.put(InodeId(1), waiting);
        assert!(exported.take(now).is_empty());
        assert_eq!(exported.take(now + REST).len(), 1);
    }

    #[test]
    fn a_worker_that_does_not_do_it_is_told_again_after_longer_and_longer_rests() {
        let now = Instant::now();
        let mut waiting = Waiting { next: now, tries: 0 };
        let mut rests = Vec::new();
        for _ in 0..10 {
            waiting = waiting.after_refusal(now);
            rests.push((waiting.next - now).as_secs());
        }
        assert_eq!(rests[..4], [5, 10, 20, 40]);
        assert_eq!(rests[8..], [320, 320]);
    }
}
