//! `cv pin` over a cache that is smaller than what is loaded.

mod common;

use std::fs;

use common::Node;
use curvine_tests::process::DEADLINE;
use curvine_tests::wait::within;

const MIB: usize = 1 << 20;

/// What is cached at and below a path.
fn cached(node: &Node, path: &str) -> u64 {
    let du = &node.json(&["du", "-s", path])[0];
    du["cached_bytes"].as_u64().expect("a number")
}

/// Until the worker says that it has so much pinned.
fn until_pinned(node: &Node, bytes: usize) {
    let mut last = None;
    let is_so = within(DEADLINE, || {
        let report = &node.json(&["report"])[0];
        last = report["workers"][0]["disks"][0]["pinned_bytes"].as_u64();
        (last == Some(bytes as u64)).then_some(())
    });
    assert!(is_so.is_some(), "{last:?} bytes are pinned, not {bytes}");
}

/// Reads more than there is room for.
fn read_rest(node: &Node) {
    for file in 0..8 {
        let read = node.ok(&["cat", &format!("/m/rest/{file}")]);
        assert!(read.len() == 4 * MIB, "{} bytes", read.len());
    }
}

fn load(node: &Node, path: &str) {
    let job = &node.json(&["load", path, "--watch"])[0];
    assert_eq!(job["state"], "done", "{job}");
}

#[test]
fn what_is_pinned_stays_in_a_cache_that_is_too_small_for_the_rest() {
    let node = Node::start_with(|scratch| {
        let disk = format!("[SSD:24MiB]{}", scratch.join("blocks").display());
        vec!["--data-dirs".to_owned(), disk]
    });
    let source = node.local("source");
    for (directory, files) in [("keep", 1), ("rest", 8)] {
        fs::create_dir_all(format!("{source}/{directory}")).expect("room");
        for file in 0..files {
            fs::write(format!("{source}/{directory}/{file}"), vec![file; 4 * MIB]).expect("room");
        }
    }
    node.ok(&["mount", &format!("file://{source}"), "/m", "--staleness", "0s"]);

    let said = node.refused(&["pin", "/m/keep"], 1);
    assert!(said.contains("-R"), "{said}");
    let said = node.ok(&["pin", "-R", "/m/keep"]);
    assert!(said.contains("`cv load /m/keep`"), "nothing is cached: {said}");
    load(&node, "/m/keep");
    until_pinned(&node, 4 * MIB);
    for _ in 0..2 {
        read_rest(&node);
        assert_eq!(cached(&node, "/m/keep"), 4 * MIB as u64);
        assert!(cached(&node, "/m/rest") < 24 * MIB as u64);
    }

    fs::write(format!("{source}/keep/later"), vec![9; 4 * MIB]).expect("room");
    load(&node, "/m/keep");
    until_pinned(&node, 8 * MIB);
    read_rest(&node);
    assert_eq!(cached(&node, "/m/keep"), 8 * MIB as u64);

    let said = node.refused(&["pin", "-R", "/m/rest"], 4);
    assert!(said.contains("`master.pin_limit`"), "{said}");
    let said = node.refused(&["free", "/m"], 1);
    assert!(said.contains("`cv unpin /m/keep`"), "{said}");
    assert!(node.ok(&["ls", "-l", "/m"]).contains("pinned keep"));
    assert!(node.ok(&["stat", "/m/keep/0"]).contains("Cache: pinned"));
    assert_eq!(node.json(&["ls", "-l", "/m/keep"])[0]["pinned"], true);
    let pins = node.json(&["pins"]);
    assert_eq!(
        (&pins[0]["path"], &pins[0]["files"]),
        (&"/m/keep".into(), &2.into())
    );

    node.ok(&["unpin", "/m/keep"]);
    until_pinned(&node, 0);
    node.ok(&["free", "/m"]);
    assert_eq!(cached(&node, "/m"), 0);
    node.ok(&["mkdir", "/plain"]);
    let said = node.refused(&["load", "/plain"], 2);
    assert!(said.contains("/plain: is in no mount"), "{said}");
}
