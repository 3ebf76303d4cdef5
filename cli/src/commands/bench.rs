//! Rates beside the floor under them, in the same run.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use clap::Subcommand;
use curvine_actors::client::{Client, CreateOptions};
use curvine_protocol::master::{CreateFile, IfExists, RenameMode};
use curvine_protocol::{CurvinePath, Error, Result};
use futures::TryStreamExt;
use serde_json::json;

use crate::shell::Shell;

/// Measure rates beside the floor under them, in the same run
///
/// JSON: one object a line for each measurement.
#[derive(clap::Args)]
#[command(after_help = "Example: cv bench meta --clients 1,10,40")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Metadata: create, stat, open, list, rename, delete beside an empty call and append + fdatasync
    Meta {
        /// Concurrent clients
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 40])]
        clients: Vec<usize>,
        /// Files at each number of clients
        #[arg(long, default_value_t = 8_000)]
        files: usize,
        /// Where the bare append + fdatasync is measured
        #[arg(long, default_value = ".")]
        local: PathBuf,
    },
    /// One big file through the client: write and read, MB/s
    Data {
        /// Bytes of the file
        #[arg(long, default_value_t = 1 << 30)]
        bytes: u64,
    },
    /// Small files in a directory of any file system, by POSIX calls: written and read per second
    Small {
        /// The directory, such as a mount point
        dir: PathBuf,
        #[arg(long, default_value_t = 2_000)]
        files: usize,
        #[arg(long, default_value_t = 4096)]
        bytes: usize,
        #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
        threads: Vec<usize>,
    },
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let client = &shell.client;
        match self.what {
            What::Meta {
                clients,
                files,
                local,
            } => {
                let floor = fdatasync_rate(&local)?;
                shell.answer(&json!({ "op": "append+fdatasync", "per_second": floor }), || format!("bare append + fdatasync of 4 KiB: {floor:.0}/s"));
                for count in clients {
                    meta(client, shell, count.max(1), files, floor).await?;
                }
                Ok(())
            }
            What::Data { bytes } => data(client, shell, bytes).await,
            What::Small {
                dir,
                files,
                bytes,
                threads,
            } => {
                for threads in threads {
                    small(shell, &dir, files, bytes, threads.max(1))?;
                }
                Ok(())
            }
        }
    }
}

/// How often a second 4 KiB can be appended and synced: what durability costs here.
fn fdatasync_rate(directory: &std::path::Path) -> Result<f64> {
    const APPENDS: u32 = 300;
    let path = directory.join(format!(".cv-bench-{}", std::process::id()));
    let measure = || -> std::io::Result<f64> {
        let mut file = std::fs::File::create(&path)?;
        let started = Instant::now();
        for _ in 0..APPENDS {
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
        }
        Ok(f64::from(APPENDS) / started.elapsed().as_secs_f64())
    };
    let rate = measure().map_err(|e| Error::from(e).while_doing(path.display()));
    let _ = std::fs::remove_file(&path);
    rate
}

