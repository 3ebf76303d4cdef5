//! The bytes of the Raft log, of the marks beside the state, and of what masters say to each other. Their shapes are openraft's in part: an upgrade of it that
//! changes them shows here.

use std::collections::{BTreeMap, BTreeSet};

use curvine_protocol::op::{Command, Op};
use curvine_protocol::{ClientId, ClusterId};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, SnapshotMeta};

use super::log::LogStore;
use super::state::{Applied, SavedSnapshot};
use super::types::{Batch, Entry, LogId, Membership, Standing, TypeConfig, Vote};
use crate::golden::{Golden, file};

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn members() -> openraft::Membership<u64, BasicNode> {
    let nodes = BTreeMap::from([(1, BasicNode::new("h:1")), (2, BasicNode::new("h:2"))]);
    openraft::Membership::new(vec![BTreeSet::from([1])], nodes)
}

#[test]
fn every_record_of_the_log_and_of_snapshots_has_its_golden_bytes() {
    let mut golden = Golden::new("The Raft log, and what is noted beside the state.");
    let command = Command {
        client: ClientId(0xC11E),
        sequence: 9,
        acked_below: 8,
        uid: 1000,
        gid: 100,
        time_ns: 1_700_000_000_000_000_000,
        waits: false,
        op: Op::Format {
            cluster: ClusterId(0xC1),
        },
    };
    for payload in [
        EntryPayload::Blank,
        EntryPayload::Normal(Batch(vec![command.clone(), command])),
        EntryPayload::Membership(members()),
    ] {
        let name = match &payload {
            EntryPayload::Blank => "entry without a command",
            EntryPayload::Normal(_) => "entry of commands",
            EntryPayload::Membership(_) => "entry of members",
        };
        let entry = Entry {
            log_id: log_id(77),
            payload,
        };
        golden.value(name, &entry);
    }
    golden.value("vote", &Vote::new(3, 1));
    golden.value("committed vote", &Vote::new_committed(3, 1));
    golden.value("purged up to", &log_id(70));
    let membership = Membership::new(Some(log_id(2)), members());
    let applied = Applied {
        last: Some(log_id(77)),
        membership: membership.clone(),
    };
    golden.value("applied", &applied);
    golden.value("nothing applied", &Applied::default());
    let saved = SavedSnapshot {
        last: Some(log_id(77)),
        membership,
        name: "00000000000000000077.mdb".to_owned(),
    };
    golden.value("snapshot", &saved);
    golden.check(&file("log.txt"));
}

#[test]
fn every_message_between_masters_has_its_golden_bytes() {
    let mut golden =
        Golden::new("What masters say to each other, in the bodies of RaftMessage and its answer.");
    let blank = Entry {
        log_id: log_id(78),
        payload: EntryPayload::Blank,
    };
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(log_id(77)),
        entries: vec![blank],
        leader_commit: Some(log_id(76)),
    };
    golden.value("Append", &append);
    golden.value("Append, taken", &AppendEntriesResponse::<u64>::Success);
    golden.value("Append, conflict", &AppendEntriesResponse::<u64>::Conflict);
    golden.value(
        "Append, a higher vote",
        &AppendEntriesResponse::<u64>::HigherVote(Vote::new(4, 2)),
    );
    golden.value(
        "Vote",
        &VoteRequest::<u64>::new(Vote::new(4, 2), Some(log_id(77))),
    );
    golden.value(
        "Vote, answered",
        &VoteResponse::<u64>::new(Vote::new(4, 2), Some(log_id(77)), true),
    );
    golden.value("SnapshotPart, answered", &(1u64 << 20));
    let meta = SnapshotMeta::<u64, BasicNode> {
        last_log_id: Some(log_id(77)),
        last_membership: Membership::new(Some(log_id(2)), members()),
        snapshot_id: "00000000000000000077.mdb".to_owned(),
    };
    golden.value("SnapshotEnd", &(Vote::new_committed(3, 1), meta));
    golden.value(
        "SnapshotEnd, answered",
        &SnapshotResponse::<u64>::new(Vote::new_committed(3, 1)),
    );
    let standing = Standing {
        last_log: Some(77),
        applied: 76,
        leads: true,
        votes: true,
        full: true,
        vote: Some(Vote::new(4, 2)),
        group: Some(Membership::new(Some(log_id(2)), members())),
    };
    golden.value("Standing, answered", &standing);
    golden.check(&file("masters.txt"));
}

#[tokio::test]
async fn a_log_of_a_newer_format_is_refused_and_left_as_it_is() {
    use crate::kit::ports::Inline;
    use std::sync::Arc;
    let scratch = tempfile::tempdir().expect("a scratch directory");
    {
        let mut options = heed::EnvOpenOptions::new();
        options.max_dbs(4);
        // SAFETY: nobody else knows the directory.
        let env = unsafe { options.open(scratch.path()) }.expect("opens");
        let mut txn = env.write_txn().expect("one writer");
        let meta: heed::Database<heed::types::Bytes, heed::types::Bytes> =
            env.create_database(&mut txn, Some("meta")).expect("room");
        meta.put(&mut txn, b"format", &curvine_protocol::codec::encode(&3u32))
            .expect("room");
        txn.commit().expect("room");
        env.prepare_for_closing().wait();
    }
    let error = LogStore::open(scratch.path(), Arc::new(Inline)).map(|_| ());
    let error = error.expect_err("newer");
    assert_eq!(error.kind, curvine_protocol::ErrorKind::Config);
    assert!(error.message.contains("format 3"), "{error}");
}
