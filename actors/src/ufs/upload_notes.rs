//! Uploads in parts that this node has begun in stores, noted in a directory of its own until they have ended.
//!
//! A store keeps the parts of an upload until it is completed or aborted, shows them to nobody, and asks money for
//! them. So an upload is on disk here before its first part is sent. What is noted when a node starts was left by one
//! that died.
//!
//! Invariants: a [`Note`] belongs to whoever makes the upload, and while there is one, nobody else gets to hear of the
//! upload. A note that is dropped before the upload has ended is given up: the upload is then somebody's to abort.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use curvine_protocol::{Error, MountId, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::durable;
use crate::kit::Offload;
use crate::kit::ports::offloaded;

/// Uploads that were given up and that nobody has looked at yet. More stay noted until the next start.
const GIVEN_UP_MAX: usize = 1_024;
const SUFFIX: &str = ".json";
const UNFINISHED: &str = ".new";

/// An upload in parts, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub mount: MountId,
    /// The mount's, which has no secrets.
    pub uri: String,
    /// Relative to the mount's root.
    pub key: String,
    /// What the store calls it.
    pub id: String,
}

/// An upload that nobody makes any more, and where it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftUpload {
    pub upload: Upload,
    path: PathBuf,
}

/// The directory. Cheap to clone.
#[derive(Clone)]
pub struct UploadNotes {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    blocking: Arc<dyn Offload>,
    /// The number of the next note.
    next: AtomicU64,
    given_up: mpsc::Sender<LeftUpload>,
}

impl UploadNotes {
    /// Opens the directory, which is made if it is missing: what was left in it, and where those arrive that are given
    /// up later. Blocks.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(
        directory: PathBuf,
        blocking: Arc<dyn Offload>,
    ) -> Result<(UploadNotes, Vec<LeftUpload>, mpsc::Receiver<LeftUpload>)> {
        let read = |error| Error::from(error).while_doing(format_args!("reading {}", directory.display()));
        make_directory(&directory).map_err(read)?;
        let (mut left, mut next) = (Vec::new(), 0_u64);
        for entry in std::fs::read_dir(&directory).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(UNFINISHED) {
                // It ended before a part was sent.
                std::fs::remove_file(&path).map_err(read)?;
            }
            let Some(number) = name
                .strip_suffix(SUFFIX)
                .and_then(|number| number.parse::<u64>().ok())
            else {
                continue;
            };
            next = next.max(number + 1);
            match load(&path) {
                Ok(upload) => left.push((number, LeftUpload { upload, path })),
                Err(error) => tracing::warn!(
                    "{}: the note of an upload cannot be read ({error}); look for it in the store, and remove the file",
                    path.display()
                ),
            }
        }
        left.sort_by_key(|&(number, _)| number);
        let (given_up, arrivals) = mpsc::channel(GIVEN_UP_MAX);
        let inner = Inner {
            directory,
            blocking,
            next: AtomicU64::new(next),
            given_up,
        };
        let notes = UploadNotes {
            inner: Arc::new(inner),
        };
        Ok((notes, left.into_iter().map(|(_, left)| left).collect(), arrivals))
    }

    /// Notes an upload. It is on disk when this returns.
    ///
    /// # Errors
    /// As the file system says.
    pub async fn begun(&self, upload: Upload) -> Result<Note> {
        let number = self.inner.next.fetch_add(1, Ordering::AcqRel);
        let path = self.inner.directory.join(format!("{number}{SUFFIX}"));
        let target = path.clone();
        let bytes = serde_json::to_vec_pretty(&upload).expect("a note always encodes");
        let stored = offloaded(&*self.inner.blocking, move || {
            durable::replace(
                &target,
                &target.with_extension(format!("json{UNFINISHED}")),
                &bytes,
            )
            .map_err(|error| Error::from(error).while_doing(format_args!("writing {}", target.display())))
        });
        stored.await??;
        Ok(Note {
            left: Some(LeftUpload { upload, path }),
            notes: self.clone(),
        })
    }

    /// Removes the note of an upload that is over. If the removal is lost, the upload is asked for once more.
    pub async fn forget(&self, left: LeftUpload) {
        let path = left.path.clone();
        let removed = offloaded(&*self.inner.blocking, move || {
            std::fs::remove_file(&path).map_err(Error::from)
        });
        if let Err(error) = removed.await.and_then(|removed| removed) {
            tracing::warn!("removing {}: {error}", left.path.display());
        }
    }
}

