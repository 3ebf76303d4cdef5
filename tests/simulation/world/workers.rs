//! The machines of the workers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use curvine_actors::kit::leader::Masters as KnownMasters;
use curvine_actors::kit::leader::search::{Limit, Search, Wanted};
use curvine_actors::kit::{Answer, Ask, Endpoint, MasterPort, MasterRef, Ports, WorkerConnector, WorkerRef};
use curvine_actors::worker::source::OpenDal;
use curvine_actors::worker::{self, WorkerConfig, WorkerHandle};
use curvine_conf::{DataDir, Size};
use curvine_protocol::checksum::crc32c;
use curvine_protocol::cluster::Tier;
use curvine_protocol::error::Retry;
use curvine_protocol::number::to_usize;
use curvine_protocol::{Call, Error, ErrorKind, NodeId, Result, WorkerId};
use futures::future::BoxFuture;

use crate::chance::Chance;
use crate::disk;
use crate::host::ToWorkers;
use crate::machine::Machine;
use crate::network::{Letter, Network, Port, Request, WORKERS, address};
use crate::programs::BLOCK_BYTES;
use crate::troubles::{ClusterPlan, Tiers};

/// Which machine a worker is on.
pub type Whereabouts = Arc<Mutex<BTreeMap<WorkerId, NodeId>>>;

/// Its data directories, by tier.
pub const MEMORY: &str = "memory";
pub const DATA: &str = "data";
pub const SLOW: &str = "slow";

pub struct WorkerHost {
    pub id: NodeId,
    pub machine: Machine,
    pub directory: PathBuf,
    network: Network,
    masters: Vec<NodeId>,
    capacity_bytes: u64,
    tiers: Tiers,
    chance: Chance,
    whereabouts: Whereabouts,
    started: Rc<RefCell<Option<Result<WorkerHandle>>>>,
    disk_fails: bool,
}

pub struct Workers {
    hosts: BTreeMap<NodeId, WorkerHost>,
    pub whereabouts: Whereabouts,
}

