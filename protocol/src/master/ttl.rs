//! Files that go, or leave the cache, when their time is over.

use serde::{Deserialize, Serialize};

use crate::path::{CurvinePath, Node};

/// Shortest time to live, in milliseconds: clocks of machines differ.
pub const TTL_MS_MIN: u64 = 1_000;
/// Longest time to live, in milliseconds: 100 years.
pub const TTL_MS_MAX: u64 = 100 * 365 * 86_400_000;

/// Gives the files of a tree a time to live, or takes that away. A file goes by the rule that is nearest above it.
///
/// # Errors
/// `InvalidArgument` for a time out of [`TTL_MS_MIN`]..=[`TTL_MS_MAX`]; `ReadOnly` for `Delete` in a mount that is not
/// writable; `NotFound`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTtl {
    /// A directory, which may be a mount, or a file.
    pub node: Node,
    /// None takes the rule away that this node has itself.
    pub ttl: Option<Ttl>,
}

/// What happens to a file, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// Milliseconds.
    pub after_ms: u64,
    pub action: TtlAction,
    pub from: TtlFrom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TtlAction {
    /// Workers let go of what an under file system has as well, and again each time that the time has passed.
    Free,
    /// The file is removed; in a mount, its object as well.
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TtlFrom {
    /// From when the file was changed last.
    Modification,
    /// From when the file was opened, closed or changed last.
    Access,
}

/// The rule by which a node goes, its own or that of a directory above; or all rules.
///
/// # Errors
/// `NoAttribute` for a node without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTtls {
    pub node: Option<Node>,
}

/// Rules, in the order in which what has them was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttls {
    pub ttls: Vec<TtlInfo>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlInfo {
    /// What has it.
    pub path: CurvinePath,
    pub ttl: Ttl,
    /// False while it is still looked up when what was there before is due.
    pub is_known: bool,
    /// Of a file that was asked for: when its time is over, nanoseconds since the Unix epoch.
    pub due_ns: Option<i64>,
}
