//! Messages between masters: openraft's, in the bodies of [`RaftMessage`] calls on the port that clients use as well.
//!
//! Three connections to each: entries, heartbeats and votes never wait behind a snapshot; and one whose log waits for room on its
//! disk, and lets heartbeats go unanswered until their connection is given up, still says how it stands.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::ArbiterHandle;
use bytes::Bytes;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::codec::{decode, encode};
use curvine_protocol::master::{RaftMessage, RaftMessageKind};
use curvine_protocol::number::whole_ms;
use curvine_protocol::{CallContext, Error, ErrorKind, NodeId, Result as Asked};
use futures::future::join_all;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, Snapshot, StorageIOError};
use serde::de::DeserializeOwned;

use super::Origin;
use super::types::{Standing, TypeConfig, Vote};
use crate::kit::peer::Peer;
use crate::kit::ports::offloaded;
use crate::kit::{Answer, Ask, Body, Clock, Endpoint, Offload, Ports};

/// Most bytes of entries in one message, if there is more than one entry.
const APPEND_BYTES_MAX: usize = 4 << 20;
/// A part of a snapshot.
pub(super) const PART_BYTES: usize = 1 << 20;
const PART_DEADLINE: Duration = Duration::from_secs(10);
/// Installing replaces the whole state of the receiver.
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);
const STANDING_DEADLINE: Duration = Duration::from_millis(700);
/// Between tries to reach a master that is gone.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Whose history this master has, as far as it knows.
pub type OwnOrigin = Arc<dyn Fn() -> Option<Origin> + Send + Sync>;

/// Where messages to another master can be given.
pub type MasterEndpoint = Arc<dyn Endpoint<RaftMessage>>;

/// Makes the way to another master: asked once for each connection.
pub trait MasterConnector: Send + Sync {
    fn connect(&self, address: &str) -> MasterEndpoint;
}

/// Proxies in one arbiter.
pub struct Proxies {
    arbiter: ArbiterHandle,
    ports: Ports,
}

impl Proxies {
    pub fn in_arbiter(arbiter: ArbiterHandle, ports: &Ports) -> Self {
        Proxies {
            arbiter,
            ports: ports.clone(),
        }
    }
}

impl MasterConnector for Proxies {
    fn connect(&self, address: &str) -> MasterEndpoint {
        Arc::new(Peer::start(&self.arbiter, address, &self.ports))
    }
}

/// The ways to other masters.
#[derive(Clone)]
pub struct Network {
    me: NodeId,
    origin: OwnOrigin,
    connector: Arc<dyn MasterConnector>,
    /// Reads the snapshots that are sent.
    sender: Arc<dyn Offload>,
    clock: Arc<dyn Clock>,
    ways: Arc<Mutex<HashMap<(NodeId, String), Connections>>>,
}

#[derive(Clone)]
struct Connections {
    proxy: MasterEndpoint,
    bulk: MasterEndpoint,
    asks: MasterEndpoint,
    /// It did not answer the last time: said once.
    is_silent: Arc<AtomicBool>,
}

/// The way to one other master.
#[derive(Clone)]
pub struct Way {
    network: Network,
    to: NodeId,
    address: String,
    connections: Connections,
}

impl Network {
    pub fn new(
        me: NodeId,
        origin: OwnOrigin,
        connector: Arc<dyn MasterConnector>,
        sender: Arc<dyn Offload>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Network {
            me,
            origin,
            connector,
            sender,
            clock,
            ways: Arc::default(),
        }
    }

    pub fn way(&self, to: NodeId, address: &str) -> Way {
        let proxy = || self.connector.connect(address);
        let mut ways = self.ways.lock().expect("nobody panics while it holds this");
        let connections = ways
            .entry((to, address.to_owned()))
            .or_insert_with(|| Connections {
                proxy: proxy(),
                bulk: proxy(),
                asks: proxy(),
                is_silent: Arc::default(),
            });
        Way {
            network: self.clone(),
            to,
            address: address.to_owned(),
            connections: connections.clone(),
        }
    }
}

