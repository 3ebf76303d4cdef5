//! A master of one voter on a scratch directory: the real Replica and Namespace, without workers.

#![expect(
    clippy::disallowed_methods,
    reason = "a test measures, and starts what it needs where it is"
)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use curvine_protocol::master::*;
use curvine_protocol::op::{KeptBlock, Op};
use curvine_protocol::*;

use super::contract::{Fences, Placement, Reader, UfsView};
use super::namespace::actor::{FileDefaults, NamespacePort, OwnCommands, Parts};
use super::namespace::holding::Holding;
use super::namespace::leases::Leases;
use super::namespace::opens::Opens;
use super::namespace::recovery::Recovery;
use super::replica::{LogLimits, Members, OpenState, Proxies, ReplicaConfig, ReplicaPort};
use crate::kit::{Ports, call};

/// No mounts, so nothing is asked.
struct NoUfs;

#[async_trait]
impl UfsView for NoUfs {
    async fn refresh_path(&self, _path: &CurvinePath) -> Result<()> {
        Ok(())
    }
    async fn refresh_child(&self, _directory: InodeId, _name: &str) -> Result<()> {
        Ok(())
    }
    async fn refresh_inode(&self, _inode: InodeId) -> Result<()> {
        Ok(())
    }
    async fn refresh_dir(&self, _directory: InodeId) -> Result<()> {
        Ok(())
    }
    async fn may_change(&self, _op: &Op, _places: &[Node]) -> Result<()> {
        Ok(())
    }
}

/// No workers.
struct NoWorkers;

#[async_trait]
impl Fences for NoWorkers {
    async fn fence(&self, _: InodeId, _: &[BlockId], _: u32) -> Result<()> {
        Ok(())
    }

    async fn agree(&self, _: InodeId, _: &[BlockRef], _: usize, _: u32) -> Result<Vec<KeptBlock>> {
        Ok(Vec::new())
    }

    async fn written_over(&self, _: &[BlockRef]) -> Result<Vec<BlockId>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Placement for NoWorkers {
    fn locate_for(&self, _layout: &mut FileLayout, _reader: Reader) {}
    fn place(&self, _layout: &mut FileLayout, _writer: Reader) -> Result<()> {
        Ok(())
    }
    fn committed(&self, _blocks: &[BlockCommit]) {}
    fn released(&self, _blocks: &[BlockId]) {}
    fn stats(&self) -> FsStats {
        FsStats::default()
    }
    fn cached_bytes(&self, _blocks: &[BlockRef]) -> u64 {
        0
    }
}

struct Master {
    replica: ReplicaPort,
    namespace: NamespacePort,
}

async fn start(directory: &Path) -> Master {
    let ports = Ports::system();
    let state = OpenState::open(directory).expect("the state opens");
    let store = state.store.clone();
    let config = ReplicaConfig {
        members: Members::alone(NodeId(1), "127.0.0.1:0"),
        directory: directory.to_owned(),
        connector: Arc::new(Proxies::in_arbiter(actix::Arbiter::current(), &ports)),
        limits: LogLimits::default(),
    };
    let replica = ReplicaPort::start(
        &actix::Arbiter::current(),
        config,
        state,
        Arc::new(|_| ()),
        &ports,
    )
    .await
    .expect("the master starts");
    replica.joined().await.expect("the master leads");
    let opens = Arc::<Opens>::default();
    let own = Arc::new(OwnCommands {
        consensus: Arc::new(replica.clone()),
        clock: ports.clock.clone(),
    });
    let parts = Parts {
        keeping: Arc::new(Holding {
            store: store.clone(),
            opens: opens.clone(),
            clock: ports.clock.clone(),
        }),
        outcomes: Arc::default(),
        store: store.clone(),
        consensus: Arc::new(replica.clone()),
        ufs: Arc::new(NoUfs),
        placement: Arc::new(NoWorkers),
        clock: ports.clock.clone(),
        leases: Leases {
            recalls: Arc::default(),
            hearing: Arc::default(),
            recovery: Arc::new(Recovery {
                store,
                fences: Arc::new(NoWorkers),
                own: own.clone(),
                under_way: Mutex::default(),
            }),
            own,
            locking: Arc::default(),
        },
        defaults: FileDefaults {
            block_bytes: 128 << 20,
            replicas: 1,
        },
        opens,
    };
    Master {
        replica,
        namespace: NamespacePort::new(parts),
    }
}

fn path(text: &str) -> Node {
    Node::Path(CurvinePath::parse(text).expect("a valid path"))
}

fn context(client: u64, sequence: u64) -> CallContext {
    CallContext {
        client: ClientId(client),
        sequence,
        ..CallContext::default()
    }
}

fn create(node: Node) -> CreateFile {
    CreateFile {
        node,
        mode: 0o644,
        if_exists: IfExists::Fail,
        parents: false,
        block_bytes: 0,
        replicas: 0,
        first_block: false,
        open: 0,
        unmasked: None,
    }
}

#[actix::test]
async fn a_restart_keeps_everything_and_a_retry_has_one_effect() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    let mkdir = MakeDir {
        node: path("/a/b"),
        mode: 0o755,
        parents: true,
        unmasked: None,
    };
    call(&master.namespace, mkdir, context(1, 1)).await.expect("made");
    let made = call(&master.namespace, create(path("/a/b/f")), context(1, 2))
        .await
        .expect("created");
    let retried = call(&master.namespace, create(path("/a/b/f")), context(1, 2))
        .await
        .expect("remembered");
    assert_eq!(made.attr, retried.attr);
    let other = call(&master.namespace, create(path("/a/b/f")), context(1, 3)).await;
    assert_eq!(
        other.map(|_| ()).map_err(|e| e.kind),
        Err(ErrorKind::AlreadyExists)
    );
    master.replica.stop().await;
    drop(master);

