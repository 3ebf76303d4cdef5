//! What readers of each mount's files get here, and what its store gives for it: counted since this worker began.
//!
//! Invariant: what is remembered is bounded. A reader says of which mount a block is; nothing but these numbers depends on it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use curvine_protocol::MountId;
use curvine_protocol::mount::MountTraffic;

/// Mounts that are told apart. Of others nothing is counted.
const MOUNTS_MAX: usize = 4_096;

/// Of all mounts.
#[derive(Default)]
pub struct Traffic(RwLock<HashMap<MountId, Arc<Counts>>>);

/// Of one mount.
#[derive(Default)]
pub struct Counts {
    hits: AtomicU64,
    hit_bytes: AtomicU64,
    misses: AtomicU64,
    miss_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
    quota_evicted_bytes: AtomicU64,
}

/// Where a reader's bytes were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// On this worker.
    Here,
    /// In the store.
    Below,
}

impl Traffic {
    /// The counts of a mount.
    pub fn of(&self, mount: MountId) -> Arc<Counts> {
        let known = self.0.read().expect("nobody panics while it holds this");
        if let Some(counts) = known.get(&mount) {
            return counts.clone();
        }
        drop(known);
        let mut known = self.0.write().expect("nobody panics while it holds this");
        match known.len() < MOUNTS_MAX || known.contains_key(&mount) {
            true => known.entry(mount).or_default().clone(),
            false => Arc::default(),
        }
    }

    /// What was counted of each mount, in no order. What is cached of it is not.
    pub fn counted(&self) -> Vec<(MountId, MountTraffic)> {
        let known = self.0.read().expect("nobody panics while it holds this");
        known
            .iter()
            .map(|(mount, counts)| (*mount, counts.counted()))
            .collect()
    }
}

impl Counts {
    /// A reader was answered.
    pub fn read(&self, found: Found, len_bytes: usize) {
        let (reads, bytes) = match found {
            Found::Here => (&self.hits, &self.hit_bytes),
            Found::Below => (&self.misses, &self.miss_bytes),
        };
        reads.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(len_bytes as u64, Ordering::Relaxed);
    }

    /// Bytes came from the store.
    pub fn fetched(&self, len_bytes: usize) {
        self.fetched_bytes.fetch_add(len_bytes as u64, Ordering::Relaxed);
    }

    /// A block went because those of the mount took more than its quota.
    pub fn evicted_for_quota(&self, len_bytes: u64) {
        self.quota_evicted_bytes.fetch_add(len_bytes, Ordering::Relaxed);
    }

    fn counted(&self) -> MountTraffic {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        MountTraffic {
            hits: count(&self.hits),
            hit_bytes: count(&self.hit_bytes),
            misses: count(&self.misses),
            miss_bytes: count(&self.miss_bytes),
            fetched_bytes: count(&self.fetched_bytes),
            cached_bytes: 0,
            quota_evicted_bytes: count(&self.quota_evicted_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::number::to_u32;

    use super::*;

    #[test]
    fn what_readers_claim_of_mounts_takes_bounded_memory() {
        let traffic = Traffic::default();
        for mount in 0..2 * to_u32(MOUNTS_MAX) {
            traffic.of(MountId(mount)).read(Found::Here, 1);
            traffic.of(MountId(mount)).read(Found::Below, 2);
        }
        let counted = traffic.counted();
        assert_eq!(counted.len(), MOUNTS_MAX);
        let each = MountTraffic {
            hits: 1,
            hit_bytes: 1,
            misses: 1,
            miss_bytes: 2,
            ..MountTraffic::default()
        };
        assert!(counted.iter().all(|(_, one)| *one == each));
    }
}
