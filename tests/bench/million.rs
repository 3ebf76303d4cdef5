//! A million files (`CURVINE_FILES` for another number): bytes on disk for each, memory, and how soon a restarted node serves.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::master::{AllocateBlocks, BlockCommit, CommitFile, CreateFile, IfExists};
use curvine_protocol::{CurvinePath, FileLayout};

use crate::Bench;
use crate::node::{Node, disk_bytes};
use crate::report::{Report, Row, Target};

pub const FILES_IN_DIRECTORY: usize = 1_000;
/// Many: what is measured here begins when the files are there.
pub const FILLERS: usize = 400;
/// What is said to have been written to each block.
pub const BLOCK_BYTES: u64 = 4096;
/// Of the target: inode, entry and block together.
const INODE_BYTES_MAX: f64 = 300.0;
const RESTART_S_MAX: f64 = 3.0;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let files = files(bench);
    let data_dir = bench.scratch.path().join("million");
    let node = bench.programs.node_of_all_roles(&data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let begun = Instant::now();
    runtime.block_on(fill([node.master()?], "", 0..files, 1, FILLERS))?;
    let rate = files as f64 / begun.elapsed().as_secs_f64();
    let what = |text: &str| format!("{text}, {files} files of one block");
    report.add(Row::new("million", what("create + commit"), rate, "files/s"));
    let (all, own) = node.resident_mb()?;
    report.add(Row::new(
        "million",
        what(&format!("resident, running (without file pages {own:.0})")),
        all,
        "MB",
    ));
    disk(&data_dir, files, "while it runs", report)?;
    let path = one_of(files);
    drop(node);
    restart(
        bench,
        &data_dir,
        &path,
        &what("restart after kill -9 until a stat is answered"),
        report,
    )?
    .stop()?;
    let node = restart(
        bench,
        &data_dir,
        &path,
        &what("restart after a stop until a stat is answered"),
        report,
    )?;
    let (all, own) = node.resident_mb()?;
    report.add(Row::new(
        "million",
        what(&format!("resident, restarted (without file pages {own:.0})")),
        all,
        "MB",
    ));
    disk(&data_dir, files, "after restarts", report)?;
    node.stop()
}

fn restart(bench: &Bench, data_dir: &Path, path: &str, what: &str, report: &mut Report) -> Result<Node> {
    let begun = Instant::now();
    let node = bench.programs.node_of_all_roles(data_dir)?;
    bench.programs.cv(&node, &["stat", path])?;
    let took = begun.elapsed().as_secs_f64();
    report.add(Row::new("million", what, took, "s").target(Target::ValueAtMost(RESTART_S_MAX)));
    report.add(Row::new(
        "million",
        format!("{what}: ready alone"),
        node.started_in.as_secs_f64(),
        "s",
    ));
    Ok(node)
}

fn disk(data_dir: &Path, files: usize, when: &str, report: &mut Report) -> Result<()> {
    let mut sum = 0.0;
    for part in ["state", "log", "snapshots"] {
        let bytes = disk_bytes(&data_dir.join("master").join(part))? as f64 / files as f64;
        sum += bytes;
        let row = Row::new(
            "million",
            format!("on disk for each file {when}: {part}"),
            bytes,
            "bytes",
        );
        report.add(match part {
            "state" => row.target(Target::ValueAtMost(INODE_BYTES_MAX)),
            _ => row,
        });
    }
    report.add(Row::new(
        "million",
        format!("on disk for each file {when}: master in all"),
        sum,
        "bytes",
    ));
    Ok(())
}

/// How many there are to be.
pub fn files(bench: &Bench) -> usize {
    files_or(bench.count(1_000_000))
}

/// The same with a number of its own where no other is asked for.
pub fn files_or(usual: usize) -> usize {
    let asked = std::env::var("CURVINE_FILES").ok();
    let asked = asked.and_then(|files| files.parse().ok());
    asked.unwrap_or(usual)
}

/// The path of one in the middle.
pub fn one_of(files: usize) -> String {
    let directory = files / FILES_IN_DIRECTORY / 2;
    format!("/{directory:04}/{:04}", FILES_IN_DIRECTORY / 2)
}

/// Makes files below a directory (`""` is the root) as a writer of so many small blocks each does, but for the blocks' bytes,
/// which the master never sees.
pub async fn fill<'a>(
    masters: impl IntoIterator<Item = &'a str>,
    top: &'static str,
    numbers: Range<usize>,
    blocks_each: u32,
    clients: usize,
) -> Result<()> {
    let client = Client::connect(masters, ClientOptions::default()).await?;
    let next = Arc::new(AtomicUsize::new(numbers.start / FILES_IN_DIRECTORY));
    let end = numbers.end;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let directory = next.fetch_add(1, Ordering::Relaxed);
                    let first = directory * FILES_IN_DIRECTORY;
                    if first >= end {
                        return Ok::<_, curvine_protocol::Error>(());
                    }
                    let files = FILES_IN_DIRECTORY.min(end - first);
                    fill_directory(&client, &format!("{top}/{directory:04}"), files, blocks_each).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a filler panicked")??;
    }
    client.close().await;
    Ok(())
}

async fn fill_directory(
    client: &Client,
    directory: &str,
    files: usize,
    blocks_each: u32,
) -> curvine_protocol::Result<()> {
    let top = CurvinePath::parse(directory)?;
    client.make_dir(&top, 0o755, true).await?;
    for file in 0..files {
        let path = top.join(&format!("{file:04}"))?;
        let layout = create(client, &path, blocks_each).await?;
        commit(client, layout).await?;
    }
    Ok(())
}

/// Creates a file that is to have so many blocks. They are assigned at once.
pub async fn create(
    client: &Client,
    path: &CurvinePath,
    blocks: u32,
) -> curvine_protocol::Result<FileLayout> {
    let is_one = blocks == 1;
    let layout = client
        .change(CreateFile {
            node: path.into(),
            mode: 0o644,
            if_exists: IfExists::Fail,
            parents: false,
            block_bytes: if is_one { 0 } else { 64 << 10 },
            replicas: 0,
            first_block: is_one,
            open: 0,
            unmasked: None,
        })
        .await?;
    if is_one {
        return Ok(layout);
    }
    client
        .change(AllocateBlocks {
            inode: layout.attr.inode,
            from_index: 0,
            until_index: blocks,
        })
        .await
}

/// Says of a file's blocks that they were written where they should be.
pub async fn commit(client: &Client, layout: FileLayout) -> curvine_protocol::Result<()> {
    let blocks: Vec<_> = layout
        .placed(0)
        .map(|(index, located)| BlockCommit {
            index,
            id: located.block.id,
            len_bytes: BLOCK_BYTES,
            generation: located.block.generation,
            workers: located.workers.clone(),
            hole_bytes: 0,
        })
        .collect();
    let last = blocks.last().map_or(0, |block| u64::from(block.index));
    client
        .change(CommitFile {
            inode: layout.attr.inode,
            size_bytes: last * layout.attr.block_bytes + BLOCK_BYTES,
            blocks,
            mtime_ns: None,
            close: true,
            keep_privileges: false,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        })
        .await?;
    Ok(())
}
