//! Files go when their time is over, and no others do.

use std::collections::{BTreeMap, HashSet};

use curvine_protocol::master::{SetTtl, Ttl, TtlAction, TtlFrom};
use curvine_protocol::op::Walked;
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

fn ttl(seconds: u64, action: TtlAction, from: TtlFrom) -> Ttl {
    Ttl {
        after_ms: seconds * 1_000,
        action,
        from,
    }
}

fn deletes(seconds: u64) -> Ttl {
    ttl(seconds, TtlAction::Delete, TtlFrom::Modification)
}

impl Tree {
    fn rule(&mut self, at: &str, ttl: Option<Ttl>) {
        self.done(SetTtl { node: path(at), ttl });
    }

    fn waits(&mut self, seconds: i64) {
        self.now_ns += seconds * SECOND;
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now_ns / 1_000_000).expect("after 1970")
    }

    fn walks(&mut self) {
        for (top, round) in self.store.ttl_walks(99).expect("readable") {
            let inodes = self.store.files_below(top).expect("readable");
            self.apply(Op::SetExpiry {
                inodes,
                not_before_ms: 0,
                walked: Some(Walked { top, round }),
            })
            .expect("looked up");
        }
        assert_eq!(self.store.ttl_walks(99).expect("readable"), []);
    }

    fn expires(&mut self, inode: InodeId, node: Node) -> Result<OpReply> {
        let unlink = Unlink {
            node,
            keep_open: false,
            closed: Vec::new(),
            holders: None,
        };
        self.apply(Op::Note(Box::new(Op::Expire { inode, unlink })))
    }

    /// What a leader does. The files that it freed.
    fn leads(&mut self) -> Vec<InodeId> {
        self.walks();
        let mut freed = Vec::new();
        loop {
            let due = self.store.due(self.now_ms(), 2).expect("readable");
            if due.is_empty() {
                return freed;
            }
            for one in due {
                let action = one.rule.filter(|_| one.is_over).map(|rule| rule.action);
                match action {
                    Some(TtlAction::Delete) if !one.has_writer => {
                        let wanted = HashSet::from([one.inode]);
                        let names = self.store.names_in(one.parent, &wanted).expect("readable");
                        if !names.contains_key(&one.inode) {
                            let not_before_ms = self.now_ms() + 86_400_000;
                            self.apply(Op::SetExpiry {
                                inodes: vec![one.inode],
                                not_before_ms,
                                walked: None,
                            })
                            .expect("looked at again");
                        }
                        for name in names.get(&one.inode).into_iter().flatten() {
                            let node = Node::child(one.parent, name.clone());
                            self.expires(one.inode, node).expect("it is due");
                        }
                    }
                    _ => {
                        let again_ms = match (one.has_writer && one.is_over, action) {
                            (true, _) => self.now_ms() + 5_000,
                            (_, Some(_)) => self.now_ms() + one.rule.expect("it has one").after_ms,
                            _ => 0,
                        };
                        freed.extend(action.filter(|_| !one.has_writer).map(|_| one.inode));
                        self.apply(Op::SetExpiry {
                            inodes: vec![one.inode],
                            not_before_ms: again_ms,
                            walked: None,
                        })
                        .expect("looked at again");
                    }
                }
            }
        }
    }

    fn is_there(&self, at: &str) -> bool {
        self.stat(at).is_ok()
    }
}

