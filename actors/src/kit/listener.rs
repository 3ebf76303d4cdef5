//! The listener: answers the calls of remote nodes by asking a local port.
//!
//! A connection has a reader, which admits calls, and a writer. A call runs as a task of its own, so a slow one
//! delays nobody; when too many are in flight the reader stops reading and the sender feels it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::codec::decode;
use curvine_protocol::frame::{FrameKind, Prefix};
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result, for_master_calls, for_worker_calls};
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::network::{Accept, Stream as Connection};
use super::port::{Ask, Body, Endpoint, MasterRef, WorkerRef};
use super::ports::Ports;
use super::wire::{FrameReader, Outgoing, write_frames};

/// What one listener admits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Calls in flight on one connection.
    pub in_flight_max: usize,
    /// How long a new connection may stay silent.
    pub first_frame: Duration,
    /// How long a call may take whose context names no deadline.
    pub call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 4_096,
            in_flight_max: 512,
            first_frame: Duration::from_secs(10),
            call: Duration::from_secs(60),
        }
    }
}

/// A running listener. Dropping it stops accepting and ends its connections.
pub struct Serving {
    address: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    /// The address that is listened on, with its real port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops accepting and reading; waits for the replies of calls in flight, at most `patience`.
    pub async fn stop(self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(patience, self.tasks.wait()).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves a master's port on an address, in the current runtime.
///
/// # Errors
/// As [`bind`].
pub async fn serve_master(port: MasterRef, address: &str, limits: Limits, ports: &Ports) -> Result<Serving> {
    Ok(bind(address, ports).await?.serve_master(port, limits))
}

/// Serves a worker's port on an address, in the current runtime.
///
/// # Errors
/// As [`bind`].
pub async fn serve_worker(port: WorkerRef, address: &str, limits: Limits, ports: &Ports) -> Result<Serving> {
    Ok(bind(address, ports).await?.serve_worker(port, limits))
}

/// An address that is ours but not served yet: whoever connects waits. For nodes that must know their address before
/// they can answer.
pub struct Bound(Box<dyn Accept>);

/// Takes an address.
///
/// # Errors
/// `Busy` if the address is in use, naming it; otherwise as the system says.
pub async fn bind(address: &str, ports: &Ports) -> Result<Bound> {
    ports.network.listen(address).await.map(Bound).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::new(
            ErrorKind::Busy,
            format!("{address} is in use by another process; stop it or choose another --listen address (port 0 picks a free one)"),
        ),
        _ => Error::from(error).while_doing(format_args!("listening on {address}")),
    })
}

impl Bound {
    /// The address with its real port.
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Serves a master's port, in the current runtime.
    pub fn serve_master(self, port: MasterRef, limits: Limits) -> Serving {
        serve(
            self.0,
            Arc::new(move |call| Box::pin(dispatch_master(port.clone(), call))),
            limits,
        )
    }

    /// Serves a worker's port, in the current runtime.
    pub fn serve_worker(self, port: WorkerRef, limits: Limits) -> Serving {
        serve(
            self.0,
            Arc::new(move |call| Box::pin(dispatch_worker(port.clone(), call))),
            limits,
        )
    }
}

/// A call as it came out of its frame.
struct RemoteCall {
    prefix: Prefix,
    header: Bytes,
    body: Bytes,
    /// If the context names none.
    deadline: Duration,
}

type Dispatch = Arc<dyn Fn(RemoteCall) -> BoxFuture<'static, Result<Outgoing>> + Send + Sync>;

macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident $port:ty ; $($call:ident),*) => {
        $(#[$doc])*
        async fn $name(port: $port, call: RemoteCall) -> Result<Outgoing> {
            use curvine_protocol::master_or_worker::*;
            match call.prefix.code {
                $(<$call as Call>::CODE => answer::<$call, _>(&*port, call).await,)*
                code => Err(Error::new(
                    ErrorKind::Protocol,
                    format!("call code {code} is not one of this service; is this the right port, and as new as you?"),
                )),
            }
        }
    };
}

