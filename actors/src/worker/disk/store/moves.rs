//! Blocks that go from one disk of a worker to another, or have a copy there.
//!
//! What is on the other disk is a guest until the first has let go of the block: a copy, that counts for nothing as long as
//! the first has it. So a start that finds both drops the guest, and one that finds a guest alone has the block. The order of
//! the steps, and who keeps changes away meanwhile, is in `disks/moves.rs`.
//!
//! Invariants:
//! - A guest has the bytes of its block. It goes, on the device, before these change.
//! - The guest is on the device before the first disk lets go of the block, and that is on the device before the guest is
//!   anything else: no power cut brings back a block that was changed on another disk since.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::cluster::Tier;
use curvine_protocol::number::{to_usize, whole_ms};
use curvine_protocol::{BlockId, BlockRef, Error, ErrorKind, Result};

use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, BlockState, RecordView};
use super::copy::Copying;
use super::{Store, lock};
use crate::planted::{Bug, is_planted};

/// Blocks that somebody wishes to be elsewhere, and that nobody has looked at yet.
const WISHES_MAX: usize = 4_096;

/// A whole block as one disk has it, for another.
pub struct Whole {
    pub block: BlockRef,
    pub record: BlockRecord,
    bytes: BytesOf,
    /// What that disk was told of it, and of all its blocks: the other one is bound by that, too.
    fence: u32,
    cached_from: u64,
    pinned_from: u64,
}

/// Blocks, and the last one looked at, none at the end.
pub type BriefPage = (Vec<(BlockId, Brief)>, Option<BlockId>);

/// What a block is, as the index has it.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    pub flags: BlockFlags,
    pub len_bytes: u64,
    pub is_sealed: bool,
}

impl Brief {
    fn of(record: &RecordView<'_>) -> Self {
        Brief {
            flags: record.flags(),
            len_bytes: record.len_bytes(),
            is_sealed: record.is_sealed(),
        }
    }
}

enum BytesOf {
    Index(Bytes),
    File(Arc<File>),
}

impl Whole {
    /// Bytes from an offset on.
    ///
    /// # Errors
    /// `Io`, `Corrupt` if there are fewer.
    pub fn read(&self, offset_bytes: u64, len_bytes: u64) -> Result<Bytes> {
        match &self.bytes {
            BytesOf::Index(content) => {
                let start = to_usize(offset_bytes);
                Ok(content.slice(start..start + to_usize(len_bytes)))
            }
            BytesOf::File(file) => {
                let mut bytes = vec![0; to_usize(len_bytes)];
                file.read_exact_at(&mut bytes, offset_bytes)
                    .map_err(|error| match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => self.wrong(),
                        _ => Error::from(error),
                    })?;
                Ok(bytes.into())
            }
        }
    }

    fn wrong(&self) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!(
                "block {} fails its checksum where it is, and is not moved",
                self.block.id
            ),
        )
    }
}

