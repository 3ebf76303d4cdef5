//! Keeps the namespace below mounts in step with the under file systems.
//!
//! A name or directory is asked for at most once per staleness period of its mount (`listings.rs`); a command is proposed only
//! where the answer and the namespace differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::mount::{HiddenKeys, MountRecord};
use curvine_protocol::op::Op;
use curvine_protocol::{CurvinePath, Error, ErrorKind, FileKind, InodeId, MountId, Node, Result};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::kit::Ports;
use crate::kit::ports::MakeOffload;
use crate::master::contract::{NamespaceView, ProposeOp, UfsView};
use crate::master::listings::{Listings, Place};
use crate::ufs::names::HiddenNames;
use crate::ufs::{Ufs, joined};

/// For opening an under file system, which connects to nothing.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

pub struct Mirror {
    pub(super) view: Arc<dyn NamespaceView>,
    threads: MakeOffload,
    listings: Listings,
    /// With the record that each was opened by: it may have changed since.
    opened: Mutex<HashMap<MountId, (MountRecord, Ufs)>>,
    /// Under file systems that are being opened, each by one thread however often it is asked for.
    opening: Mutex<HashMap<MountId, (MountRecord, Opening)>>,
}

/// Says what came of it, when that is known.
type Opening = watch::Receiver<Option<Result<Ufs>>>;

/// A place in a mount.
pub(super) struct Spot {
    pub mount: MountRecord,
    pub ufs: Ufs,
    pub key: String,
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
            listings: Listings::new(view.clone(), propose, ports.clock.clone()),
            view,
            threads: ports.offload.clone(),
            opened: Mutex::default(),
            opening: Mutex::default(),
        }
    }

    async fn ufs(&self, mount: &MountRecord) -> Result<Ufs> {
        if let Some((by, ufs)) = locked(&self.opened).get(&mount.id)
            && by.opens_as(mount)
        {
            return Ok(ufs.clone());
        }
        let mut opening = self.opening(mount);
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
        locked(&self.opening).retain(|id, (by, _)| *id != mount.id || !by.opens_as(mount));
        let ufs =
            outcome.unwrap_or_else(|| Err(Error::new(ErrorKind::Stopping, "the master is stopping")))?;
        let mounts = self.view.mounts()?;
        let mut opened = locked(&self.opened);
        opened.retain(|id, _| mounts.iter().any(|mount| mount.id == *id));
        opened.insert(mount.id, (mount.clone(), ufs.clone()));
        drop(opened);
        Ok(ufs)
    }

    /// What opens a mount as this record says; it may be under way.
    fn opening(&self, mount: &MountRecord) -> Opening {
        let mut under_way = locked(&self.opening);
        if let Some((by, opening)) = under_way.get(&mount.id)
            && by.opens_as(mount)
        {
            return opening.clone();
        }
        let opening = begin_to_open(mount.clone(), &self.threads);
        under_way.insert(mount.id, (mount.clone(), opening.clone()));
        opening
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

    /// The place that a node names, whether it exists or not.
    pub(super) async fn spot_of(&self, node: &Node) -> Result<Option<Spot>> {
        match node {
            Node::Inode(inode) => self.spot(*inode).await,
            Node::Child { parent, name } => {
                let spot = self.spot(*parent).await?;
                Ok(spot.map(|spot| Spot {
                    key: joined(&spot.key, name),
                    ..spot
                }))
            }
            Node::Path(path) => {
                let Some(mount) = self.mount_over(path)? else {
                    return Ok(None);
                };
                let key = mount.path.relative(path).unwrap_or_default().to_owned();
                let ufs = self.ufs(&mount).await?;
                Ok(Some(Spot { mount, ufs, key }))
            }
        }
    }

    /// The place of a directory; none outside mounts.
    async fn place(&self, directory: InodeId) -> Result<Option<Place>> {
        let spot = self.spot(directory).await?;
        Ok(spot.map(|spot| Place {
            mount: spot.mount,
            ufs: spot.ufs,
            key: spot.key,
            directory,
        }))
    }

    /// As [`UfsView::refresh_dir`], for any directory.
    pub async fn fresh_dir(&self, directory: InodeId) -> Result<()> {
        match self.place(directory).await? {
            Some(place) => self.listings.fresh_dir(&place).await,
            None => Ok(()),
        }
    }

    /// Makes everything in a directory fresh.
    pub(super) async fn fresh_tree(&self, directory: InodeId) -> Result<()> {
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

    async fn fresh_child(&self, directory: InodeId, name: &str) -> Result<()> {
        match self.place(directory).await? {
            Some(place) => self.listings.fresh_child(&place, name).await,
            None => Ok(()),
        }
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
            if let Some(place) = self.place(directory).await? {
                self.listings.doubt(&place, name).await?;
            }
        }
        Ok(())
    }

    /// Keys of a mount that are not shown, of the directories that were listed.
    pub fn hidden(&self, mount: MountId) -> Vec<HiddenKeys> {
        self.listings.hidden(mount)
    }

    /// What a directory of a mount, and those below it, were found to have and do not show.
    ///
    /// # Errors
    /// `Stale` if there is no such directory.
    pub(super) fn hidden_below(&self, mount: MountId, top: InodeId) -> Result<HiddenNames> {
        self.listings.hidden_below(mount, top)
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
            // What it does is checked where it is applied.
            let is_rule = matches!(op, Op::SetTtl(_) | Op::SetTier(_));
            if !mount.settings.writable && !is_rule {
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
    ///
    /// # Errors
    /// Those of reading the state.
    pub async fn forget_keys(&self, mount: MountId, keys: impl Iterator<Item = &str>) -> Result<()> {
        let Some(mount) = self.view.mount(mount)? else {
            return Ok(());
        };
        for key in keys {
            let path = CurvinePath::parse(&format!("{}/{key}", mount.path))?;
            if let (Some(parent), Some(name)) = (path.parent(), path.name())
                && let Ok(directory) = self.view.lookup(&Node::Path(parent), false)
                && let Some(place) = self.place(directory.attr.inode).await?
            {
                self.listings.forget(&place, name)?;
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

    async fn may_change(&self, op: &Op, places: &[Node]) -> Result<()> {
        self.refuse(op, places)?;
        self.refuse_keys(op, places).await
    }
}

fn unsupported(node: &Node, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{node}: {why} in a mounted under file system"),
    )
}
