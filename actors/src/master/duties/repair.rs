//! Has workers make replicas of blocks that too few have.
//!
//! Nothing of it is remembered: it looks through all files again and again, a page at a time, and rests in between for many
//! times as long as that took. What is in danger most comes first. A file that somebody is writing is left alone until it is
//! closed: what is copied is known by its generation, which its writer may still be writing in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::worker::CopyReplica;
use curvine_protocol::{BlockRef, CallContext, Result, WorkerId};
use futures::stream::{self, StreamExt};

use super::Duty;
use crate::kit::{Clock, call, metrics};
use crate::master::blocks::BlockMap;
use crate::master::blocks::care::Care;
use crate::master::contract::NamespaceView;
use crate::master::namespace::store::Store;
use crate::master::workers::{Workers, gone};

/// How long it rests between two looks, at least; and how many times as long as a look took.
const EVERY: Duration = Duration::from_secs(3);
const RESTS: u32 = 20;
/// Inodes in one read of the state.
const PAGE: usize = 512;
/// Blocks that one look finds at most.
const FOUND_MAX: usize = 4_096;
/// Copies at the same time: what else goes over the network and the disks has the greater part of them.
const AT_ONCE: usize = 4;
/// For one copy: so long, and as long as this many bytes a second take.
const DEADLINE: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_S: u64 = 4 << 20;

pub struct Repair {
    store: Store,
    blocks: Arc<BlockMap>,
    workers: Workers,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
    made: AtomicU64,
}

/// What the last look found.
#[derive(Clone, Default)]
struct Seen {
    took: Duration,
    /// Blocks of which there are too few replicas, by what is done about it.
    to_copy: usize,
    waiting: usize,
    nowhere: usize,
    lost: usize,
    failure: Option<String>,
}

/// A copy that is to be made.
struct Task {
    block: BlockRef,
    from: WorkerId,
    to: WorkerId,
}

impl Repair {
    pub fn new(store: Store, blocks: Arc<BlockMap>, workers: Workers, clock: Arc<dyn Clock>) -> Self {
        Repair {
            store,
            blocks,
            workers,
            clock,
            seen: Mutex::default(),
            made: AtomicU64::new(0),
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while holding this")
    }

    /// Looks through all files. What is to be copied, that with the fewest replicas first.
    async fn look(&self) -> Result<Vec<Task>> {
        let begun = self.clock.now();
        let (mut found, mut seen) = (BTreeMap::<usize, Vec<Task>>::new(), Seen::default());
        let mut after = None;
        while let Some(page) = self.store.replicated(after, PAGE)? {
            {
                let now = self.clock.now();
                let cluster = self.blocks.cluster();
                for (block, wanted) in page.blocks {
                    match cluster.care(&block, wanted, now) {
                        Care::Nothing => {}
                        Care::Wait => seen.waiting += 1,
                        Care::Nobody => seen.lost += 1,
                        Care::Nowhere => seen.nowhere += 1,
                        Care::Copy { from, to, replicas } => {
                            seen.to_copy += 1;
                            let task = Task { block, from, to };
                            found.entry(replicas).or_default().push(task);
                        }
                    }
                }
            }
            if seen.to_copy >= FOUND_MAX {
                break;
            }
            after = Some(page.last);
            // Others have work on this thread, too.
            tokio::task::yield_now().await;
        }
        seen.took = self.clock.now().duration_since(begun);
        *self.seen() = seen;
        Ok(found.into_values().flatten().collect())
    }

    async fn copy(&self, task: Task) -> Result<()> {
        let Task { block, from, to } = task;
        // It may have been written or deleted since it was seen.
        if !self.store.is_replicated(&block)? {
            return Ok(());
        }
        let address = self.blocks.cluster().roster.address(from);
        let address = address.ok_or_else(|| gone(from))?;
        let port = self.workers.reach(to)?;
        let deadline = DEADLINE + Duration::from_secs(block.len_bytes / SLOWEST_BYTES_PER_S);
        let context = CallContext {
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            ..CallContext::default()
        };
        let copy = CopyReplica { block, from, address };
        call(&*port, copy, context).await.map_err(|error| {
            error.while_doing(format_args!(
                "copying block {} from worker {from} to worker {to}",
                block.id
            ))
        })?;
        metrics::REPLICAS_MADE.add(1);
        self.made.fetch_add(1, Ordering::Relaxed);
        // Its report follows, and says so again. What has become of the block meanwhile, the namespace knows.
        if self.store.is_replicated(&block)? {
            self.blocks.made(to, &block);
        }
        Ok(())
    }
}

#[async_trait]
impl Duty for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        *self.seen() = Seen::default();
        self.made.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn due(&self) {
        let took = self.seen().took;
        tokio::time::sleep(EVERY.max(took * RESTS)).await;
    }

    async fn tick(&self) -> Result<()> {
        let last_worker = self.store.last_worker()?;
        if !(self.blocks.cluster()).knows_holders(last_worker, self.clock.now()) {
            return Ok(());
        }
        let tasks = self.look().await?;
        let mut copying = stream::iter(tasks)
            .map(|task| self.copy(task))
            .buffer_unordered(AT_ONCE);
        // One that cannot be copied now keeps no other from it.
        while let Some(outcome) = copying.next().await {
            let mut seen = self.seen();
            seen.to_copy = seen.to_copy.saturating_sub(1);
            if let Err(error) = outcome {
                seen.failure = Some(error.message);
            }
        }
        Ok(())
    }

    fn end(&self) {}

    fn status(&self) -> String {
        let seen = self.seen().clone();
        let mut words = Vec::new();
        let mut say = |count: usize, what: &str| {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        };
        say(seen.to_copy, "blocks to copy");
        say(seen.waiting, "wait for a worker that may come back");
        say(seen.nowhere, "have no other worker with room");
        say(seen.lost, "are on no live worker");
        let made = self.made.load(Ordering::Relaxed);
        let mut status = match words.is_empty() {
            true => format!("every block has its replicas; {made} made"),
            false => format!("too few replicas: {}; {made} made", words.join(", ")),
        };
        if let Some(failure) = seen.failure {
            status += &format!("; last failure: {failure}");
        }
        status
    }
}
