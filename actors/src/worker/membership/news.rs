//! Where the disks leave news of their blocks, and the Worker finds them.
//!
//! The lock is held only to note news or to take them: a disk's thread waits for neither the Worker nor the master.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use tokio::sync::Notify;

use super::untold::{Noted, Untold};
use crate::worker::disk::BlockNews;

pub struct News {
    untold: Mutex<Untold>,
    /// Most blocks that there are news of.
    max: usize,
    came: Notify,
}

impl News {
    /// Empty, with room for news of so many blocks.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(News {
            untold: Mutex::new(Untold::nothing()),
            max,
            came: Notify::new(),
        })
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        self.untold.lock().expect("nobody panics while it holds news")
    }

    /// Leaves news. Does not block.
    pub fn tell(&self, news: BlockNews) {
        let noted = self.untold().note(news, self.max);
        match noted {
            // Whoever takes these takes those that follow, too.
            Noted::First => self.came.notify_one(),
            Noted::NoRoom => tracing::info!(
                "more than {} blocks have changed since the master was last told; it will be told of all blocks",
                self.max
            ),
            Noted::Kept | Noted::InReport => {}
        }
    }

    /// Has everything told.
    pub fn doubt(&self) {
        self.put_back(Untold::Everything);
    }

    /// All there is to tell.
    pub fn take(&self) -> Untold {
        std::mem::replace(&mut *self.untold(), Untold::nothing())
    }

    pub fn put_back(&self, untold: Untold) {
        self.untold().put_back(untold, self.max);
    }

    pub fn is_empty(&self) -> bool {
        self.untold().is_nothing()
    }

    /// An item each time that there was nothing to tell and now is. For one listener.
    pub fn arrivals(self: Arc<Self>) -> impl Stream<Item = ()> {
        futures::stream::unfold(self, |news| async {
            news.came.notified().await;
            Some(((), news))
        })
    }
}
