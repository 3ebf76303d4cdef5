//! Which worker holds which block, and who was told to write one.

use std::collections::{BTreeMap, HashMap};

use curvine_protocol::{BlockId, WorkerId};

/// The map of holders: some 70 bytes for a copy.
#[derive(Debug, Default)]
pub struct Holders {
    held: HashMap<BlockId, Vec<WorkerId>>,
    /// Who was told to write blocks that nobody has reported or committed yet: a writer that fails leaves them there.
    placed: HashMap<BlockId, Vec<WorkerId>>,
}

impl Holders {
    /// Who holds a block.
    pub fn of(&self, block: BlockId) -> &[WorkerId] {
        self.held.get(&block).map_or(&[], Vec::as_slice)
    }

    pub fn forget_worker(&mut self, id: WorkerId) {
        self.held.retain(|_, holders| {
            holders.retain(|holder| *holder != id);
            !holders.is_empty()
        });
    }

    pub fn stored(&mut self, id: WorkerId, block: BlockId) {
        if let Some(placed) = self.placed.get_mut(&block) {
            placed.retain(|writer| *writer != id);
            if placed.is_empty() {
                self.placed.remove(&block);
            }
        }
        let holders = self.held.entry(block).or_default();
        if !holders.contains(&id) {
            holders.push(id);
        }
    }

    pub fn removed(&mut self, id: WorkerId, block: BlockId) {
        if let Some(holders) = self.held.get_mut(&block) {
            holders.retain(|holder| *holder != id);
            if holders.is_empty() {
                self.held.remove(&block);
            }
        }
    }

    /// These workers are told to write a block.
    pub fn placed(&mut self, block: BlockId, workers: &[WorkerId]) {
        let placed = self.placed.entry(block).or_default();
        for worker in workers {
            if !placed.contains(worker) {
                placed.push(*worker);
            }
        }
    }

    /// Forgets a block; says who holds it, wholly or in the making.
    fn release(&mut self, block: BlockId) -> Vec<WorkerId> {
        let mut workers = self.held.remove(&block).unwrap_or_default();
        workers.extend(self.placed.remove(&block).unwrap_or_default());
        workers
    }

    /// Forgets blocks; adds to `orders` who is to delete which.
    pub fn release_all(
        &mut self,
        blocks: impl IntoIterator<Item = BlockId>,
        orders: &mut BTreeMap<WorkerId, Vec<BlockId>>,
    ) {
        for block in blocks {
            for worker in self.release(block) {
                orders.entry(worker).or_default().push(block);
            }
        }
    }
}
