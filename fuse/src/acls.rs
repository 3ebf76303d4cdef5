//! Access control lists as the kernel has them: the extended attributes `system.posix_acl_access` and
//! `system.posix_acl_default`. Pure.
//!
//! A value is a version (2), and for each entry a tag, its permission (both of two bytes) and a number of four bytes; all
//! little endian.

use curvine_protocol::{AclEntry, AclScope, AclWho};

use crate::convert::{Refusal, Result};

const VERSION: u32 = 2;
const HEAD_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Of an entry that is about nobody by number.
const NO_ID: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The extended attributes, by what they are of.
const NAMES: [(AclScope, &str); 2] = [
    (AclScope::Access, "system.posix_acl_access"),
    (AclScope::Default, "system.posix_acl_default"),
];

/// Which list an extended attribute is, if it is one.
pub fn scope_of(name: &str) -> Option<AclScope> {
    let found = NAMES.iter().find(|(_, known)| *known == name);
    found.map(|(scope, _)| *scope)
}

/// The names of the lists that are there.
pub fn names(kept: &[AclEntry]) -> impl Iterator<Item = &'static str> {
    let is_there = |scope: AclScope| kept.iter().any(|entry| entry.scope == scope);
    NAMES
        .into_iter()
        .filter(move |(scope, _)| is_there(*scope))
        .map(|(_, name)| name)
}

/// The value of one list out of the whole.
pub fn encode(whole: &[AclEntry], scope: AclScope) -> Vec<u8> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in whole.iter().filter(|entry| entry.scope == scope) {
        let (tag, id) = match entry.who {
            AclWho::Owner => (OWNER, NO_ID),
            AclWho::User(uid) => (USER, uid),
            AclWho::Group => (GROUP, NO_ID),
            AclWho::NamedGroup(gid) => (NAMED_GROUP, gid),
            AclWho::Mask => (MASK, NO_ID),
            AclWho::Other => (OTHER, NO_ID),
        };
        value.extend(tag.to_le_bytes());
        value.extend(u16::from(entry.permission).to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// The entries of a value.
///
/// # Errors
/// `EINVAL` for what is no list.
pub fn decode(value: &[u8], scope: AclScope) -> Result<Vec<AclEntry>> {
    let invalid = || Refusal::of(libc::EINVAL);
    let (version, entries) = value.split_first_chunk::<HEAD_BYTES>().ok_or_else(invalid)?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return Err(invalid());
    }
    let entry = |bytes: &[u8]| -> Result<AclEntry> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let who = match number(0) {
            OWNER => AclWho::Owner,
            USER => AclWho::User(id),
            GROUP => AclWho::Group,
            NAMED_GROUP => AclWho::NamedGroup(id),
            MASK => AclWho::Mask,
            OTHER => AclWho::Other,
            _ => return Err(invalid()),
        };
        let permission = u8::try_from(number(2)).map_err(|_| invalid())?;
        Ok(AclEntry {
            scope,
            who,
            permission,
        })
    };
    entries.chunks_exact(ENTRY_BYTES).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_written_as_the_kernel_has_it_and_read_again() {
        let whole = [
            AclEntry::access(AclWho::Owner, 7),
            AclEntry::access(AclWho::User(1000), 6),
            AclEntry::access(AclWho::Group, 5),
            AclEntry::access(AclWho::Mask, 7),
            AclEntry::access(AclWho::Other, 0),
            AclEntry::default(AclWho::NamedGroup(258), 4),
        ];
        let value = encode(&whole, AclScope::Access);
        let bytes =
            "02000000 01000700ffffffff 02000600e8030000 04000500ffffffff 10000700ffffffff 20000000ffffffff";
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, bytes.replace(' ', ""));
        assert_eq!(decode(&value, AclScope::Access).ok(), Some(whole[..5].to_vec()));
        let value = encode(&whole, AclScope::Default);
        assert_eq!(decode(&value, AclScope::Default).ok(), Some(whole[5..].to_vec()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for value in [
            &b""[..],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 1],
            &[2, 0, 0, 0, 3, 0, 7, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0],
        ] {
            let errno = decode(value, AclScope::Access).map_err(|refusal| refusal.errno);
            assert_eq!(errno, Err(libc::EINVAL), "{value:?}");
        }
    }

    #[test]
    fn lists_that_are_there_have_their_names() {
        let of_user = AclEntry::access(AclWho::User(9), 6);
        assert_eq!(names(&[of_user]).collect::<Vec<_>>(), ["system.posix_acl_access"]);
        assert_eq!(names(&[]).count(), 0);
        assert_eq!(scope_of("system.posix_acl_default"), Some(AclScope::Default));
        assert_eq!(scope_of("user.acl"), None);
    }
}
