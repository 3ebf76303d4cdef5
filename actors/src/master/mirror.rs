//! Keeps the namespace below mounts in step with the under file systems.
//!
//! A name or directory is asked for at most once per staleness period of its mount, by one caller at a time; the answer is
//! compared with the namespace and a command is proposed only where they differ.
//! What is remembered (when was what checked) is soft and bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{Op, SyncDir, UfsObject};
use curvine_protocol::{CurvinePath, DirEntry, Error, ErrorKind, FileKind, InodeId, MountId, Node, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::kit::ports::MakeOffload;
use crate::kit::{Clock, Ports};
use crate::master::contract::{NamespaceView, ProposeOp, UfsView};
use crate::ufs::Ufs;

/// Names in one command.
const NAMES_PER_COMMAND: usize = 1_000;
/// For opening an under file system, which connects to nothing.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Remembered checks; when there are more, all are forgotten and asked again.
const CHECKS_MAX: usize = 1 << 20;

/// A whole directory (no name), or one name in it.
type Checked = (InodeId, Option<String>);

pub struct Mirror {
    view: Arc<dyn NamespaceView>,
    propose: Arc<dyn ProposeOp>,
    clock: Arc<dyn Clock>,
    threads: MakeOffload,
    checks: Mutex<HashMap<Checked, Instant>>,
    /// Who asks for a directory now, so that others wait for the answer instead of asking too.
    asking: Mutex<HashMap<InodeId, Arc<tokio::sync::Mutex<()>>>>,
    opened: Mutex<HashMap<MountId, Ufs>>,
    /// Under file systems that are being opened, each by one thread however often it is asked for.
    opening: Mutex<HashMap<MountId, Opening>>,
}

/// Says what came of it, when that is known.
type Opening = watch::Receiver<Option<Result<Ufs>>>;

/// A place in a mount.
struct Spot {
    mount: MountRecord,
    ufs: Ufs,
    key: String,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

/// Opening asks the system about local directories, which may be on something that does not answer: not on a thread that
/// serves others.
fn begin_to_open(mount: MountRecord, threads: &MakeOffload) -> Opening {
    let (done, opening) = watch::channel(None);
    // Of its own, because it may hang.
    threads("open-ufs").run(Box::new(move || {
        done.send_replace(Some(Ufs::open(&mount)));
    }));
    opening
}

impl Mirror {
    pub fn new(view: Arc<dyn NamespaceView>, propose: Arc<dyn ProposeOp>, ports: &Ports) -> Self {
        Mirror {
            view,
            propose,
            clock: ports.clock.clone(),
            threads: ports.offload.clone(),
            checks: Mutex::default(),
            asking: Mutex::default(),
            opened: Mutex::default(),
            opening: Mutex::default(),
        }
    }

    async fn ufs(&self, mount: &MountRecord) -> Result<Ufs> {
        if let Some(ufs) = locked(&self.opened).get(&mount.id) {
            return Ok(ufs.clone());
        }
        let mut opening = locked(&self.opening)
            .entry(mount.id)
            .or_insert_with(|| begin_to_open(mount.clone(), &self.threads))
            .clone();
        let outcome = match timeout(OPEN_DEADLINE, opening.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => None,
            // Its thread hangs. Whoever comes waits for the same one.
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Ufs,
                    format!(
                        "{}: no answer within {} s; is the file system behind it stuck?",
                        mount.uri,
                        OPEN_DEADLINE.as_secs()
                    ),
                ));
            }
        };
        locked(&self.opening).remove(&mount.id);
        let ufs =
            outcome.unwrap_or_else(|| Err(Error::new(ErrorKind::Stopping, "the master is stopping")))?;
        locked(&self.opened).insert(mount.id, ufs.clone());
        Ok(ufs)
    }

    /// The mount that a path is in.
    fn mount_over(&self, path: &CurvinePath) -> Result<Option<MountRecord>> {
        let mut mounts = self.view.mounts()?.into_iter();
        Ok(mounts.find(|mount| mount.path.contains(path)))
    }

    /// The place of an inode; none outside mounts.
    async fn spot(&self, inode: InodeId) -> Result<Option<Spot>> {
        let Some((id, key)) = self.view.mounted(inode)? else {
            return Ok(None);
        };
        let Some(mount) = self.view.mount(id)? else {
            return Ok(None);
        };
        let ufs = self.ufs(&mount).await?;
        Ok(Some(Spot { mount, ufs, key }))
    }

    fn is_fresh(&self, checked: &Checked, mount: &MountRecord) -> bool {
        let staleness = Duration::from_millis(mount.settings.staleness_ms);
        let now = self.clock.now();
        let checks = locked(&self.checks);
        checks
            .get(checked)
            .is_some_and(|at| now.duration_since(*at) < staleness)
    }

    fn checked(&self, checked: Checked, at: Instant) {
        let mut checks = locked(&self.checks);
        if checks.len() >= CHECKS_MAX {
            checks.clear();
        }
        checks.insert(checked, at);
    }

    fn turn(&self, directory: InodeId) -> Arc<tokio::sync::Mutex<()>> {
        let mut asking = locked(&self.asking);
        // Those that nobody holds any more.
        if asking.len() > 1_000 {
            asking.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        asking.entry(directory).or_default().clone()
    }

    /// As [`UfsView::refresh_dir`], for any directory.
    pub async fn fresh_dir(&self, directory: InodeId) -> Result<()> {
        let Some(spot) = self.spot(directory).await? else {
            return Ok(());
        };
        let all = (directory, None);
        if self.is_fresh(&all, &spot.mount) {
            return Ok(());
        }
        let turn = self.turn(directory);
        let _turn = turn.lock().await;
        if self.is_fresh(&all, &spot.mount) {
            return Ok(());
        }
        let asked_at = self.clock.now();
        let (objects, skipped) = spot.ufs.list(&spot.key).await?;
        if skipped > 0 {
            tracing::warn!(mount = %spot.mount.path, key = spot.key, skipped, "objects whose names cannot be file names are left out");
        }
        if objects.is_empty() && !spot.key.is_empty() {
            // Empty, or not there any more.
            self.fresh_inode_entry(directory).await?;
            if self.view.attr(directory).is_err() {
                return Ok(());
            }
        }
        self.agree(directory, &objects).await?;
        self.checked(all, asked_at);
        Ok(())
    }

    /// Proposes what makes a directory's entries those of a listing, where they are not.
    async fn agree(&self, directory: InodeId, objects: &[UfsObject]) -> Result<()> {
        let mut known = Vec::new();
        loop {
            let after = known.last().map(|entry: &DirEntry| entry.name.clone());
            let (page, more) = self.view.list(directory, after.as_deref(), 10_000)?;
            known.extend(page);
            if !more {
                break;
            }
        }
        let mut known = known.as_slice();
        let mut after = None;
        let mut chunks = objects.chunks(NAMES_PER_COMMAND).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let until = chunks.peek().and(chunk.last()).map(|object| object.name.clone());
            let cut = match &until {
                Some(until) => known.partition_point(|entry| entry.name <= *until),
                None => known.len(),
            };
            let (here, rest) = known.split_at(cut);
            known = rest;
            if !same(here, chunk) {
                let objects = chunk.to_vec();
                let sync = SyncDir {
                    directory,
                    after,
                    until: until.clone(),
                    objects,
                    only: None,
                };
                self.propose.propose_op(Op::SyncDir(sync)).await?;
            }
            match until {
                Some(until) => after = Some(until),
                None => return Ok(()),
            }
        }
    }

    async fn fresh_child(&self, directory: InodeId, name: &str) -> Result<()> {
        let Some(spot) = self.spot(directory).await? else {
            return Ok(());
        };
        let one = (directory, Some(name.to_owned()));
        if self.is_fresh(&(directory, None), &spot.mount) || self.is_fresh(&one, &spot.mount) {
            return Ok(());
        }
        let turn = self.turn(directory);
        let _turn = turn.lock().await;
        if self.is_fresh(&(directory, None), &spot.mount) || self.is_fresh(&one, &spot.mount) {
            return Ok(());
        }
        let asked_at = self.clock.now();
        let found = spot.ufs.find(&joined(&spot.key, name)).await?;
        let known = match self.view.lookup(&Node::child(directory, name), false) {
            Ok(entry) => vec![DirEntry {
                name: name.to_owned(),
                attr: entry.attr,
                target: entry.target,
            }],
            Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let objects: Vec<UfsObject> = found.into_iter().collect();
        if !same(&known, &objects) {
            let only = Some(name.to_owned());
            let sync = SyncDir {
                directory,
                after: None,
                until: None,
                objects,
                only,
            };
            self.propose.propose_op(Op::SyncDir(sync)).await?;
        }
        self.checked(one, asked_at);
        Ok(())
    }

    /// As [`UfsView::refresh_path`]. Directories in the middle that are known are taken for granted.
    pub async fn fresh_path(&self, path: &CurvinePath) -> Result<()> {
        let Some(mount) = self.mount_over(path)? else {
            return Ok(());
        };
        let mut at = self
            .view
            .lookup(&Node::Path(mount.path.clone()), false)?
            .attr
            .inode;
        let relative = mount.path.relative(path).unwrap_or_default();
        let names: Vec<&str> = relative.split('/').filter(|name| !name.is_empty()).collect();
        for (index, name) in names.iter().enumerate() {
            let node = Node::child(at, *name);
            let last = index + 1 == names.len();
            let known = self.view.lookup(&node, false);
            if last || !known.is_ok_and(|entry| entry.attr.is_dir()) {
                self.fresh_child(at, name).await?;
            }
            match self.view.lookup(&node, false) {
                Ok(entry) if entry.attr.is_dir() => at = entry.attr.inode,
                // Missing or not a directory: the look-up that follows says so.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    async fn fresh_inode(&self, inode: InodeId) -> Result<()> {
        if self.view.attr(inode)?.is_dir() {
            return Ok(());
        }
        self.fresh_inode_entry(inode).await
    }

    /// Makes the name of an inode fresh.
    async fn fresh_inode_entry(&self, inode: InodeId) -> Result<()> {
        let path = self.view.path(inode)?;
        match (path.parent(), path.name()) {
            (Some(parent), Some(name)) => {
                let directory = self.view.lookup(&Node::Path(parent), false)?.attr.inode;
                self.fresh_child(directory, name).await
            }
            _ => Ok(()),
        }
    }

    /// Somebody saw that a file is not what the namespace says: ask again now.
    pub async fn doubt(&self, inode: InodeId) -> Result<()> {
        let path = self.view.path(inode)?;
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            let directory = self.view.lookup(&Node::Path(parent), false)?.attr.inode;
            self.forget(directory, name);
            self.fresh_child(directory, name).await?;
        }
        Ok(())
    }

    fn forget(&self, directory: InodeId, name: &str) {
        let mut checks = locked(&self.checks);
        checks.remove(&(directory, None));
        checks.remove(&(directory, Some(name.to_owned())));
    }

    /// The mount that a node is in, if it is in one.
    fn mount_of(&self, node: &Node) -> Result<Option<MountRecord>> {
        let above = match node {
            Node::Path(path) => return self.mount_over(path),
            Node::Inode(inode) => *inode,
            Node::Child { parent, .. } => *parent,
        };
        match self.view.mounted(above)? {
            Some((mount, _)) => self.view.mount(mount),
            None => Ok(None),
        }
    }

    fn refuse(&self, op: &Op, places: &[Node]) -> Result<()> {
        let mut mounted = None;
        for (node, place) in op.nodes().into_iter().zip(places) {
            let Some(mount) = self.mount_of(place)? else {
                continue;
            };
            mounted = mounted.or(Some(node));
            if !mount.settings.writable {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    format!(
                        "{node}: {} is mounted read-only on {}; mount it with `cv mount --write` to change it",
                        mount.uri, mount.path
                    ),
                ));
            }
        }
        let Some(node) = mounted else { return Ok(()) };
        match op {
            Op::MakeSymlink(_) | Op::MakeLink(_) => Err(unsupported(node, "links cannot be stored")),
            Op::MakeNode(call) if call.kind != FileKind::File => Err(unsupported(
                node,
                "device nodes, FIFOs and sockets cannot be stored",
            )),
            _ => Ok(()),
        }
    }

    /// An effect on these names of a mount is over: what was remembered of them does not count.
    pub fn forget_keys<'k>(&self, mount: MountId, keys: impl Iterator<Item = &'k str>) -> Result<()> {
        let Some(mount) = self.view.mount(mount)? else {
            return Ok(());
        };
        for key in keys {
            let path = CurvinePath::parse(&format!("{}/{key}", mount.path))?;
            if let (Some(parent), Some(name)) = (path.parent(), path.name())
                && let Ok(directory) = self.view.lookup(&Node::Path(parent), false)
            {
                self.forget(directory.attr.inode, name);
            }
        }
        Ok(())
    }

    /// The under file system of a mount.
    ///
    /// # Errors
    /// `NotFound` if it is mounted no more; those of opening it.
    pub async fn store(&self, mount: MountId) -> Result<Ufs> {
        let record = self.view.mount(mount)?;
        let record = record
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("mount {mount} no longer exists")))?;
        self.ufs(&record).await
    }
}

