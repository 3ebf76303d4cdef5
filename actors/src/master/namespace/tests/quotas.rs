//! What quotas count is what a walk finds, and what passes them is refused.

use super::*;
use crate::master::namespace::quotas::{COUNTED_MAX, Counted};

impl Tree {
    fn limit(&mut self, at: &str, bytes: u64, inodes: u64) {
        self.done(SetQuota {
            node: path(at),
            limits: Some(QuotaLimits {
                bytes: Some(bytes),
                inodes: Some(inodes),
                soft_bytes: None,
            }),
        });
    }

    /// What the quota says, which must be what a walk finds.
    fn used(&self, at: &str) -> (u64, u64) {
        let quota = self.store.quotas(Some(&path(at))).expect("it has one").remove(0);
        let (inode, _) = self.store.entry(&path(at), true).expect("it is there");
        let txn = self.store.read().expect("it is open");
        let counted = self
            .store
            .dbs
            .tree_usage(&txn, inode, usize::MAX)
            .expect("no hard links");
        assert_eq!(Some(quota.used), counted, "of {at}");
        let QuotaUsage { bytes, inodes } = quota.used;
        (bytes, inodes)
    }

    fn mv(&mut self, from: &str, to: &str) -> Result<OpReply> {
        self.apply(rename(from, to, RenameMode::Replace).into_op())
    }
}

#[test]
fn quotas_count_what_is_below_them() {
    let mut tree = Tree::new();
    tree.mkdir("/q");
    tree.mkdir("/q/sub");
    tree.mkdir("/out");
    tree.write("/q/sub/before", 100_000);
    tree.limit("/q", 300_000, 5);
    assert_eq!(tree.used("/q"), (100_000, 2));
    tree.limit("/q/sub", 200_000, 100);
    tree.write("/q/sub/f", 70_000);
    assert_eq!(
        (tree.used("/q"), tree.used("/q/sub")),
        ((170_000, 3), (170_000, 2))
    );
    // A tree that goes out, and comes in again.
    tree.mv("/q/sub", "/out/sub").expect("out");
    assert_eq!((tree.used("/q"), tree.used("/out/sub")), ((0, 0), (170_000, 2)));
    tree.write("/out/sub/g", 20_000);
    tree.mv("/out/sub", "/q/sub").expect("in");
    assert_eq!(
        (tree.used("/q"), tree.used("/q/sub")),
        ((190_000, 4), (190_000, 3))
    );
    // A tree that would pass it stays where it is.
    tree.write("/out/big", 200_000);
    let refused = tree.mv("/out/big", "/q/big").expect_err("too big");
    assert_eq!(refused.kind, ErrorKind::QuotaExceeded);
    assert_eq!(tree.used("/q"), (190_000, 4));
    tree.mkdir("/q/d");
    assert_eq!(tree.refused(create("/q/one-more")), ErrorKind::QuotaExceeded);
    // One takes the place of another; a tree goes.
    tree.mv("/q/sub/f", "/q/sub/g").expect("within");
    assert_eq!(
        (tree.used("/q"), tree.used("/q/sub")),
        ((170_000, 4), (170_000, 2))
    );
    tree.done(Delete {
        node: path("/q/sub"),
        recursive: true,
        holders: None,
    });
    assert_eq!(tree.used("/q"), (0, 1));
}

#[test]
fn a_retry_is_charged_once() {
    let mut tree = Tree::new();
    tree.mkdir("/q");
    tree.limit("/q", 1, 9);
    let make = Op::MakeDir(MakeDir {
        node: path("/q/d"),
        mode: 0o755,
        parents: false,
        unmasked: None,
    });
    let client = tree.done(OpenSession {}).client.0;
    for _ in 0..2 {
        tree.apply_for(client, 1, make.clone()).expect("it was made");
    }
    assert_eq!(tree.used("/q"), (0, 1));
}

