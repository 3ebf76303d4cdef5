//! Moves one part of an object to the disk, as it arrives.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::{BlockId, Error, ErrorKind, InodeId, MountId, Result, UfsVersion};
use futures::StreamExt;
use tokio::sync::oneshot;

use super::budget::Budget;
use crate::kit::deadlines::TRANSFER_SILENCE;
use crate::worker::disk::Store;
use crate::worker::source::{ByteStream, ObjectSource};
use crate::worker::traffic::Counts;

/// Bytes that go to the disk in one write.
const WRITE_BYTES: usize = 512 * 1024;
/// Writes under way for one part.
const WRITES_MAX: usize = 2;
/// Memory that one part can hold: writes under way and what gathers for the next.
pub const PART_MEMORY_BYTES: u64 = (WRITE_BYTES * (WRITES_MAX + 1)) as u64;

/// What a block is filled with.
#[derive(Clone)]
pub struct Target {
    pub block: BlockId,
    pub generation: u32,
    pub len_bytes: u64,
    /// Where the block starts in the object.
    pub object_offset_bytes: u64,
    /// The file, where a reader named it.
    pub inode: Option<InodeId>,
    pub mount: MountId,
    pub key: String,
    pub version: UfsVersion,
    pub source: Arc<dyn ObjectSource>,
    /// What counts the bytes that come from the store; where they may come from elsewhere, the source counts.
    pub counts: Arc<Counts>,
    /// Where its memory comes from, if not from the budget of whoever fetches it.
    pub memory: Option<Budget>,
}

impl Target {
    async fn stream(&self, range: &Range<u64>) -> Result<ByteStream> {
        let start = self.object_offset_bytes + range.start;
        let end = self.object_offset_bytes + range.end;
        self.source.read(&self.key, start..end, &self.version).await
    }

    fn doing(&self, error: Error) -> Error {
        error.while_doing(format_args!("fetching `{}` for block {}", self.key, self.block))
    }

    /// Fetches a range of the block into memory: for small blocks, and where no disk has room.
    ///
    /// # Errors
    /// Those of the source; `Ufs` if it sends another number of bytes.
    pub async fn fetch(&self, range: Range<u64>, budget: &Budget) -> Result<Vec<Bytes>> {
        let budget = self.memory.as_ref().unwrap_or(budget);
        let _permit = budget.take(self.mount, range.end - range.start).await;
        let fetched = async {
            let mut stream = self.stream(&range).await?;
            let mut pieces = Vec::new();
            let mut left = range.end - range.start;
            while let Some(piece) = next(&mut stream, &mut left).await? {
                self.counts.fetched(piece.len());
                pieces.push(piece);
            }
            Ok(pieces)
        };
        fetched.await.map_err(|error| self.doing(error))
    }

    /// Fetches chunks of the block and writes them to its file; tells of each stretch once it is there.
    ///
    /// # Errors
    /// Those of the source and of the disk; `Ufs` if the source sends another number of bytes.
    pub async fn fetch_to(
        &self,
        chunks: Range<usize>,
        store: Arc<Store>,
        file: Arc<File>,
        budget: &Budget,
        stored: impl Fn(usize, Vec<u32>),
    ) -> Result<()> {
        let start = chunks.start as u64 * CHUNK_BYTES;
        let end = (chunks.end as u64 * CHUNK_BYTES).min(self.len_bytes);
        let budget = self.memory.as_ref().unwrap_or(budget);
        let _permit = budget.take(self.mount, end - start).await;
        let fetched = async {
            let mut stream = self.stream(&(start..end)).await?;
            let mut left = end - start;
            let mut at = start;
            let mut gathered = Gathered::default();
            let mut writes: VecDeque<(usize, oneshot::Receiver<Result<Vec<u32>>>)> = VecDeque::new();
            loop {
                let piece = next(&mut stream, &mut left).await?;
                let ended = piece.is_none();
                self.counts.fetched(piece.as_ref().map_or(0, Bytes::len));
                gathered.push(piece);
                if gathered.len < WRITE_BYTES && !ended {
                    continue;
                }
                let body = if ended {
                    gathered.take_all()
                } else {
                    gathered.take_chunks()
                };
                let len_bytes: u64 = body.iter().map(|piece| piece.len() as u64).sum();
                if len_bytes > 0 {
                    let (done, written) = oneshot::channel();
                    let (file, block) = (file.clone(), self.block);
                    store.on_any_lane(block.0 + at / (CHUNK_BYTES * 128), move |store| {
                        let _ = done.send(store.fill_write(&file, block, at, &body));
                    });
                    writes.push_back(((at / CHUNK_BYTES) as usize, written));
                    at += len_bytes;
                }
                while writes.len() > if ended { 0 } else { WRITES_MAX - 1 }
                    && let Some((chunk, written)) = writes.pop_front()
                {
                    let sums = written
                        .await
                        .unwrap_or_else(|_| Err(Error::internal("a write was given up")))?;
                    stored(chunk, sums);
                }
                if ended {
                    return Ok(());
                }
            }
        };
        fetched.await.map_err(|error| self.doing(error))
    }
}

/// The next bytes of a stream that must end exactly when nothing is left.
async fn next(stream: &mut ByteStream, left: &mut u64) -> Result<Option<Bytes>> {
    let ufs = |message: String| Err(Error::new(ErrorKind::Ufs, message));
    let Ok(piece) = tokio::time::timeout(TRANSFER_SILENCE, stream.next()).await else {
        return ufs(format!(
            "the under file system sent nothing for {} s",
            TRANSFER_SILENCE.as_secs()
        ));
    };
    match piece.transpose()? {
        Some(piece) if piece.len() as u64 > *left => {
            ufs("the under file system sent more than was asked for".to_owned())
        }
        Some(piece) => {
            *left -= piece.len() as u64;
            Ok(Some(piece))
        }
        None if *left > 0 => ufs(format!("the under file system ended {left} bytes early")),
        None => Ok(None),
    }
}

/// Bytes that wait to be written, never copied.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Gathered {
    fn push(&mut self, piece: Option<Bytes>) {
        if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    fn take_all(&mut self) -> Vec<Bytes> {
        self.len = 0;
        std::mem::take(&mut self.pieces)
    }

    /// All but the beginning of a chunk that has not arrived wholly.
    fn take_chunks(&mut self) -> Vec<Bytes> {
        let mut rest = self.len % to_usize(CHUNK_BYTES);
        let mut kept = VecDeque::new();
        self.len = rest;
        while rest > 0 {
            let mut last = self.pieces.pop().expect("the pieces are as long as their sum");
            let tail = last.split_off(last.len().saturating_sub(rest));
            rest -= tail.len();
            kept.push_front(tail);
            if !last.is_empty() {
                self.pieces.push(last);
            }
        }
        std::mem::replace(&mut self.pieces, kept.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathered_bytes_are_cut_at_a_chunk_and_keep_their_order() {
        let bytes: Bytes = (0..200_000u32)
            .map(|i| i.to_le_bytes()[0])
            .collect::<Vec<_>>()
            .into();
        let mut gathered = Gathered::default();
        for start in (0..bytes.len()).step_by(999) {
            gathered.push(Some(bytes.slice(start..(start + 999).min(bytes.len()))));
        }
        let head = gathered.take_chunks().concat();
        assert_eq!(head.len() as u64, 3 * CHUNK_BYTES);
        assert_eq!(gathered.len, bytes.len() - head.len());
        assert_eq!([head, gathered.take_all().concat()].concat(), bytes);
    }
}
