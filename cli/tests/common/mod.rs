//! A real node on free ports, and the real `cv`.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test of processes takes the time that passes"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// `curvine-node` beside `cv`. It belongs to another package: cargo is asked to have it up to date.
fn node_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cv = Path::new(env!("CARGO_BIN_EXE_cv"));
        let directory = cv.parent().expect("a binary is in a directory");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "curvine-node", "--target-dir"]);
        build.arg(directory.parent().expect("of a target directory"));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let status = build
            .args(["--manifest-path", manifest])
            .status()
            .expect("cargo runs");
        assert!(status.success(), "curvine-node is built");
        directory.join("curvine-node")
    })
}

/// No setting of the caller reaches what is tested.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["CURVINE_", "AWS_", "RUST_LOG", "NO_COLOR"]
            .iter()
            .any(|mine| name.starts_with(mine))
        {
            command.env_remove(name);
        }
    }
}

/// A node, killed when dropped, and a scratch directory.
pub struct Node {
    child: Child,
    pub master: String,
    pub scratch: TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("the output is text"),
            err: String::from_utf8(output.stderr).expect("the complaints are text"),
        }
    }
}

impl Node {
    pub fn start() -> Node {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut child = begin(
            &scratch,
            &["--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0"],
        );
        let mut line = String::new();
        let stdout = child.stdout.take().expect("is piped");
        BufReader::new(stdout).read_line(&mut line).expect("is text");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line:?}"));
        let master = ready["master"].as_str().expect("a master").to_owned();
        Node {
            child,
            master,
            scratch,
        }
    }

    /// Master 2, which listens and waits to be added to this one's group.
    pub fn newcomer(&self) -> Node {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let master = free.expect("a free port").to_string();
        let peers = format!("1={},2={master}", self.master);
        let words = [
            "--role", "master", "--id", "2", "--listen", &master, "--peers", &peers,
        ];
        let child = begin(&scratch, &words);
        let node = Node {
            child,
            master,
            scratch,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&node.master).is_err() {
            assert!(Instant::now() < deadline, "master 2 does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        node
    }

    /// A path in the scratch directory.
    pub fn local(&self, name: &str) -> String {
        self.scratch
            .path()
            .join(name)
            .to_str()
            .expect("is text")
            .to_owned()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        cv(&[&["--master", &self.master], words].concat())
    }

    pub fn run(&self, words: &[&str]) -> Said {
        self.command(words).output().expect("cv runs").into()
    }

    pub fn run_with(&self, words: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cv runs");
        let written = child.stdin.take().expect("is piped").write_all(input);
        let output = child.wait_with_output().expect("cv ends");
        written.expect("cv reads its input");
        output.into()
    }

    /// The output of what must succeed without a complaint.
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "cv {words:?}");
        said.out
    }

    /// Makes a file of Curvine.
    pub fn file(&self, path: &str, content: &[u8]) {
        let said = self.run_with(&["put", "-f", "-", path], content);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "put {path}");
    }

    /// The objects of what must succeed.
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        let out = self.ok(&[&["--json"], words].concat());
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("cv {words:?}: {e}: {line}")))
            .collect()
    }

    /// The complaint of what must fail with a code: one line that begins with the command.
    pub fn refused(&self, words: &[&str], code: i32) -> String {
        let said = self.run(words);
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(code), ""),
            "cv {words:?}: {}",
            said.err
        );
        assert_eq!(said.err.lines().count(), 1, "cv {words:?}: {}", said.err);
        assert!(
            said.err.starts_with(&format!("cv: {}: ", words[0])),
            "{}",
            said.err
        );
        said.err
    }
}

fn begin(scratch: &TempDir, words: &[&str]) -> Child {
    let mut command = Command::new(node_binary());
    clean(&mut command);
    command
        .args(words)
        .args([
            "--web",
            "off",
            "--log-format",
            "json",
            "--log-level",
            "error",
            "--data-dir",
        ])
        .arg(scratch.path().join("node"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the node starts")
}

/// `cv` with these words.
pub fn cv(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cv"));
    clean(&mut command);
    command.args(words).stdin(Stdio::null());
    command
}

/// The lines of an output.
pub fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}
