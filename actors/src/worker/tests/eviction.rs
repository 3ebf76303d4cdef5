//! Cached blocks go when something else needs the room, and no others do.

use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::cluster::{DiskStatus, Tier};
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    BlockData, Fill, GetWorkerStatus, MarkBlocks, MarkedBlock, ReadBlock, Wish, WriteOrder,
};
use curvine_protocol::{BlockId, CallContext, ErrorKind, InodeId, JobId, UfsVersion};

use super::objects::*;
use super::world::*;
use crate::kit::{Ask, Body, Endpoint, call};
use crate::worker::{WorkerConfig, WorkerHandle};

pub(super) const MIB: u64 = 1 << 20;
const ROOM: u64 = 16 * MIB;
/// Blocks of the object: more than there is room for.
pub(super) const BLOCKS: u64 = 24;
/// Blocks that fit besides the index.
const FITTING: u64 = 15;

fn of_object(block: u64) -> Option<Fill> {
    fill(10, u32::try_from(block).unwrap())
}

/// A worker with little room, and an object that does not fit: inode 10, blocks of 1 MiB from 100 on.
pub(super) struct Little {
    pub(super) world: World,
    objects: Arc<Objects>,
    content: Bytes,
    version: UfsVersion,
    pub(super) worker: WorkerHandle,
}

fn config(world: &World) -> WorkerConfig {
    world.config_of(&[("d0", Tier::Ssd, ROOM)])
}

impl Little {
    pub(super) async fn start() -> Self {
        let objects = Objects::open();
        let world = World {
            sources: Arc::new(Opener(objects.clone())),
            ..World::new()
        };
        let content = bytes_of(3, to_usize(BLOCKS * MIB));
        let version = objects.put("a/b", "v1", content.clone());
        let layout = layout(10, "a/b", &version, MIB, 100);
        world
            .master
            .state
            .lock()
            .unwrap()
            .files
            .insert(InodeId(10), layout);
        let worker = world.start(config(&world)).await;
        Little {
            world,
            objects,
            content,
            version,
            worker,
        }
    }

    /// Reads a block of the object as whoever knows that it can be fetched.
    pub(super) async fn reads(&self, block: u64) {
        let start = to_usize(block * MIB);
        let bytes = read_all(&*self.worker.port, 100 + block, 1, of_object(block)).await;
        assert_eq!(
            bytes.unwrap(),
            self.content[start..start + to_usize(MIB)],
            "block {block}"
        );
    }

