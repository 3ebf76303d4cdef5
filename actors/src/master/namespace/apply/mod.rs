//! One command against the state: a pure function of the two, but for the transaction it writes to.
//!
//! Each op checks everything before it changes anything, so that a failed command leaves the state as it was.
//!
//! - Users': [`entries`] are looked up and made, [`attributes`] and [`acls`] set, [`content`] committed, and files joined
//!   ([`concat`](mod@concat)), names gone ([`remove`]) or
//!   moved ([`rename`]); files are locked ([`locks`]).
//! - The masters' own: [`cluster`], [`mounts`], [`sync`] (what under file systems hold), [`effects`] (what they are to do),
//!   [`jobs`], [`pins`], [`expiry`].

mod acls;
mod agree;
mod attributes;
mod cluster;
mod concat;
mod content;
mod effects;
mod entries;
mod expiry;
mod jobs;
mod locks;
mod mounts;
mod pins;
mod quotas;
mod remove;
mod rename;
mod sync;
mod tiers;

use curvine_protocol::codec::encode;
use curvine_protocol::master::{BlockCommit, Entry, QuotaUsage};
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::worker::Done;
use curvine_protocol::{
    BlockId, ClientId, EffectId, Error, ErrorKind, InodeId, MountId, Mutation, Result, for_mutations,
};
use heed::RwTxn;

use super::quotas::{Change, Counted};
use super::records::{InodeBody, InodeRecord};
use super::sessions::{Admission, admit};
use super::store::{Counter, Dbs, Store, broken, pair_key};
use crate::planted::{Bug, is_planted};

/// What a command means for soft state: told to the actors that hold it, after the commit.
#[derive(Debug, Default)]
pub struct Effects {
    /// Blocks that no file refers to any more.
    pub released: Vec<BlockId>,
    pub committed: Vec<BlockCommit>,
    /// Files that may be had for writing now.
    pub unleased: Vec<InodeId>,
    /// Files on which somebody has fewer locks.
    pub unlocked: Vec<InodeId>,
    /// Answers to changes that under file systems had to make first.
    pub settled: Vec<(EffectId, Result<OpReply>)>,
    /// Effects that are over.
    pub ended: Vec<EffectId>,
    /// There is an effect more to be carried out.
    pub noted: bool,
    /// What has moved while there were pins.
    pub moved: Vec<InodeId>,
}

/// One command being applied.
pub(super) struct Apply<'a, 'txn> {
    pub dbs: Dbs,
    pub txn: &'a mut RwTxn<'txn>,
    pub now_ns: i64,
    pub client: ClientId,
    pub uid: u32,
    pub gid: u32,
    pub effects: &'a mut Effects,
}

impl Store {
    /// Applies commands in order, in the caller's transaction. A command's own error is its reply; the outer error is
    /// a failed database, after which the transaction must be dropped.
    pub fn apply(
        &self,
        txn: &mut RwTxn,
        commands: Vec<Command>,
        effects: &mut Effects,
    ) -> Result<Vec<OpReply>> {
        commands
            .into_iter()
            .map(|command| self.apply_one(txn, command, effects))
            .collect()
    }

    fn apply_one(&self, txn: &mut RwTxn, command: Command, effects: &mut Effects) -> Result<OpReply> {
        let dbs = self.dbs;
        let client = command.client;
        // Ending a session twice changes nothing more, so its end needs no memory, and leaves none.
        let remembered = command.sequence != 0 && !matches!(command.op, Op::EndSession(_));
        if remembered {
            let known = dbs.session(txn, client)?;
            let numbers = (command.sequence, command.acked_below);
            let session = match admit(client, known, numbers, command.time_ns) {
                Admission::Admitted(session) => session,
                Admission::Refused(error) => return Ok(OpReply::Failed(error)),
            };
            if let Some(reply) = dbs.session_reply(txn, client, command.sequence)?
                && !is_planted(Bug::NoDeduplication)
            {
                if is_planted(Bug::ChargesRetries) {
                    dbs.charge_all(txn)?;
                }
                return Ok(reply.unwrap_or_else(OpReply::Failed));
            }
            let (from, until) = (pair_key(client.0, 0), pair_key(client.0, session.floor));
            Store::delete_range(&dbs.replies, txn, &from, &until)?;
            dbs.put_session(txn, client, session)?;
        }
        let mut apply = Apply {
            dbs,
            now_ns: command.time_ns,
            client: command.client,
            uid: command.uid,
            gid: command.gid,
            effects,
            txn,
        };
        let numbers = (command.client, command.sequence);
        let result = match command.op {
            Op::Note(op) => apply.note(Command { op: *op, ..command }),
            op => apply.op(op),
        };
        if let Err(error) = &result
            && matches!(
                error.kind,
                ErrorKind::Io | ErrorKind::Internal | ErrorKind::NoSpace
            )
        {
            return Err(error.clone());
        }
        let asked_again = match &result {
            Err(error) => {
                (command.waits && error.kind == ErrorKind::LeaseConflict) || error.kind == ErrorKind::UnderWay
            }
            // Its answer is yet to come.
            Ok(reply) => matches!(reply, OpReply::Noted(_)),
        };
        if remembered && !asked_again {
            let key = pair_key(numbers.0.0, numbers.1);
            dbs.replies.put(txn, &key, &encode(&result)).map_err(broken)?;
        }
        Ok(result.unwrap_or_else(OpReply::Failed))
    }
}

