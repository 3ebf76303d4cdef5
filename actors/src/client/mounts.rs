//! Calls about mounts of under file systems, and what is cached of them.

use std::collections::BTreeMap;

use curvine_protocol::job::JobRecord;
use curvine_protocol::master::{
    CancelJob, FreeCache, Freed, GetJob, ListJobs, ListMounts, LoadPlan, MountUfs, PersistTree, Persisted,
    PlanLoad, SubmitLoad, UnmountUfs, UpdateMount,
};
use curvine_protocol::mount::{MountChanges, MountInfo, MountSettings};
use curvine_protocol::{CurvinePath, JobId, Node, Result};

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

    /// Changes options and settings of a mount, after the store was checked with them. What is cached stays.
    ///
    /// # Errors
    /// `NotFound` if nothing is mounted there; `InvalidArgument` for what would lead somewhere else; those of
    /// [`Client::mount`].
    pub async fn update_mount(&self, path: &CurvinePath, changes: MountChanges) -> Result<MountInfo> {
        let path = path.clone();
        self.call(UpdateMount { path, changes }).await
    }

    /// Forgets a mount and everything cached of it; the objects stay. With `force`, what the under file system has not got
    /// yet is lost.
    ///
    /// # Errors
    /// `NotFound` if nothing is mounted there; `Busy` if the under file system has not got everything yet, unless `force`.
    pub async fn unmount(&self, path: &CurvinePath, force: bool) -> Result<()> {
        self.call(UnmountUfs {
            path: path.clone(),
            force,
        })
        .await
        .map(|_| ())
    }

    /// All mounts, without their secrets.
    pub async fn mounts(&self) -> Result<Vec<MountInfo>> {
        Ok(self.call(ListMounts {}).await?.mounts)
    }

    /// Waits until every file at or below a path in a mount is in the under file system as it is now; says how many were not.
    ///
    /// # Errors
    /// What the under file system says of the first that failed; `InvalidArgument` outside mounts.
    pub async fn persist(&self, path: &CurvinePath) -> Result<Persisted> {
        let node = Node::Path(path.clone());
        self.call(PersistTree { node }).await
    }

    /// What a job that makes everything below these paths cached would do.
    ///
    /// # Errors
    /// `NotFound` for a path that is not there.
    pub async fn plan_load(&self, paths: Vec<CurvinePath>) -> Result<LoadPlan> {
        self.call(PlanLoad { paths }).await
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
