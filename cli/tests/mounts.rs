//! Mounts and loads through `cv`, over a directory of this machine.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Node, lines};
use curvine_tests::wait::{DEADLINE, within};

/// A directory with files, mounted on `/m`.
fn mounted(node: &Node, more: &[&str]) -> String {
    let directory = node.local("source");
    fs::create_dir_all(format!("{directory}/sub")).expect("room");
    for (name, content) in [("a", "aaa"), ("b", "bb"), ("sub/c", "c"), ("sub/empty", "")] {
        fs::write(format!("{directory}/{name}"), content).expect("room");
    }
    let uri = format!("file://{directory}");
    node.ok(&[&["mount", &uri, "/m"], more].concat());
    directory
}

#[test]
fn a_mounted_directory_is_listed_read_loaded_and_freed() {
    let node = Node::start();
    let source = mounted(&node, &[]);
    assert_eq!(
        lines(&node.ok(&["ls", "-R", "/m"])),
        ["/m:", "a", "b", "sub", "", "/m/sub:", "c", "empty"]
    );
    assert_eq!(node.ok(&["cat", "/m/a", "/m/sub/c"]), "aaac");

    let job = &node.json(&["load", "/m", "--watch"])[0];
    assert_eq!(
        (&job["state"], &job["files_total"], &job["bytes_total"]),
        (&"done".into(), &4.into(), &6.into())
    );
    let ready = job["files_loaded"]
        .as_u64()
        .zip(job["files_already"].as_u64())
        .map(|(a, b)| a + b);
    assert_eq!((ready, &job["files_failed"]), (Some(4), &0.into()));
    let again = &node.json(&["load", "/m", "--watch"])[0];
    assert_eq!(
        (&again["files_already"], &again["bytes_moved"]),
        (&4.into(), &0.into())
    );
    assert_eq!(node.json(&["du", "-s", "/m"])[0]["cached_bytes"], 6);

    let freed = &node.json(&["free", "/m"])[0];
    assert_eq!((&freed["files"], &freed["bytes"]), (&3.into(), &6.into()));
    assert_eq!(node.json(&["du", "-s", "/m"])[0]["cached_bytes"], 0);
    assert_eq!(node.ok(&["cat", "/m/a"]), "aaa", "it is still there");

    let said = node.refused(&["rm", "/m/a"], 1);
    assert!(said.contains("read-only") && said.contains("--write"), "{said}");
    node.ok(&["umount", "/m"]);
    assert_eq!(node.ok(&["ls", "/m"]), "");
    assert_eq!(
        fs::read_to_string(format!("{source}/a")).expect("is there"),
        "aaa"
    );
}

#[test]
fn a_dry_run_says_what_a_load_would_do_and_loads_nothing() {
    let node = Node::start();
    mounted(&node, &["--staleness", "0s"]);
    let plan = &node.json(&["load", "--dry-run", "/m", "/m/sub"])[0];
    let said = |name: &str| plan[name].as_u64();
    let (files, bytes, requests) = (said("files"), said("bytes"), said("requests"));
    assert_eq!((files, bytes, requests), (Some(4), Some(6), Some(3)));
    assert_eq!(
        (said("bytes_to_fetch"), said("bytes_without_room")),
        (Some(6), Some(0))
    );
    assert_eq!(node.json(&["du", "-s", "/m"])[0]["cached_bytes"], 0);
    assert_eq!(node.ok(&["load", "--list"]), "no load jobs\n");
    node.ok(&["load", "/m/a", "--watch"]);
    let said = node.ok(&["load", "--dry-run", "/m"]);
    assert!(
        said.starts_with("4 files, 6\ncached already: 2 files, 3\nto fetch: 3, with 2 requests or more\n"),
        "{said}"
    );
    // More than there is room for.
    let large = fs::File::create(node.local("source/large")).expect("room");
    large.set_len(1 << 43).expect("a hole");
    let said = node.run(&["load", "--dry-run", "/m"]);
    assert_eq!(said.code, Some(4), "{}", said.err);
    assert!(said.err.contains("have no room on the workers"), "{}", said.err);
    let said = node.refused(&["load", "--dry-run", "/nowhere"], 1);
    assert!(said.contains("/nowhere"), "{said}");
}

