//! Who a client is to the masters: its session, and the numbers of the session's changes.
//!
//! A number stays the same however often its change is tried, so that it has one effect; the masters forget the replies
//! below the first that is still in flight. A session that has ended is never taken up again: the next one has other
//! numbers.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::ClientId;
use curvine_protocol::master::LEASE_SILENT_MS;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Sequences {
    open: Mutex<Option<Open>>,
}

/// A session that the masters know.
struct Open {
    client: ClientId,
    last: u64,
    in_flight: BTreeSet<u64>,
    /// When this client began to ask what was answered last: the masters heard it no earlier.
    heard: Instant,
    /// How often the masters did not hear of it for [`LAPSE`].
    lapses: u64,
}

impl Open {
    /// Whether a silence that lasts until then is a long one.
    fn lapses_by(&self, then: Instant) -> bool {
        then.saturating_duration_since(self.heard) >= LAPSE
    }
}

/// After a silence of so long, leases may have been given on.
const LAPSE: Duration = Duration::from_millis(LEASE_SILENT_MS * 4 / 5);

/// A sequence while its change is in flight.
pub(super) struct Turn<'a> {
    sequences: &'a Sequences,
    pub client: ClientId,
    pub sequence: u64,
    pub acked_below: u64,
}

impl Sequences {
    /// A change of the session, if there is one that was heard since.
    pub fn begin(&self, heard_since: Option<Instant>) -> Option<Turn<'_>> {
        let mut open = self.open();
        let open = open.as_mut()?;
        if heard_since.is_some_and(|since| open.heard < since) {
            return None;
        }
        open.last += 1;
        let sequence = open.last;
        open.in_flight.insert(sequence);
        Some(Turn {
            sequences: self,
            client: open.client,
            sequence,
            acked_below: open.in_flight.first().copied().unwrap_or(sequence),
        })
    }

    /// A change of before that keeps its number. The first that is in flight, if the session goes on.
    pub fn acked_below(&self, client: ClientId) -> Option<u64> {
        let open = self.open();
        let open = open.as_ref().filter(|open| open.client == client)?;
        open.in_flight.first().copied()
    }

    /// A change that kept its number needs it no more.
    pub fn release(&self, client: ClientId, sequence: u64) {
        if let Some(open) = self.open().as_mut()
            && open.client == client
        {
            open.in_flight.remove(&sequence);
        }
    }

    pub fn session(&self) -> Option<ClientId> {
        self.open().as_ref().map(|open| open.client)
    }

    /// The session, if it was heard since.
    pub fn session_heard_since(&self, since: Instant) -> Option<ClientId> {
        self.open()
            .as_ref()
            .filter(|open| open.heard >= since)
            .map(|open| open.client)
    }

    /// The masters have begun a session, and were asked at this time.
    pub fn opened(&self, client: ClientId, asked: Instant) {
        *self.open() = Some(Open {
            client,
            last: 0,
            in_flight: BTreeSet::new(),
            heard: asked,
            lapses: 0,
        });
    }

    /// The masters heard of the session when they were asked at this time. Whether they had not for long.
    pub fn heard(&self, client: ClientId, asked: Instant) -> bool {
        let mut open = self.open();
        let Some(open) = open.as_mut().filter(|open| open.client == client) else {
            return false;
        };
        let lapsed = open.lapses_by(asked);
        open.lapses += u64::from(lapsed);
        open.heard = open.heard.max(asked);
        lapsed
    }

    /// How often the masters did not hear of the session for long. A silence that lasts until now counts, too.
    pub fn lapses(&self, now: Instant) -> u64 {
        let open = self.open();
        let lapses = open
            .as_ref()
            .map(|open| open.lapses + u64::from(open.lapses_by(now)));
        lapses.unwrap_or(0)
    }

    /// The masters say that this session has ended.
    pub fn ended(&self, client: ClientId) {
        let mut open = self.open();
        if open.as_ref().is_some_and(|open| open.client == client) {
            *open = None;
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().expect("nobody panics while holding this")
    }
}

impl Turn<'_> {
    /// Keeps the number in flight, until it is released.
    pub fn keep(self) -> (ClientId, u64) {
        let kept = (self.client, self.sequence);
        std::mem::forget(self);
        kept
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.sequences.release(self.client, self.sequence);
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// A time to count from.
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_is_acknowledged_is_below_everything_in_flight() {
        let sequences = Sequences::default();
        assert!(sequences.begin(None).is_none(), "there is no session yet");
        sequences.opened(ClientId(1), some_time());
        let begin = || sequences.begin(None).expect("a session");
        let (first, second) = (begin(), begin());
        assert_eq!((first.sequence, second.sequence, second.acked_below), (1, 2, 1));
        drop(first);
        let third = begin();
        assert_eq!((third.sequence, third.acked_below), (3, 2));
        drop(second);
        drop(third);
        let fourth = begin();
        assert_eq!((fourth.sequence, fourth.acked_below), (4, 4));
        let (client, kept) = fourth.keep();
        let fifth = begin();
        assert_eq!((fifth.sequence, fifth.acked_below), (5, 4));
        assert_eq!(sequences.acked_below(client), Some(4));
        sequences.release(client, kept);
        assert_eq!(sequences.acked_below(client), Some(5));
        assert_eq!(sequences.acked_below(ClientId(7)), None);
    }

    #[test]
    fn a_new_session_has_numbers_of_its_own() {
        let sequences = Sequences::default();
        let now = some_time();
        sequences.opened(ClientId(1), now);
        let old = sequences.begin(None).expect("a session");
        sequences.ended(ClientId(1));
        assert!(sequences.begin(None).is_none());
        sequences.opened(ClientId(2), now);
        // Late news of the old one.
        sequences.ended(ClientId(1));
        drop(old);
        let first = sequences.begin(None).expect("a session");
        assert_eq!(
            (first.client, first.sequence, first.acked_below),
            (ClientId(2), 1, 1)
        );
    }

    #[test]
    fn a_session_of_which_was_not_heard_for_long_makes_no_change_before_it_was_asked_for() {
        let sequences = Sequences::default();
        let (begun, later) = (some_time(), some_time() + Duration::from_secs(40));
        sequences.opened(ClientId(1), begun);
        assert!(sequences.begin(Some(later)).is_none());
        sequences.heard(ClientId(1), later);
        assert!(sequences.begin(Some(later)).is_some());
        assert_eq!(sequences.session_heard_since(later), Some(ClientId(1)));
    }
}
