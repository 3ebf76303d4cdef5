//! The tree by itself: every op, its errors, and the invariants after random ops.

use std::collections::BTreeMap;

use curvine_protocol::job::{ENDED_AGE_NS, ENDED_MAX, FileFailure, JobProgress, JobState};
use curvine_protocol::master::*;
use curvine_protocol::mount::{MountChanges, MountSettings};
use curvine_protocol::number::to_u32;
use curvine_protocol::op::{
    AgreeDir, AgreeName, Command, KnownName, Op, OpReply, SilentSession, SyncDir, UfsObject,
};
use curvine_protocol::*;

use super::apply::Effects;
use super::kept::Doubted;
use super::records::InodeBody;
use super::store::{Counter, Store, name_of, u64_at};
use crate::master::contract::NamespaceView;

mod acls;
mod balance;
mod concat;
mod effects;
mod expiry;
mod pins;
mod quotas;
mod tiers;

struct Tree {
    store: Store,
    _scratch: tempfile::TempDir,
    now_ns: i64,
    released: Vec<BlockId>,
    waits: bool,
}

impl Tree {
    fn new() -> Tree {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let store = Store::open(scratch.path()).expect("opens");
        let mut tree = Tree {
            store,
            _scratch: scratch,
            now_ns: 1_000,
            released: Vec::new(),
            waits: false,
        };
        tree.apply(Op::Format {
            cluster: ClusterId(9),
        })
        .expect("formatted");
        tree
    }

    fn apply_for(&mut self, client: u64, sequence: u64, op: Op) -> Result<OpReply> {
        self.apply_numbered(client, (sequence, 0), op)
    }

    fn apply_numbered(
        &mut self,
        client: u64,
        (sequence, acked_below): (u64, u64),
        op: Op,
    ) -> Result<OpReply> {
        self.now_ns += 1;
        let command = Command {
            client: ClientId(client),
            sequence,
            acked_below,
            uid: 7,
            gid: 8,
            time_ns: self.now_ns,
            op,
            waits: self.waits,
        };
        let mut effects = Effects::default();
        let mut txn = self.store.write().expect("one writer");
        let mut replies = self
            .store
            .apply(&mut txn, vec![command], &mut effects)
            .expect("the disk works");
        txn.commit().expect("room");
        self.released.extend(effects.released);
        match replies.pop().expect("one reply") {
            OpReply::Failed(error) => Err(error),
            reply => Ok(reply),
        }
    }

    fn apply(&mut self, op: Op) -> Result<OpReply> {
        self.apply_for(1, 0, op)
    }

    /// The kind of the error of an op that must fail.
    fn refused(&mut self, op: impl Mutation) -> ErrorKind {
        self.apply(op.into_op()).expect_err("must be refused").kind
    }

    fn done<M: Mutation>(&mut self, call: M) -> M::Reply {
        M::reply_from(self.apply(call.into_op()).expect("must succeed")).expect("its own reply")
    }

    fn mkdir(&mut self, at: &str) -> Attr {
        self.done(MakeDir {
            node: path(at),
            mode: 0o755,
            parents: false,
            unmasked: None,
        })
        .attr
    }

    fn create(&mut self, at: &str) -> FileLayout {
        self.done(create(at))
    }

    /// A closed file of some bytes in blocks of 64 KiB.
    fn write(&mut self, at: &str, size_bytes: u64) -> Attr {
        let layout = self.create(at);
        let inode = layout.attr.inode;
        let blocks = u32::try_from(size_bytes.div_ceil(64 << 10)).expect("it is small");
        let layout = self.done(AllocateBlocks {
            inode,
            from_index: 0,
            until_index: blocks,
        });
        let commits = layout
            .blocks
            .iter()
            .enumerate()
            .map(|(index, located)| BlockCommit {
                index: to_u32(index),
                id: located.block.id,
                len_bytes: (size_bytes - (index as u64) * (64 << 10)).min(64 << 10),
                generation: 0,
                workers: Vec::new(),
                hole_bytes: 0,
            });
        let blocks = commits.collect();
        self.done(CommitFile {
            inode,
            size_bytes,
            blocks,
            mtime_ns: None,
            close: true,
            keep_privileges: false,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        })
        .attr
    }

    fn stat(&self, at: &str) -> Result<Attr> {
        self.store.lookup(&path(at), false).map(|entry| entry.attr)
    }

    fn names(&self, at: &str) -> Vec<String> {
        let inode = self.stat(at).expect("there").inode;
        let (entries, more) = self.store.list(inode, None, 10_000).expect("a directory");
        assert!(!more);
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// The invariants of `namespace/mod.rs`.
    fn check(&self) {
        let txn = self.store.read().expect("readable");
        let dbs = &self.store.dbs;
        let mut links: BTreeMap<u64, u32> = BTreeMap::new();
        let mut subdirectories: BTreeMap<u64, u32> = BTreeMap::new();
        for entry in dbs.dentries.iter(&txn).expect("readable") {
            let (key, value) = entry.expect("readable");
            let (parent, child) = (InodeId(u64_at(key, 0)), InodeId(u64_at(value, 0)));
            let record = dbs
                .inode(&txn, child)
                .expect("decodes")
                .expect("a dentry leads to an inode");
            let above = dbs
                .inode(&txn, parent)
                .expect("decodes")
                .expect("a dentry is in a directory");
            assert!(above.is_dir(), "{parent} holds `{}`", name_of(key));
            *links.entry(child.0).or_default() += 1;
            if record.is_dir() {
                assert_eq!(record.parent, parent);
                *subdirectories.entry(parent.0).or_default() += 1;
            }
        }
        let mut blocks: BTreeMap<u64, u64> = BTreeMap::new();
        let mut count = 0;
        for entry in dbs.inodes.iter(&txn).expect("readable") {
            let inode = InodeId(u64_at(entry.expect("readable").0, 0));
            let record = dbs.inode(&txn, inode).expect("decodes").expect("there");
            count += 1;
            let held = links.get(&inode.0).copied().unwrap_or(0);
            if record.is_dir() {
                let below = subdirectories.get(&inode.0).copied().unwrap_or(0);
                assert_eq!(record.nlink, 2 + below, "links of directory {inode}");
                let hangs = inode != InodeId::ROOT && !dbs.is_detached(&txn, inode).expect("readable");
                assert_eq!(held, u32::from(hangs));
            } else {
                assert_eq!(record.nlink, held, "links of {inode}");
            }
            assert!(
                record.acl.is_sorted_by(|one, next| one < next),
                "{inode} has an entry twice"
            );
            for (scope, base) in [
                (AclScope::Access, &[AclWho::Group][..]),
                (AclScope::Default, &[AclWho::Owner, AclWho::Group, AclWho::Other]),
            ] {
                let of_scope: Vec<_> = record.acl.iter().filter(|entry| entry.scope == scope).collect();
                let has = |who: &AclWho| of_scope.iter().any(|entry| entry.who == *who);
                assert!(
                    of_scope.is_empty() || base.iter().all(has),
                    "{inode} has {of_scope:?}"
                );
            }
            if let InodeBody::File(file) = &record.body {
                for (index, block) in file.placed_blocks() {
                    assert_eq!(
                        blocks.insert(block.id.0, inode.0),
                        None,
                        "block {} has one owner",
                        block.id
                    );
                    let owner = self
                        .store
                        .block_owner(block.id)
                        .expect("readable")
                        .expect("known");
                    assert_eq!((owner.0, owner.1), (inode, index));
                }
            }
        }
        assert_eq!(dbs.counter(&txn, Counter::InodeCount).expect("readable"), count);
        let known: u64 = dbs
            .blocks
            .iter(&txn)
            .expect("readable")
            .map(|entry| u64_at(entry.expect("readable").1, 8) & 0xffff_ffff)
            .sum();
        assert_eq!(
            known,
            blocks.len() as u64,
            "the blocks database knows the files' blocks and no others"
        );
        for block in &self.released {
            assert!(
                !blocks.contains_key(&block.0),
                "released block {block} is still in use"
            );
        }
    }
}

fn path(text: &str) -> Node {
    Node::Path(CurvinePath::parse(text).expect("a valid path"))
}

fn create(at: &str) -> CreateFile {
    CreateFile {
        node: path(at),
        mode: 0o644,
        if_exists: IfExists::Fail,
        parents: false,
        block_bytes: 64 << 10,
        replicas: 1,
        first_block: false,
        open: 0,
        unmasked: None,
    }
}

fn rename(from: &str, to: &str, mode: RenameMode) -> Rename {
    Rename {
        from: path(from),
        to: path(to),
        mode,
        keep_replaced: false,
        closed: Vec::new(),
        holders: None,
    }
}

fn unlink(at: &str) -> Unlink {
    Unlink {
        node: path(at),
        keep_open: false,
        closed: Vec::new(),
        holders: None,
    }
}

#[test]
fn mkdir_makes_parents_only_when_asked() {
    let mut tree = Tree::new();
    assert_eq!(
        tree.refused(MakeDir {
            node: path("/a/b"),
            mode: 0o755,
            parents: false,
            unmasked: None,
        }),
        ErrorKind::NotFound
    );
    tree.done(MakeDir {
        node: path("/a/b/c"),
        mode: 0o700,
        parents: true,
        unmasked: None,
    });
    tree.done(MakeDir {
        node: path("/a/b/c"),
        mode: 0o700,
        parents: true,
        unmasked: None,
    });
    assert_eq!(
        tree.refused(MakeDir {
            node: path("/a/b"),
            mode: 0o755,
            parents: false,
            unmasked: None,
        }),
        ErrorKind::AlreadyExists
    );
    let made = tree.stat("/a/b/c").expect("made");
    assert_eq!((made.mode, made.uid, made.gid, made.nlink), (0o700, 7, 8, 2));
    assert_eq!(tree.stat("/a").expect("made").nlink, 3);
    tree.create("/a/f");
    assert_eq!(
        tree.refused(MakeDir {
            node: path("/a/f/x"),
            mode: 0,
            parents: true,
            unmasked: None,
        }),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        tree.refused(MakeDir {
            node: path("/a/f"),
            mode: 0,
            parents: true,
            unmasked: None,
        }),
        ErrorKind::AlreadyExists
    );
    tree.check();
}

#[test]
fn a_setgid_directory_gives_its_group() {
    let mut tree = Tree::new();
    tree.done(MakeDir {
        node: path("/g"),
        mode: 0o2775,
        parents: false,
        unmasked: None,
    });
    let change = AttrChange {
        gid: Some(99),
        ..AttrChange::default()
    };
    tree.done(SetAttr {
        node: path("/g"),
        follow: true,
        change,
    });
    assert_eq!(tree.create("/g/f").attr.gid, 99);
    let below = tree.mkdir("/g/d");
    assert_eq!((below.gid, below.mode), (99, 0o2755));
}

#[test]
fn a_file_has_as_many_replicas_as_it_is_given_and_one_at_least() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    let before = tree.create("/d/f").attr;
    let set = |at: &str, replicas| SetAttr {
        node: path(at),
        follow: true,
        change: AttrChange {
            replicas: Some(replicas),
            ..AttrChange::default()
        },
    };
    tree.now_ns += 5;
    let after = tree.done(set("/d/f", 3)).attr;
    assert_eq!(after.replicas, 3);
    assert!(after.ctime_ns > before.ctime_ns);
    assert_eq!(after.content_version, before.content_version);
    for (at, replicas, kind) in [
        ("/d/f", 0, ErrorKind::InvalidArgument),
        ("/d", 2, ErrorKind::IsADirectory),
        ("/d/none", 2, ErrorKind::NotFound),
    ] {
        let refused = tree.apply(Op::SetAttr(set(at, replicas)));
        assert_eq!(refused.map_err(|error| error.kind).err(), Some(kind), "{at}");
    }
    assert_eq!(tree.stat("/d/f").map(|attr| attr.replicas), Ok(3));
}

