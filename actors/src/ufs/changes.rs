//! Changes of an under file system, each bound to the version that was meant.
//!
//! What is there is compared right before a change. Where the store was seen to honour conditions of requests, the request
//! carries the condition as well; elsewhere somebody else can still change the object in between. What is written carries a
//! *mark*, where the store keeps metadata: so a try whose answer was lost is known again, and is no conflict.

use std::collections::HashMap;
use std::future::Future;

use curvine_protocol::{Error, ErrorKind, KeptAttributes, Result, UfsVersion};
use futures::TryStreamExt;
use opendal::Metadata;
use opendal::options::{CopyOptions, DeleteOptions, WriteOptions};

use super::attributes::{METADATA_BYTES_MAX, encode};
use super::uploads::Begun;
use super::{ByteStream, Ufs, directory_path, is_absent, limited, quoted, repeated, version};
use crate::kit::deadlines::store_copy;

/// Bytes in one part of an upload.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 4;
/// In HDFS each part is a block of the file, and all of them are named in one request of 64 KiB at most.
const PART_BYTES_IN_HDFS: usize = 16 << 20;
const PARTS_AT_ONCE_IN_HDFS: usize = 2;
/// Objects that S3 copies with one request.
pub(super) const COPY_BYTES_MAX: u64 = 5 << 30;
/// The metadata under which a [mark](Replacement::mark) is kept.
const MARK: &str = "curvine-content";
/// The same in Azure, where names of metadata are names of C#.
const MARK_IN_AZURE: &str = "curvinecontent";

/// What a write is to replace.
#[derive(Clone, Debug)]
pub struct Replacement<'a> {
    /// The object as it is known; none if there is to be none.
    pub replaces: Option<&'a UfsVersion>,
    /// Names the content: a file, a dot, and the version of it.
    pub mark: &'a str,
    /// Kept with the object where the store can.
    pub attributes: Option<&'a KeptAttributes>,
}

impl Replacement<'_> {
    /// Whether an object with this mark is of the same file: written by an earlier try, whose answer was lost.
    fn is_ours(&self, mark: &str) -> bool {
        let file = |mark: &str| mark.rsplit_once('.').map(|(file, _)| file.to_owned());
        file(mark).is_some() && file(mark) == file(self.mark)
    }
}

/// How a write has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The object is this version.
    Stored(UfsVersion),
    /// Nothing was written: somebody else has changed the object. It is this version, or gone.
    Conflict(Option<UfsVersion>),
}

enum Compared {
    /// This version is to be replaced.
    Base(Option<UfsVersion>),
    /// There is nothing to be written.
    Ended(Written),
}

impl Ufs {
    /// The version of an object and its mark. A file of a directory keeps its metadata when somebody else writes into it, so
    /// there a mark says nothing.
    async fn stat_marked(&self, key: &str) -> Result<Option<(UfsVersion, Option<String>)>> {
        let found = self.answered(key, self.ask(key)).await?.filter(Metadata::is_file);
        let mark = |metadata: &Metadata| self.mark_of(metadata).filter(|_| self.has_etags);
        Ok(found.map(|metadata| (version(&metadata), mark(&metadata))))
    }

    /// The version of an object that was written with this mark; none if another one is there, or nothing.
    pub async fn written_as(&self, key: &str, mark: &str) -> Result<Option<UfsVersion>> {
        let found = self.stat_marked(key).await?;
        Ok(found.and_then(|(now, its)| (its.as_deref() == Some(mark)).then_some(now)))
    }

