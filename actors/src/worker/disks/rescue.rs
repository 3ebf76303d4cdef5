//! Copies in memory that are all that is left: the block that they are copies of has rotted.

use std::sync::{Mutex, OnceLock, Weak};

use curvine_protocol::BlockId;

use super::Inner;
use crate::worker::disk::BlockNews;

#[derive(Default)]
pub struct Rescue {
    pub disks: OnceLock<Weak<Inner>>,
    /// What was rescued and is in memory alone.
    taken: Mutex<Vec<BlockId>>,
}

impl Rescue {
    /// Has the copy of a block be the block, if a disk says that it has set the block aside and another one has a copy. Then
    /// nobody needs to hear of it: the worker has the block.
    pub fn takes(&self, disk: usize, news: BlockNews) -> bool {
        let BlockNews::Damaged(block) = news else {
            return false;
        };
        let Some(disks) = self.disks.get().and_then(Weak::upgrade) else {
            return false;
        };
        let others = disks.disks.iter().enumerate().filter(|(other, _)| *other != disk);
        let mut copies = others.filter(|(_, other)| matches!(other.store.is_guest(block), Ok(Some(true))));
        let Some((_, copy)) = copies.next() else {
            return false;
        };
        tracing::warn!(
            "block {block}: its copy on disk {} takes the place of what was set aside",
            copy.store.name()
        );
        copy.store.on_lane(block, move |store| {
            if let Err(error) = store.settle_in(block) {
                tracing::error!("block {block}: its copy cannot take its place: {error}");
            }
        });
        self.taken
            .lock()
            .expect("nobody panics while it holds this")
            .push(block);
        true
    }

    /// What was rescued since this was asked last.
    pub fn taken(&self) -> Vec<BlockId> {
        std::mem::take(&mut *self.taken.lock().expect("nobody panics while it holds this"))
    }
}
