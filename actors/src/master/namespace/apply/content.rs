//! The content of files: writing, leases, blocks, sizes.

use curvine_protocol::master::{AllocateBlocks, CommitFile, Entry, OpenForWrite};
use curvine_protocol::{
    BlockId, BlockRef, ClientId, Error, ErrorKind, FileLayout, InodeId, LocatedBlock, Node, Result,
    UfsVersion,
};

use super::{Applies, Apply};
use crate::master::namespace::records::{BlockList, FileBody, InodeBody, InodeRecord};
use crate::master::namespace::store::{BlockRun, Counter, broken, pair_key};
use crate::master::namespace::view::layout;

/// Blocks added by one command at most.
const BLOCKS_PER_COMMAND_MAX: u32 = 4_096;

impl Applies<OpenForWrite> for Apply<'_, '_> {
    fn apply(&mut self, call: OpenForWrite) -> Result<FileLayout> {
        let (inode, record) = self.existing(&call.node, call.follow)?;
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
        let file = file_of(&mut record, node)?;
        self.check_lease(file, node)?;
        if file.ufs.is_some() && !file.needs_export && !truncate && file.size_bytes > 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{node}: an object of an under file system is replaced as a whole; truncate it or write a new file"
                ),
            ));
        }
        file.lease = Some(client);
        if truncate && file.size_bytes > 0 {
            self.cut(file, inode, 0)?;
            record.clear_suid_sgid();
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
        self.dbs
            .leases
            .delete(self.txn, &pair_key(client.0, inode.0))
            .map_err(broken)?;
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

impl Applies<AllocateBlocks> for Apply<'_, '_> {
    fn apply(&mut self, call: AllocateBlocks) -> Result<FileLayout> {
        let record = self.leased(call.inode)?;
        let InodeBody::File(file) = &record.body else {
            unreachable!("leased returns files")
        };
        let missing = call.until_index.saturating_sub(file.block_count());
        if missing > BLOCKS_PER_COMMAND_MAX {
            return Err(Error::new(
                ErrorKind::FileTooLarge,
                format!(
                    "inode {}: {missing} new blocks at once; at most {BLOCKS_PER_COMMAND_MAX} are allowed",
                    call.inode
                ),
            ));
        }
        let mut layout = self.add_blocks(call.inode, record, missing)?;
        layout.blocks = layout
            .blocks
            .split_off((call.from_index as usize).min(layout.blocks.len()));
        Ok(layout)
    }
}

impl Apply<'_, '_> {
    /// Appends blocks of no length yet.
    pub(super) fn add_blocks(
        &mut self,
        inode: InodeId,
        mut record: InodeRecord,
        count: u32,
    ) -> Result<FileLayout> {
        let InodeBody::File(file) = &mut record.body else {
            unreachable!("only files get blocks")
        };
        if count > 0 {
            let mut blocks = file.block_refs();
            let first = BlockId(self.dbs.take(self.txn, Counter::Block, count.into())?);
            let run = BlockRun {
                inode,
                first_index: blocks.len() as u32,
                count,
            };
            blocks.extend((0..u64::from(count)).map(|i| BlockRef {
                id: BlockId(first.0 + i),
                len_bytes: 0,
                generation: 0,
            }));
            file.blocks = BlockList::Each(blocks);
            self.dbs.put_block_run(self.txn, first, run)?;
            self.dbs.put_inode(self.txn, inode, &record)?;
        }
        let InodeBody::File(file) = &record.body else {
            unreachable!("only files get blocks")
        };
        let blocks = file.block_refs().into_iter();
        let blocks = blocks
            .map(|block| LocatedBlock {
                block,
                workers: Vec::new(),
            })
            .collect();
        Ok(FileLayout {
            attr: record.attr(inode),
            blocks,
            workers: Vec::new(),
            source: None,
        })
    }
}

impl Applies<CommitFile> for Apply<'_, '_> {
    fn apply(&mut self, call: CommitFile) -> Result<Entry> {
        let now_ns = self.now_ns;
        let mut record = self.leased(call.inode)?;
        let in_mount = record.mount.0 != 0;
        let InodeBody::File(file) = &mut record.body else {
            unreachable!("leased returns files")
        };
        // Whoever commits was told of its lease, and that is done when everybody before is fenced off.
        file.unfenced = false;
        let mut blocks = file.block_refs();
        for commit in &call.blocks {
            match blocks.get_mut(commit.index as usize) {
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
        let changed = !call.blocks.is_empty() || call.size_bytes != file.size_bytes;
        if changed {
            file.blocks = BlockList::Each(blocks);
            file.content_version += 1;
            file.needs_export = in_mount;
        } else if call.abandoned {
            // Workers may hold bytes of the generation that follows this version: the next writer must get another one.
            file.content_version += 1;
        }
        let kept = call.size_bytes.div_ceil(file.block_bytes.max(1));
        self.cut(file, call.inode, call.size_bytes)?;
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
            record.clear_suid_sgid();
        } else if let Some(mtime_ns) = call.mtime_ns {
            record.set_mtime(mtime_ns);
        }
        self.dbs.put_inode(self.txn, call.inode, &record)?;
        Ok(self.entry(call.inode, &record))
    }
}

impl Apply<'_, '_> {
    /// Makes a file's size exactly this. Blocks beyond it are released; the last one is cut.
    pub(super) fn cut(&mut self, file: &mut FileBody, inode: InodeId, size_bytes: u64) -> Result<()> {
        let keep = size_bytes.div_ceil(file.block_bytes.max(1));
        let mut blocks = file.block_refs();
        let shorter = size_bytes < file.size_bytes;
        if size_bytes != file.size_bytes {
            file.content_version += 1;
            file.size_bytes = size_bytes;
            file.blocks = BlockList::Each(blocks.clone());
        }
        if (blocks.len() as u64) > keep {
            let dropped = blocks.split_off(keep as usize);
            self.release_blocks(inode, keep as u32, &dropped)?;
            file.blocks = BlockList::Each(blocks.clone());
        }
        // Beyond its last block, a file that was extended has a hole.
        if shorter
            && blocks.len() as u64 == keep
            && let Some(last) = blocks.last_mut()
        {
            last.len_bytes = last.len_bytes.min(size_bytes - (keep - 1) * file.block_bytes);
            file.blocks = BlockList::Each(blocks);
        }
        Ok(())
    }

    /// Forgets blocks from an index to the file's end: their runs are shortened or removed.
    pub(super) fn release_blocks(
        &mut self,
        inode: InodeId,
        from_index: u32,
        blocks: &[BlockRef],
    ) -> Result<()> {
        let mut at = 0;
        while let Some(block) = blocks.get(at) {
            let Some((first, run)) = self.dbs.block_run(self.txn, block.id)? else {
                return Err(Error::internal(format!(
                    "block {} of inode {inode} is in no run",
                    block.id
                )));
            };
            let keep = (block.id.0 - first.0) as u32;
            debug_assert_eq!(run.first_index + keep, from_index + at as u32);
            match keep {
                0 => self.dbs.delete_block_run(self.txn, first)?,
                _ => self
                    .dbs
                    .put_block_run(self.txn, first, BlockRun { count: keep, ..run })?,
            }
            at += (run.count - keep) as usize;
        }
        self.effects.released.extend(blocks.iter().map(|block| block.id));
        Ok(())
    }

    /// A new object behind a file: new blocks, nothing cached.
    pub(super) fn set_object(
        &mut self,
        file: &mut FileBody,
        inode: InodeId,
        version: UfsVersion,
    ) -> Result<()> {
        let old = file.block_refs();
        self.release_blocks(inode, 0, &old)?;
        file.size_bytes = version.size_bytes;
        file.block_bytes = object_block_bytes(version.size_bytes);
        file.content_version += 1;
        file.needs_export = false;
        file.ufs = Some(version);
        file.blocks = BlockList::Run(BlockId(0));
        let count = file.block_count();
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
        0 => ROUND,
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
