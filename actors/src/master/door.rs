//! The door: one `MasterPort` in front of the actors that answer its calls.

use curvine_protocol::master::*;
use curvine_protocol::{Call, Result};
use futures::future::BoxFuture;

use super::answers::Family;
use super::answers::cluster::ClusterAnswers;
use super::answers::jobs::JobAnswers;
use super::answers::mounts::MountAnswers;
use super::answers::workers::WorkerAnswers;
use super::namespace::actor::NamespacePort;
use super::replica::ReplicaPort;
use crate::kit::{Answer, Ask, Endpoint};

/// Routes each call of the master service to its owner.
#[derive(Clone)]
pub struct MasterDoor {
    pub namespace: NamespacePort,
    pub cluster: Family<ClusterAnswers>,
    pub mounts: Family<MountAnswers>,
    pub jobs: Family<JobAnswers>,
    pub workers: Family<WorkerAnswers>,
    pub replica: ReplicaPort,
}

macro_rules! routes {
    ($field:ident : $($call:ident),*) => {$(
        impl Endpoint<$call> for MasterDoor {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                count::<$call>();
                self.$field.ask(ask)
            }
        }
    )*};
}

fn count<C: Call>() {
    metrics::counter!("curvine_master_calls", "call" => C::NAME).increment(1);
}

routes!(namespace :
    Echo, Lookup, ListDir, OpenFile, GetXattr, ListXattrs, GetPath, MakeDir, CreateFile, MakeNode, OpenForWrite,
    AllocateBlocks, CommitFile, SetAttr, Rename, Unlink, RemoveDir, Delete, MakeSymlink, MakeLink, SetXattr,
    RemoveXattr, ReleaseInode, RenewSession, EndSession
);
routes!(replica : AddMaster, RemoveMaster, TransferLeadership, TakeSnapshot, OpenBackup, ReadBackup, RaftMessage);
routes!(cluster : Summarize, StatFs, GetRoutes, GetClusterStatus);
routes!(mounts : ListMounts, MountUfs, UnmountUfs, FreeCache, PersistFile);
routes!(jobs : GetJob, ListJobs, SubmitLoad, CancelJob);
routes!(workers : RegisterWorker, WorkerHeartbeat, ReportBlocks, ResolveMount, DescribeFile, ReportUfsChanged);
