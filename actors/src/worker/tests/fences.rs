//! Writers that have lost their leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::checksum::{CHUNK_BYTES, chunk_checksums, crc32c};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    BlockExtent, CompareBlocks, FenceBlocks, KeepReplicas, ReplicaSum, SealBlock, WRITES_UNHEARD_MS,
    WriteBlock, WriteOrder,
};
use curvine_protocol::{BlockId, CallContext, ErrorKind, Result};
use tokio::time::Instant;

use super::world::*;
use crate::kit::until::until_some;
use crate::kit::{Ask, Clock, Endpoint, Ports, WorkerPort, call};
use crate::worker::WorkerHandle;

const CHUNK: usize = to_usize(CHUNK_BYTES);

async fn fence(worker: &WorkerHandle, blocks: &[u64], generation: u32) {
    let blocks = blocks.iter().map(|&id| BlockId(id)).collect();
    let fence = FenceBlocks { blocks, generation };
    call(&*worker.port, fence, CallContext::default()).await.unwrap();
}

fn kind<T>(outcome: Result<T>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind)
}

/// One small block in the index, one in a file, one that is being written; each of generation 1.
async fn three_blocks(port: &dyn WorkerPort) {
    put(port, 1, 1, bytes_of(1, 100)).await.unwrap();
    put(port, 2, 1, bytes_of(2, 2 * CHUNK)).await.unwrap();
    write(port, 3, 1, 0, 0, bytes_of(3, 2 * CHUNK)).await.unwrap();
}

async fn is_fenced(port: &dyn WorkerPort) {
    for (block, len_bytes) in [(1, 100), (2, 2 * CHUNK), (3, 2 * CHUNK)] {
        let stale = Some(ErrorKind::Stale);
        // Of their own generation, and of a lost writer's that nobody has seen here.
        for generation in [1, 2] {
            let late = write(port, block, generation, 0, len_bytes as u64, bytes_of(9, 10)).await;
            assert_eq!(kind(late), stale, "block {block}, generation {generation}");
            assert_eq!(kind(put(port, block, generation, bytes_of(9, 10)).await), stale);
            assert_eq!(kind(seal(port, block, generation, false).await), stale);
        }
        let there = read_all(port, block, 1, None).await.unwrap();
        assert_eq!(there, bytes_of(block, len_bytes), "block {block}");
    }
}

#[actix::test]
async fn a_fenced_block_takes_nothing_of_a_lower_generation_also_after_a_kill_and_all_of_the_next() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    three_blocks(&*worker.port).await;
    // Block 4 is not here.
    fence(&worker, &[1, 2, 3, 4], 3).await;
    is_fenced(&*worker.port).await;
    kill(worker);

    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    is_fenced(port).await;
    // A reader's sync is no write.
    let sync = SealBlock {
        block: BlockId(3),
        generation: 1,
        sync: true,
        epoch: 0,
        or_newer: true,
        order: WriteOrder::default(),
    };
    call(port, sync, CallContext::default()).await.unwrap();
    // The next writer, who was told the committed lengths.
    for (block, base_bytes) in [(1, 100), (2, CHUNK), (3, CHUNK)] {
        let at = base_bytes as u64;
        write(port, block, 3, at, at, bytes_of(8, 10)).await.unwrap();
        seal(port, block, 3, false).await.unwrap();
        let expected = [&bytes_of(block, base_bytes)[..], &bytes_of(8, 10)].concat();
        assert_eq!(read_all(port, block, 3, None).await.unwrap(), expected);
    }
    // A lower fence that comes late takes nothing back.
    fence(&worker, &[1], 2).await;
    write(port, 1, 4, 0, 110, bytes_of(7, 10)).await.unwrap();
    put(port, 4, 1, bytes_of(4, 10)).await.unwrap();
    worker.stop().await;
}

