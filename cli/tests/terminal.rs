//! What is for a terminal is on a terminal only: colours and progress.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::process::Stdio;

use common::Node;
use curvine_tests::process::{DEADLINE, Process, Signal};
use curvine_tests::wait::within;

/// Both ends of a new terminal of 24 lines: what a program writes to the second is read from the first.
fn terminal() -> (File, File) {
    let (mut near, mut far) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptors are written before they are read, and belong to nobody else.
    unsafe {
        let opened = libc::openpty(&mut near, &mut far, std::ptr::null_mut(), std::ptr::null(), &size);
        assert_eq!(opened, 0, "a terminal is opened");
        (File::from_raw_fd(near), File::from_raw_fd(far))
    }
}

/// What a command shows on a terminal: standard output and errors together.
fn shown(node: &Node, words: &[&str]) -> String {
    let (mut near, far) = terminal();
    let mut command = node.command(words);
    command.env("TERM", "xterm-256color");
    command
        .stdout(Stdio::from(far.try_clone().expect("a descriptor")))
        .stderr(Stdio::from(far));
    let mut child = command.spawn().expect("cv runs");
    drop(command);
    let mut shown = Vec::new();
    // The terminal says EIO when nobody has its other end open any more.
    let _ = near.read_to_end(&mut shown);
    assert!(child.wait().expect("cv ends").success(), "cv {words:?}");
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn colours_and_progress_are_for_terminals() {
    let node = Node::start();
    node.ok(&["mkdir", "/d"]);
    node.file("/f", b"f");
    assert_eq!(node.ok(&["ls", "/"]), "d\nf\n", "none in a pipe");
    assert_eq!(shown(&node, &["ls", "/"]), "\x1b[1;34md\x1b[0m\r\nf\r\n");

    std::fs::write(node.local("big"), vec![1; 64 << 20]).expect("room");
    let said = node.run(&["put", &node.local("big"), "/big"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    let progress = shown(&node, &["get", "/big", &node.local("back")]);
    assert!(progress.contains("64.00 MiB"), "{progress:?}");
    assert_eq!(
        shown(&node, &["--json", "get", "-f", "/big", &node.local("back")]).trim_end(),
        r#"{"bytes":67108864,"files":1}"#
    );

    std::fs::create_dir(node.local("source")).expect("room");
    std::fs::rename(node.local("back"), node.local("source/x")).expect("room");
    node.ok(&["mount", &format!("file://{}", node.local("source")), "/m"]);
    let progress = shown(&node, &["load", "/m", "--watch"]);
    assert!(
        progress.contains("files, 0 failed") && progress.contains("1 loaded"),
        "{progress:?}"
    );
}

#[test]
fn a_reader_that_leaves_ends_the_command_silently() {
    let node = Node::start();
    node.file("/big", &vec![b'\n'; 8 << 20]);
    let mut command = node.command(&["cat", "/big"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cv runs");
    let mut first = [0; 10];
    child
        .stdout
        .take()
        .expect("is piped")
        .read_exact(&mut first)
        .expect("it writes");
    let output = child.wait_with_output().expect("cv ends");
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(141), &b""[..])
    );
}

#[test]
fn ctrl_c_leaves_nothing_half_made() {
    let node = Node::start();
    let fifo = node.local("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    // Open on both ends: neither side waits for the other, and the input has no end.
    let input = File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .expect("is there");
    std::io::Write::write_all(&mut &input, b"the beginning").expect("room");
    let mut command = node.command(&["put", "-", "/half"]);
    command.stdin(Stdio::from(input.try_clone().expect("a descriptor")));
    let mut putting = Process::start(&mut command, None);
    let is_begun = || (node.run(&["stat", "/half"]).code == Some(0)).then_some(());
    assert!(within(DEADLINE, is_begun).is_some(), "it does not begin");
    putting.signal(Signal::INT);
    assert_eq!(putting.end(), Some(130));
    node.refused(&["stat", "/half"], 1);
}

#[test]
fn a_signal_while_a_file_is_replaced_leaves_the_old_one_and_nothing_else() {
    let node = Node::start();
    let source = node.local("source");
    std::fs::create_dir(&source).expect("room");
    std::fs::write(format!("{source}/old"), "old").expect("room");
    node.ok(&["mount", &format!("file://{source}"), "/m", "--write"]);
    node.ok(&["mkdir", "/d"]);
    node.file("/d/old", b"old");
    for (directory, signal) in [("/d", Signal::INT), ("/d", Signal::HUP), ("/m", Signal::TERM)] {
        let old = format!("{directory}/old");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        // Its end is not reached: this side stays open.
        let mut command = node.command(&["put", "-f", "-", &old]);
        command.stdin(Stdio::from(reader.try_clone().expect("a descriptor")));
        std::io::Write::write_all(&mut &writer, b"the beginning").expect("room");
        let mut putting = Process::start(&mut command, None);
        let is_begun = || (node.ok(&["ls", "-a", directory]).lines().count() == 2).then_some(());
        assert!(within(DEADLINE, is_begun).is_some(), "it does not begin");
        assert_eq!(node.ok(&["cat", &old]), "old");
        putting.signal(signal);
        assert_eq!(putting.end(), Some(130));
        assert_eq!(node.ok(&["ls", "-a", directory]), "old\n");
        assert_eq!(node.ok(&["cat", &old]), "old");
        drop(writer);
        let _ = std::io::Read::read_to_end(&mut reader, &mut Vec::new());
    }
    let left: Vec<_> = std::fs::read_dir(&source).expect("is there").collect();
    // Incomplete uploads have a place of their own, which is empty by now.
    assert_eq!(left.len(), 2, "{left:?}");
    let uploads = std::fs::read_dir(format!("{source}/.curvine-uploads")).expect("is there");
    assert_eq!(uploads.count(), 0);
    assert_eq!(std::fs::read(format!("{source}/old")).expect("is there"), b"old");
}
