//! A worker with several tiers: what is hot goes up, what is cold goes down, and what is kept is never in memory alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::cluster::Tier;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{ExplainBlocks, MarkBlocks, MarkedBlock, ReadBlock, Wish};
use curvine_protocol::{BlockId, CallContext, ErrorKind, InodeId};

use super::objects::*;
use super::world::*;
use crate::kit::call;
use crate::kit::until::until_some;
use crate::worker::WorkerHandle;

const MIB: u64 = 1 << 20;

fn has_file(world: &World, disk: &str, block: u64) -> bool {
    block_file(&world.disk(disk), block).exists()
}

/// The tier a block is in, and that of its copy.
async fn tiers_of(worker: &WorkerHandle, block: u64) -> Option<(Tier, Option<Tier>)> {
    let explain = ExplainBlocks {
        blocks: vec![BlockId(block)],
    };
    let explained = call(&*worker.port, explain, CallContext::default())
        .await
        .unwrap();
    let held = explained.blocks[0].held.as_ref()?;
    Some((held.tier, held.copy))
}

/// Reads a block until it is where it should be: one that is read again and again is hot.
async fn read_until(worker: &WorkerHandle, block: u64, is_there: (Tier, Option<Tier>), content: &Bytes) {
    until_some("it is where hot blocks are", async || {
        let read = read_all(&*worker.port, block, 1, None).await.unwrap();
        assert_eq!(read, content);
        (tiers_of(worker, block).await == Some(is_there)).then_some(())
    })
    .await;
}

async fn mark(worker: &WorkerHandle, block: u64, cached: bool) -> bool {
    let marks = MarkBlocks {
        blocks: vec![MarkedBlock {
            block: BlockId(block),
            generation: 1,
            mount: None,
        }],
        cached,
        number: 1,
    };
    let marked = call(&*worker.port, marks, CallContext::default()).await;
    marked.unwrap().marked[0]
}

#[actix::test]
async fn what_is_written_is_not_in_memory_alone_and_memory_alone_takes_nothing() {
    let world = World::new();
    let disks = [("mem", Tier::Mem, 64 * MIB), ("hdd", Tier::Hdd, 1 << 30)];
    let mut worker = world.start(world.config_of(&disks)).await;
    let content = bytes_of(1, 300_000);
    put(&*worker.port, 1, 1, content.clone()).await.unwrap();
    assert_eq!(tiers_of(&worker, 1).await, Some((Tier::Hdd, None)));
    // Read again and again, it has a copy in memory.
    read_until(&worker, 1, (Tier::Hdd, Some(Tier::Mem)), &content).await;
    assert!(has_file(&world, "mem", 1) && has_file(&world, "hdd", 1));
    // Which goes before it is written.
    let more = bytes_of(2, 70_000);
    write(&*worker.port, 1, 2, 10_000, 300_000, more.clone())
        .await
        .unwrap();
    assert!(!has_file(&world, "mem", 1));
    seal(&*worker.port, 1, 2, true).await.unwrap();
    let mut expected = content.to_vec();
    expected[10_000..80_000].copy_from_slice(&more);
    assert_eq!(read_all(&*worker.port, 1, 2, None).await.unwrap(), expected);
    worker.stop().await;

    let world = World::new();
    let mut worker = world
        .start(world.config_of(&[("mem", Tier::Mem, 64 * MIB)]))
        .await;
    let refused = put(&*worker.port, 1, 1, content).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoSpace);
    assert!(
        refused.message.contains("nothing but memory"),
        "{}",
        refused.message
    );
    worker.stop().await;
}

