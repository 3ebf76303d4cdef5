//! The Worker actor: registers, sends heartbeats and begins reports; one of each at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, StreamHandler, WrapFuture};
use curvine_protocol::cluster::Labels;
use curvine_protocol::master::{RegisterWorker, WorkerHeartbeat, WorkerRegistered};
use curvine_protocol::number::whole_ms;
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::report::Report;
use super::untold::Untold;
use super::{News, Session, Standing};
use crate::kit::{Endpoint, MasterRef, Offload, Ports, call};
use crate::worker::WorkerConfig;
use crate::worker::disks::Disks;
use crate::worker::identity::Identity;

const MASTER_DEADLINE: Duration = Duration::from_secs(10);

pub struct Worker {
    /// Where the identity is kept.
    homes: Vec<PathBuf>,
    identity: Identity,
    address: String,
    labels: Labels,
    disks: Disks,
    master: MasterRef,
    blocking: Arc<dyn Offload>,
    heartbeat: Duration,
    report_delay: Duration,
    session: watch::Sender<Option<Session>>,
    /// The last word of the master that no retry will change.
    refusal: Option<Error>,
    news: Arc<News>,
    standing: Arc<Standing>,
    registering: bool,
    beating: bool,
    reporting: bool,
    report_planned: bool,
    /// How many parts of reports there have been: one at a time is under way.
    reports: Arc<AtomicU64>,
    /// The master could not be reached at the last try: logged once.
    master_is_silent: bool,
}

impl Worker {
    #[allow(
        clippy::too_many_arguments,
        reason = "a constructor lists everything it can reach"
    )]
    pub fn new(
        homes: Vec<PathBuf>,
        identity: Identity,
        address: String,
        disks: Disks,
        master: MasterRef,
        news: Arc<News>,
        standing: Arc<Standing>,
        ports: &Ports,
        config: &WorkerConfig,
        session: watch::Sender<Option<Session>>,
    ) -> Self {
        Worker {
            homes,
            identity,
            address,
            labels: config.labels.clone(),
            disks,
            master,
            blocking: ports.offload("worker-report"),
            heartbeat: config.heartbeat,
            report_delay: config.report_delay,
            session,
            refusal: None,
            news,
            standing,
            registering: false,
            beating: false,
            reporting: false,
            report_planned: false,
            reports: Arc::default(),
            master_is_silent: false,
        }
    }

    fn session(&self) -> Option<Session> {
        *self.session.borrow()
    }

    fn register(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.registering, true) {
            return;
        }
        let (epoch, asked_at) = (self.standing.epoch_to_register(), self.standing.now());
        let introduction = RegisterWorker {
            worker: self.identity.worker,
            cluster: self.identity.cluster,
            address: self.address.clone(),
            disks: self.disks.statuses(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
            labels: self.labels.clone(),
        };
        let asked = ask_master(self.master.clone(), introduction);
        ctx.spawn(asked.into_actor(self).map(move |outcome, worker, ctx| {
            worker.registering = false;
            match outcome.and_then(|registered| worker.registered(&registered, epoch, asked_at)) {
                Ok(()) => {
                    worker.master_spoke();
                    worker.news.doubt();
                    worker.report(ctx);
                }
                Err(error) => {
                    worker.master_failed("registering", &error);
                    if matches!(error.kind, ErrorKind::WrongCluster | ErrorKind::Config) {
                        worker.refusal = Some(error);
                    }
                }
            }
        }));
    }

    fn registered(&mut self, registered: &WorkerRegistered, epoch: u64, asked_at: Instant) -> Result<()> {
        if let Some(mine) = self.identity.cluster
            && mine != registered.cluster
        {
            return Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "data directory {} belongs to cluster {mine} and the master to {}: point the worker at its own \
                     cluster, or give it an empty data directory",
                    self.homes[0].display(),
                    registered.cluster
                ),
            ));
        }
        let identity = Identity {
            worker: Some(registered.worker),
            cluster: Some(registered.cluster),
        };
        identity.store_in(&self.homes)?;
        self.identity = identity;
        tracing::info!(
            "registered as worker {} of cluster {}",
            registered.worker,
            registered.cluster
        );
        self.standing.registered(epoch, asked_at);
        self.session.send_replace(Some(Session {
            worker: registered.worker,
            cluster: registered.cluster,
            token: registered.token,
        }));
        Ok(())
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        let session = self.session().filter(|_| !self.standing.is_over());
        let Some(session) = session else {
            return self.register(ctx);
        };
        if std::mem::replace(&mut self.beating, true) {
            return;
        }
        let (epoch, asked_at) = (self.standing.epoch(), self.standing.now());
        let beat = WorkerHeartbeat {
            worker: session.worker,
            token: session.token,
            disks: self.disks.statuses(),
            traffic: self.disks.counted(),
            hot: self.disks.hot(),
        };
        ctx.spawn(
            ask_master(self.master.clone(), beat)
                .into_actor(self)
                .map(move |outcome, worker, ctx| {
                    worker.beating = false;
                    match outcome {
                        Ok(orders) => {
                            worker.master_spoke();
                            worker.standing.heard(epoch, asked_at);
                            if let Some(shares) = &orders.cache_shares {
                                worker.disks.take_shares(shares);
                            }
                            if orders.register {
                                worker.register(ctx);
                            } else {
                                worker.report(ctx);
                            }
                        }
                        Err(error) if error.kind == ErrorKind::NotPermitted => worker.register(ctx),
                        Err(error) => worker.master_failed("the heartbeat", &error),
                    }
                }),
        );
    }

    /// Tells the master what it was not told, if that is not going on already.
    fn report(&mut self, ctx: &mut Context<Self>) {
        let Some(session) = self.session() else { return };
        if self.reporting || self.news.is_empty() {
            return;
        }
        self.reporting = true;
        let untold = self.news.take();
        let report = Report {
            session,
            master: self.master.clone(),
            disks: self.disks.clone(),
            blocking: self.blocking.clone(),
            numbers: self.reports.clone(),
        };
        let reported = async move {
            let outcome = match &untold {
                Untold::Everything => report.everything().await,
                Untold::Changes(changes) => report.changes(changes).await,
            };
            outcome.map_err(|error| (error, untold))
        };
        ctx.spawn(reported.into_actor(self).map(|outcome, worker, ctx| {
            worker.reporting = false;
            match outcome {
                Ok(()) => worker.plan_report(ctx),
                // Told again after the next heartbeat that is answered.
                Err((error, untold)) => {
                    worker.news.put_back(untold);
                    if error.kind == ErrorKind::NotPermitted {
                        worker.register(ctx);
                    } else {
                        worker.master_failed("a block report", &error);
                    }
                }
            }
        }));
    }

    /// Reports in a moment, what comes until then included.
    fn plan_report(&mut self, ctx: &mut Context<Self>) {
        if self.news.is_empty() || std::mem::replace(&mut self.report_planned, true) {
            return;
        }
        ctx.run_later(self.report_delay, |worker, ctx| {
            worker.report_planned = false;
            worker.report(ctx);
        });
    }

    fn master_spoke(&mut self) {
        self.refusal = None;
        if std::mem::take(&mut self.master_is_silent) {
            tracing::info!("the master answers again");
        }
    }

    fn master_failed(&mut self, what: &str, error: &Error) {
        if !std::mem::replace(&mut self.master_is_silent, true) {
            tracing::warn!("{what} failed: {error}; trying again every {:?}", self.heartbeat);
        }
    }
}

