//! The machines of the masters, and what is under way with their group.
//!
//! Invariants: at most one master is without its disk's content, and at most one is being taken out of the group. An
//! operator does one such thing at a time, and what was acknowledged is kept only then.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use curvine_actors::master::namespace::actor::FileDefaults;
use curvine_actors::master::replica::{LogLimits, Members};
use curvine_protocol::NodeId;

use crate::chance::Chance;
use crate::faults::Plan;
use crate::host::Host;
use crate::network::{Network, address};

pub struct Masters {
    scratch: PathBuf,
    network: Network,
    limits: LogLimits,
    defaults: FileDefaults,
    chance: Chance,
    hosts: BTreeMap<NodeId, Host>,
    next: u64,
    /// The one that lost its disk and does not have everything again.
    wiped: Option<NodeId>,
    /// Being taken out of the group, and whether that is done.
    leaving: Option<(NodeId, Rc<Cell<bool>>)>,
}

impl Masters {
    /// None yet.
    pub fn new(plan: &Plan, scratch: &Path, network: Network, chance: Chance) -> Masters {
        Masters {
            scratch: scratch.to_owned(),
            network,
            limits: LogLimits {
                snapshot_every_entries: plan.snapshot_every_entries,
                snapshot_every_bytes: plan.snapshot_every_bytes,
                kept_entries: plan.kept_entries,
                kept_bytes: plan.kept_bytes,
            },
            defaults: FileDefaults {
                block_bytes: 1 << 20,
                replicas: plan.cluster.as_ref().map_or(1, |cluster| cluster.replicas),
            },
            chance,
            hosts: BTreeMap::new(),
            next: plan.masters + 1,
            wiped: None,
            leaving: None,
        }
    }

    /// A machine that takes these for the group. It replaces the one that was there under this id.
    pub fn set_up(&mut self, id: NodeId, members: &[NodeId]) {
        let members = Members {
            me: id,
            addresses: members.iter().map(|id| (*id, address(*id))).collect(),
        };
        let (network, chance) = (self.network.clone(), self.chance.fork());
        let (limits, defaults) = (self.limits, self.defaults);
        let host = Host::new(members, &self.scratch, network, limits, defaults, chance);
        self.hosts.insert(id, host);
    }

    /// One more machine, which takes itself and all that are there for the group.
    pub fn set_up_another(&mut self) -> NodeId {
        let id = NodeId(self.next);
        self.next += 1;
        let members: Vec<NodeId> = self.hosts.keys().copied().chain([id]).collect();
        self.set_up(id, &members);
        id
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub fn all_but(&self, one: Option<NodeId>) -> Vec<NodeId> {
        self.hosts.keys().copied().filter(|id| Some(*id) != one).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        self.hosts.values_mut()
    }

    pub fn get(&self, id: NodeId) -> Option<&Host> {
        self.hosts.get(&id)
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Host> {
        self.hosts.get_mut(&id)
    }

    /// One that is known to be there.
    pub fn host_mut(&mut self, id: NodeId) -> &mut Host {
        self.hosts.get_mut(&id).expect("it is one of the hosts")
    }

    /// Whoever takes itself for the leader.
    pub fn leader(&self) -> Option<NodeId> {
        self.iter().find(|host| leads(host)).map(|host| host.id)
    }

    pub fn leads(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(leads)
    }

    /// One of the running masters; the leader as often as all others together.
    pub fn somebody(&self) -> Option<NodeId> {
        let running: Vec<NodeId> = (self.iter())
            .filter(|host| host.is_running() && !host.is_stopped())
            .map(|host| host.id)
            .collect();
        match self.leader() {
            Some(leader) if self.chance.percent(50) => Some(leader),
            _ if running.is_empty() => None,
            _ => Some(*self.chance.one_of(&running)),
        }
    }

    /// One disk at a time: who has lost its log counts as failed until it has it again, and a majority must not fail.
    pub fn may_lose_disk(&self, id: NodeId) -> bool {
        let group = [BTreeSet::from_iter(self.ids())];
        self.wiped.is_none()
            && self.leaving.is_none()
            && self.hosts.len() >= 3
            && (self.iter()).all(|host| host.inspect().is_some_and(|now| now.votes && now.voters == group))
            && self.hosts.contains_key(&id)
    }

    /// It has a new, empty disk, and joins those who are there as what it was.
    pub fn lose_disk(&mut self, id: NodeId) -> std::io::Result<()> {
        self.wiped = Some(id);
        self.host_mut(id).wipe()?;
        self.set_up(id, &self.ids());
        Ok(())
    }

    /// The one that lost its disk and does not have everything again.
    pub fn wiped(&self) -> Option<NodeId> {
        self.wiped
    }

    /// It has everything again, if it had lost it.
    pub fn has_caught_up(&mut self, id: NodeId) {
        if self.wiped == Some(id) {
            self.wiped = None;
        }
    }

    pub fn may_grow(&self) -> bool {
        self.hosts.len() < 6 && self.leaving.is_none()
    }

    pub fn may_shrink(&self) -> bool {
        self.hosts.len() >= 3 && self.leaving.is_none() && self.wiped.is_none()
    }

    /// It is being taken out of the group. Whoever does it sets the flag when it is out.
    pub fn leaves(&mut self, id: NodeId) -> Rc<Cell<bool>> {
        let done = Rc::new(Cell::new(false));
        self.leaving = Some((id, done.clone()));
        done
    }

    /// Takes away the one that is out of the group since.
    pub fn take_away_who_left(&mut self) -> Option<NodeId> {
        let (id, _) = self.leaving.take_if(|(_, done)| done.get())?;
        self.hosts.remove(&id);
        self.has_caught_up(id);
        Some(id)
    }
}

fn leads(host: &Host) -> bool {
    let replica = host.replica().filter(|_| !host.is_stopped());
    replica.is_some_and(|replica| replica.leadership().borrow().is_some())
}
