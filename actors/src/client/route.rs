//! To whom a call goes, how often it is tried, and which of a client's changes it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::{
    DeadlineClass, Echo, EndSession, GetRoutes, Lookup, MasterCall, RenewSession, SESSION_RENEW_MS,
};
use curvine_protocol::{Call, CallContext, ClientId, Error, ErrorKind, InodeId, Mutation, Result, WorkerId};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ClientOptions;
use crate::kit::leader::{MASTERS_MAX, another_leads};
use crate::kit::peer::Peer;
use crate::kit::{Answer, Ask, Endpoint, MasterPort, MasterRef, Ports, WorkerPort, WorkerRef};

/// Workers of the same process.
pub type LocalWorkers = Arc<dyn Fn(WorkerId) -> Option<WorkerRef> + Send + Sync>;

/// One try of a call that does not say otherwise.
const CALL_DEADLINE_MS: u32 = 30_000;
/// Calls that take as long as a service far away: checks of mounts, walks of big trees, exports.
const LONG_DEADLINE_MS: u32 = 3_600_000;
/// One try of a read that any master may answer, from memory.
const STALE_DEADLINE_MS: u32 = 1_000;
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// While masters elect a leader, this is what a client comes late by.
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// The routes of one client session. [`Client`](super::Client) is a handle on it.
pub struct Router {
    session: Arc<Session>,
    uid: u32,
    gid: u32,
}

struct Session {
    id: ClientId,
    /// Those that were named, and leaders that these named since.
    masters: Mutex<Vec<(String, MasterRef)>>,
    leader: AtomicUsize,
    local_workers: LocalWorkers,
    /// Proxies by address; bulk data has connections of its own, apart from the masters'.
    workers: Mutex<HashMap<String, WorkerRef>>,
    sequences: Mutex<Sequences>,
    /// Whether the masters know the session: it has changed something.
    known: AtomicBool,
    options: ClientOptions,
    ports: Ports,
    /// Where the proxies live. A local client has none until it meets a worker of another process.
    host: OnceLock<Host>,
    ended: CancellationToken,
}

#[derive(Default)]
struct Sequences {
    last: u64,
    in_flight: BTreeSet<u64>,
}

impl Sequences {
    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.in_flight.insert(self.last);
        self.last
    }

    fn acked_below(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.last + 1)
    }
}

/// A thread with an actix system for the proxies: a client works in any runtime.
struct Host {
    arbiter: actix_rt::ArbiterHandle,
    system: actix_rt::System,
}

