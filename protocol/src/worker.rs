//! The worker service: what clients and masters ask of a worker.
//!
//! Errors: a request's documentation names those that are its own. Any call may also say `Overloaded`, `Timeout`,
//! `Stopping`, or `Io` if the disk fails.

use serde::{Deserialize, Serialize};

use crate::attr::{BlockRef, UfsSource, WorkerAddress};
pub use crate::call::Done;
use crate::call::calls;
use crate::cluster::{DiskStatus, Tier};
use crate::error::Error;
use crate::ids::{BlockId, ClusterId, InodeId, JobId, MountId, WorkerId};
use crate::master::HeldBlock;
use crate::number::is_zero;

/// Nothing: the floor under every other call's cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEcho {}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEchoed {
    pub worker: WorkerId,
    pub cluster: ClusterId,
}

/// Reads a range of a block; the bytes are the reply's body.
///
/// The worker may answer with fewer bytes than asked, at least one unless the range starts at or beyond the
/// block's end. At most [`READ_BYTES_MAX`] a call.
///
/// # Errors
/// `NotFound` if the worker lacks the block and `fill` is none; `Stale` if it has an older generation; `Corrupt`;
/// `UfsChanged`, `Ufs`, `UfsDenied` while filling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlock {
    pub block: BlockId,
    pub generation: u32,
    pub offset_bytes: u64,
    pub len_bytes: u32,
    /// Where to fetch what is missing.
    pub fill: Option<Fill>,
    /// Of this very generation alone, and sealed: a replica is to be made of it. `Stale` if it is anything else.
    #[serde(default)]
    pub exact: bool,
    /// The tier in which it is wished to be, as far as the reader knows.
    #[serde(default, skip_serializing_if = "Wish::is_unsaid")]
    pub tier: Wish,
}

/// The tier in which a block is wished to be, as far as whoever asks for it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wish(u8);

impl Wish {
    /// Whoever asks does not know.
    pub const UNSAID: Wish = Wish(0);

    /// A tier, or any.
    pub fn of(tier: Option<Tier>) -> Self {
        Wish(tier.map_or(1, |tier| tier.code() + 1))
    }

    pub fn is_unsaid(&self) -> bool {
        self.0 == 0
    }

    /// What is wished for, if something is said: a tier, or any. What a newer program says is not known.
    pub fn said(self) -> Option<Option<Tier>> {
        match self.0 {
            0 => None,
            1 => Some(None),
            code => Tier::of_code(code - 1).map(Some),
        }
    }
}

/// How long a worker takes writes after it asked the leader something that was answered. Then it takes none until it has
/// registered again, in another epoch: the masters may have given leases on.
pub const WRITES_UNHEARD_MS: u64 = 20_000;

/// Most bytes that one [`ReadBlock`] answers with.
pub const READ_BYTES_MAX: u32 = 4 << 20;

/// How a worker fills a block from an under file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// The file, by which the worker asks the master what object this is: a client's word is not taken for it.
    pub inode: InodeId,
    /// Index of the block in the file.
    pub block_index: u32,
    /// Answer when all of the block is here, as whoever is to write a part of it needs it.
    #[serde(default)]
    pub whole: bool,
    /// The mount whose object it is, as the reader has it: for what is counted of the mount, and for nothing else.
    #[serde(default)]
    pub mount: Option<MountId>,
    /// Whoever asks is a worker that makes a copy of its own: what is missing comes from the under file system, not from yet
    /// another worker.
    #[serde(default)]
    pub from_store: bool,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The body is the bytes from `offset_bytes` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockData {
    pub offset_bytes: u64,
    /// CRC32C of each piece of the body, cut at the block's chunk boundaries (`checksum::CHUNK_BYTES`): the first and
    /// the last piece may be short. The reader verifies them.
    pub checksums: Vec<u32>,
}

/// Where a change of a block stands among its writer's, who numbers all its changes of a file.
///
/// With it a worker knows a request that comes late, however late it comes, and one that builds on bytes which it had
/// and lost. The numbers are compared with those of the same generation only: a greater one begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOrder {
    /// Of this change; a repeat has the same. From 1 on: 0 says that the writer does not number its changes.
    pub number: u64,
    /// All changes with lower numbers have ended: one that comes later is not carried out. Those under way at the same
    /// time do not overlap.
    pub floor: u64,
    /// The highest number that this worker has acknowledged for the block. All that it acknowledged must be there.
    pub has: u64,
    /// In which life of its disk the worker acknowledged it ([`BlockWritten::life`]).
    pub life: u64,
}

