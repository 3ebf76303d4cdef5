//! A directory of a writable mount and the directory below it, where its files are kept, seen as what the model is.
//!
//! Everything is done through the mount but now and then a change of a name, which somebody else makes below it. What is
//! there is looked up on both sides. Neither is done where something is open, which may not be below yet.

use std::collections::BTreeMap;

use crate::model::{Errno, FileSystem, Kind, Op, Outcome};

/// The two sides.
pub struct Stored<S: FnMut()> {
    mounted: Box<dyn FileSystem>,
    below: Box<dyn FileSystem>,
    settle: S,
    /// Handles, by the paths that they were opened at; none since something was renamed.
    open: BTreeMap<u8, Option<String>>,
    changes: u32,
    outside_every: u32,
}

impl<S: FnMut()> Stored<S> {
    /// `settle` returns when all that was closed is below. One change of names in `outside_every` is somebody else's; none
    /// if that is 0.
    pub fn new(
        mounted: Box<dyn FileSystem>,
        below: Box<dyn FileSystem>,
        outside_every: u32,
        settle: S,
    ) -> Self {
        Stored {
            mounted,
            below,
            settle,
            open: BTreeMap::new(),
            changes: 0,
            outside_every,
        }
    }

    /// Whether a mount of objects can do it: they have no links, no modes and no attributes.
    pub fn can(op: &Op) -> bool {
        use crate::model::RenameHow::Exchange;
        !matches!(
            op,
            Op::Symlink { .. }
                | Op::Link { .. }
                | Op::Rename { how: Exchange, .. }
                | Op::SetMode { .. }
                | Op::SetXattr { .. }
                | Op::GetXattr { .. }
                | Op::ListXattrs { .. }
                | Op::RemoveXattr { .. }
        )
    }

    /// Whether a change of these names is somebody else's.
    fn is_somebody_elses(&mut self) -> bool {
        self.changes += 1;
        self.outside_every != 0 && self.changes.is_multiple_of(self.outside_every)
    }

    /// Whether nothing is open at a path, above it or below it.
    fn is_closed(&self, path: &str) -> bool {
        let is_in = |path: &str, directory: &str| {
            path.strip_prefix(directory.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut open = self.open.values();
        open.all(|open| {
            open.as_ref()
                .is_some_and(|open| !is_in(open, path) && !is_in(path, open))
        })
    }

    /// What both sides say, or, where they differ, an error that the model never gives.
    fn on_both_sides(&mut self, op: &Op) -> Result<Outcome, Errno> {
        let (above, below) = (self.mounted.apply(op), self.below.apply(op));
        let [shown, kept] =
            [&above, &below].map(|outcome| outcome.clone().map(|outcome| self.comparable(outcome)));
        match shown == kept {
            true => above,
            false => {
                eprintln!("{op:?}: the mount says {above:?}, and below there is {below:?}");
                Err(Errno::UCLEAN)
            }
        }
    }
}

impl<S: FnMut()> FileSystem for Stored<S> {
    fn apply(&mut self, op: &Op) -> Result<Outcome, Errno> {
        match op {
            Op::List { path } | Op::ReadFile { path } | Op::Stat { path, .. } if self.is_closed(path) => {
                (self.settle)();
                return self.on_both_sides(op);
            }
            Op::MakeDir { path, .. }
            | Op::Unlink { path }
            | Op::RemoveDir { path }
            | Op::Truncate { path, .. }
                if self.is_closed(path) && self.is_somebody_elses() =>
            {
                (self.settle)();
                return self.below.apply(op);
            }
            Op::Rename { from, to, .. }
                if self.is_closed(from) && self.is_closed(to) && self.is_somebody_elses() =>
            {
                (self.settle)();
                return self.below.apply(op);
            }
            _ => {}
        }
        let outcome = self.mounted.apply(op);
        match op {
            // The handle that was there is closed first.
            Op::Open { slot, .. } if outcome.is_err() => drop(self.open.remove(slot)),
            Op::Open { slot, path, .. } => drop(self.open.insert(*slot, Some(path.clone()))),
            Op::Close { slot } => drop(self.open.remove(slot)),
            Op::Rename { .. } if outcome.is_ok() => self.open.values_mut().for_each(|path| *path = None),
            _ => {}
        }
        outcome
    }

    fn comparable(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Stat(mut stat) => {
                stat.mode = 0;
                // Of a directory that others change, the number of directories in it is that of its last listing.
                if stat.kind == Kind::Directory {
                    stat.links = 0;
                }
                Outcome::Stat(stat)
            }
            outcome => outcome,
        }
    }
}
