//! The Disk actor: opens, ticks, removes and stops; and the reference by which a worker reaches its lanes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use curvine_conf::DataDir;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::whole_ms;
use curvine_protocol::worker::{
    BlockAccount, BlockExtent, BlockSealed, BlockWritten, DiskScrub, MarkedBlock, PunchBlock, PutBlock,
    ReplicaSum, SealBlock, SuspectBlock, WriteBlock,
};
use curvine_protocol::{BlockId, BlockRef, Call, Error, ErrorKind, Result};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::scrub::Progress;
use super::space::on_device;
use super::store::background::ReplicaPage;
use super::store::{Copying, Done, LentFile, Room, Store, lock};
use super::{BlockNews, DiskOptions, Removal, Unsettled, recovery};
use crate::kit::ports::offloaded;
use crate::kit::{Answer, Ask, Offload, Ports};

/// Changes in flight on one disk. Each may carry a body of a few MiB.
const IN_FLIGHT_MAX: usize = 1_024;
const DEADLINE: Duration = Duration::from_secs(60);

/// One data directory: its lanes own the changes to its blocks, this actor the rest of its life.
pub struct Disk {
    store: Arc<Store>,
    tick: Duration,
    background: Arc<dyn Offload>,
    background_busy: Arc<AtomicBool>,
    scrub_bytes_per_tick: u64,
    /// Only the background thread locks it.
    scrubbed: Arc<Mutex<Progress>>,
}

/// Asked on the lane, right before a change is made: whether it may be.
pub type Permit = Box<dyn FnOnce() -> Result<()> + Send>;

/// A disk, for its worker: reads go to the store, changes to the lanes, orders to the actor.
#[derive(Clone)]
pub struct DiskRef {
    pub store: Arc<Store>,
    pub actor: Addr<Disk>,
}

impl Disk {
    /// Opens the directory and starts the actor on an arbiter of its own.
    ///
    /// # Errors
    /// Those of the file system, naming the directory.
    pub async fn start(
        directory: DataDir,
        options: DiskOptions,
        ports: &Ports,
        number: usize,
        arbiter: &actix::ArbiterHandle,
        being_fetched: Arc<dyn Fn() -> HashSet<BlockId> + Send + Sync>,
        news: Arc<dyn Fn(BlockNews) + Send + Sync>,
    ) -> Result<(DiskRef, Unsettled)> {
        let thread_name = format!("disk-{number}");
        let background = ports.offload(&format!("{thread_name}-sync"));
        let (tick, scrub_bytes_per_tick) = (options.tick, options.scrub_bytes_per_tick);
        let (store, unsettled) = {
            let ports = ports.clone();
            let open = move || recovery::open(directory, &options, &ports, &thread_name, being_fetched, news);
            let (store, unsettled) = offloaded(&*background, open).await??;
            (Arc::new(store), unsettled)
        };
        let disk = Disk {
            store: store.clone(),
            tick,
            background,
            background_busy: Arc::new(AtomicBool::new(false)),
            scrub_bytes_per_tick,
            scrubbed: Arc::default(),
        };
        let actor = Disk::start_in_arbiter(arbiter, |_| disk);
        Ok((DiskRef { store, actor }, unsettled))
    }
}

/// A change that has its room until it is done.
fn in_room<C: Call>(
    room: Room,
    change: BoxFuture<'static, Result<Answer<C>>>,
) -> BoxFuture<'static, Result<Answer<C>>> {
    Box::pin(async move {
        let _room = room;
        change.await
    })
}

impl DiskRef {
    /// Writes at an offset of a block, if that may still be done when its turn comes.
    pub fn write(
        &self,
        Ask { call, body, .. }: Ask<WriteBlock>,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Answer<WriteBlock>>> {
        let block = call.block;
        // The first write of a generation cuts the block, to no less than where it had been.
        let from = call.offset_bytes.min(call.base_len_bytes);
        let end = call.offset_bytes.saturating_add(body.len() as u64);
        // At most as much as that, and no more than its own bytes if it follows another one.
        let (at_most_bytes, own_bytes) = (on_device(end), on_device(end) - on_device(call.offset_bytes));
        let write = move |store: &Arc<Store>, done: Done<BlockWritten>| store.write(&call, &body, done);
        if !self.store.is_lent(block)
            && let Some(room) = self.store.room_if_there(block, own_bytes, at_most_bytes)
        {
            return in_room(room, self.change("a write", block, permit, write));
        }
        self.change_with_room("a write", block, (from, end), permit, write)
    }

    /// A change of a block from an offset on, up to which it is written: room is made for it first.
    fn change_with_room<C: Call>(
        &self,
        what: &'static str,
        block: BlockId,
        (from_bytes, until_bytes): (u64, u64),
        permit: Permit,
        change: impl FnOnce(&Arc<Store>, Done<C::Reply>) + Send + 'static,
    ) -> BoxFuture<'static, Result<Answer<C>>> {
        let disk = self.clone();
        Box::pin(async move {
            let growth_bytes = disk
                .on_lane(block, move |store| {
                    store.growth_bytes(block, from_bytes, until_bytes)
                })
                .await?;
            let _room = disk.store.make_room(block, growth_bytes).await;
            disk.change(what, block, permit, change).await
        })
    }

