use curvine_protocol::master::RenameMode;
use curvine_protocol::{CurvinePath, Error, ErrorKind, Result};

use crate::shell::{Shell, naming, no_directory, usage};

/// Rename, or move into a directory
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv mv /a/old /a/new\n  cv mv '/in/*.csv' /archive")]
pub struct Args {
    /// What to move, then where to
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    paths: Vec<String>,
    /// Replace nothing
    #[arg(short = 'n', long)]
    no_clobber: bool,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        let to = self.paths.pop().ok_or_else(|| usage("say where to"))?;
        let says_directory = to.ends_with('/');
        let to = CurvinePath::parse(&to)?;
        let sources = shell.expand(&self.paths).await;
        let into = matches!(shell.client.stat(&to).await, Ok(attr) if attr.is_dir());
        if sources.len() > 1 && !into {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{to} is not a directory, and there are {} things to move", sources.len()),
            ));
        }
        if says_directory && !into {
            for source in &sources {
                if !shell.client.stat(source).await?.is_dir() {
                    return Err(no_directory(&to));
                }
            }
        }
        let mode = if self.no_clobber {
            RenameMode::NoReplace
        } else {
            RenameMode::Replace
        };
        for source in sources {
            let target = match source.name() {
                Some(name) if into => to.join(name)?,
                _ => to.clone(),
            };
            if let Err(error) = shell.client.rename(&source, &target, mode, false).await {
                shell.failed(&naming(error, &source));
            }
        }
        Ok(())
    }
}
