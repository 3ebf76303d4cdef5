//! Blocks that clients write.

use std::collections::HashMap;
use std::time::Duration;

use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::cluster::Tier;
use curvine_protocol::number::{to_u32, to_usize};
use curvine_protocol::worker::{DeleteBlocks, GetWorkerStatus, Scrub, Wish, WriteOrder};
use curvine_protocol::{BlockId, CallContext, ErrorKind};

use super::world::*;
use crate::kit::until::{until, until_some};
use crate::kit::{Body, call};
use crate::worker::disk::Grant;

const CHUNK: usize = to_usize(CHUNK_BYTES);

#[actix::test]
async fn a_put_block_is_read_back_and_reported() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let body = bytes_of(1, 100_000);
    assert_eq!(
        put(&*worker.port, 7, 1, body.clone()).await.unwrap().len_bytes,
        100_000
    );
    assert_eq!(read(&*worker.port, 7, 1, 0, 1 << 20, None).await.unwrap(), body);
    assert_eq!(
        read(&*worker.port, 7, 1, 70_000, 10, None).await.unwrap(),
        body[70_000..70_010]
    );
    assert_eq!(
        read(&*worker.port, 7, 1, 100_000, 10, None).await.unwrap().len(),
        0
    );
    world
        .until("the block is reported", |master| {
            master.held.get(&BlockId(7)) == Some(&(1, 100_000))
        })
        .await;
    worker.stop().await;
}

#[actix::test]
async fn a_hole_in_a_block_is_zeros_with_right_checksums_and_its_space_is_given_back() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let body = bytes_of(1, 1_000_000);
    write(&*worker.port, 7, 1, 0, 0, body.clone()).await.unwrap();
    seal(&*worker.port, 7, 1, true).await.unwrap();
    let mut expected = body.to_vec();
    expected[100_000..900_000].fill(0);
    let punched = punch(&*worker.port, 7, 2, 100_000..900_000, 1_000_000)
        .await
        .unwrap();
    assert_eq!(punched.len_bytes, 1_000_000);
    let all =
        |port: crate::kit::WorkerRef| async move { read(&*port, 7, 2, 0, 1 << 20, None).await.unwrap() };
    assert_eq!(
        all(worker.port.clone()).await,
        expected,
        "also before it is sealed"
    );
    let sealed = seal(&*worker.port, 7, 2, true).await.unwrap();
    assert!((700_000..=800_000).contains(&sealed.hole_bytes), "{sealed:?}");
    assert_eq!(all(worker.port.clone()).await, expected);
    let held_bytes = || {
        let file = std::fs::metadata(block_file(&world.disk("d0"), 7)).unwrap();
        std::os::unix::fs::MetadataExt::blocks(&file) * 512
    };
    assert!(held_bytes() <= 300_000, "{} bytes are held", held_bytes());
    // What a hole begins with in a later generation is what the namespace has of the block.
    punch(&*worker.port, 7, 3, 50_000..50_000, 50_000).await.unwrap();
    assert_eq!(seal(&*worker.port, 7, 3, false).await.unwrap().len_bytes, 50_000);
    let beyond = punch(&*worker.port, 7, 3, 40_000..u64::MAX, 50_000)
        .await
        .unwrap();
    assert_eq!(beyond.len_bytes, 50_000, "a hole makes nothing longer");
    seal(&*worker.port, 7, 3, false).await.unwrap();
    expected.truncate(50_000);
    expected[40_000..].fill(0);
    kill(worker);
    let mut worker = world.start(world.config()).await;
    assert_eq!(
        read(&*worker.port, 7, 3, 0, 1 << 20, None).await.unwrap(),
        expected
    );

    put(&*worker.port, 8, 1, bytes_of(2, 1_000)).await.unwrap();
    punch(&*worker.port, 8, 2, 10..1_000, 1_000).await.unwrap();
    seal(&*worker.port, 8, 2, false).await.unwrap();
    let small = read(&*worker.port, 8, 2, 0, 1_000, None).await.unwrap();
    assert_eq!(
        (&small[..10], &small[10..]),
        (&bytes_of(2, 1_000)[..10], &[0; 990][..])
    );
    let kind = |outcome: curvine_protocol::Result<_>| outcome.map(drop).unwrap_err().kind;
    let of = punch(&*worker.port, 8, 1, 0..1, 0).await;
    assert_eq!(kind(of), ErrorKind::Stale, "the generation of an earlier writer");
    assert_eq!(
        kind(punch(&*worker.port, 9, 1, 0..1, 0).await),
        ErrorKind::NotFound
    );
    worker.stop().await;
}

