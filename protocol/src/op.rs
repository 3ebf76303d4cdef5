//! The commands of the replicated log, and what applying one yields.
//!
//! Applying is a pure function of the state and the command: the time is in the command, ids come from counters in
//! the state. A command is a record on disk and on the wire between masters: its golden bytes are tested.

use serde::{Deserialize, Serialize};

use crate::attr::{FileKind, FileLayout, KeptAttributes, UfsVersion};
use crate::call::Done;
use crate::cluster::WorkerService;
use crate::error::{Error, Result};
use crate::for_mutations;
use crate::ids::{BlockId, ClientId, ClusterId, EffectId, InodeId, JobId, MountId, WorkerId};
use crate::job::{JobProgress, JobRecord, JobState};
use crate::master::*;
use crate::mount::{MountChanges, MountRecord, MountSettings};
use crate::path::{CurvinePath, Node};

/// One command: what to do, for whom, when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Command {
    pub client: ClientId,
    /// 0 = not de-duplicated (commands of the masters themselves, which are idempotent).
    pub sequence: u64,
    pub acked_below: u64,
    pub uid: u32,
    pub gid: u32,
    /// The leader's wall clock when it took the command, nanoseconds since the Unix epoch.
    pub time_ns: i64,
    pub op: Op,
    /// The leader proposes it again if a lease is in its way: that refusal is not remembered.
    #[serde(default)]
    pub waits: bool,
}

/// A tree in which all files were found whose time to live is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    pub top: InodeId,
    /// How often it has been begun.
    pub round: u64,
}

/// A call that changes the namespace: it becomes an [`Op`] in the replicated log.
pub trait Mutation: MasterCall {
    fn into_op(self) -> Op;
    /// Takes the typed reply out; an error if the reply is of another op, which is a fault of ours.
    fn reply_from(reply: OpReply) -> Result<Self::Reply>;
    /// The nodes that it names, that which it makes or changes first.
    fn nodes(&self) -> Vec<&Node>;
}

