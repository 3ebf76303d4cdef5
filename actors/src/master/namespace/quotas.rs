//! Quotas of directories: what each may hold, and what it holds.
//!
//! Both are one record in `meta` for each directory that has a quota. Whatever stores or deletes the record of an inode
//! charges the quotas above it with the difference to the record that was there, so that the sums are exact. Only
//! inodes with a name and in no mount count.
//!
//! What is there when a quota is set is counted at once if it is little. Else the record says from then on what has changed
//! since, and nothing is refused; the leader counts a snapshot of the tree in the background. The record of the same snapshot
//! says how much of what it found has changed since the beginning: the difference is what was there then.

use std::collections::HashSet;

use curvine_protocol::master::{Quota, QuotaLimits, QuotaUsage};
use curvine_protocol::{Error, ErrorKind, InodeId, Node, Result};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::records::{InodeBody, InodeRecord};
use super::resolve::{is_within, path_of, resolve};
use super::store::{Dbs, Store, broken, get, put};

const QUOTA: &[u8] = b"quota ";
/// Inodes that one command counts.
pub const COUNTED_MAX: usize = 2_000;
/// Quotas that one call lists.
const LISTED_MAX: usize = 10_000;
/// Directories of which it is counted at a time what they hold.
const COUNTING_MAX: usize = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    pub limits: QuotaLimits,
    /// What the directory holds; while it is counted, the change since that began.
    pub holds: Change,
    pub is_counted: bool,
    /// How often counting has begun.
    pub round: u64,
}

/// More, or less, of bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub bytes: i64,
    pub inodes: i64,
}

impl Change {
    fn plus(self, other: Change) -> Change {
        Change {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }

    pub fn less(self) -> Change {
        Change {
            bytes: -self.bytes,
            inodes: -self.inodes,
        }
    }

    fn usage(self) -> QuotaUsage {
        let least_0 = |count: i64| u64::try_from(count).unwrap_or(0);
        QuotaUsage {
            bytes: least_0(self.bytes),
            inodes: least_0(self.inodes),
        }
    }
}

impl From<QuotaUsage> for Change {
    fn from(usage: QuotaUsage) -> Change {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Change {
            bytes: signed(usage.bytes),
            inodes: signed(usage.inodes),
        }
    }
}

/// What was counted of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub round: u64,
    /// What it held when that round began.
    pub held: Change,
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

    /// These quotas hold more, or less.
    pub fn change_usage(&self, txn: &mut RwTxn, quotas: &[InodeId], change: Change) -> Result<()> {
        for directory in quotas {
            if let Some(mut quota) = self.quota(txn, *directory)? {
                quota.holds = quota.holds.plus(change);
                self.put_quota(txn, *directory, &quota)?;
            }
        }
        Ok(())
    }

    /// Every quota holds one inode more: what [`Bug::ChargesRetries`](crate::planted::Bug::ChargesRetries) does.
    pub fn charge_all(&self, txn: &mut RwTxn) -> Result<()> {
        let quotas = self.noted_inodes(txn, QUOTA, usize::MAX)?;
        let one = QuotaUsage {
            inodes: 1,
            ..QuotaUsage::default()
        };
        self.change_usage(txn, &quotas, one.into())
    }

    /// Something that is too big to be counted now comes to these quotas, or goes: they are counted anew.
    pub fn count_anew(&self, txn: &mut RwTxn, quotas: &[InodeId]) -> Result<()> {
        for directory in quotas {
            if let Some(mut quota) = self.quota(txn, *directory)? {
                (quota.is_counted, quota.round) = (false, quota.round + 1);
                self.put_quota(txn, *directory, &quota)?;
            }
        }
        Ok(())
    }

