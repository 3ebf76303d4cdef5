//! A disk that loses what was not synced, or fails.
//!
//! The masters write to real files. Every write of this program (LMDB's and the standard library's) passes here, where
//! the last synced content of each page it changes is kept until the file is synced. When the power is cut, pages go back
//! to it: all of them, or each by chance, as a disk's cache writes in any order.
//!
//! A disk that fails takes no writes, and can be read.
//!
//! A file's name is on disk as soon as it is made: ext4 under a real power cut is `node/tests/process/power.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

use curvine_protocol::number::to_usize;
use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};

use crate::chance::Chance;

const PAGE_BYTES: u64 = 4096;

/// What a file was when it was last synced, as far as it differs now.
struct Unsynced {
    length_bytes: u64,
    /// Pages within that length, as they were.
    pages: BTreeMap<u64, Vec<u8>>,
}

type FileId = (u64, u64);

static WATCHES: AtomicBool = AtomicBool::new(false);
static ANY_FAILS: AtomicBool = AtomicBool::new(false);
static FAILING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static FILES: LazyLock<Mutex<HashMap<FileId, Unsynced>>> = LazyLock::new(Mutex::default);

/// From now on the disk can lose what is not synced.
pub fn watch() {
    WATCHES.store(true, Ordering::Relaxed);
}

/// From now on a directory is on a disk that takes nothing.
pub fn fail(directory: &Path) {
    FAILING.lock().expect("no panic").insert(directory.to_owned());
    ANY_FAILS.store(true, Ordering::Relaxed);
}

/// Another disk with the same content takes its place.
pub fn replace(directory: &Path) {
    let mut failing = FAILING.lock().expect("no panic");
    failing.remove(directory);
    ANY_FAILS.store(!failing.is_empty(), Ordering::Relaxed);
}

/// Whether nothing is written through a descriptor: the error is set then.
fn fails(fd: RawFd) -> bool {
    if !ANY_FAILS.load(Ordering::Relaxed) {
        return false;
    }
    let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{fd}")) else {
        return false;
    };
    let is_failing = FAILING
        .lock()
        .expect("no panic")
        .iter()
        .any(|directory| path.starts_with(directory));
    if is_failing {
        // SAFETY: it is this thread's own.
        unsafe { *libc::__errno_location() = libc::EIO };
    }
    is_failing
}

/// What was not synced below a directory is lost: all of it, or some pages of it.
pub fn cut_power(directory: &Path, chance: &Chance) -> std::io::Result<u64> {
    let all = chance.percent(50);
    let mut lost = 0;
    if !directory.exists() {
        return Ok(0);
    }
    let mut paths: Vec<_> = std::fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            lost += cut_power(&path, chance)?;
            continue;
        }
        let status = path.metadata()?;
        let Some(unsynced) = FILES
            .lock()
            .expect("no panic")
            .remove(&(status.dev(), status.ino()))
        else {
            continue;
        };
        let file = File::options().read(true).write(true).open(&path)?;
        for (page, content) in unsynced.pages {
            if all || chance.percent(50) {
                lost += 1;
                file.write_all_at(&content, page * PAGE_BYTES)?;
            }
        }
        if all && status.len() > unsynced.length_bytes {
            lost += (status.len() - unsynced.length_bytes).div_ceil(PAGE_BYTES);
            file.set_len(unsynced.length_bytes)?;
        }
        forget(&file);
    }
    Ok(lost)
}

/// What was written by a killed process is in the page cache, and there it stays.
fn forget(file: &File) {
    if let Ok(status) = file.metadata() {
        FILES
            .lock()
            .expect("no panic")
            .remove(&(status.dev(), status.ino()));
    }
}

fn forget_below(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget_below(&path);
        } else if let Ok(file) = File::open(&path) {
            forget(&file);
        }
    }
}

/// The file behind a descriptor that somebody else closes.
fn file(fd: RawFd) -> ManuallyDrop<File> {
    // SAFETY: it is not closed here, and its owner is in a call with it.
    ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })
}

