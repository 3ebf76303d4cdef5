use curvine_protocol::Result;
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Wait until files in writable mounts are in their under file systems
///
/// JSON: an object a line with path, files.
#[derive(clap::Args)]
#[command(after_help = "Example: cv persist /data")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let files = shell.client.persist(&path).await?;
                let value = json!({"path": path, "files": files});
                shell.answer(&value, || {
                    let path = format::shown(path.as_str());
                    match files {
                        0 => format!("{path}: everything was there"),
                        1 => format!("{path}: 1 file was written"),
                        files => format!("{path}: {files} files were written"),
                    }
                });
                Ok(())
            })
            .await;
        Ok(())
    }
}
