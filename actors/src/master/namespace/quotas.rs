//! Quotas of directories: what each may hold, and what it holds.
//!
//! Both are one record in `meta` for each directory that has a quota. Whatever stores or deletes the record of an inode
//! charges the quotas above it with the difference to the record that was there, so that the sums are exact. Only
//! inodes with a name and in no mount count.

use curvine_protocol::master::{Quota, QuotaLimits, QuotaUsage};
use curvine_protocol::{Error, ErrorKind, InodeId, Node, Result};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::records::{InodeBody, InodeRecord};
use super::resolve::{path_of, resolve};
use super::store::{Dbs, Store, broken, get, put};

const QUOTA: &[u8] = b"quota ";
/// Inodes that one command counts.
pub const COUNTED_MAX: usize = 20_000;
/// Quotas that one call lists.
const LISTED_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    pub limits: QuotaLimits,
    pub used: QuotaUsage,
}

fn key(directory: InodeId) -> Vec<u8> {
    [QUOTA, &directory.0.to_be_bytes()].concat()
}

/// What an inode counts for.
pub fn usage_of(record: &InodeRecord) -> QuotaUsage {
    if record.mount.0 != 0 || record.nlink == 0 {
        return QuotaUsage::default();
    }
    let bytes = match &record.body {
        InodeBody::File(file) => file.size_bytes,
        _ => 0,
    };
    QuotaUsage { bytes, inodes: 1 }
}

impl Dbs {
    pub fn quota(&self, txn: &RoTxn, directory: InodeId) -> Result<Option<QuotaRecord>> {
        get(&self.meta, txn, &key(directory))
    }

    pub fn put_quota(&self, txn: &mut RwTxn, directory: InodeId, record: &QuotaRecord) -> Result<()> {
        put(&self.meta, txn, &key(directory), record)
    }