    let copy = tempfile::tempdir().expect("a scratch directory");
    // The files as a kill leaves them, opened by another environment of this process.
    for part in ["log", "state", "snapshots"] {
        std::fs::create_dir(copy.path().join(part)).expect("fresh");
        for file in std::fs::read_dir(scratch.path().join(part))
            .expect("readable")
            .flatten()
        {
            std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).expect("copied");
        }
    }
    let again = start(copy.path()).await;
    let found = call(
        &again.namespace,
        Lookup {
            node: path("/a/b/f"),
            follow: true,
        },
        context(1, 0),
    )
    .await;
    assert_eq!(found.expect("kept").attr, made.attr);
    let retried = call(&again.namespace, create(path("/a/b/f")), context(1, 2))
        .await
        .expect("still remembered");
    assert_eq!(made.attr, retried.attr);
    again.replica.stop().await;
}

#[actix::test]
async fn a_change_that_was_told_that_a_lease_is_in_its_way_is_told_so_again_and_is_not_tried_for_ever() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    let made = call(&master.namespace, create(path("/f")), context(1, 1))
        .await
        .expect("created");
    let open = || OpenForWrite {
        node: path("/f"),
        follow: true,
        truncate: false,
        open: 0,
        named: false,
    };
    let impatient = CallContext {
        deadline_ms: 100,
        ..context(2, 1)
    };
    let conflict = Some(ErrorKind::LeaseConflict);
    let kind = |reply: Result<FileLayout>| reply.err().map(|error| error.kind);
    assert_eq!(kind(call(&master.namespace, open(), impatient).await), conflict);
    let inode = made.attr.inode;
    call(&master.namespace, ReleaseLease { inode }, context(1, 2))
        .await
        .expect("given back");
    let applied = || master.replica.inspect().applied.map_or(0, |entry| entry.index);
    let before = applied();
    let again = CallContext {
        deadline_ms: 2_000,
        ..context(2, 1)
    };
    assert_eq!(kind(call(&master.namespace, open(), again).await), conflict);
    assert_eq!(applied(), before + 1);
    assert_eq!(kind(call(&master.namespace, open(), context(2, 2)).await), None);
    master.replica.stop().await;
}

#[actix::test]
async fn a_torn_state_is_made_again_from_the_log() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    for i in 1..=20 {
        call(&master.namespace, create(path(&format!("/{i}"))), context(1, i))
            .await
            .expect("created");
    }
    let copy = tempfile::tempdir().expect("a scratch directory");
    std::fs::create_dir(copy.path().join("log")).expect("fresh");
    for part in ["log/data.mdb", "log/journal"] {
        std::fs::copy(scratch.path().join(part), copy.path().join(part)).expect("copied");
    }
    std::fs::create_dir(copy.path().join("state")).expect("fresh");
    std::fs::write(copy.path().join("state/data.mdb"), [0x5a; 8192]).expect("torn pages");
    let again = start(copy.path()).await;
    for i in 1..=20 {
        let lookup = Lookup {
            node: path(&format!("/{i}")),
            follow: true,
        };
        call(&again.namespace, lookup, context(1, 0))
            .await
            .expect("acknowledged, so there");
    }
    master.replica.stop().await;
    again.replica.stop().await;
}

/// `cargo test --release -p curvine-actors master_rates -- --ignored --nocapture`
#[actix::test]
#[ignore = "prints rates instead of checking"]
async fn master_rates() {
    let scratch = tempfile::tempdir_in(".").expect("a scratch directory on a real disk");
    let master = Arc::new(start(scratch.path()).await);
    call(
        &master.namespace,
        MakeDir {
            node: path("/d"),
            mode: 0o755,
            parents: true,
            unmasked: None,
        },
        context(1, 1),
    )
    .await
    .expect("made");
    for clients in [1u64, 10, 40] {
        let each = 8_000 / clients.min(8);
        let run = |op: &'static str| {
            let master = master.clone();
            async move {
                let started = Instant::now();
                let tasks = (0..clients).map(|client| {
                    let namespace = master.namespace.clone();
                    tokio::spawn(async move {
                        for i in 0..each {
                            let node = path(&format!("/d/{clients}-{client}-{i:08}"));
                            let context = CallContext {
                                acked_below: i + 1,
                                ..context(1000 * clients + client, i + 1)
                            };
                            match op {
                                "create" => {
                                    drop(call(&namespace, create(node), context).await.expect("created"))
                                }
                                "stat" => {
                                    let lookup = Lookup { node, follow: true };
                                    drop(call(&namespace, lookup, context).await.expect("found"))
                                }
                                _ => drop(call(&namespace, Echo {}, context).await.expect("answered")),
                            }
                        }
                    })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.expect("no panic");
                }
                let rate = (clients * each) as f64 / started.elapsed().as_secs_f64();
                println!("{op:>7} {clients:>3} clients: {rate:>9.0}/s");
            }
        };
        run("create").await;
        run("stat").await;
        run("echo").await;
    }
    master.replica.stop().await;
}
