//! `renameat2(2)`, in the order in which Linux finds fault.

use super::tree::Place;
use super::{Body, Errno, Ino, Model, Outcome, RenameHow};

impl Model {
    pub(super) fn rename(&mut self, from: &str, to: &str, how: RenameHow) -> Result<Outcome, Errno> {
        let from = self.resolve(from, false)?;
        let to = self.resolve(to, false)?;
        let moved = from.found.ok_or(Errno::NOENT)?;
        match (how, to.found) {
            (RenameHow::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameHow::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if self.is_dir(moved) && self.is_within(to.parent, moved) {
            return Err(Errno::INVAL);
        }
        let Some(old) = to.found else {
            self.put(&from, &to, moved);
            return Ok(Outcome::Done);
        };
        if self.is_dir(old) && self.is_within(from.parent, old) {
            return Err(match how {
                RenameHow::Exchange => Errno::INVAL,
                _ => Errno::NOTEMPTY,
            });
        }
        if old == moved {
            return Ok(Outcome::Done);
        }
        match (how, self.is_dir(moved), self.is_dir(old)) {
            (RenameHow::Exchange, _, _) => {
                self.set(to.parent, &to.name, moved);
                self.set(from.parent, &from.name, old);
                self.moved(moved, from.parent, to.parent);
                self.moved(old, to.parent, from.parent);
            }
            (_, true, false) => return Err(Errno::NOTDIR),
            (_, false, true) => return Err(Errno::ISDIR),
            (_, true, true) if !self.entries(old).is_empty() => return Err(Errno::NOTEMPTY),
            (_, true, true) => {
                self.remove_empty_dir(to.parent, &to.name, old);
                self.put(&from, &to, moved);
            }
            (_, false, false) => {
                self.put(&from, &to, moved);
                self.drop_link(old);
            }
        }
        Ok(Outcome::Done)
    }

    fn set(&mut self, directory: Ino, name: &str, ino: Ino) {
        self.entries_mut(directory).insert(name.to_owned(), ino);
    }

    fn put(&mut self, from: &Place, to: &Place, ino: Ino) {
        self.entries_mut(from.parent).remove(&from.name);
        self.set(to.parent, &to.name, ino);
        self.moved(ino, from.parent, to.parent);
    }

    /// A directory's `..` counts as a link to where it is.
    fn moved(&mut self, ino: Ino, from: Ino, to: Ino) {
        if let Body::Directory { parent, .. } = &mut self.inode_mut(ino).body {
            *parent = to;
            self.inode_mut(from).links -= 1;
            self.inode_mut(to).links += 1;
        }
    }
}