impl Host {
    fn start() -> Result<Host> {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("curvine-client".to_owned())
            .spawn(move || {
                let runner = actix_rt::System::new();
                let _ = tell.send((actix_rt::Arbiter::current(), actix_rt::System::current()));
                if let Err(error) = runner.run() {
                    tracing::error!(%error, "the client's system ended with an error");
                }
            })
            .map_err(|e| Error::from(e).while_doing("starting the client's thread"))?;
        let (arbiter, system) = told
            .recv()
            .map_err(|_| Error::internal("the client's thread ended before it began"))?;
        Ok(Host { arbiter, system })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.system.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this")
}

impl Router {
    pub(super) async fn connect(
        addresses: Vec<String>,
        options: ClientOptions,
        ports: Ports,
    ) -> Result<Arc<Router>> {
        if addresses.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "no master address: give --master HOST:PORT,... or set CURVINE_MASTER",
            ));
        }
        let host = Host::start()?;
        let proxy = |address: &String| -> (String, MasterRef) {
            let peer = Peer::start(&host.arbiter, address, &ports);
            (address.clone(), Arc::new(peer))
        };
        let masters = addresses.iter().map(proxy).collect();
        let router = Self::new(masters, Arc::new(|_| None), options.clone(), ports, Some(host));
        // Every address gets its turn, also where the ones before it swallow what they are sent.
        let one_try = options.connect_timeout / (addresses.len() as u32 + 1);
        let deadline_ms = one_try.as_millis().clamp(1, u128::from(CALL_DEADLINE_MS)) as u32;
        let reached = match options.stale_reads {
            false => {
                let asked = router.ask_for(GetRoutes {}, options.connect_timeout, deadline_ms);
                asked.await.map(|_| ())
            }
            true => {
                let root = Lookup {
                    node: InodeId::ROOT.into(),
                    follow: false,
                };
                let asked = router
                    .session
                    .attempt_anywhere(root, router.context(), options.connect_timeout);
                asked.await.map(|_| ())
            }
        };
        reached.map_err(|error| match error.kind {
            ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::NotLeader | ErrorKind::Stopping => Error::new(
                error.kind,
                format!(
                    "no master answers at {}: {}. Is `curvine-node` running there, and is --master (or CURVINE_MASTER) right?",
                    addresses.join(", "),
                    error.message
                ),
            ),
            _ => error,
        })?;
        router
            .session
            .host()?
            .arbiter
            .spawn(renew(Arc::downgrade(&router.session)));
        Ok(router)
    }

    pub(super) fn local(
        master: MasterRef,
        workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
    ) -> Arc<Router> {
        Self::in_process(vec![("local".to_owned(), master)], workers, options, ports)
    }

    /// To masters and workers behind ports that are here already. Must be called where `actix_rt::spawn` works.
    pub(super) fn in_process(
        masters: Vec<(String, MasterRef)>,
        workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
    ) -> Arc<Router> {
        let router = Self::new(masters, workers, options, ports, None);
        actix_rt::spawn(renew(Arc::downgrade(&router.session)));
        router
    }

    fn new(
        masters: Vec<(String, MasterRef)>,
        local_workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
        host: Option<Host>,
    ) -> Arc<Router> {
        let (uid, gid) = (options.uid, options.gid);
        let session = Session {
            host: host.map_or_else(OnceLock::new, OnceLock::from),
            id: ClientId(ports.random.next_u64() | 1),
            masters: Mutex::new(masters),
            leader: AtomicUsize::new(0),
            local_workers,
            workers: Mutex::default(),
            sequences: Mutex::default(),
            known: AtomicBool::new(false),
            options,
            ports,
            ended: CancellationToken::new(),
        };
        Arc::new(Router {
            session: Arc::new(session),
            uid,
            gid,
        })
    }

    pub(super) fn for_user(&self, uid: u32, gid: u32) -> Arc<Router> {
        Arc::new(Router {
            session: self.session.clone(),
            uid,
            gid,
        })
    }

    /// A call that changes nothing, or whose repetition changes nothing more.
    pub async fn ask_master<C: MasterCall>(&self, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        if self.session.options.stale_reads && C::STALE {
            let retry_for = self.session.options.retry_for;
            return self
                .session
                .attempt_anywhere(call, self.context(), retry_for)
                .await;
        }
        let deadline_ms = match C::DEADLINE {
            DeadlineClass::Short => CALL_DEADLINE_MS,
            DeadlineClass::Long => LONG_DEADLINE_MS,
        };
        self.ask_for(call, self.session.options.retry_for, deadline_ms)
            .await
    }

    /// The same, with the bytes that come with the reply.
    pub(super) async fn ask_master_for_body<C: Call>(&self, call: C) -> Result<Answer<C>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let session = &self.session;
        session
            .attempt(call, self.context(), session.options.retry_for)
            .await
    }

    async fn ask_for<C: Call>(&self, call: C, retry_for: Duration, deadline_ms: u32) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let context = CallContext {
            deadline_ms,
            ..self.context()
        };
        let answer = self.session.attempt(call, context, retry_for).await?;
        Ok(answer.reply)
    }

    fn context(&self) -> CallContext {
        CallContext {
            client: self.session.id,
            sequence: 0,
            acked_below: 0,
            deadline_ms: CALL_DEADLINE_MS,
            uid: self.uid,
            gid: self.gid,
            stale: false,
        }
    }

    /// A change, under one sequence however often it is tried.
    pub async fn change<C: Mutation>(&self, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let session = &self.session;
        session.known.store(true, Ordering::Relaxed);
        let turn = Turn::begin(session);
        let context = CallContext {
            sequence: turn.sequence,
            acked_below: turn.acked_below,
            ..self.context()
        };
        let answer = session.attempt(call, context, session.options.retry_for).await?;
        Ok(answer.reply)
    }

    /// The port of a worker: local, or a proxy for its address.
    pub fn worker(&self, id: WorkerId, addresses: &[WorkerAddress]) -> Result<WorkerRef> {
        let session = &self.session;
        if let Some(local) = (session.local_workers)(id) {
            return Ok(local);
        }
        let address = addresses.iter().find(|worker| worker.id == id).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("the address of worker {id} is not known"),
            )
        })?;
        let address = address.address.clone();
        if let Some(worker) = locked(&session.workers).get(&address) {
            return Ok(worker.clone());
        }
        let worker: WorkerRef = Arc::new(Peer::start(&session.host()?.arbiter, &address, &session.ports));
        Ok(locked(&session.workers).entry(address).or_insert(worker).clone())
    }

    pub async fn ask_worker<C: Call>(&self, worker: &WorkerRef, call: C, body: Bytes) -> Result<Answer<C>>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        Endpoint::<C>::ask(&**worker, Ask::new(call, self.context()).with_body(body)).await
    }

    pub fn retry_for(&self) -> Duration {
        self.session.options.retry_for
    }

    pub fn ports(&self) -> &Ports {
        &self.session.ports
    }

    pub fn id(&self) -> ClientId {
        self.session.id
    }

    pub(super) async fn end_session_of(&self, client: ClientId) -> Result<()> {
        let context = CallContext {
            client,
            ..self.context()
        };
        let retry_for = self.session.options.retry_for;
        self.session
            .attempt(EndSession {}, context, retry_for)
            .await
            .map(|_| ())
    }

    pub(super) async fn end(&self) {
        self.session.ended.cancel();
        if self.session.known.load(Ordering::Relaxed) {
            let context = CallContext {
                deadline_ms: 2_000,
                ..self.context()
            };
            if let Err(error) = self.session.attempt(EndSession {}, context, Duration::ZERO).await {
                tracing::debug!(%error, "the session was not ended; the masters will let it expire");
            }
        }
    }
}

