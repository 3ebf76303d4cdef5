//! Plots: small fixed programs, one for each kind of fault, under a schedule that the seed draws. What random runs meet
//! once in a thousand seeds, because several things must come together, is what one of these is about.
//!
//! A plot is told by [`World::of_plot`]'s words: a few machines, to which nothing happens by itself. What it claims is in
//! its documentation; a run that contradicts it fails, and in the exam it names the bugs that it is there for.
//!
//! - [`leases`]: who writes a file; [`sessions`]: what a session that has ended may do, and when one ends; [`names`]: what
//!   is open and removed; [`data`]: what workers hold; [`late`]: what comes late to them, or is lost there;
//!   [`expiry`]: files that live for a time; [`tiers`]: blocks that move between the disks of a worker;
//!   [`surplus`]: blocks that more workers have than are to.

mod data;
mod expiry;
mod late;
mod leases;
mod names;
mod sessions;
mod surplus;
mod tiers;

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions, OpenFile};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, NodeId, Result};

use crate::chance::Chance;
use crate::checks::Violation;
use crate::files::{END, bytes, name_of, stamps};
use crate::network::name;
use crate::programs::BLOCK_BYTES;
use crate::world::director::Cast;
use crate::world::{PLOTS, Summary, World};

const UNIT: u64 = crate::files::UNIT;
/// Units of a block.
const BLOCK: u64 = BLOCK_BYTES / UNIT;

pub struct Plot {
    pub name: &'static str,
    cast: fn(&Chance) -> Cast,
    play: fn(&mut World) -> std::result::Result<(), Violation>,
}

/// A new one is added at the end: seeds stay what they are.
pub const ALL: &[Plot] = &[
    leases::TURNS,
    leases::OVERTAKEN,
    leases::OVERTAKEN_BESIDE_ITS_WORKER,
    leases::COUNTER,
    sessions::LATE_CHANGE,
    sessions::STOPPED_MOUNT,
    sessions::STOPPED_MASTER,
    sessions::HEARD_IN_TIME,
    names::OPEN_ELSEWHERE,
    names::OPENED_WHILE_REMOVED,
    names::FOLLOWS,
    data::OLDER_REPLICA,
    data::WORKER_AWAY,
    data::FULL_WORKER,
    data::FILL_AND_POWER_CUT,
    data::UNDONE_BY_POWER,
    leases::LATE_LEASE,
    late::LATE_WRITE,
    late::LOST_BEFORE_SEAL,
    late::FULL_OVERWRITE,
    late::DELETION_UNTAKEN,
    late::LATE_BLOCK,
    late::ROT_BETWEEN_WRITES,
    sessions::LATE_COPY,
    data::NOBODY_TOOK_IT,
    data::ROTTEN_OBJECT,
    leases::UNANSWERED_CUT,
    names::OPENED_BESIDE_CLOSE,
    leases::BRIEFLY_AWAY,
    leases::HALF_WRITTEN,
    data::LEFT_BEHIND,
    data::FULL_OF_CACHED,
    expiry::OPEN_WHEN_OVER,
    expiry::TOUCHED_IN_TIME,
    expiry::MOVED_IN,
    tiers::POWER_CUT_OF_MEMORY,
    tiers::WRITTEN_WHILE_IN_MEMORY,
    tiers::WRITTEN_WHILE_IT_MOVES,
    surplus::SHED_LATE,
    surplus::SHED_BY_TWO,
    surplus::BACK_AFTER_REPAIR,
    surplus::HOT_AND_WRITTEN,
];

const SEEDS_EACH: u64 = 10_000;

/// So many seeds of the plot of this name.
#[cfg(feature = "exam")]
pub fn seeds_of(name: &str, count: u64) -> Option<Range<u64>> {
    let at = ALL.iter().position(|plot| plot.name == name)? as u64;
    let first = PLOTS + at * SEEDS_EACH;
    Some(first..first + count.min(SEEDS_EACH))
}

