//! Names, inodes, and the walk from one to the other.

use std::collections::BTreeMap;

use super::{Body, Errno, Ino, Inode, Kind, Model, ROOT};

/// Symbolic links followed in one walk, as Linux has it.
const LINKS_MAX: u32 = 40;
const NAME_BYTES_MAX: usize = 255;

/// Where a name is, and what is there. For the root, `name` is empty.
pub(super) struct Place {
    pub parent: Ino,
    pub name: String,
    pub found: Option<Ino>,
}

impl Model {
    pub(super) fn inode(&self, ino: Ino) -> &Inode {
        self.inodes.get(&ino).expect("what leads to an inode keeps it")
    }

    pub(super) fn inode_mut(&mut self, ino: Ino) -> &mut Inode {
        self.inodes
            .get_mut(&ino)
            .expect("what leads to an inode keeps it")
    }

    pub(super) fn kind(&self, ino: Ino) -> Kind {
        match self.inode(ino).body {
            Body::Directory { .. } => Kind::Directory,
            Body::File(_) => Kind::File,
            Body::Symlink(_) => Kind::Symlink,
        }
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.kind(ino) == Kind::Directory
    }

    pub(super) fn entries(&self, directory: Ino) -> &BTreeMap<String, Ino> {
        match &self.inode(directory).body {
            Body::Directory { entries, .. } => entries,
            _ => unreachable!("callers checked that it is a directory"),
        }
    }

    pub(super) fn entries_mut(&mut self, directory: Ino) -> &mut BTreeMap<String, Ino> {
        match &mut self.inode_mut(directory).body {
            Body::Directory { entries, .. } => entries,
            _ => unreachable!("callers checked that it is a directory"),
        }
    }

    pub(super) fn parent(&self, directory: Ino) -> Ino {
        match &self.inode(directory).body {
            Body::Directory { parent, .. } => *parent,
            _ => unreachable!("callers checked that it is a directory"),
        }
    }

    pub(super) fn content(&self, ino: Ino) -> &Vec<u8> {
        match &self.inode(ino).body {
            Body::File(bytes) => bytes,
            _ => unreachable!("handles are on files"),
        }
    }

    pub(super) fn content_mut(&mut self, ino: Ino) -> &mut Vec<u8> {
        match &mut self.inode_mut(ino).body {
            Body::File(bytes) => bytes,
            _ => unreachable!("handles are on files"),
        }
    }

    /// Follows a path. A missing last name is not an error: `found` is none then.
    pub(super) fn resolve(&self, path: &str, follow: bool) -> Result<Place, Errno> {
        let mut place = Place {
            parent: ROOT,
            name: String::new(),
            found: Some(ROOT),
        };
        self.walk(&mut place, path, follow, &mut 0)?;
        Ok(place)
    }

    /// Walks on from `place`. Names after a missing one are the error that `resolve` does not make of the last.
    fn walk(&self, place: &mut Place, path: &str, follow: bool, links: &mut u32) -> Result<(), Errno> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        for (i, name) in names.iter().enumerate() {
            let at = place.found.ok_or(Errno::NOENT)?;
            if !self.is_dir(at) {
                return Err(Errno::NOTDIR);
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            *place = Place {
                parent: at,
                name: (*name).to_owned(),
                found: self.entries(at).get(*name).copied(),
            };
            let last = i + 1 == names.len();
            if let Some(Body::Symlink(target)) = place.found.map(|ino| &self.inode(ino).body)
                && (follow || !last)
            {
                *links += 1;
                if *links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                place.found = Some(at);
                self.walk(place, target, true, links)?;
            }
        }
        Ok(())
    }

    /// The inode of a path that is there.
    pub(super) fn find(&self, path: &str, follow: bool) -> Result<Ino, Errno> {
        self.resolve(path, follow)?.found.ok_or(Errno::NOENT)
    }

    /// Whether `ancestor` is `ino` or a directory above it.
    pub(super) fn is_within(&self, mut ino: Ino, ancestor: Ino) -> bool {
        loop {
            if ino == ancestor {
                return true;
            }
            if ino == ROOT {
                return false;
            }
            ino = self.parent(ino);
        }
    }

    pub(super) fn drop_link(&mut self, ino: Ino) {
        self.inode_mut(ino).links -= 1;
        self.forget_if_unused(ino);
    }

    pub(super) fn remove_empty_dir(&mut self, parent: Ino, name: &str, ino: Ino) {
        self.entries_mut(parent).remove(name);
        self.inode_mut(parent).links -= 1;
        self.inodes.remove(&ino);
    }

    pub(super) fn forget_if_unused(&mut self, ino: Ino) {
        let open = self.handles.values().any(|handle| handle.ino == ino);
        if !open && self.inode(ino).links == 0 {
            self.inodes.remove(&ino);
        }
    }
}
