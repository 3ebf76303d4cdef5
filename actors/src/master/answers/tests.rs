//! A master with its real Replica and Namespace, a mount of a directory, and a worker that does as it is told.

mod local;
mod pins;
mod store_faults;
mod stores;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use curvine_protocol::cluster::{BlockReplica, DiskStatus, Labels, Tier};
use curvine_protocol::job::{JobProgress, JobRecord, JobState};
use curvine_protocol::master::*;
use curvine_protocol::mount::{AttributesIn, MountChanges, MountSettings};
use curvine_protocol::worker::{
    BlocksLoaded, BlocksPinned, Done, ExportFile, FenceBlocks, LoadBlocks, LoadTask, LoadingStopped,
    PinBlocks, StopLoading,
};
use curvine_protocol::*;
use futures::future::BoxFuture;

use crate::kit::until::until_some;
use crate::kit::{Answer, Ask, Endpoint, Ports, WorkerRef, call};
use crate::master::namespace::actor::FileDefaults;
use crate::master::replica::{LogLimits, Members, Proxies};
use crate::master::workers::WorkerConnector;
use crate::master::{MasterConfig, MasterHandle};
use crate::ufs::scripted::Store;

/// What happens to the loads of one object.
#[derive(Clone)]
enum Fate {
    /// So many fail with this, the next succeeds.
    Fails(u32, ErrorKind),
    /// None of them ever ends.
    Hangs,
    /// With each look so many bytes more have arrived, and it never ends.
    Trickles(u64),
    /// This worker cannot, others can.
    FailsOn(WorkerId, ErrorKind),
}

/// A worker that loads what it is told, unless fate has other plans.
#[derive(Default)]
struct Worker {
    fates: Mutex<HashMap<String, Fate>>,
    /// What each worker has loaded.
    has: Mutex<HashSet<(WorkerId, BlockId)>>,
    /// How often each object was asked for.
    tries: Mutex<HashMap<String, u32>>,
    fences: Mutex<Vec<FenceBlocks>>,
    /// What was stopped.
    stopped: Mutex<Vec<StopLoading>>,
    /// These do not answer.
    silent: Mutex<HashSet<WorkerId>>,
    /// Who was told what is pinned.
    pins: Mutex<Vec<(WorkerId, PinBlocks)>>,
    /// Where files are exported to, without an answer.
    exported: Mutex<Option<Store>>,
}

impl Worker {
    fn decree(&self, key: &str, fate: Fate) {
        self.fates.lock().expect("no panic").insert(key.to_owned(), fate);
    }

    fn relent(&self) {
        self.fates.lock().expect("no panic").clear();
    }

    fn tries(&self, key: &str) -> u32 {
        let tries = self.tries.lock().expect("no panic");
        tries.get(key).copied().unwrap_or_default()
    }

    /// What a worker of this id answers, and whether it is under way. None = it never ends.
    fn load(&self, id: WorkerId, task: &LoadTask) -> Option<(Result<u64>, bool)> {
        let key = &task.source.key;
        *self
            .tries
            .lock()
            .expect("no panic")
            .entry(key.clone())
            .or_default() += 1;
        match self.fates.lock().expect("no panic").get_mut(key) {
            Some(Fate::Hangs) => None,
            Some(Fate::Fails(left, kind)) if *left > 0 => {
                *left -= 1;
                Some((Err(Error::new(*kind, format!("{key} fails"))), false))
            }
            Some(Fate::FailsOn(at, kind)) if *at == id => {
                Some((Err(Error::new(*kind, format!("{key} fails there"))), false))
            }
            Some(Fate::Trickles(bytes)) => {
                let looks = self.tries.lock().expect("no panic")[key];
                Some((Ok(*bytes * u64::from(looks)), true))
            }
            // What it has, it need not fetch.
            _ => match self.has.lock().expect("no panic").insert((id, task.block)) {
                true => Some((Ok(task.len_bytes), false)),
                false => Some((Ok(0), false)),
            },
        }
    }

    fn load_all(&self, id: WorkerId, load: &LoadBlocks) -> Option<BlocksLoaded> {
        let mut loaded = BlocksLoaded {
            outcomes: Vec::new(),
            under_way: Vec::new(),
        };
        for (place, task) in (0..).zip(&load.tasks) {
            let (outcome, is_under_way) = self.load(id, task)?;
            loaded.outcomes.push(outcome);
            loaded.under_way.extend(is_under_way.then_some(place));
        }
        Some(loaded)
    }
}

