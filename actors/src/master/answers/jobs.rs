//! Load jobs: submitting, looking, cancelling.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::job::{JobRecord, PATHS_MAX};
use curvine_protocol::master::*;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::{CallContext, CurvinePath, Error, ErrorKind, JobId, Node, Result};

use super::Answers;
use crate::kit::Clock;
use crate::master::contract::{Consensus, NamespaceView, ProposeOp};
use crate::master::duties::loads::Loads;
use crate::master::mirror::Mirror;

/// Jobs kept in listings.
const JOBS_LISTED: usize = 100;

pub struct JobAnswers {
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub consensus: Arc<dyn Consensus>,
    pub mirror: Arc<Mirror>,
    pub loads: Loads,
    pub clock: Arc<dyn Clock>,
}

impl Answers<SubmitLoad> for JobAnswers {
    async fn answer(self: Arc<Self>, call: SubmitLoad, _context: CallContext) -> Result<JobRecord> {
        let paths = self.loadable(call.paths).await?;
        match self.propose.propose_op(Op::AddJob { paths }).await? {
            OpReply::Job(job) => {
                self.loads.run(job.clone());
                Ok(job)
            }
            other => Err(Error::internal(format!("the reply to AddJob is {other:?}"))),
        }
    }
}

impl Answers<PlanLoad> for JobAnswers {
    async fn answer(self: Arc<Self>, call: PlanLoad, _context: CallContext) -> Result<LoadPlan> {
        let paths = self.loadable(call.paths).await?;
        Ok(self.loads.look(&paths).await)
    }
}

impl JobAnswers {
    /// These paths without those that are below others, if all of them are in mounts.
    async fn loadable(&self, paths: Vec<CurvinePath>) -> Result<Vec<CurvinePath>> {
        self.consensus.read_barrier().await?;
        if paths.is_empty() {
            return Err(Error::invalid("nothing to load: name at least one path"));
        }
        if paths.len() > PATHS_MAX {
            return Err(Error::invalid(format!(
                "{} paths are too many for one job: name directories, or up to {PATHS_MAX} paths at a time",
                paths.len()
            )));
        }
        for path in &paths {
            self.mirror.fresh_path(path).await?;
            let inode = self.view.lookup(&Node::Path(path.clone()), true)?.attr.inode;
            let has_mounts =
                || Ok::<_, Error>(self.view.mounts()?.iter().any(|mount| path.contains(&mount.path)));
            if self.view.mounted(inode)?.is_none() && !has_mounts()? {
                return Err(Error::invalid(format!(
                    "{path}: is in no mount, so there is nothing to load it from; `cv mounts` lists the mounts"
                )));
            }
        }
        Ok(outermost(paths))
    }

    fn known(&self, id: JobId) -> Result<JobRecord> {
        let now_ns = self.clock.wall_ns();
        let known = self.view.job(id)?.filter(|job| !job.is_expired(now_ns));
        known.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no job {id}; `cv load --list` lists the jobs"),
            )
        })
    }
}

/// Paths in their order, each once, without those that are below others.
fn outermost(mut paths: Vec<CurvinePath>) -> Vec<CurvinePath> {
    let all: HashSet<CurvinePath> = paths.iter().cloned().collect();
    let is_below = |path: &CurvinePath| {
        std::iter::successors(path.parent(), CurvinePath::parent).any(|above| all.contains(&above))
    };
    let mut seen = HashSet::new();
    paths.retain(|path| !is_below(path) && seen.insert(path.clone()));
    paths
}

impl Answers<GetJob> for JobAnswers {
    async fn answer(self: Arc<Self>, call: GetJob, _context: CallContext) -> Result<JobRecord> {
        self.consensus.read_barrier().await?;
        Ok(self.loads.live(self.known(call.id)?))
    }
}

impl Answers<ListJobs> for JobAnswers {
    async fn answer(self: Arc<Self>, _call: ListJobs, _context: CallContext) -> Result<Jobs> {
        self.consensus.read_barrier().await?;
        let now_ns = self.clock.wall_ns();
        let jobs = self.view.jobs()?.into_iter().rev();
        let jobs = jobs.filter(|job| !job.is_expired(now_ns)).take(JOBS_LISTED);
        let brief = jobs.map(|job| JobRecord {
            failures: Vec::new(),
            ..self.loads.live(job)
        });
        Ok(Jobs {
            jobs: brief.collect(),
        })
    }
}

impl Answers<CancelJob> for JobAnswers {
    async fn answer(self: Arc<Self>, call: CancelJob, _context: CallContext) -> Result<JobRecord> {
        self.consensus.read_barrier().await?;
        let job = self.known(call.id)?;
        if !self.loads.cancel(job.id) && job.state.is_ended() {
            return Err(Error::invalid(format!(
                "job {} has ended already ({:?})",
                job.id, job.state
            )));
        }
        for _ in 0..100 {
            let now = self.known(call.id)?;
            if now.state.is_ended() {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.known(call.id)
    }
}
