//! What must hold at every moment, whatever happens to the masters.
//!
//! - Log matching: an entry is the same in every log, and so is the one before it.
//! - What one master has applied, none contradicts: the same entry at the same place, for ever.
//! - Leader completeness: who begins to lead has everything that was applied anywhere.
//! - State equality: after the same entry every state is the same.
//! - A leader leads in the name of its own vote, and no two in one.
//! - No master fails: its disk never did.

use std::collections::{BTreeMap, HashMap, HashSet};

use curvine_actors::master::replica::{EntryId, Inspection, ReplicaPort};
use curvine_protocol::{NodeId, Result};

/// What is wrong.
pub type Violation = String;

/// So many entries before the last seen ones are looked at again: they may have been replaced.
const AGAIN: u64 = 50;

#[derive(Default)]
pub struct Checks {
    contents: HashMap<EntryId, u32>,
    before: HashMap<EntryId, EntryId>,
    /// By index, and who had applied it first.
    applied: BTreeMap<u64, (EntryId, NodeId)>,
    states: HashMap<EntryId, (u32, NodeId)>,
    seen_upto: HashMap<NodeId, u64>,
    /// Terms, and where each was led from.
    led: HashMap<(u64, NodeId), NodeId>,
    complete: HashSet<(NodeId, u64, NodeId)>,
}

fn readable<T>(id: NodeId, read: Result<T>) -> Result<T, Violation> {
    read.map_err(|error| format!("master {id} cannot be read: {error}"))
}

impl Checks {
    /// How many entries were applied by somebody.
    pub fn applied(&self) -> usize {
        self.applied.len()
    }

    /// How many times somebody began to lead.
    pub fn led(&self) -> usize {
        self.led.len()
    }

    /// A process began anew: what its log is now is to be looked at from its start.
    pub fn forget(&mut self, id: NodeId) {
        self.seen_upto.remove(&id);
    }

    pub fn look(&mut self, id: NodeId, replica: &ReplicaPort) -> Result<(), Violation> {
        let now = replica.inspect();
        if let Some(failed) = &now.failed {
            return Err(format!("master {id} has failed: {failed}"));
        }
        let from = self
            .seen_upto
            .get(&id)
            .map_or(0, |upto| upto.saturating_sub(AGAIN));
        let entries = readable(id, replica.logged_from(from))?;
        // It goes on while it is looked at: only what was applied before the log was read counts as applied of it.
        let applied = now.applied.map_or(0, |applied| applied.index);
        let mut last: Option<EntryId> = None;
        for entry in &entries {
            let known = *self.contents.entry(entry.id).or_insert(entry.checksum);
            if known != entry.checksum {
                return Err(format!("log matching: {:?} differs on master {id}", entry.id));
            }
            if let Some(last) = last {
                if last.index + 1 != entry.id.index {
                    return Err(format!(
                        "master {id} has a gap between {last:?} and {:?}",
                        entry.id
                    ));
                }
                let before = *self.before.entry(entry.id).or_insert(last);
                if before != last {
                    return Err(format!(
                        "log matching: before {:?} is {last:?} on master {id} and {before:?} elsewhere",
                        entry.id
                    ));
                }
            }
            last = Some(entry.id);
            if entry.id.index <= applied {
                self.applied_is(id, entry.id)?;
            }
        }
        if let Some(applied) = now.applied {
            self.applied_is(id, applied)?;
        }
        if let Some(last) = last {
            self.seen_upto.insert(id, last.index);
        }
        self.leads(id, replica, &now)?;
        self.state(id, replica)
    }

    fn applied_is(&mut self, id: NodeId, entry: EntryId) -> Result<(), Violation> {
        let (known, by) = *self.applied.entry(entry.index).or_insert((entry, id));
        if known != entry {
            return Err(format!(
                "master {id} has applied {entry:?} where master {by} has {known:?}"
            ));
        }
        Ok(())
    }

    fn leads(&mut self, id: NodeId, replica: &ReplicaPort, now: &Inspection) -> Result<(), Violation> {
        let (term, whom, has_led) = now.vote;
        if now.role != "Leader" || !has_led {
            return Ok(());
        }
        if whom != id {
            return Err(format!("master {id} leads in the name of master {whom}"));
        }
        let from = *self.led.entry((term, whom)).or_insert(id);
        if from != id {
            return Err(format!("term {term} of master {whom} is led by {from} and {id}"));
        }
        if !self.complete.insert((id, term, whom)) {
            return Ok(());
        }
        let purged = now.purged.map_or(0, |purged| purged.index);
        let has: HashMap<u64, EntryId> = readable(id, replica.logged_from(0))?
            .into_iter()
            .map(|entry| (entry.id.index, entry.id))
            .collect();
        for (entry, by) in self.applied.values() {
            let is_earlier = (entry.term, entry.leader) < (term, whom);
            if is_earlier && entry.index > purged && has.get(&entry.index) != Some(entry) {
                return Err(format!(
                    "leader completeness: master {id} leads in term {term} and does not have {entry:?}, which master {by} \
                     has applied"
                ));
            }
        }
        Ok(())
    }

    fn state(&mut self, id: NodeId, replica: &ReplicaPort) -> Result<(), Violation> {
        let (Some(entry), checksum) = readable(id, replica.state_checksum())? else {
            return Ok(());
        };
        let (known, by) = *self.states.entry(entry).or_insert((checksum, id));
        if known != checksum {
            return Err(format!(
                "after {entry:?} the states of masters {id} and {by} differ"
            ));
        }
        Ok(())
    }
}
