//! Load jobs.

use curvine_protocol::job::{FAILURES_MAX, FileFailure, JobProgress, JobRecord, JobState};
use curvine_protocol::{CurvinePath, Error, ErrorKind, JobId, Result};

use super::{Apply, already_exists};
use crate::master::namespace::store::{Counter, put};

impl Apply<'_, '_> {
    pub(super) fn add_job(&mut self, paths: Vec<CurvinePath>) -> Result<JobRecord> {
        let id = JobId(self.dbs.take(self.txn, Counter::Job, 1)?);
        let job = JobRecord {
            id,
            paths,
            state: JobState::Planning,
            progress: JobProgress::default(),
            failures: Vec::new(),
            created_ns: self.now_ns,
            ended_ns: None,
        };
        self.put_job(&job)?;
        Ok(job)
    }

    pub(super) fn update_job(
        &mut self,
        id: JobId,
        state: JobState,
        progress: JobProgress,
        failures: Vec<FileFailure>,
    ) -> Result<JobRecord> {
        let Some(mut job) = self.dbs.job(self.txn, id)? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no job {id}; `cv load --list` lists the jobs"),
            ));
        };
        if job.state.is_ended() {
            return match job.state == state {
                true => Ok(job),
                false => already_exists(format_args!("the end of job {id}")),
            };
        }
        job.state = state;
        job.progress = progress;
        let room = FAILURES_MAX.saturating_sub(job.failures.len());
        job.failures.extend(failures.into_iter().take(room));
        job.ended_ns = state.is_ended().then_some(self.now_ns);
        self.put_job(&job)?;
        Ok(job)
    }

    fn put_job(&mut self, job: &JobRecord) -> Result<()> {
        put(&self.dbs.jobs, self.txn, &job.id.0.to_be_bytes(), job)
    }
}
