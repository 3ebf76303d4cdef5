use curvine_protocol::Result;
use serde_json::json;

use super::report::state;
use crate::format;
use crate::shell::Shell;

/// List the nodes
///
/// JSON: an object a line with role (master, worker), id, address, state, and version of workers.
#[derive(clap::Args)]
#[command(after_help = "Example: cv node")]
pub struct Args {}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let status = shell.client.status().await?;
        if shell.json {
            for master in &status.masters {
                shell.json_line(&json!({
                    "role": "master", "id": master.id, "address": master.address, "state": master.role,
                }));
            }
            for worker in &status.workers {
                shell.json_line(&json!({
                    "role": "worker", "id": worker.id, "address": worker.address, "state": state(worker),
                    "version": worker.version,
                }));
            }
            return Ok(());
        }
        let row = |role: &str, id: String, address: &str, state: String| {
            vec![role.to_owned(), id, address.to_owned(), state]
        };
        let masters = status
            .masters
            .iter()
            .map(|master| row("master", master.id.to_string(), &master.address, master.role.to_string()));
        let workers = status
            .workers
            .iter()
            .map(|worker| row("worker", worker.id.to_string(), &worker.address, state(worker)));
        let rows = masters.chain(workers).collect();
        shell.line(format::table(&["Role", "Id", "Address", "State"], rows));
        Ok(())
    }
}
