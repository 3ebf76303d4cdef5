//! Nodes as processes, for the tests of this binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Ports, call};
use curvine_protocol::master::MakeDir;
use curvine_protocol::{Call, CallContext, ClientId, CurvinePath, Node as At};
use serde_json::Value;

pub const DEADLINE: Duration = Duration::from_secs(20);
/// A master may have a long log to apply first.
const READY_DEADLINE: Duration = Duration::from_secs(100);

/// A process of ours, killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end; the exit code.
    pub fn end(&mut self) -> Option<i32> {
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

/// The program that is tested.
pub fn this_node() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_curvine-node"))
}

pub fn command(args: &[&str]) -> Command {
    command_of(this_node(), args)
}

/// The same of another version.
pub fn command_of(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CURVINE_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A node that serves, and what it said it serves.
pub struct Node {
    pub process: Process,
    pub ready: Value,
}

/// A node on its way to be ready.
pub struct Starting {
    process: Process,
    stdout: std::process::ChildStdout,
}

impl Starting {
    /// Waits until it says what it serves.
    pub fn ready(self) -> Node {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(self.stdout).read_line(&mut line);
            // Nobody waits any more if it took too long.
            let _ = tell.send(read.map(|_| line));
        });
        let line = told.recv_timeout(READY_DEADLINE).expect("it is ready in time");
        let line = line.expect("is text");
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line:?}"));
        Node {
            process: self.process,
            ready,
        }
    }
}

impl Node {
    pub fn start(args: &[&str]) -> Node {
        Node::starting(args).ready()
    }

    pub fn starting(args: &[&str]) -> Starting {
        Node::starting_in(None, args)
    }

    /// In a network namespace, if one is named.
    pub fn starting_in(namespace: Option<&str>, args: &[&str]) -> Starting {
        Node::starting_of(this_node(), namespace, args)
    }

    pub fn starting_of(program: &Path, namespace: Option<&str>, args: &[&str]) -> Starting {
        let mut command = command_of(program, args);
        command
            .args([
                "--log-format",
                "json",
                "--log-level",
                "warn",
                "--web",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::piped());
        let child = match namespace {
            None => command.spawn(),
            Some(name) => super::namespaces::on(name, || command.spawn()),
        };
        let mut child = child.expect("starts");
        let stdout = child.stdout.take().expect("is piped");
        Starting {
            process: Process(child),
            stdout,
        }
    }

    pub fn start_all(data_dir: &Path) -> Node {
        Node::start(&[
            "--data-dir",
            text(data_dir),
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            "127.0.0.1:0",
        ])
    }

    pub fn said(&self, field: &str) -> &str {
        self.ready[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.ready))
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.said("web")).expect("the status page listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.expect("a status code"), body.to_owned())
    }

    /// A client of it that gives up soon.
    pub async fn client(&self) -> Client {
        let options = ClientOptions {
            retry_for: Duration::from_secs(2),
            ..ClientOptions::default()
        };
        Client::connect([self.said("master")], options)
            .await
            .expect("the master answers")
    }

    /// Bytes of memory that it has.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()));
        let status = status.expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a process has memory") << 10
    }

    /// Asks the master over TCP, as the first call of a client.
    pub fn ask<C: Call>(&self, question: C) -> curvine_protocol::Result<C::Reply>
    where
        actix::Addr<Peer>: curvine_actors::kit::Endpoint<C>,
    {
        let master = self.said("master").to_owned();
        actix_rt::System::new().block_on(async move {
            let peer = Peer::start(&actix_rt::Arbiter::current(), master, &Ports::system());
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
pub fn refused(args: &[&str]) -> (Option<i32>, String) {
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

/// A free port for one who comes back to it: below those that the system gives to whoever connects or asks for any.
pub fn lasting_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 101;
        let port = 20_000 + (number % 12_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

pub fn at(path: &str) -> At {
    At::Path(CurvinePath::parse(path).expect("a valid path"))
}

pub fn make_dir(path: &str) -> MakeDir {
    MakeDir {
        node: at(path),
        mode: 0o755,
        parents: false,
    }
}

/// Runs the client's side of a test.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system has room for a runtime").block_on(work)
}

/// Runs a program to its end; an error is what it complained of.
pub fn system(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A file system mounted for a test, unmounted when dropped.
pub struct Mounted {
    pub path: std::path::PathBuf,
}

impl Mounted {
    /// None where this process may not mount, which is said: `what` then is not tested here.
    pub fn new(path: std::path::PathBuf, what: &str, options: &[&str]) -> Option<Mounted> {
        std::fs::create_dir_all(&path).expect("a temporary directory");
        let args: Vec<&str> = options.iter().copied().chain([text(&path)]).collect();
        match system("mount", &args) {
            Ok(_) => Some(Mounted { path }),
            Err(error) => {
                eprintln!("skipped, {what} is not tested here: it takes the right to mount ({error})");
                None
            }
        }
    }

    /// A small file system in memory.
    pub fn tmpfs(path: std::path::PathBuf, what: &str, mebibytes: u32) -> Option<Mounted> {
        let options = format!("size={mebibytes}m,nr_inodes=0");
        Mounted::new(path, what, &["-t", "tmpfs", "-o", &options, "curvine-test"])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A killed process may hold it for another moment.
        for _ in 0..500 {
            if system("umount", &[text(&self.path)]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = system("umount", &["-l", text(&self.path)]);
    }
}

/// Tries until it holds.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(begun.elapsed() < 2 * DEADLINE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
