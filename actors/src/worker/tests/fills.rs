//! Blocks that come from an under file system.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curvine_protocol::attr::UfsSource;
use curvine_protocol::cluster::Tier;
use curvine_protocol::mount::MountTraffic;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    DeleteBlocks, ExportFile, Fill, LoadBlocks, LoadTask, StopLoading, SuspectBlock,
};
use curvine_protocol::{
    BlockId, CallContext, Error, ErrorKind, FileLayout, InodeId, JobId, MountId, UfsVersion,
};

use super::objects::*;
use super::world::*;
use crate::kit::call;
use crate::worker::WorkerHandle;

const MIB: usize = 1 << 20;

fn world(objects: &Arc<Objects>) -> World {
    World {
        sources: Arc::new(Opener(objects.clone())),
        ..World::new()
    }
}

/// An object, and the file over it that the master knows: inode 10, blocks from 100 on.
fn file(world: &World, objects: &Objects, content: &Bytes, block_bytes: u64) -> UfsVersion {
    let version = objects.put("a/b", "v1", content.clone());
    let layout = layout(10, "a/b", &version, block_bytes, 100);
    world
        .master
        .state
        .lock()
        .unwrap()
        .files
        .insert(InodeId(10), layout);
    version
}

pub fn task(block: u64, version: &UfsVersion, object_offset_bytes: u64, len_bytes: u64) -> LoadTask {
    LoadTask {
        block: BlockId(block),
        generation: 1,
        len_bytes,
        object_offset_bytes,
        source: UfsSource {
            mount: MountId(1),
            key: "a/b".to_owned(),
            version: version.clone(),
            until_generation: u32::MAX,
        },
        tier: None,
        copy: None,
    }
}

pub async fn load(worker: &WorkerHandle, tasks: Vec<LoadTask>) -> Vec<Result<u64, Error>> {
    load_for(worker, tasks, None).await
}

/// The same for a job.
pub async fn load_for(
    worker: &WorkerHandle,
    tasks: Vec<LoadTask>,
    job: Option<JobId>,
) -> Vec<Result<u64, Error>> {
    let loaded = call(
        &*worker.port,
        LoadBlocks {
            tasks,
            patience_ms: 0,
            job,
        },
        CallContext::default(),
    )
    .await;
    loaded.unwrap().outcomes
}

#[actix::test]
async fn a_small_object_is_fetched_once_for_all_readers_and_cached() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(1, 300_000);
    file(&world, &objects, &content, 1 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let reads = (0..20).map(|at| read(port, 100, 1, at * 10_000, 10_000, fill(10, 0)));
    for (at, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
        assert_eq!(bytes.unwrap(), content[at * 10_000..(at + 1) * 10_000]);
    }
    assert_eq!(
        objects.state.lock().unwrap().reads,
        [("a/b".to_owned(), 0..300_000)]
    );
    world
        .until("it is reported", |master| {
            master.held.get(&BlockId(100)) == Some(&(1, 300_000))
        })
        .await;
    assert_eq!(read_all(port, 100, 1, None).await.unwrap(), content);
    worker.stop().await;
}

#[actix::test]
async fn a_random_read_of_a_large_object_fetches_little_and_a_scan_fetches_each_byte_once() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(2, 40 * MIB + 12_345);
    file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let at = 20 * MIB + 77;
    let some = read(port, 100, 1, at as u64, 1_000, fill(10, 0)).await.unwrap();
    assert_eq!(some, content[at..at + 1_000]);
    assert_eq!(objects.bytes_read(), MIB as u64);
    assert_eq!(
        read(port, 100, 1, 0, 10, None).await.unwrap_err().kind,
        ErrorKind::NotFound
    );

    let scans = (0..3).map(|_| read_all(port, 100, 1, fill(10, 0)));
    for scanned in futures::future::join_all(scans).await {
        assert!(scanned.unwrap() == content, "a scan gives the object");
    }
    assert_eq!(objects.bytes_read(), content.len() as u64);
    world
        .until("it is reported", |master| master.held.contains_key(&BlockId(100)))
        .await;
    assert!(read_all(port, 100, 1, None).await.unwrap() == content);
    assert_eq!(world.master.state.lock().unwrap().describes, 1);
    worker.stop().await;
}

