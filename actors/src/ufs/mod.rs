//! Under file systems through OpenDAL, behind one type.
//!
//! - [`uri`]: what a mount's URI and options mean to OpenDAL; bad ones are refused here.
//! - [`changes`]: writing, copying and deleting, each bound to a version.
//! - [`fault`]: OpenDAL's errors as ours, with causes and without secrets; `answer`: what the store said, in words.
//!
//! Invariants: keys are relative to the mount's root, have no leading slash and name nothing above it; a read is of one
//! version of the object or fails; every call is bounded by timeouts and a number of retries; a store that is silent is
//! said to be, within [`STORE_ANSWER`], to whoever waits; a version is the same whether a listing, a question or a read
//! said it.

mod answer;
pub mod changes;
pub mod fault;
pub mod uri;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curvine_protocol::mount::MountRecord;
use curvine_protocol::op::UfsObject;
use curvine_protocol::path::check_name;
use curvine_protocol::{Error, ErrorKind, FileKind, Result, UfsVersion};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use opendal::layers::{ConcurrentLimitLayer, RetryEvent, RetryLayer, TimeoutLayer};
use opendal::options::ReaderOptions;
use opendal::{Entry, Metadata, Operator};
use tokio::time::timeout;

use self::fault::Fault;
use crate::kit::deadlines::{STORE_ANSWER, STORE_TRY};

/// A piece of a transfer.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES: usize = 3;
/// Requests in flight to one mount from one node.
const REQUESTS_MAX: usize = 256;
/// Objects asked for one by one at the same time, where a listing does not say enough.
const STATS_AT_ONCE: usize = 32;

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
    /// For messages: the URI, which has no secrets.
    uri: String,
    /// Whether a read can be made conditional on an ETag. Some servers ignore that silently.
    if_match: bool,
    /// Whether writes and deletes can be made conditional, as it was seen when the store was mounted.
    conditions: bool,
    /// Whether objects have ETags, also where a listing leaves them out.
    has_etags: bool,
    /// Requests that had to be repeated.
    retries: Arc<AtomicU64>,
}

impl Ufs {
    /// Opens what a mount describes. Connects to nothing yet.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the bad scheme or option and the nearest good one.
    pub fn open(mount: &MountRecord) -> Result<Ufs> {
        let mut options = mount.options.clone();
        if mount.settings.writable && !options.contains_key(uri::UPLOADS_OPTION) {
            options.extend(uri::uploads_of(&mount.uri));
        }
        Ok(Ufs {
            conditions: mount.settings.conditions,
            ..Self::open_parts(&mount.uri, &options)?
        })
    }

