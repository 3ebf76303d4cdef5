//! Backups of the namespace: taken while it changes, damaged, restored, and grown into a group again.

use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_actors::backup::place;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::master::AclChange;
use curvine_protocol::number::to_u32;
use curvine_protocol::{AclEntry, AclWho, CurvinePath, DirEntry, ErrorKind, FileKind, NodeId};
use futures::TryStreamExt;

use super::group::{Masters, all_in_step, leader, path};
use super::masters::Making;
use super::support::*;

/// Everything that a client can see of the namespace.
type Tree = Vec<(CurvinePath, DirEntry, Vec<(String, Vec<u8>)>, Vec<AclEntry>)>;

async fn tree(client: &Client) -> Tree {
    let root = CurvinePath::parse("/").expect("a valid path");
    let entry = DirEntry {
        name: String::new(),
        attr: client.stat(&root).await.expect("there"),
        target: None,
    };
    let mut found = vec![(root.clone(), entry)];
    found.extend(client.walk(&root).try_collect::<Vec<_>>().await.expect("listed"));
    let mut tree = Tree::new();
    for (path, entry) in found {
        let mut xattrs = Vec::new();
        for name in client.xattr_names(entry.attr.inode).await.expect("listed") {
            let value = client.xattr(entry.attr.inode, &name).await.expect("there");
            xattrs.push((name, value));
        }
        let acl = client.acl(entry.attr.inode).await.expect("there").entries;
        tree.push((path, entry, xattrs, acl));
    }
    tree
}

fn content() -> Bytes {
    (0..300_000u32)
        .map(|at| (at * 7 + (at >> 8)).to_le_bytes()[0])
        .collect()
}

async fn make_tree(client: &Client) {
    for name in ["a", "a/b", "a/b/c", "empty"] {
        client.make_dir(path(name), 0o750, false).await.expect("made");
    }
    for number in 0..300 {
        let name = path(&format!("a/b/{number}"));
        let made = client.make_node(name, FileKind::File, 0o640, 0).await;
        made.expect("made");
    }
    let file = client.create(&path("a/file"), CreateOptions::default()).await;
    let file = file.expect("created");
    file.append(content()).await.expect("taken");
    file.close().await.expect("closed");
    client
        .link(path("a/file"), path("a/b/c/linked"))
        .await
        .expect("made");
    client.symlink(path("a/link"), "b/c").await.expect("made");
    client
        .set_xattr(path("a/file"), "user.origin", &[0, 255, 7], false, false)
        .await
        .expect("set");
    let entries = vec![
        AclEntry::access(AclWho::User(1234), 7),
        AclEntry::default(AclWho::NamedGroup(56), 5),
    ];
    let attr = client.change_acl(path("empty"), AclChange::Modify(entries)).await;
    assert!(attr.expect("set").has_acl);
}

fn worker(masters: &Masters, among: usize) -> Node {
    let directory = masters.scratch.path().join("worker");
    Node::start(&[
        "--role",
        "worker",
        "--master",
        &masters.addresses[..among].join(","),
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&directory),
    ])
}

