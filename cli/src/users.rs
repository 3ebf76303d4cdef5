//! Names of users and groups, from this machine's `/etc/passwd` and `/etc/group`.

use std::collections::BTreeMap;

use curvine_protocol::{Error, Result};

pub struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    pub fn system() -> Self {
        let read = |path: &str| parse(&std::fs::read_to_string(path).unwrap_or_default());
        Names {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }

    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }

    /// `USER`, `USER:GROUP` or `:GROUP`, by name or number.
    pub fn owner(&self, text: &str) -> Result<(Option<u32>, Option<u32>)> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() && group.is_empty() {
            return Err(Error::invalid(format!(
                "`{text}` names nobody; write USER, USER:GROUP or :GROUP"
            )));
        }
        let uid = (!user.is_empty()).then(|| self.uid(user)).transpose()?;
        let gid = (!group.is_empty()).then(|| self.gid(group)).transpose()?;
        Ok((uid, gid))
    }

    /// The number of a user, by name or number.
    pub fn uid(&self, user: &str) -> Result<u32> {
        find(user, &self.users, "user")
    }

    /// The number of a group, by name or number.
    pub fn gid(&self, group: &str) -> Result<u32> {
        find(group, &self.groups, "group")
    }
}

fn find(name: &str, known: &BTreeMap<u32, String>, what: &str) -> Result<u32> {
    let by_name = || known.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
    name.parse().ok().or_else(by_name).ok_or_else(|| {
        let is_number = name
            .trim_start_matches('-')
            .chars()
            .all(|one| one.is_ascii_digit());
        Error::invalid(match is_number {
            true => format!(
                "`{name}` is the number of no {what}: they go from 0 to {}",
                u32::MAX - 1
            ),
            false => format!("no {what} `{name}` on this machine; give the number instead"),
        })
    })
}

fn parse(text: &str) -> BTreeMap<u32, String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_by_name_and_number() {
        let names = Names {
            users: parse("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"),
            groups: parse("root:x:0:\nstaff:x:50:ann\n"),
        };
        assert_eq!(names.owner("ann:staff"), Ok((Some(1000), Some(50))));
        assert_eq!(names.owner("7"), Ok((Some(7), None)));
        assert_eq!(names.owner(":staff"), Ok((None, Some(50))));
        assert!(
            names
                .owner("nobody-here")
                .is_err_and(|e| e.message.contains("nobody-here"))
        );
        assert_eq!(names.user(1000), "ann");
        assert_eq!(names.group(51), "51");
    }
}
