//! Objects that are written in part: workers get what is to stay of a block before the first write of it.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::worker::{Fill, ReadBlock, Wish};
use curvine_protocol::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::Shared;
use super::deliver::BACKOFF_MAX;
use super::state::{Block, State};
use crate::client::route::is_passing;
use crate::kit::Ports;
use crate::kit::backoff::Backoff;

/// How long is waited for a block to be fetched. It may have 1 GiB, and each try asks how far it has come.
const FETCH_MAX: Duration = Duration::from_secs(600);

impl Shared {
    /// Before bytes are taken that go over a part of an object: has what is to stay of it fetched while it is there. If it is
    /// another object by now, the write fails, and nothing was taken; if it becomes one later, both are kept.
    ///
    /// # Errors
    /// As [`Shared::fetch_to_write`].
    pub(super) async fn fetch_to_take(&self, state: &mut State, range: Range<u64>) -> Result<()> {
        for index in state.index_of(range.start)..=state.index_of(range.end - 1) {
            let is_due = |block: &Block| is_to_be_fetched(block) && !block.fetched;
            if !state.blocks.get(&index).is_some_and(is_due) {
                continue;
            }
            self.ensure_block(state, index).await?;
            self.fetch_to_write(state, index).await?;
            if let Some(block) = state.blocks.get_mut(&index) {
                block.fetched = true;
            }
        }
        Ok(())
    }

    /// Has a block that is the object's fetched whole by those who are to be sent writes of it, if none was yet: they keep
    /// it from then on.
    ///
    /// # Errors
    /// `UfsChanged` if the object is another one by now; those of workers and of the under file system. The file is
    /// failed.
    pub(super) async fn fetch_to_write(&self, state: &mut State, index: u32) -> Result<()> {
        if !state.blocks.get(&index).is_some_and(is_to_be_fetched) {
            return Ok(());
        }
        let began = self.router.ports().clock.now();
        let mut backoff = Backoff::up_to(BACKOFF_MAX);
        loop {
            let Err(error) = self.fetch_whole(state, index).await else {
                return Ok(());
            };
            if !self.is_worth_waiting(&error, began) {
                let error = error.while_doing(format_args!(
                    "fetching the object to write a part of it; what was not flushed is lost"
                ));
                state.fail(error.clone());
                return Err(error);
            }
            let Ports { random, .. } = self.router.ports();
            sleep(backoff.next(random.next_u64())).await;
            if error.kind != ErrorKind::Timeout {
                self.find_holders(state, index)
                    .await
                    .inspect_err(|error| state.fail(error.clone()))?;
            }
        }
    }

    fn is_worth_waiting(&self, error: &Error, began: Instant) -> bool {
        let limit = match error.kind {
            ErrorKind::Timeout => FETCH_MAX,
            _ => self.router.retry_for(),
        };
        is_passing(error) && self.router.ports().clock.now() < began + limit
    }

    /// Asks each worker of a block for its last byte, and for all of it before that.
    async fn fetch_whole(&self, state: &State, index: u32) -> Result<()> {
        let Some(block) = state.blocks.get(&index) else {
            return Ok(());
        };
        let call = ReadBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            offset_bytes: block.len_bytes.saturating_sub(1),
            len_bytes: 1,
            fill: Some(Fill {
                inode: self.inode,
                block_index: index,
                whole: true,
                mount: None,
                from_store: false,
            }),
            exact: false,
            tier: Wish::of(state.tier),
        };
        for &worker in &block.located.workers {
            let port = self.router.worker(worker, &state.workers)?;
            self.router.ask_worker(&port, call.clone(), Bytes::new()).await?;
        }
        Ok(())
    }
}

fn is_to_be_fetched(block: &Block) -> bool {
    block.cached && !block.begun
}
