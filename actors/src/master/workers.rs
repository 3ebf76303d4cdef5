//! How a master reaches its workers.

use std::sync::Arc;

use curvine_protocol::worker::DeleteBlocks;
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, Result, WorkerId};

use super::blocks::BlockMap;
pub use crate::kit::WorkerConnector;
use crate::kit::{WorkerRef, call};
use crate::planted::{Bug, is_planted};

/// The ports of the workers that are registered. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    blocks: Arc<BlockMap>,
    connector: Arc<dyn WorkerConnector>,
}

impl Workers {
    pub fn new(blocks: Arc<BlockMap>, connector: Arc<dyn WorkerConnector>) -> Self {
        Workers { blocks, connector }
    }

    /// Tells a worker to delete blocks, and waits until it has. One that does not take the order is told when it has
    /// registered again.
    pub async fn delete(&self, worker: WorkerId, blocks: Vec<BlockId>) {
        let Some(port) = self.port(worker) else {
            return;
        };
        if let Err(error) = call(&*port, DeleteBlocks { blocks }, CallContext::default()).await {
            tracing::debug!(%worker, %error, "a worker did not take a deletion; its next report brings it up");
            if !is_planted(Bug::DeletionsAreToldOnce) {
                self.blocks.untold(worker);
            }
        }
    }

    /// [`Workers::port`], for who needs it.
    ///
    /// # Errors
    /// `BlockUnavailable` if it is not registered.
    pub fn reach(&self, id: WorkerId) -> Result<WorkerRef> {
        self.port(id).ok_or_else(|| gone(id))
    }

    /// The port of a worker that is registered.
    pub fn port(&self, id: WorkerId) -> Option<WorkerRef> {
        let address = self.blocks.cluster().roster.address(id)?;
        Some(self.connector.connect(id, &address))
    }
}

/// A worker is not registered any more.
pub fn gone(id: WorkerId) -> Error {
    Error::new(
        ErrorKind::BlockUnavailable,
        format!("worker {id} is gone; trying another"),
    )
}
