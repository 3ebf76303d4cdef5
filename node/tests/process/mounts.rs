//! Two mounts of one cluster, each a process of its own: what is done through one is true through the other.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use curvine_protocol::CurvinePath;
use curvine_protocol::master::MountUfs;
use curvine_protocol::mount::MountSettings;

use crate::support::{DEADLINE, Mounted, Node, Signal, program, text, within};

/// A master and a worker in one process, and two mounts.
struct Mounts {
    // Dropped in this order.
    a: Node,
    b: Node,
    here: PathBuf,
    there: PathBuf,
    cluster: Node,
    _dir: tempfile::TempDir,
}

impl Mounts {
    /// None where this process may not mount, which is said.
    fn start() -> Option<Mounts> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped, two mounts are not tested here: it takes root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its owner may");
        let cluster = Node::start_all(&dir.path().join("data"), &[]);
        let (here, there) = (dir.path().join("a"), dir.path().join("b"));
        let (a, b) = (mount(&cluster, &here), mount(&cluster, &there));
        Some(Mounts {
            a,
            b,
            here,
            there,
            cluster,
            _dir: dir,
        })
    }
}

/// For all users, as the tests of permissions take.
fn mount(cluster: &Node, point: &Path) -> Node {
    let config = point.with_extension("toml");
    fs::write(&config, "[fuse]\nallow_other = true\n").expect("written");
    let args = [
        "--role",
        "fuse",
        "--master",
        cluster.master(),
        "--config",
        text(&config),
    ];
    Node::start(&[&args[..], &["--mount-point", text(point)]].concat())
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).expect("opened");
    file.write_all(bytes).expect("written");
}

/// What a descriptor reads at the beginning of its file.
fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let read = file.read_at(&mut bytes, 0).expect("readable");
    bytes.truncate(read);
    bytes
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    assert!(
        within(DEADLINE, || check().then_some(())).is_some(),
        "never: {what}"
    );
}

/// Runs something as another user, in a process of its own, and says what it printed.
fn as_user(uid: u32, script: &str) -> String {
    let ids = uid.to_string();
    let args = [
        "--reuid",
        &ids,
        "--regid",
        &ids,
        "--clear-groups",
        "sh",
        "-c",
        script,
    ];
    let output = Command::new("setpriv").args(args).output().expect("setpriv runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// This thread is another user from now on.
fn become_user(uid: u32) {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    set_thread_groups(&[]).expect("root may");
    set_thread_gid(Gid::from_raw(uid)).expect("root may");
    set_thread_uid(Uid::from_raw(uid)).expect("root may");
}

#[test]
fn what_one_mount_appends_is_read_through_a_descriptor_of_the_other() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("log"), mounts.there.join("log"));
    fs::write(&here, b"first\n").expect("written");
    let follows = File::open(&there).expect("opened");
    assert_eq!(content(&follows), b"first\n");
    append(&here, b"second\n");
    // Whoever looks at its size meanwhile must not make zeros of what comes.
    eventually("the second line", || {
        follows.metadata().expect("there");
        let seen = content(&follows);
        assert!(b"first\nsecond\n".starts_with(&seen[..]), "{seen:?}");
        seen.len() == 13
    });
    // And what is written over is seen without a look at anything but the bytes.
    OpenOptions::new()
        .write(true)
        .open(&here)
        .expect("opened")
        .write_all_at(b"FIRST", 0)
        .expect("written");
    eventually("the overwrite", || content(&follows) == b"FIRST\nsecond\n");
}

#[test]
fn appends_through_two_mounts_in_turn_are_all_there() {
    let Some(mounts) = Mounts::start() else { return };
    let paths = [mounts.here.join("log"), mounts.there.join("log")];
    fs::write(&paths[0], b"").expect("made");
    let kept: Vec<File> = paths
        .iter()
        .map(|path| OpenOptions::new().append(true).open(path).expect("opened"))
        .collect();
    let mut expected = String::new();
    for round in 0..20 {
        for (mount, path) in paths.iter().enumerate() {
            let line = format!("{round} of {mount}\n");
            // By a descriptor of its own, and by one that stays open.
            match round % 2 {
                0 => append(path, line.as_bytes()),
                _ => (&kept[mount]).write_all(line.as_bytes()).expect("written"),
            }
            expected.push_str(&line);
        }
    }
    drop(kept);
    eventually("all lines, in order", || {
        fs::read_to_string(&paths[0]).expect("readable") == expected
    });
    assert_eq!(fs::read_to_string(&paths[1]).expect("readable"), expected);
}

