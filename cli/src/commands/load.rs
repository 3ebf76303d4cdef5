use std::path::PathBuf;

use curvine_protocol::job::JobRecord;
use curvine_protocol::{CurvinePath, Error, Result};

use super::{load_plan, load_status};
use crate::shell::{Shell, usage};

/// Load files of mounts into the cache
///
/// Makes a durable job and prints its id; with --watch, waits for its end: exit code 0 only if every file is cached.
/// Jobs that have ended are remembered for 7 days, the newest 500 of them. A job takes up to 10,000 paths. JSON: the job,
/// as in `cv load-status`.
///
/// --dry-run says what a job would do, and does nothing: exit code 0 if everything has room. A job does not let go of what it
/// has loaded itself: files that there is no room for fail. JSON with --dry-run: files, bytes, files_cached, bytes_cached,
/// bytes_to_fetch, requests, free_bytes, evictable_bytes, bytes_evicted, bytes_without_room, unseen, failures (path, kind,
/// message).
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cv load /data/train --watch\n  cv load --dry-run /data/train\n  cv load --manifest list.txt\n  cv load --list"
)]
pub struct Args {
    /// Files or directories
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// A file with a path on each line; - for standard input
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Wait for the end and show the progress
    #[arg(short, long)]
    watch: bool,
    /// List what failed and why (with --watch)
    #[arg(short, long)]
    verbose: bool,
    /// Say what would be loaded and what would go for it, and load nothing
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,
    /// List jobs
    #[arg(long, conflicts_with_all = ["paths", "manifest", "watch", "dry_run"])]
    list: bool,
}

impl Args {
    pub fn check(&self) -> Result<()> {
        if !self.list && self.paths.is_empty() && self.manifest.is_none() {
            return Err(usage("say what to load: cv load PATH..., --manifest FILE, or --list"));
        }
        Ok(())
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        if self.list {
            return load_status::list(shell).await;
        }
        let mut paths = shell.expand(&self.paths).await;
        if let Some(file) = &self.manifest {
            paths.extend(read_manifest(file)?);
        }
        if paths.is_empty() && !self.paths.is_empty() {
            // Each was refused with its reason.
            return Ok(());
        }
        if paths.is_empty() {
            return Err(usage("nothing to load"));
        }
        if self.dry_run {
            let plan = shell.client.plan_load(paths).await?;
            return load_plan::show(shell, &plan);
        }
        let job = shell.client.submit_load(paths).await?;
        if !shell.json {
            say_who_else_loads(shell, &job).await?;
        }
        if self.watch {
            if !shell.json {
                shell.line(format!("job {}", job.id));
                shell.flush();
            }
            load_status::watch(shell, job.id, self.verbose).await
        } else {
            shell.answer(&load_status::JobJson::new(&job), || {
                format!("job {0}: follow it with `cv load-status {0} --watch`", job.id)
            });
            Ok(())
        }
    }
}

/// Says which other jobs load some of the same: each file is loaded by one of them, and found cached by the others.
async fn say_who_else_loads(shell: &Shell, job: &JobRecord) -> Result<()> {
    let jobs = shell.client.jobs().await?;
    for other in jobs.iter().filter(|other| other.id != job.id && overlap(other, job)) {
        shell.line(format!(
            "job {} loads some of that already; nothing is fetched twice",
            other.id
        ));
    }
    Ok(())
}

/// Whether a job that runs has files in common with another.
fn overlap(other: &JobRecord, job: &JobRecord) -> bool {
    let meet = |a: &CurvinePath, b: &CurvinePath| a.contains(b) || b.contains(a);
    !other.state.is_ended() && other.paths.iter().any(|a| job.paths.iter().any(|b| meet(a, b)))
}

fn read_manifest(file: &PathBuf) -> Result<Vec<CurvinePath>> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Error::from(error).while_doing(format!("manifest {}", file.display())))?;
    parse_manifest(&text).map_err(|error| error.while_doing(format!("manifest {}", file.display())))
}

/// A path on each line; empty lines and those that begin with `#` do not count.
fn parse_manifest(text: &str) -> Result<Vec<CurvinePath>> {
    let lines = text.lines().map(|line| line.trim_end_matches('\r')).enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(i, line)| {
            CurvinePath::parse(line).map_err(|error| error.while_doing(format!("line {}", i + 1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_the_line_that_is_wrong() {
        let paths = parse_manifest("# list\n/a b\r\n\n/c\n").map(|paths| paths.len());
        assert_eq!(paths, Ok(2));
        let error = parse_manifest("/a\nb\n").map_err(|error| error.message);
        assert!(error.is_err_and(|message| message.starts_with("line 2: ")));
    }
}
