//! Tells workers to delete blocks that no file refers to any more.
//!
//! Orders wait in one bounded queue for each worker. A worker whose queue is full is asked to register again instead: its
//! full report then names what it holds, and the answer what of it is to go. What a worker does not hear for another reason,
//! it is told when it reports the block.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use curvine_protocol::worker::DeleteBlocks;
use curvine_protocol::{BlockId, CallContext, Result, WorkerId};
use tokio::sync::Notify;

use super::Duty;
use crate::kit::call;
use crate::master::workers::Workers;

/// Blocks that wait for one worker: 8 MiB of ids.
pub const QUEUED_MAX: usize = 1 << 20;
const BLOCKS_PER_CALL: usize = 10_000;

/// Orders that were not given yet.
#[derive(Default)]
pub struct Orders {
    waiting: Mutex<BTreeMap<WorkerId, Vec<BlockId>>>,
    came: Notify,
}

impl Orders {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Vec<BlockId>>> {
        self.waiting.lock().expect("nobody panics while it holds orders")
    }

    /// Adds an order. False if the worker's queue is full: then nothing of it was taken.
    pub fn add(&self, worker: WorkerId, blocks: Vec<BlockId>) -> bool {
        let mut waiting = self.waiting();
        let queue = waiting.entry(worker).or_default();
        if queue.len() + blocks.len() > QUEUED_MAX {
            return false;
        }
        queue.extend(blocks);
        self.came.notify_one();
        true
    }

    /// Some blocks for one worker, those that came last first.
    pub fn take(&self) -> Option<(WorkerId, Vec<BlockId>)> {
        let mut waiting = self.waiting();
        let mut entry = waiting.first_entry()?;
        let worker = *entry.key();
        let keep = entry.get().len().saturating_sub(BLOCKS_PER_CALL);
        let blocks = entry.get_mut().split_off(keep);
        if keep == 0 {
            entry.remove();
        }
        Some((worker, blocks))
    }
}

pub struct Deletions {
    orders: Arc<Orders>,
    workers: Workers,
}

impl Deletions {
    pub fn new(orders: Arc<Orders>, workers: Workers) -> Self {
        Deletions { orders, workers }
    }
}

#[async_trait]
impl Duty for Deletions {
    fn name(&self) -> &'static str {
        "deletions"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        Ok(())
    }

    async fn due(&self) {
        self.orders.came.notified().await;
    }

    async fn tick(&self) -> Result<()> {
        while let Some((worker, blocks)) = self.orders.take() {
            let Some(port) = self.workers.port(worker) else {
                continue;
            };
            if let Err(error) = call(&*port, DeleteBlocks { blocks }, CallContext::default()).await {
                tracing::debug!(%worker, %error, "a worker did not take a deletion; its next report brings it up");
            }
        }
        Ok(())
    }

    fn end(&self) {
        self.orders.waiting().clear();
    }

    fn status(&self) -> String {
        let waiting = self.orders.waiting();
        let blocks: usize = waiting.values().map(Vec::len).sum();
        match blocks {
            0 => "none waiting".to_owned(),
            _ => format!("{blocks} blocks waiting for {} workers", waiting.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_for_a_worker_are_bounded_and_given_in_calls_of_a_bounded_size() {
        let orders = Orders::default();
        let ids = |range: std::ops::Range<u64>| range.map(BlockId).collect::<Vec<_>>();
        assert!(orders.add(WorkerId(1), ids(0..QUEUED_MAX as u64)));
        assert!(!orders.add(WorkerId(1), ids(0..1)), "its queue is full");
        assert!(orders.add(WorkerId(2), ids(0..1)), "the other's is not");
        let mut told = 0;
        while let Some((worker, blocks)) = orders.take() {
            assert!(blocks.len() <= BLOCKS_PER_CALL);
            if worker == WorkerId(1) {
                told += blocks.len();
            }
        }
        assert_eq!(told, QUEUED_MAX);
        assert!(orders.add(WorkerId(1), ids(0..1)), "there is room again");
    }
}
