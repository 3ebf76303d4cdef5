//! Three masters on hosts of their own whose packets get lost, while clients go on: everything that they saw has an order
//! that explains it, and no cut stops them for long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ports, call};
use curvine_protocol::cluster::MasterRole;
use curvine_protocol::master::{GetClusterStatus, GetXattr, RenameMode};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CallContext, CurvinePath, Error, ErrorKind, Node as At, Result};
use curvine_tests::history::{History, Name, Operation, Outcome};
use curvine_tests::process::namespaces::Namespaces;
use curvine_tests::random::Seeded;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::group::*;
use super::support::*;

const MASTERS: usize = 3;
/// The host of the clients.
const CLIENTS_HOST: usize = MASTERS;
const CLIENTS: u64 = 5;
const CELLS: u64 = 6;
const XATTR: &str = "user.value";
/// It lasts for so many times 60 operations.
const ROUNDS_OF_FAULT: u32 = 4;
/// From a cut of the leader until another one leads.
const REPLACED_WITHIN: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// What the leader sends to the others is lost.
    FromLeader,
    /// What the others send to the leader is lost.
    ToLeader,
    LeaderAlone,
    /// This share of all packets between masters is lost.
    Loss(f64),
}

impl Fault {
    fn begin(self, hosts: &Namespaces, leader: usize) {
        let pairs = (0..MASTERS).flat_map(|from| (0..MASTERS).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let share = match self {
                Fault::FromLeader => f64::from(u8::from(from == leader)),
                Fault::ToLeader => f64::from(u8::from(to == leader)),
                Fault::LeaderAlone => f64::from(u8::from(from == leader || to == leader)),
                Fault::Loss(share) => share,
            };
            if share > 0.0 {
                hosts.lose(from, to, share);
            }
        }
    }
}

enum Event {
    Began(usize, u64, Operation),
    Ended(Outcome),
}

/// Operations under their numbers, in the order in which they began and ended.
#[derive(Default)]
struct Record {
    events: Mutex<Vec<(u64, Event)>>,
    operations: AtomicU64,
    sessions: AtomicU64,
    ended: AtomicU64,
    stop: AtomicBool,
}

impl Record {
    fn note(&self, number: u64, event: Event) {
        self.events
            .lock()
            .expect("nobody panics while it holds this")
            .push((number, event));
    }

    fn begin(&self, cell: u64, session: u64, operation: Operation) -> u64 {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        self.note(number, Event::Began(to_usize(cell), session, operation));
        number
    }

    fn end(&self, number: u64, outcome: Outcome) {
        self.note(number, Event::Ended(outcome));
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }

    /// What happened. A read without an answer says nothing, and is left out.
    fn history(&self) -> History {
        let events = self.events.lock().expect("nobody panics while it holds this");
        let ended = events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Ended(_)));
        let ended: std::collections::HashSet<u64> = ended.map(|(number, _)| *number).collect();
        let (mut history, mut tickets) = (History::default(), std::collections::HashMap::new());
        for (number, event) in events.iter() {
            match event {
                Event::Began(_, _, Operation::Get(_)) if !ended.contains(number) => {}
                Event::Began(cell, session, operation) => {
                    tickets.insert(*number, history.begin(*cell, *session, *operation));
                }
                Event::Ended(outcome) => {
                    history.end(tickets.remove(number).expect("it began"), *outcome);
                }
            }
        }
        history
    }
}

fn place(cell: u64, name: Name) -> CurvinePath {
    path(&match name {
        Name::A => format!("{cell}a"),
        Name::B => format!("{cell}b"),
    })
}

fn random_operation(random: &mut Seeded, value: u64) -> Operation {
    let (name, other) = match random.below(2) {
        0 => (Name::A, Name::B),
        _ => (Name::B, Name::A),
    };
    match random.below(100) {
        0..15 => Operation::Make(name),
        15..25 => Operation::Remove(name),
        25..50 => Operation::Set(name, value),
        50..60 => Operation::Rename(name, other),
        _ => Operation::Get(name),
    }
}