for_master_calls!(dispatch, dispatch_master MasterRef);
for_worker_calls!(dispatch, dispatch_worker WorkerRef);

async fn answer<C: Call, P: Endpoint<C> + ?Sized>(port: &P, call: RemoteCall) -> Result<Outgoing> {
    let (context, typed) = decode::<(CallContext, C)>(&call.header)?;
    let deadline = match context.deadline_ms {
        0 => call.deadline,
        ms => Duration::from_millis(ms.into()),
    };
    let asked = port.ask(Ask {
        call: typed,
        context,
        body: call.body,
    });
    let answer = timeout(deadline, asked).await.map_err(|_| {
        Error::new(
            ErrorKind::Timeout,
            format!("{} took longer than {} ms", C::NAME, deadline.as_millis()),
        )
    })??;
    Outgoing::new(
        FrameKind::Reply,
        C::CODE,
        call.prefix.request_id,
        &answer.reply,
        answer.body,
    )
}

fn serve(accept: Box<dyn Accept>, dispatch: Dispatch, limits: Limits) -> Serving {
    let serving = Serving {
        address: accept.address(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let accepting = accept_connections(
        accept,
        dispatch,
        limits,
        serving.stop.clone(),
        serving.tasks.clone(),
    );
    serving.tasks.spawn(accepting);
    serving
}

async fn accept_connections(
    mut accept: Box<dyn Accept>,
    dispatch: Dispatch,
    limits: Limits,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => return,
            connection = accept.accept() => connection,
        };
        match connection {
            Ok(connection) => {
                let Ok(slot) = slots.clone().try_acquire_owned() else {
                    tracing::warn!(
                        peer = connection.peer,
                        max = limits.connections_max,
                        "too many connections"
                    );
                    continue;
                };
                let (dispatch, stop) = (dispatch.clone(), stop.clone());
                tasks.spawn(async move {
                    let peer = connection.peer.clone();
                    if let Err(error) = serve_connection(connection, dispatch, limits, stop).await {
                        tracing::debug!(peer, %error, "connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others are served meanwhile, and closing frees some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(
    connection: Connection,
    dispatch: Dispatch,
    limits: Limits,
    stop: CancellationToken,
) -> Result<()> {
    let (replies, outgoing) = mpsc::unbounded_channel();
    let mut writing = tokio::spawn(write_frames(connection.writer, outgoing));
    let mut reader = FrameReader::new(connection.reader);
    let in_flight = Arc::new(Semaphore::new(limits.in_flight_max));
    let mut silent = true;
    let ended = loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
            _ = &mut writing => return Ok(()),
            frame = reader.next() => frame,
            () = tokio::time::sleep(limits.first_frame), if silent => {
                break Err(Error::new(ErrorKind::Timeout, "no call arrived on the new connection"));
            }
        };
        silent = false;
        let frame = match frame {
            Ok(Some(frame)) if frame.prefix.kind == FrameKind::Request => frame,
            Ok(Some(frame)) => {
                break Err(Error::new(
                    ErrorKind::Protocol,
                    format!("a {:?} is not a request", frame.prefix.kind),
                ));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let permit = in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let call = RemoteCall {
            prefix: frame.prefix,
            header: frame.header,
            body: frame.body,
            deadline: limits.call,
        };
        let (answering, replies) = (dispatch(call), replies.clone());
        tokio::spawn(async move {
            let reply = answering
                .await
                .unwrap_or_else(|error| failure(frame.prefix, &error));
            let _ = replies.send(reply);
            drop(permit);
        });
    };
    if let Err(error) = &ended {
        let goodbye = Outgoing::new(FrameKind::Goodbye, 0, 0, error, Body::Bytes(Bytes::new()))?;
        let _ = replies.send(goodbye);
    }
    // The writer ends when the last call in flight has dropped its sender.
    drop(replies);
    let _ = writing.await;
    ended
}

fn failure(prefix: Prefix, error: &Error) -> Outgoing {
    Outgoing::new(
        FrameKind::Failure,
        prefix.code,
        prefix.request_id,
        error,
        Body::Bytes(Bytes::new()),
    )
    .expect("an error fits in a frame")
}
