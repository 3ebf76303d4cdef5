//! Files that become one keep every byte at its place, and copy none.

use super::*;

const BLOCK: u64 = 64 << 10;

fn concat(at: &str, sources: &[&str]) -> Concat {
    Concat {
        node: path(at),
        sources: sources.iter().map(|source| path(source)).collect(),
        tail: None,
    }
}

impl Tree {
    /// Index, id and length of each block.
    fn blocks(&self, at: &str) -> Vec<(u32, u64, u64)> {
        let inode = self.stat(at).expect("there").inode;
        let layout = self.store.layout(inode).expect("a file");
        let placed = layout.placed(0).map(|(index, located)| {
            let block = located.block;
            (index, block.id.0, block.len_bytes)
        });
        placed.collect()
    }
}

#[test]
fn blocks_go_to_where_their_bytes_are_in_the_whole() {
    let mut tree = Tree::new();
    tree.write("/a", 2 * BLOCK);
    tree.write("/b", 3 * BLOCK);
    tree.write("/empty", 0);
    tree.write("/c", BLOCK + 7);
    let ids = |tree: &Tree, at: &str| {
        tree.blocks(at)
            .into_iter()
            .map(|(_, id, _)| id)
            .collect::<Vec<_>>()
    };
    let expected: Vec<u64> = ["/a", "/b", "/c"].iter().flat_map(|at| ids(&tree, at)).collect();
    let before = ["/a", "/b", "/c"].map(|at| tree.stat(at).expect("there").content_version);
    let whole = tree.done(concat("/a", &["/b", "/empty", "/c"])).attr;
    assert_eq!(whole.size_bytes, 6 * BLOCK + 7);
    assert!(before.iter().all(|version| *version < whole.content_version));
    let blocks = tree.blocks("/a");
    assert_eq!(blocks.iter().map(|(_, id, _)| *id).collect::<Vec<_>>(), expected);
    let places: Vec<(u32, u64)> = blocks.iter().map(|(index, _, len)| (*index, *len)).collect();
    let full = (0..6).map(|index| (index, BLOCK));
    assert_eq!(places, full.chain([(6, 7)]).collect::<Vec<_>>());
    assert_eq!(tree.names("/"), ["a"]);
    assert_eq!(tree.released, [], "every block is the whole's");
    tree.check();
    // And they can be cut and written on as any others.
    tree.done(SetAttr {
        node: path("/a"),
        follow: false,
        change: AttrChange {
            size_bytes: Some(3 * BLOCK + 1),
            ..AttrChange::default()
        },
    });
    assert_eq!(tree.released.len(), 3);
    tree.check();
}

#[test]
fn holes_and_blocks_without_a_byte_stay_what_they_were() {
    let mut tree = Tree::new();
    tree.write("/a", BLOCK);
    tree.write("/b", BLOCK);
    for at in ["/a", "/b"] {
        tree.done(SetAttr {
            node: path(at),
            follow: false,
            change: AttrChange {
                size_bytes: Some(3 * BLOCK),
                ..AttrChange::default()
            },
        });
        // A writer that went without a word had got a block ahead.
        let layout = tree.done(OpenForWrite {
            node: path(at),
            follow: true,
            truncate: false,
            open: 0,
            named: false,
        });
        tree.done(AllocateBlocks {
            inode: layout.attr.inode,
            from_index: 3,
            until_index: 5,
        });
        tree.done(ReleaseLease {
            inode: layout.attr.inode,
        });
    }
    tree.done(concat("/a", &["/b"]));
    let places: Vec<(u32, u64)> = tree.blocks("/a").iter().map(|(at, _, len)| (*at, *len)).collect();
    assert_eq!(places, [(0, BLOCK), (3, BLOCK)]);
    assert_eq!(tree.stat("/a").expect("there").hole_bytes, 4 * BLOCK);
    assert_eq!(tree.released.len(), 4, "those ahead are gone");
    tree.check();
}

#[test]
fn what_does_not_fit_is_taken_from_the_tail() {
    let mut tree = Tree::new();
    tree.write("/a", 2 * BLOCK);
    tree.write("/b", BLOCK + 1);
    tree.write("/c", BLOCK);
    let refused = tree
        .apply(concat("/a", &["/b", "/c"]).into_op())
        .expect_err("a gap");
    assert_eq!(refused.kind, ErrorKind::CrossMount);
    assert!(refused.message.contains("/b: ends within a block"), "{refused}");
    // The second block of /b, and all of /c.
    let versions: Vec<u64> = ["/a", "/b", "/c"]
        .map(|at| tree.stat(at).expect("there").content_version)
        .to_vec();
    let with_tail = |offset_bytes: u64, versions: &[u64]| Concat {
        tail: Some(ConcatTail {
            node: path("/tail"),
            offset_bytes,
            versions: versions.to_vec(),
        }),
        ..concat("/a", &["/b", "/c"])
    };
    tree.write("/tail", BLOCK + 1);
    let other: Vec<u64> = versions.iter().map(|version| version + 1).collect();
    for (call, kind) in [
        (with_tail(3 * BLOCK, &other), ErrorKind::Stale),
        (with_tail(3 * BLOCK + 1, &versions), ErrorKind::CrossMount),
        (with_tail(2 * BLOCK, &versions), ErrorKind::InvalidArgument),
        (with_tail(4 * BLOCK, &versions), ErrorKind::CrossMount),
    ] {
        assert_eq!(tree.refused(call), kind);
        tree.check();
    }
    let (first, tail) = (tree.blocks("/b")[0].1, tree.blocks("/tail"));
    tree.done(with_tail(3 * BLOCK, &versions));
    let blocks = tree.blocks("/a");
    assert_eq!(blocks[2], (2, first, BLOCK));
    assert_eq!(blocks[3..], [(3, tail[0].1, BLOCK), (4, tail[1].1, 1)]);
    assert_eq!(tree.stat("/a").expect("there").size_bytes, 4 * BLOCK + 1);
    assert_eq!(tree.names("/"), ["a"]);
    assert_eq!(tree.released.len(), 2, "what the tail has instead");
    tree.check();
}

