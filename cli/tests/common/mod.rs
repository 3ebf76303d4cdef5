//! A real node, and the real `cv`.
#![allow(dead_code, reason = "each test binary uses a part of it")]
use std::any::Any;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use curvine_tests::process::{self, DEADLINE, program, text};
use curvine_tests::wait::within;
use serde_json::Value;
use tempfile::TempDir;

/// A node and a scratch directory.
pub struct Node {
    /// What is to end before its directory goes: a node that serves, or one that waits to be added to a group.
    _process: Box<dyn Any>,
    pub master: String,
    pub scratch: TempDir,
    /// Variables of every `cv`.
    pub variables: Vec<(&'static str, &'static str)>,
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
        Node::start_with(|_| Vec::new())
    }

    /// With more arguments, which may name places in its scratch directory.
    pub fn start_with(more: impl FnOnce(&Path) -> Vec<String>) -> Node {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let more = more(scratch.path());
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let node = process::Node::start_all(&scratch.path().join("node"), &more);
        Node {
            master: node.master().to_owned(),
            _process: Box::new(node),
            scratch,
            variables: Vec::new(),
        }
    }

    /// Master 2, which listens and waits to be added to this one's group.
    pub fn newcomer(&self) -> Node {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let master = free.expect("a free port").to_string();
        let peers = format!("1={},2={master}", self.master);
        let data_dir = scratch.path().join("node");
        let starting = process::Node::starting(&[
            "--role",
            "master",
            "--id",
            "2",
            "--listen",
            &master,
            "--peers",
            &peers,
            "--data-dir",
            text(&data_dir),
        ]);
        let listens = within(DEADLINE, || TcpStream::connect(&master).ok());
        assert!(listens.is_some(), "master 2 does not listen");
        Node {
            _process: Box::new(starting),
            master,
            scratch,
            variables: Vec::new(),
        }
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
        let mut command = cv(&[&["--master", &self.master], words].concat());
        command.envs(self.variables.iter().copied());
        command
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
        assert_eq!(
            (said.code, said.err.as_str()),
            (Some(0), ""),
            "cv {words:?}: {}",
            said.out
        );
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

/// `cv` with these words.
pub fn cv(words: &[&str]) -> Command {
    program::command(Path::new(env!("CARGO_BIN_EXE_cv")), words)
}

/// The lines of an output.
pub fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}
