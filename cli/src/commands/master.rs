use curvine_conf::Peer;
use curvine_protocol::cluster::MasterStatus;
use curvine_protocol::{NodeId, Result};

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
    /// Make a master that runs already a voter, once it is in step
    ///
    /// Start it first, with its own --id and --peers that name it and the others.
    #[command(after_help = "Example: cv master add 4=10.0.0.4:8995")]
    Add {
        /// Its id and where it listens
        #[arg(value_name = "ID=HOST:PORT")]
        master: Peer,
    },
    /// Take a master out of the group; stop it then
    #[command(after_help = "Example: cv master remove 4")]
    Remove {
        /// Its id
        id: u64,
    },
    /// Have another master lead
    #[command(after_help = "Example: cv master transfer-leader 2")]
    TransferLeader {
        /// Whom; without it, any that has everything
        id: Option<u64>,
    },
    /// Take a snapshot of the namespace on the leader now
    ///
    /// JSON: an object with log_index, the last log entry that is in it.
    #[command(after_help = "Example: cv master snapshot")]
    Snapshot,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let client = &shell.client;
        match self.what {
            What::Add { master } => return client.add_master(NodeId(master.id), &master.address.to_string()).await,
            What::Remove { id } => return client.remove_master(NodeId(id)).await,
            What::TransferLeader { id } => return client.transfer_leadership(id.map(NodeId)).await,
            What::Snapshot => {
                let log_index = client.take_snapshot().await?;
                let answer = serde_json::json!({ "log_index": log_index });
                shell.answer(&answer, || format!("snapshot up to log entry {log_index}"));
            }
            What::List => {
                let masters = client.status().await?.masters;
                shell.answer(&masters, || table(&masters));
            }
        }
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
