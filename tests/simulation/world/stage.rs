//! What a scene has happen, one thing at a time.

use std::time::Duration;

use curvine_protocol::NodeId;

use crate::checks::Violation;

use super::healing::HEALS_WITHIN;
use super::{World, text};

impl World {
    pub fn tells_messages(&mut self, does: bool) {
        self.story.with_messages(does);
    }

    pub fn pass_ms(&mut self, time_ms: u64) -> Result<(), Violation> {
        let until = self.now + Duration::from_millis(time_ms);
        while self.now < until {
            self.tick()?;
        }
        Ok(())
    }

    pub fn leader_is_there(&mut self) -> Result<(), Violation> {
        let deadline = self.now + HEALS_WITHIN;
        self.until(deadline, "a master leads", |world| {
            Ok(world.masters.leader().is_some())
        })?;
        let leader = self.masters.leader().expect("it was there just now");
        self.tell(format!("master {leader} leads"));
        Ok(())
    }

    /// A client makes a directory.
    pub fn make_one(&mut self) -> Result<(), Violation> {
        let made = self.clients.make_next();
        let deadline = self.now + HEALS_WITHIN;
        self.until(deadline, "a directory is made", |_| Ok(made.get()))?;
        self.tell("a client has made a directory");
        Ok(())
    }

    pub fn kill_leader(&mut self) -> Result<NodeId, Violation> {
        let leader = self.masters.leader().ok_or("nobody leads")?;
        self.tell(format!("master {leader} is killed"));
        self.masters.host_mut(leader).kill();
        Ok(leader)
    }

    pub fn wipe_follower(&mut self) -> Result<NodeId, Violation> {
        let followers = self.masters.all_but(self.masters.leader());
        let follower = *followers.first().ok_or("nobody follows")?;
        self.tell(format!("master {follower} loses its disk"));
        self.masters.host_mut(follower).wipe().map_err(text)?;
        Ok(follower)
    }

    pub fn votes_again(&mut self, id: NodeId) -> Result<(), Violation> {
        let deadline = self.now + HEALS_WITHIN;
        self.until(deadline, "it votes", |world| {
            let host = world.masters.get(id);
            Ok(host.and_then(|host| host.inspect()).is_some_and(|now| now.votes))
        })?;
        self.tell(format!("master {id} votes"));
        Ok(())
    }
}
