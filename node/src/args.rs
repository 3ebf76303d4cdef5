//! The command line. Every flag is a key of the configuration under a shorter name.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use curvine_conf::Sources;

/// A node of a Curvine cluster: master, worker, FUSE mount, or all of them in one process.
#[derive(Debug, Parser)]
#[command(
    name = "curvine-node",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  \
        curvine-node --data-dir ./curvine-data --mount-point ./mnt\n  \
        curvine-node --role master --listen 10.0.0.1:8995 --data-dir /var/lib/curvine\n  \
        curvine-node --role worker --master 10.0.0.1:8995 --listen 10.0.0.2:8996 --data-dir /var/lib/curvine\n  \
        curvine-node --role fuse --master 10.0.0.1:8995 --mount-point /mnt/curvine\n\n\
        Every key of the configuration can also be set as a variable, CURVINE_SECTION_KEY: see `config-reference`."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What this process is.
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,

    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "CURVINE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where to keep data [default: ./curvine-data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,

    /// This master's number in its group, from 1 on [default: 1].
    #[arg(long, value_name = "N")]
    id: Option<String>,

    /// Where the master (with --role worker: the worker) listens; port 0 picks a free one
    /// [default: 127.0.0.1:8995, a worker 127.0.0.1:8996].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// With --role all: where the worker listens [default: 127.0.0.1:8996].
    #[arg(long, value_name = "ADDR")]
    worker_listen: Option<String>,

    /// All masters of the group: 1=HOST:PORT,2=HOST:PORT,...
    #[arg(long, value_name = "ID=ADDR,...")]
    peers: Option<String>,

    /// The masters, for a worker or a mount [default: 127.0.0.1:8995].
    #[arg(long, value_name = "ADDR,...", env = "CURVINE_MASTER")]
    master: Option<String>,

    /// The address that clients reach this worker at, if not the one it listens on.
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,

    /// The worker's data directories: `[MEM:1GB]DIR,[SSD:100GB]DIR,[HDD]DIR` [default: one SSD directory in --data-dir].
    #[arg(long, value_name = "DIRS")]
    data_dirs: Option<String>,

    /// Where the worker stands: `host=NAME,rack=NAME` [default: the machine's name, and no rack].
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,

    /// Where to mount the file system; made if it is missing.
    #[arg(long, value_name = "DIR")]
    mount_point: Option<String>,

    /// Let other users into the mount.
    #[arg(long)]
    allow_other: bool,

    /// Where the status page and /metrics are; `off` for none [default: 127.0.0.1:8990].
    #[arg(long, value_name = "ADDR")]
    web: Option<String>,

    /// error, warn, info, debug, trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// text or json [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    All,
    Master,
    Worker,
    Fuse,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::All => "all",
            Role::Master => "master",
            Role::Worker => "worker",
            Role::Fuse => "fuse",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the configuration reference; with --sample, a curvine.toml with every key.
    ConfigReference {
        #[arg(long)]
        sample: bool,
    },
}

impl Args {
    /// The configuration's sources that this command line names.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::system(self.config.clone());
        let listen_key = match self.role {
            Role::Worker => "worker.listen",
            Role::All | Role::Master | Role::Fuse => "master.listen",
        };
        let allow_other = self.allow_other.then(|| "true".to_owned());
        let flags = [
            ("data_dir", "--data-dir", &self.data_dir),
            ("master.id", "--id", &self.id),
            (listen_key, "--listen", &self.listen),
            ("worker.listen", "--worker-listen", &self.worker_listen),
            ("master.peers", "--peers", &self.peers),
            ("client.masters", "--master", &self.master),
            ("worker.advertise", "--advertise", &self.advertise),
            ("worker.data_dirs", "--data-dirs", &self.data_dirs),
            ("worker.labels", "--labels", &self.labels),
            ("fuse.mount_point", "--mount-point", &self.mount_point),
            ("fuse.allow_other", "--allow-other", &allow_other),
            ("web.listen", "--web", &self.web),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ];
        for (key, flag, value) in flags {
            sources.flag(key, flag, value.clone());
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn listen_is_the_role_s_own_address() {
        let of = |args: &[&str]| {
            let sources = Args::parse_from(args).sources();
            let config = curvine_conf::load(&Sources {
                environment: Vec::new(),
                ..sources
            })
            .expect("valid")
            .config;
            (config.master.listen.to_string(), config.worker.listen.to_string())
        };
        let worker = of(&["curvine-node", "--role", "worker", "--listen", "127.0.0.1:7"]);
        assert_eq!(worker, ("127.0.0.1:8995".to_owned(), "127.0.0.1:7".to_owned()));
        let all = of(&[
            "curvine-node",
            "--listen",
            "127.0.0.1:7",
            "--worker-listen",
            "127.0.0.1:8",
        ]);
        assert_eq!(all, ("127.0.0.1:7".to_owned(), "127.0.0.1:8".to_owned()));
    }
}