#[actix::test]
async fn wrong_generations_missing_blocks_and_damaged_bodies_are_named() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    put(&*worker.port, 7, 2, bytes_of(1, 10)).await.unwrap();
    let kind = |outcome: curvine_protocol::Result<bytes::Bytes>| outcome.unwrap_err().kind;
    assert_eq!(
        kind(read(&*worker.port, 7, 3, 0, 10, None).await),
        ErrorKind::Stale
    );
    assert_eq!(
        kind(read(&*worker.port, 8, 1, 0, 10, None).await),
        ErrorKind::NotFound
    );
    let old = write(&*worker.port, 7, 1, 0, 0, bytes_of(2, 10)).await;
    assert_eq!(old.unwrap_err().kind, ErrorKind::Stale);
    let damaged = curvine_protocol::worker::PutBlock {
        block: BlockId(9),
        generation: 1,
        checksum: 1,
        sync: false,
        epoch: 0,
        order: WriteOrder::default(),
        tier: None,
    };
    let ask = crate::kit::Ask::new(damaged, CallContext::default()).with_body(bytes_of(1, 10));
    let refused = crate::kit::Endpoint::ask(&*worker.port, ask).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Corrupt);
    worker.stop().await;
}

#[actix::test]
async fn what_was_committed_is_readable_while_and_after_somebody_writes_over_it() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let committed = bytes_of(1, 200_000);
    put(&*worker.port, 7, 2, committed.clone()).await.unwrap();
    // A writer of the next generation, who may never commit it.
    let over = bytes_of(2, 1_000);
    write(&*worker.port, 7, 3, 199_500, 200_000, over.clone())
        .await
        .unwrap();
    let read = read(&*worker.port, 7, 2, 0, 200_000, None).await.unwrap();
    assert_eq!(read[..199_500], committed[..199_500]);
    assert_eq!(read[199_500..], over[..500]);
    worker.stop().await;
}

#[actix::test]
async fn a_block_being_written_is_readable_and_survives_a_kill() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let body = bytes_of(3, 300_000);
    write(&*worker.port, 5, 1, 0, 0, body.slice(..200_000))
        .await
        .unwrap();
    let written = write(&*worker.port, 5, 1, 200_000, 0, body.slice(200_000..)).await;
    assert_eq!(written.unwrap().len_bytes, 300_000);
    assert_eq!(read_all(&*worker.port, 5, 1, None).await.unwrap(), body);
    kill(worker);

    let mut worker = world.start(world.config()).await;
    assert_eq!(read_all(&*worker.port, 5, 1, None).await.unwrap(), body);
    assert_eq!(seal(&*worker.port, 5, 1, true).await.unwrap().len_bytes, 300_000);
    assert_eq!(read_all(&*worker.port, 5, 1, None).await.unwrap(), body);
    worker.stop().await;
}

