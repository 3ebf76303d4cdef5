//! The shell in front of the inode tree: [`NamespacePort`] answers calls.
//!
//! A read waits for the barrier, lets the under file system speak where it must, and reads the tree in one short
//! transaction. A caller that asks for stale reads gets the tree as this master has it: no barrier, no under file system, and
//! no leader are needed. A change becomes a command, is proposed, and is answered when it is committed and applied.
//!
//! Calls are answered on the caller's thread: the tree is read from LMDB's snapshots, which no thread waits for, and
//! whoever changes it goes through the Replica. A mailbox in between would own nothing and cost two hops a call.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use curvine_protocol::attr::{UfsSource, UfsVersion};
use curvine_protocol::master::*;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{Op, OpReply};
use curvine_protocol::worker::Done;
use curvine_protocol::{
    CallContext, ClientId, CurvinePath, Error, ErrorKind, FileLayout, InodeId, MountId, Mutation, Node,
    Result, for_mutations,
};
use futures::future::BoxFuture;
use heed::RoTxn;
use tokio::time::{Instant, timeout_at};

use super::leases::Leases;
use super::opens::Opens;
use super::records::InodeRecord;
use super::resolve::{path_of, real_path, resolve};
use super::store::{Dbs, Store, broken, inodes_of, pair_key};
use super::view::{layout_of, lookup};
use crate::kit::deadlines::leader_waits;
use crate::kit::metrics::{Measured, timed};
use crate::kit::{Answer, Ask, Clock, Endpoint};
use crate::master::contract::{Consensus, Keeping, NamespaceView, Placement, ProposeOp, Reader, UfsView};
use crate::master::replica::own_command;
use crate::master::stores::Outcomes;
use crate::planted::{Bug, is_planted};
use crate::ufs::joined;

/// The epoch of no worker: what is written in it is refused, and its writer has to show its lease.
const NO_EPOCH: u64 = u64::MAX;

/// What new files get when nobody says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct FileDefaults {
    pub block_bytes: u64,
    pub replicas: u8,
}

/// Everything the answers can reach. Shared by the calls in flight; nothing in it changes but the namespace itself.
pub struct Parts {
    pub store: Store,
    pub consensus: Arc<dyn Consensus>,
    pub ufs: Arc<dyn UfsView>,
    pub placement: Arc<dyn Placement>,
    pub clock: Arc<dyn Clock>,
    pub leases: Leases,
    pub defaults: FileDefaults,
    pub opens: Arc<Opens>,
    pub keeping: Arc<dyn Keeping>,
    pub outcomes: Arc<Outcomes>,
}

/// Answers the namespace's calls, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct NamespacePort {
    parts: Arc<Parts>,
}

impl NamespacePort {
    pub fn new(parts: Parts) -> Self {
        NamespacePort {
            parts: Arc::new(parts),
        }
    }
}

impl<C: NamespaceCall> Endpoint<C> for NamespacePort {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let parts = self.parts.clone();
        Box::pin(timed::<C, _>(async move {
            C::answer(parts, ask.call, ask.context).await.map(Answer::new)
        }))
    }
}

/// A call that the namespace answers.
pub trait NamespaceCall: Measured {
    fn answer(
        parts: Arc<Parts>,
        call: Self,
        context: CallContext,
    ) -> impl Future<Output = Result<Self::Reply>> + Send;
}

impl NamespaceCall for Echo {
    async fn answer(parts: Arc<Parts>, _call: Self, _context: CallContext) -> Result<Done> {
        parts.consensus.read_barrier().await?;
        Ok(Done {})
    }
}

impl NamespaceCall for Lookup {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Entry> {
        let Lookup { node, follow } = call;
        let look = |dbs: &Dbs, txn: &RoTxn| lookup(dbs, txn, &node, follow);
        match context.stale {
            true => parts.stale_look(look),
            false => parts.fresh_look(&node, &context, look).await,
        }
    }
}

