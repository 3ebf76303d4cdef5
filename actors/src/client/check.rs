//! Looking whether all blocks are where they should be, and are what was written.

use bytes::Bytes;
use curvine_protocol::master::{
    CheckFiles, CheckHeld, Fault, FilesChecked, GetRoutes, HeldBlock, RepairNow, WronglyCached,
};
use curvine_protocol::worker::{BlockAccount, BlocksListed, DiskScrub, ExplainBlocks, ListBlocks, Scrub};
use curvine_protocol::{BlockId, Call, InodeId, Result, WorkerId};

use super::Client;
use crate::kit::{Endpoint, WorkerPort};

impl Client {
    /// Which blocks of these files, at most [`CHECKED_MAX`](curvine_protocol::master::CHECKED_MAX), have not the replicas that
    /// they should have.
    pub async fn check_files(&self, inodes: Vec<InodeId>) -> Result<FilesChecked> {
        self.call(CheckFiles { inodes }).await
    }

    /// What is wrong with replicas of a worker, in their order.
    pub async fn check_held(&self, held: Vec<HeldBlock>) -> Result<Vec<Option<Fault>>> {
        Ok(self.call(CheckHeld { held }).await?.faults)
    }

    /// Has replicas made that are missing, and what no file has deleted, now.
    pub async fn repair_now(&self, kept: Vec<WronglyCached>) -> Result<()> {
        self.call(RepairNow { kept }).await.map(drop)
    }

    /// A page of the blocks that a worker has on one of its data directories, counted from 0.
    ///
    /// # Errors
    /// `Unreachable`; `InvalidArgument` if it has no such directory; `Io`.
    pub async fn blocks_on(&self, worker: WorkerId, list: ListBlocks) -> Result<BlocksListed> {
        self.ask_worker(worker, list).await
    }

    /// What a worker has of blocks, at most [`EXPLAINED_MAX`](curvine_protocol::worker::EXPLAINED_MAX), and why not of others;
    /// in their order.
    ///
    /// # Errors
    /// `Unreachable`; `Io`.
    pub async fn explain_on(&self, worker: WorkerId, blocks: Vec<BlockId>) -> Result<Vec<BlockAccount>> {
        Ok(self.ask_worker(worker, ExplainBlocks { blocks }).await?.blocks)
    }

    /// How far a worker's scrubbers are; first, where a rate in bytes a second is given, they begin anew.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn scrub(&self, worker: WorkerId, start: Option<u64>) -> Result<Vec<DiskScrub>> {
        Ok(self.ask_worker(worker, Scrub { start }).await?.disks)
    }

    async fn ask_worker<C: Call>(&self, worker: WorkerId, call: C) -> Result<C::Reply>
    where
        dyn WorkerPort: Endpoint<C>,
    {
        let workers = self.call(GetRoutes {}).await?.workers;
        let port = self.router.worker(worker, &workers)?;
        Ok(self.router.ask_worker(&port, call, Bytes::new()).await?.reply)
    }
}
