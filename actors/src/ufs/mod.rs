//! Under file systems through OpenDAL, behind one type.
//!
//! - [`uri`]: what a mount's URI and options mean to OpenDAL; bad ones are refused here.
//! - [`attributes`]: mode, owner, times and extended attributes in the metadata of objects.
//!   `kept`, `s3_attributes`: reading and writing them.
//! - [`changes`]: writing, copying and deleting, each bound to a version.
//!   `uploads`: those in parts that fail; [`upload_notes`]: what is known of them after a crash.
//! - [`names`]: which keys are shown, and which are hidden.
//! - [`listing`]: directories, and whether there are any; [`watched`]: stores that repeat themselves; [`pages`]: who answers
//!   in a store's place.
//! - [`local`]: directories of this node, without following links; `local_changes`, `local_links`: their changes;
//!   [`curvine_mounts`]: what is never such a directory.
//! - [`hdfs`]: HDFS by its own protocol, where OpenDAL's service is not exact enough.
//! - [`fault`]: OpenDAL's errors as ours, with causes and without secrets; `answer`: what the store said, in words.
//!
//! Invariants: keys are relative to the mount's root, have no leading slash and name nothing above it; a read is of one
//! version of the object or fails; every call is bounded by timeouts and a number of retries; a store that is silent is
//! said to be, within [`STORE_ANSWER`], to whoever waits; a version is the same whether a listing, a question or a read
//! said it.

mod answer;
pub mod attributes;
pub mod changes;
pub mod curvine_mounts;
pub mod fault;
mod hdfs;
mod kept;
pub mod listing;
pub mod local;
mod local_changes;
mod local_links;
pub mod names;
mod pages;
mod s3_attributes;
#[cfg(test)]
pub mod scripted;
mod silence;
pub mod upload_notes;
mod uploads;
pub mod uri;
mod watched;

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::UfsObject;
use curvine_protocol::{Error, ErrorKind, FileKind, Result, UfsVersion};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use opendal::layers::{ConcurrentLimitLayer, RetryEvent, RetryLayer, TimeoutLayer};
use opendal::options::{DeleteOptions, ReaderOptions, WriteOptions};
use opendal::{HttpTransport, HttpTransporter, Metadata, MetadataBuilder, Operator};
use tokio::time::timeout;

use self::fault::Fault;
use self::hdfs::Hdfs;
use self::local::{Found, Local, Refusal};
use self::names::Spelling;
use self::pages::NoPages;
use self::s3_attributes::Copying;
use self::silence::Silence;
use self::uploads::Noted;
use crate::kit::deadlines::{STORE_ANSWER, STORE_TRY};

/// A piece of a transfer.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES: usize = 3;
/// Requests in flight to one mount from one node.
const REQUESTS_MAX: usize = 256;
/// Read from a local file at once.
const LOCAL_PIECE_BYTES: usize = 1 << 20;

pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// Makes the services known to OpenDAL and gives it HTTP and TLS, once for the process.
///
/// Not by a constructor that runs before `main`: that would keep all of it in every binary, also in those that have no
/// under file systems.
pub fn prepare() {
    static PREPARED: std::sync::Once = std::sync::Once::new();
    PREPARED.call_once(|| {
        // Fails only if the process has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        opendal_http_transport_reqwest::install_default();
        opendal::init_default_registry();
    });
}

/// The under file system of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Ufs {
    operator: Operator,
    /// The same without repetitions.
    once: Operator,
    /// The same with neither repetitions nor limits of time.
    bare: Operator,
    /// When the store last left a question without an answer.
    silence: Arc<Silence>,
    /// For messages: the URI, which has no secrets.
    uri: String,
    /// Whether a read can be made conditional on an ETag. Some servers ignore that silently.
    if_match: bool,
    /// Whether writes and deletes can be made conditional, as it was seen when the store was mounted.
    conditions: bool,
    /// Whether objects have ETags, also where a listing leaves them out.
    has_etags: bool,
    /// For a directory of this node: what OpenDAL does is not exact enough there.
    local: Option<Local>,
    /// For HDFS: what OpenDAL does not ask for.
    hdfs: Option<Hdfs>,
    /// How metadata of an object is replaced, in S3.
    copying: Option<Copying>,
    /// Where uploads are noted. None where nobody would look.
    noted: Option<Noted>,
    /// Requests that had to be repeated.
    retries: Arc<AtomicU64>,
}

