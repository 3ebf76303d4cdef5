//! How much a disk may still take.
//!
//! What counts is what the device gives: whole units for the files of blocks, and the file of the index as long as it is.
//! The index grows by more than what is put into it, until its next sync. So a disk may have more than its capacity by
//! twice what is written to the index between two syncs ([`index_unsynced_max`]), and, while it is shortened, by a copy of
//! what is in it.

use std::collections::HashMap;

use curvine_protocol::{BlockId, Error, ErrorKind, Result};

/// What file systems give to files, at least.
const UNIT_BYTES: u64 = 4 << 10;
/// One in so many of the disk's bytes may be written to the index between two syncs, within these limits.
const UNSYNCED_SHARE: u64 = 64;
const UNSYNCED_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

/// What a file of this length takes on the device.
pub fn on_device(len_bytes: u64) -> u64 {
    len_bytes.div_ceil(UNIT_BYTES).saturating_mul(UNIT_BYTES)
}

/// How much may be written to the index of a disk between two syncs, in bytes.
pub fn index_unsynced_max(capacity_bytes: Option<u64>) -> u64 {
    let share = capacity_bytes.map_or(u64::MAX, |bytes| bytes / UNSYNCED_SHARE);
    share.clamp(*UNSYNCED_BYTES.start(), *UNSYNCED_BYTES.end())
}

/// The space of one disk. Bytes are taken before they are written and given back when a block goes.
#[derive(Clone, Debug)]
pub struct Space {
    /// Most bytes of blocks and index here.
    capacity_bytes: u64,
    /// Free bytes of the device that are never used.
    reserve_bytes: u64,
    /// Of files of blocks, and of what is on its way into the index.
    taken_bytes: u64,
    /// Of the index when it was last looked at.
    index_bytes: u64,
    /// Free bytes of the device when last measured.
    device_free_bytes: u64,
    /// Taken since then, which the measurement may not show.
    taken_since_bytes: u64,
    claims: HashMap<BlockId, Claim>,
    /// What all claims lack yet.
    claimed_bytes: u64,
}

/// Room that was promised for a block.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    promised_bytes: u64,
    /// What of it was not taken yet.
    left_bytes: u64,
}

