//! The data directory of a role: one process owns it, and it belongs to one cluster.
//!
//! - `lock` is locked (`flock`) as long as the owner lives, however it ends, and names the owner's pid.
//! - `curvine.json` says what is in the directory: role, layout version, cluster.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use curvine_protocol::{ClusterId, Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// The layout that this version writes, and the newest it reads.
const LAYOUT: u32 = 1;
const IDENTITY: &str = "curvine.json";
const LOCK: &str = "lock";

/// A data directory that this process owns until it drops this.
#[derive(Debug)]
pub struct OwnedDir {
    path: PathBuf,
    identity: Identity,
    /// Holds the lock; the kernel lets go of it when the process ends.
    _lock: File,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    layout: u32,
    role: String,
    /// None until the first start has learnt it.
    cluster: Option<ClusterId>,
    /// Of a master: its number in the group. What its log has voted for, it voted for under this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
}

impl OwnedDir {
    /// Takes the directory for a role, making it if it is missing. `cluster`: the one it must belong to, if that is known.
    ///
    /// # Errors
    /// `Busy` if another process has it, naming it; `WrongCluster`; `Config` if it is another role's or of a newer
    /// layout; else why it cannot be written. Nothing is changed then.
    pub fn open(path: &Path, role: &str, cluster: Option<ClusterId>) -> Result<Self> {
        let option = option(role);
        let unusable = |e: std::io::Error| {
            Error::from(e).while_doing(format_args!(
                "cannot use the data directory {}; choose another {option} or make it writable",
                path.display()
            ))
        };
        if path.exists() && !path.is_dir() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the data directory {} is not a directory; choose another {option}",
                    path.display()
                ),
            ));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let path = &path.canonicalize().map_err(unusable)?;
        let lock = take_lock(path, option, unusable)?;
        let known = read_identity(path)?;
        if let Some(identity) = &known {
            identity.check(path, role, cluster)?;
        }
        let identity = known.clone().unwrap_or_else(|| Identity {
            layout: LAYOUT,
            role: role.to_owned(),
            cluster: None,
            id: None,
        });
        // A master's state holds the credentials of mounts.
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(unusable)?;
        let dir = OwnedDir {
            path: path.clone(),
            identity,
            _lock: lock,
        };
        // Not without need: a disk that has filled up must not keep its node from starting.
        if known.is_none() {
            dir.write_identity().map_err(unusable)?;
        }
        Ok(dir)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster it belongs to, once that is known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.identity.cluster
    }

    /// Makes it the directory of the master of this number. One of a version that did not record it takes the number it
    /// is started with.
    ///
    /// # Errors
    /// `Config` if it is another master's; why it cannot be written.
    pub fn belongs_to_master(&mut self, id: u64) -> Result<()> {
        match self.identity.id {
            Some(own) if own == id => Ok(()),
            Some(own) => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is the directory of master {own}, and this is master {id} (--id); start it with --id {own}, or \
                     choose another --data-dir",
                    self.path.display()
                ),
            )),
            None => {
                self.identity.id = Some(id);
                match self.write_identity() {
                    Ok(()) => Ok(()),
                    // As in `open`: it is recorded at a start that has room.
                    Err(e) if e.kind() == std::io::ErrorKind::StorageFull => Ok(()),
                    Err(e) => {
                        Err(Error::from(e).while_doing(format_args!("writing to {}", self.path.display())))
                    }
                }
            }
        }
    }

    /// Records the cluster that the directory turned out to belong to.
    ///
    /// # Errors
    /// `WrongCluster` if it belongs to another.
    pub fn belongs_to(&mut self, cluster: ClusterId) -> Result<()> {
        self.identity
            .check(&self.path, &self.identity.role, Some(cluster))?;
        if self.identity.cluster.is_none() {
            self.identity.cluster = Some(cluster);
            self.write_identity().map_err(|e| {
                Error::from(e).while_doing(format_args!("writing to {}", self.path.display()))
            })?;
        }
        Ok(())
    }

    /// Atomic: a crash leaves the old or the new one.
    fn write_identity(&self) -> std::io::Result<()> {
        let scratch = self.path.join(format!("{IDENTITY}.new"));
        let mut file = File::create(&scratch)?;
        file.write_all(&serde_json::to_vec_pretty(&self.identity)?)?;
        file.sync_all()?;
        std::fs::rename(&scratch, self.path.join(IDENTITY))?;
        File::open(&self.path)?.sync_all()
    }
}

