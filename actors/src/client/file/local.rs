//! Files whose blocks are on this host: read from descriptors that workers lend, without a worker's help.
//!
//! Invariant: bytes are verified by the checksums that came with the descriptor, each time they are read.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::number::to_usize;
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::{OpenFile, Shared};
use crate::client::route::lenders::Borrowed;

/// Blocks of a file that are known, lent or not.
const KNOWN_MAX: usize = 16;
/// How long a block that is not lent is not asked for again: somebody may have it fetched meanwhile.
const NOT_HERE: Duration = Duration::from_secs(1);

thread_local! {
    /// A chunk of which only a part is wanted.
    static CHUNK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The content of a file as it was when this was opened, as far as workers on this host have it. Its bytes stay what they
/// are until this is dropped.
pub struct LocalFile {
    shared: Arc<Shared>,
    /// Of the content.
    version: u64,
    block_bytes: u64,
    /// What was asked for last, at the end.
    blocks: Mutex<Vec<Known>>,
}

#[derive(Clone)]
struct Known {
    index: u32,
    block: Option<Arc<Borrowed>>,
    asked: Instant,
    is_bad: bool,
}

impl OpenFile {
    /// The content as it is now, to be read from workers of this host without a message for each read. None while this
    /// client writes the file.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`], where the masters must be asked for the content.
    pub async fn open_local(&self) -> Result<Option<LocalFile>> {
        let shared = &self.handle.shared;
        shared.catch_up().await?;
        let mut state = shared.lock().await;
        shared.ready_to_read(&mut state).await?;
        if state.writable || state.gathered.is_some() || !state.sending.is_empty() {
            return Ok(None);
        }
        Ok(Some(LocalFile {
            shared: shared.clone(),
            version: state.attr.content_version,
            block_bytes: state.block_bytes(),
            blocks: Mutex::default(),
        }))
    }
}

impl LocalFile {
    /// Bytes from an offset on, into the beginning of a buffer: how many. Fewer than there is room for at the end of a block.
    /// None if no worker of this host has them, or the file is known to have another content by now: then
    /// [`OpenFile::read_at`] reads them. Blocks on the disk.
    pub async fn read_at(&self, offset_bytes: u64, into: &mut [u8]) -> Option<usize> {
        if self.shared.named.load(Ordering::Acquire) > self.version {
            self.known().clear();
            return None;
        }
        let index = u32::try_from(offset_bytes / self.block_bytes).ok()?;
        let block = self.block(index).await?;
        match read_verified(&block, offset_bytes % self.block_bytes, into) {
            Ok(0) => None,
            Ok(got) => {
                block.read_bytes.fetch_add(got as u64, Ordering::Relaxed);
                Some(got)
            }
            Err(error) => {
                // Read from the worker, it is noticed there and made good.
                tracing::warn!("inode {}: {error}", self.shared.inode);
                let mut known = self.known();
                if let Some(known) = known.iter_mut().find(|known| known.index == index) {
                    (known.block, known.is_bad) = (None, true);
                }
                None
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.blocks.lock().expect("nobody panics while holding this")
    }

    async fn block(&self, index: u32) -> Option<Arc<Borrowed>> {
        let now = self.shared.router.ports().clock.now();
        let last = {
            let mut known = self.known();
            match known.iter().position(|known| known.index == index) {
                Some(at) if at + 1 == known.len() => Some(known[at].clone()),
                Some(at) => {
                    let found = known.remove(at);
                    known.push(found.clone());
                    Some(found)
                }
                None => None,
            }
        };
        match last {
            Some(Known {
                block: Some(block), ..
            }) => return Some(block),
            Some(known) if known.is_bad || now < known.asked + NOT_HERE => return None,
            _ => {}
        }
        let block = self.borrow(index).await.map(Arc::new);
        let mut known = self.known();
        known.retain(|known| known.index != index);
        if known.len() >= KNOWN_MAX {
            known.remove(0);
        }
        known.push(Known {
            index,
            block: block.clone(),
            asked: now,
            is_bad: false,
        });
        block
    }

    async fn borrow(&self, index: u32) -> Option<Borrowed> {
        let (located, addresses, mount) = {
            let state = self.shared.state.lock().await;
            let is_same = state.attr.content_version == self.version && !state.writable;
            let block = state.blocks.get(&index).filter(|_| is_same)?;
            let mount = state.source.as_ref().map(|source| source.mount);
            (block.located.clone(), state.workers.clone(), mount)
        };
        self.shared
            .router
            .borrow(&located.block, &located.workers, &addresses, mount)
            .await
            // More may be here than the file has: a writer went without a word.
            .filter(|borrowed| borrowed.block.len_bytes >= located.block.len_bytes)
            .map(|mut borrowed| {
                borrowed.limit(located.block.len_bytes);
                borrowed
            })
    }
}

/// Reads from an offset in a block up to its end, or as much as there is room for.
///
/// # Errors
/// `Corrupt`, `Io`.
fn read_verified(lent: &Borrowed, offset_bytes: u64, into: &mut [u8]) -> Result<usize> {
    let end = lent
        .end_bytes()
        .min(offset_bytes.saturating_add(into.len() as u64));
    let mut at = offset_bytes;
    while at < end {
        let done = to_usize(at - offset_bytes);
        let chunk = at / CHUNK_BYTES;
        let whole_until = match end == lent.block.len_bytes {
            true => end,
            false => end / CHUNK_BYTES * CHUNK_BYTES,
        };
        let read = |into: &mut [u8], at| lent.file.read_exact_at(into, at).map_err(Error::from);
        if at.is_multiple_of(CHUNK_BYTES) && at < whole_until {
            let part = &mut into[done..done + to_usize(whole_until - at)];
            read(part, at)?;
            for (bytes, chunk) in part.chunks(to_usize(CHUNK_BYTES)).zip(chunk..) {
                verify(lent, chunk, bytes)?;
            }
            at = whole_until;
            continue;
        }
        let start = chunk * CHUNK_BYTES;
        let stop = (start + CHUNK_BYTES).min(lent.block.len_bytes);
        let until = stop.min(end);
        CHUNK.with_borrow_mut(|bytes| {
            bytes.resize(to_usize(stop - start), 0);
            read(bytes, start)?;
            verify(lent, chunk, bytes)?;
            let wanted = &bytes[to_usize(at - start)..to_usize(until - start)];
            into[done..done + wanted.len()].copy_from_slice(wanted);
            Ok::<_, Error>(())
        })?;
        at = until;
    }
    Ok(to_usize(at.saturating_sub(offset_bytes)))
}

fn verify(lent: &Borrowed, chunk: u64, bytes: &[u8]) -> Result<()> {
    match lent.block.checksums.get(to_usize(chunk)) {
        Some(checksum) if *checksum == crc32c(bytes) => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            format!("chunk {chunk} of a file that was lent fails its checksum"),
        )),
    }
}
