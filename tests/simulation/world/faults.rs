//! What each fault does, and what was planned to follow it. Each ends by itself: the act that ends it is planned with it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_protocol::NodeId;

use crate::checks::Violation;
use crate::faults::{Fault, bad_weather};
use crate::network::{CLIENTS, WORKERS, Weather};

use super::agenda::Act;
use super::{DISK_DELAY_US, World};

impl World {
    pub(super) fn any_fault(&mut self) -> Result<(), Violation> {
        let fault = *self.chance.one_of(&self.plan.faults);
        self.fault(fault)
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        let Some(id) = self.masters.somebody() else {
            return Ok(());
        };
        let others = self.masters.all_but(Some(id));
        self.faults += 1;
        match fault {
            Fault::CutOff => self.cut_off(id, others),
            Fault::Split => self.split(),
            Fault::BadWeather => {
                let weather = bad_weather(&self.chance);
                self.tell(format!("{weather:?}"));
                self.network.set_weather(weather);
                self.later(4_000, Act::FairWeather);
            }
            Fault::Kill => {
                self.tell(format!("master {id} is killed"));
                self.masters.host_mut(id).kill();
                self.later(3_000, Act::Start(id));
            }
            Fault::PowerCut => self.cut_power(id)?,
            Fault::Blackout => {
                for id in self.masters.ids() {
                    self.cut_power(id)?;
                }
            }
            Fault::Wipe => self.lose_disk(id)?,
            Fault::Link => {
                if !others.is_empty() {
                    let other = *self.chance.one_of(&others);
                    self.tell(format!("masters {id} and {other} do not reach each other"));
                    self.network.cut_both(id, other);
                    self.later(4_000, Act::Mend);
                }
            }
            Fault::Usurp => self.prepare_to_usurp(),
            Fault::QuickRestart => {
                self.tell(format!("master {id} is killed, to be back at once"));
                self.masters.host_mut(id).kill();
                self.later(60, Act::Start(id));
            }
            Fault::Stop => {
                self.tell(format!("master {id} is stopped"));
                self.masters.host_mut(id).machine.stop();
                self.later(3_000, Act::GoOn(id));
            }
            Fault::Terminate => {
                self.tell(format!("master {id} is asked to end"));
                if let Some(ended) = self.masters.host_mut(id).terminate() {
                    self.later(100, Act::Gone(id, ended));
                }
            }
            Fault::SlowDisk => {
                self.tell(format!("the disk of master {id} is slow"));
                self.masters
                    .host_mut(id)
                    .machine
                    .disk_delay
                    .store(200_000, Ordering::Relaxed);
                self.later(3_000, Act::FastDisk(id));
            }
            Fault::HandOver => self.hand_over(id),
            Fault::Snapshot => self.take_snapshot(),
            Fault::Grow => self.grow()?,
            Fault::Shrink => self.shrink(id),
        }
        Ok(())
    }

    fn cut_off(&mut self, id: NodeId, others: Vec<NodeId>) {
        let (hears, is_heard) = *self
            .chance
            .one_of(&[(false, false), (true, false), (false, true)]);
        let with_clients = self.chance.percent(30);
        self.tell(format!(
            "master {id} is cut off: hears {hears}, is heard {is_heard}, from its clients too {with_clients}"
        ));
        for other in others.into_iter().chain(with_clients.then_some(CLIENTS)) {
            if !hears {
                self.network.cut(other, id);
            }
            if !is_heard {
                self.network.cut(id, other);
            }
        }
        self.later(4_000, Act::Mend);
    }

    fn split(&mut self) {
        let (here, there): (Vec<NodeId>, Vec<NodeId>) = self
            .masters
            .ids()
            .into_iter()
            .partition(|_| self.chance.percent(50));
        self.tell(format!("masters {here:?} and {there:?} do not reach each other"));
        for (one, other) in here
            .iter()
            .flat_map(|one| there.iter().map(move |other| (*one, *other)))
        {
            self.network.cut_both(one, other);
        }
        self.later(4_000, Act::Mend);
    }

    pub(super) fn act(&mut self, act: Act) -> Result<(), Violation> {
        match act {
            Act::Start(id) | Act::GoOn(id) | Act::LetGo(id) if id >= WORKERS => self.act_on(act)?,
            Act::LetGo(id) => self.network.let_go(id),
            Act::StoreIsWell | Act::ReplaceDisk(_) => self.act_on(act)?,
            Act::Trouble => {
                self.any_trouble()?;
                self.later(self.plan.pause_ms, Act::Trouble);
            }
            Act::Fault => {
                match self.chance.percent(50) {
                    true => self.agenda.lie_in_ambush(self.clients.shared.acknowledged.get()),
                    false => self.any_fault()?,
                }
                self.later(self.plan.pause_ms, Act::Fault);
            }
            Act::Mend => {
                self.tell("the network is whole again");
                self.network.mend();
            }
            Act::FairWeather => self.network.set_weather(Weather::fair()),
            Act::Start(id) => self.start(id)?,
            Act::GoOn(id) => {
                if let Some(host) = self.masters.get_mut(id)
                    && host.is_stopped()
                {
                    host.machine.go_on();
                    self.tell(format!("master {id} goes on"));
                }
            }
            Act::FastDisk(id) => {
                if let Some(host) = self.masters.get(id) {
                    host.machine.disk_delay.store(DISK_DELAY_US, Ordering::Relaxed);
                }
            }
            Act::Gone(id, ended) => {
                let Some(host) = self.masters.get_mut(id) else {
                    return Ok(());
                };
                match *ended.borrow() {
                    // It was killed meanwhile, perhaps, and runs again.
                    true if host.replica().is_none() => {
                        host.kill();
                        self.tell(format!("master {id} has ended"));
                        self.later(2_000, Act::Start(id));
                    }
                    true => {}
                    false => self.later(100, Act::Gone(id, ended.clone())),
                }
            }
            Act::Join(id) => self.join(id),
            Act::Usurp {
                leader,
                restarts,
                stands,
            } => self.usurp(leader, restarts, stands),
            Act::LoseTwo(one, other) => self.lose_two(one, other)?,
        }
        Ok(())
    }

    fn prepare_to_usurp(&mut self) {
        let leader = self.masters.leader();
        let others = self.masters.all_but(leader);
        if let (Some(leader), [one, other]) = (leader, &others[..]) {
            let (restarts, stands) = *self.chance.one_of(&[(*one, *other), (*other, *one)]);
            self.tell(format!("masters {leader} and {stands} do not reach each other"));
            self.network.cut_both(leader, stands);
            let usurp = Act::Usurp {
                leader,
                restarts,
                stands,
            };
            self.later(2_000, usurp);
            self.later(6_000, Act::Mend);
        }
    }

    fn usurp(&mut self, leader: NodeId, restarts: NodeId, stands: NodeId) {
        if self.masters.leader() != Some(leader) || self.masters.get(restarts).is_none() {
            return;
        }
        self.tell(format!(
            "master {leader} is cut off and {restarts} is killed, to be back at once"
        ));
        for other in [restarts, stands] {
            self.network.cut_both(leader, other);
        }
        self.masters.host_mut(restarts).kill();
        self.later(40, Act::Start(restarts));
        for _ in 0..4 {
            self.clients.visit(stands, Duration::from_secs(1));
        }
    }
}
