//! One report of blocks to the master, in parts; what its answers do not want is deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use curvine_protocol::cluster::BlockReplica;
use curvine_protocol::master::ReportBlocks;
use curvine_protocol::{BlockId, Result};

use super::{Session, ask_master};
use crate::kit::ports::offloaded;
use crate::kit::{MasterRef, Offload};
use crate::worker::disk::{BlockNews, Removal};
use crate::worker::disks::Disks;

/// Blocks in one part: masters take them one after another, and of a hundred workers that report at once each waits for the
/// others, not longer than its deadline.
pub const REPORT_PART: usize = 1_024;

/// One report under way.
pub struct Report {
    pub session: Session,
    pub master: MasterRef,
    pub disks: Disks,
    pub blocking: Arc<dyn Offload>,
    /// Of parts, from one report to the next.
    pub numbers: Arc<AtomicU64>,
}

impl Report {
    /// All that is in the indexes when this comes to them.
    ///
    /// # Errors
    /// Those of the master and of the disks.
    pub async fn everything(&self) -> Result<()> {
        // A block that went from a disk that is still to come to one that is done would be missed.
        let _still = self.disks.still().await;
        let mut start = true;
        let mut damaged = BTreeSet::new();
        for disk in self.disks.all() {
            let mut after = None;
            loop {
                let store = disk.store.clone();
                let page = offloaded(&*self.blocking, move || store.replicas(after, REPORT_PART));
                let (mut stored, last) = match page.await? {
                    Ok(page) => page,
                    // It takes its blocks down alone: the master hears of those that the others have.
                    Err(error) => {
                        disk.store.cannot_be_read(&error);
                        break;
                    }
                };
                let Some(last) = last else { break };
                after = Some(last);
                if disk.store.has_failed() {
                    // Not what another disk of this worker has as well.
                    let is_all = |(replica, _): &(BlockReplica, _)| {
                        self.disks.is_home(disk, replica.id).unwrap_or(true)
                    };
                    stored.retain(is_all);
                }
                let kept = ReportBlocks::bits(stored.iter().map(|(_, flags)| !flags.from_ufs));
                let pinned = bits_if_any(stored.iter().map(|(_, flags)| flags.pinned));
                let endangered = |(replica, _): &(BlockReplica, _)| disk.store.is_endangered(replica.id);
                let endangered = bits_if_any(stored.iter().map(endangered));
                let doubtful = stored.iter().filter(|(_, flags)| flags.doubtful);
                let doubtful = doubtful.map(|(replica, _)| replica.id).collect();
                let stored = stored.into_iter().map(|(replica, _)| replica).collect();
                let part = ReportBlocks {
                    kept,
                    doubtful,
                    pinned,
                    endangered,
                    ..self.of(stored, Vec::new())
                };
                self.part(std::mem::take(&mut start), false, part).await?;
            }
            let store = disk.store.clone();
            match offloaded(&*self.blocking, move || store.set_aside()).await? {
                Ok(set_aside) => damaged.extend(set_aside),
                Err(error) => disk.store.cannot_be_read(&error),
            }
        }
        let last = ReportBlocks {
            damaged: damaged.into_iter().collect(),
            ..self.of(Vec::new(), Vec::new())
        };
        self.part(start, true, last).await
    }

    /// What became of these blocks.
    ///
    /// # Errors
    /// Those of the master, and of deleting what it does not want.
    pub async fn changes(&self, news: &HashMap<BlockId, BlockNews>) -> Result<()> {
        let mut all: Vec<_> = news.values().copied().collect();
        while !all.is_empty() {
            let part = all.split_off(all.len().saturating_sub(REPORT_PART));
            let (mut stored, mut removed) = (Vec::new(), Vec::new());
            let (mut doubtful, mut damaged) = (Vec::new(), Vec::new());
            let mut endangered = BTreeSet::new();
            for news in part {
                match news {
                    BlockNews::Stored(replica) => stored.push(replica),
                    BlockNews::Endangered(replica) => {
                        endangered.insert(replica.id);
                        stored.push(replica);
                    }
                    BlockNews::Doubtful(replica) => {
                        doubtful.push(replica.id);
                        stored.push(replica);
                    }
                    BlockNews::Removed(block) => removed.push(block),
                    BlockNews::Damaged(block) => {
                        removed.push(block);
                        damaged.push(block);
                    }
                    // These are not news of a block.
                    BlockNews::Everything => {}
                }
            }
            let endangered = bits_if_any(stored.iter().map(|replica| endangered.contains(&replica.id)));
            let part = ReportBlocks {
                doubtful,
                damaged,
                endangered,
                ..self.of(stored, removed)
            };
            self.part(false, false, part).await?;
        }
        Ok(())
    }

    /// A part that says this, and has no number yet.
    fn of(&self, stored: Vec<BlockReplica>, removed: Vec<BlockId>) -> ReportBlocks {
        ReportBlocks {
            stored,
            removed,
            ..ReportBlocks::nothing(self.session.worker, self.session.token)
        }
    }

    async fn discard(&self, blocks: BTreeSet<BlockId>) -> Result<()> {
        let stores: Vec<_> = self.disks.all().iter().map(|disk| disk.store.clone()).collect();
        let discard = move || stores.iter().try_for_each(|store| store.discard_aside(&blocks));
        offloaded(&*self.blocking, discard).await?
    }

    async fn part(&self, full_start: bool, full_end: bool, part: ReportBlocks) -> Result<()> {
        let reported: HashMap<_, _> = part
            .stored
            .iter()
            .map(|replica| (replica.id, replica.generation))
            .collect();
        let report = ReportBlocks {
            full_start,
            full_end,
            number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1,
            ..part
        };
        let answer = ask_master(self.master.clone(), report).await?;
        self.disks.accept(&answer.accept).await?;
        if !answer.discard.is_empty() {
            self.discard(answer.discard.into_iter().collect()).await?;
        }
        // What the master does not want is what it was told of: a block that was written again since is another.
        let unwanted: Vec<_> = answer
            .delete
            .into_iter()
            .filter_map(|block| {
                let upto_generation = Some(*reported.get(&block)?);
                Some(Removal {
                    block,
                    upto_generation,
                })
            })
            .collect();
        match unwanted.is_empty() {
            true => Ok(()),
            false => self.disks.remove(unwanted).await,
        }
    }
}

/// A bit for each block, nothing if none is set.
fn bits_if_any(of_blocks: impl Iterator<Item = bool> + Clone) -> Vec<u8> {
    match of_blocks.clone().any(|set| set) {
        true => ReportBlocks::bits(of_blocks),
        false => Vec::new(),
    }
}