/// Each mutation is the op of its name; the op's reply is the call's. Its row in
/// `for_master_calls!`(crate::for_master_calls) says which, and which nodes it names.
macro_rules! ops {
    (; $($call:ident -> $variant:ident [$($node:ident),*];)*) => {
        /// What a command does. On disk and on the wire it is its name: one is never renamed or removed.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub enum Op {
            // Calls of clients
            $($call($call),)*
            // Commands of the leader itself
            /// Once, when the cluster is formatted. A second one changes nothing.
            Format {
                cluster: ClusterId,
            },
            /// Assigns an id to a new worker.
            AddWorker {
                address: String,
            },
            /// Records a checked mount; makes its directory where it is missing.
            AddMount {
                path: CurvinePath,
                uri: String,
                options: std::collections::BTreeMap<String, String>,
                settings: MountSettings,
            },
            /// Removes the mount and every inode below it, not the objects.
            RemoveMount {
                path: CurvinePath,
                /// Also if there is something that the under file system has not got yet.
                #[serde(default = "forced")]
                force: bool,
            },
            /// Of older versions: makes part of a directory of a mount agree with a listing of the under file system.
            SyncDir(SyncDir),
            /// The object of this file now has this version (after an export).
            SetUfsVersion {
                inode: InodeId,
                version: UfsVersion,
            },
            AddJob {
                paths: Vec<CurvinePath>,
            },
            /// State, counts and the failures found since the last update.
            UpdateJob {
                id: JobId,
                state: JobState,
                progress: JobProgress,
                failures: Vec<crate::job::FileFailure>,
                /// The job is done over by another leader: failures that were told before are void.
                #[serde(default)]
                anew: bool,
            },
            /// Of older versions: ends the sessions of clients that were not heard of since this time.
            ExpireSessions {
                before_ns: i64,
            },
            /// The command's client has these open, as it told a new leader: those that are nameless stay for it.
            HoldInodes {
                inodes: Vec<InodeId>,
            },
            /// Ends the sessions of clients that were not heard of, unless they were meanwhile.
            EndSessions {
                sessions: Vec<SilentSession>,
            },
            /// Takes a lease from a holder that is silent, unless it has committed meanwhile.
            BreakLease {
                inode: InodeId,
                holder: ClientId,
                content_version: u64,
            },
            /// Removes some of a tree that was cut off, from its leaves upward.
            Reclaim {
                inode: InodeId,
                /// Who has files open that may be in it.
                #[serde(default)]
                holders: Option<Holders>,
            },
            /// No worker that lives takes anything any more of who wrote this version of a file and lost the lease.
            LeaseFenced {
                inode: InodeId,
                content_version: u64,
                /// Blocks of which not all replicas agreed, and who has them from now on: of the generation that is
                /// this version's.
                #[serde(default)]
                kept: Vec<KeptBlock>,
                /// Blocks of an object that the writer may have written over somewhere: they are fetched again.
                #[serde(default)]
                dropped: Vec<BlockId>,
            },
            /// A client's change that an under file system must make before the namespace does. Noted as an effect; the
            /// reply is [`OpReply::Noted`], or that of the change if there is nothing to be done first.
            Note(Box<Op>),
            /// The under file system has made what an effect is for: now the namespace makes the change.
            CommitChange(CommitChange),
            /// The under file system cannot make it: the change has failed with this error.
            RefuseChange {
                effect: EffectId,
                error: Error,
            },
            /// Objects that a rename has copied so far.
            NoteCopies {
                effect: EffectId,
                copies: Vec<Copied>,
            },
            /// These copies have taken the place of what they were copied from, which is gone. With `end`, so is the effect.
            SettleCopies {
                effect: EffectId,
                inodes: Vec<InodeId>,
                end: bool,
            },
            /// A worker is told to write a file to its object: one export of a file at a time.
            BeginExport {
                inode: InodeId,
                worker: WorkerId,
            },
            /// The attributes of a file are to be written to its object, without its content.
            BeginAttributes {
                inode: InodeId,
            },
            /// What became of it: of an export, or of attributes that were to be written.
            EndExport {
                effect: EffectId,
                outcome: ExportOutcome,
            },
            /// Makes names of a directory of a mount agree with a listing of the under file system.
            AgreeDir(AgreeDir),
            /// Records changes of a mount that the store was checked with.
            UpdateMount {
                id: MountId,
                changes: MountChanges,
                /// See [`MountSettings::conditions`].
                conditions: bool,
            },
            /// A leader begins to undo what the last writer of a file, who is gone, may have left on some workers. The
            /// file becomes another version, which is this attempt's: what an earlier one still does has no effect.
            /// `Stale` if it is of another version by now, or somebody has it.
            RecoverLease {
                inode: InodeId,
                content_version: u64,
            },
            /// Of a block of this file, those replicas alone are left that a power cut may have taken something of: they are to be
            /// brought to agree, as after a writer that went without a word.
            DoubtReplicas {
                inode: InodeId,
            },
            /// A worker is in service from now on, or out of it. With `from`, only if it is of that by now: what the leader
            /// has found out is void if the operator has thought again.
            SetWorkerService {
                worker: WorkerId,
                service: WorkerService,
                from: Option<WorkerService>,
            },
            /// When these files are looked at next for their time to live: when it is over, but not before a time.
            SetExpiry {
                inodes: Vec<InodeId>,
                /// Milliseconds since the Unix epoch.
                not_before_ms: u64,
                /// With them, all files of a tree are known that was to be looked through.
                #[serde(default)]
                walked: Option<Walked>,
            },
            /// Removes a file whose time to live is over, if it still is.
            Expire {
                inode: InodeId,
                unlink: Unlink,
            },
            /// These files were opened or closed then, in nanoseconds since the Unix epoch.
            Accessed {
                files: Vec<(InodeId, i64)>,
            },
            /// Inodes are pinned from now on, or are not, of themselves. Pins of what is gone are forgotten.
            SetPins {
                pin: Vec<InodeId>,
                unpin: Vec<InodeId>,
            },
            /// From now on the workers are balanced.
            StartBalance {
                tolerance_percent: u8,
            },
            /// What was begun then has ended so, or whatever is under way, unless nothing is.
            EndBalance {
                begun_ms: Option<i64>,
                how: BalanceOutcome,
            },
            /// A directory was counted, in this round of counting: it held so many bytes and inodes when the round began.
            QuotaCounted {
                directory: InodeId,
                round: u64,
                bytes: i64,
                inodes: i64,
            },
        }

        impl Op {
            /// The nodes that a client's op names, that which it makes or changes first.
            pub fn nodes(&self) -> Vec<&Node> {
                match self {
                    $(Op::$call(call) => call.nodes(),)*
                    // The leader has looked already.
                    Op::Format { .. }
                    | Op::AddWorker { .. }
                    | Op::AddMount { .. }
                    | Op::RemoveMount { .. }
                    | Op::SyncDir(_)
                    | Op::SetUfsVersion { .. }
                    | Op::AddJob { .. }
                    | Op::UpdateJob { .. }
                    | Op::ExpireSessions { .. }
                    | Op::HoldInodes { .. }
                    | Op::EndSessions { .. }
                    | Op::BreakLease { .. }
                    | Op::Reclaim { .. }
                    | Op::LeaseFenced { .. }
                    | Op::CommitChange(_)
                    | Op::RefuseChange { .. }
                    | Op::NoteCopies { .. }
                    | Op::SettleCopies { .. }
                    | Op::BeginExport { .. }
                    | Op::BeginAttributes { .. }
                    | Op::EndExport { .. }
                    | Op::AgreeDir(_)
                    | Op::UpdateMount { .. }
                    | Op::RecoverLease { .. }
                    | Op::DoubtReplicas { .. }
                    | Op::SetWorkerService { .. }
                    | Op::SetPins { .. }
                    | Op::StartBalance { .. }
                    | Op::EndBalance { .. }
                    | Op::SetExpiry { .. }
                    | Op::Expire { .. }
                    | Op::Accessed { .. }
                    | Op::QuotaCounted { .. } => Vec::new(),
                    Op::Note(op) => op.nodes(),
                }
            }
        }

        $(
            impl Mutation for $call {
                fn into_op(self) -> Op {
                    Op::$call(self)
                }

                fn reply_from(reply: OpReply) -> Result<Self::Reply> {
                    match reply {
                        OpReply::$variant(reply) => Ok(reply),
                        other => Err(Error::internal(format!(
                            concat!("the reply to ", stringify!($call), " is {:?}"), other
                        ))),
                    }
                }

                fn nodes(&self) -> Vec<&Node> {
                    vec![$(&self.$node),*]
                }
            }
        )*
    };
}
for_mutations!(ops);

