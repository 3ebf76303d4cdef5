//! Who waits for which block, which parts of it are under way, and what happens next: pure.
//!
//! Every event (a request, news of a transfer, of a save, a sweep) is answered with decisions, in the order in which
//! they are to be carried out. Where a block's bytes go (`P`), and how a reader (`R`) or a load (`L`) is answered, is
//! handed back as it came and never looked at.
//!
//! - [`Fills`]: all blocks; which of them is being opened or filled, and by which number.
//! - [`filling`]: one block that is being filled.
//! - [`decision`]: what can be asked and decided.
//!
//! Invariants: a block is filled by one fill; whoever asked is in exactly one decision, or waits.

mod decision;
mod filling;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;

use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::worker::disk::Bitmap;

pub use self::decision::{Asked, Begun, Decision, Progress, Purpose, Request};
use self::filling::Filling;
pub use self::filling::read_end;

/// Fills at once. Each holds a file open.
const FILLS_MAX: usize = 4_096;
/// Requests that a load keeps under way: with fewer blocks than this, each is fetched in several parts.
const LOAD_PARTS: usize = 16;
/// The blocks that are being opened and filled.
pub struct Fills<P, R, L> {
    slots: HashMap<BlockId, Slot<P, R, L>>,
    /// Tells fills of the same block apart: news of an earlier one may still be under way.
    last_fill: u64,
}

/// A block that is being filled, and that somebody suspects.
pub struct Suspected<P> {
    pub number: u64,
    pub place: P,
    pub len_bytes: u64,
    pub present: Bitmap,
    pub checksums: Vec<u32>,
}

enum Slot<P, R, L> {
    /// Being resolved and opened; these wait.
    Opening(u64, Vec<Request<R, L>>),
    Open(Box<Filling<P, R, L>>),
}

impl<P: Clone, R, L> Fills<P, R, L> {
    pub fn new() -> Self {
        Fills {
            slots: HashMap::new(),
            last_fill: 0,
        }
    }

    /// Somebody wants something of a block.
    pub fn ask(
        &mut self,
        block: BlockId,
        generation: u32,
        request: Request<R, L>,
        now: Instant,
    ) -> Asked<P, R, L> {
        let full = self.slots.len() >= FILLS_MAX;
        let parts_each = self.parts_each();
        let refusal = match self.slots.get_mut(&block) {
            Some(Slot::Opening(_, waiting)) => {
                waiting.push(request);
                return Asked::Decided(Vec::new());
            }
            Some(Slot::Open(filling)) if filling.generation() == generation => {
                return Asked::Decided(filling.serve(request, parts_each, now));
            }
            Some(Slot::Open(filling)) => Error::new(
                ErrorKind::Stale,
                format!(
                    "block {block}: generation {generation} was asked for and {} is being filled",
                    filling.generation()
                ),
            ),
            None if full => Error::new(
                ErrorKind::Overloaded,
                format!("{FILLS_MAX} blocks are being filled already; try again"),
            ),
            None => {
                self.last_fill += 1;
                let opening = Slot::Opening(self.last_fill, vec![request]);
                self.slots.insert(block, opening);
                return Asked::Opens(self.last_fill);
            }
        };
        Asked::Decided(vec![Decision::Fail(request, refusal)])
    }

    /// Opening a block ended without a fill: who waited for it.
    pub fn end_opening(&mut self, block: BlockId, number: u64) -> Vec<Request<R, L>> {
        self.take_opening(block, number).unwrap_or_default()
    }

    fn take_opening(&mut self, block: BlockId, number: u64) -> Option<Vec<Request<R, L>>> {
        match self.slots.remove(&block)? {
            Slot::Opening(opening, waiting) if opening == number => Some(waiting),
            other => {
                self.slots.insert(block, other);
                None
            }
        }
    }

    /// A block was opened to be filled.
    pub fn begin(
        &mut self,
        block: BlockId,
        number: u64,
        begun: Begun<P>,
        now: Instant,
    ) -> Vec<Decision<P, R, L>> {
        let Some(waiting) = self.take_opening(block, number) else {
            return Vec::new();
        };
        let mut filling = Filling::new(block, number, begun, now);
        // This block counts among those that share the requests of a load.
        let parts_each = LOAD_PARTS / (self.slots.len() + 1);
        let mut decisions = Vec::new();
        for request in waiting {
            decisions.extend(filling.serve(request, parts_each, now));
        }
        decisions.extend(filling.save_if_whole());
        self.slots.insert(block, Slot::Open(Box::new(filling)));
        decisions
    }

    /// Chunks from `chunk` on are on the disk, with these checksums.
    pub fn stored(
        &mut self,
        block: BlockId,
        number: u64,
        chunk: usize,
        checksums: &[u32],
    ) -> Vec<Decision<P, R, L>> {
        match self.filling(block, number) {
            Some(filling) => filling.stored(chunk, checksums),
            None => Vec::new(),
        }
    }

    /// Somebody suspects bytes of a block: what of it is there, if it is being filled.
    pub fn suspected(&self, block: BlockId) -> Option<Suspected<P>> {
        match self.slots.get(&block) {
            Some(Slot::Open(filling)) => Some(filling.suspected()),
            _ => None,
        }
    }

    /// What was fetched of a block is not what is on the disk: it is gone from there. Whoever waits asks again.
    pub fn spoiled(&mut self, block: BlockId, number: u64) -> Vec<Decision<P, R, L>> {
        let error = Error::new(
            ErrorKind::BlockUnavailable,
            format!("block {block}: what was fetched of it has rotted; it is fetched again"),
        );
        match self.filling(block, number) {
            Some(_) => self.give_up(block, &error),
            None => Vec::new(),
        }
    }

