//! When to end before everything is done.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code then.
pub const INTERRUPTED: i32 = 130;

/// Resolves at Ctrl-C, SIGTERM or SIGHUP, which do nothing else from the first poll on: who waits for this tidies up.
pub async fn told_to_end() {
    // Without a handler a signal ends the process as it always does.
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt()).ok(),
        signal(SignalKind::terminate()).ok(),
        signal(SignalKind::hangup()).ok(),
    );
    tokio::select! {
        () = heard(&mut interrupt) => {}
        () = heard(&mut terminate) => {}
        () = heard(&mut hangup) => {}
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
