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
mod programs;
mod run;
mod scenes;
mod store;
mod troubles;
mod workload;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use curvine_actors::planted::Bug;

use self::world::CLUSTERS;

/// What is not found by then is not found.
const SEEDS_DEFAULT: u64 = 500;

/// Bugs up to this one are of masters alone; those behind it are of workers, clients and what masters say to them.
const LAST_OF_MASTERS: Bug = Bug::ForgetsItsVote;

/// The first seed of the kind of run that can show it.
fn first_seed_for(bug: Bug) -> u64 {
    let mut of_masters = Bug::ALL.into_iter().take_while(|other| *other != LAST_OF_MASTERS);
    match bug == LAST_OF_MASTERS || of_masters.any(|other| other == bug) {
        true => 1,
        false => CLUSTERS + 1,
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
    let others = Bug::NOT_FOUND_YET.into_iter().filter(|_| asked.is_some());
    let bugs = (Bug::ALL.into_iter().chain(others))
        .filter(|bug| asked.as_deref().is_none_or(|asked| asked == bug.name()));
    let begun = Instant::now();
    let (mut found, mut missed) = (0, 0);
    println!("| bug | found by seed | after s | as |\n|---|---|---|---|");
    for bug in bugs {
        let begun = Instant::now();
        let first: Mutex<Option<(u64, String)>> = Mutex::new(None);
        let first_seed = first_seed_for(bug);
        run::each(first_seed..first_seed + seeds, |seed| {
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
