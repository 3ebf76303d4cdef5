//! What a cluster of several workers does beside one disk of this machine: writes of several replicas, replicas that are made
//! again, blocks that are moved to balance workers, and writes into a cache that is full.
//!
//! All workers are on the same device. Where bytes are written several times, so are those that they are measured by.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_protocol::cluster::WorkerService;
use curvine_protocol::master::{BalanceOutcome, IfExists, TOLERANCES};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, WorkerId};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Bench;
use crate::masters::Places;
use crate::node::Node;
use crate::report::{Report, Row, Target};

pub const MIB: u64 = 1 << 20;
/// Files that are written, and what each has: one block.
const FILES: usize = 32;
const FILE_MIB: u64 = 32;
/// Of those, this many at once.
const WRITERS: usize = 4;
const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(300);
/// How many times all files a worker has room for: for its replicas of them, and those that are being replaced.
const ROOMY: u64 = 4;
/// What a cache that gets full may have.
const CACHE_MIB: u64 = 768;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(workers(bench, report))?;
    runtime.block_on(full_cache(bench, report))
}

/// A worker with so much room.
fn limited_worker(bench: &Bench, name: &str, masters: &str, capacity_mib: u64) -> Result<Node> {
    let home = bench.scratch.path().join(name);
    let data_dirs = format!("[SSD:{capacity_mib}MiB]{}", home.join("blocks").display());
    let args = [
        "--data-dir",
        &home.to_string_lossy(),
        "--data-dirs",
        &data_dirs,
        "--master",
        masters,
        "--worker-listen",
        "127.0.0.1:0",
    ];
    bench.programs.node("worker", &args)
}

async fn connected(masters: &str) -> Result<Client> {
    Ok(Client::connect(masters.split(','), ClientOptions::default()).await?)
}

fn path(text: &str) -> Result<CurvinePath> {
    Ok(CurvinePath::parse(text)?)
}

/// One MiB, another one for each number.
pub fn piece(number: u64) -> Bytes {
    let word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    // Fast: the machine's own writes are limited by nothing else either.
    word.repeat(to_usize(MIB) / word.len()).into()
}

