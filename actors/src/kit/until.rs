//! Waiting in tests: for a condition, with a deadline, never for a time.

use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(1);

/// Returns when it holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    until_some(what, || std::future::ready(holds().then_some(()))).await;
}

/// Tries until there is a value.
#[expect(clippy::disallowed_methods, reason = "a test waits for what takes time")]
pub async fn until_some<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    // Not the runtime's clock, which a test may have stopped.
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "never happened: {what}");
        tokio::time::sleep(EVERY).await;
    }
}
