//! Quotas of directories.

use serde::{Deserialize, Serialize};

use crate::path::{CurvinePath, Node};

/// Sets, changes or takes away the quota of a directory that is in no mount.
///
/// # Errors
/// `Unsupported` in a mount; `CrossMount` for a small tree that has hard links; `Busy` while trees that were deleted are
/// still being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetQuota {
    pub node: Node,
    /// None takes it away.
    pub limits: Option<QuotaLimits>,
}

/// What a directory may hold. None = any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaLimits {
    /// Sum of the sizes of all files.
    pub bytes: Option<u64>,
    /// Files, directories, links and others, without the directory itself.
    pub inodes: Option<u64>,
    /// Above this, a warning is shown; nothing is refused.
    pub soft_bytes: Option<u64>,
}

/// The quota of one directory, or all there are.
///
/// # Errors
/// `NoAttribute` for a directory without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListQuotas {
    pub node: Option<Node>,
}

/// Quotas, in the order in which their directories were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotas {
    pub quotas: Vec<Quota>,
}

/// What a directory may hold, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub path: CurvinePath,
    pub limits: QuotaLimits,
    pub used: QuotaUsage,
    /// False while it is still counted what it holds: `used` is then what has come since, and nothing is refused.
    pub is_counted: bool,
}

/// What is below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUsage {
    pub bytes: u64,
    pub inodes: u64,
}

impl Quota {
    /// Whether it holds more than the soft limit.
    pub fn is_warned(&self) -> bool {
        self.limits.soft_bytes.is_some_and(|soft| self.used.bytes > soft)
    }
}
