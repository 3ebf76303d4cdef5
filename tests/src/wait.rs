//! Waiting in tests: for a condition, with a deadline, never for a time.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of processes takes the time that passes"
)]

use std::fmt::Display;
use std::time::{Duration, Instant};

/// For what a healthy machine does in well under a second.
pub const DEADLINE: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(10);

/// Tries until there is a value.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    until_ok(what, move || {
        let tried = attempt();
        async move { tried.await.ok_or("not yet") }
    })
    .await
}

/// Tries until it succeeds. What it failed of last is said if it never does.
pub async fn until_ok<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < 2 * DEADLINE, "never happened: {what}: {error}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Tries until there is a value, and blocks the thread meanwhile. None when the deadline is over.
pub fn within<T>(deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if begun.elapsed() >= deadline {
            return None;
        }
        std::thread::sleep(EVERY);
    }
}
