//! A peer and a listener on loopback, around an actor that answers.

#![expect(
    clippy::disallowed_methods,
    reason = "a test measures, and starts what it needs where it is"
)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use bytes::Bytes;

use curvine_protocol::ids::*;
use curvine_protocol::worker::*;
use curvine_protocol::{CallContext, Error, ErrorKind, Result, for_worker_calls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::listener::{Limits, Serving, serve_worker};
use super::network::{Accept, Network, Stream, TcpNetwork};
use super::peer::{CALL_DEADLINE, Peer, SILENCE_MIN};
use super::port::{Answer, Ask, Body, Endpoint, WorkerRef};
use super::ports::Ports;

/// Echoes bodies; is silent on `SealBlock`; fails the rest.
struct Answering;

impl Actor for Answering {
    type Context = Context<Self>;
}

trait Respond: curvine_protocol::Call {
    fn respond(ask: Ask<Self>) -> ResponseFuture<Result<Answer<Self>>>;
}

impl<C: Respond> Handler<Ask<C>> for Answering {
    type Result = ResponseFuture<Result<Answer<C>>>;

    fn handle(&mut self, ask: Ask<C>, _context: &mut Self::Context) -> Self::Result {
        C::respond(ask)
    }
}

impl Respond for WorkerEcho {
    fn respond(ask: Ask<Self>) -> ResponseFuture<Result<Answer<Self>>> {
        let reply = WorkerEchoed {
            worker: WorkerId(7),
            cluster: ClusterId(1),
        };
        Box::pin(async move { Ok(Answer::with_body(reply, Body::Bytes(ask.body))) })
    }
}

impl Respond for SealBlock {
    fn respond(_ask: Ask<Self>) -> ResponseFuture<Result<Answer<Self>>> {
        Box::pin(std::future::pending())
    }
}

macro_rules! refuse {
    ($($call:ident),*) => {$(
        impl Respond for $call {
            fn respond(_ask: Ask<Self>) -> ResponseFuture<Result<Answer<Self>>> {
                Box::pin(async { Err(Error::not_found("block 1")) })
            }
        }
    )*};
}
refuse!(
    ReadBlock,
    WriteBlock,
    PunchBlock,
    PutBlock,
    FenceBlocks,
    CompareBlocks,
    KeepReplicas,
    MarkBlocks,
    PinBlocks,
    ListBlocks,
    ExplainBlocks,
    Scrub,
    CopyReplica,
    ShedReplicas,
    ConfirmReplicas,
    SuspectBlock,
    DeleteBlocks,
    LoadBlocks,
    StopLoading,
    ExportFile,
    GetHostSocket,
    GetWorkerStatus
);

macro_rules! all_answer {
    (; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
        $(const _: fn() = || { fn is<C: Respond>() {} is::<$call>(); };)*
    };
}
for_worker_calls!(all_answer);

async fn serving(limits: Limits) -> Serving {
    let worker: WorkerRef = std::sync::Arc::new(Answering.start());
    serve_worker(worker, "127.0.0.1:0", limits, &Ports::system())
        .await
        .expect("loopback has a free port")
}

async fn raw(serving: &Serving) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(serving.address())
        .await
        .expect("it listens")
}

/// What the node says before it closes the connection.
async fn goodbye(mut socket: tokio::net::TcpStream) -> Error {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut bytes))
        .await
        .expect("the node closes the connection")
        .expect("readable");
    curvine_protocol::codec::decode(&bytes[curvine_protocol::frame::PREFIX_BYTES..]).expect("an error")
}

#[actix::test]
async fn a_call_and_its_body_come_back_over_a_socket() {
    let serving = serving(Limits::default()).await;
    let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &Ports::system());
    let body = Bytes::from(vec![5u8; 3 << 20]);
    let ask = Ask::new(WorkerEcho {}, CallContext::default()).with_body(body.clone());
    let answer = peer.ask(ask).await.expect("answered");
    assert_eq!(answer.reply.worker, WorkerId(7));
    assert_eq!(answer.body.read().expect("in memory"), body);
}

#[actix::test]
async fn an_error_keeps_its_kind_and_message_over_a_socket() {
    let serving = serving(Limits::default()).await;
    let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &Ports::system());
    let error = peer
        .ask(Ask::new(GetWorkerStatus {}, CallContext::default()))
        .await
        .map(|_| ());
    assert_eq!(error, Err(Error::not_found("block 1")));
}