impl Store {
    /// A block that may go to another disk, if it is here and whole, and nobody is about to write or fetch it. For its lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn to_move(&self, block: BlockId) -> Result<Option<Whole>> {
        let Some(record) = self.record(block)? else {
            return Ok(None);
        };
        let flags = record.flags;
        let is_open = lock(&self.lane(block).open).contains_key(&block);
        let is_settled = record.state == BlockState::Sealed && !flags.doubtful && !flags.guest;
        if !is_settled || is_open || (self.being_fetched)().contains(&block) {
            return Ok(None);
        }
        let bytes = match flags.in_index {
            true => BytesOf::Index(self.content(block, &record)?),
            false => BytesOf::File(self.file(block)?),
        };
        Ok(Some(Whole {
            block: BlockRef {
                id: block,
                generation: record.generation,
                len_bytes: record.len_bytes,
            },
            bytes,
            fence: self.index.fence(block)?,
            cached_from: self.index.cached_from()?,
            pinned_from: self.index.pinned_from()?,
            record,
        }))
    }

    /// Whether a block is still as it was found, by all that was handed to its lane before. For that lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn is_as(&self, whole: &Whole) -> Result<bool> {
        let found = self.to_move(whole.block.id)?;
        Ok(found.is_some_and(|found| found.record == whole.record && found.fence == whole.fence))
    }

    /// Keeps a copy of a block as a guest; `copying` has its bytes, or there is none and they go into the index. For the
    /// block's lane.
    ///
    /// # Errors
    /// `Busy` if something else is here; `Corrupt` if the bytes are not those of the block; `NoSpace`, `Io`.
    pub fn guest_end(self: &Arc<Self>, whole: &Whole, copying: Option<Copying>) -> Result<()> {
        let block = whole.block;
        if self.record(block.id)?.is_some() {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("block {} is on disk {} already", block.id, self.name),
            ));
        }
        self.check_usable()?;
        let flags = BlockFlags {
            synced: true,
            guest: true,
            in_index: copying.is_none(),
            // What is pinned is not its copy.
            pinned: whole.record.flags.pinned && whole.record.flags.from_ufs,
            ..whole.record.flags
        };
        let record = BlockRecord {
            flags,
            rewritten: None,
            round: 0,
            ..whole.record.clone()
        };
        let mut changes = vec![
            Change::Put(block.id, record.encode()),
            Change::Fence(block.id, whole.fence),
            Change::CachedFrom(whole.cached_from),
            Change::PinnedFrom(whole.pinned_from),
        ];
        let has_file = copying.is_some();
        let small_bytes = match copying {
            Some(mut copying) => {
                if copying.checksums != record.checksums {
                    return Err(whole.wrong());
                }
                std::fs::rename(&copying.path, self.path(block.id)).map_err(|e| self.failed(e, block.id))?;
                copying.is_kept = true;
                if let Err(error) = self.sync_file(&copying.file, block.id) {
                    self.discard(block.id);
                    return Err(error);
                }
                0
            }
            None => {
                self.space().take(block.id, block.len_bytes, &self.name)?;
                changes.push(Change::PutContent(
                    block.id,
                    vec![whole.read(0, block.len_bytes)?],
                ));
                block.len_bytes
            }
        };
        let committed = self.index.submit_and_wait(changes, true);
        // From here on the length of the index counts.
        self.space().give_back(small_bytes);
        if let Err(error) = committed {
            if has_file {
                self.discard(block.id);
            }
            return Err(error);
        }
        self.is_cached(block.id, &record);
        Ok(())
    }

    /// Lets go of a block that another disk has as a guest by now; false if it has changed since, or must stay. For its lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn hand_over(self: &Arc<Self>, whole: &Whole) -> Result<bool> {
        let block = whole.block.id;
        if !self.is_as(whole)? && !is_planted(Bug::MovesOverWrites) {
            return Ok(false);
        }
        self.remove_and(block, true, drop)
    }

    /// A guest is the block from now on. For its lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn settle_in(self: &Arc<Self>, block: BlockId) -> Result<()> {
        let Some(record) = self.record(block)?.filter(|record| record.flags.guest) else {
            return Ok(());
        };
        let flags = BlockFlags {
            guest: false,
            ..record.flags
        };
        let record = BlockRecord { flags, ..record };
        match flags.from_ufs {
            true => self.is_cached(block, &record),
            false => self.is_cached_no_more(block),
        }
        self.index
            .submit_and_wait(vec![Change::Put(block, record.encode())], false)?;
        self.blocks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes a block that is here as a guest. For its lane.
    ///
    /// # Errors
    /// `Io`.
    pub fn drop_guest(self: &Arc<Self>, block: BlockId) -> Result<()> {
        if is_planted(Bug::GuestsStayBehind) {
            return Ok(());
        }
        let is_guest = self.record(block)?.is_some_and(|record| record.flags.guest);
        match is_guest {
            true => self.remove(block).map(drop),
            false => Ok(()),
        }
    }

    /// Whether a block here is a guest; none if it is not here. Does not block.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn is_guest(&self, block: BlockId) -> Result<Option<bool>> {
        let found = self.index.get(block, |record| {
            (!self.is_given_up(block, &record)).then(|| record.is_guest())
        });
        Ok(found?.flatten())
    }

    /// Up to `limit` blocks after one that are no guests, in the order of their ids; the last one looked at, none at the end.
    ///
    /// # Errors
    /// `Io`.
    pub fn homes(&self, after: Option<BlockId>, limit: usize) -> Result<(Vec<BlockId>, Option<BlockId>)> {
        let mut homes = Vec::new();
        let last = self.index.page(after, limit, |block, record| {
            if record.is_ok_and(|record| !record.is_guest()) {
                homes.push(block);
            }
        })?;
        Ok((homes, last))
    }

    /// What the index has of a block. Does not block.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn brief(&self, block: BlockId) -> Result<Option<Brief>> {
        self.index.get(block, |record| Brief::of(&record))
    }

    /// A block is wished to be in another tier than its record says, or in any. Rather forgotten than waited for: the next
    /// reader says it again.
    pub fn is_wished(&self, block: BlockId, tier: Option<Tier>) {
        if let Ok(mut wishes) = self.wishes.try_lock()
            && wishes.len() < WISHES_MAX
        {
            wishes.insert(block, tier);
        }
    }

    /// What was wished since this was asked last.
    pub fn wishes(&self) -> BTreeMap<BlockId, Option<Tier>> {
        std::mem::take(&mut *lock(&self.wishes))
    }

    /// Remembers where a block is wished to be. Whether it is here, and whole. For its lane.
    ///
    /// # Errors
    /// `Corrupt`, `Io`, `NoSpace`.
    pub fn set_tier(self: &Arc<Self>, block: BlockId, tier: Option<Tier>) -> Result<bool> {
        let is_open = lock(&self.lane(block).open).contains_key(&block);
        let record = self.record(block)?;
        let whole = record.filter(|record| record.state == BlockState::Sealed && !is_open);
        let Some(record) = whole else {
            return Ok(false);
        };
        let flags = BlockFlags { tier, ..record.flags };
        if flags != record.flags {
            let record = BlockRecord { flags, ..record };
            self.index
                .submit_and_wait(vec![Change::Put(block, record.encode())], false)?;
        }
        Ok(true)
    }

    /// Whether there is a slower disk.
    pub fn sinks(&self) -> bool {
        self.sinks
    }

    /// Whole blocks that may not go and came at least so long ago, of the `limit` that follow one; the last one looked at,
    /// none at the end.
    ///
    /// # Errors
    /// `Io`.
    pub fn old_and_kept(&self, after: Option<BlockId>, limit: usize, age: Duration) -> Result<BriefPage> {
        let before_ms = self.now_ms() - i64::from(whole_ms(age));
        let mut found = Vec::new();
        let last = self.index.page(after, limit, |block, record| {
            if let Ok(record) = record {
                let brief = Brief::of(&record);
                let is_large = brief.is_sealed && !brief.flags.in_index;
                if is_large && !brief.flags.may_go() && record.accessed_ms() < before_ms {
                    found.push((block, brief));
                }
            }
        })?;
        Ok((found, last))
    }
}
