//! A turn for each file: of two jobs that come to one file, the second finds what the first has made of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use curvine_protocol::InodeId;
use tokio::sync::OwnedMutexGuard;

/// Turns that nobody has or waits for are forgotten when there are so many.
const FORGET_AT: usize = 1_024;

type Turn = tokio::sync::Mutex<()>;

#[derive(Default)]
pub struct Turns(Mutex<HashMap<InodeId, Weak<Turn>>>);

impl Turns {
    /// Waits for the turn at a file, which ends with what is returned.
    pub async fn take(&self, inode: InodeId) -> OwnedMutexGuard<()> {
        self.of(inode).lock_owned().await
    }

    fn of(&self, inode: InodeId) -> Arc<Turn> {
        let mut turns = self.0.lock().expect("nobody panics while it holds the turns");
        if turns.len() >= FORGET_AT {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        if let Some(turn) = turns.get(&inode).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(inode, Arc::downgrade(&turn));
        turn
    }
}
