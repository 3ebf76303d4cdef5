//! The heed environment of the namespace and its databases.
//!
//! | database | key | value |
//! |---|---|---|
//! | inodes | inode | [`InodeRecord`] |
//! | dentries | parent inode, name | child inode |
//! | xattrs | inode, name | value |
//! | blocks | first block id of a run | inode, index of the first block, count |
//! | leases | client, inode | |
//! | orphans | client, inode | |
//! | sessions | client | [`SessionRecord`](super::sessions::SessionRecord) |
//! | replies | client, sequence | `Result<OpReply, Error>` |
//! | mounts | mount id | `MountRecord` |
//! | jobs | job id | `JobRecord` |
//! | meta | name | effects (see [`effects`](super::effects)), counters, the cluster's id, the last applied log id, the format, when it was restored |
//!
//! Numbers in keys are big endian, so that LMDB's order is theirs.

use std::collections::BTreeMap;
use std::path::Path;

use curvine_protocol::checksum::{crc32c, crc32c_combine};
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::path::NAME_BYTES_MAX;
use curvine_protocol::{
    BlockId, ClientId, ClusterId, Error, ErrorKind, FileKind, InodeId, JobId, MountId, Result,
};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::{InodeBody, InodeRecord};

/// Address space set aside, not disk.
const MAP_BYTES: usize = 1 << 40;
/// What this version writes, and the newest it reads.
const FORMAT: u32 = 1;

/// Records are summed up in pieces of about this many bytes.
const CHECKSUM_PIECE_BYTES: usize = 64 << 10;

pub type Raw = Database<Bytes, Bytes>;

/// The open state. Cheap to clone; all clones are one environment.
#[derive(Clone)]
pub struct Store {
    pub env: Env<WithoutTls>,
    pub dbs: Dbs,
}

#[derive(Clone, Copy)]
pub struct Dbs {
    pub inodes: Raw,
    pub dentries: Raw,
    pub xattrs: Raw,
    pub blocks: Raw,
    pub leases: Raw,
    pub orphans: Raw,
    pub sessions: Raw,
    pub replies: Raw,
    pub mounts: Raw,
    pub jobs: Raw,
    pub meta: Raw,
}

/// A failed database call is a failed disk or a bug: the message says where.
pub fn broken(error: heed::Error) -> Error {
    let kind = match &error {
        heed::Error::Io(io) if io.raw_os_error() == Some(libc::ENOSPC) => ErrorKind::NoSpace,
        heed::Error::Mdb(heed::MdbError::MapFull) => ErrorKind::NoSpace,
        heed::Error::Io(_) => ErrorKind::Io,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the master's state database failed: {error}"))
}

impl Store {
    /// Opens or creates the state in a directory.
    ///
    /// Commits are not synced (`MDB_NOSYNC`): they survive this process, not the kernel. The Replica owns the log that is,
    /// and makes the state again from it where this one cannot be trusted.
    pub fn open(directory: &Path) -> Result<Store> {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", directory.display())))?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(16).max_readers(1024);
        // SAFETY: the directory is locked by this process (its `lock` file), so no other process maps these files, and
        // NO_SYNC only weakens durability as said above.
        let env = unsafe { options.flags(EnvFlags::NO_SYNC).open(directory) }
            .map_err(|e| broken(e).while_doing(format_args!("opening {}", directory.display())))?;
        let mut txn = env.write_txn().map_err(broken)?;
        let dbs = Dbs::with(|name| {
            env.create_database::<Bytes, Bytes>(&mut txn, Some(name))
                .map_err(broken)
        })?;
        crate::format::check(dbs.meta, &mut txn, FORMAT, directory)?;
        txn.commit().map_err(broken)?;
        Ok(Store { env, dbs })
    }

    /// Opens a copy of a state, a file of its own, to be read.
    pub fn open_copy(path: &Path) -> Result<Store> {
        Store::open_file(path, EnvFlags::READ_ONLY)
    }

    /// Opens a copy of a state to change it. Commits are synced.
    pub fn open_copy_to_change(path: &Path) -> Result<Store> {
        let store = Store::open_file(path, EnvFlags::empty())?;
        let mut txn = store.write()?;
        crate::format::check(store.dbs.meta, &mut txn, FORMAT, path)?;
        txn.commit().map_err(broken)?;
        Ok(store)
    }

    fn open_file(path: &Path, flags: EnvFlags) -> Result<Store> {
        let failed = |e| broken(e).while_doing(format_args!("opening {}", path.display()));
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(16);
        let flags = flags | EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK;
        // SAFETY: the file is in the directory that this process has locked, and nobody else writes it any more.
        let env = unsafe { options.flags(flags).open(path) }.map_err(failed)?;
        let txn = env.read_txn().map_err(failed)?;
        let database = |name: &str| match env.open_database::<Bytes, Bytes>(&txn, Some(name)) {
            Ok(Some(database)) => Ok(database),
            Ok(None) => Err(Error::internal(format!("{} has no `{name}`", path.display()))),
            Err(error) => Err(failed(error)),
        };
        let dbs = Dbs::with(database)?;
        // Without this the handles would end with the transaction.
        txn.commit().map_err(failed)?;
        Ok(Store { env, dbs })
    }

    /// What it takes of the disk, with room in it that is free.
    pub fn size_bytes(&self) -> Result<u64> {
        self.env.real_disk_size().map_err(broken)
    }

    pub fn read(&self) -> Result<RoTxn<'_, WithoutTls>> {
        self.env.read_txn().map_err(broken)
    }

    /// Deletes the keys of a range: from the first, up to but without the second.
    pub fn delete_range(database: &Raw, txn: &mut RwTxn, from: &[u8], until: &[u8]) -> Result<()> {
        use std::ops::Bound;
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Excluded(until));
        database.delete_range(txn, &bounds).map_err(broken)?;
        Ok(())
    }

    pub fn write(&self) -> Result<RwTxn<'_>> {
        self.env.write_txn().map_err(broken)
    }
}

