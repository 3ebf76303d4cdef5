//! The namespace as openraft's state machine. Entries that are committed together are applied in one transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use curvine_protocol::codec::{decode, encode};
use curvine_protocol::{Error, ErrorKind, Result};
use heed::RoTxn;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError};
use serde::{Deserialize, Serialize};

use super::EffectSink;
use super::gather::reserve_bytes;
use super::log::RETRY_FULL;
use super::trust::{self, Trust};
use super::types::{Entry, LogId, Membership, Replies, SnapshotFile, StorageError, TypeConfig};

use crate::kit::ports::offloaded;
use crate::kit::{Clock, Offload};
use crate::master::namespace::apply::Effects;
use crate::master::namespace::store::{Store, broken};
use crate::planted::{Bug, is_planted};
use crate::room;

/// How far the state is; in the same transaction as what was applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) membership: Membership,
}

pub(super) const APPLIED: &str = "applied";
/// When the namespace was restored from a backup, if it was.
pub(super) const RESTORED: &str = "restored";
/// A copy for a backup, while it is made.
const COPY: &str = "backup.mdb";
/// How the names of snapshots begin that arrive from other masters.
const ARRIVING: &str = "received.";

#[derive(Clone)]
pub struct StateMachine {
    store: Store,
    trust: Trust,
    snapshots: PathBuf,
    effects: EffectSink,
    applier: Arc<dyn Offload>,
    copier: Arc<dyn Offload>,
    clock: Arc<dyn Clock>,
    /// Synced and marked clean: nothing may be applied any more.
    closed: Arc<AtomicBool>,
}

/// The state of a master, opened: as it was, or made again from the last snapshot where it cannot be trusted.
pub struct OpenState {
    pub store: Store,
    trust: Trust,
    snapshots: PathBuf,
}

impl OpenState {
    /// Opens `directory/state`, with snapshots in `directory/snapshots`. What the state lacks afterwards is in the log.
    pub fn open(directory: &Path) -> Result<OpenState> {
        let (state, snapshots) = (directory.join("state"), directory.join("snapshots"));
        std::fs::create_dir_all(&snapshots)
            .map_err(|e| Error::from(e).while_doing(format_args!("creating {}", snapshots.display())))?;
        // Of a process that was killed while it made one.
        let _ = std::fs::remove_file(directory.join(COPY));
        let trust = Trust::new(directory)?;
        if !trust.holds() {
            let saved = current(&snapshots)?;
            if state.exists() {
                tracing::info!(
                    snapshot = saved.as_ref().map_or("none", |saved| &saved.name),
                    "the state was not closed before the last boot or unmount; making it again from snapshot and log"
                );
            }
            let file = saved.map(|saved| snapshots.join(saved.name));
            trust::restore(&state, file.as_deref())?;
        }
        let store = Store::open(&state)?;
        trust.in_use()?;
        Ok(OpenState {
            store,
            trust,
            snapshots,
        })
    }
}

fn current(snapshots: &Path) -> Result<Option<SavedSnapshot>> {
    match std::fs::read(snapshots.join("current")) {
        Ok(bytes) => decode(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::from(error).while_doing("reading the current snapshot's mark")),
    }
}

/// Makes a synced copy the current snapshot, and removes the one before it.
pub(super) fn keep(snapshots: &Path, copy: &Path, applied: Applied) -> Result<SavedSnapshot> {
    let failed = |e: std::io::Error| Error::from(e).while_doing(format_args!("snapshot {}", copy.display()));
    let index = applied.last.map_or(0, |last| last.index);
    let name = format!("{index:020}.mdb");
    std::fs::rename(copy, snapshots.join(&name)).map_err(failed)?;
    let saved = SavedSnapshot {
        last: applied.last,
        membership: applied.membership,
        name,
    };
    let mark = snapshots.join("current.new");
    std::fs::write(&mark, encode(&saved)).map_err(failed)?;
    std::fs::File::open(&mark)
        .and_then(|mark| mark.sync_all())
        .map_err(failed)?;
    std::fs::rename(&mark, snapshots.join("current")).map_err(failed)?;
    std::fs::File::open(snapshots)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)?;
    for old in std::fs::read_dir(snapshots).map_err(failed)?.flatten() {
        let old_name = old.file_name();
        let arrives = old_name.to_string_lossy().starts_with(ARRIVING);
        if old_name != *saved.name && old_name != "current" && !arrives {
            let _ = std::fs::remove_file(old.path());
        }
    }
    Ok(saved)
}

