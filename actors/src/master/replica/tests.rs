//! The Replica of one master on a scratch directory: batches, the moment of the reply, and making the state again.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curvine_protocol::backup::BackupHeader;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::master::{MakeDir, RaftMessage, RaftMessageKind};
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{
    Call, CallContext, ClientId, ClusterId, CurvinePath, ErrorKind, Node, NodeId, Result,
};
use futures::future::BoxFuture;
use openraft::{BasicNode, RaftMetrics};

use super::restore::take_in;
use super::{LogLimits, Members, OpenState, Proxies, ReplicaConfig, ReplicaPort};
use crate::backup::PLACED;
use crate::kit::listener::{Bound, Limits, Serving, bind};
use crate::kit::until::{until, until_some};
use crate::kit::{Answer, Ask, Endpoint, Ports};
use crate::master::contract::{Consensus, NamespaceView};
use crate::master::namespace::apply::Effects;
use crate::master::namespace::store::Store;

/// Answers for nothing but the Raft group.
struct GroupAlone(ReplicaPort);

impl<C: Call> Endpoint<C> for GroupAlone {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let Ok(ask) = (Box::new(ask) as Box<dyn Any>).downcast::<Ask<RaftMessage>>() else {
            unreachable!("masters make no other calls of each other")
        };
        let answered = Endpoint::<RaftMessage>::ask(&self.0, *ask);
        Box::pin(async move {
            let answer: Box<dyn Any> = Box::new(answered.await?);
            Ok(*answer.downcast::<Answer<C>>().expect("the answer to that call"))
        })
    }
}

/// Masters that hear each other over TCP.
struct Several {
    scratch: tempfile::TempDir,
    members: BTreeMap<NodeId, String>,
    masters: BTreeMap<NodeId, (Master, Serving)>,
    /// Each start has a directory of its own: LMDB opens one once in a process.
    starts: u32,
    directories: BTreeMap<NodeId, PathBuf>,
}

impl Several {
    async fn start() -> Several {
        let ports = Ports::system();
        let mut bound = BTreeMap::new();
        // Below those that the system gives to others while one of these is stopped.
        let mut port = 20_000 + (ports.random.next_u64() % 12_000) as u16;
        for id in (1..=3).map(NodeId) {
            bound.insert(
                id,
                loop {
                    port = 20_000 + (port + 1) % 12_000;
                    if let Ok(bound) = bind(&format!("127.0.0.1:{port}"), &ports).await {
                        break bound;
                    }
                },
            );
        }
        let mut several = Several {
            scratch: tempfile::tempdir().expect("a scratch directory"),
            members: bound.iter().map(|(id, bound)| (*id, bound.address())).collect(),
            masters: BTreeMap::new(),
            starts: 0,
            directories: BTreeMap::new(),
        };
        for (id, bound) in bound {
            several.start_one(id, bound, false).await;
        }
        several.joined().await;
        several
    }

    /// With what the last start left on disk, as after a power cut; or with nothing.
    async fn start_one(&mut self, id: NodeId, bound: Bound, keeps: bool) {
        self.starts += 1;
        let directory = self.scratch.path().join(self.starts.to_string());
        if let Some(last) = self.directories.insert(id, directory.clone())
            && keeps
        {
            copy_what_is_synced(&last, &directory);
        }
        let members = Members {
            me: id,
            addresses: self.members.clone(),
        };
        let master = start_as(&members, &directory).await;
        let serving = bound.serve_master(Arc::new(GroupAlone(master.replica.clone())), Limits::default());
        self.masters.insert(id, (master, serving));
    }

    async fn joined(&self) {
        for (master, _) in self.masters.values() {
            master.replica.joined().await.expect("there is a leader");
        }
    }

    async fn start_again(&mut self, id: NodeId, keeps: bool) {
        let bound = bind(&self.members[&id], &Ports::system())
            .await
            .expect("it is free again");
        self.start_one(id, bound, keeps).await;
    }

    async fn stop(&mut self, id: NodeId) {
        let (master, serving) = self.masters.remove(&id).expect("it runs");
        serving.stop(Duration::from_secs(1)).await;
        master.replica.stop().await;
    }

