//! The binary as operators run it: started, stopped, killed, refused.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of processes takes the time that passes"
)]

mod backup;
mod balancing;
mod disks;
mod draining;
mod extra;
mod full_masters;
mod group;
mod hostile;
mod loads;
mod local_reads;
mod locality;
mod locks;
mod loop_disk;
mod losses;
mod masters;
mod metrics;
mod mounts;
mod objects;
mod partitions;
mod power;
mod power_masters;
mod quotas;
mod replicas;
mod slow_store;
mod sparse;
mod support;
mod upgrade;

use std::net::TcpListener;
use std::process::Stdio;

use curvine_protocol::master::Lookup;
use curvine_tests::process::Process;
use serde_json::Value;

use support::*;

#[test]
fn a_node_serves_stops_on_a_signal_and_is_the_same_cluster_afterwards() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path(), &[]);
    let cluster = node.said("cluster").to_owned();
    assert_eq!(node.get("/healthz"), (200, "ok\n".to_owned()));
    let (code, status) = node.get("/api/status");
    let status: Value = serde_json::from_str(&status).expect("is JSON");
    assert_eq!((code, status["cluster"].as_str()), (200, Some(cluster.as_str())));
    assert_eq!(status["workers"][0]["state"], "Live");
    let (_, metrics) = node.get("/metrics");
    assert!(
        metrics.contains("\ncurvine_workers{state=\"live\"} 1\n"),
        "{metrics}"
    );
    assert!(node.get("/").1.contains(&cluster));
    assert_eq!(node.get("/nothing").0, 404);

    node.stop();
    let mut again = Node::start_all(dir.path(), &[]);
    assert_eq!(again.said("cluster"), cluster);
    again.stop_by(Signal::INT);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path(), &[]);
    let made = node.ask(make_dir("/kept")).expect("is made");
    node.kill();
    let again = Node::start_all(dir.path(), &[]);
    let found = again
        .ask(Lookup {
            node: at("/kept"),
            follow: true,
        })
        .expect("is kept");
    assert_eq!(found, made);
}

#[test]
fn an_idle_node_is_small() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(dir.path(), &[]);
    let bytes = node.metric("process_resident_memory_bytes");
    assert!(bytes < 100e6, "{bytes} bytes");
}

#[test]
fn roles_run_as_processes_of_their_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let master_dir = dir.path().join("m");
    let worker_dir = dir.path().join("w");
    let master = Node::start(&[
        "--role",
        "master",
        "--id",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&master_dir),
    ]);
    let worker = Node::start(&[
        "--role",
        "worker",
        "--master",
        master.said("master"),
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        text(&worker_dir),
    ]);
    let status: Value = serde_json::from_str(&worker.get("/api/status").1).expect("is JSON");
    assert_eq!(status["cluster"].as_str(), Some(master.said("cluster")));
    assert_eq!(
        status["workers"][0]["address"].as_str(),
        Some(worker.said("worker"))
    );
    assert_eq!(status["workers"][0]["state"], "Live");
}

#[test]
fn a_second_process_on_a_data_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start_all(dir.path(), &[]);
    let (code, said) = refused(&["--data-dir", text(dir.path()), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        format!(
            "curvine-node: {}/master is in use by process {}; stop it or choose another --data-dir",
            dir.path().display(),
            node.id()
        )
    );
    assert_eq!(node.get("/healthz").0, 200);
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, said) = refused(&["--data-dir", text(dir.path()), "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with(&format!("curvine-node: {address} is in use by another process")),
        "{said}"
    );
}

#[test]
fn a_data_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path(), &[]);
    let cluster = node.said("cluster").to_owned();
    node.stop();
    let config = dir.path().join("curvine.toml");
    let other = "0123456789abcdef0123456789abcdef";
    std::fs::write(&config, format!("cluster = \"{other}\"\n")).expect("written");
    let args = [
        "--config",
        text(&config),
        "--data-dir",
        text(dir.path()),
        "--listen",
        "127.0.0.1:0",
    ];
    assert_eq!(
        refused(&args),
        (
            Some(3),
            format!(
                "curvine-node: {}/master belongs to cluster {cluster}, not to {other}; choose another --data-dir, or the \
                 masters of {cluster}",
                dir.path().display()
            )
        )
    );
}

