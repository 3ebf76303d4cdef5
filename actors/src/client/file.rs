//! Open files: one shared state per open file, from many tasks at once.
//!
//! Writes are gathered to pieces of [`PIECE_BYTES`] and sent in a window of [`WINDOW`]; their errors surface at the next
//! write, flush or close. A small file goes out as one `PutBlock`. What was written here is read back here at once.
//!
//! Invariant: bytes reach the master's record of the file only after every one of them is sealed on a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::master::{
    AllocateBlocks, AttrChange, BlockCommit, CommitFile, OpenForWrite, PersistFile, SetAttr,
};
use curvine_protocol::worker::{BlockData, Fill, PutBlock, READ_BYTES_MAX, ReadBlock, SealBlock, WriteBlock};
use curvine_protocol::{
    Attr, BlockRef, Error, ErrorKind, FileLayout, InodeId, LocatedBlock, Node, Result, WorkerId,
};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::route::Router;
use crate::kit::Body;

/// Bytes gathered before they are sent.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces on their way to workers at the same time.
const WINDOW: usize = 6;
/// Ranges read at the same time for one read.
const READS: usize = 4;
/// A local file grant up to this much is read on the caller's thread.
const INLINE_READ_BYTES: usize = 256 << 10;
/// Blocks asked for ahead of the one that is written.
const BLOCKS_AHEAD: u32 = 1;

/// A file that is open. Cheap to clone; all clones are one open file.
#[derive(Clone)]
pub struct OpenFile {
    shared: Arc<Shared>,
}

struct Shared {
    router: Arc<Router>,
    inode: InodeId,
    size_bytes: AtomicU64,
    /// When something was last written that the masters do not know of; 0 if they know all.
    written_ns: AtomicI64,
    state: Mutex<State>,
}

struct State {
    attr: Attr,
    /// This client has the lease.
    writable: bool,
    in_mount: bool,
    blocks: Vec<Block>,
    workers: Vec<WorkerAddress>,
    fillable: bool,
    gathered: Option<Gathered>,
    sending: JoinSet<Result<()>>,
    failed: Option<Error>,
    /// The master does not know the size or a block's length yet.
    uncommitted: bool,
}

#[derive(Clone)]
struct Block {
    located: LocatedBlock,
    /// Bytes that were sent or will be: the length it is committed with.
    len_bytes: u64,
    /// Committed length when this client opened it.
    base_len_bytes: u64,
    /// Written in this session: the generation is this session's.
    begun: bool,
    /// Assigned to this session: nobody wrote it before.
    fresh: bool,
    /// Written since the last seal.
    unsealed: bool,
    /// On disk at every worker that has it, as far as this session knows.
    synced: bool,
    uncommitted: bool,
}

/// Consecutive bytes not sent yet.
struct Gathered {
    offset_bytes: u64,
    bytes: BytesMut,
}

impl Block {
    fn new(located: LocatedBlock, fresh: bool) -> Self {
        let len_bytes = located.block.len_bytes;
        Block {
            located,
            len_bytes,
            base_len_bytes: len_bytes,
            begun: false,
            fresh,
            unsealed: false,
            synced: false,
            uncommitted: false,
        }
    }

    /// Whether a sync must see to it. Not only what this session wrote: an earlier one may have closed without a sync, or
    /// this one before it cut the file. What can be fetched again need not be on disk.
    fn needs_sync(&self, fillable: bool) -> bool {
        !self.synced && self.len_bytes > 0 && (self.begun || !fillable)
    }
}

impl OpenFile {
    pub(super) fn new(router: Arc<Router>, layout: FileLayout, writable: bool) -> Self {
        let size_bytes = AtomicU64::new(layout.attr.size_bytes);
        let inode = layout.attr.inode;
        let fresh = layout.attr.size_bytes == 0;
        let state = State::new(layout, writable, fresh);
        OpenFile {
            shared: Arc::new(Shared {
                router,
                inode,
                size_bytes,
                written_ns: AtomicI64::new(0),
                state: Mutex::new(state),
            }),
        }
    }

    pub fn inode(&self) -> InodeId {
        self.shared.inode
    }

    /// The size with everything written here, flushed or not.
    pub async fn size(&self) -> u64 {
        self.size_now()
    }

