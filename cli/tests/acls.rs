//! Access control lists.

mod common;

use common::Node;

#[test]
fn lists_are_changed_inherited_and_shown() {
    let node = Node::start();
    node.ok(&["mkdir", "/d"]);
    node.ok(&["acl", "modify", "user:70001:rwx,default:group:70002:rx", "/d"]);
    let said = node.ok(&["acl", "get", "/d"]);
    let shown = "user::rwx\nuser:70001:rwx\ngroup::r-x\nmask::rwx\nother::r-x\n\
        default:user::rwx\ndefault:group::r-x\ndefault:group:70002:r-x\ndefault:mask::r-x\ndefault:other::r-x\n";
    assert!(
        said.starts_with("# file: /d\n# owner: ") && said.ends_with(shown),
        "{said}"
    );
    assert_eq!(node.json(&["stat", "/d"])[0]["has_acl"], true);
    node.ok(&["mkdir", "/d/sub"]);
    node.file("/d/sub/f", b"x");
    let entries = |path: &str| {
        let entries = node.json(&["acl", "get", path])[0]["entries"].clone();
        let entries = entries.as_array().expect("a list").clone();
        entries
            .iter()
            .map(|entry| entry.as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert!(entries("/d/sub/f").contains(&"group:70002:r-x".to_owned()));
    assert_eq!(entries("/d/sub")[5..], entries("/d")[5..]);
    // What replaces a file has its list.
    node.ok(&["acl", "modify", "u:70003:r", "/d/sub/f"]);
    let before = entries("/d/sub/f");
    std::fs::write(node.local("new"), b"new").expect("room");
    node.ok(&["put", "-f", &node.local("new"), "/d/sub/f"]);
    assert_eq!(
        (entries("/d/sub/f"), node.ok(&["cat", "/d/sub/f"])),
        (before, "new".to_owned())
    );
    node.ok(&["acl", "remove", "-R", "g:70002,default:g:70002", "/d"]);
    assert!(!entries("/d/sub").iter().any(|entry| entry.contains("70002")));
    node.ok(&["acl", "set", "u::rw,u:70001:r,g::-,o::-", "/d/sub/f"]);
    assert_eq!(
        entries("/d/sub/f"),
        [
            "user::rw-",
            "user:70001:r--",
            "group::---",
            "mask::r--",
            "other::---"
        ]
    );
    node.ok(&["acl", "clear", "--default", "-R", "/d"]);
    assert!(!entries("/d").iter().any(|entry| entry.starts_with("default:")));
    node.ok(&["acl", "clear", "-R", "/d"]);
    assert_eq!(entries("/d/sub/f"), ["user::rw-", "group::---", "other::---"]);
    let said = node.refused(&["acl", "modify", "d:u:70001:r", "/d/sub/f"], 2);
    assert!(said.contains("only directories"), "{said}");
    let said = node.refused(&["acl", "modify", "user:70001", "/d"], 2);
    assert!(said.contains("no entry of an access control list"), "{said}");
}
