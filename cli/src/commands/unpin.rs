use curvine_protocol::Result;

use super::pin;
use crate::shell::Shell;

/// Let files be evicted again that `cv pin` kept
///
/// Of a directory, all that is in it but for what has a pin of its own. Nothing is dropped.
///
/// JSON: an object a line, as in `cv pin`.
#[derive(clap::Args)]
#[command(after_help = "Example: cv unpin /train")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Every pin at or below it
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let recursive = self.recursive;
        shell
            .each(&self.paths, async |path| {
                let set = shell.client.unpin(&path, recursive).await?;
                shell.answer(&pin::json_of(&path, &set), || pin::said(&path, &set, "unpinned"));
                Ok(())
            })
            .await;
        Ok(())
    }
}
