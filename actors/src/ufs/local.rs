//! A directory of this node. No symbolic link is ever followed below its root: links are shown as links, and what is reached
//! is reached from directory to directory, by descriptors.
//!
//! Everything here blocks: [`Ufs`](super::Ufs) calls it on threads for that.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use curvine_protocol::UfsVersion;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

/// What every ETag of a local file begins with.
const ETAG: &str = "local-";

#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
}

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    File(UfsVersion),
    Directory,
    /// A symbolic link and where it points; none if that is not UTF-8.
    Link(Option<String>),
    /// A FIFO, a socket, a device.
    Special,
}

/// Whether an ETag was made here.
pub fn is_local(etag: &str) -> bool {
    etag.starts_with(ETAG)
}

impl Local {
    pub fn new(root: PathBuf) -> Self {
        Local { root }
    }

    /// # Errors
    /// `NotFound`; `NotADirectory` or `FilesystemLoop` also where a link is on the way.
    fn directory(&self, key: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = openat(CWD, &self.root, flags, Mode::empty())?;
        for name in key.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(io::ErrorKind::NotFound.into());
            }
            at = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }

    /// The directory of a key, and the name in it; none for the root.
    fn parent<'k>(&self, key: &'k str) -> io::Result<Option<(OwnedFd, &'k str)>> {
        let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
        match name {
            "" => Ok(None),
            "." | ".." => Err(io::ErrorKind::NotFound.into()),
            name => Ok(Some((self.directory(above)?, name))),
        }
    }

    /// What is there; none if nothing is.
    pub fn find(&self, key: &str) -> io::Result<Option<Found>> {
        let found = match self.parent(key) {
            Ok(Some((above, name))) => look(&above, name.as_bytes()),
            Ok(None) => self.directory("").map(|_| Found::Directory),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands each name of a directory and what it is to `take`, until that returns false. What vanishes meanwhile is left out.
    pub fn list(&self, key: &str, mut take: impl FnMut(OsString, Found) -> bool) -> io::Result<()> {
        let directory = self.directory(key)?;
        let reading = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for entry in Dir::new(openat(&directory, ".", reading, Mode::empty())?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let found = match look(&directory, name) {
                Ok(found) => found,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            if !take(OsString::from_vec(name.to_vec()), found) {
                break;
            }
        }
        Ok(())
    }

    /// Opens a file, and says which version it is. None if there is no file.
    pub fn open(&self, key: &str) -> io::Result<Option<(File, UfsVersion)>> {
        // A FIFO would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match self.parent(key) {
            Ok(Some((above, name))) => openat(&above, name, flags, Mode::empty()).map_err(io::Error::from),
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        match opened {
            Ok(file) => {
                let stat = fstat(&file)?;
                let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                Ok(is_file.then(|| (File::from(file), version(&stat))))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Which version a file that is open is by now.
pub fn version_of(file: &File) -> io::Result<UfsVersion> {
    Ok(version(&fstat(file)?))
}

fn look(directory: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(version(&stat)),
        FileType::Directory => Found::Directory,
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new())?;
            Found::Link(target.into_string().ok())
        }
        _ => Found::Special,
    })
}

/// A file with the same length and times is another one if its inode is, or if its attributes were changed since: writing
/// into it changes the time of that, which nobody can set back.
fn version(stat: &Stat) -> UfsVersion {
    UfsVersion {
        size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime_ms: stat
            .st_mtime
            .saturating_mul(1_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or_default() / 1_000_000),
        etag: Some(format!(
            "{ETAG}{:x}-{:x}.{}",
            stat.st_ino, stat.st_ctime, stat.st_ctime_nsec
        )),
    }
}

/// Whether an error says that nothing is there: also that there is a link, or a file, on the way.
pub fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NOTDIR, Errno::LOOP].map(|errno| Some(errno.raw_os_error()));
    error.kind() == io::ErrorKind::NotFound || absent.contains(&error.raw_os_error())
}
