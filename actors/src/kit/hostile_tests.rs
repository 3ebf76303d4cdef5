//! A listener among callers that mean no good, in virtual time over connections in memory: whatever one does, the others
//! are answered, and what it may hold is limited.

#![expect(
    clippy::disallowed_methods,
    reason = "a test measures, and starts what it needs where it is"
)]

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::frame::{FRAME_BYTES_MAX, FrameKind, PREFIX_BYTES, Prefix};
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::*;
use curvine_protocol::{BlockId, Call, CallContext, ClusterId, Error, ErrorKind, Result, WorkerId};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::listener::{Limits, Serving, serve_worker};
use super::network::{Accept, Accepted, Network, Stream, Writer};
use super::port::{Answer, Ask, Body, Endpoint};
use super::ports::{Ports, SystemClock};
use super::wire::{FRAME_DEADLINE, FrameReader, Incoming};

/// What a connection in memory holds on its way, each way.
const PIPE_BYTES: usize = 64 << 10;

/// Connections in memory: what is sent here is accepted there.
struct Memory(Mutex<Option<mpsc::UnboundedReceiver<DuplexStream>>>);

struct Accepting(mpsc::UnboundedReceiver<DuplexStream>);

#[async_trait]
impl Network for Memory {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        Err(io::Error::other(format!("{address} is not in memory")))
    }

    async fn listen(&self, _address: &str) -> io::Result<Box<dyn Accept>> {
        let connections = self.0.lock().expect("not poisoned").take();
        Ok(Box::new(Accepting(connections.expect("one listener"))))
    }
}

#[async_trait]
impl Accept for Accepting {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let Some(pipe) = self.0.recv().await else {
            return std::future::pending().await;
        };
        let (reader, writer) = tokio::io::split(pipe);
        Ok(Accepted::new(move || {
            Ok(Stream {
                reader: Box::new(reader),
                writer: Writer::Other(Box::new(writer)),
                peer: "memory".to_owned(),
            })
        }))
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

/// Echoes bodies, answers reads with as many bytes as they ask for, never answers a seal, and counts.
#[derive(Clone, Default)]
struct Worker {
    asked: Arc<AtomicUsize>,
}

impl<C: Call> Endpoint<C> for Worker {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let call: &dyn std::any::Any = &ask.call;
        let reply: Box<dyn std::any::Any> = if call.is::<WorkerEcho>() {
            Box::new(WorkerEchoed {
                worker: WorkerId(7),
                cluster: ClusterId(1),
            })
        } else if call.is::<ReadBlock>() {
            Box::new(BlockData {
                offset_bytes: 0,
                checksums: Vec::new(),
            })
        } else {
            return Box::pin(std::future::pending());
        };
        let body = match call.downcast_ref::<ReadBlock>() {
            Some(read) => Bytes::from(vec![1; read.len_bytes as usize]),
            None => ask.body,
        };
        let reply = *reply.downcast::<C::Reply>().expect("the call's own reply");
        Box::pin(std::future::ready(Ok(Answer::with_body(
            reply,
            Body::Bytes(body),
        ))))
    }
}

struct World {
    worker: Worker,
    dial: mpsc::UnboundedSender<DuplexStream>,
    _serving: Serving,
}

impl World {
    /// With time that stands still unless everybody sleeps.
    async fn new(limits: Limits) -> World {
        tokio::time::pause();
        let (dial, connections) = mpsc::unbounded_channel();
        let ports = Ports {
            network: Arc::new(Memory(Mutex::new(Some(connections)))),
            ..Ports::system()
        };
        let worker = Worker::default();
        let serving = serve_worker(Arc::new(worker.clone()), "memory", limits, &ports)
            .await
            .expect("memory has room");
        World {
            worker,
            dial,
            _serving: serving,
        }
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.dial.send(theirs).expect("it listens");
        ours
    }

    fn asked(&self) -> usize {
        self.worker.asked.load(Ordering::Relaxed)
    }

