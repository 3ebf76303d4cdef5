//! The bytes of the namespace on disk: every database of it after a few commands, and every form of an inode.

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::job::{FileFailure, JobProgress, JobRecord, JobState};
use curvine_protocol::master::*;
use curvine_protocol::mount::{MountRecord, MountSettings};
use curvine_protocol::op::{Command, Op, OpReply, SyncDir, UfsObject};
use curvine_protocol::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::apply::Effects;
use super::records::{BlockList, FileBody, InodeBody, InodeRecord};
use super::store::{Dbs, Raw, Store};
use crate::golden::{Golden, as_they_are, file};

fn record(body: InodeBody) -> InodeRecord {
    InodeRecord {
        kind: match body {
            InodeBody::Directory => FileKind::Directory,
            InodeBody::File(_) => FileKind::File,
            InodeBody::Symlink(_) => FileKind::Symlink,
            InodeBody::Special(_) => FileKind::CharDevice,
        },
        mode: 0o640,
        uid: 1000,
        gid: 100,
        nlink: 2,
        parent: InodeId(5),
        mount: MountId(3),
        name: "n".to_owned(),
        mtime_ns: 1_700_000_000_000_000_000,
        ctime_ns: 1_700_000_000_000_000_001,
        atime_minus_mtime_ns: -2,
        btime_minus_mtime_ns: -300,
        body,
        holders: 0,
        acl: Vec::new(),
    }
}

fn body(blocks: BlockList) -> FileBody {
    FileBody {
        size_bytes: 70_000,
        block_bytes: 1 << 27,
        replicas: 3,
        content_version: 6,
        blocks,
        lease: Some(ClientId(0xC11E)),
        ufs: Some(UfsVersion {
            size_bytes: 70_000,
            mtime_ms: 1_700_000_000_123,
            etag: Some("e7ag".to_owned()),
        }),
        needs_export: true,
        unfenced: true,
        holes: Vec::new(),
        cached_below: 0,
    }
}

fn each() -> BlockList {
    BlockList::Each(vec![BlockRef {
        id: BlockId(77),
        len_bytes: 70_000,
        generation: 4,
    }])
}

fn holes() -> BlockList {
    let BlockList::Each(blocks) = each() else {
        unreachable!("it is made of single blocks")
    };
    BlockList::Sparse((7..).zip(blocks).collect())
}

#[test]
fn every_form_of_an_inode_has_its_golden_bytes() {
    let mut golden = Golden::new("Inodes: the values of the database `inodes`.");
    for body in [
        InodeBody::Directory,
        InodeBody::File(FileBody::default()),
        InodeBody::File(body(each())),
        InodeBody::File(body(BlockList::Run(BlockId(77)))),
        InodeBody::File(FileBody {
            holes: vec![(7, 4_096)],
            ..body(holes())
        }),
        InodeBody::Symlink("../to".to_owned()),
        InodeBody::Special(0x0103),
    ] {
        let name = match &body {
            InodeBody::Directory => "directory",
            InodeBody::File(file) => match &file.blocks {
                BlockList::Each(blocks) if blocks.is_empty() => "empty file",
                BlockList::Each(_) => "file of single blocks",
                BlockList::Run(_) => "file of a run of blocks",
                BlockList::Sparse(_) => "file with holes",
            },
            InodeBody::Symlink(_) => "symbolic link",
            InodeBody::Special(_) => "device",
        };
        golden.value(name, &record(body));
    }
    let with_acl = InodeRecord {
        acl: vec![
            AclEntry::access(AclWho::User(1000), 6),
            AclEntry::access(AclWho::Group, 5),
            AclEntry::default(AclWho::Owner, 7),
            AclEntry::default(AclWho::Group, 5),
            AclEntry::default(AclWho::Other, 0),
        ],
        ..record(InodeBody::Directory)
    };
    golden.value("directory with an access control list", &with_acl);
    golden.check(&file("inodes.txt"));
}

/// [`InodeRecord`] as a newer version may have it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewerRecord {
    kind: FileKind,
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    parent: InodeId,
    mount: MountId,
    name: String,
    mtime_ns: i64,
    ctime_ns: i64,
    atime_minus_mtime_ns: i64,
    btime_minus_mtime_ns: i64,
    body: InodeBody,
    #[serde(default)]
    holders: u32,
    #[serde(default)]
    acl: Vec<AclEntry>,
    #[serde(default)]
    quota: Option<u64>,
}

fn newer(quota: Option<u64>) -> NewerRecord {
    let now = record(InodeBody::File(body(each())));
    NewerRecord {
        kind: now.kind,
        mode: now.mode,
        uid: now.uid,
        gid: now.gid,
        nlink: now.nlink,
        parent: now.parent,
        mount: now.mount,
        name: now.name,
        mtime_ns: now.mtime_ns,
        ctime_ns: now.ctime_ns,
        atime_minus_mtime_ns: now.atime_minus_mtime_ns,
        btime_minus_mtime_ns: now.btime_minus_mtime_ns,
        body: now.body,
        holders: now.holders,
        acl: now.acl,
        quota,
    }
}

#[test]
fn an_inode_of_a_newer_version_is_read_and_one_of_an_older_too() {
    let now = record(InodeBody::File(body(each())));
    assert_eq!(decode(&encode(&newer(Some(5)))), Ok(now.clone()));
    assert_eq!(decode(&encode(&now)), Ok(newer(None)));
}

fn at(path: &str) -> Node {
    Node::Path(CurvinePath::parse(path).expect("a valid path"))
}

