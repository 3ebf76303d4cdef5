//! The worker's front door: every call of the worker service, routed to the disk that has the block.
//!
//! Reads of sealed blocks are answered here and now, from the index of the disk, with a grant.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use curvine_protocol::worker::{
    BlockVerified, BlocksCompared, BlocksExplained, BlocksMarked, BlocksPinned, CompareBlocks,
    ConfirmReplicas, CopyReplica, DeleteBlocks, Done, ExplainBlocks, ExportFile, FenceBlocks, GetHostSocket,
    GetWorkerStatus, HostSocketName, KeepReplicas, ListBlocks, LoadBlocks, MarkBlocks, PinBlocks, PunchBlock,
    PutBlock, READ_BYTES_MAX, ReadBlock, ReplicasShed, Scrub, ScrubStatus, SealBlock, ShedReplicas,
    StopLoading, SuspectBlock, WorkerDisks, WorkerEcho, WorkerEchoed, WriteBlock,
};
use curvine_protocol::{BlockId, CallContext, Error, ErrorKind, Result};
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::disk::{DiskRef, Grant, Permit, Removal, missing};
use super::disks::{Disks, Need, stopping};
use super::membership::{Session, Standing, unregistered};
use super::replication::Replication;
use super::shedding::Shedding;
use super::traffic::Found;
use super::ufs_reader::{ReadThrough, Suspect, UfsReader};
use super::ufs_writer::UfsWriter;
use crate::kit::metrics::{Measured, timed};
use crate::kit::{Answer, Ask, Endpoint};

/// How often a block is looked for that can be fetched, and goes again before it is read.
const READS_MAX: u32 = 4;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);
const TRANSFER_DEADLINE: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub struct WorkerDoor {
    inner: Arc<Inner>,
}

struct Inner {
    disks: Disks,
    session: watch::Receiver<Option<Session>>,
    standing: Arc<Standing>,
    reader: Addr<UfsReader>,
    writer: Addr<UfsWriter>,
    replication: Replication,
    shedding: Shedding,
    /// Under which name files are lent.
    host_socket: String,
}

impl WorkerDoor {
    #[allow(
        clippy::too_many_arguments,
        reason = "a constructor lists everything it can reach"
    )]
    pub(super) fn new(
        disks: Disks,
        session: watch::Receiver<Option<Session>>,
        standing: Arc<Standing>,
        reader: Addr<UfsReader>,
        writer: Addr<UfsWriter>,
        replication: Replication,
        shedding: Shedding,
        host_socket: String,
    ) -> Self {
        WorkerDoor {
            inner: Arc::new(Inner {
                disks,
                session,
                standing,
                reader,
                writer,
                replication,
                shedding,
                host_socket,
            }),
        }
    }
}

impl Inner {
    fn permit(&self, epoch: u64) -> Permit {
        let standing = self.standing.clone();
        Box::new(move || standing.check(epoch))
    }

