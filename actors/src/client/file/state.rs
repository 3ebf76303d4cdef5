//! What a client knows of a file that it has open. Pure: no clock, no socket.

use std::ops::Range;

use bytes::BytesMut;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{READ_BYTES_MAX, WriteOrder};
use curvine_protocol::{Attr, BlockRef, ClientId, Error, FileLayout, LocatedBlock, Result, WorkerId};
use tokio::task::JoinSet;

use super::order::{Numbers, Taken};

pub(super) struct State {
    pub attr: Attr,
    /// This client has the lease.
    pub writable: bool,
    /// The session that got it.
    pub session: Option<ClientId>,
    /// Handles that wrote, or may.
    pub writers: u32,
    pub in_mount: bool,
    pub fillable: bool,
    pub blocks: Vec<Block>,
    pub workers: Vec<WorkerAddress>,
    /// What blocks get that are written under this lease: greater than what any earlier writer gave, whether it
    /// committed or not, so that workers can tell its leftovers from ours.
    pub generation: u32,
    pub gathered: Option<Gathered>,
    /// One task for each worker and piece.
    pub sending: JoinSet<Sent>,
    /// The ranges of `sending`.
    pub on_the_way: Vec<Range<u64>>,
    /// Of the changes of blocks under this lease.
    pub numbers: Numbers,
    /// Ranges that were taken from a caller and that not every worker has acknowledged that was to have them.
    pub lost: Vec<Range<u64>>,
    failed: Option<Error>,
    /// What workers have of a write that failed is committed.
    pub kept: bool,
    /// The lease was gone and is back: workers refuse what it wrote under before, once that is committed.
    regained: bool,
    /// Another client has had the lease: nothing that is known here counts any more.
    pub lease_lost: bool,
    /// The master does not know the size or a block's length yet.
    pub uncommitted: bool,
}

#[derive(Clone)]
pub(super) struct Block {
    pub located: LocatedBlock,
    /// Bytes that were sent or will be: the length it is committed with.
    pub len_bytes: u64,
    /// The generation that the masters know. `located` has that under which it is written.
    committed_generation: u32,
    /// Length when this lease began to write it.
    pub base_len_bytes: u64,
    /// Written under this lease: the generation is this lease's.
    pub begun: bool,
    /// Assigned to this lease: nobody wrote it before.
    pub fresh: bool,
    /// Written since the last seal.
    pub unsealed: bool,
    /// What its workers acknowledged since it was begun.
    pub taken: Taken,
    /// Known to be on disk as it is.
    pub synced: bool,
    pub uncommitted: bool,
}

/// How sending a piece to a worker has ended.
pub(super) struct Sent {
    /// The piece's range of the file.
    pub range: Range<u64>,
    pub worker: WorkerId,
    pub order: WriteOrder,
    /// In which life of the worker's disk it was taken.
    pub outcome: Result<u64>,
    /// Where workers are, as it was learnt on the way.
    pub workers: Vec<WorkerAddress>,
}

/// Consecutive bytes not sent yet.
pub(super) struct Gathered {
    pub offset_bytes: u64,
    pub bytes: BytesMut,
}

/// A range of one block, or zeros.
pub(super) enum Piece {
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

impl Block {
    pub fn new(located: LocatedBlock, fresh: bool) -> Self {
        let BlockRef {
            len_bytes,
            generation,
            ..
        } = located.block;
        Block {
            located,
            len_bytes,
            committed_generation: generation,
            base_len_bytes: len_bytes,
            begun: false,
            fresh,
            unsealed: false,
            taken: Taken::default(),
            synced: false,
            uncommitted: false,
        }
    }
}

impl Block {
    /// As the masters have it.
    pub fn into_committed(mut self) -> LocatedBlock {
        self.located.block.generation = self.committed_generation;
        self.located
    }

    /// The end of what each of its workers has acknowledged, and of what is committed.
    pub fn arrived_bytes(&self) -> u64 {
        let ends = self.located.workers.iter();
        let all = ends.map(|worker| self.taken.end_bytes(*worker)).min();
        all.unwrap_or(0).max(self.located.block.len_bytes)
    }

