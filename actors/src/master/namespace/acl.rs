//! What a change makes of an access control list, and what a child inherits: as HDFS has both. Pure.
//!
//! Invariants of a list as it is kept: sorted, each entry once, at most [`ACL_ENTRIES_MAX`] of a scope with what the mode
//! says. Access entries are named ones and that of the owning group, or none at all; default entries are a whole list, or
//! none at all.

use std::collections::{BTreeMap, BTreeSet};

use curvine_protocol::acl::{ACL_ENTRIES_MAX, whole_acl};
use curvine_protocol::master::AclChange;
use curvine_protocol::{AclEntry, AclScope, AclWho, Error, Result};

/// What the permissions in a mode are, and what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub mode: u32,
    pub acl: Vec<AclEntry>,
}

type Key = (AclScope, AclWho);
type Entries = BTreeMap<Key, u8>;

const SCOPES: [AclScope; 2] = [AclScope::Access, AclScope::Default];
/// What every list has.
const BASE: [AclWho; 3] = [AclWho::Owner, AclWho::Group, AclWho::Other];

/// A list that is being put together.
struct Building {
    /// Without masks.
    entries: Entries,
    masks: BTreeMap<AclScope, u8>,
    /// Scopes that the change is about, and those of whose mask it says something.
    touched: BTreeSet<AclScope>,
    masked: BTreeSet<AclScope>,
}

impl Building {
    fn of(entries: Vec<AclEntry>) -> Building {
        let mut building = Building {
            entries: Entries::new(),
            masks: BTreeMap::new(),
            touched: BTreeSet::new(),
            masked: BTreeSet::new(),
        };
        entries.into_iter().for_each(|entry| building.put(entry));
        building
    }

    fn put(&mut self, entry: AclEntry) {
        match entry.who {
            AclWho::Mask => drop(self.masks.insert(entry.scope, entry.permission)),
            who => drop(self.entries.insert((entry.scope, who), entry.permission)),
        }
    }

    fn touch(&mut self, entry: AclEntry) {
        self.touched.insert(entry.scope);
        if entry.who == AclWho::Mask {
            self.masked.insert(entry.scope);
        }
    }

    fn clear(&mut self, scope: AclScope) {
        self.masks.remove(&scope);
        self.entries.retain(|(of, _), _| *of != scope);
    }

    fn has(&self, scope: AclScope) -> bool {
        self.entries.keys().any(|(of, _)| *of == scope)
    }

    /// A default list takes from the access list what it needs and nobody said.
    fn complete_default(&mut self) {
        if !self.has(AclScope::Default) {
            return;
        }
        for who in BASE {
            if let Some(permission) = self.entries.get(&(AclScope::Access, who)).copied() {
                self.entries.entry((AclScope::Default, who)).or_insert(permission);
            }
        }
    }

    /// Masks that have to be there, or are to be found out anew.
    fn mask(&mut self) -> Result<()> {
        for scope in SCOPES {
            let of_scope = self.entries.iter().filter(|((of, _), _)| *of == scope);
            let (mut is_needed, mut union, mut is_there) = (false, 0, false);
            for ((_, who), permission) in of_scope {
                is_there = true;
                is_needed |= who.is_named();
                if who.is_named() || *who == AclWho::Group {
                    union |= permission;
                }
            }
            let given = self.masks.get(&scope);
            if is_needed && given.is_none() && self.masked.contains(&scope) {
                return Err(invalid("a mask is required where users or groups are named"));
            }
            let is_kept = !self.touched.contains(&scope) || self.masked.contains(&scope);
            let mask = match given {
                Some(given) if is_kept => Some(*given),
                Some(_) => Some(union),
                None => is_needed.then_some(union),
            };
            if let Some(mask) = mask.filter(|_| is_there) {
                self.entries.insert((scope, AclWho::Mask), mask);
            }
        }
        Ok(())
    }

    fn check(&self, is_dir: bool) -> Result<()> {
        for scope in SCOPES {
            check_count(self.entries.keys(), scope)?;
            let is_wanted = scope == AclScope::Access || self.has(scope);
            if is_wanted && BASE.iter().any(|who| !self.entries.contains_key(&(scope, *who))) {
                return Err(invalid(format_args!(
                    "the {} entries for owner, group and others are required",
                    name(scope)
                )));
            }
        }
        if !is_dir && self.has(AclScope::Default) {
            return Err(invalid("only directories may have default entries"));
        }
        Ok(())
    }

