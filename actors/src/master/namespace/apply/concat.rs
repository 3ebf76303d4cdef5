//! Files that become one: their blocks go from one inode to another, and nothing is copied.
//!
//! A file's blocks begin at multiples of its block size, so they stay where they are in the whole only if whatever is
//! before them ends at such a multiple. From where that is not so, the caller has copied the rest into another file, the
//! tail, whose blocks are taken instead.

use std::collections::BTreeSet;

use curvine_protocol::master::{CONCAT_SOURCES_MAX, Concat, Entry};
use curvine_protocol::{BlockRef, Error, ErrorKind, FILE_BYTES_MAX, InodeId, Node, Result};

use super::{Applies, Apply};
use crate::master::namespace::leases::not_fenced;
use crate::master::namespace::records::{FileBody, InodeBody, InodeRecord};
use crate::master::namespace::store::BlockRun;

/// A file that takes part.
struct Part {
    node: Node,
    directory: InodeId,
    name: String,
    inode: InodeId,
    record: InodeRecord,
    file: FileBody,
}

/// Where the bytes of a file are in the whole: from `start` on, those before `until`. The others are another file's.
struct Place {
    start: u64,
    until: u64,
}

impl Applies<Concat> for Apply<'_, '_> {
    fn apply(&mut self, call: Concat) -> Result<Entry> {
        if call.sources.is_empty() || call.sources.len() > CONCAT_SOURCES_MAX {
            return Err(Error::invalid(format!(
                "{}: {} files to append; name 1 to {CONCAT_SOURCES_MAX} at once",
                call.node,
                call.sources.len()
            )));
        }
        let target = self.part(call.node)?;
        let sources = call.sources.into_iter().map(|source| self.part(source));
        let mut parts = vec![target];
        let mut known = BTreeSet::from([parts[0].inode]);
        for source in sources.collect::<Result<Vec<_>>>()? {
            check_source(&parts[0], &source, &mut known)?;
            parts.push(source);
        }
        let versions: Vec<u64> = parts.iter().map(|part| part.file.content_version).collect();
        let until = match &call.tail {
            Some(tail) if tail.versions != versions => {
                let message = format!(
                    "{}: one of the files was changed meanwhile; try again",
                    parts[0].node
                );
                return Err(Error::new(ErrorKind::Stale, message));
            }
            Some(tail) => tail.offset_bytes,
            None => u64::MAX,
        };
        // So many of so many bytes at most are far from what 64 bits can say.
        let size_bytes = parts.iter().map(|part| part.file.size_bytes).sum();
        if size_bytes > FILE_BYTES_MAX {
            return Err(Error::too_large());
        }
        let mut places: Vec<Place> = starts(&parts, size_bytes, until)?
            .into_iter()
            .map(|start| Place { start, until })
            .collect();
        if let Some(tail) = call.tail {
            let tail = self.part(tail.node)?;
            check_source(&parts[0], &tail, &mut known)?;
            let (block_bytes, has) = (parts[0].file.block_bytes, tail.file.size_bytes);
            if !until.is_multiple_of(block_bytes)
                || until.checked_add(has) != Some(size_bytes)
                || !has_blocks_like(&tail.file, &parts[0].file)
            {
                return Err(Error::invalid(format!(
                    "{}: its {has} bytes are not what the {size_bytes} bytes in blocks of {block_bytes} have from {until} on",
                    tail.node
                )));
            }
            places.push(Place {
                start: until,
                until: u64::MAX,
            });
            parts.push(tail);
        }
        self.join(parts, &places, size_bytes)
    }
}

