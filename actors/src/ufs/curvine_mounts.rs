//! Mounts of Curvine on this machine, as the kernel's table has them. What they show is not looked at as a directory of this
//! node: a cluster that mounts what it shows itself would wait for itself.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// As mounts of Curvine are made known to the kernel.
const FS_TYPE: &str = "fuse.curvine";

/// A line of the kernel's table.
struct Mount {
    device: u64,
    point: PathBuf,
    is_curvine: bool,
}

/// What `/proc/self/mountinfo` says. Nothing where it cannot be read.
fn table() -> String {
    // Bytes that are not UTF-8 are in paths only, and escaped in part: a path with them names no mount point here.
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    String::from_utf8_lossy(&table).into_owned()
}

fn mounts(table: &str) -> impl Iterator<Item = Mount> {
    table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let (major, minor) = before.nth(2)?.split_once(':')?;
        Some(Mount {
            device: rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?),
            point: unescaped(before.nth(1)?),
            is_curvine: after.split(' ').next() == Some(FS_TYPE),
        })
    })
}

/// The table has spaces, tabs, line ends and backslashes as three octal digits behind a backslash.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..3);
        rest = match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                &after[3..]
            }
            None => {
                bytes.push(b'\\');
                after
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    OsString::from_vec(bytes).into()
}

fn over_in(table: &str, path: &Path) -> Option<PathBuf> {
    let above = mounts(table).filter(|mount| path.starts_with(&mount.point));
    // The last of those with the longest path is on top of the others.
    let nearest = above.max_by_key(|mount| mount.point.components().count())?;
    nearest.is_curvine.then_some(nearest.point)
}

fn with_device_in(table: &str, device: u64) -> Option<PathBuf> {
    let mut all = mounts(table).filter(|mount| mount.is_curvine && mount.device == device);
    all.next().map(|mount| mount.point)
}

/// The mount of Curvine that a path is in, by its name: nothing is asked of what is there.
pub fn over(path: &Path) -> Option<PathBuf> {
    over_in(&table(), path)
}

/// A mount of Curvine with this device number.
pub fn with_device(device: u64) -> Option<PathBuf> {
    with_device_in(&table(), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        29 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        41 29 0:52 / /mnt/other rw - fuse.curvine curvine-0000000000000001 rw\n\
        42 29 0:53 / /mnt/a\\040b rw,noatime shared:7 - fuse.curvine curvine-00000000deadbeef rw,user_id=0\n\
        43 29 0:54 / /mnt/sshfs rw - fuse.sshfs host: rw\n\
        44 41 0:55 / /mnt/other/disk rw - tmpfs tmpfs rw\n\
        45 29 0:56 / /mnt/hidden rw - fuse.curvine curvine-0000000000000002 rw\n\
        46 45 0:57 / /mnt/hidden rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_mount_of_curvine_that_a_path_is_in_is_named() {
        for (path, mount) in [
            ("/mnt/other", Some("/mnt/other")),
            ("/mnt/other/x/y", Some("/mnt/other")),
            ("/mnt/a b/x", Some("/mnt/a b")),
            ("/mnt/otherwise", None),
            ("/mnt/other/disk/x", None),
            ("/mnt/sshfs/x", None),
            ("/mnt/hidden", None),
            ("/mnt", None),
            ("/", None),
        ] {
            assert_eq!(
                over_in(TABLE, Path::new(path)).as_deref(),
                mount.map(Path::new),
                "{path}"
            );
        }
    }

    #[test]
    fn a_mount_of_curvine_is_known_by_its_device() {
        let device = |minor| with_device_in(TABLE, rustix::fs::makedev(0, minor));
        assert_eq!(device(53), Some("/mnt/a b".into()));
        assert_eq!(device(54), None);
        assert_eq!(device(99), None);
    }
}