    /// Another caller is answered at once.
    async fn others_are_served(&self) {
        let mut pipe = self.connect();
        pipe.write_all(&request(1, &WorkerEcho {}, b"hello"))
            .await
            .expect("sent");
        let started = Instant::now();
        let answer = next(&mut FrameReader::new(Box::new(pipe), Arc::new(SystemClock))).await;
        assert_eq!(
            (answer.prefix.kind, &answer.body[..]),
            (FrameKind::Reply, &b"hello"[..])
        );
        assert_eq!(started.elapsed(), Duration::ZERO, "nobody was waited for");
    }
}

fn framed(kind: FrameKind, code: u16, request_id: u64, header: &[u8], body: &[u8]) -> Vec<u8> {
    let prefix = Prefix {
        kind,
        code,
        request_id,
        header_bytes: to_u32(header.len()),
        body_bytes: to_u32(body.len()),
    };
    [&prefix.encode()[..], header, body].concat()
}

fn request<C: Call>(request_id: u64, call: &C, body: &[u8]) -> Vec<u8> {
    request_in(request_id, call, body, CallContext::default())
}

fn request_in<C: Call>(request_id: u64, call: &C, body: &[u8], context: CallContext) -> Vec<u8> {
    framed(
        FrameKind::Request,
        C::CODE,
        request_id,
        &encode(&(context, call)),
        body,
    )
}

fn seal() -> SealBlock {
    SealBlock {
        block: BlockId(1),
        generation: 0,
        sync: false,
        epoch: 0,
        or_newer: false,
        order: WriteOrder::default(),
    }
}

/// The next frame, within an hour.
async fn next(reader: &mut FrameReader) -> Incoming {
    timeout(Duration::from_secs(3_600), reader.next())
        .await
        .expect("in time")
        .expect("a frame")
        .expect("not the end")
}

fn error_of(frame: &Incoming) -> Error {
    decode(&frame.header).expect("an error")
}

