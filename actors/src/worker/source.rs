//! What the transfers need of an under file system.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::{Result, UfsVersion};
use futures::future::BoxFuture;

pub use crate::ufs::ByteStream;
use crate::ufs::Ufs;
use crate::ufs::changes::{Replacement, Written};
use crate::ufs::upload_notes::{Upload, UploadNotes};

/// Opens the under file system behind a mount.
pub trait Sources: Send + Sync {
    /// Uploads in parts that it begins are noted in `notes` until they have ended.
    ///
    /// # Errors
    /// `Config` and others that name what is wrong with the mount; never its secrets.
    fn open(&self, mount: &MountRecord, notes: &UploadNotes) -> Result<Arc<dyn ObjectSource>>;
}

/// The objects of one mount, by key relative to its root.
#[async_trait]
pub trait ObjectSource: Send + Sync {
    /// The bytes of a range, as they arrive. Bounded by the source's own timeouts.
    ///
    /// # Errors
    /// `UfsChanged` if the object is not this version, at once or at the end of the stream; `Ufs`, `UfsDenied`,
    /// `Unreachable`.
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream>;

    /// Writes a whole object in the place of a known version; before it is visible, `may_finish` has agreed.
    ///
    /// # Errors
    /// Those of the stream and of `may_finish`, `Ufs`, `UfsDenied`.
    async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        how: Replacement<'_>,
        may_finish: BoxFuture<'_, Result<()>>,
    ) -> Result<Written>;

    /// Aborts an upload in parts that nobody makes any more, and no other. Whether the store still had it.
    ///
    /// # Errors
    /// `NotFound` if the bucket is another one, or gone; `Ufs`, `UfsDenied`.
    async fn abort_upload(&self, upload: &Upload) -> Result<bool>;
}

/// The under file systems of OpenDAL.
pub struct OpenDal;

impl Sources for OpenDal {
    fn open(&self, mount: &MountRecord, notes: &UploadNotes) -> Result<Arc<dyn ObjectSource>> {
        Ok(Arc::new(Ufs::open(mount)?.noting(notes.clone(), mount.id)))
    }
}

#[async_trait]
impl ObjectSource for Ufs {
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream> {
        Ufs::read(self, key, range, version).await
    }

    async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        how: Replacement<'_>,
        may_finish: BoxFuture<'_, Result<()>>,
    ) -> Result<Written> {
        Ufs::replace(self, key, content, how, may_finish).await
    }

    async fn abort_upload(&self, upload: &Upload) -> Result<bool> {
        Ufs::abort_upload(self, upload).await
    }
}