#[actix::test]
async fn an_overwrite_that_a_kill_interrupts_is_no_corruption() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let body = bytes_of(4, 4 * CHUNK);
    put(&*worker.port, 5, 1, body.clone()).await.unwrap();
    let patch = bytes_of(5, CHUNK);
    write(
        &*worker.port,
        5,
        2,
        CHUNK as u64 / 2,
        4 * CHUNK as u64,
        patch.clone(),
    )
    .await
    .unwrap();
    kill(worker);

    let mut worker = world.start(world.config()).await;
    let mut expected = body.to_vec();
    expected[CHUNK / 2..CHUNK / 2 + CHUNK].copy_from_slice(&patch);
    assert_eq!(read_all(&*worker.port, 5, 2, None).await.unwrap(), expected);
    assert_eq!(
        seal(&*worker.port, 5, 2, false).await.unwrap().len_bytes,
        4 * CHUNK as u64
    );
    assert_eq!(read_all(&*worker.port, 5, 2, None).await.unwrap(), expected);

    flip(&world.disk("d0"), 5, 3 * CHUNK);
    let corrupt = read(&*worker.port, 5, 2, 3 * CHUNK as u64 + 1, 10, None)
        .await
        .unwrap_err();
    assert_eq!(corrupt.kind, ErrorKind::Corrupt);
    assert!(
        corrupt.message.contains("block 5") && corrupt.message.contains("chunk 3"),
        "{corrupt}"
    );
    worker.stop().await;
}

#[actix::test]
async fn a_new_generation_cuts_what_a_truncation_hid() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    put(&*worker.port, 5, 1, bytes_of(1, 3 * CHUNK)).await.unwrap();
    // The namespace cut the file to 100 bytes; then somebody writes beyond.
    let written = write(&*worker.port, 5, 2, CHUNK as u64, 100, bytes_of(2, 10)).await;
    assert_eq!(written.unwrap().len_bytes, CHUNK as u64 + 10);
    seal(&*worker.port, 5, 2, false).await.unwrap();
    let mut expected = bytes_of(1, 3 * CHUNK)[..100].to_vec();
    expected.resize(CHUNK, 0);
    expected.extend_from_slice(&bytes_of(2, 10));
    assert_eq!(read_all(&*worker.port, 5, 2, None).await.unwrap(), expected);
    assert_eq!(in_files(&world, &worker).await, CHUNK as u64 + 4_096);
    let short = write(&*worker.port, 5, 3, 0, 1 << 20, bytes_of(2, 10)).await;
    assert_eq!(short.unwrap_err().kind, ErrorKind::Stale);
    worker.stop().await;
}

async fn status(worker: &crate::worker::WorkerHandle) -> curvine_protocol::cluster::DiskStatus {
    let status = call(&*worker.port, GetWorkerStatus {}, CallContext::default()).await;
    status.unwrap().disks.remove(0)
}

/// What counts for files of blocks: all that is used but the index.
async fn in_files(world: &World, worker: &crate::worker::WorkerHandle) -> u64 {
    let used_bytes = status(worker).await.used_bytes;
    used_bytes - index_bytes(world)
}

fn index_bytes(world: &World) -> u64 {
    let data = world.disk("d0").join("index/data.mdb");
    std::fs::metadata(data).unwrap().len()
}