    /// As [`OpenFile::size`], without waiting.
    pub fn size_now(&self) -> u64 {
        self.shared.size_bytes.load(Ordering::Acquire)
    }

    /// Attributes as of the last commit, with the size and times of now.
    pub async fn attr(&self) -> Attr {
        let attr = self.shared.state.lock().await.attr.clone();
        self.with_what_is_written(attr)
    }

    /// Attributes from the masters, with what was written here and they do not know of yet. The next flush makes the file
    /// have exactly these.
    pub fn with_what_is_written(&self, mut attr: Attr) -> Attr {
        attr.size_bytes = self.size_now();
        match self.shared.written_ns.load(Ordering::Acquire) {
            0 => {}
            written_ns => {
                attr.mtime_ns = written_ns;
                attr.ctime_ns = attr.ctime_ns.max(written_ns);
            }
        }
        attr
    }

    /// Whether this client holds the write lease.
    pub async fn is_writable(&self) -> bool {
        self.shared.state.lock().await.writable
    }

    /// Whether something was written that the masters do not know of.
    pub async fn is_dirty(&self) -> bool {
        let state = self.shared.state.lock().await;
        state.uncommitted || state.gathered.is_some()
    }

    /// Gets the write lease, if this client does not have it.
    pub async fn make_writable(&self) -> Result<()> {
        let mut state = self.shared.state.lock().await;
        if !state.writable {
            self.shared.reopen(&mut state).await?;
        }
        Ok(())
    }

    /// `len_bytes` from `offset_bytes` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// `BlockUnavailable` if no worker has it within the retry time; `Corrupt` if every replica fails its checksum;
    /// `UfsChanged` and `Stale` if the file is another one by now: open it again.
    pub async fn read_at(&self, offset_bytes: u64, len_bytes: u64) -> Result<Bytes> {
        let plan = {
            let mut state = self.shared.state.lock().await;
            if state.gathered.is_some() || !state.sending.is_empty() {
                state.send_gathered(&self.shared).await?;
                state.drain().await?;
            }
            let end = (offset_bytes + len_bytes).min(self.size_now());
            if offset_bytes >= end {
                return Ok(Bytes::new());
            }
            state.plan(offset_bytes, end)
        };
        let pieces: Vec<Bytes> = stream::iter(plan)
            .map(|piece| self.shared.clone().read_piece(piece))
            .buffered(READS)
            .try_collect()
            .await?;
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([piece]) => Ok(piece),
            Err(pieces) => {
                let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                Ok(whole.freeze())
            }
        }
    }

    /// The content from an offset to the end, read ahead.
    pub fn stream(&self, offset_bytes: u64) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        const AHEAD: usize = 3;
        const STEP: u64 = READ_BYTES_MAX as u64;
        let file = self.clone();
        let size_bytes = self.size_now();
        let first_end = (offset_bytes / STEP + 1) * STEP;
        let starts = std::iter::once((offset_bytes, first_end.min(size_bytes)))
            .chain((0..).map(move |i| (first_end + i * STEP, (first_end + (i + 1) * STEP).min(size_bytes))))
            .take_while(move |(start, _)| *start < size_bytes);
        stream::iter(starts)
            .map(move |(start, end)| {
                let file = file.clone();
                async move { file.read_at(start, end - start).await }
            })
            .buffered(AHEAD)
    }

    /// Writes at an offset; beyond the end, a hole is left that reads as zeros.
    pub async fn write_at(&self, offset_bytes: u64, bytes: Bytes) -> Result<()> {
        let mut state = self.shared.state.lock().await;
        self.shared.write(&mut state, offset_bytes, bytes).await
    }

    /// Writes at the end; says where that was.
    pub async fn append(&self, bytes: Bytes) -> Result<u64> {
        let mut state = self.shared.state.lock().await;
        let offset_bytes = self.size_now();
        self.shared.write(&mut state, offset_bytes, bytes).await?;
        Ok(offset_bytes)
    }

    /// Cuts or extends the file.
    pub async fn truncate(&self, size_bytes: u64) -> Result<Attr> {
        let mut state = self.shared.state.lock().await;
        self.shared.commit(&mut state, false, false).await?;
        let change = AttrChange {
            size_bytes: Some(size_bytes),
            ..AttrChange::default()
        };
        let node = Node::Inode(self.shared.inode);
        self.shared
            .router
            .change(SetAttr {
                node,
                follow: false,
                change,
            })
            .await?;
        if state.writable {
            self.shared.reopen(&mut state).await?;
        } else {
            self.shared.reload(&mut state).await?;
        }
        Ok(state.attr.clone())
    }

    /// Makes what was written visible to readers that open the file from now on.
    pub async fn flush(&self) -> Result<Attr> {
        let mut state = self.shared.state.lock().await;
        self.shared.commit(&mut state, false, false).await?;
        Ok(state.attr.clone())
    }

    /// As [`OpenFile::flush`], and on disk.
    pub async fn sync(&self) -> Result<Attr> {
        let mut state = self.shared.state.lock().await;
        self.shared.commit(&mut state, true, false).await?;
        Ok(state.attr.clone())
    }

    /// Flushes and gives the lease back. In a writable mount the object is written before this returns.
    pub async fn close(&self) -> Result<Attr> {
        let mut state = self.shared.state.lock().await;
        if !state.writable {
            return Ok(state.attr.clone());
        }
        self.shared.commit(&mut state, false, true).await?;
        if state.in_mount {
            state.attr = self
                .shared
                .router
                .ask_master(PersistFile {
                    inode: self.shared.inode,
                })
                .await?
                .attr;
        }
        Ok(state.attr.clone())
    }
}