#[test]
fn rename_replaces_as_posix_says() {
    let mut tree = Tree::new();
    for directory in ["/d", "/e", "/full", "/d/sub"] {
        tree.mkdir(directory);
    }
    for file in ["/f", "/g", "/full/x"] {
        tree.write(file, 10);
    }
    let replace = RenameMode::Replace;
    assert_eq!(tree.refused(rename("/none", "/x", replace)), ErrorKind::NotFound);
    assert_eq!(tree.refused(rename("/f", "/d", replace)), ErrorKind::IsADirectory);
    assert_eq!(
        tree.refused(rename("/d", "/f", replace)),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        tree.refused(rename("/d", "/full", replace)),
        ErrorKind::DirectoryNotEmpty
    );
    assert_eq!(
        tree.refused(rename("/d", "/d/sub/x", replace)),
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        tree.refused(rename("/f", "/g", RenameMode::NoReplace)),
        ErrorKind::AlreadyExists
    );
    // As Linux: whether the names may be there comes before whether one is inside the other, and that before their kinds.
    assert_eq!(
        tree.refused(rename("/d", "/d/sub", RenameMode::NoReplace)),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        tree.refused(rename("/d", "/d/none", RenameMode::Exchange)),
        ErrorKind::NotFound
    );
    assert_eq!(
        tree.refused(rename("/full/x", "/full", replace)),
        ErrorKind::DirectoryNotEmpty
    );
    let moved = tree.done(rename("/f", "/g", replace));
    assert_eq!(moved.replaced.map(|attr| attr.nlink), Some(0));
    assert_eq!(tree.released.len(), 1);
    tree.done(rename("/d", "/e", replace));
    assert_eq!(tree.names("/"), ["e", "full", "g"]);
    assert_eq!(tree.names("/e"), ["sub"]);
    tree.done(rename("/e", "/full/x", RenameMode::Exchange));
    assert!(tree.stat("/full/x/sub").expect("moved").is_dir());
    assert!(tree.stat("/e").expect("moved").is_file());
    tree.check();
}

#[test]
fn renaming_onto_another_name_of_the_same_file_does_nothing() {
    let mut tree = Tree::new();
    tree.create("/a");
    tree.done(MakeLink {
        source: path("/a"),
        node: path("/b"),
    });
    tree.done(rename("/a", "/b", RenameMode::Replace));
    assert_eq!(tree.names("/"), ["a", "b"]);
    tree.check();
}

#[test]
fn a_second_name_must_be_free_before_its_file_may_be_no_directory() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.create("/f");
    let link = |from: &str, to: &str| MakeLink {
        source: path(from),
        node: path(to),
    };
    assert_eq!(tree.refused(link("/d", "/f")), ErrorKind::AlreadyExists);
    assert_eq!(tree.refused(link("/d", "/g")), ErrorKind::NotPermitted);
    assert_eq!(tree.refused(link("/none", "/f")), ErrorKind::NotFound);
}

#[test]
fn an_open_file_outlives_its_last_name_until_it_is_released() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 100_000).inode;
    assert_eq!(
        tree.done(Unlink {
            node: path("/f"),
            keep_open: true,
            closed: Vec::new(),
            holders: None,
        })
        .attr
        .nlink,
        0
    );
    assert_eq!(tree.stat("/f").map_err(|e| e.kind), Err(ErrorKind::NotFound));
    assert_eq!(tree.store.layout(inode).expect("kept").blocks.len(), 2);
    tree.done(ReleaseInode { inode });
    assert_eq!(tree.store.attr(inode).map_err(|e| e.kind), Err(ErrorKind::Stale));
    assert_eq!(tree.released.len(), 2);
    tree.check();
}

#[test]
fn a_file_stays_for_whom_an_open_gave_its_lease_while_its_removal_was_on_the_way() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 100_000).inode;
    let open = OpenForWrite {
        node: path("/f"),
        follow: true,
        truncate: false,
        open: 1,
        named: false,
    };
    tree.apply_for(5, 1, open.into_op()).expect("opened");
    // The same client did not know when it asked for this, and nor did the leader.
    let unlink = Unlink {
        node: path("/f"),
        keep_open: false,
        closed: Vec::new(),
        holders: Some(Holders {
            of: inode,
            files: Vec::new(),
            unsure: false,
        }),
    };
    tree.apply_for(5, 2, unlink.into_op()).expect("removed");
    assert_eq!(tree.store.layout(inode).expect("kept").blocks.len(), 2);
    tree.apply_for(5, 3, ReleaseInode { inode }.into_op())
        .expect("closed");
    assert_eq!(tree.store.attr(inode).map_err(|e| e.kind), Err(ErrorKind::Stale));
    tree.check();
}