    pub fn delete_quota(&self, txn: &mut RwTxn, directory: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(directory)).map_err(broken)?;
        Ok(())
    }

    fn has_quotas(&self, txn: &RoTxn) -> Result<bool> {
        Ok(!self.noted_inodes(txn, QUOTA, 1)?.is_empty())
    }

    /// The directories with a quota, from this one upward.
    pub fn quotas_above(&self, txn: &RoTxn, directory: InodeId) -> Result<Vec<InodeId>> {
        let mut found = Vec::new();
        if !self.has_quotas(txn)? {
            return Ok(found);
        }
        let mut at = directory;
        while let Some(record) = self.inode(txn, at)? {
            if self.quota(txn, at)?.is_some() {
                found.push(at);
            }
            if at == InodeId::ROOT {
                break;
            }
            at = record.parent;
        }
        Ok(found)
    }

    pub fn add_usage(&self, txn: &mut RwTxn, quotas: &[InodeId], more: QuotaUsage) -> Result<()> {
        for directory in quotas {
            if let Some(mut quota) = self.quota(txn, *directory)? {
                quota.used.bytes = quota.used.bytes.saturating_add(more.bytes);
                quota.used.inodes = quota.used.inodes.saturating_add(more.inodes);
                self.put_quota(txn, *directory, &quota)?;
            }
        }
        Ok(())
    }

    pub fn take_usage(&self, txn: &mut RwTxn, quotas: &[InodeId], less: QuotaUsage) -> Result<()> {
        for directory in quotas {
            if let Some(mut quota) = self.quota(txn, *directory)? {
                quota.used.bytes = quota.used.bytes.saturating_sub(less.bytes);
                quota.used.inodes = quota.used.inodes.saturating_sub(less.inodes);
                self.put_quota(txn, *directory, &quota)?;
            }
        }
        Ok(())
    }

    /// An inode is about to get this record, or to go.
    pub fn charge(&self, txn: &mut RwTxn, inode: InodeId, new: Option<&InodeRecord>) -> Result<()> {
        if !self.has_quotas(txn)? {
            return Ok(());
        }
        let counted = |record: &InodeRecord| (record.parent, usage_of(record));
        let old = self.inode(txn, inode)?.as_ref().map(counted);
        let new = new.map(counted);
        if old == new {
            return Ok(());
        }
        if let Some((parent, less)) = old {
            let above = self.quotas_above(txn, parent)?;
            self.take_usage(txn, &above, less)?;
        }
        if let Some((parent, more)) = new {
            let above = self.quotas_above(txn, parent)?;
            self.add_usage(txn, &above, more)?;
        }
        Ok(())
    }

    /// A directory goes. What is left of trees that were cut off in it counts for nobody any more.
    pub fn forget_quota(&self, txn: &mut RwTxn, directory: InodeId) -> Result<()> {
        let Some(quota) = self.quota(txn, directory)? else {
            return Ok(());
        };
        let above = self.quotas_above(txn, directory)?;
        self.take_usage(txn, &above, quota.used)?;
        self.delete_quota(txn, directory)
    }

    /// # Errors
    /// `QuotaExceeded`, naming the directory, if one of these cannot take so much more.
    pub fn check_quotas(&self, txn: &RoTxn, quotas: &[InodeId], more: QuotaUsage) -> Result<()> {
        for directory in quotas {
            let Some(QuotaRecord { limits, used }) = self.quota(txn, *directory)? else {
                continue;
            };
            let passes = |limit: Option<u64>, used: u64, more: u64| {
                limit.filter(|limit| more > 0 && used.saturating_add(more) > *limit)
            };
            let passed = match passes(limits.bytes, used.bytes, more.bytes) {
                Some(limit) => Some(format!("{} of {limit} bytes", used.bytes)),
                None => passes(limits.inodes, used.inodes, more.inodes)
                    .map(|limit| format!("{} of {limit} inodes", used.inodes)),
            };
            if let Some(passed) = passed {
                let path = path_of(self, txn, *directory)?;
                return Err(Error::new(
                    ErrorKind::QuotaExceeded,
                    format!("{path}: its quota is used up ({passed}); see `cv quota get {path}`"),
                ));
            }
        }
        Ok(())
    }

    /// Counts what is below a directory.
    ///
    /// # Errors
    /// Of this kind, if that is too much for one command or has hard links, which may lead out of it.
    pub fn tree_usage(&self, txn: &RoTxn, top: InodeId, otherwise: ErrorKind) -> Result<QuotaUsage> {
        let mut usage = QuotaUsage::default();
        let (mut directories, mut seen) = (vec![top], 0);
        while let Some(directory) = directories.pop() {
            for (name, child) in self.children(txn, directory, None, COUNTED_MAX + 1 - seen)? {
                seen += 1;
                if seen > COUNTED_MAX {
                    let message = format!("more than {COUNTED_MAX} inodes are too many to count for a quota");
                    return Err(Error::new(otherwise, message));
                }
                let record = self.inode_or_stale(txn, child)?;
                if record.mount.0 != 0 {
                    continue;
                }
                if record.is_dir() {
                    directories.push(child);
                } else if record.nlink > 1 || record.parent != directory {
                    let message =
                        format!("`{name}` has or had hard links, which quotas do not count; copy it");
                    return Err(Error::new(otherwise, message));
                }
                let one = usage_of(&record);
                usage.bytes += one.bytes;
                usage.inodes += one.inodes;
            }
        }
        Ok(usage)
    }
}

impl Store {
    /// The quota of a directory, or all.
    pub fn quotas(&self, node: Option<&Node>) -> Result<Vec<Quota>> {
        let txn = self.read()?;
        let directories = match node {
            Some(node) => vec![resolve(&self.dbs, &txn, node, true)?.existing(node)?.0],
            None => self.dbs.noted_inodes(&txn, QUOTA, LISTED_MAX)?,
        };
        let shown = directories.into_iter().map(|directory| {
            let path = path_of(&self.dbs, &txn, directory)?;
            let Some(QuotaRecord { limits, used }) = self.dbs.quota(&txn, directory)? else {
                let message = format!("{path} has no quota");
                return Err(Error::new(ErrorKind::NoAttribute, message));
            };
            Ok(Quota { path, limits, used })
        });
        // Those in trees that were cut off have no path any more.
        shown.filter(|quota| node.is_some() || quota.is_ok()).collect()
    }
}
