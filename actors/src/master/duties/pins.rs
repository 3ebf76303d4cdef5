//! Has workers pin what comes into the cache of a file that is pinned, and what has moved below a directory that is.
//!
//! `cv pin` tells workers itself, and answers when they have it on disk. What is left to this duty: blocks that are cached
//! later, whatever a worker reports that is not as the pins say, what moves, and whoever did not answer `cv pin`.
//!
//! What comes later is pinned only while workers have less pinned than may be ([`Pinning::limit_bytes`]): one directory that
//! grows must not take the whole cache.

use async_trait::async_trait;
use curvine_protocol::{ErrorKind, Result};

use super::Duty;
use crate::master::pinning::Pinning;

pub struct Pins(pub Pinning);

#[async_trait]
impl Duty for Pins {
    fn name(&self) -> &'static str {
        "pins"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        // Every worker reports in full what it has pinned.
        self.0.due.clear();
        Ok(())
    }

    async fn due(&self) {
        self.0.due.some_due().await;
    }

    async fn tick(&self) -> Result<()> {
        loop {
            let now = self.0.blocks.now();
            let due = self.0.due.take(now);
            if due.is_empty() {
                return Ok(());
            }
            let mut files = Vec::new();
            let mut untold = Vec::new();
            for (inode, _) in due {
                match self.0.view.attr(inode) {
                    Ok(attr) if attr.is_dir() => untold.extend(self.0.tell_all(inode, true).await?),
                    Ok(attr) if attr.is_file() => files.push(inode),
                    Ok(_) => {}
                    Err(gone) if matches!(gone.kind, ErrorKind::Stale | ErrorKind::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            untold.extend(self.0.tell(&files, true).await?);
            for (inode, error) in untold {
                tracing::debug!(%inode, %error, "what is pinned of it is not told");
                self.0.due.again(inode, now);
            }
        }
    }

    fn end(&self) {
        self.0.due.clear();
    }

    fn status(&self) -> String {
        let full = match self.0.any() {
            Ok(true) if self.0.held_bytes() >= self.0.limit_bytes() => {
                "; as much is pinned and cached as may be (`master.pin_limit`)"
            }
            _ => "",
        };
        match self.0.due.len() {
            0 => format!("nothing to tell{full}"),
            files => format!("{files} files whose workers are to be told{full}"),
        }
    }
}
