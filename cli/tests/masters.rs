//! Looking after the group of masters: its members, and backups of the namespace.

mod common;

use common::{Node, Said, cv, lines};
use serde_json::Value;

#[test]
fn a_backup_is_written_once_and_restored_into_new_directories_only() {
    let node = Node::start();
    node.ok(&["mkdir", "/kept"]);
    let (file, to) = (node.local("backup"), node.local("restored"));
    let said = node.ok(&["master", "backup", &file]);
    assert!(
        said.starts_with(&format!("{file}: the namespace up to log entry ")),
        "{said}"
    );
    let complaint = node.refused(&["master", "backup", &file], 1);
    assert_eq!(
        complaint,
        format!("cv: master: {file} is there already; --force replaces it\n")
    );
    let answer = &node.json(&["master", "backup", "--force", &file])[0];
    assert_eq!(answer["file"], file.as_str());
    let report = &node.json(&["report"])[0];
    assert_eq!(answer["cluster"], report["cluster"]);

    // Nobody is asked.
    let restore = |from: &str, to: &str, json: bool| -> Said {
        let mut words = vec![
            "--master",
            "127.0.0.1:9",
            "master",
            "restore",
            from,
            "--data-dir",
            to,
        ];
        words.extend(json.then_some("--json"));
        cv(&words).output().expect("cv runs").into()
    };
    let said = restore(&file, &to, false);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let cluster = answer["cluster"].as_str().expect("text");
    assert!(
        said.out.starts_with(&format!("Cluster {cluster} as of ")),
        "{}",
        said.out
    );
    assert_eq!(
        lines(&said.out)[2].trim(),
        format!("curvine-node --role master --id 1 --listen HOST:PORT --data-dir {to}")
    );
    let again = restore(&file, &to, false);
    assert_eq!(
        (again.code, again.err),
        (
            Some(1),
            format!(
                "cv: master: {to}/master has a master's data already (`restore.backup`); restore into a new --data-dir, or \
                 move this one away\n"
            )
        )
    );
    let said = restore(&file, &node.local("another"), true);
    let other: serde_json::Value = serde_json::from_str(&said.out).expect("is JSON");
    assert_eq!(
        (&other["log_index"], &other["len_bytes"], &other["data_dir"]),
        (
            &answer["log_index"],
            &answer["len_bytes"],
            &node.local("another").into()
        )
    );
    assert_eq!(node.ok(&["ls", "--stale", "/"]), "kept\n");
    let none = restore(&node.local("nothing"), &node.local("third"), false);
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("nothing: No such file"), "{}", none.err);
}

#[test]
fn a_master_is_added_listed_and_removed() {
    let node = Node::start();
    let alone = &node.json(&["master", "list"])[0];
    let roles = |list: &serde_json::Value| -> Vec<(u64, String)> {
        let masters = list.as_array().expect("an array").iter();
        masters
            .map(|master| {
                let role = master["role"].as_str().expect("text").to_owned();
                (master["id"].as_u64().expect("a number"), role)
            })
            .collect()
    };
    assert_eq!(roles(alone), [(1, "leader".to_owned())]);
    let complaint = node.refused(&["master", "add", "2=127.0.0.1:9"], 3);
    assert!(complaint.contains("start it first, with --id 2"), "{complaint}");
    let complaint = node.refused(&["master", "remove", "2"], 1);
    assert!(complaint.contains("no master 2 is of the group"), "{complaint}");

    let second = node.newcomer();
    node.ok(&["mkdir", "/before"]);
    node.ok(&["master", "add", &format!("2={}", second.master)]);
    let both = &node.json(&["master", "list"])[0];
    assert_eq!(
        roles(both),
        [(1, "leader".to_owned()), (2, "follower".to_owned())]
    );
    assert_eq!(both[1]["address"], second.master.as_str());
    assert_eq!(second.ok(&["ls", "/"]), "before\n", "it names the leader");
    node.ok(&["master", "remove", "2"]);
    assert_eq!(
        roles(&node.json(&["master", "list"])[0]),
        [(1, "leader".to_owned())]
    );
}

#[test]
fn balancing_says_how_full_workers_are_and_ends_at_once_where_there_is_one() {
    let node = Node::start();
    node.file("/f", &[1; 3_000_000]);
    let said = node.refused(&["balance", "--stop"], 1);
    assert!(said.contains("nothing is being balanced"), "{said}");
    let status = node.json(&["balance"]).remove(0);
    assert_eq!(
        (&status["run"], &status["ended"]),
        (&Value::Null, &Value::Null),
        "{status}"
    );
    assert_eq!(status["workers"][0]["worker"], 1, "{status}");
    let said = node.ok(&["balance", "--now", "--tolerance", "5", "--wait"]);
    assert!(said.contains("balanced at ") && said.contains("+0.0 %"), "{said}");
    let status = node.json(&["balance"]).remove(0);
    assert_eq!(status["ended"]["how"], "Balanced", "{status}");
    for wrong in [
        &["--wait"][..],
        &["--now", "--tolerance", "0"],
        &["--now", "--stop"],
        &["--tolerance", "5"],
    ] {
        let said = node.run(&[&["balance"], wrong].concat());
        assert_eq!(said.code, Some(2), "{wrong:?}: {}", said.err);
    }
}
