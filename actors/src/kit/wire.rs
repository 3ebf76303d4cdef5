//! Frames on a byte stream: reading with limits and deadlines, writing gathered, files with `sendfile`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use curvine_protocol::codec::encode_into;
use curvine_protocol::frame::{FRAME_BYTES_MAX, FrameKind, PREFIX_BYTES, Prefix};
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::network::Writer;
use super::port::{Body, FileRange};
use super::ports::Clock;

/// From the first byte of a frame to its last: who sends one byte a second is cut off.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// A write that makes no progress for this long ends the connection.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Frames are gathered into one vectored write up to this much.
const GATHER_BYTES: usize = 256 << 10;
const READ_BUFFER_BYTES: usize = 64 << 10;
/// How much larger than what has come of a frame its buffer may become.
const GROWTH: usize = 4;
/// Most bytes read at once.
const READ_STEP_BYTES: usize = 1 << 20;

/// A frame that arrived.
#[derive(Debug)]
pub struct Incoming {
    pub prefix: Prefix,
    pub header: Bytes,
    pub body: Bytes,
    /// Its bytes, of the reader's budget; given back when this is dropped.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// Bytes that arriving frames may have in memory, shared by many readers. Small frames have a part of their own, so that
/// they never wait behind large ones.
#[derive(Clone)]
pub struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Budget {
    /// A quarter is for small frames. The rest is for at least one of the largest: less would be waited for in vain.
    pub fn new(bytes: usize) -> Self {
        Budget {
            small: Arc::new(Semaphore::new(bytes / 4)),
            large: Arc::new(Semaphore::new((bytes - bytes / 4).max(FRAME_BYTES_MAX))),
        }
    }
}

/// Cuts a byte stream into frames. [`FrameReader::next`] may be dropped and called again without losing bytes.
pub struct FrameReader {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    clock: Arc<dyn Clock>,
    buffer: BytesMut,
    /// When the frame that is arriving must be complete.
    deadline: Option<Instant>,
    budget: Option<Budget>,
    /// What the frame that is arriving has taken of it.
    taken: Option<OwnedSemaphorePermit>,
}

impl FrameReader {
    pub fn new(reader: Box<dyn AsyncRead + Send + Unpin>, clock: Arc<dyn Clock>) -> Self {
        FrameReader {
            reader,
            clock,
            buffer: BytesMut::with_capacity(READ_BUFFER_BYTES),
            deadline: None,
            budget: None,
            taken: None,
        }
    }

