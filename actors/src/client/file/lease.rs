//! The write lease of a file: who has it may change the file, and nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use curvine_protocol::master::{AllocateBlocks, CommitFile, ReleaseLease};
use curvine_protocol::{Attr, Error, ErrorKind, FileLayout, Mutation, Result};

use super::state::State;
use super::table::again_for_write;
use super::{Shared, held_bytes};
use crate::client::route::is_passing;
use crate::kit::{Endpoint, MasterPort};
use crate::planted::{Bug, is_planted};

impl Shared {
    /// Gets the lease, and the layout as the masters have it.
    pub(super) async fn reopen(&self, state: &mut State) -> Result<()> {
        state.unanswered = None;
        let layout = self.open_for_write().await?;
        self.adopt(state, layout, true);
        if let Some(files) = self.files.upgrade() {
            files.got_lease();
        }
        Ok(())
    }

    pub(super) fn may_be_leased(&self) -> bool {
        self.state.try_lock().map_or(true, |state| state.writable)
    }

    /// Another client wants the file: what is written here is flushed, and the lease given back. The next write gets it
    /// again. A write under way comes first.
    ///
    /// # Errors
    /// Of the flush. If it may pass, the lease stays here, and is asked for again; else the file is failed, or let go.
    pub(in crate::client) async fn recall(self: &Arc<Self>) -> Result<()> {
        let mut state = self.lock().await;
        if !state.writable {
            let files = self.files.upgrade();
            let _giving = files
                .as_ref()
                .map(|files| files.gives_back_unknown(self.inode, self.router.opens()));
            let release = ReleaseLease { inode: self.inode };
            return self.router.change(release).await.map(|_| ());
        }
        if !state.is_dirty() {
            state.unanswered = None;
            // It may have been given on already: that would be no error of anybody.
            let release = ReleaseLease { inode: self.inode };
            self.router.change(release).await?;
            self.answers_are_of_before(state.attr.content_version);
            state.writable = false;
            self.leased.store(false, Ordering::Release);
            return Ok(());
        }
        let outcome = self.commit(&mut state, false, true).await;
        if let Err(error) = &outcome
            && !is_passing(error)
            && state.writable
        {
            self.abandon(&mut state).await;
            // Whoever wrote here must hear of it.
            state.fail(error.clone());
        }
        outcome
    }

    /// The masters have not heard of this client for so long that they may have given the lease on. If so, and nothing is to
    /// be lost, it is as if it had been given back; what was not flushed hears of it with its flush.
    ///
    /// # Errors
    /// Of the masters; then nobody knows.
    pub(in crate::client) async fn check_lease(&self) -> Result<()> {
        let mut state = self.lock().await;
        self.check_lease_of(&mut state).await
    }

