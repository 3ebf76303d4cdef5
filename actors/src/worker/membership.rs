//! The Worker actor: what the master knows of this worker, and what it wants.
//!
//! After each registration the whole index is reported in parts, then changes, gathered for a moment. What could not be
//! told is kept and told again; when too much has gathered, the whole index is reported instead.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, StreamHandler, WrapFuture};
use curvine_protocol::cluster::{BlockReplica, DiskStatus};
use curvine_protocol::master::{RegisterWorker, ReportBlocks, WorkerHeartbeat, WorkerRegistered};
use curvine_protocol::{BlockId, Call, CallContext, ClusterId, Error, ErrorKind, Result, WorkerId};
use tokio::sync::watch;

use super::WorkerConfig;
use super::disk::{BlockNews, DiskRef, Removal, RemoveBlocks};
use super::identity::Identity;
use crate::kit::ports::offloaded;
use crate::kit::{Endpoint, MasterRef, Offload, Ports, call};

const MASTER_DEADLINE: Duration = Duration::from_secs(10);
/// Blocks in one part of a full report.
const REPORT_PART: usize = 8_192;
/// With more changes than this untold, a full report is shorter.
const UNTOLD_MAX: usize = 1 << 20;

/// The current registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub worker: WorkerId,
    pub cluster: ClusterId,
    pub token: u64,
}

pub struct Worker {
    /// Where the identity is kept.
    home: PathBuf,
    identity: Identity,
    address: String,
    disks: Vec<DiskRef>,
    master: MasterRef,
    blocking: Arc<dyn Offload>,
    heartbeat: Duration,
    report_delay: Duration,
    session: watch::Sender<Option<Session>>,
    /// The last word of the master that no retry will change.
    refusal: Option<Error>,
    /// Last news of each block that the master was not told.
    untold: HashMap<BlockId, BlockNews>,
    registering: bool,
    beating: bool,
    reporting: bool,
    full_report_due: bool,
    flush_planned: bool,
    /// The master could not be reached at the last try: logged once.
    master_is_silent: bool,
}

