//! A limit in bytes a second that several share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::kit::Clock;

/// Who takes bytes waits until those before it have had their time. Nobody saves up time that nobody used.
pub struct Pace {
    /// None: there is no limit.
    bytes_per_s: Option<u64>,
    /// When all that was taken has had its time.
    free_at: Mutex<Option<Instant>>,
    clock: Arc<dyn Clock>,
}

impl Pace {
    /// 0 bytes a second = no limit.
    pub fn new(bytes_per_s: u64, clock: Arc<dyn Clock>) -> Self {
        Pace {
            bytes_per_s: Some(bytes_per_s).filter(|bytes| *bytes > 0),
            free_at: Mutex::default(),
            clock,
        }
    }

    /// Waits for the time that so many bytes may take.
    pub async fn take(&self, bytes: u64) {
        let now = self.clock.now();
        let until = self.until(bytes, now);
        if until > now {
            tokio::time::sleep(until - now).await;
        }
    }

    fn until(&self, bytes: u64, now: Instant) -> Instant {
        let Some(bytes_per_s) = self.bytes_per_s else {
            return now;
        };
        let took = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        let mut free_at = self.free_at.lock().expect("nobody panics while it holds this");
        let until = free_at.map_or(now, |free_at| free_at.max(now)) + took;
        *free_at = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::ports::SystemClock;

    const MIB: u64 = 1 << 20;

    #[test]
    fn those_who_share_it_have_their_time_one_after_the_other_and_none_is_saved_up() {
        let clock = Arc::new(SystemClock);
        let now = clock.now();
        let pace = Pace::new(MIB, clock.clone());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(pace.until(2 * MIB, now), after(2));
        assert_eq!(pace.until(MIB, now), after(3));
        assert_eq!(
            pace.until(MIB, after(60)),
            after(61),
            "a minute of rest gives no more"
        );
        let unlimited = Pace::new(0, clock);
        assert_eq!(unlimited.until(1 << 50, now), now);
    }
}
