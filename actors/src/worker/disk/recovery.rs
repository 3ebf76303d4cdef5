//! Opens a disk: makes the index and the files agree, whatever ended the last run.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use curvine_conf::{DataDir, Size};
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::cluster::Tier;
use curvine_protocol::number::to_usize;
use curvine_protocol::{BlockId, Error, MountId, Result};

use super::cached::Cached;
use super::index::{Change, Index, LastRun};
use super::record::{BlockFlags, BlockRecord, BlockState, is_content_of};
use super::space::{Space, index_unsynced_max};
use super::store::{Store, Unsynced, counts_as_cached, taken_by};
use super::victims::goes_aside;
use super::{Bitmap, BlockNews, DiskOptions, layout};
use crate::kit::Ports;
use crate::planted::{Bug, is_planted};

/// Records looked at in one read transaction.
const PAGE: usize = 4_096;
const DEFAULT_RESERVE_BYTES: u64 = 1 << 30;

/// Opens the disk in a directory. Blocks: call it off the arbiters.
///
/// # Errors
/// `Io` and others of the file system, naming the directory.
pub(super) fn open(
    directory: DataDir,
    options: &DiskOptions,
    ports: &Ports,
    thread_name: &str,
    being_fetched: Arc<dyn Fn() -> HashSet<BlockId> + Send + Sync>,
    news: Arc<dyn Fn(BlockNews) + Send + Sync>,
) -> Result<(Store, Unsettled)> {
    let root = directory.path.clone();
    layout::create_directories(&root)?;
    let (index, last_run) = Index::open(
        &layout::index_path(&root),
        layout::run_token(&root)?,
        ports.random.next_u64(),
        index_unsynced_max(directory.capacity.map(|Size(bytes)| bytes)),
        ports.offload(&format!("{thread_name}-index")),
    )?;
    let power_was_cut = last_run == LastRun::PowerCut;
    if power_was_cut {
        tracing::warn!(
            "{}: not stopped in order before the machine or the mount went down; verifying its blocks",
            root.display()
        );
    }

    let synced = index.synced()?;
    let Agreed {
        used_bytes,
        blocks,
        mut cached,
        pinned,
        guests,
        kept,
        left_open,
        ..
    } = agree(&index, &root, directory.tier, power_was_cut.then_some(synced))?;
    // What came first goes first.
    cached.sort_unstable();
    let cached = cached
        .into_iter()
        .map(|(_, block, bytes, mount)| (block, bytes, mount));
    let mut cached = Cached::new(options.eviction, cached);
    pinned
        .into_iter()
        .for_each(|(block, bytes, mount)| cached.pin(block, bytes, mount));
    let device = rustix::fs::statvfs(&root).map_err(|e| {
        Error::from(std::io::Error::from(e)).while_doing(format_args!("measuring {}", root.display()))
    })?;
    let total = device.f_blocks * device.f_frsize;
    let free = device.f_bavail * device.f_frsize;
    let reserve = options
        .reserve_bytes
        .unwrap_or_else(|| (total / 100).max(DEFAULT_RESERVE_BYTES).min(total / 10));
    let capacity = directory.capacity.map_or_else(
        || used_bytes + index.file_bytes() + free.saturating_sub(reserve),
        |Size(bytes)| bytes,
    );
    let lanes = (0..options.lanes.max(1))
        .map(|lane| ports.offload(&format!("{thread_name}-{lane}")))
        .collect();
    let space = Space::new(capacity, reserve, used_bytes, index.file_bytes(), free);
    let store = Store::new(
        directory,
        (
            index,
            Unsynced::after(last_run == LastRun::Killed, synced),
            left_open,
        ),
        space,
        blocks,
        cached,
        options,
        being_fetched,
        lanes,
        ports.clock.clone(),
        news,
    );
    Ok((store, Unsettled { guests, kept }))
}

/// What the disks of a worker have to settle among themselves when they start.
#[derive(Default)]
pub struct Unsettled {
    /// Blocks that are here as copies of what another disk has, or had.
    pub guests: Vec<BlockId>,
    /// Blocks here that may be the only copy, on a disk that is to have none such.
    pub kept: Vec<BlockId>,
}

