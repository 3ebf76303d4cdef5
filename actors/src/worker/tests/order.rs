//! Changes that come late, or build on what went with the power.

use curvine_protocol::ErrorKind;
use curvine_protocol::checksum::CHUNK_BYTES;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{SealBlock, WriteOrder};
use curvine_protocol::{BlockId, CallContext, Result};

use super::world::*;
use crate::kit::call;
use crate::kit::until::until_some;

fn order(number: u64, floor: u64, has: u64, life: u64) -> WriteOrder {
    WriteOrder {
        number,
        floor,
        has,
        life,
    }
}

/// The machine goes down without the worker having been stopped: the next start finds the mark of another boot.
fn cut_power(disk: &std::path::Path) {
    use std::os::unix::fs::FileExt;
    const SLOT_BYTES: usize = 2 * 4096 + 4096;
    const TOKEN_AT: usize = 20;
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk.join("index/anchor"))
        .unwrap();
    for slot in [0, 1] {
        let (at, mut bytes) = (slot * SLOT_BYTES as u64, vec![0; SLOT_BYTES]);
        file.read_exact_at(&mut bytes, at).unwrap();
        let len = to_usize(u32::from_le_bytes(bytes[4..8].try_into().unwrap()).into());
        if len > 0 {
            bytes[TOKEN_AT] = b'x';
            let sum = curvine_protocol::checksum::crc32c(&bytes[4..8 + len]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&bytes, at).unwrap();
        }
    }
}

#[actix::test]
async fn a_write_that_comes_late_is_not_made_before_or_after_its_block_is_sealed() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let (old, new) = (bytes_of(1, 1_000), bytes_of(2, 1_000));
    let first = order(1, 1, 0, 0);
    write_in(port, 7, 3, 0, 0, old.clone(), first).await.unwrap();
    write_in(port, 7, 3, 0, 0, old.clone(), first)
        .await
        .expect("a repeat in time");
    let life = write_in(port, 7, 3, 0, 0, new.clone(), order(2, 2, 1, 0))
        .await
        .unwrap()
        .life;
    let late = write_in(port, 7, 3, 0, 0, old.clone(), first).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Stale);
    let sealed = seal_in(port, 7, 3, false, order(3, 3, 2, life)).await.unwrap();
    assert_eq!(sealed.life, life);
    let late = write_in(port, 7, 3, 500, 0, old.clone(), order(2, 2, 1, 0)).await;
    assert_eq!(late.unwrap_err().kind, ErrorKind::Stale);
    assert_eq!(read_all(port, 7, 3, None).await.unwrap(), new);
    write_in(port, 7, 4, 0, 1_000, old.clone(), first)
        .await
        .expect("another generation begins anew");
    worker.stop().await;
}

#[actix::test]
async fn what_went_with_the_power_before_its_seal_is_not_sealed_and_what_was_sealed_is() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let port = &*worker.port;
    let body = bytes_of(1, 1_000);
    let mut life = 0;
    for block in [7, 8] {
        let written = write_in(port, block, 3, 0, 0, body.clone(), order(1, 1, 0, 0)).await;
        life = written.unwrap().life;
    }
    seal_in(port, 8, 3, true, order(2, 2, 1, life)).await.unwrap();
    kill(worker);
    let worker = world.start(world.config()).await;
    let port = &*worker.port;
    let killed = write_in(port, 7, 3, 1_000, 0, body.clone(), order(3, 3, 1, life)).await;
    assert_eq!(
        killed.unwrap().life,
        life,
        "a process that is killed loses nothing"
    );
    kill(worker);
    cut_power(&world.disk("d0"));

    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let lost = seal_in(port, 7, 3, false, order(4, 4, 3, life)).await;
    assert_eq!(lost.unwrap_err().kind, ErrorKind::Lost);
    let lost = write_in(port, 7, 3, 2_000, 0, body.clone(), order(4, 4, 3, life)).await;
    assert_eq!(lost.unwrap_err().kind, ErrorKind::Lost);
    seal_in(port, 8, 3, true, order(2, 2, 2, life))
        .await
        .expect("it was sealed and synced");
    let written = write_in(port, 8, 3, 1_000, 0, body.clone(), order(3, 3, 2, life)).await;
    assert_ne!(written.unwrap().life, life);
    worker.stop().await;
}