#[test]
fn a_mistyped_key_is_refused_with_the_nearest_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("curvine.toml");
    std::fs::write(&config, "[worker]\nheartbeet = \"1s\"\n").expect("written");
    assert_eq!(
        refused(&["--config", text(&config), "--data-dir", text(dir.path())]),
        (
            Some(2),
            format!(
                "curvine-node: {}: [worker] has no key `heartbeet`; did you mean `heartbeat`?",
                config.display()
            )
        )
    );
}

#[test]
fn a_value_of_a_wrong_unit_is_refused_by_file_flag_or_variable() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("curvine.toml");
    std::fs::write(&config, "[worker]\nheartbeat = \"5 parsecs\"\n").expect("written");
    let (code, said) = refused(&["--config", text(&config), "--data-dir", text(dir.path())]);
    assert_eq!(code, Some(2));
    let start = format!("curvine-node: {}: `worker.heartbeat`: ", config.display());
    assert!(
        said.starts_with(&start) && said.contains("`5 parsecs` is not a"),
        "{said}"
    );
    let data_dirs = format!("[TAPE:1GB]{}", dir.path().display());
    let (code, said) = refused(&["--data-dirs", &data_dirs, "--data-dir", text(dir.path())]);
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("curvine-node: --data-dirs: `worker.data_dirs.0`: ") && said.contains("TAPE"),
        "{said}"
    );
}

#[test]
fn a_worker_s_directory_of_another_cluster_is_refused_and_serves_its_own_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let master = |name: &str| {
        let data_dir = dir.path().join(name);
        Node::start(&[
            "--role",
            "master",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&data_dir),
        ])
    };
    let (ours, other) = (master("ours"), master("other"));
    let data_dir = dir.path().join("w");
    let worker = |master: &Node| {
        [
            "--role",
            "worker",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&data_dir),
            "--master",
            master.said("master"),
        ]
        .map(str::to_owned)
    };
    let start = |master: &Node| {
        let args = worker(master);
        Node::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut first = start(&ours);
    first.stop();
    let args = worker(&other);
    let (code, said) = refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains(ours.said("cluster")) && said.contains(other.said("cluster")),
        "{said}"
    );
    drop(start(&ours));
}

#[test]
fn a_master_s_directory_is_refused_under_another_number() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path(), &[]);
    node.stop();
    let args = [
        "--data-dir",
        text(dir.path()),
        "--listen",
        "127.0.0.1:0",
        "--id",
        "2",
    ];
    let (code, said) = refused(&args);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("is the directory of master 1, and this is master 2"),
        "{said}"
    );
    drop(Node::start_all(dir.path(), &[]));
}

#[test]
fn a_signal_while_the_mount_starts_ends_the_node_in_order_and_leaves_no_mount() {
    if !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped, a signal while the mount starts is not tested here: no /dev/fuse");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().canonicalize().expect("is there");
    let (data_dir, mount_point) = (dir.join("data"), dir.join("mnt"));
    let is_mounted = || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("is there");
        table.contains(&format!(" {} ", mount_point.display()))
    };
    let mut command = program::command(
        program::node(),
        &[
            "--data-dir",
            text(&data_dir),
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            "127.0.0.1:0",
            "--web",
            "off",
            "--mount-point",
            text(&mount_point),
        ],
    );
    command.env("CURVINE_FUSE_THREADS", "256").stdout(Stdio::null());
    let mut starting = Process::start(&mut command, None);
    // It has the directory of its mount before the mount, which its many threads delay.
    assert!(within(DEADLINE, || mount_point.exists().then_some(())).is_some());
    starting.signal(Signal::TERM);
    assert_eq!(starting.end(), Some(0), "{}", starting.log());
    assert!(!is_mounted());
}
