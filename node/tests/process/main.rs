//! The binary as operators run it: started, stopped, killed, refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ports, call};
use curvine_protocol::master::{Lookup, MakeDir};
use curvine_protocol::{Call, CallContext, ClientId, CurvinePath, Node as At};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

/// A process of ours, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end; the exit code.
    fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(begun.elapsed() < DEADLINE, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curvine-node"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CURVINE_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A node that serves, and what it said it serves.
struct Node {
    process: Process,
    ready: Value,
}

impl Node {
    fn start(args: &[&str]) -> Node {
        let mut child = command(args)
            .args([
                "--log-format",
                "json",
                "--log-level",
                "warn",
                "--web",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let stdout = child.stdout.take().expect("is piped");
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("is text");
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line:?}"));
        Node { process, ready }
    }

    fn start_all(data_dir: &Path) -> Node {
        Node::start(&[
            "--data-dir",
            text(data_dir),
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            "127.0.0.1:0",
        ])
    }

    fn said(&self, field: &str) -> &str {
        self.ready[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.ready))
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.said("web")).expect("the status page listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status code"), body.to_owned())
    }

    /// Asks the master over TCP, as the first call of a client.
    fn ask<C: Call>(&self, question: C) -> curvine_protocol::Result<C::Reply>
    where
        actix::Addr<Peer>: curvine_actors::kit::Endpoint<C>,
    {
        let master = self.said("master").to_owned();
        actix_rt::System::new().block_on(async move {
            let peer = Peer::start(master, &Ports::system());
            let context = CallContext {
                client: ClientId(7),
                sequence: 1,
                acked_below: 1,
                ..CallContext::default()
            };
            call(&peer, question, context).await
        })
    }
}

/// Runs a node that is expected to refuse: its exit code and what it says.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let mut child = command(args)
        .args(["--web", "off"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut stdout, mut stderr) = (
        child.stdout.take().expect("piped"),
        child.stderr.take().expect("piped"),
    );
    let code = Process(child).end();
    let (mut said, mut complained) = (String::new(), String::new());
    stdout.read_to_string(&mut said).expect("is text");
    stderr.read_to_string(&mut complained).expect("is text");
    assert_eq!(said, "", "a node that refuses does not say it is ready");
    let last = complained.lines().last().unwrap_or_default().to_owned();
    (code, last)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn at(path: &str) -> At {
    At::Path(CurvinePath::parse(path).expect("a valid path"))
}

fn make_dir(path: &str) -> MakeDir {
    MakeDir {
        node: at(path),
        mode: 0o755,
        parents: false,
    }
}

#[test]
fn a_node_serves_stops_on_a_signal_and_is_the_same_cluster_afterwards() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path());
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

    node.process.signal("-TERM");
    assert_eq!(node.process.end(), Some(0));
    let mut again = Node::start_all(dir.path());
    assert_eq!(again.said("cluster"), cluster);
    again.process.signal("-INT");
    assert_eq!(again.process.end(), Some(0));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start_all(dir.path());
    let made = node.ask(make_dir("/kept")).expect("is made");
    node.process.signal("-KILL");
    assert_eq!(node.process.end(), None);
    let again = Node::start_all(dir.path());
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
    let node = Node::start_all(dir.path());
    let (_, metrics) = node.get("/metrics");
    let bytes: f64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .and_then(|bytes| bytes.parse().ok())
        .expect("memory is shown");
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
    let node = Node::start_all(dir.path());
    let (code, said) = refused(&["--data-dir", text(dir.path()), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        format!(
            "curvine-node: {}/master is in use by process {}; stop it or choose another --data-dir",
            dir.path().display(),
            node.process.0.id()
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
    let mut node = Node::start_all(dir.path());
    let cluster = node.said("cluster").to_owned();
    node.process.signal("-TERM");
    assert_eq!(node.process.end(), Some(0));
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
