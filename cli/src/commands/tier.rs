use clap::ValueEnum;
use curvine_protocol::cluster::Tier;
use curvine_protocol::master::TierRule;
use curvine_protocol::{CurvinePath, Node, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Say in which tier blocks are to be
///
/// A rule on a directory is for all files below it, also those to come; the nearest rule above a file counts. Blocks go to
/// that tier where a worker has it and it has room, else to a slower one. What is there already moves when it is read,
/// written or loaded next. Without a rule, blocks go up when they are hot and down when they are cold. JSON: an object a
/// line with path, tier.
#[derive(clap::Args)]
#[command(after_help = "Example: cv tier set /archive hdd")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Set or change the rule of a directory, a mount or a file
    Set { path: String, tier: TierName },
    /// Show the rule by which a path goes
    Get { path: String },
    /// Take away the rule that a path has itself
    Clear { path: String },
    /// Show all rules
    Ls,
}

/// As people write it.
#[derive(Clone, Copy, ValueEnum)]
pub enum TierName {
    Mem,
    Ssd,
    Hdd,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Mem => Tier::Mem,
            TierName::Ssd => Tier::Ssd,
            TierName::Hdd => Tier::Hdd,
        }
    }
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let node = |path: String| CurvinePath::parse(&path).map(Node::from);
        let rules = match self.action {
            Action::Set { path, tier } => {
                let node = node(path)?;
                shell.client.set_tier(node.clone(), Some(tier.into())).await?;
                shell.client.tier_rules(Some(node)).await?
            }
            Action::Get { path } => shell.client.tier_rules(Some(node(path)?)).await?,
            Action::Clear { path } => return shell.client.set_tier(node(path)?, None).await,
            Action::Ls => shell.client.tier_rules(None).await?,
        };
        for TierRule { path, tier } in rules {
            let value = json!({ "path": path, "tier": tier.to_string() });
            let kept = match tier {
                Tier::Mem => "; of what is nowhere else, MEM has copies only",
                Tier::Ssd | Tier::Hdd => "",
            };
            shell.answer(&value, || {
                format!("{}: blocks are to be in {tier}{kept}", format::shown(path.as_str()))
            });
        }
        Ok(())
    }
}
