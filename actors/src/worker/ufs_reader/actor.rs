//! The UfsReader actor: who waits for which block, and which parts are under way.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use bytes::{Bytes, BytesMut};
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::{BlockData, BlocksLoaded, Fill, LoadBlocks, LoadTask, ReadBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::plan::Plan;
use super::resolve::Resolver;
use super::transfer::{Budget, Target};
use crate::kit::{Answer, Ask, Body, Clock, FileRange};
use crate::worker::disk::{DiskRef, FillStart, Grant, Store, answer_with, chunks_of};
use crate::worker::placement::choose_disk;

/// Blocks up to this length are fetched in one go and stored in one.
const SMALL_BYTES: u64 = 1 << 20;
/// Blocks of one load that are filled at once.
const LOAD_TASKS_MAX: usize = 96;
/// Requests that a load keeps under way: with fewer blocks than this, each is fetched in several parts.
const LOAD_PARTS: usize = 16;
/// How much arrives before the index is told how far a fill has come.
const SAVE_BYTES: u64 = 32 << 20;
/// A fill that nobody reads is saved and let go after this.
const IDLE: Duration = Duration::from_secs(20);
const SWEEP: Duration = Duration::from_secs(5);
/// Fills at once. Each holds a file open.
const FILLS_MAX: usize = 4_096;

pub struct UfsReader {
    disks: Vec<DiskRef>,
    resolver: Arc<Resolver>,
    /// Where transfers run; the streams' parsing is spread over them.
    transfers: Vec<actix::ArbiterHandle>,
    next_transfer: usize,
    for_readers: Budget,
    for_loads: Budget,
    clock: Arc<dyn Clock>,
    slots: HashMap<BlockId, Slot>,
    /// Tells fills of the same block apart.
    last_fill: u64,
}

enum Slot {
    /// Being resolved and opened; these wait.
    Opening(u64, Vec<Request>),
    Open(Box<Filling>),
}

/// One fill.
struct Filling {
    number: u64,
    target: Target,
    store: Arc<Store>,
    file: Arc<File>,
    plan: Plan,
    checksums: Vec<u32>,
    waiting: Vec<Request>,
    parts: usize,
    fetched_bytes: u64,
    unsaved_bytes: u64,
    saving: bool,
    used_at: Instant,
}

/// Who wants what of a block.
enum Request {
    Read(ReadBlock, oneshot::Sender<Result<Answer<ReadBlock>>>),
    /// All of it; told the bytes that were fetched for it.
    Whole(oneshot::Sender<Result<u64>>),
}

impl Request {
    fn fail(self, error: Error) {
        match self {
            Request::Read(_, reply) => drop(reply.send(Err(error))),
            Request::Whole(reply) => drop(reply.send(Err(error))),
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Request::Read(_, reply) => reply.is_closed(),
            Request::Whole(reply) => reply.is_closed(),
        }
    }
}

/// What a request names as its source.
enum Origin {
    Reader(Fill),
    Master(Box<LoadTask>),
}

/// How opening a block ended.
enum Opened {
    /// It was or is wholly on this disk; so many bytes were fetched.
    Whole(Arc<Store>, u64),
    Fill {
        target: Target,
        store: Arc<Store>,
        file: Arc<File>,
        plan: Plan,
        checksums: Vec<u32>,
    },
    /// Small and fetched, but not stored.
    Passed(Vec<Bytes>, Error),
    /// No disk takes it: readers are served through.
    NoRoom(Target, Error),
}

impl UfsReader {
    #[must_use]
    pub fn new(
        disks: Vec<DiskRef>,
        resolver: Arc<Resolver>,
        transfers: Vec<actix::ArbiterHandle>,
        budget_bytes: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        assert!(!transfers.is_empty(), "transfers run somewhere");
        UfsReader {
            disks,
            resolver,
            transfers,
            next_transfer: 0,
            for_readers: Budget::new(budget_bytes / 2),
            for_loads: Budget::new(budget_bytes / 2),
            clock,
            slots: HashMap::new(),
            last_fill: 0,
        }
    }

    fn transfer(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.next_transfer = (self.next_transfer + 1) % self.transfers.len();
        self.transfers[self.next_transfer].spawn(work);
    }

    fn ask(
        &mut self,
        block: BlockId,
        generation: u32,
        request: Request,
        origin: Origin,
        ctx: &Context<Self>,
    ) {
        let full = self.slots.len() >= FILLS_MAX;
        match self.slots.get_mut(&block) {
            Some(Slot::Opening(_, waiting)) => waiting.push(request),
            Some(Slot::Open(filling)) if filling.target.generation == generation => {
                self.serve(block, request, ctx);
            }
            Some(Slot::Open(filling)) => request.fail(Error::new(
                ErrorKind::Stale,
                format!(
                    "block {block}: generation {generation} was asked for and {} is being filled",
                    filling.target.generation
                ),
            )),
            None if full => request.fail(Error::new(
                ErrorKind::Overloaded,
                format!("{FILLS_MAX} blocks are being filled already; try again"),
            )),
            None => {
                self.last_fill += 1;
                let number = self.last_fill;
                let budget = match &origin {
                    Origin::Reader(_) => self.for_readers.clone(),
                    Origin::Master(_) => self.for_loads.clone(),
                };
                self.slots.insert(block, Slot::Opening(number, vec![request]));
                let (disks, resolver, reader) = (self.disks.clone(), self.resolver.clone(), ctx.address());
                self.transfer(async move {
                    let outcome = open(&disks, &resolver, block, generation, origin, &budget).await;
                    reader.do_send(BlockOpened {
                        block,
                        number,
                        outcome,
                    });
                });
            }
        }
    }

    /// Answers a request of an open fill, now or when its chunks are there.
    fn serve(&mut self, block: BlockId, request: Request, ctx: &Context<Self>) {
        let now = self.clock.now();
        let parts_each = LOAD_PARTS / self.slots.len().max(1);
        let Some(Slot::Open(filling)) = self.slots.get_mut(&block) else {
            return;
        };
        filling.used_at = now;
        let (parts, budget) = match &request {
            Request::Read(call, _) => match filling.chunks(call) {
                None => (Vec::new(), self.for_readers.clone()),
                Some(chunks) => (filling.plan.want(chunks), self.for_readers.clone()),
            },
            Request::Whole(_) => (filling.plan.want_all(parts_each), self.for_loads.clone()),
        };
        if let Some(request) = filling.answer(request) {
            filling.waiting.push(request);
        }
        filling.parts += parts.len();
        let (number, target) = (filling.number, filling.target.clone());
        let (store, file, reader) = (filling.store.clone(), filling.file.clone(), ctx.address());
        for chunks in parts {
            let (target, store, file, reader) = (target.clone(), store.clone(), file.clone(), reader.clone());
            let budget = budget.clone();
            self.transfer(async move {
                let stored = |chunk, sums| {
                    reader.do_send(ChunksStored {
                        block,
                        number,
                        chunk,
                        sums,
                    });
                };
                let outcome = target
                    .fetch_to(chunks.clone(), store, file, &budget, stored)
                    .await;
                reader.do_send(PartEnded {
                    block,
                    number,
                    chunks,
                    outcome,
                });
            });
        }
    }

    fn filling(&mut self, block: BlockId, number: u64) -> Option<&mut Filling> {
        match self.slots.get_mut(&block) {
            Some(Slot::Open(filling)) if filling.number == number => Some(filling),
            _ => None,
        }
    }

    /// Keeps how far a fill has come; seals it if it is whole.
    fn save(&mut self, block: BlockId, number: u64, reader: Addr<Self>) {
        let Some(filling) = self.filling(block, number) else {
            return;
        };
        if std::mem::replace(&mut filling.saving, true) {
            return;
        }
        filling.unsaved_bytes = 0;
        let (target, present) = (filling.target.clone(), filling.plan.present().clone());
        let checksums = filling.checksums.clone();
        filling.store.on_lane(block, move |store| {
            let done = Box::new(move |outcome| {
                reader.do_send(FillSaved {
                    block,
                    number,
                    outcome,
                })
            });
            store.fill_save(
                block,
                target.generation,
                target.len_bytes,
                present,
                checksums,
                done,
            );
        });
    }

    /// Ends a fill; what waits for it fails.
    fn give_up(&mut self, block: BlockId, error: &Error) {
        if let Some(Slot::Open(filling)) = self.slots.remove(&block) {
            for request in filling.waiting {
                request.fail(error.clone());
            }
        }
    }
}

impl Filling {
    /// The chunks a read touches; none if it is beyond the end.
    fn chunks(&self, call: &ReadBlock) -> Option<Range<usize>> {
        let end = read_end(call, self.target.len_bytes);
        (call.offset_bytes < end).then(|| (call.offset_bytes / CHUNK_BYTES) as usize..chunks_of(end))
    }

    /// Answers a request if everything it wants is there; else gives it back.
    fn answer(&self, request: Request) -> Option<Request> {
        let (call, reply) = match request {
            Request::Whole(reply) => return Some(Request::Whole(reply)),
            Request::Read(call, reply) => (call, reply),
        };
        let Some(chunks) = self.chunks(&call) else {
            let _ = reply.send(Ok(answer_with(call.offset_bytes, Bytes::new())));
            return None;
        };
        if !self.plan.has(chunks.clone()) {
            return Some(Request::Read(call, reply));
        }
        let len_bytes = self.target.len_bytes;
        let end = read_end(&call, len_bytes);
        let sums = self.checksums[chunks].to_vec();
        let file = self.file.clone();
        if call.offset_bytes.is_multiple_of(CHUNK_BYTES)
            && (end.is_multiple_of(CHUNK_BYTES) || end == len_bytes)
        {
            let data = BlockData {
                offset_bytes: call.offset_bytes,
                checksums: sums,
            };
            let range = FileRange {
                file,
                offset_bytes: call.offset_bytes,
                len_bytes: (end - call.offset_bytes) as u32,
            };
            let _ = reply.send(Ok(Answer::with_body(data, Body::File(range))));
        } else {
            self.store
                .on_any_lane(call.offset_bytes / CHUNK_BYTES, move |store| {
                    let _ = reply.send(store.read_filled(&call, &file, len_bytes, &sums));
                });
        }
        None
    }

    fn answer_waiting(&mut self) {
        for request in std::mem::take(&mut self.waiting) {
            if let Some(request) = self.answer(request) {
                self.waiting.push(request);
            }
        }
    }
}

fn read_end(call: &ReadBlock, len_bytes: u64) -> u64 {
    call.offset_bytes
        .saturating_add(call.len_bytes.into())
        .min(len_bytes)
}

// ---------------------------------------------------------------------------------------------------------------
// Opening

async fn open(
    disks: &[DiskRef],
    resolver: &Resolver,
    block: BlockId,
    generation: u32,
    origin: Origin,
    budget: &Budget,
) -> Result<Opened> {
    for disk in disks {
        if disk.store.sealed_generation(block)? == Some(generation) {
            return Ok(Opened::Whole(disk.store.clone(), 0));
        }
    }
    let target = match &origin {
        Origin::Reader(fill) => resolver.target(block, generation, fill).await?,
        Origin::Master(task) => resolver.load_target(task).await?,
    };
    let disk = match disk_for(disks, block, target.len_bytes) {
        Ok(disk) => disk,
        Err(error) => return Ok(Opened::NoRoom(target, error)),
    };
    let opened = if target.len_bytes <= SMALL_BYTES {
        open_small(disk.store.clone(), &target, budget).await
    } else {
        open_large(disk.store.clone(), target.clone()).await
    };
    if let Err(error) = &opened {
        resolver.failed(&target, error.kind).await;
    }
    opened
}

fn disk_for(disks: &[DiskRef], block: BlockId, len_bytes: u64) -> Result<&DiskRef> {
    for disk in disks {
        if disk.store.holds(block)? {
            return Ok(disk);
        }
    }
    let statuses: Vec<_> = disks.iter().map(|disk| disk.store.status()).collect();
    choose_disk(&statuses, len_bytes, len_bytes)
        .map(|number| &disks[number])
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NoSpace,
                format!("no disk of this worker has {len_bytes} bytes left to cache block {block}; free some with `cv free`"),
            )
        })
}

