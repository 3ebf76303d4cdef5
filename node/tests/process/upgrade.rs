//! A cluster that gets another version one process at a time, while clients go on.
//!
//! `CURVINE_OLD_NODE` names the `curvine-node` of a version before, to begin with. Without it all run this one, which
//! is a restart one by one.

use std::path::PathBuf;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};

use super::group::*;
use super::masters::{Making, all_there};
use super::support::*;

fn old_node() -> PathBuf {
    std::env::var_os("CURVINE_OLD_NODE").map_or(program::node().to_owned(), PathBuf::from)
}

async fn write(client: &Client, name: &str) {
    let file = client.create(&path(name), CreateOptions::default()).await;
    let file = file.expect("created");
    file.append(content(name)).await.expect("taken");
    file.close().await.expect("closed");
}

/// More than is kept in an index.
fn content(name: &str) -> Bytes {
    Bytes::from(name.repeat(100_000))
}

#[test]
fn a_cluster_is_upgraded_process_by_process_and_nothing_is_lost_or_refused() {
    run(async {
        let mut masters = Masters::named(3);
        masters.programs.fill(old_node());
        masters.start_all_of(&[0, 1, 2]);
        let addresses = masters.addresses.join(",");
        let directory = masters.scratch.path().join("worker");
        let worker_of = |program: PathBuf| {
            let args = [
                "--role",
                "worker",
                "--master",
                &addresses,
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
                text(&directory),
            ];
            Node::starting_of(&program, None, &args).ready()
        };
        let mut worker = worker_of(old_node());
        let client = masters.client().await;
        let making = Making::begin(client.clone(), "d");
        write(&client, "before").await;
        client.take_snapshot().await.expect("taken");
        making.more().await;

        // The leader last: it hands over to one of the new version.
        let leads = leader(&client).await;
        for number in [(leads + 1) % 3, (leads + 2) % 3, leads] {
            let mut node = masters.nodes[number].take().expect("it runs");
            node.stop();
            masters.programs[number] = program::node().to_owned();
            masters.start_again(number);
            all_in_step(&client).await;
            making.more().await;
            write(&client, &format!("with-new-{number}")).await;
            // Leaders of both versions have followers of the other one.
            for to in statuses(&client).await {
                client
                    .transfer_leadership(Some(to.id))
                    .await
                    .expect("it is in step");
                making.more().await;
            }
        }
        worker.stop();
        worker = worker_of(program::node().to_owned());

        let (made, longest) = making.end().await;
        eprintln!("{made} directories over an upgrade of three masters; the longest took {longest:?}");
        all_there(&client, "d", made).await;
        for name in ["before", "with-new-0", "with-new-1", "with-new-2"] {
            assert_eq!(
                client.read(path(name)).await.expect("read"),
                content(name),
                "{name}"
            );
        }
        drop(worker);
    });
}