async fn carry_out(client: &Client, cell: u64, operation: Operation) -> Option<Outcome> {
    let place = |name| place(cell, name);
    let done = match operation {
        Operation::Make(name) => client.make_dir(place(name), 0o755, false).await.map(|_| ()),
        Operation::Remove(name) => client.remove_dir(place(name)).await,
        Operation::Set(name, value) => {
            let value = value.to_be_bytes();
            client.set_xattr(place(name), XATTR, &value, false, false).await
        }
        Operation::Rename(from, to) => {
            let renamed = client.rename(place(from), place(to), RenameMode::Replace, false);
            renamed.await.map(|_| ())
        }
        Operation::Get(name) => return outcome_of_get(client.xattr(place(name), XATTR).await),
    };
    match done {
        Ok(()) => Some(Outcome::Done),
        Err(error) => outcome_of(&error),
    }
}

fn outcome_of_get(value: Result<Vec<u8>>) -> Option<Outcome> {
    match value {
        Ok(value) => {
            let value = value.try_into().expect("eight bytes were set");
            Some(Outcome::Value(u64::from_be_bytes(value)))
        }
        Err(error) => outcome_of(&error),
    }
}

/// None if it is not known what became of it.
fn outcome_of(error: &Error) -> Option<Outcome> {
    match error.kind {
        ErrorKind::NotFound => Some(Outcome::Absent),
        ErrorKind::AlreadyExists => Some(Outcome::Exists),
        ErrorKind::NoAttribute => Some(Outcome::NoValue),
        ErrorKind::NotLeader | ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Stopping => None,
        _ => panic!("no outage explains {:?}: {error}", error.kind),
    }
}

/// A client that does one thing after the other until it is told to stop: the longest that one took.
async fn do_anything(client: Client, seed: u64, record: Arc<Record>) -> Duration {
    let (mut random, mut session) = (Seeded::new(seed), record.session());
    let (mut longest, mut changes) = (Duration::ZERO, 0);
    while record.goes_on() {
        changes += 1;
        let cell = random.below(CELLS);
        let operation = random_operation(&mut random, changes * CLIENTS + seed);
        let begun = Instant::now();
        let number = record.begin(cell, session, operation);
        match carry_out(&client, cell, operation).await {
            Some(outcome) => record.end(number, outcome),
            // What it asked for may still come: as another it goes on.
            None => session = record.session(),
        }
        longest = longest.max(begun.elapsed());
        // As programs do, it has something else to do now and then.
        sleep(Duration::from_millis(random.below(60))).await;
    }
    longest
}

/// Reads from one master, whoever leads: how often it answered.
async fn read_from(address: String, record: Arc<Record>) -> u64 {
    let master = Peer::start(&actix_rt::Arbiter::current(), address, &Ports::system());
    let (mut random, session, mut answered) = (Seeded::new(99), record.session(), 0);
    while record.goes_on() {
        let (cell, name) = (random.below(CELLS), [Name::A, Name::B][to_usize(random.below(2))]);
        let get = GetXattr {
            node: At::Path(place(cell, name)),
            name: XATTR.to_owned(),
        };
        let number = record.begin(cell, session, Operation::Get(name));
        let found = call(&master, get, soon()).await.map(|found| found.value);
        if let Some(outcome) = outcome_of_get(found) {
            record.end(number, outcome);
            answered += 1;
        }
        sleep(Duration::from_millis(10 + random.below(40))).await;
    }
    answered
}

fn soon() -> CallContext {
    CallContext {
        deadline_ms: 300,
        ..CallContext::default()
    }
}

/// Which of these masters leads now, as it says itself.
async fn leader_among(masters: &[(usize, actix::Addr<Peer>)]) -> Option<usize> {
    let asked = masters.iter().map(async |(number, master)| {
        let status = call(master, GetClusterStatus {}, soon()).await.ok()?;
        let leads = status
            .masters
            .iter()
            .find(|master| master.role == MasterRole::Leader)?;
        (leads.id.0 == *number as u64 + 1).then_some(*number)
    });
    futures::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .next()
}

