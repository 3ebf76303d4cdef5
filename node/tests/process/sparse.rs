//! Files with holes, through a mount.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use curvine_protocol::CurvinePath;
use curvine_protocol::number::to_usize;
use curvine_tests::random::Seeded;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::support::{Node, run, text};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// A node with a mount. None where this process may not mount, which is said.
fn mounted(dir: &Path, config: &str) -> Option<(Node, PathBuf)> {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped, sparse files are not tested here: it takes root and /dev/fuse");
        return None;
    }
    let (file, mount) = (dir.join("curvine.toml"), dir.join("mnt"));
    fs::write(&file, config).expect("written");
    let args = ["--config", text(&file), "--mount-point", text(&mount)];
    Some((Node::start_all(&dir.join("data"), &args), mount))
}

fn opened(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).expect("opened")
}

fn held_bytes(file: &File) -> u64 {
    file.metadata().expect("it is open").blocks() * 512
}

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

#[test]
fn a_sparse_file_costs_what_it_holds() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some((node, mount)) = mounted(dir.path(), "") else {
        return;
    };
    let path = mount.join("sparse");
    let file = opened(&path);
    file.write_all_at(b"a", 0).expect("written");
    file.write_all_at(b"z", 100 * TIB).expect("written");
    for flushed in [false, true] {
        assert_eq!(held_bytes(&file), 512, "flushed: {flushed}");
        file.sync_all().expect("synced");
    }
    let mut bytes = [1; 3];
    file.read_exact_at(&mut bytes, 50 * TIB).expect("zeros");
    assert_eq!(bytes, [0; 3]);
    file.read_exact_at(&mut bytes[..2], 100 * TIB - 1).expect("there");
    assert_eq!(bytes[..2], *b"\0z");
    let look = |from| seek(&file, from).expect("found");
    assert_eq!(look(SeekFrom::Hole(0)), 1);
    assert_eq!(look(SeekFrom::Data(1)), 100 * TIB);
    assert_eq!(look(SeekFrom::Hole(100 * TIB)), 100 * TIB + 1);
    assert_eq!(seek(&file, SeekFrom::Data(100 * TIB + 1)), Err(Errno::NXIO));

    let (layout, sum) = run(async {
        let client = node.client().await;
        let path = CurvinePath::parse("/sparse").expect("a path");
        let layout = client.locate(path.clone()).await.expect("there");
        (layout, client.summarize(path).await.expect("there"))
    });
    assert_eq!((layout.blocks.len(), layout.attr.hole_bytes), (2, 100 * TIB - 1));
    assert_eq!((sum.bytes, sum.hole_bytes), (100 * TIB + 1, 100 * TIB - 1));

    file.set_len(127 * TIB).expect("longer");
    file.set_len(2).expect("shorter");
    assert_eq!(fs::read(&path).expect("readable"), b"a\0");
    let too_far = file.write_all_at(b"x", 128 * TIB).expect_err("too far");
    assert_eq!(too_far.raw_os_error(), Some(libc::EFBIG));
}