impl StateMachine {
    pub fn new(
        state: OpenState,
        effects: EffectSink,
        applier: Arc<dyn Offload>,
        copier: Arc<dyn Offload>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let OpenState {
            store,
            trust,
            snapshots,
        } = state;
        StateMachine {
            store,
            trust,
            snapshots,
            effects,
            applier,
            copier,
            clock,
            closed: Arc::default(),
        }
    }

    /// Syncs the state and marks it clean, after everything that is being applied.
    pub async fn close(&self) -> Result<()> {
        let state = self.clone();
        offloaded(&*self.applier, move || {
            state.closed.store(true, Ordering::Release);
            state.store.env.force_sync().map_err(broken)?;
            state.trust.clean()
        })
        .await?
    }

    pub(super) fn applied(&self) -> Result<Applied> {
        let txn = self.store.read()?;
        self.applied_in(&txn)
    }

    pub(super) fn applied_in(&self, txn: &RoTxn) -> Result<Applied> {
        Ok(self.store.dbs.meta_record(txn, APPLIED)?.unwrap_or_default())
    }

    /// What fails leaves the state as it was.
    fn apply_entries(&self, entries: &[Entry]) -> Result<Vec<Replies>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Stopping, "the master's state is closed"));
        }
        let mut effects = Effects::default();
        let mut txn = self.store.write()?;
        let mut applied: Applied = self.store.dbs.meta_record(&txn, APPLIED)?.unwrap_or_default();
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            assert!(
                applied.last < Some(entry.log_id),
                "entries are applied once and in order"
            );
            applied.last = Some(entry.log_id);
            replies.push(match &entry.payload {
                EntryPayload::Blank => Replies(Vec::new()),
                EntryPayload::Membership(membership) => {
                    applied.membership = Membership::new(Some(entry.log_id), membership.clone());
                    Replies(Vec::new())
                }
                // A copy, so that a full disk can be waited out and the entries applied again.
                EntryPayload::Normal(batch) => {
                    if is_planted(Bug::ApplyTwice) {
                        let mut once = batch.0.clone();
                        once.iter_mut().for_each(|command| command.sequence = 0);
                        self.store.apply(&mut txn, once, &mut effects)?;
                    }
                    Replies(self.store.apply(&mut txn, batch.0.clone(), &mut effects)?)
                }
            });
        }
        self.store.dbs.put_meta_record(&mut txn, APPLIED, &applied)?;
        txn.commit().map_err(broken)?;
        (self.effects)(effects);
        Ok(replies)
    }

    /// Does work that writes, and does it again for as long as the disk is full: an error would end the Replica.
    async fn while_full<T: Send + 'static>(
        &self,
        what: &str,
        offload: &Arc<dyn Offload>,
        work: impl Fn(&StateMachine) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut told = false;
        loop {
            let (state, work) = (self.clone(), work.clone());
            let done = offloaded(&**offload, move || {
                work(&state).map_err(|error| room::named(error, &state.snapshots))
            });
            match done.await? {
                Err(error) if error.kind == ErrorKind::NoSpace => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "{what} cannot be written; trying again until there is space");
                    }
                    tokio::time::sleep(RETRY_FULL).await;
                }
                other => return other,
            }
        }
    }

    /// [`Self::copy`]; a failed one takes no space.
    fn copy_or_clear(&self) -> Result<SavedSnapshot> {
        self.copy().inspect_err(|_| {
            let _ = std::fs::remove_file(self.snapshots.join("new.mdb"));
        })
    }

    /// Copies the state beside it, live. Answers with what the copy contains.
    fn copy(&self) -> Result<SavedSnapshot> {
        let fresh = self.snapshots.join("new.mdb");
        let _ = std::fs::remove_file(&fresh);
        let failed =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("snapshot {}", fresh.display()));
        let file = self
            .store
            .env
            .copy_to_path(&fresh, heed::CompactionOption::Enabled)
            .map_err(broken)?;
        file.sync_all().map_err(failed)?;
        // How far it is, it says itself: the state went on while it was copied.
        let applied: Applied = {
            let copy = Store::open_copy(&fresh)?;
            let txn = copy.read()?;
            copy.dbs.meta_record(&txn, APPLIED)?.unwrap_or_default()
        };
        keep(&self.snapshots, &fresh, applied)
    }

    /// A live copy of the state that is a file without a name.
    ///
    /// # Errors
    /// `NoSpace` where it would take what the master keeps back for itself.
    pub(super) async fn copy_out(&self) -> Result<CopiedOut> {
        let state = self.clone();
        offloaded(&*self.copier, move || state.copy_aside()).await?
    }

    fn copy_aside(&self) -> Result<CopiedOut> {
        let directory = self
            .snapshots
            .parent()
            .expect("the snapshots are in the master's directory");
        let path = directory.join(COPY);
        let failed =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("copying to {}", path.display()));
        let (free, all) = room::of(directory)?;
        let takes = self.store.env.non_free_pages_size().map_err(broken)?;
        if free < takes + reserve_bytes(all) {
            return Err(Error::new(
                ErrorKind::NoSpace,
                format!(
                    "a copy of the namespace takes {takes} bytes and {} has {free} left; make room there first",
                    directory.display()
                ),
            ));
        }
        let copied = || {
            let copied = self
                .store
                .env
                .copy_to_path(&path, heed::CompactionOption::Enabled);
            let file = copied.map_err(broken)?;
            let copy = Store::open_copy(&path)?;
            let applied: Applied = copy.dbs.meta_record(&*copy.read()?, APPLIED)?.unwrap_or_default();
            Ok(CopiedOut {
                len_bytes: file.metadata().map_err(failed)?.len(),
                log_index: applied.last.map_or(0, |last| last.index),
                file,
            })
        };
        let copied = copied();
        // LMDB may have done it, where the copying failed.
        let removed = std::fs::remove_file(&path);
        let copied = copied.map_err(|error| room::named(error, directory))?;
        removed.map_err(failed)?;
        Ok(copied)
    }

    /// Where a snapshot of another master arrives.
    pub(super) fn received(&self, name: &str) -> PathBuf {
        self.snapshots.join(format!("{ARRIVING}{name}"))
    }

    /// Puts what a copy of another master's state has in the place of all that is here, in one transaction.
    fn install(&self, path: &Path) -> Result<SavedSnapshot> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Stopping, "the master's state is closed"));
        }
        std::fs::File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::from(e).while_doing(format_args!("snapshot {}", path.display())))?;
        let applied: Applied = {
            let copy = Store::open_copy(path)?;
            let from = copy.read()?;
            let mut txn = self.store.write()?;
            self.store.dbs.replace_all(&mut txn, &copy.dbs, &from)?;
            if is_planted(Bug::SnapshotLacksItsEnd)
                && let Some((name, _)) = self.store.dbs.dentries.last(&txn).map_err(broken)?
            {
                let name = name.to_vec();
                self.store.dbs.dentries.delete(&mut txn, &name).map_err(broken)?;
            }
            let applied = copy.dbs.meta_record(&from, APPLIED)?.unwrap_or_default();
            txn.commit().map_err(broken)?;
            applied
        };
        let saved = keep(&self.snapshots, path, applied)?;
        for other in std::fs::read_dir(&self.snapshots)?.flatten() {
            if other.file_name().to_string_lossy().starts_with(ARRIVING) {
                let _ = std::fs::remove_file(other.path());
            }
        }
        Ok(saved)
    }

    fn snapshot(&self, saved: SavedSnapshot) -> Snapshot<TypeConfig> {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: saved.last,
                last_membership: saved.membership,
                snapshot_id: saved.name.clone(),
            },
            snapshot: Box::new(SnapshotFile {
                path: self.snapshots.join(&saved.name),
            }),
        }
    }
}

