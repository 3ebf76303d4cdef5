//! What others ask of the UfsReader: reads, loads, and to stop.

use std::time::Duration;

use actix::{Addr, AsyncContext, Handler, Message, ResponseFuture};
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::{
    BlocksLoaded, Fill, LoadBlocks, LoadTask, LoadingStopped, ReadBlock, StopLoading, SuspectBlock,
};
use curvine_protocol::{BlockId, Error, ErrorKind, JobId, Result};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::outcomes::FillSpoiled;
use super::{UfsReader, save};
use crate::kit::{Answer, Ask};
use crate::worker::disk::Chunks;
use crate::worker::ufs_reader::answer::Request;
use crate::worker::ufs_reader::fills::Suspected;
use crate::worker::ufs_reader::open::Origin;

/// Blocks of one load that are filled at once.
const LOAD_TASKS_MAX: usize = 96;

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
        let (block, generation) = (call.block, call.generation);
        let origin = Origin::Reader(fill.clone(), call.tier.said().flatten());
        if fill.whole {
            let (reply, loaded) = oneshot::channel();
            self.ask(block, generation, Request::Whole(reply), origin, ctx);
            let (reader, disks) = (ctx.address(), self.disks.clone());
            let once_whole = ReadThrough {
                call,
                // Whoever is to write does not read.
                fill: Fill {
                    whole: false,
                    mount: None,
                    ..fill
                },
            };
            return Box::pin(async move {
                loaded.await.unwrap_or_else(|_| Err(given_up(block)))?;
                // That may have taken long.
                disks.spare(block).await;
                let read = reader.send(once_whole).await;
                read.unwrap_or_else(|_| Err(given_up(block)))
            });
        }
        let (reply, answer) = oneshot::channel();
        let found = self.ask(block, generation, Request::Read(call, reply), origin, ctx);
        let counts = fill.mount.map(|mount| self.disks.traffic().of(mount));
        Box::pin(async move {
            let answer = answer.await.unwrap_or_else(|_| Err(given_up(block)))?;
            counts.inspect(|counts| counts.read(found, answer.body.len()));
            Ok(answer)
        })
    }
}

/// A reader has found bytes wrong of a block that is not wholly here. Answers whether they are right.
pub struct Suspect(pub SuspectBlock);

impl Message for Suspect {
    type Result = Result<bool>;
}

impl Handler<Suspect> for UfsReader {
    type Result = ResponseFuture<Result<bool>>;

    fn handle(&mut self, Suspect(call): Suspect, ctx: &mut Self::Context) -> Self::Result {
        let block = call.block;
        let Some(suspected) = self.fills.suspected(block) else {
            // It is on a disk, and nobody fills it now.
            let disks = self.disks.clone();
            return Box::pin(async move { disks.verify(call).await });
        };
        let (done, verified) = oneshot::channel();
        let Suspected { number, place, .. } = &suspected;
        let (number, store, reader) = (*number, place.store.clone(), ctx.address());
        store.on_lane(block, move |store| {
            let chunks = Chunks {
                file: &suspected.place.file,
                len_bytes: suspected.len_bytes,
                present: &suspected.present,
                checksums: &suspected.checksums,
            };
            let outcome = store.verify_filling(&call, &chunks);
            if matches!(outcome, Ok(false)) && !store.holds(block).unwrap_or(true) {
                reader.do_send(FillSpoiled { block, number });
            }
            let _ = done.send(outcome);
        });
        Box::pin(async move { verified.await.unwrap_or_else(|_| Err(given_up(block))) })
    }
}

fn given_up(block: BlockId) -> Error {
    Error::new(
        ErrorKind::Stopping,
        format!("filling block {block} was given up; the worker may be stopping"),
    )
}

/// Makes one block be here: bytes fetched for it.
struct Load(LoadTask, Option<JobId>);

impl Message for Load {
    type Result = Result<u64>;
}

