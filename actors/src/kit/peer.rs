//! The remote proxy: an actor that stands for a node at an address. Its `Addr` is a `MasterPort` and a `WorkerPort`.
//!
//! It connects at the first ask and again after a broken connection; asks in flight then fail with `Unreachable`.
//! Retrying is the caller's business: only the caller knows whether the call may be repeated.

use std::collections::HashMap;
use std::time::Duration;

use actix::prelude::*;
use curvine_protocol::codec::decode;
use curvine_protocol::frame::FrameKind;
use curvine_protocol::{Call, Error, ErrorKind, Result};
use futures::stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::deadlines;
use super::network::Stream as Connection;
use super::port::{Answer, Ask, Body};
use super::ports::Ports;
use super::wire::{FrameReader, Incoming, Outgoing, write_frames};

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// For a call whose context names none.
pub const CALL_DEADLINE: Duration = deadlines::CALL;
/// A connection on which nothing came for this long is given up with the next ask that was in vain. TCP sends again what was
/// lost within less, and a new connection would need luck with its first packets.
pub const SILENCE_MIN: Duration = Duration::from_millis(500);
/// Asks in flight to one node; one more is `Overloaded`.
const IN_FLIGHT_MAX: usize = 4_096;

pub struct Peer {
    address: String,
    ports: Ports,
    link: Link,
    /// Grows with every attempt to connect, its success and its end, so that news of an old one is recognised.
    epoch: u64,
    next_request: u64,
    waiting: HashMap<u64, Waiting>,
    last_received: Instant,
    /// When something was sent that nothing came after, on this connection.
    silent_since: Option<Instant>,
}

enum Link {
    Idle,
    /// Frames that go out as soon as there is a connection.
    Connecting(Vec<Outgoing>),
    Connected(mpsc::UnboundedSender<Outgoing>),
}

struct Waiting {
    reply: oneshot::Sender<Result<Incoming>>,
    asked_at: Instant,
}

impl Peer {
    /// Starts the proxy in an arbiter, from any thread. Nothing is connected yet.
    pub fn start(arbiter: &ArbiterHandle, address: impl Into<String>, ports: &Ports) -> Addr<Peer> {
        let (address, ports) = (address.into(), ports.clone());
        Peer::start_in_arbiter(arbiter, move |_| Self::new(address, &ports))
    }

    fn new(address: String, ports: &Ports) -> Peer {
        Peer {
            address,
            ports: ports.clone(),
            link: Link::Idle,
            epoch: 0,
            next_request: 1,
            waiting: HashMap::new(),
            last_received: ports.clock.now(),
            silent_since: None,
        }
    }

    fn send(&mut self, frame: Outgoing, context: &mut Context<Self>) {
        match &mut self.link {
            Link::Connected(writer) => {
                self.silent_since.get_or_insert(self.ports.clock.now());
                // Fails only when the writer task has ended: its news is on the way and fails the ask.
                let _ = writer.send(frame);
            }
            Link::Connecting(queue) => queue.push(frame),
            Link::Idle => {
                self.link = Link::Connecting(vec![frame]);
                self.connect(context);
            }
        }
    }

    fn connect(&mut self, context: &mut Context<Self>) {
        self.epoch += 1;
        let epoch = self.epoch;
        let (network, address) = (self.ports.network.clone(), self.address.clone());
        let connecting = async move {
            match timeout(CONNECT_DEADLINE, network.connect(&address)).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", CONNECT_DEADLINE.as_secs())),
            }
        };
        context.spawn(
            connecting
                .into_actor(self)
                .map(move |result, peer, context| match result {
                    Ok(connection) => peer.connected(connection, context),
                    // Given up on before; what there is now has nothing to do with it.
                    Err(_) if epoch != peer.epoch => {}
                    Err(cause) => peer.broken(Error::new(
                        ErrorKind::Unreachable,
                        format!(
                            "cannot reach {}: {cause}; check that a node runs there",
                            peer.address
                        ),
                    )),
                }),
        );
    }

    fn connected(&mut self, connection: Connection, context: &mut Context<Self>) {
        // Callers may give up on an attempt while it is under way, and the next ask begins another: the first connection
        // that is there serves whoever waits, and any later one is closed.
        let Link::Connecting(queue) = &mut self.link else {
            return;
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "each ask in flight puts in one frame, and they are limited"
        )]
        let (writer, frames) = mpsc::unbounded_channel();
        for frame in queue.drain(..) {
            let _ = writer.send(frame);
        }
        self.link = Link::Connected(writer);
        self.silent_since = Some(self.ports.clock.now());
        self.epoch += 1;
        let epoch = self.epoch;
        let writing = write_frames(connection.writer, frames);
        context.spawn(writing.into_actor(self).map(move |result, peer, _| {
            if let Err(error) = result {
                peer.news(
                    epoch,
                    Err(Error::new(
                        ErrorKind::Unreachable,
                        format!("connection lost: {error}"),
                    )),
                );
            }
        }));
        let incoming = stream::unfold(
            Some(FrameReader::new(connection.reader, self.ports.clock.clone())),
            move |reader| async move {
                let mut reader = reader?;
                let news = match reader.next().await {
                    Ok(Some(frame)) => {
                        return Some((
                            Received {
                                epoch,
                                news: Ok(frame),
                            },
                            Some(reader),
                        ));
                    }
                    Ok(None) => Error::new(ErrorKind::Unreachable, "the node closed the connection"),
                    Err(error) => error,
                };
                Some((
                    Received {
                        epoch,
                        news: Err(news),
                    },
                    None,
                ))
            },
        );
        context.add_stream(incoming);
    }

    fn news(&mut self, epoch: u64, news: Result<Incoming>) {
        if epoch != self.epoch {
            return;
        }
        match news {
            Ok(frame) if frame.prefix.kind == FrameKind::Goodbye => {
                let error = decode::<Error>(&frame.header).unwrap_or_else(|garbled| garbled);
                self.broken(error.while_doing(format_args!("{} closed the connection", self.address)));
            }
            Ok(frame) => {
                self.last_received = self.ports.clock.now();
                self.silent_since = None;
                if let Some(waiting) = self.waiting.remove(&frame.prefix.request_id) {
                    let _ = waiting.reply.send(Ok(frame));
                }
            }
            Err(error) => self.broken(error.while_doing(&self.address)),
        }
    }

    /// Fails what is in flight and forgets the connection; the next ask makes a new one.
    fn broken(&mut self, error: Error) {
        self.epoch += 1;
        self.link = Link::Idle;
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }
}

