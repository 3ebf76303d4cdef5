//! Files that are there as a whole after a crash or a power cut, as they were before or as they were to be.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Gives a file this content. It is on disk when this returns. `fresh`, in the same directory, is its name until it is
/// whole: a crash may leave it there.
///
/// # Errors
/// As the file system says.
pub fn replace(path: &Path, fresh: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    let directory = path.parent().expect("a file is in a directory");
    File::open(directory)?.sync_all()
}
