//! What is to be done in under file systems, as the log has it: *effects*.
//!
//! A client's change below a writable mount (delete, rename, mkdir), and every export of a file, is noted here before the
//! under file system is asked for anything, and is over when the log says so. The leader carries effects out
//! (`master/stores`); one that takes over goes on with them. They lie in `meta`, which backups and snapshots of older versions
//! have too:
//!
//! | key | value |
//! |---|---|
//! | `effect `, id | [`EffectRecord`] |
//! | `copied `, inode | [`CopyRecord`]: the object of a file that a rename moves |
//! | `unexported `, mount, inode | the file's change time when it came to need an export |
//! | `unkept `, mount, inode | [`Unkept`]: attributes of a file were changed since its object got them |
//!
//! Invariants: no two effects touch the same name of a mount, or a name and a directory above it that one of them moves or
//! removes; a file is exported once at a time; what a listing says of a name that an effect touches does not count.

use curvine_protocol::op::{Command, Copied, Op};
use curvine_protocol::{
    ClientId, EffectId, Error, ErrorKind, InodeId, MountId, Result, UfsVersion, WorkerId,
};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::records::{InodeBody, InodeRecord};
use super::store::{Counter, Dbs, broken, get, put, u64_at};

/// Effects of one mount under way at a time.
pub const EFFECTS_MAX: usize = 256;
const EFFECT: &[u8] = b"effect ";
const COPIED: &[u8] = b"copied ";
const UNEXPORTED: &[u8] = b"unexported ";
const UNKEPT: &[u8] = b"unkept ";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EffectRecord {
    pub mount: MountId,
    /// Relative to the mount's root.
    pub key: String,
    /// Of a rename, the new key.
    pub to: Option<String>,
    /// What is below the key is meant as well.
    pub tree: bool,
    pub since_ns: i64,
    pub work: Work,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    Change(Box<Change>),
    Export(Export),
    Attributes(AttributesWrite),
}

/// A client's change that the namespace makes when the under file system has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// With nodes that are directories and names in them.
    pub command: Command,
    /// What is removed or moved; 0 for what is to be made.
    pub inode: InodeId,
    /// The object of a file that is removed or moved, if it has one.
    pub object: Option<UfsVersion>,
    /// The object that a file is renamed over, if there is one.
    pub replaces: Option<UfsVersion>,
    pub stage: Stage,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The under file system is being changed.
    Begun,
    /// The namespace has made a rename. What was copied is being removed where it was.
    Made,
    /// A rename was refused. What was copied is being removed where it went.
    Undone,
}

/// A worker writes a file to its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    pub inode: InodeId,
    pub content_version: u64,
    /// The version that the object has as far as it is known here; none if there is to be none.
    pub replaces: Option<UfsVersion>,
    pub worker: WorkerId,
    /// Who had the lease when it began, and does not write before it has ended.
    pub writer: Option<ClientId>,
    /// As [`AttributesWrite::changes`]; 0 if there was none.
    #[serde(default)]
    pub attribute_changes: u64,
}

/// The leader writes the attributes of a file to its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributesWrite {
    pub inode: InodeId,
    /// The version of the object that is to get them.
    pub object: UfsVersion,
    /// How many changes there had been ([`Unkept::changes`]) when it began. Later ones are written by themselves.
    pub changes: u64,
}

/// Changes of a file's attributes that its object has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unkept {
    /// When the last was made, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
    pub changes: u64,
}

/// The object of a file in a rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRecord {
    pub effect: EffectId,
    pub from: UfsVersion,
    pub to: Option<UfsVersion>,
}

/// A name of a mount, or a name and all below it.
#[derive(Clone, Copy, Debug)]
pub struct Area<'a> {
    pub key: &'a str,
    pub tree: bool,
}

impl Area<'_> {
    /// Whether they have a name in common.
    pub fn meets(self, other: Area) -> bool {
        self.key == other.key
            || (self.tree && is_below(other.key, self.key))
            || (other.tree && is_below(self.key, other.key))
    }
}

