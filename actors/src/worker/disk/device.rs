//! Calls of the system that change a disk and that the standard library does not have.
//!
//! Through libc, as the standard library's own: that is where the simulation's disk sees what is written and what is synced.
//! What `rustix` does passes it by.

use std::fs::File;
use std::io::{Error, IoSlice, Result};
use std::os::fd::AsRawFd;

/// Puts everything of the file system that a directory is on on its device.
///
/// # Errors
/// As `syncfs(2)`.
pub fn sync_file_system(directory: &File) -> Result<()> {
    // SAFETY: it takes a descriptor, which is open here, and nothing else.
    match unsafe { libc::syncfs(directory.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Writes bytes that lie in several pieces; how many of them were written.
///
/// # Errors
/// As `pwritev(2)`.
pub fn write_vectored_at(file: &File, pieces: &[IoSlice<'_>], at: u64) -> Result<usize> {
    let count = libc::c_int::try_from(pieces.len()).map_err(Error::other)?;
    let at = libc::off_t::try_from(at).map_err(Error::other)?;
    // SAFETY: an `IoSlice` is an `iovec`, as the standard library promises, and there are that many, of bytes that are borrowed.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), pieces.as_ptr().cast(), count, at) };
    usize::try_from(written).map_err(|_| Error::last_os_error())
}

/// Makes a hole in a file, which keeps its length.
///
/// # Errors
/// As `fallocate(2)`; `EOPNOTSUPP` where the file system has no holes.
pub fn punch_hole(file: &File, at: u64, len_bytes: u64) -> Result<()> {
    let at = libc::off_t::try_from(at).map_err(Error::other)?;
    let len = libc::off_t::try_from(len_bytes).map_err(Error::other)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: it takes a descriptor, which is open here, and numbers.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn pieces_are_written_in_order_and_holes_are_zeros() {
        let file = tempfile::tempfile().expect("a file");
        let pieces = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")];
        assert_eq!(write_vectored_at(&file, &pieces, 3).expect("writes"), 5);
        sync_file_system(&file).expect("syncs");
        let mut found = [9; 8];
        file.read_exact_at(&mut found, 0).expect("reads");
        assert_eq!(&found, b"\0\0\0abcde");
        match punch_hole(&file, 4, 2) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            Err(error) => panic!("{error}"),
        }
        file.read_exact_at(&mut found, 0).expect("reads");
        assert_eq!(&found, b"\0\0\0a\0\0de");
        let negative = punch_hole(&file, u64::MAX, 1).expect_err("no such place");
        assert!(negative.raw_os_error().is_none(), "{negative}");
    }
}
