//! Files that a program reads itself, from what workers of its host lend it.

use std::collections::BTreeMap;

use curvine_actors::client::{Client, LocalFile};
use curvine_protocol::CurvinePath;
use curvine_protocol::master::AttrChange;
use curvine_protocol::mount::MountSettings;
use curvine_protocol::number::to_usize;

use super::group::*;
use super::support::*;

const MIB: u64 = 1 << 20;

fn at(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a valid path")
}

fn path() -> CurvinePath {
    at("/file")
}

fn content(seed: u64, len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + seed * 7 + (at >> 8)).to_le_bytes()[0])
        .collect()
}

/// A range of the file, as far as it is lent.
async fn read(local: &LocalFile, from: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; to_usize(len)];
    let got = local.read_at(from, &mut bytes).await?;
    bytes.truncate(got);
    Some(bytes)
}

async fn opened(client: &Client) -> LocalFile {
    let file = client.open(&path()).await.expect("it is there");
    let local = file.open_local().await.expect("a master leads");
    local.expect("it is not being written")
}

#[test]
fn a_program_reads_what_its_worker_lends_and_that_stays_though_others_write_the_file_and_the_worker_dies() {
    run(async {
        let masters = Masters::start(1);
        let mut worker = masters.worker(1);
        let (reader, writer) = (masters.client().await, masters.client().await);
        let before = content(1, 3 * MIB + 12_345);
        writer.write(&path(), before.clone()).await.expect("written");
        let local = opened(&reader).await;
        for (from, len) in [
            (0, 4 * MIB),
            (MIB + 7, 100),
            (70_000, 200_000),
            (3 * MIB, MIB),
            (65_535, 2),
        ] {
            let end = (from + len).min(before.len() as u64);
            let expected = &before[to_usize(from)..to_usize(end)];
            assert!(
                read(&local, from, len).await.as_deref() == Some(expected),
                "{from}"
            );
        }
        assert_eq!(read(&local, before.len() as u64, 10).await, None, "the end");
        let lent = |worker: &Node| {
            let (_, metrics) = worker.get("/metrics");
            let line = metrics
                .lines()
                .find(|line| line.starts_with("curvine_lent_blocks_total"));
            line.expect("it is counted").to_owned()
        };
        assert!(
            lent(&worker).ends_with(" 1"),
            "all of it by one descriptor: {}",
            lent(&worker)
        );

        // A descriptor that was lent is the old content, and the file another one.
        let file = writer.open_for_write(&path(), false).await.expect("leased");
        file.write_at(MIB, content(2, 1_000).into()).await.expect("taken");
        file.close().await.expect("closed");
        let mut after = before.clone();
        after[to_usize(MIB)..to_usize(MIB) + 1_000].copy_from_slice(&content(2, 1_000));
        let still = read(&local, MIB, 1_000).await;
        assert!(
            still.is_none_or(|bytes| bytes == content(1, 3 * MIB)[to_usize(MIB)..to_usize(MIB) + 1_000]),
            "as it was, or by way of the worker"
        );
        let again = opened(&reader).await;
        assert!(
            read(&again, MIB - 5, 2_000).await.as_deref()
                == Some(&after[to_usize(MIB) - 5..to_usize(MIB) + 1_995])
        );
        let cut = AttrChange {
            size_bytes: Some(100),
            ..AttrChange::default()
        };
        writer.set_attr(&path(), true, cut).await.expect("cut");
        let short = opened(&reader).await;
        assert!(
            read(&short, 0, 1_000)
                .await
                .is_none_or(|bytes| bytes == after[..100]),
            "no more than the file has"
        );

        writer.write(&path(), before.clone()).await.expect("written");
        let local = opened(&reader).await;
        assert!(read(&local, 0, MIB).await.as_deref() == Some(&before[..to_usize(MIB)]));
        worker.kill();
        let kept = read(&local, MIB, MIB).await;
        assert!(
            kept.as_deref() == Some(&before[to_usize(MIB)..to_usize(2 * MIB)]),
            "without the worker"
        );
        let worker = masters.worker(1);
        until("the worker that came back lends", async || {
            read(&opened(&reader).await, 0, 10)
                .await
                .map(|bytes| assert!(bytes == before[..10]))
        })
        .await;
        drop(worker);
    });
}

#[test]
fn what_was_fetched_of_a_mounted_store_is_lent_and_counts_as_read_here() {
    run(async {
        let masters = Masters::start(1);
        let worker = masters.worker(1);
        let client = masters.client().await;
        let store = tempfile::tempdir().expect("a temporary directory");
        let object = content(5, 2 * MIB + 77);
        std::fs::write(store.path().join("object"), &object).expect("written");
        let uri = format!("file://{}", store.path().display());
        let place = at("/m");
        let mounted = client.mount(&place, &uri, BTreeMap::new(), MountSettings::default());
        mounted.await.expect("it is a directory");
        let file = client.open(&at("/m/object")).await.expect("it is there");
        let local = file
            .open_local()
            .await
            .expect("a master leads")
            .expect("nobody writes it");
        assert_eq!(read(&local, 0, MIB).await, None, "nothing is here yet");
        let fetched = file.read_at(0, 3 * MIB).await.expect("fetched");
        assert!(fetched == object);
        until("it is lent", async || read(&local, 5, 100).await.map(drop)).await;
        assert!(read(&local, MIB, 2 * MIB).await.as_deref() == Some(&object[to_usize(MIB)..]));
        let hit_bytes = async || {
            let mounts = client.mounts().await.expect("a master leads");
            mounts[0].traffic.as_ref().map_or(0, |traffic| traffic.hit_bytes)
        };
        let before = hit_bytes().await;
        drop(local);
        until("what was read is counted", async || {
            (hit_bytes().await >= before + MIB + 177).then_some(())
        })
        .await;
        drop(worker);
        drop(file);
        client.close().await;
    });
}
