//! Files and directories through `cv`: the habits of `hdfs dfs` and coreutils.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{Node, lines};

#[test]
fn ls_sorts_and_shows_as_its_options_say() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/d/sub"]);
    for (name, content) in [("b", "22"), ("a", "1"), (".hidden", ""), ("sub/deep", "55555")] {
        node.file(&format!("/d/{name}"), content.as_bytes());
    }
    assert_eq!(lines(&node.ok(&["ls", "/d"])), ["a", "b", "sub"]);
    assert_eq!(lines(&node.ok(&["ls", "-a", "/d"])), [".hidden", "a", "b", "sub"]);
    assert_eq!(lines(&node.ok(&["ls", "-r", "/d"])), ["sub", "b", "a"]);
    assert_eq!(lines(&node.ok(&["ls", "-S", "/d"])), ["sub", "b", "a"]);
    node.ok(&["touch", "/d/a"]);
    assert_eq!(lines(&node.ok(&["ls", "-t", "/d"]))[0], "a");
    assert_eq!(lines(&node.ok(&["ls", "-tr", "/d"]))[2], "a");
    assert_eq!(lines(&node.ok(&["ls", "-d", "/d"])), ["/d"]);
    assert_eq!(lines(&node.ok(&["ls", "-C", "/d"])), ["/d/a", "/d/b", "/d/sub"]);
    assert_eq!(
        lines(&node.ok(&["ls", "-R", "/d"])),
        ["/d:", "a", "b", "sub", "", "/d/sub:", "deep"]
    );
    assert_eq!(
        lines(&node.ok(&["ls", "/d/a", "/d/sub"])),
        ["/d/a", "", "/d/sub:", "deep"]
    );
    let long = node.ok(&["ls", "-l", "/d"]);
    let first: Vec<&str> = lines(&long)[0].split_whitespace().collect();
    assert_eq!(
        (first[0], first[4], *first.last().expect("a name")),
        ("-rw-r--r--", "1", "a")
    );
    node.file("/d/large", &vec![b'x'; 1536]);
    assert!(node.ok(&["ls", "-lh", "/d/large"]).contains(" 1.5K "));
    assert_eq!(node.ok(&["ls"]), "d\n", "without a path it is the root");
}

#[test]
fn a_failure_among_several_paths_leaves_the_others_their_turn() {
    let node = Node::start();
    node.file("/a", b"a");
    node.file("/b", b"b");
    let said = node.run(&["cat", "/a", "/none", "/b"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), "ab"));
    assert_eq!(said.err, "cv: cat: /none: no such file or directory\n");
    let said = node.run(&["ls", "/none", "/a"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), "/a\n"));
}

#[test]
fn globs_mean_what_they_mean_in_a_shell() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/g/one", "/g/two"]);
    for name in [
        "one/x-1.csv",
        "one/x-2.csv",
        "two/x-3.csv",
        "two/y.txt",
        "one/.x-4.csv",
        "star*",
    ] {
        node.file(&format!("/g/{name}"), name.as_bytes());
    }
    assert_eq!(
        lines(&node.ok(&["ls", "-C", "/g/*/x-?.csv"])),
        ["/g/one/x-1.csv", "/g/one/x-2.csv", "/g/two/x-3.csv"]
    );
    assert_eq!(
        lines(&node.ok(&["ls", "-C", "/g/{one,two}/[xy]*.txt"])),
        ["/g/two/y.txt"]
    );
    assert_eq!(
        node.ok(&["cat", "/g/star*"]),
        "star*",
        "a name that is there wins"
    );
    assert_eq!(
        node.ok(&["cat", r"/g/star\*"]),
        "star*",
        "a backslash takes the meaning away"
    );
    let said = node.refused(&["rm", "/g/*.none"], 1);
    assert!(said.contains("/g/*.none: nothing matches"), "{said}");
    node.ok(&["mkdir", "/to"]);
    node.ok(&["mv", "/g/one/*.csv", "/to"]);
    assert_eq!(lines(&node.ok(&["ls", "/to"])), ["x-1.csv", "x-2.csv"]);
    node.ok(&["rm", "/g/*/x-*"]);
    assert_eq!(
        lines(&node.ok(&["ls", "-a", "/g/one", "/g/two"])),
        ["/g/one:", ".x-4.csv", "", "/g/two:", "y.txt"]
    );
}