impl Actor for Peer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Admission is ours (IN_FLIGHT_MAX); the mailbox must not make senders queue behind each other.
        context.set_mailbox_capacity(IN_FLIGHT_MAX);
    }
}

struct Received {
    epoch: u64,
    news: Result<Incoming>,
}

impl StreamHandler<Received> for Peer {
    fn handle(&mut self, received: Received, _context: &mut Self::Context) {
        self.news(received.epoch, received.news);
    }

    /// A connection's stream ends; the peer lives on.
    fn finished(&mut self, _context: &mut Self::Context) {}
}

/// A caller gave up on a request.
#[derive(Message)]
#[rtype(result = "()")]
struct GaveUp(u64);

impl Handler<GaveUp> for Peer {
    type Result = ();

    fn handle(&mut self, gave_up: GaveUp, _context: &mut Self::Context) {
        let Some(waiting) = self.waiting.remove(&gave_up.0) else {
            return;
        };
        let now = self.ports.clock.now();
        let is_young = |since| now.duration_since(since) < SILENCE_MIN;
        if matches!(self.link, Link::Connected(_)) && self.silent_since.is_some_and(is_young) {
            return;
        }
        if self.last_received < waiting.asked_at {
            // Silence since the ask: the other side, or the way to it, is gone without saying so.
            self.broken(Error::new(
                ErrorKind::Unreachable,
                format!("{} does not answer; the connection is given up", self.address),
            ));
        }
    }
}

impl<C: Call> Handler<Ask<C>> for Peer {
    type Result = ResponseFuture<Result<Answer<C>>>;

    fn handle(&mut self, ask: Ask<C>, context: &mut Self::Context) -> Self::Result {
        if self.waiting.len() >= IN_FLIGHT_MAX {
            let full = format!(
                "{}: {IN_FLIGHT_MAX} calls are in flight; try again later",
                self.address
            );
            return Box::pin(async move { Err(Error::new(ErrorKind::Overloaded, full)) });
        }
        let request_id = self.next_request;
        self.next_request += 1;
        let header = (&ask.context, &ask.call);
        let frame = match Outgoing::new(
            FrameKind::Request,
            C::CODE,
            request_id,
            &header,
            Body::Bytes(ask.body),
        ) {
            Ok(frame) => frame,
            Err(error) => return Box::pin(async move { Err(error.while_doing(C::NAME)) }),
        };
        let (reply, replied) = oneshot::channel();
        self.waiting.insert(
            request_id,
            Waiting {
                reply,
                asked_at: self.ports.clock.now(),
            },
        );
        self.send(frame, context);

        let deadline = match ask.context.deadline_ms {
            0 => CALL_DEADLINE,
            ms => Duration::from_millis(ms.into()),
        };
        let (this, address) = (context.address(), self.address.clone());
        Box::pin(async move {
            match timeout(deadline, replied).await {
                Ok(Ok(Ok(frame))) => read_reply::<C>(frame, &address),
                Ok(Ok(Err(error))) => Err(error),
                Ok(Err(_)) => Err(Error::new(
                    ErrorKind::Stopping,
                    format!("{address}: the connection was closed"),
                )),
                Err(_) => {
                    this.do_send(GaveUp(request_id));
                    Err(Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "{address} did not answer {} within {} ms",
                            C::NAME,
                            deadline.as_millis()
                        ),
                    ))
                }
            }
        })
    }
}

fn read_reply<C: Call>(frame: Incoming, address: &str) -> Result<Answer<C>> {
    match frame.prefix.kind {
        FrameKind::Reply if frame.prefix.code == C::CODE => Ok(Answer {
            reply: decode(&frame.header)?,
            body: Body::Bytes(frame.body),
        }),
        FrameKind::Failure => Err(decode::<Error>(&frame.header).unwrap_or_else(|garbled| garbled)),
        kind => Err(Error::new(
            ErrorKind::Protocol,
            format!(
                "{address} answered {} with a {kind:?} of code {}",
                C::NAME,
                frame.prefix.code
            ),
        )),
    }
}
