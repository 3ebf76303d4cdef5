//! Every benchmark in one go, on scratch nodes of this machine: `cargo bench -p curvine-tests`.
//!
//! Prints a table of rates, each beside the floor under it that was measured in the same run, and writes the same as JSON.
//! Build the programs first: `cargo build --release -p curvine-node -p curvine-cli`. The load from S3 and the part `stores`
//! need a server: `cargo install --locked s3s-fs --version 0.14.1 --features binary`; without it they are skipped, and it is
//! said.
//!
//! Options (after `--`): `--only PART,...` of those listed in [`PARTS`], `--quick` for a tenth of everything, `--json FILE`
//! (default `target/bench.json`), `--dir DIR` for the scratch data (default: a temporary directory beside `target`).

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the time that passes"
)]

mod blocks;
mod checksums;
mod cluster;
mod commands;
mod load;
mod masters;
mod million;
mod node;
mod probe;
mod report;
mod server;
mod size;
mod steps;
mod stores;
mod threads;
mod trees;
mod workers;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use node::Programs;
use report::Report;

/// What can be run, in this order.
const PARTS: [&str; 17] = [
    "memory",
    "steps",
    "meta",
    "threads",
    "masters",
    "cluster",
    "data",
    "checksums",
    "small",
    "fuse",
    "load",
    "stores",
    "trees",
    "million",
    "blocks",
    "workers",
    "size",
];

struct Options {
    only: Vec<String>,
    quick: bool,
    json: PathBuf,
    dir: PathBuf,
}

/// What a part measures with.
pub struct Bench {
    pub programs: Programs,
    pub scratch: tempfile::TempDir,
    pub quick: bool,
}

impl Bench {
    /// A count, or a tenth of it in a quick run.
    pub fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }
}

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    let bench = Bench {
        programs: Programs::find()?,
        scratch: tempfile::Builder::new()
            .prefix("curvine-bench-")
            .tempdir_in(&options.dir)
            .with_context(|| format!("a scratch directory in {}", options.dir.display()))?,
        quick: options.quick,
    };
    let mut report = Report::default();
    for part in PARTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == part) {
            continue;
        }
        eprintln!("{part} ...");
        match part {
            "memory" => commands::memory(&bench, &mut report)?,
            "steps" => steps::run(&bench, &mut report)?,
            "meta" => commands::meta(&bench, &mut report)?,
            "threads" => threads::run(&bench, &mut report)?,
            "masters" => masters::run(&bench, &mut report)?,
            "cluster" => cluster::run(&bench, &mut report)?,
            "data" => commands::data(&bench, &mut report)?,
            "checksums" => checksums::run(&bench, &mut report)?,
            "small" => commands::small(&bench, &mut report)?,
            "fuse" => commands::fuse(&bench, &mut report)?,
            "load" => load::run(&bench, &mut report)?,
            "stores" => stores::run(&bench, &mut report)?,
            "trees" => trees::run(&bench, &mut report)?,
            "million" => million::run(&bench, &mut report)?,
            "blocks" => blocks::run(&bench, &mut report)?,
            "workers" => workers::run(&bench, &mut report)?,
            _ => size::run(&bench, &mut report)?,
        }
    }
    print!("{}", report.table());
    std::fs::write(&options.json, report.json()?)
        .with_context(|| format!("writing {}", options.json.display()))?;
    eprintln!("also in {}", options.json.display());
    Ok(())
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let target = Programs::target_dir()?;
    let mut options = Options {
        only: Vec::new(),
        quick: false,
        json: target.join("bench.json"),
        dir: target,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => options.quick = true,
            "--json" => options.json = value()?.into(),
            "--dir" => options.dir = value()?.into(),
            "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
            other => bail!("unknown option `{other}`; see the head of tests/bench/main.rs"),
        }
    }
    if let Some(unknown) = options.only.iter().find(|only| !PARTS.contains(&only.as_str())) {
        bail!("no part `{unknown}`; there are {}", PARTS.join(", "));
    }
    Ok(options)
}
