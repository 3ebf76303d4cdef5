//! `--json`: every command answers with JSON, an object a line.

mod common;

use common::Node;
use serde_json::Value;

/// The keys that each object has at least.
fn assert_keys(objects: &[Value], keys: &[&str], words: &[&str]) {
    assert!(!objects.is_empty(), "cv {words:?} says nothing");
    for object in objects {
        for key in keys {
            assert!(object.get(key).is_some(), "cv {words:?}: no {key} in {object}");
        }
    }
}

#[test]
fn every_command_answers_in_json() {
    let node = Node::start();
    std::fs::create_dir(node.local("source")).expect("room");
    std::fs::write(node.local("source/x"), "x").expect("room");
    let uri = format!("file://{}", node.local("source"));
    let (source, back) = (node.local("source"), node.local("back"));
    for (words, keys) in [
        (
            &["mount", &uri, "/m", "--write"][..],
            &["id", "path", "uri", "options", "settings", "created_ns"][..],
        ),
        (
            &["mounts"],
            &["id", "path", "uri", "options", "settings", "created_ns"],
        ),
        (&["put", &source, "/tree"], &["files", "bytes"]),
        (&["get", "/tree", &back], &["files", "bytes"]),
        (
            &["ls", "-R", "/"],
            &[
                "path",
                "type",
                "size_bytes",
                "mode",
                "uid",
                "gid",
                "mtime_ns",
                "inode",
                "links",
            ],
        ),
        (
            &["stat", "/tree", "/m/x"],
            &["path", "type", "size_bytes", "mode", "atime_ns", "ctime_ns"],
        ),
        (
            &["du", "/tree"],
            &["path", "size_bytes", "cached_bytes", "files", "directories"],
        ),
        (
            &["count", "/tree", "/m"],
            &["path", "directories", "files", "bytes"],
        ),
        (
            &["df"],
            &[
                "capacity_bytes",
                "used_bytes",
                "available_bytes",
                "inodes",
                "tiers",
            ],
        ),
        (&["blocks", "/tree/x", "/m/x"], &["path", "block_bytes", "blocks"]),
        (
            &["load", "/m"],
            &["id", "state", "files_total", "bytes_moved", "failures"],
        ),
        (
            &["load", "/m", "--watch"],
            &["id", "state", "files_total", "bytes_moved", "failures"],
        ),
        (&["load", "--list"], &["id", "state", "paths"]),
        (
            &["load-status", "1"],
            &["id", "state", "files_failed", "ended_ns"],
        ),
        (&["free", "/m"], &["path", "files", "bytes", "kept"]),
        (
            &["report"],
            &[
                "cluster", "version", "uptime_s", "inodes", "mounts", "masters", "workers",
            ],
        ),
        (&["node"], &["role", "id", "address", "state"]),
        (&["rm", "-rv", "/tree"], &["deleted"]),
        (&["version"], &["name", "version"]),
    ] {
        assert_keys(&node.json(words), keys, words);
    }
    let masters = node.json(&["master", "list"]);
    let masters = masters[0].as_array().expect("an array");
    let keys = ["id", "address", "role", "applied_index", "is_reachable"];
    assert_keys(masters, &keys, &["master", "list"]);
    assert_eq!(masters[0]["role"], "leader");
    // These have nothing to say.
    for words in [
        &["mkdir", "/d"][..],
        &["touch", "/d/f"],
        &["mv", "/d/f", "/d/g"],
        &["chmod", "600", "/d/g"],
        &["chown", "1", "/d/g"],
        &["umount", "/m"],
        &["locks"],
    ] {
        assert_eq!(node.json(words), Vec::<Value>::new(), "{words:?}");
    }
}

#[test]
fn awkward_names_are_exact_in_json_and_harmless_as_text() {
    let node = Node::start();
    let name = "/a\x1b[31m \"quoted\"\n\u{202e}ü";
    node.file(name, b"x");
    assert_eq!(node.json(&["ls", "/"])[0]["path"], name);
    assert!(!node.ok(&["ls", "/"]).contains('\x1b'));
    assert!(!node.ok(&["stat", name]).contains('\x1b'));
    let said = node.run(&["mkdir", name]);
    assert!(
        said.err.contains("exists") && !said.err.contains('\x1b') && said.err.lines().count() == 1,
        "{:?}",
        said.err
    );
}
