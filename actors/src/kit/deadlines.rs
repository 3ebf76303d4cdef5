//! How long each layer waits for the one below it, where an under file system is at the bottom.
//!
//! Each is longer than the one before it, so that whoever waits hears what the store said, or that it is silent, and
//! which store it is; never that a node of the cluster does not answer. `docs/stores.md` has them as a table.

use std::time::Duration;

/// One try of a request that has no bytes to move: OpenDAL repeats it.
pub const STORE_TRY: Duration = Duration::from_secs(10);
/// Whoever asks a store a question, begins to read from it, or waits for its next piece: all tries together. The first can
/// end by itself, and be told in its own words, and a second can begin.
pub const STORE_ANSWER: Duration = Duration::from_secs(2 * STORE_TRY.as_secs());
/// A worker's transfer that waits for the next piece.
pub const TRANSFER_SILENCE: Duration = Duration::from_secs(STORE_ANSWER.as_secs() + 2);
/// The leader's check of a mount: it lists, writes and deletes.
pub const MOUNT_CHECK: Duration = Duration::from_secs(3 * STORE_ANSWER.as_secs() + 2);
/// A client's try of a call, unless the call takes longer by its nature (checks of mounts, exports).
pub const CALL: Duration = Duration::from_secs(TRANSFER_SILENCE.as_secs() + 8);
