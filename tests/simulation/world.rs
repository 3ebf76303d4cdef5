//! One run: masters, clients and what happens to them, from a seed.
//!
//! First the safety phase: faults come one after the other, and nothing that [`Checks`] looks for may ever be. Then
//! everything heals, and the liveness phase begins: within [`HEALS_WITHIN`] a leader must be there, every master in step
//! with it, and every client answered. What the clients saw must be linearizable, and that includes what they read at the
//! end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curvine_actors::master::replica::{LogLimits, Members};
use curvine_protocol::master::{AddMaster, RemoveMaster, TakeSnapshot, TransferLeadership};
use curvine_protocol::{ErrorKind, NodeId};

use crate::chance::{self, Chance};
use crate::checks::{Checks, Violation};
use crate::faults::{Fault, Plan, bad_weather};
use crate::host::Host;
use crate::network::{CLIENTS, Letter, Network, Weather, address};
use crate::workload::Clients;

const TICK: Duration = Duration::from_millis(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const HEALS_WITHIN: Duration = Duration::from_secs(60);
const DISK_DELAY_US: u64 = 1_000;

/// A panic anywhere in the process: tokio keeps those of its tasks to itself.
pub static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// What a run was like.
pub struct Summary {
    /// Over everything that happened.
    pub fingerprint: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub applied: usize,
    pub led: usize,
    pub faults: usize,
    pub messages: u64,
    pub simulated: Duration,
}

impl Display for Summary {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} faults in {:.0} s, {} messages, {} leaders, {} entries applied; {} changes acknowledged, {} operations of \
             unknown outcome; fingerprint {:016x}",
            self.faults,
            self.simulated.as_secs_f64(),
            self.messages,
            self.led,
            self.applied,
            self.acknowledged,
            self.unknown,
            self.fingerprint
        )
    }
}

/// What is planned for later.
enum Act {
    Fault,
    Mend,
    FairWeather,
    Start(NodeId),
    GoOn(NodeId),
    FastDisk(NodeId),
    /// Looks whether a process that was asked to end has.
    Gone(NodeId, Rc<RefCell<bool>>),
    Join(NodeId),
    /// Of the two that had the last changes one loses its disk, which is not the leader's, and the other is killed.
    LoseTwo(NodeId, NodeId),
    /// The leader is cut off from all masters, one of those is back at once, and clients turn to a third.
    Usurp {
        leader: NodeId,
        restarts: NodeId,
        stands: NodeId,
    },
}

impl Act {
    fn is_fault(&self) -> bool {
        matches!(self, Act::Fault | Act::LoseTwo(..) | Act::Usurp { .. })
    }
}

pub struct World {
    scratch: PathBuf,
    plan: Plan,
    chance: Chance,
    now: Duration,
    network: Network,
    hosts: BTreeMap<NodeId, Host>,
    next_host: u64,
    /// The one that lost its disk and does not have everything again.
    wiped: Option<NodeId>,
    /// Being taken out of the group, and whether that is done.
    leaving: Option<(NodeId, Rc<Cell<bool>>)>,
    clients: Clients,
    agenda: BTreeMap<(Duration, u64), Act>,
    planned: u64,
    /// The next fault waits for the next acknowledged change after so many: right behind one is the worst moment.
    ambush: Option<u64>,
    faults: usize,
    checks: Checks,
    said: BTreeMap<NodeId, String>,
    fingerprint: DefaultHasher,
    is_told: bool,
    tells_messages: bool,
}

impl World {
    /// With `is_told`, what happens is printed.
    pub fn new(seed: u64, scratch: &Path, is_told: bool) -> Result<World, Violation> {
        let chance = Chance::new(seed);
        let plan = Plan::draw(&chance);
        Self::with(plan, chance, scratch, is_told)
    }

    /// Three masters in fair weather, to which nothing happens by itself.
    pub fn of_three(scratch: &Path) -> Result<World, Violation> {
        let plan = Plan {
            masters: 3,
            clients: 0,
            cells: 20,
            seconds: 0,
            faults: Vec::new(),
            pause_ms: 0,
            snapshot_every_entries: 10,
            snapshot_every_bytes: 1 << 30,
            kept_entries: 0,
            kept_bytes: 1 << 30,
        };
        Self::with(plan, Chance::new(1), scratch, true)
    }

