//! When files are due whose time to live is limited.
//!
//! A rule is one record in `meta` for the inode that has it. A file goes by the nearest rule above it, or its own. So that
//! nobody has to look at all files for those that are due, `meta` has an entry for each file that has a rule, by the time when
//! it is to be looked at, and the same by its inode.
//!
//! An entry may come too early: then the file is looked at, and gets a later one. That is why writing to a file, which puts
//! off when it is due, costs no more than a look. An entry never comes too late: whatever stores an inode's record goes
//! through [`Dbs::index_expiry`]; where a rule is set on a tree, or a tree comes below another rule, it is noted, and the
//! leader looks up every file in it (`walk`).

use std::collections::{HashMap, HashSet};

use curvine_protocol::master::{Ttl, TtlAction, TtlFrom, TtlInfo};
use curvine_protocol::{Error, ErrorKind, InodeId, MountId, Node, Result};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::records::{InodeBody, InodeRecord};
use super::resolve::{path_of, resolve};
use super::store::{Dbs, Store, broken, get, pair_key, put, u64_at};

const RULE: &[u8] = b"ttl ";
/// Trees in which all files are to be looked up, with how often that was begun.
const WALK: &[u8] = b"walk ";
/// By time and inode.
const BY_TIME: &[u8] = b"due ";
/// By inode.
const BY_INODE: &[u8] = b"expiry ";
/// Rules that one call lists.
const LISTED_MAX: usize = 10_000;

/// When a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Expiry {
    at_ms: u64,
    /// What was decided then: before this, the file is not due, whatever its times say.
    not_before_ms: u64,
}

/// A file whose entry has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub inode: InodeId,
    /// None: no rule says anything of it any more, or it is gone.
    pub rule: Option<Ttl>,
    /// It is due indeed.
    pub is_over: bool,
    pub parent: InodeId,
    pub mount: MountId,
    /// Somebody writes it.
    pub has_writer: bool,
}

/// What an inode is called.
pub type Names = HashMap<InodeId, Vec<String>>;

fn key(prefix: &[u8], inode: InodeId) -> Vec<u8> {
    [prefix, &inode.0.to_be_bytes()].concat()
}

fn time_key(at_ms: u64, inode: InodeId) -> Vec<u8> {
    [BY_TIME, &pair_key(at_ms, inode.0)].concat()
}

/// When a file's time is over by a rule, in milliseconds since the Unix epoch.
fn over_ms(rule: Ttl, record: &InodeRecord) -> u64 {
    let since_ns = match rule.from {
        TtlFrom::Modification => record.mtime_ns,
        TtlFrom::Access => record.mtime_ns.max(record.mtime_ns + record.atime_minus_mtime_ns),
    };
    // Rounded up: never before its time.
    let since_ms = u64::try_from(since_ns.saturating_add(999_999) / 1_000_000).unwrap_or(0);
    since_ms.saturating_add(rule.after_ms)
}

/// Only files with a name go.
fn may_go(record: &InodeRecord) -> bool {
    matches!(record.body, InodeBody::File(_)) && record.nlink > 0
}

impl Dbs {
    fn has_ttls(&self, txn: &RoTxn) -> Result<bool> {
        Ok(!self.noted_inodes(txn, RULE, 1)?.is_empty())
    }

    pub fn ttl(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<Ttl>> {
        get(&self.meta, txn, &key(RULE, inode))
    }

    pub fn put_ttl(&self, txn: &mut RwTxn, inode: InodeId, ttl: &Ttl) -> Result<()> {
        put(&self.meta, txn, &key(RULE, inode), ttl)
    }

    pub fn delete_ttl(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(RULE, inode)).map_err(broken)?;
        Ok(())
    }