#[test]
fn a_backup_restores_what_was_there_and_grows_into_a_group_again() {
    run(async {
        let mut masters = Masters::start(3);
        let mut cached = worker(&masters, 3);
        let client = masters.client().await;
        make_tree(&client).await;
        let quiet = tree(&client).await;
        let (file, later) = (
            masters.scratch.path().join("backup"),
            masters.scratch.path().join("later"),
        );

        let making = Making::begin(client.clone(), "d");
        making.more().await;
        let before = making.made.load(Ordering::Acquire);
        client.back_up(&file, false).await.expect("backed up");
        let after = making.made.load(Ordering::Acquire) + 1;
        making.more().await;
        let (made, _) = making.end().await;
        assert!(made > after, "the writer went on");
        let again = client.back_up(&file, false).await.expect_err("it is there");
        assert_eq!(again.kind, ErrorKind::AlreadyExists);
        client.take_snapshot().await.expect("taken");
        client.back_up(&later, false).await.expect("backed up");
        client.back_up(&later, true).await.expect("replaced");
        let all = tree(&client).await;
        let header = curvine_actors::backup::Backup::open(&later)
            .expect("a backup")
            .header;
        assert_eq!(
            header.cluster.to_string(),
            masters.nodes[0].as_ref().expect("it runs").said("cluster")
        );
        for number in 0..3 {
            assert_eq!(
                place(&later, &masters.directory(number))
                    .expect_err("it has data")
                    .kind,
                ErrorKind::AlreadyExists
            );
            masters.kill(number);
        }
        cached.stop();
        assert!(!masters.scratch.path().join("later.part").exists());

        // The first: a moment while the writer went on.
        let alone = |at: &Path, address: &str| {
            Node::start(&["--role", "master", "--listen", address, "--data-dir", text(at)])
        };
        let at = masters.scratch.path().join("first");
        place(&file, &at).expect("placed");
        let node = alone(&at, "127.0.0.1:0");
        let restored = node.client().await;
        let (dirs, rest): (Vec<_>, Vec<_>) = tree(&restored)
            .await
            .into_iter()
            .filter(|(path, ..)| path.as_str() != "/")
            .partition(|(_, entry, ..)| entry.name.starts_with('d'));
        assert_eq!(rest, quiet[1..], "what nobody changed");
        let count = to_u32(dirs.len());
        assert!(
            (before..=after).contains(&count),
            "{before} <= {count} <= {after}"
        );
        for number in 0..count {
            assert_eq!(restored.exists(&path(&format!("d{number}"))).await, Ok(true));
        }
        drop(node);

        // The second: everything, at the old group's addresses.
        for number in 0..3 {
            let directory = masters.directory(number);
            std::fs::rename(&directory, directory.with_extension("old")).expect("moved away");
        }
        place(&later, &masters.directory(0)).expect("placed");
        let (code, said) = {
            let peers = format!("1={},2={}", masters.addresses[0], masters.addresses[1]);
            let (listen, directory) = (masters.addresses[0].clone(), masters.directory(0));
            refused(&[
                "--role",
                "master",
                "--listen",
                &listen,
                "--peers",
                &peers,
                "--data-dir",
                text(&directory),
            ])
        };
        assert_eq!(code, Some(2));
        assert!(said.contains("starts alone"), "{said}");
        masters.nodes[0] = Some(masters.starting_among(0, 1).ready());
        let node = masters.nodes[0].as_ref().expect("it runs");
        assert_eq!(node.said("cluster"), header.cluster.to_string());
        let client = node.client().await;
        assert_eq!(tree(&client).await, all);
        // What it holds is served again, and ids that were given out are not given out again.
        let _cached = worker(&masters, 1);
        until("the file is served", async || {
            let read = client.read(&path("a/file")).await.ok()?;
            (read == content()).then_some(())
        })
        .await;
        let highest = all.iter().map(|(_, entry, ..)| entry.attr.inode).max();
        let made = client.make_dir(path("since"), 0o755, false).await.expect("made");
        assert!(Some(made.inode) > highest);
        client
            .write(&path("written since"), content())
            .await
            .expect("written");

        // One that has what was before is not let in.
        let old = masters.directory(1).with_extension("old");
        std::fs::rename(&old, masters.directory(1)).expect("moved back");
        let stranger = masters.starting_among(1, 3);
        until_ok("it is refused for its history", async || {
            let added = client.add_master(NodeId(2), &masters.addresses[1]).await;
            let error = added.expect_err("it has another history");
            match error.message.contains("restored from a backup") {
                true => Ok(()),
                false => Err(error),
            }
        })
        .await;
        drop(stranger);
        std::fs::remove_dir_all(masters.directory(1)).expect("emptied");

        let now = tree(&client).await;
        for number in 1..3 {
            masters.join(&client, number, 3).await;
        }
        let client = masters.client().await;
        all_in_step(&client).await;
        let first = leader(&client).await;
        masters.kill(first);
        assert_eq!(tree(&client).await, now, "those who were added have it all");
        masters.nodes[first] = Some(masters.starting_among(first, 3).ready());
        all_in_step(&client).await;
    });
}

#[test]
fn a_damaged_cut_or_newer_backup_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(&dir.path().join("node"), &[]);
    let (file, to) = (dir.path().join("backup"), dir.path().join("restored"));
    run(async {
        let client = node.client().await;
        make_tree(&client).await;
        client.back_up(&file, false).await.expect("backed up");
    });
    let whole = std::fs::read(&file).expect("readable");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("room");
        let error = place(&file, &to).expect_err("it is not what was written");
        assert!(!to.exists(), "nothing is changed");
        (error.kind, error.message)
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    assert_eq!(
        refused(&flipped),
        (
            ErrorKind::Corrupt,
            format!("{} fails its checksum; use another backup", file.display())
        )
    );
    let cut = whole.len() - 4096;
    assert_eq!(
        refused(&whole[..cut]),
        (
            ErrorKind::Corrupt,
            format!(
                "{} has {cut} bytes instead of {}; use another backup",
                file.display(),
                whole.len()
            )
        )
    );
    let mut newer = whole.clone();
    newer[8] += 1;
    assert_eq!(
        refused(&newer),
        (
            ErrorKind::Config,
            format!(
                "{}: the backup has format 2 and this version knows up to 1; use a newer one",
                file.display()
            )
        )
    );
}
