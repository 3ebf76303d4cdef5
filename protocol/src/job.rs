//! Load jobs.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::JobId;
use crate::path::CurvinePath;

/// How far a load job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Accepted; its plan is being made from listings.
    Planning,
    Running,
    /// Ended, every file is cached.
    Done,
    /// Ended, some files failed: see the failures.
    Failed,
    Cancelled,
}

impl JobState {
    /// Whether nothing changes in it any more.
    pub fn is_ended(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

/// Counts of a job. `files_total` and `bytes_total` grow while it is planning. A directory that cannot be listed counts
/// as one file that failed.
/// At the end: `files_total = files_loaded + files_already + files_failed (+ what a cancel left undone)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    pub files_total: u64,
    pub bytes_total: u64,
    /// Files that this job made wholly cached.
    pub files_loaded: u64,
    /// Files that were wholly cached when the job came to them, another job's work included.
    pub files_already: u64,
    pub files_failed: u64,
    /// Bytes that are cached of files that are done or under way, moved or found cached.
    pub bytes_done: u64,
    /// Bytes fetched from the under file system by this job, also for files that failed in the end.
    pub bytes_moved: u64,
}

/// A file that a job could not load, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFailure {
    pub path: String,
    pub error: Error,
}

/// A job as the masters keep it and as users see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: JobId,
    /// What to load: files or directories (recursively).
    pub paths: Vec<CurvinePath>,
    pub state: JobState,
    pub progress: JobProgress,
    /// The first [`FAILURES_MAX`] failures; `progress.files_failed` counts all.
    pub failures: Vec<FileFailure>,
    /// Nanoseconds since the Unix epoch.
    pub created_ns: i64,
    pub ended_ns: Option<i64>,
}

/// Failures kept in a job's record.
pub const FAILURES_MAX: usize = 1_000;

/// Paths of one job: its record, which is written at every checkpoint, has them all.
pub const PATHS_MAX: usize = 10_000;

/// Jobs that have ended are remembered up to this number, the newest of them,
pub const ENDED_MAX: usize = 500;

/// and for this long: 7 days.
pub const ENDED_AGE_NS: i64 = 7 * 24 * 3_600 * 1_000_000_000;

impl JobRecord {
    /// Whether it ended so long ago that it is forgotten, by whoever's clock says that it is `now_ns`.
    pub fn is_expired(&self, now_ns: i64) -> bool {
        self.ended_ns
            .is_some_and(|ended_ns| now_ns.saturating_sub(ended_ns) > ENDED_AGE_NS)
    }
}
