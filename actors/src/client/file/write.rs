//! The way of bytes to workers.
//!
//! Everything here may be dropped at any await by a caller that gave up: what is not on its way stays gathered, and what
//! cannot be told to have arrived fails the file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use curvine_protocol::checksum::crc32c;
use curvine_protocol::master::AllocateBlocks;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{BlockWritten, PunchBlock, PutBlock, WriteBlock, WriteOrder};
use curvine_protocol::{Call, Error, ErrorKind, FILE_BYTES_MAX, Result};
use futures::future::join_all;
use tokio::time::sleep;

use super::Shared;
use super::deliver::{BACKOFF_MAX, Company, Patience, ToHolder};
use super::order::Taken;
use super::state::{Block, Gathered, Sent, State};
use crate::kit::backoff::Backoff;
use crate::kit::{Endpoint, Ports, WorkerPort};
use crate::planted::{Bug, is_planted};

/// Bytes gathered before they are sent; no piece is larger.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way to workers at the same time, for each open file.
pub const WINDOW: usize = 6;
/// Blocks asked for ahead of the one that is written, at the end of a file.
const BLOCKS_AHEAD: u32 = 1;

impl Shared {
    /// Takes bytes. The caller has made sure of the lease.
    pub(super) async fn write(
        self: &Arc<Self>,
        state: &mut State,
        offset_bytes: u64,
        bytes: Bytes,
    ) -> Result<()> {
        let taken = self.take(state, offset_bytes, bytes).await;
        self.let_go_if_lost(state).await;
        taken
    }

