//! Replaces the file of the index by one without free pages. LMDB uses them again, but never gives them back to
//! the device.
//!
//! Nobody commits meanwhile; those who read notice nothing. A power cut finds the old file or the new one. Both are
//! whole and on the device, so for that time the anchor has no meta pages to put back.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

use curvine_protocol::{Error, Result};
use heed::{CompactionOption, EnvFlags};

use super::anchor::Kept;
use super::{Anchored, DATA, Index, Opened, failed};

/// What a new file is called before it takes the place of the old one. Two, because an environment is known by the path
/// that it was opened at.
const NEW: [&str; 2] = ["compact-0.mdb", "compact-1.mdb"];
/// Free bytes that are given back when nothing is going on.
const QUIET_FREE_BYTES: u64 = 256 << 10;
/// While blocks come and go, about twice what is written between two syncs is free anyway: this times as much.
const BUSY_SYNCS: u64 = 8;
/// Nobody commits while the pages in use are copied: not more than takes a second or two.
const COPIED_BYTES_MAX: u64 = 1 << 30;

/// Removes what a process left that ended meanwhile.
pub(super) fn remove_leftovers(directory: &Path) -> Result<()> {
    for name in NEW {
        for name in [name.to_owned(), format!("{name}-lock")] {
            remove_if_there(&directory.join(name))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(error).while_doing(format_args!("deleting {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether a file of this length is to be replaced by one with what of it is in use.
fn is_worth_it(file_bytes: u64, live_bytes: u64, unsynced_bytes_max: u64, quiet: bool) -> bool {
    let spare_bytes = match quiet {
        true => QUIET_FREE_BYTES,
        false => unsynced_bytes_max * BUSY_SYNCS,
    };
    live_bytes <= COPIED_BYTES_MAX && file_bytes.saturating_sub(live_bytes) > live_bytes + spare_bytes
}

impl Index {
    /// Gives free pages back to the device if more of the file is free than in use. Blocks.
    ///
    /// # Errors
    /// `Io`, `NoSpace`. From the moment on when it is not known which file a start would find, as [`Index::sync`].
    pub fn compact(&self) -> Result<()> {
        let quiet = self.quiet.swap(true, Ordering::AcqRel);
        let (file_bytes, live_bytes) = (self.file_bytes(), self.live_bytes()?);
        let in_vain = self.not_shortened_bytes.load(Ordering::Acquire) == file_bytes;
        if in_vain || !is_worth_it(file_bytes, live_bytes, self.unsynced_bytes_max, quiet) {
            return Ok(());
        }
        let _nobody_commits = self.committing.lock().expect("no holder panics");
        let mut anchored = self.anchored.lock().expect("no holder panics");
        if let Some(error) = &anchored.failed {
            return Err(error.clone());
        }
        let of_old = self.opened().env.path().to_owned();
        let name = NEW
            .iter()
            .find(|name| !of_old.ends_with(name))
            .expect("two names differ");
        let path = self.directory.join(name);
        let replaced = self
            .copied(&path)
            .and_then(|copy| self.replace(copy, &path, &mut anchored));
        replaced.map_err(|error| {
            // Not each second.
            self.not_shortened_bytes.store(file_bytes, Ordering::Release);
            // A start removes it, too.
            let _ = remove_if_there(&path);
            error.while_doing(format_args!(
                "shortening the block index in {}",
                self.directory.display()
            ))
        })
    }

    /// The pages in use, in a file of their own, on the device.
    pub(super) fn copied(&self, path: &Path) -> Result<Opened> {
        remove_if_there(path)?;
        let copy = self.opened().env.copy_to_path(path, CompactionOption::Enabled);
        drop(copy.map_err(failed)?);
        let copy = Opened::open(path, EnvFlags::NO_SUB_DIR)?;
        copy.env.force_sync().map_err(failed)?;
        Ok(copy)
    }

    /// Puts the copy in the place of the file. For a holder of `committing`.
    fn replace(&self, copy: Opened, path: &Path, anchored: &mut Anchored) -> Result<()> {
        self.opened().env.force_sync().map_err(failed)?;
        let token = self.run.clone();
        anchored.anchor.keep(&Kept { token, metas: vec![] })?;
        let renamed = std::fs::rename(path, self.directory.join(DATA))
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(Error::from);
        let replaced = renamed.and_then(|()| {
            *self.opened.write().expect("no holder panics") = copy;
            self.measure()?;
            self.anchor(anchored, &self.run)
        });
        replaced.inspect_err(|error| anchored.failed = Some(error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_when_most_of_it_is_free_and_later_while_blocks_come_and_go() {
        const MIB: u64 = 1 << 20;
        for (file, live, quiet, busy) in [
            (MIB, MIB, false, false),
            (2 * MIB, MIB, false, false),
            (3 * MIB, MIB, true, false),
            (10 * MIB, MIB, true, false),
            (11 * MIB, MIB, true, true),
            (3_000 * MIB, 1_025 * MIB, false, false),
        ] {
            let answers = [true, false].map(|is_quiet| is_worth_it(file, live, MIB, is_quiet));
            assert_eq!(answers, [quiet, busy], "{file} bytes, {live} in use");
        }
    }
}