struct Port(Arc<Worker>, WorkerId);

impl<C: Call> Endpoint<C> for Port {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let call: &dyn Any = &ask.call;
        if let Some(fence) = call.downcast_ref::<FenceBlocks>() {
            self.0.fences.lock().expect("no panic").push(fence.clone());
        }
        if self.0.silent.lock().expect("no panic").contains(&self.1) {
            let silence = Error::new(ErrorKind::Unreachable, "no answer");
            return Box::pin(std::future::ready(Err(silence)));
        }
        if let Some(export) = call.downcast_ref::<ExportFile>()
            && let Some(store) = &*self.0.exported.lock().expect("no panic")
        {
            store.put_marked(&export.key, "etag", &export.mark);
            let lost = Error::new(ErrorKind::Ufs, "the answer was lost");
            return Box::pin(std::future::ready(Err(lost)));
        }
        if let Some(stop) = call.downcast_ref::<StopLoading>() {
            self.0.stopped.lock().expect("no panic").push(stop.clone());
        }
        if let Some(pin) = call.downcast_ref::<PinBlocks>() {
            self.0.pins.lock().expect("no panic").push((self.1, pin.clone()));
            let ordered = vec![true; pin.blocks.len()];
            let reply: Box<dyn Any> = Box::new(BlocksPinned { ordered });
            let reply = *reply.downcast::<C::Reply>().expect("a call that is mocked");
            return Box::pin(std::future::ready(Ok(Answer::new(reply))));
        }
        let mut is_patient = false;
        let reply: Box<dyn Any> = match (call.downcast_ref::<LoadBlocks>(), call.downcast_ref()) {
            (Some(load), _) => match self.0.load_all(self.1, load) {
                None => return Box::pin(std::future::pending()),
                Some(loaded) => {
                    is_patient = !loaded.under_way.is_empty();
                    Box::new(loaded)
                }
            },
            (None, Some(StopLoading { blocks })) => Box::new(LoadingStopped {
                fetched_bytes: vec![0; blocks.len()],
            }),
            (None, None) => Box::new(Done {}),
        };
        let reply = *reply.downcast::<C::Reply>().expect("a call that is mocked");
        Box::pin(async move {
            if is_patient {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            Ok(Answer::new(reply))
        })
    }
}

struct Connector(Arc<Worker>);

impl WorkerConnector for Connector {
    fn connect(&self, id: WorkerId, _address: &str) -> WorkerRef {
        Arc::new(Port(self.0.clone(), id))
    }
}

struct World {
    master: MasterHandle,
    worker: Arc<Worker>,
    registered: WorkerRegistered,
    directory: tempfile::TempDir,
}

const NO_ONE: CallContext = CallContext {
    client: ClientId(0),
    sequence: 0,
    acked_below: 0,
    deadline_ms: 0,
    uid: 0,
    gid: 0,
    stale: false,
    near: 0,
};

impl World {
    async fn new() -> World {
        let directory = tempfile::tempdir().expect("a scratch directory");
        World::on(directory, Arc::default(), None).await
    }

    async fn on(directory: tempfile::TempDir, worker: Arc<Worker>, known: Option<WorkerRegistered>) -> World {
        let ports = Ports::system();
        let config = MasterConfig {
            members: Members::alone(NodeId(1), "127.0.0.1:1"),
            directory: directory.path().to_owned(),
            defaults: FileDefaults {
                block_bytes: 1 << 20,
                replicas: 1,
            },
            workers: Arc::new(Connector(worker.clone())),
            masters: Arc::new(Proxies::in_arbiter(actix::Arbiter::current(), &ports)),
            log_limits: LogLimits::default(),
            pin_limit_percent: 50,
            hot_copies: 2,
        };
        let master = crate::master::start(&actix::Arbiter::current(), config, &ports)
            .await
            .expect("the master starts");
        master.joined().await.expect("it leads");
        let register = register(known.as_ref());
        let registered = call(&*master.port, register, NO_ONE).await.expect("registered");
        let world = World {
            master,
            worker,
            registered,
            directory,
        };
        world.report(true, &[]).await.expect("its first report is in");
        world
    }