/// A range of one block, or zeros.
enum Piece {
    Zeros(usize),
    Block {
        index: u32,
        located: LocatedBlock,
        workers: Vec<WorkerAddress>,
        offset_bytes: u64,
        len_bytes: u32,
        fill: bool,
    },
}

impl State {
    fn new(layout: FileLayout, writable: bool, fresh: bool) -> Self {
        State {
            attr: layout.attr,
            writable,
            in_mount: layout.source.is_some(),
            fillable: layout.source.is_some_and(|source| source.version.size_bytes > 0),
            blocks: layout
                .blocks
                .into_iter()
                .map(|located| Block::new(located, fresh))
                .collect(),
            workers: layout.workers,
            gathered: None,
            sending: JoinSet::new(),
            failed: None,
            uncommitted: false,
        }
    }

    fn block_bytes(&self) -> u64 {
        self.attr.block_bytes.max(1)
    }

    /// Cuts a range at the blocks' boundaries and lengths.
    fn plan(&self, start: u64, end: u64) -> Vec<Piece> {
        let block_bytes = self.block_bytes();
        let mut pieces = Vec::new();
        let mut at = start;
        while at < end {
            let index = at / block_bytes;
            let (within, block_end) = (at % block_bytes, ((index + 1) * block_bytes).min(end));
            let block = self.blocks.get(index as usize);
            let held = block.map_or(0, |block| block.len_bytes);
            let step = if within < held {
                let len = (held - within).min(block_end - at).min(READ_BYTES_MAX.into());
                let block = block.expect("it holds something");
                pieces.push(Piece::Block {
                    index: index as u32,
                    located: block.located.clone(),
                    workers: self.workers.clone(),
                    offset_bytes: within,
                    len_bytes: len as u32,
                    fill: self.fillable,
                });
                len
            } else {
                let len = (block_end - at).min(READ_BYTES_MAX.into());
                pieces.push(Piece::Zeros(len as usize));
                len
            };
            at += step;
        }
        pieces
    }