async fn more(record: &Record, count: u64) {
    let upto = record.ended.load(Ordering::Acquire) + count;
    until("operations end", async || {
        (record.ended.load(Ordering::Acquire) >= upto).then_some(())
    })
    .await;
}

/// Every name once more, by somebody new.
async fn read_all(client: &Client, record: &Record) {
    let session = record.session();
    for cell in 0..CELLS {
        for name in [Name::A, Name::B] {
            let number = record.begin(cell, session, Operation::Get(name));
            let outcome = carry_out(client, cell, Operation::Get(name)).await;
            record.end(number, outcome.expect("a master leads"));
        }
    }
}

async fn clients_go_on(masters: &Masters, hosts: &Namespaces, fault: Fault) {
    let watching = masters.client().await;
    let record = Arc::new(Record::default());
    let mut clients: Vec<JoinHandle<Duration>> = Vec::new();
    for seed in 0..CLIENTS {
        let client = Client::connect(masters.addresses.clone(), ClientOptions::default()).await;
        let client = client.expect("a master leads");
        clients.push(tokio::spawn(do_anything(client, seed, record.clone())));
    }
    more(&record, 60).await;
    let old = leader(&watching).await;
    let reading = actix_rt::spawn(read_from(masters.addresses[old].clone(), record.clone()));
    let others: Vec<_> = (0..MASTERS)
        .filter(|number| *number != old)
        .map(|number| {
            let address = masters.addresses[number].clone();
            (
                number,
                Peer::start(&actix_rt::Arbiter::current(), address, &Ports::system()),
            )
        })
        .collect();
    more(&record, 60).await;

    fault.begin(hosts, old);
    let begun = Instant::now();
    if !matches!(fault, Fault::Loss(_)) {
        until("another master leads", async || leader_among(&others).await).await;
        let replaced = begun.elapsed();
        eprintln!("{fault:?}: another master led after {replaced:?}");
        assert!(replaced < REPLACED_WITHIN, "{fault:?}: {replaced:?}");
    }
    for _ in 0..ROUNDS_OF_FAULT {
        more(&record, 60).await;
    }
    hosts.heal();
    more(&record, 60).await;
    all_in_step(&watching).await;

    record.stop.store(true, Ordering::Release);
    let mut longest = Duration::ZERO;
    for client in clients {
        longest = longest.max(client.await.expect("every error is of an outage"));
    }
    let answered = reading.await.expect("every error is of an outage");
    read_all(&watching, &record).await;
    let history = record.history();
    eprintln!(
        "{fault:?}: {} operations, the longest took {longest:?}; {} had no answer, the first leader answered {answered} reads",
        history.len(),
        record.operations.load(Ordering::Relaxed) - record.ended.load(Ordering::Relaxed),
    );
    if let Err(why) = history.check() {
        panic!("{fault:?}: {why}");
    }
}

fn under(fault: Fault) {
    let Some(hosts) = Namespaces::new("a partition of masters", MASTERS + 1) else {
        return;
    };
    let mut masters = Masters::named(MASTERS);
    masters.addresses = (0..MASTERS)
        .map(|host| format!("{}:7100", hosts.address(host)))
        .collect();
    masters.namespaces = hosts.names()[..MASTERS].to_vec();
    masters.start_all_of(&[0, 1, 2]);
    hosts.on_host(CLIENTS_HOST, || {
        actix_rt::System::new().block_on(clients_go_on(&masters, &hosts, fault));
    });
}

#[test]
fn a_leader_that_no_other_master_hears_is_replaced_and_clients_see_one_order() {
    under(Fault::FromLeader);
}

#[test]
fn a_leader_that_hears_no_other_master_is_replaced_and_clients_see_one_order() {
    under(Fault::ToLeader);
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_says_nothing_stale_to_who_stays_with_it() {
    under(Fault::LeaderAlone);
}

#[test]
fn masters_that_lose_packets_go_on_and_clients_see_one_order() {
    under(Fault::Loss(0.15));
}