#[actix::test]
async fn what_readers_find_here_and_what_they_wait_for_is_counted_of_the_mount() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(3, 20 * MIB + 5);
    file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let traffic = worker.disks.traffic().clone();
    let counted = move || traffic.counted();
    let port = &*worker.port;
    for _ in 0..3 {
        read(port, 100, 1, 77, 1_000, fill(10, 0)).await.unwrap();
    }
    let mut expected = MountTraffic {
        hits: 2,
        hit_bytes: 2_000,
        misses: 1,
        miss_bytes: 1_000,
        // More is on its way, ahead of the reader.
        fetched_bytes: counted()[0].1.fetched_bytes,
        ..MountTraffic::default()
    };
    assert!(expected.fetched_bytes > 0, "{expected:?}");
    let mut so_far = counted();
    so_far[0].1.fetched_bytes = expected.fetched_bytes;
    assert_eq!(so_far, [(MountId(1), expected)]);
    let whole = fill(10, 0).map(|fill| Fill { whole: true, ..fill });
    read(port, 100, 1, 0, 1, whole).await.unwrap();
    expected.fetched_bytes = content.len() as u64;
    assert_eq!(counted(), [(MountId(1), expected)], "a writer is no reader");
    read(port, 100, 1, 9_000_000, 500, fill(10, 0)).await.unwrap();
    read(port, 100, 1, 0, 500, None).await.unwrap();
    (expected.hits, expected.hit_bytes) = (3, 2_500);
    assert_eq!(counted(), [(MountId(1), expected)]);
    worker.stop().await;
}

#[actix::test]
async fn whoever_is_to_write_a_part_of_a_block_gets_all_of_it_here_first() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(8, 20 * MIB + 5);
    file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let last = content.len() as u64 - 1;
    let whole = fill(10, 0).map(|fill| Fill { whole: true, ..fill });
    let byte = read(port, 100, 1, last, 1, whole).await.unwrap();
    assert_eq!(byte[..], content[content.len() - 1..]);
    assert_eq!(objects.bytes_read(), content.len() as u64);
    assert!(read_all(port, 100, 1, None).await.unwrap() == content);
    worker.stop().await;
}

#[actix::test]
async fn a_block_that_was_written_since_is_not_fetched_from_the_object() {
    let objects = Objects::open();
    let world = world(&objects);
    file(&world, &objects, &bytes_of(9, 1_000), 64 << 20);
    let kept = |layout: &mut FileLayout| layout.source.as_mut().unwrap().until_generation = 0;
    kept(
        world
            .master
            .state
            .lock()
            .unwrap()
            .files
            .get_mut(&InodeId(10))
            .unwrap(),
    );
    let mut worker = world.start(world.config()).await;
    let refused = read(&*worker.port, 100, 1, 0, 10, fill(10, 0)).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(objects.bytes_read(), 0);
    worker.stop().await;
}

#[actix::test]
async fn a_later_block_of_a_file_comes_from_its_place_in_the_object() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(3, 5 * MIB);
    let version = file(&world, &objects, &content, 2 << 20);
    let mut worker = world.start(world.config()).await;
    let last = read_all(&*worker.port, 102, 1, fill(10, 2)).await.unwrap();
    assert!(last == content[4 * MIB..]);
    let tasks = (0..3)
        .map(|index| {
            task(
                100 + index,
                &version,
                index << 21,
                (2 << 20).min((5 << 20) - (index << 21)),
            )
        })
        .collect::<Vec<_>>();
    assert_eq!(
        load(&worker, tasks.clone()).await,
        [Ok(2 << 20), Ok(2 << 20), Ok(0)]
    );
    assert_eq!(load(&worker, tasks).await, [Ok(0), Ok(0), Ok(0)]);
    assert_eq!(objects.bytes_read(), 5 << 20);
    for index in 0..3u64 {
        let block = read_all(&*worker.port, 100 + index, 1, None).await.unwrap();
        let start = to_usize(index) << 21;
        assert!(block == content[start..(start + (2 << 20)).min(5 << 20)]);
    }
    worker.stop().await;
}

