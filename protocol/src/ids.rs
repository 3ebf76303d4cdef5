//! Newtype ids: two ids of different things cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(raw: $inner) -> Self {
                Self(raw)
            }
        }
    )*};
}

ids! {
    /// A file, directory or link in the namespace. 1 is the root, as FUSE has it; 0 is never used.
    InodeId(u64);
    /// A block of file data. Assigned once by the namespace and never reused; 0 is never used.
    BlockId(u64);
    /// A worker, assigned by the master at its first registration and kept in the worker's data directory.
    WorkerId(u32);
    /// One client session (a mount, a `cv` process, a JVM): given by the masters, once ever. Clients of older versions
    /// choose a random one.
    ClientId(u64);
    /// A mounted under file system.
    MountId(u32);
    /// A load job.
    JobId(u64);
    /// Something that an under file system is to be made to do, as the log has it.
    EffectId(u64);
    /// A master in the Raft group.
    NodeId(u64);
}

impl ClientId {
    /// How the names begin under which a client writes what is to take the place of something else. What is left of them when
    /// its session ends was never finished, and is removed.
    #[must_use]
    pub fn partial_prefix(self) -> String {
        format!(".cv-put-{:016x}-", self.0)
    }
}

impl InodeId {
    /// The directory `/`.
    pub const ROOT: InodeId = InodeId(1);
}

/// The identity of a cluster: random, made when the first master formats its data directory.
/// Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ClusterId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        u128::from_str_radix(&text, 16)
            .map(ClusterId)
            .map_err(|_| format!("`{text}` is not a cluster id (32 hexadecimal digits)"))
    }
}
