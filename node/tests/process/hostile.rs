//! A node among callers that mean no good, over real sockets: it serves the others, and its memory stays bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::frame::{FrameKind, PREFIX_BYTES, Prefix};
use curvine_protocol::master::{Echo, MountUfs};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::WorkerEcho;
use curvine_protocol::{Call, CallContext, CurvinePath, Error, ErrorKind};

use super::support::*;

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket
        .set_read_timeout(Some(3 * DEADLINE))
        .expect("a timeout is set");
    socket
}

fn prefix(code: u16, request_id: u64, header_bytes: u32, body_bytes: u32) -> [u8; PREFIX_BYTES] {
    let kind = FrameKind::Request;
    let prefix = Prefix {
        kind,
        code,
        request_id,
        header_bytes,
        body_bytes,
    };
    prefix.encode()
}

fn request<C: Call>(request_id: u64, call: &C) -> Vec<u8> {
    let header = encode(&(CallContext::default(), call));
    [&prefix(C::CODE, request_id, to_u32(header.len()), 0)[..], &header].concat()
}

/// The next frame: its prefix and header.
fn frame(socket: &mut TcpStream) -> (Prefix, Vec<u8>) {
    let mut bytes = [0; PREFIX_BYTES];
    socket.read_exact(&mut bytes).expect("a prefix");
    let prefix = Prefix::decode(&bytes).expect("a frame");
    let mut rest = vec![0; (prefix.header_bytes + prefix.body_bytes) as usize];
    socket.read_exact(&mut rest).expect("the rest of the frame");
    rest.truncate(prefix.header_bytes as usize);
    (prefix, rest)
}

/// What is said before the connection is closed.
fn goodbye(mut socket: TcpStream) -> Error {
    let (prefix, header) = frame(&mut socket);
    assert_eq!(prefix.kind, FrameKind::Goodbye);
    assert_eq!(
        socket.read(&mut [0]).expect("the end"),
        0,
        "it is closed after that"
    );
    decode(&header).expect("an error")
}

/// Asks one question after the other until told to stop; how many were answered.
fn ask_on(address: String, call: Vec<u8>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut socket = connect(&address);
        let mut answered = 0;
        while !stop.load(Ordering::Relaxed) {
            socket.write_all(&call).expect("the connection lives");
            assert_eq!(frame(&mut socket).0.kind, FrameKind::Reply);
            answered += 1;
        }
        answered
    })
}

#[test]
fn a_node_serves_others_while_it_is_abused_and_cuts_the_abusers_off() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(dir.path(), &[]);
    let services = [
        (node.said("master").to_owned(), request(1, &Echo {}), Echo::CODE),
        (
            node.said("worker").to_owned(),
            request(1, &WorkerEcho {}),
            WorkerEcho::CODE,
        ),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    let mut slow = Vec::new();
    let mut held = Vec::new();
    for (address, echo, code) in &services {
        asking.push(ask_on(address.clone(), echo.clone(), stop.clone()));
        // One byte a second, and half a frame that never goes on.
        let mut dripping = connect(address);
        slow.push(std::thread::spawn(move || {
            let mut closed = dripping.try_clone().expect("a descriptor");
            for byte in [0x43, 0x56, 0x4e, 0x31]
                .into_iter()
                .chain(std::iter::repeat_n(0, 120))
            {
                if dripping.write_all(&[byte]).is_err() {
                    break;
                }
                closed
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .expect("a timeout is set");
                if closed.read(&mut [0]).is_ok() {
                    return true;
                }
            }
            false
        }));
        for _ in 0..50 {
            let mut socket = connect(address);
            socket
                .write_all(&prefix(*code, 1, 16 << 20, 16 << 20))
                .expect("sent");
            socket.write_all(&vec![0; 100_000]).expect("sent");
            held.push(socket);
        }
        // Connections that say nothing.
        held.extend((0..200).map(|_| connect(address)));
        // A flood whose answers nobody reads: it is held up when it is not taken in any more.
        let mut flood = connect(address);
        flood
            .set_write_timeout(Some(Duration::from_secs(1)))
            .expect("a timeout is set");
        let many = echo.repeat(1_000);
        let mut at = 0;
        let held_up = loop {
            match flood.write(&many[at..]) {
                // Whole frames, however the socket cuts them.
                Ok(written) => at = (at + written) % many.len(),
                Err(error) => break error,
            }
        };
        assert_eq!(
            held_up.kind(),
            std::io::ErrorKind::WouldBlock,
            "it is not cut off"
        );
        held.push(flood);
        // What is no frame of this version.
        for (start, says) in [
            (
                &b"GET / HTTP/1.1\r\nHost: curvine\r\n\r\n"[..],
                "not a Curvine frame",
            ),
            (&[0xff; 64], "not a Curvine frame"),
            (
                b"CVN9\x01\0\xc8\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                "frame version `9`",
            ),
            (
                b"CVN1\x01\0\xc8\0\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0",
                "frame header of 4294967295 bytes",
            ),
            (
                b"CVN1\x01\0\xc8\0\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
                "frame body of 4294967295 bytes",
            ),
        ] {
            let mut socket = connect(address);
            socket.write_all(start).expect("sent");
            let error = goodbye(socket);
            assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
            assert!(error.message.contains(says), "{error}");
        }
    }
    let memory = node.resident_bytes();
    assert!(memory < 256 << 20, "{memory} bytes");
    for dripping in slow {
        assert!(dripping.join().expect("no panic"), "one byte a second is cut off");
    }
    stop.store(true, Ordering::Relaxed);
    for asking in asking {
        let answered = asking.join().expect("others are served all the while");
        assert!(answered > 100, "{answered} questions were answered");
    }
    drop(held);
    assert_eq!(node.get("/healthz").0, 200);
}

