use curvine_protocol::number::to_usize;
use curvine_protocol::Result;
use futures::TryStreamExt;

use crate::shell::Shell;

/// Print the beginning of files
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv head -n 3 /data/a.csv\n  cv head -c 512 /data/a.bin | xxd")]
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

/// Read in small steps at first: the beginning of a file is seldom far from its start.
const STEP_BYTES: u64 = 64 << 10;

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let file = shell.client.open(&path).await?;
                if let Some(bytes) = self.bytes {
                    let mut left = bytes;
                    let mut content = std::pin::pin!(file.stream(0));
                    while left > 0
                        && let Some(piece) = content.try_next().await?
                    {
                        let taken = left.min(piece.len() as u64);
                        shell.bytes(&piece[..to_usize(taken)]);
                        left -= taken;
                    }
                    return Ok(());
                }
                let (mut offset, mut lines) = (0, self.lines);
                while lines > 0 {
                    let piece = file.read_at(offset, STEP_BYTES).await?;
                    if piece.is_empty() {
                        break;
                    }
                    offset += piece.len() as u64;
                    let (end, found) = first_lines(&piece, lines);
                    shell.bytes(&piece[..end]);
                    lines -= found;
                }
                Ok(())
            })
            .await;
        Ok(())
    }
}

/// Where the first lines end, and how many of them are whole.
fn first_lines(bytes: &[u8], lines: u64) -> (usize, u64) {
    let mut found = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            found += 1;
            if found == lines {
                return (i + 1, found);
            }
        }
    }
    (bytes.len(), found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_pieces() {
        assert_eq!(first_lines(b"a\nb\nc\n", 2), (4, 2));
        assert_eq!(first_lines(b"a\nb", 2), (3, 1));
        assert_eq!(first_lines(b"", 2), (0, 0));
    }
}