impl Identity {
    fn check(&self, path: &Path, role: &str, cluster: Option<ClusterId>) -> Result<()> {
        let path = path.display();
        if self.layout > LAYOUT {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{path} has layout {} and this version knows up to {LAYOUT}; start a newer curvine-node",
                    self.layout
                ),
            ));
        }
        if self.role != role {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{path} holds a {}, not a {role}; choose another {}",
                    self.role,
                    option(role)
                ),
            ));
        }
        match (self.cluster, cluster) {
            (Some(own), Some(expected)) if own != expected => Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "{path} belongs to cluster {own}, not to {expected}; choose another {}, or the masters of {own}",
                    option(role)
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// How the directories of a role are named on the command line.
fn option(role: &str) -> &'static str {
    match role {
        "worker" => "--data-dirs",
        _ => "--data-dir",
    }
}

fn take_lock(path: &Path, option: &str, unusable: impl Fn(std::io::Error) -> Error) -> Result<File> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(&unusable)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        let _ = lock.read_to_string(&mut owner);
        let owner = match owner.trim() {
            pid if pid == std::process::id().to_string() => "this process already; name it once".to_owned(),
            "" => format!("another process; stop it or choose another {option}"),
            pid => format!("process {pid}; stop it or choose another {option}"),
        };
        return Err(Error::new(
            ErrorKind::Busy,
            format!("{} is in use by {owner}", path.display()),
        ));
    }
    let mut write = || -> std::io::Result<()> {
        lock.rewind()?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        let len = lock.stream_position()?;
        lock.set_len(len)
    };
    write().map_err(&unusable)?;
    Ok(lock)
}

