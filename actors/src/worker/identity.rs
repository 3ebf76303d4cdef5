//! Who this worker is, kept in `worker.json` of its first data directory that is not in memory.

use std::path::Path;

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

    /// [`Self::load`]; if there is none, that of another data directory, which was the first one once, is taken over.
    ///
    /// # Errors
    /// Those of [`Self::load`] and [`Self::store`].
    pub fn load_or_take<'a>(directory: &Path, others: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let mut identity = Self::load(directory)?;
        for other in others {
            if identity.worker.is_some() {
                break;
            }
            identity = Self::load(other)?;
            if identity.worker.is_some() {
                identity.store(directory)?;
            }
        }
        Ok(identity)
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
}
