//! Replicas that are made from those of another worker.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{CopyReplica, GetWorkerStatus};
use curvine_protocol::{BlockId, BlockRef, CallContext, ErrorKind, Result, WorkerId};

use super::world::*;
use crate::kit::call;
use crate::worker::WorkerHandle;

const CHUNK: usize = to_usize(CHUNK_BYTES);

/// Two workers, the second of which knows the first.
struct Two {
    from: World,
    to: World,
    source: WorkerHandle,
}

impl Two {
    async fn new() -> Two {
        let (from, mut to) = (World::new(), World::new());
        let source = from.start(from.config()).await;
        to.peers = Arc::new(OnePeer(source.port.clone()));
        Two { from, to, source }
    }
}

async fn copy(worker: &WorkerHandle, block: u64, generation: u32, len: usize) -> Result<()> {
    let copy = CopyReplica {
        block: BlockRef {
            id: BlockId(block),
            len_bytes: len as u64,
            generation,
        },
        from: WorkerId(7),
        address: "there".to_owned(),
        others: Vec::new(),
    };
    call(&*worker.port, copy, CallContext::default()).await.map(drop)
}

fn kind(outcome: Result<()>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind)
}

/// Sealed on the source: one in the index, one in a file, one that is copied in pieces, one longer than it is known to be.
async fn some_blocks(two: &Two) -> Vec<(u64, Bytes)> {
    let port = &*two.source.port;
    let lengths = [(1, 100), (2, CHUNK + 10), (3, 5 * (1 << 20) + 17), (4, 3 << 20)];
    let mut blocks = Vec::new();
    for (block, len) in lengths {
        let bytes = bytes_of(block, len);
        write(port, block, 4, 0, 0, bytes.clone()).await.unwrap();
        seal(port, block, 4, false).await.unwrap();
        let known = match block {
            4 => bytes.slice(..len - 1_000),
            _ => bytes,
        };
        blocks.push((block, known));
    }
    blocks
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for shard in std::fs::read_dir(directory.join("blocks")).unwrap() {
        for file in std::fs::read_dir(shard.unwrap().path()).unwrap() {
            names.push(file.unwrap().file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[actix::test]
async fn what_is_sealed_elsewhere_is_copied_whole_reported_and_there_after_a_kill() {
    let two = Two::new().await;
    let blocks = some_blocks(&two).await;
    let worker = two.to.start(two.to.config()).await;
    for (block, bytes) in &blocks {
        copy(&worker, *block, 4, bytes.len()).await.unwrap();
        copy(&worker, *block, 4, bytes.len()).await.expect("it is there");
    }
    let held = |blocks: &[(u64, Bytes)]| -> Vec<_> {
        let of = blocks.iter();
        of.map(|(block, bytes)| (BlockId(*block), (4, bytes.len() as u64)))
            .collect()
    };
    let expected = held(&blocks);
    two.to
        .until("the master hears of them", |state| {
            expected
                .iter()
                .all(|(block, held)| state.held.get(block) == Some(held))
        })
        .await;
    kill(worker);
    let worker = two.to.start(two.to.config()).await;
    for (block, bytes) in &blocks {
        let there = read_all(&*worker.port, *block, 4, None).await.unwrap();
        assert_eq!(there, bytes, "block {block}");
    }
    assert_eq!(files_below(&two.to.disk("d0")).len(), 3);
}

#[actix::test]
async fn what_is_of_another_generation_unsealed_or_in_the_way_is_not_copied() {
    let two = Two::new().await;
    let blocks = some_blocks(&two).await;
    let worker = two.to.start(two.to.config()).await;
    // It was written since.
    write(&*two.source.port, 2, 5, 0, CHUNK as u64 + 10, bytes_of(9, 10))
        .await
        .unwrap();
    assert_eq!(
        kind(copy(&worker, 2, 4, CHUNK + 10).await),
        Some(ErrorKind::Stale)
    );
    assert_eq!(
        kind(copy(&worker, 2, 5, CHUNK + 10).await),
        Some(ErrorKind::Stale),
        "being written"
    );
    assert_eq!(kind(copy(&worker, 1, 3, 100).await), Some(ErrorKind::Stale));
    assert_eq!(kind(copy(&worker, 1, 5, 100).await), Some(ErrorKind::Stale));
    assert_eq!(kind(copy(&worker, 8, 4, 100).await), Some(ErrorKind::NotFound));
    // An older one is here.
    put(&*worker.port, 1, 3, bytes_of(1, 50)).await.unwrap();
    assert_eq!(kind(copy(&worker, 1, 4, 100).await), Some(ErrorKind::Busy));
    // Of a writer who may not know that it has lost its lease.
    write(&*worker.port, 3, 4, 0, 0, bytes_of(3, 10)).await.unwrap();
    let len = blocks[2].1.len();
    assert_eq!(kind(copy(&worker, 3, 4, len).await), Some(ErrorKind::Busy));
}

#[actix::test]
async fn nothing_is_left_of_a_copy_that_fails() {
    let two = Two::new().await;
    let blocks = some_blocks(&two).await;
    let worker = two.to.start(two.to.config()).await;
    let used = async || {
        let status = call(&*worker.port, GetWorkerStatus {}, CallContext::default()).await;
        let disk = status.unwrap().disks.remove(0);
        (disk.blocks, disk.used_bytes)
    };
    let before = used().await;
    // The end of it has rotted.
    let len = blocks[2].1.len();
    flip(&two.from.disk("d0"), 3, len - 1);
    assert_eq!(kind(copy(&worker, 3, 4, len).await), Some(ErrorKind::Corrupt));
    // It says to be longer than it is.
    assert_eq!(
        kind(copy(&worker, 4, 4, (3 << 20) + 5).await),
        Some(ErrorKind::Corrupt)
    );
    assert_eq!(used().await, before);
    assert_eq!(files_below(&two.to.disk("d0")), [""; 0]);
}
