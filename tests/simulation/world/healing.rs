//! The liveness phase: everything heals, and then all must be in step and answered within [`HEALS_WITHIN`].

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::checks::Violation;
use crate::network::Weather;

use super::{DISK_DELAY_US, World, text};

pub const HEALS_WITHIN: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.tell("everything heals");
        self.agenda.drop_faults();
        self.network.mend();
        self.network.let_all_go();
        self.network.set_weather(Weather::fair());
        for id in self.masters.ids() {
            let host = self.masters.host_mut(id);
            host.machine.go_on();
            host.machine.disk_delay.store(DISK_DELAY_US, Ordering::Relaxed);
            self.start(id)?;
        }
        let now = self.now;
        if let Some(cluster) = &mut self.cluster {
            cluster.heal(now, DISK_DELAY_US).map_err(text)?;
        }
        Ok(())
    }

    /// Every client is answered, everything can be read, and the masters are in step.
    pub(super) fn comes_to_rest(&mut self) -> Result<(), Violation> {
        self.clients.finish();
        let healed = self.now + HEALS_WITHIN;
        self.until(healed, "the clients are answered", |world| {
            Ok(world.clients.are_done())
        })?;
        let read = self.clients.read_all();
        self.until(healed, "everything can be read", |_| Ok(read.get()))?;
        self.until(healed, "all masters are in step", World::are_in_step)
    }

    pub(super) fn until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut is_so: impl FnMut(&mut World) -> Result<bool, Violation>,
    ) -> Result<(), Violation> {
        while !is_so(self)? {
            if self.now >= deadline {
                let standings: Vec<_> = self
                    .masters
                    .iter()
                    .map(|host| (host.id.0, host.inspect()))
                    .collect();
                return Err(format!(
                    "not within {HEALS_WITHIN:?} of the healing: {what}; {standings:#?}"
                ));
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Whether every master of the group votes, and has the same state as the leader.
    fn are_in_step(&mut self) -> Result<bool, Violation> {
        let mut states = BTreeSet::new();
        let mut voters = BTreeSet::new();
        let mut leaders = 0;
        let now: Vec<_> = self
            .masters
            .iter()
            .filter_map(|host| Some((host.id, host.replica()?)))
            .collect();
        for (_, replica) in &now {
            let seen = replica.inspect();
            if seen.role == "Leader" {
                leaders += 1;
                voters.extend(seen.voters.into_iter().flatten());
            }
        }
        for id in &voters {
            let Some((_, replica)) = now.iter().find(|(host, _)| host == id) else {
                return Ok(false);
            };
            if !replica.inspect().votes {
                return Ok(false);
            }
            states.insert(replica.state_checksum().map_err(text)?);
        }
        Ok(leaders == 1 && states.len() == 1)
    }
}
