use std::time::Duration;

use curvine_protocol::Result;

use crate::format;
use crate::shell::Shell;

/// List mounts
///
/// JSON: an object a line with id, path, uri, options (secrets as ***), settings, created_ns.
#[derive(clap::Args)]
#[command(after_help = "Example: cv mounts")]
pub struct Args {}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let mounts = shell.client.mounts().await?;
        if shell.json {
            mounts.iter().for_each(|mount| shell.json_line(mount));
        } else if mounts.is_empty() {
            shell.line("nothing is mounted; try: cv mount file:///DIR /data");
        } else {
            let row = |mount: &curvine_protocol::mount::MountInfo| {
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
        }
        Ok(())
    }
}
