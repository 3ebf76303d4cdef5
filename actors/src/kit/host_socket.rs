//! Sockets between processes of one host, over which messages go whole and open files go along.
//!
//! They have abstract names (unix(7)): no path, no permission, gone with whoever listens. Who can reach one runs in the same
//! network namespace.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg,
    sendmsg, socket_with,
};
use tokio::io::Interest;
use tokio::net::{UnixDatagram, UnixListener};

/// The most bytes of one message. The system's default buffer of a socket takes it.
pub const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// One side of a connection.
///
/// To tokio it is a socket of datagrams, which has no say in what is sent and received here.
pub struct HostSocket(UnixDatagram);

impl HostSocket {
    fn of(socket: OwnedFd) -> io::Result<HostSocket> {
        Ok(HostSocket(UnixDatagram::from_std(net::UnixDatagram::from(
            socket,
        ))?))
    }

    /// Connects to whoever listens under an abstract name. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system's; `ConnectionRefused` if nobody on this host listens under it.
    pub fn connect(name: &str) -> io::Result<HostSocket> {
        let socket = open()?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        HostSocket::of(socket)
    }

    /// Sends a message, and an open file with it.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for a message of more than [`MESSAGE_BYTES_MAX`].
    pub async fn send(&self, message: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if message.is_empty() || message.len() > MESSAGE_BYTES_MAX {
            let what = format!("a message of {} bytes", message.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let send = || {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut along = SendAncillaryBuffer::new(&mut room);
            let files = file.as_slice();
            if !files.is_empty() && !along.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::other("no room for a file"));
            }
            let flags = SendFlags::NOSIGNAL;
            Ok(sendmsg(&self.0, &[IoSlice::new(message)], &mut along, flags).map(drop)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Sends a short message if that can be done without waiting.
    ///
    /// # Errors
    /// The system's; `WouldBlock`.
    pub fn try_send(&self, message: &[u8]) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::send(&self.0, message, flags).map(drop)?)
    }

    /// Ends the connection for both sides.
    pub fn shut_down(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Receives a message into the beginning of a buffer of [`MESSAGE_BYTES_MAX`], and the file that came with it. None at the end.
    ///
    /// # Errors
    /// The system's; `InvalidData` for a message that is longer, or has several files.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
        let receive = || {
            // With room for one more, several are noticed.
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut along = RecvAncillaryBuffer::new(&mut room);
            let got = recvmsg(
                &self.0,
                &mut [IoSliceMut::new(buffer)],
                &mut along,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let mut files = Vec::new();
            for message in along.drain() {
                if let RecvAncillaryMessage::ScmRights(came) = message {
                    files.extend(came);
                }
            }
            let is_cut = got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
            if is_cut || files.len() > 1 {
                let what = "a message that is too long, or has several files";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            Ok((got.bytes > 0).then(|| (got.bytes, files.pop())))
        };
        self.0.async_io(Interest::READABLE, receive).await
    }
}

/// Accepts connections under an abstract name.
pub struct HostListener(UnixListener);

impl HostListener {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// The system's; `AddrInUse` if somebody listens under the name.
    pub fn bind(name: &str) -> io::Result<HostListener> {
        let socket = open()?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        listen(&socket, BACKLOG)?;
        Ok(HostListener(UnixListener::from_std(net::UnixListener::from(
            socket,
        ))?))
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system's.
    pub async fn accept(&self) -> io::Result<HostSocket> {
        let (accepted, _) = self.0.accept().await?;
        HostSocket::of(accepted.into_std()?.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn name(of: &str) -> String {
        format!("curvine-test-{}-{of}", std::process::id())
    }

    #[tokio::test]
    async fn messages_come_whole_and_in_order_with_their_files() {
        let name = name("order");
        let listener = HostListener::bind(&name).expect("the name is free");
        let here = HostSocket::connect(&name).expect("somebody listens");
        let there = listener.accept().await.expect("accepts");
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, b"content").expect("writes");
        io::Seek::rewind(&mut file).expect("seeks");
        here.send(b"one", Some(file.as_fd())).await.expect("sends");
        let long = vec![7; MESSAGE_BYTES_MAX];
        let (sent, received) = tokio::join!(here.send(&long, None), async {
            let mut buffer = vec![0; MESSAGE_BYTES_MAX];
            let (length, came) = there.receive(&mut buffer).await.unwrap().expect("a message");
            assert_eq!(&buffer[..length], b"one");
            let mut content = String::new();
            File::from(came.expect("a file"))
                .read_to_string(&mut content)
                .unwrap();
            assert_eq!(content, "content");
            there.receive(&mut buffer).await.unwrap().expect("a message").0
        });
        sent.expect("sends");
        assert_eq!(received, MESSAGE_BYTES_MAX);
        drop(here);
        assert!(there.receive(&mut [0; 16]).await.unwrap().is_none(), "the end");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_on_both_sides() {
        let name = name("limits");
        let listener = HostListener::bind(&name).expect("the name is free");
        let here = HostSocket::connect(&name).expect("somebody listens");
        let there = listener.accept().await.expect("accepts");
        let refused = here.send(&vec![0; MESSAGE_BYTES_MAX + 1], None).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        here.send(b"longer than four", None).await.expect("sends");
        let cut = there.receive(&mut [0; 4]).await;
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(HostListener::bind(&name).is_err(), "the name is taken");
        drop(listener);
        assert!(HostSocket::connect(&name).is_err(), "nobody listens any more");
    }
}
