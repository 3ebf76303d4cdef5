//! What the replicas of a block are brought to after a writer that reached some of them. For the block's lane.

use std::sync::Arc;

use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{
    BlockExtent, PunchBlock, READ_BYTES_MAX, ReadBlock, ReplicaSum, SealBlock, Wish, WriteOrder,
};
use curvine_protocol::{BlockId, BlockRef, ErrorKind, Result};

use super::super::BlockNews;
use super::super::index::Change;
use super::super::record::{BlockFlags, BlockRecord, BlockState};
use super::Store;

impl Store {
    /// What is here of a block, up to a length; none if that is less, or not for comparing. Seals what is not sealed.
    ///
    /// # Errors
    /// `Io`.
    pub fn compare(self: &Arc<Self>, extent: BlockExtent) -> Result<Option<ReplicaSum>> {
        let BlockExtent { block, len_bytes } = extent;
        match self.record(block)?.map(|record| record.state) {
            None | Some(BlockState::Filling { .. }) => return Ok(None),
            Some(BlockState::Sealed) => {}
            Some(BlockState::Writing { .. }) => self.seal_as_it_is(block)?,
        }
        let Some(record) = self.record(block)? else {
            return Ok(None);
        };
        if record.len_bytes < len_bytes || record.state != BlockState::Sealed {
            return Ok(None);
        }
        match self.sum_up_to(extent, &record) {
            Ok(checksum) => Ok(Some(ReplicaSum {
                generation: record.generation,
                checksum,
                is_doubtful: record.flags.doubtful,
            })),
            Err(error) if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is here of a block, up to its length, if it is whole and kept and of its generation or a newer one. It is on the
    /// device then: others go because of it.
    ///
    /// # Errors
    /// `Io`.
    pub fn confirm(self: &Arc<Self>, block: BlockRef) -> Result<Option<ReplicaSum>> {
        let is_that = |record: &BlockRecord| {
            let is_kept = !record.flags.from_ufs && !record.flags.doubtful;
            record.state == BlockState::Sealed && is_kept && record.generation >= block.generation
        };
        if self.is_endangered(block.id) {
            return Ok(None);
        }
        let Some(record) = self.record(block.id)?.filter(is_that) else {
            return Ok(None);
        };
        if !record.flags.synced {
            self.seal_here(&SealBlock {
                block: block.id,
                generation: record.generation,
                sync: true,
                epoch: 0,
                or_newer: false,
                order: WriteOrder::default(),
            })?;
        }
        self.compare(BlockExtent {
            block: block.id,
            len_bytes: block.len_bytes,
        })
    }

    fn sum_up_to(self: &Arc<Self>, extent: BlockExtent, record: &BlockRecord) -> Result<u32> {
        let whole = to_usize(extent.len_bytes / CHUNK_BYTES);
        let mut sums: Vec<u32> = record.checksums[..whole].to_vec();
        let rest = extent.len_bytes % CHUNK_BYTES;
        if rest > 0 {
            sums.push(match extent.len_bytes == record.len_bytes {
                true => record.checksums[whole],
                // Whole chunks are verified.
                false => {
                    let read = self.read(&ReadBlock {
                        block: extent.block,
                        generation: 0,
                        offset_bytes: extent.len_bytes - rest,
                        len_bytes: to_u32(to_usize(CHUNK_BYTES)),
                        fill: None,
                        exact: false,
                        tier: Wish::UNSAID,
                    })?;
                    crc32c(&read.body.read()?[..to_usize(rest)])
                }
            });
        }
        let bytes: Vec<u8> = sums.into_iter().flat_map(u32::to_le_bytes).collect();
        Ok(crc32c(&bytes))
    }

    /// Has a block be of this generation, end at this length, and be on disk.
    ///
    /// # Errors
    /// Those of [`curvine_protocol::worker::KeepReplicas`].
    pub fn keep(self: &Arc<Self>, extent: BlockExtent, generation: u32) -> Result<()> {
        let BlockExtent { block, len_bytes } = extent;
        // Others go because of it.
        self.verify_up_to(extent)?;
        self.accept(block)?;
        // The first change of a generation cuts the block.
        self.punch(&PunchBlock {
            block,
            generation,
            offset_bytes: 0,
            len_bytes: 0,
            base_len_bytes: len_bytes,
            epoch: 0,
            order: WriteOrder::default(),
        })?;
        self.seal_here(&SealBlock {
            block,
            generation,
            sync: true,
            epoch: 0,
            or_newer: false,
            order: WriteOrder::default(),
        })
    }

    /// Has a doubtful block count: there is nothing better.
    ///
    /// # Errors
    /// `Io`.
    pub fn accept(self: &Arc<Self>, block: BlockId) -> Result<()> {
        let Some(record) = self.record(block)?.filter(|record| record.flags.doubtful) else {
            return Ok(());
        };
        tracing::info!("block {block} counts as it is after the power cut");
        let flags = BlockFlags {
            doubtful: false,
            ..record.flags
        };
        let record = BlockRecord { flags, ..record };
        let replica = BlockReplica {
            id: block,
            generation: record.generation,
            len_bytes: record.len_bytes,
        };
        self.index
            .submit_and_wait(vec![Change::Put(block, record.encode())], false)?;
        (self.news)(BlockNews::Stored(replica));
        Ok(())
    }

    /// # Errors
    /// `Corrupt`: then it is out of use.
    fn verify_up_to(self: &Arc<Self>, extent: BlockExtent) -> Result<()> {
        let mut offset_bytes = 0;
        while offset_bytes < extent.len_bytes {
            let look = ReadBlock {
                block: extent.block,
                generation: 0,
                offset_bytes,
                len_bytes: READ_BYTES_MAX,
                fill: None,
                exact: false,
                tier: Wish::UNSAID,
            };
            self.read(&look)?;
            offset_bytes += u64::from(READ_BYTES_MAX);
        }
        Ok(())
    }

    /// Seals a block as its writer has left it, in whatever generation it is.
    pub(super) fn seal_as_it_is(&self, block: BlockId) -> Result<()> {
        self.seal_here(&SealBlock {
            block,
            generation: 0,
            sync: false,
            epoch: 0,
            or_newer: true,
            order: WriteOrder::default(),
        })
    }

    /// As [`Self::seal`], waiting for the index.
    fn seal_here(&self, call: &SealBlock) -> Result<()> {
        let (record, is_new) = self.seal_open(call, call.sync)?;
        if is_new {
            let (record, news) = self.sealing(call.block, record, call.sync);
            let changes = vec![Change::Put(call.block, record.encode())];
            self.index.submit_and_wait(changes, call.sync)?;
            (self.news)(news);
        }
        Ok(())
    }
}