/// Writes files of a directory with so many replicas, until they are on the disks of all; in seconds.
async fn write(client: &Client, directory: &str, files: usize, replicas: u8) -> Result<f64> {
    let begun = Instant::now();
    let written = stream::iter(0..files).map(|number| async move {
        let options = CreateOptions {
            if_exists: IfExists::Truncate,
            parents: true,
            block_bytes: FILE_MIB * MIB,
            replicas,
            ..CreateOptions::default()
        };
        let file = client
            .create(&path(&format!("{directory}/{number:02}"))?, options)
            .await?;
        for at in 0..FILE_MIB {
            file.append(piece(number as u64 * FILE_MIB + at)).await?;
        }
        file.sync().await?;
        file.close().await?;
        anyhow::Ok(())
    });
    written.buffer_unordered(WRITERS).try_collect::<Vec<_>>().await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Does something for each of so many files, so many at once; in seconds.
fn time_each(files: usize, at_once: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<f64> {
    let begun = Instant::now();
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once)
            .map(|first| scope.spawn(move || (first..files).step_by(at_once).try_for_each(work)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A file of the device, when it is on it.
fn write_file(path: &Path, number: usize) -> Result<()> {
    let mut file = File::create(path)?;
    for at in 0..FILE_MIB {
        file.write_all(&piece(number as u64 * FILE_MIB + at))?;
    }
    Ok(file.sync_data()?)
}

/// Writes as many bytes into files of the device, so many files at once, until they are on it; in seconds.
fn write_raw(directory: &Path, files: usize, at_once: usize) -> Result<f64> {
    std::fs::create_dir_all(directory)?;
    let seconds = time_each(files, at_once, |number| {
        write_file(&directory.join(format!("{number:02}")), number)
    })?;
    std::fs::remove_dir_all(directory)?;
    Ok(seconds)
}

/// Copies files of the device, so many at once, until they are on it; in seconds.
fn copy_raw(from: &Path, to: &Path, files: usize, at_once: usize) -> Result<f64> {
    std::fs::create_dir_all(from)?;
    std::fs::create_dir_all(to)?;
    for number in 0..files {
        write_file(&from.join(format!("{number:02}")), number)?;
    }
    let seconds = time_each(files, at_once, |number| {
        let name = format!("{number:02}");
        let mut new = File::create(to.join(&name))?;
        std::io::copy(&mut File::open(from.join(&name))?, &mut new)?;
        Ok(new.sync_data()?)
    })?;
    std::fs::remove_dir_all(from)?;
    std::fs::remove_dir_all(to)?;
    Ok(seconds)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn megabytes(files: usize) -> f64 {
    (files as u64 * FILE_MIB * MIB) as f64 / 1e6
}

async fn workers(bench: &Bench, report: &mut Report) -> Result<()> {
    let places = Places::pick(bench, "cluster-master", 1)?;
    let master = places.start(bench, 0, 1)?;
    let masters = places.addresses.join(",");
    let files = bench.count(FILES).max(2);
    let worker = |number: usize| {
        let name = format!("cluster-worker-{number}");
        limited_worker(bench, &name, &masters, ROOMY * files as u64 * FILE_MIB)
    };
    let mut nodes: Vec<Node> = (0..3).map(worker).collect::<Result<_>>()?;
    let client = connected(&masters).await?;
    let raw = bench.scratch.path().join("cluster-raw");
    for replicas in 1..=3u8 {
        let (mut ours, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(write(&client, "/written", files, replicas).await?);
            let same = files * usize::from(replicas);
            let raw = raw.clone();
            alone.push(tokio::task::spawn_blocking(move || write_raw(&raw, same, WRITERS)).await??);
        }
        let (ours, alone) = (median(ours), median(alone));
        let times = match replicas {
            1 => String::new(),
            _ => format!(" of {replicas} times the bytes"),
        };
        report.add(
            Row::new(
                "cluster",
                format!("synced write, replicas {replicas}"),
                megabytes(files) / ours,
                "MB/s",
            )
            .beside(
                format!(
                    "raw disk{times}, {:.0} MB/s",
                    megabytes(files * usize::from(replicas)) / alone
                ),
                alone / ours,
            ),
        );
    }
    client.delete(&path("/written")?, true).await?;

    // Two replicas of each; a worker goes.
    write(&client, "/kept", files, 2).await?;
    let moved = holders(&client, files).await?;
    let leaving = moved[0][0];
    let on_it = moved.iter().filter(|workers| workers.contains(&leaving)).count();
    client
        .set_worker_service(leaving, WorkerService::Draining)
        .await?;
    // The leader looks every few seconds. How fast it then is counts from the first replica that is there.
    let begun = Instant::now();
    let (mut since, mut left, mut others) = (begun, on_it, on_it);
    while left > 0 {
        ensure!(begun.elapsed() < LIMIT, "replicas are not made again");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let has_others = |of: &&Vec<WorkerId>| of.iter().filter(|id| **id != leaving).count() >= 2;
        left = files - holders(&client, files).await?.iter().filter(has_others).count();
        if others == on_it && left < on_it {
            (since, others) = (Instant::now(), left);
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    report.add(Row::new(
        "cluster",
        "first replica made again",
        (since - begun).as_secs_f64(),
        "s",
    ));
    if others > 0 {
        let copied = raw_copies(bench, others).await?;
        add_moved(report, "the others made again", others, seconds, copied);
    }
    client
        .set_worker_service(leaving, WorkerService::InService)
        .await?;

    // A fourth worker comes, with nothing.
    nodes.push(worker(3)?);
    client.set_balance(Some(*TOLERANCES.start())).await?;
    // It looks at all first, and between bursts waits for what workers say of themselves. How fast it is counts from the first
    // block that is moved to the last.
    let begun = Instant::now();
    let (mut first, mut last) = (None, (begun, 0));
    let status = loop {
        let status = client.balance().await?;
        if status.moved_bytes > last.1 {
            last = (Instant::now(), status.moved_bytes);
            first.get_or_insert(last);
        }
        if status.run.is_none() {
            break status;
        }
        ensure!(begun.elapsed() < LIMIT, "balancing does not end: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let first = first.with_context(|| format!("nothing was moved: {status:?}"))?;
    let seconds = (last.0 - first.0).as_secs_f64();
    let ended = status.ended.context("it has ended")?;
    ensure!(ended.how == BalanceOutcome::Balanced, "{ended:?}");
    report.add(Row::new(
        "cluster",
        "first block moved to balance",
        (first.0 - begun).as_secs_f64(),
        "s",
    ));
    let moved_files = usize::try_from((last.1 - first.1) / (FILE_MIB * MIB))?;
    if moved_files > 0 {
        let copied = raw_copies(bench, moved_files).await?;
        add_moved(
            report,
            "the others moved to balance",
            moved_files,
            seconds,
            copied,
        );
    }
    client.close().await;
    nodes.into_iter().try_for_each(Node::stop)?;
    master.stop()
}

/// What the device's own copies of so many files take: the best of one at a time and several; in seconds.
async fn raw_copies(bench: &Bench, files: usize) -> Result<f64> {
    let place = |name: &str| -> PathBuf { bench.scratch.path().join(name) };
    let (from, to) = (place("cluster-from"), place("cluster-to"));
    let copied = tokio::task::spawn_blocking(move || -> Result<f64> {
        let one = copy_raw(&from, &to, files, 1)?;
        Ok(one.min(copy_raw(&from, &to, files, WRITERS)?))
    });
    copied.await?
}

fn add_moved(report: &mut Report, what: &str, files: usize, seconds: f64, copied: f64) {
    report.add(
        Row::new("cluster", what, megabytes(files) / seconds, "MB/s")
            .beside(
                format!("copies on the disk, {:.0} MB/s", megabytes(files) / copied),
                copied / seconds,
            )
            .target(Target::RatioAtLeast(0.7)),
    );
}

/// The workers of each file's block.
async fn holders(client: &Client, files: usize) -> Result<Vec<Vec<WorkerId>>> {
    let mut found = Vec::new();
    for number in 0..files {
        let layout = client.locate(&path(&format!("/kept/{number:02}"))?).await?;
        found.push(layout.blocks[0].workers.clone());
    }
    Ok(found)
}

/// Writes into an empty worker, and into the same one when cached blocks have filled it.
async fn full_cache(bench: &Bench, report: &mut Report) -> Result<()> {
    let places = Places::pick(bench, "cache-master", 1)?;
    let master = places.start(bench, 0, 1)?;
    let masters = places.addresses.join(",");
    let worker = limited_worker(bench, "cache-worker", &masters, CACHE_MIB)?;
    let client = connected(&masters).await?;
    let objects = bench.scratch.path().join("cache-objects");
    std::fs::create_dir(&objects)?;
    let count = 2 * CACHE_MIB / FILE_MIB;
    for number in 0..count {
        let mut file = File::create(objects.join(format!("{number:03}")))?;
        for at in 0..FILE_MIB {
            file.write_all(&piece(number * FILE_MIB + at))?;
        }
    }
    bench.programs.cv_at(
        &masters,
        &["mount", &format!("file://{}", objects.display()), "/objects"],
    )?;
    // A third of it.
    let files = usize::try_from(CACHE_MIB / FILE_MIB / 3)?;
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        empty.push(write(&client, "/into", files, 1).await?);
        client.delete(&path("/into")?, true).await?;
        // Reads have all of it fetched, and the first of it go again.
        for number in 0..count {
            let number = (number + round as u64) % count;
            client.read(&path(&format!("/objects/{number:03}"))?).await?;
        }
        settle().await;
        full.push(write(&client, "/into", files, 1).await?);
        client.delete(&path("/into")?, true).await?;
        client.free(&path("/objects")?).await?;
        settle().await;
    }
    let (empty, full) = (median(empty), median(full));
    report.add(
        Row::new(
            "cluster",
            "synced write into a full cache",
            megabytes(files) / full,
            "MB/s",
        )
        .beside(
            format!("into an empty one, {:.0} MB/s", megabytes(files) / empty),
            empty / full,
        )
        .target(Target::RatioAtLeast(0.8)),
    );
    client.close().await;
    worker.stop()?;
    master.stop()
}

/// Lets what goes on in the background come to its end.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}