#[test]
fn the_end_of_a_session_gives_back_leases_and_nameless_files() {
    let mut tree = Tree::new();
    let gone = tree.apply_for(5, 1, create("/gone").into_op());
    let gone = CreateFile::reply_from(gone.expect("created"))
        .expect("a layout")
        .attr
        .inode;
    tree.apply_for(5, 2, create("/kept").into_op()).expect("created");
    tree.apply_for(
        5,
        3,
        Unlink {
            node: path("/gone"),
            keep_open: true,
            closed: Vec::new(),
            holders: None,
        }
        .into_op(),
    )
    .expect("unlinked");
    let open = OpenForWrite {
        node: path("/kept"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    };
    assert_eq!(tree.refused(open.clone()), ErrorKind::LeaseConflict);
    let sessions = tree.store.sessions().expect("readable");
    let heard_ns = sessions[0].1.heard_ns;
    let silent = |heard_ns| Op::EndSessions {
        sessions: vec![SilentSession {
            client: ClientId(5),
            heard_ns,
        }],
    };
    tree.apply(silent(heard_ns - 1)).expect("looked at");
    assert_eq!(
        tree.refused(open.clone()),
        ErrorKind::LeaseConflict,
        "it was heard of since"
    );
    tree.apply(silent(heard_ns)).expect("ended");
    assert_eq!(tree.store.attr(gone).map_err(|e| e.kind), Err(ErrorKind::Stale));
    tree.done(open);
    tree.check();
}

#[test]
fn what_a_client_was_about_to_put_somewhere_is_known_by_its_name() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    let mine = ClientId(5).partial_prefix();
    for (sequence, name) in [format!("{mine}1"), format!("{mine}2"), "other".to_owned()]
        .iter()
        .enumerate()
    {
        let call = create(&format!("/d/{name}"));
        tree.apply_for(5, sequence as u64 + 1, call.into_op())
            .expect("created");
    }
    tree.apply_for(6, 1, create(&format!("/d/{mine}3x")).into_op())
        .expect("created");
    let directory = tree.stat("/d").expect("made").inode;
    let partials = tree.store.partials(ClientId(5)).expect("readable");
    let expected: Vec<Node> = ["1", "2", "3x"]
        .iter()
        .map(|end| Node::child(directory, format!("{mine}{end}")))
        .collect();
    assert_eq!(partials, expected);
    assert_eq!(tree.store.partials(ClientId(6)).expect("readable"), []);
}

/// Unlinks a file of which the leader knows this.
fn unlink_held(at: &str, of: InodeId, clients: &[u64], unsure: bool) -> Unlink {
    let clients = clients.iter().map(|&client| ClientId(client)).collect();
    Unlink {
        holders: Some(Holders {
            of,
            files: vec![FileHolders { inode: of, clients }],
            unsure,
        }),
        ..unlink(at)
    }
}

#[test]
fn an_open_file_outlives_its_last_name_until_the_last_client_that_has_it_open_lets_go() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 100).inode;
    let gone = tree.done(unlink_held("/f", inode, &[5, 7], false));
    assert_eq!(gone.attr.nlink, 0);
    for (client, there) in [(9, true), (5, true), (5, true), (7, false)] {
        tree.apply_for(client, 0, ReleaseInode { inode }.into_op())
            .expect("released");
        assert_eq!(tree.store.attr(inode).is_ok(), there, "after {client}");
    }
    tree.check();
}

#[test]
fn what_a_new_leader_is_not_sure_of_stays_for_a_session_and_for_who_says_so() {
    let mut tree = Tree::new();
    let (unsure, other) = (tree.write("/unsure", 100).inode, tree.write("/other", 100).inode);
    tree.done(unlink_held("/unsure", unsure, &[], true));
    // The name led elsewhere when the leader looked.
    tree.done(unlink_held("/other", InodeId(1_000), &[], false));
    let hold = Op::HoldInodes {
        inodes: vec![unsure, InodeId(1_001)],
    };
    tree.apply_for(5, 0, hold).expect("held");
    let sessions = tree.store.sessions().expect("readable");
    let (client, session) = sessions
        .iter()
        .find(|(client, _)| *client == ClientId(0))
        .expect("one");
    let silent = SilentSession {
        client: *client,
        heard_ns: session.heard_ns,
    };
    tree.apply(Op::EndSessions {
        sessions: vec![silent],
    })
    .expect("ended");
    assert!(tree.store.attr(unsure).is_ok(), "a client has it");
    assert!(tree.store.attr(other).is_err());
    tree.apply_for(5, 0, ReleaseInode { inode: unsure }.into_op())
        .expect("released");
    assert!(tree.store.attr(unsure).is_err());
    tree.check();
}

