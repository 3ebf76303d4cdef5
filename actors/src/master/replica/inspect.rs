//! What can be seen of one master without asking any other: for checkers and reports.

use curvine_protocol::checksum::crc32c;
use curvine_protocol::codec::encode;
use curvine_protocol::{NodeId, Result};

use super::ReplicaPort;
use super::types::{LogId, Vote};

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
    pub voters: Vec<NodeId>,
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
        let voters = metrics.membership_config.membership().voter_ids();
        Inspection {
            role: format!("{:?}", metrics.state),
            vote: (leader_id.term, NodeId(leader_id.node_id), committed),
            leader: metrics.current_leader.map(NodeId),
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(EntryId::from),
            snapshot: metrics.snapshot.map(EntryId::from),
            purged: metrics.purged.map(EntryId::from),
            voters: voters.map(NodeId).collect(),
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
