//! Masters and workers in memory, which lose, delay, refuse and damage what they are told to; under virtual time.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use actix_rt::{Arbiter, System};
use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::checksum::{CHUNK_BYTES, crc32c};
use curvine_protocol::master::*;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::*;
use curvine_protocol::*;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::super::route::Router;
use super::super::{Client, ClientOptions};
use crate::kit::{Answer, Ask, Body, Endpoint, MasterRef, Ports, WorkerRef};

pub const BLOCK_BYTES: u64 = 16 << 20;
pub const FILE: InodeId = InodeId(7);

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Nothing out of the ordinary.
    Pass,
    /// It is refused, without an effect.
    Refuse(Error),
    /// It has its effect, and the reply is lost: the caller waits until its deadline.
    LoseReply,
    /// It arrives after this pause.
    Late(Duration),
    /// It has its effect at once, and the reply arrives after this pause.
    LateReply(Duration),
    /// Reads: the bytes are damaged, longer than asked, without checksums.
    Damage,
    TooMany,
    Unsummed,
}

/// A call as the world saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: &'static str,
    pub call: &'static str,
    pub sequence: u64,
    pub body_bytes: usize,
}

#[derive(Default)]
pub struct State {
    pub seen: Vec<Seen>,
    /// By call's name and, for workers, their number: what happens to the next ones, in order. The last stays.
    pub fates: HashMap<(&'static str, u32), VecDeque<Fate>>,
    pub file: Option<File>,
    pub directories_made: u32,
    replies: HashMap<(ClientId, u64), Result<Stored>>,
    sessions: u64,
    /// Whether another client wants the file.
    pub wanted: bool,
    /// Of the workers. Those that write in another one are refused.
    pub epoch: u64,
    /// Of the workers' disks. What was acknowledged in another one is gone, sealed or not.
    pub life: u64,
    /// The orders of changes that workers took.
    pub orders: Vec<(&'static str, WriteOrder)>,
    /// Blocks that workers have set aside, as the masters know.
    pub damaged: Vec<BlockId>,
    /// No worker that has blocks is known to the masters.
    pub nobody_has_it: bool,
    pub blocks: HashMap<(u32, BlockId), (u32, Vec<u8>)>,
    next_block: u64,
    pub in_flight: usize,
    pub in_flight_max: usize,
}

/// The one file there can be.
#[derive(Clone, Debug)]
pub struct File {
    pub size_bytes: u64,
    pub content_version: u64,
    pub blocks: BTreeMap<u32, BlockRef>,
    pub replicas: u8,
    pub leased: bool,
}

#[derive(Clone)]
enum Stored {
    Entry(Entry),
    Layout(FileLayout),
    Done,
}

pub struct World {
    pub state: Arc<Mutex<State>>,
    /// Workers answer while this is true.
    pub open: watch::Sender<bool>,
}

impl World {
    pub fn new() -> World {
        World {
            state: Arc::default(),
            open: watch::Sender::new(true),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("tests hold it shortly")
    }

    /// Decides about the next calls with this name.
    pub fn fate(&self, call: &'static str, fates: impl IntoIterator<Item = Fate>) {
        self.fate_at(0, call, fates);
    }

    /// As [`World::fate`], of one worker.
    pub fn fate_at(&self, worker: u32, call: &'static str, fates: impl IntoIterator<Item = Fate>) {
        self.state()
            .fates
            .insert((call, worker), fates.into_iter().collect());
    }

    pub fn seen(&self, call: &str) -> Vec<Seen> {
        let state = self.state();
        state
            .seen
            .iter()
            .filter(|seen| seen.call == call)
            .cloned()
            .collect()
    }

    fn master(&self, address: &'static str) -> (String, MasterRef) {
        let node = Node {
            state: self.state.clone(),
            open: self.open.subscribe(),
            address,
            worker: 0,
        };
        (address.to_owned(), Arc::new(node))
    }

    /// A client of masters at these addresses. Must be called within [`run`].
    pub fn client_of(&self, masters: &[&'static str]) -> Client {
        self.client_with(masters, ClientOptions::default())
    }

    /// A client that tries nothing twice.
    pub fn impatient_client(&self) -> Client {
        let options = ClientOptions {
            retry_for: Duration::ZERO,
            ..ClientOptions::default()
        };
        self.client_with(&["m1"], options)
    }

    fn client_with(&self, masters: &[&'static str], options: ClientOptions) -> Client {
        let masters = masters.iter().map(|address| self.master(address)).collect();
        let (state, open) = (self.state.clone(), self.open.clone());
        let workers = move |id: WorkerId| {
            let node = Node {
                state: state.clone(),
                open: open.subscribe(),
                address: if id.0 == 1 { "worker 1" } else { "worker 2" },
                worker: id.0,
            };
            Some(Arc::new(node) as WorkerRef)
        };
        let router = Router::in_process(
            &Arbiter::current(),
            masters,
            Arc::new(workers),
            options,
            Ports::system(),
        );
        Client::of(router.expect("there is a master"), &Arbiter::current())
    }

    pub fn client(&self) -> Client {
        self.client_of(&["m1"])
    }

    /// The committed content, from the first replica.
    pub fn committed(&self) -> Vec<u8> {
        let state = self.state();
        let file = state.file.clone().expect("there is a file");
        let mut content = Vec::new();
        for (index, block) in &file.blocks {
            let (_, bytes) = &state.blocks[&(1, block.id)];
            content.resize(to_usize(u64::from(*index) * BLOCK_BYTES), 0);
            content.extend_from_slice(&bytes[..to_usize(block.len_bytes)]);
        }
        content.resize(to_usize(file.size_bytes), 0);
        content
    }
}

/// Runs a test under virtual time.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(test(World::new()));
}

/// A master or a worker.
struct Node {
    state: Arc<Mutex<State>>,
    open: watch::Receiver<bool>,
    address: &'static str,
    /// 0 for a master.
    worker: u32,
}

impl<C: Call> Endpoint<C> for Node {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let deadline = Duration::from_millis(ask.context.deadline_ms.into());
        let (state, mut open) = (self.state.clone(), self.open.clone());
        if (&ask.call as &dyn Any).is::<AwaitNews>() {
            return Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let wanted = std::mem::take(&mut state.lock().expect("short").wanted);
                let recalls: Box<dyn Any> = Box::new(News {
                    recalls: wanted.then_some(FILE).into_iter().collect(),
                });
                let reply = recalls.downcast::<C::Reply>().expect("the reply of its call");
                Ok(Answer::with_body(*reply, Body::Bytes(Bytes::new())))
            });
        }
        if (&ask.call as &dyn Any).is::<TellOpen>() {
            let told: Box<dyn Any> = Box::new(OpenTold {
                term: 1,
                ..OpenTold::default()
            });
            let reply = told.downcast::<C::Reply>().expect("the reply of its call");
            let answer = Answer::with_body(*reply, Body::Bytes(Bytes::new()));
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let (address, worker) = (self.address, self.worker);
        let answering = async move {
            let fate = {
                let mut state = state.lock().expect("short");
                state.seen.push(Seen {
                    at: address,
                    call: C::NAME,
                    sequence: ask.context.sequence,
                    body_bytes: ask.body.len(),
                });
                state.in_flight += 1;
                state.in_flight_max = state.in_flight_max.max(state.in_flight);
                let fates = state.fates.get_mut(&(C::NAME, worker));
                fates.and_then(|fates| match fates.len() {
                    1 => fates.front().cloned(),
                    _ => fates.pop_front(),
                })
            };
            if worker != 0 {
                let _ = open.wait_for(|open| *open).await;
            }
            if let Some(Fate::Late(pause)) = fate {
                tokio::time::sleep(pause).await;
            }
            match fate {
                Some(Fate::Refuse(error)) => Err(error),
                fate => {
                    let (call, body) = (&ask.call as &dyn Any, &ask.body);
                    let outcome =
                        state
                            .lock()
                            .expect("short")
                            .answer(worker, call, &ask.context, body, &fate);
                    if matches!(fate, Some(Fate::LoseReply)) {
                        std::future::pending::<()>().await;
                    }
                    if let Some(Fate::LateReply(pause)) = fate {
                        tokio::time::sleep(pause).await;
                    }
                    outcome.map(|(reply, body)| {
                        let reply = reply.downcast::<C::Reply>().expect("the reply of its call");
                        Answer::with_body(*reply, Body::Bytes(body))
                    })
                }
            }
        };
        let state = self.state.clone();
        Box::pin(async move {
            // As a Peer does.
            let answer = tokio::time::timeout(deadline, answering)
                .await
                .unwrap_or_else(|_| {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        format!("{address} did not answer {}", C::NAME),
                    ))
                });
            state.lock().expect("short").in_flight -= 1;
            answer
        })
    }
}