#[test]
fn a_writer_that_vanished_leaves_another_content_version() {
    let mut tree = Tree::new();
    let before = tree.write("/f", 100).content_version;
    let open = OpenForWrite {
        node: path("/f"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    };
    tree.apply_for(5, 1, open.into_op()).expect("opened");
    assert_eq!(tree.stat("/f").expect("there").content_version, before);
    tree.apply_for(5, 2, EndSession {}.into_op()).expect("ended");
    // The next writer's generation comes from it, and must not be the one that the lost bytes were written under.
    assert_eq!(tree.stat("/f").expect("there").content_version, before + 1);
}

#[test]
fn a_broken_lease_is_given_on_when_workers_refuse_its_holder_and_not_before() {
    let mut tree = Tree::new();
    let attr = tree.write("/f", 100);
    let (inode, content_version) = (attr.inode, attr.content_version);
    let open = || OpenForWrite {
        node: path("/f"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    };
    tree.apply_for(5, 1, open().into_op()).expect("opened");
    let take = |holder, content_version| Op::BreakLease {
        inode,
        holder: ClientId(holder),
        content_version,
    };
    for (holder, version) in [(6, content_version), (5, content_version + 1)] {
        tree.apply(take(holder, version)).expect("looked at");
        tree.apply_for(5, 0, open().into_op()).expect("it has it still");
    }
    tree.apply(take(5, content_version)).expect("broken");
    let noted = tree.store.disagreeing().expect("readable");
    assert_eq!(noted, [inode], "whether or not somebody wants to write it");
    assert_eq!(tree.refused(open()), ErrorKind::LeaseConflict);
    let commit = CommitFile {
        inode,
        size_bytes: 7,
        blocks: Vec::new(),
        mtime_ns: None,
        close: true,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    };
    let late = tree.apply_for(5, 2, commit.into_op());
    assert_eq!(late.map(|_| ()).map_err(|e| e.kind), Err(ErrorKind::Stale));
    let fenced = |content_version| Op::LeaseFenced {
        inode,
        content_version,
        kept: Vec::new(),
        dropped: Vec::new(),
    };
    tree.apply(fenced(content_version)).expect("of another end");
    assert_eq!(tree.refused(open()), ErrorKind::LeaseConflict);
    tree.apply(fenced(content_version + 1)).expect("fenced");
    assert_eq!(tree.done(open()).attr.content_version, content_version + 1);
    tree.check();
}

#[test]
fn a_new_generation_is_a_version_in_which_nothing_else_changes() {
    let mut tree = Tree::new();
    let before = tree.write("/f", 100);
    let inode = before.inode;
    let open = OpenForWrite {
        node: path("/f"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    };
    tree.apply_for(5, 1, open.into_op()).expect("opened");
    let allocate = AllocateBlocks {
        inode,
        from_index: 3,
        until_index: 4,
    };
    tree.apply_for(5, 2, allocate.into_op()).expect("assigned");
    let blocks = tree.store.layout(inode).expect("there").blocks;
    let call = CommitFile {
        inode,
        size_bytes: 7,
        blocks: Vec::new(),
        mtime_ns: None,
        close: false,
        keep_privileges: true,
        abandoned: false,
        keep_size: true,
        new_generation: true,
    };
    tree.apply_for(5, 3, call.into_op()).expect("made");
    let now = tree.store.layout(inode).expect("there");
    assert_eq!(now.blocks, blocks, "also what is not in the file yet");
    let expected = Attr {
        content_version: before.content_version + 1,
        ..before
    };
    assert_eq!(now.attr, expected);
    tree.check();
}

#[test]
fn replicas_that_were_kept_are_newer_than_those_that_were_not_and_readers_hear_of_it() {
    let mut tree = Tree::new();
    let create = CreateFile {
        node: path("/f"),
        mode: 0o644,
        if_exists: IfExists::Fail,
        parents: false,
        block_bytes: 1_000,
        replicas: 2,
        first_block: false,
        open: 0,
        unmasked: None,
    };
    let layout = |reply| match reply {
        Ok(OpReply::Layout(layout)) => layout,
        other => panic!("{other:?}"),
    };
    let inode = layout(tree.apply_for(5, 1, create.into_op())).attr.inode;
    let allocate = AllocateBlocks {
        inode,
        from_index: 0,
        until_index: 2,
    };
    let blocks = layout(tree.apply_for(5, 2, allocate.into_op())).blocks;
    let commit = |abandoned, close| CommitFile {
        inode,
        size_bytes: 1_500,
        blocks: match abandoned {
            true => Vec::new(),
            false => (0..)
                .zip(&blocks)
                .map(|(index, located)| BlockCommit {
                    index,
                    id: located.block.id,
                    len_bytes: 1_000 - 500 * u64::from(index),
                    generation: 1,
                    workers: vec![WorkerId(1), WorkerId(2)],
                    hole_bytes: 0,
                })
                .collect(),
        },
        mtime_ns: None,
        close,
        keep_privileges: false,
        abandoned,
        keep_size: true,
        new_generation: false,
    };
    let written = CommitFile {
        keep_size: false,
        new_generation: false,
        ..commit(false, false)
    };
    tree.apply_for(5, 3, written.into_op()).expect("committed");
    let disagreeing = |tree: &Tree| tree.store.disagreeing().expect("readable");
    // Some of the next write reached one of the workers, and was given up.
    tree.apply_for(5, 4, commit(true, false).into_op())
        .expect("given up");
    assert_eq!(disagreeing(&tree), [], "its writer has it still");
    tree.apply_for(5, 5, commit(true, true).into_op())
        .expect("closed");
    assert_eq!(disagreeing(&tree), [inode]);
    let version = |tree: &Tree| tree.stat("/f").expect("there").content_version;
    let ended = version(&tree);
    let recover = |content_version| Op::RecoverLease {
        inode,
        content_version,
    };
    assert_eq!(
        tree.apply(recover(ended - 1)).map(|_| ()).map_err(|e| e.kind),
        Err(ErrorKind::Stale)
    );
    tree.apply(recover(ended)).expect("begun");
    let kept = |content_version| Op::LeaseFenced {
        inode,
        content_version,
        kept: vec![curvine_protocol::op::KeptBlock {
            block: blocks[1].block.id,
            workers: vec![WorkerId(2)],
        }],
        dropped: vec![blocks[0].block.id],
    };
    tree.apply(kept(ended)).expect("of an attempt that was given up");
    assert_eq!(disagreeing(&tree), [inode]);
    tree.apply(kept(ended + 1)).expect("kept");
    assert_eq!(disagreeing(&tree), []);
    let now = tree.store.layout(inode).expect("there");
    // Both readers of what was kept and of what is fetched again are to hear of it.
    assert_eq!(now.attr.content_version, ended + 3);
    assert_ne!(now.blocks[0].block.id, blocks[0].block.id);
    assert_eq!(now.blocks[1].block.id, blocks[1].block.id);
    let generations: Vec<u32> = now
        .blocks
        .iter()
        .map(|located| located.block.generation)
        .collect();
    assert_eq!(generations, [1, u32::try_from(ended + 1).expect("small")]);
    tree.check();
}

#[test]
fn what_a_doubtful_replica_is_worth_depends_on_who_else_may_have_the_block() {
    let layout = |reply| match reply {
        Ok(OpReply::Layout(layout)) => layout,
        other => panic!("{other:?}"),
    };
    let mut tree = Tree::new();
    let mut sequence = 0;
    let mut made = |tree: &mut Tree, name: &str, replicas, written| {
        sequence += 2;
        let create = CreateFile {
            replicas,
            first_block: true,
            ..create(name)
        };
        let made = layout(tree.apply_for(5, sequence, create.into_op()));
        let (inode, block) = (made.attr.inode, made.blocks[0].block.id);
        let commit = BlockCommit {
            index: 0,
            id: block,
            len_bytes: 100,
            generation: 1,
            workers: vec![WorkerId(1)],
            hole_bytes: 0,
        };
        let commit = CommitFile {
            inode,
            size_bytes: 100,
            blocks: vec![commit],
            mtime_ns: None,
            close: true,
            keep_privileges: false,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        };
        if written {
            tree.apply_for(5, sequence + 1, commit.into_op())
                .expect("committed");
        }
        (inode, block)
    };
    let (_, alone) = made(&mut tree, "/alone", 1, true);
    let (inode, shared) = made(&mut tree, "/shared", 2, true);
    let (_, begun) = made(&mut tree, "/begun", 2, false);
    let worth = |tree: &Tree, block| tree.store.worth(block).expect("readable");
    assert_eq!(worth(&tree, alone), Doubted::Counts);
    assert_eq!(worth(&tree, shared), Doubted::MayBeOlder);
    assert_eq!(worth(&tree, begun), Doubted::Counts, "nothing of it was flushed");
    assert_eq!(worth(&tree, BlockId(9_999)), Doubted::IsNoUse, "no file has it");
    // Nobody has anything better: its replicas are to agree.
    tree.apply(Op::DoubtReplicas { inode }).expect("noted");
    tree.apply(Op::DoubtReplicas { inode }).expect("once is enough");
    assert_eq!(tree.store.disagreeing().expect("readable"), [inode]);
    tree.check();
}

#[test]
fn a_big_tree_is_out_of_reach_at_once_and_goes_in_steps() {
    let mut tree = Tree::new();
    tree.mkdir("/top");
    let deep = tree.mkdir("/top/deep").inode;
    for number in 0..700 {
        tree.write(&format!("/top/deep/{number}"), 1);
        tree.mkdir(&format!("/top/d{number}"));
    }
    let deleted = tree.done(Delete {
        node: path("/top"),
        recursive: true,
        holders: None,
    });
    assert!(deleted.in_background);
    assert_eq!(tree.names("/"), [""; 0]);
    let at_once = deleted.files + deleted.directories - 1;
    assert_eq!(at_once, super::detached::STEP);
    let in_it = |name: &str| MakeDir {
        node: Node::child(deep, name),
        mode: 0o755,
        parents: false,
        unmasked: None,
    };
    assert_eq!(tree.refused(in_it("more")), ErrorKind::Stale);
    tree.mkdir("/top");
    tree.check();
    let mut steps = 0;
    while let Some(inode) = tree.store.detached().expect("readable").first().copied() {
        tree.apply(Op::Reclaim { inode, holders: None })
            .expect("some more");
        tree.check();
        steps += 1;
    }
    assert_eq!(steps, (1_402 - at_once).div_ceil(super::detached::STEP));
    assert_eq!(tree.store.inode_count(), Ok(2));
    assert_eq!(tree.released.len(), 700);
}

#[test]
fn a_directory_has_any_number_of_subdirectories() {
    let mut tree = Tree::new();
    let mut root = tree.store.entry(&path("/"), false).expect("there").1;
    root.nlink = 70_000;
    let mut txn = tree.store.write().expect("one writer");
    tree.store
        .dbs
        .put_inode(&mut txn, InodeId::ROOT, &root)
        .expect("room");
    txn.commit().expect("room");
    tree.mkdir("/one-more");
    assert_eq!(tree.stat("/").expect("there").nlink, 70_001);
}

#[test]
fn locks_go_with_their_session_and_with_their_file() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 1).inode;
    let lock = |owner, exclusive| Lock {
        owner,
        pid: 0,
        exclusive,
        start: 0,
        end: 9,
    };
    let set = |owner, exclusive| {
        SetLock {
            inode,
            lock: lock(owner, exclusive),
        }
        .into_op()
    };
    tree.apply_for(5, 1, set(1, false)).expect("locked");
    tree.apply_for(7, 1, set(1, false)).expect("shared");
    let refused = tree.apply_for(7, 2, set(1, true));
    assert_eq!(refused.map(|_| ()).map_err(|e| e.kind), Err(ErrorKind::Locked));
    tree.apply_for(5, 0, EndSession {}.into_op()).expect("ended");
    let again = tree.apply_for(7, 2, set(1, true));
    assert_eq!(
        again.map(|_| ()).map_err(|e| e.kind),
        Err(ErrorKind::Locked),
        "that was the answer"
    );
    tree.apply_for(7, 3, set(1, true)).expect("nobody else has one");
    let files = |tree: &Tree| {
        let txn = tree.store.read().expect("readable");
        tree.store.dbs.locked_files(&txn, 10).expect("readable")
    };
    let listed = files(&tree);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].path.as_ref().map(CurvinePath::as_str), Some("/f"));
    assert_eq!(
        listed[0].locks,
        [HeldLock {
            client: ClientId(7),
            lock: lock(1, true)
        }]
    );
    tree.done(unlink("/f"));
    assert_eq!(files(&tree), []);
    tree.apply_for(7, 0, EndSession {}.into_op()).expect("ended");
}