/// Writes the request's body at an offset of a block that is being written, creating it if it is not there.
///
/// # Errors
/// `NoSpace`, `Io`; `Stale` if the worker has a newer generation, was told to take none as old as this
/// ([`FenceBlocks`]), or the request is late ([`WriteOrder::floor`]); `Lost` if bytes that it acknowledged to this writer
/// are gone; `Unreachable` if it has not heard from the masters for [`WRITES_UNHEARD_MS`], or has another epoch;
/// `Corrupt` if the body fails its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteBlock {
    pub block: BlockId,
    pub generation: u32,
    pub offset_bytes: u64,
    /// CRC32C of the body.
    pub checksum: u32,
    /// The committed length of the block when this writer opened it. On the first write of a generation the worker
    /// cuts the block to it, so that what an earlier truncation hid reads as zeros.
    ///
    /// A worker that has not all of these bytes refuses the write: it never makes zeros of what it has not got.
    pub base_len_bytes: u64,
    /// Space to set aside, a hint: how long the block may become.
    pub reserve_bytes: u64,
    /// The worker's epoch as the writer knows it; see [`WorkerAddress`].
    #[serde(default)]
    pub epoch: u64,
    #[serde(default)]
    pub order: WriteOrder,
    /// The tier in which it is wished to be.
    #[serde(default)]
    pub tier: Option<Tier>,
}

/// The bytes are in the block; readers do not see them before [`SealBlock`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockWritten {
    /// Length of the block after the write.
    pub len_bytes: u64,
    /// Which life of the disk it is. Another one begins when the machine, or the mount of the disk, goes down without the
    /// worker having been stopped: what was not synced may be gone. 0: the worker does not say.
    #[serde(default)]
    pub life: u64,
}

/// Makes a range of a block that is being written read as zeros, and gives the space behind it back. The block stays as
/// long as it is; a range beyond its end changes nothing. As the first call of a generation it cuts the block as
/// [`WriteBlock`] does, also where the range is empty.
///
/// # Errors
/// `NotFound` if the block is not here. Else as [`WriteBlock`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchBlock {
    pub block: BlockId,
    pub generation: u32,
    pub offset_bytes: u64,
    pub len_bytes: u64,
    /// See [`WriteBlock::base_len_bytes`].
    pub base_len_bytes: u64,
    /// See [`WriteBlock::epoch`].
    pub epoch: u64,
    pub order: WriteOrder,
}

/// Makes what was written to a block visible and checksummed; with `sync`, on disk too. The block may be written
/// again afterwards (same generation).
///
/// # Errors
/// `NotFound` if the block is not here; `Stale` if it has another generation; `Busy` if it is being filled. Else as
/// [`WriteBlock`]: `Lost` says that the block is not what its writer thinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealBlock {
    pub block: BlockId,
    pub generation: u32,
    pub sync: bool,
    /// See [`WriteBlock::epoch`].
    #[serde(default)]
    pub epoch: u64,
    /// A newer generation will do: the caller did not write the block, and wants what is there to be on disk. No fence
    /// and no epoch hold this up.
    #[serde(default)]
    pub or_newer: bool,
    /// Every change with a lower number than the seal's has ended.
    #[serde(default)]
    pub order: WriteOrder,
}

/// The block is checksummed up to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSealed {
    pub len_bytes: u64,
    /// See [`BlockWritten::life`].
    #[serde(default)]
    pub life: u64,
    /// How many of its bytes are in holes, which take no space on the worker's disk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hole_bytes: u64,
}

/// Write + seal of a whole small block in one round trip; the body is its content.
///
/// # Errors
/// As [`WriteBlock`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBlock {
    pub block: BlockId,
    pub generation: u32,
    /// CRC32C of the body.
    pub checksum: u32,
    pub sync: bool,
    /// See [`WriteBlock::epoch`].
    #[serde(default)]
    pub epoch: u64,
    #[serde(default)]
    pub order: WriteOrder,
    /// The tier in which it is wished to be.
    #[serde(default)]
    pub tier: Option<Tier>,
}