    async fn leader(&self) -> NodeId {
        let leads = |(_, (master, _)): &(&NodeId, &(Master, Serving))| master.replica.is_leader();
        until_some("a master leads", async || {
            self.masters.iter().find(leads).map(|(id, _)| *id)
        })
        .await
    }

    fn master(&self, id: NodeId) -> &Master {
        &self.masters[&id].0
    }

    async fn in_step(&self, id: NodeId, upto: u64) {
        let waiting = self.master(id).replica.raft.wait(Some(Duration::from_secs(20)));
        waiting
            .applied_index_at_least(Some(upto), "in step")
            .await
            .expect("in time");
    }
}

/// Log and snapshots.
fn copy_what_is_synced(from: &Path, to: &Path) {
    for part in ["log", "snapshots"] {
        std::fs::create_dir_all(to.join(part)).expect("fresh");
        for file in std::fs::read_dir(from.join(part)).expect("readable").flatten() {
            if file.file_name() != "lock.mdb" {
                std::fs::copy(file.path(), to.join(part).join(file.file_name())).expect("copied");
            }
        }
    }
}

struct Master {
    replica: ReplicaPort,
    store: Store,
    /// How many transactions applied something.
    effects: Arc<Mutex<u32>>,
}

async fn start(directory: &Path) -> Master {
    let master = start_as(&Members::alone(NodeId(1), "127.0.0.1:1"), directory).await;
    master.replica.joined().await.expect("the master leads");
    master
}

async fn start_as(members: &Members, directory: &Path) -> Master {
    std::fs::create_dir_all(directory).expect("room");
    let state = OpenState::open(directory).expect("the state opens");
    let store = state.store.clone();
    let effects = Arc::new(Mutex::new(0));
    let count = effects.clone();
    let sink = Arc::new(move |_: Effects| *count.lock().expect("no panic") += 1);
    let ports = Ports::system();
    let config = ReplicaConfig {
        members: members.clone(),
        directory: directory.to_owned(),
        connector: Arc::new(Proxies::in_arbiter(actix::Arbiter::current(), &ports)),
        limits: LogLimits::default(),
    };
    let replica = ReplicaPort::start(&actix::Arbiter::current(), config, state, sink, &ports)
        .await
        .expect("the master starts");
    Master {
        replica,
        store,
        effects,
    }
}

fn node(name: &str) -> Node {
    Node::Path(CurvinePath::parse(&format!("/{name}")).expect("a valid path"))
}

pub(super) fn make_dir(name: &str) -> Command {
    Command {
        client: ClientId(1),
        sequence: 0,
        acked_below: 0,
        uid: 0,
        gid: 0,
        time_ns: 1,
        waits: false,
        op: Op::MakeDir(MakeDir {
            node: node(name),
            mode: 0o755,
            parents: false,
            unmasked: None,
        }),
    }
}

impl Master {
    async fn make_dirs(&self, prefix: &str, count: usize) {
        for number in 0..count {
            let reply = self.replica.propose(make_dir(&format!("{prefix}{number}"))).await;
            assert!(matches!(reply, Ok(OpReply::Entry(_))), "{reply:?}");
        }
    }

    fn applied_index(&self) -> u64 {
        let applied = self.replica.state.applied().expect("readable");
        applied.last.map_or(0, |last| last.index)
    }

    /// Takes a snapshot; says up to which entry.
    async fn snapshot(&self) -> u64 {
        let upto = self.applied_index();
        let raft = &self.replica.raft;
        raft.trigger().snapshot().await.expect("it runs");
        let taken =
            |metrics: &RaftMetrics<u64, BasicNode>| metrics.snapshot.is_some_and(|last| last.index >= upto);
        let waiting = raft.wait(Some(Duration::from_secs(20)));
        waiting
            .metrics(taken, "the snapshot is taken")
            .await
            .expect("in time");
        upto
    }

