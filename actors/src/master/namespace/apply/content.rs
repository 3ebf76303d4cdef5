//! The content of files: writing, leases, blocks, sizes.

use std::collections::BTreeMap;
use std::ops::Range;

use curvine_protocol::master::{
    AllocateBlocks, BlockCommit, CommitFile, Entry, OpenForWrite, PunchHole, ReleaseLease,
};
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::op::KeptBlock;
use curvine_protocol::worker::Done;
use curvine_protocol::{
    Attr, BlockId, BlockRef, ClientId, Error, ErrorKind, FILE_BYTES_MAX, FileLayout, InodeId, Node, Result,
    UfsVersion,
};

use super::entries::DEFAULT_BLOCK_BYTES;
use super::{Applies, Apply};
use crate::master::namespace::leases::not_fenced;
use crate::master::namespace::records::{BlockList, FileBody, InodeBody, InodeRecord};
use crate::master::namespace::store::{BlockRun, Counter, broken, pair_key};
use crate::master::namespace::view::{layout, layout_with, source_of};
use crate::planted::{Bug, is_planted};

/// Blocks added by one command at most.
const BLOCKS_PER_COMMAND_MAX: u32 = 4_096;

impl Applies<OpenForWrite> for Apply<'_, '_> {
    fn apply(&mut self, call: OpenForWrite) -> Result<FileLayout> {
        let (inode, record) = self.existing(&call.node, call.follow)?;
        if call.named && record.nlink == 0 {
            return Err(Error::nameless(inode));
        }
        self.open_writing(inode, record, call.truncate, &call.node)
    }
}

impl Apply<'_, '_> {
    /// Gives the calling client the lease.
    pub(super) fn open_writing(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        truncate: bool,
        node: &Node,
    ) -> Result<FileLayout> {
        let now_ns = self.now_ns;
        let client = self.client;
        let in_mount = record.mount.0 != 0;
        let file = file_of(&mut record, node)?;
        self.check_lease(file, node)?;
        file.lease = Some(client);
        file.make_room_behind(DEFAULT_BLOCK_BYTES);
        if truncate && file.size_bytes > 0 {
            file.leaves_object(in_mount);
            self.cut(file, inode, 0)?;
            file.needs_export = in_mount;
            // As Linux does: whoever may set them keeps them.
            if self.uid != 0 {
                record.clear_suid_sgid();
            }
            record.set_mtime(now_ns);
            record.ctime_ns = now_ns;
        }
        self.put_lease(inode)?;
        self.dbs.put_inode(self.txn, inode, &record)?;
        layout(&self.dbs, self.txn, inode, &record)
    }

    pub(super) fn check_lease(&self, file: &FileBody, node: &Node) -> Result<()> {
        match file.lease {
            Some(holder) if holder != self.client => Err(Error::new(
                ErrorKind::LeaseConflict,
                format!(
                    "{node}: another client ({holder:?}) has it open for writing; try again when it is closed"
                ),
            )),
            None if file.unfenced && !is_planted(Bug::LeaseGivenUnfenced) => Err(not_fenced(node)),
            _ => Ok(()),
        }
    }

    pub(super) fn put_lease(&mut self, inode: InodeId) -> Result<()> {
        self.dbs
            .leases
            .put(self.txn, &pair_key(self.client.0, inode.0), &[])
            .map_err(broken)
    }

    fn drop_lease(&mut self, client: ClientId, inode: InodeId) -> Result<()> {
        self.effects.unleased.push(inode);
        self.dbs
            .leases
            .delete(self.txn, &pair_key(client.0, inode.0))
            .map_err(broken)?;
        Ok(())
    }

    /// The end of a lease without its holder's word. Workers may hold bytes that it wrote and did not commit, under the
    /// generation that follows this version, and more may be on their way: the next writer must get another one.
    pub(super) fn revoke(&mut self, inode: InodeId, file: &mut FileBody) -> Result<()> {
        file.lease = None;
        file.content_version += 1;
        file.unfenced = file.block_count() > 0;
        self.effects.unleased.push(inode);
        match file.unfenced {
            true => self.dbs.note_unfenced(self.txn, inode),
            false => Ok(()),
        }
    }