    /// The same, whose frames live on a budget of bytes: one that does not get its memory waits, within its deadline.
    pub fn within(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The next frame; none at the orderly end of the stream.
    ///
    /// # Errors
    /// `Protocol` for what is no frame, `Timeout` for one that takes longer than [`FRAME_DEADLINE`], `Overloaded` if it
    /// gets no memory for so long, `Unreachable` when the stream breaks off.
    pub async fn next(&mut self) -> Result<Option<Incoming>> {
        loop {
            let prefix = match self.buffer.first_chunk() {
                Some(start) => Some(Prefix::decode(start)?),
                None => None,
            };
            let whole = prefix.map_or(PREFIX_BYTES, whole_bytes);
            let here = self.buffer.len();
            if let Some(prefix) = prefix
                && here >= whole
            {
                self.afford(whole, whole).await?;
                return Ok(Some(self.take(prefix)));
            }
            // In step with what has come: what is claimed and never sent takes no memory.
            let step = (whole - here).min(here).clamp(READ_BUFFER_BYTES, READ_STEP_BYTES);
            let ahead = whole.min(GROWTH * here).saturating_sub(here);
            self.buffer.reserve(ahead.max(step));
            self.afford(whole, (here + step).saturating_sub(2 * READ_BUFFER_BYTES))
                .await?;
            match self.read(step).await? {
                0 if here == 0 => return Ok(None),
                0 => {
                    return Err(Error::new(
                        ErrorKind::Unreachable,
                        "the connection ended in the middle of a frame",
                    ));
                }
                _ => {}
            }
        }
    }

    /// Until when the frame that is arriving must be complete; its first byte starts the clock.
    fn deadline(&mut self) -> Instant {
        *self
            .deadline
            .get_or_insert_with(|| self.clock.now() + FRAME_DEADLINE)
    }

    /// Reads at most so many bytes more.
    async fn read(&mut self, bytes: usize) -> Result<usize> {
        let deadline = (!self.buffer.is_empty()).then(|| self.deadline());
        let mut within = (&mut self.buffer).limit(bytes);
        let reading = self.reader.read_buf(&mut within);
        let read = match deadline {
            None => reading.await,
            Some(deadline) => timeout_at(deadline, reading).await.map_err(|_| {
                Error::new(
                    ErrorKind::Timeout,
                    format!("a frame was not complete within {} s", FRAME_DEADLINE.as_secs()),
                )
            })?,
        };
        read.map_err(|error| Error::new(ErrorKind::Unreachable, format!("connection lost: {error}")))
    }

    /// Takes so much of the budget for the frame that is arriving, less what it has.
    async fn afford(&mut self, whole: usize, bytes: usize) -> Result<()> {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(budget) = self.budget.clone().filter(|_| bytes > taken) else {
            return Ok(());
        };
        let budget = match whole <= READ_BUFFER_BYTES {
            true => budget.small,
            false => budget.large,
        };
        let more = timeout_at(self.deadline(), budget.acquire_many_owned(to_u32(bytes - taken)))
            .await
            .map_err(|_| {
                Error::new(
                    ErrorKind::Overloaded,
                    "the node's memory for requests is taken; try again later",
                )
            })?
            .expect("a budget is never closed");
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// Takes a frame that is complete out of the buffer.
    fn take(&mut self, prefix: Prefix) -> Incoming {
        self.deadline = None;
        self.buffer.advance(PREFIX_BYTES);
        let header = self.buffer.split_to(prefix.header_bytes as usize).freeze();
        let body = self.buffer.split_to(prefix.body_bytes as usize).freeze();
        Incoming {
            prefix,
            header,
            body,
            budget: self.taken.take(),
        }
    }
}

fn whole_bytes(prefix: Prefix) -> usize {
    PREFIX_BYTES + prefix.header_bytes as usize + prefix.body_bytes as usize
}

/// A frame on its way out: prefix and header in one piece, then the body.
#[derive(Debug)]
pub struct Outgoing {
    head: Bytes,
    body: Body,
    /// Given back when the frame is written, or never will be.
    permits: Vec<OwnedSemaphorePermit>,
}

impl Outgoing {
    /// # Errors
    /// `InvalidArgument` if header or body exceed the frame's limits.
    pub fn new<H: Serialize + ?Sized>(
        kind: FrameKind,
        code: u16,
        request_id: u64,
        header: &H,
        body: Body,
    ) -> Result<Outgoing> {
        let mut head = Vec::with_capacity(256);
        head.resize(PREFIX_BYTES, 0);
        encode_into(header, &mut head);
        let prefix = Prefix {
            kind,
            code,
            request_id,
            header_bytes: u32::try_from(head.len() - PREFIX_BYTES).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let encoded = prefix.encode();
        Prefix::decode(&encoded).map_err(|e| Error::new(ErrorKind::InvalidArgument, e.message))?;
        head[..PREFIX_BYTES].copy_from_slice(&encoded);
        Ok(Outgoing {
            head: head.into(),
            body,
            permits: Vec::new(),
        })
    }

    /// The same frame, which holds a permit until it is written.
    pub fn holding(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permits.push(permit);
        self
    }
}

/// Writes frames until the sender is dropped or the connection breaks.
pub async fn write_frames(mut writer: Writer, mut frames: UnboundedReceiver<Outgoing>) -> io::Result<()> {
    let mut gather = Gather::default();
    while let Some(frame) = frames.recv().await {
        let mut file = gather.push(frame);
        while file.is_none() && gather.bytes < GATHER_BYTES {
            match frames.try_recv() {
                Ok(frame) => file = gather.push(frame),
                Err(_) => break,
            }
        }
        gather.write(&mut writer).await?;
        if let Some(range) = file {
            send_file(&mut writer, range).await?;
        }
        gather.permits.clear();
    }
    match &mut writer {
        Writer::Tcp(half) => half.shutdown().await,
        Writer::Other(other) => other.shutdown().await,
    }
}

/// Pieces waiting for one vectored write.
#[derive(Default)]
struct Gather {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Gather {
    /// Adds a frame; returns its body if that is a file, which has to follow by itself.
    fn push(&mut self, frame: Outgoing) -> Option<FileRange> {
        self.add(frame.head);
        self.permits.extend(frame.permits);
        match frame.body {
            Body::Bytes(bytes) => {
                self.add(bytes);
                None
            }
            Body::File(range) => Some(range),
        }
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    async fn write(&mut self, writer: &mut Writer) -> io::Result<()> {
        while self.has_remaining() {
            let written = match writer {
                Writer::Tcp(half) => timeout(WRITE_DEADLINE, half.write_buf(self)).await,
                Writer::Other(other) => timeout(WRITE_DEADLINE, other.write_buf(self)).await,
            };
            if written?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Buf for Gather {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let front = self
                .pieces
                .front_mut()
                .expect("advance stays within what remains");
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}

/// Moves a file range to the socket inside the kernel. Reading the file may block on the disk, so it happens on a
/// blocking thread; waiting for the socket happens here.
async fn send_file(writer: &mut Writer, range: FileRange) -> io::Result<()> {
    match writer {
        Writer::Tcp(half) => send_file_tcp(half, range).await,
        Writer::Other(other) => {
            let bytes = Body::File(range).read().map_err(io::Error::other)?;
            timeout(WRITE_DEADLINE, other.write_all(&bytes)).await?
        }
    }
}

/// # Errors
/// `WouldBlock` if a socket takes nothing now.
fn look(socket: &TcpStream) -> io::Result<()> {
    let mut asked = [PollFd::new(socket, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut asked, Some(&at_once))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

async fn send_file_tcp(half: &OwnedWriteHalf, range: FileRange) -> io::Result<()> {
    let mut offset = range.offset_bytes;
    let end = offset + u64::from(range.len_bytes);
    // Our own descriptor: the blocking thread must not outlive the socket's number.
    let socket = Arc::new(rustix::io::fcntl_dupfd_cloexec(half.as_ref(), 0)?);
    while offset < end {
        timeout(WRITE_DEADLINE, half.writable()).await??;
        let (socket, file) = (socket.clone(), range.file.clone());
        let sent = tokio::task::spawn_blocking(move || {
            let mut at = offset;
            while at < end {
                let left = to_usize(end - at);
                match rustix::fs::sendfile(&*socket, &*file, Some(&mut at), left) {
                    Ok(0) => {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the block file is too short",
                        ));
                    }
                    Ok(_) => {}
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(at)
        })
        .await
        .map_err(io::Error::other)??;
        if sent == offset {
            // The socket was full although it was said to be writable: tokio is to wait for it, unless it is writable by
            // now. To say that it is full without a look would undo what tokio was told meanwhile, and is told only once.
            let _ = half.as_ref().try_io(Interest::WRITABLE, || look(half.as_ref()));
        }
        offset = sent;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test sends few frames")]
mod tests {
    use super::super::ports::SystemClock;
    use super::*;

    fn frame(header: &str, body: &'static [u8]) -> Outgoing {
        Outgoing::new(
            FrameKind::Request,
            7,
            9,
            header,
            Body::Bytes(Bytes::from_static(body)),
        )
        .expect("fits")
    }

    async fn written(frames: Vec<Outgoing>) -> Vec<u8> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (send, receive) = tokio::sync::mpsc::unbounded_channel();
        for frame in frames {
            send.send(frame).expect("the receiver is here");
        }
        drop(send);
        write_frames(Writer::Other(Box::new(ours)), receive)
            .await
            .expect("the pipe takes it all");
        let mut bytes = Vec::new();
        theirs.read_to_end(&mut bytes).await.expect("the pipe is open");
        bytes
    }

    #[tokio::test]
    async fn frames_written_together_are_read_one_by_one() {
        let bytes = written(vec![frame("a", b""), frame("bb", b"body")]).await;
        let mut reader = FrameReader::new(Box::new(io::Cursor::new(bytes)), Arc::new(SystemClock));
        let first = reader.next().await.expect("a frame").expect("not the end");
        let second = reader.next().await.expect("a frame").expect("not the end");
        assert_eq!((first.prefix.header_bytes, &first.body[..]), (2, &b""[..]));
        assert_eq!((second.prefix.request_id, &second.body[..]), (9, &b"body"[..]));
        assert!(reader.next().await.expect("an orderly end").is_none());
    }

    #[tokio::test]
    async fn a_stream_cut_inside_a_frame_is_unreachable() {
        let mut bytes = written(vec![frame("a", b"body")]).await;
        bytes.pop();
        let mut reader = FrameReader::new(Box::new(io::Cursor::new(bytes)), Arc::new(SystemClock));
        assert_eq!(
            reader.next().await.map_err(|e| e.kind).map(|_| ()),
            Err(ErrorKind::Unreachable)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_a_second_is_cut_off() {
        let bytes = written(vec![frame(&"h".repeat(100), b"")]).await;
        let (mut slow, ours) = tokio::io::duplex(64);
        let sender = tokio::spawn(async move {
            for byte in bytes {
                if slow.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut reader = FrameReader::new(Box::new(ours), Arc::new(SystemClock));
        assert_eq!(
            reader.next().await.map_err(|e| e.kind).map(|_| ()),
            Err(ErrorKind::Timeout)
        );
        drop(reader);
        sender.await.expect("the sender notices");
    }

    #[tokio::test]
    async fn a_file_body_follows_its_head_over_tcp() {
        use std::io::Write;
        let mut file = tempfile::tempfile().expect("a scratch file");
        let content: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_all(&content).expect("room for it");
        let range = FileRange {
            file: Arc::new(file),
            offset_bytes: 5,
            len_bytes: 2_000_000,
        };
        let frame = Outgoing::new(FrameKind::Reply, 1, 2, "head", Body::File(range)).expect("fits");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback");
        let address = listener.local_addr().expect("bound");
        let writer = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let (_reader, half) = socket.into_split();
            let (send, receive) = tokio::sync::mpsc::unbounded_channel();
            send.send(frame).expect("the receiver is here");
            drop(send);
            write_frames(Writer::Tcp(half), receive).await
        });
        let socket = tokio::net::TcpStream::connect(address).await.expect("connected");
        let mut reader = FrameReader::new(Box::new(socket), Arc::new(SystemClock));
        let incoming = reader.next().await.expect("a frame").expect("not the end");
        assert_eq!(&incoming.body[..], &content[5..2_000_005]);
        writer.await.expect("no panic").expect("all written");
    }

    /// A sender that takes a full socket for one that stays full waits for ever: nobody tells it again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_file_is_sent_to_the_end_however_the_socket_fills_and_empties() {
        const LEN: u32 = 1 << 20;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(LEN.into()).expect("room");
        let file = Arc::new(file);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let rounds = 300;
        let reading = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).expect("connects");
            let mut left = rounds * LEN as usize;
            let mut buffer = vec![0; 48 << 10];
            while left > 0 {
                let read = io::Read::read(&mut stream, &mut buffer).expect("reads");
                assert!(read > 0, "it ended early");
                left -= read;
                std::hint::spin_loop();
            }
        });
        let (stream, _) = listener.accept().await.expect("it comes");
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 64 << 10).expect("a size");
        let (_, half) = stream.into_split();
        for _ in 0..rounds {
            let range = FileRange {
                file: file.clone(),
                offset_bytes: 0,
                len_bytes: LEN,
            };
            send_file_tcp(&half, range).await.expect("it goes on");
        }
        reading.join().expect("it has read all");
    }
}