    fn with(plan: Plan, chance: Chance, scratch: &Path, is_told: bool) -> Result<World, Violation> {
        let network = Network::new(chance.fork());
        let ids: Vec<NodeId> = (1..=plan.masters).map(NodeId).collect();
        let clients = Clients::new(network.clone(), ids.clone(), plan.cells, chance.fork()).map_err(text)?;
        let mut world = World {
            scratch: scratch.to_owned(),
            chance,
            now: Duration::ZERO,
            network,
            hosts: BTreeMap::new(),
            next_host: plan.masters + 1,
            wiped: None,
            leaving: None,
            clients,
            agenda: BTreeMap::new(),
            planned: 0,
            ambush: None,
            faults: 0,
            checks: Checks::default(),
            said: BTreeMap::new(),
            fingerprint: DefaultHasher::new(),
            is_told,
            tells_messages: is_told && std::env::var_os("CURVINE_MESSAGES").is_some(),
            plan,
        };
        world.tell(format!("{:?}", world.plan));
        for id in &ids {
            let host = world.host(*id, &ids);
            world.hosts.insert(*id, host);
            world.start(*id)?;
        }
        Ok(world)
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        for number in 0..self.plan.clients {
            self.clients.begin(number % 3 == 2);
        }
        self.later(2_000, Act::Fault);
        let end = Duration::from_secs(self.plan.seconds);
        while self.now < end {
            self.tick()?;
        }
        self.tell("everything heals");
        self.heal()?;
        self.clients.finish();
        let healed = self.now + HEALS_WITHIN;
        self.until(healed, "the clients are answered", |world| {
            Ok(world.clients.are_done())
        })?;
        let read = self.clients.read_all();
        self.until(healed, "everything can be read", |_| Ok(read.get()))?;
        self.until(healed, "all masters are in step", World::are_in_step)?;
        self.tell("the end");
        let history = self.clients.shared.history.take();
        let summary = Summary {
            fingerprint: self.fingerprint.finish(),
            acknowledged: self.clients.shared.acknowledged.get(),
            unknown: self.clients.shared.unknown.get(),
            applied: self.checks.applied(),
            led: self.checks.led(),
            faults: self.faults,
            messages: self.network.sent(),
            simulated: self.now,
        };
        history.check()?;
        Ok(summary)
    }

    fn host(&self, id: NodeId, members: &[NodeId]) -> Host {
        let members = Members {
            me: id,
            addresses: members.iter().map(|id| (*id, address(*id))).collect(),
        };
        let limits = LogLimits {
            snapshot_every_entries: self.plan.snapshot_every_entries,
            snapshot_every_bytes: self.plan.snapshot_every_bytes,
            kept_entries: self.plan.kept_entries,
            kept_bytes: self.plan.kept_bytes,
        };
        Host::new(
            members,
            &self.scratch,
            self.network.clone(),
            limits,
            self.chance.fork(),
        )
    }

    fn tell(&mut self, what: impl Display) {
        let line = format!("{:>9.3} {what}", self.now.as_secs_f64());
        line.hash(&mut self.fingerprint);
        if self.is_told {
            println!("{line}");
        }
    }

    fn later(&mut self, most_ms: u64, act: Act) {
        self.after(most_ms / 10..most_ms + 1, act);
    }

