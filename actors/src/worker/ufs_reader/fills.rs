//! Who waits for which block, which parts of it are under way, and what happens next: pure.
//!
//! Every event (a request, news of a transfer, of a save, a sweep) is answered with decisions, in the order in which
//! they are to be carried out. Where a block's bytes go (`P`), and how a reader (`R`) or a load (`L`) is answered, is
//! handed back as it came and never looked at.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Error, ErrorKind, Result};
use tokio::time::Instant;

use super::plan::Plan;
use crate::worker::disk::{Bitmap, chunks_of};

/// Fills at once. Each holds a file open.
const FILLS_MAX: usize = 4_096;
/// Requests that a load keeps under way: with fewer blocks than this, each is fetched in several parts.
const LOAD_PARTS: usize = 16;
/// How much arrives before the index is told how far a fill has come.
const SAVE_BYTES: u64 = 32 << 20;
/// A fill that nobody reads is saved and let go after this.
const IDLE: Duration = Duration::from_secs(20);

/// The blocks that are being opened and filled.
pub struct Fills<P, R, L> {
    slots: HashMap<BlockId, Slot<P, R, L>>,
    /// Tells fills of the same block apart: news of an earlier one may still be under way.
    last_fill: u64,
}

/// Who wants what of a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<R, L> {
    Read(ReadBlock, R),
    /// All of it; told the bytes that were fetched for it.
    Whole(L),
}

/// For whom bytes are fetched: each has a budget of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Reading,
    Loading,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<P, R, L> {
    /// The block is to be opened; [`Fills::begin`] or [`Fills::end_opening`] is told this number then.
    Opens(u64),
    Decided(Vec<Decision<P, R, L>>),
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<P, R, L> {
    Fail(Request<R, L>, Error),
    /// The read begins behind the block's end.
    AnswerNothing(ReadBlock, R),
    /// Whole chunks, whose checksums are known: the reader takes them from the file itself.
    Grant {
        place: P,
        call: ReadBlock,
        reader: R,
        len_bytes: u32,
        checksums: Vec<u32>,
    },
    /// Parts of chunks: to be read and verified here.
    Read {
        place: P,
        call: ReadBlock,
        reader: R,
        checksums: Vec<u32>,
    },
    /// The block is sealed: whoever waits is answered from the disk.
    AnswerSealed {
        place: P,
        request: Request<R, L>,
        fetched_bytes: u64,
    },
    Fetch {
        block: BlockId,
        number: u64,
        place: P,
        chunks: Range<usize>,
        purpose: Purpose,
    },
    Save(Progress<P>),
    /// The object has another version now: nothing of this one may stay on the disk.
    Remove(BlockId, P),
    /// What the block is filled with may be wrong by now.
    Doubt(P, ErrorKind),
}

/// How far a fill has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<P> {
    pub block: BlockId,
    pub number: u64,
    pub place: P,
    pub present: Bitmap,
    pub checksums: Vec<u32>,
}

/// A block that was opened to be filled.
pub struct Begun<P> {
    pub place: P,
    pub generation: u32,
    pub len_bytes: u64,
    /// What is there from an earlier fill, and the checksums of all chunks.
    pub present: Bitmap,
    pub checksums: Vec<u32>,
}

enum Slot<P, R, L> {
    /// Being resolved and opened; these wait.
    Opening(u64, Vec<Request<R, L>>),
    Open(Box<Filling<P, R, L>>),
}

/// One fill.
struct Filling<P, R, L> {
    block: BlockId,
    number: u64,
    place: P,
    generation: u32,
    len_bytes: u64,
    plan: Plan,
    checksums: Vec<u32>,
    waiting: Vec<Request<R, L>>,
    /// Being fetched.
    parts: usize,
    fetched_bytes: u64,
    unsaved_bytes: u64,
    saving: bool,
    used_at: Instant,
}

impl<P: Clone, R, L> Fills<P, R, L> {
    pub fn new() -> Self {
        Fills {
            slots: HashMap::new(),
            last_fill: 0,
        }
    }

