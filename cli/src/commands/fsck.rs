use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use curvine_protocol::master::{BlockFault, CHECKED_MAX, Fault, HeldBlock, WronglyCached};
use curvine_protocol::number::to_u32;
use curvine_protocol::worker::ListBlocks;
use curvine_protocol::{BlockId, CurvinePath, Error, InodeId, Result, WorkerId};
use futures::StreamExt;
use serde_json::json;
use tokio::time::sleep;

use super::scrub::that_answer;
use crate::format;
use crate::shell::{Shell, naming};

/// What seems to be wrong is looked at again after this long: it may have been written a moment ago.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long repairs are waited for while nothing gets better.
const PATIENCE: Duration = Duration::from_secs(60);

/// Check that every block is where it should be
///
/// Compares what the masters know of files with what workers have said to hold; without a PATH, also everything that each
/// worker holds with the files. Reads no data: see `cv scrub`. Ends with 1 if something is wrong, and with another code than 0
/// if some of it could not be looked at, which is named.
///
/// missing: no worker has it. corrupt: its replicas failed their checksums. away: who has it is not there.
/// under-replicated: too few have it. orphaned: no file has it. outdated: a worker has an older version.
/// kept-as-cached: it might be evicted, and is nowhere else. cached-as-kept: it takes room for nothing.
///
/// JSON: an object a line for each fault with path, inode, index, block, what, replicas, wanted, workers; at the end one with
/// files, blocks, kept_blocks, workers, replicas, faults.
#[derive(clap::Args)]
#[command(after_help = "Example: cv fsck /data\n         cv fsck --repair")]
pub struct Args {
    path: Option<CurvinePath>,
    /// Have repaired what can be: replicas made, orphans deleted, kinds set right. Deletes no file
    #[arg(long)]
    repair: bool,
}

/// What was looked at.
#[derive(Default)]
struct Seen {
    files: u64,
    blocks: u64,
    kept_blocks: u64,
    workers: u64,
    replicas: u64,
    /// A new leader has not heard yet what every worker holds.
    is_early: bool,
    /// Why some of it was not looked at.
    failures: Vec<Error>,
}

impl Seen {
    fn is_whole(&self) -> bool {
        !self.is_early && self.failures.is_empty()
    }
}

/// Something that is wrong.
struct Found {
    /// None for a replica that a worker has.
    file: Option<(CurvinePath, InodeId)>,
    fault: BlockFault,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let mut seen = Seen::default();
        let top = self.path.clone().unwrap_or_else(CurvinePath::root);
        let mut found = files(shell, &top, &mut seen).await?;
        if self.path.is_none() {
            found.extend(workers(shell, &mut seen).await?);
        }
        if !found.is_empty() {
            sleep(LOOK_AGAIN).await;
            found = again(shell, found).await?;
        }
        if self.repair && !found.is_empty() {
            found = repaired(shell, found).await?;
        }
        // What cannot be repaired comes first.
        found.sort_by_key(|one| can_be_repaired(one.fault.what));
        for one in &found {
            say(shell, one);
        }
        let faults = found.len();
        let sums = json!({
            "files": seen.files, "blocks": seen.blocks, "kept_blocks": seen.kept_blocks, "workers": seen.workers,
            "replicas": seen.replicas, "faults": faults,
        });
        shell.answer(&sums, || {
            let mut words = format!(
                "{} files with {} blocks, {} of them in no other store",
                seen.files, seen.blocks, seen.kept_blocks
            );
            if self.path.is_none() {
                words += &format!("; {} replicas on {} workers", seen.replicas, seen.workers);
            }
            if seen.is_early {
                words += "; not every worker has said yet what it holds: look again in a minute";
            }
            match faults {
                0 if seen.is_whole() => words + ": nothing is wrong",
                0 => words + ": nothing wrong was found in what could be looked at",
                _ => format!("{words}: {faults} faults ({})", by_kind(&found)) + &advice(&found, self.repair),
            }
        });
        if faults > 0 {
            shell.exit_with(1);
        }
        for failure in &seen.failures {
            shell.failed(failure);
        }
        Ok(())
    }
}

