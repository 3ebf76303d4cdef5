//! Reads of one inode that are under way, in their order.
//!
//! The kernel learns from a read that is answered short where a file ends, if it took it for longer: at the end of the
//! first such answer. If it reads ahead in several requests, that must be the one that has the end in it: were one from
//! behind it the first, the program would read zeros up to there. So an answer without a byte waits for the reads that
//! came before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Default)]
pub struct Reads {
    table: Mutex<Table>,
    ended: Notify,
}

#[derive(Default)]
struct Table {
    last: u64,
    under_way: BTreeSet<u64>,
}

/// A read that the kernel has no answer to yet.
pub struct Reading {
    reads: Arc<Reads>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reads.table().under_way.remove(&self.number);
        self.reads.ended.notify_waiters();
    }
}

impl Reads {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read has come. To be kept until the kernel has its answer.
    pub fn begin(self: &Arc<Self>) -> Reading {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        table.under_way.insert(number);
        drop(table);
        Reading {
            reads: self.clone(),
            number,
        }
    }
}

impl Reading {
    /// Waits for the reads that came before this one. Each has its own deadline.
    pub async fn after_those_before(&self) {
        loop {
            let ended = self.reads.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.reads.table().under_way.first() == Some(&self.number) {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_read_can_wait_for_those_that_came_before_it() {
        let reads = Arc::<Reads>::default();
        let (first, second, third) = (reads.begin(), reads.begin(), reads.begin());
        assert_eq!(first.after_those_before().now_or_never(), Some(()));
        let mut waiting = Box::pin(third.after_those_before());
        assert_eq!((&mut waiting).now_or_never(), None);
        drop(first);
        assert_eq!((&mut waiting).now_or_never(), None, "the second is under way");
        drop(second);
        assert_eq!(waiting.now_or_never(), Some(()));
    }
}
