//! What checksums take of the processor time of a client and a worker that write and read files of 64 MiB.
//!
//! The time of one sum of these very bytes is measured alone, in the same run, and how often each byte is summed on its way is
//! known from the code. Written, twice: by the client, for the call (`client/file/write.rs`, `send`), and by the worker, which
//! compares and keeps the sums of chunks (`worker/disk/store/write.rs`, `write`; those of pieces are combined). Read, once: by
//! the client (`client/file/read.rs`, `verify`), with the sums that the worker has kept.

use std::hint::black_box;

use anyhow::{Result, ensure};
use bytes::Bytes;
use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_protocol::CurvinePath;
use curvine_protocol::checksum::chunk_checksums;
use curvine_protocol::number::to_usize;

use crate::Bench;
use crate::cluster::{MIB, piece};
use crate::masters::Places;
use crate::node::{Node, cpu_seconds};
use crate::report::{Report, Row, Target};

const FILES: usize = 32;
const FILE_MIB: u64 = 64;
/// So often all of it is summed alone, to be timed.
const SUM_ROUNDS: usize = 4;
const SUMS_WRITTEN: f64 = 2.0;
const SUMS_READ: f64 = 1.0;
const PERCENT_MAX: f64 = 5.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let places = Places::pick(bench, "checksums-master", 1)?;
    let master = places.start(bench, 0, 1)?;
    let worker_dir = bench.scratch.path().join("checksums-worker");
    let worker = bench.programs.worker(&worker_dir, &places.addresses[0])?;
    let client = runtime.block_on(Client::connect([&*places.addresses[0]], ClientOptions::default()))?;
    let files = bench.count(FILES).max(2);
    let pieces: Vec<Bytes> = (0..FILE_MIB).map(piece).collect();

    let before = cpu_seconds("self")?;
    for _ in 0..files * SUM_ROUNDS {
        pieces
            .iter()
            .for_each(|piece| drop(black_box(chunk_checksums(piece))));
    }
    let once = (cpu_seconds("self")? - before) / SUM_ROUNDS as f64;

    let path = |file: usize| CurvinePath::parse(&format!("/{file:02}"));
    let written = busy(&worker, || {
        (0..files).try_for_each(|file| runtime.block_on(write(&client, &path(file)?, &pieces)))
    })?;
    let read = busy(&worker, || {
        (0..files).try_for_each(|file| {
            let bytes = runtime.block_on(client.read(&path(file)?))?;
            ensure!(bytes.len() == to_usize(FILE_MIB * MIB), "all of it");
            Ok(())
        })
    })?;
    let gibibytes = (files as u64 * FILE_MIB) as f64 / 1024.0;
    for (what, busy, times) in [("write", written, SUMS_WRITTEN), ("read", read, SUMS_READ)] {
        let percent = 100.0 * times * once / busy;
        let beside = format!(
            "{:.2} s for a GiB, of client and worker; each byte summed {times} times, at {:.1} GiB/s",
            busy / gibibytes,
            gibibytes / once
        );
        report.add(
            Row::new("checksums", format!("CRC32C in a {what} of 64 MiB"), percent, "%")
                .beside(beside, percent / 100.0)
                .target(Target::ValueAtMost(PERCENT_MAX)),
        );
    }
    runtime.block_on(client.close());
    worker.stop()?;
    master.stop()
}

/// The processor time that this process and a worker take for something.
fn busy(worker: &Node, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let so_far = || anyhow::Ok(cpu_seconds("self")? + worker.cpu_seconds()?);
    let before = so_far()?;
    work()?;
    Ok(so_far()? - before)
}

async fn write(client: &Client, path: &CurvinePath, pieces: &[Bytes]) -> Result<()> {
    let file = client.create(path, CreateOptions::default()).await?;
    for piece in pieces {
        file.append(piece.clone()).await?;
    }
    file.close().await?;
    Ok(())
}