type Reply = Result<(Box<dyn Any + Send>, Bytes)>;

fn plain<T: Send + 'static>(reply: T) -> Reply {
    Ok((Box::new(reply), Bytes::new()))
}

impl State {
    fn answer(
        &mut self,
        worker: u32,
        call: &dyn Any,
        context: &CallContext,
        body: &Bytes,
        fate: &Option<Fate>,
    ) -> Reply {
        if let Some(call) = call.downcast_ref::<ReadBlock>() {
            return self.read(worker, call, fate);
        }
        if let Some(call) = call.downcast_ref::<WriteBlock>() {
            assert_eq!(crc32c(body), call.checksum);
            self.check_epoch(call.epoch)?;
            self.check_order("WriteBlock", &call.order)?;
            let (generation, bytes) = self.blocks.entry((worker, call.block)).or_default();
            if call.generation < *generation {
                return Err(Error::new(ErrorKind::Stale, "an older generation"));
            }
            if call.generation > *generation {
                *generation = call.generation;
                bytes.truncate(to_usize(call.base_len_bytes));
            }
            let end = to_usize(call.offset_bytes) + body.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[to_usize(call.offset_bytes)..end].copy_from_slice(body);
            let len_bytes = bytes.len() as u64;
            return plain(BlockWritten {
                len_bytes,
                life: self.life,
            });
        }
        if let Some(call) = call.downcast_ref::<PunchBlock>() {
            self.check_epoch(call.epoch)?;
            let Some((generation, bytes)) = self.blocks.get_mut(&(worker, call.block)) else {
                return Err(Error::new(ErrorKind::NotFound, "not on this worker"));
            };
            if call.generation > *generation {
                *generation = call.generation;
                bytes.truncate(to_usize(call.base_len_bytes));
            }
            let end = to_usize(call.offset_bytes + call.len_bytes).min(bytes.len());
            bytes[to_usize(call.offset_bytes)..end].fill(0);
            let len_bytes = bytes.len() as u64;
            return plain(BlockWritten {
                len_bytes,
                life: self.life,
            });
        }
        if let Some(call) = call.downcast_ref::<PutBlock>() {
            self.check_epoch(call.epoch)?;
            self.check_order("PutBlock", &call.order)?;
            self.blocks
                .insert((worker, call.block), (call.generation, body.to_vec()));
            return plain(BlockSealed {
                len_bytes: body.len() as u64,
                life: self.life,
                hole_bytes: 0,
            });
        }
        if let Some(call) = call.downcast_ref::<SealBlock>() {
            if !call.or_newer {
                self.check_epoch(call.epoch)?;
            }
            self.check_order("SealBlock", &call.order)?;
            return match self.blocks.get(&(worker, call.block)) {
                Some((generation, bytes)) if *generation == call.generation || call.or_newer => {
                    plain(BlockSealed {
                        len_bytes: bytes.len() as u64,
                        life: self.life,
                        hole_bytes: 0,
                    })
                }
                Some(_) => Err(Error::new(ErrorKind::Stale, "another generation")),
                None => Err(Error::new(ErrorKind::NotFound, "not on this worker")),
            };
        }
        if call.is::<SuspectBlock>() {
            return plain(BlockVerified { is_right: true });
        }
        if call.is::<GetRoutes>() {
            return plain(Routes {
                cluster: ClusterId(1),
                leader: NodeId(1),
                masters: Vec::new(),
                workers: addresses(self.epoch),
            });
        }
        if call.is::<curvine_protocol::master::OpenFile>() {
            return plain(self.layout(0)?);
        }
        if call.is::<Lookup>() {
            let attr = self.attr()?;
            return plain(Entry { attr, target: None });
        }
        if call.is::<OpenSession>() {
            self.sessions += 1;
            return plain(SessionOpened {
                client: ClientId(self.sessions),
            });
        }
        let stored = match self.replies.get(&(context.client, context.sequence)) {
            Some(stored) if context.sequence != 0 => stored.clone(),
            _ => self.change(call),
        };
        self.replies
            .insert((context.client, context.sequence), stored.clone());
        match stored? {
            Stored::Entry(entry) => plain(entry),
            Stored::Layout(layout) => plain(layout),
            Stored::Done => plain(Done {}),
        }
    }

