//! A POSIX file system in memory: the reference that every other one is compared with.
//!
//! It does what Linux does, errno by errno, as root sees it and with umask 0. It is checked itself against directories
//! of this machine (`tests/model.rs`), so where it and Curvine differ, Curvine is wrong.
//!
//! Not modelled: times, owners, permissions, set-user-id, devices.
//!
//! Invariant: an inode exists exactly as long as a name or a handle leads to it.

mod ops;
mod rename;
mod tree;

use curvine_protocol::number::to_usize;
use std::collections::BTreeMap;

pub use ops::{Access, Kind, Op, Outcome, Pattern, RenameHow, Stat, XattrHow};
pub use rustix::io::Errno;

/// Anything that can be asked what the model is asked.
pub trait FileSystem {
    /// Does one operation. `Op::Open` on a slot in use closes that handle first.
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno>;

    /// Of an outcome, what this one can be held to.
    fn comparable(&self, outcome: Outcome) -> Outcome {
        outcome
    }
}

type Ino = u64;
const ROOT: Ino = 1;

/// The reference file system.
pub struct Model {
    inodes: BTreeMap<Ino, Inode>,
    last: Ino,
    handles: BTreeMap<u8, Handle>,
}

#[derive(Clone, Debug)]
struct Inode {
    mode: u32,
    links: u32,
    body: Body,
    xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Body {
    Directory {
        parent: Ino,
        entries: BTreeMap<String, Ino>,
    },
    File(Vec<u8>),
    Symlink(String),
}

#[derive(Clone, Copy, Debug)]
struct Handle {
    ino: Ino,
    access: Access,
}

impl Default for Model {
    fn default() -> Self {
        let root = Inode {
            mode: 0o755,
            links: 2,
            body: Body::Directory {
                parent: ROOT,
                entries: BTreeMap::new(),
            },
            xattrs: BTreeMap::new(),
        };
        Model {
            inodes: BTreeMap::from([(ROOT, root)]),
            last: ROOT,
            handles: BTreeMap::new(),
        }
    }
}

impl FileSystem for Model {
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno> {
        match op {
            Op::MakeDir { path, mode } => self.make_dir(path, *mode),
            Op::Symlink { path, target } => {
                let body = Body::Symlink(target.clone());
                self.add(path, 0o777, body).map(|_| Outcome::Done)
            }
            Op::Link { from, to } => self.link(from, to),
            Op::Unlink { path } => self.unlink(path),
            Op::RemoveDir { path } => self.remove_dir(path),
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            Op::Stat { path, follow } => Ok(Outcome::Stat(self.stat(self.find(path, *follow)?))),
            Op::List { path } => self.list(path),
            Op::ReadLink { path } => match &self.inode(self.find(path, false)?).body {
                Body::Symlink(target) => Ok(Outcome::Target(target.clone())),
                _ => Err(Errno::INVAL),
            },
            Op::SetMode { path, mode } => {
                let ino = self.find(path, true)?;
                self.inode_mut(ino).mode = *mode;
                Ok(Outcome::Done)
            }
            Op::Truncate { path, size } => {
                let ino = self.find(path, true)?;
                match &mut self.inode_mut(ino).body {
                    Body::File(bytes) => bytes.resize(to_usize(*size), 0),
                    Body::Directory { .. } => return Err(Errno::ISDIR),
                    Body::Symlink(_) => unreachable!("the path was followed"),
                }
                Ok(Outcome::Done)
            }
            Op::ReadFile { path } => match &self.inode(self.find(path, true)?).body {
                Body::File(bytes) => Ok(Outcome::Bytes(bytes.clone())),
                _ => Err(Errno::ISDIR),
            },
            Op::SetXattr {
                path,
                name,
                value,
                how,
            } => self.set_xattr(path, name, value, *how),
            Op::GetXattr { path, name } => {
                let value = self.inode(self.find(path, true)?).xattrs.get(name);
                value.cloned().map(Outcome::Bytes).ok_or(Errno::NODATA)
            }
            Op::ListXattrs { path } => {
                let names = self.inode(self.find(path, true)?).xattrs.keys();
                Ok(Outcome::Names(names.map(|name| (name.clone(), None)).collect()))
            }
            Op::RemoveXattr { path, name } => {
                let ino = self.find(path, true)?;
                let value = self.inode_mut(ino).xattrs.remove(name);
                value.map(|_| Outcome::Done).ok_or(Errno::NODATA)
            }
            Op::Open {
                slot,
                path,
                access,
                create,
                exclusive,
                truncate,
            } => {
                self.close(*slot);
                let ino = self.open(path, *access, *create, *exclusive, *truncate)?;
                let access = *access;
                self.handles.insert(*slot, Handle { ino, access });
                Ok(Outcome::Done)
            }
            Op::Close { slot } => {
                let handle = self.handles.get(slot).ok_or(Errno::BADF)?;
                let _ = handle;
                self.close(*slot);
                Ok(Outcome::Done)
            }
            Op::Read { slot, offset, len } => {
                let bytes = self.content(self.handle(*slot)?.ino);
                let start = to_usize((*offset).min(bytes.len() as u64));
                let end = to_usize((offset + len).min(bytes.len() as u64));
                Ok(Outcome::Bytes(bytes[start..end].to_vec()))
            }
            Op::Write { slot, offset, bytes } => {
                let ino = self.writable(*slot, Errno::BADF)?;
                self.write(ino, to_usize(*offset), &bytes.make());
                Ok(Outcome::Done)
            }
            Op::Append { slot, bytes } => {
                let ino = self.writable(*slot, Errno::BADF)?;
                let end = self.content(ino).len();
                self.write(ino, end, &bytes.make());
                Ok(Outcome::Position(end as u64))
            }
            Op::TruncateHandle { slot, size } => {
                let ino = self.writable(*slot, Errno::INVAL)?;
                self.content_mut(ino).resize(to_usize(*size), 0);
                Ok(Outcome::Done)
            }
            Op::StatHandle { slot } => Ok(Outcome::Stat(self.stat(self.handle(*slot)?.ino))),
            Op::Flush { slot } | Op::Sync { slot } => self.handle(*slot).map(|_| Outcome::Done),
            Op::Restart { .. } => Ok(Outcome::Done),
        }
    }
}

impl Model {
    fn make_dir(&mut self, path: &str, mode: u32) -> Result<Outcome, Errno> {
        let body = Body::Directory {
            parent: ROOT,
            entries: BTreeMap::new(),
        };
        self.add(path, mode, body).map(|_| Outcome::Done)
    }

