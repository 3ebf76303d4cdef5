//! Access control lists: a small tree that one program alone changes, and a model of its own of what each list must be.
//!
//! The model says it as the manual of `setfacl` does, list by list; the masters have one sorted set of entries. Whatever is
//! asked is compared at once, and once more when everything is healed.

use std::collections::BTreeMap;

use curvine_protocol::acl::{AclScope, AclWho, WantedMode};
use curvine_protocol::master::AclChange;
use curvine_protocol::{AclEntry, CurvinePath};

use crate::chance::Chance;

/// Names below the top of a tree.
const NAMES_MAX: usize = 8;
const USERS: [AclWho; 3] = [AclWho::User(1), AclWho::User(2), AclWho::NamedGroup(1)];

/// One list: what the three classes may do, and whoever is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    owner: u8,
    group: u8,
    other: u8,
    named: BTreeMap<AclWho, u8>,
    mask: Option<u8>,
}

impl List {
    fn of_mode(mode: u32) -> List {
        let class = |shift: u32| ((mode >> shift) & 7) as u8;
        List {
            owner: class(6),
            group: class(3),
            other: class(0),
            named: BTreeMap::new(),
            mask: None,
        }
    }

    fn put(&mut self, who: AclWho, permission: u8) {
        match who {
            AclWho::Owner => self.owner = permission,
            AclWho::Group => self.group = permission,
            AclWho::Other => self.other = permission,
            AclWho::Mask => self.mask = Some(permission),
            named => drop(self.named.insert(named, permission)),
        }
    }

    fn put_all(&mut self, entries: &[(AclWho, u8)]) {
        entries
            .iter()
            .for_each(|(who, permission)| self.put(*who, *permission));
        if entries.iter().all(|(who, _)| *who != AclWho::Mask) {
            self.mask_anew();
        }
    }

    /// What everybody whom a mask concerns may do, where there is one.
    fn mask_anew(&mut self) {
        if !self.named.is_empty() || self.mask.is_some() {
            self.mask = Some(self.named.values().fold(self.group, |all, one| all | one));
        }
    }

    fn mode(&self) -> u32 {
        let group = self.mask.unwrap_or(self.group);
        u32::from(self.owner) << 6 | u32::from(group) << 3 | u32::from(self.other)
    }

    fn entries(&self, scope: AclScope) -> Vec<AclEntry> {
        let base = [
            (AclWho::Owner, self.owner),
            (AclWho::Group, self.group),
            (AclWho::Other, self.other),
        ];
        let mask = self.mask.map(|mask| (AclWho::Mask, mask));
        let named = self.named.iter().map(|(who, permission)| (*who, *permission));
        let all = base.into_iter().chain(mask).chain(named);
        all.map(|(who, permission)| AclEntry {
            scope,
            who,
            permission,
        })
        .collect()
    }
}

#[derive(Clone, Debug)]
struct Inode {
    is_dir: bool,
    access: List,
    default: Option<List>,
}

impl Inode {
    fn changed(&self, change: &Change) -> Option<Inode> {
        let mut next = self.clone();
        match change {
            Change::Clear => {
                next.access.named.clear();
                next.access.mask = None;
                next.default = None;
            }
            Change::RemoveDefault => next.default = None,
            Change::Modify(AclScope::Access, entries) => next.access.put_all(entries),
            Change::Modify(AclScope::Default, entries) => {
                // As in HDFS: a mask alone makes no list.
                if self.default.is_none() && entries.iter().all(|(who, _)| *who == AclWho::Mask) {
                    return Some(next);
                }
                if !self.is_dir {
                    return None;
                }
                let plain = List {
                    named: BTreeMap::new(),
                    mask: None,
                    ..self.access.clone()
                };
                next.default.get_or_insert(plain).put_all(entries);
            }
            Change::Set(entries) => {
                let has = |wanted| entries.iter().any(|(who, _)| *who == wanted);
                if ![AclWho::Owner, AclWho::Group, AclWho::Other].into_iter().all(has) {
                    return None;
                }
                next.access = List::of_mode(0);
                next.access.put_all(entries);
            }
            Change::Remove(scope, AclWho::Mask) => {
                let list = next.list(*scope);
                if let Some(list) = list {
                    if list.mask.is_some() && !list.named.is_empty() {
                        return None;
                    }
                    list.mask = None;
                }
            }
            Change::Remove(scope, who) => {
                if let Some(list) = next.list(*scope)
                    && list.named.remove(who).is_some()
                {
                    list.mask_anew();
                }
            }
        }
        Some(next)
    }

