//! To whom a call goes, how often it is tried, and which of a client's changes it is.
//!
//! - [`Router`]: the calls of one user of a session.
//! - `session`: the session itself: masters, workers, renewal.
//! - `stalled`: which workers did not answer lately.
//! - `lenders`: workers on this host that lend the files of their blocks.
//! - `sequences`: who it is to the masters, the numbers of its changes.
//! - `opens`: what it has open, and what of that the leader was told.
//! - `host`: the thread of its proxies.
//!
//! Invariant: a change keeps its sequence over all its tries.

mod host;
pub(super) mod lenders;
pub(super) mod opens;
mod sequences;
mod session;
pub(super) mod stalled;

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::ArbiterHandle;
use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::cluster::Labels;
use curvine_protocol::master::{AwaitNews, DeadlineClass, EndSession, GetRoutes, Lookup, MasterCall};
use curvine_protocol::number::{to_u32, whole_ms};
use curvine_protocol::{Call, CallContext, ClientId, Error, ErrorKind, InodeId, Mutation, Result, WorkerId};
use tokio::time::timeout;

use self::host::Proxies;
use self::opens::Opens;
use self::session::{Session, renew};
use self::stalled::Stalled;
use super::ClientOptions;
use super::file::table::{Files, GivingBack};
use crate::kit::leader::search::Words;
use crate::kit::{Answer, Ask, Endpoint, MasterPort, MasterRef, Ports, WorkerPort, WorkerRef};

/// Workers of the same process.
pub type LocalWorkers = Arc<dyn Fn(WorkerId) -> Option<WorkerRef> + Send + Sync>;

/// One try of a call that does not say otherwise: [`CALL`](crate::kit::deadlines::CALL).
const CALL_DEADLINE_MS: u32 = 30_000;
/// For news, which the leader holds back for 5 s while there are none.
const NEWS_DEADLINE_MS: u32 = 15_000;
/// How often a task that waits for something looks whether its client is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Calls that take as long as a service far away: checks of mounts, walks of big trees, exports.
const LONG_DEADLINE_MS: u32 = 3_600_000;

/// The routes of one client session. [`Client`](super::Client) is a handle on it.
pub struct Router {
    session: Arc<Session>,
    uid: u32,
    gid: u32,
}

impl Router {
    pub(super) async fn connect(
        addresses: Vec<String>,
        options: ClientOptions,
        ports: Ports,
    ) -> Result<Arc<Router>> {
        let proxies = Arc::new(Proxies::new(ports.clone()));
        let masters: Result<Vec<(String, MasterRef)>> = addresses
            .iter()
            .map(|address| Ok((address.clone(), Arc::new(proxies.peer(address)?) as MasterRef)))
            .collect();
        let no_workers: LocalWorkers = Arc::new(|_| None);
        let session = Session::new(masters?, no_workers, options.clone(), ports, proxies.clone())?;
        let router = Self::new(session);
        // Every address gets its turn, also where the ones before it swallow what they are sent.
        let one_try = options.connect_timeout / to_u32(addresses.len() + 1);
        let deadline_ms = whole_ms(one_try).clamp(1, CALL_DEADLINE_MS);
        let session = &router.session;
        let words = Words {
            silent: (
                "no master answers at",
                ". Is `curvine-node` running there, and is --master (or CURVINE_MASTER) right?",
            ),
            leaderless: (
                "no master leads at",
                ". One leads only while more than half of its group run and reach each other: start those that do not",
            ),
        };
        match options.stale_reads {
            false => {
                let context = CallContext {
                    deadline_ms,
                    ..router.context()
                };
                let search = session.for_first_contact(options.connect_timeout).saying(words);
                session.ask(GetRoutes {}, context, search).await.map(|_| ())?;
            }
            true => {
                let root = Lookup {
                    node: InodeId::ROOT.into(),
                    follow: false,
                };
                let search = session.for_anybody(options.connect_timeout).saying(words);
                session.ask(root, router.context(), search).await.map(|_| ())?;
            }
        }
        proxies.arbiter()?.spawn(renew(Arc::downgrade(&router.session)));
        proxies
            .arbiter()?
            .spawn(opens::tell(Arc::downgrade(&router.session)));
        Ok(router)
    }