/// The inodes of a client in a database whose keys are pairs of both.
pub fn inodes_of(database: &Raw, txn: &RoTxn, client: ClientId) -> Result<Vec<InodeId>> {
    let all = database
        .prefix_iter(txn, &client.0.to_be_bytes())
        .map_err(broken)?;
    all.map(|entry| Ok(InodeId(u64_at(entry.map_err(broken)?.0, 8))))
        .collect()
}

/// Two numbers as a key.
pub fn pair_key(first: u64, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    key
}

/// A number and a name as a key.
pub fn named_key(number: u64, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + name.len());
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// Reads a big-endian number at a place of a key or value.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}

/// The name behind the number of a [`named_key`].
pub fn name_of(key: &[u8]) -> &str {
    std::str::from_utf8(&key[8..]).expect("names are checked to be UTF-8 before they are stored")
}

pub fn get<T: DeserializeOwned>(db: &Raw, txn: &RoTxn, key: &[u8]) -> Result<Option<T>> {
    match db.get(txn, key).map_err(broken)? {
        None => Ok(None),
        Some(bytes) => decode(bytes).map(Some).map_err(undecodable),
    }
}

pub fn undecodable(error: Error) -> Error {
    Error::internal(format!(
        "a record of the state does not decode: {error}; was it written by a newer version?"
    ))
}

pub fn put<T: Serialize>(db: &Raw, txn: &mut RwTxn, key: &[u8], value: &T) -> Result<()> {
    db.put(txn, key, &encode(value)).map_err(broken)
}

/// A run of blocks of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    pub inode: InodeId,
    pub first_index: u32,
    pub count: u32,
}

impl BlockRun {
    /// Whether a block is of this run, which begins with `first`.
    pub fn has(&self, block: BlockId, first: BlockId) -> bool {
        (first.0..first.0 + u64::from(self.count)).contains(&block.0)
    }

    /// The place in its file of a block of this run, which begins with `first`.
    pub fn index_of(&self, block: BlockId, first: BlockId) -> u32 {
        let behind = u32::try_from(block.0 - first.0).expect("a run is no longer than its count");
        self.first_index + behind
    }
}

