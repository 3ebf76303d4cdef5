//! What a job has found and done: pure.
//!
//! Invariant: at the end of a job, whichever leaders had it on its way, every file is counted once, as loaded, found
//! cached or failed.

use curvine_protocol::Error;
use curvine_protocol::job::{FAILURES_MAX, FileFailure, JobProgress, JobState};

/// The counts of one job.
#[derive(Debug, Default)]
pub struct Counts {
    /// As this leader counts; `files_already` has also what the job itself loaded under leaders before.
    counted: JobProgress,
    /// Files that the job had loaded when this leader took it up: it finds so many cached.
    loaded_before: u64,
    /// Not in the record yet.
    failures: Vec<FileFailure>,
    /// In the record, or on their way to it.
    failures_told: usize,
    planned: bool,
}

impl Counts {
    /// Of a job with this much in its record: nothing yet, unless another leader began with it.
    pub fn going_on(recorded: &JobProgress) -> Counts {
        Counts {
            counted: JobProgress {
                bytes_moved: recorded.bytes_moved,
                ..JobProgress::default()
            },
            loaded_before: recorded.files_loaded,
            ..Counts::default()
        }
    }

    /// As users see it.
    pub fn progress(&self) -> JobProgress {
        let ours = self.loaded_before.min(self.counted.files_already);
        JobProgress {
            files_loaded: self.counted.files_loaded + ours,
            files_already: self.counted.files_already - ours,
            ..self.counted.clone()
        }
    }

    /// Of a job that has not ended.
    pub fn state(&self) -> JobState {
        match self.planned {
            true => JobState::Running,
            false => JobState::Planning,
        }
    }

    /// Everything that is to be loaded was found.
    pub fn planned(&mut self) {
        self.planned = true;
    }

    /// There is a file of this size.
    pub fn found(&mut self, size_bytes: u64) {
        self.counted.files_total += 1;
        self.counted.bytes_total += size_bytes;
    }

    /// What is below this path cannot be seen: it counts as one file.
    pub fn unseen(&mut self, path: String, error: Error) {
        self.found(0);
        self.failed(path, error);
    }

    /// So many bytes came from the under file system.
    pub fn moved(&mut self, bytes: u64) {
        self.counted.bytes_moved += bytes;
    }

    /// So many bytes more of a file are cached.
    pub fn cached(&mut self, bytes: u64) {
        self.counted.bytes_done += bytes;
    }

    /// So many bytes that were said to be cached of a file are not.
    pub fn set_back(&mut self, bytes: u64) {
        self.counted.bytes_done -= bytes;
    }

    /// A file is wholly cached. Whether this job did something for it.
    pub fn ended(&mut self, has_moved: bool) {
        match has_moved {
            true => self.counted.files_loaded += 1,
            false => self.counted.files_already += 1,
        }
    }

    /// A file could not be loaded.
    pub fn failed(&mut self, path: String, error: Error) {
        self.counted.files_failed += 1;
        if self.failures_told + self.failures.len() < FAILURES_MAX {
            self.failures.push(FileFailure { path, error });
        }
    }

    /// Failures that are not in the record yet.
    pub fn failures(&self) -> &[FileFailure] {
        &self.failures
    }

    /// The same, to be put into the record now.
    pub fn take_failures(&mut self) -> Vec<FileFailure> {
        self.failures_told += self.failures.len();
        std::mem::take(&mut self.failures)
    }

    /// They did not come into the record.
    pub fn put_back(&mut self, mut failures: Vec<FileFailure>) {
        self.failures_told -= failures.len();
        failures.append(&mut self.failures);
        self.failures = failures;
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::ErrorKind;

    use super::*;

    #[test]
    fn files_that_the_job_loaded_under_another_leader_are_its_own() {
        let recorded = JobProgress {
            files_total: 5,
            files_loaded: 3,
            files_failed: 1,
            bytes_moved: 30,
            ..JobProgress::default()
        };
        let mut counts = Counts::going_on(&recorded);
        let loaded_and_already = |counts: &Counts| {
            let progress = counts.progress();
            (progress.files_loaded, progress.files_already)
        };
        assert_eq!(
            (loaded_and_already(&counts), counts.progress().bytes_moved),
            ((0, 0), 30)
        );
        counts.ended(false);
        assert_eq!(loaded_and_already(&counts), (1, 0));
        // Three that it had loaded, and one that was cached before it.
        (0..3).for_each(|_| counts.ended(false));
        counts.ended(true);
        assert_eq!(loaded_and_already(&counts), (4, 1));
        assert_eq!(counts.progress().files_failed, 0, "it is tried anew");
    }

    #[test]
    fn what_cannot_be_seen_counts_as_a_file_that_failed() {
        let mut counts = Counts::default();
        counts.found(10);
        counts.unseen("/d".to_owned(), Error::new(ErrorKind::UfsDenied, "no"));
        counts.ended(true);
        let progress = counts.progress();
        let ended = progress.files_loaded + progress.files_already + progress.files_failed;
        assert_eq!((progress.files_total, ended, progress.bytes_total), (2, 2, 10));
    }

    #[test]
    fn failures_are_kept_up_to_a_limit_and_counted_beyond() {
        let mut counts = Counts::default();
        let fail = |counts: &mut Counts| counts.failed("/f".to_owned(), Error::new(ErrorKind::Ufs, "no"));
        (0..FAILURES_MAX - 1).for_each(|_| fail(&mut counts));
        assert_eq!(counts.take_failures().len(), FAILURES_MAX - 1);
        (0..5).for_each(|_| fail(&mut counts));
        assert_eq!(counts.failures().len(), 1);
        assert_eq!(counts.progress().files_failed, FAILURES_MAX as u64 + 4);
    }

    #[test]
    fn a_file_that_begins_again_sets_its_bytes_back_and_not_what_was_moved() {
        let mut counts = Counts::default();
        counts.moved(7);
        counts.cached(7);
        counts.set_back(7);
        let progress = counts.progress();
        assert_eq!((progress.bytes_moved, progress.bytes_done), (7, 0));
    }
}