/// The first so many seeds of each.
#[cfg(not(feature = "exam"))]
pub fn first_seeds(count: u64) -> impl Iterator<Item = Range<u64>> {
    let firsts = (0..ALL.len() as u64).map(|at| PLOTS + at * SEEDS_EACH);
    firsts.map(move |first| first..first + count.min(SEEDS_EACH))
}

pub fn play(seed: u64, scratch: &Path, is_told: bool) -> std::result::Result<Summary, Violation> {
    let plot = ALL.get(to_usize((seed - PLOTS) / SEEDS_EACH));
    let plot = plot.ok_or("there is no such plot")?;
    let chance = Chance::new(seed);
    let cast = (plot.cast)(&chance);
    let mut world = World::of_plot(cast, chance, scratch, is_told)?;
    (plot.play)(&mut world).map_err(|wrong| format!("{}: {wrong}", plot.name))?;
    Ok(world.summary())
}

fn at(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a valid path")
}

fn content(stamp: u64, units: Range<u64>) -> Bytes {
    bytes(stamp, units).into()
}

/// Makes a file of so many units, and closes it.
async fn make(client: Client, path: &'static str, stamp: u64, units: u64, replicas: u8) -> Result<()> {
    let options = CreateOptions {
        block_bytes: BLOCK_BYTES,
        replicas,
        ..CreateOptions::default()
    };
    let file = client.create(&at(path), options).await?;
    file.write_at(0, content(stamp, 0..units)).await?;
    file.sync().await?;
    file.close().await.map(|_| ())
}

async fn write(file: &OpenFile, stamp: u64, units: Range<u64>) -> Result<()> {
    file.write_at(units.start * UNIT, content(stamp, units)).await
}

/// The stamps of a file's units, up to its end.
async fn read(file: &OpenFile, units: u64) -> Result<Vec<u64>> {
    let content = file.read_at(0, units * UNIT).await?;
    let mut found = stamps(0, units, &content);
    found.retain(|stamp| *stamp != END);
    Ok(found)
}

/// Opens and reads.
async fn read_at(client: Client, path: &'static str, units: u64) -> Result<Vec<u64>> {
    let file = client.open(&at(path)).await?;
    read(&file, units).await
}

type Said = Vec<(NodeId, Vec<u64>)>;

/// What each worker alone says of `/f`, to the second mount: of those that say anything.
fn what_each_says(world: &mut World, units: u64) -> std::result::Result<Said, Violation> {
    let workers = world.worker_ids();
    let mut seen = Vec::new();
    for asked in &workers {
        let others: Vec<_> = workers.iter().copied().filter(|other| other != asked).collect();
        world.hold(1, &others);
        if let Ok(found) = world.ask(1, move |client| read_at(client, "/f", units))? {
            world.says(format!("{} says {found:?}", name(*asked)));
            seen.push((*asked, found));
        }
        let reader = world.mount(1).id;
        world.network().let_go_at_once(reader);
        world.pass_s(1)?;
    }
    Ok(seen)
}

/// What a file should be: stamps, each for so many units.
fn rows(rows: &[(u64, u64)]) -> Vec<u64> {
    let all = rows.iter().map(|(stamp, units)| vec![*stamp; to_usize(*units)]);
    all.flatten().collect()
}

fn same(what: &str, found: &[u64], expected: &[u64]) -> std::result::Result<(), Violation> {
    if found == expected {
        return Ok(());
    }
    let differs = (found.iter().zip(expected)).position(|(found, expected)| found != expected);
    let at = differs.unwrap_or(found.len().min(expected.len()));
    let told = |units: &[u64]| {
        units
            .get(at)
            .map_or("beyond the end".to_owned(), |unit| name_of(*unit))
    };
    Err(format!(
        "{what}: unit {at} is {}, and should be {}; there are {} units of {}",
        told(found),
        told(expected),
        found.len(),
        expected.len()
    ))
}