    /// To masters and workers behind ports that are here already; the session is renewed in `arbiter`.
    pub(super) fn in_process(
        arbiter: &ArbiterHandle,
        masters: Vec<(String, MasterRef)>,
        workers: LocalWorkers,
        options: ClientOptions,
        ports: Ports,
    ) -> Result<Arc<Router>> {
        let proxies = Arc::new(Proxies::new(ports.clone()));
        let router = Self::new(Session::new(masters, workers, options, ports, proxies)?);
        arbiter.spawn(renew(Arc::downgrade(&router.session)));
        arbiter.spawn(opens::tell(Arc::downgrade(&router.session)));
        Ok(router)
    }

    fn new(session: Session) -> Arc<Router> {
        let (uid, gid) = (session.options.uid, session.options.gid);
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
            let search = self.session.for_anybody(self.session.options.retry_for);
            return Ok(self.session.ask(call, self.context(), search).await?.reply);
        }
        let deadline_ms = match C::DEADLINE {
            DeadlineClass::Short => CALL_DEADLINE_MS,
            DeadlineClass::Long => LONG_DEADLINE_MS,
        };
        let context = CallContext {
            deadline_ms,
            ..self.context()
        };
        let retry_for = self.session.options.retry_for;
        Ok(self.session.attempt(call, context, retry_for).await?.reply)
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

    fn context(&self) -> CallContext {
        CallContext {
            client: self.session.sequences.session().unwrap_or_default(),
            sequence: 0,
            acked_below: 0,
            deadline_ms: CALL_DEADLINE_MS,
            uid: self.uid,
            gid: self.gid,
            stale: false,
            near: Labels::host_key(&self.session.options.host),
        }
    }

    /// A change, under one sequence however often it is tried.
    pub async fn change<C: Mutation>(&self, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let turn = self.session.turn().await?;
        self.try_change(turn.client, (turn.sequence, turn.acked_below), call)
            .await
    }

    async fn try_change<C: Mutation>(
        &self,
        client: ClientId,
        (sequence, acked_below): (u64, u64),
        call: C,
    ) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let session = &self.session;
        let asked = session.ports.clock.now();
        let context = CallContext {
            client,
            sequence,
            acked_below,
            ..self.context()
        };
        let answer = session.attempt(call, context, session.options.retry_for).await;
        session.learn(client, asked, answer.as_ref().err());
        Ok(answer?.reply)
    }

    /// As [`Router::change`]. One that nobody answered keeps its number, to be asked for again.
    pub async fn change_or_keep<C: Mutation>(
        self: &Arc<Self>,
        call: C,
    ) -> (Result<C::Reply>, Option<Unanswered<C>>)
    where
        dyn MasterPort: Endpoint<C>,
    {
        let turn = match self.session.turn().await {
            Ok(turn) => turn,
            Err(error) => return (Err(error), None),
        };
        let numbers = (turn.sequence, turn.acked_below);
        let outcome = self.try_change(turn.client, numbers, call.clone()).await;
        let unanswered = outcome.as_ref().is_err_and(is_passing).then(|| {
            let (client, sequence) = turn.keep();
            Unanswered {
                router: self.clone(),
                client,
                sequence,
                call,
            }
        });
        (outcome, unanswered)
    }

    /// Asks for a change again, under its number: it is made once.
    ///
    /// # Errors
    /// `SessionEnded` if its session is over: it is not made any more.
    pub async fn change_again<C: Mutation>(&self, unanswered: &Unanswered<C>) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let Unanswered { client, sequence, .. } = *unanswered;
        let Some(acked_below) = self.session.sequences.acked_below(client) else {
            return Err(Error::new(
                ErrorKind::SessionEnded,
                format!(
                    "session {:016x} has ended, and change {sequence} with it",
                    client.0
                ),
            ));
        };
        self.try_change(client, (sequence, acked_below), unanswered.call.clone())
            .await
    }

    pub(super) fn stalled(&self) -> &Stalled {
        &self.session.stalled
    }

    pub(super) fn opens(&self) -> &Opens {
        &self.session.opens
    }

    /// The port of a worker: local, or a proxy for its address.
    pub fn worker(&self, id: WorkerId, addresses: &[WorkerAddress]) -> Result<WorkerRef> {
        self.session.worker(id, addresses)
    }

    pub async fn ask_worker<C: Call>(&self, worker: &WorkerRef, call: C, body: Bytes) -> Result<Answer<C>>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        self.ask_worker_within(worker, call, body, Duration::MAX).await
    }

    /// The same, with an answer within so long.
    pub async fn ask_worker_within<C: Call>(
        &self,
        worker: &WorkerRef,
        call: C,
        body: Bytes,
        most: Duration,
    ) -> Result<Answer<C>>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let context = self.context();
        let context = CallContext {
            deadline_ms: context.deadline_ms.min(whole_ms(most)),
            ..context
        };
        Endpoint::<C>::ask(&**worker, Ask::new(call, context).with_body(body)).await
    }

    pub fn retry_for(&self) -> Duration {
        self.session.options.retry_for
    }

    pub fn ports(&self) -> &Ports {
        &self.session.ports
    }

    /// The session in which changes are made now. Asks the masters if there is none, or they did not hear of it for long.
    pub async fn session(&self) -> Result<ClientId> {
        self.session.confirmed().await
    }

    /// The session, as far as it is known here; none before the first change.
    pub fn session_now(&self) -> Option<ClientId> {
        self.session.sequences.session()
    }

    /// How often the masters did not hear of the session for so long that leases may have been given on.
    pub fn lapses(&self) -> u64 {
        self.session.sequences.lapses(self.session.ports.clock.now())
    }

    pub(super) fn news_route(&self) -> NewsRoute {
        NewsRoute(Arc::downgrade(&self.session))
    }

    /// Where this client's own tasks run.
    pub(super) fn arbiter(&self) -> Result<ArbiterHandle> {
        self.session.arbiter()
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
        if let Some(client) = self.session.sequences.session() {
            let context = CallContext {
                client,
                deadline_ms: 2_000,
                ..self.context()
            };
            if let Err(error) = self.session.attempt(EndSession {}, context, Duration::ZERO).await {
                tracing::debug!(%error, "the session was not ended; the masters will let it expire");
            }
        }
    }
}

