//! Writes through a mount that are lost because their worker died, and who hears of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::process::Command;

use super::group::*;
use super::support::*;

const KIB: usize = 1 << 10;

#[test]
fn a_loss_that_a_child_s_close_was_told_is_told_to_its_parent_too() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("skipped, lost writes are not tested here: it takes root and /dev/fuse");
        return;
    }
    let masters = Masters::start(1);
    let mut worker = masters.worker(1);
    let config = masters.scratch.path().join("mount.toml");
    fs::write(&config, "[client]\noperation_timeout = \"1s\"\n").expect("written");
    let point = masters.scratch.path().join("mnt");
    let args = ["--role", "fuse", "--master", &masters.addresses[0]];
    let place = ["--config", text(&config), "--mount-point", text(&point)];
    let mut mount = Node::start(&[&args[..], &place].concat());

    let path = point.join("file");
    let mut parent = File::create(&path).expect("made");
    let idle = File::options().write(true).open(&path).expect("opened");
    parent.write_all(&[b'a'; 64 * KIB]).expect("taken");
    parent.sync_all().expect("on the worker's disk");
    parent.write_all(&[b'b'; 64 * KIB]).expect("taken");
    worker.kill();
    // It has a descriptor of the parent's handle, and is told at its end, where nobody hears it.
    let child = Command::new("true")
        .stdout(parent.try_clone().expect("a descriptor"))
        .status();
    assert!(child.expect("it runs").success());
    let worker = masters.worker(1);

    let written = parent.write_all(&[b'c'; 64 * KIB]);
    assert!(written.is_err(), "behind bytes that are lost");
    assert!(
        parent.sync_all().is_err(),
        "not all that was written is on a disk"
    );
    // SAFETY: nobody else closes it.
    let closed = unsafe { libc::close(parent.into_raw_fd()) };
    assert_eq!(closed, -1, "what it wrote is not there");
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
    mount.stop();
    drop(worker);
}