/// Whether a key is strictly below a directory. Everything is below the root of a mount, whose key is empty.
fn is_below(key: &str, directory: &str) -> bool {
    match key.strip_prefix(directory) {
        Some(rest) => directory.is_empty() != rest.starts_with('/') && !rest.is_empty(),
        None => false,
    }
}

/// What a change of a key touches; of a rename, under both keys.
pub fn areas<'k>(key: &'k str, to: Option<&'k str>, tree: bool) -> impl Iterator<Item = Area<'k>> {
    std::iter::once(key).chain(to).map(move |key| Area { key, tree })
}

impl EffectRecord {
    /// The key of what it removes, or moves away.
    pub fn leaving(&self) -> Option<&str> {
        match &self.work {
            Work::Change(change) if !matches!(change.command.op, Op::MakeDir(_)) => Some(&self.key),
            _ => None,
        }
    }

    pub fn areas(&self) -> impl Iterator<Item = Area<'_>> {
        areas(&self.key, self.to.as_deref(), self.tree)
    }

    pub fn meets(&self, mount: MountId, area: Area) -> bool {
        self.mount == mount && self.areas().any(|own| own.meets(area))
    }

    /// Who asked for it, with the number of the change. Exports are nobody's.
    pub fn asked_by(&self) -> Option<(ClientId, u64)> {
        match &self.work {
            Work::Change(change) => Some((change.command.client, change.command.sequence)),
            Work::Export(_) | Work::Attributes(_) => None,
        }
    }

    /// The file that is being written to its object, with its content or without.
    pub fn written(&self) -> Option<InodeId> {
        match &self.work {
            Work::Export(export) => Some(export.inode),
            Work::Attributes(write) => Some(write.inode),
            Work::Change(_) => None,
        }
    }

    /// One word for people.
    pub fn what(&self) -> &'static str {
        match &self.work {
            Work::Export(_) => "export",
            Work::Attributes(_) => "attributes",
            Work::Change(change) => match (&change.command.op, change.stage) {
                (_, Stage::Undone) => "undo rename",
                (Op::Rename(_), _) => "rename",
                (Op::MakeDir(_), _) => "mkdir",
                (Op::RemoveDir(_), _) => "rmdir",
                _ => "delete",
            },
        }
    }
}

/// # Errors
/// `UnderWay`, naming what is in the way.
pub fn under_way(record: &EffectRecord) -> Error {
    Error::new(
        ErrorKind::UnderWay,
        format!(
            "the {} of `{}` is still being made in the under file system; `cv mounts` shows how it gets on",
            record.what(),
            record.key
        ),
    )
}

fn effect_key(id: EffectId) -> Vec<u8> {
    [EFFECT, &id.0.to_be_bytes()].concat()
}

fn copied_key(inode: InodeId) -> Vec<u8> {
    [COPIED, &inode.0.to_be_bytes()].concat()
}

fn unexported_key(mount: MountId, inode: InodeId) -> Vec<u8> {
    [UNEXPORTED, &mount.0.to_be_bytes(), &inode.0.to_be_bytes()].concat()
}

fn unkept_key(mount: MountId, inode: InodeId) -> Vec<u8> {
    [UNKEPT, &mount.0.to_be_bytes(), &inode.0.to_be_bytes()].concat()
}

impl Dbs {
    /// Notes a new effect.
    pub fn add_effect(&self, txn: &mut RwTxn, record: &EffectRecord) -> Result<EffectId> {
        let id = EffectId(self.take(txn, Counter::Effect, 1)?);
        self.put_effect(txn, id, record)?;
        Ok(id)
    }

    pub fn put_effect(&self, txn: &mut RwTxn, id: EffectId, record: &EffectRecord) -> Result<()> {
        put(&self.meta, txn, &effect_key(id), record)
    }