    async fn take(self: &Arc<Self>, state: &mut State, offset_bytes: u64, mut bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset_bytes
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= FILE_BYTES_MAX)
            .ok_or_else(Error::too_large)?;
        let mut at = offset_bytes;
        self.fetch_to_take(state, at..end).await?;
        let overlaps = state.overlaps(&(at..end));
        if overlaps
            || state
                .gathered
                .as_ref()
                .is_some_and(|gathered| gathered.end() != at)
        {
            self.send_gathered(state).await?;
        }
        if overlaps {
            // What was written later must arrive later.
            self.settle(state, 0).await?;
        }
        while !bytes.is_empty() {
            let room = PIECE_BYTES - state.gathered.as_ref().map_or(0, |gathered| gathered.bytes.len());
            let piece = bytes.split_to(room.min(bytes.len()));
            let piece_end = at + piece.len() as u64;
            let newly_bytes = state.newly_held(at..piece_end);
            match &mut state.gathered {
                Some(gathered) => gathered.bytes.extend_from_slice(&piece),
                None => {
                    state.gathered = Some(Gathered {
                        offset_bytes: at,
                        // A whole piece is not copied if nobody else has it.
                        bytes: piece
                            .try_into_mut()
                            .unwrap_or_else(|piece| BytesMut::from(&piece[..])),
                    });
                }
            }
            at = piece_end;
            state.changes();
            self.size_bytes.fetch_max(at, Ordering::AcqRel);
            self.held_bytes.fetch_add(newly_bytes, Ordering::AcqRel);
            self.written_now();
            let full = state
                .gathered
                .as_ref()
                .is_some_and(|gathered| gathered.bytes.len() >= PIECE_BYTES);
            if full {
                self.send_gathered(state).await?;
            }
        }
        Ok(())
    }

    /// Sends what was gathered, cut at block boundaries, and where a block ends now: what goes over its bytes needs no
    /// room, so a full worker takes it, and has what the others have.
    pub(super) async fn send_gathered(self: &Arc<Self>, state: &mut State) -> Result<()> {
        while let Some(at) = state.gathered.as_ref().map(|gathered| gathered.offset_bytes) {
            let (index, within) = (state.index_of(at), at % state.block_bytes());
            self.ensure_block(state, index).await?;
            self.fetch_to_write(state, index).await?;
            self.settle(state, WINDOW - 1).await?;
            let ends_at = state.blocks[&index].len_bytes;
            let room = match within < ends_at && !is_planted(Bug::OverwritesNeedRoom) {
                true => ends_at - within,
                false => state.block_bytes() - within,
            };
            let Some(gathered) = &mut state.gathered else {
                break;
            };
            let take = gathered.bytes.len().min(to_usize(room));
            let piece = gathered.bytes.split_to(take).freeze();
            gathered.offset_bytes += take as u64;
            if gathered.bytes.is_empty() {
                state.gathered = None;
            }
            self.send(state, index, within, piece);
        }
        Ok(())
    }

    /// Puts one piece of one block on its way to every worker that shall have it.
    fn send(self: &Arc<Self>, state: &mut State, index: u32, offset_bytes: u64, bytes: Bytes) {
        let start = state.start_of(index) + offset_bytes;
        let range = start..start + bytes.len() as u64;
        let block = touch(state, index);
        block.len_bytes = block.len_bytes.max(offset_bytes + bytes.len() as u64);
        let call = WriteBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes,
            checksum: crc32c(&bytes),
            base_len_bytes: block.base_len_bytes,
            reserve_bytes: state.attr.block_bytes,
            epoch: 0,
            order: WriteOrder::default(),
            tier: state.tier,
        };
        self.send_to_holders(state, index, &range, call, &bytes);
    }

    /// Makes a range of a block a hole, on every worker that has the block.
    pub(super) async fn punch_block(
        self: &Arc<Self>,
        state: &mut State,
        index: u32,
        within: Range<u64>,
    ) -> Result<()> {
        self.ensure_block(state, index).await?;
        self.fetch_to_write(state, index).await?;
        self.settle(state, WINDOW - 1).await?;
        let start = state.start_of(index);
        let block = touch(state, index);
        let call = PunchBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes: within.start,
            len_bytes: within.end - within.start,
            base_len_bytes: block.base_len_bytes,
            epoch: 0,
            order: WriteOrder::default(),
        };
        let range = start + within.start..start + within.end;
        self.send_to_holders(state, index, &range, call, &Bytes::new());
        Ok(())
    }

    fn send_to_holders<C>(
        self: &Arc<Self>,
        state: &mut State,
        index: u32,
        range: &Range<u64>,
        call: C,
        bytes: &Bytes,
    ) where
        C: ToHolder + Call<Reply = BlockWritten>,
        dyn WorkerPort: Endpoint<C>,
    {
        let number = state.numbers.next();
        let holders = state.blocks[&index].located.workers.clone();
        for _ in &holders {
            state.numbers.sent(number);
        }
        let floor = state.numbers.floor();
        let company = Company::new();
        for worker in holders {
            let (shared, mut workers) = (self.clone(), state.workers.clone());
            let company = company.clone();
            let order = state.blocks[&index].taken.order(worker, number, floor);
            let call = call.clone().in_order(order);
            let (bytes, range) = (bytes.clone(), range.clone());
            state.on_the_way.push(range.clone());
            state.sending.spawn(async move {
                let delivered = shared.deliver(worker, &mut workers, call, bytes, Patience::Usual);
                let written = company.wait(worker, delivered).await;
                Sent {
                    range,
                    worker,
                    order,
                    outcome: written
                        .map(|written| written.life)
                        .map_err(|e| e.while_doing(format_args!("writing to worker {worker}"))),
                    workers,
                }
            });
        }
    }

    /// Waits until at most `left` pieces are on their way.
    pub(super) async fn settle(&self, state: &mut State, left: usize) -> Result<()> {
        while state.sending.len() > left {
            match state.sending.join_next().await {
                Some(Ok(sent)) => {
                    ended(&mut state.on_the_way, &sent.range);
                    if let Err(error) = state.answered(sent) {
                        state.fail(error);
                    }
                }
                Some(Err(_)) => state.fail(Error::new(ErrorKind::Cancelled, "a write was cancelled")),
                None => break,
            }
        }
        state.check()
    }

    /// Makes sure that a block index has a block with somewhere to write it.
    pub(super) async fn ensure_block(&self, state: &mut State, index: u32) -> Result<()> {
        let outcome = match state.blocks.get(&index) {
            Some(block) if !block.located.workers.is_empty() => return Ok(()),
            Some(_) => self.find_holders(state, index).await,
            None => {
                let last = state.blocks.keys().next_back();
                let ahead = match last.is_some_and(|last| *last < index) {
                    true => BLOCKS_AHEAD,
                    false => 0,
                };
                let call = AllocateBlocks {
                    inode: self.inode,
                    from_index: index,
                    until_index: index.saturating_add(1).saturating_add(ahead),
                };
                self.under_lease(state, call).await.map(|layout| {
                    for (index, located) in layout.placed(index) {
                        let new = || Block::new(located.clone(), true);
                        state.blocks.entry(index).or_insert_with(new);
                    }
                    state.learn(layout.workers);
                })
            }
        };
        outcome.inspect_err(|error| state.fail(error.clone()))
    }

    /// Asks where a block is that has bytes, until its holders are there. Nobody else may be given a write to it.
    pub(super) async fn find_holders(&self, state: &mut State, index: u32) -> Result<()> {
        let Ports { clock, random, .. } = self.router.ports();
        let give_up = clock.now() + self.router.retry_for();
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        loop {
            let call = AllocateBlocks {
                inode: self.inode,
                from_index: index,
                until_index: index + 1,
            };
            let layout = self.under_lease(state, call).await?;
            let found = layout.blocks.into_iter().next();
            state.learn(layout.workers);
            let Some(block) = state.blocks.get_mut(&index) else {
                return Ok(());
            };
            let id = block.located.block.id;
            match found {
                Some(found) if found.block.id == id && !found.workers.is_empty() => {
                    block.located.workers = found.workers;
                    return Ok(());
                }
                _ if clock.now() >= give_up => {
                    return Err(Error::new(
                        ErrorKind::BlockUnavailable,
                        format!(
                            "no live worker holds block {id} of inode {}; see `cv report`",
                            self.inode
                        ),
                    ));
                }
                _ => sleep(backoff.next(random.next_u64())).await,
            }
        }
    }

    /// A small file that is all gathered goes out in one round trip, sealed. Whether it did.
    pub(super) async fn put_small(&self, state: &mut State, sync: bool) -> Result<bool> {
        let whole = state.gathered.as_ref().is_some_and(|gathered| {
            let len_bytes = gathered.bytes.len() as u64;
            gathered.offset_bytes == 0 && len_bytes == self.size() && len_bytes <= state.block_bytes()
        });
        if !whole || state.blocks.keys().any(|index| *index > 0) || !state.sending.is_empty() {
            return Ok(false);
        }
        self.ensure_block(state, 0).await?;
        if !state.blocks[&0].fresh || state.blocks[&0].begun {
            return Ok(false);
        }
        let Some(gathered) = state.gathered.take() else {
            return Ok(false);
        };
        // Until it is known to have arrived: the caller may give up at the await.
        state.fail(Error::new(
            ErrorKind::Cancelled,
            "a write was given up before it was done",
        ));
        let bytes = gathered.bytes.freeze();
        state.lost.push(0..bytes.len() as u64);
        let generation = state.generation;
        let number = state.numbers.next();
        let block = state.blocks.get_mut(&0).expect("it is there, see above");
        begin(block, generation);
        let (located, taken) = (block.located.clone(), block.taken.clone());
        let (company, tier) = (Company::new(), state.tier);
        let puts = located.workers.iter().map(|&worker| {
            let call = PutBlock {
                block: located.block.id,
                generation: located.block.generation,
                checksum: crc32c(&bytes),
                sync,
                epoch: 0,
                order: taken.order(worker, number, number),
                tier,
            };
            let (order, mut workers, company) = (call.order, state.workers.clone(), company.clone());
            let bytes = bytes.clone();
            async move {
                let put = self.deliver(worker, &mut workers, call, bytes, Patience::Usual);
                let put = company.wait(worker, put).await;
                (worker, order, put, workers)
            }
        });
        for (worker, order, put, workers) in join_all(puts.collect::<Vec<_>>()).await {
            state.learn(workers);
            let block = state.blocks.get_mut(&0).expect("it is there, see above");
            let put = put.and_then(|put| {
                block.taken.acknowledged(worker, &order, put.life)?;
                block.taken.up_to(worker, put.len_bytes);
                Ok(())
            });
            if let Err(error) = put
                && !block.goes_on_without(worker, &error)
            {
                let error = error.while_doing(format_args!("writing to worker {worker}"));
                state.unfail();
                state.fail(error.clone());
                return Err(error);
            }
        }
        state.unfail();
        state.lost.clear();
        let block = state.blocks.get_mut(&0).expect("it is there, see above");
        block.uncommitted = true;
        block.synced = sync;
        block.hole_bytes = 0;
        block.len_bytes = bytes.len() as u64;
        Ok(true)
    }
}

/// The first write of a block under a lease.
fn begin(block: &mut Block, generation: u32) {
    if !block.begun {
        block.begun = true;
        block.taken = Taken::default();
        block.located.block.generation = generation;
    }
}

/// A block that is about to be changed by a call to its workers.
fn touch(state: &mut State, index: u32) -> &mut Block {
    state.changes();
    let block = state
        .blocks
        .get_mut(&index)
        .expect("the caller has made sure of it");
    begin(block, state.generation);
    block.unsealed = true;
    block.synced = false;
    block.uncommitted = true;
    block
}

fn ended(on_the_way: &mut Vec<Range<u64>>, range: &Range<u64>) {
    if let Some(found) = on_the_way.iter().position(|other| other == range) {
        on_the_way.swap_remove(found);
    }
}
