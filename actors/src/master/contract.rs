//! What the actors of a master ask of each other, as traits: each can be built and tested without the others.
//!
//! The ladder of asks, top down: `Loader` > `Namespace` > `UfsView` > `Blocks` > `Replica`.

use std::collections::HashSet;

use async_trait::async_trait;
use curvine_protocol::job::JobRecord;
use curvine_protocol::master::{BlockCommit, Entry, FsStats, Ttl};
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::{Command, KeptBlock, Op, OpReply};
use curvine_protocol::{
    Attr, BlockId, BlockRef, CallContext, ClientId, ClusterId, CurvinePath, DirEntry, EffectId, Error,
    FileLayout, InodeId, JobId, KeptAttributes, MountId, Node, Result, WorkerId,
};

use super::namespace::balance::Balance;
use super::namespace::effects::{CopyRecord, EffectRecord, Unkept};
use super::namespace::expiry::{Due, Names};
use super::namespace::kept::Doubted;
use super::namespace::opens::Removal;
use super::namespace::pins::PinnedInodes;
use super::namespace::quotas::Counted;
use super::namespace::services::Services;
use super::namespace::sessions::SessionRecord;

/// The Replica's port: makes commands durable on a majority, applies them, answers.
#[async_trait]
pub trait Consensus: Send + Sync {
    /// Answers after commit and apply. The outer error: the command's fate is unknown or it was refused
    /// (`NotLeader`, `Timeout`, `Overloaded`); an error of the command itself is `OpReply::Failed`.
    async fn propose(&self, command: Command) -> Result<OpReply>;

    /// Returns when the local state contains everything acknowledged before the call, or fails with `NotLeader`.
    /// Fast when the lease is valid.
    async fn read_barrier(&self) -> Result<()>;

    fn is_leader(&self) -> bool;

    /// The addresses of the group's masters.
    fn members(&self) -> Vec<String>;
}

/// Proposes the leader's own commands (client 0, sequence 0, uid/gid 0, the time of now).
#[async_trait]
pub trait ProposeOp: Send + Sync {
    /// An error of the command itself comes back as `Err` too.
    async fn propose_op(&self, op: Op) -> Result<OpReply>;
}

/// The file that a block belongs to, its index there, and what the namespace expects of it.
pub type BlockOwner = (InodeId, u32, BlockRef);

