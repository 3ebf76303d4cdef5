use curvine_protocol::acl::{AclScope, AclWho, whole_acl};
use curvine_protocol::master::{AclChange, AclOf};
use curvine_protocol::{AclEntry, Error, Result};
use futures::TryStreamExt;
use serde_json::json;

use crate::format;
use crate::shell::Shell;
use crate::users::Names;

/// Show and change access control lists
///
/// They are kept, inherited and shown as HDFS does it; nobody is refused anything by them. JSON: an object a line with
/// path, uid, gid, mode, entries.
#[derive(clap::Args)]
#[command(after_help = "Entries are written as for setfacl, with commas between them: user:ann:rwx, group::r-x, mask::r-x,\n\
    default:group:staff:rx, d:o::-\n\nExample: cv acl modify user:ann:rwx,default:user:ann:rwx /data")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show lists, with what the modes say
    Get {
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<String>,
    },
    /// Add entries, or put them in the place of those about the same
    Modify(Change),
    /// Put entries in the place of all others of their kind, access or default
    Set(Change),
    /// Take entries away, whatever they permit: user:ann, default:mask
    Remove(Change),
    /// Take away all entries
    Clear {
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<String>,
        /// Those alone that new entries of a directory inherit
        #[arg(long)]
        default: bool,
        /// Everything below, too
        #[arg(short = 'R', long)]
        recursive: bool,
    },
}

