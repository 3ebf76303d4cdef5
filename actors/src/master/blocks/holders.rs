//! Which worker holds which block, and who was told to write one.

use std::collections::{BTreeMap, HashMap};

use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::{BlockId, BlockRef, WorkerId};

use crate::planted::{Bug, is_planted};

/// The map of holders: some 70 bytes for a copy.
#[derive(Debug, Default)]
pub struct Holders {
    /// A tree grows a node at a time, where a hash map of millions would now and then be made anew with everybody waiting.
    held: BTreeMap<BlockId, Vec<Holder>>,
    /// How often each worker has begun to say all that it holds. What it had said before does not count, and goes when the
    /// block is heard of again: to look through all blocks for it would take seconds.
    eras: HashMap<WorkerId, u32>,
    /// Who was told to write blocks that nobody has reported or committed yet: a writer that fails leaves them there.
    placed: HashMap<BlockId, Vec<WorkerId>>,
    /// Who has set a replica aside that failed its checksum. Few, if any.
    damaged: HashMap<BlockId, Vec<WorkerId>>,
    /// Of those: how many had it when no replica could be made of what they have.
    hopeless: HashMap<BlockId, usize>,
    /// Who has a replica on a disk that has failed, or could not read it. Few, if any.
    endangered: HashMap<BlockId, Vec<WorkerId>>,
}

/// What is known of one worker's replica of a block.
#[derive(Clone, Copy, Debug)]
struct Holder {
    worker: WorkerId,
    /// Of the worker, when this was said.
    era: u32,
    /// What the worker itself has said: a fact.
    reported: Option<Reported>,
    /// The generation that a client was acknowledged there, as it says. Good enough to send readers to.
    claimed: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Reported {
    generation: u32,
    /// It was no shorter than the namespace had it.
    whole: bool,
    /// A power cut may have taken something of it: it counts as older than it says.
    is_doubtful: bool,
}

impl Holder {
    fn new(worker: WorkerId, era: u32) -> Self {
        Holder {
            worker,
            era,
            reported: None,
            claimed: None,
        }
    }

    /// Has the block as the namespace has it, by whatever is known.
    fn is_current(&self, block: &BlockRef) -> bool {
        if self.reported.is_some_and(|reported| reported.is_doubtful) {
            return false;
        }
        let reported = self.reported.map(|reported| reported.generation);
        reported.max(self.claimed) >= Some(block.generation) || is_planted(Bug::ForgetsGenerations)
    }

    /// Has said itself that it has the block as the namespace has it.
    fn has_said_so(&self, block: &BlockRef) -> bool {
        let reported = self
            .reported
            .is_some_and(|reported| reported.whole && reported.generation >= block.generation);
        let claimed = self.claimed >= Some(block.generation);
        reported || (claimed && is_planted(Bug::DeletesOnAClientsWord))
    }
}

impl Holders {
    /// Who has any replica of a block.
    pub fn of(&self, block: BlockId) -> impl Iterator<Item = WorkerId> {
        self.holders(block).map(|holder| holder.worker)
    }

    /// Who has a block as the namespace has it, or newer.
    pub fn current(&self, block: &BlockRef) -> impl Iterator<Item = WorkerId> {
        let current = self.holders(block.id);
        current
            .filter(|holder| holder.is_current(block))
            .map(|holder| holder.worker)
    }

    /// Who has said itself to have a block as the namespace has it, or newer.
    pub fn reported(&self, block: &BlockRef) -> impl Iterator<Item = WorkerId> {
        let reported = self.holders(block.id);
        reported
            .filter(|holder| holder.has_said_so(block))
            .map(|holder| holder.worker)
    }

    /// Who has said itself to have an older replica of a block than the namespace.
    pub fn outdated(&self, block: &BlockRef) -> Vec<WorkerId> {
        let older = |holder: &&Holder| {
            let reported = holder.reported;
            reported.is_some_and(|reported| reported.generation < block.generation)
        };
        let outdated = self.holders(block.id).filter(older);
        outdated.map(|holder| holder.worker).collect()
    }

