use std::time::Duration;

use curvine_actors::kit::Clock;
use curvine_actors::kit::ports::SystemClock;
use curvine_protocol::cluster::{WorkerService, WorkerState, WorkerStatus};
use curvine_protocol::{Error, ErrorKind, Result, WorkerId};
use serde_json::json;

use super::report::state;
use crate::format;
use crate::shell::{Shell, complain};

/// How often the masters are asked how far they are.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// List the nodes, and take workers out of service and back
///
/// JSON: an object a line with role (master, worker), id, address, state; of workers also version, service (InService,
/// Draining, Drained, or Maintenance with until_ns), drain_left (blocks, len_bytes, open_blocks, damaged_blocks) while one
/// is drained, and labels (host, rack).
#[derive(clap::Args)]
#[command(after_help = "Example: cv node\n         cv node decommission 3 --wait")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Have all that a worker keeps copied to others, so that it may be stopped for good
    ///
    /// It takes no new blocks from now on, and goes on answering readers. It is decommissioned when every block that it keeps is
    /// on others; what is cached there is not copied. Blocks of files that somebody is writing are waited for.
    #[command(after_help = "Example: cv node decommission 3 --wait")]
    Decommission {
        /// Its id or its address, as `cv node` shows them
        worker: String,
        /// Wait until it is decommissioned
        #[arg(short, long)]
        wait: bool,
    },
    /// Take a worker back into service
    #[command(after_help = "Example: cv node recommission 3")]
    Recommission {
        /// Its id or its address, as `cv node` shows them
        worker: String,
    },
    /// Say that a worker goes away for a while and comes back, so that no replicas are made of what it has
    ///
    /// It takes no new blocks meanwhile. What it alone has cannot be read while it is away. `cv node recommission` ends it.
    #[command(after_help = "Example: cv node maintenance 3 --for 30min")]
    Maintenance {
        /// Its id or its address, as `cv node` shows them
        worker: String,
        /// For how long
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Duration,
    },
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        match self.what {
            None => list(shell).await,
            Some(What::Decommission { worker, wait }) => {
                let id = named(shell, &worker).await?.id;
                shell.client.set_worker_service(id, WorkerService::Draining).await?;
                warn_if_nobody_serves(shell, id).await?;
                match wait {
                    true => wait_for(shell, id).await,
                    false => {
                        shell.line(format!(
                            "worker {id} is being drained; `cv node` says how far it is"
                        ));
                        Ok(())
                    }
                }
            }
            Some(What::Recommission { worker }) => {
                let id = named(shell, &worker).await?.id;
                shell.client.set_worker_service(id, WorkerService::InService).await
            }
            Some(What::Maintenance { worker, time }) => {
                let id = named(shell, &worker).await?.id;
                let until_ns = i64::try_from(time.as_nanos())
                    .ok()
                    .and_then(|time_ns| SystemClock.wall_ns().checked_add(time_ns));
                let until_ns = until_ns.ok_or_else(|| {
                    Error::invalid(format!(
                        "--for {} is too long; the worker may be put into maintenance again later: try --for 30d",
                        humantime::format_duration(time)
                    ))
                })?;
                let service = WorkerService::Maintenance { until_ns };
                shell.client.set_worker_service(id, service).await
            }
        }
    }
}

/// One may drain the last worker, before others are started. Nothing is drained until they are.
async fn warn_if_nobody_serves(shell: &Shell, id: WorkerId) -> Result<()> {
    let workers = shell.client.status().await?.workers;
    let serves = |worker: &WorkerStatus| {
        worker.state == WorkerState::Live && worker.service == WorkerService::InService
    };
    if !workers.iter().any(serves) {
        complain(
            "node",
            &Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "no live worker is in service besides worker {id}: nothing can be written, and what it keeps has nowhere to \
                     go, until one is; start another, or `cv node recommission {id}`"
                ),
            ),
        );
    }
    Ok(())
}

/// The worker that somebody means.
pub async fn named(shell: &Shell, name: &str) -> Result<WorkerStatus> {
    let workers = shell.client.status().await?.workers;
    let id = name.parse().ok().map(WorkerId);
    let mut meant = workers
        .into_iter()
        .filter(|worker| Some(worker.id) == id || worker.address == name);
    match (meant.next(), meant.next()) {
        (Some(worker), None) => Ok(worker),
        (None, _) => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no worker {name:?}; `cv node` lists the workers"),
        )),
        (Some(one), Some(other)) => Err(Error::invalid(format!(
            "workers {} and {} both have the address {name}; name one by its id",
            one.id, other.id
        ))),
    }
}

/// How often it is looked whether a lost worker is drained, when nothing changes.
const LOST_LOOKS: u32 = 30;

async fn wait_for(shell: &Shell, id: WorkerId) -> Result<()> {
    let (mut said, mut looks) = (String::new(), 0);
    loop {
        let workers = shell.client.status().await?.workers;
        let worker = workers.into_iter().find(|worker| worker.id == id);
        let Some(worker) = worker else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("worker {id} is not known any more"),
            ));
        };
        let words = state(&worker);
        if !shell.json && words != said {
            shell.line(format!("worker {id}: {words}"));
            shell.flush();
            (said, looks) = (words, 0);
        }
        looks += 1;
        if worker.state == WorkerState::Lost && worker.service == WorkerService::Draining && looks > LOST_LOOKS {
            return Err(Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "worker {id} is lost, and what it alone has cannot be copied: start it again with its data directory, or \
                     remove the files that `cv fsck` shows as away or missing; the rest goes on without this command"
                ),
            ));
        }
        match worker.service {
            WorkerService::Draining => tokio::time::sleep(LOOK_AGAIN).await,
            WorkerService::Drained => {
                if shell.json {
                    shell.json_line(&json_of(&worker));
                }
                return Ok(());
            }
            WorkerService::InService | WorkerService::Maintenance { .. } => {
                return Err(Error::new(
                    ErrorKind::Cancelled,
                    format!("worker {id} was taken back into service meanwhile"),
                ));
            }
        }
    }
}

fn json_of(worker: &WorkerStatus) -> serde_json::Value {
    json!({
        "role": "worker", "id": worker.id, "address": worker.address, "state": state(worker),
        "version": worker.version, "service": worker.service, "drain_left": worker.drain_left,
        "labels": worker.labels,
    })
}

async fn list(shell: &Shell) -> Result<()> {
    let status = shell.client.status().await?;
    if shell.json {
        for master in &status.masters {
            shell.json_line(&json!({
                "role": "master", "id": master.id, "address": master.address, "state": master.role,
            }));
        }
        let workers = status.workers.iter();
        workers.for_each(|worker| shell.json_line(&json_of(worker)));
        return Ok(());
    }
    let row = |role: &str, id: String, address: &str, state: String, labels: String| {
        vec![role.to_owned(), id, address.to_owned(), state, labels]
    };
    let masters = status
        .masters
        .iter()
        .map(|master| row("master", master.id.to_string(), &master.address, master.role.to_string(), String::new()));
    let workers = status
        .workers
        .iter()
        .map(|worker| row("worker", worker.id.to_string(), &worker.address, state(worker), worker.labels.to_string()));
    let rows = masters.chain(workers).collect();
    shell.line(format::table(&["Role", "Id", "Address", "State", "Labels"], rows));
    Ok(())
}