#[actix::test]
async fn a_flipped_byte_is_never_served_and_the_replica_is_kept_aside() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    put(&*worker.port, 5, 1, bytes_of(1, 2 * CHUNK)).await.unwrap();
    world
        .until("it is reported", |master| master.held.contains_key(&BlockId(5)))
        .await;
    flip(&world.disk("d0"), 5, CHUNK + 3);
    assert_eq!(
        read(&*worker.port, 5, 1, 0, to_u32(CHUNK), None).await.unwrap(),
        bytes_of(1, 2 * CHUNK)[..CHUNK]
    );
    let granted = read(&*worker.port, 5, 1, 0, 1 << 20, None).await;
    assert_eq!(granted.unwrap_err().kind, ErrorKind::Corrupt);
    let looked = read(&*worker.port, 5, 1, CHUNK as u64 + 1, 10, None).await;
    assert_eq!(looked.unwrap_err().kind, ErrorKind::Corrupt);
    world
        .until("it is taken back", |master| {
            !master.held.contains_key(&BlockId(5))
        })
        .await;
    let aside = world.disk("d0/quarantine/0000000000000005-1");
    assert!(aside.exists());
    // Its other chunk may be right nowhere else.
    let of_aside = read(&*worker.port, 5, 1, 1, 10, None).await;
    assert_eq!(of_aside.unwrap(), bytes_of(1, 2 * CHUNK)[1..11]);
    let wrong = read(&*worker.port, 5, 1, CHUNK as u64 - 1, 2, None).await;
    assert_eq!(wrong.unwrap_err().kind, ErrorKind::Corrupt);
    for generation in [0, 2] {
        let other = read(&*worker.port, 5, generation, 0, 1, None).await;
        assert_eq!(other.unwrap_err().kind, ErrorKind::NotFound, "{generation}");
    }
    let is_told = |master: &MasterState| master.damaged.contains(&BlockId(5));
    world.until("it is told to be damaged", is_told).await;
    worker.stop().await;
    drop(worker);
    world.master.state.lock().unwrap().damaged.clear();
    let mut worker = world.start(world.config()).await;
    world.until("a full report says so, too", is_told).await;
    worker.stop().await;
    drop(worker);
    assert!(aside.exists(), "it may be all that is left");
    world.master.state.lock().unwrap().discard.insert(BlockId(5));
    let mut worker = world.start(world.config()).await;
    let sums = aside.with_extension("sums");
    until("what is no use goes", || !aside.exists() && !sums.exists()).await;
    worker.stop().await;
}

/// Looks often, and verifies nothing without being asked to.
fn on_demand(world: &World) -> crate::worker::WorkerConfig {
    let mut config = world.config();
    config.disk.tick = Duration::from_millis(10);
    config.disk.scrub_bytes_per_tick = 0;
    config
}

async fn scrub(worker: &crate::worker::WorkerHandle) {
    let start = Scrub { start: Some(1 << 30) };
    call(&*worker.port, start, CallContext::default()).await.unwrap();
}

#[actix::test]
async fn the_scrubber_finds_a_flipped_byte_that_nobody_reads() {
    let world = World::new();
    let mut config = on_demand(&world);
    let mut worker = world.start(config.clone()).await;
    for block in 1..=5 {
        put(&*worker.port, block, 1, bytes_of(block, 3 * CHUNK + 5))
            .await
            .unwrap();
    }
    // A block that is being written has no checksum to compare with.
    write(&*worker.port, 9, 1, 0, 0, bytes_of(9, 2 * CHUNK))
        .await
        .unwrap();
    worker.stop().await;
    drop(worker);
    flip(&world.disk("d0"), 4, 3 * CHUNK + 1);
    flip(&world.disk("d0"), 9, 1);
    // Less than a block each tick.
    config.disk.scrub_bytes_per_tick = 2 * CHUNK_BYTES;
    let mut worker = world.start(config).await;
    world
        .until("the rotten block is taken back", |master| {
            master.held.contains_key(&BlockId(5)) && !master.held.contains_key(&BlockId(4))
        })
        .await;
    assert!(world.disk("d0/quarantine/0000000000000004-1").exists());
    assert_eq!(
        read_all(&*worker.port, 4, 1, None).await.unwrap_err().kind,
        ErrorKind::Corrupt
    );
    for block in [1, 2, 3, 5] {
        assert_eq!(
            read_all(&*worker.port, block, 1, None).await.unwrap(),
            bytes_of(block, 3 * CHUNK + 5)
        );
    }
    assert_eq!(status(&worker).await.blocks, 5);
    worker.stop().await;
}

