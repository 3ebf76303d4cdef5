//! Calls about the cluster itself: its masters, its workers and their room.

use curvine_protocol::cluster::{ClusterStatus, WorkerService};
use curvine_protocol::master::{
    AddMaster, BalanceStatus, Echo, FsStats, GetBalance, GetClusterStatus, RemoveMaster, SetBalance,
    SetWorkerService, StatFs, TakeSnapshot, TransferLeadership,
};
use curvine_protocol::{Node, NodeId, Result, WorkerId};

use super::Client;

impl Client {
    /// Capacity and use of the cluster, in all and by tier.
    pub async fn statfs(&self) -> Result<FsStats> {
        self.call(StatFs::default()).await
    }

    /// The same; where a quota limits what may be below a directory, of that.
    ///
    /// # Errors
    /// As the call's.
    pub async fn statfs_at(&self, node: impl Into<Node>) -> Result<FsStats> {
        let node = Some(node.into());
        self.call(StatFs { node }).await
    }

    /// Masters and workers, as `cv report` shows them.
    pub async fn status(&self) -> Result<ClusterStatus> {
        self.call(GetClusterStatus {}).await
    }

    /// Makes a master that runs already, and names this group's masters as its peers, a voter once it is in step.
    ///
    /// # Errors
    /// `AlreadyExists`, `Unreachable`; `Config` if it is another one that answers there.
    pub async fn add_master(&self, id: NodeId, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.call(AddMaster { id, address }).await.map(|_| ())
    }

    /// Takes a master out of the group; it is to be stopped then.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the leader.
    pub async fn remove_master(&self, id: NodeId) -> Result<()> {
        self.call(RemoveMaster { id }).await.map(|_| ())
    }

    /// Has another master lead: this one, or any that has everything.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<()> {
        self.call(TransferLeadership { to }).await.map(|_| ())
    }

    /// Takes a snapshot of the namespace on the leader; says which log entry is the last in it.
    pub async fn take_snapshot(&self) -> Result<u64> {
        Ok(self.call(TakeSnapshot {}).await?.log_index)
    }

    /// Takes a worker out of service, or back into it.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`.
    pub async fn set_worker_service(&self, worker: WorkerId, service: WorkerService) -> Result<()> {
        self.call(SetWorkerService { worker, service }).await.map(|_| ())
    }

    /// Has the workers be balanced until none is off by more than so much of its capacity; none stops that.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn set_balance(&self, tolerance_percent: Option<u8>) -> Result<()> {
        self.call(SetBalance { tolerance_percent }).await.map(|_| ())
    }

    /// How full workers are, and how far balancing them is.
    pub async fn balance(&self) -> Result<BalanceStatus> {
        self.call(GetBalance {}).await
    }

    /// The floor under every other call.
    pub async fn echo(&self) -> Result<()> {
        self.call(Echo {}).await.map(|_| ())
    }
}
