//! How long to wait before the next try. Pure: chance is an argument.

use curvine_protocol::number::whole_ns;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);

/// Pauses that double up to a limit. Each is between half of that and all of it, so that those who failed together do not
/// come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    whole: Duration,
    max: Duration,
}

impl Backoff {
    pub fn up_to(max: Duration) -> Backoff {
        Backoff { whole: FIRST, max }
    }

    /// The next pause; `chance` is any random number.
    pub fn next(&mut self, chance: u64) -> Duration {
        let whole = self.whole.min(self.max);
        self.whole = (whole * 2).min(self.max);
        let half = whole / 2;
        half + Duration::from_micros(chance % (whole_ns(half) / 1_000 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_chance_takes_up_to_half_of_them() {
        let pauses = |chance| -> Vec<u128> {
            let mut backoff = Backoff::up_to(Duration::from_millis(250));
            (0..7).map(|_| backoff.next(chance).as_millis()).collect()
        };
        assert_eq!(pauses(0), [10, 20, 40, 80, 125, 125, 125]);
        assert_eq!(pauses(3_000), [13, 23, 43, 83, 128, 128, 128]);
        let mut longest = Backoff::up_to(Duration::from_millis(250));
        assert_eq!(longest.next(10_000), FIRST);
    }
}