#[test]
fn a_tree_that_is_put_and_got_is_the_same() {
    let node = Node::start();
    let tree = node.scratch.path().join("tree");
    std::fs::create_dir_all(tree.join("sub/empty")).expect("room");
    std::fs::write(tree.join("program"), "#!/bin/sh\n").expect("room");
    std::fs::set_permissions(tree.join("program"), PermissionsExt::from_mode(0o750)).expect("ours");
    std::fs::write(tree.join("sub/ünï %+ name"), vec![7; 3 << 20]).expect("room");
    std::fs::write(tree.join("empty"), "").expect("room");
    symlink("sub/empty", tree.join("link")).expect("room");

    node.ok(&["put", "-R", &node.local("tree"), "/tree"]);
    assert_eq!(
        node.ok(&["ls", "-l", "/tree/link"])
            .trim_end()
            .rsplit(" -> ")
            .next(),
        Some("sub/empty")
    );
    node.ok(&["get", "-R", "/tree", &node.local("back")]);
    let diff = std::process::Command::new("diff")
        .args(["-r", "--no-dereference", &node.local("tree"), &node.local("back")])
        .output()
        .expect("diff runs");
    assert_eq!((diff.status.code(), diff.stdout.as_slice()), (Some(0), &b""[..]));
    let mode = std::fs::metadata(node.scratch.path().join("back/program"))
        .expect("is there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o750, "modes are kept");

    node.ok(&["mkdir", "/into"]);
    node.ok(&["put", &node.local("tree"), &node.local("tree/empty"), "/into"]);
    assert_eq!(
        lines(&node.ok(&["ls", "/into"])),
        ["empty", "tree"],
        "into a directory that exists"
    );
}

#[test]
fn what_exists_is_replaced_only_when_asked() {
    let node = Node::start();
    node.file("/f", b"first");
    let said = node.run_with(&["put", "-", "/f"], b"second");
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("/f") && said.err.contains("exists"),
        "{}",
        said.err
    );
    assert_eq!(node.ok(&["cat", "/f"]), "first");
    std::fs::write(node.local("here"), "mine").expect("room");
    let said = node.refused(&["get", "/f", &node.local("here")], 1);
    assert!(said.contains("-f"), "{said}");
    assert_eq!(std::fs::read(node.local("here")).expect("is there"), b"mine");
    node.ok(&["get", "-f", "/f", &node.local("here")]);
    assert_eq!(std::fs::read(node.local("here")).expect("is there"), b"first");
    node.file("/other", b"other");
    let said = node.refused(&["mv", "-n", "/f", "/other"], 1);
    assert!(said.contains("/other"), "{said}");
    assert_eq!(node.ok(&["cat", "/other"]), "other");
}

/// A node whose worker has room for little.
fn small_node(mebibytes: u32) -> Node {
    let mut node = Node::start_with(|scratch| {
        let blocks = format!("[SSD:{mebibytes}MiB]{}", scratch.join("blocks").display());
        vec!["--data-dirs".to_owned(), blocks]
    });
    // It does not get more while we wait.
    node.variables = vec![("CURVINE_CLIENT_OPERATION_TIMEOUT", "2s")];
    node
}

#[test]
fn a_file_that_cannot_be_replaced_for_want_of_room_stays_as_it_was() {
    let node = small_node(16);
    std::fs::write(node.local("large"), vec![1; 40 << 20]).expect("room");
    node.file("/old", b"old");
    let before = node.ok(&["--json", "stat", "/old"]);
    let said = node.refused(&["put", "-f", &node.local("large"), "/old"], 4);
    assert!(said.contains("/old") && !said.contains(".cv-put"), "{said}");
    assert_eq!(node.ok(&["cat", "/old"]), "old");
    assert_eq!(node.ok(&["--json", "stat", "/old"]), before);
    assert_eq!(node.ok(&["ls", "-a", "/"]), "old\n", "nothing beside it");
}

