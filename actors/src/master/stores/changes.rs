//! Carries out what clients change in mounts: deletions, renames, directories.
//!
//! The store is changed first, and the namespace when that is done; what the store refuses, the client is told, and the
//! namespace stays as it is. A rename copies every object before the namespace makes it, and removes the old ones
//! afterwards, each if it is the version that was copied: whatever somebody else has put there meanwhile stays. A leader that
//! takes over goes on where the log says that its predecessor was.

mod links;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::{Delete, Holders, RemoveDir, Rename, Unlink};
use curvine_protocol::op::{CommitChange, Copied, Op};
use curvine_protocol::{Attr, EffectId, Error, ErrorKind, FileKind, InodeId, Node, Result, UfsVersion};
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep};

use super::Outcomes;
use crate::crash_points::{Point, crash_point};
use crate::kit::Clock;
use crate::master::contract::{Keeping, NamespaceView, ProposeOp};
use crate::master::duties::Duty;
use crate::master::fetching::Fetching;
use crate::master::mirror::Mirror;
use crate::master::namespace::effects::{Change, CopyRecord, EffectRecord, Stage, Work};
use crate::master::namespace::opens::Removal;
use crate::master::walk::{Trail, Walk};
use crate::ufs::{Ufs, joined};

/// Requests of one change at the same time.
const AT_ONCE: usize = 64;
/// Copies that one command notes.
const COPIES_PER_COMMAND: usize = 256;
/// Files of a tree that nobody opens once their objects are gone. Beyond that, an open finds the file without its object.
const DEPARTING_MAX: usize = 100_000;
/// How long a rest after a try that failed is at most.
const REST_MAX: Duration = Duration::from_secs(30);

/// How far an effect is, for people.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub done: u64,
    /// Why the last try that failed did.
    pub failure: Option<String>,
    /// Since when no try has brought it further.
    pub failing_since: Option<Instant>,
}

pub struct Changes {
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub mirror: Arc<Mirror>,
    pub outcomes: Arc<Outcomes>,
    /// Who has open what loses its name.
    pub keeping: Arc<dyn Keeping>,
    pub fetching: Fetching,
    pub clock: Arc<dyn Clock>,
}

/// How far each effect is.
#[derive(Default)]
pub struct Progresses(Mutex<BTreeMap<EffectId, Progress>>);

impl Progresses {
    fn all(&self) -> MutexGuard<'_, BTreeMap<EffectId, Progress>> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    pub fn of(&self, effect: EffectId) -> Progress {
        self.all().get(&effect).cloned().unwrap_or_default()
    }

    fn did(&self, effect: EffectId, count: usize) {
        self.all().entry(effect).or_default().done += count as u64;
    }

    fn failed(&self, effect: EffectId, error: &Error, now: Instant) {
        let mut all = self.all();
        let progress = all.entry(effect).or_default();
        progress.failure = Some(error.message.clone());
        progress.failing_since.get_or_insert(now);
    }

    fn gets_on(&self, effect: EffectId) {
        if let Some(progress) = self.all().get_mut(&effect) {
            progress.failing_since = None;
        }
    }
}

/// A key while a tree is walked.
#[derive(Clone)]
struct Key(String);

impl Trail for Key {
    fn below(&self, name: &str) -> Result<Self> {
        Ok(Key(joined(&self.0, name)))
    }
}

/// What an effect is done with.
struct Task<'a> {
    changes: &'a Changes,
    id: EffectId,
    record: &'a EffectRecord,
    change: &'a Change,
    ufs: Ufs,
}

/// A file whose object goes. Until this is dropped, nobody opens it.
struct Departing<'a> {
    /// Somebody had it open before.
    is_open: bool,
    _closed: Removal<'a>,
}