/// What is on a disk.
struct Agreed {
    /// What the files take, in bytes.
    used_bytes: u64,
    blocks: u64,
    /// The cached blocks that may go: when bytes of each last came, what it takes, and for which mount it counts.
    cached: Vec<(i64, BlockId, u64, Option<MountId>)>,
    /// Those that are pinned, which are not among them.
    pinned: Vec<(BlockId, u64, Option<MountId>)>,
    /// Copies of what other disks of the worker have.
    guests: Vec<BlockId>,
    /// Those that may not go, of a disk that is to have none.
    kept: Vec<BlockId>,
    /// Those that were being written.
    left_open: Vec<BlockId>,
    tier: Tier,
}

impl Agreed {
    fn of(tier: Tier) -> Self {
        Agreed {
            used_bytes: 0,
            blocks: 0,
            cached: Vec::new(),
            pinned: Vec::new(),
            guests: Vec::new(),
            kept: Vec::new(),
            left_open: Vec::new(),
            tier,
        }
    }

    fn has(
        &mut self,
        block: BlockId,
        (flags, accessed_ms): (BlockFlags, i64),
        len_bytes: u64,
        mount: Option<MountId>,
    ) {
        let taken_bytes = taken_by(flags, len_bytes);
        self.used_bytes += taken_bytes;
        // A guest is another disk's block.
        self.blocks += u64::from(!flags.guest);
        if flags.guest {
            self.guests.push(block);
        }
        match (counts_as_cached(flags, self.tier), flags.pinned) {
            (true, true) => self.pinned.push((block, taken_bytes, mount)),
            (true, false) => self.cached.push((accessed_ms, block, taken_bytes, mount)),
            (false, _) if self.tier == Tier::Mem => self.kept.push(block),
            (false, _) => {}
        }
    }
}