#[test]
fn a_file_that_finds_no_room_is_not_left_empty() {
    let node = small_node(8);
    std::fs::write(node.local("large"), vec![1; 40 << 20]).expect("room");
    std::fs::write(node.local("small"), vec![1; 1 << 20]).expect("room");
    // The index needs some of the last MiB: no worker has room for a block of that length.
    node.file("/full", &vec![1; 7 << 20]);
    for words in [
        &["put", &node.local("large"), "/n1"][..],
        &["put", &node.local("small"), "/n2"],
        &["put", "-f", &node.local("small"), "/n3"],
        &["put", "-f", &node.local("small"), "/full"],
    ] {
        node.refused(words, 4);
        assert_eq!(node.ok(&["ls", "-a", "/"]), "full\n", "{words:?}");
    }
    assert_eq!(node.json(&["stat", "/full"])[0]["size_bytes"], 7 << 20);
}

#[test]
fn what_replaces_a_file_has_the_owner_and_attributes_of_the_old_one_and_the_new_mode() {
    let node = Node::start();
    node.file("/f", b"first");
    node.ok(&["chown", "12:34", "/f"]);
    node.ok(&["chmod", "640", "/f"]);
    node.file("/f", b"second");
    let of = |path: &str| {
        let attr = &node.json(&["stat", path])[0];
        let text = |name: &str| attr[name].to_string();
        (text("uid"), text("gid"), text("mode"))
    };
    let expected = |mode: &str| ("12".to_owned(), "34".to_owned(), format!("\"{mode}\""));
    assert_eq!(of("/f"), expected("0640"), "an input has no mode");
    std::fs::write(node.local("program"), "#!/bin/sh\n").expect("room");
    std::fs::set_permissions(node.local("program"), PermissionsExt::from_mode(0o4750)).expect("ours");
    node.ok(&["put", "-f", &node.local("program"), "/f"]);
    assert_eq!(of("/f"), expected("4750"));
    assert_eq!(node.ok(&["cat", "/f"]), "#!/bin/sh\n");
    node.ok(&["mkdir", "/d"]);
    let said = node.run_with(&["put", "-f", "-", "/d"], b"x");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("/d is a directory"), "{}", said.err);
}

#[test]
fn head_and_tail_count_lines_and_bytes() {
    let node = Node::start();
    let text: String = (1..=20_000).map(|n| format!("line {n}\n")).collect();
    node.file("/text", text.as_bytes());
    assert_eq!(lines(&node.ok(&["head", "/text"])).len(), 10);
    assert_eq!(node.ok(&["head", "-n", "2", "/text"]), "line 1\nline 2\n");
    assert_eq!(node.ok(&["head", "-c", "7", "/text"]), "line 1\n");
    assert_eq!(node.ok(&["tail", "-n", "2", "/text"]), "line 19999\nline 20000\n");
    assert_eq!(
        node.ok(&["tail", "-n", "15000", "/text"]).lines().next(),
        Some("line 5001")
    );
    assert_eq!(node.ok(&["tail", "-c", "4", "/text"]), "000\n");
    assert_eq!(node.ok(&["tail", "-n", "99999", "/text"]), text);
    assert_eq!(node.ok(&["get", "/text", "-"]), text);
    node.file("/empty", b"");
    assert_eq!(node.ok(&["tail", "/empty"]) + &node.ok(&["head", "/empty"]), "");
}

#[test]
fn directories_are_deleted_with_what_they_hold_only_when_asked() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/d/e"]);
    node.file("/d/e/f", b"f");
    let said = node.refused(&["rm", "/d"], 1);
    assert!(said.contains("-r"), "{said}");
    node.refused(&["rm", "-r", "/"], 1);
    node.refused(&["rm", "/none"], 1);
    assert_eq!(node.ok(&["rm", "-f", "/none"]), "");
    assert_eq!(node.ok(&["rm", "-rv", "/d"]), "deleted /d\n");
    assert_eq!(node.ok(&["ls", "/"]), "");
    let said = node.refused(&["mkdir", "/no/parent"], 1);
    assert!(said.contains("/no"), "{said}");
    node.ok(&["mkdir", "/d"]);
    node.refused(&["mkdir", "/d"], 1);
    node.ok(&["mkdir", "-p", "/d"]);
}

