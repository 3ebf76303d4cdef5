//! How a change gets a file that another client is writing: the lease is asked back, or broken.
//!
//! The holder is told, flushes what it has, and gives the lease back: then the change is proposed again. A holder that
//! neither waits for news nor was heard of for [`LEASE`] loses it: the lease is *broken*, which gives the file another
//! generation. Wherever a lease ended without its holder's word, the workers that hold the file's blocks must refuse what
//! that holder may still send before anybody else gets the file: the file is marked in the state until they do, so a
//! leader that takes over goes on with it ([`recovery`](super::recovery)).

use std::sync::Arc;
use std::time::Duration;

use curvine_protocol::master::{IfExists, Lease, Lock, SetLock};
use curvine_protocol::op::{Command, Op, OpReply};
use curvine_protocol::{CallContext, ClientId, Error, ErrorKind, InodeId, Node, Result};
use tokio::time::{sleep, sleep_until, timeout};

use super::actor::Parts;
use super::records::InodeBody;
use super::recovery::Recovery;
use super::resolve::resolve;
use super::store::Store;
use crate::kit::deadlines::{LEADER_WAIT, leader_waits};
use crate::master::contract::{NamespaceView, ProposeOp};
use crate::master::duties::sessions::Hearing;
use crate::master::locking::Locking;
use crate::master::recalls::Recalls;
use crate::planted::{Bug, is_planted};

/// A holder that is silent for so long may lose its lease to whoever wants the file. Clients renew every 10 s.
pub const LEASE: Duration = Duration::from_millis(curvine_protocol::master::LEASE_SILENT_MS);
/// How often a waiter looks whether the holder lives.
pub const LOOK: Duration = Duration::from_millis(500);

/// No session has this number: to it, every lease is another's.
const NOBODY: ClientId = ClientId(0);

/// What waiting for leases needs.
pub struct Leases {
    pub recalls: Arc<Recalls>,
    pub hearing: Arc<Hearing>,
    pub recovery: Arc<Recovery>,
    pub own: Arc<dyn ProposeOp>,
    pub locking: Arc<Locking>,
}

/// What is between a client and the lease of a file.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Free,
    Held {
        holder: ClientId,
        heard_ns: i64,
        content_version: u64,
    },
    Unfenced {
        content_version: u64,
    },
}

/// The file that a change writes, if it is one that needs that nobody else does.
fn wanted(op: &Op) -> Option<(&Node, bool)> {
    match op {
        Op::OpenForWrite(call) => Some((&call.node, call.follow)),
        Op::CreateFile(call) if call.if_exists != IfExists::Fail => Some((&call.node, true)),
        Op::SetAttr(call) if call.change.size_bytes.is_some() => Some((&call.node, call.follow)),
        _ => None,
    }
}

impl Parts {
    /// Proposes a client's change, when no other client's lease is in its way any more.
    pub(super) async fn propose(&self, op: Op, context: CallContext) -> Result<OpReply> {
        let wanted = wanted(&op).map(|(node, follow)| (node.clone(), follow));
        let mut command = Command {
            client: context.client,
            sequence: context.sequence,
            acked_below: context.acked_below,
            uid: context.uid,
            gid: context.gid,
            time_ns: self.clock.wall_ns(),
            op,
            waits: wanted.is_some(),
        };
        if let Op::SetLock(SetLock { inode, lock }) = &command.op {
            return self.commit_lock(*inode, *lock, command).await;
        }
        let Some((node, follow)) = wanted else {
            return self.commit(command).await;
        };
        // Whoever comes to a file that others wait for waits behind them; but not who has it, and may not know.
        let queued = !self.leases.recalls.is_idle()
            && self.store.file_at(&node, follow)?.is_some_and(|inode| {
                self.leases.recalls.is_wanted(inode)
                    && self.store.lease_holder(inode).ok().flatten() != Some(command.client)
            });
        if !queued {
            match self.commit(command.clone()).await {
                Err(error)
                    if error.kind == ErrorKind::LeaseConflict && !self.store.has_answered(&command)? => {}
                reply => return reply,
            }
        }
        let patience = leader_waits(context.deadline_ms);
        let waiting = async {
            while let Some(inode) = self.store.file_at(&node, follow)? {
                match self.wait_and_commit(inode, (&node, follow), &command).await {
                    // Its name leads to another file by now.
                    Err(error)
                        if error.kind == ErrorKind::LeaseConflict
                            && !self.store.has_answered(&command)? => {}
                    reply => return reply,
                }
            }
            self.commit(command.clone()).await
        };
        if let Ok(reply) = timeout(patience, waiting).await {
            return reply;
        }
        // The answer, whatever it is, counts.
        command.waits = false;
        self.commit(command).await
    }

