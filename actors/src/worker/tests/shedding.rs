//! Replicas that go because others have enough.

use std::sync::Arc;

use bytes::Bytes;
use curvine_protocol::attr::WorkerAddress;
use curvine_protocol::number::to_usize;
use curvine_protocol::worker::{
    ConfirmReplicas, DeleteBlocks, MarkBlocks, MarkedBlock, SHED_MAX, ShedReplicas, SurplusReplica,
};
use curvine_protocol::{BlockId, BlockRef, CallContext, ErrorKind, Result, WorkerId};
use futures::future::join_all;

use super::world::*;
use crate::kit::call;
use crate::kit::until::until_some;
use crate::worker::WorkerHandle;

const LEN: usize = 70_000;

/// Workers that know each other, by their ids from 1 on.
struct Several {
    worlds: Vec<World>,
    workers: Vec<WorkerHandle>,
}

impl Several {
    async fn new(count: u32) -> Several {
        let peers = Peers::default();
        let mut several = Several {
            worlds: Vec::new(),
            workers: Vec::new(),
        };
        for id in 1..=count {
            let mut world = World::new();
            world.master.state.lock().unwrap().worker = id;
            world.peers = Arc::new(peers.clone());
            let worker = world.start(world.config()).await;
            peers.0.lock().unwrap().insert(WorkerId(id), worker.port.clone());
            several.worlds.push(world);
            several.workers.push(worker);
        }
        several
    }

    fn at(&self, id: u32) -> &WorkerHandle {
        &self.workers[to_usize(id.into()) - 1]
    }

    async fn put(&self, id: u32, block: u64, generation: u32, bytes: Bytes) {
        put(&*self.at(id).port, block, generation, bytes).await.unwrap();
    }

    async fn has(&self, id: u32, block: u64) -> bool {
        read_all(&*self.at(id).port, block, 0, None).await.is_ok()
    }

    async fn shed(&self, at: u32, blocks: &[u64], keepers: &[u32]) -> Result<Vec<bool>> {
        let order = ShedReplicas {
            blocks: blocks.iter().map(|block| surplus(*block, 4, keepers)).collect(),
            workers: keepers.iter().map(|id| address(*id)).collect(),
        };
        let shed = call(&*self.at(at).port, order, CallContext::default()).await;
        shed.map(|shed| shed.went)
    }
}

fn address(id: u32) -> WorkerAddress {
    WorkerAddress {
        id: WorkerId(id),
        address: "there".to_owned(),
        epoch: 0,
    }
}

fn surplus(block: u64, generation: u32, keepers: &[u32]) -> SurplusReplica {
    SurplusReplica {
        block: BlockRef {
            id: BlockId(block),
            len_bytes: LEN as u64,
            generation,
        },
        keepers: keepers.iter().map(|id| WorkerId(*id)).collect(),
    }
}

#[actix::test]
async fn a_replica_goes_if_all_keepers_have_the_same_and_its_master_hears_of_it() {
    let several = Several::new(3).await;
    for id in 1..=3 {
        several.put(id, 7, 4, bytes_of(7, LEN)).await;
    }
    several.put(1, 8, 4, bytes_of(8, LEN)).await;
    several.put(2, 8, 4, bytes_of(8, LEN)).await;
    assert_eq!(
        several.shed(1, &[7, 8, 9], &[2, 3]).await,
        Ok(vec![true, false, true])
    );
    assert!(!several.has(1, 7).await);
    assert!(several.has(1, 8).await, "worker 3 has not got it");
    let gone =
        |state: &MasterState| !state.held.contains_key(&BlockId(7)) && state.held.contains_key(&BlockId(8));
    several.worlds[0].until("the master knows", gone).await;
    // It comes twice.
    assert_eq!(several.shed(1, &[7], &[2, 3]).await, Ok(vec![true]));
    assert_eq!(several.shed(2, &[7], &[3]).await, Ok(vec![true]));
    assert_eq!(
        several.shed(3, &[7], &[2]).await,
        Ok(vec![false]),
        "it is the last"
    );
    assert_eq!(several.shed(3, &[7], &[1]).await, Ok(vec![false]));
    assert_eq!(
        read_all(&*several.at(3).port, 7, 4, None).await,
        Ok(bytes_of(7, LEN))
    );
}

