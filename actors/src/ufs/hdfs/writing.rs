//! Writing a file: into `.curvine-uploads`, and from there to its place by one rename, which replaces what is there.
//!
//! The name node does that as one change. It looks itself whether a new name is free; whether what is replaced is the version
//! that was meant is looked at right before.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use curvine_protocol::KeptAttributes;
use hdfs_native::WriteOptions;
use hdfs_native::client::FileStatus;
use hdfs_native::file::FileWriter;
use opendal::raw::oio;
use opendal::{Buffer, Error, ErrorKind, Metadata, Result};

use super::super::attributes::SET_ID;
use super::super::uri::UPLOADS_DIRECTORY;
use super::connected::Connected;
use super::{Hdfs, etag};

/// What a file or directory may be used for, unless its attributes say otherwise.
const FILE_MODE: u32 = 0o644;
pub const DIRECTORY_MODE: u32 = 0o755;

/// What a write is to replace.
pub enum Replaces {
    Anything,
    Nothing,
    /// The version with this ETag.
    Version(String),
}

pub struct Writer {
    pub hdfs: Hdfs,
    pub key: String,
    pub replaces: Replaces,
    pub kept: KeptAttributes,
    /// What was taken.
    pub sent_bytes: u64,
    pub stage: Stage,
}

pub enum Stage {
    Unopened,
    Written {
        upload: String,
        file: Box<Open>,
    },
    /// It is complete, and goes to its place, or is there already.
    Placed {
        upload: String,
        complete: FileStatus,
    },
    Done(Metadata),
    /// A step was given up half-way, or failed. Something may be left.
    Broken {
        upload: Option<String>,
    },
}

/// A file that is being written, and what it is written by.
pub struct Open {
    file: FileWriter,
    _client: Arc<Connected>,
}

impl Writer {
    /// What is there; while this is done something else, that is broken.
    fn take(&mut self) -> Stage {
        let upload = self.stage.upload();
        std::mem::replace(&mut self.stage, Stage::Broken { upload })
    }

    async fn opened(&mut self) -> Result<(String, Box<Open>)> {
        let upload = match self.take() {
            Stage::Written { upload, file } => return Ok((upload, file)),
            Stage::Unopened => {
                let name = format!(
                    "{UPLOADS_DIRECTORY}/{:016x}",
                    RandomState::new().hash_one("upload")
                );
                self.hdfs.path(&name)
            }
            stage => {
                self.stage = stage;
                // The words by which a limit of time is known.
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "timeout reached: an earlier piece of the file was not taken",
                ));
            }
        };
        self.stage = Stage::Broken {
            upload: Some(upload.clone()),
        };
        let mode = self.kept.mode.map_or(FILE_MODE, |mode| mode & 0o777 & !SET_ID);
        let options = WriteOptions::default().permission(mode);
        let path = &upload;
        let creating = self.hdfs.ask(|client| async move {
            let file = client.create(path, options).await?;
            Ok(Open {
                file,
                _client: client,
            })
        });
        let file = Box::new(creating.await?);
        Ok((upload, file))
    }

    /// Closes the file and gives it its attributes.
    async fn complete(&mut self) -> Result<(String, FileStatus)> {
        let (upload, mut file) = match self.take() {
            Stage::Placed { upload, complete } => return Ok((upload, complete)),
            stage => {
                self.stage = stage;
                self.opened().await?
            }
        };
        let closed = file.file.close().await;
        closed.map_err(|error| self.hdfs.place.told(error))?;
        drop(file);
        let complete = self.status(&upload).await?;
        if complete.length as u64 != self.sent_bytes {
            let words = format!("HDFS has {} of {} bytes", complete.length, self.sent_bytes);
            return Err(Error::new(ErrorKind::Unexpected, words));
        }
        self.hdfs.give(&upload, &complete, &self.kept).await?;
        let complete = self.status(&upload).await?;
        Ok((upload, complete))
    }

    async fn status(&self, path: &str) -> Result<FileStatus> {
        let status = self.hdfs.status(path).await?;
        status.ok_or_else(|| Error::new(ErrorKind::Unexpected, "what was written is gone"))
    }

    /// Gives what is complete its name.
    async fn place(&self, upload: &str) -> Result<()> {
        let (hdfs, path) = (&self.hdfs, &self.hdfs.path(&self.key));
        let conflict = || Error::new(ErrorKind::ConditionNotMatch, "another version is there");
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        if !above.is_empty() && hdfs.status(above).await?.is_none() {
            hdfs.ask(|client| async move { client.mkdirs(above, DIRECTORY_MODE, true).await })
                .await?;
        }
        if let Replaces::Version(meant) = &self.replaces {
            let there = hdfs.status(path).await?;
            if there.is_none_or(|there| there.isdir || etag(&there) != *meant) {
                return Err(conflict());
            }
        }
        let overwrites = !matches!(self.replaces, Replaces::Nothing);
        let renamed = hdfs.ask(|client| async move { client.rename(upload, path, overwrites).await });
        match renamed.await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !overwrites => Err(conflict()),
            renamed => renamed,
        }
    }

    /// Whether the file is in its place: an answer may have been lost.
    async fn is_placed(&self, upload: &str, complete: &FileStatus) -> Result<bool> {
        if self.hdfs.status(upload).await?.is_some() {
            return Ok(false);
        }
        let there = self.hdfs.status(&self.hdfs.path(&self.key)).await?;
        Ok(there.is_some_and(|there| there.length == complete.length && etag(&there) == etag(complete)))
    }
}

