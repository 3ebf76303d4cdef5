//! What surrounds a worker in these tests.

use std::any::Any;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use curvine_conf::{DataDir, Size};
use curvine_protocol::checksum::crc32c;
use curvine_protocol::cluster::{BlockReplica, Tier};
use curvine_protocol::master::*;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::worker::{
    BlockData, BlockSealed, BlockWritten, Fill, PunchBlock, PutBlock, ReadBlock, SealBlock, Wish, WriteBlock,
    WriteOrder,
};
use curvine_protocol::{
    BlockId, CallContext, ClusterId, Error, ErrorKind, FileLayout, InodeId, MountId, Result, WorkerId,
    for_master_calls,
};
use futures::future::BoxFuture;

use crate::kit::until::{until, until_some};
use crate::kit::{Answer, Ask, Endpoint, Ports, WorkerPort};
use crate::worker::disk::chunks_of;
use crate::worker::{WorkerConfig, WorkerHandle};

pub const CLUSTER: ClusterId = ClusterId(0xC1);

/// A master that knows one worker, a few files and a mount.
#[derive(Default)]
pub struct MockMaster {
    pub state: Mutex<MasterState>,
}

#[derive(Default)]
pub struct MasterState {
    /// What it calls its worker; 0 is 1.
    pub worker: u32,
    pub registrations: u32,
    pub held: HashMap<BlockId, (u32, u64)>,
    pub full_reports: u32,
    /// Answered as garbage when reported.
    pub garbage: HashSet<BlockId>,
    /// Where answers to reports of garbage wait, and how many did.
    pub garbage_gate: Option<Arc<tokio::sync::Semaphore>>,
    pub garbage_reports: u32,
    pub ask_to_register: bool,
    /// It answers nobody.
    pub is_silent: bool,
    /// Of the last registration.
    pub epoch: u64,
    pub refuses_reports: bool,
    /// What was reported to be damaged.
    pub damaged: BTreeSet<BlockId>,
    /// What it says to be of no use of that.
    pub discard: BTreeSet<BlockId>,
    /// It does not say that doubtful blocks count.
    pub keeps_doubts: bool,
    pub refused_reports: u32,
    pub files: HashMap<InodeId, FileLayout>,
    pub changed: Vec<InodeId>,
    pub describes: u32,
    pub mount_uri: String,
    pub mount_token: Option<String>,
    pub cache_shares: Option<Vec<CacheShare>>,
}

impl MockMaster {
    pub fn mount(&self, id: MountId) -> MountRecord {
        let state = self.state.lock().unwrap();
        let token = state.mount_token.iter();
        MountRecord {
            id,
            path: curvine_protocol::CurvinePath::parse("/data").unwrap(),
            uri: state.mount_uri.clone(),
            options: token
                .map(|token| ("session_token".to_owned(), token.clone()))
                .collect(),
            settings: Default::default(),
            created_ns: 0,
        }
    }

    fn answer(&self, call: &dyn Any) -> Result<Box<dyn Any>> {
        let mut state = self.state.lock().unwrap();
        if state.is_silent {
            return Err(Error::new(ErrorKind::Unreachable, "no answer"));
        }
        if let Some(register) = call.downcast_ref::<RegisterWorker>() {
            state.epoch = register.epoch;
            state.registrations += 1;
            state.ask_to_register = false;
            return Ok(Box::new(WorkerRegistered {
                worker: WorkerId(state.worker.max(1)),
                cluster: CLUSTER,
                token: state.registrations.into(),
            }));
        }
        if call.is::<WorkerHeartbeat>() {
            let register = state.ask_to_register;
            return Ok(Box::new(HeartbeatOrders {
                register,
                cache_shares: state.cache_shares.clone(),
            }));
        }
        if let Some(report) = call.downcast_ref::<ReportBlocks>() {
            if state.refuses_reports {
                state.refused_reports += 1;
                return Err(Error::new(ErrorKind::Unreachable, "no reports now"));
            }
            if report.full_start {
                state.held.clear();
            }
            state.full_reports += u32::from(report.full_end);
            let mut delete = Vec::new();
            for replica in &report.stored {
                if state.garbage.contains(&replica.id) {
                    state.garbage_reports += 1;
                    delete.push(replica.id);
                } else {
                    state
                        .held
                        .insert(replica.id, (replica.generation, replica.len_bytes));
                }
            }
            for block in &report.removed {
                state.held.remove(block);
            }
            let accept = match state.keeps_doubts {
                true => Vec::new(),
                false => report.doubtful.clone(),
            };
            state.damaged.extend(report.damaged.iter().copied());
            let discard = state.discard.iter().copied().collect();
            return Ok(Box::new(ReportAnswer {
                delete,
                accept,
                discard,
            }));
        }
        if let Some(describe) = call.downcast_ref::<DescribeFile>() {
            state.describes += 1;
            return match state.files.get(&describe.inode) {
                Some(layout) => Ok(Box::new(layout.clone())),
                None => Err(Error::not_found(format!("inode {}", describe.inode))),
            };
        }
        if let Some(resolve) = call.downcast_ref::<ResolveMount>() {
            drop(state);
            let record = self.mount(resolve.mount);
            return Ok(Box::new(MountSecret { record }));
        }
        if let Some(changed) = call.downcast_ref::<ReportUfsChanged>() {
            state.changed.push(changed.inode);
            return Ok(Box::new(curvine_protocol::worker::Done {}));
        }
        Err(Error::new(ErrorKind::Unsupported, "not mocked"))
    }

