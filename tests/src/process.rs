//! Nodes as processes: started on free ports, waited for, stopped by their own id, gone when the test is.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of processes takes the time that passes"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// For what a healthy machine does in well under a second.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The `curvine-node` of this source tree and profile. Cargo builds it first: a test of another package does not by
/// itself. `CURVINE_NODE` names another one.
pub fn node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CURVINE_NODE") {
            return path.into();
        }
        let test = std::env::current_exe().expect("a test has a path");
        // target/<profile>/deps/<test> or target/<profile>/examples/<example>
        let profile = test.ancestors().nth(2).expect("cargo puts tests two levels deep");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "curvine-node", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        build
            .arg("--target-dir")
            .arg(profile.parent().expect("a profile is in the target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let built = build.status().expect("cargo runs");
        assert!(built.success(), "curvine-node does not build");
        profile.join("curvine-node")
    })
}

/// A process of ours, killed when dropped.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn new(child: Child) -> Self {
        Process(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by its name for `kill(1)`, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill")
            .args([name, &pid])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end; the exit code, none if a signal ended it.
    pub fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(begun.elapsed() < DEADLINE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A command that sees no variables of Curvine's but those the caller sets.
pub fn clean_command(binary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CURVINE_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A node that serves, and what it said it serves.
pub struct Node {
    pub process: Process,
    ready: Value,
    binary: PathBuf,
    args: Vec<String>,
}

impl Drop for Node {
    /// A mount that a killed process left behind goes too, whatever still has files open in it.
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        if let Some(mount_point) = self.argument("--mount-point") {
            let _ = rustix::mount::unmount(mount_point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Node {
    fn argument(&self, flag: &str) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == flag)?;
        self.args.get(at + 1).map(String::as_str)
    }

    /// Starts a binary with these arguments, logs as JSON and a status page on a free port, and waits until it is ready.
    pub fn start_binary(binary: &Path, args: &[&str]) -> Node {
        let mut child = clean_command(binary, args)
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
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", binary.display()));
        let stdout = child.stdout.take().expect("is piped");
        let process = Process(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("is text");
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line:?}"));
        Node {
            process,
            ready,
            binary: binary.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
        }
    }

    /// All roles in one process, with `more` arguments.
    pub fn start_all(data_dir: &Path, more: &[&str]) -> Node {
        let mut args = vec!["--data-dir", text(data_dir)];
        args.extend(["--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0"]);
        args.extend(more);
        Node::start_binary(node_binary(), &args)
    }

    /// A field of what it said when it was ready.
    pub fn said(&self, field: &str) -> &str {
        self.ready[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.ready))
    }

    /// Where its master listens.
    pub fn master(&self) -> &str {
        self.said("master")
    }

    /// Asks its status page; the code and the body.
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

    /// Stops it with SIGTERM; it must end well.
    pub fn stop(&mut self) {
        self.process.signal("-TERM");
        assert_eq!(self.process.end(), Some(0), "a clean stop");
    }

    /// Stops it as a crash would.
    pub fn kill(&mut self) {
        self.process.signal("-KILL");
        assert_eq!(self.process.end(), None);
    }

    /// Starts it again, after [`Node::stop`] or [`Node::kill`], where it listened before.
    pub fn start_again(&mut self) {
        let mut args = self.args.clone();
        let mut flag = String::new();
        for arg in &mut args {
            match flag.as_str() {
                "--listen" if !self.ready["master"].is_null() => *arg = self.said("master").to_owned(),
                "--listen" | "--worker-listen" => *arg = self.said("worker").to_owned(),
                _ => {}
            }
            flag = arg.clone();
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let again = Node::start_binary(&self.binary, &args);
        // The old one is dropped without its `Drop`, which would unmount the new one's mount.
        let old = std::mem::replace(self, again);
        let _ = std::mem::ManuallyDrop::new(old);
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