/// What a mutation does. Each lies with its family.
trait Applies<M: Mutation> {
    fn apply(&mut self, call: M) -> Result<M::Reply>;
}

macro_rules! ops {
    (; $($call:ident -> $variant:ident $nodes:tt;)*) => {
        impl Apply<'_, '_> {
            fn op(&mut self, op: Op) -> Result<OpReply> {
                match op {
                    $(Op::$call(call) => self.apply(call).map(OpReply::$variant),)*
                    Op::Format { cluster } => self.format(cluster).map(OpReply::Done),
                    Op::AddWorker { .. } => self.add_worker().map(OpReply::Worker),
                    Op::AddMount { path, uri, options, settings } => {
                        self.add_mount(path, uri, options, settings).map(OpReply::Mount)
                    }
                    Op::UpdateMount { id, changes, conditions } => {
                        self.update_mount(id, &changes, conditions).map(OpReply::Mount)
                    }
                    Op::RemoveMount { path, force } => self.remove_mount(path, force).map(OpReply::MountRemoved),
                    Op::SyncDir(sync) => self.sync_dir(sync),
                    Op::AgreeDir(agree) => self.agree_dir(agree),
                    Op::SetUfsVersion { inode, version } => {
                        self.set_ufs_version(inode, version).map(OpReply::Done)
                    }
                    Op::AddJob { paths } => self.add_job(paths).map(OpReply::Job),
                    Op::UpdateJob { id, state, progress, failures, anew } => {
                        self.update_job(id, state, progress, failures, anew).map(OpReply::Job)
                    }
                    Op::ExpireSessions { before_ns } => self.expire_sessions(before_ns).map(OpReply::Done),
                    Op::HoldInodes { inodes } => self.hold_inodes(inodes).map(OpReply::Done),
                    Op::BreakLease { inode, holder, content_version } => {
                        self.break_lease(inode, holder, content_version).map(OpReply::Done)
                    }
                    Op::Reclaim { inode, holders } => self.reclaim(inode, holders.as_ref()).map(OpReply::Done),
                    Op::LeaseFenced { inode, content_version, kept, dropped } => {
                        self.lease_fenced(inode, content_version, kept, &dropped).map(OpReply::Done)
                    }
                    Op::RecoverLease { inode, content_version } => {
                        self.recover_lease(inode, content_version).map(OpReply::Done)
                    }
                    Op::DoubtReplicas { inode } => self.doubt_replicas(inode).map(OpReply::Done),
                    Op::SetWorkerService { worker, service, from } => {
                        self.set_worker_service(worker, service, from).map(OpReply::Done)
                    }
                    Op::StartBalance { tolerance_percent } => {
                        self.start_balance(tolerance_percent).map(OpReply::Done)
                    }
                    Op::EndBalance { begun_ms, how } => self.end_balance(begun_ms, how).map(OpReply::Done),
                    Op::QuotaCounted {
                        directory,
                        round,
                        bytes,
                        inodes,
                    } => {
                        let held = Change { bytes, inodes };
                        self.quota_counted(directory, Counted { round, held }).map(OpReply::Done)
                    }
                    Op::SetExpiry { inodes, not_before_ms, walked } => {
                        self.set_expiry(inodes, not_before_ms, walked).map(OpReply::Done)
                    }
                    Op::Expire { inode, unlink } => self.expire(inode, unlink).map(OpReply::Done),
                    Op::Accessed { files } => self.accessed(files).map(OpReply::Done),
                    Op::SetPins { pin, unpin } => self.set_pins(pin, &unpin).map(OpReply::Done),
                    Op::EndSessions { sessions } => self.end_sessions(sessions).map(OpReply::Done),
                    Op::Note(_) => Err(Error::internal("a change was to be noted twice")),
                    Op::CommitChange(call) => self.commit_change(call),
                    Op::RefuseChange { effect, error } => self.refuse_change(effect, error).map(OpReply::Done),
                    Op::NoteCopies { effect, copies } => self.note_copies(effect, copies).map(OpReply::Done),
                    Op::SettleCopies { effect, inodes, end } => {
                        self.settle_copies(effect, inodes, end).map(OpReply::Done)
                    }
                    Op::BeginExport { inode, worker } => self.begin_export(inode, worker).map(OpReply::Noted),
                    Op::BeginAttributes { inode } => self.begin_attributes(inode).map(OpReply::Noted),
                    Op::EndExport { effect, outcome } => self.end_export(effect, outcome).map(OpReply::Done),
                }
            }
        }
    };
}
for_mutations!(ops);