#[test]
fn the_nearest_rule_counts_and_what_is_written_to_lives_longer() {
    let mut tree = Tree::new();
    for directory in ["/d", "/d/sub", "/out"] {
        tree.mkdir(directory);
    }
    tree.write("/d/old", 10);
    tree.rule("/d", Some(deletes(100)));
    tree.rule("/d/sub", Some(deletes(10)));
    tree.write("/d/sub/f", 10);
    tree.write("/d/sub/touched", 10);
    tree.write("/out/f", 10);
    tree.waits(9);
    assert_eq!(tree.leads(), []);
    assert!(tree.is_there("/d/sub/f"), "not before its time");
    tree.done(SetAttr {
        node: path("/d/sub/touched"),
        follow: true,
        change: AttrChange {
            mtime: Some(SetTime::Now),
            ..AttrChange::default()
        },
    });
    tree.waits(2);
    tree.leads();
    assert!(!tree.is_there("/d/sub/f") && tree.is_there("/d/sub/touched"));
    tree.waits(10);
    tree.leads();
    assert!(!tree.is_there("/d/sub/touched") && tree.is_there("/d/sub"));
    assert!(tree.is_there("/d/old"));
    tree.waits(80);
    tree.leads();
    assert!(!tree.is_there("/d/old") && tree.is_there("/out/f"));
    // A file's own rule, and one that is taken away.
    tree.rule("/out/f", Some(deletes(5)));
    tree.write("/d/new", 10);
    tree.rule("/d", None);
    tree.waits(1_000);
    tree.leads();
    assert!(!tree.is_there("/out/f") && tree.is_there("/d/new"));
}

#[test]
fn trees_and_files_that_move_go_by_the_rule_where_they_are() {
    let mut tree = Tree::new();
    for directory in ["/d", "/out", "/out/t", "/out/t/sub"] {
        tree.mkdir(directory);
    }
    tree.rule("/d", Some(deletes(10)));
    tree.write("/out/t/sub/f", 10);
    tree.write("/out/g", 10);
    tree.write("/d/h", 10);
    tree.leads();
    for (from, to) in [("/out/t", "/d/t"), ("/out/g", "/d/g"), ("/d/h", "/out/h")] {
        tree.apply(rename(from, to, RenameMode::Replace).into_op())
            .expect("moved");
    }
    tree.waits(11);
    tree.leads();
    assert!(!tree.is_there("/d/t/sub/f") && !tree.is_there("/d/g"));
    assert!(tree.is_there("/out/h") && tree.is_there("/d/t/sub"));
}

#[test]
fn what_is_freed_is_freed_again_after_the_same_time_and_by_access_only_without_one() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.mkdir("/a");
    let inode = tree.write("/d/f", 10).inode;
    let read = tree.write("/a/f", 10).inode;
    tree.rule("/d", Some(ttl(10, TtlAction::Free, TtlFrom::Modification)));
    tree.rule("/a", Some(ttl(10, TtlAction::Free, TtlFrom::Access)));
    tree.leads();
    tree.waits(5);
    let files = vec![(read, tree.now_ns)];
    tree.apply(Op::Accessed { files }).expect("noted");
    tree.waits(6);
    assert_eq!(tree.leads(), [inode]);
    // No other change of the file brings that forward.
    tree.done(SetAttr {
        node: path("/d/f"),
        follow: true,
        change: AttrChange {
            mode: Some(0o600),
            ..AttrChange::default()
        },
    });
    tree.waits(5);
    assert_eq!(tree.leads(), [read]);
    tree.waits(6);
    assert_eq!(tree.leads(), [inode]);
    let shown = tree.store.ttls(Some(&path("/d/f"))).expect("readable").remove(0);
    assert_eq!(shown.path.as_str(), "/d");
    assert!(shown.due_ns.is_some_and(|due_ns| due_ns > tree.now_ns));
}

#[test]
fn a_file_that_is_written_or_not_due_or_another_one_is_not_deleted() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.rule("/d", Some(deletes(10)));
    let written = tree.create("/d/f").attr.inode;
    let other = tree.write("/d/g", 10).inode;
    let refused = |tree: &mut Tree, inode, at: &str| tree.expires(inode, path(at)).expect_err("not yet").kind;
    assert_eq!(refused(&mut tree, other, "/d/g"), ErrorKind::Stale);
    tree.waits(11);
    assert_eq!(refused(&mut tree, written, "/d/f"), ErrorKind::Busy);
    assert_eq!(refused(&mut tree, written, "/d/g"), ErrorKind::Stale);
    tree.leads();
    assert!(tree.is_there("/d/f") && !tree.is_there("/d/g"));
    assert_eq!(
        tree.refused(SetTtl {
            node: path("/d"),
            ttl: Some(deletes(0))
        }),
        ErrorKind::InvalidArgument
    );
    let none = tree.store.ttls(Some(&path("/"))).expect_err("it has none");
    assert_eq!(none.kind, ErrorKind::NoAttribute);
}

