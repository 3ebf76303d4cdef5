//! The exam of the simulation: bugs that are planted, one at a time, must be found.
//!
//! `cargo test -p curvine-tests --features exam --test exam` tries seeds with each until one of them fails, and prints by
//! which seed, how soon and what was seen. `CURVINE_BUG=lease-too-long` asks for one of them.

#![expect(
    clippy::disallowed_methods,
    reason = "the world's own clocks, tasks and queues are made here"
)]

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
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use curvine_actors::planted::{Bug, Meets};

use self::world::CLUSTERS;

/// What is not found by then is not found.
const SEEDS_DEFAULT: u64 = 500;

/// The seeds that can show it.
fn seeds_for(bug: Bug, count: u64) -> Option<Range<u64>> {
    match bug.meets() {
        Meets::Masters => Some(1..1 + count),
        Meets::Clusters => Some(CLUSTERS + 1..CLUSTERS + 1 + count),
        Meets::Plot(name) => Some(plots::seeds_of(name, count).expect("the bug's row names a plot")),
        Meets::Mounts => None,
    }
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
    println!("| bug | found by seed | after s | as |\n|---|---|---|---|");
    for bug in bugs {
        let Some(range) = seeds_for(bug, seeds) else {
            continue;
        };
        let begun = Instant::now();
        let first: Mutex<Option<(u64, String)>> = Mutex::new(None);
        run::each(range, |seed| {
            let output = run::child(seed, Some(bug.name()));
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                first.lock().expect("nobody panics").get_or_insert((seed, said));
            }
            !output.status.success()
        });
        let seconds = begun.elapsed().as_secs_f64();
        match first.into_inner().expect("nobody panics") {
            Some((seed, said)) => {
                found += 1;
                let said = said.lines().next().unwrap_or_default();
                let said: String = said
                    .split_once(": ")
                    .map_or(said, |(_, what)| what)
                    .chars()
                    .take(120)
                    .collect();
                println!("| {} | {seed} | {seconds:.0} | {said} |", bug.name());
            }
            None => {
                missed += 1;
                println!("| {} | NOT FOUND in {seeds} | {seconds:.0} | |", bug.name());
            }
        }
    }
    run::report(found, missed, begun.elapsed().as_secs_f64())
}