    /// As [`Shared::check_lease`], if the masters did not hear of this client for long since the last time.
    pub(super) async fn check_lease_of(&self, state: &mut State) -> Result<()> {
        let lapses = self.router.lapses();
        if !state.writable || state.is_dirty() || state.lapses == lapses {
            return Ok(());
        }
        match self.has_lease().await {
            Ok(()) => {
                state.lapses = lapses;
                Ok(())
            }
            Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::SessionEnded) => {
                match self.reload(state).await {
                    // Gone; whoever has it open will see.
                    Err(error) if error.kind == ErrorKind::Stale => Ok(()),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    /// The masters name a newer content than is known under the lease: it has gone, perhaps, and others have written. Then the
    /// file is read as they made it, and what was not flushed is lost to who wrote it.
    ///
    /// # Errors
    /// Of the masters, when they are asked for the newer content.
    pub(super) async fn doubt_lease(&self, state: &mut State, now: &Attr) -> Result<()> {
        if state.unanswered.is_some() || state.is_dirty() && !state.is_overtaken(now) {
            return Ok(());
        }
        match self.has_lease().await {
            Err(error) if matches!(error.kind, ErrorKind::Stale | ErrorKind::SessionEnded) => {
                if state.is_dirty() {
                    state.lease_lost = Some(error);
                    self.let_go_if_lost(state).await;
                }
                self.reload(state).await
            }
            _ => Ok(()),
        }
    }

    /// # Errors
    /// `Stale` or `SessionEnded` if the masters say that this client has not the lease.
    pub(super) async fn has_lease(&self) -> Result<()> {
        self.router.change(self.nothing()).await.map(|_| ())
    }

    /// A change that changes nothing, and needs the lease.
    pub(super) fn nothing(&self) -> AllocateBlocks {
        AllocateBlocks {
            inode: self.inode,
            from_index: u32::MAX,
            until_index: 0,
        }
    }

    /// Makes a change that needs the lease. Where the lease has gone, gets it again if nobody else has written since; else it
    /// is lost, and [`Shared::let_go_if_lost`] must follow.
    pub(super) async fn under_lease<C: Mutation>(&self, state: &mut State, call: C) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        self.ask_again(state).await?;
        let first = self.router.change(call.clone()).await;
        self.lease_again(state, call, first).await
    }

    /// As [`Shared::under_lease`], of a change that was answered this.
    pub(super) async fn lease_again<C: Mutation>(
        &self,
        state: &mut State,
        call: C,
        first: Result<C::Reply>,
    ) -> Result<C::Reply>
    where
        dyn MasterPort: Endpoint<C>,
    {
        match first {
            Err(error)
                if matches!(error.kind, ErrorKind::Stale | ErrorKind::SessionEnded)
                    && state.lease_lost.is_none() =>
            {
                match self.open_for_write().await {
                    Ok(layout) if !state.is_overtaken(&layout.attr) => {
                        state.regained(&layout.attr);
                        self.router.change(call).await
                    }
                    _ => {
                        state.lease_lost = Some(error.clone());
                        Err(error)
                    }
                }
            }
            reply => reply,
        }
    }

    /// The session that got the lease has ended, and with it the lease. Without anything to lose, it is as if nobody had
    /// written here for a while; else whoever wrote hears of the loss.
    pub(super) async fn lease_ended(&self, state: &mut State) {
        if state.is_dirty() {
            state.lease_lost = Some(Error::new(
                ErrorKind::SessionEnded,
                format!(
                    "inode {}: the masters did not hear of this client for too long and ended its session; what was not \
                     flushed is lost",
                    self.inode
                ),
            ));
            self.let_go_if_lost(state).await;
        }
        state.writable = false;
        self.leased.store(false, Ordering::Release);
    }

    /// The masters gave the lease, which was thought to be held, for a newer content than the one that is known here: it
    /// was lost meanwhile. What was not flushed is lost with it, if somebody else wrote.
    pub(super) fn overtaken(&self, state: &mut State, layout: FileLayout) {
        if state.is_dirty() {
            if !state.is_overtaken(&layout.attr) {
                return state.regained(&layout.attr);
            }
            state.writers.lost(&Error::new(
                ErrorKind::Stale,
                format!(
                    "inode {}: the lease was lost and another client wrote; what was not flushed here is lost",
                    self.inode
                ),
            ));
            state.unfail();
        }
        self.adopt(state, layout, true);
    }

    /// The lease is taken away by this client's own word: what was flushed stays, and whoever writes is told.
    pub(in crate::client) async fn revoked(&self) {
        let mut state = self.lock().await;
        if state.writers.is_empty() && !state.writable {
            return;
        }
        let error = Error::new(
            ErrorKind::Stale,
            format!(
                "inode {}: its lease was revoked; what was not flushed is lost. Open the file again to write it",
                self.inode
            ),
        );
        state.writers.revoked(&error);
        state.outdated = true;
        self.abandon(&mut state).await;
        self.look_before_reading(&state);
    }

    /// Lets go of a file whose lease was found to be lost: who wrote what was not flushed hears of it until it closes the
    /// file; everybody else reads what the masters have, and writes under another lease. Whether it was lost.
    pub(super) async fn let_go_if_lost(&self, state: &mut State) -> bool {
        let Some(error) = state.lease_lost.clone() else {
            return false;
        };
        state.writers.lost(&error);
        state.outdated = true;
        self.abandon(state).await;
        self.look_before_reading(state);
        true
    }

    /// Gives the lease back without committing: the file is what its last commit made it.
    pub(super) async fn abandon(&self, state: &mut State) {
        state.sending.shutdown().await;
        // From here on it is not made any more.
        state.unanswered = None;
        let size_bytes = state.attr.size_bytes;
        self.size_bytes.store(size_bytes, Ordering::Release);
        state.drop_behind(size_bytes);
        let begun = state.blocks.values().any(|block| block.begun);
        if state.lease_lost.is_some() {
            // Looking who wrote meanwhile may have got it again. Nothing was written under that one.
            let released = self.router.change(ReleaseLease { inode: self.inode }).await;
            self.note_if_kept(released.err());
            self.answers_are_of_before(u64::MAX);
        } else if state.writable {
            self.give_back(begun).await;
        }
        self.written_ns.store(0, Ordering::Release);
        self.lineage.fetch_add(1, Ordering::AcqRel);
        self.held_bytes.store(held_bytes(&state.attr), Ordering::Release);
        let (indexes, blocks) = std::mem::take(&mut state.blocks)
            .into_iter()
            .map(|(index, block)| (index, block.into_committed()))
            .unzip();
        let layout = FileLayout {
            attr: state.attr.clone(),
            blocks,
            workers: std::mem::take(&mut state.workers),
            source: state.source.take(),
            indexes,
            damaged: Vec::new(),
            tier: state.tier,
        };
        let mut next = State::new(layout, false);
        next.outdated = state.outdated;
        next.writers = std::mem::take(&mut state.writers);
        *state = next;
        self.leased.store(false, Ordering::Release);
    }

    /// Gives the lease back, with what is committed already; nobody hears of it if that fails. Workers may have more than that. How
    /// long the file is, the masters know better: they may have made a change whose answer was lost.
    async fn give_back(&self, abandoned: bool) {
        let call = CommitFile {
            close: true,
            abandoned,
            keep_size: !is_planted(Bug::GivesBackTheOldSize),
            ..self.nothing_written()
        };
        let known = match self.router.change(call).await {
            Ok(entry) => entry.attr.content_version,
            Err(error) => {
                self.note_if_kept(Some(error));
                u64::MAX
            }
        };
        self.answers_are_of_before(known);
    }

    fn note_if_kept(&self, error: Option<Error>) {
        if let Some(error) = error {
            tracing::debug!(%error, "the lease on inode {} was not given back; it ends with the session", self.inode);
        }
    }

    async fn open_for_write(&self) -> Result<FileLayout> {
        let call = again_for_write(self.inode);
        match self.files.upgrade() {
            Some(files) => files.get_lease(&self.router, call).await,
            None => self.router.change(call).await,
        }
    }
}
