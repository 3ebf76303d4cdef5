//! New entries: directories, files, links, nodes.

use curvine_protocol::acl::WantedMode;
use curvine_protocol::master::{CreateFile, Entry, IfExists, MakeDir, MakeLink, MakeNode, MakeSymlink};
use curvine_protocol::path::PATH_BYTES_MAX;
use curvine_protocol::{CurvinePath, Error, ErrorKind, FileKind, FileLayout, InodeId, Node, Result};

use super::{Applies, Apply, already_exists};
use crate::master::namespace::records::{FileBody, InodeBody, InodeRecord};
use crate::master::namespace::resolve::{Place, resolve};
use crate::master::namespace::view::layout;

/// Mode of directories that are made because something below them is.
const PARENT_MODE: u32 = 0o755;
/// Names of a file. A directory may have any number of subdirectories.
const LINKS_MAX: u32 = 65_000;

fn wanted(masked: u32, unmasked: Option<u32>) -> WantedMode {
    WantedMode { masked, unmasked }
}

/// A free name in a directory.
struct Free {
    parent: InodeId,
    above: InodeRecord,
    name: String,
}

impl Apply<'_, '_> {
    pub(super) fn place(&self, node: &Node, follow: bool) -> Result<Place> {
        resolve(&self.dbs, self.txn, node, follow)
    }

    pub(super) fn existing(&self, node: &Node, follow: bool) -> Result<(InodeId, InodeRecord)> {
        self.place(node, follow)?.existing(node)
    }

    /// The directory a new name goes to.
    fn free(&self, node: &Node, entry: Option<(InodeId, String)>) -> Result<Free> {
        let Some((parent, name)) = entry else {
            return already_exists(node);
        };
        let above = self.dbs.inode_or_stale(self.txn, parent)?;
        if above.nlink == 0 {
            return Err(Error::not_found(node));
        }
        Ok(Free { parent, above, name })
    }

    /// As [`Apply::place`] for a name to be made; with `parents`, makes the directories above it first.
    fn place_new(&mut self, node: &Node, follow: bool, parents: bool) -> Result<Place> {
        match self.place(node, follow) {
            Err(error) if parents && error.kind == ErrorKind::NotFound => {
                let Node::Path(path) = node else { return Err(error) };
                self.make_parents(path)?;
                self.place(node, follow)
            }
            place => place,
        }
    }

    /// Makes the directories above a name that are not there, up to the first that cannot be one. In a loop, since a path
    /// may have thousands.
    fn make_parents(&mut self, path: &CurvinePath) -> Result<()> {
        let names: Vec<&str> = path.names().collect();
        let mut at = InodeId::ROOT;
        for (depth, name) in names.iter().enumerate().take(names.len().saturating_sub(1)) {
            let node = Node::child(at, *name);
            at = match self.place(&node, false)?.found {
                None => {
                    let made = self.apply(MakeDir {
                        node,
                        mode: PARENT_MODE,
                        parents: false,
                        unmasked: Some(0o777),
                    })?;
                    made.attr.inode
                }
                Some((inode, record)) if record.is_dir() => inode,
                Some((_, record)) if record.target().is_some() => {
                    let above = CurvinePath::parse(&format!("/{}", names[..=depth].join("/")))?;
                    self.existing(&above.into(), true)?.0
                }
                Some(_) => return Ok(()),
            };
        }
        Ok(())
    }
}

impl Applies<MakeDir> for Apply<'_, '_> {
    fn apply(&mut self, call: MakeDir) -> Result<Entry> {
        let place = self.place_new(&call.node, call.parents, call.parents)?;
        if let Some((inode, record)) = place.found {
            if call.parents && record.is_dir() {
                return Ok(self.entry(inode, &record));
            }
            return already_exists(&call.node);
        }
        let Free { parent, above, name } = self.free(&call.node, place.entry)?;
        let mut record = self.new_record(
            parent,
            &above,
            &name,
            call.mode,
            FileKind::Directory,
            InodeBody::Directory,
        );
        record.inherit(&above, wanted(call.mode, call.unmasked));
        let inode = self.insert(parent, above, &name, &record)?;
        Ok(self.entry(inode, &record))
    }
}

