//! A page of a directory: its names with the attributes behind them.

use curvine_protocol::codec::decode;
use curvine_protocol::{Attr, DirEntry, Error, ErrorKind, InodeId, Result};
use heed::RoTxn;
use heed::types::Bytes;

use super::records::InodeRecord;
use super::store::{Dbs, broken, u64_at, undecodable};

/// To pass over so many records costs less than to look one up from the root.
const STEPS_MAX: u64 = 16;

/// The entries after a name, at most so many, and whether there are more.
///
/// # Errors
/// `NotADirectory`; `Stale` if there is no such inode.
pub fn list(
    dbs: &Dbs,
    txn: &RoTxn,
    directory: InodeId,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<DirEntry>, bool)> {
    if !dbs.inode_or_stale(txn, directory)?.is_dir() {
        return Err(Error::new(
            ErrorKind::NotADirectory,
            format!("inode {directory} is not a directory"),
        ));
    }
    let mut children = dbs.children(txn, directory, after, limit + 1)?;
    let more = children.len() > limit;
    children.truncate(limit);
    let mut records = Records::new(dbs, txn);
    let mut entries = Vec::with_capacity(children.len());
    for (name, inode) in children {
        let record = records.get(inode)?;
        entries.push(DirEntry {
            name,
            attr: Attr {
                bare: dbs.is_bare(txn, inode)?,
                ..record.attr(inode)
            },
            target: record.target(),
        });
    }
    Ok((entries, more))
}

/// Reads records of inodes. Those of files that were made one after the other lie side by side, and mostly their names do,
/// too: a cursor then goes from one to the next.
struct Records<'txn> {
    dbs: &'txn Dbs,
    txn: &'txn RoTxn<'txn>,
    /// The one that was asked for last.
    last: u64,
    cursor: Option<heed::RoRange<'txn, Bytes, Bytes>>,
    /// Where the cursor is: an inode and its record.
    here: Option<(u64, &'txn [u8])>,
}

impl<'txn> Records<'txn> {
    fn new(dbs: &'txn Dbs, txn: &'txn RoTxn<'txn>) -> Self {
        Records {
            dbs,
            txn,
            last: u64::MAX,
            cursor: None,
            here: None,
        }
    }

    fn get(&mut self, inode: InodeId) -> Result<InodeRecord> {
        if self.cursor.is_none() && is_soon_after(self.last, inode.0) {
            let key = inode.0.to_be_bytes();
            let onwards = (std::ops::Bound::Included(&key[..]), std::ops::Bound::Unbounded);
            self.cursor = Some(self.dbs.inodes.range(self.txn, &onwards).map_err(broken)?);
            self.step()?;
        }
        self.last = inode.0;
        while let Some((here, bytes)) = self.here {
            if here == inode.0 {
                let record = decode(bytes).map_err(undecodable);
                self.step()?;
                return record;
            }
            if !is_soon_after(here, inode.0) {
                break;
            }
            self.step()?;
        }
        (self.cursor, self.here) = (None, None);
        self.dbs.inode_or_stale(self.txn, inode)
    }

    fn step(&mut self) -> Result<()> {
        self.here = match self.cursor.as_mut().and_then(Iterator::next) {
            None => None,
            Some(entry) => {
                let (key, bytes) = entry.map_err(broken)?;
                Some((u64_at(key, 0), bytes))
            }
        };
        Ok(())
    }
}

fn is_soon_after(inode: u64, other: u64) -> bool {
    inode < other && other - inode <= STEPS_MAX
}
