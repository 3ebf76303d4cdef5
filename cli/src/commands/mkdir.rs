use curvine_protocol::{CurvinePath, Result};

use crate::mode::ModeChange;
use crate::shell::{Shell, naming};

/// Make directories
#[derive(clap::Args)]
#[command(after_help = "Example: cv mkdir -p /data/raw/2026")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Missing directories above, too; no error if it is there
    #[arg(short, long)]
    parents: bool,
    /// Permissions
    #[arg(short, long, default_value = "755")]
    mode: String,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let mode = ModeChange::parse(&self.mode)?.apply(0o777, true)?;
        for text in &self.paths {
            let made = match CurvinePath::parse(text) {
                Ok(path) => shell.client.make_dir(&path, mode, self.parents).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                shell.failed(&naming(error, text));
            }
        }
        Ok(())
    }
}
