//! How a master reaches its workers.

use std::sync::Arc;

use curvine_protocol::WorkerId;

use super::blocks::BlockMap;
use crate::kit::WorkerRef;

/// Makes the port of a worker: the local one, or a proxy for its address. Asked from any thread.
pub trait WorkerConnector: Send + Sync {
    fn connect(&self, id: WorkerId, address: &str) -> WorkerRef;
}

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

    /// A worker was not told of deletions.
    pub fn untold(&self, id: WorkerId) {
        self.blocks.untold(id);
    }

    /// The port of a worker that is registered.
    pub fn port(&self, id: WorkerId) -> Option<WorkerRef> {
        let address = self.blocks.cluster().roster.address(id)?;
        Some(self.connector.connect(id, &address))
    }
}