impl oio::Write for Writer {
    async fn write(&mut self, pieces: Buffer) -> Result<()> {
        let (upload, mut file) = self.opened().await?;
        for piece in pieces {
            let length = piece.len() as u64;
            let written = file.file.write_bytes(piece).await;
            written.map_err(|error| self.hdfs.place.told(error))?;
            self.sent_bytes += length;
        }
        self.stage = Stage::Written { upload, file };
        Ok(())
    }

    /// May be asked again, if nobody heard how it ended.
    async fn close(&mut self) -> Result<Metadata> {
        if let Stage::Done(metadata) = &self.stage {
            return Ok(metadata.clone());
        }
        let is_again = matches!(self.stage, Stage::Placed { .. });
        let (upload, complete) = self.complete().await?;
        let metadata = self.hdfs.metadata(&complete).await?;
        self.stage = Stage::Placed {
            upload: upload.clone(),
            complete: complete.clone(),
        };
        if !(is_again && self.is_placed(&upload, &complete).await?)
            && let Err(error) = self.place(&upload).await
        {
            // It may be there all the same.
            let is_certain = error.kind() != ErrorKind::Unexpected;
            if is_certain || !self.is_placed(&upload, &complete).await? {
                return Err(error);
            }
        }
        self.stage = Stage::Done(metadata.clone());
        Ok(metadata)
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(upload) = self.take().upload() else {
            return Ok(());
        };
        let path = &upload;
        let deleted = self
            .hdfs
            .ask(|client| async move { client.delete(path, false).await });
        deleted.await?;
        self.stage = Stage::Broken { upload: None };
        Ok(())
    }
}

impl Stage {
    /// What is to be deleted if it goes no further.
    fn upload(&self) -> Option<String> {
        match self {
            Stage::Unopened | Stage::Done(_) => None,
            Stage::Written { upload, .. } | Stage::Placed { upload, .. } => Some(upload.clone()),
            Stage::Broken { upload } => upload.clone(),
        }
    }
}

impl Drop for Writer {
    /// What nobody will complete goes. Its name is its own: if it has got its place meanwhile, nothing is deleted.
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.take().upload(), tokio::runtime::Handle::try_current()) {
            let hdfs = self.hdfs.clone();
            runtime.spawn(async move {
                let path = &upload;
                let deleting = hdfs.ask(|client| async move { client.delete(path, false).await });
                match tokio::time::timeout(crate::kit::deadlines::STORE_TRY, deleting).await {
                    Ok(Ok(_)) => {}
                    _ => tracing::warn!("what was not completed of a file stays in HDFS: {upload}"),
                }
            });
        }
    }
}