impl Network {
    /// The ways to all of these but this master.
    pub fn others<'a>(
        &self,
        nodes: impl IntoIterator<Item = (&'a u64, &'a BasicNode)>,
    ) -> impl Iterator<Item = (NodeId, Way)> {
        let others = nodes.into_iter().filter(|(id, _)| **id != self.me.0);
        others.map(|(id, node)| (NodeId(*id), self.way(NodeId(*id), &node.addr)))
    }

    /// How all of these but this master stand.
    pub async fn standings<'a>(
        &self,
        nodes: impl IntoIterator<Item = (&'a u64, &'a BasicNode)>,
    ) -> Vec<(NodeId, Asked<Standing>)> {
        let asked = self.others(nodes);
        join_all(asked.map(|(id, way)| async move { (id, way.standing().await) })).await
    }
}

impl Way {
    async fn ask(
        &self,
        proxy: &MasterEndpoint,
        kind: RaftMessageKind,
        body: Bytes,
        deadline: Duration,
    ) -> Asked<Bytes> {
        let origin = (self.network.origin)();
        let message = RaftMessage {
            cluster: origin.map(|origin| origin.cluster),
            from: self.network.me,
            to: self.to,
            kind,
            restored_ns: origin.map_or(0, |origin| origin.restored_ns),
        };
        let context = CallContext {
            deadline_ms: whole_ms(deadline).max(1),
            ..CallContext::default()
        };
        let Answer { body, .. } = Endpoint::ask(&**proxy, Ask::new(message, context).with_body(body)).await?;
        match body {
            Body::Bytes(bytes) => Ok(bytes),
            Body::File(_) => Err(Error::internal("masters answer each other with bytes")),
        }
    }

    /// How that master stands.
    pub async fn standing(&self) -> Asked<Standing> {
        let answer = self.ask(
            &self.connections.asks,
            RaftMessageKind::Standing,
            Bytes::new(),
            STANDING_DEADLINE,
        );
        decode(&answer.await?)
    }

    /// Has that master stand for election, on the word of its leader.
    pub async fn elect(&self, again: bool) -> Asked<()> {
        let kind = RaftMessageKind::Elect { again };
        let asked = self.ask(&self.connections.asks, kind, Bytes::new(), STANDING_DEADLINE);
        asked.await.map(|_| ())
    }

    fn failed(&self, error: Error) -> RPCError<u64, BasicNode, RaftError<u64>> {
        match error.kind {
            ErrorKind::WrongCluster | ErrorKind::Config | ErrorKind::Unreachable | ErrorKind::Stopping => {
                Unreachable::new(&error).into()
            }
            _ => NetworkError::new(&error).into(),
        }
    }

    fn note(&self, outcome: std::result::Result<(), &Error>) {
        let was_silent = self
            .connections
            .is_silent
            .swap(outcome.is_err(), Ordering::AcqRel);
        match outcome {
            Err(error) if !was_silent => tracing::warn!("master {} at {}: {error}", self.to, self.address),
            Ok(()) if was_silent => tracing::info!("master {} at {} answers again", self.to, self.address),
            _ => {}
        }
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        kind: RaftMessageKind,
        body: Vec<u8>,
        option: &RPCOption,
    ) -> Result<T, RPCError<u64, BasicNode, RaftError<u64>>> {
        let asked = self.ask(&self.connections.proxy, kind, body.into(), option.hard_ttl());
        let answered = asked.await.and_then(|answer| decode(&answer));
        // Who declines to vote has answered.
        self.note(match &answered {
            Err(error) if error.kind != ErrorKind::Busy => Err(error),
            _ => Ok(()),
        });
        answered.map_err(|error| self.failed(error))
    }