    /// Another worker comes, which has nothing. Its id.
    async fn another_worker(&self) -> WorkerId {
        let registered = self.ask(register(None)).await.expect("registered");
        let report = ReportBlocks {
            full_start: true,
            full_end: true,
            ..ReportBlocks::nothing(registered.worker, registered.token)
        };
        self.ask(report).await.expect("its first report is in");
        registered.worker
    }

    /// The master stops; another begins with what is on its disk. The worker comes back without its blocks.
    async fn restarted(self) -> World {
        self.master.stop().await;
        let copy = tempfile::tempdir().expect("a scratch directory");
        copy_tree(self.directory.path(), copy.path());
        World::on(copy, self.worker.clone(), Some(self.registered)).await
    }

    async fn ask<C: Call>(&self, question: C) -> Result<C::Reply>
    where
        dyn crate::kit::MasterPort: Endpoint<C>,
    {
        call(&*self.master.port, question, NO_ONE).await
    }

    /// The commit of a file of one block, which the worker has.
    fn committed(&self, inode: InodeId, block: BlockId, len_bytes: u64, generation: u32) -> CommitFile {
        CommitFile {
            blocks: vec![BlockCommit {
                index: 0,
                id: block,
                len_bytes,
                generation,
                workers: vec![self.registered.worker],
                hole_bytes: 0,
            }],
            ..commit(inode, len_bytes)
        }
    }

    /// What the master wants deleted of what the worker reports.
    async fn report(&self, full: bool, stored: &[(u64, u32)]) -> Result<Vec<BlockId>> {
        let report = ReportBlocks {
            full_start: full,
            full_end: full,
            stored: stored
                .iter()
                .map(|&(id, generation)| BlockReplica {
                    id: BlockId(id),
                    generation,
                    len_bytes: 0,
                })
                .collect(),
            ..ReportBlocks::nothing(self.registered.worker, self.registered.token)
        };
        Ok(self.ask(report).await?.delete)
    }

    /// Mounts a directory with these objects on `/data`.
    async fn mount(&self, objects: &[(&str, usize)]) -> tempfile::TempDir {
        let bucket = tempfile::tempdir().expect("a scratch directory");
        for (key, len) in objects {
            std::fs::write(bucket.path().join(key), vec![1; *len]).expect("room");
        }
        let mount = MountUfs {
            path: path("/data"),
            uri: format!("file://{}", bucket.path().display()),
            options: Default::default(),
            settings: MountSettings::default(),
        };
        self.ask(mount).await.expect("mounted");
        bucket
    }

    async fn submit(&self) -> JobId {
        let load = SubmitLoad {
            paths: vec![path("/data")],
        };
        self.ask(load).await.expect("taken").id
    }

    async fn until(&self, id: JobId, what: &str, holds: impl Fn(&JobRecord) -> bool) -> JobRecord {
        until_some(what, async || {
            let job = self.ask(GetJob { id }).await.expect("it is known");
            holds(&job).then_some(job)
        })
        .await
    }

    async fn ended(&self, id: JobId) -> JobRecord {
        self.until(id, "the job ends", |job| job.state.is_ended()).await
    }
}

fn create(at: &str, parents: bool) -> CreateFile {
    CreateFile {
        node: path(at).into(),
        mode: 0o644,
        if_exists: IfExists::Fail,
        parents,
        block_bytes: 0,
        replicas: 0,
        first_block: false,
        open: 0,
        unmasked: None,
    }
}

fn with_a_block(at: &str) -> CreateFile {
    CreateFile {
        first_block: true,
        ..create(at, false)
    }
}

/// Of a file without blocks.
fn commit(inode: InodeId, size_bytes: u64) -> CommitFile {
    CommitFile {
        inode,
        size_bytes,
        blocks: Vec::new(),
        mtime_ns: None,
        close: true,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    }
}