    /// Takes the error of an earlier write.
    fn check(&mut self) -> Result<()> {
        match self.failed.clone() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits until at most `left` pieces are on their way.
    async fn settle(&mut self, left: usize) -> Result<()> {
        while self.sending.len() > left {
            match self.sending.join_next().await {
                Some(Ok(Ok(()))) | None => {}
                Some(Ok(Err(error))) => self.failed = Some(error),
                Some(Err(_)) => self.failed = Some(Error::new(ErrorKind::Cancelled, "a write was cancelled")),
            }
        }
        self.check()
    }

    async fn drain(&mut self) -> Result<()> {
        self.settle(0).await
    }

    /// Sends what was gathered, cut at block boundaries.
    async fn send_gathered(&mut self, shared: &Arc<Shared>) -> Result<()> {
        let Some(gathered) = self.gathered.take() else {
            return Ok(());
        };
        let mut at = gathered.offset_bytes;
        let mut bytes = gathered.bytes.freeze();
        while !bytes.is_empty() {
            let index = (at / self.block_bytes()) as u32;
            shared.ensure_block(self, index).await?;
            let within = at % self.block_bytes();
            let take = ((self.block_bytes() - within) as usize).min(bytes.len());
            let piece = bytes.split_to(take);
            self.settle(WINDOW - 1).await?;
            self.send(shared, index, within, piece)?;
            at += take as u64;
        }
        Ok(())
    }

    /// Puts one piece of one block on its way to every worker that shall have it.
    fn send(&mut self, shared: &Arc<Shared>, index: u32, offset_bytes: u64, bytes: Bytes) -> Result<()> {
        let block = &mut self.blocks[index as usize];
        if !block.begun {
            block.begun = true;
            if !block.fresh {
                block.located.block.generation += 1;
            }
        }
        block.unsealed = true;
        block.synced = false;
        block.uncommitted = true;
        block.len_bytes = block.len_bytes.max(offset_bytes + bytes.len() as u64);
        self.uncommitted = true;
        let call = WriteBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes,
            checksum: crc32c(&bytes),
            base_len_bytes: block.base_len_bytes,
            reserve_bytes: 0,
        };
        for worker in block.located.workers.clone() {
            let port = shared.router.worker(worker, &self.workers)?;
            let (shared, call, bytes) = (shared.clone(), call.clone(), bytes.clone());
            self.sending.spawn(async move {
                let written = shared.router.ask_worker(&port, call, bytes).await;
                written
                    .map(|_| ())
                    .map_err(|e| e.while_doing(format_args!("writing to worker {worker}")))
            });
        }
        Ok(())
    }
}

impl Shared {
    async fn write(self: &Arc<Self>, state: &mut State, offset_bytes: u64, bytes: Bytes) -> Result<()> {
        state.check()?;
        if !state.writable {
            self.reopen(state).await?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset_bytes
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= i64::MAX as u64);
        let end =
            end.ok_or_else(|| Error::new(ErrorKind::FileTooLarge, "a file has at most 2^63 - 1 bytes"))?;
        let follows = state
            .gathered
            .as_ref()
            .is_some_and(|g| g.offset_bytes + g.bytes.len() as u64 == offset_bytes);
        if !follows {
            state.send_gathered(self).await?;
            // What overlaps earlier pieces must come after them.
            state.drain().await?;
            state.gathered = Some(Gathered {
                offset_bytes,
                bytes: BytesMut::new(),
            });
        }
        if let Some(gathered) = &mut state.gathered {
            gathered.bytes.extend_from_slice(&bytes);
            if gathered.bytes.len() >= PIECE_BYTES {
                state.send_gathered(self).await?;
            }
        }
        state.uncommitted = true;
        self.written_ns
            .store(self.router.ports().clock.wall_ns(), Ordering::Release);
        self.size_bytes.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Gets the lease, and the layout as the masters have it.
    async fn reopen(&self, state: &mut State) -> Result<()> {
        let node = Node::Inode(self.inode);
        let layout = self
            .router
            .change(OpenForWrite {
                node,
                follow: false,
                truncate: false,
            })
            .await?;
        self.adopt(state, layout, true);
        Ok(())
    }

    async fn reload(&self, state: &mut State) -> Result<()> {
        let node = Node::Inode(self.inode);
        let layout = self
            .router
            .ask_master(curvine_protocol::master::OpenFile { node, follow: false })
            .await?;
        self.adopt(state, layout, false);
        Ok(())
    }

    fn adopt(&self, state: &mut State, layout: FileLayout, writable: bool) {
        self.size_bytes.store(layout.attr.size_bytes, Ordering::Release);
        *state = State::new(layout, writable, false);
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
        let layout = self.router.change(call).await?;
        state
            .blocks
            .extend(layout.blocks.into_iter().map(|located| Block::new(located, true)));
        for worker in layout.workers {
            if !state.workers.iter().any(|known| known.id == worker.id) {
                state.workers.push(worker);
            }
        }
        Ok(())
    }

    /// Seals what was written and records it with the masters.
    async fn commit(self: &Arc<Self>, state: &mut State, sync: bool, close: bool) -> Result<()> {
        let put = self.put_small(state, sync).await?;
        if !put {
            state.send_gathered(self).await?;
        }
        state.drain().await?;
        if !state.writable || !(state.uncommitted || close) {
            return match sync {
                true => self.seal(state, true).await,
                false => Ok(()),
            };
        }
        self.seal(state, sync).await?;
        let size_bytes = self.size_bytes.load(Ordering::Acquire);
        let commits = state
            .blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.uncommitted);
        let blocks = commits
            .map(|(index, block)| BlockCommit {
                index: index as u32,
                id: block.located.block.id,
                len_bytes: block.len_bytes,
                generation: block.located.block.generation,
                workers: block.located.workers.clone(),
            })
            .collect();
        let written_ns = self.written_ns.load(Ordering::Acquire);
        let call = CommitFile {
            inode: self.inode,
            size_bytes,
            blocks,
            mtime_ns: (written_ns != 0).then_some(written_ns),
            close,
        };
        state.attr = self.router.change(call).await?.attr;
        state.uncommitted = false;
        self.written_ns.store(0, Ordering::Release);
        state.writable = !close;
        let kept = size_bytes.div_ceil(state.block_bytes()) as usize;
        state.blocks.truncate(kept);
        for block in &mut state.blocks {
            block.uncommitted = false;
            block.located.block.len_bytes = block.len_bytes;
            if close {
                (block.begun, block.fresh, block.base_len_bytes) = (false, false, block.len_bytes);
            }
        }
        Ok(())
    }

