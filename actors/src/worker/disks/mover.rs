//! Moves blocks between the tiers of a worker, in the background: hot ones up, cold ones down.
//!
//! Every tick, at so many bytes a second:
//! 1. What is kept and was found in memory at the start leaves it.
//! 2. What is wished to be in another tier goes there, if there is room.
//! 3. Of a disk above its high watermark that has a slower one, what is coldest goes there until it is at the low one:
//!    cached blocks in the order of its policy, then kept ones that nobody reads. Where no slower disk has room, cached ones
//!    go for good.
//! 4. What is hot goes to the fastest tier that its readers wish for: if there is room below the high watermark, or in
//!    exchange for what is less than half as hot.
//!
//! Blocks whose bytes are in the index stay: they are in memory by that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture};
use curvine_protocol::cluster::Tier;
use curvine_protocol::{BlockId, ErrorKind, Result};

use super::Disks;
use super::moves::Moved;
use super::placement::{Wanted, above, below};
use crate::kit::metrics;
use crate::worker::disk::{Brief, Leaving};
use crate::worker::pace::Pace;

/// Blocks moved in a tick for one reason: others have their turn.
const MOVES_MAX: usize = 16;
/// Wishes that wait.
const WISHES_MAX: usize = 1 << 16;
/// Hot blocks looked at in a tick.
const HOT_MAX: usize = 64;
/// Of these, for so many others may have to leave.
const EXCHANGED_MAX: usize = 4;
/// Records looked at in a tick for kept blocks that nobody reads.
const LOOKED_AT_MAX: usize = 1_024;
/// A kept block this young does not sink: it may be read for the first time soon.
const YOUNG: Duration = Duration::from_secs(60);

/// See the module.
pub struct Mover {
    disks: Disks,
    tick: Duration,
    /// None: nothing is moved but what must leave memory.
    pace: Option<Arc<Pace>>,
    /// None while a round goes on.
    rest: Option<Rest>,
    stopping: Arc<AtomicBool>,
}

/// What is left for the next round.
struct Rest {
    /// What is kept and must leave memory.
    kept: VecDeque<BlockId>,
    /// Where blocks are wished to be.
    wishes: VecDeque<(BlockId, Option<Tier>)>,
    /// How far each disk was looked through for kept blocks.
    looked_at: Vec<Option<BlockId>>,
}

impl Mover {
    /// With what is in memory and should not be. Without a pace, nothing is moved but that.
    pub fn new(disks: Disks, kept: Vec<BlockId>, tick: Duration, pace: Option<Pace>) -> Self {
        let looked_at = vec![None; disks.all().len()];
        Mover {
            disks,
            tick,
            pace: pace.map(Arc::new),
            rest: Some(Rest {
                kept: kept.into(),
                wishes: VecDeque::new(),
                looked_at,
            }),
            stopping: Arc::default(),
        }
    }
}

impl Actor for Mover {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.disks.all().len() > 1 {
            ctx.run_interval(self.tick, |_, ctx| ctx.notify(MoveSome));
        }
    }
}

/// Moves what is due.
#[derive(Message)]
#[rtype(result = "()")]
struct MoveSome;

impl Handler<MoveSome> for Mover {
    type Result = ();

    fn handle(&mut self, _: MoveSome, ctx: &mut Self::Context) {
        let Some(rest) = self.rest.take() else {
            return;
        };
        let round = Round {
            disks: self.disks.clone(),
            pace: self.pace.clone(),
            stopping: self.stopping.clone(),
            rest,
        };
        let ended = |rest, actor: &mut Self, _: &mut Context<Self>| actor.rest = Some(rest);
        ctx.spawn(round.run().into_actor(self).map(ended));
    }
}

/// Begins no other move.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopMover;

impl Handler<StopMover> for Mover {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopMover, _: &mut Self::Context) -> Self::Result {
        self.stopping.store(true, Ordering::Release);
        let disks = self.disks.clone();
        Box::pin(async move {
            // What is being handed over ends.
            drop(disks.still().await);
        })
    }
}

struct Round {
    disks: Disks,
    pace: Option<Arc<Pace>>,
    stopping: Arc<AtomicBool>,
    rest: Rest,
}

impl Round {
    async fn run(mut self) -> Rest {
        self.leave_memory().await;
        self.grant_wishes().await;
        for number in 0..self.disks.all().len() {
            self.sink(number).await;
        }
        self.rise().await;
        self.rest
    }

    fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::Acquire)
    }

    fn moves_any(&self) -> bool {
        self.pace.is_some() && self.goes_on()
    }

    async fn leave_memory(&mut self) {
        self.rest.kept.extend(self.disks.rescued());
        for _ in 0..self.rest.kept.len() {
            let Some(block) = self.rest.kept.pop_front() else {
                return;
            };
            if !self.goes_on() {
                return self.rest.kept.push_front(block);
            }
            match self.disks.enter_to_change(block, true).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        "block {block} is nowhere but in memory, and stays there for now: {error}"
                    );
                    return self.rest.kept.push_back(block);
                }
            }
        }
    }

    /// Has blocks go where whoever read them last wishes them to be.
    async fn grant_wishes(&mut self) {
        for disk in self.disks.all() {
            let room = WISHES_MAX.saturating_sub(self.rest.wishes.len());
            self.rest
                .wishes
                .extend(disk.store.wishes().into_iter().take(room));
        }
        for _ in 0..MOVES_MAX {
            let next = self.rest.wishes.pop_front().filter(|_| self.moves_any());
            let Some((block, tier)) = next else {
                return;
            };
            if let Err(error) = self.grant_wish(block, tier).await {
                tracing::warn!("moving block {block} to where it is wished to be: {error}");
            }
        }
    }

    async fn grant_wish(&mut self, block: BlockId, tier: Option<Tier>) -> Result<()> {
        {
            let _entered = self.disks.enter_to_change(block, false).await?;
            let Some(place) = self.disks.place(block)? else {
                return Ok(());
            };
            let home = &self.disks.all()[place.home];
            if !home
                .on_lane(block, move |store| store.set_tier(block, tier))
                .await?
            {
                return Ok(());
            }
        }
        let (Some(tier), Some(place)) = (tier, self.disks.place(block)?) else {
            return Ok(());
        };
        let store = &self.disks.all()[place.home].store;
        let Some(brief) = store.brief(block)?.filter(|brief| !brief.flags.in_index) else {
            return Ok(());
        };
        let (statuses, is_too_fast) = (self.disks.unpromised(), store.tier() < tier);
        let candidates = match is_too_fast {
            true => below(&statuses, store.tier(), wanted(&brief), brief.len_bytes),
            false => above(&statuses, store.tier(), wanted(&brief)),
        };
        for to in candidates {
            let is_nearer = statuses[to].tier == tier || is_too_fast;
            if is_nearer && self.has_room(to, brief.len_bytes) && self.moves(block, place.home, to).await {
                break;
            }
        }
        Ok(())
    }

    /// Whether a block is on another disk now.
    async fn moves(&mut self, block: BlockId, from: usize, to: usize) -> bool {
        match self.disks.move_block(block, from, to, self.pace.as_deref()).await {
            Ok(Moved::There(bytes)) => {
                metrics::MOVED_BLOCKS.add(1);
                metrics::MOVED_BYTES.add(bytes);
                true
            }
            Ok(Moved::NotNow) => false,
            Err(error) => {
                if !matches!(error.kind, ErrorKind::NoSpace | ErrorKind::Busy) {
                    tracing::warn!("moving block {block}: {error}");
                }
                false
            }
        }
    }

    /// Has cold blocks go down from a disk that is above its watermark.
    async fn sink(&mut self, number: usize) {
        let store = self.disks.all()[number].store.clone();
        let mut wanted_bytes = store.above_watermark_bytes();
        if !store.sinks() {
            return;
        }
        // One at a time: what is on its way down makes no room for anybody else yet.
        while wanted_bytes > 0 && self.goes_on() {
            // With those that take nothing and are colder.
            let chosen = store.choose_to_leave(1, |_| true);
            let mut has_left = false;
            for leaving in chosen {
                wanted_bytes = wanted_bytes.saturating_sub(leaving.bytes);
                has_left |= self.sink_or_go(leaving, number).await;
            }
            if !has_left {
                break;
            }
        }
        if let Err(error) = self.sink_kept(number, wanted_bytes).await {
            tracing::warn!(
                "disk {}: looking for blocks that nobody reads: {error}",
                store.name()
            );
        }
    }

    /// A cached block goes to a slower disk, or for good. False if it stays.
    async fn sink_or_go(&mut self, leaving: Leaving, from: usize) -> bool {
        let block = leaving.block;
        let store = &self.disks.all()[from].store;
        let brief = store.brief(block).ok().flatten();
        let Some(brief) =
            brief.filter(|brief| brief.is_sealed && !brief.flags.guest && !brief.flags.in_index)
        else {
            leaving.let_go().await;
            return true;
        };
        let slower = match self.moves_any() {
            true => self.below(from, &brief),
            false => None,
        };
        match slower {
            None => {
                leaving.let_go().await;
                true
            }
            Some(to) if self.moves(block, from, to).await => true,
            Some(_) => {
                leaving.stays().await;
                false
            }
        }
    }

    /// Has kept blocks go down that nobody reads, of the next ones in the order of the index.
    async fn sink_kept(&mut self, from: usize, wanted_bytes: u64) -> Result<()> {
        let store = self.disks.all()[from].store.clone();
        // In memory there is none.
        if store.tier() == Tier::Mem || wanted_bytes == 0 {
            return Ok(());
        }
        let after = self.rest.looked_at[from];
        let (kept, last) = store.old_and_kept(after, LOOKED_AT_MAX, YOUNG)?;
        self.rest.looked_at[from] = last;
        let mut left_bytes = wanted_bytes;
        for (block, brief) in kept {
            if left_bytes == 0 || !self.moves_any() {
                // From here the next time.
                self.rest.looked_at[from] = Some(BlockId(block.0.saturating_sub(1)));
                break;
            }
            if self.disks.heat_of(block) >= 1.0 {
                continue;
            }
            if let Some(to) = self.below(from, &brief)
                && self.moves(block, from, to).await
            {
                left_bytes = left_bytes.saturating_sub(brief.len_bytes);
            }
        }
        Ok(())
    }

    /// The slower disk for a block that leaves one.
    fn below(&self, from: usize, brief: &Brief) -> Option<usize> {
        let tier = self.disks.all()[from].store.tier();
        let slower = below(&self.disks.unpromised(), tier, wanted(brief), brief.len_bytes);
        slower.first().copied()
    }

    /// Has hot blocks go up.
    async fn rise(&mut self) {
        if !self.disks.has_tiers() {
            return;
        }
        let (mut exchanged, mut risen) = (0, 0);
        for (block, heat) in self.disks.hottest(HOT_MAX) {
            if risen == MOVES_MAX || !self.moves_any() {
                return;
            }
            let place = self.disks.place(block).ok().flatten();
            let Some(place) = place.filter(|place| place.guest.is_none()) else {
                continue;
            };
            let store = &self.disks.all()[place.home].store;
            let brief = store.brief(block).ok().flatten();
            let Some(brief) = brief.filter(|brief| brief.is_sealed && !brief.flags.in_index) else {
                continue;
            };
            for to in above(&self.disks.unpromised(), store.tier(), wanted(&brief)) {
                let has_room = match self.has_room(to, brief.len_bytes) {
                    false if exchanged < EXCHANGED_MAX => {
                        exchanged += 1;
                        self.make_room(to, brief.len_bytes, heat).await
                    }
                    has_room => has_room,
                };
                if has_room && self.moves(block, place.home, to).await {
                    risen += 1;
                    break;
                }
            }
        }
    }

    fn has_room(&self, disk: usize, bytes: u64) -> bool {
        let store = &self.disks.all()[disk].store;
        store
            .room_below_high()
            .is_ok_and(|room_bytes| room_bytes >= bytes)
    }

    /// Has what is less than half as hot leave a disk, if that makes enough room.
    async fn make_room(&mut self, disk: usize, bytes: u64, heat: f64) -> bool {
        let store = self.disks.all()[disk].store.clone();
        let leaving = store.choose_to_leave(bytes, |block| self.disks.heat_of(block) * 2.0 < heat);
        let is_enough = leaving.iter().map(|leaving| leaving.bytes).sum::<u64>() >= bytes;
        for leaving in leaving {
            match is_enough {
                true => drop(self.sink_or_go(leaving, disk).await),
                false => leaving.stays().await,
            }
        }
        is_enough && self.has_room(disk, bytes)
    }
}

fn wanted(brief: &Brief) -> Wanted {
    Wanted {
        kept: !brief.flags.from_ufs,
        tier: brief.flags.tier,
    }
}