impl Worker {
    #[allow(
        clippy::too_many_arguments,
        reason = "a constructor lists everything it can reach"
    )]
    pub(super) fn new(
        home: PathBuf,
        identity: Identity,
        address: String,
        disks: Vec<DiskRef>,
        master: MasterRef,
        ports: &Ports,
        config: &WorkerConfig,
        session: watch::Sender<Option<Session>>,
    ) -> Self {
        Worker {
            home,
            identity,
            address,
            disks,
            master,
            blocking: ports.offload("worker-report"),
            heartbeat: config.heartbeat,
            report_delay: config.report_delay,
            session,
            refusal: None,
            untold: HashMap::new(),
            registering: false,
            beating: false,
            reporting: false,
            full_report_due: false,
            flush_planned: false,
            master_is_silent: false,
        }
    }

    fn session(&self) -> Option<Session> {
        *self.session.borrow()
    }

    fn statuses(&self) -> Vec<DiskStatus> {
        self.disks.iter().map(|disk| disk.store.status()).collect()
    }

    fn register(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.registering, true) {
            return;
        }
        let introduction = RegisterWorker {
            worker: self.identity.worker,
            cluster: self.identity.cluster,
            address: self.address.clone(),
            disks: self.statuses(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let asked = ask_master(self.master.clone(), introduction);
        ctx.spawn(asked.into_actor(self).map(|outcome, worker, ctx| {
            worker.registering = false;
            match outcome.and_then(|registered| worker.registered(&registered)) {
                Ok(()) => {
                    worker.master_spoke();
                    worker.full_report_due = true;
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

    fn registered(&mut self, registered: &WorkerRegistered) -> Result<()> {
        if let Some(mine) = self.identity.cluster
            && mine != registered.cluster
        {
            return Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "data directory {} belongs to cluster {mine} and the master to {}: point the worker at its own \
                     cluster, or give it an empty data directory",
                    self.home.display(),
                    registered.cluster
                ),
            ));
        }
        let identity = Identity {
            worker: Some(registered.worker),
            cluster: Some(registered.cluster),
        };
        if identity != self.identity {
            identity.store(&self.home)?;
            self.identity = identity;
        }
        tracing::info!(
            "registered as worker {} of cluster {}",
            registered.worker,
            registered.cluster
        );
        self.session.send_replace(Some(Session {
            worker: registered.worker,
            cluster: registered.cluster,
            token: registered.token,
        }));
        Ok(())
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        let Some(session) = self.session() else {
            return self.register(ctx);
        };
        if std::mem::replace(&mut self.beating, true) {
            return;
        }
        let beat = WorkerHeartbeat {
            worker: session.worker,
            token: session.token,
            disks: self.statuses(),
        };
        ctx.spawn(
            ask_master(self.master.clone(), beat)
                .into_actor(self)
                .map(|outcome, worker, ctx| {
                    worker.beating = false;
                    match outcome {
                        Ok(orders) => {
                            worker.master_spoke();
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
        if self.reporting || (!self.full_report_due && self.untold.is_empty()) {
            return;
        }
        self.reporting = true;
        let full = std::mem::take(&mut self.full_report_due);
        let told = std::mem::take(&mut self.untold);
        let report = Report {
            session,
            master: self.master.clone(),
            disks: self.disks.clone(),
            blocking: self.blocking.clone(),
        };
        let changes = told.clone();
        let reported = async move {
            if full {
                report.everything().await?;
            }
            report.changes(&changes).await
        };
        ctx.spawn(reported.into_actor(self).map(move |outcome, worker, ctx| {
            worker.reporting = false;
            match outcome {
                Ok(()) => worker.plan_flush(ctx),
                Err(error) => {
                    worker.full_report_due |= full;
                    for (block, news) in told {
                        worker.untold.entry(block).or_insert(news);
                    }
                    if error.kind == ErrorKind::NotPermitted {
                        worker.register(ctx);
                    } else {
                        worker.master_failed("a block report", &error);
                    }
                }
            }
        }));
    }

    fn plan_flush(&mut self, ctx: &mut Context<Self>) {
        if self.untold.is_empty() || std::mem::replace(&mut self.flush_planned, true) {
            return;
        }
        ctx.run_later(self.report_delay, |worker, ctx| {
            worker.flush_planned = false;
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

pub(super) async fn ask_master<C: Call>(master: MasterRef, ask: C) -> Result<C::Reply>
where
    dyn crate::kit::MasterPort: Endpoint<C>,
{
    let context = CallContext {
        deadline_ms: MASTER_DEADLINE.as_millis() as u32,
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

/// One report under way.
struct Report {
    session: Session,
    master: MasterRef,
    disks: Vec<DiskRef>,
    blocking: Arc<dyn Offload>,
}

impl Report {
    async fn everything(&self) -> Result<()> {
        let mut start = true;
        for disk in &self.disks {
            let mut after = None;
            loop {
                let store = disk.store.clone();
                let page = offloaded(&*self.blocking, move || store.replicas(after, REPORT_PART));
                let (stored, last) = page.await??;
                let Some(last) = last else { break };
                after = Some(last);
                self.part(std::mem::take(&mut start), false, stored, Vec::new())
                    .await?;
            }
        }
        self.part(start, true, Vec::new(), Vec::new()).await
    }

    async fn changes(&self, news: &HashMap<BlockId, BlockNews>) -> Result<()> {
        let mut all: Vec<_> = news.values().copied().collect();
        while !all.is_empty() {
            let part = all.split_off(all.len().saturating_sub(REPORT_PART));
            let (mut stored, mut removed) = (Vec::new(), Vec::new());
            for news in part {
                match news {
                    BlockNews::Stored(replica) => stored.push(replica),
                    BlockNews::Removed(block) => removed.push(block),
                }
            }
            self.part(false, false, stored, removed).await?;
        }
        Ok(())
    }

    async fn part(
        &self,
        full_start: bool,
        full_end: bool,
        stored: Vec<BlockReplica>,
        removed: Vec<BlockId>,
    ) -> Result<()> {
        let reported: HashMap<_, _> = stored
            .iter()
            .map(|replica| (replica.id, replica.generation))
            .collect();
        let report = ReportBlocks {
            worker: self.session.worker,
            token: self.session.token,
            full_start,
            full_end,
            stored,
            removed,
        };
        let answer = ask_master(self.master.clone(), report).await?;
        // What the master does not want is what it was told of: a block that was written again since is another.
        let unwanted: Vec<_> = answer
            .delete
            .into_iter()
            .filter_map(|block| {
                let upto_generation = Some(*reported.get(&block)?);
                Some(Removal {
                    block,
                    upto_generation,
                })
            })
            .collect();
        match unwanted.is_empty() {
            true => Ok(()),
            false => remove_blocks(&self.disks, unwanted).await,
        }
    }
}

/// Removes blocks from whichever disk has them.
pub(super) async fn remove_blocks(disks: &[DiskRef], blocks: Vec<Removal>) -> Result<()> {
    let mut outcome = Ok(());
    for disk in disks {
        let removed = disk.actor.send(RemoveBlocks(blocks.clone())).await;
        let removed =
            removed.unwrap_or_else(|_| Err(Error::new(ErrorKind::Stopping, "the disk has stopped")));
        outcome = outcome.and(removed);
    }
    outcome
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.register(ctx);
        ctx.run_interval(self.heartbeat, |worker, ctx| worker.beat(ctx));
    }
}

/// Blocks of a disk changed.
#[derive(Clone, Debug)]
pub struct BlocksChanged(pub Vec<BlockNews>);

impl StreamHandler<BlocksChanged> for Worker {
    fn handle(&mut self, BlocksChanged(news): BlocksChanged, ctx: &mut Self::Context) {
        for news in news {
            let block = match news {
                BlockNews::Stored(replica) => replica.id,
                BlockNews::Removed(block) => block,
            };
            self.untold.insert(block, news);
        }
        if self.untold.len() > UNTOLD_MAX {
            self.untold.clear();
            self.full_report_due = true;
        }
        self.plan_flush(ctx);
    }

    /// The disks are gone: the worker is stopping, and not this that decides it.
    fn finished(&mut self, _: &mut Self::Context) {}
}

/// Why the master will not have this worker, if it said so.
#[derive(Message)]
#[rtype(result = "Option<Error>")]
pub(super) struct GetRefusal;

impl Handler<GetRefusal> for Worker {
    type Result = Option<Error>;

    fn handle(&mut self, _: GetRefusal, _: &mut Self::Context) -> Self::Result {
        self.refusal.clone()
    }
}

pub(super) struct GetIdentity;

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
pub(super) struct StopWorker;

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
