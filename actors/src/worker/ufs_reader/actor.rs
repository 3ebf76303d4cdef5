//! The UfsReader actor: hands events to the fills and carries out what they decide.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use curvine_protocol::worker::{BlocksLoaded, Fill, LoadBlocks, LoadTask, ReadBlock};
use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::answer::{
    Loader, Place, Reader, Request, answer_granted, answer_nothing, answer_passed, answer_read, answer_whole,
};
use super::fills::{Asked, Decision, Fills, Progress, Purpose, read_end};
use super::open::{Opened, Origin, open};
use super::resolve::Resolver;
use super::transfer::{Budget, Target};
use crate::kit::{Answer, Ask, Clock};
use crate::worker::disks::Disks;

/// Blocks of one load that are filled at once.
const LOAD_TASKS_MAX: usize = 96;
const SWEEP: Duration = Duration::from_secs(5);

type Decisions = Vec<Decision<Arc<Place>, Reader, Loader>>;

pub struct UfsReader {
    disks: Disks,
    resolver: Arc<Resolver>,
    /// Where transfers run; the streams' parsing is spread over them.
    transfers: Vec<actix::ArbiterHandle>,
    next_transfer: usize,
    for_readers: Budget,
    for_loads: Budget,
    clock: Arc<dyn Clock>,
    fills: Fills<Arc<Place>, Reader, Loader>,
}

impl Actor for UfsReader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1_024);
        ctx.run_interval(SWEEP, |reader, ctx| {
            let now = reader.clock.now();
            let decisions = reader.fills.sweep(Request::is_given_up, now);
            reader.act(decisions, ctx);
        });
    }
}

impl UfsReader {
    #[must_use]
    pub fn new(
        disks: Disks,
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
            fills: Fills::new(),
        }
    }

    fn transfer(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.next_transfer = (self.next_transfer + 1) % self.transfers.len();
        self.transfers[self.next_transfer].spawn(work);
    }

    fn budget(&self, purpose: Purpose) -> Budget {
        match purpose {
            Purpose::Reading => self.for_readers.clone(),
            Purpose::Loading => self.for_loads.clone(),
        }
    }

    fn ask(
        &mut self,
        block: BlockId,
        generation: u32,
        request: Request,
        origin: Origin,
        ctx: &Context<Self>,
    ) {
        match self.fills.ask(block, generation, request, self.clock.now()) {
            Asked::Decided(decisions) => self.act(decisions, ctx),
            Asked::Opens(number) => {
                let budget = self.budget(origin.purpose());
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

    /// Carries out what was decided, in that order.
    fn act(&mut self, decisions: Decisions, ctx: &Context<Self>) {
        for decision in decisions {
            match decision {
                Decision::Fail(request, error) => request.fail(error),
                Decision::AnswerNothing(call, reader) => answer_nothing(&call, reader),
                Decision::Grant {
                    place,
                    call,
                    reader,
                    len_bytes,
                    checksums,
                } => answer_granted(&place, &call, reader, len_bytes, checksums),
                Decision::Read {
                    place,
                    call,
                    reader,
                    checksums,
                } => answer_read(&place, call, reader, checksums),
                Decision::AnswerSealed {
                    place,
                    request,
                    fetched_bytes,
                } => answer_whole(&place.store, fetched_bytes, request),
                Decision::Fetch {
                    block,
                    number,
                    place,
                    chunks,
                    purpose,
                } => self.fetch(block, number, place, chunks, purpose, ctx),
                Decision::Save(progress) => {
                    let (block, number, reader) = (progress.block, progress.number, ctx.address());
                    save(progress, move |outcome| {
                        reader.do_send(FillSaved {
                            block,
                            number,
                            outcome,
                        });
                    });
                }
                Decision::Remove(block, place) => place.store.on_lane(block, move |store| {
                    if let Err(error) = store.remove(block) {
                        tracing::warn!("dropping a block of a changed object: {error}");
                    }
                }),
                Decision::Doubt(place, kind) => {
                    let resolver = self.resolver.clone();
                    self.transfer(async move { resolver.failed(&place.target, kind).await });
                }
            }
        }
    }

    fn fetch(
        &mut self,
        block: BlockId,
        number: u64,
        place: Arc<Place>,
        chunks: Range<usize>,
        purpose: Purpose,
        ctx: &Context<Self>,
    ) {
        let (budget, reader) = (self.budget(purpose), ctx.address());
        self.transfer(async move {
            let stored = |chunk, sums| {
                reader.do_send(ChunksStored {
                    block,
                    number,
                    chunk,
                    sums,
                });
            };
            let (store, file) = (place.store.clone(), place.file.clone());
            let outcome = place
                .target
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

    /// Serves a read without keeping its bytes.
    fn pass_through(&mut self, target: Target, call: ReadBlock, reader: Reader) {
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
            let _ = reader.send(outcome);
        });
    }
}

/// Keeps how far a fill has come; seals it if it is whole.
fn save(progress: Progress<Arc<Place>>, done: impl FnOnce(Result<bool>) + Send + 'static) {
    let Progress {
        block,
        place,
        present,
        checksums,
        ..
    } = progress;
    let (generation, len_bytes) = (place.target.generation, place.target.len_bytes);
    place.store.on_lane(block, move |store| {
        store.fill_save(block, generation, len_bytes, present, checksums, Box::new(done));
    });
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
        match outcome {
            Ok(Opened::Fill(begun)) => {
                let decisions = self.fills.begin(block, number, begun, self.clock.now());
                self.act(decisions, ctx);
            }
            Ok(Opened::Whole(store, fetched_bytes)) => {
                for request in self.fills.end_opening(block, number) {
                    answer_whole(&store, fetched_bytes, request);
                }
            }
            Ok(Opened::Passed(body, error)) => {
                for request in self.fills.end_opening(block, number) {
                    match request {
                        Request::Read(call, reader) => drop(reader.send(Ok(answer_passed(&call, 0, &body)))),
                        whole => whole.fail(error.clone()),
                    }
                }
            }
            Ok(Opened::NoRoom(target, error)) => {
                for request in self.fills.end_opening(block, number) {
                    match request {
                        Request::Read(call, reader) => self.pass_through(target.clone(), call, reader),
                        whole => whole.fail(error.clone()),
                    }
                }
            }
            Err(error) => {
                for request in self.fills.end_opening(block, number) {
                    request.fail(error.clone());
                }
            }
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
        let decisions = self
            .fills
            .stored(stored.block, stored.number, stored.chunk, &stored.sums);
        self.act(decisions, ctx);
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

    fn handle(&mut self, ended: PartEnded, ctx: &mut Self::Context) {
        let decisions = self
            .fills
            .part_ended(ended.block, ended.number, &ended.chunks, ended.outcome);
        self.act(decisions, ctx);
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

    fn handle(&mut self, saved: FillSaved, ctx: &mut Self::Context) {
        let decisions = self.fills.saved(saved.block, saved.number, saved.outcome);
        self.act(decisions, ctx);
    }
}

/// Saves how far every fill has come. What is under way is given up.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopReader;

impl Handler<StopReader> for UfsReader {
    type Result = ();

    fn handle(&mut self, _: StopReader, ctx: &mut Self::Context) {
        for progress in self.fills.stop() {
            save(progress, |_| {});
        }
        actix::ActorContext::stop(ctx);
    }
}
