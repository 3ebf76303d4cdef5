//! Keeps a writer that has lost its lease away from the blocks of its file, before anybody else gets the lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::worker::FenceBlocks;
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, InodeId, Result, WorkerId};
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::blocks::BlockMap;
use super::contract::{Fences, NamespaceView};
use super::workers::Workers;
use crate::kit::{Clock, call};
use crate::planted::{Bug, is_planted};

/// How long one worker is waited for before it is asked again.
const ASK_MS: u32 = 2_000;
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than a worker takes writes without having been heard: then it answers heartbeats, and nothing else.
const LIMIT: Duration = Duration::from_secs(25);

pub struct Fencing {
    view: Arc<dyn NamespaceView>,
    blocks: Arc<BlockMap>,
    workers: Workers,
    clock: Arc<dyn Clock>,
}

/// What keeps a fence from being complete.
struct Open {
    /// Who has not answered, if it is known.
    worker: Option<WorkerId>,
    until: Instant,
}

impl Fencing {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        blocks: Arc<BlockMap>,
        workers: Workers,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Fencing {
            view,
            blocks,
            workers,
            clock,
        }
    }

    /// Asks each worker once that may write one of the blocks and is not among those that `have`. Says who might still
    /// take a write.
    async fn round(
        &self,
        blocks: &[BlockId],
        generation: u32,
        have: &mut BTreeSet<WorkerId>,
    ) -> Result<Vec<Open>> {
        let last_worker = self.view.last_worker()?;
        let mut known = Vec::new();
        for &block in blocks {
            known.extend(self.view.block_owner(block)?.map(|(_, _, known)| known));
        }
        let writers = self
            .blocks
            .cluster()
            .writers(&known, last_worker, self.clock.now());
        let asking = writers.known.into_iter().filter(|(id, _)| !have.contains(id));
        let asking = asking
            .map(|(worker, blocks)| async move { (worker, self.ask(worker, blocks, generation).await) });
        let answers = join_all(asking.collect::<Vec<_>>()).await;
        let now = self.clock.now();
        let mut open = Vec::new();
        for (worker, answer) in answers {
            let until = self.blocks.cluster().silent_until(worker, now);
            match answer {
                Ok(()) => drop(have.insert(worker)),
                Err(_) if until <= now => {}
                Err(error) => {
                    tracing::debug!(%worker, %error, "a worker does not answer to a fence");
                    open.push(Open {
                        worker: Some(worker),
                        until,
                    });
                }
            }
        }
        open.extend(writers.others_until.map(|until| Open { worker: None, until }));
        Ok(open)
    }

    async fn ask(&self, worker: WorkerId, blocks: Vec<BlockId>, generation: u32) -> Result<()> {
        let port = self.workers.port(worker).ok_or_else(|| {
            Error::new(
                ErrorKind::Unreachable,
                format!("worker {worker} is not registered"),
            )
        })?;
        let context = CallContext {
            deadline_ms: ASK_MS,
            ..CallContext::default()
        };
        let fence = FenceBlocks { blocks, generation };
        call(&*port, fence, context).await.map(|_| ())
    }
}

#[async_trait]
impl Fences for Fencing {
    async fn fence(&self, inode: InodeId, blocks: &[BlockId], generation: u32) -> Result<()> {
        if is_planted(Bug::LeaseGivenUnfenced) {
            return Ok(());
        }
        let give_up = self.clock.now() + LIMIT;
        let mut have = BTreeSet::new();
        loop {
            let open = self.round(blocks, generation, &mut have).await?;
            let now = self.clock.now();
            let Some(last) = open.iter().max_by_key(|open| open.until) else {
                return Ok(());
            };
            if last.until > give_up || now >= give_up {
                let who = last.worker.map_or_else(
                    || "a worker that has not registered".to_owned(),
                    |id| format!("worker {id}"),
                );
                return Err(Error::new(
                    ErrorKind::BlockUnavailable,
                    format!(
                        "inode {inode}: its last writer vanished, and {who} may still take writes from it; try again, or \
                         see `cv report`"
                    ),
                ));
            }
            sleep(PAUSE.min(last.until.saturating_duration_since(now))).await;
        }
    }
}
