//! Mounted under file systems.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{EffectId, MountId};
use crate::path::CurvinePath;

/// A mount as the masters keep it. Holds credentials: never printed, never logged, sent to registered workers only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    pub id: MountId,
    pub path: CurvinePath,
    /// `s3://bucket/prefix`, `file:///dir`, ...
    pub uri: String,
    /// Options for the OpenDAL service, under OpenDAL's names, with secrets.
    pub options: BTreeMap<String, String>,
    pub settings: MountSettings,
    pub created_ns: i64,
}

impl std::fmt::Debug for MountRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.public().fmt(f)
    }
}

/// What Curvine itself wants to know of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSettings {
    /// Writes are refused with `ReadOnly` unless set.
    pub writable: bool,
    /// How long what the under file system said about a name is believed, in milliseconds. 0 = ask every time.
    pub staleness_ms: u64,
    /// When what is written is in the under file system.
    #[serde(default)]
    pub write_mode: WriteMode,
    /// Filled in by the leader: the store was seen to honour conditions of requests (`If-Match`, `If-None-Match`).
    #[serde(default)]
    pub conditions: bool,
    /// Where mode, owner, times and extended attributes of files are.
    #[serde(default)]
    pub attributes: AttributesIn,
    /// What the cached blocks of its files may take together, in bytes over all workers; none if that is not limited.
    #[serde(default)]
    pub cache_quota_bytes: Option<u64>,
    /// A worker on a reader's own host keeps a copy of what that reader reads from elsewhere.
    #[serde(default)]
    pub locality: bool,
    /// How many workers have each block of its files, written or cached; none for the cluster's usual number of what is
    /// written, and one of what is cached.
    #[serde(default)]
    pub replicas: Option<u8>,
}

/// Where a writable mount has the mode, owner, modification time and extended attributes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttributesIn {
    /// In the namespace, and with the object where the store keeps them: they are read from it when it is found.
    #[default]
    Object,
    /// In the namespace alone. What is found has the usual ones.
    Namespace,
}

/// When what is written to files of a writable mount is in the under file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteMode {
    /// `close` and `fsync` return when the object is written.
    #[default]
    Through,
    /// `close` returns when the workers have the bytes; objects are written soon afterwards. When too much waits for
    /// that, `close` waits as well.
    Back,
}

impl Default for MountSettings {
    fn default() -> Self {
        MountSettings {
            writable: false,
            staleness_ms: 5_000,
            write_mode: WriteMode::Through,
            conditions: false,
            attributes: AttributesIn::Object,
            cache_quota_bytes: None,
            locality: false,
            replicas: None,
        }
    }
}

/// Options of a mount that are Curvine's own, as people write them.
pub mod own_options {
    /// [`MountSettings::cache_quota_bytes`](super::MountSettings::cache_quota_bytes).
    pub const CACHE_QUOTA: &str = "cache_quota";
    /// [`MountSettings::locality`](super::MountSettings::locality).
    pub const LOCALITY: &str = "locality";
    /// [`MountSettings::replicas`](super::MountSettings::replicas).
    pub const REPLICAS: &str = "replicas";
    pub const ALL: [&str; 3] = [CACHE_QUOTA, LOCALITY, REPLICAS];
}

impl MountSettings {
    /// Whether attributes of files are written to their objects, and read from them.
    pub fn keeps_attributes(&self) -> bool {
        self.writable && self.attributes == AttributesIn::Object
    }
}

/// What is to change of a mount; the rest stays. Holds credentials, like [`MountRecord`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountChanges {
    /// By OpenDAL's names. An empty value takes the option away.
    pub options: BTreeMap<String, String>,
    pub writable: Option<bool>,
    pub staleness_ms: Option<u64>,
    pub write_mode: Option<WriteMode>,
    #[serde(default)]
    pub attributes: Option<AttributesIn>,
    /// 0 takes the quota away.
    #[serde(default)]
    pub cache_quota_bytes: Option<u64>,
    #[serde(default)]
    pub locality: Option<bool>,
    /// 0 takes the number away.
    #[serde(default)]
    pub replicas: Option<u8>,
}

impl std::fmt::Debug for MountChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountChanges")
            .field("options", &self.options.keys())
            .field("writable", &self.writable)
            .field("staleness_ms", &self.staleness_ms)
            .field("write_mode", &self.write_mode)
            .field("attributes", &self.attributes)
            .field("cache_quota_bytes", &self.cache_quota_bytes)
            .field("locality", &self.locality)
            .field("replicas", &self.replicas)
            .finish()
    }
}

/// A mount as users see it: the values of secret options are `***`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountInfo {
    pub id: MountId,
    pub path: CurvinePath,
    pub uri: String,
    pub options: BTreeMap<String, String>,
    pub settings: MountSettings,
    pub created_ns: i64,
    /// What the under file system has not got yet; none where nobody asked.
    #[serde(default)]
    pub backlog: Option<Backlog>,
    /// Keys that are not shown, of the directories that were listed lately.
    #[serde(default)]
    pub hidden: Vec<HiddenKeys>,
    /// Of the workers that the leader knows; none where nobody asked.
    #[serde(default)]
    pub traffic: Option<MountTraffic>,
}

