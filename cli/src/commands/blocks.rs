use curvine_protocol::{FileLayout, LocatedBlock, Result};
use serde_json::json;

use crate::format;
use crate::shell::Shell;

/// Show the blocks of files and who holds them
///
/// JSON: an object a line with path, block_bytes, and blocks: index, id, length_bytes, generation, workers.
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
                let blocks: Vec<_> = layout
                    .placed(0)
                    .map(|(index, located)| {
                        json!({
                            "index": index, "id": located.block.id, "length_bytes": located.block.len_bytes,
                            "generation": located.block.generation, "workers": workers(&layout, located),
                        })
                    })
                    .collect();
                let value = json!({"path": path, "block_bytes": layout.attr.block_bytes, "blocks": blocks});
                shell.answer(&value, || {
                    let row = |(index, located): (u32, &LocatedBlock)| {
                        let block = located.block;
                        vec![
                            index.to_string(),
                            block.id.to_string(),
                            block.len_bytes.to_string(),
                            block.generation.to_string(),
                            workers(&layout, located).join(" "),
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

fn workers(layout: &FileLayout, located: &LocatedBlock) -> Vec<String> {
    let address = |id| match layout.workers.iter().find(|worker| worker.id == id) {
        Some(worker) => worker.address.clone(),
        None => format!("worker {id}"),
    };
    located
        .workers
        .iter()
        .map(|id| address(*id))
        .collect()
}
