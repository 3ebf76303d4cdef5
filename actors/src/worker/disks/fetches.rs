//! What is being fetched from under file systems, so that an order to remove a block ends its fetch.
//!
//! A fetch takes as long as its source lets it, and what it brings is stored then. Without this, a block that was deleted
//! meanwhile would be made anew, and no master would know of it.
//!
//! Invariant: a fetch that began before an order to remove its block stores nothing after that order was carried out: it
//! is over before the order comes to the block's lane, and whoever stores looks there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use curvine_protocol::{BlockId, Error, ErrorKind, Result};

/// The fetches under way.
#[derive(Default)]
pub struct Fetches {
    under_way: Mutex<HashMap<BlockId, Weak<UnderWay>>>,
    removals: AtomicU64,
}

struct UnderWay {
    block: BlockId,
    is_over: AtomicBool,
    all: Arc<Fetches>,
}

/// A fetch of one block. Clones are the same fetch, which is under way as long as there is one of them.
#[derive(Clone)]
pub struct Fetch(Arc<UnderWay>);

impl Fetches {
    /// A fetch of a block begins, before anybody is asked what the block is.
    pub fn begin(self: &Arc<Self>, block: BlockId) -> Fetch {
        let mut under_way = self.under_way();
        let known = under_way.get(&block).and_then(Weak::upgrade);
        let fetch = known.unwrap_or_else(|| {
            let fetch = Arc::new(UnderWay {
                block,
                is_over: AtomicBool::new(false),
                all: self.clone(),
            });
            under_way.insert(block, Arc::downgrade(&fetch));
            fetch
        });
        Fetch(fetch)
    }

    /// These blocks are about to be removed: what is under way of them is over.
    pub fn end(&self, blocks: impl IntoIterator<Item = BlockId>) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        let mut under_way = self.under_way();
        let ended: Vec<_> = blocks
            .into_iter()
            .filter_map(|block| under_way.remove(&block)?.upgrade())
            .collect();
        // The last of a fetch takes this lock as it goes.
        drop(under_way);
        for fetch in ended {
            fetch.is_over.store(true, Ordering::SeqCst);
        }
    }

    /// Blocks that are being fetched, or are about to be.
    pub fn blocks(&self) -> HashSet<BlockId> {
        let under_way = self.under_way();
        let lives = under_way.iter().filter(|(_, fetch)| fetch.strong_count() > 0);
        lives.map(|(block, _)| *block).collect()
    }

    /// How many orders to remove blocks there were. What was known before another one may name blocks that are gone.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<BlockId, Weak<UnderWay>>> {
        self.under_way.lock().expect("nobody panics while it holds this")
    }
}

impl Fetch {
    /// Whether the block was ordered to be removed since.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    /// For whoever is about to store something of it, on the block's lane.
    ///
    /// # Errors
    /// `BlockUnavailable` if it is over.
    pub fn check(&self) -> Result<()> {
        match self.is_over() {
            true => Err(deleted(self.0.block)),
            false => Ok(()),
        }
    }
}

/// Whoever waits for such a block asks the master what the file has now.
pub fn deleted(block: BlockId) -> Error {
    Error::new(
        ErrorKind::BlockUnavailable,
        format!("block {block} was deleted while it was fetched; look the file up again"),
    )
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.all.under_way();
        let is_mine = under_way
            .get(&self.block)
            .is_some_and(|fetch| std::ptr::eq(fetch.as_ptr(), self));
        if is_mine {
            under_way.remove(&self.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: BlockId = BlockId(7);

    #[test]
    fn a_fetch_is_over_when_its_block_is_removed_and_the_next_is_not() {
        let fetches = Arc::new(Fetches::default());
        let (one, same) = (fetches.begin(BLOCK), fetches.begin(BLOCK));
        fetches.end([BlockId(8)]);
        assert!(!one.is_over() && one.check().is_ok());
        assert_eq!(fetches.blocks(), HashSet::from([BLOCK]));
        fetches.end([BLOCK]);
        let refused = [&one, &same].map(|fetch| fetch.check().map_err(|error| error.kind));
        assert_eq!(refused, [Err(ErrorKind::BlockUnavailable); 2]);
        let next = fetches.begin(BLOCK);
        drop((one, same));
        assert!(!next.is_over());
        fetches.end([BLOCK]);
        assert!(next.is_over());
        assert_eq!(fetches.removals(), 3);
    }

    #[test]
    fn what_ends_is_not_kept() {
        let fetches = Arc::new(Fetches::default());
        let fetch = fetches.begin(BLOCK);
        drop(fetch.clone());
        assert_eq!(fetches.under_way().len(), 1);
        drop(fetch);
        assert_eq!(fetches.under_way().len(), 0);
    }
}