    fn list(&mut self, scope: AclScope) -> Option<&mut List> {
        match scope {
            AclScope::Access => Some(&mut self.access),
            AclScope::Default => self.default.as_mut(),
        }
    }

    /// What is made in this directory.
    fn child(&self, is_dir: bool, mode: WantedMode) -> Inode {
        let Some(default) = &self.default else {
            return Inode {
                is_dir,
                access: List::of_mode(mode.masked),
                default: None,
            };
        };
        let asked = List::of_mode(mode.unmasked.unwrap_or(mode.masked));
        let mut access = default.clone();
        access.owner &= asked.owner;
        access.other &= asked.other;
        match &mut access.mask {
            Some(mask) => *mask &= asked.group,
            None => access.group &= asked.group,
        }
        Inode {
            is_dir,
            access,
            default: is_dir.then(|| default.clone()),
        }
    }
}

/// A change of a list, of one scope.
#[derive(Clone, Debug)]
enum Change {
    /// Of access entries.
    Set(Vec<(AclWho, u8)>),
    Modify(AclScope, Vec<(AclWho, u8)>),
    Remove(AclScope, AclWho),
    RemoveDefault,
    Clear,
}

impl Change {
    fn asked(&self) -> AclChange {
        let of = |scope: AclScope, entries: &[(AclWho, u8)]| {
            let entry = |(who, permission): &(AclWho, u8)| AclEntry {
                scope,
                who: *who,
                permission: *permission,
            };
            entries.iter().map(entry).collect()
        };
        match self {
            Change::Set(entries) => AclChange::Set(of(AclScope::Access, entries)),
            Change::Modify(scope, entries) => AclChange::Modify(of(*scope, entries)),
            Change::Remove(scope, who) => AclChange::Remove(of(*scope, &[(*who, 0)])),
            Change::RemoveDefault => AclChange::RemoveDefault,
            Change::Clear => AclChange::Clear,
        }
    }
}

/// What a program does to its tree.
#[derive(Clone, Debug)]
pub enum Step {
    Make {
        path: CurvinePath,
        is_dir: bool,
        mode: WantedMode,
    },
    Chmod(CurvinePath, u32),
    Rename(CurvinePath, CurvinePath),
    Change(CurvinePath, AclChange),
}

impl Step {
    /// Of what the list is to be looked at afterwards.
    pub fn path(&self) -> &CurvinePath {
        match self {
            Step::Make { path, .. } | Step::Chmod(path, _) | Step::Change(path, _) => path,
            Step::Rename(_, to) => to,
        }
    }
}

/// A tree and what its lists must be: paths below its top, which is itself the empty one, of at most two names.
#[derive(Clone, Debug)]
pub struct Tree {
    top: String,
    inodes: BTreeMap<String, Inode>,
    made: usize,
    /// A step is under way, or nobody knows what became of one: what there is may be anything.
    pub is_unsure: bool,
}

impl Tree {
    /// One whose top is still to be made, by the first step.
    pub fn new(top: String) -> Tree {
        Tree {
            top,
            inodes: BTreeMap::new(),
            made: 0,
            is_unsure: false,
        }
    }

    fn path(&self, below: &str) -> CurvinePath {
        CurvinePath::parse(&format!("{}{below}", self.top)).expect("a valid path")
    }

    fn below(&self, path: &CurvinePath) -> String {
        path.as_str()[self.top.len()..].to_owned()
    }

    fn any(&self, chance: &Chance, wanted: impl Fn(&str, &Inode) -> bool) -> Option<String> {
        let found = self.inodes.iter().filter(|(path, inode)| wanted(path, inode));
        let found: Vec<&String> = found.map(|(path, _)| path).collect();
        (!found.is_empty()).then(|| (*chance.one_of(&found)).clone())
    }

