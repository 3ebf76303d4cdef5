//! Files of a writable mount whose objects are there already, through FUSE: written, cut and appended to as any file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use curvine_actors::client::CreateOptions;
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, ErrorKind};
use curvine_tests::random::Seeded;

use crate::support::{Node, run, text, until};

const MIB: usize = 1 << 20;

/// A node with a FUSE mount, and a local directory that is mounted in it, writable.
struct Store {
    // Dropped first.
    node: Node,
    /// Through FUSE.
    files: PathBuf,
    /// In the local directory.
    objects: PathBuf,
    _dir: tempfile::TempDir,
}

impl Store {
    /// With these objects. None where this process may not mount, which is said.
    fn start(objects: &[(&str, &[u8])]) -> Option<Store> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("skipped, writing objects is not tested here: it takes root and /dev/fuse");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mount, source) = (dir.path().join("mnt"), dir.path().join("source"));
        fs::create_dir(&source).expect("room");
        for (name, bytes) in objects {
            fs::write(source.join(name), bytes).expect("room");
        }
        let node = Node::start_all(&dir.path().join("data"), &["--mount-point", text(&mount)]);
        let uri = format!("file://{}", text(&source));
        run(async {
            let settings = MountSettings {
                writable: true,
                ..MountSettings::default()
            };
            let client = node.client().await;
            let mounted = client.mount(&at("/m"), &uri, BTreeMap::new(), settings).await;
            mounted.expect("a directory can be mounted");
        });
        Some(Store {
            node,
            files: mount.join("m"),
            objects: source,
            _dir: dir,
        })
    }

    fn open(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(self.files.join(name)).expect("opened")
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).open(self.files.join(name)).expect("opened");
        file.write_all(bytes).expect("written");
    }

    /// The file and the object both are this, and the file also when nothing of it is cached.
    fn assert_is(&self, name: &str, expected: &[u8]) {
        let object = fs::read(self.objects.join(name)).expect("there");
        assert!(object == expected, "the object {name}: {} bytes", object.len());
        for free in [false, true] {
            if free {
                self.free();
            }
            let file = fs::read(self.files.join(name)).expect("readable");
            assert!(
                file == expected,
                "the file {name}, freed: {free}: {} bytes",
                file.len()
            );
        }
    }

    /// Drops what is cached.
    fn free(&self) {
        run(async {
            let client = self.node.client().await;
            client.free(&at("/m")).await.expect("freed");
        });
    }

    fn shell(&self, script: &str) {
        let mut command = Command::new("sh");
        let output = command
            .args(["-ec", script])
            .current_dir(&self.files)
            .output()
            .expect("a shell");
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn at(path: &str) -> CurvinePath {
    CurvinePath::parse(path).expect("a path")
}

fn random(len: usize) -> Vec<u8> {
    let mut random = Seeded::new(7);
    (0..len).map(|_| random.byte_below(u8::MAX)).collect()
}

#[test]
fn an_object_is_appended_to_written_in_place_and_cut() {
    let large = random(5 * MIB + 77);
    let Some(store) = Store::start(&[("small", b"0123456789"), ("large", &large)]) else {
        return;
    };
    // Each round but the first works on what the one before has exported, with nothing of it cached.
    let (mut small, mut large) = (b"0123456789".to_vec(), large);
    for round in 0..3 {
        store.append("small", b"abc");
        small.extend_from_slice(b"abc");
        store.assert_is("small", &small);

        let file = store.open("large");
        let middle = 3 * MIB + 5 + round;
        file.write_all_at(b"in the middle", middle as u64)
            .expect("written");
        large[middle..middle + 13].copy_from_slice(b"in the middle");
        let mut seen = vec![0; large.len()];
        file.read_exact_at(&mut seen, 0)
            .expect("readable while it is written");
        assert!(seen == large, "what is not written over stays");
        drop(file);
        store.assert_is("large", &large);

        let file = store.open("large");
        large.truncate(2 * MIB + 3);
        file.set_len(large.len() as u64).expect("cut");
        large.resize(4 * MIB, 0);
        file.set_len(large.len() as u64).expect("made longer");
        file.write_all_at(b"end", 4 * MIB as u64 - 3).expect("written");
        large[4 * MIB - 3..].copy_from_slice(b"end");
        drop(file);
        store.assert_is("large", &large);
    }
}

#[test]
fn an_object_grows_by_blocks_of_the_usual_length() {
    let Some(store) = Store::start(&[("log", b"begin\n")]) else {
        return;
    };
    let more = random(3 * MIB);
    store.append("log", &more);
    let blocks = run(async {
        let client = store.node.client().await;
        client.locate(at("/m/log")).await.expect("there").blocks.len()
    });
    assert_eq!(blocks, 1);
    store.assert_is("log", &[b"begin\n", &more[..]].concat());
}

#[test]
fn programs_work_on_objects() {
    let Some(store) = Store::start(&[("text", b"one\ntwo\n"), ("many", b"")]) else {
        return;
    };
    store.shell("sed -i s/two/three/ text");
    store.assert_is("text", b"one\nthree\n");
    // Each of the programs ends, and so closes the file, before the next one writes.
    store.shell("{ /bin/echo a; /bin/echo b; (/bin/echo c); } > many");
    store.assert_is("many", b"a\nb\nc\n");
    store.shell("{ /bin/echo d; /bin/echo e; } >> many");
    store.assert_is("many", b"a\nb\nc\nd\ne\n");
    store.shell("printf X | dd of=many conv=notrunc bs=1 seek=2");
    store.assert_is("many", b"a\nX\nc\nd\ne\n");
    store.shell("truncate -s 3 many");
    assert_eq!(fs::read(store.files.join("many")).expect("readable"), b"a\nX");
}

#[test]
fn a_write_of_an_object_that_became_another_one_fails_and_changes_nothing() {
    let before = random(2 * MIB);
    let Some(store) = Store::start(&[("shared", &before)]) else {
        return;
    };
    let file = store.open("shared");
    let theirs = b"written by somebody else".repeat(100_000);
    fs::write(store.objects.join("shared"), &theirs).expect("written");
    let written = file.write_all_at(b"ours", 100).and_then(|()| file.sync_all());
    let error = written.expect_err("what is to stay of the object is gone");
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    drop(file);
    let object = fs::read(store.objects.join("shared")).expect("there");
    assert!(object == theirs, "theirs stays");
}

#[test]
fn a_part_of_an_object_that_somebody_else_changes_after_it_was_written_is_a_conflict_and_both_are_kept() {
    let mut ours = random(2 * MIB);
    let Some(store) = Store::start(&[("shared", &ours)]) else {
        return;
    };
    let file = store.open("shared");
    file.write_all_at(b"ours", 100).expect("taken");
    ours[100..104].copy_from_slice(b"ours");
    // Nothing was flushed yet.
    let theirs = b"written by somebody else".repeat(100_000);
    fs::write(store.objects.join("shared"), &theirs).expect("written");
    file.sync_all().expect("stored, under another name");
    drop(file);
    let object = fs::read(store.objects.join("shared")).expect("there");
    assert!(object == theirs, "theirs stays");
    let kept = fs::read_dir(&store.objects)
        .expect("there")
        .map(|object| object.expect("readable").path())
        .find(|object| text(object).contains("shared.conflict-"))
        .expect("ours has a name of its own");
    assert!(fs::read(&kept).expect("readable") == ours, "ours is in {kept:?}");
}

#[test]
fn a_part_of_an_object_that_somebody_else_changed_is_an_error_until_it_is_deleted_or_written_anew() {
    const BLOCK: usize = 64 << 10;
    const THEIRS: &[u8] = b"written by somebody else";
    let Some(store) = Store::start(&[]) else {
        return;
    };
    let is_told = |said: &str| {
        let what_to_do = "delete it, which leaves their object, or write all of it anew, which keeps both";
        assert!(
            said.contains("was written here in part") && said.contains(what_to_do),
            "{said}"
        );
    };
    let anew = random(3 * BLOCK);
    run(async {
        let client = store.node.client().await;
        for name in ["deleted", "written anew"] {
            let path = at(&format!("/m/{name}"));
            let options = CreateOptions {
                block_bytes: BLOCK as u64,
                ..CreateOptions::default()
            };
            let file = client.create(&path, options).await.expect("created");
            file.write_at(0, random(2 * BLOCK).into()).await.expect("written");
            file.close().await.expect("stored");
            client.free(&path).await.expect("freed");

            // The first block is fetched to be written, the second one is not.
            let file = client.open_for_write(&path, false).await.expect("opened");
            file.write_at(0, "ours".into()).await.expect("written");
            file.flush().await.expect("committed");
            fs::write(store.objects.join(name), THEIRS).expect("room");
            for error in [file.close().await.err(), client.persist(&path).await.err()] {
                let error = error.expect("the second block is nowhere any more");
                assert_eq!(error.kind, ErrorKind::UfsChanged, "{error}");
                is_told(&error.message);
            }
            let mounts = client.mounts().await.expect("listed");
            let backlog = mounts[0].backlog.as_ref().expect("it is writable");
            let [(key, failure)] = &backlog.failures[..] else {
                panic!("one file has failed: {backlog:?}");
            };
            assert_eq!(key, name);
            is_told(failure);
            let file = client.open(&path).await.expect("there");
            assert_eq!(file.read_at(0, 4).await.expect("it is here"), "ours");
            let second = file.read_at(BLOCK as u64, 4).await;
            assert_eq!(second.expect_err("it is nowhere").kind, ErrorKind::UfsChanged);
            file.close().await.expect("closed");
            assert_eq!(fs::read(store.objects.join(name)).expect("there"), THEIRS);
            if name == "deleted" {
                client.unlink(&path, false).await.expect("deleted");
            } else {
                client.write(&path, anew.clone()).await.expect("both are kept");
            }
            // As long as the deletion is under way, the store is not asked for the name.
            let found = until("their object is seen", async || client.read(&path).await.ok()).await;
            assert_eq!(found, THEIRS);
        }
    });
    let mut objects: Vec<_> = fs::read_dir(&store.objects)
        .expect("there")
        .map(|object| object.expect("readable").path())
        .filter(|object| object.is_file())
        .collect();
    objects.sort();
    let [deleted, written, kept] = &objects[..] else {
        panic!("both versions of one of them: {objects:?}");
    };
    assert_eq!(deleted, &store.objects.join("deleted"));
    assert_eq!(written, &store.objects.join("written anew"));
    assert!(text(kept).contains("written anew.conflict-"), "{kept:?}");
    for (object, expected) in [(deleted, THEIRS), (written, THEIRS), (kept, &anew)] {
        assert!(fs::read(object).expect("readable") == expected, "{object:?}");
    }
}

#[test]
fn a_file_that_was_renamed_is_written_in_part() {
    let mut large = random(3 * MIB);
    let Some(store) = Store::start(&[("before", &large)]) else {
        return;
    };
    fs::rename(store.files.join("before"), store.files.join("after")).expect("renamed");
    store.free();
    store
        .open("after")
        .write_all_at(b"in the middle", MIB as u64)
        .expect("written");
    large[MIB..MIB + 13].copy_from_slice(b"in the middle");
    store.assert_is("after", &large);
    assert!(!store.objects.join("before").exists());

    // What is to stay of the object is neither here nor exported when it is renamed.
    store.free();
    let file = store.open("after");
    file.set_len(2 * MIB as u64).expect("cut");
    fs::rename(store.files.join("after"), store.files.join("last")).expect("renamed");
    drop(file);
    large.truncate(2 * MIB);
    store.append("last", b"end");
    large.extend_from_slice(b"end");
    store.assert_is("last", &large);
}

#[test]
fn what_is_written_after_a_sync_is_kept_until_it_is_stored_too() {
    let mut large = random(MIB);
    let Some(store) = Store::start(&[("synced", &large)]) else {
        return;
    };
    let file = store.open("synced");
    for round in 0..3 {
        file.write_all_at(&[round; 10], 7).expect("written");
        large[7..17].fill(round);
        file.sync_all().expect("stored");
        let object = fs::read(store.objects.join("synced")).expect("there");
        assert!(object == large, "the object of round {round}");
        store.free();
        let mut seen = vec![0; large.len()];
        file.read_exact_at(&mut seen, 0).expect("readable");
        assert!(seen == large, "the file of round {round}");
    }
    drop(file);
    store.assert_is("synced", &large);
}

#[test]
fn whoever_has_a_file_open_reads_it_when_its_object_is_gone() {
    let (first, second) = (random(2 * MIB), random(MIB));
    let objects: [(&str, &[u8]); 3] = [("deleted", &first), ("replaced", &second), ("new", b"new")];
    let Some(store) = Store::start(&objects) else {
        return;
    };
    let (deleted, replaced) = (store.open("deleted"), store.open("replaced"));
    fs::remove_file(store.files.join("deleted")).expect("deleted");
    fs::rename(store.files.join("new"), store.files.join("replaced")).expect("renamed");
    assert!(!store.objects.join("deleted").exists());
    store.assert_is("replaced", b"new");
    for (file, expected) in [(deleted, first), (replaced, second)] {
        let mut seen = vec![0; expected.len()];
        file.read_exact_at(&mut seen, 0).expect("readable");
        assert!(seen == expected, "what was there when it was opened");
    }
}

#[test]
fn the_close_of_the_last_that_wrote_waits_for_the_object_whoever_else_has_just_closed_the_file() {
    let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
    let objects: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &b"old old old"[..]))
        .collect();
    let Some(store) = Store::start(&objects) else {
        return;
    };
    for name in &names {
        let (first, second) = (store.open(name), store.open(name));
        second.write_all_at(b"new", 0).expect("written");
        second.sync_all().expect("synced");
        first.write_all_at(b"new", 4).expect("written");
        // That it is closed, the kernel says later than its close returns.
        drop(second);
        drop(first);
        let object = fs::read(store.objects.join(name)).expect("there");
        assert_eq!(object, b"new new old", "{name}");
    }
}

#[test]
fn the_close_of_who_only_cut_a_file_waits_for_the_object() {
    let Some(store) = Store::start(&[("a", b"old old old")]) else {
        return;
    };
    let file = store.open("a");
    file.write_all_at(b"new", 0).expect("written");
    // A descriptor of it is closed.
    drop(file.try_clone().expect("a duplicate"));
    file.set_len(5).expect("cut");
    drop(file);
    assert_eq!(fs::read(store.objects.join("a")).expect("there"), b"new o");
    store.assert_is("a", b"new o");
}
