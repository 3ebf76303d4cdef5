use curvine_protocol::cluster::WorkerState;
use curvine_protocol::job::JobRecord;
use curvine_protocol::worker::{BlockAccount, Departure, EXPLAINED_MAX, Gone, HeldAccount};
use curvine_protocol::{BlockId, CurvinePath, Error, ErrorKind, FileLayout, LocatedBlock, Result};
use serde_json::{Value, json};

use crate::format;
use crate::shell::{Shell, naming};

/// Say where each block of a file is, or why it is not cached, and what to do next
///
/// Asks the workers themselves. What they say of reads and of blocks that went, they remember in memory, since they started.
/// JSON: an object a line with path, source (uri and key of the object, or null), blocks (index, id, length_bytes, kind, held, gone,
/// why), jobs (id and progress of those that load it), next. held: worker, address, disk, tier, present_bytes, is_sealed,
/// cached, pinned, came_ms, read_ms, copy and wished (tiers, or null). gone: worker, at_ms, why.
#[derive(clap::Args)]
#[command(after_help = "Example: cv why /data/train/part-0001")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let file = File::look(shell, path).await?;
                shell.answer(&file.json(), || file.words());
                Ok(())
            })
            .await;
        Ok(())
    }
}

/// What a worker says of a block.
struct Said {
    worker: String,
    account: BlockAccount,
}

struct File {
    path: CurvinePath,
    layout: FileLayout,
    /// The object's, for people.
    source: Option<String>,
    /// Of each block of the layout.
    said: Vec<Vec<Said>>,
    /// Jobs that load it now.
    jobs: Vec<JobRecord>,
}

impl File {
    async fn look(shell: &Shell, path: CurvinePath) -> Result<File> {
        let layout = shell.client.locate(&path).await?;
        if !layout.attr.is_file() {
            return Err(Error::new(
                ErrorKind::IsADirectory,
                format!("{path} has no blocks; name files, such as '{path}/*'"),
            ));
        }
        let source = match &layout.source {
            None => None,
            Some(source) => {
                let mounts = shell.client.mounts().await?;
                let mount = mounts.into_iter().find(|mount| mount.id == source.mount);
                mount.map(|mount| format!("{}/{}", mount.uri.trim_end_matches('/'), source.key))
            }
        };
        let jobs = shell.client.jobs().await?;
        let loads = |job: &JobRecord| {
            !job.state.is_ended() && job.paths.iter().any(|above| above.contains(&path))
        };
        let jobs = jobs.into_iter().filter(loads).collect();
        let said = ask(shell, &layout).await?;
        Ok(File {
            path,
            layout,
            source,
            said,
            jobs,
        })
    }

    fn blocks(&self) -> impl Iterator<Item = (u32, &LocatedBlock, &[Said])> {
        let placed = self.layout.placed(0).zip(&self.said);
        placed.map(|((index, located), said)| (index, located, said.as_slice()))
    }

    /// Whether the under file system has the block's bytes.
    fn is_of_object(&self, located: &LocatedBlock) -> bool {
        let source = self.layout.source.as_ref();
        source.is_some_and(|source| source.has(&located.block))
    }

    fn kind(&self, located: &LocatedBlock) -> &'static str {
        match self.is_of_object(located) {
            true => "cached",
            false => "kept",
        }
    }

    /// Why nobody has a block.
    fn why(&self, located: &LocatedBlock, said: &[Said]) -> String {
        if said.iter().any(|said| said.account.held.is_some()) {
            return String::new();
        }
        let gone = said.iter().filter_map(|said| Some((said, said.account.gone.as_ref()?)));
        let last = gone.max_by_key(|(_, gone)| gone.at_ms);
        match last {
            Some((said, gone)) => format!("{} from {}", went(gone), said.worker),
            None if self.is_of_object(located) => "never fetched, as far as the workers remember".to_owned(),
            None => "no worker that answers has it".to_owned(),
        }
    }

    /// What to do about it.
    fn next(&self) -> Vec<String> {
        let path = &self.path;
        let (mut fetched, mut lost) = (false, false);
        for (_, located, said) in self.blocks() {
            let is_whole = |held: &HeldAccount| held.present_bytes >= located.block.len_bytes;
            let is_here = said.iter().filter_map(|said| said.account.held.as_ref()).any(is_whole);
            match self.is_of_object(located) {
                _ if is_here || located.block.len_bytes == 0 => {}
                true => fetched = true,
                false => lost = true,
            }
        }
        let mut next = Vec::new();
        if lost {
            next.push(format!("cv fsck {path}    # says which workers should have it, and what can be repaired"));
        }
        if fetched && let Some(job) = self.jobs.first() {
            next.push(format!("cv load-status {} --watch    # it is being loaded", job.id));
        } else if fetched {
            next.push(format!("cv load {path}    # what is read is cached as well"));
            next.push(format!("cv pin {path}     # then it stays"));
        }
        next
    }

    fn json(&self) -> Value {
        let block = |(index, located, said): (u32, &LocatedBlock, &[Said])| {
            let held = said.iter().filter_map(|said| {
                let held = said.account.held.as_ref()?;
                Some(json!({
                    "worker": said.worker, "disk": held.disk, "tier": held.tier.to_string(),
                    "present_bytes": held.present_bytes, "is_sealed": held.is_sealed, "cached": held.cached,
                    "pinned": held.pinned, "came_ms": held.came_ms, "read_ms": held.read_ms,
                    "copy": held.copy.map(|tier| tier.to_string()), "wished": held.wished.map(|tier| tier.to_string()),
                }))
            });
            let gone = said.iter().filter_map(|said| {
                let gone = said.account.gone.as_ref()?;
                Some(json!({"worker": said.worker, "at_ms": gone.at_ms, "why": reason(gone.why)}))
            });
            json!({
                "index": index, "id": located.block.id, "length_bytes": located.block.len_bytes,
                "kind": self.kind(located), "held": held.collect::<Vec<_>>(), "gone": gone.collect::<Vec<_>>(),
                "why": self.why(located, said),
            })
        };
        let jobs = self.jobs.iter().map(|job| json!({"id": job.id, "percent": percent(job)}));
        json!({
            "path": self.path, "source": self.source, "blocks": self.blocks().map(block).collect::<Vec<_>>(),
            "jobs": jobs.collect::<Vec<_>>(), "next": self.next(),
        })
    }

    fn words(&self) -> String {
        let shown = format::shown(self.path.as_str());
        let mut text = match &self.source {
            Some(source) => format!("{shown}: {} bytes of {}", self.layout.attr.size_bytes, format::shown(source)),
            None => format!("{shown}: {} bytes", self.layout.attr.size_bytes),
        };
        let rows = self.blocks().flat_map(|(index, located, said)| {
            let head = [index.to_string(), format::size(located.block.len_bytes, true), self.kind(located).to_owned()];
            let held = said.iter().filter_map(|said| Some(where_it_is(&said.worker, said.account.held.as_ref()?)));
            let mut places: Vec<[String; 3]> = held.collect();
            if places.is_empty() {
                places.push(["nowhere".to_owned(), String::new(), self.why(located, said)]);
            }
            places.into_iter().map(move |place| head.iter().cloned().chain(place).collect())
        });
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() {
            return text + ": it has no blocks";
        }
        text += "\n";
        text += &format::table(&["Index", ">Length", "Kind", "Worker", "Disk", "Since"], rows);
        for job in &self.jobs {
            text += &format!("\njob {} loads it: {} % done", job.id, percent(job));
        }
        for next in self.next() {
            text += &format!("\nnext: {next}");
        }
        text
    }
}

