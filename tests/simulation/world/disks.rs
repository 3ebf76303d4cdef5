//! Power cuts and lost disks of masters.

use curvine_protocol::NodeId;

use crate::checks::Violation;

use super::agenda::Act;
use super::{World, text};

impl World {
    pub(super) fn cut_power(&mut self, id: NodeId) -> Result<(), Violation> {
        let lost = self.masters.host_mut(id).lose_power().map_err(text)?;
        self.tell(format!("master {id} loses its power, and {lost} pages with it"));
        self.later(3_000, Act::Start(id));
        Ok(())
    }

    /// One disk alone; or that of a follower while its leader dies, and another has missed the last changes: what was
    /// acknowledged is on one dead disk then. If the other is a leader, it has missed that it was replaced as well.
    pub(super) fn lose_disk(&mut self, id: NodeId) -> Result<(), Violation> {
        let all = self.masters.ids();
        let leader = self.masters.leader();
        if all.len() != 3 || leader.is_none() || !self.chance.percent(60) {
            return self.wipe(id).map(|_| ());
        }
        let late = *self.chance.one_of(&all);
        let others = self.masters.all_but(Some(late));
        self.tell(format!("master {late} is cut off, and then {others:?} are lost"));
        for other in &others {
            self.network.cut_both(late, *other);
        }
        let range_ms = match leader == Some(late) {
            true => 1_500..4_000,
            false => 70..700,
        };
        self.after(range_ms, Act::LoseTwo(others[0], others[1]));
        Ok(())
    }

    pub(super) fn lose_two(&mut self, one: NodeId, other: NodeId) -> Result<(), Violation> {
        let (wiped, killed) = match self.masters.leads(one) {
            true => (other, one),
            false => (one, other),
        };
        self.network.mend();
        if self.wipe(wiped)? && self.masters.get(killed).is_some() {
            self.tell(format!(
                "master {killed} is killed, and the network is whole again"
            ));
            self.masters.host_mut(killed).kill();
            self.after(300..5_000, Act::Start(killed));
        }
        Ok(())
    }

    /// Unless that could be one failure too many. Whether it is without its disk's content now.
    fn wipe(&mut self, id: NodeId) -> Result<bool, Violation> {
        if self.masters.may_lose_disk(id) {
            self.tell(format!("master {id} loses its disk"));
            self.masters.lose_disk(id).map_err(text)?;
            self.later(2_000, Act::Start(id));
        }
        Ok(self.masters.wiped() == Some(id))
    }
}
