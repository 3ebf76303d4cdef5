//! The same metadata operations on one master and on a group of three, each a process of its own on this machine.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;

use anyhow::{Context, Result};

use crate::Bench;
use crate::commands::{number, text};
use crate::node::{Node, Starting};
use crate::report::{Report, Row, Target};

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let one = measure(bench, 1, report)?;
    let three = measure(bench, 3, report)?;
    for ((op, clients), rate) in &three {
        let alone = one.get(&(op.clone(), *clients)).context("measured on one, too")?;
        let what = format!("{op}, {clients} clients, 3 masters");
        let row =
            Row::new("masters", what, *rate, "/s").beside(format!("1 master, {alone:.0}/s"), rate / alone);
        report.add(match (op.as_str(), clients) {
            ("create", 40) => row.target(Target::RatioAtLeast(0.4)),
            // One answers from its own state, however many there are.
            ("stat", _) => row.target(Target::RatioAtLeast(0.9)),
            _ => row,
        });
    }
    Ok(())
}

/// Operations a second, by name and number of clients.
fn measure(bench: &Bench, masters: usize, report: &mut Report) -> Result<BTreeMap<(String, u64), f64>> {
    let group = Group::start(bench, masters)?;
    let worker_dir = bench.scratch.path().join(format!("masters-{masters}-worker"));
    let worker = bench.programs.worker(&worker_dir, &group.addresses)?;
    let files = bench.count(20_000).to_string();
    let local = bench.scratch.path().to_string_lossy();
    let words = ["bench", "meta", "--files", &files, "--local", &local];
    let answers = bench.programs.cv_at(&group.addresses, &words)?;
    worker.stop()?;
    commits(&group, report)?;
    group.masters.into_iter().try_for_each(Node::stop)?;
    let mut rates = BTreeMap::new();
    for answer in &answers {
        if let Some(clients) = answer["clients"].as_u64() {
            let key = (text(answer, "op")?.to_owned(), clients);
            rates.insert(key, number(answer, "per_second")?);
        }
    }
    Ok(rates)
}

/// How many commands share an entry, and how often the log is synced for one.
fn commits(group: &Group, report: &mut Report) -> Result<()> {
    let masters = group
        .masters
        .iter()
        .map(Node::metrics)
        .collect::<Result<Vec<_>>>()?;
    let of = |metrics: &HashMap<String, f64>, name: &str| metrics.get(name).copied().unwrap_or(0.0);
    let commands = |metrics: &HashMap<String, f64>| of(metrics, "curvine_raft_batch_commands_sum");
    let leader = masters
        .iter()
        .max_by(|one, other| commands(one).total_cmp(&commands(other)));
    let leader = leader.context("there are masters")?;
    let sum = commands(leader);
    let what = |text: &str| format!("{text}, all of the above, {} masters", masters.len());
    let entries = of(leader, "curvine_raft_batch_commands_count");
    report.add(Row::new(
        "masters",
        what("commands in an entry"),
        sum / entries,
        "commands",
    ));
    // Each commit is two: of the data, then of the page that says where they are.
    let syncs = 2.0 * of(leader, "curvine_raft_log_commit_seconds_count") / sum;
    report.add(Row::new(
        "masters",
        what("syncs of the leader's disk for a command"),
        syncs,
        "syncs",
    ));
    Ok(())
}

struct Group {
    masters: Vec<Node>,
    /// As `--master` takes them.
    addresses: String,
}

impl Group {
    fn start(bench: &Bench, count: usize) -> Result<Group> {
        let places = Places::pick(bench, &format!("masters-{count}"), count)?;
        // None is ready before there is a majority.
        let starting = (0..count).map(|number| places.begin(bench, number, count));
        let starting: Vec<Starting> = starting.collect::<Result<_>>()?;
        let masters = starting.into_iter().map(Starting::ready);
        Ok(Group {
            masters: masters.collect::<Result<_>>()?,
            addresses: places.addresses.join(","),
        })
    }
}

/// Where the masters of a group listen and keep their data. Numbered from 0; their ids are from 1.
pub struct Places {
    pub addresses: Vec<String>,
    directories: Vec<String>,
}

impl Places {
    pub fn pick(bench: &Bench, name: &str, count: usize) -> Result<Places> {
        // Held until all are picked, so that no two are the same.
        let free: Vec<_> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let addresses = free.iter().map(|port| Ok(port.local_addr()?.to_string()));
        let directory = |number| {
            let directory = bench.scratch.path().join(format!("{name}-{number}"));
            directory.display().to_string()
        };
        Ok(Places {
            addresses: addresses.collect::<Result<_>>()?,
            directories: (1..=count).map(directory).collect(),
        })
    }

    /// Starts one that is told of the first so many.
    pub fn start(&self, bench: &Bench, number: usize, of: usize) -> Result<Node> {
        self.begin(bench, number, of)?.ready()
    }

    pub fn begin(&self, bench: &Bench, number: usize, of: usize) -> Result<Starting> {
        let peers: Vec<String> = (self.addresses[..of].iter().enumerate())
            .map(|(number, address)| format!("{}={address}", number + 1))
            .collect();
        let (id, peers) = ((number + 1).to_string(), peers.join(","));
        let args = [
            "--id",
            &id,
            "--listen",
            &self.addresses[number],
            "--peers",
            &peers,
            "--data-dir",
            &self.directories[number],
            "--web",
            "127.0.0.1:0",
        ];
        bench.programs.begin("master", &args)
    }
}
