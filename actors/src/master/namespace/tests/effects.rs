//! Changes that under file systems make first, and exports.

use curvine_protocol::op::{CommitChange, Copied, ExportOutcome};

use super::*;

/// A mount with a file for each of these, each with an object of that name.
fn with_objects(names: &[&str]) -> Tree {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    list(
        &mut tree,
        directory,
        names.iter().map(|name| object(name, 5, name)).collect(),
    );
    tree
}

fn list(tree: &mut Tree, directory: InodeId, objects: Vec<UfsObject>) {
    tree.apply(Op::SyncDir(SyncDir {
        directory,
        after: None,
        until: None,
        objects,
        only: None,
    }))
    .expect("synced");
}

fn version(etag: &str) -> UfsVersion {
    object("", 5, etag).version.expect("it has one")
}

fn unlink(at: &str) -> Op {
    Op::Unlink(Unlink {
        node: path(at),
        keep_open: false,
        closed: Vec::new(),
        holders: None,
    })
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename(Rename {
        from: path(from),
        to: path(to),
        mode: RenameMode::Replace,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    })
}

fn note(tree: &mut Tree, sequence: u64, op: Op) -> Result<OpReply> {
    tree.apply_for(3, sequence, Op::Note(Box::new(op)))
}

fn noted(tree: &mut Tree, sequence: u64, op: Op) -> EffectId {
    match note(tree, sequence, op).expect("noted") {
        OpReply::Noted(effect) => effect,
        other => panic!("{other:?}"),
    }
}

fn commit(tree: &mut Tree, effect: EffectId, copies: Vec<Copied>) -> Result<OpReply> {
    tree.apply(Op::CommitChange(CommitChange {
        effect,
        holders: None,
        copies,
    }))
}

fn export(tree: &mut Tree, inode: InodeId) -> EffectId {
    let worker = WorkerId(1);
    match tree.apply(Op::BeginExport { inode, worker }).expect("begun") {
        OpReply::Noted(effect) => effect,
        other => panic!("{other:?}"),
    }
}

/// Ends a rename of one file.
fn settle(tree: &mut Tree, effect: EffectId, inode: InodeId) {
    let inodes = vec![inode];
    tree.apply(Op::SettleCopies {
        effect,
        inodes,
        end: true,
    })
    .expect("settled");
}

fn effects(tree: &Tree) -> usize {
    tree.store.effects().expect("readable").len()
}

#[test]
fn a_deletion_is_noted_once_and_its_retry_gets_the_one_answer() {
    let mut tree = with_objects(&["a"]);
    let effect = noted(&mut tree, 1, unlink("/m/a"));
    assert_eq!(
        noted(&mut tree, 1, unlink("/m/a")),
        effect,
        "the same change, sent again"
    );
    assert!(tree.stat("/m/a").is_ok(), "the store has not deleted it yet");
    commit(&mut tree, effect, Vec::new()).expect("committed");
    assert_eq!(tree.names("/m"), [""; 0]);
    // Somebody writes the name again, and the retry comes late.
    tree.write("/m/a", 10);
    let again = note(&mut tree, 1, unlink("/m/a"));
    assert!(matches!(again, Ok(OpReply::Entry(_))), "{again:?}");
    assert_eq!(tree.names("/m"), ["a"]);
    assert_eq!(effects(&tree), 0);
    tree.check();
}

#[test]
fn what_the_store_refuses_changes_nothing_and_stays_refused() {
    let mut tree = with_objects(&["a"]);
    let effect = noted(&mut tree, 1, unlink("/m/a"));
    let error = Error::new(ErrorKind::UfsDenied, "403");
    tree.apply(Op::RefuseChange { effect, error }).expect("noted");
    assert_eq!(tree.names("/m"), ["a"]);
    let again = note(&mut tree, 1, unlink("/m/a"));
    assert_eq!(again.expect_err("refused").kind, ErrorKind::UfsDenied);
    // A second try by the user is another change.
    noted(&mut tree, 2, unlink("/m/a"));
}

