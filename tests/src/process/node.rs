//! A `curvine-node` as a process, and how it comes to be ready.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use curvine_actors::client::{Client, ClientOptions};
use curvine_actors::kit::peer::Peer;
use curvine_actors::kit::{Endpoint, Ports, call};
use curvine_protocol::{Call, CallContext, ClientId};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use super::{DEADLINE, Process, Signal, program, text};

/// A master may have a long log to apply first.
const READY_DEADLINE: Duration = Duration::from_secs(100);
/// How every node is started: with a status page on a free port, and its log for programs.
const ALWAYS: [&str; 6] = [
    "--log-format",
    "json",
    "--log-level",
    "warn",
    "--web",
    "127.0.0.1:0",
];

/// A node that serves, and what it said it serves.
pub struct Node {
    // Dropped in this order.
    process: Process,
    mount: Option<Mount>,
    ready: Value,
    program: PathBuf,
    args: Vec<String>,
}

/// A node on its way to be ready.
pub struct Starting {
    process: Process,
    mount: Option<Mount>,
    program: PathBuf,
    args: Vec<String>,
}

impl Starting {
    /// Waits until it says what it serves.
    pub fn ready(mut self) -> Node {
        let stdout = self.process.stdout().expect("is piped");
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody waits any more if it took too long.
            let _ = tell.send(read.map(|_| line));
        });
        let line = told.recv_timeout(READY_DEADLINE).expect("it is ready in time");
        let line = line.expect("is text");
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line:?}"));
        Node {
            process: self.process,
            mount: self.mount,
            ready,
            program: self.program,
            args: self.args,
        }
    }
}

/// Where it has its mount. One that a killed process left behind goes when this is dropped, whatever still has files open
/// in it.
struct Mount(String);

impl Drop for Mount {
    fn drop(&mut self) {
        // A process that ended well took it away itself.
        let _ = unmount(self.0.as_str(), UnmountFlags::DETACH);
    }
}

impl Node {
    /// Starts a node with these arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Node {
        Node::starting(args).ready()
    }

    pub fn starting(args: &[&str]) -> Starting {
        Node::starting_of(program::node(), None, args)
    }

    /// Of another program, in a network namespace if one is named.
    pub fn starting_of(program: &Path, namespace: Option<&str>, args: &[&str]) -> Starting {
        let mut command = program::command(program, args);
        command.args(ALWAYS).stdout(Stdio::piped());
        let mount_point = args.iter().skip_while(|arg| **arg != "--mount-point").nth(1);
        Starting {
            process: Process::start(&mut command, namespace),
            mount: mount_point.map(|&path| Mount(path.to_owned())),
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
        }
    }

    /// All roles in one process, with `more` arguments.
    pub fn start_all(data_dir: &Path, more: &[&str]) -> Node {
        let mut args = vec!["--data-dir", text(data_dir)];
        args.extend(["--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0"]);
        args.extend(more);
        Node::start(&args)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
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

    /// One of its metrics, by its name with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = self.get("/metrics");
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        value.parse().expect("a number")
    }

    /// A client of it that gives up soon.
    pub async fn client(&self) -> Client {
        let options = ClientOptions {
            retry_for: Duration::from_secs(2),
            ..ClientOptions::default()
        };
        let client = Client::connect([self.master()], options).await;
        client.expect("the master answers")
    }

    /// Asks the master over TCP, as the first call of a client.
    pub fn ask<C: Call>(&self, question: C) -> curvine_protocol::Result<C::Reply>
    where
        actix::Addr<Peer>: Endpoint<C>,
    {
        let master = self.master().to_owned();
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

    /// Bytes of memory that it has.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a process has memory") << 10
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it with SIGTERM; it must end well.
    pub fn stop(&mut self) {
        self.stop_by(Signal::TERM);
    }

    /// Stops it with another signal that asks it to end.
    pub fn stop_by(&mut self, signal: Signal) {
        self.signal(signal);
        assert_eq!(self.process.end(), Some(0), "a clean stop");
    }

    /// Stops it as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.process.end(), None, "a signal ends it");
    }

    /// Waits until it ends of its own accord; its exit code.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        self.process.end()
    }

    /// Starts it again, after [`Node::stop`] or [`Node::kill`], where it listened before.
    pub fn start_again(&mut self) {
        // What the old one left mounted is the new one's to find.
        std::mem::forget(self.mount.take());
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
        *self = Node::starting_of(&self.program, None, &args).ready();
    }
}

/// Runs a node that is expected to refuse: its exit code and the last that it says.
pub fn refused(args: &[&str]) -> (Option<i32>, String) {
    let mut command = program::command(program::node(), args);
    command.args(["--web", "off"]).stdout(Stdio::piped());
    let mut process = Process::start(&mut command, None);
    let code = process.end();
    let mut said = String::new();
    let mut stdout = process.stdout().expect("is piped");
    stdout.read_to_string(&mut said).expect("is text");
    assert_eq!(said, "", "a node that refuses does not say it is ready");
    (code, process.log().lines().last().unwrap_or_default().to_owned())
}
