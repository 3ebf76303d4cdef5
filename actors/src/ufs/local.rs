//! A directory of this node. No symbolic link is ever followed below its root: links are shown as links, and what is reached
//! is reached from directory to directory, by descriptors.
//!
//! Everything here blocks: [`Ufs`](super::Ufs) calls it on threads for that.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use curvine_protocol::{KeptAttributes, UfsVersion};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens, openat, readlinkat,
    statat,
};
use rustix::io::Errno;

use super::attributes::{SET_ID, XATTR_PREFIX};
use super::curvine_mounts;

/// What every ETag of a local file begins with.
const ETAG: &str = "local-";
const NS_PER_SECOND: i64 = 1_000_000_000;
/// All names, or one value, of extended attributes: as Linux has it.
const XATTRS_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
    /// Device and inode of the root when it was opened. Not a descriptor, which would keep a disk from being unmounted.
    identity: Option<(u64, u64)>,
    /// The mount of Curvine that the root was in when it was opened.
    curvine: Option<PathBuf>,
}

/// What is not done here, whatever the kernel would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The root is not there, or is another directory than when it was opened.
    RootGone,
    /// There is a FIFO, a socket, a device or a link that is not UTF-8, which is not shown.
    NotShown,
    /// The root is in a mount of Curvine.
    OfCurvine,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::RootGone => "the directory of the mount is not there, or is another one than it was",
            Refusal::NotShown => {
                "a FIFO, a socket, a device or a link that is not UTF-8 is there, which is not shown"
            }
            Refusal::OfCurvine => "the directory of the mount is in a mount of Curvine",
        })
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        io::Error::other(refusal)
    }
}

/// Why something was not done here; none if the kernel refused it.
pub fn refusal(error: &io::Error) -> Option<Refusal> {
    error.get_ref()?.downcast_ref().copied()
}

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    File(UfsVersion),
    Directory,
    /// A symbolic link and where it points; none if that is not UTF-8.
    Link(Option<String>),
    /// A FIFO, a socket, a device, a mount of Curvine.
    Special,
}

impl Found {
    /// Whether nobody is shown it, whatever its name.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self, Found::Special | Found::Link(None))
    }
}

/// Whether an ETag was made here.
pub fn is_local(etag: &str) -> bool {
    etag.starts_with(ETAG)
}

impl Local {
    pub fn new(root: PathBuf) -> Self {
        // By its name first: a cluster that is asked about its own mount here may wait for this.
        let mut curvine = curvine_mounts::over(&root);
        let stat = match curvine {
            Some(_) => None,
            None => statat(CWD, &root, AtFlags::empty()).ok(),
        };
        curvine = curvine.or_else(|| curvine_mounts::with_device(stat.as_ref()?.st_dev));
        Local {
            root,
            identity: stat.map(|stat| identity(&stat)),
            curvine,
        }
    }

    /// The mount of Curvine that it is in, if it is in one.
    pub(super) fn curvine(&self) -> Option<&Path> {
        self.curvine.as_deref()
    }

    /// The root, if it is what it was.
    fn root(&self) -> io::Result<OwnedFd> {
        if self.curvine.is_some() {
            return Err(Refusal::OfCurvine.into());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match openat(CWD, &self.root, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Refusal::RootGone.into()),
            opened => opened?,
        };
        match self.identity == Some(identity(&fstat(&root)?)) {
            true => Ok(root),
            false => Err(Refusal::RootGone.into()),
        }
    }

