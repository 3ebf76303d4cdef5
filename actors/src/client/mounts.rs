//! Calls about mounts of under file systems, and what is cached of them.

use std::collections::BTreeMap;

use curvine_protocol::job::JobRecord;
use curvine_protocol::master::{
    CancelJob, FreeCache, Freed, GetJob, ListJobs, ListMounts, MountUfs, SubmitLoad, UnmountUfs,
};
use curvine_protocol::mount::{MountInfo, MountSettings};
use curvine_protocol::{CurvinePath, JobId, Result};

use super::Client;

impl Client {
    /// Mounts an under file system: `s3://bucket/prefix`, `file:///dir`, ... with OpenDAL's option names. It is checked
    /// before it is recorded: the directory at `path` is made, or is there and empty.
    ///
    /// # Errors
    /// `AlreadyExists`, `DirectoryNotEmpty`, `InvalidArgument` (inside another mount, unknown scheme or option), `NotFound`
    /// (no such bucket), `UfsDenied`, `Ufs`; the message names the cause.
    pub async fn mount(
        &self,
        path: &CurvinePath,
        uri: &str,
        options: BTreeMap<String, String>,
        settings: MountSettings,
    ) -> Result<MountInfo> {
        self.call(MountUfs {
            path: path.clone(),
            uri: uri.to_owned(),
            options,
            settings,
        })
        .await
    }

    /// Forgets a mount and everything cached of it; the objects stay.
    ///
    /// # Errors
    /// `NotFound` if nothing is mounted there.
    pub async fn unmount(&self, path: &CurvinePath) -> Result<()> {
        self.call(UnmountUfs { path: path.clone() }).await.map(|_| ())
    }

    /// All mounts, without their secrets.
    pub async fn mounts(&self) -> Result<Vec<MountInfo>> {
        Ok(self.call(ListMounts {}).await?.mounts)
    }

    /// Starts a job that makes everything below these paths cached; see [`Client::job`] for how it goes.
    ///
    /// # Errors
    /// `NotFound` for a path that is not there.
    pub async fn submit_load(&self, paths: Vec<CurvinePath>) -> Result<JobRecord> {
        self.call(SubmitLoad { paths }).await
    }

    /// State and counts of a job, and the failures among its files.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn job(&self, id: JobId) -> Result<JobRecord> {
        self.call(GetJob { id }).await
    }

    /// All jobs, newest first, without their failures.
    pub async fn jobs(&self) -> Result<Vec<JobRecord>> {
        Ok(self.call(ListJobs {}).await?.jobs)
    }

    /// Ends a job; what is cached stays. A job that has ended is left as it is.
    pub async fn cancel_job(&self, id: JobId) -> Result<JobRecord> {
        self.call(CancelJob { id }).await
    }

    /// Drops cached blocks of files of under file systems.
    pub async fn free(&self, path: &CurvinePath) -> Result<Freed> {
        self.call(FreeCache { path: path.clone() }).await
    }
}
