//! Who this worker is, kept in `worker.json` of each of its data directories that is not in memory.

use std::path::{Path, PathBuf};

use curvine_protocol::{ClusterId, Error, ErrorKind, Result, WorkerId};
use serde::{Deserialize, Serialize};

use crate::durable;

const FILE: &str = "worker.json";

/// Both are none until the first registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub worker: Option<WorkerId>,
    pub cluster: Option<ClusterId>,
}

impl Identity {
    /// # Errors
    /// `Config` if the file is damaged; those of reading it.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::new(
                    ErrorKind::Config,
                    format!(
                        "{} is damaged ({e}): restore it, or remove the data directory to start as a new worker",
                        path.display()
                    ),
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Identity::default()),
            Err(error) => Err(Error::from(error).while_doing(format_args!("reading {}", path.display()))),
        }
    }

    /// What the directories of a worker that have one agree on; a worker without one is new.
    ///
    /// # Errors
    /// `WrongCluster` if two are of different clusters, `Config` if they are of different workers: their blocks must not be mixed.
    /// Those of [`Self::load`], of a directory, if no other one has an identity.
    pub fn of<'a>(directories: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let (mut found, mut failure) = (None, None);
        for directory in directories {
            match Self::load(directory) {
                Ok(identity) if identity.worker.is_some() => {
                    let (first, known) = *found.get_or_insert((directory, identity));
                    known.check_same(first, &identity, directory)?;
                }
                Ok(_) => {}
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        match (found, failure) {
            (Some((_, identity)), _) => Ok(identity),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Identity::default()),
        }
    }

    fn check_same(&self, own: &Path, other: &Identity, directory: &Path) -> Result<()> {
        let (own, directory) = (own.display(), directory.display());
        if let (Some(mine), Some(theirs)) = (self.cluster, other.cluster)
            && mine != theirs
        {
            return Err(Error::new(
                ErrorKind::WrongCluster,
                format!(
                    "{own} belongs to cluster {mine}, and {directory} to cluster {theirs}: a worker has blocks of one cluster"
                ),
            ));
        }
        match (self.worker, other.worker) {
            (Some(mine), Some(theirs)) if mine != theirs => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{own} is a directory of worker {mine}, and {directory} of worker {theirs}: if worker {theirs} is not to run \
                     any more, remove {directory}/{FILE}, and its blocks become those of worker {mine}"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Has each of the directories have it: any of them may be the one that is left.
    ///
    /// # Errors
    /// Those of [`Self::store`], if not one has it.
    pub fn store_in(&self, directories: &[PathBuf]) -> Result<()> {
        let mut failure = Ok(());
        let mut have_it = 0;
        for directory in directories {
            match Self::load(directory) {
                Ok(known) if known == *self => have_it += 1,
                _ => match self.store(directory) {
                    Ok(()) => have_it += 1,
                    Err(error) => {
                        tracing::debug!(%error, "the worker's identity is not in {}", directory.display());
                        failure = Err(error);
                    }
                },
            }
        }
        if have_it > 0 { Ok(()) } else { failure }
    }

    /// Replaces the file atomically; on disk when this returns.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn store(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let fresh = directory.join(format!("{FILE}.new"));
        let bytes = serde_json::to_vec_pretty(self).expect("an identity always encodes");
        durable::replace(&path, &fresh, &bytes)
            .map_err(|e| Error::from(e).while_doing(format_args!("writing {}", path.display())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(directory.path()), Ok(Identity::default()));
        let identity = Identity {
            worker: Some(WorkerId(3)),
            cluster: Some(ClusterId(7)),
        };
        identity.store(directory.path()).unwrap();
        assert_eq!(Identity::load(directory.path()), Ok(identity));
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(
            Identity::load(directory.path()).map_err(|e| e.kind),
            Err(ErrorKind::Config)
        );
    }

    #[test]
    fn directories_of_several_clusters_or_workers_are_not_mixed() {
        let scratch = tempfile::tempdir().unwrap();
        let with = |name: &str, worker, cluster| {
            let directory = scratch.path().join(name);
            std::fs::create_dir(&directory).unwrap();
            let identity = Identity {
                worker: Some(WorkerId(worker)),
                cluster: Some(ClusterId(cluster)),
            };
            identity.store(&directory).unwrap();
            directory
        };
        let (ours, same) = (with("ours", 1, 7), with("same", 1, 7));
        let (foreign, another) = (with("foreign", 1, 8), with("another", 2, 7));
        let of = |other: &PathBuf| Identity::of([&*ours, &**other].into_iter());
        assert_eq!(of(&same).map(|found| found.worker), Ok(Some(WorkerId(1))));
        let error = of(&foreign).unwrap_err();
        assert_eq!(error.kind, ErrorKind::WrongCluster);
        assert!(error.message.contains("foreign to cluster"), "{error}");
        let error = of(&another).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.contains("remove"), "{error}");
    }

    #[test]
    fn any_directory_that_is_left_has_it() {
        let scratch = tempfile::tempdir().unwrap();
        let directories: Vec<_> = ["a", "b"].map(|name| scratch.path().join(name)).into();
        let found = || Identity::of(directories.iter().map(|directory| &**directory));
        std::fs::create_dir(&directories[0]).unwrap();
        assert_eq!(found(), Ok(Identity::default()));
        let identity = Identity {
            worker: Some(WorkerId(3)),
            cluster: Some(ClusterId(7)),
        };
        identity.store_in(&directories).unwrap();
        assert_eq!(found(), Ok(identity));
        std::fs::create_dir(&directories[1]).unwrap();
        identity.store_in(&directories).unwrap();
        std::fs::write(directories[0].join(FILE), "{").unwrap();
        assert_eq!(found(), Ok(identity));
        std::fs::remove_dir_all(&directories[1]).unwrap();
        assert_eq!(found().map_err(|e| e.kind), Err(ErrorKind::Config));
        std::fs::remove_dir_all(&directories[0]).unwrap();
        assert_eq!(
            identity.store_in(&directories).map_err(|e| e.kind),
            Err(ErrorKind::NotFound)
        );
    }
}
