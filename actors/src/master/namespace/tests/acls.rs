//! Access control lists go with their inodes, and children inherit them.

use curvine_protocol::acl::whole_acl;

use super::*;

impl Tree {
    fn acl(&mut self, at: &str, change: AclChange) -> Attr {
        let node = path(at);
        self.done(ChangeAcl { node, change }).attr
    }

    fn acl_of(&self, at: &str) -> (u32, Vec<AclEntry>) {
        let found = self.store.acl(&path(at)).expect("it is there");
        assert_eq!(found.attr.has_acl, !found.entries.is_empty());
        (found.attr.mode, found.entries)
    }
}

fn user(permission: u8) -> AclEntry {
    AclEntry::access(AclWho::User(9), permission)
}

fn group(permission: u8) -> AclEntry {
    AclEntry::access(AclWho::Group, permission)
}

fn default_user() -> Vec<AclEntry> {
    vec![AclEntry::default(AclWho::User(9), 7)]
}

/// What a directory of mode 0o755 keeps with that one default entry.
fn whole_default() -> Vec<AclEntry> {
    [
        (AclWho::Owner, 7),
        (AclWho::User(9), 7),
        (AclWho::Group, 5),
        (AclWho::Mask, 7),
        (AclWho::Other, 5),
    ]
    .map(|(who, permission)| AclEntry::default(who, permission))
    .to_vec()
}

fn chmod(at: &str, mode: u32) -> SetAttr {
    SetAttr {
        node: path(at),
        follow: true,
        change: AttrChange {
            mode: Some(mode),
            ..AttrChange::default()
        },
    }
}

#[test]
fn a_list_is_kept_with_the_inode_and_its_mask_in_the_mode() {
    let mut tree = Tree::new();
    tree.create("/f");
    assert_eq!(tree.acl_of("/f"), (0o644, vec![]));
    let attr = tree.acl("/f", AclChange::Modify(vec![user(7)]));
    assert_eq!((attr.mode, attr.has_acl), (0o674, true));
    let kept = vec![user(7), group(4)];
    assert_eq!(tree.acl_of("/f"), (0o674, kept.clone()));
    // What is changed of the mode's bits of the group is the mask.
    tree.done(chmod("/f", 0o640));
    assert_eq!(tree.acl_of("/f"), (0o640, kept.clone()));
    let whole = whole_acl(0o640, &kept);
    assert!(whole.contains(&AclEntry::access(AclWho::Mask, 4)), "{whole:?}");
    // It is the inode's, whatever its names are.
    tree.done(MakeLink {
        source: path("/f"),
        node: path("/g"),
    });
    tree.apply(rename("/f", "/h", RenameMode::Replace).into_op())
        .expect("renamed");
    assert_eq!(tree.acl_of("/h"), tree.acl_of("/g"));
    tree.acl("/g", AclChange::Clear);
    assert_eq!(tree.acl_of("/h"), (0o640, vec![]));
    tree.check();
}

#[test]
fn a_refused_change_leaves_the_list_as_it_was() {
    let mut tree = Tree::new();
    tree.create("/f");
    tree.acl("/f", AclChange::Modify(vec![user(6)]));
    let before = tree.acl_of("/f");
    let node = path("/f");
    let refused = tree.refused(ChangeAcl {
        node: node.clone(),
        change: AclChange::Modify(default_user()),
    });
    assert_eq!(refused, ErrorKind::InvalidArgument);
    let masked = AclChange::Remove(vec![AclEntry::access(AclWho::Mask, 0)]);
    assert_eq!(
        tree.refused(ChangeAcl { node, change: masked }),
        ErrorKind::InvalidArgument
    );
    assert_eq!(tree.acl_of("/f"), before);
    let none = ChangeAcl {
        node: path("/none"),
        change: AclChange::Clear,
    };
    assert_eq!(tree.refused(none), ErrorKind::NotFound);
}

#[test]
fn what_is_made_in_a_directory_with_default_entries_inherits_them_in_the_place_of_the_umask() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.acl("/d", AclChange::Modify(default_user()));
    assert_eq!(tree.acl_of("/d"), (0o755, whole_default()));
    let make = |at: &str, parents| MakeDir {
        node: path(at),
        mode: 0o750,
        parents,
        unmasked: Some(0o777),
    };
    tree.done(make("/d/sub", false));
    let inherited = [vec![user(7), group(5)], whole_default()].concat();
    assert_eq!(tree.acl_of("/d/sub"), (0o775, inherited.clone()));
    tree.done(CreateFile {
        mode: 0o600,
        unmasked: Some(0o666),
        ..create("/d/sub/f")
    });
    assert_eq!(tree.acl_of("/d/sub/f"), (0o664, vec![user(7), group(5)]));
    // Who knows of no umask gives the mode alone.
    tree.create("/d/g");
    assert_eq!(tree.acl_of("/d/g"), (0o644, vec![user(7), group(5)]));
    // So do the directories that are made on the way.
    tree.done(make("/d/x/y", true));
    assert_eq!(tree.acl_of("/d/x"), (0o775, inherited.clone()));
    tree.done(MakeNode {
        node: path("/d/fifo"),
        kind: FileKind::Fifo,
        mode: 0o622,
        rdev: 0,
        unmasked: None,
    });
    assert_eq!(tree.acl_of("/d/fifo"), (0o620, vec![user(7), group(5)]));
    tree.done(MakeSymlink {
        node: path("/d/link"),
        target: "g".to_owned(),
    });
    let link = tree.store.entry(&path("/d/link"), false).expect("made").1;
    assert_eq!((link.mode, link.acl), (0o777, vec![]));
    // What comes from elsewhere keeps what it has, and what is there stays as it is.
    tree.mkdir("/plain");
    tree.apply(rename("/plain", "/d/plain", RenameMode::Replace).into_op())
        .expect("renamed");
    assert_eq!(tree.acl_of("/d/plain"), (0o755, vec![]));
    tree.acl("/d", AclChange::RemoveDefault);
    assert_eq!(tree.acl_of("/d"), (0o755, vec![]));
    assert_eq!(tree.acl_of("/d/sub"), (0o775, inherited));
    tree.done(make("/d/after", false));
    assert_eq!(tree.acl_of("/d/after"), (0o750, vec![]));
    tree.check();
}

#[test]
fn names_that_a_store_has_inherit_nothing() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.acl("/d", AclChange::Modify(default_user()));
    tree.apply(Op::AddMount {
        path: CurvinePath::parse("/d/m").expect("a valid path"),
        uri: "s3://b/p".to_owned(),
        options: BTreeMap::new(),
        settings: MountSettings::default(),
    })
    .expect("mounted");
    let (_, of_mount) = tree.acl_of("/d/m");
    assert_eq!(of_mount[2..], whole_default());
    let directory = tree.stat("/d/m").expect("mounted").inode;
    let object = UfsObject {
        name: "o".to_owned(),
        kind: FileKind::File,
        version: Some(UfsVersion {
            size_bytes: 5,
            mtime_ms: 6,
            etag: None,
        }),
        target: None,
        attributes: None,
    };
    tree.apply(Op::SyncDir(SyncDir {
        directory,
        after: None,
        until: None,
        objects: vec![object],
        only: None,
    }))
    .expect("listed");
    assert_eq!(tree.acl_of("/d/m/o"), (0o644, vec![]));
    tree.check();
}
