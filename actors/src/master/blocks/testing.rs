//! Workers and what they have, for the tests of this folder.

use curvine_protocol::cluster::{BlockReplica, DiskStatus, Tier};
use curvine_protocol::{BlockId, BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;
use super::roster::WorkerEntry;

pub const BLOCK: BlockRef = BlockRef {
    id: BlockId(7),
    len_bytes: 10,
    generation: 5,
};

/// A solid-state disk of so many bytes, so many of which are used by what is kept.
pub fn disk_of(capacity_bytes: u64, used_bytes: u64) -> DiskStatus {
    DiskStatus {
        tier: Tier::Ssd,
        path: "d".to_owned(),
        capacity_bytes,
        used_bytes,
        available_bytes: capacity_bytes - used_bytes,
        blocks: 0,
        failure: None,
        cached_bytes: 0,
        pinned_bytes: 0,
    }
}

/// Workers, heard just now, that keep so much of what they have room for.
pub fn cluster_of(workers: &[(u32, u64, u64)], now: Instant) -> Cluster {
    let mut cluster = Cluster::default();
    for &(id, kept_bytes, capacity_bytes) in workers {
        let entry = WorkerEntry::heard(now, vec![disk_of(capacity_bytes, kept_bytes)]);
        cluster.roster.register(WorkerId(id), entry);
    }
    cluster
}

/// A worker reports a block, of this generation, of which the namespace knows that.
pub fn reports(cluster: &mut Cluster, id: u32, block: BlockRef, generation: u32) {
    let replica = BlockReplica {
        id: block.id,
        generation,
        len_bytes: block.len_bytes,
    };
    cluster.holders.stored(WorkerId(id), &replica, &block);
}