impl Workers {
    pub fn new(
        plan: &ClusterPlan,
        scratch: &Path,
        network: &Network,
        masters: &[NodeId],
        chance: &Chance,
    ) -> Workers {
        let whereabouts = Whereabouts::default();
        let hosts = (0..plan.workers).map(|number| {
            let id = NodeId(WORKERS.0 + number);
            let host = WorkerHost {
                id,
                machine: Machine::new(chance.fork()),
                directory: scratch.join(format!("worker-{number}")),
                network: network.clone(),
                masters: masters.to_vec(),
                capacity_bytes: plan.capacity_bytes,
                tiers: plan.tiers,
                chance: chance.fork(),
                whereabouts: whereabouts.clone(),
                started: Rc::default(),
                disk_fails: false,
            };
            (id, host)
        });
        Workers {
            hosts: hosts.collect(),
            whereabouts,
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &WorkerHost> {
        self.hosts.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerHost> {
        self.hosts.values_mut()
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut WorkerHost> {
        self.hosts.get_mut(&id)
    }
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

impl WorkerHost {
    pub fn start(&mut self, now: Duration) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        self.replace_disk();
        let (arbiter, ports) = self.machine.start(now)?;
        // Memory first, as people name it.
        let directories = [
            (Tier::Mem, self.tiers.memory_bytes, MEMORY),
            (Tier::Ssd, self.capacity_bytes, DATA),
            (Tier::Hdd, self.tiers.slow_bytes, SLOW),
        ];
        let directories = directories.into_iter().filter(|(_, bytes, _)| *bytes > 0);
        let directories = directories.map(|(tier, bytes, name)| DataDir {
            tier,
            capacity: Some(Size(bytes)),
            path: self.directory.join(name),
        });
        let mut config = WorkerConfig::new(directories.collect());
        config.disk.reserve_bytes = Some(0);
        // So slow that much happens meanwhile.
        config.move_bytes_per_s = 256 << 10;
        let peers = ToWorkers {
            network: self.network.clone(),
            from: self.id,
        };
        let peers: Arc<dyn WorkerConnector> = Arc::new(peers);
        let masters = leader_of(&self.network, self.id, &self.masters, &ports);
        let address = address(self.id);
        self.started = Rc::default();
        let (slot, whereabouts, id) = (self.started.clone(), self.whereabouts.clone(), self.id);
        self.machine.spawn(async move {
            loop {
                let threads = worker::Threads::Given(arbiter.clone());
                let (config, masters, address) = (config.clone(), masters.clone(), address.clone());
                let peers = peers.clone();
                let started = worker::start_with(
                    config,
                    ports.clone(),
                    masters,
                    peers,
                    address,
                    Arc::new(OpenDal),
                    threads,
                );
                match started.await {
                    // Whoever looks after it starts it again.
                    Err(error) if matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unreachable) => {}
                    started => {
                        if let Ok(handle) = &started {
                            let mut whereabouts = whereabouts.lock().expect("one thread");
                            whereabouts.insert(handle.id, id);
                        }
                        *slot.borrow_mut() = Some(started);
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    /// Its fast disk takes nothing any more.
    pub fn fail_disk(&mut self) {
        self.disk_fails = true;
        disk::fail(&self.directory.join(DATA));
    }

    /// Whether it had failed.
    pub fn replace_disk(&mut self) -> bool {
        disk::replace(&self.directory.join(DATA));
        std::mem::take(&mut self.disk_fails)
    }

    pub fn kill(&mut self) {
        self.started = Rc::default();
        self.machine.kill();
    }

    /// The machine loses its power: also what the page cache had. Returns how many pages were lost.
    pub fn lose_power(&mut self) -> std::io::Result<u64> {
        self.kill();
        self.replace_disk();
        let memory = self.directory.join(MEMORY);
        if memory.exists() {
            std::fs::remove_dir_all(&memory)?;
        }
        let lost = disk::cut_power(&self.directory, &self.chance)?;
        for name in [DATA, SLOW] {
            another_boot(&self.directory.join(name).join("index/anchor"))?;
        }
        Ok(lost)
    }

    /// How many blocks it has files of. One in memory may be a copy.
    pub fn block_files(&self) -> std::io::Result<usize> {
        let lasting = self.block_paths_in(&[DATA, SLOW])?;
        let names: BTreeSet<_> = lasting.iter().map(|path| file_name(path)).collect();
        let in_memory = self.block_paths_in(&[MEMORY])?;
        let alone = in_memory.iter().filter(|path| !names.contains(&file_name(path)));
        Ok(lasting.len() + alone.count())
    }

    /// The contents of its block files, by their names.
    pub fn blocks(&self) -> std::io::Result<BTreeMap<OsString, Vec<u8>>> {
        let mut blocks = BTreeMap::new();
        for path in self.block_paths()? {
            blocks.insert(file_name(&path), std::fs::read(&path)?);
        }
        Ok(blocks)
    }

    fn block_paths(&self) -> std::io::Result<Vec<PathBuf>> {
        self.block_paths_in(&[MEMORY, DATA, SLOW])
    }

    /// In these of its directories.
    pub fn block_paths_in(&self, names: &[&str]) -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for name in names {
            let blocks = self.directory.join(name).join("blocks");
            if !blocks.exists() {
                continue;
            }
            for shard in std::fs::read_dir(blocks)? {
                files.extend(
                    std::fs::read_dir(shard?.path())?
                        .flatten()
                        .map(|entry| entry.path()),
                );
            }
        }
        files.sort();
        Ok(files)
    }

    /// Changes a bit of one of its block files, if it has any: of which. Of those that are of no object, only one that
    /// `others` has, too, if they are given.
    pub fn flip_bit(
        &self,
        others: Option<&BTreeMap<OsString, Vec<u8>>>,
        of_objects: bool,
        chance: &Chance,
    ) -> std::io::Result<Option<String>> {
        if self.disk_fails {
            return Ok(None);
        }
        let mut files = self.block_paths()?;
        // Only objects have blocks that long.
        files.retain(
            |path| match path.metadata().is_ok_and(|status| status.len() > BLOCK_BYTES) {
                true => of_objects,
                false => {
                    let has = |other: &Vec<u8>| std::fs::read(path).is_ok_and(|content| content == *other);
                    others.is_none_or(|others| others.get(&file_name(path)).is_some_and(has))
                }
            },
        );
        if files.is_empty() {
            return Ok(None);
        }
        let path = chance.one_of(&files);
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        if len == 0 {
            return Ok(None);
        }
        let (at, mut byte) = (chance.below(len), [0]);
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1;
        file.write_all_at(&byte, at)?;
        let name = file_name(path);
        let name = name.to_string_lossy();
        Ok(Some(format!("byte {at} of block {name}")))
    }

    /// Takes in a message.
    pub fn deliver(&mut self, from: NodeId, request: Arc<dyn Request>) {
        let (network, to) = (self.network.clone(), self.id);
        let answer = move |outcome| {
            network.send(Letter::Answer {
                from: to,
                to: from,
                outcome,
            });
        };
        match self.port() {
            Some(port) => self
                .machine
                .spawn(async move { answer(request.serve(&Port::Worker(port)).await) }),
            None => answer(request.refuse(Error::new(
                ErrorKind::Unreachable,
                format!("{} does not run", crate::network::name(to)),
            ))),
        }
    }

    pub fn runs(&self) -> bool {
        self.port().is_some()
    }

    fn port(&self) -> Option<WorkerRef> {
        let started = self.started.borrow();
        let handle = started.as_ref()?.as_ref().ok()?;
        Some(handle.port.clone())
    }

    /// Why it did not start, if so.
    pub fn failed_to_start(&self) -> Option<Error> {
        self.started.borrow().as_ref()?.as_ref().err().cloned()
    }

    pub fn serves(&self) -> bool {
        self.port().is_some()
    }
}

/// The next boot has another id than the one that the worker's index noted in the slots of its anchor
/// (`worker/disk/index/anchor.rs`), unless it was stopped in order.
fn another_boot(anchor: &Path) -> std::io::Result<()> {
    const SLOT_BYTES: u64 = 2 * 4096 + 4096;
    const TOKEN_AT: usize = 20;
    let file = match File::options().read(true).write(true).open(anchor) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    for slot in 0..2 {
        let mut bytes = vec![0; to_usize(SLOT_BYTES)];
        if file.read_exact_at(&mut bytes, slot * SLOT_BYTES).is_err() {
            continue;
        }
        let len = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
        let is_whole = bytes.get(4..8 + len).map(crc32c)
            == Some(u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")));
        if len > 0 && is_whole && !bytes[TOKEN_AT..].starts_with(b"stopped") {
            bytes[TOKEN_AT] = b'x';
            let sum = crc32c(&bytes[4..8 + len]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&bytes, slot * SLOT_BYTES)?;
        }
    }
    file.sync_data()
}

/// The way to whoever leads, as a node has it.
#[derive(Clone)]
pub struct Leader(Arc<KnownMasters<dyn MasterPort>>);

/// Masters by address, with the ways to them.
pub fn ways_to(network: &Network, from: NodeId, masters: &[NodeId]) -> Vec<(String, MasterRef)> {
    let way = |id: &NodeId| (address(*id), Arc::new(network.way(from, *id)) as MasterRef);
    masters.iter().map(way).collect()
}

fn leader_of(network: &Network, from: NodeId, masters: &[NodeId], ports: &Ports) -> MasterRef {
    let ways = ways_to(network, from, masters);
    let connect = |address: &str| Err(Error::internal(format!("nobody named {address}")));
    let known = KnownMasters::new(ways, Box::new(connect), ports.clone());
    Arc::new(Leader(Arc::new(known.expect("there is a master"))))
}

impl<C: Call> Endpoint<C> for Leader
where
    dyn MasterPort: Endpoint<C>,
{
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let passes = |error: &Error| error.kind.retry() == Retry::Elsewhere;
        let search = Search::new(Wanted::Leader, Limit::Pauses(5), passes);
        let masters = self.0.clone();
        Box::pin(async move { masters.ask(ask, search).await })
    }
}
