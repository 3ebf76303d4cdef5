//! Which replicas of a block are the block, where its last writer may have reached some workers and not others: pure.
//!
//! What is flushed is the same everywhere. What was given up, or was on its way when the writer went, may be on any of its
//! workers, and either is right; but from now on it must be one of them, whichever worker is asked. The replicas that are
//! kept become of a newer generation, by which the others are known to be older, also if they come back much later.

use curvine_protocol::worker::ReplicaSum;
use curvine_protocol::{BlockRef, WorkerId};

/// What is to become of the replicas of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// As many as there should be are all the same.
    Reached,
    /// These are the block, and no others are.
    Keep(Vec<WorkerId>),
    /// So are these, if there is nobody who was not heard of and may have something better: a power cut may have taken
    /// something of all of them.
    KeepDoubtful(Vec<WorkerId>),
    /// Nobody who was heard of has it as long as it should be.
    Nobody,
}

/// `found` is what workers have of a block, each up to the length that the namespace has of it, in which `known` is; there
/// should be `wanted` of them. One that was not heard of may have anything.
pub fn agree(known: &BlockRef, found: &[(WorkerId, ReplicaSum)], wanted: usize) -> Agreement {
    let is_current = |(_, sum): &&(WorkerId, ReplicaSum)| sum.generation >= known.generation;
    let is_sure = |(_, sum): &&(WorkerId, ReplicaSum)| !sum.is_doubtful;
    let are_doubtful = !found.iter().filter(is_current).any(|replica| is_sure(&replica));
    let current = found.iter().filter(is_current);
    let current = current.filter(|replica| are_doubtful || is_sure(replica));
    // The newest has most of what its writer did; of those, what most workers have.
    let alike = |checksum: u32| current.clone().filter(move |(_, sum)| sum.checksum == checksum);
    let best = current.clone().max_by_key(|(worker, sum)| {
        (
            sum.generation,
            alike(sum.checksum).count(),
            std::cmp::Reverse(*worker),
        )
    });
    let Some((_, best)) = best else {
        return Agreement::Nobody;
    };
    let kept: Vec<_> = alike(best.checksum).map(|(worker, _)| *worker).collect();
    if are_doubtful {
        return Agreement::KeepDoubtful(kept);
    }
    match kept.len() == found.len() && kept.len() >= wanted {
        true => Agreement::Reached,
        false => Agreement::Keep(kept),
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::BlockId;

    use super::*;

    const KNOWN: BlockRef = BlockRef {
        id: BlockId(7),
        len_bytes: 10,
        generation: 4,
    };

    fn found(replicas: &[(u32, u32, u32)]) -> Vec<(WorkerId, ReplicaSum)> {
        let replica = |&(worker, generation, checksum)| {
            let sum = ReplicaSum {
                generation,
                checksum,
                is_doubtful: false,
            };
            (WorkerId(worker), sum)
        };
        replicas.iter().map(replica).collect()
    }

    fn kept(replicas: &[(u32, u32, u32)]) -> Agreement {
        agree(&KNOWN, &found(replicas), 2)
    }

    fn keep(workers: &[u32]) -> Agreement {
        Agreement::Keep(workers.iter().map(|id| WorkerId(*id)).collect())
    }

    #[test]
    fn replicas_that_are_the_same_stay_as_they_are_if_they_are_all() {
        assert_eq!(kept(&[(1, 4, 9), (2, 4, 9)]), Agreement::Reached);
        // The writer reached one of them with what it had written before.
        assert_eq!(kept(&[(1, 4, 9), (2, 5, 9)]), Agreement::Reached);
        assert_eq!(
            kept(&[(1, 4, 9)]),
            keep(&[1]),
            "the other may come back with anything"
        );
    }

    #[test]
    fn of_replicas_that_differ_those_like_the_newest_are_kept() {
        assert_eq!(kept(&[(1, 4, 9), (2, 5, 8)]), keep(&[2]));
        assert_eq!(kept(&[(1, 5, 9), (2, 5, 8)]), keep(&[1]));
        assert_eq!(kept(&[(1, 5, 9), (2, 5, 8), (3, 4, 8)]), keep(&[2, 3]));
    }

    #[test]
    fn one_that_is_older_than_the_namespace_is_never_kept() {
        assert_eq!(kept(&[(1, 3, 9), (2, 4, 9)]), keep(&[2]));
        assert_eq!(kept(&[(1, 3, 9)]), Agreement::Nobody);
        assert_eq!(kept(&[]), Agreement::Nobody);
    }

    #[test]
    fn what_a_power_cut_may_have_changed_is_kept_only_where_nobody_has_anything_else() {
        let mut replicas = found(&[(1, 5, 8), (2, 4, 9), (3, 5, 8)]);
        replicas[0].1.is_doubtful = true;
        replicas[2].1.is_doubtful = true;
        assert_eq!(agree(&KNOWN, &replicas, 2), keep(&[2]));
        replicas[1].1.is_doubtful = true;
        let kept = vec![WorkerId(1), WorkerId(3)];
        assert_eq!(agree(&KNOWN, &replicas, 2), Agreement::KeepDoubtful(kept));
    }
}
