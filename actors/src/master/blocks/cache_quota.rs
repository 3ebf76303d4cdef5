//! How the cache quota of a mount is divided among the workers: pure.
//!
//! Workers alone see the reads, so each decides what goes; the leader says how much each may have. Where there is room below
//! the quota, everybody may have what is there and an equal part of the rest. Where there is not, those with the most give
//! way first, down to one level for all; so a worker that nobody read from before gets its part of a mount that others
//! have filled.
//!
//! Invariants:
//! - What workers have and are told to have never adds up to more than the quota by what is told here: what one gets more,
//!   others have let go of before, and have said so.
//! - A worker that has nothing is never held to nothing: the others let go of a little for it, [`RESERVE_SHARE`].

use super::Cluster;
use super::roster::LOST_AFTER;
use curvine_protocol::WorkerId;
use tokio::time::Instant;

/// A worker may always come to have so much more than it has: this part of its fair part. Where the others have nothing to
/// read, so much of the quota stays unused.
const RESERVE_SHARE: u64 = 8;

/// What a worker has of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// As it has said last.
    pub cached_bytes: u64,
    /// What it was told that it may have.
    pub told_bytes: u64,
}

/// What one of the live workers, that at this place, may have of a mount with a quota; in bytes.
pub fn share_of(quota_bytes: u64, workers: &[CacheUse], place: usize) -> u64 {
    let count = u64::try_from(workers.len()).unwrap_or(u64::MAX).max(1);
    let reserve_bytes = quota_bytes / count / RESERVE_SHARE;
    let wanted = |worker: &CacheUse| worker.cached_bytes.saturating_add(reserve_bytes);
    let sum = workers
        .iter()
        .fold(0_u64, |sum, worker| sum.saturating_add(wanted(worker)));
    let mine = workers.get(place).copied().unwrap_or_default();
    let target_bytes = match quota_bytes.checked_sub(sum) {
        Some(rest_bytes) => wanted(&mine) + rest_bytes / count,
        None => wanted(&mine).min(level(quota_bytes, workers.iter().map(wanted).collect())),
    };
    let others = workers.iter().enumerate().filter(|(at, _)| *at != place);
    let of_others = others.fold(0_u64, |sum, (_, worker)| {
        sum.saturating_add(worker.cached_bytes.max(worker.told_bytes))
    });
    let free_bytes = quota_bytes.saturating_sub(of_others);
    target_bytes.min(free_bytes.max(mine.cached_bytes))
}

/// The most that each may have so that all together have no more than the quota.
fn level(quota_bytes: u64, mut wanted: Vec<u64>) -> u64 {
    wanted.sort_unstable();
    let (mut left_bytes, mut left) = (quota_bytes, wanted.len() as u64);
    for wanted in wanted {
        let level = left_bytes / left.max(1);
        if wanted >= level {
            return level;
        }
        left_bytes -= wanted;
        left -= 1;
    }
    quota_bytes
}

impl Cluster {
    /// Whether it is known enough of the workers to divide quotas among them: all are registered, or who is not may be gone.
    /// Before, each keeps to what the leader before has told.
    pub fn may_divide_quotas(&self, last_worker: WorkerId, now: Instant) -> bool {
        let leads_long = self
            .leads_since
            .is_some_and(|since| now.duration_since(since) >= LOST_AFTER);
        leads_long || self.roster.are_all_registered(last_worker)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(cached_bytes: u64) -> CacheUse {
        CacheUse {
            cached_bytes,
            told_bytes: 0,
        }
    }

    /// Each in turn is told, does as it was told, and says so.
    fn settle(quota_bytes: u64, workers: &mut [CacheUse], wants: &[u64]) {
        for place in 0..workers.len() {
            workers[place].told_bytes = share_of(quota_bytes, workers, place);
            workers[place].cached_bytes = wants[place].min(workers[place].told_bytes);
        }
    }

    #[test]
    fn below_the_quota_everybody_may_have_what_is_there_and_a_part_of_the_rest() {
        let workers = [has(800), has(0)];
        assert_eq!(share_of(1_600, &workers, 0), 800 + 100 + 300);
        assert_eq!(share_of(1_600, &workers, 1), 100 + 300);
        assert_eq!(share_of(0, &workers, 0), 0);
        assert_eq!(share_of(7, &[], 0), 7, "of a worker that is not known");
    }

    #[test]
    fn above_the_quota_those_with_the_most_give_way() {
        let workers = [has(3_000), has(200), has(1_000)];
        // 2,400 in all: 200 and a reserve of 100, and the others share the rest.
        assert_eq!(share_of(2_400, &workers, 0), 1_050);
        assert_eq!(
            share_of(2_400, &workers, 2),
            1_000,
            "not more before the first has let go"
        );
        assert_eq!(share_of(2_400, &workers, 1), 200);
    }

    #[test]
    fn a_worker_that_comes_late_gets_its_part() {
        let quota = 16_000;
        let mut workers = vec![
            CacheUse {
                cached_bytes: quota,
                told_bytes: quota,
            },
            has(0),
        ];
        for _ in 0..100 {
            settle(quota, &mut workers, &[u64::MAX, u64::MAX]);
        }
        assert!(
            workers
                .iter()
                .all(|worker| worker.cached_bytes.abs_diff(quota / 2) <= quota / 16),
            "{workers:?}"
        );
        // And the one that is left alone with its readers gets most of it back.
        for _ in 0..100 {
            settle(quota, &mut workers, &[u64::MAX, 0]);
        }
        assert!(workers[0].cached_bytes >= quota - quota / 8, "{workers:?}");
    }

    proptest! {
        #[test]
        fn what_workers_come_to_have_is_never_more_than_the_quota(
            quota in 1..1_000_000_u64,
            rounds in prop::collection::vec(prop::collection::vec(0..2_000_000_u64, 4), 1..20),
        ) {
            let mut workers = vec![CacheUse::default(); 4];
            for wants in rounds {
                settle(quota, &mut workers, &wants);
                let sum: u64 = workers.iter().map(|worker| worker.cached_bytes.max(worker.told_bytes)).sum();
                prop_assert!(sum <= quota, "{} of {}", sum, quota);
            }
        }

        #[test]
        fn whatever_they_had_before_they_come_to_the_quota_in_one_round(
            quota in 1..1_000_000_u64,
            before in prop::collection::vec(0..2_000_000_u64, 1..6),
        ) {
            let mut workers: Vec<_> = before.iter().map(|bytes| has(*bytes)).collect();
            settle(quota, &mut workers, &before);
            let sum: u64 = workers.iter().map(|worker| worker.cached_bytes).sum();
            prop_assert!(sum <= quota);
            // And not far below, if they had enough.
            let all: u64 = before.iter().sum();
            prop_assert!(sum + quota / RESERVE_SHARE + 4 * workers.len() as u64 >= quota.min(all), "{} of {}", sum, quota);
        }
    }
}
