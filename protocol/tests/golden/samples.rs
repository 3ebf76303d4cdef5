//! A value of every type that travels or rests: fields have different values, so that two that change places show.

use std::collections::BTreeMap;

use curvine_protocol::attr::{UfsSource, WorkerAddress};
use curvine_protocol::backup::BackupHeader;
use curvine_protocol::cluster::*;
use curvine_protocol::job::{FileFailure, JobProgress, JobRecord, JobState};
use curvine_protocol::master_or_worker::*;
use curvine_protocol::mount::{
    AttributesIn, Backlog, EffectInfo, HiddenKeys, MountChanges, MountInfo, MountRecord, MountSettings,
    MountTraffic, WriteMode,
};
use curvine_protocol::op::{
    AgreeDir, AgreeName, Command, CommitChange, Copied, ExportOutcome, KeptBlock, KnownName, Op, OpReply,
    SilentSession, SyncDir, UfsObject, Walked,
};
use curvine_protocol::*;

/// Values to show. The first has everything that may be there, more of them what may be missing.
pub trait Sample: Sized {
    fn samples() -> Vec<Self>;
}

macro_rules! samples {
    ($($type:ty => $($sample:expr),+;)*) => {$(
        impl Sample for $type {
            fn samples() -> Vec<Self> { vec![$($sample),+] }
        }
    )*};
}

pub fn context() -> CallContext {
    CallContext {
        client: ClientId(0xC11E),
        sequence: 9,
        acked_below: 8,
        deadline_ms: 30_000,
        uid: 1000,
        gid: 100,
        stale: true,
        near: 7,
    }
}

pub fn backup_header() -> BackupHeader {
    BackupHeader {
        cluster: ClusterId(0xC1),
        version: "0.1.0".to_owned(),
        time_ns: 1_700_000_000_000_000_000,
        log_index: 77,
        len_bytes: 1 << 20,
    }
}

fn path(text: &str) -> CurvinePath {
    CurvinePath::parse(text).expect("a valid path")
}

fn at(text: &str) -> Node {
    Node::Path(path(text))
}

fn version() -> UfsVersion {
    UfsVersion {
        size_bytes: 70_000,
        mtime_ms: 1_700_000_000_123,
        etag: Some("e7ag".to_owned()),
    }
}

fn attr() -> Attr {
    Attr {
        inode: InodeId(12),
        kind: FileKind::File,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        nlink: 2,
        size_bytes: 70_000,
        atime_ns: 4,
        mtime_ns: 3,
        ctime_ns: -2,
        btime_ns: 1,
        rdev: 5,
        block_bytes: 1 << 27,
        replicas: 3,
        content_version: 6,
        ufs: Some(version()),
        hole_bytes: 0,
        bare: true,
        has_acl: false,
    }
}

fn acl() -> Vec<AclEntry> {
    vec![
        AclEntry::access(AclWho::User(1000), 6),
        AclEntry::access(AclWho::Group, 0),
        AclEntry::default(AclWho::Mask, 7),
    ]
}

fn entry() -> Entry {
    Entry {
        attr: Attr {
            kind: FileKind::Symlink,
            ufs: None,
            ..attr()
        },
        target: Some("../to".to_owned()),
    }
}

fn closed() -> ClosedFile {
    ClosedFile {
        inode: InodeId(12),
        until: 7,
    }
}

fn ttl() -> Ttl {
    Ttl {
        after_ms: 86_400_000,
        action: TtlAction::Free,
        from: TtlFrom::Modification,
    }
}

fn holders() -> Holders {
    Holders {
        of: InodeId(12),
        files: vec![FileHolders {
            inode: InodeId(12),
            clients: vec![ClientId(0xC11E)],
        }],
        unsure: true,
    }
}

fn lock() -> Lock {
    Lock {
        owner: 1 << 63 | 5,
        pid: 4711,
        exclusive: true,
        start: 4,
        end: 9,
    }
}

fn held_lock() -> HeldLock {
    HeldLock {
        client: ClientId(1 << 63 | 6),
        lock: lock(),
    }
}

fn layout() -> FileLayout {
    FileLayout {
        attr: attr(),
        blocks: vec![LocatedBlock {
            block: BlockRef {
                id: BlockId(77),
                len_bytes: 70_000,
                generation: 4,
            },
            workers: vec![WorkerId(2), WorkerId(1)],
        }],
        workers: vec![WorkerAddress {
            id: WorkerId(1),
            address: "h:1".to_owned(),
            epoch: 0xE1,
        }],
        source: Some(source()),
        indexes: Vec::new(),
        damaged: vec![DamagedBlock {
            block: BlockId(77),
            workers: vec![WorkerId(3)],
            unheard: vec![WorkerId(4)],
        }],
        tier: Some(Tier::Ssd),
    }
}

fn source() -> UfsSource {
    UfsSource {
        mount: MountId(3),
        key: "a/b".to_owned(),
        version: version(),
        until_generation: u32::MAX,
    }
}

fn disk() -> DiskStatus {
    DiskStatus {
        tier: Tier::Ssd,
        path: "/d".to_owned(),
        capacity_bytes: 1 << 40,
        used_bytes: 2,
        available_bytes: 3,
        blocks: 4,
        failure: Some("EIO".to_owned()),
        cached_bytes: 1,
        pinned_bytes: 2,
    }
}