#[test]
fn a_parent_appends_behind_what_others_wrote_after_its_child_ended() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("log"), mounts.there.join("log"));
    let mut parent = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&here)
        .expect("made");
    let child = Command::new("echo")
        .arg("child")
        .stdout(parent.try_clone().expect("a descriptor"))
        .status();
    assert!(child.expect("echo runs").success());
    append(&there, b"other\n");
    parent.write_all(b"parent\n").expect("written");
    drop(parent);
    assert_eq!(fs::read(&there).expect("readable"), b"child\nother\nparent\n");
    eventually("the same on the parent's mount", || {
        fs::read(&here).expect("readable") == b"child\nother\nparent\n"
    });
}

#[test]
fn pages_of_before_others_wrote_are_not_taken_for_the_newest() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("f"), mounts.there.join("f"));
    fs::write(&here, [b'a'; 8192]).expect("written");
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&there)
        .expect("opened");
    assert_eq!(content(&both), [b'a'; 8192]);
    both.write_all_at(b"b", 8191).expect("written");
    both.sync_all().expect("synced");
    // The other mount takes the file, and changes what is in this one's pages.
    OpenOptions::new()
        .write(true)
        .open(&here)
        .expect("opened")
        .write_all_at(&[b'c'; 4096], 0)
        .expect("written");
    both.write_all_at(b"d", 8190).expect("written");
    drop(both);
    let expected = [vec![b'c'; 4096], vec![b'a'; 4094], b"db".to_vec()].concat();
    eventually("the newest", || fs::read(&there).expect("readable") == expected);
    eventually("the newest", || fs::read(&here).expect("readable") == expected);
}

#[test]
fn a_buffered_reader_sees_what_was_written_past_the_pages() {
    let Some(mounts) = Mounts::start() else { return };
    let path = mounts.here.join("f");
    const BYTES: usize = 1 << 20;
    fs::write(&path, vec![0; BYTES]).expect("written");
    let buffered = File::open(&path).expect("opened");
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .expect("opened");
    // O_DIRECT asks for memory at a page's boundary.
    let room = vec![7_u8; BYTES + 4096];
    let aligned = &room[room.as_ptr().align_offset(4096)..][..BYTES];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for start in (0..BYTES).step_by(4096) {
                let offset = u64::try_from(start).expect("small");
                direct
                    .write_all_at(&aligned[start..start + 4096], offset)
                    .expect("written");
            }
        });
        let mut bytes = vec![0; BYTES];
        while !writer.is_finished() {
            buffered.read_exact_at(&mut bytes, 0).expect("readable");
        }
    });
    let mut bytes = vec![0; BYTES];
    buffered.read_exact_at(&mut bytes, 0).expect("readable");
    assert!(bytes.iter().all(|&byte| byte == 7), "some page is old");
}

#[test]
fn what_is_open_stays_readable_whoever_removes_or_replaces_it() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("f"), mounts.there.join("f"));
    let bytes = vec![b'x'; 300_000];
    for replaced in [false, true] {
        fs::write(&here, &bytes).expect("written");
        let open = File::open(&there).expect("opened");
        match replaced {
            false => fs::remove_file(&here).expect("removed"),
            true => {
                fs::write(mounts.here.join("new"), b"new").expect("written");
                fs::rename(mounts.here.join("new"), &here).expect("renamed");
            }
        }
        let mut read = Vec::new();
        (&open).read_to_end(&mut read).expect("readable");
        assert_eq!(read.len(), bytes.len(), "replaced: {replaced}");
        eventually("no name", || open.metadata().expect("it is open").nlink() == 0);
        drop(open);
    }
}

#[test]
fn a_file_that_is_removed_at_the_moment_of_its_open_is_read_or_not_there() {
    let Some(mounts) = Mounts::start() else { return };
    for replace in [true, false] {
        for other in [&mounts.here, &mounts.there] {
            for _ in 0..30 {
                let (path, new) = (mounts.here.join("f"), other.join("new"));
                fs::write(&path, [b'x'; 50_000]).expect("written");
                if replace {
                    fs::write(&new, [b'x'; 50_000]).expect("written");
                }
                let gate = Barrier::new(2);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        gate.wait();
                        match replace {
                            true => fs::rename(&new, other.join("f")),
                            false => fs::remove_file(other.join("f")),
                        }
                        .expect("done");
                    });
                    gate.wait();
                    match File::open(&path) {
                        Ok(mut file) => {
                            let mut bytes = Vec::new();
                            file.read_to_end(&mut bytes).expect("it is open");
                            assert_eq!(bytes.len(), 50_000);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                    }
                });
                eventually("gone", || replace || !path.exists());
            }
        }
    }
}