    fn after(&mut self, range_ms: Range<u64>, act: Act) {
        let after = Duration::from_millis(self.chance.within(range_ms));
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), act);
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.now += TICK;
        chance::set_time(self.now);
        for letter in self.network.arrived(self.now.as_micros() as u64) {
            match letter {
                Letter::Answer { from, to, outcome } => {
                    if self.tells_messages {
                        self.tell(format!("  {from} -> {to}: {}", outcome.text));
                    }
                    (outcome.arrive)();
                }
                Letter::Request { from, to, request } => {
                    if self.tells_messages {
                        self.tell(format!("  {from} -> {to}: {}", request.name()));
                    }
                    if let Some(host) = self.hosts.get_mut(&to) {
                        host.deliver(from, request);
                    }
                }
            }
        }
        while let Some(next) = self.agenda.first_entry()
            && next.key().0 <= self.now
        {
            let act = next.remove();
            self.act(act)?;
        }
        self.hosts.values_mut().for_each(|host| host.pass(TICK));
        self.clients.pass(TICK);
        if self
            .ambush
            .is_some_and(|had| had < self.clients.shared.acknowledged.get())
        {
            self.ambush = None;
            self.any_fault()?;
        }
        if let Some(panic) = PANIC.lock().expect("only the hook writes").take() {
            return Err(format!("panic: {panic}"));
        }
        if self.now.as_millis().is_multiple_of(LOOK_EVERY.as_millis()) {
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Violation> {
        let mut news = Vec::new();
        for (id, host) in &self.hosts {
            if let Some(error) = host.failed_to_start() {
                return Err(format!("master {id} does not start: {error}"));
            }
            let Some(replica) = host.replica() else { continue };
            self.checks.look(*id, &replica)?;
            let now = replica.inspect();
            let standing = format!(
                "{} in term {} of master {}{}, voters {}",
                now.role,
                now.vote.0,
                now.vote.1,
                if now.votes { "" } else { ", catching up" },
                groups(&now.voters),
            );
            if self.said.get(id) != Some(&standing) {
                news.push((
                    *id,
                    format!(
                        "master {id}: {standing}; log {:?}, applied {:?}, snapshot {:?}",
                        now.last_log,
                        now.applied.map(|entry| entry.index),
                        now.snapshot.map(|entry| entry.index)
                    ),
                ));
                self.said.insert(*id, standing);
            }
            if self.wiped == Some(*id) && now.votes {
                self.wiped = None;
            }
        }
        news.into_iter().for_each(|(_, line)| self.tell(line));
        if let Some((id, done)) = &self.leaving
            && done.get()
        {
            let id = *id;
            self.leaving = None;
            self.tell(format!("master {id} is out of the group and is taken away"));
            self.hosts.remove(&id);
            self.said.remove(&id);
            self.checks.forget(id);
            if self.wiped == Some(id) {
                self.wiped = None;
            }
            self.clients
                .shared
                .masters
                .borrow_mut()
                .retain(|other| *other != id);
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Result<(), Violation> {
        match act {
            Act::Fault => {
                match self.chance.percent(50) {
                    true => self.ambush = Some(self.clients.shared.acknowledged.get()),
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
                if let Some(host) = self.hosts.get_mut(&id)
                    && host.is_stopped()
                {
                    host.go_on();
                    self.tell(format!("master {id} goes on"));
                }
            }
            Act::FastDisk(id) => {
                if let Some(host) = self.hosts.get(&id) {
                    host.disk_delay.store(DISK_DELAY_US, Ordering::Relaxed);
                }
            }
            Act::Gone(id, ended) => {
                let Some(host) = self.hosts.get_mut(&id) else {
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
            } => {
                if self.leader() == Some(leader) && self.hosts.contains_key(&restarts) {
                    self.tell(format!(
                        "master {leader} is cut off and {restarts} is killed, to be back at once"
                    ));
                    for other in [restarts, stands] {
                        self.cut_both(leader, other);
                    }
                    self.host_mut(restarts).kill();
                    self.later(40, Act::Start(restarts));
                    for _ in 0..4 {
                        self.clients.visit(stands, Duration::from_secs(1));
                    }
                }
            }
            Act::LoseTwo(one, other) => {
                let leads = |id| self.hosts.get(&id).is_some_and(World::leads);
                let (wiped, killed) = if leads(one) { (other, one) } else { (one, other) };
                self.network.mend();
                if self.wipe(wiped)? && self.hosts.contains_key(&killed) {
                    self.tell(format!(
                        "master {killed} is killed, and the network is whole again"
                    ));
                    self.host_mut(killed).kill();
                    self.after(300..5_000, Act::Start(killed));
                }
            }
        }
        Ok(())
    }

    pub fn start(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else {
            return Ok(());
        };
        if !host.is_running() {
            host.start(now).map_err(text)?;
            self.checks.forget(id);
            self.said.remove(&id);
            self.tell(format!("master {id} is started"));
        }
        Ok(())
    }

    /// One of the running masters; the leader as often as all others together.
    fn somebody(&self) -> Option<NodeId> {
        let running: Vec<NodeId> = (self.hosts.values())
            .filter(|host| host.is_running() && !host.is_stopped())
            .map(|host| host.id)
            .collect();
        match self.leader() {
            Some(leader) if self.chance.percent(50) => Some(leader),
            _ if running.is_empty() => None,
            _ => Some(*self.chance.one_of(&running)),
        }
    }

    fn cut_both(&self, one: NodeId, other: NodeId) {
        self.network.cut(one, other);
        self.network.cut(other, one);
    }

    /// Whoever takes itself for the leader.
    fn leader(&self) -> Option<NodeId> {
        self.hosts
            .values()
            .find(|host| World::leads(host))
            .map(|host| host.id)
    }

    fn leads(host: &Host) -> bool {
        let replica = host.replica().filter(|_| !host.is_stopped());
        replica.is_some_and(|replica| replica.leadership().borrow().is_some())
    }

    fn all_but(&self, one: Option<NodeId>) -> Vec<NodeId> {
        self.hosts.keys().copied().filter(|id| Some(*id) != one).collect()
    }

    fn any_fault(&mut self) -> Result<(), Violation> {
        let fault = *self.chance.one_of(&self.plan.faults);
        self.fault(fault)
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Violation> {
        let Some(id) = self.somebody() else { return Ok(()) };
        let others = self.all_but(Some(id));
        self.faults += 1;
        match fault {
            Fault::CutOff => {
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
            Fault::Split => {
                let (here, there): (Vec<NodeId>, Vec<NodeId>) =
                    self.hosts.keys().copied().partition(|_| self.chance.percent(50));
                self.tell(format!("masters {here:?} and {there:?} do not reach each other"));
                for (one, other) in here
                    .iter()
                    .flat_map(|one| there.iter().map(move |other| (*one, *other)))
                {
                    self.cut_both(one, other);
                }
                self.later(4_000, Act::Mend);
            }
            Fault::BadWeather => {
                let weather = bad_weather(&self.chance);
                self.tell(format!("{weather:?}"));
                self.network.set_weather(weather);
                self.later(4_000, Act::FairWeather);
            }
            Fault::Kill => {
                self.tell(format!("master {id} is killed"));
                self.host_mut(id).kill();
                self.later(3_000, Act::Start(id));
            }
            Fault::PowerCut => self.cut_power(id)?,
            Fault::Blackout => {
                for id in self.hosts.keys().copied().collect::<Vec<_>>() {
                    self.cut_power(id)?;
                }
            }
            Fault::Wipe => self.lose_disk(id)?,
            Fault::Link => {
                if !others.is_empty() {
                    let other = *self.chance.one_of(&others);
                    self.tell(format!("masters {id} and {other} do not reach each other"));
                    self.cut_both(id, other);
                    self.later(4_000, Act::Mend);
                }
            }
            Fault::Usurp => {
                let leader = self.leader();
                let others = self.all_but(leader);
                if let (Some(leader), [one, other]) = (leader, &others[..]) {
                    let (restarts, stands) = *self.chance.one_of(&[(*one, *other), (*other, *one)]);
                    self.tell(format!("masters {leader} and {stands} do not reach each other"));
                    self.cut_both(leader, stands);
                    let usurp = Act::Usurp {
                        leader,
                        restarts,
                        stands,
                    };
                    self.later(2_000, usurp);
                    self.later(6_000, Act::Mend);
                }
            }
            Fault::QuickRestart => {
                self.tell(format!("master {id} is killed, to be back at once"));
                self.host_mut(id).kill();
                self.later(60, Act::Start(id));
            }
            Fault::Stop => {
                self.tell(format!("master {id} is stopped"));
                self.host_mut(id).stop();
                self.later(3_000, Act::GoOn(id));
            }
            Fault::Terminate => {
                self.tell(format!("master {id} is asked to end"));
                if let Some(ended) = self.host_mut(id).terminate() {
                    self.later(100, Act::Gone(id, ended));
                }
            }
            Fault::SlowDisk => {
                self.tell(format!("the disk of master {id} is slow"));
                self.hosts[&id].disk_delay.store(200_000, Ordering::Relaxed);
                self.later(3_000, Act::FastDisk(id));
            }
            Fault::HandOver => self.hand_over(id),
            Fault::Snapshot => {
                self.tell("a snapshot is asked for");
                let mut client = self.clients.shared.client();
                self.clients.spawn(async move {
                    let _ = client.until_answered(TakeSnapshot {}, 0).await;
                });
            }
            Fault::Grow => self.grow()?,
            Fault::Shrink => self.shrink(id),
        }
        Ok(())
    }

    fn host_mut(&mut self, id: NodeId) -> &mut Host {
        self.hosts.get_mut(&id).expect("it is one of the hosts")
    }

    fn cut_power(&mut self, id: NodeId) -> Result<(), Violation> {
        let lost = self.host_mut(id).lose_power().map_err(text)?;
        self.tell(format!("master {id} loses its power, and {lost} pages with it"));
        self.later(3_000, Act::Start(id));
        Ok(())
    }

    /// One disk alone; or that of a follower while its leader dies, and another has missed the last changes: what was
    /// acknowledged is on one dead disk then. If the other is a leader, it has missed that it was replaced as well.
    fn lose_disk(&mut self, id: NodeId) -> Result<(), Violation> {
        let all = self.all_but(None);
        let leader = self.leader();
        if all.len() != 3 || leader.is_none() || !self.chance.percent(60) {
            return self.wipe(id).map(|_| ());
        }
        let late = *self.chance.one_of(&all);
        let others = self.all_but(Some(late));
        self.tell(format!("master {late} is cut off, and then {others:?} are lost"));
        for other in &others {
            self.cut_both(late, *other);
        }
        let range_ms = match leader == Some(late) {
            true => 1_500..4_000,
            false => 70..700,
        };
        self.after(range_ms, Act::LoseTwo(others[0], others[1]));
        Ok(())
    }

    /// One disk at a time: who has lost its log counts as failed until it has it again, and a majority must not fail.
    fn wipe(&mut self, id: NodeId) -> Result<bool, Violation> {
        let members = self.all_but(None);
        let group = [BTreeSet::from_iter(members.iter().copied())];
        let is_whole = self.wiped.is_none()
            && self.leaving.is_none()
            && members.len() >= 3
            && (self.hosts.values())
                .all(|host| host.inspect().is_some_and(|now| now.votes && now.voters == group));
        if is_whole && members.contains(&id) {
            self.tell(format!("master {id} loses its disk"));
            self.wiped = Some(id);
            self.host_mut(id).wipe().map_err(text)?;
            let fresh = self.host(id, &members);
            self.hosts.insert(id, fresh);
            self.later(2_000, Act::Start(id));
        }
        Ok(self.wiped == Some(id))
    }

    fn hand_over(&mut self, id: NodeId) {
        let to = self.chance.percent(50).then_some(id);
        self.tell(format!("leadership is to go to {to:?}"));
        let mut client = self.clients.shared.client();
        self.clients.spawn(async move {
            let _ = client.until_answered(TransferLeadership { to }, 0).await;
        });
    }

    /// A new machine, that is to join the group.
    fn grow(&mut self) -> Result<(), Violation> {
        if self.hosts.len() >= 6 || self.leaving.is_some() || self.now.as_secs() < 3 {
            return Ok(());
        }
        let id = NodeId(self.next_host);
        self.next_host += 1;
        let members: Vec<NodeId> = self.hosts.keys().copied().chain([id]).collect();
        let host = self.host(id, &members);
        self.hosts.insert(id, host);
        self.start(id)?;
        self.later(1_000, Act::Join(id));
        Ok(())
    }

    fn join(&mut self, id: NodeId) {
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

    fn shrink(&mut self, id: NodeId) {
        let is_member = self.clients.shared.masters.borrow().contains(&id);
        if self.hosts.len() < 3 || self.leaving.is_some() || self.wiped.is_some() || !is_member {
            return;
        }
        self.tell(format!("master {id} is to leave"));
        let done = Rc::new(Cell::new(false));
        self.leaving = Some((id, done.clone()));
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

    // For scenes.

    pub fn tells_messages(&mut self, does: bool) {
        self.tells_messages = does;
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
        self.until(deadline, "a master leads", |world| Ok(world.leader().is_some()))?;
        let leader = self.leader().expect("it was there just now");
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
        let leader = self.leader().ok_or("nobody leads")?;
        self.tell(format!("master {leader} is killed"));
        self.host_mut(leader).kill();
        Ok(leader)
    }

    pub fn wipe_follower(&mut self) -> Result<NodeId, Violation> {
        let followers = self.all_but(self.leader());
        let follower = *followers.first().ok_or("nobody follows")?;
        self.tell(format!("master {follower} loses its disk"));
        self.host_mut(follower).wipe().map_err(text)?;
        Ok(follower)
    }

    pub fn votes_again(&mut self, id: NodeId) -> Result<(), Violation> {
        let deadline = self.now + HEALS_WITHIN;
        self.until(deadline, "it votes", |world| {
            Ok(world.hosts[&id].inspect().is_some_and(|now| now.votes))
        })?;
        self.tell(format!("master {id} votes"));
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.agenda.retain(|_, act| !act.is_fault());
        self.ambush = None;
        self.network.mend();
        self.network.set_weather(Weather::fair());
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.host_mut(id).go_on();
            self.hosts[&id].disk_delay.store(DISK_DELAY_US, Ordering::Relaxed);
            self.start(id)?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        deadline: Duration,
        what: &str,
        mut is_so: impl FnMut(&mut World) -> Result<bool, Violation>,
    ) -> Result<(), Violation> {
        while !is_so(self)? {
            if self.now >= deadline {
                let standings: Vec<_> = self
                    .hosts
                    .iter()
                    .map(|(id, host)| (id.0, host.inspect()))
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
            .hosts
            .values()
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

fn text(error: impl Display) -> Violation {
    error.to_string()
}