    /// Sends a snapshot's file from where the receiver has it, then has it installed.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let path = snapshot.snapshot.path.clone();
        let unreadable = |error: std::io::Error| {
            let error = Error::from(error).while_doing(format_args!("reading {}", path.display()));
            StreamingError::StorageError(StorageIOError::read_snapshot(None, &error).into())
        };
        let unsent = |error: Error| match error.kind {
            ErrorKind::Unreachable | ErrorKind::Stopping | ErrorKind::WrongCluster => {
                StreamingError::Unreachable(Unreachable::new(&error))
            }
            _ => StreamingError::Network(NetworkError::new(&error)),
        };
        let file = Arc::new(File::open(&path).map_err(unreadable)?);
        let name = snapshot.meta.snapshot_id.clone();
        let sender = &*self.network.sender;
        let whole = checksum_of(file.clone(), sender).await.map_err(unreadable)?;
        let mut offset_bytes = 0;
        loop {
            let part = read_part(file.clone(), offset_bytes, sender)
                .await
                .map_err(unreadable)?;
            let end = offset_bytes + part.len() as u64;
            let kind = RaftMessageKind::SnapshotPart {
                snapshot: name.clone(),
                offset_bytes,
                checksum: crc32c(&part),
            };
            let is_last = part.is_empty();
            let answer = self.ask(&self.connections.bulk, kind, part, PART_DEADLINE).await;
            let has: u64 = answer.and_then(|answer| decode(&answer)).map_err(unsent)?;
            if is_last && has == end {
                break;
            }
            offset_bytes = has;
        }
        let kind = RaftMessageKind::SnapshotEnd {
            snapshot: name,
            checksum: whole,
        };
        let body = encode(&(vote, &snapshot.meta));
        let installed = self
            .ask(&self.connections.bulk, kind, body.into(), INSTALL_DEADLINE)
            .await;
        installed.and_then(|answer| decode(&answer)).map_err(unsent)
    }
}

async fn read_part(file: Arc<File>, offset_bytes: u64, reader: &dyn Offload) -> std::io::Result<Bytes> {
    let read = offloaded(reader, move || {
        let mut part = vec![0; PART_BYTES];
        let mut have = 0;
        while have < part.len() {
            match file.read_at(&mut part[have..], offset_bytes + have as u64)? {
                0 => break,
                count => have += count,
            }
        }
        part.truncate(have);
        Ok(part.into())
    });
    read.await.map_err(std::io::Error::other)?
}

/// The checksum of a whole file.
pub(super) async fn checksum_of(file: Arc<File>, reader: &dyn Offload) -> std::io::Result<u32> {
    let (mut sum, mut at) = (0, 0);
    loop {
        let part = read_part(file.clone(), at, reader).await?;
        if part.is_empty() {
            return Ok(sum);
        }
        sum = curvine_protocol::checksum::crc32c_combine(sum, crc32c(&part), part.len() as u64);
        at += part.len() as u64;
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Way {
        self.way(NodeId(target), &node.addr)
    }
}

type RpcResult<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        let body = encode(&request);
        let entries = request.entries.len();
        if body.len() > APPEND_BYTES_MAX && entries > 1 {
            return Err(PayloadTooLarge::new_entries_hint(entries as u64 / 2).into());
        }
        self.answer(RaftMessageKind::Append, body, &option).await
    }

    async fn vote(&mut self, request: VoteRequest<u64>, option: RPCOption) -> RpcResult<VoteResponse<u64>> {
        let asked = self.network.clock.now();
        let answered = self
            .answer(RaftMessageKind::Vote, encode(&request), &option)
            .await;
        // However long this process was stopped meanwhile: a vote that its giver has lost since must not count (see `group`).
        if self.network.clock.now().duration_since(asked) > option.hard_ttl() {
            return Err(NetworkError::new(&Error::new(ErrorKind::Timeout, "the vote came too late")).into());
        }
        answered
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(AGAIN_AFTER))
    }
}