    /// The same; and what is in the snapshot is nowhere else from then on.
    async fn snapshot_alone(&self) {
        let upto = self.snapshot().await;
        let raft = &self.replica.raft;
        raft.trigger().purge_log(upto).await.expect("it runs");
        let purged =
            |metrics: &RaftMetrics<u64, BasicNode>| metrics.purged.is_some_and(|purged| purged.index >= upto);
        let waiting = raft.wait(Some(Duration::from_secs(20)));
        waiting
            .metrics(purged, "the log is purged")
            .await
            .expect("in time");
    }

    fn has(&self, name: &str) -> Result<bool> {
        match self.store.lookup(&node(name), false) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[actix::test]
async fn changes_that_wait_together_share_entries_and_transactions() {
    const CHANGES: usize = 500;
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    let (entries, applied) = (master.applied_index(), *master.effects.lock().expect("no panic"));
    let proposals = (0..CHANGES).map(|number| {
        let replica = master.replica.clone();
        async move { replica.propose(make_dir(&format!("d{number}"))).await }
    });
    for reply in futures::future::join_all(proposals).await {
        assert!(matches!(reply, Ok(OpReply::Entry(_))), "{reply:?}");
    }
    let entries = master.applied_index() - entries;
    let applied = *master.effects.lock().expect("no panic") - applied;
    assert!(
        (1..=10).contains(&entries),
        "{entries} entries for {CHANGES} changes"
    );
    assert!(u64::from(applied) <= entries, "{applied} transactions");
    master.replica.stop().await;
}

#[actix::test]
async fn a_reply_comes_after_the_change_is_applied_and_told() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    for number in 0..50 {
        let name = format!("d{number}");
        let told = *master.effects.lock().expect("no panic");
        master.replica.propose(make_dir(&name)).await.expect("committed");
        assert_eq!(master.has(&name), Ok(true), "a read without a barrier sees it");
        assert!(*master.effects.lock().expect("no panic") > told);
    }
    master.replica.stop().await;
    let late = master.replica.propose(make_dir("late")).await;
    assert!(
        late.is_err(),
        "a master that has stopped acknowledges nothing: {late:?}"
    );
    assert_eq!(master.has("late"), Ok(false));
}

#[actix::test]
async fn a_state_that_cannot_be_trusted_is_made_again_from_snapshot_and_log() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    master.make_dirs("before", 20).await;
    master.snapshot_alone().await;
    master.make_dirs("after", 20).await;

    // What a power cut leaves: log and snapshot, which are synced, and a torn state that says it was in use elsewhere.
    let copy = tempfile::tempdir().expect("a scratch directory");
    copy_what_is_synced(scratch.path(), copy.path());
    std::fs::create_dir(copy.path().join("state")).expect("fresh");
    std::fs::write(copy.path().join("state/data.mdb"), [0x5a; 8192]).expect("torn pages");
    std::fs::write(copy.path().join("state.trust"), "another boot 7").expect("room");
    let again = start(copy.path()).await;
    for (prefix, number) in ["before", "after"]
        .into_iter()
        .flat_map(|prefix| (0..20).map(move |number| (prefix, number)))
    {
        assert_eq!(
            again.has(&format!("{prefix}{number}")),
            Ok(true),
            "{prefix}{number}"
        );
    }
    again.make_dirs("then", 3).await;
    master.replica.stop().await;
    again.replica.stop().await;
}

#[actix::test]
async fn a_snapshot_that_a_crash_interrupts_is_as_if_it_never_began() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    std::fs::create_dir(scratch.path().join("snapshots")).expect("fresh");
    std::fs::write(scratch.path().join("snapshots/new.mdb"), "half a copy").expect("room");
    std::fs::write(scratch.path().join("snapshots/current.new"), "half a mark").expect("room");
    let master = start(scratch.path()).await;
    master.make_dirs("d", 5).await;
    let upto = master.snapshot().await;
    let mut names: Vec<_> = std::fs::read_dir(scratch.path().join("snapshots"))
        .expect("readable")
        .flatten()
        .map(|file| file.file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, [format!("{upto:020}.mdb"), "current".to_owned()]);
    master.replica.stop().await;
}