    fn change(&mut self, call: &dyn Any) -> Result<Stored> {
        if call.is::<MakeDir>() {
            self.directories_made += 1;
            let attr = attr(&File::empty(1), FileKind::Directory);
            return Ok(Stored::Entry(Entry { attr, target: None }));
        }
        if let Some(call) = call.downcast_ref::<CreateFile>() {
            self.file = Some(File {
                leased: true,
                ..File::empty(call.replicas.max(1))
            });
            self.add_block(0);
            return Ok(Stored::Layout(self.layout(0)?));
        }
        if call.is::<OpenForWrite>() {
            self.file()?.leased = true;
            return Ok(Stored::Layout(self.layout(0)?));
        }
        if let Some(call) = call.downcast_ref::<AllocateBlocks>() {
            self.leased()?;
            for index in call.from_index..call.until_index {
                self.add_block(index);
            }
            return Ok(Stored::Layout(self.layout(call.from_index)?));
        }
        if let Some(call) = call.downcast_ref::<CommitFile>() {
            let file = self.leased()?;
            for commit in &call.blocks {
                let block = file.blocks.get_mut(&commit.index).expect("assigned");
                assert_eq!(block.id, commit.id);
                (block.len_bytes, block.generation) = (commit.len_bytes, commit.generation);
            }
            let size_bytes = match call.keep_size {
                true => file.size_bytes,
                false => call.size_bytes,
            };
            let makes_version = call.abandoned || call.new_generation;
            if !call.blocks.is_empty() || size_bytes != file.size_bytes || makes_version {
                file.content_version += 1;
            }
            if !call.new_generation {
                file.cut(size_bytes);
            }
            file.leased = !call.close;
            let attr = self.attr()?;
            return Ok(Stored::Entry(Entry { attr, target: None }));
        }
        if let Some(call) = call.downcast_ref::<PunchHole>() {
            let file = self.leased()?;
            let end = call.offset_bytes + call.len_bytes;
            file.blocks.retain(|index, block| {
                let start = u64::from(*index) * BLOCK_BYTES;
                if end >= start + block.len_bytes {
                    block.len_bytes = block.len_bytes.min(call.offset_bytes.saturating_sub(start));
                }
                block.len_bytes > 0
            });
            file.content_version += 1;
            return Ok(Stored::Layout(self.layout(0)?));
        }
        if let Some(call) = call.downcast_ref::<SetAttr>() {
            let file = self.file()?;
            file.cut(call.change.size_bytes.expect("nothing else is set"));
            file.content_version += 1;
            let attr = self.attr()?;
            return Ok(Stored::Entry(Entry { attr, target: None }));
        }
        if call.is::<ReleaseLease>() {
            self.file()?.leased = false;
            return Ok(Stored::Done);
        }
        if call.is::<RenewSession>() || call.is::<EndSession>() {
            return Ok(Stored::Done);
        }
        unreachable!("no test makes this call")
    }