    /// Where the bytes of a block go, if it is being filled.
    pub fn place(&self, block: BlockId) -> Option<&P> {
        match self.slots.get(&block) {
            Some(Slot::Open(filling)) => Some(filling.place()),
            _ => None,
        }
    }

    /// The block was deleted, and what was filled of it is gone with it. Whoever waits asks the master again.
    pub fn deleted(&mut self, block: BlockId, error: &Error) -> Vec<Decision<P, R, L>> {
        self.give_up(block, error)
    }

    /// Fetching a part ended. One that failed takes along whoever waits for it, and no others.
    pub fn part_ended(
        &mut self,
        block: BlockId,
        number: u64,
        chunks: &Range<usize>,
        outcome: Result<()>,
    ) -> Vec<Decision<P, R, L>> {
        let Some(filling) = self.filling(block, number) else {
            return Vec::new();
        };
        filling.part_ended();
        let Err(error) = outcome else {
            return Vec::new();
        };
        let place = filling.place().clone();
        let kind = error.kind;
        let mut decisions = Vec::new();
        if kind == ErrorKind::UfsChanged {
            // Nothing of this version may stay: what is here and what is not would be of two.
            decisions.push(Decision::Remove(block, place.clone()));
            decisions.extend(self.give_up(block, &error));
        } else {
            decisions.extend(filling.part_failed(chunks, &error));
        }
        decisions.push(Decision::Doubt(place, kind));
        decisions
    }

    /// How far a fill has come was kept; true if the block is whole and sealed now.
    pub fn saved(&mut self, block: BlockId, number: u64, outcome: Result<bool>) -> Vec<Decision<P, R, L>> {
        let Some(filling) = self.filling(block, number) else {
            return Vec::new();
        };
        match outcome {
            Err(error) => self.give_up(block, &error),
            Ok(false) => filling.saved().into_iter().collect(),
            Ok(true) => match self.slots.remove(&block) {
                Some(Slot::Open(filling)) => filling.sealed(),
                _ => Vec::new(),
            },
        }
    }

    /// The bytes that arrived so far of a block that is being filled.
    pub fn fetched_bytes(&self, block: BlockId) -> u64 {
        match self.slots.get(&block) {
            Some(Slot::Open(filling)) => filling.fetched_bytes(),
            _ => 0,
        }
    }

    /// Loads of a block are given up. What arrived is kept; what a reader waits for goes on.
    pub fn stop_loading(&mut self, block: BlockId) -> Vec<Decision<P, R, L>> {
        let error = Error::new(
            ErrorKind::Cancelled,
            format!("the load of block {block} was stopped"),
        );
        match self.slots.get_mut(&block) {
            None => Vec::new(),
            Some(Slot::Opening(number, waiting)) => {
                let number = *number;
                let is_load = |request: &mut Request<R, L>| matches!(request, Request::Whole(_));
                let loads = waiting.extract_if(.., is_load);
                let mut decisions: Vec<_> = loads.map(|load| Decision::Fail(load, error.clone())).collect();
                if waiting.is_empty() {
                    self.slots.remove(&block);
                    decisions.push(Decision::StopOpening(number));
                }
                decisions
            }
            Some(Slot::Open(filling)) => {
                let mut decisions = filling.fail_loads(&error);
                if !filling.goes_on()
                    && let Some(Slot::Open(filling)) = self.slots.remove(&block)
                {
                    decisions.extend(filling.stop());
                }
                decisions
            }
        }
    }

    /// Saves and lets go of fills that nobody uses, and forgets who waits no more.
    pub fn sweep(
        &mut self,
        is_given_up: impl Fn(&Request<R, L>) -> bool,
        now: Instant,
    ) -> Vec<Decision<P, R, L>> {
        let mut saves = Vec::new();
        let mut forsaken = Vec::new();
        self.slots.retain(|block, slot| {
            let Slot::Open(filling) = slot else { return true };
            filling.forget_waiting(&is_given_up);
            forsaken.extend(filling.is_forsaken(now).then_some(*block));
            if filling.is_used(now) {
                return true;
            }
            let unsaved = filling.is_unsaved();
            saves.extend(unsaved.then(|| filling.save()).flatten());
            unsaved
        });
        let stopped = forsaken.into_iter().flat_map(|block| self.stop_loading(block));
        saves.extend(stopped.collect::<Vec<_>>());
        saves
    }

    /// Lets go of everything: how far each fill has come.
    pub fn stop(&mut self) -> Vec<Progress<P>> {
        let open = self.slots.drain().filter_map(|(_, slot)| match slot {
            Slot::Open(filling) => Some(filling.progress()),
            Slot::Opening(..) => None,
        });
        open.collect()
    }

    fn parts_each(&self) -> usize {
        LOAD_PARTS / self.slots.len().max(1)
    }

    fn filling(&mut self, block: BlockId, number: u64) -> Option<&mut Filling<P, R, L>> {
        match self.slots.get_mut(&block) {
            Some(Slot::Open(filling)) if filling.number() == number => Some(filling),
            _ => None,
        }
    }

    /// Ends a fill; what waits for it fails.
    fn give_up(&mut self, block: BlockId, error: &Error) -> Vec<Decision<P, R, L>> {
        let Some(Slot::Open(filling)) = self.slots.remove(&block) else {
            return Vec::new();
        };
        filling.given_up(error)
    }
}
