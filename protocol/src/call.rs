//! What a call is: a typed request with a code, and its typed reply.

use std::fmt::Debug;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ids::ClientId;

/// A request that one node can make of another. The same type is used locally and remotely.
pub trait Call: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + Unpin + 'static {
    /// The code on the wire. Unique for ever.
    const CODE: u16;
    /// The name in logs and metrics.
    const NAME: &'static str;
    type Reply: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + Unpin + 'static;

    /// Most bytes that the body of the reply may have, for whoever must have room for it.
    fn reply_body_bytes_max(&self) -> usize {
        0
    }
}

/// The reply that says no more than that it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Who calls, and which of its calls this is. Travels in every frame's header.
///
/// Every mutation of a client has its own `sequence`, from 1 upward, kept over retries: the master remembers the
/// replies of a client's sequences that are not below `acked_below`, and answers a retry from memory. What comes below
/// that, or after the session has ended, is refused.
/// `sequence` 0 means: not a mutation, or one that needs no de-duplication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    pub client: ClientId,
    pub sequence: u64,
    /// The client has the replies of all its sequences below this one.
    pub acked_below: u64,
    /// How long the caller waits for the reply, in milliseconds from now; 0 = the server's default.
    pub deadline_ms: u32,
    /// On behalf of whom. New inodes belong to them.
    pub uid: u32,
    pub gid: u32,
    /// Look-ups, listings, extended attributes and paths may be answered by a master that does not lead, from the state
    /// that it has: one that some leader acknowledged, of any age. Without effect on every other call.
    #[serde(default)]
    pub stale: bool,
    /// On which host the caller is, as [`Labels::host_key`](crate::cluster::Labels::host_key) names it; 0: it does not say.
    /// What is near is preferred: workers to write new blocks to, and to read from.
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub near: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_unsaid(near: &u32) -> bool {
    *near == 0
}

/// Makes [`Call`]s of the rows of a service: `code => Request -> Reply`, and how long the reply's body may be if it has
/// one.
macro_rules! calls {
    (; $($code:literal => $call:ident -> $reply:ident { $(body: |$this:ident| $bytes:expr)? };)*) => {$(
        impl $crate::call::Call for $call {
            const CODE: u16 = $code;
            const NAME: &'static str = stringify!($call);
            type Reply = $reply;
            $(
                fn reply_body_bytes_max(&self) -> usize {
                    let $this = self;
                    $bytes
                }
            )?
        }
    )*};
}
pub(crate) use calls;