#[derive(clap::Args)]
struct Change {
    entries: String,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Everything below, too; default entries are for directories alone
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let names = &Names::system();
        let (paths, recursive, change) = match self.action {
            Action::Get { paths } => {
                shell
                    .each(&paths, async |path| {
                        show(shell, path.as_str(), &shell.client.acl(&path).await?, names);
                        Ok(())
                    })
                    .await;
                return Ok(());
            }
            Action::Modify(said) => (
                said.paths,
                said.recursive,
                AclChange::Modify(parse(&said.entries, names, true)?),
            ),
            Action::Set(said) => (
                said.paths,
                said.recursive,
                AclChange::Set(parse(&said.entries, names, true)?),
            ),
            Action::Remove(said) => (
                said.paths,
                said.recursive,
                AclChange::Remove(parse(&said.entries, names, false)?),
            ),
            Action::Clear {
                paths,
                default: true,
                recursive,
            } => (paths, recursive, AclChange::RemoveDefault),
            Action::Clear { paths, recursive, .. } => (paths, recursive, AclChange::Clear),
        };
        shell
            .each(&paths, async |path| {
                let attr = shell.client.change_acl(&path, change.clone()).await?;
                if recursive && attr.is_dir() {
                    let mut below = std::pin::pin!(shell.client.walk(&path));
                    while let Some((path, entry)) = below.try_next().await? {
                        let change = match entry.attr.is_dir() {
                            true => Some(change.clone()),
                            false => of_file(&change).filter(|_| entry.attr.is_file()),
                        };
                        if let Some(change) = change {
                            shell.client.change_acl(&path, change).await?;
                        }
                    }
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}

/// What of a change is for files; none if nothing is.
fn of_file(change: &AclChange) -> Option<AclChange> {
    let access = |entries: &[AclEntry]| {
        let of_scope = entries.iter().filter(|entry| entry.scope == AclScope::Access);
        let entries: Vec<AclEntry> = of_scope.copied().collect();
        (!entries.is_empty()).then_some(entries)
    };
    match change {
        AclChange::Set(entries) => access(entries).map(AclChange::Set),
        AclChange::Modify(entries) => access(entries).map(AclChange::Modify),
        AclChange::Remove(entries) => access(entries).map(AclChange::Remove),
        AclChange::RemoveDefault => None,
        AclChange::Clear => Some(AclChange::Clear),
    }
}

/// Reads entries as `setfacl` has them.
fn parse(text: &str, names: &Names, with_permission: bool) -> Result<Vec<AclEntry>> {
    text.split(',')
        .map(|entry| parse_one(entry, names, with_permission))
        .collect()
}

fn parse_one(text: &str, names: &Names, with_permission: bool) -> Result<AclEntry> {
    let wrong = || {
        let form = match with_permission {
            true => "user:NAME:rwx, group::r-x, mask::r-x, other::- or default:user:NAME:rwx",
            false => "user:NAME, group:NAME, mask or default:user:NAME",
        };
        Error::invalid(format!("`{text}` is no entry of an access control list; write {form}"))
    };
    let mut fields: Vec<&str> = text.trim().split(':').collect();
    let scope = match fields[0] {
        "default" | "d" => {
            fields.remove(0);
            AclScope::Default
        }
        _ => AclScope::Access,
    };
    let permission = match with_permission {
        true => fields.pop().and_then(permission).ok_or_else(wrong)?,
        false => 0,
    };
    if fields.is_empty() || fields.len() > 2 {
        return Err(wrong());
    }
    let name = fields.get(1).copied().unwrap_or_default();
    let who = match (fields[0], name) {
        ("user" | "u", "") => AclWho::Owner,
        ("user" | "u", name) => AclWho::User(names.uid(name)?),
        ("group" | "g", "") => AclWho::Group,
        ("group" | "g", name) => AclWho::NamedGroup(names.gid(name)?),
        ("mask" | "m", "") => AclWho::Mask,
        ("other" | "o", "") => AclWho::Other,
        _ => return Err(wrong()),
    };
    Ok(AclEntry {
        scope,
        who,
        permission,
    })
}

/// `rwx`, `r-x`, `rx`, `-` or a digit.
fn permission(text: &str) -> Option<u8> {
    if let Ok(digit) = text.parse::<u8>() {
        return (digit <= 7).then_some(digit);
    }
    if text.is_empty() {
        return None;
    }
    text.chars().try_fold(0, |all, right| match right {
        'r' => Some(all | 4),
        'w' => Some(all | 2),
        'x' => Some(all | 1),
        '-' => Some(all),
        _ => None,
    })
}

fn rights(permission: u8) -> String {
    let right = |bit: u8, letter: char| if permission & bit != 0 { letter } else { '-' };
    [right(4, 'r'), right(2, 'w'), right(1, 'x')].into_iter().collect()
}

/// `default:user:ann:rwx`.
fn written(entry: &AclEntry, names: &Names) -> String {
    let scope = match entry.scope {
        AclScope::Access => "",
        AclScope::Default => "default:",
    };
    let who = match entry.who {
        AclWho::Owner => "user:".to_owned(),
        AclWho::User(uid) => format!("user:{}", names.user(uid)),
        AclWho::Group => "group:".to_owned(),
        AclWho::NamedGroup(gid) => format!("group:{}", names.group(gid)),
        AclWho::Mask => "mask:".to_owned(),
        AclWho::Other => "other:".to_owned(),
    };
    format!("{scope}{who}:{}", rights(entry.permission))
}

fn show(shell: &Shell, path: &str, found: &AclOf, names: &Names) {
    let attr = &found.attr;
    let whole = whole_acl(attr.mode, &found.entries);
    let entries: Vec<String> = whole.iter().map(|entry| written(entry, names)).collect();
    let value = json!({
        "path": path, "uid": attr.uid, "gid": attr.gid, "mode": format!("{:04o}", attr.mode), "entries": entries,
    });
    shell.answer(&value, || {
        format!(
            "# file: {}\n# owner: {}\n# group: {}\n{}",
            format::shown(path),
            names.user(attr.uid),
            names.group(attr.gid),
            entries.join("\n")
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        let names = &Names::system();
        for (text, entry) in [
            ("user::rwx", AclEntry::access(AclWho::Owner, 7)),
            ("u:1234567:r-x", AclEntry::access(AclWho::User(1_234_567), 5)),
            ("group:7654321:w", AclEntry::access(AclWho::NamedGroup(7_654_321), 2)),
            ("m::6", AclEntry::access(AclWho::Mask, 6)),
            ("d:o::-", AclEntry::default(AclWho::Other, 0)),
            ("default:g::rx", AclEntry::default(AclWho::Group, 5)),
        ] {
            assert_eq!(parse_one(text, names, true), Ok(entry), "{text}");
            assert_eq!(parse_one(&written(&entry, names), names, true), Ok(entry), "{text}");
        }
        let removed = parse("u:1234567,d:m", names, false);
        let expected = [
            AclEntry::access(AclWho::User(1_234_567), 0),
            AclEntry::default(AclWho::Mask, 0),
        ];
        assert_eq!(removed, Ok(expected.to_vec()));
    }

    #[test]
    fn what_is_no_entry_is_wrong_use() {
        let names = &Names::system();
        for text in ["", "user", "u::", "u::8", "u::rwz", "m:ann:r", "x::r", "d", "u:a:b:r", "u:no-such-user:r"] {
            let error = parse_one(text, names, true).expect_err(text);
            assert_eq!(error.kind, curvine_protocol::ErrorKind::InvalidArgument, "{text}");
        }
    }
}
