//! The listener: answers the calls of remote nodes by asking a local port.
//!
//! Connections are spread over threads, where there are several. A connection has a reader, which admits calls, and a
//! writer. A call runs as a task of its own, so a slow one delays nobody. A call is in flight until its reply is written:
//! who asks and does not read gets no more answers.
//!
//! Invariants, whatever others send:
//! - Connections, calls in flight on each, and the bytes of requests and of replies in memory are limited ([`Limits`]);
//!   one connection or call too many is told `Overloaded` at the door.
//! - Nothing is waited for without a deadline: a first call, the rest of a frame, an answer, a reader of replies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::codec::decode;
use curvine_protocol::frame::{FrameKind, Prefix};
use curvine_protocol::number::to_u32;
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result, for_master_calls, for_worker_calls};
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::network::{Accept, Stream as Connection};
use super::port::{Ask, Body, Endpoint, MasterRef, WorkerRef};
use super::ports::{Clock, Ports};
use super::wire::{Budget, FrameReader, Incoming, Outgoing, write_frames};

/// Refusals on their way at a time: of connections, and of calls on one connection.
const REFUSALS_MAX: usize = 256;
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);

/// What one listener admits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Calls in flight on one connection.
    pub in_flight_max: usize,
    /// Bytes in memory of all requests, from their arrival to the end of their calls; at least one of the
    /// largest.
    pub request_bytes_max: usize,
    /// Bytes in memory of the bodies of all replies, from the beginning of their calls until they are written.
    pub reply_bytes_max: usize,
    /// How long a new connection may stay silent.
    pub first_frame: Duration,
    /// How long a call may take whose context names no deadline.
    pub call: Duration,
    /// How long a call may take at most, whatever its context names.
    pub call_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 4_096,
            in_flight_max: 512,
            request_bytes_max: 256 << 20,
            reply_bytes_max: 256 << 20,
            first_frame: Duration::from_secs(10),
            call: Duration::from_secs(60),
            call_max: Duration::from_secs(4 * 3_600),
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
pub struct Bound {
    accept: Box<dyn Accept>,
    clock: Arc<dyn Clock>,
    threads: Vec<Handle>,
}

/// Takes an address.
///
/// # Errors
/// `Busy` if the address is in use, naming it; otherwise as the system says.
pub async fn bind(address: &str, ports: &Ports) -> Result<Bound> {
    let bound = |accept| Bound {
        accept,
        clock: ports.clock.clone(),
        threads: Vec::new(),
    };
    ports.network.listen(address).await.map(bound).map_err(|error| match error.kind() {
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
        self.accept.address()
    }

    /// Serves connections on these threads in turn, each with its calls on one of them; without, all of them where it is
    /// served.
    pub fn spread_over(self, threads: &[Handle]) -> Bound {
        Bound {
            threads: threads.to_vec(),
            ..self
        }
    }

    /// Serves a master's port, in the current runtime.
    pub fn serve_master(self, port: MasterRef, limits: Limits) -> Serving {
        serve(
            self,
            Arc::new(move |call| Box::pin(dispatch_master(port.clone(), call))),
            limits,
        )
    }

    /// Serves a worker's port, in the current runtime.
    pub fn serve_worker(self, port: WorkerRef, limits: Limits) -> Serving {
        serve(
            self,
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
    limits: Limits,
    reply_bytes: Arc<Semaphore>,
}

impl RemoteCall {
    /// How long the call may take.
    fn deadline(&self, context: &CallContext) -> Duration {
        match context.deadline_ms {
            0 => self.limits.call,
            ms => Duration::from_millis(ms.into()).min(self.limits.call_max),
        }
    }

    /// Memory for the reply's body.
    async fn afford_reply(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes == 0 {
            return None;
        }
        let bytes = to_u32(bytes.min(self.limits.reply_bytes_max));
        let permit = self.reply_bytes.clone().acquire_many_owned(bytes).await;
        Some(permit.expect("a budget is never closed"))
    }
}

type Dispatch = Arc<dyn Fn(RemoteCall) -> BoxFuture<'static, Result<Outgoing>> + Send + Sync>;

macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident $port:ty ; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
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
    let deadline = call.deadline(&context);
    let answered = async {
        let room = call.afford_reply(typed.reply_body_bytes_max()).await;
        let answer = port.ask(Ask {
            call: typed,
            context,
            body: call.body.clone(),
        });
        Ok((answer.await?, room))
    };
    let (answer, room) = timeout(deadline, answered).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("{} took longer than {} ms", C::NAME, deadline.as_millis()),
        ))
    })?;
    // A file range is not in memory.
    let room = room.filter(|_| matches!(answer.body, Body::Bytes(_)));
    let reply = Outgoing::new(
        FrameKind::Reply,
        C::CODE,
        call.prefix.request_id,
        &answer.reply,
        answer.body,
    )?;
    Ok(match room {
        Some(room) => reply.holding(room),
        None => reply,
    })
}