/// An upload that is being made.
pub struct Note {
    /// None once it has ended.
    left: Option<LeftUpload>,
    notes: UploadNotes,
}

impl Note {
    /// The store has completed it.
    pub async fn ended(mut self) {
        if let Some(left) = self.left.take() {
            self.notes.forget(left).await;
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let Some(left) = self.left.take() else { return };
        if let Err(mpsc::error::TrySendError::Full(left)) = self.notes.inner.given_up.try_send(left) {
            tracing::warn!(
                "{}: an upload of `{}` that failed stays in the store until this node is started again: too many \
                 others wait to be aborted",
                left.upload.uri,
                left.upload.key
            );
        }
    }
}

fn make_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(directory)?;
    let above = directory.parent().unwrap_or(directory);
    File::open(above)?.sync_all()
}

fn load(path: &Path) -> Result<Upload> {
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::ports::Inline;

    fn upload(id: &str) -> Upload {
        Upload {
            mount: MountId(1),
            uri: "s3://bucket".to_owned(),
            key: "a/b".to_owned(),
            id: id.to_owned(),
        }
    }

    fn open(scratch: &tempfile::TempDir) -> (UploadNotes, Vec<LeftUpload>, mpsc::Receiver<LeftUpload>) {
        let directory = scratch.path().join("uploads");
        UploadNotes::open(directory, Arc::new(Inline)).expect("opens")
    }

    fn ids(left: &[LeftUpload]) -> Vec<&str> {
        left.iter().map(|left| left.upload.id.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_noted_when_a_node_dies_is_there_at_its_next_start_and_what_has_ended_is_not() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (notes, left, _arrivals) = open(&scratch);
        assert_eq!(left, []);
        let first = notes.begun(upload("first")).await.expect("noted");
        let _second = notes.begun(upload("second")).await.expect("noted");
        let _third = notes.begun(upload("third")).await.expect("noted");
        first.ended().await;
        let (again, left, _arrivals) = open(&scratch);
        assert_eq!(ids(&left), ["second", "third"]);
        // A new note takes no other's place.
        let _fourth = again.begun(upload("fourth")).await.expect("noted");
        again.forget(left[0].clone()).await;
        assert_eq!(ids(&open(&scratch).1), ["third", "fourth"]);
    }

    #[tokio::test]
    async fn a_note_that_is_dropped_is_given_up_and_stays_on_disk() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (notes, _, mut arrivals) = open(&scratch);
        let ends = notes.begun(upload("ends")).await.expect("noted");
        let fails = notes.begun(upload("fails")).await.expect("noted");
        ends.ended().await;
        assert!(arrivals.try_recv().is_err(), "it is being made");
        drop(fails);
        let given_up = arrivals.try_recv().expect("it was given up");
        assert_eq!(given_up.upload, upload("fails"));
        assert_eq!(open(&scratch).1, std::slice::from_ref(&given_up));
        notes.forget(given_up).await;
        assert_eq!(open(&scratch).1, []);
    }

    #[tokio::test]
    async fn of_more_than_can_wait_the_rest_stay_for_the_next_start() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (notes, _, mut arrivals) = open(&scratch);
        for _ in 0..=GIVEN_UP_MAX {
            drop(notes.begun(upload("one")).await.expect("noted"));
        }
        let mut arrived = 0;
        while arrivals.try_recv().is_ok() {
            arrived += 1;
        }
        assert_eq!(
            (arrived, open(&scratch).1.len()),
            (GIVEN_UP_MAX, GIVEN_UP_MAX + 1)
        );
    }

    #[test]
    fn what_a_crash_left_half_written_is_taken_away_and_damage_keeps_nobody_from_starting() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        open(&scratch);
        let place = |name: &str| scratch.path().join("uploads").join(name);
        for (name, content) in [("3.json.new", "{"), ("4.json", "{"), ("notes.txt", "mine")] {
            std::fs::write(place(name), content).expect("written");
        }
        assert_eq!(open(&scratch).1, []);
        let is_there = |name| place(name).exists();
        assert_eq!(
            ["3.json.new", "4.json", "notes.txt"].map(is_there),
            [false, true, true]
        );
    }
}
