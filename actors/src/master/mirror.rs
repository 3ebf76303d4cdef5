//! Keeps the namespace below mounts in step with the under file systems.
//!
//! A name or directory is asked for at most once per staleness period of its mount (`listings.rs`); a command is proposed only
//! where the answer and the namespace differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::master::{Delete, RenameMode};
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
    opened: Mutex<HashMap<MountId, Ufs>>,
    /// Under file systems that are being opened, each by one thread however often it is asked for.
    opening: Mutex<HashMap<MountId, Opening>>,
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
        let mounts = self.view.mounts()?;
        let mut opened = locked(&self.opened);
        opened.retain(|id, _| mounts.iter().any(|mount| mount.id == *id));
        opened.insert(mount.id, ufs.clone());
        drop(opened);
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

    async fn change(&self, op: &Op) -> Result<()> {
        let nodes = op.nodes();
        let Some(&node) = nodes.first() else { return Ok(()) };
        let mut spots = Vec::new();
        for node in &nodes {
            let spot = self.spot_of(node).await?;
            if let Some(spot) = spot.as_ref().filter(|spot| !spot.mount.settings.writable) {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    format!(
                        "{node}: {} is mounted read-only on {}; mount it with `cv mount --write` to change it",
                        spot.mount.uri, spot.mount.path
                    ),
                ));
            }
            spots.push(spot);
        }
        self.refuse_keys(op).await?;
        let mut spots = spots.into_iter();
        let (Some(spot), second) = (spots.next().flatten(), spots.next().flatten()) else {
            return Ok(());
        };
        let known = self.view.lookup(node, false).ok();
        match op {
            Op::MakeDir(call) if known.is_none() && self.can_hold(node, call.parents) => {
                spot.ufs.make_dir(&spot.key).await
            }
            Op::Unlink(_) | Op::Delete(_) if known.as_ref().is_some_and(|entry| !entry.attr.is_dir()) => {
                spot.ufs.delete(&spot.key).await
            }
            Op::RemoveDir(_) | Op::Delete(Delete { recursive: false, .. }) => match known {
                Some(entry) if !spot.key.is_empty() && self.is_empty(entry.attr.inode).await? => {
                    spot.ufs.delete_dir(&spot.key).await
                }
                _ => Ok(()),
            },
            Op::Delete(delete) if delete.recursive && known.is_some() && !spot.key.is_empty() => {
                spot.ufs.delete_tree(&spot.key).await
            }
            Op::Rename(rename) => match (known, second) {
                (Some(entry), Some(to)) if to.mount.id == spot.mount.id => {
                    if rename.mode == RenameMode::Exchange {
                        return Err(unsupported(node, "entries cannot be exchanged"));
                    }
                    self.move_objects(&spot, &to, entry.attr.is_dir(), rename).await
                }
                _ => Ok(()),
            },
            Op::MakeSymlink(_) | Op::MakeLink(_) => Err(unsupported(node, "links cannot be stored")),
            Op::MakeNode(call) if call.kind != FileKind::File => Err(unsupported(
                node,
                "device nodes, FIFOs and sockets cannot be stored",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a directory holds nothing, as its under file system has it now.
    async fn is_empty(&self, directory: InodeId) -> Result<bool> {
        self.fresh_dir(directory).await?;
        Ok(self.view.list(directory, None, 1)?.0.is_empty())
    }

    /// Whether there is a directory for a new entry; with `parents`, whether one can be made.
    fn can_hold(&self, node: &Node, parents: bool) -> bool {
        let is_dir = |node: &Node| self.view.lookup(node, false).map(|entry| entry.attr.is_dir());
        match node {
            Node::Inode(_) => false,
            Node::Child { parent, .. } => is_dir(&Node::Inode(*parent)) == Ok(true),
            Node::Path(path) => {
                let above = std::iter::successors(path.parent(), CurvinePath::parent);
                let mut known = above.map(|path| is_dir(&Node::Path(path)));
                match parents {
                    true => known.find(std::result::Result::is_ok) == Some(Ok(true)),
                    false => known.next() == Some(Ok(true)),
                }
            }
        }
    }

    /// Copies everything, then deletes everything: a crash in between leaves both, never neither.
    async fn move_objects(
        &self,
        from: &Spot,
        to: &Spot,
        is_dir: bool,
        rename: &curvine_protocol::master::Rename,
    ) -> Result<()> {
        let inside = to
            .key
            .strip_prefix(&from.key)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if inside || !self.can_hold(&rename.to, false) {
            // To the same name, into itself, or nowhere: there is nothing to move, or the namespace refuses it.
            return Ok(());
        }
        if let Ok(target) = self.view.lookup(&rename.to, false) {
            let empty = !target.attr.is_dir() || self.is_empty(target.attr.inode).await?;
            if rename.mode == RenameMode::NoReplace || target.attr.is_dir() != is_dir || !empty {
                // The namespace refuses it, with its reason.
                return Ok(());
            }
        }
        if !is_dir {
            if from.ufs.stat(&from.key).await?.is_some() {
                from.ufs.copy(&from.key, &to.key).await?;
                from.ufs.delete(&from.key).await?;
            }
            return Ok(());
        }
        from.ufs.make_dir(&to.key).await?;
        for key in from.ufs.keys_below(&from.key).await? {
            let relative = key.strip_prefix(&from.key).unwrap_or(&key);
            from.ufs.copy(&key, &format!("{}{relative}", to.key)).await?;
        }
        from.ufs.delete_tree(&from.key).await
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

    async fn before_change(&self, op: &Op) -> Result<()> {
        self.change(op).await
    }
}

fn unsupported(node: &Node, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("{node}: {why} in a mounted under file system"),
    )
}
