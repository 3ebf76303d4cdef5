//! What is wanted of each block: which of the replicas that workers report are to stay.

use curvine_protocol::BlockRef;
use curvine_protocol::cluster::BlockReplica;

/// Whether a reported replica is to stay, by what the namespace knows of its block; none: no file refers to it.
pub fn is_wanted(replica: &BlockReplica, known: Option<&BlockRef>) -> bool {
    // A replica of an older generation missed an overwrite.
    known.is_some_and(|block| replica.generation >= block.generation)
}

#[cfg(test)]
mod tests {
    use curvine_protocol::BlockId;

    use super::*;

    #[test]
    fn replicas_of_no_file_and_of_older_generations_go() {
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
        let wanted = [4, 5, 6].map(|generation| is_wanted(&replica(generation), Some(&known)));
        assert_eq!(
            wanted,
            [false, true, true],
            "a newer one is of a writer that has not committed yet"
        );
        assert!(!is_wanted(&replica(5), None));
    }
}