/// Before bytes of a file are written.
fn note(fd: RawFd, at: Option<u64>, length: u64) {
    if !WATCHES.load(Ordering::Relaxed) || fd <= 2 || length == 0 {
        return;
    }
    let file = file(fd);
    let Ok(status) = file.metadata() else { return };
    if !status.is_file() {
        return;
    }
    // SAFETY: it changes nothing.
    let position = || u64::try_from(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }).unwrap_or(0);
    let at = at.unwrap_or_else(position);
    let pages = at / PAGE_BYTES..(at + length).div_ceil(PAGE_BYTES);
    let mut files = FILES.lock().expect("no panic");
    // SAFETY: it changes nothing.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags & libc::O_DSYNC != 0 {
        if let Some(unsynced) = files.get_mut(&(status.dev(), status.ino())) {
            unsynced.pages.retain(|page, _| !pages.contains(page));
            unsynced.length_bytes = unsynced.length_bytes.max(at + length);
        }
        return;
    }
    let unsynced = files
        .entry((status.dev(), status.ino()))
        .or_insert_with(|| Unsynced {
            length_bytes: status.len(),
            pages: BTreeMap::new(),
        });
    for page in pages {
        let start = page * PAGE_BYTES;
        if start >= unsynced.length_bytes || unsynced.pages.contains_key(&page) {
            continue;
        }
        // Some other descriptor can read it, if this one is for writing only.
        let Ok(readable) = File::open(format!("/proc/self/fd/{fd}")) else {
            return;
        };
        let mut content = vec![0; to_usize((unsynced.length_bytes - start).min(PAGE_BYTES))];
        if readable.read_exact_at(&mut content, start).is_ok() {
            unsynced.pages.insert(page, content);
        }
    }
}

fn synced(fd: RawFd) {
    if WATCHES.load(Ordering::Relaxed) {
        forget(&file(fd));
    }
}

fn bytes_of(vectors: *const iovec, count: c_int) -> u64 {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller of `pwritev` passes that many.
    let vectors = unsafe { std::slice::from_raw_parts(vectors, count) };
    vectors.iter().map(|vector| vector.iov_len as u64).sum()
}

// libc's, for the whole program. Each keeps libc's bargain and passes its arguments on.

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    if fails(fd) {
        return -1;
    }
    note(fd, None, count as u64);
    // SAFETY: as the caller's.
    ssize_t::try_from(unsafe { libc::syscall(libc::SYS_write, fd, buffer, count) }).unwrap_or(-1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    if fails(fd) {
        return -1;
    }
    note(fd, u64::try_from(offset).ok(), count as u64);
    // SAFETY: as the caller's.
    ssize_t::try_from(unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, count, offset) }).unwrap_or(-1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: as the caller's.
    unsafe { pwrite(fd, buffer, count, offset) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    if fails(fd) {
        return -1;
    }
    note(fd, None, bytes_of(vectors, count));
    // SAFETY: as the caller's.
    ssize_t::try_from(unsafe { libc::syscall(libc::SYS_writev, fd, vectors, count) }).unwrap_or(-1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    if fails(fd) {
        return -1;
    }
    note(fd, u64::try_from(offset).ok(), bytes_of(vectors, count));
    // SAFETY: as the caller's; the last argument is the offset's upper half on 32 bits.
    ssize_t::try_from(unsafe { libc::syscall(libc::SYS_pwritev, fd, vectors, count, offset, 0) })
        .unwrap_or(-1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: as the caller's.
    unsafe { pwritev(fd, vectors, count, offset) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if fails(fd) {
        return -1;
    }
    synced(fd);
    // The file system is memory: there is nothing to wait for.
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    if fails(fd) {
        return -1;
    }
    synced(fd);
    0
}

/// Of a file system, which is the directory: each worker's is a device of its own.
#[unsafe(no_mangle)]
unsafe extern "C" fn syncfs(fd: c_int) -> c_int {
    if fails(fd) {
        return -1;
    }
    if WATCHES.load(Ordering::Relaxed)
        && let Ok(directory) = std::fs::read_link(format!("/proc/self/fd/{fd}"))
    {
        forget_below(&directory);
    }
    0
}

/// Punched holes are written pages that read as zeros.
#[unsafe(no_mangle)]
unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    if fails(fd) {
        return -1;
    }
    if let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) {
        note(fd, Some(offset), length);
    }
    // SAFETY: as the caller's.
    c_int::try_from(unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) }).unwrap_or(-1)
}
