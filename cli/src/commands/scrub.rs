use std::time::Duration;

use curvine_conf::Size;
use curvine_protocol::cluster::{WorkerService, WorkerState, WorkerStatus};
use curvine_protocol::worker::DiskScrub;
use curvine_protocol::{Error, ErrorKind, Result, WorkerId};
use serde_json::json;
use tokio::time::sleep;

use super::node::named;
use crate::format;
use crate::shell::{Shell, naming};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Have workers read all that they hold and verify its checksums
///
/// They do so by themselves all the time, slowly (`worker.scrub`); this says how far they are. A replica that fails is taken
/// out of use, and made again where another one is right; `cv fsck` lists what is lost. Ends with 1 if --wait found some.
///
/// JSON: an object a line for each data directory with worker, path, runs, passes, verified_bytes, used_bytes,
/// corrupt_blocks.
#[derive(clap::Args)]
#[command(after_help = "Example: cv scrub --now --wait")]
pub struct Args {
    /// Of this worker alone: its id or its address, as `cv node` shows them
    #[arg(long)]
    worker: Option<String>,
    /// Begin from the beginning, now
    #[arg(long)]
    now: bool,
    /// Bytes a second that each data directory reads for it
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "now")]
    rate: Size,
    /// Wait until it is done
    #[arg(short, long, requires = "now")]
    wait: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        if self.rate.0 == 0 {
            return Err(Error::invalid("--rate 0B verifies nothing; give bytes a second, such as 64MiB"));
        }
        let workers: Vec<WorkerStatus> = match &self.worker {
            Some(name) => vec![named(shell, name).await?],
            None => shell.client.status().await?.workers,
        };
        if workers.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                "no worker has registered; see `cv node`",
            ));
        }
        let (mut all, mut failures) = (Vec::new(), Vec::new());
        for WorkerStatus { id: worker, .. } in that_answer(workers, &mut failures) {
            let start = self.now.then_some(self.rate.0);
            match scrub(shell, worker, start, self.wait).await {
                Ok(disks) => all.extend(disks.into_iter().map(|disk| (worker, disk))),
                Err(error) => failures.push(naming(error, format!("worker {worker}"))),
            }
        }
        if self.wait && all.iter().any(|(_, disk)| disk.corrupt_blocks > 0) {
            shell.exit_with(1);
        }
        failures.iter().for_each(|failure| shell.failed(failure));
        if shell.json {
            for (worker, disk) in &all {
                shell.json_line(&json!({
                    "worker": worker, "path": disk.path, "runs": disk.runs, "passes": disk.passes,
                    "verified_bytes": disk.verified_bytes, "used_bytes": disk.used_bytes,
                    "corrupt_blocks": disk.corrupt_blocks,
                }));
            }
            return Ok(());
        }
        let rows = all.iter().map(|(worker, disk)| {
            vec![
                worker.to_string(),
                disk.path.clone(),
                if disk.runs { "runs" } else { "rests" }.to_owned(),
                format::size(disk.verified_bytes, true),
                format::size(disk.used_bytes, true),
                disk.corrupt_blocks.to_string(),
            ]
        });
        let titles = ["Worker", "Directory", "State", ">Verified", ">Used", ">Corrupt"];
        shell.line(format::table(&titles, rows.collect()));
        Ok(())
    }
}

/// Those of the workers that are not lost; why what the others have is not looked at. Nothing depends on what one has that was
/// drained.
pub fn that_answer(workers: Vec<WorkerStatus>, failures: &mut Vec<Error>) -> Vec<WorkerStatus> {
    let (lost, there): (Vec<_>, Vec<_>) =
        workers.into_iter().partition(|worker| worker.state == WorkerState::Lost);
    let missed = lost.iter().filter(|worker| worker.service != WorkerService::Drained);
    failures.extend(missed.map(away));
    there
}

fn away(worker: &WorkerStatus) -> Error {
    let silent_s = worker.last_heartbeat_ms_ago / 1_000;
    let place = match worker.address.as_str() {
        "" => String::new(),
        address => format!(" at {address}"),
    };
    let words = format!(
        "worker {}{place} has not been heard of for {silent_s} s: what it holds was not looked at",
        worker.id
    );
    Error::new(ErrorKind::BlockUnavailable, words)
}

async fn scrub(shell: &Shell, worker: WorkerId, start: Option<u64>, wait: bool) -> Result<Vec<DiskScrub>> {
    let before = shell.client.scrub(worker, None).await?;
    let mut disks = match start {
        Some(_) => shell.client.scrub(worker, start).await?,
        None => return Ok(before),
    };
    // One that the worker began anew by itself, after this, is as good.
    while wait && disks.iter().zip(&before).any(|(disk, before)| disk.runs || disk.passes == before.passes) {
        sleep(LOOK_AGAIN).await;
        disks = shell.client.scrub(worker, None).await?;
        if disks.iter().zip(&before).any(|(disk, before)| disk.passes < before.passes) {
            return Err(Error::new(
                ErrorKind::Stopping,
                "it was restarted meanwhile: begin again",
            ));
        }
    }
    Ok(disks)
}
