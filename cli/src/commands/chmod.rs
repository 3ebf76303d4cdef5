use curvine_protocol::master::AttrChange;
use curvine_protocol::{Attr, CurvinePath, Result};
use futures::TryStreamExt;

use crate::mode::ModeChange;
use crate::shell::Shell;

/// Change permissions
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv chmod 640 /data/a\n  cv chmod -R u+w,go=rX /data")]
pub struct Args {
    /// 755, or u+x,go-w
    #[arg(allow_hyphen_values = true)]
    mode: String,
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Everything below, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Args {
    pub fn check(&self) -> Result<()> {
        ModeChange::parse(&self.mode).map(|_| ())
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let change = &ModeChange::parse(&self.mode)?;
        let set = async |path: &CurvinePath, attr: &Attr| -> Result<()> {
            let mode = Some(change.apply(attr.mode, attr.is_dir())?);
            let change = AttrChange {
                mode,
                ..AttrChange::default()
            };
            shell.client.set_attr(path, true, change).await.map(|_| ())
        };
        shell
            .each(&self.paths, async |path| {
                let attr = shell.client.stat(&path).await?;
                set(&path, &attr).await?;
                if self.recursive && attr.is_dir() {
                    let mut below = std::pin::pin!(shell.client.walk(&path));
                    while let Some((path, entry)) = below.try_next().await? {
                        if entry.attr.is_dir() || entry.attr.is_file() {
                            set(&path, &entry.attr).await?;
                        }
                    }
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}