fn register(known: Option<&WorkerRegistered>) -> RegisterWorker {
    RegisterWorker {
        worker: known.map(|known| known.worker),
        cluster: known.map(|known| known.cluster),
        address: "w:1".to_owned(),
        disks: vec![DiskStatus {
            tier: Tier::Ssd,
            path: "d".to_owned(),
            capacity_bytes: 1 << 30,
            used_bytes: 0,
            available_bytes: 1 << 30,
            blocks: 0,
            failure: None,
            cached_bytes: 0,
            pinned_bytes: 0,
        }],
        version: "1".to_owned(),
        epoch: 0,
        labels: Labels::default(),
    }
}

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("fresh");
            copy_tree(&entry.path(), &target);
        } else if entry.file_name() != "lock.mdb" {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[actix::test]
async fn a_job_counts_file_by_file_and_tries_again_only_what_may_pass() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20), ("c", 30)]).await;
    world.worker.decree("b", Fate::Fails(2, ErrorKind::Ufs));
    world
        .worker
        .decree("c", Fate::Fails(u32::MAX, ErrorKind::UfsDenied));
    let id = world.submit().await;
    let job = world.ended(id).await;
    let counted = JobProgress {
        files_total: 3,
        bytes_total: 60,
        files_loaded: 2,
        files_already: 0,
        files_failed: 1,
        bytes_done: 30,
        bytes_moved: 30,
    };
    assert_eq!((job.state, job.progress), (JobState::Failed, counted));
    let failures: Vec<_> = job
        .failures
        .iter()
        .map(|failure| (failure.path.as_str(), failure.error.kind))
        .collect();
    assert_eq!(failures, [("/data/c", ErrorKind::UfsDenied)]);
    let tries = ["a", "b", "c"].map(|key| world.worker.tries(key));
    assert_eq!(
        tries,
        [1, 3, 1],
        "what may pass is tried again, what never passes is not"
    );

    world.worker.relent();
    let id = world.submit().await;
    let job = world.ended(id).await;
    let counted = JobProgress {
        files_total: 3,
        bytes_total: 60,
        files_loaded: 1,
        files_already: 2,
        files_failed: 0,
        bytes_done: 60,
        bytes_moved: 30,
    };
    assert_eq!((job.state, job.progress), (JobState::Done, counted));
    world.master.stop().await;
}

#[actix::test]
async fn a_job_that_keeps_failing_gives_up_on_the_file() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20)]).await;
    world.worker.decree("a", Fate::Fails(u32::MAX, ErrorKind::Ufs));
    let id = world.submit().await;
    let job = world.ended(id).await;
    assert_eq!(world.worker.tries("a"), 4);
    assert_eq!(
        (job.state, job.progress.files_loaded, job.progress.files_failed),
        (JobState::Failed, 1, 1)
    );
    world.master.stop().await;
}

#[actix::test]
async fn a_cancelled_job_stops_and_stays_cancelled_over_a_restart() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20)]).await;
    world.worker.decree("b", Fate::Hangs);
    let id = world.submit().await;
    let half_way = |job: &JobRecord| job.progress.files_loaded == 1 && world.worker.tries("b") == 1;
    world.until(id, "one file is loaded, one hangs", half_way).await;
    let cancelled = world.ask(CancelJob { id }).await.expect("it ran");
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(
        (cancelled.progress.files_loaded, cancelled.progress.files_total),
        (1, 2)
    );
    let again = world.ask(CancelJob { id }).await.map(|_| ());
    assert_eq!(again.map_err(|e| e.kind), Err(ErrorKind::InvalidArgument));

    let world = world.restarted().await;
    assert_eq!(world.ended(id).await.state, JobState::Cancelled);
    assert_eq!(world.worker.tries("b"), 1);
    world.master.stop().await;
}

#[actix::test]
async fn a_job_goes_on_after_a_restart_of_the_master_and_ends_with_the_true_counts() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20), ("c", 30)]).await;
    world.worker.decree("c", Fate::Hangs);
    let id = world.submit().await;
    world
        .until(id, "two files are loaded", |job| job.progress.files_loaded == 2)
        .await;
    world.worker.relent();
    let world = world.restarted().await;
    let job = world.ended(id).await;
    assert_eq!(job.state, JobState::Done);
    let progress = &job.progress;
    assert_eq!(
        (progress.files_total, progress.bytes_total, progress.bytes_done),
        (3, 60, 60)
    );
    assert_eq!(
        progress.files_loaded + progress.files_already,
        3,
        "each file is counted once"
    );
    assert_eq!(progress.files_failed, 0);
    world.master.stop().await;
}