impl NamespaceCall for ListDir {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Listing> {
        match context.stale {
            true => parts.has_namespace()?,
            false => parts.fresh_directory(&call, &context).await?,
        }
        let (inode, record) = parts.store.entry(&call.node, true)?;
        let limit = call.limit.clamp(1, LIST_ENTRIES_MAX) as usize;
        let (entries, more) = parts
            .store
            .list(inode, call.after.as_deref(), limit)
            .map_err(|e| {
                if e.kind == ErrorKind::NotADirectory {
                    not_a_directory(&call.node)
                } else {
                    e
                }
            })?;
        let directory = parts.store.attr(inode)?;
        Ok(Listing {
            directory,
            parent: record.parent,
            entries,
            more,
        })
    }
}

fn not_a_directory(node: &Node) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{node}: is not a directory"))
}

/// How often a name is looked at again that leads elsewhere each time that its file was removed.
const LOOKS_MAX: usize = 16;

impl NamespaceCall for OpenFile {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<FileLayout> {
        let OpenFile { node, follow, open } = call;
        // Without a session there is nobody to keep it for.
        let is_noted = open > 0 && context.client != ClientId::default();
        for _ in 0..LOOKS_MAX {
            let removals = parts.opens.removals();
            let mut layout = parts
                .fresh_look(&node, &context, |dbs, txn| layout_of(dbs, txn, &node, follow))
                .await?;
            if is_noted {
                let inode = layout.attr.inode;
                // Who removes it from now on knows of this client.
                let before = parts.opens.opened(context.client, inode, open, parts.clock.now());
                if !is_planted(Bug::OpensBesideRemovals) {
                    parts.opens.while_removed(inode).await;
                }
                if !is_planted(Bug::OpensBesideRemovals) && parts.opens.removals() != removals {
                    match parts.after_removals(&node, follow, inode, &context).await {
                        Ok(Some(now)) => layout = now,
                        outcome => {
                            let now = parts.clock.now();
                            parts.opens.failed(context.client, inode, open, before, now);
                            outcome?;
                            continue;
                        }
                    }
                }
            }
            parts.placement.locate_for(&mut layout, Reader::of(&context));
            parts.opens.accessed(layout.attr.inode);
            return Ok(layout);
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!("{node}: others replace it all the time; try again"),
        ))
    }
}

impl NamespaceCall for TellOpen {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<OpenTold> {
        parts.consensus.read_barrier().await?;
        let (client, now) = (context.client, parts.clock.now());
        parts.opens.over(client, call.over_below);
        parts.closed(&context, &call.closed).await?;
        if let Some(all) = &call.all {
            parts.opens.told_all(client, all, now);
            let nameless = {
                let txn = parts.store.read()?;
                let mut nameless = Vec::new();
                for file in &all.files {
                    let record = parts.store.dbs.inode(&txn, file.inode)?;
                    nameless.extend(record.filter(|record| record.nlink == 0).map(|_| file.inode));
                }
                nameless
            };
            if !nameless.is_empty() {
                parts
                    .propose(Op::HoldInodes { inodes: nameless }, parts.own(&context))
                    .await?;
            }
        }
        let settled_in = call.all.as_ref().map_or(0, |all| all.settled_in);
        let mut told = parts.opens.news(client, call.term, call.heard);
        let mut kept = parts.kept_beside_open(client)?;
        if settled_in != 0 && settled_in == told.term {
            parts.release(&context, std::mem::take(&mut kept)).await?;
        }
        told.open = told.open.map(|open| open + kept.len() as u64);
        Ok(told)
    }
}

impl NamespaceCall for GetXattr {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<XattrValue> {
        parts.ready(&call.node, &context).await?;
        Ok(XattrValue {
            value: parts.store.xattr(&call.node, &call.name)?,
        })
    }
}

impl NamespaceCall for ListXattrs {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<XattrNames> {
        parts.ready(&call.node, &context).await?;
        Ok(XattrNames {
            names: parts.store.xattr_names(&call.node)?,
        })
    }
}

