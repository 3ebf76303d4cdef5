//! HDFS by its own protocol: the name node's RPC and the data nodes' transfers, without Java and without WebHDFS.
//!
//! The client is `hdfs-native`. OpenDAL has a service over it, which is not used, because it hides what only HDFS has and
//! what is needed here: it writes into the file that is to be replaced, so that readers see it grow; before a rename it
//! deletes what is there, or makes an empty file; it deletes directories with all that is in them; it knows neither modes
//! nor owners; and of an error it keeps the words alone. So [`service`] is a service of our own, and OpenDAL's layers above it
//! (limits of time, repetitions) are the same as for every store.
//!
//! - `connected`: the client and what it runs on. `service`: what OpenDAL asks; `reading`, `writing`: one file.
//! - `names`: HDFS has names of users and groups, POSIX has numbers.
//! - `refusal`: the client's errors as OpenDAL's.
//!
//! Invariants: nothing is visible under its name before it is complete; a directory is deleted only if nothing is in it; a
//! read is of the version that was asked for, or fails; a question that got no answer takes the connection with it, so that
//! a name node that died silently is not asked for ever.

mod connected;
mod names;
mod reading;
mod refusal;
mod service;
#[cfg(test)]
mod tests;
mod writing;

use std::sync::{Arc, Mutex, MutexGuard};

use curvine_protocol::{Error, ErrorKind, KeptAttributes, Result, UfsVersion};
use hdfs_native::HdfsError;
use hdfs_native::client::FileStatus;
use opendal::{Metadata, MetadataBuilder, Operator};

use self::connected::{Connected, Place};
use self::names::{Names, Of};
use super::attributes::{METADATA_BYTES_MAX, SET_ID, encode};
use super::{Ufs, version};

/// What an ETag of a file in HDFS begins with.
const ETAG: &str = "hdfs-";
/// The HDFS of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Hdfs {
    place: Arc<Place>,
    connection: Arc<Mutex<Connection>>,
    names: Names,
}

/// The client with its connections, which is made when it is first needed.
#[derive(Default)]
struct Connection {
    client: Option<Arc<Connected>>,
    /// How many clients were given up.
    given_up: u64,
}

impl std::fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

/// A question that is under way. If it is given up, nobody knows whether the name node still lives, and the next question
/// goes by a new connection.
struct Question<'a> {
    hdfs: &'a Hdfs,
    given_up: u64,
    is_answered: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut connection = self.hdfs.connection();
        if !self.is_answered && connection.given_up == self.given_up {
            connection.given_up += 1;
            connection.client = None;
        }
    }
}