/// The namespace as applied on this master. Every method reads one consistent state, takes microseconds and never
/// blocks on anything but memory-mapped pages. No staleness check of under file systems happens here.
pub trait NamespaceView: Send + Sync {
    fn lookup(&self, node: &Node, follow: bool) -> Result<Entry>;
    fn attr(&self, inode: InodeId) -> Result<Attr>;
    /// A page of a directory in the order of names: entries after `after`, and whether there are more.
    fn list(&self, directory: InodeId, after: Option<&str>, limit: usize) -> Result<(Vec<DirEntry>, bool)>;
    /// Blocks without workers; `source` is set where an under file system has the content, or some blocks of it.
    fn layout(&self, inode: InodeId) -> Result<FileLayout>;
    fn path(&self, inode: InodeId) -> Result<CurvinePath>;
    /// Who owns a block. None = garbage.
    fn block_owner(&self, block: BlockId) -> Result<Option<BlockOwner>> {
        Ok(self.block_owners(&[block])?.pop().flatten())
    }
    /// The same for each of these, which takes longer the more there are, and least if they are in order.
    fn block_owners(&self, blocks: &[BlockId]) -> Result<Vec<Option<BlockOwner>>>;
    fn mounts(&self) -> Result<Vec<MountRecord>>;
    fn mount(&self, id: MountId) -> Result<Option<MountRecord>>;
    /// For an inode at or below a mount point: the mount and the key of the inode's object relative to the mount's
    /// root (`a/b`, no trailing slash; empty for the mount point itself).
    fn mounted(&self, inode: InodeId) -> Result<Option<(MountId, String)>>;
    /// What an object is to keep of a file's attributes.
    fn kept_attributes(&self, inode: InodeId) -> Result<KeptAttributes>;
    /// A file in a mount whose content is newer than its object; none that is gone.
    fn needs_export(&self, inode: InodeId) -> Result<bool>;
    /// Whether a worker may finish an export: it is under way, on that worker, and the file is what is being exported.
    ///
    /// # Errors
    /// `Stale` if not.
    fn confirm_export(&self, effect: EffectId, worker: WorkerId) -> Result<()>;
    fn effect(&self, effect: EffectId) -> Result<Option<EffectRecord>>;
    /// The last effect that was noted.
    fn last_effect(&self) -> Result<EffectId>;
    /// What a rename that is under way has made of a file's object.
    fn copy(&self, inode: InodeId) -> Result<Option<CopyRecord>>;
    /// Effects on under file systems that are under way, in the order in which they were noted.
    fn effects(&self) -> Result<Vec<(EffectId, EffectRecord)>>;
    /// Of a rename: its copies, by their inodes, those after one; at most `limit`.
    fn copies(&self, effect: EffectId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, CopyRecord)>>;
    /// Files of a mount that need an export, by their inodes, those after one, with their change times when they came to
    /// need it; at most `limit`.
    fn unexported(&self, mount: MountId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, i64)>>;
    /// Files of a mount with attributes that their objects have not got, by their inodes, those after one; at most `limit`.
    fn unkept(&self, mount: MountId, after: InodeId, limit: usize) -> Result<Vec<(InodeId, Unkept)>>;
    /// Whether a file has attributes that its object has not got, and can get.
    fn needs_attributes(&self, inode: InodeId) -> Result<bool>;
    fn job(&self, id: JobId) -> Result<Option<JobRecord>>;
    fn jobs(&self) -> Result<Vec<JobRecord>>;
    /// The sessions, and those whose end is remembered.
    fn sessions(&self) -> Result<Vec<(ClientId, SessionRecord)>>;
    /// The tops of trees that were cut off and are to be removed, the first few.
    fn detached(&self) -> Result<Vec<InodeId>>;
    /// The client that has the lease on a file.
    fn lease_holder(&self, inode: InodeId) -> Result<Option<ClientId>>;
    /// Whether a client has the lease on a file.
    fn has_lease(&self, client: ClientId, inode: InodeId) -> Result<bool>;
    /// What a client has the lease on and was to take the place of something else, by its name.
    fn partials(&self, client: ClientId) -> Result<Vec<Node>>;
    /// The greatest id that was given to a worker; 0 if there was none.
    fn last_worker(&self) -> Result<WorkerId>;
    /// What a replica is worth that a power cut may have taken something of.
    fn worth(&self, block: BlockId) -> Result<Doubted>;
    /// Which workers are out of service.
    fn services(&self) -> Result<Services>;
    /// Whether the workers are being balanced.
    fn balance(&self) -> Result<Balance>;
    /// What is pinned. Its number, read before anything else, is for orders to workers.
    fn pins(&self) -> Result<PinnedInodes>;
    /// The nearest pin of an inode: its own, or that of a directory above.
    fn pinned_by(&self, inode: InodeId) -> Result<Option<InodeId>>;
    /// Directories with quotas of which it is still to be counted what they hold, the first few.
    fn uncounted_quotas(&self) -> Result<Vec<InodeId>>;
    /// Counts what a directory with a quota held when that began. Takes long for a big tree. None: there is nothing to count.
    fn count_quota(&self, directory: InodeId) -> Result<Option<Counted>>;
    /// Whether any rule limits how long files live, and whether any goes by access.
    fn ttl_kinds(&self) -> Result<(bool, bool)>;
    /// The rule of an inode, if it goes by access, and the access time of its record, in nanoseconds since the Unix epoch.
    fn access_rule(&self, inode: InodeId) -> Result<Option<(Ttl, i64)>>;
    /// The first trees in which all files are to be looked up that have a time to live, each with its round.
    fn ttl_walks(&self, limit: usize) -> Result<Vec<(InodeId, u64)>>;
    /// All files of a tree. Takes long for a big one.
    fn files_below(&self, top: InodeId) -> Result<Vec<InodeId>>;
    /// The first files that are to be looked at by a time, in milliseconds since the Unix epoch: theirs may be over.
    fn due(&self, now_ms: u64, limit: usize) -> Result<Vec<Due>>;
    /// What some inodes are called in a directory. Takes long for a big one.
    fn names_in(&self, directory: InodeId, wanted: &HashSet<InodeId>) -> Result<Names>;
    fn inode_count(&self) -> Result<u64>;
    /// None before the first command of a new cluster is applied.
    fn cluster(&self) -> Result<Option<ClusterId>>;
    /// The id of a cluster that has one.
    ///
    /// # Errors
    /// `Internal` before that.
    fn cluster_id(&self) -> Result<ClusterId> {
        self.cluster()?
            .ok_or_else(|| Error::internal("the cluster has no id yet"))
    }
}