    /// The masters know all of it.
    fn committed(&mut self) {
        if std::mem::take(&mut self.uncommitted) {
            self.committed_generation = self.located.block.generation;
        }
        self.located.block.len_bytes = self.len_bytes;
    }
}

impl Gathered {
    pub fn end(&self) -> u64 {
        self.offset_bytes + self.bytes.len() as u64
    }
}

impl State {
    pub fn new(layout: FileLayout, writable: bool) -> Self {
        // Without a byte in it, the file has no block but those that were assigned with this answer.
        let fresh = layout.attr.size_bytes == 0;
        State {
            generation: layout.attr.next_generation(),
            attr: layout.attr,
            writable,
            session: None,
            writers: 0,
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
            on_the_way: Vec::new(),
            numbers: Numbers::default(),
            lost: Vec::new(),
            failed: None,
            kept: false,
            regained: false,
            lease_lost: false,
            uncommitted: false,
        }
    }

    /// Of blocks that are what they were and of which the masters know no holder now, those known before are asked.
    pub fn keep_holders(&mut self, before: &[Block], workers: Vec<WorkerAddress>) {
        for (block, before) in self.blocks.iter_mut().zip(before) {
            if block.located.workers.is_empty() && block.located.block == before.located.block {
                block.located.workers.clone_from(&before.located.workers);
            }
        }
        for worker in workers {
            if self.workers.iter().all(|known| known.id != worker.id) {
                self.workers.push(worker);
            }
        }
    }

    pub fn block_bytes(&self) -> u64 {
        self.attr.block_bytes.max(1)
    }

    pub fn is_dirty(&self) -> bool {
        self.uncommitted || self.gathered.is_some()
    }

    /// Cuts a range at the blocks' boundaries and lengths.
    pub fn plan(&self, range: Range<u64>) -> Vec<Piece> {
        let block_bytes = self.block_bytes();
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let index = at / block_bytes;
            let (within, block_end) = (at % block_bytes, ((index + 1) * block_bytes).min(range.end));
            let room = (block_end - at).min(READ_BYTES_MAX.into());
            let held = self
                .blocks
                .get(index as usize)
                .filter(|block| within < block.len_bytes);
            let step = match held {
                Some(block) => {
                    let len = room.min(block.len_bytes - within);
                    pieces.push(Piece::Block {
                        index: index as u32,
                        located: block.located.clone(),
                        workers: self.workers.clone(),
                        offset_bytes: within,
                        len_bytes: len as u32,
                        fill: self.fillable,
                    });
                    len
                }
                None => {
                    pieces.push(Piece::Zeros(room as usize));
                    room
                }
            };
            at += step;
        }
        pieces
    }

    /// The lease was gone, and is back without anybody having written in between.
    pub fn regained(&mut self, attr: &Attr) {
        self.generation = attr.next_generation();
        self.regained = true;
        for block in self.blocks.iter_mut().filter(|block| !block.uncommitted) {
            (block.begun, block.fresh, block.base_len_bytes) = (false, false, block.len_bytes);
        }
    }

