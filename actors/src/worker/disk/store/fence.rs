//! Keeping out writers whose leases were given on.

use std::sync::Arc;

use curvine_protocol::{BlockId, Error, Result};

use super::super::index::Change;
use super::{Store, lock};
use crate::kit::ports::offloaded;

impl Store {
    /// From now on, no generation below this one writes these blocks, also after a restart or a power cut. When this
    /// returns, no older write is under way.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub async fn fence(self: &Arc<Self>, blocks: &[BlockId], generation: u32) -> Result<()> {
        let changes = blocks.iter().map(|block| Change::Fence(*block, generation));
        let (done, committed) = tokio::sync::oneshot::channel();
        self.index.submit(super::super::index::Update {
            changes: changes.collect(),
            sync: true,
            done: Box::new(move |outcome| drop(done.send(outcome))),
        });
        let given_up = |_| Err(Error::internal("a fence was given up"));
        committed.await.unwrap_or_else(given_up)?;
        // What is opened from now on finds the fence in the index.
        for (number, lane) in self.lanes.iter().enumerate() {
            let store = self.clone();
            let of_lane = |block: &&BlockId| store.lane_number(**block) == number;
            let blocks: Vec<_> = blocks.iter().filter(of_lane).copied().collect();
            offloaded(&*lane.offload, move || {
                let mut open = lock(&store.lanes[number].open);
                for block in blocks {
                    if let Some(open) = open.get_mut(&block) {
                        open.fence = open.fence.max(generation);
                    }
                }
            })
            .await?;
        }
        Ok(())
    }
}