#[actix::test]
async fn a_reader_joins_a_load_under_way() {
    let objects = Objects::closed();
    let world = world(&objects);
    let content = bytes_of(4, 20 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let loading = load(&worker, vec![task(100, &version, 0, 20 << 20)]);
    let reading = read_all(&*worker.port, 100, 1, fill(10, 0));
    let opening = async { objects.gate.add_permits(1_000) };
    let (loaded, read, ()) = futures::join!(loading, reading, opening);
    assert_eq!(loaded, [Ok(20 << 20)]);
    assert!(read.unwrap() == content);
    assert_eq!(objects.bytes_read(), 20 << 20);
    worker.stop().await;
}

#[actix::test]
async fn an_object_that_changed_is_said_so_and_nothing_of_it_stays() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(5, 9 * MIB);
    file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    assert_eq!(
        read(port, 100, 1, 0, 100, fill(10, 0)).await.unwrap(),
        content[..100]
    );
    objects.put("a/b", "v2", bytes_of(6, 9 * MIB));
    let changed = read(port, 100, 1, 8 << 20, 100, fill(10, 0)).await.unwrap_err();
    assert_eq!(changed.kind, ErrorKind::UfsChanged);
    assert!(
        changed.message.contains("a/b") && changed.message.contains("block 100"),
        "{changed}"
    );
    world
        .until("the master is told", |master| master.changed == [InodeId(10)])
        .await;
    let again = read(port, 100, 1, 0, 100, fill(10, 0)).await.unwrap_err();
    assert_eq!(
        again.kind,
        ErrorKind::UfsChanged,
        "bytes of the old version are gone"
    );
    let old = read(port, 100, 2, 0, 100, fill(10, 0)).await.unwrap_err();
    assert_eq!(old.kind, ErrorKind::Stale);
    worker.stop().await;
}

#[actix::test]
async fn a_failing_source_is_an_error_and_then_works_again() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(7, 3 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    objects.state.lock().unwrap().failures = 1;
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let failed = read(port, 100, 1, 0, 100, fill(10, 0)).await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Ufs);
    objects.state.lock().unwrap().short_by = 1;
    let short = load(&worker, vec![task(100, &version, 0, 3 << 20)]).await;
    assert_eq!(
        short
            .into_iter()
            .map(|outcome| outcome.unwrap_err().kind)
            .collect::<Vec<_>>(),
        [ErrorKind::Ufs]
    );
    objects.state.lock().unwrap().short_by = 0;
    assert!(read_all(port, 100, 1, fill(10, 0)).await.unwrap() == content);
    worker.stop().await;
}

#[actix::test]
async fn without_room_reads_go_through_and_loads_say_so() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(8, 3 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config_of(&[("d0", Tier::Ssd, 1 << 20)])).await;
    assert!(read_all(&*worker.port, 100, 1, fill(10, 0)).await.unwrap() == content);
    let loaded = load(&worker, vec![task(100, &version, 0, 3 << 20)]).await;
    assert_eq!(
        loaded
            .into_iter()
            .map(|outcome| outcome.unwrap_err().kind)
            .collect::<Vec<_>>(),
        [ErrorKind::NoSpace]
    );
    assert!(world.master.state.lock().unwrap().held.is_empty());
    worker.stop().await;
}

#[actix::test]
async fn a_worker_that_is_refused_goes_on_with_the_options_that_the_mount_has_by_now() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(9, 40 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    read(&*worker.port, 100, 1, 0, 1 << 20, fill(10, 0))
        .await
        .unwrap();
    objects.state.lock().unwrap().token = Some("renewed".to_owned());
    let at_the_end = async || read(&*worker.port, 100, 1, 39 << 20, 1 << 20, fill(10, 0)).await;
    assert_eq!(at_the_end().await.unwrap_err().kind, ErrorKind::UfsDenied);

    world.master.state.lock().unwrap().mount_token = Some("renewed".to_owned());
    assert!(at_the_end().await.unwrap() == content[39 << 20..]);
    // Once more, while nothing is remembered as refused.
    objects.state.lock().unwrap().token = Some("renewed again".to_owned());
    world.master.state.lock().unwrap().mount_token = Some("renewed again".to_owned());
    let loaded = load(&worker, vec![task(100, &version, 0, 40 << 20)]).await;
    loaded
        .into_iter()
        .for_each(|outcome| assert!(outcome.is_ok(), "{outcome:?}"));
    worker.stop().await;
}