#[test]
fn a_quota_of_cache_is_set_shown_changed_and_named_where_it_had_something_go() {
    let node = Node::start();
    let source = node.local("source");
    fs::create_dir_all(&source).expect("room");
    for file in 0..6 {
        fs::write(format!("{source}/{file}"), vec![file; 1 << 20]).expect("room");
    }
    let uri = format!("file://{source}");
    let wrong = node.refused(&["mount", &uri, "/m", "-o", "cache_quota=much"], 2);
    assert!(wrong.contains("cache_quota: "), "{wrong}");
    node.ok(&["mount", &uri, "/m", "-o", "cache_quota=3MiB"]);
    let settings = |node: &Node| node.json(&["mounts"])[0]["settings"]["cache_quota_bytes"].clone();
    assert_eq!(settings(&node), 3 << 20);
    assert_eq!(
        node.json(&["mounts"])[0]["options"],
        serde_json::json!({}),
        "it is no option of the store"
    );
    let plan = node.ok(&["load", "--dry-run", "/m"]);
    let told = "/m: its cache quota is 3.0M, and 0 of it are cached: 3.0M of the mount would go; 3.0M of what is loaded cannot stay";
    assert!(plan.contains(told), "{plan}");
    node.ok(&["load", "/m", "--watch"]);
    let cached = |node: &Node| node.json(&["mounts"])[0]["traffic"]["cached_bytes"].as_u64();
    let until_cached = |bytes: std::ops::RangeInclusive<u64>| {
        let is_so = || cached(&node).filter(|now| bytes.contains(now));
        assert!(
            within(DEADLINE, is_so).is_some(),
            "{bytes:?}: {:?}",
            cached(&node)
        );
    };
    until_cached(1..=3 << 20);
    let shown = node.ok(&["mounts", "-v"]);
    assert!(
        shown.contains("/m: 3.0M cached of a quota of 3.0M, for which 3.0M have gone"),
        "{shown}"
    );
    let report = node.ok(&["report"]);
    let row = lines(&report)
        .into_iter()
        .find(|line| line.split_whitespace().next() == Some("/m"))
        .expect("a row");
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row[row.len() - 2..], ["3.0M", "3.0M"]);
    let whys: Vec<String> = (0..6)
        .map(|file| node.ok(&["why", &format!("/m/{file}")]))
        .collect();
    let evicted = whys
        .iter()
        .filter(|why| why.contains("evicted for the mount's cache quota"));
    assert_eq!(evicted.count(), 3, "{whys:?}");

    node.ok(&["mount", "--update", "/m", "-o", "cache_quota=1MiB"]);
    until_cached(0..=1 << 20);
    node.ok(&["mount", "--update", "/m", "-o", "cache_quota=none"]);
    assert_eq!(settings(&node), serde_json::Value::Null);
}

#[test]
fn jobs_are_listed_watched_and_have_an_end() {
    let node = Node::start();
    mounted(&node, &[]);
    assert_eq!(node.ok(&["load", "--list"]), "no load jobs\n");
    let submitted = node.ok(&["load", "/m/a"]);
    assert!(submitted.starts_with("job 1: "), "{submitted}");
    let ended = node.ok(&["load-status", "1", "--watch"]);
    assert!(
        ended.starts_with("job 1 done: 1 files, 1 loaded, 0 were cached, 0 failed; 3 of 3 done, 3 moved in "),
        "{ended}"
    );
    let said = node.refused(&["load-cancel", "1"], 2);
    assert!(said.contains("has ended already"), "{said}");
    let list = node.ok(&["load", "--list"]);
    let row: Vec<&str> = lines(&list)[1].split_whitespace().collect();
    assert_eq!(
        (row[..5].to_vec(), row.last()),
        (vec!["1", "done", "1/1", "0", "3"], Some(&"/m/a"))
    );
}