impl Handler<Load> for UfsReader {
    type Result = ResponseFuture<Result<u64>>;

    fn handle(&mut self, Load(task, job): Load, ctx: &mut Self::Context) -> Self::Result {
        let (reply, loaded) = oneshot::channel();
        let (block, generation) = (task.block, task.generation);
        self.ask(
            block,
            generation,
            Request::Whole(reply),
            Origin::Master(Box::new(task), job),
            ctx,
        );
        Box::pin(async move { loaded.await.unwrap_or_else(|_| Err(given_up(block))) })
    }
}

/// How far these blocks are: bytes fetched so far.
struct Fetched(Vec<BlockId>);

impl Message for Fetched {
    type Result = Vec<u64>;
}

impl Handler<Fetched> for UfsReader {
    type Result = Vec<u64>;

    fn handle(&mut self, Fetched(blocks): Fetched, _: &mut Self::Context) -> Self::Result {
        blocks
            .iter()
            .map(|block| self.fills.fetched_bytes(*block))
            .collect()
    }
}

impl Handler<Ask<LoadBlocks>> for UfsReader {
    type Result = ResponseFuture<Result<Answer<LoadBlocks>>>;

    fn handle(&mut self, Ask { call, .. }: Ask<LoadBlocks>, ctx: &mut Self::Context) -> Self::Result {
        call.job.inspect(|job| self.disks.load_goes_on(*job));
        let reader = ctx.address();
        Box::pin(async move { Ok(Answer::new(load_all(&reader, call).await)) })
    }
}

/// Loads blocks until all have ended or patience has.
async fn load_all(reader: &Addr<UfsReader>, call: LoadBlocks) -> BlocksLoaded {
    let job = call.job;
    let blocks: Vec<BlockId> = call.tasks.iter().map(|task| task.block).collect();
    let mut ended: Vec<Option<Result<u64>>> = vec![None; blocks.len()];
    let loads = call
        .tasks
        .into_iter()
        .enumerate()
        .map(|(place, task)| async move {
            let block = task.block;
            let outcome = reader.send(Load(task, job)).await;
            (place, outcome.unwrap_or_else(|_| Err(given_up(block))))
        });
    let all = futures::stream::iter(loads)
        .buffer_unordered(LOAD_TASKS_MAX)
        .for_each(|(place, outcome)| {
            ended[place] = Some(outcome);
            std::future::ready(())
        });
    match call.patience_ms {
        0 => all.await,
        ms => drop(tokio::time::timeout(Duration::from_millis(ms.into()), all).await),
    }
    let places: Vec<usize> = (0..blocks.len())
        .filter(|place| ended[*place].is_none())
        .collect();
    if !places.is_empty() {
        let asked = Fetched(places.iter().map(|place| blocks[*place]).collect());
        let fetched = reader.send(asked).await.unwrap_or_else(|_| vec![0; places.len()]);
        for (place, bytes) in places.iter().zip(fetched) {
            ended[*place] = Some(Ok(bytes));
        }
    }
    BlocksLoaded {
        outcomes: ended.into_iter().flatten().collect(),
        under_way: places.into_iter().map(to_u32).collect(),
    }
}

impl Handler<Ask<StopLoading>> for UfsReader {
    type Result = ResponseFuture<Result<Answer<StopLoading>>>;

    fn handle(&mut self, Ask { call, .. }: Ask<StopLoading>, ctx: &mut Self::Context) -> Self::Result {
        let mut fetched_bytes = Vec::with_capacity(call.blocks.len());
        for block in call.blocks {
            self.end_if_deleted(block, ctx);
            fetched_bytes.push(self.fills.fetched_bytes(block));
            let decisions = self.fills.stop_loading(block);
            self.act(decisions, ctx);
        }
        Box::pin(std::future::ready(Ok(Answer::new(LoadingStopped {
            fetched_bytes,
        }))))
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