fn changes() -> MountChanges {
    MountChanges {
        options: options(),
        writable: Some(true),
        staleness_ms: Some(300),
        write_mode: Some(WriteMode::Back),
        attributes: Some(AttributesIn::Namespace),
        cache_quota_bytes: Some(1 << 40),
        locality: Some(true),
        replicas: Some(2),
    }
}

fn settings() -> MountSettings {
    MountSettings {
        writable: true,
        staleness_ms: 5_000,
        write_mode: WriteMode::Back,
        conditions: true,
        attributes: AttributesIn::Namespace,
        cache_quota_bytes: Some(1 << 40),
        locality: true,
        replicas: Some(2),
    }
}

fn kept() -> KeptAttributes {
    KeptAttributes {
        mode: Some(0o640),
        uid: Some(1_000),
        gid: None,
        mtime_ns: Some(-1_000_000_001),
        xattrs: BTreeMap::from([("user.x".to_owned(), vec![1, 255])]),
    }
}

fn options() -> BTreeMap<String, String> {
    BTreeMap::from([("region".to_owned(), "r1".to_owned())])
}

fn mount() -> MountRecord {
    MountRecord {
        id: MountId(3),
        path: path("/m"),
        uri: "s3://b/p".to_owned(),
        options: options(),
        settings: settings(),
        created_ns: 1_700_000_000_000_000_000,
    }
}

fn progress() -> JobProgress {
    JobProgress {
        files_total: 7,
        bytes_total: 6,
        files_loaded: 5,
        files_already: 4,
        files_failed: 3,
        bytes_done: 2,
        bytes_moved: 1,
    }
}

fn failures() -> Vec<FileFailure> {
    vec![FileFailure {
        path: "/m/x".to_owned(),
        error: Error::new(ErrorKind::Ufs, "503"),
    }]
}

fn job() -> JobRecord {
    JobRecord {
        id: JobId(5),
        paths: vec![path("/m")],
        state: JobState::Failed,
        progress: progress(),
        failures: failures(),
        created_ns: 10,
        ended_ns: Some(20),
    }
}

fn replica() -> BlockReplica {
    BlockReplica {
        id: BlockId(77),
        generation: 4,
        len_bytes: 70_000,
    }
}

fn pinned_size() -> PinnedSize {
    PinnedSize {
        files: 1,
        bytes: 2,
        cached_bytes: 1,
    }
}

fn pin_room() -> PinRoom {
    PinRoom {
        limit_bytes: 9,
        pinned_bytes: 2,
    }
}

fn cluster() -> ClusterId {
    ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
}

// Values of enumerations
samples! {
    Node => Node::Inode(InodeId(12)), Node::child(InodeId(1), "n"), at("/a/b");
    FileKind => FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Fifo, FileKind::Socket,
        FileKind::CharDevice, FileKind::BlockDevice;
    IfExists => IfExists::Fail, IfExists::Open, IfExists::Truncate;
    SetTime => SetTime::Now, SetTime::At(-5);
    RenameMode => RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange;
    Tier => Tier::Mem, Tier::Ssd, Tier::Hdd;
    WorkerState => WorkerState::Live, WorkerState::Lost;
    WorkerService => WorkerService::InService, WorkerService::Draining, WorkerService::Drained,
        WorkerService::Maintenance { until_ns: 1_700_000_000_000_000_000 };
    JobState => JobState::Planning, JobState::Running, JobState::Done, JobState::Failed, JobState::Cancelled;
    Error => Error::not_leader(Some("h:2".to_owned())), Error::not_found("/a");
}