#[actix::test]
async fn a_file_that_somebody_removed_is_found_by_the_scrubber_and_by_readers() {
    let world = World::new();
    let config = on_demand(&world);
    let mut worker = world.start(config.clone()).await;
    for block in 1..=3 {
        put(&*worker.port, block, 1, bytes_of(block, 3 * CHUNK + 5))
            .await
            .unwrap();
    }
    let held = |block: u64| move |master: &MasterState| master.held.contains_key(&BlockId(block));
    let damaged = |block: u64| {
        move |master: &MasterState| {
            !master.held.contains_key(&BlockId(block)) && master.damaged.contains(&BlockId(block))
        }
    };
    world.until("they are reported", held(3)).await;
    // The worker has it open, and would read on.
    read_all(&*worker.port, 2, 1, None).await.unwrap();
    std::fs::remove_file(block_file(&world.disk("d0"), 2)).unwrap();
    let used_bytes = in_files(&world, &worker).await;
    scrub(&worker).await;
    world.until("the scrubber finds it", damaged(2)).await;
    assert!(in_files(&world, &worker).await < used_bytes);
    worker.stop().await;
    drop(worker);
    world.master.state.lock().unwrap().held.clear();
    let mut worker = world.start(config).await;
    world.until("the rest is reported", held(3)).await;
    // It has nothing open yet.
    std::fs::remove_file(block_file(&world.disk("d0"), 3)).unwrap();
    let gone = read_all(&*worker.port, 3, 1, None).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::Corrupt);
    assert!(gone.message.contains("is not there"), "{gone}");
    world.until("the reader finds it", damaged(3)).await;
    assert_eq!(
        read_all(&*worker.port, 1, 1, None).await.unwrap(),
        bytes_of(1, 3 * CHUNK + 5)
    );
    assert_eq!(status(&worker).await.blocks, 1);
    worker.stop().await;
}

#[actix::test]
async fn a_file_that_somebody_cut_is_taken_out_of_use_by_readers_and_by_the_scrubber() {
    let world = World::new();
    let config = on_demand(&world);
    let mut worker = world.start(config).await;
    for block in 1..=3 {
        put(&*worker.port, block, 1, bytes_of(block, 3 * CHUNK))
            .await
            .unwrap();
    }
    world
        .until("they are reported", |master| {
            master.held.contains_key(&BlockId(3))
        })
        .await;
    for block in [1, 2] {
        let file = std::fs::File::options()
            .write(true)
            .open(block_file(&world.disk("d0"), block));
        file.unwrap().set_len(CHUNK as u64 + 9).unwrap();
    }
    let granted = read(&*worker.port, 1, 1, 0, 1 << 20, None).await.unwrap_err();
    assert_eq!(granted.kind, ErrorKind::Corrupt);
    assert!(granted.message.contains("shorter"), "{granted}");
    scrub(&worker).await;
    for block in [1, 2] {
        world
            .until("it is told to be damaged", |master| {
                !master.held.contains_key(&BlockId(block)) && master.damaged.contains(&BlockId(block))
            })
            .await;
        let aside = world.disk(&format!("d0/quarantine/{block:016x}-1"));
        assert!(aside.exists(), "what is left of it");
    }
    assert_eq!(
        read_all(&*worker.port, 3, 1, None).await.unwrap(),
        bytes_of(3, 3 * CHUNK)
    );
    worker.stop().await;
}

#[actix::test]
async fn a_full_disk_refuses_the_block_and_serves_the_others() {
    let world = World::new();
    let config = world.config_of(&[("d0", Tier::Ssd, 500_000)]);
    let mut worker = world.start(config).await;
    put(&*worker.port, 1, 1, bytes_of(1, 300_000)).await.unwrap();
    let full = put(&*worker.port, 2, 1, bytes_of(2, 200_000)).await;
    assert_eq!(full.unwrap_err().kind, ErrorKind::NoSpace);
    let full = write(&*worker.port, 3, 1, 0, 0, bytes_of(2, 200_000)).await;
    assert_eq!(full.unwrap_err().kind, ErrorKind::NoSpace);
    assert_eq!(
        read_all(&*worker.port, 1, 1, None).await.unwrap(),
        bytes_of(1, 300_000)
    );
    let delete = DeleteBlocks {
        blocks: vec![BlockId(1), BlockId(99)],
    };
    call(&*worker.port, delete, CallContext::default()).await.unwrap();
    put(&*worker.port, 2, 1, bytes_of(2, 200_000)).await.unwrap();
    assert_eq!(
        (in_files(&world, &worker).await, status(&worker).await.blocks),
        (49 * 4_096, 1)
    );
    worker.stop().await;
}

