//! One call of a worker, again while it does not answer.

use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::GetRoutes;
use curvine_protocol::{Call, ErrorKind, Result, WorkerId};
use tokio::time::sleep;

use super::{Router, Shared};
use crate::kit::backoff::Backoff;
use crate::kit::{Endpoint, Ports, WorkerPort};

/// The longest pause between two tries of a worker.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long a worker is asked that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Usual,
    /// Once.
    None,
}

impl Shared {
    /// Makes a call of a worker, again while it does not answer: what is sent to a worker may be sent twice.
    pub(super) async fn deliver<C: Call>(
        &self,
        worker: WorkerId,
        mut addresses: Vec<WorkerAddress>,
        call: C,
        body: Bytes,
        patience: Patience,
    ) -> Result<C::Reply>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let Ports { clock, random, .. } = self.router.ports();
        let give_up = clock.now() + self.router.retry_for();
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        let mut tried = false;
        loop {
            let port = self.router.worker(worker, &addresses)?;
            let error = match self.router.ask_worker(&port, call.clone(), body.clone()).await {
                Ok(answer) => return Ok(answer.reply),
                Err(error) => error,
            };
            let passes = matches!(
                error.kind,
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Stopping
            );
            // A reply that was lost took a whole deadline: it is asked for again once at least.
            if !passes || patience == Patience::None || tried && clock.now() >= give_up {
                return Err(error);
            }
            tried = true;
            sleep(backoff.next(random.next_u64())).await;
            if error.kind != ErrorKind::Overloaded {
                self.router.learn_address(worker, &mut addresses).await;
            }
        }
    }
}

impl Router {
    /// A worker that came back may listen elsewhere.
    async fn learn_address(&self, worker: WorkerId, addresses: &mut Vec<WorkerAddress>) {
        let Ok(routes) = self.ask_master(GetRoutes {}).await else {
            return;
        };
        if let Some(now) = routes.workers.into_iter().find(|known| known.id == worker) {
            addresses.retain(|known| known.id != worker);
            addresses.push(now);
        }
    }
}
