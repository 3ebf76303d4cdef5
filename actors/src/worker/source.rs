//! What the transfers need of an under file system.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::{Result, UfsVersion};

pub use crate::ufs::ByteStream;
use crate::ufs::Ufs;

/// Opens the under file system behind a mount.
pub trait Sources: Send + Sync {
    /// # Errors
    /// `Config` and others that name what is wrong with the mount; never its secrets.
    fn open(&self, mount: &MountRecord) -> Result<Arc<dyn ObjectSource>>;
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

    /// Writes a whole object and says which version that made.
    ///
    /// # Errors
    /// Those of the stream, `Ufs`, `UfsDenied`, `Unreachable`.
    async fn write(&self, key: &str, content: ByteStream) -> Result<UfsVersion>;
}

/// The under file systems of OpenDAL.
pub struct OpenDal;

impl Sources for OpenDal {
    fn open(&self, mount: &MountRecord) -> Result<Arc<dyn ObjectSource>> {
        Ok(Arc::new(Ufs::open(mount)?))
    }
}

#[async_trait]
impl ObjectSource for Ufs {
    async fn read(&self, key: &str, range: Range<u64>, version: &UfsVersion) -> Result<ByteStream> {
        Ufs::read(self, key, range, version).await
    }

    async fn write(&self, key: &str, content: ByteStream) -> Result<UfsVersion> {
        Ufs::write(self, key, content).await
    }
}
