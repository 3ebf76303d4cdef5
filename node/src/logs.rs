//! Logs to standard error; a panic anywhere ends the process.

use std::io::IsTerminal;

use curvine_conf::{LogFormat, LogSection};
use curvine_protocol::{Error, ErrorKind, Result};
use tracing_subscriber::EnvFilter;

/// Libraries that narrate every step at `info`, and two that take for an error what is not: a reply to an interrupted
/// program, and each message to a master that is away, which the Replica says once. Name one in the level to hear it.
const QUIET: &str = "openraft=off,opendal=warn,fuser=warn,fuser::reply=off";

/// Sends logs to standard error. `RUST_LOG` wins over the configured level.
///
/// # Errors
/// `Config` if the level is none.
pub fn start(section: &LogSection) -> Result<()> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| format!("{QUIET},{}", section.level));
    let filter = EnvFilter::try_new(&directives).map_err(|e| {
        Error::new(
            ErrorKind::Config,
            format!(
                "`log.level`: `{}` is not a log level such as \"info\": {e}",
                section.level
            ),
        )
    })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // Where nobody takes the logs (a pipe without a reader, a full disk), there is nowhere to say so either.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match section.format {
        LogFormat::Text => logs.with_target(false).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

/// A panic leaves an actor dead and its callers waiting; a dead process is noticed and restarted from outside.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!(%panic, "a thread panicked: the node aborts, to be restarted; nothing acknowledged is lost");
        std::process::abort();
    }));
}
