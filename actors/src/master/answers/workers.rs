//! Calls of workers: registration, heartbeats, block reports, what they ask about files and mounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use curvine_protocol::cluster::{BlockReplica, WorkerService};
use curvine_protocol::master::*;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::worker::Done;
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, FileLayout, Result, WorkerId};

use tokio::sync::Notify;

use super::Answers;
use crate::kit::ports::offloaded;
use crate::kit::{Clock, Offload, Random};
use crate::master::blocks::balance::Moved;
use crate::master::blocks::roster::WorkerEntry;
use crate::master::blocks::{BlockMap, CachedOf};
use crate::master::contract::{BlockOwner, Consensus, NamespaceView, ProposeOp};
use crate::master::duties::kinds::Exported;
use crate::master::mirror::Mirror;
use crate::master::namespace::balance::Balance;
use crate::master::namespace::kept::Doubted;
use crate::master::pinning::Pinning;
use crate::planted::{Bug, is_planted};

/// Blocks of a report that are looked up in one state, right before they are taken in: one that is deleted in between stays
/// on its worker until the next full report.
const LOOKED_UP_AT_ONCE: usize = 32;

pub struct WorkerAnswers {
    pub view: Arc<dyn NamespaceView>,
    pub propose: Arc<dyn ProposeOp>,
    pub consensus: Arc<dyn Consensus>,
    pub blocks: Arc<BlockMap>,
    pub mirror: Arc<Mirror>,
    pub random: Arc<dyn Random>,
    pub exported: Arc<Exported>,
    pub clock: Arc<dyn Clock>,
    pub pinning: Pinning,
    /// Where reports are taken in, one after another: each has thousands of blocks, and no call is to wait for that.
    pub reports: Arc<dyn Offload>,
    /// What has the duty `repair` look.
    pub repair_now: Arc<Notify>,
}

impl WorkerAnswers {
    fn known(&self, worker: WorkerId, token: u64) -> Result<()> {
        match self.blocks.cluster().roster.knows(worker, token) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::NotPermitted,
                format!("worker {worker} is not registered with this master, or has registered again since"),
            )),
        }
    }

    fn doubts(&self, report: &ReportBlocks) -> Result<Doubts> {
        let mut doubts = Doubts::default();
        for &block in &report.doubtful {
            match self.view.worth(block)? {
                Doubted::Counts => doubts.accept.push(block),
                Doubted::IsNoUse => drop(doubts.unwanted.insert(block)),
                Doubted::MayBeOlder if is_planted(Bug::DoubtfulReplicasCount) => doubts.accept.push(block),
                Doubted::MayBeOlder => drop(doubts.older.insert(block)),
            }
        }
        Ok(doubts)
    }

    /// Takes in which replicas a worker has set aside. Of those that are no use to anybody, which: until there are as many as
    /// the file is to have, one that is left may be wrong in another place.
    fn set_aside(&self, report: &ReportBlocks) -> Result<Vec<BlockId>> {
        let mut discard = Vec::new();
        for &block in &report.damaged {
            let known = self.view.block_owner(block)?;
            let is_of_use = match known {
                Some((inode, _, known)) if self.view.worth(block)? != Doubted::IsNoUse => {
                    let wanted = usize::from(self.view.attr(inode)?.replicas.max(1));
                    self.blocks.cluster().reported_by(&known, self.blocks.now()) < wanted
                }
                _ => false,
            };
            match is_of_use {
                true => self.blocks.cluster().holders.damaged(report.worker, block),
                false => discard.push(block),
            }
        }
        Ok(discard)
    }

    /// Takes in what a worker reports.
    fn take_in(&self, call: &ReportBlocks) -> Result<ReportAnswer> {
        self.known(call.worker, call.token)?;
        if !self
            .blocks
            .cluster()
            .roster
            .takes_report(call.worker, call.number)
        {
            return Err(Error::new(
                ErrorKind::Stale,
                format!(
                    "a block report of worker {} comes late: a later one is in",
                    call.worker
                ),
            ));
        }
        if call.full_start {
            self.blocks.cluster().holders.forget_worker(call.worker);
        }
        let Doubts {
            accept,
            unwanted,
            older,
        } = self.doubts(call)?;
        let mut owners = HashMap::new();
        let mut delete = self.blocks.report(call.worker, &[], &call.removed, |_| None);
        for stored in call.stored.chunks(LOOKED_UP_AT_ONCE) {
            owners.extend(self.owners(stored)?);
            let known = |block: BlockId| match unwanted.contains(&block) {
                true => None,
                false => owners.get(&block).map(|(_, _, known): &BlockOwner| *known),
            };
            // Whatever another worker has said to have of what the namespace knows is better than an older one.
            let counts_as = |replica: &BlockReplica| match known(replica.id) {
                Some(known) if older.contains(&replica.id) => BlockReplica {
                    generation: replica.generation.min(known.generation.saturating_sub(1)),
                    ..*replica
                },
                _ => *replica,
            };
            let stored: Vec<_> = stored.iter().map(counts_as).collect();
            delete.extend(self.blocks.report(call.worker, &stored, &[], known));
        }
        for block in older {
            self.blocks.cluster().holders.doubted(call.worker, block);
        }
        for block in call.said_endangered() {
            self.blocks.cluster().holders.endangered(call.worker, block);
        }
        let discard = self.set_aside(call)?;
        self.look_at_kept(call, &owners)?;
        if !self.pinning.reported(call, &owners)? {
            // Too many are to be looked at already: it tells it all again later.
            self.blocks.untold(call.worker);
        }
        if call.full_end {
            self.blocks.cluster().roster.fully_reported(call.worker);
        }
        Ok(ReportAnswer {
            delete,
            accept,
            discard,
        })
    }

    /// Who owns what a worker has stored, as the namespace is now.
    fn owners(&self, stored: &[BlockReplica]) -> Result<impl Iterator<Item = (BlockId, BlockOwner)>> {
        let stored: Vec<_> = stored.iter().map(|replica| replica.id).collect();
        let owners = self.view.block_owners(&stored)?;
        let owned = stored.into_iter().zip(owners);
        Ok(owned.filter_map(|(block, owner)| Some((block, owner?))))
    }

    /// A worker keeps what it may take for cached if an object has it: it was not told, or not heard.
    fn look_at_kept(&self, report: &ReportBlocks, owners: &HashMap<BlockId, BlockOwner>) -> Result<()> {
        let is_writable = |mount: &MountRecord| mount.settings.writable;
        if report.kept.is_empty() || !self.view.mounts()?.iter().any(is_writable) {
            return Ok(());
        }
        let mut last = None;
        for replica in report.said_kept() {
            let Some(&(inode, ..)) = owners.get(&replica.id) else {
                continue;
            };
            // The blocks of a file follow each other.
            if last != Some(inode) && self.view.attr(inode).is_ok_and(|attr| attr.ufs.is_some()) {
                self.exported.note(inode, self.blocks.now());
            }
            last = Some(inode);
        }
        Ok(())
    }
}

