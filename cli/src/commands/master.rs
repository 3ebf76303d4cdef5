use curvine_protocol::Result;
use curvine_protocol::cluster::MasterStatus;

use crate::format;
use crate::shell::Shell;

/// Look after the group of masters
#[derive(clap::Args)]
#[command(after_help = "Example: cv master list")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the masters: who leads, and how far each has applied the log
    ///
    /// JSON: an array of objects with id, address, role (leader, follower, learner), applied_index, is_reachable.
    #[command(after_help = "Example: cv master list --json")]
    List,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let What::List = self.what;
        let masters = shell.client.status().await?.masters;
        shell.answer(&masters, || table(&masters));
        Ok(())
    }
}

/// The masters, one a line.
pub fn table(masters: &[MasterStatus]) -> String {
    let row = |master: &MasterStatus| {
        let applied = match master.is_reachable {
            true => master.applied_index.to_string(),
            false => "does not answer".to_owned(),
        };
        vec![
            master.id.to_string(),
            master.address.clone(),
            master.role.clone(),
            applied,
        ]
    };
    format::table(
        &["Id", "Address", "Role", ">Applied"],
        masters.iter().map(row).collect(),
    )
}