#[actix::test]
async fn a_cancelled_job_has_its_transfers_stopped_and_says_what_had_arrived() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 1_000_000)]).await;
    world.worker.decree("a", Fate::Trickles(3));
    let id = world.submit().await;
    let moves = |job: &JobRecord| job.progress.bytes_moved > 0;
    let moving = world.until(id, "bytes are counted as they come", moves).await;
    assert_eq!(
        (moving.state, moving.progress.files_loaded),
        (JobState::Running, 0)
    );
    assert_eq!(moving.progress.bytes_moved, moving.progress.bytes_done);
    let cancelled = world.ask(CancelJob { id }).await.expect("it ran");
    assert_eq!(
        (cancelled.state, cancelled.progress.files_loaded),
        (JobState::Cancelled, 0)
    );
    assert!(cancelled.progress.bytes_moved >= moving.progress.bytes_moved);
    let stopped = world.worker.stopped.lock().expect("no panic").clone();
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    let looks = world.worker.tries("a");
    assert_eq!(world.ended(id).await.progress, cancelled.progress);
    assert_eq!(world.worker.tries("a"), looks, "it is not asked for again");
    world.master.stop().await;
}

#[actix::test]
async fn two_jobs_on_the_same_files_fetch_and_count_each_byte_once() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20)]).await;
    world.worker.decree("b", Fate::Trickles(0));
    let first = world.submit().await;
    let comes_to_b = |_: &JobRecord| world.worker.tries("b") > 0;
    world.until(first, "one file is under way", comes_to_b).await;
    let second = world.submit().await;
    let counts_a = |job: &JobRecord| job.progress.files_already == 1 && job.progress.files_total == 2;
    world.until(second, "the other waits for it", counts_a).await;
    world.worker.relent();
    let (first, second) = (
        world.ended(first).await.progress,
        world.ended(second).await.progress,
    );
    let counted = |progress: &JobProgress| {
        let files = (
            progress.files_total,
            progress.files_loaded,
            progress.files_already,
        );
        (files, progress.bytes_done, progress.bytes_moved)
    };
    assert_eq!(counted(&first), ((2, 2, 0), 30, 30));
    assert_eq!(counted(&second), ((2, 0, 2), 30, 0));
    world.master.stop().await;
}

#[actix::test]
async fn what_a_worker_that_does_not_answer_was_given_is_loaded_by_another() {
    let world = World::new().await;
    let names: Vec<String> = (0..20).map(|number| format!("f{number}")).collect();
    let objects: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 10)).collect();
    let _bucket = world.mount(&objects).await;
    let other = world.another_worker().await;
    world.worker.silent.lock().expect("no panic").insert(other);
    let id = world.submit().await;
    let job = world.ended(id).await;
    assert_eq!(
        (job.state, job.progress.files_loaded, job.progress.bytes_moved),
        (JobState::Done, 20, 200)
    );
    world.master.stop().await;
}

#[actix::test]
async fn a_file_fails_only_when_every_live_worker_has_failed_it() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20), ("c", 30), ("d", 40)]).await;
    let other = world.another_worker().await;
    for (key, at) in [("a", other), ("b", world.registered.worker)] {
        world.worker.decree(key, Fate::FailsOn(at, ErrorKind::UfsDenied));
    }
    world
        .worker
        .decree("d", Fate::Fails(u32::MAX, ErrorKind::NoSpace));
    let id = world.submit().await;
    let job = world.ended(id).await;
    let failed: Vec<_> = job.failures.iter().map(|failure| failure.path.as_str()).collect();
    assert_eq!((job.progress.files_loaded, failed), (3, vec!["/data/d"]));
    assert_eq!(world.worker.tries("d"), 2, "once by each");
    world.master.stop().await;
}

#[actix::test]
async fn a_job_finds_every_file_of_directories_of_several_pages() {
    let world = World::new().await;
    let bucket = world.mount(&[]).await;
    let directories = [("", 1_100), ("a", 3), ("m", 3), ("m/inner", 3), ("z", 3)];
    for (directory, files) in directories {
        let directory = bucket.path().join(directory);
        std::fs::create_dir_all(&directory).expect("room");
        // Names before, between and behind those of the directories, on two pages.
        for number in 0..files {
            let name = format!("{}-{number}", ["0", "n", "zz"][number % 3]);
            std::fs::write(directory.join(name), "x").expect("room");
        }
    }
    let id = world.submit().await;
    let job = world.ended(id).await;
    let count = directories.iter().map(|(_, files)| *files as u64).sum();
    let found = (job.progress.files_total, job.progress.files_loaded);
    assert_eq!((job.state, found), (JobState::Done, (count, count)));
    world.master.stop().await;
}