#[actix::test]
async fn a_block_that_comes_again_before_its_commit_counts_once() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let blocks = 1..=50;
    // Small ones are in the index, the others have files.
    let body = |block| bytes_of(block, if block % 2 == 0 { 1_000 } else { 20_000 });
    let puts = blocks.clone().flat_map(|block| [block; 4]);
    let puts = puts.map(|block| put(&*worker.port, block, 1, body(block)));
    for stored in futures::future::join_all(puts).await {
        stored.unwrap();
    }
    let held = status(&worker).await.blocks;
    assert_eq!((in_files(&world, &worker).await, held), (25 * 5 * 4_096, 50));
    let blocks = blocks.map(BlockId).collect();
    call(&*worker.port, DeleteBlocks { blocks }, CallContext::default())
        .await
        .unwrap();
    let held = status(&worker).await.blocks;
    assert_eq!((in_files(&world, &worker).await, held), (0, 0));
    worker.stop().await;
}

#[actix::test]
async fn a_reader_keeps_what_it_was_granted_when_the_block_goes() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let body = bytes_of(1, CHUNK);
    put(&*worker.port, 1, 1, body.clone()).await.unwrap();
    let ask = curvine_protocol::worker::ReadBlock {
        block: BlockId(1),
        generation: 1,
        offset_bytes: 0,
        len_bytes: to_u32(CHUNK),
        fill: None,
        exact: false,
        tier: Wish::UNSAID,
    };
    let Grant::Ready(answer) = worker.disks.all()[0].store.grant(&ask).unwrap() else {
        panic!("a sealed block is granted");
    };
    assert!(matches!(answer.body, Body::File(_)));
    let delete = DeleteBlocks {
        blocks: vec![BlockId(1)],
    };
    call(&*worker.port, delete, CallContext::default()).await.unwrap();
    assert!(!block_file(&world.disk("d0"), 1).exists());
    assert_eq!(answer.body.read().unwrap(), body);
    worker.stop().await;
}

#[actix::test]
async fn a_restart_keeps_blocks_and_drops_what_has_no_record_or_no_file() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    for block in 1..=20 {
        put(&*worker.port, block, 1, bytes_of(block, 20_000))
            .await
            .unwrap();
    }
    kill(worker);
    let disk = world.disk("d0");
    std::fs::remove_file(block_file(&disk, 3)).unwrap();
    std::fs::write(block_file(&disk, 77), b"garbage").unwrap();
    std::fs::write(disk.join("blocks/00/nonsense"), b"garbage").unwrap();

    let mut worker = world.start(world.config()).await;
    for block in (1..=20).filter(|&block| block != 3) {
        assert_eq!(
            read_all(&*worker.port, block, 1, None).await.unwrap(),
            bytes_of(block, 20_000)
        );
    }
    assert_eq!(
        read(&*worker.port, 3, 1, 0, 1, None).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert!(!block_file(&disk, 77).exists() && !disk.join("blocks/00/nonsense").exists());
    let expected: HashMap<_, _> = (1..=20)
        .filter(|&block| block != 3)
        .map(|block| (BlockId(block), (1, 20_000)))
        .collect();
    world
        .until("the full report", |master| master.held == expected)
        .await;
    worker.stop().await;
}