// The master's calls
samples! {
    Echo => Echo {};
    Lookup => Lookup { node: at("/a/b"), follow: true };
    ListDir => ListDir { node: Node::Inode(InodeId(12)), after: Some("n".to_owned()), limit: 1000 },
        ListDir { node: at("/"), after: None, limit: 0 };
    OpenFile => OpenFile { node: Node::Inode(InodeId(12)), follow: false, open: 7 };
    GetXattr => GetXattr { node: at("/a"), name: "user.x".to_owned() };
    ListXattrs => ListXattrs { node: at("/a") };
    GetPath => GetPath { inode: InodeId(12) };
    Summarize => Summarize { node: at("/a") };
    StatFs => StatFs { node: Some(at("/d")) }, StatFs { node: None };
    GetRoutes => GetRoutes {};
    GetClusterStatus => GetClusterStatus {};
    ListMounts => ListMounts {};
    GetJob => GetJob { id: JobId(5) };
    ListJobs => ListJobs {};
    MakeDir => MakeDir { node: Node::child(InodeId(1), "d"), mode: 0o755, parents: true, unmasked: Some(0o777) },
        MakeDir { node: at("/d"), mode: 0o755, parents: false, unmasked: None };
    CreateFile => CreateFile {
        node: at("/a/f"), mode: 0o644, if_exists: IfExists::Truncate, parents: false, block_bytes: 1 << 27,
        replicas: 2, first_block: true, open: 7, unmasked: Some(0o666),
    };
    MakeNode => MakeNode { node: at("/a/p"), kind: FileKind::Fifo, mode: 0o600, rdev: 7, unmasked: Some(0o666) };
    OpenForWrite => OpenForWrite { node: Node::Inode(InodeId(12)), follow: true, truncate: false, open: 7, named: true };
    PunchHole => PunchHole { inode: InodeId(12), offset_bytes: 70_000, len_bytes: 1 << 30, keep_privileges: true };
    Concat => Concat {
        node: at("/a/f"), sources: vec![at("/a/g"), at("/a/h")],
        tail: Some(ConcatTail { node: at("/a/t"), offset_bytes: 1 << 27, versions: vec![3, 4, 5] }),
    };
    AllocateBlocks => AllocateBlocks { inode: InodeId(12), from_index: 1, until_index: 3 };
    CommitFile => CommitFile {
        inode: InodeId(12), size_bytes: 70_000,
        blocks: vec![BlockCommit {
            index: 1, id: BlockId(77), len_bytes: 70_001, generation: 4, workers: vec![WorkerId(2)], hole_bytes: 4_096,
        }],
        mtime_ns: Some(3), close: true, keep_privileges: true, abandoned: true, keep_size: true, new_generation: true,
    };
    SetAttr => SetAttr {
        node: at("/a"), follow: true,
        change: AttrChange {
            mode: Some(0o600), uid: Some(1), gid: Some(2), size_bytes: Some(3), atime: Some(SetTime::Now),
            mtime: Some(SetTime::At(4)), keep_privileges: true, named: true, replicas: Some(3),
        },
    }, SetAttr { node: at("/a"), follow: false, change: AttrChange::default() };
    Rename => Rename {
        from: at("/a"), to: Node::child(InodeId(1), "b"), mode: RenameMode::NoReplace, keep_replaced: true,
        closed: vec![closed()], holders: Some(holders()),
    };
    Unlink => Unlink { node: at("/a"), keep_open: true, closed: vec![closed()], holders: Some(holders()) };
    RemoveDir => RemoveDir { node: at("/a") };
    Delete => Delete { node: at("/a"), recursive: true, holders: Some(holders()) };
    MakeSymlink => MakeSymlink { node: at("/l"), target: "../to".to_owned() };
    MakeLink => MakeLink { source: at("/a"), node: at("/b") };
    SetXattr => SetXattr {
        node: at("/a"), name: "user.x".to_owned(), value: vec![0, 127, 128, 255], create_only: true,
        replace_only: false,
    };
    GetLease => GetLease { node: at("/a") };
    RevokeLease => RevokeLease { node: at("/a") };
    Lease => Lease { inode: InodeId(12), holder: Some(ClientId(0xC11E)), is_closed: false },
        Lease { inode: InodeId(12), holder: None, is_closed: true };
    GetAcl => GetAcl { node: at("/a") };
    ChangeAcl => ChangeAcl { node: at("/a"), change: AclChange::Modify(acl()) };
    AclChange => AclChange::Set(acl()), AclChange::Modify(acl()), AclChange::Remove(acl()), AclChange::RemoveDefault,
        AclChange::Clear;
    AclScope => AclScope::Access, AclScope::Default;
    AclWho => AclWho::Owner, AclWho::User(1000), AclWho::Group, AclWho::NamedGroup(100), AclWho::Mask, AclWho::Other;
    AclOf => AclOf { attr: Attr { has_acl: true, ..attr() }, entries: acl() };
    SetQuota => SetQuota {
        node: at("/a"),
        limits: Some(QuotaLimits { bytes: Some(1 << 40), inodes: None, soft_bytes: Some(7) }),
    };
    ListQuotas => ListQuotas { node: Some(at("/a")) };
    SetTtl => SetTtl { node: at("/a"), ttl: Some(ttl()) };
    ListTtls => ListTtls { node: Some(at("/a")) };
    SetTier => SetTier { node: at("/a"), tier: Some(Tier::Hdd) };
    ListTiers => ListTiers { node: Some(at("/a")) };
    TierRules => TierRules {
        rules: vec![TierRule { path: path("/a"), tier: Tier::Mem }],
    };
    RemoveXattr => RemoveXattr { node: at("/a"), name: "user.x".to_owned() };
    ReleaseInode => ReleaseInode { inode: InodeId(12) };
    RenewSession => RenewSession {};
    EndSession => EndSession {};
    OpenSession => OpenSession {};
    ReleaseLease => ReleaseLease { inode: InodeId(12) };
    AwaitNews => AwaitNews {};
    TellOpen => TellOpen {
        term: 5, closed: vec![closed()],
        all: Some(AllOpen { files: vec![HeldFile { inode: InodeId(13), open: 8 }], until: 9, settled_in: 5 }),
        heard: 4, over_below: 10,
    }, TellOpen { term: 5, closed: Vec::new(), all: None, heard: 0, over_below: 0 };
    TestLock => TestLock { inode: InodeId(12), lock: lock() };
    AwaitLock => AwaitLock { inode: InodeId(12), lock: lock() };
    ListLocks => ListLocks { path: Some(path("/a")) }, ListLocks { path: None };
    SetLock => SetLock { inode: InodeId(12), lock: lock() };
    Unlock => Unlock { inode: InodeId(12), owner: 1 << 63 | 5, start: 4, end: 9 };
    MountUfs => MountUfs { path: path("/m"), uri: "s3://b/p".to_owned(), options: options(), settings: settings() };
    UpdateMount => UpdateMount { path: path("/m"), changes: changes() };
    UnmountUfs => UnmountUfs { path: path("/m"), force: true };
    SubmitLoad => SubmitLoad { paths: vec![path("/m/a"), path("/m/b")] };
    PlanLoad => PlanLoad { paths: vec![path("/m/a"), path("/m/b")] };
    CancelJob => CancelJob { id: JobId(5) };
    FreeCache => FreeCache { path: path("/m") };
    PersistFile => PersistFile { inode: InodeId(12), wait: true };
    PersistTree => PersistTree { node: at("/m") };
    RegisterWorker => RegisterWorker {
        worker: Some(WorkerId(2)), cluster: Some(cluster()), address: "h:2".to_owned(), disks: vec![disk()],
        version: "0.1.0".to_owned(), epoch: 0xE1,
        labels: Labels { host: "gpu-3".to_owned(), rack: "r7".to_owned() },
    }, RegisterWorker {
        worker: None, cluster: None, address: "h:2".to_owned(), disks: vec![], version: "0.1.0".to_owned(),
        epoch: 0, labels: Labels::default(),
    };
    WorkerHeartbeat => WorkerHeartbeat {
        worker: WorkerId(2), token: 1 << 63, disks: vec![disk()], traffic: vec![(MountId(3), traffic())],
        hot: vec![HotBlock { block: BlockId(77), passes: 40 }],
    };
    ReportBlocks => ReportBlocks {
        worker: WorkerId(2), token: 3, full_start: true, full_end: false, stored: vec![replica()],
        removed: vec![BlockId(78)], number: 1 << 40, kept: vec![1], doubtful: vec![BlockId(77)],
        damaged: vec![BlockId(76)], pinned: vec![1], endangered: vec![1],
    }, ReportBlocks {
        worker: WorkerId(2), token: 3, full_start: false, full_end: true, stored: vec![], removed: vec![], number: 5,
        kept: vec![], doubtful: vec![], damaged: vec![BlockId(76)], pinned: vec![], endangered: vec![],
    };
    SetPin => SetPin { path: path("/m"), pinned: true, recursive: false };
    ListPins => ListPins { sizes: true };
    ResolveMount => ResolveMount { worker: WorkerId(2), token: 3, mount: MountId(4) };
    DescribeFile => DescribeFile { worker: WorkerId(2), token: 3, inode: InodeId(12) };
    CheckFiles => CheckFiles { inodes: vec![InodeId(5)] };
    FilesChecked => FilesChecked {
        has_heard_all: true,
        files: vec![FileCheck {
            inode: InodeId(5), blocks: 3, kept_blocks: 2,
            faults: vec![BlockFault {
                index: 1, block: BlockRef { id: BlockId(77), len_bytes: 70_000, generation: 4 },
                what: Fault::Corrupt, replicas: 0, wanted: 2, workers: vec![WorkerId(2)],
            }],
        }],
    };
    CheckHeld => CheckHeld { held: vec![HeldBlock { replica: replica(), cached: true }] };
    HeldChecked => HeldChecked { faults: vec![None, Some(Fault::Orphaned)] };
    RepairNow => RepairNow { kept: vec![WronglyCached { worker: WorkerId(2), block: BlockId(77) }] };
    SetWorkerService => SetWorkerService { worker: WorkerId(2), service: WorkerService::Draining };
    SetBalance => SetBalance { tolerance_percent: Some(10) };
    GetBalance => GetBalance {};
    BalanceStatus => BalanceStatus {
        run: Some(BalanceRun { tolerance_percent: 10, begun_ms: 1_789_000_000_000 }),
        ended: Some(BalanceEnd { at_ms: 1_788_000_000_000, how: BalanceOutcome::NothingToMove }),
        workers: vec![WorkerShare { worker: WorkerId(2), kept_bytes: 1 << 30, capacity_bytes: 1 << 40 }],
        moved_blocks: 7, moved_bytes: 1 << 29, failure: Some("worker 3 is gone".to_owned()),
    };
    ConfirmExport => ConfirmExport { worker: WorkerId(2), token: 3, effect: EffectId(41) };
    ReportUfsChanged => ReportUfsChanged { inode: InodeId(12), expected: version() };
    AddMaster => AddMaster { id: NodeId(4), address: "h:4".to_owned() };
    RemoveMaster => RemoveMaster { id: NodeId(4) };
    TransferLeadership => TransferLeadership { to: None }, TransferLeadership { to: Some(NodeId(2)) };
    TakeSnapshot => TakeSnapshot {};
    OpenBackup => OpenBackup {};
    ReadBackup => ReadBackup { id: 0xBA, offset_bytes: 1 << 20 };
    RaftMessage => RaftMessage {
        cluster: Some(ClusterId(0xC1)), from: NodeId(1), to: NodeId(2), kind: RaftMessageKind::Append,
        restored_ns: 0,
    }, RaftMessage {
        cluster: None, from: NodeId(1), to: NodeId(3), kind: RaftMessageKind::Standing,
        restored_ns: 1_700_000_000_000_000_000,
    };
    RaftMessageKind => RaftMessageKind::Append, RaftMessageKind::Vote, RaftMessageKind::SnapshotPart {
        snapshot: "00000000000000000077.mdb".to_owned(), offset_bytes: 1 << 20, checksum: 0xC5C5_0001,
    }, RaftMessageKind::SnapshotEnd {
        snapshot: "00000000000000000077.mdb".to_owned(), checksum: 0xC5C5_0002,
    }, RaftMessageKind::Standing, RaftMessageKind::Elect { again: true };
}