    /// A small file that is all gathered goes out in one round trip, sealed. Whether it did.
    async fn put_small(&self, state: &mut State, sync: bool) -> Result<bool> {
        let whole = state.gathered.as_ref().is_some_and(|gathered| {
            gathered.offset_bytes == 0
                && gathered.bytes.len() as u64 == self.size_bytes.load(Ordering::Acquire)
        });
        if !whole || state.blocks.len() > 1 || !state.sending.is_empty() {
            return Ok(false);
        }
        self.ensure_block(state, 0).await?;
        let block = &state.blocks[0];
        if !block.fresh || block.begun {
            return Ok(false);
        }
        let Some(gathered) = state.gathered.take() else {
            return Ok(false);
        };
        let bytes = gathered.bytes.freeze();
        let (id, generation) = (block.located.block.id, block.located.block.generation);
        for worker in block.located.workers.clone() {
            let port = self.router.worker(worker, &state.workers)?;
            let call = PutBlock {
                block: id,
                generation,
                checksum: crc32c(&bytes),
                sync,
            };
            let put = self.router.ask_worker(&port, call, bytes.clone()).await;
            if let Err(error) = put {
                let error = error.while_doing(format_args!("writing to worker {worker}"));
                state.failed = Some(error.clone());
                return Err(error);
            }
        }
        let block = &mut state.blocks[0];
        block.begun = true;
        block.synced = sync;
        block.uncommitted = true;
        block.len_bytes = bytes.len() as u64;
        Ok(true)
    }

    async fn seal(&self, state: &mut State, sync: bool) -> Result<()> {
        let fillable = state.fillable;
        for block in &mut state.blocks {
            if !(block.unsealed || sync && block.needs_sync(fillable)) {
                continue;
            }
            for worker in &block.located.workers {
                let port = self.router.worker(*worker, &state.workers)?;
                let call = SealBlock {
                    block: block.located.block.id,
                    generation: block.located.block.generation,
                    sync,
                };
                match self.router.ask_worker(&port, call, Bytes::new()).await {
                    Ok(_) => {}
                    // Somebody is overwriting what this session never wrote: theirs to sync.
                    Err(error) if error.kind == ErrorKind::Stale && !block.begun => {}
                    Err(error) => {
                        return Err(error.while_doing(format_args!("sealing on worker {worker}")));
                    }
                }
            }
            block.unsealed = false;
            block.synced |= sync;
        }
        Ok(())
    }

