//! Mounts of which a worker on a reader's own host keeps a copy.

use std::collections::BTreeMap;

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::mount::{MountChanges, MountSettings, MountTraffic};
use curvine_protocol::{CurvinePath, WorkerId};

use super::group::*;
use super::support::*;

const MIB: u64 = 1 << 20;
/// Some of them are fetched in parts.
const FILES: u64 = 6;
const FILE_BYTES: u64 = 3 * MIB + 5;

fn path(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a valid path")
}

fn file(number: u64) -> CurvinePath {
    path(&format!("/m/f{number}"))
}

fn content(number: u64) -> Vec<u8> {
    (0..FILE_BYTES)
        .map(|at| (at / 11 + number).to_le_bytes()[0])
        .collect()
}

async fn read_all(client: &Client) {
    for number in 0..FILES {
        let read = client.read(&file(number)).await.expect("readable");
        assert!(read == content(number), "file {number}");
    }
}

async fn traffic(client: &Client) -> MountTraffic {
    let mounts = client.mounts().await.expect("a master leads");
    mounts[0].traffic.expect("it is asked for")
}

/// Which workers a client is sent to first.
async fn first(client: &Client) -> Vec<WorkerId> {
    let mut first = Vec::new();
    for number in 0..FILES {
        let layout = client.locate(&file(number)).await.expect("it is there");
        first.extend(layout.blocks[0].workers.first());
    }
    first
}

#[test]
fn the_second_epoch_is_read_on_the_readers_host_and_nothing_is_fetched_twice() {
    run(async {
        let masters = Masters::start(1);
        let on_host = async |host: &str| {
            let connected = Client::connect(masters.addresses.clone(), ClientOptions::on_host(host)).await;
            connected.expect("a master leads")
        };
        let mut workers = [masters.worker_at(1, "host=a"), masters.worker_at(2, "host=b")];
        let bucket = tempfile::tempdir().expect("a scratch directory");
        for number in 0..FILES {
            std::fs::write(bucket.path().join(format!("f{number}")), content(number)).expect("room");
        }
        let (a, b) = (on_host("a").await, on_host("b").await);
        let uri = format!("file://{}", bucket.path().display());
        let at = path("/m");
        let mounted = a.mount(&at, &uri, BTreeMap::new(), MountSettings::default());
        mounted.await.expect("mounted");
        let status = a.status().await.expect("a master leads");
        let on = |host: &str| {
            let worker = status.workers.iter().find(|worker| worker.labels.host == host);
            worker.expect("it is registered").id
        };

        // Without it, each block is where it was fetched for everybody.
        read_all(&a).await;
        let holders = first(&a).await;
        assert_eq!(first(&b).await, holders);
        assert!(
            holders.contains(&on("a")) && holders.contains(&on("b")),
            "{holders:?}"
        );
        let changes = MountChanges {
            locality: Some(true),
            ..MountChanges::default()
        };
        a.update_mount(&at, changes).await.expect("updated");
        until("the workers have been heard since", async || {
            let is_local = first(&b).await.iter().all(|worker| *worker == on("b"));
            is_local.then_some(())
        })
        .await;
        assert_eq!(first(&a).await, vec![on("a"); 6]);
        let all_bytes = FILES * FILE_BYTES;
        read_all(&b).await;
        let two_of_some = until("the copies are told of", async || {
            let traffic = traffic(&a).await;
            (traffic.cached_bytes > all_bytes + FILE_BYTES).then_some(traffic)
        })
        .await;
        assert_eq!(
            two_of_some.fetched_bytes, all_bytes,
            "copies came from the other worker"
        );

        // The second epoch needs no other host, and not the store.
        workers[0].kill();
        read_all(&b).await;
        until("each file is on that host", async || {
            let mut workers = Vec::new();
            for number in 0..FILES {
                workers.push(b.locate(&file(number)).await.ok()?.blocks[0].workers.clone());
            }
            workers.iter().all(|workers| *workers == [on("b")]).then_some(())
        })
        .await;
        for number in 0..FILES {
            let why = b.explain_on(
                on("b"),
                vec![b.locate(&file(number)).await.expect("there").blocks[0].block.id],
            );
            let account = why.await.expect("it answers").remove(0);
            let held = account.held.expect("a copy of it is here");
            assert!(held.cached && held.present_bytes == FILE_BYTES, "{held:?}");
        }
        assert_eq!(traffic(&b).await.fetched_bytes, all_bytes);
    });
}
