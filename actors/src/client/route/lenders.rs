//! Workers on this host, who lend the files of their blocks.
//!
//! A worker tells a name on its port. Who can connect to a socket of that name is on its host: nothing is believed of labels
//! or addresses.
//!
//! Invariants:
//! - An answer is taken for the request that it belongs to, also if whoever asked before has gone.
//! - What was lent is given back when it is dropped, by a word to the worker or by the end of the connection.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::worker::{GetHostSocket, HostReply, HostRequest, LentBlock};
use curvine_protocol::{BlockRef, Error, ErrorKind, MountId, Result, WorkerId, codec};
use tokio::time::{Instant, timeout};

use super::Router;
use crate::kit::host_socket::{HostSocket, MESSAGE_BYTES_MAX};

/// How long a worker that is not on this host is not asked again.
const FAR: Duration = Duration::from_secs(60);
/// How long a worker may take to lend a file. What takes longer is read by way of the network.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who lends and who does not.
#[derive(Default)]
pub struct Lenders(Mutex<HashMap<WorkerId, Known>>);

enum Known {
    Near(Arc<Lender>),
    FarUntil(Instant),
}

impl Lenders {
    fn known(&self) -> MutexGuard<'_, HashMap<WorkerId, Known>> {
        self.0.lock().expect("nobody panics while holding this")
    }
}

/// A connection to a worker on this host.
pub struct Lender {
    socket: HostSocket,
    /// One request at a time, with room for its answer.
    asking: tokio::sync::Mutex<Vec<u8>>,
    number: AtomicU64,
    ended: AtomicBool,
}

/// A block's file that was lent. Dropped, it is given back.
pub struct Borrowed {
    lender: Arc<Lender>,
    number: u64,
    pub block: LentBlock,
    pub file: File,
    /// What was read of it.
    pub read_bytes: AtomicU64,
    mount: Option<MountId>,
    /// How much of it counts.
    end_bytes: u64,
}

impl Borrowed {
    /// What is behind this does not count.
    pub fn limit(&mut self, end_bytes: u64) {
        self.end_bytes = self.end_bytes.min(end_bytes);
    }

    /// How long the block is for who reads it.
    pub fn end_bytes(&self) -> u64 {
        self.end_bytes
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.lender
            .give_back(self.number, self.read_bytes.load(Ordering::Relaxed), self.mount);
    }
}

impl Router {
    /// The file of a block, if one of its workers is on this host and has it so.
    pub async fn borrow(
        &self,
        block: &BlockRef,
        workers: impl IntoIterator<Item = &WorkerId>,
        addresses: &[WorkerAddress],
        mount: Option<MountId>,
    ) -> Option<Borrowed> {
        for worker in workers {
            let Some(lender) = self.lender(*worker, addresses).await else {
                continue;
            };
            match lender.lend(block, mount).await {
                Ok(borrowed) => return Some(borrowed),
                Err(error) => {
                    tracing::debug!(%worker, "block {} is read by way of the network: {error}", block.id);
                }
            }
        }
        None
    }

    async fn lender(&self, worker: WorkerId, addresses: &[WorkerAddress]) -> Option<Arc<Lender>> {
        let session = &self.session;
        let ports = &session.ports;
        if !ports.network.has_host_sockets() {
            return None;
        }
        match session.lenders.known().get(&worker) {
            Some(Known::Near(lender)) if !lender.ended.load(Ordering::Acquire) => {
                return Some(lender.clone());
            }
            Some(Known::FarUntil(until)) if ports.clock.now() < *until => return None,
            _ => {}
        }
        let connected = self.connect_to_lender(worker, addresses).await;
        let known = match &connected {
            Ok(lender) => Known::Near(lender.clone()),
            Err(error) => {
                tracing::debug!(%worker, "it lends no files here: {error}");
                Known::FarUntil(ports.clock.now() + FAR)
            }
        };
        session.lenders.known().insert(worker, known);
        connected.ok()
    }

    async fn connect_to_lender(&self, worker: WorkerId, addresses: &[WorkerAddress]) -> Result<Arc<Lender>> {
        let port = self.worker(worker, addresses)?;
        let asked = self.ask_worker(&port, GetHostSocket {}, bytes::Bytes::new());
        let told = timeout(PATIENCE, asked).await.map_err(|_| silent())??;
        if told.reply.name.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "it lends to nobody"));
        }
        let socket = self.session.ports.network.connect_on_host(&told.reply.name)?;
        Ok(Arc::new(Lender {
            socket,
            asking: tokio::sync::Mutex::new(vec![0; MESSAGE_BYTES_MAX]),
            number: AtomicU64::new(1),
            ended: AtomicBool::new(false),
        }))
    }
}

impl Lender {
    /// # Errors
    /// As [`HostReply`]; `Timeout`, `Unreachable`: then the connection has ended.
    async fn lend(self: &Arc<Self>, block: &BlockRef, mount: Option<MountId>) -> Result<Borrowed> {
        let asked = timeout(PATIENCE, self.ask(block, mount)).await;
        let asked = asked.unwrap_or_else(|_| Err(silent()));
        if let Err(error) = &asked
            && matches!(
                error.kind,
                ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Protocol
            )
        {
            self.end();
        }
        asked
    }

    async fn ask(self: &Arc<Self>, block: &BlockRef, mount: Option<MountId>) -> Result<Borrowed> {
        let mut buffer = self.asking.lock().await;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let request = HostRequest::Lend {
            number,
            block: block.id,
            generation: block.generation,
        };
        let lost = |error: io::Error| Error::new(ErrorKind::Unreachable, format!("its socket: {error}"));
        self.socket
            .send(&codec::encode(&request), None)
            .await
            .map_err(lost)?;
        loop {
            let received = self.socket.receive(&mut buffer).await.map_err(lost)?;
            let Some((length, file)) = received else {
                return Err(Error::new(ErrorKind::Unreachable, "its socket has been closed"));
            };
            let reply: HostReply = codec::decode(&buffer[..length])?;
            if reply.number != number {
                // Whoever asked for it has gone.
                if reply.lent.is_ok() {
                    self.give_back(reply.number, 0, None);
                }
                continue;
            }
            let (block, Some(file)) = (reply.lent?, file) else {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    "a file was lent and did not come",
                ));
            };
            return Ok(Borrowed {
                end_bytes: block.len_bytes,
                lender: self.clone(),
                number,
                block,
                file: file.into(),
                read_bytes: AtomicU64::new(0),
                mount,
            });
        }
    }

    fn give_back(&self, number: u64, read_bytes: u64, mount: Option<MountId>) {
        let request = HostRequest::Return {
            number,
            read_bytes,
            mount,
        };
        // The end of the connection says it as well.
        if self.socket.try_send(&codec::encode(&request)).is_err() {
            self.end();
        }
    }

    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.socket.shut_down();
        }
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Timeout, format!("no answer within {PATIENCE:?}"))
}
