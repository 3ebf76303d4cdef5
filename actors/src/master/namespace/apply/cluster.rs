//! Formatting, workers' ids, which workers are in service, and whether they are being balanced.

use curvine_protocol::cluster::WorkerService;
use curvine_protocol::master::{BalanceEnd, BalanceOutcome, BalanceRun};
use curvine_protocol::worker::Done;
use curvine_protocol::{ClusterId, Error, ErrorKind, FileKind, InodeId, MountId, Result, WorkerId};

use super::Apply;
use crate::master::namespace::balance::{BALANCE, Balance};
use crate::master::namespace::records::{InodeBody, InodeRecord};
use crate::master::namespace::services::{SERVICES, Services};
use crate::master::namespace::store::Counter;

impl Apply<'_, '_> {
    pub(super) fn format(&mut self, cluster: ClusterId) -> Result<Done> {
        if self.dbs.cluster(self.txn)?.is_none() {
            self.dbs.put_meta_record(self.txn, "cluster", &cluster)?;
            let root = InodeRecord {
                kind: FileKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                nlink: 2,
                parent: InodeId::ROOT,
                mount: MountId(0),
                name: String::new(),
                mtime_ns: self.now_ns,
                ctime_ns: self.now_ns,
                atime_minus_mtime_ns: 0,
                btime_minus_mtime_ns: 0,
                body: InodeBody::Directory,
                holders: 0,
                acl: Vec::new(),
            };
            self.dbs.put_inode(self.txn, InodeId::ROOT, &root)?;
            self.count_inodes(1)?;
        }
        self.done()
    }

    pub(super) fn add_worker(&mut self) -> Result<WorkerId> {
        let number = self.dbs.take(self.txn, Counter::Worker, 1)?;
        let number = u32::try_from(number).map_err(|_| Error::internal("no number is left for a worker"))?;
        Ok(WorkerId(number))
    }

    pub(super) fn set_worker_service(
        &mut self,
        worker: WorkerId,
        service: WorkerService,
        from: Option<WorkerService>,
    ) -> Result<Done> {
        let next = self.dbs.counter(self.txn, Counter::Worker)?;
        if worker.0 == 0 || u64::from(worker.0) >= next {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no worker {worker}; `cv node` lists the workers"),
            ));
        }
        let services = self.dbs.meta_record::<Services>(self.txn, SERVICES)?;
        let mut services = services.unwrap_or_default();
        let is_now = services.of(worker);
        if from.is_none_or(|from| from == is_now) && is_now != service {
            services.set(worker, service);
            self.dbs.put_meta_record(self.txn, SERVICES, &services)?;
        }
        self.done()
    }

    pub(super) fn start_balance(&mut self, tolerance_percent: u8) -> Result<Done> {
        let begun = Balance {
            run: Some(BalanceRun {
                tolerance_percent,
                begun_ms: self.now_ns / 1_000_000,
            }),
            ..self.dbs.balance(self.txn)?
        };
        self.dbs.put_meta_record(self.txn, BALANCE, &begun)?;
        self.done()
    }

    /// What was found of one run says nothing of the next.
    pub(super) fn end_balance(&mut self, begun_ms: Option<i64>, how: BalanceOutcome) -> Result<Done> {
        let balance = self.dbs.balance(self.txn)?;
        let is_meant = |run: BalanceRun| begun_ms.is_none_or(|begun_ms| begun_ms == run.begun_ms);
        if balance.run.is_some_and(is_meant) {
            let ended = Balance {
                run: None,
                ended: Some(BalanceEnd {
                    at_ms: self.now_ns / 1_000_000,
                    how,
                }),
            };
            self.dbs.put_meta_record(self.txn, BALANCE, &ended)?;
        }
        self.done()
    }
}
