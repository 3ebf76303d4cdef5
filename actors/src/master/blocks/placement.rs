//! Where to read a block, and where to write one.

use std::collections::BTreeSet;

use curvine_protocol::attr::UfsSource;
use curvine_protocol::number::to_usize;
use curvine_protocol::{
    BlockId, BlockRef, DamagedBlock, Error, ErrorKind, FileLayout, LocatedBlock, Result, WorkerId,
};
use tokio::time::Instant;

use super::{CachedOf, Cluster};
use crate::master::contract::Reader;
use crate::planted::{Bug, is_planted};

impl Cluster {
    pub(super) fn live_holders(&self, block: &BlockRef, now: Instant) -> Vec<WorkerId> {
        let holders = self.holders.current(block);
        holders.filter(|id| self.roster.is_live(*id, now)).collect()
    }

    /// Who is to take changes of a block: holders that stay, if there are any. What others have is older then.
    fn to_write(&self, block: &BlockRef, now: Instant) -> Vec<WorkerId> {
        let holders = self.live_holders(block, now);
        let staying: Vec<_> = (holders.iter().copied())
            .filter(|id| self.roster.out.counts(*id))
            .collect();
        match staying.is_empty() {
            true => holders,
            false => staying,
        }
    }

    pub fn is_cached(&self, block: &BlockRef, now: Instant) -> bool {
        self.holder(block, now).is_some()
    }

    /// A live worker that has a block, as far as is known.
    pub fn holder(&self, block: &BlockRef, now: Instant) -> Option<WorkerId> {
        let mut holders = self.holders.current(block);
        holders.find(|id| self.roster.is_live(*id, now))
    }

    /// Whether a live worker has said itself to have a block.
    pub fn reported_by(&self, block: &BlockRef, now: Instant) -> usize {
        let holders = self.holders.reported(block);
        holders.filter(|id| self.roster.is_live(*id, now)).count()
    }

    /// Holders of each block, those on the reader's host first, and of others each reader begins with another one; where nobody
    /// has it and there is an object to fetch it from, who should.
    pub fn locate(&self, layout: &mut FileLayout, reader: Reader, now: Instant) {
        let live = self.roster.in_service(now);
        let source = layout.source.as_ref();
        for located in &mut layout.blocks {
            located.workers = self.live_holders(&located.block, now);
            if located.workers.len() > 1 && reader != Reader::default() {
                let turn = BlockId(located.block.id.0.wrapping_add(reader.turn));
                located.workers = in_turn(turn, &located.workers).collect();
                self.nearest_first(&mut located.workers, reader.near);
            }
            if located.workers.is_empty() && source.is_some_and(|source| source.has(&located.block)) {
                located.workers.extend(in_turn(located.block.id, &live).next());
            }
            if source.is_some_and(|source| self.is_kept_near(source, &located.block)) {
                self.local_first(located, reader.near, now);
            }
            let damaged_on = self.holders.damaged_on(located.block.id);
            // Who had it right and is away may come back.
            let may_come_back = self.holders.current(&located.block).next().is_some();
            if located.workers.is_empty() && !damaged_on.is_empty() && !may_come_back {
                layout.damaged.push(DamagedBlock {
                    block: located.block.id,
                    workers: damaged_on.to_vec(),
                    unheard: self.roster.unheard(self.roster.last_worker).collect(),
                });
            }
        }
        self.add_addresses(layout);
        // Epochs are for writers, who must show their leases for them.
        layout.workers.iter_mut().for_each(|worker| worker.epoch = 0);
    }

    /// Whether a worker on the host of a reader of this block is to keep a copy of it.
    fn is_kept_near(&self, source: &UfsSource, block: &BlockRef) -> bool {
        let is_near = |cached: &CachedOf| cached.near;
        self.mounts.get(&source.mount).is_some_and(is_near) && source.has(block)
    }

    /// Where no worker on a host has a block or is to fetch it, one that can take it comes first: it gets a copy from the others.
    fn local_first(&self, located: &mut LocatedBlock, near: u32, now: Instant) {
        let is_near = |id: &WorkerId| self.roster.host_key(*id) == near;
        if near == 0 || located.workers.iter().any(is_near) {
            return;
        }
        let len_bytes = located.block.len_bytes;
        let takes = |id: &WorkerId| is_near(id) && self.roster.may_cache(*id, len_bytes);
        let local: Vec<_> = self.roster.serving(now).filter(takes).collect();
        if let Some(local) = in_turn(located.block.id, &local).next() {
            located.workers.insert(0, local);
        }
    }