    pub fn open_parts(uri: &str, options: &std::collections::BTreeMap<String, String>) -> Result<Ufs> {
        prepare();
        let target = uri::parse(uri, options)?;
        let retries = Arc::new(AtomicU64::new(0));
        let counter = retries.clone();
        let once = Operator::via_iter(target.scheme, target.options)
            .map_err(|error| Fault { uri, key: "" }.of(&error))?
            .layer(
                TimeoutLayer::new()
                    .with_timeout(STORE_TRY)
                    .with_io_timeout(IO_TIMEOUT),
            );
        let operator = once
            .clone()
            .layer(
                RetryLayer::new()
                    .with_max_times(RETRIES)
                    .with_min_delay(Duration::from_millis(100))
                    .with_max_delay(Duration::from_secs(2))
                    .with_jitter()
                    .with_notify(move |_: RetryEvent<'_>| {
                        counter.fetch_add(1, Ordering::AcqRel);
                    }),
            )
            .layer(ConcurrentLimitLayer::new(REQUESTS_MAX));
        Ok(Ufs {
            operator,
            once: once.layer(ConcurrentLimitLayer::new(REQUESTS_MAX)),
            uri: uri.to_owned(),
            if_match: target.scheme == "s3",
            conditions: false,
            has_etags: ["s3", "oss", "cos", "obs", "gcs", "azblob"].contains(&target.scheme),
            retries,
        })
    }

    fn fault(&self, key: &str, error: opendal::Error) -> Error {
        Fault { uri: &self.uri, key }.of(&error)
    }

    /// What a store answers, or that it is silent.
    async fn answered<T>(&self, key: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let silent = |_| Fault { uri: &self.uri, key }.silent(STORE_ANSWER.as_secs());
        timeout(STORE_ANSWER, answer).await.map_err(silent)?
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
        let Some(path) = object_path(key) else {
            return Ok(None);
        };
        match operator.stat(&path).await {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.fault(key, error)),
        }
    }

    /// What a name is: an object, or a directory if it has something below it or a marker. An object wins.
    pub async fn find(&self, key: &str) -> Result<Option<UfsObject>> {
        self.answered(key, self.find_now(key)).await
    }

    async fn find_now(&self, key: &str) -> Result<Option<UfsObject>> {
        if key == uri::UPLOADS_DIRECTORY {
            return Ok(None);
        }
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        let found = |kind, version| Ok(Some(UfsObject { name, kind, version }));
        let metadata = match self.ask_through(&self.once, key).await {
            // Some servers stumble, each time, over the name of what is only a prefix to them: asking again and again
            // would take a second for every look at a directory.
            Err(error) if error.kind == ErrorKind::Ufs => {
                if self.has_below(key).await? {
                    return found(FileKind::Directory, None);
                }
                self.ask(key).await?
            }
            asked => asked?,
        };
        match metadata {
            Some(metadata) if metadata.is_file() => found(FileKind::File, Some(version(&metadata))),
            Some(metadata) if metadata.is_dir() => found(FileKind::Directory, None),
            // Neither: a socket, a device.
            Some(_) => Ok(None),
            None if self.has_below(key).await? => found(FileKind::Directory, None),
            None => Ok(None),
        }
    }

    /// Whether there is a directory: something below the key, or a marker.
    async fn has_below(&self, key: &str) -> Result<bool> {
        let below = self.operator.lister_with(&directory_path(key)).limit(1).await;
        let first = match below {
            Ok(mut below) => below.try_next().await,
            Err(error) => Err(error),
        };
        match first {
            Ok(first) => Ok(first.is_some()),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.fault(key, error)),
        }
    }

    /// Lists one directory (not what is below its subdirectories), sorted by name. `key` is empty for the root.
    ///
    /// Objects whose names cannot be file names are left out and counted in the second value.
    pub async fn list(&self, key: &str) -> Result<(Vec<UfsObject>, usize)> {
        let absent = |error: &opendal::Error| is_absent(error) && !key.is_empty();
        let asked = async { Ok(self.operator.lister(&directory_path(key)).await) };
        let entries = match self.answered(key, asked).await? {
            Err(error) if absent(&error) => return Ok((Vec::new(), 0)),
            entries => entries.map_err(|error| self.fault(key, error))?,
        };
        let directory = if key.is_empty() {
            "/".to_owned()
        } else {
            format!("{key}/")
        };
        let mut listed = std::pin::pin!(
            entries
                .map(|entry| async {
                    match entry {
                        Ok(entry) => self.object(&directory, entry).await,
                        Err(error) if absent(&error) => Ok(Listed::Itself),
                        Err(error) => Err(self.fault(key, error)),
                    }
                })
                .buffered(STATS_AT_ONCE)
        );
        let mut objects = std::collections::BTreeMap::new();
        let mut skipped = 0;
        while let Some(listed) = self.answered(key, listed.try_next()).await? {
            match listed {
                Listed::Itself => {}
                Listed::Unusable => skipped += 1,
                Listed::Object(object) => {
                    // `a` and `a/` together: the object wins, as in `find`.
                    let known = objects
                        .entry(object.name.clone())
                        .or_insert_with(|| object.clone());
                    if known.kind == FileKind::Directory && object.kind == FileKind::File {
                        *known = object;
                    }
                }
            }
        }
        Ok((objects.into_values().collect(), skipped))
    }

    async fn object(&self, directory: &str, entry: Entry) -> Result<Listed> {
        let path = entry.path();
        let relative = path.strip_prefix(directory).unwrap_or(path);
        let name = relative.strip_suffix('/').unwrap_or(relative);
        if name.is_empty() && relative.is_empty() || path == directory {
            return Ok(Listed::Itself);
        }
        if directory == "/" && name == uri::UPLOADS_DIRECTORY {
            return Ok(Listed::Itself);
        }
        if check_name(name).is_err() {
            return Ok(Listed::Unusable);
        }
        let name = name.to_owned();
        let metadata = entry.metadata();
        if metadata.is_dir() || relative.ends_with('/') {
            return Ok(Listed::Object(UfsObject {
                name,
                kind: FileKind::Directory,
                version: None,
            }));
        }
        if object_path(path).is_none() {
            return Ok(Listed::Unusable);
        }
        // Some services list names alone, some servers no ETags: the version would not be the one of a question.
        let whole = match self.has_etags {
            true => metadata.etag().is_some(),
            false => metadata.last_modified().is_some(),
        };
        let version = match whole {
            true => Some(version(metadata)),
            false => self.stat(path).await?,
        };
        Ok(match version {
            Some(version) => Listed::Object(UfsObject {
                name,
                kind: FileKind::File,
                version: Some(version),
            }),
            // Gone since it was listed.
            None => Listed::Itself,
        })
    }

    /// The bytes of a range of one version of an object, as they arrive.
    ///
    /// # Errors
    /// `UfsChanged` if the object is not this version: before the first byte, or at the end of the stream where it
    /// could have changed on the way.
    pub async fn read(&self, key: &str, range: Range<u64>, expected: &UfsVersion) -> Result<ByteStream> {
        let wanted = range.end - range.start;
        let etag = expected.etag.as_ref().filter(|_| self.if_match);
        let options = ReaderOptions {
            if_match: etag.map(|etag| format!("\"{etag}\"")),
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
        self.operator
            .delete(&directory_path(key))
            .await
            .map_err(|error| self.fault(key, error))
    }

    pub async fn make_dir(&self, key: &str) -> Result<()> {
        self.operator
            .create_dir(&directory_path(key))
            .await
            .map_err(|error| self.fault(key, error))
    }

    /// Reachable and listable; with `writable`, an object can be written and deleted. Whether the store then honours
    /// conditions of requests.
    pub async fn check(&self, writable: bool) -> Result<bool> {
        self.list("").await?;
        if !writable {
            return Ok(false);
        }
        const PROBE: &str = ".curvine-write-probe";
        let write = async {
            let written = self.operator.write(PROBE, "curvine").await;
            written.map_err(|error| self.fault(PROBE, error))
        };
        self.answered(PROBE, write).await.map_err(|error| {
            error.while_doing("the mount is asked to be writable, but a test object cannot be written")
        })?;
        let honours = self.answered(PROBE, self.honours_conditions(PROBE)).await;
        let delete = async {
            let deleted = self.operator.delete(PROBE).await;
            deleted.map_err(|error| self.fault(PROBE, error))
        };
        self.answered(PROBE, delete).await?;
        honours
    }
}

enum Listed {
    Object(UfsObject),
    /// The directory's own marker.
    Itself,
    /// No name for a file.
    Unusable,
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
        mtime_ms: match etag {
            Some(_) => mtime_ms - mtime_ms.rem_euclid(1_000),
            None => mtime_ms,
        },
        etag,
    }
}

#[cfg(test)]
mod docs_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
