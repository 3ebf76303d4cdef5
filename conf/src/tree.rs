//! The tree itself. What a key means is said here and nowhere else.

use curvine_protocol::Result;
use serde::{Deserialize, Serialize};

use crate::data_dir::DataDir;
use crate::labels::WorkerLabels;
use crate::section::{Field, Range, section, text};
use crate::units::{
    Address, Advertise, EvictionPolicy, FsyncPolicy, LogFormat, LogLevel, Peer, Reserve, Size, Span,
    WebAddress,
};

/// Everything a node, a mount or `cv` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub node: NodeSection,
    pub master: MasterSection,
    pub worker: WorkerSection,
    pub client: ClientSection,
    pub fuse: FuseSection,
    pub web: WebSection,
    pub log: LogSection,
}

/// A section, for documentation and for turning names into keys. The top of the file has the name "".
pub struct Section {
    pub name: &'static str,
    pub about: &'static [&'static str],
    pub fields: Vec<Field>,
}

impl Config {
    /// Reads every key.
    ///
    /// # Errors
    /// `Config`, naming where it was set, the key and what is wrong.
    pub(crate) fn read(figment: &figment::Figment) -> Result<Config> {
        Ok(Config {
            node: NodeSection::read(figment, "")?,
            master: MasterSection::read(figment, "master")?,
            worker: WorkerSection::read(figment, "worker")?,
            client: ClientSection::read(figment, "client")?,
            fuse: FuseSection::read(figment, "fuse")?,
            web: WebSection::read(figment, "web")?,
            log: LogSection::read(figment, "log")?,
        })
    }

    /// Every section in the order of the file.
    pub fn sections() -> Vec<Section> {
        macro_rules! sections {
            ($($name:literal $type:ident),*) => {
                vec![$(Section { name: $name, about: $type::ABOUT, fields: $type::fields() }),*]
            };
        }
        sections![
            "" NodeSection, "master" MasterSection, "worker" WorkerSection, "client" ClientSection,
            "fuse" FuseSection, "web" WebSection, "log" LogSection
        ]
    }
}

section! {
    /// The node as a whole.
    NodeSection {
        /// Where the node keeps its data: a master in `DIR/master`, a worker (unless `worker.data_dirs` says
        /// otherwise) in `DIR/worker`. Made if it is missing, readable by its owner only.
        data_dir: String = "./curvine-data".to_owned();
        /// The cluster that this node must belong to: 32 hexadecimal digits, as `cv report` shows them. A data
        /// directory of another cluster is refused. Empty = the one that the data directory belongs to.
        cluster: String = String::new();
        /// Threads that serve the connections of a master and of a worker, each of which stays on one. 0 = one a core.
        threads: u64 = 0, Range::of("0", "1024");
    }
}

section! {
    /// A master: keeps the namespace.
    MasterSection {
        /// The master's number in its group, from 1 on. Never reused for another machine.
        id: u64 = 1, Range::from("1");
        /// Where the master listens. Port 0 picks a free one and prints it.
        listen: Address = text("127.0.0.1:8995");
        /// All masters of the group, this one included: `["1=host:port", ...]`. Empty = this one alone.
        peers: Vec<Peer> = Vec::new();
        /// The block size of files whose creator names none. A file in a mount gets one that fits its length.
        block_size: Size = text("128MiB"), Range::in_steps("64KiB", "4GiB", "64KiB");
        /// On how many workers a block is kept, unless the file's creator says otherwise.
        replicas: u64 = 1, Range::of("1", "255");
        /// Percent of the workers' capacity that `cv pin` may keep from being evicted.
        pin_limit: u64 = 50, Range::of("0", "100");
        /// How many more workers than usual have a block while it is read again and again, at most; 0 = none.
        hot_copies: u64 = 2, Range::of("0", "16");
    }
}