#[actix::test]
async fn replicas_are_compared_as_far_as_the_namespace_knows_them_and_those_that_are_kept_end_there() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    three_blocks(port).await;
    // Beyond what was committed, which only this worker may have got.
    write(port, 2, 2, 2 * CHUNK as u64, 2 * CHUNK as u64, bytes_of(9, 10))
        .await
        .unwrap();
    let lengths = [
        (1, 60),
        (1, 100),
        (2, 2 * CHUNK as u64),
        (3, 2 * CHUNK as u64),
        (3, 3 * CHUNK as u64),
        (4, 1),
    ];
    let extent = |(block, len_bytes)| BlockExtent {
        block: BlockId(block),
        len_bytes,
    };
    let compare = CompareBlocks {
        blocks: lengths.map(extent).to_vec(),
    };
    let compared = || call(port, compare.clone(), CallContext::default());
    let replicas = compared().await.unwrap().replicas;
    let sum_of = |generation, content: Bytes| {
        let sums: Vec<u8> = chunk_checksums(&content)
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        Some(ReplicaSum {
            generation,
            checksum: crc32c(&sums),
            is_doubtful: false,
        })
    };
    let expected = [
        sum_of(1, bytes_of(1, 60)),
        sum_of(1, bytes_of(1, 100)),
        sum_of(2, bytes_of(2, 2 * CHUNK)),
        sum_of(1, bytes_of(3, 2 * CHUNK)),
        None,
        None,
    ];
    assert_eq!(replicas, expected);
    let keep = |block, len_bytes, generation| KeepReplicas {
        blocks: vec![extent((block, len_bytes))],
        generation,
    };
    let keeping = |keep| call(port, keep, CallContext::default());
    for (block, len_bytes) in [(1, 60), (2, 2 * CHUNK)] {
        keeping(keep(block, len_bytes as u64, 5)).await.unwrap();
        // Its answer was lost.
        keeping(keep(block, len_bytes as u64, 5)).await.unwrap();
        let there = read_all(port, block, 5, None).await.unwrap();
        assert_eq!(there, bytes_of(block, len_bytes), "block {block}");
        assert_eq!(kind(keeping(keep(block, 10, 4)).await), Some(ErrorKind::Stale));
    }
    assert_eq!(kind(keeping(keep(4, 1, 5)).await), Some(ErrorKind::NotFound));
    // A leader that has been replaced comes late.
    fence(&worker, &[3], 7).await;
    assert_eq!(kind(keeping(keep(3, 10, 6)).await), Some(ErrorKind::Stale));
    worker.stop().await;
}

/// A clock that can be moved ahead.
#[derive(Default)]
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "it is a clock")]
        let now = Instant::now();
        now + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn wall_ns(&self) -> i64 {
        0
    }
}

async fn write_in(port: &dyn WorkerPort, epoch: u64, body: Bytes) -> Result<()> {
    let call = WriteBlock {
        block: BlockId(7),
        generation: 1,
        offset_bytes: 0,
        checksum: crc32c(&body),
        base_len_bytes: 0,
        reserve_bytes: 0,
        epoch,
        order: WriteOrder::default(),
        tier: None,
    };
    let ask = Ask::new(call, CallContext::default()).with_body(body);
    Endpoint::<WriteBlock>::ask(port, ask).await.map(drop)
}

#[actix::test]
async fn a_worker_that_does_not_hear_the_masters_takes_no_writes_and_is_of_another_epoch_afterwards() {
    let world = World::new();
    let clock = Arc::new(Ahead::default());
    let ports = Ports {
        clock: clock.clone(),
        ..Ports::system()
    };
    let mut worker = world.start_with(world.config(), ports).await;
    let epoch = world.master.state.lock().unwrap().epoch;
    write_in(&*worker.port, epoch, bytes_of(1, 10)).await.unwrap();

    world.master.state.lock().unwrap().is_silent = true;
    clock.0.store(WRITES_UNHEARD_MS + 1_000, Ordering::Relaxed);
    for of_epoch in [epoch, 0] {
        let refused = write_in(&*worker.port, of_epoch, bytes_of(2, 10)).await;
        assert_eq!(kind(refused), Some(ErrorKind::Unreachable));
    }
    assert_eq!(
        read(&*worker.port, 7, 1, 0, 10, None).await.unwrap(),
        bytes_of(1, 10),
        "it reads as ever"
    );

    world.master.state.lock().unwrap().is_silent = false;
    world
        .until("it registers in another epoch", |master| {
            !master.is_silent && master.epoch != epoch
        })
        .await;
    let late = write_in(&*worker.port, epoch, bytes_of(2, 10)).await;
    assert_eq!(kind(late), Some(ErrorKind::Unreachable));
    let now = world.master.state.lock().unwrap().epoch;
    // The master's answer may still be on its way.
    until_some("it takes writes of that epoch", async || {
        write_in(&*worker.port, now, bytes_of(3, 10)).await.ok()
    })
    .await;
    worker.stop().await;
}