/// What readers of a mount's files got from workers, and what its store gave. Counted since each worker began. A read that a
/// mount's kernel answers from its own pages reaches no worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountTraffic {
    /// Reads of what was on the worker, and their bytes.
    pub hits: u64,
    pub hit_bytes: u64,
    /// Reads that waited for the store, and their bytes.
    pub misses: u64,
    pub miss_bytes: u64,
    /// What the store gave: for readers, ahead of them, and for loads.
    pub fetched_bytes: u64,
    /// What its cached blocks take now on the workers that live, those included that are pinned.
    #[serde(default)]
    pub cached_bytes: u64,
    /// What went because they took more than [`MountSettings::cache_quota_bytes`].
    #[serde(default)]
    pub quota_evicted_bytes: u64,
}

impl MountTraffic {
    /// What readers got.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.hit_bytes.saturating_add(self.miss_bytes)
    }

    /// The part of what readers got that was on the workers, 0 to 1; none if nobody has read.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let all = self.read_bytes();
        (all > 0).then(|| self.hit_bytes as f64 / all as f64)
    }
}

impl std::ops::AddAssign for MountTraffic {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in [
            (&mut self.hits, other.hits),
            (&mut self.hit_bytes, other.hit_bytes),
            (&mut self.misses, other.misses),
            (&mut self.miss_bytes, other.miss_bytes),
            (&mut self.fetched_bytes, other.fetched_bytes),
            (&mut self.cached_bytes, other.cached_bytes),
            (&mut self.quota_evicted_bytes, other.quota_evicted_bytes),
        ] {
            // A worker may say anything.
            *count = count.saturating_add(more);
        }
    }
}

/// Keys of an under file system that are not shown, all for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenKeys {
    /// For people, said of a name: "ends with white space".
    pub why: String,
    pub count: u64,
    /// One of them, relative to the mount's root.
    pub example: String,
}

/// What of a mount is still to be done in its under file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Files whose content, or whose attributes alone, are newer than their objects.
    pub files: u64,
    pub bytes: u64,
    /// When the one that has waited longest was changed, nanoseconds since the Unix epoch; 0 if none waits.
    pub oldest_ns: i64,
    /// Changes and exports that are being made now.
    pub effects: Vec<EffectInfo>,
    /// Files whose last try failed, a few of them, by key: what the under file system said.
    pub failures: Vec<(String, String)>,
}

impl Backlog {
    /// The key of something whose last try failed, and what the under file system said.
    pub fn failure(&self) -> Option<(&str, &str)> {
        let files = self
            .failures
            .iter()
            .map(|(key, failure)| (key.as_str(), failure.as_str()));
        let effects = self.effects.iter();
        let effects = effects.filter_map(|effect| Some((effect.key.as_str(), effect.failure.as_deref()?)));
        files.chain(effects).next()
    }
}

/// A change or an export that an under file system is making.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectInfo {
    pub id: EffectId,
    /// `export`, `rename`, `delete`, ...
    pub what: String,
    /// Relative to the mount's root.
    pub key: String,
    /// Of a rename.
    pub to: Option<String>,
    pub since_ns: i64,
    /// Objects of a tree that are done.
    pub done: u64,
    /// What the last try met, if it failed.
    pub failure: Option<String>,
}

/// Option names whose values are shown. Everything else is a secret until proven harmless.
const SHOWN_OPTIONS: &[&str] = &[
    "endpoint",
    "region",
    "bucket",
    "container",
    "root",
    "enable_virtual_host_style",
    "disable_config_load",
    "disable_ec2_metadata",
    "allow_anonymous",
    "skip_signature",
    "server_side_encryption",
    "default_storage_class",
    "role_arn",
    "checksum_algorithm",
    "batch_max_operations",
    "delete_max_size",
    "disable_stat_with_override",
    "disable_list_objects_v2",
    "enable_request_payer",
    "enable_versioning",
    "config_dir",
];

impl MountRecord {
    /// The record with these changes. Its id, path and URI stay, and with them what is cached.
    pub fn changed(&self, changes: &MountChanges) -> MountRecord {
        let mut changed = self.clone();
        for (name, value) in &changes.options {
            match value.as_str() {
                "" => changed.options.remove(name),
                value => changed.options.insert(name.clone(), value.to_owned()),
            };
        }
        let settings = &mut changed.settings;
        settings.writable = changes.writable.unwrap_or(settings.writable);
        settings.staleness_ms = changes.staleness_ms.unwrap_or(settings.staleness_ms);
        settings.write_mode = changes.write_mode.unwrap_or(settings.write_mode);
        settings.attributes = changes.attributes.unwrap_or(settings.attributes);
        settings.locality = changes.locality.unwrap_or(settings.locality);
        if let Some(bytes) = changes.cache_quota_bytes {
            settings.cache_quota_bytes = (bytes > 0).then_some(bytes);
        }
        if let Some(replicas) = changes.replicas {
            settings.replicas = (replicas > 0).then_some(replicas);
        }
        changed
    }