impl NamespaceCall for GetAcl {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<AclOf> {
        parts.ready(&call.node, &context).await?;
        parts.store.acl(&call.node)
    }
}

impl NamespaceCall for GetLease {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Lease> {
        parts.ready(&call.node, &context).await?;
        parts.store.lease_of(&call.node)
    }
}

impl NamespaceCall for RevokeLease {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Lease> {
        parts.ready(&call.node, &context).await?;
        let found = parts.store.lease_of(&call.node)?;
        if !found.is_closed {
            parts.revoke_lease(found.inode, &context).await?;
        }
        // By its number: the name may lead elsewhere by now.
        parts.store.lease_of(&Node::Inode(found.inode))
    }
}

impl NamespaceCall for ListQuotas {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Quotas> {
        let node = call.node.clone().unwrap_or(Node::Inode(InodeId::ROOT));
        parts.ready(&node, &context).await?;
        Ok(Quotas {
            quotas: parts.store.quotas(call.node.as_ref())?,
        })
    }
}

impl NamespaceCall for ListTiers {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<TierRules> {
        let node = call.node.clone().unwrap_or(Node::Inode(InodeId::ROOT));
        parts.ready(&node, &context).await?;
        Ok(TierRules {
            rules: parts.store.tier_rules(call.node.as_ref())?,
        })
    }
}

impl NamespaceCall for ListTtls {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Ttls> {
        let node = call.node.clone().unwrap_or(Node::Inode(InodeId::ROOT));
        parts.ready(&node, &context).await?;
        Ok(Ttls {
            ttls: parts.store.ttls(call.node.as_ref())?,
        })
    }
}

impl NamespaceCall for GetPath {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<PathOf> {
        match context.stale {
            true => parts.has_namespace()?,
            false => parts.consensus.read_barrier().await?,
        }
        Ok(PathOf {
            path: path_of(&parts.store.dbs, &*parts.store.read()?, call.inode)?,
        })
    }
}

impl NamespaceCall for TestLock {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<LockFound> {
        parts.consensus.read_barrier().await?;
        let txn = parts.store.read()?;
        let held = parts
            .store
            .dbs
            .excluded(&txn, call.inode, context.client, &call.lock)?;
        Ok(LockFound { held })
    }
}

impl NamespaceCall for AwaitLock {
    async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Done> {
        parts.consensus.read_barrier().await?;
        parts.await_lock(context.client, call.inode, call.lock).await?;
        Ok(Done {})
    }
}

impl NamespaceCall for ListLocks {
    async fn answer(parts: Arc<Parts>, call: Self, _context: CallContext) -> Result<Locks> {
        parts.consensus.read_barrier().await?;
        let txn = parts.store.read()?;
        let mut files = parts.store.dbs.locked_files(&txn, LOCKED_FILES_MAX)?;
        if let Some(top) = &call.path {
            resolve(&parts.store.dbs, &txn, &Node::Path(top.clone()), true)?
                .existing(&Node::Path(top.clone()))?;
            let is_below = |path: &CurvinePath| top.contains(path);
            files.retain(|file| file.path.as_ref().is_some_and(is_below));
        }
        Ok(Locks { files })
    }
}

/// Whether an op may change what a file holds.
fn changes_content(op: &Op) -> bool {
    match op {
        Op::CommitFile(_) | Op::Concat(_) => true,
        Op::SetAttr(call) => call.change.size_bytes.is_some(),
        Op::OpenForWrite(call) => call.truncate,
        Op::CreateFile(call) => call.if_exists == IfExists::Truncate,
        _ => false,
    }
}

/// The file that a reply is about, and the version of its content.
fn changed_file(reply: &OpReply) -> Option<(InodeId, u64)> {
    let attr = match reply {
        OpReply::Entry(entry) => &entry.attr,
        OpReply::Layout(layout) => &layout.attr,
        _ => return None,
    };
    Some((attr.inode, attr.content_version))
}