#[actix::test]
async fn copies_in_memory_outlive_a_restart_and_go_with_what_they_are_copies_of() {
    let world = World::new();
    let disks = [("mem", Tier::Mem, 64 * MIB), ("ssd", Tier::Ssd, 1 << 30)];
    let worker = world.start(world.config_of(&disks)).await;
    let content = bytes_of(1, 300_000);
    put(&*worker.port, 1, 1, content.clone()).await.unwrap();
    put(&*worker.port, 2, 1, content.clone()).await.unwrap();
    for block in [1, 2] {
        read_until(&worker, block, (Tier::Ssd, Some(Tier::Mem)), &content).await;
    }
    kill(worker);
    let mut worker = world.start(world.config_of(&disks)).await;
    assert_eq!(tiers_of(&worker, 1).await, Some((Tier::Ssd, Some(Tier::Mem))));
    assert_eq!(read_all(&*worker.port, 1, 1, None).await.unwrap(), content);
    world.until("the report", |master| master.held.len() == 2).await;
    let delete = curvine_protocol::worker::DeleteBlocks {
        blocks: vec![BlockId(1)],
    };
    call(&*worker.port, delete, CallContext::default()).await.unwrap();
    assert_eq!(tiers_of(&worker, 1).await, None);
    assert!(!has_file(&world, "mem", 1) && !has_file(&world, "ssd", 1));
    worker.stop().await;
    drop(worker);

    // The block is changed while memory is away, as after a reboot that spares a copy of it.
    let mut worker = world.start(world.config_of(&disks[1..])).await;
    put(&*worker.port, 2, 2, bytes_of(9, 300_000)).await.unwrap();
    worker.stop().await;
    drop(worker);
    let mut worker = world.start(world.config_of(&disks)).await;
    assert_eq!(tiers_of(&worker, 2).await, Some((Tier::Ssd, None)));
    assert_eq!(
        read_all(&*worker.port, 2, 2, None).await.unwrap(),
        bytes_of(9, 300_000)
    );
    worker.stop().await;
}

/// A worker with tiers, and an object of blocks of 1 MiB from 100 on: inode 10.
struct Tiered {
    world: World,
    objects: Arc<Objects>,
    content: Bytes,
    worker: WorkerHandle,
}

impl Tiered {
    async fn start(blocks: u64, disks: &[(&str, Tier, u64)]) -> Self {
        let objects = Objects::open();
        let world = World {
            sources: Arc::new(Opener(objects.clone())),
            ..World::new()
        };
        let content = bytes_of(3, to_usize(blocks * MIB));
        let version = objects.put("a/b", "v1", content.clone());
        let layout = layout(10, "a/b", &version, MIB, 100);
        let master = world.master.clone();
        master.state.lock().unwrap().files.insert(InodeId(10), layout);
        let worker = world.start(world.config_of(disks)).await;
        Tiered {
            world,
            objects,
            content,
            worker,
        }
    }

    fn of_block(&self, block: u64) -> Bytes {
        let start = to_usize(block * MIB);
        self.content.slice(start..start + to_usize(MIB))
    }

    async fn reads(&self, block: u64) {
        let fill = fill(10, u32::try_from(block).unwrap());
        let bytes = read_all(&*self.worker.port, 100 + block, 1, fill).await;
        assert_eq!(bytes.unwrap(), self.of_block(block), "block {block}");
    }
}

#[actix::test]
async fn what_is_cold_sinks_and_is_not_fetched_again() {
    let disks = [("mem", Tier::Mem, 8 * MIB), ("ssd", Tier::Ssd, 64 * MIB)];
    let mut tiered = Tiered::start(20, &disks).await;
    for block in 0..20 {
        tiered.reads(block).await;
    }
    let fetched = tiered.objects.bytes_read();
    until_some("memory is below its watermark", async || {
        let in_memory = (100..120)
            .filter(|block| has_file(&tiered.world, "mem", *block))
            .count();
        let in_all = (100..120)
            .filter(|block| has_file(&tiered.world, "mem", *block) || has_file(&tiered.world, "ssd", *block))
            .count();
        assert_eq!(in_all, 20, "nothing went for good");
        (in_memory <= 7).then_some(())
    })
    .await;
    for block in 0..20 {
        tiered.reads(block).await;
    }
    assert_eq!(tiered.objects.bytes_read(), fetched, "all of it is here");
    tiered.worker.stop().await;
}