/// A copy of the state for a backup.
pub(super) struct CopiedOut {
    pub(super) file: std::fs::File,
    pub(super) log_index: u64,
    pub(super) len_bytes: u64,
}

/// Which file is the current snapshot and what it contains.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedSnapshot {
    pub(super) last: Option<LogId>,
    pub(super) membership: Membership,
    pub(super) name: String,
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let copied = self.while_full("a snapshot", &self.copier, StateMachine::copy_or_clear);
        let saved = copied
            .await
            .map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        Ok(self.snapshot(saved))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self
            .applied()
            .map_err(|e| StorageIOError::read_state_machine(&e))?;
        Ok((applied.last, applied.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Arc<[Entry]> = entries.into_iter().collect();
        let applied = self.while_full("the state", &self.applier, move |state| {
            state.apply_entries(&entries)
        });
        Ok(applied
            .await
            .map_err(|e| StorageIOError::write_state_machine(&e))?)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        Ok(Box::new(SnapshotFile {
            path: self.snapshots.join("received.mdb"),
        }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        let begun = self.clock.now();
        let path = snapshot.path;
        let installed = self.while_full("a snapshot", &self.applier, move |state| state.install(&path));
        let saved = installed
            .await
            .map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &e))?;
        tracing::info!(
            snapshot = saved.name,
            ms = self.clock.now().duration_since(begun).as_millis(),
            "installed a snapshot"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let saved = current(&self.snapshots).map_err(|e| StorageIOError::read_snapshot(None, &e))?;
        Ok(saved.map(|saved| self.snapshot(saved)))
    }
}
