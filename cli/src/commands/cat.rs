use curvine_protocol::Result;
use futures::TryStreamExt;

use crate::shell::Shell;

/// Print files
#[derive(clap::Args)]
#[command(after_help = "Example: cv cat '/logs/2026-*.gz' | zcat | wc -l")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let file = shell.client.open(&path).await?;
                let mut content = std::pin::pin!(file.stream(0));
                while let Some(bytes) = content.try_next().await? {
                    shell.bytes(&bytes);
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}