/// What becomes of doubtful replicas.
#[derive(Default)]
struct Doubts {
    accept: Vec<BlockId>,
    unwanted: BTreeSet<BlockId>,
    older: BTreeSet<BlockId>,
}

impl Answers<RegisterWorker> for WorkerAnswers {
    async fn answer(
        self: Arc<Self>,
        call: RegisterWorker,
        _context: CallContext,
    ) -> Result<WorkerRegistered> {
        self.consensus.read_barrier().await?;
        let cluster = self.view.cluster_id()?;
        if let Some(theirs) = call.cluster
            && theirs != cluster
        {
            return Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "the worker at {} belongs to cluster {theirs}, this is cluster {cluster}; give it another data directory",
                    call.address
                ),
            ));
        }
        let worker = match call.worker {
            Some(worker) => worker,
            None => match self
                .propose
                .propose_op(Op::AddWorker {
                    address: call.address.clone(),
                })
                .await?
            {
                OpReply::Worker(worker) => worker,
                other => return Err(Error::internal(format!("the reply to AddWorker is {other:?}"))),
            },
        };
        let token = self.random.next_u64() | 1;
        let entry = WorkerEntry {
            address: call.address,
            token,
            disks: call.disks,
            version: call.version,
            epoch: call.epoch,
            last_heartbeat: self.blocks.now(),
            reported: false,
            report_again: false,
            report: 0,
            traffic: BTreeMap::new(),
            cache_shares: BTreeMap::new(),
            labels: call.labels,
            hot: Vec::new(),
        };
        self.blocks.learn_services(self.view.services()?);
        self.blocks.cluster().roster.register(worker, entry);
        Ok(WorkerRegistered {
            worker,
            cluster,
            token,
        })
    }
}

impl Answers<WorkerHeartbeat> for WorkerAnswers {
    async fn answer(
        self: Arc<Self>,
        call: WorkerHeartbeat,
        _context: CallContext,
    ) -> Result<HeartbeatOrders> {
        self.consensus.read_barrier().await?;
        let mounts = self.view.mounts()?;
        let quota = |mount: &MountRecord| Some((mount.id, mount.settings.cache_quota_bytes?));
        let quotas: Vec<_> = mounts.iter().filter_map(quota).collect();
        let cached = |mount: &MountRecord| Some((mount.id, CachedOf::of(&mount.settings)?));
        let last_worker = self.view.last_worker()?;
        let now = self.blocks.now();
        let mut cluster = self.blocks.cluster();
        cluster.mounts = mounts.iter().filter_map(cached).collect();
        let known = cluster.roster.heartbeat(call.worker, call.token, call.disks, now);
        if known {
            cluster.roster.count(call.worker, call.traffic);
            cluster.roster.is_hot(call.worker, call.hot);
        }
        let told = known && cluster.may_divide_quotas(last_worker, now);
        Ok(HeartbeatOrders {
            register: !known,
            cache_shares: told.then(|| cluster.roster.cache_shares(call.worker, &quotas, now)),
        })
    }
}

