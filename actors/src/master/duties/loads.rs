//! Load jobs: planned from listings, dispatched to workers, counted file by file; durable through the namespace.
//!
//! A job's record is updated at every change of state and every [`CHECKPOINT`] while it runs. A master that begins
//! to lead takes up the jobs that have not ended: it plans them again, and what is cached by then is found cached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::error::Retry;
use curvine_protocol::job::{FileFailure, JobProgress, JobRecord, JobState};
use curvine_protocol::op::Op;
use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, JobId, Node, Result};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Duty;
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::fetching::Fetching;
use crate::master::mirror::Mirror;
use crate::master::walk::Walk;

const CHECKPOINT: Duration = Duration::from_secs(2);
/// Files that one job loads at the same time.
const FILES_IN_FLIGHT: usize = 64;
const ATTEMPTS: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(300);

/// The running jobs. Cheap to clone.
#[derive(Clone)]
pub struct Loads {
    parts: Arc<Parts>,
}

/// What loading needs, and the jobs that run.
struct Parts {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    fetching: Fetching,
    mirror: Arc<Mirror>,
    running: Mutex<HashMap<JobId, Arc<Running>>>,
}

impl Parts {
    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Running>>> {
        self.running
            .lock()
            .expect("nobody panics while it holds the jobs")
    }
}

struct Running {
    counts: Mutex<Counts>,
    cancel: CancellationToken,
    /// This master leads no more.
    given_up: CancellationToken,
}

