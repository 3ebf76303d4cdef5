//! What a node counts and times, for `/metrics` and `docs/metrics.md`.
//!
//! A metric is one row of the table below: its handle, name, unit, labels, whose it is, and what it means. Whoever has
//! something to say uses the handle, so what is not in the table does not compile. `# HELP`, `# TYPE` and the table of
//! `docs/metrics.md` are rendered from the rows.
//!
//! - [`instrument`]: the counters and histograms: arrays of atomic numbers, one for each combination of labels.
//! - [`labels`]: the sets of values that labels have.
//! - [`timing`]: how long things take, answers of calls above all.
//! - [`text`]: the rows as text.
//!
//! Invariants:
//! - Names follow Prometheus' conventions (`tests.rs` checks each row): the prefix `curvine_`, base units, `_total`.
//! - The values of a counter's or histogram's labels are known when it is compiled, so everything is there from the
//!   start, at zero. To count or to observe allocates nothing and waits for nobody.
//! - What is counted decides nothing. That is why these are the process's, where all other state has one owner.

mod instrument;
mod labels;
#[cfg(test)]
mod tests;
mod text;
mod timing;

pub use instrument::{Counter, Gauge, Histogram, Kind, Metric, Of, Unit};
pub use labels::{FuseOp, Outcome};
pub use text::{Readings, render};
pub use timing::{Measured, Timing, timed};

use labels::{MASTER_CALLS, TIERS, WORKER_CALLS};

/// `kind HANDLE = "name", unit, [label: values, ...], whose, "help"`. A gauge's labels have the values that are read:
/// it names those that are known, if any.
macro_rules! metrics {
    ($(
        $kind:ident $handle:ident =
            $name:literal, $unit:ident, [$($label:ident: $values:expr),*], $of:ident, $help:literal;
    )*) => {
        $(metrics! { @$kind $handle Metric {
            name: $name,
            unit: Unit::$unit,
            labels: &[$((stringify!($label), $values)),*],
            of: Of::$of,
            help: $help,
        } })*

        /// Every row, in the order of the table.
        pub static ALL: &[Kind] = &[$(metrics! { @row $kind $handle }),*];
    };
    (@counter $handle:ident $metric:expr) => {
        pub static $handle: Counter = {
            const METRIC: Metric = $metric;
            static CELLS: [instrument::Cell; METRIC.series()] = [const { instrument::Cell::new(0) }; METRIC.series()];
            Counter::new(METRIC, &CELLS)
        };
    };
    (@histogram $handle:ident $metric:expr) => {
        pub static $handle: Histogram = {
            const METRIC: Metric = $metric;
            const COUNT: usize = METRIC.series() * METRIC.unit.cells();
            static CELLS: [instrument::Cell; COUNT] = [const { instrument::Cell::new(0) }; COUNT];
            Histogram::new(METRIC, &CELLS)
        };
    };
    (@gauge $handle:ident $metric:expr) => {
        pub static $handle: Gauge = Gauge($metric);
    };
    (@row counter $handle:ident) => { Kind::Counter(&$handle) };
    (@row histogram $handle:ident) => { Kind::Histogram(&$handle) };
    (@row gauge $handle:ident) => { Kind::Gauge(&$handle) };
}

