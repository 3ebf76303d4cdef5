//! The door: one `MasterPort` in front of the actors that answer its calls.

use curvine_protocol::master::*;
use curvine_protocol::{Call, Result, for_master_calls};
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

fn count<C: Call>() {
    metrics::counter!("curvine_master_calls", "call" => C::NAME).increment(1);
}

/// To each call's `by`: the field that answers.
macro_rules! routes {
    (; $($code:literal => $call:ident -> $reply:ident { by: $by:ident, $($rest:tt)* };)*) => {
        $(routes!(@$by $call);)*
    };
    (@services $call:ident) => {
        routes!(@through services $call, S: Endpoint<$call>);
    };
    (@$field:ident $call:ident) => {
        routes!(@through $field $call, S: Send + Sync);
    };
    (@through $field:ident $call:ident, $($bound:tt)*) => {
        impl<$($bound)*> Endpoint<$call> for MasterDoor<S> {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                count::<$call>();
                self.$field.ask(ask)
            }
        }
    };
}
for_master_calls!(routes);