#[test]
fn a_connection_too_many_is_told_so_and_one_that_is_there_is_served() {
    const CONNECTIONS_MAX: usize = 4_096;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("up to the hard limit");
    if files
        .current
        .is_some_and(|files| files < CONNECTIONS_MAX as u64 + 1_000)
    {
        return eprintln!("skipped: too few open files are allowed here");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(dir.path(), &[]);
    let address = node.said("master");
    let mut connections: Vec<_> = (0..CONNECTIONS_MAX + 100)
        .map(|_| {
            let mut socket = connect(address);
            // One that was refused already may be closed.
            let _ = socket.write_all(&request(1, &Echo {}));
            socket
        })
        .collect();
    let (mut served, mut told) = (0, 0);
    for socket in &mut connections {
        let mut bytes = [0; PREFIX_BYTES];
        match socket.read_exact(&mut bytes).map(|()| Prefix::decode(&bytes)) {
            Ok(Ok(prefix)) if prefix.kind == FrameKind::Reply => {
                let mut header = vec![0; prefix.header_bytes as usize];
                socket.read_exact(&mut header).expect("the rest of the frame");
                served += 1;
            }
            Ok(Ok(prefix)) => {
                let mut header = vec![0; prefix.header_bytes as usize];
                socket.read_exact(&mut header).expect("the rest of the frame");
                let error: Error = decode(&header).expect("an error");
                assert_eq!(
                    (prefix.kind, error.kind),
                    (FrameKind::Goodbye, ErrorKind::Overloaded)
                );
                assert!(error.message.contains("4096 connections"), "{error}");
                told += 1;
            }
            Ok(Err(error)) => panic!("no frame: {error}"),
            // Its request arrived after the connection was closed, which takes the goodbye with it.
            Err(_) => {}
        }
    }
    // The node's own worker needs none: it is wired.
    assert_eq!(served, CONNECTIONS_MAX);
    assert!(told > 0, "nobody was told why");
    let first = &mut connections[0];
    first.write_all(&request(2, &Echo {})).expect("sent");
    assert_eq!(frame(first).0.kind, FrameKind::Reply);
    drop(connections);
    let served = within(DEADLINE, || {
        let mut socket = connect(address);
        socket.write_all(&request(1, &Echo {})).expect("sent");
        (frame(&mut socket).0.kind == FrameKind::Reply).then_some(())
    });
    assert!(served.is_some(), "no place is ever free again");
}

#[test]
fn a_call_over_the_limit_of_its_connection_is_overloaded_and_other_connections_are_served() {
    const IN_FLIGHT_MAX: u64 = 512;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(dir.path(), &[]);
    // A store that takes connections and never answers: checking a mount of it takes long.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let options = [
        ("endpoint", endpoint.as_str()),
        ("region", "r"),
        ("access_key_id", "k"),
        ("secret_access_key", "s"),
    ];
    let mount = MountUfs {
        path: CurvinePath::parse("/m").expect("a valid path"),
        uri: "s3://bucket".to_owned(),
        options: options
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        settings: MountSettings::default(),
    };
    let mut socket = connect(node.said("master"));
    for id in 0..IN_FLIGHT_MAX {
        socket.write_all(&request(id, &mount)).expect("sent");
    }
    socket.write_all(&request(9_999, &Echo {})).expect("sent");
    let (prefix, header) = frame(&mut socket);
    let error: Error = decode(&header).expect("an error");
    assert_eq!(
        (prefix.kind, prefix.request_id, error.kind),
        (FrameKind::Failure, 9_999, ErrorKind::Overloaded),
        "{error}"
    );
    let mut other = connect(node.said("master"));
    other.write_all(&request(1, &Echo {})).expect("sent");
    assert_eq!(frame(&mut other).0.kind, FrameKind::Reply);
}
