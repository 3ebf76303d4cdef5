//! The checksum of a file: the CRC32C of its bytes, as HDFS composes it of those of blocks (HDFS-13056), so it is the same
//! whatever the blocks are.
//!
//! Read through the client: the bytes are verified on their way, and stay in native memory.

use curvine_actors::client::Client;
use curvine_protocol::checksum::{crc32c, crc32c_combine};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, Result};
use futures::TryStreamExt;

/// The CRC32C of the first `limit_bytes` of a file, or of all if it has fewer.
///
/// # Errors
/// As opening and reading it.
pub async fn of_file(client: &Client, path: &CurvinePath, limit_bytes: u64) -> Result<u32> {
    let file = client.open(path.clone()).await?;
    let mut left = file.size_now().min(limit_bytes);
    let mut pieces = std::pin::pin!(file.stream(0));
    let mut whole = crc32c(&[]);
    while left > 0
        && let Some(piece) = pieces.try_next().await?
    {
        let taken = &piece[..piece.len().min(to_usize(left))];
        whole = crc32c_combine(whole, crc32c(taken), taken.len() as u64);
        left -= taken.len() as u64;
    }
    Ok(whole)
}
