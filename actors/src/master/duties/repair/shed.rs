//! Has workers let replicas go that are too much: who has them asks the others first.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use curvine_protocol::worker::{SHED_MAX, ShedReplicas, SurplusReplica};
use curvine_protocol::{Result, WorkerId};

use super::Repair;
use crate::kit::deadlines::of_replicas;
use crate::kit::{call, metrics};

/// In one call: its keepers read as much, to verify it.
const BYTES_MAX: u64 = 1 << 30;

impl Repair {
    /// One call after the other. What fails is found again by the next look.
    pub(super) async fn shed_all(&self, at: WorkerId, replicas: Vec<SurplusReplica>) {
        for replicas in calls_of(replicas) {
            if let Err(error) = self.shed(at, replicas).await {
                self.seen().failure = Some(error.message);
            }
        }
    }

    async fn shed(&self, at: WorkerId, replicas: Vec<SurplusReplica>) -> Result<()> {
        let shed = self.shed_replicas(at, replicas).await?;
        self.shed.fetch_add(shed as u64, Ordering::Relaxed);
        metrics::REPLICAS_SHED.add(shed as u64);
        let mut seen = self.seen();
        seen.surplus = seen.surplus.saturating_sub(shed);
        Ok(())
    }

    /// How many are gone.
    ///
    /// # Errors
    /// Of the worker, and of the state.
    pub(super) async fn shed_replicas(&self, at: WorkerId, found: Vec<SurplusReplica>) -> Result<usize> {
        let mut replicas = Vec::with_capacity(found.len());
        for replica in found {
            // It may have been written or deleted since it was seen.
            if self.store.is_kept(&replica.block)? {
                replicas.push(replica);
            }
        }
        if replicas.is_empty() {
            return Ok(0);
        }
        let keepers = replicas
            .iter()
            .flat_map(|replica| replica.keepers.iter().copied());
        let order = ShedReplicas {
            workers: self
                .blocks
                .cluster()
                .roster
                .addresses_of(keepers.collect::<BTreeSet<_>>()),
            blocks: replicas.clone(),
        };
        let context = of_replicas(replicas.iter().map(|replica| replica.block.len_bytes).sum());
        let shed = call(&*self.workers.reach(at)?, order, context)
            .await
            .map_err(|error| {
                error.while_doing(format_args!("having worker {at} shed replicas that are too many"))
            })?;
        let went = replicas.iter().zip(shed.went).filter(|(_, went)| *went);
        let went = went.inspect(|(replica, _)| self.blocks.went(at, replica.block.id));
        Ok(went.count())
    }
}

/// No call is about too many blocks or bytes, unless one block is.
fn calls_of(replicas: Vec<SurplusReplica>) -> Vec<Vec<SurplusReplica>> {
    let mut calls: Vec<(u64, Vec<SurplusReplica>)> = Vec::new();
    for replica in replicas {
        let len_bytes = replica.block.len_bytes;
        match calls.last_mut() {
            Some((bytes, call)) if call.len() < SHED_MAX && *bytes + len_bytes <= BYTES_MAX => {
                *bytes += len_bytes;
                call.push(replica);
            }
            _ => calls.push((len_bytes, vec![replica])),
        }
    }
    calls.into_iter().map(|(_, call)| call).collect()
}

#[cfg(test)]
mod tests {
    use curvine_protocol::{BlockId, BlockRef};

    use super::*;

    #[test]
    fn no_call_is_about_too_much_unless_one_block_is() {
        let of = |lengths: &[u64]| {
            let replica = |&len_bytes: &u64| SurplusReplica {
                block: BlockRef {
                    id: BlockId(len_bytes),
                    len_bytes,
                    generation: 1,
                },
                keepers: vec![WorkerId(2)],
            };
            let calls = calls_of(lengths.iter().map(replica).collect());
            calls.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [0_usize; 0]);
        assert_eq!(of(&[1; SHED_MAX + 1]), [SHED_MAX, 1]);
        assert_eq!(
            of(&[BYTES_MAX / 2, BYTES_MAX / 2, 1, 2 * BYTES_MAX, 1]),
            [2, 1, 1, 1]
        );
    }
}
