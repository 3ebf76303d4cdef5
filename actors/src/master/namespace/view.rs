//! Consistent reads of the applied namespace: each method is one short read transaction.

use std::collections::{BTreeSet, HashSet};

use curvine_protocol::attr::UfsSource;
use curvine_protocol::job::JobRecord;
use curvine_protocol::master::{AclOf, Entry, Ttl};
use curvine_protocol::mount::MountRecord;
use curvine_protocol::{
    Attr, BlockId, BlockRef, ClientId, ClusterId, CurvinePath, DirEntry, EffectId, Error, ErrorKind,
    FileLayout, InodeId, JobId, KeptAttributes, LocatedBlock, MountId, Node, Result, WorkerId,
};
use heed::RoTxn;

use super::balance::Balance;
use super::effects::{CopyRecord, EffectRecord, Unkept, Work};
use super::expiry::{Due, Names};
use super::kept::Doubted;
use super::listing::list;
use super::pins::PinnedInodes;
use super::quotas::Counted;
use super::records::{InodeBody, InodeRecord};
use super::resolve::{path_of, resolve};
use super::services::{SERVICES, Services};
use super::sessions::SessionRecord;
use super::store::{BlockRun, Counter, Dbs, Store, broken, inodes_of, named_key, pair_key, u64_at};
use crate::master::contract::{BlockOwner, NamespaceView};

/// Of trees that are to be removed, so many are looked at.
const DETACHED_SEEN: usize = 1_000;

impl Store {
    pub fn entry(&self, node: &Node, follow: bool) -> Result<(InodeId, InodeRecord)> {
        let txn = self.read()?;
        resolve(&self.dbs, &txn, node, follow)?.existing(node)
    }

    /// What one look at the tree says, unless there are mounts: then an under file system may have to be asked first.
    pub fn unless_mounted<T>(&self, look: impl FnOnce(&Dbs, &RoTxn) -> Result<T>) -> Result<Option<T>> {
        let txn = self.read()?;
        match self.dbs.mounts.is_empty(&txn).map_err(broken)? {
            true => look(&self.dbs, &txn).map(Some),
            false => Ok(None),
        }
    }

    pub fn xattr(&self, node: &Node, name: &str) -> Result<Vec<u8>> {
        let txn = self.read()?;
        let (inode, _) = resolve(&self.dbs, &txn, node, true)?.existing(node)?;
        let value = self
            .dbs
            .xattrs
            .get(&txn, &named_key(inode.0, name))
            .map_err(broken)?;
        value.map(<[u8]>::to_vec).ok_or_else(|| {
            Error::new(
                ErrorKind::NoAttribute,
                format!("{node} has no extended attribute `{name}`"),
            )
        })
    }

    /// The entries of a node's access control list that are not in its mode.
    pub fn acl(&self, node: &Node) -> Result<AclOf> {
        let txn = self.read()?;
        let (inode, record) = resolve(&self.dbs, &txn, node, true)?.existing(node)?;
        Ok(AclOf {
            attr: record.attr(inode),
            entries: record.acl,
        })
    }

    pub fn xattr_names(&self, node: &Node) -> Result<Vec<String>> {
        let txn = self.read()?;
        let (inode, _) = resolve(&self.dbs, &txn, node, true)?.existing(node)?;
        let all = self
            .dbs
            .xattrs
            .prefix_iter(&txn, &inode.0.to_be_bytes())
            .map_err(broken)?;
        all.map(|entry| Ok(super::store::name_of(entry.map_err(broken)?.0).to_owned()))
            .collect()
    }
}

/// The attributes of a node.
pub fn lookup(dbs: &Dbs, txn: &RoTxn, node: &Node, follow: bool) -> Result<Entry> {
    let (inode, record) = resolve(dbs, txn, node, follow)?.existing(node)?;
    Ok(Entry {
        attr: Attr {
            bare: dbs.is_bare(txn, inode)?,
            ..record.attr(inode)
        },
        target: record.target(),
    })
}

/// The layout of a node that is a file.
pub fn layout_of(dbs: &Dbs, txn: &RoTxn, node: &Node, follow: bool) -> Result<FileLayout> {
    let (inode, record) = resolve(dbs, txn, node, follow)?.existing(node)?;
    if record.is_dir() {
        return Err(Error::new(
            ErrorKind::IsADirectory,
            format!("{node}: is a directory"),
        ));
    }
    layout(dbs, txn, inode, &record)
}

