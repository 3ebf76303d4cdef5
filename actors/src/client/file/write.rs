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
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::{PutBlock, WriteBlock, WriteOrder};
use curvine_protocol::{Error, ErrorKind, FILE_BYTES_MAX, Result};
use tokio::time::sleep;

use super::Shared;
use super::deliver::{BACKOFF_MAX, Patience};
use super::order::Taken;
use super::state::{Block, Gathered, Sent, State};
use crate::kit::Ports;
use crate::kit::backoff::Backoff;
use crate::planted::{Bug, is_planted};

/// Bytes gathered before they are sent; no piece is larger.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way to workers at the same time, for each open file.
pub const WINDOW: usize = 6;
/// Blocks that the masters add to a file at once, less those that are asked for ahead.
const NEW_BLOCKS_MAX: u64 = 4_096 - BLOCKS_AHEAD as u64;
/// Blocks asked for ahead of the one that is written.
const BLOCKS_AHEAD: u32 = 1;

impl Shared {
    /// Takes bytes. The caller has made sure of the lease.
    pub(super) async fn write(
        self: &Arc<Self>,
        state: &mut State,
        offset_bytes: u64,
        mut bytes: Bytes,
    ) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset_bytes
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= FILE_BYTES_MAX)
            .ok_or_else(Error::too_large)?;
        let new_blocks = end
            .div_ceil(state.block_bytes())
            .saturating_sub(state.blocks.len() as u64);
        if new_blocks > NEW_BLOCKS_MAX {
            // Now, while nothing is taken that could be lost with it.
            return Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("a write leaves a hole of at most {NEW_BLOCKS_MAX} blocks of the file"),
            ));
        }
        let mut at = offset_bytes;
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
            state.uncommitted = true;
            self.size_bytes.fetch_max(at, Ordering::AcqRel);
            self.written_ns
                .store(self.router.ports().clock.wall_ns(), Ordering::Release);
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
            let (index, within) = ((at / state.block_bytes()) as u32, at % state.block_bytes());
            self.ensure_block(state, index).await?;
            self.settle(state, WINDOW - 1).await?;
            let ends_at = state.blocks[index as usize].len_bytes;
            let room = match within < ends_at && !is_planted(Bug::OverwritesNeedRoom) {
                true => ends_at - within,
                false => state.block_bytes() - within,
            };
            let Some(gathered) = &mut state.gathered else {
                break;
            };
            let take = (gathered.bytes.len() as u64).min(room) as usize;
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
        let start = u64::from(index) * state.block_bytes() + offset_bytes;
        let range = start..start + bytes.len() as u64;
        let block = &mut state.blocks[index as usize];
        begin(block, state.generation);
        block.unsealed = true;
        block.synced = false;
        block.uncommitted = true;
        block.len_bytes = block.len_bytes.max(offset_bytes + bytes.len() as u64);
        state.uncommitted = true;
        let number = state.numbers.next();
        for _ in &block.located.workers {
            state.numbers.sent(number);
        }
        let floor = state.numbers.floor();
        let call = WriteBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes,
            checksum: crc32c(&bytes),
            base_len_bytes: block.base_len_bytes,
            reserve_bytes: 0,
            epoch: 0,
            order: WriteOrder::default(),
        };
        for worker in block.located.workers.clone() {
            let (shared, mut workers) = (self.clone(), state.workers.clone());
            let order = state.blocks[index as usize].taken.order(worker, number, floor);
            let call = WriteBlock {
                order,
                ..call.clone()
            };
            let (bytes, range) = (bytes.clone(), range.clone());
            state.on_the_way.push(range.clone());
            state.sending.spawn(async move {
                let written = shared
                    .deliver(worker, &mut workers, call, bytes, Patience::Usual)
                    .await;
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
    async fn ensure_block(&self, state: &mut State, index: u32) -> Result<()> {
        let have = to_u32(state.blocks.len());
        let outcome = match state.blocks.get(index as usize) {
            Some(block) if !block.located.workers.is_empty() => return Ok(()),
            Some(_) => self.find_holders(state, index).await,
            None => {
                let ahead = if have == 0 { 0 } else { BLOCKS_AHEAD };
                let call = AllocateBlocks {
                    inode: self.inode,
                    from_index: have,
                    until_index: index + 1 + ahead,
                };
                self.under_lease(state, call).await.map(|layout| {
                    let blocks = layout.blocks.into_iter();
                    state
                        .blocks
                        .extend(blocks.map(|located| Block::new(located, true)));
                    state.learn(layout.workers);
                })
            }
        };
        outcome.inspect_err(|error| state.fail(error.clone()))
    }

    /// Asks where a block is that has bytes, until its holders are there. Nobody else may be given a write to it.
    async fn find_holders(&self, state: &mut State, index: u32) -> Result<()> {
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
            let block = &mut state.blocks[index as usize];
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
        if !whole || state.blocks.len() > 1 || !state.sending.is_empty() {
            return Ok(false);
        }
        self.ensure_block(state, 0).await?;
        if !state.blocks[0].fresh || state.blocks[0].begun {
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
        begin(&mut state.blocks[0], state.generation);
        let number = state.numbers.next();
        let block = state.blocks[0].located.clone();
        for worker in block.workers {
            let call = PutBlock {
                block: block.block.id,
                generation: block.block.generation,
                checksum: crc32c(&bytes),
                sync,
                epoch: 0,
                order: state.blocks[0].taken.order(worker, number, number),
            };
            let order = call.order;
            let put = self
                .deliver(worker, &mut state.workers, call, bytes.clone(), Patience::Usual)
                .await;
            let put = put.and_then(|put| {
                let taken = &mut state.blocks[0].taken;
                taken.acknowledged(worker, &order, put.life)?;
                taken.up_to(worker, put.len_bytes);
                Ok(())
            });
            if let Err(error) = put {
                let error = error.while_doing(format_args!("writing to worker {worker}"));
                state.unfail();
                state.fail(error.clone());
                return Err(error);
            }
        }
        state.unfail();
        state.lost.clear();
        let block = &mut state.blocks[0];
        block.uncommitted = true;
        block.synced = sync;
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

fn ended(on_the_way: &mut Vec<Range<u64>>, range: &Range<u64>) {
    if let Some(found) = on_the_way.iter().position(|other| other == range) {
        on_the_way.swap_remove(found);
    }
}