/// A state in which every database has something.
fn state() -> (Store, tempfile::TempDir) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let store = Store::open(scratch.path()).expect("opens");
    let create = CreateFile {
        node: at("/f"),
        mode: 0o644,
        if_exists: IfExists::Fail,
        parents: false,
        block_bytes: 1 << 20,
        replicas: 1,
        first_block: true,
        open: 0,
        unmasked: None,
    };
    let mount = CurvinePath::parse("/m").expect("a valid path");
    let object = UfsObject {
        name: "o".to_owned(),
        kind: FileKind::File,
        version: Some(UfsVersion {
            size_bytes: 5,
            mtime_ms: 6,
            etag: None,
        }),
        target: None,
        attributes: None,
    };
    let ops = [
        Op::Format {
            cluster: ClusterId(0xC1),
        },
        Op::AddWorker {
            address: "h:2".to_owned(),
        },
        Op::CreateFile(create.clone()),
        Op::SetQuota(SetQuota {
            node: at("/d"),
            limits: Some(QuotaLimits {
                bytes: Some(1 << 40),
                inodes: None,
                soft_bytes: Some(7),
            }),
        }),
        Op::SetXattr(SetXattr {
            node: at("/f"),
            name: "user.x".to_owned(),
            value: vec![1, 255],
            create_only: false,
            replace_only: false,
        }),
        Op::CreateFile(CreateFile {
            node: at("/gone"),
            first_block: false,
            open: 0,
            ..create
        }),
        Op::Unlink(Unlink {
            node: at("/gone"),
            keep_open: true,
            closed: Vec::new(),
            holders: None,
        }),
        Op::RemoveDir(RemoveDir { node: at("/f") }),
        Op::AddMount {
            path: mount.clone(),
            uri: "s3://b/p".to_owned(),
            options: [("region".to_owned(), "r1".to_owned())].into(),
            settings: MountSettings::default(),
        },
        Op::SyncDir(SyncDir {
            directory: InodeId(4),
            after: None,
            until: None,
            objects: vec![object],
            only: None,
        }),
        Op::AddJob { paths: vec![mount] },
        Op::UpdateJob {
            id: JobId(1),
            state: JobState::Running,
            progress: JobProgress {
                files_total: 2,
                files_failed: 1,
                ..JobProgress::default()
            },
            failures: vec![FileFailure {
                path: "/m/x".to_owned(),
                error: Error::new(ErrorKind::Ufs, "503"),
            }],
            anew: false,
        },
    ];
    let mut txn = store.write().expect("one writer");
    for (number, op) in (1..).zip(ops) {
        let remembered = matches!(op, Op::CreateFile(_) | Op::RemoveDir(_));
        let command = Command {
            client: ClientId(0xC11E),
            sequence: if remembered { number } else { 0 },
            acked_below: 0,
            uid: 7,
            gid: 8,
            time_ns: 1_000 + i64::try_from(number).expect("it is small"),
            op,
            waits: false,
        };
        store
            .apply(&mut txn, vec![command], &mut Effects::default())
            .expect("the disk works");
    }
    txn.commit().expect("room");
    (store, scratch)
}

/// The entries of a database, whose values are MessagePack.
fn values<T: Serialize + DeserializeOwned + 'static>(
    golden: &mut Golden,
    store: &Store,
    name: &str,
    database: Raw,
) {
    each_entry(store, name, database, |name, bytes| {
        golden.value(&name, &decode::<T>(bytes).expect("as it was written"));
    });
}

/// The entries of a database, whose values are other bytes.
fn raw(golden: &mut Golden, store: &Store, name: &str, says: &str, database: Raw) {
    each_entry(store, name, database, |name, bytes| {
        golden.bytes(&name, says, bytes, as_they_are);
    });
}

fn each_entry(store: &Store, name: &str, database: Raw, mut visit: impl FnMut(String, &[u8])) {
    let txn = store.read().expect("a reader");
    let mut entries = 0;
    for entry in database.iter(&txn).expect("readable") {
        let (key, bytes) = entry.expect("readable");
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        visit(format!("{name} {key}"), bytes);
        entries += 1;
    }
    assert!(entries > 0, "the database {name} has an entry to show");
}

#[test]
fn every_database_of_the_namespace_has_its_golden_bytes() {
    let (store, _scratch) = state();
    let mut golden = Golden::new("The namespace after a few commands: database and key, then the value.");
    // Named one by one: a new database does not compile here until it is shown.
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
    } = store.dbs;
    values::<InodeRecord>(&mut golden, &store, "inodes", inodes);
    raw(&mut golden, &store, "dentries", "inode", dentries);
    raw(&mut golden, &store, "xattrs", "as set", xattrs);
    raw(
        &mut golden,
        &store,
        "blocks",
        "inode, index of the first block, count",
        blocks,
    );
    raw(&mut golden, &store, "leases", "nothing", leases);
    raw(&mut golden, &store, "orphans", "nothing", orphans);
    raw(
        &mut golden,
        &store,
        "sessions",
        "last heard of (ns), floor, whether it has ended",
        sessions,
    );
    values::<Result<OpReply>>(&mut golden, &store, "replies", replies);
    values::<MountRecord>(&mut golden, &store, "mounts", mounts);
    values::<JobRecord>(&mut golden, &store, "jobs", jobs);
    each_entry(&store, "meta", meta, |name, bytes| {
        golden.bytes(&name, "counter, or a record", bytes, as_they_are);
    });
    golden.check(&file("namespace.txt"));
}
