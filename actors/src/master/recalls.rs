//! Files whose lease somebody else waits for, and the clients that wait to be told so.
//!
//! A client that holds leases asks for news ([`AwaitNews`](curvine_protocol::master::AwaitNews)) all the time; the answer
//! is held back until there are some. Whoever waits for a file is a [`Waiter`]: it has the holder told, and hears when the
//! file is given back. Those who wait for one file take turns in the order in which they came.
//!
//! All of this is the leader's soft state: a new leader hears both sides again. A waiter that gives up, or whose future
//! is dropped, leaves nothing behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::{ClientId, Error, ErrorKind, InodeId, Result};
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::time::Instant;

/// Calls that wait for leases, and clients that wait for news.
const WAITING_MAX: usize = 65_536;
/// Inodes in one answer.
const TOLD_AT_ONCE: usize = 1_000;
/// A holder that was told and has not given the file back is told again: the answer may have been lost.
const TELL_AGAIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Recalls {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<InodeId, File>,
    waiting: usize,
    /// The clients that wait for news.
    polls: HashMap<ClientId, Poll>,
    last_poll: u64,
}

/// A file that somebody waits for.
struct File {
    holder: Option<ClientId>,
    told: Option<Instant>,
    waiters: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Changes whenever somebody gives the file back.
    given_back: watch::Sender<()>,
}

struct Poll {
    number: u64,
    wake: Arc<Notify>,
}

impl Recalls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds who waits")
    }

    pub fn is_idle(&self) -> bool {
        self.state().files.is_empty()
    }

    pub fn is_wanted(&self, inode: InodeId) -> bool {
        self.state().files.contains_key(&inode)
    }

    /// Somebody waits for a file from now on.
    ///
    /// # Errors
    /// `Overloaded` if too many wait.
    pub fn wait_for(self: &Arc<Self>, inode: InodeId) -> Result<Waiter> {
        let mut state = self.state();
        if state.waiting >= WAITING_MAX {
            return Err(too_many());
        }
        state.waiting += 1;
        let file = state.files.entry(inode).or_insert_with(|| File {
            holder: None,
            told: None,
            waiters: 0,
            turn: Arc::default(),
            given_back: watch::Sender::new(()),
        });
        file.waiters += 1;
        Ok(Waiter {
            turn: file.turn.clone(),
            given_back: file.given_back.subscribe(),
            recalls: self.clone(),
            inode,
        })
    }

    /// These files have no holder any more, or another one.
    pub fn given_back(&self, inodes: &[InodeId]) {
        if inodes.is_empty() {
            return;
        }
        let mut state = self.state();
        for inode in inodes {
            if let Some(file) = state.files.get_mut(inode) {
                (file.holder, file.told) = (None, None);
                file.given_back.send_replace(());
            }
        }
    }

    /// This master begins or ends to lead: everybody who waits looks again.
    pub fn look_again(&self) {
        let state = self.state();
        state.polls.values().for_each(|poll| poll.wake.notify_one());
        state
            .files
            .values()
            .for_each(|file| file.given_back.send_replace(()));
    }

    /// A client waits for news from now on. Its poll before this one ends without any.
    ///
    /// # Errors
    /// `Overloaded` if too many wait.
    pub fn poll(self: &Arc<Self>, client: ClientId) -> Result<News> {
        let mut state = self.state();
        if state.polls.len() >= WAITING_MAX && !state.polls.contains_key(&client) {
            return Err(too_many());
        }
        state.last_poll += 1;
        let (number, wake) = (state.last_poll, Arc::new(Notify::new()));
        let poll = Poll {
            number,
            wake: wake.clone(),
        };
        if let Some(before) = state.polls.insert(client, poll) {
            before.wake.notify_one();
        }
        Ok(News {
            recalls: self.clone(),
            client,
            number,
            wake,
        })
    }

    /// Whether a client waits for news: it lives, and has not been told anything that it did not react to.
    pub fn is_listening(&self, client: ClientId) -> bool {
        self.state().polls.contains_key(&client)
    }
}

fn too_many() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        format!("{WAITING_MAX} clients wait for files of others; try again later"),
    )
}