#[actix::test]
async fn a_master_without_a_log_catches_up_by_snapshot_and_votes_for_nobody_before() {
    let mut several = Several::start().await;
    let leader = several.leader().await;
    several.master(leader).make_dirs("before", 50).await;
    let wiped = *several.members.keys().find(|id| **id != leader).expect("three");
    several.stop(wiped).await;

    // What it lacks is in the leader's snapshot only.
    several.master(leader).snapshot_alone().await;
    several.master(leader).make_dirs("after", 50).await;

    several.start_again(wiped, false).await;
    several
        .in_step(wiped, several.master(leader).applied_index())
        .await;
    for (prefix, number) in ["before", "after"]
        .into_iter()
        .flat_map(|p| (0..50).map(move |n| (p, n)))
    {
        let name = format!("{prefix}{number}");
        assert_eq!(several.master(wiped).has(&name), Ok(true), "{name}");
    }
    until("it votes again", || {
        several.master(wiped).replica.franchise.is_full()
    })
    .await;

    // Its word counts again: with the leader gone, it makes a majority of two.
    several.stop(leader).await;
    let next = several.leader().await;
    assert_ne!(next, leader);
    several.master(next).make_dirs("then", 5).await;
    let others: Vec<NodeId> = several.masters.keys().copied().collect();
    for id in others {
        several.stop(id).await;
    }
}

#[actix::test]
async fn a_master_that_has_not_caught_up_refuses_to_vote() {
    let mut several = Several::start().await;
    let leader = several.leader().await;
    several.master(leader).make_dirs("d", 10).await;
    let followers: Vec<NodeId> = several
        .members
        .keys()
        .copied()
        .filter(|id| *id != leader)
        .collect();
    let [wiped, other] = followers[..] else {
        panic!("three masters")
    };
    // Nobody is left who could bring the wiped one up: the one that stays may have missed what was acknowledged.
    several.stop(leader).await;
    several.stop(wiped).await;
    several.start_again(wiped, false).await;
    // Each time that the other one stands for election, it does so in a new term.
    let term = || several.master(other).replica.inspect().vote.0;
    let before = term();
    until("it has stood for election three times", || term() >= before + 3).await;
    for id in [wiped, other] {
        assert!(
            !several.master(id).replica.is_leader(),
            "{id} leads without a majority that knows"
        );
    }
    assert!(!several.master(wiped).replica.franchise.is_full());

    several.start_again(leader, true).await;
    several.joined().await;
    let leads = several.leader().await;
    for number in 0..10 {
        assert_eq!(several.master(leads).has(&format!("d{number}")), Ok(true));
    }
    for id in followers.into_iter().chain([leader]) {
        several.stop(id).await;
    }
}

#[actix::test]
async fn who_is_not_of_the_group_is_refused_and_told_why() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let master = start(scratch.path()).await;
    let message = RaftMessage {
        cluster: master.replica.cluster(),
        from: NodeId(2),
        to: NodeId(1),
        kind: RaftMessageKind::Standing,
        restored_ns: 0,
    };
    let ask = |message: RaftMessage| {
        let asked = Endpoint::<RaftMessage>::ask(&master.replica, Ask::new(message, CallContext::default()));
        async move { asked.await.map(|_| ()) }
    };
    ask(message.clone()).await.expect("answered");
    for (message, kind, says) in [
        (
            RaftMessage {
                cluster: Some(ClusterId(7)),
                ..message.clone()
            },
            ErrorKind::WrongCluster,
            "belongs to cluster",
        ),
        (
            RaftMessage {
                restored_ns: 1,
                ..message.clone()
            },
            ErrorKind::WrongCluster,
            "was restored from a backup",
        ),
        (
            RaftMessage {
                to: NodeId(3),
                ..message.clone()
            },
            ErrorKind::Config,
            "this is master 1, called as 3 by 2",
        ),
        (
            RaftMessage {
                from: NodeId(1),
                ..message.clone()
            },
            ErrorKind::Config,
            "an id and an address of its own",
        ),
        (
            RaftMessage {
                kind: RaftMessageKind::SnapshotPart {
                    snapshot: "../x".to_owned(),
                    offset_bytes: 0,
                    checksum: 0,
                },
                ..message
            },
            ErrorKind::Protocol,
            "the name of a snapshot",
        ),
    ] {
        let error = ask(message).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    master.replica.stop().await;
}