impl Changes {
    /// Carries one out, however long it takes.
    async fn carry_out(&self, id: EffectId) -> EffectId {
        let mut rest = Duration::from_secs(1);
        loop {
            match self.advance(id).await {
                Ok(true) => self.outcomes.progress.gets_on(id),
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(effect = %id, %error, "a change of an under file system does not get on; trying again");
                    self.outcomes.progress.failed(id, &error, self.clock.now());
                    sleep(rest).await;
                    rest = (rest * 2).min(REST_MAX);
                }
            }
        }
        self.outcomes.progress.all().remove(&id);
        id
    }

    /// Does one stage of an effect. False if it is over.
    async fn advance(&self, id: EffectId) -> Result<bool> {
        let Some(record) = self.view.effect(id)? else {
            return Ok(false);
        };
        let Work::Change(change) = &record.work else {
            return Ok(false);
        };
        let outcome = match self.mirror.store(record.mount).await {
            Ok(ufs) => {
                let task = Task {
                    changes: self,
                    id,
                    record: &record,
                    change,
                    ufs,
                };
                match change.stage {
                    Stage::Begun => match task.make().await {
                        Err(error) if !task.can_be_undone().await => return Err(error),
                        made => made,
                    },
                    Stage::Made => task.remove_sources().await,
                    Stage::Undone => task.remove_copies().await,
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {}
            Err(error) if change.stage == Stage::Begun && error.kind != ErrorKind::NotLeader => {
                if let Some(to) = &record.to {
                    let (mount, key) = (record.mount, &record.key);
                    tracing::warn!(%mount, key, to, %error, "a rename was refused: what it had copied goes");
                }
                let refuse = Op::RefuseChange { effect: id, error };
                self.propose.propose_op(refuse).await?;
            }
            Err(error) => return Err(error),
        }
        let keys = std::iter::once(record.key.as_str()).chain(record.to.as_deref());
        self.mirror.forget_keys(record.mount, keys).await?;
        Ok(self.view.effect(id)?.is_some())
    }
}

impl Task<'_> {
    /// Has the store make the change, and then the namespace.
    async fn make(&self) -> Result<()> {
        crash_point(Point::ChangeNoted);
        let key = &self.record.key;
        let (mut copies, mut departing) = (Vec::new(), HashMap::new());
        match &self.change.command.op {
            Op::MakeDir(_) => self.ufs.make_dir(key).await?,
            Op::Rename(rename) => {
                if let Some(replaced) = self.replaced_file(rename) {
                    departing.insert(replaced, self.depart(replaced).await?);
                }
                copies = self.copy_all().await?;
            }
            Op::RemoveDir(RemoveDir { node }) => self.remove_dir(key, node).await?,
            Op::Delete(Delete { node, recursive, .. }) if self.record.tree => match recursive {
                true => departing = self.remove_tree(key, node).await?,
                false => self.remove_dir(key, node).await?,
            },
            Op::Delete(Delete { node, .. }) | Op::Unlink(Unlink { node, .. }) => {
                self.keep_parent(key, node).await?;
                match &self.change.object {
                    Some(object) => {
                        let (inode, gone) = self.delete_file(self.change.inode, key, object).await?;
                        departing.insert(inode, gone);
                    }
                    None => self.delete_link(self.change.inode, key).await?,
                }
            }
            other => return Err(Error::internal(format!("no store has to make {other:?}"))),
        }
        let mut op = self.change.command.op.clone();
        // From here to the answer nobody opens what loses its name.
        let kept = self.changes.keeping.note_holders(&mut op)?;
        let holders = holders_of(op).map(|mut holders| {
            // Who came after its object was gone finds it gone.
            let is_late = |inode: &InodeId| departing.get(inode).is_some_and(|file| !file.is_open);
            holders.files.retain(|file| !is_late(&file.inode));
            holders
        });
        let commit = CommitChange {
            effect: self.id,
            holders,
            copies,
        };
        crash_point(Point::ChangeMade);
        let outcome = self.changes.propose.propose_op(Op::CommitChange(commit)).await;
        crash_point(Point::ChangeCommitted);
        drop((kept, departing));
        match outcome {
            // Whatever it is, it is the client's answer, and was noted as that.
            Err(error) if self.is_at(Stage::Begun)? => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a change that was refused leaves everything as it was. It does not if a copy may have taken the place of another
    /// object: to take the copy away would lose both. Then the rename is made in the end.
    async fn can_be_undone(&self) -> bool {
        let replaced = self.change.replaces.as_ref().zip(self.change.object.as_ref());
        let (Some((_, object)), Some(to)) = (replaced, &self.record.to) else {
            return true;
        };
        match self.ufs.copy_of((&self.record.key, object), to).await {
            // Of two objects with the same content, one is as good as the other.
            Ok(copy) => copy.is_none_or(|copy| Some(&copy) == self.change.replaces.as_ref()),
            Err(_) => false,
        }
    }

    /// To be called before a file's object goes. What is in the object alone is fetched if somebody has the file open; what
    /// cannot be fetched, whoever has it open loses.
    async fn depart(&self, inode: InodeId) -> Result<Departing<'_>> {
        let departing = self.close_off(inode);
        if !departing.is_open {
            return Ok(departing);
        }
        // Nobody is kept from opening it for as long as that takes.
        drop(departing);
        if let Err(error) = self.changes.fetching.keep_readable(inode, self.id).await {
            tracing::warn!(%inode, %error, "a file that is open loses its object, which is not cached whole");
        }
        Ok(self.close_off(inode))
    }

    fn close_off(&self, inode: InodeId) -> Departing<'_> {
        let (closed, is_open) = self.changes.keeping.close_off(inode);
        Departing {
            is_open,
            _closed: closed,
        }
    }

    /// The file that has the name that another one gets.
    fn replaced_file(&self, rename: &Rename) -> Option<InodeId> {
        let found = self.changes.view.lookup(&rename.to, false).ok()?;
        found.attr.is_file().then_some(found.attr.inode)
    }

    fn is_at(&self, stage: Stage) -> Result<bool> {
        let record = self.changes.view.effect(self.id)?;
        Ok(record.is_some_and(|record| matches!(record.work, Work::Change(change) if change.stage == stage)))
    }

    /// Deletes a file's object; until what it gives is dropped, nobody opens the file.
    async fn delete_file(
        &self,
        inode: InodeId,
        key: &str,
        object: &UfsVersion,
    ) -> Result<(InodeId, Departing<'_>)> {
        let departing = self.depart(inode).await?;
        self.delete(key, object).await?;
        Ok((inode, departing))
    }

    async fn delete(&self, key: &str, object: &UfsVersion) -> Result<()> {
        if !self.ufs.delete_version(key, object).await? {
            tracing::warn!(
                mount = %self.record.mount, key,
                "another version than was meant is there: it stays, and will be seen as a new file"
            );
        }
        crash_point(Point::ObjectDeleted);
        self.changes.outcomes.progress.did(self.id, 1);
        Ok(())
    }

    /// A directory all of whose entries are on their way out, this one or others, needs a marker, or it would be gone with the
    /// last one.
    async fn keep_parent(&self, key: &str, node: &Node) -> Result<()> {
        let (Some((above, _)), Node::Child { parent, .. }) = (key.rsplit_once('/'), node) else {
            return Ok(());
        };
        let effects = self.changes.view.effects()?;
        let going: HashSet<&str> = effects
            .iter()
            .filter(|(_, effect)| effect.mount == self.record.mount)
            .filter_map(|(_, effect)| effect.leaving())
            .filter_map(|key| key.rsplit_once('/'))
            .filter_map(|(directory, name)| (directory == above).then_some(name))
            .collect();
        let (entries, _) = self.changes.view.list(*parent, None, going.len() + 1)?;
        match entries.iter().all(|entry| going.contains(&*entry.name)) {
            true => self.ufs.make_dir(above).await,
            false => Ok(()),
        }
    }

    async fn remove_dir(&self, key: &str, node: &Node) -> Result<()> {
        if let Some(other) = self.ufs.something_in(key).await? {
            return Err(not_shown(node, &other));
        }
        self.keep_parent(key, node).await?;
        self.ufs.delete_dir(key).await
    }

    /// Everything that is in a tree of the namespace, with keys that begin with `top`.
    fn walk(&self, top: &str) -> Result<Walk<Key>> {
        let attr = self.changes.view.attr(self.change.inode)?;
        Ok(Walk::new(
            self.changes.view.clone(),
            None,
            Key(top.to_owned()),
            attr,
        ))
    }

    /// What of a rename has no object, with keys that begin with `top`: directories, and symbolic links.
    async fn without_objects(&self, top: &str) -> Result<(Vec<String>, Vec<(String, InodeId)>)> {
        let (mut directories, mut links) = (Vec::new(), Vec::new());
        if !self.record.tree && self.change.object.is_some() {
            return Ok((directories, links));
        }
        let mut walk = self.walk(top)?;
        while let Some((Key(key), attr)) = walk.next().await {
            let attr = attr?;
            match attr.kind {
                FileKind::Directory => directories.push(key),
                FileKind::Symlink => links.push((key, attr.inode)),
                _ => {}
            }
        }
        Ok((directories, links))
    }

    /// Deletes every object that the namespace shows in a tree, and then its directories.
    async fn remove_tree(&self, key: &str, node: &Node) -> Result<HashMap<InodeId, Departing<'_>>> {
        self.keep_parent(key, node).await?;
        let (mut directories, mut departing) = (Vec::new(), HashMap::new());
        let mut walk = self.walk(key)?;
        let mut deleting = FuturesUnordered::new();
        while let Some((Key(key), attr)) = walk.next().await {
            let attr = attr?;
            match attr.ufs {
                _ if attr.is_dir() => directories.push(key),
                Some(object) => {
                    deleting.push(async move { self.delete_file(attr.inode, &key, &object).await });
                }
                None if attr.kind == FileKind::Symlink => self.delete_link(attr.inode, &key).await?,
                None => {}
            }
            if deleting.len() >= AT_ONCE
                && let Some((inode, gone)) = deleting.try_next().await?
                && departing.len() < DEPARTING_MAX
            {
                departing.insert(inode, gone);
            }
        }
        while let Some((inode, gone)) = deleting.try_next().await? {
            departing.insert(inode, gone);
        }
        self.remove_directories(directories).await?;
        match self.ufs.something_in(key).await? {
            Some(other) => Err(not_shown(node, &other)),
            None => Ok(departing),
        }
    }

    /// Directories and markers, from the leaves upward. One that still holds something stays.
    async fn remove_directories(&self, mut directories: Vec<String>) -> Result<()> {
        directories.sort_by_key(|key| std::cmp::Reverse(key.matches('/').count()));
        for key in directories {
            if self.ufs.something_in(&key).await?.is_none() {
                self.ufs.delete_dir(&key).await?;
            }
        }
        Ok(())
    }

    /// Copies what a rename moves. The copies that are not noted yet.
    async fn copy_all(&self) -> Result<Vec<Copied>> {
        let to = self.record.to.as_deref().unwrap_or_default();
        let mut copies = Vec::new();
        let mut copying = FuturesUnordered::new();
        let mut walk = self.walk(&self.record.key)?;
        let outcome = async {
            while let Some((Key(from), attr)) = walk.next().await {
                let attr = attr?;
                let target = format!("{to}{}", &from[self.record.key.len()..]);
                if attr.is_dir() {
                    if self.needs_marker(attr.inode)? {
                        self.ufs.make_dir(&target).await?;
                    }
                    continue;
                }
                if self.copy_link(&from, &target, &attr).await? {
                    continue;
                }
                let Some(object) = attr.ufs.clone() else { continue };
                if self
                    .changes
                    .view
                    .copy(attr.inode)?
                    .is_some_and(|copy| copy.effect == self.id)
                {
                    continue;
                }
                copying.push(self.copy(from, target, attr, object));
                if copying.len() >= AT_ONCE
                    && let Some(copied) = copying.try_next().await?
                {
                    copies.push(copied);
                }
                if copies.len() >= COPIES_PER_COMMAND {
                    self.note(std::mem::take(&mut copies)).await?;
                }
            }
            while let Some(copied) = copying.try_next().await? {
                copies.push(copied);
            }
            Ok(())
        };
        if let Err(error) = outcome.await {
            // Those under way end before what was copied is taken back.
            while let Some(ended) = copying.next().await {
                copies.extend(ended);
            }
            if !copies.is_empty() {
                self.note(copies).await?;
            }
            return Err(error);
        }
        let last = copies.split_off(copies.len() - copies.len().min(COPIES_PER_COMMAND));
        if !copies.is_empty() {
            self.note(copies).await?;
        }
        Ok(last)
    }

    async fn note(&self, copies: Vec<Copied>) -> Result<()> {
        let effect = self.id;
        self.changes
            .propose
            .propose_op(Op::NoteCopies { effect, copies })
            .await?;
        crash_point(Point::CopiesNoted);
        Ok(())
    }

    /// Whether a directory is nothing but its marker, or the store has real directories.
    fn needs_marker(&self, directory: InodeId) -> Result<bool> {
        Ok(self.ufs.has_directories() || self.changes.view.list(directory, None, 1)?.0.is_empty())
    }

    async fn copy(&self, from: String, to: String, attr: Attr, object: UfsVersion) -> Result<Copied> {
        let inode = attr.inode;
        // Its content is newer, and all of it is here: that will be written to the new key.
        let copied = match self.changes.view.layout(inode)?.source {
            None => None,
            Some(_) => {
                let replaces = self
                    .change
                    .replaces
                    .as_ref()
                    .filter(|_| self.change.inode == inode);
                Some(self.ufs.copy_version((&from, &object), (&to, replaces)).await?)
            }
        };
        crash_point(Point::ObjectCopied);
        self.changes.outcomes.progress.did(self.id, 1);
        Ok(Copied {
            inode,
            from: object,
            to: copied,
        })
    }

    /// The namespace has made a rename: what was copied goes where it was.
    async fn remove_sources(&self) -> Result<()> {
        if let Op::Rename(rename) = &self.change.command.op {
            self.keep_parent(&self.record.key, &rename.from).await?;
        }
        let to = self.record.to.as_deref().unwrap_or_default();
        self.settle(to, &self.record.key, |copy| Some(copy.from.clone()))
            .await?;
        let (directories, links) = self.without_objects(&self.record.key).await?;
        self.delete_links(links).await?;
        self.remove_directories(directories).await?;
        self.end().await
    }

    /// A rename was refused: what was copied goes where it went.
    async fn remove_copies(&self) -> Result<()> {
        let to = self.record.to.as_deref().unwrap_or_default();
        self.remove_unnoted(to).await?;
        self.settle(&self.record.key, to, |copy| copy.to.clone()).await?;
        let (mut directories, mut links) = self.without_objects(to).await?;
        if let Op::Rename(rename) = &self.change.command.op {
            // What is there in the namespace stays.
            let is_there = self.changes.view.lookup(&rename.to, false).is_ok();
            directories.retain(|key| !(is_there && key == to));
            links.retain(|(key, inode)| !(key == to && self.is_kept_there(*inode, &rename.to)));
        }
        self.delete_links(links).await?;
        self.remove_directories(directories).await?;
        self.end().await
    }

    /// Copies whose answer was lost, or whose leader died before it noted them: they are where they would be, and what they
    /// are says of what they are copies.
    async fn remove_unnoted(&self, to: &str) -> Result<()> {
        let mut walk = self.walk(&self.record.key)?;
        let mut listed: Option<(String, HashMap<String, u64>)> = None;
        while let Some((Key(from), attr)) = walk.next().await {
            let attr = attr?;
            let noted = self.changes.view.copy(attr.inode)?;
            let is_noted = noted.is_some_and(|copy| copy.effect == self.id);
            let Some(object) = attr.ufs.clone().filter(|_| attr.is_file() && !is_noted) else {
                continue;
            };
            let target = format!("{to}{}", &from[self.record.key.len()..]);
            if self.record.tree {
                let (above, name) = target.rsplit_once('/').unwrap_or(("", &target));
                if listed.as_ref().is_none_or(|(key, _)| key != above) {
                    listed = Some((above.to_owned(), self.sizes_in(above).await?));
                }
                let size = listed.as_ref().and_then(|(_, sizes)| sizes.get(name));
                if size != Some(&object.size_bytes) {
                    continue;
                }
            }
            let copy = self.ufs.copy_of((&from, &object), &target).await?;
            if let Some(copy) = copy.filter(|copy| Some(copy) != self.change.replaces.as_ref()) {
                tracing::warn!(mount = %self.record.mount, key = target, "a copy that nobody had heard of goes");
                self.delete(&target, &copy).await?;
            }
        }
        Ok(())
    }

    /// The objects of a directory of the store, and their sizes.
    async fn sizes_in(&self, key: &str) -> Result<HashMap<String, u64>> {
        let objects = self.ufs.list(key).await?.objects.into_iter();
        let sizes = objects.filter_map(|object| Some((object.name, object.version?.size_bytes)));
        Ok(sizes.collect())
    }

    /// Deletes the objects of one side of a rename, and forgets that they were copied. Files are at `now` and their objects
    /// at `there`.
    async fn settle(
        &self,
        now: &str,
        there: &str,
        version: impl Fn(&CopyRecord) -> Option<UfsVersion>,
    ) -> Result<()> {
        let view = &self.changes.view;
        loop {
            let page = view.copies(self.id, InodeId(0), COPIES_PER_COMMAND)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut objects = Vec::new();
            for (inode, copy) in &page {
                // One that is gone meanwhile has no place any more.
                if let (Ok(Some((_, key))), Some(object)) = (view.mounted(*inode), version(copy))
                    && let Some(below) = key.strip_prefix(now)
                {
                    objects.push((format!("{there}{below}"), object));
                }
            }
            stream::iter(objects)
                .map(|(key, object)| async move { self.delete(&key, &object).await })
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
            crash_point(Point::SourcesDeleted);
            let settle = Op::SettleCopies {
                effect: self.id,
                inodes: page.into_iter().map(|(inode, _)| inode).collect(),
                end: false,
            };
            self.changes.propose.propose_op(settle).await?;
        }
    }

    async fn end(&self) -> Result<()> {
        let settle = Op::SettleCopies {
            effect: self.id,
            inodes: Vec::new(),
            end: true,
        };
        self.changes.propose.propose_op(settle).await.map(|_| ())
    }
}