#[actix::test]
async fn a_plan_says_what_a_job_would_do_and_each_file_counts_once() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10), ("b", 20), ("c", 0)]).await;
    let paths: Vec<_> = ["/data/b", "/data", "/data"].map(path).into();
    let planned = || async {
        let paths = paths.clone();
        world.ask(PlanLoad { paths }).await.expect("planned")
    };
    let plan = planned().await;
    assert_eq!((plan.files, plan.bytes, plan.requests), (3, 30, 2));
    assert_eq!((plan.files_cached, plan.bytes_cached), (1, 0), "what is empty");
    assert_eq!(plan.bytes_to_fetch(), 30);
    let job = world
        .ask(SubmitLoad { paths: paths.clone() })
        .await
        .expect("taken");
    assert_eq!(job.paths, [path("/data")]);
    let job = world.ended(job.id).await;
    assert_eq!((job.progress.files_total, job.progress.bytes_total), (3, 30));
    let plan = planned().await;
    assert_eq!((plan.files_cached, plan.bytes_cached, plan.requests), (3, 30, 0));
    let outside = world
        .ask(PlanLoad {
            paths: vec![path("/")],
        })
        .await;
    assert_eq!(outside.expect("there is a mount below").files, 3);
    let nowhere = world.ask(PlanLoad { paths: vec![] }).await.map(|_| ());
    assert_eq!(
        nowhere.map_err(|error| error.kind),
        Err(ErrorKind::InvalidArgument)
    );
    world.master.stop().await;
}

#[test]
fn a_plan_counts_what_goes_and_what_has_no_room() {
    let plan = LoadPlan {
        bytes: 1_000,
        bytes_cached: 100,
        free_bytes: 300,
        evictable_bytes: 400,
        ..LoadPlan::default()
    };
    assert_eq!((plan.bytes_evicted(), plan.bytes_without_room()), (400, 200));
    let fits = LoadPlan {
        free_bytes: 800,
        ..plan
    };
    assert_eq!((fits.bytes_evicted(), fits.bytes_without_room()), (100, 0));
}

#[actix::test]
async fn a_job_of_too_many_paths_is_refused() {
    let world = World::new().await;
    let _bucket = world.mount(&[("a", 10)]).await;
    let too_many = SubmitLoad {
        paths: vec![path("/data/a"); curvine_protocol::job::PATHS_MAX + 1],
    };
    let refused = world.ask(too_many).await.map(|_| ());
    assert_eq!(
        refused.map_err(|error| error.kind),
        Err(ErrorKind::InvalidArgument)
    );
    world.master.stop().await;
}

#[actix::test]
async fn only_what_no_file_refers_to_is_deleted_when_it_is_reported() {
    let world = World::new().await;
    let create = CreateFile {
        replicas: 1,
        ..with_a_block("/f")
    };
    let layout = world.ask(create).await.expect("created");
    let block = layout.blocks[0].block.id.0;
    let garbage = |ids: &[u64]| -> Result<Vec<BlockId>> { Ok(ids.iter().map(|&id| BlockId(id)).collect()) };
    // Its file is just being written: assigned, not committed.
    assert_eq!(
        world.report(false, &[(block, 0), (999, 0)]).await,
        garbage(&[999])
    );
    assert_eq!(world.report(true, &[(block, 0)]).await, garbage(&[]));
    let commit = |generation| CommitFile {
        close: generation == 2,
        ..world.committed(layout.attr.inode, BlockId(block), 10, generation)
    };
    world.ask(commit(1)).await.expect("committed");
    // Being overwritten: the worker is ahead of what is committed.
    assert_eq!(world.report(false, &[(block, 2)]).await, garbage(&[]));
    world.ask(commit(2)).await.expect("committed");
    // A replica that missed it, and nobody else has said that it has better bytes.
    assert_eq!(world.report(false, &[(block, 1)]).await, garbage(&[]));
    assert_eq!(world.report(false, &[(block, 2)]).await, garbage(&[]));
    let unlink = Unlink {
        node: Node::Path(path("/f")),
        keep_open: false,
        closed: Vec::new(),
        holders: None,
    };
    world.ask(unlink).await.expect("deleted");
    assert_eq!(world.report(true, &[(block, 2)]).await, garbage(&[block]));
    world.master.stop().await;
}