    fn check_order(&mut self, call: &'static str, order: &WriteOrder) -> Result<()> {
        self.orders.push((call, *order));
        match order.has > 0 && order.life != self.life {
            true => Err(Error::new(ErrorKind::Lost, "it went with the power")),
            false => Ok(()),
        }
    }

    fn check_epoch(&self, epoch: u64) -> Result<()> {
        match epoch == self.epoch {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Unreachable, "another epoch")),
        }
    }

    fn file(&mut self) -> Result<&mut File> {
        self.file.as_mut().ok_or_else(|| Error::not_found("the file"))
    }

    fn leased(&mut self) -> Result<&mut File> {
        match self.file()? {
            file if file.leased => Ok(file),
            _ => Err(Error::new(ErrorKind::Stale, "this client's lease has ended")),
        }
    }

    fn add_block(&mut self, index: u32) {
        self.next_block += 1;
        let new = BlockRef {
            id: BlockId(self.next_block),
            len_bytes: 0,
            generation: 0,
        };
        let file = self.file.as_mut().expect("checked");
        file.blocks.entry(index).or_insert(new);
    }

    fn attr(&mut self) -> Result<Attr> {
        Ok(attr(self.file()?, FileKind::File))
    }

    fn layout(&mut self, from: u32) -> Result<FileLayout> {
        let attr = self.attr()?;
        let (nobody_has_it, epoch) = (self.nobody_has_it, self.epoch);
        let file = self.file()?;
        let workers = (1..=u32::from(file.replicas)).map(WorkerId);
        let indexes = file.blocks.range(from..).map(|(index, _)| *index).collect();
        let blocks = file.blocks.range(from..).map(|(_, block)| LocatedBlock {
            block: *block,
            workers: match nobody_has_it {
                true => Vec::new(),
                false => workers.clone().collect(),
            },
        });
        Ok(FileLayout {
            attr,
            blocks: blocks.collect(),
            workers: addresses(epoch),
            source: None,
            indexes,
            damaged: self
                .damaged
                .iter()
                .map(|&block| DamagedBlock {
                    block,
                    workers: vec![WorkerId(1)],
                    unheard: Vec::new(),
                })
                .collect(),
            tier: None,
        })
    }

    fn read(&mut self, worker: u32, call: &ReadBlock, fate: &Option<Fate>) -> Reply {
        let Some((generation, bytes)) = self.blocks.get(&(worker, call.block)) else {
            return Err(Error::new(ErrorKind::NotFound, "not on this worker"));
        };
        if *generation < call.generation {
            return Err(Error::new(ErrorKind::Stale, "an older generation"));
        }
        let start = to_usize(call.offset_bytes).min(bytes.len());
        let end = (start + call.len_bytes as usize).min(bytes.len());
        let mut body = bytes[start..end].to_vec();
        if matches!(fate, Some(Fate::TooMany)) {
            body.push(1);
        }
        let mut checksums = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let take = (to_usize(CHUNK_BYTES) - (start + at) % to_usize(CHUNK_BYTES)).min(body.len() - at);
            checksums.push(crc32c(&body[at..at + take]));
            at += take;
        }
        match fate {
            Some(Fate::Damage) => body[0] ^= 1,
            Some(Fate::Unsummed) => checksums.clear(),
            _ => {}
        }
        let data = BlockData {
            offset_bytes: call.offset_bytes,
            checksums,
        };
        Ok((Box::new(data), body.into()))
    }
}