    /// # Errors
    /// `NotFound`; `NotADirectory` or `FilesystemLoop` also where a link is on the way.
    pub(super) fn directory(&self, key: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = self.root()?;
        for name in key.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Err(io::ErrorKind::NotFound.into());
            }
            at = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        match self.is_below_curvine(&at)? {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(at),
        }
    }

    /// Whether a directory below the root is in a mount of Curvine, which is no part of it.
    fn is_below_curvine(&self, directory: &OwnedFd) -> io::Result<bool> {
        let device = fstat(directory)?.st_dev;
        let is_elsewhere = self.identity.is_some_and(|(root, _)| root != device);
        Ok(is_elsewhere && curvine_mounts::with_device(device).is_some())
    }

    /// The directory of a key, and the name in it; none for the root.
    pub(super) fn parent<'k>(&self, key: &'k str) -> io::Result<Option<(OwnedFd, &'k str)>> {
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

    /// The key, or the one above it, at which there is what is not shown.
    pub(super) fn hidden_at(&self, key: &str) -> io::Result<Option<String>> {
        let mut at = key;
        loop {
            match self.find(at)? {
                Some(found) => return Ok(found.is_hidden().then(|| at.to_owned())),
                None => at = at.rsplit_once('/').map_or("", |(above, _)| above),
            }
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

    /// Mode, owner, times and extended attributes of a file; none if it is not there, or another version.
    pub fn attributes(&self, key: &str, meant: &UfsVersion) -> io::Result<Option<KeptAttributes>> {
        let Some((above, name)) = self.parent(key)? else {
            return Ok(None);
        };
        let stat = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || version(&stat) != *meant {
            return Ok(None);
        }
        // Its extended attributes, if it may be opened.
        let xattrs = match self.open(key) {
            Ok(Some((file, version))) if version == *meant => xattrs(&file).unwrap_or_default(),
            _ => BTreeMap::new(),
        };
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Ok(Some(KeptAttributes {
            mode: Some(stat.st_mode & 0o7777 & !SET_ID),
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            mtime_ns: Some(
                stat.st_mtime
                    .saturating_mul(NS_PER_SECOND)
                    .saturating_add(nanoseconds),
            ),
            xattrs,
        }))
    }

    /// Gives a file these attributes, as far as this process may and the file system can. The version that this makes; none
    /// if the file is not there, or another version.
    pub fn set_attributes(
        &self,
        key: &str,
        meant: &UfsVersion,
        kept: &KeptAttributes,
    ) -> io::Result<Option<UfsVersion>> {
        let Some((file, _)) = self.open(key)?.filter(|(_, version)| version == meant) else {
            return Ok(None);
        };
        give(&file, kept)?;
        Ok(Some(version_of(&file)?))
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

/// Gives a file that is open these attributes, as far as this process may and the file system can.
pub(super) fn give(file: &File, kept: &KeptAttributes) -> io::Result<()> {
    let owner = (kept.uid.map(Uid::from_raw), kept.gid.map(Gid::from_raw));
    if owner != (None, None) {
        as_far_as_it_may(fchown(file, owner.0, owner.1))?;
    }
    if let Some(mode) = kept.mode {
        as_far_as_it_may(fchmod(file, Mode::from_raw_mode(mode & !SET_ID)))?;
    }
    for name in xattrs(file).unwrap_or_default().into_keys() {
        if !kept.xattrs.contains_key(&name) {
            as_far_as_it_may(fremovexattr(file, &*name))?;
        }
    }
    for (name, value) in kept
        .xattrs
        .iter()
        .filter(|(name, _)| name.starts_with(XATTR_PREFIX))
    {
        as_far_as_it_may(fsetxattr(file, &**name, value, XattrFlags::empty()))?;
    }
    if let Some(mtime_ns) = kept.mtime_ns {
        let omitted = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: omitted,
            last_modification: Timespec {
                tv_sec: mtime_ns.div_euclid(NS_PER_SECOND),
                tv_nsec: mtime_ns.rem_euclid(NS_PER_SECOND),
            },
        };
        as_far_as_it_may(futimens(file, &times))?;
    }
    Ok(())
}

/// What programs have set of a file that is open.
fn xattrs(file: &File) -> rustix::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; XATTRS_BYTES_MAX];
    let length = flistxattr(file, &mut names)?;
    let mut all = BTreeMap::new();
    let names = names[..length]
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok());
    for name in names.filter(|name| name.starts_with(XATTR_PREFIX)) {
        let mut value = vec![0; XATTRS_BYTES_MAX];
        let length = fgetxattr(file, name, &mut value)?;
        value.truncate(length);
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// What a process without rights, or a file system without the means, leaves as it is.
pub(super) fn as_far_as_it_may(outcome: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match outcome {
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::NOSPC | Errno::TOOBIG | Errno::INVAL) => {
            Ok(())
        }
        outcome => outcome,
    }
}

pub(super) fn look(directory: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File(version(&stat)),
        FileType::Directory => {
            let is_mount = stat.st_dev != fstat(directory)?.st_dev;
            match is_mount && curvine_mounts::with_device(stat.st_dev).is_some() {
                true => Found::Special,
                false => Found::Directory,
            }
        }
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new())?;
            Found::Link(target.into_string().ok())
        }
        _ => Found::Special,
    })
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
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