#[test]
fn rules_do_not_reach_into_mounts_and_go_with_them() {
    let mut tree = Tree::new();
    mounted(&mut tree);
    tree.rule("/", Some(deletes(5)));
    tree.write("/f", 10);
    tree.write("/m/f", 10);
    tree.waits(10);
    tree.leads();
    assert!(!tree.is_there("/f") && tree.is_there("/m/f"));
    let none = tree.store.ttls(Some(&path("/m/f"))).expect_err("it has none");
    assert_eq!(none.kind, ErrorKind::NoAttribute);
    tree.rule("/m", Some(deletes(1_000)));
    tree.leads();
    let due = tree
        .store
        .ttls(Some(&path("/m/f")))
        .expect("it has one")
        .remove(0);
    assert_eq!((due.path.as_str(), due.due_ns.is_some()), ("/m", true));
    tree.apply(Op::RemoveMount {
        path: CurvinePath::parse("/m").expect("valid"),
        force: true,
    })
    .expect("unmounted");
    let left = tree.store.ttls(None).expect("readable");
    assert_eq!(
        left.iter().map(|rule| rule.path.as_str()).collect::<Vec<_>>(),
        ["/"]
    );
}

#[test]
fn a_name_that_a_file_does_not_go_by_says_so() {
    let mut tree = Tree::new();
    tree.mkdir("/d");
    tree.mkdir("/out");
    tree.write("/d/f", 10);
    tree.done(MakeLink {
        source: path("/d/f"),
        node: path("/out/f"),
    });
    tree.rule("/d", Some(deletes(5)));
    assert!(tree.store.ttls(Some(&path("/d/f"))).is_ok());
    let none = tree.store.ttls(Some(&path("/out/f"))).expect_err("it goes by /d");
    assert!(none.message.contains("hard links"), "{none}");
    tree.waits(10);
    tree.leads();
    assert!(!tree.is_there("/d/f") && tree.is_there("/out/f"));
}

/// One step of somebody.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Move(usize, usize),
    MoveFile(usize, usize, usize),
    Touch(usize, usize, i64),
    Remove(usize),
    Rule(usize, Option<u64>),
    Wait(i64),
    Lead,
}

const PLACES: [&str; 5] = ["/a", "/a/b", "/a/b/c", "/e", "/e/f"];

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES.len();
    prop_oneof![
        4 => (place.clone(), 0..4_usize).prop_map(|(at, name)| Step::Write(at, name)),
        2 => (place.clone(), place.clone()).prop_map(|(from, to)| Step::Move(from, to)),
        2 => (place.clone(), place.clone(), 0..4_usize).prop_map(|(from, to, name)| Step::MoveFile(from, to, name)),
        2 => (place.clone(), 0..4_usize, -50..50_i64).prop_map(|(at, name, by)| Step::Touch(at, name, by)),
        1 => place.clone().prop_map(Step::Remove),
        3 => (place, prop::option::of(1..60_u64)).prop_map(|(at, after)| Step::Rule(at, after)),
        3 => (1..30_i64).prop_map(Step::Wait),
        3 => Just(Step::Lead),
    ]
}