    /// Whether a block of the object is here.
    pub(super) async fn has(&self, block: u64) -> bool {
        match read(&*self.worker.port, 100 + block, 1, 0, 10, None).await {
            Ok(_) => true,
            Err(error) if error.kind == ErrorKind::NotFound => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn disk(&self) -> DiskStatus {
        let status = call(&*self.worker.port, GetWorkerStatus {}, CallContext::default());
        status.await.unwrap().disks.remove(0)
    }

    pub(super) async fn marks(&self, block: u64, generation: u32, cached: bool, number: u64) -> bool {
        let mark = MarkBlocks {
            blocks: vec![MarkedBlock {
                block: BlockId(block),
                generation,
                mount: None,
            }],
            cached,
            number,
        };
        let marked = call(&*self.worker.port, mark, CallContext::default()).await;
        marked.unwrap().marked[0]
    }

    /// Reads all of the object, which has everything go that may.
    pub(super) async fn reads_everything(&self) {
        for block in 0..BLOCKS {
            self.reads(block).await;
        }
    }

    pub(super) async fn restart(self) -> Self {
        let Little {
            world,
            objects,
            content,
            version,
            mut worker,
        } = self;
        worker.stop().await;
        drop(worker);
        let worker = world.start(config(&world)).await;
        Little {
            world,
            objects,
            content,
            version,
            worker,
        }
    }
}

#[actix::test]
async fn data_that_does_not_fit_is_read_over_and_over_and_a_part_of_it_stays() {
    let mut little = Little::start().await;
    for _ in 0..4 {
        little.reads_everything().await;
    }
    let disk = little.disk().await;
    assert!(
        disk.used_bytes <= ROOM && disk.cached_bytes >= ROOM / 2,
        "{disk:?}"
    );
    let fetched = little.objects.bytes_read();
    little.reads_everything().await;
    let again = (little.objects.bytes_read() - fetched) / MIB;
    assert!(
        again <= BLOCKS - 10,
        "{again} blocks of {BLOCKS} were fetched again"
    );
    little
        .world
        .until("the master knows what is here", |master| {
            let blocks = (100..100 + BLOCKS).filter(|block| master.held.contains_key(&BlockId(*block)));
            (1..=16).contains(&blocks.count())
        })
        .await;
    little.worker.stop().await;
}

#[actix::test]
async fn whoever_writes_to_a_full_disk_gets_the_room_of_what_is_cached_and_of_nothing_else() {
    let mut little = Little::start().await;
    little.reads_everything().await;
    let port = &*little.worker.port;
    let mut kept = 0;
    let full = loop {
        let body = bytes_of(kept, to_usize(MIB));
        let put = match kept % 2 {
            0 => put(port, kept, 1, body).await.map(drop),
            _ => match write(port, kept, 1, 0, 0, body).await {
                Ok(_) => seal(port, kept, 1, false).await.map(drop),
                Err(error) => Err(error),
            },
        };
        match put {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept <= 16);
    };
    assert_eq!(full.kind, ErrorKind::NoSpace, "{full}");
    assert!(kept >= 14, "{kept} MiB were written");
    let disk = little.disk().await;
    assert!(disk.cached_bytes == 0 && disk.used_bytes <= ROOM, "{disk:?}");
    for block in 0..kept {
        let bytes = read_all(port, block, 1, None).await.unwrap();
        assert_eq!(bytes, bytes_of(block, to_usize(MIB)));
    }
    // What does not fit any more is passed on.
    little.reads_everything().await;
    little.worker.stop().await;
}

#[actix::test]
async fn of_writers_that_come_at_once_each_has_room_made_that_the_others_do_not_take() {
    let mut little = Little::start().await;
    // Some room is left: enough for each of them, and not for all.
    for block in 0..12 {
        little.reads(block).await;
    }
    let port = &*little.worker.port;
    let at_once = (0..12).map(|block| write(port, block, 1, 0, 0, bytes_of(block, to_usize(MIB))));
    for outcome in futures::future::join_all(at_once).await {
        outcome.unwrap();
    }
    let disk = little.disk().await;
    assert!(disk.cached_bytes < 4 * MIB && disk.used_bytes <= ROOM, "{disk:?}");
    little.worker.stop().await;
}

#[actix::test]
async fn a_cached_block_that_was_written_stays_also_after_a_restart() {
    let little = Little::start().await;
    little.reads(0).await;
    let mut written = little.content[..to_usize(MIB)].to_vec();
    written[5..9].copy_from_slice(b"mine");
    let port = &*little.worker.port;
    write(port, 100, 5, 5, MIB, Bytes::from_static(b"mine"))
        .await
        .unwrap();
    seal(port, 100, 5, false).await.unwrap();
    for _ in 0..2 {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
    }
    let mut little = little.restart().await;
    for block in 1..BLOCKS {
        little.reads(block).await;
    }
    let bytes = read_all(&*little.worker.port, 100, 5, None).await.unwrap();
    assert_eq!(bytes, written);
    little.worker.stop().await;
}

#[actix::test]
async fn a_reader_keeps_what_it_was_granted_though_the_block_goes() {
    let mut little = Little::start().await;
    little.reads(0).await;
    let ask = ReadBlock {
        block: BlockId(100),
        generation: 1,
        offset_bytes: 0,
        len_bytes: 1 << 20,
        fill: fill(10, 0),
        exact: false,
        tier: Wish::UNSAID,
    };
    let answer = Endpoint::<ReadBlock>::ask(&*little.worker.port, Ask::new(ask, CallContext::default()))
        .await
        .unwrap();
    assert!(matches!(answer.body, Body::File(_)));
    for _ in 0..2 {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
    }
    for block in 1..15 {
        put(&*little.worker.port, block, 1, bytes_of(block, to_usize(MIB)))
            .await
            .unwrap();
    }
    assert!(!little.has(0).await, "it went");
    let BlockData { offset_bytes, .. } = answer.reply;
    let bytes = answer.body.read().unwrap();
    assert_eq!((offset_bytes, &bytes[..]), (0, &little.content[..to_usize(MIB)]));
    little.worker.stop().await;
}

#[actix::test]
async fn what_was_fetched_for_a_writer_waits_for_it() {
    let mut little = Little::start().await;
    let whole = Fill {
        whole: true,
        ..fill(10, 0).unwrap()
    };
    let port = &*little.worker.port;
    read(port, 100, 1, MIB - 1, 1, Some(whole)).await.unwrap();
    for _ in 0..2 {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
    }
    let order = WriteOrder::default();
    let first = write_in(port, 100, 5, 5, MIB, Bytes::from_static(b"mine"), order).await;
    first.unwrap();
    little.worker.stop().await;
}

#[actix::test]
async fn a_load_has_others_blocks_go_and_not_those_that_it_loaded_itself() {
    let mut little = Little::start().await;
    little.reads_everything().await;
    let job = Some(JobId(7));
    let load = async |blocks: std::ops::Range<u64>, job| {
        let tasks = blocks.map(|block| super::fills::task(100 + block, &little.version, block * MIB, MIB));
        super::fills::load_for(&little.worker, tasks.collect(), job).await
    };
    let mut loaded = 0;
    for block in 0..BLOCKS {
        match load(block..block + 1, job).await.remove(0) {
            Ok(_) => loaded += 1,
            Err(error) => assert_eq!(error.kind, ErrorKind::NoSpace, "{error}"),
        }
    }
    // What others had read is gone, and what was loaded is all there.
    assert!((ROOM / MIB / 2..BLOCKS).contains(&loaded), "{loaded}");
    let here = async || {
        let mut here = Vec::new();
        for block in 0..BLOCKS {
            here.extend(little.has(block).await.then_some(block));
        }
        here
    };
    assert_eq!(here().await, (0..loaded).collect::<Vec<_>>());
    // Somebody reads the rest, and has what the job loaded go; so does another job.
    for block in loaded..BLOCKS {
        little.reads(block).await;
    }
    assert!(here().await.contains(&(BLOCKS - 1)));
    let others = load(loaded..BLOCKS, Some(JobId(8))).await;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    little.worker.stop().await;
}

#[actix::test]
async fn a_load_that_fits_finds_room_whatever_others_had_go_meanwhile() {
    let mut little = Little::start().await;
    for round in 0..60 {
        // All of a load at once, each after another load with as much of the disk as there is.
        let blocks = (0..FITTING).map(|block| (round * FITTING + block) % BLOCKS);
        let tasks = blocks.map(|block| super::fills::task(100 + block, &little.version, block * MIB, MIB));
        let loaded = super::fills::load_for(&little.worker, tasks.collect(), Some(JobId(round))).await;
        assert!(loaded.iter().all(Result::is_ok), "round {round}: {loaded:?}");
    }
    little.worker.stop().await;
}

#[actix::test]
async fn the_master_says_which_blocks_are_kept_and_a_late_word_changes_nothing() {
    let little = Little::start().await;
    assert!(!little.marks(100, 1, false, 7).await, "it is not here");
    little.reads(0).await;
    assert!(little.marks(100, 1, false, 7).await);
    assert!(!little.marks(100, 1, true, 6).await, "that was said before");
    let little = little.restart().await;
    assert!(!little.marks(100, 1, true, 6).await, "that was said before");
    for _ in 0..2 {
        for block in 1..BLOCKS {
            little.reads(block).await;
        }
    }
    assert!(little.has(0).await);
    assert!(!little.marks(100, 0, true, 7).await, "another generation");
    assert!(!little.marks(100, 2, true, 7).await, "another generation");
    assert!(little.marks(100, 1, true, 7).await);
    let mut little = little.restart().await;
    let cached = little.disk().await.cached_bytes;
    assert!(cached > ROOM / 2, "{cached}");
    for block in 1..16 {
        // As many as fit.
        let _ = put(&*little.worker.port, block, 1, bytes_of(block, to_usize(MIB))).await;
    }
    assert!(!little.has(0).await);
    little.worker.stop().await;
}

#[actix::test]
async fn what_was_written_becomes_cached_when_the_object_has_it_and_a_later_write_makes_it_kept() {
    let mut little = Little::start().await;
    let port = &*little.worker.port;
    for block in [1, 2] {
        put(port, block, 4, bytes_of(block, 200_000)).await.unwrap();
        assert!(little.marks(block, 4, true, 9).await);
    }
    assert!(little.disk().await.cached_bytes >= 400_000);
    // Another lease, another generation.
    write(port, 2, 5, 0, 200_000, Bytes::from_static(b"newer"))
        .await
        .unwrap();
    assert!(!little.marks(2, 4, true, 10).await, "it is being written");
    seal(port, 2, 5, false).await.unwrap();
    assert!(!little.marks(2, 4, true, 11).await, "those are newer bytes");
    for _ in 0..2 {
        little.reads_everything().await;
    }
    assert!(read(port, 2, 5, 0, 5, None).await.unwrap() == Bytes::from_static(b"newer"));
    let gone = read(port, 1, 4, 0, 5, None).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    little.worker.stop().await;
}
