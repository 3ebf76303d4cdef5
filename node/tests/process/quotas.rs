//! Quotas of cache: what the cached blocks of a mount may take over all workers.

use std::collections::BTreeMap;

use curvine_actors::client::Client;
use curvine_protocol::CurvinePath;
use curvine_protocol::mount::{MountChanges, MountSettings, MountTraffic};

use super::group::*;
use super::support::*;

const MIB: u64 = 1 << 20;
const FILES: u64 = 24;
const QUOTA: u64 = 10 * MIB;

fn path(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a valid path")
}

fn content(file: u64) -> Vec<u8> {
    (0..MIB).map(|at| (at * 7 + file).to_le_bytes()[0]).collect()
}

async fn read_all(client: &Client, mount: &str) {
    for file in 0..FILES {
        let read = client.read(&path(&format!("{mount}/f{file}"))).await;
        assert!(read.expect("readable") == content(file), "{mount}/f{file}");
    }
}

async fn traffic(client: &Client, mount: &str) -> MountTraffic {
    let mounts = client.mounts().await.expect("a master leads");
    let found = mounts.into_iter().find(|found| found.path.as_str() == mount);
    found.and_then(|mount| mount.traffic).unwrap_or_default()
}

async fn until_cached(client: &Client, mount: &str, what: &str, holds: impl Fn(u64) -> bool) -> MountTraffic {
    until(what, async || {
        let traffic = traffic(client, mount).await;
        holds(traffic.cached_bytes).then_some(traffic)
    })
    .await
}

fn limit(bytes: u64) -> MountChanges {
    MountChanges {
        cache_quota_bytes: Some(bytes),
        ..MountChanges::default()
    }
}

#[test]
fn cached_blocks_of_a_mount_take_no_more_than_its_quota_over_all_workers_whoever_dies() {
    run(async {
        let mut masters = Masters::start(3);
        let client = masters.client().await;
        let mut workers = vec![masters.worker(1), masters.worker(2)];
        let bucket = tempfile::tempdir().expect("a scratch directory");
        for file in 0..FILES {
            std::fs::write(bucket.path().join(format!("f{file}")), content(file)).expect("room");
        }
        let uri = format!("file://{}", bucket.path().display());
        let settings = |cache_quota_bytes| MountSettings {
            cache_quota_bytes,
            ..MountSettings::default()
        };
        for (at, quota) in [("/limited", Some(QUOTA)), ("/free", None)] {
            let at = path(at);
            let mounted = client.mount(&at, &uri, BTreeMap::new(), settings(quota));
            mounted.await.expect("mounted");
        }
        read_all(&client, "/free").await;
        // Twice: what comes back is more than there may be.
        for _ in 0..2 {
            read_all(&client, "/limited").await;
        }
        let below = |bytes| (QUOTA / 2..=QUOTA).contains(&bytes);
        until_cached(&client, "/limited", "it keeps to its quota", below).await;
        // Each worker says by itself what it has evicted.
        until("all workers have said what they evicted", async || {
            let evicted = traffic(&client, "/limited").await.quota_evicted_bytes;
            (evicted >= (FILES - 10) * MIB).then_some(())
        })
        .await;
        let free = until_cached(&client, "/free", "the other is all there", |bytes| {
            bytes == FILES * MIB
        })
        .await;
        assert_eq!(free.quota_evicted_bytes, 0);

        let plan = client.plan_load(vec![path("/limited")]).await.expect("planned");
        let over = &plan.over_quota[0];
        assert_eq!((over.path.as_str(), over.quota_bytes), ("/limited", QUOTA));
        assert_eq!(
            (over.bytes, over.bytes_not_kept()),
            (FILES * MIB, FILES * MIB - QUOTA)
        );
        let job = client
            .submit_load(vec![path("/limited")])
            .await
            .expect("taken")
            .id;
        let ended = until("the load ends", async || {
            let job = client.job(job).await.ok()?;
            job.state.is_ended().then_some(job)
        })
        .await;
        assert_eq!(
            (ended.progress.files_failed, ended.progress.files_total),
            (0, FILES)
        );
        until_cached(&client, "/limited", "it keeps to its quota", below).await;

        // The next leader knows of the quota, and a worker that comes back of whose its blocks are.
        let led = leader(&client).await;
        masters.kill(led);
        read_all(&client, "/limited").await;
        until_cached(&client, "/limited", "it keeps to its quota", below).await;
        for worker in &mut workers {
            worker.kill();
            worker.start_again();
        }
        let after = until_cached(&client, "/limited", "they have said what they have", |bytes| {
            bytes > 0
        })
        .await;
        assert!(after.cached_bytes <= QUOTA, "{after:?}");
        read_all(&client, "/limited").await;
        until_cached(&client, "/limited", "it keeps to its quota", below).await;
        let shown = masters
            .nodes
            .iter()
            .flatten()
            .next()
            .expect("two are left")
            .get("/metrics")
            .1;
        let line = format!("curvine_mount_cache_quota_bytes{{mount=\"/limited\"}} {QUOTA}");
        assert!(shown.contains(&line), "{shown}");

        client
            .update_mount(&path("/limited"), limit(2 * MIB))
            .await
            .expect("updated");
        until_cached(&client, "/limited", "less is cached", |bytes| bytes <= 2 * MIB).await;
        client
            .update_mount(&path("/limited"), limit(0))
            .await
            .expect("updated");
        until("the workers have heard of it", async || {
            read_all(&client, "/limited").await;
            let cached = traffic(&client, "/limited").await.cached_bytes;
            (cached > QUOTA).then_some(())
        })
        .await;
        let free = traffic(&client, "/free").await;
        assert_eq!((free.cached_bytes, free.quota_evicted_bytes), (FILES * MIB, 0));
    });
}