#[test]
fn one_effect_at_a_time_touches_a_name_and_listings_say_nothing_of_it() {
    let mut tree = with_objects(&["a", "b"]);
    let directory = tree.stat("/m").expect("there").inode;
    noted(&mut tree, 1, unlink("/m/a"));
    let under_way = |outcome: Result<OpReply>| outcome.expect_err("in the way").kind == ErrorKind::UnderWay;
    assert!(under_way(note(&mut tree, 2, unlink("/m/a"))));
    assert!(under_way(note(&mut tree, 3, rename("/m/b", "/m/a"))));
    // A listing from before, and one from behind the deletion.
    list(
        &mut tree,
        directory,
        vec![object("a", 9, "newer"), object("b", 5, "b")],
    );
    assert_eq!(tree.stat("/m/a").expect("there").size_bytes, 5);
    list(&mut tree, directory, vec![object("b", 5, "b")]);
    assert_eq!(tree.names("/m"), ["a", "b"]);
    noted(&mut tree, 4, rename("/m/b", "/m/c"));
    tree.check();
}

#[test]
fn a_renamed_file_is_read_from_its_copy_and_settles_on_it() {
    let mut tree = with_objects(&["a", "b"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    let effect = noted(&mut tree, 1, rename("/m/a", "/m/b"));
    let copied = Copied {
        inode,
        from: version("a"),
        to: Some(version("copy")),
    };
    let source = |tree: &Tree| {
        tree.store
            .layout(inode)
            .expect("a file")
            .source
            .expect("an object")
    };
    assert_eq!(
        (source(&tree).key.as_str(), source(&tree).version),
        ("a", version("a"))
    );
    commit(&mut tree, effect, vec![copied]).expect("committed");
    assert_eq!(
        (source(&tree).key.as_str(), source(&tree).version),
        ("b", version("copy"))
    );
    assert_eq!(effects(&tree), 1, "the old object is still there");
    assert!(
        note(&mut tree, 2, unlink("/m/b")).is_err(),
        "until then nothing else touches it"
    );
    settle(&mut tree, effect, inode);
    assert_eq!(tree.store.attr(inode).expect("there").ufs, Some(version("copy")));
    assert_eq!((effects(&tree), tree.names("/m")), (0, vec!["b".to_owned()]));
    tree.check();
}

#[test]
fn a_rename_that_is_refused_leaves_its_copies_to_be_removed() {
    let mut tree = with_objects(&["a"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    let effect = noted(&mut tree, 1, rename("/m/a", "/m/b"));
    let copied = Copied {
        inode,
        from: version("a"),
        to: Some(version("copy")),
    };
    let copies = vec![copied];
    tree.apply(Op::NoteCopies { effect, copies }).expect("noted");
    let error = Error::new(ErrorKind::Ufs, "503");
    tree.apply(Op::RefuseChange { effect, error }).expect("noted");
    assert_eq!(
        tree.store.copies(effect, InodeId(0), 10).expect("readable").len(),
        1
    );
    assert_eq!((effects(&tree), tree.names("/m")), (1, vec!["a".to_owned()]));
    settle(&mut tree, effect, inode);
    assert_eq!(tree.store.attr(inode).expect("there").ufs, Some(version("a")));
    assert_eq!(effects(&tree), 0);
}

#[test]
fn a_file_without_an_object_is_renamed_at_once_and_replaces_what_was_there() {
    let mut tree = with_objects(&["b"]);
    let inode = tree.write("/m/new", 10).inode;
    let renamed = note(&mut tree, 1, rename("/m/new", "/m/b"));
    assert!(matches!(renamed, Ok(OpReply::Renamed(_))), "{renamed:?}");
    assert_eq!(tree.store.attr(inode).expect("there").ufs, Some(version("b")));
    assert!(tree.store.needs_export(inode).expect("readable"));
    let removed = note(&mut tree, 2, unlink("/m/b"));
    assert!(
        matches!(removed, Ok(OpReply::Noted(_))),
        "it would leave the object that it replaced"
    );
}

#[test]
fn an_export_counts_for_the_version_that_was_exported() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    let inode = tree.write("/m/f", 10).inode;
    let mount = MountId(1);
    let waiting = |tree: &Tree| {
        tree.store
            .unexported(mount, InodeId(0), 10)
            .expect("readable")
            .len()
    };
    assert_eq!(waiting(&tree), 1);
    let effect = export(&mut tree, inode);
    let again = tree.apply(Op::BeginExport {
        inode,
        worker: WorkerId(2),
    });
    assert_eq!(again.expect_err("one at a time").kind, ErrorKind::UnderWay);
    assert_eq!(tree.store.confirm_export(effect, WorkerId(1)), Ok(()));
    assert!(tree.store.confirm_export(effect, WorkerId(2)).is_err());
    // It is written meanwhile.
    tree.done(OpenForWrite {
        node: path("/m/f"),
        follow: true,
        truncate: true,
        open: 0,
        named: false,
    });
    assert!(
        tree.store.confirm_export(effect, WorkerId(1)).is_err(),
        "somebody writes it"
    );
    let outcome = ExportOutcome::Stored(version("1"));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(tree.store.attr(inode).expect("there").ufs, Some(version("1")));
    assert_eq!(waiting(&tree), 1, "the newer content is still to be exported");
    let effect = export(&mut tree, inode);
    let outcome = ExportOutcome::Stored(version("2"));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!((waiting(&tree), effects(&tree)), (0, 0));
    tree.check();
}

#[test]
fn a_file_that_is_only_emptied_waits_for_its_export() {
    let mut tree = with_objects(&["a"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    tree.done(OpenForWrite {
        node: path("/m/a"),
        follow: true,
        truncate: true,
        open: 0,
        named: false,
    });
    assert_eq!(tree.store.attr(inode).expect("there").size_bytes, 0);
    let waiting = tree
        .store
        .unexported(MountId(1), InodeId(0), 10)
        .expect("readable");
    assert_eq!(
        waiting.iter().map(|(inode, _)| *inode).collect::<Vec<_>>(),
        [inode]
    );
    tree.check();
}

#[test]
fn a_file_that_is_open_without_a_name_waits_for_no_export() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    let inode = tree.write("/m/f", 10).inode;
    assert!(tree.store.needs_export(inode).expect("readable"));
    let gone = Op::Unlink(Unlink {
        node: path("/m/f"),
        keep_open: true,
        closed: Vec::new(),
        holders: None,
    });
    note(&mut tree, 1, gone).expect("it has no object yet");
    assert_eq!(tree.store.attr(inode).expect("open").nlink, 0);
    assert!(!tree.store.needs_export(inode).expect("readable"));
    let begun = tree.apply(Op::BeginExport {
        inode,
        worker: WorkerId(1),
    });
    assert_eq!(begun.expect_err("no object").kind, ErrorKind::Stale);
    tree.check();
}

#[test]
fn a_file_that_is_gone_waits_for_no_export() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    let inode = tree.write("/m/f", 10).inode;
    assert!(tree.store.needs_export(inode).expect("readable"));
    note(&mut tree, 1, unlink("/m/f")).expect("it has no object yet");
    assert_eq!(tree.store.attr(inode).expect_err("gone").kind, ErrorKind::Stale);
    assert!(!tree.store.needs_export(inode).expect("readable"));
    tree.check();
}

#[test]
fn an_object_that_somebody_else_changed_is_kept_beside_ours() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    let inode = tree.write("/m/f.csv", 10).inode;
    let effect = export(&mut tree, inode);
    let outcome = ExportOutcome::Conflict(Some(version("theirs")));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    let ours = format!("f.csv.conflict-{effect}");
    assert_eq!(tree.names("/m"), ["f.csv".to_owned(), ours.clone()]);
    assert_eq!(tree.stat(&format!("/m/{ours}")).expect("there").inode, inode);
    assert!(tree.store.needs_export(inode).expect("readable"));
    let theirs = tree.stat("/m/f.csv").expect("there");
    assert_eq!((theirs.ufs, theirs.size_bytes), (Some(version("theirs")), 5));
    tree.check();
}

#[test]
fn a_mount_that_is_behind_stays_unless_it_is_forced() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    tree.write("/m/f", 10);
    let unmount = |force| Op::RemoveMount {
        path: CurvinePath::parse("/m").expect("valid"),
        force,
    };
    let refused = tree.apply(unmount(false)).expect_err("something is waiting");
    assert_eq!(refused.kind, ErrorKind::Busy);
    assert_eq!(tree.names("/m"), ["f"]);
    tree.apply(unmount(true)).expect("unmounted");
    tree.check();
}

#[test]
fn a_mount_in_which_somebody_is_writing_stays_unless_it_is_forced() {
    let mut tree = with_objects(&["a", "b"]);
    for name in ["a", "b"] {
        tree.done(OpenForWrite {
            node: path(&format!("/m/{name}")),
            follow: true,
            truncate: false,
            open: 0,
            named: false,
        });
    }
    let unmount = |force| Op::RemoveMount {
        path: CurvinePath::parse("/m").expect("valid"),
        force,
    };
    let refused = tree.apply(unmount(false)).expect_err("two are open");
    assert_eq!(refused.kind, ErrorKind::Busy);
    assert!(
        refused
            .message
            .contains("/m/a and another file are open for writing"),
        "{refused}"
    );
    tree.apply(unmount(true)).expect("unmounted");
    tree.check();
}

/// Whether each block of a file can be fetched from its object.
fn cached(tree: &Tree, inode: InodeId) -> Vec<bool> {
    let layout = tree.store.layout(inode).expect("a file");
    let has = |located: &LocatedBlock| {
        let source = layout.source.as_ref();
        source.is_some_and(|source| source.has(&located.block))
    };
    layout.blocks.iter().map(has).collect()
}

#[test]
fn what_is_written_again_under_a_lease_after_an_export_is_kept() {
    let mut tree = with_objects(&["a"]);
    let layout = tree.done(OpenForWrite {
        node: path("/m/a"),
        follow: false,
        truncate: false,
        open: 0,
        named: false,
    });
    let inode = layout.attr.inode;
    assert_eq!(cached(&tree, inode), [true]);
    for round in ["1", "2"] {
        // The writer goes on with the generation with which it began.
        tree.done(CommitFile {
            inode,
            size_bytes: 5,
            blocks: vec![BlockCommit {
                index: 0,
                id: layout.blocks[0].block.id,
                len_bytes: 5,
                generation: layout.attr.next_generation(),
                workers: Vec::new(),
                hole_bytes: 0,
            }],
            mtime_ns: None,
            close: false,
            keep_privileges: false,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        });
        assert_eq!(cached(&tree, inode), [false], "round {round}");
        let effect = export(&mut tree, inode);
        let outcome = ExportOutcome::Stored(version(round));
        tree.apply(Op::EndExport { effect, outcome }).expect("noted");
        assert_eq!(cached(&tree, inode), [true], "round {round}");
    }
}

#[test]
fn nothing_is_fetched_from_an_object_that_a_file_is_about_to_replace_and_never_was() {
    let mut tree = with_objects(&["a", "b"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    let change = AttrChange {
        size_bytes: Some(3),
        ..AttrChange::default()
    };
    tree.done(SetAttr {
        node: path("/m/a"),
        follow: false,
        change,
    });
    assert_eq!(cached(&tree, inode), [true], "what is left of it");
    let effect = export(&mut tree, inode);
    let outcome = ExportOutcome::Conflict(None);
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(cached(&tree, inode), [false], "its object is gone");
    let renamed = note(&mut tree, 1, rename("/m/a", "/m/b"));
    assert!(matches!(renamed, Ok(OpReply::Renamed(_))), "{renamed:?}");
    assert_eq!(tree.store.attr(inode).expect("there").ufs, Some(version("b")));
    assert_eq!(cached(&tree, inode), [false]);
}

fn chmod(at: &str, mode: u32) -> Op {
    Op::SetAttr(SetAttr {
        node: path(at),
        follow: false,
        change: AttrChange {
            mode: Some(mode),
            ..AttrChange::default()
        },
    })
}

fn begin_attributes(tree: &mut Tree, inode: InodeId) -> Result<EffectId> {
    match tree.apply(Op::BeginAttributes { inode })? {
        OpReply::Noted(effect) => Ok(effect),
        other => panic!("{other:?}"),
    }
}

fn unkept(tree: &Tree) -> Vec<InodeId> {
    let all = tree.store.unkept(MountId(1), InodeId(0), 10).expect("readable");
    all.into_iter().map(|(inode, _)| inode).collect()
}

/// As [`with_objects`], of a store that takes attributes without content.
fn with_local_objects(names: &[&str]) -> Tree {
    let mut tree = Tree::new();
    let directory = mounted_from(&mut tree, "file:///b");
    list(
        &mut tree,
        directory,
        names.iter().map(|name| object(name, 5, name)).collect(),
    );
    tree
}

#[test]
fn attributes_that_change_are_written_to_the_object_and_nothing_that_is_cached_goes() {
    let mut tree = with_local_objects(&["a"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    let stale = |outcome: Result<EffectId>| outcome.expect_err("nothing to do").kind;
    assert_eq!(stale(begin_attributes(&mut tree, inode)), ErrorKind::Stale);
    tree.apply(chmod("/m/a", 0o600)).expect("changed");
    assert_eq!(unkept(&tree), [inode]);
    let before = tree.store.layout(inode).expect("a file");
    let effect = begin_attributes(&mut tree, inode).expect("begun");
    // While the object gets them, a listing that sees it half-way says nothing.
    let directory = tree.stat("/m").expect("there").inode;
    list(&mut tree, directory, vec![object("a", 5, "half-way")]);
    tree.apply(Op::EndExport {
        effect,
        outcome: ExportOutcome::Stored(version("a2")),
    })
    .expect("noted");
    let after = tree.store.layout(inode).expect("a file");
    assert_eq!(after.attr.ufs, Some(version("a2")));
    assert_eq!(
        (after.attr.content_version, &after.blocks),
        (before.attr.content_version, &before.blocks)
    );
    assert_eq!((unkept(&tree), effects(&tree)), (vec![], 0));
    assert!(tree.released.is_empty());
    tree.check();
}

#[test]
fn attributes_that_change_while_they_are_written_are_written_again() {
    let mut tree = with_local_objects(&["a"]);
    let inode = tree.stat("/m/a").expect("there").inode;
    tree.apply(chmod("/m/a", 0o600)).expect("changed");
    let effect = begin_attributes(&mut tree, inode).expect("begun");
    tree.apply(chmod("/m/a", 0o640)).expect("changed");
    let outcome = ExportOutcome::Stored(version("a2"));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(unkept(&tree), [inode]);
    // A try that failed changes nothing, and one that finds another object leaves the rest to the next listing.
    let effect = begin_attributes(&mut tree, inode).expect("begun");
    let outcome = ExportOutcome::Failed;
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(unkept(&tree), [inode]);
    let effect = begin_attributes(&mut tree, inode).expect("begun");
    let outcome = ExportOutcome::Conflict(None);
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(unkept(&tree), [InodeId(0); 0]);
    tree.check();
}

#[test]
fn an_export_takes_the_attributes_with_it_and_a_rename_their_mark() {
    let mut tree = with_local_objects(&["b"]);
    tree.write("/m/a", 10);
    let inode = tree.stat("/m/a").expect("there").inode;
    tree.apply(chmod("/m/a", 0o600)).expect("changed");
    let effect = export(&mut tree, inode);
    let outcome = ExportOutcome::Stored(version("a2"));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(unkept(&tree), [InodeId(0); 0]);
    // What changes while the export is under way, it may not have seen.
    tree.apply(Op::SetAttr(SetAttr {
        node: path("/m/a"),
        follow: false,
        change: AttrChange {
            size_bytes: Some(5),
            ..AttrChange::default()
        },
    }))
    .expect("cut");
    let effect = export(&mut tree, inode);
    tree.apply(chmod("/m/a", 0o640)).expect("changed");
    let outcome = ExportOutcome::Stored(version("a3"));
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    assert_eq!(unkept(&tree), [inode]);
    // Under its new name it is still marked; removed, it is not.
    let renaming = noted(&mut tree, 1, rename("/m/a", "/m/c"));
    let copied = Copied {
        inode,
        from: version("a3"),
        to: Some(version("c1")),
    };
    commit(&mut tree, renaming, vec![copied]).expect("committed");
    settle(&mut tree, renaming, inode);
    assert_eq!(unkept(&tree), [inode]);
    let effect = begin_attributes(&mut tree, inode).expect("begun");
    let record = tree.store.effect(effect).expect("readable").expect("there");
    assert_eq!(record.key, "c");
    let outcome = ExportOutcome::Failed;
    tree.apply(Op::EndExport { effect, outcome }).expect("noted");
    let removal = noted(&mut tree, 2, unlink("/m/c"));
    commit(&mut tree, removal, Vec::new()).expect("committed");
    assert_eq!(unkept(&tree), [InodeId(0); 0]);
    tree.check();
}