#[actix::test]
async fn what_is_cached_in_memory_leaves_it_before_it_is_written_or_kept() {
    let disks = [("mem", Tier::Mem, 32 * MIB), ("ssd", Tier::Ssd, 64 * MIB)];
    let mut tiered = Tiered::start(2, &disks).await;
    for block in 0..2 {
        tiered.reads(block).await;
        assert_eq!(
            tiers_of(&tiered.worker, 100 + block).await,
            Some((Tier::Mem, None))
        );
    }
    let port = &*tiered.worker.port;
    write(port, 100, 2, 5, MIB, bytes_of(9, 100)).await.unwrap();
    seal(port, 100, 2, true).await.unwrap();
    assert!(mark(&tiered.worker, 101, false).await);
    for block in [100, 101] {
        assert_eq!(tiers_of(&tiered.worker, block).await, Some((Tier::Ssd, None)));
        assert!(!has_file(&tiered.world, "mem", block));
    }
    let mut expected = tiered.of_block(0).to_vec();
    expected[5..105].copy_from_slice(&bytes_of(9, 100));
    assert_eq!(read_all(port, 100, 2, None).await.unwrap(), expected);
    assert_eq!(read_all(port, 101, 1, None).await.unwrap(), tiered.of_block(1));
    // And where there is nothing but memory, it is not kept.
    tiered.worker.stop().await;
    let mut tiered = Tiered::start(1, &disks[..1]).await;
    tiered.reads(0).await;
    let port = &*tiered.worker.port;
    let refused = write(port, 100, 2, 5, MIB, bytes_of(9, 100)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoSpace);
    tiered.reads(0).await;
    tiered.worker.stop().await;
}

#[actix::test]
async fn readers_and_writers_never_notice_that_blocks_move() {
    const BLOCKS: u64 = 6;
    let world = World::new();
    let disks = [
        ("mem", Tier::Mem, 3 * MIB),
        ("ssd", Tier::Ssd, 4 * MIB),
        ("hdd", Tier::Hdd, 64 * MIB),
    ];
    let mut config = world.config_of(&disks);
    config.disk.tick = Duration::from_millis(5);
    let mut worker = world.start(config).await;
    let len = to_usize(MIB / 2);
    for block in 1..=BLOCKS {
        put(&*worker.port, block, 1, bytes_of(block, len)).await.unwrap();
    }
    // Each block is written by one and read by two, who find what was sealed last, or is about to be.
    let mut turns = Vec::new();
    for block in 1..=BLOCKS {
        let port = worker.port.clone();
        turns.push(async move {
            let mut generation = 1;
            while generation < 6 {
                for _ in 0..20 {
                    let read = read_all(&*port, block, generation, None).await.unwrap();
                    assert_eq!(read, bytes_of(block + u64::from(generation - 1) * 100, len));
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
                generation += 1;
                let fresh = bytes_of(block + u64::from(generation - 1) * 100, len);
                write(&*port, block, generation, 0, MIB / 2, fresh).await.unwrap();
                seal(&*port, block, generation, generation % 2 == 0)
                    .await
                    .unwrap();
            }
        });
    }
    futures::future::join_all(turns).await;
    let moved = crate::kit::metrics::MOVED_BLOCKS.value(0);
    assert!(moved > 0, "{moved} blocks were moved");
    worker.stop().await;
}

/// Reads the first block as one who wishes it to be somewhere, until it is there.
async fn read_wishing(tiered: &Tiered, tier: Option<Tier>, is_there: (Tier, Option<Tier>)) {
    until_some("it is where it is wished to be", async || {
        let call = ReadBlock {
            block: BlockId(100),
            generation: 1,
            offset_bytes: 0,
            len_bytes: 4_096,
            fill: fill(10, 0),
            exact: false,
            tier: Wish::of(tier),
        };
        call_worker(&tiered.worker, call).await;
        (tiers_of(&tiered.worker, 100).await == Some(is_there)).then_some(())
    })
    .await;
}

async fn call_worker(worker: &WorkerHandle, read: ReadBlock) {
    call(&*worker.port, read, CallContext::default()).await.unwrap();
}

#[actix::test]
async fn blocks_go_where_they_are_wished_to_be_and_stay_there() {
    let disks = [
        ("mem", Tier::Mem, 32 * MIB),
        ("ssd", Tier::Ssd, 64 * MIB),
        ("hdd", Tier::Hdd, 64 * MIB),
    ];
    let mut tiered = Tiered::start(1, &disks).await;
    // Fetched to where it is wished, then elsewhere; not up for being read often.
    read_wishing(&tiered, Some(Tier::Ssd), (Tier::Ssd, None)).await;
    assert!(!has_file(&tiered.world, "mem", 100));
    read_wishing(&tiered, Some(Tier::Hdd), (Tier::Hdd, None)).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        read_wishing(&tiered, Some(Tier::Hdd), (Tier::Hdd, None)).await;
    }
    // Whoever does not know takes nothing back; any tier is as without a rule: hot blocks go up.
    tiered.reads(0).await;
    let explain = ExplainBlocks {
        blocks: vec![BlockId(100)],
    };
    let explained = call(&*tiered.worker.port, explain, CallContext::default())
        .await
        .unwrap();
    let held = explained.blocks[0].held.as_ref().unwrap();
    assert_eq!((held.tier, held.wished), (Tier::Hdd, Some(Tier::Hdd)));
    read_wishing(&tiered, None, (Tier::Mem, None)).await;
    tiered.worker.stop().await;
}

