//! How long the log gets: when a snapshot is due, and how much of the log is kept behind it.
//!
//! What a master that lost power has to do again is the log behind its snapshot, and a snapshot writes the whole state: one is
//! due when the log behind the last is as long as half the state, so that it never costs more than twice what the log did.
//! The log before a snapshot is kept for masters that are back after a while, which get on with it much sooner than with a
//! snapshot; its length on disk is limited.
//!
//! All that is dropped is dropped from here: openraft's own rule may ask for less than was asked for already, which it does not
//! stand.

use curvine_protocol::Result;

use super::log::LogStore;
use super::types::Raft;
use crate::master::namespace::store::Store;

/// How long the log gets.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// A snapshot is due after so many entries.
    pub snapshot_every_entries: u64,
    /// And after so many bytes of them, or half of what the state takes if that is more.
    pub snapshot_every_bytes: u64,
    /// What is kept behind a snapshot, at most: who is not further back catches up without one.
    pub kept_entries: u64,
    pub kept_bytes: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        LogLimits {
            snapshot_every_entries: 1_000_000,
            snapshot_every_bytes: 64 << 20,
            kept_entries: 1_000_000,
            kept_bytes: 256 << 20,
        }
    }
}

/// What keeps the log short.
pub(super) struct LogLength {
    limits: LogLimits,
    store: Store,
    /// Bytes written to the log, at which the next snapshot is due. None until the first look at it.
    due_at: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Snapshot,
    /// Drops the log up to an index, which the snapshot has.
    Purge(u64),
}

impl Step {
    pub(super) async fn take(self, raft: Raft) {
        let taken = match self {
            Step::Snapshot => raft.trigger().snapshot().await,
            Step::Purge(upto) => raft.trigger().purge_log(upto).await,
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "the log was not made shorter");
        }
    }
}

/// Indices of entries.
#[derive(Clone, Copy)]
struct Span {
    /// The last that was dropped, the last that the snapshot has, the last of all.
    purged: u64,
    snapshot: u64,
    last: u64,
}

impl LogLength {
    pub(super) fn new(limits: LogLimits, store: Store) -> Self {
        LogLength {
            limits,
            store,
            due_at: None,
        }
    }

    /// What is due now.
    pub(super) fn next_step(&mut self, log: &LogStore, raft: &Raft) -> Option<Step> {
        let span = {
            let metrics = raft.metrics();
            let now = metrics.borrow();
            Span {
                purged: now.purged.map_or(0, |id| id.index),
                snapshot: now.snapshot.map_or(0, |id| id.index),
                last: now.last_log_index?,
            }
        };
        let step = self.step(span, log);
        step.unwrap_or_else(|error| {
            tracing::warn!("measuring the log: {error}");
            None
        })
    }

    fn step(&mut self, span: Span, log: &LogStore) -> Result<Option<Step>> {
        let (size, written) = (log.size_bytes()?, log.written_bytes());
        let state = self.store.size_bytes()?;
        let every = self.limits.snapshot_every_bytes.max(state / 2);
        // What was there at the start counts as well.
        let due_at = *self
            .due_at
            .get_or_insert_with(|| (written + every).saturating_sub(behind_snapshot(size, span)));
        if written >= due_at {
            self.due_at = Some(written + every);
            return Ok(Some(Step::Snapshot));
        }
        Ok(surplus(size, span, &self.limits).map(Step::Purge))
    }
}

/// Bytes of the log that no snapshot has, if its entries are about the same size.
fn behind_snapshot(size_bytes: u64, span: Span) -> u64 {
    let all = span.last - span.purged.min(span.last);
    let behind = span.last - span.snapshot.min(span.last);
    scaled(size_bytes, behind, all)
}

/// Up to where the log is to be dropped, so that no more of it is kept than the limits say: in bytes by the mean size of
/// its entries, the next time again by what it takes then. None if it is short enough, or no snapshot has more of it.
fn surplus(size_bytes: u64, span: Span, limits: &LogLimits) -> Option<u64> {
    let over = size_bytes.saturating_sub(limits.kept_bytes);
    let count = scaled(span.last - span.purged.min(span.last), over, size_bytes);
    let by_bytes = (span.purged + count).min(span.snapshot);
    let by_count = span.snapshot.saturating_sub(limits.kept_entries);
    let upto = by_bytes.max(by_count);
    (upto > span.purged).then_some(upto)
}

fn scaled(whole: u64, part: u64, of: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(part) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(purged: u64, snapshot: u64, last: u64) -> Span {
        Span {
            purged,
            snapshot,
            last,
        }
    }

    #[test]
    fn what_a_snapshot_has_does_not_count_for_the_next() {
        assert_eq!(behind_snapshot(1_000, span(0, 0, 100)), 1_000);
        assert_eq!(behind_snapshot(1_000, span(100, 150, 200)), 500);
        assert_eq!(behind_snapshot(1_000, span(100, 200, 200)), 0);
        // The snapshot was installed, and the log has gone.
        assert_eq!(behind_snapshot(0, span(300, 300, 200)), 0);
    }

    #[test]
    fn the_log_is_dropped_to_its_limit_and_never_further_than_the_snapshot() {
        let surplus = |size_bytes, span, kept_bytes, kept_entries| {
            let limits = LogLimits {
                kept_bytes,
                kept_entries,
                ..LogLimits::default()
            };
            surplus(size_bytes, span, &limits)
        };
        assert_eq!(surplus(1_000, span(0, 100, 100), 1_000, 100), None);
        assert_eq!(surplus(1_000, span(0, 100, 100), 400, 100), Some(60));
        assert_eq!(surplus(1_000, span(0, 30, 100), 400, 100), Some(30));
        assert_eq!(surplus(1_000, span(30, 30, 130), 400, 100), None);
        assert_eq!(surplus(1_000, span(1_000, 1_090, 1_100), 400, 100), Some(1_060));
        assert_eq!(surplus(1_000, span(300, 300, 200), 0, 0), None);
        assert_eq!(surplus(0, span(0, 0, 0), 0, 0), None);
        assert_eq!(surplus(1_000, span(0, 90, 100), 1_000, 30), Some(60));
        assert_eq!(surplus(1_000, span(0, 90, 100), 400, 80), Some(60));
    }
}