async fn open_small(store: Arc<Store>, target: &Target, budget: &Budget) -> Result<Opened> {
    let body = target.fetch(0..target.len_bytes, budget).await?;
    let (done, stored) = oneshot::channel();
    let (block, generation, pieces) = (target.block, target.generation, body.clone());
    store.on_lane(block, move |store| {
        let done = Box::new(move |outcome| drop(done.send(outcome)));
        store.put_fetched(block, generation, &pieces, done);
    });
    match stored.await {
        Ok(Ok(_)) => Ok(Opened::Whole(store, target.len_bytes)),
        Ok(Err(error)) => Ok(Opened::Passed(body, error)),
        Err(_) => Err(Error::internal("storing a block was given up")),
    }
}

async fn open_large(store: Arc<Store>, target: Target) -> Result<Opened> {
    let (done, begun) = oneshot::channel();
    let (block, generation, len_bytes) = (target.block, target.generation, target.len_bytes);
    store.on_lane(block, move |store| {
        let _ = done.send(store.fill_begin(block, generation, len_bytes));
    });
    let begun = begun
        .await
        .unwrap_or_else(|_| Err(Error::internal("opening a block was given up")));
    match begun {
        Ok(FillStart::Whole) => Ok(Opened::Whole(store, 0)),
        Ok(FillStart::Open {
            file,
            present,
            checksums,
        }) => Ok(Opened::Fill {
            target,
            store,
            file,
            plan: Plan::new(present),
            checksums,
        }),
        Err(error) if error.kind == ErrorKind::NoSpace => Ok(Opened::NoRoom(target, error)),
        Err(error) => Err(error),
    }
}

