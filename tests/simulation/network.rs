//! A network that loses, delays, repeats and reorders messages, and falls apart.
//!
//! It carries calls, as the actors make them, from one host to another; every call and every answer is a message.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_actors::kit::{Answer, Ask, Body, Endpoint, MasterPort, MasterRef};
use curvine_actors::master::replica::{MasterConnector, MasterEndpoint, describe, describe_answer};
use curvine_protocol::master::RaftMessage;
use curvine_protocol::{Call, Error, ErrorKind, NodeId, Result};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::chance::Chance;

/// Where the clients are.
pub const CLIENTS: NodeId = NodeId(0);
const DEADLINE_MS_DEFAULT: u32 = 5_000;

pub fn address(host: NodeId) -> String {
    format!("master-{host}:8995")
}

pub fn host_at(address: &str) -> NodeId {
    let host = address
        .strip_prefix("master-")
        .and_then(|rest| rest.split_once(':'));
    NodeId(
        host.and_then(|(id, _)| id.parse().ok())
            .expect("one of our addresses"),
    )
}

/// What happens to messages.
#[derive(Clone, Debug)]
pub struct Weather {
    pub loss_percent: u64,
    pub repeat_percent: u64,
    pub delay_us: Range<u64>,
}

impl Weather {
    pub fn fair() -> Weather {
        Weather {
            loss_percent: 0,
            repeat_percent: 0,
            delay_us: 100..1_000,
        }
    }
}

/// An answer: what it says, and what it does to the one who asked.
#[derive(Clone)]
pub struct Outcome {
    pub text: Arc<str>,
    pub arrive: Arc<dyn Fn() + Send + Sync>,
}

/// A call on its way, whatever its type.
pub trait Request: Send + Sync {
    fn name(&self) -> String;
    fn serve(&self, port: &MasterRef) -> BoxFuture<'static, Outcome>;
    fn refuse(&self, error: Error) -> Outcome;
}