/// What every worker that lives says of each block.
async fn ask(shell: &Shell, layout: &FileLayout) -> Result<Vec<Vec<Said>>> {
    let blocks: Vec<BlockId> = layout.blocks.iter().map(|located| located.block.id).collect();
    let mut said: Vec<Vec<Said>> = blocks.iter().map(|_| Vec::new()).collect();
    let workers = shell.client.status().await?.workers;
    for worker in workers.iter().filter(|worker| worker.state == WorkerState::Live) {
        for (part, places) in blocks.chunks(EXPLAINED_MAX).zip(said.chunks_mut(EXPLAINED_MAX)) {
            match shell.client.explain_on(worker.id, part.to_vec()).await {
                Ok(accounts) => {
                    for (place, account) in places.iter_mut().zip(accounts) {
                        if account != BlockAccount::default() {
                            place.push(Said { worker: worker.address.clone(), account });
                        }
                    }
                }
                Err(error) => {
                    shell.failed(&naming(error, format!("worker {}", worker.id)));
                    break;
                }
            }
        }
    }
    Ok(said)
}

/// The worker, its disk, and what else there is to say.
fn where_it_is(worker: &str, held: &HeldAccount) -> [String; 3] {
    let mut words = Vec::new();
    if held.pinned {
        words.push("pinned".to_owned());
    }
    if held.present_bytes < held.len_bytes {
        let (here, all) = (format::size(held.present_bytes, true), format::size(held.len_bytes, true));
        words.push(format!("{here} of {all} fetched"));
    } else if !held.is_sealed {
        words.push("being written".to_owned());
    }
    if let Some(tier) = held.copy {
        words.push(format!("read from a copy in {tier}"));
    }
    if let Some(tier) = held.wished.filter(|tier| *tier != held.tier) {
        words.push(format!("to be in {tier}"));
    }
    words.push(format!("came {}", time(held.came_ms)));
    words.push(match held.read_ms {
        Some(at_ms) => format!("read {}", time(at_ms)),
        None => "not read since the worker started".to_owned(),
    });
    [worker.to_owned(), format!("{} {}", held.tier, held.disk), words.join(", ")]
}

fn time(at_ms: i64) -> String {
    format::second(at_ms.saturating_mul(1_000_000))
}

fn reason(why: Gone) -> String {
    match why {
        Gone::Evicted => "evicted: something else needed the room".to_owned(),
        Gone::EvictedForLoad(job) => format!("evicted: load job {job} needed the room"),
        Gone::EvictedForQuota => "evicted for the mount's cache quota".to_owned(),
        Gone::EvictedToWatermark => "evicted: the disk was above its high watermark".to_owned(),
        Gone::Ordered => "freed by `cv free` or `cv ttl`, or the object was another one".to_owned(),
        Gone::Corrupt => "taken out of use: it failed its checksum, or its file was gone".to_owned(),
    }
}

fn went(gone: &Departure) -> String {
    format!("{}, at {}", reason(gone.why), time(gone.at_ms))
}

/// How far a job is.
fn percent(job: &JobRecord) -> u64 {
    let (done, total) = (job.progress.bytes_done, job.progress.bytes_total);
    done.saturating_mul(100).checked_div(total).unwrap_or(0)
}
