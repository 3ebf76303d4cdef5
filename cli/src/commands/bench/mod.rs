//! `cv bench`: rates beside the floor under them, in the same run.
//!
//! One module per kind of load. A measurement is one object with `--json`: `bench`, `op`, its parameters, `per_second` or
//! `mb_per_second`, and the ratios to what was measured beside it.

mod data;
mod meta;
mod posix;
mod small;

use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Instant;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use curvine_actors::client::Client;
use curvine_protocol::{CurvinePath, Error, Result};

use crate::shell::Shell;

const THREADS_MAX: u64 = 1_024;
/// Each has a task, a thread in a raw directory, and with `--apart` a connection.
const CLIENTS_MAX: u64 = 1_024;
const COUNT_MAX: u64 = 100_000_000;
const FILE_BYTES_MAX: u64 = 1 << 40;
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// A number from these on; any other is wrong use.
fn number(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Measure rates beside the floor under them, in the same run
///
/// JSON: one object a line for each measurement.
#[derive(clap::Args)]
#[command(after_help = "\
Examples: cv bench meta --clients 1,10,40 --threads 4
          cv bench small /mnt/curvine --local /tmp")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Threads that make the load, each with a session and a connection of its own; 0: one a core
    #[arg(long, global = true, default_value_t = 0, value_parser = number(0, THREADS_MAX))]
    threads: usize,
}

#[derive(Subcommand)]
enum What {
    /// Metadata: create, stat, open, list, rename, delete beside an empty call and append + fdatasync
    Meta {
        /// Concurrent clients: each has one call in flight
        #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 40], value_parser = number(1, CLIENTS_MAX))]
        clients: Vec<usize>,
        /// Files at each number of clients
        #[arg(long, default_value_t = 8_000, value_parser = number(1, COUNT_MAX))]
        files: usize,
        /// What to measure, in this order: what needs files finds those that were created before
        #[arg(long, value_delimiter = ',', default_values = meta::OPS, value_parser = meta::OPS)]
        ops: Vec<String>,
        /// Each client with a session and a connection of its own; without, they share those of the threads
        #[arg(long)]
        apart: bool,
        /// Where the bare append + fdatasync is measured
        #[arg(long, default_value = ".")]
        local: PathBuf,
    },
    /// One big file, through the client or in a directory, beside a raw directory and tmpfs: written and read in order,
    /// read at random
    Data {
        /// By POSIX calls in this directory, such as a mount point; without it, through the client
        dir: Option<PathBuf>,
        /// Bytes of the file
        #[arg(long, default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(data::PIECE_BYTES..=FILE_BYTES_MAX))]
        bytes: u64,
        /// Reads of 4 KiB at random places
        #[arg(long, default_value_t = 20_000, value_parser = number(1, COUNT_MAX))]
        reads: usize,
        /// The raw directory
        #[arg(long, default_value = ".")]
        local: PathBuf,
    },
    /// Small files: written and read per second, through the client or in a directory, beside a raw directory
    Small {
        /// By POSIX calls in this directory, such as a mount point; without it, through the client
        dir: Option<PathBuf>,
        #[arg(long, default_value_t = 2_000, value_parser = number(1, COUNT_MAX))]
        files: usize,
        /// Bytes of a file
        #[arg(long, value_delimiter = ',', default_values_t = [4096, 65536], value_parser = number(0, SMALL_BYTES_MAX))]
        bytes: Vec<usize>,
        /// Concurrent clients: each writes or reads one file at a time
        #[arg(long, value_delimiter = ',', default_values_t = [1, 8], value_parser = number(1, CLIENTS_MAX))]
        clients: Vec<usize>,
        /// The raw directory
        #[arg(long, default_value = ".")]
        local: PathBuf,
    },
}

impl Args {
    /// How many threads the program shall have.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        }
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let threads = self.threads();
        match self.what {
            What::Meta {
                clients,
                files,
                ops,
                apart,
                local,
            } => {
                for count in clients {
                    let sessions = if apart { count } else { threads.min(count) };
                    let sessions = Sessions::open(shell, sessions).await?;
                    let load = meta::Load { threads, clients: count, files, ops: &ops };
                    let result = meta::run(shell, &sessions, load, &local).await;
                    sessions.close().await;
                    result?;
                }
                Ok(())
            }
            What::Data {
                dir,
                bytes,
                reads,
                local,
            } => data::run(shell, dir.as_deref(), bytes, reads, &local).await,
            What::Small {
                dir,
                files,
                bytes,
                clients,
                local,
            } => {
                let sessions = Sessions::open(shell, if dir.is_some() { 1 } else { threads }).await?;
                let result = async {
                    for bytes in bytes {
                        for &clients in &clients {
                            let load = small::Load { files, bytes, clients };
                            small::run(shell, &sessions, dir.as_deref(), &local, load).await?;
                        }
                    }
                    Ok(())
                };
                let result = result.await;
                sessions.close().await;
                result
            }
        }
    }
}

/// Sessions of one cluster, each with connections of its own and a thread that serves them. The first is the shell's.
struct Sessions {
    first: Client,
    others: Vec<Client>,
}

impl Sessions {
    async fn open(shell: &Shell, count: usize) -> Result<Sessions> {
        let mut sessions = Sessions {
            first: shell.client.clone(),
            others: Vec::new(),
        };
        for _ in 1..count {
            match shell.another_client().await {
                Ok(session) => sessions.others.push(session),
                Err(error) => {
                    sessions.close().await;
                    return Err(error);
                }
            }
        }
        Ok(sessions)
    }

    fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// The session of a client, in turn.
    fn of(&self, client: usize) -> &Client {
        match client % self.count() {
            0 => &self.first,
            place => &self.others[place - 1],
        }
    }

    /// Ends all but the shell's.
    async fn close(self) {
        for session in self.others {
            session.close().await;
        }
    }
}

/// How often a second something happened, from its count.
struct Stopwatch(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the time that passes"
)]
impl Stopwatch {
    fn start() -> Self {
        Stopwatch(Instant::now())
    }

    fn per_second(&self, count: f64) -> f64 {
        count / self.0.elapsed().as_secs_f64()
    }
}

/// A scratch directory in the cluster, made afresh; [`Scratch::remove`] takes it away.
struct Scratch {
    client: Client,
    path: CurvinePath,
}

impl Scratch {
    async fn make(client: &Client, name: &str) -> Result<Scratch> {
        let path = CurvinePath::parse(&format!("/.cv-bench-{}-{name}", std::process::id()))?;
        client.make_dir(&path, 0o755, true).await?;
        Ok(Scratch {
            client: client.clone(),
            path,
        })
    }

    /// Passes a result on; the directory goes first, whatever the result is.
    async fn remove<T>(self, result: Result<T>) -> Result<T> {
        let removed = self.client.delete(&self.path, true).await;
        let value = result?;
        removed.map(|_| value)
    }
}

/// The results of tasks that ran side by side.
async fn joined<T: 'static>(tasks: Vec<tokio::task::JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(
            task.await
                .map_err(|_| Error::internal("a client of the benchmark panicked"))??,
        );
    }
    Ok(results)
}
