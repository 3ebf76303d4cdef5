//! Pins in the state.

use super::*;

fn pin(pin: &[InodeId], unpin: &[InodeId]) -> Op {
    Op::SetPins {
        pin: pin.to_vec(),
        unpin: unpin.to_vec(),
    }
}

fn rename(from: &str, to: &str) -> Rename {
    Rename {
        from: Node::Path(CurvinePath::parse(from).expect("a path")),
        to: Node::Path(CurvinePath::parse(to).expect("a path")),
        mode: RenameMode::Replace,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    }
}

#[test]
fn a_pin_is_inherited_from_the_nearest_directory_above_wherever_something_moves() {
    let mut tree = Tree::new();
    let (a, inner) = (tree.mkdir("/a").inode, tree.mkdir("/a/inner").inode);
    let other = tree.mkdir("/other").inode;
    let file = tree.write("/a/inner/f", 5).inode;
    let pinned_by = |tree: &Tree, inode| tree.store.pinned_by(inode).expect("read");
    assert_eq!(pinned_by(&tree, file), None);
    tree.apply(pin(&[a], &[])).expect("pinned");
    tree.apply(pin(&[inner], &[])).expect("pinned");
    assert_eq!(
        (pinned_by(&tree, file), pinned_by(&tree, a)),
        (Some(inner), Some(a))
    );
    tree.apply(pin(&[], &[inner])).expect("unpinned");
    assert_eq!(pinned_by(&tree, file), Some(a));
    let before = tree.store.pins().expect("read").number;
    tree.done(rename("/a/inner", "/other/inner"));
    assert_eq!((pinned_by(&tree, file), pinned_by(&tree, other)), (None, None));
    assert!(
        tree.store.pins().expect("read").number > before,
        "orders to workers are known to be late"
    );
}

#[test]
fn pins_of_what_is_gone_are_forgotten_and_what_is_not_there_is_not_pinned() {
    let mut tree = Tree::new();
    let (a, b) = (tree.mkdir("/a").inode, tree.mkdir("/b").inode);
    tree.apply(pin(&[a, b], &[])).expect("pinned");
    let delete = Delete {
        node: Node::Path(CurvinePath::parse("/a").expect("a path")),
        recursive: true,
        holders: None,
    };
    tree.done(delete);
    tree.apply(pin(&[], &[])).expect("nothing more");
    let pins = tree.store.pins().expect("read");
    assert_eq!(pins.inodes.into_iter().collect::<Vec<_>>(), [b]);
    let error = tree
        .apply(pin(&[InodeId(1 << 40)], &[]))
        .expect_err("it is not there");
    assert_eq!(error.kind, ErrorKind::Stale);
}

#[test]
fn pins_are_in_what_a_snapshot_is_restored_from() {
    let mut tree = Tree::new();
    let a = tree.mkdir("/a").inode;
    tree.apply(pin(&[a], &[])).expect("pinned");
    let other = Tree::new();
    let (from, mut txn) = (
        tree.store.read().expect("opens"),
        other.store.write().expect("one writer"),
    );
    other
        .store
        .dbs
        .replace_all(&mut txn, &tree.store.dbs, &from)
        .expect("room");
    txn.commit().expect("room");
    drop(from);
    assert_eq!(other.store.pinned_by(a), Ok(Some(a)));
    assert_eq!(other.store.pins(), tree.store.pins());
}

#[test]
fn a_pin_of_a_mount_ends_with_the_mount() {
    let mut tree = Tree::new();
    let other = tree.mkdir("/other").inode;
    let place = |at: &str| CurvinePath::parse(at).expect("a path");
    for has_files in [false, true] {
        tree.apply(Op::AddMount {
            path: place("/m"),
            uri: "file:///srv/x".to_owned(),
            options: Default::default(),
            settings: MountSettings {
                writable: true,
                ..Default::default()
            },
        })
        .expect("mounted");
        let mount = tree.stat("/m").expect("mounted").inode;
        if has_files {
            tree.write("/m/f", 5);
        }
        tree.apply(pin(&[mount, other], &[])).expect("pinned");
        let before = tree.store.pins().expect("read").number;
        tree.apply(Op::RemoveMount {
            path: place("/m"),
            force: true,
        })
        .expect("unmounted");
        let pins = tree.store.pins().expect("read");
        assert_eq!(pins.inodes.iter().copied().collect::<Vec<_>>(), [other]);
        assert!(pins.number > before);
    }
}
