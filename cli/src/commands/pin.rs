use curvine_protocol::master::PinSet;
use curvine_protocol::{CurvinePath, Error, ErrorKind, Result};
use serde_json::json;

use super::pins;
use crate::format;
use crate::shell::{Shell, usage};

/// Keep files in the cache: what is cached of them is never evicted
///
/// Of a directory, all that is in it and all that comes. It does not fetch anything, unless --load is given. How much may be
/// pinned is a share of the workers' capacity (`master.pin_limit`).
///
/// JSON: an object a line with path, files, bytes, cached_bytes, limit_bytes, pinned_bytes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv pin -R /train --load\n  cv pin /models/a.bin\n  cv pin --list")]
pub struct Args {
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Directories, with all that is in them and comes
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Have what is not cached loaded, as `cv load` does
    #[arg(long)]
    load: bool,
    /// List what is pinned
    #[arg(long, conflicts_with_all = ["paths", "recursive", "load"])]
    list: bool,
}

impl Args {
    pub fn check(&self) -> Result<()> {
        match self.paths.is_empty() && !self.list {
            true => Err(usage("say what to pin: cv pin [-R] PATH..., or --list")),
            false => Ok(()),
        }
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        if self.list {
            return pins::list(shell).await;
        }
        let (recursive, load) = (self.recursive, self.load);
        shell
            .each(&self.paths, async |path| {
                if !recursive && shell.client.lookup(&path, true).await?.attr.is_dir() {
                    return Err(Error::new(
                        ErrorKind::IsADirectory,
                        "is a directory; -R pins all that is in it and all that comes",
                    ));
                }
                let set = shell.client.pin(&path).await?;
                shell.answer(&json_of(&path, &set), || said(&path, &set, "pinned"));
                let missing_bytes = set.pinned.bytes.saturating_sub(set.pinned.cached_bytes);
                match (missing_bytes, load) {
                    (0, _) => Ok(()),
                    (_, true) => {
                        let job = shell.client.submit_load(vec![path]).await?;
                        if !shell.json {
                            shell.line(format!("job {0} loads it: `cv load-status {0} --watch`", job.id));
                        }
                        Ok(())
                    }
                    (missing_bytes, false) => {
                        if !shell.json {
                            let missing = format::size(missing_bytes, true);
                            let shown = format::shown(path.as_str());
                            shell.line(format!(
                                "{missing} of it are not cached: `cv load {shown}` fetches them"
                            ));
                        }
                        Ok(())
                    }
                }
            })
            .await;
        Ok(())
    }
}

pub fn json_of(path: &CurvinePath, set: &PinSet) -> serde_json::Value {
    json!({
        "path": path, "files": set.pinned.files, "bytes": set.pinned.bytes,
        "cached_bytes": set.pinned.cached_bytes, "limit_bytes": set.room.limit_bytes,
        "pinned_bytes": set.room.pinned_bytes,
    })
}

pub fn said(path: &CurvinePath, set: &PinSet, what: &str) -> String {
    format!(
        "{}: {what} {} files of {}, {} of them cached; {} of {} that may be pinned are",
        format::shown(path.as_str()),
        set.pinned.files,
        format::size(set.pinned.bytes, true),
        format::size(set.pinned.cached_bytes, true),
        format::size(set.room.pinned_bytes, true),
        format::size(set.room.limit_bytes, true),
    )
}
