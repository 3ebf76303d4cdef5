//! One run: masters, clients and what happens to them, from a seed.
//!
//! First the safety phase: faults come one after the other, and nothing that [`Checks`](crate::checks::Checks) looks for may
//! ever be. Then everything heals, and the liveness phase begins: within [`HEALS_WITHIN`](healing::HEALS_WITHIN) a leader
//! must be there, every master in step with it, and every client answered. What the clients saw must be linearizable, and
//! that includes what they read at the end.
//!
//! A [`World`] owns the time and the order in which everything gets its share of it ([`World::tick`]). Whatever else there
//! is has an owner of its own:
//!
//! - [`masters`]: the machines of the masters; [`clients`](crate::workload): who uses them; [`network`](crate::network):
//!   what is between them.
//! - [`agenda`]: what is planned. [`faults`], [`disks`], [`group`]: what is done, and what is planned with it.
//! - [`watch`]: what must hold at every moment; [`healing`]: what must hold at the end.
//! - [`story`]: what is told; [`stage`]: what scenes have happen.
//!
//! Whatever is random is drawn from the world's [`Chance`] or from a fork of it, in an order that depends on nothing else.
//! Machines of another kind have an owner beside [`masters`], get their share in `tick`, and are mended in `heal`: a
//! [`cluster`] has [`workers`] and [`mounts`], and [`troubles`] of its own.

mod agenda;
mod cluster;
pub mod director;
mod disks;
mod faults;
mod group;
mod healing;
mod masters;
mod mounts;
mod stage;
mod story;
mod troubles;
mod watch;
pub mod workers;

use std::fmt::{Display, Formatter};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use curvine_protocol::NodeId;

use crate::chance::{self, Chance};
use crate::checks::Violation;
use crate::faults::Plan;
use crate::network::{Letter, Network, WORKERS, name};
use crate::troubles::draw;
use crate::workload::Clients;

use self::agenda::{Act, Agenda};
use self::cluster::Cluster;
use self::masters::Masters;
use self::story::Story;
use self::watch::Watch;

/// Seeds from here on are of whole clusters; those below of masters alone.
pub const CLUSTERS: u64 = 1_000_000;
/// Seeds from here on are of plots.
pub const PLOTS: u64 = 2_000_000;

