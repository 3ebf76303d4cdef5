//! What a block costs. `cargo test -p curvine-actors worker::tests::bench -- --ignored --nocapture`

#![expect(
    clippy::disallowed_methods,
    reason = "a test measures, and starts what it needs where it is"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;

use super::objects::{Objects, Opener};
use super::world::*;

const BLOCKS: u64 = 10_000;
const LARGE_BYTES: usize = 64 << 20;

fn rate(what: &str, count: u64, took: Duration) {
    let per_s = count as f64 / took.as_secs_f64();
    println!(
        "{what:<44} {per_s:>10.0} /s  {:>8.1} us each",
        took.as_secs_f64() * 1e6 / count as f64
    );
}

#[actix::test]
#[ignore = "a measurement"]
async fn small_blocks_and_large_blocks() {
    let world = World::new();
    let mut worker = world
        .start(world.config_of(&[("d0", curvine_protocol::cluster::Tier::Ssd, 8 << 30)]))
        .await;
    let port = worker.port.clone();
    let body = bytes_of(1, 4_096);
    let mut first = 0;
    for clients in [1usize, 8, 40] {
        let started = Instant::now();
        let range = first..first + BLOCKS;
        first += BLOCKS;
        futures::stream::iter(range.clone())
            .map(|block| put(&*port, block + 1, 1, body.clone()))
            .buffer_unordered(clients)
            .for_each(|sealed| async move { assert_eq!(sealed.unwrap().len_bytes, 4_096) })
            .await;
        rate(
            &format!("PutBlock 4 KiB, {clients} at once"),
            BLOCKS,
            started.elapsed(),
        );
        let started = Instant::now();
        futures::stream::iter(range)
            .map(|block| read(&*port, block + 1, 1, 0, 1 << 20, None))
            .buffer_unordered(clients)
            .for_each(|bytes| async move { assert_eq!(bytes.unwrap().len(), 4_096) })
            .await;
        rate(
            &format!("ReadBlock 4 KiB + verify, {clients} at once"),
            BLOCKS,
            started.elapsed(),
        );
    }

    let plain = world.directory.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let started = Instant::now();
    for file in 0..BLOCKS {
        std::fs::write(plain.join(file.to_string()), &body).unwrap();
    }
    rate("std::fs::write 4 KiB beside it", BLOCKS, started.elapsed());

    let chunk = bytes_of(2, 1 << 20);
    let started = Instant::now();
    for at in 0..LARGE_BYTES >> 20 {
        write(&*port, 900_000, 1, (at as u64) << 20, 0, chunk.clone())
            .await
            .unwrap();
    }
    seal(&*port, 900_000, 1, false).await.unwrap();
    rate(
        "WriteBlock MiB, 1 at once",
        LARGE_BYTES as u64 >> 20,
        started.elapsed(),
    );
    let started = Instant::now();
    assert_eq!(
        read_all(&*port, 900_000, 1, None).await.unwrap().len(),
        LARGE_BYTES
    );
    rate(
        "ReadBlock MiB + verify, 1 at once",
        LARGE_BYTES as u64 >> 20,
        started.elapsed(),
    );
    worker.stop().await;
}

#[actix::test]
#[ignore = "a measurement"]
async fn loading_from_memory() {
    let objects = Objects::open();
    let world = World {
        sources: std::sync::Arc::new(Opener(objects.clone())),
        ..World::new()
    };
    let mut worker = world
        .start(world.config_of(&[("d0", curvine_protocol::cluster::Tier::Ssd, 8 << 30)]))
        .await;
    let content: Bytes = bytes_of(3, 512 << 20);
    let version = objects.put("a/b", "v1", content);
    for (what, len_bytes, count) in [
        ("256 MiB", 256u64 << 20, 2u64),
        ("64 KiB", 64 << 10, 4_000),
        ("4 KiB", 4 << 10, 8_000),
    ] {
        let tasks = (0..count)
            .map(|index| super::fills::task(len_bytes * 10 + index, &version, index * len_bytes, len_bytes))
            .collect();
        let started = Instant::now();
        let loaded = super::fills::load(&worker, tasks).await;
        assert!(loaded.iter().all(|outcome| *outcome == Ok(len_bytes)));
        let took = started.elapsed();
        rate(&format!("LoadBlocks {what}"), count, took);
        println!(
            "{:>64.0} MiB/s",
            (count * len_bytes) as f64 / took.as_secs_f64() / f64::from(1 << 20)
        );
    }
    worker.stop().await;
}