    /// # Errors
    /// The change's own; `LeaseConflict` if it is about another file than the one that was waited for.
    async fn wait_and_commit(
        &self,
        inode: InodeId,
        (node, follow): (&Node, bool),
        command: &Command,
    ) -> Result<OpReply> {
        let mut waiter = self.leases.recalls.wait_for(inode)?;
        let _turn = waiter.turn().await;
        loop {
            waiter.look();
            match self.store.way_to(inode, command.client)? {
                Way::Free => match self.commit(command.clone()).await {
                    // Somebody else was faster. What another try of the same change was told last, it is told, too.
                    Err(error)
                        if error.kind == ErrorKind::LeaseConflict
                            && self.store.file_at(node, follow)? == Some(inode)
                            && !self.store.has_answered(command)? => {}
                    reply => return reply,
                },
                Way::Held {
                    holder,
                    heard_ns,
                    content_version,
                } => {
                    waiter.ask(holder);
                    if self.is_gone(holder, heard_ns) {
                        tracing::info!(
                            "session {:016x} is silent: its lease on inode {inode} is broken",
                            holder.0
                        );
                        self.break_lease(inode, holder, content_version).await?;
                        continue;
                    }
                    tokio::select! {
                        () = waiter.given_back() => {}
                        () = sleep(LOOK) => {}
                    }
                }
                Way::Unfenced { .. } => self.leases.recovery.recover(inode).await.map_err(|e| {
                    e.while_doing(format_args!(
                        "keeping the last writer of inode {inode} from its blocks"
                    ))
                })?,
            }
        }
    }

    /// Takes the lease from a holder, unless it has committed since this version.
    async fn break_lease(&self, inode: InodeId, holder: ClientId, content_version: u64) -> Result<()> {
        let broken = Op::BreakLease {
            inode,
            holder,
            content_version,
        };
        self.leases.own.propose_op(broken).await.map(drop)
    }

    /// Takes a file away from whoever has it, and has workers refuse what that client may still send. What is not done when
    /// the caller's patience ends is the duty of the masters, who go on with it.
    pub(super) async fn revoke_lease(&self, inode: InodeId, context: &CallContext) -> Result<()> {
        let revoking = async {
            // One more version than the end of a lease makes. Then the one who had it finds that it is not the next: it loses what
            // it has not flushed, and does not get the lease again to go on where it was.
            let mut has_passed = false;
            loop {
                match self.store.way_to(inode, NOBODY)? {
                    Way::Free => return Ok::<(), Error>(()),
                    Way::Held {
                        holder,
                        content_version,
                        ..
                    } => {
                        tracing::info!(
                            "the lease of session {:016x} on inode {inode} is revoked",
                            holder.0
                        );
                        self.break_lease(inode, holder, content_version).await?;
                    }
                    Way::Unfenced { content_version } if !has_passed => {
                        has_passed = true;
                        let pass = Op::RecoverLease {
                            inode,
                            content_version,
                        };
                        match self.leases.own.propose_op(pass).await {
                            Err(error) if error.kind != ErrorKind::Stale => return Err(error),
                            _ => {}
                        }
                    }
                    Way::Unfenced { .. } => self.leases.recovery.recover(inode).await?,
                }
            }
        };
        match timeout(leader_waits(context.deadline_ms), revoking).await {
            Ok(Err(error)) if error.kind != ErrorKind::BlockUnavailable => Err(error),
            _ => Ok(()),
        }
    }