impl Ufs {
    /// Opens what a mount describes. Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the bad scheme or option and the nearest good one.
    pub fn open(mount: &MountRecord) -> Result<Ufs> {
        Ok(Ufs {
            conditions: mount.settings.conditions,
            ..Self::open_parts(&mount.uri, &mount.options)?
        })
    }

    pub fn open_parts(uri: &str, options: &std::collections::BTreeMap<String, String>) -> Result<Ufs> {
        prepare();
        let target = uri::parse(uri, options)?;
        let root = target.options.iter().find(|(name, _)| name == "root");
        let local = root
            .filter(|_| target.scheme == "fs")
            .map(|(_, root)| Local::new(root.into()));
        let bucket = target.options.iter().find(|(name, _)| name == "bucket");
        let copying = bucket
            .filter(|_| target.scheme == "s3" && !options.contains_key("role_arn"))
            .map(|(_, bucket)| Copying::new(bucket, options));
        let retries = Arc::new(AtomicU64::new(0));
        let hdfs = (target.scheme == "hdfs").then(|| Hdfs::new(&target.options));
        let bare = match &hdfs {
            Some(hdfs) => hdfs.operator(),
            None => Operator::via_iter(target.scheme, target.options),
        };
        let bare = bare.map_err(|error| Fault { uri, key: "" }.of(&error))?;
        let has_etags = ["s3", "oss", "cos", "obs", "gcs", "azblob"].contains(&target.scheme);
        let bare = match has_etags {
            true => through(&bare, NoPages),
            false => bare,
        };
        let once = limited(&bare, IO_TIMEOUT);
        let limit = || ConcurrentLimitLayer::new(REQUESTS_MAX);
        Ok(Ufs {
            operator: repeated(&once, &retries).layer(limit()),
            once: once.layer(limit()),
            bare,
            silence: Arc::default(),
            uri: uri.to_owned(),
            if_match: ["s3", "hdfs"].contains(&target.scheme),
            conditions: false,
            has_etags,
            local,
            hdfs,
            copying,
            noted: None,
            retries,
        })
    }

    fn fault(&self, key: &str, error: opendal::Error) -> Error {
        Fault { uri: &self.uri, key }.of(&error)
    }

    /// What a store answers, or that it is silent.
    async fn answered<T>(&self, key: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.answered_within(self.silence.patience(), key, answer).await
    }

    async fn answered_within<T>(
        &self,
        limit: Duration,
        key: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match timeout(limit, answer).await {
            Ok(answer) => {
                self.silence.ends();
                answer
            }
            Err(_) => {
                let so_long = self.silence.goes_on(limit);
                Err(Fault { uri: &self.uri, key }.silent(so_long.as_secs()))
            }
        }
    }

    /// The version of an object; none if there is no such object.
    pub async fn stat(&self, key: &str) -> Result<Option<UfsVersion>> {
        match self.answered(key, self.ask(key)).await {
            Ok(Some(metadata)) if metadata.is_file() => Ok(Some(version(&metadata))),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, key: &str) -> Result<Option<Metadata>> {
        self.ask_through(&self.operator, key).await
    }

    async fn ask_through(&self, operator: &Operator, key: &str) -> Result<Option<Metadata>> {
        if let Some(local) = &self.local {
            return Ok(self.look(local, key).await?.map(|found| metadata_of(&found)));
        }
        let Some(path) = object_path(key) else {
            return Ok(None);
        };
        match operator.stat(&path).await {
            // No store answers so of an object that it has.
            Ok(metadata)
                if self.has_etags
                    && metadata.is_file()
                    && metadata.etag().is_none()
                    && metadata.last_modified().is_none() =>
            {
                Err(self.not_the_store(key))
            }
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.fault(key, error)),
        }
    }

