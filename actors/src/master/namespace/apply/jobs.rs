//! Load jobs.

use curvine_protocol::job::{ENDED_MAX, FAILURES_MAX, FileFailure, JobProgress, JobRecord, JobState};
use curvine_protocol::{CurvinePath, Error, ErrorKind, JobId, Result};

use super::{Apply, already_exists};
use crate::master::namespace::store::{Counter, broken, put};

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
        self.forget_jobs()?;
        Ok(job)
    }

    /// Of the jobs that have ended, the newest stay, and none for too long.
    fn forget_jobs(&mut self) -> Result<()> {
        let mut ended = self.dbs.job_records(self.txn)?;
        ended.retain(|job| job.state.is_ended());
        let too_many = ended.len().saturating_sub(ENDED_MAX);
        for (number, job) in ended.iter().enumerate() {
            if number < too_many || job.is_expired(self.now_ns) {
                let key = job.id.0.to_be_bytes();
                self.dbs.jobs.delete(self.txn, &key).map_err(broken)?;
            }
        }
        Ok(())
    }

    pub(super) fn update_job(
        &mut self,
        id: JobId,
        state: JobState,
        progress: JobProgress,
        failures: Vec<FileFailure>,
        anew: bool,
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
        if anew {
            job.failures.clear();
        }
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
