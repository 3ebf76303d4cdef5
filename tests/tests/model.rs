//! Random operations against the reference model: the model against this machine's own file systems, which proves the
//! model; then Curvine against the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::CurvinePath;
use curvine_protocol::mount::{MountSettings, WriteMode};
use curvine_tests::directory::Directory;
use curvine_tests::process::{Node, text};
use curvine_tests::random::{Mix, check};
use curvine_tests::remote::Remote;
use curvine_tests::several::Several;
use curvine_tests::stored::Stored;
use tokio::runtime::Runtime;

const BLOCK_BYTES: u64 = 64 << 10;

const MIX: Mix = Mix {
    ops: 400,
    block_bytes: BLOCK_BYTES,
    file_bytes_max: 5 * BLOCK_BYTES,
    restart_every: 0,
    can: |_| true,
};

/// Of [`MIX`], through two mounts and a client: 100,000 operations are `CURVINE_TWO_MOUNTS=250`.
fn two_mounts_seeds() -> u64 {
    seeds("CURVINE_TWO_MOUNTS", 20)
}

fn seeds(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    let parsed = asked.map(|seeds| seeds.parse());
    parsed.map_or(default, |seeds| {
        seeds.unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

/// Runs every sequence in a directory of its own below `root`.
fn check_directory(root: &Path, seeds: u64) {
    let scratch = tempfile::tempdir_in(root).expect("a scratch directory");
    check(1..=seeds, MIX, |seed, attempt| {
        let directory = scratch.path().join(format!("{seed}-{attempt}"));
        std::fs::create_dir(&directory).expect("a fresh directory");
        Directory::new(&directory, |_| ())
    });
}

#[test]
fn the_model_is_what_this_machine_does_on_disk() {
    check_directory(Path::new(env!("CARGO_TARGET_TMPDIR")), 150);
}

#[test]
fn the_model_is_what_this_machine_does_in_memory() {
    check_directory(Path::new("/dev/shm"), 150);
}

/// A node that can be stopped and killed under those who use it.
struct Restarting {
    node: Rc<RefCell<Node>>,
    runtime: Arc<Runtime>,
    /// One works, the other looks.
    clients: (Client, Client),
}

impl Restarting {
    fn start(data_dir: &Path) -> Self {
        let node = Node::start_all(data_dir, &[]);
        let runtime = Arc::new(Runtime::new().expect("threads"));
        let clients = (connect(&runtime, &node), connect(&runtime, &node));
        Restarting {
            node: Rc::new(RefCell::new(node)),
            runtime,
            clients,
        }
    }

    /// A fresh directory of it.
    fn directory(&self, root: &str) -> Remote<impl FnMut(bool) + use<>> {
        let node = self.node.clone();
        let restart = move |kill: bool| {
            let mut node = node.borrow_mut();
            if kill {
                node.kill()
            } else {
                node.stop()
            }
            node.start_again();
        };
        let (runtime, clients) = (self.runtime.clone(), self.clients.clone());
        Remote::new(runtime, clients, root, BLOCK_BYTES, restart).expect("a fresh directory")
    }
}

fn connect(runtime: &Runtime, node: &Node) -> Client {
    let client = Client::connect([node.master().to_owned()], ClientOptions::default());
    runtime.block_on(client).expect("the node is ready")
}

fn check_client(seeds: std::ops::RangeInclusive<u64>, mix: Mix) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let node = Restarting::start(scratch.path());
    check(seeds, mix, |seed, attempt| {
        node.directory(&format!("/{seed}-{attempt}"))
    });
}

#[test]
fn through_the_client_curvine_is_what_the_model_is() {
    check_client(1..=40, MIX);
}

#[test]
fn what_was_done_before_a_stop_or_a_kill_is_there_after_it() {
    let mix = Mix {
        ops: 250,
        restart_every: 25,
        ..MIX
    };
    check_client(1_001..=1_006, mix);
}

/// A configuration whose files have small blocks, for those who cannot say so when they create one. Kernels believe what a
/// mount says of names and attributes for `ttl`.
fn small_blocks(scratch: &Path, ttl: &str) -> std::path::PathBuf {
    let config = scratch.join("curvine.toml");
    let keys = format!("[master]\nblock_size = \"64KiB\"\n[fuse]\nttl = \"{ttl}\"\n");
    std::fs::write(&config, keys).expect("written");
    config
}

#[test]
fn through_a_mount_curvine_is_what_the_model_is() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (config, mount_point) = (small_blocks(scratch.path(), "1s"), scratch.path().join("mnt"));
    let _node = Node::start_all(
        &scratch.path().join("data"),
        &["--config", text(&config), "--mount-point", text(&mount_point)],
    );
    check_directory(&mount_point, 30);
}

/// Two mounts, in processes of their own, and a client beside them, as `cv` is one.
#[test]
fn through_two_mounts_and_a_client_curvine_is_what_the_model_is() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    // What one mount changes shows in the other at once if the kernel always asks.
    let config = small_blocks(scratch.path(), "0s");
    let node = Node::start_all(&scratch.path().join("data"), &["--config", text(&config)]);
    let mount = |name: &str| {
        let at = scratch.path().join(name);
        let args = [
            "--role",
            "fuse",
            "--config",
            text(&config),
            "--master",
            node.master(),
            "--mount-point",
            text(&at),
        ];
        (Node::start(&args), at)
    };
    let ((_first, at_first), (_second, at_second)) = (mount("a"), mount("b"));
    let runtime = Arc::new(Runtime::new().expect("threads"));
    let clients = (connect(&runtime, &node), connect(&runtime, &node));
    check(1..=two_mounts_seeds(), MIX, |seed, attempt| {
        let name = format!("{seed}-{attempt}");
        let remote = Remote::new(
            runtime.clone(),
            clients.clone(),
            &format!("/{name}"),
            BLOCK_BYTES,
            |_| (),
        );
        Several::new(vec![
            Box::new(Directory::new(&at_first.join(&name), |_| ())),
            Box::new(Directory::new(&at_second.join(&name), |_| ())),
            Box::new(remote.expect("a fresh directory")),
        ])
    });
}