#[test]
fn a_load_that_fails_names_each_file_and_its_reason() {
    let node = Node::start();
    let source = mounted(&node, &["--staleness", "1h"]);
    node.ok(&["ls", "-R", "/m"]);
    fs::remove_file(format!("{source}/a")).expect("is there");
    fs::write(format!("{source}/b"), "another length").expect("room");
    let said = node.run(&["load", "/m", "--watch", "--verbose"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    // `b` is another version by now, and that is loaded; `a` is gone; what is empty needs no loading.
    assert!(
        said.out
            .contains(" failed: 4 files, 2 loaded, 1 were cached, 1 failed;"),
        "{}",
        said.out
    );
    assert!(said.out.contains("\n  /m/a: "), "{}", said.out);
    assert_eq!(node.ok(&["cat", "/m/b"]), "another length");
}

#[test]
fn an_update_of_a_mount_is_checked_first_and_keeps_what_is_cached() {
    let node = Node::start();
    let source = mounted(&node, &[]);
    node.ok(&["load", "/m", "--watch"]);
    node.refused(&["rm", "/m/a"], 1);
    let said = node.ok(&[
        "mount",
        "--update",
        "/m",
        "--write",
        "--write-mode",
        "back",
        "--staleness",
        "0s",
    ]);
    assert_eq!(
        said.trim_end(),
        format!("updated file://{source} on /m for reading and writing back")
    );
    let settings = &node.json(&["mounts"])[0]["settings"];
    assert_eq!(
        (
            &settings["writable"],
            &settings["staleness_ms"],
            &settings["write_mode"]
        ),
        (&true.into(), &0.into(), &"Back".into())
    );
    assert_eq!(
        node.json(&["du", "-s", "/m"])[0]["cached_bytes"],
        6,
        "the cache stays"
    );
    node.ok(&["rm", "/m/a"]);
    assert!(!fs::exists(format!("{source}/a")).expect("readable"));
    let said = node.refused(&["mount", "--update", "/m", "-o", "regoin=hunter2"], 2);
    assert!(
        said.contains("unknown option `regoin`") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(node.ok(&["cat", "/m/b"]), "bb", "nothing changed");
    node.refused(&["mount", "--update", "/nowhere", "--write"], 1);
    let said = node.refused(&["mount", "--update", "/m"], 2);
    assert!(said.contains("what is to change"), "{said}");
    let said = node.refused(&["mount", "file:///srv", "/x", "--write-mode", "back"], 2);
    assert!(said.contains("--write"), "{said}");
}

#[test]
fn mounts_are_listed_without_secrets() {
    let node = Node::start();
    assert_eq!(
        node.ok(&["mounts"]),
        "nothing is mounted; try: cv mount file:///DIR /data\n"
    );
    let source = mounted(&node, &["--staleness", "1m"]);
    let text = node.ok(&["mounts"]);
    let row: Vec<&str> = lines(&text)[1].split_whitespace().collect();
    assert_eq!(row, ["/m", &format!("file://{source}"), "read", "1m"]);
    let said = node.refused(
        &[
            "mount",
            "s3://b",
            "/x",
            "-o",
            "endpoint=http://127.0.0.1:9",
            "-o",
            "access_key_id=me",
            "-o",
            "secret_access_key=hunter2",
        ],
        4,
    );
    assert!(
        said.contains("nobody answers there") && !said.contains("hunter2"),
        "{said}"
    );
    assert_eq!(node.json(&["mounts"]).len(), 1);
}

#[test]
fn attributes_of_a_file_are_its_own_in_the_directory_and_stay_when_it_is_mounted_anew() {
    let node = Node::start();
    let source = mounted(&node, &["--write"]);
    node.file("/m/new", b"new");
    node.ok(&["chmod", "600", "/m/new"]);
    node.ok(&["persist", "/m"]);
    let mode = |name: &str| {
        let found = fs::metadata(format!("{source}/{name}")).expect("is there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(
        mode("new"),
        0o600,
        "the file has what its name in Curvine was given"
    );
    node.ok(&["mv", "/m/new", "/m/moved"]);
    assert_eq!(mode("moved"), 0o600);
    let shown = |node: &Node| {
        let shown = &node.json(&["stat", "/m/moved"])[0];
        (shown["mode"].clone(), shown["mtime_ns"].clone())
    };
    let before = shown(&node);
    node.ok(&["umount", "/m"]);
    node.ok(&["mount", &format!("file://{source}"), "/m", "--write"]);
    assert!(before.1.is_i64(), "{before:?}");
    assert_eq!(shown(&node), before);
    node.ok(&["umount", "/m"]);
    node.ok(&[
        "mount",
        &format!("file://{source}"),
        "/m",
        "--write",
        "--attributes",
        "namespace",
    ]);
    node.ok(&["chmod", "640", "/m/moved"]);
    node.ok(&["persist", "/m"]);
    assert_eq!(mode("moved"), 0o600, "the mount keeps attributes to itself");
}

#[test]
fn what_is_done_in_a_writable_mount_is_done_in_the_directory() {
    let node = Node::start();
    let source = mounted(&node, &["--write"]);
    let read = |name: &str| fs::read_to_string(format!("{source}/{name}"));
    node.file("/m/new", b"new");
    assert_eq!(read("new").expect("is there"), "new");
    node.file("/m/a", b"another");
    assert_eq!(read("a").expect("is there"), "another");
    assert_eq!(node.ok(&["cat", "/m/a"]), "another");
    node.ok(&["mkdir", "/m/dir"]);
    node.ok(&["mv", "/m/new", "/m/dir/moved"]);
    assert_eq!(read("dir/moved").expect("is there"), "new");
    node.ok(&["mv", "/m/dir", "/m/renamed"]);
    assert_eq!(read("renamed/moved").expect("is there"), "new");
    assert!(!fs::exists(format!("{source}/dir")).expect("can be asked"));
    node.ok(&["rm", "-r", "/m/renamed", "/m/b"]);
    assert_eq!(lines(&node.ok(&["ls", "/m"])), ["a", "sub"]);
    let mut left: Vec<_> = fs::read_dir(&source)
        .expect("is there")
        .map(|entry| entry.expect("is there").file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".curvine-uploads", "a", "sub"]);
    for words in [
        &["mkdir", "/m/no/parent"][..],
        &["mv", "/m/a", "/m/no/parent"],
        &["mv", "/m/none", "/m/x"],
        &["rm", "/m/sub"],
    ] {
        node.refused(words, 1);
    }
    node.ok(&["mv", "/m/a", "/m/a"]);
    assert_eq!(
        read("a").expect("is there"),
        "another",
        "a file moved onto itself stays"
    );
    node.refused(&["mv", "/m/sub", "/m/sub/below"], 2);
    assert_eq!(
        read("sub/c").expect("is there"),
        "c",
        "a directory does not move into itself"
    );
    assert!(
        !fs::exists(format!("{source}/no")).expect("can be asked"),
        "a refused change changes nothing"
    );
    assert_eq!(read("sub/c").expect("is there"), "c");
}

#[test]
fn mounts_stand_where_they_do_no_harm() {
    let node = Node::start();
    let source = mounted(&node, &[]);
    let uri = &format!("file://{source}");
    node.ok(&["mkdir", "-p", "/full/below"]);
    node.file("/file", b"f");
    for (path, says) in [
        ("/", "below the root"),
        ("/m", "mounted there already"),
        ("/m/sub", "do not nest"),
        ("/m/new", "do not nest"),
        ("/full", "not empty"),
        ("/file", "not a directory"),
        ("/file/x", "directory"),
    ] {
        let said = node.run(&["mount", uri, path]);
        assert!(
            matches!(said.code, Some(1 | 2)),
            "{path}: {:?} {}",
            said.code,
            said.err
        );
        assert!(said.err.contains(says), "{path}: {says} is not in: {}", said.err);
    }
    node.ok(&["mkdir", "/above"]);
    node.ok(&["mount", uri, "/above/m"]);
    for words in [
        &["rm", "-r", "/above"][..],
        &["rm", "-r", "/above/m"],
        &["mv", "/above/m", "/x"],
        &["mv", "/above", "/x"],
    ] {
        let said = node.run(words);
        assert_eq!(said.code, Some(1), "{words:?}: {}", said.err);
        assert!(said.err.contains("mount"), "{words:?}: {}", said.err);
    }
    assert_eq!(node.json(&["mounts"]).len(), 2);
    assert_eq!(node.ok(&["cat", "/above/m/a"]), "aaa");
}