section! {
    /// A worker: keeps block data.
    WorkerSection {
        /// Where the worker listens. Port 0 picks a free one and prints it.
        listen: Address = text("127.0.0.1:8996");
        /// The `host:port` that clients reach the worker at, where it differs from `listen` (for instance because
        /// that is `0.0.0.0`). Empty = as `listen`.
        advertise: Advertise = text("");
        /// The directories for block data, each with its tier and, if it should not grow to the device's free space,
        /// its capacity: `["[MEM:1GB]/dev/shm/curvine", "[SSD:100GB]/data/ssd", "[HDD]/data/hdd"]`.
        /// Empty = `["[SSD]DIR/worker"]` in the node's data directory.
        data_dirs: Vec<DataDir> = Vec::new(), Range::from("1MiB");
        /// Free space that is left on each device, so that the disk never fills up: a size, or `auto` for 1 % of the
        /// device and at least 1 GiB.
        reserve: Reserve = text("auto"), Range::of("0B", "1PiB");
        /// When block data is forced to the disk without being asked to: `never` (the kernel decides), `periodic` (in
        /// the background, each second), `on_close` (before the close of a file is acknowledged). An `fsync` by the user
        /// is always honoured.
        fsync: FsyncPolicy = text("periodic");
        /// Memory for data on its way from under file systems to the disks.
        fill_buffers: Size = text("64MiB"), Range::of("1MiB", "64GiB");
        /// Bytes a second that each data directory's scrubber reads to find bit rot before a reader does; `0B` = none.
        scrub: Size = text("4MiB"), Range::of("0B", "16GiB");
        /// Which cached blocks go first when a data directory needs room: `s3_fifo` (what was read once before what was
        /// read again; of data that is read over and over and does not fit, a fixed part stays), `lru` (what was not read
        /// for longest) or `lfu` (what was read least often). Blocks whose bytes no under file system has never go.
        eviction: EvictionPolicy = text("s3_fifo");
        /// Percent of a data directory that may be used before cached blocks go in the background. A writer that comes
        /// before that has them go at once.
        evict_high: u64 = 95, Range::of("1", "100");
        /// Percent of a data directory that is used when that ends. It is less than `evict_high`.
        evict_low: u64 = 90, Range::of("0", "99");
        /// Bytes a second that go between data directories of different tiers, hot blocks up and cold ones down; `0B` =
        /// they stay.
        moves: Size = text("64MiB"), Range::of("0B", "16GiB");
        /// Bytes a second that this worker copies from others, to make replicas of which there are too few; `0B` = as
        /// fast as it can.
        copies: Size = text("0B"), Range::of("0B", "64GiB");
        /// Where the worker stands, as `host=NAME,rack=NAME` or one of the two. Replicas of a block go to different racks
        /// where they can, and to different hosts. Without `host`, it is the machine's name; without `rack`, the worker is
        /// in one of its own.
        labels: WorkerLabels = text("");
        /// How often the worker tells the master that it lives and how much space it has.
        heartbeat: Span = text("1s"), Range::of("100ms", "5s");
    }
}

section! {
    /// Whoever calls a master: workers, mounts, `cv`.
    ClientSection {
        /// The masters: `["host:port", ...]`. `CURVINE_MASTER=host:port,...` sets the same.
        masters: Vec<Address> = vec![text("127.0.0.1:8995")];
        /// How long a new client tries to reach a master before it gives up.
        connect_timeout: Span = text("4s"), Range::of("100ms", "1h");
        /// How long an operation is retried (a new leader, a restarted master) before it fails.
        operation_timeout: Span = text("30s"), Range::of("0s", "1day");
        /// The host that this is, as in `worker.labels` of the workers on it: new blocks go to one of these first, and are
        /// read there first. Empty = the name of this machine.
        host: String = String::new();
    }
}

section! {
    /// The FUSE mount.
    FuseSection {
        /// The directory to mount on; made if it is missing. Empty = no mount.
        mount_point: String = String::new();
        /// How long the kernel may answer for names and attributes without asking: changes made elsewhere show after
        /// at most this. A file opened after another client closed it is always seen as it was closed.
        ttl: Span = text("1s"), Range::of("0s", "1day");
        /// Threads that serve the kernel. Each takes one request at a time, for a few milliseconds at most.
        threads: u64 = 8, Range::of("1", "256");
        /// Let users other than the one who mounts in.
        allow_other: bool = false;
        /// Locks of programs (flock, fcntl) hold in all mounts of the cluster. If false, each mount has its own.
        locks: bool = true;
    }
}

section! {
    /// The status page, `/metrics` for Prometheus, `/healthz` and `/api/status`.
    WebSection {
        /// Where it listens; `off` for none. Port 0 picks a free one and prints it. If the default is taken, the node runs
        /// without; if an address named here is, it does not start.
        listen: WebAddress = text("127.0.0.1:8990");
    }
}

section! {
    /// Logs, on standard error.
    LogSection {
        /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,curvine_actors=debug`. `RUST_LOG` wins.
        level: LogLevel = text("info");
        /// `text` or `json` (a JSON object a line, also for what the node says at its start).
        format: LogFormat = text("text");
    }
}

#[cfg(test)]
mod tests {
    use curvine_protocol::cluster::{DEFAULT_MASTER_PORT, DEFAULT_WEB_PORT, DEFAULT_WORKER_PORT};

    use super::*;

    #[test]
    fn the_default_addresses_are_loopback_at_the_well_known_ports() {
        let config = Config::default();
        let local = |port: u16| format!("127.0.0.1:{port}");
        assert_eq!(config.master.listen.to_string(), local(DEFAULT_MASTER_PORT));
        assert_eq!(config.worker.listen.to_string(), local(DEFAULT_WORKER_PORT));
        assert_eq!(config.web.listen.to_string(), local(DEFAULT_WEB_PORT));
        assert_eq!(config.client.masters, [config.master.listen]);
    }
}
