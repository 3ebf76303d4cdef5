//! Calls of workers: registration, heartbeats, block reports, what they ask about files and mounts.

use std::sync::Arc;

use curvine_protocol::master::*;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::worker::Done;
use curvine_protocol::{CallContext, Error, ErrorKind, FileLayout, Result, WorkerId};

use super::{Parts, ServiceCall};
use crate::master::blocks::WorkerEntry;

impl Parts {
    fn known(&self, worker: WorkerId, token: u64) -> Result<()> {
        match self.blocks.cluster().knows(worker, token) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::NotPermitted,
                format!("worker {worker} is not registered with this master, or has registered again since"),
            )),
        }
    }
}

impl ServiceCall for RegisterWorker {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<WorkerRegistered> {
        parts.consensus.read_barrier().await?;
        let cluster = parts
            .view
            .cluster()?
            .ok_or_else(|| Error::internal("the cluster has no id yet"))?;
        if let Some(theirs) = call.cluster
            && theirs != cluster
        {
            return Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "the worker at {} belongs to cluster {theirs}, this is cluster {cluster}; give it another data directory",
                    call.address
                ),
            ));
        }
        let worker = match call.worker {
            Some(worker) => worker,
            None => match parts
                .propose
                .propose_op(Op::AddWorker {
                    address: call.address.clone(),
                })
                .await?
            {
                OpReply::Worker(worker) => worker,
                other => return Err(Error::internal(format!("the reply to AddWorker is {other:?}"))),
            },
        };
        let token = parts.ports.random.next_u64() | 1;
        let entry = WorkerEntry {
            address: call.address,
            token,
            disks: call.disks,
            version: call.version,
            last_heartbeat: parts.blocks.now(),
            reported: false,
        };
        parts.blocks.cluster().register(worker, entry);
        Ok(WorkerRegistered {
            worker,
            cluster,
            token,
        })
    }
}

impl ServiceCall for WorkerHeartbeat {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<HeartbeatOrders> {
        parts.consensus.read_barrier().await?;
        let now = parts.blocks.now();
        let known = parts
            .blocks
            .cluster()
            .heartbeat(call.worker, call.token, call.disks, now);
        Ok(HeartbeatOrders { register: !known })
    }
}

impl ServiceCall for ReportBlocks {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<ReportAnswer> {
        parts.consensus.read_barrier().await?;
        parts.known(call.worker, call.token)?;
        if call.full_start {
            parts.blocks.cluster().forget_blocks_of(call.worker);
        }
        let view = parts.view.clone();
        let delete = parts
            .blocks
            .report(call.worker, &call.stored, &call.removed, |replica| {
                // A replica of an older generation missed an overwrite.
                Ok(view
                    .block_owner(replica.id)?
                    .is_some_and(|(_, _, block)| replica.generation >= block.generation))
            })?;
        if call.full_end {
            parts.blocks.cluster().fully_reported(call.worker);
        }
        Ok(ReportAnswer { delete })
    }
}

impl ServiceCall for ResolveMount {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<MountSecret> {
        parts.consensus.read_barrier().await?;
        parts.known(call.worker, call.token)?;
        let record = parts.view.mount(call.mount)?;
        let record = record.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("mount {} no longer exists", call.mount),
            )
        })?;
        Ok(MountSecret { record })
    }
}

impl ServiceCall for DescribeFile {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<FileLayout> {
        parts.consensus.read_barrier().await?;
        parts.known(call.worker, call.token)?;
        parts.view.layout(call.inode)
    }
}

impl ServiceCall for ReportUfsChanged {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<Done> {
        parts.consensus.read_barrier().await?;
        parts.mirror.doubt(call.inode).await?;
        Ok(Done {})
    }
}