#[test]
fn modes_owners_and_times_are_set_and_shown() {
    let node = Node::start();
    node.ok(&["mkdir", "-m", "700", "/d"]);
    node.file("/d/f", b"f");
    assert!(node.ok(&["stat", "/d"]).contains("Mode: 0700 drwx------"));
    node.ok(&["chmod", "-R", "u=rwX,go=rX", "/d"]);
    assert!(node.ok(&["stat", "/d"]).contains("Mode: 0755"));
    assert!(node.ok(&["stat", "/d/f"]).contains("Mode: 0644"));
    node.ok(&["chmod", "-x", "/d/f"]);
    node.ok(&["chown", "-R", "12:34", "/d"]);
    let f = &node.json(&["stat", "/d/f"])[0];
    assert_eq!(
        (&f["uid"], &f["gid"], &f["mode"]),
        (&12.into(), &34.into(), &"0644".into())
    );
    let before = f["mtime_ns"].as_i64().expect("a time");
    node.ok(&["touch", "/d/f"]);
    assert!(
        node.json(&["stat", "/d/f"])[0]["mtime_ns"]
            .as_i64()
            .expect("a time")
            > before
    );
    node.ok(&["touch", "-c", "/d/none"]);
    node.refused(&["stat", "/d/none"], 1);
}

#[test]
fn counts_and_sizes_are_those_of_the_tree() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/t/a/b"]);
    node.file("/t/x", &[1; 1000]);
    node.file("/t/a/y", &[2; 536]);
    assert_eq!(
        node.ok(&["count", "/t"]).split_whitespace().collect::<Vec<_>>(),
        ["3", "2", "1536", "/t"]
    );
    assert_eq!(
        node.ok(&["count", "-h", "/t"]).split_whitespace().nth(2),
        Some("1.5K")
    );
    let du = node.ok(&["du", "/t"]);
    let rows: Vec<Vec<&str>> = du.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["536", "536", "/t/a"], ["1000", "1000", "/t/x"]]);
    assert_eq!(
        node.ok(&["du", "-sh", "/t"]).split_whitespace().next(),
        Some("1.5K")
    );
    let df = &node.json(&["df"])[0];
    assert!(
        df["available_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{df}"
    );
    let blocks = &node.json(&["blocks", "/t/x"])[0]["blocks"];
    assert_eq!(blocks[0]["length_bytes"], 1000);
}

#[test]
fn put_goes_on_past_what_it_cannot_copy_and_lists_it_at_the_end() {
    let node = Node::start();
    let tree = node.local("tree");
    let tree = Path::new(&tree);
    std::fs::create_dir_all(tree.join("sub")).expect("room");
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("a-socket")).expect("room");
    curvine_tests::process::system("mkfifo", &[&node.local("tree/b-fifo")]).expect("made");
    std::fs::write(tree.join(OsStr::from_bytes(b"c-\xff")), "odd").expect("room");
    std::fs::create_dir_all(tree.join("sub/taken/below")).expect("room");
    std::fs::write(tree.join("sub/taken/below/lost"), "lost").expect("room");
    std::fs::write(tree.join("sub/there"), "is there").expect("room");
    std::fs::write(tree.join("z"), "last").expect("room");
    node.ok(&["mkdir", "-p", "/into/tree/sub"]);
    node.file("/into/tree/sub/there", b"older");
    let said = node.run(&["put", "-R", &node.local("tree"), "/into"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
    let listed: Vec<bool> = ["a-socket", "b-fifo", "c-", "there"]
        .iter()
        .map(|name| said.err.lines().filter(|line| line.contains(name)).count() == 1)
        .collect();
    assert_eq!(
        (listed, said.err.lines().count()),
        (vec![true; 4], 4),
        "{}",
        said.err
    );
    assert_eq!(
        node.ok(&["cat", "/into/tree/z", "/into/tree/sub/taken/below/lost"]),
        "lastlost"
    );
    // Without -f.
    assert_eq!(node.ok(&["cat", "/into/tree/sub/there"]), "older");
}

#[test]
fn the_replicas_of_files_are_set_one_by_one_or_below_a_directory() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/d/e"]);
    for file in ["/d/a", "/d/e/b"] {
        node.file(file, &[1; 100]);
    }
    let of = |path: &str| node.json(&["stat", path]).remove(0)["replicas"].clone();
    node.ok(&["replicas", "2", "/d/a"]);
    assert_eq!([of("/d/a"), of("/d/e/b")], [2, 1]);
    node.ok(&["replicas", "3", "-R", "/d"]);
    assert_eq!([of("/d/a"), of("/d/e/b")], [3, 3]);
    let said = node.refused(&["replicas", "2", "/d"], 2);
    assert!(said.contains("-R"), "{said}");
    assert_eq!(node.run(&["replicas", "0", "/d/a"]).code, Some(2));
}
