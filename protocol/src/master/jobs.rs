//! Load jobs.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::job::{FileFailure, JobRecord};
use crate::path::CurvinePath;

/// A load job as it is now.
///
/// # Errors
/// `NotFound`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetJob {
    pub id: JobId,
}

/// The load jobs that the masters remember: those that run, and of those that have ended the newest
/// [`ENDED_MAX`](crate::job::ENDED_MAX), for [`ENDED_AGE_NS`](crate::job::ENDED_AGE_NS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListJobs {}

/// Newest first, without their failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    pub jobs: Vec<JobRecord>,
}

/// What a load job of these paths would find and do now, without doing it.
///
/// # Errors
/// Those of [`SubmitLoad`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLoad {
    pub paths: Vec<CurvinePath>,
}

/// What a load job would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadPlan {
    pub files: u64,
    pub bytes: u64,
    /// Files that are wholly cached.
    pub files_cached: u64,
    /// What is cached of all of them.
    pub bytes_cached: u64,
    /// Blocks to fetch, each with one request of the under file system, or with several if there are few.
    pub requests: u64,
    /// What the workers can take before anything goes.
    pub free_bytes: u64,
    /// Cached blocks that may go for it: those of other files.
    pub evictable_bytes: u64,
    /// Files and directories that could not be looked at.
    pub unseen: u64,
    /// The first of them.
    pub failures: Vec<FileFailure>,
    /// Mounts whose quota of cache the load would pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over_quota: Vec<OverQuota>,
}

/// A mount of which a load would bring more than its quota of cache allows. It goes on: of the same mount, what was cached
/// before goes, what the load itself brought included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverQuota {
    pub path: CurvinePath,
    pub quota_bytes: u64,
    /// What is cached of the mount now.
    pub cached_bytes: u64,
    /// What the load would fetch of it.
    pub bytes_to_fetch: u64,
    /// What the load's files of it have in all.
    pub bytes: u64,
}

impl OverQuota {
    /// What would go of the mount, as the load goes on.
    #[must_use]
    pub fn bytes_evicted(&self) -> u64 {
        let after = self.cached_bytes.saturating_add(self.bytes_to_fetch);
        after.saturating_sub(self.quota_bytes)
    }

    /// What of the load's files cannot stay cached, whatever else goes.
    #[must_use]
    pub fn bytes_not_kept(&self) -> u64 {
        self.bytes.saturating_sub(self.quota_bytes)
    }
}

impl LoadPlan {
    /// What is to be fetched.
    pub fn bytes_to_fetch(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_cached)
    }

    /// What would go of other files.
    pub fn bytes_evicted(&self) -> u64 {
        let over = self.bytes_to_fetch().saturating_sub(self.free_bytes);
        over.min(self.evictable_bytes)
    }

    /// What there is no room for, whatever goes.
    pub fn bytes_without_room(&self) -> u64 {
        let room = self.free_bytes.saturating_add(self.evictable_bytes);
        self.bytes_to_fetch().saturating_sub(room)
    }
}

/// Starts a load job. Paths are checked to exist first.
///
/// # Errors
/// `InvalidArgument` without a path, or with more than [`PATHS_MAX`](crate::job::PATHS_MAX); `NotFound` if one is not there, `Ufs`, `UfsDenied` if that cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitLoad {
    pub paths: Vec<CurvinePath>,
}

/// Stops a load job and its transfers; what it has loaded stays cached. Answers when it has ended, or after some seconds.
///
/// # Errors
/// `NotFound`; `InvalidArgument` if it had ended already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelJob {
    pub id: JobId,
}
