//! The simulation: real masters on a simulated network, clock and disk, on one thread, from one seed.
//!
//! `cargo test -p curvine-tests --test simulation` runs [`SEEDS_DEFAULT`] seeds (`CURVINE_SEEDS=5000` for a soak), each
//! in a process of its own. `CURVINE_SEED=17 cargo test -p curvine-tests --test simulation` replays one and tells what
//! happens.
//!
//! - [`world`]: one run; [`faults`]: what goes wrong in it; [`checks`]: what must hold; [`workload`]: its clients.
//! - [`host`], [`network`], [`disk`], [`chance`]: what is simulated.

mod chance;
mod checks;
mod disk;
mod faults;
mod host;
mod network;
mod workload;
mod world;

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::world::{PANIC, Summary, World};

const SEEDS_DEFAULT: u64 = 500;
/// The first so many are run twice: a seed decides everything.
const TWICE: u64 = 3;
/// How a child is told its seed, where to write, and to be quiet.
const CHILD: &str = "CURVINE_SIMULATE";
/// Histories are checked by recursion.
const STACK_BYTES: usize = 1 << 30;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn main() -> ExitCode {
    if let Some(seed) = number(CHILD) {
        let scratch = std::env::args().nth(1).expect("the scratch directory");
        return simulate(seed, Path::new(&scratch), false);
    }
    // A filter for other tests: as libtest has it.
    if std::env::args()
        .skip(1)
        .any(|word| !word.starts_with('-') && !"simulation".contains(&word))
    {
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = number(curvine_tests::random::SEED_VARIABLE) {
        let scratch = scratch();
        return simulate(seed, scratch.path(), true);
    }
    let first = number("CURVINE_FIRST_SEED").unwrap_or(1);
    let seeds = number("CURVINE_SEEDS").unwrap_or(SEEDS_DEFAULT);
    all(first..first + seeds)
}

/// Memory, where there is such a file system: what is not synced is this program's business.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a scratch directory")
}

/// One seed, in this process.
fn simulate(seed: u64, scratch: &Path, is_told: bool) -> ExitCode {
    let scratch = scratch.to_owned();
    // Before anything asks for random bytes and keeps them.
    chance::seed_process(seed);
    let simulating = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run(seed, &scratch, is_told))
        .expect("a thread");
    match simulating.join() {
        Ok(Ok(summary)) => {
            println!("seed {seed}: {summary}");
            ExitCode::SUCCESS
        }
        Ok(Err(violation)) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
        Err(_) => {
            println!("seed {seed}: {:?}", PANIC.lock().expect("only the hook writes"));
            ExitCode::FAILURE
        }
    }
}

fn run(seed: u64, scratch: &Path, is_told: bool) -> Result<Summary, String> {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("something panicked");
        PANIC
            .lock()
            .expect("it does not panic")
            .get_or_insert(format!("{message} at {place}"));
    }));
    if is_told {
        // `RUST_LOG=debug` tells more; the times are the world's.
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned());
        let log = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_env_filter(filter);
        log.with_writer(std::io::stdout).init();
    }
    disk::watch();
    World::new(seed, scratch, is_told)?.run()
}

fn child(seed: u64) -> Output {
    let scratch = scratch();
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg(scratch.path()).env(CHILD, seed.to_string());
    command.output().expect("this program can be run again")
}

fn all(seeds: std::ops::Range<u64>) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let output = child(seed);
                    let again = (seed - seeds.start < TWICE).then(|| child(seed));
                    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let is_same = again.is_none_or(|again| again.stdout == output.stdout);
                    if !is_same {
                        said += "the second run of this seed was another";
                    }
                    if !output.status.success() || !is_same {
                        println!("FAILED {said}\n    replay: CURVINE_SEED={seed} cargo test -p curvine-tests --test simulation");
                        failed.lock().expect("nobody panics").push(seed);
                    }
                }
            });
        }
    });
    report(
        seeds.end - seeds.start,
        &failed.into_inner().expect("nobody panics"),
        begun.elapsed(),
    )
}

/// As libtest has it, so that it is counted.
fn report(seeds: u64, failed: &[u64], time: Duration) -> ExitCode {
    let (word, code) = match failed.is_empty() {
        true => ("ok", ExitCode::SUCCESS),
        false => ("FAILED", ExitCode::FAILURE),
    };
    let bad = failed.len() as u64;
    println!(
        "\ntest result: {word}. {} passed; {bad} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        seeds - bad,
        time.as_secs_f64()
    );
    code
}
