use curvine_protocol::master::{Quota, QuotaLimits};
use curvine_protocol::{CurvinePath, Node, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Limit what directories may hold
///
/// JSON: an object a line with path, limits, used, warned.
#[derive(clap::Args)]
#[command(after_help = "Example: cv quota set /home/ann --bytes 1099511627776 --inodes 1000000")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set or change the quota of a directory that is in no mount; what is not said is not limited
    Set {
        path: String,
        /// Sum of the sizes of all files
        #[arg(long)]
        bytes: Option<u64>,
        /// Files, directories and links
        #[arg(long)]
        inodes: Option<u64>,
        /// Warn above this
        #[arg(long)]
        soft_bytes: Option<u64>,
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
                let limits = QuotaLimits {
                    bytes,
                    inodes,
                    soft_bytes,
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
    let Quota { path, limits, used } = quota;
    let value = json!({"path": path, "limits": limits, "used": used, "warned": quota.is_warned()});
    shell.answer(&value, || {
        let of = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
        let warning = match quota.is_warned() {
            true => "; above its soft limit",
            false => "",
        };
        format!(
            "{}: {} bytes of {} (soft: {}), {} inodes of {}{warning}",
            format::shown(path.as_str()),
            used.bytes,
            of(limits.bytes),
            of(limits.soft_bytes),
            used.inodes,
            of(limits.inodes),
        )
    });
}
