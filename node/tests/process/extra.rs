//! Extra copies: of what is hot, and of what a mount wants on several workers.

use std::collections::BTreeMap;
use std::time::Duration;

use curvine_actors::client::Client;
use curvine_protocol::job::JobState;
use curvine_protocol::mount::{MountChanges, MountSettings, MountTraffic};
use curvine_protocol::{CurvinePath, WorkerId};

use super::group::*;
use super::support::*;

const FILE_BYTES: u64 = 3 << 20;
const FILES: u64 = 4;
/// Passes of readers that make a block hot, and a few more; each of them counts if it begins a second after the last one.
const PASSES: usize = 12;
const BETWEEN_PASSES: Duration = Duration::from_millis(1_010);

fn path(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a valid path")
}

fn content(number: u64) -> Vec<u8> {
    (0..FILE_BYTES)
        .map(|at| (at / 13 + number * 5).to_le_bytes()[0])
        .collect()
}

async fn holders(client: &Client, path: &CurvinePath) -> Vec<WorkerId> {
    let layout = client.locate(path).await.expect("it is there");
    layout.blocks[0].workers.clone()
}

async fn traffic(client: &Client) -> MountTraffic {
    let mounts = client.mounts().await.expect("a master leads");
    mounts[0].traffic.expect("it is asked for")
}

/// The process of a worker.
fn process(workers: &[Node], addresses: &BTreeMap<WorkerId, String>, id: WorkerId) -> usize {
    let found = workers
        .iter()
        .position(|node| *node.said("worker") == addresses[&id]);
    found.expect("it is ours")
}

async fn addresses(client: &Client) -> BTreeMap<WorkerId, String> {
    let status = client.status().await.expect("a master leads");
    let workers = status.workers.into_iter();
    workers.map(|worker| (worker.id, worker.address)).collect()
}

#[test]
fn what_is_read_again_and_again_gets_copies_and_those_serve_without_the_first() {
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let mut workers: Vec<_> = (1..=3).map(|number| masters.worker(number)).collect();
        let bucket = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(bucket.path().join("cached"), content(1)).expect("room");
        let uri = format!("file://{}", bucket.path().display());
        let at = path("/m");
        let mounted = client.mount(&at, &uri, BTreeMap::new(), MountSettings::default());
        mounted.await.expect("mounted");
        let (kept, cached) = (path("/kept"), path("/m/cached"));
        client.write(&kept, content(2)).await.expect("written");
        for _ in 0..PASSES {
            assert!(client.read(&cached).await.expect("readable") == content(1));
            assert!(client.read(&kept).await.expect("readable") == content(2));
            tokio::time::sleep(BETWEEN_PASSES).await;
        }
        for path in [&kept, &cached] {
            until("there is another copy", async || {
                (holders(&client, path).await.len() == 2).then_some(())
            })
            .await;
        }
        assert_eq!(
            traffic(&client).await.fetched_bytes,
            FILE_BYTES,
            "the copy came from the other worker"
        );
        let repair = {
            let status = client.status().await.expect("a master leads");
            let duty = status.duties.into_iter().find(|duty| duty.name == "repair");
            duty.expect("there is one").doing
        };
        assert!(repair.contains("; extra copies made: 2"), "{repair}");

        // Each is read without the worker that had it alone.
        let addresses = addresses(&client).await;
        let gone = holders(&client, &kept).await[0];
        let gone_at = process(&workers, &addresses, gone);
        workers[gone_at].kill();
        assert!(client.read(&kept).await.expect("readable") == content(2));
        assert!(client.read(&cached).await.expect("readable") == content(1));
    });
}

#[test]
fn a_mount_that_wants_two_of_each_has_them_and_fetches_once() {
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let mut workers: Vec<_> = (1..=3).map(|number| masters.worker(number)).collect();
        let bucket = tempfile::tempdir().expect("a scratch directory");
        for number in 0..FILES {
            std::fs::write(bucket.path().join(format!("f{number}")), content(number)).expect("room");
        }
        let uri = format!("file://{}", bucket.path().display());
        let settings = MountSettings {
            replicas: Some(2),
            writable: true,
            ..MountSettings::default()
        };
        let at = path("/m");
        let mounted = client.mount(&at, &uri, BTreeMap::new(), settings);
        mounted.await.expect("mounted");
        let new = path("/m/new");
        client.write(&new, content(9)).await.expect("written");
        assert_eq!(client.stat(&new).await.expect("there").replicas, 2);
        assert_eq!(holders(&client, &new).await.len(), 2);
        let job = client.submit_load(vec![at.clone()]).await.expect("taken").id;
        let ended = until("the job ends", async || {
            let job = client.job(job).await.expect("a master leads");
            job.state.is_ended().then_some(job)
        })
        .await;
        assert_eq!(ended.state, JobState::Done, "{ended:?}");
        let two_of_each = async |client: &Client| {
            until("two workers have each of them", async || {
                for number in 0..FILES {
                    let holders = holders(client, &path(&format!("/m/f{number}"))).await;
                    if holders.len() < 2 {
                        return None;
                    }
                }
                Some(())
            })
            .await;
        };
        two_of_each(&client).await;
        let fetched_bytes = traffic(&client).await.fetched_bytes;
        assert_eq!(
            fetched_bytes,
            FILES * FILE_BYTES,
            "copies came from other workers"
        );

        // Without one of the workers, nothing is fetched for readers.
        let addresses = addresses(&client).await;
        let gone = holders(&client, &path("/m/f0")).await[0];
        let gone_at = process(&workers, &addresses, gone);
        workers[gone_at].kill();
        for number in 0..FILES {
            let read = client.read(&path(&format!("/m/f{number}"))).await;
            assert!(read.expect("readable") == content(number), "file {number}");
        }
        until("the worker is known to be gone", async || {
            let others = holders(&client, &path("/m/f0")).await;
            (!others.contains(&gone)).then_some(())
        })
        .await;
        assert_eq!(traffic(&client).await.fetched_bytes, fetched_bytes);
        let as_usual = MountChanges {
            replicas: Some(0),
            ..MountChanges::default()
        };
        let mount = client.update_mount(&at, as_usual).await.expect("updated");
        assert_eq!(mount.settings.replicas, None);
    });
}