/// Drops records without files and files without records, finishes cuts, verifies after a power cut: then with the number
/// of the last background sync before it. Returns what is left.
fn agree(index: &Arc<Index>, root: &Path, tier: Tier, power_cut_after: Option<u64>) -> Result<Agreed> {
    let mut files = HashSet::new();
    let mut strays = Vec::new();
    layout::visit_files(root, |path, block| match block {
        Some(block) => {
            files.insert(block);
        }
        None => strays.push(path),
    })?;

    let mut agreed = Agreed::of(tier);
    let mut after = None;
    loop {
        let mut changes = Vec::new();
        let mut look_closer = Vec::new();
        let last = index.page(after, PAGE, |block, record| match record {
            Ok(record) if !record.is_in_index() && !files.contains(&block) => {
                changes.push(Change::Delete(block))
            }
            Err(error) => {
                tracing::error!("block {block} is dropped: {error}");
                changes.push(Change::Delete(block));
            }
            Ok(record) if record.is_sealed() && power_cut_after.is_none() => {
                if !record.is_in_index() {
                    files.remove(&block);
                }
                let head = (record.flags(), record.accessed_ms());
                agreed.has(block, head, record.len_bytes(), record.counts_for());
            }
            Ok(record) => {
                if let Ok(record) = record.to_record() {
                    look_closer.push((block, record));
                }
            }
        })?;
        for (block, record) in look_closer {
            let settled = match record.flags.in_index {
                true => verify_small(index, block, &record).map(|()| (record.len_bytes, None)),
                false => settle(root, block, &record, power_cut_after),
            };
            match settled {
                Ok((len_bytes, change)) => {
                    if !record.flags.in_index {
                        files.remove(&block);
                    }
                    let head = (record.flags, record.accessed_ms);
                    agreed.has(block, head, len_bytes, record.counts_for());
                    if let BlockState::Writing { .. } = record.state {
                        agreed.left_open.push(block);
                    }
                    changes.extend(change);
                }
                Err(error) => {
                    tracing::error!("block {block} is dropped: {error}");
                    if goes_aside(record.flags)
                        && std::fs::rename(
                            layout::block_path(root, block),
                            layout::quarantine_path(root, block, record.generation),
                        )
                        .is_ok()
                    {
                        files.remove(&block);
                    }
                    changes.push(Change::Delete(block));
                }
            }
        }
        if !changes.is_empty() {
            index.submit_and_wait(changes, false)?;
        }
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    let garbage = files
        .iter()
        .map(|&block| layout::block_path(root, block))
        .chain(strays);
    for path in garbage {
        std::fs::remove_file(&path)
            .map_err(|e| Error::from(e).while_doing(format_args!("deleting {}", path.display())))?;
    }
    Ok(agreed)
}

/// One block that was not simply sealed: its length, and what the index must be told.
fn settle(
    root: &Path,
    block: BlockId,
    record: &BlockRecord,
    power_cut_after: Option<u64>,
) -> Result<(u64, Option<Change>)> {
    let power_was_cut = power_cut_after.is_some();
    let path = layout::block_path(root, block);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| Error::from(e).while_doing(path.display()))?;
    let len_bytes = file.metadata().map_err(Error::from)?.len();
    match &record.state {
        BlockState::Writing { .. } if record.flags.cutting || power_was_cut => {
            if record.flags.cutting {
                file.set_len(record.len_bytes).map_err(Error::from)?;
            }
            // Some of what was sealed may have been written over since, and nobody can tell what is there of it.
            let (numbers, doubtful) = match power_was_cut {
                true => (record.numbers.unsealed(), true),
                false => (record.numbers, record.flags.doubtful),
            };
            let flags = BlockFlags {
                cutting: false,
                doubtful,
                ..record.flags
            };
            let settled = BlockRecord {
                flags,
                numbers,
                ..record.clone()
            };
            let len_bytes = match record.flags.cutting {
                true => record.len_bytes,
                false => len_bytes,
            };
            let change = (settled != *record).then(|| Change::Put(block, settled.encode()));
            Ok((len_bytes, change))
        }
        BlockState::Writing { .. } => Ok((len_bytes, None)),
        BlockState::Filling { present } if power_was_cut && !is_planted(Bug::FillsBelievedAfterPowerCut) => {
            // The index may know of chunks that never came to the device. They are fetched again.
            let lost = lost_chunks(&file, record, |chunk| present.get(chunk))?;
            let Some(lost) = lost else {
                return Ok((record.len_bytes, None));
            };
            tracing::warn!("block {block}: {} chunks of its fill were lost", lost.ones());
            if len_bytes < record.len_bytes {
                file.set_len(record.len_bytes).map_err(Error::from)?;
            }
            let mut left = Bitmap::new(present.len());
            (0..present.len())
                .filter(|&chunk| present.get(chunk) && !lost.get(chunk))
                .for_each(|chunk| {
                    left.set(chunk);
                });
            let record = BlockRecord {
                state: BlockState::Filling { present: left },
                ..record.clone()
            };
            Ok((record.len_bytes, Some(Change::Put(block, record.encode()))))
        }
        BlockState::Filling { .. } => Ok((record.len_bytes, None)),
        BlockState::Sealed => match (lost_chunks(&file, record, |_| true)?, &record.rewritten) {
            (None, _) => Ok((record.len_bytes, None)),
            (Some(lost), Some(rewritten))
                if (0..lost.len()).all(|at| !lost.get(at) || rewritten.get(at))
                    && !power_cut_after.is_some_and(|synced| record.is_synced_by(synced)) =>
            {
                // Nobody was promised what was written over them. Their bytes are what the device has, or nothing.
                tracing::warn!(
                    "block {block}: {} chunks that were not synced were lost",
                    lost.ones()
                );
                if len_bytes < record.len_bytes {
                    file.set_len(record.len_bytes).map_err(Error::from)?;
                }
                let record = BlockRecord {
                    state: BlockState::Writing { dirty: lost },
                    rewritten: None,
                    round: 0,
                    numbers: record.numbers.unsealed(),
                    flags: BlockFlags {
                        synced: true,
                        doubtful: true,
                        ..record.flags
                    },
                    ..record.clone()
                };
                Ok((record.len_bytes, Some(Change::Put(block, record.encode()))))
            }
            (Some(lost), _) => Err(lost_with_power(lost.ones())),
        },
    }
}

fn verify_small(index: &Index, block: BlockId, record: &BlockRecord) -> Result<()> {
    let right = index.get_with_content(block, |_, content| {
        content.is_some_and(|content| is_content_of(&record.checksums, content))
    })?;
    match right {
        Some(true) => Ok(()),
        _ => Err(lost_with_power(1)),
    }
}

