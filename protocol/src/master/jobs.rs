//! Load jobs.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::job::JobRecord;
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