    /// What a snapshot has told, if nothing since has made it void.
    pub fn quota_counted(&self, txn: &mut RwTxn, directory: InodeId, counted: Counted) -> Result<()> {
        match self.quota(txn, directory)? {
            Some(mut quota) if quota.round == counted.round && !quota.is_counted => {
                (quota.holds, quota.is_counted) = (quota.holds.plus(counted.held), true);
                self.put_quota(txn, directory, &quota)
            }
            _ => Ok(()),
        }
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
            self.change_usage(txn, &above, Change::from(less).less())?;
        }
        if let Some((parent, more)) = new {
            let above = self.quotas_above(txn, parent)?;
            self.change_usage(txn, &above, more.into())?;
        }
        Ok(())
    }

    /// A directory goes. What is left of trees that were cut off in it counts for nobody any more.
    pub fn forget_quota(&self, txn: &mut RwTxn, directory: InodeId) -> Result<()> {
        let Some(quota) = self.quota(txn, directory)? else {
            return Ok(());
        };
        let above = self.quotas_above(txn, directory)?;
        match quota.is_counted {
            true => self.change_usage(txn, &above, quota.holds.less())?,
            false => self.count_anew(txn, &above)?,
        }
        self.delete_quota(txn, directory)
    }

    /// # Errors
    /// `QuotaExceeded`, naming the directory, if one of these cannot take so much more.
    pub fn check_quotas(&self, txn: &RoTxn, quotas: &[InodeId], more: QuotaUsage) -> Result<()> {
        for directory in quotas {
            let Some(quota) = self.quota(txn, *directory)?.filter(|quota| quota.is_counted) else {
                continue;
            };
            let (limits, used) = (quota.limits, quota.holds.usage());
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

    /// Visits everything below a directory, and nothing below what is in a mount: with the directory that it is in, and its name.
    /// False from `visit` ends that. Whether it came to the end.
    fn visit_below(
        &self,
        txn: &RoTxn,
        top: InodeId,
        mut visit: impl FnMut(InodeId, &str, InodeId, &InodeRecord) -> Result<bool>,
    ) -> Result<bool> {
        let mut directories = vec![top];
        while let Some(directory) = directories.pop() {
            let is_all = self.each_child(txn, directory, |name, child| {
                let record = self.inode_or_stale(txn, child)?;
                let goes_on = visit(directory, name, child, &record)?;
                if goes_on && record.is_dir() && record.mount.0 == 0 {
                    directories.push(child);
                }
                Ok(goes_on)
            })?;
            if !is_all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts what is below a directory, up to so many inodes. None if there are more.
    ///
    /// # Errors
    /// `CrossMount` if a name has hard links, which may lead out of it.
    pub fn tree_usage(&self, txn: &RoTxn, top: InodeId, limit: usize) -> Result<Option<QuotaUsage>> {
        let (mut usage, mut seen) = (QuotaUsage::default(), 0);
        let is_all = self.visit_below(txn, top, |directory, name, _, record| {
            seen += 1;
            if seen > limit {
                return Ok(false);
            }
            let is_linked = record.nlink > 1 || record.parent != directory;
            if !record.is_dir() && record.mount.0 == 0 && is_linked {
                let message = format!("`{name}` has or had hard links, which quotas do not count; copy it");
                return Err(Error::new(ErrorKind::CrossMount, message));
            }
            let one = usage_of(record);
            usage.bytes = usage.bytes.saturating_add(one.bytes);
            usage.inodes += one.inodes;
            Ok(true)
        })?;
        Ok(is_all.then_some(usage))
    }
}

impl Store {
    /// Directories of which it is still to be counted what they hold, the first few.
    pub fn uncounted_quotas(&self) -> Result<Vec<InodeId>> {
        let txn = self.read()?;
        let mut uncounted = Vec::new();
        for directory in self.dbs.noted_inodes(&txn, QUOTA, usize::MAX)? {
            let quota = self.dbs.quota(&txn, directory)?;
            if quota.is_some_and(|quota| !quota.is_counted) {
                uncounted.push(directory);
                if uncounted.len() >= COUNTING_MAX {
                    break;
                }
            }
        }
        Ok(uncounted)
    }

    /// Counts what a directory held when that was begun, however long it takes. None if there is nothing to count.
    pub fn count_quota(&self, directory: InodeId) -> Result<Option<Counted>> {
        let txn = self.read()?;
        let Some(quota) = self.dbs.quota(&txn, directory)?.filter(|quota| !quota.is_counted) else {
            return Ok(None);
        };
        let (mut tops, mut holds, mut linked) = (vec![directory], Change::default(), HashSet::new());
        // What was cut off below it counts until it is gone.
        for top in self.dbs.detached(&txn, usize::MAX)? {
            let record = self.dbs.inode_or_stale(&txn, top)?;
            if is_within(&self.dbs, &txn, record.parent, directory)? {
                holds = holds.plus(usage_of(&record).into());
                tops.push(top);
            }
        }
        for top in tops {
            self.dbs.visit_below(&txn, top, |directory, _, child, record| {
                // It is charged where its record says that it is, and once.
                let is_here = record.is_dir()
                    || record.parent == directory && (record.nlink == 1 || linked.insert(child));
                if is_here {
                    holds = holds.plus(usage_of(record).into());
                }
                Ok(true)
            })?;
        }
        Ok(Some(Counted {
            round: quota.round,
            held: holds.plus(quota.holds.less()),
        }))
    }

    /// The nearest quota of a node or above it that limits something: what it allows, and what it holds.
    pub fn nearest_quota(&self, node: &Node) -> Result<Option<(QuotaLimits, QuotaUsage)>> {
        let txn = self.read()?;
        let (inode, record) = resolve(&self.dbs, &txn, node, true)?.existing(node)?;
        let from = match record.is_dir() {
            true => inode,
            false => record.parent,
        };
        let mut nearest = None;
        for directory in self.dbs.quotas_above(&txn, from)? {
            let quota = self.dbs.quota(&txn, directory)?.filter(|quota| quota.is_counted);
            if let Some(quota) = quota
                && (quota.limits.bytes.is_some() || quota.limits.inodes.is_some())
            {
                nearest = Some((quota.limits, quota.holds.usage()));
                break;
            }
        }
        Ok(nearest)
    }

    /// The quota of a directory, or all.
    pub fn quotas(&self, node: Option<&Node>) -> Result<Vec<Quota>> {
        let txn = self.read()?;
        let directories = match node {
            Some(node) => vec![resolve(&self.dbs, &txn, node, true)?.existing(node)?.0],
            None => self.dbs.noted_inodes(&txn, QUOTA, LISTED_MAX)?,
        };
        let shown = directories.into_iter().map(|directory| {
            let path = path_of(&self.dbs, &txn, directory)?;
            let Some(quota) = self.dbs.quota(&txn, directory)? else {
                let message = format!("{path} has no quota");
                return Err(Error::new(ErrorKind::NoAttribute, message));
            };
            Ok(Quota {
                path,
                limits: quota.limits,
                used: quota.holds.usage(),
                is_counted: quota.is_counted,
            })
        });
        // Those in trees that were cut off have no path any more.
        shown.filter(|quota| node.is_some() || quota.is_ok()).collect()
    }
}