impl Dbs {
    fn with(mut database: impl FnMut(&str) -> Result<Raw>) -> Result<Dbs> {
        Ok(Dbs {
            inodes: database("inodes")?,
            dentries: database("dentries")?,
            xattrs: database("xattrs")?,
            blocks: database("blocks")?,
            leases: database("leases")?,
            orphans: database("orphans")?,
            sessions: database("sessions")?,
            replies: database("replies")?,
            mounts: database("mounts")?,
            jobs: database("jobs")?,
            meta: database("meta")?,
        })
    }

    fn all(&self) -> [Raw; 11] {
        let Dbs {
            inodes,
            dentries,
            xattrs,
            blocks,
            leases,
            orphans,
            sessions,
            replies,
            mounts,
            jobs,
            meta,
        } = *self;
        [
            inodes, dentries, xattrs, blocks, leases, orphans, sessions, replies, mounts, jobs, meta,
        ]
    }

    /// Puts everything of another environment in the place of everything here.
    pub fn replace_all(&self, txn: &mut RwTxn, theirs: &Dbs, from: &RoTxn) -> Result<()> {
        for (ours, theirs) in self.all().into_iter().zip(theirs.all()) {
            ours.clear(txn).map_err(broken)?;
            for record in theirs.iter(from).map_err(broken)? {
                let (key, value) = record.map_err(broken)?;
                // They come in order: the pages are filled one after the other.
                ours.put_with_flags(txn, heed::PutFlags::APPEND, key, value)
                    .map_err(broken)?;
            }
        }
        Ok(())
    }

    /// CRC32C over every record of every database, in order, with their lengths.
    pub fn checksum(&self, txn: &RoTxn) -> Result<u32> {
        let (mut sum, mut piece) = (0, Vec::new());
        for database in self.all() {
            for record in database.iter(txn).map_err(broken)? {
                let (key, value) = record.map_err(broken)?;
                piece.extend_from_slice(&pair_key(key.len() as u64, value.len() as u64));
                piece.extend_from_slice(key);
                piece.extend_from_slice(value);
                if piece.len() >= CHECKSUM_PIECE_BYTES {
                    sum = crc32c_combine(sum, crc32c(&piece), piece.len() as u64);
                    piece.clear();
                }
            }
        }
        Ok(crc32c_combine(sum, crc32c(&piece), piece.len() as u64))
    }

    pub fn inode(&self, txn: &RoTxn, inode: InodeId) -> Result<Option<InodeRecord>> {
        get(&self.inodes, txn, &inode.0.to_be_bytes())
    }

    /// # Errors
    /// `Stale` if there is no such inode.
    pub fn inode_or_stale(&self, txn: &RoTxn, inode: InodeId) -> Result<InodeRecord> {
        self.inode(txn, inode)?
            .ok_or_else(|| Error::new(ErrorKind::Stale, format!("inode {inode} no longer exists")))
    }

    pub fn put_inode(&self, txn: &mut RwTxn, inode: InodeId, record: &InodeRecord) -> Result<()> {
        debug_assert_eq!(
            record.kind == FileKind::Directory,
            matches!(record.body, InodeBody::Directory)
        );
        self.charge(txn, inode, Some(record))?;
        self.index_export(txn, inode, record)?;
        self.index_expiry(txn, inode, record)?;
        put(&self.inodes, txn, &inode.0.to_be_bytes(), record)
    }

    pub fn child(&self, txn: &RoTxn, parent: InodeId, name: &str) -> Result<Option<InodeId>> {
        // On the stack: a look-up asks for each name of a path.
        let mut room = [0; 8 + NAME_BYTES_MAX];
        let Some(key) = room.get_mut(..8 + name.len()) else {
            return Ok(None);
        };
        key[..8].copy_from_slice(&parent.0.to_be_bytes());
        key[8..].copy_from_slice(name.as_bytes());
        let value = self.dentries.get(txn, key).map_err(broken)?;
        Ok(value.map(|value| InodeId(u64_at(value, 0))))
    }

    pub fn put_dentry(&self, txn: &mut RwTxn, parent: InodeId, name: &str, child: InodeId) -> Result<()> {
        self.dentries
            .put(txn, &named_key(parent.0, name), &child.0.to_be_bytes())
            .map_err(broken)
    }

    pub fn delete_dentry(&self, txn: &mut RwTxn, parent: InodeId, name: &str) -> Result<()> {
        let was = self
            .dentries
            .delete(txn, &named_key(parent.0, name))
            .map_err(broken)?;
        debug_assert!(was, "the dentry was looked up before");
        Ok(())
    }

