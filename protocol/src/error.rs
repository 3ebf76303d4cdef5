//! One error type from disk to terminal. Programs decide by [`ErrorKind`]; people read the message.

use crate::InodeId;
use serde::{Deserialize, Serialize};

/// Of whatever can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may do about an error of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Asking again gives the same answer.
    Never,
    /// Asking the same node again after a pause may succeed.
    Later,
    /// Another node has the answer: find the leader or another replica, then ask there.
    Elsewhere,
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $errno:ident, $java:literal, $exit:literal, $retry:ident;)*) => {
        /// The kind of an error. The number is its code on the wire and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "u16", from = "u16")]
        #[repr(u16)]
        pub enum ErrorKind { $($(#[$doc])* $kind = $code,)* }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$kind,)*];

            /// The errno that FUSE answers with.
            pub fn errno(self) -> i32 { match self { $(ErrorKind::$kind => libc::$errno,)* } }

            /// The exception class that the Hadoop file system throws.
            pub fn java_exception(self) -> &'static str { match self { $(ErrorKind::$kind => $java,)* } }

            /// The exit code of `cv`.
            pub fn exit_code(self) -> i32 { match self { $(ErrorKind::$kind => $exit,)* } }

            /// What a caller may do about it.
            pub fn retry(self) -> Retry { match self { $(ErrorKind::$kind => Retry::$retry,)* } }

            /// The kind's name, as printed by `--json`.
            pub fn name(self) -> &'static str { match self { $(ErrorKind::$kind => stringify!($kind),)* } }
        }

        impl From<ErrorKind> for u16 {
            fn from(kind: ErrorKind) -> u16 { kind as u16 }
        }

        impl From<u16> for ErrorKind {
            /// A code of a newer version that this one does not know is an internal error.
            fn from(code: u16) -> Self { match code { $($code => ErrorKind::$kind,)* _ => ErrorKind::Internal } }
        }
    };
}

// kind = wire code, errno, Java exception, exit code of cv, retry advice.
// Exit codes: 1 the file system said no, 2 usage, 3 cannot reach the cluster, 4 data or storage is at fault, 5
// internal.
error_kinds! {
    NotFound = 1, ENOENT, "java.io.FileNotFoundException", 1, Never;
    AlreadyExists = 2, EEXIST, "org.apache.hadoop.fs.FileAlreadyExistsException", 1, Never;
    NotADirectory = 3, ENOTDIR, "org.apache.hadoop.fs.ParentNotDirectoryException", 1, Never;
    IsADirectory = 4, EISDIR, "org.apache.hadoop.fs.PathIsDirectoryException", 1, Never;
    DirectoryNotEmpty = 5, ENOTEMPTY, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", 1, Never;
    InvalidArgument = 6, EINVAL, "java.lang.IllegalArgumentException", 2, Never;
    NameTooLong = 7, ENAMETOOLONG, "org.apache.hadoop.fs.InvalidPathException", 2, Never;
    PermissionDenied = 8, EACCES, "org.apache.hadoop.security.AccessControlException", 1, Never;
    NotPermitted = 9, EPERM, "org.apache.hadoop.security.AccessControlException", 1, Never;
    /// The mount is read-only.
    ReadOnly = 10, EROFS, "java.io.IOException", 1, Never;
    /// A rename or link across mounts.
    CrossMount = 11, EXDEV, "java.io.IOException", 1, Never;
    TooManyLinks = 12, EMLINK, "java.io.IOException", 1, Never;
    TooManySymlinks = 13, ELOOP, "java.io.IOException", 1, Never;
    NoAttribute = 14, ENODATA, "java.io.IOException", 1, Never;
    NoSpace = 15, ENOSPC, "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", 4, Never;
    FileTooLarge = 16, EFBIG, "java.io.IOException", 1, Never;
    /// Another client holds the file open for writing.
    LeaseConflict = 17, EBUSY, "java.io.IOException", 1, Never;
    /// A handle, lease or inode that no longer exists.
    Stale = 18, ESTALE, "java.io.IOException", 1, Never;
    /// Bytes that fail their checksum. They are never served.
    Corrupt = 19, EIO, "org.apache.hadoop.fs.ChecksumException", 4, Elsewhere;
    /// No worker that is alive holds the block.
    BlockUnavailable = 20, EIO, "java.io.IOException", 4, Later;
    /// The under file system failed.
    Ufs = 21, EIO, "java.io.IOException", 4, Later;
    /// The under file system refused the credentials.
    UfsDenied = 22, EACCES, "org.apache.hadoop.security.AccessControlException", 4, Never;
    /// The object changed or vanished while it was being read.
    UfsChanged = 23, ESTALE, "java.io.IOException", 4, Never;
    NotLeader = 24, EAGAIN, "java.io.IOException", 3, Elsewhere;
    /// Nobody answers at the address.
    Unreachable = 25, EHOSTUNREACH, "java.net.ConnectException", 3, Elsewhere;
    /// No answer within the deadline. The effect of a mutation is unknown until it is retried with its sequence.
    Timeout = 26, ETIMEDOUT, "java.net.SocketTimeoutException", 3, Later;
    /// Too much in flight.
    Overloaded = 27, EAGAIN, "java.io.IOException", 3, Later;
    Cancelled = 28, ECANCELED, "java.io.InterruptedIOException", 1, Never;
    Unsupported = 29, EOPNOTSUPP, "java.lang.UnsupportedOperationException", 1, Never;
    /// Garbage, an unknown version, a frame over the limit.
    Protocol = 30, EPROTO, "java.io.IOException", 3, Never;
    /// A node or data directory of another cluster.
    WrongCluster = 31, EINVAL, "java.io.IOException", 3, Never;
    /// Resource in use: a locked data directory, a busy mount point.
    Busy = 32, EBUSY, "java.io.IOException", 1, Never;
    /// A local device failed.
    Io = 33, EIO, "java.io.IOException", 4, Elsewhere;
    /// A fault of ours.
    Internal = 34, EIO, "java.io.IOException", 5, Never;
    /// Bad configuration or command line.
    Config = 35, EINVAL, "java.lang.IllegalArgumentException", 2, Never;
    /// Shutting down.
    Stopping = 36, EAGAIN, "java.io.IOException", 3, Elsewhere;
    /// The masters have ended the caller's session. This try changed nothing; whether an earlier one did is not known.
    SessionEnded = 37, EIO, "java.io.IOException", 3, Never;
    /// Another process has a lock on the file that excludes this one.
    Locked = 38, EAGAIN, "java.io.IOException", 1, Never;
    /// Processes would wait for each other's locks.
    Deadlock = 39, EDEADLK, "java.io.IOException", 1, Never;
    /// A worker's machine lost its power, and with it bytes that it had taken and that were not synced.
    Lost = 40, EIO, "java.io.IOException", 4, Never;
    /// The change, or another one in its way, goes on in an under file system.
    UnderWay = 41, EBUSY, "java.io.IOException", 1, Later;
    /// A directory above would hold more than its quota allows.
    QuotaExceeded = 42, EDQUOT, "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", 1, Never;
}

/// An error: its kind for programs, its message for people.
///
/// The message names the thing (path, node, block), the cause, and where it helps the next step to take. It is
/// complete by itself: printing the error is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    /// With [`ErrorKind::NotLeader`]: the address of the leader, where known.
    #[serde(default)]
    pub leader: Option<String>,
}