    pub fn effect(&self, txn: &RoTxn, id: EffectId) -> Result<Option<EffectRecord>> {
        get(&self.meta, txn, &effect_key(id))
    }

    pub fn end_effect(&self, txn: &mut RwTxn, id: EffectId) -> Result<()> {
        self.meta.delete(txn, &effect_key(id)).map_err(broken)?;
        Ok(())
    }

    /// All that are under way, in the order in which they were noted.
    pub fn effects(&self, txn: &RoTxn) -> Result<Vec<(EffectId, EffectRecord)>> {
        let all = self.meta.prefix_iter(txn, EFFECT).map_err(broken)?;
        all.map(|entry| {
            let (key, value) = entry.map_err(broken)?;
            let record = curvine_protocol::codec::decode(value).map_err(super::store::undecodable)?;
            Ok((EffectId(u64_at(key, EFFECT.len())), record))
        })
        .collect()
    }

    pub fn effects_of(&self, txn: &RoTxn, mount: MountId) -> Result<Vec<(EffectId, EffectRecord)>> {
        let mut effects = self.effects(txn)?;
        effects.retain(|(_, record)| record.mount == mount);
        Ok(effects)
    }

    /// The effect on a file's object, if a rename has one.
    pub fn copy(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<CopyRecord>> {
        get(&self.meta, txn, &copied_key(inode))
    }

    pub fn put_copy(&self, txn: &mut RwTxn, effect: EffectId, copied: Copied) -> Result<()> {
        let Copied { inode, from, to } = copied;
        put(
            &self.meta,
            txn,
            &copied_key(inode),
            &CopyRecord { effect, from, to },
        )
    }

    pub fn forget_copy(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        self.meta.delete(txn, &copied_key(inode)).map_err(broken)?;
        Ok(())
    }

    /// Copies of a rename, by their inodes, those after one; at most `limit`.
    pub fn copies(
        &self,
        txn: &RoTxn,
        effect: EffectId,
        after: InodeId,
        limit: usize,
    ) -> Result<Vec<(InodeId, CopyRecord)>> {
        use std::ops::Bound;
        let (start, end) = (copied_key(after), copied_key(InodeId(u64::MAX)));
        let bounds = (Bound::Excluded(&start[..]), Bound::Included(&end[..]));
        let mut found = Vec::new();
        for entry in self.meta.range(txn, &bounds).map_err(broken)? {
            let (key, value) = entry.map_err(broken)?;
            let record: CopyRecord =
                curvine_protocol::codec::decode(value).map_err(super::store::undecodable)?;
            if record.effect == effect {
                found.push((InodeId(u64_at(key, COPIED.len())), record));
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Where the object of a file is to be had whose rename the namespace has made: under its new key, as this version.
    pub fn moved_object(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<UfsVersion>> {
        let Some(copy) = self.copy(txn, inode)? else {
            return Ok(None);
        };
        let effect = self.effect(txn, copy.effect)?;
        Ok(match effect.map(|effect| effect.work) {
            Some(Work::Change(change)) if change.stage == Stage::Made => copy.to,
            _ => None,
        })
    }

    /// Keeps the index of files that need an export in step with a file's record, which is being stored.
    pub fn index_export(&self, txn: &mut RwTxn, inode: InodeId, record: &InodeRecord) -> Result<()> {
        let InodeBody::File(file) = &record.body else {
            return Ok(());
        };
        if record.mount == MountId(0) {
            return Ok(());
        }
        let key = unexported_key(record.mount, inode);
        let is_known = self.meta.get(txn, &key).map_err(broken)?.is_some();
        match (file.needs_export && record.nlink > 0, is_known) {
            (true, false) => self
                .meta
                .put(txn, &key, &record.ctime_ns.to_be_bytes())
                .map_err(broken),
            (false, true) => self.meta.delete(txn, &key).map(|_| ()).map_err(broken),
            _ => Ok(()),
        }
    }

    pub fn forget_export(&self, txn: &mut RwTxn, inode: InodeId, mount: MountId) -> Result<()> {
        if mount != MountId(0) {
            self.meta
                .delete(txn, &unexported_key(mount, inode))
                .map_err(broken)?;
            self.forget_unkept(txn, mount, inode)?;
        }
        Ok(())
    }

    /// Attributes of a file were changed.
    pub fn note_unkept(&self, txn: &mut RwTxn, mount: MountId, inode: InodeId, now_ns: i64) -> Result<()> {
        let before = self.unkept(txn, mount, inode)?;
        let unkept = Unkept {
            changed_ns: now_ns,
            changes: before.map_or(0, |before| before.changes) + 1,
        };
        put(&self.meta, txn, &unkept_key(mount, inode), &unkept)
    }

    /// What of a file's attributes its object has not got.
    pub fn unkept(&self, txn: &RoTxn, mount: MountId, inode: InodeId) -> Result<Option<Unkept>> {
        get(&self.meta, txn, &unkept_key(mount, inode))
    }

    /// Its object has them, or they are void.
    pub fn forget_unkept(&self, txn: &mut RwTxn, mount: MountId, inode: InodeId) -> Result<()> {
        let key = unkept_key(mount, inode);
        self.meta.delete(txn, &key).map(|_| ()).map_err(broken)
    }

    /// Files of a mount with attributes that their objects have not got, by their inodes, those after one; at most `limit`.
    pub fn all_unkept(
        &self,
        txn: &RoTxn,
        mount: MountId,
        after: InodeId,
        limit: usize,
    ) -> Result<Vec<(InodeId, Unkept)>> {
        use std::ops::Bound;
        let (start, end) = (unkept_key(mount, after), unkept_key(mount, InodeId(u64::MAX)));
        let bounds = (Bound::Excluded(&start[..]), Bound::Included(&end[..]));
        let all = self.meta.range(txn, &bounds).map_err(broken)?;
        all.take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(broken)?;
                let unkept = curvine_protocol::codec::decode(value).map_err(super::store::undecodable)?;
                Ok((InodeId(u64_at(key, UNKEPT.len() + 4)), unkept))
            })
            .collect()
    }

    /// Files of a mount that need an export, by their inodes, those after one, with their change times when they came to
    /// need it; at most `limit`.
    pub fn unexported(
        &self,
        txn: &RoTxn,
        mount: MountId,
        after: InodeId,
        limit: usize,
    ) -> Result<Vec<(InodeId, i64)>> {
        use std::ops::Bound;
        let (start, end) = (
            unexported_key(mount, after),
            unexported_key(mount, InodeId(u64::MAX)),
        );
        let bounds = (Bound::Excluded(&start[..]), Bound::Included(&end[..]));
        let all = self.meta.range(txn, &bounds).map_err(broken)?;
        all.take(limit)
            .map(|entry| {
                let (key, value) = entry.map_err(broken)?;
                let inode = InodeId(u64_at(key, UNEXPORTED.len() + 4));
                Ok((inode, u64_at(value, 0).cast_signed()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_trees_meet_where_they_have_a_name_in_common() {
        let one = |key| Area { key, tree: false };
        let all = |key| Area { key, tree: true };
        for (left, right, meet) in [
            (one("a"), one("a"), true),
            (one("a"), one("a/b"), false),
            (one("a"), one("ab"), false),
            (all("a"), one("a/b/c"), true),
            (all("a"), one("ab"), false),
            (all("a"), all("a/b"), true),
            (all("a/b"), all("a/c"), false),
            (all("a/b"), one("a"), false),
            (all(""), one("a"), true),
            (one(""), one("a"), false),
        ] {
            assert_eq!(
                (left.meets(right), right.meets(left)),
                (meet, meet),
                "{left:?} {right:?}"
            );
        }
    }
}
