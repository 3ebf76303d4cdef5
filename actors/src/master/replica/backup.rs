//! Backups: copies of the state that clients read part by part.
//!
//! A copy is a file without a name, held open: it is gone when it was read to its end, when nobody reads it any more, and
//! when the process ends, however it does.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use curvine_protocol::backup::BackupHeader;
use curvine_protocol::checksum::crc32c;
use curvine_protocol::master::{
    BACKUP_KEPT_MS, BACKUP_PART_BYTES, BackupOpened, BackupPart, OpenBackup, ReadBackup,
};
use curvine_protocol::number::to_usize;
use curvine_protocol::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::ReplicaPort;
use crate::kit::metrics::timed;
use crate::kit::ports::offloaded;
use crate::kit::{Answer, Ask, Body, Clock, Endpoint};

/// Copies that are kept at once: each takes as much of the disk as the state does.
const OPEN_MAX: usize = 2;
const KEPT: Duration = Duration::from_millis(BACKUP_KEPT_MS);

/// The copies that are being read, by id. All clones are one.
#[derive(Clone, Default)]
pub struct Backups(Arc<Mutex<HashMap<u64, Open>>>);

struct Open {
    /// None while the copy is being made.
    file: Option<Arc<File>>,
    read: Instant,
}

impl Backups {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// Takes a place, which is given back with what is returned.
    fn begin(&self, id: u64, now: Instant) -> Result<Place> {
        let mut open = self.open();
        if open.len() >= OPEN_MAX {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{OPEN_MAX} backups are being read already; try again when one has ended"),
            ));
        }
        open.insert(
            id,
            Open {
                file: None,
                read: now,
            },
        );
        Ok(Place(self.clone(), id))
    }

    fn file(&self, id: u64, now: Instant) -> Result<Arc<File>> {
        let mut open = self.open();
        let found = open.get_mut(&id).and_then(|open| {
            open.read = now;
            open.file.clone()
        });
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Stale,
                "the master has no such backup any more: another one leads, or nobody read it; begin again",
            )
        })
    }
}

/// One of the places for copies.
struct Place(Backups, u64);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open().remove(&self.1);
    }
}

impl Place {
    /// Until the copy has been read to its end, or by nobody for too long.
    async fn expire(self, file: File, clock: Arc<dyn Clock>) {
        let Place(backups, id) = &self;
        if let Some(open) = backups.open().get_mut(id) {
            open.file = Some(Arc::new(file));
            open.read = clock.now();
        }
        loop {
            let Some(until) = backups.open().get(id).map(|open| open.read + KEPT) else {
                return;
            };
            if clock.now() >= until {
                tracing::info!(id, "a backup was not read to its end and is dropped");
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl ReplicaPort {
    pub(super) async fn open_backup(&self, _: OpenBackup) -> Result<BackupOpened> {
        let id = self.ports.random.next_u64();
        let place = self.backups.begin(id, self.ports.clock.now())?;
        let copied = self.state.copy_out().await?;
        let cluster = self
            .cluster()
            .ok_or_else(|| Error::internal("a leader without a cluster"))?;
        let header = BackupHeader {
            cluster,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time_ns: self.ports.clock.wall_ns(),
            log_index: copied.log_index,
            len_bytes: copied.len_bytes,
        };
        tracing::info!(
            log_index = header.log_index,
            bytes = header.len_bytes,
            "a backup is read"
        );
        tokio::spawn(place.expire(copied.file, self.ports.clock.clone()));
        Ok(BackupOpened { id, header })
    }

    async fn read_backup(&self, ReadBackup { id, offset_bytes }: ReadBackup) -> Result<Answer<ReadBackup>> {
        let file = self.backups.file(id, self.ports.clock.now())?;
        let part = offloaded(&*self.receiver, move || read_part(&file, offset_bytes));
        let part = part
            .await?
            .map_err(|e| Error::from(e).while_doing("reading the copy for a backup"))?;
        if part.is_empty() {
            self.backups.open().remove(&id);
        }
        let checksum = crc32c(&part);
        Ok(Answer::with_body(
            BackupPart { checksum },
            Body::Bytes(part.into()),
        ))
    }
}

fn read_part(file: &File, offset_bytes: u64) -> std::io::Result<Vec<u8>> {
    let left_bytes = file.metadata()?.len().saturating_sub(offset_bytes);
    let mut part = vec![0; to_usize(left_bytes.min(BACKUP_PART_BYTES as u64))];
    file.read_exact_at(&mut part, offset_bytes)?;
    Ok(part)
}

impl Endpoint<ReadBackup> for ReplicaPort {
    /// By whoever made the copy, also when it leads no more.
    fn ask(&self, ask: Ask<ReadBackup>) -> BoxFuture<'static, Result<Answer<ReadBackup>>> {
        let replica = self.clone();
        Box::pin(timed::<ReadBackup, _>(async move {
            replica.read_backup(ask.call).await
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::Ports;

    fn file() -> File {
        tempfile::tempfile().expect("room")
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_nobody_reads_is_dropped_and_gives_its_place_back() {
        let (backups, clock) = (Backups::default(), Ports::system().clock);
        let place = |id| backups.begin(id, clock.now());
        let expiring = tokio::spawn(place(1).expect("room").expire(file(), clock.clone()));
        let other = place(2).expect("room");
        assert_eq!(place(3).map(|_| ()).expect_err("two are").kind, ErrorKind::Busy);
        drop(other);
        drop(place(3).expect("one was given up"));
        tokio::time::sleep(KEPT - Duration::from_secs(1)).await;
        backups.file(1, clock.now()).expect("it is kept");
        tokio::time::sleep(KEPT - Duration::from_secs(1)).await;
        backups.file(1, clock.now()).expect("it was read in between");
        tokio::time::sleep(KEPT + Duration::from_secs(1)).await;
        let gone = backups.file(1, clock.now()).expect_err("it is dropped");
        assert_eq!(gone.kind, ErrorKind::Stale);
        expiring.await.expect("it has ended");
        assert!(backups.open().is_empty());
    }
}