/// From the master, before a lease is given on that its last holder did not give back: from now on the worker takes no
/// write, seal or put of these blocks that is of a lower generation, also after a restart.
///
/// Blocks that are not here need no fence. Whatever an old writer may still make of them is of its generation, which the
/// namespace does not name, and which the first write of the next generation cuts away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceBlocks {
    pub blocks: Vec<BlockId>,
    /// Of the next writer.
    pub generation: u32,
}

/// From the master, after [`FenceBlocks`], of blocks that several workers may have: what this one has of each. The last
/// writer is gone, and may have reached one worker and not another. What it did not seal is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareBlocks {
    pub blocks: Vec<BlockExtent>,
}

/// As much of a block as the namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockExtent {
    pub block: BlockId,
    pub len_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksCompared {
    /// In the order of the blocks. None: it is not here, or shorter, or being fetched, or rotten.
    pub replicas: Vec<Option<ReplicaSum>>,
}

/// What a replica is, as far as replicas must agree: up to the length that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSum {
    pub generation: u32,
    /// CRC32C of its chunks' checksums, each four bytes, little-endian; the last chunk is cut at the length.
    pub checksum: u32,
    /// A power cut may have undone some of what was sealed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_doubtful: bool,
}

/// From the master, after [`CompareBlocks`]: these replicas are what the blocks are, and others are not. They become of this
/// generation, by which others are known to be older, and end at their lengths; they are on disk when this is answered.
///
/// # Errors
/// `NotFound` if one is not here, `Stale` if it has a newer generation or none as old as this is taken, `Io`, `NoSpace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepReplicas {
    pub blocks: Vec<BlockExtent>,
    pub generation: u32,
}

/// From the master: from now on these blocks are *kept*, the only copy of their bytes, or *cached*, which an under file
/// system has as well and which go when something else needs the room. It is so on the device when this is answered.
///
/// Kept: before an object goes, or is replaced, of which somebody still needs what was fetched. Cached: when an export has
/// ended, and nobody has the lease of the file. A block becomes cached only in exactly the generation that the object has; a
/// later writer uses a greater one. So an order that comes late never makes of newer bytes something that may go.
///
/// A block may be kept after all that an order before said to be cached, without having been written in between: an object
/// goes that it was fetched from. So each order has a number: that of the effect that it is for, or, for *cached*, that of
/// the last effect which had begun when the leader saw that none was under way which meant the file. Of *cached*, those go
/// unheard that have a lower number than a *kept* before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkBlocks {
    pub blocks: Vec<MarkedBlock>,
    pub cached: bool,
    pub number: u64,
}

/// A block in one of its generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedBlock {
    pub block: BlockId,
    pub generation: u32,
    /// Of *cached*: the mount whose object has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountId>,
}

/// In the order of the blocks: whether it is of that kind now. Else it is not here whole, is of another generation, or the
/// order came late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksMarked {
    pub marked: Vec<bool>,
}

/// From the master: from now on these blocks are pinned, which are never evicted, or are not. It is so on the device when
/// this is answered.
///
/// `number` is that of the pins in the namespace as they were when the leader looked, or of an earlier state of them. Orders
/// that unpin go unheard if they have a lower number than one that pinned before: they are late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinBlocks {
    pub blocks: Vec<BlockId>,
    pub pinned: bool,
    pub number: u64,
}

/// In the order of the blocks: whether it is so now. Else it is not here, is being written, or the order came late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksPinned {
    pub ordered: Vec<bool>,
}

/// From the master: makes a replica of a block from that of another worker. It is on disk when this is answered. One that is
/// here already is enough.
///
/// A chunk that is wrong there is taken from one of the others, who have set replicas of the block aside: each may be wrong in
/// another place.
///
/// Only what is sealed there in this very generation is copied, and only of files that nobody is writing: whoever writes
/// the block later does so in a greater generation, so this may come late.
///
/// # Errors
/// `Stale` or `NotFound` if the other worker has not this generation (any more); `Busy` if something else is here, which the
/// next report brings up; `Corrupt`, `Unreachable`, `NoSpace`, `Io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReplica {
    pub block: BlockRef,
    pub from: WorkerId,
    /// Where that worker is.
    pub address: String,
    #[serde(default)]
    pub others: Vec<WorkerAddress>,
}

