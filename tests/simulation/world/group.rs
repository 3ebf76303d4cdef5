//! What an operator does to the group of masters, as a client of it: takes one in, takes one out, has another lead.

use std::time::Duration;

use curvine_protocol::master::{AddMaster, RemoveMaster, TakeSnapshot, TransferLeadership};
use curvine_protocol::{ErrorKind, NodeId};

use crate::checks::Violation;
use crate::network::address;

use super::World;
use super::agenda::Act;

impl World {
    pub(super) fn take_snapshot(&mut self) {
        self.tell("a snapshot is asked for");
        let mut client = self.clients.shared.client();
        self.clients.spawn(async move {
            let _ = client.until_answered(TakeSnapshot {}, 0).await;
        });
    }

    pub(super) fn hand_over(&mut self, id: NodeId) {
        let to = self.chance.percent(50).then_some(id);
        self.tell(format!("leadership is to go to {to:?}"));
        let mut client = self.clients.shared.client();
        self.clients.spawn(async move {
            let _ = client.until_answered(TransferLeadership { to }, 0).await;
        });
    }

    /// A new machine, that is to join the group.
    pub(super) fn grow(&mut self) -> Result<(), Violation> {
        if !self.masters.may_grow() || self.now.as_secs() < 3 {
            return Ok(());
        }
        let id = self.masters.set_up_another();
        self.start(id)?;
        self.later(1_000, Act::Join(id));
        Ok(())
    }

    pub(super) fn join(&mut self, id: NodeId) {
        self.tell(format!("master {id} is to join"));
        let mut client = self.clients.shared.client();
        self.clients.shared.masters.borrow_mut().push(id);
        self.clients.spawn(async move {
            let add = AddMaster {
                id,
                address: address(id),
            };
            let _ = client.until_answered(add, 0).await;
        });
    }

    pub(super) fn shrink(&mut self, id: NodeId) {
        let is_member = self.clients.shared.masters.borrow().contains(&id);
        if !self.masters.may_shrink() || !is_member {
            return;
        }
        self.tell(format!("master {id} is to leave"));
        let done = self.masters.leaves(id);
        let (shared, wait) = (self.clients.shared.clone(), Duration::from_millis(200));
        self.clients.spawn(async move {
            loop {
                match shared.client().until_answered(RemoveMaster { id }, 0).await {
                    Some(Ok(_)) => break done.set(true),
                    Some(Err(error)) if error.kind == ErrorKind::NotFound => break done.set(true),
                    // It leads itself.
                    Some(Err(_)) => {
                        let _ = shared
                            .client()
                            .until_answered(TransferLeadership { to: None }, 0)
                            .await;
                    }
                    None => {}
                }
                tokio::time::sleep(wait).await;
            }
        });
    }

    /// The machine of one that is out of the group is taken away.
    pub(super) fn clear_away(&mut self) {
        let Some(id) = self.masters.take_away_who_left() else {
            return;
        };
        self.tell(format!("master {id} is out of the group and is taken away"));
        self.watch.forget(id);
        self.clients
            .shared
            .masters
            .borrow_mut()
            .retain(|other| *other != id);
    }
}