/// The file that an op opens for writing by its number.
fn written_by_number(op: &Op) -> Option<InodeId> {
    match op {
        Op::OpenForWrite(OpenForWrite {
            node: Node::Inode(inode),
            ..
        }) => Some(*inode),
        _ => None,
    }
}

/// The number of the open that an op is, if it is one.
fn number_of_open(op: &Op) -> Option<u64> {
    let open = match op {
        Op::CreateFile(call) => call.open,
        Op::OpenForWrite(call) => call.open,
        _ => 0,
    };
    (open > 0).then_some(open)
}

/// Takes out of an op what its client has closed, which is for the leader alone.
fn closed_with(op: &mut Op) -> Vec<ClosedFile> {
    match op {
        Op::Unlink(call) => std::mem::take(&mut call.closed),
        Op::Rename(call) => std::mem::take(&mut call.closed),
        _ => Vec::new(),
    }
}

/// Whether a change is of what a link leads to, and not of the link.
fn follows_last_link(op: &Op) -> bool {
    match op {
        Op::CreateFile(call) => call.if_exists != IfExists::Fail,
        Op::OpenForWrite(call) => call.follow,
        Op::SetAttr(call) => call.follow,
        Op::SetXattr(_)
        | Op::RemoveXattr(_)
        | Op::ChangeAcl(_)
        | Op::SetQuota(_)
        | Op::SetTtl(_)
        | Op::SetTier(_) => true,
        Op::MakeDir(call) => call.parents,
        _ => false,
    }
}

/// Whether an under file system has to make a change before the namespace does.
fn is_made_in_stores(op: &Op) -> bool {
    matches!(
        op,
        Op::Unlink(_) | Op::Delete(_) | Op::RemoveDir(_) | Op::MakeDir(_) | Op::Rename(_)
    )
}

/// Every mutation is answered by its op.
macro_rules! mutations {
    (; $($call:ident -> $variant:ident $nodes:tt;)*) => {$(
        impl NamespaceCall for $call {
            async fn answer(parts: Arc<Parts>, call: Self, context: CallContext) -> Result<Self::Reply> {
                let mut op = parts.completed(call.into_op())?;
                let open = number_of_open(&op);
                let closed = closed_with(&mut op);
                parts.closed(&context, &closed).await?;
                let (client, asker) = (context.client, Reader::of(&context));
                let early = written_by_number(&op).filter(|_| client != ClientId::default());
                let mut before = None;
                if let (Some(open), Some(inode)) = (open, early) {
                    // It may be a nameless one, of which the client has just closed another handle.
                    let removals = parts.opens.removals();
                    before = parts.opens.opened(client, inode, open, parts.clock.now());
                    parts.opens.while_removed(inode).await;
                    if parts.opens.removals() != removals {
                        parts.hold_if_nameless(inode, &context).await?;
                    }
                }
                let ends = matches!(op, Op::EndSession(_));
                let changes = changes_content(&op);
                let reply = parts.change(op, context).await;
                if let (Err(_), Some(inode), Some(open)) = (&reply, early, open) {
                    parts.opens.failed(client, inode, open, before, parts.clock.now());
                }
                let reply = reply?;
                if let Some((inode, content_version)) = changed_file(&reply).filter(|_| changes) {
                    parts.opens.changed(client, inode, content_version);
                }
                if ends {
                    parts.opens.ended(client);
                }
                if let (OpReply::Layout(layout), Some(open)) = (&reply, open)
                    && client != ClientId::default()
                {
                    // The lease, which it has got, keeps the file for it until it is noted here.
                    parts.opens.opened(client, layout.attr.inode, open, parts.clock.now());
                }
                <$call>::reply_from(parts.placed(reply, client, asker, open.is_some())?)
            }
        }
    )*};
}
for_mutations!(mutations);

