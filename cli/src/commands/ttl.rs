use std::time::Duration;

use clap::ValueEnum;
use curvine_conf::Span;
use curvine_protocol::master::{Ttl, TtlAction, TtlFrom, TtlInfo};
use curvine_protocol::{CurvinePath, Node, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Free or delete files when their time is over
///
/// A rule on a directory is for all files below it, also those to come; the nearest rule above a file counts. Directories
/// stay. What is open waits. JSON: an object a line with path, after_ms, action, from, known, due_ns.
#[derive(clap::Args)]
#[command(after_help = "Example: cv ttl set /scratch --after 30d --action delete")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set or change the rule of a directory, a mount or a file
    Set {
        path: String,
        /// How long files live: 12h, 30d, 1year
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        after: Span,
        /// What happens then: `free` lets go of cached blocks, each time anew; `delete` removes the file, and in a
        /// mount its object
        #[arg(long)]
        action: What,
        /// Count from when a file was changed last, or also from when it was opened or closed last
        #[arg(long, default_value = "modification")]
        from: From,
    },
    /// Show the rule by which a path goes, and when a file is due
    Get { path: String },
    /// Take away the rule that a path has itself
    Clear { path: String },
    /// Show all rules
    Ls,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Free,
    Delete,
}

#[derive(Clone, Copy, ValueEnum)]
enum From {
    Modification,
    Access,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let node = |path: String| CurvinePath::parse(&path).map(Node::from);
        let ttls = match self.action {
            Action::Set {
                path,
                after,
                action,
                from,
            } => {
                let ttl = Ttl {
                    after_ms: u64::try_from(after.0.as_millis()).unwrap_or(u64::MAX),
                    action: match action {
                        What::Free => TtlAction::Free,
                        What::Delete => TtlAction::Delete,
                    },
                    from: match from {
                        From::Modification => TtlFrom::Modification,
                        From::Access => TtlFrom::Access,
                    },
                };
                let node = node(path)?;
                shell.client.set_ttl(node.clone(), Some(ttl)).await?;
                shell.client.ttls(Some(node)).await?
            }
            Action::Get { path } => shell.client.ttls(Some(node(path)?)).await?,
            Action::Clear { path } => return shell.client.set_ttl(node(path)?, None).await,
            Action::Ls => shell.client.ttls(None).await?,
        };
        for ttl in ttls {
            show(shell, &ttl);
        }
        Ok(())
    }
}

fn show(shell: &Shell, info: &TtlInfo) {
    let TtlInfo {
        path,
        ttl,
        is_known,
        due_ns,
    } = info;
    let action = match ttl.action {
        TtlAction::Free => "free",
        TtlAction::Delete => "delete",
    };
    let from = match ttl.from {
        TtlFrom::Modification => "modification",
        TtlFrom::Access => "access",
    };
    let value = json!({
        "path": path, "after_ms": ttl.after_ms, "action": action, "from": from, "known": is_known, "due_ns": due_ns,
    });
    shell.answer(&value, || {
        let done = match ttl.action {
            TtlAction::Free => "freed",
            TtlAction::Delete => "deleted",
        };
        let after = span(ttl.after_ms);
        let due = due_ns.map_or_else(String::new, |due_ns| {
            format!("; this file is due at {}", format::second(due_ns))
        });
        let looking = match is_known {
            true => "",
            false => "; what was there before is being looked up",
        };
        format!(
            "{}: files are {done} {after} after their last {from}{due}{looking}",
            format::shown(path.as_str()),
        )
    });
}

/// Whole days as such: months and years have no fixed length for people.
fn span(ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    match ms % DAY_MS {
        0 => format!("{}d", ms / DAY_MS),
        _ => humantime::format_duration(Duration::from_millis(ms)).to_string(),
    }
}