impl Session {
    fn host(&self) -> Result<&Host> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        // Of two that are started at once, one goes again.
        let host = Host::start()?;
        Ok(self.host.get_or_init(|| host))
    }

    async fn attempt<C: Call>(&self, call: C, context: CallContext, retry_for: Duration) -> Result<Answer<C>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let give_up = Instant::now() + retry_for;
        let mut backoff = BACKOFF_FIRST;
        // A reply that was lost takes a whole deadline: it is asked for again once at least.
        let mut tries_left = u32::from(!retry_for.is_zero());
        loop {
            let count = locked(&self.masters).len();
            let at = self.leader.load(Ordering::Relaxed) % count;
            let master = |place: usize| locked(&self.masters)[place].1.clone();
            let port = master(at);
            let echo = |other: usize, ask| Endpoint::<Echo>::ask(&*master(other), ask);
            let answer = tokio::select! {
                answer = Endpoint::<C>::ask(&*port, Ask::new(call.clone(), context.clone())) => answer,
                // The one that was asked hangs, or is cut off.
                leader = another_leads(count, at, echo) => {
                    self.leader.store(leader, Ordering::Relaxed);
                    continue;
                }
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let over = tries_left == 0 && Instant::now() >= give_up;
            if !is_passing(&error) || over {
                return Err(error);
            }
            tries_left = tries_left.saturating_sub(1);
            self.follow(at, &error);
            let jitter = self.ports.random.next_u64() % (backoff.as_millis() as u64).max(1);
            sleep(backoff / 2 + Duration::from_millis(jitter / 2)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// A read that any master may answer from what it has: spread over all, and the next where one does not answer.
    async fn attempt_anywhere<C: Call>(
        &self,
        call: C,
        context: CallContext,
        retry_for: Duration,
    ) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let context = CallContext {
            deadline_ms: STALE_DEADLINE_MS,
            stale: true,
            ..context
        };
        let give_up = Instant::now() + retry_for;
        let first = (self.ports.random.next_u64() % MASTERS_MAX as u64) as usize;
        for turn in 0.. {
            let port = {
                let masters = locked(&self.masters);
                masters[(first + turn) % masters.len()].1.clone()
            };
            let error = match Endpoint::<C>::ask(&*port, Ask::new(call.clone(), context.clone())).await {
                Ok(answer) => return Ok(answer.reply),
                Err(error) => error,
            };
            let all_asked = turn + 1 >= locked(&self.masters).len();
            if !is_passing(&error) || all_asked && Instant::now() >= give_up {
                return Err(error);
            }
            if all_asked {
                sleep(BACKOFF_MAX).await;
            }
        }
        unreachable!("the turns have no end")
    }

    /// A master's place in the list, where it is put if it is new.
    fn place_of(&self, address: &str) -> Option<usize> {
        let known = |masters: &[(String, MasterRef)]| masters.iter().position(|(known, _)| known == address);
        {
            let masters = locked(&self.masters);
            if let Some(place) = known(&masters) {
                return Some(place);
            }
            if masters.len() >= MASTERS_MAX {
                return None;
            }
        }
        let master: MasterRef = Arc::new(Peer::start(&self.host().ok()?.arbiter, address, &self.ports));
        let mut masters = locked(&self.masters);
        Some(known(&masters).unwrap_or_else(|| {
            masters.push((address.to_owned(), master));
            masters.len() - 1
        }))
    }

    /// Where to try next.
    fn follow(&self, at: usize, error: &Error) {
        let named = error.leader.as_ref().and_then(|leader| self.place_of(leader));
        match (named, error.kind) {
            (Some(named), _) => self.leader.store(named, Ordering::Relaxed),
            (None, ErrorKind::Overloaded | ErrorKind::BlockUnavailable) => {}
            (None, _) => self.leader.store(at + 1, Ordering::Relaxed),
        }
    }
}

/// Whether a later try, or another master, may say something else. For a change: whether it is not known to have failed.
pub(super) fn is_passing(error: &Error) -> bool {
    use ErrorKind::*;
    matches!(
        error.kind,
        NotLeader | Unreachable | Timeout | Overloaded | Stopping | BlockUnavailable
    )
}

/// A sequence while its change is in flight.
struct Turn<'a> {
    session: &'a Session,
    sequence: u64,
    acked_below: u64,
}