impl Parts {
    /// Everything acknowledged is applied here, and what an under file system has to say of a node is known; unless the
    /// caller is content with less.
    async fn ready(&self, node: &Node, context: &CallContext) -> Result<()> {
        if context.stale {
            return self.has_namespace();
        }
        self.consensus.read_barrier().await?;
        self.heard_by(self.give_up(context), node, self.refresh(node))
            .await
    }

    /// When a caller is told that it takes longer.
    fn give_up(&self, context: &CallContext) -> Instant {
        self.clock.now() + leader_waits(context.deadline_ms)
    }

    /// Waits until a time for what an under file system says of a node. It goes on being asked.
    ///
    /// # Errors
    /// `Ufs`, naming the store, when the time is over: whoever hears that knows that no master is at fault.
    async fn heard_by(
        &self,
        give_up: Instant,
        node: &Node,
        hearing: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        match timeout_at(give_up, hearing).await {
            Ok(heard) => heard,
            Err(_) => Err(self.slow_store(node)?),
        }
    }

    fn slow_store(&self, node: &Node) -> Result<Error> {
        let (mount, key) = match node {
            Node::Path(path) => {
                let mut mounts = self.store.mounts()?.into_iter();
                let mount = mounts.find(|mount| mount.path.contains(path));
                let key = mount.as_ref().and_then(|mount| mount.path.relative(path));
                let key = key.unwrap_or_default().to_owned();
                (mount, key)
            }
            Node::Inode(inode) | Node::Child { parent: inode, .. } => {
                let (id, above) = self.store.mounted(*inode)?.unwrap_or_default();
                let key = match node {
                    Node::Child { name, .. } => joined(&above, name),
                    _ => above,
                };
                (self.store.mount(id)?, key)
            }
        };
        let store = mount.map_or_else(|| "the under file system".to_owned(), |mount| mount.uri);
        Ok(Error::new(
            ErrorKind::Ufs,
            format!(
                "{store}: `{key}`: the store answers, but has not yet said all that is there; it goes on being asked, so try \
                 again, and if that does not help, see why it is slow"
            ),
        ))
    }

    /// A master that was never brought up by a leader has nothing to say, not even something old.
    fn has_namespace(&self) -> Result<()> {
        let cluster = self.store.dbs.cluster(&*self.store.read()?)?;
        cluster.map(|_| ()).ok_or_else(|| Error::not_leader(None))
    }

    fn stale_look<T>(&self, look: impl Fn(&Dbs, &RoTxn) -> Result<T>) -> Result<T> {
        self.has_namespace()?;
        look(&self.store.dbs, &*self.store.read()?)
    }

    /// Makes a directory fresh whose listing begins.
    async fn fresh_directory(&self, call: &ListDir, context: &CallContext) -> Result<()> {
        let give_up = self.give_up(context);
        self.consensus.read_barrier().await?;
        self.heard_by(give_up, &call.node, self.refresh_listed(call))
            .await
    }

    async fn refresh_listed(&self, call: &ListDir) -> Result<()> {
        let mounted = |entry: Result<(InodeId, InodeRecord)>| {
            let (inode, record) = entry.ok()?;
            (record.is_dir() && record.mount != MountId(0)).then_some(inode)
        };
        // A directory that is known is listed and not asked for first: the listing says whether it is still there.
        let mut directory = mounted(self.store.entry(&call.node, true));
        if directory.is_none() {
            self.refresh(&call.node).await?;
            directory = mounted(self.store.entry(&call.node, true));
        }
        if let Some(inode) = directory.filter(|_| call.after.is_none()) {
            self.ufs.refresh_dir(inode).await?;
        }
        Ok(())
    }

    /// What the tree says of a node when it is fresh, in one transaction where that is enough.
    async fn fresh_look<T>(
        &self,
        node: &Node,
        context: &CallContext,
        look: impl Fn(&Dbs, &RoTxn) -> Result<T>,
    ) -> Result<T> {
        let give_up = self.give_up(context);
        self.consensus.read_barrier().await?;
        if let Some(found) = self.store.unless_mounted(&look)? {
            return Ok(found);
        }
        self.heard_by(give_up, node, self.refresh(node)).await?;
        look(&self.store.dbs, &*self.store.read()?)
    }

