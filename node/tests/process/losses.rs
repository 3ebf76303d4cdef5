//! Writes through a mount that are lost because their worker died, and who hears of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::group::*;
use super::support::*;

const KIB: usize = 1 << 10;

/// A master, a worker, and a mount that does not wait for long.
struct Cluster {
    // Dropped in this order.
    mount: Node,
    worker: Node,
    point: PathBuf,
    masters: Masters,
}

impl Cluster {
    /// None where this process may not mount, which is said.
    fn start() -> Option<Cluster> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            eprintln!("skipped, lost writes are not tested here: it takes root and /dev/fuse");
            return None;
        }
        let masters = Masters::start(1);
        let worker = masters.worker(1);
        let config = masters.scratch.path().join("mount.toml");
        fs::write(&config, "[client]\noperation_timeout = \"1s\"\n").expect("written");
        let point = masters.scratch.path().join("mnt");
        let args = ["--role", "fuse", "--master", &masters.addresses[0]];
        let place = ["--config", text(&config), "--mount-point", text(&point)];
        let mount = Node::start(&[&args[..], &place].concat());
        Some(Cluster {
            mount,
            worker,
            point,
            masters,
        })
    }

    /// Ends a child that has a descriptor of the same handle: it is told of what is lost, where nobody hears it.
    fn a_child_closes(file: &File) {
        let child = Command::new("true")
            .stdout(file.try_clone().expect("a descriptor"))
            .status();
        assert!(child.expect("it runs").success());
    }
}

/// What `close(2)` says.
fn closed(file: File) -> i32 {
    // SAFETY: nobody else closes it.
    unsafe { libc::close(file.into_raw_fd()) }
}

#[test]
fn a_loss_that_a_child_s_close_was_told_is_told_to_its_parent_too() {
    let Some(mut cluster) = Cluster::start() else {
        return;
    };
    let path = cluster.point.join("file");
    let mut parent = File::create(&path).expect("made");
    let idle = File::options().write(true).open(&path).expect("opened");
    parent.write_all(&[b'a'; 64 * KIB]).expect("taken");
    parent.sync_all().expect("on the worker's disk");
    parent.write_all(&[b'b'; 64 * KIB]).expect("taken");
    cluster.worker.kill();
    Cluster::a_child_closes(&parent);
    cluster.worker = cluster.masters.worker(1);

    let written = parent.write_all(&[b'c'; 64 * KIB]);
    assert!(written.is_err(), "behind bytes that are lost");
    assert!(
        parent.sync_all().is_err(),
        "not all that was written is on a disk"
    );
    assert_eq!(closed(parent), -1, "what it wrote is not there");
    // Who wrote nothing has lost nothing.
    idle.sync_all().expect("synced");
    drop(idle);
    let mut anew = File::options().append(true).open(&path).expect("opened");
    anew.write_all(b"d").expect("taken");
    anew.sync_all().expect("on the worker's disk");
    let content = fs::read(&path).expect("read");
    assert!(
        content[..64 * KIB].iter().all(|byte| *byte == b'a'),
        "what was synced"
    );
    assert_eq!(content[64 * KIB..], *b"d", "and no zeros for what was lost");
    cluster.mount.stop();
}

#[test]
fn what_is_written_while_it_is_found_out_that_something_is_lost_is_lost_with_it() {
    let Some(mut cluster) = Cluster::start() else {
        return;
    };
    let path = cluster.point.join("file");
    let parent = File::create(&path).expect("made");
    parent.write_all_at(&[b'a'; 64 * KIB], 0).expect("taken");
    parent.sync_all().expect("on the worker's disk");
    parent
        .write_all_at(&[b'b'; 64 * KIB], 64 * KIB as u64)
        .expect("taken");
    cluster.worker.kill();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| Cluster::a_child_closes(&parent));
        let writing = scope.spawn(|| {
            // The other one is on its way.
            std::thread::sleep(Duration::from_millis(500));
            parent.write_all_at(&[b'c'; 50 * KIB], 128 * KIB as u64)
        });
        closing.join().expect("it ends");
        cluster.worker = cluster.masters.worker(1);
        let written = writing.join().expect("it ends");
        assert!(written.is_err(), "behind bytes that are lost");
    });
    assert!(
        parent.sync_all().is_err(),
        "not all that was written is on a disk"
    );
    assert_eq!(closed(parent), -1, "what it wrote is not there");
    let content = fs::read(&path).expect("read");
    assert_eq!(content.len(), 64 * KIB, "what was synced, and nothing behind it");
    assert!(content.iter().all(|byte| *byte == b'a'), "what was synced");
    cluster.mount.stop();
}