#[actix::test]
async fn it_stays_where_a_keeper_has_something_else() {
    let several = Several::new(2).await;
    let here = 1..=7;
    for block in here.clone() {
        several.put(1, block, 4, bytes_of(block, LEN)).await;
    }
    // Older, newer, other bytes, shorter.
    several.put(2, 1, 3, bytes_of(1, LEN)).await;
    several.put(2, 2, 5, bytes_of(2, LEN)).await;
    several.put(2, 3, 4, bytes_of(9, LEN)).await;
    several.put(2, 4, 4, bytes_of(4, LEN - 1)).await;
    // Not sealed.
    write(&*several.at(2).port, 5, 4, 0, 0, bytes_of(5, LEN))
        .await
        .unwrap();
    // An object has it: it may go at any time.
    several.put(2, 6, 4, bytes_of(6, LEN)).await;
    let marked = vec![MarkedBlock {
        block: BlockId(6),
        generation: 4,
        mount: None,
    }];
    let cached = MarkBlocks {
        blocks: marked,
        cached: true,
        number: 1,
    };
    call(&*several.at(2).port, cached, CallContext::default())
        .await
        .unwrap();
    // Its last byte has rotted.
    several.put(2, 7, 4, bytes_of(7, LEN)).await;
    flip(&several.worlds[1].disk("d0"), 7, LEN - 1);
    for block in here {
        assert_eq!(
            several.shed(1, &[block], &[2]).await,
            Ok(vec![false]),
            "block {block}"
        );
        assert!(several.has(1, block).await, "block {block}");
    }
    let damaged = |state: &MasterState| state.damaged.contains(&BlockId(7));
    several.worlds[1].until("the rot is known", damaged).await;
}

#[actix::test]
async fn it_stays_where_it_was_written_since_or_another_answers_for_its_keeper() {
    let several = Several::new(3).await;
    for id in 1..=3 {
        several.put(id, 7, 4, bytes_of(7, LEN)).await;
    }
    for id in 1..=2 {
        write(&*several.at(id).port, 7, 5, 0, LEN as u64, bytes_of(8, 10))
            .await
            .unwrap();
    }
    assert_eq!(
        several.shed(1, &[7], &[2]).await,
        Ok(vec![false]),
        "it is being written"
    );
    for id in 1..=2 {
        seal(&*several.at(id).port, 7, 5, true).await.unwrap();
    }
    assert_eq!(
        several.shed(1, &[7], &[3]).await,
        Ok(vec![false]),
        "that is older"
    );
    assert!(several.has(1, 7).await);
    let mut order = ShedReplicas {
        blocks: vec![surplus(7, 5, &[2])],
        workers: vec![address(2)],
    };
    // Its process has another's address now.
    several.worlds[1].master.state.lock().unwrap().worker = 9;
    several.worlds[1].master.state.lock().unwrap().ask_to_register = true;
    until_some("it has another id", async || {
        let asked = ConfirmReplicas { blocks: Vec::new() };
        let said = call(&*several.at(2).port, asked, CallContext::default()).await;
        (said.ok()?.worker == WorkerId(9)).then_some(())
    })
    .await;
    let shed = call(&*several.at(1).port, order.clone(), CallContext::default()).await;
    assert_eq!(shed.map(|shed| shed.went), Ok(vec![false]));
    // Nobody says where the keeper is.
    order.workers.clear();
    let shed = call(&*several.at(1).port, order, CallContext::default()).await;
    assert_eq!(shed.map(|shed| shed.went), Ok(vec![false]));
}

#[actix::test]
async fn an_order_that_would_leave_none_is_refused() {
    let several = Several::new(2).await;
    several.put(1, 7, 4, bytes_of(7, LEN)).await;
    for keepers in [&[][..], &[1], &[1, 2], &[2, 2]] {
        let shed = several.shed(1, &[7], keepers).await;
        assert_eq!(
            shed.map_err(|error| error.kind),
            Err(ErrorKind::InvalidArgument),
            "{keepers:?}"
        );
    }
    let many: Vec<u64> = (0..=SHED_MAX as u64).collect();
    let shed = several.shed(1, &many, &[2]).await;
    assert_eq!(shed.map_err(|error| error.kind), Err(ErrorKind::InvalidArgument));
    assert!(several.has(1, 7).await);
}

#[actix::test]
async fn of_workers_that_shed_for_each_other_at_once_one_keeps_each_block() {
    let several = Several::new(3).await;
    let blocks: Vec<u64> = (1..=20).collect();
    let mut went = 0;
    for round in 0..10 {
        for id in 1..=3 {
            let puts = blocks
                .iter()
                .map(|block| several.put(id, *block, 4, bytes_of(*block, LEN)));
            join_all(puts).await;
        }
        let mut orders = Vec::new();
        for (at, keepers) in [(1, [2, 3]), (2, [3, 1]), (3, [1, 2])] {
            // Some come twice, and some for the sake of one other alone.
            let keepers = keepers[..1 + (round + to_usize(at.into())) % 2].to_vec();
            for order in blocks.chunks(7 + round) {
                let keepers = keepers.clone();
                let several = &several;
                orders.push(async move { several.shed(at, order, &keepers).await.unwrap() });
            }
        }
        let shed = join_all(orders).await;
        went += shed.into_iter().flatten().filter(|went| *went).count();
        for &block in &blocks {
            let has = join_all((1..=3).map(|id| several.has(id, block))).await;
            assert!(
                has.contains(&true),
                "nobody has block {block} after round {round}"
            );
        }
        for id in 1..=3 {
            let all = DeleteBlocks {
                blocks: blocks.iter().map(|block| BlockId(*block)).collect(),
            };
            call(&*several.at(id).port, all, CallContext::default())
                .await
                .unwrap();
        }
    }
    assert!(went > 0, "some went");
}