    /// The nearest rule of an inode, its own or that of a directory above, and what has it.
    pub fn ttl_of(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<(InodeId, Ttl)>> {
        if !self.has_ttls(txn)? {
            return Ok(None);
        }
        match self.inode(txn, inode)? {
            Some(record) => self.rule_of(txn, inode, &record),
            None => Ok(None),
        }
    }

    /// The same of an inode with this record. Rules do not reach into mounts from above.
    fn rule_of(&self, txn: &RoTxn, inode: InodeId, record: &InodeRecord) -> Result<Option<(InodeId, Ttl)>> {
        let (mut at, mount, mut parent) = (inode, record.mount, record.parent);
        loop {
            if let Some(ttl) = self.ttl(txn, at)? {
                return Ok(Some((at, ttl)));
            }
            if at == InodeId::ROOT || parent == at {
                return Ok(None);
            }
            match self.inode(txn, parent)? {
                Some(above) if above.mount == mount => (at, parent) = (parent, above.parent),
                _ => return Ok(None),
            }
        }
    }

    /// When a file's time is over by a rule, and by what was decided of it.
    fn over_at_ms(&self, txn: &RoTxn, inode: InodeId, rule: Ttl, record: &InodeRecord) -> Result<u64> {
        let not_before_ms = self.expiry(txn, inode)?.map_or(0, |expiry| expiry.not_before_ms);
        Ok(over_ms(rule, record).max(not_before_ms))
    }

    /// When an inode with this record is due by its rule.
    fn due_ms(&self, txn: &RoTxn, inode: InodeId, record: &InodeRecord) -> Result<Option<u64>> {
        if !may_go(record) {
            return Ok(None);
        }
        let rule = self.rule_of(txn, inode, record)?;
        Ok(rule.map(|(_, rule)| over_ms(rule, record)))
    }

    fn expiry(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<Expiry>> {
        get(&self.meta, txn, &key(BY_INODE, inode))
    }

    fn put_expiry(&self, txn: &mut RwTxn, inode: InodeId, expiry: Expiry) -> Result<()> {
        self.forget_expiry(txn, inode)?;
        put(&self.meta, txn, &key(BY_INODE, inode), &expiry)?;
        self.meta
            .put(txn, &time_key(expiry.at_ms, inode), &[])
            .map_err(broken)
    }

    /// The file is not looked at any more.
    pub fn forget_expiry(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        if let Some(known) = self.expiry(txn, inode)? {
            self.meta
                .delete(txn, &time_key(known.at_ms, inode))
                .map_err(broken)?;
            self.meta.delete(txn, &key(BY_INODE, inode)).map_err(broken)?;
        }
        Ok(())
    }

    /// An inode gets this record: it is looked at in time.
    pub fn index_expiry(&self, txn: &mut RwTxn, inode: InodeId, record: &InodeRecord) -> Result<()> {
        if !self.has_ttls(txn)? {
            return Ok(());
        }
        let Some(due_ms) = self.due_ms(txn, inode, record)? else {
            return Ok(());
        };
        let known = self.expiry(txn, inode)?;
        let not_before_ms = known.map_or(0, |known| known.not_before_ms);
        let at_ms = due_ms.max(not_before_ms);
        if known.is_none_or(|known| at_ms < known.at_ms) {
            let expiry = Expiry { at_ms, not_before_ms };
            self.put_expiry(txn, inode, expiry)?;
        }
        Ok(())
    }

    /// A file is looked at when it is due, but not before a time; not at all if it is gone or has no rule.
    pub fn set_expiry(&self, txn: &mut RwTxn, inode: InodeId, not_before_ms: u64) -> Result<()> {
        let record = self.inode(txn, inode)?;
        let due_ms = match &record {
            Some(record) => self.due_ms(txn, inode, record)?,
            None => None,
        };
        match due_ms {
            None => self.forget_expiry(txn, inode),
            Some(due_ms) => {
                let at_ms = due_ms.max(not_before_ms);
                self.put_expiry(txn, inode, Expiry { at_ms, not_before_ms })
            }
        }
    }

    /// Whether a file is to be deleted by now.
    pub fn is_to_be_deleted(
        &self,
        txn: &RoTxn,
        inode: InodeId,
        record: &InodeRecord,
        now_ns: i64,
    ) -> Result<bool> {
        let rule = self.rule_of(txn, inode, record)?;
        let Some((_, rule)) = rule.filter(|(_, rule)| rule.action == TtlAction::Delete) else {
            return Ok(false);
        };
        let now_ms = u64::try_from(now_ns / 1_000_000).unwrap_or(0);
        Ok(may_go(record) && self.over_at_ms(txn, inode, rule, record)? <= now_ms)
    }

    /// All files below an inode, or it, may be due by another rule than before.
    pub fn walk_anew(&self, txn: &mut RwTxn, top: InodeId) -> Result<()> {
        let round: u64 = get(&self.meta, txn, &key(WALK, top))?.unwrap_or(0);
        put(&self.meta, txn, &key(WALK, top), &(round + 1))
    }

    /// All files of a tree are looked up, as of that beginning.
    pub fn walked(&self, txn: &mut RwTxn, top: InodeId, round: u64) -> Result<()> {
        if get(&self.meta, txn, &key(WALK, top))? == Some(round) {
            self.forget_walk(txn, top)?;
        }
        Ok(())
    }

    fn forget_walk(&self, txn: &mut RwTxn, top: InodeId) -> Result<()> {
        self.meta.delete(txn, &key(WALK, top)).map_err(broken)?;
        Ok(())
    }

    /// An inode goes, and with it what is known of its time to live.
    pub fn forget_ttl(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.forget_expiry(txn, inode)?;
        self.forget_walk(txn, inode)?;
        self.delete_ttl(txn, inode)
    }

    fn is_walked(&self, txn: &RoTxn, top: InodeId) -> Result<bool> {
        let noted = self.meta.get(txn, &key(WALK, top)).map_err(broken)?;
        Ok(noted.is_some())
    }
}

impl Store {
    /// The rules of which some go by access: whether there are any, and whether any rule is there at all.
    pub fn ttl_kinds(&self) -> Result<(bool, bool)> {
        let txn = self.read()?;
        let rules = self.dbs.noted_inodes(&txn, RULE, LISTED_MAX)?;
        let mut by_access = false;
        for inode in &rules {
            let rule = self.dbs.ttl(&txn, *inode)?;
            by_access |= rule.is_some_and(|rule| rule.from == TtlFrom::Access);
        }
        Ok((!rules.is_empty(), by_access))
    }

    /// The nearest rule of an inode that goes by access, and when it was accessed last as far as its record says.
    pub fn access_rule(&self, inode: InodeId) -> Result<Option<(Ttl, i64)>> {
        let txn = self.read()?;
        let Some(record) = self.dbs.inode(&txn, inode)? else {
            return Ok(None);
        };
        let rule = self.dbs.rule_of(&txn, inode, &record)?;
        let by_access = rule.filter(|(_, rule)| rule.from == TtlFrom::Access && may_go(&record));
        Ok(by_access.map(|(_, rule)| (rule, record.mtime_ns + record.atime_minus_mtime_ns)))
    }

    /// The first trees in which all files are to be looked up, each with how often that was begun.
    pub fn ttl_walks(&self, limit: usize) -> Result<Vec<(InodeId, u64)>> {
        let txn = self.read()?;
        let tops = self.dbs.noted_inodes(&txn, WALK, limit)?.into_iter();
        tops.map(|top| {
            let round = get(&self.dbs.meta, &txn, &key(WALK, top))?;
            Ok((top, round.unwrap_or(0)))
        })
        .collect()
    }

    /// The files of a tree, however many. Takes long for a big one.
    pub fn files_below(&self, top: InodeId) -> Result<Vec<InodeId>> {
        let txn = self.read()?;
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        match self.dbs.inode(&txn, top)? {
            Some(record) if record.is_dir() => directories.push(top),
            Some(_) => files.push(top),
            None => {}
        }
        while let Some(directory) = directories.pop() {
            self.dbs.each_child(&txn, directory, |_, child| {
                match self.dbs.inode(&txn, child)? {
                    Some(record) if record.is_dir() => directories.push(child),
                    Some(record) if may_go(&record) => files.push(child),
                    _ => {}
                }
                Ok(true)
            })?;
        }
        Ok(files)
    }

    /// The first files whose entries have come.
    pub fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Due>> {
        let txn = self.read()?;
        let mut due = Vec::new();
        for entry in self.dbs.meta.prefix_iter(&txn, BY_TIME).map_err(broken)? {
            let (key, _) = entry.map_err(broken)?;
            let (at_ms, inode) = (
                u64_at(key, BY_TIME.len()),
                InodeId(u64_at(key, BY_TIME.len() + 8)),
            );
            if at_ms > now_ms || due.len() >= limit {
                break;
            }
            due.push(self.due_one(&txn, inode, now_ms)?);
        }
        Ok(due)
    }

    fn due_one(&self, txn: &RoTxn, inode: InodeId, now_ms: u64) -> Result<Due> {
        let record = self.dbs.inode(txn, inode)?.filter(may_go);
        let rule = match &record {
            Some(record) => self.dbs.rule_of(txn, inode, record)?,
            None => None,
        };
        let is_over = match (&rule, &record) {
            (Some((_, rule)), Some(record)) => self.dbs.over_at_ms(txn, inode, *rule, record)? <= now_ms,
            _ => false,
        };
        let has_writer = matches!(
            record.as_ref().map(|record| &record.body),
            Some(InodeBody::File(file)) if file.is_written()
        );
        Ok(Due {
            inode,
            rule: rule.map(|(_, rule)| rule),
            is_over,
            parent: record.as_ref().map_or(InodeId::ROOT, |record| record.parent),
            mount: record.as_ref().map_or(MountId(0), |record| record.mount),
            has_writer,
        })
    }

    /// What some inodes are called in a directory. Takes long for a big one.
    pub fn names_in(&self, directory: InodeId, wanted: &HashSet<InodeId>) -> Result<Names> {
        let txn = self.read()?;
        let mut names = Names::new();
        self.dbs.each_child(&txn, directory, |name, child| {
            if wanted.contains(&child) {
                names.entry(child).or_default().push(name.to_owned());
            }
            Ok(true)
        })?;
        Ok(names)
    }

    /// The rule by which a node goes, or all.
    pub fn ttls(&self, node: Option<&Node>) -> Result<Vec<TtlInfo>> {
        let txn = self.read()?;
        let info = |holder: InodeId, ttl: Ttl, due_ns: Option<i64>| -> Result<TtlInfo> {
            Ok(TtlInfo {
                path: path_of(&self.dbs, &txn, holder)?,
                ttl,
                is_known: !self.dbs.is_walked(&txn, holder)?,
                due_ns,
            })
        };
        let Some(node) = node else {
            let holders = self.dbs.noted_inodes(&txn, RULE, LISTED_MAX)?.into_iter();
            let rules = holders.map(|holder| Ok((holder, self.dbs.ttl(&txn, holder)?)));
            let rules: Vec<_> = rules.collect::<Result<_>>()?;
            let shown = rules
                .into_iter()
                .filter_map(|(holder, ttl)| info(holder, ttl?, None).ok());
            // Those in trees that were cut off have no path any more.
            return Ok(shown.collect());
        };
        let place = resolve(&self.dbs, &txn, node, true)?;
        let parent = place.entry.as_ref().map(|(parent, _)| *parent);
        let (inode, record) = place.existing(node)?;
        let has_own = self.dbs.ttl(&txn, inode)?.is_some();
        if !record.is_dir() && !has_own && parent.is_some_and(|parent| parent != record.parent) {
            let message = format!(
                "{node} has or had hard links, and goes by where it was made or moved to last; its name here does not expire"
            );
            return Err(Error::new(ErrorKind::NoAttribute, message));
        }
        let Some((holder, ttl)) = self.dbs.ttl_of(&txn, inode)? else {
            let message = format!("{node} has no time to live, and no directory above it has one");
            return Err(Error::new(ErrorKind::NoAttribute, message));
        };
        let due_ns = match may_go(&record) {
            true => {
                let due_ms = self.dbs.over_at_ms(&txn, inode, ttl, &record)?;
                i64::try_from(due_ms)
                    .ok()
                    .and_then(|ms| ms.checked_mul(1_000_000))
            }
            false => None,
        };
        Ok(vec![info(holder, ttl, due_ns)?])
    }
}