/// What the leader does in the background.
fn count(tree: &mut Tree, at: &str) {
    let (directory, _) = tree.store.entry(&path(at), true).expect("it is there");
    let counted = tree.store.count_quota(directory).expect("it can be counted");
    told(tree, directory, counted.expect("it is not counted"));
}

fn told(tree: &mut Tree, directory: InodeId, counted: Counted) {
    let Counted { round, held } = counted;
    tree.apply(Op::QuotaCounted {
        directory,
        round,
        bytes: held.bytes,
        inodes: held.inodes,
    })
    .expect("noted");
}

#[test]
fn a_big_tree_is_counted_in_the_background_while_it_changes() {
    let mut tree = Tree::new();
    for directory in ["/q", "/q/big", "/out"] {
        tree.mkdir(directory);
    }
    let many = COUNTED_MAX as u64 + 10;
    for number in 0..many {
        tree.mkdir(&format!("/q/big/{number}"));
    }
    tree.write("/q/f", 5_000);
    tree.limit("/q", 20_000, many + 2);
    let is_counted = |tree: &Tree| tree.store.quotas(Some(&path("/q"))).expect("it has one")[0].is_counted;
    assert!(!is_counted(&tree));
    let (directory, _) = tree.store.entry(&path("/q"), true).expect("it is there");
    // Nothing is refused until it is known, and what comes and goes meanwhile is counted.
    tree.write("/q/g", 30_000);
    let counted = tree
        .store
        .count_quota(directory)
        .expect("it can be counted")
        .expect("it is to be");
    tree.done(unlink("/q/f"));
    told(&mut tree, directory, counted);
    told(&mut tree, directory, counted);
    assert!(is_counted(&tree));
    assert_eq!(tree.used("/q"), (30_000, many + 2));
    assert_eq!(tree.refused(create("/q/x")), ErrorKind::QuotaExceeded);
    // A big tree that leaves, and comes back, has it counted anew; a count of before is void.
    tree.mv("/q/big", "/out/big").expect("out");
    assert!(!is_counted(&tree));
    told(&mut tree, directory, counted);
    assert!(!is_counted(&tree));
    count(&mut tree, "/q");
    assert_eq!(tree.used("/q"), (30_000, 1));
    tree.mv("/out/big", "/q/big").expect("in");
    count(&mut tree, "/q");
    assert_eq!(tree.used("/q"), (30_000, many + 2));
    assert_eq!(tree.store.uncounted_quotas().expect("readable"), []);
    assert_eq!(tree.store.count_quota(directory).expect("readable"), None);
}

#[test]
fn what_is_deleted_in_the_background_counts_until_it_is_gone() {
    let mut tree = Tree::new();
    for directory in ["/q", "/q/big", "/q/other"] {
        tree.mkdir(directory);
    }
    for number in 0..COUNTED_MAX as u64 {
        tree.mkdir(&format!("/q/big/{number}"));
    }
    tree.limit("/q", 20_000, 1 << 20);
    count(&mut tree, "/q");
    tree.done(Delete {
        node: path("/q/big"),
        recursive: true,
        holders: None,
    });
    while let Some(top) = tree.store.detached().expect("readable").first().copied() {
        let (inode, holders) = (top, None);
        tree.apply(Op::Reclaim { inode, holders })
            .expect("some of it goes");
    }
    assert_eq!(tree.used("/q"), (0, 1));
}

#[test]
fn hard_links_do_not_lead_out_of_a_quota() {
    let mut tree = Tree::new();
    tree.mkdir("/q");
    tree.limit("/q", 1_000, 10);
    tree.write("/q/f", 10);
    tree.write("/g", 10);
    for (old, new) in [("/q/f", "/h"), ("/g", "/q/h")] {
        let (node, source) = (path(new), path(old));
        let link = MakeLink { node, source };
        assert_eq!(tree.refused(link), ErrorKind::CrossMount, "{old} {new}");
    }
    assert_eq!(tree.used("/q"), (10, 1));
}
