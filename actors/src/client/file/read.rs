//! The way of bytes from workers: verified, from another replica where one fails, by a newer layout where the file
//! has changed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curvine_protocol::attr::{FileLayout, WorkerAddress};
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{BlockData, Fill, ReadBlock, SuspectBlock};
use curvine_protocol::{BlockRef, DamagedBlock, Error, ErrorKind, Result, WorkerId};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::deliver::BACKOFF_MAX;
use super::state::{BlockPiece, Piece, State, about_the_file};
use crate::client::route::stalled::PATIENCE;
use crate::kit::backoff::Backoff;
use crate::kit::{Body, Ports};
use crate::planted::{Bug, is_planted};

/// Pieces of blocks read at the same time for one range.
const READS: usize = 4;
/// How long a read is tried again that a worker's disk refuses, or that gets wrong bytes, while nobody else has the block.
const DISK_PATIENCE: Duration = Duration::from_secs(3);
/// After a read has waited for a worker as long as it may, those of the same file do not wait for so long: a kernel asks again
/// for what it read ahead in vain.
const GAVE_UP: Duration = Duration::from_secs(10);
/// How often one read begins anew because the object is another version, while the masters say that its content is the same.
const NEW_ATTRIBUTES_MAX: u32 = 3;
/// A local file grant up to this much is read on the caller's thread.
const INLINE_READ_BYTES: usize = 256 << 10;

/// What masters say of a range that could not be read.
enum Looked {
    Same,
    /// It is another content now.
    Changed,
    /// A block of it is whole nowhere.
    Rotten(Box<FileLayout>),
}

impl Looked {
    fn of(changed: bool) -> Self {
        if changed { Looked::Changed } else { Looked::Same }
    }
}

impl Shared {
    /// The bytes of a range of up to [`READ_BYTES_MAX`](curvine_protocol::worker::READ_BYTES_MAX), fewer if the file is
    /// shorter.
    pub(super) async fn read_range(self: &Arc<Self>, start: u64, end: u64) -> Result<Bytes> {
        let Ports { clock, random, .. } = self.router.ports();
        let begun = clock.now();
        let mut give_up = begun + self.router.retry_for();
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        let (mut rotten_since, mut failing_since) = (None, None);
        let mut new_attributes = 0;
        loop {
            let (plan, version) = {
                let mut state = self.lock().await;
                self.ready_to_read(&mut state).await?;
                if self.send_all(&mut state).await.is_err() {
                    // The file has failed, or its lease was lost: then who reads has it as it is.
                    self.ready_to_read(&mut state).await?;
                }
                let end = end.min(self.size());
                if start >= end {
                    return Ok(Bytes::new());
                }
                state.check_lost(&(start..end))?;
                if state.gave_up.is_some_and(|gave_up| begun < gave_up + GAVE_UP) {
                    give_up = begun;
                }
                (state.plan(start..end), state.attr.content_version)
            };
            let pieces: Result<Vec<Bytes>> = stream::iter(plan)
                .map(|piece| self.read_piece(piece))
                .buffered(READS)
                .try_collect()
                .await;
            let error = match pieces {
                Ok(pieces) => return Ok(joined(pieces)),
                Err(error) if error.kind == ErrorKind::UfsDenied => return Err(error),
                // An object that got other attributes is another version, with the same content.
                Err(error) if error.kind == ErrorKind::UfsChanged => {
                    let looked = self.look_again(version, &(start..end)).await?;
                    if !matches!(looked, Looked::Changed) && new_attributes >= NEW_ATTRIBUTES_MAX {
                        return Err(error);
                    }
                    new_attributes += 1;
                    sleep(backoff.next(random.next_u64())).await;
                    continue;
                }
                Err(error) => error,
            };
            // Somebody else may hold it by now, or it is another content.
            let changed = match self.look_again(version, &(start..end)).await? {
                Looked::Rotten(layout) => return self.read_what_is_left(start, end, &layout).await,
                Looked::Same => false,
                Looked::Changed => true,
            };
            let for_long = |since: &mut Option<Instant>, kind: ErrorKind| {
                *since = (error.kind == kind).then(|| since.unwrap_or_else(|| clock.now()));
                since.is_some_and(|since| clock.now() >= since + DISK_PATIENCE)
            };
            // Workers have dropped what had rotted, and masters hear of it: they may know of another replica.
            let rots_on = for_long(&mut rotten_since, ErrorKind::Corrupt);
            // A disk that cannot read it, and nobody else has it: that does not pass.
            let fails_on = for_long(&mut failing_since, ErrorKind::Io);
            if !changed && (rots_on || fails_on || clock.now() >= give_up) {
                if give_up > begun && clock.now() >= give_up {
                    self.lock().await.gave_up = Some(clock.now());
                }
                return Err(about_the_file(error));
            }
            if !changed {
                sleep(backoff.next(random.next_u64())).await;
            }
        }
    }

