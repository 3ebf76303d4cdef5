//! The door: one `MasterPort` in front of the parts of a master that answer its calls.

use curvine_protocol::master::*;
use curvine_protocol::{Result, for_master_calls};
use futures::future::BoxFuture;

use super::answers::Family;
use super::answers::cluster::ClusterAnswers;
use super::answers::jobs::JobAnswers;
use super::answers::mounts::MountAnswers;
use super::answers::news::NewsAnswers;
use super::answers::workers::WorkerAnswers;
use super::namespace::actor::NamespacePort;
use super::replica::ReplicaPort;
use crate::kit::{Answer, Ask, Endpoint};

/// Routes each call of the master service to the field that its row names.
#[derive(Clone)]
pub struct MasterDoor {
    pub namespace: NamespacePort,
    pub cluster: Family<ClusterAnswers>,
    pub mounts: Family<MountAnswers>,
    pub jobs: Family<JobAnswers>,
    pub news: Family<NewsAnswers>,
    pub workers: Family<WorkerAnswers>,
    pub replica: ReplicaPort,
}

/// To each call's `by`: the field that answers.
macro_rules! routes {
    (; $($code:literal => $call:ident -> $reply:ident { by: $by:ident, $($rest:tt)* };)*) => {$(
        impl Endpoint<$call> for MasterDoor {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                self.$by.ask(ask)
            }
        }
    )*};
}
for_master_calls!(routes);
