//! One way to call an actor, wherever it lives.
//!
//! A caller holds an `Arc<dyn MasterPort>` or `Arc<dyn WorkerPort>` and asks it. Behind it is a local actor's `Addr`,
//! a struct that routes to several local actors, or the `Addr<Peer>` of a remote node: the wiring's business.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use bytes::{Bytes, BytesMut};
use curvine_protocol::{
    Call, CallContext, Error, ErrorKind, Result, WorkerId, for_master_calls, for_worker_calls,
};
use futures::future::BoxFuture;

/// A call on its way to the actor that answers it.
#[derive(Clone, Debug)]
pub struct Ask<C> {
    pub call: C,
    pub context: CallContext,
    /// Raw bytes that travel with the call; empty for most.
    pub body: Bytes,
}

impl<C: Call> Ask<C> {
    pub fn new(call: C, context: CallContext) -> Self {
        Ask {
            call,
            context,
            body: Bytes::new(),
        }
    }

    pub fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

impl<C: Call> Message for Ask<C> {
    type Result = Result<Answer<C>>;
}

/// The reply to a call, with the raw bytes that travel with it.
#[derive(Clone, Debug)]
pub struct Answer<C: Call> {
    pub reply: C::Reply,
    pub body: Body,
}

impl<C: Call> Answer<C> {
    pub fn new(reply: C::Reply) -> Self {
        Answer {
            reply,
            body: Body::Bytes(Bytes::new()),
        }
    }

    pub fn with_body(reply: C::Reply, body: Body) -> Self {
        Answer { reply, body }
    }
}

/// Bytes of a reply: in memory, or a grant on a range of an open file. Whoever moves the bytes (the connection's
/// task with `sendfile`, a local reader with `pread`) takes them from there; they never pass a mailbox.
#[derive(Clone, Debug)]
pub enum Body {
    Bytes(Bytes),
    File(FileRange),
}

/// A grant: `len_bytes` from `offset_bytes` on of an open file. Holding it keeps the file's data alive.
#[derive(Clone, Debug)]
pub struct FileRange {
    pub file: Arc<File>,
    pub offset_bytes: u64,
    pub len_bytes: u32,
}

impl Body {
    pub fn len(&self) -> usize {
        match self {
            Body::Bytes(bytes) => bytes.len(),
            Body::File(range) => range.len_bytes as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in memory; reads a file grant with `pread`. Blocks on the disk: not for async handlers.
    ///
    /// # Errors
    /// `Io`, also when the file is shorter than the grant.
    pub fn read(self) -> Result<Bytes> {
        match self {
            Body::Bytes(bytes) => Ok(bytes),
            Body::File(range) => {
                let mut buffer = BytesMut::zeroed(range.len_bytes as usize);
                range
                    .file
                    .read_exact_at(&mut buffer, range.offset_bytes)
                    .map_err(|e| {
                        Error::new(
                            ErrorKind::Io,
                            format!("reading {} bytes at {}: {e}", range.len_bytes, range.offset_bytes),
                        )
                    })?;
                Ok(buffer.freeze())
            }
        }
    }
}

/// Where calls of type `C` can be made.
pub trait Endpoint<C: Call>: Send + Sync {
    /// Makes the call. The future is bounded: by the context's deadline, or the callee's default.
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>>;
}

impl<C, A> Endpoint<C> for Addr<A>
where
    C: Call,
    A: Actor + Handler<Ask<C>>,
    A::Context: ToEnvelope<A, Ask<C>>,
{
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let sent = self.send(ask);
        Box::pin(async move {
            sent.await.unwrap_or_else(|error| {
                Err(Error::new(
                    ErrorKind::Stopping,
                    format!("{}: the actor has stopped ({error})", C::NAME),
                ))
            })
        })
    }
}

macro_rules! service {
    ($(#[$doc:meta])* $port:ident ; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
        $(#[$doc])*
        pub trait $port: Send + Sync $(+ Endpoint<curvine_protocol::master_or_worker::$call>)* {}
        impl<T> $port for T where T: Send + Sync $(+ Endpoint<curvine_protocol::master_or_worker::$call>)* {}
    };
}

for_master_calls!(
    service,
    #[doc = "A master, local or remote: answers every call of the master service."]
    MasterPort
);
for_worker_calls!(
    service,
    #[doc = "A worker, local or remote: answers every call of the worker service."]
    WorkerPort
);

pub type MasterRef = Arc<dyn MasterPort>;
pub type WorkerRef = Arc<dyn WorkerPort>;

/// Makes the port of a worker: the local one, or a proxy for its address. Asked from any thread.
pub trait WorkerConnector: Send + Sync {
    fn connect(&self, id: WorkerId, address: &str) -> WorkerRef;
}

/// Makes a call without a body and returns the reply alone.
pub async fn call<C: Call, P: Endpoint<C> + ?Sized>(
    port: &P,
    call: C,
    context: CallContext,
) -> Result<C::Reply> {
    Ok(Endpoint::<C>::ask(port, Ask::new(call, context)).await?.reply)
}