/// A block and the workers that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBlock {
    pub block: BlockId,
    pub workers: Vec<WorkerId>,
}

/// A range of a directory as the under file system has it. Names in the range that are not in `objects` are removed
/// from the namespace, unless they are being written or were written and not exported yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDir {
    pub directory: InodeId,
    /// Names after this one; none = from the first.
    pub after: Option<String>,
    /// Up to and with this one; none = to the last.
    pub until: Option<String>,
    /// Sorted by name.
    pub objects: Vec<UfsObject>,
    /// The range is this name alone; `after` and `until` are none.
    #[serde(default)]
    pub only: Option<String>,
}

/// Versions before did not ask.
fn forced() -> bool {
    true
}

/// See [`Op::CommitChange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitChange {
    pub effect: EffectId,
    /// Who has open what the change takes names from.
    pub holders: Option<Holders>,
    /// Of a rename: the objects that were copied last.
    pub copies: Vec<Copied>,
}

/// The object of a file that is being renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    pub inode: InodeId,
    /// The object under its old key, which is to go.
    pub from: UfsVersion,
    /// The object under its new key. None if it was not copied, because the file's content is newer than the object.
    pub to: Option<UfsVersion>,
}

/// How an export has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportOutcome {
    /// The object is there, and this version of it.
    Stored(UfsVersion),
    /// It was not written, or what was written was not made visible. It is tried again.
    Failed,
    /// Somebody else has changed the object since it was seen last: it is this version now, or gone. The file gets
    /// another name, so that both are kept.
    Conflict(Option<UfsVersion>),
}

/// Names of a directory that a listing of the under file system says something else of than the namespace did when the
/// listing began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreeDir {
    pub directory: InodeId,
    pub names: Vec<AgreeName>,
}

/// One name. It is left alone if it is not what was known of it any more: what was made, written, renamed or deleted since
/// the listing began, the listing does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreeName {
    pub name: String,
    /// As the namespace had it before the listing began; none if it did not have it.
    pub known: Option<KnownName>,
    /// As the under file system has it; none if it does not.
    pub object: Option<UfsObject>,
}

/// What the namespace has under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownName {
    pub inode: InodeId,
    /// Of a file whose object is known.
    pub version: Option<UfsVersion>,
}

/// A session that is to end, if its client is as silent as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentSession {
    pub client: ClientId,
    /// When it was heard of last, as it is recorded.
    pub heard_ns: i64,
}

/// An entry of a listing of an under file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UfsObject {
    pub name: String,
    /// `File`, `Directory` or `Symlink`.
    pub kind: FileKind,
    /// For a file.
    pub version: Option<UfsVersion>,
    /// Where a symbolic link points.
    #[serde(default)]
    pub target: Option<String>,
    /// Of a file, what its object keeps of attributes; none where that was not asked for.
    #[serde(default)]
    pub attributes: Option<KeptAttributes>,
}

/// What applying a command yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum OpReply {
    Done(Done),
    Entry(Entry),
    /// Without workers: the leader adds where the blocks are.
    Layout(FileLayout),
    Renamed(Renamed),
    Deleted(Deleted),
    Worker(WorkerId),
    Mount(MountRecord),
    Job(JobRecord),
    /// How many inodes were added, changed and removed.
    Synced {
        added: u64,
        changed: u64,
        removed: u64,
    },
    MountRemoved(MountId),
    SessionOpened(SessionOpened),
    /// The change is on its way, as this effect.
    Noted(EffectId),
    /// Read back from a record of a reply that was an error.
    Failed(Error),
}
