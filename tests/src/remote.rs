//! A cluster as what the model is, through the Rust client: one client works, a second one looks.
//!
//! What is opened, written and renamed goes through the first. Whole files, attributes and listings are asked of the
//! second, after a flush of the first: close-to-open, as two machines see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use curvine_actors::client::{Client, CreateOptions, OpenFile};
use curvine_protocol::master::{AttrChange, IfExists, RenameMode};
use curvine_protocol::{Attr, CurvinePath, Error, FileKind, InodeId, Result as Asked};
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use crate::model::{Access, Errno, FileSystem, Kind, Op, Outcome, RenameHow, Stat, XattrHow};

/// A directory of a cluster.
pub struct Remote<R: FnMut(bool)> {
    runtime: Arc<Runtime>,
    worker: Client,
    watcher: Client,
    root: String,
    block_bytes: u64,
    handles: BTreeMap<u8, (OpenFile, Access)>,
    /// Stops (true: kills) the cluster, and starts it again.
    restart: R,
}

impl<R: FnMut(bool)> Remote<R> {
    /// Makes the directory `root`, which must not be there.
    ///
    /// # Errors
    /// What the cluster says.
    pub fn new(
        runtime: Arc<Runtime>,
        (worker, watcher): (Client, Client),
        root: &str,
        block_bytes: u64,
        restart: R,
    ) -> Asked<Self> {
        runtime.block_on(worker.make_dir(CurvinePath::parse(root)?, 0o755, false))?;
        Ok(Remote {
            runtime,
            worker,
            watcher,
            root: root.to_owned(),
            block_bytes,
            handles: BTreeMap::new(),
            restart,
        })
    }

    fn at(&self, path: &str) -> Asked<CurvinePath> {
        CurvinePath::parse(&format!("{}{}", self.root, path.trim_end_matches('/')))
    }

    fn file(&self, slot: u8) -> Result<&OpenFile, Errno> {
        self.handles.get(&slot).map(|(file, _)| file).ok_or(Errno::BADF)
    }

    fn writable(&self, slot: u8, otherwise: Errno) -> Result<&OpenFile, Errno> {
        match self.handles.get(&slot).ok_or(Errno::BADF)? {
            (file, Access::Write) => Ok(file),
            _ => Err(otherwise),
        }
    }

    /// Makes everything visible to the second client.
    async fn flush(&self) -> Asked<()> {
        for (file, _) in self.handles.values() {
            file.flush().await?;
        }
        Ok(())
    }

    async fn is_open(&self, path: &CurvinePath) -> Asked<Option<InodeId>> {
        match self.worker.lookup(path, false).await {
            Ok(entry) => {
                let inode = entry.attr.inode;
                let open = self.handles.values().any(|(file, _)| file.inode() == inode);
                Ok(open.then_some(inode))
            }
            Err(_) => Ok(None),
        }
    }

    async fn close(&mut self, slot: u8) -> Result<(), Refused> {
        let (file, _) = self.handles.remove(&slot).ok_or(Refused(Errno::BADF))?;
        file.close().await?;
        let inode = file.inode();
        drop(file);
        let others = self.handles.values().any(|(file, _)| file.inode() == inode);
        if !others && self.worker.stat(inode).await?.nlink == 0 {
            self.worker.release_inode(inode).await?;
        }
        Ok(())
    }

    async fn open(&mut self, op: &Op) -> Result<(), Refused> {
        let Op::Open {
            slot,
            path,
            access,
            create,
            exclusive,
            truncate,
        } = op
        else {
            unreachable!("called with an open")
        };
        if self.handles.contains_key(slot) {
            self.close(*slot).await?;
        }
        let path = self.at(path)?;
        let file = match access {
            Access::Read => self.worker.open(&path).await?,
            Access::Write if *create => {
                let options = CreateOptions {
                    if_exists: match (exclusive, truncate) {
                        (true, _) => IfExists::Fail,
                        (false, true) => IfExists::Truncate,
                        (false, false) => IfExists::Open,
                    },
                    block_bytes: self.block_bytes,
                    ..CreateOptions::default()
                };
                self.worker.create(&path, options).await?
            }
            Access::Write => self.worker.open_for_write(&path, *truncate).await?,
        };
        self.handles.insert(*slot, (file, *access));
        Ok(())
    }

    async fn change(&mut self, op: &Op) -> Result<(), Refused> {
        let worker = self.worker.clone();
        match op {
            Op::MakeDir { path, mode } => drop(worker.make_dir(self.at(path)?, *mode, false).await?),
            Op::Symlink { path, target } => drop(worker.symlink(self.at(path)?, target).await?),
            Op::Link { from, to } => drop(worker.link(self.at(from)?, self.at(to)?).await?),
            Op::Unlink { path } => {
                let path = self.at(path)?;
                let open = self.is_open(&path).await?.is_some();
                worker.unlink(path, open).await?;
            }
            Op::RemoveDir { path } => worker.remove_dir(self.at(path)?).await?,
            Op::Rename { from, to, how } => {
                let mode = match how {
                    RenameHow::Replace => RenameMode::Replace,
                    RenameHow::NoReplace => RenameMode::NoReplace,
                    RenameHow::Exchange => RenameMode::Exchange,
                };
                let to = self.at(to)?;
                let open = self.is_open(&to).await?.is_some();
                worker.rename(self.at(from)?, to, mode, open).await?;
            }
            Op::SetMode { path, mode } => {
                let change = AttrChange {
                    mode: Some(*mode),
                    ..AttrChange::default()
                };
                worker.set_attr(self.at(path)?, true, change).await?;
            }
            Op::Truncate { path, size } => {
                let change = AttrChange {
                    size_bytes: Some(*size),
                    ..AttrChange::default()
                };
                worker.set_attr(self.at(path)?, true, change).await?;
            }
            Op::SetXattr {
                path,
                name,
                value,
                how,
            } => {
                let (create, replace) = (*how == XattrHow::Create, *how == XattrHow::Replace);
                worker
                    .set_xattr(self.at(path)?, name, value, create, replace)
                    .await?;
            }
            Op::RemoveXattr { path, name } => worker.remove_xattr(self.at(path)?, name).await?,
            other => unreachable!("{other:?} is no change of names"),
        }
        Ok(())
    }