    /// Has workers take what was written here, for reading it there.
    async fn send_all(self: &Arc<Self>, state: &mut State) -> Result<()> {
        if state.gathered.is_some() || !state.sending.is_empty() {
            self.send_gathered(state).await?;
            self.settle(state, 0).await?;
        }
        Ok(())
    }

    /// Asks the masters where the file is now, and whether the content that is known here is another than that of `version`.
    ///
    /// # Errors
    /// `UfsChanged` if an object changed: one reader never sees two versions.
    async fn look_again(&self, version: u64, range: &Range<u64>) -> Result<Looked> {
        let layout = self.layout_now().await?;
        if layout.damaged_in(range).is_some() {
            return Ok(Looked::Rotten(Box::new(layout)));
        }
        let mut state = self.lock().await;
        state.learn(layout.workers.clone());
        if state.writable {
            // Nobody else changes it, and what was not committed is known here alone. The lease may have come meanwhile, with
            // what others had made.
            return Ok(Looked::of(state.attr.content_version != version));
        }
        let changed = layout.attr.content_version != version;
        if changed && state.is_replaced_by(&layout) {
            return Err(self.object_changed());
        }
        if layout.attr.content_version >= state.attr.content_version {
            self.adopt(&mut state, layout, false);
        }
        Ok(Looked::of(changed))
    }

    /// Reads a range of which a block is whole on no worker: what was set aside of it is wrong in some chunks, on each worker in
    /// others perhaps.
    ///
    /// # Errors
    /// `Corrupt` if a chunk is right nowhere, else those of reading.
    async fn read_what_is_left(&self, start: u64, end: u64, layout: &FileLayout) -> Result<Bytes> {
        let plan = {
            let mut state = self.lock().await;
            state.learn(layout.workers.clone());
            let end = end.min(self.size());
            state.check_lost(&(start..end))?;
            state.plan(start..end)
        };
        let mut read = Vec::new();
        for piece in plan {
            let damaged = match &piece {
                Piece::Block(piece) => layout
                    .damaged
                    .iter()
                    .find(|it| it.block == piece.located.block.id),
                Piece::Zeros(_) => None,
            };
            match (piece, damaged) {
                (Piece::Block(piece), Some(damaged)) => {
                    read.push(self.read_chunks(&piece, damaged, &layout.workers).await?);
                }
                (piece, _) => read.push(self.read_piece(piece).await?),
            }
        }
        Ok(joined(read))
    }