#[actix::test]
async fn what_comes_at_once_and_does_not_fit_into_memory_goes_to_the_next_tier() {
    let disks = [("mem", Tier::Mem, 4 * MIB), ("ssd", Tier::Ssd, 64 * MIB)];
    let mut tiered = Tiered::start(12, &disks).await;
    let reads = (0..12).map(|block| tiered.reads(block));
    futures::future::join_all(reads).await;
    let fetched = tiered.objects.bytes_read();
    let reads = (0..12).map(|block| tiered.reads(block));
    futures::future::join_all(reads).await;
    assert_eq!(tiered.objects.bytes_read(), fetched, "nothing had to go");
    tiered.worker.stop().await;
}

#[actix::test]
async fn of_two_blocks_the_later_one_counts_whatever_directory_was_left_out_for_a_while() {
    let world = World::new();
    let (ssd, hdd) = (("ssd", Tier::Ssd, 64 * MIB), ("hdd", Tier::Hdd, 64 * MIB));
    let mut worker = world.start(world.config_of(&[ssd, hdd])).await;
    put(&*worker.port, 1, 1, bytes_of(1, 300_000)).await.unwrap();
    put(&*worker.port, 2, 7, bytes_of(2, 300_000)).await.unwrap();
    worker.stop().await;
    drop(worker);
    // Made anew elsewhere meanwhile, the one in a later generation and the other in an earlier one.
    let mut worker = world.start(world.config_of(&[hdd])).await;
    put(&*worker.port, 1, 2, bytes_of(11, 300_000)).await.unwrap();
    put(&*worker.port, 2, 6, bytes_of(12, 300_000)).await.unwrap();
    worker.stop().await;
    drop(worker);
    for order in [[ssd, hdd], [hdd, ssd]] {
        let mut worker = world.start(world.config_of(&order)).await;
        assert_eq!(tiers_of(&worker, 1).await, Some((Tier::Hdd, None)));
        assert_eq!(tiers_of(&worker, 2).await, Some((Tier::Ssd, None)));
        assert!(!has_file(&world, "ssd", 1) && !has_file(&world, "hdd", 2));
        for (block, generation, seed) in [(1, 2, 11), (2, 7, 2)] {
            let read = read_all(&*worker.port, block, generation, None).await.unwrap();
            assert_eq!(read, bytes_of(seed, 300_000));
        }
        worker.stop().await;
        drop(worker);
    }
}

