//! Frees and deletes files whose time to live is over.
//!
//! The state has an entry for each file by the time when it is to be looked at, so that only those are looked at that are
//! due, however many there are (see [`namespace::expiry`](crate::master::namespace::expiry)). Whether a file is due is decided
//! where it is deleted, by its record at that moment: who wrote to it since keeps it.
//!
//! Invariants:
//! - A file that somebody has open, or writes, is not deleted and not freed; nor is one, by access, that was opened or closed
//!   since it was looked at. While a new leader does not know yet who has files open, nothing is deleted.
//! - When the wall clock steps forward, nothing is due for [`PAUSE`]: it may be wrong, and what is deleted does not come back.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::{TtlAction, Unlink};
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{Op, OpReply, Walked};
use curvine_protocol::{Error, ErrorKind, InodeId, MountId, Node, Result};
use futures::StreamExt;
use futures::stream;
use tokio::time::Instant;

use super::Duty;
use crate::kit::ports::offloaded;
use crate::kit::{Clock, Offload, metrics};
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::freeing::Freeing;
use crate::master::namespace::expiry::Due;
use crate::master::namespace::opens::Opens;
use crate::planted::{Bug, is_planted};

/// How often it is looked for files that are due.
const EVERY: Duration = Duration::from_secs(1);
/// Files that are looked at together: those of one directory cost one look through it.
const AT_ONCE: usize = 20_000;
/// So many times in a row, so that the rest of the duty has its turn.
const ROUNDS: usize = 10;
/// Files that one command names.
const NAMED: usize = 1_000;
/// Files that are deleted side by side: the log takes what comes at a time.
const SIDE_BY_SIDE: usize = 64;
/// What is open is looked at again after this.
const OPEN_MS: u64 = 5_000;
/// What an under file system was asked to delete and is still there is looked at again after this.
const BEGUN_MS: u64 = 30_000;
/// What could not be deleted is tried again after this.
const FAILED_MS: u64 = 60_000;
/// A file with no name where its record says that it is, because of hard links, is looked at again after a day.
const ELSEWHERE_MS: u64 = 86_400_000;
/// Trees of which it is known at a time that they are to be looked through.
const WALKS: usize = 16;
/// An access is noted if the last one that was is older than this part of the time to live.
const ACCESS_SHARE: u64 = 20;
/// The wall clock has stepped if it went on by so much more than time did.
const STEP: Duration = Duration::from_secs(60);
/// For so long after that, nothing is due.
const PAUSE: Duration = Duration::from_secs(600);

pub struct Expiry {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    opens: Arc<Opens>,
    freeing: Freeing,
    clock: Arc<dyn Clock>,
    thread: Arc<dyn Offload>,
    told: Mutex<Told>,
}

/// What this leader has done, for people, and what it has seen of the clock.
#[derive(Default)]
struct Told {
    deleted: u64,
    freed: u64,
    failure: Option<String>,
    /// Files that under file systems were asked to delete.
    begun: HashSet<InodeId>,
    steps: Steps,
}

/// Whether the wall clock can be believed.
#[derive(Default)]
struct Steps {
    last: Option<(Instant, i64)>,
    until: Option<Instant>,
}

impl Steps {
    /// Looks at both clocks. Whether what is due may be taken for that.
    fn look(&mut self, now: Instant, wall_ns: i64) -> bool {
        if let Some((then, then_ns)) = self.last.replace((now, wall_ns)) {
            let passed_ns = i128::try_from(now.duration_since(then).as_nanos()).unwrap_or(i128::MAX);
            let stepped_ns = i128::from(wall_ns) - i128::from(then_ns) - passed_ns;
            let step_ns = i128::try_from(STEP.as_nanos()).unwrap_or(i128::MAX);
            if stepped_ns >= step_ns {
                self.until = Some(now + PAUSE);
            } else if stepped_ns <= -step_ns {
                // It was put back.
                self.until = None;
            }
        }
        self.until.is_none_or(|until| now >= until)
    }
}

