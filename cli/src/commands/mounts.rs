use std::time::Duration;

use curvine_protocol::Result;
use curvine_protocol::mount::{HiddenKeys, MountInfo};

use crate::format;
use crate::shell::Shell;

/// List mounts
///
/// Keys whose names cannot be those of files are not shown below a mount, and left alone; with --verbose it is said how many
/// there are, and why, in the directories that were listed so far.
///
/// JSON: an object a line with id, path, uri, options (secrets as ***), settings, created_ns, hidden.
#[derive(clap::Args)]
#[command(after_help = "Example: cv mounts --verbose")]
pub struct Args {
    /// Also what is not shown
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let mounts = shell.client.mounts().await?;
        if shell.json {
            mounts.iter().for_each(|mount| shell.json_line(mount));
        } else if mounts.is_empty() {
            shell.line("nothing is mounted; try: cv mount file:///DIR /data");
        } else {
            let row = |mount: &MountInfo| {
                let access = if mount.settings.writable {
                    "write"
                } else {
                    "read"
                };
                let staleness = Duration::from_millis(mount.settings.staleness_ms);
                let options = mount
                    .options
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>();
                vec![
                    mount.path.to_string(),
                    mount.uri.clone(),
                    access.to_owned(),
                    humantime::format_duration(staleness).to_string(),
                    options.join(" "),
                ]
            };
            let rows = mounts.iter().map(row).collect();
            shell.line(format::table(
                &["Path", "From", "Access", "Staleness", "Options"],
                rows,
            ));
            if self.verbose {
                mounts.iter().flat_map(hidden_lines).for_each(|line| shell.line(line));
            }
        }
        Ok(())
    }
}

/// What a mount does not show, for people.
fn hidden_lines(mount: &MountInfo) -> Vec<String> {
    let line = |hidden: &HiddenKeys| {
        format!(
            "{}: not shown: {} whose name {}, such as {}",
            mount.path,
            hidden.count,
            hidden.why,
            format::shown(&hidden.example)
        )
    };
    mount.hidden.iter().map(line).collect()
}
