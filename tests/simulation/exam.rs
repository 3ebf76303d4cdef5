//! The exam of the simulation: bugs that are planted, one at a time, must be found.
//!
//! `cargo test -p curvine-tests --features exam --test exam` tries seeds with each until one of them fails, and prints by
//! which seed, how soon and what was seen. `CURVINE_BUG=lease-too-long` asks for one of them.
//!
//! What only a mount can do wrong has no seeds: there a test of the mount's core, or of two mounts, must fail. Nor has what a
//! test of the nodes' own shows at once. Such a bug is looked for where it is asked for by name, because its test takes
//! another build.

#![expect(
    clippy::disallowed_methods,
    reason = "the world's own clocks, tasks and queues are made here"
)]

mod acls;
mod chance;
mod checks;
mod disk;
mod faults;
mod files;
mod host;
mod known;
mod machine;
mod network;
mod objects;
mod plots;
mod programs;
mod run;
mod scenes;
mod store;
mod troubles;
mod workload;
mod world;

use std::ops::Range;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use curvine_actors::planted::{Bug, Meets};

/// What is not found by then is not found.
const SEEDS_DEFAULT: u64 = 500;

/// How a bug is looked for.
enum Way {
    Seeds(Range<u64>),
    /// By a test that must fail: what cargo is asked for.
    Test(Vec<&'static str>),
}

fn way_for(bug: Bug, count: u64, is_asked: bool) -> Option<Way> {
    match bug.meets() {
        Meets::Masters => Some(Way::Seeds(1..1 + count)),
        Meets::Plot(name) => {
            let seeds = plots::seeds_of(name, count);
            Some(Way::Seeds(seeds.expect("the bug's row names a plot")))
        }
        Meets::Core(test) | Meets::Unit(test) if is_asked => Some(Way::Test(vec!["--lib", test])),
        Meets::Kernel(test) if is_asked => Some(Way::Test(vec!["--test", "process", test])),
        Meets::Core(_) | Meets::Unit(_) | Meets::Kernel(_) => None,
    }
}

/// By which seed it was found, or test, and what was seen.
type Found = Option<(String, String)>;

fn by_seeds(bug: Bug, seeds: Range<u64>) -> Found {
    let first: Mutex<Found> = Mutex::new(None);
    run::each(seeds, |seed| {
        let output = run::child(seed, Some(bug.name()));
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = said.lines().next().unwrap_or_default();
            let what = said.split_once(": ").map_or(said, |(_, what)| what);
            let found = (seed.to_string(), what.to_owned());
            first.lock().expect("nobody panics").get_or_insert(found);
        }
        !output.status.success()
    });
    first.into_inner().expect("nobody panics")
}

fn by_test(bug: Bug, words: &[&str]) -> Found {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The same packages for each, so that all of these bugs take one build.
    let packages = ["curvine-tests", "curvine-fuse", "curvine-node", "curvine-actors"];
    let output = Command::new(cargo)
        .args(["test", "--features", "curvine-tests/exam"])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .args(words)
        .env(run::PLANT, bug.name())
        .output()
        .expect("cargo can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let test = words.last().copied().unwrap_or_default();
    let line = said
        .lines()
        .find(|line| line.contains(test) && line.contains("FAILED"));
    line.map(|line| ("a test".to_owned(), line.to_owned()))
}

fn main() -> ExitCode {
    if let Some(code) = run::as_child() {
        return code;
    }
    if run::is_filtered_out("exam") {
        return ExitCode::SUCCESS;
    }
    let seeds = run::number("CURVINE_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let asked = std::env::var("CURVINE_BUG").ok();
    let bugs =
        (Bug::ALL.iter().copied()).filter(|bug| asked.as_deref().is_none_or(|asked| asked == bug.name()));
    let begun = Instant::now();
    let (mut found, mut missed) = (0, 0);
    println!("| bug | found by | after s | as |\n|---|---|---|---|");
    for bug in bugs {
        let Some(way) = way_for(bug, seeds, asked.is_some()) else {
            continue;
        };
        let begun = Instant::now();
        let first = match way {
            Way::Seeds(seeds) => by_seeds(bug, seeds),
            Way::Test(words) => by_test(bug, &words),
        };
        let seconds = begun.elapsed().as_secs_f64();
        match first {
            Some((by, said)) => {
                found += 1;
                let said: String = said.chars().take(120).collect();
                println!("| {} | {by} | {seconds:.0} | {said} |", bug.name());
            }
            None => {
                missed += 1;
                println!("| {} | NOT FOUND in {seeds} | {seconds:.0} | |", bug.name());
            }
        }
    }
    run::report(found, missed, begun.elapsed().as_secs_f64())
}
