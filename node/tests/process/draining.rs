//! Workers that are taken out of service: for good, or for a while.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::cluster::{WorkerService, WorkerStatus};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, ErrorKind, WorkerId};

use super::group::*;
use super::support::*;

/// None while a new leader has not heard of it.
async fn worker(client: &Client, id: WorkerId) -> Option<WorkerStatus> {
    let workers = client.status().await.expect("a master leads").workers;
    workers.into_iter().find(|worker| worker.id == id)
}

async fn service(client: &Client, id: WorkerId) -> Option<WorkerService> {
    Some(worker(client, id).await?.service)
}

async fn holders(client: &Client, path: &CurvinePath) -> Vec<WorkerId> {
    let layout = client.locate(path).await.expect("it is there");
    layout
        .blocks
        .iter()
        .flat_map(|located| located.workers.clone())
        .collect()
}

/// From those that are in the index to those of several chunks.
fn content(number: usize) -> Bytes {
    let len = 10 + number * 70_000;
    (0..len).map(|at| (at * 7 + number).to_le_bytes()[0]).collect()
}

async fn put(client: &Client, path: &CurvinePath, bytes: Bytes) {
    let file = client
        .create(path, CreateOptions::default())
        .await
        .expect("created");
    file.append(bytes).await.expect("taken");
    file.close().await.expect("closed");
}

#[test]
fn a_worker_is_drained_when_all_it_kept_is_elsewhere_also_what_was_open_and_over_a_failover() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let mut workers: Vec<Node> = (1..=3).map(|number| masters.worker(number)).collect();
        for number in 0..12 {
            put(&client, &path(&format!("f{number}")), content(number)).await;
        }
        let writer = masters.client().await;
        let open = path("open");
        let file = writer
            .create(&open, CreateOptions::default())
            .await
            .expect("created");
        file.append(content(3)).await.expect("taken");
        file.flush().await.expect("flushed");
        let leaves = holders(&client, &open).await[0];

        client
            .set_worker_service(leaves, WorkerService::Draining)
            .await
            .expect("it is known");
        until("all but the open file is elsewhere", async || {
            let left = worker(&client, leaves).await?.drain_left?;
            (left.blocks == 0 && left.open_blocks == 1).then_some(())
        })
        .await;
        assert_eq!(service(&client, leaves).await, Some(WorkerService::Draining));
        put(&client, &path("new"), content(2)).await;
        assert!(!holders(&client, &path("new")).await.contains(&leaves));

        let led = leader(&client).await;
        masters.kill(led);
        masters.start_again(led);
        file.append(content(4)).await.expect("taken");
        file.close().await.expect("closed");
        until("it is drained", async || {
            let service = service(&client, leaves).await;
            (service == Some(WorkerService::Drained)).then_some(())
        })
        .await;

        let address = worker(&client, leaves).await.expect("it is registered").address;
        let gone = workers.iter().position(|node| node.said("worker") == address);
        workers[gone.expect("it is ours")].kill();
        for number in 0..12 {
            let read = client.read(&path(&format!("f{number}"))).await.expect("read");
            assert_eq!(read, content(number), "file {number}");
        }
        let written = [content(3), content(4)].concat();
        assert_eq!(client.read(&open).await.expect("read"), written);
    });
}

#[test]
fn a_worker_in_maintenance_takes_nothing_new_and_is_not_replaced_and_nobody_says_that_one_is_drained() {
    run(async {
        let masters = Masters::start(1);
        let client = masters.client().await;
        let mut workers: Vec<Node> = (1..=2).map(|number| masters.worker(number)).collect();
        let replicated = CreateOptions {
            replicas: 2,
            ..CreateOptions::default()
        };
        let both = path("both");
        let file = client.create(&both, replicated).await.expect("created");
        file.append(content(2)).await.expect("taken");
        file.close().await.expect("closed");
        let id = WorkerId(1);
        let soon = SystemTime::now() + Duration::from_secs(3_600);
        let until_ns = soon.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let until_ns = i64::try_from(until_ns).expect("before 2262");
        let away = WorkerService::Maintenance { until_ns };
        client.set_worker_service(id, away).await.expect("it is known");
        for number in 0..4 {
            let path = path(&format!("f{number}"));
            put(&client, &path, content(number)).await;
            assert_eq!(holders(&client, &path).await, [WorkerId(2)]);
        }
        assert_eq!(holders(&client, &both).await.len(), 2, "what it has counts");

        client
            .set_worker_service(id, WorkerService::InService)
            .await
            .expect("it is known");
        assert_eq!(service(&client, id).await, Some(WorkerService::InService));
        for (worker, service, kind) in [
            (id, WorkerService::Drained, ErrorKind::InvalidArgument),
            (
                id,
                WorkerService::Maintenance { until_ns: 1 },
                ErrorKind::InvalidArgument,
            ),
            (WorkerId(77), WorkerService::Draining, ErrorKind::NotFound),
        ] {
            let refused = client.set_worker_service(worker, service).await;
            assert_eq!(refused.map_err(|error| error.kind), Err(kind));
        }

        // Nowhere to go: it stays as it is, and says how much is left.
        client
            .set_worker_service(WorkerId(2), WorkerService::Draining)
            .await
            .expect("it is known");
        client
            .set_worker_service(id, WorkerService::Draining)
            .await
            .expect("it is known");
        let create = client.create(&path("nowhere"), CreateOptions::default()).await;
        let refused = match create {
            Ok(file) => file.append(content(1)).await.map(drop).and(file.close().await),
            Err(error) => Err(error),
        };
        let refused = refused.expect_err("nobody takes it");
        assert!(refused.message.contains("in service"), "{refused}");
        until("it is looked at", async || {
            let left = worker(&client, WorkerId(2)).await?.drain_left?;
            (left.blocks == 5 && to_usize(left.len_bytes) > 4 * 70_000).then_some(())
        })
        .await;
        workers.iter_mut().for_each(|worker| worker.stop());
    });
}
