//! What is pinned.

use std::collections::BTreeSet;

use curvine_protocol::worker::Done;
use curvine_protocol::{Error, InodeId, Result};

use super::Apply;
use crate::master::namespace::pins::{PINS, PINS_MAX, PinnedInodes};

impl Apply<'_, '_> {
    pub(super) fn set_pins(&mut self, pin: Vec<InodeId>, unpin: &[InodeId]) -> Result<Done> {
        for inode in &pin {
            self.dbs.inode_or_stale(self.txn, *inode)?;
        }
        let before = self.dbs.pins(self.txn)?;
        let mut inodes = BTreeSet::new();
        for inode in before.inodes.iter().copied().chain(pin) {
            if !unpin.contains(&inode) && self.dbs.inode(self.txn, inode)?.is_some() {
                inodes.insert(inode);
            }
        }
        if inodes.len() > PINS_MAX {
            return Err(Error::invalid(format!(
                "there are {PINS_MAX} pins already; pin directories instead, or `cv unpin` some that `cv pins` lists"
            )));
        }
        let mut pins = PinnedInodes { inodes, ..before };
        pins.changed(self.now_ns);
        self.dbs.put_meta_record(self.txn, PINS, &pins)?;
        self.done()
    }

    /// An inode becomes something else.
    pub(super) fn forget_pin(&mut self, inode: InodeId) -> Result<()> {
        let mut pins = self.dbs.pins(self.txn)?;
        if pins.inodes.remove(&inode) {
            pins.changed(self.now_ns);
            self.dbs.put_meta_record(self.txn, PINS, &pins)?;
            self.effects.moved.push(inode);
        }
        Ok(())
    }

    /// Something is elsewhere: it may be pinned now, or not any more.
    pub(super) fn pins_may_change(&mut self, inode: InodeId) -> Result<()> {
        let mut pins = self.dbs.pins(self.txn)?;
        if !pins.inodes.is_empty() {
            pins.changed(self.now_ns);
            self.dbs.put_meta_record(self.txn, PINS, &pins)?;
            self.effects.moved.push(inode);
        }
        Ok(())
    }
}
