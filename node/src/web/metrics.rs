//! `/metrics`: what this process counted, and gauges that are read at the moment they are asked for.

use curvine_actors::kit::metrics::{self, Of, Readings};
use curvine_protocol::cluster::{ClusterStatus, WorkerState};
use curvine_protocol::mount::MountInfo;

/// The metrics of these parts of a node. What the cluster says is missing if no leader answered in time.
pub fn render(role: &str, parts: &[Of], told: Option<&(ClusterStatus, Vec<MountInfo>)>) -> String {
    let mut readings = Readings::default();
    readings.set(&metrics::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), role], 1.0);
    readings.set(&metrics::RESIDENT_MEMORY, &[], resident_bytes() as f64);
    readings.set(&metrics::CLUSTER_ANSWERS, &[], is(told.is_some()));
    if let Some((status, mounts)) = told {
        read(&mut readings, status);
        mounts.iter().for_each(|mount| read_mount(&mut readings, mount));
    }
    metrics::render(parts, &readings)
}

fn read(readings: &mut Readings, status: &ClusterStatus) {
    readings.set(&metrics::INODES, &[], status.inodes as f64);
    readings.set(&metrics::MOUNTS, &[], status.mounts as f64);
    let reachable = status.masters.iter().filter(|master| master.is_reachable).count();
    readings.set(&metrics::MASTERS, &["reachable"], reachable as f64);
    let unreachable = status.masters.len() - reachable;
    readings.set(&metrics::MASTERS, &["unreachable"], unreachable as f64);
    let live = status
        .workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Live)
        .count();
    readings.set(&metrics::WORKERS, &["live"], live as f64);
    readings.set(&metrics::WORKERS, &["lost"], (status.workers.len() - live) as f64);
    for worker in &status.workers {
        for disk in &worker.disks {
            let (worker, tier) = (worker.id.to_string(), disk.tier.to_string());
            let labels = [worker.as_str(), tier.as_str(), disk.path.as_str()];
            readings.set(&metrics::DISK_CAPACITY, &labels, disk.capacity_bytes as f64);
            readings.set(&metrics::DISK_USED, &labels, disk.used_bytes as f64);
            readings.set(&metrics::DISK_CACHED, &labels, disk.cached_bytes as f64);
            readings.set(&metrics::DISK_AVAILABLE, &labels, disk.available_bytes as f64);
            readings.set(&metrics::DISK_BLOCKS, &labels, disk.blocks as f64);
            readings.set(&metrics::DISK_FAILED, &labels, is(disk.failure.is_some()));
        }
    }
    for duty in &status.duties {
        readings.set(&metrics::DUTY_FAILED, &[&duty.name], is(duty.failure.is_some()));
    }
}

/// What readers of a mount got, and what its under file system has not got yet.
fn read_mount(readings: &mut Readings, mount: &MountInfo) {
    let labels = [mount.path.as_str()];
    if let Some(traffic) = mount.traffic {
        readings.set(&metrics::MOUNT_HITS, &labels, traffic.hits as f64);
        readings.set(&metrics::MOUNT_HIT_BYTES, &labels, traffic.hit_bytes as f64);
        readings.set(&metrics::MOUNT_MISSES, &labels, traffic.misses as f64);
        readings.set(&metrics::MOUNT_MISS_BYTES, &labels, traffic.miss_bytes as f64);
        readings.set(
            &metrics::MOUNT_FETCHED_BYTES,
            &labels,
            traffic.fetched_bytes as f64,
        );
        readings.set(&metrics::MOUNT_CACHED_BYTES, &labels, traffic.cached_bytes as f64);
        readings.set(
            &metrics::MOUNT_QUOTA_EVICTED_BYTES,
            &labels,
            traffic.quota_evicted_bytes as f64,
        );
    }
    if let Some(quota_bytes) = mount.settings.cache_quota_bytes {
        readings.set(&metrics::MOUNT_CACHE_QUOTA, &labels, quota_bytes as f64);
    }
    let Some(backlog) = mount.backlog.as_ref().filter(|_| mount.settings.writable) else {
        return;
    };
    readings.set(&metrics::MOUNT_WAITING_FILES, &labels, backlog.files as f64);
    readings.set(&metrics::MOUNT_WAITING_BYTES, &labels, backlog.bytes as f64);
    readings.set(
        &metrics::MOUNT_WAITING_SINCE,
        &labels,
        backlog.oldest_ns as f64 / 1e9,
    );
    readings.set(&metrics::MOUNT_UNDER_WAY, &labels, backlog.effects.len() as f64);
    readings.set(&metrics::MOUNT_FAILED, &labels, is(backlog.failure().is_some()));
}

/// What is so, as Prometheus says it.
fn is(so: bool) -> f64 {
    f64::from(u8::from(so))
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