/// What is wrong with the files at and below a path.
async fn files(shell: &Shell, top: &CurvinePath, seen: &mut Seen) -> Result<Vec<Found>> {
    let attr = shell.client.stat(top).await?;
    let mut found = Vec::new();
    let mut batch = Vec::new();
    if !attr.is_dir() {
        batch.push((top.clone(), attr.inode));
    } else {
        let mut walk = Box::pin(shell.client.walk(top));
        while let Some(entry) = walk.next().await {
            let (path, entry) = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    seen.failures.push(naming(error, top));
                    continue;
                }
            };
            if entry.attr.is_file() {
                batch.push((path, entry.attr.inode));
            }
            if batch.len() >= CHECKED_MAX {
                found.extend(check(shell, std::mem::take(&mut batch), seen).await?);
            }
        }
    }
    found.extend(check(shell, batch, seen).await?);
    Ok(found)
}

async fn check(shell: &Shell, batch: Vec<(CurvinePath, InodeId)>, seen: &mut Seen) -> Result<Vec<Found>> {
    let inodes = batch.iter().map(|(_, inode)| *inode).collect();
    let paths: HashMap<InodeId, CurvinePath> = batch.into_iter().map(|(path, inode)| (inode, path)).collect();
    let mut found = Vec::new();
    let checked = shell.client.check_files(inodes).await?;
    seen.is_early |= !checked.has_heard_all;
    for file in checked.files {
        seen.files += 1;
        seen.blocks += file.blocks;
        seen.kept_blocks += file.kept_blocks;
        let Some(path) = paths.get(&file.inode) else {
            continue;
        };
        found.extend(file.faults.into_iter().map(|fault| Found {
            file: Some((path.clone(), file.inode)),
            fault,
        }));
    }
    Ok(found)
}

/// What is wrong with what workers have.
async fn workers(shell: &Shell, seen: &mut Seen) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for worker in that_answer(shell.client.status().await?.workers, &mut seen.failures) {
        let listed = async {
            for disk in 0..to_u32(worker.disks.len()) {
                let mut after = None;
                loop {
                    let list = ListBlocks {
                        disk,
                        after,
                        limit: to_u32(CHECKED_MAX),
                    };
                    let page = shell.client.blocks_on(worker.id, list).await?;
                    seen.replicas += page.held.len() as u64;
                    found.extend(compare(shell, worker.id, page.held).await?);
                    match page.last {
                        Some(last) => after = Some(last),
                        None => break,
                    }
                }
            }
            Ok(())
        };
        match listed.await {
            Ok(()) => seen.workers += 1,
            Err(error) => seen.failures.push(naming(error, format!("worker {}", worker.id))),
        }
    }
    Ok(found)
}

async fn compare(shell: &Shell, worker: WorkerId, held: Vec<HeldBlock>) -> Result<Vec<Found>> {
    let faults = shell.client.check_held(held.clone()).await?;
    let found = held.into_iter().zip(faults).filter_map(|(held, what)| {
        let replica = held.replica;
        Some(Found {
            file: None,
            fault: BlockFault {
                index: 0,
                block: curvine_protocol::BlockRef {
                    id: replica.id,
                    len_bytes: replica.len_bytes,
                    generation: replica.generation,
                },
                what: what?,
                replicas: 1,
                wanted: 0,
                workers: vec![worker],
            },
        })
    });
    Ok(found.collect())
}

/// Looks again at what was wrong: what still is.
async fn again(shell: &Shell, before: Vec<Found>) -> Result<Vec<Found>> {
    let (of_files, of_workers): (Vec<_>, Vec<_>) = before.into_iter().partition(|found| found.file.is_some());
    let mut batch: Vec<_> = of_files.into_iter().filter_map(|found| found.file).collect();
    batch.sort_by_key(|(_, inode)| *inode);
    batch.dedup_by_key(|(_, inode)| *inode);
    let mut found = Vec::new();
    for part in batch.chunks(CHECKED_MAX) {
        found.extend(check(shell, part.to_vec(), &mut Seen::default()).await?);
    }
    let mut disks = HashMap::new();
    for worker in shell.client.status().await?.workers {
        disks.insert(worker.id, to_u32(worker.disks.len()));
    }
    for one in of_workers {
        let Some(&worker) = one.fault.workers.first() else {
            continue;
        };
        for disk in 0..disks.get(&worker).copied().unwrap_or(0) {
            let list = ListBlocks {
                disk,
                after: one.fault.block.id.0.checked_sub(1).map(BlockId),
                limit: 1,
            };
            let held = match shell.client.blocks_on(worker, list).await {
                Ok(page) => page.held,
                // It is gone with its worker.
                Err(_) => continue,
            };
            let held = held.into_iter().filter(|held| held.replica.id == one.fault.block.id);
            found.extend(compare(shell, worker, held.collect()).await?);
        }
    }
    Ok(found)
}

