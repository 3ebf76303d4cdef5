use curvine_protocol::Result;

use crate::shell::Shell;

/// Undo a mount; the under file system keeps its data
#[derive(clap::Args)]
#[command(after_help = "Example: cv umount /data")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Also if the under file system has not got everything yet, or somebody is writing: that is lost
    #[arg(long)]
    force: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| shell.client.unmount(&path, self.force).await)
            .await;
        Ok(())
    }
}