/// Of [`STORED`], in each mode of writing; `CURVINE_STORED` says so.
fn stored_seeds() -> u64 {
    seeds("CURVINE_STORED", 10)
}

/// Of what a mount of objects can do.
const STORED: Mix = Mix {
    can: Stored::<fn()>::can,
    ..MIX
};

fn writable(write_mode: WriteMode) -> MountSettings {
    MountSettings {
        writable: true,
        staleness_ms: 0,
        write_mode,
        ..MountSettings::default()
    }
}

/// A directory of this machine is mounted at `/w`; what this gives back waits until all that was closed there is below.
fn mount_to_write(
    runtime: &Arc<Runtime>,
    client: &Client,
    below: &Path,
    write_mode: WriteMode,
) -> impl Fn() + Clone + use<> {
    let at = CurvinePath::parse("/w").expect("a path");
    std::fs::create_dir(below).expect("a directory to mount");
    let uri = format!("file://{}", below.display());
    let mounting = client.mount(&at, &uri, BTreeMap::new(), writable(write_mode));
    runtime.block_on(mounting).expect("it can be mounted");
    let (runtime, client) = (runtime.clone(), client.clone());
    move || {
        let persisted = runtime.block_on(client.persist(&at));
        persisted.map(|_files| ()).expect("all of it is below");
    }
}

/// In the directory below there are files that the mount made, and others' changes show in the mount at once.
fn check_writable_mount(write_mode: WriteMode, seeds: std::ops::RangeInclusive<u64>) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (config, mount_point) = (small_blocks(scratch.path(), "0s"), scratch.path().join("mnt"));
    let node = Node::start_all(
        &scratch.path().join("data"),
        &["--config", text(&config), "--mount-point", text(&mount_point)],
    );
    let runtime = Arc::new(Runtime::new().expect("threads"));
    let below = scratch.path().join("below");
    let settle = mount_to_write(&runtime, &connect(&runtime, &node), &below, write_mode);
    check(seeds, STORED, |seed, attempt| {
        let name = format!("{seed}-{attempt}");
        let shown = mount_point.join("w").join(&name);
        std::fs::create_dir(&shown).expect("a fresh directory");
        Stored::new(
            Box::new(Directory::new(&shown, |_| ())),
            Box::new(Directory::new(&below.join(&name), |_| ())),
            4,
            settle.clone(),
        )
    });
}

#[test]
fn through_a_writable_mount_curvine_is_what_the_model_is_and_so_is_the_store() {
    check_writable_mount(WriteMode::Through, 1..=stored_seeds());
}

#[test]
fn a_mount_that_writes_back_is_what_the_model_is_and_the_store_follows() {
    check_writable_mount(WriteMode::Back, 10_001..=10_000 + stored_seeds());
}

/// One client, while its node is killed now and then. Nobody else changes the store: a call that names a path takes the
/// known directories on its way for granted.
#[test]
fn a_store_is_what_the_model_is_after_stops_and_kills() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let node = Restarting::start(&scratch.path().join("data"));
    let below = scratch.path().join("below");
    let settle = mount_to_write(&node.runtime, &node.clients.0, &below, WriteMode::Through);
    let mix = Mix {
        ops: 250,
        restart_every: 25,
        ..STORED
    };
    check(1_001..=1_004, mix, |seed, attempt| {
        let name = format!("{seed}-{attempt}");
        Stored::new(
            Box::new(node.directory(&format!("/w/{name}"))),
            Box::new(Directory::new(&below.join(&name), |_| ())),
            0,
            settle.clone(),
        )
    });
}
