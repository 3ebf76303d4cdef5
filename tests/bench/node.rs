//! The programs under measurement, as processes that end with their owner.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use curvine_actors::client::{Client, ClientOptions};
use serde_json::Value;

/// As systemd gives by default: on a slow disk the last sync takes its time.
const STOP_DEADLINE: Duration = Duration::from_secs(90);

/// The release builds.
pub struct Programs {
    node: PathBuf,
    cv: PathBuf,
}

impl Programs {
    /// Where cargo put this program: `target/release/deps/bench-...`.
    pub fn target_dir() -> Result<PathBuf> {
        let this = std::env::current_exe()?;
        let target = this
            .ancestors()
            .nth(3)
            .context("this program is not in a target directory")?;
        Ok(target.to_owned())
    }

    pub fn find() -> Result<Programs> {
        let release = Self::target_dir()?.join("release");
        let found = |name: &str| {
            let path = release.join(name);
            ensure!(
                path.is_file(),
                "{} is missing: cargo build --release -p curvine-node -p curvine-cli",
                path.display()
            );
            Ok(path)
        };
        Ok(Programs {
            node: found("curvine-node")?,
            cv: found("cv")?,
        })
    }

    /// Starts a node; returns when it serves.
    pub fn node(&self, role: &str, args: &[&str]) -> Result<Node> {
        self.begin(role, args)?.ready()
    }

    /// The same with these variables in its environment.
    pub fn node_with(&self, variables: &[(&str, &str)], role: &str, args: &[&str]) -> Result<Node> {
        self.begin_with(variables, role, args)?.ready()
    }

    /// Starts a node that does not serve yet.
    pub fn begin(&self, role: &str, args: &[&str]) -> Result<Starting> {
        self.begin_with(&[], role, args)
    }

    fn begin_with(&self, variables: &[(&str, &str)], role: &str, args: &[&str]) -> Result<Starting> {
        let begun = Instant::now();
        let mut command = Command::new(&self.node);
        command
            .env_remove("CURVINE_FILES")
            .envs(variables.iter().copied());
        if !args.contains(&"--web") {
            command.args(["--web", "off"]);
        }
        command
            .args(["--role", role, "--log-format", "json", "--log-level", "warn"])
            .args(args);
        let process = Process::start(command, Stdio::piped())?;
        Ok(Starting { process, begun })
    }

    /// A worker of these masters on a free port, its data in a directory.
    pub fn worker(&self, data_dir: &Path, masters: &str) -> Result<Node> {
        let data_dir = data_dir.to_string_lossy();
        let args = [
            "--data-dir",
            &data_dir,
            "--master",
            masters,
            "--worker-listen",
            "127.0.0.1:0",
        ];
        self.node("worker", &args)
    }

    /// A node of every role on free ports, its data in a directory.
    pub fn node_of_all_roles(&self, data_dir: &Path) -> Result<Node> {
        self.all_roles(data_dir, &[])
    }

    /// The same with a mount.
    pub fn mounted_node_of_all_roles(&self, data_dir: &Path, mount_point: &str) -> Result<Node> {
        self.all_roles(data_dir, &["--mount-point", mount_point])
    }

    fn all_roles(&self, data_dir: &Path, more: &[&str]) -> Result<Node> {
        let data_dir = data_dir.to_string_lossy();
        let mut args = vec![
            "--data-dir",
            &data_dir,
            "--listen",
            "127.0.0.1:0",
            "--worker-listen",
            "127.0.0.1:0",
        ];
        args.extend(more);
        self.node("all", &args)
    }

    /// Runs `cv`; its answers, an object a line.
    pub fn cv(&self, node: &Node, args: &[&str]) -> Result<Vec<Value>> {
        self.cv_at(node.master()?, args)
    }

    /// The same with these masters.
    pub fn cv_at(&self, masters: &str, args: &[&str]) -> Result<Vec<Value>> {
        let output = Command::new(&self.cv)
            .args(["--master", masters, "--json"])
            .args(args)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(
            output.status.success(),
            "cv {} failed: {}",
            args.join(" "),
            output.status
        );
        String::from_utf8(output.stdout)?
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("cv said {line:?}")))
            .collect()
    }
}

/// A process of ours, killed when dropped.
pub struct Process(Child);

impl Process {
    pub fn start(mut command: Command, stdout: Stdio) -> Result<Process> {
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(stdout).spawn();
        Ok(Process(child.with_context(|| format!("starting {shown}"))?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that has not said yet that it serves.
pub struct Starting {
    process: Process,
    begun: Instant,
}

impl Starting {
    pub fn ready(mut self) -> Result<Node> {
        let stdout = self.process.0.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready = serde_json::from_str(&line).with_context(|| format!("a node is not ready: {line:?}"))?;
        Ok(Node {
            process: self.process,
            ready,
            started_in: self.begun.elapsed(),
        })
    }
}

/// A node of every role with a mount, and a client of it.
pub struct Mounted {
    pub node: Node,
    pub mount_point: PathBuf,
    pub runtime: tokio::runtime::Runtime,
    pub client: Client,
}

impl Mounted {
    /// Its data and its mount are in scratch directories of this name.
    pub fn start(bench: &crate::Bench, name: &str) -> Result<Mounted> {
        let place = |name: &str| bench.scratch.path().join(name);
        let mount_point = place(&format!("{name}-mount"));
        std::fs::create_dir(&mount_point)?;
        let programs = &bench.programs;
        let node = programs.mounted_node_of_all_roles(&place(name), &mount_point.to_string_lossy())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let client = runtime.block_on(Client::connect([node.master()?], ClientOptions::default()))?;
        Ok(Mounted {
            node,
            mount_point,
            runtime,
            client,
        })
    }
}

/// A node that serves.
pub struct Node {
    process: Process,
    ready: Value,
    /// From the start of the process until it said that it serves.
    pub started_in: Duration,
}

impl Node {
    pub fn master(&self) -> Result<&str> {
        self.said("master")
    }

    pub fn worker(&self) -> Result<&str> {
        self.said("worker")
    }

    fn said(&self, field: &str) -> Result<&str> {
        self.ready[field]
            .as_str()
            .with_context(|| format!("no {field} in {}", self.ready))
    }

    /// Its metrics, by the names that it gives them.
    pub fn metrics(&self) -> Result<HashMap<String, f64>> {
        let web = self.said("web")?;
        let address = web.trim_start_matches("http://").trim_end_matches('/');
        let mut socket = TcpStream::connect(address).with_context(|| format!("reaching {web}"))?;
        write!(socket, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let named = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(answer.lines().filter_map(named).collect())
    }

    /// Resident memory in MB: all of it, and what is not pages of mapped files, which the kernel takes back at will.
    pub fn resident_mb(&self) -> Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.split_whitespace().next());
            let kilobytes: f64 = kilobytes
                .with_context(|| format!("no {name} in the status"))?
                .parse()?;
            Ok(kilobytes * 1024.0 / 1e6)
        };
        Ok((field("VmRSS:")?, field("RssAnon:")?))
    }

    /// The processor time that it has taken.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(&self.process.id().to_string())
    }

    /// Stops it in order.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.process.id().to_string();
        ensure!(
            Command::new("kill").args(["-TERM", &pid]).status()?.success(),
            "no process {pid}"
        );
        let begun = Instant::now();
        loop {
            match self.process.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the node ended with {status}"),
                None if begun.elapsed() > STOP_DEADLINE => bail!("the node does not stop"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// The processor time that a process has taken, by its number or `self`.
pub fn cpu_seconds(process: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may have spaces: proc(5).
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes on disk of everything below a directory.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
