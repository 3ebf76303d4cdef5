//! Access control lists, as HDFS and POSIX 1003.1e have them.
//!
//! The permissions of the owner, of the mask and of others are those of the mode: where a list has a mask, it is in the
//! mode's bits of the group, so that `chmod` changes it. What the owning group itself may do is then an entry of its own.

use serde::{Deserialize, Serialize};

/// Most entries of each scope, as HDFS has it.
pub const ACL_ENTRIES_MAX: usize = 32;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclScope {
    /// Who may do what with the inode itself.
    Access,
    /// Of a directory: what new entries of it begin with.
    Default,
}

/// Whom an entry is about. In the order in which entries are kept and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AclWho {
    /// The user that owns the inode.
    Owner,
    User(u32),
    /// The group that owns the inode.
    Group,
    NamedGroup(u32),
    /// The most that named users and any group may do.
    Mask,
    Other,
}

impl AclWho {
    /// Whether it is a user or a group by number.
    pub fn is_named(self) -> bool {
        matches!(self, AclWho::User(_) | AclWho::NamedGroup(_))
    }
}

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AclEntry {
    pub scope: AclScope,
    pub who: AclWho,
    /// `rwx` as in a mode: 4 reads, 2 writes, 1 executes or enters; 7 at most.
    pub permission: u8,
}

impl AclEntry {
    /// An entry of the inode's own list.
    pub fn access(who: AclWho, permission: u8) -> Self {
        AclEntry {
            scope: AclScope::Access,
            who,
            permission,
        }
    }

    /// An entry of what children begin with.
    pub fn default(who: AclWho, permission: u8) -> Self {
        AclEntry {
            scope: AclScope::Default,
            who,
            permission,
        }
    }
}

/// What the maker of an inode wants its mode to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedMode {
    /// Permission bits, `0o7777` at most, with the umask taken off.
    pub masked: u32,
    /// Without that, where it is known: the default list of a directory takes the umask's place.
    pub unmasked: Option<u32>,
}

impl WantedMode {
    /// What a program asks for whose umask is this.
    pub fn with_umask(mode: u32, umask: u32) -> Self {
        WantedMode {
            masked: mode & !umask,
            unmasked: Some(mode),
        }
    }
}

/// Without any umask.
impl From<u32> for WantedMode {
    fn from(mode: u32) -> Self {
        WantedMode {
            masked: mode,
            unmasked: None,
        }
    }
}

/// One of the three classes of a mode: 6 for the owner, 3 for the group, 0 for others; `rwx` as in an entry.
pub fn class_of(mode: u32, shift: u32) -> u8 {
    ((mode >> shift) & 7) as u8
}

/// The whole list of an inode, in order: what its mode says, and the entries that are kept beside it.
pub fn whole_acl(mode: u32, kept: &[AclEntry]) -> Vec<AclEntry> {
    let has_mask = kept.iter().any(|entry| entry.scope == AclScope::Access);
    let of_group_bits = match has_mask {
        true => AclWho::Mask,
        false => AclWho::Group,
    };
    let of_mode = [(AclWho::Owner, 6), (of_group_bits, 3), (AclWho::Other, 0)];
    let mut whole = kept.to_vec();
    whole.extend(of_mode.map(|(who, shift)| AclEntry::access(who, class_of(mode, shift))));
    whole.sort_unstable();
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_bits_of_the_mode_are_the_mask_where_there_is_one() {
        let entry = AclEntry::access;
        let plain = [
            entry(AclWho::Owner, 7),
            entry(AclWho::Group, 5),
            entry(AclWho::Other, 4),
        ];
        assert_eq!(whole_acl(0o1754, &[]), plain);
        let default = [AclEntry::default(AclWho::Owner, 7)];
        assert_eq!(whole_acl(0o754, &default), [&plain[..], &default].concat());
        let kept = [entry(AclWho::User(9), 6), entry(AclWho::Group, 0)];
        let whole = [
            entry(AclWho::Owner, 7),
            entry(AclWho::User(9), 6),
            entry(AclWho::Group, 0),
            entry(AclWho::Mask, 5),
            entry(AclWho::Other, 4),
        ];
        assert_eq!(whole_acl(0o754, &kept), whole);
    }
}