pub enum Letter {
    Request {
        from: NodeId,
        to: NodeId,
        request: Arc<dyn Request>,
    },
    Answer {
        from: NodeId,
        to: NodeId,
        outcome: Outcome,
    },
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    now_us: u64,
    chance: Chance,
    weather: Weather,
    /// By when they arrive, and in which order they were sent.
    under_way: BTreeMap<(u64, u64), Letter>,
    sent: u64,
    /// Who does not get through to whom.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    pub fn new(chance: Chance) -> Network {
        Network(Arc::new(Mutex::new(State {
            now_us: 0,
            chance,
            weather: Weather::fair(),
            under_way: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread")
    }

    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    pub fn cut_both(&self, one: NodeId, other: NodeId) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn mend(&self) {
        self.state().cut.clear();
    }

    /// How many messages there have been.
    pub fn sent(&self) -> u64 {
        self.state().sent
    }

    /// The way from one host to another.
    pub fn way(&self, from: NodeId, to: NodeId) -> Way {
        Way {
            network: self.clone(),
            from,
            to,
        }
    }

    pub fn send(&self, letter: Letter) {
        let mut state = self.state();
        let chance = state.chance.clone();
        let times = match () {
            () if chance.percent(state.weather.loss_percent) => 0,
            () if chance.percent(state.weather.repeat_percent) => 2,
            () => 1,
        };
        for _ in 0..times {
            let due = state.now_us + chance.within(state.weather.delay_us.clone());
            state.sent += 1;
            let number = state.sent;
            state.under_way.insert((due, number), letter.again());
        }
    }

    /// What has arrived by now. What is cut off by then is lost.
    pub fn arrived(&self, now_us: u64) -> Vec<Letter> {
        let mut state = self.state();
        state.now_us = now_us;
        let later = state.under_way.split_off(&(now_us + 1, 0));
        let arrived = std::mem::replace(&mut state.under_way, later);
        let gets_through = |letter: &Letter| {
            let (Letter::Request { from, to, .. } | Letter::Answer { from, to, .. }) = letter;
            !state.cut.contains(&(*from, *to))
        };
        arrived.into_values().filter(gets_through).collect()
    }
}

impl Letter {
    fn again(&self) -> Letter {
        match self {
            Letter::Request { from, to, request } => Letter::Request {
                from: *from,
                to: *to,
                request: request.clone(),
            },
            Letter::Answer { from, to, outcome } => Letter::Answer {
                from: *from,
                to: *to,
                outcome: outcome.clone(),
            },
        }
    }
}

/// The way from one host to another.
#[derive(Clone)]
pub struct Way {
    network: Network,
    from: NodeId,
    to: NodeId,
}

/// Who asked; the first answer is the one.
type Waiting<C> = Arc<Mutex<Option<oneshot::Sender<Result<Answer<C>>>>>>;

struct Typed<C: Call> {
    ask: Ask<C>,
    reply: Waiting<C>,
}

impl<C: Call> Typed<C> {
    /// To masters in words, to clients as it is.
    fn text(&self) -> String {
        match (&self.ask.call as &dyn Any).downcast_ref::<RaftMessage>() {
            Some(message) => describe(message, &self.ask.body),
            None => format!("{:?}", self.ask.call),
        }
    }
}

fn answer_text<C: Call>(call: &C, answer: &Result<Answer<C>>) -> String {
    let message = (call as &dyn Any).downcast_ref::<RaftMessage>();
    match (answer, message) {
        (Err(error), _) => format!("{error}"),
        (Ok(answer), Some(message)) => match &answer.body {
            Body::Bytes(bytes) => describe_answer(message, bytes),
            Body::File(_) => "a file".to_owned(),
        },
        (Ok(_), None) => format!("{} is done", C::NAME),
    }
}

fn outcome<C: Call>(call: &C, waiting: &Waiting<C>, answer: Result<Answer<C>>) -> Outcome {
    let text = answer_text(call, &answer).into();
    let (waiting, answer) = (waiting.clone(), Mutex::new(Some(answer)));
    let arrive = move || {
        let waiting = waiting.lock().expect("one thread").take();
        let answer = answer.lock().expect("one thread").take();
        if let (Some(waiting), Some(answer)) = (waiting, answer) {
            let _ = waiting.send(answer);
        }
    };
    Outcome {
        text,
        arrive: Arc::new(arrive),
    }
}

impl<C: Call> Request for Typed<C>
where
    dyn MasterPort: Endpoint<C>,
{
    fn name(&self) -> String {
        self.text()
    }

    fn serve(&self, port: &MasterRef) -> BoxFuture<'static, Outcome> {
        let (answering, waiting) = (Endpoint::<C>::ask(&**port, self.ask.clone()), self.reply.clone());
        let call = self.ask.call.clone();
        Box::pin(async move { outcome(&call, &waiting, answering.await) })
    }

    fn refuse(&self, error: Error) -> Outcome {
        outcome(&self.ask.call, &self.reply, Err(error))
    }
}

impl<C: Call> Endpoint<C> for Way
where
    dyn MasterPort: Endpoint<C>,
{
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let deadline_ms = match ask.context.deadline_ms {
            0 => DEADLINE_MS_DEFAULT,
            given => given,
        };
        let (reply, replied) = oneshot::channel();
        let Way { network, from, to } = self.clone();
        let request = Typed {
            ask,
            reply: Arc::new(Mutex::new(Some(reply))),
        };
        Box::pin(async move {
            network.send(Letter::Request {
                from,
                to,
                request: Arc::new(request),
            });
            let deadline = Duration::from_millis(u64::from(deadline_ms));
            match tokio::time::timeout(deadline, replied).await {
                Ok(Ok(answer)) => answer,
                _ => Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{}: master {to} did not answer within {deadline_ms} ms", C::NAME),
                )),
            }
        })
    }
}

/// The ways of one host to the other masters.
pub struct Ways {
    pub network: Network,
    pub from: NodeId,
}

impl MasterConnector for Ways {
    fn connect(&self, address: &str) -> MasterEndpoint {
        Arc::new(self.network.way(self.from, host_at(address)))
    }
}
