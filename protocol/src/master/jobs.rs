//! Load jobs.

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::job::JobRecord;
use crate::path::CurvinePath;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetJob {
    pub id: JobId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListJobs {}

/// Newest first, without their failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    pub jobs: Vec<JobRecord>,
}

/// Starts a load job. Paths are checked to exist first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitLoad {
    pub paths: Vec<CurvinePath>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelJob {
    pub id: JobId,
}