impl File {
    pub fn empty(replicas: u8) -> File {
        File {
            size_bytes: 0,
            content_version: 0,
            blocks: BTreeMap::new(),
            replicas,
            leased: false,
        }
    }
}

impl File {
    fn cut(&mut self, size_bytes: u64) {
        self.size_bytes = size_bytes;
        self.blocks.retain(|index, block| {
            let room = size_bytes.saturating_sub(u64::from(*index) * BLOCK_BYTES);
            block.len_bytes = block.len_bytes.min(room);
            room > 0
        });
    }
}

fn addresses(epoch: u64) -> Vec<WorkerAddress> {
    let address = |id| WorkerAddress {
        id: WorkerId(id),
        address: format!("worker {id}"),
        epoch,
    };
    vec![address(1), address(2)]
}

fn attr(file: &File, kind: FileKind) -> Attr {
    Attr {
        inode: FILE,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size_bytes: file.size_bytes,
        atime_ns: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        btime_ns: 0,
        rdev: 0,
        block_bytes: BLOCK_BYTES,
        replicas: file.replicas,
        content_version: file.content_version,
        ufs: None,
        hole_bytes: file.size_bytes - file.blocks.values().map(|block| block.len_bytes).sum::<u64>(),
        bare: false,
        has_acl: false,
    }
}