/// The name changes faster than it can be walked to, so that the kernel's second walk comes too late as well.
#[test]
fn a_name_that_is_replaced_all_the_time_can_be_opened() {
    let Some(mounts) = Mounts::start() else { return };
    for other in [&mounts.here, &mounts.there] {
        let (path, over) = (mounts.here.join("f"), AtomicBool::new(false));
        fs::write(&path, b"0").expect("written");
        let replace = || {
            for i in 1.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                fs::write(other.join("new"), i.to_string()).expect("written");
                fs::rename(other.join("new"), other.join("f")).expect("replaced");
            }
        };
        let read =
            || -> Vec<std::io::Result<String>> { (0..300).map(|_| fs::read_to_string(&path)).collect() };
        let read: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(replace);
            let readers = [(); 4].map(|()| scope.spawn(read));
            let read = readers.map(|reader| reader.join().expect("it read")).into();
            over.store(true, Ordering::Release);
            read
        });
        for read in read {
            read.into_iter().fold(0, |last, read| {
                let read: u64 = read.expect("the name is always there").parse().expect("whole");
                assert!(read >= last, "{read} after {last}");
                read
            });
        }
    }
}

/// The kernel remembers for a second which file a name means.
#[test]
fn what_is_written_to_a_name_goes_to_the_file_that_has_it() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("f"), mounts.there.join("f"));
    fs::write(&here, b"first").expect("written");
    let open = File::open(&here).expect("opened");
    for round in 0..20 {
        fs::write(mounts.there.join("new"), b"second").expect("written");
        fs::rename(mounts.there.join("new"), &there).expect("replaced");
        assert_eq!(fs::read(&here).expect("read"), b"second", "round {round}");
        let written = format!("third {round}");
        fs::write(&here, &written).expect("written");
        assert_eq!(fs::read_to_string(&there).expect("read"), written);
    }
    let again = File::open(format!("/proc/self/fd/{}", open.as_raw_fd())).expect("meant by its number");
    let mut bytes = Vec::new();
    (&again).read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, b"first");
}

#[test]
fn what_is_done_to_a_name_is_done_to_the_file_that_has_it() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("f"), mounts.there.join("f"));
    let changes: [(&str, &dyn Fn() -> std::io::Result<()>); 3] = [
        ("mode", &|| {
            fs::set_permissions(&here, Permissions::from_mode(0o640))
        }),
        ("size", &|| {
            let path = CString::new(here.as_os_str().as_bytes()).expect("no NUL");
            // SAFETY: the path is a C string that lives as long as the call.
            match unsafe { libc::truncate(path.as_ptr(), 3) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        }),
        ("attribute", &|| {
            let flags = rustix::fs::XattrFlags::empty();
            Ok(rustix::fs::setxattr(&here, "user.a", b"v", flags)?)
        }),
    ];
    for (what, change) in changes {
        fs::write(&here, b"first").expect("written");
        let before = fs::metadata(&here).expect("there");
        fs::write(mounts.there.join("new"), b"second").expect("written");
        fs::rename(mounts.there.join("new"), &there).expect("replaced");
        change().expect(what);
        let after = fs::metadata(&there).expect("there");
        assert_ne!(after.ino(), before.ino(), "{what}");
        let mut value = [0; 8];
        let shown = match what {
            "mode" => after.mode() & 0o7777 == 0o640,
            "size" => after.len() == 3,
            _ => rustix::fs::getxattr(&there, "user.a", &mut value) == Ok(1),
        };
        assert!(shown, "{what}: {after:?}");
        fs::remove_file(&there).expect("removed");
        assert_eq!(
            change().map_err(|error| error.kind()),
            Err(ErrorKind::NotFound),
            "{what}"
        );
    }
}