// The master's replies
samples! {
    RaftAnswer => RaftAnswer {};
    SnapshotTaken => SnapshotTaken { log_index: 77 };
    BackupOpened => BackupOpened { id: 0xBA, header: backup_header() };
    BackupPart => BackupPart { checksum: 0xC5C5_0003 };
    Done => Done {};
    OpenTold => OpenTold {
        term: 5, changed: vec![ChangedFile { inode: InodeId(12), content_version: 6 }], number: 8, open: Some(2),
    };
    News => News { recalls: vec![InodeId(12)] };
    LockFound => LockFound { held: Some(held_lock()) }, LockFound { held: None };
    Locks => Locks {
        files: vec![LockedFile { inode: InodeId(12), path: Some(path("/a")), locks: vec![held_lock()] }],
    };
    SessionOpened => SessionOpened { client: ClientId(1 << 63 | 6) };
    Entry => entry(), Entry { attr: attr(), target: None };
    Listing => Listing {
        directory: Attr { kind: FileKind::Directory, ufs: None, ..attr() }, parent: InodeId(1),
        entries: vec![DirEntry { name: "n".to_owned(), attr: attr(), target: Some("t".to_owned()) }], more: true,
    };
    FileLayout => layout(), FileLayout { blocks: vec![], workers: vec![], source: None, ..layout() };
    XattrValue => XattrValue { value: vec![1, 200] };
    XattrNames => XattrNames { names: vec!["user.x".to_owned()] };
    PathOf => PathOf { path: path("/a/b") };
    Summary => Summary { directories: 1, files: 2, bytes: 3, cached_bytes: 4, hole_bytes: 2 };
    FsStats => FsStats {
        capacity_bytes: 1, used_bytes: 2, available_bytes: 3, inodes: 4,
        tiers: BTreeMap::from([
            ("SSD".to_owned(), TierStats {
                capacity_bytes: 5, used_bytes: 6, available_bytes: 7, cached_bytes: 4,
            }),
        ]),
        cached_bytes: 2,
    };
    Routes => Routes {
        cluster: cluster(), leader: NodeId(1), masters: vec!["h:1".to_owned()],
        workers: vec![WorkerAddress { id: WorkerId(2), address: "h:2".to_owned(), epoch: 0xE2 }],
    };
    ClusterStatus => ClusterStatus {
        cluster: cluster(), version: "0.1.0".to_owned(),
        masters: vec![MasterStatus {
            id: NodeId(1), address: "h:1".to_owned(), role: MasterRole::Leader, applied_index: 6,
            is_reachable: true,
        }],
        workers: vec![WorkerStatus {
            id: WorkerId(2), address: "h:2".to_owned(), state: WorkerState::Lost, disks: vec![disk()],
            last_heartbeat_ms_ago: 7, version: "0.1.1".to_owned(), service: WorkerService::Draining,
            drain_left: Some(DrainLeft { blocks: 8, len_bytes: 9, open_blocks: 10, damaged_blocks: 11 }),
            labels: Labels { host: "gpu-3".to_owned(), rack: "r7".to_owned() },
        }],
        inodes: 3, mounts: 4, uptime_s: 5,
        duties: vec![DutyStatus { name: "loads".to_owned(), doing: "none".to_owned(), failure: None }],
    };
    Mounts => Mounts { mounts: vec![mount().public()] };
    MountInfo => MountInfo { backlog: Some(backlog()), hidden: vec![HiddenKeys { why: "ends with white space".to_owned(), count: 2, example: "u ".to_owned() }], traffic: Some(traffic()), ..mount().public() }, mount().public();
    MountTraffic => traffic();
    JobRecord => job(), JobRecord { failures: vec![], ended_ns: None, ..job() };
    LoadPlan => LoadPlan {
        files: 9, bytes: 900, files_cached: 2, bytes_cached: 200, requests: 7, free_bytes: 400, evictable_bytes: 100, unseen: 1,
        failures: job().failures,
        over_quota: vec![OverQuota {
            path: path("/m"), quota_bytes: 1 << 33, cached_bytes: 70_000, bytes_to_fetch: 1 << 33, bytes: 1 << 34,
        }],
    };
    Jobs => Jobs { jobs: vec![JobRecord { failures: vec![], ..job() }] };
    Renamed => Renamed { attr: attr(), replaced: Some(Attr { inode: InodeId(13), ufs: None, ..attr() }) },
        Renamed { attr: attr(), replaced: None };
    Deleted => Deleted { files: 1, directories: 2, in_background: true };
    Persisted => Persisted { files: 4, being_written: 1 };
    Freed => Freed { files: 1, bytes: 2, kept: 3 };
    PinSet => PinSet { pinned: pinned_size(), room: pin_room() };
    Quotas => Quotas {
        quotas: vec![Quota {
            path: path("/a"),
            limits: QuotaLimits { bytes: Some(1 << 40), inodes: Some(9), soft_bytes: None },
            used: QuotaUsage { bytes: 1 << 33, inodes: 3 },
            is_counted: true,
        }],
    };
    Ttls => Ttls {
        ttls: vec![TtlInfo {
            path: path("/a"),
            ttl: Ttl { action: TtlAction::Delete, from: TtlFrom::Access, ..ttl() },
            is_known: true,
            due_ns: Some(-7),
        }],
    };
    Pins => Pins {
        pins: vec![Pin { path: path("/m"), size: pinned_size() }], room: pin_room(),
    };
    WorkerRegistered => WorkerRegistered { worker: WorkerId(2), cluster: cluster(), token: 3 };
    HeartbeatOrders => HeartbeatOrders {
        register: true, cache_shares: Some(vec![CacheShare { mount: MountId(3), bytes: 1 << 33 }]),
    }, HeartbeatOrders { register: true, cache_shares: None };
    ReportAnswer => ReportAnswer {
        delete: vec![BlockId(78)], accept: vec![BlockId(77)], discard: vec![BlockId(76)],
    }, ReportAnswer { delete: vec![], accept: vec![], discard: vec![BlockId(76)] };
    MountSecret => MountSecret { record: mount() };
}

