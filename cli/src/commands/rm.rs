use curvine_protocol::{Error, ErrorKind, Result};

use crate::shell::{Shell, naming};

/// Delete files and directories
#[derive(clap::Args)]
#[command(after_help = "Example: cv rm -r /data/tmp '/data/*.bak'")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Directories and all they hold
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// No error for what is not there
    #[arg(short, long)]
    force: bool,
    /// Say what is deleted
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        for argument in &self.paths {
            let paths = match crate::glob::expand(&shell.client, argument).await {
                Ok(paths) => paths,
                Err(error) if self.force && error.kind == ErrorKind::NotFound => continue,
                Err(error) => {
                    shell.failed(&naming(error, argument));
                    continue;
                }
            };
            for path in paths {
                match self.remove(shell, &path).await {
                    Ok(()) if self.verbose => shell.answer(&serde_json::json!({"deleted": path}), || {
                        format!("deleted {}", crate::format::shown(path.as_str()))
                    }),
                    Ok(()) => {}
                    Err(error) if self.force && error.kind == ErrorKind::NotFound => {}
                    Err(error) => shell.failed(&naming(error, &path)),
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, shell: &Shell, path: &curvine_protocol::CurvinePath) -> Result<()> {
        if path.is_root() {
            return Err(Error::new(
                ErrorKind::NotPermitted,
                "/ is not deleted; name what it holds, for instance '/*'",
            ));
        }
        let entry = shell.client.lookup(path, false).await?;
        if entry.attr.is_dir() && !self.recursive {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{path} is a directory; use -r to delete it with all it holds"),
            ));
        }
        shell.client.delete(path, self.recursive).await.map(|_| ())
    }
}
