//! A client's session with the masters: how it begins, whom it asks, its renewal, and what follows when it has ended.
//!
//! A session begins with the first change. One that ends is followed by another at the next change: only what it held is
//! lost. A client that was stopped or cut off for a while asks whether its session lasts before it makes a change in it,
//! so the answer to a change says `SessionEnded` only if the two met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::{OpenSession, RenewSession, SESSION_EXPIRE_MS, SESSION_RENEW_MS};
use curvine_protocol::number::to_u32;
use curvine_protocol::{Call, CallContext, ClientId, Error, ErrorKind, Result, WorkerId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::host::Proxies;
use super::lenders::Lenders;
use super::opens::Opens;
use super::sequences::{Sequences, Turn};
use super::stalled::Stalled;
use super::{CALL_DEADLINE_MS, LocalWorkers, is_passing};
use crate::client::ClientOptions;
use crate::kit::leader::Masters;
use crate::kit::leader::search::{Limit, Search, Wanted};
use crate::kit::{Answer, Ask, Endpoint, MasterPort, MasterRef, Ports, WorkerRef};

/// One try of a read that any master may answer, from memory.
const STALE_DEADLINE_MS: u32 = 1_000;
const RENEW: Duration = Duration::from_millis(SESSION_RENEW_MS);
/// After a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// A session that the masters did not hear of for so long may have ended.
const IN_DOUBT_AFTER: Duration = Duration::from_millis(SESSION_EXPIRE_MS / 2);

pub(super) struct Session {
    masters: Masters<dyn MasterPort>,
    local_workers: LocalWorkers,
    /// Proxies by address; bulk data has connections of its own, apart from the masters'.
    workers: Mutex<HashMap<String, WorkerRef>>,
    pub sequences: Sequences,
    pub stalled: Stalled,
    pub lenders: Lenders,
    /// Told when the masters hear of the session after a long silence.
    pub lapsed: Arc<Notify>,
    pub opens: Opens,
    /// Whoever finds no session, or one in doubt, asks the masters; the others wait for the answer.
    asking: tokio::sync::Mutex<()>,
    pub options: ClientOptions,
    pub ports: Ports,
    proxies: Arc<Proxies>,
    pub ended: CancellationToken,
}

/// How long is waited for what under file systems do, as long as the leader says that they do it.
const UNDER_WAY_MAX: Duration = Duration::from_secs(600);
/// The leader has waited already before it says so.
const UNDER_WAY_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// # Errors
    /// `Config` without a master.
    pub fn new(
        masters: Vec<(String, MasterRef)>,
        local_workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
        proxies: Arc<Proxies>,
    ) -> Result<Session> {
        let connect = {
            let proxies = proxies.clone();
            Box::new(move |address: &str| Ok(Arc::new(proxies.peer(address)?) as MasterRef))
        };
        Ok(Session {
            masters: Masters::new(masters, connect, ports.clone())?,
            local_workers,
            workers: Mutex::default(),
            sequences: Sequences::default(),
            stalled: Stalled::default(),
            lenders: Lenders::default(),
            lapsed: Arc::default(),
            opens: Opens::default(),
            asking: tokio::sync::Mutex::default(),
            options,
            ports,
            proxies,
            ended: CancellationToken::new(),
        })
    }

    /// The next change of a session that lasts, as far as can be known.
    ///
    /// # Errors
    /// As [`Session::confirmed`].
    pub async fn turn(&self) -> Result<Turn<'_>> {
        loop {
            if let Some(turn) = self.sequences.begin(Some(self.doubtful_before())) {
                return Ok(turn);
            }
            self.confirmed().await?;
        }
    }

    /// The session, of which the masters heard not long ago. Begins one if there is none, or it has ended.
    ///
    /// # Errors
    /// Whatever kept the masters from answering.
    pub async fn confirmed(&self) -> Result<ClientId> {
        if let Some(client) = self.sequences.session_heard_since(self.doubtful_before()) {
            return Ok(client);
        }
        let _asking = self.asking.lock().await;
        loop {
            if let Some(client) = self.sequences.session_heard_since(self.doubtful_before()) {
                return Ok(client);
            }
            let retry_for = self.options.retry_for;
            match self.sequences.session() {
                Some(client) => match self.renew(client, self.for_leader(retry_for)).await {
                    Err(error) if error.kind == ErrorKind::SessionEnded => {}
                    renewed => renewed?,
                },
                None => {
                    let asked = self.ports.clock.now();
                    let context = CallContext {
                        deadline_ms: CALL_DEADLINE_MS,
                        ..CallContext::default()
                    };
                    let opened = self.attempt(OpenSession {}, context, retry_for).await?.reply;
                    // Before any change in it: what is removed must stay for who has it open, who had another session.
                    self.tell_open_as(opened.client).await;
                    self.sequences.opened(opened.client, asked);
                    return Ok(opened.client);
                }
            }
        }
    }

    /// Tells the leader what is open here, if anything is. What fails is tried again with what else there is to tell.
    async fn tell_open_as(&self, client: ClientId) {
        let Some(telling) = self.opens.anew() else { return };
        let context = CallContext {
            client,
            deadline_ms: CALL_DEADLINE_MS,
            ..CallContext::default()
        };
        match self.attempt(telling.call.clone(), context, Duration::ZERO).await {
            Ok(answer) => self.opens.told_as(client, &telling, &answer.reply),
            Err(error) => tracing::debug!(%error, "the leader does not know yet what is open here"),
        }
    }

    fn doubtful_before(&self) -> Instant {
        let now = self.ports.clock.now();
        now.checked_sub(IN_DOUBT_AFTER).unwrap_or(now)
    }

    async fn renew(&self, client: ClientId, search: Search) -> Result<()> {
        let asked = self.ports.clock.now();
        let context = CallContext {
            client,
            deadline_ms: CALL_DEADLINE_MS,
            ..CallContext::default()
        };
        let renewed = self.ask(RenewSession {}, context, search).await;
        self.learn(client, asked, renewed.as_ref().err());
        renewed.map(|_| ())
    }

    /// What the outcome of a call says of the session in which it was made.
    pub fn learn(&self, client: ClientId, asked: Instant, error: Option<&Error>) {
        match error {
            None => {
                if self.sequences.heard(client, asked) {
                    self.lapsed.notify_one();
                }
            }
            Some(error) if error.kind == ErrorKind::SessionEnded => {
                tracing::warn!("{error}");
                self.sequences.ended(client);
            }
            Some(_) => {}
        }
    }

    /// A call that the leader answers. As long as it says that an under file system is at work on it, it is asked again.
    pub async fn attempt<C: Call>(
        &self,
        call: C,
        context: CallContext,
        retry_for: Duration,
    ) -> Result<Answer<C>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let give_up = self.ports.clock.now() + UNDER_WAY_MAX;
        loop {
            let outcome = self
                .ask(call.clone(), context.clone(), self.for_leader(retry_for))
                .await;
            match outcome {
                Err(error) if error.kind == ErrorKind::UnderWay && self.ports.clock.now() < give_up => {
                    sleep(UNDER_WAY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// A call, by a search of [`Session::for_leader`] or [`Session::for_anybody`].
    pub async fn ask<C: Call>(&self, call: C, context: CallContext, search: Search) -> Result<Answer<C>>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let context = match search.wanted() {
            Wanted::Leader => context,
            Wanted::Anybody(_) => CallContext {
                deadline_ms: STALE_DEADLINE_MS,
                stale: true,
                ..context
            },
        };
        self.masters.ask(Ask::new(call, context), search).await
    }

    pub fn for_leader(&self, retry_for: Duration) -> Search {
        // A reply that was lost takes a whole deadline: it is asked for again once at least.
        self.for_leader_at_least(if retry_for.is_zero() { 1 } else { 2 }, retry_for)
    }

    /// For a session's first call, whose tries are short: whoever leads is asked, also when the time is over before this
    /// process got to run.
    pub fn for_first_contact(&self, connect_timeout: Duration) -> Search {
        self.for_leader_at_least(to_u32(self.masters.count() + 1), connect_timeout)
    }

    fn for_leader_at_least(&self, tries_min: u32, retry_for: Duration) -> Search {
        let limit = Limit::Until {
            give_up: self.ports.clock.now() + retry_for,
            tries_min,
        };
        Search::new(Wanted::Leader, limit, is_passing)
    }

    /// For a read that any master may answer from what it has: spread over all, and the next where one does not answer.
    pub fn for_anybody(&self, retry_for: Duration) -> Search {
        let limit = Limit::Until {
            give_up: self.ports.clock.now() + retry_for,
            tries_min: to_u32(self.masters.count()),
        };
        Search::new(Wanted::Anybody(self.ports.random.next_u64()), limit, is_passing)
    }

    /// Where this session's proxies are.
    pub fn arbiter(&self) -> Result<actix::ArbiterHandle> {
        self.proxies.arbiter().cloned()
    }

    /// The port of a worker: local, or a proxy for its address.
    pub fn worker(&self, id: WorkerId, addresses: &[WorkerAddress]) -> Result<WorkerRef> {
        if let Some(local) = (self.local_workers)(id) {
            return Ok(local);
        }
        let address = addresses.iter().find(|worker| worker.id == id).ok_or_else(|| {
            Error::new(
                ErrorKind::BlockUnavailable,
                format!("the address of worker {id} is not known"),
            )
        })?;
        let address = address.address.clone();
        if let Some(worker) = self.workers().get(&address) {
            return Ok(worker.clone());
        }
        let worker: WorkerRef = Arc::new(self.proxies.peer(&address)?);
        Ok(self.workers().entry(address).or_insert(worker).clone())
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, WorkerRef>> {
        self.workers.lock().expect("nobody panics while holding this")
    }
}

/// Keeps the session's leases and nameless files while the client lives. A renewal that was missed is soon made up for:
/// after a second one, others may have the leases.
pub(super) async fn renew(session: Weak<Session>) {
    let mut pause = RENEW;
    loop {
        sleep(pause).await;
        let Some(session) = session.upgrade() else { return };
        if session.ended.is_cancelled() {
            return;
        }
        pause = RENEW;
        let Some(client) = session.sequences.session() else {
            continue;
        };
        // All masters once, whoever leads.
        let search = Search::new(Wanted::Leader, Limit::Pauses(0), is_passing);
        if let Err(error) = session.renew(client, search).await {
            tracing::debug!(%error, "the session was not renewed");
            pause = RENEW_AGAIN;
        }
    }
}
