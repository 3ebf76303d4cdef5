//! The `curvine-node` binary: where the actors run.
//!
//! - [`args`] and `curvine-conf` say what to run; [`roles`] wires it; [`ready`] says what is served and what to type next.
//! - [`owned_dir`]: one process owns a data directory, which belongs to one cluster and one role.
//! - [`web`]: the status page and metrics.
//!
//! Invariants: whoever listens is the owner of its data directory; a panic ends the process, never a part of it; a stop
//! ends in order and within a deadline: mount, web, worker, master.

mod args;
mod logs;
mod owned_dir;
mod ready;
mod roles;
mod signals;
mod web;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use curvine_actors::kit::Ports;
use curvine_conf::Loaded;
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::time::Instant;

use args::{Args, Command};
use roles::Running;
use signals::StopSignals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a stop in order may take before the process ends anyway. Nothing acknowledged is lost by that.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::ConfigReference { sample }) = args.command {
        print!(
            "{}",
            match sample {
                true => curvine_conf::render::sample(),
                false => curvine_conf::render::reference(),
            }
        );
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("curvine-node: {error}");
            ExitCode::from(u8::try_from(error.kind.exit_code()).unwrap_or(1))
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let ports = Ports::system();
    let begun = ports.clock.now();
    let loaded = curvine_conf::load(&args.sources())?;
    logs::start(&loaded.config.log)?;
    logs::abort_on_panic();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    open_files_limit()?;
    actix_rt::System::new().block_on(serve(args, &loaded, &ports, begun))
}

/// Starts, serves until told to stop, stops.
async fn serve(args: &Args, loaded: &Loaded, ports: &Ports, begun: Instant) -> Result<ExitCode> {
    let mut signals = StopSignals::listen()?;
    let Some(mut running) = Running::start(args.role, loaded, ports, &mut signals).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let after = ports.clock.now().duration_since(begun);
    running.ready(after).say(loaded.config.log.format);

    let why = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            // A mount alone ends with it.
            () = running.unmounted() => if !running.forget_mount().await {
                break "nothing is mounted any more";
            },
        }
    };
    tracing::info!("{why}: stopping; a signal aborts");
    tokio::select! {
        () = running.stop() => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = tokio::time::sleep(STOP_DEADLINE) => {
            tracing::error!("not everything stopped within {} s; ending anyway", STOP_DEADLINE.as_secs());
            Ok(ExitCode::FAILURE)
        }
        signal = signals.next() => {
            tracing::warn!("{signal} again: aborted");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Without any work, a node has about 50. With fewer than this, it would fail its first users.
const OPEN_FILES_MIN: u64 = 256;

/// Blocks, connections and UFS transfers hold descriptors: take as many as the system lets us.
///
/// # Errors
/// `Config` if that is less than [`OPEN_FILES_MIN`].
fn open_files_limit() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let mut limit = before;
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
        limit = before;
    }
    match limit.current {
        Some(files) if files < OPEN_FILES_MIN => Err(Error::new(
            ErrorKind::Config,
            format!(
                "this process may have {files} files open, and needs {OPEN_FILES_MIN} at least: raise its limit \
                 (`ulimit -n`, `LimitNOFILE=`)"
            ),
        )),
        _ => Ok(()),
    }
}