    async fn read_piece(self: Arc<Self>, piece: Piece) -> Result<Bytes> {
        let (index, mut located, mut workers, offset_bytes, len_bytes, fill) = match piece {
            Piece::Zeros(len) => return Ok(BytesMut::zeroed(len).freeze()),
            Piece::Block {
                index,
                located,
                workers,
                offset_bytes,
                len_bytes,
                fill,
            } => (index, located, workers, offset_bytes, len_bytes, fill),
        };
        let give_up = Instant::now() + self.router.retry_for();
        let mut backoff = Duration::from_millis(20);
        loop {
            let mut last = Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "no live worker holds block {} of inode {}; see `cv report`",
                    located.block.id, self.inode
                ),
            );
            for worker in &located.workers {
                let fill = fill.then_some(Fill {
                    inode: self.inode,
                    block_index: index,
                });
                match self
                    .read_block(*worker, &workers, &located.block, offset_bytes, len_bytes, fill)
                    .await
                {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) if matches!(error.kind, ErrorKind::UfsChanged | ErrorKind::UfsDenied) => {
                        return Err(error);
                    }
                    Err(error) => last = error,
                }
            }
            if Instant::now() >= give_up || last.kind == ErrorKind::Corrupt {
                return Err(last);
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(Duration::from_secs(1));
            // Somebody else may hold it by now, or hold it in a newer generation.
            let node = Node::Inode(self.inode);
            let layout = self
                .router
                .ask_master(curvine_protocol::master::OpenFile { node, follow: false })
                .await?;
            match layout.blocks.into_iter().nth(index as usize) {
                Some(now) if now.block.id == located.block.id => {
                    (located, workers) = (now, layout.workers);
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::Stale,
                        format!(
                            "inode {}: the file was replaced while it was open; open it again",
                            self.inode
                        ),
                    ));
                }
            }
        }
    }

    async fn read_block(
        &self,
        worker: WorkerId,
        workers: &[WorkerAddress],
        block: &BlockRef,
        offset_bytes: u64,
        len_bytes: u32,
        fill: Option<Fill>,
    ) -> Result<Bytes> {
        let port = self.router.worker(worker, workers)?;
        let mut got = BytesMut::new();
        let mut at = offset_bytes;
        let end = offset_bytes + u64::from(len_bytes);
        loop {
            let call = ReadBlock {
                block: block.id,
                generation: block.generation,
                offset_bytes: at,
                len_bytes: (end - at) as u32,
                fill: fill.clone(),
            };
            let answer = self.router.ask_worker(&port, call, Bytes::new()).await?;
            let bytes = in_memory(answer.body).await?;
            verify(&answer.reply, &bytes, at, block, worker)?;
            if bytes.is_empty() {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "worker {worker} has only {at} bytes of block {}, which should have more",
                        block.id
                    ),
                ));
            }
            at += bytes.len() as u64;
            if at == end && got.is_empty() {
                return Ok(bytes);
            }
            got.extend_from_slice(&bytes);
            if at >= end {
                return Ok(got.freeze());
            }
        }
    }
}

/// A grant on a file is read here: on this thread if it is small, else where blocking does not matter.
async fn in_memory(body: Body) -> Result<Bytes> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        small if small.len() <= INLINE_READ_BYTES => small.read(),
        large => tokio::task::spawn_blocking(move || large.read())
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "a read was cancelled"))?,
    }
}

/// Compares each piece of a body, cut at the block's chunk boundaries, with its checksum.
fn verify(
    reply: &BlockData,
    bytes: &Bytes,
    offset_bytes: u64,
    block: &BlockRef,
    worker: WorkerId,
) -> Result<()> {
    let corrupt = |what: String| {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("block {} from worker {worker}: {what}", block.id),
        ))
    };
    if reply.offset_bytes != offset_bytes {
        return corrupt(format!(
            "asked for offset {offset_bytes}, got {}",
            reply.offset_bytes
        ));
    }
    let mut rest = &bytes[..];
    let mut at = offset_bytes;
    for checksum in &reply.checksums {
        let take = ((CHUNK_BYTES - at % CHUNK_BYTES) as usize).min(rest.len());
        let (piece, after) = rest.split_at(take);
        if crc32c(piece) != *checksum {
            return corrupt(format!("the chunk at offset {at} fails its checksum"));
        }
        (rest, at) = (after, at + take as u64);
    }
    match rest.is_empty() {
        true => Ok(()),
        false => corrupt(format!("{} bytes came without a checksum", rest.len())),
    }
}
