//! What can be seen of one master without asking any other: for checkers and reports.

use std::collections::BTreeSet;

use curvine_protocol::checksum::crc32c;
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::master::{RaftMessage, RaftMessageKind};
use curvine_protocol::{NodeId, Result};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::ReplicaPort;
use super::types::{LogId, Standing, TypeConfig, Vote};

/// Where an entry stands. No two entries of a group ever have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    pub index: u64,
    /// openraft's terms are pairs: two leaders may have the same number, and the one with the higher id is the later.
    pub term: u64,
    pub leader: NodeId,
}

impl From<LogId> for EntryId {
    fn from(id: LogId) -> Self {
        EntryId {
            index: id.index,
            term: id.leader_id.term,
            leader: NodeId(id.leader_id.node_id),
        }
    }
}

/// An entry of the log, by its place and the CRC32C of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedEntry {
    pub id: EntryId,
    pub checksum: u32,
}

/// How one master stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// `Leader`, `Follower`, `Candidate` or `Learner`, as openraft says.
    pub role: String,
    /// For whom it voted last, in which term, and whether that one has led.
    pub vote: (u64, NodeId, bool),
    pub leader: Option<NodeId>,
    pub last_log: Option<u64>,
    pub applied: Option<EntryId>,
    pub snapshot: Option<EntryId>,
    pub purged: Option<EntryId>,
    /// Two groups of them while one takes over from the other: each elects and commits with a majority of its own.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// It votes and stands for election.
    pub votes: bool,
    /// Why it takes part no more; none while it does.
    pub failed: Option<String>,
}

impl ReplicaPort {
    pub fn inspect(&self) -> Inspection {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let Vote { leader_id, committed } = metrics.vote;
        let groups = metrics.membership_config.membership().get_joint_config().iter();
        Inspection {
            role: format!("{:?}", metrics.state),
            vote: (leader_id.term, NodeId(leader_id.node_id), committed),
            leader: metrics.current_leader.map(NodeId),
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(EntryId::from),
            snapshot: metrics.snapshot.map(EntryId::from),
            purged: metrics.purged.map(EntryId::from),
            voters: groups
                .map(|ids| ids.iter().copied().map(NodeId).collect())
                .collect(),
            votes: self.franchise.is_full(),
            failed: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// The entries of its log that are on disk, from an index on.
    pub fn logged_from(&self, index: u64) -> Result<Vec<LoggedEntry>> {
        let entries = self.log.durable_from(index)?;
        let logged = entries.into_iter().map(|entry| LoggedEntry {
            id: entry.log_id.into(),
            checksum: crc32c(&encode(&entry.payload)),
        });
        Ok(logged.collect())
    }

    /// The last applied entry and a checksum over the whole state behind it, but for what it says of the group: masters
    /// that applied the same have the same.
    pub fn state_checksum(&self) -> Result<(Option<EntryId>, u32)> {
        let txn = self.store.read()?;
        let applied = self.state.applied_in(&txn)?;
        Ok((applied.last.map(EntryId::from), self.store.dbs.checksum(&txn)?))
    }
}

/// What a message says, in words: for transcripts.
pub fn describe(message: &RaftMessage, body: &[u8]) -> String {
    match &message.kind {
        RaftMessageKind::Append => match decode::<AppendEntriesRequest<TypeConfig>>(body) {
            Ok(append) => described_append(&append),
            Err(error) => format!("append that does not decode: {error}"),
        },
        RaftMessageKind::Vote => match decode::<VoteRequest<u64>>(body) {
            Ok(asked) => format!(
                "vote for me in {}; my log ends at {}",
                term(&asked.vote),
                place(asked.last_log_id)
            ),
            Err(error) => format!("vote that does not decode: {error}"),
        },
        RaftMessageKind::SnapshotPart { offset_bytes, .. } => {
            format!("snapshot, {} bytes from {offset_bytes} on", body.len())
        }
        RaftMessageKind::SnapshotEnd { .. } => "snapshot complete: install it".to_owned(),
        RaftMessageKind::Standing => "how do you stand?".to_owned(),
        RaftMessageKind::Elect { again: false } => "stand for election".to_owned(),
        RaftMessageKind::Elect { again: true } => "stand for election once more".to_owned(),
    }
}

fn described_append(append: &AppendEntriesRequest<TypeConfig>) -> String {
    let committed = append.leader_commit.map_or(0, |id| id.index);
    let (first, last) = (append.entries.first(), append.entries.last());
    match first.zip(last) {
        None => format!("heartbeat of {}; committed is {committed}", term(&append.vote)),
        Some((first, last)) => format!(
            "append {}..={} behind {}, {}; committed is {committed}",
            first.log_id.index,
            last.log_id.index,
            place(append.prev_log_id),
            term(&append.vote)
        ),
    }
}

/// What the answer to it says.
pub fn describe_answer(message: &RaftMessage, body: &[u8]) -> String {
    let described = match &message.kind {
        RaftMessageKind::Append => decode(body).map(|answer| match answer {
            AppendEntriesResponse::<u64>::Success => "appended".to_owned(),
            AppendEntriesResponse::PartialSuccess(upto) => format!("appended up to {}", place(upto)),
            AppendEntriesResponse::Conflict => "that does not follow my log".to_owned(),
            AppendEntriesResponse::HigherVote(vote) => format!("I have heard of {}", term(&vote)),
        }),
        RaftMessageKind::Vote => decode::<VoteResponse<u64>>(body).map(|answer| match answer.vote_granted {
            true => "granted".to_owned(),
            false => format!(
                "no: I am in {}, my log ends at {}",
                term(&answer.vote),
                place(answer.last_log_id)
            ),
        }),
        RaftMessageKind::SnapshotPart { .. } => decode::<u64>(body).map(|has| format!("I have {has} bytes")),
        RaftMessageKind::SnapshotEnd { .. } => Ok("installed".to_owned()),
        RaftMessageKind::Standing => decode::<Standing>(body).map(|standing| {
            let last = standing
                .last_log
                .map_or("no log".to_owned(), |last| format!("a log up to {last}"));
            let Standing {
                applied,
                leads,
                votes,
                vote,
                ..
            } = standing;
            let voted = match vote.filter(|_| votes) {
                Some(vote) => format!(", voted last in {}", term(&vote)),
                None => ", do not vote".to_owned(),
            };
            let leads = if leads { ", lead" } else { "" };
            format!("I have {last}, applied {applied}{voted}{leads}")
        }),
        RaftMessageKind::Elect { .. } => Ok("I do".to_owned()),
    };
    described.unwrap_or_else(|error| format!("an answer that does not decode: {error}"))
}

fn term(vote: &Vote) -> String {
    format!(
        "term {} of master {}",
        vote.leader_id.term, vote.leader_id.node_id
    )
}

fn place(id: Option<LogId>) -> String {
    id.map_or("nothing".to_owned(), |id| {
        format!(
            "{} (term {} of master {})",
            id.index, id.leader_id.term, id.leader_id.node_id
        )
    })
}
