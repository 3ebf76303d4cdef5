use curvine_actors::client::OpenFile;
use curvine_protocol::Result;
use futures::TryStreamExt;

use crate::shell::Shell;

/// Print the end of files
#[derive(clap::Args)]
#[command(after_help = "Example: cv tail -n 20 /logs/today.log")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// This many lines
    #[arg(short = 'n', default_value_t = 10)]
    lines: u64,
    /// This many bytes
    #[arg(short = 'c', conflicts_with = "lines")]
    bytes: Option<u64>,
}

const STEP_BYTES: u64 = 64 << 10;

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let file = shell.client.open(&path).await?;
                let start = match self.bytes {
                    Some(bytes) => file.size_now().saturating_sub(bytes),
                    None => start_of_last_lines(&file, self.lines).await?,
                };
                let mut content = std::pin::pin!(file.stream(start));
                while let Some(bytes) = content.try_next().await? {
                    shell.bytes(&bytes);
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}

/// Reads backwards until enough line ends are seen.
async fn start_of_last_lines(file: &OpenFile, lines: u64) -> Result<u64> {
    let size_bytes = file.size_now();
    if lines == 0 {
        return Ok(size_bytes);
    }
    // The line end that closes the file ends its last line and begins none.
    let mut end = size_bytes.saturating_sub(1);
    let mut left = lines;
    while end > 0 {
        let start = end.saturating_sub(STEP_BYTES);
        let piece = file.read_at(start, end - start).await?;
        for (i, byte) in piece.iter().enumerate().rev() {
            if *byte == b'\n' {
                left -= 1;
                if left == 0 {
                    return Ok(start + i as u64 + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}
