//! Sockets as a port: the only place that opens one.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

use super::host_socket::{HostListener, HostSocket};

/// Connects to and listens on addresses (`host:port`).
#[async_trait]
pub trait Network: Send + Sync {
    async fn connect(&self, address: &str) -> io::Result<Stream>;
    /// Port 0 picks a free one: see [`Accept::address`].
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Accept>>;

    /// Whether processes of one host can pass open files here.
    fn has_host_sockets(&self) -> bool {
        false
    }

    /// Listens under an abstract name on this host.
    fn listen_on_host(&self, _name: &str) -> io::Result<HostListener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Connects to who listens under an abstract name on this host.
    fn connect_on_host(&self, _name: &str) -> io::Result<HostSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
pub trait Accept: Send {
    /// The next connection, which is opened where it is to be served.
    async fn accept(&mut self) -> io::Result<Accepted>;
    /// The address that is listened on, with its real port.
    fn address(&self) -> String;
}

/// A connection that no runtime drives yet: [`Accepted::open`] has the one that it is called in do it.
pub struct Accepted(Box<dyn FnOnce() -> io::Result<Stream> + Send>);

impl Accepted {
    pub fn new(open: impl FnOnce() -> io::Result<Stream> + Send + 'static) -> Self {
        Accepted(Box::new(open))
    }

    /// The stream, driven by the current runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn open(self) -> io::Result<Stream> {
        (self.0)()
    }
}

/// A connected byte stream, in two halves.
pub struct Stream {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Writer,
    /// The other side, for messages.
    pub peer: String,
}

pub enum Writer {
    /// A TCP socket, which `sendfile` can write to.
    Tcp(OwnedWriteHalf),
    Other(Box<dyn AsyncWrite + Send + Unpin>),
}

/// TCP of the system, and sockets between its processes.
pub struct TcpNetwork;

/// Nothing can be reached.
pub struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn connect(&self, _: &str) -> io::Result<Stream> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }

    async fn listen(&self, _: &str) -> io::Result<Box<dyn Accept>> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }
}

/// A silent connection is probed after this, then so often; one whose other side is gone without a word ends within a
/// minute, and so does one that acknowledges nothing.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

fn tcp_stream(socket: TcpStream) -> io::Result<Stream> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(PROBE_AFTER + PROBE_EVERY * PROBES))?;
    let peer = socket.peer_addr()?.to_string();
    let (reader, writer) = socket.into_split();
    Ok(Stream {
        reader: Box::new(reader),
        writer: Writer::Tcp(writer),
        peer,
    })
}

#[async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        tcp_stream(TcpStream::connect(address).await?)
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Accept>> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        Ok(Box::new(TcpAccept { listener, address }))
    }

    fn has_host_sockets(&self) -> bool {
        true
    }

    fn listen_on_host(&self, name: &str) -> io::Result<HostListener> {
        HostListener::bind(name)
    }

    fn connect_on_host(&self, name: &str) -> io::Result<HostSocket> {
        HostSocket::connect(name)
    }
}

struct TcpAccept {
    listener: TcpListener,
    address: String,
}

#[async_trait]
impl Accept for TcpAccept {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let socket = self.listener.accept().await?.0.into_std()?;
        Ok(Accepted::new(move || tcp_stream(TcpStream::from_std(socket)?)))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
