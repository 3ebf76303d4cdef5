//! What is wrong with the replicas of a block, for `cv fsck`. Pure.

use curvine_protocol::master::{BlockFault, Fault, HeldBlock};
use curvine_protocol::number::to_u32;
use curvine_protocol::{BlockRef, WorkerId};
use tokio::time::Instant;

use super::Cluster;
use crate::master::namespace::kept::Kept;

impl Cluster {
    /// Workers that may have what nobody is known to have: those that this leader has not heard of, `last_worker` being the
    /// greatest id that was ever given to one, and those with a disk that has failed.
    pub fn may_have_more(&self, last_worker: WorkerId) -> Vec<WorkerId> {
        let mut unheard: Vec<_> = self.roster.unheard(last_worker).collect();
        unheard.extend(self.roster.with_failed_disks());
        unheard
    }

    /// What is wrong with a kept block that nobody writes; workers that [`Cluster::may_have_more`] may have it. Also if there are
    /// fewer workers than its file wants: else somebody relies on what is not there.
    pub fn fault(
        &self,
        index: u32,
        kept: &Kept,
        may_have_more: &[WorkerId],
        now: Instant,
    ) -> Option<BlockFault> {
        let block = kept.block;
        let current: Vec<WorkerId> = self.holders.current(&block).collect();
        let live: Vec<WorkerId> = (current.iter().copied())
            .filter(|id| self.roster.is_live(*id, now))
            .collect();
        let safe = live
            .iter()
            .filter(|id| !self.holders.is_endangered(**id, block.id));
        let safe = safe.count();
        let damaged_on = self.holders.damaged_on(block.id);
        let (what, workers) = match (live.len(), current.is_empty(), damaged_on.is_empty()) {
            _ if safe >= kept.replicas => return None,
            (1.., ..) => (Fault::UnderReplicated, live.clone()),
            (0, false, _) => (Fault::Away, current),
            (0, true, _) if !may_have_more.is_empty() => (Fault::Away, may_have_more.to_vec()),
            (0, true, false) => (Fault::Corrupt, damaged_on.to_vec()),
            (0, true, true) => (Fault::Missing, Vec::new()),
        };
        Some(BlockFault {
            index,
            block,
            what,
            replicas: to_u32(safe),
            wanted: to_u32(kept.replicas),
            workers,
        })
    }
}

/// What is wrong with a replica that a worker has, of a block that nobody writes: what the namespace knows of the block, and
/// whether it is kept.
pub fn held_fault(held: &HeldBlock, known: Option<(&BlockRef, bool)>) -> Option<Fault> {
    let Some((known, is_kept)) = known else {
        return Some(Fault::Orphaned);
    };
    match (held.replica.generation < known.generation, is_kept, held.cached) {
        (true, ..) => Some(Fault::Outdated),
        (false, true, true) => Some(Fault::KeptAsCached),
        (false, false, false) => Some(Fault::CachedAsKept),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use curvine_protocol::cluster::BlockReplica;
    use curvine_protocol::{BlockId, InodeId};

    use super::super::roster::{LOST_AFTER, WorkerEntry};
    use super::*;

    const BLOCK: BlockRef = BlockRef {
        id: BlockId(7),
        len_bytes: 10,
        generation: 5,
    };

    fn replica(generation: u32) -> BlockReplica {
        BlockReplica {
            id: BLOCK.id,
            generation,
            len_bytes: BLOCK.len_bytes,
        }
    }

    #[test]
    fn a_block_is_as_ill_as_the_best_of_its_replicas() {
        let now = Instant::now();
        let mut cluster = Cluster::default();
        for id in 1..=2 {
            let entry = WorkerEntry::heard(now, Vec::new());
            cluster.roster.register(WorkerId(id), entry);
        }
        let kept = Kept {
            inode: InodeId(3),
            block: BLOCK,
            replicas: 2,
            is_settled: true,
        };
        let fault = |cluster: &Cluster, now| {
            let fault = cluster.fault(4, &kept, &[], now)?;
            assert_eq!((fault.index, fault.wanted), (4, 2));
            Some((fault.what, fault.replicas, fault.workers))
        };
        assert_eq!(fault(&cluster, now), Some((Fault::Missing, 0, vec![])));
        assert_eq!(cluster.may_have_more(WorkerId(2)), []);
        let unheard = cluster.may_have_more(WorkerId(3));
        let away = cluster.fault(4, &kept, &unheard, now);
        let away = away.map(|fault| (fault.what, fault.workers));
        assert_eq!(away, Some((Fault::Away, vec![WorkerId(3)])));
        cluster.holders.damaged(WorkerId(1), BLOCK.id);
        let away = cluster.fault(4, &kept, &unheard, now);
        let away = away.map(|fault| (fault.what, fault.workers));
        assert_eq!(
            away,
            Some((Fault::Away, vec![WorkerId(3)])),
            "it may have it right"
        );
        let set_aside = vec![WorkerId(1)];
        assert_eq!(fault(&cluster, now), Some((Fault::Corrupt, 0, set_aside)));
        cluster.holders.stored(WorkerId(2), &replica(4), &BLOCK);
        assert_eq!(
            fault(&cluster, now).map(|fault| fault.0),
            Some(Fault::Corrupt),
            "an old one"
        );
        cluster.holders.stored(WorkerId(2), &replica(5), &BLOCK);
        let others = vec![WorkerId(2)];
        assert_eq!(
            fault(&cluster, now),
            Some((Fault::UnderReplicated, 1, others.clone()))
        );
        assert_eq!(fault(&cluster, now + LOST_AFTER), Some((Fault::Away, 0, others)));
        cluster.holders.stored(WorkerId(1), &replica(6), &BLOCK);
        assert_eq!(fault(&cluster, now), None);
        let many = Kept { replicas: 99, ..kept };
        let too_few = cluster.fault(4, &many, &[], now).map(|fault| fault.what);
        assert_eq!(too_few, Some(Fault::UnderReplicated), "there are two workers");
        let fault = cluster.fault(4, &many, &[], now + LOST_AFTER);
        assert_eq!(fault.map(|fault| fault.what), Some(Fault::Away));
    }

    #[test]
    fn a_replica_is_compared_with_what_the_namespace_has() {
        let held = |generation, cached| HeldBlock {
            replica: replica(generation),
            cached,
        };
        let is = |held, is_kept| held_fault(&held, Some((&BLOCK, is_kept)));
        assert_eq!(held_fault(&held(5, true), None), Some(Fault::Orphaned));
        assert_eq!(is(held(4, false), true), Some(Fault::Outdated));
        assert_eq!(is(held(5, true), true), Some(Fault::KeptAsCached));
        assert_eq!(is(held(5, false), false), Some(Fault::CachedAsKept));
        assert_eq!(is(held(5, false), true), None);
        assert_eq!(is(held(6, true), false), None);
    }
}