    /// Whoever waited for a lock, and was told that it may be had, tries before others.
    async fn commit_lock(&self, inode: InodeId, lock: Lock, command: Command) -> Result<OpReply> {
        let (client, locking) = (command.client, &self.leases.locking);
        while let Some(until) = locking.kept(inode, client, &lock, self.clock.now()) {
            sleep_until(until).await;
        }
        let outcome = self.commit(command).await;
        locking.tried(inode, client, lock.owner);
        outcome
    }

    /// Returns when a lock may be had, or after [`LEADER_WAIT`].
    pub(super) async fn await_lock(&self, client: ClientId, inode: InodeId, lock: Lock) -> Result<()> {
        let mut waiter = self.leases.locking.wait(inode, client, lock)?;
        let waiting = async {
            loop {
                waiter.look();
                let holder = self
                    .store
                    .dbs
                    .excluded(&*self.store.read()?, inode, client, &lock)?;
                if !self.consensus.is_leader() {
                    return Err(Error::not_leader(None));
                }
                if waiter.may_try(holder, self.clock.now())? {
                    return Ok(());
                }
                waiter.change().await;
            }
        };
        timeout(LEADER_WAIT, waiting).await.unwrap_or(Ok(()))
    }

    fn is_gone(&self, holder: ClientId, heard_ns: i64) -> bool {
        if is_planted(Bug::LiveLeaseBroken) {
            return true;
        }
        !self.leases.recalls.is_listening(holder) && self.leases.hearing.silent_for(holder, heard_ns) >= LEASE
    }

    async fn commit(&self, command: Command) -> Result<OpReply> {
        match self.consensus.propose(command).await {
            Ok(OpReply::Failed(error)) => Err(error),
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.leases.hearing.refused();
                Err(error)
            }
        }
    }
}

impl Store {
    /// The inode of a node, if it is a file.
    fn file_at(&self, node: &Node, follow: bool) -> Result<Option<InodeId>> {
        let txn = self.read()?;
        let found = match resolve(&self.dbs, &txn, node, follow) {
            Ok(place) => place.found,
            // It is the change's own to say so.
            Err(_) => None,
        };
        Ok(found
            .filter(|(_, record)| matches!(record.body, InodeBody::File(_)))
            .map(|(inode, _)| inode))
    }

    /// Whether a change has an answer that is remembered.
    fn has_answered(&self, command: &Command) -> Result<bool> {
        let reply = self
            .dbs
            .session_reply(&*self.read()?, command.client, command.sequence)?;
        Ok(command.sequence != 0 && reply.is_some())
    }

    /// # Errors
    /// `IsADirectory`; `InvalidArgument` for what is neither.
    pub(super) fn lease_of(&self, node: &Node) -> Result<Lease> {
        let (inode, record) = self.entry(node, true)?;
        match &record.body {
            InodeBody::File(file) => Ok(Lease {
                inode,
                holder: file.lease,
                is_closed: !file.is_written(),
            }),
            InodeBody::Directory => Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{node}: is a directory"),
            )),
            _ => Err(Error::invalid(format!("{node}: is no file that is written"))),
        }
    }

    fn way_to(&self, inode: InodeId, client: ClientId) -> Result<Way> {
        let txn = self.read()?;
        let Some(record) = self.dbs.inode(&txn, inode)? else {
            return Ok(Way::Free);
        };
        let InodeBody::File(file) = &record.body else {
            return Ok(Way::Free);
        };
        match file.lease {
            Some(holder) if holder != client => Ok(Way::Held {
                holder,
                heard_ns: self
                    .dbs
                    .session(&txn, holder)?
                    .map_or(0, |session| session.heard_ns),
                content_version: file.content_version,
            }),
            None if file.unfenced => Ok(Way::Unfenced {
                content_version: file.content_version,
            }),
            _ => Ok(Way::Free),
        }
    }
}

/// # Errors
/// `LeaseConflict`: the change is to wait until the leader has seen to it.
pub(super) fn not_fenced(node: &Node) -> Error {
    Error::new(
        ErrorKind::LeaseConflict,
        format!("{node}: its last writer vanished, and not every worker refuses its bytes yet; try again"),
    )
}