    /// Something has answered that all is well, and not as a store does.
    fn not_the_store(&self, key: &str) -> Error {
        Error::new(
            ErrorKind::Ufs,
            format!(
                "{}: `{key}`: something answered in the store's place, and nothing was read or written; check the endpoint, and \
                 proxies before it",
                self.uri
            ),
        )
    }

    /// What a local name is; none for nothing, and for what is not shown.
    async fn look(&self, local: &Local, key: &str) -> Result<Option<Found>> {
        let (local, name) = (local.clone(), key.to_owned());
        let looking = tokio::task::spawn_blocking(move || local.find(&name));
        match timeout(STORE_TRY, looking).await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(error))) => self.local_fault(key, error).map_or(Ok(None), Err),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
            Err(_) => Err(self.stuck(key, STORE_TRY)),
        }
    }

    fn stuck(&self, key: &str, limit: Duration) -> Error {
        Error::new(
            ErrorKind::Ufs,
            format!(
                "{}: `{key}`: no answer within {} s; is the file system behind it stuck?",
                self.uri,
                limit.as_secs()
            ),
        )
    }

    /// An error of a local directory; none if it says that there is nothing.
    fn local_fault(&self, key: &str, error: std::io::Error) -> Option<Error> {
        (!local::is_absent(&error)).then(|| self.local_refusal(key, error))
    }

    /// Why something was not done in a local directory.
    fn local_refusal(&self, key: &str, error: std::io::Error) -> Error {
        let (kind, why) = match local::refusal(&error) {
            Some(Refusal::RootGone) => (
                ErrorKind::Ufs,
                "the directory of the mount is not there, or is another one than it was; bring it back (is its disk \
                 mounted?), or `cv umount` and `cv mount` again",
            ),
            Some(Refusal::NotShown) => (
                ErrorKind::NotPermitted,
                "a FIFO, a socket, a device or a link that is not UTF-8 is there, which is not shown and stays; choose \
                 another name",
            ),
            Some(Refusal::OfCurvine) => {
                let mount = self.local.as_ref().and_then(Local::curvine);
                let mount = mount.unwrap_or(std::path::Path::new("/")).display();
                let why = format!(
                    "is in the mount of Curvine on {mount}, and a cluster that reads what it shows itself would wait for \
                     itself; mount the directory or store that it shows instead"
                );
                return Error::invalid(format!("{}: {why}", self.uri));
            }
            None if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                (ErrorKind::DirectoryNotEmpty, "there is something in it")
            }
            None if local::is_absent(&error) => (
                ErrorKind::NotADirectory,
                "what it is in is gone, or is a link or a file by now; nothing was changed",
            ),
            None => return self.fault(key, opendal::raw::new_std_io_error(error)),
        };
        Error::new(kind, format!("{}: `{key}`: {why}", self.uri))
    }

    /// What is at a key, or at one above it, and is not shown: whatever got its name would replace it.
    ///
    /// # Errors
    /// Those of a local directory that cannot be looked at.
    pub async fn hidden_at(&self, key: &str) -> Result<Option<String>> {
        let Some(local) = &self.local else { return Ok(None) };
        let name = key.to_owned();
        let look = move |local: Local| local.hidden_at(&name);
        self.change_local(local, key, STORE_TRY, look).await
    }

    /// How exactly names are said.
    pub fn spelling(&self) -> Spelling {
        match self.has_etags {
            true => Spelling::Xml,
            false => Spelling::Exact,
        }
    }

    /// What a name is: an object, or a directory if it has something below it or a marker. An object wins.
    pub async fn find(&self, key: &str) -> Result<Option<UfsObject>> {
        self.answered(key, self.find_now(key)).await
    }

    async fn find_now(&self, key: &str) -> Result<Option<UfsObject>> {
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        if let Some(local) = &self.local {
            let found = self.look(local, key).await?;
            let shown = |found: &Found| match found {
                found if found.is_hidden() => false,
                Found::Directory => names::fate(&name, true, Spelling::Exact).is_ok(),
                _ => names::fate(&name, false, Spelling::Exact).is_ok(),
            };
            return Ok(found
                .filter(shown)
                .map(|found| listing::local_found(name.clone(), found)));
        }
        if names::fate(&name, true, self.spelling()).is_err() && !key.is_empty() {
            return Ok(None);
        }
        let found = |kind, version, attributes| {
            let target = None;
            Ok(Some(UfsObject {
                name,
                kind,
                version,
                target,
                attributes,
            }))
        };
        let metadata = match self.ask_through(&self.once, key).await {
            // Some servers stumble, each time, over the name of what is only a prefix to them: asking again and again
            // would take a second for every look at a directory.
            Err(error) if error.kind == ErrorKind::Ufs => {
                if self.has_below(key).await? {
                    return found(FileKind::Directory, None, None);
                }
                self.ask(key).await?
            }
            asked => asked?,
        };
        match metadata {
            Some(metadata) if metadata.is_file() => {
                let attributes = self.keeps_metadata().then(|| kept::said_by(&metadata));
                found(FileKind::File, Some(version(&metadata)), attributes)
            }
            Some(metadata) if metadata.is_dir() => found(FileKind::Directory, None, None),
            // Neither: a socket, a device.
            Some(_) => Ok(None),
            None if self.has_below(key).await? => found(FileKind::Directory, None, None),
            None => Ok(None),
        }
    }

    /// The bytes of a range of one version of an object, as they arrive.
    ///
    /// # Errors
    /// `UfsChanged` if the object is not this version: before the first byte, or at the end of the stream where it
    /// could have changed on the way.
    pub async fn read(&self, key: &str, range: Range<u64>, expected: &UfsVersion) -> Result<ByteStream> {
        if let Some(local) = &self.local {
            return self.read_local(local.clone(), key, range, expected).await;
        }
        let wanted = range.end - range.start;
        let etag = expected.etag.as_ref().filter(|_| self.if_match);
        let options = ReaderOptions {
            if_match: etag.map(quoted),
            ..ReaderOptions::default()
        };
        let retries_before = self.retries.load(Ordering::Acquire);
        let path = object_path(key).ok_or_else(|| self.changed(key))?;
        let opened = async {
            self.operator
                .reader_options(&path, options)
                .await?
                .into_bytes_stream(range)
                .await
        };
        let mut stream = opened.await.map_err(|error| self.fault(key, error))?;
        // This sends the request. What answers it says which version its bytes are of.
        let told = async {
            match stream.metadata().await {
                Ok(metadata) if metadata.etag().is_some() => Ok(Some(version(&metadata))),
                Ok(_) => Ok(None),
                Err(error) if error.kind() == opendal::ErrorKind::Unsupported => Ok(None),
                Err(error) if is_absent(&error) => Err(self.changed(key)),
                Err(error) => Err(self.fault(key, error)),
            }
        };
        let told = self.answered(key, told).await?;
        let is_told = told.is_some();
        let now = match told {
            Some(told) => Some(told),
            None => self.stat(key).await?,
        };
        if now.as_ref() != Some(expected) {
            return Err(self.changed(key));
        }
        let (this, key) = (self.clone(), key.to_owned());
        let pieces = stream.map_err({
            let (this, key) = (this.clone(), key.clone());
            move |error: std::io::Error| match error.downcast::<opendal::Error>() {
                Ok(error) => this.fault(&key, error),
                Err(error) => Error::new(ErrorKind::Ufs, format!("{}: reading `{key}`: {error}", this.uri)),
            }
        });
        let silent = Fault {
            uri: &self.uri,
            key: &key,
        }
        .silent(STORE_ANSWER.as_secs());
        let pieces = never_silent(pieces, silent);
        let (changed, expected) = (self.changed(&key), expected.clone());
        let checked = checked_at_the_end(pieces, wanted, changed, move || {
            let (this, key, expected) = (this.clone(), key.clone(), expected.clone());
            async move {
                // One answer from beginning to end is of one version. A request repeated half-way may not be.
                if is_told && this.retries.load(Ordering::Acquire) == retries_before {
                    return Ok(true);
                }
                Ok(this.stat(&key).await?.as_ref() == Some(&expected))
            }
        });
        Ok(checked)
    }

    async fn read_local(
        &self,
        local: Local,
        key: &str,
        range: Range<u64>,
        expected: &UfsVersion,
    ) -> Result<ByteStream> {
        let name = key.to_owned();
        let opening = tokio::task::spawn_blocking(move || local.open(&name));
        let opened = timeout(STORE_TRY, opening)
            .await
            .map_err(|_| self.stuck(key, STORE_TRY))?;
        let file = match opened {
            Ok(Ok(Some((file, version)))) if version == *expected => Arc::new(file),
            Ok(Ok(_)) => return Err(self.changed(key)),
            Ok(Err(error)) => return Err(self.local_fault(key, error).unwrap_or_else(|| self.changed(key))),
            Err(_) => return Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
        };
        let fault = {
            let (this, key) = (self.clone(), key.to_owned());
            move |error| {
                this.local_fault(&key, error)
                    .unwrap_or_else(|| this.changed(&key))
            }
        };
        let stuck = self.stuck(key, IO_TIMEOUT);
        let reading = {
            let (file, fault) = (file.clone(), fault.clone());
            futures::stream::try_unfold(range.start, move |at| {
                let (file, fault, stuck) = (file.clone(), fault.clone(), stuck.clone());
                async move {
                    if at >= range.end {
                        return Ok(None);
                    }
                    let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX);
                    let piece = tokio::task::spawn_blocking(move || {
                        let mut piece = vec![0; wanted.min(LOCAL_PIECE_BYTES)];
                        let read = file.read_at(&mut piece, at)?;
                        piece.truncate(read);
                        Ok(piece)
                    });
                    match timeout(IO_TIMEOUT, piece).await {
                        Ok(Ok(Ok(piece))) if piece.is_empty() => Ok(None),
                        Ok(Ok(Ok(piece))) => {
                            let next = at + piece.len() as u64;
                            Ok(Some((Bytes::from(piece), next)))
                        }
                        Ok(Ok(Err(error))) => Err(fault(error)),
                        Ok(Err(_)) => Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
                        Err(_) => Err(stuck),
                    }
                }
            })
        };
        let expected = expected.clone();
        let wanted = range.end - range.start;
        Ok(checked_at_the_end(
            reading,
            wanted,
            self.changed(key),
            move || {
                let (file, fault, expected) = (file.clone(), fault.clone(), expected.clone());
                async move {
                    let now = tokio::task::spawn_blocking(move || local::version_of(&file)).await;
                    let now = now.map_err(|_| Error::new(ErrorKind::Stopping, "the node is stopping"))?;
                    Ok(now.map_err(fault)? == expected)
                }
            },
        ))
    }

    /// The path of an object that is to be made.
    fn storable(&self, key: &str) -> Result<String> {
        object_path(key).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: `{key}`: an object's name cannot end with white space",
                    self.uri
                ),
            )
        })
    }

    fn changed(&self, key: &str) -> Error {
        Error::new(
            ErrorKind::UfsChanged,
            format!(
                "{}: `{key}` changed or vanished while it was being read; open it again",
                self.uri
            ),
        )
    }

    /// Removes a directory's marker, where there is one.
    pub async fn delete_dir(&self, key: &str) -> Result<()> {
        if let Some(local) = &self.local {
            return self.delete_local_dir(local, key).await;
        }
        let deleted = async {
            let deleted = self.delete_at(directory_path(key), DeleteOptions::default());
            deleted.await.map_err(|error| self.fault(key, error))
        };
        self.answered(key, deleted).await
    }

    /// Deletes what [`object_path`] or [`directory_path`] names. `Operator::delete` cuts white space off twice: before and after
    /// it has taken the leading slash away that keeps it.
    async fn delete_at(&self, path: String, options: DeleteOptions) -> opendal::Result<()> {
        let mut deleter = self.operator.deleter().await?;
        deleter.delete((path, options)).await?;
        deleter.close().await
    }

    pub async fn make_dir(&self, key: &str) -> Result<()> {
        if let Some(local) = &self.local {
            return self.make_local_dir(local, key).await;
        }
        let made = async {
            let made = self.operator.create_dir(&directory_path(key)).await;
            made.map_err(|error| self.fault(key, error))
        };
        self.answered(key, made).await
    }

    /// With `writable`, an object can be written and deleted. Whether the store then honours conditions of requests.
    pub async fn check(&self, writable: bool) -> Result<bool> {
        if !writable {
            return Ok(false);
        }
        const CANNOT: &str = "the mount is asked to be writable, but a test object cannot be written";
        if let Some(local) = &self.local {
            let tried = self.answered("", self.try_local(local)).await;
            return tried.map(|()| false).map_err(|error| error.while_doing(CANNOT));
        }
        let probe = &probe_name("write");
        // As files are written: a store that refuses their metadata says so now.
        let options = WriteOptions {
            user_metadata: self.keeps_metadata().then(|| self.metadata_with(probe, None)),
            ..WriteOptions::default()
        };
        let write = async {
            let written = self.operator.write_options(probe, "curvine", options).await;
            written.map_err(|error| self.fault(probe, error))
        };
        let written = self.answered(probe, write).await;
        let written = written.map_err(|error| error.while_doing(CANNOT))?;
        let honours = self
            .answered(probe, self.honours_conditions(probe, &written))
            .await;
        let delete = async {
            let deleted = self.operator.delete(probe).await;
            deleted.map_err(|error| self.fault(probe, error))
        };
        self.answered(probe, delete).await?;
        honours
    }
}