#[actix::test]
async fn what_a_power_cut_may_have_changed_serves_nobody_before_the_masters_say_that_it_counts() {
    let world = World::new();
    let worker = world.start(world.config()).await;
    let port = &*worker.port;
    let body = bytes_of(1, 100_000);
    write(port, 7, 3, 0, 0, body.clone()).await.unwrap();
    seal(port, 7, 3, true).await.unwrap();
    // Of the next writer, and on its way when the power goes.
    write(port, 7, 4, 0, 100_000, bytes_of(2, 10)).await.unwrap();
    kill(worker);
    cut_power(&world.disk("d0"));
    world.master.state.lock().unwrap().keeps_doubts = true;

    let worker = world.start(world.config()).await;
    let port = &*worker.port;
    let refused = |outcome: Result<()>| outcome.unwrap_err().kind;
    let read = read_all(port, 7, 4, None).await;
    assert_eq!(refused(read.map(drop)), ErrorKind::Unreachable);
    let written = write(port, 7, 5, 0, 100_000, bytes_of(3, 10)).await;
    assert_eq!(refused(written.map(drop)), ErrorKind::Unreachable);
    let synced = SealBlock {
        block: BlockId(7),
        generation: 4,
        sync: true,
        epoch: 0,
        or_newer: true,
        order: WriteOrder::default(),
    };
    let synced = call(port, synced, CallContext::default()).await;
    assert_eq!(refused(synced.map(drop)), ErrorKind::Unreachable);
    // It is so after the next start, too.
    kill(worker);
    world.master.state.lock().unwrap().keeps_doubts = false;
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let expected = [&bytes_of(2, 10)[..], &body[10..]].concat();
    until_some("the masters have said so", async || {
        let read = read_all(port, 7, 4, None).await.ok()?;
        (read == expected).then_some(())
    })
    .await;
    write(port, 7, 5, 0, 100_000, bytes_of(3, 10))
        .await
        .expect("taken");
    worker.stop().await;
}

#[actix::test]
async fn rot_is_found_before_some_of_its_chunk_is_written_over_a_second_time() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    let chunk = to_usize(CHUNK_BYTES);
    let base = CHUNK_BYTES * 2;
    write(port, 7, 3, 0, 0, bytes_of(1, 2 * chunk)).await.unwrap();
    seal(port, 7, 3, true).await.unwrap();
    write(port, 7, 3, 10, base, bytes_of(2, 100)).await.unwrap();
    seal(port, 7, 3, false).await.unwrap();
    flip(&world.disk("d0"), 7, 5_000);
    let over = write(port, 7, 3, 20, base, bytes_of(3, 100)).await;
    assert_eq!(over.unwrap_err().kind, ErrorKind::Corrupt);
    worker.stop().await;
}

#[actix::test]
async fn a_block_that_is_nobodys_any_more_and_is_begun_by_a_late_write_goes_again() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    world
        .master
        .state
        .lock()
        .unwrap()
        .garbage
        .insert(curvine_protocol::BlockId(7));
    write(&*worker.port, 7, 3, 0, 0, bytes_of(1, 1_000))
        .await
        .unwrap();
    let file = block_file(&world.disk("d0"), 7);
    crate::kit::until::until("the block is gone", || !file.exists()).await;
    worker.stop().await;
}

#[actix::test]
async fn rot_is_found_before_its_chunk_is_cut() {
    let world = World::new();
    let mut worker = world.start(world.config()).await;
    let port = &*worker.port;
    write(port, 7, 3, 0, 0, bytes_of(1, 60_000)).await.unwrap();
    seal(port, 7, 3, false).await.unwrap();
    flip(&world.disk("d0"), 7, 5_000);
    let over = write(port, 7, 4, 30_000, 30_000, bytes_of(3, 100)).await;
    assert_eq!(over.unwrap_err().kind, ErrorKind::Corrupt);
    worker.stop().await;
}