    pub(super) fn break_lease(
        &mut self,
        inode: InodeId,
        holder: ClientId,
        content_version: u64,
    ) -> Result<Done> {
        if let Some(mut record) = self.dbs.inode(self.txn, inode)?
            && let InodeBody::File(file) = &mut record.body
            && file.lease == Some(holder)
            && file.content_version == content_version
        {
            self.revoke(inode, file)?;
            self.dbs.put_inode(self.txn, inode, &record)?;
            self.drop_lease(holder, inode)?;
        }
        self.done()
    }

    pub(super) fn recover_lease(&mut self, inode: InodeId, content_version: u64) -> Result<Done> {
        let mut record = self.dbs.inode_or_stale(self.txn, inode)?;
        match &mut record.body {
            InodeBody::File(file)
                if file.unfenced && file.lease.is_none() && file.content_version == content_version =>
            {
                file.content_version += 1;
                self.dbs.put_inode(self.txn, inode, &record)?;
                self.done()
            }
            _ => Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "inode {inode} is not waiting at version {content_version} for its replicas to agree"
                ),
            )),
        }
    }

    /// The replicas of a file that nobody writes are to be compared.
    pub(super) fn doubt_replicas(&mut self, inode: InodeId) -> Result<Done> {
        if let Some(mut record) = self.dbs.inode(self.txn, inode)?
            && let InodeBody::File(file) = &mut record.body
            && file.lease.is_none()
            && file.replicas > 1
            && !file.unfenced
        {
            file.unfenced = true;
            self.dbs.note_unfenced(self.txn, inode)?;
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        self.done()
    }

    pub(super) fn lease_fenced(
        &mut self,
        inode: InodeId,
        content_version: u64,
        kept: Vec<KeptBlock>,
        dropped: &[BlockId],
    ) -> Result<Done> {
        if let Some(mut record) = self.dbs.inode(self.txn, inode)?
            && let InodeBody::File(file) = &mut record.body
            && file.unfenced
        {
            if file.content_version != content_version {
                return self.done();
            }
            file.unfenced = false;
            self.effects.unleased.push(inode);
            self.keep_replicas(file, kept);
            self.fetch_anew(inode, file, dropped)?;
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        self.dbs.forget_unfenced(self.txn, inode)?;
        self.done()
    }

    /// Replicas of these blocks have become of this version's generation. Those that have not are older, and readers who
    /// know them are to hear of it.
    fn keep_replicas(&mut self, file: &mut FileBody, kept: Vec<KeptBlock>) {
        let generation = u32::try_from(file.content_version).unwrap_or(u32::MAX);
        let mut blocks = file.placed_blocks();
        let mut is_changed = false;
        for KeptBlock { block, workers } in kept {
            let Some((index, known)) = blocks.iter_mut().find(|(_, known)| known.id == block) else {
                continue;
            };
            known.generation = generation;
            is_changed = true;
            self.effects.committed.push(BlockCommit {
                index: *index,
                id: block,
                len_bytes: known.len_bytes,
                generation,
                workers,
                hole_bytes: file.holes_of(*index),
            });
        }
        if is_changed {
            file.set_blocks(blocks);
            file.content_version += 1;
        }
    }

    /// What workers have of these blocks, also those that come back later, is not what the object has. Others take their
    /// places, which nobody has fetched yet.
    fn fetch_anew(&mut self, inode: InodeId, file: &mut FileBody, dropped: &[BlockId]) -> Result<()> {
        let mut blocks = file.placed_blocks();
        let mut is_changed = false;
        for (index, block) in blocks.iter_mut().filter(|(_, block)| dropped.contains(&block.id)) {
            self.release_blocks(inode, &[(*index, *block)])?;
            block.id = BlockId(self.dbs.take(self.txn, Counter::Block, 1)?);
            let run = BlockRun {
                inode,
                first_index: *index,
                count: 1,
            };
            self.dbs.put_block_run(self.txn, block.id, run)?;
            is_changed = true;
        }
        if is_changed {
            file.set_blocks(blocks);
            file.content_version += 1;
        }
        Ok(())
    }

    /// The file, if the calling client may write it now.
    fn leased(&mut self, inode: InodeId) -> Result<InodeRecord> {
        let record = self.dbs.inode_or_stale(self.txn, inode)?;
        match &record.body {
            InodeBody::File(file) if file.lease == Some(self.client) => Ok(record),
            InodeBody::File(_) => Err(Error::new(
                ErrorKind::Stale,
                format!("inode {inode}: this client's lease has ended; open the file again"),
            )),
            _ => Err(Error::invalid(format!("inode {inode} is not a file"))),
        }
    }
}

impl Applies<ReleaseLease> for Apply<'_, '_> {
    fn apply(&mut self, call: ReleaseLease) -> Result<Done> {
        if let Some(mut record) = self.dbs.inode(self.txn, call.inode)?
            && let InodeBody::File(file) = &mut record.body
            && file.lease == Some(self.client)
        {
            file.lease = None;
            self.dbs.put_inode(self.txn, call.inode, &record)?;
            self.drop_lease(self.client, call.inode)?;
        }
        self.done()
    }
}

impl Applies<AllocateBlocks> for Apply<'_, '_> {
    fn apply(&mut self, call: AllocateBlocks) -> Result<FileLayout> {
        let record = self.leased(call.inode)?;
        let InodeBody::File(file) = &record.body else {
            unreachable!("leased returns files")
        };
        if call.from_index < call.until_index {
            let least_bytes = u64::from(call.from_index).saturating_mul(file.block_bytes) + 1;
            self.check_growth(&record, least_bytes)?;
        }
        // Without any block it asks whether its caller has the lease, and changes nothing.
        let wanted = call.from_index.min(call.until_index)..call.until_index;
        if u64::from(wanted.end).saturating_mul(file.block_bytes) > FILE_BYTES_MAX + file.block_bytes {
            return Err(Error::too_large());
        }
        if to_u32(wanted.len()) > BLOCKS_PER_COMMAND_MAX {
            return Err(Error::invalid(format!(
                "inode {}: {} blocks at once; at most {BLOCKS_PER_COMMAND_MAX} are allowed",
                call.inode,
                wanted.len()
            )));
        }
        self.add_blocks(call.inode, record, wanted)
    }
}

impl Apply<'_, '_> {
    /// Fills holes with blocks of no length yet. Answers with the blocks at these indexes.
    pub(super) fn add_blocks(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        indexes: Range<u32>,
    ) -> Result<FileLayout> {
        let InodeBody::File(file) = &mut record.body else {
            unreachable!("only files get blocks")
        };
        let mut blocks: BTreeMap<u32, BlockRef> = file.placed_blocks().into_iter().collect();
        let mut at = indexes.start;
        let mut is_changed = false;
        while at < indexes.end {
            if blocks.contains_key(&at) {
                at += 1;
                continue;
            }
            let end = blocks
                .range(at..indexes.end)
                .next()
                .map_or(indexes.end, |(next, _)| *next);
            let count = end - at;
            let first = BlockId(self.dbs.take(self.txn, Counter::Block, count.into())?);
            let run = BlockRun {
                inode,
                first_index: at,
                count,
            };
            self.dbs.put_block_run(self.txn, first, run)?;
            blocks.extend((at..end).zip(first.0..).map(|(index, id)| {
                let block = BlockRef {
                    id: BlockId(id),
                    len_bytes: 0,
                    generation: 0,
                };
                (index, block)
            }));
            at = end;
            is_changed = true;
        }
        let asked: Vec<_> = blocks
            .range(indexes.clone())
            .map(|(index, block)| (*index, *block))
            .collect();
        if is_changed {
            file.set_blocks(blocks.into_iter().collect());
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        let attr = Attr {
            bare: self.dbs.is_bare(self.txn, inode)?,
            ..record.attr(inode)
        };
        Ok(FileLayout {
            source: source_of(&self.dbs, self.txn, inode, &record)?,
            tier: self.dbs.tier_of(self.txn, inode)?.map(|(_, tier)| tier),
            ..layout_with(attr, &asked, indexes.start)
        })
    }
}

impl Applies<CommitFile> for Apply<'_, '_> {
    fn apply(&mut self, call: CommitFile) -> Result<Entry> {
        let now_ns = self.now_ns;
        let mut record = self.leased(call.inode)?;
        let in_mount = record.mount.0 != 0;
        if !call.keep_size {
            self.check_growth(&record, call.size_bytes)?;
        }
        let InodeBody::File(file) = &mut record.body else {
            unreachable!("leased returns files")
        };
        let size_bytes = match call.keep_size {
            true => file.size_bytes,
            false => call.size_bytes,
        };
        if size_bytes > FILE_BYTES_MAX {
            return Err(Error::too_large());
        }
        let mut blocks = file.placed_blocks();
        for commit in &call.blocks {
            let found = blocks.binary_search_by_key(&commit.index, |(index, _)| *index);
            match found.ok().map(|at| &mut blocks[at].1) {
                Some(block) if block.id == commit.id && block.generation <= commit.generation => {
                    block.len_bytes = commit.len_bytes.min(file.block_bytes);
                    block.generation = commit.generation;
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::Stale,
                        format!(
                            "block {} of generation {} is not block {} of inode {} any more",
                            commit.id, commit.generation, commit.index, call.inode
                        ),
                    ));
                }
            }
        }
        let changed = !call.blocks.is_empty() || size_bytes != file.size_bytes;
        if changed {
            file.leaves_object(in_mount);
            file.set_blocks(blocks);
            for commit in &call.blocks {
                file.keeps_from(commit.generation);
                file.set_holes(commit.index, commit.hole_bytes.min(commit.len_bytes));
            }
            file.content_version += 1;
        } else if call.abandoned || call.new_generation {
            // Workers may hold bytes of the generation that follows this version: whoever writes next must get another one.
            file.content_version += 1;
        }
        if call.abandoned && file.block_count() > 0 {
            // And some may be on their way; of several workers, not all have the same; in a mount, the object has others.
            file.unfenced = true;
            self.dbs.note_unfenced(self.txn, call.inode)?;
        }
        let kept = size_bytes.div_ceil(file.block_bytes.max(1));
        // Blocks behind the end are being written where that is all that is asked for.
        if !call.new_generation {
            self.cut(file, call.inode, size_bytes)?;
        }
        let committed = call
            .blocks
            .into_iter()
            .filter(|commit| u64::from(commit.index) < kept);
        self.effects.committed.extend(committed);
        if call.close {
            file.lease = None;
            self.drop_lease(self.client, call.inode)?;
        }
        if changed {
            // When it was written, not when it is told: what the writer sees of its open file stays true.
            let written_ns = call.mtime_ns.unwrap_or(now_ns);
            record.ctime_ns = record.ctime_ns.max(written_ns);
            record.set_mtime(written_ns);
            if !call.keep_privileges {
                record.clear_suid_sgid();
            }
        } else if let Some(mtime_ns) = call.mtime_ns {
            record.set_mtime(mtime_ns);
            self.note_attributes(call.inode, &record)?;
        }
        self.dbs.put_inode(self.txn, call.inode, &record)?;
        Ok(self.entry(call.inode, &record))
    }
}