/// The same, whose requests end after some time. `io` is for those that move bytes, and for all but looking and naming.
fn limited(operator: &Operator, io: Duration) -> Operator {
    let limits = TimeoutLayer::new().with_timeout(STORE_TRY).with_io_timeout(io);
    operator.clone().layer(limits)
}

/// The same, which tries again after what may pass; each further try is counted.
fn repeated(operator: &Operator, retries: &Arc<AtomicU64>) -> Operator {
    let counter = retries.clone();
    let tries = RetryLayer::new()
        .with_max_times(RETRIES)
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .with_notify(move |_: RetryEvent<'_>| {
            counter.fetch_add(1, Ordering::AcqRel);
        });
    operator.clone().layer(tries)
}

/// The same, whose requests go by way of another transport in front of its own.
fn through<T: HttpTransport>(operator: &Operator, transport: impl FnOnce(HttpTransporter) -> T) -> Operator {
    let context = operator.base_context();
    let transport = transport(context.http_transport().clone());
    let context = context.with_http_transport(HttpTransporter::new(transport));
    operator.clone().with_context(context)
}

/// An ETag as conditions of requests have it.
fn quoted(etag: impl std::fmt::Display) -> String {
    format!("\"{etag}\"")
}

/// The name of an object that is made to see what a store does, and deleted. Nobody else's object has it.
fn probe_name(what: &str) -> String {
    format!(".curvine-{what}-probe-{:016x}", RandomState::new().hash_one(what))
}

