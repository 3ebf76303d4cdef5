//! What quotas count is what a walk finds, and what passes them is refused.

use super::*;

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
        let counted = self.store.dbs.tree_usage(&txn, inode, ErrorKind::Internal);
        assert_eq!(quota.used, counted.expect("it is small"), "of {at}");
        let QuotaUsage { bytes, inodes } = quota.used;
        (bytes, inodes)
    }

    fn mv(&mut self, from: &str, to: &str) -> Result<OpReply> {
        self.apply(
            Rename {
                from: path(from),
                to: path(to),
                mode: RenameMode::Replace,
                keep_replaced: false,
                closed: Vec::new(),
                holders: None,
            }
            .into_op(),
        )
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
    });
    let client = tree.done(OpenSession {}).client.0;
    for _ in 0..2 {
        tree.apply_for(client, 1, make.clone()).expect("it was made");
    }
    assert_eq!(tree.used("/q"), (0, 1));
}
