//! A load into the cache, beside a plain concurrent GET of the same objects from the same server, which drops the bytes, and
//! beside one that writes them to files. A directory of this machine has no GET: reading what is in the page cache copies one
//! buffer over and over. What is comparable is a copy.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use opendal::Operator;
use opendal::services::Fs;

use crate::Bench;
use crate::node::Node;
use crate::report::{Report, Row, Target};
use crate::server::S3Server;

/// A directory that somebody waits for: what counts is when all of it is there.
const FEW: &str = "4 KiB, 500 of them";
/// Objects of a bucket: how many of which size.
const OBJECTS: [(&str, usize, usize); 5] = [
    (FEW, 500, 4 << 10),
    ("4 KiB", 3_000, 4 << 10),
    ("64 KiB", 2_000, 64 << 10),
    ("1 MiB", 200, 1 << 20),
    ("64 MiB", 8, 64 << 20),
];
/// Concurrent requests of the plain read; the best of these is what a load is measured by.
const DEPTHS: [usize; 3] = [4, 16, 64];

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let root = bench.scratch.path().join("objects");
    for (name, count, bytes) in OBJECTS {
        let directory = root
            .join("bucket")
            .join(name.replace(", ", "-").replace(' ', "-"));
        std::fs::create_dir_all(&directory)?;
        for number in 0..bench.count(count).max(1) {
            let content: Vec<u8> = (0..bytes)
                .map(|at| ((at * 31 + number) % 251).to_le_bytes()[0])
                .collect();
            std::fs::write(directory.join(format!("{number:05}")), content)?;
        }
    }
    let node = bench
        .programs
        .node_of_all_roles(&bench.scratch.path().join("load"))?;
    let operator = Operator::new(Fs::default().root(&root.join("bucket").to_string_lossy()))?;
    let uri = format!("file://{}", root.join("bucket").display());
    let copies = bench.scratch.path().join("copies");
    let copy = |directory: &str, depth| {
        let to = copies.join(format!("{directory}-{depth}"));
        plain_copy(&root.join("bucket").join(directory), &to, depth)
    };
    measure(bench, report, &node, "file", &uri, &[], &[("plain copy", &copy)])?;
    let bucket = bench.scratch.path().join("s3");
    std::fs::create_dir_all(bucket.join("bucket"))?;
    match S3Server::start(&bucket) {
        Ok(server) => {
            let s3 = S3Server::operator(server.port)?;
            // As a bucket comes to be: of a file that it was not sent, this server computes the MD5 for every request.
            tokio::runtime::Runtime::new()?.block_on(copy_all(&operator, &s3))?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let get =
                |directory: &str, depth| runtime.block_on(plain_read(&s3, &format!("{directory}/"), depth));
            let get_to_files = |directory: &str, depth| {
                let to = copies.join(format!("s3-{directory}-{depth}"));
                runtime.block_on(plain_download(&s3, &format!("{directory}/"), &to, depth))
            };
            measure(
                bench,
                report,
                &node,
                "s3",
                "s3://bucket",
                &S3Server::mount_options(server.port),
                &[("plain GET", &get), ("GET to files", &get_to_files)],
            )?;
        }
        Err(error) => eprintln!("  load from S3 skipped: {error:#}"),
    }
    node.stop()
}

/// Moves all objects of a directory, so many at once; says how many bytes they have.
type MoveAll<'a> = &'a dyn Fn(&str, usize) -> Result<u64>;

