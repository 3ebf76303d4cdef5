//! The way of what was written into the masters' record of the file: sealed on its workers first, then committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::{BlockCommit, CommitFile};
use curvine_protocol::worker::SealBlock;
use curvine_protocol::{ErrorKind, Result};
use futures::stream::{self, StreamExt};

use super::state::{Block, State};
use super::{KEPT, Shared};
use crate::client::route::is_passing;

/// Blocks sealed at the same time.
const SEALS: usize = 8;

impl Shared {
    /// Seals what was written and records it with the masters; with `close`, gives the lease back.
    ///
    /// An error of masters or workers that may pass leaves everything as it is for another try.
    pub(super) async fn commit(self: &Arc<Self>, state: &mut State, sync: bool, close: bool) -> Result<()> {
        state.check()?;
        if !self.put_small(state, sync).await? {
            self.send_gathered(state).await?;
        }
        self.settle(state, 0).await?;
        self.seal(state, sync).await?;
        if !state.writable || !(state.uncommitted || close) {
            return Ok(());
        }
        let written_ns = self.written_ns.load(Ordering::Acquire);
        let call = CommitFile {
            inode: self.inode,
            size_bytes: self.size(),
            blocks: commits(&state.blocks, |block| block.uncommitted, |block| block.len_bytes),
            mtime_ns: (written_ns != 0).then_some(written_ns),
            close,
            keep_privileges: self.privileges.load(Ordering::Acquire) == KEPT,
        };
        match self.under_lease(state, call).await {
            Ok(entry) => {
                self.version.store(entry.attr.content_version, Ordering::Release);
                state.attr = entry.attr;
            }
            Err(error) => {
                if !is_passing(&error) {
                    state.fail(error.clone());
                }
                return Err(error);
            }
        }
        self.written_ns.store(0, Ordering::Release);
        self.privileges_cleared();
        state.committed(close);
        self.leased.store(state.writable, Ordering::Release);
        Ok(())
    }

    /// Makes what was written checksummed on its workers; with `sync`, the whole file is on their disks, whoever
    /// wrote it.
    async fn seal(&self, state: &mut State, sync: bool) -> Result<()> {
        let todo: Vec<usize> = (0..state.blocks.len())
            .filter(|&index| {
                let block = &state.blocks[index];
                let unsynced = !block.synced && block.len_bytes > 0;
                // What can be fetched again need not be on disk.
                block.unsealed || (sync && unsynced && (block.begun || !state.fillable))
            })
            .collect();
        let sealing = todo.iter().map(|&index| {
            let block = &state.blocks[index];
            self.seal_block(block.clone(), state.workers.clone(), sync)
        });
        let sealed: Vec<Result<()>> = stream::iter(sealing.collect::<Vec<_>>())
            .buffered(SEALS)
            .collect()
            .await;
        let mut outcome = Ok(());
        for (index, sealed) in todo.into_iter().zip(sealed) {
            match sealed {
                Ok(()) => {
                    state.blocks[index].unsealed = false;
                    state.blocks[index].synced |= sync;
                }
                Err(error) => {
                    if state.writable && !is_passing(&error) {
                        state.fail(error.clone());
                    }
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Seals one block on every worker that this client wrote it to. Of a block that others wrote, one replica on disk
    /// is enough.
    async fn seal_block(&self, block: Block, workers: Vec<WorkerAddress>, sync: bool) -> Result<()> {
        let call = SealBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            sync,
        };
        let mut outcome = Ok(());
        let mut done = 0;
        for &worker in &block.located.workers {
            match self
                .deliver(worker, workers.clone(), call.clone(), Bytes::new())
                .await
            {
                Ok(_) => done += 1,
                // Somebody writes it again: that is theirs to sync.
                Err(error) if !block.begun && error.kind == ErrorKind::Stale => done += 1,
                Err(error) => {
                    outcome = Err(error.while_doing(format_args!("sealing on worker {worker}")));
                }
            }
        }
        match !block.begun && done > 0 {
            true => Ok(()),
            false => outcome,
        }
    }
}

/// What the masters are told of some of the blocks.
pub(super) fn commits(
    blocks: &[Block],
    which: impl Fn(&Block) -> bool,
    len_bytes: impl Fn(&Block) -> u64,
) -> Vec<BlockCommit> {
    let chosen = blocks.iter().enumerate().filter(|(_, block)| which(block));
    chosen
        .map(|(index, block)| BlockCommit {
            index: index as u32,
            id: block.located.block.id,
            len_bytes: len_bytes(block),
            generation: block.located.block.generation,
            workers: block.located.workers.clone(),
        })
        .collect()
}