#[async_trait]
impl UfsView for Mirror {
    async fn refresh_path(&self, path: &CurvinePath) -> Result<()> {
        self.fresh_path(path).await
    }

    async fn refresh_child(&self, directory: InodeId, name: &str) -> Result<()> {
        self.fresh_child(directory, name).await
    }

    async fn refresh_inode(&self, inode: InodeId) -> Result<()> {
        self.fresh_inode(inode).await
    }

    async fn refresh_dir(&self, directory: InodeId) -> Result<()> {
        self.fresh_dir(directory).await
    }

    async fn refresh_tree(&self, directory: InodeId) -> Result<()> {
        let mut directories = vec![directory];
        while let Some(directory) = directories.pop() {
            self.fresh_dir(directory).await?;
            let mut after = None;
            loop {
                let (entries, more) = self.view.list(directory, after.as_deref(), 1_000)?;
                directories.extend(
                    entries
                        .iter()
                        .filter(|entry| entry.attr.is_dir())
                        .map(|entry| entry.attr.inode),
                );
                after = entries.last().map(|entry| entry.name.clone());
                if !more {
                    break;
                }
            }
        }
        Ok(())
    }

    fn may_change(&self, op: &Op, places: &[Node]) -> Result<()> {
        self.refuse(op, places)
    }
}

fn joined(key: &str, name: &str) -> String {
    if key.is_empty() {
        name.to_owned()
    } else {
        format!("{key}/{name}")
    }
}

/// Whether the entries are what a listing says: the names, their kinds and versions.
fn same(known: &[DirEntry], objects: &[UfsObject]) -> bool {
    known.len() == objects.len()
        && known.iter().zip(objects).all(|(entry, object)| {
            entry.name == object.name
                && entry.attr.kind == object.kind
                && (object.kind == FileKind::Directory || entry.attr.ufs == object.version)
        })
}

fn unsupported(node: &Node, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{node}: {why} in a mounted under file system"),
    )
}
