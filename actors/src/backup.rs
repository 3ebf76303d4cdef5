//! Backups of the namespace as files: checked, and put where a master takes them in at its first start.
//!
//! Without a database: whoever has `cv` can check a backup. The head is in [`curvine_protocol::backup`].
//!
//! Invariants: nothing is placed that was not checked to its last byte; a file under its name is whole and synced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use curvine_protocol::backup::{BackupHeader, CHECKSUM_BYTES, HEAD_BYTES_MAX};
use curvine_protocol::checksum::{crc32c, crc32c_combine};
use curvine_protocol::number::to_usize;
use curvine_protocol::{Error, ErrorKind, Result};

/// Where a master finds what it is to take in, in its own directory.
pub const PLACED: &str = "restore.backup";
const PIECE_BYTES: usize = 1 << 20;

/// A backup whose head was read.
#[derive(Debug)]
pub struct Backup {
    pub header: BackupHeader,
    path: PathBuf,
    file: File,
    head_bytes: u64,
}

impl Backup {
    /// Reads the head.
    ///
    /// # Errors
    /// As [`BackupHeader::from_head`], naming the file.
    pub fn open(path: &Path) -> Result<Backup> {
        let naming = |error: Error| error.while_doing(path.display());
        let file = File::open(path).map_err(|e| naming(e.into()))?;
        let mut head = vec![0; HEAD_BYTES_MAX];
        let read = read_full(&file, &mut head, 0).map_err(|e| naming(e.into()))?;
        let (header, head_bytes) = BackupHeader::from_head(&head[..read]).map_err(naming)?;
        Ok(Backup {
            header,
            path: path.to_owned(),
            file,
            head_bytes: head_bytes as u64,
        })
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// `Corrupt` unless it is as long as it says and has its checksum.
    pub fn check(&self) -> Result<()> {
        self.read_all(|_, _| Ok(()))
    }

    /// Writes the state's bytes elsewhere; they may be used only if this returns without an error.
    pub fn extract(&self, to: &mut File) -> Result<()> {
        let state = self.head_bytes..self.head_bytes + self.header.len_bytes;
        self.read_all(|at, piece| {
            // A piece may have some of the head in front of it, and some of the checksum behind.
            let from = state.start.saturating_sub(at).min(piece.len() as u64);
            let until = state.end.saturating_sub(at).min(piece.len() as u64);
            to.write_all(&piece[to_usize(from)..to_usize(until)])
        })
    }

    /// Gives away everything, checksum included, by pieces with their places, and compares.
    fn read_all(&self, mut each: impl FnMut(u64, &[u8]) -> std::io::Result<()>) -> Result<()> {
        let read =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("reading {}", self.path.display()));
        let damaged = |what: &str| {
            let path = self.path.display();
            Error::new(ErrorKind::Corrupt, format!("{path} {what}; use another backup"))
        };
        let summed_bytes = self.head_bytes + self.header.len_bytes;
        let whole_bytes = self.file.metadata().map_err(read)?.len();
        if whole_bytes != summed_bytes + CHECKSUM_BYTES as u64 {
            return Err(damaged(&format!(
                "has {whole_bytes} bytes instead of {}",
                summed_bytes + CHECKSUM_BYTES as u64
            )));
        }
        let (mut at, mut sum, mut piece) = (0, 0, vec![0; PIECE_BYTES]);
        while at < summed_bytes {
            let want = to_usize((summed_bytes - at).min(PIECE_BYTES as u64));
            self.file.read_exact_at(&mut piece[..want], at).map_err(read)?;
            sum = crc32c_combine(sum, crc32c(&piece[..want]), want as u64);
            each(at, &piece[..want]).map_err(read)?;
            at += want as u64;
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        self.file.read_exact_at(&mut checksum, at).map_err(read)?;
        if u32::from_le_bytes(checksum) != sum {
            return Err(damaged("fails its checksum"));
        }
        each(at, &checksum).map_err(read)
    }
}

fn read_full(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], at + have as u64)? {
            0 => break,
            count => have += count,
        }
    }
    Ok(have)
}