impl Apply<'_, '_> {
    fn part(&self, node: Node) -> Result<Part> {
        let place = self.place(&node, false)?;
        let Some((directory, name)) = place.entry.clone() else {
            return Err(Error::invalid(format!(
                "{node}: only an entry of a directory can be concatenated"
            )));
        };
        let (inode, record) = place.existing(&node)?;
        let file = match &record.body {
            InodeBody::File(file) => file.clone(),
            InodeBody::Directory => {
                let message = format!("{node}: is a directory");
                return Err(Error::new(ErrorKind::IsADirectory, message));
            }
            _ => return Err(Error::invalid(format!("{node}: is not a file"))),
        };
        if record.mount.0 != 0 {
            let message =
                format!("{node}: is in a mount, and objects cannot be joined; write a new file instead");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if file.lease.is_some() {
            let message = format!("{node}: is being written; close it first");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if file.unfenced {
            return Err(not_fenced(&node));
        }
        Ok(Part {
            node,
            directory,
            name,
            inode,
            record,
            file,
        })
    }

    /// Gives the first file the blocks of all, each at its place, and removes the others.
    fn join(&mut self, mut parts: Vec<Part>, places: &[Place], size_bytes: u64) -> Result<Entry> {
        let newest = parts.iter().map(|part| part.file.content_version).max();
        // No writer of any of the files has used a generation above it.
        let content_version = newest.unwrap_or(0) + 1;
        let block_bytes = parts[0].file.block_bytes.max(1);
        let (mut blocks, mut holes) = (Vec::new(), Vec::new());
        for (part, place) in parts.iter().zip(places) {
            let shift = u32::try_from(place.start / block_bytes).map_err(|_| Error::too_large())?;
            let theirs = part.file.placed_blocks();
            // Behind its end, a writer that vanished may have left blocks without a byte.
            let kept = theirs.partition_point(|(index, _)| {
                let offset_bytes = u64::from(*index) * block_bytes;
                offset_bytes < part.file.size_bytes && place.start + offset_bytes < place.until
            });
            let (kept, gone) = theirs.split_at(kept);
            self.release_blocks(part.inode, gone)?;
            for (index, block) in kept {
                blocks.push((shift + index, *block));
                holes.push((shift + index, part.file.holes_of(*index)));
            }
            if part.inode != parts[0].inode {
                self.hand_over(part.inode, kept, parts[0].inode, shift)?;
            }
        }
        for mut part in parts.drain(1..) {
            part.file.set_blocks(Vec::new());
            part.record.body = InodeBody::File(part.file);
            self.dbs.delete_dentry(self.txn, part.directory, &part.name)?;
            self.free_inode(part.inode, &part.record)?;
        }
        let target = parts.remove(0);
        let mut record = target.record;
        let mut file = target.file;
        file.size_bytes = size_bytes;
        file.content_version = content_version;
        file.set_blocks(blocks);
        for (index, hole_bytes) in holes {
            file.set_holes(index, hole_bytes);
        }
        record.body = InodeBody::File(file);
        record.set_mtime(self.now_ns);
        record.ctime_ns = self.now_ns;
        record.clear_suid_sgid();
        self.dbs.put_inode(self.txn, target.inode, &record)?;
        self.pins_may_change(target.inode)?;
        let above = self.dbs.inode_or_stale(self.txn, target.directory)?;
        self.touch_directory(target.directory, above)?;
        Ok(self.entry(target.inode, &record))
    }

    /// Blocks of one file are those of another from now on, so many places behind where they were.
    fn hand_over(
        &mut self,
        from: InodeId,
        blocks: &[(u32, BlockRef)],
        to: InodeId,
        shift: u32,
    ) -> Result<()> {
        self.forget_runs(from, blocks)?;
        let follows = |(one, first): &(u32, BlockRef), (next, second): &(u32, BlockRef)| {
            next - one == 1 && first.id.0 + 1 == second.id.0
        };
        for run in blocks.chunk_by(follows) {
            let (index, first) = run[0];
            let moved = BlockRun {
                inode: to,
                first_index: index + shift,
                count: u32::try_from(run.len()).map_err(|_| Error::too_large())?,
            };
            self.dbs.put_block_run(self.txn, first.id, moved)?;
        }
        Ok(())
    }
}

fn check_source(target: &Part, source: &Part, known: &mut BTreeSet<InodeId>) -> Result<()> {
    if !known.insert(source.inode) {
        return Err(Error::invalid(format!(
            "{}: a file cannot be appended to itself, nor twice",
            source.node
        )));
    }
    if source.directory != target.directory {
        return Err(Error::invalid(format!(
            "{} is not in the directory of {}; move it there first",
            source.node, target.node
        )));
    }
    if source.record.nlink > 1 {
        let message = format!("{}: has hard links, which would lose its bytes", source.node);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Where each file begins in the whole.
///
/// # Errors
/// `CrossMount`, naming the file from which on blocks do not fit before `until`.
fn starts(parts: &[Part], size_bytes: u64, until: u64) -> Result<Vec<u64>> {
    let target = &parts[0];
    let block_bytes = target.file.block_bytes.max(1);
    let mut starts = Vec::with_capacity(parts.len());
    let mut start = 0;
    for part in parts {
        let end = start + part.file.size_bytes;
        starts.push(start);
        let is_taken = start < until && part.file.size_bytes > 0;
        if is_taken && !has_blocks_like(&part.file, &target.file) {
            return Err(misfit(
                part,
                "has blocks of another size, or another number of replicas",
            ));
        }
        let whole = end / block_bytes * block_bytes;
        if is_taken && end < size_bytes && whole < end && until > whole {
            return Err(misfit(part, "ends within a block"));
        }
        start = end;
    }
    Ok(starts)
}

fn misfit(part: &Part, why: &str) -> Error {
    let message = format!(
        "{}: {why}, so what comes behind it cannot be appended without being copied",
        part.node
    );
    Error::new(ErrorKind::CrossMount, message)
}

/// Whether a file's blocks may be another's: of the same length, unless it is no longer than one of either.
fn has_blocks_like(file: &FileBody, target: &FileBody) -> bool {
    let is_one = file.size_bytes <= file.block_bytes.min(target.block_bytes);
    file.replicas == target.replicas && (file.block_bytes == target.block_bytes || is_one)
}