    /// Somebody wants something of a block.
    pub fn ask(
        &mut self,
        block: BlockId,
        generation: u32,
        request: Request<R, L>,
        now: Instant,
    ) -> Asked<P, R, L> {
        let full = self.slots.len() >= FILLS_MAX;
        let parts_each = self.parts_each();
        let refusal = match self.slots.get_mut(&block) {
            Some(Slot::Opening(_, waiting)) => {
                waiting.push(request);
                return Asked::Decided(Vec::new());
            }
            Some(Slot::Open(filling)) if filling.generation == generation => {
                return Asked::Decided(filling.serve(request, parts_each, now));
            }
            Some(Slot::Open(filling)) => Error::new(
                ErrorKind::Stale,
                format!(
                    "block {block}: generation {generation} was asked for and {} is being filled",
                    filling.generation
                ),
            ),
            None if full => Error::new(
                ErrorKind::Overloaded,
                format!("{FILLS_MAX} blocks are being filled already; try again"),
            ),
            None => {
                self.last_fill += 1;
                let opening = Slot::Opening(self.last_fill, vec![request]);
                self.slots.insert(block, opening);
                return Asked::Opens(self.last_fill);
            }
        };
        Asked::Decided(vec![Decision::Fail(request, refusal)])
    }

    /// Opening a block ended without a fill: who waited for it.
    pub fn end_opening(&mut self, block: BlockId, number: u64) -> Vec<Request<R, L>> {
        self.take_opening(block, number).unwrap_or_default()
    }

    fn take_opening(&mut self, block: BlockId, number: u64) -> Option<Vec<Request<R, L>>> {
        match self.slots.remove(&block)? {
            Slot::Opening(opening, waiting) if opening == number => Some(waiting),
            other => {
                self.slots.insert(block, other);
                None
            }
        }
    }

    /// A block was opened to be filled.
    pub fn begin(
        &mut self,
        block: BlockId,
        number: u64,
        begun: Begun<P>,
        now: Instant,
    ) -> Vec<Decision<P, R, L>> {
        let Some(waiting) = self.take_opening(block, number) else {
            return Vec::new();
        };
        let mut filling = Filling {
            block,
            number,
            place: begun.place,
            generation: begun.generation,
            len_bytes: begun.len_bytes,
            plan: Plan::new(begun.present),
            checksums: begun.checksums,
            waiting: Vec::new(),
            parts: 0,
            fetched_bytes: 0,
            unsaved_bytes: 0,
            saving: false,
            used_at: now,
        };
        // This block counts among those that share the requests of a load.
        let parts_each = LOAD_PARTS / (self.slots.len() + 1);
        let mut decisions = Vec::new();
        for request in waiting {
            decisions.extend(filling.serve(request, parts_each, now));
        }
        decisions.extend(filling.save_if_whole());
        self.slots.insert(block, Slot::Open(Box::new(filling)));
        decisions
    }

    /// Chunks from `chunk` on are on the disk, with these checksums.
    pub fn stored(
        &mut self,
        block: BlockId,
        number: u64,
        chunk: usize,
        checksums: &[u32],
    ) -> Vec<Decision<P, R, L>> {
        let Some(filling) = self.filling(block, number) else {
            return Vec::new();
        };
        let chunks = chunk..chunk + checksums.len();
        filling.checksums[chunks.clone()].copy_from_slice(checksums);
        filling.plan.stored(chunks.clone());
        let end = (chunks.end as u64 * CHUNK_BYTES).min(filling.len_bytes);
        let len_bytes = end - chunks.start as u64 * CHUNK_BYTES;
        filling.fetched_bytes += len_bytes;
        filling.unsaved_bytes += len_bytes;
        let mut decisions = filling.answer_waiting();
        if filling.plan.present().is_full() || filling.unsaved_bytes >= SAVE_BYTES {
            decisions.extend(filling.save());
        }
        decisions
    }

    /// Fetching a part ended. One that failed takes along whoever waits for it, and no others.
    pub fn part_ended(
        &mut self,
        block: BlockId,
        number: u64,
        chunks: &Range<usize>,
        outcome: Result<()>,
    ) -> Vec<Decision<P, R, L>> {
        let Some(filling) = self.filling(block, number) else {
            return Vec::new();
        };
        filling.parts -= 1;
        let Err(error) = outcome else {
            return Vec::new();
        };
        let place = filling.place.clone();
        let kind = error.kind;
        let mut decisions = Vec::new();
        if kind == ErrorKind::UfsChanged {
            // Nothing of this version may stay: what is here and what is not would be of two.
            decisions.push(Decision::Remove(block, place.clone()));
            decisions.extend(self.give_up(block, &error));
        } else {
            filling.plan.given_up(chunks.clone());
            decisions.extend(filling.fail_waiting_for(chunks, &error));
        }
        decisions.push(Decision::Doubt(place, kind));
        decisions
    }

