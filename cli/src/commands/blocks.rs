use std::collections::HashMap;

use curvine_protocol::worker::{EXPLAINED_MAX, HeldAccount};
use curvine_protocol::{BlockId, FileLayout, LocatedBlock, Result, WorkerId};
use serde_json::{Value, json};

use crate::format;
use crate::shell::Shell;

/// Show the blocks of files, who holds them and in which tier
///
/// Tiers are what the workers say; one that does not answer has none, and one that says it has nothing is not shown. `SSD+MEM` is a block on SSD that is read from a copy in
/// MEM. JSON: an object a line with path, block_bytes, and blocks: index, id, length_bytes, generation, workers, tiers
/// (worker, tier, copy).
#[derive(clap::Args)]
#[command(after_help = "Example: cv blocks /data/big.bin")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        shell
            .each(&self.paths, async |path| {
                let layout = shell.client.locate(&path).await?;
                let held = held(shell, &layout).await;
                let blocks: Vec<_> = layout
                    .placed(0)
                    .map(|(index, located)| {
                        let on = |id: &WorkerId| address(&layout, *id);
                        let has = |id: &&WorkerId| held.get(&(**id, located.block.id)) != Some(&None);
                        let tier = |id: &WorkerId| -> Option<Value> {
                            let held = held.get(&(*id, located.block.id))?.as_ref()?;
                            let copy = held.copy.map(|tier| tier.to_string());
                            Some(json!({"worker": on(id), "tier": held.tier.to_string(), "copy": copy}))
                        };
                        json!({
                            "index": index, "id": located.block.id, "length_bytes": located.block.len_bytes,
                            "generation": located.block.generation,
                            "workers": located.workers.iter().filter(has).map(on).collect::<Vec<_>>(),
                            "tiers": located.workers.iter().filter_map(tier).collect::<Vec<_>>(),
                        })
                    })
                    .collect();
                let value = json!({"path": path, "block_bytes": layout.attr.block_bytes, "blocks": blocks});
                shell.answer(&value, || {
                    let row = |(index, located): (u32, &LocatedBlock)| {
                        let block = located.block;
                        let place = |id: &WorkerId| {
                            let worker = address(&layout, *id);
                            match held.get(&(*id, block.id)) {
                                Some(Some(held)) => Some(format!("{worker} {}", tiers(held))),
                                Some(None) => None,
                                None => Some(worker),
                            }
                        };
                        vec![
                            index.to_string(),
                            block.id.to_string(),
                            block.len_bytes.to_string(),
                            block.generation.to_string(),
                            located.workers.iter().filter_map(place).collect::<Vec<_>>().join(", "),
                        ]
                    };
                    let rows = layout.placed(0).map(row).collect();
                    let titles = ["Index", "Block", ">Length", ">Generation", "Workers"];
                    format!(
                        "{}: {} bytes in blocks of {}\n{}",
                        format::shown(path.as_str()),
                        layout.attr.size_bytes,
                        format::size(layout.attr.block_bytes, true),
                        format::table(&titles, rows)
                    )
                });
                Ok(())
            })
            .await;
        Ok(())
    }
}

fn tiers(held: &HeldAccount) -> String {
    match held.copy {
        Some(copy) => format!("{}+{copy}", held.tier),
        None => held.tier.to_string(),
    }
}

fn address(layout: &FileLayout, id: WorkerId) -> String {
    match layout.workers.iter().find(|worker| worker.id == id) {
        Some(worker) => worker.address.clone(),
        None => format!("worker {id}"),
    }
}

/// What each worker has of the blocks that it is said to hold, or is to fetch; of those that answer.
async fn held(shell: &Shell, layout: &FileLayout) -> HashMap<(WorkerId, BlockId), Option<HeldAccount>> {
    let mut asked: HashMap<WorkerId, Vec<BlockId>> = HashMap::new();
    for located in &layout.blocks {
        for worker in &located.workers {
            asked.entry(*worker).or_default().push(located.block.id);
        }
    }
    let mut held = HashMap::new();
    for (worker, blocks) in asked {
        for part in blocks.chunks(EXPLAINED_MAX) {
            // Where a block is can be shown without it.
            let Ok(accounts) = shell.client.explain_on(worker, part.to_vec()).await else {
                break;
            };
            for (block, account) in part.iter().zip(accounts) {
                held.insert((worker, *block), account.held);
            }
        }
    }
    held
}
