use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use curvine_protocol::{Attr, CurvinePath, Error, ErrorKind, FileKind, Result};
use futures::TryStreamExt;
use indicatif::ProgressBar;
use serde_json::json;

use crate::shell::{Shell, naming, usage};
use crate::transfer::{self, Partial};

/// Copy files and directories out of Curvine
///
/// Directories are copied with all they hold. A file is written under a temporary name, its size is checked, and only
/// then it gets its name. JSON: files, bytes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cv get '/data/*.csv' .\n  cv get /data/train /tmp\n  cv get /data/a.gz - | zcat")]
pub struct Args {
    /// Files or directories, then where to, locally (- for standard output)
    #[arg(value_name = "PATH", required = true, num_args = 2..)]
    paths: Vec<String>,
    /// Replace existing files
    #[arg(short, long)]
    force: bool,
    /// Keep modification times
    #[arg(short, long)]
    preserve: bool,
    /// Directories are always copied with all they hold; accepted as a habit of cp
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Files at the same time
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = transfer::threads())]
    threads: usize,
}

struct Job {
    from: CurvinePath,
    to: PathBuf,
}

impl Args {
    pub async fn run(mut self, shell: &Shell) -> Result<()> {
        let target = self.paths.pop().ok_or_else(|| usage("say where to"))?;
        let sources = shell.expand(&self.paths).await;
        if target == "-" {
            for path in sources {
                let file = shell.client.open(&path).await?;
                let mut content = std::pin::pin!(file.stream(0));
                while let Some(bytes) = content.try_next().await? {
                    shell.bytes(&bytes);
                }
            }
            return Ok(());
        }
        let target = Path::new(&target);
        let into = target.is_dir();
        if sources.len() > 1 && !into {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{} is not a directory, and there are {} things to copy", target.display(), sources.len()),
            ));
        }
        let (mut files, mut bytes) = (Vec::new(), 0);
        for source in sources {
            let to = match source.name() {
                Some(name) if into => target.join(name),
                _ => target.to_owned(),
            };
            if let Err(error) = plan(shell, &source, to, &mut files, &mut bytes).await {
                shell.failed(&naming(error, &source));
            }
        }
        let (bar, partial) = (&transfer::bar(shell, bytes), &Partial::new());
        let (args, done) = (&self, &std::cell::Cell::new((0_u64, 0_u64)));
        transfer::run(shell, files, self.threads, bar, |job| async move {
            let bytes = args.get(shell, &job, bar, partial).await;
            let bytes = bytes.map_err(|error| naming(error, &job.from))?;
            let (files, all_bytes) = done.get();
            done.set((files + 1, all_bytes + bytes));
            Ok(())
        })
        .await;
        for path in partial.take() {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                let doing = format!("removing the partial {}", path.display());
                shell.failed(&Error::from(error).while_doing(doing));
            }
        }
        if shell.json {
            let (files, bytes) = done.get();
            shell.json_line(&json!({"files": files, "bytes": bytes}));
        }
        Ok(())
    }

    async fn get(&self, shell: &Shell, job: &Job, bar: &ProgressBar, partial: &Partial<PathBuf>) -> Result<u64> {
        if !self.force && job.to.symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{} exists; use -f to replace it", job.to.display()),
            ));
        }
        let local = |error: io::Error| naming(error.into(), job.to.display());
        let file = shell.client.open(&job.from).await?;
        let attr = file.attr().await;
        let temporary = temporary(&job.to);
        partial.begin(&temporary);
        // Readable by nobody else before it has its own mode.
        let mut written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(local)?;
        let mut copied = 0;
        {
            let mut content = std::pin::pin!(file.stream(0));
            while let Some(bytes) = content.try_next().await? {
                copied += bytes.len() as u64;
                bar.inc(bytes.len() as u64);
                written = tokio::task::spawn_blocking(move || written.write_all(&bytes).map(|()| written))
                    .await
                    .map_err(|error| Error::internal(error.to_string()))?
                    .map_err(local)?;
            }
        }
        if copied != attr.size_bytes {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} of {} bytes came; get it again", copied, attr.size_bytes),
            ));
        }
        written
            .set_permissions(std::fs::Permissions::from_mode(attr.mode & 0o777))
            .map_err(local)?;
        if self.preserve {
            written.set_modified(time(&attr)).map_err(local)?;
        }
        if !self.force {
            // As rename, but refuses to replace what appeared meanwhile.
            std::fs::hard_link(&temporary, &job.to).map_err(local)?;
            std::fs::remove_file(&temporary).map_err(local)?;
        } else {
            std::fs::rename(&temporary, &job.to).map_err(local)?;
        }
        partial.done(&temporary);
        Ok(copied)
    }
}

fn time(attr: &Attr) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(attr.mtime_ns).unwrap_or(0))
}

/// Beside the destination, so that renaming stays on one file system.
fn temporary(to: &Path) -> PathBuf {
    // A name may be 255 bytes already; the temporary one does not grow with it.
    let digest = curvine_protocol::checksum::crc32c(to.as_os_str().as_encoded_bytes());
    to.with_file_name(format!(".cv-get-{}-{digest:08x}", std::process::id()))
}

/// Makes the directories and links, and lists the files.
async fn plan(
    shell: &Shell,
    source: &CurvinePath,
    to: PathBuf,
    files: &mut Vec<Job>,
    bytes: &mut u64,
) -> Result<()> {
    let attr = shell.client.stat(source).await?;
    if !attr.is_dir() {
        *bytes += attr.size_bytes;
        files.push(Job {
            from: source.clone(),
            to,
        });
        return Ok(());
    }
    std::fs::create_dir_all(&to)?;
    let mut below = std::pin::pin!(shell.client.walk(source));
    while let Some((path, entry)) = below.try_next().await? {
        let relative = source.relative(&path).expect("a walk stays below its start");
        let to = to.join(relative);
        match entry.attr.kind {
            FileKind::Directory => {
                std::fs::create_dir_all(&to).map_err(|error| naming(error.into(), to.display()))?;
            }
            FileKind::Symlink => {
                let target = entry.target.unwrap_or_default();
                if let Err(error) = std::os::unix::fs::symlink(target, &to) {
                    shell.failed(&naming(error.into(), to.display()));
                }
            }
            FileKind::File => {
                *bytes += entry.attr.size_bytes;
                files.push(Job { from: path, to });
            }
            _ => shell.failed(&Error::new(
                ErrorKind::Unsupported,
                format!("{path} is neither a file nor a directory"),
            )),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temporary_name_is_short_and_beside_the_destination() {
        let to = PathBuf::from("/tmp").join("n".repeat(255));
        let temporary = temporary(&to);
        assert_eq!(temporary.parent(), Some(Path::new("/tmp")));
        assert!(temporary.file_name().is_some_and(|name| name.len() < 64));
    }
}
