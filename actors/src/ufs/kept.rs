//! Attributes that objects keep of files: in their metadata, or those of the file itself in a directory of this node.

use curvine_protocol::{Error, ErrorKind, KeptAttributes, Result, UfsVersion};
use opendal::Metadata;
use tokio::time::timeout;

use super::local::Local;
use super::{Ufs, attributes, version};
use crate::kit::deadlines::STORE_TRY;

impl Ufs {
    /// Whether the store keeps attributes of files with their objects.
    pub fn keeps_attributes(&self) -> bool {
        self.local.is_some() || self.keeps_metadata()
    }

    /// Whether what is written carries metadata.
    pub(super) fn keeps_metadata(&self) -> bool {
        (self.has_etags || self.hdfs.is_some()) && self.operator.info().capability().write_with_user_metadata
    }

    /// The attributes that a version of an object has. None if it is another version by now, or if nobody here may look.
    pub async fn attributes(&self, key: &str, meant: &UfsVersion) -> Result<Option<KeptAttributes>> {
        let asked = match &self.local {
            Some(local) => self.local_attributes(local, key, meant).await,
            None => self.answered(key, self.ask(key)).await.map(|found| {
                found
                    .filter(|metadata| version(metadata) == *meant)
                    .map(|metadata| said_by(&metadata))
            }),
        };
        match asked {
            // Whoever may list need not be one who may read.
            Err(error) if error.kind == ErrorKind::UfsDenied => Ok(None),
            asked => asked,
        }
    }

    /// Gives a version of an object these attributes, and leaves its content. The version that this makes; none if the object
    /// is another one by now.
    ///
    /// # Errors
    /// `Unsupported` where a store takes attributes with content alone; those of the store.
    pub async fn set_attributes(
        &self,
        key: &str,
        meant: &UfsVersion,
        kept: &KeptAttributes,
    ) -> Result<Option<UfsVersion>> {
        match (&self.local, &self.hdfs, &self.copying) {
            (Some(local), ..) => self.set_local_attributes(local, key, meant, kept).await,
            (_, Some(hdfs), _) => self.set_hdfs_attributes(hdfs, key, meant, kept).await,
            (.., Some(copying)) => self.set_s3_attributes(copying, key, meant, kept).await,
            (None, None, None) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: `{key}`: attributes are written with the content alone",
                    self.uri
                ),
            )),
        }
    }

    async fn local_attributes(
        &self,
        local: &Local,
        key: &str,
        meant: &UfsVersion,
    ) -> Result<Option<KeptAttributes>> {
        let (name, meant) = (key.to_owned(), meant.clone());
        self.on_local(local, key, move |local| local.attributes(&name, &meant))
            .await
    }

    /// Gives the file of a version these attributes, as far as this process may. The version that this makes; none if the
    /// file is another one by now.
    async fn set_local_attributes(
        &self,
        local: &Local,
        key: &str,
        meant: &UfsVersion,
        kept: &KeptAttributes,
    ) -> Result<Option<UfsVersion>> {
        let (name, meant, kept) = (key.to_owned(), meant.clone(), kept.clone());
        self.on_local(local, key, move |local| {
            local.set_attributes(&name, &meant, &kept)
        })
        .await
    }

    /// Does something with a local file, on a thread that may block. None if it is not there.
    async fn on_local<T: Send + 'static>(
        &self,
        local: &Local,
        key: &str,
        work: impl FnOnce(Local) -> std::io::Result<Option<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let local = local.clone();
        let working = tokio::task::spawn_blocking(move || work(local));
        match timeout(STORE_TRY, working).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => self.local_fault(key, error).map_or(Ok(None), Err),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
            Err(_) => Err(self.stuck(key, STORE_TRY)),
        }
    }
}

/// What an object's metadata says.
pub(super) fn said_by(metadata: &Metadata) -> KeptAttributes {
    let fields = metadata.user_metadata();
    attributes::decode(|name| fields.as_ref()?.get(name))
}