#[actix::test]
async fn a_part_of_a_snapshot_goes_where_the_file_ends_and_a_damaged_one_nowhere() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = || scratch.path().join("part");
    let take = |offset, part: &[u8]| super::receive::take_part(path(), offset, crc32c(part), part);
    assert_eq!(take(0, b"abc"), Ok(3));
    assert_eq!(take(0, b"xyz"), Ok(3), "sent twice: what is here stays");
    assert_eq!(take(9, b"xyz"), Ok(3), "a gap is not left");
    assert_eq!(take(3, b""), Ok(3), "a question");
    let damaged = super::receive::take_part(path(), 3, 1, b"def").expect_err("fails its checksum");
    assert_eq!(damaged.kind, ErrorKind::Corrupt);
    assert_eq!(take(3, b"def"), Ok(6));
    assert_eq!(std::fs::read(path()).expect("there"), b"abcdef");
}

/// A backup of a master's namespace, in the place where another one takes it in.
async fn place_backup(master: &Master, directory: &Path) {
    let copied = master.replica.state.copy_out().await.expect("room");
    let header = BackupHeader {
        cluster: master.replica.cluster().expect("formatted"),
        version: "0.1.0".to_owned(),
        time_ns: 1,
        log_index: copied.log_index,
        len_bytes: copied.len_bytes,
    };
    let mut bytes = header.to_head();
    std::io::Read::read_to_end(&mut &copied.file, &mut bytes).expect("readable");
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    std::fs::create_dir_all(directory).expect("room");
    std::fs::write(directory.join(PLACED), bytes).expect("room");
}

#[actix::test]
async fn a_backup_is_taken_in_once_also_where_that_broke_off_and_never_over_a_log() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let members = Members::alone(NodeId(1), "127.0.0.1:1");
    let source = start(&scratch.path().join("source")).await;
    source.make_dirs("d", 20).await;
    let directory = scratch.path().join("restored");
    place_backup(&source, &directory).await;
    source.make_dirs("later", 1).await;

    let several = Members {
        addresses: [(NodeId(1), "h:1".to_owned()), (NodeId(2), "h:2".to_owned())].into(),
        ..members.clone()
    };
    let error = take_in(&directory, &several, 5).expect_err("it is not alone");
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
    let kept = std::fs::read(directory.join(PLACED)).expect("it is still placed");
    take_in(&directory, &members, 5).expect("taken in");
    assert!(!directory.join(PLACED).exists());
    // As if the process had been killed before the placed file was removed.
    std::fs::write(directory.join(PLACED), &kept).expect("room");
    take_in(&directory, &members, 7).expect("taken in again");
    let restored = start(&directory).await;
    assert_eq!(restored.replica.cluster(), source.replica.cluster());
    assert_eq!(
        restored.replica.origin().map(|origin| origin.restored_ns),
        Some(7)
    );
    assert_eq!(
        (restored.has("d19"), restored.has("later0")),
        (Ok(true), Ok(false))
    );
    restored.make_dirs("since", 5).await;
    let inode = |master: &Master, name: &str| {
        let found = master.store.lookup(&node(name), false);
        found.expect("there").attr.inode.0
    };
    assert!(
        inode(&restored, "since0") > inode(&source, "later0") + (1 << 39),
        "what was given out after the backup is not given out again"
    );
    restored.replica.stop().await;

    std::fs::write(directory.join(PLACED), &kept).expect("room");
    let error = take_in(&directory, &members, 9).expect_err("there is a log");
    assert_eq!(error.kind, ErrorKind::AlreadyExists, "{error}");
    assert!(error.message.contains("there is a `log` beside it"), "{error}");
    source.replica.stop().await;
}
