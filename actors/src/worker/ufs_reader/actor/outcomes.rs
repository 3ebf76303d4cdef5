//! How what the UfsReader began has gone: openings, transfers, saves.

use std::ops::Range;

use actix::{Handler, Message};
use curvine_protocol::{BlockId, Result};

use super::UfsReader;
use crate::worker::ufs_reader::answer::{Request, answer_passed, answer_whole};
use crate::worker::ufs_reader::open::Opened;

#[derive(Message)]
#[rtype(result = "()")]
pub struct BlockOpened {
    pub block: BlockId,
    pub number: u64,
    pub outcome: Result<Opened>,
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
        self.openings.remove(&number);
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
pub struct ChunksStored {
    pub block: BlockId,
    pub number: u64,
    /// The first.
    pub chunk: usize,
    pub sums: Vec<u32>,
}

impl Handler<ChunksStored> for UfsReader {
    type Result = ();

    fn handle(&mut self, stored: ChunksStored, ctx: &mut Self::Context) {
        self.end_if_deleted(stored.block, ctx);
        let decisions = self
            .fills
            .stored(stored.block, stored.number, stored.chunk, &stored.sums);
        self.act(decisions, ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub struct PartEnded {
    pub block: BlockId,
    pub number: u64,
    pub chunks: Range<usize>,
    pub outcome: Result<()>,
}

impl Handler<PartEnded> for UfsReader {
    type Result = ();

    fn handle(&mut self, ended: PartEnded, ctx: &mut Self::Context) {
        self.end_if_deleted(ended.block, ctx);
        let decisions = self
            .fills
            .part_ended(ended.block, ended.number, &ended.chunks, ended.outcome);
        self.act(decisions, ctx);
    }
}

/// What was fetched has rotted, and the block was dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FillSpoiled {
    pub block: BlockId,
    pub number: u64,
}

impl Handler<FillSpoiled> for UfsReader {
    type Result = ();

    fn handle(&mut self, spoiled: FillSpoiled, ctx: &mut Self::Context) {
        let decisions = self.fills.spoiled(spoiled.block, spoiled.number);
        self.act(decisions, ctx);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub struct FillSaved {
    pub block: BlockId,
    pub number: u64,
    /// True if the block is whole and sealed.
    pub outcome: Result<bool>,
}

impl Handler<FillSaved> for UfsReader {
    type Result = ();

    fn handle(&mut self, saved: FillSaved, ctx: &mut Self::Context) {
        let decisions = self.fills.saved(saved.block, saved.number, saved.outcome);
        self.act(decisions, ctx);
    }
}
