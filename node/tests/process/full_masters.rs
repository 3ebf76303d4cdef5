//! Full disks in a group of masters: whoever has room leads, and no client sees an error.

use std::time::{Duration, Instant};

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::{ErrorKind, NodeId};

use super::disks::Filler;
use super::group::{Masters, all_in_step, leader, path};
use super::masters::{Making, all_there};
use super::support::*;

/// Starts three, some of which have their data in a directory elsewhere.
fn start_with(mut masters: Masters, small: &[usize], elsewhere: &std::path::Path) -> Masters {
    for number in small {
        let directory = elsewhere.join(number.to_string());
        std::fs::create_dir(&directory).expect("room");
        std::os::unix::fs::symlink(&directory, masters.directory(*number)).expect("it is new");
    }
    let starting: Vec<_> = (0..3).map(|number| masters.starting(number)).collect();
    masters.nodes = starting.into_iter().map(|node| Some(node.ready())).collect();
    masters
}

async fn has_led_by(client: &Client, number: usize) {
    let to = NodeId(number as u64 + 1);
    until("it leads", async || {
        client.transfer_leadership(Some(to)).await.ok()
    })
    .await;
    assert_eq!(leader(client).await, number);
}

#[test]
fn a_leader_whose_disk_fills_up_hands_over_and_follows_when_there_is_space() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(mounted) = Mounted::tmpfs(dir.path().join("disk"), "a full disk of a leader", 64) else {
        return;
    };
    // Killed before the file system is unmounted: dropped first.
    let masters = start_with(Masters::named(3), &[0], &mounted.path);
    run(async {
        let client = masters.client().await;
        let making = Making::begin(client.clone(), "d");
        // To the last byte, in the middle of a write; then only what the master keeps back.
        for left_bytes in [0, 2 << 20] {
            has_led_by(&client, 0).await;
            making.more().await;
            let begun = Instant::now();
            let filler = Filler::but(&mounted.path, left_bytes);
            until("another leads", async || {
                (leader(&client).await != 0).then_some(())
            })
            .await;
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(10), "another led after {took:?}");
            eprintln!("with {left_bytes} bytes left, another led after {took:?}");
            making.more().await;
            let refused = client.transfer_leadership(Some(NodeId(1))).await;
            let refused = refused.expect_err("it is full");
            assert_eq!(refused.kind, ErrorKind::NoSpace, "{refused}");
            drop(filler);
            all_in_step(&client).await;
        }
        // It is a voter like any other again.
        has_led_by(&client, 0).await;
        making.more().await;
        let (made, longest) = making.end().await;
        eprintln!("the longest of {made} changes took {longest:?}");
        all_there(&client, "d", made).await;
    });
}

#[test]
fn when_all_masters_are_full_one_stays_leader_and_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(mounted) = Mounted::tmpfs(dir.path().join("disk"), "full disks of all masters", 64) else {
        return;
    };
    let masters = start_with(Masters::named(3), &[0, 1, 2], &mounted.path);
    run(async {
        let options = ClientOptions {
            retry_for: Duration::from_secs(10),
            ..ClientOptions::default()
        };
        let client = Client::connect(masters.addresses.clone(), options).await;
        let client = client.expect("a master leads");
        client.make_dir(path("before"), 0o755, false).await.expect("made");
        let filler = Filler::but(&mounted.path, 2 << 20);
        let error = until("changes are refused", async || {
            client.make_dir(path("refused"), 0o755, true).await.err()
        })
        .await;
        assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
        let leads = leader(&client).await;
        // Whoever is full looks twice a second whether another has room: the leader hears nothing but that.
        let node = masters.nodes[leads].as_ref().expect("it runs");
        let looks = || node.metric("curvine_master_call_seconds_count{call=\"RaftMessage\"}");
        let before = looks();
        until("the others have looked a few times", async || {
            assert_eq!(leader(&client).await, leads, "nobody hands over in a circle");
            client.stat(path("before")).await.expect("reads are answered");
            (looks() >= before + 12.0).then_some(())
        })
        .await;
        drop(filler);
        until("changes are taken again", async || {
            client.make_dir(path("after"), 0o755, true).await.ok()
        })
        .await;
    });
}
