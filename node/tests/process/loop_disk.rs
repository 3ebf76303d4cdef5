//! A disk whose power can be cut: an ext4 of its own on a loop device.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::support::*;

/// How many cuts, one after the other on the same data: `CURVINE_POWER_CUTS=100` for a soak.
pub fn rounds() -> usize {
    let asked = std::env::var("CURVINE_POWER_CUTS").ok();
    asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

/// Gives this thread, and all it starts from now on, mounts that no other process sees. A file system stays as it is while
/// anybody has it mounted, and whoever makes a mount namespace (`ip netns exec`, a container) has whatever was mounted then.
pub fn own_mounts() {
    // SAFETY: it changes what this thread sees of the mounts, and no memory.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    // Who may not do this may not mount either, and is told so then.
    if alone && let Err(error) = system("mount", &["--make-rprivate", "/"]) {
        panic!("{error}");
    }
}

pub struct LoopDisk {
    image: PathBuf,
    mounted: Mounted,
}

impl LoopDisk {
    /// None where this process may not mount, which is said: `what` then is not tested here.
    pub fn new(scratch: &Path, name: &str, what: &str) -> Option<LoopDisk> {
        let image = scratch.join(format!("{name}.img"));
        File::create(&image)
            .and_then(|image| image.set_len(8 << 30))
            .expect("a sparse file");
        if let Err(error) = system("mkfs.ext4", &["-q", "-F", text(&image)]) {
            eprintln!("skipped, {what} is not tested here: {error}");
            return None;
        }
        let mounted = Mounted::new(scratch.join(name), what, &["-o", "loop", text(&image)])?;
        Some(LoopDisk { image, mounted })
    }

    pub fn path(&self) -> &Path {
        &self.mounted.path
    }

    /// `EXT4_IOC_SHUTDOWN` without a flush of the journal: what is not on disk is gone, and nothing gets there any more.
    pub fn cut_power(&self) {
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        let directory = File::open(self.path()).expect("the mount point");
        let without_flush: u32 = 2;
        // SAFETY: the call reads one u32 behind the pointer, which lives through it.
        let cut = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN, &raw const without_flush) };
        assert_eq!(cut, 0, "{}", std::io::Error::last_os_error());
    }

    /// What is on it once the power is back. Nobody may use it any more.
    pub fn mounted_again(self) -> LoopDisk {
        let LoopDisk { image, mounted } = self;
        let path = mounted.path.clone();
        drop(mounted);
        // A mount namespace that anybody on this machine made meanwhile has a copy of the mount, and would have the dead
        // file system mounted again.
        let is_free = || (system("losetup", &["-j", text(&image)]) == Ok(String::new())).then_some(());
        assert!(
            within(6 * DEADLINE, is_free).is_some(),
            "{} is still mounted elsewhere",
            image.display()
        );
        let again = Mounted::new(path, "", &["-o", "loop", text(&image)]);
        LoopDisk {
            mounted: again.expect("it was mounted before"),
            image,
        }
    }
}
