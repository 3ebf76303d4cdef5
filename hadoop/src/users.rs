//! Names of users and groups, from this machine's `/etc/passwd` and `/etc/group`. Hadoop knows names, Curvine numbers.

use std::collections::BTreeMap;

use curvine_protocol::{Error, Result};

pub struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
    /// The first group of each user.
    first_groups: BTreeMap<u32, u32>,
}

impl Names {
    pub fn system() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let entries = |text: &str| -> BTreeMap<u32, String> {
            let entry = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((fields.nth(1)?.parse().ok()?, name))
            };
            text.lines().filter_map(entry).collect()
        };
        let first_group = |line: &str| {
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        Names {
            users: entries(passwd),
            groups: entries(group),
            first_groups: passwd.lines().filter_map(first_group).collect(),
        }
    }

    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }

    pub fn uid(&self, user: &str) -> Result<u32> {
        find(user, &self.users, "user")
    }

    pub fn gid(&self, group: &str) -> Result<u32> {
        find(group, &self.groups, "group")
    }

    /// The number of a user, and of the group that new files of theirs get.
    pub fn ids(&self, user: &str) -> Result<(u32, u32)> {
        let uid = self.uid(user)?;
        Ok((uid, self.first_groups.get(&uid).copied().unwrap_or(uid)))
    }
}

fn find(name: &str, known: &BTreeMap<u32, String>, what: &str) -> Result<u32> {
    let by_name = || known.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
    name.parse().ok().or_else(by_name).ok_or_else(|| {
        Error::invalid(format!(
            "no {what} `{name}` in this machine's /etc/passwd and /etc/group; add it, or give the number instead"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let names = Names::parse(
            "root:x:0:0::/root:\nann:x:1000:50::/home/ann:\n",
            "root:x:0:\nstaff:x:50:\n",
        );
        assert_eq!(names.ids("ann"), Ok((1000, 50)));
        assert_eq!(names.ids("7"), Ok((7, 7)));
        assert_eq!(names.gid("staff"), Ok(50));
        assert_eq!(
            (names.user(1000), names.group(51)),
            ("ann".to_owned(), "51".to_owned())
        );
        let refused = names.uid("spark").expect_err("there is none");
        assert!(refused.message.contains("no user `spark`"), "{refused}");
    }
}
