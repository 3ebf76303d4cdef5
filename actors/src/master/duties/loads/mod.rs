//! Load jobs: planned from listings, dispatched to workers, counted file by file; durable through the namespace.
//!
//! A job's record is updated at every change of state and every [`CHECKPOINT`] while it runs. A master that begins
//! to lead takes up the jobs that have not ended: it plans them again, and what is cached by then is found cached.
//!
//! Invariants: a job holds a few hundred planned files and a page of each directory on its way, whatever it loads; a
//! file is loaded by one job at a time; nothing is fetched for a job that was cancelled.
//!
//! - [`counts`]: what a job has found and done.
//! - [`tries`]: which worker loads a block, and what follows when it does not.
//! - [`file`](mod@file): one file.
//! - [`look`]: what a job would do.
//! - [`turns`]: a turn for each file.

mod counts;
mod file;
mod look;
mod tries;
mod turns;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::job::{JobProgress, JobRecord, JobState};
use curvine_protocol::master::LoadPlan;
use curvine_protocol::op::Op;
use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, JobId, Node, Result, WorkerId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::counts::Counts;
use self::file::File;
use self::turns::Turns;
use super::Duty;
use crate::master::blocks::BlockMap;
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::mirror::Mirror;
use crate::master::walk::Walk;
use crate::master::workers::Workers;

const CHECKPOINT: Duration = Duration::from_secs(2);
/// Files that one job loads at the same time.
const FILES_IN_FLIGHT: usize = 64;

/// The running jobs. Cheap to clone.
#[derive(Clone)]
pub struct Loads {
    parts: Arc<Parts>,
}

/// What loading needs, and the jobs that run.
struct Parts {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    blocks: Arc<BlockMap>,
    mirror: Arc<Mirror>,
    workers: Workers,
    running: Mutex<HashMap<JobId, Arc<Running>>>,
    turns: Turns,
    /// When a worker was last seen to live, by a file that looked for one.
    worker_seen: Mutex<Option<Instant>>,
}

impl Parts {
    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Running>>> {
        self.running
            .lock()
            .expect("nobody panics while it holds the jobs")
    }

    /// What is at or below a path.
    async fn walk(&self, path: &CurvinePath) -> Result<Walk<CurvinePath>> {
        self.mirror.fresh_path(path).await?;
        let top = self.view.lookup(&Node::Path(path.clone()), true)?.attr;
        Ok(Walk::new(
            self.view.clone(),
            Some(self.mirror.clone()),
            path.clone(),
            top,
        ))
    }

    /// The workers that live and take blocks.
    fn live(&self) -> Vec<WorkerId> {
        let now = self.blocks.now();
        let live = self.blocks.cluster().roster.in_service(now);
        if !live.is_empty() {
            *self.worker_seen() = Some(now);
        }
        live
    }

    /// For how long no worker was seen to live, since somebody first looked for one.
    fn without_worker(&self) -> Duration {
        let now = self.blocks.now();
        now.duration_since(*self.worker_seen().get_or_insert(now))
    }

    fn worker_seen(&self) -> MutexGuard<'_, Option<Instant>> {
        self.worker_seen
            .lock()
            .expect("nobody panics while it holds a time")
    }
}

struct Running {
    job: JobId,
    counts: Mutex<Counts>,
    cancel: CancellationToken,
    /// This master leads no more.
    given_up: CancellationToken,
}

impl Running {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nobody panics while counting")
    }
}

#[async_trait]
impl Duty for Loads {
    fn name(&self) -> &'static str {
        "loads"
    }

    /// Takes up the jobs that have not ended.
    fn begin(&self, _term: u64) -> Result<()> {
        for job in self.parts.view.jobs()? {
            if !job.state.is_ended() {
                self.run(job);
            }
        }
        Ok(())
    }

    /// Jobs are tasks of their own.
    async fn due(&self) {
        std::future::pending().await
    }

    async fn tick(&self) -> Result<()> {
        Ok(())
    }

    /// Ends what runs here, without a word about it in the jobs' records: whoever leads next takes them up.
    fn end(&self) {
        for (_, running) in self.parts.running().drain() {
            running.given_up.cancel();
        }
        *self.parts.worker_seen() = None;
    }

    fn status(&self) -> String {
        let running = self.parts.running();
        let (mut done, mut total) = (0, 0);
        for job in running.values() {
            let progress = job.counts().progress();
            done += progress.files_loaded + progress.files_already + progress.files_failed;
            total += progress.files_total;
        }
        match running.len() {
            0 => "none running".to_owned(),
            jobs => format!("{jobs} running, {done} of {total} files"),
        }
    }
}

impl Loads {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        propose: Arc<dyn ProposeOp>,
        blocks: Arc<BlockMap>,
        mirror: Arc<Mirror>,
        workers: Workers,
    ) -> Self {
        let parts = Parts {
            view,
            propose,
            blocks,
            mirror,
            workers,
            running: Mutex::default(),
            turns: Turns::default(),
            worker_seen: Mutex::default(),
        };
        Loads {
            parts: Arc::new(parts),
        }
    }

    /// What a job of these paths would find and do now.
    pub async fn look(&self, paths: &[CurvinePath]) -> LoadPlan {
        look::look(&self.parts, paths).await
    }

    /// Begins a job that is recorded.
    pub fn run(&self, job: JobRecord) {
        let running = Arc::new(Running {
            job: job.id,
            counts: Mutex::new(Counts::going_on(&job.progress)),
            cancel: CancellationToken::new(),
            given_up: CancellationToken::new(),
        });
        self.parts.running().insert(job.id, running.clone());
        let parts = self.parts.clone();
        tokio::spawn(async move {
            let id = job.id;
            if let Err(error) = load(&parts, &running, job).await {
                tracing::error!(job = %id, %error, "a load job stopped without an end; the next leader takes it up");
            }
            let mut all = parts.running();
            if all.get(&id).is_some_and(|now| Arc::ptr_eq(now, &running)) {
                all.remove(&id);
            }
        });
    }

    /// Asks a job that runs here to end. False if it does not.
    pub fn cancel(&self, id: JobId) -> bool {
        let running = self.parts.running().get(&id).cloned();
        running.inspect(|running| running.cancel.cancel()).is_some()
    }

    /// The record with what the running job has counted since.
    pub fn live(&self, mut job: JobRecord) -> JobRecord {
        if let Some(running) = self.parts.running().get(&job.id) {
            let counts = running.counts();
            job.progress = counts.progress();
            job.failures.extend(counts.failures().iter().cloned());
            if !job.state.is_ended() {
                job.state = counts.state();
            }
        }
        job
    }
}