#[actix::test]
async fn what_rots_on_a_disk_is_made_good_from_its_copy_in_memory() {
    let world = World::new();
    let disks = [("mem", Tier::Mem, 64 * MIB), ("ssd", Tier::Ssd, 64 * MIB)];
    let mut config = world.config_of(&disks);
    config.disk.tick = Duration::from_millis(50);
    let mut worker = world.start(config).await;
    let content = bytes_of(1, 300_000);
    for block in [1, 2] {
        put(&*worker.port, block, 1, content.clone()).await.unwrap();
        read_until(&worker, block, (Tier::Ssd, Some(Tier::Mem)), &content).await;
        let mut rotten = content.to_vec();
        rotten[123_456] ^= 1;
        std::fs::write(block_file(&world.disk("ssd"), block), rotten).unwrap();
    }
    // The one is scrubbed, the other written.
    let scrub = curvine_protocol::worker::Scrub { start: Some(1 << 30) };
    call(&*worker.port, scrub, CallContext::default()).await.unwrap();
    write(&*worker.port, 2, 2, 123_450, 300_000, bytes_of(9, 20))
        .await
        .unwrap();
    seal(&*worker.port, 2, 2, true).await.unwrap();
    let mut expected = content.to_vec();
    expected[123_450..123_470].copy_from_slice(&bytes_of(9, 20));
    assert_eq!(read_all(&*worker.port, 2, 2, None).await.unwrap(), expected);
    until_some("it is made good", async || {
        assert_eq!(read_all(&*worker.port, 1, 1, None).await.unwrap(), content);
        let on_disk = std::fs::read(block_file(&world.disk("ssd"), 1)).unwrap_or_default();
        (on_disk == content
            && tiers_of(&worker, 1)
                .await
                .is_some_and(|(tier, _)| tier == Tier::Ssd))
        .then_some(())
    })
    .await;
    worker.stop().await;
}

#[actix::test]
async fn several_writes_at_once_have_a_block_leave_memory_once() {
    let disks = [("mem", Tier::Mem, 64 * MIB), ("ssd", Tier::Ssd, 64 * MIB)];
    let mut tiered = Tiered::start(4, &disks).await;
    for block in 0..4 {
        tiered.reads(block).await;
        let port = &*tiered.worker.port;
        let writes =
            (0..8u64).map(|part| write(port, 100 + block, 2, part * 1_000, MIB, bytes_of(part, 500)));
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
        seal(port, 100 + block, 2, false).await.unwrap();
    }
    tiered.worker.stop().await;
}

#[actix::test]
async fn a_block_that_has_no_room_to_grow_goes_on_where_there_is_some() {
    let world = World::new();
    let disks = [("ssd", Tier::Ssd, 1_400_000), ("hdd", Tier::Hdd, 64 * MIB)];
    let mut worker = world.start(world.config_of(&disks)).await;
    let (first, more) = (bytes_of(1, 1_200_000), bytes_of(2, 1_000_000));
    put(&*worker.port, 1, 1, first.clone()).await.unwrap();
    assert_eq!(tiers_of(&worker, 1).await, Some((Tier::Ssd, None)));
    // Of a long write, several pieces come at once.
    let pieces = (0..5u64).map(|piece| {
        let start = to_usize(piece) * 200_000;
        let bytes = more.slice(start..start + 200_000);
        write(&*worker.port, 1, 2, 1_200_000 + piece * 200_000, 1_200_000, bytes)
    });
    for written in futures::future::join_all(pieces).await {
        written.unwrap();
    }
    seal(&*worker.port, 1, 2, true).await.unwrap();
    assert_eq!(tiers_of(&worker, 1).await, Some((Tier::Hdd, None)));
    assert_eq!(
        read_all(&*worker.port, 1, 2, None).await.unwrap(),
        [first, more].concat()
    );
    worker.stop().await;
}
