//! One big file through the client or in a directory, beside a raw directory and tmpfs.

use std::path::Path;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::{CurvinePath, Error, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::{Scratch, Stopwatch, posix};
use crate::shell::Shell;

pub const PIECE_BYTES: u64 = 1 << 20;
pub const SMALL_READ_BYTES: usize = 4096;
/// Random reads in flight beside the single one.
const DEPTH: usize = 8;
const TMPFS: &str = "/dev/shm";

/// Bytes a second in order, reads a second at random.
pub struct Rates {
    pub write: f64,
    pub read: f64,
    pub random: f64,
}

/// Places of small reads, the same in every run and for everything measured.
pub struct Offsets {
    state: u64,
    places: u64,
}

impl Offsets {
    pub fn over(bytes: u64) -> Self {
        Offsets {
            state: 1,
            places: (bytes / SMALL_READ_BYTES as u64).max(1),
        }
    }

    pub fn next(&mut self) -> u64 {
        // Knuth's MMIX generator: its high bits are good enough to hop about a file.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % self.places * SMALL_READ_BYTES as u64
    }
}

pub async fn run(
    shell: &Shell,
    directory: Option<&Path>,
    bytes: u64,
    reads: usize,
    local: &Path,
) -> Result<()> {
    let bytes = bytes / PIECE_BYTES * PIECE_BYTES;
    posix::check_room(local, bytes)?;
    if let Some(directory) = directory {
        posix::check_room(directory, bytes)?;
    }
    let piece = Bytes::from((0..PIECE_BYTES).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>());
    let raw = posix::big_file(local, bytes, reads, &piece, false)?;
    // Without room there, it is not measured.
    let tmpfs = match Path::new(TMPFS).is_dir() && posix::check_room(Path::new(TMPFS), bytes).is_ok() {
        true => Some(posix::big_file(Path::new(TMPFS), bytes, reads, &piece, false)?),
        false => None,
    };
    say(shell, "raw directory", &raw, &raw, tmpfs.as_ref());
    if let Some(tmpfs) = &tmpfs {
        say(shell, "tmpfs", tmpfs, &raw, Some(tmpfs));
    }
    if let Some(directory) = directory {
        let rates = posix::big_file(directory, bytes, reads, &piece, true)?;
        say(shell, &directory.display().to_string(), &rates, &raw, tmpfs.as_ref());
        return Ok(());
    }
    let scratch = Scratch::make(&shell.client, "data").await?;
    let measured = through_client(&shell.client, &scratch.path, bytes, reads, &piece).await;
    let (rates, deep) = scratch.remove(measured).await?;
    say(shell, "client", &rates, &raw, tmpfs.as_ref());
    shell.answer(
        &json!({ "bench": "data", "on": "client", "op": "random", "in_flight": DEPTH, "per_second": deep, "of_raw": deep / raw.random }),
        || format!("client, {DEPTH} in flight: random 4 KiB {deep:.0}/s"),
    );
    Ok(())
}

fn say(shell: &Shell, on: &str, rates: &Rates, raw: &Rates, tmpfs: Option<&Rates>) {
    let rows = [
        ("write", rates.write, raw.write, tmpfs.map(|t| t.write)),
        ("read", rates.read, raw.read, tmpfs.map(|t| t.read)),
        ("random", rates.random, raw.random, tmpfs.map(|t| t.random)),
    ];
    for (op, rate, raw, tmpfs) in rows {
        let in_order = op != "random";
        let (of_raw, of_tmpfs) = (rate / raw, tmpfs.map(|tmpfs| rate / tmpfs));
        let mut value = json!({ "bench": "data", "on": on, "op": op, "of_raw": of_raw, "of_tmpfs": of_tmpfs });
        match in_order {
            true => value["mb_per_second"] = json!(rate / 1e6),
            false => value["per_second"] = json!(rate),
        }
        shell.answer(&value, || {
            let rate = match in_order {
                true => format!("{:>8.0} MB/s", rate / 1e6),
                false => format!("{rate:>8.0} of 4 KiB/s"),
            };
            let of_tmpfs = of_tmpfs.map_or(String::new(), |ratio| format!("  {ratio:>5.2} of tmpfs"));
            format!("{on:>13} {op:>6}: {rate}  {of_raw:>5.2} of raw{of_tmpfs}")
        });
    }
}

/// The rates of one read at a time, and of random reads with [`DEPTH`] in flight.
async fn through_client(
    client: &Client,
    directory: &CurvinePath,
    bytes: u64,
    reads: usize,
    piece: &Bytes,
) -> Result<(Rates, f64)> {
    let path = directory.join("big")?;
    let file = client.create(&path, CreateOptions::default()).await?;
    let watch = Stopwatch::start();
    for _ in 0..bytes / PIECE_BYTES {
        file.append(piece.clone()).await?;
    }
    file.close().await?;
    let write = watch.per_second(bytes as f64);

    let watch = Stopwatch::start();
    let file = client.open(&path).await?;
    let mut read = 0;
    let mut pieces = std::pin::pin!(file.stream(0));
    while let Some(piece) = pieces.try_next().await? {
        read += piece.len() as u64;
    }
    if read != bytes {
        return Err(Error::internal(format!("{read} bytes were read of {bytes}")));
    }
    let read = watch.per_second(bytes as f64);

    let mut rates = [0.0; 2];
    for (rate, depth) in rates.iter_mut().zip([1, DEPTH]) {
        let mut offsets = Offsets::over(bytes);
        let watch = Stopwatch::start();
        stream::iter((0..reads).map(|_| offsets.next()))
            .map(|offset| file.read_at(offset, SMALL_READ_BYTES as u64))
            .buffer_unordered(depth)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        *rate = watch.per_second(reads as f64);
    }
    let [random, deep] = rates;
    Ok((Rates { write, read, random }, deep))
}
