//! One call of a worker, again while it does not answer; and the same to several.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::GetRoutes;
use curvine_protocol::worker::{PunchBlock, PutBlock, SealBlock, WriteBlock, WriteOrder};
use curvine_protocol::{Call, Error, ErrorKind, Result, WorkerId};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::state::learn;
use crate::client::route::is_passing;
use crate::kit::backoff::Backoff;
use crate::kit::{Endpoint, Ports, WorkerPort};

/// The longest pause between two tries of a worker.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Who gives a write up wants to keep what workers have of it, and does not wait long for that.
const SHORT: Duration = Duration::from_secs(3);
/// A try after the time is over, as the answer to the one before may have been lost.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a worker is waited for that does not answer when another one has the same bytes already: longer than a worker
/// needs to start again. In steps, so that the time in which this process stood still counts for little.
const STALLED: u32 = 5;
const STEP: Duration = Duration::from_secs(1);

/// How long a worker is asked that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Usual,
    /// For as long as it takes to try again what was lost on its way.
    Short,
}

/// Workers that are sent the same: who is behind is waited for only so long. Cheap to clone.
#[derive(Clone)]
pub(super) struct Company {
    /// One of them has it.
    has: Arc<watch::Sender<bool>>,
}

impl Company {
    pub fn new() -> Self {
        Company {
            has: Arc::new(watch::Sender::new(false)),
        }
    }

    /// What one of them answers.
    ///
    /// # Errors
    /// Its own; `Timeout` if it does not answer for some seconds after another one has.
    pub async fn wait<T>(&self, worker: WorkerId, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let mut others = self.has.subscribe();
        let stalled = async {
            if others.wait_for(|has| *has).await.is_err() {
                pending::<()>().await;
            }
            for _ in 0..STALLED {
                sleep(STEP).await;
            }
        };
        tokio::select! {
            biased;
            outcome = answer => {
                if outcome.is_ok() {
                    self.has.send_replace(true);
                }
                outcome
            }
            () = stalled => Err(Error::new(
                ErrorKind::Timeout,
                format!("worker {worker} has not answered for {STALLED} s after another one had"),
            )),
        }
    }
}

/// What is sent to the holders of a file's blocks.
pub(super) trait ToHolder: Call {
    /// The call to a worker of this epoch.
    fn of_epoch(self, epoch: u64) -> Self;

    /// As this one among its writer's changes.
    fn in_order(self, order: WriteOrder) -> Self;

    /// Only who has the lease may make it.
    fn is_writing(&self) -> bool {
        true
    }
}

impl ToHolder for WriteBlock {
    fn of_epoch(self, epoch: u64) -> Self {
        WriteBlock { epoch, ..self }
    }

    fn in_order(self, order: WriteOrder) -> Self {
        WriteBlock { order, ..self }
    }
}

impl ToHolder for PunchBlock {
    fn of_epoch(self, epoch: u64) -> Self {
        PunchBlock { epoch, ..self }
    }

    fn in_order(self, order: WriteOrder) -> Self {
        PunchBlock { order, ..self }
    }
}

impl ToHolder for PutBlock {
    fn of_epoch(self, epoch: u64) -> Self {
        PutBlock { epoch, ..self }
    }

    fn in_order(self, order: WriteOrder) -> Self {
        PutBlock { order, ..self }
    }
}

impl ToHolder for SealBlock {
    fn of_epoch(self, epoch: u64) -> Self {
        SealBlock { epoch, ..self }
    }

    fn in_order(self, order: WriteOrder) -> Self {
        SealBlock { order, ..self }
    }

    fn is_writing(&self) -> bool {
        !self.or_newer
    }
}

impl Shared {
    /// Makes a call of a worker, again while it does not answer: what is sent to a worker may be sent twice. `addresses`
    /// learns where the worker is, and in which epoch.
    pub(super) async fn deliver<C: ToHolder>(
        &self,
        worker: WorkerId,
        addresses: &mut Vec<WorkerAddress>,
        call: C,
        body: Bytes,
        patience: Patience,
    ) -> Result<C::Reply>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let Ports { clock, random, .. } = self.router.ports();
        let give_up = clock.now()
            + match patience {
                Patience::Usual => self.router.retry_for(),
                Patience::Short => self.router.retry_for().min(SHORT),
            };
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        let mut tried = false;
        loop {
            let port = self.router.worker(worker, addresses)?;
            let call_now = call.clone().of_epoch(epoch_of(worker, addresses));
            let most = match (&patience, tried) {
                (Patience::Usual, false) => Duration::MAX,
                (Patience::Usual, true) => AGAIN.max(give_up.saturating_duration_since(clock.now())),
                (Patience::Short, _) => SHORT,
            };
            let asked = self.router.ask_worker_within(&port, call_now, body.clone(), most);
            let error = match asked.await {
                Ok(answer) => return Ok(answer.reply),
                Err(error) => error,
            };
            let passes = matches!(
                error.kind,
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Stopping
            );
            // A reply that was lost took a whole deadline: it is asked for again once at least.
            if !passes || tried && clock.now() >= give_up {
                return Err(error);
            }
            tried = true;
            sleep(backoff.next(random.next_u64())).await;
            if error.kind != ErrorKind::Overloaded {
                self.learn_address(worker, call.is_writing(), addresses).await?;
            }
        }
    }

    /// A worker that came back may listen elsewhere, and be of another epoch: then leases may have been given on without
    /// its knowledge, and whoever writes there makes sure of its own first.
    ///
    /// # Errors
    /// `Stale` if the lease is lost.
    async fn learn_address(
        &self,
        worker: WorkerId,
        is_writing: bool,
        addresses: &mut Vec<WorkerAddress>,
    ) -> Result<()> {
        let Ok(routes) = self.router.ask_master(GetRoutes {}).await else {
            return Ok(());
        };
        let Some(now) = routes.workers.into_iter().find(|known| known.id == worker) else {
            return Ok(());
        };
        if is_writing && now.epoch != epoch_of(worker, addresses) {
            // It assigns nothing, and is refused without a lease.
            match self.has_lease().await {
                Ok(()) => {}
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        learn(addresses, now);
        Ok(())
    }
}

fn epoch_of(worker: WorkerId, addresses: &[WorkerAddress]) -> u64 {
    let known = addresses.iter().find(|known| known.id == worker);
    known.map_or(0, |known| known.epoch)
}