#[actix::test]
async fn one_byte_a_second_is_cut_off_while_others_are_served() {
    let world = World::new(Limits::default()).await;
    let (reader, mut writer) = tokio::io::split(world.connect());
    let mut reader = FrameReader::new(Box::new(reader), Arc::new(SystemClock));
    writer
        .write_all(&request(1, &WorkerEcho {}, b""))
        .await
        .expect("sent");
    assert_eq!(
        next(&mut reader).await.prefix.kind,
        FrameKind::Reply,
        "it begins well"
    );
    let started = Instant::now();
    let slowly = actix::spawn(async move {
        for byte in request(2, &WorkerEcho {}, &[0; 1_000]) {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    sleep(Duration::from_secs(5)).await;
    world.others_are_served().await;
    let told = next(&mut reader).await;
    assert_eq!(
        (told.prefix.kind, error_of(&told).kind),
        (FrameKind::Goodbye, ErrorKind::Timeout)
    );
    assert_eq!(started.elapsed().as_secs(), FRAME_DEADLINE.as_secs());
    slowly.abort();
}

#[actix::test]
async fn a_connection_too_many_is_told_so_and_a_place_is_free_when_one_ends() {
    let world = World::new(Limits {
        connections_max: 2,
        ..Limits::default()
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut pipe = world.connect();
        pipe.write_all(&request(1, &WorkerEcho {}, b""))
            .await
            .expect("sent");
        let mut reader = FrameReader::new(Box::new(pipe), Arc::new(SystemClock));
        assert_eq!(next(&mut reader).await.prefix.kind, FrameKind::Reply);
        held.push(reader);
    }
    let mut refused = FrameReader::new(Box::new(world.connect()), Arc::new(SystemClock));
    let told = next(&mut refused).await;
    let error = error_of(&told);
    assert_eq!(
        (told.prefix.kind, error.kind),
        (FrameKind::Goodbye, ErrorKind::Overloaded)
    );
    assert!(error.message.contains("2 connections"), "{error}");
    drop(held.pop());
    sleep(Duration::from_millis(1)).await;
    world.others_are_served().await;
}

#[actix::test]
async fn a_call_over_the_limit_is_overloaded_alone() {
    let world = World::new(Limits {
        in_flight_max: 2,
        ..Limits::default()
    })
    .await;
    let (reader, mut writer) = tokio::io::split(world.connect());
    let mut reader = FrameReader::new(Box::new(reader), Arc::new(SystemClock));
    for id in 1..=2 {
        let context = CallContext {
            deadline_ms: 5_000,
            ..CallContext::default()
        };
        writer
            .write_all(&request_in(id, &seal(), b"", context))
            .await
            .expect("sent");
    }
    writer
        .write_all(&request(3, &WorkerEcho {}, b""))
        .await
        .expect("sent");
    let told = next(&mut reader).await;
    assert_eq!(
        (told.prefix.kind, told.prefix.request_id, error_of(&told).kind),
        (FrameKind::Failure, 3, ErrorKind::Overloaded)
    );
    world.others_are_served().await;
    for _ in 0..2 {
        assert_eq!(error_of(&next(&mut reader).await).kind, ErrorKind::Timeout);
    }
    writer
        .write_all(&request(4, &WorkerEcho {}, b""))
        .await
        .expect("sent");
    let answer = next(&mut reader).await;
    assert_eq!(
        (answer.prefix.kind, answer.prefix.request_id),
        (FrameKind::Reply, 4)
    );
}

#[actix::test]
async fn who_asks_and_never_reads_is_not_answered_without_end_and_then_cut_off() {
    let world = World::new(Limits {
        in_flight_max: 8,
        ..Limits::default()
    })
    .await;
    let (mut unread, mut writer) = tokio::io::split(world.connect());
    let flood = actix::spawn(async move {
        let mut sent = 0u64;
        while writer
            .write_all(&request(sent, &WorkerEcho {}, &[0; 32 << 10]))
            .await
            .is_ok()
        {
            sent += 1;
        }
        sent
    });
    sleep(Duration::from_secs(10)).await;
    // Two replies fit into the pipe, eight calls are in flight with theirs; the writer holds what it gathered.
    let answered = world.asked();
    assert!((8..=24).contains(&answered), "{answered} calls were answered");
    assert!(!flood.is_finished(), "the flood is held up, not cut off yet");
    world.others_are_served().await;
    let sent = timeout(Duration::from_secs(120), flood)
        .await
        .expect("it is cut off")
        .expect("no panic");
    assert!(sent < 400, "{sent} requests were taken in");
    let mut rest = Vec::new();
    let _ = unread.read_to_end(&mut rest).await;
    assert!(
        rest.len() <= PIPE_BYTES + PREFIX_BYTES,
        "the rest was never written"
    );
}

#[actix::test]
async fn the_bodies_of_replies_live_on_a_budget() {
    let world = World::new(Limits {
        reply_bytes_max: 4 << 20,
        ..Limits::default()
    })
    .await;
    let read = ReadBlock {
        block: BlockId(1),
        generation: 0,
        offset_bytes: 0,
        len_bytes: 1 << 20,
        fill: None,
        exact: false,
        tier: curvine_protocol::worker::Wish::UNSAID,
    };
    let (reader, mut writer) = tokio::io::split(world.connect());
    for id in 0..20 {
        writer.write_all(&request(id, &read, b"")).await.expect("sent");
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.asked(), 4, "the others wait for memory");
    let mut reader = FrameReader::new(Box::new(reader), Arc::new(SystemClock));
    for _ in 0..20 {
        assert_eq!(next(&mut reader).await.body.len(), 1 << 20);
    }
    assert_eq!(world.asked(), 20);
}

#[actix::test]
async fn requests_live_on_a_budget_and_who_holds_it_without_sending_on_loses_it() {
    let world = World::new(Limits {
        request_bytes_max: FRAME_BYTES_MAX,
        ..Limits::default()
    })
    .await;
    let large = request(1, &WorkerEcho {}, &vec![7; 15 << 20]);
    let mut holders = Vec::new();
    for _ in 0..2 {
        // A good beginning, then all but the last byte.
        let mut pipe = world.connect();
        pipe.write_all(&request(0, &WorkerEcho {}, b""))
            .await
            .expect("sent");
        pipe.write_all(&large[..large.len() - 1]).await.expect("sent");
        holders.push(pipe);
    }
    sleep(Duration::from_secs(10)).await;
    world.others_are_served().await;
    let (reader, mut writer) = tokio::io::split(world.connect());
    let sending = actix::spawn(async move {
        writer
            .write_all(&large)
            .await
            .expect("it is taken in when there is memory");
        writer
    });
    let started = Instant::now();
    let answer = next(&mut FrameReader::new(Box::new(reader), Arc::new(SystemClock))).await;
    assert_eq!(answer.body.len(), 15 << 20);
    assert_eq!(started.elapsed().as_secs(), FRAME_DEADLINE.as_secs() - 10);
    drop(sending.await.expect("no panic"));
}

#[actix::test]
async fn a_claim_of_the_largest_frame_takes_no_memory_from_others() {
    let world = World::new(Limits {
        request_bytes_max: FRAME_BYTES_MAX,
        ..Limits::default()
    })
    .await;
    let mut claims = Vec::new();
    for _ in 0..100 {
        let mut pipe = world.connect();
        let prefix = Prefix {
            kind: FrameKind::Request,
            code: WorkerEcho::CODE,
            request_id: 1,
            header_bytes: 16 << 20,
            body_bytes: 16 << 20,
        };
        pipe.write_all(&prefix.encode()).await.expect("sent");
        claims.push(pipe);
    }
    sleep(Duration::from_secs(1)).await;
    world.others_are_served().await;
    let (reader, mut writer) = tokio::io::split(world.connect());
    let large = request(1, &WorkerEcho {}, &vec![7; 15 << 20]);
    let sending = actix::spawn(async move { writer.write_all(&large).await });
    let started = Instant::now();
    let answer = next(&mut FrameReader::new(Box::new(reader), Arc::new(SystemClock))).await;
    assert_eq!(answer.body.len(), 15 << 20);
    assert_eq!(started.elapsed(), Duration::ZERO, "nobody was waited for");
    sending.await.expect("no panic").expect("sent");
}

#[actix::test]
async fn no_deadline_of_a_caller_is_longer_than_the_node_s() {
    let world = World::new(Limits {
        call_max: Duration::from_secs(100),
        ..Limits::default()
    })
    .await;
    let (reader, mut writer) = tokio::io::split(world.connect());
    let context = CallContext {
        deadline_ms: u32::MAX,
        ..CallContext::default()
    };
    let started = Instant::now();
    writer
        .write_all(&request_in(1, &seal(), b"", context))
        .await
        .expect("sent");
    let told = next(&mut FrameReader::new(Box::new(reader), Arc::new(SystemClock))).await;
    assert_eq!(error_of(&told).kind, ErrorKind::Timeout);
    assert_eq!(started.elapsed().as_secs(), 100);
}

#[actix::test]
async fn a_reply_sent_as_a_request_and_a_header_of_another_call_are_refused() {
    let world = World::new(Limits::default()).await;
    let mut pipe = world.connect();
    let other = framed(FrameKind::Request, ReadBlock::CODE, 5, &encode(&"nonsense"), b"");
    pipe.write_all(&other).await.expect("sent");
    pipe.write_all(&framed(FrameKind::Reply, ReadBlock::CODE, 6, b"", b""))
        .await
        .expect("sent");
    let mut reader = FrameReader::new(Box::new(pipe), Arc::new(SystemClock));
    let (first, second) = (next(&mut reader).await, next(&mut reader).await);
    let mut told = [first, second].map(|frame| (frame.prefix.kind as u8, error_of(&frame).kind));
    told.sort_by_key(|(kind, _)| *kind);
    assert_eq!(
        told,
        [
            (FrameKind::Failure as u8, ErrorKind::Protocol),
            (FrameKind::Goodbye as u8, ErrorKind::Protocol)
        ]
    );
    assert_eq!(world.asked(), 0);
}

#[actix::test]
async fn tcp_connections_notice_that_the_other_side_is_gone() {
    let mut accept = super::network::TcpNetwork
        .listen("127.0.0.1:0")
        .await
        .expect("loopback");
    let address = accept.address();
    let (accepted, connected) = tokio::join!(accept.accept(), super::network::TcpNetwork.connect(&address));
    let accepted = accepted.expect("accepted").open();
    for stream in [accepted.expect("opened"), connected.expect("connected")] {
        let Writer::Tcp(half) = stream.writer else {
            panic!("TCP has TCP's halves")
        };
        let options = socket2::SockRef::from(half.as_ref());
        assert!(options.keepalive().expect("readable"));
        assert_eq!(
            options.tcp_user_timeout().expect("readable"),
            Some(Duration::from_secs(60))
        );
    }
}