pub async fn ask_master<C: Call>(master: MasterRef, ask: C) -> Result<C::Reply>
where
    dyn crate::kit::MasterPort: Endpoint<C>,
{
    let context = CallContext {
        deadline_ms: whole_ms(MASTER_DEADLINE),
        ..CallContext::default()
    };
    match tokio::time::timeout(MASTER_DEADLINE, call(&*master, ask, context)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "{}: no answer from the master within {} s",
                C::NAME,
                MASTER_DEADLINE.as_secs()
            ),
        )),
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.register(ctx);
        ctx.add_stream(self.news.clone().arrivals().map(|()| NewsCame));
        ctx.run_interval(self.heartbeat, |worker, ctx| worker.beat(ctx));
    }
}

/// Disks have news.
struct NewsCame;

impl StreamHandler<NewsCame> for Worker {
    fn handle(&mut self, NewsCame: NewsCame, ctx: &mut Self::Context) {
        self.plan_report(ctx);
    }
}

/// Why the master will not have this worker, if it said so.
#[derive(Message)]
#[rtype(result = "Option<Error>")]
pub struct GetRefusal;

impl Handler<GetRefusal> for Worker {
    type Result = Option<Error>;

    fn handle(&mut self, _: GetRefusal, _: &mut Self::Context) -> Self::Result {
        self.refusal.clone()
    }
}

pub struct GetIdentity;

impl Message for GetIdentity {
    type Result = Identity;
}

impl Handler<GetIdentity> for Worker {
    type Result = actix::MessageResult<GetIdentity>;

    fn handle(&mut self, _: GetIdentity, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(self.identity)
    }
}

/// Ends heartbeats and reports.
pub struct StopWorker;

impl Message for StopWorker {
    type Result = ();
}

impl Handler<StopWorker> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopWorker, ctx: &mut Self::Context) -> Self::Result {
        actix::ActorContext::stop(ctx);
        Box::pin(async {})
    }
}