    /// Who has said to have a replica of a block that a power cut may have taken something of.
    pub fn doubtful(&self, block: BlockId) -> impl Iterator<Item = WorkerId> {
        let doubtful = |holder: &&Holder| holder.reported.is_some_and(|reported| reported.is_doubtful);
        let holders = self.holders(block);
        holders.filter(doubtful).map(|holder| holder.worker)
    }

    /// A replica that a worker has reported is doubtful.
    pub fn doubted(&mut self, worker: WorkerId, block: BlockId) {
        let holders = self.held.get_mut(&block).into_iter().flatten();
        for holder in holders.filter(|holder| holder.worker == worker) {
            if let Some(reported) = &mut holder.reported {
                reported.is_doubtful = true;
            }
        }
    }

    /// Who was told to write a block and has not said that it has it.
    pub fn told_to_write(&self, block: BlockId) -> &[WorkerId] {
        self.placed.get(&block).map_or(&[], Vec::as_slice)
    }

    fn holders(&self, block: BlockId) -> impl Iterator<Item = &Holder> {
        let holders = self.held.get(&block).into_iter().flatten();
        holders.filter(|holder| counts(&self.eras, holder))
    }

    fn holder(&mut self, id: WorkerId, block: BlockId) -> &mut Holder {
        let holders = self.held.entry(block).or_insert_with(|| Vec::with_capacity(1));
        holders.retain(|holder| counts(&self.eras, holder));
        let at = holders.iter().position(|holder| holder.worker == id);
        let at = at.unwrap_or_else(|| {
            holders.push(Holder::new(id, era(&self.eras, id)));
            holders.len() - 1
        });
        &mut holders[at]
    }

    /// A worker is about to say all that it holds.
    pub fn forget_worker(&mut self, id: WorkerId) {
        *self.eras.entry(id).or_default() += 1;
        for workers_of in [&mut self.damaged, &mut self.endangered] {
            workers_of.retain(|_, workers| {
                workers.retain(|worker| *worker != id);
                !workers.is_empty()
            });
        }
    }

    /// A worker says that its replica of a block failed its checksum, and is set aside.
    pub fn damaged(&mut self, id: WorkerId, block: BlockId) {
        add(&mut self.damaged, id, block);
    }

    /// A worker says that it may not be able to give its replica back: others are to have the block as if it had none.
    pub fn endangered(&mut self, id: WorkerId, block: BlockId) {
        add(&mut self.endangered, id, block);
    }

    /// Whether a worker has said so, and nothing better since.
    pub fn is_endangered(&self, id: WorkerId, block: BlockId) -> bool {
        let workers = self.endangered.get(&block);
        workers.is_some_and(|workers| workers.contains(&id))
    }

    /// Whether any worker has.
    pub fn has_endangered(&self, block: BlockId) -> bool {
        self.endangered.contains_key(&block)
    }

    /// Who has said so, and has no other replica since.
    pub fn damaged_on(&self, block: BlockId) -> &[WorkerId] {
        self.damaged.get(&block).map_or(&[], Vec::as_slice)
    }

    /// No replica can be made of what workers have set aside of a block, unless it gets more.
    pub fn is_hopeless(&mut self, block: BlockId) {
        self.hopeless.insert(block, self.damaged_on(block).len());
    }

    /// Workers that have set replicas of a block aside, of which one may be made: each may be wrong in another place.
    pub fn salvageable(&self, block: BlockId) -> &[WorkerId] {
        let damaged_on = self.damaged_on(block);
        let tried = self.hopeless.get(&block).copied().unwrap_or(1);
        if damaged_on.len() > tried { damaged_on } else { &[] }
    }

    /// A worker says what it has of a block that the namespace knows.
    pub fn stored(&mut self, id: WorkerId, replica: &BlockReplica, known: &BlockRef) {
        self.unplaced(id, replica.id);
        remove(&mut self.damaged, id, replica.id);
        remove(&mut self.endangered, id, replica.id);
        self.holder(id, replica.id).reported = Some(Reported {
            generation: replica.generation,
            whole: replica.len_bytes >= known.len_bytes,
            is_doubtful: false,
        });
    }