/// The kernel takes the file for longer than it is, as it was before others cut it.
#[test]
fn nothing_is_read_behind_the_end_that_others_made() {
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("f"), mounts.there.join("f"));
    for round in 0..10 {
        fs::write(&here, vec![b'x'; 3 << 20]).expect("written");
        fs::write(&there, [b'y'; 500]).expect("written");
        let open = || {
            OpenOptions::new()
                .read(true)
                .append(true)
                .open(&here)
                .expect("opened")
        };
        let read = |file: &File| {
            let mut bytes = vec![0; 1 << 20];
            let read = file.read_at(&mut bytes, 0).expect("readable");
            bytes.truncate(read);
            bytes
        };
        let mut expected = vec![b'y'; 500];
        let fresh = File::open(&here).expect("opened");
        assert_eq!(read(&fresh), expected, "round {round}");
        let mut appending = open();
        appending.write_all(b"behind").expect("appended");
        expected.extend(b"behind");
        assert_eq!(read(&appending), expected, "round {round}");
        let fresh = File::open(&here).expect("opened");
        assert_eq!(read(&fresh), expected, "round {round}");
    }
}

#[test]
fn what_is_changed_through_a_mapping_stays_where_it_is_also_of_a_file_that_is_opened_to_append() {
    let Some(mounts) = Mounts::start() else { return };
    let path = mounts.here.join("f");
    fs::write(&path, vec![b'x'; 10_000]).expect("written");
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .open(&path)
        .expect("opened");
    map_and_change(&file, 5_000, b"changed");
    let mut expected = vec![b'x'; 10_000];
    expected[5_000..5_007].copy_from_slice(b"changed");
    assert_eq!(content(&file), expected);
    assert_eq!(fs::read(mounts.there.join("f")).expect("read"), expected);
}

#[test]
fn a_program_that_runs_cannot_be_cut_by_opening_it() {
    let Some(mounts) = Mounts::start() else { return };
    let program = mounts.here.join("program");
    fs::copy("/bin/sleep", &program).expect("copied");
    let len = program.metadata().expect("there").len();
    for _ in 0..50 {
        let mut running = Command::new(&program).arg("60").spawn().expect("it runs");
        let cut = File::create(&program).map_err(|error| error.kind());
        let ended = running.try_wait().expect("our child");
        running.kill().expect("our child");
        running.wait().expect("our child");
        assert_eq!(
            cut.err(),
            Some(ErrorKind::ExecutableFileBusy),
            "it has ended: {ended:?}"
        );
        assert_eq!(program.metadata().expect("there").len(), len);
    }
    fs::write(&program, "another").expect("nobody runs it");
    assert_eq!(fs::read(mounts.there.join("program")).expect("read"), b"another");
}

/// Writes through a shared mapping of 10,000 bytes, and syncs it.
fn map_and_change(file: &File, at: usize, bytes: &[u8]) {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    let (len, access) = (10_000, ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a fresh mapping of a file that nobody cuts meanwhile, written within its length and unmapped at once.
    unsafe {
        let mapped = mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, 0).expect("mapped");
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast::<u8>().add(at), bytes.len());
        msync(mapped, len, MsyncFlags::SYNC).expect("synced");
        munmap(mapped, len).expect("unmapped");
    }
}

#[test]
fn directories_fifos_and_bare_descriptors_are_as_on_a_disk_once_they_are_removed() {
    let Some(mounts) = Mounts::start() else { return };
    for other in [&mounts.here, &mounts.there] {
        let directory = mounts.here.join("d");
        fs::create_dir(&directory).expect("made");
        let open = File::open(&directory).expect("opened");
        let fifo = mounts.here.join("p");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("made");
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&fifo)
            .expect("opened");
        let file = mounts.here.join("f");
        fs::write(&file, b"x").expect("written");
        let bare = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&file)
            .expect("opened");
        fs::remove_dir(other.join("d")).expect("removed");
        fs::remove_file(other.join("p")).expect("removed");
        fs::remove_file(other.join("f")).expect("removed");
        for open in [&open, &pipe, &bare] {
            eventually("no name", || open.metadata().expect("it is open").nlink() == 0);
        }
        let mut entries = rustix::fs::Dir::read_from(open.as_fd()).expect("a directory");
        let listed = std::iter::from_fn(|| entries.read());
        let names: Vec<_> = listed
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| !name.to_bytes().starts_with(b"."))
            .collect();
        assert_eq!(names, Vec::<CString>::new());
        eventually("their names are gone", || {
            !directory.exists() && !fifo.exists() && !file.exists()
        });
    }
}

