//! The way of what was written into the masters' record of the file: sealed on its workers first, then committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::master::{BlockCommit, CommitFile};
use curvine_protocol::worker::{SealBlock, WriteOrder};
use curvine_protocol::{Attr, Error, ErrorKind, Result, WorkerId};
use futures::future::join_all;
use futures::stream::{self, StreamExt};

use super::deliver::{Company, Patience, ToHolder};
use super::state::{Block, State};
use super::{KEPT, Shared, held_bytes};
use crate::client::route::is_passing;
use crate::planted::{Bug, is_planted};

/// Blocks sealed at the same time.
const SEALS: usize = 8;

impl Shared {
    /// Seals what was written and records it with the masters; with `close`, gives the lease back.
    ///
    /// An error of masters or workers that may pass leaves everything as it is for another try. After one that does not,
    /// what workers have is recorded, and the error says how long the file is.
    pub(super) async fn commit(self: &Arc<Self>, state: &mut State, sync: bool, close: bool) -> Result<()> {
        let outcome = match self.commit_all(state, sync, close).await {
            Err(error) if state.check().is_err() => Err(self.keep(state, error).await),
            outcome => outcome,
        };
        if outcome.is_ok() {
            state.writers.flushed();
        }
        self.let_go_if_lost(state).await;
        outcome
    }