    /// A client says that a worker has acknowledged a block to it.
    pub fn claimed(&mut self, id: WorkerId, block: BlockId, generation: u32) {
        self.unplaced(id, block);
        let holder = self.holder(id, block);
        holder.claimed = holder.claimed.max(Some(generation));
    }

    fn unplaced(&mut self, id: WorkerId, block: BlockId) {
        remove(&mut self.placed, id, block);
    }

    pub fn removed(&mut self, id: WorkerId, block: BlockId) {
        remove(&mut self.endangered, id, block);
        if let Some(holders) = self.held.get_mut(&block) {
            holders.retain(|holder| holder.worker != id);
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
        let held = self.held.remove(&block).unwrap_or_default();
        let held = held.iter().filter(|holder| counts(&self.eras, holder));
        let mut workers: Vec<_> = held.map(|holder| holder.worker).collect();
        self.damaged.remove(&block);
        self.hopeless.remove(&block);
        self.endangered.remove(&block);
        for placed in self.placed.remove(&block).unwrap_or_default() {
            if !workers.contains(&placed) {
                workers.push(placed);
            }
        }
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

fn era(eras: &HashMap<WorkerId, u32>, id: WorkerId) -> u32 {
    eras.get(&id).copied().unwrap_or(0)
}

/// Whether the worker has not begun anew since.
fn counts(eras: &HashMap<WorkerId, u32>, holder: &Holder) -> bool {
    holder.era == era(eras, holder.worker)
}

/// Adds a worker to those of a block.
fn add(workers_of: &mut HashMap<BlockId, Vec<WorkerId>>, id: WorkerId, block: BlockId) {
    let workers = workers_of.entry(block).or_default();
    if !workers.contains(&id) {
        workers.push(id);
    }
}

/// Takes a worker from those of a block.
fn remove(workers_of: &mut HashMap<BlockId, Vec<WorkerId>>, id: WorkerId, block: BlockId) {
    if let Some(workers) = workers_of.get_mut(&block) {
        workers.retain(|worker| *worker != id);
        if workers.is_empty() {
            workers_of.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockRef = BlockRef {
        id: BlockId(7),
        len_bytes: 10,
        generation: 3,
    };

    fn stored(holders: &mut Holders, worker: u32) {
        let replica = BlockReplica {
            id: BLOCK.id,
            generation: BLOCK.generation,
            len_bytes: BLOCK.len_bytes,
        };
        holders.stored(WorkerId(worker), &replica, &BLOCK);
    }

    fn current(holders: &Holders) -> Vec<u32> {
        holders.current(&BLOCK).map(|worker| worker.0).collect()
    }

    #[test]
    fn what_a_worker_said_before_it_begins_anew_does_not_count_and_goes_when_the_block_is_heard_of() {
        let mut holders = Holders::default();
        stored(&mut holders, 1);
        holders.forget_worker(WorkerId(1));
        assert_eq!(current(&holders), [0u32; 0]);
        stored(&mut holders, 2);
        assert_eq!(holders.held[&BLOCK.id].len(), 1);
        stored(&mut holders, 1);
        assert_eq!(current(&holders), [2, 1]);
        holders.forget_worker(WorkerId(2));
        let mut orders = BTreeMap::new();
        holders.release_all([BLOCK.id], &mut orders);
        assert_eq!(orders, BTreeMap::from([(WorkerId(1), vec![BLOCK.id])]));
    }

    #[test]
    fn what_is_set_aside_is_worth_a_try_when_there_are_two_and_again_when_there_is_one_more() {
        let mut holders = Holders::default();
        let aside = |holders: &mut Holders, worker| {
            holders.damaged(WorkerId(worker), BLOCK.id);
            holders.salvageable(BLOCK.id).len()
        };
        assert_eq!(aside(&mut holders, 1), 0, "its wrong chunk is right nowhere");
        assert_eq!(aside(&mut holders, 2), 2);
        holders.is_hopeless(BLOCK.id);
        assert_eq!(aside(&mut holders, 2), 0);
        assert_eq!(aside(&mut holders, 3), 3);
        holders.release_all([BLOCK.id], &mut BTreeMap::new());
        assert_eq!(holders.hopeless, HashMap::new());
    }
}
