//! Listings: one directory, from its first name to its last.

use std::collections::BTreeMap;

use curvine_protocol::op::UfsObject;
use curvine_protocol::{Error, ErrorKind, FileKind, Result};
use futures::{StreamExt, TryStreamExt};
use opendal::{Entry, Operator};
use tokio::sync::mpsc;

use super::fault::NO_BUCKET;
use super::kept::said_by;
use super::local::{Found, Local};
use super::names::{Hidden, HiddenNames, fate};
use super::watched::Watched;
use super::{Ufs, directory_path, is_absent, through, version};

/// Objects asked for one by one at the same time, where a listing does not say enough.
const STATS_AT_ONCE: usize = 32;
/// Names of a local directory that are handed over at once.
const LOCAL_PAGE: usize = 1_000;

/// One directory (not what is below its subdirectories).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by name.
    pub objects: Vec<UfsObject>,
    pub hidden: HiddenNames,
}

impl Listing {
    fn of(objects: BTreeMap<String, UfsObject>, hidden: HiddenNames) -> Self {
        Listing {
            objects: objects.into_values().collect(),
            hidden,
        }
    }
}

enum Listed {
    Object(UfsObject),
    Hidden(Hidden, String),
    /// The directory's own marker, or something that is gone since.
    Nothing,
}

impl Ufs {
    /// Lists a directory. `key` is empty for the root. However many pages it has, each must come in time.
    ///
    /// # Errors
    /// `Ufs` if the store falls silent, or repeats a page; others as the store says.
    pub async fn list(&self, key: &str) -> Result<Listing> {
        if let Some(local) = &self.local {
            return self.list_local(local.clone(), key).await;
        }
        let absent = |error: &opendal::Error| is_absent(error) && !key.is_empty();
        let asked = async { Ok(self.watched().lister(&directory_path(key)).await) };
        let entries = match self.answered(key, asked).await? {
            Err(error) if absent(&error) => return Ok(Listing::default()),
            entries => entries.map_err(|error| self.fault(key, error))?,
        };
        let directory = match key {
            "" => "/".to_owned(),
            key => format!("{key}/"),
        };
        let mut listed = std::pin::pin!(
            entries
                .map(|entry| async {
                    match entry {
                        Ok(entry) => self.listed(&directory, entry).await,
                        Err(error) if absent(&error) => Ok(Listed::Nothing),
                        Err(error) => Err(self.fault(key, error)),
                    }
                })
                .buffered(STATS_AT_ONCE)
        );
        let mut objects: BTreeMap<String, UfsObject> = BTreeMap::new();
        let mut hidden = HiddenNames::default();
        loop {
            match self.answered(key, listed.try_next()).await? {
                None => return Ok(Listing::of(objects, hidden)),
                Some(Listed::Nothing) => {}
                Some(Listed::Hidden(why, example)) => hidden.add(why, &example),
                Some(Listed::Object(object)) => {
                    let below = || format!("{}{}/", directory.trim_start_matches('/'), object.name);
                    match objects.get(&object.name).map(|known| known.kind) {
                        // `a` and `a/` together: the object wins, as in `find`.
                        Some(FileKind::File) if object.kind == FileKind::Directory => {
                            hidden.add(Hidden::BelowAnObject, &below());
                        }
                        Some(FileKind::Directory) if object.kind == FileKind::File => {
                            hidden.add(Hidden::BelowAnObject, &below());
                            objects.insert(object.name.clone(), object);
                        }
                        _ => {
                            objects.insert(object.name.clone(), object);
                        }
                    }
                }
            }
        }
    }

    /// Requests that all belong to one listing.
    pub(super) fn watched(&self) -> Operator {
        through(&self.operator, Watched::new)
    }

