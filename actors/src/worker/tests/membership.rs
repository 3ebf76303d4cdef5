//! What the master is told of blocks, and what it has deleted.

use std::collections::HashMap;
use std::sync::Arc;

use curvine_protocol::number::to_usize;
use curvine_protocol::worker::DeleteBlocks;
use curvine_protocol::{BlockId, CallContext, ErrorKind, MountId};

use super::objects::{Objects, Opener};
use super::world::*;
use crate::kit::call;
use crate::kit::ports::Inline;
use crate::kit::until::{until, until_some};
use crate::ufs::upload_notes::{Upload, UploadNotes};

/// As many blocks as there is room for news of.
const NEWS_MAX: u64 = 4;

async fn delete(worker: &crate::worker::WorkerHandle, blocks: impl IntoIterator<Item = u64>) {
    let blocks = blocks.into_iter().map(BlockId).collect();
    call(&*worker.port, DeleteBlocks { blocks }, CallContext::default())
        .await
        .unwrap();
}

#[actix::test]
async fn news_that_find_no_room_are_told_in_a_full_report() {
    let world = World::new();
    let mut config = world.config();
    config.news_max = to_usize(NEWS_MAX);
    let mut worker = world.start(config).await;
    for block in 0..NEWS_MAX {
        put(&*worker.port, block, 1, bytes_of(block, 10)).await.unwrap();
    }
    let at_first = (0..NEWS_MAX).map(|block| (BlockId(block), (1, 10))).collect();
    world
        .until("they are reported", |master| master.held == at_first)
        .await;

    // The master takes no reports, and meanwhile more happens than there is room for: blocks come, go, and come back.
    let (full_reports, refused) = {
        let mut master = world.master.state.lock().unwrap();
        master.refuses_reports = true;
        (master.full_reports, master.refused_reports)
    };
    put(&*worker.port, 100, 1, bytes_of(1, 20)).await.unwrap();
    world
        .until("a report is refused", |master| master.refused_reports > refused)
        .await;
    delete(&worker, [0, 1, 100]).await;
    put(&*worker.port, 1, 2, bytes_of(1, 30)).await.unwrap();
    for block in 200..200 + 2 * NEWS_MAX {
        put(&*worker.port, block, 1, bytes_of(block, 40)).await.unwrap();
    }
    delete(&worker, [200]).await;
    let stale = world.master.state.lock().unwrap().held.clone();
    assert_eq!(stale, at_first, "nothing could be told");

    world.master.state.lock().unwrap().refuses_reports = false;
    let mut truth = HashMap::from([
        (BlockId(1), (2, 30)),
        (BlockId(2), (1, 10)),
        (BlockId(3), (1, 10)),
    ]);
    truth.extend((201..200 + 2 * NEWS_MAX).map(|block| (BlockId(block), (1, 40))));
    world
        .until("the truth is told, to the end of a full report", |master| {
            master.held == truth && master.full_reports > full_reports
        })
        .await;

    delete(&worker, [1]).await;
    truth.remove(&BlockId(1));
    world
        .until("later news are told as before", |master| master.held == truth)
        .await;
    worker.stop().await;
}

#[actix::test]
async fn garbage_is_deleted_and_a_forgetful_master_is_told_everything_again() {
    let world = World::new();
    world.master.state.lock().unwrap().garbage.insert(BlockId(2));
    let mut worker = world.start(world.config()).await;
    put(&*worker.port, 1, 1, bytes_of(1, 10)).await.unwrap();
    put(&*worker.port, 2, 1, bytes_of(2, 10)).await.unwrap();
    world
        .until("1 is reported", |master| master.held.contains_key(&BlockId(1)))
        .await;
    until("garbage goes", || !block_file(&world.disk("d0"), 2).exists()).await;
    let reports = {
        let mut master = world.master.state.lock().unwrap();
        master.held.clear();
        master.ask_to_register = true;
        master.full_reports
    };
    world
        .until("a new full report", |master| {
            master.full_reports > reports && master.held.contains_key(&BlockId(1))
        })
        .await;
    worker.stop().await;
}

#[actix::test]
async fn a_late_order_to_delete_spares_what_was_written_since_the_report() {
    let world = World::new();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    {
        let mut master = world.master.state.lock().unwrap();
        master.garbage.insert(BlockId(5));
        master.garbage_gate = Some(gate.clone());
    }
    let mut worker = world.start(world.config()).await;
    put(&*worker.port, 5, 1, bytes_of(1, 1_000)).await.unwrap();
    world
        .until("the first generation is reported", |master| {
            master.garbage_reports == 1
        })
        .await;
    // Its second generation is committed before the master's answer arrives.
    put(&*worker.port, 5, 2, bytes_of(2, 2_000)).await.unwrap();
    world.master.state.lock().unwrap().garbage.clear();
    gate.add_permits(1);
    world
        .until("the second generation is reported", |master| {
            master.held.get(&BlockId(5)) == Some(&(2, 2_000))
        })
        .await;
    assert_eq!(
        read_all(&*worker.port, 5, 2, None).await.unwrap(),
        bytes_of(2, 2_000)
    );
    worker.stop().await;
}

#[actix::test]
async fn a_worker_of_another_cluster_is_refused() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    worker.stop().await;
    let identity = world.disk("d0").join("worker.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("c1\"", "c2\"")).unwrap();
    drop(worker);
    let refused = until_some("the index is let go", async || {
        let refused = crate::worker::start_with(
            world.config(),
            crate::kit::Ports::system(),
            world.master.clone(),
            std::sync::Arc::new(NoPeers),
            "127.0.0.1:1".to_owned(),
            world.sources.clone(),
            crate::worker::Threads::own(),
        );
        let error = refused.await.map(|_| ()).unwrap_err();
        (!error.message.contains("already open")).then_some(error)
    })
    .await;
    assert_eq!(refused.kind, ErrorKind::WrongCluster);
}

#[actix::test]
async fn uploads_that_a_killed_worker_was_making_are_aborted_at_the_next_start() {
    let objects = Objects::open();
    let mut world = World::new();
    world.sources = Arc::new(Opener(objects.clone()));
    let worker = world.start(world.config()).await;
    kill(worker);
    let directory = world.disk("d0").join("uploads");
    let (notes, _, _arrivals) = UploadNotes::open(directory.clone(), Arc::new(Inline)).unwrap();
    let upload = Upload {
        mount: MountId(1),
        uri: "s3://bucket".to_owned(),
        key: "k".to_owned(),
        id: "left".to_owned(),
    };
    drop(notes.begun(upload).await.unwrap());
    let mut worker = world.start(world.config()).await;
    until("it is aborted and forgotten", || {
        let aborted = objects.state.lock().unwrap().aborted == ["left"];
        aborted && std::fs::read_dir(&directory).unwrap().count() == 0
    })
    .await;
    worker.stop().await;
}