impl Space {
    pub fn new(
        capacity_bytes: u64,
        reserve_bytes: u64,
        taken_bytes: u64,
        index_bytes: u64,
        device_free_bytes: u64,
    ) -> Self {
        Space {
            capacity_bytes,
            reserve_bytes,
            taken_bytes,
            index_bytes,
            device_free_bytes,
            taken_since_bytes: 0,
            claims: HashMap::new(),
            claimed_bytes: 0,
        }
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    pub fn used_bytes(&self) -> u64 {
        self.taken_bytes + self.index_bytes
    }

    pub fn available_bytes(&self) -> u64 {
        let of_capacity = self.capacity_bytes.saturating_sub(self.used_bytes());
        let of_device = self
            .device_free_bytes
            .saturating_sub(self.reserve_bytes)
            .saturating_sub(self.taken_since_bytes);
        of_capacity.min(of_device)
    }

    /// What was promised and is not taken yet.
    pub fn claimed_bytes(&self) -> u64 {
        self.claimed_bytes
    }

    /// Promises room for a block. Whoever takes bytes for it takes them of that; nobody is kept from taking them.
    pub fn claim(&mut self, block: BlockId, bytes: u64) {
        let claim = self.claims.entry(block).or_default();
        claim.promised_bytes += bytes;
        claim.left_bytes += bytes;
        self.claimed_bytes += bytes;
    }

    /// A promise is over.
    pub fn unclaim(&mut self, block: BlockId, bytes: u64) {
        let Some(claim) = self.claims.get_mut(&block) else {
            return;
        };
        claim.promised_bytes = claim.promised_bytes.saturating_sub(bytes);
        let left_bytes = claim.left_bytes.min(claim.promised_bytes);
        self.claimed_bytes -= claim.left_bytes - left_bytes;
        claim.left_bytes = left_bytes;
        if claim.promised_bytes == 0 {
            self.claims.remove(&block);
        }
    }

    /// Sets bytes aside for a block, of what was promised for it first.
    ///
    /// # Errors
    /// `NoSpace`: nothing is taken.
    pub fn take(&mut self, block: BlockId, bytes: u64, disk: &str) -> Result<()> {
        if bytes > self.available_bytes() {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "disk {disk} has {} bytes left of {} and {bytes} more are needed; free cached data with `cv free` \
                     or add a data directory",
                    self.available_bytes(),
                    self.capacity_bytes
                ),
            ));
        }
        self.taken_bytes += bytes;
        self.taken_since_bytes += bytes;
        if let Some(claim) = self.claims.get_mut(&block) {
            let met_bytes = claim.left_bytes.min(bytes);
            claim.left_bytes -= met_bytes;
            self.claimed_bytes -= met_bytes;
        }
        Ok(())
    }

    pub fn give_back(&mut self, bytes: u64) {
        self.taken_bytes = self.taken_bytes.saturating_sub(bytes);
        self.taken_since_bytes = self.taken_since_bytes.saturating_sub(bytes);
    }

    /// Sets aside what a file needs to become longer; nothing if it does not.
    ///
    /// # Errors
    /// `NoSpace`: nothing is taken.
    pub fn lengthen(&mut self, block: BlockId, from_bytes: u64, to_bytes: u64, disk: &str) -> Result<()> {
        self.take(
            block,
            on_device(to_bytes).saturating_sub(on_device(from_bytes)),
            disk,
        )
    }

    /// Bytes that were in the index have a file now.
    pub fn moved_to_file(&mut self, len_bytes: u64) {
        self.taken_bytes += on_device(len_bytes);
        self.taken_since_bytes += on_device(len_bytes);
    }

    /// Gives back what a file no longer needs that became shorter; nothing if it did not.
    pub fn shorten(&mut self, from_bytes: u64, to_bytes: u64) {
        self.give_back(on_device(from_bytes).saturating_sub(on_device(to_bytes)));
    }

    /// How long the index is now.
    pub fn index_is(&mut self, index_bytes: u64) {
        self.taken_since_bytes += index_bytes.saturating_sub(self.index_bytes);
        self.index_bytes = index_bytes;
    }

    /// A new measurement of the device.
    pub fn measured(&mut self, device_free_bytes: u64) {
        self.device_free_bytes = device_free_bytes;
        self.taken_since_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(7);

    #[test]
    fn what_is_taken_is_not_promised_any_more_and_a_promise_ends_once() {
        let other = BlockId(8);
        let mut space = Space::new(100, 0, 0, 0, 1_000);
        space.claim(BLOCK, 40);
        space.claim(other, 10);
        assert_eq!((space.claimed_bytes(), space.available_bytes()), (50, 100));
        assert_eq!(space.take(BLOCK, 30, "d"), Ok(()));
        assert_eq!((space.claimed_bytes(), space.available_bytes()), (20, 70));
        assert_eq!(space.take(BlockId(9), 70, "d"), Ok(()), "nobody is kept from it");
        assert!(space.take(BLOCK, 1, "d").is_err());
        space.give_back(70);
        // Two that write the same block.
        space.claim(BLOCK, 5);
        assert_eq!(space.claimed_bytes(), 25);
        assert_eq!(space.take(BLOCK, 50, "d"), Ok(()), "more than was promised");
        assert_eq!(space.claimed_bytes(), 10);
        space.claim(BLOCK, 5);
        space.unclaim(BLOCK, 40);
        assert_eq!(space.claimed_bytes(), 15);
        space.unclaim(BLOCK, 5);
        assert_eq!(space.claimed_bytes(), 15, "the second of five is not taken");
        space.unclaim(BLOCK, 5);
        space.unclaim(other, 10);
        space.unclaim(other, 10);
        assert_eq!(space.claimed_bytes(), 0);
        assert!(space.claims.is_empty());
    }

    #[test]
    fn the_smaller_of_capacity_and_device_counts() {
        assert_eq!(Space::new(100, 10, 20, 10, 1_000).available_bytes(), 70);
        assert_eq!(Space::new(100, 10, 20, 10, 50).available_bytes(), 40);
        assert_eq!(Space::new(100, 60, 20, 10, 50).available_bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let mut space = Space::new(100, 0, 0, 0, 1_000);
        assert_eq!(space.take(BLOCK, 60, "d"), Ok(()));
        assert_eq!(
            space.take(BLOCK, 41, "d").map_err(|e| e.kind),
            Err(ErrorKind::NoSpace)
        );
        assert_eq!(space.take(BLOCK, 40, "d"), Ok(()));
        space.give_back(60);
        assert_eq!((space.used_bytes(), space.available_bytes()), (40, 60));
    }

    #[test]
    fn a_measurement_replaces_the_estimate() {
        let mut space = Space::new(1_000, 0, 0, 0, 100);
        assert_eq!(space.take(BLOCK, 80, "d"), Ok(()));
        assert_eq!(space.available_bytes(), 20);
        space.measured(90);
        assert_eq!(space.available_bytes(), 90);
    }

    #[test]
    fn files_count_in_whole_units() {
        let mut space = Space::new(3 * UNIT_BYTES, 0, 0, 0, 1 << 30);
        assert_eq!(space.lengthen(BLOCK, 0, 1, "d"), Ok(()));
        assert_eq!(
            space.lengthen(BLOCK, 1, UNIT_BYTES, "d"),
            Ok(()),
            "it has that unit already"
        );
        assert_eq!(space.used_bytes(), UNIT_BYTES);
        assert_eq!(space.lengthen(BLOCK, UNIT_BYTES, 2 * UNIT_BYTES + 1, "d"), Ok(()));
        let full = space.lengthen(BLOCK, 0, 1, "d");
        assert_eq!(full.map_err(|error| error.kind), Err(ErrorKind::NoSpace));
        space.shorten(2 * UNIT_BYTES + 1, 1);
        space.shorten(1, 0);
        assert_eq!(space.used_bytes(), 0);
    }

    #[test]
    fn an_index_that_grew_leaves_less_and_one_that_was_shortened_more() {
        let mut space = Space::new(1_000, 0, 0, 100, 500);
        assert_eq!((space.used_bytes(), space.available_bytes()), (100, 500));
        space.index_is(700);
        assert_eq!(
            (space.used_bytes(), space.available_bytes()),
            (700, 0),
            "600 that the device had"
        );
        space.measured(50);
        space.index_is(200);
        assert_eq!((space.used_bytes(), space.available_bytes()), (200, 50));
    }

    #[test]
    fn the_index_of_a_small_disk_is_synced_sooner() {
        assert_eq!(index_unsynced_max(Some(1_000)), 64 << 10);
        assert_eq!(index_unsynced_max(Some(64 << 20)), 1 << 20);
        assert_eq!(index_unsynced_max(Some(1 << 50)), 16 << 20);
        assert_eq!(index_unsynced_max(None), 16 << 20);
    }
}