    /// A piece of a block, each chunk from the first worker that has it right.
    async fn read_chunks(
        &self,
        piece: &BlockPiece,
        damaged: &DamagedBlock,
        workers: &[WorkerAddress],
    ) -> Result<Bytes> {
        let mut read = BytesMut::new();
        let end = piece.offset_bytes + u64::from(piece.len_bytes);
        let mut at = piece.offset_bytes;
        while at < end {
            let until = (at - at % CHUNK_BYTES + CHUNK_BYTES).min(end);
            let mut found = Err(self.rotted(damaged));
            for worker in &damaged.workers {
                let block = &piece.located.block;
                let call = ReadBlock {
                    block: block.id,
                    generation: block.generation,
                    offset_bytes: at,
                    len_bytes: to_u32(to_usize(until - at)),
                    fill: None,
                    exact: false,
                    tier: piece.tier,
                };
                match self.read_block(*worker, workers, block, call).await {
                    Ok(bytes) => {
                        found = Ok(bytes);
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%worker, %error, "a chunk of what was set aside is not right")
                    }
                }
            }
            read.extend_from_slice(&found?);
            at = until;
        }
        Ok(read.freeze())
    }

    fn rotted(&self, damaged: &DamagedBlock) -> Error {
        let list = |workers: &[WorkerId]| {
            let workers: Vec<_> = workers.iter().map(|worker| worker.to_string()).collect();
            workers.join(", ")
        };
        if !damaged.unheard.is_empty() {
            return Error::new(
                ErrorKind::Corrupt,
                format!(
                    "inode {}: every replica of block {} that can be reached has failed its checksum at the same place; worker {} \
                     has not been heard of since the leader was elected, and may have it right: start it again with its data \
                     directory, and read again",
                    self.inode,
                    damaged.block,
                    list(&damaged.unheard)
                ),
            );
        }
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "inode {}: every replica of block {} has failed its checksum at the same place; what is left of it is set aside \
                 on worker {}, in `quarantine/` of its data directory. Write the file again, or remove it; `cv fsck` finds all \
                 such files",
                self.inode,
                damaged.block,
                list(&damaged.workers)
            ),
        )
    }

    /// One piece, from the first replica that has it right.
    async fn read_piece(&self, piece: Piece) -> Result<Bytes> {
        let BlockPiece {
            index,
            located,
            workers,
            offset_bytes,
            len_bytes,
            fill: can_fill,
            mount,
            tier,
        } = match piece {
            Piece::Zeros(len) => return Ok(BytesMut::zeroed(len).freeze()),
            Piece::Block(piece) => piece,
        };
        let mut last = Error::new(
            ErrorKind::BlockUnavailable,
            format!(
                "no live worker holds block {} of inode {}; see `cv report`",
                located.block.id, self.inode
            ),
        );
        let clock = &self.router.ports().clock;
        let mut asking = self.router.stalled().last(located.workers.clone(), clock.now());
        let mut again = Vec::new();
        while !asking.is_empty() {
            let mut ahead = asking.len();
            for worker in std::mem::take(&mut asking) {
                ahead -= 1;
                let fill = can_fill.then_some(Fill {
                    inode: self.inode,
                    block_index: index,
                    whole: false,
                    mount,
                    from_store: false,
                });
                let call = ReadBlock {
                    block: located.block.id,
                    generation: located.block.generation,
                    offset_bytes,
                    len_bytes,
                    fill,
                    exact: false,
                    tier,
                };
                let read = self.read_block(worker, &workers, &located.block, call);
                // Who fetches a block may take its time; who has it does not.
                let read = match ahead > 0 && !can_fill {
                    false => read.await,
                    true => match timeout(PATIENCE, read).await {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            self.router.stalled().note(worker, clock.now());
                            // For longer, if nobody else has it right.
                            asking.push(worker);
                            continue;
                        }
                    },
                };
                match read {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) if matches!(error.kind, ErrorKind::UfsChanged | ErrorKind::UfsDenied) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let suspects = error.kind == ErrorKind::Corrupt && !again.contains(&worker);
                        last = error;
                        if suspects {
                            again.push(worker);
                            let suspect = SuspectBlock {
                                block: located.block.id,
                                offset_bytes,
                                len_bytes,
                            };
                            // Once more there when nobody else has it: if the worker's bytes are right, something on the
                            // way was not; if they were not, it has dropped them and fetches the block anew.
                            if self.suspect(worker, &workers, suspect).await || can_fill {
                                asking.push(worker);
                            }
                        }
                    }
                }
            }
        }
        Err(last)
    }

    /// Tells a worker that bytes of it were wrong. Whether it finds them right.
    async fn suspect(&self, worker: WorkerId, workers: &[WorkerAddress], suspect: SuspectBlock) -> bool {
        if is_planted(Bug::RotIsNotReported) {
            return false;
        }
        let Ok(port) = self.router.worker(worker, workers) else {
            return false;
        };
        match self.router.ask_worker(&port, suspect, Bytes::new()).await {
            Ok(verified) => verified.reply.is_right,
            Err(error) => {
                tracing::warn!(%worker, %error, "a worker was not told of its rotten bytes");
                false
            }
        }
    }

    /// All that a call asks of a block for.
    async fn read_block(
        &self,
        worker: WorkerId,
        workers: &[WorkerAddress],
        block: &BlockRef,
        call: ReadBlock,
    ) -> Result<Bytes> {
        let port = self.router.worker(worker, workers)?;
        let mut got = BytesMut::new();
        let mut at = call.offset_bytes;
        let end = at + u64::from(call.len_bytes);
        loop {
            let call = ReadBlock {
                offset_bytes: at,
                len_bytes: to_u32(to_usize(end - at)),
                ..call.clone()
            };
            let answer = self.router.ask_worker(&port, call, Bytes::new()).await?;
            let bytes = in_memory(answer.body).await?;
            verify(&answer.reply, &bytes, at..end, block, worker)?;
            at += bytes.len() as u64;
            if at == end && got.is_empty() {
                return Ok(bytes);
            }
            got.extend_from_slice(&bytes);
            if at == end {
                return Ok(got.freeze());
            }
        }
    }
}

