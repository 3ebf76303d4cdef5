//! One seed: in this process, or in one of its own.
//!
//! A process of its own for each: random bytes, time and disk are then this run's alone from the first instruction on, and
//! it is the same whether many seeds run or one.

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checks::Violation;
use crate::scenes::{self, Scene};
use crate::world::{PANIC, PLOTS, World};
use crate::{chance, disk, plots};

/// How a child is told its seed.
const CHILD: &str = "CURVINE_SIMULATE";
/// And which bug it is to have: the exam's.
pub const PLANT: &str = "CURVINE_PLANT";

pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// In a child: the run. Asked first of all.
pub fn as_child() -> Option<ExitCode> {
    let seed = number(CHILD)?;
    let scratch = std::env::args().nth(1).expect("the scratch directory");
    if let Some(scene) = std::env::var(scenes::PLAY)
        .ok()
        .as_deref()
        .and_then(scenes::named)
    {
        return Some(play(scene, Path::new(&scratch)));
    }
    let is_told = std::env::var_os("CURVINE_TOLD").is_some();
    Some(simulate(seed, Path::new(&scratch), is_told))
}

/// Memory, where there is such a file system: what is not synced is this program's business.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a scratch directory")
}

fn play(scene: &'static Scene, scratch: &Path) -> ExitCode {
    let scratch = scratch.to_owned();
    match alone(1, move || scene.run(&scratch)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// In this process.
pub fn simulate(seed: u64, scratch: &Path, is_told: bool) -> ExitCode {
    // The directory has a name of its own in every run, which errors would tell.
    std::env::set_current_dir(scratch).expect("the scratch directory is there");
    let scratch = Path::new(".");
    let ended = alone(seed, move || match seed {
        PLOTS.. => plots::play(seed, scratch, is_told),
        _ => World::new(seed, scratch, is_told)?.run(),
    });
    match ended {
        Ok(summary) => {
            println!("seed {seed}: {summary}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Runs something in a thread for which nothing but the seed is random.
fn alone<T: Send + 'static>(
    seed: u64,
    run: impl FnOnce() -> Result<T, Violation> + Send + 'static,
) -> Result<T, Violation> {
    // `RUST_LOG=debug` tells more. Also where nothing is told: a run that is told is to be the same.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned());
    let log = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_env_filter(filter);
    log.with_writer(std::io::stdout).init();
    // Before anything in the thread of the simulation asks for random bytes and keeps them.
    chance::seed_process(seed);
    disk::watch();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("something panicked");
        PANIC
            .lock()
            .expect("it does not panic")
            .get_or_insert(format!("{message} at {place}"));
    }));
    let simulated = std::thread::spawn(move || {
        chance::simulate_here();
        run()
    });
    simulated.join().unwrap_or_else(|_| {
        let panic = PANIC.lock().expect("only the hook writes").take();
        Err(panic.unwrap_or_default())
    })
}

/// A scene in a process of its own.
#[cfg(not(feature = "exam"))]
pub fn scene(scene: &Scene) -> Output {
    let scratch = scratch();
    let mut command = again(&scratch);
    command.env(CHILD, "1").env(scenes::PLAY, scene.name);
    command.output().expect("this program can be run again")
}

fn again(scratch: &tempfile::TempDir) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg(scratch.path());
    command
}

/// In a process of its own, perhaps with a planted bug.
pub fn child(seed: u64, bug: Option<&str>) -> Output {
    let scratch = scratch();
    let mut command = again(&scratch);
    command.env(CHILD, seed.to_string());
    if let Some(bug) = bug {
        command.env(PLANT, bug);
    }
    command.output().expect("this program can be run again")
}

/// Does something with each seed, on all cores, until it says that this is enough.
pub fn each(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    let enough = Mutex::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !*enough.lock().expect("nobody panics") {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    if run(seed) {
                        *enough.lock().expect("nobody panics") = true;
                    }
                }
            });
        }
    });
}

/// As libtest has it, so that it is counted.
pub fn report(passed: usize, failed: usize, seconds: f64) -> ExitCode {
    let (word, code) = match failed {
        0 => ("ok", ExitCode::SUCCESS),
        _ => ("FAILED", ExitCode::FAILURE),
    };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in \
         {seconds:.2}s"
    );
    code
}

/// Whether the words after `cargo test` ask for other tests.
pub fn is_filtered_out(name: &str) -> bool {
    std::env::args()
        .skip(1)
        .any(|word| !word.starts_with('-') && !name.contains(&word))
}
