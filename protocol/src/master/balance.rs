//! Evening out how full workers are.

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;

/// From an operator: has blocks that are kept move from fuller workers to emptier ones, from now on until none is fuller or
/// emptier than all together by more than `tolerance_percent` of what it has room for; or has that stop. Begun again while
/// it runs, it goes on with the new tolerance.
///
/// # Errors
/// `InvalidArgument` for a tolerance that is not of [`TOLERANCES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBalance {
    /// None stops it.
    pub tolerance_percent: Option<u8>,
}

/// What may be tolerated, in percent: what comes and goes all the time makes more difference than less than that.
pub const TOLERANCES: std::ops::RangeInclusive<u8> = 1..=50;

/// How full workers are, and how far evening that out is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetBalance {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceStatus {
    /// What is under way.
    pub run: Option<BalanceRun>,
    /// How the last one ended.
    pub ended: Option<BalanceEnd>,
    /// Those that live and are in service, by their ids.
    pub workers: Vec<WorkerShare>,
    /// What this leader has had moved for what is under way, or else for the last one.
    pub moved_blocks: u64,
    pub moved_bytes: u64,
    /// Why the last move that failed did.
    pub failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRun {
    pub tolerance_percent: u8,
    /// Milliseconds since the Unix epoch, as the leader knew it.
    pub begun_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceEnd {
    /// Milliseconds since the Unix epoch, as the leader knew it.
    pub at_ms: i64,
    pub how: BalanceOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BalanceOutcome {
    /// No worker is further from all together than is tolerated.
    Balanced,
    /// So it is of those that live; others have been away for long.
    OthersBalanced,
    /// Some are, and no block can be moved that makes it better: those on the fuller workers are being written, too large,
    /// or on the emptier ones already, or all moves fail.
    NothingToMove,
    Stopped,
}

/// How full a worker is of what is kept: of the data directories that are not in memory and have not failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerShare {
    pub worker: WorkerId,
    pub kept_bytes: u64,
    pub capacity_bytes: u64,
}
