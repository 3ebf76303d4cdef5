//! One block that is being filled: who waits for what of it, and how far it has come.

use std::ops::Range;
use std::time::Duration;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::worker::ReadBlock;
use curvine_protocol::{BlockId, Error};
use tokio::time::Instant;

use super::{Begun, Decision, Progress, Purpose, Request, Suspected};
use crate::worker::disk::chunks_of;
use crate::worker::ufs_reader::plan::Plan;

/// How much arrives before the index is told how far a fill has come.
pub const SAVE_BYTES: u64 = 32 << 20;
/// A fill that nobody reads is saved and let go after this.
pub const IDLE: Duration = Duration::from_secs(20);
/// A load that nobody asks for again is given up after this.
pub const LOAD_IDLE: Duration = Duration::from_secs(10);

/// One fill.
pub struct Filling<P, R, L> {
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
    /// Somebody wanted all of it.
    loading: bool,
    used_at: Instant,
}

impl<P: Clone, R, L> Filling<P, R, L> {
    /// Begins with what is there from an earlier fill.
    pub fn new(block: BlockId, number: u64, begun: Begun<P>, now: Instant) -> Self {
        Filling {
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
            loading: false,
            used_at: now,
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn place(&self) -> &P {
        &self.place
    }

    /// What is there of it, for a look at it.
    pub fn suspected(&self) -> Suspected<P> {
        Suspected {
            number: self.number,
            place: self.place.clone(),
            len_bytes: self.len_bytes,
            present: self.plan.present().clone(),
            checksums: self.checksums.clone(),
        }
    }

    /// Answers a request, now or when its chunks are there, and has fetched what it lacks.
    pub fn serve(
        &mut self,
        request: Request<R, L>,
        parts_each: usize,
        now: Instant,
    ) -> Vec<Decision<P, R, L>> {
        self.used_at = now;
        let (parts, purpose) = match &request {
            Request::Read(call, _) => {
                let chunks = self.chunks(call);
                let parts = chunks.map_or(Vec::new(), |chunks| self.plan.want(chunks));
                (parts, Purpose::Reading)
            }
            Request::Whole(_) => {
                self.loading = true;
                (self.plan.want_all(parts_each), Purpose::Loading)
            }
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

    /// Chunks from `chunk` on are on the disk, with these checksums.
    pub fn stored(&mut self, chunk: usize, checksums: &[u32]) -> Vec<Decision<P, R, L>> {
        let chunks = chunk..chunk + checksums.len();
        self.checksums[chunks.clone()].copy_from_slice(checksums);
        self.plan.stored(chunks.clone());
        let end = (chunks.end as u64 * CHUNK_BYTES).min(self.len_bytes);
        let len_bytes = end - chunks.start as u64 * CHUNK_BYTES;
        self.fetched_bytes += len_bytes;
        self.unsaved_bytes += len_bytes;
        let mut decisions = self.answer_waiting();
        if self.plan.present().is_full() || self.unsaved_bytes >= SAVE_BYTES {
            decisions.extend(self.save());
        }
        decisions
    }

    /// Fetching a part ended, well or not.
    pub fn part_ended(&mut self) {
        self.parts -= 1;
    }

    /// A part did not arrive: whoever waits for it fails, and the next who wants it has it fetched again.
    pub fn part_failed(&mut self, chunks: &Range<usize>, error: &Error) -> Vec<Decision<P, R, L>> {
        self.plan.given_up(chunks.clone());
        self.fail_waiting_for(chunks, error)
    }

    /// How far it has come was kept, and that is not all of it.
    pub fn saved(&mut self) -> Option<Decision<P, R, L>> {
        self.saving = false;
        self.save_if_whole()
    }

    /// The block is whole and sealed: whoever waits is answered.
    pub fn sealed(self) -> Vec<Decision<P, R, L>> {
        let answer = |request| Decision::AnswerSealed {
            place: self.place.clone(),
            request,
            fetched_bytes: self.fetched_bytes,
        };
        self.waiting.into_iter().map(answer).collect()
    }

    /// It ends: whoever waits fails.
    pub fn given_up(self, error: &Error) -> Vec<Decision<P, R, L>> {
        let fail = |request| Decision::Fail(request, error.clone());
        self.waiting.into_iter().map(fail).collect()
    }

    pub fn forget_waiting(&mut self, is_given_up: impl Fn(&Request<R, L>) -> bool) {
        self.waiting.retain(|request| !is_given_up(request));
    }

    /// Something is under way, somebody waits, or somebody did lately.
    pub fn is_used(&self, now: Instant) -> bool {
        let busy = self.parts > 0 || self.saving || !self.waiting.is_empty();
        busy || now.duration_since(self.used_at) <= IDLE
    }

    /// Bytes that arrived of it so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// It is being loaded, and whoever wanted that does not ask any more.
    pub fn is_forsaken(&self, now: Instant) -> bool {
        self.loading
            && self.parts > 0
            && self.waiting.is_empty()
            && now.duration_since(self.used_at) > LOAD_IDLE
    }

    /// Nobody wants the whole block any more. Whoever waited for that fails, and so what is left waits for a reader.
    pub fn fail_loads(&mut self, error: &Error) -> Vec<Decision<P, R, L>> {
        self.loading = false;
        let is_load = |request: &mut Request<R, L>| matches!(request, Request::Whole(_));
        let loads = self.waiting.extract_if(.., is_load);
        loads.map(|load| Decision::Fail(load, error.clone())).collect()
    }

    /// All of it is there, or a reader waits for something: it goes on without a load.
    pub fn goes_on(&self) -> bool {
        self.plan.present().is_full() || !self.waiting.is_empty()
    }

    /// Ends what is being fetched, and keeps what is there.
    pub fn stop(self) -> Vec<Decision<P, R, L>> {
        let mut decisions = vec![Decision::Stop(self.place.clone())];
        decisions.extend(self.is_unsaved().then(|| Decision::Save(self.progress())));
        decisions
    }

    pub fn is_unsaved(&self) -> bool {
        self.unsaved_bytes > 0
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
                len_bytes: u32::try_from(end - call.offset_bytes)
                    .expect("it is no longer than what was asked for"),
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

    pub fn save_if_whole(&mut self) -> Option<Decision<P, R, L>> {
        match self.plan.present().is_full() {
            true => self.save(),
            false => None,
        }
    }

    /// Keeps how far the fill has come, which seals it if it is whole; one save at a time.
    pub fn save(&mut self) -> Option<Decision<P, R, L>> {
        if std::mem::replace(&mut self.saving, true) {
            return None;
        }
        self.unsaved_bytes = 0;
        Some(Decision::Save(self.progress()))
    }

    pub fn progress(&self) -> Progress<P> {
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