/// What became of a file that was due.
enum Fate {
    Gone,
    /// Its under file system deletes it first, or says why not.
    Begun,
    /// Somebody has it open.
    Waits,
    /// It is looked at anew.
    Changed,
    /// It has no name where its record says that it is.
    Elsewhere,
    Failed(Error),
}

impl Expiry {
    pub fn new(
        view: Arc<dyn NamespaceView>,
        propose: Arc<dyn ProposeOp>,
        opens: Arc<Opens>,
        freeing: Freeing,
        clock: Arc<dyn Clock>,
        thread: Arc<dyn Offload>,
    ) -> Self {
        Expiry {
            view,
            propose,
            opens,
            freeing,
            clock,
            thread,
            told: Mutex::default(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while it holds this")
    }

    fn is_open(&self, inode: InodeId) -> bool {
        self.opens.is_open(inode) && !is_planted(Bug::ExpiresWhatIsOpen)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.wall_ns() / 1_000_000).unwrap_or(0)
    }

    /// Runs what may take long elsewhere than on the thread that serves all.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn NamespaceView) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let view = self.view.clone();
        offloaded(&*self.thread, move || work(&*view)).await?
    }

    /// Records when files were accessed that go by that.
    async fn note_accesses(&self) -> Result<()> {
        let wall_ns = self.clock.wall_ns();
        let mut files = Vec::new();
        for inode in self.opens.take_accessed() {
            if let Some((ttl, known_ns)) = self.view.access_rule(inode)? {
                let share_ns = i64::try_from(ttl.after_ms / ACCESS_SHARE * 1_000_000).unwrap_or(i64::MAX);
                if wall_ns.saturating_sub(known_ns) >= share_ns {
                    files.push((inode, wall_ns));
                }
            }
        }
        for files in files.chunks(NAMED) {
            let files = files.to_vec();
            self.propose.propose_op(Op::Accessed { files }).await?;
        }
        Ok(())
    }

    /// Looks up when the files of trees are due that have come below a rule.
    async fn look_through_trees(&self) -> Result<()> {
        for (top, round) in self.view.ttl_walks(WALKS)? {
            let files = self.aside(move |view| view.files_below(top)).await?;
            self.look_at(&files, 0).await?;
            let walked = Some(Walked { top, round });
            let op = Op::SetExpiry {
                inodes: Vec::new(),
                not_before_ms: 0,
                walked,
            };
            self.propose.propose_op(op).await?;
        }
        Ok(())
    }

    fn deleted(&self, files: u64) {
        metrics::EXPIRED_DELETED.add(files);
        self.told().deleted += files;
    }

    /// Counts what under file systems have deleted, and says what they have not.
    fn look_for_begun(&self) {
        let mut told = self.told();
        let before = told.begun.len();
        told.begun.retain(|inode| self.view.attr(*inode).is_ok());
        let gone = (before - told.begun.len()) as u64;
        drop(told);
        self.deleted(gone);
    }

    /// For people.
    fn called(&self, inode: InodeId) -> String {
        let path = self.view.path(inode);
        path.map_or_else(|_| format!("inode {inode}"), |path| path.to_string())
    }

    /// Has files be looked at when they are due, but not before a time.
    async fn look_at(&self, files: &[InodeId], not_before_ms: u64) -> Result<()> {
        for inodes in files.chunks(NAMED) {
            let op = Op::SetExpiry {
                inodes: inodes.to_vec(),
                not_before_ms,
                walked: None,
            };
            self.propose.propose_op(op).await?;
        }
        Ok(())
    }

