//! Replicas of which there are too many: the worker's own goes once others have said to have the same.
//!
//! Invariant: a replica goes only while as many others are there as the file wants, whatever orders come late, twice or from
//! several leaders at once. Let each worker that sheds a block have a *window*: it begins before it asks any keeper, and ends
//! when its replica is gone or is to stay. A worker confirms nothing within its own window. So whoever confirms has its
//! replica at that moment and begins its window later, if ever. Of all that shed the block, look at the one whose window
//! begins last: its keepers confirm after that, and none of them begins one any more. So they stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::worker::{
    ConfirmReplicas, ReplicaSum, ReplicasConfirmed, SHED_MAX, ShedReplicas, SurplusReplica,
};
use curvine_protocol::{BlockId, BlockRef, Error, ErrorKind, Result, WorkerId};
use futures::future::join_all;
use tokio::sync::watch;

use super::disk::Removal;
use super::disks::{Disks, Gate, Moving, stopping};
use super::membership::{Session, unregistered};
use crate::kit::deadlines::of_replicas;
use crate::kit::{WorkerConnector, call};
use crate::planted::{Bug, is_planted};

/// Cheap to clone.
#[derive(Clone)]
pub struct Shedding {
    disks: Disks,
    peers: Arc<dyn WorkerConnector>,
    session: watch::Receiver<Option<Session>>,
    /// Who confirms a block is in it; who sheds one has it for itself.
    windows: Arc<Gate>,
}

/// A replica that may go, in the window that lasts as long as this, and what others must have instead.
struct Window {
    surplus: SurplusReplica,
    own: ReplicaSum,
    _lasts: Moving,
}

impl Shedding {
    pub fn new(
        disks: Disks,
        peers: Arc<dyn WorkerConnector>,
        session: watch::Receiver<Option<Session>>,
    ) -> Self {
        Shedding {
            disks,
            peers,
            session,
            windows: Arc::default(),
        }
    }

    /// Lets replicas go of which others have enough. Which have gone, or were not here.
    ///
    /// # Errors
    /// `InvalidArgument` for more than it takes or a block without other keepers; `Io` of the disk.
    pub async fn shed(&self, order: ShedReplicas) -> Result<Vec<bool>> {
        let own = self.own_id()?;
        check(&order, own)?;
        let blocks: Vec<BlockId> = order.blocks.iter().map(|surplus| surplus.block.id).collect();
        let mut windows = Vec::new();
        for surplus in order.blocks {
            let Some(lasts) = self.windows.try_move(surplus.block.id) else {
                continue;
            };
            if let Some(own) = self.disks.confirm(&surplus.block).await? {
                windows.push(Window {
                    surplus,
                    own,
                    _lasts: lasts,
                });
            }
        }
        let said = self.ask(&windows, &order.workers).await;
        windows.retain(|window| {
            let mut keepers = window.surplus.keepers.iter();
            let same = |keeper: &WorkerId| said.get(&(*keeper, window.surplus.block.id)) == Some(&window.own);
            is_planted(Bug::ShedsUnasked) || keepers.all(same)
        });
        self.remove(windows).await?;
        let mut went = Vec::with_capacity(blocks.len());
        for block in blocks {
            went.push(self.disks.holder(block)?.is_none());
        }
        Ok(went)
    }

    /// What every keeper has.
    async fn ask(
        &self,
        windows: &[Window],
        workers: &[WorkerAddress],
    ) -> BTreeMap<(WorkerId, BlockId), ReplicaSum> {
        let mut of_keeper = BTreeMap::<WorkerId, Vec<BlockRef>>::new();
        for window in windows {
            for keeper in &window.surplus.keepers {
                of_keeper.entry(*keeper).or_default().push(window.surplus.block);
            }
        }
        let asked = of_keeper.into_iter().filter_map(|(keeper, blocks)| {
            let known = workers.iter().find(|worker| worker.id == keeper)?;
            let port = self.peers.connect(keeper, &known.address);
            Some(async move {
                let confirm = ConfirmReplicas {
                    blocks: blocks.clone(),
                };
                let len_bytes = blocks.iter().map(|block| block.len_bytes).sum();
                let said = call(&*port, confirm, of_replicas(len_bytes)).await;
                (keeper, blocks, said)
            })
        });
        let mut has = BTreeMap::new();
        for (keeper, blocks, said) in join_all(asked).await {
            match said {
                Ok(said) if said.worker == keeper => {
                    let found = blocks.iter().zip(said.replicas);
                    has.extend(found.filter_map(|(block, sum)| Some(((keeper, block.id), sum?))));
                }
                Ok(said) => {
                    tracing::warn!("worker {} answers at the address of worker {keeper}", said.worker);
                }
                Err(error) => tracing::debug!(%error, "worker {keeper} confirms no replicas"),
            }
        }
        has
    }

    /// The windows end when the disks have done it, also if nobody waits for that any more.
    async fn remove(&self, windows: Vec<Window>) -> Result<()> {
        let removals = windows.iter().map(|window| Removal {
            block: window.surplus.block.id,
            upto_generation: Some(window.own.generation),
        });
        let (disks, removals) = (self.disks.clone(), removals.collect());
        let removing = tokio::spawn(async move {
            let removed = disks.remove(removals).await;
            drop(windows);
            removed
        });
        removing.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// What is here, verified, of blocks that another worker is to shed.
    ///
    /// # Errors
    /// `InvalidArgument` for more than it takes; `Io` of the disk.
    pub async fn confirm(&self, asked: ConfirmReplicas) -> Result<ReplicasConfirmed> {
        check_count(asked.blocks.len())?;
        let worker = self.own_id()?;
        let mut replicas = Vec::with_capacity(asked.blocks.len());
        for block in &asked.blocks {
            replicas.push(self.confirm_one(block).await?);
        }
        Ok(ReplicasConfirmed { worker, replicas })
    }

    async fn confirm_one(&self, block: &BlockRef) -> Result<Option<ReplicaSum>> {
        let entered = self.windows.try_enter(block.id);
        if entered.is_none() && !is_planted(Bug::ConfirmsWhatItSheds) {
            return Ok(None);
        }
        match self.disks.is_right(block).await? {
            true => self.disks.confirm(block).await,
            false => Ok(None),
        }
    }

    fn own_id(&self) -> Result<WorkerId> {
        let session = *self.session.borrow();
        session.map(|session| session.worker).ok_or_else(unregistered)
    }
}

fn check_count(count: usize) -> Result<()> {
    match count <= SHED_MAX {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{count} blocks in one call about surplus replicas; at most {SHED_MAX} are taken"),
        )),
    }
}

/// Nobody is his own keeper, or two.
fn check(order: &ShedReplicas, own: WorkerId) -> Result<()> {
    check_count(order.blocks.len())?;
    for SurplusReplica { block, keepers } in &order.blocks {
        let others: BTreeSet<_> = keepers.iter().filter(|keeper| **keeper != own).collect();
        if others.is_empty() || others.len() != keepers.len() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "block {} is to be shed by worker {own} for the sake of {keepers:?}",
                    block.id
                ),
            ));
        }
    }
    Ok(())
}
