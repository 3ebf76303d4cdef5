//! `cv why` and `cv load` where not everything has room.

mod common;

use std::fs;

use common::Node;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Two directories of eight files of 4 MiB each, on a disk that has room for one of them.
fn little() -> Node {
    let node = Node::start_with(|scratch| {
        let disk = format!("[SSD:36MiB]{}", scratch.join("blocks").display());
        vec!["--data-dirs".to_owned(), disk]
    });
    let source = node.local("source");
    for directory in ["one", "two"] {
        fs::create_dir_all(format!("{source}/{directory}")).expect("room");
        for file in 0..8 {
            fs::write(format!("{source}/{directory}/{file}"), vec![file; 4 * MIB]).expect("room");
        }
    }
    node.ok(&["mount", &format!("file://{source}"), "/m"]);
    node
}

/// What `cv why` says of the only block of a file.
fn why(node: &Node, path: &str) -> Value {
    let said = node.json(&["why", path]).remove(0);
    let blocks = said["blocks"].as_array().expect("a list");
    assert_eq!(blocks.len(), 1, "{said}");
    blocks[0].clone()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} of {value}"))
}

#[test]
fn it_is_said_where_a_block_is_why_it_went_and_what_to_do() {
    let node = little();
    let said = node.ok(&["why", "/m/one/0"]);
    assert!(
        said.contains("never fetched, as far as the workers remember"),
        "{said}"
    );
    assert!(said.contains("next: cv load /m/one/0"), "{said}");

    node.ok(&["load", "/m/one", "--watch"]);
    let block = why(&node, "/m/one/0");
    let held = &block["held"][0];
    assert_eq!(
        (&block["kind"], &held["cached"], &held["tier"]),
        (&"cached".into(), &true.into(), &"SSD".into())
    );
    assert_eq!(held["read_ms"], Value::Null, "nobody has read it");
    node.ok(&["cat", "/m/one/0"]);
    assert!(number(&why(&node, "/m/one/0")["held"][0], "read_ms") > 0);

    let loaded = node.json(&["load", "/m/two", "--watch"]).remove(0);
    assert_eq!(loaded["state"], "done", "{loaded}");
    let gone = (0..8).map(|file| why(&node, &format!("/m/one/{file}")));
    let gone: Vec<Value> = gone
        .filter(|block| block["held"].as_array().is_some_and(Vec::is_empty))
        .collect();
    assert!(gone.len() >= 7, "{} of eight went", gone.len());
    for block in gone {
        let why = block["why"].as_str().expect("words");
        assert!(why.starts_with("evicted: ") && why.contains(", at 20"), "{why}");
    }

    node.ok(&["free", "/m/two"]);
    let said = node.ok(&["why", "/m/two/7"]);
    assert!(said.contains("freed by `cv free` or `cv ttl`"), "{said}");

    node.file("/kept", b"kept");
    let said = node.ok(&["why", "/kept"]);
    assert!(said.contains(" kept ") && !said.contains("next: "), "{said}");
    let said = node.refused(&["why", "/m"], 1);
    assert!(said.contains("/m: is a directory"), "{said}");
}

#[test]
fn a_load_that_has_no_room_keeps_what_it_loaded_and_names_the_rest() {
    let node = little();
    let plan = node.run(&["load", "--dry-run", "/m"]);
    assert!(plan.out.starts_with("16 files, 64M\n"), "{}", plan.out);
    assert!(
        plan.err.contains("of it have no room on the workers"),
        "{}",
        plan.err
    );
    assert_ne!(plan.code, Some(0));

    let ended = node.run(&["--json", "load", "/m", "--watch", "--verbose"]);
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    let job: Value = serde_json::from_str(ended.out.lines().last().expect("a line")).expect("JSON");
    assert_eq!(job["state"], "failed");
    let (loaded, failed) = (number(&job, "files_loaded"), number(&job, "files_failed"));
    assert_eq!(loaded + failed, 16);
    assert!((6..=9).contains(&loaded), "{loaded} of 16 files fit");
    // All that was loaded is still there.
    let cached = number(&node.json(&["du", "-s", "/m"])[0], "cached_bytes");
    assert_eq!(cached, loaded * 4 * MIB as u64);
    let failures = job["failures"].as_array().expect("a list");
    for failure in failures {
        assert_eq!(failure["kind"], "NoSpace", "{failure}");
        let message = failure["message"].as_str().expect("words");
        assert!(message.contains("without letting go of what job"), "{message}");
    }
    // Again: what is here is held, whoever brought it, and what has no room is named as before.
    let ended = node.run(&["--json", "load", "/m", "--watch"]);
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    let again: Value = serde_json::from_str(ended.out.lines().last().expect("a line")).expect("JSON");
    let counted = number(&again, "files_loaded") + number(&again, "files_already");
    let cached = number(&node.json(&["du", "-s", "/m"])[0], "cached_bytes");
    assert_eq!(cached, counted * 4 * MIB as u64, "what is counted is cached");
    // The rest is read all the same, and what was loaded makes room for it.
    for file in 0..8 {
        assert_eq!(node.ok(&["cat", &format!("/m/two/{file}")]).len(), 4 * MIB);
    }
}