fn lost_with_power(chunks: usize) -> Error {
    Error::new(
        curvine_protocol::ErrorKind::Corrupt,
        format!("{chunks} of its chunks were lost with the power"),
    )
}

/// The chunks that should be there and fail their checksums, if there are any.
fn lost_chunks(
    file: &File,
    record: &BlockRecord,
    is_there: impl Fn(usize) -> bool,
) -> Result<Option<Bitmap>> {
    let mut bytes = vec![0; to_usize(CHUNK_BYTES)];
    let mut lost = Bitmap::new(record.checksums.len());
    let chunks = record.checksums.iter().enumerate();
    for (chunk, &sum) in chunks.filter(|(chunk, _)| is_there(*chunk)) {
        let start = chunk as u64 * CHUNK_BYTES;
        let bytes = &mut bytes[..to_usize((record.len_bytes - start).min(CHUNK_BYTES))];
        match file.read_exact_at(bytes, start) {
            Ok(()) if crc32c(bytes) == sum => {}
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => {
                lost.set(chunk);
            }
        }
    }
    Ok((lost.ones() > 0).then_some(lost))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use curvine_protocol::checksum::chunk_checksums;

    use super::super::record::RecordView;
    use super::*;

    #[test]
    fn after_a_power_cut_what_was_written_over_is_the_powers_until_a_sync_has_ended_and_rot_then() {
        let root = tempfile::tempdir().unwrap();
        layout::create_directories(root.path()).unwrap();
        let block = BlockId(7);
        let content = vec![5u8; 2 * usize::try_from(CHUNK_BYTES).unwrap()];
        let mut on_device = content.clone();
        on_device[content.len() - 1] ^= 1;
        std::fs::write(layout::block_path(root.path(), block), &on_device).unwrap();
        let mut rewritten = Bitmap::new(2);
        rewritten.set(1);
        let record = BlockRecord {
            rewritten: Some(rewritten),
            round: 5,
            ..BlockRecord::sealed(
                1,
                content.len() as u64,
                chunk_checksums(&content),
                0,
                BlockFlags::default(),
            )
        };
        let (_, change) = settle(root.path(), block, &record, Some(4)).unwrap();
        assert!(change.is_some(), "what the device has of it counts");
        let rot = settle(root.path(), block, &record, Some(5))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(rot.kind, curvine_protocol::ErrorKind::Corrupt);
    }

    #[test]
    fn after_a_power_cut_what_a_fill_had_fetched_is_verified_and_the_rest_is_fetched_again() {
        let root = tempfile::tempdir().unwrap();
        layout::create_directories(root.path()).unwrap();
        let block = BlockId(7);
        let chunk = usize::try_from(CHUNK_BYTES).unwrap();
        let content = vec![5u8; 4 * chunk];
        // The first two came; the second did not reach the device. The third is said to be missing.
        let mut on_device = content.clone();
        on_device[chunk..].fill(0);
        std::fs::write(layout::block_path(root.path(), block), &on_device).unwrap();
        let mut present = Bitmap::new(4);
        for came in [0, 1] {
            present.set(came);
        }
        let record = BlockRecord {
            state: BlockState::Filling { present },
            ..BlockRecord::sealed(
                1,
                content.len() as u64,
                chunk_checksums(&content),
                0,
                BlockFlags::default(),
            )
        };
        let of_a_kill = settle(root.path(), block, &record, None).unwrap();
        assert!(of_a_kill.1.is_none(), "the page cache has everything");
        let (len_bytes, change) = settle(root.path(), block, &record, Some(0)).unwrap();
        assert_eq!(len_bytes, content.len() as u64);
        let Some(Change::Put(_, bytes)) = change else {
            panic!("the index is told")
        };
        let settled = RecordView::parse(&bytes).unwrap().to_record().unwrap();
        let BlockState::Filling { present } = settled.state else {
            panic!("it goes on")
        };
        assert_eq!(
            (0..4).map(|at| present.get(at)).collect::<Vec<_>>(),
            [true, false, false, false]
        );
    }
}