impl Apply<'_, '_> {
    /// A record as a new inode in `parent` has it.
    fn new_record(
        &self,
        parent: InodeId,
        above: &InodeRecord,
        name: &str,
        mode: u32,
        kind: curvine_protocol::FileKind,
        body: InodeBody,
    ) -> InodeRecord {
        let inherits_group = above.mode & 0o2000 != 0;
        let set_gid = if inherits_group && kind == curvine_protocol::FileKind::Directory {
            0o2000
        } else {
            0
        };
        InodeRecord {
            kind,
            mode: (mode & 0o7777) | set_gid,
            uid: self.uid,
            gid: if inherits_group { above.gid } else { self.gid },
            nlink: if kind == curvine_protocol::FileKind::Directory {
                2
            } else {
                1
            },
            parent,
            mount: above.mount,
            name: if above.mount == MountId(0) {
                String::new()
            } else {
                name.to_owned()
            },
            mtime_ns: self.now_ns,
            ctime_ns: self.now_ns,
            atime_minus_mtime_ns: 0,
            btime_minus_mtime_ns: 0,
            body,
            holders: 0,
            acl: Vec::new(),
        }
    }

    /// Stores a new inode under a free name and touches the directory.
    fn insert(
        &mut self,
        parent: InodeId,
        mut above: InodeRecord,
        name: &str,
        record: &InodeRecord,
    ) -> Result<InodeId> {
        if record.mount == MountId(0) {
            self.check_room(parent, QuotaUsage { bytes: 0, inodes: 1 })?;
        }
        let inode = InodeId(self.dbs.take(self.txn, Counter::Inode, 1)?);
        self.dbs.put_inode(self.txn, inode, record)?;
        self.dbs.put_dentry(self.txn, parent, name, inode)?;
        self.count_inodes(1)?;
        if record.is_dir() {
            above.nlink += 1;
        }
        self.touch_directory(parent, above)?;
        Ok(inode)
    }

    /// Modification and change time of a directory whose entries changed.
    fn touch_directory(&mut self, directory: InodeId, mut record: InodeRecord) -> Result<()> {
        record.set_mtime(self.now_ns);
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, directory, &record)
    }

    fn count_inodes(&mut self, difference: i64) -> Result<()> {
        let count = self.dbs.counter(self.txn, Counter::InodeCount)?;
        self.dbs.set_counter(
            self.txn,
            Counter::InodeCount,
            count.saturating_add_signed(difference),
        )
    }

    fn entry(&self, inode: InodeId, record: &InodeRecord) -> Entry {
        Entry {
            attr: curvine_protocol::Attr {
                bare: self.dbs.is_bare(self.txn, inode).unwrap_or(false),
                ..record.attr(inode)
            },
            target: record.target(),
        }
    }

    fn done(&self) -> Result<Done> {
        Ok(Done {})
    }
}

/// # Errors
/// `AlreadyExists`, naming the node.
fn already_exists<T>(node: impl std::fmt::Display) -> Result<T> {
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("{node}: already exists"),
    ))
}
