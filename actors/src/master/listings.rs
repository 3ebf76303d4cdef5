//! What is asked of under file systems about names and directories: each question once, whoever waits for its answer.
//!
//! A question is a task of its own. Whoever comes while it is under way waits for the same answer, and whoever gives up does
//! not end it for the others; it ends when nobody has waited for a while. The answer is compared with the namespace as it
//! was when the question began: what has changed since, the answer does not know, and it is left alone (`AgreeDir`).
//! What is remembered is soft, bounded, and ends with its mount.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::mount::{HiddenKeys, MountRecord};
use curvine_protocol::op::{AgreeDir, AgreeName, KnownName, Op, UfsObject};
use curvine_protocol::{DirEntry, Error, ErrorKind, FileKind, InodeId, MountId, Node, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::kit::Clock;
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::ufs::names::HiddenNames;
use crate::ufs::{Ufs, joined};

/// Names in one command.
const NAMES_PER_COMMAND: usize = 1_000;
/// Entries of a directory that are read at once.
const PAGE: usize = 10_000;
/// Objects that are asked at the same time what they keep of attributes.
const ASKED_AT_ONCE: usize = 64;
/// Remembered answers of a mount; when there are more, all are forgotten and asked again.
const ANSWERS_MAX: usize = 1 << 20;
/// How long a question goes on for which nobody waits: a caller whose own deadline has passed comes again.
const LINGER: Duration = Duration::from_secs(60);
/// How long a look at one name waits for a listing that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// A whole directory (no name), or one name in it.
type Question = (InodeId, Option<String>);

/// A directory of a mount.
#[derive(Clone)]
pub struct Place {
    pub mount: MountRecord,
    pub ufs: Ufs,
    pub key: String,
    pub directory: InodeId,
}

impl Place {
    fn staleness(&self) -> Duration {
        Duration::from_millis(self.mount.settings.staleness_ms)
    }
}

/// Questions to under file systems. Cheap to clone.
#[derive(Clone)]
pub struct Listings {
    parts: Arc<Parts>,
}

struct Parts {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<MountId, Arc<Kept>>>,
}

/// What is kept for a mount.
#[derive(Default)]
struct Kept {
    answers: Mutex<HashMap<Question, Answered>>,
    asking: Mutex<HashMap<Question, Asking>>,
    /// What directories do not show, of those that have such.
    hidden: Mutex<HashMap<InodeId, HiddenNames>>,
}

/// When a question was asked and when the answer was there, which says how things were in between.
#[derive(Clone, Copy, Debug)]
struct Answered {
    asked: Instant,
    at: Instant,
}

impl Answered {
    /// Whether the answer will do for somebody who came at `came`, of a mount with this staleness.
    fn serves(&self, came: Instant, now: Instant, staleness: Duration) -> bool {
        self.asked >= came || now.saturating_duration_since(self.at) < staleness
    }
}

/// A question that is under way.
type Asking = Arc<watch::Sender<Option<Result<Answered>>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

impl Kept {
    fn answered(&self, question: &Question) -> Option<Answered> {
        locked(&self.answers).get(question).copied()
    }

    fn note(&self, question: Question, answered: Answered) {
        let mut answers = locked(&self.answers);
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(question, answered);
    }

    fn under_way(&self, question: &Question) -> Option<Asking> {
        locked(&self.asking).get(question).cloned()
    }
}

impl Listings {
    pub fn new(view: Arc<dyn NamespaceView>, propose: Arc<dyn ProposeOp>, clock: Arc<dyn Clock>) -> Self {
        Listings {
            parts: Arc::new(Parts {
                view,
                propose,
                clock,
                kept: Mutex::default(),
            }),
        }
    }

    /// What is kept for a mount. What was kept for mounts that are no more goes.
    fn kept(&self, mount: MountId) -> Result<Arc<Kept>> {
        if let Some(kept) = locked(&self.parts.kept).get(&mount) {
            return Ok(kept.clone());
        }
        let mounts = self.parts.view.mounts()?;
        let mut kept = locked(&self.parts.kept);
        kept.retain(|id, _| mounts.iter().any(|mount| mount.id == *id));
        Ok(kept.entry(mount).or_default().clone())
    }

    /// Makes a directory fresh: one listing, however many ask for it.
    pub async fn fresh_dir(&self, place: &Place) -> Result<()> {
        let kept = self.kept(place.mount.id)?;
        let question = (place.directory, None);
        let came = self.parts.clock.now();
        self.answer(&kept, &question, place, came, || {
            let (parts, kept, place) = (self.parts.clone(), kept.clone(), place.clone());
            async move { parts.list(&kept, &place).await }
        })
        .await
    }

    /// Makes one name of a directory fresh. A listing of the directory will do.
    pub async fn fresh_child(&self, place: &Place, name: &str) -> Result<()> {
        let kept = self.kept(place.mount.id)?;
        let came = self.parts.clock.now();
        let whole = (place.directory, None);
        let serves = || {
            let now = self.parts.clock.now();
            kept.answered(&whole)
                .is_some_and(|answered| answered.serves(came, now, place.staleness()))
        };
        if serves() {
            return Ok(());
        }
        if let Some(listing) = kept.under_way(&whole).filter(|_| !place.staleness().is_zero()) {
            let mut listing = listing.subscribe();
            let _ = timeout(PATIENCE, listing.wait_for(Option::is_some)).await;
            if serves() {
                return Ok(());
            }
        }
        self.ask_child(&kept, place, name, came).await
    }

    async fn ask_child(&self, kept: &Arc<Kept>, place: &Place, name: &str, came: Instant) -> Result<()> {
        let question = (place.directory, Some(name.to_owned()));
        self.answer(kept, &question, place, came, || {
            let (parts, place, name) = (self.parts.clone(), place.clone(), name.to_owned());
            async move { parts.look(&place, &name).await }
        })
        .await
    }

    /// Somebody saw that a name is not what the namespace says: asks for it now.
    pub async fn doubt(&self, place: &Place, name: &str) -> Result<()> {
        self.forget(place, name)?;
        let kept = self.kept(place.mount.id)?;
        // An answer that is under way may be older than the doubt.
        loop {
            let came = self.parts.clock.now();
            self.ask_child(&kept, place, name, came).await?;
            let question = (place.directory, Some(name.to_owned()));
            if kept
                .answered(&question)
                .is_none_or(|answered| answered.asked >= came)
            {
                return Ok(());
            }
            self.forget(place, name)?;
        }
    }

    /// What was remembered of a name does not count any more.
    pub fn forget(&self, place: &Place, name: &str) -> Result<()> {
        let kept = self.kept(place.mount.id)?;
        let mut answers = locked(&kept.answers);
        answers.remove(&(place.directory, None));
        answers.remove(&(place.directory, Some(name.to_owned())));
        Ok(())
    }

    /// What the directories of a mount do not show, as they were listed last.
    pub fn hidden(&self, mount: MountId) -> Vec<HiddenKeys> {
        let Some(kept) = locked(&self.parts.kept).get(&mount).cloned() else {
            return Vec::new();
        };
        let mut all = HiddenNames::default();
        let mut hidden = locked(&kept.hidden);
        hidden.retain(|directory, _| self.parts.view.attr(*directory).is_ok());
        hidden.values().for_each(|names| all.merge(names));
        all.table()
    }

    /// What a directory of a mount, or one below it, does not show.
    pub fn hidden_below(&self, mount: MountId, top: InodeId) -> Result<HiddenNames> {
        let mut all = HiddenNames::default();
        let kept = self.kept(mount)?;
        let path = self.parts.view.path(top)?;
        for (directory, names) in &*locked(&kept.hidden) {
            if self
                .parts
                .view
                .path(*directory)
                .is_ok_and(|below| path.contains(&below))
            {
                all.merge(names);
            }
        }
        Ok(all)
    }

    /// Waits for an answer that will do: one that is known, one that is under way, or a new one.
    async fn answer<F>(
        &self,
        kept: &Arc<Kept>,
        question: &Question,
        place: &Place,
        came: Instant,
        ask: impl Fn() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        loop {
            let now = self.parts.clock.now();
            let known = kept.answered(question);
            if known.is_some_and(|answered| answered.serves(came, now, place.staleness())) {
                return Ok(());
            }
            let mut answer = self.ask(kept, question, &ask);
            let answered = match answer
                .wait_for(Option::is_some)
                .await
                .map(|answer| answer.clone())
            {
                Ok(Some(answered)) => answered?,
                _ => return Err(Error::new(ErrorKind::Stopping, "the master is stopping")),
            };
            // Whoever believes nothing that is older than his question asks again.
            if answered.asked >= came || !place.staleness().is_zero() {
                return Ok(());
            }
        }
    }

    /// The answer to a question, which is asked unless it is under way.
    fn ask<F>(
        &self,
        kept: &Arc<Kept>,
        question: &Question,
        ask: &impl Fn() -> F,
    ) -> watch::Receiver<Option<Result<Answered>>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut asking = locked(&kept.asking);
        if let Some(asking) = asking.get(question) {
            return asking.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        let sender = Arc::new(sender);
        asking.insert(question.clone(), sender.clone());
        drop(asking);
        let (kept, question, clock) = (kept.clone(), question.clone(), self.parts.clock.clone());
        let asked = clock.now();
        // A task of its own, so that a panic in it leaves nobody waiting.
        let work = tokio::spawn(ask());
        tokio::spawn(async move {
            let abort = work.abort_handle();
            let outcome = tokio::select! {
                outcome = work => outcome.unwrap_or_else(|_| Err(Error::internal("a listing was cut off"))),
                () = abandoned(&sender) => Err(Error::new(ErrorKind::Timeout, "nobody waited for the listing any more")),
            };
            abort.abort();
            let at = clock.now();
            let answered = outcome.map(|()| Answered { asked, at });
            if let Ok(answered) = answered {
                kept.note(question.clone(), answered);
            }
            locked(&kept.asking).remove(&question);
            sender.send_replace(Some(answered));
        });
        receiver
    }
}

/// Returns when nobody has waited for a while.
async fn abandoned<T>(waited_for: &watch::Sender<T>) {
    loop {
        waited_for.closed().await;
        sleep(LINGER).await;
        if waited_for.receiver_count() == 0 {
            return;
        }
    }
}

impl Parts {
    /// Lists a directory, and makes the namespace agree with what was listed.
    async fn list(&self, kept: &Kept, place: &Place) -> Result<()> {
        let known = self.known(place.directory)?;
        let listing = place.ufs.list(&place.key).await?;
        self.note_hidden(kept, place, &listing.hidden);
        if listing.objects.is_empty() && listing.hidden.is_empty() && !place.key.is_empty() {
            // Empty, or not there any more.
            self.look_at_directory(place).await?;
            if self.view.attr(place.directory).is_err() {
                return Ok(());
            }
        }
        self.agree(place, differences(known, listing.objects)).await
    }

    fn note_hidden(&self, kept: &Kept, place: &Place, names: &HiddenNames) {
        let mut hidden = locked(&kept.hidden);
        let before = match names.is_empty() {
            true => hidden.remove(&place.directory),
            false => hidden.insert(place.directory, names.clone()),
        };
        if !names.is_empty() && before.as_ref() != Some(names) {
            tracing::warn!(
                mount = %place.mount.path,
                directory = place.key,
                "keys are not shown: {}",
                names.told()
            );
        }
    }

    /// Whether a directory, which has nothing in it, is there.
    async fn look_at_directory(&self, place: &Place) -> Result<()> {
        let path = self.view.path(place.directory)?;
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(());
        };
        let directory = self.view.lookup(&Node::Path(parent), false)?.attr.inode;
        let key = place.key.rsplit_once('/').map_or("", |(above, _)| above);
        let above = Place {
            key: key.to_owned(),
            directory,
            ..place.clone()
        };
        self.look(&above, name).await
    }

    /// Looks at one name, and makes the namespace agree with what was found.
    async fn look(&self, place: &Place, name: &str) -> Result<()> {
        let known = match self.view.lookup(&Node::child(place.directory, name), false) {
            Ok(entry) => BTreeMap::from([(
                name.to_owned(),
                Known::of(DirEntry {
                    name: name.to_owned(),
                    attr: entry.attr,
                    target: entry.target,
                }),
            )]),
            Err(error) if error.kind == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let found = place.ufs.find(&joined(&place.key, name)).await?;
        let found = found.into_iter().collect();
        self.agree(place, differences(known, found)).await
    }

    /// What the namespace has in a directory.
    fn known(&self, directory: InodeId) -> Result<BTreeMap<String, Known>> {
        let mut known = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let (page, more) = self.view.list(directory, after.as_deref(), PAGE)?;
            after = page.last().map(|entry| entry.name.clone());
            known.extend(
                page.into_iter()
                    .map(|entry| (entry.name.clone(), Known::of(entry))),
            );
            if !more {
                return Ok(known);
            }
        }
    }

    async fn agree(&self, place: &Place, names: Vec<AgreeName>) -> Result<()> {
        let directory = place.directory;
        for names in names.chunks(NAMES_PER_COMMAND) {
            let names = with_attributes(place, names).await?;
            self.propose
                .propose_op(Op::AgreeDir(AgreeDir { directory, names }))
                .await?;
        }
        Ok(())
    }
}