/// The layout of a file's data, without workers.
pub fn layout(dbs: &Dbs, txn: &RoTxn, inode: InodeId, record: &InodeRecord) -> Result<FileLayout> {
    let InodeBody::File(file) = &record.body else {
        let kind = if record.is_dir() {
            ErrorKind::IsADirectory
        } else {
            ErrorKind::InvalidArgument
        };
        return Err(Error::new(kind, format!("inode {inode} is not a file")));
    };
    let source = source_of(dbs, txn, inode, record)?;
    let attr = Attr {
        bare: dbs.is_bare(txn, inode)?,
        ..record.attr(inode)
    };
    Ok(FileLayout {
        source,
        tier: dbs.tier_of(txn, inode)?.map(|(_, tier)| tier),
        ..layout_with(attr, &file.placed_blocks(), 0)
    })
}

/// The object that a file's blocks, or some of them, can be fetched from.
pub fn source_of(dbs: &Dbs, txn: &RoTxn, inode: InodeId, record: &InodeRecord) -> Result<Option<UfsSource>> {
    let InodeBody::File(file) = &record.body else {
        return Ok(None);
    };
    // Until its export, what is written here is the file.
    let (Some(version), Some(until_generation)) = (&file.ufs, file.cached_until()) else {
        return Ok(None);
    };
    let is_cached = |(_, block): &(u32, BlockRef)| block.generation <= until_generation;
    if file.needs_export && !file.placed_blocks().iter().any(is_cached) {
        return Ok(None);
    }
    let moved = dbs.moved_object(txn, inode)?;
    Ok(key_in_mount(dbs, txn, record)?.map(|(mount, key)| UfsSource {
        mount,
        key,
        version: moved.unwrap_or_else(|| version.clone()),
        until_generation,
    }))
}

/// Blocks of a file with their indexes, from the first index that was asked for on. Nobody has them yet.
pub fn layout_with(attr: Attr, placed: &[(u32, BlockRef)], from_index: u32) -> FileLayout {
    let follow_each_other = (from_index..).zip(placed).all(|(at, (index, _))| at == *index);
    FileLayout {
        attr,
        blocks: placed
            .iter()
            .map(|(_, block)| LocatedBlock {
                block: *block,
                workers: Vec::new(),
            })
            .collect(),
        workers: Vec::new(),
        source: None,
        indexes: match follow_each_other {
            true => Vec::new(),
            false => placed.iter().map(|(index, _)| *index).collect(),
        },
        damaged: Vec::new(),
        tier: None,
    }
}

/// The mount of an inode and the key of its object relative to the mount's root.
pub fn key_in_mount(dbs: &Dbs, txn: &RoTxn, record: &InodeRecord) -> Result<Option<(MountId, String)>> {
    if record.mount == MountId(0) {
        return Ok(None);
    }
    let mut names = Vec::new();
    let mut at = record.clone();
    // The mount point is the topmost directory of the mount: its parent is in another one.
    loop {
        let above = dbs.inode_or_stale(txn, at.parent)?;
        if above.mount != record.mount {
            names.reverse();
            return Ok(Some((record.mount, names.join("/"))));
        }
        names.push(at.name);
        at = above;
    }
}

/// Where a file is to be exported to: its mount and the key there. None when there is nothing to export, as when its last
/// name went, be it with a directory above it.
pub fn to_export(dbs: &Dbs, txn: &RoTxn, record: &InodeRecord) -> Result<Option<(MountId, String)>> {
    let wants = matches!(&record.body, InodeBody::File(file) if file.needs_export);
    if !wants || record.nlink == 0 {
        return Ok(None);
    }
    let place = dbs.refuse_detached(txn, record.parent);
    match place.and_then(|()| key_in_mount(dbs, txn, record)) {
        Err(gone) if gone.kind == ErrorKind::Stale => Ok(None),
        place => place,
    }
}

/// Finds the owners of blocks in one state. Blocks that follow each other mostly are of one file.
struct Owners<'a> {
    dbs: &'a Dbs,
    txn: &'a RoTxn<'a>,
    /// What the block before was of.
    run: Option<(BlockId, BlockRun)>,
    record: Option<(InodeId, InodeRecord)>,
}

impl Owners<'_> {
    fn of(&mut self, block: BlockId) -> Result<Option<BlockOwner>> {
        let is_in = |(first, run): &(BlockId, BlockRun)| run.has(block, *first);
        if !self.run.as_ref().is_some_and(is_in) {
            self.run = self.dbs.block_run(self.txn, block)?;
        }
        let Some((first, run)) = self.run else {
            return Ok(None);
        };
        if self.record.as_ref().is_none_or(|(inode, _)| *inode != run.inode) {
            let record = self.dbs.inode(self.txn, run.inode)?;
            self.record = record.map(|record| (run.inode, record));
        }
        let Some(InodeBody::File(file)) = self.record.as_ref().map(|(_, record)| &record.body) else {
            return Ok(None);
        };
        let index = run.index_of(block, first);
        let found = file.block(index).filter(|found| found.id == block);
        Ok(found.map(|found| (run.inode, index, found)))
    }
}