impl Answers<SetWorkerService> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: SetWorkerService, _context: CallContext) -> Result<Done> {
        let SetWorkerService { worker, service } = call;
        self.consensus.read_barrier().await?;
        match service {
            WorkerService::Drained => {
                return Err(Error::invalid(
                    "that a worker is drained is what the leader finds; have it drained",
                ));
            }
            WorkerService::Maintenance { until_ns } if until_ns <= self.clock.wall_ns() => {
                return Err(Error::invalid(
                    "that maintenance has ended already: give a time to come, as with `--for 30min`",
                ));
            }
            _ => {}
        }
        // One that is drained stays so.
        let is_now = self.view.services()?.of(worker);
        if !(service == WorkerService::Draining && is_now == WorkerService::Drained) {
            let op = Op::SetWorkerService {
                worker,
                service,
                from: None,
            };
            self.propose.propose_op(op).await?;
        }
        self.blocks.learn_services(self.view.services()?);
        Ok(Done {})
    }
}

impl Answers<SetBalance> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: SetBalance, _context: CallContext) -> Result<Done> {
        let op = match call.tolerance_percent {
            Some(tolerance_percent) if TOLERANCES.contains(&tolerance_percent) => {
                Op::StartBalance { tolerance_percent }
            }
            Some(tolerance_percent) => {
                return Err(Error::invalid(format!(
                    "{tolerance_percent} % cannot be tolerated: give {} to {}",
                    TOLERANCES.start(),
                    TOLERANCES.end()
                )));
            }
            None => Op::EndBalance {
                begun_ms: None,
                how: BalanceOutcome::Stopped,
            },
        };
        self.propose.propose_op(op).await?;
        self.repair_now.notify_one();
        Ok(Done {})
    }
}

impl Answers<GetBalance> for WorkerAnswers {
    async fn answer(self: Arc<Self>, _call: GetBalance, _context: CallContext) -> Result<BalanceStatus> {
        self.consensus.read_barrier().await?;
        let Balance { run, ended } = self.view.balance()?;
        let cluster = self.blocks.cluster();
        let moved = match run {
            // It has not begun with it yet.
            Some(run) if run.begun_ms != cluster.moved.begun_ms => Moved::default(),
            _ => cluster.moved.clone(),
        };
        Ok(BalanceStatus {
            run,
            ended,
            workers: cluster.shares(self.blocks.now()),
            moved_blocks: moved.blocks,
            moved_bytes: moved.bytes,
            failure: moved.failure,
        })
    }
}

impl Answers<ReportBlocks> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: ReportBlocks, _context: CallContext) -> Result<ReportAnswer> {
        self.consensus.read_barrier().await?;
        let reports = self.reports.clone();
        offloaded(&*reports, move || self.take_in(&call)).await?
    }
}

impl Answers<ResolveMount> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: ResolveMount, _context: CallContext) -> Result<MountSecret> {
        self.consensus.read_barrier().await?;
        self.known(call.worker, call.token)?;
        let record = self.view.mount(call.mount)?;
        let record = record.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("mount {} no longer exists", call.mount),
            )
        })?;
        Ok(MountSecret { record })
    }
}

impl Answers<DescribeFile> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: DescribeFile, _context: CallContext) -> Result<FileLayout> {
        self.consensus.read_barrier().await?;
        self.known(call.worker, call.token)?;
        let mut layout = self.view.layout(call.inode)?;
        let now = self.blocks.now();
        self.blocks.cluster().peers(&mut layout, call.worker, now);
        Ok(layout)
    }
}

impl Answers<ReportUfsChanged> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: ReportUfsChanged, _context: CallContext) -> Result<Done> {
        self.consensus.read_barrier().await?;
        self.mirror.doubt(call.inode).await?;
        Ok(Done {})
    }
}

impl Answers<ConfirmExport> for WorkerAnswers {
    async fn answer(self: Arc<Self>, call: ConfirmExport, _context: CallContext) -> Result<Done> {
        self.consensus.read_barrier().await?;
        self.known(call.worker, call.token)?;
        self.view.confirm_export(call.effect, call.worker)?;
        Ok(Done {})
    }
}
