//! Files of blocks for programs on this worker's own host, which read them without it.
//!
//! A program asks on a socket of the host, whose name the worker tells on its port, and gets a descriptor that is open for
//! reading. No path is said by either side. What was lent goes back when the program says so, or when its connection ends.
//!
//! Invariant: a connection has so many files and no more, and there are so many connections and no more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use curvine_protocol::worker::{HostReply, HostRequest};
use curvine_protocol::{Error, ErrorKind, Result, codec};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::disk::{LentFile, Loan};
use super::disks::Disks;
use super::traffic::Found;
use crate::kit::Ports;
use crate::kit::host_socket::{HostListener, HostSocket, MESSAGE_BYTES_MAX};

/// Programs on this host that are lent files at the same time.
const CONNECTIONS_MAX: usize = 256;
/// Files that one of them has.
const LOANS_MAX: usize = 4_096;
/// How long a program may leave an answer in its socket.
const SEND_MAX: Duration = Duration::from_secs(30);
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Lends until `ended`, in tasks of `arbiter`. The name to ask under; none where that cannot be done.
pub fn start(
    arbiter: &ArbiterHandle,
    disks: Disks,
    ports: &Ports,
    ended: CancellationToken,
) -> Option<String> {
    let network = ports.network.clone();
    if !network.has_host_sockets() {
        return None;
    }
    let random = || ports.random.next_u64();
    let name = format!("curvine-worker-{:016x}{:016x}", random(), random());
    let bound = name.clone();
    arbiter.spawn(async move {
        match network.listen_on_host(&bound) {
            Ok(listener) => {
                let _ = ended.run_until_cancelled(accept(listener, disks)).await;
            }
            Err(error) => tracing::warn!("programs on this host read by way of the network: {error}"),
        }
    });
    Some(name)
}

async fn accept(listener: HostListener, disks: Disks) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(connection) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn_local(serve(connection, disks.clone()));
            }
            // Whoever asked reads by way of the network.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("a program on this host could not be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(connection: HostSocket, disks: Disks) {
    if let Err(error) = lend_on(&connection, &disks).await {
        // Whoever can reach the socket can send what it likes, as often as it likes.
        tracing::debug!("a program on this host asked for what cannot be: {error}");
    }
}

async fn lend_on(connection: &HostSocket, disks: &Disks) -> io::Result<()> {
    let mut loans: HashMap<u64, Arc<Loan>> = HashMap::new();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    while let Some((length, _)) = connection.receive(&mut buffer).await? {
        let request: HostRequest = codec::decode(&buffer[..length]).map_err(io::Error::other)?;
        match request {
            HostRequest::Lend {
                number,
                block,
                generation,
            } => {
                let lent = match loans.len() < LOANS_MAX {
                    true => disks.lend(block, generation).await,
                    false => Err(too_many()),
                };
                let lent = lent.and_then(|lent| Ok((entered(&mut loans, number, &lent)?, lent).1));
                let (reply, file) = match lent {
                    Ok(LentFile { block, file, .. }) => (Ok(block), Some(file)),
                    Err(error) => (Err(error), None),
                };
                let message = codec::encode(&HostReply { number, lent: reply });
                let sent = connection.send(&message, file.as_ref().map(AsFd::as_fd));
                timeout(SEND_MAX, sent).await??;
            }
            HostRequest::Return {
                number,
                read_bytes,
                mount,
            } => {
                if loans.remove(&number).is_some()
                    && let Some(mount) = mount
                    && let Ok(read_bytes) = usize::try_from(read_bytes)
                {
                    disks.traffic().of(mount).read(Found::Here, read_bytes);
                }
            }
        }
    }
    Ok(())
}

fn entered(loans: &mut HashMap<u64, Arc<Loan>>, number: u64, lent: &LentFile) -> Result<()> {
    match loans.entry(number) {
        Entry::Vacant(vacant) => {
            vacant.insert(lent.loan.clone());
            Ok(())
        }
        Entry::Occupied(_) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("number {number} stands for another file of this connection"),
        )),
    }
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        format!("{LOANS_MAX} files are lent to this program"),
    )
}