fn serve(bound: Bound, dispatch: Dispatch, limits: Limits) -> Serving {
    let serving = Serving {
        address: bound.address(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let accepting = accept_connections(
        bound,
        dispatch,
        limits,
        serving.stop.clone(),
        serving.tasks.clone(),
    );
    serving.tasks.spawn(accepting);
    serving
}

async fn accept_connections(
    bound: Bound,
    dispatch: Dispatch,
    limits: Limits,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let Bound {
        mut accept,
        clock,
        threads,
    } = bound;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let door = Door {
        dispatch,
        limits,
        clock,
        request_bytes: Budget::new(limits.request_bytes_max),
        reply_bytes: Arc::new(Semaphore::new(limits.reply_bytes_max)),
        stop: stop.clone(),
    };
    let threads = match threads.is_empty() {
        true => vec![Handle::current()],
        false => threads,
    };
    let mut turns = threads.iter().cycle();
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => return,
            connection = accept.accept() => connection,
        };
        match connection {
            Ok(connection) => {
                let Ok(slot) = slots.clone().try_acquire_owned() else {
                    // Who comes while others are being refused is refused without a word.
                    if let Ok(refusal) = refusals.clone().try_acquire_owned()
                        && let Ok(connection) = connection.open()
                    {
                        tasks.spawn(refuse(connection, limits.connections_max, refusal));
                    }
                    continue;
                };
                let door = door.clone();
                let serving = async move {
                    match connection.open() {
                        Ok(connection) => {
                            let peer = connection.peer.clone();
                            if let Err(error) = door.serve(connection).await {
                                tracing::debug!(peer, %error, "connection ended");
                            }
                        }
                        Err(error) => tracing::debug!(%error, "connection ended before it began"),
                    }
                    drop(slot);
                };
                tasks.spawn_on(serving, turns.next().expect("a cycle of at least one"));
            }
            Err(error) => {
                // Out of descriptors, most likely: others are served meanwhile, and closing frees some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says why a connection is not served.
async fn refuse(connection: Connection, connections_max: usize, _refusal: OwnedSemaphorePermit) {
    tracing::warn!(
        peer = connection.peer,
        max = connections_max,
        "too many connections"
    );
    let full = Error::new(
        ErrorKind::Overloaded,
        format!("this node has {connections_max} connections, which is its limit; try again later"),
    );
    #[expect(clippy::disallowed_methods, reason = "it takes one frame")]
    let (frames, outgoing) = mpsc::unbounded_channel();
    let _ = frames.send(goodbye(&full));
    drop(frames);
    let _ = timeout(REFUSAL_DEADLINE, write_frames(connection.writer, outgoing)).await;
}

/// What every connection of a listener is served with.
#[derive(Clone)]
struct Door {
    dispatch: Dispatch,
    limits: Limits,
    clock: Arc<dyn Clock>,
    request_bytes: Budget,
    reply_bytes: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Door {
    async fn serve(&self, connection: Connection) -> Result<()> {
        #[expect(
            clippy::disallowed_methods,
            reason = "each call in flight and each refusal puts in one frame, and both are limited"
        )]
        let (replies, outgoing) = mpsc::unbounded_channel();
        let mut writing = tokio::spawn(write_frames(connection.writer, outgoing));
        let mut reader =
            FrameReader::new(connection.reader, self.clock.clone()).within(self.request_bytes.clone());
        let in_flight = Arc::new(Semaphore::new(self.limits.in_flight_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let mut silent = true;
        let ended = loop {
            let frame = tokio::select! {
                () = self.stop.cancelled() => break Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
                _ = &mut writing => return Ok(()),
                frame = self.next_request(&mut reader, &refusals) => frame,
                () = tokio::time::sleep(self.limits.first_frame), if silent => {
                    break Err(Error::new(ErrorKind::Timeout, "no call arrived on the new connection"));
                }
            };
            silent = false;
            let (frame, refusal) = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            match in_flight.clone().try_acquire_owned() {
                Ok(permit) => self.answer(frame, permit, replies.clone()),
                Err(_) => {
                    let _ = replies.send(self.overloaded(frame.prefix).holding(refusal));
                }
            }
        };
        if let Err(error) = &ended {
            let _ = replies.send(goodbye(error));
        }
        // The writer ends when the last call in flight has dropped its sender.
        drop(replies);
        let _ = writing.await;
        ended
    }

    /// The next request, and room for its refusal: who sends on and reads no refusals is not read either.
    async fn next_request(
        &self,
        reader: &mut FrameReader,
        refusals: &Arc<Semaphore>,
    ) -> Result<Option<(Incoming, OwnedSemaphorePermit)>> {
        let refusal = refusals.clone().acquire_owned().await;
        let refusal = refusal.expect("the semaphore is never closed");
        match reader.next().await? {
            Some(frame) if frame.prefix.kind == FrameKind::Request => Ok(Some((frame, refusal))),
            Some(frame) => Err(Error::new(
                ErrorKind::Protocol,
                format!("a {:?} is not a request", frame.prefix.kind),
            )),
            None => Ok(None),
        }
    }

    /// Runs a call as a task of its own. It is in flight until its reply is written.
    fn answer(
        &self,
        frame: Incoming,
        in_flight: OwnedSemaphorePermit,
        replies: mpsc::UnboundedSender<Outgoing>,
    ) {
        let Incoming {
            prefix,
            header,
            body,
            budget,
        } = frame;
        let answering = (self.dispatch)(RemoteCall {
            prefix,
            header,
            body,
            limits: self.limits,
            reply_bytes: self.reply_bytes.clone(),
        });
        tokio::spawn(async move {
            let reply = answering.await.unwrap_or_else(|error| failure(prefix, &error));
            drop(budget);
            let _ = replies.send(reply.holding(in_flight));
        });
    }

    fn overloaded(&self, prefix: Prefix) -> Outgoing {
        let full = Error::new(
            ErrorKind::Overloaded,
            format!(
                "{} calls of this connection are in flight; try again later",
                self.limits.in_flight_max
            ),
        );
        failure(prefix, &full)
    }
}

fn goodbye(error: &Error) -> Outgoing {
    Outgoing::new(FrameKind::Goodbye, 0, 0, error, Body::Bytes(Bytes::new()))
        .expect("an error fits in a frame")
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
