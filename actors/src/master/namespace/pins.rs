//! Which inodes are pinned: replicated, because a new leader must know it as well.
//!
//! A file is pinned if it has a pin, or a directory above it has one: so it is looked up whenever it is asked for, and nothing
//! has to be changed below a directory that is pinned, or that moves. A file with several names is where its record says that
//! it is.

use std::collections::BTreeSet;

use curvine_protocol::{InodeId, Result};
use heed::RoTxn;
use serde::{Deserialize, Serialize};

use super::store::Dbs;

/// The name of the record in the state.
pub const PINS: &str = "pins";
/// Every pin is in one record, and looked up for every file that is reported.
pub const PINS_MAX: usize = 1_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedInodes {
    /// Grows with every change, and whenever something moves that may be pinned. At least the time of the change in
    /// milliseconds, so that it grows also if a backup of an older state was restored: workers remember it.
    pub number: u64,
    pub inodes: BTreeSet<InodeId>,
}

impl PinnedInodes {
    /// Something has changed.
    pub fn changed(&mut self, now_ns: i64) {
        let now_ms = u64::try_from(now_ns / 1_000_000).unwrap_or(0);
        self.number = (self.number + 1).max(now_ms);
    }
}

impl Dbs {
    pub fn pins(&self, txn: &RoTxn) -> Result<PinnedInodes> {
        Ok(self.meta_record(txn, PINS)?.unwrap_or_default())
    }

    /// The nearest pin of an inode: its own, or that of a directory above.
    pub fn pinned_by(&self, txn: &RoTxn, pins: &PinnedInodes, inode: InodeId) -> Result<Option<InodeId>> {
        if pins.inodes.is_empty() {
            return Ok(None);
        }
        let pin = |at| Ok(pins.inodes.contains(&at).then_some(()));
        Ok(self.nearest(txn, inode, pin)?.map(|(pin, ())| pin))
    }
}