#[test]
fn holes_are_made_without_zeros_and_allocations_without_room_are_refused_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some((node, mount)) = mounted(dir.path(), "") else {
        return;
    };
    let used = || node.metric("curvine_worker_call_seconds_count{call=\"WriteBlock\"}");
    let file = opened(&mount.join("punched"));
    file.set_len(4096 * MIB).expect("longer");
    // Some of 32 blocks have bytes.
    for block in [0, 1, 7, 15, 24, 31] {
        file.write_all_at(&[7; 5 << 20], block * 128 * MIB + 3)
            .expect("written");
    }
    file.sync_all().expect("synced");
    let (before, written) = (held_bytes(&file), used());
    fallocate(&file, PUNCH, 2 * MIB, 3072 * MIB).expect("punched");
    assert_eq!(used(), written, "no zeros are written");
    assert_eq!(file.metadata().expect("open").len(), 4096 * MIB);
    file.sync_all().expect("synced");
    let after = held_bytes(&file);
    assert!(after < before / 2, "{after} of {before} bytes are held");
    let byte = |at: u64| {
        let mut byte = [1];
        file.read_exact_at(&mut byte, at).expect("readable");
        byte[0]
    };
    assert_eq!([byte(2 * MIB - 1), byte(2 * MIB), byte(5 * MIB)], [7, 0, 0]);
    assert_eq!(
        [
            byte(128 * MIB + 3),
            byte(24 * 128 * MIB + MIB),
            byte(24 * 128 * MIB + 3 * MIB)
        ],
        [0, 0, 7]
    );

    // More than there is: nothing is taken, and nothing becomes longer.
    let refused = |flags| fallocate(&file, flags, 0, 100 * TIB).expect_err("no room");
    assert_eq!(refused(FallocateFlags::empty()), Errno::NOSPC);
    assert_eq!(refused(FallocateFlags::KEEP_SIZE), Errno::NOSPC);
    assert_eq!(refused(FallocateFlags::ZERO_RANGE), Errno::NOSPC);
    assert_eq!(refused(FallocateFlags::COLLAPSE_RANGE), Errno::OPNOTSUPP);
    assert_eq!(refused(FallocateFlags::INSERT_RANGE), Errno::OPNOTSUPP);
    assert_eq!(
        fallocate(&file, FallocateFlags::empty(), 0, 1 << 60),
        Err(Errno::FBIG)
    );
    assert_eq!(file.metadata().expect("open").len(), 4096 * MIB);
    // With room, it is a matter of the size.
    fallocate(&file, FallocateFlags::KEEP_SIZE, 4096 * MIB, MIB).expect("there is room");
    assert_eq!(file.metadata().expect("open").len(), 4096 * MIB);
    fallocate(&file, FallocateFlags::empty(), 4096 * MIB, MIB).expect("there is room");
    assert_eq!(file.metadata().expect("open").len(), 4097 * MIB);
    assert_eq!((used(), held_bytes(&file)), (written, after));
}

#[test]
fn holes_writes_and_cuts_at_random_leave_what_memory_would_have() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = "[master]\nblock_size = \"64KiB\"\n";
    let Some((_node, mount)) = mounted(dir.path(), config) else {
        return;
    };
    const SPAN: u64 = 700_000;
    for seed in 1..=3 {
        eprintln!("seed {seed}");
        let mut random = Seeded::new(seed);
        let mut below = |limit: u64| random.below(limit);
        let path = mount.join(format!("random-{seed}"));
        let mut file = opened(&path);
        let mut model: Vec<u8> = Vec::new();
        for step in 0..400_u64 {
            let (start, len) = (below(SPAN), 1 + below(150_000));
            let (from, to) = (to_usize(start), to_usize(start + len));
            let [fill, ..] = (1 + step % 255).to_le_bytes();
            let zero = |model: &mut Vec<u8>| {
                let (from, to) = (from.min(model.len()), to.min(model.len()));
                model[from..to].fill(0);
            };
            match below(9) {
                0..=2 => {
                    file.write_all_at(&vec![fill; to - from], start).expect("written");
                    model.resize(model.len().max(to), 0);
                    model[from..to].fill(fill);
                }
                3 | 4 => {
                    fallocate(&file, PUNCH, start, len).expect("punched");
                    zero(&mut model);
                }
                5 => {
                    fallocate(&file, FallocateFlags::ZERO_RANGE, start, len).expect("zeroed");
                    zero(&mut model);
                    model.resize(model.len().max(to), 0);
                }
                6 => {
                    file.set_len(start).expect("cut");
                    model.resize(from, 0);
                }
                7 => {
                    fallocate(&file, FallocateFlags::empty(), start, len).expect("there is room");
                    model.resize(model.len().max(to), 0);
                }
                _ => file = opened(&path),
            }
            let size = model.len() as u64;
            assert_eq!(file.metadata().expect("open").len(), size, "step {step}");
            // Between data and data there are zeros alone.
            let data = seek(&file, SeekFrom::Data(start));
            let first = match data {
                Ok(at) => at,
                Err(error) => {
                    assert_eq!(error, Errno::NXIO, "step {step}");
                    size
                }
            };
            let passed = model.get(from..to_usize(first)).unwrap_or_default();
            assert!(
                passed.iter().all(|&byte| byte == 0),
                "step {step}: data in a hole from {start} on"
            );
            if step % 10 == 0 {
                assert!(fs::read(&path).expect("readable") == model, "step {step}");
            }
        }
        drop(file);
        assert!(fs::read(&path).expect("readable") == model);
        assert!(fs::metadata(&path).expect("there").blocks() * 512 <= model.len() as u64 + 512);
    }
}