#[derive(Default)]
struct Counts {
    progress: JobProgress,
    /// Not in the record yet.
    failures: Vec<FileFailure>,
    planning: bool,
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
    }

    fn status(&self) -> String {
        let running = self.parts.running();
        let (mut done, mut total) = (0, 0);
        for job in running.values() {
            let counts = job.counts();
            done +=
                counts.progress.files_loaded + counts.progress.files_already + counts.progress.files_failed;
            total += counts.progress.files_total;
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
        fetching: Fetching,
        mirror: Arc<Mirror>,
    ) -> Self {
        let parts = Parts {
            view,
            propose,
            fetching,
            mirror,
            running: Mutex::default(),
        };
        Loads {
            parts: Arc::new(parts),
        }
    }

    /// Begins a job that is recorded.
    pub fn run(&self, job: JobRecord) {
        let progress = JobProgress {
            bytes_moved: job.progress.bytes_moved,
            ..JobProgress::default()
        };
        let counts = Counts {
            progress,
            failures: Vec::new(),
            planning: true,
        };
        let running = Arc::new(Running {
            counts: Mutex::new(counts),
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
            job.progress = counts.progress.clone();
            job.failures.extend(counts.failures.iter().cloned());
            if !job.state.is_ended() && !counts.planning {
                job.state = JobState::Running;
            }
        }
        job
    }
}

async fn load(parts: &Arc<Parts>, running: &Arc<Running>, job: JobRecord) -> Result<()> {
    wait_for_workers(parts).await?;
    let (files, planned) = mpsc::channel(4 * FILES_IN_FLIGHT);
    let planning = plan(parts.clone(), running.clone(), job.paths.clone(), files);
    let work = async { tokio::join!(planning, load_files(parts.clone(), running.clone(), planned)) };
    tokio::select! {
        _ = work => {}
        () = running.cancel.cancelled() => {}
        () = running.given_up.cancelled() => return Ok(()),
        error = checkpoints(parts, running, job.id) => return Err(error),
    }
    let state = match (
        running.cancel.is_cancelled(),
        running.counts().progress.files_failed,
    ) {
        (true, _) => JobState::Cancelled,
        (false, 0) => JobState::Done,
        (false, _) => JobState::Failed,
    };
    update(parts, running, job.id, state).await
}

/// After a start of the master the workers must come back first, and say what they have. Not for ever: a job without
/// workers fails file by file.
async fn wait_for_workers(parts: &Parts) -> Result<()> {
    for _ in 0..100 {
        let blocks = &parts.fetching.blocks;
        if !blocks.cluster().roster.live(blocks.now()).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    parts
        .fetching
        .blocks
        .heard_from_all(parts.view.last_worker()?)
        .await;
    Ok(())
}

/// Keeps the record up to date. Returns only when that fails.
async fn checkpoints(parts: &Parts, running: &Running, id: JobId) -> Error {
    let mut last = JobProgress::default();
    loop {
        tokio::time::sleep(CHECKPOINT).await;
        let (progress, planning) = {
            let counts = running.counts();
            (counts.progress.clone(), counts.planning)
        };
        if progress == last {
            continue;
        }
        last = progress;
        let state = if planning {
            JobState::Planning
        } else {
            JobState::Running
        };
        if let Err(error) = update(parts, running, id, state).await {
            return error;
        }
    }
}

async fn update(parts: &Parts, running: &Running, id: JobId, state: JobState) -> Result<()> {
    let (progress, failures) = {
        let mut counts = running.counts();
        (counts.progress.clone(), std::mem::take(&mut counts.failures))
    };
    parts
        .propose
        .propose_op(Op::UpdateJob {
            id,
            state,
            progress,
            failures,
        })
        .await
        .map(|_| ())
}

async fn plan(
    parts: Arc<Parts>,
    running: Arc<Running>,
    paths: Vec<CurvinePath>,
    files: mpsc::Sender<(Attr, CurvinePath)>,
) {
    for path in paths {
        if let Err(error) = plan_below(&parts, &running, &path, &files).await {
            fail(&running, &path, error);
        }
    }
    running.counts().planning = false;
}

/// Sends on what is found at or below a path, until nobody takes it any more.
async fn plan_below(
    parts: &Parts,
    running: &Running,
    path: &CurvinePath,
    files: &mpsc::Sender<(Attr, CurvinePath)>,
) -> Result<()> {
    parts.mirror.fresh_path(path).await?;
    let top = parts.view.lookup(&Node::Path(path.clone()), true)?.attr;
    let mut walk = Walk::new(parts.view.clone(), Some(parts.mirror.clone()), path.clone(), top);
    while let Some((path, found)) = walk.next().await {
        match found {
            Ok(attr) if attr.is_file() => {
                {
                    let mut counts = running.counts();
                    counts.progress.files_total += 1;
                    counts.progress.bytes_total += attr.size_bytes;
                }
                if files.send((attr, path)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(error) => fail(running, &path, error),
        }
    }
    Ok(())
}

fn fail(running: &Running, path: &CurvinePath, error: Error) {
    let mut counts = running.counts();
    counts.progress.files_failed += 1;
    counts.failures.push(FileFailure {
        path: path.to_string(),
        error,
    });
}

/// Loads files as they are planned. Ends, and drops what is in flight, with the future.
async fn load_files(
    parts: Arc<Parts>,
    running: Arc<Running>,
    mut planned: mpsc::Receiver<(Attr, CurvinePath)>,
) {
    let mut loading = tokio::task::JoinSet::new();
    while let Some((attr, path)) = planned.recv().await {
        if loading.len() >= FILES_IN_FLIGHT {
            loading.join_next().await;
        }
        let (parts, running) = (parts.clone(), running.clone());
        loading.spawn(async move { load_file(&parts, &running, attr, path).await });
    }
    while loading.join_next().await.is_some() {}
}

async fn load_file(parts: &Parts, running: &Running, attr: Attr, path: CurvinePath) {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match load_once(parts, running, &attr).await {
            Ok(moved) => {
                let mut counts = running.counts();
                counts.progress.bytes_done += attr.size_bytes;
                match moved {
                    0 => counts.progress.files_already += 1,
                    _ => counts.progress.files_loaded += 1,
                }
                return;
            }
            Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                tokio::time::sleep(BACKOFF * 3u32.pow(attempt - 1)).await;
            }
            Err(error) => return fail(running, &path, error),
        }
    }
}

/// `UfsChanged`: the namespace learns the new version meanwhile, and that one is loaded.
fn may_pass(error: &Error) -> bool {
    error.kind.retry() != Retry::Never
        || error.kind == ErrorKind::UfsChanged
        || error.kind == ErrorKind::Stopping
}

/// One try at a file. Answers with the bytes it moved.
async fn load_once(parts: &Parts, running: &Running, attr: &Attr) -> Result<u64> {
    let mut moved = 0;
    let count = |bytes| {
        moved += bytes;
        running.counts().progress.bytes_moved += bytes;
    };
    match parts.fetching.fetch(attr.inode, count).await {
        Ok(()) => Ok(moved),
        Err(error) => {
            if error.kind == ErrorKind::UfsChanged {
                parts.mirror.doubt(attr.inode).await?;
            }
            Err(error)
        }
    }
}