impl Applies<CreateFile> for Apply<'_, '_> {
    fn apply(&mut self, call: CreateFile) -> Result<FileLayout> {
        let place = self.place_new(&call.node, call.if_exists != IfExists::Fail, call.parents)?;
        if let Some((inode, record)) = place.found {
            return match call.if_exists {
                IfExists::Fail => already_exists(&call.node),
                IfExists::Open => self.open_writing(inode, record, false, &call.node),
                IfExists::Truncate => self.open_writing(inode, record, true, &call.node),
            };
        }
        let Free { parent, above, name } = self.free(&call.node, place.entry)?;
        let file = FileBody {
            block_bytes: call.block_bytes,
            replicas: call.replicas,
            lease: Some(self.client),
            needs_export: above.mount.0 != 0,
            ..FileBody::default()
        };
        let mut record = self.new_record(
            parent,
            &above,
            &name,
            call.mode,
            FileKind::File,
            InodeBody::File(file),
        );
        record.inherit(&above, wanted(call.mode, call.unmasked));
        let inode = self.insert(parent, above, &name, &record)?;
        self.put_lease(inode)?;
        if call.first_block {
            return self.add_blocks(inode, record, 0..1);
        }
        layout(&self.dbs, self.txn, inode, &record)
    }
}

impl Applies<MakeNode> for Apply<'_, '_> {
    fn apply(&mut self, call: MakeNode) -> Result<Entry> {
        let place = self.place(&call.node, false)?;
        if place.found.is_some() {
            return already_exists(&call.node);
        }
        let Free { parent, above, name } = self.free(&call.node, place.entry)?;
        let body = match call.kind {
            FileKind::File => InodeBody::File(FileBody {
                block_bytes: DEFAULT_BLOCK_BYTES,
                replicas: 1,
                needs_export: above.mount.0 != 0,
                ..FileBody::default()
            }),
            FileKind::Directory | FileKind::Symlink => {
                return Err(Error::invalid(format!(
                    "{}: a {:?} is not made by mknod",
                    call.node, call.kind
                )));
            }
            _ => InodeBody::Special(call.rdev),
        };
        let mut record = self.new_record(parent, &above, &name, call.mode, call.kind, body);
        record.inherit(&above, wanted(call.mode, call.unmasked));
        let inode = self.insert(parent, above, &name, &record)?;
        Ok(self.entry(inode, &record))
    }
}

impl Applies<MakeSymlink> for Apply<'_, '_> {
    fn apply(&mut self, call: MakeSymlink) -> Result<Entry> {
        if call.target.is_empty() || call.target.contains('\0') {
            return Err(Error::not_found(format_args!(
                "the empty target of {}",
                call.node
            )));
        }
        if call.target.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::NameTooLong,
                format!(
                    "{}: the target has {} bytes; at most {PATH_BYTES_MAX} are allowed",
                    call.node,
                    call.target.len()
                ),
            ));
        }
        let place = self.place(&call.node, false)?;
        if place.found.is_some() {
            return already_exists(&call.node);
        }
        let Free { parent, above, name } = self.free(&call.node, place.entry)?;
        let record = self.new_record(
            parent,
            &above,
            &name,
            0o777,
            FileKind::Symlink,
            InodeBody::Symlink(call.target),
        );
        let inode = self.insert(parent, above, &name, &record)?;
        Ok(self.entry(inode, &record))
    }
}

impl Applies<MakeLink> for Apply<'_, '_> {
    fn apply(&mut self, call: MakeLink) -> Result<Entry> {
        let (inode, mut record) = self.existing(&call.source, false)?;
        let place = self.place(&call.node, false)?;
        if place.found.is_some() {
            return already_exists(&call.node);
        }
        if record.is_dir() {
            return Err(Error::new(
                ErrorKind::NotPermitted,
                format!("{}: a directory cannot have a second name", call.source),
            ));
        }
        if record.nlink == 0 {
            return Err(Error::not_found(&call.source));
        }
        if record.nlink >= LINKS_MAX {
            return Err(too_many_links(&call.source));
        }
        let Free { parent, above, name } = self.free(&call.node, place.entry)?;
        if above.mount != record.mount || record.mount.0 != 0 {
            return Err(Error::new(
                ErrorKind::CrossMount,
                format!("{}: no hard links in or into a mounted file system", call.node),
            ));
        }
        self.refuse_link_below_quota(&record, parent)?;
        record.nlink += 1;
        record.ctime_ns = self.now_ns;
        self.dbs.put_inode(self.txn, inode, &record)?;
        self.dbs.put_dentry(self.txn, parent, &name, inode)?;
        self.touch_directory(parent, above)?;
        Ok(self.entry(inode, &record))
    }
}

/// Of files that nobody said more of.
pub(super) const DEFAULT_BLOCK_BYTES: u64 = 128 << 20;

fn too_many_links(node: &Node) -> Error {
    Error::new(
        ErrorKind::TooManyLinks,
        format!("{node}: has {LINKS_MAX} links already"),
    )
}