    /// Has the disk of a block change it. At once, as far as that can be: what comes from one writer keeps its order.
    fn change<C: Measured>(
        self: &Arc<Self>,
        block: BlockId,
        need: Need,
        ask: Ask<C>,
        permit: Permit,
        change: impl FnOnce(&DiskRef, Ask<C>, Permit) -> BoxFuture<'static, Result<Answer<C>>> + Send + 'static,
    ) -> BoxFuture<'static, Result<Answer<C>>> {
        let context = ask.context.clone();
        match self.disks.try_for_written(block, need) {
            Err(error) => at_once(Err(error)),
            Ok(Some((entered, disk))) => {
                let changed = change(disk, ask, permit);
                bounded(&context, async move {
                    let _entered = entered;
                    changed.await
                })
            }
            Ok(None) => {
                let inner = self.clone();
                bounded(&context, async move {
                    let (_entered, disk) = inner.disks.for_written(block, need).await?;
                    change(disk, ask, permit).await
                })
            }
        }
    }

    async fn read(self: Arc<Self>, call: ReadBlock) -> Result<Answer<ReadBlock>> {
        if call.fill.as_ref().is_some_and(|fill| fill.whole) {
            self.disks.spare(call.block).await;
        }
        for _ in 1..READS_MAX {
            let before = self.disks.handed_over();
            match self.read_once(&call).await {
                // It went while it was looked at, or to another disk.
                Err(error)
                    if error.kind == ErrorKind::NotFound
                        && (call.fill.is_some() || self.disks.handed_over() != before) => {}
                Err(error) if error.kind == ErrorKind::NotFound => {
                    return self.disks.read_aside(&call).await;
                }
                outcome => return outcome,
            }
        }
        self.read_once(&call).await
    }

    /// Counts a read of what is here.
    fn hit(&self, call: &ReadBlock, answer: Answer<ReadBlock>) -> Answer<ReadBlock> {
        if let Some(mount) = call.fill.as_ref().and_then(|fill| fill.mount) {
            self.disks
                .traffic()
                .of(mount)
                .read(Found::Here, answer.body.len());
        }
        answer
    }

    async fn read_once(&self, call: &ReadBlock) -> Result<Answer<ReadBlock>> {
        match self.disks.grant(call) {
            Err(error) if error.kind == ErrorKind::NotFound && call.fill.is_some() => {}
            Err(error) => return Err(error),
            Ok(Some((_, Grant::Ready(answer)))) => return Ok(self.hit(call, answer)),
            Ok(Some((disk, Grant::Look))) => {
                let (done, looked) = oneshot::channel();
                let look = call.clone();
                disk.store.on_lane(call.block, move |store| {
                    let _ = done.send(store.read(&look));
                });
                match looked.await {
                    Ok(Err(error))
                        if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound)
                            && call.fill.is_some() => {}
                    Ok(outcome) => return outcome.map(|answer| self.hit(call, answer)),
                    Err(_) => return Err(Error::internal("a read was given up")),
                }
            }
            Ok(Some((_, Grant::Filling | Grant::Missing)) | None) => {}
        }
        match call.fill.clone() {
            Some(fill) => self
                .reader
                .send(ReadThrough {
                    call: call.clone(),
                    fill,
                })
                .await
                .unwrap_or_else(|_| Err(stopping())),
            None => Err(missing(call.block)),
        }
    }
}

/// Within the caller's deadline, or the default.
fn bounded<C: Measured>(
    context: &CallContext,
    answer: impl Future<Output = Result<Answer<C>>> + Send + 'static,
) -> BoxFuture<'static, Result<Answer<C>>> {
    bounded_by(context, DEFAULT_DEADLINE, answer)
}

/// [`bounded`], for whole files on their way from or to an under file system.
fn transfer<C: Measured>(
    context: &CallContext,
    answer: impl Future<Output = Result<Answer<C>>> + Send + 'static,
) -> BoxFuture<'static, Result<Answer<C>>> {
    bounded_by(context, TRANSFER_DEADLINE, answer)
}

fn bounded_by<C: Measured>(
    context: &CallContext,
    default: Duration,
    answer: impl Future<Output = Result<Answer<C>>> + Send + 'static,
) -> BoxFuture<'static, Result<Answer<C>>> {
    let limit = match context.deadline_ms {
        0 => default,
        ms => Duration::from_millis(ms.into()),
    };
    Box::pin(timed::<C, _>(async move {
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("{}: the worker did not finish within {limit:?}", C::NAME),
            ))
        })
    }))
}

/// What is known already.
fn at_once<C: Measured>(answer: Result<Answer<C>>) -> BoxFuture<'static, Result<Answer<C>>> {
    Box::pin(timed::<C, _>(std::future::ready(answer)))
}

impl Endpoint<WorkerEcho> for WorkerDoor {
    fn ask(&self, _: Ask<WorkerEcho>) -> BoxFuture<'static, Result<Answer<WorkerEcho>>> {
        let session = *self.inner.session.borrow();
        let echoed = session.map(|session| WorkerEchoed {
            worker: session.worker,
            cluster: session.cluster,
        });
        at_once(echoed.map(Answer::new).ok_or_else(unregistered))
    }
}

