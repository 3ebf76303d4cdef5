//! What directories may hold.

mod common;

use common::Node;

#[test]
fn a_directory_holds_no_more_than_its_quota_and_says_what_it_holds() {
    let node = Node::start();
    node.ok(&["mkdir", "-p", "/home/ann/sub"]);
    node.file("/home/ann/before", &[1; 3_000]);
    let said = node.ok(&[
        "quota",
        "set",
        "/home/ann",
        "--bytes",
        "10KB",
        "--inodes",
        "4",
        "--soft-bytes",
        "5KB",
    ]);
    assert!(
        said.contains("/home/ann: ") && said.contains("2 of 4 inodes"),
        "{said}"
    );
    node.file("/home/ann/sub/f", &[2; 6_000]);
    let quota = node.json(&["quota", "get", "/home/ann"]).remove(0);
    assert_eq!(
        quota["used"],
        serde_json::json!({"bytes": 9_000, "inodes": 3}),
        "{quota}"
    );
    assert_eq!(
        (&quota["warned"], &quota["counted"]),
        (&true.into(), &true.into()),
        "{quota}"
    );
    std::fs::write(node.local("large"), [3; 2_000]).expect("room");
    let said = node.refused(&["put", &node.local("large"), "/home/ann/large"], 1);
    assert!(
        said.contains("quota") && said.contains("cv quota get /home/ann"),
        "{said}"
    );
    // What was refused is not there, and what is free can be used.
    assert_eq!(node.ok(&["ls", "/home/ann"]), "before\nsub\n");
    node.ok(&["rm", "/home/ann/before"]);
    node.ok(&["put", &node.local("large"), "/home/ann/large"]);
    node.ok(&["mkdir", "/home/ann/d"]);
    let said = node.refused(&["mkdir", "/home/ann/e"], 1);
    assert!(said.contains("inodes"), "{said}");
    assert_eq!(node.json(&["quota", "ls"]).len(), 1);
    node.ok(&["quota", "clear", "/home/ann"]);
    node.ok(&["mkdir", "/home/ann/e"]);
    let said = node.refused(&["quota", "get", "/home/ann"], 1);
    assert!(said.contains("no quota"), "{said}");
    let said = node.refused(&["quota", "set", "/home/ann"], 2);
    assert!(said.contains("--bytes"), "{said}");
    let said = node.refused(&["quota", "set", "/home/ann/large", "--inodes", "1"], 1);
    assert!(said.contains("not a directory"), "{said}");
}