    /// What a node leads to, if it is a path: a link into a mount leads to the mount.
    fn real(&self, node: &Node, follow: bool) -> Result<Node> {
        match node {
            Node::Path(path) => {
                let txn = self.store.read()?;
                real_path(&self.store.dbs, &txn, path, follow).map(Node::Path)
            }
            node => Ok(node.clone()),
        }
    }

    /// Where the nodes of a change are.
    fn places_of(&self, op: &Op) -> Result<Vec<Node>> {
        let follow = follows_last_link(op);
        op.nodes()
            .into_iter()
            .map(|node| self.real(node, follow))
            .collect()
    }

    async fn refresh(&self, node: &Node) -> Result<()> {
        match self.has_mounts()? {
            true => self.refresh_real(&self.real(node, true)?).await,
            false => Ok(()),
        }
    }

    async fn refresh_real(&self, node: &Node) -> Result<()> {
        match node {
            Node::Inode(inode) => match self.mount_of(*inode)? {
                MountId(0) => Ok(()),
                _ => self.ufs.refresh_inode(*inode).await,
            },
            Node::Child { parent, name } => match self.mount_of(*parent)? {
                MountId(0) => Ok(()),
                _ if name == ".." => Ok(()),
                _ => self.ufs.refresh_child(*parent, name).await,
            },
            Node::Path(path) => {
                if self.store.mounts()?.iter().any(|mount| mount.path.contains(path)) {
                    return self.ufs.refresh_path(path).await;
                }
                Ok(())
            }
        }
    }

    fn has_mounts(&self) -> Result<bool> {
        let txn = self.store.read()?;
        Ok(self.store.dbs.mounts.len(&txn).map_err(broken)? > 0)
    }

    /// The mount an inode is in; 0 for none, and for an inode that is gone.
    fn mount_of(&self, inode: InodeId) -> Result<MountId> {
        if !self.has_mounts()? {
            return Ok(MountId(0));
        }
        let txn = self.store.read()?;
        Ok(self
            .store
            .dbs
            .inode(&txn, inode)?
            .map_or(MountId(0), |record| record.mount))
    }

    fn in_mount(&self, node: &Node) -> Result<bool> {
        Ok(self.mount_at(node)?.is_some())
    }

    /// The mount that a place is in.
    fn mount_at(&self, node: &Node) -> Result<Option<MountRecord>> {
        let inode = match node {
            Node::Inode(inode) | Node::Child { parent: inode, .. } => *inode,
            Node::Path(path) => {
                let mut mounts = self.store.mounts()?.into_iter();
                return Ok(mounts.find(|mount| mount.path.contains(path)));
            }
        };
        match self.mount_of(inode)? {
            MountId(0) => Ok(None),
            mount => self.store.dbs.mount(&*self.store.read()?, mount),
        }
    }

    /// Fixes the defaults of a change in its op: every master applies the same.
    fn completed(&self, mut op: Op) -> Result<Op> {
        if let Op::CreateFile(call) = &mut op {
            if call.block_bytes == 0 {
                call.block_bytes = self.defaults.block_bytes;
            }
            if call.replicas == 0 {
                let of_mount = self
                    .mount_at(&call.node)?
                    .and_then(|mount| mount.settings.replicas);
                call.replicas = of_mount.unwrap_or(self.defaults.replicas);
            }
            let block_bytes = call.block_bytes;
            if !(64 << 10..=4 << 30).contains(&block_bytes) || !block_bytes.is_multiple_of(64 << 10) {
                return Err(Error::invalid(format!(
                    "block size {block_bytes}: must be a multiple of 64 KiB from 64 KiB to 4 GiB"
                )));
            }
        }
        Ok(op)
    }

