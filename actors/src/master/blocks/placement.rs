//! Where to read a block, and where to write one.

use std::collections::BTreeSet;

use curvine_protocol::{BlockId, Error, ErrorKind, FileLayout, Result, WorkerId};
use tokio::time::Instant;

use super::Cluster;

impl Cluster {
    fn live_holders(&self, block: BlockId, now: Instant) -> Vec<WorkerId> {
        let holders = self.holders.of(block).iter().copied();
        holders.filter(|id| self.roster.is_live(*id, now)).collect()
    }

    pub fn is_cached(&self, block: BlockId, now: Instant) -> bool {
        self.holders
            .of(block)
            .iter()
            .any(|id| self.roster.is_live(*id, now))
    }

    /// Holders of each block; where nobody has it and there is an object to fetch it from, who should.
    pub fn locate(&self, layout: &mut FileLayout, now: Instant) {
        let live = self.roster.live(now);
        let fetchable = layout.source.is_some();
        for located in &mut layout.blocks {
            located.workers = self.live_holders(located.block.id, now);
            if located.workers.is_empty() && fetchable && !live.is_empty() {
                // By the block's id: every reader goes to the same worker, and blocks spread over all.
                let turn = (located.block.id.0 % live.len() as u64) as usize;
                located.workers.push(live[turn]);
            }
        }
        self.add_addresses(layout);
    }

    /// Where each block is to be written: its holders, else the workers with most room.
    ///
    /// # Errors
    /// `BlockUnavailable` where no worker lives, `NoSpace` where none has room.
    pub fn place(&mut self, layout: &mut FileLayout, now: Instant) -> Result<()> {
        let replicas = usize::from(layout.attr.replicas.max(1));
        let room = self.roster.with_room(now);
        if room.is_empty() {
            return Err(match self.roster.live(now).is_empty() {
                true => Error::new(
                    ErrorKind::BlockUnavailable,
                    "no worker is live; start one with `curvine-node --role worker`, or see `cv report`",
                ),
                false => Error::new(
                    ErrorKind::NoSpace,
                    "no worker has room; free cached data with `cv free`, or add data_dirs",
                ),
            });
        }
        for located in &mut layout.blocks {
            let block = located.block.id;
            located.workers = self.live_holders(block, now);
            if located.workers.is_empty() {
                let start = (block.0 % room.len() as u64) as usize;
                let chosen = room.iter().cycle().skip(start).take(replicas.min(room.len()));
                located.workers = chosen.copied().collect();
                self.holders.placed(block, &located.workers);
            }
        }
        self.add_addresses(layout);
        Ok(())
    }

    fn add_addresses(&self, layout: &mut FileLayout) {
        let named: BTreeSet<WorkerId> = layout
            .blocks
            .iter()
            .flat_map(|b| b.workers.iter().copied())
            .collect();
        layout.workers = self.roster.addresses_of(named);
    }
}
