//! Rot on the workers' disks: `cv scrub` finds it, `cv fsck` says what is lost, and what is not lost is made again.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::Node;
use curvine_tests::process::{self, DEADLINE, text};
use curvine_tests::wait::within;
use serde_json::Value;

struct Cluster {
    // Dropped in this order.
    _worker: process::Node,
    node: Node,
}

impl Cluster {
    fn start() -> Cluster {
        let node = Node::start();
        let directory = node.scratch.path().join("second");
        let worker = process::Node::start(&[
            "--role",
            "worker",
            "--master",
            &node.master,
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&directory),
        ]);
        Cluster {
            _worker: worker,
            node,
        }
    }

    /// The id of the only block of a file.
    fn block(&self, path: &str) -> u64 {
        let value = self.node.json(&["blocks", path]).remove(0);
        value["blocks"][0]["id"].as_u64().expect("a number")
    }

    fn holders(&self, path: &str) -> usize {
        let value = self.node.json(&["blocks", path]).remove(0);
        value["blocks"][0]["workers"].as_array().expect("a list").len()
    }

    /// Where the replicas of a block are.
    fn replicas(&self, block: u64) -> Vec<PathBuf> {
        let mut found = Vec::new();
        find(self.node.scratch.path(), &format!("{block:016x}"), &mut found);
        found
    }

    fn fsck(&self, words: &[&str]) -> (Option<i32>, Vec<Value>) {
        let said = self.node.run(&[&["--json", "fsck"], words].concat());
        assert_eq!(said.err, "");
        let values = said
            .out
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        (said.code, values.collect())
    }
}

fn find(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|is| is == name) {
            found.push(path);
        }
    }
}

fn flip(path: &Path) {
    flip_at(path, 100_000);
}

fn flip_at(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("long enough");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

#[test]
fn what_rots_is_made_again_where_it_can_be_and_is_said_at_once_where_not() {
    let cluster = Cluster::start();
    let node = &cluster.node;
    let content: Vec<u8> = (0..300_000u32)
        .map(|at| (at * 7 + (at >> 8)).to_le_bytes()[0])
        .collect();
    std::fs::write(node.local("content"), &content).expect("room");
    node.ok(&["put", &node.local("content"), "/once"]);
    node.ok(&["put", "--replicas", "2", &node.local("content"), "/twice"]);
    within(DEADLINE, || (cluster.holders("/twice") == 2).then_some(())).expect("two replicas");
    let (code, sums) = cluster.fsck(&[]);
    assert_eq!((code, sums.len()), (Some(0), 1), "{sums:?}");
    assert_eq!(sums[0]["files"], 2);
    assert_eq!(sums[0]["replicas"], 3);
    assert_eq!(sums[0]["workers"], 2);

    // They begin with a pass of their own.
    within(DEADLINE, || {
        let disks = node.json(&["scrub"]);
        disks.iter().all(|disk| disk["runs"] == false).then_some(())
    })
    .expect("they rest");
    let (once, twice) = (cluster.block("/once"), cluster.block("/twice"));
    flip(&cluster.replicas(once)[0]);
    flip(&cluster.replicas(twice)[0]);
    let said = node.run(&["--json", "scrub", "--now", "--wait"]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "rot was found");
    let corrupt = said.out.lines().map(|line| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        value["corrupt_blocks"].as_u64().expect("a number")
    });
    assert_eq!(corrupt.sum::<u64>(), 2, "{}", said.out);

    // What one worker had right is made again; nobody had the other one right.
    within(DEADLINE, || (cluster.replicas(twice).len() == 2).then_some(())).expect("made again");
    let faults = within(DEADLINE, || {
        let (code, found) = cluster.fsck(&["--repair"]);
        (code == Some(1) && found.len() == 2).then_some(found)
    });
    let faults = faults.expect("one is lost");
    assert_eq!(faults[0]["path"], "/once");
    assert_eq!(faults[0]["what"], "corrupt");
    assert_eq!(faults[0]["block"], once);
    node.ok(&["get", "/twice", &node.local("copy")]);
    assert!(
        std::fs::read(node.local("copy")).expect("there") == content,
        "as it was written"
    );
    let said = node.run(&["get", "/once", &node.local("no copy")]);
    assert_eq!(said.code, Some(4), "{said:?}");
    for part in ["/once", "checksum", "quarantine/", "cv fsck"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    node.ok(&["rm", "/once"]);
    let (code, sums) = cluster.fsck(&[]);
    assert_eq!((code, sums.len()), (Some(0), 1), "{sums:?}");
}

#[test]
fn what_is_wrong_in_another_place_on_each_worker_is_read_and_made_whole_again() {
    let cluster = Cluster::start();
    let node = &cluster.node;
    let content: Vec<u8> = (0..3_000_000u32)
        .map(|at| (at * 11 + (at >> 9)).to_le_bytes()[0])
        .collect();
    std::fs::write(node.local("content"), &content).expect("room");
    let is_right = |path: &str| {
        let _ = std::fs::remove_file(node.local("copy"));
        node.ok(&["get", path, &node.local("copy")]);
        std::fs::read(node.local("copy")).expect("there") == content
    };
    for path in ["/read", "/scrubbed"] {
        node.ok(&["put", "--replicas", "2", &node.local("content"), path]);
        within(DEADLINE, || (cluster.holders(path) == 2).then_some(())).expect("two replicas");
    }
    within(DEADLINE, || {
        let disks = node.json(&["scrub"]);
        disks.iter().all(|disk| disk["runs"] == false).then_some(())
    })
    .expect("they rest");
    for (path, places) in [
        ("/read", [10_000, 2_900_000]),
        ("/scrubbed", [1_500_000, 1_600_000]),
    ] {
        let block = cluster.block(path);
        for (replica, place) in cluster.replicas(block).iter().zip(places) {
            flip_at(replica, place);
        }
    }
    assert!(is_right("/read"), "nobody read it before");
    assert_eq!(
        node.run(&["scrub", "--now", "--wait"]).code,
        Some(1),
        "rot was found"
    );
    assert!(is_right("/scrubbed"), "both replicas were set aside");
    within(DEADLINE, || {
        let whole = |path| cluster.holders(path) == 2 && cluster.replicas(cluster.block(path)).len() == 2;
        (whole("/read") && whole("/scrubbed")).then_some(())
    })
    .expect("made again");
    let (code, sums) = cluster.fsck(&[]);
    assert_eq!((code, sums.len()), (Some(0), 1), "{sums:?}");
    assert!(is_right("/read") && is_right("/scrubbed"));
}