    /// How far a fill has come was kept; true if the block is whole and sealed now.
    pub fn saved(&mut self, block: BlockId, number: u64, outcome: Result<bool>) -> Vec<Decision<P, R, L>> {
        let Some(filling) = self.filling(block, number) else {
            return Vec::new();
        };
        filling.saving = false;
        match outcome {
            Err(error) => self.give_up(block, &error),
            Ok(false) => filling.save_if_whole().into_iter().collect(),
            Ok(true) => {
                let Some(Slot::Open(filling)) = self.slots.remove(&block) else {
                    return Vec::new();
                };
                let Filling {
                    place,
                    fetched_bytes,
                    waiting,
                    ..
                } = *filling;
                let answer = |request| Decision::AnswerSealed {
                    place: place.clone(),
                    request,
                    fetched_bytes,
                };
                waiting.into_iter().map(answer).collect()
            }
        }
    }

    /// Saves and lets go of fills that nobody uses, and forgets who waits no more.
    pub fn sweep(
        &mut self,
        is_given_up: impl Fn(&Request<R, L>) -> bool,
        now: Instant,
    ) -> Vec<Decision<P, R, L>> {
        let mut saves = Vec::new();
        self.slots.retain(|_, slot| {
            let Slot::Open(filling) = slot else { return true };
            filling.waiting.retain(|request| !is_given_up(request));
            let used = filling.parts > 0 || filling.saving || !filling.waiting.is_empty();
            if used || now.duration_since(filling.used_at) <= IDLE {
                return true;
            }
            let unsaved = filling.unsaved_bytes > 0;
            saves.extend(unsaved.then(|| filling.save()).flatten());
            unsaved
        });
        saves
    }

    /// Lets go of everything: how far each fill has come.
    pub fn stop(&mut self) -> Vec<Progress<P>> {
        let open = self.slots.drain().filter_map(|(_, slot)| match slot {
            Slot::Open(filling) => Some(filling.progress()),
            Slot::Opening(..) => None,
        });
        open.collect()
    }

    fn parts_each(&self) -> usize {
        LOAD_PARTS / self.slots.len().max(1)
    }

    fn filling(&mut self, block: BlockId, number: u64) -> Option<&mut Filling<P, R, L>> {
        match self.slots.get_mut(&block) {
            Some(Slot::Open(filling)) if filling.number == number => Some(filling),
            _ => None,
        }
    }

    /// Ends a fill; what waits for it fails.
    fn give_up(&mut self, block: BlockId, error: &Error) -> Vec<Decision<P, R, L>> {
        let Some(Slot::Open(filling)) = self.slots.remove(&block) else {
            return Vec::new();
        };
        let fail = |request| Decision::Fail(request, error.clone());
        filling.waiting.into_iter().map(fail).collect()
    }
}

impl<P: Clone, R, L> Filling<P, R, L> {
    /// Answers a request, now or when its chunks are there, and has fetched what it lacks.
    fn serve(&mut self, request: Request<R, L>, parts_each: usize, now: Instant) -> Vec<Decision<P, R, L>> {
        self.used_at = now;
        let (parts, purpose) = match &request {
            Request::Read(call, _) => {
                let chunks = self.chunks(call);
                let parts = chunks.map_or(Vec::new(), |chunks| self.plan.want(chunks));
                (parts, Purpose::Reading)
            }
            Request::Whole(_) => (self.plan.want_all(parts_each), Purpose::Loading),
        };
        let mut decisions = Vec::new();
        self.answer_or_wait(request, &mut decisions);
        self.parts += parts.len();
        decisions.extend(parts.into_iter().map(|chunks| Decision::Fetch {
            block: self.block,
            number: self.number,
            place: self.place.clone(),
            chunks,
            purpose,
        }));
        decisions
    }

    /// The chunks a read touches; none if it is beyond the end.
    fn chunks(&self, call: &ReadBlock) -> Option<Range<usize>> {
        let end = read_end(call, self.len_bytes);
        (call.offset_bytes < end).then(|| (call.offset_bytes / CHUNK_BYTES) as usize..chunks_of(end))
    }