/// From the master: of these blocks there are more replicas than their files want. The worker's own goes where each of the
/// keepers confirms to have the very same ([`ConfirmReplicas`]).
///
/// While the worker asks, it confirms nothing of the block itself. So of workers that are told, at once or late, to shed for
/// each other's sake, by one leader or by several, never all do: whoever is the last to begin has keepers that had not begun
/// and begin no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShedReplicas {
    /// At most [`SHED_MAX`].
    pub blocks: Vec<SurplusReplica>,
    /// Where the keepers are.
    pub workers: Vec<WorkerAddress>,
}

/// Blocks in one [`ShedReplicas`].
pub const SHED_MAX: usize = 64;

/// A replica that is too much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurplusReplica {
    pub block: BlockRef,
    /// As many others as the file wants replicas; one at least.
    pub keepers: Vec<WorkerId>,
}

/// In the order of the blocks: whether the worker has it no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasShed {
    pub went: Vec<bool>,
}

/// From a worker that is to shed its replicas: what the asked one has of these blocks, each up to its length, once it has
/// verified the bytes. It stays there, but for what may happen to any replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmReplicas {
    pub blocks: Vec<BlockRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasConfirmed {
    /// Who says so: another worker may be at its address.
    pub worker: WorkerId,
    /// In the order of the blocks. None: it is not here whole and kept, or rotten, or about to be shed, too.
    pub replicas: Vec<Option<ReplicaSum>>,
}

/// From a reader that got bytes with a wrong checksum: the worker is to look at its own. What it finds wrong goes out of
/// use: it can be fetched again, or the master hears that the replica is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectBlock {
    pub block: BlockId,
    pub offset_bytes: u64,
    pub len_bytes: u32,
}

/// What the worker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockVerified {
    /// The bytes are here, with the checksums that they were written with. False: they are here no more.
    pub is_right: bool,
}

/// From the master: deletes blocks. Those that are not there are not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBlocks {
    pub blocks: Vec<BlockId>,
}

/// From the master: makes whole blocks of under file systems be there. Answers when all have ended, or says after
/// `patience_ms` how far they are; they go on, and asking again is no second load. A worker that is not asked again for
/// 10 s gives up what no reader waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBlocks {
    pub tasks: Vec<LoadTask>,
    /// 0 = until all have ended.
    #[serde(default)]
    pub patience_ms: u32,
    /// The job that wants them. What it has loaded on this worker does not go for the sake of what it loads next: when
    /// nothing else may go, there is no room (`NoSpace`).
    #[serde(default)]
    pub job: Option<JobId>,
}

/// One block of [`LoadBlocks`], and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadTask {
    pub block: BlockId,
    pub generation: u32,
    pub len_bytes: u64,
    /// Where the block starts in the object.
    pub object_offset_bytes: u64,
    pub source: UfsSource,
    /// The tier in which it is wished to be.
    #[serde(default)]
    pub tier: Option<Tier>,
    /// Other workers have the block, and this one is to have a copy.
    #[serde(default)]
    pub copy: Option<CopyCached>,
}

/// Where a copy of a cached block comes from: what none of these workers gives, the under file system does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyCached {
    /// The file, and the index of the block in it: what these workers lack themselves, they fetch by these.
    pub inode: InodeId,
    pub block_index: u32,
    pub workers: Vec<WorkerAddress>,
}

/// What became of the tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksLoaded {
    /// In the order of the tasks: bytes fetched (0 where the block was there already), or why not.
    pub outcomes: Vec<Result<u64, Error>>,
    /// Tasks that have not ended, by their places in that order: their outcomes are the bytes fetched so far.
    #[serde(default)]
    pub under_way: Vec<u32>,
}

/// From the master: gives up loads of these blocks. What has arrived stays, and so does what a reader waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopLoading {
    pub blocks: Vec<BlockId>,
}

/// Nothing more is fetched for those loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadingStopped {
    /// In the order of the blocks: the bytes that were fetched of each, if it was under way.
    pub fetched_bytes: Vec<u64>,
}

