//! How long each layer waits for the one below it, where an under file system is at the bottom.
//!
//! Each is longer than the one before it, so that whoever waits hears what the store said, or that it is silent, and
//! which store it is; never that a node of the cluster does not answer. `docs/stores.md` has them as a table.

use std::time::Duration;

use curvine_protocol::CallContext;

/// One try of a request that has no bytes to move: OpenDAL repeats it.
pub const STORE_TRY: Duration = Duration::from_secs(10);
/// A local directory that takes the next piece of a file which is written or copied: a busy disk is slow, a dead one silent.
pub const LOCAL_STEP: Duration = Duration::from_secs(60);
/// What a local disk takes at least, once all of a file is to be on it.
const LOCAL_SYNC_BYTES_PER_SECOND: u64 = 16 << 20;
const LOCAL_SYNC_MAX: Duration = Duration::from_secs(30 * 60);
/// Whoever asks a store a question, begins to read from it, or waits for its next piece: all tries together. The first can
/// end by itself, and be told in its own words, and a second can begin.
pub const STORE_ANSWER: Duration = Duration::from_secs(2 * STORE_TRY.as_secs());
/// The same once a question got no answer: whoever asked it asks more, and is to hear of the silence in time.
pub const STORE_ANSWER_AGAIN: Duration = Duration::from_secs(1);
/// For how long after that. Then a store is waited for as before: it may be slow in everything, and not silent.
pub const STORE_SILENCE: Duration = Duration::from_secs(STORE_TRY.as_secs());
/// What a store copies at least of one object, by itself.
const STORE_COPY_BYTES_PER_SECOND: u64 = 16 << 20;
const STORE_COPY_MAX: Duration = Duration::from_secs(10 * 60);
/// A worker's transfer that waits for the next piece.
pub const TRANSFER_SILENCE: Duration = Duration::from_secs(STORE_ANSWER.as_secs() + 2);
/// The leader's check of a mount: it lists, writes and deletes.
pub const MOUNT_CHECK: Duration = Duration::from_secs(3 * STORE_ANSWER.as_secs() + 2);
/// A client's try of a call, unless the call takes longer by its nature (checks of mounts, exports).
pub const CALL: Duration = Duration::from_secs(TRANSFER_SILENCE.as_secs() + 8);
/// How long a leader keeps a caller waiting for others: for a lease, for what an under file system does.
pub const LEADER_WAIT: Duration = Duration::from_secs(25);
/// Of a caller's patience, what is left for the way back.
const WAY_BACK: Duration = Duration::from_secs(2);

/// What a worker takes to begin with a replica, and how many bytes of it a second at least.
const REPLICA_STEP: Duration = Duration::from_secs(30);
const REPLICA_BYTES_PER_SECOND: u64 = 4 << 20;
const REPLICAS_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a local directory may take until all of a file is on its disk.
pub fn local_sync(size_bytes: u64) -> Duration {
    by_size(
        LOCAL_STEP,
        size_bytes / LOCAL_SYNC_BYTES_PER_SECOND,
        LOCAL_SYNC_MAX,
    )
}

/// How long a store may take to copy an object inside of it.
pub fn store_copy(size_bytes: u64) -> Duration {
    by_size(
        STORE_ANSWER,
        size_bytes / STORE_COPY_BYTES_PER_SECOND,
        STORE_COPY_MAX,
    )
}

/// What anything takes, and so many seconds more for its size, up to a limit.
fn by_size(any: Duration, seconds: u64, most: Duration) -> Duration {
    most.min(any.saturating_add(Duration::from_secs(seconds)))
}

/// A call by which a worker reads, writes or verifies so many bytes of replicas, and may wait for another to do so.
pub fn of_replicas(len_bytes: u64) -> CallContext {
    let deadline = by_size(REPLICA_STEP, len_bytes / REPLICA_BYTES_PER_SECOND, REPLICAS_MAX);
    CallContext {
        deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        ..CallContext::default()
    }
}

/// How long a caller with this deadline is kept waiting; 0 is none.
pub fn leader_waits(deadline_ms: u32) -> Duration {
    match deadline_ms {
        0 => LEADER_WAIT,
        ms => LEADER_WAIT.min(Duration::from_millis(ms.into()).saturating_sub(WAY_BACK)),
    }
}
