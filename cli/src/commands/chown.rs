use curvine_protocol::Result;
use curvine_protocol::master::AttrChange;
use futures::TryStreamExt;

use crate::shell::Shell;
use crate::users::Names;

/// Change owner and group
#[derive(clap::Args)]
#[command(after_help = "Example: cv chown -R ann:staff /home/ann")]
pub struct Args {
    /// USER, USER:GROUP or :GROUP, by name or number
    owner: String,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Everything below, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Args {
    pub fn check(&self) -> Result<()> {
        Names::system().owner(&self.owner).map(|_| ())
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let (uid, gid) = Names::system().owner(&self.owner)?;
        let change = || AttrChange {
            uid,
            gid,
            ..AttrChange::default()
        };
        shell
            .each(&self.paths, async |path| {
                let attr = shell.client.set_attr(&path, true, change()).await?;
                if self.recursive && attr.is_dir() {
                    let mut below = std::pin::pin!(shell.client.walk(&path));
                    while let Some((path, _)) = below.try_next().await? {
                        shell.client.set_attr(&path, false, change()).await?;
                    }
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}
