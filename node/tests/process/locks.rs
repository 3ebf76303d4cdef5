//! Locks of programs on two mounts of one cluster.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::support::*;

/// A mount of somebody else's masters; none where this process may not mount.
fn mount(node: &Node, at: &Path) -> Option<Node> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("skipped, locks on mounts are not tested here: it takes root and /dev/fuse");
        return None;
    }
    Some(Node::start(&[
        "--role",
        "fuse",
        "--master",
        node.master(),
        "--mount-point",
        text(at),
    ]))
}

fn open(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("opens")
}

fn try_exclusive(file: &File) -> Result<(), Errno> {
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Takes a lock by `fcntl`, waits until its standard input ends if it got it, and says by its exit code whether it did.
const BY_RANGE: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r+')
wait = 0 if sys.argv[4] == 'wait' else fcntl.LOCK_NB
try:
    fcntl.lockf(file, fcntl.LOCK_EX | wait, int(sys.argv[3]), int(sys.argv[2]))
except BlockingIOError:
    sys.exit(1)
print('got it', flush=True)
sys.stdin.read()
";

fn by_range(path: &Path, start: u64, len: u64, how: &str) -> Child {
    Command::new("python3")
        .args(["-c", BY_RANGE, text(path)])
        .args([start.to_string(), len.to_string()])
        .arg(how)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 runs")
}

/// Whether it got the lock; it keeps it if it did.
fn got(child: &mut Child) -> bool {
    use std::io::Read;
    let mut said = [0; 7];
    let out = child.stdout.as_mut().expect("piped");
    out.read_exact(&mut said).is_ok()
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().expect("ends");
}

#[test]
fn a_lock_on_one_mount_excludes_others_on_another_until_it_is_given_back() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    let node = Node::start_all(&scratch.path().join("node"), &[]);
    let Some(mut first) = mount(&node, &a) else { return };
    let Some(mut second) = mount(&node, &b) else {
        return;
    };

    let (here, there) = (open(&a.join("f")), open(&b.join("f")));
    try_exclusive(&here).expect("free");
    assert_eq!(try_exclusive(&there), Err(Errno::AGAIN));
    assert_eq!(
        try_exclusive(&open(&a.join("f"))),
        Err(Errno::AGAIN),
        "another open file"
    );
    flock(&here, FlockOperation::LockShared).expect("less than before");
    flock(&there, FlockOperation::NonBlockingLockShared).expect("both share it");
    assert_eq!(try_exclusive(&here), Err(Errno::AGAIN));
    drop(there);
    within(DEADLINE, || try_exclusive(&here).ok()).expect("the other's lock went with its file");

    // Who waits gets it, with what was written under it.
    let waiting = {
        let path = b.join("f");
        std::thread::spawn(move || {
            let there = open(&path);
            flock(&there, FlockOperation::LockExclusive).expect("its turn comes");
            drop(there);
            std::fs::read(path).expect("readable")
        })
    };
    std::fs::write(a.join("f"), "written under the lock").expect("room");
    flock(&here, FlockOperation::Unlock).expect("given back");
    assert_eq!(waiting.join().expect("no panic"), b"written under the lock");

    // Who waits can be interrupted.
    try_exclusive(&here)
        .or_else(|_| flock(&here, FlockOperation::LockExclusive))
        .expect("free");
    let interrupted = Command::new("timeout")
        .args(["1", "flock", text(&b.join("f")), "true"])
        .status()
        .expect("runs");
    assert_eq!(interrupted.code(), Some(124));
    flock(&here, FlockOperation::Unlock).expect("given back");
    try_exclusive(&open(&b.join("f"))).expect("who was interrupted has nothing");

    // Byte ranges.
    let (one, other) = (a.join("g"), b.join("g"));
    drop(open(&one));
    let mut holder = by_range(&one, 10, 10, "try");
    assert!(got(&mut holder));
    let mut beside = by_range(&other, 20, 10, "try");
    assert!(got(&mut beside), "other bytes");
    let mut refused = by_range(&other, 19, 1, "try");
    assert!(!got(&mut refused));
    let mut waits = by_range(&other, 0, 15, "wait");
    let listed = node
        .ask(curvine_protocol::master::ListLocks { path: None })
        .expect("listed");
    let mut ranges: Vec<_> = listed
        .files
        .iter()
        .flat_map(|file| &file.locks)
        .map(|held| (held.lock.start, held.lock.end))
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges, [(10, 19), (20, 29)]);
    end(holder);
    assert!(got(&mut waits), "its turn came");
    for child in [beside, refused, waits] {
        end(child);
    }

    // What a mount held goes with it.
    let mut holder = by_range(&one, 0, 0, "try");
    assert!(got(&mut holder));
    first.kill();
    second.stop();
    let Some(mut third) = mount(&node, &a) else { return };
    within(DEADLINE, || {
        let mut tries = by_range(&one, 0, 0, "try");
        let outcome = got(&mut tries);
        end(tries);
        outcome.then_some(())
    })
    .expect("the killed mount's lock is gone");
    end(holder);
    third.stop();
}