/// A request for a block that is wholly on a disk.
fn answer_whole(store: &Arc<Store>, fetched_bytes: u64, request: Request) {
    match request {
        Request::Whole(reply) => drop(reply.send(Ok(fetched_bytes))),
        Request::Read(call, reply) => match store.grant(&call) {
            Ok(Grant::Ready(answer)) => drop(reply.send(Ok(answer))),
            Err(error) => drop(reply.send(Err(error))),
            Ok(_) => store.on_lane(call.block, move |store| {
                let _ = reply.send(store.read(&call));
            }),
        },
    }
}

/// Answers a read from bytes that were fetched and not stored.
fn answer_passed(call: &ReadBlock, start: u64, body: &[Bytes]) -> Answer<ReadBlock> {
    let mut bytes = BytesMut::new();
    let mut at = start;
    let end = call.offset_bytes.saturating_add(call.len_bytes.into());
    for piece in body {
        let from = call.offset_bytes.clamp(at, at + piece.len() as u64) - at;
        let to = end.clamp(at, at + piece.len() as u64) - at;
        bytes.extend_from_slice(&piece[from as usize..to as usize]);
        at += piece.len() as u64;
    }
    answer_with(call.offset_bytes, bytes.freeze())
}

// ---------------------------------------------------------------------------------------------------------------
// Messages

