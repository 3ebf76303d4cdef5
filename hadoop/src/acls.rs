//! Access control lists as Java has them: users and groups by their names. The Java side is `io.curvine.Acls`.

use curvine_protocol::master::{AclChange, AclOf};
use curvine_protocol::{AclEntry, AclScope, AclWho, Error, Result};

use crate::users::Names;
use crate::wire::{Reply, Request};

const USER: u8 = 0;
const GROUP: u8 = 1;
const MASK: u8 = 2;
const OTHER: u8 = 3;

/// Reads what becomes of a list.
pub fn change(request: &mut Request<'_>, names: &Names) -> Result<AclChange> {
    let how = request.byte()?;
    let entries = (0..request.int()?).map(|_| entry(request, names));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    match how {
        0 => Ok(AclChange::Set(entries)),
        1 => Ok(AclChange::Modify(entries)),
        2 => Ok(AclChange::Remove(entries)),
        3 => Ok(AclChange::RemoveDefault),
        4 => Ok(AclChange::Clear),
        _ => Err(Error::internal(format!("no change of a list is {how}"))),
    }
}

fn entry(request: &mut Request<'_>, names: &Names) -> Result<AclEntry> {
    let scope = match request.flag()? {
        true => AclScope::Default,
        false => AclScope::Access,
    };
    let (kind, name) = (request.byte()?, request.text_if_any()?);
    let who = match (kind, name) {
        (USER, None) => AclWho::Owner,
        (USER, Some(name)) => AclWho::User(names.uid(name)?),
        (GROUP, None) => AclWho::Group,
        (GROUP, Some(name)) => AclWho::NamedGroup(names.gid(name)?),
        (MASK, None) => AclWho::Mask,
        (OTHER, None) => AclWho::Other,
        (_, name) => {
            let name = name.unwrap_or_default();
            return Err(Error::invalid(format!(
                "no valid ACL: an entry for a mask or for others has no name, not `{name}`"
            )));
        }
    };
    let permission = request.byte()?;
    Ok(AclEntry {
        scope,
        who,
        permission,
    })
}

/// Writes a list: the mode, the names of owner and group, and the entries beside the mode in the order of HDFS, which is that
/// of their names.
pub fn show(reply: &mut Reply, found: &AclOf, names: &Names) {
    reply.int(found.attr.mode);
    reply.text(&names.user(found.attr.uid));
    reply.text(&names.group(found.attr.gid));
    let named = |entry: &AclEntry| {
        let (kind, name) = match entry.who {
            AclWho::Owner => (USER, String::new()),
            AclWho::User(uid) => (USER, names.user(uid)),
            AclWho::Group => (GROUP, String::new()),
            AclWho::NamedGroup(gid) => (GROUP, names.group(gid)),
            AclWho::Mask => (MASK, String::new()),
            AclWho::Other => (OTHER, String::new()),
        };
        (entry.scope, kind, name, entry.permission)
    };
    let mut entries: Vec<_> = found.entries.iter().map(named).collect();
    entries.sort();
    reply.length(entries.len());
    for (scope, kind, name, permission) in entries {
        reply.byte(u8::from(scope == AclScope::Default));
        reply.byte(kind);
        reply.text(&name);
        reply.byte(permission);
    }
}
