//! Where everything comes from that a program takes for random: one seed; and the system's time.
//!
//! What asks the operating system for random bytes (the keys of hash maps, openraft's election time-outs, the order in
//! which `select!` looks at its branches) gets them from here as well: this program has a `getrandom` of its own, which
//! the standard library and all crates link to.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use curvine_protocol::number::{to_usize, whole_ns};
use curvine_tests::random::Seeded;

/// When all clocks start: some day in 2026, since 1970.
pub const EPOCH: Duration = Duration::from_secs(1_790_000_000);

/// A source of random numbers. Clones share it.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<Seeded>>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(Arc::new(Mutex::new(Seeded::new(seed))))
    }

    /// A source of its own, so that one user's numbers do not depend on how many another has taken.
    pub fn fork(&self) -> Chance {
        Chance::new(self.next())
    }

    pub fn next(&self) -> u64 {
        self.0.lock().expect("one thread").next_u64()
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index_below(&self, limit: usize) -> usize {
        to_usize(self.below(limit as u64))
    }

    pub fn within(&self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.index_below(choices.len())]
    }
}

impl curvine_actors::kit::Random for Chance {
    fn next_u64(&self) -> u64 {
        self.next()
    }
}

/// What `getrandom` goes on from; 0 as long as nothing is simulated.
static ENTROPY: AtomicU64 = AtomicU64::new(0);

/// From now on this process' entropy is the seed.
pub fn seed_process(seed: u64) {
    ENTROPY.store(seed | 1 << 63, Ordering::Relaxed);
}

thread_local! {
    static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread's are the only steps of the simulation.
pub fn simulate_here() {
    IS_SIMULATED.set(true);
}

/// What runs beside the simulation comes at another moment in each run. Every thread asks for random bytes as it begins to
/// work: for its hash maps.
fn refuse_other_threads() {
    if !IS_SIMULATED.get() {
        println!(
            "a real thread works beside the simulation: what it does belongs on one of `Ports::offload`"
        );
        std::process::abort();
    }
}

/// The world's time in nanoseconds since its beginning: what the process takes for the system's, whatever its clock.
static NOW_NS: AtomicU64 = AtomicU64::new(0);

pub fn set_time(now: Duration) {
    NOW_NS.store(whole_ns(now), Ordering::Relaxed);
}

/// libc's, for the whole program. Nothing that matters asks it: it is here so that nothing can.
///
/// # Safety
/// As `clock_gettime(2)`: `into` has room for a `timespec`.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    if ENTROPY.load(Ordering::Relaxed) == 0 {
        // SAFETY: the system call has the same arguments and the same bargain.
        let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) };
        return libc::c_int::try_from(done).unwrap_or(-1);
    }
    let now = EPOCH + Duration::from_nanos(NOW_NS.load(Ordering::Relaxed));
    let now = libc::timespec {
        tv_sec: libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(now.subsec_nanos()),
    };
    // SAFETY: the caller's bargain.
    unsafe { into.write(now) };
    0
}

/// libc's, for the whole program.
///
/// # Safety
/// As `getrandom(2)`: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: libc::c_uint) -> isize {
    let seed = ENTROPY.load(Ordering::Relaxed);
    if seed == 0 {
        // SAFETY: the system call has the same arguments and the same bargain.
        let done = unsafe { real_syscall()(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(done).unwrap_or(-1);
    }
    refuse_other_threads();
    let mut random = Seeded::new(seed);
    // SAFETY: the caller's bargain.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        let number = random.next_u64().to_le_bytes();
        chunk.copy_from_slice(&number[..chunk.len()]);
    }
    ENTROPY.store(random.next_u64() | 1 << 63, Ordering::Relaxed);
    isize::try_from(length).unwrap_or(isize::MAX)
}

type Syscall = unsafe extern "C" fn(libc::c_long, ...) -> libc::c_long;

fn real_syscall() -> Syscall {
    static REAL: OnceLock<Syscall> = OnceLock::new();
    *REAL.get_or_init(|| {
        // SAFETY: the name is a C string; what it names in libc has this type.
        unsafe {
            let found = libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr());
            assert!(!found.is_null(), "libc has `syscall`");
            std::mem::transmute::<*mut libc::c_void, Syscall>(found)
        }
    })
}

/// libc's, for the whole program: some crates ask for random bytes this way. Whatever else is passed on; arguments that a
/// caller does not give are registers that the kernel does not read.
///
/// # Safety
/// As `syscall(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: libc::c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> libc::c_long {
    // SAFETY: as the caller's.
    unsafe {
        match number {
            libc::SYS_getrandom => {
                let flags = libc::c_uint::try_from(third).unwrap_or(0);
                getrandom(first as *mut u8, second, flags) as libc::c_long
            }
            _ => real_syscall()(number, first, second, third, fourth, fifth, sixth),
        }
    }
}