impl NamespaceView for Store {
    fn lookup(&self, node: &Node, follow: bool) -> Result<Entry> {
        lookup(&self.dbs, &*self.read()?, node, follow)
    }

    fn attr(&self, inode: InodeId) -> Result<Attr> {
        Ok(self.dbs.inode_or_stale(&*self.read()?, inode)?.attr(inode))
    }

    fn list(&self, directory: InodeId, after: Option<&str>, limit: usize) -> Result<(Vec<DirEntry>, bool)> {
        list(&self.dbs, &*self.read()?, directory, after, limit)
    }

    fn layout(&self, inode: InodeId) -> Result<FileLayout> {
        let txn = self.read()?;
        let record = self.dbs.inode_or_stale(&txn, inode)?;
        layout(&self.dbs, &txn, inode, &record)
    }

    fn path(&self, inode: InodeId) -> Result<CurvinePath> {
        path_of(&self.dbs, &*self.read()?, inode)
    }

    fn block_owners(&self, blocks: &[BlockId]) -> Result<Vec<Option<BlockOwner>>> {
        let txn = self.read()?;
        let mut owners = Owners {
            dbs: &self.dbs,
            txn: &txn,
            run: None,
            record: None,
        };
        blocks.iter().map(|block| owners.of(*block)).collect()
    }

    fn mounts(&self) -> Result<Vec<MountRecord>> {
        self.dbs.mount_records(&*self.read()?)
    }

    fn mount(&self, id: MountId) -> Result<Option<MountRecord>> {
        self.dbs.mount(&*self.read()?, id)
    }

    fn mounted(&self, inode: InodeId) -> Result<Option<(MountId, String)>> {
        let txn = self.read()?;
        let record = self.dbs.inode_or_stale(&txn, inode)?;
        key_in_mount(&self.dbs, &txn, &record)
    }

    fn kept_attributes(&self, inode: InodeId) -> Result<KeptAttributes> {
        let txn = self.read()?;
        let record = self.dbs.inode_or_stale(&txn, inode)?;
        Ok(KeptAttributes {
            mode: Some(record.mode),
            uid: Some(record.uid),
            gid: Some(record.gid),
            mtime_ns: Some(record.mtime_ns),
            xattrs: self.dbs.xattrs_of(&txn, inode)?,
        })
    }

    fn needs_export(&self, inode: InodeId) -> Result<bool> {
        let txn = self.read()?;
        let Some(record) = self.dbs.inode(&txn, inode)? else {
            return Ok(false);
        };
        Ok(to_export(&self.dbs, &txn, &record)?.is_some())
    }

