//! Between the kernel's types and ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use curvine_protocol::master::{RenameMode, SetTime};
use curvine_protocol::path::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use curvine_protocol::{Attr, Error, ErrorKind, FileKind, InodeId};
use fuser::{Errno, FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, RenameFlags, TimeOrNow};

use crate::core::How;
use crate::files::Access;

/// What `stat` recommends for reads and writes: programs that use it send fewer, larger requests.
const PREFERRED_IO_BYTES: u32 = 64 << 10;

/// An error on its way to the kernel: only the number gets there.
#[derive(Debug)]
pub struct Refusal {
    pub errno: i32,
    /// What a number cannot say; for the log.
    pub error: Option<Error>,
}

pub type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    pub fn of(errno: i32) -> Self {
        Refusal { errno, error: None }
    }

    pub fn to_kernel(&self) -> Errno {
        Errno::from_i32(self.errno)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let errno = match error.errno() {
            // "Try again" on a file means "would block" to programs; they would spin.
            libc::EAGAIN => libc::EIO,
            errno => errno,
        };
        Refusal {
            errno,
            error: Some(error),
        }
    }
}

/// A name as the namespace has it.
///
/// # Errors
/// `EILSEQ` where it is not UTF-8, `ENAMETOOLONG`.
pub fn name(name: &OsStr) -> Result<String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::of(libc::ENAMETOOLONG));
    }
    text(name)
}

/// Of `renameat2(2)`.
///
/// # Errors
/// `EINVAL` for what is not known, and for both at once.
pub fn rename_mode(flags: RenameFlags) -> Result<RenameMode> {
    match flags {
        none if none.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Refusal::of(libc::EINVAL)),
    }
}

/// Of `open(2)`.
pub fn how(flags: i32) -> How {
    let truncate = flags & libc::O_TRUNC != 0;
    let mode = OpenFlags(flags).acc_mode();
    let access = match mode {
        OpenAccMode::O_RDONLY if !truncate => Access::Read,
        OpenAccMode::O_RDWR | OpenAccMode::O_WRONLY if flags & libc::O_APPEND != 0 => Access::Append,
        _ => Access::Write,
    };
    How {
        access,
        reads: mode != OpenAccMode::O_WRONLY,
        truncate,
        exclusive: flags & libc::O_EXCL != 0,
    }
}

/// The target of a symbolic link.
pub fn target(target: &OsStr) -> Result<String> {
    if target.len() > PATH_BYTES_MAX {
        return Err(Refusal::of(libc::ENAMETOOLONG));
    }
    text(target)
}

/// # Errors
/// `EILSEQ` where it is not UTF-8.
pub fn text(text: &OsStr) -> Result<String> {
    match std::str::from_utf8(text.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Refusal::of(libc::EILSEQ)),
    }
}

pub fn inode(number: INodeNo) -> InodeId {
    InodeId(number.0)
}

pub fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// What `mknod` is asked to make.
pub fn kind_of_mode(mode: u32) -> Result<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(FileKind::File),
        libc::S_IFIFO => Ok(FileKind::Fifo),
        libc::S_IFSOCK => Ok(FileKind::Socket),
        libc::S_IFCHR => Ok(FileKind::CharDevice),
        libc::S_IFBLK => Ok(FileKind::BlockDevice),
        _ => Err(Error::new(ErrorKind::InvalidArgument, format!("mknod with mode {mode:#o}")).into()),
    }
}

pub fn attributes(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.inode.0),
        size: attr.size_bytes,
        blocks: attr.size_bytes.saturating_sub(attr.hole_bytes).div_ceil(512),
        atime: time(attr.atime_ns),
        mtime: time(attr.mtime_ns),
        ctime: time(attr.ctime_ns),
        crtime: time(attr.btime_ns),
        kind: file_type(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

fn time(ns: i64) -> SystemTime {
    let since = Duration::from_nanos(ns.unsigned_abs());
    match ns >= 0 {
        true => UNIX_EPOCH + since,
        false => UNIX_EPOCH - since,
    }
}

pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            // The kernel's nanoseconds count onwards, and fuser (0.18) takes them off.
            Err(before) => {
                let (seconds, ns) = (before.duration().as_secs(), before.duration().subsec_nanos());
                let seconds = i64::try_from(seconds).map_or(i64::MIN, |seconds| -seconds);
                seconds.saturating_mul(1_000_000_000).saturating_add(ns.into())
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_utf8_is_an_illegal_sequence() {
        let refused = name(OsStr::from_bytes(b"\xff")).expect_err("not UTF-8");
        assert_eq!(refused.errno, libc::EILSEQ);
        assert_eq!(name(OsStr::new("ä")).ok().as_deref(), Some("ä"));
    }

    #[test]
    fn a_name_of_256_bytes_is_too_long() {
        let refused = name(OsStr::new(&"n".repeat(256))).expect_err("too long");
        assert_eq!(refused.errno, libc::ENAMETOOLONG);
    }

    #[test]
    fn times_before_the_epoch_survive() {
        for ns in [-2_000_000_000, 0, 1, 1_700_000_000_123_456_789] {
            assert_eq!(set_time(TimeOrNow::SpecificTime(time(ns))), SetTime::At(ns));
        }
        // Two seconds before, and a quarter of a second after that, as fuser says it.
        let said = UNIX_EPOCH - Duration::new(2, 250_000_000);
        assert_eq!(
            set_time(TimeOrNow::SpecificTime(said)),
            SetTime::At(-1_750_000_000)
        );
    }

    #[test]
    fn try_again_is_no_answer_for_a_file() {
        let refusal = Refusal::from(Error::new(ErrorKind::NotLeader, "no leader"));
        assert_eq!(refusal.errno, libc::EIO);
    }
}
