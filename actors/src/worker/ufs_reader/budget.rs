//! Memory for bytes on their way from under file systems, shared between mounts so that one whose store is slow or silent
//! keeps no other from moving.
//!
//! Invariants:
//! - Of any mount one transfer moves at any time, whatever the others hold. So the memory is bounded by the budget and one
//!   transfer's for each mount.
//! - A mount alone uses no more than [`SHARE`] of the budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use curvine_protocol::MountId;
use curvine_protocol::number::{to_u32, to_usize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One unit of the budget.
const PERMIT_BYTES: u64 = 64 * 1024;
/// Of so many parts of the budget a mount may have all but one.
const SHARE: usize = 4;
/// Mounts that are remembered though nothing of them moves.
const IDLE_MOUNTS_MAX: usize = 64;

/// A budget for all transfers of one kind.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Semaphore>,
    permits: usize,
    /// What one transfer holds at most, in permits.
    transfer_permits: usize,
    mounts: Arc<Mutex<HashMap<MountId, Arc<Mount>>>>,
}

struct Mount {
    /// For one transfer beside the budget.
    own: Arc<Semaphore>,
    share: Arc<Semaphore>,
}

/// Memory that a transfer has while it keeps this.
pub struct Taken {
    _permits: Vec<OwnedSemaphorePermit>,
    _mount: Arc<Mount>,
}

impl Budget {
    /// Of so many bytes, for transfers that hold at most `transfer_bytes` each.
    pub fn new(bytes: u64, transfer_bytes: u64) -> Self {
        let transfer_permits = to_usize(transfer_bytes.div_ceil(PERMIT_BYTES)).max(1);
        let permits = to_usize(bytes / PERMIT_BYTES).max(transfer_permits);
        Budget {
            shared: Arc::new(Semaphore::new(permits)),
            permits,
            transfer_permits,
            mounts: Arc::default(),
        }
    }

    /// Memory for a transfer of so many bytes of a mount. Waits until there is some.
    pub async fn take(&self, mount: MountId, len_bytes: u64) -> Taken {
        let wanted = to_usize(len_bytes.div_ceil(PERMIT_BYTES)).clamp(1, self.transfer_permits);
        let mount = self.mount(mount);
        // Whoever waits for its share holds nothing of the budget.
        let of_all = async {
            let wanted = to_u32(wanted);
            let share = acquire(&mount.share, wanted).await;
            vec![share, acquire(&self.shared, wanted).await]
        };
        let permits = tokio::select! {
            biased;
            own = acquire(&mount.own, 1) => vec![own],
            of_all = of_all => of_all,
        };
        Taken {
            _permits: permits,
            _mount: mount,
        }
    }

    fn mount(&self, id: MountId) -> Arc<Mount> {
        let mut mounts = self
            .mounts
            .lock()
            .expect("nobody panics while it holds the mounts");
        if mounts.len() > IDLE_MOUNTS_MAX {
            mounts.retain(|_, mount| Arc::strong_count(mount) > 1);
        }
        let share = (self.permits - self.permits / SHARE).max(self.transfer_permits);
        let new = || Mount {
            own: Arc::new(Semaphore::new(1)),
            share: Arc::new(Semaphore::new(share)),
        };
        mounts.entry(id).or_insert_with(|| Arc::new(new())).clone()
    }
}

async fn acquire(from: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    let acquired = from.clone().acquire_many_owned(permits).await;
    acquired.expect("the budget is never closed")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn take(budget: &Budget, mount: u32) -> Option<Taken> {
        budget.take(MountId(mount), MIB).now_or_never()
    }

    /// As many transfers as get memory at once.
    fn take_all(budget: &Budget, mount: u32) -> Vec<Taken> {
        std::iter::from_fn(|| take(budget, mount)).collect()
    }

    #[test]
    fn silent_stores_keep_no_other_from_moving() {
        let budget = Budget::new(8 * MIB, MIB);
        let silent: Vec<_> = (1..5).map(|mount| take_all(&budget, mount)).collect();
        let counts: Vec<_> = silent.iter().map(Vec::len).collect();
        assert_eq!(counts, [7, 3, 1, 1], "its own, and what is left of the budget");
        let first = take(&budget, 9).expect("one of its own");
        assert!(take(&budget, 9).is_none(), "the rest is taken");
        drop(first);
        assert!(take(&budget, 9).is_some());
        drop(silent);
        assert_eq!(take_all(&budget, 9).len(), 7, "three quarters, and its own");
    }

    #[test]
    fn whoever_waits_gets_what_comes_first() {
        let budget = Budget::new(2 * MIB, MIB);
        let mut taken = take_all(&budget, 1);
        assert_eq!(taken.len(), 2);
        let mut waiting = std::pin::pin!(budget.take(MountId(1), MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        taken.remove(0);
        assert!(waiting.as_mut().now_or_never().is_some(), "its own is free again");
    }

    #[test]
    fn a_transfer_of_more_than_a_transfers_bytes_has_only_that_and_one_of_less_has_less() {
        let budget = Budget::new(4 * MIB, MIB);
        let _own = take(&budget, 1);
        let _large = budget.take(MountId(1), 100 * MIB).now_or_never().expect("cut");
        assert_eq!(budget.shared.available_permits(), 48);
        let _small = budget.take(MountId(1), 1).now_or_never().expect("there is room");
        assert_eq!(budget.shared.available_permits(), 47);
    }

    #[test]
    fn mounts_of_which_nothing_moves_are_forgotten() {
        let budget = Budget::new(MIB, MIB);
        let kept = take(&budget, 0).expect("one of its own");
        (1..=2 * u32::try_from(IDLE_MOUNTS_MAX).expect("small")).for_each(|mount| drop(take(&budget, mount)));
        assert!(budget.mounts.lock().expect("nobody panics").len() <= IDLE_MOUNTS_MAX + 1);
        assert!(Arc::ptr_eq(&kept._mount, &budget.mount(MountId(0))));
    }
}