    /// The error of an earlier write, for as long as the lease lasts.
    pub fn check(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// From now on nothing more is written or committed. The first error stays.
    pub fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// The error says how long the file is.
    pub fn failed_at(&mut self, size_bytes: u64) {
        if let Some(error) = &mut self.failed {
            error.message += &format!("; the file has {size_bytes} bytes now");
        }
    }

    /// What [`State::fail`] said did not happen after all.
    pub fn unfail(&mut self) {
        self.failed = None;
    }

    /// A worker has answered for a range of one block.
    ///
    /// # Errors
    /// Its own; `Lost` if it has not what it acknowledged before.
    pub fn answered(&mut self, sent: Sent) -> Result<()> {
        let Sent {
            range,
            worker,
            order,
            outcome,
            workers,
        } = sent;
        self.numbers.ended(order.number);
        self.learn(workers);
        let block_bytes = self.block_bytes();
        let index = to_usize(range.start / block_bytes);
        let arrived = outcome.and_then(|life| match self.blocks.get_mut(index) {
            Some(block) => {
                block.taken.acknowledged(worker, &order, life)?;
                let end = range.end - (range.start - range.start % block_bytes);
                block.taken.up_to(worker, end);
                Ok(())
            }
            None => Ok(()),
        });
        arrived.inspect_err(|_| self.lost.push(range))
    }

    /// Where workers are now.
    pub fn learn(&mut self, workers: Vec<WorkerAddress>) {
        for worker in workers {
            learn(&mut self.workers, worker);
        }
    }

    /// Counts what is gathered as lost: nobody will send it any more.
    pub fn lose_gathered(&mut self) {
        if let Some(gathered) = self.gathered.take() {
            self.lost.push(gathered.offset_bytes..gathered.end());
        }
    }

    /// Cuts blocks to what can be committed after a failure, when nothing is on its way any more: as long as they are on their
    /// workers, up to the first byte that is not. Nothing of what was committed goes, and no hole is left where bytes
    /// should be. Answers with the size.
    pub fn cut_to_keepable(&mut self) -> u64 {
        let committed_bytes = self.attr.size_bytes;
        let behind = self.lost.iter().filter(|lost| lost.end > committed_bytes);
        let whole_bytes = behind.map(|lost| lost.start.max(committed_bytes)).min();
        let whole_bytes = whole_bytes.unwrap_or(u64::MAX);
        let mut size_bytes = committed_bytes;
        let starts = (0..).step_by(to_usize(self.block_bytes()));
        for (block, start) in self.blocks.iter_mut().zip(starts) {
            block.len_bytes = block.located.block.len_bytes;
            let arrived = block.arrived_bytes().min(whole_bytes.saturating_sub(start));
            if block.uncommitted && block.len_bytes < arrived {
                block.len_bytes = arrived;
                size_bytes = size_bytes.max(start + arrived);
            }
        }
        size_bytes
    }

    /// Whether a range meets one that is gathered or on its way.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        let meets = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        let gathered = self.gathered.as_ref();
        self.on_the_way.iter().any(meets)
            || gathered.is_some_and(|gathered| meets(&(gathered.offset_bytes..gathered.end())))
    }

    /// The masters know everything that was written.
    pub fn committed(&mut self, close: bool) {
        self.uncommitted = false;
        self.writable = !close;
        let kept = self.attr.size_bytes.div_ceil(self.block_bytes()) as usize;
        self.blocks.truncate(kept);
        let anew = std::mem::take(&mut self.regained) || close;
        for block in &mut self.blocks {
            block.committed();
            if anew {
                (block.begun, block.fresh, block.base_len_bytes) = (false, false, block.len_bytes);
            }
        }
    }

    /// The file has a new size, with everything written here committed before; the blocks as the master cuts them.
    pub fn cut(&mut self, attr: Attr) {
        let keep = attr.size_bytes.div_ceil(self.block_bytes());
        self.blocks.truncate(keep as usize);
        if self.blocks.len() as u64 == keep
            && let Some(last) = self.blocks.last_mut()
        {
            let room = attr.size_bytes - (keep - 1) * self.attr.block_bytes.max(1);
            last.len_bytes = last.len_bytes.min(room);
        }
        for block in &mut self.blocks {
            block.committed();
            (block.begun, block.fresh, block.base_len_bytes) = (false, false, block.len_bytes);
        }
        self.generation = attr.next_generation();
        self.attr = attr;
    }
}

/// Where a worker is now. What readers are told has no epochs.
pub(super) fn learn(workers: &mut Vec<WorkerAddress>, mut now: WorkerAddress) {
    if let Some(at) = workers.iter().position(|known| known.id == now.id) {
        let before = workers.swap_remove(at);
        if now.epoch == 0 {
            now.epoch = before.epoch;
        }
    }
    workers.push(now);
}