/// So often somebody opens a name at the moment at which another mount makes it.
const INTRUSIONS: u32 = 100;

#[test]
fn a_file_that_another_mount_made_is_opened_as_its_mode_allows() {
    let Some(mounts) = Mounts::start() else { return };
    let secret = mounts.here.join("secret");
    fs::write(&secret, b"secret").expect("written");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("its owner may");
    fs::create_dir(mounts.here.join("d")).expect("made");
    fs::set_permissions(mounts.here.join("d"), Permissions::from_mode(0o1777)).expect("its owner may");
    let round = Barrier::new(2);
    // The other mount looks for a name and finds nothing; it makes the file when there is one.
    let read = std::thread::scope(|scope| {
        let intruder = scope.spawn(|| {
            become_user(2000);
            let mut read = Vec::new();
            for number in 0..INTRUSIONS {
                let name = mounts.there.join(format!("d/{number}"));
                let mut how = OpenOptions::new();
                how.read(true).custom_flags(libc::O_CREAT);
                round.wait();
                if let Ok(file) = how.open(&name) {
                    // A second open would be of a file whose mode the kernel knows.
                    read.extend(content(&file));
                }
            }
            read
        });
        for number in 0..INTRUSIONS {
            let name = mounts.here.join(format!("d/{number}"));
            round.wait();
            // Sooner or later after the look.
            for _ in 0..number * 1000 {
                std::hint::spin_loop();
            }
            // The intruder may have been quicker.
            let _ = fs::hard_link(&secret, &name);
        }
        intruder.join().expect("it ends")
    });
    assert_eq!(String::from_utf8_lossy(&read), "");
}

#[test]
fn set_user_id_goes_at_once_when_somebody_else_writes_and_stays_when_root_does() {
    let Some(mounts) = Mounts::start() else { return };
    let path = mounts.here.join("program");
    fs::write(&path, b"one").expect("written");
    let set = || fs::set_permissions(&path, Permissions::from_mode(0o6777)).expect("its owner may");
    let mode = || fs::metadata(&path).expect("there").mode() & 0o7777;
    set();
    append(&path, b"two");
    assert_eq!(mode(), 0o6777, "root wrote");
    OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opened")
        .set_len(2)
        .expect("cut");
    assert_eq!(mode(), 0o6777, "root cut it");
    for how in [
        "oflag=append conv=notrunc",
        "oflag=direct conv=notrunc bs=4096 count=1",
    ] {
        set();
        let script = format!(
            "dd if=/dev/zero of={0} bs=512 count=1 {how} 2>/dev/null; stat -c %a {0}",
            path.display()
        );
        assert_eq!(as_user(2000, &script), "777\n", "{how}");
        assert_eq!(mode(), 0o777, "{how}");
    }
    eventually("it is gone on the other mount", || {
        fs::metadata(mounts.there.join("program")).expect("there").mode() & 0o7777 == 0o777
    });
}

#[test]
fn a_sync_through_a_descriptor_that_only_reads_syncs_what_was_written() {
    let Some(mounts) = Mounts::start() else { return };
    let path = mounts.here.join("f");
    let synced = || {
        mounts
            .cluster
            .metric("curvine_worker_call_seconds_count{call=\"SealBlock\"}")
    };
    fs::write(&path, vec![1; 2 << 20]).expect("written");
    let reader = File::open(&path).expect("opened");
    let before = synced();
    reader.sync_all().expect("synced");
    assert!(synced() > before, "the worker was not asked");
    // What is not flushed yet is meant too.
    let mut writer = OpenOptions::new().append(true).open(&path).expect("opened");
    writer.write_all(b"more").expect("written");
    reader.sync_all().expect("synced");
    assert_eq!(
        fs::metadata(mounts.there.join("f")).expect("there").len(),
        (2 << 20) + 4
    );
}

