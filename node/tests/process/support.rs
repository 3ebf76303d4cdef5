//! What the tests of this binary share beyond the harness.

use curvine_protocol::master::MakeDir;
use curvine_protocol::{CurvinePath, Node as At};

pub use curvine_tests::process::{DEADLINE, Mounted, Node, Signal, Starting, program, refused, system, text};
pub use curvine_tests::wait::{until, until_ok, within};

/// A free port for one who comes back to it: below those that the system gives to whoever connects or asks for any.
pub fn lasting_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 101;
        let port = 20_000 + (number % 12_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn at(path: &str) -> At {
    At::Path(CurvinePath::parse(path).expect("a valid path"))
}

pub fn make_dir(path: &str) -> MakeDir {
    MakeDir {
        node: at(path),
        mode: 0o755,
        parents: false,
        unmasked: None,
    }
}

/// Runs the client's side of a test.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system has room for a runtime").block_on(work)
}
