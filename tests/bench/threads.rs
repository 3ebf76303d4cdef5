//! A master whose connections are spread over more and more threads: an empty call and a `stat`, beside one thread.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use crate::Bench;
use crate::commands::{number, text};
use crate::report::{Report, Row, Target};

/// Each with a connection of its own.
const CLIENTS: &str = "1,10,40,256";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let mut alone = BTreeMap::new();
    let counts = [1, 2, 4, 8, 16, 32, 64];
    for threads in counts.into_iter().filter(|&threads| threads <= cores.max(2)) {
        for ((op, clients), rate) in measure(bench, threads)? {
            let what = format!("{op}, {clients} clients, {threads} threads of the master");
            let row = Row::new("threads", what, rate, "/s");
            if threads == 1 {
                alone.insert((op, clients), rate);
                report.add(row);
                continue;
            }
            let one = alone
                .get(&(op.clone(), clients))
                .context("measured with one, too")?;
            let row = row.beside(format!("1 thread, {one:.0}/s"), rate / one);
            report.add(match op.as_str() {
                "stat" => row.target(Target::RatioAtLeast(0.9)),
                _ => row,
            });
        }
    }
    Ok(())
}

/// Calls a second, by name and number of clients.
fn measure(bench: &Bench, threads: usize) -> Result<BTreeMap<(String, u64), f64>> {
    let data_dir = bench.scratch.path().join(format!("threads-{threads}"));
    let data_dir = data_dir.to_string_lossy();
    let count = threads.to_string();
    let args = [
        "--data-dir",
        &data_dir,
        "--listen",
        "127.0.0.1:0",
        "--worker-listen",
        "127.0.0.1:0",
    ];
    let node = bench
        .programs
        .node_with(&[("CURVINE_NODE_THREADS", &count)], "all", &args)?;
    let files = bench.count(40_000).to_string();
    let local = bench.scratch.path().to_string_lossy();
    let words = [
        "bench",
        "meta",
        "--apart",
        "--clients",
        CLIENTS,
        "--ops",
        "echo,create,stat",
        "--files",
        &files,
        "--local",
        &local,
    ];
    let answers = bench.programs.cv(&node, &words)?;
    node.stop()?;
    let mut rates = BTreeMap::new();
    for answer in &answers {
        let op = text(answer, "op")?;
        if let ("echo" | "stat", Some(clients)) = (op, answer["clients"].as_u64()) {
            rates.insert((op.to_owned(), clients), number(answer, "per_second")?);
        }
    }
    Ok(rates)
}
