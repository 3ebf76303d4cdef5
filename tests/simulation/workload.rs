//! Clients: each makes one change or read after the other, tries again under the same sequence until it is answered, and
//! writes down what it saw.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use curvine_actors::kit::{Endpoint, MasterPort, call};
use curvine_protocol::master::{GetXattr, MakeDir, RemoveDir, Rename, RenameMode, SetXattr};
use curvine_protocol::number::to_usize;
use curvine_protocol::{Call, CallContext, ClientId, CurvinePath, Error, ErrorKind, Node, NodeId, Result};
use curvine_tests::history::{History, Name, Operation, Outcome};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::network::{CLIENTS, Network, host_at};

/// One try.
const TRY_MS: u32 = 1_500;
/// An operation, with all its tries; what becomes of it is not known then.
const GIVES_UP_AFTER: Duration = Duration::from_secs(12);
const XATTR: &str = "user.value";

/// The machine of the clients. Its clock keeps the world's time.
pub struct Clients {
    tasks: LocalSet,
    runtime: Runtime,
    origin: Instant,
    until: Duration,
    pub shared: Shared,
    busy: Rc<Cell<usize>>,
}

/// What all clients share.
#[derive(Clone)]
pub struct Shared {
    network: Network,
    pub masters: Rc<RefCell<Vec<NodeId>>>,
    pub history: Rc<RefCell<History>>,
    cells: usize,
    /// How many times as long as others they rest.
    leisure: u64,
    next_client: Rc<Cell<u64>>,
    next_value: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
    /// Changes that were acknowledged, and operations whose outcome is not known.
    pub acknowledged: Rc<Cell<u64>>,
    pub unknown: Rc<Cell<u64>>,
    chance: Chance,
}

impl Clients {
    pub fn new(
        network: Network,
        masters: Vec<NodeId>,
        cells: usize,
        leisure: u64,
        chance: Chance,
    ) -> std::io::Result<Clients> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let origin = runtime.block_on(async { Instant::now() });
        Ok(Clients {
            tasks: LocalSet::new(),
            runtime,
            origin,
            until: Duration::ZERO,
            shared: Shared {
                network,
                masters: Rc::new(RefCell::new(masters)),
                history: Rc::default(),
                cells,
                leisure,
                next_client: Rc::new(Cell::new(1)),
                next_value: Rc::new(Cell::new(1)),
                stop: Rc::default(),
                acknowledged: Rc::default(),
                unknown: Rc::default(),
                chance,
            },
            busy: Rc::default(),
        })
    }

    pub fn pass(&mut self, time: Duration) {
        self.until += time;
        let until = self.origin + self.until;
        self.runtime.block_on(
            self.tasks
                .run_until(async move { tokio::time::sleep_until(until).await }),
        );
    }

    /// Runs something among the clients.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(work);
    }

    /// One more client, until [`Self::finish`]. Who only reads stays with a master that leads no more for as long as it
    /// answers.
    pub fn begin(&self, only_reads: bool) {
        let (shared, busy) = (self.shared.clone(), self.busy.clone());
        busy.set(busy.get() + 1);
        self.spawn(async move {
            let mut client = shared.client();
            while !shared.stop.get() {
                let cell = shared.chance.index_below(shared.cells);
                let operation = match only_reads {
                    true => Operation::Get(*shared.chance.one_of(&[Name::A, Name::B])),
                    false => shared.random_operation(),
                };
                if client.carry_out(cell, operation).await.is_none() {
                    // What it asked for may still come: another asks from here on.
                    client = shared.client();
                }
                let rest_ms = if only_reads { 15 } else { 60 } * shared.leisure;
                sleep(Duration::from_millis(shared.chance.below(rest_ms))).await;
            }
            busy.set(busy.get() - 1);
        });
    }

    /// A client that begins with a certain master and makes changes for a while.
    pub fn visit(&self, master: NodeId, time: Duration) {
        let shared = self.shared.clone();
        self.spawn(async move {
            let mut client = shared.client();
            client.asks = master;
            let begun = Instant::now();
            while begun.elapsed() < time {
                let cell = shared.chance.index_below(shared.cells);
                if client.carry_out(cell, shared.random_operation()).await.is_none() {
                    break;
                }
            }
        });
    }

    /// One client makes the next directory; the flag says when it is acknowledged.
    pub fn make_next(&self) -> Rc<Cell<bool>> {
        let (shared, done) = (self.shared.clone(), Rc::new(Cell::new(false)));
        let tell = done.clone();
        self.spawn(async move {
            let cell = to_usize(shared.acknowledged.get());
            let mut client = shared.client();
            tell.set(client.carry_out(cell, Operation::Make(Name::A)).await == Some(Outcome::Done));
        });
        done
    }

    /// Ends all of them after what they are at.
    pub fn finish(&self) {
        self.shared.stop.set(true);
    }

    pub fn are_done(&self) -> bool {
        self.busy.get() == 0
    }

    /// Reads everything once more. The flag says when that is done; without an answer it never is.
    pub fn read_all(&self) -> Rc<Cell<bool>> {
        let (shared, done) = (self.shared.clone(), Rc::new(Cell::new(false)));
        let tell = done.clone();
        self.spawn(async move {
            let mut client = shared.client();
            for cell in 0..shared.cells {
                for name in [Name::A, Name::B] {
                    while client.carry_out(cell, Operation::Get(name)).await.is_none() {}
                }
            }
            tell.set(true);
        });
        done
    }
}