impl Actor for UfsReader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1_024);
        ctx.run_interval(SWEEP, |reader, ctx| reader.sweep(ctx));
    }
}

impl UfsReader {
    /// Saves and lets go of fills that nobody uses.
    fn sweep(&mut self, ctx: &Context<Self>) {
        let now = self.clock.now();
        let mut idle = Vec::new();
        for (&block, slot) in &mut self.slots {
            let Slot::Open(filling) = slot else { continue };
            filling.waiting.retain(|request| !request.is_given_up());
            let used = filling.parts > 0 || filling.saving || !filling.waiting.is_empty();
            if !used && now.duration_since(filling.used_at) > IDLE {
                idle.push((block, filling.number, filling.unsaved_bytes > 0));
            }
        }
        for (block, number, unsaved) in idle {
            if unsaved {
                self.save(block, number, ctx.address());
            } else {
                self.slots.remove(&block);
            }
        }
    }
}

/// A read of a block that is not, or not wholly, on this worker.
pub struct ReadThrough {
    pub call: ReadBlock,
    pub fill: Fill,
}

impl Message for ReadThrough {
    type Result = Result<Answer<ReadBlock>>;
}

impl Handler<ReadThrough> for UfsReader {
    type Result = ResponseFuture<Result<Answer<ReadBlock>>>;

    fn handle(&mut self, ReadThrough { call, fill }: ReadThrough, ctx: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        let (block, generation) = (call.block, call.generation);
        self.ask(
            block,
            generation,
            Request::Read(call, reply),
            Origin::Reader(fill),
            ctx,
        );
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(given_up(block))) })
    }
}

fn given_up(block: BlockId) -> Error {
    Error::new(
        ErrorKind::Stopping,
        format!("filling block {block} was given up; the worker may be stopping"),
    )
}