/// A change of which nobody knows whether it was made.
pub struct Unanswered<C> {
    router: Arc<Router>,
    client: ClientId,
    sequence: u64,
    pub call: C,
}

impl<C> Drop for Unanswered<C> {
    fn drop(&mut self) {
        self.router.session.sequences.release(self.client, self.sequence);
    }
}

/// What a client needs to hear news for as long as it lives, and to act on them. Keeps nothing alive.
#[derive(Clone)]
pub struct NewsRoute(Weak<Session>);

impl NewsRoute {
    /// Waits until the masters have heard of this client again, after long. False if it is gone.
    pub(super) async fn lapse(&self) -> bool {
        loop {
            let Some(lapsed) = self.0.upgrade().map(|session| session.lapsed.clone()) else {
                return false;
            };
            if timeout(LOOK_AGAIN, lapsed.notified()).await.is_ok() {
                return true;
            }
        }
    }

    /// The files that others want. None if the client is gone, or closed.
    pub(super) async fn news(&self) -> Option<Result<Vec<InodeId>>> {
        let session = self.0.upgrade()?;
        let context = CallContext {
            client: session.sequences.session().unwrap_or_default(),
            deadline_ms: NEWS_DEADLINE_MS,
            ..CallContext::default()
        };
        let asking = session.attempt(AwaitNews {}, context, Duration::ZERO);
        tokio::select! {
            () = session.ended.cancelled() => None,
            news = asking => Some(news.map(|answer| answer.reply.recalls)),
        }
    }

    /// As [`Files::gives_back_unknown`]. None if the client is gone.
    pub(super) fn gives_back_unknown<'f>(&self, files: &'f Files, inode: InodeId) -> Option<GivingBack<'f>> {
        let session = self.0.upgrade()?;
        Some(files.gives_back_unknown(inode, &session.opens))
    }

    pub(super) async fn change<C: Mutation>(&self, call: C) -> Result<()>
    where
        dyn MasterPort: Endpoint<C>,
    {
        let Some(session) = self.0.upgrade() else {
            return Ok(());
        };
        let router = Router {
            session,
            uid: 0,
            gid: 0,
        };
        router.change(call).await.map(|_| ())
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

#[cfg(test)]
mod deadline_tests {
    use super::*;

    #[test]
    fn a_call_waits_longer_than_whoever_waits_for_a_store() {
        assert_eq!(CALL_DEADLINE_MS, whole_ms(crate::kit::deadlines::CALL));
    }
}
