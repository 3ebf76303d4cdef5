use curvine_conf::Size;
use curvine_protocol::master::{Quota, QuotaLimits};
use curvine_protocol::{CurvinePath, Node, Result};
use serde_json::json;

use crate::format;
use crate::shell::{Shell, usage};

/// Limit what directories may hold
///
/// What would pass a limit fails with EDQUOT. JSON: an object a line with path, limits, used, counted, warned.
#[derive(clap::Args)]
#[command(after_help = "Example: cv quota set /home/ann --bytes 1TiB --inodes 1000000")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set or change the quota of a directory that is in no mount; what is not said is not limited
    Set {
        path: String,
        /// Sum of the sizes of all files: 500GB, 1TiB
        #[arg(long, value_name = "SIZE")]
        bytes: Option<Size>,
        /// Files, directories and links
        #[arg(long, value_name = "N")]
        inodes: Option<u64>,
        /// Only say so above this
        #[arg(long, value_name = "SIZE")]
        soft_bytes: Option<Size>,
    },
    /// Show the quota of a directory, and what it holds
    Get { path: String },
    /// Take the quota of a directory away
    Clear { path: String },
    /// Show all quotas
    Ls,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let node = |path: String| CurvinePath::parse(&path).map(Node::from);
        let quotas = match self.action {
            Action::Set {
                path,
                bytes,
                inodes,
                soft_bytes,
            } => {
                if bytes.is_none() && inodes.is_none() && soft_bytes.is_none() {
                    return Err(usage(
                        "say what to limit: --bytes SIZE, --inodes N, --soft-bytes SIZE; `cv quota clear` takes a quota away",
                    ));
                }
                let limits = QuotaLimits {
                    bytes: bytes.map(|size| size.0),
                    inodes,
                    soft_bytes: soft_bytes.map(|size| size.0),
                };
                let node = node(path)?;
                shell.client.set_quota(node.clone(), Some(limits)).await?;
                shell.client.quotas(Some(node)).await?
            }
            Action::Get { path } => shell.client.quotas(Some(node(path)?)).await?,
            Action::Clear { path } => return shell.client.set_quota(node(path)?, None).await,
            Action::Ls => shell.client.quotas(None).await?,
        };
        for quota in quotas {
            show(shell, &quota);
        }
        Ok(())
    }
}

fn show(shell: &Shell, quota: &Quota) {
    let Quota {
        path,
        limits,
        used,
        is_counted,
    } = quota;
    let value = json!({
        "path": path, "limits": limits, "used": used, "counted": is_counted, "warned": quota.is_warned(),
    });
    shell.answer(&value, || {
        let bytes = |limit: Option<u64>| limit.map_or("any".to_owned(), |limit| format::size(limit, true));
        let inodes = limits.inodes.map_or("any".to_owned(), |limit| limit.to_string());
        let soft = limits.soft_bytes.map_or_else(String::new, |limit| {
            let passed = if quota.is_warned() { ", passed" } else { "" };
            format!(" (soft: {}{passed})", format::size(limit, true))
        });
        let counting = match is_counted {
            true => "",
            false => "; what was there before is being counted, and nothing is refused until then",
        };
        format!(
            "{}: {} of {} bytes{soft}, {} of {inodes} inodes{counting}",
            format::shown(path.as_str()),
            format::size(used.bytes, true),
            bytes(limits.bytes),
            used.inodes,
        )
    });
}
