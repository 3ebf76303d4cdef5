//! The same loads by POSIX calls: the floor under ours, and what a mount is measured by.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use curvine_protocol::number::to_usize;
use curvine_protocol::{Error, ErrorKind, Result};
use rustix::fs::{Advice, fadvise};

use super::Stopwatch;
use super::data::{Offsets, PIECE_BYTES, Rates, SMALL_READ_BYTES};

/// Refuses what has no room in a directory, before it is begun.
pub fn check_room(directory: &Path, bytes: u64) -> Result<()> {
    let space = rustix::fs::statvfs(directory)
        .map_err(|e| Error::from(io::Error::from(e)).while_doing(directory.display()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    match bytes <= free {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "{}: {bytes} bytes are to be written, and {free} are free; choose fewer --bytes, or another directory",
                directory.display()
            ),
        )),
    }
}

/// How often a second 4 KiB can be appended and synced: what durability costs here.
pub fn append_and_sync(directory: &Path) -> Result<f64> {
    const APPENDS: u32 = 300;
    let scratch = ScratchDir::make(directory)?;
    let measure = || -> io::Result<f64> {
        let mut file = File::create(scratch.0.join("log"))?;
        let watch = Stopwatch::start();
        for _ in 0..APPENDS {
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
        }
        Ok(watch.per_second(f64::from(APPENDS)))
    };
    measure().map_err(|e| Error::from(e).while_doing(directory.display()))
}

/// One big file: written and read in order, read at random. With `afresh` the kernel forgets its pages before each way of
/// reading, so that a mount is asked; what is below the mount keeps them.
pub fn big_file(directory: &Path, bytes: u64, reads: usize, piece: &[u8], afresh: bool) -> Result<Rates> {
    let scratch = ScratchDir::make(directory)?;
    let path = scratch.0.join("big");
    let measure = || -> io::Result<Rates> {
        let pieces = bytes / PIECE_BYTES;
        let total = (pieces * PIECE_BYTES) as f64;
        let mut file = File::create(&path)?;
        let watch = Stopwatch::start();
        for _ in 0..pieces {
            file.write_all(piece)?;
        }
        drop(file);
        let write = watch.per_second(total);
        let mut file = File::open(&path)?;
        let forget = |file: &File| -> io::Result<()> {
            if afresh {
                file.sync_all()?;
                fadvise(file, 0, None, Advice::DontNeed)?;
            }
            Ok(())
        };
        forget(&file)?;
        let mut buffer = vec![0; to_usize(PIECE_BYTES)];
        let watch = Stopwatch::start();
        for _ in 0..pieces {
            file.read_exact(&mut buffer)?;
        }
        let read = watch.per_second(total);
        forget(&file)?;
        let mut buffer = [0; SMALL_READ_BYTES];
        let mut offsets = Offsets::over(bytes);
        let watch = Stopwatch::start();
        for _ in 0..reads {
            file.read_exact_at(&mut buffer, offsets.next())?;
        }
        Ok(Rates {
            write,
            read,
            random: watch.per_second(reads as f64),
        })
    };
    measure().map_err(|e| Error::from(e).while_doing(directory.display()))
}

/// Small files of one size by several threads, each in a directory of its own, as data sets have it: written and read per
/// second. In one directory the kernel makes one file at a time, whatever is below.
pub fn small_files(directory: &Path, files: usize, bytes: usize, threads: usize) -> Result<(f64, f64)> {
    let scratch = ScratchDir::make(directory)?;
    for thread in 0..threads {
        let made = fs::create_dir(scratch.0.join(thread.to_string()));
        made.map_err(|e| Error::from(e).while_doing(directory.display()))?;
    }
    let each = (files / threads).max(1);
    let run = |write: bool| -> Result<f64> {
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let directory = &scratch.0;
                    scope.spawn(move || small_files_of(thread, directory, each, bytes, write))
                })
                .collect();
            for worker in workers {
                worker
                    .join()
                    .map_err(|_| Error::internal("a thread of the benchmark panicked"))?
                    .map_err(|e| Error::from(e).while_doing(directory.display()))?;
            }
            Ok::<_, Error>(())
        })?;
        Ok(watch.per_second((each * threads) as f64))
    };
    Ok((run(true)?, run(false)?))
}

fn small_files_of(thread: usize, directory: &Path, each: usize, bytes: usize, write: bool) -> io::Result<()> {
    let content = vec![thread.to_le_bytes()[0]; bytes];
    let directory = directory.join(thread.to_string());
    for file in 0..each {
        let path = directory.join(file.to_string());
        match write {
            true => fs::write(path, &content)?,
            false if fs::read(path)? == content => {}
            false => return Err(io::Error::other("other bytes than were written")),
        }
    }
    Ok(())
}

/// A directory of this run; removed when dropped.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn make(directory: &Path) -> Result<ScratchDir> {
        let path = directory.join(format!(".cv-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|e| Error::from(e).while_doing(path.display()))?;
        Ok(ScratchDir(path))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cv: bench: {} is left behind: {error}", self.0.display());
        }
    }
}
