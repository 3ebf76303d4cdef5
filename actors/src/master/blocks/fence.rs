//! Who may still write blocks for a writer that has lost its lease: pure.
//!
//! Before a lease is given on that its holder did not give back, every worker that could take a write from the old holder
//! refuses it (`FenceBlocks`), or has stopped taking writes by itself because it has not heard from this master for so long
//! (`worker/membership/standing.rs`). A worker that comes back after that is of another epoch, which the old holder does
//! not know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use curvine_protocol::worker::WRITES_UNHEARD_MS;
use curvine_protocol::{BlockId, BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;

/// After this long without a word a worker takes no writes, by clocks that are at most a twentieth too slow or too fast.
const SILENT_LONG_ENOUGH: Duration = Duration::from_millis(WRITES_UNHEARD_MS + WRITES_UNHEARD_MS / 8);

/// What is known of the workers that could write some blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// To be told: those that have one of the blocks, or were told to write it, or have not said yet what they have.
    pub known: BTreeMap<WorkerId, Vec<BlockId>>,
    /// Until then there may be others, that this master has not heard of.
    pub others_until: Option<Instant>,
}

impl Cluster {
    /// Who may write some of these blocks. Those without a byte in the namespace are not at risk: what an old writer makes
    /// of them is of its generation, and the first write of the next one cuts it away. `last_worker` is the greatest id
    /// that was ever given to a worker.
    pub fn writers(&self, blocks: &[BlockRef], last_worker: WorkerId, now: Instant) -> Writers {
        let mut writers = Writers::default();
        let written: Vec<BlockId> = blocks
            .iter()
            .filter(|block| block.len_bytes > 0)
            .map(|block| block.id)
            .collect();
        if written.is_empty() {
            return writers;
        }
        for &block in &written {
            let told = self.holders.told_to_write(block).iter().copied();
            let workers: BTreeSet<_> = self.holders.of(block).chain(told).collect();
            for worker in workers {
                writers.known.entry(worker).or_default().push(block);
            }
        }
        for worker in self.roster.unreported() {
            writers.known.insert(worker, written.clone());
        }
        if !self.roster.are_all_registered(last_worker) {
            let silent = self.leads_since.map(|since| since + SILENT_LONG_ENOUGH);
            writers.others_until = silent.filter(|until| *until > now);
        }
        writers
    }

    /// From when on a worker that does not answer takes no writes by itself. Later each time that it is heard.
    pub fn silent_until(&self, worker: WorkerId, now: Instant) -> Instant {
        let heard = self.roster.last_heard(worker).or(self.leads_since);
        heard.map_or(now, |heard| heard + SILENT_LONG_ENOUGH)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::BlockReplica;

    use super::super::roster::WorkerEntry;
    use super::*;

    fn block(id: u64, len_bytes: u64) -> BlockRef {
        BlockRef {
            id: BlockId(id),
            len_bytes,
            generation: 3,
        }
    }

    fn register(cluster: &mut Cluster, id: u32, reported: bool, heard: Instant) {
        let entry = WorkerEntry {
            epoch: 9,
            reported,
            ..WorkerEntry::heard(heard, Vec::new())
        };
        cluster.roster.register(WorkerId(id), entry);
    }

    #[test]
    fn whoever_may_have_a_block_is_told_and_who_has_reported_otherwise_is_not() {
        let now = Instant::now();
        let mut cluster = Cluster::default();
        (1..=3).for_each(|id| register(&mut cluster, id, true, now));
        register(&mut cluster, 4, false, now);
        let replica = BlockReplica {
            id: BlockId(7),
            generation: 2,
            len_bytes: 1,
        };
        cluster.holders.stored(WorkerId(1), &replica, &block(7, 10));
        cluster.holders.placed(BlockId(8), &[WorkerId(2)]);
        let blocks = [block(7, 10), block(8, 1), block(9, 0)];
        let writers = cluster.writers(&blocks, WorkerId(4), now);
        assert_eq!(
            writers.known,
            BTreeMap::from([
                (WorkerId(1), vec![BlockId(7)]),
                (WorkerId(2), vec![BlockId(8)]),
                (WorkerId(4), vec![BlockId(7), BlockId(8)]),
            ])
        );
        assert_eq!(writers.others_until, None);
        assert_eq!(
            cluster.writers(&[block(9, 0)], WorkerId(4), now),
            Writers::default()
        );
    }

    #[test]
    fn workers_that_a_new_leader_has_not_heard_of_are_waited_for_and_silent_ones_too() {
        let now = Instant::now();
        let mut cluster = Cluster {
            leads_since: Some(now),
            ..Cluster::default()
        };
        register(&mut cluster, 1, true, now + Duration::from_secs(1));
        let until = |cluster: &Cluster, at| cluster.writers(&[block(7, 1)], WorkerId(2), at).others_until;
        let silent = now + SILENT_LONG_ENOUGH;
        assert_eq!(until(&cluster, now), Some(silent));
        assert_eq!(until(&cluster, silent), None, "worker 2 takes no writes now");
        register(&mut cluster, 2, true, now);
        assert_eq!(until(&cluster, now), None, "all are known");
        let second = Duration::from_secs(1);
        assert_eq!(cluster.silent_until(WorkerId(1), now), silent + second);
        assert_eq!(cluster.silent_until(WorkerId(9), now), silent);
    }
}
