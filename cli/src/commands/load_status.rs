use std::time::Duration;

use curvine_protocol::job::{ENDED_AGE_NS, ENDED_MAX, JobProgress, JobRecord, JobState};
use curvine_protocol::{CurvinePath, JobId, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::format;
use crate::shell::Shell;

/// Show how a load job goes
///
/// JSON: id, state (planning, running, done, failed, cancelled), paths, files_total, files_loaded, files_already,
/// files_failed, bytes_total, bytes_done, bytes_moved, created_ns, ended_ns, failures (path, kind, message).
#[derive(clap::Args)]
#[command(after_help = "Example: cv load-status 7 --verbose")]
pub struct Args {
    #[arg(value_name = "ID")]
    id: u64,
    /// List what failed and why
    #[arg(short, long)]
    verbose: bool,
    /// Wait for the end; exit code 0 only if every file is cached
    #[arg(short, long)]
    watch: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let id = JobId(self.id);
        if self.watch {
            return watch(shell, id, self.verbose).await;
        }
        let job = shell.client.job(id).await?;
        print(shell, &job, self.verbose);
        Ok(())
    }
}

/// A job in JSON.
#[derive(Serialize)]
pub struct JobJson<'a> {
    id: JobId,
    state: &'static str,
    paths: &'a [CurvinePath],
    #[serde(flatten)]
    progress: &'a JobProgress,
    created_ns: i64,
    ended_ns: Option<i64>,
    failures: Vec<FailureJson<'a>>,
}

#[derive(Serialize)]
struct FailureJson<'a> {
    path: &'a str,
    kind: &'static str,
    message: &'a str,
}

impl<'a> JobJson<'a> {
    pub fn new(job: &'a JobRecord) -> Self {
        let failure = |failure: &'a curvine_protocol::job::FileFailure| FailureJson {
            path: &failure.path,
            kind: failure.error.kind.name(),
            message: &failure.error.message,
        };
        JobJson {
            id: job.id,
            state: state(job.state),
            paths: &job.paths,
            progress: &job.progress,
            created_ns: job.created_ns,
            ended_ns: job.ended_ns,
            failures: job.failures.iter().map(failure).collect(),
        }
    }
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Planning => "planning",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

pub async fn list(shell: &Shell) -> Result<()> {
    let jobs = shell.client.jobs().await?;
    if shell.json {
        jobs.iter().for_each(|job| shell.json_line(&JobJson::new(job)));
    } else if jobs.is_empty() {
        shell.line("no load jobs");
    } else {
        let row = |job: &JobRecord| {
            let progress = &job.progress;
            let ready = progress.files_loaded + progress.files_already;
            let paths: Vec<&str> = job.paths.iter().take(3).map(CurvinePath::as_str).collect();
            vec![
                job.id.to_string(),
                state(job.state).to_owned(),
                format!("{ready}/{}", progress.files_total),
                progress.files_failed.to_string(),
                format::size(progress.bytes_total, true),
                format::second(job.created_ns),
                format::shown(&paths.join(" ")) + if job.paths.len() > 3 { " ..." } else { "" },
            ]
        };
        let rows = jobs.iter().map(row).collect();
        let titles = ["Job", "State", ">Files", ">Failed", ">Size", "Started", "Paths"];
        shell.line(format::table(&titles, rows));
        shell.line(format!(
            "jobs that have ended are remembered for {} days, the newest {ENDED_MAX} of them",
            ENDED_AGE_NS / (24 * 3_600 * 1_000_000_000)
        ));
    }
    Ok(())
}

/// How often a watched job is asked for.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// Follows a job to its end, which decides the exit code.
pub async fn watch(shell: &Shell, id: JobId, verbose: bool) -> Result<()> {
    let bar = if shell.shows_progress() {
        bar()
    } else {
        ProgressBar::hidden()
    };
    let job = loop {
        let job = shell.client.job(id).await?;
        let progress = &job.progress;
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes_done);
        let ready = progress.files_loaded + progress.files_already;
        bar.set_message(format!(
            "{ready}/{} files, {} failed",
            progress.files_total, progress.files_failed
        ));
        if job.state.is_ended() {
            break job;
        }
        tokio::time::sleep(WATCH_EVERY).await;
    };
    bar.finish_and_clear();
    print(shell, &job, verbose);
    if job.state != JobState::Done || job.progress.files_failed > 0 {
        shell.exit_with(1);
    }
    Ok(())
}

fn bar() -> ProgressBar {
    let style = "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}  {msg}";
    let style = ProgressStyle::with_template(style).expect("the template is correct");
    ProgressBar::new(0).with_style(style)
}

fn print(shell: &Shell, job: &JobRecord, verbose: bool) {
    shell.answer(&JobJson::new(job), || text(job, verbose));
}

fn text(job: &JobRecord, verbose: bool) -> String {
    let progress = &job.progress;
    let mut text = format!(
        "job {} {}: {} files, {} loaded, {} were cached, {} failed; {} of {} done, {} moved",
        job.id,
        state(job.state),
        progress.files_total,
        progress.files_loaded,
        progress.files_already,
        progress.files_failed,
        format::size(progress.bytes_done, true),
        format::size(progress.bytes_total, true),
        format::size(progress.bytes_moved, true),
    );
    if let Some(ended_ns) = job.ended_ns {
        let seconds = (ended_ns - job.created_ns).max(0) as f64 / 1e9;
        text += &format!(" in {seconds:.1} s");
    }
    if verbose {
        for failure in &job.failures {
            text += &format!(
                "\n  {}: {}",
                format::shown(&failure.path),
                format::shown(&failure.error.message)
            );
        }
        let unlisted = progress.files_failed.saturating_sub(job.failures.len() as u64);
        if unlisted > 0 {
            text += &format!("\n  and {unlisted} more");
        }
    } else if progress.files_failed > 0 {
        text += &format!("\n  see what failed: cv load-status {} --verbose", job.id);
    }
    text
}