    /// Writes a whole object in the place of a known version. Nothing is visible before it is complete, and before
    /// `may_finish` has agreed.
    ///
    /// # Errors
    /// Those of the content and of `may_finish`: the object is as it was. Those of the store: it is as it was, or complete.
    pub async fn replace(
        &self,
        key: &str,
        content: ByteStream,
        how: Replacement<'_>,
        may_finish: impl Future<Output = Result<()>> + Send,
    ) -> Result<Written> {
        let base = match self.compared(key, &how).await? {
            Compared::Base(base) => base,
            Compared::Ended(ended) => return Ok(ended),
        };
        let how = Replacement {
            replaces: base.as_ref(),
            ..how
        };
        if let Some(local) = &self.local {
            return self.replace_local(local, key, content, &how, may_finish).await;
        }
        let written = match self.upload(key, content, &how, may_finish).await {
            Ok(written) => written,
            // The store says that it is another version; or it has this one, and its answer was lost.
            Err(error) if error.kind == ErrorKind::UfsChanged => {
                let found = self.stat_marked(key).await?;
                return Ok(match found {
                    Some((now, Some(mark))) if mark == how.mark => Written::Stored(now),
                    found => Written::Conflict(found.map(|(now, _)| now)),
                });
            }
            Err(error) => return Err(error),
        };
        let etag = written.etag().map(|etag| etag.trim_matches('"').to_owned());
        let etag = etag.filter(|etag| !etag.is_empty());
        if self.has_etags && etag.is_none() {
            // A store that wrote it says which version that is. Whether it is there decides.
            return match self.stat_marked(key).await? {
                Some((now, Some(mark))) if mark == how.mark => Ok(Written::Stored(now)),
                Some((now, None)) if !self.keeps_metadata() && Some(&now) != how.replaces => {
                    Ok(Written::Stored(now))
                }
                _ => Err(self.not_the_store(key)),
            };
        }
        let now = self.stat(key).await?;
        Ok(Written::Stored(match now {
            Some(now) if etag.is_none() || now.etag == etag => now,
            // Somebody has replaced it already: what was written is a version that is over.
            _ => UfsVersion {
                etag,
                ..version(&written)
            },
        }))
    }

    /// What is there, beside what is to be there.
    async fn compared(&self, key: &str, how: &Replacement<'_>) -> Result<Compared> {
        Ok(match self.stat_marked(key).await? {
            Some((now, Some(mark))) if mark == how.mark => Compared::Ended(Written::Stored(now)),
            Some((now, Some(mark))) if how.is_ours(&mark) => Compared::Base(Some(now)),
            found => {
                let now = found.map(|(now, _)| now);
                match now.as_ref() == how.replaces {
                    true => Compared::Base(now),
                    false => Compared::Ended(Written::Conflict(now)),
                }
            }
        })
    }

    async fn upload(
        &self,
        key: &str,
        mut content: ByteStream,
        how: &Replacement<'_>,
        may_finish: impl Future<Output = Result<()>> + Send,
    ) -> Result<Metadata> {
        let path = self.storable(key)?;
        let is_hdfs = self.operator.info().scheme() == "webhdfs";
        let (part_bytes, parts_at_once) = match is_hdfs {
            true => (PART_BYTES_IN_HDFS, PARTS_AT_ONCE_IN_HDFS),
            false => (PART_BYTES, PARTS_AT_ONCE),
        };
        let mut options = WriteOptions {
            chunk: Some(part_bytes),
            concurrent: parts_at_once,
            ..WriteOptions::default()
        };
        if self.keeps_metadata() {
            options.user_metadata = Some(self.metadata_with(how.mark, how.attributes));
        }
        if self.conditions {
            let etag = how.replaces.and_then(|replaces| replaces.etag.as_ref());
            options.if_match = etag.map(quoted);
            options.if_not_exists = how.replaces.is_none();
        }
        let begun = Begun::default();
        let writer = self.writing(key, &begun).writer_options(&path, options).await;
        let mut writer = writer.map_err(|error| self.fault(key, error))?;
        let mut sent_bytes = 0;
        let moved = async {
            while let Some(piece) = content.try_next().await? {
                sent_bytes += piece.len() as u64;
                writer
                    .write(piece)
                    .await
                    .map_err(|error| self.fault(key, error))?;
            }
            // A file in parts is renamed to its place in the end, and that makes no directories.
            if is_hdfs && sent_bytes > PART_BYTES_IN_HDFS as u64 {
                let directory = key.rsplit_once('/').map_or("", |(directory, _)| directory);
                self.make_dir(directory).await?;
            }
            may_finish.await?;
            // An upload takes long, and where the store takes no condition this is the last look. Some take it for whole objects,
            // and pass over it where parts are completed.
            match self.conditions && sent_bytes <= part_bytes as u64 {
                true => Ok(()),
                false => match self.compared(key, how).await? {
                    Compared::Base(_) => Ok(()),
                    Compared::Ended(_) => Err(self.changed(key)),
                },
            }
        };
        if let Err(error) = moved.await {
            if let Err(error) = writer.abort().await {
                tracing::warn!(%error, "{}: an upload of `{key}` could not be given up", self.uri);
            }
            return Err(error);
        }
        match writer.close().await {
            Ok(metadata) => {
                begun.completed().await;
                if is_hdfs {
                    self.check_stored(key, sent_bytes).await?;
                }
                Ok(metadata)
            }
            Err(error) => {
                // Refused: nothing of it may stay in the store, where it would cost money unseen.
                let _ = writer.abort().await;
                Err(self.fault(key, error))
            }
        }
    }

