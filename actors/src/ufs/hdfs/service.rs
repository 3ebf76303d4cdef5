//! HDFS as OpenDAL has its services.

use std::sync::Arc;

use opendal::raw::{
    OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir,
    RpPresign, RpRename, RpStat, Service, ServiceInfo, oio,
};
use opendal::{Capability, Error, ErrorKind, MetadataBuilder, OperationContext, Result};

use hdfs_native::client::ListStatusIterator;

use super::super::attributes;
use super::connected::Connected;
use super::reading::Reader;
use super::writing::{DIRECTORY_MODE, Replaces, Stage, Writer};
use super::{Hdfs, etag};

/// The name by which it is known here.
pub const SCHEME: &str = "hdfs";

/// What OpenDAL wants to make an operator of. The options were read before.
#[derive(Default)]
pub struct Builder(pub Option<Hdfs>);

impl opendal::Builder for Builder {
    type Config = ();

    fn build(self) -> Result<impl Service> {
        self.0
            .ok_or_else(|| Error::new(ErrorKind::ConfigInvalid, "there is no HDFS without options"))
    }
}

impl Service for Hdfs {
    type Reader = oio::StreamReader<Reader>;
    type Writer = Writer;
    type Lister = Lister;
    type Deleter = oio::OneShotDeleter<Hdfs>;
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        ServiceInfo::new(SCHEME, self.path(""), &self.place.name_node)
    }

    fn capability(&self) -> Capability {
        Capability {
            stat: true,
            read: true,
            read_with_if_match: true,
            write: true,
            write_can_empty: true,
            write_can_multi: true,
            write_with_if_match: true,
            write_with_if_not_exists: true,
            write_with_user_metadata: true,
            create_dir: true,
            delete: true,
            delete_with_if_match: true,
            list: true,
            shared: true,
            ..Capability::default()
        }
    }

    async fn create_dir(&self, _: &OperationContext, path: &str, _: OpCreateDir) -> Result<RpCreateDir> {
        let path = &self.path(path);
        self.ask(|client| async move { client.mkdirs(path, DIRECTORY_MODE, true).await })
            .await?;
        Ok(RpCreateDir::default())
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> Result<RpStat> {
        match self.status(&self.path(path)).await? {
            None => Err(Error::new(ErrorKind::NotFound, path)),
            Some(status) if path.ends_with('/') && !status.isdir => {
                Err(Error::new(ErrorKind::NotFound, path))
            }
            Some(status) => Ok(RpStat::new(self.metadata(&status).await?)),
        }
    }

    fn read(&self, _: &OperationContext, path: &str, args: OpRead) -> Result<Self::Reader> {
        Ok(oio::StreamReader::new(Reader {
            hdfs: self.clone(),
            path: self.path(path),
            if_match: args.if_match().map(unquoted),
        }))
    }

    fn write(&self, _: &OperationContext, path: &str, args: OpWrite) -> Result<Self::Writer> {
        let fields = args.user_metadata();
        Ok(Writer {
            hdfs: self.clone(),
            key: path.to_owned(),
            replaces: match (args.if_match(), args.if_not_exists()) {
                (Some(meant), _) => Replaces::Version(unquoted(meant)),
                (None, true) => Replaces::Nothing,
                (None, false) => Replaces::Anything,
            },
            kept: attributes::decode(|name| fields.as_ref()?.get(name)),
            sent_bytes: 0,
            stage: Stage::Unopened,
        })
    }

    fn delete(&self, _: &OperationContext) -> Result<Self::Deleter> {
        Ok(oio::OneShotDeleter::new(self.clone()))
    }

    fn list(&self, _: &OperationContext, path: &str, _: OpList) -> Result<Self::Lister> {
        self.names.forget_unknown();
        Ok(Lister {
            hdfs: self.clone(),
            directory: path.to_owned(),
            entries: None,
        })
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> Result<Self::Copier> {
        Err(unsupported())
    }

    async fn rename(&self, _: &OperationContext, _: &str, _: &str, _: OpRename) -> Result<RpRename> {
        Err(unsupported())
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> Result<RpPresign> {
        Err(unsupported())
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "HDFS is not asked for this")
}

/// An ETag, without the quotation marks that conditions of requests have.
fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

impl oio::OneShotDelete for Hdfs {
    async fn delete_once(&self, key: String, args: OpDelete) -> Result<()> {
        // What is mounted stays.
        if key.trim_matches('/').is_empty() {
            return Ok(());
        }
        let path = &self.path(&key);
        let Some(there) = self.status(path).await? else {
            return Ok(());
        };
        if there.isdir != key.ends_with('/') {
            let kind = match there.isdir {
                true => ErrorKind::IsADirectory,
                false => ErrorKind::NotADirectory,
            };
            return Err(Error::new(kind, key));
        }
        if args
            .if_match()
            .is_some_and(|meant| unquoted(meant) != etag(&there))
        {
            return Err(Error::new(
                ErrorKind::ConditionNotMatch,
                "another version is there",
            ));
        }
        self.ask(|client| async move { client.delete(path, false).await })
            .await?;
        Ok(())
    }
}

/// One directory: itself first, then what is in it.
pub struct Lister {
    hdfs: Hdfs,
    /// As OpenDAL has it, with a slash behind it.
    directory: String,
    /// None before it was looked at.
    entries: Option<Entries>,
}

enum Entries {
    Some {
        entries: ListStatusIterator,
        _client: Arc<Connected>,
    },
    /// There are no more, or there is no such directory.
    None,
}

impl oio::List for Lister {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        let hdfs = &self.hdfs;
        match &mut self.entries {
            None => {
                let path = &hdfs.path(&self.directory);
                let is_there = hdfs.status(path).await?.is_some_and(|status| status.isdir);
                if !is_there {
                    self.entries = Some(Entries::None);
                    return Ok(None);
                }
                let entries = hdfs.ask(|client| async move {
                    let entries = client.list_status_iter(path, false);
                    Ok(Entries::Some {
                        entries,
                        _client: client,
                    })
                });
                self.entries = Some(entries.await?);
                let itself = MetadataBuilder::dir().build();
                Ok(Some(oio::Entry::new(&self.directory, itself)))
            }
            Some(Entries::None) => Ok(None),
            Some(Entries::Some { entries, .. }) => {
                let next = hdfs.ask(|_| async { entries.next().await.transpose() }).await?;
                let Some(status) = next else {
                    self.entries = Some(Entries::None);
                    return Ok(None);
                };
                let name = status.path.rsplit('/').next().unwrap_or_default();
                let above = match self.directory.as_str() {
                    "/" => "",
                    above => above,
                };
                let behind = if status.isdir { "/" } else { "" };
                let path = format!("{above}{name}{behind}");
                Ok(Some(oio::Entry::with(path, hdfs.metadata(&status).await?)))
            }
        }
    }
}
