//! How much room a device has, and whether a failure was for the lack of it.

use std::path::Path;

use curvine_protocol::{Error, ErrorKind, Result};

/// With less than this free, a device counts as full: what failed on it failed for that.
const FULL_BYTES: u64 = 2 << 20;

/// Free and all bytes of the device under a directory.
///
/// # Errors
/// As the system says, naming the directory.
pub fn of(directory: &Path) -> Result<(u64, u64)> {
    let device = rustix::fs::statvfs(directory).map_err(|e| {
        Error::from(std::io::Error::from(e)).while_doing(format_args!("measuring {}", directory.display()))
    })?;
    Ok((
        device.f_bavail * device.f_frsize,
        device.f_blocks * device.f_frsize,
    ))
}

/// The same error, as `NoSpace` where the device is full: LMDB calls a write that was cut short an I/O error.
pub fn named(error: Error, directory: &Path) -> Error {
    let full = || of(directory).is_ok_and(|(free, _)| free < FULL_BYTES);
    if error.kind == ErrorKind::Io && full() {
        let message = format!("the device of {} is full: {}", directory.display(), error.message);
        return Error::new(ErrorKind::NoSpace, message);
    }
    error
}