    /// The whole list as it is kept: with the permissions of this mode in its place.
    fn kept(self, mode: u32) -> Permissions {
        let access = |who: AclWho| self.entries.get(&(AclScope::Access, who)).copied();
        let group = access(AclWho::Mask).or(access(AclWho::Group));
        let mode = with_classes(
            mode,
            [
                access(AclWho::Owner).unwrap_or(0),
                group.unwrap_or(0),
                access(AclWho::Other).unwrap_or(0),
            ],
        );
        let has_mask = access(AclWho::Mask).is_some();
        let is_beside = |(scope, who): &Key| {
            *scope == AclScope::Default || has_mask && (who.is_named() || *who == AclWho::Group)
        };
        let beside = self.entries.into_iter().filter(|(key, _)| is_beside(key));
        let acl = beside.map(|((scope, who), permission)| AclEntry {
            scope,
            who,
            permission,
        });
        Permissions {
            mode,
            acl: acl.collect(),
        }
    }
}

fn with_classes(mode: u32, [owner, group, other]: [u8; 3]) -> u32 {
    mode & !0o777 | u32::from(owner) << 6 | u32::from(group) << 3 | u32::from(other)
}

fn name(scope: AclScope) -> &'static str {
    match scope {
        AclScope::Access => "access",
        AclScope::Default => "default",
    }
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("no valid ACL: {why}"))
}

fn check_count<'a>(entries: impl Iterator<Item = &'a Key>, scope: AclScope) -> Result<()> {
    let count = entries.filter(|(of, _)| *of == scope).count();
    match count > ACL_ENTRIES_MAX {
        true => Err(invalid(format_args!(
            "{count} {} entries; at most {ACL_ENTRIES_MAX} are allowed",
            name(scope)
        ))),
        false => Ok(()),
    }
}

/// What can be refused of what a caller says, whatever there is.
fn check_said(said: &[AclEntry], once: bool) -> Result<()> {
    let keys: BTreeSet<Key> = said.iter().map(|entry| (entry.scope, entry.who)).collect();
    if once && keys.len() < said.len() {
        return Err(invalid("two entries of the same scope are about the same"));
    }
    let is_nobody =
        |entry: &AclEntry| matches!(entry.who, AclWho::User(u32::MAX) | AclWho::NamedGroup(u32::MAX));
    if said.iter().any(is_nobody) {
        return Err(invalid(format_args!(
            "{} stands for no user and no group",
            u32::MAX
        )));
    }
    if let Some(entry) = said.iter().find(|entry| entry.permission > 7) {
        return Err(invalid(format_args!("{} is no permission", entry.permission)));
    }
    SCOPES
        .iter()
        .try_for_each(|scope| check_count(keys.iter(), *scope))
}

/// What a change makes of the permissions of an inode.
///
/// # Errors
/// `InvalidArgument`, saying why the list cannot be.
pub fn changed(before: &Permissions, is_dir: bool, change: AclChange) -> Result<Permissions> {
    let whole = whole_acl(before.mode, &before.acl);
    let mut building = match change {
        AclChange::Clear => return Ok(cleared(before)),
        AclChange::RemoveDefault => Building::of(
            whole
                .into_iter()
                .filter(|entry| entry.scope == AclScope::Access)
                .collect(),
        ),
        AclChange::Set(said) => {
            check_said(&said, true)?;
            let mut building = Building::of(whole);
            said.iter().for_each(|entry| building.touch(*entry));
            for scope in building.touched.clone() {
                building.clear(scope);
            }
            said.into_iter().for_each(|entry| building.put(entry));
            building
        }
        AclChange::Modify(said) => {
            check_said(&said, true)?;
            let mut building = Building::of(whole);
            for entry in said {
                building.touch(entry);
                building.put(entry);
            }
            building
        }
        AclChange::Remove(said) => {
            check_said(&said, false)?;
            let keys: BTreeSet<Key> = said.iter().map(|entry| (entry.scope, entry.who)).collect();
            let is_said = |entry: &AclEntry| keys.contains(&(entry.scope, entry.who));
            let (gone, left): (Vec<_>, Vec<_>) = whole.into_iter().partition(is_said);
            let mut building = Building::of(left);
            gone.into_iter().for_each(|entry| building.touch(entry));
            building
        }
    };
    building.complete_default();
    building.mask()?;
    building.check(is_dir)?;
    Ok(building.kept(before.mode))
}

/// Without any list, the mode says again what the owning group may do.
fn cleared(before: &Permissions) -> Permissions {
    let is_group = |entry: &&AclEntry| entry.scope == AclScope::Access && entry.who == AclWho::Group;
    let mode = match before.acl.iter().find(is_group) {
        Some(group) => before.mode & !0o070 | u32::from(group.permission) << 3,
        None => before.mode,
    };
    Permissions {
        mode,
        acl: Vec::new(),
    }
}