impl Error {
    /// An error without a leader. The message is for people, and complete by itself.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            leader: None,
        }
    }

    /// That of its kind; see [`ErrorKind::errno`].
    pub fn errno(&self) -> i32 {
        self.kind.errno()
    }

    /// The same error with what was being done in front: `reading block 7: connection reset`.
    pub fn while_doing(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// `NotFound`, in the words of `ls`: `/a: no such file or directory`.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Error::new(ErrorKind::NotFound, format!("{what}: no such file or directory"))
    }

    /// `FileTooLarge`: a file would have more bytes than any may have.
    pub fn too_large() -> Self {
        let tebibytes = crate::attr::FILE_BYTES_MAX >> 40;
        Error::new(
            ErrorKind::FileTooLarge,
            format!("a file has at most {tebibytes} TiB"),
        )
    }

    /// `Stale`: the last name of a file that is still open somewhere was taken away.
    pub fn nameless(inode: InodeId) -> Self {
        Error::new(ErrorKind::Stale, format!("inode {inode} has no name any more"))
    }

    /// `InvalidArgument`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// `Internal`: a fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// `NotLeader`, which names the leader (`host:port`) where it is known.
    pub fn not_leader(leader: Option<String>) -> Self {
        let message = match &leader {
            Some(address) => format!("not the leader; the leader is {address}"),
            None => "not the leader; no leader is known yet".to_owned(),
        };
        Error {
            kind: ErrorKind::NotLeader,
            message,
            leader,
        }
    }
}

impl From<std::io::Error> for Error {
    /// A failed system call. Callers add the path or address with [`Error::while_doing`].
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match (error.raw_os_error(), error.kind()) {
            (Some(libc::ENOSPC | libc::EDQUOT), _) => ErrorKind::NoSpace,
            (Some(libc::EROFS), _) => ErrorKind::ReadOnly,
            // It passes when others have closed theirs.
            (Some(libc::EMFILE | libc::ENFILE), _) => ErrorKind::Overloaded,
            (_, Io::NotFound) => ErrorKind::NotFound,
            (_, Io::PermissionDenied) => ErrorKind::PermissionDenied,
            (_, Io::AlreadyExists) => ErrorKind::AlreadyExists,
            (_, Io::TimedOut) => ErrorKind::Timeout,
            (
                _,
                Io::ConnectionRefused
                | Io::ConnectionReset
                | Io::ConnectionAborted
                | Io::NotConnected
                | Io::BrokenPipe
                | Io::UnexpectedEof,
            ) => ErrorKind::Unreachable,
            _ => ErrorKind::Io,
        };
        Error::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_wire_code() {
        for &kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from(u16::from(kind)), kind);
        }
    }

    #[test]
    fn an_unknown_code_of_a_newer_version_is_internal() {
        assert_eq!(ErrorKind::from(60_000), ErrorKind::Internal);
    }

    #[test]
    fn a_full_disk_is_no_space() {
        assert_eq!(
            Error::from(std::io::Error::from_raw_os_error(libc::ENOSPC)).kind,
            ErrorKind::NoSpace
        );
    }
}
