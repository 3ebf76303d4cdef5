//! A network that loses, delays, repeats and reorders messages, and falls apart.
//!
//! It carries calls, as the actors make them, from one host to another; every call and every answer is a message.
//!
//! Of what users and workers send to each other and to masters, some may come *late*: a connection that no longer leads
//! anywhere keeps what was written to it, and a partition that ends delivers it, minutes later, after the retries have
//! gone another way. Such a request is one that its sender has given up, or has repeated.
//!
//! That is what runs of masters alone lacked, and why they never saw a change made again after its session had forgotten
//! it (`known.rs`, late-duplicates). There a message is repeated within the slowest delay of its weather, at most 80 ms, and
//! the copy is harmful only if the client's next change is applied before. That change waits for the answer, for the
//! client's rest, and for a majority: five to seven such delays. Of the repeated requests to three masters 2 in 100,000
//! come that late, and hardly any of them changes what somebody then reads.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_actors::kit::{Answer, Ask, Body, Endpoint, MasterPort, MasterRef, WorkerPort, WorkerRef};
use curvine_actors::master::replica::{MasterConnector, MasterEndpoint, describe, describe_answer};
use curvine_protocol::master::RaftMessage;
use curvine_protocol::worker::{PutBlock, WriteBlock};
use curvine_protocol::{BlockId, Call, Error, ErrorKind, NodeId, Result};
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::chance::Chance;
use crate::known::{Known, is_known};

/// Where the clients are.
pub const CLIENTS: NodeId = NodeId(0);
const DEADLINE_MS_DEFAULT: u32 = 5_000;
const SILENCE_MS: u32 = 3_000;

/// The first of the workers' machines; the first of the mounts'. Masters have the numbers below.
pub const WORKERS: NodeId = NodeId(101);
pub const MOUNTS: NodeId = NodeId(201);
/// Where no machine is.
pub const NOWHERE: NodeId = NodeId(199);

pub fn address(host: NodeId) -> String {
    match host < WORKERS {
        true => format!("master-{host}:8995"),
        false => format!("worker-{host}:8997"),
    }
}

fn is_master(host: NodeId) -> bool {
    host != CLIENTS && host < WORKERS
}

/// What a host is called in stories.
pub fn name(host: NodeId) -> String {
    match host {
        host if host >= MOUNTS => format!("mount {}", host.0 - MOUNTS.0 + 1),
        host if host >= WORKERS => format!("worker {}", host.0 - WORKERS.0 + 1),
        host => host.to_string(),
    }
}

pub fn host_at(address: &str) -> NodeId {
    let host = address
        .strip_prefix("master-")
        .or_else(|| address.strip_prefix("worker-"))
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
    /// Of a thousand requests, so many come seconds to minutes late, and the same again once more as late.
    pub late_permille: u64,
}

impl Weather {
    pub fn fair() -> Weather {
        Weather {
            loss_percent: 0,
            repeat_percent: 0,
            delay_us: 100..1_000,
            late_permille: 0,
        }
    }
}

/// An answer: what it says, and what it does to the one who asked.
#[derive(Clone)]
pub struct Outcome {
    pub text: Arc<str>,
    pub arrive: Arc<dyn Fn() + Send + Sync>,
}

/// What a host answers calls with.
pub enum Port {
    Master(MasterRef),
    Worker(WorkerRef),
}

/// A call on its way, whatever its type.
pub trait Request: Send + Sync {
    fn name(&self) -> String;
    fn serve(&self, port: &Port) -> BoxFuture<'static, Outcome>;
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
    /// Whose messages to whom are kept for later.
    held: BTreeSet<(NodeId, NodeId)>,
    kept: Vec<Letter>,
    /// What workers said that they took of whom: block and range.
    taken: Vec<(u64, NodeId, BlockId, Range<u64>)>,
    /// After how many others messages were lost, or made late: from whom, to whom.
    lost: Vec<(u64, (NodeId, NodeId))>,
    /// What is late or kept for masters gets there at all.
    late_to_masters: bool,
    /// Answers of workers that their own bytes are wrong.
    rotten: u64,
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
            held: BTreeSet::new(),
            kept: Vec::new(),
            taken: Vec::new(),
            lost: Vec::new(),
            late_to_masters: !is_known(Known::LateDuplicates),
            rotten: 0,
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

    /// From now on what one host sends to another is kept.
    pub fn hold(&self, from: NodeId, to: NodeId) {
        self.state().held.insert((from, to));
    }

    /// What was kept for or of a host comes after all: some of it at once, some of it when its senders have long tried
    /// again.
    pub fn let_go(&self, host: NodeId) {
        let mut state = self.state();
        let chance = state.chance.clone();
        state.held.retain(|(from, to)| *from != host && *to != host);
        let spread_us = *chance.one_of(&[10_000, 2_000_000, 40_000_000]);
        let (come, stay) = std::mem::take(&mut state.kept)
            .into_iter()
            .partition(|letter| letter.ends().0 == host || letter.ends().1 == host);
        state.kept = stay;
        for letter in come {
            if !state.may_be_late(&letter) {
                continue;
            }
            let due = state.now_us + chance.within(1_000..spread_us);
            state.deliver_at(due, letter);
        }
    }