#[actix::test]
async fn a_silent_node_is_a_timeout_and_others_are_not_delayed() {
    let serving = serving(Limits::default()).await;
    let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &Ports::system());
    let seal = SealBlock {
        block: BlockId(1),
        generation: 0,
        sync: false,
        epoch: 0,
        or_newer: false,
        order: WriteOrder::default(),
    };
    let context = CallContext {
        deadline_ms: 300,
        ..Default::default()
    };
    let silent = actix::spawn(peer.ask(Ask::new(seal, context)));
    peer.ask(Ask::new(WorkerEcho {}, CallContext::default()))
        .await
        .expect("answered meanwhile");
    let error = silent.await.expect("no panic").map(|_| ());
    assert_eq!(error.map_err(|e| e.kind), Err(ErrorKind::Timeout));
}

#[actix::test]
async fn a_connection_is_given_up_after_some_silence_however_short_the_deadlines() {
    let mut silent = TcpNetwork.listen("127.0.0.1:0").await.expect("a free port");
    let peer = Peer::start(&actix::Arbiter::current(), silent.address(), &Ports::system());
    let accepted = actix::spawn(async move { (silent.accept().await, silent.accept().await) });
    let begun = Instant::now();
    while !accepted.is_finished() {
        assert!(
            begun.elapsed() < CALL_DEADLINE,
            "a silent node keeps its connection"
        );
        let context = CallContext {
            deadline_ms: 20,
            ..CallContext::default()
        };
        let asked = peer.ask(Ask::new(WorkerEcho {}, context)).await.map(|_| ());
        assert_eq!(asked.expect_err("nobody answers").kind, ErrorKind::Timeout);
    }
    assert!(begun.elapsed() >= SILENCE_MIN, "{:?}", begun.elapsed());
}

#[actix::test]
async fn nobody_at_the_address_is_unreachable_and_named() {
    let address = {
        let accept = TcpNetwork.listen("127.0.0.1:0").await.expect("a free port");
        accept.address()
    };
    let peer = Peer::start(&actix::Arbiter::current(), &address, &Ports::system());
    let error = peer
        .ask(Ask::new(WorkerEcho {}, CallContext::default()))
        .await
        .map(|_| ())
        .expect_err("nobody there");
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains(&address), "{error}");
}

