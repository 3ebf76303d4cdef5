//! What the cached blocks of a mount may take on this worker.
//!
//! The master divides a mount's quota among the workers and tells each its share with the answers to heartbeats. Before a
//! block is fetched, as much of its mount goes as it lacks; what is above a share that has become smaller goes when that is
//! told. Which blocks go is for the policy of each disk ([`Cached`](crate::worker::disk)).
//!
//! Invariant: nothing is refused for a quota. What is pinned, kept or in use stays, so a mount may have more than its share.

use std::collections::BTreeMap;
use std::sync::Mutex;

use curvine_protocol::MountId;
use curvine_protocol::master::CacheShare;
use curvine_protocol::mount::MountTraffic;

use super::Disks;
use crate::worker::disk::DiskRef;

/// In bytes, of each mount that has a quota. Of others there is no limit.
#[derive(Default)]
pub struct CacheShares(Mutex<BTreeMap<MountId, u64>>);

impl CacheShares {
    fn of(&self, mount: MountId) -> Option<u64> {
        let shares = self.0.lock().expect("nobody panics while it holds this");
        shares.get(&mount).copied()
    }

    fn are(&self, told: &[CacheShare]) {
        let told = told.iter().map(|share| (share.mount, share.bytes));
        *self.0.lock().expect("nobody panics while it holds this") = told.collect();
    }
}

/// What each disk is to let go of, by what it has, so that all have no more than `share_bytes` with what comes.
fn to_let_go(has_bytes: &[u64], coming_bytes: u64, share_bytes: u64) -> Vec<u64> {
    let sum_bytes: u64 = has_bytes.iter().sum();
    let over_bytes = sum_bytes.saturating_add(coming_bytes).saturating_sub(share_bytes);
    let mut left_bytes = over_bytes.min(sum_bytes);
    let mut left_of = sum_bytes;
    let part = |has: &u64| {
        // In proportion, and the last one takes what is left by rounding.
        let part = match left_of {
            0 => 0,
            all => u128::from(left_bytes) * u128::from(*has) / u128::from(all),
        };
        let part = u64::try_from(part).expect("it is a part of what is left");
        left_bytes -= part;
        left_of -= has;
        part
    };
    has_bytes.iter().map(part).collect()
}

impl Disks {
    /// The master says what the blocks of mounts may take here.
    pub fn take_shares(&self, shares: &[CacheShare]) {
        self.inner.shares.are(shares);
        for disk in self.all() {
            disk.store.have_quotas(shares.iter().map(|share| share.mount));
        }
        for share in shares {
            self.make_room_in_quota(share.mount, 0);
        }
    }

    /// Has as many cached blocks of a mount go as it has too many if so many bytes of it come. Does not wait for that.
    pub fn make_room_in_quota(&self, mount: MountId, coming_bytes: u64) {
        let Some(share_bytes) = self.inner.shares.of(mount) else {
            return;
        };
        let has_bytes: Vec<u64> = self.all().iter().map(|disk| disk.store.bytes_of(mount)).collect();
        let goes = to_let_go(&has_bytes, coming_bytes, share_bytes);
        let counts = self.inner.traffic.of(mount);
        for (disk, bytes) in self.all().iter().zip(goes).filter(|(_, bytes)| *bytes > 0) {
            let counts = counts.clone();
            let went = move |bytes| counts.evicted_for_quota(bytes);
            disk.store.evict_for_quota(mount, bytes, went);
        }
    }

    /// What was counted of each mount, with what is cached of it now.
    pub fn counted(&self) -> Vec<(MountId, MountTraffic)> {
        let mut counted: BTreeMap<_, _> = self.inner.traffic.counted().into_iter().collect();
        let of_disk = |disk: &DiskRef| disk.store.bytes_of_mounts();
        for (mount, bytes) in self
            .all()
            .iter()
            .flat_map(of_disk)
            .filter(|(_, bytes)| *bytes > 0)
        {
            counted.entry(mount).or_default().cached_bytes += bytes;
        }
        counted.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_goes_is_what_is_too_much_from_each_disk_by_what_it_has() {
        assert_eq!(to_let_go(&[60, 30, 0], 0, 100), [0, 0, 0]);
        assert_eq!(to_let_go(&[60, 30, 0], 40, 100), [20, 10, 0]);
        assert_eq!(
            to_let_go(&[60, 30], 500, 100),
            [60, 30],
            "and no more than there is"
        );
        assert!(to_let_go(&[], 5, 1).is_empty());
    }

    proptest! {
        #[test]
        fn the_parts_come_to_what_is_too_much(
            has in prop::collection::vec(0..u64::MAX / 16, 0..8),
            coming in any::<u64>(),
            share in any::<u64>(),
        ) {
            let goes = to_let_go(&has, coming, share);
            let sum: u64 = has.iter().sum();
            let over = sum.saturating_add(coming).saturating_sub(share).min(sum);
            prop_assert_eq!(goes.iter().sum::<u64>(), over);
            prop_assert!(goes.iter().zip(&has).all(|(goes, has)| goes <= has));
        }
    }
}