    /// Adds a new inode under a free name; the last name of the path is not followed.
    fn add(&mut self, path: &str, mode: u32, body: Body) -> Result<Ino, Errno> {
        let place = self.resolve(path, false)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        Ok(self.add_at(place.parent, &place.name, mode, body))
    }

    fn add_at(&mut self, parent: Ino, name: &str, mode: u32, mut body: Body) -> Ino {
        self.last += 1;
        let ino = self.last;
        let mut links = 1;
        if let Body::Directory { parent: above, .. } = &mut body {
            *above = parent;
            links = 2;
            self.inode_mut(parent).links += 1;
        }
        let xattrs = BTreeMap::new();
        self.inodes.insert(
            ino,
            Inode {
                mode,
                links,
                body,
                xattrs,
            },
        );
        self.entries_mut(parent).insert(name.to_owned(), ino);
        ino
    }

    fn link(&mut self, from: &str, to: &str) -> Result<Outcome, Errno> {
        let source = self.find(from, false)?;
        let place = self.resolve(to, false)?;
        if place.found.is_some() {
            return Err(Errno::EXIST);
        }
        if self.is_dir(source) {
            return Err(Errno::PERM);
        }
        self.inode_mut(source).links += 1;
        self.entries_mut(place.parent).insert(place.name, source);
        Ok(Outcome::Done)
    }