#[actix::test]
async fn a_fill_goes_on_after_a_stop() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(9, 10 * MIB);
    file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    // The whole of a segment: when it is read, nothing more is on its way.
    read(&*worker.port, 100, 1, 5 << 20, 1 << 20, fill(10, 0))
        .await
        .unwrap();
    assert_eq!(objects.bytes_read(), 1 << 20);
    worker.stop().await;
    drop(worker);
    let mut worker = world.start(world.config()).await;
    assert!(read_all(&*worker.port, 100, 1, fill(10, 0)).await.unwrap() == content);
    assert_eq!(
        objects.bytes_read(),
        10 << 20,
        "what was fetched before the stop is not fetched again"
    );
    worker.stop().await;
}

#[actix::test]
async fn a_corrupt_cached_block_is_fetched_again() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(10, 200_000);
    file(&world, &objects, &content, 1 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    read_all(port, 100, 1, fill(10, 0)).await.unwrap();
    flip(&world.disk("d0"), 100, 70_000);
    let looked = read(port, 100, 1, 70_001, 10, fill(10, 0)).await.unwrap();
    assert_eq!(looked, content[70_001..70_011]);
    assert_eq!(objects.bytes_read(), 400_000);
    assert_eq!(read_all(port, 100, 1, None).await.unwrap(), content);
    worker.stop().await;
}

#[actix::test]
async fn what_is_cached_on_a_disk_that_fails_is_fetched_again_to_another() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(10, 200_000);
    file(&world, &objects, &content, 1 << 20);
    let disks = [("d0", Tier::Ssd, 1 << 30), ("d1", Tier::Ssd, 1 << 30)];
    let mut worker = world.start(world.config_of(&disks)).await;
    let port = &*worker.port;
    read_all(port, 100, 1, fill(10, 0)).await.unwrap();
    let on = |name: &str| block_file(&world.disk(name), 100).exists();
    let (failing, other) = match on("d0") {
        true => ("d0", "d1"),
        false => ("d1", "d0"),
    };
    std::fs::rename(world.disk(failing), world.disk("away")).unwrap();
    crate::kit::until::until_some("it is on the other disk", async || {
        let read = read_all(port, 100, 1, fill(10, 0)).await;
        assert_eq!(read.unwrap(), content, "there is no time when it cannot be read");
        on(other).then_some(())
    })
    .await;
    assert_eq!(objects.bytes_read(), 400_000);
    assert_eq!(read_all(port, 100, 1, None).await.unwrap(), content);
    worker.stop().await;
}