fn measure(
    bench: &Bench,
    report: &mut Report,
    node: &Node,
    scheme: &str,
    uri: &str,
    options: &[String],
    peers: &[(&str, MoveAll<'_>)],
) -> Result<()> {
    let top = format!("/{scheme}");
    let mut mount = vec!["mount", uri, &top];
    options.iter().for_each(|option| mount.extend(["-o", option]));
    bench.programs.cv(node, &mount)?;
    let (mut all, mut all_of_peers) = ((0.0, 0), vec![0.0; peers.len()]);
    for (name, _, _) in OBJECTS {
        let directory = name.replace(", ", "-").replace(' ', "-");
        let mut bytes = 0;
        let mut plain = vec![f64::MAX; peers.len()];
        for ((_, move_all), best) in peers.iter().zip(&mut plain) {
            for depth in DEPTHS {
                let begun = Instant::now();
                bytes = move_all(&directory, depth)?;
                *best = best.min(begun.elapsed().as_secs_f64());
            }
        }
        let loaded = load(bench, node, &format!("{top}/{directory}"), bytes)?;
        all = (all.0 + loaded, all.1 + bytes);
        all_of_peers
            .iter_mut()
            .zip(&plain)
            .for_each(|(all, plain)| *all += plain);
        if name == FEW {
            let plain = plain[0];
            let row = Row::new("load", format!("{scheme}: objects of {name}"), loaded, "s")
                .beside(format!("{}, {plain:.2} s", peers[0].0), plain / loaded);
            report.add(match scheme {
                "file" => row,
                _ => row.target(Target::ValueAtMost(0.5)),
            });
            continue;
        }
        for ((peer, _), plain) in peers.iter().zip(plain) {
            let what = format!("{scheme}: objects of {name}");
            report.add(compared(&what, bytes, loaded, (peer, plain)));
        }
    }
    for (place, ((peer, _), plain)) in peers.iter().zip(all_of_peers).enumerate() {
        let row = compared(&format!("{scheme}: all"), all.1, all.0, (peer, plain));
        report.add(match (scheme, place) {
            ("s3", 0) => row.target(Target::RatioAtLeast(0.85)),
            _ => row,
        });
    }
    Ok(())
}

/// So many bytes loaded in these seconds, beside those that the peer took.
fn compared(what: &str, bytes: u64, loaded: f64, (peer, plain): (&str, f64)) -> Row {
    let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
    Row::new("load", what, rate(loaded), "MB/s")
        .beside(format!("{peer}, {:.0} MB/s", rate(plain)), plain / loaded)
}

/// Copies every file of a directory into a new one, so many at once; says how many bytes there were.
fn plain_copy(from: &Path, to: &Path, depth: usize) -> Result<u64> {
    std::fs::create_dir_all(to)?;
    let names: Vec<_> = std::fs::read_dir(from)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    let next = AtomicUsize::new(0);
    let copy = || -> Result<u64> {
        let mut bytes = 0;
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            bytes += std::fs::copy(from.join(name), to.join(name))?;
        }
        Ok(bytes)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..depth).map(|_| scope.spawn(copy)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    })
}

async fn copy_all(from: &Operator, to: &Operator) -> Result<()> {
    let entries = from.list_with("").recursive(true).await?;
    let objects = entries.into_iter().filter(|entry| entry.metadata().is_file());
    futures::stream::iter(objects)
        .map(|entry| async move {
            to.write(entry.path(), from.read(entry.path()).await?).await?;
            Ok(())
        })
        .buffer_unordered(8)
        .try_collect()
        .await
}

/// Reads every object below a prefix and drops the bytes; says how many there were.
async fn plain_read(operator: &Operator, prefix: &str, depth: usize) -> Result<u64> {
    let entries: Vec<_> = operator.list(prefix).await?;
    let objects = entries.into_iter().filter(|entry| entry.metadata().is_file());
    futures::stream::iter(objects)
        .map(|entry| async move {
            let reader = operator.reader(entry.path()).await?;
            let mut stream = reader.into_bytes_stream(..).await?;
            let mut bytes = 0;
            while let Some(piece) = stream.try_next().await? {
                bytes += piece.len() as u64;
            }
            Ok(bytes)
        })
        .buffer_unordered(depth)
        .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
        .await
}

/// Reads every object below a prefix into a file of its own in a new directory; says how many bytes there were.
async fn plain_download(operator: &Operator, prefix: &str, to: &Path, depth: usize) -> Result<u64> {
    std::fs::create_dir_all(to)?;
    let entries: Vec<_> = operator.list(prefix).await?;
    let objects = entries.into_iter().filter(|entry| entry.metadata().is_file());
    futures::stream::iter(objects)
        .map(|entry| {
            let (operator, path) = (operator.clone(), to.join(entry.name()));
            // On all threads: files are written where their bytes arrive.
            tokio::spawn(async move {
                let mut file = File::create(path)?;
                let reader = operator.reader(entry.path()).await?;
                let mut stream = reader.into_bytes_stream(..).await?;
                let mut bytes = 0;
                while let Some(piece) = stream.try_next().await? {
                    file.write_all(&piece)?;
                    bytes += piece.len() as u64;
                }
                anyhow::Ok(bytes)
            })
        })
        .buffer_unordered(depth)
        .map(|joined| joined.context("it does not panic")?)
        .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
        .await
}

/// Loads a directory; says how many seconds the job ran.
fn load(bench: &Bench, node: &Node, path: &str, bytes: u64) -> Result<f64> {
    let answers = bench.programs.cv(node, &["load", path, "--watch"])?;
    let job = answers.last().context("a load answers with its job")?;
    ensure!(
        job["bytes_moved"].as_u64() == Some(bytes),
        "the load moved all {bytes} bytes: {job}"
    );
    let at = |field: &str| {
        job[field]
            .as_i64()
            .with_context(|| format!("no {field} in {job}"))
    };
    Ok((at("ended_ns")? - at("created_ns")?) as f64 / 1e9)
}
