use curvine_protocol::Result;
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Count directories, files and bytes
///
/// JSON: an object a line with path, directories, files, bytes.
#[derive(clap::Args)]
#[command(disable_help_flag = true, after_help = "Example: cv count -h /data")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Sizes for people: 1.5K, 3G
    #[arg(short, long)]
    human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let sum = shell.client.summarize(&path).await?;
                let value = json!({
                    "path": path, "directories": sum.directories, "files": sum.files, "bytes": sum.bytes,
                });
                shell.answer(&value, || {
                    format!(
                        "{:>12} {:>12} {:>18} {}",
                        sum.directories,
                        sum.files,
                        format::size(sum.bytes, self.human_readable),
                        format::shown(path.as_str())
                    )
                });
                Ok(())
            })
            .await;
        Ok(())
    }
}