    /// Makes a hole in a block.
    pub fn punch(
        &self,
        Ask { call, .. }: Ask<PunchBlock>,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Answer<PunchBlock>>> {
        let block = call.block;
        let from = call.offset_bytes.min(call.base_len_bytes);
        let punch = move |store: &Arc<Store>, done: Done<BlockWritten>| done(store.punch(&call));
        match self.store.is_lent(block) {
            false => self.change("a hole", block, permit, punch),
            true => self.change_with_room("a hole", block, (from, 0), permit, punch),
        }
    }

    /// Makes what was written visible.
    pub fn seal(
        &self,
        Ask { call, .. }: Ask<SealBlock>,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Answer<SealBlock>>> {
        self.change("the seal", call.block, permit, move |store, done| {
            store.seal(&call, done)
        })
    }

    /// Writes and seals a small block.
    pub fn put(
        &self,
        Ask { call, body, .. }: Ask<PutBlock>,
        permit: Permit,
    ) -> BoxFuture<'static, Result<Answer<PutBlock>>> {
        let block = call.block;
        let need_bytes = on_device(body.len() as u64);
        let put = move |store: &Arc<Store>, done: Done<BlockSealed>| store.put(&call, &body, done);
        if let Some(room) = self.store.room_if_there(block, need_bytes, need_bytes) {
            return in_room(room, self.change("a put", block, permit, put));
        }
        let disk = self.clone();
        Box::pin(async move {
            let _room = disk.store.make_room(block, need_bytes).await;
            disk.change("a put", block, permit, put).await
        })
    }

    /// Looks at bytes that somebody has found wrong; see [`Store::verify`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn verify(&self, call: SuspectBlock) -> Result<bool> {
        self.on_lane(call.block, move |store| store.verify(&call)).await
    }

    /// Lends the file of a block; see [`Store::lend`].
    ///
    /// # Errors
    /// Those of [`Store::lend`].
    pub async fn lend(&self, block: BlockId, generation: u32) -> Result<LentFile> {
        self.on_lane(block, move |store| store.lend(block, generation))
            .await
    }

