//! What a master does besides the namespace: workers, mounts, jobs, the state of the cluster.
//!
//! One actor in front of the parts; each file answers one family of calls. Owns nothing itself: workers and
//! locations are the [`BlockMap`]'s, mounts and jobs are in the namespace, running loads the loader's.

mod cluster;
pub mod loader;
mod mounts;
#[cfg(test)]
mod tests;
pub mod ufs_view;
mod workers;

use std::future::Future;
use std::sync::Arc;

use actix::prelude::*;
use curvine_protocol::cluster::MasterStatus;
use curvine_protocol::worker::DeleteBlocks;
use curvine_protocol::{BlockId, Call, CallContext, NodeId, Result, WorkerId};
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use self::loader::Loader;
use self::ufs_view::Mirror;
use super::blocks::BlockMap;
use super::contract::{Consensus, NamespaceView, ProposeOp};
use crate::kit::{Answer, Ask, Ports, WorkerRef, call};

/// Makes the port of a worker: the local one, or a proxy for its address.
pub trait WorkerConnector: Send + Sync {
    fn connect(&self, id: WorkerId, address: &str) -> WorkerRef;
}

pub type Masters = Arc<dyn Fn() -> BoxFuture<'static, Vec<MasterStatus>> + Send + Sync>;

/// Everything the services can reach.
pub struct Parts {
    pub node: NodeId,
    pub started: Instant,
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub consensus: Arc<dyn Consensus>,
    pub blocks: Arc<BlockMap>,
    pub mirror: Arc<Mirror>,
    pub loader: Arc<Loader>,
    pub connector: Arc<dyn WorkerConnector>,
    /// The masters of the group, asked.
    pub masters: Masters,
    pub ports: Ports,
}

impl Parts {
    /// The port of a worker that is registered.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerRef> {
        let address = self.blocks.cluster().address(id)?;
        Some(self.connector.connect(id, &address))
    }
}

pub struct Services {
    parts: Arc<Parts>,
}

impl Services {
    pub fn new(parts: Arc<Parts>) -> Self {
        Services { parts }
    }
}

impl Actor for Services {
    type Context = Context<Self>;
}

/// A call that the services answer.
pub trait ServiceCall: Call {
    fn answer(
        parts: Arc<Parts>,
        call: Self,
        context: CallContext,
    ) -> impl Future<Output = Result<Self::Reply>> + Send;
}

impl<C: ServiceCall> Handler<Ask<C>> for Services {
    type Result = ResponseFuture<Result<Answer<C>>>;

    fn handle(&mut self, ask: Ask<C>, _context: &mut Self::Context) -> Self::Result {
        let parts = self.parts.clone();
        Box::pin(async move { C::answer(parts, ask.call, ask.context).await.map(Answer::new) })
    }
}

/// Carries out deletions as they come. What a worker does not hear now, it is told when it reports the block.
pub async fn delete_blocks(parts: Arc<Parts>, mut orders: UnboundedReceiver<(WorkerId, Vec<BlockId>)>) {
    const BLOCKS_PER_CALL: usize = 10_000;
    while let Some((worker, blocks)) = orders.recv().await {
        let Some(port) = parts.worker(worker) else {
            continue;
        };
        for blocks in blocks.chunks(BLOCKS_PER_CALL) {
            let order = DeleteBlocks {
                blocks: blocks.to_vec(),
            };
            if let Err(error) = call(&*port, order, CallContext::default()).await {
                tracing::debug!(%worker, %error, "a worker did not take a deletion; its next report brings it up");
            }
        }
    }
}