impl<'a> Turn<'a> {
    fn begin(session: &'a Session) -> Self {
        let mut sequences = locked(&session.sequences);
        let sequence = sequences.begin();
        Turn {
            session,
            sequence,
            acked_below: sequences.acked_below(),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        locked(&self.session.sequences).in_flight.remove(&self.sequence);
    }
}

/// Keeps the session's leases and nameless files while the client lives.
async fn renew(session: std::sync::Weak<Session>) {
    loop {
        sleep(Duration::from_millis(SESSION_RENEW_MS)).await;
        let Some(session) = session.upgrade() else { return };
        if session.ended.is_cancelled() {
            return;
        }
        if session.known.load(Ordering::Relaxed) {
            let context = CallContext {
                client: session.id,
                deadline_ms: CALL_DEADLINE_MS,
                ..CallContext::default()
            };
            if let Err(error) = session.attempt(RenewSession {}, context, Duration::ZERO).await {
                tracing::debug!(%error, "the session was not renewed; trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_below_everything_in_flight() {
        let mut sequences = Sequences::default();
        let (first, second) = (sequences.begin(), sequences.begin());
        assert_eq!((first, second, sequences.acked_below()), (1, 2, 1));
        sequences.in_flight.remove(&first);
        assert_eq!(sequences.acked_below(), 2);
        sequences.in_flight.remove(&second);
        assert_eq!(sequences.acked_below(), 3);
    }
}