fn joined(pieces: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(pieces) {
        Ok([piece]) => piece,
        Err(pieces) => {
            let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
            whole.freeze()
        }
    }
}

/// A grant on a file is read here: on this thread if it is small, else where blocking does not matter.
pub(crate) async fn in_memory(body: Body) -> Result<Bytes> {
    match body {
        Body::Bytes(bytes) => Ok(bytes),
        small if small.len() <= INLINE_READ_BYTES => small.read(),
        large => tokio::task::spawn_blocking(move || large.read())
            .await
            .map_err(|_| Error::new(ErrorKind::Cancelled, "a read was cancelled"))?,
    }
}

/// Accepts an answer to a read of `asked`: at least one byte, none too many, and each piece of the body, cut at the
/// block's chunk boundaries, with its checksum.
pub(crate) fn verify(
    reply: &BlockData,
    bytes: &Bytes,
    asked: std::ops::Range<u64>,
    block: &BlockRef,
    worker: WorkerId,
) -> Result<()> {
    let corrupt = |what: String| {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("block {} from worker {worker}: {what}", block.id),
        ))
    };
    if reply.offset_bytes != asked.start {
        return corrupt(format!(
            "asked for offset {}, got {}",
            asked.start, reply.offset_bytes
        ));
    }
    if bytes.is_empty() {
        return corrupt(format!("has only {} bytes, and should have more", asked.start));
    }
    if bytes.len() as u64 > asked.end - asked.start {
        return corrupt(format!(
            "asked for {} bytes, got {}",
            asked.end - asked.start,
            bytes.len()
        ));
    }
    let mut rest = &bytes[..];
    let mut at = asked.start;
    for checksum in &reply.checksums {
        let take = to_usize(CHUNK_BYTES - at % CHUNK_BYTES).min(rest.len());
        let (piece, after) = rest.split_at(take);
        if crc32c(piece) != *checksum && !is_planted(Bug::SkipsChecksums) {
            return corrupt(format!("the chunk at offset {at} fails its checksum"));
        }
        (rest, at) = (after, at + take as u64);
    }
    match rest.is_empty() {
        true => Ok(()),
        false => corrupt(format!("{} bytes came without a checksum", rest.len())),
    }
}
