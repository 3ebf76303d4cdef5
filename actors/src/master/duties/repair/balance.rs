//! Balances the workers, while an operator wants that: block after block is copied, and shed where it was.

use std::sync::MutexGuard;
use std::time::Duration;

use curvine_protocol::master::{BalanceOutcome, BalanceRun};
use curvine_protocol::op::Op;
use curvine_protocol::worker::SurplusReplica;
use curvine_protocol::{BlockRef, Result, WorkerId};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::{AT_ONCE, Repair};
use crate::kit::metrics;
use crate::master::blocks::balance::{Move, Moved, Plan, Presence};
use crate::master::contract::NamespaceView;

/// So long blocks are moved before it is looked again whether anything lacks replicas, which goes first.
const BURST: Duration = Duration::from_secs(20);
/// Until the next look, at least.
pub const BETWEEN_BURSTS: Duration = Duration::from_millis(1_500);
/// It ends after so many bursts in a row in which nothing could be moved.
const FRUITLESS_MAX: u32 = 10;

/// How far it is.
#[derive(Default)]
pub struct Balancing {
    /// It goes on.
    pub moves: bool,
    /// When it changed how full a worker is.
    moved_at: Option<Instant>,
    /// Bursts since then in which all moves failed.
    fruitless: u32,
}

/// What is to be done of it after one look.
pub struct Round {
    run: BalanceRun,
    /// None if no worker is off by too much.
    pub plan: Option<Plan>,
    /// How it ends if nothing is moved.
    ends: BalanceOutcome,
}

impl Repair {
    /// What is under way, if all workers that may be there have said how full they are since something was moved last.
    pub(super) fn balance_round(&self, last_worker: WorkerId) -> Result<Option<Round>> {
        let run = self.store.balance()?.run;
        let moved_at = {
            let mut balancing = self.balancing();
            balancing.moves = run.is_some();
            balancing.moved_at
        };
        let Some(run) = run else {
            return Ok(None);
        };
        let now = self.clock.now();
        let mut cluster = self.blocks.cluster();
        if cluster.moved.begun_ms != run.begun_ms {
            cluster.moved = Moved {
                begun_ms: run.begun_ms,
                ..Moved::default()
            };
        }
        let presence = cluster.presence(last_worker, now);
        if presence == Presence::SomeMayComeBack {
            return Ok(None);
        }
        let shares = cluster.shares(now);
        if moved_at.is_some_and(|moved_at| !cluster.have_said(&shares, moved_at)) {
            return Ok(None);
        }
        let plan = Plan::of(&shares, run.tolerance_percent);
        let ends = match (&plan, presence) {
            (None, Presence::All) => BalanceOutcome::Balanced,
            (None, _) => BalanceOutcome::OthersBalanced,
            (Some(_), _) => BalanceOutcome::NothingToMove,
        };
        Ok(Some(Round { run, plan, ends }))
    }

    /// After a look that found nothing else to do: moves what it found, or ends where that is nothing.
    pub(super) async fn balance(&self, round: Round, moves: Vec<(BlockRef, Move)>) -> Result<()> {
        let run = round.run;
        let is_stuck = self.balancing().fruitless >= FRUITLESS_MAX;
        if moves.is_empty() || is_stuck {
            let how = round.ends;
            tracing::info!("the workers are balanced no further: {how:?}");
            *self.balancing() = Balancing::default();
            let begun_ms = Some(run.begun_ms);
            let op = Op::EndBalance { begun_ms, how };
            return self.propose.propose_op(op).await.map(drop);
        }
        let until = self.clock.now() + BURST;
        let mut moving = stream::iter(moves)
            .take_while(|_| std::future::ready(self.clock.now() < until))
            .map(|(block, to)| async move { (block, self.move_block(block, to).await) })
            .buffer_unordered(AT_ONCE);
        let (mut moved, mut failed) = (0, 0);
        while let Some((block, outcome)) = moving.next().await {
            self.balancing().moved_at = Some(self.clock.now());
            let mut cluster = self.blocks.cluster();
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    moved += 1;
                    cluster.moved.blocks += 1;
                    cluster.moved.bytes += block.len_bytes;
                    metrics::BALANCED_BYTES.add(block.len_bytes);
                }
                Err(error) => {
                    failed += 1;
                    cluster.moved.failure = Some(error.message);
                }
            }
        }
        let mut balancing = self.balancing();
        balancing.fruitless = match moved {
            0 if failed > 0 => balancing.fruitless + 1,
            _ => 0,
        };
        Ok(())
    }

    /// Whether it is where it is to be, and not where it was.
    async fn move_block(&self, block: BlockRef, to: Move) -> Result<bool> {
        let Move { from, to, keepers } = to;
        if !self.copy_replica(&block, from, to).await? {
            return Ok(false);
        }
        let shed = self.shed_replicas(from, vec![SurplusReplica { block, keepers }]);
        Ok(shed.await? == 1)
    }

    pub(super) fn balancing(&self) -> MutexGuard<'_, Balancing> {
        self.balancing.lock().expect("nobody panics while holding this")
    }
}