    /// Adds to the layout of a file that is written where to write it, when nobody else can write it any more.
    ///
    /// A file that was opened is open, and its client must hear of it, also where no worker has room for it: whoever writes asks
    /// again, and is told then.
    fn placed(
        &self,
        mut reply: OpReply,
        client: ClientId,
        asker: Reader,
        is_opened: bool,
    ) -> Result<OpReply> {
        if let OpReply::Layout(layout) = &mut reply {
            if !layout.blocks.is_empty() {
                match self.placement.place(layout, asker) {
                    Err(error)
                        if is_opened
                            && matches!(error.kind, ErrorKind::NoSpace | ErrorKind::BlockUnavailable) =>
                    {
                        self.placement.locate_for(layout, asker);
                    }
                    placed => placed?,
                }
                // The reply may be a remembered one: whoever has lost its lease since is told of epochs that none has.
                if !self.store.has_lease(client, layout.attr.inode)? {
                    layout
                        .workers
                        .iter_mut()
                        .for_each(|worker| worker.epoch = NO_EPOCH);
                }
            }
            self.name_object(layout)?;
        }
        Ok(reply)
    }

    /// What a file is that was noted as open, when some files may have been removed since it was looked at. None if the name
    /// leads to another one by now. One without a name is kept for the client from here on: whoever removed the name may not
    /// have known of it.
    async fn after_removals(
        &self,
        node: &Node,
        follow: bool,
        inode: InodeId,
        context: &CallContext,
    ) -> Result<Option<FileLayout>> {
        let look = || layout_of(&self.store.dbs, &*self.store.read()?, node, follow);
        let layout = look()?;
        if layout.attr.inode != inode {
            return Ok(None);
        }
        self.hold_if_nameless(inode, context).await?;
        look().map(Some)
    }

    /// Keeps a file that has lost its last name for a client that has it open.
    async fn hold_if_nameless(&self, inode: InodeId, context: &CallContext) -> Result<()> {
        let record = self.store.dbs.inode(&*self.store.read()?, inode)?;
        if record.is_some_and(|record| record.nlink == 0) {
            let inodes = vec![inode];
            self.propose(Op::HoldInodes { inodes }, self.own(context)).await?;
        }
        Ok(())
    }

    /// Proposes a client's change, or has an under file system make it first.
    async fn change(self: &Arc<Self>, mut op: Op, context: CallContext) -> Result<OpReply> {
        if self.has_mounts()? {
            let give_up = self.give_up(&context);
            let mut mounted = None;
            let places = self.places_of(&op)?;
            for place in &places {
                self.heard_by(give_up, place, self.refresh_real(place)).await?;
                if mounted.is_none() && self.in_mount(place)? {
                    mounted = Some(place);
                }
            }
            if let Some(place) = mounted {
                self.heard_by(give_up, place, self.ufs.may_change(&op, &places))
                    .await?;
                if is_made_in_stores(&op) {
                    return self.change_in_store(op, context, give_up).await;
                }
            }
        }
        let _removal = self.keeping.note_holders(&mut op)?;
        self.propose(op, context).await
    }