    /// Whether a directory has no entry.
    pub fn is_empty(&self, txn: &RoTxn, directory: InodeId) -> Result<bool> {
        let mut entries = self
            .dentries
            .prefix_iter(txn, &directory.0.to_be_bytes())
            .map_err(broken)?;
        Ok(entries.next().transpose().map_err(broken)?.is_none())
    }

    /// Whether an inode has no extended attribute.
    pub fn is_bare(&self, txn: &RoTxn, inode: InodeId) -> Result<bool> {
        // Most clusters have none at all.
        if self.xattrs.is_empty(txn).map_err(broken)? {
            return Ok(true);
        }
        let mut names = self
            .xattrs
            .prefix_iter(txn, &inode.0.to_be_bytes())
            .map_err(broken)?;
        Ok(names.next().transpose().map_err(broken)?.is_none())
    }

    /// The extended attributes of an inode, by their names.
    pub fn xattrs_of(&self, txn: &RoTxn, inode: InodeId) -> Result<BTreeMap<String, Vec<u8>>> {
        let all = self.xattrs.prefix_iter(txn, &inode.0.to_be_bytes());
        all.map_err(broken)?
            .map(|entry| {
                let (key, value) = entry.map_err(broken)?;
                Ok((name_of(key).to_owned(), value.to_vec()))
            })
            .collect()
    }

    pub fn put_xattrs(
        &self,
        txn: &mut RwTxn,
        inode: InodeId,
        xattrs: &BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        for (name, value) in xattrs {
            let key = named_key(inode.0, name);
            self.xattrs.put(txn, &key, value).map_err(broken)?;
        }
        Ok(())
    }

    pub fn delete_xattrs(&self, txn: &mut RwTxn, inode: InodeId) -> Result<()> {
        let (from, until) = (inode.0.to_be_bytes(), (inode.0 + 1).to_be_bytes());
        Store::delete_range(&self.xattrs, txn, &from, &until)
    }