fn read_identity(path: &Path) -> Result<Option<Identity>> {
    let file = path.join(IDENTITY);
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
            Error::new(
                ErrorKind::Config,
                format!("{} is not an identity file of Curvine: {e}", file.display()),
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from(e).while_doing(format_args!("reading {}", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ClusterId = ClusterId(7);
    const OTHER: ClusterId = ClusterId(8);

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn a_new_directory_is_private_and_says_what_it_is() {
        let root = scratch();
        let path = root.path().join("deep/master");
        let mut dir = OwnedDir::open(&path, "master", None).expect("opens");
        dir.belongs_to(OURS).expect("is new");
        let mode = |path: &Path| path.metadata().expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&root.path().join("deep")), 0o700);
        assert_eq!(
            std::fs::read_to_string(path.join(LOCK)).expect("readable").trim(),
            std::process::id().to_string()
        );
        drop(dir);
        let again = OwnedDir::open(&path, "master", Some(OURS)).expect("opens again");
        assert_eq!(again.identity.cluster, Some(OURS));
    }

    #[test]
    fn a_directory_that_is_named_twice_is_refused_with_the_reason() {
        let root = scratch();
        let _held = OwnedDir::open(root.path(), "worker", None).expect("opens");
        let error = OwnedDir::open(root.path(), "worker", None).expect_err("is held");
        assert_eq!(error.kind, ErrorKind::Busy);
        assert_eq!(
            error.message,
            format!(
                "{} is in use by this process already; name it once",
                root.path().display()
            )
        );
    }

    #[test]
    fn a_directory_of_another_cluster_is_refused_and_unchanged() {
        let root = scratch();
        let mut dir = OwnedDir::open(root.path(), "worker", None).expect("opens");
        dir.belongs_to(OURS).expect("is new");
        assert_eq!(
            dir.belongs_to(OTHER).expect_err("is ours").kind,
            ErrorKind::WrongCluster
        );
        drop(dir);
        let before = std::fs::read(root.path().join(IDENTITY)).expect("readable");
        let error = OwnedDir::open(root.path(), "worker", Some(OTHER)).expect_err("is ours");
        assert_eq!(error.kind, ErrorKind::WrongCluster);
        assert_eq!(
            std::fs::read(root.path().join(IDENTITY)).expect("readable"),
            before
        );
    }

    #[test]
    fn the_identity_has_its_golden_bytes() {
        let root = scratch();
        let golden = r#"{
  "layout": 1,
  "role": "worker",
  "cluster": "00000000000000000000000000000007"
}"#;
        let mut dir = OwnedDir::open(root.path(), "worker", None).expect("opens");
        dir.belongs_to(OURS).expect("is new");
        let file = root.path().join(IDENTITY);
        assert_eq!(std::fs::read_to_string(&file).expect("readable"), golden);
        drop(dir);
        // And what a newer version adds without a new layout is passed over.
        std::fs::write(&file, golden.replace("\n}", ",\n  \"more\": 1\n}")).expect("written");
        let again = OwnedDir::open(root.path(), "worker", None).expect("opens");
        assert_eq!(again.identity.cluster, Some(OURS));
    }

    #[test]
    fn a_master_s_directory_is_that_of_one_number() {
        let root = scratch();
        let mut dir = OwnedDir::open(root.path(), "master", None).expect("opens");
        dir.belongs_to_master(1).expect("is new");
        dir.belongs_to(OURS).expect("is new");
        drop(dir);
        let mut dir = OwnedDir::open(root.path(), "master", None).expect("opens");
        let error = dir.belongs_to_master(2).expect_err("is another's");
        assert_eq!(error.kind, ErrorKind::Config);
        assert_eq!(
            error.message,
            format!(
                "{} is the directory of master 1, and this is master 2 (--id); start it with --id 1, or choose another \
                 --data-dir",
                root.path().display()
            )
        );
        dir.belongs_to_master(1).expect("is its own");
        assert_eq!(
            std::fs::read_to_string(root.path().join(IDENTITY)).expect("readable"),
            r#"{
  "layout": 1,
  "role": "master",
  "cluster": "00000000000000000000000000000007",
  "id": 1
}"#
        );
    }

    #[test]
    fn another_role_or_a_newer_layout_is_refused() {
        let root = scratch();
        drop(OwnedDir::open(root.path(), "worker", None).expect("opens"));
        let error = OwnedDir::open(root.path(), "master", None).expect_err("is a worker's");
        assert_eq!(
            error.message,
            format!(
                "{} holds a worker, not a master; choose another --data-dir",
                root.path().display()
            )
        );
        std::fs::write(
            root.path().join(IDENTITY),
            r#"{"layout": 2, "role": "worker", "cluster": null}"#,
        )
        .expect("written");
        let error = OwnedDir::open(root.path(), "worker", None).expect_err("is newer");
        assert_eq!(
            error.message,
            format!(
                "{} has layout 2 and this version knows up to 1; start a newer curvine-node",
                root.path().display()
            )
        );
    }

    #[test]
    fn a_path_below_a_file_is_unusable() {
        let root = scratch();
        std::fs::write(root.path().join("file"), "").expect("written");
        let error = OwnedDir::open(&root.path().join("file/x"), "master", None).expect_err("not a directory");
        assert!(
            error.message.starts_with("cannot use the data directory ")
                && error.message.contains("file/x; choose another --data-dir"),
            "{error}"
        );
        let error = OwnedDir::open(&root.path().join("file"), "worker", None).expect_err("not a directory");
        assert_eq!(
            error.message,
            format!(
                "the data directory {}/file is not a directory; choose another --data-dirs",
                root.path().display()
            )
        );
    }
}
