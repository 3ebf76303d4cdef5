//! The one harness for tests of processes: nodes started on free ports of the loopback interface, each with directories of
//! its own; waited for until they are ready; stopped, killed and halted by their process id; gone when the test is.
//!
//! - [`Process`]: one program, its end and what it logged. [`Node`]: a `curvine-node` that said it is ready.
//! - [`program`]: which binaries are run, and in which environment.
//! - [`Mounted`], [`namespaces`]: file systems and hosts of a test.
//!
//! Invariants: whatever is made here is taken away by its `Drop`, also when the test panics, and then the last lines of
//! each process' log are printed with it. No setting of the caller's environment reaches what is tested.

mod mounted;
pub mod namespaces;
mod node;
pub mod program;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

pub use self::mounted::Mounted;
pub use self::node::{Node, Starting, refused};
pub use crate::wait::DEADLINE;
use crate::wait::within;
use curvine_protocol::number::to_usize;

/// So much of the end of a log is printed with a test that failed.
const LOG_SHOWN_BYTES: u64 = 16 << 10;

/// A process of ours, killed when dropped.
pub struct Process {
    child: Child,
    name: String,
    log: File,
}

impl Process {
    /// Starts it, in a network namespace if one is named. What it writes to its standard error is kept.
    ///
    /// # Panics
    /// If there is no such program.
    pub fn start(command: &mut Command, namespace: Option<&str>) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = tempfile::tempfile().expect("room for a log");
        command.stderr(log.try_clone().expect("a descriptor"));
        let child = match namespace {
            None => command.spawn(),
            Some(namespace) => namespaces::on(namespace, || command.spawn()),
        };
        Process {
            child: child.unwrap_or_else(|error| panic!("cannot start {name}: {error}")),
            name,
            log,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it writes to its standard output, if that is piped and nobody took it yet.
    fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub fn signal(&self, signal: Signal) {
        let sent = kill_process(Pid::from_child(&self.child), signal);
        sent.unwrap_or_else(|error| panic!("{} (process {}): {error}", self.name, self.id()));
    }

    /// Waits for its end; the exit code, none if a signal ended it.
    pub fn end(&mut self) -> Option<i32> {
        let ended = within(DEADLINE, || self.child.try_wait().expect("it is our child"));
        let status = ended.unwrap_or_else(|| panic!("{} (process {}) does not end", self.name, self.id()));
        status.code()
    }

    /// What it has written to its standard error, the end of it if that is long.
    pub fn log(&self) -> String {
        let len = self.log.metadata().map_or(0, |log| log.len());
        let from = len.saturating_sub(LOG_SHOWN_BYTES);
        let mut bytes = vec![0; to_usize(len - from)];
        // By its offset: the process writes at the one that we share with it.
        let read = self.log.read_at(&mut bytes, from).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() && !log.is_empty() {
            eprintln!("-- {} (process {}) logged:\n{log}--", self.name, self.id());
        }
    }
}

/// Runs a program to its end; an error is what it complained of.
pub fn system(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = program::command(Path::new("/bin/sh"), &["-c", script]);
        Process::start(&mut command, None)
    }

    #[test]
    fn what_a_process_complains_of_is_kept() {
        let mut process = shell("echo no room >&2; exit 3");
        assert_eq!(process.end(), Some(3));
        assert_eq!(process.log(), "no room\n");
    }

    #[test]
    fn a_process_is_gone_after_a_panic_even_if_it_was_halted() {
        let process = shell("exec sleep 1000");
        let id = process.id();
        let panicked = std::thread::spawn(move || {
            process.signal(Signal::STOP);
            panic!("as a test that fails");
        });
        panicked.join().expect_err("it panics");
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