#[actix::test]
async fn a_peer_reconnects_after_the_node_came_back() {
    let first = serving(Limits::default()).await;
    let address = first.address().to_owned();
    let peer = Peer::start(&actix::Arbiter::current(), &address, &Ports::system());
    peer.ask(Ask::new(WorkerEcho {}, CallContext::default()))
        .await
        .expect("answered");
    first.stop(Duration::from_secs(5)).await;
    let worker: WorkerRef = std::sync::Arc::new(Answering.start());
    let _second = serve_worker(worker, &address, Limits::default(), &Ports::system())
        .await
        .expect("same port");
    // The news of the old connection's end may arrive with the first ask after it.
    for _ in 0..50 {
        if peer
            .ask(Ask::new(WorkerEcho {}, CallContext::default()))
            .await
            .is_ok()
        {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the peer never reconnected");
}

/// A network whose first connection comes when it is told to, or not at all.
struct LateFirst {
    attempts: AtomicUsize,
    go: Notify,
    comes: bool,
    came: AtomicBool,
}

#[async_trait]
impl Network for LateFirst {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        if self.attempts.fetch_add(1, Ordering::AcqRel) > 0 {
            return TcpNetwork.connect(address).await;
        }
        self.go.notified().await;
        let connection = TcpNetwork.connect(address).await;
        self.came.store(true, Ordering::Release);
        match self.comes {
            true => connection,
            false => Err(io::Error::other("no way there")),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Accept>> {
        TcpNetwork.listen(address).await
    }
}

async fn connects_late(comes: bool) {
    let serving = serving(Limits::default()).await;
    let network = Arc::new(LateFirst {
        attempts: AtomicUsize::new(0),
        go: Notify::new(),
        comes,
        came: AtomicBool::new(false),
    });
    let ports = Ports {
        network: network.clone(),
        ..Ports::system()
    };
    let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &ports);
    let echo = |deadline_ms| {
        let context = CallContext {
            deadline_ms,
            ..CallContext::default()
        };
        peer.ask(Ask::new(WorkerEcho {}, context))
    };
    let error = echo(50).await.map(|_| ()).expect_err("nobody is there yet");
    assert_eq!(error.kind, ErrorKind::Timeout);
    echo(0).await.expect("answered over another connection");
    network.go.notify_one();
    let mut after = 0;
    while after < 20 {
        echo(0).await.expect("answered over the connection that is there");
        after += usize::from(network.came.load(Ordering::Acquire));
    }
    assert_eq!(network.attempts.load(Ordering::Acquire), 2);
}

#[actix::test]
async fn a_connection_that_comes_after_its_callers_gave_up_does_no_harm() {
    connects_late(true).await;
}

#[actix::test]
async fn a_connection_that_fails_after_its_callers_gave_up_does_no_harm() {
    connects_late(false).await;
}

#[actix::test]
async fn garbage_giants_and_other_versions_are_told_and_cut_off() {
    let serving = serving(Limits::default()).await;
    let good: [u8; 24] = *b"CVN1\x01\0\xc8\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good;
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    for (frame, says) in [
        (*b"GET / HTTP/1.1\r\nHost: x\r", "not a Curvine frame"),
        (with(3, b"9"), "frame version `9`"),
        (with(16, &[0xff; 4]), "frame header of 4294967295 bytes"),
        (with(20, &[0xff; 4]), "frame body of 4294967295 bytes"),
    ] {
        let mut socket = raw(&serving).await;
        socket.write_all(&frame).await.expect("sent");
        let error = goodbye(socket).await;
        assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
}

#[actix::test]
async fn an_unknown_call_fails_alone() {
    let serving = serving(Limits::default()).await;
    let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &Ports::system());
    let error = peer
        .ask(Ask::new(
            curvine_protocol::master::Echo {},
            CallContext::default(),
        ))
        .await
        .map(|_| ());
    assert_eq!(error.map_err(|e| e.kind), Err(ErrorKind::Protocol));
    peer.ask(Ask::new(WorkerEcho {}, CallContext::default()))
        .await
        .expect("the connection lives on");
}

#[actix::test]
async fn a_silent_connection_is_closed() {
    let serving = serving(Limits {
        first_frame: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let error = goodbye(raw(&serving).await).await;
    assert_eq!(error.kind, ErrorKind::Timeout);
}

#[actix::test]
async fn an_address_in_use_is_named() {
    let first = serving(Limits::default()).await;
    let worker: WorkerRef = std::sync::Arc::new(Answering.start());
    let error = serve_worker(worker, first.address(), Limits::default(), &Ports::system())
        .await
        .map(|_| ());
    let error = error.expect_err("the port is taken");
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.message.contains(first.address()), "{error}");
}

#[actix::test]
async fn connections_are_served_on_the_threads_in_turn() {
    /// Answers with the name of the thread that it is asked on.
    struct Telling(std::sync::Mutex<Vec<std::thread::ThreadId>>);

    impl<C: curvine_protocol::Call> Endpoint<C> for Telling {
        fn ask(&self, _ask: Ask<C>) -> futures::future::BoxFuture<'static, Result<Answer<C>>> {
            self.0.lock().expect("no panic").push(std::thread::current().id());
            Box::pin(async { Err(Error::new(ErrorKind::Unsupported, "noted")) })
        }
    }

    let ports = Ports::system();
    let threads = super::threads::Threads::start(2).await.expect("they start");
    let telling = std::sync::Arc::new(Telling(std::sync::Mutex::default()));
    let bound = super::listener::bind("127.0.0.1:0", &ports)
        .await
        .expect("loopback");
    let serving = bound
        .spread_over(threads.handles())
        .serve_worker(telling.clone(), Limits::default());
    for _ in 0..4 {
        let peer = Peer::start(&actix::Arbiter::current(), serving.address(), &ports);
        let asked = super::port::call(&peer, WorkerEcho {}, CallContext::default()).await;
        assert_eq!(asked.expect_err("refused").kind, ErrorKind::Unsupported);
    }
    let on = telling.0.lock().expect("no panic").clone();
    assert_eq!((on[0], on[1]), (on[2], on[3]), "in turn");
    assert_ne!(on[0], on[1]);
    assert!(!on.contains(&std::thread::current().id()), "not where it listens");
}
