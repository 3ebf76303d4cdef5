//! Reading one version of a file.
//!
//! The client asks once where the blocks of a file are, and then reads these, whatever gets the file's name meanwhile. Which
//! version they are of is not said. So the file is looked at before that and, by whoever reads, after it; and again in the
//! end, because a file that is cut off and appended to has other bytes in the same block.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hdfs_native::HdfsError;
use opendal::raw::{RpRead, oio};
use opendal::{Buffer, BytesRange, Error, ErrorKind, Result};

use super::connected::Connected;
use super::{Hdfs, etag};

/// A file that is to be read.
pub struct Reader {
    pub hdfs: Hdfs,
    pub path: String,
    /// The version that is meant, if one is.
    pub if_match: Option<String>,
}

/// Its bytes, as they come.
struct Pieces {
    hdfs: Hdfs,
    path: String,
    opened: String,
    _client: Arc<Connected>,
    /// Never contended: who reads has it alone. OpenDAL wants to share what it reads from.
    pieces: Mutex<BoxStream<'static, std::result::Result<Bytes, HdfsError>>>,
}

impl oio::StreamRead for Reader {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let path = self.path.as_str();
        let Some(status) = self.hdfs.status(path).await? else {
            return Err(Error::new(ErrorKind::NotFound, path));
        };
        if status.isdir {
            return Err(Error::new(ErrorKind::IsADirectory, path));
        }
        let opened = etag(&status);
        if self.if_match.as_ref().is_some_and(|meant| *meant != opened) {
            return Err(changed());
        }
        let opening = self.hdfs.ask(|client| async move {
            let file = client.read(path).await?;
            Ok((client, file))
        });
        let (client, file) = opening.await?;
        if file.file_length() != status.length {
            return Err(changed());
        }
        let is_outside = || Error::new(ErrorKind::RangeNotSatisfied, "the range is not in the file");
        let offset = usize::try_from(range.offset()).map_err(|_| is_outside())?;
        let left = file.file_length().checked_sub(offset).ok_or_else(is_outside)?;
        let wanted = range
            .size()
            .map_or(Ok(left), |size| usize::try_from(size).map_err(|_| is_outside()))?;
        if wanted > left {
            return Err(is_outside());
        }
        let pieces = Pieces {
            hdfs: self.hdfs.clone(),
            path: self.path.clone(),
            opened,
            _client: client,
            pieces: Mutex::new(file.read_range_stream(offset, wanted).boxed()),
        };
        Ok((RpRead::default(), Box::new(pieces)))
    }
}

impl oio::ReadStream for Pieces {
    async fn read(&mut self) -> Result<Buffer> {
        let pieces = self.pieces.get_mut().expect("nobody panics while it holds this");
        match pieces.next().await {
            None => Ok(Buffer::new()),
            Some(Ok(piece)) => Ok(piece.into()),
            // The blocks of a file that was replaced are deleted: then it is not HDFS that has failed.
            Some(Err(error)) => match self.hdfs.status(&self.path).await? {
                Some(now) if etag(&now) == self.opened => Err(self.hdfs.place.told(error)),
                _ => Err(changed()),
            },
        }
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::ConditionNotMatch, "another version is there")
}