    async fn commit_all(self: &Arc<Self>, state: &mut State, sync: bool, close: bool) -> Result<()> {
        state.check()?;
        // Made, it may have given the lease back, and with it all that workers ask for.
        self.ask_again(state).await?;
        if !self.put_small(state, sync).await? {
            self.send_gathered(state).await?;
        }
        self.settle(state, 0).await?;
        self.seal(state, sync).await?;
        while self.leave_behind(state).await? {
            self.seal(state, sync).await?;
        }
        if !state.writable || !(state.uncommitted || close) {
            return Ok(());
        }
        let call = CommitFile {
            close,
            ..self.what_is_written(state, self.size())
        };
        let (first, unanswered) = self.router.change_or_keep(call.clone()).await;
        state.unanswered = unanswered;
        state.is_newer = false;
        match self.lease_again(state, call, first).await {
            Ok(entry) => {
                self.recorded(state, entry.attr, close);
                Ok(())
            }
            // The lease was lost, and nothing with it.
            Err(_) if state.lease_lost.is_some() && !state.is_dirty() => Ok(()),
            Err(error) => {
                if !is_passing(&error) {
                    state.fail(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Asks what became of a commit that nobody answered: made, it may have given the lease back.
    ///
    /// # Errors
    /// Of the masters, if still nobody knows.
    pub(super) async fn ask_again(&self, state: &mut State) -> Result<()> {
        let Some(unanswered) = state.unanswered.take() else {
            return Ok(());
        };
        match self.router.change_again(&unanswered).await {
            Ok(entry) if !state.is_newer => {
                self.recorded(state, entry.attr, unanswered.call.close);
                Ok(())
            }
            // What was written since is yet to be recorded; where the lease has gone, under another one.
            Ok(entry) => {
                self.changed_to(entry.attr.content_version);
                state.attr = entry.attr;
                state.gave_back = unanswered.call.close;
                Ok(())
            }
            Err(error) if is_passing(&error) => {
                state.unanswered = Some(unanswered);
                Err(error)
            }
            // It was not made, and never will be.
            Err(_) => Ok(()),
        }
    }

    /// What the masters are to record of a file of this size.
    fn what_is_written(&self, state: &State, size_bytes: u64) -> CommitFile {
        let written_ns = self.written_ns.load(Ordering::Acquire);
        CommitFile {
            inode: self.inode,
            size_bytes,
            blocks: commits(&state.blocks, |block| block.uncommitted, |block| block.len_bytes),
            mtime_ns: (written_ns != 0).then_some(written_ns),
            close: false,
            keep_privileges: self.privileges.load(Ordering::Acquire) == KEPT,
            abandoned: false,
            keep_size: false,
            new_generation: false,
        }
    }

    /// A commit that records nothing.
    pub(super) fn nothing_written(&self) -> CommitFile {
        CommitFile {
            inode: self.inode,
            size_bytes: self.size(),
            blocks: Vec::new(),
            mtime_ns: None,
            close: false,
            keep_privileges: true,
            abandoned: false,
            keep_size: true,
            new_generation: false,
        }
    }

    /// The masters have recorded it, and these are the attributes now.
    fn recorded(&self, state: &mut State, attr: Attr, close: bool) {
        self.changed_to(attr.content_version);
        self.held_bytes.store(held_bytes(&attr), Ordering::Release);
        state.attr = attr;
        self.written_ns.store(0, Ordering::Release);
        self.privileges_cleared();
        state.committed(close);
        state.gave_back |= close;
        self.leased.store(state.writable, Ordering::Release);
    }

    /// Commits what workers have of what was written, when not all of it can be: an error has been met. Says what is to be
    /// said of it.
    pub(super) async fn keep(self: &Arc<Self>, state: &mut State, error: Error) -> Error {
        if state.kept || !state.writable || !state.is_dirty() || is_planted(Bug::FailedWriteKeepsNothing) {
            return error;
        }
        // The commit may have been made after all: then nothing is left to be kept, and the lease may be another client's.
        if self.ask_again(state).await.is_ok() && !(state.writable && state.is_dirty()) {
            return error;
        }
        state.fail(error);
        // Each says what became of it; the error is known already.
        let _ = self.settle(state, 0).await;
        state.lose_gathered();
        let cancelled = std::mem::take(&mut state.on_the_way);
        state.lost.extend(cancelled);
        if state.lease_lost.is_none() {
            self.commit_kept(state).await;
        }
        match state.check() {
            Err(error) => error,
            Ok(()) => unreachable!("it has failed above"),
        }
    }

    async fn commit_kept(&self, state: &mut State) {
        state.cut_to_keepable();
        // What no worker seals is as good as lost: its length and its generation are not recorded.
        let unsealed = self.seal_begun(state).await;
        for index in unsealed {
            let start = state.start_of(index);
            let Some(block) = state.blocks.get_mut(&index) else {
                continue;
            };
            let committed_bytes = block.located.block.len_bytes;
            let arrived_bytes = block.arrived_bytes();
            if committed_bytes < arrived_bytes {
                state.lost.push(start + committed_bytes..start + arrived_bytes);
            }
            block.uncommitted = false;
        }
        // It may have been made by now: then this would say once more what others have changed since.
        if self.ask_again(state).await.is_err() || !(state.writable && state.is_dirty()) {
            return;
        }
        let size_bytes = state.cut_to_keepable();
        let mut call = CommitFile {
            abandoned: true,
            ..self.what_is_written(state, size_bytes)
        };
        if is_planted(Bug::CommitsWhatNobodyHas) {
            call.blocks = commits(
                &state.blocks,
                |block| block.begun,
                |block| block.located.block.len_bytes,
            );
        }
        match self.under_lease(state, call).await {
            Ok(entry) => {
                state.kept = true;
                self.size_bytes.store(size_bytes, Ordering::Release);
                self.recorded(state, entry.attr, false);
                // What was written and lost is not what is read from now on.
                self.lineage.fetch_add(1, Ordering::AcqRel);
                state.read_as_committed();
                state.failed_at(size_bytes);
            }
            Err(error) => tracing::debug!(%error, "inode {}: what was written was not committed", self.inode),
        }
    }

    /// Seals what was written under this lease: those that no worker answers for, or one of several.
    async fn seal_begun(&self, state: &mut State) -> Vec<u32> {
        let number = state.numbers.next();
        let state = &*state;
        let begun = state.blocks.iter();
        let begun = begun.filter(|(_, block)| block.uncommitted && block.unsealed);
        let sealing = begun.map(|(&index, block)| async move {
            let sealed = self
                .seal_block(state, block, number, false, Patience::Short)
                .await;
            sealed.outcome(block).is_err().then_some(index)
        });
        let unsealed = stream::iter(sealing.collect::<Vec<_>>()).buffered(SEALS);
        unsealed.filter_map(std::future::ready).collect().await
    }

    /// Makes what was written checksummed on its workers; with `sync`, the whole file is on their disks, whoever
    /// wrote it.
    async fn seal(&self, state: &mut State, sync: bool) -> Result<()> {
        if sync {
            self.find_missing_holders(state).await?;
        }
        let todo: Vec<u32> = (state.blocks.iter())
            .filter(|(_, block)| {
                let unsynced = !block.synced && block.len_bytes > 0;
                // What can be fetched again need not be on disk.
                block.unsealed || (sync && unsynced && (block.begun || !block.cached))
            })
            .map(|(&index, _)| index)
            .collect();
        let number = state.numbers.next();
        let sealed: Vec<BlockSeals> = {
            let state = &*state;
            let sealing = todo.iter().map(|index| {
                let block = &state.blocks[index];
                self.seal_block(state, block, number, sync, Patience::Usual)
            });
            let sealing = stream::iter(sealing.collect::<Vec<_>>());
            sealing.buffered(SEALS).collect().await
        };
        let mut outcome = Ok(());
        for (index, mut sealed) in todo.into_iter().zip(sealed) {
            state.learn(std::mem::take(&mut sealed.workers));
            let Some(block) = state.blocks.get_mut(&index) else {
                continue;
            };
            match sealed.taken(block) {
                Ok(()) => {
                    block.hole_bytes = sealed.hole_bytes;
                    block.unsealed = false;
                    block.synced |= sync;
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

    /// Gives blocks another generation of which a worker was left behind: what it has is of this one. Whether there were any.
    ///
    /// # Errors
    /// Of the masters and of the workers that are left.
    async fn leave_behind(self: &Arc<Self>, state: &mut State) -> Result<bool> {
        let left = state.blocks.iter().filter(|(_, block)| block.left_behind);
        let left: Vec<u32> = left.map(|(index, _)| *index).collect();
        if left.is_empty() || is_planted(Bug::LeavesNewerBehind) {
            return Ok(false);
        }
        let call = CommitFile {
            new_generation: true,
            ..self.nothing_written()
        };
        let entry = match self.under_lease(state, call).await {
            Ok(entry) => entry,
            Err(error) => {
                if !is_passing(&error) {
                    state.fail(error.clone());
                }
                return Err(error);
            }
        };
        self.changed_to(entry.attr.content_version);
        state.generation = entry.attr.next_generation();
        state.attr = entry.attr;
        for index in left {
            if let Some(block) = state.blocks.get_mut(&index) {
                block.begins_anew();
                self.punch_block(state, index, 0..0).await?;
            }
        }
        self.settle(state, 0).await?;
        Ok(true)
    }

    /// Looks for the holders of blocks that others wrote and that nobody had when the file was opened.
    async fn find_missing_holders(&self, state: &mut State) -> Result<()> {
        let is_missing =
            |block: &Block| block.len_bytes > 0 && !block.cached && block.located.workers.is_empty();
        if !state.blocks.values().any(is_missing) {
            return Ok(());
        }
        let layout = self.layout_now().await?;
        for (index, now) in layout.placed(0) {
            if let Some(block) = state.blocks.get_mut(&index)
                && is_missing(block)
                && block.located.block.id == now.block.id
            {
                block.located.workers.clone_from(&now.workers);
            }
        }
        state.learn(layout.workers);
        Ok(())
    }

    /// Seals one block on every worker that this client wrote it to: each has all that it acknowledged. Of a block that
    /// others wrote, one replica on disk is enough, and what somebody else is writing over it may be there too.
    ///
    /// `number` is that of the seal, if something was written since the last one.
    async fn seal_block(
        &self,
        state: &State,
        block: &Block,
        number: u64,
        sync: bool,
        patience: Patience,
    ) -> BlockSeals {
        let call = SealBlock {
            block: block.located.block.id,
            generation: block.located.block.generation,
            sync,
            epoch: 0,
            or_newer: !block.begun,
            order: WriteOrder::default(),
        };
        let company = Company::new();
        let sealing = block.located.workers.iter().map(|&worker| {
            let order = match (block.begun, block.unsealed) {
                (false, _) => WriteOrder::default(),
                (true, true) => block.taken.order(worker, number, number),
                (true, false) => block.taken.again(worker),
            };
            let (call, mut workers) = (call.clone().in_order(order), state.workers.clone());
            let company = company.clone();
            async move {
                let sealed = self.deliver(worker, &mut workers, call, Bytes::new(), patience);
                let sealed = company.wait(worker, sealed).await;
                (worker, order, sealed, workers)
            }
        });
        let mut seals = BlockSeals::default();
        for (worker, order, sealed, workers) in join_all(sealing.collect::<Vec<_>>()).await {
            seals.workers.extend(workers);
            let sealed = sealed.and_then(|sealed| match block.len_bytes {
                len_bytes if sealed.len_bytes >= len_bytes => Ok(sealed),
                len_bytes => Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "block {} has {} bytes there and should have {len_bytes}",
                        call.block, sealed.len_bytes
                    ),
                )),
            });
            match sealed {
                Ok(sealed) => {
                    seals.hole_bytes = match seals.by.is_empty() {
                        true => sealed.hole_bytes,
                        false => seals.hole_bytes.min(sealed.hole_bytes),
                    };
                    seals.by.push((worker, order, sealed.life));
                }
                Err(error) => {
                    let error = error.while_doing(format_args!("sealing on worker {worker}"));
                    seals.failed.push((worker, error));
                }
            }
        }
        seals
    }
}

/// How the seals of one block have ended.
#[derive(Default)]
struct BlockSeals {
    /// How many of its bytes are in holes everywhere.
    hole_bytes: u64,
    /// Who has sealed it, under which order and in which life of its disk.
    by: Vec<(WorkerId, WriteOrder, u64)>,
    failed: Vec<(WorkerId, Error)>,
    /// Where workers are, as it was learnt on the way.
    workers: Vec<WorkerAddress>,
}

impl BlockSeals {
    /// # Errors
    /// Of a worker that was to seal it; where others wrote the block, if none has.
    fn outcome(&self, block: &Block) -> Result<()> {
        match self.failed.last() {
            Some((_, error)) if block.begun || self.by.is_empty() => Err(error.clone()),
            None if self.by.is_empty() => Err(Error::new(
                ErrorKind::BlockUnavailable,
                format!(
                    "no live worker holds block {}; see `cv report`",
                    block.located.block.id
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Takes in what workers have sealed. Those that have not are left behind, if others have.
    ///
    /// # Errors
    /// As [`BlockSeals::outcome`], of the workers that are left.
    fn taken(&mut self, block: &mut Block) -> Result<()> {
        let failed = &mut self.failed;
        self.by.retain(|(worker, order, life)| {
            let known = block.taken.acknowledged(*worker, order, *life);
            let is_known = known.is_ok();
            failed.extend(known.err().map(|error| (*worker, error)));
            is_known
        });
        if block.begun && !self.by.is_empty() {
            failed.retain(|(worker, error)| !block.goes_on_without(*worker, error));
        }
        self.outcome(block)
    }
}

/// What the masters are told of some of the blocks.
fn commits(
    blocks: &BTreeMap<u32, Block>,
    which: impl Fn(&Block) -> bool,
    len_bytes: impl Fn(&Block) -> u64,
) -> Vec<BlockCommit> {
    let chosen = blocks.iter().filter(|(_, block)| which(block));
    chosen
        .map(|(index, block)| BlockCommit {
            index: *index,
            id: block.located.block.id,
            len_bytes: len_bytes(block),
            generation: block.located.block.generation,
            workers: block.located.workers.clone(),
            hole_bytes: block.hole_bytes.min(len_bytes(block)),
        })
        .collect()
}