    /// Has a change noted that the under file system makes first, and waits for what becomes of it.
    async fn change_in_store(&self, op: Op, context: CallContext, give_up: Instant) -> Result<OpReply> {
        let asked_by = Some((context.client, context.sequence));
        let mut in_the_way = None;
        let noting = async {
            loop {
                let mut op = op.clone();
                let removal = self.keeping.note_holders(&mut op)?;
                let noted = self.propose(Op::Note(Box::new(op)), context.clone()).await;
                drop(removal);
                match noted {
                    Ok(OpReply::Noted(effect)) => return self.outcomes.answer(effect, &self.consensus).await,
                    Err(error) if error.kind == ErrorKind::UnderWay => in_the_way = Some(error),
                    answer => return answer,
                }
                self.outcomes.change().await;
            }
        };
        let Ok(answer) = timeout_at(give_up, noting).await else {
            if let Some(refused) = &in_the_way {
                let (effects, now) = (self.store.effects()?, self.clock.now());
                let stuck = self
                    .outcomes
                    .stuck_in_the_way(refused, &effects, Duration::ZERO, now);
                if let Some(stuck) = stuck {
                    return Err(stuck);
                }
            }
            return Err(in_the_way.unwrap_or_else(|| {
                Error::new(
                    ErrorKind::UnderWay,
                    "the under file system is still making the change; `cv mounts` shows how it gets on",
                )
            }));
        };
        // What a rename leaves where it was is not part of the answer, but of what was asked for.
        let clearing = async {
            while self
                .store
                .effects()?
                .iter()
                .any(|(_, record)| record.asked_by() == asked_by)
            {
                self.outcomes.change().await;
            }
            Ok::<_, Error>(())
        };
        if let Ok(cleared) = timeout_at(give_up, clearing).await {
            cleared?;
        }
        answer
    }

    /// Notes what a client has closed. What was kept for it alone goes.
    async fn closed(&self, context: &CallContext, closed: &[ClosedFile]) -> Result<()> {
        if closed.is_empty() {
            return Ok(());
        }
        self.opens.closed(context.client, closed, self.clock.now());
        let nameless = {
            let txn = self.store.read()?;
            let mut nameless = Vec::new();
            for file in closed {
                let key = pair_key(context.client.0, file.inode.0);
                let kept = self.store.dbs.orphans.get(&txn, &key).map_err(broken)?.is_some();
                if kept && !self.opens.has(context.client, file.inode) {
                    nameless.push(file.inode);
                }
            }
            nameless
        };
        self.release(context, nameless).await
    }

    /// Nameless files that are kept for a client, and that it has not open, as far as this leader knows.
    fn kept_beside_open(&self, client: ClientId) -> Result<Vec<InodeId>> {
        let txn = self.store.read()?;
        let mut kept = inodes_of(&self.store.dbs.orphans, &txn, client)?;
        kept.retain(|inode| !self.opens.has(client, *inode));
        Ok(kept)
    }

    /// Gives up what was kept for a client, unless it has opened it again.
    async fn release(&self, context: &CallContext, nameless: Vec<InodeId>) -> Result<()> {
        for inode in nameless {
            // Whoever opens it by its number meanwhile waits, or was here first.
            let (_removal, _, _) = self.opens.remove(inode, self.clock.now());
            if self.opens.has(context.client, inode) {
                continue;
            }
            let release = Op::ReleaseInode(ReleaseInode { inode });
            self.propose(release, self.own(context)).await?;
        }
        Ok(())
    }

    /// On behalf of a client, without a sequence of its own: for what may be done twice.
    fn own(&self, context: &CallContext) -> CallContext {
        CallContext {
            sequence: 0,
            acked_below: 0,
            ..context.clone()
        }
    }

    /// Tells the writer of a file in a mount which object it is writing: it then asks for it to be persisted.
    fn name_object(&self, layout: &mut FileLayout) -> Result<()> {
        if layout.source.is_none()
            && self.mount_of(layout.attr.inode)? != MountId(0)
            && let Some((mount, key)) = self.store.mounted(layout.attr.inode)?
        {
            let version = UfsVersion {
                size_bytes: 0,
                mtime_ms: 0,
                etag: None,
            };
            layout.source = Some(UfsSource {
                mount,
                key,
                version,
                until_generation: 0,
            });
        }
        Ok(())
    }
}

/// Proposes the leader's own commands through the Replica alone.
pub struct OwnCommands {
    pub consensus: Arc<dyn Consensus>,
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl ProposeOp for OwnCommands {
    async fn propose_op(&self, op: Op) -> Result<OpReply> {
        match self.consensus.propose(own_command(op, &*self.clock)).await? {
            OpReply::Failed(error) => Err(error),
            reply => Ok(reply),
        }
    }
}
