//! The door: one `MasterPort` in front of the actors that answer its calls.

use curvine_protocol::master::*;
use curvine_protocol::{Call, Result};
use futures::future::BoxFuture;

use super::namespace::actor::NamespacePort;
use super::replica::ReplicaPort;
use crate::kit::{Answer, Ask, Endpoint};

/// Routes each call of the master service to its owner. `S` answers for the workers, mounts and jobs.
#[derive(Clone)]
pub struct MasterDoor<S> {
    pub namespace: NamespacePort,
    pub services: S,
    pub replica: ReplicaPort,
}

macro_rules! routes {
    ($field:ident : $($call:ident),*) => {$(
        impl<S: Endpoint<$call>> Endpoint<$call> for MasterDoor<S> {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                count::<$call>();
                self.$field.ask(ask)
            }
        }
    )*};
    ($field:ident alone : $($call:ident),*) => {$(
        impl<S: Send + Sync> Endpoint<$call> for MasterDoor<S> {
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

routes!(namespace alone :
    Echo, Lookup, ListDir, OpenFile, GetXattr, ListXattrs, GetPath, MakeDir, CreateFile, MakeNode, OpenForWrite,
    AllocateBlocks, CommitFile, SetAttr, Rename, Unlink, RemoveDir, Delete, MakeSymlink, MakeLink, SetXattr,
    RemoveXattr, ReleaseInode, RenewSession, EndSession
);

routes!(replica alone : AddMaster, RemoveMaster, TransferLeadership, TakeSnapshot, OpenBackup, ReadBackup, RaftMessage);

routes!(services :
    Summarize, StatFs, GetRoutes, GetClusterStatus, ListMounts, GetJob, ListJobs, MountUfs, UnmountUfs, SubmitLoad,
    CancelJob, FreeCache, PersistFile, RegisterWorker, WorkerHeartbeat, ReportBlocks, ResolveMount, DescribeFile,
    ReportUfsChanged
);