impl Endpoint<GetHostSocket> for WorkerDoor {
    fn ask(&self, _: Ask<GetHostSocket>) -> BoxFuture<'static, Result<Answer<GetHostSocket>>> {
        let name = self.inner.host_socket.clone();
        at_once(Ok(Answer::new(HostSocketName { name })))
    }
}

impl Endpoint<ReadBlock> for WorkerDoor {
    fn ask(
        &self,
        Ask {
            mut call, context, ..
        }: Ask<ReadBlock>,
    ) -> BoxFuture<'static, Result<Answer<ReadBlock>>> {
        call.len_bytes = call.len_bytes.min(READ_BYTES_MAX);
        bounded(&context, self.inner.clone().read(call))
    }
}

impl Endpoint<WriteBlock> for WorkerDoor {
    fn ask(&self, ask: Ask<WriteBlock>) -> BoxFuture<'static, Result<Answer<WriteBlock>>> {
        let need = Need {
            bytes: ask.body.len() as u64,
            hint_bytes: ask.call.reserve_bytes,
            until_bytes: ask.call.offset_bytes.saturating_add(ask.body.len() as u64),
            tier: ask.call.tier,
        };
        let permit = self.inner.permit(ask.call.epoch);
        self.inner
            .change(ask.call.block, need, ask, permit, DiskRef::write)
    }
}

impl Endpoint<PunchBlock> for WorkerDoor {
    fn ask(&self, ask: Ask<PunchBlock>) -> BoxFuture<'static, Result<Answer<PunchBlock>>> {
        let permit = self.inner.permit(ask.call.epoch);
        self.inner
            .change(ask.call.block, Need::default(), ask, permit, DiskRef::punch)
    }
}

impl Endpoint<PutBlock> for WorkerDoor {
    fn ask(&self, ask: Ask<PutBlock>) -> BoxFuture<'static, Result<Answer<PutBlock>>> {
        let len_bytes = ask.body.len() as u64;
        let need = Need {
            bytes: len_bytes,
            hint_bytes: len_bytes,
            until_bytes: len_bytes,
            tier: ask.call.tier,
        };
        let permit = self.inner.permit(ask.call.epoch);
        self.inner.change(ask.call.block, need, ask, permit, DiskRef::put)
    }
}

impl Endpoint<SealBlock> for WorkerDoor {
    fn ask(&self, ask: Ask<SealBlock>) -> BoxFuture<'static, Result<Answer<SealBlock>>> {
        let permit: Permit = match ask.call.or_newer {
            true => Box::new(|| Ok(())),
            false => self.inner.permit(ask.call.epoch),
        };
        self.inner
            .change(ask.call.block, Need::default(), ask, permit, DiskRef::seal)
    }
}

impl Endpoint<FenceBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<FenceBlocks>,
    ) -> BoxFuture<'static, Result<Answer<FenceBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            inner.disks.fence(&call.blocks, call.generation).await?;
            Ok(Answer::new(Done {}))
        })
    }
}

impl Endpoint<CompareBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<CompareBlocks>,
    ) -> BoxFuture<'static, Result<Answer<CompareBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let replicas = inner.disks.compare(&call.blocks).await?;
            Ok(Answer::new(BlocksCompared { replicas }))
        })
    }
}

impl Endpoint<KeepReplicas> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<KeepReplicas>,
    ) -> BoxFuture<'static, Result<Answer<KeepReplicas>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            inner.disks.keep(&call.blocks, call.generation).await?;
            Ok(Answer::new(Done {}))
        })
    }
}

impl Endpoint<MarkBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<MarkBlocks>,
    ) -> BoxFuture<'static, Result<Answer<MarkBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let marked = inner.disks.mark(&call).await?;
            Ok(Answer::new(BlocksMarked { marked }))
        })
    }
}

impl Endpoint<PinBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<PinBlocks>,
    ) -> BoxFuture<'static, Result<Answer<PinBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let ordered = inner.disks.pin(&call).await?;
            Ok(Answer::new(BlocksPinned { ordered }))
        })
    }
}