    /// Something to do next, and the tree after it; none if it must be refused.
    pub fn next(&self, chance: &Chance) -> (Step, Option<Tree>) {
        let mut after = self.clone();
        let mode = WantedMode::with_umask(*chance.one_of(&[0o777, 0o666, 0o750, 0o640]), 0o022);
        if self.inodes.is_empty() {
            let top = Inode {
                is_dir: true,
                access: List::of_mode(mode.masked),
                default: None,
            };
            after.inodes.insert(String::new(), top);
            let (path, is_dir) = (self.path(""), true);
            return (Step::Make { path, is_dir, mode }, Some(after));
        }
        let any = self.any(chance, |_, _| true).expect("the top is there");
        match chance.below(10) {
            0..3 if self.inodes.len() <= NAMES_MAX => {
                let is_shallow = |path: &str, inode: &Inode| inode.is_dir && path.matches('/').count() < 2;
                let above = self.any(chance, is_shallow).expect("the top is one");
                let (below, is_dir) = (format!("{above}/{}", self.made), chance.percent(60));
                let child = self.inodes[&above].child(is_dir, mode);
                after.made += 1;
                after.inodes.insert(below.clone(), child);
                let path = self.path(&below);
                (Step::Make { path, is_dir, mode }, Some(after))
            }
            3 => {
                let mode = *chance.one_of(&[0o700, 0o755, 0o640, 0o604]);
                let List {
                    owner, group, other, ..
                } = List::of_mode(mode);
                let access = &mut after.inodes.get_mut(&any).expect("it is there").access;
                (access.owner, access.other) = (owner, other);
                *access.mask.as_mut().unwrap_or(&mut access.group) = group;
                (Step::Chmod(self.path(&any), mode), Some(after))
            }
            4 => {
                let Some(from) = self.any(chance, |_, inode| !inode.is_dir) else {
                    return self.changed(any, chance);
                };
                let to = format!("/{}", self.made);
                after.made += 1;
                let moved = after.inodes.remove(&from).expect("it is there");
                after.inodes.insert(to.clone(), moved);
                (Step::Rename(self.path(&from), self.path(&to)), Some(after))
            }
            _ => self.changed(any, chance),
        }
    }

    fn changed(&self, below: String, chance: &Chance) -> (Step, Option<Tree>) {
        let permission = || u8::try_from(chance.below(8)).expect("three bits");
        let who = || match chance.below(10) {
            0 => AclWho::Owner,
            1 => AclWho::Group,
            2 => AclWho::Other,
            3 => AclWho::Mask,
            _ => *chance.one_of(&USERS),
        };
        let entries = |count: u64| {
            let entries: BTreeMap<AclWho, u8> = (0..count).map(|_| (who(), permission())).collect();
            entries.into_iter().collect::<Vec<_>>()
        };
        let scope = *chance.one_of(&[AclScope::Access, AclScope::Default]);
        let change = match chance.below(20) {
            0..10 => Change::Modify(scope, entries(chance.within(1..4))),
            10..14 => {
                let base = [AclWho::Owner, AclWho::Group, AclWho::Other].map(|who| (who, permission()));
                let mut all: BTreeMap<AclWho, u8> = base.into();
                all.extend(entries(chance.below(3)));
                if chance.percent(20) {
                    all.remove(&AclWho::Other);
                }
                Change::Set(all.into_iter().collect())
            }
            14..18 => match who() {
                who @ (AclWho::Mask | AclWho::User(_) | AclWho::NamedGroup(_)) => Change::Remove(scope, who),
                _ => Change::Remove(scope, USERS[0]),
            },
            18 => Change::RemoveDefault,
            _ => Change::Clear,
        };
        let step = Step::Change(self.path(&below), change.asked());
        let after = self.inodes[&below].changed(&change).map(|inode| {
            let mut after = self.clone();
            after.inodes.insert(below, inode);
            after
        });
        (step, after)
    }

    /// Everything that there is, to be looked at.
    pub fn paths(&self) -> Vec<CurvinePath> {
        self.inodes.keys().map(|below| self.path(below)).collect()
    }

    /// Compares the whole list of an inode, with its mode, with what it must be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, path: &CurvinePath, mode: u32, mut whole: Vec<AclEntry>) -> Result<(), String> {
        let inode = self
            .inodes
            .get(&self.below(path))
            .ok_or(format!("{path} must not be there"))?;
        let mut expected = inode.access.entries(AclScope::Access);
        expected.extend(
            inode
                .default
                .iter()
                .flat_map(|list| list.entries(AclScope::Default)),
        );
        expected.sort_unstable();
        whole.sort_unstable();
        match (mode & 0o777, &whole) == (inode.access.mode(), &expected) {
            true => Ok(()),
            false => Err(format!(
                "{path} must have mode {:o} and {expected:?}, and has {mode:o} and {whole:?}",
                inode.access.mode()
            )),
        }
    }
}
