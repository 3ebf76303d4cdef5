//! The sets of values that labels have.

use curvine_protocol::{Error, ErrorKind, for_master_calls, for_worker_calls};

/// An enum that is a label: its variants with their names.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$about])* $variant,)* }

        impl $name {
            /// By place.
            pub const NAMES: &'static [&'static str] = &[$($text),*];

            pub fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }
        }
    };
}

label! {
    /// Whose business an error is. Follows from the exit code in the table of errors.
    Outcome {
        /// The caller's: what it asked for is not there, not allowed, or makes no sense.
        Refused = "refused",
        /// Nobody's: another master leads.
        Redirected = "redirected",
        /// Somebody was not reached, not ready or too slow.
        Unavailable = "unavailable",
        /// Data, a disk or an under file system failed.
        Storage = "storage",
        /// A defect of Curvine.
        Defect = "defect",
    }
}

impl Outcome {
    pub fn of(error: &Error) -> Self {
        match (error.kind, error.kind.exit_code()) {
            (ErrorKind::NotLeader, _) => Outcome::Redirected,
            (_, 1 | 2) => Outcome::Refused,
            (_, 3) => Outcome::Unavailable,
            (_, 4) => Outcome::Storage,
            _ => Outcome::Defect,
        }
    }
}

label! {
    /// What the kernel asks of the mount.
    FuseOp {
        Lookup = "lookup",
        GetAttr = "getattr",
        SetAttr = "setattr",
        ReadLink = "readlink",
        MakeNode = "mknod",
        MakeDir = "mkdir",
        Unlink = "unlink",
        RemoveDir = "rmdir",
        Symlink = "symlink",
        Rename = "rename",
        Link = "link",
        Open = "open",
        Create = "create",
        Read = "read",
        Write = "write",
        Flush = "flush",
        Release = "release",
        Sync = "fsync",
        ReadDir = "readdir",
        ReadDirPlus = "readdirplus",
        StatFs = "statfs",
        SetXattr = "setxattr",
        GetXattr = "getxattr",
        ListXattrs = "listxattr",
        RemoveXattr = "removexattr",
        Allocate = "fallocate",
        Seek = "lseek",
        SetLock = "setlk",
        GetLock = "getlk",
    }
}

/// The names of a service's calls, in the order of its table.
macro_rules! names {
    ($names:ident ; $($code:literal => $call:ident -> $reply:ident $says:tt;)*) => {
        pub const $names: &[&str] = &[$(stringify!($call)),*];
    };
}
for_master_calls!(names, MASTER_CALLS);
for_worker_calls!(names, WORKER_CALLS);

/// As `Tier` is shown.
pub const TIERS: &[&str] = &["MEM", "SSD", "HDD"];
