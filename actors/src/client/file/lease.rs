//! The write lease of a file: who has it may change the file, and nobody else.

use std::sync::atomic::Ordering;

use curvine_protocol::master::{BlockCommit, CommitFile, OpenForWrite};
use curvine_protocol::{Error, ErrorKind, FileLayout, Mutation, Node, Result};

use super::Shared;
use super::commit::commits;
use super::state::{Block, State};
use crate::kit::{Endpoint, MasterPort};
use crate::planted::{Bug, is_planted};

impl Shared {
    /// Gets the lease, and the layout as the masters have it.
    pub(super) async fn reopen(&self, state: &mut State) -> Result<()> {
        let layout = self.open_for_write().await?;
        self.adopt(state, layout, true);
        Ok(())
    }

    /// Makes a change that needs the lease. Where the lease has gone, gets it again if nobody else has written since: then
    /// the version is what it was, or one more for the end of the lease.
    pub(super) async fn under_lease<C: Mutation>(&self, state: &mut State, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        match self.router.change(call.clone()).await {
            Err(error) if error.kind == ErrorKind::Stale && !state.lease_lost => {
                match self.open_for_write().await {
                    Ok(layout) if layout.attr.content_version <= state.attr.content_version + 1 => {
                        state.regained(&layout.attr);
                        self.router.change(call).await
                    }
                    _ => {
                        state.lease_lost = true;
                        Err(error)
                    }
                }
            }
            reply => reply,
        }
    }

    /// The masters gave the lease, which was thought to be held, for another content than the one that is known here:
    /// it was lost meanwhile, and somebody else wrote.
    pub(super) fn overtaken(&self, state: &mut State, layout: FileLayout) {
        if state.is_dirty() {
            state.lease_lost = true;
            state.fail(Error::new(
                ErrorKind::Stale,
                format!(
                    "inode {}: the lease was lost and another client wrote; what was not flushed here is lost",
                    self.inode
                ),
            ));
        } else {
            self.adopt(state, layout, true);
        }
    }

    /// Gives the lease back without committing: the file is what its last commit made it.
    pub(super) async fn abandon(&self, state: &mut State) {
        state.sending.shutdown().await;
        let lease_lost = state.lease_lost;
        let size_bytes = state.attr.size_bytes;
        let kept = size_bytes.div_ceil(state.block_bytes()) as usize;
        state.blocks.truncate(kept);
        let begun = state.blocks.iter().any(|block| block.begun);
        let blocks = match is_planted(Bug::CommitsWhatNobodyHas) {
            true => commits(
                &state.blocks,
                |block| block.begun,
                |block| block.located.block.len_bytes,
            ),
            false => Vec::new(),
        };
        if lease_lost {
            // Whoever wrote meanwhile: the size is theirs.
            if let Ok(layout) = self.open_for_write().await {
                self.give_back(layout.attr.size_bytes, Vec::new(), false).await;
            }
        } else if state.writable {
            self.give_back(size_bytes, blocks, begun).await;
        }
        self.size_bytes.store(size_bytes, Ordering::Release);
        self.written_ns.store(0, Ordering::Release);
        let writers = state.writers;
        let layout = FileLayout {
            attr: state.attr.clone(),
            blocks: state.blocks.drain(..).map(Block::into_committed).collect(),
            workers: std::mem::take(&mut state.workers),
            source: None,
        };
        let (in_mount, fillable) = (state.in_mount, state.fillable);
        *state = State::new(layout, false);
        (state.in_mount, state.fillable, state.writers) = (in_mount, fillable, writers);
    }

    /// Gives the lease back with what is committed; nobody hears of it if that fails. Workers may have more than that.
    async fn give_back(&self, size_bytes: u64, blocks: Vec<BlockCommit>, abandoned: bool) {
        let call = CommitFile {
            inode: self.inode,
            size_bytes,
            blocks,
            mtime_ns: None,
            close: true,
            abandoned,
        };
        if let Err(error) = self.router.change(call).await {
            tracing::debug!(%error, "the lease on inode {} was not given back; it ends with the session", self.inode);
        }
    }

    async fn open_for_write(&self) -> Result<FileLayout> {
        let call = OpenForWrite {
            node: Node::Inode(self.inode),
            follow: false,
            truncate: false,
        };
        self.router.change(call).await
    }
}