    /// What workers took of a host since so many messages had been sent: the first block's range, from its lowest byte.
    pub fn taken_since(&self, host: NodeId, sent: u64) -> Vec<(BlockId, Range<u64>)> {
        let state = self.state();
        let of_host = (state.taken.iter()).filter(|(at, from, ..)| *at >= sent && *from == host);
        of_host
            .map(|(_, _, block, range)| (*block, range.clone()))
            .collect()
    }

    /// How many messages between a host and workers were lost, or will be late, since so many had been sent.
    pub fn lost_since(&self, host: NodeId, sent: u64) -> usize {
        let state = self.state();
        let of_host = |(from, to): &(NodeId, NodeId)| match *from == host {
            true => !is_master(*to),
            false => *to == host && !is_master(*from),
        };
        let lost = state.lost.iter().filter(|(at, _)| *at >= sent);
        lost.filter(|(_, ends)| of_host(ends)).count()
    }

    /// In this run late requests come, whatever is known.
    pub fn allow_late(&self) {
        self.state().late_to_masters = true;
    }

    /// What was kept for or of a host comes after all, and all of it within a few milliseconds.
    pub fn let_go_at_once(&self, host: NodeId) {
        let mut state = self.state();
        state.held.retain(|(from, to)| *from != host && *to != host);
        let kept = std::mem::take(&mut state.kept);
        let (come, stay): (Vec<Letter>, Vec<Letter>) = kept
            .into_iter()
            .partition(|letter| letter.ends().0 == host || letter.ends().1 == host);
        state.kept = stay;
        for letter in come {
            let due = state.now_us + state.chance.within(1_000..5_000);
            state.deliver_at(due, letter);
        }
    }

    /// What a host sends and is sent from now on comes; what was kept stays where it is, and who waits for it does not know.
    pub fn let_others_pass(&self, host: NodeId) {
        let held = &mut self.state().held;
        held.retain(|(from, to)| *from != host && *to != host);
    }

    /// How many messages to a host are kept.
    pub fn kept_to(&self, host: NodeId) -> usize {
        let state = self.state();
        state.kept.iter().filter(|letter| letter.ends().1 == host).count()
    }

    /// How many requests of a host are kept.
    pub fn kept_of(&self, host: NodeId) -> usize {
        let state = self.state();
        let requests = (state.kept.iter()).filter(|letter| matches!(letter, Letter::Request { .. }));
        requests.filter(|letter| letter.ends().0 == host).count()
    }

    /// How often workers have answered that bytes of theirs are not what was written.
    pub fn rotten(&self) -> u64 {
        self.state().rotten
    }

    /// Who does not reach somebody, or is not reached.
    pub fn cut_off(&self) -> Vec<NodeId> {
        let state = self.state();
        let all = state.held.iter().chain(&state.cut);
        all.flat_map(|(from, to)| [*from, *to]).collect()
    }

    /// Nothing is held back any more.
    pub fn let_all_go(&self) {
        let hosts: Vec<NodeId> = self.state().held.iter().map(|(from, _)| *from).collect();
        hosts.into_iter().for_each(|host| self.let_go(host));
    }

    /// When the next message arrives.
    pub fn next_due_us(&self) -> Option<u64> {
        self.state().under_way.keys().next().map(|(due, _)| *due)
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
        if times == 0 {
            let sent = state.sent;
            state.lost.push((sent, letter.ends()));
        }
        for _ in 0..times {
            let due = state.now_us + chance.within(state.weather.delay_us.clone());
            state.deliver_at(due, letter.again());
        }
        // Drawn where it can be alone: other runs stay what they were.
        if state.weather.late_permille == 0 || times == 0 || !state.may_be_late(&letter) {
            return;
        }
        let draws = chance.below(1_000);
        if draws < 2 * state.weather.late_permille {
            let late_us = chance.within(1_000_000..*chance.one_of(&[5_000_000, 30_000_000, 120_000_000]));
            if draws < state.weather.late_permille {
                // Instead of, not besides.
                let number = state.sent;
                state.under_way.retain(|(_, sent), _| *sent != number);
                state.lost.push((number, letter.ends()));
            }
            let due = state.now_us + late_us;
            state.deliver_at(due, letter);
        }
    }

