//! The master service: what clients and workers ask of a master.
//!
//! The requests and replies lie with their family; every call has one row in the table `for_master_calls!`. Calls that
//! change the namespace become an [`Op`](crate::op::Op) in the replicated log and are answered only after commit and
//! apply. Every other call is answered from the leader's state.
//!
//! Errors: a request's documentation names those that are its own. Any call may also say `NotLeader`, `Overloaded`,
//! `Timeout` or `Stopping`; a change `NoSpace` or `Io` of the masters' disks; whatever names a
//! [`Node`](crate::path::Node) `NotFound`, `NotADirectory`, `TooManySymlinks`, `NameTooLong`, `InvalidArgument` for
//! what is no name, and `Stale` for an inode that is gone; and whatever is in a mount `Ufs`, `UfsDenied`, and for
//! changes `ReadOnly` and `Unsupported`.

mod acls;
mod balance;
mod check;
mod content;
mod group;
mod jobs;
mod locks;
mod mounts;
mod names;
mod pins;
mod quotas;
mod tiers;
mod ttl;
mod workers;

pub use acls::*;
pub use balance::*;
pub use check::*;
pub use content::*;
pub use group::*;
pub use jobs::*;
pub use locks::*;
pub use mounts::*;
pub use names::*;
pub use pins::*;
pub use quotas::*;
pub use tiers::*;
pub use ttl::*;
pub use workers::*;

use crate::attr::FileLayout;
use crate::call::{Call, Done, calls};
use crate::cluster::ClusterStatus;
use crate::job::JobRecord;
use crate::mount::MountInfo;

/// The calls of the master service: calls `$callback! { $($context)* ; row; row; ... }`.
///
/// A row says all there is to say of a call, in this order:
///
/// - `code => Request -> Reply`: the code on the wire, unique for ever.
/// - `by`: which part of a master answers: the field of its door.
/// - `deadline`: how long a client waits for one try, see [`DeadlineClass`].
/// - `stale: true`: a master that does not lead may answer from the state that it has, if the caller is content.
///   Look-ups, listings, extended attributes, access control lists and paths: what a master that follows knows as well as its leader did. It
///   does not know where blocks are.
/// - `op` and `nodes`: the call is a mutation: it becomes the op of its name, whose reply is this variant of
///   [`OpReply`](crate::op::OpReply), and these of its fields name nodes, that which it makes or changes first.
/// - `body`: most bytes of the reply's body, where it has one.
///
/// A callback that wants some of it matches the rest as `{ $($rest:tt)* }`.
#[macro_export]
macro_rules! for_master_calls {
    ($($callback:ident)::+ $(, $($context:tt)*)?) => {
        $($callback)::+! { $($($context)*)? ;
            100 => Echo -> Done { by: namespace, deadline: Short };
            101 => Lookup -> Entry { by: namespace, deadline: Short, stale: true };
            102 => ListDir -> Listing { by: namespace, deadline: Short, stale: true };
            103 => OpenFile -> FileLayout { by: namespace, deadline: Short };
            104 => GetXattr -> XattrValue { by: namespace, deadline: Short, stale: true };
            105 => ListXattrs -> XattrNames { by: namespace, deadline: Short, stale: true };
            106 => GetPath -> PathOf { by: namespace, deadline: Short, stale: true };
            107 => Summarize -> Summary { by: cluster, deadline: Long };
            108 => StatFs -> FsStats { by: cluster, deadline: Short };
            109 => GetRoutes -> Routes { by: cluster, deadline: Short };
            110 => GetClusterStatus -> ClusterStatus { by: cluster, deadline: Short };
            111 => ListMounts -> Mounts { by: mounts, deadline: Short };
            112 => GetJob -> JobRecord { by: jobs, deadline: Short };
            113 => ListJobs -> Jobs { by: jobs, deadline: Short };
            114 => AwaitNews -> News { by: news, deadline: Short };
            115 => TestLock -> LockFound { by: namespace, deadline: Short };
            116 => AwaitLock -> Done { by: namespace, deadline: Short };
            117 => ListLocks -> Locks { by: namespace, deadline: Short };
            118 => TellOpen -> OpenTold { by: namespace, deadline: Short };

            120 => MakeDir -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            121 => CreateFile -> FileLayout { by: namespace, deadline: Short, op: Layout, nodes: [node] };
            122 => MakeNode -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            123 => OpenForWrite -> FileLayout { by: namespace, deadline: Short, op: Layout, nodes: [node] };
            124 => AllocateBlocks -> FileLayout { by: namespace, deadline: Short, op: Layout, nodes: [] };
            125 => CommitFile -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [] };
            126 => SetAttr -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            127 => Rename -> Renamed { by: namespace, deadline: Short, op: Renamed, nodes: [from, to] };
            128 => Unlink -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            129 => RemoveDir -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            130 => Delete -> Deleted { by: namespace, deadline: Short, op: Deleted, nodes: [node] };
            131 => MakeSymlink -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            132 => MakeLink -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node, source] };
            133 => SetXattr -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            134 => RemoveXattr -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            135 => ReleaseInode -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            136 => RenewSession -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            137 => EndSession -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            138 => OpenSession -> SessionOpened { by: namespace, deadline: Short, op: SessionOpened, nodes: [] };
            139 => ReleaseLease -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            140 => SetLock -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            141 => Unlock -> Done { by: namespace, deadline: Short, op: Done, nodes: [] };
            142 => Concat -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            143 => GetAcl -> AclOf { by: namespace, deadline: Short, stale: true };
            144 => ChangeAcl -> Entry { by: namespace, deadline: Short, op: Entry, nodes: [node] };
            145 => GetLease -> Lease { by: namespace, deadline: Short };
            146 => RevokeLease -> Lease { by: namespace, deadline: Short };
            149 => PunchHole -> FileLayout { by: namespace, deadline: Short, op: Layout, nodes: [] };

            150 => MountUfs -> MountInfo { by: mounts, deadline: Long };
            151 => UnmountUfs -> Done { by: mounts, deadline: Long };
            152 => SubmitLoad -> JobRecord { by: jobs, deadline: Long };
            153 => CancelJob -> JobRecord { by: jobs, deadline: Long };
            154 => FreeCache -> Freed { by: mounts, deadline: Long };
            155 => PersistFile -> Entry { by: mounts, deadline: Long };
            156 => PersistTree -> Persisted { by: mounts, deadline: Long };
            157 => UpdateMount -> MountInfo { by: mounts, deadline: Long };
            158 => PlanLoad -> LoadPlan { by: jobs, deadline: Long };

            165 => SetBalance -> Done { by: workers, deadline: Short };
            166 => GetBalance -> BalanceStatus { by: workers, deadline: Short };

            170 => RegisterWorker -> WorkerRegistered { by: workers, deadline: Short };
            171 => WorkerHeartbeat -> HeartbeatOrders { by: workers, deadline: Short };
            172 => ReportBlocks -> ReportAnswer { by: workers, deadline: Short };
            173 => ResolveMount -> MountSecret { by: workers, deadline: Short };
            174 => DescribeFile -> FileLayout { by: workers, deadline: Short };
            175 => ReportUfsChanged -> Done { by: workers, deadline: Short };
            176 => ConfirmExport -> Done { by: workers, deadline: Short };
            177 => SetWorkerService -> Done { by: workers, deadline: Short };
            178 => CheckFiles -> FilesChecked { by: cluster, deadline: Short };
            179 => CheckHeld -> HeldChecked { by: cluster, deadline: Short };
            186 => RepairNow -> Done { by: cluster, deadline: Short };

            180 => AddMaster -> Done { by: replica, deadline: Long };
            181 => RemoveMaster -> Done { by: replica, deadline: Long };
            182 => TransferLeadership -> Done { by: replica, deadline: Long };
            183 => TakeSnapshot -> SnapshotTaken { by: replica, deadline: Long };
            184 => OpenBackup -> BackupOpened { by: replica, deadline: Long };
            185 => ReadBackup -> BackupPart { by: replica, deadline: Short, body: |_call| BACKUP_PART_BYTES };

            187 => SetQuota -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            188 => ListQuotas -> Quotas { by: namespace, deadline: Short };
            196 => SetTtl -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            197 => ListTtls -> Ttls { by: namespace, deadline: Short };
            198 => SetTier -> Done { by: namespace, deadline: Short, op: Done, nodes: [node] };
            199 => ListTiers -> TierRules { by: namespace, deadline: Short };
            191 => SetPin -> PinSet { by: mounts, deadline: Long };
            192 => ListPins -> Pins { by: mounts, deadline: Long };

            190 => RaftMessage -> RaftAnswer { by: replica, deadline: Short, body: |_call| RAFT_ANSWER_BYTES_MAX };
        }
    };
}