// The worker's calls and replies
samples! {
    WorkerEcho => WorkerEcho {};
    WorkerEchoed => WorkerEchoed { worker: WorkerId(2), cluster: cluster() };
    ReadBlock => ReadBlock {
        block: BlockId(77), generation: 4, offset_bytes: 65_536, len_bytes: 4_096,
        fill: Some(Fill { inode: InodeId(12), block_index: 1, whole: false, mount: Some(MountId(3)), from_store: true }), exact: false,
        tier: Wish::of(Some(Tier::Hdd)),
    }, ReadBlock { block: BlockId(77), generation: 0, offset_bytes: 0, len_bytes: 1 << 20, fill: None, exact: true, tier: Wish::UNSAID };
    BlockData => BlockData { offset_bytes: 65_536, checksums: vec![0xE306_9283, 1] };
    WriteBlock => WriteBlock {
        block: BlockId(77), generation: 4, offset_bytes: 5, checksum: 0xE306_9283, base_len_bytes: 6, reserve_bytes: 7,
        epoch: 0xE1, order: WriteOrder { number: 9, floor: 8, has: 7, life: 0x11FE },
        tier: Some(Tier::Ssd),
    };
    BlockWritten => BlockWritten { len_bytes: 70_000, life: 0x11FE };
    SealBlock => SealBlock {
        block: BlockId(77), generation: 4, sync: true, epoch: 0xE1, or_newer: true,
        order: WriteOrder { number: 9, floor: 9, has: 8, life: 0x11FE },
    };
    BlockSealed => BlockSealed { len_bytes: 70_000, life: 0x11FE, hole_bytes: 0 },
        BlockSealed { len_bytes: 70_000, life: 0x11FE, hole_bytes: 4_096 };
    PutBlock => PutBlock {
        block: BlockId(77), generation: 4, checksum: 0xE306_9283, sync: true, epoch: 0xE1,
        order: WriteOrder { number: 1, floor: 1, has: 0, life: 0 },
        tier: Some(Tier::Ssd),
    };
    PunchBlock => PunchBlock {
        block: BlockId(77), generation: 4, offset_bytes: 65_536, len_bytes: 1 << 20, base_len_bytes: 6, epoch: 0xE1,
        order: WriteOrder { number: 9, floor: 8, has: 7, life: 0x11FE },
    };
    FenceBlocks => FenceBlocks { blocks: vec![BlockId(77), BlockId(1 << 40)], generation: 5 };
    CompareBlocks => CompareBlocks { blocks: vec![BlockExtent { block: BlockId(77), len_bytes: 70_000 }] };
    BlocksCompared => BlocksCompared {
        replicas: vec![Some(ReplicaSum { generation: 4, checksum: 0xC0FF_EE00, is_doubtful: true }), None],
    };
    KeepReplicas => KeepReplicas {
        blocks: vec![BlockExtent { block: BlockId(77), len_bytes: 70_000 }], generation: 5,
    };
    MarkBlocks => MarkBlocks {
        blocks: vec![
            MarkedBlock { block: BlockId(77), generation: 5, mount: Some(MountId(3)) },
            MarkedBlock { block: BlockId(77), generation: 5, mount: None },
        ],
        cached: true, number: 41,
    };
    BlocksMarked => BlocksMarked { marked: vec![true, false] };
    CopyReplica => CopyReplica {
        block: BlockRef { id: BlockId(77), len_bytes: 70_000, generation: 5 },
        from: WorkerId(3), address: "w3:8996".to_owned(),
        others: vec![WorkerAddress { id: WorkerId(4), address: "w4:8996".to_owned(), epoch: 2 }],
    };
    ShedReplicas => ShedReplicas {
        blocks: vec![SurplusReplica {
            block: BlockRef { id: BlockId(77), len_bytes: 70_000, generation: 5 },
            keepers: vec![WorkerId(3), WorkerId(4)],
        }],
        workers: vec![WorkerAddress { id: WorkerId(3), address: "w3:8996".to_owned(), epoch: 9 }],
    };
    ReplicasShed => ReplicasShed { went: vec![true, false] };
    ConfirmReplicas => ConfirmReplicas {
        blocks: vec![BlockRef { id: BlockId(77), len_bytes: 70_000, generation: 5 }],
    };
    ReplicasConfirmed => ReplicasConfirmed {
        worker: WorkerId(3),
        replicas: vec![Some(ReplicaSum { generation: 5, checksum: 0xC0FF_EE00, is_doubtful: false }), None],
    };
    ListBlocks => ListBlocks { disk: 1, after: Some(BlockId(76)), limit: 1_000 };
    BlocksListed => BlocksListed {
        held: vec![HeldBlock { replica: replica(), cached: false }], last: Some(BlockId(78)),
    };
    ExplainBlocks => ExplainBlocks { blocks: vec![BlockId(77), BlockId(78)] };
    BlocksExplained => BlocksExplained {
        blocks: vec![
            BlockAccount {
                held: Some(HeldAccount {
                    disk: "/data".to_owned(), tier: Tier::Ssd, generation: 4, len_bytes: 70_000, present_bytes: 65_536,
                    is_sealed: false, cached: true, pinned: true, came_ms: 1_700_000_000_000, read_ms: Some(1_700_000_000_500),
                    copy: Some(Tier::Mem), wished: Some(Tier::Hdd),
                }),
                gone: None,
            },
            BlockAccount {
                held: None,
                gone: Some(Departure { at_ms: 1_700_000_000_000, why: Gone::EvictedForLoad(JobId(5)) }),
            },
            BlockAccount {
                held: None, gone: Some(Departure { at_ms: 1_700_000_000_000, why: Gone::EvictedForQuota }),
            },
        ],
    };
    Scrub => Scrub { start: Some(64 << 20) };
    ScrubStatus => ScrubStatus {
        disks: vec![DiskScrub {
            path: "/data".to_owned(), runs: true, passes: 2, verified_bytes: 1 << 30, corrupt_blocks: 1,
            used_bytes: 1 << 31,
        }],
    };
    SuspectBlock => SuspectBlock { block: BlockId(77), offset_bytes: 65_536, len_bytes: 4_096 };
    BlockVerified => BlockVerified { is_right: true };
    DeleteBlocks => DeleteBlocks { blocks: vec![BlockId(77), BlockId(1 << 40)] };
    LoadBlocks => LoadBlocks {
        tasks: vec![LoadTask {
            block: BlockId(77), generation: 4, len_bytes: 70_000, object_offset_bytes: 8, source: source(), tier: Some(Tier::Mem),
            copy: Some(CopyCached {
                inode: InodeId(12), block_index: 3,
                workers: vec![WorkerAddress { id: WorkerId(2), address: "h:2".to_owned(), epoch: 0xE1 }],
            }),
        }],
        patience_ms: 1_000, job: Some(JobId(5)),
    };
    BlocksLoaded => BlocksLoaded {
        outcomes: vec![Ok(70_000), Err(Error::new(ErrorKind::UfsChanged, "changed"))],
        under_way: vec![0],
    };
    PinBlocks => PinBlocks { blocks: vec![BlockId(77)], pinned: true, number: 1 << 41 };
    BlocksPinned => BlocksPinned { ordered: vec![true, false] };
    StopLoading => StopLoading { blocks: vec![BlockId(77), BlockId(1 << 40)] };
    LoadingStopped => LoadingStopped { fetched_bytes: vec![70_000, 0] };
    ExportFile => ExportFile {
        inode: InodeId(12), mount: MountId(3), key: "a/b".to_owned(), size_bytes: 70_000, layout: layout(),
        effect: EffectId(41), replaces: Some(version()), mark: "c1.12.6".to_owned(),
        attributes: Some(kept()),
    };
    FileExported => FileExported { version: version() };
    GetWorkerStatus => GetWorkerStatus {};
    WorkerDisks => WorkerDisks { worker: WorkerId(2), disks: vec![disk()] };
    GetHostSocket => GetHostSocket {};
    HostSocketName => HostSocketName { name: "curvine-worker-00c0ffee".to_owned() };
    HostRequest => HostRequest::Lend { number: 3, block: BlockId(77), generation: 5 },
        HostRequest::Return { number: 3, read_bytes: 70_000, mount: Some(MountId(4)) };
    HostReply => HostReply { number: 3, lent: Ok(LentBlock { len_bytes: 70_000, checksums: vec![0xC0FF_EE00, 7] }) },
        HostReply { number: 4, lent: Err(Error::new(ErrorKind::NotFound, "block 77 is not here")) };
}