#[actix::test]
async fn new_blocks_go_to_the_fastest_disk_with_room() {
    let world = World::new();
    let config = world.config_of(&[("ssd", Tier::Ssd, 500_000), ("hdd", Tier::Hdd, 1 << 30)]);
    let mut worker = world.start(config).await;
    for block in 1..=3 {
        put(&*worker.port, block, 1, bytes_of(block, 170_000))
            .await
            .unwrap();
    }
    let places: Vec<_> = (1..=3)
        .map(|block| block_file(&world.disk("ssd"), block).exists())
        .collect();
    assert_eq!(places, [true, true, false]);
    assert_eq!(
        read_all(&*worker.port, 3, 1, None).await.unwrap(),
        bytes_of(3, 170_000)
    );
    worker.stop().await;
}

#[actix::test]
async fn a_small_block_has_no_file_and_is_a_block_like_any_other() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let disk = world.disk("d0");
    let body = bytes_of(1, 5_000);
    put(&*worker.port, 7, 1, body.clone()).await.unwrap();
    put(&*worker.port, 8, 1, bytes_of(2, 0)).await.unwrap();
    assert!(!block_file(&disk, 7).exists());
    assert_eq!(seal(&*worker.port, 7, 1, true).await.unwrap().len_bytes, 5_000);
    kill(worker);

    let mut worker = world.start(world.config()).await;
    let held = status(&worker).await.blocks;
    assert_eq!((in_files(&world, &worker).await, held), (0, 2));
    assert_eq!(read_all(&*worker.port, 7, 1, None).await.unwrap(), body);
    assert_eq!(read_all(&*worker.port, 8, 1, None).await.unwrap().len(), 0);
    assert_eq!(
        read(&*worker.port, 7, 1, 4_000, 5_000, None).await.unwrap(),
        body[4_000..]
    );
    // A newer generation, shorter; then it goes.
    put(&*worker.port, 7, 2, bytes_of(3, 10)).await.unwrap();
    assert_eq!(
        read_all(&*worker.port, 7, 2, None).await.unwrap(),
        bytes_of(3, 10)
    );
    assert_eq!(status(&worker).await.blocks, 2);
    let delete = DeleteBlocks {
        blocks: vec![BlockId(7)],
    };
    call(&*worker.port, delete, CallContext::default()).await.unwrap();
    assert_eq!(
        read(&*worker.port, 7, 2, 0, 1, None).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    let held = status(&worker).await.blocks;
    assert_eq!((in_files(&world, &worker).await, held), (0, 1));
    worker.stop().await;
}