    /// From whom else a worker may get the cached blocks of a file of which it is to keep a copy for its readers: who has one,
    /// or else who fetches it for everybody. Nobody for a block that this worker fetches itself, and for all files of other
    /// mounts.
    pub fn peers(&self, layout: &mut FileLayout, of: WorkerId, now: Instant) {
        let Some(source) = &layout.source else { return };
        let live = self.roster.in_service(now);
        for located in &mut layout.blocks {
            located.workers.clear();
            if !self.is_kept_near(source, &located.block) {
                continue;
            }
            let mut others = self.live_holders(&located.block, now);
            others.retain(|id| *id != of);
            if others.is_empty() {
                others.extend(in_turn(located.block.id, &live).next().filter(|id| *id != of));
            }
            // Whoever makes a copy begins with another one.
            let turn = BlockId(located.block.id.0.wrapping_add(of.0.into()));
            located.workers = in_turn(turn, &others).collect();
        }
        self.add_addresses(layout);
    }

    /// Where each block is to be written: its holders, or the workers with most room if it has no bytes yet. Of a block
    /// that has, and whose holders are not there now (they have not reported yet, or are away), nobody: its writer asks
    /// again. Of a block that can be fetched and that nobody has, who should: its writer has it fetched first.
    ///
    /// # Errors
    /// `BlockUnavailable` where no worker lives, `NoSpace` where none has room.
    pub fn place(&mut self, layout: &mut FileLayout, writer: Reader, now: Instant) -> Result<()> {
        let replicas = usize::from(layout.attr.replicas.max(1));
        let mut live = self.roster.in_service(now);
        live.retain(|id| self.roster.may_keep(*id));
        let room = self.roster.with_room(layout.attr.block_bytes, replicas, now);
        for located in &mut layout.blocks {
            let block = located.block;
            located.workers = self.to_write(&block, now);
            let is_written = block.len_bytes > 0 && !is_planted(Bug::WriterIsSentElsewhere);
            if layout.source.as_ref().is_some_and(|source| source.has(&block)) {
                // Whoever has nothing but memory does not take what is written: another one fetches the block.
                located.workers.retain(|id| self.roster.may_keep(*id));
                if located.workers.is_empty() {
                    let chosen = in_turn(block.id, &live).next();
                    located.workers.push(chosen.ok_or_else(|| self.no_room(now))?);
                }
            }
            if !located.workers.is_empty() || is_written {
                continue;
            }
            if room.is_empty() {
                return Err(self.no_room(now));
            }
            let mut preferred: Vec<WorkerId> = in_turn(block.id, &room).collect();
            self.nearest_first(&mut preferred, writer.near);
            located.workers = self.roster.spread(preferred, &[], replicas);
            self.holders.placed(block.id, &located.workers);
        }
        self.add_addresses(layout);
        Ok(())
    }

    /// Those on a host before all others. Otherwise they stay in their order.
    fn nearest_first(&self, workers: &mut [WorkerId], near: u32) {
        if near != 0 {
            workers.sort_by_key(|id| self.roster.host_key(*id) != near);
        }
    }

    fn no_room(&self, now: Instant) -> Error {
        let live = self.roster.live(now);
        let is_empty = live.is_empty();
        if !is_empty && !live.iter().any(|id| self.roster.may_keep(*id)) {
            return Error::new(
                ErrorKind::NoSpace,
                "the workers have nothing but memory, which never holds the only copy of anything: add a data directory of \
                 tier SSD or HDD to `worker.data_dirs`",
            );
        }
        match (is_empty, self.roster.serving(now).next().is_none()) {
            (true, _) => Error::new(
                ErrorKind::BlockUnavailable,
                "no worker is live; start one with `curvine-node --role worker`, or see `cv report`",
            ),
            (false, true) => Error::new(
                ErrorKind::BlockUnavailable,
                "no live worker is in service; see `cv node`, and `cv node recommission`",
            ),
            (false, false) => Error::new(
                ErrorKind::NoSpace,
                "no worker has room; free cached data with `cv free`, or add data_dirs",
            ),
        }
    }

    fn add_addresses(&self, layout: &mut FileLayout) {
        let holders = layout.blocks.iter().flat_map(|located| &located.workers);
        let damaged_on = layout.damaged.iter().flat_map(|damaged| &damaged.workers);
        let named: BTreeSet<WorkerId> = holders.chain(damaged_on).copied().collect();
        layout.workers = self.roster.addresses_of(named);
    }
}

/// All of these workers, beginning by the block's id: everybody who is to fetch a block that nobody has goes to the same
/// worker, and blocks spread over all.
pub(super) fn in_turn(block: BlockId, workers: &[WorkerId]) -> impl Iterator<Item = WorkerId> {
    let start = to_usize(block.0.checked_rem(workers.len() as u64).unwrap_or(0));
    let turn = workers.iter().cycle().skip(start).take(workers.len());
    turn.copied()
}