/// The rows of `for_master_calls!` that are mutations, cut to what an op is:
/// calls `$callback! { $($context)* ; Call -> OpReplyVariant [nodes]; ... }`.
#[macro_export]
macro_rules! for_mutations {
    (@[$($to:tt)*] [$($kept:tt)*] ;
        $code:literal => $call:ident -> $reply:ident {
            by: $by:ident, deadline: $deadline:ident, op: $op:ident, nodes: $nodes:tt
        };
        $($rows:tt)*
    ) => {
        $crate::for_mutations! { @[$($to)*] [$($kept)* $call -> $op $nodes;] ; $($rows)* }
    };
    (@[$($to:tt)*] $kept:tt ; $code:literal => $call:ident -> $reply:ident { $($rest:tt)* }; $($rows:tt)*) => {
        $crate::for_mutations! { @[$($to)*] $kept ; $($rows)* }
    };
    (@[$callback:ident $($context:tt)*] [$($kept:tt)*] ;) => {
        $callback! { $($context)* ; $($kept)* }
    };
    ($callback:ident $(, $($context:tt)*)?) => {
        $crate::for_master_calls! { $crate::for_mutations, @[$callback $($($context)*)?] [] }
    };
}

/// A call of the master service: what its caller must know of it before asking.
pub trait MasterCall: Call {
    /// How long one try may take.
    const DEADLINE: DeadlineClass;
    /// Whether a master that does not lead may answer, from a state of any age, if the caller is content with that.
    const STALE: bool = false;
}

/// How long one try of a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineClass {
    /// Answered from what a master has.
    Short,
    /// As long as a service far away or a big tree takes: checks of mounts, walks, exports, changes of the group.
    Long,
}

macro_rules! declare {
    (; $($code:literal => $call:ident -> $reply:ident {
        by: $by:ident, deadline: $deadline:ident
        $(, stale: $stale:literal)?
        $(, op: $op:ident, nodes: $nodes:tt)?
        $(, body: |$this:ident| $bytes:expr)?
    };)*) => {
        calls! { ; $($code => $call -> $reply { $(body: |$this| $bytes)? };)* }

        $(
            impl MasterCall for $call {
                const DEADLINE: DeadlineClass = DeadlineClass::$deadline;
                $(const STALE: bool = $stale;)?
            }
        )*
    };
}
for_master_calls!(declare);