    /// Does what is to be done with files whose entries have come.
    async fn carry_out(&self, due: Vec<Due>) -> Result<()> {
        let (mut anew, mut waits) = (Vec::new(), Vec::new());
        let mut free: BTreeMap<u64, Vec<InodeId>> = BTreeMap::new();
        let mut delete: BTreeMap<InodeId, Vec<Due>> = BTreeMap::new();
        let mut again = HashSet::new();
        {
            let mut told = self.told();
            again.extend(
                due.iter()
                    .map(|one| one.inode)
                    .filter(|inode| told.begun.remove(inode)),
            );
        }
        for one in due {
            match one.rule {
                Some(rule) if one.is_over && !one.has_writer && !self.is_open(one.inode) => {
                    match rule.action {
                        TtlAction::Free => free.entry(rule.after_ms).or_default().push(one.inode),
                        TtlAction::Delete => delete.entry(one.parent).or_default().push(one),
                    }
                }
                Some(_) if one.is_over => waits.push(one.inode),
                _ => anew.push(one.inode),
            }
        }
        self.look_at(&anew, 0).await?;
        self.look_at(&waits, self.now_ms() + OPEN_MS).await?;
        for (after_ms, files) in free {
            for files in files.chunks(NAMED) {
                let freed = self.freeing.free(files).await?;
                metrics::EXPIRED_FREED.add(freed);
                self.told().freed += freed;
                self.look_at(files, self.now_ms() + after_ms).await?;
            }
        }
        for (directory, files) in delete {
            self.delete(directory, files, &again).await?;
        }
        Ok(())
    }

    /// Deletes files of one directory. Of those that are meant `again`, under file systems were asked before.
    async fn delete(&self, directory: InodeId, files: Vec<Due>, again: &HashSet<InodeId>) -> Result<()> {
        let wanted: HashSet<InodeId> = files.iter().map(|due| due.inode).collect();
        let names = self.aside(move |view| view.names_in(directory, &wanted)).await?;
        // All that is in a directory is in one mount, or in none.
        let mount = files.first().map_or(MountId(0), |due| due.mount);
        let is_writable = |mount: MountRecord| mount.settings.writable;
        let is_refused = mount != MountId(0) && !self.view.mount(mount)?.is_some_and(is_writable);
        let named = files.into_iter().map(|due| {
            let names = names.get(&due.inode).cloned().unwrap_or_default();
            async move {
                let fate = match is_refused {
                    true => Fate::Failed(Error::new(
                        ErrorKind::ReadOnly,
                        "files of a read-only mount are not deleted",
                    )),
                    false => self.delete_one(&due, names).await,
                };
                (due, fate)
            }
        });
        let mut fates = stream::iter(named).buffer_unordered(SIDE_BY_SIDE);
        let (mut anew, mut waits, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut elsewhere = Vec::new();
        let (mut begun, mut failure) = (Vec::new(), None);
        while let Some((due, fate)) = fates.next().await {
            match fate {
                Fate::Gone => self.deleted(1),
                Fate::Begun => {
                    begun.push(due.inode);
                    if again.contains(&due.inode) {
                        let path = self.called(due.inode);
                        failure = Some(format!(
                            "{path}: its under file system has not deleted it; trying again"
                        ));
                    }
                }
                Fate::Waits => waits.push(due.inode),
                Fate::Changed => anew.push(due.inode),
                Fate::Elsewhere => elsewhere.push(due.inode),
                Fate::Failed(error) => {
                    tracing::debug!(inode = %due.inode, %error, "its time to live is over, and it is not deleted");
                    failure = Some(format!("{}: {error}", self.called(due.inode)));
                    failed.push(due.inode);
                }
            }
        }
        drop(fates);
        if let Some(failure) = failure {
            let directory = self.called(directory);
            tracing::warn!(
                directory,
                failure,
                "files whose time to live is over are not deleted"
            );
            self.told().failure = Some(failure);
        }
        self.look_at(&anew, 0).await?;
        let now_ms = self.now_ms();
        self.look_at(&waits, now_ms + OPEN_MS).await?;
        // Those that are gone by then are not looked at.
        self.told().begun.extend(&begun);
        self.look_at(&begun, now_ms + BEGUN_MS).await?;
        self.look_at(&elsewhere, now_ms + ELSEWHERE_MS).await?;
        self.look_at(&failed, now_ms + FAILED_MS).await
    }

    async fn delete_one(&self, due: &Due, names: Vec<String>) -> Fate {
        // From here on, nobody opens it.
        let (_removal, holders, unsure) = self.opens.remove(due.inode, self.clock.now());
        let is_open = !holders.is_empty() || unsure || self.opens.is_accessed(due.inode);
        if is_open && !is_planted(Bug::ExpiresWhatIsOpen) {
            return Fate::Waits;
        }
        if names.is_empty() {
            // It had hard links, and is elsewhere.
            return Fate::Elsewhere;
        }
        for name in names {
            let unlink = Unlink {
                node: Node::child(due.parent, name),
                keep_open: false,
                closed: Vec::new(),
                holders: None,
            };
            let expire = Op::Expire {
                inode: due.inode,
                unlink,
            };
            match self.propose.propose_op(Op::Note(Box::new(expire))).await {
                Ok(OpReply::Noted(_)) => return Fate::Begun,
                Ok(_) => {}
                Err(error) => {
                    return match error.kind {
                        ErrorKind::Stale | ErrorKind::NotFound => Fate::Changed,
                        ErrorKind::Busy | ErrorKind::UnderWay => Fate::Waits,
                        _ => Fate::Failed(error),
                    };
                }
            }
        }
        Fate::Gone
    }
}

#[async_trait]
impl Duty for Expiry {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        *self.told() = Told::default();
        Ok(())
    }