fn traffic() -> MountTraffic {
    MountTraffic {
        hits: 9,
        hit_bytes: 1 << 33,
        misses: 2,
        miss_bytes: 5,
        fetched_bytes: 1 << 20,
        cached_bytes: 1 << 34,
        quota_evicted_bytes: 70_000,
    }
}

fn backlog() -> Backlog {
    Backlog {
        files: 3,
        bytes: 70_001,
        oldest_ns: 1_700_000_000_000_000_001,
        effects: vec![EffectInfo {
            id: EffectId(41),
            what: "rename".to_owned(),
            key: "a".to_owned(),
            to: Some("b".to_owned()),
            since_ns: 1_700_000_000_000_000_002,
            done: 4,
            failure: Some("503".to_owned()),
        }],
        failures: vec![("a/b".to_owned(), "403".to_owned())],
    }
}

fn copied() -> Copied {
    Copied {
        inode: InodeId(12),
        from: version(),
        to: Some(version()),
    }
}

// The replicated log
samples! {
    Command => Command {
        client: ClientId(0xC11E), sequence: 9, acked_below: 8, uid: 1000, gid: 100, time_ns: 1_700_000_000_000_000_000,
        op: Op::RemoveDir(RemoveDir { node: at("/a") }), waits: true,
    };
    OpReply => OpReply::Done(Done {}), OpReply::Entry(entry()), OpReply::Layout(layout()),
        OpReply::Renamed(Renamed { attr: attr(), replaced: None }),
        OpReply::Deleted(Deleted { files: 1, directories: 2, in_background: true }), OpReply::Worker(WorkerId(2)), OpReply::Mount(mount()),
        OpReply::Job(job()), OpReply::Synced { added: 1, changed: 2, removed: 3 }, OpReply::MountRemoved(MountId(3)),
        OpReply::SessionOpened(SessionOpened::samples().remove(0)),
        OpReply::Noted(EffectId(41)), OpReply::Failed(Error::not_found("/a"));
}