#[test]
fn a_refusal_that_the_leader_waits_on_is_not_remembered_and_the_last_one_is() {
    let mut tree = Tree::new();
    tree.create("/f");
    let open = || {
        OpenForWrite {
            node: path("/f"),
            follow: true,
            truncate: false,
            open: 0,
            named: false,
        }
        .into_op()
    };
    let kind = |reply: Result<OpReply>| reply.map(|_| ()).map_err(|e| e.kind);
    tree.waits = true;
    assert_eq!(kind(tree.apply_for(5, 1, open())), Err(ErrorKind::LeaseConflict));
    tree.waits = false;
    assert_eq!(kind(tree.apply_for(5, 1, open())), Err(ErrorKind::LeaseConflict));
    let inode = tree.stat("/f").expect("there").inode;
    tree.done(ReleaseLease { inode });
    tree.waits = true;
    assert_eq!(
        kind(tree.apply_for(5, 1, open())),
        Err(ErrorKind::LeaseConflict),
        "that was the answer"
    );
    assert_eq!(kind(tree.apply_for(5, 2, open())), Ok(()));
}

#[test]
fn a_change_that_comes_again_after_its_answer_was_acknowledged_is_not_made_again() {
    let mut tree = Tree::new();
    let mkdir = || {
        MakeDir {
            node: path("/d"),
            mode: 0o755,
            parents: false,
            unmasked: None,
        }
        .into_op()
    };
    tree.apply_numbered(5, (1, 1), mkdir()).expect("made");
    let rmdir = RemoveDir { node: path("/d") };
    tree.apply_numbered(5, (2, 2), rmdir.into_op()).expect("removed");
    let late = tree.apply_numbered(5, (1, 1), mkdir());
    assert_eq!(late.map(|_| ()).map_err(|e| e.kind), Err(ErrorKind::Stale));
    assert_eq!(tree.names("/"), [""; 0]);
}

#[test]
fn nothing_of_a_session_that_has_ended_is_done_whoever_chose_its_id() {
    let mut tree = Tree::new();
    let given = tree.done(OpenSession {}).client.0;
    for client in [5, given] {
        let mkdir = || {
            MakeDir {
                node: path("/d"),
                mode: 0o755,
                parents: false,
                unmasked: None,
            }
            .into_op()
        };
        tree.apply_numbered(client, (1, 1), mkdir()).expect("made");
        tree.done(RemoveDir { node: path("/d") });
        tree.apply_for(client, 0, RenewSession {}.into_op())
            .expect("it lasts");
        tree.apply_for(client, 0, EndSession {}.into_op()).expect("ended");
        tree.apply_for(client, 0, EndSession {}.into_op())
            .expect("ended twice is ended");
        for late in [mkdir(), RenewSession {}.into_op()] {
            let sequence = u64::from(matches!(late, Op::MakeDir(_)));
            let late = tree.apply_numbered(client, (sequence, sequence), late);
            assert_eq!(late.map(|_| ()).map_err(|e| e.kind), Err(ErrorKind::SessionEnded));
        }
        assert_eq!(tree.names("/"), [""; 0]);
    }
    assert_ne!(tree.done(OpenSession {}).client.0, given, "no id is given twice");
}

#[test]
fn a_retry_has_one_effect_and_errors_are_remembered_too() {
    let mut tree = Tree::new();
    let first = tree.apply_for(5, 1, create("/f").into_op()).expect("created");
    let retry = tree.apply_for(5, 1, create("/f").into_op()).expect("remembered");
    assert_eq!(format!("{first:?}"), format!("{retry:?}"));
    let error = tree
        .apply_for(5, 2, create("/f").into_op())
        .expect_err("there already");
    tree.done(unlink("/f"));
    assert_eq!(
        tree.apply_for(5, 2, create("/f").into_op())
            .expect_err("remembered"),
        error
    );
    tree.check();
}

#[test]
fn a_file_has_the_blocks_that_hold_something_and_no_others() {
    const BLOCK: u64 = 64 << 10;
    let mut tree = Tree::new();
    let inode = tree.create("/f").attr.inode;
    let far = 600 << 14;
    let layout = tree.done(AllocateBlocks {
        inode,
        from_index: far,
        until_index: far + 2,
    });
    let indexes = |layout: &FileLayout| layout.placed(far).map(|(index, _)| index).collect::<Vec<_>>();
    assert_eq!(indexes(&layout), [far, far + 1]);
    let end_bytes = (u64::from(far) + 1) * BLOCK;
    let commit = |index, id, len_bytes| BlockCommit {
        index,
        id,
        len_bytes,
        generation: 1,
        workers: Vec::new(),
        hole_bytes: 0,
    };
    let first = tree.done(AllocateBlocks {
        inode,
        from_index: 0,
        until_index: 1,
    });
    let first = first.blocks[0].block.id;
    let entry = tree.done(CommitFile {
        inode,
        size_bytes: end_bytes,
        blocks: vec![
            commit(0, first, 10),
            commit(far, layout.blocks[0].block.id, BLOCK),
        ],
        mtime_ns: None,
        close: false,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    });
    assert_eq!(entry.attr.hole_bytes, end_bytes - BLOCK - 10);
    let layout = tree.store.layout(inode).expect("there");
    assert_eq!(layout.indexes, [0, far], "what was assigned ahead is gone");
    assert_eq!(layout.block_at(far), layout.blocks.last());
    tree.check();
    let layout = tree.done(PunchHole {
        inode,
        offset_bytes: 4,
        len_bytes: end_bytes - BLOCK,
        keep_privileges: false,
    });
    let lengths: Vec<u64> = layout
        .blocks
        .iter()
        .map(|located| located.block.len_bytes)
        .collect();
    assert_eq!(lengths, [4, BLOCK], "the block that it ends in is the caller's");
    let layout = tree.done(PunchHole {
        inode,
        offset_bytes: 0,
        len_bytes: u64::MAX,
        keep_privileges: false,
    });
    assert_eq!((layout.blocks.len(), layout.attr.size_bytes), (0, end_bytes));
    tree.check();
}

#[test]
fn no_file_becomes_longer_than_files_may_be() {
    let mut tree = Tree::new();
    let inode = tree.create("/f").attr.inode;
    let refused = |tree: &mut Tree, op: Op| tree.apply(op).expect_err("too large").kind;
    let blocks = u32::try_from(FILE_BYTES_MAX >> 16).expect("a file's blocks are counted with 32 bits");
    let allocate = AllocateBlocks {
        inode,
        from_index: blocks,
        until_index: blocks + 2,
    };
    assert_eq!(refused(&mut tree, allocate.into_op()), ErrorKind::FileTooLarge);
    let commit = CommitFile {
        inode,
        size_bytes: FILE_BYTES_MAX + 1,
        blocks: Vec::new(),
        mtime_ns: None,
        close: false,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    };
    assert_eq!(refused(&mut tree, commit.into_op()), ErrorKind::FileTooLarge);
    let truncate = SetAttr {
        node: Node::Inode(inode),
        follow: false,
        change: AttrChange {
            size_bytes: Some(1 << 62),
            ..AttrChange::default()
        },
    };
    assert_eq!(refused(&mut tree, truncate.into_op()), ErrorKind::FileTooLarge);
    assert_eq!(tree.stat("/f").expect("there").size_bytes, 0);
}

#[test]
fn truncation_cuts_blocks_and_extension_makes_a_hole() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 150_000).inode;
    let set = |size| SetAttr {
        node: Node::Inode(inode),
        follow: true,
        change: AttrChange {
            size_bytes: Some(size),
            ..AttrChange::default()
        },
    };
    let lengths = |tree: &Tree| -> Vec<u64> {
        tree.store
            .layout(inode)
            .expect("there")
            .blocks
            .iter()
            .map(|b| b.block.len_bytes)
            .collect()
    };
    assert_eq!(lengths(&tree), [65_536, 65_536, 18_928]);
    tree.done(set(70_000));
    assert_eq!(lengths(&tree), [65_536, 4_464]);
    assert_eq!(tree.released.len(), 1);
    tree.done(set(1_000_000));
    assert_eq!(
        (tree.stat("/f").expect("there").size_bytes, lengths(&tree)),
        (1_000_000, vec![65_536, 4_464])
    );
    tree.done(set(500_000));
    assert_eq!(
        (tree.stat("/f").expect("there").size_bytes, lengths(&tree)),
        (500_000, vec![65_536, 4_464]),
        "a cut in the hole behind the last block leaves the blocks alone"
    );
    tree.done(set(0));
    assert_eq!(lengths(&tree), [0u64; 0]);
    tree.check();
}

#[test]
fn a_commit_that_keeps_the_size_does_not_undo_a_truncation() {
    let mut tree = Tree::new();
    let inode = tree.write("/f", 150_000).inode;
    tree.done(OpenForWrite {
        node: Node::Inode(inode),
        follow: false,
        truncate: false,
        open: 0,
        named: false,
    });
    let cut = tree.done(SetAttr {
        node: Node::Inode(inode),
        follow: false,
        change: AttrChange {
            size_bytes: Some(70_000),
            ..AttrChange::default()
        },
    });
    let commit = CommitFile {
        inode,
        size_bytes: 150_000,
        blocks: Vec::new(),
        mtime_ns: None,
        close: true,
        keep_privileges: true,
        abandoned: false,
        keep_size: true,
        new_generation: false,
    };
    let kept = tree.done(commit.clone());
    assert_eq!(kept.attr, cut.attr, "it is as it was");
    assert_eq!(tree.refused(commit), ErrorKind::Stale, "the lease is back");
    tree.check();
}

