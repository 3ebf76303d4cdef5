//! Loads of a cluster of processes: three masters, two workers, and a store that takes its time.

use curvine_actors::client::Client;
use curvine_protocol::job::{JobRecord, JobState};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, JobId};

use super::group::*;
use super::slow_store::SlowStore;
use super::support::*;

const MIB: u64 = 1 << 20;

struct Cluster {
    // Dropped in this order.
    workers: Vec<Node>,
    masters: Masters,
    client: Client,
}

impl Cluster {
    async fn start(store: &SlowStore) -> Cluster {
        let masters = Masters::start(3);
        let client = masters.client().await;
        let workers = vec![masters.worker(1), masters.worker(2)];
        let settings = MountSettings::default();
        let mounted = client.mount(&top(), store.uri(), store.options(), settings).await;
        mounted.expect("the store answers");
        Cluster {
            workers,
            masters,
            client,
        }
    }

    async fn load(&self) -> JobId {
        self.client.submit_load(vec![top()]).await.expect("taken").id
    }

    async fn until(&self, id: JobId, what: &str, holds: impl Fn(&JobRecord) -> bool) -> JobRecord {
        until(what, async || {
            let job = self.client.job(id).await.expect("a master leads");
            holds(&job).then_some(job)
        })
        .await
    }

    async fn ended(&self, id: JobId) -> JobRecord {
        self.until(id, "the job ends", |job| job.state.is_ended()).await
    }
}

fn top() -> CurvinePath {
    CurvinePath::parse("/slow").expect("a valid path")
}

#[test]
fn a_load_that_is_cancelled_has_its_transfers_ended_and_says_what_they_had_brought() {
    run(async {
        let store = SlowStore::start(1, 64 * MIB, 1_000);
        let cluster = Cluster::start(&store).await;
        let led = leader(&cluster.client).await;
        let id = cluster.load().await;
        let moves = |job: &JobRecord| job.progress.bytes_moved > 0;
        let moving = cluster.until(id, "bytes are counted as they come", moves).await;
        assert_eq!(
            (moving.state, moving.progress.files_loaded),
            (JobState::Running, 0)
        );
        let cancelled = cluster.client.cancel_job(id).await.expect("it runs");
        assert_eq!(cancelled.state, JobState::Cancelled);
        until("nothing is sent any more", async || {
            (store.sending() == 0).then_some(())
        })
        .await;
        let moved = cancelled.progress.bytes_moved;
        assert!(
            moving.progress.bytes_moved <= moved && moved <= store.sent_bytes(),
            "{cancelled:?}"
        );
        assert!(
            store.sent_bytes() < 64 * MIB,
            "{} of 64 MiB were sent",
            store.sent_bytes()
        );
        assert_eq!(
            leader(&cluster.client).await,
            led,
            "a load does its master no harm"
        );
        // What had arrived is not fetched again.
        store.hurry();
        let id = cluster.load().await;
        let done = cluster.ended(id).await;
        assert_eq!((done.state, done.progress.files_loaded), (JobState::Done, 1));
        assert!(done.progress.bytes_moved < 64 * MIB, "{done:?}");
    });
}

#[test]
fn a_worker_that_is_killed_during_a_load_costs_no_file() {
    run(async {
        let store = SlowStore::start(12, 4 * MIB, 20);
        let mut cluster = Cluster::start(&store).await;
        let id = cluster.load().await;
        let under_way = |job: &JobRecord| job.progress.bytes_moved > 8 * MIB;
        cluster.until(id, "some of it is loaded", under_way).await;
        cluster.workers[0].kill();
        let job = cluster.ended(id).await;
        assert_eq!(job.state, JobState::Done, "{job:?}");
        assert_eq!((job.progress.files_loaded, job.progress.files_failed), (12, 0));
        assert_eq!(job.progress.bytes_done, 48 * MIB);
    });
}

#[test]
fn a_load_goes_on_with_true_numbers_when_its_leader_is_killed() {
    run(async {
        let store = SlowStore::start(80, MIB, 30);
        let mut cluster = Cluster::start(&store).await;
        let id = cluster.load().await;
        // As a checkpoint of the job has it: the next leader knows of it.
        let under_way = |job: &JobRecord| job.progress.files_loaded >= 10;
        cluster.until(id, "some files are loaded", under_way).await;
        let led = leader(&cluster.client).await;
        cluster.masters.kill(led);
        let job = cluster.ended(id).await;
        let progress = &job.progress;
        assert_eq!(
            (job.state, progress.files_total, progress.files_failed),
            (JobState::Done, 80, 0)
        );
        assert_eq!(progress.files_loaded + progress.files_already, 80);
        assert_eq!((progress.bytes_total, progress.bytes_done), (80 * MIB, 80 * MIB));
        assert!(progress.bytes_moved <= 80 * MIB, "{progress:?}");
    });
}