#[actix::test]
async fn a_block_deleted_while_it_is_filled_is_gone() {
    let objects = Objects::closed();
    let world = world(&objects);
    let content = bytes_of(11, 3 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let loading = load(&worker, vec![task(100, &version, 0, 3 << 20)]);
    let deleting = async {
        while !block_file(&world.disk("d0"), 100).exists() {
            tokio::task::yield_now().await;
        }
        let delete = DeleteBlocks {
            blocks: vec![BlockId(100)],
        };
        call(&*worker.port, delete, CallContext::default()).await.unwrap();
        objects.gate.add_permits(1_000);
    };
    let (loaded, ()) = futures::join!(loading, deleting);
    assert_eq!(
        loaded
            .into_iter()
            .map(|outcome| outcome.unwrap_err().kind)
            .collect::<Vec<_>>(),
        [ErrorKind::BlockUnavailable]
    );
    assert!(!block_file(&world.disk("d0"), 100).exists());
    worker.stop().await;
}

#[actix::test]
async fn a_small_block_deleted_while_it_is_fetched_is_not_made() {
    let objects = Objects::closed();
    let world = world(&objects);
    let content = bytes_of(12, 300_000);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let loading = load(&worker, vec![task(100, &version, 0, 300_000)]);
    let deleting = async {
        while objects.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let blocks = vec![BlockId(100)];
        call(&*worker.port, DeleteBlocks { blocks }, CallContext::default())
            .await
            .unwrap();
        objects.gate.add_permits(1_000);
    };
    let (loaded, ()) = futures::join!(loading, deleting);
    let refused = loaded[0].as_ref().map_err(|error| error.kind);
    assert_eq!(refused, Err(ErrorKind::BlockUnavailable));
    let store = &worker.disks.all()[0].store;
    assert!(!store.holds(BlockId(100)).unwrap());
    assert_eq!(store.status().blocks, 0);
    worker.stop().await;
}

#[actix::test]
async fn a_layout_from_before_a_deletion_is_asked_for_again() {
    let objects = Objects::open();
    let world = world(&objects);
    let content = bytes_of(13, 300_000);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    read_all(port, 100, 1, fill(10, 0)).await.unwrap();
    // The file has another block now, and the first is deleted; a read of it comes late.
    let replaced = layout(10, "a/b", &version, 64 << 20, 200);
    {
        let mut master = world.master.state.lock().unwrap();
        master.files.insert(InodeId(10), replaced);
    }
    let blocks = vec![BlockId(100)];
    call(port, DeleteBlocks { blocks }, CallContext::default())
        .await
        .unwrap();
    let late = read_all(port, 100, 1, fill(10, 0)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Stale);
    worker.stop().await;
}

#[actix::test]
async fn an_exported_file_has_its_blocks_in_order_and_zeros_in_its_holes() {
    let objects = Objects::open();
    let world = world(&objects);
    let mut worker = world.start(world.config()).await;
    let block_bytes = 2 << 20;
    let size_bytes: u64 = 5 << 20;
    let mut expected = vec![0; to_usize(size_bytes)];
    for (index, len) in [(0, 2 * MIB), (1, 100_000)] {
        let body = bytes_of(index, len);
        put(&*worker.port, 200 + index, 1, body.clone()).await.unwrap();
        let start = to_usize(index) << 21;
        expected[start..start + len].copy_from_slice(&body);
    }
    let version = UfsVersion {
        size_bytes,
        mtime_ms: 0,
        etag: None,
    };
    let mut layout = layout(11, "out", &version, block_bytes, 200);
    layout.blocks[1].block.len_bytes = 100_000;
    layout.blocks[2].block.len_bytes = 0;
    let export = ExportFile {
        inode: InodeId(11),
        mount: MountId(1),
        key: "out".to_owned(),
        size_bytes,
        layout,
        effect: curvine_protocol::EffectId(0),
        replaces: None,
        mark: String::new(),
        attributes: None,
    };
    let exported = call(&*worker.port, export, CallContext::default()).await.unwrap();
    let (content, written) = objects.state.lock().unwrap().objects["out"].clone();
    assert_eq!(exported.version, written);
    assert!(content == expected);
    worker.stop().await;
}

#[actix::test]
async fn a_directory_of_the_system_is_read_through_loaded_and_written() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), bytes_of(12, 3 * MIB)).unwrap();
    let world = World::new();
    world.master.state.lock().unwrap().mount_uri = format!("file://{}", directory.path().display());
    let mount = world.master.mount(MountId(1));
    let version = crate::ufs::Ufs::open(&mount)
        .unwrap()
        .stat("a")
        .await
        .unwrap()
        .unwrap();
    let layout = layout(10, "a", &version, 64 << 20, 100);
    world
        .master
        .state
        .lock()
        .unwrap()
        .files
        .insert(InodeId(10), layout.clone());
    let mut worker = world.start(world.config()).await;
    assert!(read_all(&*worker.port, 100, 1, fill(10, 0)).await.unwrap() == bytes_of(12, 3 * MIB));
    world
        .until("it is reported", |master| master.held.contains_key(&BlockId(100)))
        .await;
    let export = ExportFile {
        inode: InodeId(10),
        mount: MountId(1),
        key: "b".to_owned(),
        size_bytes: 3 << 20,
        layout,
        effect: curvine_protocol::EffectId(0),
        replaces: None,
        mark: String::new(),
        attributes: None,
    };
    let exported = call(&*worker.port, export, CallContext::default()).await.unwrap();
    assert_eq!(exported.version.size_bytes, 3 << 20);
    assert!(std::fs::read(directory.path().join("b")).unwrap() == bytes_of(12, 3 * MIB));
    worker.stop().await;
}

/// What the worker finds when a reader suspects a byte.
async fn is_right(worker: &WorkerHandle, block: u64, at: usize) -> bool {
    let suspect = SuspectBlock {
        block: BlockId(block),
        offset_bytes: at as u64,
        len_bytes: 1,
    };
    let verified = call(&*worker.port, suspect, CallContext::default()).await;
    verified.unwrap().is_right
}