    /// What the answer waits for, if for anything.
    fn gate(&self, call: &dyn Any) -> Option<Arc<tokio::sync::Semaphore>> {
        let state = self.state.lock().unwrap();
        let report = call.downcast_ref::<ReportBlocks>()?;
        let garbage = |replica: &BlockReplica| state.garbage.contains(&replica.id);
        report
            .stored
            .iter()
            .any(garbage)
            .then(|| state.garbage_gate.clone())?
    }
}

macro_rules! mock {
    (; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {$(
        impl Endpoint<$call> for MockMaster {
            fn ask(&self, ask: Ask<$call>) -> BoxFuture<'static, Result<Answer<$call>>> {
                let gate = self.gate(&ask.call);
                let answer = self.answer(&ask.call).map(|reply| {
                    let reply = reply.downcast::<<$call as curvine_protocol::Call>::Reply>();
                    Answer::<$call>::new(*reply.expect("the mock answers with the call's reply"))
                });
                Box::pin(async move {
                    if let Some(gate) = gate {
                        gate.acquire().await.unwrap().forget();
                    }
                    answer
                })
            }
        }
    )*};
}
for_master_calls!(mock);

pub struct World {
    pub master: Arc<MockMaster>,
    pub directory: tempfile::TempDir,
    pub sources: Arc<dyn crate::worker::source::Sources>,
    pub peers: Arc<dyn crate::kit::WorkerConnector>,
}

impl World {
    pub fn new() -> Self {
        World {
            master: Arc::new(MockMaster::default()),
            directory: tempfile::tempdir().unwrap(),
            sources: Arc::new(crate::worker::source::OpenDal),
            peers: Arc::new(NoPeers),
        }
    }

    pub fn disk(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn config(&self) -> WorkerConfig {
        self.config_of(&[("d0", Tier::Ssd, 1 << 30)])
    }

    pub fn config_of(&self, disks: &[(&str, Tier, u64)]) -> WorkerConfig {
        let data_dirs = disks.iter().map(|&(name, tier, capacity)| DataDir {
            tier,
            capacity: Some(Size(capacity)),
            path: self.disk(name),
        });
        let mut config = WorkerConfig::new(data_dirs.collect());
        config.heartbeat = Duration::from_millis(50);
        config.report_delay = Duration::from_millis(10);
        config.disk.reserve_bytes = Some(0);
        config
    }

    /// Starts a worker; waits while a killed one's index is still being let go.
    pub async fn start(&self, config: WorkerConfig) -> WorkerHandle {
        self.start_with(config, Ports::system()).await
    }

    pub async fn start_with(&self, config: WorkerConfig, ports: Ports) -> WorkerHandle {
        until_some("the index is let go", async || {
            let started = crate::worker::start_with(
                config.clone(),
                ports.clone(),
                self.master.clone(),
                self.peers.clone(),
                "127.0.0.1:1".to_owned(),
                self.sources.clone(),
                crate::worker::Threads::own(),
            );
            match started.await {
                Ok(handle) => Some(handle),
                Err(error) if error.message.contains("already open") => None,
                Err(error) => panic!("the worker does not start: {error}"),
            }
        })
        .await
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&MasterState) -> bool) {
        until(what, || condition(&self.master.state.lock().unwrap())).await;
    }
}

/// There is one other worker.
pub struct OnePeer(pub crate::kit::WorkerRef);

impl crate::kit::WorkerConnector for OnePeer {
    fn connect(&self, _id: WorkerId, _address: &str) -> crate::kit::WorkerRef {
        self.0.clone()
    }
}

/// Workers by their ids, which may come later.
#[derive(Clone, Default)]
pub struct Peers(pub Arc<Mutex<HashMap<WorkerId, crate::kit::WorkerRef>>>);

impl crate::kit::WorkerConnector for Peers {
    fn connect(&self, id: WorkerId, _address: &str) -> crate::kit::WorkerRef {
        self.0.lock().unwrap()[&id].clone()
    }
}

/// There is one worker.
pub struct NoPeers;

impl crate::kit::WorkerConnector for NoPeers {
    fn connect(&self, id: WorkerId, _address: &str) -> crate::kit::WorkerRef {
        panic!("worker {id} is asked for, and there is one worker")
    }
}