/// One call that waits for a file.
pub struct Waiter {
    recalls: Arc<Recalls>,
    inode: InodeId,
    turn: Arc<tokio::sync::Mutex<()>>,
    given_back: watch::Receiver<()>,
}

impl Waiter {
    /// Returns when those who came before have had the file, or given up.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// What is given back from here on counts.
    pub fn look(&mut self) {
        self.given_back.mark_unchanged();
    }

    /// Has the holder told.
    pub fn ask(&self, holder: ClientId) {
        let mut state = self.recalls.state();
        let Some(file) = state.files.get_mut(&self.inode) else {
            return;
        };
        if file.holder != Some(holder) {
            (file.holder, file.told) = (Some(holder), None);
            if let Some(poll) = state.polls.get(&holder) {
                poll.wake.notify_one();
            }
        }
    }

    /// Returns when the file is given back since [`Waiter::look`].
    pub async fn given_back(&mut self) {
        // Its sender is in the table for as long as this waiter is.
        let _ = self.given_back.changed().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.recalls.state();
        state.waiting -= 1;
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.waiters -= 1;
            if file.waiters == 0 {
                state.files.remove(&self.inode);
            }
        }
    }
}

/// One poll of a client.
pub struct News {
    recalls: Arc<Recalls>,
    client: ClientId,
    number: u64,
    wake: Arc<Notify>,
}

impl News {
    /// The files that this client is to give back, and was not told of lately; none if another poll took its place.
    pub fn recalled(&self, now: Instant) -> Option<Vec<InodeId>> {
        let mut state = self.recalls.state();
        if state
            .polls
            .get(&self.client)
            .is_none_or(|poll| poll.number != self.number)
        {
            return None;
        }
        let mine = state
            .files
            .iter_mut()
            .filter(|(_, file)| file.holder == Some(self.client));
        let due = mine.filter(|(_, file)| file.told.is_none_or(|told| now - told >= TELL_AGAIN));
        let told = due.take(TOLD_AT_ONCE).map(|(inode, file)| {
            file.told = Some(now);
            *inode
        });
        Some(told.collect())
    }

    /// Returns when there may be some.
    pub async fn come(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep(TELL_AGAIN) => {}
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut state = self.recalls.state();
        if state
            .polls
            .get(&self.client)
            .is_some_and(|poll| poll.number == self.number)
        {
            state.polls.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeId = InodeId(7);
    const HOLDER: ClientId = ClientId(2);

    #[expect(clippy::disallowed_methods, reason = "any time will do to count from")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_told_once_and_again_only_if_it_does_nothing() {
        let recalls = Arc::new(Recalls::default());
        let news = recalls.poll(HOLDER).expect("room");
        let now = some_time();
        assert_eq!(news.recalled(now), Some(vec![]));
        let waiter = recalls.wait_for(FILE).expect("room");
        waiter.ask(HOLDER);
        news.come().await;
        assert_eq!(news.recalled(now), Some(vec![FILE]));
        assert_eq!(news.recalled(now), Some(vec![]));
        assert_eq!(news.recalled(now + TELL_AGAIN), Some(vec![FILE]));
        drop(waiter);
        assert_eq!(news.recalled(now + 2 * TELL_AGAIN), Some(vec![]));
        assert!(recalls.is_idle(), "who gives up leaves nothing behind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_poll_takes_the_place_of_the_first() {
        let recalls = Arc::new(Recalls::default());
        let first = recalls.poll(HOLDER).expect("room");
        let second = recalls.poll(HOLDER).expect("room");
        first.come().await;
        assert_eq!(first.recalled(some_time()), None);
        drop(first);
        assert!(recalls.is_listening(HOLDER), "the second waits on");
        drop(second);
        assert!(!recalls.is_listening(HOLDER));
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_take_turns_in_the_order_in_which_they_came() {
        let recalls = Arc::new(Recalls::default());
        let mut first = recalls.wait_for(FILE).expect("room");
        let second = recalls.wait_for(FILE).expect("room");
        let turn = first.turn().await;
        let waiting = second.turn();
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        first.look();
        recalls.given_back(&[FILE]);
        first.given_back().await;
        drop((turn, first));
        waiting.await;
    }
}