/// Keeps the namespace below mounts in step with their under file systems. The Namespace actor awaits these before
/// it reads or changes anything at or below a mount; inodes outside mounts never get here.
#[async_trait]
pub trait UfsView: Send + Sync {
    /// Makes every name along the path (and the last, if it exists there) known and fresh.
    async fn refresh_path(&self, path: &CurvinePath) -> Result<()>;
    /// Makes one name in a directory fresh. Cheap when checked within the mount's staleness.
    async fn refresh_child(&self, directory: InodeId, name: &str) -> Result<()>;
    /// Makes one file's version fresh.
    async fn refresh_inode(&self, inode: InodeId) -> Result<()>;
    /// Makes a whole directory (not what is below its subdirectories) fresh.
    async fn refresh_dir(&self, directory: InodeId) -> Result<()>;
    /// Refuses what a mount does not allow: any change of one that is not writable, entries that under file systems cannot
    /// have, and changes that would touch what is not shown. What is to be removed or moved is made fresh first, all of
    /// it: what somebody else has put there is then seen before the change is noted.
    ///
    /// # Errors
    /// `ReadOnly`, `Unsupported`, `InvalidArgument`, `NotPermitted`, `DirectoryNotEmpty`. `places` are where the op's nodes are,
    /// links followed.
    async fn may_change(&self, op: &Op, places: &[Node]) -> Result<()>;
}

/// Knows who has files open.
pub trait Keeping: Send + Sync {
    /// Writes into an op that takes names away who has open what may lose its last one. Until the guard is dropped,
    /// nobody opens it.
    ///
    /// # Errors
    /// Those of reading the state.
    fn note_holders(&self, op: &mut Op) -> Result<Option<Removal<'_>>>;
    /// Whether somebody has a file open. Until the guard is dropped, nobody else opens it.
    fn close_off(&self, inode: InodeId) -> (Removal<'_>, bool);
}

/// Keeps writers that have lost their leases away from blocks.
#[async_trait]
pub trait Fences: Send + Sync {
    /// Returns when no worker takes a write of these blocks any more that is of a lower generation, or from a writer that
    /// does not know the worker's newest epoch. `generation` is that of the next writer.
    ///
    /// # Errors
    /// `BlockUnavailable` if a worker neither answers nor falls silent.
    async fn fence(&self, inode: InodeId, blocks: &[BlockId], generation: u32) -> Result<()>;

    /// After that: where the replicas of blocks differ, or are fewer than `wanted`, has those that are kept become of this
    /// generation, and be on disk. Says which blocks these are, and who has them.
    ///
    /// # Errors
    /// `BlockUnavailable` if nobody who answers has a block that others may have.
    async fn agree(
        &self,
        inode: InodeId,
        blocks: &[BlockRef],
        wanted: usize,
        generation: u32,
    ) -> Result<Vec<KeptBlock>>;

    /// After that, of blocks that are an object's: those of which a worker has, or may have, what a writer left.
    ///
    /// # Errors
    /// Those of reading the state.
    async fn written_over(&self, blocks: &[BlockRef]) -> Result<Vec<BlockId>>;
}

/// Who asks where blocks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// [`CallContext::near`].
    pub near: u32,
    /// Readers that differ in it begin with different holders; 0: the order does not matter.
    pub turn: u64,
}

impl Reader {
    pub fn of(context: &CallContext) -> Self {
        Reader {
            near: context.near,
            turn: context.client.0,
        }
    }
}

/// Which worker holds which block: soft state, from reports and commits.
#[async_trait]
pub trait Placement: Send + Sync {
    /// Fills in workers for reading: holders first; for missing blocks of a file with a source, where to cache them.
    fn locate(&self, layout: &mut FileLayout) {
        self.locate_for(layout, Reader::default());
    }
    /// The same, in the order in which somebody is to try them.
    fn locate_for(&self, layout: &mut FileLayout, reader: Reader);
    /// Fills in workers for writing new bytes: holders of a block, else where a new one should go. A new one goes to the host
    /// of the writer first.
    ///
    /// # Errors
    /// `NoSpace`, or `BlockUnavailable` if no worker is live: the message says what to do.
    fn place(&self, layout: &mut FileLayout, writer: Reader) -> Result<()>;
    /// A client committed these; their own reports will follow.
    fn committed(&self, blocks: &[BlockCommit]);
    /// Apply dropped the last reference to these blocks.
    fn released(&self, blocks: &[BlockId]);
    fn stats(&self) -> FsStats;
    /// How many of these blocks' bytes some live worker holds.
    fn cached_bytes(&self, blocks: &[BlockRef]) -> u64;
}