/// Makes one block be here: bytes fetched for it.
struct Load(LoadTask);

impl Message for Load {
    type Result = Result<u64>;
}

impl Handler<Load> for UfsReader {
    type Result = ResponseFuture<Result<u64>>;

    fn handle(&mut self, Load(task): Load, ctx: &mut Self::Context) -> Self::Result {
        let (reply, loaded) = oneshot::channel();
        let (block, generation) = (task.block, task.generation);
        self.ask(
            block,
            generation,
            Request::Whole(reply),
            Origin::Master(Box::new(task)),
            ctx,
        );
        Box::pin(async move { loaded.await.unwrap_or_else(|_| Err(given_up(block))) })
    }
}

impl Handler<Ask<LoadBlocks>> for UfsReader {
    type Result = ResponseFuture<Result<Answer<LoadBlocks>>>;

    fn handle(&mut self, Ask { call, .. }: Ask<LoadBlocks>, ctx: &mut Self::Context) -> Self::Result {
        let reader = ctx.address();
        Box::pin(async move {
            let loads = call.tasks.into_iter().map(|task| {
                let (reader, block) = (reader.clone(), task.block);
                async move {
                    reader
                        .send(Load(task))
                        .await
                        .unwrap_or_else(|_| Err(given_up(block)))
                }
            });
            let outcomes = futures::stream::iter(loads)
                .buffered(LOAD_TASKS_MAX)
                .collect()
                .await;
            Ok(Answer::new(BlocksLoaded { outcomes }))
        })
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct BlockOpened {
    block: BlockId,
    number: u64,
    outcome: Result<Opened>,
}

impl Handler<BlockOpened> for UfsReader {
    type Result = ();

    fn handle(
        &mut self,
        BlockOpened {
            block,
            number,
            outcome,
        }: BlockOpened,
        ctx: &mut Self::Context,
    ) {
        let waiting = match self.slots.remove(&block) {
            Some(Slot::Opening(opening, waiting)) if opening == number => waiting,
            Some(other) => {
                self.slots.insert(block, other);
                return;
            }
            None => return,
        };
        match outcome {
            Err(error) => waiting
                .into_iter()
                .for_each(|request| request.fail(error.clone())),
            Ok(Opened::Whole(store, fetched_bytes)) => {
                for request in waiting {
                    answer_whole(&store, fetched_bytes, request);
                }
            }
            Ok(Opened::Passed(body, error)) => {
                for request in waiting {
                    match request {
                        Request::Read(call, reply) => drop(reply.send(Ok(answer_passed(&call, 0, &body)))),
                        whole => whole.fail(error.clone()),
                    }
                }
            }
            Ok(Opened::NoRoom(target, error)) => {
                for request in waiting {
                    match request {
                        Request::Read(call, reply) => self.pass_through(target.clone(), call, reply),
                        whole => whole.fail(error.clone()),
                    }
                }
            }
            Ok(Opened::Fill {
                target,
                store,
                file,
                plan,
                checksums,
            }) => {
                let filling = Filling {
                    number,
                    target,
                    store,
                    file,
                    plan,
                    checksums,
                    waiting: Vec::new(),
                    parts: 0,
                    fetched_bytes: 0,
                    unsaved_bytes: 0,
                    saving: false,
                    used_at: self.clock.now(),
                };
                self.slots.insert(block, Slot::Open(Box::new(filling)));
                for request in waiting {
                    self.serve(block, request, ctx);
                }
                self.save_if_whole(block, number, ctx);
            }
        }
    }
}

impl UfsReader {
    /// Serves a read without keeping its bytes.
    fn pass_through(
        &mut self,
        target: Target,
        call: ReadBlock,
        reply: oneshot::Sender<Result<Answer<ReadBlock>>>,
    ) {
        let (budget, resolver) = (self.for_readers.clone(), self.resolver.clone());
        self.transfer(async move {
            let end = read_end(&call, target.len_bytes);
            let start = call.offset_bytes.min(end);
            let outcome = match target.fetch(start..end, &budget).await {
                Ok(body) => Ok(answer_passed(&call, start, &body)),
                Err(error) => {
                    resolver.failed(&target, error.kind).await;
                    Err(error)
                }
            };
            let _ = reply.send(outcome);
        });
    }

    fn save_if_whole(&mut self, block: BlockId, number: u64, ctx: &Context<Self>) {
        if let Some(filling) = self.filling(block, number)
            && filling.plan.present().is_full()
        {
            self.save(block, number, ctx.address());
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct ChunksStored {
    block: BlockId,
    number: u64,
    /// The first.
    chunk: usize,
    sums: Vec<u32>,
}

impl Handler<ChunksStored> for UfsReader {
    type Result = ();

    fn handle(&mut self, stored: ChunksStored, ctx: &mut Self::Context) {
        let Some(filling) = self.filling(stored.block, stored.number) else {
            return;
        };
        let chunks = stored.chunk..stored.chunk + stored.sums.len();
        filling.checksums[chunks.clone()].copy_from_slice(&stored.sums);
        filling.plan.stored(chunks.clone());
        let end = (chunks.end as u64 * CHUNK_BYTES).min(filling.target.len_bytes);
        let len_bytes = end - chunks.start as u64 * CHUNK_BYTES;
        filling.fetched_bytes += len_bytes;
        filling.unsaved_bytes += len_bytes;
        filling.answer_waiting();
        if filling.plan.present().is_full() || filling.unsaved_bytes >= SAVE_BYTES {
            self.save(stored.block, stored.number, ctx.address());
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct PartEnded {
    block: BlockId,
    number: u64,
    chunks: Range<usize>,
    outcome: Result<()>,
}

impl Handler<PartEnded> for UfsReader {
    type Result = ();

    fn handle(&mut self, ended: PartEnded, _: &mut Self::Context) {
        let PartEnded { block, number, .. } = ended;
        let resolver = self.resolver.clone();
        let Some(filling) = self.filling(block, number) else {
            return;
        };
        filling.parts -= 1;
        let Err(error) = ended.outcome else { return };
        let target = filling.target.clone();
        let kind = error.kind;
        if kind == ErrorKind::UfsChanged {
            // Nothing of this version may stay: what is here and what is not would be of two.
            let store = filling.store.clone();
            store.on_lane(block, move |store| {
                if let Err(error) = store.remove(block) {
                    tracing::warn!("dropping a block of a changed object: {error}");
                }
            });
            self.give_up(block, &error);
        } else {
            filling.plan.given_up(ended.chunks.clone());
            for request in std::mem::take(&mut filling.waiting) {
                let hit = match &request {
                    Request::Whole(_) => true,
                    Request::Read(call, _) => filling.chunks(call).is_some_and(|asked| {
                        asked.start < ended.chunks.end && ended.chunks.start < asked.end
                    }),
                };
                if hit {
                    request.fail(error.clone());
                } else {
                    filling.waiting.push(request);
                }
            }
        }
        self.transfer(async move { resolver.failed(&target, kind).await });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct FillSaved {
    block: BlockId,
    number: u64,
    /// True if the block is whole and sealed.
    outcome: Result<bool>,
}

impl Handler<FillSaved> for UfsReader {
    type Result = ();

    fn handle(
        &mut self,
        FillSaved {
            block,
            number,
            outcome,
        }: FillSaved,
        ctx: &mut Self::Context,
    ) {
        let Some(filling) = self.filling(block, number) else {
            return;
        };
        filling.saving = false;
        match outcome {
            Err(error) => self.give_up(block, &error),
            Ok(false) => self.save_if_whole(block, number, ctx),
            Ok(true) => {
                let Some(Slot::Open(filling)) = self.slots.remove(&block) else {
                    return;
                };
                for request in filling.waiting {
                    answer_whole(&filling.store, filling.fetched_bytes, request);
                }
            }
        }
    }
}

/// Saves how far every fill has come. What is under way is given up.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopReader;

impl Handler<StopReader> for UfsReader {
    type Result = ();

    fn handle(&mut self, _: StopReader, ctx: &mut Self::Context) {
        for (block, slot) in self.slots.drain() {
            let Slot::Open(filling) = slot else { continue };
            let Filling {
                target,
                plan,
                checksums,
                store,
                ..
            } = *filling;
            store.on_lane(block, move |store| {
                let done = Box::new(|_| {});
                let present = plan.present().clone();
                store.fill_save(
                    block,
                    target.generation,
                    target.len_bytes,
                    present,
                    checksums,
                    done,
                );
            });
        }
        actix::ActorContext::stop(ctx);
    }
}
