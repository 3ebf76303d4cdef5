use curvine_protocol::Result;

use crate::format;
use crate::shell::Shell;

/// Show the space of the cluster, by tier
///
/// Cached bytes are used, and available all the same: they go when something else needs the room.
///
/// JSON: capacity_bytes, used_bytes, cached_bytes, available_bytes, inodes, tiers.
#[derive(clap::Args)]
#[command(disable_help_flag = true, after_help = "Example: cv df -h")]
pub struct Args {
    /// Sizes for people: 1.5K, 3G
    #[arg(short, long)]
    human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let stats = shell.client.statfs().await?;
        shell.answer(&stats, || {
            let row = |name: &str, capacity: u64, used: u64, cached: u64, available: u64| {
                let kept = used.saturating_sub(cached);
                let percent = match kept + available {
                    0 => "-".to_owned(),
                    whole => format!("{}%", (kept * 100).div_ceil(whole)),
                };
                let size = |bytes| format::size(bytes, self.human_readable);
                vec![
                    name.to_owned(),
                    size(capacity),
                    size(used),
                    size(cached),
                    size(available),
                    percent,
                ]
            };
            let mut rows: Vec<_> = stats
                .tiers
                .iter()
                .map(|(name, tier)| {
                    row(
                        name,
                        tier.capacity_bytes,
                        tier.used_bytes,
                        tier.cached_bytes,
                        tier.available_bytes,
                    )
                })
                .collect();
            rows.push(row(
                "total",
                stats.capacity_bytes,
                stats.used_bytes,
                stats.cached_bytes,
                stats.available_bytes,
            ));
            let table = format::table(&["Tier", ">Size", ">Used", ">Cached", ">Available", ">Use"], rows);
            let of_memory = match stats.tiers.contains_key("MEM") {
                true => "\nMEM takes cached blocks and copies; what is written needs room in another tier",
                false => "",
            };
            format!("{table}{of_memory}\n{} files and directories", stats.inodes)
        });
        Ok(())
    }
}
