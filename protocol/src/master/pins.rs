//! Pins: which files must stay in the cache.

use serde::{Deserialize, Serialize};

use crate::path::CurvinePath;

/// Pins a file or a directory with all that is and comes below it, or takes that back. What is pinned and cached on a worker
/// that lives is so on its disk when this is answered.
///
/// # Errors
/// `NoSpace` if that is more than may be pinned; `InvalidArgument` if it is not pinned, or pinned by a directory above;
/// `BlockUnavailable` if a worker that has some of it does not answer: the pin is noted, and asking again is no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPin {
    pub path: CurvinePath,
    pub pinned: bool,
    /// To take back: every pin below it as well.
    pub recursive: bool,
}

/// How much that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinSet {
    pub pinned: PinnedSize,
    /// Of the whole cluster.
    pub room: PinRoom,
}

/// The pins, in the order of their paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPins {
    /// Say how much each is, which takes a walk over all of it.
    pub sizes: bool,
}

/// Every pin there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    pub pins: Vec<Pin>,
    pub room: PinRoom,
}

/// A file or directory that was pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub path: CurvinePath,
    /// All zeros if that was not asked for.
    pub size: PinnedSize,
}

/// What is pinned below a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedSize {
    pub files: u64,
    pub bytes: u64,
    /// What of the bytes workers have.
    pub cached_bytes: u64,
}

/// How much may be pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRoom {
    /// What may be pinned, of the capacity of the workers that live.
    pub limit_bytes: u64,
    /// What everything that is pinned takes when it is cached. 0 if that was not asked for.
    pub pinned_bytes: u64,
}