impl Endpoint<CopyReplica> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<CopyReplica>,
    ) -> BoxFuture<'static, Result<Answer<CopyReplica>>> {
        let replication = self.inner.replication.clone();
        transfer(&context, async move {
            replication.copy(call).await?;
            Ok(Answer::new(Done {}))
        })
    }
}

impl Endpoint<ShedReplicas> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<ShedReplicas>,
    ) -> BoxFuture<'static, Result<Answer<ShedReplicas>>> {
        let shedding = self.inner.shedding.clone();
        transfer(&context, async move {
            let went = shedding.shed(call).await?;
            Ok(Answer::new(ReplicasShed { went }))
        })
    }
}

impl Endpoint<ConfirmReplicas> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<ConfirmReplicas>,
    ) -> BoxFuture<'static, Result<Answer<ConfirmReplicas>>> {
        let shedding = self.inner.shedding.clone();
        transfer(
            &context,
            async move { Ok(Answer::new(shedding.confirm(call).await?)) },
        )
    }
}

impl Endpoint<SuspectBlock> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<SuspectBlock>,
    ) -> BoxFuture<'static, Result<Answer<SuspectBlock>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            // Whoever fills the block knows what is there of it.
            let looked = inner.reader.send(Suspect(call)).await;
            let is_right = looked.unwrap_or_else(|_| Err(stopping()))?;
            Ok(Answer::new(BlockVerified { is_right }))
        })
    }
}

impl Endpoint<DeleteBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<DeleteBlocks>,
    ) -> BoxFuture<'static, Result<Answer<DeleteBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let blocks = call.blocks.into_iter().map(Removal::whatever_it_is).collect();
            inner.disks.remove(blocks).await?;
            Ok(Answer::new(Done {}))
        })
    }
}

impl Endpoint<GetWorkerStatus> for WorkerDoor {
    fn ask(&self, _: Ask<GetWorkerStatus>) -> BoxFuture<'static, Result<Answer<GetWorkerStatus>>> {
        let session = *self.inner.session.borrow();
        let status = WorkerDisks {
            worker: session.map_or_else(Default::default, |session| session.worker),
            disks: self.inner.disks.statuses(),
        };
        at_once(Ok(Answer::new(status)))
    }
}

impl Endpoint<ListBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<ListBlocks>,
    ) -> BoxFuture<'static, Result<Answer<ListBlocks>>> {
        let inner = self.inner.clone();
        bounded(
            &context,
            async move { inner.disks.list(&call).await.map(Answer::new) },
        )
    }
}

impl Endpoint<ExplainBlocks> for WorkerDoor {
    fn ask(
        &self,
        Ask { call, context, .. }: Ask<ExplainBlocks>,
    ) -> BoxFuture<'static, Result<Answer<ExplainBlocks>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let blocks = inner.disks.account_for(call.blocks).await?;
            Ok(Answer::new(BlocksExplained { blocks }))
        })
    }
}

impl Endpoint<Scrub> for WorkerDoor {
    fn ask(&self, Ask { call, context, .. }: Ask<Scrub>) -> BoxFuture<'static, Result<Answer<Scrub>>> {
        let inner = self.inner.clone();
        bounded(&context, async move {
            let disks = inner.disks.scrub(call.start).await?;
            Ok(Answer::new(ScrubStatus { disks }))
        })
    }
}

impl Endpoint<LoadBlocks> for WorkerDoor {
    fn ask(&self, ask: Ask<LoadBlocks>) -> BoxFuture<'static, Result<Answer<LoadBlocks>>> {
        transfer(&ask.context.clone(), Endpoint::ask(&self.inner.reader, ask))
    }
}

impl Endpoint<StopLoading> for WorkerDoor {
    fn ask(&self, ask: Ask<StopLoading>) -> BoxFuture<'static, Result<Answer<StopLoading>>> {
        bounded(&ask.context.clone(), Endpoint::ask(&self.inner.reader, ask))
    }
}

impl Endpoint<ExportFile> for WorkerDoor {
    fn ask(&self, ask: Ask<ExportFile>) -> BoxFuture<'static, Result<Answer<ExportFile>>> {
        transfer(&ask.context.clone(), Endpoint::ask(&self.inner.writer, ask))
    }
}
