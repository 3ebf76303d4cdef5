//! Backups: a copy of the namespace that the leader keeps for a while, read part by part into a local file.

use std::path::{Path, PathBuf};

use curvine_protocol::backup::BackupHeader;
use curvine_protocol::checksum::{crc32c, crc32c_combine};
use curvine_protocol::master::{OpenBackup, ReadBackup};
use curvine_protocol::{Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::Client;
use crate::backup::private_file;

/// How often it is begun, where the leader changes while its copy is read.
const ATTEMPTS_MAX: u32 = 3;

impl Client {
    /// Writes the namespace as it is now into a file, which its owner alone may read: it holds the credentials of mounts.
    /// The file appears under its name when it is whole and synced.
    ///
    /// # Errors
    /// `AlreadyExists` if the file is there, unless `replace`; `Corrupt` for bytes that changed on the way; as the local
    /// disk and the master say.
    pub async fn back_up(&self, file: &Path, replace: bool) -> Result<BackupHeader> {
        if !replace && file.symlink_metadata().is_ok() {
            return Err(exists(file));
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let written = self.back_up_into(&part, file, replace).await;
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        written
    }

    async fn back_up_into(&self, part: &Path, file: &Path, replace: bool) -> Result<BackupHeader> {
        let failed =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("writing {}", part.display()));
        let mut attempt = 1;
        let header = loop {
            match self.copy_backup(part).await {
                Err(error) if error.kind == ErrorKind::Stale && attempt < ATTEMPTS_MAX => attempt += 1,
                other => break other?,
            }
        };
        let flags = match replace {
            true => RenameFlags::empty(),
            false => RenameFlags::NOREPLACE,
        };
        renameat_with(CWD, part, CWD, file, flags).map_err(|e| match e {
            rustix::io::Errno::EXIST => exists(file),
            other => failed(other.into()),
        })?;
        let parent = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = File::open(parent).await.map_err(failed)?;
        directory.sync_all().await.map_err(failed)?;
        Ok(header)
    }

    async fn copy_backup(&self, part: &Path) -> Result<BackupHeader> {
        let failed =
            |e: std::io::Error| Error::from(e).while_doing(format_args!("writing {}", part.display()));
        let mut out = File::from_std(private_file(part).map_err(failed)?);
        let opened = self.call(OpenBackup {}).await?;
        let head = opened.header.to_head();
        let mut sum = crc32c(&head);
        out.write_all(&head).await.map_err(failed)?;
        let mut offset_bytes = 0;
        loop {
            let ask = ReadBackup {
                id: opened.id,
                offset_bytes,
            };
            let answer = self.router.ask_master_for_body(ask).await?;
            let bytes = answer.body.read()?;
            if crc32c(&bytes) != answer.reply.checksum {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "the backup's bytes from {offset_bytes} on fail their checksum on arrival; begin again"
                    ),
                ));
            }
            if bytes.is_empty() {
                break;
            }
            sum = crc32c_combine(sum, answer.reply.checksum, bytes.len() as u64);
            out.write_all(&bytes).await.map_err(failed)?;
            offset_bytes += bytes.len() as u64;
        }
        if offset_bytes != opened.header.len_bytes {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the master gave {offset_bytes} bytes of a backup of {}; begin again",
                    opened.header.len_bytes
                ),
            ));
        }
        out.write_all(&sum.to_le_bytes()).await.map_err(failed)?;
        out.flush().await.map_err(failed)?;
        out.sync_all().await.map_err(failed)?;
        Ok(opened.header)
    }
}

fn exists(file: &Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{} is there already; --force replaces it", file.display()),
    )
}
