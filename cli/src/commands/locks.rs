use curvine_protocol::{CurvinePath, Result};

use crate::format;
use crate::shell::Shell;

/// List the locks that programs have on files
///
/// Of one file, of all below a directory, or all there are (flock, fcntl).
///
/// JSON: an object a line with inode, path (null if it has no name any more), locks: client, lock (owner, pid, exclusive,
/// start, end).
#[derive(clap::Args)]
#[command(after_help = "Example: cv locks /data")]
pub struct Args {
    path: Option<CurvinePath>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let files = shell.client.locks(self.path).await?;
        if shell.json {
            files.iter().for_each(|file| shell.json_line(file));
            return Ok(());
        }
        if files.is_empty() {
            shell.line("nothing is locked");
            return Ok(());
        }
        let mut rows = Vec::new();
        for file in &files {
            let path = match &file.path {
                Some(path) => path.to_string(),
                None => format!("inode {} (no name)", file.inode),
            };
            rows.extend(file.locks.iter().map(|held| {
                let lock = &held.lock;
                let kind = if lock.exclusive { "exclusive" } else { "shared" };
                let range = match (lock.start, lock.end >= i64::MAX.cast_unsigned()) {
                    (0, true) => "all".to_owned(),
                    (start, true) => format!("{start}-"),
                    (start, false) => format!("{start}-{}", lock.end),
                };
                let session = format!("{:016x}", held.client.0);
                vec![path.clone(), kind.to_owned(), range, lock.pid.to_string(), session]
            }));
        }
        shell.line(format::table(&["Path", "Lock", "Bytes", "Process", "Session"], rows));
        Ok(())
    }
}