/// Names with what the objects of new and changed files keep of attributes. A listing does not say that: each is asked for.
async fn with_attributes(place: &Place, names: &[AgreeName]) -> Result<Vec<AgreeName>> {
    let is_kept = place.mount.settings.keeps_attributes() && place.ufs.keeps_attributes();
    let asked = names.iter().cloned().map(|mut agree| async move {
        if let Some(object) = agree.object.as_mut() {
            object.attributes = match (&object.version, object.attributes.take()) {
                _ if !is_kept => None,
                (_, Some(known)) => Some(known),
                (None, None) => None,
                (Some(version), None) => {
                    let key = joined(&place.key, &object.name);
                    place.ufs.attributes(&key, version).await?
                }
            };
        }
        Ok(agree)
    });
    stream::iter(asked).buffered(ASKED_AT_ONCE).try_collect().await
}

/// What the namespace has under a name.
#[derive(Clone, Debug)]
struct Known {
    kind: FileKind,
    target: Option<String>,
    name: KnownName,
}

impl Known {
    fn of(entry: DirEntry) -> Self {
        Known {
            kind: entry.attr.kind,
            target: entry.target,
            name: KnownName {
                inode: entry.attr.inode,
                version: entry.attr.ufs,
            },
        }
    }

    fn is(&self, object: &UfsObject) -> bool {
        self.kind == object.kind
            && match object.kind {
                FileKind::Directory => true,
                FileKind::Symlink => self.target == object.target,
                _ => self.name.version == object.version,
            }
    }
}

