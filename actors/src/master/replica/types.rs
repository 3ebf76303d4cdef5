//! What openraft is told of us.

use std::path::PathBuf;

use curvine_protocol::op::{Command, OpReply};
use openraft::{BasicNode, TokioRuntime};
use serde::{Deserialize, Serialize};

/// The commands of one log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch(pub Vec<Command>);

/// The replies to a batch, in its order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replies(pub Vec<OpReply>);

/// How a master stands, as it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Index of the last entry of its log; none if it has never been part of a group.
    pub last_log: Option<u64>,
    pub applied: u64,
    /// It leads, and a majority has just confirmed that.
    pub leads: bool,
    /// It votes: it has not lost its log, or has everything again. Who does not say so does.
    #[serde(default = "yes")]
    pub votes: bool,
    /// Its disk is full: another one should lead.
    #[serde(default)]
    pub full: bool,
    /// What it has voted last. Earlier builds do not say.
    #[serde(default)]
    pub vote: Option<Vote>,
    /// The group as its log has it.
    #[serde(default)]
    pub group: Option<Membership>,
}

fn yes() -> bool {
    true
}

impl Standing {
    /// Whether its group cannot have committed anything yet: all it has is the first membership.
    pub fn is_fresh(&self) -> bool {
        self.last_log.is_none_or(|last| last == 0)
    }

    /// What it has promised, and the group as it knows it: if it has never lost that, or has it again.
    pub fn word(&self) -> Option<(Vote, &Membership)> {
        let whole = self.votes && !self.is_fresh();
        self.vote.zip(self.group.as_ref()).filter(|_| whole)
    }
}

/// A snapshot is a file: a compacted copy of the state's environment.
#[derive(Debug)]
pub struct SnapshotFile {
    pub path: PathBuf,
}

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotFile,
        AsyncRuntime = TokioRuntime,
);

pub type Raft = openraft::Raft<TypeConfig>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type StorageError = openraft::StorageError<u64>;
pub type Membership = openraft::StoredMembership<u64, BasicNode>;
