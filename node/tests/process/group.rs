//! A group of masters as processes, for tests that kill them, cut their power or their network.

use std::path::PathBuf;
use std::time::Duration;

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::cluster::{MasterRole, MasterStatus};
use curvine_protocol::number::to_usize;
use curvine_protocol::{CurvinePath, NodeId};

use super::support::*;

/// A group of masters, each with an address and a directory, started and killed one by one.
pub struct Masters {
    pub addresses: Vec<String>,
    pub directories: Vec<PathBuf>,
    /// The network namespace of each, or none.
    pub namespaces: Vec<String>,
    /// The program that each runs.
    pub programs: Vec<PathBuf>,
    pub nodes: Vec<Option<Node>>,
    pub scratch: tempfile::TempDir,
}

impl Masters {
    /// They have addresses, and none runs.
    pub fn named(count: usize) -> Masters {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        Masters {
            addresses: (0..count)
                .map(|_| format!("127.0.0.1:{}", lasting_port()))
                .collect(),
            directories: (1..=count)
                .map(|id| scratch.path().join(format!("master-{id}")))
                .collect(),
            namespaces: Vec::new(),
            programs: vec![program::node().to_owned(); count],
            nodes: std::iter::repeat_with(|| None).take(count).collect(),
            scratch,
        }
    }

    pub fn start(count: usize) -> Masters {
        let mut masters = Masters::named(count);
        masters.start_all_of(&(0..count).collect::<Vec<_>>());
        masters
    }

    /// None of these is ready without another, if they are the majority.
    pub fn start_all_of(&mut self, numbers: &[usize]) {
        let starting: Vec<_> = numbers.iter().map(|number| self.starting(*number)).collect();
        for (number, node) in numbers.iter().zip(starting) {
            self.nodes[*number] = Some(node.ready());
        }
    }

    /// Starts a worker of them, with a data directory of its own.
    pub fn worker(&self, number: u32) -> Node {
        self.worker_with(number, &[])
    }

    /// Where a small worker keeps its blocks.
    pub fn blocks_of(&self, number: u32) -> PathBuf {
        self.scratch.path().join(format!("blocks-{number}"))
    }

    /// One that keeps no more than so many MiB.
    pub fn small_worker(&self, number: u32, capacity_mib: u64) -> Node {
        let data_dirs = format!("[SSD:{capacity_mib}MiB]{}", text(&self.blocks_of(number)));
        self.worker_on(number, &data_dirs)
    }

    /// One with these data directories.
    pub fn worker_on(&self, number: u32, data_dirs: &str) -> Node {
        self.worker_with(number, &["--data-dirs", data_dirs])
    }

    /// One that stands somewhere: `host=NAME,rack=NAME`.
    pub fn worker_at(&self, number: u32, labels: &str) -> Node {
        self.worker_with(number, &["--labels", labels])
    }

    fn worker_with(&self, number: u32, more: &[&str]) -> Node {
        let directory = self.scratch.path().join(format!("worker-{number}"));
        let masters = self.addresses.join(",");
        let args = [
            "--role",
            "worker",
            "--master",
            &masters,
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&directory),
        ];
        Node::start(&[&args[..], more].concat())
    }

    pub fn directory(&self, number: usize) -> PathBuf {
        self.directories[number].clone()
    }

    pub fn starting(&self, number: usize) -> Starting {
        self.starting_among(number, self.addresses.len())
    }

    /// A group of the first so many.
    pub fn starting_among(&self, number: usize, count: usize) -> Starting {
        let peers: Vec<_> = (self.addresses[..count].iter().enumerate())
            .map(|(number, address)| format!("{}={address}", number + 1))
            .collect();
        let args = [
            "--role",
            "master",
            "--id",
            &(number + 1).to_string(),
            "--listen",
            &self.addresses[number],
            "--peers",
            &peers.join(","),
            "--data-dir",
            text(&self.directories[number]),
        ];
        let namespace = self.namespaces.get(number).map(String::as_str);
        Node::starting_of(&self.programs[number], namespace, &args)
    }

    pub fn start_again(&mut self, number: usize) {
        self.nodes[number] = Some(self.starting(number).ready());
    }

    /// Starts the next one and has the group of so many take it in.
    pub async fn join(&mut self, client: &Client, number: usize, count: usize) {
        let joining = self.starting_among(number, count);
        let id = NodeId(number as u64 + 1);
        let address = &self.addresses[number];
        until_ok("it is taken in", async || client.add_master(id, address).await).await;
        self.nodes[number] = Some(joining.ready());
    }

    pub fn kill(&mut self, number: usize) {
        let mut node = self.nodes[number].take().expect("it runs");
        node.kill();
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addresses.clone(), ClientOptions::default())
            .await
            .expect("a master leads")
    }
}

pub async fn statuses(client: &Client) -> Vec<MasterStatus> {
    client.status().await.expect("a master leads").masters
}

/// Which of them leads, by its place in the list of addresses.
pub async fn leader(client: &Client) -> usize {
    let masters = statuses(client).await;
    let leader = masters.iter().find(|master| master.role == MasterRole::Leader);
    to_usize(leader.expect("one leads").id.0 - 1)
}

/// Waits until all of them are there, vote, and have applied what the leader had at the beginning.
pub async fn all_in_step(client: &Client) {
    let upto = statuses(client)
        .await
        .iter()
        .map(|master| master.applied_index)
        .max();
    let is_in_step = |master: &MasterStatus| {
        master.is_reachable && master.role != MasterRole::Learner && Some(master.applied_index) >= upto
    };
    until_ok("all are in step", async || {
        let masters = statuses(client).await;
        match masters.iter().all(is_in_step) {
            true => Ok(()),
            false => Err(format!("{masters:?}")),
        }
    })
    .await;
}

pub fn path(name: &str) -> CurvinePath {
    CurvinePath::parse(&format!("/{name}")).expect("a valid path")
}

/// Says how long something took, over the rounds of a test.
pub fn percentiles(what: &str, mut longest: Vec<Duration>) {
    longest.sort();
    let at = |percent: usize| longest[((longest.len() - 1) * percent + 50) / 100];
    eprintln!(
        "{} times {what}: {:?} (median), {:?} (p99), {:?} (worst)",
        longest.len(),
        at(50),
        at(99),
        at(100)
    );
}