/// The names that an under file system says something else of than the namespace.
fn differences(mut known: BTreeMap<String, Known>, objects: Vec<UfsObject>) -> Vec<AgreeName> {
    let mut names = Vec::new();
    for object in objects {
        let before = known.remove(&object.name);
        if before.as_ref().is_some_and(|known| known.is(&object)) {
            continue;
        }
        names.push(AgreeName {
            name: object.name.clone(),
            known: before.map(|known| known.name),
            object: Some(object),
        });
    }
    let gone = known.into_iter().map(|(name, known)| AgreeName {
        name,
        known: Some(known.name),
        object: None,
    });
    names.extend(gone);
    names
}

#[cfg(test)]
mod tests {
    use curvine_protocol::UfsVersion;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_when_nobody_has_waited_for_a_while() {
        let (sender, receiver) = watch::channel(());
        let sender = Arc::new(sender);
        let ending = tokio::spawn({
            let sender = sender.clone();
            async move { abandoned(&sender).await }
        });
        advance(10 * LINGER).await;
        assert!(!ending.is_finished(), "somebody waits");
        drop(receiver);
        tokio::task::yield_now().await;
        advance(LINGER / 2).await;
        let again = sender.subscribe();
        advance(LINGER).await;
        tokio::task::yield_now().await;
        assert!(!ending.is_finished(), "somebody came again");
        drop(again);
        ending.await.expect("ends by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_who_came_before_it_was_asked_or_within_the_staleness_of_its_end() {
        let staleness = Duration::from_secs(5);
        let start = crate::kit::Ports::system().clock.now();
        let second = |number| start + Duration::from_secs(number);
        let answered = Answered {
            asked: second(10),
            at: second(30),
        };
        assert!(
            answered.serves(second(10), second(100), staleness),
            "asked for him"
        );
        assert!(answered.serves(second(31), second(34), staleness));
        assert!(!answered.serves(second(31), second(35), staleness));
        assert!(!answered.serves(second(11), second(30), Duration::ZERO));
    }

    #[test]
    fn only_differences_are_told_each_with_what_was_known_before() {
        let version = |etag: &str| UfsVersion {
            size_bytes: 1,
            mtime_ms: 1,
            etag: Some(etag.to_owned()),
        };
        let object = |name: &str, etag: &str| UfsObject {
            name: name.to_owned(),
            kind: FileKind::File,
            version: Some(version(etag)),
            target: None,
            attributes: None,
        };
        let known = |inode, etag: &str| Known {
            kind: FileKind::File,
            target: None,
            name: KnownName {
                inode: InodeId(inode),
                version: Some(version(etag)),
            },
        };
        let before = [
            ("same", known(1, "a")),
            ("changed", known(2, "a")),
            ("gone", known(3, "a")),
        ];
        let before = before.map(|(name, known)| (name.to_owned(), known)).into();
        let now = vec![object("changed", "b"), object("new", "a"), object("same", "a")];
        let told: Vec<_> = differences(before, now)
            .into_iter()
            .map(|agree| {
                let inode = agree.known.map(|known| known.inode.0);
                let etag = agree.object.and_then(|object| object.version?.etag);
                (agree.name, inode, etag)
            })
            .collect();
        let name = str::to_owned;
        assert_eq!(
            told,
            [
                (name("changed"), Some(2), Some(name("b"))),
                (name("new"), None, Some(name("a"))),
                (name("gone"), Some(3), None),
            ]
        );
    }
}
