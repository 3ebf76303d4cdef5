//! A data directory that is not where it was: moved, removed or unmounted under a running worker.
//!
//! Its blocks are not gone one by one, and may be back with it: nothing is changed in the index, which may be on the device that
//! comes back. The disk has failed, until the worker is started again, and the master hears that it has none of its blocks,
//! so that others make replicas of what they have.

use std::path::Path;
use std::sync::atomic::Ordering;

use curvine_protocol::{Error, ErrorKind, Result};

use super::super::BlockNews;
use super::Store;

/// A directory, whatever its name: its device and its inode.
pub type Place = (u64, u64);

/// The directory that has this name now, if one has.
pub fn place_of(path: &Path) -> Option<Place> {
    let found = rustix::fs::stat(path).ok()?;
    Some((found.st_dev, found.st_ino))
}

impl Store {
    /// # Errors
    /// `Io` if the directory is not the one that it was when the disk was opened.
    pub fn check_in_place(&self) -> Result<()> {
        match place_of(&self.directory.path) == self.place {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Io,
                format!(
                    "the data directory {} is not there any more, or another one is; put it back, and start the worker again",
                    self.name
                ),
            )),
        }
    }

    /// Whether the directory was found not to be there.
    pub fn has_vanished(&self) -> bool {
        self.vanished.load(Ordering::Acquire)
    }

    /// Looks whether the directory is there, and tells the master once if it is not. For the background thread.
    ///
    /// # Errors
    /// `Io` if it is not.
    pub fn look_for_directory(&self) -> Result<()> {
        let Err(error) = self.check_in_place() else {
            return Ok(());
        };
        if !self.vanished.swap(true, Ordering::AcqRel) {
            // From here on a full report has none of them.
            self.give_up(&error);
            (self.news)(BlockNews::Everything);
        }
        Err(error)
    }
}
