//! Keeps changes of a block and its move between disks apart: nobody changes a block while it is handed over, and no block is
//! handed over while somebody is on the way to its disk. A move never waits: it is tried again later.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use curvine_protocol::BlockId;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    /// A move has ended.
    ended: Notify,
    /// How often a block was about to be on another disk from then on.
    handed_over: AtomicU64,
}

#[derive(Default)]
struct State {
    /// How many are on the way to change it.
    entered: HashMap<BlockId, usize>,
    moving: HashSet<BlockId>,
}

/// Somebody is on the way to change a block: it stays on its disk until this is dropped.
#[must_use]
pub struct Entered(Option<(Arc<Gate>, BlockId)>);

/// A block is being handed over: nobody changes it until this is dropped.
pub struct Moving(Arc<Gate>, BlockId);

impl Entered {
    /// Where blocks do not move.
    pub fn freely() -> Self {
        Entered(None)
    }
}

impl Gate {
    /// None while the block is being handed over.
    pub fn try_enter(self: &Arc<Self>, block: BlockId) -> Option<Entered> {
        let mut state = self.state();
        if state.moving.contains(&block) {
            return None;
        }
        *state.entered.entry(block).or_default() += 1;
        Some(Entered(Some((self.clone(), block))))
    }

    /// Waits while the block is being handed over, which takes as long as a sync.
    pub async fn enter(self: &Arc<Self>, block: BlockId) -> Entered {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // What ends from here on is not missed.
            ended.as_mut().enable();
            if let Some(entered) = self.try_enter(block) {
                return entered;
            }
            ended.await;
        }
    }

    /// None while somebody is on the way to change the block, or it is being handed over already.
    pub fn try_move(self: &Arc<Self>, block: BlockId) -> Option<Moving> {
        let mut state = self.state();
        if state.entered.contains_key(&block) || !state.moving.insert(block) {
            return None;
        }
        Some(Moving(self.clone(), block))
    }

    /// Whoever looked on all disks and found a block on none looks again if this has changed meanwhile.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds this")
    }
}

impl Moving {
    /// The block is about to go from the disk where it was looked for.
    pub fn hands_over(&self) {
        self.0.handed_over.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some((gate, block)) = self.0.take() else {
            return;
        };
        let mut state = gate.state();
        if let Some(count) = state.entered.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                state.entered.remove(&block);
            }
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.state().moving.remove(&self.1);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(7);

    #[test]
    fn a_block_is_changed_or_handed_over_and_others_do_not_matter() {
        let gate = Arc::<Gate>::default();
        let (first, second) = (gate.try_enter(BLOCK), gate.try_enter(BLOCK));
        assert!(first.is_some() && second.is_some(), "two writers");
        drop(first);
        assert!(gate.try_move(BLOCK).is_none());
        assert!(gate.try_move(BlockId(8)).is_some());
        drop(second);
        let moving = gate.try_move(BLOCK);
        assert!(moving.is_some());
        assert!(gate.try_move(BLOCK).is_none() && gate.try_enter(BLOCK).is_none());
        drop(moving);
        assert!(gate.try_enter(BLOCK).is_some());
        assert!(gate.state().entered.is_empty() && gate.state().moving.is_empty());
    }

    #[actix::test]
    async fn who_comes_while_a_block_is_handed_over_enters_when_that_has_ended() {
        let gate = Arc::<Gate>::default();
        let moving = gate.try_move(BLOCK).expect("nobody is there");
        let comes = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(BLOCK).await }
        });
        tokio::task::yield_now().await;
        assert!(!comes.is_finished());
        drop(moving);
        let entered = comes.await.expect("it enters");
        assert!(gate.try_move(BLOCK).is_none());
        drop(entered);
    }
}
