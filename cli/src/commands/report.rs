use std::time::Duration;

use curvine_protocol::Result;
use curvine_protocol::cluster::{DrainLeft, WorkerService, WorkerState, WorkerStatus};
use curvine_protocol::mount::MountInfo;

use super::master;
use crate::format;
use crate::shell::Shell;

/// A worker that was not heard for so long may be gone: it should have been heard several times.
const SUSPECT_AFTER: Duration = Duration::from_secs(6);

/// Show the cluster: masters, workers and their disks, and what is read of mounts
///
/// Available: what may still be written, as cached blocks make room.
///
/// Of each mount: what readers of its files got from workers since these began, how much of it was there when they asked, and what
/// was fetched from its under file system, by readers or loads; then what is in the cache now, and its quota of that. What was
/// fetched a moment before, ahead of a reader, counts as cached: compare what was read with what was fetched. What a FUSE mount
/// answers from the kernel's pages is not counted.
///
/// JSON (what is read of mounts: `cv --json mounts`): cluster, version, uptime_s, inodes, mounts, masters,
/// workers with their disks, duties.
#[derive(clap::Args)]
#[command(after_help = "Example: cv report")]
pub struct Args {}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let status = shell.client.status().await?;
        let mounts = shell.client.mounts().await?;
        shell.answer(&status, || {
            let up = humantime::format_duration(Duration::from_secs(status.uptime_s));
            let mut text = format!(
                "Cluster {}, version {}, up {up}\n{} files and directories, {} mounts\n\nMasters\n",
                status.cluster, status.version, status.inodes, status.mounts
            );
            text += &master::table(&status.masters);
            let duties = status.duties.iter().map(|duty| {
                let outcome = duty.failure.clone().unwrap_or_else(|| "ok".to_owned());
                vec![duty.name.clone(), duty.doing.clone(), outcome]
            });
            text += "\n\nDuties of the leader\n";
            text += &format::table(&["Duty", "Doing", "Last try"], duties.collect());
            text += "\n\nWorkers\n";
            if status.workers.is_empty() {
                return text + "none: start one with curvine-node --role worker --master ADDR";
            }
            let disks = status.workers.iter().flat_map(|worker| {
                worker.disks.iter().map(move |disk| {
                    vec![
                        worker.id.to_string(),
                        worker.address.clone(),
                        state(worker),
                        disk.tier.to_string(),
                        disk.path.clone(),
                        format::size(disk.capacity_bytes, true),
                        format::size(disk.used_bytes, true),
                        format::size(disk.cached_bytes, true),
                        format::size(disk.room_bytes(), true),
                        disk.blocks.to_string(),
                        disk.failure.clone().unwrap_or_else(|| "ok".to_owned()),
                    ]
                })
            });
            let titles = [
                "Id", "Address", "State", "Tier", "Directory", ">Size", ">Used", ">Cached", ">Available", ">Blocks", "Disk",
            ];
            text += &format::table(&titles, disks.collect());
            text + &traffic(&mounts)
        });
        Ok(())
    }
}

/// What is read of mounts; nothing if there is none.
fn traffic(mounts: &[MountInfo]) -> String {
    let rows = mounts.iter().map(|mount| {
        let traffic = mount.traffic.unwrap_or_default();
        let cached = traffic.hit_ratio();
        vec![
            mount.path.to_string(),
            mount.uri.clone(),
            format::size(traffic.read_bytes(), true),
            cached.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0)),
            format::size(traffic.fetched_bytes, true),
            format::size(traffic.cached_bytes, true),
            mount
                .settings
                .cache_quota_bytes
                .map_or_else(|| "-".to_owned(), |bytes| format::size(bytes, true)),
        ]
    });
    match mounts.is_empty() {
        true => String::new(),
        false => {
            let titles = ["Path", "From", ">Read", ">Of it cached", ">Fetched", ">In cache", ">Cache quota"];
            format!("\n\nMounts\n{}", format::table(&titles, rows.collect()))
        }
    }
}

/// Whether a worker is there, and what it is there for.
pub fn state(worker: &WorkerStatus) -> String {
    let silent = Duration::from_millis(worker.last_heartbeat_ms_ago);
    let is_there = match worker.state {
        // A leader keeps in mind what a worker says of itself, and a new one has to hear it.
        _ if worker.address.is_empty() => format!(
            "not heard of since the leader was elected, {} ago",
            humantime::format_duration(Duration::from_secs(silent.as_secs()))
        ),
        WorkerState::Live if silent < SUSPECT_AFTER => "live".to_owned(),
        WorkerState::Live => format!("suspect: silent for {} s", silent.as_secs()),
        WorkerState::Lost => {
            let silent = Duration::from_secs(silent.as_secs());
            format!("lost for {}", humantime::format_duration(silent))
        }
    };
    match worker.service {
        WorkerService::InService => is_there,
        WorkerService::Drained => format!("{is_there}, decommissioned"),
        WorkerService::Draining => format!("{is_there}, decommissioning: {}", left(worker.drain_left.as_ref())),
        WorkerService::Maintenance { until_ns } => {
            format!("{is_there}, in maintenance until {}", format::second(until_ns))
        }
    }
}

fn left(left: Option<&DrainLeft>) -> String {
    let Some(left) = left else {
        return "not looked at yet".to_owned();
    };
    let mut words = Vec::new();
    if left.blocks > 0 {
        words.push(format!(
            "{} blocks, {}",
            left.blocks,
            format::size(left.len_bytes, true)
        ));
    }
    if left.open_blocks > 0 {
        words.push(format!("{} blocks of files being written", left.open_blocks));
    }
    let mut said = Vec::new();
    if !words.is_empty() {
        said.push(format!("{} to copy", words.join(" and ")));
    }
    if left.damaged_blocks > 0 {
        said.push(format!(
            "{} damaged blocks, of which no other worker has more: write the files anew that `cv fsck` names, or remove them",
            left.damaged_blocks
        ));
    }
    match said.is_empty() {
        true => "nothing is left".to_owned(),
        false => said.join("; "),
    }
}
