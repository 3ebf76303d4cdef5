//! Whether the state on disk can be believed.
//!
//! The state's environment runs with `MDB_NOSYNC`: its commits reach the page cache, which a killed process leaves
//! intact and a crashed kernel or a power cut does not. The log is always synced, so the state can be made again from
//! the last snapshot and the log behind it. This module says when that is due: when the state was in use under another
//! boot of the kernel or another mount of its file system, and was not closed cleanly.
//!
//! The mark is a file beside the state: `clean`, or the token of the boot and mount under which it is in use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use curvine_protocol::{Error, Result};
use rustix::fs::{AtFlags, StatxFlags};

use crate::durable;

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): an id that no other mount has until the next boot.
const MOUNT_ID_UNIQUE: u32 = 0x4000;
const CLEAN: &str = "clean";

/// The mark of one state directory.
#[derive(Clone, Debug)]
pub struct Trust {
    mark: PathBuf,
    token: String,
}

impl Trust {
    /// For the state in `directory/state`.
    pub fn new(directory: &Path) -> Result<Trust> {
        let token = token(directory).map_err(|e| {
            Error::from(e).while_doing(format_args!("identifying the mount of {}", directory.display()))
        })?;
        Ok(Trust {
            mark: directory.join("state.trust"),
            token,
        })
    }

    /// Whether what is in the state was all written: it was closed cleanly, or used under this boot and mount only.
    pub fn holds(&self) -> bool {
        fs::read_to_string(&self.mark).is_ok_and(|mark| mark == CLEAN || mark == self.token)
    }

    /// Before the first change.
    pub fn in_use(&self) -> Result<()> {
        self.write(&self.token)
    }

    /// After the last change was synced.
    pub fn clean(&self) -> Result<()> {
        self.write(CLEAN)
    }

    fn write(&self, content: &str) -> Result<()> {
        let fresh = self.mark.with_extension("new");
        durable::replace(&self.mark, &fresh, content.as_bytes())
            .map_err(|e| Error::from(e).while_doing(format_args!("writing {}", self.mark.display())))
    }
}

/// This boot of the kernel and this mount of the directory's file system.
fn token(directory: &Path) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let directory = File::open(directory)?;
    let flags = StatxFlags::from_bits_retain(MOUNT_ID_UNIQUE);
    let status = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, flags)?;
    // An older kernel leaves the bit unset; the mount is then not told apart, only the boot.
    let mount = if status.stx_mask & MOUNT_ID_UNIQUE != 0 {
        status.stx_mnt_id
    } else {
        0
    };
    Ok(format!("{} {mount}", boot.trim()))
}

/// Makes the state afresh: from the current snapshot, or empty. The log does the rest.
pub fn restore(state: &Path, snapshot: Option<&Path>) -> Result<()> {
    let restore = || -> io::Result<()> {
        match fs::remove_dir_all(state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(state)?,
        }
        if let Some(snapshot) = snapshot {
            let data = state.join("data.mdb");
            fs::copy(snapshot, &data)?;
            File::open(&data)?.sync_all()?;
            File::open(state)?.sync_all()?;
        }
        Ok(())
    };
    restore().map_err(|e| Error::from(e).while_doing(format_args!("restoring {}", state.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_trusted_under_its_mount_or_when_clean() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let trust = Trust::new(scratch.path()).expect("the mount is known");
        assert!(!trust.holds(), "nothing was ever said of it");
        trust.in_use().expect("written");
        assert!(trust.holds());
        let remounted = Trust {
            token: format!("{}0", trust.token),
            ..trust.clone()
        };
        assert!(!remounted.holds(), "in use under another mount");
        trust.clean().expect("written");
        assert!(remounted.holds());
    }

    #[test]
    fn a_restored_state_is_the_snapshot_alone() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (state, snapshot) = (scratch.path().join("state"), scratch.path().join("snapshot"));
        fs::create_dir(&state).expect("fresh");
        fs::write(state.join("lock.mdb"), "old").expect("room");
        fs::write(&snapshot, "snapshot").expect("room");
        restore(&state, Some(&snapshot)).expect("restored");
        assert_eq!(
            fs::read_to_string(state.join("data.mdb")).expect("there"),
            "snapshot"
        );
        assert!(!state.join("lock.mdb").exists());
    }
}