#[test]
fn only_the_lease_holder_writes() {
    let mut tree = Tree::new();
    let inode = tree.create("/f").attr.inode;
    let commit = CommitFile {
        inode,
        size_bytes: 5,
        blocks: Vec::new(),
        mtime_ns: None,
        close: true,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    };
    assert_eq!(
        tree.apply_for(2, 0, commit.clone().into_op())
            .map(|_| ())
            .map_err(|e| e.kind),
        Err(ErrorKind::Stale)
    );
    tree.done(commit.clone());
    assert_eq!(tree.refused(commit), ErrorKind::Stale);
}

#[test]
fn links_are_followed_in_the_middle_and_loops_are_noticed() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.create("/d/f");
    tree.done(MakeSymlink {
        node: path("/l"),
        target: "d".to_owned(),
    });
    tree.done(MakeSymlink {
        node: path("/d/up"),
        target: "../l/f".to_owned(),
    });
    tree.done(MakeSymlink {
        node: path("/loop"),
        target: "/loop".to_owned(),
    });
    let file = tree.stat("/d/f").expect("there").inode;
    assert_eq!(tree.stat("/l/f").expect("followed").inode, file);
    assert_eq!(
        tree.store
            .lookup(&path("/l/up"), true)
            .expect("followed")
            .attr
            .inode,
        file
    );
    assert_eq!(tree.stat("/l/up").expect("not followed").kind, FileKind::Symlink);
    assert_eq!(
        tree.stat("/loop/x").map_err(|e| e.kind),
        Err(ErrorKind::TooManySymlinks)
    );
    assert_eq!(tree.store.path(file).expect("has a name").as_str(), "/d/f");
}

#[test]
fn a_path_of_as_many_names_as_one_may_have_is_made_and_deleted() {
    let mut tree = Tree::new();
    let deep = "/d".repeat(2_047);
    let make = |parents| MakeDir {
        node: path(&deep),
        mode: 0o755,
        parents,
        unmasked: None,
    };
    let error = tree.apply(make(false).into_op()).expect_err("nothing is there");
    assert_eq!(error.kind, ErrorKind::NotFound);
    tree.done(make(true));
    assert!(tree.stat(&deep).expect("there").is_dir());
    tree.check();
    tree.done(Delete {
        node: path("/d"),
        recursive: true,
        holders: None,
    });
    assert_eq!(tree.stat("/d").expect_err("gone").kind, ErrorKind::NotFound);
    tree.check();
}

#[test]
fn directories_above_a_name_are_made_behind_a_link_and_not_below_a_file() {
    let mut tree = Tree::new();
    let make = |at: &str| MakeDir {
        node: path(at),
        mode: 0o755,
        parents: true,
        unmasked: None,
    };
    tree.done(make("/real"));
    tree.done(MakeSymlink {
        node: path("/link"),
        target: "real".to_owned(),
    });
    tree.done(make("/link/a/b"));
    assert!(tree.stat("/real/a/b").expect("there").is_dir());
    tree.write("/file", 10);
    let error = tree
        .apply(make("/file/a/b").into_op())
        .expect_err("a file is above");
    assert_eq!(error.kind, ErrorKind::NotADirectory);
    tree.check();
}

#[test]
fn a_recursive_delete_frees_everything_below() {
    let mut tree = Tree::new();
    for directory in ["/t", "/t/a", "/t/a/b", "/t/c"] {
        tree.mkdir(directory);
    }
    for file in ["/t/1", "/t/a/2", "/t/a/b/3"] {
        tree.write(file, 1);
    }
    assert_eq!(
        tree.refused(Delete {
            node: path("/t"),
            recursive: false,
            holders: None,
        }),
        ErrorKind::DirectoryNotEmpty
    );
    let deleted = tree.done(Delete {
        node: path("/t"),
        recursive: true,
        holders: None,
    });
    assert_eq!((deleted.files, deleted.directories), (3, 4));
    assert_eq!(tree.store.inode_count().expect("readable"), 1);
    assert_eq!(tree.released.len(), 3);
    tree.check();
}

fn mounted(tree: &mut Tree) -> InodeId {
    mounted_from(tree, "memory:///")
}

fn mounted_from(tree: &mut Tree, uri: &str) -> InodeId {
    let path = CurvinePath::parse("/m").expect("valid");
    let (uri, options) = (uri.to_owned(), BTreeMap::new());
    let settings = MountSettings {
        writable: true,
        staleness_ms: 0,
        ..MountSettings::default()
    };
    tree.apply(Op::AddMount {
        path,
        uri,
        options,
        settings,
    })
    .expect("mounted");
    tree.stat("/m").expect("made").inode
}

#[test]
fn an_update_of_a_mount_changes_that_mount_alone_and_nothing_in_it() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    tree.write("/m/new", 10);
    let before = tree.store.mounts().expect("readable").remove(0);
    let update = |id| Op::UpdateMount {
        id,
        changes: MountChanges {
            options: [("region".to_owned(), "r".to_owned())].into(),
            ..MountChanges::default()
        },
        conditions: true,
    };
    let missing = tree.apply(update(MountId(77))).map(|_| ());
    assert_eq!(missing.map_err(|error| error.kind), Err(ErrorKind::NotFound));
    assert_eq!(tree.store.mounts(), Ok(vec![before.clone()]));
    let mut after = before.clone();
    after.options.insert("region".to_owned(), "r".to_owned());
    after.settings.conditions = true;
    match tree.apply(update(before.id)) {
        Ok(OpReply::Mount(updated)) => assert_eq!(updated, after),
        other => panic!("{other:?}"),
    }
    assert_eq!(tree.store.mounts(), Ok(vec![after]));
    assert_eq!(
        (tree.names("/m"), tree.released.len()),
        (vec!["new".to_owned()], 0)
    );
    tree.check();
}

fn object(name: &str, size_bytes: u64, etag: &str) -> UfsObject {
    let version = UfsVersion {
        size_bytes,
        mtime_ms: 1,
        etag: Some(etag.to_owned()),
    };
    UfsObject {
        name: name.to_owned(),
        kind: FileKind::File,
        version: Some(version),
        target: None,
        attributes: None,
    }
}

#[test]
fn a_file_that_is_found_has_the_attributes_that_its_object_keeps_and_the_version_of_the_store() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    let kept = KeptAttributes {
        mode: Some(0o600),
        uid: Some(1_000),
        gid: Some(7),
        mtime_ns: Some(123_456_789),
        xattrs: [("user.note".to_owned(), b"kept".to_vec())].into(),
    };
    let found = |etag: &str, known: Option<KnownName>, attributes| {
        let object = UfsObject {
            attributes,
            ..object("a", 5, etag)
        };
        Op::AgreeDir(AgreeDir {
            directory,
            names: vec![AgreeName {
                name: "a".to_owned(),
                known,
                object: Some(object),
            }],
        })
    };
    let known = |attr: &Attr| KnownName {
        inode: attr.inode,
        version: attr.ufs.clone(),
    };
    tree.apply(found("1", None, Some(kept.clone()))).expect("agreed");
    let is_as_kept = |tree: &mut Tree, etag: &str| {
        let attr = tree.stat("/m/a").expect("there");
        assert_eq!(tree.store.kept_attributes(attr.inode), Ok(kept.clone()));
        assert_eq!(attr.ufs, object("a", 5, etag).version);
        attr
    };
    let attr = is_as_kept(&mut tree, "1");
    // Somebody replaced it by a program that keeps nothing: mode, owner and extended attributes stay, the time is the store's.
    tree.apply(found("2", Some(known(&attr)), Some(KeptAttributes::default())))
        .expect("agreed");
    let attr = tree.stat("/m/a").expect("there");
    assert_eq!((attr.mode, attr.uid, attr.mtime_ns), (0o600, 1_000, 1_000_000));
    // By one that does.
    tree.apply(found("3", Some(known(&attr)), Some(kept.clone())))
        .expect("agreed");
    is_as_kept(&mut tree, "3");
    tree.check();
}