impl Hdfs {
    /// What the options of a mount say, as [`uri`](super::uri) has made them.
    pub fn new(options: &[(String, String)]) -> Self {
        let of = |wanted: &str| {
            let found = options.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        let keys = options.iter().filter(|(name, _)| name.contains('.'));
        let place = Place {
            name_node: of("name_node").unwrap_or_default(),
            root: of("root").unwrap_or_default().trim_end_matches('/').to_owned(),
            user: of("user_name"),
            config_directory: of("config_dir"),
            keys: keys.cloned().collect(),
        };
        Hdfs {
            place: Arc::new(place),
            connection: Arc::default(),
            names: Names::default(),
        }
    }

    /// As OpenDAL has its services.
    ///
    /// # Errors
    /// None that is known.
    pub fn operator(&self) -> opendal::Result<Operator> {
        Operator::new(service::Builder(Some(self.clone())))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("nobody panics while it holds this")
    }

    fn path(&self, key: &str) -> String {
        match (self.place.root.as_str(), key.trim_matches('/')) {
            ("", "") => "/".to_owned(),
            (root, "") => root.to_owned(),
            (root, key) => format!("{root}/{key}"),
        }
    }

    async fn client(&self) -> std::result::Result<Arc<Connected>, HdfsError> {
        let given_up = {
            let connection = self.connection();
            if let Some(client) = &connection.client {
                return Ok(client.clone());
            }
            connection.given_up
        };
        let place = self.place.clone();
        // It reads files.
        let building = tokio::task::spawn_blocking(move || Connected::new(&place, given_up > 0));
        let built = building.await.map_err(std::io::Error::other)??;
        let mut connection = self.connection();
        Ok(connection.client.get_or_insert(Arc::new(built)).clone())
    }

    /// Asks the name node.
    async fn ask<T, F: Future<Output = std::result::Result<T, HdfsError>>>(
        &self,
        what: impl FnOnce(Arc<Connected>) -> F,
    ) -> opendal::Result<T> {
        let client = self.client().await.map_err(|error| self.place.told(error))?;
        let mut question = Question {
            hdfs: self,
            given_up: self.connection().given_up,
            is_answered: false,
        };
        let answer = what(client).await;
        question.is_answered = true;
        drop(question);
        answer.map_err(|error| self.place.told(error))
    }

    /// What has a path; none if nothing has.
    async fn status(&self, path: &str) -> opendal::Result<Option<FileStatus>> {
        let asked = self.ask(|client| async move {
            match client.get_file_info(path).await {
                Ok(status) => Ok(Some(status)),
                Err(HdfsError::FileNotFound(_)) => Ok(None),
                // What is above it is a file.
                Err(HdfsError::RPCError(class, _)) if refusal::says_nothing_is_there(&class) => Ok(None),
                Err(error) => Err(error),
            }
        });
        asked.await
    }

    /// What OpenDAL hears of a file or directory.
    async fn metadata(&self, status: &FileStatus) -> opendal::Result<Metadata> {
        if status.isdir {
            return Ok(MetadataBuilder::dir().build());
        }
        let mtime_ms = i64::try_from(status.modification_time).unwrap_or(i64::MAX);
        let kept = KeptAttributes {
            mode: Some(u32::from(status.permission) & 0o7777 & !SET_ID),
            uid: self.names.number(Of::User, &status.owner).await,
            gid: self.names.number(Of::Group, &status.group).await,
            mtime_ns: mtime_ms.checked_mul(1_000_000),
            xattrs: Default::default(),
        };
        let mut metadata = MetadataBuilder::file(status.length as u64);
        metadata.last_modified(opendal::raw::Timestamp::from_millisecond(mtime_ms)?);
        metadata.etag(etag(status));
        metadata.user_metadata(encode(&kept, METADATA_BYTES_MAX));
        Ok(metadata.build())
    }

    /// Gives what has a path these attributes, as far as this user may. HDFS tells versions apart by their time, so that is
    /// left to HDFS.
    async fn give(&self, path: &str, now: &FileStatus, kept: &KeptAttributes) -> opendal::Result<()> {
        let owner = self
            .names
            .name(Of::User, kept.uid)
            .await
            .filter(|name| *name != now.owner);
        let group = self
            .names
            .name(Of::Group, kept.gid)
            .await
            .filter(|name| *name != now.group);
        // Whoever gives a file away may not change its mode any more.
        if let Some(mode) = kept.mode.map(|mode| mode & 0o7777 & !SET_ID)
            && mode != u32::from(now.permission)
        {
            let set = self.ask(|client| async move { client.set_permission(path, mode).await });
            refusal::as_far_as_it_may(set.await)?;
        }
        // Each by itself: an owner may change the group, and not the owner.
        for (owner, group) in [(None, group.as_deref()), (owner.as_deref(), None)] {
            if (owner, group) != (None, None) {
                let set = self.ask(|client| async move { client.set_owner(path, owner, group).await });
                refusal::as_far_as_it_may(set.await)?;
            }
        }
        Ok(())
    }
}

/// HDFS has no versions. A file is another one if its time, its mode, its owner or its group is, and its length, which is told
/// beside this.
fn etag(status: &FileStatus) -> String {
    format!(
        "{ETAG}{:x}-{:o}-{}:{}",
        status.modification_time, status.permission, status.owner, status.group
    )
}

impl Ufs {
    /// Gives a version of a file these attributes. The version that this makes; none if it is another one by now.
    pub(super) async fn set_hdfs_attributes(
        &self,
        hdfs: &Hdfs,
        key: &str,
        meant: &UfsVersion,
        kept: &KeptAttributes,
    ) -> Result<Option<UfsVersion>> {
        let path = &hdfs.path(key);
        let given = async {
            let Some(now) = hdfs.status(path).await?.filter(|status| !status.isdir) else {
                return Ok(false);
            };
            if version(&hdfs.metadata(&now).await?) != *meant {
                return Ok(false);
            }
            hdfs.give(path, &now, kept).await.map(|()| true)
        };
        let given = async { given.await.map_err(|error| self.fault(key, error)) };
        if !self.answered(key, given).await? {
            return Ok(None);
        }
        self.stat(key).await?.map(Some).ok_or_else(|| {
            Error::new(
                ErrorKind::UfsChanged,
                format!("{}: `{key}`: is gone, while its attributes were set", self.uri),
            )
        })
    }
}