fn holders_of(op: Op) -> Option<Holders> {
    match op {
        Op::Unlink(call) => call.holders,
        Op::Delete(call) => call.holders,
        Op::Rename(call) => call.holders,
        _ => None,
    }
}

fn not_shown(node: &Node, key: &str) -> Error {
    Error::new(
        ErrorKind::DirectoryNotEmpty,
        format!(
            "{node}: its under file system holds more than is shown, such as `{key}`, which stays; `cv mounts -v` counts such keys"
        ),
    )
}

#[async_trait]
impl Duty for Changes {
    fn name(&self) -> &'static str {
        "changes"
    }

    fn begin(&self, _term: u64) -> Result<()> {
        self.outcomes.progress.all().clear();
        self.outcomes.noted.notify_one();
        Ok(())
    }

    async fn due(&self) {
        self.outcomes.noted().await;
    }

    async fn tick(&self) -> Result<()> {
        let (mut busy, mut running) = (HashSet::new(), FuturesUnordered::new());
        loop {
            for (id, record) in self.view.effects()? {
                if matches!(record.work, Work::Change(_)) && busy.insert(id) {
                    running.push(self.carry_out(id));
                }
            }
            if running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(id) = running.next() => drop(busy.remove(&id)),
                () = self.outcomes.noted() => {}
            }
        }
    }

    fn end(&self) {
        self.outcomes.progress.all().clear();
    }

    fn status(&self) -> String {
        match self.view.effects() {
            Ok(effects) => {
                let is_change = |record: &EffectRecord| matches!(record.work, Work::Change(_));
                match effects.iter().filter(|(_, record)| is_change(record)).count() {
                    0 => "none under way".to_owned(),
                    count => format!("{count} under way in under file systems"),
                }
            }
            Err(error) => error.message,
        }
    }
}