/// Checks a backup, and puts it where a master with this data directory takes it in when it is started.
///
/// # Errors
/// What is wrong with the backup; `AlreadyExists` if there is a master's data already. Nothing was changed then.
pub fn place(backup: &Path, data_dir: &Path) -> Result<BackupHeader> {
    let master = data_dir.join("master");
    refuse_if_used(&master)?;
    let backup = Backup::open(backup)?;
    backup.check()?;
    let failed =
        |e: std::io::Error| Error::from(e).while_doing(format_args!("writing to {}", master.display()));
    let mut making = DirBuilder::new();
    making.recursive(true).mode(0o700);
    making.create(&master).map_err(failed)?;
    let part = master.join(format!("{PLACED}.part"));
    let placed = backup.copy(&part).and_then(|()| {
        std::fs::rename(&part, master.join(PLACED)).map_err(failed)?;
        File::open(&master)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    });
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    Ok(backup.header)
}

impl Backup {
    fn copy(&self, to: &Path) -> Result<()> {
        let failed = |e: std::io::Error| Error::from(e).while_doing(format_args!("writing {}", to.display()));
        let mut copy = private_file(to).map_err(failed)?;
        self.read_all(|_, piece| copy.write_all(piece))?;
        copy.sync_all().map_err(failed)
    }
}

/// A new file for its owner's eyes alone: backups hold the credentials of mounts.
pub fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// A directory that a start left with nothing but its lock is as good as new.
fn refuse_if_used(master: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(master) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::from(error).while_doing(master.display())),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name != "lock" && name != *format!("{PLACED}.part") {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} has a master's data already (`{}`); restore into a new --data-dir, or move this one away",
                    master.display(),
                    name.to_string_lossy()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use curvine_protocol::ClusterId;

    use super::*;

    fn write(path: &Path, state: &[u8]) {
        let header = BackupHeader {
            cluster: ClusterId(0xC1),
            version: "0.1.0".to_owned(),
            time_ns: 1,
            log_index: 77,
            len_bytes: state.len() as u64,
        };
        let mut bytes = header.to_head();
        bytes.extend_from_slice(state);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        std::fs::write(path, bytes).expect("room");
    }

    #[test]
    fn what_is_extracted_is_the_state_to_the_byte() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (path, out) = (scratch.path().join("backup"), scratch.path().join("state"));
        for len in [0, 1, PIECE_BYTES - 60, PIECE_BYTES, 3 * PIECE_BYTES + 7] {
            let state: Vec<u8> = (0..len)
                .map(|at| (at * 31 + (at >> 8)).to_le_bytes()[0])
                .collect();
            write(&path, &state);
            let backup = Backup::open(&path).expect("a backup");
            let mut to = private_file(&out).expect("room");
            backup.extract(&mut to).expect("whole");
            assert!(std::fs::read(&out).expect("written") == state, "{len} bytes");
        }
    }

    #[test]
    fn a_damaged_backup_is_refused_and_nothing_is_placed() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (path, data_dir) = (scratch.path().join("backup"), scratch.path().join("data"));
        write(&path, &[7; 10_000]);
        let whole = std::fs::read(&path).expect("written");
        let head_bytes = to_usize(Backup::open(&path).expect("a backup").head_bytes);
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("room");
            let error = place(&path, &data_dir).expect_err("damaged");
            assert!(!data_dir.exists(), "nothing is changed");
            (error.kind, error.message)
        };
        for at in [head_bytes, head_bytes + 5_000, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            let message = format!("{} fails its checksum; use another backup", path.display());
            assert_eq!(refused(&flipped), (ErrorKind::Corrupt, message), "byte {at}");
        }
        for len in [whole.len() - 1, whole.len() - 5_000] {
            let message = format!(
                "{} has {len} bytes instead of {}; use another backup",
                path.display(),
                whole.len()
            );
            assert_eq!(refused(&whole[..len]), (ErrorKind::Corrupt, message));
        }
        std::fs::write(&path, &whole).expect("room");
        place(&path, &data_dir).expect("whole");
        let placed = std::fs::read(data_dir.join("master").join(PLACED)).expect("placed");
        assert!(placed == whole, "it is the backup to the byte");
        let again = place(&path, &data_dir).expect_err("there is one");
        assert_eq!(again.kind, ErrorKind::AlreadyExists);
    }
}