impl Tree {
    /// Every file with the rule that is nearest above it, found by a walk down the tree.
    fn ruled(&self) -> BTreeMap<InodeId, Option<Ttl>> {
        let txn = self.store.read().expect("readable");
        let mut found = BTreeMap::new();
        let mut open = vec![(InodeId::ROOT, None)];
        while let Some((inode, above)) = open.pop() {
            let rule = self.store.dbs.ttl(&txn, inode).expect("readable").or(above);
            let record = self
                .store
                .dbs
                .inode(&txn, inode)
                .expect("readable")
                .expect("there");
            match record.is_dir() {
                false => drop(found.insert(inode, rule)),
                true => {
                    let children = self.store.dbs.children(&txn, inode, None, 99).expect("readable");
                    open.extend(children.into_iter().map(|(_, child)| (child, rule)));
                }
            }
        }
        found
    }

    fn mtime_of(&self, inode: InodeId) -> i64 {
        self.store.attr(inode).expect("there").mtime_ns
    }

    fn take(&mut self, step: &Step) {
        let file = |at: usize, name: usize| format!("{}/{name}", PLACES[at]);
        // Some of it fails, as it may.
        match step {
            Step::Write(at, name) => {
                if !self.is_there(&file(*at, *name)) && self.is_there(PLACES[*at]) {
                    self.write(&file(*at, *name), 10);
                }
            }
            Step::Move(from, to) => {
                let _ = self.apply(rename(PLACES[*from], PLACES[*to], RenameMode::Exchange).into_op());
                let to = format!("{}/moved", PLACES[*to]);
                let _ = self.apply(rename(PLACES[*from], &to, RenameMode::Replace).into_op());
            }
            Step::MoveFile(from, to, name) => {
                let (from, to) = (file(*from, *name), file(*to, *name));
                let _ = self.apply(rename(&from, &to, RenameMode::Replace).into_op());
            }
            Step::Touch(at, name, by) => {
                let mtime = SetTime::At(self.now_ns + by * SECOND);
                let set = SetAttr {
                    node: path(&file(*at, *name)),
                    follow: true,
                    change: AttrChange {
                        mtime: Some(mtime),
                        ..AttrChange::default()
                    },
                };
                let _ = self.apply(set.into_op());
            }
            Step::Remove(at) => {
                let remove = Delete {
                    node: path(PLACES[*at]),
                    recursive: true,
                    holders: None,
                };
                let _ = self.apply(remove.into_op());
                let made = MakeDir {
                    node: path(PLACES[*at]),
                    mode: 0o755,
                    parents: true,
                    unmasked: None,
                };
                let _ = self.apply(made.into_op());
            }
            Step::Rule(at, after) => {
                let ttl = after.map(deletes);
                let _ = self.apply(
                    SetTtl {
                        node: path(PLACES[*at]),
                        ttl,
                    }
                    .into_op(),
                );
            }
            Step::Wait(seconds) => self.waits(*seconds),
            Step::Lead => {
                let before = self.ruled();
                let times: BTreeMap<InodeId, i64> = before
                    .keys()
                    .map(|inode| (*inode, self.mtime_of(*inode)))
                    .collect();
                self.leads();
                let after = self.ruled();
                for (inode, rule) in before {
                    let is_over = rule.is_some_and(|rule| {
                        let after_ns = i64::try_from(rule.after_ms).expect("small") * 1_000_000;
                        times[&inode] + after_ns <= self.now_ns - 2_000_000
                    });
                    let is_early = rule.is_none_or(|rule| {
                        let after_ns = i64::try_from(rule.after_ms).expect("small") * 1_000_000;
                        times[&inode] + after_ns > self.now_ns
                    });
                    assert!(
                        !is_over || !after.contains_key(&inode),
                        "{inode} should be gone: {rule:?}"
                    );
                    assert!(
                        !is_early || after.contains_key(&inode),
                        "{inode} should be there: {rule:?}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_moves_all_that_is_due_goes_and_nothing_else(steps in prop::collection::vec(step(), 1..60)) {
        let mut tree = Tree::new();
        tree.now_ns = 1_000 * SECOND;
        for place in PLACES {
            tree.mkdir(place);
        }
        for step in &steps {
            tree.take(step);
        }
        tree.take(&Step::Lead);
    }
}