    /// Whether attributes of a file can be written to its object without its content.
    pub fn writes_attributes(&self) -> bool {
        let scheme = self.uri.split_once("://").map(|(scheme, _)| scheme);
        self.settings.keeps_attributes()
            && match scheme {
                Some("file" | "fs" | "hdfs") => true,
                // Under a role that it has to take on, a node cannot make that request.
                Some("s3" | "s3a" | "s3n") => !self.options.contains_key("role_arn"),
                _ => false,
            }
    }

    /// Whether the same under file system is reached in the same way: an open one of the other record will do.
    pub fn opens_as(&self, other: &MountRecord) -> bool {
        let how = |settings: &MountSettings| (settings.writable, settings.conditions);
        self.uri == other.uri && self.options == other.options && how(&self.settings) == how(&other.settings)
    }

    /// The record without its secrets.
    pub fn public(&self) -> MountInfo {
        // The keys of Hadoop that a mount takes are addresses and times.
        let shown = |name: &String| SHOWN_OPTIONS.contains(&name.as_str()) || name.starts_with("dfs.");
        MountInfo {
            id: self.id,
            path: self.path.clone(),
            uri: self.uri.clone(),
            options: self
                .options
                .iter()
                .map(|(name, value)| {
                    (
                        name.clone(),
                        if shown(name) {
                            value.clone()
                        } else {
                            "***".to_owned()
                        },
                    )
                })
                .collect(),
            settings: self.settings.clone(),
            created_ns: self.created_ns,
            backlog: None,
            hidden: Vec::new(),
            traffic: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_public_shows_a_secret() {
        let options = [
            ("endpoint", "http://s3"),
            ("secret_access_key", "hunter2"),
            ("session_token", "hunter2"),
        ];
        let record = MountRecord {
            id: MountId(1),
            path: CurvinePath::parse("/data").expect("valid"),
            uri: "s3://bucket".to_owned(),
            options: options.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            settings: MountSettings::default(),
            created_ns: 0,
        };
        assert_eq!(record.public().options["secret_access_key"], "***");
        assert_eq!(record.public().options["endpoint"], "http://s3");
        assert!(!format!("{record:?}").contains("hunter2"));
        let changes = MountChanges {
            options: [("session_token".to_owned(), "hunter2".to_owned())].into(),
            ..MountChanges::default()
        };
        assert!(!format!("{changes:?}").contains("hunter2"));
    }

    #[test]
    fn changes_replace_add_and_take_away_options_and_leave_the_rest() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let record = MountRecord {
            id: MountId(1),
            path: CurvinePath::parse("/data").expect("valid"),
            uri: "s3://bucket".to_owned(),
            options: map(&[("region", "r"), ("session_token", "old"), ("access_key_id", "me")]),
            settings: MountSettings::default(),
            created_ns: 7,
        };
        let changed = record.changed(&MountChanges {
            options: map(&[("session_token", ""), ("access_key_id", "you"), ("endpoint", "e")]),
            write_mode: Some(WriteMode::Back),
            ..MountChanges::default()
        });
        assert_eq!(
            changed.options,
            map(&[("region", "r"), ("access_key_id", "you"), ("endpoint", "e")])
        );
        let settings = MountSettings {
            write_mode: WriteMode::Back,
            ..record.settings.clone()
        };
        assert_eq!(changed.settings, settings);
        assert!(!changed.opens_as(&record), "its options are others");
        let slower = record.changed(&MountChanges {
            staleness_ms: Some(9),
            ..MountChanges::default()
        });
        assert!(slower.opens_as(&record) && slower.settings.staleness_ms == 9);
        let limits = |bytes| MountChanges {
            cache_quota_bytes: Some(bytes),
            ..MountChanges::default()
        };
        let limited = record.changed(&limits(7));
        assert!(limited.opens_as(&record) && limited.settings.cache_quota_bytes == Some(7));
        assert_eq!(limited.changed(&MountChanges::default()), limited);
        assert_eq!(limited.changed(&limits(0)), record);
        let kept_twice = |replicas| MountChanges {
            replicas: Some(replicas),
            ..MountChanges::default()
        };
        let twice = record.changed(&kept_twice(2));
        assert!(twice.opens_as(&record) && twice.settings.replicas == Some(2));
        assert_eq!(twice.changed(&MountChanges::default()), twice);
        assert_eq!(twice.changed(&kept_twice(0)), record);
        let local = |locality| MountChanges {
            locality: Some(locality),
            ..MountChanges::default()
        };
        let kept_near = record.changed(&local(true));
        assert!(kept_near.opens_as(&record) && kept_near.settings.locality);
        assert_eq!(kept_near.changed(&local(false)), record);
        let writable = record.changed(&MountChanges {
            writable: Some(true),
            ..MountChanges::default()
        });
        assert!(!writable.opens_as(&record), "it is opened for writing");
    }
}