impl Applies<PunchHole> for Apply<'_, '_> {
    fn apply(&mut self, call: PunchHole) -> Result<FileLayout> {
        let now_ns = self.now_ns;
        let mut record = self.leased(call.inode)?;
        let in_mount = record.mount.0 != 0;
        let InodeBody::File(file) = &mut record.body else {
            unreachable!("leased returns files")
        };
        let end = call
            .offset_bytes
            .saturating_add(call.len_bytes)
            .min(file.size_bytes);
        file.leaves_object(in_mount);
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for (index, mut block) in file.placed_blocks() {
            let start = u64::from(index) * file.block_bytes;
            let is_covered_from = call.offset_bytes.max(start);
            // Bytes that the block has behind the range are not for this.
            if is_covered_from < start + block.len_bytes && end >= start + block.len_bytes {
                block.len_bytes = is_covered_from - start;
            }
            match block.len_bytes {
                0 => gone.push((index, block)),
                _ => kept.push((index, block)),
            }
        }
        file.set_blocks(kept);
        file.content_version += 1;
        record.set_mtime(now_ns);
        record.ctime_ns = now_ns;
        if !call.keep_privileges {
            record.clear_suid_sgid();
        }
        self.release_blocks(call.inode, &gone)?;
        self.dbs.put_inode(self.txn, call.inode, &record)?;
        layout(&self.dbs, self.txn, call.inode, &record)
    }
}

