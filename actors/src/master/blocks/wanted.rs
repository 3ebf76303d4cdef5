//! What is wanted of each block: which of the replicas that workers report are to stay.

use curvine_protocol::BlockRef;
use curvine_protocol::cluster::BlockReplica;

/// What becomes of a replica that a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is what the namespace says, or newer.
    Current,
    /// It missed an overwrite. It stays: nobody has said yet to have anything better.
    Outdated,
    /// No file refers to it, or another worker has the newer one.
    Garbage,
}

/// What becomes of a reported replica, by what the namespace knows of its block (none: no file refers to it).
/// `another_has_it` is whether another worker, which lives, has itself reported the block as the namespace has it. That a
/// client committed it is not enough: it may be wrong, and these may be the last bytes there are.
pub fn wanted(replica: &BlockReplica, known: Option<&BlockRef>, another_has_it: bool) -> Wanted {
    match known {
        None => Wanted::Garbage,
        Some(block) if replica.generation >= block.generation => Wanted::Current,
        Some(_) if another_has_it => Wanted::Garbage,
        Some(_) => Wanted::Outdated,
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::BlockId;

    use super::*;

    #[test]
    fn replicas_of_no_file_go_and_older_ones_when_another_worker_has_the_newer_one() {
        let replica = |generation| BlockReplica {
            id: BlockId(1),
            generation,
            len_bytes: 1,
        };
        let known = BlockRef {
            id: BlockId(1),
            len_bytes: 1,
            generation: 5,
        };
        let of = |generation, another| wanted(&replica(generation), Some(&known), another);
        assert_eq!(
            [4, 5, 6].map(|generation| of(generation, true)),
            [
                Wanted::Garbage,
                Wanted::Current,
                // Of a writer that has not committed yet.
                Wanted::Current
            ]
        );
        assert_eq!(of(4, false), Wanted::Outdated);
        assert_eq!(wanted(&replica(5), None, false), Wanted::Garbage);
    }
}
