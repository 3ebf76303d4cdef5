//! What a client knows of a file that it has open. Pure: no clock, no socket.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::BytesMut;
use curvine_protocol::attr::{UfsSource, WorkerAddress};
use curvine_protocol::cluster::Tier;
use curvine_protocol::master::CommitFile;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{READ_BYTES_MAX, Wish, WriteOrder};
use curvine_protocol::{
    Attr, BlockRef, ClientId, Error, ErrorKind, FileLayout, LocatedBlock, MountId, Result, WorkerId,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::order::{Numbers, Taken};
use super::writers::Writers;
use crate::client::route::Unanswered;

pub(super) struct State {
    pub attr: Attr,
    /// This client has the lease.
    pub writable: bool,
    /// The session that got it.
    pub session: Option<ClientId>,
    /// How often the masters had not heard of the session for long when they were asked for the lease.
    pub lapses: u64,
    /// Handles that wrote, or may.
    pub writers: Writers,
    /// Of a file in a mount.
    pub source: Option<UfsSource>,
    /// Where its blocks are wished to be.
    pub tier: Option<Tier>,
    /// By index in the file. Where there is none, there is a hole.
    pub blocks: BTreeMap<u32, Block>,
    pub workers: Vec<WorkerAddress>,
    /// What blocks get that are written under this lease: greater than what any earlier writer gave, whether it
    /// committed or not, so that workers can tell its leftovers from ours.
    pub generation: u32,
    pub gathered: Option<Gathered>,
    /// When a read had waited for a worker for as long as it may.
    pub gave_up: Option<Instant>,
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
    /// Why nothing that was written and not flushed counts any more: another client has had the lease, or may have had
    /// it. Whoever comes next lets the file go before anything else.
    pub lease_lost: Option<Error>,
    /// Others may have written since: the masters are asked before anything is read.
    pub outdated: bool,
    /// The master does not know the size or a block's length yet.
    pub uncommitted: bool,
    /// A commit that the masters may have made: nobody answered. It is asked for again before another one is made.
    pub unanswered: Option<Unanswered<CommitFile>>,
    /// Something was changed since that commit.
    pub is_newer: bool,
    /// The lease has gone by a commit of this client's own, to which `attr` belongs.
    pub gave_back: bool,
}

#[derive(Clone)]
pub(super) struct Block {
    pub located: LocatedBlock,
    /// Bytes that were sent or will be: the length it is committed with.
    pub len_bytes: u64,
    /// How many bytes are in holes, as all its workers said when it was sealed last.
    pub hole_bytes: u64,
    /// The generation that the masters know. `located` has that under which it is written.
    committed_generation: u32,
    /// Length when this lease began to write it.
    pub base_len_bytes: u64,
    /// Written under this lease: the generation is this lease's.
    pub begun: bool,
    /// Assigned to this lease: nobody wrote it before.
    pub fresh: bool,
    /// Its bytes are those of the object behind the file: whoever has not got it can fetch it.
    pub cached: bool,
    /// Was fetched whole before the first bytes for it were taken.
    pub fetched: bool,
    /// Written since the last seal.
    pub unsealed: bool,
    /// What its workers acknowledged since it was begun.
    pub taken: Taken,
    /// Known to be on disk as it is.
    pub synced: bool,
    pub uncommitted: bool,
    /// A worker that fails was left behind, with some of what was written in this generation. The others get another one
    /// before it is committed, so that what was left is known to be older.
    pub left_behind: bool,
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
    Block(BlockPiece),
}

/// A part of a block that is to be read.
pub(super) struct BlockPiece {
    pub index: u32,
    pub located: LocatedBlock,
    pub workers: Vec<WorkerAddress>,
    pub offset_bytes: u64,
    pub len_bytes: u32,
    pub fill: bool,
    /// Whose object it is in.
    pub mount: Option<MountId>,
    /// Where it is wished to be.
    pub tier: Wish,
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
            hole_bytes: 0,
            committed_generation: generation,
            base_len_bytes: len_bytes,
            begun: false,
            fetched: false,
            fresh,
            cached: false,
            unsealed: false,
            taken: Taken::default(),
            synced: false,
            uncommitted: false,
            left_behind: false,
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

    /// A worker has failed that is written to: where another one is, too, the block is written there alone. Whether it is
    /// so. What says something of the writer is no failure of a worker.
    pub fn goes_on_without(&mut self, worker: WorkerId, error: &Error) -> bool {
        let is_of_the_worker = match error.kind {
            // A block without bytes is nowhere until it is written.
            ErrorKind::NotFound => self.base_len_bytes > 0,
            ErrorKind::Lost
            | ErrorKind::Corrupt
            | ErrorKind::Io
            | ErrorKind::NoSpace
            | ErrorKind::Unreachable
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::Stopping => true,
            _ => false,
        };
        let workers = &mut self.located.workers;
        let goes_on = is_of_the_worker && workers.iter().any(|other| *other != worker);
        if goes_on && workers.contains(&worker) {
            workers.retain(|other| *other != worker);
            // What is gone is not older than the rest.
            self.left_behind |= error.kind != ErrorKind::NotFound;
            tracing::warn!(%error, "block {} is written on without worker {worker}", self.located.block.id);
        }
        goes_on
    }

    /// The next write of the block is of another generation, and goes on from what there is of it, all of which is sealed.
    pub fn begins_anew(&mut self) {
        (self.begun, self.fresh, self.left_behind) = (false, false, false);
        self.base_len_bytes = self.len_bytes;
    }

    /// The masters know all of it.
    fn committed(&mut self) {
        if std::mem::take(&mut self.uncommitted) {
            self.cached = false;
            self.committed_generation = self.located.block.generation;
        }
        self.located.block.len_bytes = self.len_bytes;
    }
}

/// That a worker has no such block does not say that there is no such file.
pub fn about_the_file(error: Error) -> Error {
    match error.kind {
        ErrorKind::NotFound => Error {
            kind: ErrorKind::Lost,
            ..error
        },
        _ => error,
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
        let source = layout.source.as_ref();
        let block = |located: &LocatedBlock| Block {
            cached: source.is_some_and(|source| source.has(&located.block)),
            ..Block::new(located.clone(), fresh)
        };
        State {
            generation: layout.attr.next_generation(),
            writable,
            session: None,
            lapses: 0,
            writers: Writers::default(),
            blocks: layout
                .placed(0)
                .map(|(index, located)| (index, block(located)))
                .collect(),
            source: layout.source,
            tier: layout.tier,
            attr: layout.attr,
            workers: layout.workers,
            gathered: None,
            gave_up: None,
            sending: JoinSet::new(),
            on_the_way: Vec::new(),
            numbers: Numbers::default(),
            lost: Vec::new(),
            failed: None,
            kept: false,
            regained: false,
            lease_lost: None,
            outdated: false,
            uncommitted: false,
            unanswered: None,
            is_newer: false,
            gave_back: false,
        }
    }

    /// The file is what an object is: nothing was written that the object has not got.
    pub fn is_object(&self) -> bool {
        self.source.as_ref().is_some_and(UfsSource::is_whole)
    }

    /// The object has become another one by somebody else's doing. What is written here keeps some block, or is not in the
    /// object yet.
    pub fn is_replaced_by(&self, layout: &FileLayout) -> bool {
        let is_ours = |located: &LocatedBlock| {
            let id = located.block.id;
            self.blocks.values().any(|block| block.located.block.id == id)
        };
        self.is_object()
            && layout.source.as_ref().is_some_and(UfsSource::is_whole)
            && !layout.blocks.iter().any(is_ours)
    }

    /// What is written under this lease is not the object's.
    fn leaves_object(&mut self) {
        if let Some(source) = &mut self.source {
            source.until_generation = source.until_generation.min(self.generation.saturating_sub(1));
        }
    }

    /// Of blocks that are what they were and of which the masters know no holder now, those known before are asked.
    pub fn keep_holders(&mut self, before: &BTreeMap<u32, Block>, workers: Vec<WorkerAddress>) {
        for (index, block) in &mut self.blocks {
            if block.located.workers.is_empty()
                && let Some(before) = before.get(index)
                && block.located.block == before.located.block
            {
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

    /// The index of the block of an offset. Of none that a file may have, one that no file may have.
    pub fn index_of(&self, offset_bytes: u64) -> u32 {
        to_u32(to_usize(offset_bytes / self.block_bytes()))
    }

    /// Where a block begins in the file.
    pub fn start_of(&self, index: u32) -> u64 {
        u64::from(index) * self.block_bytes()
    }

    /// Bytes that are in no block before a range is written, and are in one afterwards.
    pub fn newly_held(&self, range: Range<u64>) -> u64 {
        let held_until = |index, start: u64| {
            let of_block = self
                .blocks
                .get(&index)
                .map_or(start, |block| start + block.len_bytes);
            let gathered = self
                .gathered
                .as_ref()
                .filter(|gathered| gathered.offset_bytes < start + self.block_bytes());
            of_block.max(gathered.map_or(start, Gathered::end))
        };
        let mut newly_bytes = 0;
        let mut at = range.start;
        while at < range.end {
            let index = self.index_of(at);
            let start = self.start_of(index);
            let end = (start + self.block_bytes()).min(range.end);
            newly_bytes += end.saturating_sub(held_until(index, start));
            at = end;
        }
        newly_bytes
    }

    /// How many bytes of a range are in blocks.
    pub fn held_in(&self, range: &Range<u64>) -> u64 {
        let blocks = self.blocks.range(self.index_of(range.start)..);
        let held = blocks.map_while(|(index, block)| {
            let start = self.start_of(*index);
            let held = start.max(range.start)..(start + block.len_bytes).min(range.end);
            (start < range.end).then(|| held.end.saturating_sub(held.start))
        });
        held.sum()
    }

    /// The first byte from an offset on that is in a block or gathered, of a file of this size.
    pub fn next_data(&self, offset_bytes: u64, size_bytes: u64) -> Option<u64> {
        let blocks = self.blocks.range(self.index_of(offset_bytes)..);
        let in_block = blocks
            .map(|(index, block)| (self.start_of(*index), self.start_of(*index) + block.len_bytes))
            .find(|(_, end)| *end > offset_bytes);
        let gathered = self
            .gathered
            .as_ref()
            .map(|gathered| (gathered.offset_bytes, gathered.end()));
        let found = in_block
            .into_iter()
            .chain(gathered.filter(|(_, end)| *end > offset_bytes));
        let first = found.map(|(start, _)| start.max(offset_bytes)).min();
        first.filter(|first| *first < size_bytes)
    }

    /// The first byte from an offset on that is in no block, the end of a file of this size at the latest.
    pub fn next_hole(&self, offset_bytes: u64, size_bytes: u64) -> Option<u64> {
        let mut at = offset_bytes;
        while at < size_bytes && self.next_data(at, size_bytes) == Some(at) {
            let index = self.index_of(at);
            let of_block = self
                .blocks
                .get(&index)
                .map_or(0, |block| self.start_of(index) + block.len_bytes);
            let gathered = self
                .gathered
                .as_ref()
                .filter(|gathered| gathered.offset_bytes <= at);
            at = of_block.max(gathered.map_or(0, Gathered::end));
        }
        (offset_bytes < size_bytes).then(|| at.min(size_bytes))
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
            let index = self.index_of(at);
            let within = at % block_bytes;
            let room = (block_bytes - within)
                .min(range.end - at)
                .min(READ_BYTES_MAX.into());
            let held = self.blocks.get(&index).filter(|block| within < block.len_bytes);
            let step = match held {
                Some(block) => {
                    let len = room.min(block.len_bytes - within);
                    pieces.push(Piece::Block(BlockPiece {
                        index,
                        located: block.located.clone(),
                        workers: self.workers.clone(),
                        offset_bytes: within,
                        len_bytes: to_u32(to_usize(len)),
                        fill: block.cached && !block.begun,
                        mount: self.source.as_ref().map(|source| source.mount),
                        tier: Wish::of(self.tier),
                    }));
                    len
                }
                None => {
                    pieces.push(Piece::Zeros(to_usize(room)));
                    room
                }
            };
            at += step;
        }
        pieces
    }

    /// Whether somebody else has written since the lease was got, if these are the attributes when it was got again. Its end
    /// without this client's word makes a version of its own.
    pub fn is_overtaken(&self, attr: &Attr) -> bool {
        attr.content_version > self.attr.content_version + u64::from(!self.gave_back)
    }

    /// The lease was gone, and is back without anybody having written in between.
    pub fn regained(&mut self, attr: &Attr) {
        self.generation = attr.next_generation();
        (self.regained, self.gave_back) = (true, false);
        for block in self.blocks.values_mut().filter(|block| !block.uncommitted) {
            block.begins_anew();
        }
    }

    /// There is something to be committed.
    pub fn changes(&mut self) {
        self.uncommitted = true;
        self.is_newer = true;
    }

    /// Nobody knows whether the masters have made a commit that gives the lease back, or yet will.
    pub fn gives_back_unanswered(&self) -> bool {
        self.unanswered
            .as_ref()
            .is_some_and(|unanswered| unanswered.call.close)
    }

    /// The error of an earlier write, for as long as the lease lasts.
    pub fn check(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// # Errors
    /// The error of an earlier write that may have lost bytes of this range.
    pub fn check_lost(&self, range: &Range<u64>) -> Result<()> {
        match self.lost.iter().any(|lost| meet(lost, range)) {
            true => self.check(),
            false => Ok(()),
        }
    }

    /// From now on nothing more is written or committed. The first error stays.
    pub fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(about_the_file(error));
    }

    /// The error says how long the file is.
    pub fn failed_at(&mut self, size_bytes: u64) {
        if let Some(error) = &mut self.failed {
            error.message += &format!("; the file has {size_bytes} bytes now");
        }
    }

    /// Whoever wrote is still to hear of it.
    pub fn stays_failed_as(&mut self, before: &mut State) {
        self.failed = before.failed.take();
        self.kept = before.kept;
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
        let index = self.index_of(range.start);
        let end = range.end - self.start_of(index);
        let Some(block) = self.blocks.get_mut(&index) else {
            return outcome.map(drop).inspect_err(|_| self.lost.push(range));
        };
        let arrived = outcome.and_then(|life| {
            block.taken.acknowledged(worker, &order, life)?;
            // It has taken nothing before it had what was there before.
            block.taken.up_to(worker, end.max(block.base_len_bytes));
            Ok(())
        });
        match arrived {
            Err(error) if block.goes_on_without(worker, &error) => Ok(()),
            arrived => arrived.inspect_err(|_| self.lost.push(range)),
        }
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
        let block_bytes = self.block_bytes();
        for (index, block) in &mut self.blocks {
            let start = u64::from(*index) * block_bytes;
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
        let gathered = self.gathered.as_ref();
        self.on_the_way.iter().any(|other| meet(other, range))
            || gathered.is_some_and(|gathered| meet(&(gathered.offset_bytes..gathered.end()), range))
    }

    /// The masters know everything that was written.
    pub fn committed(&mut self, close: bool) {
        if std::mem::take(&mut self.uncommitted) {
            self.leaves_object();
        }
        self.writable = !close;
        self.drop_behind(self.attr.size_bytes);
        let anew = std::mem::take(&mut self.regained) || close;
        for block in self.blocks.values_mut() {
            block.committed();
            if anew {
                block.begins_anew();
            }
        }
    }

    /// Blocks are asked for as the masters know them, whatever was begun of them since: nothing more is written.
    pub fn read_as_committed(&mut self) {
        for block in self.blocks.values_mut() {
            block.located.block.generation = block.committed_generation;
        }
    }

    /// The file has a new size, with everything written here committed before; the blocks as the master cuts them.
    pub fn cut(&mut self, attr: Attr) {
        self.drop_behind(attr.size_bytes);
        let block_bytes = self.block_bytes();
        if let Some(mut last) = self.blocks.last_entry() {
            let room = attr.size_bytes - u64::from(*last.key()) * block_bytes;
            let last = last.get_mut();
            last.len_bytes = last.len_bytes.min(room);
        }
        self.changed_by_masters(attr);
    }

    /// Whether the masters have to make a hole of a range: blocks in it go, or one is cut.
    pub fn is_hole_of_blocks(&self, range: &Range<u64>) -> bool {
        let mut blocks = self.blocks.range(self.index_of(range.start)..);
        blocks.any(|(index, block)| {
            let start = self.start_of(*index);
            is_cut_by(range, start..start + block.len_bytes)
        })
    }

    /// The masters made a hole of a range, with everything written here committed before. Answers with the block that it
    /// cut, and its length now: workers have the rest still.
    pub fn punched(&mut self, range: &Range<u64>, attr: Attr) -> Option<(u32, u64)> {
        let block_bytes = self.block_bytes();
        let mut cut = None;
        self.blocks.retain(|index, block| {
            let start = u64::from(*index) * block_bytes;
            if is_cut_by(range, start..start + block.len_bytes) {
                block.len_bytes = range.start.saturating_sub(start);
                cut = (block.len_bytes > 0).then_some((*index, block.len_bytes)).or(cut);
            }
            block.len_bytes > 0
        });
        self.changed_by_masters(attr);
        cut
    }

    /// What of a hole is in blocks that stay: their indexes, and the ranges in them. At most two.
    pub fn holes_in_blocks(&self, range: &Range<u64>) -> Vec<(u32, Range<u64>)> {
        let mut indexes = vec![self.index_of(range.start), self.index_of(range.end)];
        indexes.dedup();
        let in_block = |index| {
            let block: &Block = self.blocks.get(&index)?;
            let start = self.start_of(index);
            let until = range.end.saturating_sub(start).min(block.len_bytes);
            let from = range.start.saturating_sub(start);
            (from < until).then_some((index, from..until))
        };
        indexes.into_iter().filter_map(in_block).collect()
    }

    /// Blocks behind the end of the file are not its own any more.
    pub fn drop_behind(&mut self, size_bytes: u64) {
        let kept = size_bytes.div_ceil(self.block_bytes());
        self.blocks.split_off(&to_u32(to_usize(kept)));
    }

    /// The masters changed the content, with everything written here committed before: workers do not know of it.
    fn changed_by_masters(&mut self, attr: Attr) {
        for block in self.blocks.values_mut() {
            block.committed();
            block.begins_anew();
        }
        self.leaves_object();
        self.generation = attr.next_generation();
        self.attr = attr;
    }
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Whether a hole covers bytes of a block up to the block's end.
fn is_cut_by(hole: &Range<u64>, block: Range<u64>) -> bool {
    hole.start.max(block.start) < block.end && hole.end >= block.end
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

#[cfg(test)]
mod tests {
    use curvine_protocol::{BlockId, FileKind, InodeId};

    use super::*;

    /// A file of blocks of 100 bytes with these indexes and lengths.
    fn state(size_bytes: u64, blocks: &[(u32, u64)]) -> State {
        let attr = Attr {
            inode: InodeId(7),
            kind: FileKind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            btime_ns: 0,
            rdev: 0,
            block_bytes: 100,
            replicas: 1,
            content_version: 1,
            ufs: None,
            hole_bytes: 0,
            bare: false,
            has_acl: false,
        };
        let block = |(index, len_bytes): &(u32, u64)| LocatedBlock {
            block: BlockRef {
                id: BlockId((*index).into()),
                len_bytes: *len_bytes,
                generation: 1,
            },
            workers: Vec::new(),
        };
        let layout = FileLayout {
            attr,
            blocks: blocks.iter().map(block).collect(),
            workers: Vec::new(),
            source: None,
            indexes: blocks.iter().map(|(index, _)| *index).collect(),
            damaged: Vec::new(),
            tier: None,
        };
        State::new(layout, true)
    }

    fn lengths(state: &State) -> Vec<(u32, u64)> {
        let blocks = state.blocks.iter();
        blocks.map(|(index, block)| (*index, block.len_bytes)).collect()
    }

    #[test]
    fn data_and_holes_are_told_apart_by_blocks_and_what_is_gathered() {
        let mut state = state(1_000, &[(0, 100), (1, 50), (7, 100)]);
        state.gathered = Some(Gathered {
            offset_bytes: 500,
            bytes: BytesMut::from(&[1; 20][..]),
        });
        let data = |at| state.next_data(at, 1_000);
        assert_eq!([data(0), data(149), data(150)], [Some(0), Some(149), Some(500)]);
        assert_eq!([data(519), data(520), data(800)], [Some(519), Some(700), None]);
        let hole = |at| state.next_hole(at, 1_000);
        assert_eq!([hole(0), hole(150), hole(510)], [Some(150), Some(150), Some(520)]);
        assert_eq!([hole(700), hole(1_000)], [Some(800), None]);
        assert_eq!(state.next_hole(710, 760), Some(760), "the end counts as one");
        assert_eq!(state.next_data(150, 500), None);
    }

    #[test]
    fn a_replica_that_fails_is_written_no_more_if_there_is_another() {
        let mut state = state(100, &[(0, 100)]);
        let both = vec![WorkerId(1), WorkerId(2)];
        let block = |state: &mut State, base_len_bytes| {
            let block = state.blocks.get_mut(&0).expect("it is there");
            block.located.workers = vec![WorkerId(1), WorkerId(2)];
            (block.base_len_bytes, block.left_behind) = (base_len_bytes, false);
        };
        let says = |state: &mut State, worker, kind| {
            let answered = state.answered(Sent {
                range: 20..30,
                worker: WorkerId(worker),
                order: WriteOrder::default(),
                outcome: Err(Error::new(kind, "no")),
                workers: Vec::new(),
            });
            let block = &state.blocks[&0];
            let holders = block.located.workers.clone();
            (answered.map_err(|error| error.kind), holders, block.left_behind)
        };
        for kind in [ErrorKind::Stale, ErrorKind::SessionEnded, ErrorKind::Internal] {
            block(&mut state, 100);
            assert_eq!(says(&mut state, 2, kind), (Err(kind), both.clone(), false));
        }
        for kind in [
            ErrorKind::NoSpace,
            ErrorKind::Corrupt,
            ErrorKind::Lost,
            ErrorKind::Timeout,
        ] {
            block(&mut state, 100);
            for _ in 0..2 {
                assert_eq!(
                    says(&mut state, 2, kind),
                    (Ok(()), vec![WorkerId(1)], true),
                    "what it has is older than what follows"
                );
            }
            assert_eq!(says(&mut state, 1, kind), (Err(kind), vec![WorkerId(1)], true));
        }
        block(&mut state, 100);
        for _ in 0..2 {
            assert_eq!(
                says(&mut state, 2, ErrorKind::NotFound),
                (Ok(()), vec![WorkerId(1)], false)
            );
        }
        let nobody_else = (Err(ErrorKind::NotFound), vec![WorkerId(1)], false);
        assert_eq!(says(&mut state, 1, ErrorKind::NotFound), nobody_else);
        // A block without bytes is nowhere until it is written.
        block(&mut state, 0);
        let is_gone = Error::new(ErrorKind::NotFound, "no");
        let block = state.blocks.get_mut(&0).expect("it is there");
        assert!(!block.goes_on_without(WorkerId(2), &is_gone));
    }

    #[test]
    fn what_a_write_adds_is_counted_once() {
        let mut state = state(1_000, &[(0, 100), (1, 50)]);
        assert_eq!([state.newly_held(0..150), state.newly_held(120..160)], [0, 10]);
        // A gap within a block is in the block.
        assert_eq!(state.newly_held(180..420), 50 + 100 + 100 + 20);
        state.gathered = Some(Gathered {
            offset_bytes: 150,
            bytes: BytesMut::from(&[1; 70][..]),
        });
        assert_eq!(state.newly_held(220..230), 10);
        assert_eq!(state.held_in(&(90..130)), 40);
        assert_eq!(state.held_in(&(140..1_000)), 10);
    }

    #[test]
    fn a_hole_takes_whole_blocks_cuts_one_and_leaves_two_ranges_at_most() {
        let all = [(0, 100), (1, 100), (2, 100), (5, 30)];
        let punched = |range: Range<u64>| {
            let mut state = state(1_000, &all);
            let masters = state.is_hole_of_blocks(&range);
            let attr = state.attr.clone();
            let cut = masters.then(|| state.punched(&range, attr)).flatten();
            (lengths(&state), cut, state.holes_in_blocks(&range))
        };
        assert_eq!(punched(20..60), (all.to_vec(), None, vec![(0, 20..60)]));
        let (left, cut, holes) = punched(20..250);
        assert_eq!((left, cut), (vec![(0, 20), (2, 100), (5, 30)], Some((0, 20))));
        assert_eq!(holes, [(2, 0..50)]);
        let (left, cut, holes) = punched(210..1_000);
        assert_eq!(
            (left, cut, holes),
            (vec![(0, 100), (1, 100), (2, 10)], Some((2, 10)), vec![])
        );
        assert_eq!(
            punched(300..500),
            (all.to_vec(), None, vec![]),
            "a hole is one already"
        );
        assert_eq!(
            punched(530..540),
            (all.to_vec(), None, vec![]),
            "behind the end of its block"
        );
        assert_eq!(punched(510..520), (all.to_vec(), None, vec![(5, 10..20)]));
    }

    #[test]
    fn who_gave_the_lease_back_is_overtaken_by_any_other_version() {
        let mut state = state(100, &[]);
        let at = |state: &State, more: u64| {
            let content_version = state.attr.content_version + more;
            state.is_overtaken(&Attr {
                content_version,
                ..state.attr.clone()
            })
        };
        assert!(!at(&state, 1), "the end of the lease");
        assert!(at(&state, 2));
        state.gave_back = true;
        assert!(!at(&state, 0) && at(&state, 1), "somebody else's");
        let attr = state.attr.clone();
        state.regained(&attr);
        assert!(!at(&state, 1));
    }
}