/// Lets go of a worker as a kill does: nothing is synced, nothing is noted.
pub fn kill(handle: WorkerHandle) {
    drop(handle);
}

pub fn bytes_of(seed: u64, len: usize) -> Bytes {
    (0..len)
        .map(|i| ((i as u64).wrapping_mul(0x9E37_79B9).wrapping_add(seed * 77) >> 5).to_le_bytes()[0])
        .collect::<Vec<_>>()
        .into()
}

pub async fn put(port: &dyn WorkerPort, block: u64, generation: u32, body: Bytes) -> Result<BlockSealed> {
    let call = PutBlock {
        block: BlockId(block),
        generation,
        checksum: crc32c(&body),
        sync: false,
        epoch: 0,
        order: WriteOrder::default(),
        tier: None,
    };
    let ask = Ask::new(call, CallContext::default()).with_body(body);
    Ok(Endpoint::<PutBlock>::ask(port, ask).await?.reply)
}

pub async fn write(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    offset_bytes: u64,
    base_len_bytes: u64,
    body: Bytes,
) -> Result<BlockWritten> {
    let order = WriteOrder::default();
    write_in(port, block, generation, offset_bytes, base_len_bytes, body, order).await
}

/// [`write`], by a writer that numbers its changes.
pub async fn write_in(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    offset_bytes: u64,
    base_len_bytes: u64,
    body: Bytes,
    order: WriteOrder,
) -> Result<BlockWritten> {
    let call = WriteBlock {
        block: BlockId(block),
        generation,
        offset_bytes,
        checksum: crc32c(&body),
        base_len_bytes,
        reserve_bytes: 0,
        epoch: 0,
        order,
        tier: None,
    };
    let ask = Ask::new(call, CallContext::default()).with_body(body);
    Ok(Endpoint::<WriteBlock>::ask(port, ask).await?.reply)
}

pub async fn punch(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    hole: std::ops::Range<u64>,
    base_len_bytes: u64,
) -> Result<BlockWritten> {
    let call = PunchBlock {
        block: BlockId(block),
        generation,
        offset_bytes: hole.start,
        len_bytes: hole.end - hole.start,
        base_len_bytes,
        epoch: 0,
        order: WriteOrder::default(),
    };
    let ask = Ask::new(call, CallContext::default());
    Ok(Endpoint::<PunchBlock>::ask(port, ask).await?.reply)
}

pub async fn seal(port: &dyn WorkerPort, block: u64, generation: u32, sync: bool) -> Result<BlockSealed> {
    seal_in(port, block, generation, sync, WriteOrder::default()).await
}

/// [`seal`], by a writer that numbers its changes.
pub async fn seal_in(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    sync: bool,
    order: WriteOrder,
) -> Result<BlockSealed> {
    let call = SealBlock {
        block: BlockId(block),
        generation,
        sync,
        epoch: 0,
        or_newer: false,
        order,
    };
    Ok(
        Endpoint::<SealBlock>::ask(port, Ask::new(call, CallContext::default()))
            .await?
            .reply,
    )
}

/// Reads as a client does: verifies the checksums of the pieces.
pub async fn read(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    offset_bytes: u64,
    len_bytes: u32,
    fill: Option<Fill>,
) -> Result<Bytes> {
    let call = ReadBlock {
        block: BlockId(block),
        generation,
        offset_bytes,
        len_bytes,
        fill,
        exact: false,
        tier: Wish::UNSAID,
    };
    let answer = Endpoint::<ReadBlock>::ask(port, Ask::new(call, CallContext::default())).await?;
    let BlockData { checksums, .. } = answer.reply;
    let bytes = answer.body.read()?;
    let pieces = crate::worker::disk::pieces_of(offset_bytes, &bytes);
    if pieces.iter().map(|piece| piece.checksum).collect::<Vec<_>>() != checksums {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the reader found a wrong checksum",
        ));
    }
    Ok(bytes)
}

/// Reads a whole block, in calls as large as allowed.
pub async fn read_all(
    port: &dyn WorkerPort,
    block: u64,
    generation: u32,
    fill: Option<Fill>,
) -> Result<Bytes> {
    let mut all = Vec::new();
    loop {
        let part = read(port, block, generation, all.len() as u64, 1 << 20, fill.clone()).await?;
        if part.is_empty() {
            return Ok(all.into());
        }
        all.extend_from_slice(&part);
    }
}

pub fn block_file(disk: &Path, block: u64) -> PathBuf {
    disk.join(format!("blocks/{:02x}/{block:016x}", block & 0xff))
}

/// Changes one byte of a block behind the worker's back.
pub fn flip(disk: &Path, block: u64, at: usize) {
    let path = block_file(disk, block);
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(at < bytes.len() && chunks_of(bytes.len() as u64) > 0);
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}
