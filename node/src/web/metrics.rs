//! Metrics for Prometheus: what the actors count, and gauges read at the moment they are asked for.

use std::time::Duration;

use curvine_protocol::cluster::{ClusterStatus, WorkerState};
use curvine_protocol::{Error, Result};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// How often histograms are folded, so that they do not grow when nobody asks for them.
const UPKEEP: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
}

impl Metrics {
    /// Starts recording for the whole process, in the current runtime.
    pub fn start() -> Result<Self> {
        let recorder = PrometheusBuilder::new()
            .install_recorder()
            .map_err(|e| Error::internal(format!("metrics: {e}")))?;
        let upkeep = recorder.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Metrics { recorder })
    }

    pub fn render(&self, status: Option<&ClusterStatus>) -> String {
        metrics::gauge!("process_resident_memory_bytes").set(resident_bytes() as f64);
        if let Some(status) = status {
            metrics::gauge!("curvine_inodes").set(status.inodes as f64);
            metrics::gauge!("curvine_mounts").set(status.mounts as f64);
            let live = status
                .workers
                .iter()
                .filter(|worker| worker.state == WorkerState::Live)
                .count();
            metrics::gauge!("curvine_workers", "state" => "live").set(live as f64);
            metrics::gauge!("curvine_workers", "state" => "lost").set((status.workers.len() - live) as f64);
            for worker in &status.workers {
                for disk in &worker.disks {
                    let labels = [
                        ("worker", worker.id.to_string()),
                        ("tier", disk.tier.to_string()),
                        ("path", disk.path.clone()),
                    ];
                    metrics::gauge!("curvine_disk_capacity_bytes", &labels).set(disk.capacity_bytes as f64);
                    metrics::gauge!("curvine_disk_used_bytes", &labels).set(disk.used_bytes as f64);
                    metrics::gauge!("curvine_disk_available_bytes", &labels).set(disk.available_bytes as f64);
                    metrics::gauge!("curvine_disk_blocks", &labels).set(disk.blocks as f64);
                }
            }
        }
        self.recorder.render()
    }
}

/// Memory of this process, in bytes; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        })
        .map_or(0, |kibibytes| kibibytes * 1024)
}
