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
