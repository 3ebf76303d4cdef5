//! Has workers make replicas of blocks that too few have, also of those that a worker has which is being drained, and shed
//! those of which there are too many. When nothing is missing, it has them make extra copies of hot blocks.
//!
//! Nothing of it is remembered: it looks through all files again and again, a page at a time, and rests in between for many
//! times as long as that took. What is in danger most comes first. A file that somebody is writing is left alone until it is
//! closed: what is copied is known by its generation, which its writer may still be writing in.

mod balance;
mod extra;
mod look;
mod shed;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::cluster::WorkerService;
use curvine_protocol::op::Op;
use curvine_protocol::worker::{CopyReplica, SurplusReplica};
use curvine_protocol::{BlockId, BlockRef, ErrorKind, Result, WorkerId};
use futures::future::{join, join_all};
use futures::stream::{self, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::balance::{BETWEEN_BURSTS, Balancing, Round};
use self::look::{Extra, FOUND_MAX, Look, Seen, Task};
use super::Duty;
use crate::kit::deadlines::of_replicas;
use crate::kit::{Clock, call, metrics};
use crate::master::blocks::BlockMap;
use crate::master::blocks::balance::Move;
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::fetching::Fetching;
use crate::master::namespace::kept::Cached;
use crate::master::namespace::store::Store;
use crate::master::workers::{Workers, gone};

/// How long it rests between two looks, at least; and how many times as long as a look took.
const EVERY: Duration = Duration::from_secs(3);
const RESTS: u32 = 20;
/// The same while there are extra copies of kept blocks, which are to go as soon as room gets short.
const EVERY_WITH_EXTRA: Duration = Duration::from_secs(1);
/// Inodes in one read of the state.
const PAGE: usize = 512;
/// Copies at the same time: what else goes over the network and the disks has the greater part of them.
const AT_ONCE: usize = 4;

pub struct Repair {
    store: Store,
    propose: Arc<dyn ProposeOp>,
    blocks: Arc<BlockMap>,
    workers: Workers,
    fetching: Fetching,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
    made: AtomicU64,
    shed: AtomicU64,
    /// Extra copies.
    more: AtomicU64,
    /// When a cached block was copied last: a copy that goes at once for want of room is not made again and again.
    copied: Mutex<HashMap<BlockId, Instant>>,
    /// So many more copies of hot blocks there are at most.
    hot_copies: usize,
    balancing: Mutex<Balancing>,
    now: Arc<Notify>,
}

/// What is to be done after a look.
struct Found {
    /// What has the fewest replicas comes first.
    to_copy: Vec<Task>,
    /// By who has them.
    surplus: Vec<(WorkerId, Vec<SurplusReplica>)>,
    /// Where the workers are being balanced, and all that is known that it takes.
    to_balance: Option<(Round, Vec<(BlockRef, Move)>)>,
    /// The hottest first.
    extra: Vec<Extra>,
}

impl Repair {
    pub fn new(
        store: Store,
        propose: Arc<dyn ProposeOp>,
        blocks: Arc<BlockMap>,
        fetching: Fetching,
        hot_copies: usize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Repair {
            workers: fetching.workers.clone(),
            fetching,
            more: AtomicU64::new(0),
            copied: Mutex::default(),
            hot_copies,
            store,
            propose,
            blocks,
            clock,
            seen: Mutex::default(),
            made: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            balancing: Mutex::default(),
            now: Arc::default(),
        }
    }

    /// What has it look without further rest.
    pub fn now(&self) -> Arc<Notify> {
        self.now.clone()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while holding this")
    }

    /// Looks through all files.
    async fn look(&self, last_worker: WorkerId) -> Result<Found> {
        let begun = self.clock.now();
        let draining = self.draining();
        let hot = self.blocks.cluster().hot(self.hot_copies, begun);
        let mut look = Look::of_all(draining.keys().copied(), hot);
        let mut round = self.balance_round(last_worker)?;
        look.plan = round.as_mut().and_then(|round| round.plan.take());
        let (mut after, mut is_whole) = (None, true);
        let wanted = self.cached_wanted(begun);
        let wants_any = wanted.any(&look.hot);
        while let Some(page) = {
            let wanted = |cached: &Cached| wanted.has(cached, &look.hot);
            let wanted: Option<&dyn Fn(&Cached) -> bool> = wants_any.then_some(&wanted);
            self.store.kept(after, PAGE, wanted)?
        } {
            {
                let now = self.clock.now();
                let cluster = self.blocks.cluster();
                for kept in &page.blocks {
                    look.at(&cluster, kept, now);
                }
                for cached in &page.cached {
                    look.at_cached(&cluster, cached, now);
                }
            }
            if look.seen.to_copy >= FOUND_MAX {
                is_whole = false;
                break;
            }
            after = Some(page.last);
            // Others have work on this thread, too.
            tokio::task::yield_now().await;
        }
        let Look {
            found,
            mut seen,
            plan: _,
            moves,
            surplus,
            doubtful,
            outdated,
            left,
            hot: _,
            extra,
        } = look;
        for worker in outdated {
            self.blocks.untold(worker);
        }
        seen.took = self.clock.now().duration_since(begun);
        let lost = seen.lost as u64;
        *self.seen() = seen;
        for inode in doubtful {
            self.propose.propose_op(Op::DoubtReplicas { inode }).await?;
        }
        // One that registered meanwhile had not said what it has when some of its blocks were looked at.
        is_whole &= self.draining() == draining;
        for (worker, mut left) in left {
            if draining.get(&worker) == Some(&None) {
                // Whatever nobody has may be there.
                left.blocks += lost;
            }
            self.blocks.cluster().roster.out.found_left(worker, left);
            if is_whole && left.is_nothing() {
                self.drained(worker).await?;
            }
        }
        Ok(Found {
            to_copy: found.into_values().flatten().collect(),
            surplus: surplus.into_iter().collect(),
            to_balance: round.map(|round| (round, moves)),
            extra: extra.into_values().rev().flatten().collect(),
        })
    }

    /// The workers that are being drained, each with its registration under which it has said all that it has.
    fn draining(&self) -> BTreeMap<WorkerId, Option<u64>> {
        let cluster = self.blocks.cluster();
        let workers = cluster.roster.out.draining().into_iter();
        workers
            .map(|worker| (worker, cluster.roster.reported_as(worker)))
            .collect()
    }

    /// Nothing that is kept depends on a worker any more. Nothing was put there since it was drained: not by writers who
    /// came then, and the files of those who were there before are closed.
    async fn drained(&self, worker: WorkerId) -> Result<()> {
        let op = Op::SetWorkerService {
            worker,
            service: WorkerService::Drained,
            from: Some(WorkerService::Draining),
        };
        self.propose.propose_op(op).await?;
        tracing::info!("worker {worker} is drained: it may be stopped for good");
        self.blocks.learn_services(self.store.services()?);
        Ok(())
    }

    async fn copy_all(&self, tasks: Vec<Task>) {
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
    }

    async fn copy(&self, task: Task) -> Result<()> {
        let Task { block, from, to } = task;
        if self.copy_replica(&block, from, to).await? {
            metrics::REPLICAS_MADE.add(1);
            self.made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether there is one more; else the block is another one by now.
    ///
    /// # Errors
    /// Of the workers, and of the state.
    async fn copy_replica(&self, block: &BlockRef, from: WorkerId, to: WorkerId) -> Result<bool> {
        // It may have been written or deleted since it was seen.
        if !self.store.is_kept(block)? {
            return Ok(false);
        }
        let (address, others) = {
            let cluster = self.blocks.cluster();
            let now = self.clock.now();
            let aside = cluster.holders.damaged_on(block.id).iter().copied();
            let others = aside.filter(|id| *id != from && cluster.roster.is_live(*id, now));
            (cluster.roster.address(from), cluster.roster.addresses_of(others))
        };
        let address = address.ok_or_else(|| gone(from))?;
        let port = self.workers.reach(to)?;
        let copy = CopyReplica {
            block: *block,
            from,
            address,
            others,
        };
        call(&*port, copy, of_replicas(block.len_bytes))
            .await
            .inspect_err(|error| {
                if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound) {
                    self.blocks.cluster().holders.is_hopeless(block.id);
                }
            })
            .map_err(|error| {
                error.while_doing(format_args!(
                    "copying block {} from worker {from} to worker {to}",
                    block.id
                ))
            })?;
        // Its report follows, and says so again. What has become of the block meanwhile, the namespace knows.
        let is_kept = self.store.is_kept(block)?;
        if is_kept {
            self.blocks.made(to, block);
        }
        Ok(is_kept)
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
        self.shed.store(0, Ordering::Relaxed);
        self.more.store(0, Ordering::Relaxed);
        *self.balancing() = Balancing::default();
        Ok(())
    }

    async fn due(&self) {
        let (took, every) = {
            let seen = self.seen();
            let every = if seen.has_extra { EVERY_WITH_EXTRA } else { EVERY };
            (seen.took, every)
        };
        if self.balancing().moves {
            // Workers say how full they are meanwhile.
            return tokio::time::sleep(BETWEEN_BURSTS.max(took)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(every.max(took * RESTS)) => {}
            () = self.now.notified() => tokio::time::sleep(EVERY).await,
        }
    }

    async fn tick(&self) -> Result<()> {
        self.blocks.learn_services(self.store.services()?);
        let last_worker = self.store.last_worker()?;
        self.blocks.cluster().roster.last_worker = last_worker;
        if !(self.blocks.cluster()).knows_holders(last_worker, self.clock.now()) {
            return Ok(());
        }
        let Found {
            to_copy,
            surplus,
            to_balance,
            extra,
        } = self.look(last_worker).await?;
        if to_copy.is_empty()
            && surplus.is_empty()
            && let Some((round, moves)) = to_balance
        {
            return self.balance(round, moves).await;
        }
        let copying = self.copy_all(to_copy);
        let shedding = surplus
            .into_iter()
            .map(|(at, replicas)| self.shed_all(at, replicas));
        join(copying, join_all(shedding)).await;
        self.make_extra(extra).await;
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
        say(
            seen.rotten,
            "have failed their checksums everywhere (`cv fsck` names the files)",
        );
        let made = self.made.load(Ordering::Relaxed);
        let mut status = match words.is_empty() {
            true => format!("every block has its replicas; {made} made"),
            false => format!("too few replicas: {}; {made} made", words.join(", ")),
        };
        let shed = self.shed.load(Ordering::Relaxed);
        match seen.surplus {
            0 if shed == 0 => {}
            0 => status += &format!("; {shed} shed that were too many"),
            surplus => status += &format!("; {surplus} replicas too many, {shed} shed"),
        }
        match self.more.load(Ordering::Relaxed) {
            0 => {}
            more => status += &format!("; extra copies made: {more}"),
        }
        if self.balancing().moves {
            status += "; the workers are being balanced";
        }
        for worker in self.blocks.cluster().roster.out.draining() {
            status += &format!("; worker {worker} is being drained");
        }
        if let Ok(last_worker) = self.store.last_worker() {
            for worker in self.blocks.cluster().roster.unheard(last_worker) {
                status += &format!("; worker {worker} has not been heard of since this leader was elected");
            }
        }
        if let Some(failure) = seen.failure {
            status += &format!("; last failure: {failure}");
        }
        status
    }
}
