//! Looks at all masters from time to time: [`Checks`] must hold, and what is new about them is told.

use std::collections::{BTreeMap, BTreeSet};

use curvine_actors::master::replica::Inspection;
use curvine_protocol::NodeId;

use crate::checks::{Checks, Violation};
use crate::host::Host;

use super::masters::Masters;

#[derive(Default)]
pub struct Watch {
    checks: Checks,
    /// What was told of each last.
    told: BTreeMap<NodeId, String>,
}

impl Watch {
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// A process began anew, or is there no more.
    pub fn forget(&mut self, id: NodeId) {
        self.checks.forget(id);
        self.told.remove(&id);
    }

    /// Returns the news.
    pub fn look(&mut self, masters: &mut Masters) -> Result<Vec<String>, Violation> {
        let mut news = Vec::new();
        let mut in_step = Vec::new();
        for host in masters.iter() {
            let Some(now) = self.look_at(host)? else { continue };
            news.extend(self.new_of(host.id, &now));
            if now.votes {
                in_step.push(host.id);
            }
        }
        in_step.into_iter().for_each(|id| masters.has_caught_up(id));
        Ok(news)
    }

    /// None if it does not run.
    fn look_at(&mut self, host: &Host) -> Result<Option<Inspection>, Violation> {
        if let Some(error) = host.failed_to_start() {
            return Err(format!("master {} does not start: {error}", host.id));
        }
        let Some(replica) = host.replica() else {
            return Ok(None);
        };
        self.checks.look(host.id, &replica)?;
        Ok(Some(replica.inspect()))
    }

    fn new_of(&mut self, id: NodeId, now: &Inspection) -> Option<String> {
        let standing = format!(
            "{} in term {} of master {}{}, voters {}",
            now.role,
            now.vote.0,
            now.vote.1,
            if now.votes { "" } else { ", catching up" },
            groups(&now.voters),
        );
        if self.told.get(&id) == Some(&standing) {
            return None;
        }
        let news = format!(
            "master {id}: {standing}; log {:?}, applied {:?}, snapshot {:?}",
            now.last_log,
            now.applied.map(|entry| entry.index),
            now.snapshot.map(|entry| entry.index)
        );
        self.told.insert(id, standing);
        Some(news)
    }
}

fn groups(voters: &[BTreeSet<NodeId>]) -> String {
    let groups = voters
        .iter()
        .map(|group| format!("{:?}", group.iter().map(|id| id.0).collect::<Vec<_>>()));
    let groups: Vec<String> = groups.collect();
    if groups.is_empty() {
        "none".to_owned()
    } else {
        groups.join(" and ")
    }
}