#[test]
fn a_mount_ends_with_its_umount_and_touches_no_other() {
    let Some(mut mounts) = Mounts::start() else { return };
    let table = fs::read_to_string("/proc/self/mounts").expect("readable");
    let line = table.lines().find(|line| line.contains(text(&mounts.here)));
    let kind = line.and_then(|line| line.split(' ').nth(2));
    assert_eq!(kind, Some("fuse.curvine"));
    fs::write(mounts.here.join("f"), b"kept").expect("written");
    let umount = |path: &Path| Command::new("umount").arg(path).status().expect("umount runs");
    assert!(umount(&mounts.here).success());
    // Something else takes its place, before or after its process notices.
    let Some(other) = Mounted::tmpfs(mounts.here.clone(), "another mount at its place", 1) else {
        return;
    };
    fs::write(other.path.join("mine"), b"mine").expect("written");
    assert_eq!(mounts.a.wait_for_end(), Some(0), "it ends well");
    assert_eq!(fs::read(other.path.join("mine")).expect("still there"), b"mine");
    assert_eq!(fs::read(mounts.there.join("f")).expect("readable"), b"kept");
    // And one whose place is taken over while it is mounted leaves that alone when it ends.
    let Some(over) = Mounted::tmpfs(mounts.there.clone(), "a mount over it", 1) else {
        return;
    };
    mounts.b.stop();
    fs::write(over.path.join("mine"), b"mine").expect("still mounted");
}

#[test]
fn a_mount_of_curvine_is_not_mounted_as_a_local_directory() {
    let Some(mounts) = Mounts::start() else { return };
    let scratch = mounts.here.parent().expect("it is in a directory").to_owned();
    let mount = |source: &Path, at: &str| {
        mounts.cluster.ask(MountUfs {
            path: CurvinePath::parse(at).expect("a path"),
            uri: format!("file://{}", source.display()),
            options: Default::default(),
            settings: MountSettings {
                staleness_ms: 0,
                ..MountSettings::default()
            },
        })
    };
    fs::create_dir(mounts.here.join("d")).expect("fresh");
    let link = scratch.join("link");
    std::os::unix::fs::symlink(&mounts.here, &link).expect("fresh");
    for source in [&mounts.here, &mounts.here.join("d"), &link] {
        let error = mount(source, "/loop").expect_err("refused");
        assert_eq!(
            error.kind,
            curvine_protocol::ErrorKind::InvalidArgument,
            "{error}"
        );
        let named = format!("in the mount of Curvine on {}", mounts.here.display());
        assert!(error.message.contains(&named), "{error}");
    }
    // Where one lies in a directory, it is no part of it.
    mount(&scratch, "/scratch").expect("mounted");
    let shown = mounts.there.join("scratch");
    let names: Vec<_> = fs::read_dir(&shown)
        .expect("listed")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert!(names.iter().any(|name| name == "data"), "{names:?}");
    assert!(!names.iter().any(|name| name == "a" || name == "b"), "{names:?}");
    assert!(!shown.join("a").exists() && !shown.join("a/d").exists());
}

#[test]
fn a_killed_mount_and_a_cluster_that_hangs_hold_up_nobody_who_asks_for_free_space() {
    let Some(mut mounts) = Mounts::start() else { return };
    mounts.a.kill();
    let df = |path: &Path| {
        let mut command = program::command(Path::new("df"), &[text(path)]);
        command.status().expect("df runs").success()
    };
    assert!(!df(&mounts.here), "it is said to be gone");
    assert!(df(&mounts.there));
    // While no master answers, it is what it was.
    mounts.cluster.signal(Signal::STOP);
    let answered = df(&mounts.there);
    mounts.cluster.signal(Signal::CONT);
    assert!(answered);
}

#[test]
fn a_listing_with_attributes_does_not_ask_the_masters_for_those_that_are_absent() {
    let Some(mounts) = Mounts::start() else { return };
    let asked = || {
        mounts
            .cluster
            .metric("curvine_master_call_seconds_count{call=\"GetXattr\"}")
    };
    for name in 0..50 {
        fs::write(mounts.here.join(format!("f{name}")), b"x").expect("written");
    }
    let selinux = |path: &Path| {
        let mut value = [0_u8; 16];
        rustix::fs::getxattr(path, "security.selinux", &mut value)
    };
    let before = asked();
    for entry in fs::read_dir(&mounts.there).expect("listed") {
        let path = entry.expect("an entry").path();
        fs::metadata(&path).expect("there");
        assert_eq!(selinux(&path), Err(rustix::io::Errno::NODATA));
    }
    assert_eq!(asked(), before);
    let first = mounts.there.join("f0");
    rustix::fs::setxattr(&first, "user.a", b"1", rustix::fs::XattrFlags::empty()).expect("set");
    let mut value = [0_u8; 16];
    assert_eq!(rustix::fs::getxattr(&first, "user.a", &mut value), Ok(1));
    eventually("the other mount has it", || {
        rustix::fs::getxattr(mounts.here.join("f0"), "user.a", &mut [0_u8; 16]) == Ok(1)
    });
}