impl Shared {
    pub fn client(&self) -> Client {
        let id = self.next_client.get();
        self.next_client.set(id + 1);
        Client {
            id: ClientId(id),
            sequence: 0,
            asks: *self.chance.one_of(&self.masters.borrow()),
            shared: self.clone(),
        }
    }

    fn random_operation(&self) -> Operation {
        let name = *self.chance.one_of(&[Name::A, Name::B]);
        match self.chance.below(100) {
            0..15 => Operation::Make(name),
            15..25 => Operation::Remove(name),
            25..50 => {
                let value = self.next_value.get();
                self.next_value.set(value + 1);
                Operation::Set(name, value)
            }
            50..60 => match name {
                Name::A => Operation::Rename(Name::A, Name::B),
                Name::B => Operation::Rename(Name::B, Name::A),
            },
            _ => Operation::Get(name),
        }
    }
}

/// One client's session.
pub struct Client {
    id: ClientId,
    sequence: u64,
    /// The master that it takes for the leader.
    asks: NodeId,
    shared: Shared,
}

fn node(cell: usize, name: Name) -> Node {
    let path = format!(
        "/{cell}{}",
        match name {
            Name::A => "a",
            Name::B => "b",
        }
    );
    Node::Path(CurvinePath::parse(&path).expect("a valid path"))
}

impl Client {
    /// None if it is not known what became of it.
    async fn carry_out(&mut self, cell: usize, operation: Operation) -> Option<Outcome> {
        let ticket = self.shared.history.borrow_mut().begin(cell, self.id.0, operation);
        let outcome = self.tries(cell, operation).await;
        match outcome {
            Some(outcome) => {
                self.shared.history.borrow_mut().end(ticket, outcome);
                if !matches!(operation, Operation::Get(_)) {
                    self.shared.acknowledged.set(self.shared.acknowledged.get() + 1);
                }
            }
            None => self.shared.unknown.set(self.shared.unknown.get() + 1),
        }
        outcome
    }

    async fn tries(&mut self, cell: usize, operation: Operation) -> Option<Outcome> {
        let node = |name| node(cell, name);
        match operation {
            Operation::Make(name) => {
                let made = MakeDir {
                    node: node(name),
                    mode: 0o755,
                    parents: false,
                    unmasked: None,
                };
                match self.change(made).await? {
                    Ok(_) => Some(Outcome::Done),
                    Err(error) if error.kind == ErrorKind::AlreadyExists => Some(Outcome::Exists),
                    Err(error) => panic!("make: {error}"),
                }
            }
            Operation::Remove(name) => done(self.change(RemoveDir { node: node(name) }).await?),
            Operation::Set(name, value) => {
                let set = SetXattr {
                    node: node(name),
                    name: XATTR.to_owned(),
                    value: value.to_be_bytes().to_vec(),
                    create_only: false,
                    replace_only: false,
                };
                done(self.change(set).await?)
            }
            Operation::Rename(from, to) => {
                let rename = Rename {
                    from: node(from),
                    to: node(to),
                    mode: RenameMode::Replace,
                    keep_replaced: false,
                    closed: Vec::new(),
                    holders: None,
                };
                done(self.change(rename).await?)
            }
            Operation::Get(name) => {
                let get = GetXattr {
                    node: node(name),
                    name: XATTR.to_owned(),
                };
                match self.until_answered(get, 0).await? {
                    Ok(found) => {
                        let value = found.value.try_into().expect("eight bytes were set");
                        Some(Outcome::Value(u64::from_be_bytes(value)))
                    }
                    Err(error) if error.kind == ErrorKind::NotFound => Some(Outcome::Absent),
                    Err(error) if error.kind == ErrorKind::NoAttribute => Some(Outcome::NoValue),
                    Err(error) => panic!("get: {error}"),
                }
            }
        }
    }

    async fn change<C: Call>(&mut self, change: C) -> Option<Result<C::Reply>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        self.sequence += 1;
        self.until_answered(change, self.sequence).await
    }

    /// Asks until an answer says what became of it.
    pub async fn until_answered<C: Call>(&mut self, asked: C, sequence: u64) -> Option<Result<C::Reply>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let begun = Instant::now();
        while begun.elapsed() < GIVES_UP_AFTER {
            let context = CallContext {
                client: self.id,
                sequence,
                // It makes one change at a time.
                acked_below: sequence,
                deadline_ms: TRY_MS,
                ..CallContext::default()
            };
            let way = self.shared.network.way(CLIENTS, self.asks);
            match call(&way, asked.clone(), context).await {
                Err(error) if is_definite(&error) => return Some(Err(error)),
                Err(error) => self.turn_to_another(&error).await,
                Ok(reply) => return Some(Ok(reply)),
            }
        }
        None
    }

    async fn turn_to_another(&mut self, error: &Error) {
        match &error.leader {
            Some(leader) => self.asks = host_at(leader),
            None => {
                self.asks = *self.shared.chance.one_of(&self.shared.masters.borrow());
                sleep(Duration::from_millis(20 + self.shared.chance.below(100))).await;
            }
        }
    }
}

/// Whether it is the namespace that refuses, not a master that cannot say.
fn is_definite(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::NoAttribute | ErrorKind::InvalidArgument
    )
}

fn done<T>(answer: Result<T>) -> Option<Outcome> {
    match answer {
        Ok(_) => Some(Outcome::Done),
        Err(error) if error.kind == ErrorKind::NotFound => Some(Outcome::Absent),
        Err(error) => panic!("refused: {error}"),
    }
}
