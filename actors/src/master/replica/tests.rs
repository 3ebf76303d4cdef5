//! The Replica of one master on a scratch directory: batches, the moment of the reply, and making the state again.

use std::path::Path;
use std::sync::{Arc, Mutex};

use curvine_protocol::master::MakeDir;
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{ClientId, CurvinePath, ErrorKind, Node, NodeId, Result};

use super::{OpenState, ReplicaPort};
use crate::kit::Ports;
use crate::master::contract::{Consensus, NamespaceView};
use crate::master::namespace::apply::Effects;
use crate::master::namespace::store::Store;

struct Master {
    replica: ReplicaPort,
    store: Store,
    /// How many transactions applied something.
    effects: Arc<Mutex<u32>>,
}

async fn start(directory: &Path) -> Master {
    let state = OpenState::open(directory).expect("the state opens");
    let store = state.store.clone();
    let effects = Arc::new(Mutex::new(0));
    let count = effects.clone();
    let sink = Arc::new(move |_: Effects| *count.lock().expect("no panic") += 1);
    let replica = ReplicaPort::start(NodeId(1), "127.0.0.1:1", directory, state, sink, &Ports::system())
        .await
        .expect("the master leads");
    Master {
        replica,
        store,
        effects,
    }
}

fn node(name: &str) -> Node {
    Node::Path(CurvinePath::parse(&format!("/{name}")).expect("a valid path"))
}

fn make_dir(name: &str) -> Command {
    Command {
        client: ClientId(1),
        sequence: 0,
        acked_below: 0,
        uid: 0,
        gid: 0,
        time_ns: 1,
        op: Op::MakeDir(MakeDir {
            node: node(name),
            mode: 0o755,
            parents: false,
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
    let upto = master.applied_index();
    master.replica.raft.trigger().snapshot().await.expect("it runs");
    master
        .replica
        .raft
        .wait(Some(std::time::Duration::from_secs(20)))
        .metrics(
            |metrics| metrics.snapshot.is_some_and(|last| last.index >= upto),
            "the snapshot is taken",
        )
        .await
        .expect("in time");
    // What is in the snapshot is nowhere else from now on.
    master
        .replica
        .raft
        .trigger()
        .purge_log(upto)
        .await
        .expect("it runs");
    master
        .replica
        .raft
        .wait(Some(std::time::Duration::from_secs(20)))
        .metrics(
            |metrics| metrics.purged.is_some_and(|purged| purged.index >= upto),
            "the log is purged",
        )
        .await
        .expect("in time");
    master.make_dirs("after", 20).await;

    // What a power cut leaves: log and snapshot, which are synced, and a torn state that says it was in use elsewhere.
    let copy = tempfile::tempdir().expect("a scratch directory");
    for part in ["log", "snapshots"] {
        std::fs::create_dir(copy.path().join(part)).expect("fresh");
        for file in std::fs::read_dir(scratch.path().join(part))
            .expect("readable")
            .flatten()
        {
            if file.file_name() != "lock.mdb" {
                std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).expect("copied");
            }
        }
    }
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
    let upto = master.applied_index();
    master.replica.raft.trigger().snapshot().await.expect("it runs");
    master
        .replica
        .raft
        .wait(Some(std::time::Duration::from_secs(20)))
        .metrics(
            |metrics| metrics.snapshot.is_some_and(|last| last.index >= upto),
            "the snapshot is taken",
        )
        .await
        .expect("in time");
    let mut names: Vec<_> = std::fs::read_dir(scratch.path().join("snapshots"))
        .expect("readable")
        .flatten()
        .map(|file| file.file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, [format!("{upto:020}.mdb"), "current".to_owned()]);
    master.replica.stop().await;
}