/// What a new entry of a directory with these entries begins with, if they have default ones. `mode` is what was asked
/// for, without a umask: it limits what the owner, the mask and others get.
pub fn inherited(above: &[AclEntry], mode: u32, is_dir: bool) -> Option<Permissions> {
    let defaults: Vec<AclEntry> = (above.iter().copied())
        .filter(|entry| entry.scope == AclScope::Default)
        .collect();
    if defaults.is_empty() {
        return None;
    }
    let has_mask = defaults.iter().any(|entry| entry.who == AclWho::Mask);
    let limited = |entry: &AclEntry| {
        let shift = match entry.who {
            AclWho::Owner => 6,
            AclWho::Mask => 3,
            AclWho::Group if !has_mask => 3,
            AclWho::Other => 0,
            _ => return AclEntry::access(entry.who, entry.permission),
        };
        let class = ((mode >> shift) & 7) as u8;
        AclEntry::access(entry.who, entry.permission & class)
    };
    let mut building = Building::of(defaults.iter().map(limited).collect());
    let mask = building.masks.remove(&AclScope::Access);
    if let Some(mask) = mask {
        building.entries.insert((AclScope::Access, AclWho::Mask), mask);
    }
    let mut permissions = building.kept(mode);
    if is_dir {
        permissions.acl.extend(defaults);
    }
    Some(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use curvine_protocol::ErrorKind;

    const ALL: u8 = 7;

    fn plain(mode: u32) -> Permissions {
        Permissions {
            mode,
            acl: Vec::new(),
        }
    }

    fn named(users: u32, permission: u8) -> Vec<AclEntry> {
        (1..=users)
            .map(|user| AclEntry::access(AclWho::User(user), permission))
            .collect()
    }

    /// As `getfacl` shows it, `d:` before default entries: `u::7 u:9:6 g::5 m::7 o::0`.
    fn shown(permissions: &Permissions) -> String {
        let line = |entry: &AclEntry| {
            let scope = if entry.scope == AclScope::Default {
                "d:"
            } else {
                ""
            };
            let who = match entry.who {
                AclWho::Owner => "u:".to_owned(),
                AclWho::User(user) => format!("u:{user}"),
                AclWho::Group => "g:".to_owned(),
                AclWho::NamedGroup(group) => format!("g:{group}"),
                AclWho::Mask => "m:".to_owned(),
                AclWho::Other => "o:".to_owned(),
            };
            format!("{scope}{who}:{}", entry.permission)
        };
        let whole = whole_acl(permissions.mode, &permissions.acl);
        whole.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    fn parsed(text: &str) -> Vec<AclEntry> {
        let entry = |word: &str| {
            let (scope, word) = match word.strip_prefix("d:") {
                Some(word) => (AclScope::Default, word),
                None => (AclScope::Access, word),
            };
            let mut fields = word.split(':');
            let (kind, id) = (fields.next().expect("a kind"), fields.next().expect("a name"));
            let permission = fields.next().expect("a permission").parse().expect("a digit");
            let who = match (kind, id) {
                ("u", "") => AclWho::Owner,
                ("u", id) => AclWho::User(id.parse().expect("a number")),
                ("g", "") => AclWho::Group,
                ("g", id) => AclWho::NamedGroup(id.parse().expect("a number")),
                ("m", _) => AclWho::Mask,
                _ => AclWho::Other,
            };
            AclEntry {
                scope,
                who,
                permission,
            }
        };
        text.split_whitespace().map(entry).collect()
    }

    /// Begins with a mode, and makes changes one after another: after each, this is to be seen.
    fn course(mode: u32, is_dir: bool, steps: &[(AclChange, &str)]) {
        let mut now = plain(mode);
        for (change, expected) in steps {
            now = changed(&now, is_dir, change.clone()).unwrap_or_else(|error| panic!("{change:?}: {error}"));
            assert_eq!(shown(&now), *expected, "after {change:?}");
        }
    }

    /// Why a change of a directory with this list is refused.
    fn refused(whole: &str, change: AclChange) -> String {
        let before = changed(&plain(0o750), true, AclChange::Set(parsed(whole))).expect("a valid list");
        let error = changed(&before, true, change).expect_err("must be refused");
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        error.message
    }

    use AclChange::{Clear, Modify, Remove, RemoveDefault, Set};

    #[test]
    fn a_mask_is_what_named_users_and_groups_may_do_together() {
        course(
            0o640,
            false,
            &[
                (Modify(parsed("u:9:1")), "u::6 u:9:1 g::4 m::5 o::0"),
                (Modify(parsed("g:8:2")), "u::6 u:9:1 g::4 g:8:2 m::7 o::0"),
                (Modify(parsed("m::4")), "u::6 u:9:1 g::4 g:8:2 m::4 o::0"),
                (Modify(parsed("o::1")), "u::6 u:9:1 g::4 g:8:2 m::7 o::1"),
                (Remove(parsed("g:8:0")), "u::6 u:9:1 g::4 m::5 o::1"),
                // A mask that was there stays where nobody is named any more.
                (Remove(parsed("u:9:0")), "u::6 g::4 m::4 o::1"),
                (Remove(parsed("m::0")), "u::6 g::4 o::1"),
            ],
        );
    }

    #[test]
    fn a_default_list_takes_from_the_access_list_what_it_lacks() {
        course(
            0o1750,
            true,
            &[
                (
                    Modify(parsed("d:u:9:7")),
                    "u::7 g::5 o::0 d:u::7 d:u:9:7 d:g::5 d:m::7 d:o::0",
                ),
                (
                    Modify(parsed("u:8:6")),
                    "u::7 u:8:6 g::5 m::7 o::0 d:u::7 d:u:9:7 d:g::5 d:m::7 d:o::0",
                ),
                (
                    Set(parsed("d:u::6 d:g::4")),
                    "u::7 u:8:6 g::5 m::7 o::0 d:u::6 d:g::4 d:o::0",
                ),
                (
                    Set(parsed("u::7 g::1 o::4")),
                    "u::7 g::1 o::4 d:u::6 d:g::4 d:o::0",
                ),
                (RemoveDefault, "u::7 g::1 o::4"),
            ],
        );
        let kept = changed(&plain(0o1750), true, Set(parsed("u::6 g::4 o::0"))).expect("a plain list");
        assert_eq!(kept, plain(0o1640));
    }

    #[test]
    fn a_cleared_list_leaves_what_the_owning_group_may_do() {
        course(
            0o750,
            true,
            &[
                (Modify(parsed("u:9:7 g::1 d:u:9:7")), {
                    "u::7 u:9:7 g::1 m::7 o::0 d:u::7 d:u:9:7 d:g::1 d:m::7 d:o::0"
                }),
                (Clear, "u::7 g::1 o::0"),
                (Clear, "u::7 g::1 o::0"),
            ],
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let says = |whole: &str, change: AclChange, why: &str| {
            let message = refused(whole, change);
            assert!(message.contains(why), "{message} does not say `{why}`");
        };
        let plain_list = "u::7 g::5 o::0";
        says(plain_list, Set(parsed("u::7 g::5")), "owner, group and others");
        says(plain_list, Set(parsed("u:9:7")), "owner, group and others");
        says(plain_list, Remove(parsed("u::0")), "owner, group and others");
        says(plain_list, Modify(parsed("u:9:7 u:9:6")), "about the same");
        says(plain_list, Modify(parsed("u:9:8")), "8 is no permission");
        let masked = "u::7 u:9:7 g::5 o::0";
        says(masked, Remove(parsed("m::0")), "a mask is required");
        says(masked, Modify(parsed("u:4294967295:4")), "stands for no user");
        says(plain_list, Modify(named(33, ALL)), "33 access entries");
        // With the owner, the group, the mask and others, 28 are named at most.
        says(plain_list, Modify(named(29, ALL)), "33 access entries");
        assert!(changed(&plain(0o750), true, Modify(named(28, ALL))).is_ok());
        let of_file = changed(&plain(0o640), false, Modify(parsed("d:u:9:7")));
        let why = of_file.expect_err("a file").message;
        assert!(why.contains("only directories"), "{why}");
    }

    #[test]
    fn children_get_what_the_default_list_and_the_mode_allow() {
        let above = |text: &str| {
            changed(&plain(0o750), true, Modify(parsed(text)))
                .expect("a valid list")
                .acl
        };
        let child = |above: &[AclEntry], mode: u32, is_dir: bool| {
            let permissions = inherited(above, mode, is_dir).expect("there are default entries");
            (permissions.mode, shown(&permissions))
        };
        let with_user = above("d:u:9:7");
        assert_eq!(
            child(&with_user, 0o666, false),
            (0o660, "u::6 u:9:7 g::5 m::6 o::0".to_owned())
        );
        assert_eq!(
            child(&with_user, 0o1777, true),
            (
                0o1770,
                "u::7 u:9:7 g::5 m::7 o::0 d:u::7 d:u:9:7 d:g::5 d:m::7 d:o::0".to_owned()
            )
        );
        // Without a mask, the mode limits the group itself, and a file is left with a mode alone.
        let minimal = above("d:u::7 d:g::7 d:o::5");
        assert_eq!(
            child(&minimal, 0o640, false),
            (0o640, "u::6 g::4 o::0".to_owned())
        );
        assert_eq!(
            child(&minimal, 0o750, true),
            (0o750, "u::7 g::5 o::0 d:u::7 d:g::7 d:o::5".to_owned())
        );
        assert_eq!(inherited(&named(1, ALL), 0o666, false), None);
    }
}
