use curvine_protocol::master::Summary;
use curvine_protocol::{CurvinePath, DirEntry, Result};
use futures::TryStreamExt;
use serde_json::json;

use crate::format;
use crate::shell::{Shell, naming};

/// Show how much space is used
///
/// Columns: size without holes, cached in workers, path. JSON: an object a line with path, size_bytes, hole_bytes,
/// cached_bytes, files, directories.
#[derive(clap::Args)]
#[command(disable_help_flag = true, after_help = "Example: cv du -sh /data")]
pub struct Args {
    /// [default: /]
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// One sum for each path
    #[arg(short, long)]
    summarize: bool,
    /// Sizes for people: 1.5K, 3G
    #[arg(short, long)]
    human_readable: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        if self.paths.is_empty() {
            self.paths.push("/".to_owned());
        }
        shell
            .each(&self.paths, async |path| {
                if !self.summarize && shell.client.stat(&path).await?.is_dir() {
                    let entries: Vec<DirEntry> = shell.client.list(&path).try_collect().await?;
                    for entry in entries {
                        let below = path.join(&entry.name)?;
                        let summed = match entry.target.is_some() {
                            // What it leads to counts where that is.
                            true => {
                                self.say(shell, &below, &Summary::default());
                                Ok(())
                            }
                            false => self.sum(shell, below.clone()).await,
                        };
                        if let Err(error) = summed {
                            shell.failed(&naming(error, &below));
                        }
                    }
                    return Ok(());
                }
                self.sum(shell, path).await
            })
            .await;
        Ok(())
    }

    async fn sum(&self, shell: &Shell, path: CurvinePath) -> Result<()> {
        let summary = shell.client.summarize(&path).await?;
        self.say(shell, &path, &summary);
        Ok(())
    }

    fn say(&self, shell: &Shell, path: &CurvinePath, summary: &Summary) {
        let &Summary {
            directories,
            files,
            bytes,
            cached_bytes,
            hole_bytes,
        } = summary;
        let value = json!({
            "path": path, "size_bytes": bytes, "hole_bytes": hole_bytes, "cached_bytes": cached_bytes, "files": files,
            "directories": directories,
        });
        let human = self.human_readable;
        shell.answer(&value, || {
            format!(
                "{:<10} {:<10} {}",
                format::size(bytes.saturating_sub(hole_bytes), human),
                format::size(cached_bytes, human),
                format::shown(path.as_str())
            )
        });
    }
}