impl Apply<'_, '_> {
    /// Makes a file's size exactly this. Blocks beyond it are released; the last one is cut.
    pub(super) fn cut(&mut self, file: &mut FileBody, inode: InodeId, size_bytes: u64) -> Result<()> {
        if size_bytes > FILE_BYTES_MAX {
            return Err(Error::too_large());
        }
        let keep = size_bytes.div_ceil(file.block_bytes.max(1));
        let mut blocks = file.placed_blocks();
        let kept = blocks.partition_point(|(index, _)| u64::from(*index) < keep);
        let dropped = blocks.split_off(kept);
        if size_bytes == file.size_bytes && dropped.is_empty() {
            return Ok(());
        }
        self.release_blocks(inode, &dropped)?;
        if size_bytes != file.size_bytes {
            file.content_version += 1;
        }
        // Beyond its last block, a file that was extended has a hole.
        if size_bytes < file.size_bytes
            && let Some((index, last)) = blocks.last_mut()
            && u64::from(*index) + 1 == keep
        {
            last.len_bytes = last.len_bytes.min(size_bytes - (keep - 1) * file.block_bytes);
        }
        file.size_bytes = size_bytes;
        file.set_blocks(blocks);
        Ok(())
    }

    /// Forgets some of a file's blocks, given in order.
    pub(super) fn release_blocks(&mut self, inode: InodeId, blocks: &[(u32, BlockRef)]) -> Result<()> {
        self.forget_runs(inode, blocks)?;
        self.effects
            .released
            .extend(blocks.iter().map(|(_, block)| block.id));
        Ok(())
    }

