//! Loads one file: by the workers that should have its blocks, which say as they go how much has arrived.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlocksLoaded, LoadBlocks, LoadTask, StopLoading};
use curvine_protocol::{Attr, CallContext, CurvinePath, Error, ErrorKind, WorkerId};
use futures::future::join_all;

use super::tries::{Fault, Next, Tries};
use super::{Parts, Running};
use crate::kit::{WorkerRef, call};
use crate::master::fetching::to_load;

/// How often a worker says how far it is.
const PATIENCE_MS: u32 = 1_000;
/// After that, a worker that has not answered is one that does not.
const DEADLINE_MS: u32 = PATIENCE_MS + 4_000;
const STOP_DEADLINE_MS: u32 = 2_000;

/// A file that a job has come to.
pub struct File<'a> {
    pub parts: &'a Parts,
    pub running: &'a Running,
    pub attr: Attr,
    pub path: CurvinePath,
    /// Bytes of it that the job counts as cached.
    pub cached: AtomicU64,
}

/// A block that a worker is asked for.
#[derive(Clone)]
struct Task {
    block: LoadTask,
    /// Bytes of it that have arrived, as the worker said last.
    arrived: u64,
}

impl File<'_> {
    /// Loads it, or counts why not. Ends early when the job is cancelled: nothing is fetched any more then.
    pub async fn load(&self) {
        let cancel = &self.running.cancel;
        let Some(_turn) = cancel
            .run_until_cancelled(self.parts.turns.take(self.attr.inode))
            .await
        else {
            return;
        };
        let mut tries = Tries::default();
        let mut has_moved = false;
        while !cancel.is_cancelled() {
            let tried = self.attempt(&tries).await;
            if tried.moved > 0 {
                has_moved = true;
                tries.progressed();
            }
            let Some(fault) = tried.fault else {
                self.ended(has_moved);
                return;
            };
            if cancel.is_cancelled() {
                return;
            }
            self.set_back();
            let live = self.parts.live();
            match tries.after(fault, &live, self.parts.blocks.now()) {
                Next::Again(pause) => {
                    cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
                }
                Next::GiveUp(error) => {
                    self.running.counts().failed(self.path.to_string(), error);
                    return;
                }
            }
        }
    }

    fn ended(&self, has_moved: bool) {
        let mut counts = self.running.counts();
        let rest = self
            .attr
            .size_bytes
            .saturating_sub(self.cached.load(Ordering::Relaxed));
        counts.cached(rest);
        counts.ended(has_moved);
    }

    /// Another try begins from what is cached then.
    fn set_back(&self) {
        let mut counts = self.running.counts();
        counts.set_back(self.cached.swap(0, Ordering::Relaxed));
    }

    /// So much more of it is cached, of which so much was fetched for it.
    fn arrived(&self, cached: u64, moved: u64) {
        let mut counts = self.running.counts();
        let before = self.cached.load(Ordering::Relaxed);
        // It may have grown since it was planned.
        let cached = cached.min(self.attr.size_bytes.saturating_sub(before));
        self.cached.store(before + cached, Ordering::Relaxed);
        counts.cached(cached);
        counts.moved(moved);
    }

    /// One try.
    async fn attempt(&self, tries: &Tries) -> Tried {
        match self.assign(tries) {
            Err(fault) => Tried::failed(fault),
            Ok(assigned) => {
                let by_worker = assigned
                    .into_iter()
                    .map(|(worker, tasks)| self.load_on(worker, tasks));
                let mut all = Tried::default();
                for one in join_all(by_worker).await {
                    all.moved += one.moved;
                    all.fault = all.fault.or(one.fault);
                }
                if let Some(Fault::Changed(error)) = &all.fault
                    && error.kind == ErrorKind::UfsChanged
                    && let Err(error) = self.parts.mirror.doubt(self.attr.inode).await
                {
                    all.fault = Some(Fault::File(error));
                }
                all
            }
        }
    }

    /// Which workers load which of the blocks. Those that are cached are asked of who has them: the worker then holds them for
    /// the job, and fetches again what has gone meanwhile.
    fn assign(&self, tries: &Tries) -> Result<BTreeMap<WorkerId, Vec<Task>>, Fault> {
        let layout = self.parts.view.layout(self.attr.inode);
        let layout = layout.map_err(|error| Fault::File(if_gone(error)))?;
        let mut assigned: BTreeMap<WorkerId, Vec<Task>> = BTreeMap::new();
        if layout.source.is_none() {
            return Ok(assigned);
        }
        // Whoever writes a file fetches what of it is needed.
        if self
            .parts
            .view
            .lease_holder(self.attr.inode)
            .map_err(Fault::File)?
            .is_some()
        {
            return Ok(assigned);
        }
        let live = self.parts.live();
        let of_object = {
            let now = self.parts.blocks.now();
            let cluster = self.parts.blocks.cluster();
            let all = to_load(&layout, |_| false).into_iter();
            all.map(|(located, task)| (cluster.holder(&located.block, now), task))
                .collect::<Vec<_>>()
        };
        let all: u64 = layout.blocks.iter().map(|located| located.block.len_bytes).sum();
        let left: u64 = of_object.iter().map(|(_, task)| task.len_bytes).sum();
        for (holder, block) in of_object {
            let worker = holder
                .filter(|holder| !tries.has_failed(*holder))
                .or_else(|| tries.choose(block.block, &live))
                .ok_or_else(|| Fault::NoWorker(self.parts.without_worker()))?;
            assigned
                .entry(worker)
                .or_default()
                .push(Task { block, arrived: 0 });
        }
        self.arrived(all - left, 0);
        Ok(assigned)
    }

    /// Has a worker load blocks, until all have ended, it does not answer, or the job is cancelled.
    async fn load_on(&self, worker: WorkerId, mut tasks: Vec<Task>) -> Tried {
        let mut tried = Tried::default();
        let Some(port) = self.parts.workers.port(worker) else {
            let error = Error::new(ErrorKind::BlockUnavailable, format!("worker {worker} is gone"));
            return Tried::failed(Fault::Worker(worker, error));
        };
        while !tasks.is_empty() {
            let load = LoadBlocks {
                tasks: tasks.iter().map(|task| task.block.clone()).collect(),
                patience_ms: PATIENCE_MS,
                job: Some(self.running.job),
            };
            let asked = call(&*port, load, within(DEADLINE_MS));
            match self.running.cancel.run_until_cancelled(asked).await {
                None => {
                    self.stop(&port, &tasks).await;
                    let error = Error::new(ErrorKind::Cancelled, "the job was cancelled");
                    tried.fault = Some(Fault::Worker(worker, error));
                    return tried;
                }
                Some(Err(error)) => {
                    tried.fault = Some(Fault::Worker(worker, error));
                    return tried;
                }
                Some(Ok(loaded)) => tasks = self.take_in(worker, tasks, loaded, &mut tried),
            }
        }
        tried
    }

    /// Counts what a worker says; what has not ended there.
    fn take_in(
        &self,
        worker: WorkerId,
        tasks: Vec<Task>,
        loaded: BlocksLoaded,
        tried: &mut Tried,
    ) -> Vec<Task> {
        let mut left = Vec::new();
        let mut is_under_way = vec![false; tasks.len()];
        for place in loaded.under_way {
            if let Some(flag) = is_under_way.get_mut(to_usize(place.into())) {
                *flag = true;
            }
        }
        for ((mut task, outcome), is_under_way) in tasks.into_iter().zip(loaded.outcomes).zip(is_under_way) {
            match outcome {
                Ok(arrived) if is_under_way => {
                    let more = arrived.saturating_sub(task.arrived);
                    self.arrived(more, more);
                    tried.moved += more;
                    task.arrived += more;
                    left.push(task);
                }
                Ok(fetched) => {
                    // The worker's own report follows; the next reader need not wait for it.
                    let (block, generation) = (task.block.block, task.block.generation);
                    self.parts
                        .blocks
                        .cluster()
                        .holders
                        .claimed(worker, block, generation);
                    let more = task.rest_of(fetched);
                    self.arrived(task.block.len_bytes.saturating_sub(task.arrived), more);
                    tried.moved += more;
                }
                Err(error) => tried.fault = Some(Fault::of_outcome(worker, error)),
            }
        }
        left
    }

    /// Has the worker give up what it has not ended, and counts what had arrived of it.
    async fn stop(&self, port: &WorkerRef, tasks: &[Task]) {
        let blocks = tasks.iter().map(|task| task.block.block).collect();
        match call(&**port, StopLoading { blocks }, within(STOP_DEADLINE_MS)).await {
            Ok(stopped) => {
                for (task, fetched) in tasks.iter().zip(stopped.fetched_bytes) {
                    let more = fetched.saturating_sub(task.arrived);
                    self.arrived(more, more);
                }
            }
            Err(error) => {
                tracing::warn!(path = %self.path, %error, "a worker was not told to stop a load; it does so by itself");
            }
        }
    }
}

impl Task {
    /// What of the block was fetched since the worker was asked last, now that it is whole and the worker says how much
    /// was fetched: nothing, if it became whole between two questions.
    fn rest_of(&self, fetched: u64) -> u64 {
        match fetched {
            0 if self.arrived > 0 => self.block.len_bytes.saturating_sub(self.arrived),
            _ => fetched.saturating_sub(self.arrived),
        }
    }
}

/// How a try went.
#[derive(Default)]
struct Tried {
    /// Bytes that were fetched.
    moved: u64,
    /// Why it is not all there.
    fault: Option<Fault>,
}

impl Tried {
    fn failed(fault: Fault) -> Tried {
        Tried {
            moved: 0,
            fault: Some(fault),
        }
    }
}

fn within(deadline_ms: u32) -> CallContext {
    CallContext {
        deadline_ms,
        ..CallContext::default()
    }
}
/// What a file was that nobody finds any more.
fn if_gone(error: Error) -> Error {
    match error.kind {
        ErrorKind::Stale => Error::new(
            ErrorKind::NotFound,
            "it was removed while the job ran: here, or as an object in its store",
        ),
        _ => error,
    }
}