    /// What is here of a block; see [`Store::compare`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn compare(&self, extent: BlockExtent) -> Result<Option<ReplicaSum>> {
        self.on_lane(extent.block, move |store| store.compare(extent))
            .await
    }

    /// What is here of a kept block; see [`Store::confirm`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn confirm(&self, block: BlockRef) -> Result<Option<ReplicaSum>> {
        self.on_lane(block.id, move |store| store.confirm(block)).await
    }

    /// Has a block be what all its replicas are; see [`Store::keep`].
    ///
    /// # Errors
    /// Those of [`Store::keep`].
    pub async fn keep(&self, extent: BlockExtent, generation: u32) -> Result<()> {
        self.on_lane(extent.block, move |store| store.keep(extent, generation))
            .await
    }

    /// Has a doubtful block count; see [`Store::accept`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn accept(&self, block: BlockId) -> Result<()> {
        self.on_lane(block, move |store| store.accept(block)).await
    }

    /// Has a block be kept or cached; see [`Store::set_kind`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn mark(&self, marked: MarkedBlock, cached: bool, number: u64) -> Result<bool> {
        let mark = move |store: &Arc<Store>, done| store.set_kind(marked, cached, number, done);
        self.told(marked.block, mark).await
    }

    /// Has a block be pinned or not; see [`Store::set_pinned`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn pin(&self, block: BlockId, pinned: bool, number: u64) -> Result<bool> {
        let pin = move |store: &Arc<Store>, done| store.set_pinned(block, pinned, number, done);
        self.told(block, pin).await
    }

    /// Keeps a short replica; see [`Store::put_replica`].
    ///
    /// # Errors
    /// Those of [`Store::copy_begin`].
    pub async fn put_replica(&self, block: BlockRef, body: Bytes) -> Result<()> {
        self.told(block.id, move |store, done| store.put_replica(block, body, done))
            .await
    }

    /// Begins a long one; see [`Store::copy_begin`].
    ///
    /// # Errors
    /// Those of [`Store::copy_begin`].
    pub async fn begin_copy(&self, block: BlockRef) -> Result<Option<Copying>> {
        self.on_lane(block.id, move |store| store.copy_begin(block)).await
    }

    /// Adds bytes to it.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub async fn write_copy(&self, block: BlockId, mut copying: Copying, bytes: Bytes) -> Result<Copying> {
        let written = move |_: &Arc<Store>| copying.write(&bytes).map(|()| copying);
        self.on_lane(block, written).await
    }

    /// Keeps it; see [`Store::copy_end`].
    ///
    /// # Errors
    /// Those of [`Store::copy_begin`].
    pub async fn end_copy(&self, block: BlockId, copying: Copying) -> Result<()> {
        self.told(block, move |store, done| store.copy_end(copying, done))
            .await
    }

    /// Work on the lane of a block that says later how it ended.
    async fn told<T: Send + 'static>(
        &self,
        block: BlockId,
        work: impl FnOnce(&Arc<Store>, Done<T>) + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        self.store.on_lane(block, move |store| {
            let done = move |result| {
                let _ = done.send(result);
            };
            work(store, Box::new(done));
        });
        let given_up = |_| Err(Error::internal(format!("the work on block {block} was given up")));
        outcome.await.unwrap_or_else(given_up)
    }

    /// Removes a block that is here as a guest; see [`Store::drop_guest`].
    ///
    /// # Errors
    /// `Io`.
    pub async fn drop_guest(&self, block: BlockId) -> Result<()> {
        self.on_lane(block, move |store| store.drop_guest(block)).await
    }

    /// Work on the lane of a block, after what was given to it before.
    ///
    /// # Errors
    /// The work's.
    pub async fn on_lane<T: Send + 'static>(
        &self,
        block: BlockId,
        work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        self.store.on_lane(block, move |store| {
            let _ = done.send(work(store));
        });
        let given_up = |_| Err(Error::internal(format!("the work on block {block} was given up")));
        outcome.await.unwrap_or_else(given_up)
    }

    /// Hands a change to the lane of its block, which owns it, and waits for what it is told, within the deadline. Not
    /// by way of the actor: a hop between threads is what a small block costs most.
    fn change<C: Call>(
        &self,
        name: &'static str,
        block: BlockId,
        permit: Permit,
        work: impl FnOnce(&Arc<Store>, Done<C::Reply>) + Send + 'static,
    ) -> BoxFuture<'static, Result<Answer<C>>> {
        let in_flight = InFlight::enter(&self.store.in_flight);
        if self.store.in_flight.load(Ordering::Relaxed) > IN_FLIGHT_MAX {
            return Box::pin(std::future::ready(Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "disk {} has {IN_FLIGHT_MAX} changes in flight; try again",
                    self.store.name()
                ),
            ))));
        }
        let (done, outcome) = oneshot::channel();
        self.store.on_lane(block, move |store| {
            let done = move |result| {
                drop(in_flight);
                let _ = done.send(result);
            };
            match permit() {
                Ok(()) => work(store, Box::new(done)),
                Err(error) => done(Err(error)),
            }
        });
        Box::pin(async move {
            match tokio::time::timeout(DEADLINE, outcome).await {
                Ok(Ok(result)) => result.map(Answer::new),
                Ok(Err(_)) => Err(Error::internal(format!("{name} of block {block} was given up"))),
                Err(_) => Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{name} of block {block} took longer than {} s",
                        DEADLINE.as_secs()
                    ),
                )),
            }
        })
    }
}

/// Counts one change while it lives.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Actor for Disk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.tick, |_, ctx| ctx.notify(Measure));
    }
}

/// Removes blocks; those that are not here are not an error.
pub struct RemoveBlocks(pub Vec<Removal>);

impl Message for RemoveBlocks {
    type Result = Result<()>;
}

impl Handler<RemoveBlocks> for Disk {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, RemoveBlocks(blocks): RemoveBlocks, _: &mut Self::Context) -> Self::Result {
        let store = self.store.clone();
        Box::pin(async move {
            let removals = blocks.into_iter().map(|removal| {
                let (done, removed) = oneshot::channel();
                store.on_lane(removal.block, move |store| {
                    let _ = done.send(store.remove_unless_newer(removal));
                });
                removed
            });
            for removed in removals.collect::<Vec<_>>() {
                removed
                    .await
                    .unwrap_or_else(|_| Err(Error::internal("a removal was given up")))?;
            }
            Ok(())
        })
    }
}