/// Passes the pieces on; ends with this error when nothing comes for too long.
fn never_silent<S>(pieces: S, silent: Error) -> ByteStream
where
    S: futures::Stream<Item = Result<Bytes>> + Send + 'static,
{
    futures::stream::unfold(Some((Box::pin(pieces), silent)), |state| async move {
        let (mut pieces, silent) = state?;
        match timeout(STORE_ANSWER, pieces.next()).await {
            Ok(Some(piece)) => Some((piece, Some((pieces, silent)))),
            Ok(None) => None,
            Err(_) => Some((Err(silent), None)),
        }
    })
    .boxed()
}

/// Passes the pieces on; at the end, fails if fewer came than were wanted or the object is another one by now.
fn checked_at_the_end<S, C, F>(pieces: S, wanted: u64, changed: Error, check: C) -> ByteStream
where
    S: futures::Stream<Item = Result<Bytes>> + Send + 'static,
    C: Fn() -> F + Send + 'static,
    F: Future<Output = Result<bool>> + Send + 'static,
{
    let state = (Box::pin(pieces), wanted, Some((changed, check)));
    futures::stream::unfold(state, |(mut pieces, left, end)| async move {
        let (changed, check) = end?;
        match pieces.next().await {
            Some(Ok(piece)) if piece.len() as u64 <= left => {
                let left = left - piece.len() as u64;
                // The last piece is held back until the object is known to be the same.
                if left == 0 {
                    let verdict = match check().await {
                        Ok(true) => Ok(piece),
                        Ok(false) => Err(changed),
                        Err(error) => Err(error),
                    };
                    return Some((verdict, (pieces, 0, None)));
                }
                Some((Ok(piece), (pieces, left, Some((changed, check)))))
            }
            Some(Ok(_)) => Some((Err(changed), (pieces, 0, None))),
            Some(Err(error)) => Some((Err(error), (pieces, 0, None))),
            None if left == 0 => None,
            None => Some((Err(changed), (pieces, 0, None))),
        }
    })
    .boxed()
}