#[test]
fn a_listing_adds_changes_and_removes_and_spares_what_is_ours() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    let sync = |tree: &mut Tree, objects: Vec<UfsObject>| {
        let sync = SyncDir {
            directory,
            after: None,
            until: None,
            objects,
            only: None,
        };
        match tree.apply(Op::SyncDir(sync)).expect("synced") {
            OpReply::Synced {
                added,
                changed,
                removed,
            } => (added, changed, removed),
            other => panic!("{other:?}"),
        }
    };
    let dir = UfsObject {
        name: "d".to_owned(),
        kind: FileKind::Directory,
        version: None,
        target: None,
        attributes: None,
    };
    assert_eq!(
        sync(
            &mut tree,
            vec![object("a", 5, "1"), dir.clone(), object("z", 3 << 30, "1")]
        ),
        (3, 0, 0)
    );
    let giant = tree.stat("/m/z").expect("there").inode;
    assert_eq!(tree.store.layout(giant).expect("a file").blocks.len(), 12);
    assert_eq!(
        tree.store
            .layout(giant)
            .expect("a file")
            .source
            .expect("an object")
            .key,
        "z"
    );
    tree.write("/m/new", 10);
    assert_eq!(sync(&mut tree, vec![object("a", 6, "2"), dir]), (0, 1, 1));
    assert_eq!(tree.names("/m"), ["a", "d", "new"]);
    assert_eq!(tree.stat("/m/a").expect("there").size_bytes, 6);
    assert_eq!(tree.released.len(), 13);
    tree.check();
    tree.apply(Op::RemoveMount {
        path: CurvinePath::parse("/m").expect("valid"),
        force: true,
    })
    .expect("unmounted");
    assert_eq!(tree.names("/m"), [""; 0]);
    tree.check();
}

/// Writes one block of a file whole; says of each block whether it can be fetched from the object afterwards.
fn overwrite(tree: &mut Tree, at: &str, index: u32) -> Vec<bool> {
    let layout = tree.done(OpenForWrite {
        node: path(at),
        follow: false,
        truncate: false,
        open: 0,
        named: false,
    });
    let block = layout.block_at(index).expect("it has so many").block;
    tree.done(CommitFile {
        inode: layout.attr.inode,
        size_bytes: layout.attr.size_bytes,
        blocks: vec![BlockCommit {
            index,
            id: block.id,
            len_bytes: block.len_bytes,
            generation: layout.attr.next_generation(),
            workers: Vec::new(),
            hole_bytes: 0,
        }],
        mtime_ns: None,
        close: true,
        keep_privileges: false,
        abandoned: false,
        keep_size: false,
        new_generation: false,
    });
    let written = tree.store.layout(layout.attr.inode).expect("a file");
    assert_eq!(written.blocks.len(), layout.blocks.len());
    let source = written.source.expect("some blocks are the object's");
    let blocks = written.blocks.iter();
    blocks.map(|located| source.has(&located.block)).collect()
}

#[test]
fn a_block_of_an_object_is_cached_until_it_is_written_and_again_when_it_is_exported() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    tree.apply(Op::SyncDir(SyncDir {
        directory,
        after: None,
        until: None,
        objects: vec![object("z", (1 << 30) + 1, "1")],
        only: None,
    }))
    .expect("synced");
    let inode = tree.stat("/m/z").expect("there").inode;
    let whole = |tree: &Tree| {
        tree.store
            .layout(inode)
            .expect("a file")
            .source
            .map(|source| source.is_whole())
    };
    assert_eq!(whole(&tree), Some(true));
    assert_eq!(overwrite(&mut tree, "/m/z", 1), [true, false, true, true, true]);
    assert_eq!(overwrite(&mut tree, "/m/z", 3), [true, false, true, false, true]);
    assert_eq!(whole(&tree), Some(false));
    let version = object("z", (1 << 30) + 1, "2").version.expect("it has one");
    tree.apply(Op::SetUfsVersion { inode, version })
        .expect("exported");
    assert_eq!(whole(&tree), Some(true));
    assert_eq!(overwrite(&mut tree, "/m/z", 0), [false, true, true, true, true]);
    let cut = AttrChange {
        size_bytes: Some((256 << 20) + 1),
        ..AttrChange::default()
    };
    tree.done(SetAttr {
        node: path("/m/z"),
        follow: false,
        change: cut,
    });
    let cut = tree.store.layout(inode).expect("a file");
    let source = cut.source.expect("the second block is the object's");
    let blocks = cut
        .blocks
        .iter()
        .map(|located| (located.block.len_bytes, source.has(&located.block)));
    assert_eq!(blocks.collect::<Vec<_>>(), [(256 << 20, false), (1, true)]);
    tree.check();
}

#[test]
fn an_object_that_is_one_block_has_room_behind_it_when_it_is_written() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    tree.apply(Op::SyncDir(SyncDir {
        directory,
        after: None,
        until: None,
        objects: vec![object("a", 5, "1"), object("empty", 0, "1")],
        only: None,
    }))
    .expect("synced");
    assert_eq!(tree.stat("/m/a").expect("there").block_bytes, 64 << 10);
    for name in ["a", "empty"] {
        let layout = tree.done(OpenForWrite {
            node: path(&format!("/m/{name}")),
            follow: false,
            truncate: false,
            open: 0,
            named: false,
        });
        assert_eq!(layout.attr.block_bytes, 128 << 20);
        let lengths: Vec<_> = layout
            .blocks
            .iter()
            .map(|located| located.block.len_bytes)
            .collect();
        assert_eq!(lengths, if name == "a" { vec![5] } else { vec![] });
    }
    tree.check();
}

#[test]
fn an_answer_changes_only_what_is_as_it_was_when_the_question_was_asked() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    let agree = |tree: &mut Tree, names: Vec<AgreeName>| match tree
        .apply(Op::AgreeDir(AgreeDir { directory, names }))
        .expect("agreed")
    {
        OpReply::Synced {
            added,
            changed,
            removed,
        } => (added, changed, removed),
        other => panic!("{other:?}"),
    };
    let known = |tree: &Tree, name: &str| {
        let attr = tree.stat(&format!("/m/{name}")).expect("there");
        KnownName {
            inode: attr.inode,
            version: attr.ufs,
        }
    };
    let said = |name: &str, known: Option<KnownName>, object: Option<UfsObject>| AgreeName {
        name: name.to_owned(),
        known,
        object,
    };
    let link = UfsObject {
        name: "link".to_owned(),
        kind: FileKind::Symlink,
        version: None,
        target: Some("a".to_owned()),
        attributes: None,
    };
    let names = ["a", "b", "c", "d"].map(|name| said(name, None, Some(object(name, 5, "1"))));
    let names = names.into_iter().chain([said("link", None, Some(link.clone()))]);
    assert_eq!(agree(&mut tree, names.collect()), (5, 0, 0));
    assert_eq!(
        tree.store
            .lookup(&path("/m/link"), false)
            .expect("there")
            .target
            .as_deref(),
        Some("a")
    );
    let before = ["a", "b", "c", "link"].map(|name| known(&tree, name));
    // Meanwhile: one gets another version, one goes, one comes, one is being written.
    let [a, b, c, old_link] = before.clone();
    let newer = said("a", Some(a.clone()), Some(object("a", 6, "2")));
    assert_eq!(agree(&mut tree, vec![newer]), (0, 1, 0));
    tree.done(unlink("/m/b"));
    tree.write("/m/new", 10);
    let late = vec![
        said("a", Some(a.clone()), Some(object("a", 7, "3"))),
        said("a", Some(a), None),
        said("b", Some(b), Some(object("b", 6, "2"))),
        said("new", None, Some(object("new", 3, "1"))),
        said("d", None, Some(object("d", 9, "9"))),
    ];
    assert_eq!(agree(&mut tree, late), (0, 0, 0));
    assert_eq!(tree.names("/m"), ["a", "c", "d", "link", "new"]);
    assert_eq!(tree.stat("/m/a").expect("there").size_bytes, 6);
    assert_eq!(tree.stat("/m/new").expect("there").size_bytes, 10);
    // What is as it was, changes.
    let other_link = UfsObject {
        target: Some("c".to_owned()),
        ..link
    };
    let in_time = vec![
        said("c", Some(c), None),
        said("link", Some(old_link), Some(other_link)),
    ];
    assert_eq!(agree(&mut tree, in_time), (1, 0, 2));
    assert_eq!(
        tree.store
            .lookup(&path("/m/link"), false)
            .expect("there")
            .target
            .as_deref(),
        Some("c")
    );
    tree.check();
}