/// Measures the device, has idle blocks sealed and cached ones go if it is too full, syncs what waits, shortens the index and
/// verifies a little: every tick.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Measure;

impl Handler<Measure> for Disk {
    type Result = ();

    fn handle(&mut self, _: Measure, _: &mut Self::Context) {
        if self.background_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, busy) = (self.store.clone(), self.background_busy.clone());
        let (scrubbed, bytes) = (self.scrubbed.clone(), self.scrub_bytes_per_tick);
        self.background.run(Box::new(move || {
            if let Err(error) = store.look_for_directory() {
                tracing::debug!(%error, "nothing is done for the disk");
                lock(&scrubbed).ends(store.clock.now());
                busy.store(false, Ordering::Release);
                return;
            }
            store.probe();
            store.seal_idle();
            let done = store
                .measure()
                .map(|()| store.evict_to_watermark())
                .and_then(|()| store.sync_background())
                .and_then(|()| store.shorten_index())
                .and_then(|()| {
                    let mut scrubbed = lock(&scrubbed);
                    let bytes = scrubbed.budget_bytes(bytes);
                    store.scrub(&mut scrubbed, bytes, store.clock.now())
                });
            store.ticked(&done);
            match done {
                // It was said once that it has.
                Err(error) if store.has_failed() => {
                    tracing::debug!(%error, "the disk {} has failed", store.name());
                    lock(&scrubbed).ends(store.clock.now());
                }
                Err(error) => tracing::warn!("disk {}: {error}", store.name()),
                Ok(()) => {}
            }
            busy.store(false, Ordering::Release);
        }));
    }
}

/// Has the scrubber verify everything from the beginning, so many bytes a second; or, without, says how far it is.
pub struct ScrubNow(pub Option<u64>);

impl Message for ScrubNow {
    type Result = Result<DiskScrub>;
}

impl Handler<ScrubNow> for Disk {
    type Result = ResponseFuture<Result<DiskScrub>>;

    fn handle(&mut self, ScrubNow(bytes_per_s): ScrubNow, _: &mut Self::Context) -> Self::Result {
        let (store, background, scrubbed) =
            (self.store.clone(), self.background.clone(), self.scrubbed.clone());
        let due_bytes = self.scrub_bytes_per_tick;
        let tick_ms = u64::from(whole_ms(self.tick));
        // It may wait for the tick that goes on.
        Box::pin(async move {
            let look = move || {
                let mut scrubbed = lock(&scrubbed);
                if let Some(bytes_per_s) = bytes_per_s {
                    scrubbed.begin((bytes_per_s.saturating_mul(tick_ms) / 1_000).max(CHUNK_BYTES));
                }
                let status = store.status();
                scrubbed.status(status.path, status.used_bytes, due_bytes)
            };
            offloaded(&*background, look).await
        })
    }
}

/// A page of what is wholly here; see [`Store::replicas`].
pub struct ListReplicas {
    pub after: Option<BlockId>,
    pub limit: usize,
}

impl Message for ListReplicas {
    type Result = Result<ReplicaPage>;
}

impl Handler<ListReplicas> for Disk {
    type Result = ResponseFuture<Result<ReplicaPage>>;

    fn handle(&mut self, page: ListReplicas, _: &mut Self::Context) -> Self::Result {
        let (store, background) = (self.store.clone(), self.background.clone());
        let ListReplicas { after, limit } = page;
        Box::pin(async move { offloaded(&*background, move || store.replicas(after, limit)).await? })
    }
}

/// What is known of blocks, in their order.
pub struct AccountFor(pub Vec<BlockId>);

impl Message for AccountFor {
    type Result = Result<Vec<BlockAccount>>;
}

impl Handler<AccountFor> for Disk {
    type Result = ResponseFuture<Result<Vec<BlockAccount>>>;

    fn handle(&mut self, AccountFor(blocks): AccountFor, _: &mut Self::Context) -> Self::Result {
        let (store, background) = (self.store.clone(), self.background.clone());
        Box::pin(async move {
            let accounts = move || blocks.into_iter().map(|block| store.account(block)).collect();
            offloaded(&*background, accounts).await?
        })
    }
}

/// Finishes what is in the lanes, syncs everything, and notes a stop in order.
#[derive(Message)]
#[rtype(result = "Result<()>")]
pub struct StopDisk;

impl Handler<StopDisk> for Disk {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, _: StopDisk, ctx: &mut Self::Context) -> Self::Result {
        let (store, background) = (self.store.clone(), self.background.clone());
        actix::ActorContext::stop(ctx);
        Box::pin(async move { offloaded(&*background, move || store.finish()).await? })
    }
}