#[actix::test]
async fn small_blocks_take_no_more_than_the_disk_may_and_their_space_comes_back() {
    const CAPACITY: u64 = 4 << 20;
    const UNSYNCED_MAX: u64 = 64 << 10;
    /// What an index without a block may have when nothing goes on.
    const QUIET_MAX: u64 = 300 << 10;
    let world = World::new();
    let mut config = world.config_of(&[("d0", Tier::Ssd, CAPACITY)]);
    config.disk.tick = Duration::from_millis(20);
    let mut worker = world.start(config).await;
    let mut blocks = Vec::new();
    let refused = loop {
        let block = blocks.len() as u64 + 1;
        match put(&*worker.port, block, 1, bytes_of(block, 1_000)).await {
            Ok(_) => blocks.push(BlockId(block)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind, ErrorKind::NoSpace, "{refused}");
    let d0 = world.disk("d0");
    let files = (blocks.iter()).filter(|block| block_file(&d0, block.0).exists());
    let (files, index) = (files.count() as u64, index_bytes(&world));
    assert!(
        index + files * 4_096 <= CAPACITY + 2 * UNSYNCED_MAX,
        "{} blocks, {files} of them files, and an index of {index} bytes",
        blocks.len()
    );
    assert!(files > 0 && blocks.len() as u64 > files, "some are in the index");

    call(&*worker.port, DeleteBlocks { blocks }, CallContext::default())
        .await
        .unwrap();
    let emptied = async || {
        let held = status(&worker).await;
        (held.used_bytes <= QUIET_MAX && index_bytes(&world) == held.used_bytes).then_some(held.blocks)
    };
    assert_eq!(until_some("the space comes back", emptied).await, 0);
    put(&*worker.port, 1, 2, bytes_of(1, 3_500_000)).await.unwrap();
    worker.stop().await;
}

#[actix::test]
async fn a_small_block_that_grows_gets_a_file_and_loses_nothing_on_the_way() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let disk = world.disk("d0");
    let body = bytes_of(1, 5_000);
    put(&*worker.port, 7, 1, body.clone()).await.unwrap();
    put(&*worker.port, 8, 1, body.clone()).await.unwrap();
    let more = bytes_of(2, 100_000);
    write(&*worker.port, 7, 2, 4_000, 5_000, more.clone())
        .await
        .unwrap();
    assert!(block_file(&disk, 7).exists());
    let grown = [&body[..4_000], &more[..]].concat();
    assert_eq!(read_all(&*worker.port, 7, 2, None).await.unwrap(), grown);
    // Whole, and no longer small.
    put(&*worker.port, 8, 2, more.clone()).await.unwrap();
    kill(worker);

    let mut worker = world.start(world.config()).await;
    assert_eq!(read_all(&*worker.port, 7, 2, None).await.unwrap(), grown);
    assert_eq!(seal(&*worker.port, 7, 2, true).await.unwrap().len_bytes, 104_000);
    assert_eq!(read_all(&*worker.port, 7, 2, None).await.unwrap(), grown);
    assert_eq!(read_all(&*worker.port, 8, 2, None).await.unwrap(), more);
    assert_eq!(in_files(&world, &worker).await, (26 + 25) * 4_096);
    worker.stop().await;
}

/// A writer that dies, or has nothing more to say, leaves no bytes without checksums.
#[actix::test]
async fn a_block_that_is_left_open_gets_its_checksums_also_after_a_restart() {
    let world = World::new();
    let config = || {
        let mut config = world.config();
        config.disk.tick = Duration::from_millis(5);
        config
    };
    let len_bytes = 2 * CHUNK as u64;
    let has_sums = |block: u64| {
        world.until("the block is sealed", move |master| {
            master.held.get(&BlockId(block)) == Some(&(1, len_bytes))
        })
    };
    let worker = world.start(config()).await;
    for block in [3, 4] {
        write(&*worker.port, block, 1, 0, 0, bytes_of(block, 2 * CHUNK))
            .await
            .unwrap();
        has_sums(block).await;
    }
    // Its writer goes on as if nothing had been.
    write(&*worker.port, 4, 1, CHUNK as u64 - 5, 0, bytes_of(9, 10))
        .await
        .unwrap();
    let mut rewritten = bytes_of(4, 2 * CHUNK).to_vec();
    rewritten[CHUNK - 5..CHUNK + 5].copy_from_slice(&bytes_of(9, 10));
    assert_eq!(read_all(&*worker.port, 4, 1, None).await.unwrap(), rewritten);
    flip(&world.disk("d0"), 3, CHUNK + 1);
    let rotten = read_all(&*worker.port, 3, 1, None).await;
    assert_eq!(rotten.unwrap_err().kind, ErrorKind::Corrupt);

    write(&*worker.port, 5, 1, 0, 0, bytes_of(5, 2 * CHUNK))
        .await
        .unwrap();
    kill(worker);
    world.master.state.lock().unwrap().held.clear();
    let mut worker = world.start(config()).await;
    has_sums(5).await;
    assert_eq!(
        read_all(&*worker.port, 5, 1, None).await.unwrap(),
        bytes_of(5, 2 * CHUNK)
    );
    assert_eq!(read_all(&*worker.port, 4, 1, None).await.unwrap(), rewritten);
    flip(&world.disk("d0"), 5, 1);
    let rotten = read_all(&*worker.port, 5, 1, None).await;
    assert_eq!(rotten.unwrap_err().kind, ErrorKind::Corrupt);
    worker.stop().await;
}