/// From the master, for a writable mount: writes a file's content to its object, then says which version that made.
///
/// # Errors
/// `BlockUnavailable` if this worker lacks a block, `Stale` if one is shorter here than in the namespace; `Ufs`,
/// `UfsDenied`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    pub inode: InodeId,
    pub mount: crate::ids::MountId,
    pub key: String,
    /// Of the whole file.
    pub size_bytes: u64,
    /// The blocks in order, with who holds them; holes have no worker.
    pub layout: crate::attr::FileLayout,
    /// Which export this is: before the object becomes visible, the worker asks whether it is still wanted. 0 from masters
    /// of older versions, which do not know.
    #[serde(default)]
    pub effect: crate::ids::EffectId,
    /// The version of the object that this one is to replace; none if there is to be none.
    #[serde(default)]
    pub replaces: Option<crate::attr::UfsVersion>,
    /// Kept with the object where the store keeps metadata: cluster, inode and content version.
    #[serde(default)]
    pub mark: String,
    /// Kept with the object where the store can.
    #[serde(default)]
    pub attributes: Option<crate::attr::KeptAttributes>,
}

/// The object is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileExported {
    pub version: crate::attr::UfsVersion,
}

/// How a worker's disks are, asked of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetWorkerStatus {}

/// Worker 0 is one that has not registered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDisks {
    pub worker: WorkerId,
    pub disks: Vec<DiskStatus>,
}

/// The blocks that a worker has on one data directory, whole, in the order of their ids; `cv fsck` compares them with the
/// namespace.
///
/// # Errors
/// `InvalidArgument` for a data directory that it has not; `Io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBlocks {
    /// From 0, in the order of [`WorkerDisks`].
    pub disk: u32,
    /// Those after this one.
    pub after: Option<BlockId>,
    /// At most this many are looked at.
    pub limit: u32,
}

/// A page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksListed {
    pub held: Vec<HeldBlock>,
    /// Where the next page begins; none at the end.
    pub last: Option<BlockId>,
}

/// What a worker has of blocks, and why it has not those that it had; `cv why` asks.
///
/// # Errors
/// `InvalidArgument` for more than [`EXPLAINED_MAX`] blocks; `Io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainBlocks {
    pub blocks: Vec<BlockId>,
}

/// Blocks of one [`ExplainBlocks`].
pub const EXPLAINED_MAX: usize = 1_000;

/// In the order of the blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksExplained {
    pub blocks: Vec<BlockAccount>,
}

/// What a worker knows of a block. Neither: it never had it, or has forgotten that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAccount {
    pub held: Option<HeldAccount>,
    /// If it is not here, how it went last, since the worker started.
    pub gone: Option<Departure>,
}

/// A block that is on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAccount {
    /// The data directory, for people.
    pub disk: String,
    pub tier: Tier,
    pub generation: u32,
    pub len_bytes: u64,
    /// What of the length is here: less of a block that is being filled.
    pub present_bytes: u64,
    /// Whether it is whole and nobody writes it.
    pub is_sealed: bool,
    /// An under file system has its bytes: it may go.
    pub cached: bool,
    pub pinned: bool,
    /// When bytes of it last came, in milliseconds since the epoch.
    pub came_ms: i64,
    /// When it was last read, since the worker started and as far as that is remembered.
    pub read_ms: Option<i64>,
    /// The tier in which the worker has a copy of it besides, which is read instead and goes at any time.
    #[serde(default)]
    pub copy: Option<Tier>,
    /// The tier that was wished for it.
    #[serde(default)]
    pub wished: Option<Tier>,
}

/// How a block went from a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    pub why: Gone,
}

/// Why a block went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gone {
    /// Something that was written, read or copied needed the room.
    Evicted,
    /// A load job needed the room.
    EvictedForLoad(JobId),
    /// The disk was fuller than its high watermark.
    EvictedToWatermark,
    /// The cached blocks of its mount took more than the mount's quota.
    EvictedForQuota,
    /// The masters said so: `cv free`, a deletion, or the object is another one.
    Ordered,
    /// It failed its checksum, or its file was gone.
    Corrupt,
}