impl Sample for Op {
    fn samples() -> Vec<Self> {
        macro_rules! of_calls {
            (; $($call:ident -> $variant:ident $nodes:tt;)*) => { vec![$(Op::$call($call::samples().remove(0))),*] };
        }
        let mut ops = for_mutations!(of_calls);
        ops.extend([
            Op::Format { cluster: cluster() },
            Op::AddWorker {
                address: "h:2".to_owned(),
            },
            Op::AddMount {
                path: path("/m"),
                uri: "s3://b/p".to_owned(),
                options: options(),
                settings: settings(),
            },
            Op::RemoveMount {
                path: path("/m"),
                force: true,
            },
            Op::UpdateMount {
                id: MountId(3),
                changes: changes(),
                conditions: true,
            },
            Op::SyncDir(SyncDir {
                directory: InodeId(12),
                after: Some("a".to_owned()),
                until: Some("z".to_owned()),
                objects: vec![UfsObject {
                    name: "n".to_owned(),
                    kind: FileKind::File,
                    version: Some(version()),
                    target: None,
                    attributes: Some(kept()),
                }],
                only: Some("n".to_owned()),
            }),
            Op::SetUfsVersion {
                inode: InodeId(12),
                version: version(),
            },
            Op::AddJob {
                paths: vec![path("/m")],
            },
            Op::UpdateJob {
                id: JobId(5),
                state: JobState::Running,
                progress: progress(),
                failures: failures(),
                anew: true,
            },
            Op::ExpireSessions { before_ns: -1 },
            Op::EndSessions {
                sessions: vec![SilentSession {
                    client: ClientId(0xC11E),
                    heard_ns: -2,
                }],
            },
            Op::HoldInodes {
                inodes: vec![InodeId(12), InodeId(13)],
            },
            Op::BreakLease {
                inode: InodeId(12),
                holder: ClientId(0xC11E),
                content_version: 6,
            },
            Op::Reclaim {
                inode: InodeId(12),
                holders: Some(holders()),
            },
            Op::LeaseFenced {
                inode: InodeId(12),
                content_version: 7,
                kept: vec![KeptBlock {
                    block: BlockId(77),
                    workers: vec![WorkerId(1), WorkerId(2)],
                }],
                dropped: vec![BlockId(78)],
            },
            Op::RecoverLease {
                inode: InodeId(12),
                content_version: 6,
            },
            Op::DoubtReplicas { inode: InodeId(12) },
            Op::SetWorkerService {
                worker: WorkerId(2),
                service: WorkerService::Drained,
                from: Some(WorkerService::Draining),
            },
            Op::StartBalance {
                tolerance_percent: 10,
            },
            Op::EndBalance {
                begun_ms: Some(1_789_000_000_000),
                how: BalanceOutcome::Balanced,
            },
            Op::QuotaCounted {
                directory: InodeId(12),
                round: 1,
                bytes: 1 << 40,
                inodes: -3,
            },
            Op::SetExpiry {
                inodes: vec![InodeId(12)],
                not_before_ms: 1 << 40,
                walked: Some(Walked {
                    top: InodeId(13),
                    round: 2,
                }),
            },
            Op::Expire {
                inode: InodeId(12),
                unlink: Unlink {
                    node: at("/a"),
                    keep_open: false,
                    closed: Vec::new(),
                    holders: None,
                },
            },
            Op::Accessed {
                files: vec![(InodeId(12), -1)],
            },
            Op::SetPins {
                pin: vec![InodeId(12)],
                unpin: vec![InodeId(13)],
            },
            Op::Note(Box::new(Op::RemoveDir(RemoveDir { node: at("/a") }))),
            Op::CommitChange(CommitChange {
                effect: EffectId(41),
                holders: Some(holders()),
                copies: vec![copied()],
            }),
            Op::RefuseChange {
                effect: EffectId(41),
                error: Error::not_found("/a"),
            },
            Op::NoteCopies {
                effect: EffectId(41),
                copies: vec![copied()],
            },
            Op::SettleCopies {
                effect: EffectId(41),
                inodes: vec![InodeId(12)],
                end: true,
            },
            Op::BeginExport {
                inode: InodeId(12),
                worker: WorkerId(2),
            },
            Op::BeginAttributes { inode: InodeId(12) },
            Op::EndExport {
                effect: EffectId(41),
                outcome: ExportOutcome::Stored(version()),
            },
            Op::AgreeDir(AgreeDir {
                directory: InodeId(12),
                names: vec![
                    AgreeName {
                        name: "n".to_owned(),
                        known: Some(KnownName {
                            inode: InodeId(13),
                            version: Some(version()),
                        }),
                        object: Some(UfsObject {
                            name: "n".to_owned(),
                            kind: FileKind::Symlink,
                            version: None,
                            target: Some("t".to_owned()),
                            attributes: None,
                        }),
                    },
                    AgreeName {
                        name: "gone".to_owned(),
                        known: None,
                        object: None,
                    },
                ],
            }),
        ]);
        ops
    }
}