    /// OpenDAL does not look whether HDFS has renamed what was written: it answers that in the body alone.
    async fn check_stored(&self, key: &str, size_bytes: u64) -> Result<()> {
        match self.stat(key).await? {
            Some(now) if now.size_bytes == size_bytes => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Ufs,
                format!(
                    "{}: `{key}`: was written, and is not there; it is tried again",
                    self.uri
                ),
            )),
        }
    }

    /// Deletes an object if it is this version. Whether it is gone: another version stays.
    pub async fn delete_version(&self, key: &str, meant: &UfsVersion) -> Result<bool> {
        if let Some(local) = &self.local {
            return self.delete_local(local, key, meant).await;
        }
        match self.stat(key).await? {
            None => return Ok(true),
            Some(now) if now != *meant => return Ok(false),
            Some(_) => {}
        }
        let etag = meant.etag.as_ref().filter(|_| self.conditions);
        let options = DeleteOptions {
            if_match: etag.map(quoted),
            ..DeleteOptions::default()
        };
        let path = self.storable(key)?;
        let deleted = async {
            match self.delete_at(path, options).await {
                Ok(()) => Ok(true),
                Err(error) if is_absent(&error) => Ok(true),
                Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => Ok(false),
                Err(error) => Err(self.fault(key, error)),
            }
        };
        self.answered(key, deleted).await
    }

    /// Copies one version of an object over what is known of another; says which version that made.
    ///
    /// # Errors
    /// `UfsChanged`, naming which of the two is not what was meant: nothing was copied.
    pub async fn copy_version(
        &self,
        (from, meant): (&str, &UfsVersion),
        (to, replaces): (&str, Option<&UfsVersion>),
    ) -> Result<UfsVersion> {
        if let Some(local) = &self.local {
            return self.copy_local(local, (from, meant), (to, replaces)).await;
        }
        let (source, there) = tokio::try_join!(self.stat(from), self.stat(to))?;
        if let Some(there) = there.as_ref().filter(|there| Some(*there) != replaces) {
            // As an earlier try left it.
            let copy = self.copy_of((from, meant), to).await?;
            return copy
                .filter(|copy| copy == there)
                .ok_or_else(|| self.unexpected(to));
        }
        if source.as_ref() != Some(meant) {
            return Err(self.unexpected(from));
        }
        if meant.size_bytes <= COPY_BYTES_MAX && self.operator.info().capability().copy {
            if let Err(error) = self.copy_inside((from, meant), (to, there.as_ref())).await {
                // It may be made all the same, and only its answer lost.
                return match self.copy_of((from, meant), to).await {
                    Ok(Some(now)) if Some(&now) != there.as_ref() => Ok(now),
                    _ => Err(error),
                };
            }
        } else {
            let content = self.read(from, 0..meant.size_bytes, meant).await?;
            let mark = format!("copy of {}", meant.etag.as_deref().unwrap_or("an object"));
            let kept = match self.keeps_attributes() {
                true => self.attributes(from, meant).await?,
                false => None,
            };
            let how = Replacement {
                replaces,
                mark: &mark,
                attributes: kept.as_ref(),
            };
            if let Written::Conflict(_) = self.replace(to, content, how, async { Ok(()) }).await? {
                return Err(self.unexpected(to));
            }
        }
        match self.stat(to).await? {
            Some(now) if now.size_bytes == meant.size_bytes => Ok(now),
            _ => Err(self.unexpected(to)),
        }
    }

    /// Has the store copy an object by itself, which takes long by the object's size. Where the store takes that condition, it
    /// looks itself whether the place is as it was found.
    async fn copy_inside(
        &self,
        (from, meant): (&str, &UfsVersion),
        (to, there): (&str, Option<&UfsVersion>),
    ) -> Result<()> {
        let (source, target) = (self.storable(from)?, self.storable(to)?);
        let limit = store_copy(meant.size_bytes);
        let copying = repeated(&limited(&self.bare, limit), &self.retries);
        // Without the length OpenDAL would ask for the source once more.
        let mut options = CopyOptions {
            source_content_length_hint: Some(meant.size_bytes),
            ..CopyOptions::default()
        };
        let can = self.operator.info().capability();
        if self.conditions {
            options.if_not_exists = there.is_none() && can.copy_with_if_not_exists;
            let etag = there.and_then(|there| there.etag.as_ref());
            options.if_match = etag.filter(|_| can.copy_with_if_match).map(quoted);
        }
        let copied = async {
            match copying.copy_options(&source, &target, options).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => {
                    Err(self.unexpected(to))
                }
                Err(error) => Err(self.fault(from, error)),
            }
        };
        self.answered_within(limit, from, copied).await
    }

    /// What is at `to`, if it is a copy of this version of an object: it has the same ETag, or, where the parts of an upload
    /// made that, the same mark.
    pub async fn copy_of(&self, (from, meant): (&str, &UfsVersion), to: &str) -> Result<Option<UfsVersion>> {
        let Some((now, mark)) = self.stat_marked(to).await? else {
            return Ok(None);
        };
        let is_copy = now.size_bytes == meant.size_bytes
            // In HDFS an ETag is the file's time and owner, and not its content.
            && match self.has_etags && now.etag.is_some() && now.etag == meant.etag {
                true => true,
                false if mark.is_none() => false,
                false => {
                    let source = self.stat_marked(from).await?;
                    source.is_some_and(|(version, its)| version == *meant && its == mark)
                }
            };
        Ok(is_copy.then_some(now))
    }

    /// Whether directories are there by themselves, and not as prefixes of keys.
    pub fn has_directories(&self) -> bool {
        matches!(
            self.operator.info().scheme(),
            "fs" | "webhdfs" | "hdfs" | "hdfs-native"
        )
    }

    /// Whether anything is at or below a directory's key but its marker: the key of one such thing.
    pub async fn something_in(&self, key: &str) -> Result<Option<String>> {
        if let Some(local) = &self.local {
            return self.something_in_local(local, key).await;
        }
        self.answered(key, self.something_below(key)).await
    }

    async fn something_below(&self, key: &str) -> Result<Option<String>> {
        let marker = directory_path(key);
        let below = self.operator.lister_with(&marker).recursive(true).limit(2).await;
        let mut below = match below {
            Ok(below) => below,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.fault(key, error)),
        };
        loop {
            match below.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(entry)) if format!("/{}", entry.path().trim_start_matches('/')) == marker => {}
                Ok(Some(entry)) => return Ok(Some(entry.path().to_owned())),
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(self.fault(key, error)),
            }
        }
    }

    pub(super) fn unexpected(&self, key: &str) -> Error {
        Error::new(
            ErrorKind::UfsChanged,
            format!(
                "{}: `{key}` was changed by somebody else meanwhile; look at it, and try again",
                self.uri
            ),
        )
    }

    /// Whether the store honours conditions of requests, seen by trying with an object that was just written. Some servers ignore
    /// them and say nothing.
    pub async fn honours_conditions(&self, probe: &str, written: &Metadata) -> Result<bool> {
        let can = self.operator.info().capability();
        if !(can.write_with_if_match && can.write_with_if_not_exists) {
            return Ok(false);
        }
        let wrong = WriteOptions {
            if_match: Some("\"00000000000000000000000000000000\"".to_owned()),
            ..WriteOptions::default()
        };
        let again = WriteOptions {
            if_not_exists: true,
            ..WriteOptions::default()
        };
        for options in [wrong, again] {
            match self.operator.write_options(probe, "curvine", options).await {
                Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => {}
                // It took what it should not have, or does not know what is meant.
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == opendal::ErrorKind::Unsupported => return Ok(false),
                Err(error) => return Err(self.fault(probe, error)),
            }
        }
        // Ceph 16 compares the ETag with the quotation marks around it, and so refuses the right one as well.
        let found = match written.etag() {
            Some(_) => None,
            None => self.ask(probe).await?,
        };
        let Some(etag) = found.as_ref().unwrap_or(written).etag() else {
            return Ok(false);
        };
        let right = WriteOptions {
            if_match: Some(quoted(etag.trim_matches('"'))),
            ..WriteOptions::default()
        };
        match self.operator.write_options(probe, "curvine", right).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == opendal::ErrorKind::ConditionNotMatch => Ok(false),
            Err(error) => Err(self.fault(probe, error)),
        }
    }

    fn mark_name(&self) -> &'static str {
        match self.operator.info().scheme() {
            "azblob" => MARK_IN_AZURE,
            _ => MARK,
        }
    }

    /// What an object's metadata is to say.
    pub(super) fn metadata_with(&self, mark: &str, kept: Option<&KeptAttributes>) -> HashMap<String, String> {
        let name = self.mark_name();
        let room_bytes = METADATA_BYTES_MAX.saturating_sub(name.len() + mark.len());
        let mut fields = kept.map_or_else(HashMap::new, |kept| encode(kept, room_bytes));
        fields.insert(name.to_owned(), mark.to_owned());
        fields
    }

    fn mark_of(&self, metadata: &Metadata) -> Option<String> {
        metadata.user_metadata()?.get(self.mark_name()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(uri: &str) -> Ufs {
        let endpoint = [("endpoint".to_owned(), "http://127.0.0.1:9".to_owned())];
        // Its URI says where it is.
        let options = match uri.starts_with("hdfs:") {
            true => Default::default(),
            false => endpoint.into(),
        };
        Ufs::open_parts(uri, &options).expect("opens")
    }

    #[test]
    fn metadata_has_names_that_each_store_takes_and_the_mark_is_found_again() {
        let kept = KeptAttributes {
            mode: Some(0o640),
            uid: Some(1),
            gid: Some(2),
            mtime_ns: Some(3),
            xattrs: [("user.note".to_owned(), b"x".to_vec())].into(),
        };
        for (uri, takes) in [
            ("s3://b", "-"),
            ("oss://b", "-"),
            ("cos://b", "-"),
            ("obs://b", "-"),
            ("gs://b", "-"),
            // As in C#; and no underscore, which proxies leave out of headers.
            ("az://b", ""),
        ] {
            let ufs = opened(uri);
            let fields = ufs.metadata_with("7.1", Some(&kept));
            assert_eq!(fields.len(), 6, "{uri}");
            let is_good = |c: char| c.is_ascii_lowercase() || takes.contains(c);
            let bad = fields.keys().find(|name| !name.chars().all(is_good));
            assert_eq!(bad, None, "{uri}");
            let mut metadata = opendal::MetadataBuilder::file(0);
            metadata.user_metadata(fields);
            let mark = ufs.mark_of(&metadata.build());
            assert_eq!(mark.as_deref(), Some("7.1"), "{uri}");
        }
    }

    #[test]
    fn each_scheme_that_can_be_written_takes_files_of_several_parts() {
        for uri in [
            "s3://b",
            "oss://b",
            "cos://b",
            "obs://b",
            "gs://b",
            "az://b",
            "webhdfs://127.0.0.1:9/",
            "hdfs://127.0.0.1:9/",
        ] {
            let can = opened(uri).operator.info().capability();
            assert!(can.write && can.write_can_multi, "{uri}");
        }
    }
}
