//! The cached blocks of a mount take no more than the worker's share of the mount's quota, and nothing is refused for it.

use curvine_protocol::master::CacheShare;
use curvine_protocol::mount::MountTraffic;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{ExplainBlocks, Gone, MarkBlocks, MarkedBlock, PinBlocks};
use curvine_protocol::{BlockId, CallContext, MountId};

use super::eviction::{BLOCKS, Little, MIB};
use super::world::*;
use crate::kit::call;
use crate::kit::until::{until, until_some};

/// That of all objects here.
const MOUNT: MountId = MountId(1);
const SHARE: u64 = 4 * MIB;

fn told(little: &Little, bytes: Option<u64>) {
    let shares = bytes.map(|bytes| CacheShare { mount: MOUNT, bytes });
    little.world.master.state.lock().unwrap().cache_shares = Some(shares.into_iter().collect());
}

fn counted(little: &Little) -> MountTraffic {
    let counted = little.worker.disks.counted();
    let of_mount = counted.into_iter().find(|(mount, _)| *mount == MOUNT);
    of_mount.map_or(MountTraffic::default(), |(_, traffic)| traffic)
}

async fn comes_down_to(little: &Little, bytes: u64) {
    let has_no_more = || counted(little).cached_bytes <= bytes;
    until("the mount has no more than that", has_no_more).await;
}

async fn when<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    until_some(what, || async { holds().await.then_some(()) }).await;
}

async fn here(little: &Little) -> Vec<u64> {
    let mut here = Vec::new();
    for block in 0..BLOCKS {
        here.extend(little.has(block).await.then_some(block));
    }
    here
}

#[actix::test]
async fn what_is_above_the_share_goes_and_reads_go_on() {
    let little = Little::start().await;
    for block in 0..8 {
        little.reads(block).await;
    }
    // The last one counts when its fill has ended, which is a moment after it was read.
    until("all of them count", || counted(&little).cached_bytes == 8 * MIB).await;
    assert_eq!(counted(&little).quota_evicted_bytes, 0);
    told(&little, Some(SHARE));
    comes_down_to(&little, SHARE).await;
    when("they have gone", || async { here(&little).await.len() == 4 }).await;
    for _ in 0..2 {
        for block in 0..BLOCKS {
            little.reads(block).await;
            // What was fetched right before may not have been let go of yet.
            assert!(counted(&little).cached_bytes <= SHARE + 2 * MIB, "block {block}");
        }
    }
    comes_down_to(&little, SHARE).await;
    assert!(counted(&little).quota_evicted_bytes >= 8 * MIB);
    // There was room for more on the disk.
    assert!(little.disk().await.room_bytes() > 8 * MIB);
    let here_now = here(&little).await;
    let gone = (0..BLOCKS).filter(|block| !here_now.contains(block));
    let blocks: Vec<_> = gone.map(|block| BlockId(100 + block)).collect();
    let explained = call(
        &*little.worker.port,
        ExplainBlocks { blocks },
        CallContext::default(),
    );
    let explained = explained.await.unwrap().blocks;
    // The fill of the last one may not have ended.
    let gone: Vec<_> = explained
        .into_iter()
        .filter(|account| account.held.is_none())
        .collect();
    assert!(gone.len() >= to_usize(BLOCKS) - 5);
    for account in gone {
        assert_eq!(account.gone.unwrap().why, Gone::EvictedForQuota);
    }

    // A restart knows of each block whose it is, also before the master says anything.
    let mut little = little.restart().await;
    assert_eq!(
        counted(&little).cached_bytes,
        here(&little).await.len() as u64 * MIB
    );
    told(&little, Some(2 * MIB));
    comes_down_to(&little, 2 * MIB).await;
    // Without a quota it fills the disk again.
    told(&little, None);
    when("it was heard", || async {
        little.reads_everything().await;
        counted(&little).cached_bytes > 8 * MIB
    })
    .await;
    little.worker.stop().await;
}

#[actix::test]
async fn what_is_kept_does_not_count_and_what_is_pinned_stays_and_counts() {
    let mut little = Little::start().await;
    let port = &*little.worker.port;
    // Written, and exported later.
    put(port, 1, 4, bytes_of(1, to_usize(MIB))).await.unwrap();
    little.reads(0).await;
    let pin = PinBlocks {
        blocks: vec![BlockId(100)],
        pinned: true,
        number: 3,
    };
    let pinned = call(port, pin, CallContext::default()).await.unwrap();
    assert_eq!(pinned.ordered, [true]);
    assert_eq!(counted(&little).cached_bytes, MIB);
    told(&little, Some(3 * MIB));
    when("it was heard", || async {
        little.reads_everything().await;
        counted(&little).cached_bytes <= 3 * MIB
    })
    .await;
    assert!(little.has(0).await, "it is pinned");
    assert!(read(port, 1, 4, 0, 5, None).await.is_ok(), "it is kept");
    // By now its mount's object has it.
    let mark = MarkBlocks {
        blocks: vec![MarkedBlock {
            block: BlockId(1),
            generation: 4,
            mount: Some(MOUNT),
        }],
        cached: true,
        number: 9,
    };
    let marked = call(port, mark, CallContext::default()).await.unwrap();
    assert_eq!(marked.marked, [true]);
    told(&little, Some(MIB));
    comes_down_to(&little, MIB).await;
    when("all but the pinned one have gone", || async {
        here(&little).await == [0]
    })
    .await;
    when("so has what was kept", || async {
        read(port, 1, 4, 0, 5, None).await.is_err()
    })
    .await;
    // Less than what is pinned: what is read passes by.
    told(&little, Some(1));
    when("it was heard", || async {
        little.reads(5).await;
        here(&little).await == [0]
    })
    .await;
    little.worker.stop().await;
}