#[actix::test]
async fn a_lease_that_was_not_given_back_is_given_on_when_workers_refuse_its_last_holder() {
    let world = World::new().await;
    let by = |client, sequence| CallContext {
        client: ClientId(client),
        sequence,
        ..NO_ONE
    };
    let port = &*world.master.port;
    let create = with_a_block("/f");
    let made = call(port, create, by(1, 1)).await.expect("created");
    let (inode, block) = (made.attr.inode, made.blocks[0].block.id);
    let commit = |close| CommitFile {
        close,
        ..world.committed(inode, block, 10, 1)
    };
    let open = || OpenForWrite {
        node: Node::Inode(inode),
        follow: false,
        truncate: false,
        open: 0,
        named: false,
    };
    let fences = || std::mem::take(&mut *world.worker.fences.lock().expect("no panic"));
    call(port, commit(true), by(1, 2)).await.expect("committed");
    call(port, open(), by(1, 3)).await.expect("opened");
    assert_eq!(fences(), [], "it was given back");
    call(port, EndSession {}, by(1, 0)).await.expect("ended");

    let next = call(port, open(), by(2, 1)).await.expect("opened");
    let fence = FenceBlocks {
        blocks: vec![block],
        generation: next.attr.next_generation(),
    };
    assert_eq!(fences(), std::slice::from_ref(&fence));
    // Its reply was lost.
    call(port, open(), by(2, 1)).await.expect("opened");
    assert_eq!(fences(), [], "that they were told is in the log");
    call(port, commit(true), by(2, 2)).await.expect("committed");
    call(port, open(), by(2, 3)).await.expect("opened");
    assert_eq!(fences(), [], "whoever commits was fenced in");
    world.master.stop().await;
}

#[actix::test]
async fn a_worker_must_register_with_a_master_that_restarted_and_keeps_its_id() {
    let world = World::new().await;
    let before = world.registered.clone();
    let world = world.restarted().await;
    assert_eq!(world.registered.worker, before.worker);
    assert_ne!(world.registered.token, before.token);
    let beat = |token| WorkerHeartbeat {
        worker: before.worker,
        token,
        disks: Vec::new(),
        traffic: Vec::new(),
        hot: Vec::new(),
    };
    let orders = world.ask(beat(before.token)).await.expect("answered");
    assert!(orders.register, "an old token is not known");
    let orders = world.ask(beat(world.registered.token)).await.expect("answered");
    assert!(!orders.register);
    let report = ReportBlocks {
        full_start: true,
        full_end: true,
        ..ReportBlocks::nothing(before.worker, before.token)
    };
    let refused = world.ask(report).await.map(|_| ());
    assert_eq!(refused.map_err(|e| e.kind), Err(ErrorKind::NotPermitted));
    let secret = ResolveMount {
        worker: before.worker,
        token: before.token,
        mount: MountId(1),
    };
    let refused = world.ask(secret).await.map(|_| ());
    assert_eq!(refused.map_err(|e| e.kind), Err(ErrorKind::NotPermitted));
    world.master.stop().await;
}

#[actix::test]
async fn a_block_report_that_comes_after_a_later_one_is_refused() {
    let world = World::new().await;
    let report = |number, full| ReportBlocks {
        full_start: full,
        full_end: full,
        number,
        ..ReportBlocks::nothing(world.registered.worker, world.registered.token)
    };
    world.ask(report(3, false)).await.expect("taken");
    world
        .ask(report(3, false))
        .await
        .expect("its answer may have been lost");
    let refused = world.ask(report(2, true)).await.map(|_| ());
    assert_eq!(refused.map_err(|e| e.kind), Err(ErrorKind::Stale));
    world.ask(report(4, true)).await.expect("taken");
    world.ask(report(0, false)).await.expect("of a version before");
    world.master.stop().await;
}

