use curvine_protocol::Result;
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Drop cached data of mounted files; the under file system keeps it
///
/// JSON: an object a line with path, files, bytes, kept.
#[derive(clap::Args)]
#[command(after_help = "Example: cv free /train")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let freed = shell.client.free(&path).await?;
                let value = json!({"path": path, "files": freed.files, "bytes": freed.bytes, "kept": freed.kept});
                shell.answer(&value, || {
                    let kept = match freed.kept {
                        0 => String::new(),
                        kept => format!("; kept {kept} files that are in no mount, being written or not stored yet"),
                    };
                    let bytes = format::size(freed.bytes, true);
                    let path = format::shown(path.as_str());
                    format!("{path}: freed {bytes} bytes in {} files{kept}", freed.files)
                });
                Ok(())
            })
            .await;
        Ok(())
    }
}
