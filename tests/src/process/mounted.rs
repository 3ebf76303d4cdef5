//! File systems of a test.

use std::path::PathBuf;

use crate::wait::within;

use super::{DEADLINE, system, text};

/// A file system mounted for a test, unmounted when dropped.
pub struct Mounted {
    pub path: PathBuf,
}

impl Mounted {
    /// None where this process may not mount, which is said: `what` then is not tested here.
    pub fn new(path: PathBuf, what: &str, options: &[&str]) -> Option<Mounted> {
        std::fs::create_dir_all(&path).expect("a temporary directory");
        let args: Vec<&str> = options.iter().copied().chain([text(&path)]).collect();
        match system("mount", &args) {
            Ok(_) => Some(Mounted { path }),
            Err(error) => {
                eprintln!("skipped, {what} is not tested here: it takes the right to mount ({error})");
                None
            }
        }
    }

    /// A small file system in memory.
    pub fn tmpfs(path: PathBuf, what: &str, mebibytes: u32) -> Option<Mounted> {
        let options = format!("size={mebibytes}m,nr_inodes=0");
        Mounted::new(path, what, &["-t", "tmpfs", "-o", &options, "curvine-test"])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = text(&self.path);
        // A killed process may hold it for another moment.
        if within(DEADLINE / 4, || system("umount", &[path]).ok()).is_none() {
            let _ = system("umount", &["-l", path]);
        }
    }
}
