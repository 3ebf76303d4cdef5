//! Wrong use, bad paths, no server: a clear word, the documented exit code, nothing changed.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of processes takes the time that passes"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Node, Said, cv};

#[test]
fn without_a_server_the_error_names_the_address_within_five_seconds() {
    for words in [
        &["ls", "/"][..],
        &["mkdir", "/x"],
        &["report"],
        &["load", "--list"],
        &["df"],
    ] {
        let begun = Instant::now();
        let said: Said = cv(&[&["--master", "127.0.0.1:9"], words].concat())
            .output()
            .expect("cv runs")
            .into();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{words:?} took {:?}",
            begun.elapsed()
        );
        assert_eq!((said.code, said.out.as_str()), (Some(3), ""), "{}", said.err);
        for word in ["127.0.0.1:9", "curvine-node", "--master"] {
            assert!(said.err.contains(word), "{word} is not in: {}", said.err);
        }
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_within_five_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("is bound").to_string();
    let begun = Instant::now();
    let said: Said = cv(&["--master", &address, "ls", "/"])
        .output()
        .expect("cv runs")
        .into();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "took {:?}",
        begun.elapsed()
    );
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert!(said.err.contains(&address), "{}", said.err);
}

#[test]
fn bad_paths_are_refused_by_every_command_that_takes_one() {
    let node = Node::start();
    node.file("/f", b"f");
    let name = format!("/{}", "n".repeat(256));
    let long = format!("/{}", "p/".repeat(2_100));
    for path in ["relative", "", "/a//b", "//", "/a/../f", "/./f", &name, &long] {
        for words in [
            &["ls", path][..],
            &["stat", path],
            &["cat", path],
            &["head", path],
            &["tail", path],
            &["du", path],
            &["count", path],
            &["blocks", path],
            &["mkdir", path],
            &["touch", path],
            &["mv", "/f", path],
            &["mv", path, "/g"],
            &["rm", path],
            &["chmod", "700", path],
            &["chown", "1", path],
            &["put", "/dev/null", path],
            &["get", path, "/nowhere"],
            &["mount", "file:///", path],
            &["umount", path],
            &["load", path],
            &["free", path],
        ] {
            node.refused(words, 2);
        }
    }
    let names: Vec<_> = node
        .json(&["ls", "/"])
        .into_iter()
        .map(|entry| entry["path"].clone())
        .collect();
    assert_eq!(names, ["/f"], "nothing was made");
}

#[test]
fn a_manifest_names_the_line_that_is_wrong() {
    let node = Node::start();
    for (manifest, says) in [
        (&b"/a\n/b\0c\n"[..], "line 2"),
        (b"/a\n\n../b\n", "line 3"),
        (b"# nothing\n", "nothing to load"),
    ] {
        let said = node.run_with(&["load", "--manifest", "-"], manifest);
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(says), "{says} is not in: {}", said.err);
    }
    let said = node.refused(&["load", "--manifest", "/no/such/file"], 1);
    assert!(said.contains("/no/such/file"), "{said}");
}

#[test]
fn wrong_use_is_exit_code_2_and_says_what_is_right() {
    for (words, says) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["ls", "--frobnicate"], "--frobnicate"),
        (&["cat"], "PATH"),
        (&["mv", "/a"], "PATH"),
        (&["head", "-n", "many", "/a"], "many"),
        (&["load-status", "seven"], "seven"),
        (&["load"], "--manifest"),
        (&["chmod", "u*x", "/a"], "u+x"),
        (&["chown", "nobody-here", "/a"], "nobody-here"),
        (&["mount", "bucket", "/a"], "s3://"),
        (&["mount", "s3://b", "/a", "-o", "endpoint"], "NAME=VALUE"),
        (
            &["mount", "s3://b", "/a", "-o", "secret_access_key=@/no/such/file"],
            "/no/such/file",
        ),
        (
            &[
                "mount",
                "s3://b",
                "/a",
                "-o",
                "secret_access_key=@env:NO_SUCH_VARIABLE",
            ],
            "NO_SUCH_VARIABLE",
        ),
        (&["mount", "s3://b", "/a", "--staleness", "soon"], "soon"),
        (&["put", "-t", "0", "x", "/x"], "1..=1024"),
        (&["get", "-t", "100000", "/x", "x"], "1..=1024"),
        (&["bench", "meta", "--clients", "0"], "1..=1024"),
        (&["bench", "meta", "--clients", "100000"], "1..=1024"),
        (&["bench", "meta", "--files", "0"], "1..="),
        (&["bench", "meta", "--threads", "100000"], "0..=1024"),
        (&["bench", "small", "--files", "0"], "1..="),
        (&["bench", "small", "--clients", "1,0"], "1..=1024"),
        (&["bench", "data", "--bytes", "0"], "1048576..="),
        (
            &["bench", "data", "--bytes", "18446744073709551615"],
            "1048576..=",
        ),
        (&["bench", "data", "--reads", "0"], "1..="),
        (&["completions", "cobol"], "cobol"),
        (&["--master", "nonsense", "ls"], "nonsense"),
        (&["--config", "/no/such/file", "ls"], "/no/such/file"),
    ] {
        // Nobody is asked: there is no server.
        let said: Said = cv(words).output().expect("cv runs").into();
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(2), ""),
            "cv {words:?}: {}",
            said.err
        );
        assert!(
            said.err.contains(says),
            "cv {words:?}: {says} is not in: {}",
            said.err
        );
    }
}

#[test]
fn what_is_not_possible_is_refused_with_its_reason() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/d/e"]);
    node.file("/f", b"f");
    std::fs::write(node.local("x"), "x").expect("room");
    for (words, says) in [
        (&["cat", "/d"][..], "directory"),
        (&["head", "/d"], "directory"),
        (&["tail", "/d"], "directory"),
        (&["blocks", "/d"], "directory"),
        (&["ls", "/f/x"], "directory"),
        (&["mkdir", "/f/x"], "directory"),
        (&["mv", "/f", "/d", "/none"], "not a directory"),
        (&["mv", "/none", "/d"], "/none"),
        (&["put", "/no/such/file", "/x"], "/no/such/file"),
        (&["put", &node.local("x"), "/f/x"], "directory"),
        (
            &["put", &node.local("x"), &node.local("x"), "/none"],
            "not a directory",
        ),
        (&["get", "/none", &node.local("y")], "/none"),
        (&["get", "/f", "/no/such/place"], "/no/such/place"),
        (&["umount", "/d"], "nothing is mounted"),
        (&["load-status", "99"], "no job 99"),
        (&["load-cancel", "99"], "no job 99"),
        (&["load", "/none"], "/none"),
        (&["free", "/none"], "/none"),
    ] {
        let said = node.refused(words, 1);
        assert!(said.contains(says), "{says} is not in: {said}");
    }
    let said = node.refused(&["mv", "/d", "/d/e/d"], 2);
    assert!(said.contains("into itself"), "{said}");
    assert_eq!(node.json(&["ls", "-R", "/"]).len(), 3, "nothing was made");
}