/// Has the scrubber of each data directory verify everything from the beginning, now; or asks how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// Bytes a second that each data directory may read for it. None: nothing is begun.
    pub start: Option<u64>,
}

/// How far the scrubbers are, in the order of the data directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    pub disks: Vec<DiskScrub>,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskScrub {
    pub path: String,
    /// A pass is under way.
    pub runs: bool,
    /// Passes that have ended since the worker started.
    pub passes: u64,
    /// Of the pass under way, or else of the last one: what was verified, and what failed its checksum.
    pub verified_bytes: u64,
    pub corrupt_blocks: u64,
    /// What is to be verified in all, as far as it is known.
    pub used_bytes: u64,
}

/// Under which name this worker lends files to programs of its own host.
///
/// Whoever can connect to a Unix socket of that abstract name is on its host, and asks there with [`HostRequest`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetHostSocket {}

/// The reply to [`GetHostSocket`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSocketName {
    /// Empty if it lends none.
    pub name: String,
}

/// A message on a worker's host socket (`SOCK_SEQPACKET`), one a packet, in the encoding of calls.
///
/// What was lent goes back with the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRequest {
    /// The file of a block is wanted, if it is whole and of this very generation. Answered by a [`HostReply`], in order.
    Lend {
        /// By which it goes back: not in use on this connection.
        number: u64,
        block: BlockId,
        generation: u32,
    },
    /// The file has been closed. Not answered.
    Return {
        number: u64,
        /// What was read of it, for what is counted, and for nothing else.
        read_bytes: u64,
        mount: Option<MountId>,
    },
}

/// The answer to a [`HostRequest::Lend`]. The packet brings the file, open for reading, if there is no error.
///
/// # Errors
/// `NotFound` if the block is not here, or not whole; `Stale` if it is of another generation; `Unsupported` if it is not in
/// a file, or too long; `Overloaded` if too much is lent already; `Io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReply {
    /// Of the request.
    pub number: u64,
    pub lent: Result<LentBlock, Error>,
}

/// A block whose file is lent. Byte 0 of the file is byte 0 of the block; its first `len_bytes` stay what they are until it
/// goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentBlock {
    pub len_bytes: u64,
    /// CRC32C of each chunk (`checksum::CHUNK_BYTES`). The reader verifies them.
    pub checksums: Vec<u32>,
}

/// Most chunks of a block that is lent: their checksums go in one packet.
pub const LENT_CHUNKS_MAX: usize = 24_000;

/// The calls of the worker service: calls `$callback! { $($context)* ; row; ... }`. A row says the code, the request,
/// its reply, and the most bytes of the reply's body where it has one.
#[macro_export]
macro_rules! for_worker_calls {
    ($($callback:ident)::+ $(, $($context:tt)*)?) => {
        $($callback)::+! { $($($context)*)? ;
            195 => PinBlocks -> BlocksPinned {};

            200 => WorkerEcho -> WorkerEchoed {};
            201 => ReadBlock -> BlockData { body: |call| call.len_bytes.min(READ_BYTES_MAX) as usize };
            202 => WriteBlock -> BlockWritten {};
            203 => SealBlock -> BlockSealed {};
            204 => PutBlock -> BlockSealed {};
            205 => DeleteBlocks -> Done {};
            206 => LoadBlocks -> BlocksLoaded {};
            207 => ExportFile -> FileExported {};
            208 => GetWorkerStatus -> WorkerDisks {};
            209 => FenceBlocks -> Done {};
            210 => SuspectBlock -> BlockVerified {};
            211 => PunchBlock -> BlockWritten {};
            212 => StopLoading -> LoadingStopped {};
            213 => CompareBlocks -> BlocksCompared {};
            214 => KeepReplicas -> Done {};
            216 => CopyReplica -> Done {};
            217 => MarkBlocks -> BlocksMarked {};
            218 => ListBlocks -> BlocksListed {};
            219 => Scrub -> ScrubStatus {};
            220 => ExplainBlocks -> BlocksExplained {};
            221 => ShedReplicas -> ReplicasShed {};
            222 => ConfirmReplicas -> ReplicasConfirmed {};
            230 => GetHostSocket -> HostSocketName {};
        }
    };
}
for_worker_calls!(calls);