metrics! {
    gauge BUILD_INFO = "curvine_build_info", None, [version: &[], role: &[]], Node,
        "Always 1; the labels say what runs here.";
    gauge RESIDENT_MEMORY = "process_resident_memory_bytes", Bytes, [], Node,
        "Memory of this process, mapped files included.";

    gauge CLUSTER_ANSWERS = "curvine_cluster_answers", None, [], Node,
        "1 if a leader told this node the state of the cluster in time, else 0; what it says is missing then.";
    gauge INODES = "curvine_inodes", None, [], Cluster,
        "Files, directories and other inodes of the namespace.";
    gauge MOUNTS = "curvine_mounts", None, [], Cluster,
        "Under file systems that are mounted into the namespace.";
    gauge MOUNT_WAITING_FILES = "curvine_mount_waiting_files", None, [mount: &[]], Cluster,
        "Files of a writable mount whose content is newer than their objects.";
    gauge MOUNT_WAITING_BYTES = "curvine_mount_waiting_bytes", Bytes, [mount: &[]], Cluster,
        "What these files have.";
    gauge MOUNT_WAITING_SINCE = "curvine_mount_waiting_since_seconds", Seconds, [mount: &[]], Cluster,
        "When the one of these files that has waited longest was changed, since the Unix epoch; 0 if none waits.";
    gauge MOUNT_UNDER_WAY = "curvine_mount_changes_under_way", None, [mount: &[]], Cluster,
        "Exports, deletions and renames that are being made in the under file system of a writable mount.";
    gauge MOUNT_FAILED = "curvine_mount_failed", None, [mount: &[]], Cluster,
        "1 if the last try at a file or change of a writable mount failed in its under file system, else 0.";
    gauge MOUNT_HITS = "curvine_mount_hits", None, [mount: &[]], Cluster,
        "Reads of a mount's files that a worker answered with what it had, since the workers began.";
    gauge MOUNT_HIT_BYTES = "curvine_mount_hit_bytes", Bytes, [mount: &[]], Cluster,
        "What these reads got.";
    gauge MOUNT_MISSES = "curvine_mount_misses", None, [mount: &[]], Cluster,
        "Reads of a mount's files that waited for its under file system, since the workers began.";
    gauge MOUNT_MISS_BYTES = "curvine_mount_miss_bytes", Bytes, [mount: &[]], Cluster,
        "What these reads got.";
    gauge MOUNT_FETCHED_BYTES = "curvine_mount_fetched_bytes", Bytes, [mount: &[]], Cluster,
        "What workers got from a mount's under file system, for readers and for loads, since the workers began.";
    gauge MOUNT_CACHED_BYTES = "curvine_mount_cached_bytes", Bytes, [mount: &[]], Cluster,
        "What cached blocks of a mount's files take on the workers that live.";
    gauge MOUNT_CACHE_QUOTA = "curvine_mount_cache_quota_bytes", Bytes, [mount: &[]], Cluster,
        "What these may take; shown of mounts that have such a quota.";
    gauge MOUNT_QUOTA_EVICTED_BYTES = "curvine_mount_quota_evicted_bytes", Bytes, [mount: &[]], Cluster,
        "What went of these because they took more than that, since the workers began.";
    gauge MASTERS = "curvine_masters", None, [state: &["reachable", "unreachable"]], Cluster,
        "Masters of the group, by whether the leader reaches them.";
    gauge WORKERS = "curvine_workers", None, [state: &["live", "lost"]], Cluster,
        "Workers, by whether their heartbeats arrive.";
    gauge DISK_CAPACITY = "curvine_disk_capacity_bytes", Bytes, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "What a data directory may hold.";
    gauge DISK_USED = "curvine_disk_used_bytes", Bytes, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "Block data in a data directory, and its index.";
    gauge DISK_AVAILABLE = "curvine_disk_available_bytes", Bytes, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "What may still be written to a data directory with everything staying in it.";
    gauge DISK_CACHED = "curvine_disk_cached_bytes", Bytes, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "What of the used bytes are cached blocks, which go when something else needs the room; the others are kept.";
    gauge DISK_BLOCKS = "curvine_disk_blocks", None, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "Blocks in a data directory.";
    gauge DISK_FAILED = "curvine_disk_failed", None, [worker: &[], tier: TIERS, path: &[]], Cluster,
        "1 if a data directory takes no more data because its disk failed, else 0.";
    gauge DUTY_FAILED = "curvine_duty_failed", None, [duty: &[]], Cluster,
        "1 if the leader's last try at a duty failed, else 0.";

    histogram MASTER_CALL_SECONDS = "curvine_master_call_seconds", Seconds, [call: MASTER_CALLS], Master,
        "Time that this master took for an answer, good or bad, without the network.";
    counter MASTER_CALL_ERRORS =
        "curvine_master_call_errors_total", None, [call: MASTER_CALLS, outcome: Outcome::NAMES], Master,
        "Calls that this master answered with an error, or whose caller's deadline passed.";
    histogram RAFT_BATCH_COMMANDS = "curvine_raft_batch_commands", Commands, [], Master,
        "Commands that this master, as leader, put in one entry of the log.";
    histogram RAFT_LOG_COMMIT_SECONDS = "curvine_raft_log_commit_seconds", Seconds, [], Master,
        "Time until what waited to be appended to this master's log was on its disk.";

    histogram WORKER_CALL_SECONDS = "curvine_worker_call_seconds", Seconds, [call: WORKER_CALLS], Worker,
        "Time that this worker took for an answer, good or bad, without the network. A read of whole chunks that are \
         there is only granted in it; its bytes move later.";
    counter WORKER_CALL_ERRORS =
        "curvine_worker_call_errors_total", None, [call: WORKER_CALLS, outcome: Outcome::NAMES], Worker,
        "Calls that this worker answered with an error, or whose caller's deadline passed.";
    counter SCRUBBED_BYTES = "curvine_scrubbed_bytes_total", Bytes, [], Worker,
        "Block data that the scrubber has verified.";
    counter LENT_BLOCKS = "curvine_lent_blocks_total", None, [], Worker,
        "Times that a program on this host was lent the file of a block, to read it without this worker.";
    counter CORRUPT_BLOCKS = "curvine_corrupt_blocks_total", None, [], Worker,
        "Times that a block failed its checksum; it is taken out of use.";
    counter EXPIRED_DELETED = "curvine_expired_deleted_files_total", None, [], Master,
        "Files that were deleted because their time to live was over.";
    counter EXPIRED_FREED = "curvine_expired_freed_files_total", None, [], Master,
        "Files of which workers let go because their time to live was over.";
    counter EVICTED_BLOCKS = "curvine_evicted_blocks_total", None, [], Worker,
        "Cached blocks that went because something else needed the room.";
    counter EVICTED_BYTES = "curvine_evicted_bytes_total", Bytes, [], Worker,
        "What these blocks took on the device.";
    counter MOVED_BLOCKS = "curvine_moved_blocks_total", None, [], Worker,
        "Blocks that went from one data directory of a worker to another, or were copied to memory.";
    counter MOVED_BYTES = "curvine_moved_bytes_total", Bytes, [], Worker,
        "The bytes of these blocks.";
    counter REPLICAS_MADE = "curvine_replicas_made_total", None, [], Master,
        "Replicas that this master, leading, has had a worker make of a block that too few had.";
    counter EXTRA_COPIES = "curvine_extra_copies_total", None, [], Master,
        "Copies that this master, leading, has had a worker make of a hot block, or of a cached one whose mount wants several.";
    counter REPLICAS_SHED = "curvine_replicas_shed_total", None, [], Master,
        "Replicas that this master, leading, has had a worker let go, of a block that more had than its file wants.";
    counter BALANCED_BYTES = "curvine_balanced_bytes_total", Bytes, [], Master,
        "What this master, leading, has had moved from one worker to another to balance them.";
    counter UPLOADS_ABORTED = "curvine_uploads_aborted_total", None, [], Worker,
        "Uploads in parts that a crash or a failed export had left in a store, and that were aborted there later.";

    histogram FUSE_REQUEST_SECONDS = "curvine_fuse_request_seconds", Seconds, [op: FuseOp::NAMES], Mount,
        "Time from a request of the kernel to its reply.";
    counter FUSE_REQUEST_ERRORS =
        "curvine_fuse_request_errors_total", None, [op: FuseOp::NAMES, outcome: Outcome::NAMES], Mount,
        "Requests of the kernel that were answered with an error.";
}
