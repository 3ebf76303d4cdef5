//! What happens to a whole cluster, and how often: drawn from the seed.

use curvine_protocol::number::to_usize;

use crate::chance::Chance;
use crate::faults::{Fault, Plan};
use crate::files::UNIT;
use crate::known::{Known, is_known};
use crate::objects;

/// Something that goes wrong with workers, mounts and clocks; what goes wrong with masters alone is a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// One of the masters' own faults.
    Masters,
    /// A master is stopped for longer than a session lasts.
    StopMaster,
    /// Somebody sets the wall clock of a master, or of a mount.
    StepMasterClock,
    StepMountClock,
    KillWorker,
    /// A worker is stopped, for seconds or for longer than a session lasts.
    StopWorker,
    PowerCut,
    /// Nobody reaches a worker, and what was sent to it comes later.
    HoldWorker,
    /// A mount is killed: its leases stay until its session ends.
    KillMount,
    /// A mount is stopped for longer than its session lasts.
    StopMount,
    /// A mount reaches nobody, and what it sent comes later.
    HoldMount,
    /// Some requests are minutes late.
    LateMessages,
    BadWeather,
    /// A byte of a block changes on a disk.
    FlipBit,
    /// Others change an object of the under file system.
    ChangeObject,
    /// The under file system is slow, and fails at times.
    SickStore,
    /// The disk of a worker takes no writes until the worker is started again, with another one.
    FailDisk,
    /// An operator has the workers balanced, or says that this is to stop.
    Balance,
}

use Trouble::*;

const ALL: [Trouble; 16] = [
    ChangeObject,
    SickStore,
    Masters,
    StopMaster,
    StepMasterClock,
    StepMountClock,
    KillWorker,
    StopWorker,
    PowerCut,
    HoldWorker,
    KillMount,
    StopMount,
    HoldMount,
    LateMessages,
    BadWeather,
    FlipBit,
];

/// The faults of masters in a cluster: their group stays as it is.
const OF_MASTERS: [Fault; 8] = [
    Fault::CutOff,
    Fault::Link,
    Fault::Kill,
    Fault::QuickRestart,
    Fault::PowerCut,
    Fault::Stop,
    Fault::SlowDisk,
    Fault::HandOver,
];

/// More than all files together take.
pub const ROOMY: u64 = 64 << 20;

/// The data directories of a worker besides its SSD, by what they may hold; 0 = there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tiers {
    pub memory_bytes: u64,
    pub slow_bytes: u64,
}

/// What there is besides masters.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    pub workers: u64,
    pub replicas: u8,
    /// Of each worker. Little room, and a few files fill it.
    pub capacity_bytes: u64,
    /// What it has besides.
    pub tiers: Tiers,
    pub mounts: u64,
    pub programs: usize,
    pub cells: usize,
    /// Whether files lose their names: what lives longer meets more.
    pub removes: bool,
    /// Of an under file system; without any, there is none.
    pub objects: usize,
    /// What the cached blocks of its mount may take, if that is limited.
    pub cache_quota_bytes: Option<u64>,
    pub troubles: Vec<Trouble>,
    pub pause_ms: u64,
}

/// The fault that is not mended and would be met at once.
fn left_out_for(trouble: Trouble) -> Option<Known> {
    match trouble {
        StopMaster | StepMasterClock => Some(Known::LeadersClock),
        Masters => Some(Known::SentElsewhere),
        StopMount | HoldMount | KillMount => Some(Known::StoppedWriter),
        _ => None,
    }
}

/// How long a worker is away at most.
pub fn worker_is_away_ms(chance: &Chance, choices: &[u64]) -> u64 {
    let chosen = *chance.one_of(choices);
    match is_known(Known::FailedAppend) {
        true => chosen.min(8_000),
        false => chosen,
    }
}

/// Room for one object, and not for two.
const CACHE_QUOTA_BYTES: u64 = objects::UNITS * UNIT * 3 / 2;

/// A run of a cluster.
pub fn draw(chance: &Chance) -> Plan {
    let mut troubles: Vec<Trouble> = ALL.into_iter().filter(|_| chance.percent(45)).collect();
    troubles.retain(|trouble| !left_out_for(*trouble).is_some_and(is_known));
    if troubles.is_empty() {
        troubles.push(KillWorker);
    }
    let workers = *chance.one_of(&[1, 2, 2]);
    let cluster = ClusterPlan {
        workers,
        replicas: *chance.one_of(&[1, 1, 2]),
        capacity_bytes: match *chance.one_of(&[400 << 10, 800 << 10, ROOMY, ROOMY]) {
            _ if is_known(Known::FailedAppend) => ROOMY,
            chosen => chosen,
        },
        tiers: Tiers::default(),
        mounts: chance.within(2..5),
        programs: *chance.one_of(&[1, 2]),
        cells: to_usize(chance.within(1..3)),
        removes: chance.percent(40),
        objects: *chance.one_of(&[0, 1, 3]),
        cache_quota_bytes: None,
        troubles,
        pause_ms: *chance.one_of(&[6_000, 15_000, 40_000]),
    };
    let mut plan = Plan {
        masters: *chance.one_of(&[1, 1, 3]),
        clients: chance.within(1..3),
        cells: 2,
        seconds: chance.within(80..160),
        faults: OF_MASTERS.into_iter().filter(|_| chance.percent(50)).collect(),
        pause_ms: cluster.pause_ms,
        snapshot_every_entries: chance.within(20..300),
        snapshot_every_bytes: chance.within(10_000..1_000_000),
        kept_entries: chance.within(0..60),
        kept_bytes: chance.within(0..200_000),
        cluster: Some(cluster),
    };
    // Not drawn: seeds stay what they are.
    if plan.seconds.is_multiple_of(2)
        && let Some(cluster) = &mut plan.cluster
    {
        cluster.cache_quota_bytes = Some(CACHE_QUOTA_BYTES);
    }
    if let Some(cluster) = &mut plan.cluster {
        let also = [(4, FailDisk), (5, Balance)];
        let also = also.into_iter().filter(|(every, _)| plan.seconds % every == 1);
        cluster.troubles.extend(also.map(|(_, trouble)| trouble));
    }
    if plan.seconds.is_multiple_of(3)
        && let Some(cluster) = &mut plan.cluster
    {
        cluster.tiers = Tiers {
            memory_bytes: 300 << 10,
            slow_bytes: cluster.capacity_bytes,
        };
        cluster.capacity_bytes = cluster.capacity_bytes.min(500 << 10);
    }
    plan
}
