//! Workers that are made equally full.

use std::collections::BTreeMap;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::master::{BalanceOutcome, BalanceStatus};
use curvine_protocol::{ErrorKind, WorkerId};

use super::group::*;
use super::support::*;

const CAPACITY_MIB: u64 = 100;
const FILES: usize = 60;

/// From those that are in the index to those of 1 MiB.
fn content(number: usize) -> Bytes {
    let len = 10 + number * (1 << 20) / FILES;
    (0..len).map(|at| (at * 7 + number).to_le_bytes()[0]).collect()
}

/// Two replicas of every third.
fn replicas(number: usize) -> u8 {
    if number.is_multiple_of(3) { 2 } else { 1 }
}

fn name(number: usize) -> String {
    format!("f{number}")
}

async fn put(client: &Client, number: usize) {
    let options = CreateOptions {
        replicas: replicas(number),
        ..CreateOptions::default()
    };
    let file = client
        .create(&path(&name(number)), options)
        .await
        .expect("created");
    file.append(content(number)).await.expect("taken");
    file.close().await.expect("closed");
}

async fn ended(client: &Client) -> BalanceStatus {
    until("it ends", async || {
        let status = client.balance().await.ok()?;
        status.run.is_none().then_some(status)
    })
    .await
}

/// How many blocks each worker has, where every file is whole on as many as it is to be.
async fn blocks(client: &Client) -> BTreeMap<WorkerId, usize> {
    let mut blocks = BTreeMap::new();
    for number in 0..FILES {
        let read = client.read(&path(&name(number))).await.expect("read");
        assert_eq!(read, content(number), "file {number}");
        let layout = client.locate(&path(&name(number))).await.expect("it is there");
        let workers = &layout.blocks[0].workers;
        assert_eq!(workers.len(), usize::from(replicas(number)), "file {number}");
        workers
            .iter()
            .for_each(|worker| *blocks.entry(*worker).or_default() += 1);
    }
    blocks
}

#[test]
fn blocks_go_to_workers_that_are_new_until_all_are_alike_also_over_a_failover() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let mut workers: Vec<Node> = (1..=2)
            .map(|number| masters.small_worker(number, CAPACITY_MIB))
            .collect();
        for number in 0..FILES {
            put(&client, number).await;
        }
        let before = blocks(&client).await;
        workers.extend((3..=4).map(|number| masters.small_worker(number, CAPACITY_MIB)));
        for tolerance in [0, 51] {
            let refused = client.set_balance(Some(tolerance)).await;
            assert_eq!(
                refused.map_err(|error| error.kind),
                Err(ErrorKind::InvalidArgument)
            );
        }
        client.set_balance(Some(2)).await.expect("it begins");
        until("some have moved", async || {
            let status = client.balance().await.ok()?;
            (status.moved_blocks > 0).then_some(())
        })
        .await;
        let led = leader(&client).await;
        masters.kill(led);
        let status = ended(&client).await;
        assert_eq!(
            status.ended.map(|ended| ended.how),
            Some(BalanceOutcome::Balanced),
            "{status:?}"
        );
        assert_eq!(status.workers.len(), 4);
        let kept: Vec<u64> = status.workers.iter().map(|share| share.kept_bytes).collect();
        let (least, most) = (kept.iter().min().expect("four"), kept.iter().max().expect("four"));
        let tolerated_bytes = CAPACITY_MIB * (1 << 20) / 100 * 4;
        assert!(most - least <= tolerated_bytes, "{kept:?}");
        let after = blocks(&client).await;
        let sum = |blocks: &BTreeMap<WorkerId, usize>| blocks.values().sum::<usize>();
        assert_eq!(sum(&after), sum(&before));
        assert!(after[&WorkerId(3)] > 5 && after[&WorkerId(4)] > 5, "{after:?}");
        masters.start_again(led);

        // All is well: it ends at once, and does nothing.
        client.set_balance(Some(5)).await.expect("it begins");
        let status = ended(&client).await;
        assert_eq!(
            (status.ended.map(|ended| ended.how), status.moved_blocks),
            (Some(BalanceOutcome::Balanced), 0)
        );
        workers.iter_mut().for_each(|worker| worker.stop());
    });
}