#[test]
fn what_cannot_be_joined_is_named_and_stays() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.write("/a", BLOCK);
    tree.write("/b", BLOCK);
    tree.write("/d/c", BLOCK);
    tree.write("/linked", BLOCK);
    tree.done(MakeLink {
        source: path("/linked"),
        node: path("/link"),
    });
    tree.done(MakeSymlink {
        node: path("/symlink"),
        target: "/b".to_owned(),
    });
    tree.create("/open");
    let layout = tree.done(CreateFile {
        block_bytes: 128 << 10,
        ..create("/wide")
    });
    tree.done(CommitFile {
        inode: layout.attr.inode,
        size_bytes: 3 * BLOCK,
        blocks: Vec::new(),
        mtime_ns: None,
        close: true,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    });
    let many = vec!["/b"; CONCAT_SOURCES_MAX + 1];
    for (target, sources, kind) in [
        ("/a", &[][..], ErrorKind::InvalidArgument),
        ("/a", &many, ErrorKind::InvalidArgument),
        ("/a", &["/a"], ErrorKind::InvalidArgument),
        ("/a", &["/b", "/b"], ErrorKind::InvalidArgument),
        ("/a", &["/d/c"], ErrorKind::InvalidArgument),
        ("/a", &["/symlink"], ErrorKind::InvalidArgument),
        ("/", &["/a"], ErrorKind::InvalidArgument),
        ("/a", &["/d"], ErrorKind::IsADirectory),
        ("/a", &["/none"], ErrorKind::NotFound),
        ("/none", &["/a"], ErrorKind::NotFound),
        ("/a", &["/b", "/linked"], ErrorKind::Unsupported),
        ("/a", &["/wide"], ErrorKind::CrossMount),
        ("/a", &["/open"], ErrorKind::Busy),
        ("/open", &["/a"], ErrorKind::Busy),
    ] {
        assert_eq!(
            tree.refused(concat(target, sources)),
            kind,
            "{target} {sources:?}"
        );
        tree.check();
    }
    assert_eq!(
        tree.names("/"),
        ["a", "b", "d", "link", "linked", "open", "symlink", "wide"]
    );
}

#[test]
fn nothing_is_joined_in_a_mount() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    for at in ["/m/a", "/m/b"] {
        tree.write(at, BLOCK);
    }
    let refused = tree
        .apply(concat("/m/a", &["/m/b"]).into_op())
        .expect_err("objects are no files");
    assert_eq!(refused.kind, ErrorKind::Unsupported);
    assert!(refused.message.contains("/m/a: is in a mount"), "{refused}");
    tree.check();
}

#[test]
fn what_a_vanished_writer_may_still_send_is_settled_first() {
    let mut tree = Tree::new();
    tree.write("/a", BLOCK);
    tree.write("/b", BLOCK);
    let layout = tree.done(OpenForWrite {
        node: path("/b"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    });
    let inode = layout.attr.inode;
    tree.apply(Op::BreakLease {
        inode,
        holder: ClientId(1),
        content_version: layout.attr.content_version,
    })
    .expect("broken");
    assert_eq!(tree.refused(concat("/a", &["/b"])), ErrorKind::LeaseConflict);
    tree.apply(Op::LeaseFenced {
        inode,
        content_version: layout.attr.content_version + 1,
        kept: Vec::new(),
        dropped: Vec::new(),
    })
    .expect("fenced");
    tree.done(concat("/a", &["/b"]));
    tree.check();
}

#[test]
fn quotas_count_the_whole_as_they_counted_its_parts() {
    let mut tree = Tree::new();
    tree.mkdir("/q");
    tree.done(SetQuota {
        node: path("/q"),
        limits: Some(QuotaLimits {
            bytes: Some(2 * BLOCK + 5),
            inodes: Some(2),
            soft_bytes: None,
        }),
    });
    tree.write("/q/a", 2 * BLOCK);
    tree.write("/q/b", 5);
    tree.done(concat("/q/a", &["/q/b"]));
    let used = tree
        .store
        .quotas(Some(&path("/q")))
        .expect("it has one")
        .remove(0)
        .used;
    assert_eq!((used.bytes, used.inodes), (2 * BLOCK + 5, 1));
    tree.check();
}
