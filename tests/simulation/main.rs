//! The simulation: real masters, workers and clients on a simulated network, clock and disk, on one thread, from one seed.
//!
//! `cargo test -p curvine-tests --test simulation` runs [`SEEDS_DEFAULT`] seeds of masters alone,
//! [`CLUSTER_SEEDS_DEFAULT`] of whole clusters and [`PLOT_SEEDS_DEFAULT`] of each plot (`CURVINE_SEEDS=5000` of each kind, and
//! a tenth as many of each plot, for a soak; `CURVINE_FIRST_SEED` for others of one kind), each in a process of its own. `CURVINE_SEED=17 cargo test -p curvine-tests --test
//! simulation` replays one and tells what happens; with `CURVINE_MESSAGES=1` also every message, with `RUST_LOG=debug`
//! also what the masters log.
//!
//! - [`world`]: one run; [`faults`], [`troubles`]: what goes wrong in it, with masters and with the rest; [`known`]: what
//!   is left out.
//! - [`checks`]: what must hold of masters, [`files`] and [`objects`]: of what is read, [`acls`]: of access control lists; [`workload`]: clients that make raw
//!   calls, [`programs`]: those that have files open.
//! - [`plots`]: small fixed programs, one for each kind of fault; [`scenes`]: transcripts to read, in `transcripts/`.
//! - [`machine`], [`host`], [`network`], [`disk`], [`store`], [`chance`]: what is simulated; [`run`]: seeds as processes.
//!
//! `exam.rs` is the same with planted bugs.

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

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use self::scenes::Scene;

use self::world::CLUSTERS;
use curvine_protocol::number::to_usize;

/// Of masters alone, and of whole clusters.
const SEEDS_DEFAULT: u64 = 150;
const CLUSTER_SEEDS_DEFAULT: u64 = 150;
/// Of each plot.
const PLOT_SEEDS_DEFAULT: u64 = 3;
/// The first so many of a kind are run twice: a seed decides everything.
const TWICE: u64 = 3;

fn main() -> ExitCode {
    if let Some(code) = run::as_child() {
        return code;
    }
    if run::is_filtered_out("simulation") {
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = run::number(curvine_tests::random::SEED_VARIABLE) {
        let scratch = run::scratch();
        return run::simulate(seed, scratch.path(), true);
    }
    let scenes_failed = scenes::ALL.iter().filter(|scene| !is_as_written(scene)).count();
    let first = run::number("CURVINE_FIRST_SEED");
    let seeds = run::number("CURVINE_SEEDS");
    // Of either kind, unless the first seed says of which.
    let firsts = first.map_or_else(|| vec![1, CLUSTERS + 1], |first| vec![first]);
    let begun = Instant::now();
    let (mut all, mut failed) = (scenes::ALL.len(), scenes_failed);
    for first in firsts {
        let default = if first < CLUSTERS {
            SEEDS_DEFAULT
        } else {
            CLUSTER_SEEDS_DEFAULT
        };
        let seeds = first..first + seeds.unwrap_or(default);
        all += to_usize(seeds.end - seeds.start);
        failed += run_all(seeds);
    }
    if first.is_none() {
        // As many again for each tenth that is asked for.
        let each = seeds.map_or(PLOT_SEEDS_DEFAULT, |seeds| (seeds / 10).max(1));
        for seeds in plots::first_seeds(each) {
            all += to_usize(seeds.end - seeds.start);
            failed += run_all(seeds);
        }
    }
    run::report(all - failed, failed, begun.elapsed().as_secs_f64())
}

/// How many of them failed.
fn run_all(seeds: std::ops::Range<u64>) -> usize {
    let first = seeds.start;
    let failed = Mutex::new(0);
    run::each(seeds, |seed| {
        let output = run::child(seed, None);
        let again = (seed - first < TWICE).then(|| run::child(seed, None));
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_same = again.is_none_or(|again| again.stdout == output.stdout);
        if !is_same {
            said += "the second run of this seed was another";
        }
        if !output.status.success() || !is_same {
            println!(
                "FAILED {said}\n    replay: CURVINE_SEED={seed} cargo test -p curvine-tests --test simulation"
            );
            *failed.lock().expect("nobody panics") += 1;
        }
        false
    });
    failed.into_inner().expect("nobody panics")
}

/// Plays a scene and compares it with its transcript.
fn is_as_written(scene: &Scene) -> bool {
    let output = run::scene(scene);
    let transcript = scene.transcript();
    if std::env::var_os("UPDATE_RENDERED").is_some() {
        std::fs::write(&transcript, &output.stdout).expect("the transcripts are in the source");
    }
    let written = std::fs::read(&transcript).unwrap_or_default();
    let is_same = output.status.success() && written == output.stdout;
    if !is_same {
        let now = String::from_utf8_lossy(&output.stdout);
        println!(
            "FAILED the scene `{}` is not as in {}; if that is right, take it with UPDATE_RENDERED=1. It is:\n{now}",
            scene.name,
            transcript.display()
        );
    }
    is_same
}