#[actix::test]
async fn a_worker_says_what_it_has_set_aside_and_hears_what_of_it_is_no_use() {
    let world = World::new().await;
    let by = |client, sequence| CallContext {
        client: ClientId(client),
        sequence,
        ..NO_ONE
    };
    let port = &*world.master.port;
    let create = with_a_block("/f");
    let layout = call(port, create, by(1, 1)).await.expect("created");
    let block = layout.blocks[0].block;
    let commit = CommitFile {
        close: true,
        ..world.committed(layout.attr.inode, block.id, 5, layout.attr.next_generation())
    };
    call(port, commit, by(1, 2)).await.expect("committed");
    let generation = layout.attr.next_generation();
    let replica = BlockReplica {
        id: block.id,
        generation,
        len_bytes: 5,
    };
    let report = |stored: &[BlockReplica], damaged: &[BlockId]| ReportBlocks {
        full_start: true,
        full_end: true,
        stored: stored.to_vec(),
        damaged: damaged.to_vec(),
        ..ReportBlocks::nothing(world.registered.worker, world.registered.token)
    };
    let damaged = async || {
        let open = OpenFile {
            node: Node::Path(path("/f")),
            follow: true,
            open: 0,
        };
        world.ask(open).await.expect("located").damaged
    };
    world.ask(report(&[replica], &[])).await.expect("taken");
    assert_eq!(damaged().await, []);
    let answer = world.ask(report(&[], &[block.id, BlockId(1 << 40)])).await;
    assert_eq!(answer.expect("taken").discard, [BlockId(1 << 40)], "of no file");
    let expected = DamagedBlock {
        block: block.id,
        workers: vec![world.registered.worker],
        unheard: Vec::new(),
    };
    assert_eq!(damaged().await, [expected]);
    // It has another one by now.
    let answer = world.ask(report(&[replica], &[block.id])).await;
    assert_eq!(answer.expect("taken").discard, [block.id]);
    assert_eq!(damaged().await, []);
    world.master.stop().await;
}

#[actix::test]
async fn a_link_is_refused_for_either_end_in_a_mount_and_the_refusal_names_that_end() {
    let world = World::new().await;
    let _read_only = world.mount(&[("a", 1)]).await;
    let bucket = tempfile::tempdir().expect("a scratch directory");
    std::fs::write(bucket.path().join("a"), "1").expect("room");
    let mount = MountUfs {
        path: path("/writable"),
        uri: format!("file://{}", bucket.path().display()),
        options: Default::default(),
        settings: MountSettings {
            writable: true,
            ..MountSettings::default()
        },
    };
    world.ask(mount).await.expect("mounted");
    for (source, node, kind, named) in [
        ("/data/a", "/data/b", ErrorKind::ReadOnly, "/data/b"),
        ("/data/a", "/b", ErrorKind::ReadOnly, "/data/a"),
        ("/data/a", "/writable/b", ErrorKind::ReadOnly, "/data/a"),
        ("/writable/a", "/data/b", ErrorKind::ReadOnly, "/data/b"),
        (
            "/writable/a",
            "/writable/b",
            ErrorKind::Unsupported,
            "/writable/b",
        ),
    ] {
        let link = MakeLink {
            source: path(source).into(),
            node: path(node).into(),
        };
        let error = world.ask(link).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{source} to {node}: {error}");
        let starts = error.message.starts_with(&format!("{named}: "));
        assert!(starts, "{source} to {node}: {error}");
    }
}

#[actix::test]
async fn a_tree_deeper_than_a_path_can_say_is_counted_and_freed() {
    let world = World::new().await;
    let mut parent = InodeId::ROOT;
    let depth = 20;
    for _ in 0..depth {
        let directory = MakeDir {
            node: Node::child(parent, "d".repeat(255)),
            mode: 0o755,
            parents: false,
            unmasked: None,
        };
        parent = world.ask(directory).await.expect("made").attr.inode;
    }
    let summary = world
        .ask(Summarize {
            node: path("/").into(),
        })
        .await;
    assert_eq!(summary.expect("counted").directories, depth + 1);
    let freed = world.ask(FreeCache { path: path("/") }).await;
    assert_eq!(freed, Ok(Freed::default()));
    world.master.stop().await;
}