    /// Answers a request if everything it wants is there. A load is answered when the block is sealed.
    fn answer_or_wait(&mut self, request: Request<R, L>, decisions: &mut Vec<Decision<P, R, L>>) {
        let (call, reader) = match request {
            Request::Read(call, reader) => (call, reader),
            whole @ Request::Whole(_) => return self.waiting.push(whole),
        };
        let Some(chunks) = self.chunks(&call) else {
            return decisions.push(Decision::AnswerNothing(call, reader));
        };
        if !self.plan.has(chunks.clone()) {
            return self.waiting.push(Request::Read(call, reader));
        }
        let end = read_end(&call, self.len_bytes);
        let checksums = self.checksums[chunks].to_vec();
        let place = self.place.clone();
        let of_whole_chunks = call.offset_bytes.is_multiple_of(CHUNK_BYTES)
            && (end.is_multiple_of(CHUNK_BYTES) || end == self.len_bytes);
        decisions.push(match of_whole_chunks {
            true => Decision::Grant {
                place,
                len_bytes: (end - call.offset_bytes) as u32,
                call,
                reader,
                checksums,
            },
            false => Decision::Read {
                place,
                call,
                reader,
                checksums,
            },
        });
    }

    fn answer_waiting(&mut self) -> Vec<Decision<P, R, L>> {
        let mut decisions = Vec::new();
        for request in std::mem::take(&mut self.waiting) {
            self.answer_or_wait(request, &mut decisions);
        }
        decisions
    }

    fn fail_waiting_for(&mut self, chunks: &Range<usize>, error: &Error) -> Vec<Decision<P, R, L>> {
        let mut decisions = Vec::new();
        for request in std::mem::take(&mut self.waiting) {
            let hit = match &request {
                Request::Whole(_) => true,
                Request::Read(call, _) => self
                    .chunks(call)
                    .is_some_and(|asked| asked.start < chunks.end && chunks.start < asked.end),
            };
            match hit {
                true => decisions.push(Decision::Fail(request, error.clone())),
                false => self.waiting.push(request),
            }
        }
        decisions
    }

    fn save_if_whole(&mut self) -> Option<Decision<P, R, L>> {
        match self.plan.present().is_full() {
            true => self.save(),
            false => None,
        }
    }

    /// Keeps how far the fill has come, which seals it if it is whole; one save at a time.
    fn save(&mut self) -> Option<Decision<P, R, L>> {
        if std::mem::replace(&mut self.saving, true) {
            return None;
        }
        self.unsaved_bytes = 0;
        Some(Decision::Save(self.progress()))
    }

    fn progress(&self) -> Progress<P> {
        Progress {
            block: self.block,
            number: self.number,
            place: self.place.clone(),
            present: self.plan.present().clone(),
            checksums: self.checksums.clone(),
        }
    }
}