    /// What the second client sees.
    async fn look(&self, op: &Op) -> Result<Outcome, Refused> {
        self.flush().await?;
        let watcher = &self.watcher;
        Ok(match op {
            Op::Stat { path, follow } => stat(&watcher.lookup(self.at(path)?, *follow).await?.attr),
            Op::List { path } => {
                let entries: Vec<_> = watcher.list(self.at(path)?).try_collect().await?;
                let named = entries
                    .into_iter()
                    .map(|entry| (entry.name, Some(kind(entry.attr.kind))));
                Outcome::Names(named.collect())
            }
            Op::ReadLink { path } => {
                let target = watcher.lookup(self.at(path)?, false).await?.target;
                Outcome::Target(target.ok_or(Refused(Errno::INVAL))?)
            }
            Op::ReadFile { path } => Outcome::Bytes(watcher.read(self.at(path)?).await?.to_vec()),
            Op::GetXattr { path, name } => Outcome::Bytes(watcher.xattr(self.at(path)?, name).await?),
            Op::ListXattrs { path } => {
                let names = watcher.xattr_names(self.at(path)?).await?;
                Outcome::Names(names.into_iter().map(|name| (name, None)).collect())
            }
            other => unreachable!("{other:?} is no look"),
        })
    }

    async fn on_handle(&self, op: &Op) -> Result<Outcome, Refused> {
        Ok(match op {
            Op::Read { slot, offset, len } => {
                Outcome::Bytes(self.file(*slot)?.read_at(*offset, *len).await?.to_vec())
            }
            Op::Write { slot, offset, bytes } => {
                let file = self.writable(*slot, Errno::BADF)?;
                file.write_at(*offset, Bytes::from(bytes.make())).await?;
                Outcome::Done
            }
            Op::Append { slot, bytes } => {
                let file = self.writable(*slot, Errno::BADF)?;
                Outcome::Position(file.append(Bytes::from(bytes.make())).await?)
            }
            Op::TruncateHandle { slot, size } => {
                self.writable(*slot, Errno::INVAL)?.truncate(*size).await?;
                Outcome::Done
            }
            Op::StatHandle { slot } => {
                let file = self.file(*slot)?;
                let attr = self.worker.stat(file.inode()).await?;
                // As a mount does: what is read from now on is not older than what was shown.
                file.named(attr.content_version);
                stat(&file.with_what_is_written(attr).await)
            }
            Op::Flush { slot } => {
                self.file(*slot)?.flush().await?;
                Outcome::Done
            }
            Op::Sync { slot } => {
                self.file(*slot)?.sync().await?;
                Outcome::Done
            }
            other => unreachable!("{other:?} is not about a handle"),
        })
    }
}

impl<R: FnMut(bool)> FileSystem for Remote<R> {
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno> {
        let runtime = self.runtime.clone();
        let outcome = match op {
            Op::Restart { kill } => {
                (self.restart)(*kill);
                Ok(Outcome::Done)
            }
            Op::Open { .. } => runtime.block_on(self.open(op)).map(|()| Outcome::Done),
            Op::Close { slot } => runtime.block_on(self.close(*slot)).map(|()| Outcome::Done),
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Append { .. }
            | Op::TruncateHandle { .. }
            | Op::StatHandle { .. }
            | Op::Flush { .. }
            | Op::Sync { .. } => runtime.block_on(self.on_handle(op)),
            Op::Stat { .. }
            | Op::List { .. }
            | Op::ReadLink { .. }
            | Op::ReadFile { .. }
            | Op::GetXattr { .. }
            | Op::ListXattrs { .. } => runtime.block_on(self.look(op)),
            _ => runtime.block_on(self.change(op)).map(|()| Outcome::Done),
        };
        outcome.map_err(|Refused(errno)| errno)
    }
}

/// An error as a system call would give it.
struct Refused(Errno);

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Refused(errno)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        if matches!(
            error.errno(),
            libc::EIO | libc::ESTALE | libc::ETIMEDOUT | libc::EAGAIN
        ) {
            // No sequence should meet one of these: the message says more than the number.
            eprintln!("{:?}: {error}", error.kind);
        }
        Refused(Errno::from_raw_os_error(error.errno()))
    }
}

fn kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        _ => Kind::File,
    }
}

fn stat(attr: &Attr) -> Outcome {
    let kind = kind(attr.kind);
    Outcome::Stat(Stat {
        kind,
        mode: attr.mode,
        links: attr.nlink,
        size: (kind != Kind::Directory).then_some(attr.size_bytes),
    })
}
