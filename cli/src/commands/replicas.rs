use curvine_protocol::master::AttrChange;
use curvine_protocol::{CurvinePath, Error, Result};
use futures::TryStreamExt;

use crate::shell::Shell;

/// Say on how many workers the blocks of files are to be
///
/// What lacks is made, and what is too much goes, in the background: `cv report` says how far it is in the duty `repair`, and
/// `cv fsck PATH` what is missing. What can be fetched from an under file system is not replicated. New files have as many
/// as `master.replicas` or `cv put --replicas` says.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv replicas 2 /data/a\n  cv replicas 3 -R /data")]
pub struct Args {
    /// 1 to 255
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    replicas: u8,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Of all files below
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let set = async |path: &CurvinePath| -> Result<()> {
            let change = AttrChange {
                replicas: Some(self.replicas),
                ..AttrChange::default()
            };
            shell.client.set_attr(path, true, change).await.map(|_| ())
        };
        shell
            .each(&self.paths, async |path| {
                let attr = shell.client.stat(&path).await?;
                match (attr.is_dir(), self.recursive) {
                    (false, _) => set(&path).await,
                    (true, true) => {
                        let mut below = std::pin::pin!(shell.client.walk(&path));
                        while let Some((path, entry)) = below.try_next().await? {
                            if entry.attr.is_file() {
                                set(&path).await?;
                            }
                        }
                        Ok(())
                    }
                    (true, false) => Err(Error::invalid(format!(
                        "{path} is a directory; -R sets the replicas of all files below"
                    ))),
                }
            })
            .await;
        Ok(())
    }
}