#[test]
fn a_counter_under_a_lock_misses_no_step_of_another_mount() {
    use rustix::fs::{FlockOperation, flock};
    const STEPS: u32 = 15;
    let Some(mounts) = Mounts::start() else { return };
    fs::write(mounts.here.join("n"), b"00000").expect("made");
    std::thread::scope(|scope| {
        for mount in [&mounts.here, &mounts.there] {
            scope.spawn(|| {
                // One descriptor for all steps: what it read before must not count.
                let open = OpenOptions::new().read(true).write(true).open(mount.join("n"));
                let file = open.expect("opened");
                for _ in 0..STEPS {
                    flock(&file, FlockOperation::LockExclusive).expect("locked");
                    let text = String::from_utf8(content(&file)).expect("digits");
                    let number: u32 = text.parse().expect("a number");
                    let next = format!("{:05}", number + 1);
                    file.write_all_at(next.as_bytes(), 0).expect("written");
                    flock(&file, FlockOperation::Unlock).expect("unlocked");
                }
            });
        }
    });
    let text = fs::read_to_string(mounts.here.join("n")).expect("readable");
    assert_eq!(text.parse(), Ok(2 * STEPS));
}

/// A value of `system.posix_acl_access` or `system.posix_acl_default`: tags, permissions and numbers.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permission.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// An extended attribute; none if there is none.
fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1_000];
    let got = rustix::fs::getxattr(path, name, &mut value).ok()?;
    value.truncate(got);
    Some(value)
}

#[test]
fn an_access_control_list_of_one_mount_is_shown_by_the_other_and_inherited_in_the_place_of_the_umask() {
    const ACCESS: &str = "system.posix_acl_access";
    const DEFAULT: &str = "system.posix_acl_default";
    const NOBODY: u32 = u32::MAX;
    let Some(mounts) = Mounts::start() else { return };
    let (here, there) = (mounts.here.join("d"), mounts.there.join("d"));
    fs::create_dir(&here).expect("made");
    let of_user = |mask: u16, other: u16, owner: u16| {
        list(&[
            (1, owner, NOBODY),
            (2, 7, 1234),
            (4, 5, NOBODY),
            (0x10, mask, NOBODY),
            (0x20, other, NOBODY),
        ])
    };
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&here, DEFAULT, &of_user(7, 7, 7), flags).expect("set");
    fs::write(here.join("f"), b"x").expect("written");
    fs::create_dir(here.join("sub")).expect("made");
    assert_eq!(attribute(&there, DEFAULT), Some(of_user(7, 7, 7)));
    assert_eq!(attribute(&there, ACCESS), None);
    let file = there.join("f");
    assert_eq!(attribute(&file, ACCESS), Some(of_user(6, 6, 6)));
    assert_eq!(fs::metadata(&file).expect("there").mode() & 0o7777, 0o666);
    assert_eq!(attribute(&there.join("sub"), DEFAULT), Some(of_user(7, 7, 7)));
    // What is said of a mode is said of the mask.
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
    let shown = within(DEADLINE, || {
        (attribute(&here.join("f"), ACCESS) == Some(of_user(4, 0, 6))).then_some(())
    });
    assert!(shown.is_some(), "{:?}", attribute(&here.join("f"), ACCESS));
    let mut names = [0; 1_000];
    let length = rustix::fs::listxattr(&file, &mut names).expect("listed");
    assert_eq!(String::from_utf8_lossy(&names[..length]), format!("{ACCESS}\0"));
    rustix::fs::removexattr(&file, ACCESS).expect("removed");
    assert_eq!(attribute(&file, ACCESS), None);
    assert_eq!(fs::metadata(&file).expect("there").mode() & 0o7777, 0o650);
    // Where nothing is inherited, the umask counts.
    rustix::fs::removexattr(&here, DEFAULT).expect("removed");
    fs::write(here.join("plain"), b"x").expect("written");
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = u32::from_str_radix(umask.expect("a line").trim(), 8).expect("octal");
    let plain = fs::metadata(there.join("plain")).expect("there");
    assert_eq!(plain.mode() & 0o7777, 0o666 & !umask);
    let refused = rustix::fs::setxattr(&here, ACCESS, &list(&[(1, 7, NOBODY)]), flags);
    assert_eq!(refused, Err(rustix::io::Errno::INVAL));
}