/// Has repaired what can be, for as long as it gets better; what is left.
async fn repaired(shell: &Shell, mut found: Vec<Found>) -> Result<Vec<Found>> {
    let kept = found.iter().filter(|found| found.fault.what == Fault::KeptAsCached);
    let kept = kept.take(CHECKED_MAX).filter_map(|found| {
        Some(WronglyCached {
            worker: *found.fault.workers.first()?,
            block: found.fault.block.id,
        })
    });
    shell.client.repair_now(kept.collect()).await?;
    // Since it got better last.
    let mut waited = Duration::ZERO;
    while found.iter().any(|found| can_be_repaired(found.fault.what)) && waited < PATIENCE {
        sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
        let before = found.len();
        found = again(shell, found).await?;
        if found.len() < before {
            waited = Duration::ZERO;
        }
    }
    Ok(found)
}

fn can_be_repaired(fault: Fault) -> bool {
    !matches!(fault, Fault::Missing | Fault::Corrupt | Fault::Away)
}

fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Missing => "missing",
        Fault::Corrupt => "corrupt",
        Fault::Away => "away",
        Fault::UnderReplicated => "under-replicated",
        Fault::Orphaned => "orphaned",
        Fault::Outdated => "outdated",
        Fault::KeptAsCached => "kept-as-cached",
        Fault::CachedAsKept => "cached-as-kept",
    }
}

fn by_kind(found: &[Found]) -> String {
    let mut kinds = BTreeMap::new();
    for one in found {
        *kinds.entry(one.fault.what).or_insert(0) += 1;
    }
    let words: Vec<_> = kinds.into_iter().map(|(what, count)| format!("{count} {}", word(what))).collect();
    words.join(", ")
}

/// What to do next.
fn advice(found: &[Found], repair: bool) -> String {
    let has = |kinds: &[Fault]| found.iter().any(|found| kinds.contains(&found.fault.what));
    let mut words = String::new();
    if has(&[Fault::Missing, Fault::Corrupt]) {
        words += "\nWhat is missing or corrupt cannot be made again: write these files anew, or remove them. What is left of \
                  corrupt blocks is in `quarantine/` of the workers' data directories.";
    }
    if has(&[Fault::Away]) {
        words += "\nWhat is away may come back: start the workers again whose numbers are named, and put back what they lack of \
                  their disks.";
    }
    if found.iter().any(|found| can_be_repaired(found.fault.what)) {
        words += match repair {
            false => "\nTo have repaired what can be, run `cv fsck --repair`.",
            true => "\nNot all that can be repaired was, in time: see `cv report`.",
        };
    }
    words
}

fn say(shell: &Shell, found: &Found) {
    let fault = &found.fault;
    let workers: Vec<_> = fault.workers.iter().map(ToString::to_string).collect();
    let value = json!({
        "path": found.file.as_ref().map(|(path, _)| path), "inode": found.file.as_ref().map(|(_, inode)| inode),
        "index": found.file.as_ref().map(|_| fault.index), "block": fault.block.id, "what": word(fault.what),
        "replicas": fault.replicas, "wanted": fault.wanted, "workers": fault.workers,
    });
    shell.answer(&value, || {
        let of = match &found.file {
            Some((path, _)) => format!("{} block {}", format::shown(path.as_str()), fault.index),
            None => "replica".to_owned(),
        };
        let mut words = format!("{}: {of} (id {})", word(fault.what), fault.block.id);
        if fault.what == Fault::UnderReplicated {
            words += &format!(", {} of {} replicas", fault.replicas, fault.wanted);
        }
        if !workers.is_empty() {
            words += &format!(", worker {}", workers.join(", "));
        }
        words
    });
}