    async fn due(&self) {
        tokio::time::sleep(EVERY).await;
    }

    async fn tick(&self) -> Result<()> {
        let may_go = self.told().steps.look(self.clock.now(), self.clock.wall_ns());
        let (any, by_access) = self.view.ttl_kinds()?;
        self.opens.note_accesses(by_access);
        if !any {
            return Ok(());
        }
        if by_access {
            self.note_accesses().await?;
        }
        self.look_through_trees().await?;
        self.look_for_begun();
        if !may_go {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let now_ms = self.now_ms();
            let due = self.aside(move |view| view.due(now_ms, AT_ONCE)).await?;
            if due.is_empty() {
                break;
            }
            self.carry_out(due).await?;
        }
        Ok(())
    }

    fn end(&self) {
        self.opens.note_accesses(false);
    }

    fn status(&self) -> String {
        let told = self.told();
        let mut said = format!("{} deleted and {} freed by this leader", told.deleted, told.freed);
        match self.view.ttl_walks(WALKS) {
            Ok(trees) if trees.is_empty() => {}
            Ok(trees) => said.push_str(&format!(
                "; looking through {} trees that have got a time to live",
                trees.len()
            )),
            Err(error) => return error.message,
        }
        if told.steps.until.is_some_and(|until| self.clock.now() < until) {
            said.push_str(
                "; THE CLOCK OF THIS MACHINE HAS STEPPED FORWARD: nothing is due until it is put back, or for 10 minutes",
            );
        }
        if !told.begun.is_empty() {
            said.push_str(&format!(
                "; {} are being deleted by their under file systems",
                told.begun.len()
            ));
        }
        if let Some(failure) = &told.failure {
            said.push_str(&format!("; last not deleted: {failure}"));
        }
        said
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do to count from")]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_steps_forward_is_not_believed_for_a_while_unless_it_is_put_back() {
        let (mut steps, now) = (Steps::default(), Instant::now());
        let ns = |seconds: i64| seconds * 1_000_000_000;
        assert!(steps.look(now, ns(1_000)));
        assert!(
            steps.look(now + Duration::from_secs(500), ns(1_500)),
            "time went on"
        );
        assert!(steps.look(now + Duration::from_secs(501), ns(1_540)), "a little");
        assert!(!steps.look(now + Duration::from_secs(502), ns(90_000)));
        assert!(!steps.look(now + Duration::from_secs(503), ns(90_001)));
        assert!(steps.look(now + Duration::from_secs(504), ns(1_543)), "put back");
        assert!(!steps.look(now + Duration::from_secs(505), ns(90_003)));
        let later = Duration::from_secs(505) + PAUSE;
        assert!(steps.look(now + later, ns(90_003) + 600 * ns(1)));
    }
}