    async fn listed(&self, directory: &str, entry: Entry) -> Result<Listed> {
        let path = entry.path();
        let metadata = entry.metadata();
        let relative = path.strip_prefix(directory).unwrap_or(path);
        let is_dir = metadata.is_dir() || relative.ends_with('/');
        let is_itself = relative.is_empty() || path == directory;
        if is_itself && self.is_marker(directory, metadata) {
            return Ok(Listed::Nothing);
        }
        let name = match is_itself {
            true => "",
            false => relative.strip_suffix('/').unwrap_or(relative),
        };
        if let Err(why) = fate(name, is_dir, self.spelling()) {
            let above = directory.trim_start_matches('/');
            let below = if relative.is_empty() { "/" } else { relative };
            return Ok(Listed::Hidden(why, format!("{above}{below}")));
        }
        let name = name.to_owned();
        if is_dir {
            return Ok(Listed::Object(directory_object(name)));
        }
        if !metadata.is_file() {
            return Ok(Listed::Hidden(Hidden::NotAFile, path.to_owned()));
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
        // HDFS lists them; of metadata no listing says anything.
        let attributes = self.hdfs.as_ref().map(|_| said_by(metadata));
        Ok(match version {
            Some(version) => Listed::Object(UfsObject {
                name,
                kind: FileKind::File,
                version: Some(version),
                target: None,
                attributes,
            }),
            None => Listed::Nothing,
        })
    }

    /// Of what is listed as the directory itself: whether it is. A common prefix of the root, which has no attributes, is of
    /// keys that begin with a slash.
    fn is_marker(&self, directory: &str, metadata: &opendal::Metadata) -> bool {
        !self.has_etags || directory != "/" || metadata.last_modified().is_some()
    }

    async fn list_local(&self, local: Local, key: &str) -> Result<Listing> {
        let (pages, mut listed) = mpsc::channel(4);
        let directory = key.to_owned();
        let listing = tokio::task::spawn_blocking(move || {
            let mut page = Vec::with_capacity(LOCAL_PAGE);
            local.list(&directory, |name, found| {
                page.push((name, found));
                page.len() < LOCAL_PAGE || pages.blocking_send(std::mem::take(&mut page)).is_ok()
            })?;
            // Nobody may take it any more.
            let _ = pages.blocking_send(page);
            Ok(())
        });
        let mut objects = BTreeMap::new();
        let mut hidden = HiddenNames::default();
        while let Some(page) = self.answered(key, async { Ok(listed.recv().await) }).await? {
            for (name, found) in page {
                match local_object(name, found) {
                    Ok(object) => {
                        objects.insert(object.name.clone(), object);
                    }
                    Err((why, name)) => hidden.add(why, &super::joined(key, &name)),
                }
            }
        }
        match listing.await {
            Ok(Err(error)) => match self.local_fault(key, error) {
                Some(fault) => Err(fault),
                None if key.is_empty() => Err(Error::new(
                    ErrorKind::NotFound,
                    format!("{}: there is no such directory any more", self.uri),
                )),
                None => Ok(Listing::default()),
            },
            Ok(Ok(())) => Ok(Listing::of(objects, hidden)),
            Err(_) => Err(Error::new(ErrorKind::Stopping, "the node is stopping")),
        }
    }

    /// Whether there is a directory: something below the key, or a marker. Asks for one page.
    pub(super) async fn has_below(&self, key: &str) -> Result<bool> {
        let below = self.watched().lister_with(&directory_path(key)).limit(1).await;
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

    /// Looks whether there is what a mount names: one request, and two more where nothing is found. `above` is the same URI
    /// without its last part, opened; none for a bucket.
    ///
    /// # Errors
    /// `NotADirectory` if it is an object; `NotFound` if it is nothing, and `may_be_empty` is not set.
    pub async fn check_root(&self, above: Option<(&Ufs, &str)>, may_be_empty: bool) -> Result<()> {
        if self.local.is_some() {
            return self.list("").await.map(|_| ());
        }
        let is_there = self.has_below("").await?;
        if !is_there && above.is_none() {
            // A bucket with nothing in it is listed; one that is not there is not, in whatever words that is said.
            self.list("").await.map_err(|error| match error.kind {
                ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("{}: {NO_BUCKET}", self.uri)),
                _ => error,
            })?;
        }
        let Some((above, name)) = above.filter(|_| !is_there) else {
            return Ok(());
        };
        if above.stat(name).await?.is_some() {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                format!("{}: is an object; mount what it is in", self.uri),
            ));
        }
        match may_be_empty {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{}: nothing is there; check the prefix, or mount with --write to make it",
                    self.uri
                ),
            )),
        }
    }
}

fn directory_object(name: String) -> UfsObject {
    UfsObject {
        name,
        kind: FileKind::Directory,
        version: None,
        target: None,
        attributes: None,
    }
}

/// An entry of a local directory as an object, or why it is not shown, with its name for people.
fn local_object(name: std::ffi::OsString, found: Found) -> Result<UfsObject, (Hidden, String)> {
    let name = name
        .into_string()
        .map_err(|name| (Hidden::NotUnicode, name.to_string_lossy().into_owned()))?;
    let is_dir = found == Found::Directory;
    if let Err(why) = fate(&name, is_dir, super::names::Spelling::Exact) {
        return Err((why, name));
    }
    match found {
        Found::Special => Err((Hidden::NotAFile, name)),
        Found::Link(None) => Err((Hidden::NotUnicode, name)),
        found => Ok(local_found(name, found)),
    }
}

/// What a look at a local name found, if it is shown.
pub(super) fn local_found(name: String, found: Found) -> UfsObject {
    match found {
        Found::File(version) => UfsObject {
            name,
            kind: FileKind::File,
            version: Some(version),
            target: None,
            attributes: None,
        },
        Found::Link(target) => UfsObject {
            name,
            kind: FileKind::Symlink,
            version: None,
            target,
            attributes: None,
        },
        Found::Directory | Found::Special => directory_object(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Store;
    use super::*;

    #[tokio::test]
    async fn keys_that_begin_with_slashes_are_hidden_counted_and_no_reason_to_stop() {
        let keys = ["/lead", "//x", "/", "lead", "p/ok", "p//x", "p///y"].map(str::to_owned);
        let store = Store::start(keys, 10, None).await;
        store.list_pages(2);
        let bucket = Ufs::open_parts("s3://bucket", &store.options()).expect("opens");
        let directory = Ufs::open_parts("s3://bucket/p", &store.options()).expect("opens");
        for (ufs, shown, example) in [
            (&bucket, vec!["lead", "p"], "`/`"),
            (&directory, vec!["ok"], "`/`"),
        ] {
            assert!(ufs.has_below("").await.expect("answers"), "{}", ufs.uri);
            let listing = ufs.list("").await.expect("lists");
            let names: Vec<&str> = listing.objects.iter().map(|object| &*object.name).collect();
            assert_eq!((names, listing.hidden.count()), (shown, 1), "{}", ufs.uri);
            assert!(
                listing.hidden.told().ends_with(example),
                "{}: {}",
                ufs.uri,
                listing.hidden.told()
            );
        }
    }
}
