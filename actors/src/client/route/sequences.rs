//! The numbers of a session's changes. A number stays the same however often its change is tried, so that it has one
//! effect; the masters forget the replies below the first that is still in flight.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(super) struct Sequences {
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    last: u64,
    in_flight: BTreeSet<u64>,
}

/// A sequence while its change is in flight.
pub(super) struct Turn<'a> {
    sequences: &'a Sequences,
    pub sequence: u64,
    pub acked_below: u64,
}

impl Sequences {
    pub fn begin(&self) -> Turn<'_> {
        let mut numbers = self.numbers();
        numbers.last += 1;
        let sequence = numbers.last;
        numbers.in_flight.insert(sequence);
        Turn {
            sequences: self,
            sequence,
            acked_below: numbers.in_flight.first().copied().unwrap_or(sequence),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().expect("nobody panics while holding this")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sequences.numbers().in_flight.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_below_everything_in_flight() {
        let sequences = Sequences::default();
        let (first, second) = (sequences.begin(), sequences.begin());
        assert_eq!((first.sequence, second.sequence, second.acked_below), (1, 2, 1));
        drop(first);
        let third = sequences.begin();
        assert_eq!((third.sequence, third.acked_below), (3, 2));
        drop(second);
        drop(third);
        let fourth = sequences.begin();
        assert_eq!((fourth.sequence, fourth.acked_below), (4, 4));
    }
}
