//! Tells workers to delete blocks that no file refers to any more.
//!
//! Orders wait in one bounded queue for each worker. A worker whose queue is full is asked to register again instead: its
//! full report then names what it holds, and the answer what of it is to go. So is one that does not take an order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use curvine_protocol::{BlockId, Result, WorkerId};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;

use super::Duty;
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

    /// Some blocks for one worker that is not busy, those that came last first.
    pub fn take(&self, busy: &BTreeSet<WorkerId>) -> Option<(WorkerId, Vec<BlockId>)> {
        let mut waiting = self.waiting();
        let worker = *waiting.keys().find(|worker| !busy.contains(worker))?;
        let queue = waiting.get_mut(&worker)?;
        let keep = queue.len().saturating_sub(BLOCKS_PER_CALL);
        let blocks = queue.split_off(keep);
        if keep == 0 {
            waiting.remove(&worker);
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

    /// One call at a time to each worker: one that is stopped holds up nobody else.
    async fn tick(&self) -> Result<()> {
        let (mut busy, mut telling) = (BTreeSet::new(), FuturesUnordered::new());
        loop {
            while let Some((worker, blocks)) = self.orders.take(&busy) {
                busy.insert(worker);
                telling.push(async move {
                    self.workers.delete(worker, blocks).await;
                    worker
                });
            }
            if telling.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(worker) = telling.next() => drop(busy.remove(&worker)),
                () = self.orders.came.notified() => {}
            }
        }
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
    use std::any::Any;

    use curvine_protocol::Call;
    use curvine_protocol::worker::{DeleteBlocks, Done};
    use futures::future::BoxFuture;

    use super::*;
    use crate::kit::{Answer, Ask, Clock, Endpoint, Ports, WorkerRef};
    use crate::master::blocks::BlockMap;
    use crate::master::blocks::roster::WorkerEntry;
    use crate::master::workers::WorkerConnector;

    /// Worker 1 never answers; others note what they are told.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<BlockId>>>);

    struct Port(WorkerId, Told);

    impl<C: Call> Endpoint<C> for Port {
        fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
            if self.0 == WorkerId(1) {
                return Box::pin(std::future::pending());
            }
            let call: &dyn Any = &ask.call;
            let call = call.downcast_ref::<DeleteBlocks>().expect("only deletions");
            self.1.0.lock().expect("no panic").extend(&call.blocks);
            let done: Box<dyn Any> = Box::new(Done {});
            let reply = *done.downcast::<C::Reply>().expect("its reply");
            Box::pin(std::future::ready(Ok(Answer::new(reply))))
        }
    }

    impl WorkerConnector for Told {
        fn connect(&self, id: WorkerId, _address: &str) -> WorkerRef {
            Arc::new(Port(id, self.clone()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_answer_holds_up_no_other() {
        let (orders, told) = (Arc::new(Orders::default()), Told::default());
        let clock: Arc<dyn Clock> = Ports::system().clock;
        let blocks = Arc::new(BlockMap::new(clock.clone(), orders.clone()));
        for worker in [1, 2] {
            let entry = WorkerEntry::heard(clock.now(), Vec::new());
            blocks.cluster().roster.register(WorkerId(worker), entry);
        }
        let workers = Workers::new(blocks, Arc::new(told.clone()));
        let deletions = Deletions::new(orders.clone(), workers);
        assert!(orders.add(WorkerId(1), vec![BlockId(1)]));
        assert!(orders.add(WorkerId(2), vec![BlockId(2)]));
        let ticking = deletions.tick();
        tokio::pin!(ticking);
        assert!(futures::poll!(&mut ticking).is_pending());
        assert!(
            orders.add(WorkerId(1), vec![BlockId(3)]),
            "it waits behind the first"
        );
        assert!(orders.add(WorkerId(2), vec![BlockId(4)]));
        assert!(futures::poll!(&mut ticking).is_pending());
        assert_eq!(*told.0.lock().expect("no panic"), [BlockId(2), BlockId(4)]);
    }

    #[test]
    fn orders_for_a_worker_are_bounded_and_given_in_calls_of_a_bounded_size() {
        let orders = Orders::default();
        let ids = |range: std::ops::Range<u64>| range.map(BlockId).collect::<Vec<_>>();
        assert!(orders.add(WorkerId(1), ids(0..QUEUED_MAX as u64)));
        assert!(!orders.add(WorkerId(1), ids(0..1)), "its queue is full");
        assert!(orders.add(WorkerId(2), ids(0..1)), "the other's is not");
        let mut told = 0;
        while let Some((worker, blocks)) = orders.take(&BTreeSet::new()) {
            assert!(blocks.len() <= BLOCKS_PER_CALL);
            if worker == WorkerId(1) {
                told += blocks.len();
            }
        }
        assert_eq!(told, QUEUED_MAX);
        assert!(orders.add(WorkerId(1), ids(0..1)), "there is room again");
        assert_eq!(orders.take(&BTreeSet::from([WorkerId(1)])), None, "it is busy");
    }
}