async fn load(parts: &Arc<Parts>, running: &Arc<Running>, job: JobRecord) -> Result<()> {
    let is_begun = job.progress != JobProgress::default() || !job.failures.is_empty();
    if is_begun && !until_told(parts, running, job.id, || JobState::Planning, true).await? {
        return Ok(());
    }
    let (files, planned) = mpsc::channel(4 * FILES_IN_FLIGHT);
    let work = async {
        // After a change of the leader the workers must come back first, and say what they have.
        parts.blocks.heard_from_all(parts.view.last_worker()?).await;
        let planning = plan(parts, running, &job.paths, files);
        let planning = running.cancel.run_until_cancelled(planning);
        tokio::join!(planning, load_files(parts, running, planned));
        Ok::<_, Error>(())
    };
    tokio::select! {
        worked = work => worked?,
        () = running.given_up.cancelled() => return Ok(()),
        never = checkpoints(parts, running, job.id) => match never {},
    }
    let end = || match running.counts().progress().files_failed {
        _ if running.cancel.is_cancelled() => JobState::Cancelled,
        0 => JobState::Done,
        _ => JobState::Failed,
    };
    until_told(parts, running, job.id, end, false).await?;
    Ok(())
}

/// Brings a state into the record, as soon as the group takes it. False if this master leads no more.
async fn until_told(
    parts: &Parts,
    running: &Running,
    id: JobId,
    state: impl Fn() -> JobState,
    anew: bool,
) -> Result<bool> {
    loop {
        match update(parts, running, id, state(), anew).await {
            Ok(()) => return Ok(true),
            // It has ended.
            Err(error) if matches!(error.kind, ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                return Err(error);
            }
            Err(error) => tracing::warn!(job = %id, %error, "cannot keep the job's record now; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(CHECKPOINT) => {}
            () = running.given_up.cancelled() => return Ok(false),
        }
    }
}

/// Keeps the record up to date.
async fn checkpoints(parts: &Parts, running: &Running, id: JobId) -> std::convert::Infallible {
    let mut last = JobProgress::default();
    loop {
        tokio::time::sleep(CHECKPOINT).await;
        let (progress, state) = {
            let counts = running.counts();
            (counts.progress(), counts.state())
        };
        if progress == last {
            continue;
        }
        match update(parts, running, id, state, false).await {
            Ok(()) => last = progress,
            Err(error) => tracing::warn!(job = %id, %error, "cannot keep the job's record now; trying again"),
        }
    }
}

async fn update(parts: &Parts, running: &Running, id: JobId, state: JobState, anew: bool) -> Result<()> {
    let (progress, failures) = {
        let mut counts = running.counts();
        (counts.progress(), counts.take_failures())
    };
    let update = Op::UpdateJob {
        id,
        state,
        progress,
        failures: failures.clone(),
        anew,
    };
    let told = parts.propose.propose_op(update).await;
    told.map(drop)
        .inspect_err(|_| running.counts().put_back(failures))
}

async fn plan(
    parts: &Parts,
    running: &Running,
    paths: &[CurvinePath],
    files: mpsc::Sender<(Attr, CurvinePath)>,
) {
    for path in paths {
        if let Err(error) = plan_below(parts, running, path, &files).await {
            running.counts().unseen(path.to_string(), error);
        }
    }
    running.counts().planned();
}

/// Sends on what is found at or below a path, until nobody takes it any more.
async fn plan_below(
    parts: &Parts,
    running: &Running,
    path: &CurvinePath,
    files: &mpsc::Sender<(Attr, CurvinePath)>,
) -> Result<()> {
    let mut walk = parts.walk(path).await?;
    while let Some((path, found)) = walk.next().await {
        match found {
            Ok(attr) if attr.is_file() => {
                running.counts().found(attr.size_bytes);
                if files.send((attr, path)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(error) => running.counts().unseen(path.to_string(), error),
        }
    }
    Ok(())
}

/// Loads files as they are planned, until the job is cancelled. Ends, and drops what is in flight, with the future.
async fn load_files(
    parts: &Arc<Parts>,
    running: &Arc<Running>,
    mut planned: mpsc::Receiver<(Attr, CurvinePath)>,
) {
    let mut loading = tokio::task::JoinSet::new();
    while let Some(Some((attr, path))) = running.cancel.run_until_cancelled(planned.recv()).await {
        if loading.len() >= FILES_IN_FLIGHT {
            loading.join_next().await;
        }
        let (parts, running) = (parts.clone(), running.clone());
        loading.spawn(async move {
            let file = File {
                parts: &parts,
                running: &running,
                attr,
                path,
                cached: AtomicU64::new(0),
            };
            file.load().await;
        });
    }
    while loading.join_next().await.is_some() {}
}