    /// What has arrived by now. What is cut off by then is lost.
    pub fn arrived(&self, now_us: u64) -> Vec<Letter> {
        let mut state = self.state();
        state.now_us = now_us;
        let later = state.under_way.split_off(&(now_us + 1, 0));
        let arrived = std::mem::replace(&mut state.under_way, later);
        let (arrived, cut): (Vec<Letter>, Vec<Letter>) = arrived
            .into_values()
            .partition(|letter| !state.cut.contains(&letter.ends()));
        let sent = state.sent;
        (state.lost).extend(cut.iter().map(|letter| (sent, letter.ends())));
        let (kept, arrived): (Vec<Letter>, Vec<Letter>) = arrived
            .into_iter()
            .partition(|letter| state.held.contains(&letter.ends()));
        state.kept.extend(kept);
        arrived
    }
}

impl State {
    /// Masters drop a connection that hangs, with what was written to it: among themselves nothing is that late.
    fn may_be_late(&self, letter: &Letter) -> bool {
        let (from, to) = letter.ends();
        match letter {
            Letter::Answer { .. } => false,
            Letter::Request { .. } if is_master(to) => self.late_to_masters && !is_master(from),
            Letter::Request { .. } => true,
        }
    }

    fn deliver_at(&mut self, due_us: u64, letter: Letter) {
        self.sent += 1;
        let number = self.sent;
        self.under_way.insert((due_us, number), letter);
    }
}

impl Letter {
    /// From whom and to whom.
    pub fn ends(&self) -> (NodeId, NodeId) {
        let (Letter::Request { from, to, .. } | Letter::Answer { from, to, .. }) = self;
        (*from, *to)
    }

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
    serve: Serve<C>,
}

/// How a port answers a call of this type.
type Serve<C> = fn(&Port, Ask<C>) -> Answering<C>;
type Answering<C> = BoxFuture<'static, Result<Answer<C>>>;

fn at_master<C: Call>(port: &Port, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>>
where
    dyn MasterPort: Endpoint<C>,
{
    match port {
        Port::Master(master) => Endpoint::<C>::ask(&**master, ask),
        Port::Worker(_) => unreachable!("{} was sent to a worker", C::NAME),
    }
}

fn at_worker<C: Call>(port: &Port, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>>
where
    dyn WorkerPort: Endpoint<C>,
{
    match port {
        Port::Worker(worker) => Endpoint::<C>::ask(&**worker, ask),
        Port::Master(_) => unreachable!("{} was sent to a master", C::NAME),
    }
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

/// As it travels: a grant on a file is its bytes by then.
fn in_full<C: Call>(answer: Answer<C>) -> Result<Answer<C>> {
    let Answer { reply, body } = answer;
    Ok(Answer::with_body(reply, Body::Bytes(body.read()?)))
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

impl<C: Call> Request for Typed<C> {
    fn name(&self) -> String {
        self.text()
    }

    fn serve(&self, port: &Port) -> BoxFuture<'static, Outcome> {
        let (answering, waiting) = ((self.serve)(port, self.ask.clone()), self.reply.clone());
        let call = self.ask.call.clone();
        Box::pin(async move { outcome(&call, &waiting, answering.await.and_then(in_full)) })
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
        self.send(ask, at_master::<C>)
    }
}

/// The way from a host to a worker.
pub struct WorkerWay(pub Way);

impl<C: Call> Endpoint<C> for WorkerWay
where
    dyn WorkerPort: Endpoint<C>,
{
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let call: &dyn Any = &ask.call;
        let long = ask.body.len() as u64;
        let bytes = match (call.downcast_ref::<WriteBlock>(), call.downcast_ref::<PutBlock>()) {
            (Some(write), _) => Some((write.block, write.offset_bytes..write.offset_bytes + long)),
            (_, Some(put)) => Some((put.block, 0..long)),
            _ => None,
        };
        let (network, from) = (self.0.network.clone(), self.0.from);
        let asked = self.0.send(ask, at_worker::<C>);
        Box::pin(async move {
            let answer = asked.await;
            if answer
                .as_ref()
                .is_err_and(|error| error.kind == ErrorKind::Corrupt)
            {
                network.state().rotten += 1;
            }
            if let (Ok(_), Some((block, range))) = (&answer, bytes) {
                let mut state = network.state();
                let at = state.sent;
                state.taken.push((at, from, block, range));
            }
            answer
        })
    }
}

impl Way {
    fn send<C: Call>(&self, ask: Ask<C>, serve: Serve<C>) -> Answering<C> {
        let Way { network, from, to } = self.clone();
        let deadline_ms = match ask.context.deadline_ms {
            0 => DEADLINE_MS_DEFAULT,
            given => given,
        };
        // A connection that says nothing is given up long before a call's deadline.
        let (deadline_ms, kind) = match from >= WORKERS && deadline_ms > SILENCE_MS {
            true => (SILENCE_MS, ErrorKind::Unreachable),
            false => (deadline_ms, ErrorKind::Timeout),
        };
        let (reply, replied) = oneshot::channel();
        let request = Typed {
            ask,
            reply: Arc::new(Mutex::new(Some(reply))),
            serve,
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
                    kind,
                    format!(
                        "{}: {} did not answer within {deadline_ms} ms",
                        C::NAME,
                        address(to)
                    ),
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
