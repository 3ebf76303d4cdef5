//! The UfsReader actor: hands events to the fills and carries out what they decide.
//!
//! - [`asks`]: what others ask of it.
//! - [`outcomes`]: how what it began has gone.

mod asks;
mod outcomes;

pub use self::asks::{ReadThrough, StopReader, Suspect};

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use self::outcomes::{BlockOpened, ChunksStored, FillSaved, PartEnded};
use super::answer::{
    Loader, Place, Reader, Request, answer_granted, answer_nothing, answer_passed, answer_read, answer_whole,
};
use super::budget::Budget;
use super::fills::{Asked, Decision, Fills, Progress, Purpose, read_end};
use super::open::{Origin, open, unless_stopped};
use super::resolve::Resolver;
use super::transfer::{PART_MEMORY_BYTES, Target};
use crate::kit::Clock;
use crate::worker::disks::Disks;
use crate::worker::disks::fetches::deleted;
use crate::worker::traffic::Found;

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
    /// Ends the opening of this number, and what is fetched after it.
    openings: HashMap<u64, CancellationToken>,
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
            for_readers: Budget::new(budget_bytes / 2, PART_MEMORY_BYTES),
            for_loads: Budget::new(budget_bytes / 2, PART_MEMORY_BYTES),
            clock,
            fills: Fills::new(),
            openings: HashMap::new(),
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

    /// Says where what was asked for is, as far as it is known at once.
    fn ask(
        &mut self,
        block: BlockId,
        generation: u32,
        request: Request,
        origin: Origin,
        ctx: &Context<Self>,
    ) -> Found {
        self.end_if_deleted(block, ctx);
        match self.fills.ask(block, generation, request, self.clock.now()) {
            Asked::Decided(decisions) => {
                let is_answer = |decision: &Decision<_, _, _>| {
                    matches!(decision, Decision::Grant { .. } | Decision::Read { .. })
                };
                let found = match decisions.iter().any(is_answer) {
                    true => Found::Here,
                    false => Found::Below,
                };
                self.act(decisions, ctx);
                found
            }
            Asked::Opens(number) => {
                let budget = self.budget(origin.purpose());
                let (disks, resolver, reader) = (self.disks.clone(), self.resolver.clone(), ctx.address());
                let stop = CancellationToken::new();
                self.openings.insert(number, stop.clone());
                self.transfer(async move {
                    let outcome = open(&disks, &resolver, block, generation, origin, &budget, &stop).await;
                    reader.do_send(BlockOpened {
                        block,
                        number,
                        outcome,
                    });
                });
                Found::Below
            }
        }
    }

    /// Ends a fill whose block was deleted.
    fn end_if_deleted(&mut self, block: BlockId, ctx: &Context<Self>) {
        let is_over = self.fills.place(block).is_some_and(|place| place.fetch.is_over());
        if is_over {
            let decisions = self.fills.deleted(block, &deleted(block));
            self.act(decisions, ctx);
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
                Decision::Stop(place) => place.stop.cancel(),
                Decision::StopOpening(number) => {
                    self.openings.get(&number).inspect(|opening| opening.cancel());
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
            let fetching = place
                .target
                .fetch_to(chunks.clone(), store, file, &budget, stored);
            let outcome = (unless_stopped(&place.stop, fetching).await)
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Cancelled, "it is not wanted any more")));
            // Once somebody is told that the block is here, its fetch is not under way any more.
            drop(place);
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
    let mount = place.target.mount;
    place.store.on_lane(block, move |store| {
        store.fill_save(
            block,
            generation,
            len_bytes,
            present,
            checksums,
            mount,
            Box::new(done),
        );
    });
}
