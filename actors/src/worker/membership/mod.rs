//! What the master knows of this worker, and what it wants of it.
//!
//! Owns the registration ([`Session`]) and what the master was not told yet.
//!
//! - pure: [`untold`] decides what is still to be told.
//! - [`news`]: where the disks leave their news, and the Worker finds them.
//! - [`standing`]: whether writes may be taken, as long as the masters have been heard.
//! - [`report`]: one report on its way. [`actor`]: registers, sends heartbeats and begins reports.
//!
//! After each registration the whole index is reported in parts, then changes, gathered for a moment. What could not be
//! told is kept and told again.
//!
//! Invariants:
//! - News that find no room are not lost: the whole index is reported instead, which has what they said.
//! - Whoever tells news never waits for the master.
//! - After a full report that was due, nothing is told that is older than it.

mod actor;
mod news;
mod report;
mod standing;
mod untold;

pub(super) use actor::{GetIdentity, GetRefusal, StopWorker, Worker, ask_master};
pub(super) use news::News;
pub use report::REPORT_PART;
pub(super) use standing::Standing;

use curvine_protocol::{ClusterId, Error, ErrorKind, WorkerId};

/// What is answered before the first registration.
pub fn unregistered() -> Error {
    Error::new(
        ErrorKind::Unreachable,
        "this worker is not registered with a master yet",
    )
}

/// The current registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub worker: WorkerId,
    pub cluster: ClusterId,
    pub token: u64,
}