    fn confirm_export(&self, effect: EffectId, worker: WorkerId) -> Result<()> {
        let txn = self.read()?;
        if let Some(record) = self.dbs.effect(&txn, effect)?
            && let Work::Export(export) = record.work
            && export.worker == worker
            && let Some(record) = self.dbs.inode(&txn, export.inode)?
            && let InodeBody::File(file) = &record.body
            && file.content_version == export.content_version
            // Whoever has got the lease since may have written over what was being read.
            && (file.lease.is_none() || file.lease == export.writer)
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Stale,
            format!("export {effect} is not wanted any more, or the file has changed meanwhile"),
        ))
    }

    fn effect(&self, effect: EffectId) -> Result<Option<EffectRecord>> {
        self.dbs.effect(&*self.read()?, effect)
    }

    fn copy(&self, inode: InodeId) -> Result<Option<CopyRecord>> {
        self.dbs.copy(&*self.read()?, inode)
    }

    fn last_effect(&self) -> Result<EffectId> {
        let next = self.dbs.counter(&*self.read()?, Counter::Effect)?;
        Ok(EffectId(next.saturating_sub(1)))
    }

    fn effects(&self) -> Result<Vec<(EffectId, EffectRecord)>> {
        self.dbs.effects(&*self.read()?)
    }

    fn copies(&self, effect: EffectId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, CopyRecord)>> {
        self.dbs.copies(&*self.read()?, effect, after, limit)
    }

    fn unexported(&self, mount: MountId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, i64)>> {
        self.dbs.unexported(&*self.read()?, mount, after, limit)
    }

    fn unkept(&self, mount: MountId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, Unkept)>> {
        self.dbs.all_unkept(&*self.read()?, mount, after, limit)
    }

    fn needs_attributes(&self, inode: InodeId) -> Result<bool> {
        let txn = self.read()?;
        let Some(record) = self.dbs.inode(&txn, inode)? else {
            return Ok(false);
        };
        Ok(record.object().is_some() && self.dbs.unkept(&txn, record.mount, inode)?.is_some())
    }

    fn lease_holder(&self, inode: InodeId) -> Result<Option<ClientId>> {
        let record = self.dbs.inode(&*self.read()?, inode)?;
        Ok(match record.map(|record| record.body) {
            Some(InodeBody::File(file)) => file.lease,
            _ => None,
        })
    }

    fn partials(&self, client: ClientId) -> Result<Vec<Node>> {
        let (txn, prefix) = (self.read()?, client.partial_prefix());
        let leased = inodes_of(&self.dbs.leases, &txn, client)?;
        let mut parents = BTreeSet::new();
        for &inode in &leased {
            let record = self.dbs.inode(&txn, inode)?;
            parents.extend(
                record
                    .filter(|record| record.nlink > 0)
                    .map(|record| record.parent),
            );
        }
        let mut partials = Vec::new();
        for parent in parents {
            let names = self.dbs.dentries.prefix_iter(&txn, &named_key(parent.0, &prefix));
            for entry in names.map_err(broken)? {
                let (key, value) = entry.map_err(broken)?;
                let inode = InodeId(u64_at(value, 0));
                let record = self.dbs.inode(&txn, inode)?;
                // What is stored may have come from elsewhere, unless the client was writing it.
                let is_its = |record: &InodeRecord| leased.contains(&inode) || record.object().is_none();
                if record.is_some_and(|record| !record.is_dir() && is_its(&record)) {
                    partials.push(Node::child(parent, super::store::name_of(key).to_owned()));
                }
            }
        }
        Ok(partials)
    }

    fn ttl_kinds(&self) -> Result<(bool, bool)> {
        Store::ttl_kinds(self)
    }

    fn access_rule(&self, inode: InodeId) -> Result<Option<(Ttl, i64)>> {
        Store::access_rule(self, inode)
    }

    fn ttl_walks(&self, limit: usize) -> Result<Vec<(InodeId, u64)>> {
        Store::ttl_walks(self, limit)
    }

    fn files_below(&self, top: InodeId) -> Result<Vec<InodeId>> {
        Store::files_below(self, top)
    }

    fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Due>> {
        Store::due(self, now_ms, limit)
    }

    fn names_in(&self, directory: InodeId, wanted: &HashSet<InodeId>) -> Result<Names> {
        Store::names_in(self, directory, wanted)
    }

    fn uncounted_quotas(&self) -> Result<Vec<InodeId>> {
        Store::uncounted_quotas(self)
    }

    fn count_quota(&self, directory: InodeId) -> Result<Option<Counted>> {
        Store::count_quota(self, directory)
    }

    fn has_lease(&self, client: ClientId, inode: InodeId) -> Result<bool> {
        // By its own key, which costs a fraction of reading the inode: this is asked for every file that is made.
        let (txn, key) = (self.read()?, pair_key(client.0, inode.0));
        let lease = self.dbs.leases.get(&txn, &key).map_err(broken)?;
        Ok(lease.is_some())
    }

    fn last_worker(&self) -> Result<WorkerId> {
        let next = self.dbs.counter(&*self.read()?, Counter::Worker)?;
        Ok(WorkerId(
            u32::try_from(next.saturating_sub(1)).unwrap_or(u32::MAX),
        ))
    }

    fn worth(&self, block: BlockId) -> Result<Doubted> {
        Store::worth(self, block)
    }

    fn services(&self) -> Result<Services> {
        Ok(self
            .dbs
            .meta_record(&*self.read()?, SERVICES)?
            .unwrap_or_default())
    }

    fn balance(&self) -> Result<Balance> {
        self.dbs.balance(&*self.read()?)
    }

    fn pins(&self) -> Result<PinnedInodes> {
        self.dbs.pins(&*self.read()?)
    }

    fn pinned_by(&self, inode: InodeId) -> Result<Option<InodeId>> {
        let txn = self.read()?;
        let pins = self.dbs.pins(&txn)?;
        self.dbs.pinned_by(&txn, &pins, inode)
    }

    fn job(&self, id: JobId) -> Result<Option<JobRecord>> {
        self.dbs.job(&*self.read()?, id)
    }

    fn jobs(&self) -> Result<Vec<JobRecord>> {
        self.dbs.job_records(&*self.read()?)
    }

    fn sessions(&self) -> Result<Vec<(ClientId, SessionRecord)>> {
        self.dbs.all_sessions(&*self.read()?)
    }

    fn detached(&self) -> Result<Vec<InodeId>> {
        self.dbs.detached(&*self.read()?, DETACHED_SEEN)
    }

    fn inode_count(&self) -> Result<u64> {
        self.dbs.counter(&*self.read()?, Counter::InodeCount)
    }

    fn cluster(&self) -> Result<Option<ClusterId>> {
        self.dbs.cluster(&*self.read()?)
    }
}