    /// Visits the entries of a directory in the order of their names, however many there are. False from `visit` ends that.
    /// Whether it came to the end.
    pub fn each_child(
        &self,
        txn: &RoTxn,
        directory: InodeId,
        mut visit: impl FnMut(&str, InodeId) -> Result<bool>,
    ) -> Result<bool> {
        let prefix = directory.0.to_be_bytes();
        for entry in self.dentries.prefix_iter(txn, &prefix).map_err(broken)? {
            let (key, value) = entry.map_err(broken)?;
            if !visit(name_of(key), InodeId(u64_at(value, 0)))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Names after `after`, in order, with their inodes; at most `limit`.
    pub fn children(
        &self,
        txn: &RoTxn,
        directory: InodeId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, InodeId)>> {
        use std::ops::Bound;
        let start = named_key(directory.0, after.unwrap_or(""));
        let end = (directory.0 + 1).to_be_bytes();
        let bounds = (Bound::Excluded(&start[..]), Bound::Excluded(&end[..]));
        let mut found = Vec::new();
        for entry in self.dentries.range(txn, &bounds).map_err(broken)?.take(limit) {
            let (key, value) = entry.map_err(broken)?;
            found.push((name_of(key).to_owned(), InodeId(u64_at(value, 0))));
        }
        Ok(found)
    }

    pub fn block_run(&self, txn: &RoTxn, block: BlockId) -> Result<Option<(BlockId, BlockRun)>> {
        use std::ops::Bound;
        let key = block.0.to_be_bytes();
        let until: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Included(&key[..]));
        let Some(entry) = self.blocks.rev_range(txn, &until).map_err(broken)?.next() else {
            return Ok(None);
        };
        let (key, value) = entry.map_err(broken)?;
        let counts = u64_at(value, 8);
        let run = BlockRun {
            inode: InodeId(u64_at(value, 0)),
            first_index: (counts >> 32) as u32,
            count: (counts & 0xFFFF_FFFF) as u32,
        };
        let first = BlockId(u64_at(key, 0));
        Ok(run.has(block, first).then_some((first, run)))
    }

    pub fn put_block_run(&self, txn: &mut RwTxn, first: BlockId, run: BlockRun) -> Result<()> {
        let value = pair_key(
            run.inode.0,
            u64::from(run.first_index) << 32 | u64::from(run.count),
        );
        self.blocks
            .put(txn, &first.0.to_be_bytes(), &value)
            .map_err(broken)
    }

    pub fn delete_block_run(&self, txn: &mut RwTxn, first: BlockId) -> Result<()> {
        self.blocks.delete(txn, &first.0.to_be_bytes()).map_err(broken)?;
        Ok(())
    }

    pub fn mount(&self, txn: &RoTxn, id: MountId) -> Result<Option<curvine_protocol::mount::MountRecord>> {
        get(&self.mounts, txn, &id.0.to_be_bytes())
    }

    pub fn mount_records(&self, txn: &RoTxn) -> Result<Vec<curvine_protocol::mount::MountRecord>> {
        let all = self.mounts.iter(txn).map_err(broken)?;
        all.map(|entry| decode(entry.map_err(broken)?.1)).collect()
    }

    pub fn job(&self, txn: &RoTxn, id: JobId) -> Result<Option<curvine_protocol::job::JobRecord>> {
        get(&self.jobs, txn, &id.0.to_be_bytes())
    }

    pub fn job_records(&self, txn: &RoTxn) -> Result<Vec<curvine_protocol::job::JobRecord>> {
        let all = self.jobs.iter(txn).map_err(broken)?;
        all.map(|entry| decode(entry.map_err(broken)?.1)).collect()
    }

    pub fn counter(&self, txn: &RoTxn, counter: Counter) -> Result<u64> {
        let value = self.meta.get(txn, counter.key()).map_err(broken)?;
        Ok(value.map_or(counter.first(), |value| u64_at(value, 0)))
    }

    pub fn set_counter(&self, txn: &mut RwTxn, counter: Counter, value: u64) -> Result<()> {
        self.meta
            .put(txn, counter.key(), &value.to_be_bytes())
            .map_err(broken)
    }

    /// Takes `count` consecutive numbers; returns the first.
    pub fn take(&self, txn: &mut RwTxn, counter: Counter, count: u64) -> Result<u64> {
        let first = self.counter(txn, counter)?;
        self.set_counter(txn, counter, first + count)?;
        Ok(first)
    }

    pub fn cluster(&self, txn: &RoTxn) -> Result<Option<ClusterId>> {
        get(&self.meta, txn, b"cluster")
    }

    pub fn session_reply(
        &self,
        txn: &RoTxn,
        client: ClientId,
        sequence: u64,
    ) -> Result<Option<Result<curvine_protocol::op::OpReply>>> {
        get(&self.replies, txn, &pair_key(client.0, sequence))
    }

    pub fn meta_record<T: DeserializeOwned>(&self, txn: &RoTxn, name: &str) -> Result<Option<T>> {
        get(&self.meta, txn, name.as_bytes())
    }

    pub fn put_meta_record<T: Serialize>(&self, txn: &mut RwTxn, name: &str, value: &T) -> Result<()> {
        put(&self.meta, txn, name.as_bytes(), value)
    }
}

/// Numbers that are given out in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Inode,
    Block,
    Worker,
    Mount,
    Job,
    Client,
    Effect,
    /// Not given out: how many inodes there are.
    InodeCount,
}

impl Counter {
    fn key(self) -> &'static [u8] {
        match self {
            Counter::Inode => b"next_inode",
            Counter::Block => b"next_block",
            Counter::Worker => b"next_worker",
            Counter::Mount => b"next_mount",
            Counter::Job => b"next_job",
            Counter::Client => b"next_client",
            Counter::Effect => b"next_effect",
            Counter::InodeCount => b"inode_count",
        }
    }

    fn first(self) -> u64 {
        match self {
            // 1 is the root.
            Counter::Inode => 2,
            Counter::InodeCount => 0,
            _ => 1,
        }
    }

    /// Those that are given out.
    pub const GIVEN_OUT: [Counter; 7] = [
        Counter::Inode,
        Counter::Block,
        Counter::Worker,
        Counter::Mount,
        Counter::Job,
        Counter::Client,
        Counter::Effect,
    ];
}
