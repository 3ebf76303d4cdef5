//! What is pinned is not evicted, whatever else needs the room.

use bytes::Bytes;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{MarkBlocks, MarkedBlock, PinBlocks};
use curvine_protocol::{BlockId, CallContext};

use super::eviction::*;
use super::objects::fill;
use super::world::*;
use crate::kit::call;

impl Little {
    async fn pins(&self, block: u64, pinned: bool, number: u64) -> bool {
        let pin = PinBlocks {
            blocks: vec![BlockId(block)],
            pinned,
            number,
        };
        let answer = call(&*self.worker.port, pin, CallContext::default()).await;
        answer.unwrap().ordered[0]
    }

    /// Has everything go that may, by reading and by writing.
    async fn needs_all_the_room(&self) {
        self.reads_others().await;
        for block in 1..16 {
            // As many as fit.
            let _ = put(&*self.worker.port, block, 1, bytes_of(block, to_usize(MIB))).await;
        }
    }

    async fn reads_others(&self) {
        for _ in 0..2 {
            for block in 1..BLOCKS {
                self.reads(block).await;
            }
        }
    }
}

#[actix::test]
async fn a_pinned_block_stays_also_after_a_restart_and_a_late_word_changes_nothing() {
    let little = Little::start().await;
    assert!(!little.pins(100, true, 7).await, "it is not here");
    little.reads(0).await;
    assert!(little.pins(100, true, 7).await);
    let disk = little.disk().await;
    assert_eq!((disk.pinned_bytes, disk.cached_bytes), (MIB, 0));
    little.reads_others().await;
    assert!(little.has(0).await);
    let little = little.restart().await;
    assert_eq!(little.disk().await.pinned_bytes, MIB);
    assert!(!little.pins(100, false, 6).await, "that was said before");
    little.needs_all_the_room().await;
    assert!(little.has(0).await);
    assert!(little.pins(100, false, 7).await);
    assert_eq!(little.disk().await.pinned_bytes, 0);
    for block in 16..20 {
        let _ = put(&*little.worker.port, block, 1, bytes_of(block, to_usize(MIB))).await;
    }
    assert!(!little.has(0).await, "it may go now");
    let Little { mut worker, .. } = little;
    worker.stop().await;
}

#[actix::test]
async fn a_block_that_is_pinned_while_it_is_filled_stays_when_it_is_whole() {
    let mut little = Little::start().await;
    let port = &*little.worker.port;
    read(port, 100, 1, 0, 10, fill(10, 0)).await.unwrap();
    assert!(little.pins(100, true, 7).await);
    little.reads(0).await;
    little.needs_all_the_room().await;
    assert!(little.has(0).await);
    assert_eq!(little.disk().await.pinned_bytes, MIB);
    little.worker.stop().await;
}

#[actix::test]
async fn what_is_written_over_a_pinned_block_is_kept_and_the_pin_is_told_again() {
    let mut little = Little::start().await;
    let port = &*little.worker.port;
    little.reads(0).await;
    assert!(little.pins(100, true, 7).await);
    write(port, 100, 5, 5, MIB, Bytes::from_static(b"mine"))
        .await
        .unwrap();
    assert!(!little.pins(100, true, 8).await, "it is being written");
    seal(port, 100, 5, false).await.unwrap();
    assert!(little.pins(100, true, 8).await);
    assert_eq!(little.disk().await.pinned_bytes, 0, "it is kept");
    let mark = MarkBlocks {
        blocks: vec![MarkedBlock {
            block: BlockId(100),
            generation: 5,
            mount: None,
        }],
        cached: true,
        number: 9,
    };
    let marked = call(port, mark, CallContext::default()).await;
    assert!(marked.unwrap().marked[0]);
    assert_eq!(little.disk().await.pinned_bytes, MIB, "it is cached");
    little.needs_all_the_room().await;
    assert!(read(port, 100, 5, 5, 4, None).await.unwrap() == Bytes::from_static(b"mine"));
    little.worker.stop().await;
}