    fn unlink(&mut self, path: &str) -> Result<Outcome, Errno> {
        let place = self.resolve(path, false)?;
        let ino = place.found.ok_or(Errno::NOENT)?;
        if self.is_dir(ino) {
            return Err(Errno::ISDIR);
        }
        self.entries_mut(place.parent).remove(&place.name);
        self.drop_link(ino);
        Ok(Outcome::Done)
    }

    fn remove_dir(&mut self, path: &str) -> Result<Outcome, Errno> {
        let place = self.resolve(path, false)?;
        let ino = place.found.ok_or(Errno::NOENT)?;
        if !self.is_dir(ino) {
            return Err(Errno::NOTDIR);
        }
        if !self.entries(ino).is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove_empty_dir(place.parent, &place.name, ino);
        Ok(Outcome::Done)
    }

    fn list(&self, path: &str) -> Result<Outcome, Errno> {
        let ino = self.find(path, true)?;
        if !self.is_dir(ino) {
            return Err(Errno::NOTDIR);
        }
        let entries = self.entries(ino).iter();
        let named = entries.map(|(name, ino)| (name.clone(), Some(self.kind(*ino))));
        Ok(Outcome::Names(named.collect()))
    }

    fn set_xattr(&mut self, path: &str, name: &str, value: &[u8], how: XattrHow) -> Result<Outcome, Errno> {
        let ino = self.find(path, true)?;
        let xattrs = &mut self.inode_mut(ino).xattrs;
        match (how, xattrs.contains_key(name)) {
            (XattrHow::Create, true) => return Err(Errno::EXIST),
            (XattrHow::Replace, false) => return Err(Errno::NODATA),
            _ => xattrs.insert(name.to_owned(), value.to_vec()),
        };
        Ok(Outcome::Done)
    }

    fn open(
        &mut self,
        path: &str,
        access: Access,
        create: bool,
        exclusive: bool,
        truncate: bool,
    ) -> Result<Ino, Errno> {
        let place = self.resolve(path, !(create && exclusive))?;
        let ino = match place.found {
            Some(_) if create && exclusive => return Err(Errno::EXIST),
            Some(ino) if self.is_dir(ino) => return Err(Errno::ISDIR),
            Some(ino) => ino,
            None if create => self.add_at(place.parent, &place.name, 0o644, Body::File(Vec::new())),
            None => return Err(Errno::NOENT),
        };
        if truncate && access == Access::Write {
            self.content_mut(ino).clear();
        }
        Ok(ino)
    }

    fn close(&mut self, slot: u8) {
        if let Some(handle) = self.handles.remove(&slot) {
            self.forget_if_unused(handle.ino);
        }
    }

    fn handle(&self, slot: u8) -> Result<Handle, Errno> {
        self.handles.get(&slot).copied().ok_or(Errno::BADF)
    }

    fn writable(&self, slot: u8, otherwise: Errno) -> Result<Ino, Errno> {
        let handle = self.handle(slot)?;
        match handle.access {
            Access::Write => Ok(handle.ino),
            Access::Read => Err(otherwise),
        }
    }

    fn write(&mut self, ino: Ino, offset: usize, bytes: &[u8]) {
        let content = self.content_mut(ino);
        if bytes.is_empty() {
            return;
        }
        if content.len() < offset + bytes.len() {
            content.resize(offset + bytes.len(), 0);
        }
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn stat(&self, ino: Ino) -> Stat {
        let inode = self.inode(ino);
        Stat {
            kind: self.kind(ino),
            mode: inode.mode,
            links: inode.links,
            size: match &inode.body {
                Body::Directory { .. } => None,
                Body::File(bytes) => Some(bytes.len() as u64),
                Body::Symlink(target) => Some(target.len() as u64),
            },
        }
    }
}
