//! The way of bytes to workers and of their lengths to the masters.
//!
//! Everything here may be dropped at any await by a caller that gave up: what is not on its way stays gathered, and what
//! cannot be told to have arrived fails the file.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::master::{AllocateBlocks, BlockCommit, CommitFile, GetRoutes, OpenForWrite};
use curvine_protocol::worker::{PutBlock, SealBlock, WriteBlock};
use curvine_protocol::{Call, Error, ErrorKind, FileLayout, Mutation, Node, Result, WorkerId};
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep};

use super::state::{Block, Gathered, State};
use super::{Router, Shared};
use crate::client::route::is_passing;
use crate::kit::{Endpoint, MasterPort, WorkerPort};

/// Bytes gathered before they are sent; no piece is larger.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way to workers at the same time, for each open file.
pub const WINDOW: usize = 6;
/// Blocks asked for ahead of the one that is written.
const BLOCKS_AHEAD: u32 = 1;
/// Blocks sealed at the same time.
const SEALS: usize = 8;

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
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or_else(|| Error::new(ErrorKind::FileTooLarge, "a file has at most 2^63 - 1 bytes"))?;
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

    /// Sends what was gathered, cut at block boundaries.
    pub(super) async fn send_gathered(self: &Arc<Self>, state: &mut State) -> Result<()> {
        while let Some(at) = state.gathered.as_ref().map(|gathered| gathered.offset_bytes) {
            let (index, within) = ((at / state.block_bytes()) as u32, at % state.block_bytes());
            self.ensure_block(state, index).await?;
            self.settle(state, WINDOW - 1).await?;
            let room = state.block_bytes() - within;
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
        let call = WriteBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes,
            checksum: crc32c(&bytes),
            base_len_bytes: block.base_len_bytes,
            reserve_bytes: 0,
        };
        for worker in block.located.workers.clone() {
            let (shared, workers) = (self.clone(), state.workers.clone());
            let (call, bytes, range) = (call.clone(), bytes.clone(), range.clone());
            state.on_the_way.push(range.clone());
            state.sending.spawn(async move {
                let written = shared.deliver(worker, workers, call, bytes).await;
                let written = written.map(|_| ());
                (
                    range,
                    written.map_err(|e| e.while_doing(format_args!("writing to worker {worker}"))),
                )
            });
        }
    }

    /// Waits until at most `left` pieces are on their way.
    pub(super) async fn settle(&self, state: &mut State, left: usize) -> Result<()> {
        while state.sending.len() > left {
            match state.sending.join_next().await {
                Some(Ok((range, written))) => {
                    arrived(&mut state.on_the_way, &range);
                    if let Err(error) = written {
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
        let have = state.blocks.len() as u32;
        if index < have {
            return Ok(());
        }
        let ahead = if have == 0 { 0 } else { BLOCKS_AHEAD };
        let call = AllocateBlocks {
            inode: self.inode,
            from_index: have,
            until_index: index + 1 + ahead,
        };
        let layout = match self.under_lease(state, call).await {
            Ok(layout) => layout,
            Err(error) => {
                state.fail(error.clone());
                return Err(error);
            }
        };
        state
            .blocks
            .extend(layout.blocks.into_iter().map(|located| Block::new(located, true)));
        for worker in layout.workers {
            state.workers.retain(|known| known.id != worker.id);
            state.workers.push(worker);
        }
        Ok(())
    }

    /// Seals what was written and records it with the masters; with `close`, gives the lease back.
    ///
    /// An error of masters or workers that may pass leaves everything as it is for another try.
    pub(super) async fn commit(self: &Arc<Self>, state: &mut State, sync: bool, close: bool) -> Result<()> {
        state.check()?;
        if !self.put_small(state, sync).await? {
            self.send_gathered(state).await?;
        }
        self.settle(state, 0).await?;
        self.seal(state, sync).await?;
        if !state.writable || !(state.uncommitted || close) {
            return Ok(());
        }
        let written_ns = self.written_ns.load(Ordering::Acquire);
        let call = CommitFile {
            inode: self.inode,
            size_bytes: self.size(),
            blocks: commits(&state.blocks, |block| block.uncommitted, |block| block.len_bytes),
            mtime_ns: (written_ns != 0).then_some(written_ns),
            close,
        };
        match self.under_lease(state, call).await {
            Ok(entry) => state.attr = entry.attr,
            Err(error) => {
                if !is_passing(&error) {
                    state.fail(error.clone());
                }
                return Err(error);
            }
        }
        self.written_ns.store(0, Ordering::Release);
        state.committed(close);
        Ok(())
    }

    /// A small file that is all gathered goes out in one round trip, sealed. Whether it did.
    async fn put_small(&self, state: &mut State, sync: bool) -> Result<bool> {
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
        begin(&mut state.blocks[0], state.generation);
        let block = state.blocks[0].located.clone();
        for worker in block.workers {
            let call = PutBlock {
                block: block.block.id,
                generation: block.block.generation,
                checksum: crc32c(&bytes),
                sync,
            };
            let put = self
                .deliver(worker, state.workers.clone(), call, bytes.clone())
                .await;
            if let Err(error) = put {
                let error = error.while_doing(format_args!("writing to worker {worker}"));
                state.unfail();
                state.fail(error.clone());
                return Err(error);
            }
        }
        state.unfail();
        let block = &mut state.blocks[0];
        block.uncommitted = true;
        block.synced = sync;
        block.len_bytes = bytes.len() as u64;
        Ok(true)
    }

    /// Makes what was written checksummed on its workers; with `sync`, the whole file is on their disks, whoever
    /// wrote it.
    async fn seal(&self, state: &mut State, sync: bool) -> Result<()> {
        let todo: Vec<usize> = (0..state.blocks.len())
            .filter(|&index| {
                let block = &state.blocks[index];
                let unsynced = !block.synced && block.len_bytes > 0;
                // What can be fetched again need not be on disk.
                block.unsealed || (sync && unsynced && (block.begun || !state.fillable))
            })
            .collect();
        let sealing = todo.iter().map(|&index| {
            let block = &state.blocks[index];
            self.seal_block(block.clone(), state.workers.clone(), sync)
        });
        let sealed: Vec<Result<()>> = stream::iter(sealing.collect::<Vec<_>>())
            .buffered(SEALS)
            .collect()
            .await;
        let mut outcome = Ok(());
        for (index, sealed) in todo.into_iter().zip(sealed) {
            match sealed {
                Ok(()) => {
                    state.blocks[index].unsealed = false;
                    state.blocks[index].synced |= sync;
                }
                Err(error) => {
                    if state.writable && !is_passing(&error) {
                        state.fail(error.clone());
                    }
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Seals one block on every worker that this client wrote it to. Of a block that others wrote, one replica on disk
    /// is enough.
    async fn seal_block(&self, block: Block, workers: Vec<WorkerAddress>, sync: bool) -> Result<()> {
        let call = SealBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            sync,
        };
        let mut outcome = Ok(());
        let mut done = 0;
        for &worker in &block.located.workers {
            match self
                .deliver(worker, workers.clone(), call.clone(), Bytes::new())
                .await
            {
                Ok(_) => done += 1,
                // Somebody writes it again: that is theirs to sync.
                Err(error) if !block.begun && error.kind == ErrorKind::Stale => done += 1,
                Err(error) => {
                    outcome = Err(error.while_doing(format_args!("sealing on worker {worker}")));
                }
            }
        }
        match !block.begun && done > 0 {
            true => Ok(()),
            false => outcome,
        }
    }

    /// Gives the lease back without committing: the file is what its last commit made it.
    pub(super) async fn abandon(&self, state: &mut State) {
        state.sending.shutdown().await;
        let lease_lost = state.lease_lost;
        let size_bytes = state.attr.size_bytes;
        let kept = size_bytes.div_ceil(state.block_bytes()) as usize;
        state.blocks.truncate(kept);
        // The workers have these in a new generation, of which only the old length counts.
        let blocks = commits(
            &state.blocks,
            |block| block.begun,
            |block| block.located.block.len_bytes,
        );
        if lease_lost {
            // Whoever wrote meanwhile: the size is theirs.
            if let Ok(layout) = self.open_for_write().await {
                self.give_back(layout.attr.size_bytes, Vec::new()).await;
            }
        } else if state.writable {
            self.give_back(size_bytes, blocks).await;
        }
        self.size_bytes.store(size_bytes, Ordering::Release);
        self.written_ns.store(0, Ordering::Release);
        let writers = state.writers;
        let layout = FileLayout {
            attr: state.attr.clone(),
            blocks: state.blocks.drain(..).map(Block::into_committed).collect(),
            workers: std::mem::take(&mut state.workers),
            source: None,
        };
        let (in_mount, fillable) = (state.in_mount, state.fillable);
        *state = State::new(layout, false);
        (state.in_mount, state.fillable, state.writers) = (in_mount, fillable, writers);
    }

    pub(super) async fn open_for_write(&self) -> Result<FileLayout> {
        let call = OpenForWrite {
            node: Node::Inode(self.inode),
            follow: false,
            truncate: false,
        };
        self.router.change(call).await
    }

    /// Makes a change that needs the lease. Where the lease has gone, gets it again if nobody else has had it.
    async fn under_lease<C: Mutation>(&self, state: &mut State, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        match self.router.change(call.clone()).await {
            Err(error) if error.kind == ErrorKind::Stale && !state.lease_lost => {
                match self.open_for_write().await {
                    Ok(layout) if layout.attr.content_version == state.attr.content_version => {
                        self.router.change(call).await
                    }
                    _ => {
                        state.lease_lost = true;
                        Err(error)
                    }
                }
            }
            reply => reply,
        }
    }

    /// Gives the lease back with what is committed; nobody hears of it if that fails.
    async fn give_back(&self, size_bytes: u64, blocks: Vec<BlockCommit>) {
        let call = CommitFile {
            inode: self.inode,
            size_bytes,
            blocks,
            mtime_ns: None,
            close: true,
        };
        if let Err(error) = self.router.change(call).await {
            tracing::debug!(%error, "the lease on inode {} was not given back; it ends with the session", self.inode);
        }
    }

    /// Makes a call of a worker, again while it does not answer: what is sent to a worker may be sent twice.
    async fn deliver<C: Call>(
        &self,
        worker: WorkerId,
        mut addresses: Vec<WorkerAddress>,
        call: C,
        body: Bytes,
    ) -> Result<C::Reply>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let give_up = Instant::now() + self.router.retry_for();
        let mut backoff = Duration::from_millis(20);
        let mut tried = false;
        loop {
            let port = self.router.worker(worker, &addresses)?;
            let error = match self.router.ask_worker(&port, call.clone(), body.clone()).await {
                Ok(answer) => return Ok(answer.reply),
                Err(error) => error,
            };
            let passes = matches!(
                error.kind,
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Stopping
            );
            // A reply that was lost took a whole deadline: it is asked for again once at least.
            if !passes || tried && Instant::now() >= give_up {
                return Err(error);
            }
            tried = true;
            sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(1));
            if error.kind != ErrorKind::Overloaded {
                self.router.learn_address(worker, &mut addresses).await;
            }
        }
    }
}

impl Router {
    /// A worker that came back may listen elsewhere.
    async fn learn_address(&self, worker: WorkerId, addresses: &mut Vec<WorkerAddress>) {
        let Ok(routes) = self.ask_master(GetRoutes {}).await else {
            return;
        };
        if let Some(now) = routes.workers.into_iter().find(|known| known.id == worker) {
            addresses.retain(|known| known.id != worker);
            addresses.push(now);
        }
    }
}

/// The first write of a block under a lease.
fn begin(block: &mut Block, generation: u32) {
    if !block.begun {
        block.begun = true;
        block.located.block.generation = generation;
    }
}

fn arrived(on_the_way: &mut Vec<Range<u64>>, range: &Range<u64>) {
    if let Some(found) = on_the_way.iter().position(|other| other == range) {
        on_the_way.swap_remove(found);
    }
}

fn commits(
    blocks: &[Block],
    which: impl Fn(&Block) -> bool,
    len_bytes: impl Fn(&Block) -> u64,
) -> Vec<BlockCommit> {
    let chosen = blocks.iter().enumerate().filter(|(_, block)| which(block));
    chosen
        .map(|(index, block)| BlockCommit {
            index: index as u32,
            id: block.located.block.id,
            len_bytes: len_bytes(block),
            generation: block.located.block.generation,
            workers: block.located.workers.clone(),
        })
        .collect()
}
