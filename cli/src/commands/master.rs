use std::path::{Path, PathBuf};

use curvine_conf::Peer;
use curvine_protocol::backup::BackupHeader;
use curvine_protocol::cluster::MasterStatus;
use curvine_protocol::{NodeId, Result};
use serde::Serialize;

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
        newcomer: Peer,
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
    /// Write the namespace as it is now into a local file, without stopping anything
    ///
    /// The file holds the credentials of mounts: its owner alone may read it.
    /// JSON: an object with file, cluster, version, time_ns, log_index, len_bytes.
    #[command(after_help = "Example: cv master backup /backups/curvine-$(date +%F)")]
    Backup {
        /// Where to
        file: PathBuf,
        /// Replace a file that is there
        #[arg(short, long)]
        force: bool,
    },
    /// Check a backup and make it the namespace of a new master's data directory
    ///
    /// No master is asked. All masters of the cluster have to be stopped for good.
    /// JSON: an object with file, data_dir, cluster, version, time_ns, log_index, len_bytes.
    #[command(after_help = "Example: cv master restore /backups/curvine-2026-01-31 --data-dir /var/lib/curvine")]
    Restore {
        /// The backup
        file: PathBuf,
        /// The --data-dir of the master to be; it has none of its data yet
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

impl Args {
    /// What asks no master: its outcome, else none.
    pub fn run_alone(&self, json: bool) -> Option<Result<()>> {
        match &self.what {
            What::Restore { file, data_dir } => Some(restore(file, data_dir, json)),
            _ => None,
        }
    }

    pub async fn run(self, shell: &Shell) -> Result<()> {
        let client = &shell.client;
        match self.what {
            What::Add { newcomer } => {
                let address = newcomer.address.to_string();
                return client.add_master(NodeId(newcomer.id), &address).await;
            }
            What::Remove { id } => return client.remove_master(NodeId(id)).await,
            What::TransferLeader { id } => return client.transfer_leadership(id.map(NodeId)).await,
            What::Snapshot => {
                let log_index = client.take_snapshot().await?;
                let answer = serde_json::json!({ "log_index": log_index });
                shell.answer(&answer, || format!("snapshot up to log entry {log_index}"));
            }
            What::Backup { file, force } => {
                let header = client.back_up(&file, force).await?;
                shell.answer(&BackupJson::new(&file, None, &header), || {
                    format!(
                        "{}: the namespace up to log entry {}, {}",
                        file.display(),
                        header.log_index,
                        format::size(header.len_bytes, true)
                    )
                });
            }
            What::Restore { .. } => unreachable!("it asks no master"),
            What::List => {
                let masters = client.status().await?.masters;
                shell.answer(&masters, || table(&masters));
            }
        }
        Ok(())
    }
}

fn restore(file: &Path, data_dir: &Path, json: bool) -> Result<()> {
    let header = curvine_actors::backup::place(file, data_dir)?;
    if json {
        let answer = BackupJson::new(file, Some(data_dir), &header);
        println!("{}", serde_json::to_string(&answer).expect("plain fields are plain JSON"));
        return Ok(());
    }
    println!(
        "Cluster {} as of {} UTC, log entry {}, is in {dir}.\n\
         Start its master alone; it takes the backup in:\n  \
           curvine-node --role master --id 1 --listen HOST:PORT --data-dir {dir}\n\
         Then start the others with empty data directories and --peers that name all, and add each:\n  \
           cv --master HOST:PORT master add 2=HOST:PORT",
        header.cluster,
        format::second(header.time_ns),
        header.log_index,
        dir = data_dir.display()
    );
    Ok(())
}

#[derive(Serialize)]
struct BackupJson<'a> {
    file: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<&'a Path>,
    #[serde(flatten)]
    header: &'a BackupHeader,
}

impl<'a> BackupJson<'a> {
    fn new(file: &'a Path, data_dir: Option<&'a Path>, header: &'a BackupHeader) -> Self {
        BackupJson { file, data_dir, header }
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
            master.role.to_string(),
            applied,
        ]
    };
    format::table(
        &["Id", "Address", "Role", ">Applied"],
        masters.iter().map(row).collect(),
    )
}