const TICK: Duration = Duration::from_millis(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOK_AT_CLUSTERS_EVERY: Duration = Duration::from_secs(1);
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

pub struct World {
    plan: Plan,
    chance: Chance,
    now: Duration,
    network: Network,
    masters: Masters,
    clients: Clients,
    agenda: Agenda,
    faults: usize,
    watch: Watch,
    story: Story,
    cluster: Option<Cluster>,
}

impl World {
    /// With `is_told`, what happens is printed.
    pub fn new(seed: u64, scratch: &Path, is_told: bool) -> Result<World, Violation> {
        let chance = Chance::new(seed);
        let plan = match seed < CLUSTERS {
            true => Plan::draw(&chance),
            false => draw(&chance),
        };
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
            cluster: None,
        };
        Self::with(plan, Chance::new(1), scratch, true)
    }

    fn with(plan: Plan, chance: Chance, scratch: &Path, is_told: bool) -> Result<World, Violation> {
        let network = Network::new(chance.fork());
        let ids: Vec<NodeId> = (1..=plan.masters).map(NodeId).collect();
        // Beside mounts they are the smaller part.
        let leisure = if plan.cluster.is_some() { 20 } else { 1 };
        let clients =
            Clients::new(network.clone(), ids.clone(), plan.cells, leisure, chance.fork()).map_err(text)?;
        let cluster = plan.cluster.clone();
        let cluster = cluster.map(|plan| Cluster::new(plan, scratch, &network, &ids, &chance));
        let mut world = World {
            cluster,
            now: Duration::ZERO,
            masters: Masters::new(&plan, scratch, network.clone(), chance.clone()),
            network,
            clients,
            agenda: Agenda::default(),
            faults: 0,
            watch: Watch::default(),
            story: Story::new(is_told),
            chance,
            plan,
        };
        // Without what masters alone do not have.
        let plan = format!("{:?}", world.plan).replace(", cluster: None", "");
        world.tell(plan);
        for id in &ids {
            world.masters.set_up(*id, &ids);
            world.start(*id)?;
        }
        Ok(world)
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        self.start_cluster()?;
        for number in 0..self.plan.clients {
            self.clients.begin(number % 3 == 2);
        }
        match self.cluster {
            None => self.later(2_000, Act::Fault),
            Some(_) => self.later(20_000, Act::Trouble),
        }
        let end = Duration::from_secs(self.plan.seconds);
        while self.now < end {
            self.tick()?;
        }
        self.heal()?;
        self.comes_to_rest()?;
        self.cluster_comes_to_rest()?;
        self.tell("the end");
        let history = self.clients.shared.history.take();
        let summary = self.summary();
        history.check()?;
        Ok(summary)
    }

    /// What it has been like.
    pub fn summary(&self) -> Summary {
        Summary {
            fingerprint: self.story.fingerprint(),
            acknowledged: self.clients.shared.acknowledged.get(),
            unknown: self.clients.shared.unknown.get(),
            applied: self.watch.checks().applied(),
            led: self.watch.checks().led(),
            faults: self.faults,
            messages: self.network.sent(),
            simulated: self.now,
        }
    }

    fn tell(&mut self, what: impl Display) {
        self.story.tell(self.now, what);
    }

    fn later(&mut self, most_ms: u64, act: Act) {
        self.after(most_ms / 10..most_ms + 1, act);
    }

    fn after(&mut self, range_ms: Range<u64>, act: Act) {
        let after = Duration::from_millis(self.chance.within(range_ms));
        self.agenda.plan(self.now + after, act);
    }

    fn tick(&mut self) -> Result<(), Violation> {
        let tick = self.next_tick();
        self.now += tick;
        chance::set_time(self.now);
        self.deliver();
        while let Some(act) = self.agenda.due(self.now) {
            self.act(act)?;
        }
        self.masters.iter_mut().for_each(|host| host.machine.pass(tick));
        self.clients.pass(tick);
        if let Some(cluster) = &mut self.cluster {
            cluster.pass(self.now, tick);
            let news = cluster.news()?;
            news.into_iter().for_each(|line| self.tell(line));
        }
        if self.agenda.springs(self.clients.shared.acknowledged.get()) {
            self.any_fault()?;
        }
        if let Some(panic) = PANIC.lock().expect("only the hook writes").take() {
            return Err(format!("panic: {panic}"));
        }
        let look_every = match self.cluster {
            None => LOOK_EVERY,
            Some(_) => LOOK_AT_CLUSTERS_EVERY,
        };
        if self.now.as_millis().is_multiple_of(look_every.as_millis()) {
            let news = self.watch.look(&mut self.masters)?;
            news.into_iter().for_each(|line| self.tell(line));
            self.clear_away();
            self.note_disturbed();
        }
        Ok(())
    }

    /// How far the time goes at once: where nothing is under way, there are fewer ticks in a cluster's minutes.
    fn next_tick(&self) -> Duration {
        const QUIET: Duration = Duration::from_millis(20);
        let now_us = whole_us(self.now);
        let quiet_us = match self.cluster {
            None => 0,
            Some(_) => self
                .network
                .next_due_us()
                .map_or(u64::MAX, |due| due.saturating_sub(now_us)),
        };
        let until_us = whole_us(QUIET) - now_us % whole_us(QUIET);
        let ticks = quiet_us.min(until_us) / whole_us(TICK);
        TICK * u32::try_from(ticks.max(1)).unwrap_or(u32::MAX)
    }

    /// What has arrived by now.
    fn deliver(&mut self) {
        for letter in self.network.arrived(whole_us(self.now)) {
            match letter {
                Letter::Answer { from, to, outcome } => {
                    if self.story.has_messages() {
                        self.tell(format!("  {} -> {}: {}", name(from), name(to), outcome.text));
                    }
                    (outcome.arrive)();
                }
                Letter::Request { from, to, request } => {
                    if self.story.has_messages() {
                        self.tell(format!("  {} -> {}: {}", name(from), name(to), request.name()));
                    }
                    if to >= WORKERS {
                        if let Some(cluster) = &mut self.cluster {
                            cluster.deliver(Letter::Request { from, to, request });
                        }
                        continue;
                    }
                    if let Some(host) = self.masters.get_mut(to) {
                        host.deliver(from, request);
                    }
                }
            }
        }
    }

    /// Starts a master, unless it runs or is there no more.
    pub fn start(&mut self, id: NodeId) -> Result<(), Violation> {
        let now = self.now;
        let Some(host) = self.masters.get_mut(id) else {
            return Ok(());
        };
        if !host.is_running() {
            host.start(now).map_err(text)?;
            self.watch.forget(id);
            self.tell(format!("master {id} is started"));
        }
        Ok(())
    }
}

fn text(error: impl Display) -> Violation {
    error.to_string()
}

fn whole_us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
