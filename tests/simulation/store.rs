//! An under file system with a mind of its own: an object store that answers late, fails at times, and whose objects
//! others change.
//!
//! OpenDAL is given it under the scheme `oss`, so that masters and workers open it as they open any other. There is one in
//! a run, and a run has a process of its own.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use opendal::raw::{
    OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir,
    RpPresign, RpRead, RpRename, RpStat, Service, ServiceInfo, oio,
};
use opendal::{
    Buffer, Builder, BytesRange, Capability, Configurator, Error, ErrorKind, Metadata, MetadataBuilder,
    OperationContext, OperatorRegistry, OperatorUri, Result,
};
use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// Where masters and workers find it.
pub const URI: &str = "oss://bucket";

static STORE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (u64, Bytes)>,
    version: u64,
    chance: Option<Chance>,
    fails_percent: u64,
    slowest_ms: u64,
}

fn state() -> MutexGuard<'static, State> {
    STORE.lock().expect("one thread")
}

/// Makes it known, empty.
pub fn open(chance: Chance) {
    curvine_actors::ufs::prepare();
    OperatorRegistry::get().register::<BucketBuilder>("oss");
    *state() = State {
        chance: Some(chance),
        slowest_ms: 5,
        ..State::default()
    };
}

/// How it is from now on.
pub fn set_mood(fails_percent: u64, slowest_ms: u64) {
    let mut state = state();
    (state.fails_percent, state.slowest_ms) = (fails_percent, slowest_ms);
}

/// Somebody else writes an object.
pub fn put(key: &str, content: Vec<u8>) {
    let mut state = state();
    state.version += 1;
    let version = state.version;
    state.objects.insert(key.to_owned(), (version, content.into()));
}

/// What every request meets.
async fn met() -> Result<()> {
    let (wait_ms, fails) = {
        let state = state();
        let chance = state.chance.clone().expect("it is open");
        (
            chance.below(state.slowest_ms + 1),
            chance.percent(state.fails_percent),
        )
    };
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    match fails {
        true => Err(Error::new(ErrorKind::Unexpected, "503: slow down").set_temporary()),
        false => Ok(()),
    }
}

fn object(path: &str) -> Result<(Metadata, Bytes)> {
    let state = state();
    let Some((version, content)) = state.objects.get(path.trim_start_matches('/')) else {
        return Err(Error::new(ErrorKind::NotFound, "no such object"));
    };
    Ok((metadata(*version, content), content.clone()))
}

fn metadata(version: u64, content: &Bytes) -> Metadata {
    let mut metadata = MetadataBuilder::file(content.len() as u64);
    metadata.etag(format!("v{version}"));
    metadata.build()
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct BucketConfig {}

impl Configurator for BucketConfig {
    type Builder = BucketBuilder;

    fn from_uri(_: &OperatorUri) -> Result<Self> {
        Ok(BucketConfig {})
    }

    fn into_builder(self) -> BucketBuilder {
        BucketBuilder
    }
}

#[derive(Debug, Default)]
struct BucketBuilder;

impl Builder for BucketBuilder {
    type Config = BucketConfig;

    fn build(self) -> Result<impl Service> {
        Ok(Bucket)
    }
}

#[derive(Debug)]
struct Bucket;

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "the bucket cannot do this"))
}

impl Service for Bucket {
    type Reader = oio::StreamReader<Reading>;
    type Writer = Writing;
    type Lister = oio::HierarchyLister<Listing>;
    type Deleter = oio::OneShotDeleter<Deleting>;
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        ServiceInfo::new("oss", "/", "bucket")
    }

    fn capability(&self) -> Capability {
        Capability {
            read: true,
            write: true,
            write_can_empty: true,
            delete: true,
            stat: true,
            list: true,
            list_with_recursive: true,
            ..Capability::default()
        }
    }

    async fn create_dir(&self, _: &OperationContext, _: &str, _: OpCreateDir) -> Result<RpCreateDir> {
        unsupported()
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> Result<RpStat> {
        met().await?;
        if path.trim_matches('/').is_empty() {
            return Ok(RpStat::new(MetadataBuilder::dir().build()));
        }
        Ok(RpStat::new(object(path)?.0))
    }

    fn read(&self, _: &OperationContext, path: &str, _: OpRead) -> Result<Self::Reader> {
        Ok(oio::StreamReader::new(Reading(path.to_owned())))
    }

    fn write(&self, _: &OperationContext, path: &str, _: OpWrite) -> Result<Self::Writer> {
        Ok(Writing {
            path: path.to_owned(),
            content: Vec::new(),
        })
    }

    fn delete(&self, _: &OperationContext) -> Result<Self::Deleter> {
        Ok(oio::OneShotDeleter::new(Deleting))
    }

    fn list(&self, _: &OperationContext, path: &str, args: OpList) -> Result<Self::Lister> {
        let below = path.trim_start_matches('/').to_owned();
        let lister = Listing { below, listed: None };
        Ok(oio::HierarchyLister::new(lister, path, args.recursive()))
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> Result<Self::Copier> {
        unsupported()
    }

    async fn rename(&self, _: &OperationContext, _: &str, _: &str, _: OpRename) -> Result<RpRename> {
        unsupported()
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> Result<RpPresign> {
        unsupported()
    }
}

struct Reading(String);

impl oio::StreamRead for Reading {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        met().await?;
        let (metadata, content) = object(&self.0)?;
        let range = range.to_content_range(content.len())?;
        let pieces = Buffer::from(content.slice(range));
        Ok((RpRead::new(metadata), Box::new(pieces)))
    }
}

struct Writing {
    path: String,
    content: Vec<u8>,
}

impl oio::Write for Writing {
    async fn write(&mut self, piece: Buffer) -> Result<()> {
        met().await?;
        self.content.extend_from_slice(&piece.to_vec());
        Ok(())
    }

    async fn close(&mut self) -> Result<Metadata> {
        met().await?;
        let content = std::mem::take(&mut self.content);
        put(self.path.trim_start_matches('/'), content);
        Ok(object(&self.path)?.0)
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

struct Listing {
    below: String,
    listed: Option<std::vec::IntoIter<(String, Metadata)>>,
}

impl oio::List for Listing {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        if self.listed.is_none() {
            met().await?;
            let state = state();
            let found = (state.objects.iter())
                .filter(|(key, _)| key.starts_with(&self.below))
                .map(|(key, (version, content))| (key.clone(), metadata(*version, content)));
            self.listed = Some(found.collect::<Vec<_>>().into_iter());
        }
        let next = self.listed.as_mut().and_then(Iterator::next);
        Ok(next.map(|(key, metadata)| oio::Entry::new(&key, metadata)))
    }
}

struct Deleting;

impl oio::OneShotDelete for Deleting {
    async fn delete_once(&self, path: String, _: OpDelete) -> Result<()> {
        met().await?;
        state().objects.remove(path.trim_start_matches('/'));
        Ok(())
    }
}