/// How OpenDAL is told of an object. It cuts white space off both ends of a path: a leading slash keeps it there in
/// front; none for a name that ends with it, which would mean another object.
fn object_path(key: &str) -> Option<String> {
    (!key.ends_with(char::is_whitespace)).then(|| format!("/{key}"))
}

/// The key of a name in a directory.
pub fn joined(key: &str, name: &str) -> String {
    match key {
        "" => name.to_owned(),
        key => format!("{key}/{name}"),
    }
}

/// A local file, with a version as a store has it. What is neither a file nor a directory is unknown to OpenDAL, too.
fn metadata_of(found: &Found) -> Metadata {
    match found {
        Found::File(version) => {
            let mut metadata = MetadataBuilder::file(version.size_bytes);
            if let Some(etag) = &version.etag {
                metadata.etag(etag.as_str());
            }
            if let Ok(at) = opendal::raw::Timestamp::from_millisecond(version.mtime_ms) {
                metadata.last_modified(at);
            }
            metadata.build()
        }
        Found::Directory => MetadataBuilder::dir().build(),
        Found::Link(_) | Found::Special => MetadataBuilder::unknown().build(),
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::Stopping, "the node is stopping")
}

fn directory_path(key: &str) -> String {
    match key {
        "" => "/".to_owned(),
        key => format!("/{key}/"),
    }
}

fn is_absent(error: &opendal::Error) -> bool {
    matches!(
        error.kind(),
        opendal::ErrorKind::NotFound | opendal::ErrorKind::NotADirectory | opendal::ErrorKind::IsADirectory
    ) && !fault::names_missing_bucket(error)
}

fn version(metadata: &Metadata) -> UfsVersion {
    let etag = metadata
        .etag()
        .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    let mtime_ms = metadata
        .last_modified()
        .map_or(0, |at| at.into_inner().as_millisecond());
    UfsVersion {
        size_bytes: metadata.content_length(),
        // Listings have milliseconds, headers of HTTP have not.
        mtime_ms: match &etag {
            Some(etag) if !local::is_local(etag) => mtime_ms - mtime_ms.rem_euclid(1_000),
            _ => mtime_ms,
        },
        etag,
    }
}

#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod local_tests;
#[cfg(test)]
mod tests;