    /// That some blocks, given in order, are this file's: their runs are removed, shortened or cut in two.
    pub(super) fn forget_runs(&mut self, inode: InodeId, blocks: &[(u32, BlockRef)]) -> Result<()> {
        let mut at = 0;
        while let Some((index, block)) = blocks.get(at) {
            let Some((first, run)) = self.dbs.block_run(self.txn, block.id)? else {
                return Err(Error::internal(format!(
                    "block {} of inode {inode} is in no run",
                    block.id
                )));
            };
            debug_assert_eq!(run.index_of(block.id, first), *index);
            let before = *index - run.first_index;
            let gone = (*index..run.first_index + run.count)
                .zip(&blocks[at..])
                .take_while(|(expected, (index, _))| expected == index);
            let gone = to_u32(gone.count());
            match before {
                0 => self.dbs.delete_block_run(self.txn, first)?,
                _ => {
                    let head = BlockRun { count: before, ..run };
                    self.dbs.put_block_run(self.txn, first, head)?;
                }
            }
            let behind = run.count - before - gone;
            if behind > 0 {
                let tail = BlockRun {
                    first_index: index + gone,
                    count: behind,
                    ..run
                };
                self.dbs
                    .put_block_run(self.txn, BlockId(block.id.0 + u64::from(gone)), tail)?;
            }
            at += to_usize(gone.into());
        }
        Ok(())
    }

    /// A new object behind a file: new blocks, nothing cached.
    pub(super) fn set_object(
        &mut self,
        file: &mut FileBody,
        inode: InodeId,
        version: UfsVersion,
    ) -> Result<()> {
        let old = file.placed_blocks();
        self.release_blocks(inode, &old)?;
        file.size_bytes = version.size_bytes;
        file.block_bytes = object_block_bytes(version.size_bytes);
        file.content_version += 1;
        file.holes.clear();
        file.needs_export = false;
        file.ufs = Some(version);
        file.blocks = BlockList::Run(BlockId(0));
        let count = file.object_blocks();
        file.blocks = match count {
            0 => BlockList::Each(Vec::new()),
            _ => {
                let first = BlockId(self.dbs.take(self.txn, Counter::Block, count.into())?);
                self.dbs.put_block_run(
                    self.txn,
                    first,
                    BlockRun {
                        inode,
                        first_index: 0,
                        count,
                    },
                )?;
                BlockList::Run(first)
            }
        };
        Ok(())
    }
}

/// Ordinary objects are one block, so that a reader meets one file on one disk; giants are cut for parallel reading.
fn object_block_bytes(size_bytes: u64) -> u64 {
    const ONE_BLOCK_MAX: u64 = 1 << 30;
    const GIANT_BLOCK: u64 = 256 << 20;
    const ROUND: u64 = 64 << 10;
    match size_bytes {
        // Whoever writes to it begins as with any new file.
        0 => DEFAULT_BLOCK_BYTES,
        1..=ONE_BLOCK_MAX => size_bytes.next_multiple_of(ROUND),
        _ => GIANT_BLOCK,
    }
}

fn file_of<'r>(record: &'r mut InodeRecord, node: &Node) -> Result<&'r mut FileBody> {
    let is_dir = record.is_dir();
    match &mut record.body {
        InodeBody::File(file) => Ok(file),
        _ if is_dir => Err(Error::new(
            ErrorKind::IsADirectory,
            format!("{node}: is a directory"),
        )),
        _ => Err(Error::invalid(format!("{node}: is not a file"))),
    }
}