/// Where a read of a block of this length ends.
pub fn read_end(call: &ReadBlock, len_bytes: u64) -> u64 {
    call.offset_bytes
        .saturating_add(call.len_bytes.into())
        .min(len_bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    type TestFills = Fills<(), &'static str, &'static str>;
    type TestDecision = Decision<(), &'static str, &'static str>;

    const BLOCK: BlockId = BlockId(7);
    const GENERATION: u32 = 3;

    fn read(chunks: Range<u64>, reader: &'static str) -> Request<&'static str, &'static str> {
        Request::Read(call(chunks), reader)
    }

    fn call(chunks: Range<u64>) -> ReadBlock {
        ReadBlock {
            block: BLOCK,
            generation: GENERATION,
            offset_bytes: chunks.start * CHUNK_BYTES,
            len_bytes: ((chunks.end - chunks.start) * CHUNK_BYTES) as u32,
            fill: None,
        }
    }

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "it failed")
    }

    /// A fill of so many chunks, none of them there, that these wait for; with its number and what begins with it.
    fn begun(
        chunks: usize,
        waiting: Vec<Request<&'static str, &'static str>>,
        now: Instant,
    ) -> (TestFills, u64, Vec<TestDecision>) {
        let mut fills = TestFills::new();
        let mut number = None;
        for request in waiting {
            match fills.ask(BLOCK, GENERATION, request, now) {
                Asked::Opens(opening) => assert_eq!(number.replace(opening), None, "opened once"),
                Asked::Decided(decisions) => assert_eq!(decisions, vec![], "waits for the opening"),
            }
        }
        let number = number.expect("somebody asked");
        let begun = Begun {
            place: (),
            generation: GENERATION,
            len_bytes: chunks as u64 * CHUNK_BYTES,
            present: Bitmap::new(chunks),
            checksums: vec![0; chunks],
        };
        let decisions = fills.begin(BLOCK, number, begun, now);
        (fills, number, decisions)
    }

    fn fetch(number: u64, chunks: Range<usize>, purpose: Purpose) -> TestDecision {
        Decision::Fetch {
            block: BLOCK,
            number,
            place: (),
            chunks,
            purpose,
        }
    }

    fn ask(
        fills: &mut TestFills,
        generation: u32,
        request: Request<&'static str, &'static str>,
    ) -> Vec<TestDecision> {
        match fills.ask(BLOCK, generation, request, Instant::now()) {
            Asked::Decided(decisions) => decisions,
            Asked::Opens(number) => panic!("opens fill {number}"),
        }
    }

    #[test]
    fn readers_that_wait_for_an_opening_share_what_is_fetched() {
        let waiting = vec![read(0..1, "one"), read(0..1, "two")];
        let (mut fills, number, decisions) = begun(64, waiting, Instant::now());
        assert_eq!(decisions, vec![fetch(number, 0..32, Purpose::Reading)]);
        let granted = |reader| Decision::Grant {
            place: (),
            call: call(0..1),
            reader,
            len_bytes: CHUNK_BYTES as u32,
            checksums: vec![11],
        };
        assert_eq!(
            fills.stored(BLOCK, number, 0, &[11, 12]),
            vec![granted("one"), granted("two")]
        );
    }

    #[test]
    fn a_part_of_a_chunk_is_read_here_and_nothing_is_behind_the_end() {
        let (mut fills, number, _) = begun(2, vec![read(0..1, "first")], Instant::now());
        fills.stored(BLOCK, number, 0, &[11]);
        let part = ReadBlock {
            len_bytes: 10,
            ..call(0..1)
        };
        assert_eq!(
            ask(&mut fills, GENERATION, Request::Read(part.clone(), "part")),
            vec![Decision::Read {
                place: (),
                call: part,
                reader: "part",
                checksums: vec![11],
            }]
        );
        assert_eq!(
            ask(&mut fills, GENERATION, read(2..3, "behind")),
            vec![Decision::AnswerNothing(call(2..3), "behind")]
        );
    }

    #[test]
    fn a_load_is_answered_when_the_whole_block_is_sealed() {
        let (mut fills, number, decisions) = begun(2, vec![Request::Whole("load")], Instant::now());
        assert_eq!(decisions, vec![fetch(number, 0..2, Purpose::Loading)]);
        assert_eq!(fills.stored(BLOCK, number, 0, &[11]), vec![]);
        let mut present = Bitmap::new(2);
        present.set(0);
        present.set(1);
        let whole = Decision::Save(Progress {
            block: BLOCK,
            number,
            place: (),
            present,
            checksums: vec![11, 12],
        });
        assert_eq!(fills.stored(BLOCK, number, 1, &[12]), vec![whole]);
        assert_eq!(
            fills.saved(BLOCK, number, Ok(true)),
            vec![Decision::AnswerSealed {
                place: (),
                request: Request::Whole("load"),
                fetched_bytes: 2 * CHUNK_BYTES,
            }]
        );
        assert_eq!(fills.stop(), vec![], "nothing is held any more");
    }

    #[test]
    fn a_part_that_fails_takes_along_only_who_waits_for_it_and_is_asked_for_again() {
        let waiting = vec![read(0..1, "hit"), read(500..501, "spared")];
        let (mut fills, number, _) = begun(1_000, waiting, Instant::now());
        let failed = error(ErrorKind::Ufs);
        assert_eq!(
            fills.part_ended(BLOCK, number, &(0..32), Err(failed.clone())),
            vec![
                Decision::Fail(read(0..1, "hit"), failed),
                Decision::Doubt((), ErrorKind::Ufs)
            ]
        );
        assert_eq!(
            ask(&mut fills, GENERATION, read(0..1, "again")),
            vec![fetch(number, 0..16, Purpose::Reading)]
        );
    }

    #[test]
    fn a_changed_object_ends_the_fill_and_leaves_nothing_of_the_old_version() {
        let waiting = vec![read(0..1, "reader"), Request::Whole("load")];
        let (mut fills, number, _) = begun(64, waiting, Instant::now());
        let changed = error(ErrorKind::UfsChanged);
        assert_eq!(
            fills.part_ended(BLOCK, number, &(0..32), Err(changed.clone())),
            vec![
                Decision::Remove(BLOCK, ()),
                Decision::Fail(read(0..1, "reader"), changed.clone()),
                Decision::Fail(Request::Whole("load"), changed),
                Decision::Doubt((), ErrorKind::UfsChanged),
            ]
        );
        assert_eq!(fills.stop(), vec![]);
    }

    #[test]
    fn news_of_an_earlier_fill_of_the_block_changes_nothing() {
        let (mut fills, number, _) = begun(64, vec![read(0..1, "reader")], Instant::now());
        let earlier = number - 1;
        assert_eq!(fills.stored(BLOCK, earlier, 0, &[11]), vec![]);
        let changed = Err(error(ErrorKind::UfsChanged));
        assert_eq!(fills.part_ended(BLOCK, earlier, &(0..32), changed), vec![]);
        assert_eq!(fills.saved(BLOCK, earlier, Ok(true)), vec![]);
        assert_eq!(fills.end_opening(BLOCK, number), vec![], "it is open already");
        assert_eq!(fills.stop().len(), 1);
    }

    #[test]
    fn another_generation_than_the_one_being_filled_is_refused_as_stale() {
        let (mut fills, _, _) = begun(64, vec![read(0..1, "reader")], Instant::now());
        let stale = Error::new(
            ErrorKind::Stale,
            "block 7: generation 4 was asked for and 3 is being filled",
        );
        assert_eq!(
            ask(&mut fills, GENERATION + 1, read(0..1, "newer")),
            vec![Decision::Fail(read(0..1, "newer"), stale)]
        );
    }

    #[test]
    fn no_more_blocks_are_opened_than_the_limit() {
        let (mut fills, now) = (TestFills::new(), Instant::now());
        for block in 0..FILLS_MAX as u64 {
            let asked = fills.ask(BlockId(block), GENERATION, Request::Whole("load"), now);
            assert_eq!(asked, Asked::Opens(block + 1));
        }
        let one_more = BlockId(FILLS_MAX as u64);
        let overloaded = Error::new(
            ErrorKind::Overloaded,
            "4096 blocks are being filled already; try again",
        );
        assert_eq!(
            fills.ask(one_more, GENERATION, Request::Whole("more"), now),
            Asked::Decided(vec![Decision::Fail(Request::Whole("more"), overloaded)])
        );
    }

    #[test]
    fn an_idle_fill_is_saved_first_and_let_go_at_the_next_sweep() {
        let now = Instant::now();
        let (mut fills, number, _) = begun(64, vec![read(0..1, "reader")], now);
        fills.stored(BLOCK, number, 0, &[11]);
        let (idle, nobody_left) = (now + IDLE + Duration::from_secs(1), |_: &_| true);
        assert_eq!(fills.sweep(nobody_left, idle), vec![], "a part is under way");
        fills.part_ended(BLOCK, number, &(0..32), Ok(()));
        assert_eq!(fills.sweep(nobody_left, now + IDLE), vec![], "used lately");
        let saves = fills.sweep(nobody_left, idle);
        assert!(matches!(&saves[..], [Decision::Save(progress)] if progress.present.ones() == 1));
        assert_eq!(fills.sweep(nobody_left, idle), vec![], "being saved");
        assert_eq!(fills.saved(BLOCK, number, Ok(false)), vec![]);
        assert_eq!(fills.sweep(nobody_left, idle), vec![]);
        assert_eq!(fills.stop(), vec![], "let go");
    }

    #[test]
    fn progress_is_saved_every_so_many_bytes_and_one_save_at_a_time() {
        let chunks = 2 * (SAVE_BYTES / CHUNK_BYTES) as usize + 1;
        let (mut fills, number, _) = begun(chunks, vec![Request::Whole("load")], Instant::now());
        let enough = vec![11; (SAVE_BYTES / CHUNK_BYTES) as usize];
        assert_eq!(fills.stored(BLOCK, number, 0, &enough[1..]), vec![]);
        assert_eq!(fills.stored(BLOCK, number, enough.len() - 1, &[11]).len(), 1);
        assert_eq!(fills.stored(BLOCK, number, enough.len(), &enough), vec![]);
        let failed = error(ErrorKind::Io);
        assert_eq!(
            fills.saved(BLOCK, number, Err(failed.clone())),
            vec![Decision::Fail(Request::Whole("load"), failed)]
        );
    }
}
