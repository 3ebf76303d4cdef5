use curvine_protocol::Result;
use curvine_protocol::master::Persisted;
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Wait until files in writable mounts are in their under file systems
///
/// A file that somebody writes is not waited for, and counted. JSON: an object a line with path, files, being_written.
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
                let Persisted { files, being_written } = shell.client.persist(&path).await?;
                let value = json!({"path": path, "files": files, "being_written": being_written});
                shell.answer(&value, || {
                    let path = format::shown(path.as_str());
                    let written = match files {
                        0 if being_written > 0 => "nothing was written".to_owned(),
                        0 => "everything was there".to_owned(),
                        1 => "1 file was written".to_owned(),
                        files => format!("{files} files were written"),
                    };
                    let left = match being_written {
                        0 => String::new(),
                        left => format!("; being written now, and stored when they are closed: {left}"),
                    };
                    format!("{path}: {written}{left}")
                });
                Ok(())
            })
            .await;
        Ok(())
    }
}