#[test]
fn a_directory_that_is_gone_from_its_store_stays_while_it_has_what_is_not_stored_yet() {
    let mut tree = Tree::new();
    let directory = mounted(&mut tree);
    tree.mkdir("/m/d");
    tree.write("/m/d/new", 10);
    let inode = tree.stat("/m/d").expect("there").inode;
    let gone = AgreeName {
        name: "d".to_owned(),
        known: Some(KnownName { inode, version: None }),
        object: None,
    };
    let names = vec![gone];
    tree.apply(Op::AgreeDir(AgreeDir { directory, names }))
        .expect("agreed");
    assert_eq!(tree.names("/m/d"), ["new"]);
    tree.check();
}

#[test]
fn a_listing_says_of_each_name_what_a_look_at_it_alone_says() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.mkdir("/other");
    // Inodes side by side, in the order of names and against it, with gaps small and large between them.
    for number in 0..60 {
        tree.write(&format!("/d/in-order-{number:03}"), number);
        tree.write(&format!("/d/backwards-{:03}", 100 - number), 1_000 + number);
        for gap in 0..number {
            tree.mkdir(&format!("/other/{number}-{gap}"));
        }
    }
    for number in (0..60).step_by(3) {
        tree.done(unlink(&format!("/d/in-order-{number:03}")));
    }
    let directory = tree.stat("/d").expect("there").inode;
    let mut seen = Vec::new();
    loop {
        let after = seen.last().cloned();
        let (entries, more) = tree
            .store
            .list(directory, after.as_deref(), 7)
            .expect("a directory");
        for entry in entries {
            assert_eq!(
                entry.attr,
                tree.stat(&format!("/d/{}", entry.name)).expect("there")
            );
            seen.push(entry.name);
        }
        if !more {
            break;
        }
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.is_sorted());
}

#[test]
fn mounts_do_not_nest_and_need_an_empty_directory() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    tree.mkdir("/full");
    tree.create("/full/f");
    let mut mount = |at: &str| {
        let op = Op::AddMount {
            path: CurvinePath::parse(at).expect("valid"),
            uri: "memory:///".to_owned(),
            options: BTreeMap::new(),
            settings: MountSettings::default(),
        };
        tree.apply(op).expect_err("must be refused").kind
    };
    assert_eq!(mount("/m"), ErrorKind::AlreadyExists);
    assert_eq!(mount("/m/below"), ErrorKind::InvalidArgument);
    assert_eq!(mount("/full"), ErrorKind::DirectoryNotEmpty);
    assert_eq!(mount("/"), ErrorKind::InvalidArgument);
    assert_eq!(
        tree.refused(rename("/full/f", "/m/f", RenameMode::Replace)),
        ErrorKind::CrossMount
    );
    assert_eq!(
        tree.refused(rename("/m", "/n", RenameMode::Replace)),
        ErrorKind::Busy
    );
    assert_eq!(
        tree.refused(Delete {
            node: path("/m"),
            recursive: true,
            holders: None,
        }),
        ErrorKind::Busy
    );
    tree.check();
}

/// Ends a job that was just added, or changes its record.
fn update_job(job: JobId, state: JobState, failed: &[&str], anew: bool) -> Op {
    let failure = |path: &&str| FileFailure {
        path: (*path).to_owned(),
        error: Error::new(ErrorKind::Ufs, "no"),
    };
    Op::UpdateJob {
        id: job,
        state,
        progress: JobProgress::default(),
        failures: failed.iter().map(failure).collect(),
        anew,
    }
}

impl Tree {
    fn add_job(&mut self) -> JobId {
        let added = self.apply(Op::AddJob {
            paths: vec![CurvinePath::root()],
        });
        match added.expect("added") {
            OpReply::Job(job) => job.id,
            other => panic!("{other:?}"),
        }
    }

    fn ended_job(&mut self) -> JobId {
        let job = self.add_job();
        self.apply(update_job(job, JobState::Done, &[], false))
            .expect("ended");
        job
    }

    fn jobs(&self) -> Vec<JobId> {
        let jobs = self.store.jobs().expect("readable");
        jobs.iter().map(|job| job.id).collect()
    }
}

#[test]
fn jobs_that_ended_are_forgotten_by_their_number_and_age_and_those_that_run_never() {
    let mut tree = Tree::new();
    let runs = tree.add_job();
    let ended: Vec<_> = (0..=ENDED_MAX).map(|_| tree.ended_job()).collect();
    let last = tree.ended_job();
    let mut known = vec![runs];
    known.extend(&ended[1..]);
    known.push(last);
    assert_eq!(tree.jobs(), known, "the last one makes room when the next comes");
    tree.now_ns += ENDED_AGE_NS + 10;
    let next = tree.add_job();
    assert_eq!(tree.jobs(), [runs, next]);
}

#[test]
fn a_job_that_is_begun_anew_forgets_what_failed_before() {
    let mut tree = Tree::new();
    let id = tree.add_job();
    let failed = |tree: &Tree| -> Vec<String> {
        let job = tree.store.job(id).expect("readable").expect("known");
        job.failures.into_iter().map(|failure| failure.path).collect()
    };
    tree.apply(update_job(id, JobState::Running, &["/a"], false))
        .expect("runs");
    tree.apply(update_job(id, JobState::Running, &["/b"], false))
        .expect("runs");
    assert_eq!(failed(&tree), ["/a", "/b"]);
    tree.apply(update_job(id, JobState::Planning, &["/b"], true))
        .expect("runs");
    assert_eq!(failed(&tree), ["/b"]);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// A small world, so that ops meet each other.
    fn place() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|names| format!("/{}", names.join("/")))
    }

    fn entry() -> impl Strategy<Value = AclEntry> {
        let who = [
            AclWho::Owner,
            AclWho::User(9),
            AclWho::Group,
            AclWho::Mask,
            AclWho::Other,
        ];
        (any::<bool>(), prop::sample::select(who.to_vec()), 0_u8..8).prop_map(
            |(is_default, who, permission)| match is_default {
                true => AclEntry::default(who, permission),
                false => AclEntry::access(who, permission),
            },
        )
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            place().prop_map(|at| MakeDir {
                node: path(&at),
                mode: 0o755,
                parents: true,
                unmasked: None,
            }
            .into_op()),
            place().prop_map(|at| create(&at).into_op()),
            (place(), 0u64..300_000).prop_map(|(at, size)| SetAttr {
                node: path(&at),
                follow: true,
                change: AttrChange {
                    size_bytes: Some(size),
                    ..AttrChange::default()
                },
            }
            .into_op()),
            (place(), place(), 0..3_usize).prop_map(|(from, to, mode)| {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                rename(&from, &to, modes[mode]).into_op()
            }),
            (place(), any::<bool>()).prop_map(|(at, keep)| Unlink {
                node: path(&at),
                keep_open: keep,
                closed: Vec::new(),
                holders: None,
            }
            .into_op()),
            place().prop_map(|at| RemoveDir { node: path(&at) }.into_op()),
            (place(), any::<bool>()).prop_map(|(at, recursive)| Delete {
                node: path(&at),
                recursive,
                holders: None,
            }
            .into_op()),
            (place(), place()).prop_map(|(from, to)| MakeLink {
                source: path(&from),
                node: path(&to)
            }
            .into_op()),
            (place(), place()).prop_map(|(at, to)| MakeSymlink {
                node: path(&at),
                target: to
            }
            .into_op()),
            (2u64..20, 0u32..12, 0u32..16).prop_map(|(inode, from_index, until_index)| AllocateBlocks {
                inode: InodeId(inode),
                from_index,
                until_index,
            }
            .into_op()),
            (2u64..20, 0u64..12, 0u64..12).prop_map(|(inode, from, blocks)| PunchHole {
                inode: InodeId(inode),
                offset_bytes: from << 16,
                len_bytes: blocks << 16,
                keep_privileges: false,
            }
            .into_op()),
            (place(), proptest::collection::vec(place(), 1..3)).prop_map(|(at, sources)| Concat {
                node: path(&at),
                sources: sources.iter().map(|source| path(source)).collect(),
                tail: None,
            }
            .into_op()),
            (place(), proptest::collection::vec(entry(), 0..4), 0..5_usize).prop_map(
                |(at, entries, change)| {
                    let change = match change {
                        0 => AclChange::Set(entries),
                        1 | 2 => AclChange::Modify(entries),
                        3 => AclChange::Remove(entries),
                        _ => AclChange::Clear,
                    };
                    let node = path(&at);
                    ChangeAcl { node, change }.into_op()
                }
            ),
            Just(EndSession {}.into_op()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_invariants_hold_after_every_op(ops in proptest::collection::vec(op(), 1..60)) {
            let mut tree = Tree::new();
            for op in ops {
                let said = format!("{op:?}");
                let result = tree.apply(op);
                if let Err(error) = &result {
                    prop_assert!(error.kind != ErrorKind::Internal, "{said}: {error}");
                }
                tree.check();
            }
        }
    }
}