async fn meta(client: &Client, shell: &Shell, clients: usize, files: usize, floor: f64) -> Result<()> {
    let top = CurvinePath::parse(&format!("/.cv-bench-{}-{clients}", std::process::id()))?;
    client.make_dir(&top, 0o755, true).await?;
    let each = (files / clients).max(1);
    let names: Vec<Vec<(CurvinePath, CurvinePath)>> = (0..clients)
        .map(|c| {
            let pair = |i| {
                Ok((
                    top.join(&format!("{c:03}-{i:07}"))?,
                    top.join(&format!("r{c:03}-{i:07}"))?,
                ))
            };
            (0..each).map(pair).collect::<Result<_>>()
        })
        .collect::<Result<_>>()?;
    let names = Arc::new(names);
    let mut echo = f64::NAN;
    for op in ["echo", "create", "stat", "open", "list", "rename", "delete"] {
        let started = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|c| {
                let (client, names, top) = (client.clone(), names.clone(), top.clone());
                tokio::spawn(async move {
                    // A page of a listing is a thousand look-ups.
                    let count = if op == "list" { (each / 100).max(1) } else { each };
                    for (name, renamed) in &names[c][..count] {
                        match op {
                            "echo" => client.echo().await?,
                            "create" => drop(
                                client
                                    .change(CreateFile {
                                        node: name.into(),
                                        mode: 0o644,
                                        if_exists: IfExists::Fail,
                                        parents: false,
                                        block_bytes: 0,
                                        replicas: 0,
                                        first_block: false,
                                    })
                                    .await?,
                            ),
                            "stat" => drop(client.stat(name).await?),
                            "open" => drop(client.locate(name).await?),
                            "list" => drop(client.list_page(&top, None, 1_000).await?),
                            "rename" => drop(client.rename(name, renamed, RenameMode::Replace, false).await?),
                            _ => drop(client.unlink(renamed, false).await?),
                        }
                    }
                    Ok::<_, Error>(count)
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task
                .await
                .map_err(|_| Error::internal("a client of the benchmark panicked"))??;
        }
        let rate = done as f64 / started.elapsed().as_secs_f64();
        if op == "echo" {
            echo = rate;
        }
        let value = json!({ "op": op, "clients": clients, "per_second": rate, "of_echo": rate / echo, "of_fdatasync": rate / floor });
        shell.answer(&value, || format!(
                "{clients:>3} clients {op:>7}: {rate:>9.0}/s  {:>6.2} of echo  {:>7.2} of fdatasync",
                rate / echo,
                rate / floor
            ));
    }
    client.delete(&top, true).await.map(|_| ())
}

async fn data(client: &Client, shell: &Shell, bytes: u64) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let path = CurvinePath::parse(&format!("/.cv-bench-data-{}", std::process::id()))?;
    let piece = Bytes::from((0..PIECE).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>());
    let file = client.create(&path, CreateOptions::default()).await?;
    let started = Instant::now();
    for _ in 0..bytes / PIECE {
        file.append(piece.clone()).await?;
    }
    file.close().await?;
    let wrote = (bytes / PIECE * PIECE) as f64 / 1e6 / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let mut read = 0;
    let file = client.open(&path).await?;
    let mut pieces = std::pin::pin!(file.stream(0));
    while let Some(piece) = pieces.try_next().await? {
        read += piece.len();
    }
    let read = read as f64 / 1e6 / started.elapsed().as_secs_f64();
    shell.answer(
        &json!({ "write_mb_per_second": wrote, "read_mb_per_second": read }),
        || format!("write {wrote:.0} MB/s, read {read:.0} MB/s"),
    );
    client.delete(&path, false).await.map(|_| ())
}

fn small(
    shell: &Shell,
    directory: &std::path::Path,
    files: usize,
    bytes: usize,
    threads: usize,
) -> Result<()> {
    let top = directory.join(format!(".cv-bench-{}-{threads}", std::process::id()));
    std::fs::create_dir(&top).map_err(|e| Error::from(e).while_doing(top.display()))?;
    let each = (files / threads).max(1);
    let run = |write: bool| -> Result<f64> {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|t| {
                    let top = &top;
                    scope.spawn(move || -> std::io::Result<()> {
                        let content = vec![t as u8; bytes];
                        for i in 0..each {
                            let path = top.join(format!("{t}-{i}"));
                            match write {
                                true => std::fs::write(path, &content)?,
                                false if std::fs::read(path)? == content => {}
                                false => return Err(std::io::Error::other("other bytes than were written")),
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            for worker in workers {
                worker
                    .join()
                    .map_err(|_| Error::internal("a thread of the benchmark panicked"))??;
            }
            Ok::<_, Error>(())
        })?;
        Ok((each * threads) as f64 / started.elapsed().as_secs_f64())
    };
    let result = run(true).and_then(|wrote| Ok((wrote, run(false)?)));
    let _ = std::fs::remove_dir_all(&top);
    let (wrote, read) = result?;
    let value =
        json!({ "threads": threads, "bytes": bytes, "written_per_second": wrote, "read_per_second": read });
    shell.answer(&value, || format!("{threads} threads, files of {bytes} bytes: {wrote:.0} written/s, {read:.0} read/s"));
    Ok(())
}