#[actix::test]
async fn bytes_that_rot_after_they_were_fetched_are_fetched_again_when_a_reader_says_so() {
    let objects = Objects::open();
    let world = world(&objects);
    // One is stored in one go, one is filled bit by bit and whole in the end, one is not whole.
    for (len, scanned) in [(300_000, 300_000), (3 * MIB, 3 * MIB), (40 * MIB, MIB)] {
        let content = bytes_of(len as u64, len);
        let version = objects.put("a/b", "v1", content.clone());
        let inode = InodeId(len as u64);
        let block = len as u64;
        let layout = layout(inode.0, "a/b", &version, 64 << 20, block);
        world.master.state.lock().unwrap().files.insert(inode, layout);
        let mut worker = world.start(world.config()).await;
        let port = &*worker.port;
        let fill = || fill(inode.0, 0);
        for at in (0..scanned).step_by(MIB) {
            let some = read(port, block, 1, at as u64, 1 << 20, fill()).await.unwrap();
            assert!(some == content[at..(at + MIB).min(len)]);
        }
        let rotten = 2 * 65_536 + 5;
        assert!(
            is_right(&worker, block, rotten).await,
            "{len}: nothing is wrong yet"
        );
        flip(&world.disk("d0"), block, rotten);
        let whole_chunks = read(port, block, 1, 0, 1 << 20, fill()).await;
        assert_eq!(whole_chunks.unwrap_err().kind, ErrorKind::Corrupt, "{len}");
        assert!(is_right(&worker, block, 0).await, "{len}: that byte is");
        assert!(!is_right(&worker, block, rotten).await, "{len}");
        let again = read(port, block, 1, 0, 1 << 20, fill()).await.unwrap();
        assert!(again == content[..MIB.min(len)], "{len}: it is fetched anew");
        worker.stop().await;
    }
}

/// Asks once for these loads, with little patience.
async fn look(worker: &WorkerHandle, tasks: Vec<LoadTask>) -> (Vec<Result<u64, Error>>, Vec<u32>) {
    let load = LoadBlocks {
        tasks,
        patience_ms: 50,
        job: None,
    };
    let loaded = call(&*worker.port, load, CallContext::default()).await.unwrap();
    (loaded.outcomes, loaded.under_way)
}

#[actix::test]
async fn a_load_says_how_far_it_is_and_asking_again_is_no_second_load() {
    let objects = Objects::closed();
    let world = world(&objects);
    let content = bytes_of(12, 20 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let tasks = vec![task(100, &version, 0, 20 << 20), task(200, &version, 0, 100)];
    assert_eq!(
        look(&worker, tasks.clone()).await,
        (vec![Ok(0), Ok(0)], vec![0, 1])
    );
    // One of the parts of the large one, or the small one.
    objects.gate.add_permits(1);
    crate::kit::until::until_some("some of it is there", async || {
        // Of one that has ended since it was asked for last, nothing is fetched any more.
        let (outcomes, under_way) = look(&worker, tasks.clone()).await;
        (outcomes != [Ok(0), Ok(0)] || under_way != [0, 1]).then_some(())
    })
    .await;
    objects.gate.add_permits(1_000);
    crate::kit::until::until_some("all of it is there", async || {
        let (_, under_way) = look(&worker, tasks.clone()).await;
        under_way.is_empty().then_some(())
    })
    .await;
    assert_eq!(objects.bytes_read(), (20 << 20) + 100);
    worker.stop().await;
}

#[actix::test]
async fn a_load_that_is_stopped_fetches_nothing_more_and_goes_on_from_there() {
    let objects = Objects::closed();
    let world = world(&objects);
    let content = bytes_of(13, 20 * MIB);
    let version = file(&world, &objects, &content, 64 << 20);
    let mut worker = world.start(world.config()).await;
    let tasks = vec![task(100, &version, 0, 20 << 20), task(200, &version, 0, 100)];
    look(&worker, tasks.clone()).await;
    let stop = StopLoading {
        blocks: vec![BlockId(100), BlockId(200), BlockId(300)],
    };
    let stopped = call(&*worker.port, stop, CallContext::default()).await.unwrap();
    assert_eq!(stopped.fetched_bytes, [0, 0, 0]);
    // A reader that comes now opens it anew: what it wants, and as much ahead, is all that goes through the gate.
    objects.gate.add_permits(1_000);
    let some = read(&*worker.port, 100, 1, 0, 100, fill(10, 0)).await.unwrap();
    assert_eq!(some, content[..100]);
    assert_eq!(objects.bytes_read(), 2 << 20);
    assert_eq!(load(&worker, tasks).await, [Ok(20 << 20), Ok(100)]);
    assert_eq!(objects.bytes_read(), (20 << 20) + 100);
    worker.stop().await;
}
